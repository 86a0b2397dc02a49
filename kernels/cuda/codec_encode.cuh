// Encoding a block (codec_block.cuh) into codes and a scale, and both into a page.
//
// Encoding with signed scales goes by PairTable (pair_table.h), kept in shared memory once for each
// of sixteen lanes, so that no two lanes of a half warp meet in a bank. Per value and magnitude: a
// product, a fused index, two 8-byte shared loads, a compare, an addition, then two errors, squares
// and sums for the two signs. What the table does not reach (values that are not finite, scales
// that were cut off far below the block's largest value, codebooks that do not pair) goes by
// encode_slow, which is the scalar target's code again.
//
// Thread class: device code. Cost: 14 instructions and 4 shared wavefronts a value with one
// magnitude, 55 searched.
#pragma once

#include "kernels/cuda/codec_block.cuh"

namespace quire::kernels::cuda {

inline constexpr uint32_t kCopies = 16;          // of each table in shared memory
inline constexpr uint32_t kIntervalBytes = 256;  // so that byte 1 of an entry's offset is K

struct alignas(8) PairEntry {
  float threshold;
  uint32_t offset;  // where the interval's values for this copy lie
};

// A CTA's shared memory need not begin at a multiple of more than 256: interval K's values lie at
// K * 256 behind `values`, and byte 1 of their offset is K plus that of `values`.
struct alignas(kIntervalBytes) PairShared {
  float2 values[32][2 * kCopies];  // {plus, minus}; the second half of each row is not used
  PairEntry entries[kPairEntries][kCopies];
};

// A lane's way into the tables: on a GPU 32-bit shared addresses, so that a lookup is one addition
// and one load.
struct PairView {
  const PairShared *shared;
  uint32_t entries;  // what has to be added to (bits of a sum with kPairOffset) * 128
  uint32_t first;    // interval 0 as it is packed, four times
};

// A thread's share of filling the tables: entries and, behind them, intervals. Read first, so that
// this waits together with what else a kernel begins with.
struct PairPart {
  static constexpr uint32_t kItems = kPairEntries + 32, kShare = 2;  // CTAs have 64 threads or more

  uint32_t low[kShare], high[kShare];

  QUIRE_DEVICE explicit PairPart(const PairTable &table) {
    QUIRE_UNROLL
    for (uint32_t s = 0; s < kShare; ++s) {
      const uint32_t i = threadIdx.x + s * blockDim.x, k = i - kPairEntries;
      low[s] = high[s] = 0;
      if (i < kPairEntries) {
        low[s] = bits(table.threshold[i]), high[s] = table.base[i];
      } else if (i < kItems) {
        low[s] = bits(table.plus[k]), high[s] = bits(table.minus[k]);
      }
    }
  }

