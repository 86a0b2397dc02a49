// quire_check: silent on a sound cache, whatever was done to it; and each kind of damage is found,
// and named.
#define BOOST_TEST_MODULE unit_check
#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>
#include <string>
#include <vector>

#include "quire/quire.h"
#include "runtime/c_boundary.h"
#include "tests/support/insight_fixture.h"

using namespace quire;
using namespace quire::test;

namespace {

struct Fixture {
  Fixture() : cache(open_small("-")), tables(from_c(cache)->tables()) {
    leases.push_back(publish_chain(cache, 1, 4, 1));
    leases.push_back(publish_chain(cache, 2, 2, 2));
    leases.push_back(hold_private(cache, 3, 3));
    for (uint32_t page = 0; page < tables.pages.capacity(); ++page) {
      const PageView view = tables.pages.view(page);
      const auto parent = tables.pages[page].parent.load();
      if (view.state == PageState::kVisible && parent != kNone) child = page;
      if (tables.page_pool.is_free(page))
        free_page = page;
      else if (view.state == PageState::kPrivate)
        private_page = page;
    }
    sound();
  }
  ~Fixture() {
    sound();
    for (const quire_lease lease : leases) quire_release(cache, lease, nullptr);
    sound();
    BOOST_TEST(quire_close(cache) == QUIRE_OK);
  }

  void sound() {
    BOOST_TEST(quire_check(cache, 0) == QUIRE_OK, quire_last_error());
    BOOST_TEST(quire_check(cache, QUIRE_CHECK_LIVE) == QUIRE_OK, quire_last_error());
  }
  // Found at rest, with these words; and, where `live`, while others run too.
  void violated(const std::string &words, bool live = false) {
    BOOST_TEST(quire_check(cache, 0) == QUIRE_E_CORRUPT);
    const std::string text = quire_last_error();
    BOOST_TEST(text.find(words) != std::string::npos,
               "\"" << text << "\" lacks \"" << words << '"');
    BOOST_TEST(quire_check(cache, QUIRE_CHECK_LIVE) == (live ? QUIRE_E_CORRUPT : QUIRE_OK));
  }
  // Sets a word of a structure for the length of a check.
  template <class T>
  void with(std::atomic<T> &word, T value, const std::string &words, bool live = false) {
    const T was = word.exchange(value);
    violated(words, live);
    word.store(was);
    sound();
  }
  LeaseSlot &slot(size_t i) { return tables.leases.slot(static_cast<uint32_t>(leases[i])); }

  quire_cache *cache;
  Tables &tables;
  std::vector<quire_lease> leases;
  uint32_t child = kNone, private_page = kNone, free_page = kNone;
};

}  // namespace

BOOST_AUTO_TEST_CASE(an_empty_cache_and_one_that_was_full_are_sound) {
  quire_cache *cache = open_small("-");
  BOOST_TEST(quire_check(cache, 0) == QUIRE_OK, quire_last_error());
  for (uint32_t id = 0; id < 40; ++id) {  // far more than fit: evictions
    must(quire_release(cache, publish_chain(cache, id, 1 + id % 7, id), nullptr));
    must(quire_step(cache));
    BOOST_TEST(quire_check(cache, 0) == QUIRE_OK, quire_last_error());
  }
  BOOST_TEST(stats_of(cache).evictions_capacity_total > 0U);
  BOOST_TEST(quire_check(cache, 2) == QUIRE_E_INVALID);
  BOOST_TEST(quire_check(nullptr, 0) == QUIRE_E_INVALID);
  must(quire_close(cache));
}

BOOST_FIXTURE_TEST_CASE(numbers_out_of_range_are_found_at_any_time, Fixture) {
  PageDescriptor &d = tables.pages[child];
  with(d.parent, tables.pages.capacity(), "parent", true);
  with(d.parent, child, "parent", true);
  with(d.frame, 1000000u, "frame", true);
  with(d.space, 1000u, "namespace", true);
  with(d.writer, uint16_t{1000}, "writer", true);
  with(slot(0).tail, 1000u, "page 1000", true);
  with(slot(2).private_head, 1000u, "page 1000", true);
}

