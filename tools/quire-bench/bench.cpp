// Rounds, threads, medians, and the list of benchmarks.
#include "bench.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "cache_misses.h"
#include "placement.h"

namespace quire::bench {
namespace {

// Registration happens from other files' initialisers, in no order: hence not a plain global.
std::vector<Benchmark> &registry() {
  static std::vector<Benchmark> all;
  return all;
}

std::vector<unsigned> &order_of_cpus() {
  static std::vector<unsigned> order;
  return order;
}

std::atomic<uint64_t> &operations() {
  static std::atomic<uint64_t> done{0};
  return done;
}

// Made by the main thread before it starts others, whose misses it then counts too.
const CacheMisses &cache_misses() {
  static const CacheMisses counter;
  return counter;
}

Measure summary(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  const double median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  return Measure(median, values[n / 4], values[n - 1 - n / 4]);
}

}  // namespace

double advantage(const Row &row, const Peer &peer) {
  const double ours = row.value.median, theirs = peer.value.median;
  if (row.goal.lower_is_better) return ours > 0 ? theirs / ours : 0;
  return theirs > 0 ? ours / theirs : 0;
}

bool met(const Row &row) {
  const double value = row.value.median;
  if (row.goal.sense == Sense::kAtMost && !(value <= row.goal.bound)) return false;
  if (row.goal.sense == Sense::kAtLeast && !(value >= row.goal.bound)) return false;
  return std::all_of(row.peers.begin(), row.peers.end(), [&](const Peer &peer) {
    return !peer.installed || peer.want == 0 || advantage(row, peer) >= peer.want;
  });
}

std::vector<Measure> interleave(const Context &context, const std::vector<Contender> &contenders) {
  const size_t n = contenders.size();
  std::vector<std::vector<double>> values(n), misses(n);
  for (unsigned round = 0; round <= context.rounds; ++round)
    for (size_t i = 0; i < n; ++i) {
      const size_t turn = (i + round) % n;
      operations().store(0);
      double before = 0, after = 0;
      const bool counted = cache_misses().read(&before);
      const double value = contenders[turn].round();
      if (round == 0) continue;
      values[turn].push_back(value);
      const auto done = static_cast<double>(operations().load());
      if (counted && done > 0 && cache_misses().read(&after))
        misses[turn].push_back((after - before) / done);
    }
  std::vector<Measure> measures;
  for (size_t i = 0; i < n; ++i) {
    measures.push_back(summary(std::move(values[i])));
    if (!misses[i].empty()) measures.back().misses = summary(std::move(misses[i])).median;
  }
  return measures;
}

// relaxed: a sum that is read after the threads that add to it were joined.
void count_operations(uint64_t n) {
  operations().fetch_add(n, std::memory_order_relaxed);
}

std::string why_no_cache_misses() {
  return cache_misses().available() ? "" : cache_misses().why_not();
}

bool register_benchmark(const Benchmark &benchmark) {
  auto &all = registry();
  const auto at = std::find_if(all.begin(), all.end(), [&](const Benchmark &b) {
    return std::strcmp(benchmark.name, b.name) < 0;
  });
  all.insert(at, benchmark);
  return true;
}

const std::vector<Benchmark> &benchmarks() {
  return registry();
}

void place_threads(std::vector<unsigned> order) {
  order_of_cpus() = std::move(order);
}

double run_threads(unsigned n, const std::function<void(unsigned)> &fn) {
  if (n == 1) {
    const Pinned here(order_of_cpus(), 0);
    const CpuStopwatch watch;
    fn(0);
    return watch.ns();
  }
  std::atomic<unsigned> ready{0};
  std::atomic<bool> go{false};
  std::mutex mutex;
  std::exception_ptr failure;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < n; ++t)
    threads.emplace_back([&, t] {
      const Pinned here(order_of_cpus(), t);
      ready.fetch_add(1);
      while (!go.load()) std::this_thread::yield();
      try {
        fn(t);
      } catch (...) {
        const std::lock_guard lock(mutex);
        failure = std::current_exception();
      }
    });
  while (ready.load() != n) std::this_thread::yield();
  const Stopwatch watch;
  go.store(true);
  for (std::thread &thread : threads) thread.join();
  const double ns = watch.ns();
  if (failure) std::rethrow_exception(failure);
  return ns;
}

}  // namespace quire::bench