  // All copies, beginning with another one in each lane so that the writes do not meet in a bank.
  QUIRE_DEVICE void fill(PairShared *shared) const {
    const uint32_t values = shared_address(shared->values);
    QUIRE_UNROLL
    for (uint32_t s = 0; s < kShare; ++s) {
      const uint32_t i = threadIdx.x + s * blockDim.x;
      if (i >= kItems) break;
      const bool entry = i < kPairEntries;
      const uint32_t offset = values + high[s] * kIntervalBytes;
      auto *to = entry ? reinterpret_cast<uint4 *>(shared->entries[i])
                       : reinterpret_cast<uint4 *>(shared->values[i - kPairEntries]);
      QUIRE_UNROLL
      for (uint32_t j = 0; j < kCopies / 2; ++j) {
        const uint32_t pair = (i + j) % (kCopies / 2);
        to[pair] = entry ? make_uint4(low[s], offset + 16 * pair, low[s], offset + 16 * pair + 8)
                         : make_uint4(low[s], high[s], low[s], high[s]);
      }
    }
  }
};

QUIRE_DEVICE PairView view_of(const PairShared &shared) {
  static_assert(sizeof(shared.entries[0]) == 128);
  PairView view = {&shared,
                   shared_address(shared.entries) + 8 * (threadIdx.x % kCopies) - kPairBits * 128u,
                   (shared_address(shared.values) >> 8 & 255u) * 0x01010101u};
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+r"(view.entries));  // else the constant is added anew for every value
#endif
  return view;
}

// ---- scales

QUIRE_DEVICE float reciprocal(float s) {
  if (s == 0) return 0x1p-120f;
  return fmaxf(fminf(__frcp_rn(s), kLargest), -kLargest);
}

// NaN counts as 0, an infinity as the largest finite value.
QUIRE_DEVICE float tame(float x) {
  if (x != x) return 0.0f;
  return fmaxf(fminf(x, kLargest), -kLargest);
}

// As exponent_byte of rows.h.
QUIRE_DEVICE uint32_t exponent_of(float largest) {
  const uint32_t b = bits(largest);
  const int exponent = static_cast<int>(b >> 23) - 127 + ((b & 0x7fffffu) != 0 ? 1 : 0);
  return static_cast<uint32_t>(max(QUIRE_EXPONENT_MIN, min(QUIRE_EXPONENT_MAX, exponent)) +
                               QUIRE_EXPONENT_BIAS);
}

QUIRE_DEVICE float factor_of(uint32_t f) {
  return f == 0 ? 1.06f : (f == 1 ? 1.0f : (f == 2 ? 0.92f : 0.84f));
}

// ---- encoding

// Codes of a block in natural order: eight a word, the even one in the high nibble of its byte; or
// four bytes a word.
template <uint32_t kBlock>
struct Encoded {
  uint32_t words[kBlock / 4];  // 4-bit codes use the first half
  uint32_t scale;
};

QUIRE_DEVICE uint32_t code_by_midpoints(const CudaCodec &codec, float z) {
  uint32_t code = 0;
  QUIRE_ROLLED
  for (uint32_t i = 0; i < 15; ++i) code += z > codec.midpoints[i] ? 1u : 0u;
  return code;
}

// The scalar target's encoder, for what the fast one does not reach. Leaves codes as bytes.
QUIRE_OUTLINED uint32_t encode_slow(const CudaCodec &codec, const quire_part_layout &part,
                                    const float *x, uint32_t exponent, bool search,
                                    uint8_t *codes) {
  const uint32_t block = part.block;
  float largest = 0;
  QUIRE_ROLLED
  for (uint32_t i = 0; i < block; ++i) {
    if (finite(x[i])) largest = fmaxf(largest, fabsf(x[i]));
  }
  const float up = power(-scale_shift(exponent)), down = power(scale_shift(exponent));
  if (part.codec.codebook == QUIRE_CODEBOOK_INT8) {
    const uint32_t byte = float_to_e4m3_up(__fmul_rn(__fmul_rn(largest, 128.0f / 127.0f), up));
    const float r = reciprocal(__fmul_rn(e4m3_value(byte), down));
    QUIRE_ROLLED
    for (uint32_t i = 0; i < block; ++i) {
      const float z = __fmul_rn(__fmul_rn(tame(x[i]), r), 128.0f);
      codes[i] = static_cast<uint8_t>(__float2int_rn(fmaxf(fminf(z, 127.0f), -127.0f)));
    }
    return byte;
  }
  if (part.codec.scale == QUIRE_SCALE_F16) {
    const float r = reciprocal(largest);
    QUIRE_ROLLED
    for (uint32_t i = 0; i < block; ++i) {
      codes[i] = static_cast<uint8_t>(code_by_midpoints(codec, __fmul_rn(tame(x[i]), r)));
    }
    return float_to_half(fminf(largest, 65504.0f));
  }
  float best_error = 0, squares[kMaxBlock];
  uint32_t best = 256;
  QUIRE_ROLLED
  for (uint32_t f = search ? 0 : 1; f < (search ? 4u : 2u); ++f) {
    const uint32_t magnitude = float_to_e4m3(__fmul_rn(__fmul_rn(largest, factor_of(f)), up));
    QUIRE_ROLLED
    for (uint32_t sign = 0; sign < 2; ++sign) {
      const float s = __fmul_rn(e4m3_value(magnitude | sign << 7), down), r = reciprocal(s);
      QUIRE_ROLLED
      for (uint32_t i = 0; i < block; ++i) {
        const uint32_t code = code_by_midpoints(codec, __fmul_rn(tame(x[i]), r));
        const float e = finite(x[i]) ? __fmaf_rn(-codec.values[code], s, x[i]) : 0.0f;
        squares[i] = __fmul_rn(e, e);
      }
      QUIRE_ROLLED
      for (uint32_t stride = block / 2; stride > 0; stride /= 2) {
        QUIRE_ROLLED
        for (uint32_t i = 0; i < stride; ++i)
          squares[i] = __fadd_rn(squares[i], squares[i + stride]);
      }
      if (best < 256 && !(squares[0] < best_error)) continue;
      best = magnitude | sign << 7;
      best_error = squares[0];
    }
  }
  const float r = reciprocal(__fmul_rn(e4m3_value(best), down));
  QUIRE_ROLLED
  for (uint32_t i = 0; i < block; ++i) {
    codes[i] = static_cast<uint8_t>(code_by_midpoints(codec, __fmul_rn(tame(x[i]), r)));
  }
  return best;
}

// One magnitude of a block's scale: what the table needs to know of it.
struct Magnitude {
  float s, r, index;  // the scale, its reciprocal, and RN(r * kPairBuckets)

