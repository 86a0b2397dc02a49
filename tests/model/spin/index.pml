/* One bin of the prefix index (runtime/prefix_index.h): two publishers of one key, a finder, and an
 * evictor that publishes the key again under the page number that it freed. Header, slots and state
 * words are one atomic step each, as in the code.
 *
 * Asserted: commits of a key are exclusive (the truth is none before, the page after); a find's or a
 * publish's hit is the truth at its second read of the header; an evicted page was the truth; pins are
 * balanced. Progress (pan -l): everybody does one thing and ends, so that a cycle of states would be
 * somebody who is sent back for ever while nobody gets on; there is none. FEW leaves out the second
 * publisher.
 *
 * Mutations, each of which must be caught:
 *   WAITS            a finder that meets a claimed slot waits for it: only as to progress
 *   NO_SECOND_READ   a hit counts at its pin
 *   BLIND_COMMIT     the commit does not compare the version
 *   PLAIN_CLAIM      allocation stores the state word, and so forgets the pins of late finders
 *   NO_RECHECK       a pin is not compared again after the add
 */
#define SLOTS 2
#define PAGES 3
#define VERSIONS 8

#define EMPTY 0
#define CLAIMED 1
#define VALID 2

#define PRIVATE 0
#define VISIBLE 1
#define EVICTING 2

#define OTHER 1 /* a key that nobody here looks for */

byte slot_state[SLOTS];
byte version = 6; /* wraps at the second commit */
byte slot_page[SLOTS];

byte state[PAGES];
short ref[PAGES];
byte key[PAGES];
byte truth = 0; /* page + 1 of the key, 0: none */

#define SAME_HEADER(a, b, v) (slot_state[0] == a && slot_state[1] == b && version == v)

/* Looks for the key; found: the pinned page, else PAGES. */
inline seek(h0, h1, hv, found, page, i, saw) {
  found = PAGES;
again:
  skip;
  d_step {
    h0 = slot_state[0];
    h1 = slot_state[1];
    hv = version;
    found = PAGES;
    i = 0;
  }
#ifdef WAITS
  if
  :: slot_state[0] == CLAIMED || slot_state[1] == CLAIMED -> goto again
  :: else -> skip
  fi;
#endif
  do
  :: i == SLOTS -> break
  :: i < SLOTS && ((i == 0 && h0 != VALID) || (i == 1 && h1 != VALID)) -> i++
  :: i < SLOTS && ((i == 0 && h0 == VALID) || (i == 1 && h1 == VALID)) ->
    page = slot_page[i];
    if
    :: atomic { state[page] == VISIBLE && key[page] == 0 -> skip }
      d_step { saw = (state[page] == VISIBLE && key[page] == 0); ref[page]++; }
#ifdef NO_RECHECK
      saw = 1;
#endif
      if
      :: !saw -> ref[page]--; i++
      :: saw ->
        if
#ifdef NO_SECOND_READ
        :: d_step { true -> assert(truth == page + 1); found = page; }
          break
#else
        :: d_step {
            version == hv && slot_state[i] == VALID ->
            assert(truth == page + 1 && state[page] == VISIBLE && ref[page] > 0);
            found = page;
          }
          break
        :: atomic { version != hv || slot_state[i] != VALID -> ref[page]-- }
          goto again
#endif
        fi
      fi
    :: else -> i++
    fi
  od
}

inline publish(mine) {
  slot = SLOTS;
rescan:
  skip;
  seek(h0, h1, hv, found, page, i, saw);
  if
  :: found != PAGES -> /* lost */
    if
    :: slot != SLOTS ->
      d_step { assert(state[mine] == VISIBLE); state[mine] = PRIVATE; ref[mine]--; }
      d_step { assert(slot_state[slot] == CLAIMED); slot_state[slot] = EMPTY; }
    :: else -> skip
    fi;
    d_step { assert(ref[found] > 0); ref[found]--; }
    assert(state[mine] == PRIVATE);
  :: else ->
    if
    :: slot == SLOTS -> /* claim */
      atomic {
        if
        :: slot_state[0] == EMPTY -> slot_state[0] = CLAIMED; slot = 0
        :: slot_state[0] != EMPTY && slot_state[1] == EMPTY -> slot_state[1] = CLAIMED; slot = 1
        :: else -> skip
        fi
      }
    :: else -> skip
    fi;
    if
    :: slot == SLOTS -> skip /* the bin is full: not indexed */
    :: slot != SLOTS ->
      slot_page[slot] = mine;
      d_step {
        if
        :: state[mine] == PRIVATE -> key[mine] = 0; state[mine] = VISIBLE; ref[mine]++
        :: else -> skip
        fi
      }
      if
#ifdef BLIND_COMMIT
      :: d_step {
          true ->
#else
      :: d_step {
          version == hv ->
#endif
          assert(slot_state[slot] == CLAIMED && truth == 0);
          slot_state[slot] = VALID;
          version = (version + 1) % VERSIONS;
          truth = mine + 1;
        }
        d_step { assert(ref[mine] > 0); ref[mine]--; }
#ifndef BLIND_COMMIT
      :: version != hv -> goto rescan
#endif
      fi
    fi
  fi
}

inline take(mine) {
  /* The pool gave the number: nobody else has it. The state word stays as it is. */
  d_step {
    assert(state[mine] == PRIVATE);
    key[mine] = OTHER;
#ifdef PLAIN_CLAIM
    ref[mine] = 0;
#endif
  }
}

proctype Publisher(byte mine) {
  byte h0, h1, hv, found, page, i, slot;
  bit saw;
  take(mine);
  publish(mine);
}

proctype Finder() {
  byte h0, h1, hv, found, page, i;
  bit saw;
  seek(h0, h1, hv, found, page, i, saw);
  if
  :: found != PAGES ->
    assert(state[found] == VISIBLE && key[found] == 0);
    d_step { assert(ref[found] > 0); ref[found]--; }
  :: else -> skip
  fi
}

proctype Evictor(byte victim) {
  byte h0, h1, hv, found, page, i, slot, at;
  bit saw;
  if
  :: d_step {
      state[victim] == VISIBLE && ref[victim] == 0 ->
      state[victim] = EVICTING;
      assert(truth == victim + 1);
      truth = 0;
    }
    d_step {
      at = (slot_state[0] == VALID && slot_page[0] == victim -> 0 : 1);
      assert(slot_state[at] == VALID && slot_page[at] == victim);
      slot_state[at] = EMPTY;
    }
    d_step { state[victim] = PRIVATE; }
    take(victim);
    publish(victim);
  :: else -> skip
  fi
}

init {
  atomic {
    state[0] = VISIBLE;
    key[0] = 0;
    slot_page[0] = 0;
    slot_state[0] = VALID;
    truth = 1;
    run Evictor(0);
    run Publisher(1);
#ifndef FEW
    run Publisher(2);
#endif
    run Finder();
  }
  (_nr_pr == 1);
  assert(ref[0] == 0 && ref[1] == 0 && ref[2] == 0);
  assert(slot_state[0] != CLAIMED && slot_state[1] != CLAIMED);
  assert(truth == 0 || state[truth - 1] == VISIBLE);
}
