// Promise 1 under the scheduler: a frame is never written by its next owner before the last reader
// has passed. Clock, streams, limbo, page table, index and reclaimer together, with a device that
// runs work when it likes; engines, an evictor, a stepper and the device are threads of the model.
//
// Every page's frame holds its key. A use pins a page, enqueues a check of the frames of its whole
// chain, and releases. Frames are written at once, or by work of the stream that takes them out of
// limbo. A check that reads another key, at whatever time the device runs it, is a violation.
//
// The orders of the design are each broken once; the same model must then find a violation.
#define BOOST_TEST_MODULE model_reuse
#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>
#include <vector>

#include "runtime/limbo.h"
#include "runtime/stream_table.h"
#include "tests/support/adversary_device.h"
#include "tests/support/reclaim_world.h"
#include "tests/support/scheduler.h"

using namespace quire;
using namespace quire::model;
using namespace quire::test;

namespace {

// The orders as they must be; each mutant below changes one.
struct Right {
  using Evict = EvictOrders;
  using Step = StepOrders;
  static constexpr bool kReleaseBeforeEnqueue = false;
  static constexpr bool kClockBeforeEnqueue = false;
  static constexpr bool kDropBeforeRaise = false;
  static constexpr bool kStoreStamp = false;
};
struct ReleaseBeforeEnqueue : Right {
  static constexpr bool kReleaseBeforeEnqueue = true;
};
struct ClockBeforeEnqueue : Right {
  static constexpr bool kClockBeforeEnqueue = true;
};
struct DropBeforeRaise : Right {
  static constexpr bool kDropBeforeRaise = true;
};
struct StoreStamp : Right {
  static constexpr bool kStoreStamp = true;
};
struct RecordFirst : Right {
  struct Step {
    static constexpr bool kRecordFirst = true;
  };
};
struct ChildDroppedFirst : Right {
  struct Evict : EvictOrders {
    static constexpr bool kDropFirst = true;
  };
};
struct StampOverwritten : Right {
  struct Evict : EvictOrders {
    static constexpr bool kOverwriteStamp = true;
  };
};

constexpr uint32_t kFrames = 3;
constexpr uint32_t kPages = 6;
constexpr uint32_t kDepth = 3;

template <class Orders>
class World {
  using A = ModelAtomics;

 public:
  explicit World(uint64_t seed)
      : device(seed),
        base(kPages),
        memory_{region_memory(FramePool<A>::bytes(kFrames)),
                region_memory(Limbo<A>::bytes(kFrames)),
                region_memory(StreamTable<A, typename Orders::Step>::bytes(2))},
        frames(memory_[0].get(), kFrames),
        limbo(memory_[1].get(), kFrames),
        streams(memory_[2].get(), 2, base.clock, &device),
        content(kFrames) {
    frames.format();
    limbo.format();
    streams.format();
    device.set_spurious(32);
    for (uint32_t s = 0; s < 2; ++s) {
      stream[s] = device.add_stream();
      require(streams.add(stream[s], 0, 0, &slot[s]) == Status::kOk, "add");
    }
    base.on_evicted = [this](uint32_t page, uint32_t stamp, EvictReason) {
      const uint64_t r = base.clock.widen(stamp);
      // r is known to have been released by now.
      streams.want(r);
      limbo.retire(base.pages[page].frame.load(), r, streams.min_passed(), give_back());
    };
    Key key{7, 7};
    for (uint32_t i = 0; i < kDepth; ++i) keys[i] = key = child_key(key, i);
  }
  ~World() { streams.close(); }

  auto give_back() {
    return [this](const uint32_t *ids, size_t n) {
      // From here on the next owner may write at any time: so somebody does.
      for (size_t i = 0; i < n; ++i) content[ids[i]] = 0;
      require(frames.free(ids, n) == n, "freed twice");
    };
  }

  // A frame to write: from the pool, from limbo for this stream, or none. *own: by the stream.
  bool take_frame(uint32_t s, uint32_t *frame, bool *own) {
    *own = false;
    if (frames.alloc(1, frame)) return true;
    base.reclaimer->reclaim(1);
    streams.poll();
    limbo.drain(streams.min_passed(), give_back());
    if (frames.alloc(1, frame)) return true;
    *own = true;
    return limbo.take(1, streams.min_passed_except(slot[s]), frame, give_back()) == 1;
  }

  void write(uint32_t s, uint32_t frame, uint64_t value, bool own) {
    if (!own) {
      content[frame] = value;
      return;
    }
    uint64_t *at = &content[frame];
    require(device.launch(stream[s], [at, value] { *at = value; }) == Status::kOk, "launch");
  }

  // Publishes the page of the chain at `depth`, if its parent is there. A pin is left on nothing.
  void make(uint32_t s, uint32_t depth) {
    uint32_t parent = kNone;
    if (depth > 0 && (parent = base.index.find_and_pin(keys[depth - 1])) == kNone) return;
    uint32_t page = kNone, frame = kNone;
    bool own = false;
    if (base.pool.alloc(1, &page)) {
      if (take_frame(s, &frame, &own)) {
        publish(s, depth, parent, page, frame, own);
      } else {
        base.pool.free(&page, 1);
      }
    }
    if (parent != kNone) drop(parent, base.clock.now());
  }

