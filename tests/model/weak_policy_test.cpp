// The table of a policy over the simulated weak memory: whoever copies one under a guard gets a whole
// one, in the order in which they were set, and none that was freed (which AddressSanitizer tells).
#define BOOST_TEST_MODULE model_weak_policy
#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <memory>

#include "runtime/epoch_clock.h"
#include "runtime/policy.h"
#include "tests/support/campaign.h"
#include "tests/support/weak_atomics.h"

using namespace quire;
using namespace quire::model;

namespace {

using A = WeakAtomics;

// Its number is in its first and its last rank.
PolicyTable numbered(uint8_t n) {
  PolicyTable table = PolicyTable::lru();
  table.rank[0][0] = table.rank[kPolicyClasses - 1][kAgeBuckets - 1] = n;
  return table;
}

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};

struct World {
  World()
      : memory(std::aligned_alloc(128, align_up(EpochClock<A>::bytes(2), 128))),
        clock(memory.get(), 2),
        seen(std::make_unique<PolicyTable>()) {
    clock.format();
    require(policy.set(numbered(1), clock), "no memory");
  }
  void set(uint8_t n) {
    require(policy.set(numbered(n), clock), "no memory");
    clock.advance();
    policy.collect(clock);
  }
  // At least that one.
  void copy(uint8_t *least) {
    const uint32_t version = policy.version();
    if (!policy.copy(clock, seen.get())) return;
    const uint8_t n = seen->rank[0][0];
    require(n == seen->rank[kPolicyClasses - 1][kAgeBuckets - 1], "a table in pieces");
    require(n >= *least, "a former table came back");
    require(n >= version, "older than the version that was read before");
    *least = n;
  }
  std::unique_ptr<void, Free> memory;
  EpochClock<A> clock;
  Policy<A> policy;
  std::unique_ptr<PolicyTable> seen;  // of the one reader
};

void swaps_and_a_reader(Scheduler &s) {
  World world;
  s.spawn([&] {
    uint8_t least = 1;
    world.copy(&least);
    world.copy(&least);
  });
  s.spawn([&] {
    world.set(2);
    world.set(3);
  });
  s.run();
  world.clock.advance();
  require(world.policy.collect(world.clock) == 0, "a table is kept for nobody");
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_table_is_whole_and_there_as_long_as_a_guard_may_see_it) {
  BOOST_TEST(prove({{"swaps and a reader", {2, 2}, swaps_and_a_reader, 20000, 2000}}) > 50U);
}
