// PageTable under the scheduler: handles and generations, shared private pages, stamps, leaf bits.
#define BOOST_TEST_MODULE model_page_table
#define BOOST_TEST_DYN_LINK
#include "runtime/page_table.h"

#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <memory>
#include <vector>

#include "tests/support/scheduler.h"

using namespace quire;
using namespace quire::model;

namespace {

struct NarrowWidths {
  static constexpr int kRef = 3, kChildren = 3, kState = 3, kGeneration = 4;
};
struct Free {
  void operator()(void *memory) const { std::free(memory); }
};

template <class Widths>
struct World {
  using Table = PageTable<ModelAtomics, Widths>;
  explicit World(uint32_t pages)
      : memory(std::aligned_alloc(64, Table::bytes(pages))), table(memory.get(), pages) {
    table.format();
  }
  // A life of the page: from free to free by eviction. As publisher and only owner.
  uint32_t live(uint32_t page, const Key &key) {
    const uint32_t generation = table.generation(page);
    table.make_visible(page, key);
    table.refresh_leaf_hint(page);
    table.unpin(page);
    return generation;
  }
  std::unique_ptr<void, Free> memory;
  Table table;
};

constexpr Key kKey{1, 2};

}  // namespace

// Finders that come late, in a life of the page that they were not looking for, change nothing.
BOOST_AUTO_TEST_CASE(late_finders_leave_no_trace_in_a_recycled_page) {
  const uint64_t executions = explore(3, [](Scheduler &s) {
    World<NarrowWidths> world(1);
    auto &table = world.table;
    world.live(0, kKey);
    s.spawn([&] {
      if (!table.pin(0, kKey)) return;
      require(table.view(0).state == PageState::kVisible, "pinned, and not visible");
      require(table[0].key_lo.load() == kKey.lo, "pinned another page");
      table.unpin(0);
    });
    s.spawn([&] {
      if (!table.begin_evict(0, 0)) return;
      table.finish_evict(0);
      const uint32_t generation = table.generation(0);
      require(table.free_private(0, generation), "not freed");
      world.live(0, {3, 4});
    });
    s.run();
    const PageView end = table.view(0);
    require(end.ref == 0 && end.children == 0 && end.state == PageState::kVisible, "a trace");
    require(table.validate(), "invalid");
  });
  BOOST_TEST(executions > 10U);
}

BOOST_AUTO_TEST_CASE(a_private_page_is_freed_by_one_of_two) {
  const uint64_t executions = explore(3, [](Scheduler &s) {
    World<NarrowWidths> world(1);
    const uint32_t generation = world.table.generation(0);
    int freed = 0;
    for (int t = 0; t < 2; ++t) {
      s.spawn([&] { freed += world.table.free_private(0, generation); });
    }
    s.run();
    require(freed == 1 && world.table.generation(0) == generation + 1, "freed twice, or never");
    require(world.table.validate(), "invalid");
  });
  BOOST_TEST(executions > 10U);
}

BOOST_AUTO_TEST_CASE(the_last_sharer_of_a_private_page_frees_it) {
  const uint64_t executions = explore(3, [](Scheduler &s) {
    World<NarrowWidths> world(1);
    const uint32_t generation = world.table.generation(0);
    require(world.table.add_child(0) && world.table.add_child(0), "not shared");
    require(!world.table.free_private(0, generation), "freed while shared");
    int freed = 0, shared = 0;
    for (int t = 0; t < 3; ++t) {
      s.spawn([&] {
        const Release release = world.table.release_private(0, generation);
        freed += release == Release::kFreed;
        shared += release == Release::kShared;
      });
    }
    s.run();
    require(freed == 1 && shared == 2, "freed by another than the last");
    require(world.table.release_private(0, generation) == Release::kStale, "not stale");
    require(world.table.validate(), "invalid");
  });
  BOOST_TEST(executions > 10U);
}

