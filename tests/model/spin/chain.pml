/* A parent and its child (runtime/page_table.h, evict.h): publish under a pinned parent, finds that
 * stamp what they release, two evictors that take leaves.
 *
 * Asserted: a visible child has a visible parent, always; whoever goes has the latest release of its
 * subtree as its stamp; counts are exact.
 *
 * Mutations, each of which must be caught:
 *   NO_PIN       the child's count is taken without a pin on the parent
 *   DROP_FIRST   the parent loses the child before it has the child's stamp
 *   EARLY_DROP   the parent loses the child before the child is gone
 *   IGNORE_CHILDREN  a page with children may go
 *   OVERWRITE    the child's stamp is stored into the parent's, not the maximum
 */
#define PARENT 0
#define CHILD 1
#define PAGES 2

#define GONE 0
#define PRIVATE 1
#define VISIBLE 2
#define EVICTING 3

byte state[PAGES];
byte ref[PAGES];
byte children[PAGES];
byte stamp[PAGES];
byte truth[PAGES]; /* the latest release in the subtree */

#define MAX(a, b) ((a) < (b) -> (b) : (a))

/* The one law that every step must keep. */
#define monotone (state[CHILD] != VISIBLE || state[PARENT] == VISIBLE)

inline pin(p, ok) {
  ok = 0;
  if
  :: state[p] == VISIBLE ->
    d_step { ok = (state[p] == VISIBLE); ref[p]++; }
    if
    :: !ok -> ref[p]--
    :: else -> skip
    fi
  :: else -> skip
  fi
}

inline release(p, e) {
  d_step {
    truth[p] = MAX(truth[p], e);
    if
    :: p == CHILD -> truth[PARENT] = MAX(truth[PARENT], e)
    :: else -> skip
    fi
  }
  d_step { stamp[p] = MAX(stamp[p], e); }
  d_step { assert(ref[p] > 0); ref[p]--; }
}

proctype Publisher() {
  bit ok;
#ifdef NO_PIN
  ok = (state[PARENT] == VISIBLE);
#else
  pin(PARENT, ok);
#endif
  if
  :: !ok -> skip
  :: ok ->
    if
    :: d_step { state[CHILD] == GONE -> state[CHILD] = PRIVATE; stamp[CHILD] = 0; truth[CHILD] = 0; }
      children[PARENT]++;
      d_step { state[CHILD] = VISIBLE; ref[CHILD]++; assert(monotone); }
      release(CHILD, 2)
    :: else -> skip
    fi;
#ifndef NO_PIN
    /* Its own stamp may be older or younger than the child's. */
    if
    :: release(PARENT, 1)
    :: release(PARENT, 5)
    fi
#endif
  fi
}

proctype Finder(byte e) {
  bit ok;
  pin(CHILD, ok);
  if
  :: ok ->
    assert(state[CHILD] == VISIBLE && state[PARENT] == VISIBLE);
    release(CHILD, e)
  :: else -> skip
  fi
}

inline evict(p) {
#ifdef IGNORE_CHILDREN
  if
  :: d_step { state[p] == VISIBLE && ref[p] == 0 -> state[p] = EVICTING; assert(monotone); }
#else
  if
  :: d_step {
      state[p] == VISIBLE && ref[p] == 0 && children[p] == 0 ->
#ifdef EARLY_DROP
      if
      :: p == CHILD -> children[PARENT]--; state[p] = VISIBLE
      :: else -> state[p] = EVICTING
      fi;
#else
      state[p] = EVICTING;
#endif
      assert(monotone);
    }
#endif
#ifdef EARLY_DROP
    if
    :: p == CHILD -> d_step { state[p] = EVICTING; assert(monotone); }
    :: else -> skip
    fi;
#endif
    r = stamp[p];
    assert(r == truth[p]);
    if
    :: p == CHILD ->
#ifdef DROP_FIRST
      children[PARENT]--;
#endif
#ifdef OVERWRITE
      stamp[PARENT] = r;
#else
      d_step { stamp[PARENT] = MAX(stamp[PARENT], r); }
#endif
#if !defined(DROP_FIRST) && !defined(EARLY_DROP)
      d_step { assert(children[PARENT] > 0); children[PARENT]--; }
#endif
    :: else -> skip
    fi;
    state[p] = GONE;
  :: else -> skip
  fi
}

proctype Evictor() {
  byte r;
  evict(CHILD);
  evict(PARENT);
}

init {
  atomic {
    state[PARENT] = VISIBLE;
    run Publisher();
    run Finder(3);
    run Finder(4);
    run Evictor();
    run Evictor();
  }
  (_nr_pr == 1);
  assert(ref[PARENT] == 0 && ref[CHILD] == 0);
  assert(children[PARENT] == (state[CHILD] == VISIBLE -> 1 : 0));
  assert(monotone);
}
