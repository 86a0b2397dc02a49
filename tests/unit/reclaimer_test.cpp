// The reclaimer against an exact LRU that shares nothing with it, and its rules one by one.
#define BOOST_TEST_MODULE unit_reclaimer
#define BOOST_TEST_DYN_LINK
#include "runtime/reclaimer.h"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/lru_oracle.h"
#include "tests/support/random_trace.h"
#include "tests/support/reclaim_world.h"

using namespace quire;
using namespace quire::test;

namespace {

std::span<const uint64_t> prompt_of(const replay::Trace &trace, const replay::Request &request) {
  return {trace.ids.data() + request.begin, request.end - request.begin};
}

// The first request that the two answer differently, or -1.
template <class World>
int64_t first_difference(World &world, uint64_t seed, uint32_t capacity, uint32_t requests) {
  const replay::Trace trace = random_trace(seed, requests, 40);
  LruOracle oracle(capacity);
  for (size_t i = 0; i < trace.requests.size(); ++i) {
    const auto ids = prompt_of(trace, trace.requests[i]);
    if (world.serve(ids) != oracle.serve(ids) || world.evictions.load() != oracle.evicted()) {
      return static_cast<int64_t>(i);
    }
  }
  return -1;
}

struct OverwriteStamp : EvictOrders {
  static constexpr bool kOverwriteStamp = true;
};

// A chain of n pages, unpinned, all stamped with the present epoch.
template <class World>
std::vector<uint32_t> chain(World &world, uint64_t id, uint32_t n, uint8_t tag = 0) {
  std::vector<uint32_t> pages;
  Key key{1, 1};
  for (uint32_t i = 0; i < n; ++i) {
    key = child_key(key, id * 1000 + i);
    pages.push_back(world.publish(i == 0 ? kNone : pages.back(), key, tag));
    if (i != 0) world.pages.unpin(pages[i - 1]);
  }
  world.touch_and_unpin(pages.back());
  return pages;
}

}  // namespace

BOOST_AUTO_TEST_CASE(lru_is_exact_on_random_trees) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    const auto capacity = static_cast<uint32_t>(40 + seed * 7 % 160);
    ReclaimWorld<> world(capacity);
    const int64_t at = first_difference(world, seed, capacity, 400);
    BOOST_TEST_REQUIRE(at == -1, "seed " << seed << ", request " << at);
    BOOST_TEST_REQUIRE(world.validate(), "seed " << seed);
  }
}

// A larger table, where the queue lives through many requests.
BOOST_AUTO_TEST_CASE(the_queue_stays_exact_while_it_persists) {
  ReclaimWorld<> world(4000);
  LruOracle oracle(4000);
  std::mt19937_64 random(5);
  uint64_t next_id = 1;
  std::vector<std::vector<uint64_t>> sessions;
  for (uint32_t request = 0; request < 6000; ++request) {
    std::vector<uint64_t> ids;
    if (!sessions.empty() && random() % 3 != 0) ids = sessions[random() % sessions.size()];
    if (random() % 4 == 0) ids.resize(random() % (ids.size() + 1));
    for (uint64_t i = random() % 12; i > 0; --i) ids.push_back(next_id++);
    sessions.push_back(ids);
    if (sessions.size() > 400) sessions.erase(sessions.begin() + static_cast<long>(random() % 400));
    BOOST_TEST_REQUIRE(world.serve(ids) == oracle.serve(ids), "request " << request);
    BOOST_TEST_REQUIRE(world.evictions.load() == oracle.evicted(), "request " << request);
  }
  const ReclaimCounts counts = world.reclaimer->counts();
  BOOST_TEST(counts.passes * 20 < world.evictions.load());  // not a scan a call
  BOOST_TEST(world.validate());
}

