// The simulated weak memory itself, by litmus tests: each shows every outcome that C++20 allows for it
// (but for load buffering, which is not modelled) and none that it forbids. Exhaustively: all
// interleavings and all values that a load may see.
#define BOOST_TEST_MODULE model_weak_memory
#define BOOST_TEST_DYN_LINK
#include "tests/support/weak_memory.h"

#include <boost/test/unit_test.hpp>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <map>
#include <set>
#include <vector>

#include "tests/support/weak_atomics.h"

using namespace quire::model;

namespace {

#if defined(__SANITIZE_THREAD__)
// All runs on one real thread, and a switch of fibers costs a thousand times as much.
struct Skip {
  Skip() {
    std::printf("SKIPPED: litmus tests of the simulated memory under ThreadSanitizer\n");
    std::exit(77);
  }
};
const Skip skip;
#endif

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kAcqRel = std::memory_order_acq_rel;
constexpr auto kSeqCst = std::memory_order_seq_cst;

using Word = WeakAtomic<int>;
using Outcome = std::vector<int>;
using Outcomes = std::set<Outcome>;

struct Litmus {
  Word x{0}, y{0};
  int r[4] = {0, 0, 0, 0};
  // Registers, then the last values of x and y where wanted.
  Outcome registers(int n) const { return Outcome(r, r + n); }
};

// All outcomes of some threads, each a function of the state.
template <class... Threads>
Outcomes all(int registers, bool finals, const Threads &...threads) {
  Outcomes outcomes;
  explore(Bounds{8, 8}, [&](Scheduler &s) {
    Litmus l;
    (s.spawn([&l, &threads] { threads(l); }), ...);
    s.run();
    Outcome outcome = l.registers(registers);
    if (finals) outcome.insert(outcome.end(), {l.x.load(), l.y.load()});
    outcomes.insert(outcome);
  });
  return outcomes;
}

bool has(const Outcomes &outcomes, std::initializer_list<int> outcome) {
  return outcomes.count(Outcome(outcome)) != 0;
}

Outcomes message_passing(std::memory_order store, std::memory_order load) {
  return all(
      2, false,
      [=](Litmus &l) {
        l.x.store(1, kRelaxed);
        l.y.store(1, store);
      },
      [=](Litmus &l) {
        l.r[0] = l.y.load(load);
        l.r[1] = l.x.load(kRelaxed);
      });
}

Outcomes store_buffering(std::memory_order store, std::memory_order load) {
  return all(
      2, false,
      [=](Litmus &l) {
        l.x.store(1, store);
        l.r[0] = l.y.load(load);
      },
      [=](Litmus &l) {
        l.y.store(1, store);
        l.r[1] = l.x.load(load);
      });
}

}  // namespace

BOOST_AUTO_TEST_CASE(message_passing_needs_both_release_and_acquire) {
  const Outcomes right = {{0, 0}, {0, 1}, {1, 1}};
  Outcomes weak = right;
  weak.insert({1, 0});
  BOOST_TEST((message_passing(kRelease, kAcquire) == right));
  BOOST_TEST((message_passing(kSeqCst, kSeqCst) == right));
  BOOST_TEST((message_passing(kRelaxed, kAcquire) == weak));
  BOOST_TEST((message_passing(kRelease, kRelaxed) == weak));
  BOOST_TEST((message_passing(kRelaxed, kRelaxed) == weak));
}

BOOST_AUTO_TEST_CASE(store_buffering_is_forbidden_by_seq_cst_alone) {
  BOOST_TEST(has(store_buffering(kRelease, kAcquire), {0, 0}));
  BOOST_TEST(has(store_buffering(kRelaxed, kRelaxed), {0, 0}));
  BOOST_TEST(has(store_buffering(kSeqCst, kAcquire), {0, 0}));
  BOOST_TEST(has(store_buffering(kRelease, kSeqCst), {0, 0}));
  BOOST_TEST((store_buffering(kSeqCst, kSeqCst) == Outcomes{{0, 1}, {1, 0}, {1, 1}}));
}

BOOST_AUTO_TEST_CASE(store_buffering_is_forbidden_by_fences_of_seq_cst) {
  const auto fenced = [](std::memory_order fence) {
    return all(
        2, false,
        [=](Litmus &l) {
          l.x.store(1, kRelaxed);
          WeakAtomics::fence(fence);
          l.r[0] = l.y.load(kRelaxed);
        },
        [=](Litmus &l) {
          l.y.store(1, kRelaxed);
          WeakAtomics::fence(fence);
          l.r[1] = l.x.load(kRelaxed);
        });
  };
  BOOST_TEST(!has(fenced(kSeqCst), {0, 0}));
  BOOST_TEST(has(fenced(kAcqRel), {0, 0}));
}

