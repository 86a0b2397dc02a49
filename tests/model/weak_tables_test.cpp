// Slot tables (leases, sequences) and the event ring over the simulated weak memory: one verb at a
// time is in a slot and sees all of what the one before it did; a record is read whole, once, in
// order; and a thread stopped anywhere stops nobody.
#define BOOST_TEST_MODULE model_weak_tables
#define BOOST_TEST_DYN_LINK
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <memory>
#include <vector>

#include "runtime/event_ring.h"
#include "runtime/lease_table.h"
#include "runtime/slot_table.h"
#include "tests/support/campaign.h"
#include "tests/support/weak_atomics.h"

using namespace quire;
using namespace quire::model;

namespace {

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;
Memory memory_of(size_t bytes) {
  return Memory(std::aligned_alloc(128, align_up(bytes, 128)));
}

// A lease: its word, and fields that belong to whoever is inside.
struct WeakSlot {
  static constexpr const char *kName = "slots";
  static constexpr const char *kNoun = "slot";
  WeakAtomic<uint32_t> word{0};
  Plain<uint32_t> inside{0};  // generation of its owner, times 16, plus verbs so far
};
constexpr uint32_t kGenerations = 16;
// All threads have one line for what they gave up last.
using Slots = SlotTable<WeakSlot, WeakAtomics, kGenerations - 1, 1>;

struct SlotWorld {
  // The first life of each slot has that generation.
  SlotWorld(uint32_t n, uint32_t generation)
      : slots_memory(memory_of(Slots::bytes(n))),
        pool_memory(memory_of(FramePool<WeakAtomics>::bytes(n))),
        table(slots_memory.get(), n, FramePool<WeakAtomics>(pool_memory.get(), n)) {
    table.format();
    for (uint32_t i = 0; i < n; ++i) {
      new (&table.slot(i)) WeakSlot;
      table.slot(i).word.store(generation << Slots::kGenerationShift);
    }
  }
  bool open(Handle *out) {
    if (table.open(out) != Status::kOk) return false;
    table.slot(out->index).inside = out->generation * 16;
    table.leave(out->index);
    return true;
  }
  // A verb: nobody else is inside, and the slot is in the life that the handle names.
  Status use(const Handle &handle, bool close) {
    const Status status = table.enter(handle);
    if (status != Status::kOk) return status;
    WeakSlot &slot = table.slot(handle.index);
    const uint32_t seen = slot.inside;
    require(seen / 16 == handle.generation, "entered another life");
    slot.inside = seen + 1;
    if (close) {
      table.close(handle.index);
    } else {
      table.leave(handle.index);
    }
    return Status::kOk;
  }
  void check_at_rest(uint32_t live) {
    require(table.validate() && table.live() == live, "table invalid");
  }

  Memory slots_memory, pool_memory;
  Slots table;
};

// One opens and closes, through the wrap of the generation; two try handles of all those lives.
void verbs_of_one_slot(Scheduler &s) {
  SlotWorld world(1, kGenerations - 1);
  uint32_t live = 0;
  s.spawn([&] {
    for (int life = 0; life < 2 && live == 0; ++life) {
      Handle handle;
      require(world.open(&handle), "no slot");
      if (world.use(handle, true) != Status::kOk) ++live;  // Another verb is inside.
    }
  });
  for (uint32_t t = 0; t < 2; ++t) {
    s.spawn([&] {
      static_cast<void>(world.use({0, kGenerations - 1}, false));
      static_cast<void>(world.use({0, 0}, false));
    });
  }
  s.run();
  world.check_at_rest(live);
}

// Exactly one of two closes; the next owner comes after both.
void closers_and_opener(Scheduler &s) {
  SlotWorld world(1, 3);
  Handle handle;
  require(world.open(&handle), "no slot");
  uint32_t closed = 0, opened = 0;
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] { closed += world.use(handle, true) == Status::kOk; });
  }
  s.spawn([&] {
    Handle next;
    opened += world.open(&next);
  });
  s.run();
  require(closed <= 1, "closed twice");  // Each may have found the other one inside.
  world.check_at_rest(1 - closed + opened);
}

// What two give up at once is there for two others: neither lost on the line that they share nor
// given to both.
void closers_and_openers(Scheduler &s) {
  SlotWorld world(2, 3);
  Handle handle[2];
  for (auto &h : handle) require(world.open(&h), "no slot");
  for (auto &h : handle) {
    s.spawn([&] { require(world.use(h, true) == Status::kOk, "a slot of its own was refused"); });
  }
  uint32_t opened = 0;
  s.spawn([&] {
    Handle next;
    opened += world.open(&next);
  });
  s.run();
  world.check_at_rest(opened);
}

