// PrefixIndex and PageTable under the scheduler: find, publish and evict of keys that share one bin
// (and, in the degenerate variant, one tag), by 3 to 4 threads, with generations of 4 bits,
// versions of 8 that wrap in each run, and page numbers that are reused at once.
//
// Judged: each key's history is linearizable; a pinned page stays visible and keeps its content;
// at rest table, index and pool are valid, and free + private + visible = all.
#define BOOST_TEST_MODULE model_prefix_index
#define BOOST_TEST_DYN_LINK
#include "runtime/prefix_index.h"

#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <memory>
#include <vector>

#include "allocators/frame_pool.h"
#include "tests/support/linearizability.h"
#include "tests/support/scheduler.h"

using namespace quire;
using namespace quire::model;

namespace {

struct NarrowWidths {
  static constexpr int kRef = 4, kChildren = 4, kState = 3, kGeneration = 4;
};
// One bin for all keys, each with its tag; narrow versions.
struct OneBin {
  static constexpr int kVersionBits = 8;
  static constexpr uint64_t bin(const Key &) noexcept { return 0; }
  static constexpr uint32_t tag(const Key &key) noexcept { return static_cast<uint32_t>(key.lo); }
};
// The worst hash: all keys alike until the whole key is compared.
struct OneTag : OneBin {
  static constexpr uint32_t tag(const Key &) noexcept { return 1; }
};

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};
std::unique_ptr<void, Free> memory_of(size_t bytes) {
  return std::unique_ptr<void, Free>(std::aligned_alloc(128, align_up(bytes, 128)));
}

constexpr uint32_t kKeys = 2;
Key key_of(uint32_t k) {
  return {k + 1, 77};
}

enum class Did : uint8_t { kFind, kInsert, kFoundOther, kEvict };

struct Op {
  uint64_t begin, end;
  Did did;
  uint32_t key, page;
};

// One key's truth: its page, or none.
struct Truth {
  uint32_t page = kNone;
  auto operator<=>(const Truth &) const = default;
  bool apply(const Op &op) {
    switch (op.did) {
      case Did::kFind:
        return page == op.page;
      case Did::kFoundOther:
        return page == op.page && page != kNone;
      case Did::kInsert:
        if (page != kNone) return false;
        page = op.page;
        return true;
      case Did::kEvict:
        if (page != op.page) return false;
        page = kNone;
        return true;
    }
    return false;
  }
};

// A cache of few pages and what its threads do, each of them one call.
template <class Traits, class Widths = NarrowWidths>
class World {
 public:
  using Table = PageTable<ModelAtomics, Widths>;
  using Index = PrefixIndex<ModelAtomics, Traits, Widths>;
  using Pool = FramePool<ModelAtomics>;

  explicit World(uint32_t pages)
      : table_memory_(memory_of(Table::bytes(pages))),
        index_memory_(memory_of(Index::bytes(pages))),
        pool_memory_(memory_of(Pool::bytes(pages))),
        table(table_memory_.get(), pages),
        index(index_memory_.get(), table),
        pool(pool_memory_.get(), pages),
        content(pages, 0) {
    table.format();
    index.format((uint64_t{1} << Traits::kVersionBits) - 3);  // Wraps at the third commit.
    pool.format();
  }

  // One life of a page: what a history is about. A page number that was recycled is another page.
  static uint32_t life(uint32_t page, uint32_t generation) { return page | generation << 16; }
  uint32_t life_of_pinned(uint32_t page) {
    return page == kNone ? kNone : life(page, table.generation(page));
  }

  uint32_t find(uint32_t k) {
    const uint64_t begin = ++clock;
    const uint32_t page = index.find_and_pin(key_of(k));
    const uint64_t end = ++clock;
    history.push_back({begin, end, Did::kFind, k, life_of_pinned(page)});
    if (page != kNone) {
      check_pinned(page, k);
      check_pinned(page, k);
      table.raise_stamp(page, 1);
      table.unpin(page);
    }
    return page;
  }

  // A private page for the key, published; given back if another one was there first.
  uint32_t publish(uint32_t k) {
    uint32_t page = kNone;
    if (!pool.alloc(1, &page)) return kNone;
    const uint32_t generation = table.generation(page);
    content[page] = k + 1;
    const uint64_t begin = ++clock;
    const Insert result = index.insert(key_of(k), page);
    const uint64_t end = ++clock;
    if (result.status == Insert::kInserted) {
      history.push_back({begin, end, Did::kInsert, k, life(page, generation)});
      check_pinned(page, k);
      table.unpin(page);
      return page;
    }
    if (result.status == Insert::kFound) {
      history.push_back({begin, end, Did::kFoundOther, k, life_of_pinned(result.page)});
      require(result.page != page, "found itself");
      check_pinned(result.page, k);
      table.unpin(result.page);
    }
    content[page] = 0;
    require(table.free_private(page, generation), "a private page could not be freed");
    require(!table.free_private(page, generation), "a page was freed twice");
    pool.free(&page, 1);
    return result.page;
  }