BOOST_AUTO_TEST_CASE(a_stamp_that_is_overwritten_instead_of_raised_is_caught) {
  uint64_t caught = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    const auto capacity = static_cast<uint32_t>(40 + seed * 7 % 160);
    ReclaimWorld<StdAtomics, OverwriteStamp> world(capacity);
    if (first_difference(world, seed, capacity, 400) != -1) ++caught;
  }
  BOOST_TEST(caught > 0U);
}

BOOST_AUTO_TEST_CASE(lru_is_exact_across_the_wrap_of_stamps) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    ReclaimWorld<> world(100, PolicyTable::lru(), (uint64_t{1} << 32) - 200);
    const int64_t at = first_difference(world, seed, 100, 400);
    BOOST_TEST_REQUIRE(at == -1, "seed " << seed << ", request " << at);
  }
}

BOOST_AUTO_TEST_CASE(tasks_and_the_caller_scan_alike) {
  const auto runner = make_task_runner(2, -1);
  BOOST_REQUIRE(runner != nullptr);
  ReclaimWorld<> ours(200000, PolicyTable::lru(), 1, runner.get()), plain(200000);
  std::vector<uint32_t> first, second;
  ours.on_evicted = [&](uint32_t page, uint32_t, EvictReason) { first.push_back(page); };
  plain.on_evicted = [&](uint32_t page, uint32_t, EvictReason) { second.push_back(page); };
  std::mt19937_64 random(3);
  for (uint32_t i = 0; i < 20000; ++i) {
    const auto n = static_cast<uint32_t>(1 + random() % 12);
    ours.clock.advance();
    plain.clock.advance();
    chain(ours, i, n);
    chain(plain, i, n);
  }
  BOOST_TEST(ours.reclaimer->reclaim(30000) == 30000U);
  BOOST_TEST(plain.reclaimer->reclaim(30000) == 30000U);
  BOOST_TEST(first == second, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(deeper_pages_of_one_request_go_first) {
  ReclaimWorld<> world(64);
  const auto pages = chain(world, 1, 40);
  std::vector<uint32_t> order;
  world.on_evicted = [&](uint32_t page, uint32_t, EvictReason) { order.push_back(page); };
  for (uint32_t i = 0; i < 40; i += 8) BOOST_TEST(world.reclaimer->reclaim(8) == 8U);
  BOOST_TEST(std::equal(order.begin(), order.end(), pages.rbegin(), pages.rend()));
  BOOST_TEST(world.validate());
}

BOOST_AUTO_TEST_CASE(pinned_pages_and_their_ancestors_stay) {
  ReclaimWorld<> world(300);
  const auto held = chain(world, 1, 100);
  BOOST_REQUIRE(world.pages.add_ref(held[60]));
  world.clock.advance();
  const auto young = chain(world, 2, 100);
  BOOST_TEST(world.reclaimer->reclaim(200) == 139U);
  for (uint32_t i = 0; i <= 60; ++i) {
    BOOST_TEST_REQUIRE((world.pages.view(held[i]).state == PageState::kVisible));
  }
  BOOST_TEST(world.reclaimer->reclaim(1) == 0U);  // All is pinned: told, not spun on.
  world.touch_and_unpin(held[60]);
  BOOST_TEST(world.reclaimer->reclaim(200) == 61U);
  BOOST_TEST(world.validate());
}

// Nine of ten leaves are pinned, and they are the oldest.
BOOST_AUTO_TEST_CASE(the_scan_looks_past_pinned_leaves) {
  ReclaimWorld<> world(4000);
  std::vector<uint32_t> roots;
  for (uint32_t i = 0; i < 4000; ++i) {
    if (i % 100 == 0) world.clock.advance();
    roots.push_back(chain(world, i, 1)[0]);
  }
  for (uint32_t i = 0; i < 3600; ++i) BOOST_REQUIRE(world.pages.add_ref(roots[i]));
  const uint64_t before = world.reclaimer->counts().passes;
  BOOST_TEST(world.reclaimer->reclaim(400) == 400U);
  BOOST_TEST(world.reclaimer->counts().passes - before < 10U);
  for (uint32_t i = 0; i < 3600; ++i) world.pages.unpin(roots[i]);
  BOOST_TEST(world.reclaimer->reclaim(4000) == 3600U);
}

BOOST_AUTO_TEST_CASE(low_priority_goes_before_high_whatever_its_age) {
  ReclaimWorld<> world(64, PolicyTable::by_priority());
  std::vector<std::vector<uint32_t>> by_priority(kPriorities);
  for (uint32_t age = 0; age < 4; ++age) {
    for (uint32_t p = kPriorities; p-- > 0;) {
      world.clock.advance();
      by_priority[p].push_back(chain(world, age * 4 + p, 1, with_priority(0, p))[0]);
    }
  }
  std::vector<uint32_t> order, expected;
  for (const auto &pages : by_priority) expected.insert(expected.end(), pages.begin(), pages.end());
  world.on_evicted = [&](uint32_t page, uint32_t, EvictReason) { order.push_back(page); };
  for (uint32_t i = 0; i < 8; ++i) {
    BOOST_TEST(world.reclaimer->reclaim(2) == 2U);
    world.clock.advance();
  }
  BOOST_TEST(order == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(lru_ignores_class_and_priority) {
  ReclaimWorld<> world(64);
  std::vector<uint32_t> order, expected;
  for (uint32_t i = 0; i < 32; ++i) {
    world.clock.advance();
    expected.push_back(chain(world, i, 1, static_cast<uint8_t>(31 - i))[0]);
  }
  world.on_evicted = [&](uint32_t page, uint32_t, EvictReason) { order.push_back(page); };
  BOOST_TEST(world.reclaimer->reclaim(32) == 32U);
  BOOST_TEST(order == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_policy_is_swapped_while_the_queue_is_full) {
  ReclaimWorld<> world(64);
  std::vector<uint32_t> pages, order;
  for (uint32_t i = 0; i < 32; ++i) {
    world.clock.advance();
    pages.push_back(chain(world, i, 1, with_priority(0, i < 16 ? 2 : 1))[0]);
  }
  world.on_evicted = [&](uint32_t page, uint32_t, EvictReason) { order.push_back(page); };
  BOOST_TEST(world.reclaimer->reclaim(1) == 1U);
  BOOST_REQUIRE(world.reclaimer->set_policy(PolicyTable::by_priority()));
  BOOST_TEST(world.reclaimer->reclaim(1) == 1U);
  BOOST_TEST(order[0] == pages[0]);
  BOOST_TEST(order[1] == pages[16]);
}

BOOST_AUTO_TEST_CASE(stamps_older_than_two_to_the_thirty_are_lifted_to_that_age) {
  ReclaimWorld<> world(64);
  const uint32_t old = chain(world, 1, 1)[0];
  // The clock is set on, as years of steps would.
  const uint64_t later = (uint64_t{1} << 30) + (uint64_t{1} << 28) + 5;
  world.clock.format(later);
  const uint32_t young = chain(world, 2, 1)[0];
  BOOST_TEST(world.reclaimer->reclaim(0) == 0U);
  BOOST_TEST(world.reclaimer->lift() >= 1U);
  const auto limit = static_cast<uint32_t>(later - Reclaimer::kMostAge);
  BOOST_TEST(world.pages.stamp(old) == limit);
  BOOST_TEST(world.pages.stamp(young) == static_cast<uint32_t>(later));
  // From age to age, the order holds for ever.
  for (uint32_t turn = 1; turn <= 40; ++turn) {
    world.clock.format(later + turn * Reclaimer::kLiftEvery);
    world.reclaimer->expire(0);
    const auto now = static_cast<uint32_t>(world.clock.now());
    BOOST_TEST_REQUIRE(now - world.pages.stamp(old) <= Reclaimer::kMostAge + 1);
  }
  uint32_t first = kNone;
  world.pages.raise_stamp(young, static_cast<uint32_t>(world.clock.now()));
  world.on_evicted = [&](uint32_t page, uint32_t, EvictReason) { first = page; };
  BOOST_TEST(world.reclaimer->reclaim(1) == 1U);
  BOOST_TEST(first == old);
}

// ---- Expiry -----------------------------------------------------------------------------------

namespace {

template <class World>
void at_ms(World &world, uint64_t ms) {
  world.clock.advance();
  world.log.note(world.clock.now(), ms);
}

template <class World>
std::vector<uint32_t> idle_chain(World &world, uint64_t id, uint32_t n, uint32_t ttl) {
  auto pages = chain(world, id, n, kTagIdle);
  for (const uint32_t page : pages) world.pages.set_idle_ttl_ms(page, ttl);
  return pages;
}

}  // namespace

BOOST_AUTO_TEST_CASE(idle_pages_expire_never_early_and_a_64th_late_at_most) {
  std::mt19937_64 random(11);
  for (uint32_t round = 0; round < 40; ++round) {
    ReclaimWorld<> world(512);
    const auto ttl = static_cast<uint32_t>(1 + random() % (uint64_t{1} << (1 + random() % 18)));
    std::vector<uint64_t> used_ms(512);
    uint64_t now = 1 + random() % 100000, late = 0, stride = 1;
    world.on_evicted = [&](uint32_t page, uint32_t, EvictReason reason) {
      BOOST_TEST((reason == EvictReason::kIdle));
      // The number may be another page's next.
      BOOST_TEST_REQUIRE(now - used_ms[page] >= ttl, "ttl " << ttl << ": early");
      if (now - used_ms[page] > ttl + ttl / 64 + 1 + 2 * stride) ++late;
    };
    for (uint32_t i = 0; i < 300; ++i) {
      at_ms(world, now);
      used_ms[idle_chain(world, i, 1, ttl)[0]] = now;
      world.reclaimer->expire(now);
      now += 1;
    }
    const uint64_t end = now + ttl + ttl / 32 + 10;
    // The clock ticks every ms for a while, then as often as the pass needs.
    stride = std::max<uint64_t>(1, ttl / 2000);
    for (; now < end; now += stride) {
      at_ms(world, now);
      world.reclaimer->expire(now);
    }
    BOOST_TEST_REQUIRE(late == 0U, "ttl " << ttl);
    BOOST_TEST_REQUIRE(world.pages.counts().visible == 0U, "ttl " << ttl);
    BOOST_TEST_REQUIRE(world.evictions.load() == 300U);
  }
}

BOOST_AUTO_TEST_CASE(a_use_renews_an_idle_page_and_what_is_above_it) {
  ReclaimWorld<> world(64);
  at_ms(world, 1000);
  const auto pages = idle_chain(world, 1, 4, 100);
  at_ms(world, 1050);
  BOOST_REQUIRE(world.pages.add_ref(pages[3]));
  world.touch_and_unpin(pages[3]);
  at_ms(world, 1051);
  at_ms(world, 1120);
  BOOST_TEST(world.reclaimer->expire(1120).total() == 0U);
  at_ms(world, 1151);
  // The leaf goes, and with its stamp handed up each parent goes at the same age: all at once.
  BOOST_TEST(world.reclaimer->expire(1151).idle == 4U);
  BOOST_TEST(world.validate());
}

BOOST_AUTO_TEST_CASE(a_million_idle_pages_expire_in_one_pass) {
  constexpr uint32_t kPages = 1 << 20;
  ReclaimWorld<> world(kPages);
  for (uint32_t i = 0; i < kPages / 4; ++i) {
    if (i % 512 == 0) at_ms(world, 1 + i / 512);
    idle_chain(world, i, 4, 1000);
  }
  BOOST_TEST(world.pages.counts().visible == kPages);
  at_ms(world, 600);
  BOOST_TEST(world.reclaimer->expire(600).total() == 0U);
  at_ms(world, 10000);
  BOOST_TEST(world.reclaimer->expire(10000).idle == kPages);
  BOOST_TEST(world.pool.available() == kPages);
  BOOST_TEST(world.validate());
}

BOOST_AUTO_TEST_CASE(absolute_expiry_takes_children_before_parents_and_spares_what_is_held) {
  ReclaimWorld<> world(64);
  const auto pages = chain(world, 1, 6, kTagExpires);
  for (uint32_t i = 0; i < 6; ++i) world.pages[pages[i]].expiry_ms.store(i < 3 ? 500 : 400);
  BOOST_REQUIRE(world.pages.add_ref(pages[4]));
  std::vector<uint32_t> order;
  world.on_evicted = [&](uint32_t page, uint32_t, EvictReason) { order.push_back(page); };
  BOOST_TEST(world.reclaimer->expire(399).total() == 0U);
  const ExpireResult held = world.reclaimer->expire(400);
  BOOST_TEST(held.expired == 1U);
  BOOST_TEST(held.pinned == 1U);
  world.touch_and_unpin(pages[4]);
  BOOST_TEST(world.reclaimer->expiry_due(400 + Reclaimer::kTtlPeriodMs));
  BOOST_TEST(world.reclaimer->expire(499).expired == 2U);
  BOOST_TEST(world.reclaimer->expire(500).expired == 3U);
  BOOST_TEST(std::equal(order.begin(), order.end(), pages.rbegin(), pages.rend()));
}

BOOST_AUTO_TEST_CASE(pages_of_an_emptied_namespace_go_and_no_others) {
  ReclaimWorld<> world(64);
  const auto gone = chain(world, 1, 10), kept = chain(world, 2, 10);
  world.dead = [&](uint32_t page) {
    return std::find(gone.begin(), gone.end(), page) != gone.end();
  };
  BOOST_TEST(!world.reclaimer->expiry_due(1));
  world.reclaimer->note_dead();
  BOOST_TEST(world.reclaimer->expiry_due(1));
  BOOST_REQUIRE(world.pages.add_ref(gone[3]));
  const ExpireResult first = world.reclaimer->expire(1);
  BOOST_TEST(first.dead == 6U);
  BOOST_TEST(first.pinned == 1U);
  world.touch_and_unpin(gone[3]);
  BOOST_TEST(world.reclaimer->expiry_due(2));  // What was held is not forgotten.
  BOOST_TEST(world.reclaimer->expire(2).dead == 4U);
  BOOST_TEST(!world.reclaimer->expiry_due(3));
  BOOST_TEST(world.pages.counts().visible == 10U);
  BOOST_TEST(world.validate());
}

// A parent that expiry exposes is in the order of the next victims.
BOOST_AUTO_TEST_CASE(what_expiry_exposes_is_reclaimed_in_its_turn) {
  ReclaimWorld<> world(320);
  world.clock.advance();
  const auto oldest = chain(world, 1, 2);
  world.pages.set_class(oldest[1], kTagExpires);
  world.pages[oldest[1]].expiry_ms.store(100);
  world.clock.advance();
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < 60; ++i) chain(world, 10 + i, 1);
  world.clock.advance();
  for (uint32_t i = 0; i < 60; ++i) chain(world, 100 + i, 1);
  BOOST_REQUIRE(world.pages.add_ref(oldest[1]));  // Not a candidate while the queue is made.
  world.on_evicted = [&](uint32_t page, uint32_t, EvictReason) { order.push_back(page); };
  BOOST_TEST(world.reclaimer->reclaim(1) == 1U);
  world.pages.unpin(oldest[1]);
  BOOST_TEST(world.reclaimer->expire(100).expired == 1U);
  BOOST_TEST(world.reclaimer->reclaim(1) == 1U);
  BOOST_TEST(order.back() == oldest[0]);
}