  QUIRE_DEVICE static Magnitude of(float s) {
    const float r = reciprocal(s);
    return {s, r, __fmul_rn(r, kPairBuckets)};
  }
};

// Where the values of x's interval lie: K is in bits 8 to 12.
QUIRE_DEVICE uint32_t interval_offset(const PairView &view, const Magnitude &m, float x) {
  const float z = __fmul_rn(x, m.r);
  const uint32_t sum = bits(__fmaf_rn(x, m.index, kPairOffset));
#if defined(__CUDA_ARCH__)
  float threshold;
  uint32_t offset;
  asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];"
               : "=f"(threshold), "=r"(offset)
               : "r"(sum * 128u + view.entries));
  asm("{.reg .pred p; setp.gt.f32 p, %1, %2; @p add.u32 %0, %0, 256;}"
      : "+r"(offset)
      : "f"(z), "f"(threshold));
  return offset;
#else
  const PairEntry e = view.shared->entries[sum - kPairBits][threadIdx.x % kCopies];
  return e.offset + (z > e.threshold ? kIntervalBytes : 0u);
#endif
}

QUIRE_DEVICE float2 interval_values(const PairView &view, uint32_t offset) {
#if defined(__CUDA_ARCH__)
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(offset));
  return v;
#else
  const auto *values = reinterpret_cast<const uint8_t *>(view.shared->values);
  return *reinterpret_cast<const float2 *>(values + (offset - shared_address(values)));
#endif
}

// Byte 1 of `offset` into byte kAt of four packed interval numbers.
template <uint32_t kAt>
QUIRE_DEVICE uint32_t pack_interval(uint32_t packed, uint32_t offset) {
  constexpr uint32_t kSelector =
      kAt == 0 ? 0x3215u : (kAt == 1 ? 0x3250u : (kAt == 2 ? 0x3510u : 0x5210u));
  return __byte_perm(packed, offset, kSelector);
}

