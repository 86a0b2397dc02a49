#include "runtime/stats.h"

#include <cmath>
#include <new>

namespace quire {

void Stats::format() noexcept {
  new (memory_) Memory;
  for (Shard &shard : memory_->shard) {
    for (Word &word : shard.counter) word.store(0, std::memory_order_relaxed);
  }
  for (auto &rows : memory_->row) {
    for (Row &row : rows) {
      row.sum.store(0, std::memory_order_relaxed);
      for (Word &word : row.bucket) word.store(0, std::memory_order_relaxed);
    }
  }
}

uint64_t Stats::total(Counter counter) const noexcept {
  uint64_t total = 0;
  for (const Shard &shard : memory_->shard) {
    total += shard.counter[static_cast<uint32_t>(counter)].load(std::memory_order_relaxed);
  }
  return total;
}

void Stats::counts(Histogram histogram, Buckets *out) const noexcept {
  out->fill(0);
  for (const Row &row : memory_->row[static_cast<uint32_t>(histogram)]) {
    for (uint32_t b = 0; b < kBuckets; ++b) {
      (*out)[b] += row.bucket[b].load(std::memory_order_relaxed);
    }
  }
}

uint64_t Stats::count(Histogram histogram) const noexcept {
  Buckets buckets;
  counts(histogram, &buckets);
  uint64_t n = 0;
  for (const uint64_t c : buckets) n += c;
  return n;
}

uint64_t Stats::sum(Histogram histogram) const noexcept {
  uint64_t sum = 0;
  for (const Row &row : memory_->row[static_cast<uint32_t>(histogram)]) {
    sum += row.sum.load(std::memory_order_relaxed);
  }
  return sum;
}

uint64_t Stats::quantile(Histogram histogram, double q) const noexcept {
  Buckets buckets;
  counts(histogram, &buckets);
  return quantile_of(buckets, q);
}

uint64_t Stats::quantile_of(const Buckets &counts, double q) noexcept {
  uint64_t n = 0;
  for (const uint64_t c : counts) n += c;
  if (n == 0) return 0;
  // The rank of the value asked for, 1 .. n.
  const double at = std::ceil(q * static_cast<double>(n));
  uint64_t rank = at <= 1 ? 1 : static_cast<uint64_t>(at);
  if (rank > n) rank = n;
  uint64_t seen = 0;
  for (uint32_t b = 0; b < kBuckets; ++b) {
    seen += counts[b];
    if (seen < rank) continue;
    // The middle of the bucket: the error is at most half of its width.
    const uint64_t low = lowest(b), width = lowest(b + 1) - low;
    return low + width / 2;
  }
  return lowest(kBuckets - 1);
}

const char *counter_name(Counter counter) noexcept {
  static constexpr const char *kNames[] = {
#define QUIRE_COUNTER_NAME(name, help) #name,
      QUIRE_STATS_COUNTERS(QUIRE_COUNTER_NAME)
#undef QUIRE_COUNTER_NAME
  };
  return kNames[static_cast<uint32_t>(counter)];
}

const char *histogram_name(Histogram histogram) noexcept {
  static constexpr const char *kNames[] = {
#define QUIRE_HISTOGRAM_NAME(name, help) #name,
      QUIRE_HISTOGRAMS(QUIRE_HISTOGRAM_NAME)
#undef QUIRE_HISTOGRAM_NAME
  };
  return kNames[static_cast<uint32_t>(histogram)];
}

}  // namespace quire
