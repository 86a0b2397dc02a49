// Codebook: the sixteen values of 4-bit codes, and what encoding derives from them.
//
// NF4's values are those of QLoRA (arXiv 2305.14314, appendix E), as bitsandbytes has them. A cache
// may set another table, ascending within [-1, 1].
//
// Code of z: the number of midpoints that z is above (`z > midpoint`: a tie goes to the lower
// code). The bucket method gives the same with one table read and one compare: with z clamped to
// [-1, 1],
//     bucket(z) = bits(fma(z, 15, 1.5 * 2^23 + 16)) mod 32
// is monotone in z and 1 <= bucket <= 31. Where no two midpoints share a bucket,
//     code(z) = base[bucket] + (z > threshold[bucket])
// with base the number of midpoints in lower buckets and threshold the bucket's own midpoint, or
// one that nothing exceeds. Proof: midpoint(i) in a lower bucket => z > midpoint(i), by monotony;
// in a higher one => z < midpoint(i). `bucketed` tells whether that holds; if not, kernels compare
// with all midpoints.
//
// Invariants: values and midpoints strictly ascend; values[zero_code] >= 0.
// Thread class: immutable once made. Cost: 320 bytes.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/numbers.h"

namespace quire::kernels {

inline constexpr float kNf4Values[16] = {-1.0f,
                                         -0.6961928009986877f,
                                         -0.5250730514526367f,
                                         -0.39491748809814453f,
                                         -0.28444138169288635f,
                                         -0.18477343022823334f,
                                         -0.09105003625154495f,
                                         0.0f,
                                         0.07958029955625534f,
                                         0.16093020141124725f,
                                         0.24611230194568634f,
                                         0.33791524171829224f,
                                         0.44070982933044434f,
                                         0.5626170039176941f,
                                         0.7229568362236023f,
                                         1.0f};

// The midpoint of two floats can need one bit more than a float has: it is rounded to nearest, ties
// to even. bitsandbytes 0.50.2 does the same on CPUs.
inline constexpr float kBucketOffset = 12582928.0f;  // 1.5 * 2^23 + 16
inline constexpr float kBucketsAUnit = 15.0f;

struct Codebook {
  alignas(64) float values[16];
  float midpoints[16];  // fifteen, and one that nothing exceeds
  float threshold[32];
  uint32_t base[32];
  uint32_t bucketed;
  uint32_t zero_code;  // of z = 0, and so of NaN and of all-zero blocks
};

inline uint32_t bucket_of(float z) {
  return float_bits(std::fma(z, kBucketsAUnit, kBucketOffset)) & 31u;
}

inline uint32_t code_by_midpoints(const Codebook &book, float z) {
  uint32_t code = 0;
  for (uint32_t i = 0; i < 15; ++i) code += z > book.midpoints[i] ? 1u : 0u;
  return code;
}

inline uint32_t code_by_bucket(const Codebook &book, float z) {
  const float clamped = z < -1.0f ? -1.0f : (z > 1.0f ? 1.0f : z);
  const uint32_t bucket = bucket_of(clamped);
  return book.base[bucket] + (clamped > book.threshold[bucket] ? 1u : 0u);
}

// False, and *book undefined, for values that do not ascend strictly within [-1, 1] or whose entry
// nearest 0 is negative (an all-zero block could then not decode to +0).
inline bool make_codebook(const float *values, Codebook *book) {
  for (uint32_t i = 0; i < 16; ++i) {
    if (!(values[i] >= -1.0f && values[i] <= 1.0f)) return false;
    if (i > 0 && !(values[i] > values[i - 1])) return false;
    book->values[i] = values[i];
  }
  for (uint32_t i = 0; i < 15; ++i) {
    const double middle =
        0.5 * (static_cast<double>(values[i]) + static_cast<double>(values[i + 1]));
    book->midpoints[i] = static_cast<float>(middle);
    if (i > 0 && !(book->midpoints[i] > book->midpoints[i - 1])) return false;
  }
  book->midpoints[15] = 2.0f;
  book->bucketed = 1;
  for (uint32_t b = 0; b < 32; ++b) {
    book->threshold[b] = 2.0f;
    book->base[b] = 0;
  }
  for (uint32_t i = 0; i < 15; ++i) {
    const uint32_t bucket = bucket_of(book->midpoints[i]);
    if (book->threshold[bucket] != 2.0f) book->bucketed = 0;
    book->threshold[bucket] = book->midpoints[i];
    for (uint32_t b = bucket + 1; b < 32; ++b) ++book->base[b];
  }
  book->zero_code = code_by_midpoints(*book, 0.0f);
  return !std::signbit(book->values[book->zero_code]);
}

}  // namespace quire::kernels