// Sums of squared errors under +s and -s over values i, i + kStride, ... by the tree of the format:
// strides block / 2 first, 1 last.
template <uint32_t kBlock, uint32_t kAt, uint32_t kStride, bool kPack>
QUIRE_DEVICE float2 pair_errors(const PairView &view, const Magnitude &m, const float (&x)[kBlock],
                                uint32_t *packed) {
  if constexpr (kStride == kBlock) {
    const uint32_t offset = interval_offset(view, m, x[kAt]);
    if constexpr (kPack) packed[kAt / 4] = pack_interval<kAt % 4>(packed[kAt / 4], offset);
    const float2 v = interval_values(view, offset);
    const float plus = __fmaf_rn(-v.x, m.s, x[kAt]), minus = __fmaf_rn(-v.y, m.s, x[kAt]);
    return make_float2(__fmul_rn(plus, plus), __fmul_rn(minus, minus));
  } else {
    const float2 a = pair_errors<kBlock, kAt, 2 * kStride, kPack>(view, m, x, packed);
    const float2 b = pair_errors<kBlock, kAt + kStride, 2 * kStride, kPack>(view, m, x, packed);
    return make_float2(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y));
  }
}

// Interval numbers, four a word and each plus that of `first`, into codes, eight a word: K / 2, or
// (30 - K) / 2 = 15 - (K + 1) / 2 where the scale is negative.
template <uint32_t kBlock>
QUIRE_DEVICE void codes_of_intervals(const uint32_t (&packed)[kBlock / 4], uint32_t first,
                                     bool negative, uint32_t *words) {
  // No byte borrows from the next: none is below first's.
  const uint32_t one = (negative ? 0x01010101u : 0u) - first, flip = negative ? 0x0f0f0f0fu : 0u;
  QUIRE_UNROLL
  for (uint32_t w = 0; w < kBlock / 8; ++w) {
    uint32_t pairs[2];
    QUIRE_UNROLL
    for (uint32_t h = 0; h < 2; ++h) {
      const uint32_t codes = (((packed[2 * w + h] + one) >> 1) & 0x0f0f0f0fu) ^ flip;
      pairs[h] = codes << 4 | codes >> 8;  // bytes 0 and 2: even code high, odd code low
    }
    words[w] = __byte_perm(pairs[0], pairs[1], 0x6420u);
  }
}

template <uint32_t kBlock>
QUIRE_DEVICE void find_codes(const PairView &view, const Magnitude &m, const float (&x)[kBlock],
                             bool negative, uint32_t *words) {
  uint32_t packed[kBlock / 4];
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock / 4; ++i) {
    packed[i] = __byte_perm(interval_offset(view, m, x[4 * i]),
                            interval_offset(view, m, x[4 * i + 1]), 0x0051u);
    packed[i] = __byte_perm(packed[i],
                            __byte_perm(interval_offset(view, m, x[4 * i + 2]),
                                        interval_offset(view, m, x[4 * i + 3]), 0x0051u),
                            0x5410u);
  }
  codes_of_intervals<kBlock>(packed, view.first, negative, words);
}

// The magnitude that a search's factor number f gives.
QUIRE_DEVICE Magnitude magnitude_of(float largest, uint32_t exponent, float factor,
                                    uint32_t *byte) {
  const float up = power(-scale_shift(exponent)), down = power(scale_shift(exponent));
  *byte = float_to_e4m3(__fmul_rn(__fmul_rn(largest, factor), up));
  return Magnitude::of(__fmul_rn(e4m3_value(*byte), down));
}

// Whether the table serves a block: its values are finite and its largest one is within reach. The
// smallest factor of a search has the smallest scale (a scale of 0 has a reciprocal of its own, and
// blocks whose smallest scale is 0 are within reach of the others).
template <bool kSearch>
QUIRE_DEVICE bool pairs_reach(float largest, uint32_t exponent) {
  uint32_t byte;
  const Magnitude m = magnitude_of(largest, exponent, factor_of(kSearch ? 3 : 1), &byte);
  return largest <= kLargest && __fmul_rn(largest, m.r) < kPairReach;
}