BOOST_AUTO_TEST_CASE(a_stale_handle_pins_nothing_until_its_generation_comes_round) {
  World<NarrowWidths> world(1);
  auto &table = world.table;
  for (uint32_t life = 0; life < 3 * World<NarrowWidths>::Table::kGenerations; ++life) {
    const uint32_t generation = world.live(0, kKey);
    BOOST_TEST(generation == life % World<NarrowWidths>::Table::kGenerations);
    for (uint32_t other = 0; other < World<NarrowWidths>::Table::kGenerations; ++other) {
      const bool pinned = table.pin_exact(0, other);
      BOOST_TEST(pinned == (other == generation));
      if (pinned) table.unpin(0);
      if (other != generation) BOOST_TEST(!table.begin_evict(0, other));
    }
    BOOST_TEST(table.begin_evict(0, generation));
    BOOST_TEST(!table.pin_exact(0, generation));
    table.finish_evict(0);
    BOOST_TEST(table.validate());
  }
}

BOOST_AUTO_TEST_CASE(counters_stop_at_half_and_never_carry) {
  World<NarrowWidths> world(1);
  auto &table = world.table;
  world.live(0, kKey);
  for (uint32_t i = 0; i < 4; ++i) BOOST_TEST(table.pin(0, kKey));
  BOOST_TEST((table.try_pin(0, kKey) == Pin::kBusy));
  BOOST_TEST((table.try_pin_exact(0, 0) == Pin::kBusy));
  BOOST_TEST(!table.add_ref(0));
  for (uint32_t i = 0; i < 4; ++i) BOOST_TEST(table.add_child(0));
  BOOST_TEST(!table.add_child(0));
  const PageView view = table.view(0);
  BOOST_TEST((view.ref == 4 && view.children == 4 && view.state == PageState::kVisible));
  BOOST_TEST(!table.leaf_hint(0));
  for (uint32_t i = 4; i-- > 0;) BOOST_TEST(table.drop_child(0) == i);
  for (uint32_t i = 4; i-- > 0;) BOOST_TEST(table.unpin(0) == i);
  BOOST_TEST(table.leaf_hint(0));
}

BOOST_AUTO_TEST_CASE(the_leaf_bit_ends_as_the_state_word_says) {
  const uint64_t seeds = for_each_seed(10000, [](uint64_t seed) {
    World<NarrowWidths> world(1);
    auto &table = world.table;
    world.live(0, kKey);
    table.add_ref(0);
    table.set_class(0, 5);
    Scheduler s(seed, 2);
    for (int t = 0; t < 3; ++t) {
      s.spawn([&, t] {
        for (int i = 0; i < 3; ++i) {
          require(table.add_child(0), "no room");
          if (t == 0) table.set_class(0, static_cast<uint8_t>(i));
          table.drop_child(0);
        }
        if (t == 1) require(table.add_child(0), "no room");
      });
    }
    s.run();
    require(table.leaf_hint(0) == (table.view(0).children == 0), "wrong leaf bit");
    require(table.page_class(0) == 2, "lost class");
  });
  BOOST_TEST(seeds != 0U);
}

// A stalled thread with an old epoch does not make a page older, and an eviction that succeeds has
// seen the stamps of all pins before it. Also where the epoch wraps.
BOOST_AUTO_TEST_CASE(an_evicted_page_has_the_latest_release_as_its_stamp) {
  for (const uint32_t base : {10U, UINT32_MAX - 1}) {
    const uint64_t executions = explore(3, [base](Scheduler &s) {
      World<NarrowWidths> world(1);
      auto &table = world.table;
      world.live(0, kKey);
      table.set_stamp(0, base);
      uint32_t latest = base;
      for (uint32_t age = 1; age <= 2; ++age) {
        s.spawn([&, age] {
          if (!table.pin(0, kKey)) return;
          table.raise_stamp(0, base + age);
          if (static_cast<int32_t>(base + age - latest) > 0) latest = base + age;
          table.unpin(0);
        });
      }
      s.spawn([&] {
        if (table.begin_evict(0, 0)) {
          require(table.stamp(0) == latest, "an eviction missed a stamp");
          table.finish_evict(0);
        }
      });
      s.run();
    });
    BOOST_TEST(executions > 10U);
  }
}
