// Real traces: exact LRU counts, the bound, and what threads may change.
//
// The traces are in the folder that QUIRE_SHARED_DATA names, or in ../shared/data beside the
// source; where they, or xz, are missing this test is skipped and says so. The figures below came
// from an independent simulation of the same traces; the small ones are also checked request by
// request against the oracle.
#define BOOST_TEST_MODULE replay_shared_traces
#define BOOST_TEST_NO_MAIN
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "support/lru_oracle.h"
#include "support/shared_trace.h"
#include "tools/quire-replay/belady.h"
#include "tools/quire-replay/replay.h"

namespace quire::replay {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

using test::read_trace;

struct Expected {
  uint32_t pages;
  uint64_t hits, evicted;
};

struct Case {
  const char *trace;
  bool large;
  uint64_t requests, referenced, unique;
  std::vector<Expected> lru;
  std::vector<std::pair<uint32_t, double>> bounds;  // pages, hit ratio of Belady's bound
};

const std::vector<Case> &cases() {
  static const std::vector<Case> all = {
      {"mooncake-conversation",
       false,
       6015,
       153002,
       100131,
       {{1001, 6645, 145356}, {5006, 17290, 130706}, {20026, 42812, 90164}},
       {{2002, .2441}, {10013, .3456}}},
      {"mooncake-synthetic",
       false,
       1996,
       49401,
       33131,
       {{331, 490, 48580}, {1656, 1386, 46359}, {6626, 5809, 36966}},
       {{1656, .1967}}},
      {"tau-airline",
       false,
       2454,
       116701,
       7162,
       {{71, 66479, 43717}, {358, 106685, 9658}, {1432, 109533, 5736}},
       {}},
      {"coding-agents",
       true,
       21557,
       10331545,
       370279,
       {{3702, 6425107, 3902736}, {18513, 9861321, 451711}, {74055, 9957721, 299769}},
       {{3702, .7551}}},
  };
  return all;
}

Options with_pages(uint32_t pages, unsigned threads) {
  Options options;
  options.pages = pages;
  options.threads = threads;
  return options;
}

void check_exact(const Trace &trace, const Expected &expected) {
  const Result result = replay(trace, with_pages(expected.pages, 1));
  BOOST_TEST(result.hits == expected.hits);
  BOOST_TEST(result.evicted == expected.evicted);
  BOOST_TEST(result.hits + result.inserted == result.served);
  BOOST_TEST(result.unserved + result.unindexed + result.duplicates + result.expired == 0u);
}

void check_oracle(const Trace &trace, const Expected &expected) {
  const Result result = replay(trace, with_pages(expected.pages, 1));
  test::LruOracle oracle(expected.pages);
  for (size_t r = 0; r < trace.requests.size(); ++r)
    BOOST_REQUIRE(oracle.serve(trace.pages(trace.requests[r])) == result.request_hits[r]);
  BOOST_TEST(oracle.hits() == expected.hits);
  BOOST_TEST(oracle.evicted() == expected.evicted);
}

BOOST_AUTO_TEST_CASE(lru_has_exactly_these_hits_and_evictions) {
  for (const Case &c : cases()) {
    if (c.large && kSanitized) continue;
    const Trace trace = read_trace(c.trace);
    BOOST_TEST(trace.requests.size() == c.requests);
    BOOST_TEST(trace.ids.size() == c.referenced);
    for (const Expected &expected : c.lru)
      BOOST_TEST_CONTEXT(c.trace << ", " << expected.pages << " pages") {
        check_exact(trace, expected);
        if (!c.large) check_oracle(trace, expected);
      }
  }
}

BOOST_AUTO_TEST_CASE(eight_threads_stay_within_a_tenth_of_a_point) {
  for (const Case &c : cases()) {
    if (c.large && kSanitized) continue;
    const Trace trace = read_trace(c.trace);
    for (const Expected &expected : c.lru) {
      const Result result = replay(trace, with_pages(expected.pages, 8));
      const double exact = static_cast<double>(expected.hits) / static_cast<double>(c.referenced);
      BOOST_TEST(std::abs(result.hit_ratio() - exact) <= 0.001,
                 c.trace << ", " << expected.pages << " pages: " << result.hit_ratio()
                         << " instead of " << exact);
      BOOST_TEST(result.unserved == 0u);
    }
  }
}

BOOST_AUTO_TEST_CASE(the_bound_has_these_hit_ratios) {
  for (const Case &c : cases()) {
    const Trace trace = read_trace(c.trace);
    const PageTree tree = number_pages(trace);
    BOOST_TEST(tree.pages == c.unique);
    for (const auto &[pages, ratio] : c.bounds) {
      const double hits = static_cast<double>(replay_belady(trace, tree, pages).hits);
      BOOST_TEST(
          std::abs(hits / static_cast<double>(c.referenced) - ratio) <= 0.00005 + 1e-9,
          c.trace << ", " << pages << " pages: " << hits / static_cast<double>(c.referenced));
    }
  }
}

bool no_boost_setup() {
  return true;
}

}  // namespace
}  // namespace quire::replay

int main(int argc, char **argv) {
  for (const auto &c : quire::replay::cases())
    if (!std::filesystem::exists(quire::test::trace_path(c.trace))) {
      std::cout << "SKIPPED: no " << quire::test::trace_path(c.trace)
                << " (QUIRE_SHARED_DATA names the folder)\n";
      return 77;
    }
  if (std::system("xz --version > /dev/null 2>&1") != 0) {
    std::cout << "SKIPPED: no xz to read the traces with\n";
    return 77;
  }
  return boost::unit_test::unit_test_main(&quire::replay::no_boost_setup, argc, argv);
}
