// The scheduler itself: it must find races that are there, replay them, and check histories
// rightly.
#define BOOST_TEST_MODULE model_scheduler
#define BOOST_TEST_DYN_LINK
#include "tests/support/scheduler.h"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <utility>
#include <vector>

#include "tests/support/linearizability.h"

using namespace quire::model;

namespace {

// Two threads add one each: by load and store, which can lose one, or by fetch_add.
int lost_updates(uint64_t seed, bool by_add) {
  Atomic<int> word{0};
  Scheduler s(seed);
  for (int i = 0; i < 2; ++i) {
    s.spawn([&] {
      if (by_add) {
        word.fetch_add(1);
      } else {
        word.store(word.load() + 1);
      }
    });
  }
  s.run();
  return 2 - word.load();
}

}  // namespace

BOOST_AUTO_TEST_CASE(random_walks_find_a_lost_update_and_replay_it) {
  int lost = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const int first = lost_updates(seed, false);
    BOOST_TEST(first == lost_updates(seed, false));
    BOOST_TEST(lost_updates(seed, true) == 0);
    lost += first;
  }
  BOOST_TEST(lost > 0);
}

BOOST_AUTO_TEST_CASE(exploration_sees_every_outcome_within_its_bound) {
  for (const uint32_t preemptions : {0U, 1U}) {
    int lost = 0;
    const uint64_t executions = explore(preemptions, [&](Scheduler &s) {
      Atomic<int> word{0};
      for (int i = 0; i < 2; ++i) s.spawn([&] { word.store(word.load() + 1); });
      s.run();
      lost += 2 - word.load();
    });
    // Without preemption: who begins. A lost update takes one, between load and store.
    BOOST_TEST((lost > 0) == (preemptions > 0));
    BOOST_TEST(executions >= 2U);
  }
}

BOOST_AUTO_TEST_CASE(a_stopped_thread_goes_no_further_and_the_others_end) {
  for (uint64_t n = 0; n <= 3; ++n) {
    Atomic<int> one{0}, two{0};
    Scheduler s(7);
    const uint32_t stopped = s.spawn([&] {
      for (int i = 0; i < 3; ++i) one.fetch_add(1);
    });
    s.spawn([&] { two.fetch_add(1); });
    s.stop(stopped, n);
    s.run();
    BOOST_TEST(one.load() == static_cast<int>(n));
    BOOST_TEST(two.load() == 1);
  }
}

BOOST_AUTO_TEST_CASE(waiting_for_a_stopped_thread_is_reported) {
  Atomic<int> flag{0};
  Scheduler s(3);
  const uint32_t setter = s.spawn([&] { flag.store(1); });
  s.spawn([&] {
    while (flag.load() == 0) {
    }
  });
  s.stop(setter, 0);
  BOOST_CHECK_THROW(s.run(), std::runtime_error);
}

BOOST_AUTO_TEST_CASE(a_failure_in_a_thread_comes_out_of_run) {
  Atomic<int> word{0};
  Scheduler s(3);
  s.spawn([&] { word.fetch_add(1); });
  s.spawn([&] { require(word.fetch_add(1) < 0, "told"); });
  BOOST_CHECK_THROW(s.run(), std::runtime_error);
}

namespace {

struct RegisterOp {
  uint64_t begin, end;
  bool write;
  int value;
};
struct Register {
  int value = 0;
  auto operator<=>(const Register &) const = default;
  bool apply(const RegisterOp &op) {
    if (op.write) value = op.value;
    return value == op.value;
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(histories_are_judged_by_real_time_and_by_value) {
  using History = std::vector<RegisterOp>;
  const Register zero;
  // A read that overlaps the write may see either value; after the write ended, only the new one.
  BOOST_TEST(linearizable(History{{1, 4, true, 1}, {2, 3, false, 0}}, zero));
  BOOST_TEST(linearizable(History{{1, 4, true, 1}, {2, 3, false, 1}}, zero));
  BOOST_TEST(!linearizable(History{{1, 2, true, 1}, {3, 4, false, 0}}, zero));
  // New, then old, is no order.
  BOOST_TEST(!linearizable(History{{1, 9, true, 1}, {2, 3, false, 1}, {4, 5, false, 0}}, zero));
}

// Orders that no real time gives, only what happened before: as over a weak memory.
BOOST_AUTO_TEST_CASE(histories_are_judged_by_what_happened_before_where_there_is_no_common_clock) {
  using History = std::vector<RegisterOp>;
  const auto judge = [](const History &history, std::vector<std::pair<size_t, size_t>> before) {
    return linearizable_by(history, Register{}, [&](const RegisterOp &a, const RegisterOp &b) {
      const auto i = static_cast<size_t>(&a - history.data());
      const auto k = static_cast<size_t>(&b - history.data());
      return std::find(before.begin(), before.end(), std::pair(i, k)) != before.end();
    });
  };
  // A stale read is in order as long as the write did not happen before it.
  const History stale = {{1, 2, true, 1}, {3, 4, false, 0}};
  BOOST_TEST(judge(stale, {}));
  BOOST_TEST(!judge(stale, {{0, 1}}));
  // Two readers that disagree on the order of two writes.
  const History crossed = {{0, 0, true, 1},  {0, 0, true, 2},  {0, 0, false, 1},
                           {0, 0, false, 2}, {0, 0, false, 2}, {0, 0, false, 1}};
  BOOST_TEST(judge(crossed, {{2, 3}}));
  BOOST_TEST(!judge(crossed, {{2, 3}, {4, 5}}));
  // A value that nobody wrote; a read that is over before the write it saw.
  BOOST_TEST(!judge(History{{0, 0, true, 1}, {0, 0, false, 7}}, {}));
  BOOST_TEST(!judge(History{{0, 0, true, 1}, {0, 0, false, 1}}, {{1, 0}}));
}