// A seq_cst fence on one side, seq_cst operations on the other: also one order of all.
BOOST_AUTO_TEST_CASE(fences_and_operations_of_seq_cst_are_in_one_order) {
  const auto mixed = [](std::memory_order order) {
    return all(
        2, false,
        [=](Litmus &l) {
          l.x.store(1, order);
          l.r[0] = l.y.load(order);
        },
        [=](Litmus &l) {
          l.y.store(1, kRelaxed);
          WeakAtomics::fence(kSeqCst);
          l.r[1] = l.x.load(kRelaxed);
        });
  };
  BOOST_TEST(!has(mixed(kSeqCst), {0, 0}));
  BOOST_TEST(has(mixed(kRelaxed), {0, 0}));
}

// What the pool and min_guard() stand on: an add of 0 instead of a load. Two read-modify-writes of one
// word are in an order, and the later one has read the earlier one's.
BOOST_AUTO_TEST_CASE(an_add_of_zero_stands_in_for_a_load_of_seq_cst_on_the_same_word) {
  const auto adds = [](bool by_add) {
    return all(
        2, false,
        [=](Litmus &l) {
          l.x.store(1, kRelaxed);
          l.r[0] = by_add ? l.y.fetch_add(0, kAcqRel) : l.y.load(kAcquire);
        },
        [=](Litmus &l) {
          int none = 0;
          l.y.compare_exchange_strong(none, 1, kAcqRel, kRelaxed);
          l.r[1] = l.x.load(kRelaxed);
        });
  };
  BOOST_TEST(!has(adds(true), {0, 0}));
  BOOST_TEST(has(adds(false), {0, 0}));
}

BOOST_AUTO_TEST_CASE(load_buffering_does_not_happen) {
  const Outcomes outcomes = all(
      2, false,
      [](Litmus &l) {
        l.r[0] = l.x.load(kRelaxed);
        l.y.store(1, kRelaxed);
      },
      [](Litmus &l) {
        l.r[1] = l.y.load(kRelaxed);
        l.x.store(1, kRelaxed);
      });
  BOOST_TEST((outcomes == Outcomes{{0, 0}, {0, 1}, {1, 0}}));
}

BOOST_AUTO_TEST_CASE(independent_reads_agree_under_seq_cst_alone) {
  const auto iriw = [](std::memory_order store, std::memory_order load) {
    return all(
        4, false, [=](Litmus &l) { l.x.store(1, store); }, [=](Litmus &l) { l.y.store(1, store); },
        [=](Litmus &l) {
          l.r[0] = l.x.load(load);
          l.r[1] = l.y.load(load);
        },
        [=](Litmus &l) {
          l.r[2] = l.y.load(load);
          l.r[3] = l.x.load(load);
        });
  };
  BOOST_TEST(has(iriw(kRelease, kAcquire), {1, 0, 1, 0}));
  BOOST_TEST(!has(iriw(kSeqCst, kSeqCst), {1, 0, 1, 0}));
}

BOOST_AUTO_TEST_CASE(reads_of_one_word_go_forward_and_all_agree_on_its_order) {
  const Outcomes once = all(
      2, false,
      [](Litmus &l) {
        l.x.store(1, kRelaxed);
        l.x.store(2, kRelaxed);
      },
      [](Litmus &l) {
        l.r[0] = l.x.load(kRelaxed);
        l.r[1] = l.x.load(kRelaxed);
      });
  BOOST_TEST((once == Outcomes{{0, 0}, {0, 1}, {0, 2}, {1, 1}, {1, 2}, {2, 2}}));
  const Outcomes two_writers = all(
      4, false, [](Litmus &l) { l.x.store(1, kRelaxed); },
      [](Litmus &l) { l.x.store(2, kRelaxed); },
      [](Litmus &l) {
        l.r[0] = l.x.load(kRelaxed);
        l.r[1] = l.x.load(kRelaxed);
      },
      [](Litmus &l) {
        l.r[2] = l.x.load(kRelaxed);
        l.r[3] = l.x.load(kRelaxed);
      });
  BOOST_TEST(has(two_writers, {1, 2, 1, 2}));
  BOOST_TEST(has(two_writers, {2, 1, 2, 1}));
  BOOST_TEST(!has(two_writers, {1, 2, 2, 1}));
}