// One idle slot, beside the pool, and two who want it.
void openers(Scheduler &s) {
  SlotWorld world(1, 3);
  Handle handle;
  require(world.open(&handle) && world.use(handle, true) == Status::kOk, "no slot");
  uint32_t opened = 0;
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] {
      Handle next;
      opened += world.open(&next);
    });
  }
  s.run();
  require(opened == 1, "one slot was not given to one");
  world.check_at_rest(1);
}

// Whoever sees a live slot sees what its opener filled in before it left.
void looker(Scheduler &s) {
  SlotWorld world(1, 3);
  WeakAtomic<uint32_t> filled{0};
  s.spawn([&] {
    filled.store(1, std::memory_order_relaxed);
    Handle handle;
    require(world.open(&handle), "no slot");
  });
  s.spawn([&] {
    Handle seen;
    const bool live = world.table.next(0, &seen);
    if (live) require(filled.load(std::memory_order_relaxed) == 1, "live, and not filled");
    if (world.table.holds({0, 3})) {
      require(filled.load(std::memory_order_relaxed) == 1, "held, and not filled");
    }
  });
  s.run();
  world.check_at_rest(1);
}

using Ring = BasicEventRing<WeakAtomics, 2, 2>;

struct RingWorld {
  RingWorld() : memory(memory_of(Ring::bytes())), ring(memory.get()) {
    ring.format();
    ring.poll_nothing();
    numbers.reserve(64);
  }
  void push(uint64_t owner) {
    ring.push({owner, ~owner});
    ++pushed;
  }
  bool poll() {
    Ring::Words record;
    uint64_t number = 0;
    if (!ring.poll(&record, &number)) return false;
    require(record[1] == ~record[0], "a record in pieces");
    numbers.push_back(number);
    return true;
  }
  bool read(uint64_t *place) {
    Ring::Words record;
    uint64_t lost = 0;
    if (!ring.read(place, &record, &lost)) return false;
    require(record[1] == ~record[0], "a record in pieces");
    return true;
  }
  void check_at_rest() {
    while (poll()) {
    }
    require(ring.validate(), "ring invalid");
    require(numbers.size() + ring.dropped() == pushed, "an event got lost");
    require(ring.numbered() == pushed, "a number is missing");
    std::sort(numbers.begin(), numbers.end());
    require(std::adjacent_find(numbers.begin(), numbers.end()) == numbers.end(),
            "a record came twice");
  }
  Memory memory;
  Ring ring;
  std::vector<uint64_t> numbers;
  uint64_t pushed = 0;
};

void pushes_and_polls(Scheduler &s, uint32_t pushers, uint32_t pollers, int rounds) {
  RingWorld world;
  world.push(7);
  for (uint32_t t = 0; t < pushers; ++t) {
    s.spawn([&world, t, rounds] {
      for (int i = 0; i < rounds; ++i) world.push(t * 10 + static_cast<uint32_t>(i));
    });
  }
  for (uint32_t t = 0; t < pollers; ++t) {
    s.spawn([&world, rounds] {
      uint64_t last = 0;
      for (int i = 0; i < rounds; ++i) {
        if (!world.poll()) continue;
        require(world.numbers.back() > last, "numbers fell");
        last = world.numbers.back();
      }
    });
  }
  s.run();
  world.check_at_rest();
}

// Laps: what a reader copies is overwritten under its hands.
void pushes_and_a_reader(Scheduler &s, uint32_t pushers, int rounds) {
  RingWorld world;
  world.push(7);
  for (uint32_t t = 0; t < pushers; ++t) {
    s.spawn([&world, t, rounds] {
      for (int i = 0; i < rounds; ++i) world.push(t * 10 + static_cast<uint32_t>(i));
    });
  }
  s.spawn([&world, rounds] {
    uint64_t place = 1;
    for (int i = 0; i < rounds; ++i) world.read(&place);
  });
  s.run();
  world.check_at_rest();
}

// Polls that fall behind: what either passes over is counted.
void polls_that_lose(Scheduler &s) {
  RingWorld world;
  for (uint64_t i = 0; i < 4; ++i) world.push(i);
  s.spawn([&world] {
    for (uint64_t i = 10; i < 14; ++i) world.push(i);
  });
  for (int t = 0; t < 2; ++t) {
    s.spawn([&world] {
      world.poll();
      world.poll();
    });
  }
  s.run();
  world.check_at_rest();
}

