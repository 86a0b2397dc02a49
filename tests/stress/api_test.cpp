// Four threads on one cache through the C API: acquire, alloc, publish, release, evict, step, on
// few shared prefixes in a cache that is too small for them, with a timer. Each page holds its
// key's word; whoever has a lease on it finds that word, however often frames change hands. At rest
// every invariant holds and no frame is missing.
#define BOOST_TEST_MODULE stress_api
#include <cstdio>
#include <random>
#include <thread>

#include "tests/support/api_fixture.h"

using namespace quire::test;

namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kRounds = 2500;
#else
constexpr int kRounds = 20000;
#endif
constexpr uint32_t kThreads = 4, kPrompts = 10, kPages = 4;

struct Shared {
  quire_cache *cache;
  bool open_pages;
  std::vector<std::vector<quire_key>> keys;
  std::vector<quire_prefix> prefixes;
  std::atomic<uint64_t> hits{0}, wrong{0}, duplicates{0}, dry{0}, unexpected{0};

  bool ok(quire_status status) {
    if (status == QUIRE_OK) return true;
    if (unexpected.fetch_add(1) == 0) std::printf("unexpected: %s\n", quire_last_error());
    return false;
  }
};

// The word of a page goes behind its header; plain formats only (an encoder would read it as
// values).
void write_words(Shared &s, quire_page page, uint32_t word) {
  void *at = nullptr;
  size_t bytes = 0;
  if (!s.ok(quire_page_data(s.cache, page, &at, &bytes))) return;
  auto *const words = static_cast<uint32_t *>(at);
  for (size_t i = bytes / 8; i < bytes / 4; ++i) words[i] = word;
}

void check_words(Shared &s, quire_page page, uint32_t word) {
  void *at = nullptr;
  size_t bytes = 0;
  if (!s.ok(quire_page_data(s.cache, page, &at, &bytes))) return;
  const auto *const words = static_cast<const uint32_t *>(at);
  for (size_t i = bytes / 8; i < bytes / 4; ++i) s.wrong.fetch_add(words[i] == word ? 0u : 1u);
}

void round(Shared &s, std::mt19937 &random) {
  const uint32_t which = static_cast<uint32_t>(random()) % kPrompts;
  const quire_prefix &prefix = s.prefixes[which];
  quire_page pages[kPages];
  auto hit = sized_struct<quire_hit>();
  quire_lease lease = 0, clone = 0;
  if (!s.ok(quire_acquire(s.cache, &prefix, nullptr, pages, &hit, &lease))) return;
  const auto word = [&](uint32_t i) { return static_cast<uint32_t>(s.keys[which][i].lo) | 1u; };
  s.hits += hit.pages;
  if (!s.open_pages) {
    for (uint32_t i = 0; i < hit.pages; ++i) check_words(s, pages[i], word(i));
  }
  if (hit.pages < kPages) {
    auto options = sized_struct<quire_alloc_options>();
    options.lease = lease;
    const quire_status status =
        quire_alloc(s.cache, kPages - hit.pages, &options, pages + hit.pages);
    if (status == QUIRE_OK) {
      for (uint32_t i = hit.pages; i < kPages && !s.open_pages; ++i)
        write_words(s, pages[i], word(i));
      auto publish = sized_struct<quire_publish_options>();
      publish.flags = random() % 2 == 0 ? QUIRE_PUBLISH_REPLACE : 0;
      auto result = sized_struct<quire_publish_result>();
      const quire_status published =
          quire_publish(s.cache, lease, &prefix, pages, &publish, &result);
      if (published != QUIRE_E_AGAIN && published != QUIRE_E_NOMEM) s.ok(published);
      s.duplicates += result.n_duplicate;
    } else if (status == QUIRE_E_NOMEM || status == QUIRE_E_AGAIN) {
      ++s.dry;
    } else {
      s.ok(status);
    }
  }
  if (random() % 4 == 0 && s.ok(quire_lease_clone(s.cache, lease, UINT32_MAX, nullptr, &clone))) {
    s.ok(quire_release(s.cache, lease, nullptr));
    lease = clone;
  }
  if (random() % 64 == 0) s.ok(quire_step(s.cache));
  if (random() % 512 == 0) s.ok(quire_evict(s.cache, &prefix.root));
  if (random() % 256 == 0) s.ok(quire_check(s.cache, QUIRE_CHECK_LIVE));
  s.ok(quire_release(s.cache, lease, nullptr));
}

void stress(const char *more) {
  quire_config config = small_config(more);
  config.epoch_ms = 1;
  ApiFixture f(config);
  Shared s;
  s.cache = f.cache;
  s.open_pages = f.stats().open_frames_capacity != 0;
  for (uint32_t i = 0; i < kPrompts; ++i) {
    auto keys = f.keys_of(i % 3, 1);  // three first pages, shared
    const auto rest = f.keys_of(100 + i, kPages - 1, &keys[0]);
    keys.insert(keys.end(), rest.begin(), rest.end());
    s.keys.push_back(keys);
  }
  for (const auto &keys : s.keys) s.prefixes.push_back(f.prefix_of(keys));
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&s, t] {
      std::mt19937 random(20260117 + t);
      for (int i = 0; i < kRounds; ++i) round(s, random);
    });
  }
  for (std::thread &thread : threads) thread.join();
  const quire_stats stats = f.stats();
  std::printf("%u rounds: %llu pages hit, %llu duplicates, %llu evicted, %llu dry\n",
              kThreads * kRounds, static_cast<unsigned long long>(s.hits),
              static_cast<unsigned long long>(s.duplicates),
              static_cast<unsigned long long>(stats.evictions_capacity_total),
              static_cast<unsigned long long>(s.dry));
  BOOST_TEST(s.unexpected == 0u);
  BOOST_TEST(s.wrong == 0u);
  BOOST_TEST(s.hits > 0u);
  BOOST_TEST(stats.evictions_capacity_total > 0u);
  BOOST_TEST(stats.leases == 0u);
  BOOST_TEST(stats.pages_private == 0u);
  BOOST_TEST(stats.frames_free + stats.pages_visible + stats.frames_limbo == stats.frames_capacity);
  BOOST_TEST(stats.open_frames_free + stats.open_frames_limbo == stats.open_frames_capacity);
}

}  // namespace

BOOST_AUTO_TEST_CASE(plain_pages_keep_their_words_under_leases) {
  stress("format=f32,device_pages=24");
}
BOOST_AUTO_TEST_CASE(the_policy_learns_while_pages_come_and_go) {
  stress("format=f32,device_pages=24,policy=hazard");
}
BOOST_AUTO_TEST_CASE(coded_pages_keep_their_frames) {
  stress("format=nf4,device_pages=24,open_pages=16");
}
