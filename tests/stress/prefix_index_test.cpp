// PrefixIndex and FramePool with real threads: chains that are acquired, published and evicted all
// the time, by page numbers that are reused at once. Meant for ThreadSanitizer: the content of a
// page is a plain word, written by its owner while it is private and read under a pin, so an order
// that is too weak anywhere on the way is a reported race. In any build: content, monotone
// presence, conservation, and validate() at rest.
#define BOOST_TEST_MODULE stress_prefix_index
#define BOOST_TEST_DYN_LINK
#include "runtime/prefix_index.h"

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "allocators/frame_pool.h"
#include "tests/support/scheduler.h"

using namespace quire;
using quire::model::Random;

namespace {

struct NarrowWidths {
  static constexpr int kRef = 20, kChildren = 20, kState = 3, kGeneration = 4;
};
// Eight bins and four tags, however many keys.
struct Crowded {
  static constexpr int kVersionBits = 20;
  static constexpr uint64_t bin(const Key &key) noexcept { return key.lo & 7; }
  static constexpr uint32_t tag(const Key &key) noexcept {
    return static_cast<uint32_t>(key.hi & 3) + 1;
  }
};
struct Free {
  void operator()(void *memory) const { std::free(memory); }
};
std::unique_ptr<void, Free> memory_of(size_t bytes) {
  return std::unique_ptr<void, Free>(std::aligned_alloc(128, align_up(bytes, 128)));
}

constexpr uint32_t kLength = 8;
constexpr uint32_t kThreads = 4;

template <class Traits, class Widths>
struct Cache {
  using Table = PageTable<StdAtomics, Widths>;
  using Index = PrefixIndex<StdAtomics, Traits, Widths>;
  using Pool = FramePool<>;

  Cache(uint32_t pages, uint32_t chains)
      : table_memory(memory_of(Table::bytes(pages))),
        index_memory(memory_of(Index::bytes(pages))),
        pool_memory(memory_of(Pool::bytes(pages))),
        table(table_memory.get(), pages),
        index(index_memory.get(), table),
        pool(pool_memory.get(), pages),
        content(pages, 0),
        keys(chains * kLength) {
    table.format();
    index.format((uint64_t{1} << Traits::kVersionBits) - 100);
    pool.format();
    Random random(42);
    for (Key &key : keys) key = {random.next(), random.next()};
  }

  uint64_t content_of(const Key &key) const { return key.lo ^ key.hi; }

  // Publishes the chain as far as pages and bins allow; returns how far.
  uint32_t publish(const Key *chain, uint32_t n) {
    uint32_t parent = kNone, i = 0;
    for (; i < n; ++i) {
      uint32_t page = kNone;
      if (!pool.alloc(1, &page)) break;
      const uint32_t generation = table.generation(page);
      content[page] = content_of(chain[i]);
      table[page].parent.store(parent, std::memory_order_relaxed);
      if (parent != kNone) check(table.add_child(parent));
      const Insert result = index.insert(chain[i], page);
      if (result.status != Insert::kInserted) {
        if (parent != kNone) table.drop_child(parent);
        content[page] = 0;
        check(table.free_private(page, generation));
        pool.free(&page, 1);
        if (result.status != Insert::kFound) break;
      }
      check(content[result.page] == content_of(chain[i]));
      check(table[result.page].parent.load(std::memory_order_relaxed) == parent);
      if (parent != kNone) table.unpin(parent);
      parent = result.page;
    }
    if (parent != kNone) table.unpin(parent);
    return i;
  }

  uint32_t acquire(const Key *chain, uint32_t n, uint32_t epoch) {
    const size_t hit = index.match(chain, n);
    if (hit == 0) return 0;
    const uint32_t tail = index.find_and_pin(chain[hit - 1]);
    if (tail == kNone) return 0;
    uint32_t pages[kLength];
    index.template chain<3, 1>(chain, hit, tail,
                               [&](size_t i, uint32_t page, uint64_t) { pages[i] = page; });
    check(pages[hit - 1] == tail);
    for (size_t i = 0; i < hit; ++i) check(content[pages[i]] == content_of(chain[i]));
    table.raise_stamp(tail, epoch);
    table.unpin(tail);
    return static_cast<uint32_t>(hit);
  }

  bool evict(uint32_t page) {
    if (!table.leaf_hint(page)) return false;
    if (!table.begin_evict(page, table.generation(page))) return false;
    const Key key{table[page].key_lo.load(std::memory_order_relaxed),
                  table[page].key_hi.load(std::memory_order_relaxed)};
    const uint32_t parent = table[page].parent.load(std::memory_order_relaxed);
    check(content[page] == content_of(key));
    content[page] = 0;
    check(index.erase(page, key));
    if (parent != kNone) {
      table.raise_stamp(parent, table.stamp(page));
      table.drop_child(parent);
    }
    table.finish_evict(page);
    pool.free(&page, 1);
    return true;
  }