  void publish(uint32_t s, uint32_t depth, uint32_t parent, uint32_t page, uint32_t frame,
               bool own) {
    write(s, frame, keys[depth].lo, own);
    const uint64_t epoch = base.clock.now();
    const uint32_t generation = base.pages.generation(page);
    auto &d = base.pages[page];
    d.parent.store(parent);
    d.depth.store(depth);
    d.frame.store(frame);
    d.writer.store(static_cast<uint16_t>(own ? slot[s] + 1 : 0));
    d.ready_epoch.store(static_cast<uint32_t>(epoch));
    if (own) streams.want_of(slot[s], epoch);
    base.pages.set_stamp(page, static_cast<uint32_t>(epoch));
    if (parent != kNone) require(base.pages.add_child(parent), "child");
    const Insert result = base.index.insert(keys[depth], page);
    if (result.status == Insert::kInserted) return drop(page, base.clock.now());
    // The loser's frame retires with the present epoch.
    if (result.status == Insert::kFound) drop(result.page, base.clock.now());
    if (parent != kNone) base.pages.drop_child(parent);
    require(base.pages.free_private(page, generation), "private");
    base.pool.free(&page, 1);
    const uint64_t r = base.clock.now();
    streams.want(r);
    limbo.retire(frame, r, streams.min_passed(), give_back());
  }

  void drop(uint32_t page, uint64_t epoch) {
    if constexpr (Orders::kDropBeforeRaise) {
      base.pages.unpin(page);
      base.pages.raise_stamp(page, static_cast<uint32_t>(epoch));
    } else {
      if constexpr (Orders::kStoreStamp) {
        base.pages.set_stamp(page, static_cast<uint32_t>(epoch));
      } else {
        base.pages.raise_stamp(page, static_cast<uint32_t>(epoch));
      }
      base.pages.unpin(page);
    }
  }

  struct Check {
    const uint64_t *at[kDepth];
    uint64_t value[kDepth];
    uint32_t n;
    bool *violated;
    void operator()() const {
      for (uint32_t i = 0; i < n; ++i) *violated |= *at[i] != value[i];
    }
  };

  // Reads a chain on a stream; false where it is not there.
  bool use(uint32_t s, uint32_t depth) {
    const uint32_t tail = base.index.find_and_pin(keys[depth]);
    if (tail == kNone) return false;
    Check check{{}, {}, 0, &violated};
    bool readable = true;
    for (uint32_t page = tail; page != kNone; page = base.pages[page].parent.load()) {
      const auto &d = base.pages[page];
      check.at[check.n] = &content[d.frame.load()];
      check.value[check.n++] = keys[d.depth.load()].lo;
      const uint32_t writer = d.writer.load();
      if (writer == 0 || writer - 1 == slot[s]) continue;
      const uint64_t epoch = base.clock.widen(d.ready_epoch.load());
      readable &= streams.wait_for(writer - 1, epoch, stream[s]) == Status::kOk;
    }
    const uint64_t early = base.clock.now();
    rest(1);
    if (Orders::kReleaseBeforeEnqueue) drop(tail, base.clock.now());
    rest(1);
    if (readable) require(device.launch(stream[s], check) == Status::kOk, "launch");
    if (!Orders::kReleaseBeforeEnqueue) {
      drop(tail, Orders::kClockBeforeEnqueue ? early : base.clock.now());
    }
    return true;
  }

  // Somebody does something else for a while.
  void rest(uint32_t atomics) {
    while (atomics-- > 0) pause.fetch_add(1);
  }

  // At rest: everything comes back.
  void finish() {
    device.set_spurious(0);
    device.pump();
    for (uint32_t i = 0; i < 3 && limbo.count() != 0; ++i) {
      streams.step();
      device.pump();
      streams.poll();
      limbo.drain(streams.min_passed(), give_back());
    }
    require(!violated, "a frame was written before its last reader had passed");
    require(limbo.count() == 0, "frames are stranded in limbo");
    const uint32_t held = base.pages.counts().visible;
    require(frames.available() + held == kFrames, "frames are lost");
    require(base.validate() && limbo.validate() && streams.validate() && frames.validate(),
            "invalid at rest");
  }

  AdversaryDevice device;
  ReclaimWorld<A, typename Orders::Evict> base;

 private:
  Memory memory_[3];

