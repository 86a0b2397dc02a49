// A replay with `lru` on one thread is an exact LRU: request by request the same hits as an oracle
// that shares no code with the library.
#define BOOST_TEST_MODULE replay_lru
#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cmath>

#include "support/lru_oracle.h"
#include "support/random_trace.h"
#include "tools/quire-replay/replay.h"

namespace quire::replay {
namespace {

Options one_thread(uint32_t pages) {
  Options options;
  options.pages = pages;
  return options;
}

void check_against_oracle(const Trace &trace, uint32_t pages) {
  const Result result = replay(trace, one_thread(pages));
  test::LruOracle oracle(pages);
  for (size_t r = 0; r < trace.requests.size(); ++r)
    BOOST_REQUIRE_MESSAGE(oracle.serve(trace.pages(trace.requests[r])) == result.request_hits[r],
                          "request " << r << " of " << trace.name << " with " << pages
                                     << " pages: " << result.request_hits[r] << " hits");
  BOOST_TEST(result.hits == oracle.hits());
  BOOST_TEST(result.evicted == oracle.evicted());
  BOOST_TEST(result.inserted == result.evicted + oracle.resident());
  BOOST_TEST(result.hits + result.inserted == result.served);
  BOOST_TEST(result.duplicates + result.unindexed + result.unserved + result.expired == 0u);
}

BOOST_AUTO_TEST_CASE(random_trees_have_the_oracles_hits_at_every_capacity) {
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    BOOST_TEST_CONTEXT("seed " << seed) {
      const Trace trace = test::random_trace(seed, 400, 24);
      // From less than one request to all that there is.
      for (const uint32_t pages : {1u, 2u, 7u, 23u, 24u, 25u, 60u, 150u, 5000u})
        check_against_oracle(trace, pages);
    }
  }
}

BOOST_AUTO_TEST_CASE(requests_longer_than_the_cache_keep_their_first_pages) {
  const Trace trace = test::random_trace(99, 300, 200);
  for (const uint32_t pages : {8u, 50u, 100u}) check_against_oracle(trace, pages);
}

BOOST_AUTO_TEST_CASE(a_replay_gives_the_same_counts_each_time) {
  const Trace trace = test::random_trace(7, 1000, 40);
  const Result a = replay(trace, one_thread(120)), b = replay(trace, one_thread(120));
  BOOST_TEST(a.request_hits == b.request_hits, boost::test_tools::per_element());
  BOOST_TEST(a.evicted == b.evicted);
}

BOOST_AUTO_TEST_CASE(traces_of_one_cache_do_not_hit_each_others_pages) {
  Trace once = test::random_trace(3, 200, 16);
  std::vector<Trace> twice = {once, once};
  const Trace merged = merge_traces(std::move(twice));
  const Result alone = replay(once, one_thread(4000)), both = replay(merged, one_thread(8000));
  BOOST_TEST(both.requests == 2 * alone.requests);
  BOOST_TEST(both.hits == 2 * alone.hits);
  BOOST_TEST(both.inserted == 2 * alone.inserted);
}

BOOST_AUTO_TEST_CASE(sums_hold_on_several_threads) {
  const Trace trace = test::random_trace(11, 4000, 32);
  for (const Dealing dealing : {Dealing::kOrdered, Dealing::kUnordered})
    for (const uint32_t pages : {16u, 200u, 2000u}) {
      Options options = one_thread(pages);
      options.threads = 8;
      options.dealing = dealing;
      const Result result = replay(trace, options);
      BOOST_TEST(result.requests == trace.requests.size());
      BOOST_TEST(result.referenced == trace.ids.size());
      BOOST_TEST(result.hits + result.inserted + result.duplicates + result.unindexed +
                     result.unserved ==
                 result.served);
      // Admission leaves room for all; a stampede may find everything pinned.
      if (dealing == Dealing::kOrdered) BOOST_TEST(result.unserved == 0u);
    }
}

// Also where the cache is hardly larger than one request, and where pages are evicted that later
// requests publish again.
BOOST_AUTO_TEST_CASE(threads_in_order_stay_within_a_tenth_of_a_point) {
  const Trace trace = test::random_trace(12, 1200, 16);
  for (const uint32_t pages : {40u, 200u, 800u}) {
    const Result one = replay(trace, one_thread(pages));
    BOOST_REQUIRE(one.evicted > 200u);
    for (const unsigned threads : {2u, 3u, 8u}) {
      Options options = one_thread(pages);
      options.threads = threads;
      const Result several = replay(trace, options);
      BOOST_TEST(std::abs(several.hit_ratio() - one.hit_ratio()) <= 0.001,
                 threads << " threads, " << pages << " pages: " << several.hits << " hits, not "
                         << one.hits);
      BOOST_TEST(several.duplicates == 0u);
      BOOST_TEST(several.unserved == 0u);
    }
  }
}

BOOST_AUTO_TEST_CASE(one_thread_that_fails_ends_all_of_them) {
  const Trace trace = test::random_trace(13, 3000, 16);
  for (const Dealing dealing : {Dealing::kOrdered, Dealing::kUnordered})
    for (const uint64_t at : {1u, 500u, 2999u}) {
      Options options = one_thread(400);
      options.threads = 4;
      options.dealing = dealing;
      std::atomic<uint64_t> done{0};
      options.progress = [&](uint64_t n) {
        if (done.fetch_add(n) + n == at) throw LibraryError("as asked");
      };
      BOOST_CHECK_THROW(replay(trace, options), LibraryError);
    }
}

BOOST_AUTO_TEST_CASE(an_idle_ttl_takes_pages_back_and_never_adds_hits) {
  const Trace trace = test::random_trace(5, 2000, 24);
  const Result forever = replay(trace, one_thread(5000));
  Options options = one_thread(5000);
  options.idle_ttl_ms = 500;
  const Result idle = replay(trace, options);
  const Result again = replay(trace, options);
  BOOST_TEST(again.request_hits == idle.request_hits, boost::test_tools::per_element());
  BOOST_TEST(again.expired == idle.expired);
  options.idle_ttl_ms = 0;
  options.absolute_ttl_ms = 500;
  const Result absolute = replay(trace, options);
  BOOST_TEST(forever.expired == 0u);
  BOOST_TEST(idle.expired > 0u);
  BOOST_TEST(absolute.expired > 0u);
  BOOST_TEST(idle.hits <= forever.hits);
  BOOST_TEST(absolute.hits < forever.hits);
  for (const Result *result : {&idle, &absolute})
    BOOST_TEST(result->hits + result->inserted + result->unindexed == result->served);
}

}  // namespace
}  // namespace quire::replay
