// Stats: counters and histograms that any thread adds to and any process reads, stopping nobody.
//
// A counter is kShards words, each on its shard's own cache lines; a thread adds to the shard of
// its number, so that two cores do not pull one line to and fro. A histogram is as
// many rows of buckets, log-linear: values below 8 have a bucket each, above that every power of two is
// cut into 8, so a bucket is at most an eighth of its value wide, up to 2^40, in 304 words. That is
// 35 years of epochs of a millisecond; what is more stands in the last bucket.
//
//   bucket(v) = v                                 v < 8
//             = 8 * (e + 1) + ((v >> e) & 7)      v < 2^40, e = floor(log2 v) - 3
//
// Invariants (tests assert them)
//   total(c)            == the sum of what was added, once the adders are done
//   lowest(bucket(v))   <= v < lowest(bucket(v) + 1)
//   count(h)            == the sum of its buckets: there is no second figure that could disagree
//   a quantile is off by at most a sixteenth of its value, and not at all below 8
//
// Names come from QUIRE_STATS_COUNTERS in quire.h and QUIRE_HISTOGRAMS below. The struct, the JSON,
// the Prometheus text and the enums here are made of these lists, so none can lack what another
// has.
//
// Const members only load: they work on a mapping that is read-only. Every figure is exact by
// itself; figures read one after another are of no single instant.
//
// All operations are relaxed: a figure orders nothing, and nothing is decided by one.
//
// Thread class: any thread, any time; format: before sharing. Cost: add is one uncontended
// fetch_add, record is two; reading is kShards loads a counter.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "allocators/atomics.h"
#include "quire/quire.h"

namespace quire {

enum class Counter : uint32_t {
#define QUIRE_COUNTER_ENUM(name, help) name,
  QUIRE_STATS_COUNTERS(QUIRE_COUNTER_ENUM)
#undef QUIRE_COUNTER_ENUM
};

// X(name, help). Names end in the unit.
#define QUIRE_HISTOGRAMS(X)                                           \
  X(chain_hit_pages, "pages of the hit, by acquire")                  \
  X(publish_pages, "pages that became visible, by publish")           \
  X(reuse_gap_epochs, "since the last use of the last page of a hit") \
  X(eviction_age_epochs, "since the last use of a page that was evicted")

enum class Histogram : uint32_t {
#define QUIRE_HISTOGRAM_ENUM(name, help) name,
  QUIRE_HISTOGRAMS(QUIRE_HISTOGRAM_ENUM)
#undef QUIRE_HISTOGRAM_ENUM
};

#define QUIRE_STATS_ONE(name, help) +1
inline constexpr uint32_t kCounters = 0 QUIRE_STATS_COUNTERS(QUIRE_STATS_ONE);
inline constexpr uint32_t kGauges = 0 QUIRE_STATS_GAUGES(QUIRE_STATS_ONE);
inline constexpr uint32_t kHistograms = 0 QUIRE_HISTOGRAMS(QUIRE_STATS_ONE);
#undef QUIRE_STATS_ONE

class Stats {
 public:
  static constexpr size_t kAlignment = kCacheLine;
  static constexpr uint32_t kShards = 16;
  static constexpr uint64_t kMost = (uint64_t{1} << 40) - 1;  // values above it count as it
  static constexpr uint32_t kBuckets = 8 + 37 * 8;
  using Buckets = std::array<uint64_t, kBuckets>;

  static size_t bytes() noexcept { return sizeof(Memory); }

  Stats() = default;
  // A view: `memory` holds bytes() bytes at a multiple of kAlignment.
  explicit Stats(void *memory) noexcept : memory_(static_cast<Memory *>(memory)) {}

  // Everything to zero.
  void format() noexcept;

  void add(Counter counter, uint64_t n = 1) noexcept {
    memory_->shard[StdAtomics::thread_index() % kShards]
        .counter[static_cast<uint32_t>(counter)]
        .fetch_add(n, std::memory_order_relaxed);
  }
  uint64_t total(Counter counter) const noexcept;

  void record(Histogram histogram, uint64_t value) noexcept {
    Row &row = memory_->row[static_cast<uint32_t>(histogram)][StdAtomics::thread_index() % kShards];
    row.bucket[bucket(value)].fetch_add(1, std::memory_order_relaxed);
    row.sum.fetch_add(value, std::memory_order_relaxed);
  }
  void counts(Histogram histogram, Buckets *out) const noexcept;
  uint64_t count(Histogram histogram) const noexcept;
  uint64_t sum(Histogram histogram) const noexcept;
  // The value that a share q of all is at or below, 0 <= q <= 1; 0 where nothing was recorded.
  uint64_t quantile(Histogram histogram, double q) const noexcept;

  static constexpr uint32_t bucket(uint64_t value) noexcept {
    if (value < 8) return static_cast<uint32_t>(value);
    if (value > kMost) value = kMost;
    const auto e = static_cast<uint32_t>(std::bit_width(value)) - 4;
    return 8 * (e + 1) + static_cast<uint32_t>(value >> e & 7);
  }
  // The least value of a bucket, and of bucket kBuckets kMost + 1.
  static constexpr uint64_t lowest(uint32_t bucket) noexcept {
    if (bucket < 8) return bucket;
    if (bucket > kBuckets) bucket = kBuckets;
    return uint64_t{8 + bucket % 8} << (bucket / 8 - 1);
  }
  static uint64_t quantile_of(const Buckets &counts, double q) noexcept;

 private:
  using Word = std::atomic<uint64_t>;
  struct alignas(kCacheLine) Shard {
    Word counter[kCounters];
  };
  struct alignas(kCacheLine) Row {
    Word sum;
    Word bucket[kBuckets];
  };
  struct Memory {
    Shard shard[kShards];
    Row row[kHistograms][kShards];
  };

  Memory *memory_ = nullptr;
};

const char *counter_name(Counter counter) noexcept;
const char *histogram_name(Histogram histogram) noexcept;

}  // namespace quire