 public:
  FramePool<A> frames;
  Limbo<A> limbo;
  StreamTable<A, typename Orders::Step> streams;
  std::vector<uint64_t> content;
  Stream stream[2];
  uint32_t slot[2];
  Key keys[kDepth];
  Atomic<uint32_t> pause{0};  // where an engine does something else
  bool violated = false;
};

template <class Orders>
void one_execution(uint64_t seed) {
  World<Orders> world(seed);
  Random random(seed * 77);
  for (uint32_t depth = 0; depth < kDepth; ++depth) world.make(0, depth);
  // From a switch at every other atomic to long runs that one thread sleeps through.
  Scheduler s(seed, 2u << random.below(6));
  for (uint32_t engine = 0; engine < 2; ++engine) {
    s.spawn([&world, &random, engine] {
      for (uint32_t i = 0; i < 8; ++i) {
        const uint32_t depth = random.below(kDepth);
        if (!world.use(engine, depth)) world.make(engine, depth);
      }
    });
  }
  for (uint32_t evictor = 0; evictor < 2; ++evictor) {
    s.spawn([&] {
      for (uint32_t i = 0; i < 3; ++i) {
        world.rest(random.below(16));
        world.base.reclaimer->reclaim(1);
      }
    });
  }
  s.spawn([&] {
    // Where something always waits, streams are known to have passed early: the harder case.
    const bool eager = random.one_in(2);
    for (uint32_t i = 0; i < 10; ++i) {
      if (eager) world.streams.need();
      world.streams.step();
      world.rest(random.below(4));
      world.streams.poll();
      world.limbo.drain(world.streams.min_passed(), world.give_back());
    }
  });
  s.spawn([&] {
    for (uint32_t i = 0; i < 24; ++i) {
      world.rest(random.below(6));
      world.device.step();
    }
  });
  s.run();
  world.finish();
}

// One chain and two users while streams are asked all the time; then two evictors. The stream of
// the one who reads runs nothing until the end: what it enqueued is all to come.
template <class Orders>
void one_duel(uint64_t seed) {
  World<Orders> world(seed);
  Random random(seed * 79);
  const uint32_t deep = random.below(2);
  for (uint32_t depth = 0; depth <= deep; ++depth) world.make(0, depth);
  const auto step = [&world](uint32_t times) {
    for (uint32_t i = 0; i < times; ++i) {
      world.streams.need();
      world.streams.step();
      world.streams.poll();
      world.limbo.drain(world.streams.min_passed(), world.give_back());
    }
  };
  {
    Scheduler uses(seed, 2u << random.below(5));
    // One only pins, and takes its time between reading the clock and raising the stamp.
    uses.spawn([&] {
      const uint32_t tail = world.base.index.find_and_pin(world.keys[deep]);
      require(tail != kNone, "not there");
      const uint64_t epoch = world.base.clock.now();
      world.rest(random.below(100));
      world.drop(tail, epoch);
    });
    uses.spawn([&] {
      world.rest(random.below(100));
      require(world.use(1, deep), "not there");
    });
    world.device.stall(world.stream[1], true);
    uses.spawn([&] { step(3); });
    uses.run();
  }
  {
    Scheduler evictions(seed, 2u << random.below(5));
    for (uint32_t evictor = 0; evictor < 2; ++evictor) {
      evictions.spawn([&] { world.base.reclaimer->reclaim(1); });
    }
    evictions.spawn([&] { step(2); });
    evictions.run();
  }
  world.device.stall(world.stream[1], false);
  world.finish();
}

// Whether the model sees what is wrong with these orders.
template <class Orders>
bool caught(uint64_t seeds) {
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    try {
      one_duel<Orders>(seed);
      one_execution<Orders>(seed);
    } catch (const std::exception &e) {
      const std::string what = e.what();
      BOOST_TEST_MESSAGE("seed " << seed << ": " << what);
      if (what.find("last reader") != std::string::npos) return true;
      throw;
    }
  }
  return false;
}

}  // namespace

BOOST_AUTO_TEST_CASE(promise_1_no_frame_is_written_before_its_last_reader_has_passed) {
  BOOST_TEST(for_each_seed(10000, one_execution<Right>) > 0U);
  BOOST_TEST(for_each_seed(10000, one_duel<Right>) > 0U);
}

// Order 1: the engine's enqueue precedes its release.
BOOST_AUTO_TEST_CASE(a_release_before_the_enqueue_is_caught) {
  BOOST_TEST(caught<ReleaseBeforeEnqueue>(20000));
}
BOOST_AUTO_TEST_CASE(a_clock_that_is_read_before_the_enqueue_is_caught) {
  BOOST_TEST(caught<ClockBeforeEnqueue>(20000));
}
// Order 2: read the clock, raise the stamp to the maximum, then drop.
BOOST_AUTO_TEST_CASE(a_pin_that_is_dropped_before_the_stamp_is_raised_is_caught) {
  BOOST_TEST(caught<DropBeforeRaise>(20000));
}
BOOST_AUTO_TEST_CASE(a_stamp_that_is_stored_instead_of_raised_is_caught) {
  BOOST_TEST(caught<StoreStamp>(20000));
}
// Order 3: an advance moves the clock before it records.
BOOST_AUTO_TEST_CASE(an_event_that_is_recorded_before_the_clock_moves_is_caught) {
  BOOST_TEST(caught<RecordFirst>(20000));
}
// As a child goes, its parent's stamp is raised, and only then the count drops.
BOOST_AUTO_TEST_CASE(a_child_that_is_dropped_before_its_stamp_is_handed_up_is_caught) {
  BOOST_TEST(caught<ChildDroppedFirst>(20000));
}
BOOST_AUTO_TEST_CASE(a_parents_stamp_that_is_overwritten_is_caught) {
  BOOST_TEST(caught<StampOverwritten>(20000));
}
