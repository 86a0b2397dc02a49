// The clock and its guards, the log of epochs, limbo, and policies: each alone.
#define BOOST_TEST_MODULE unit_epochs
#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>
#include <map>
#include <random>
#include <vector>

#include "runtime/epoch_clock.h"
#include "runtime/epoch_log.h"
#include "runtime/limbo.h"
#include "runtime/policy.h"
#include "tests/support/reclaim_world.h"

using namespace quire;
using namespace quire::test;

namespace {

struct Clock {
  explicit Clock(uint32_t guards, uint64_t first = 1)
      : memory(region_memory(EpochClock<>::bytes(guards))), clock(memory.get(), guards) {
    clock.format(first);
  }
  Memory memory;
  EpochClock<> clock;
};

}  // namespace

// ---- Clock ------------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(half_epochs_are_made_whole_around_the_present_one) {
  const uint64_t now = (uint64_t{5} << 32) + 10;
  for (const int64_t distance : {-(int64_t{1} << 31), -20L, -1L, 0L, 1L, (int64_t{1} << 31) - 1}) {
    const uint64_t epoch = now + static_cast<uint64_t>(distance);
    BOOST_TEST(widen_epoch(now, static_cast<uint32_t>(epoch)) == epoch);
  }
}

BOOST_AUTO_TEST_CASE(the_oldest_guard_is_named_and_never_skipped) {
  Clock c(4);
  EpochClock<> &clock = c.clock;
  BOOST_TEST(clock.min_guard() == UINT64_MAX);
  const uint32_t old = clock.enter();
  clock.advance();
  clock.advance();
  const uint32_t young = clock.enter();
  BOOST_TEST(old != young);
  BOOST_TEST(clock.min_guard() == 1U);
  BOOST_TEST(clock.oldest_guard().slot == old);
  BOOST_TEST(clock.oldest_guard().age == 2U);
  BOOST_TEST(clock.validate());
  clock.leave(old);
  BOOST_TEST(clock.min_guard() == 3U);
  clock.leave(young);
  BOOST_TEST(clock.oldest_guard().slot == kNone);
}

BOOST_AUTO_TEST_CASE(guards_nest_up_to_their_number_and_one_more_is_refused) {
  Clock c(3);
  std::vector<uint32_t> held;
  for (int i = 0; i < 3; ++i) held.push_back(c.clock.enter());
  BOOST_TEST(c.clock.enter() == kNone);
  {
    const Guard<> refused(c.clock);
    BOOST_TEST(!refused.held());
  }
  c.clock.leave(held[1]);
  BOOST_TEST(c.clock.enter() == held[1]);
  BOOST_TEST(c.clock.validate());
}

// ---- Log --------------------------------------------------------------------------------------

