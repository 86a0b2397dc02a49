// FramePool under the scheduler: no number is held twice, none is lost, histories are linearizable,
// and a thread stopped anywhere stops nobody.
#define BOOST_TEST_MODULE model_frame_pool
#define BOOST_TEST_DYN_LINK
#include "allocators/frame_pool.h"

#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <memory>
#include <vector>

#include "tests/support/linearizability.h"
#include "tests/support/scheduler.h"

using namespace quire;
using namespace quire::model;

namespace {

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};

struct Op {
  uint64_t begin, end;
  bool alloc, done;
  uint32_t n;
};
// What a pool promises of its numbers' count: alloc takes n, or fails where fewer are there.
struct Count {
  uint32_t available = 0;
  auto operator<=>(const Count &) const = default;
  bool apply(const Op &op) {
    if (!op.alloc) {
      available += op.n;
      return true;
    }
    if ((op.n <= available) != op.done) return false;
    if (op.done) available -= op.n;
    return true;
  }
};

struct World {
  using Pool = FramePool<ModelAtomics>;

  World(uint32_t capacity, uint32_t free)
      : memory(std::aligned_alloc(64, align_up(Pool::bytes(capacity), 64))),
        pool(memory.get(), capacity),
        held(capacity, 0),
        first(free) {
    pool.format(free);
  }
  // `free` numbers anywhere, and hints that say of every word that it may have some: the state of a
  // pool that was all taken and got a few back.
  World(uint32_t capacity, uint32_t free, Random &random) : World(capacity, capacity) {
    std::vector<uint32_t> all(capacity);
    pool.alloc(capacity, all.data());
    for (first = 0; first < free;) {
      const uint32_t id = random.below(capacity);
      first += static_cast<uint32_t>(pool.free(&id, 1));
    }
  }

  bool alloc(uint32_t n, std::vector<uint32_t> &mine) {
    uint32_t ids[256];
    const uint64_t begin = ++clock;
    const bool done = pool.alloc(n, ids);
    history.push_back({begin, ++clock, true, done, n});
    if (!done) return false;
    for (uint32_t i = 0; i < n; ++i) {
      require(ids[i] < held.size() && held[ids[i]]++ == 0, "held twice");
      mine.push_back(ids[i]);
    }
    return true;
  }

  void free(uint32_t n, std::vector<uint32_t> &mine) {
    if (n == 0 || mine.size() < n) return;
    const uint32_t *ids = mine.data() + mine.size() - n;
    for (uint32_t i = 0; i < n; ++i) --held[ids[i]];
    const uint64_t begin = ++clock;
    require(pool.free(ids, n) == n, "a number was free already");
    history.push_back({begin, ++clock, false, true, n});
    mine.resize(mine.size() - n);
  }

  void check_at_rest(size_t still_held) {
    require(pool.validate(), "pool invalid");
    require(pool.available() + still_held == first, "numbers lost");
    require(linearizable(history, Count{first}), "not linearizable");
  }

  std::unique_ptr<void, Free> memory;
  Pool pool;
  std::vector<int> held;
  std::vector<Op> history;
  uint32_t first;
  uint64_t clock = 0;
};

}  // namespace

BOOST_AUTO_TEST_CASE(histories_are_linearizable_and_nothing_is_held_twice) {
  const uint64_t seeds = for_each_seed(10000, [](uint64_t seed) {
    Random random(seed * 13 + 5);
    // One word, a few words, or two summary words, with few numbers free: dry words are the point.
    const uint32_t capacities[] = {5, 130, 64 * 65 + 3};
    const uint32_t capacity = capacities[random.below(3)];
    World world(capacity, std::min<uint32_t>(capacity, 4 + random.below(5)), random);
    std::vector<uint32_t> mine[4];
    const uint32_t threads = 3 + random.below(2);
    Scheduler s(seed, 2 + random.below(6));
    for (uint32_t t = 0; t < threads; ++t) {
      s.spawn([&world, &own = mine[t], from = random.next()] {
        Random choice(from);
        for (int i = 0; i < 8; ++i) {
          if (choice.one_in(2)) {
            world.alloc(1 + choice.below(3), own);
          } else {
            world.free(1 + choice.below(3), own);
          }
        }
      });
    }
    s.run();
    size_t still_held = 0;
    for (const auto &own : mine) still_held += own.size();
    world.check_at_rest(still_held);
  });
  BOOST_TEST(seeds != 0U);
}

