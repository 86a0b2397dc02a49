// Clock, guards, streams and limbo over the simulated weak memory: promise 1, that a frame is not
// written by its next owner before its last reader has passed, with frames as plain memory: a write
// that does not happen after the stream's reads is a data race, and ends the execution.
//
// GPU streams are threads of the model that run their tasks late. Frames go the whole way: read by
// work of a stream, released with a stamp, retired, through limbo or not, to the next writer.
#define BOOST_TEST_MODULE model_weak_reuse
#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <memory>
#include <vector>

#include "allocators/frame_pool.h"
#include "runtime/limbo.h"
#include "runtime/page_table.h"
#include "runtime/stream_table.h"
#include "tests/support/campaign.h"
#include "tests/support/weak_device.h"

using namespace quire;
using namespace quire::model;

namespace {

using A = WeakAtomics;

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;
Memory memory_of(size_t bytes) {
  return Memory(std::aligned_alloc(128, align_up(bytes, 128)));
}

constexpr uint32_t kFrames = 2;

// A frame is named by its page. `streams` of the engine are added before the run.
struct World {
  explicit World(uint32_t n_streams, uint64_t epoch = 1)
      : memory{memory_of(EpochClock<A>::bytes(2)), memory_of(StreamTable<A>::bytes(2)),
               memory_of(Limbo<A>::bytes(kFrames)), memory_of(PageTable<A>::bytes(kFrames)),
               memory_of(FramePool<A>::bytes(kFrames))},
        clock(memory[0].get(), 2),
        streams(memory[1].get(), 2, clock, &device),
        limbo(memory[2].get(), kFrames),
        pages(memory[3].get(), kFrames),
        pool(memory[4].get(), kFrames),
        content(kFrames) {
    clock.format(epoch);
    streams.format();
    limbo.format();
    pages.format();
    pool.format();
    for (uint32_t i = 0; i < n_streams; ++i) {
      require(streams.add(WeakDevice::stream(i), 0, 0, &slot[i]) == Status::kOk, "not added");
    }
    // Both frames hold a visible page, released before the run.
    uint32_t ids[kFrames];
    require(pool.alloc(kFrames, ids), "no frames");
    for (uint32_t page = 0; page < kFrames; ++page) {
      content[page] = page + 1;
      generation[page] = pages.generation(page);
      pages.set_stamp(page, static_cast<uint32_t>(clock.now()));
      pages.make_visible(page, {page, page});
      pages.refresh_leaf_hint(page);
      pages.unpin(page);
    }
  }

  // What the pool would do, and its next taker: writes at once.
  auto give_back() {
    return [this](const uint32_t *frames, size_t n) {
      for (size_t i = 0; i < n; ++i) {
        content[frames[i]] = 99;
        if (pool.free(frames + i, 1) != 1) Scheduler::current()->abandon("freed twice");
      }
    };
  }
  // Pins the page, enqueues a read of its frame, releases: in the order of the design.
  void use(uint32_t stream, uint32_t page) {
    if (!pages.pin_exact(page, generation[page])) return;
    Plain<uint32_t> *frame = &content[page];
    bool *wrong = &violated;
    const auto read = [frame, page, wrong] { *wrong |= *frame != page + 1; };
    require(device.launch(WeakDevice::stream(stream), read) == Status::kOk, "not launched");
    pages.raise_stamp(page, static_cast<uint32_t>(clock.now()));
    pages.unpin(page);
  }
  void evict(uint32_t page) {
    if (!pages.begin_evict(page, generation[page])) return;
    const uint64_t r = clock.widen(pages.stamp(page));
    pages.finish_evict(page);
    streams.want(r);
    limbo.retire(page, r, streams.min_passed(), give_back());
  }
  // eager: something always waits, so that streams are known to have passed early: the harder case.
  void step(bool eager = false) {
    if (eager) streams.need();
    streams.step();
    streams.poll();
    limbo.drain(streams.min_passed(), give_back());
  }
  // Everything comes back: free + limbo + visible = all, then no limbo.
  void check_at_rest() {
    require(!violated, "a frame was written before its last reader had passed");
    require(limbo.validate(), "limbo invalid");
    const uint32_t visible = pages.counts().visible;
    require(pool.available() + limbo.count() + visible + taken == kFrames, "frames are lost");
    device.finish();
    for (uint32_t i = 0; i < 3 && limbo.count() != 0; ++i) {
      streams.step();
      device.finish();
      streams.poll();
      limbo.drain(streams.min_passed(), give_back());
    }
    require(!violated, "a frame was written before its last reader had passed");
    require(limbo.count() == 0, "frames are stranded in limbo");
    const StreamCounts counts = streams.counts();
    require(counts.recorded == device.records && counts.completed == device.answers &&
                counts.failed == 0,
            "events are counted wrongly");
    require(pool.available() + visible + taken == kFrames, "frames are lost");
    require(clock.validate() && streams.validate() && limbo.validate() && pages.validate() &&
                pool.validate(),
            "invalid at rest");
  }

