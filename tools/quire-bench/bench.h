// The frame that every row of quire-bench is written in.
//
// A *benchmark* is a named function that measures one thing together with its peers and returns the
// rows to print; it registers itself with QUIRE_BENCHMARK at namespace scope, one `*_rows.cpp` per
// subject, and nothing else has to know of it:
//
//   static std::vector<Row> alloc_free(const Context &context) {
//     Pool ours(n); MutexVector peer(n);
//     const auto m = interleave(context, {{"quire", [&] { return ours_round(); }},
//                                         {"mutex + vector", [&] { return peer_round(); }}});
//     return {Row{"frame pool alloc + free, batches of 32", "ns/frame", at_most(2.0), m[0],
//                 {Peer{"mutex + vector", m[1]}}, ""}};
//   }
//   QUIRE_BENCHMARK("pool/alloc-free", "frame pool alone, one thread", alloc_free);
//
// How it measures: contenders take turns within one process, in an order that rotates each round,
// so that a busy neighbour hits all of them alike; the figure is the median over rounds, with the
// quartiles kept; the first round warms up and is dropped. What counts is the ratio to the peers of
// the same row. A row without a figure for a peer says so (not_installed), and a row that misses
// its goal is printed as falling short: nothing here hides either. Where the processor counts cache
// misses (cache_misses.h) and a round says how much it did (count_operations), each contender's
// misses an operation are kept beside its figure.
//
// Invariants: interleave(c, k contenders) returns k measures in the same order;
//   low <= median <= high for each of them.
// Thread class: registration happens before main; a benchmark runs on the main thread and may start
// threads of its own, which it joins before it returns.
#ifndef QUIRE_BENCH_BENCH_H
#define QUIRE_BENCH_BENCH_H

#include <time.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace quire::bench {

enum class Sense : uint8_t { kNone, kAtMost, kAtLeast };

// What a figure should be. kNone: reported only. The sense also says whether less or more is
// better; for reported figures `lower_is_better` decides.
struct Goal {
  Sense sense = Sense::kNone;
  double bound = 0;
  bool lower_is_better = true;
};

inline Goal at_most(double bound) {
  return Goal{Sense::kAtMost, bound, true};
}
inline Goal at_least(double bound) {
  return Goal{Sense::kAtLeast, bound, false};
}
inline Goal report_lower() {
  return Goal{Sense::kNone, 0, true};
}
inline Goal report_higher() {
  return Goal{Sense::kNone, 0, false};
}

// Median over rounds, with the quartiles. Converts from a plain figure, for what has no rounds.
struct Measure {
  double median = 0, low = 0, high = 0;
  double misses = -1;  // of the last-level cache, an operation, median; negative: not counted
  Measure() = default;
  Measure(double value) : median(value), low(value), high(value) {}  // NOLINT: conversion is meant
  Measure(double m, double l, double h) : median(m), low(l), high(h) {}
};

// Something that does the same work. want: we should be at least that many times better (0: no such
// goal). installed false: not built in, there is no figure.
struct Peer {
  std::string name;
  Measure value;
  double want = 0;
  bool installed = true;
};

inline Peer not_installed(std::string name, double want = 0) {
  return Peer{std::move(name), Measure(), want, false};
}

struct Row {
  std::string name;  // the work, with its size: "acquire + gather + release, 128K pages"
  std::string unit;  // "ns/page", "G values/s"
  Goal goal;
  Measure value;
  std::vector<Peer> peers;
  std::string note;  // what a reader has to know to believe the figure
  // Where the row lies in a sweep, for programs and plots; 0: in none.
  uint32_t pages = 0;
  unsigned threads = 0;
  // Rows of one series of a benchmark are drawn as curves; empty: bars only.
  std::string series = {};
  double quantile = 0;  // of a distribution of latencies
};

// How many times better we are than the peer: above 1 we win, whichever way the figure counts.
double advantage(const Row &row, const Peer &peer);

// The bound of the goal, and every peer's wanted ratio. A row with neither is met.
bool met(const Row &row);

// What a run was asked for. quick: fewer rounds and smaller sizes, to see that everything works;
// its figures are not for quoting.
struct Context {
  bool quick = false;
  unsigned rounds = 9;                           // counted ones; the warm-up is one more
  unsigned threads = 2;                          // the most that a row may use
  std::vector<unsigned> thread_counts = {1, 2};  // rising, the last is `threads`
  bool large = false;                            // 16M pages too
  uint64_t seed = 1;
  std::vector<std::string> traces;  // JSON lines, for the replay's rows
};

struct Contender {
  std::string name;
  std::function<double()> round;  // does one round and returns its figure, say ns per operation
};

std::vector<Measure> interleave(const Context &context, const std::vector<Contender> &contenders);

// By a contender, in its round: it has done n more of what its row counts. Any thread.
void count_operations(uint64_t n);

// Empty: cache misses are counted here. Else why not.
std::string why_no_cache_misses();

using BenchmarkFn = std::vector<Row> (*)(const Context &context);

struct Benchmark {
  const char *name;  // what --rows matches: "subject/work"
  const char *about;
  BenchmarkFn run;
};

// All that registered, ordered by name.
const std::vector<Benchmark> &benchmarks();
bool register_benchmark(const Benchmark &benchmark);

#define QUIRE_BENCH_JOIN2(a, b) a##b
#define QUIRE_BENCH_JOIN(a, b) QUIRE_BENCH_JOIN2(a, b)
#define QUIRE_BENCHMARK(name, about, fn)                                            \
  [[maybe_unused]] static const bool QUIRE_BENCH_JOIN(quire_benchmark_, __LINE__) = \
      ::quire::bench::register_benchmark({name, about, fn})

// The compiler may not drop the computation of value.
template <class T>
inline void do_not_optimize(T const &value) {
  asm volatile("" : : "r,m"(value) : "memory");
}

inline void clobber_memory() {
  asm volatile("" : : : "memory");
}

class Stopwatch {
 public:
  Stopwatch() : start_(std::chrono::steady_clock::now()) {}
  double ns() const {
    return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start_)
        .count();
  }

 private:
  std::chrono::steady_clock::time_point start_;
};

// Time that this thread spent on a processor. On an idle machine it equals the wall's; on a busy
// one it leaves out the waiting, though not what neighbours take of caches and memory bandwidth.
// For work of one thread that blocks nowhere, in rounds of 100 us and more (reading it is a system
// call).
class CpuStopwatch {
 public:
  CpuStopwatch() : start_(now()) {}
  double ns() const { return now() - start_; }

 private:
  static double now() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
  }
  double start_;
};

// Starts n threads, lets them go together, and returns the wall time in ns from then until the last
// one is done. n == 1 runs fn(0) on the caller's thread and returns its processor time. An
// exception of any is thrown again here. Threads run where place_threads() said.
double run_threads(unsigned n, const std::function<void(unsigned)> &fn);

// Once, before any row: thread t of run_threads runs on processor order[t]; empty: anywhere.
void place_threads(std::vector<unsigned> order);

// splitmix64: seeds, shuffles, and data that is not zeros.
struct Random {
  __extension__ using Wide = unsigned __int128;
  uint64_t state;
  explicit Random(uint64_t seed) : state(seed) {}
  uint64_t operator()() {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<Wide>((*this)()) * n) >> 64);
  }
};

}  // namespace quire::bench

#endif  // QUIRE_BENCH_BENCH_H
