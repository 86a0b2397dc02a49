// Quotas and floors of namespaces: exact, whoever floods; and what the settings refuse.
#define BOOST_TEST_MODULE unit_namespaces
#include <algorithm>
#include <random>
#include <thread>

#include "tests/support/api_fixture.h"

using namespace quire::test;

namespace {

class Tenants : public ApiFixture {
 public:
  explicit Tenants(const char *more = "format=f32,device_pages=32")
      : ApiFixture(small_config(more)) {}

  // From here on prefixes, leases and pages are this tenant's.
  void be(uint32_t tenant) { root = root_of(tenant); }
  quire_status set(uint64_t quota, uint64_t floor) {
    auto settings = sized_struct<quire_namespace>();
    settings.quota = quota;
    settings.floor = floor;
    return quire_namespace_set(cache, &root, &settings);
  }
  quire_namespace_record get() {
    auto record = sized_struct<quire_namespace_record>();
    QUIRE_OK_OR_DIE(quire_namespace_get(cache, &root, &record));
    return record;
  }
  // A prompt of n pages, published as far as it goes; how many pages of it were.
  uint32_t serve(uint32_t prompt, uint32_t n) {
    const auto keys = keys_of(prompt, n);
    std::vector<quire_page> pages(n);
    uint32_t hit = 0;
    const quire_lease lease = acquire(keys, &hit, pages.data());
    auto result = sized_struct<quire_publish_result>();
    if (alloc(n - hit, lease, pages.data() + hit) == QUIRE_OK) {
      QUIRE_OK_OR_DIE(publish(lease, keys, pages.data(), &result));
    }
    release(lease);
    QUIRE_OK_OR_DIE(quire_step(cache));
    return hit + result.n_published;
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_namespace_at_its_quota_replaces_its_own_oldest_pages) {
  Tenants t;
  t.be(2);
  for (uint32_t i = 0; i < 5; ++i) t.serve(100 + i, 2);
  t.be(1);
  QUIRE_OK_OR_DIE(t.set(8, 0));
  for (uint32_t i = 0; i < 40; ++i) {
    BOOST_TEST(t.serve(i, 2) == 2u);
    BOOST_TEST(t.get().pages == std::min<uint64_t>(8, 2 * (i + 1)));
  }
  // The newest four prompts, and no others.
  for (uint32_t i = 30; i < 40; ++i) BOOST_TEST(t.match(t.keys_of(i, 2)) == (i < 36 ? 0u : 2u));
  const quire_stats stats = t.stats();
  BOOST_TEST(stats.evictions_quota_total == 72u);
  BOOST_TEST(stats.evictions_capacity_total == 0u);
  t.be(2);
  BOOST_TEST(t.get().pages == 10u);
}

BOOST_AUTO_TEST_CASE(what_finds_no_room_in_the_quota_stays_private) {
  Tenants t;
  QUIRE_OK_OR_DIE(t.set(5, 0));
  const auto keys = t.keys_of(1, 8);
  std::vector<quire_page> pages(8);
  const quire_lease lease = t.acquire(keys);
  QUIRE_OK_OR_DIE(t.alloc(8, lease, pages.data()));
  auto result = sized_struct<quire_publish_result>();
  QUIRE_OK_OR_DIE(t.publish(lease, keys, pages.data(), &result));
  BOOST_TEST(result.n_published == 5u);
  BOOST_TEST(t.get().pages == 5u);
  BOOST_TEST(t.stats().pages_over_quota_total == 3u);
  BOOST_TEST(t.stats().pages_private == 3u);
  // All of it is pinned: another prompt gets no room, but hits on what others have published.
  const auto other = t.keys_of(2, 2);
  std::vector<quire_page> more(2);
  const quire_lease second = t.acquire(other);
  QUIRE_OK_OR_DIE(t.alloc(2, second, more.data()));
  QUIRE_OK_OR_DIE(t.publish(second, other, more.data(), &result));
  BOOST_TEST(result.n_published == 0u);
  t.release(second);
  const auto shared = std::vector<quire_key>(keys.begin(), keys.begin() + 5);
  std::vector<quire_page> again(5);
  auto one = sized_struct<quire_acquire_options>();
  one.max_pages = 1;
  const quire_prefix prefix = t.prefix_of(shared);
  quire_lease third = 0;
  QUIRE_OK_OR_DIE(quire_acquire(t.cache, &prefix, &one, again.data(), nullptr, &third));
  QUIRE_OK_OR_DIE(t.alloc(4, third, again.data() + 1));
  QUIRE_OK_OR_DIE(t.publish(third, shared, again.data(), &result));
  BOOST_TEST(result.n_published == 4u);
  BOOST_TEST(result.n_duplicate == 4u);
  BOOST_TEST(t.get().pages == 5u);
  t.release(third);
  t.release(lease);
}

BOOST_AUTO_TEST_CASE(a_sequence_stops_publishing_at_the_quota) {
  Tenants t;
  QUIRE_OK_OR_DIE(t.set(3, 0));
  std::vector<uint32_t> tokens(16 * 6, 9);
  quire_seq seq = 0;
  auto hit = sized_struct<quire_hit>();
  QUIRE_OK_OR_DIE(quire_seq_open(t.cache, &t.root, tokens.data(), 0, nullptr, &hit, &seq));
  QUIRE_OK_OR_DIE(quire_seq_append(t.cache, seq, 96, nullptr, nullptr));
  QUIRE_OK_OR_DIE(quire_seq_commit(t.cache, seq, tokens.data(), 96, nullptr));
  auto record = sized_struct<quire_seq_record>();
  QUIRE_OK_OR_DIE(quire_seq_info(t.cache, seq, &record));
  BOOST_TEST(record.published == 48u);
  BOOST_TEST(record.committed == 96u);
  BOOST_TEST(t.get().pages == 3u);
  QUIRE_OK_OR_DIE(quire_seq_close(t.cache, seq, nullptr));
}

BOOST_AUTO_TEST_CASE(a_lower_quota_takes_the_oldest_at_once_and_the_pinned_later) {
  Tenants t;
  for (uint32_t i = 0; i < 8; ++i) t.serve(i, 2);
  BOOST_TEST(t.get().pages == 16u);
  const quire_lease held = t.acquire(t.keys_of(0, 2));
  const quire_lease too = t.acquire(t.keys_of(1, 2));
  QUIRE_OK_OR_DIE(t.set(6, 0));
  BOOST_TEST(t.get().pages == 6u);
  for (uint32_t i = 0; i < 8; ++i)
    BOOST_TEST(t.match(t.keys_of(i, 2)) == (i < 2 || i == 7 ? 2u : 0u));
  QUIRE_OK_OR_DIE(t.set(2, 0));
  BOOST_TEST(t.get().pages == 4u);
  t.release(held);
  t.release(too);
  BOOST_TEST(t.serve(50, 2) == 2u);
  BOOST_TEST(t.get().pages == 2u);
}

BOOST_AUTO_TEST_CASE(a_flood_leaves_a_floor_alone_and_takes_what_is_above) {
  for (const char *more :
       {"format=f32,device_pages=32", "format=f16,device_pages=32,policy=priority",
        "format=nf4,device_pages=32,open_pages=32"}) {
    Tenants t(more);
    t.be(1);
    QUIRE_OK_OR_DIE(t.set(0, 10));
    for (uint32_t i = 0; i < 8; ++i) BOOST_TEST(t.serve(i, 2) == 2u);
    BOOST_TEST(t.get().pages == 16u);
    t.be(2);
    for (uint32_t i = 0; i < 200; ++i) {
      BOOST_TEST(t.serve(1000 + i, 3) == 3u);
      t.be(1);
      BOOST_TEST(t.get().pages >= 10u);
      t.be(2);
    }
    t.be(1);
    BOOST_TEST(t.get().pages == 10u);
    for (uint32_t i = 3; i < 8; ++i) BOOST_TEST(t.match(t.keys_of(i, 2)) == 2u);
    BOOST_TEST(t.stats().alloc_nomem_total == 0u);
  }
}

BOOST_AUTO_TEST_CASE(
    with_nothing_left_but_floors_a_tenant_replaces_its_own_and_others_are_refused) {
  Tenants t;
  t.be(1);
  QUIRE_OK_OR_DIE(t.set(0, 20));
  t.be(2);
  QUIRE_OK_OR_DIE(t.set(0, 12));
  for (uint32_t i = 0; i < 6; ++i) t.serve(100 + i, 2);
  t.be(1);
  for (uint32_t i = 0; i < 10; ++i) t.serve(i, 2);
  BOOST_TEST(t.stats().frames_free == 0u);
  // All is under floors. Who has one goes on, at its own expense.
  for (uint32_t i = 10; i < 30; ++i) BOOST_TEST(t.serve(i, 2) == 2u);
  BOOST_TEST(t.get().pages == 20u);
  t.be(2);
  BOOST_TEST(t.get().pages == 12u);
  for (uint32_t i = 0; i < 6; ++i) BOOST_TEST(t.match(t.keys_of(100 + i, 2)) == 2u);
  BOOST_TEST(t.serve(200, 2) == 2u);
  // Sequences too.
  std::vector<uint32_t> tokens(16 * 2, 9);
  quire_seq seq = 0;
  auto hit = sized_struct<quire_hit>();
  QUIRE_OK_OR_DIE(quire_seq_open(t.cache, &t.root, tokens.data(), 0, nullptr, &hit, &seq));
  QUIRE_OK_OR_DIE(quire_seq_append(t.cache, seq, 32, nullptr, nullptr));
  QUIRE_OK_OR_DIE(quire_seq_commit(t.cache, seq, tokens.data(), 32, nullptr));
  QUIRE_OK_OR_DIE(quire_seq_close(t.cache, seq, nullptr));
  BOOST_TEST(t.get().pages == 12u);
  // Who has none, or does not say for whom, is refused, and nothing is evicted.
  t.be(3);
  const quire_lease lease = t.acquire(t.keys_of(1, 1));
  quire_page page = 0;
  QUIRE_FAILS(t.alloc(1, lease, &page), QUIRE_E_NOMEM);
  QUIRE_FAILS(t.alloc(1, 0, &page), QUIRE_E_NOMEM);
  t.release(lease);
  t.be(1);
  BOOST_TEST(t.get().pages == 20u);
  // A floor that is taken back is anybody's.
  QUIRE_OK_OR_DIE(t.set(0, 0));
  t.be(3);
  BOOST_TEST(t.serve(1, 4) == 4u);
}

BOOST_AUTO_TEST_CASE(what_dies_goes_below_the_floor) {
  Tenants t;
  QUIRE_OK_OR_DIE(t.set(0, 16));
  for (uint32_t i = 0; i < 4; ++i) t.serve(i, 2);
  QUIRE_OK_OR_DIE(quire_evict(t.cache, &t.root));
  QUIRE_OK_OR_DIE(quire_step(t.cache));
  BOOST_TEST(t.get().pages == 0u);
  BOOST_TEST(t.stats().frames_free == 32u);
}

BOOST_AUTO_TEST_CASE(settings_that_cannot_be_are_refused_and_change_nothing) {
  Tenants t("format=f32,device_pages=16,max_namespaces=3");
  QUIRE_FAILS(t.set(4, 5), QUIRE_E_INVALID);
  QUIRE_FAILS(t.set(0, 17), QUIRE_E_NOMEM);
  QUIRE_FAILS(t.set(0, UINT64_MAX), QUIRE_E_NOMEM);
  QUIRE_OK_OR_DIE(t.set(UINT64_MAX, 10));
  BOOST_TEST(t.get().floor == 10u);
  t.be(2);
  QUIRE_FAILS(t.set(0, 7), QUIRE_E_NOMEM);
  BOOST_TEST(t.get().floor == 0u);
  QUIRE_OK_OR_DIE(t.set(9, 6));
  QUIRE_FAILS(t.set(9, 7), QUIRE_E_NOMEM);
  BOOST_TEST(t.get().floor == 6u);
  BOOST_TEST(t.get().quota == 9u);
  t.be(1);
  QUIRE_OK_OR_DIE(t.set(0, 9));
  t.be(2);
  QUIRE_OK_OR_DIE(t.set(9, 7));
  t.be(3);
  QUIRE_OK_OR_DIE(t.set(1, 0));
  // Namespaces with settings keep their places; one without gives its up.
  t.be(4);
  QUIRE_FAILS(t.set(1, 0), QUIRE_E_NOMEM);
  t.be(3);
  QUIRE_OK_OR_DIE(t.set(0, 0));
  t.be(4);
  QUIRE_OK_OR_DIE(t.set(1, 0));
  std::vector<uint64_t> quotas;
  auto record = sized_struct<quire_namespace_record>();
  for (uint32_t at = 0;;) {
    QUIRE_OK_OR_DIE(quire_namespace_next(t.cache, &at, &record));
    if (at == 0) break;
    quotas.push_back(record.quota);
  }
  std::sort(quotas.begin(), quotas.end());
  BOOST_TEST(quotas == (std::vector<uint64_t>{0, 1, 9}), boost::test_tools::per_element());
  QUIRE_FAILS(quire_namespace_next(t.cache, nullptr, &record), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_namespace_get(t.cache, nullptr, &record), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_namespace_get(t.cache, &t.root, nullptr), QUIRE_E_INVALID);
}

// Tenants with quotas and floors, each in a thread that publishes and looks, and others that flood:
// at every moment each is within its limits, and at rest all is counted.
BOOST_AUTO_TEST_CASE(limits_hold_while_all_tenants_publish_at_once) {
  Tenants t("format=f32,device_pages=256,max_leases=64");
  constexpr uint32_t kTenants = 4, kFloor = 30, kQuota = 60;
  for (uint32_t tenant = 1; tenant <= kTenants; ++tenant) {
    t.be(tenant);
    QUIRE_OK_OR_DIE(t.set(tenant % 2 == 0 ? kQuota : 0, kFloor));
    for (uint32_t i = 0; i < 20; ++i) t.serve(i, 2);
  }
  std::atomic<uint64_t> wrong{0}, refused{0};
  const auto look = [&t, &wrong](const quire_key &root, bool has_floor, bool has_quota) {
    auto record = sized_struct<quire_namespace_record>();
    if (quire_namespace_get(t.cache, &root, &record) != QUIRE_OK) wrong.fetch_add(1);
    if (has_floor && record.pages < kFloor) wrong.fetch_add(1);
    if (has_quota && record.pages > kQuota) wrong.fetch_add(1);
  };
  const auto serve = [&](uint32_t tenant, uint32_t prompts) {
    const uint32_t id = tenant;
    const quire_field field = {QUIRE_FIELD_TENANT, sizeof id, &id};
    quire_key root;
    if (quire_root_key(t.cache, &field, 1, &root) != QUIRE_OK) wrong.fetch_add(1);
    std::mt19937 random(tenant);
    for (uint32_t i = 0; i < prompts; ++i) {
      const auto n = static_cast<uint32_t>(1 + random() % 4);
      std::vector<uint32_t> tokens(size_t{n} * 16, static_cast<uint32_t>(random() % 100));
      std::vector<quire_key> keys(n);
      std::vector<quire_page> pages(n);
      size_t count = n;
      if (quire_chain_keys(t.cache, &root, tokens.data(), tokens.size(), nullptr, 0, keys.data(),
                           &count) != QUIRE_OK) {
        wrong.fetch_add(1);
      }
      auto prefix = sized_struct<quire_prefix>();
      prefix.n = n;
      prefix.root = root;
      prefix.keys = keys.data();
      auto hit = sized_struct<quire_hit>();
      quire_lease lease = 0;
      if (quire_acquire(t.cache, &prefix, nullptr, pages.data(), &hit, &lease) != QUIRE_OK) {
        wrong.fetch_add(1);
        continue;
      }
      auto options = sized_struct<quire_alloc_options>();
      options.lease = lease;
      const quire_status status =
          quire_alloc(t.cache, n - hit.pages, &options, pages.data() + hit.pages);
      if (status == QUIRE_OK) {
        if (quire_publish(t.cache, lease, &prefix, pages.data(), nullptr, nullptr) != QUIRE_OK) {
          wrong.fetch_add(1);
        }
      } else {
        refused.fetch_add(1);
      }
      if (quire_release(t.cache, lease, nullptr) != QUIRE_OK) wrong.fetch_add(1);
      look(root, tenant <= kTenants, tenant <= kTenants && tenant % 2 == 0);
    }
  };
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  constexpr uint32_t kPrompts = 1500;
#else
  constexpr uint32_t kPrompts = 20000;
#endif
  std::vector<std::thread> threads;
  for (uint32_t tenant = 1; tenant <= kTenants + 2; ++tenant) {
    threads.emplace_back(serve, tenant, kPrompts);
  }
  for (auto &thread : threads) thread.join();
  BOOST_TEST(wrong.load() == 0u);
  BOOST_TEST(refused.load() < uint64_t{kPrompts});
  BOOST_TEST(quire_check(t.cache, 0) == QUIRE_OK, quire_last_error());
}