  WeakDevice device;
  Memory memory[5];
  EpochClock<A> clock;
  StreamTable<A> streams;
  Limbo<A> limbo;
  PageTable<A> pages;
  FramePool<A> pool;
  std::vector<Plain<uint32_t>> content;
  uint32_t slot[2] = {kNone, kNone};
  uint32_t generation[kFrames] = {};
  uint32_t taken = 0;
  bool violated = false;
};

void one_stream(Scheduler &s) {
  World world(1);
  s.spawn([&] {
    world.use(0, 0);
    world.evict(0);
  });
  s.spawn([&] { world.device.run(0, 2); });
  s.spawn([&] {
    world.step();
    world.step();
  });
  s.run();
  world.check_at_rest();
}

// Use and eviction by different threads; epochs go by meanwhile.
void use_and_evict(Scheduler &s) {
  World world(1);
  s.spawn([&] { world.use(0, 0); });
  s.spawn([&] {
    world.evict(0);
    world.step();
  });
  s.spawn([&] { world.device.run(0, 2); });
  s.spawn([&] { world.step(); });
  s.run();
  world.check_at_rest();
}

void two_streams(Scheduler &s) {
  World world(2);
  s.spawn([&] { world.use(0, 0); });
  s.spawn([&] { world.use(1, 0); });
  s.spawn([&] {
    world.evict(0);
    world.step();
    world.device.run(0, 2);
    world.step();
    world.device.run(1, 2);
    world.step();
  });
  s.run();
  world.check_at_rest();
}

// A launch and a release beside steps that record although nothing waits yet.
void eager_steps(Scheduler &s) {
  World world(1);
  s.spawn([&] {
    world.use(0, 0);
    world.evict(0);
  });
  s.spawn([&] { world.device.run(0, 2); });
  s.spawn([&] {
    world.step(true);
    world.step(true);
  });
  s.run();
  world.check_at_rest();
}
void two_eager_steppers(Scheduler &s) {
  World world(2);
  s.spawn([&] { world.step(true); });
  s.spawn([&] { world.step(true); });
  s.spawn([&] { world.use(0, 0); });
  s.run();
  world.check_at_rest();
}

// A page that another stream writes is waited for by the event that marks its epoch.
void wait_for_a_writer(Scheduler &s) {
  World world(2);
  const uint64_t epoch = world.clock.now();
  Plain<uint32_t> *page = &world.content[0];
  const auto write = [page] { *page = 8; };
  require(world.device.launch(WeakDevice::stream(0), write) == Status::kOk, "not launched");
  world.streams.want_of(world.slot[0], epoch);
  s.spawn([&] {
    world.streams.step();
    world.device.run(0, 1);
    world.streams.poll();
  });
  s.spawn([&] {
    const bool ready = world.streams.ready(world.slot[0], epoch);
    if (ready) require(world.content[0] == 8, "ready, and not written");
  });
  s.spawn([&] {
    const Status waits = world.streams.wait_for(world.slot[0], epoch, WeakDevice::stream(1));
    require(waits == Status::kOk || waits == Status::kAgain, "waited for an event of nothing");
  });
  s.run();
  world.check_at_rest();
}

// Two step, poll and drain at once, over one stream's events.
void two_steppers(Scheduler &s) {
  World world(1);
  world.use(0, 0);
  s.spawn([&] {
    world.evict(0);
    world.step();
  });
  s.spawn([&] {
    world.device.run(0, 1);
    world.step();
  });
  s.run();
  world.check_at_rest();
}

// A push while another drains: nothing is stranded. Frames of one wheel's place, a turn apart.
void push_and_drain(Scheduler &s) {
  World world(0, 300);
  for (uint32_t page = 0; page < kFrames; ++page) {
    require(world.pages.begin_evict(page, 0), "not evicted");
    world.pages.finish_evict(page);
  }
  WeakAtomic<uint64_t> passed{9};
  s.spawn([&] {
    world.content[0] = 7;
    world.limbo.push(0, 10, world.give_back());
  });
  s.spawn([&] {
    world.content[1] = 8;
    world.limbo.push(1, 266, world.give_back());
  });
  s.spawn([&] {
    world.limbo.drain(10, world.give_back());
    world.limbo.drain(11, world.give_back());
  });
  s.run();
  require(world.limbo.validate(), "limbo invalid");
  require(world.pool.available() + world.limbo.count() == kFrames, "frames are lost");
  require(world.limbo.count() == 1, "stranded, or freed too early");
  world.check_at_rest();
}

// One drain holds a frame of the wheel's next turn in its hands, which has passed by the time that it
// is put back: the other drain found its stack empty.
void two_drains(Scheduler &s) {
  World world(0, 300);
  require(world.pages.begin_evict(0, 0), "not evicted");
  world.pages.finish_evict(0);
  world.limbo.push(0, 266, world.give_back());
  s.spawn([&] { world.limbo.drain(10, world.give_back()); });
  s.spawn([&] { world.limbo.drain(266, world.give_back()); });
  s.run();
  require(world.limbo.count() == 0, "frames are stranded in limbo");
  world.check_at_rest();
}

// A frame that only one stream may still read goes to that stream's next work.
void take_for_a_stream(Scheduler &s) {
  World world(1);
  world.use(0, 0);
  world.step();
  s.spawn([&] { world.evict(0); });
  s.spawn([&] {
    uint32_t frame = kNone;
    const uint64_t threshold = world.streams.min_passed_except(world.slot[0]);
    if (world.limbo.take(1, threshold, &frame, world.give_back()) == 0) return;
    ++world.taken;
    Plain<uint32_t> *content = &world.content[frame];
    const auto write = [content] { *content = 42; };
    require(world.device.launch(WeakDevice::stream(0), write) == Status::kOk, "not launched");
  });
  s.spawn([&] { world.step(); });
  s.run();
  world.check_at_rest();
}

// Takers and drainers of one stack: each frame goes to one of them.
void take_and_drain(Scheduler &s) {
  World world(0, 20);
  for (uint32_t page = 0; page < kFrames; ++page) {
    require(world.pages.begin_evict(page, 0), "not evicted");
    world.pages.finish_evict(page);
    world.limbo.push(page, 10, world.give_back());
  }
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] {
      uint32_t frame = kNone;
      if (world.limbo.take(1, 12, &frame, world.give_back()) == 0) return;
      ++world.taken;
      world.content[frame] = 42;
    });
  }
  s.spawn([&] { world.limbo.drain(11, world.give_back()); });
  s.run();
  world.check_at_rest();
}

