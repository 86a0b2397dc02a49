// FramePool over the simulated weak memory: numbers are held by one thread at a time, with whatever
// their last holder wrote happening before the next one's use; none is lost; the hints over the words
// end right; and a thread stopped anywhere stops nobody.
#define BOOST_TEST_MODULE model_weak_frame_pool
#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <memory>
#include <vector>

#include "allocators/frame_pool.h"
#include "tests/support/campaign.h"
#include "tests/support/weak_atomics.h"

using namespace quire;
using namespace quire::model;

namespace {

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};

struct World {
  using Pool = FramePool<WeakAtomics>;

  World(uint32_t capacity, uint32_t free)
      : memory(std::aligned_alloc(64, align_up(Pool::bytes(capacity), 64))),
        pool(memory.get(), capacity),
        content(capacity),
        held(capacity, false),
        total(free) {
    pool.format(free);
  }

  // Takes n numbers and writes to each of them.
  bool alloc(uint32_t n, std::vector<uint32_t> &mine) {
    uint32_t ids[64];
    if (!pool.alloc(n, ids)) return false;
    for (uint32_t i = 0; i < n; ++i) {
      require(ids[i] < held.size() && !held[ids[i]], "held twice");
      held[ids[i]] = true;
      content[ids[i]] = ids[i] + 1;
      mine.push_back(ids[i]);
    }
    return true;
  }
  void free_all(std::vector<uint32_t> &mine) {
    for (const uint32_t id : mine) {
      require(content[id] == id + 1, "somebody else wrote to it");
      held[id] = false;
    }
    require(pool.free(mine.data(), mine.size()) == mine.size(), "a number was free already");
    mine.clear();
  }
  // free + held = all, by all three ways to count.
  void check_at_rest(size_t still_held) {
    require(pool.validate(), "pool invalid");
    require(pool.available() + still_held == total, "numbers lost");
    std::vector<uint32_t> rest;
    require(alloc(pool.available(), rest), "free numbers could not be taken");
    free_all(rest);
  }

  std::unique_ptr<void, Free> memory;
  Pool pool;
  std::vector<Plain<uint32_t>> content;
  std::vector<bool> held;
  uint32_t total;
};

// Threads that take and give, of fewer numbers than they would like.
void take_and_give(Scheduler &s, uint32_t threads, uint32_t capacity, uint32_t free, uint32_t n,
                   int rounds) {
  World world(capacity, free);
  std::vector<uint32_t> mine[4];
  for (auto &one : mine) one.reserve(64);
  for (uint32_t t = 0; t < threads; ++t) {
    s.spawn([&world, &own = mine[t], n, rounds] {
      for (int i = 0; i < rounds; ++i) {
        if (world.alloc(n, own)) world.free_all(own);
      }
    });
  }
  s.run();
  world.check_at_rest(0);
}

// All are taken; word 0 and its hint are dry by the time that numbers come back.
struct DryWorld : World {
  explicit DryWorld(uint32_t capacity) : World(capacity, capacity), all(capacity) {
    pool.alloc(capacity, all.data());
    for (const uint32_t id : all) {
      held[id] = true;
      content[id] = id + 1;
    }
  }
  void give_back(std::initializer_list<uint32_t> ids) {
    std::vector<uint32_t> some(ids);
    free_all(some);
  }
  std::vector<uint32_t> all;
};

// One walks over a word that has run dry while another gives back to it: of the walker's look at the
// word and the giver's look at the hint, one sees what the other wrote.
void dry_word(Scheduler &s) {
  DryWorld world(128);
  world.give_back({127});
  std::vector<uint32_t> taken[2];
  for (auto &one : taken) one.reserve(8);
  const uint32_t back[] = {5};
  world.held[5] = false;
  // Thread 1's cursor is at the first word, which is dry, its hint set.
  s.spawn([&] { world.pool.free(back, 1); });
  s.spawn([&] { world.alloc(1, taken[1]); });
  s.run();
  world.check_at_rest(126 + taken[1].size());
}

// Two words run dry and are refilled; their hints are bits of one word, and none gets lost.
void two_dry_words(Scheduler &s) {
  DryWorld world(192);
  world.give_back({190});
  std::vector<uint32_t> taken;
  taken.reserve(8);
  const uint32_t first[] = {5}, second[] = {70};
  world.held[5] = world.held[70] = false;
  s.spawn([&] { world.pool.free(first, 1); });
  s.spawn([&] { world.alloc(1, taken); });
  s.spawn([&] { world.pool.free(second, 1); });
  s.run();
  world.check_at_rest(189 + taken.size());
}

