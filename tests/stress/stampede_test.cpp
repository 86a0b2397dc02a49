// More threads than cores allocate from a full cache, without order and without rest. What all of
// them hold together always fits, so none may be refused, whoever is suspended where.
#define BOOST_TEST_MODULE stress_stampede
#include <cstdio>
#include <random>
#include <thread>

#include "tests/support/api_fixture.h"

using namespace quire::test;

namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr uint32_t kRounds = 300;
#else
constexpr uint32_t kRounds = 8000;
#endif
constexpr uint32_t kThreads = 8;
constexpr uint32_t kPages = 2048;
constexpr uint32_t kMost = 200;  // of one call; all together leave chains to evict

struct Counts {
  std::atomic<uint64_t> refused{0}, unexpected{0}, allocated{0};
  void failed(std::atomic<uint64_t> &count) {
    if (count.fetch_add(1) == 0) std::printf("first failure: %s\n", quire_last_error());
  }
};

// Allocates, publishes what nobody else has, releases; every other time gives the pages back
// instead.
void allocate(quire_cache *cache, quire_key root, uint32_t thread, Counts &counts) {
  std::mt19937_64 random(thread + 1);
  std::vector<quire_page> pages(kMost);
  std::vector<quire_key> keys(kMost);
  for (uint32_t round = 0; round < kRounds; ++round) {
    auto prefix = sized_struct<quire_prefix>();
    prefix.n = 1 + static_cast<uint32_t>(random() % kMost);
    prefix.root = root;
    prefix.keys = keys.data();
    for (quire_key &key : keys) key = {random(), random()};
    quire_lease lease = 0;
    if (quire_acquire(cache, &prefix, nullptr, nullptr, nullptr, &lease) != QUIRE_OK) {
      return counts.failed(counts.unexpected);
    }
    auto options = sized_struct<quire_alloc_options>();
    options.lease = lease;
    const quire_status status = quire_alloc(cache, prefix.n, &options, pages.data());
    if (status != QUIRE_OK) {
      counts.failed(counts.refused);
    } else {
      counts.allocated += prefix.n;
      const quire_status then =
          round % 2 == 0 ? quire_publish(cache, lease, &prefix, pages.data(), nullptr, nullptr)
                         : quire_free(cache, pages.data(), prefix.n);
      if (then != QUIRE_OK) counts.failed(counts.unexpected);
    }
    if (quire_release(cache, lease, nullptr) != QUIRE_OK) counts.failed(counts.unexpected);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_stampede_on_a_full_cache_refuses_nobody_who_asks_for_what_there_is) {
  ApiFixture f(small_config("format=f32,device_pages=2048,idle_ttl_ms=0"));
  for (uint32_t chain = 0; chain < kPages / 16; ++chain) f.fill(f.keys_of(chain, 16));
  BOOST_TEST(f.stats().evictions_capacity_total == 0U);
  Counts counts;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] { allocate(f.cache, f.root, t, counts); });
  }
  for (std::thread &thread : threads) thread.join();
  BOOST_TEST(counts.refused.load() == 0U);
  BOOST_TEST(counts.unexpected.load() == 0U);
  BOOST_TEST(counts.allocated.load() > uint64_t{kThreads} * kRounds);
  BOOST_TEST(f.stats().evictions_capacity_total > uint64_t{kRounds});
}

// It asks for more than anybody could give: it is told so, and costs nobody a hit.
BOOST_AUTO_TEST_CASE(an_allocation_that_cannot_be_had_evicts_nothing) {
  ApiFixture f(small_config("format=f32,device_pages=2048"));
  for (uint32_t chain = 0; chain < kPages / 16; ++chain) f.fill(f.keys_of(chain, 16));
  const quire_lease held[] = {f.acquire(f.keys_of(0, 16)), f.acquire(f.keys_of(1, 10)),
                              f.acquire(f.keys_of(0, 12))};
  std::vector<quire_page> pages(kPages);
  QUIRE_FAILS(f.alloc(kPages + 1, 0, pages.data()), QUIRE_E_NOMEM);
  QUIRE_FAILS(f.alloc(kPages - 25, 0, pages.data()), QUIRE_E_NOMEM);
  BOOST_TEST(f.stats().evictions_capacity_total == 0U);
  // Exactly what is neither held nor above something held.
  QUIRE_OK_OR_DIE(f.alloc(kPages - 26, 0, pages.data()));
  BOOST_TEST(f.stats().evictions_capacity_total == kPages - 26);
  QUIRE_FAILS(f.alloc(1, 0, pages.data()), QUIRE_E_NOMEM);
  QUIRE_OK_OR_DIE(quire_free(f.cache, pages.data(), kPages - 26));
  for (const quire_lease lease : held) f.release(lease);
}
