// Counters and histograms: exact totals, bounded errors, names from one list, readable without a
// right to write.
#define BOOST_TEST_MODULE unit_stats
#define BOOST_TEST_DYN_LINK
#include "runtime/stats.h"

#include <sys/mman.h>

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace quire;

namespace {

constexpr uint32_t kSeed = 20240611;

struct Fixture {
  Fixture() : bytes((Stats::bytes() + 4095) / 4096 * 4096) {
    memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    BOOST_REQUIRE(memory != MAP_FAILED);
    stats = Stats(memory);
    stats.format();
  }
  ~Fixture() { ::munmap(memory, bytes); }

  size_t bytes;
  void *memory;
  Stats stats;
};

}  // namespace

BOOST_AUTO_TEST_CASE(every_value_lies_in_its_bucket_and_buckets_are_an_eighth_wide) {
  std::vector<uint64_t> values = {0, 1, 7, 8, 9, 15, 16, UINT64_MAX, UINT64_MAX - 1};
  for (uint32_t bit = 0; bit < 64; ++bit) {
    const uint64_t v = uint64_t{1} << bit;
    values.insert(values.end(), {v - 1, v, v + 1});
  }
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 20000; ++i) values.push_back(random() >> (random() % 64));
  for (const uint64_t v : values) {
    const uint32_t b = Stats::bucket(v);
    BOOST_REQUIRE_LT(b, Stats::kBuckets);
    BOOST_REQUIRE_LE(Stats::lowest(b), v);
    if (b + 1 < Stats::kBuckets) BOOST_REQUIRE_LT(v, Stats::lowest(b + 1));
    if (v <= Stats::kMost) {
      BOOST_REQUIRE_LE((Stats::lowest(b + 1) - Stats::lowest(b)) - 1, v / 8);
    } else {
      BOOST_REQUIRE_EQUAL(b, Stats::kBuckets - 1);
    }
  }
  BOOST_TEST(Stats::bucket(UINT64_MAX) == Stats::kBuckets - 1);
}

BOOST_AUTO_TEST_CASE(buckets_are_in_order_and_without_gaps) {
  for (uint32_t b = 0; b + 1 < Stats::kBuckets; ++b) {
    BOOST_REQUIRE_LT(Stats::lowest(b), Stats::lowest(b + 1));
    BOOST_REQUIRE_EQUAL(Stats::bucket(Stats::lowest(b + 1) - 1), b);
  }
}

BOOST_FIXTURE_TEST_CASE(what_threads_add_is_all_there, Fixture) {
  constexpr int kThreads = 24, kAdds = 19200;  // more threads than shards
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < kAdds; ++i) {
        stats.add(Counter::acquires_total);
        stats.add(Counter::prefix_queries_total, 3);
        if (i % 16 == 0) stats.record(Histogram::chain_hit_pages, static_cast<uint64_t>(i % 64));
      }
    });
  }
  for (auto &thread : threads) thread.join();
  BOOST_TEST(stats.total(Counter::acquires_total) == uint64_t{kThreads} * kAdds);
  BOOST_TEST(stats.total(Counter::prefix_queries_total) == 3 * uint64_t{kThreads} * kAdds);
  BOOST_TEST(stats.total(Counter::steps_total) == 0U);
  BOOST_TEST(stats.count(Histogram::chain_hit_pages) == uint64_t{kThreads} * kAdds / 16);
  BOOST_TEST(stats.sum(Histogram::chain_hit_pages) == uint64_t{kThreads} * kAdds / 16 * 24);
  BOOST_TEST(stats.count(Histogram::publish_pages) == 0U);
}

BOOST_FIXTURE_TEST_CASE(quantiles_are_within_a_sixteenth, Fixture) {
  BOOST_TEST_MESSAGE("seed " << kSeed);
  BOOST_TEST(stats.quantile(Histogram::eviction_age_epochs, 0.5) == 0U);
  std::mt19937_64 random(kSeed);
  std::vector<uint64_t> values;
  for (int i = 0; i < 5000; ++i) {
    values.push_back(random() >> (24 + random() % 40));
    stats.record(Histogram::eviction_age_epochs, values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double q : {0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.9999, 1.0}) {
    const auto rank = static_cast<size_t>(std::max(1.0, std::ceil(q * 5000.0)));
    const auto exact = static_cast<double>(values[rank - 1]);
    const auto got = static_cast<double>(stats.quantile(Histogram::eviction_age_epochs, q));
    BOOST_TEST(std::abs(got - exact) <= exact / 16, "q " << q << ": " << got << " for " << exact);
  }
}

BOOST_FIXTURE_TEST_CASE(small_values_are_exact, Fixture) {
  for (uint64_t v = 0; v < 8; ++v) stats.record(Histogram::publish_pages, v);
  for (uint64_t v = 0; v < 8; ++v) {
    BOOST_TEST(stats.quantile(Histogram::publish_pages, (static_cast<double>(v) + 1) / 8) == v);
  }
}

BOOST_FIXTURE_TEST_CASE(a_mapping_that_may_only_be_read_is_enough_to_read, Fixture) {
  stats.add(Counter::evictions_idle_total, 5);
  stats.record(Histogram::reuse_gap_epochs, 100);
  BOOST_REQUIRE(::mprotect(memory, bytes, PROT_READ) == 0);
  const Stats reader(memory);
  BOOST_TEST(reader.total(Counter::evictions_idle_total) == 5U);
  BOOST_TEST(reader.count(Histogram::reuse_gap_epochs) == 1U);
  BOOST_TEST(reader.sum(Histogram::reuse_gap_epochs) == 100U);
  BOOST_TEST(reader.quantile(Histogram::reuse_gap_epochs, 0.5) >= 96U);
}

BOOST_FIXTURE_TEST_CASE(format_forgets_everything, Fixture) {
  stats.add(Counter::steps_total, 7);
  stats.record(Histogram::publish_pages, 9);
  stats.format();
  BOOST_TEST(stats.total(Counter::steps_total) == 0U);
  BOOST_TEST(stats.count(Histogram::publish_pages) == 0U);
  BOOST_TEST(stats.sum(Histogram::publish_pages) == 0U);
}

BOOST_AUTO_TEST_CASE(names_are_distinct_and_counters_end_in_total) {
  std::set<std::string> names;
  for (uint32_t c = 0; c < kCounters; ++c) {
    const std::string name = counter_name(static_cast<Counter>(c));
    BOOST_TEST(names.insert(name).second, name);
    BOOST_TEST(name.ends_with("_total"), name);
  }
  for (uint32_t h = 0; h < kHistograms; ++h) {
    BOOST_TEST(names.insert(histogram_name(static_cast<Histogram>(h))).second);
  }
#define QUIRE_GAUGE_IS_NEW(name, help) BOOST_TEST(names.insert(#name).second);
  QUIRE_STATS_GAUGES(QUIRE_GAUGE_IS_NEW)
#undef QUIRE_GAUGE_IS_NEW
}