BOOST_AUTO_TEST_CASE(a_word_that_runs_dry_while_it_is_refilled_is_found_again) {
  const uint64_t executions = explore(4, [](Scheduler &s) {
    World world(64, 2);
    std::vector<uint32_t> mine[2];
    world.alloc(1, mine[0]);
    s.spawn([&] { world.free(1, mine[0]); });
    s.spawn([&] { world.alloc(1, mine[1]); });
    s.run();
    world.check_at_rest(mine[0].size() + mine[1].size());
    require(world.alloc(1, mine[1]), "a free number was not found");
  });
  BOOST_TEST(executions > 10U);
}

// The hint over a word can be wrong while its writer is stopped; the numbers are found all the
// same.
BOOST_AUTO_TEST_CASE(a_walker_stopped_over_a_wrong_hint_hides_nothing) {
  uint64_t executions = 0;
  for (uint64_t n = 0; n < 16; ++n) {
    executions += explore(2, [n](Scheduler &s) {
      // Word 0 is dry and its hint set; one number is free in word 1.
      World world(128, 128);
      std::vector<uint32_t> all, walkers, others;
      walkers.reserve(8);
      all.resize(128);
      world.pool.alloc(128, all.data());
      const uint32_t last = 127, low[] = {5, 6};
      world.pool.free(&last, 1);
      s.spawn([&] { world.pool.free(low, 2); });
      // Not the first thread: its cursor is the one that has taken all, and stands at word 1.
      const uint32_t walker = s.spawn([&] { world.alloc(1, walkers); });
      s.spawn([&] {
        uint32_t ids[2];
        world.pool.alloc(2, ids);
      });
      s.stop(walker, n);
      s.run();
    });
  }
  BOOST_TEST(executions > 10U);
}

// Promise 6, for the pool.
BOOST_AUTO_TEST_CASE(a_thread_stopped_at_any_atomic_stops_nobody) {
  uint64_t stops = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Random random(seed);
    World world(300, 6, random);
    std::vector<uint32_t> mine[3];
    mine[0].reserve(8);
    world.alloc(2, mine[0]);
    Scheduler s(seed + 1, 4);
    const uint32_t stopped = s.spawn([&] {
      world.alloc(1, mine[0]);
      world.free(3, mine[0]);
      world.alloc(2, mine[0]);
    });
    for (int t = 1; t < 3; ++t) {
      s.spawn([&, t] {
        for (int i = 0; i < 6; ++i) {
          if (world.alloc(1, mine[t])) world.free(1, mine[t]);
        }
      });
    }
    const uint64_t n = seed % 40;
    s.stop(stopped, n);
    s.run();
    stops += s.steps(stopped) > n;
  }
  BOOST_TEST(stops > 1000U);
}

BOOST_AUTO_TEST_CASE(numbers_that_are_free_or_out_of_range_are_not_given_back) {
  World world(130, 100);
  const uint32_t ids[] = {1, 200, kNone, 120, 120, 99};
  BOOST_TEST(world.pool.free(ids, 6) == 1U);  // 120 alone was taken: above the first 100.
  BOOST_TEST(world.pool.available() == 101U);
  BOOST_TEST(world.pool.free_range(90, 1000) == 29U);
  BOOST_TEST(world.pool.available() == 130U);
  BOOST_TEST(world.pool.validate());
}