// The word of a visible page is its idle TTL.
BOOST_FIXTURE_TEST_CASE(a_private_page_of_no_lease_is_found, Fixture) {
  with(tables.pages[private_page].lease, 1000u, "lease 1000");
  tables.pages[child].lease.store(1000);
  sound();
}

BOOST_FIXTURE_TEST_CASE(counters_that_do_not_add_up_are_found, Fixture) {
  using M = PageTable<>::M;
  PageDescriptor &d = tables.pages[child];
  const uint32_t parent = d.parent.load();
  d.meta.fetch_add(M::kRefUnit);
  violated("references");
  d.meta.fetch_sub(M::kRefUnit);
  tables.pages[parent].meta.fetch_sub(M::kChildUnit);
  violated("children");
  tables.pages[parent].meta.fetch_add(M::kChildUnit);
  tables.spaces.add_pages(d.space.load(), 1);
  violated("namespace");
  tables.spaces.drop_pages(d.space.load(), 1);
  violated("namespace");
  BOOST_TEST(tables.spaces.claim(d.space.load(), 1) == 1U);
  with(slot(0).pages, 3u, "does not end a chain");
  with(slot(2).private_pages, 2u, "private pages");
  with(slot(2).private_pages, 4u, "private pages");
}

BOOST_FIXTURE_TEST_CASE(chains_and_lists_that_are_broken_are_found, Fixture) {
  with(tables.pages[child].depth, 7u, "depth");
  with(tables.pages[private_page].lease, uint32_t{0}, "not its own");
  with(tables.pages[private_page].expiry_ms, uint64_t{0}, "list");
  with(slot(2).private_tail, child, "private pages");
}

BOOST_FIXTURE_TEST_CASE(states_that_contradict_the_pool_are_found, Fixture) {
  using M = PageTable<>::M;
  auto &meta = tables.pages[free_page].meta;
  meta.fetch_add(M::change(PageState::kPrivate, PageState::kEvicting));
  violated("eviction was not finished");
  meta.fetch_sub(M::change(PageState::kPrivate, PageState::kEvicting));
  meta.fetch_add(M::change(PageState::kPrivate, PageState::kVisible));
  violated("the pool says otherwise");
  meta.fetch_sub(M::change(PageState::kPrivate, PageState::kVisible));
  meta.fetch_add(M::kStateUnit * 5);
  violated("is none", true);
  meta.fetch_sub(M::kStateUnit * 5);
}

BOOST_FIXTURE_TEST_CASE(frames_that_are_lost_or_held_twice_are_found, Fixture) {
  uint32_t frame = 0;
  BOOST_REQUIRE(tables.frame_pool.alloc(1, &frame));
  violated("sealed frames");
  tables.frame_pool.free(&frame, 1);
  const uint32_t other = tables.pages[child].frame.load();
  const uint32_t parent = tables.pages[child].parent.load();
  with(tables.pages[parent].frame, other, "held by pages");
  with(tables.pages[parent].frame, frame, "in its pool");
  BOOST_REQUIRE(tables.open_pool.alloc(1, &frame));
  violated("open frames");
  tables.open_pool.free(&frame, 1);
}

BOOST_FIXTURE_TEST_CASE(an_index_that_names_the_wrong_page_is_found, Fixture) {
  // The lowest bit is part of the bin's number, whatever the size of the index.
  auto &key = tables.pages[child].key_lo;
  with(key, key.load() ^ 1, "prefix index");
}

BOOST_FIXTURE_TEST_CASE(an_evicted_namespace_and_expired_pages_are_no_damage, Fixture) {
  quire_key root;
  const quire_field field = {QUIRE_FIELD_MODEL, 4, "test"};
  must(quire_root_key(cache, &field, 1, &root));
  must(quire_evict(cache, &root));
  sound();
  // The same keys once more, beside the dead pages.
  leases.push_back(publish_chain(cache, 1, 4, 1));
  BOOST_TEST(stats_of(cache).pages_visible >= 10U);
  sound();
}