  bool evict(uint32_t page) {
    const PageView seen = table.view(page);
    if (seen.state != PageState::kVisible) return false;
    const uint64_t begin = ++clock;
    if (!table.begin_evict(page, seen.generation)) return false;
    const auto k = static_cast<uint32_t>(table[page].key_lo.load() - 1);
    history.push_back({begin, ++clock, Did::kEvict, k, life(page, seen.generation)});
    require(content[page] == k + 1, "evicted other content");
    content[page] = 0;
    require(index.erase(page, key_of(k)), "a visible page was not in the index");
    table.finish_evict(page);
    pool.free(&page, 1);
    return true;
  }

  void check_pinned(uint32_t page, uint32_t k) {
    const PageView seen = table.view(page);
    require(seen.state == PageState::kVisible && seen.ref != 0, "pinned, and not visible");
    require(content[page] == k + 1, "pinned, and other content");
  }

  void check_at_rest() {
    const PageCounts counts = table.counts(pool.available());
    require(table.validate(), "page table invalid");
    require(index.validate(), "index invalid");
    require(pool.validate(), "pool invalid");
    require(counts.private_pages == 0 && counts.refs == 0, "leaked");
    require(counts.visible + pool.available() == table.capacity(), "free + visible != all");
    for (uint32_t k = 0; k < kKeys; ++k) {
      std::vector<Op> one;
      for (const Op &op : history) {
        if (op.key == k) one.push_back(op);
      }
      require(linearizable(one, Truth{}), "not linearizable");
    }
  }

 private:
  std::unique_ptr<void, Free> table_memory_, index_memory_, pool_memory_;

 public:
  Table table;
  Index index;
  Pool pool;
  std::vector<uint64_t> content;  // Plain: written by a page's owner, read under a pin.
  std::vector<Op> history;
  uint64_t clock = 0;
};

template <class Traits>
void random_histories(uint64_t seed) {
  Random random(seed * 31 + 7);
  const uint32_t pages = 2 + random.below(3), threads = 3 + random.below(2);
  World<Traits> world(pages);
  Scheduler s(seed, 2 + random.below(6));
  for (uint32_t t = 0; t < threads; ++t) {
    s.spawn([&world, pages, from = random.next()] {
      Random mine(from);
      for (int i = 0; i < 8; ++i) {
        switch (mine.below(3)) {
          case 0:
            world.find(mine.below(kKeys));
            break;
          case 1:
            world.publish(mine.below(kKeys));
            break;
          default:
            world.evict(mine.below(pages));
            break;
        }
      }
    });
  }
  s.run();
  world.check_at_rest();
}

}  // namespace

BOOST_AUTO_TEST_CASE(histories_in_one_bin_are_linearizable) {
  BOOST_TEST(for_each_seed(10000, random_histories<OneBin>) != 0U);
}

BOOST_AUTO_TEST_CASE(histories_with_equal_tags_are_linearizable) {
  BOOST_TEST(for_each_seed(10000, random_histories<OneTag>) != 0U);
}

// The page that a finder found is evicted, its number reused, and the same key published again by a
// loser: the finder must not come out with the loser's page.
BOOST_AUTO_TEST_CASE(a_late_finder_never_pins_a_page_whose_publish_is_undecided) {
  const uint64_t executions = explore(2, [](Scheduler &s) {
    World<OneBin> world(2);
    const uint32_t page = world.publish(0);
    s.spawn([&] { world.find(0); });
    s.spawn([&] {
      world.evict(page);
      world.publish(0);
    });
    s.spawn([&] { world.publish(0); });
    s.run();
    world.check_at_rest();
  });
  BOOST_TEST(executions > 100U);
}

// The same where the slot in which the finder saw the page holds a valid entry again, another
// key's.
BOOST_AUTO_TEST_CASE(a_late_finder_is_not_fooled_by_another_entry_in_its_slot) {
  const uint64_t executions = explore(2, [](Scheduler &s) {
    World<OneBin> world(3);
    const uint32_t page = world.publish(0);
    uint32_t other = kNone;
    require(world.pool.alloc(1, &other), "no page");
    world.content[other] = 2;
    s.spawn([&] { world.find(0); });
    s.spawn([&] {
      world.evict(page);
      require(world.index.insert(key_of(1), other).status == Insert::kInserted, "not inserted");
      world.table.unpin(other);
      world.publish(0);
    });
    s.spawn([&] { world.publish(0); });
    s.run();
    world.check_at_rest();
  });
  BOOST_TEST(executions > 100U);
}

