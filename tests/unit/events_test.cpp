// Events and the list of published pages: a router that follows them has exactly what the cache has,
// whatever else goes on, from this process and from outside, and knows when it has lost some.
#define BOOST_TEST_MODULE unit_events
#include <unistd.h>

#include <map>
#include <random>
#include <set>
#include <thread>

#include "tests/support/api_fixture.h"

using namespace quire::test;

namespace {

struct Held {
  quire_key key, parent;
  uint32_t index, space;
};

// What quire.h says a router does, on a cache or on a segment.
template <class Source>
class Router {
 public:
  explicit Router(Source source) : source_(source) {}

  void begin() {
    pages.clear();
    cursor_ = 0;
    size_t none = 0;
    BOOST_REQUIRE(source_.read(&cursor_, nullptr, &none, nullptr) == QUIRE_OK);
    std::vector<quire_published> rows(7);
    uint64_t at = 0;
    do {
      rows[0].size = sizeof rows[0];
      size_t n = rows.size();
      BOOST_REQUIRE(source_.next(&at, rows.data(), &n) == QUIRE_OK);
      for (size_t i = 0; i < n; ++i) {
        const quire_published &row = rows[i];
        if (!pages.emplace(row.page, Held{row.key, row.parent, row.index, row.space}).second)
          ++twice;
      }
    } while (at != 0);
    begins += 1;
  }
  // All events that are there. False: some are lost, and it must begin again.
  bool follow() {
    std::vector<quire_event> events(16);
    uint64_t lost = 0;
    for (size_t n = events.size(); n == events.size();) {
      events[0].size = sizeof events[0];
      if (source_.read(&cursor_, events.data(), &n, &lost) != QUIRE_OK) ++wrong;
      for (size_t i = 0; i < n; ++i) apply(events[i]);
    }
    return lost == 0;
  }

  std::map<quire_page, Held> pages;
  uint64_t wrong = 0, twice = 0, begins = 0, seen = 0;