// A block that the table serves.
template <uint32_t kBlock, bool kSearch>
QUIRE_DEVICE void encode_pair(const PairView &view, const float (&x)[kBlock], float largest,
                              uint32_t exponent, Encoded<kBlock> *out) {
  uint32_t byte;
  if constexpr (!kSearch) {
    const Magnitude m = magnitude_of(largest, exponent, 1.0f, &byte);
    uint32_t packed[kBlock / 4] = {};
    const float2 e = pair_errors<kBlock, 0, 1, true>(view, m, x, packed);
    const bool negative = e.y < e.x;
    codes_of_intervals<kBlock>(packed, view.first, negative, out->words);
    out->scale = byte | (negative ? 128u : 0u);
  } else {
    float best_error = 0;
    uint32_t best = 256;
    Magnitude best_magnitude = {};
    QUIRE_ROLLED
    for (uint32_t f = 0; f < 4; ++f) {
      const Magnitude m = magnitude_of(largest, exponent, factor_of(f), &byte);
      const float2 e = pair_errors<kBlock, 0, 1, false>(view, m, x, nullptr);
      if (best == 256 || e.x < best_error) best = byte, best_error = e.x, best_magnitude = m;
      if (e.y < best_error) best = byte | 128u, best_error = e.y, best_magnitude = m;
    }
    find_codes<kBlock>(view, best_magnitude, x, (best & 128u) != 0, out->words);
    out->scale = best;
  }
}

// Absmax in f16, bitsandbytes' arithmetic: the exact absmax divides, its half is stored.
template <uint32_t kBlock>
QUIRE_DEVICE bool encode_absmax(const PairView &view, const float (&x)[kBlock], float largest,
                                Encoded<kBlock> *out) {
  // Below 2^-100 the index's factor would overflow; 0 has its own reciprocal.
  if (largest != 0 && largest < 0x1p-100f) return true;
  const Magnitude m = Magnitude::of(largest);
  find_codes<kBlock>(view, m, x, false, out->words);
  out->scale = floats_to_halves(fminf(largest, 65504.0f), 0) & 0xffffu;
  return false;
}

template <uint32_t kBlock>
QUIRE_DEVICE bool encode_int8(const float (&x)[kBlock], float largest, uint32_t exponent,
                              Encoded<kBlock> *out) {
  constexpr float kInteger = 12582912.0f;  // 1.5 * 2^23: the low byte of a sum is its integer's
  const float up = power(-scale_shift(exponent)), down = power(scale_shift(exponent));
  out->scale = float_to_e4m3_up(__fmul_rn(__fmul_rn(largest, 128.0f / 127.0f), up));
  const float r = reciprocal(__fmul_rn(e4m3_value(out->scale), down));
  QUIRE_UNROLL
  for (uint32_t w = 0; w < kBlock / 4; ++w) {
    uint32_t codes[4];
    QUIRE_UNROLL
    for (uint32_t j = 0; j < 4; ++j) {
      const float z = __fmul_rn(__fmul_rn(x[4 * w + j], r), 128.0f);
      codes[j] = bits(__fadd_rn(fmaxf(fminf(z, 127.0f), -127.0f), kInteger));
    }
    out->words[w] = __byte_perm(__byte_perm(codes[0], codes[1], 0x0040u),
                                __byte_perm(codes[2], codes[3], 0x0040u), 0x5410u);
  }
  return false;
}