// A stream is removed while its last work runs; another takes its slot.
void remove_and_add(Scheduler &s) {
  World world(1);
  s.spawn([&] {
    world.use(0, 0);
    const Status removed = world.streams.remove(WeakDevice::stream(0));
    require(removed == Status::kOk || removed == Status::kBusy, "not removed");
    world.evict(0);
  });
  s.spawn([&] {
    world.device.run(0, 2);
    world.step();
  });
  s.spawn([&] {
    uint32_t slot = kNone;
    require(world.streams.add(WeakDevice::stream(1), 0, 0, &slot) == Status::kOk, "not added");
    world.streams.poll();
  });
  s.run();
  world.check_at_rest();
}

// One handle, added twice at once: at most one wins.
void add_twice(Scheduler &s) {
  World world(0);
  uint32_t added = 0;
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] {
      uint32_t slot = kNone;
      added += world.streams.add(WeakDevice::stream(0), 0, 0, &slot) == Status::kOk;
    });
  }
  s.run();
  require(added <= 1, "one stream in two slots");
  require(world.streams.validate(), "streams invalid");
}

// Guards: what is swapped and then freed is not seen by a guard that could not have held it.
struct Guarded {
  explicit Guarded(uint32_t guards)
      : memory(memory_of(EpochClock<A>::bytes(guards))), clock(memory.get(), guards) {
    clock.format();
    table[0] = 1;
    table[1] = 2;
  }
  void read() {
    const uint32_t guard = clock.enter();
    if (guard == kNone) return;
    const uint32_t at = present.load(std::memory_order_acquire);
    require(table[at] == at + 1, "a table was freed under a guard");
    clock.leave(guard);
  }
  void swap_and_free() {
    present.store(1, std::memory_order_release);
    const uint64_t r = clock.retire_epoch();
    clock.advance();
    if (r < clock.min_guard()) table[0] = 77;
  }
  Memory memory;
  EpochClock<A> clock;
  WeakAtomic<uint32_t> present{0};
  Plain<uint32_t> table[2];
};