// Who begins sees what was done before the events that it will not read.
void a_reader_begins(Scheduler &s) {
  RingWorld world;
  WeakAtomics::atomic<uint64_t> deeds[2];
  for (auto &deed : deeds) deed.store(0, std::memory_order_relaxed);
  for (auto &deed : deeds) {
    s.spawn([&world, &deed] {
      deed.store(1, std::memory_order_relaxed);
      world.push(1);
    });
  }
  s.spawn([&world, &deeds] {
    const uint64_t place = world.ring.begin();
    const uint64_t seen =
        deeds[0].load(std::memory_order_relaxed) + deeds[1].load(std::memory_order_relaxed);
    require(seen >= place - 1, "an event was taken for known whose deed is not seen");
  });
  s.run();
  world.check_at_rest();
}

// Who does something and finds nobody following: then whoever starts to follow finds it done.
void a_reader_starts(Scheduler &s) {
  const Memory memory = memory_of(Ring::bytes());
  Ring ring(memory.get());
  ring.format();
  WeakAtomics::atomic<uint64_t> deed;
  deed.store(0, std::memory_order_relaxed);
  bool told = false;
  uint64_t seen = 2, from = 0;
  s.spawn([&] {
    deed.fetch_add(1, std::memory_order_seq_cst);  // as the index's commit
    told = ring.push({1, ~uint64_t{1}});
  });
  s.spawn([&] {
    ring.start();
    from = ring.begin();
    seen = deed.load(std::memory_order_seq_cst);  // as PrefixIndex::holds()
  });
  s.run();
  uint64_t lost = 0;
  Ring::Words record;
  const bool read = ring.read(&from, &record, &lost);
  require(told || seen == 1, "neither told nor seen");
  require(read || seen == 1, "neither read nor seen");
}

std::vector<ModelCase> cases() {
  return {
      {"verbs of one slot", {2, 2}, verbs_of_one_slot},
      {"closers and an opener", {2, 2}, closers_and_opener},
      {"closers and openers", {2, 2}, closers_and_openers},
      {"openers", {2, 2}, openers},
      {"a looker", {3, 3}, looker},
      {"a push and a poll", {3, 3}, [](Scheduler &s) { pushes_and_polls(s, 1, 1, 3); }},
      {"two pushes and a poll", {2, 2}, [](Scheduler &s) { pushes_and_polls(s, 2, 1, 2); }},
      {"a push and two polls", {2, 2}, [](Scheduler &s) { pushes_and_polls(s, 1, 2, 2); }},
      {"a push and a reader", {3, 3}, [](Scheduler &s) { pushes_and_a_reader(s, 1, 3); }},
      {"two pushes and a reader", {2, 2}, [](Scheduler &s) { pushes_and_a_reader(s, 2, 3); }},
      {"polls that lose", {3, 0}, polls_that_lose},
      {"a reader begins", {3, 3}, a_reader_begins},
      {"a reader starts", {3, 3}, a_reader_starts},
  };
}

}  // namespace

BOOST_AUTO_TEST_CASE(slots_have_one_verb_and_records_one_reader) {
  BOOST_TEST(prove(cases()) > 1000U);
}

// Promise 6: a verb stopped inside a slot keeps that slot; a push or poll its place in the ring.
BOOST_AUTO_TEST_CASE(a_thread_stopped_before_any_atomic_stops_nobody) {
  Stops stops;
  stop_everywhere(Bounds{2, 0}, &stops, [&](Scheduler &s, const auto &go) {
    SlotWorld world(2, 3);
    const uint32_t stopped = s.spawn([&] {
      Handle handle;
      if (world.open(&handle)) static_cast<void>(world.use(handle, true));
    });
    const uint32_t other = s.spawn([&] {
      Handle handle;
      require(world.open(&handle), "a slot is free, and not given");
      require(world.use(handle, false) == Status::kOk, "its own slot is busy");
      require(world.use(handle, true) == Status::kOk, "its own slot is busy");
    });
    go(stopped, other);
  });
  stop_everywhere(Bounds{2, 0}, &stops, [&](Scheduler &s, const auto &go) {
    RingWorld world;
    const uint32_t stopped = s.spawn([&] {
      world.push(1);
      world.poll();
    });
    const uint32_t other = s.spawn([&] {
      for (uint64_t i = 0; i < 3; ++i) {
        world.push(i);
        world.poll();
      }
    });
    go(stopped, other);
  });
  print(stops);
  BOOST_TEST(stops.places > 20U);
  BOOST_TEST(stops.longest < 100U);
}

BOOST_AUTO_TEST_CASE(weaker_tables_are_caught) {
  const CampaignResult result =
      campaign(cases(), {"runtime/slot_table.h", "runtime/event_ring.h"}, QUIRE_SOURCE_DIR);
  for (const std::string &key : result.unexpected) BOOST_ERROR("unexpected: " << key);
  BOOST_TEST((result.skipped || result.tried != 0));
}