BOOST_AUTO_TEST_CASE(two_publishers_of_one_key_get_one_page) {
  const uint64_t executions = explore(3, [](Scheduler &s) {
    World<OneBin> world(2);
    uint32_t got[2];
    for (auto &page : got) s.spawn([&] { page = world.publish(0); });
    s.run();
    require(got[0] == got[1] && got[0] != kNone, "two canonical pages");
    require(world.index.size() == 1, "two entries");
    world.check_at_rest();
  });
  BOOST_TEST(executions > 100U);
}

BOOST_AUTO_TEST_CASE(a_key_can_be_published_while_its_old_page_is_evicted) {
  const uint64_t executions = explore(3, [](Scheduler &s) {
    World<OneBin> world(2);
    const uint32_t page = world.publish(0);
    s.spawn([&] { world.evict(page); });
    s.spawn([&] { world.publish(0); });
    s.run();
    world.check_at_rest();
  });
  BOOST_TEST(executions > 100U);
}

BOOST_AUTO_TEST_CASE(pins_beyond_half_of_the_range_are_refused_and_undone) {
  // 4 bits: 8 pins are allowed, with 7 more for additions that are not undone yet.
  const uint64_t seeds = for_each_seed(500, [](uint64_t seed) {
    World<OneBin> world(2);
    const uint32_t page = world.publish(0);
    Scheduler s(seed);
    for (int t = 0; t < 4; ++t) {
      s.spawn([&] {
        uint32_t held = 0, refused = 0;
        for (int i = 0; i < 3; ++i) {
          bool busy = false;
          const uint32_t found = world.index.find_and_pin(key_of(0), {}, &busy);
          require((found == kNone) == busy, "a page that is there was missed");
          held += found != kNone;
          refused += busy;
        }
        require(held + refused == 3, "lost a pin");
        for (; held != 0; --held) world.table.unpin(page);
      });
    }
    s.run();
    world.check_at_rest();
  });
  BOOST_TEST(seeds != 0U);
}

// Promise 6, for the index: a thread stopped between any two atomics stops nobody else.
BOOST_AUTO_TEST_CASE(a_thread_stopped_at_any_atomic_stops_nobody) {
  const auto run_stopped_at = [](uint32_t what, uint64_t n) {
    World<OneBin> world(4);
    const uint32_t page = world.publish(0);
    Scheduler s(n + 1, 5);
    const uint32_t stopped = s.spawn([&] {
      if (what == 0) world.find(0);
      if (what == 1) world.publish(1);
      if (what == 2) world.evict(page);
    });
    // Each of the others finds, publishes and evicts to its end; run() throws if one cannot.
    for (uint32_t t = 0; t < 2; ++t) {
      s.spawn([&, t] {
        for (uint32_t i = 0; i < 4; ++i) {
          world.find(i % kKeys);
          const uint32_t mine = world.publish((i + t) % kKeys);
          if (mine != kNone) world.evict(mine);
        }
      });
    }
    s.stop(stopped, n);
    s.run();
    return s.steps(stopped) > n;  // It was stopped, and had not come to its end before.
  };
  for (uint32_t what = 0; what < 3; ++what) {
    uint64_t stopped = 0;
    for (uint64_t n = 0; n < 200; ++n) stopped += run_stopped_at(what, n);
    BOOST_TEST(stopped > 5U);
  }
}

namespace {

// A chain of three keys, root first, published and evicted by all threads.
struct Chain : World<OneBin> {
  static constexpr uint32_t kLength = 3;
  using World::World;

  static const Key *keys() {
    static const Key keys[kLength] = {key_of(0), key_of(1), key_of(2)};
    return keys;
  }

  void publish_chain(uint32_t length) {
    uint32_t parent = kNone;
    for (uint32_t i = 0; i < length; ++i) {
      uint32_t page = kNone;
      if (!pool.alloc(1, &page)) break;
      const uint32_t generation = table.generation(page);
      content[page] = i + 1;
      table[page].parent.store(parent);
      if (parent != kNone) require(table.add_child(parent), "too many children");
      const Insert result = index.insert(key_of(i), page);
      if (result.status != Insert::kInserted) {
        require(result.status == Insert::kFound, "no room");
        if (parent != kNone) table.drop_child(parent);
        content[page] = 0;
        require(table.free_private(page, generation), "a private page could not be freed");
        pool.free(&page, 1);
      }
      require(i == 0 || table[result.page].parent.load() == parent, "another parent");
      check_pinned(result.page, i);
      if (parent != kNone) table.unpin(parent);
      parent = result.page;
    }
    if (parent != kNone) table.unpin(parent);
  }