  void check(bool holds) {
    if (!holds) failures.fetch_add(1, std::memory_order_relaxed);
  }

  std::unique_ptr<void, Free> table_memory, index_memory, pool_memory;
  Table table;
  Index index;
  Pool pool;
  std::vector<uint64_t> content;
  std::vector<Key> keys;
  std::atomic<uint64_t> failures{0}, hits{0}, evictions{0}, published{0};
};

template <class Traits, class Widths>
void run(uint32_t pages, uint32_t chains, uint32_t rounds, uint64_t seed) {
  if (std::getenv("QUIRE_SOAK") != nullptr) rounds *= 50;
  Cache<Traits, Widths> cache(pages, chains);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&cache, pages, chains, rounds, random = Random(seed + t)]() mutable {
      for (uint32_t i = 0; i < rounds; ++i) {
        const Key *chain = &cache.keys[random.below(chains) * kLength];
        switch (random.below(4)) {
          case 0:
            cache.published += cache.publish(chain, 1 + random.below(kLength));
            break;
          case 1:
            cache.hits += cache.acquire(chain, kLength, i);
            break;
          default:
            for (int j = 0; j < 4; ++j) cache.evictions += cache.evict(random.below(pages));
            break;
        }
      }
    });
  }
  for (auto &thread : threads) thread.join();
  BOOST_TEST_INFO("seed " << seed);
  BOOST_TEST(cache.failures.load() == 0U);
  BOOST_TEST(cache.hits.load() > 0U);
  BOOST_TEST(cache.evictions.load() > 0U);
  BOOST_TEST(cache.table.validate());
  BOOST_TEST(cache.index.validate());
  BOOST_TEST(cache.pool.validate());
  const PageCounts counts = cache.table.counts(cache.pool.available());
  BOOST_TEST(counts.refs == 0U);
  BOOST_TEST(counts.private_pages == 0U);
  BOOST_TEST(cache.pool.available() + counts.visible == pages);
  // Leaf-first, everything goes.
  for (bool again = true; again;) {
    again = false;
    for (uint32_t page = 0; page < pages; ++page) again |= cache.evict(page);
  }
  BOOST_TEST(cache.pool.available() == pages);
  BOOST_TEST(cache.index.size() == 0U);
}

}  // namespace

BOOST_AUTO_TEST_CASE(pinned_content_is_the_keys_content_while_pages_come_and_go) {
  run<IndexTraits, PageWidths>(64, 16, 200000, 1);
}

BOOST_AUTO_TEST_CASE(the_same_in_crowded_bins_with_narrow_generations) {
  run<Crowded, NarrowWidths>(32, 8, 200000, 2);
}

BOOST_AUTO_TEST_CASE(all_threads_on_one_chain) {
  run<IndexTraits, NarrowWidths>(16, 1, 200000, 3);
}

// Without the index, whose header orders much on its own: the state word alone must order content.
BOOST_AUTO_TEST_CASE(a_pin_by_page_number_alone_orders_the_content) {
  const auto memory = memory_of(PageTable<>::bytes(1));
  PageTable<> table(memory.get(), 1);
  table.format();
  constexpr Key kKey{1, 2};
  uint64_t content = 0;  // Plain: odd while the page is not visible.
  std::atomic<bool> over{false};
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&, t] {
      while (!over.load(std::memory_order_relaxed)) {
        // relaxed: no order but the pin's.
        const auto life = static_cast<uint32_t>(table[0].meta.load(std::memory_order_relaxed) >>
                                                PageTable<>::M::kGenerationShift);
        if (!(t == 0 ? table.pin(0, kKey) : table.pin_exact(0, life))) continue;
        if (content % 2 != 0) wrong.fetch_add(1, std::memory_order_relaxed);
        table.unpin(0);
      }
    });
  }
  for (uint32_t life = 0; life < 20000; ++life) {
    const uint32_t generation = table.generation(0);
    ++content;
    ++content;
    table.make_visible(0, kKey);
    table.refresh_leaf_hint(0);
    table.unpin(0);
    if (life % 16 == 0) std::this_thread::yield();
    while (!table.begin_evict(0, generation)) std::this_thread::yield();
    ++content;
    ++content;
    table.finish_evict(0);
  }
  over.store(true, std::memory_order_relaxed);
  for (auto &reader : readers) reader.join();
  BOOST_TEST(wrong.load() == 0U);
  BOOST_TEST(table.validate());
}
