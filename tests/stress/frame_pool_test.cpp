// FramePool with real threads: the numbers are used as licences to write plain words, so that
// ThreadSanitizer sees any number that is held twice or handed over without an order.
#define BOOST_TEST_MODULE stress_frame_pool
#define BOOST_TEST_DYN_LINK
#include "allocators/frame_pool.h"

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "tests/support/scheduler.h"

using namespace quire;
using quire::model::Random;

namespace {

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};

void run(uint32_t capacity, uint32_t n_threads, uint32_t largest, uint32_t rounds, uint64_t seed) {
  if (std::getenv("QUIRE_SOAK") != nullptr) rounds *= 50;
  std::unique_ptr<void, Free> memory(
      std::aligned_alloc(64, align_up(FramePool<>::bytes(capacity), 64)));
  FramePool<> pool(memory.get(), capacity);
  pool.format();
  std::vector<uint64_t> owner(capacity, 0);
  std::atomic<uint64_t> failures{0}, refused{0};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < n_threads; ++t) {
    threads.emplace_back([&, t, random = Random(seed + t)]() mutable {
      std::vector<uint32_t> mine;
      std::vector<uint32_t> got(largest);
      for (uint32_t i = 0; i < rounds; ++i) {
        const uint32_t n = 1 + random.below(largest);
        if (random.one_in(2)) {
          if (!pool.alloc(n, got.data())) {
            ++refused;
            continue;
          }
          for (uint32_t j = 0; j < n; ++j) {
            if (owner[got[j]] != 0) ++failures;
            owner[got[j]] = t + 1;
            mine.push_back(got[j]);
          }
        } else if (mine.size() >= n) {
          for (size_t j = mine.size() - n; j < mine.size(); ++j) {
            if (owner[mine[j]] != t + 1) ++failures;
            owner[mine[j]] = 0;
          }
          if (pool.free(mine.data() + mine.size() - n, n) != n) ++failures;
          mine.resize(mine.size() - n);
        }
      }
      for (const uint32_t id : mine) owner[id] = 0;
      if (pool.free(mine.data(), mine.size()) != mine.size()) ++failures;
    });
  }
  for (auto &thread : threads) thread.join();
  BOOST_TEST_INFO("seed " << seed);
  BOOST_TEST(failures.load() == 0U);
  BOOST_TEST(pool.available() == capacity);
  BOOST_TEST(pool.validate());
  std::vector<uint32_t> all(capacity);
  BOOST_TEST(pool.alloc(capacity, all.data()));
  BOOST_TEST(!pool.alloc(1, all.data()));
}

}  // namespace

BOOST_AUTO_TEST_CASE(no_number_is_held_twice_in_a_roomy_pool) {
  run(5000, 4, 100, 100000, 1);
}

BOOST_AUTO_TEST_CASE(no_number_is_held_twice_in_a_pool_that_runs_dry) {
  run(70, 4, 9, 300000, 2);
}

BOOST_AUTO_TEST_CASE(no_number_is_held_twice_in_a_pool_of_one_word) {
  run(3, 4, 2, 300000, 3);
}
