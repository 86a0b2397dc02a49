// Reclaiming, touching and guarding, on the library's own structures (micro rows: no C API
// between).
#include <cstdlib>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/limbo.h"
#include "runtime/reclaimer.h"
#include "tools/quire-bench/bench.h"

namespace quire::bench {
namespace {

struct FreeMemory {
  void operator()(void *memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, FreeMemory>;
Memory region(size_t bytes) {
  return Memory(std::aligned_alloc(128, (bytes + 127) / 128 * 128));
}

// Pages in chains of 16, published at epochs that grow, as a cache would hold them.
class Cache final : public EvictSink {
 public:
  explicit Cache(uint32_t n)
      : memory_{region(PageTable<>::bytes(n)), region(PrefixIndex<>::bytes(n)),
                region(FramePool<>::bytes(n)), region(EpochClock<>::bytes(4)),
                region(EpochLog<>::bytes())},
        pages(memory_[0].get(), n),
        index(memory_[1].get(), pages),
        pool(memory_[2].get(), n),
        clock(memory_[3].get(), 4),
        log(memory_[4].get()) {
    pages.format();
    index.format();
    pool.format();
    clock.format();
    log.format();
    reclaimer = std::make_unique<Reclaimer>(Reclaimer::Parts{pages, index, pool, clock, log, this},
                                            PolicyTable::lru());
  }
  void fill(Random &random) {
    for (uint32_t tail = kNone; pool.available() != 0; tail = extend(tail, random)) {
    }
  }
  void evicted(uint32_t, uint32_t, EvictReason) noexcept override {}

 private:
  uint32_t extend(uint32_t parent, Random &random) {
    uint32_t page;
    if (!pool.alloc(1, &page)) return parent;
    const uint32_t depth = parent == kNone ? 0 : pages[parent].depth.load() + 1;
    if (depth == 0) clock.advance();
    auto &d = pages[page];
    d.parent.store(parent);
    d.depth.store(depth);
    pages.set_class(page, 0);
    pages.set_stamp(page, static_cast<uint32_t>(clock.now()));
    if (parent != kNone && !pages.add_child(parent)) std::abort();
    const Insert result = index.insert(Key{random(), random()}, page);
    if (result.status != Insert::kInserted) {
      if (parent != kNone) pages.drop_child(parent);
      pages.free_private(page, pages.generation(page));
      return kNone;
    }
    pages.unpin(page);
    return depth == 15 ? kNone : page;
  }

  Memory memory_[5];

 public:
  PageTable<> pages;
  PrefixIndex<> index;
  FramePool<> pool;
  EpochClock<> clock;
  EpochLog<> log;
  std::unique_ptr<Reclaimer> reclaimer;
};

// The textbook's LRU: a list and a map under a mutex.
class ListLru {
 public:
  explicit ListLru(uint32_t n) {
    at_.reserve(n);
    for (uint32_t i = 0; i < n; ++i) {
      order_.push_back(i);
      at_[i] = std::prev(order_.end());
    }
  }
  void touch(uint32_t page) {
    const std::lock_guard lock(mutex_);
    order_.splice(order_.end(), order_, at_[page]);
  }
  void evict(uint32_t n) {
    const std::lock_guard lock(mutex_);
    for (; n > 0 && !order_.empty(); --n) {
      at_.erase(order_.front());
      order_.pop_front();
    }
  }

 private:
  std::mutex mutex_;
  std::list<uint32_t> order_;
  std::unordered_map<uint32_t, std::list<uint32_t>::iterator> at_;
};

std::string size_name(uint32_t n) {
  return n >= 1u << 20 ? std::to_string(n >> 20) + "M pages" : std::to_string(n >> 10) + "K pages";
}

std::vector<Row> reclaim(const Context &context) {
  std::vector<Row> rows;
  std::vector<uint32_t> sizes = {128u << 10};
  if (!context.quick) sizes.push_back(1u << 20);
  for (const uint32_t n : sizes) {
    Random random(context.seed);
    Cache cache(n);
    cache.fill(random);
    const auto scan = interleave(context, {{"quire",
                                            [&] {
                                              // An expiry pass that finds every page alive: the
                                              // bare scan.
                                              const CpuStopwatch watch;
                                              cache.reclaimer->note_dead();
                                              do_not_optimize(cache.reclaimer->expire(1).total());
                                              return watch.ns() / n;
                                            }},
                                           {"histogram", [&] {
                                              // Nothing is old enough to be kept: the first of a
                                              // call scans, collects and sorts a sixteenth.
                                              cache.reclaimer->set_policy(PolicyTable::lru());
                                              const CpuStopwatch watch;
                                              do_not_optimize(cache.reclaimer->reclaim(1));
                                              return watch.ns() / n;
                                            }}});
    rows.push_back(
        Row{"reclaim: whole scan (histogram, collect, sort 1/16 of pages), " + size_name(n),
            "ns/page",
            at_most(1.5),
            scan[1],
            {},
            "leaves are 1 page in 16"});
    rows.push_back(Row{"expiry pass that visits every leaf, " + size_name(n),
                       "ns/page",
                       report_lower(),
                       scan[0],
                       {},
                       "leaves are 1 page in 16"});
    const uint32_t victims = n / 4;
    std::unique_ptr<ListLru> list;
    const auto evict = interleave(context, {{"quire",
                                             [&] {
                                               cache.fill(random);
                                               cache.reclaimer->set_policy(PolicyTable::lru());
                                               const CpuStopwatch watch;
                                               uint32_t done = 0;
                                               while (done < victims)
                                                 done += cache.reclaimer->reclaim(64);
                                               return watch.ns() / victims;
                                             }},
                                            {"list", [&] {
                                               list = std::make_unique<ListLru>(n);
                                               const CpuStopwatch watch;
                                               for (uint32_t done = 0; done < victims; done += 64)
                                                 list->evict(64);
                                               return watch.ns() / victims;
                                             }}});
    rows.push_back(Row{"reclaim: a quarter of the pages, 64 a call, " + size_name(n),
                       "ns/victim",
                       at_most(120),
                       evict[0],
                       {Peer{"list and map under a mutex, no tree, no index", evict[1]}},
                       "scans, sorting, the index and the parents included"});
  }
  return rows;
}

std::vector<Row> touch(const Context &context) {
  const uint32_t n = 128u << 10;
  constexpr uint32_t kHot = 16, kTimes = 1u << 16;
  Random random(context.seed);
  Cache cache(n);
  cache.fill(random);
  ListLru list(n);
  const auto m = interleave(
      context, {{"quire",
                 [&] {
                   const Stopwatch watch;
                   for (uint32_t i = 0; i < kTimes; ++i) {
                     cache.pages.raise_stamp(i % kHot, static_cast<uint32_t>(cache.clock.now()));
                   }
                   clobber_memory();
                   return watch.ns() / kTimes;
                 }},
                {"moving",
                 [&] {
                   // The clock moves each round of the pages: every touch writes.
                   const Stopwatch watch;
                   for (uint32_t i = 0; i < kTimes; ++i) {
                     if (i % kHot == 0) cache.clock.advance();
                     cache.pages.raise_stamp(i % kHot, static_cast<uint32_t>(cache.clock.now()));
                   }
                   return watch.ns() / kTimes;
                 }},
                {"guard",
                 [&] {
                   const Stopwatch watch;
                   for (uint32_t i = 0; i < kTimes; ++i) {
                     const Guard<> guard(cache.clock);
                     do_not_optimize(guard.held());
                   }
                   return watch.ns() / kTimes;
                 }},
                {"list", [&] {
                   const Stopwatch watch;
                   for (uint32_t i = 0; i < kTimes; ++i) list.touch(i % kHot);
                   return watch.ns() / kTimes;
                 }}});
  return {Row{"touch, 16 hot pages, within an epoch",
              "ns",
              at_most(5),
              m[0],
              {Peer{"list-LRU with a mutex", m[3]}},
              ""},
          Row{"touch, 16 hot pages, a new epoch every 16",
              "ns",
              at_most(5),
              m[1],
              {Peer{"list-LRU with a mutex", m[3]}},
              ""},
          Row{"guard, enter and leave", "ns", at_most(3), m[2], {}, ""}};
}

QUIRE_BENCHMARK("reclaim/scan-and-evict", "age scan, victims in order (processor time)", reclaim);
QUIRE_BENCHMARK("reclaim/touch", "touch a page, hold a guard", touch);

}  // namespace
}  // namespace quire::bench