 private:
  void apply(const quire_event &e) {
    ++seen;
    if (e.kind == QUIRE_EVENT_STORED) pages[e.page] = Held{e.key, e.parent, e.index, e.space};
    if (e.kind == QUIRE_EVENT_REMOVED) pages.erase(e.page);
  }
  Source source_;
  uint64_t cursor_ = 0;
};

struct FromCache {
  quire_cache *cache;
  quire_status read(uint64_t *cursor, quire_event *events, size_t *n, uint64_t *lost) const {
    return quire_events_read(cache, cursor, events, n, lost);
  }
  quire_status next(uint64_t *at, quire_published *out, size_t *n) const {
    return quire_published_next(cache, at, out, n);
  }
};
struct FromSegment {
  quire_segment *segment;
  quire_status read(uint64_t *cursor, quire_event *events, size_t *n, uint64_t *lost) const {
    return quire_segment_events(segment, cursor, events, n, lost);
  }
  quire_status next(uint64_t *at, quire_published *out, size_t *n) const {
    return quire_segment_published_next(segment, at, out, n);
  }
};

// At rest: the router's map is the list.
template <class R>
void compare(R &router, quire_cache *cache) {
  BOOST_TEST(router.wrong == 0U);
  BOOST_TEST(router.twice == 0U);
  std::map<quire_page, Held> there;
  std::vector<quire_published> rows(64);
  uint64_t at = 0;
  do {
    rows[0].size = sizeof rows[0];
    size_t n = rows.size();
    QUIRE_OK_OR_DIE(quire_published_next(cache, &at, rows.data(), &n));
    for (size_t i = 0; i < n; ++i) {
      there.emplace(rows[i].page, Held{rows[i].key, rows[i].parent, rows[i].index, rows[i].space});
    }
  } while (at != 0);
  auto stats = sized_struct<quire_stats>();
  QUIRE_OK_OR_DIE(quire_stats_get(cache, &stats));
  BOOST_TEST(there.size() == stats.pages_visible);
  BOOST_TEST(router.pages.size() == there.size());
  // Handles of a segment have no cache in them: by index and generation.
  const auto bare = [](quire_page page) { return page & ((uint64_t{1} << 50) - 1); };
  std::map<quire_page, Held> mine;
  for (const auto &[page, held] : router.pages) mine.emplace(bare(page), held);
  for (const auto &[page, held] : there) {
    const auto found = mine.find(bare(page));
    BOOST_REQUIRE(found != mine.end());
    BOOST_TEST(found->second.key.lo == held.key.lo);
    BOOST_TEST(found->second.parent.lo == held.parent.lo);
    BOOST_TEST(found->second.index == held.index);
    BOOST_TEST(found->second.space == held.space);
  }
}

// Publishes, hits and evicts, in a namespace of its own or with the others.
void churn(ApiFixture &f, uint32_t tenant, uint32_t prompts, std::atomic<uint64_t> *wrong) {
  const uint32_t id = tenant % 2;
  const quire_field field = {QUIRE_FIELD_TENANT, sizeof id, &id};
  quire_key root;
  if (quire_root_key(f.cache, &field, 1, &root) != QUIRE_OK) ++*wrong;
  std::mt19937 random(tenant + 1);
  for (uint32_t i = 0; i < prompts; ++i) {
    const auto n = static_cast<uint32_t>(1 + random() % 4);
    std::vector<uint32_t> tokens(size_t{n} * 16, static_cast<uint32_t>(random() % 12));
    std::vector<quire_key> keys(n);
    std::vector<quire_page> pages(n);
    size_t count = n;
    if (quire_chain_keys(f.cache, &root, tokens.data(), tokens.size(), nullptr, 0, keys.data(),
                         &count) != QUIRE_OK) {
      ++*wrong;
    }
    auto prefix = sized_struct<quire_prefix>();
    prefix.n = n;
    prefix.root = root;
    prefix.keys = keys.data();
    auto hit = sized_struct<quire_hit>();
    quire_lease lease = 0;
    if (quire_acquire(f.cache, &prefix, nullptr, pages.data(), &hit, &lease) != QUIRE_OK) ++*wrong;
    auto options = sized_struct<quire_alloc_options>();
    options.lease = lease;
    if (quire_alloc(f.cache, n - hit.pages, &options, pages.data() + hit.pages) == QUIRE_OK &&
        quire_publish(f.cache, lease, &prefix, pages.data(), nullptr, nullptr) != QUIRE_OK) {
      ++*wrong;
    }
    if (quire_release(f.cache, lease, nullptr) != QUIRE_OK) ++*wrong;
    if (random() % 256 == 0 && quire_evict(f.cache, &root) != QUIRE_OK) ++*wrong;
    if (random() % 16 == 0 && quire_step(f.cache) != QUIRE_OK) ++*wrong;
  }
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr uint32_t kPrompts = 2000;
#else
constexpr uint32_t kPrompts = 30000;
#endif

}  // namespace

BOOST_AUTO_TEST_CASE(a_router_knows_what_is_there_and_what_comes) {
  ApiFixture f;
  f.fill(f.keys_of(1, 3));
  Router router{FromCache{f.cache}};
  router.begin();
  BOOST_TEST(router.pages.size() == 3U);
  BOOST_TEST(router.seen == 0U);
  f.fill(f.keys_of(2, 2));
  BOOST_TEST(router.follow());
  BOOST_TEST(router.seen == 2U);
  BOOST_TEST(router.pages.size() == 5U);
  const auto first = f.keys_of(2, 1);
  bool found = false;
  for (const auto &[page, held] : router.pages) {
    if (held.key.lo != first[0].lo) continue;
    found = true;
    BOOST_TEST(held.index == 0U);
    BOOST_TEST(held.parent.lo == f.root.lo);
    BOOST_TEST(held.parent.hi == f.root.hi);
    auto record = sized_struct<quire_page_record>();
    QUIRE_OK_OR_DIE(quire_page_info(f.cache, page, &record));
    BOOST_TEST(record.space == held.space);
    auto space = sized_struct<quire_namespace_record>();
    QUIRE_OK_OR_DIE(quire_namespace_get(f.cache, &f.root, &space));
    BOOST_TEST(space.number == held.space);
  }
  BOOST_TEST(found);
  QUIRE_OK_OR_DIE(quire_evict(f.cache, &f.root));
  QUIRE_OK_OR_DIE(quire_step(f.cache));
  BOOST_TEST(router.follow());
  BOOST_TEST(router.pages.empty());
  compare(router, f.cache);
}

// Two routers, one of which begins again and again, while pages come and go in all threads.
BOOST_AUTO_TEST_CASE(routers_end_up_equal_to_the_cache_under_churn) {
  ApiFixture f(small_config("format=f32,device_pages=48,max_leases=64"));
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint32_t> running{3};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      churn(f, t, kPrompts, &wrong);
      --running;
    });
  }
  Router steady{FromCache{f.cache}}, restless{FromCache{f.cache}};
  steady.begin();
  while (running != 0) {
    restless.begin();
    if (!steady.follow()) steady.begin();
    if (!restless.follow()) restless.begin();
    std::this_thread::yield();
  }
  for (auto &thread : threads) thread.join();
  BOOST_TEST(wrong == 0U);
  for (Router<FromCache> *router : {&steady, &restless}) {
    while (!router->follow()) router->begin();
    compare(*router, f.cache);
  }
  BOOST_TEST(restless.begins >= 1U);
  BOOST_TEST(steady.seen > 1000U);
}

