// Latencies of calls that are due at fixed times, and what becomes of them under fire.
//
// Each caller has a schedule: one call every `period_ns`, whatever the last one took. A call's
// latency runs from the time at which it was due to its end, so a call that could not begin because
// the one before it was late counts its waiting, too. (Measured from each call's own begin, a stall
// of 10 ms would be one slow call; it is 500 of them at 20 us: coordinated omission.) Until a call
// is due the caller spins: waking up would be part of what is measured.
//
// A histogram is log-linear: 32 buckets for each power of two, so a quantile is at most 3 % above
// the true one. Callers have one each; they are added up when all have ended.
//
// Quiet segments and segments under fire take turns in one process, the first round of each is
// dropped. Invariant: count() is the number of calls that were due in the counted segments.
// Thread class: a plain object; run_callers starts and joins threads of its own.
#ifndef QUIRE_BENCH_LATENCY_H
#define QUIRE_BENCH_LATENCY_H

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "bench.h"

namespace quire::bench {

class LatencyHistogram {
 public:
  void add(uint64_t ns) {
    ++count_[bucket(ns)];
    ++total_;
    if (ns > most_) most_ = ns;
  }
  void merge(const LatencyHistogram &from) {
    for (size_t i = 0; i < count_.size(); ++i) count_[i] += from.count_[i];
    total_ += from.total_;
    if (from.most_ > most_) most_ = from.most_;
  }
  uint64_t count() const { return total_; }
  uint64_t most() const { return most_; }

  // The upper end of the bucket in which the share q of all calls is reached, in ns.
  double quantile(double q) const {
    const double wanted = q * static_cast<double>(total_);
    uint64_t seen = 0;
    for (uint32_t i = 0; i < count_.size(); ++i) {
      seen += count_[i];
      if (seen != 0 && static_cast<double>(seen) >= wanted) return static_cast<double>(upper(i));
    }
    return static_cast<double>(most_);
  }

 private:
  static constexpr uint32_t kLinear = 32;  // buckets a power of two
  static constexpr uint32_t kShift = 5;
  static constexpr uint32_t kBuckets = (64 - kShift + 1) * kLinear;

  static uint32_t bucket(uint64_t ns) {
    if (ns < kLinear) return static_cast<uint32_t>(ns);
    const auto e = static_cast<uint32_t>(std::bit_width(ns)) - kShift - 1;
    return (e + 1) * kLinear + (static_cast<uint32_t>(ns >> e) & (kLinear - 1));
  }
  static uint64_t upper(uint32_t bucket) {
    if (bucket < kLinear) return bucket;
    const uint32_t e = bucket / kLinear - 1;
    return ((uint64_t{kLinear} + bucket % kLinear + 1) << e) - 1;
  }

  std::array<uint64_t, kBuckets> count_{};
  uint64_t total_ = 0;
  uint64_t most_ = 0;
};

struct Schedule {
  unsigned callers = 1;
  uint64_t period_ns = 20000;
  uint64_t segment_ns = 250000000;
};

// One segment: call(caller, i) when it is due, on each caller's thread.
inline LatencyHistogram run_callers(const Schedule &schedule,
                                    const std::function<void(unsigned, uint64_t)> &call) {
  using Clock = std::chrono::steady_clock;
  std::vector<LatencyHistogram> of_caller(schedule.callers);
  const auto body = [&](unsigned caller) {
    // Callers are due one after the other within a period.
    const auto start =
        Clock::now() + std::chrono::nanoseconds(schedule.period_ns * caller / schedule.callers);
    const uint64_t calls = schedule.segment_ns / schedule.period_ns;
    for (uint64_t i = 0; i < calls; ++i) {
      const auto due = start + std::chrono::nanoseconds(i * schedule.period_ns);
      while (Clock::now() < due) {
      }
      call(caller, i);
      const auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - due);
      of_caller[caller].add(static_cast<uint64_t>(took.count()));
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < schedule.callers; ++t) threads.emplace_back(body, t);
  for (std::thread &thread : threads) thread.join();
  LatencyHistogram all;
  for (const LatencyHistogram &one : of_caller) all.merge(one);
  return all;
}

}  // namespace quire::bench

#endif  // QUIRE_BENCH_LATENCY_H
