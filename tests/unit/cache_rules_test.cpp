// Rules of the cache at its edges: what belongs to whom, what a refused call leaves, what a full
// cache gives up.
#define BOOST_TEST_MODULE cache_rules
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cstdint>
#include <cstring>
#include <vector>

#include "quire/quire.h"

namespace {

struct Clock {
  uint64_t now = 1000;
  uint32_t reads = 0;
};

uint64_t read_clock(void *user) {
  ++static_cast<Clock *>(user)->reads;
  return static_cast<Clock *>(user)->now;
}

struct World {
  explicit World(const char *text, bool own_clock = false) {
    quire_config config;
    quire_config_init(&config);
    config.device = QUIRE_DEVICE_CPU;
    BOOST_REQUIRE_EQUAL(quire_config_parse(&config, text), QUIRE_OK);
    config.segment = "-";
    config.epoch_ms = QUIRE_NO_TIMER;
    if (own_clock) {
      config.clock = read_clock;
      config.clock_user = &clock;
    }
    BOOST_REQUIRE_MESSAGE(quire_open(&config, &cache) == QUIRE_OK, quire_last_error());
    BOOST_REQUIRE_EQUAL(quire_root_key(cache, nullptr, 0, &root), QUIRE_OK);
  }
  ~World() {
    BOOST_CHECK_MESSAGE(quire_check(cache, 0) == QUIRE_OK, quire_last_error());
    BOOST_CHECK_MESSAGE(quire_close(cache) == QUIRE_OK, quire_last_error());
  }

  // Keys of n pages of 8 tokens that begin with `seed`.
  std::vector<quire_key> keys(uint32_t n, uint32_t seed = 0) {
    tokens.resize(size_t{n} * 8);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint32_t>(i) + seed;
    std::vector<quire_key> keys(n);
    size_t room = n;
    BOOST_REQUIRE_EQUAL(quire_chain_keys(cache, &root, tokens.data(), tokens.size(), nullptr, 0,
                                         keys.data(), &room),
                        QUIRE_OK);
    return keys;
  }
  quire_prefix prefix(const std::vector<quire_key> &keys) const {
    quire_prefix p;
    QUIRE_INIT(&p);
    p.n = static_cast<uint32_t>(keys.size());
    p.root = root;
    p.keys = keys.data();
    p.tokens = tokens.data();
    return p;
  }
  quire_lease acquire(const std::vector<quire_key> &keys, uint32_t flags = 0,
                      uint64_t deadline = 0) {
    quire_acquire_options o;
    QUIRE_INIT(&o);
    o.flags = flags;
    o.deadline_ms = deadline;
    const quire_prefix p = prefix(keys);
    quire_lease lease = 0;
    BOOST_REQUIRE_EQUAL(quire_acquire(cache, &p, &o, nullptr, nullptr, &lease), QUIRE_OK);
    return lease;
  }
  quire_status alloc(quire_lease lease, uint32_t n, quire_page *pages, uint32_t flags = 0) {
    quire_alloc_options o;
    QUIRE_INIT(&o);
    o.lease = lease;
    o.flags = flags;
    return quire_alloc(cache, n, &o, pages);
  }
  quire_publish_result publish(quire_lease lease, const std::vector<quire_key> &keys,
                               quire_page *pages) {
    const quire_prefix p = prefix(keys);
    quire_publish_result r;
    QUIRE_INIT(&r);
    BOOST_REQUIRE_MESSAGE(quire_publish(cache, lease, &p, pages, nullptr, &r) == QUIRE_OK,
                          quire_last_error());
    return r;
  }
  // A chain that is in the index and that nobody holds.
  void fill(const std::vector<quire_key> &keys) {
    const quire_lease lease = acquire(keys);
    std::vector<quire_page> pages(keys.size());
    BOOST_REQUIRE_EQUAL(alloc(lease, static_cast<uint32_t>(keys.size()), pages.data()), QUIRE_OK);
    BOOST_REQUIRE_EQUAL(publish(lease, keys, pages.data()).n_published, keys.size());
    BOOST_REQUIRE_EQUAL(quire_release(cache, lease, nullptr), QUIRE_OK);
  }
  quire_stats stats() {
    quire_stats s;
    QUIRE_INIT(&s);
    quire_stats_get(cache, &s);
    return s;
  }