void guard_and_swap(Scheduler &s) {
  Guarded world(2);
  s.spawn([&] { world.read(); });
  s.spawn([&] { world.swap_and_free(); });
  s.run();
  require(world.clock.validate(), "clock invalid");
}
void two_guards_and_swap(Scheduler &s) {
  Guarded world(2);
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] {
      world.read();
      world.read();
    });
  }
  s.spawn([&] { world.swap_and_free(); });
  s.spawn([&] { world.clock.advance(); });
  s.run();
  require(world.clock.validate(), "clock invalid");
}
void guards_of_one_slot(Scheduler &s) {
  Guarded world(1);
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] {
      world.read();
      world.read();
    });
  }
  s.spawn([&] { world.swap_and_free(); });
  s.run();
  require(world.clock.validate() && world.clock.oldest_guard().slot == kNone, "clock invalid");
}

std::vector<ModelCase> cases() {
  return {
      {"one stream", {2, 1}, one_stream},
      {"use and evict", {2, 1}, use_and_evict},
      {"two streams", {2, 1}, two_streams},
      {"eager steps", {2, 1}, eager_steps},
      {"two eager steppers", {2, 1}, two_eager_steppers},
      {"wait for a writer", {3, 2}, wait_for_a_writer},
      {"two steppers", {3, 1}, two_steppers},
      {"push and drain", {3, 1}, push_and_drain},
      {"two drains", {1, 0}, two_drains, 3000, 400},
      {"take for a stream", {3, 1}, take_for_a_stream},
      {"take and drain", {3, 1}, take_and_drain},
      {"remove and add", {2, 1}, remove_and_add},
      {"one stream added twice", {3, 2}, add_twice},
      {"a guard and a swap", {3, 3}, guard_and_swap},
      {"two guards and a swap", {2, 2}, two_guards_and_swap},
      {"guards of one slot", {2, 2}, guards_of_one_slot},
  };
}

}  // namespace

BOOST_AUTO_TEST_CASE(promise_1_no_frame_is_written_before_its_last_reader_has_passed) {
  BOOST_TEST(prove(cases()) > 1000U);
}

// Promise 6, for limbo and streams: whoever drains, pushes, takes, adds a stream or removes one stops
// before any of its atomics; others push and drain to the end, each within a bounded number of steps.
// What the stopped one held in its hands is lost to the others, and nothing else.
BOOST_AUTO_TEST_CASE(a_thread_stopped_before_any_atomic_stops_nobody) {
  Stops stops;
  for (int what = 0; what < 5; ++what) {
    stop_everywhere(Bounds{1, 0}, &stops, [&](Scheduler &s, const auto &go) {
      World world(what == 4 ? 2 : 1);
      world.use(0, 0);
      world.device.run(0, 1);
      const uint32_t stopped = s.spawn([&] {
        if (what == 0) world.evict(0);
        if (what == 1) world.step();
        uint32_t frame = kNone;
        if (what == 2) world.limbo.take(1, 5, &frame, world.give_back());
        Status status = Status::kOk;
        if (what == 3) status = world.streams.add(WeakDevice::stream(1), 0, 0, &world.slot[1]);
        if (what == 4) status = world.streams.remove(WeakDevice::stream(1));
        require(status == Status::kOk || status == Status::kBusy, "refused");
      });
      const uint32_t other = s.spawn([&] {
        for (int i = 0; i < 2; ++i) {
          world.use(0, 1);
          world.step();
        }
        world.evict(1);
      });
      go(stopped, other);
      require(!world.violated, "a frame was written before its last reader had passed");
    });
  }
  print(stops);
  BOOST_TEST(stops.places > 100U);
  BOOST_TEST(stops.longest < 400U);
}

BOOST_AUTO_TEST_CASE(weaker_reuse_is_caught) {
  const CampaignResult result = campaign(cases(),
                                         {"runtime/limbo.h", "runtime/epoch_clock.h",
                                          "runtime/stream_table.h", "runtime/stream_table_inl.h"},
                                         QUIRE_SOURCE_DIR);
  for (const std::string &key : result.unexpected) BOOST_ERROR("unexpected: " << key);
  BOOST_TEST((result.skipped || result.tried != 0));
}
