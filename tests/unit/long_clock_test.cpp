// A cache whose clock has run for longer than 32 bits count: ages, LRU order and the reuse of
// frames stay right, also where nothing but steps and hits has happened since.
#define BOOST_TEST_MODULE long_clock
#include <boost/test/unit_test.hpp>

#include "runtime/cache.h"
#include "tests/support/api_fixture.h"

using namespace quire::test;

namespace {

class LongRun : public ApiFixture {
 public:
  using ApiFixture::ApiFixture;

  // As if the clock had been moved that often. Nobody else uses the cache, and no guard is held.
  void jump(uint64_t epochs) {
    auto &clock = reinterpret_cast<quire::Cache *>(cache)->tables().clock;
    clock.format(clock.now() + epochs);
    QUIRE_OK_OR_DIE(quire_step(cache));
  }
  uint64_t age(quire_page page) {
    auto record = sized_struct<quire_page_record>();
    QUIRE_OK_OR_DIE(quire_page_info(cache, page, &record));
    return record.age_epochs;
  }
  quire_page page_of(const std::vector<quire_key> &keys) {
    std::vector<quire_page> pages(keys.size());
    uint32_t hit = 0;
    release(acquire(keys, &hit, pages.data()));
    BOOST_TEST_REQUIRE(hit == keys.size());
    return pages.back();
  }
};

constexpr uint64_t kJump = uint64_t{1} << 27;

}  // namespace

BOOST_AUTO_TEST_CASE(a_cache_that_is_only_hit_keeps_ages_in_order_when_stamps_wrap) {
  LongRun run(small_config("format=f32,device_pages=3"));
  const auto old = run.keys_of(1, 1), used = run.keys_of(2, 1), other = run.keys_of(3, 1);
  for (const auto &keys : {old, used, other}) run.fill(keys);
  const quire_page old_page = run.page_of(old), used_page = run.page_of(used);
  // Through two wraps of the stamps, in steps as long as a timer may be away.
  for (uint64_t i = 0; i < 72; ++i) {
    run.jump(kJump);
    if (i % 8 != 0) continue;
    run.release(run.acquire(used));
    run.release(run.acquire(other));
    BOOST_TEST(run.age(used_page) == 0u);
    BOOST_TEST(run.age(old_page) >= std::min<uint64_t>(uint64_t{1} << 30, kJump * (i + 1)) - 1);
    BOOST_TEST(run.age(old_page) < uint64_t{1} << 31);
  }
  // The oldest goes, and its frame is free at once: it did not retire in an epoch to come.
  run.jump(1);
  const auto fresh = run.keys_of(4, 1);
  run.fill(fresh);
  BOOST_TEST(run.match(old) == 0u);
  BOOST_TEST(run.match(used) == 1u);
  BOOST_TEST(run.match(other) == 1u);
  BOOST_TEST(run.stats().frames_limbo == 0u);
}

// The same with a reader: a frame whose page was last used long ago waits for nobody.
BOOST_AUTO_TEST_CASE(a_frame_of_an_ancient_page_is_free_once_a_stream_has_passed_the_present) {
  LongRun run(small_config("format=f32,device_pages=1"));
  quire_stream stream = nullptr;
  QUIRE_OK_OR_DIE(quire_cpu_stream_create(&stream));
  const auto ancient = run.keys_of(1, 1), fresh = run.keys_of(2, 1);
  run.fill(ancient);
  for (int i = 0; i < 36; ++i) run.jump(kJump);
  QUIRE_OK_OR_DIE(quire_stream_add(run.cache, stream, 0, 0));
  QUIRE_OK_OR_DIE(quire_step(run.cache));
  run.fill(fresh);
  BOOST_TEST(run.match(fresh) == 1u);
  QUIRE_OK_OR_DIE(quire_stream_remove(run.cache, stream));
  QUIRE_OK_OR_DIE(quire_cpu_stream_destroy(stream));
  QUIRE_OK_OR_DIE(quire_step(run.cache));
}
