// Rows "pool/...": taking and giving back frames in batches of 32, as a decode step does.
//
// Each thread holds eight batches and always gives back the oldest before it takes a new one, so
// that the numbers it takes are not simply those that it has just given. Every contender does this
// with 128K numbers; those without batches take and give one by one, which is what they offer.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include <tbb/concurrent_queue.h>

#include "allocators/frame_pool.h"
#include "bench.h"

#ifdef QUIRE_BENCH_HAVE_BOOST
#include <boost/lockfree/queue.hpp>
#include <boost/lockfree/stack.hpp>
#endif

namespace quire::bench {
namespace {

constexpr uint32_t kBatch = 32;
constexpr uint32_t kHeld = 8;
constexpr uint32_t kFrames = 128 * 1024;

class Ours {
 public:
  Ours() : memory_(std::aligned_alloc(64, FramePool<>::bytes(kFrames)), std::free) {
    pool_ = FramePool<>(memory_.get(), kFrames);
    pool_.format();
  }
  bool take(uint32_t *out) { return pool_.alloc(kBatch, out); }
  void give(const uint32_t *ids) { pool_.free(ids, kBatch); }

 private:
  std::unique_ptr<void, void (*)(void *)> memory_;
  FramePool<> pool_;
};

class MutexVector {
 public:
  MutexVector() {
    for (uint32_t i = 0; i < kFrames; ++i) free_.push_back(i);
  }
  bool take(uint32_t *out) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.size() < kBatch) return false;
    for (uint32_t i = 0; i < kBatch; ++i) out[i] = free_[free_.size() - 1 - i];
    free_.resize(free_.size() - kBatch);
    return true;
  }
  void give(const uint32_t *ids) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.insert(free_.end(), ids, ids + kBatch);
  }

 private:
  std::mutex mutex_;
  std::vector<uint32_t> free_;
};

// The textbook lock-free free list: a head with a tag against ABA, links by number. A batch is
// given with one exchange; taking is one by one, since the links below the head may change.
class Treiber {
 public:
  Treiber() : next_(kFrames) {
    for (uint32_t i = 0; i < kFrames; ++i) {
      next_[i].store(i + 1 < kFrames ? i + 1 : kNone, std::memory_order_relaxed);
    }
    head_.store(0);
  }
  bool take(uint32_t *out) {
    for (uint32_t i = 0; i < kBatch; ++i) {
      uint64_t head = head_.load(std::memory_order_acquire);
      for (;;) {
        const auto id = static_cast<uint32_t>(head);
        if (id == kNone) return false;
        const uint32_t next = next_[id].load(std::memory_order_relaxed);
        if (head_.compare_exchange_weak(head, tagged(head, next), std::memory_order_acquire)) {
          out[i] = id;
          break;
        }
      }
    }
    return true;
  }
  void give(const uint32_t *ids) {
    for (uint32_t i = 0; i + 1 < kBatch; ++i) {
      next_[ids[i]].store(ids[i + 1], std::memory_order_relaxed);
    }
    uint64_t head = head_.load(std::memory_order_relaxed);
    do {
      next_[ids[kBatch - 1]].store(static_cast<uint32_t>(head), std::memory_order_relaxed);
    } while (!head_.compare_exchange_weak(head, tagged(head, ids[0]), std::memory_order_release));
  }

 private:
  static uint64_t tagged(uint64_t old, uint32_t id) { return ((old >> 32) + 1) << 32 | id; }
  alignas(64) std::atomic<uint64_t> head_;
  std::vector<std::atomic<uint32_t>> next_;
};

// One by one, for what has try_pop and push.
template <class Queue>
class OneByOne {
 public:
  OneByOne() {
    for (uint32_t i = 0; i < kFrames; ++i) put(i);
  }
  bool take(uint32_t *out) {
    for (uint32_t i = 0; i < kBatch; ++i) {
      if (!get(out[i])) return false;
    }
    return true;
  }
  void give(const uint32_t *ids) {
    for (uint32_t i = 0; i < kBatch; ++i) put(ids[i]);
  }