// Coherence of writes with what the thread itself read and wrote.
BOOST_AUTO_TEST_CASE(a_store_comes_after_all_that_its_thread_knows_of_the_word) {
  const Outcomes outcomes = all(
      1, true, [](Litmus &l) { l.x.store(1, kRelaxed); },
      [](Litmus &l) {
        l.r[0] = l.x.load(kRelaxed);
        l.x.store(2, kRelaxed);
      });
  BOOST_TEST(has(outcomes, {0, 2, 0}));
  BOOST_TEST(has(outcomes, {0, 1, 0}));
  BOOST_TEST(has(outcomes, {1, 2, 0}));
  BOOST_TEST(!has(outcomes, {1, 1, 0}));
}

BOOST_AUTO_TEST_CASE(two_pairs_of_stores_may_end_crosswise_unless_seq_cst) {
  const auto crosswise = [](std::memory_order order) {
    return all(
        0, true,
        [=](Litmus &l) {
          l.x.store(1, order);
          l.y.store(2, order);
        },
        [=](Litmus &l) {
          l.y.store(1, order);
          l.x.store(2, order);
        });
  };
  BOOST_TEST(has(crosswise(kRelaxed), {1, 1}));
  BOOST_TEST(has(crosswise(kRelease), {1, 1}));
  BOOST_TEST(!has(crosswise(kSeqCst), {1, 1}));
}

// C++20: a read-modify-write of anybody carries a release on; a plain store of the releaser does not.
BOOST_AUTO_TEST_CASE(a_release_sequence_goes_through_read_modify_writes_only) {
  const auto through = [](bool by_add) {
    return all(
        2, false,
        [](Litmus &l) {
          l.x.store(1, kRelaxed);
          l.y.store(1, kRelease);
        },
        [=](Litmus &l) {
          if (by_add) {
            l.y.fetch_add(1, kRelaxed);
          } else if (l.y.load(kRelaxed) == 1) {
            l.y.store(2, kRelaxed);
          }
        },
        [](Litmus &l) {
          l.r[0] = l.y.load(kAcquire);
          l.r[1] = l.x.load(kRelaxed);
        });
  };
  BOOST_TEST(!has(through(true), {2, 0}));
  BOOST_TEST(has(through(true), {2, 1}));
  BOOST_TEST(has(through(false), {2, 0}));
  const Outcomes own_store = all(
      2, false,
      [](Litmus &l) {
        l.x.store(1, kRelaxed);
        l.y.store(1, kRelease);
        l.y.store(2, kRelaxed);
      },
      [](Litmus &l) {
        l.r[0] = l.y.load(kAcquire);
        l.r[1] = l.x.load(kRelaxed);
      });
  BOOST_TEST(!has(own_store, {1, 0}));
  BOOST_TEST(has(own_store, {2, 0}));
}

BOOST_AUTO_TEST_CASE(fences_make_relaxed_operations_release_and_acquire) {
  const auto fenced = [](bool release, bool acquire) {
    return all(
        2, false,
        [=](Litmus &l) {
          l.x.store(1, kRelaxed);
          if (release) WeakAtomics::fence(kRelease);
          l.y.store(1, kRelaxed);
        },
        [=](Litmus &l) {
          l.r[0] = l.y.load(kRelaxed);
          if (acquire) WeakAtomics::fence(kAcquire);
          l.r[1] = l.x.load(kRelaxed);
        });
  };
  BOOST_TEST(!has(fenced(true, true), {1, 0}));
  BOOST_TEST(has(fenced(true, false), {1, 0}));
  BOOST_TEST(has(fenced(false, true), {1, 0}));
}

BOOST_AUTO_TEST_CASE(read_modify_writes_lose_nothing_and_stores_do) {
  const auto added = [](bool by_add) {
    const auto one = [=](Litmus &l) {
      if (by_add) {
        l.x.fetch_add(1, kRelaxed);
      } else {
        l.x.store(l.x.load(kRelaxed) + 1, kRelaxed);
      }
    };
    return all(0, true, one, one, one);
  };
  BOOST_TEST((added(true) == Outcomes{{3, 0}}));
  BOOST_TEST((added(false) == Outcomes{{1, 0}, {2, 0}, {3, 0}}));
  const Outcomes winners = all(
      2, true,
      [](Litmus &l) {
        int none = 0;
        l.r[0] = l.x.compare_exchange_strong(none, 1, kRelaxed, kRelaxed);
      },
      [](Litmus &l) {
        int none = 0;
        l.r[1] = l.x.compare_exchange_strong(none, 2, kRelaxed, kRelaxed);
      });
  BOOST_TEST((winners == Outcomes{{1, 0, 1, 0}, {0, 1, 2, 0}}));
}

