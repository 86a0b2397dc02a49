/* Streams, clock and limbo (runtime/stream_table.h, limbo.h, epoch_clock.h): one frame, read by work of
 * two streams that run late and in any order between them; a release stamps its page; an evictor
 * retires the frame; a stepper advances the clock, records an event on each stream, asks and drains.
 * An answer may be late (not yet, although the work is done); with -DLOST one stream's events never
 * answer.
 *
 * Asserted: when the frame is freed, all work that reads it has run; it is freed once; at the end it is
 * not stranded: a frame that limbo knows to have passed is not in limbo. With LOST: it stays there.
 *
 * Mutations, each of which must be caught:
 *   RECORD_FIRST    the event is recorded before the clock moves
 *   DROP_FIRST      the pin is dropped before the stamp is raised
 *   LATE_ENQUEUE    the release comes before the work is given to the stream
 *   STORE_STAMP     the stamp is stored, not raised to the maximum
 *   NO_SECOND_LOOK  a push does not look again at what drains have learnt
 *   ONE_STREAM      min_passed leaves a stream out
 */
#define STREAMS 2
#ifndef STEPS
#define STEPS 2
#endif

byte now = 1;
byte given[STREAMS];  /* work given to each stream */
byte done[STREAMS];   /* and run */
byte last_read[STREAMS]; /* the work that reads the frame */

byte mark[STREAMS]; /* an event: behind so much work */
byte tag[STREAMS];  /* for that epoch; 0: none in flight */
byte passed[STREAMS];

byte ref = STREAMS; /* a pin for each engine; taken before, as they race for nothing here */
byte stamp = 0;
bit evicting = 0;

byte limbo_passed = 0, drained = 0, count = 0;
byte frame_epoch = 0;
bit in_stack = 0;
byte freed = 0;

inline free_frame() {
  d_step {
    assert(done[0] >= last_read[0] && done[1] >= last_read[1]);
    assert(freed == 0);
    freed = 1;
  }
}

inline sweep(got, p) {
  d_step { got = in_stack; in_stack = 0; }
  if
  :: got ->
    p = limbo_passed;
    if
    :: frame_epoch <= p ->
      free_frame();
      count--;
    :: else -> /* back, and look again */
      in_stack = 1;
      if
      :: frame_epoch <= limbo_passed ->
        d_step { got = in_stack; in_stack = 0; }
        if
        :: got -> free_frame(); count--;
        :: else -> skip
        fi
      :: else -> skip
      fi
    fi
  :: else -> skip
  fi
}

inline least(m) {
  m = now;
  m = (passed[0] < m -> passed[0] : m);
#ifndef ONE_STREAM
  m = (passed[1] < m -> passed[1] : m);
#endif
}

/* One drain; m: what has passed. Two lines of the wheel are one here. */
inline drain(m, d, got, p) {
  d_step { limbo_passed = (limbo_passed < m -> m : limbo_passed); }
  if
  :: count == 0 -> skip
  :: else ->
    p = limbo_passed;
    m = p;
    d = drained;
    if
    :: d >= m -> skip
    :: else ->
      sweep(got, p);
      d_step { drained = (drained < m -> m : drained); }
    fi
  fi
}

proctype Engine(byte s) {
  byte e;
#ifndef LATE_ENQUEUE
  d_step { given[s]++; last_read[s] = given[s]; }
#endif
  e = now;
#ifdef DROP_FIRST
  ref--;
#endif
#ifdef STORE_STAMP
  stamp = e;
#else
  d_step { stamp = (stamp < e -> e : stamp); }
#endif
#ifndef DROP_FIRST
  ref--;
#endif
#ifdef LATE_ENQUEUE
  d_step { given[s]++; last_read[s] = given[s]; }
#endif
}

proctype Gpu(byte s) {
end:
  do
  :: done[s] < given[s] -> done[s]++
  od
}

proctype Evictor() {
  byte r, m, p;
  bit got;
  (ref == 0) -> evicting = 1;
  r = stamp;
  least(m);
  if
  :: r <= m -> free_frame()
  :: else ->
    count++;
    frame_epoch = r;
    in_stack = 1;
#ifndef NO_SECOND_LOOK
    if
    :: r <= limbo_passed -> sweep(got, p)
    :: else -> skip
    fi
#endif
  fi
}

inline ask(s) {
  if
  :: tag[s] != 0 && done[s] >= mark[s] ->
#ifdef LOST
    if
    :: s == 0 -> passed[s] = tag[s]; tag[s] = 0
    :: else -> skip
    fi
#else
    passed[s] = tag[s];
    tag[s] = 0
#endif
  :: true -> skip /* not yet, or late */
  fi
}

/* An event of an epoch that has been answered may be recorded anew; one in flight is put off. */
inline record(s, e) {
  d_step { mark[s] = given[s]; tag[s] = e; }
}

proctype Stepper() {
  byte e, m, d, p, i;
  bit got;
  do
  :: i < STEPS ->
    i++;
#ifdef RECORD_FIRST
    e = now;
    record(0, e);
    record(1, e);
    now++;
#else
    d_step { e = now; now++; }
    record(0, e);
    record(1, e);
#endif
    ask(0);
    ask(1);
    least(m);
    drain(m, d, got, p);
  :: i == STEPS -> break
  od
}

/* Drains beside the stepper, with what it knows to have passed. */
proctype Drainer() {
  byte m, d, p;
  bit got;
  least(m);
  drain(m, d, got, p);
}

init {
  atomic {
    run Gpu(0);
    run Gpu(1);
    run Engine(0);
    run Engine(1);
    run Evictor();
    run Stepper();
    run Drainer();
  }
  (_nr_pr == 3); /* all but the streams, which never end, and this */
  assert(freed + in_stack == 1 && count == in_stack);
  assert(!in_stack || frame_epoch > limbo_passed || drained < limbo_passed);
#ifdef LOST
  assert(freed == 0 || passed[1] == 0);
#endif
}
