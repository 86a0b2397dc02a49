// The event ring under the scheduler: histories are linearizable, numbers are the order, and a
// thread stopped anywhere stops nobody.
#define BOOST_TEST_MODULE model_event_ring
#define BOOST_TEST_DYN_LINK
#include "runtime/event_ring.h"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <deque>
#include <memory>
#include <vector>

#include "tests/support/linearizability.h"
#include "tests/support/scheduler.h"

using namespace quire;
using namespace quire::model;

namespace {

constexpr uint32_t kSlots = 2;
using Ring = BasicEventRing<ModelAtomics, kSlots>;

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};

struct Op {
  uint64_t begin, end;
  bool push, done;
  uint64_t owner, sequence;
  // A slot that a running poll still reads is taken; a record that a running push still writes is
  // not there yet.
  bool overlaps_poll = false, overlaps_push = false;
};

struct Queue {
  std::deque<std::pair<uint64_t, uint64_t>> records;  // number, owner
  uint64_t numbered = 0;
  auto operator<=>(const Queue &) const = default;

  bool apply(const Op &op) {
    if (op.push) {
      ++numbered;
      if (!op.done) return records.size() == kSlots || op.overlaps_poll;
      if (records.size() == kSlots) return false;
      records.emplace_back(numbered, op.owner);
      return true;
    }
    if (!op.done) return records.empty() || op.overlaps_push;
    if (records.empty() || records.front() != std::pair(op.sequence, op.owner)) return false;
    records.pop_front();
    return true;
  }
};

struct World {
  World() : memory(std::aligned_alloc(64, align_up(Ring::bytes(), 64))), ring(memory.get()) {
    ring.format();
    ring.poll(nullptr, 0);
  }
  void push(uint64_t owner) {
    EventRecord record;
    record.owner = owner;
    const uint64_t begin = ++clock;
    const bool done = ring.push(record);
    history.push_back({begin, ++clock, true, done, owner, 0});
  }
  bool poll() {
    EventRecord record;
    const uint64_t begin = ++clock;
    const bool done = ring.poll(&record, 1) == 1;
    history.push_back({begin, ++clock, false, done, record.owner, record.sequence});
    if (done) numbers.push_back(record.sequence);
    return done;
  }
  void check() {
    for (Op &a : history) {
      for (const Op &b : history) {
        const bool overlap = a.begin < b.end && b.begin < a.end && &a != &b;
        (b.push ? a.overlaps_push : a.overlaps_poll) |= overlap;
      }
    }
    require(linearizable(history, Queue{}), "not linearizable");
  }

  std::unique_ptr<void, Free> memory;
  Ring ring;
  std::vector<Op> history;
  std::vector<uint64_t> numbers;
  uint64_t clock = 0;
};

}  // namespace

BOOST_AUTO_TEST_CASE(histories_are_linearizable_and_numbers_are_the_order) {
  const uint64_t seeds = for_each_seed(10000, [](uint64_t seed) {
    World world;
    Scheduler s(seed, 2 + static_cast<uint32_t>(seed % 5));
    for (uint64_t t = 0; t < 3; ++t) {
      s.spawn([&world, t] {
        for (uint64_t i = 0; i < 4; ++i) world.push(t * 100 + i);
      });
    }
    for (int t = 0; t < 2; ++t) {
      s.spawn([&world] {
        for (int i = 0; i < 4; ++i) world.poll();
      });
    }
    s.run();
    while (world.poll()) {
    }
    require(world.ring.validate(), "ring invalid");
    require(world.numbers.size() + world.ring.dropped() == 12, "an event got lost");
    require(world.ring.numbered() == 12, "a number is missing");
    world.check();
  });
  BOOST_TEST(seeds != 0U);
}

BOOST_AUTO_TEST_CASE(two_pushes_and_a_poll_in_every_order) {
  const uint64_t executions = explore(4, [](Scheduler &s) {
    World world;
    world.push(7);
    s.spawn([&] { world.push(1); });
    s.spawn([&] { world.push(2); });
    s.spawn([&] { world.poll(); });
    s.run();
    while (world.poll()) {
    }
    require(world.numbers.size() + world.ring.dropped() == 3, "an event got lost");
    world.check();
  });
  BOOST_TEST(executions > 100U);
}

// Promise 6, for events: whoever is stopped, the others' pushes and polls return.
BOOST_AUTO_TEST_CASE(a_thread_stopped_at_any_atomic_stops_nobody) {
  uint64_t stops = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    World world;
    Scheduler s(seed + 1, 4);
    const bool push_stops = seed % 2 == 0;
    const uint32_t stopped = s.spawn([&] {
      EventRecord record;
      for (int i = 0; i < 3; ++i)
        push_stops ? world.ring.push(record) : world.ring.poll(&record, 1);
    });
    uint64_t returned = 0;
    for (int t = 0; t < 2; ++t) {
      s.spawn([&] {
        EventRecord record;
        for (int i = 0; i < 6; ++i) {
          world.ring.push(record);
          world.ring.poll(&record, 1);
          ++returned;
        }
      });
    }
    const uint64_t n = seed / 2 % 12;
    s.stop(stopped, n);
    s.run();
    require(returned == 12, "somebody waited");
    stops += s.steps(stopped) > n;
  }
  BOOST_TEST(stops > 200U);
}
