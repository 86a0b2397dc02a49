// Seeded walks through the whole C API against an oracle of plain maps (tests/support/api_walk.h),
// over formats with and without open pages, with and without streams, with and without failing
// calls. QUIRE_TEST_SEED repeats one seed; QUIRE_SOAK=1 goes ten times as far. Under sanitizers
// fewer operations are run; the test says how many.
#define BOOST_TEST_MODULE api_oracle
#include <boost/test/unit_test.hpp>

#include <cstdio>
#include <cstdlib>

#include "tests/support/api_walk.h"

namespace {

using quire::test::ApiWalk;
using quire::test::WalkSetup;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || !defined(NDEBUG)
constexpr uint64_t kOperations = 80000;
#else
constexpr uint64_t kOperations = 400000;
#endif
constexpr uint64_t kSeeds = 4;

#define GEOMETRY "device=cpu,layers=1,kv_heads=1,head_dim=16,page_tokens=16,max_streams=16,"
constexpr const char *kPlain =
    GEOMETRY "format=f32,device_pages=24,max_leases=12,max_sequences=5,max_namespaces=8";
constexpr const char *kHalf =
    GEOMETRY "format=f16,device_pages=7,max_leases=12,max_sequences=3,max_namespaces=8";
constexpr const char *kCoded = GEOMETRY
    "format=nf4,device_pages=20,open_pages=10,max_leases=12,max_sequences=5,max_namespaces=8";
constexpr const char *kVerified = GEOMETRY
    "format=f16,device_pages=20,max_leases=12,max_sequences=5,max_namespaces=8,verify_tokens=1";
constexpr const char *kRanked = GEOMETRY
    "format=f16,device_pages=14,max_leases=12,max_sequences=5,max_namespaces=8,policy=priority";
constexpr const char *kLearned = GEOMETRY
    "format=f16,device_pages=18,max_leases=12,max_sequences=5,max_namespaces=8,policy=hazard";

void walk(const WalkSetup &setup) {
  const char *const seed_text = std::getenv("QUIRE_TEST_SEED");
  const char *const soak = std::getenv("QUIRE_SOAK");
  const uint64_t operations = kOperations / kSeeds * (soak != nullptr && soak[0] == '1' ? 10 : 1);
  const uint64_t seeds = seed_text != nullptr ? 1 : kSeeds;
  uint64_t failed = 0;
  for (uint64_t i = 0; i < seeds; ++i) {
    const uint64_t seed =
        seed_text != nullptr ? std::strtoull(seed_text, nullptr, 10) : 20260000 + i;
    std::unique_ptr<ApiWalk> at;
    try {
      at = std::make_unique<ApiWalk>(setup, seed);
      at->run(operations);
      at->finish();
    } catch (const std::exception &wrong) {
      BOOST_FAIL("QUIRE_TEST_SEED=" << seed << ": " << wrong.what()
                                    << "\nlast operations:" << (at ? at->history() : ""));
    }
    failed += at->failed_calls();
  }
  std::printf("%llu operations, %llu calls that failed as they must\n",
              static_cast<unsigned long long>(operations) * seeds,
              static_cast<unsigned long long>(failed));
  BOOST_TEST(failed > 0u);
}

}  // namespace

BOOST_AUTO_TEST_CASE(plain_pages) {
  walk({kPlain});
}
BOOST_AUTO_TEST_CASE(a_tiny_cache_of_plain_pages) {
  walk({kHalf});
}
BOOST_AUTO_TEST_CASE(coded_pages_with_open_ones) {
  walk({kCoded});
}
BOOST_AUTO_TEST_CASE(pages_that_keep_their_token_ids) {
  walk({kVerified});
}
BOOST_AUTO_TEST_CASE(pages_that_are_kept_by_priority) {
  walk({kRanked});
}
BOOST_AUTO_TEST_CASE(tenants_with_quotas_and_floors) {
  walk({kPlain, false, false, true});
  walk({kHalf, false, false, true});
}
BOOST_AUTO_TEST_CASE(tenants_ranked_by_priority_and_failing_calls) {
  walk({kRanked, false, true, true});
}
BOOST_AUTO_TEST_CASE(tenants_on_streams_that_lie_and_calls_that_fail) {
  walk({kCoded, true, true, true});
}
BOOST_AUTO_TEST_CASE(pages_that_are_kept_by_what_was_learned) {
  walk({kLearned});
  walk({kLearned, false, true, true});
}
BOOST_AUTO_TEST_CASE(token_ids_streams_that_lie_and_calls_that_fail) {
  walk({kVerified, true, true});
}
BOOST_AUTO_TEST_CASE(plain_pages_and_failing_calls) {
  walk({kPlain, false, true});
}
BOOST_AUTO_TEST_CASE(coded_pages_and_failing_calls) {
  walk({kCoded, false, true});
}
BOOST_AUTO_TEST_CASE(plain_pages_on_streams_that_lie) {
  walk({kPlain, true, false});
}
BOOST_AUTO_TEST_CASE(coded_pages_on_streams_that_lie) {
  walk({kCoded, true, false});
}
BOOST_AUTO_TEST_CASE(streams_that_lie_and_calls_that_fail) {
  walk({kCoded, true, true});
}