// What a reservation counted is there for it to see: a walk ends within two rounds, however old the
// values are that it may still read. The word that is given to is dry, and its hint says so.
void reserved_numbers_are_seen(Scheduler &s) {
  DryWorld world(128);
  std::vector<uint32_t> taken;
  taken.reserve(8);
  world.give_back({5});
  world.alloc(1, taken);  // From the second word on: finds that one dry.
  taken.clear();
  const uint32_t back[] = {127};
  world.held[127] = false;
  s.spawn([&] { world.pool.free(back, 1); });
  const uint32_t taker = s.spawn([&] { world.alloc(1, taken); });
  s.run();
  require(s.steps(taker) <= 24, "reserved, and not found");
  world.check_at_rest(127 + taken.size());
}

// Two give one number back: one of them is told that it was free already.
void given_back_twice(Scheduler &s) {
  DryWorld world(64);
  world.held[5] = false;
  const uint32_t back[] = {5};
  size_t freed = 0;
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] { freed += world.pool.free(back, 1); });
  }
  s.run();
  require(freed == 1, "one number, and not one free");
  world.check_at_rest(63);
}

// Growth: numbers that were never free are given while others take.
void growth(Scheduler &s) {
  World world(70, 64);
  world.total = 70;
  std::vector<uint32_t> mine;
  mine.reserve(70);
  s.spawn([&] { world.pool.free_range(64, 6); });
  s.spawn([&] { world.alloc(50, mine) && world.alloc(16, mine); });
  s.run();
  world.check_at_rest(mine.size());
}

std::vector<ModelCase> cases() {
  return {
      {"two threads, one number", {3, 2}, [](Scheduler &s) { take_and_give(s, 2, 1, 1, 1, 2); }},
      {"two threads, three numbers, two at once",
       {3, 2},
       [](Scheduler &s) { take_and_give(s, 2, 3, 3, 2, 2); }},
      {"three threads, two numbers", {2, 2}, [](Scheduler &s) { take_and_give(s, 3, 2, 2, 1, 1); }},
      {"three threads, two words, few numbers",
       {2, 1},
       [](Scheduler &s) { take_and_give(s, 3, 70, 2, 1, 2); }},
      {"a word that is dry and refilled", {4, 3}, dry_word},
      {"two words that are dry and refilled", {4, 1}, two_dry_words},
      {"a reservation and its numbers", {3, 12}, reserved_numbers_are_seen},
      {"a number given back twice", {3, 3}, given_back_twice},
      {"growth", {3, 2}, growth},
  };
}

}  // namespace

BOOST_AUTO_TEST_CASE(numbers_have_one_holder_and_none_is_lost) {
  BOOST_TEST(prove(cases()) > 1000U);
}

// Promise 6: whoever takes or gives stops before any of its atomics; others take and give to the end,
// each within a bounded number of steps, as long as there are numbers that it does not hold.
BOOST_AUTO_TEST_CASE(a_thread_stopped_before_any_atomic_stops_nobody) {
  Stops stops;
  stop_everywhere(Bounds{2, 0}, &stops, [&](Scheduler &s, const auto &go) {
    World world(130, 130);
    std::vector<uint32_t> mine[2];
    for (auto &one : mine) one.reserve(64);
    const uint32_t stopped = s.spawn([&] {
      if (world.alloc(2, mine[0])) world.free_all(mine[0]);
    });
    const uint32_t other = s.spawn([&] {
      for (int i = 0; i < 2; ++i) {
        require(world.alloc(60, mine[1]), "numbers are there, and not given");
        world.free_all(mine[1]);
      }
    });
    go(stopped, other);
  });
  print(stops);
  BOOST_TEST(stops.places > 5U);
  BOOST_TEST(stops.longest < 200U);
}

BOOST_AUTO_TEST_CASE(weaker_pools_are_caught) {
  const CampaignResult result = campaign(cases(), {"allocators/frame_pool.h"}, QUIRE_SOURCE_DIR);
  for (const std::string &key : result.unexpected) BOOST_ERROR("unexpected: " << key);
  BOOST_TEST((result.skipped || result.tried != 0));
}