// A compare-and-swap that fails has loaded, by the order of failure.
BOOST_AUTO_TEST_CASE(a_failed_compare_and_swap_is_a_load_of_its_order) {
  const auto failing = [](std::memory_order failure) {
    return all(
        2, false,
        [](Litmus &l) {
          l.x.store(1, kRelaxed);
          l.y.store(1, kRelease);
        },
        [=](Litmus &l) {
          int seen = 7;
          l.y.compare_exchange_strong(seen, 8, kAcqRel, failure);
          l.r[0] = seen;
          l.r[1] = l.x.load(kRelaxed);
        });
  };
  BOOST_TEST(!has(failing(kAcquire), {1, 0}));
  BOOST_TEST(has(failing(kRelaxed), {1, 0}));
  BOOST_TEST(has(failing(kAcquire), {0, 0}));
}

// Causality holds over three threads, and not by seq_cst fences in a thread that has none.
BOOST_AUTO_TEST_CASE(what_was_acquired_is_handed_on_by_a_release) {
  const auto chain = [](std::memory_order handed_on) {
    return all(
        3, false, [](Litmus &l) { l.x.store(1, kRelease); },
        [=](Litmus &l) {
          l.r[0] = l.x.load(kAcquire);
          l.y.store(1, handed_on);
        },
        [](Litmus &l) {
          l.r[1] = l.y.load(kAcquire);
          l.r[2] = l.x.load(kRelaxed);
        });
  };
  BOOST_TEST(!has(chain(kRelease), {1, 1, 0}));
  BOOST_TEST(has(chain(kRelaxed), {1, 1, 0}));
}

namespace {

// How many executions of message passing of a plain value end in a data race.
uint64_t races(std::memory_order store, std::memory_order load, bool through_add) {
  uint64_t raced = 0, executions = 0;
  Path path;
  do {
    ++executions;
    WeakAtomic<int> flag{0};
    Plain<int> data{0};
    int seen = 1;
    Scheduler s(&path, Bounds{8, 8});
    s.spawn([&] {
      data = 1;
      flag.store(1, store);
    });
    if (through_add) s.spawn([&] { flag.fetch_add(2, kRelaxed); });
    s.spawn([&] {
      if ((flag.load(load) & 1) != 0) seen = data;
    });
    try {
      s.run();
    } catch (const std::exception &e) {
      BOOST_TEST(std::string(e.what()).find("data race") == 0U);
      ++raced;
    }
    BOOST_TEST(seen == 1);
  } while (path.advance());
  BOOST_TEST(executions > 2U);
  return raced;
}

}  // namespace

BOOST_AUTO_TEST_CASE(data_races_on_plain_memory_are_found_and_only_those) {
  for (const bool through_add : {false, true}) {
    BOOST_TEST(races(kRelease, kAcquire, through_add) == 0U);
    BOOST_TEST(races(kSeqCst, kSeqCst, through_add) == 0U);
    BOOST_TEST(races(kRelaxed, kAcquire, through_add) != 0U);
    BOOST_TEST(races(kRelease, kRelaxed, through_add) != 0U);
  }
}

// A read that is over must happen before the next write: what a pin's release is for.
BOOST_AUTO_TEST_CASE(a_write_after_a_read_races_unless_the_reader_released) {
  for (const auto order : {kRelaxed, kRelease}) {
    uint64_t raced = 0;
    Path path;
    do {
      WeakAtomic<int> readers{1};
      Plain<int> data{5};
      Scheduler s(&path, Bounds{8, 8});
      s.spawn([&] {
        if (data != 5) throw std::runtime_error("read what was written later");
        readers.fetch_sub(1, order);
      });
      s.spawn([&] {
        int none = 0;
        if (readers.compare_exchange_strong(none, -1, kAcquire, kRelaxed)) data = 6;
      });
      try {
        s.run();
      } catch (const std::exception &) {
        ++raced;
      }
    } while (path.advance());
    BOOST_TEST((raced != 0) == (order == kRelaxed));
  }
}

// The same path gives the same execution, and a walk by a seed too.
BOOST_AUTO_TEST_CASE(walks_are_replayed_by_their_seed) {
  const auto walk = [](uint64_t seed) {
    Litmus l;
    Scheduler s(seed);
    s.spawn([&l] {
      for (int i = 1; i < 20; ++i) l.x.store(i, kRelaxed);
    });
    int sum = 0;
    s.spawn([&l, &sum] {
      for (int i = 0; i < 20; ++i) sum = sum * 31 % 10007 + l.x.load(kRelaxed);
    });
    s.run();
    return sum;
  };
  std::set<int> different;
  for (uint64_t seed = 1; seed < 50; ++seed) {
    BOOST_TEST(walk(seed) == walk(seed));
    different.insert(walk(seed));
  }
  BOOST_TEST(different.size() > 10U);
}
