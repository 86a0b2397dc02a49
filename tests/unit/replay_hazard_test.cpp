// The learned policy: a replay on one thread has exactly the hits and evictions of an oracle that
// shares no code with the library, request by request.
#define BOOST_TEST_MODULE replay_hazard
#include <boost/test/unit_test.hpp>

#include <filesystem>
#include <iostream>

#include "support/hazard_oracle.h"
#include "support/random_trace.h"
#include "support/shared_trace.h"
#include "tools/quire-replay/page_keys.h"
#include "tools/quire-replay/replay.h"

namespace quire::replay {
namespace {

Options with_pages(uint32_t pages) {
  Options options;
  options.pages = pages;
  options.policy = QUIRE_POLICY_HAZARD;
  return options;
}

// The root that a replay gives its only namespace: ties among pages that are equally old go by key.
quire_key replay_root() {
  static constexpr uint8_t kSecret[32] = {'q', 'u', 'i', 'r', 'e', '-',
                                          'r', 'e', 'p', 'l', 'a', 'y'};
  quire_config config;
  BOOST_REQUIRE(quire_config_init(&config) == QUIRE_OK);
  BOOST_REQUIRE(quire_config_parse(&config,
                                   "layers=1,kv_heads=1,head_dim=8,device_pages=64,"
                                   "device=cpu") == QUIRE_OK);
  config.secret = kSecret;
  config.epoch_ms = QUIRE_NO_TIMER;
  quire_cache *cache;
  BOOST_REQUIRE(quire_open(&config, &cache) == QUIRE_OK);
  const uint32_t space = 0;
  const quire_field field = {QUIRE_FIELD_USER, sizeof space, &space};
  quire_key root;
  BOOST_REQUIRE(quire_root_key(cache, &field, 1, &root) == QUIRE_OK);
  BOOST_REQUIRE(quire_close(cache) == QUIRE_OK);
  return root;
}

// How many tables the oracle made.
uint64_t check_oracle(const Trace &trace, uint32_t pages) {
  const Result result = replay(trace, with_pages(pages));
  const quire_key root = replay_root();
  test::HazardOracle oracle(pages);
  std::vector<quire_key> keys;
  std::vector<uint64_t> low;
  for (size_t r = 0; r < trace.requests.size(); ++r) {
    const auto ids = trace.pages(trace.requests[r]);
    keys.resize(ids.size());
    chain_keys(root, ids, keys.data());
    low.clear();
    for (const quire_key &key : keys) low.push_back(key.lo);
    BOOST_TEST_CONTEXT("request " << r << " of " << trace.requests.size() << ", " << pages
                                  << " pages") {
      BOOST_TEST_REQUIRE(oracle.serve(low, trace.requests[r].cls) == result.request_hits[r]);
    }
  }
  BOOST_TEST(oracle.hits() == result.hits);
  BOOST_TEST(oracle.evicted() == result.evicted);
  return oracle.fits();
}

BOOST_AUTO_TEST_CASE(random_traces_have_exactly_the_hits_of_the_oracle) {
  uint64_t fits = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    BOOST_TEST_CONTEXT("seed " << seed) {
      Trace trace = test::random_trace(seed, 400, 24);
      // Half of the traces tell classes, and some requests of these do not.
      if (seed % 2 == 0)
        for (size_t r = 0; r < trace.requests.size(); ++r)
          trace.requests[r].cls = static_cast<uint32_t>((r * seed) % 4);
      fits += check_oracle(trace, static_cast<uint32_t>(20 + seed * 7 % 180));
    }
  }
  BOOST_TEST(fits > 500u);
}

BOOST_AUTO_TEST_CASE(a_long_trace_in_a_larger_cache_has_them_too) {
  const Trace trace = test::random_trace(77, 3000, 200);
  BOOST_TEST(check_oracle(trace, 1000) > 20u);
}

BOOST_AUTO_TEST_CASE(a_request_longer_than_the_cache_and_empty_ones_do_no_harm) {
  Trace trace = test::random_trace(5, 200, 40);
  BOOST_TEST(check_oracle(trace, 7) > 0u);
  BOOST_TEST(check_oracle(trace, 1) > 0u);
}

BOOST_AUTO_TEST_CASE(real_traffic_has_the_hits_of_the_oracle_and_more_than_lru) {
  for (const auto &[name, pages] :
       {std::pair("tau-airline", 143u), std::pair("mooncake-synthetic", 3313u)}) {
    const std::string path = test::trace_path(name);
    if (!std::filesystem::exists(path)) {
      std::cout << "SKIPPED: no " << path << '\n';
      continue;
    }
    const Trace trace = test::read_trace(name);
    check_oracle(trace, pages);
    Options lru = with_pages(pages);
    lru.policy = QUIRE_POLICY_LRU;
    const double gain =
        replay(trace, with_pages(pages)).hit_ratio() - replay(trace, lru).hit_ratio();
    BOOST_TEST(gain > 0.01);
  }
}

}  // namespace
}  // namespace quire::replay
