// What the policy `hazard` learns from, through the C API: every release once, what it missed
// counted, and what it keeps told.
#define BOOST_TEST_MODULE learner
#include <algorithm>
#include <deque>
#include <random>

#include "runtime/ghost_list.h"
#include "tests/support/api_fixture.h"

using namespace quire::test;

namespace {

constexpr const char *kHazard = "format=f32,device_pages=64,policy=hazard";

// Uses of a chain that is there.
void use(ApiFixture &f, const std::vector<quire_key> &keys, uint32_t times) {
  for (uint32_t i = 0; i < times; ++i) f.release(f.acquire(keys));
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_release_of_a_chain_is_learned_from_once) {
  ApiFixture f(small_config(kHazard));
  const auto keys = f.keys_of(1, 4);
  f.fill(keys);
  use(f, keys, 9);
  f.release(f.acquire(f.keys_of(2, 3)));  // no hit: a lease on nothing tells nothing
  BOOST_TEST(f.stats().use_records_total == 0U);
  QUIRE_OK_OR_DIE(quire_step(f.cache));
  BOOST_TEST(f.stats().use_records_total == 10U);
  BOOST_TEST(f.stats().use_records_lost_total == 0U);
  BOOST_TEST(f.stats().policy_fits_total == 0U);
  use(f, keys, 6);
  QUIRE_OK_OR_DIE(quire_step(f.cache));
  BOOST_TEST(f.stats().policy_fits_total == 1U);
  BOOST_TEST(f.stats().policy_classes == 2U);  // fresh, and continued at once
}

BOOST_AUTO_TEST_CASE(releases_that_come_too_fast_are_counted_as_lost) {
  ApiFixture f(small_config(kHazard));
  const auto keys = f.keys_of(1, 2);
  f.fill(keys);
  use(f, keys, 5000 - 1);
  QUIRE_OK_OR_DIE(quire_step(f.cache));
  BOOST_TEST(f.stats().use_records_total == 4096U);
  BOOST_TEST(f.stats().use_records_lost_total == 5000U - 4096U);
  use(f, keys, 3);
  QUIRE_OK_OR_DIE(quire_step(f.cache));
  BOOST_TEST(f.stats().use_records_total == 4099U);
}

BOOST_AUTO_TEST_CASE(a_chain_that_went_before_the_walk_is_counted_as_lost) {
  ApiFixture f(small_config(kHazard));
  f.fill(f.keys_of(1, 64));
  f.fill(f.keys_of(2, 64));  // in its place
  QUIRE_OK_OR_DIE(quire_step(f.cache));
  BOOST_TEST(f.stats().use_records_total == 1U);
  BOOST_TEST(f.stats().use_records_lost_total == 1U);
}

BOOST_AUTO_TEST_CASE(a_cache_that_does_not_learn_has_no_memory_for_it) {
  ApiFixture lru(small_config("format=f32,device_pages=64,policy=lru"));
  lru.fill(lru.keys_of(1, 64));
  QUIRE_OK_OR_DIE(quire_step(lru.cache));
  BOOST_TEST(lru.stats().policy_bytes == 0U);
  BOOST_TEST(lru.stats().use_records_total == 0U);
  ApiFixture hazard(small_config(kHazard));
  BOOST_TEST(hazard.stats().policy_bytes > 64U * 100);
  BOOST_TEST(hazard.stats().metadata_bytes == lru.stats().metadata_bytes);
}

// Many sessions come back after a while, prompts of no session never do; the cache holds a part.
BOOST_AUTO_TEST_CASE(it_learns_to_keep_what_comes_back_late_over_what_never_does) {
  const auto hits = [](const char *policy) {
    ApiFixture f(
        small_config((std::string("format=f32,device_pages=64,policy=") + policy).c_str()));
    uint32_t total = 0, stranger = 1000;
    for (uint32_t round = 0; round < 300; ++round) {
      const auto session = f.keys_of(1 + round % 8, 4);
      total += f.match(session);
      f.fill(session);
      QUIRE_OK_OR_DIE(quire_step(f.cache));
      for (int i = 0; i < 2; ++i) {
        f.fill(f.keys_of(stranger++, 6));
        QUIRE_OK_OR_DIE(quire_step(f.cache));
      }
    }
    return total;
  };
  const uint32_t lru = hits("lru"), hazard = hits("hazard");
  BOOST_TEST_MESSAGE("lru " << lru << ", hazard " << hazard);
  BOOST_TEST(lru == 0U);
  BOOST_TEST(hazard > 300U * 4 / 2);
}

BOOST_AUTO_TEST_CASE(ghosts_are_the_last_ones_sent_each_once) {
  quire::Heap heap;
  quire::GhostList ghosts(heap);
  constexpr uint32_t kRoom = 7;
  BOOST_REQUIRE(ghosts.open(kRoom));
  // Keys in the order in which they came; 0: it came back, or came again.
  std::deque<uint64_t> model;
  const auto forget = [&](uint64_t key) {
    const auto at = std::find(model.begin(), model.end(), key);
    if (at == model.end()) return false;
    *at = 0;
    return true;
  };
  std::mt19937 random(20260301);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t key = uint64_t{1 + random() % 12} << 32 | 1;
    quire::SeenPage page, lost;
    if (random() % 3 == 0) {
      BOOST_REQUIRE(ghosts.take(key, &page) == forget(key));
    } else {
      page.key = key;
      forget(key);
      uint64_t oldest = 0;
      if (model.size() == kRoom) {
        oldest = model.front();
        model.pop_front();
      }
      model.push_back(key);
      BOOST_REQUIRE(ghosts.push(page, &lost) == (oldest != 0));
      if (oldest != 0) BOOST_REQUIRE(lost.key == oldest);
    }
    BOOST_REQUIRE(ghosts.validate());
    BOOST_REQUIRE(ghosts.live() == model.size() - static_cast<size_t>(std::count(
                                                      model.begin(), model.end(), uint64_t{0})));
  }
}