// From outside, through a mapping that cannot be written to.
BOOST_AUTO_TEST_CASE(a_router_outside_follows_through_the_segment) {
  const std::string name = "quire-test-events." + std::to_string(::getpid());
  quire_config config = small_config("format=f32,device_pages=48,max_leases=64,events=1");
  config.segment = name.c_str();
  ApiFixture f(config);
  quire_segment *segment = nullptr;
  QUIRE_OK_OR_DIE(quire_segment_attach(name.c_str(), &segment));
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint32_t> running{2};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      churn(f, t, kPrompts / 2, &wrong);
      --running;
    });
  }
  Router router{FromSegment{segment}};
  router.begin();
  while (running != 0) {
    if (!router.follow()) router.begin();
    std::this_thread::yield();
  }
  for (auto &thread : threads) thread.join();
  while (!router.follow()) router.begin();
  compare(router, f.cache);
  BOOST_TEST(wrong == 0U);
  BOOST_TEST(router.seen > 100U);
  QUIRE_OK_OR_DIE(quire_segment_detach(segment));
}

BOOST_AUTO_TEST_CASE(who_comes_too_late_is_told_how_much_is_lost) {
  ApiFixture f(small_config("format=f32,device_pages=16,events=1"));
  uint64_t cursor = 0, lost = 0;
  size_t n = 0;
  QUIRE_OK_OR_DIE(quire_events_read(f.cache, &cursor, nullptr, &n, &lost));
  BOOST_TEST(cursor == 1U);
  constexpr uint64_t kChains = 3000;
  for (uint32_t i = 0; i < kChains; ++i) f.fill(f.keys_of(i, 2));
  const uint64_t told = 2 * kChains + 2 * (kChains - 8);
  std::vector<quire_event> events(5000);
  events[0].size = sizeof events[0];
  n = events.size();
  QUIRE_OK_OR_DIE(quire_events_read(f.cache, &cursor, events.data(), &n, &lost));
  BOOST_TEST(n == 4096U);
  BOOST_TEST(lost == told - 4096);
  BOOST_TEST(cursor == told + 1);
  BOOST_TEST(events[0].sequence == lost + 1);
  BOOST_TEST(events[n - 1].sequence == told);
  // A poll has a place of its own, from the first event on.
  BOOST_TEST(f.stats().events_dropped_total == 0U);
  n = events.size();
  QUIRE_OK_OR_DIE(quire_events_poll(f.cache, events.data(), &n));
  BOOST_TEST(n == 4096U);
  BOOST_TEST(f.stats().events_dropped_total == told - 4096);
  n = events.size();
  QUIRE_OK_OR_DIE(quire_events_poll(f.cache, events.data(), &n));
  BOOST_TEST(n == 0U);
  // A place that no event has.
  cursor = told + 1000;
  n = events.size();
  QUIRE_OK_OR_DIE(quire_events_read(f.cache, &cursor, events.data(), &n, &lost));
  BOOST_TEST(cursor == told + 1);
}

BOOST_AUTO_TEST_CASE(what_is_wrong_is_refused) {
  ApiFixture f;
  uint64_t cursor = 0;
  uint64_t at = 0;
  size_t n = 1;
  quire_event event = {};
  quire_published row = {};
  QUIRE_FAILS(quire_events_read(f.cache, nullptr, &event, &n, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_events_read(f.cache, &cursor, &event, nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_events_read(f.cache, &cursor, &event, &n, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_published_next(f.cache, nullptr, &row, &n), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_published_next(f.cache, &at, &row, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_published_next(f.cache, &at, &row, &n), QUIRE_E_INVALID);
  n = 0;
  row.size = sizeof row;
  QUIRE_FAILS(quire_published_next(f.cache, &at, &row, &n), QUIRE_E_INVALID);
  BOOST_TEST(cursor == 0U);
}