  quire_cache *cache = nullptr;
  quire_key root = {};
  Clock clock;
  std::vector<uint32_t> tokens;
};

constexpr const char *kPlain =
    "layers=1,kv_heads=1,head_dim=16,page_tokens=8,format=f32,device_pages=16";
constexpr const char *kPacked =
    "layers=1,kv_heads=1,head_dim=64,page_tokens=8,format=nf4,device_pages=32,open_pages=16,rope_"
    "theta=10000";

}  // namespace

BOOST_AUTO_TEST_CASE(a_sequences_lease_ends_with_the_sequence_only) {
  World w(kPlain);
  quire_seq seq = 0;
  const uint32_t tokens[16] = {};
  BOOST_REQUIRE_EQUAL(quire_seq_open(w.cache, &w.root, tokens, 16, nullptr, nullptr, &seq),
                      QUIRE_OK);
  quire_seq_record record;
  QUIRE_INIT(&record);
  BOOST_REQUIRE_EQUAL(quire_seq_info(w.cache, seq, &record), QUIRE_OK);
  quire_page page = 0;
  BOOST_CHECK_EQUAL(quire_release(w.cache, record.lease, nullptr), QUIRE_E_INVALID);
  BOOST_CHECK_EQUAL(w.alloc(record.lease, 1, &page), QUIRE_E_INVALID);
  const quire_prefix p = w.prefix({});
  BOOST_CHECK_EQUAL(quire_publish(w.cache, record.lease, &p, &page, nullptr, nullptr),
                    QUIRE_E_INVALID);
  quire_lease_record lease;
  QUIRE_INIT(&lease);
  BOOST_REQUIRE_EQUAL(quire_lease_info(w.cache, record.lease, &lease), QUIRE_OK);
  BOOST_CHECK_EQUAL(lease.flags, 0u);
  BOOST_CHECK_EQUAL(quire_seq_close(w.cache, seq, nullptr), QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(keys_that_are_no_chain_are_refused) {
  World w(kPlain);
  const auto keys = w.keys(3);
  w.fill(keys);
  for (const auto &wrong :
       {std::vector<quire_key>{keys[1]}, std::vector<quire_key>{keys[0], keys[0], keys[0]}}) {
    const quire_prefix p = w.prefix(wrong);
    quire_lease lease = 0;
    quire_page pages[3];
    BOOST_CHECK_EQUAL(quire_acquire(w.cache, &p, nullptr, pages, nullptr, &lease), QUIRE_E_INVALID);
  }
  BOOST_CHECK_EQUAL(w.stats().leases, 0u);
}

BOOST_AUTO_TEST_CASE(deadlines_saturate_and_renewed_leases_are_not_revoked) {
  World w(kPlain, true);
  const quire_lease forever = w.acquire({}, QUIRE_ACQUIRE_REVOCABLE, UINT64_MAX);
  const quire_lease renewed = w.acquire({}, QUIRE_ACQUIRE_REVOCABLE, 10);
  const quire_lease late = w.acquire({}, QUIRE_ACQUIRE_REVOCABLE, 10);
  w.clock.now += 5;
  BOOST_CHECK_EQUAL(quire_lease_renew(w.cache, renewed, 10), QUIRE_OK);
  w.clock.now += 6;
  BOOST_CHECK_EQUAL(quire_step(w.cache), QUIRE_OK);
  BOOST_CHECK_EQUAL(w.stats().leases_revoked_total, 1u);
  BOOST_CHECK_EQUAL(quire_release(w.cache, late, nullptr), QUIRE_E_STALE);
  // The slot of the revoked lease has a new owner, without a deadline.
  const quire_lease fresh = w.acquire({});
  w.clock.now += 1;
  BOOST_CHECK_EQUAL(quire_step(w.cache), QUIRE_OK);
  BOOST_CHECK_EQUAL(w.stats().leases_late_total, 1u);
  quire_lease_record r;
  QUIRE_INIT(&r);
  BOOST_CHECK_EQUAL(quire_lease_info(w.cache, forever, &r), QUIRE_OK);
  BOOST_CHECK_GT(r.remaining_ms, 0);
  for (const quire_lease lease : {forever, renewed, fresh}) {
    BOOST_CHECK_EQUAL(quire_release(w.cache, lease, nullptr), QUIRE_OK);
  }
}

BOOST_AUTO_TEST_CASE(expiry_is_exact_and_only_pages_that_expire_pay_for_a_clock) {
  World w(kPlain, true);
  const auto lasting = w.keys(3, 0), passing = w.keys(2, 500);
  w.fill(lasting);
  {
    const quire_lease lease = w.acquire({});
    quire_page pages[2];
    BOOST_REQUIRE_EQUAL(w.alloc(lease, 2, pages), QUIRE_OK);
    quire_retention retention;
    QUIRE_INIT(&retention);
    retention.absolute_ttl_ms = 10;
    quire_publish_options o;
    QUIRE_INIT(&o);
    o.retention = &retention;
    const quire_prefix p = w.prefix(passing);
    BOOST_REQUIRE_EQUAL(quire_publish(w.cache, lease, &p, pages, &o, nullptr), QUIRE_OK);
    BOOST_REQUIRE_EQUAL(quire_release(w.cache, lease, nullptr), QUIRE_OK);
  }
  const auto match = [&w](const std::vector<quire_key> &keys) {
    quire_hit hit;
    QUIRE_INIT(&hit);
    const quire_prefix p = w.prefix(keys);
    BOOST_REQUIRE_EQUAL(quire_match(w.cache, &p, &hit), QUIRE_OK);
    return hit.pages;
  };
  w.clock.reads = 0;
  BOOST_CHECK_EQUAL(match(lasting), 3u);
  BOOST_CHECK_EQUAL(quire_release(w.cache, w.acquire(lasting), nullptr), QUIRE_OK);
  BOOST_CHECK_EQUAL(w.clock.reads, 0u);
  w.clock.now += 9;
  BOOST_CHECK_EQUAL(match(passing), 2u);
  BOOST_CHECK_EQUAL(w.clock.reads, 1u);
  BOOST_CHECK_EQUAL(quire_release(w.cache, w.acquire(passing), nullptr), QUIRE_OK);
  BOOST_CHECK_EQUAL(w.clock.reads, 2u);
  // No step since: the last tick's time is long ago.
  w.clock.now += 1;
  BOOST_CHECK_EQUAL(match(passing), 0u);
}

BOOST_AUTO_TEST_CASE(duplicates_that_stay_private_do_not_move_the_next_page) {
  World w(kPlain);
  const auto keys = w.keys(2);
  const quire_lease mine = w.acquire(keys);
  quire_page pages[2], next = 0;
  BOOST_REQUIRE_EQUAL(w.alloc(mine, 2, pages), QUIRE_OK);
  w.fill(keys);
  const quire_publish_result r = w.publish(mine, keys, pages);
  BOOST_CHECK_EQUAL(r.n_published, 2u);
  BOOST_CHECK_EQUAL(r.n_duplicate, 2u);
  for (uint32_t i = 0; i < 3; ++i) {
    BOOST_REQUIRE_EQUAL(w.alloc(mine, 1, &next), QUIRE_OK);
    quire_page_record page;
    QUIRE_INIT(&page);
    BOOST_REQUIRE_EQUAL(quire_page_info(w.cache, next, &page), QUIRE_OK);
    BOOST_CHECK_EQUAL(page.index, 2 + i);
  }
  BOOST_CHECK_EQUAL(quire_release(w.cache, mine, nullptr), QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(free_takes_pages_of_many_leases_or_none) {
  World w(kPlain);
  quire_lease leases[3];
  quire_page pages[7];
  for (uint32_t i = 0; i < 3; ++i) {
    leases[i] = w.acquire({});
    BOOST_REQUIRE_EQUAL(w.alloc(leases[i], 2, pages + 2 * i), QUIRE_OK);
  }
  std::swap(pages[1], pages[4]);
  pages[6] = pages[2];
  BOOST_CHECK_EQUAL(quire_free(w.cache, pages, 7), QUIRE_E_INVALID);
  BOOST_CHECK_EQUAL(w.stats().pages_private, 6u);
  BOOST_CHECK_EQUAL(quire_free(w.cache, pages, 6), QUIRE_OK);
  BOOST_CHECK_EQUAL(quire_free(w.cache, pages, 1), QUIRE_E_STALE);
  for (const quire_lease lease : leases) {
    quire_lease_record r;
    QUIRE_INIT(&r);
    BOOST_REQUIRE_EQUAL(quire_lease_info(w.cache, lease, &r), QUIRE_OK);
    BOOST_CHECK_EQUAL(r.private_pages, 0u);
    BOOST_CHECK_EQUAL(quire_release(w.cache, lease, nullptr), QUIRE_OK);
  }
}

BOOST_AUTO_TEST_CASE(a_page_named_twice_is_refused_alike_by_all_and_changes_nothing) {
  for (const char *const config : {kPlain, kPacked}) {
    World w(config);
    const quire_lease lease = w.acquire({});
    std::vector<quire_page> pages(5);
    BOOST_REQUIRE_EQUAL(w.alloc(lease, 4, pages.data()), QUIRE_OK);
    pages[4] = pages[1];
    const auto keys = w.keys(5);
    const quire_prefix p = w.prefix(keys);
    const quire_stats before = w.stats();
    for (const quire_status status :
         {quire_free(w.cache, pages.data(), 5), quire_seal(w.cache, pages.data(), 5, nullptr),
          quire_publish(w.cache, lease, &p, pages.data(), nullptr, nullptr)}) {
      BOOST_CHECK_EQUAL(status, QUIRE_E_INVALID);
      BOOST_CHECK(std::strstr(quire_last_error(), "named twice") != nullptr);
    }
    const quire_stats after = w.stats();
    BOOST_CHECK_EQUAL(after.pages_private, 4u);
    BOOST_CHECK_EQUAL(after.pages_sealed_total, before.pages_sealed_total);
    BOOST_CHECK_EQUAL(after.frames_retired_total, before.frames_retired_total);
    BOOST_CHECK_EQUAL(after.pages_visible, 0u);
    // Nothing is left claimed.
    BOOST_CHECK_EQUAL(quire_seal(w.cache, pages.data(), 4, nullptr), QUIRE_OK);
    BOOST_CHECK_EQUAL(quire_free(w.cache, pages.data(), 4), QUIRE_OK);
    BOOST_CHECK_EQUAL(quire_release(w.cache, lease, nullptr), QUIRE_OK);
  }
}

BOOST_AUTO_TEST_CASE(no_page_is_allocated_beyond_the_last_place_in_a_chain) {
  World w(kPlain);
  quire_alloc_options o;
  QUIRE_INIT(&o);
  quire_page pages[3];
  for (uint32_t n = 2; n < 4; ++n) {
    o.first = UINT32_MAX;
    BOOST_CHECK_EQUAL(quire_alloc(w.cache, n, &o, pages), QUIRE_E_INVALID);
    BOOST_CHECK_EQUAL(w.stats().pages_private, 0u);
  }
  BOOST_REQUIRE_EQUAL(quire_alloc(w.cache, 1, &o, pages), QUIRE_OK);
  quire_page_record page;
  QUIRE_INIT(&page);
  BOOST_REQUIRE_EQUAL(quire_page_info(w.cache, pages[0], &page), QUIRE_OK);
  BOOST_CHECK_EQUAL(page.index, UINT32_MAX - 1);
  BOOST_CHECK_EQUAL(quire_free(w.cache, pages, 1), QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(a_stream_that_is_registered_is_told_so_where_no_slot_is_left) {
  World w("layers=1,kv_heads=1,head_dim=16,page_tokens=8,format=f32,device_pages=4,max_streams=2");
  quire_stream streams[3];
  for (quire_stream &s : streams) BOOST_REQUIRE_EQUAL(quire_cpu_stream_create(&s), QUIRE_OK);
  for (int i = 0; i < 2; ++i) {
    BOOST_REQUIRE_EQUAL(quire_stream_add(w.cache, streams[i], 0, 0), QUIRE_OK);
  }
  BOOST_CHECK_EQUAL(quire_stream_add(w.cache, streams[1], 0, 0), QUIRE_E_INVALID);
  BOOST_CHECK_EQUAL(quire_stream_add(w.cache, streams[2], 0, 0), QUIRE_E_NOMEM);
  for (int i = 0; i < 2; ++i) BOOST_CHECK_EQUAL(quire_stream_remove(w.cache, streams[i]), QUIRE_OK);
  for (quire_stream s : streams) BOOST_CHECK_EQUAL(quire_cpu_stream_wait(s), QUIRE_OK);
  BOOST_CHECK_EQUAL(quire_step(w.cache), QUIRE_OK);
  for (quire_stream s : streams) BOOST_CHECK_EQUAL(quire_cpu_stream_destroy(s), QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(a_fork_that_fails_is_no_use_of_its_chain) {
  World w("layers=1,kv_heads=1,head_dim=16,page_tokens=8,format=f32,device_pages=3");
  quire_seq seq = 0, child = 0;
  uint32_t tokens[12] = {};
  BOOST_REQUIRE_EQUAL(quire_seq_open(w.cache, &w.root, tokens, 12, nullptr, nullptr, &seq),
                      QUIRE_OK);
  // Page 0 is published; page 1 holds 4 tokens and room for 8: a fork must copy it.
  BOOST_REQUIRE_EQUAL(quire_seq_append(w.cache, seq, 20, nullptr, nullptr), QUIRE_OK);
  BOOST_REQUIRE_EQUAL(quire_seq_commit(w.cache, seq, tokens, 12, nullptr), QUIRE_OK);
  quire_seq_record record;
  QUIRE_INIT(&record);
  BOOST_REQUIRE_EQUAL(quire_seq_info(w.cache, seq, &record), QUIRE_OK);
  quire_lease_record lease;
  QUIRE_INIT(&lease);
  BOOST_REQUIRE_EQUAL(quire_lease_info(w.cache, record.lease, &lease), QUIRE_OK);
  for (int i = 0; i < 5; ++i) BOOST_REQUIRE_EQUAL(quire_step(w.cache), QUIRE_OK);
  const quire_stats before = w.stats();
  BOOST_CHECK_EQUAL(quire_seq_fork(w.cache, seq, nullptr, &child), QUIRE_E_NOMEM);
  quire_page_record page;
  QUIRE_INIT(&page);
  BOOST_REQUIRE_EQUAL(quire_page_info(w.cache, lease.tail, &page), QUIRE_OK);
  BOOST_CHECK_EQUAL(page.age_epochs, 5u);
  BOOST_CHECK_EQUAL(page.references, 1u);
  BOOST_CHECK_EQUAL(w.stats().leases, before.leases);
  BOOST_CHECK_EQUAL(w.stats().releases_total, before.releases_total);
  BOOST_CHECK_EQUAL(quire_seq_close(w.cache, seq, nullptr), QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(a_walk_of_leases_outlives_the_lease_it_stands_on) {
  World w("layers=1,kv_heads=1,head_dim=16,page_tokens=8,format=f32,device_pages=4,max_leases=4");
  std::vector<quire_lease> leases;
  for (int i = 0; i < 4; ++i) leases.push_back(w.acquire({}));
  std::vector<quire_lease> seen;
  for (quire_lease at = 0;;) {
    BOOST_REQUIRE_EQUAL(quire_lease_next(w.cache, &at), QUIRE_OK);
    if (at == 0) break;
    seen.push_back(at);
    BOOST_REQUIRE_LE(seen.size(), leases.size());
    BOOST_CHECK_EQUAL(quire_release(w.cache, at, nullptr), QUIRE_OK);
  }
  BOOST_CHECK_EQUAL(seen.size(), leases.size());
  const quire_lease one = w.acquire({});
  // Handles of the same cache and kind, of places that it does not have.
  for (const uint32_t index : {4u, UINT32_MAX - 1, UINT32_MAX}) {
    quire_lease forged = (one & ~uint64_t{UINT32_MAX}) | index;
    BOOST_CHECK_EQUAL(quire_lease_next(w.cache, &forged), QUIRE_E_STALE);
  }
  BOOST_CHECK_EQUAL(quire_release(w.cache, one, nullptr), QUIRE_OK);
}

// As many caches as there are tags: none has the one by which a segment names its leases.
BOOST_AUTO_TEST_CASE(no_cache_takes_the_handle_of_a_segments_lease) {
  uint64_t most = 0;
  for (int i = 0; i < 4096; ++i) {
    World w(
        "layers=1,kv_heads=1,head_dim=16,page_tokens=8,format=f32,device_pages=1,max_leases=1,max_"
        "sequences=1,max_namespaces=1,max_streams=1,max_threads=1");
    const quire_lease lease = w.acquire({});
    const uint64_t tag = lease >> 52;
    BOOST_REQUIRE(tag != 0 && tag != 0xfff);
    most = std::max(most, tag);
    BOOST_CHECK_EQUAL(quire_lease_renew(w.cache, lease | uint64_t{0xfff} << 52, 0), QUIRE_E_STALE);
    BOOST_CHECK_EQUAL(quire_release(w.cache, lease, nullptr), QUIRE_OK);
  }
  BOOST_CHECK_EQUAL(most, 0xffeu);
}

BOOST_AUTO_TEST_CASE(trying_again_while_readers_stand_still_evicts_nothing_more) {
  World w(kPlain);
  std::atomic<bool> go{false};
  quire_stream stream = nullptr;
  BOOST_REQUIRE_EQUAL(quire_cpu_stream_create(&stream), QUIRE_OK);
  BOOST_REQUIRE_EQUAL(quire_stream_add(w.cache, stream, 0, 0), QUIRE_OK);
  quire_cpu_stream_launch(
      stream,
      [](void *flag) {
        while (!static_cast<std::atomic<bool> *>(flag)->load()) {
        }
      },
      &go);
  for (uint32_t i = 0; i < 16; ++i) w.fill(w.keys(1, i * 1000));
  quire_page page = 0;
  for (int i = 0; i < 10; ++i) BOOST_CHECK_EQUAL(w.alloc(0, 1, &page), QUIRE_E_AGAIN);
  BOOST_CHECK_EQUAL(w.stats().pages_visible, 15u);
  go = true;
  BOOST_CHECK_EQUAL(quire_step(w.cache), QUIRE_OK);
  BOOST_CHECK_EQUAL(quire_cpu_stream_wait(stream), QUIRE_OK);
  BOOST_CHECK_EQUAL(w.alloc(0, 1, &page), QUIRE_OK);
  BOOST_CHECK_EQUAL(w.stats().pages_visible, 15u);
  BOOST_CHECK_EQUAL(quire_free(w.cache, &page, 1), QUIRE_OK);
  BOOST_CHECK_EQUAL(quire_stream_remove(w.cache, stream), QUIRE_OK);
  BOOST_CHECK_EQUAL(quire_cpu_stream_wait(stream), QUIRE_OK);
  BOOST_CHECK_EQUAL(quire_step(w.cache), QUIRE_OK);
  BOOST_CHECK_EQUAL(quire_cpu_stream_destroy(stream), QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(a_page_with_the_same_key_and_other_tokens_joins_no_chain) {
  World w(
      "layers=1,kv_heads=1,head_dim=16,page_tokens=8,format=f32,device_pages=16,verify_tokens=1");
  const auto keys = w.keys(1);
  w.fill(keys);
  quire_lease lease = w.acquire({});
  quire_page page = 0;
  BOOST_REQUIRE_EQUAL(w.alloc(lease, 1, &page), QUIRE_OK);
  w.tokens[3] ^= 1;  // as if two pages had one hash
  BOOST_CHECK_EQUAL(w.publish(lease, keys, &page).n_published, 0u);
  BOOST_CHECK_EQUAL(w.stats().token_mismatches_total, 1u);
  BOOST_CHECK_EQUAL(quire_release(w.cache, lease, nullptr), QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(more_tokens_than_there_are_frames_cost_no_hit) {
  World w(kPlain);
  w.fill(w.keys(4));
  quire_seq seq = 0;
  BOOST_REQUIRE_EQUAL(quire_seq_open(w.cache, &w.root, nullptr, 0, nullptr, nullptr, &seq),
                      QUIRE_OK);
  BOOST_CHECK_EQUAL(quire_seq_append(w.cache, seq, UINT32_MAX, nullptr, nullptr), QUIRE_E_NOMEM);
  BOOST_CHECK_EQUAL(w.stats().pages_visible, 4u);
  BOOST_CHECK_EQUAL(quire_seq_close(w.cache, seq, nullptr), QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(anchors_are_set_before_pages_are_encoded_directly) {
  World w(kPacked);
  const std::vector<float> means(64, 0.5f);
  BOOST_REQUIRE_EQUAL(quire_key_anchor_set(w.cache, 0, means.data()), QUIRE_OK);
  quire_page page = 0;
  BOOST_REQUIRE_EQUAL(w.alloc(0, 1, &page, QUIRE_ALLOC_SEALED), QUIRE_OK);
  BOOST_CHECK_EQUAL(quire_key_anchor_set(w.cache, 0, means.data()), QUIRE_E_BUSY);
  BOOST_CHECK_EQUAL(quire_free(w.cache, &page, 1), QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(outputs_of_a_newer_header_may_hold_anything_and_are_zeroed_behind_ours) {
  World w(kPlain);
  struct {
    quire_hit hit;
    uint32_t newer[2];
  } out;
  std::memset(&out, 0xff, sizeof out);
  out.hit.size = sizeof out;
  const quire_prefix p = w.prefix({});
  BOOST_CHECK_EQUAL(quire_match(w.cache, &p, &out.hit), QUIRE_OK);
  BOOST_CHECK_EQUAL(out.hit.pages, 0u);
  BOOST_CHECK_EQUAL(out.newer[0] | out.newer[1], 0u);
}

BOOST_AUTO_TEST_CASE(a_forked_child_is_refused_and_may_open_its_own) {
  World w(kPlain);
  const pid_t child = ::fork();
  if (child == 0) {
    bool good = quire_step(w.cache) == QUIRE_E_INVALID;
    quire_config config;
    quire_config_init(&config);
    config.device = QUIRE_DEVICE_CPU;
    quire_config_parse(&config, kPlain);
    config.segment = "-";
    config.epoch_ms = QUIRE_NO_TIMER;
    quire_cache *own = nullptr;
    good = good && quire_open(&config, &own) == QUIRE_OK && quire_step(own) == QUIRE_OK;
    good = good && quire_step(w.cache) == QUIRE_E_INVALID && quire_close(own) == QUIRE_OK;
    ::_exit(good ? 0 : 1);
  }
  int status = -1;
  BOOST_REQUIRE_EQUAL(::waitpid(child, &status, 0), child);
  BOOST_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  BOOST_CHECK_EQUAL(quire_step(w.cache), QUIRE_OK);
}
