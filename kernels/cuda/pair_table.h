// PairTable: both signs of a block's scale tried with one search per value.
//
// Encoding a block under scale s and under -s needs, for every z = x / s, the codes of z and of -z
// and their errors. Both change only at the midpoints m and at the mirrored midpoints -m: thirty
// thresholds, thirty-one intervals of z. For interval K
//     plus[K]  = values[code(z)]          e = fma(-plus[K],  s, x)   under  s
//     minus[K] = -values[code(-z)]        e = fma(-minus[K], s, x)   under -s (both signs cancel)
// For NF4, and for any table whose midpoints and mirrored midpoints take turns, code(z) = K / 2 and
// code(-z) = (30 - K) / 2, so that packed interval numbers become packed codes without a lookup.
//
// Finding K: bucket(z) = nearest integer to z * kBuckets, a fused multiply-add and a few bits, with
// at most one threshold a bucket: K = base[bucket] + (z > threshold[bucket]). The kernel multiplies
// x with RN(kBuckets / s) instead, which may round to the neighbouring bucket beside a border; no
// threshold lies within kMargin of one, so both buckets give the same K. A mirrored midpoint is
// crossed at z >= -m, because a tie of -z goes down: its threshold is the float before -m.
//
// Invariants: base ascends from 0 to 30; |z| < kReach stays within the table.
// Thread class: immutable. Cost: a few microseconds to make; 1.3 KB.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/codebook.h"

namespace quire::kernels::cuda {

inline constexpr uint32_t kPairIntervals = 31;
inline constexpr uint32_t kPairEntries = 96;
inline constexpr float kPairBuckets = 35.5f;  // a unit of z; found by trying: the widest margin
inline constexpr float kPairMargin = 0.01f;   // of a bucket
// The smallest factor of a search, rounded down to e4m3, makes z 1.27 at most; 47 buckets are 1.32.
inline constexpr float kPairReach = 1.32f;
inline constexpr uint32_t kPairZero = 48;  // the entry of z = 0
// 1.5 * 2^23: the bits of a sum with it count from kPairBits.
inline constexpr float kPairOffset = 12582912.0f + 48.0f;
inline constexpr uint32_t kPairBits = 0x4b400000u;

struct PairTable {
  float threshold[kPairEntries];
  uint32_t base[kPairEntries];
  float plus[32];  // kPairIntervals, and one unused
  float minus[32];
};

// False where the codebook's thresholds do not take turns or two meet in a bucket.
inline bool make_pair_table(const Codebook &book, PairTable *table) {
  float thresholds[30];
  for (uint32_t i = 0; i < 15; ++i) {  // -m descends while m ascends: merge from both ends
    const float mirrored = std::nextafter(-book.midpoints[14 - i], -2.0f);
    const float direct = book.midpoints[i];
    thresholds[2 * i] = mirrored;
    thresholds[2 * i + 1] = direct;
  }
  // code(z) = K / 2 wants the mirrored one of each two first: K is odd between it and the direct.
  for (uint32_t i = 1; i < 30; ++i) {
    if (!(thresholds[i] > thresholds[i - 1])) return false;
  }
  for (uint32_t e = 0; e < kPairEntries; ++e) {
    table->threshold[e] = 4.0f;
    table->base[e] = 0;
  }
  for (const float t : thresholds) {
    const float at = t * kPairBuckets, nearest = std::nearbyint(at);
    if (std::fabs(at - nearest) > 0.5f - kPairMargin) return false;
    const auto entry = static_cast<uint32_t>(static_cast<int32_t>(nearest) + 48);
    if (entry >= kPairEntries || table->threshold[entry] != 4.0f) return false;
    table->threshold[entry] = t;
    for (uint32_t later = entry + 1; later < kPairEntries; ++later) ++table->base[later];
  }
  for (uint32_t k = 0; k < kPairIntervals; ++k) {
    table->plus[k] = book.values[k / 2];
    table->minus[k] = -book.values[(30 - k) / 2];
  }
  table->plus[31] = table->minus[31] = 0;
  return true;
}

}  // namespace quire::kernels::cuda