// Against all that was noted, for any age: never an epoch that began later, and late by a bucket.
BOOST_AUTO_TEST_CASE(the_log_is_never_early_and_late_by_a_64th_at_most) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    std::mt19937_64 random(seed);
    const Memory memory = region_memory(EpochLog<>::bytes());
    EpochLog<> log(memory.get());
    log.format();
    std::map<uint64_t, uint64_t> began;  // ms -> last epoch that began in it
    uint64_t epoch = seed % 3 == 0 ? (uint64_t{1} << 44) - 50 : 1;
    const uint64_t first_ms = random() % (uint64_t{1} << 40);
    uint64_t ms = first_ms;
    for (uint32_t i = 0; i < 200000; ++i) {
      ms += random() % 3;  // steps of 0 to 2 ms
      log.note(++epoch, ms);
      began[ms] = epoch;
    }
    BOOST_TEST(log.validate(epoch));
    for (uint32_t i = 0; i < 20000; ++i) {
      const uint64_t age = random() % (ms - first_ms + 1) >> random() % 18;
      const uint64_t at = ms - age;
      const uint64_t found = log.began_by(at, epoch, ms);
      auto exact = began.upper_bound(at);
      const uint64_t latest = exact == began.begin() ? 0 : std::prev(exact)->second;
      BOOST_TEST_REQUIRE(found <= latest, "seed " << seed << ": early for an age of " << age);
      const uint64_t margin = age / 64 + 2;
      auto late = began.upper_bound(at < margin ? 0 : at - margin - 1);
      const uint64_t least = late == began.begin() ? 0 : std::prev(late)->second;
      // Near the beginning there is nothing to know yet.
      if (at > first_ms + 2 * margin) {
        BOOST_TEST_REQUIRE(found >= least, "seed " << seed << ": late for an age of " << age);
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(a_late_note_changes_nothing_that_is_known) {
  const Memory memory = region_memory(EpochLog<>::bytes());
  EpochLog<> log(memory.get());
  log.format();
  BOOST_TEST(log.began_by(1000, 5, 1000) == 0U);
  log.note(10, 500);
  log.note(9, 500);  // by a thread that was stopped after its advance
  BOOST_TEST(log.began_by(500, 10, 600) == 10U);
  log.note(20, 500 + 1024);
  log.note(11, 500);  // a lap behind
  BOOST_TEST(log.began_by(500 + 1024, 20, 500 + 1024) == 20U);
}

// ---- Limbo ------------------------------------------------------------------------------------

namespace {

struct LimboWorld {
  explicit LimboWorld(uint32_t capacity)
      : memory(region_memory(Limbo<>::bytes(capacity))), limbo(memory.get(), capacity) {
    limbo.format();
  }
  auto free() {
    return [this](const uint32_t *ids, size_t n) { freed.insert(freed.end(), ids, ids + n); };
  }
  Memory memory;
  Limbo<> limbo;
  std::vector<uint32_t> freed;
};

}  // namespace

BOOST_AUTO_TEST_CASE(frames_come_back_when_their_epoch_has_passed_and_not_before) {
  LimboWorld w(4096);
  std::mt19937_64 random(7);
  std::multimap<uint64_t, uint32_t> waiting;
  std::vector<uint32_t> have;
  for (uint32_t i = 0; i < 4096; ++i) have.push_back(i);
  uint64_t now = 1, passed = 0;
  for (uint32_t round = 0; round < 20000; ++round) {
    now += random() % 3;
    if (!have.empty() && random() % 2 == 0) {
      const uint64_t r = now - std::min(now, random() % 600);
      const bool at_once = w.limbo.retire(have.back(), r, passed, w.free());
      BOOST_TEST_REQUIRE(at_once == (r <= passed));
      if (!at_once) waiting.emplace(r, have.back());
      have.pop_back();
    } else if (random() % 4 == 0) {
      passed = std::max(passed, now - std::min(now, random() % 1000));
      w.limbo.drain(passed, w.free());
      waiting.erase(waiting.begin(), waiting.upper_bound(passed));
    }
    have.insert(have.end(), w.freed.begin(), w.freed.end());
    w.freed.clear();
    BOOST_TEST_REQUIRE(w.limbo.count() == waiting.size(), "round " << round);
    BOOST_TEST_REQUIRE(have.size() + waiting.size() == 4096U);
  }
  BOOST_TEST(w.limbo.validate());
}

// Half an epoch is kept of each: across the wrap of that, and behind a reader that stood still for
// longer than it can tell.
BOOST_AUTO_TEST_CASE(epochs_wrap_in_limbo_and_a_reader_may_stall_for_any_time) {
  LimboWorld w(8);
  const uint64_t wrap = uint64_t{1} << 32;
  uint64_t passed = wrap - 3;
  BOOST_TEST(w.limbo.drain(passed, w.free()) == 0U);
  // Limbo was empty until now: as far as it knows, that is all still to be drained.
  for (uint32_t i = 0; i < 2; ++i) BOOST_TEST(!w.limbo.retire(i, wrap - 2 + i, passed, w.free()));
  BOOST_TEST(w.limbo.drain(wrap - 1, w.free()) == 2U);
  for (uint32_t i = 0; i < 6; ++i) BOOST_TEST(!w.limbo.retire(i, wrap + i, wrap - 1, w.free()));
  BOOST_TEST(w.limbo.validate());
  BOOST_TEST(w.limbo.drain(wrap + 2, w.free()) == 3U);
  // 3, 4, 5 wait, and then two more, each later than half an epoch can say.
  const uint64_t late = wrap + 10 * wrap, later = late + 7;
  BOOST_TEST(!w.limbo.retire(6, late, wrap + 2, w.free()));
  BOOST_TEST(!w.limbo.retire(7, later, wrap + 2, w.free()));
  BOOST_TEST(w.limbo.validate());
  BOOST_TEST(w.limbo.drain(late - 1, w.free()) == 3U);
  BOOST_TEST(w.limbo.drain(late, w.free()) == 0U);  // with `later`, not earlier than itself
  BOOST_TEST(w.limbo.drain(later, w.free()) == 2U);
  BOOST_TEST(w.limbo.count() == 0U);
  BOOST_TEST(!w.limbo.retire(0, later + 1, later, w.free()));
  BOOST_TEST(w.limbo.drain(later + 1, w.free()) == 1U);
  BOOST_TEST(w.limbo.validate());
}

BOOST_AUTO_TEST_CASE(the_stream_that_is_behind_may_have_its_own_frames) {
  LimboWorld w(8);
  for (uint32_t i = 0; i < 8; ++i) BOOST_TEST(!w.limbo.retire(i, 10 + i, 5, w.free()));
  uint32_t out[8];
  BOOST_TEST(w.limbo.take(8, 13, out, w.free()) == 4U);  // Others have passed 13.
  for (uint32_t i = 0; i < 4; ++i) BOOST_TEST(out[i] < 4U);
  BOOST_TEST(w.limbo.count() == 4U);
  BOOST_TEST(w.limbo.take(1, 9, out, w.free()) == 0U);
  BOOST_TEST(w.limbo.drain(17, w.free()) == 4U);
  BOOST_TEST(w.limbo.validate());
}

// ---- Policy -----------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(age_buckets_are_eight_an_octave_and_never_fall) {
  uint32_t before = 0;
  for (uint64_t age = 0; age < (uint64_t{1} << 32); age += 1 + age / 100) {
    const uint32_t bucket = age_bucket(static_cast<uint32_t>(age));
    BOOST_TEST_REQUIRE(bucket >= before);
    BOOST_TEST_REQUIRE(bucket <= before + 1);
    before = bucket;
  }
  BOOST_TEST(kOldestBucket == 239U);
}

BOOST_AUTO_TEST_CASE(a_tables_rank_falls_with_age_and_priorities_do_not_mix) {
  const PolicyTable lru = PolicyTable::lru(), priority = PolicyTable::by_priority();
  for (uint32_t cls = 0; cls < kPolicyClasses; ++cls) {
    for (uint32_t bucket = 1; bucket < kAgeBuckets; ++bucket) {
      BOOST_TEST_REQUIRE(lru.rank[cls][bucket] <= lru.rank[cls][bucket - 1]);
      BOOST_TEST_REQUIRE(lru.rank[cls][bucket] == lru.rank[0][bucket]);
      BOOST_TEST_REQUIRE(priority.rank[cls][bucket] <= priority.rank[cls][bucket - 1]);
    }
    if (cls >= 8 && cls < kTagClasses) {
      BOOST_TEST(priority.rank[cls][kOldestBucket] > priority.rank[cls - 8][0]);
    }
  }
  const uint8_t tag = with_class(with_priority(kTagIdle, 2), 5);
  BOOST_TEST(priority_of(tag) == 2U);
  BOOST_TEST(class_of(tag) == 5U);
  BOOST_TEST((tag & kTagIdle) != 0);
}

BOOST_AUTO_TEST_CASE(a_former_table_stays_until_the_guards_that_saw_it_are_gone) {
  Clock c(4);
  Policy<> policy;
  BOOST_TEST((policy.get() == nullptr));
  BOOST_REQUIRE(policy.set(PolicyTable::lru(), c.clock));
  const uint32_t guard = c.clock.enter();
  const PolicyTable *seen = policy.get();
  BOOST_REQUIRE(policy.set(PolicyTable::by_priority(), c.clock));
  c.clock.advance();
  BOOST_TEST(policy.collect(c.clock) == 1U);
  BOOST_TEST(seen->age_only);  // Still there: a sanitizer would tell.
  c.clock.leave(guard);
  BOOST_TEST(policy.collect(c.clock) == 0U);
  BOOST_TEST(!policy.get()->age_only);
}
