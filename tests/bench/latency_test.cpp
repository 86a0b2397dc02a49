// The histogram of latencies and the schedule of its callers say what they claim.
#define BOOST_TEST_MODULE latency
#define BOOST_TEST_DYN_LINK
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <vector>

#include "tools/quire-bench/latency.h"

using namespace quire::bench;

BOOST_AUTO_TEST_CASE(a_quantile_is_at_most_a_bucket_above_the_true_one) {
  for (const uint32_t seed : {1U, 2U, 3U}) {
    Random random(seed);
    LatencyHistogram one, other;
    std::vector<uint64_t> all;
    for (uint32_t i = 0; i < 20000; ++i) {
      // From nanoseconds to minutes.
      const uint64_t ns = random() >> (24 + random.below(40));
      (i % 2 == 0 ? one : other).add(ns);
      all.push_back(ns);
    }
    one.merge(other);
    std::sort(all.begin(), all.end());
    BOOST_TEST(one.count() == all.size());
    BOOST_TEST(one.most() == all.back());
    for (const double q : {0.001, 0.5, 0.9, 0.99, 0.999, 1.0}) {
      const auto at = static_cast<size_t>(std::ceil(q * static_cast<double>(all.size()))) - 1;
      const auto truth = static_cast<double>(all[at]);
      BOOST_TEST(one.quantile(q) >= truth);
      BOOST_TEST(one.quantile(q) <= truth * (1 + 1.0 / 32) + 1);
    }
  }
}

// A caller that is held up once is late for all calls that were due meanwhile, and says so.
BOOST_AUTO_TEST_CASE(a_stall_counts_for_every_call_that_was_due) {
  Schedule schedule;
  schedule.callers = 1;
  schedule.period_ns = 100000;
  schedule.segment_ns = 100 * schedule.period_ns;
  const LatencyHistogram took = run_callers(schedule, [&](unsigned, uint64_t i) {
    const Stopwatch watch;
    while (i == 10 && watch.ns() < 50.0 * 100000) {
    }
  });
  BOOST_TEST(took.count() == 100u);
  // 50 calls, at least, ended later than due; half of those by 25 periods or more.
  BOOST_TEST(took.quantile(0.76) >= 24.0 * 100000);
}
