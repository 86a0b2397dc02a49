// ReclaimWorld: pages, index, pool, clock and reclaimer without a cache, for tests that drive
// evictions. A page's frame has the page's number. Works over any atomics and any EvictOrders.
//
// serve() is a request as a replay makes it: hits are the longest present prefix; its tail is held
// while exactly as many pages as are missing are evicted; the rest is published; the tail is
// touched.
#ifndef QUIRE_TESTS_SUPPORT_RECLAIM_WORLD_H
#define QUIRE_TESTS_SUPPORT_RECLAIM_WORLD_H

#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "runtime/reclaimer.h"

namespace quire::test {

struct FreeMemory {
  void operator()(void *memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, FreeMemory>;
inline Memory region_memory(size_t bytes) {
  return Memory(std::aligned_alloc(128, (bytes + 127) / 128 * 128));
}

// Keys of a prefix tree, by mixing: the parent's key and the id.
inline Key child_key(const Key &parent, uint64_t id) {
  const auto mix = [](uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  };
  return {mix(parent.lo + id * 0x9e3779b97f4a7c15 + 1), mix(parent.hi ^ mix(id + parent.lo))};
}

template <class A = StdAtomics, class Orders = EvictOrders>
class ReclaimWorld final : public EvictSink {
 public:
  using Pages = PageTable<A>;
  using Index = PrefixIndex<A>;
  using Reclaim = BasicReclaimer<A, Index, Orders>;

  explicit ReclaimWorld(uint32_t capacity, const PolicyTable &table = PolicyTable::lru(),
                        uint64_t first_epoch = 1, ScanRunner *runner = nullptr)
      : memory_{region_memory(Pages::bytes(capacity)), region_memory(Index::bytes(capacity)),
                region_memory(FramePool<A>::bytes(capacity)),
                region_memory(EpochClock<A>::bytes(4)), region_memory(EpochLog<A>::bytes())},
        pages(memory_[0].get(), capacity),
        index(memory_[1].get(), pages),
        pool(memory_[2].get(), capacity),
        clock(memory_[3].get(), 4),
        log(memory_[4].get()) {
    pages.format();
    index.format();
    pool.format();
    clock.format(first_epoch);
    log.format();
    reclaimer = std::make_unique<Reclaim>(
        typename Reclaim::Parts{pages, index, pool, clock, log, this, runner}, table);
  }

  // A private page, published under `parent`, which is pinned or kNone; the page comes pinned.
  // kNone where there is no page or no place in the index.
  uint32_t publish(uint32_t parent, const Key &key, uint8_t tag = 0) {
    uint32_t page;
    if (!pool.alloc(1, &page)) return kNone;
    const uint32_t generation = pages.generation(page);
    auto &d = pages[page];
    d.parent.store(parent);
    d.depth.store(parent == kNone ? 0 : pages[parent].depth.load() + 1);
    d.frame.store(page);
    d.expiry_ms.store(UINT64_MAX);
    pages.set_class(page, tag);
    pages.set_idle_ttl_ms(page, 0);
    pages.set_stamp(page, static_cast<uint32_t>(clock.now()));
    if (parent != kNone && !pages.add_child(parent)) std::abort();
    const Insert result = index.insert(key, page);
    if (result.status == Insert::kInserted) return page;
    if (parent != kNone) pages.drop_child(parent);
    if (!pages.free_private(page, generation)) std::abort();
    pool.free(&page, 1);
    return result.status == Insert::kFound ? result.page : kNone;
  }

  void touch_and_unpin(uint32_t page) {
    pages.raise_stamp(page, static_cast<uint32_t>(clock.now()));
    pages.unpin(page);
  }

  // Returns the hits.
  uint64_t serve(std::span<const uint64_t> ids, uint8_t tag = 0) {
    clock.advance();
    ids = ids.first(std::min<size_t>(ids.size(), pages.capacity()));
    uint64_t hits = 0;
    uint32_t tail = kNone;
    Key key{1, 1};
    for (; hits < ids.size(); ++hits) {
      const Key next = child_key(key, ids[hits]);
      const uint32_t page = index.find_and_pin(next);
      if (page == kNone) break;
      if (tail != kNone) pages.unpin(tail);
      tail = page;
      key = next;
    }
    const auto missing = static_cast<uint32_t>(ids.size() - hits);
    const uint32_t free = pool.available();
    if (missing > free) reclaimer->reclaim(missing - free);
    for (uint64_t i = hits; i < ids.size(); ++i) {
      key = child_key(key, ids[i]);
      const uint32_t page = publish(tail, key, tag);
      if (page == kNone) break;
      if (tail != kNone) pages.unpin(tail);
      tail = page;
    }
    if (tail != kNone) touch_and_unpin(tail);
    return hits;
  }

  void evicted(uint32_t page, uint32_t stamp, EvictReason reason) noexcept override {
    ++evictions;
    if (on_evicted) on_evicted(page, stamp, reason);
  }
  void retire(const EvictBatch &batch) noexcept override {
    if (on_retire) on_retire(batch);
  }
  bool is_dead(uint32_t page) noexcept override { return dead && dead(page); }

  bool validate() const {
    return pages.validate() && index.validate() && pool.validate() && clock.validate() &&
           reclaimer->validate() && pages.counts().visible + pool.available() == pages.capacity();
  }

 private:
  Memory memory_[5];

 public:
  Pages pages;
  Index index;
  FramePool<A> pool;
  EpochClock<A> clock;
  EpochLog<A> log;
  std::unique_ptr<Reclaim> reclaimer;
  std::function<void(uint32_t, uint32_t, EvictReason)> on_evicted;
  std::function<void(const EvictBatch &)> on_retire;
  std::function<bool(uint32_t)> dead;
  std::atomic<uint64_t> evictions{0};  // evictors are several
};

}  // namespace quire::test

#endif  // QUIRE_TESTS_SUPPORT_RECLAIM_WORLD_H