// Codes and scale of a block that is ready (minus its anchor, tamed, rotated); largest is its peak.
template <uint32_t kBlock>
QUIRE_DEVICE void encode_block(const CudaCodec &codec, const quire_part_layout &part,
                               const PairView &view, const float (&x)[kBlock], float largest,
                               uint32_t exponent, bool search, Encoded<kBlock> *out) {
  bool slow = true;
  if (largest <= kLargest) {
    if (part.codec.codebook == QUIRE_CODEBOOK_INT8) {
      slow = encode_int8<kBlock>(x, largest, exponent, out);
    } else if (codec.paired != 0 && part.codec.scale == QUIRE_SCALE_F16) {
      slow = encode_absmax<kBlock>(view, x, largest, out);
    } else if (codec.paired != 0 && search) {
      slow = !pairs_reach<true>(largest, exponent);
      if (!slow) encode_pair<kBlock, true>(view, x, largest, exponent, out);
    } else if (codec.paired != 0) {
      slow = !pairs_reach<false>(largest, exponent);
      if (!slow) encode_pair<kBlock, false>(view, x, largest, exponent, out);
    }
  }
  if (!slow) return;
  float copy[kBlock];
  uint8_t codes[kBlock];
  for (uint32_t i = 0; i < kBlock; ++i) copy[i] = x[i];
  out->scale = encode_slow(codec, part, copy, exponent, search, codes);
  for (uint32_t w = 0; w < kBlock / 4; ++w) out->words[w] = 0;
  for (uint32_t i = 0; i < kBlock; ++i) {
    if (part.code_bits == 8) {
      out->words[i / 4] |= static_cast<uint32_t>(codes[i]) << (i % 4 * 8);
    } else {
      out->words[i / 8] |= static_cast<uint32_t>(codes[i])
                           << (i % 8 / 2 * 8 + (i % 2 == 0 ? 4 : 0));
    }
  }
}

// ---- codes and scales into a head's chunk

// Unit t of kUnits (or the whole block) of 1, 2, 4, 8, 16 ... bytes.
template <uint32_t kBytes>
QUIRE_DEVICE void store_unit(uint8_t *to, const uint32_t *words, uint32_t at) {
  if constexpr (kBytes == 1) {
    *to = static_cast<uint8_t>(words[at / 4] >> (at % 4 * 8));
  } else if constexpr (kBytes == 2) {
    *reinterpret_cast<uint16_t *>(to) = static_cast<uint16_t>(words[at / 4] >> (at % 4 * 8));
  } else if constexpr (kBytes == 4) {
    *reinterpret_cast<uint32_t *>(to) = words[at / 4];
  } else if constexpr (kBytes == 8) {
    *reinterpret_cast<uint2 *>(to) = make_uint2(words[at / 4], words[at / 4 + 1]);
  } else {
    QUIRE_UNROLL
    for (uint32_t i = 0; i < kBytes / 16; ++i) {
      const uint32_t *w = words + at / 4 + 4 * i;
      reinterpret_cast<uint4 *>(to)[i] = make_uint4(w[0], w[1], w[2], w[3]);
    }
  }
}

template <uint32_t kBlock, uint32_t kBits>
QUIRE_DEVICE void store_codes(const quire_part_layout &part, uint32_t block, const uint32_t *words,
                              uint8_t *row) {
  constexpr uint32_t kBytes = kBlock * kBits / 8, kUnit = kBytes / 4;
  if (part.unit == 0) {
    store_unit<kBytes>(row + block * kBytes, words, 0);
    return;
  }
  QUIRE_UNROLL
  for (uint32_t t = 0; t < 4; ++t) {
    store_unit<kUnit>(row + (t * part.blocks + block) * kUnit, words, t * kUnit);
  }
}

template <uint32_t kBlock>
QUIRE_DEVICE void store_encoded(const quire_part_layout &part, uint8_t *chunk, uint32_t token,
                                uint32_t block, const Encoded<kBlock> &encoded) {
  uint8_t *row = chunk + quire_row_offset(&part, token);
  uint8_t *scale = chunk + quire_scale_offset(&part, token, block);
  if (part.code_bits == 8) {
    store_codes<kBlock, 8>(part, block, encoded.words, row);
  } else {
    store_codes<kBlock, 4>(part, block, encoded.words, row);
  }
  if (part.scale_bytes == 2) {
    *reinterpret_cast<uint16_t *>(scale) = static_cast<uint16_t>(encoded.scale);
  } else {
    *scale = static_cast<uint8_t>(encoded.scale);
  }
}

}  // namespace quire::kernels::cuda