 private:
  bool get(uint32_t &id) {
    if constexpr (requires { queue_.try_pop(id); }) {
      return queue_.try_pop(id);
    } else {
      return queue_.pop(id);
    }
  }
  void put(uint32_t id) {
    if constexpr (requires { queue_.bounded_push(id); }) {
      queue_.bounded_push(id);
    } else {
      queue_.push(id);
    }
  }
  Queue queue_;
};

// ns per frame taken and given back, on n threads: the time of one thread over its frames.
template <class Pool>
double round(Pool &pool, unsigned n, uint32_t batches) {
  const double ns = run_threads(n, [&](unsigned) {
    uint32_t ids[kHeld][kBatch];
    for (auto &batch : ids) pool.take(batch);
    for (uint32_t i = 0; i < batches; ++i) {
      pool.give(ids[i % kHeld]);
      if (!pool.take(ids[i % kHeld])) std::abort();
    }
    for (auto &batch : ids) pool.give(batch);
    do_not_optimize(ids[0][0]);
  });
  count_operations(uint64_t{n} * batches * kBatch);
  return ns / (static_cast<double>(batches) * kBatch);
}

#ifdef QUIRE_BENCH_HAVE_BOOST
using BoostStack = boost::lockfree::stack<uint32_t, boost::lockfree::capacity<60000>>;
using BoostQueue = boost::lockfree::queue<uint32_t, boost::lockfree::capacity<60000>>;
#endif

Row row(const Context &context, unsigned threads) {
  Ours ours;
  MutexVector vector;
  Treiber treiber;
  OneByOne<tbb::concurrent_queue<uint32_t>> queue;
  // Some peers get slower with each thread: as many batches in all as two threads do.
  const uint32_t batches = (context.quick ? 400 : 8000) / std::max(2u, threads);
  std::vector<Contender> contenders = {
      {"quire", [&] { return round(ours, threads, batches); }},
      {"mutex + vector", [&] { return round(vector, threads, batches); }},
      {"Treiber stack", [&] { return round(treiber, threads, batches); }},
      {"tbb::concurrent_queue", [&] { return round(queue, threads, batches); }},
  };
#ifdef QUIRE_BENCH_HAVE_BOOST
  const auto boost_stack = std::make_unique<OneByOne<BoostStack>>();
  const auto boost_queue = std::make_unique<OneByOne<BoostQueue>>();
  contenders.push_back(
      {"boost::lockfree::stack", [&] { return round(*boost_stack, threads, batches); }});
  contenders.push_back(
      {"boost::lockfree::queue", [&] { return round(*boost_queue, threads, batches); }});
#endif
  const std::vector<Measure> measures = interleave(context, contenders);
  std::vector<Peer> peers;
  for (size_t i = 1; i < contenders.size(); ++i) {
    peers.push_back(Peer{contenders[i].name, measures[i]});
  }
#ifndef QUIRE_BENCH_HAVE_BOOST
  peers.push_back(not_installed("boost::lockfree::stack"));
  peers.push_back(not_installed("boost::lockfree::queue"));
#endif
  Row row;
  row.name = "alloc + free, batches of 32, " + std::to_string(threads) +
             (threads == 1 ? " thread" : " threads");
  row.unit = "ns/frame";
  row.goal = threads == 1 ? at_most(2) : threads == 2 ? at_most(3) : report_lower();
  row.value = measures[0];
  row.peers = std::move(peers);
  row.note = "boost's fixed-size containers hold 60,000 numbers at most, the others 128K";
  row.pages = kFrames;
  row.threads = threads;
  row.series = "a thread's ns a frame";
  return row;
}

std::vector<Row> alloc_free(const Context &context) {
  std::vector<Row> rows;
  for (const unsigned threads : context.thread_counts) rows.push_back(row(context, threads));
  return rows;
}

QUIRE_BENCHMARK("pool/alloc-free", "frame pool alone: batches, all or nothing", alloc_free);

}  // namespace
}  // namespace quire::bench