  void evict_leaf(uint32_t page) {
    const PageView seen = table.view(page);
    if (!table.begin_evict(page, seen.generation)) return;
    const Key key{table[page].key_lo.load(), table[page].key_hi.load()};
    const uint32_t parent = table[page].parent.load();
    content[page] = 0;
    require(index.erase(page, key), "a visible page was not in the index");
    if (parent != kNone) {
      table.raise_stamp(parent, table.stamp(page));
      table.drop_child(parent);
    }
    table.finish_evict(page);
    pool.free(&page, 1);
  }

  // A pinned page pins its whole chain: match and gather under the pin see all of it.
  void acquire() {
    const size_t n = index.match(keys(), kLength);
    if (n == 0) return;
    const uint32_t tail = index.find_and_pin(keys()[n - 1]);
    if (tail == kNone) return;
    uint32_t pages[kLength];
    index.chain<2, 1>(keys(), n, tail, [&](size_t i, uint32_t page, uint64_t link) {
      pages[i] = page;
      require(i != 0 || static_cast<uint32_t>(link) == page, "a first page with a parent");
    });
    require(pages[n - 1] == tail, "another last page");
    require(index.match(keys(), kLength) >= n, "a pinned chain was missed");
    for (uint32_t i = 0; i < n; ++i) require(content[pages[i]] == i + 1, "other content");
    table.raise_stamp(tail, 2);
    table.unpin(tail);
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_pin_holds_the_whole_chain_and_leaf_bits_end_right) {
  const uint64_t seeds = for_each_seed(10000, [](uint64_t seed) {
    Random random(seed * 17 + 3);
    const uint32_t pages = 3 + random.below(4);
    Chain world(pages);
    world.publish_chain(Chain::kLength);
    Scheduler s(seed, 2 + random.below(6));
    for (uint32_t t = 0; t < 3; ++t) {
      s.spawn([&world, pages, from = random.next()] {
        Random mine(from);
        for (int i = 0; i < 8; ++i) {
          switch (mine.below(4)) {
            case 0:
              world.acquire();
              break;
            case 1:
              world.publish_chain(1 + mine.below(Chain::kLength));
              break;
            default:
              world.evict_leaf(mine.below(pages));
              break;
          }
        }
      });
    }
    s.run();
    world.check_at_rest();
  });
  BOOST_TEST(seeds != 0U);
}

// A dead page does not stand in the way of its successor, and is found by nobody.
BOOST_AUTO_TEST_CASE(a_live_page_takes_over_the_key_of_a_dead_one) {
  const uint64_t executions = explore(3, [](Scheduler &s) {
    World<OneBin> world(3);
    const uint32_t dead = world.publish(0);
    const auto alive = [dead](uint32_t page) { return page != dead; };
    uint32_t got[2] = {kNone, kNone};
    for (auto &page : got) {
      s.spawn([&] {
        world.pool.alloc(1, &page);
        const Insert result = world.index.insert(key_of(0), page, alive);
        require(result.page != dead, "the dead page was found");
        page = result.page;
      });
    }
    s.run();
    require(got[0] == got[1] && world.index.peek(key_of(0), alive) == got[0], "two live pages");
    require(world.index.size() == 2 && world.index.validate(alive), "index invalid");
  });
  BOOST_TEST(executions > 100U);
}

// A chain is what hangs on its last page, whatever the index says of the keys above it.
BOOST_AUTO_TEST_CASE(a_wrong_hint_does_not_lead_a_chain_astray) {
  Chain world(4);
  world.publish_chain(3);
  const uint32_t tail = world.index.peek(key_of(2));
  const uint32_t middle = world.table[tail].parent.load();
  // Right hints; hints that name each other's pages; keys of which the index knows nothing.
  const Key swapped[Chain::kLength] = {key_of(1), key_of(0), key_of(2)};
  const Key unknown[Chain::kLength] = {key_of(7), key_of(8), key_of(2)};
  for (const Key *keys : {Chain::keys(), swapped, unknown}) {
    uint32_t pages[Chain::kLength] = {};
    world.index.chain<3, 1>(keys, Chain::kLength, tail,
                            [&](size_t i, uint32_t page, uint64_t) { pages[i] = page; });
    BOOST_TEST(pages[2] == tail);
    BOOST_TEST(pages[1] == middle);
    BOOST_TEST(pages[0] == world.table[middle].parent.load());
  }
}
