// Block: one block of a row (8 to 64 values that share a scale) in the registers of one thread.
//
// That is how all kernels of the codec divide their work: a thread owns a block, the lanes of a
// warp own 32 blocks that follow one another in a row and then in the next rows. So absmax, the
// search of scales and the tree of squared errors stay within a thread; a rotation of R values
// stays within one for strides below the block and goes on between lanes R / block apart. As the
// blocks of a row are a multiple of R / block, a power of two, and warps begin at multiples of it,
// a rotation never leaves its warp. This serves every geometry and every format.
//
// Encoding with signed scales goes by PairTable (pair_table.h), kept in shared memory once for each
// of sixteen lanes, so that no two lanes of a half warp meet in a bank. Per value and magnitude: a
// product, a fused index, two 8-byte shared loads, a compare, an addition, then two errors, squares
// and sums for the two signs. What the table does not reach (values that are not finite, scales
// that were cut off far below the block's largest value, codebooks that do not pair) goes by
// encode_slow, which is the scalar target's code again.
//
// Invariants: lanes of a warp call these together (they shuffle); x of lanes without work is 0.
// Thread class: device code. Cost: about 30 instructions a value with one magnitude, 75 searched.
#pragma once

#include "kernels/cuda/codec_arith.cuh"
#include "kernels/cuda/codec_params.h"
#include "kernels/page_checksum.h"

namespace quire::kernels::cuda {

inline constexpr uint32_t kMaxBlock = 64;
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

QUIRE_DEVICE uint32_t shared_address(const void *p) {
#if defined(__CUDA_ARCH__)
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
#elif defined(QUIRE_CUDA_EMULATED)
  return emulated_shared_address(p);
#else
  (void)p;
  return 0;
#endif
}

// One entry, or interval, a thread: read once, written to all copies, beginning with another one in
// each lane so that the writes do not meet in a bank.
QUIRE_DEVICE void load_pairs(const PairTable &table, PairShared *shared) {
  const uint32_t values = shared_address(shared->values);
  for (uint32_t i = threadIdx.x; i < kPairEntries + 32; i += blockDim.x) {
    if (i < kPairEntries) {
      const uint32_t threshold = bits(table.threshold[i]);
      const uint32_t offset = values + table.base[i] * kIntervalBytes;
      QUIRE_UNROLL
      for (uint32_t j = 0; j < kCopies / 2; ++j) {
        const uint32_t pair = (i + j) % (kCopies / 2);
        reinterpret_cast<uint4 *>(shared->entries[i])[pair] =
            make_uint4(threshold, offset + 16 * pair, threshold, offset + 16 * pair + 8);
      }
    } else {
      const uint32_t k = i - kPairEntries;
      const float plus = table.plus[k], minus = table.minus[k];
      QUIRE_UNROLL
      for (uint32_t j = 0; j < kCopies / 2; ++j) {
        reinterpret_cast<float4 *>(shared->values[k])[(i + j) % (kCopies / 2)] =
            make_float4(plus, minus, plus, minus);
      }
    }
  }
}

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

// ---- rows in and out

// 16-bit values, eight a piece; quantised paths only (NaNs stay NaNs of any kind).
template <uint32_t kBlock>
QUIRE_DEVICE void widen_pieces(DType type, const uint4 (&q)[kBlock / 8], float (&x)[kBlock]) {
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock / 8; ++i) {
    const uint32_t words[4] = {q[i].x, q[i].y, q[i].z, q[i].w};
    QUIRE_UNROLL
    for (uint32_t j = 0; j < 4; ++j) {
      const float2 f =
          type == DType::kBF16 ? bfloats_to_floats(words[j]) : halves_to_floats(words[j]);
      x[8 * i + 2 * j] = f.x;
      x[8 * i + 2 * j + 1] = f.y;
    }
  }
}

template <uint32_t kBlock>
QUIRE_DEVICE void narrow_pieces(DType type, const float (&x)[kBlock], uint4 (&q)[kBlock / 8]) {
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock / 8; ++i) {
    uint32_t words[4];
    QUIRE_UNROLL
    for (uint32_t j = 0; j < 4; ++j) {
      const float low = x[8 * i + 2 * j], high = x[8 * i + 2 * j + 1];
      words[j] = type == DType::kBF16 ? floats_to_bfloats(low, high) : floats_to_halves(low, high);
    }
    q[i] = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

// Values of a block from a row in memory, 16-byte aligned.
template <uint32_t kBlock>
QUIRE_DEVICE void load_block(DType type, const uint8_t *from, float (&x)[kBlock]) {
  if (type == DType::kF32) {
    const auto *quads = reinterpret_cast<const float4 *>(from);
    QUIRE_UNROLL
    for (uint32_t i = 0; i < kBlock / 4; ++i) {
      const float4 q = quads[i];
      x[4 * i] = q.x, x[4 * i + 1] = q.y, x[4 * i + 2] = q.z, x[4 * i + 3] = q.w;
    }
    return;
  }
  uint4 q[kBlock / 8];
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock / 8; ++i) q[i] = reinterpret_cast<const uint4 *>(from)[i];
  widen_pieces<kBlock>(type, q, x);
}

template <uint32_t kBlock>
QUIRE_DEVICE void store_block(DType type, const float (&x)[kBlock], uint8_t *to) {
  if (type == DType::kF32) {
    auto *quads = reinterpret_cast<float4 *>(to);
    QUIRE_UNROLL
    for (uint32_t i = 0; i < kBlock / 4; ++i) {
      quads[i] = make_float4(x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]);
    }
    return;
  }
  uint4 q[kBlock / 8];
  narrow_pieces<kBlock>(type, x, q);
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock / 8; ++i) reinterpret_cast<uint4 *>(to)[i] = q[i];
}

// ---- rows of 16-bit values by way of shared memory
//
// A lane's block is 16 to 64 adjacent bytes: read directly, a warp's load would touch 32 places. So
// a warp reads its 32 blocks as they lie, sixteen bytes a lane, and exchanges them through shared
// memory; pieces are permuted within a block so that neither side meets itself in a bank.

template <uint32_t kBlock>
struct Stage {
  static constexpr uint32_t kPieces = kBlock / 8;  // of 16 bytes, a block
  static constexpr uint32_t kOwners = kWarp / kPieces;
  static constexpr uint32_t kTurn = kPieces == 4 ? 1 : (kPieces == 2 ? 2 : 3);

  uint4 pieces[kPieces * kWarp];

  // Rows lie a constant distance apart from one step to the next only for these.
  QUIRE_DEVICE static bool takes(uint32_t blocks) { return kOwners % blocks == 0; }
  QUIRE_DEVICE static uint32_t at(uint32_t owner, uint32_t piece) {
    return owner * kPieces + (piece ^ (owner >> kTurn & (kPieces - 1)));
  }
};
template <>
struct Stage<64> {  // would take too much shared memory beside the tables
  QUIRE_DEVICE static bool takes(uint32_t) { return false; }
};

// The 32 blocks from block `begin` on (a multiple of 32) of a tile whose rows are `stride` bytes
// apart; rows from `limit` on are read as zeros. Warps call it together.
template <uint32_t kBlock>
QUIRE_DEVICE void load_staged(DType type, const uint8_t *rows, int64_t stride, uint32_t blocks,
                              uint32_t begin, uint32_t limit, Stage<kBlock> *stage,
                              float (&x)[kBlock]) {
  using S = Stage<kBlock>;
  const uint32_t lane = threadIdx.x % kWarp, owner = lane / S::kPieces;
  const auto shift = static_cast<uint32_t>(__ffs(static_cast<int>(blocks)) - 1);
  const uint32_t first = begin + owner, row = first >> shift, block = first & (blocks - 1);
  const uint32_t rows_a_step = S::kOwners >> shift;
  const uint8_t *from =
      rows + static_cast<int64_t>(row) * stride + block * (kBlock * 2) + lane % S::kPieces * 16;
  uint4 q[S::kPieces];
  QUIRE_UNROLL
  for (uint32_t i = 0; i < S::kPieces; ++i) {
    q[i] = make_uint4(0, 0, 0, 0);
    if (row + i * rows_a_step < limit) {
      q[i] = *reinterpret_cast<const uint4 *>(from + i * (rows_a_step * stride));
    }
  }
  __syncwarp();  // what was here before has been read
  QUIRE_UNROLL
  for (uint32_t i = 0; i < S::kPieces; ++i) {
    stage->pieces[S::at(i * S::kOwners + owner, lane % S::kPieces)] = q[i];
  }
  __syncwarp();
  QUIRE_UNROLL
  for (uint32_t i = 0; i < S::kPieces; ++i) q[i] = stage->pieces[S::at(lane, i)];
  widen_pieces<kBlock>(type, q, x);
}

// The other way; rows whose bit in `wanted` is 0 are not written.
template <uint32_t kBlock>
QUIRE_DEVICE void store_staged(DType type, const float (&x)[kBlock], uint8_t *rows, int64_t stride,
                               uint32_t blocks, uint32_t begin, uint32_t wanted,
                               Stage<kBlock> *stage) {
  using S = Stage<kBlock>;
  const uint32_t lane = threadIdx.x % kWarp, owner = lane / S::kPieces;
  const auto shift = static_cast<uint32_t>(__ffs(static_cast<int>(blocks)) - 1);
  const uint32_t first = begin + owner, row = first >> shift, block = first & (blocks - 1);
  const uint32_t rows_a_step = S::kOwners >> shift;
  uint8_t *to =
      rows + static_cast<int64_t>(row) * stride + block * (kBlock * 2) + lane % S::kPieces * 16;
  uint4 q[S::kPieces];
  narrow_pieces<kBlock>(type, x, q);
  __syncwarp();
  QUIRE_UNROLL
  for (uint32_t i = 0; i < S::kPieces; ++i) stage->pieces[S::at(lane, i)] = q[i];
  __syncwarp();
  QUIRE_UNROLL
  for (uint32_t i = 0; i < S::kPieces; ++i) {
    const uint4 piece = stage->pieces[S::at(i * S::kOwners + owner, lane % S::kPieces)];
    if ((wanted >> (row + i * rows_a_step) % kWarp & 1u) != 0) {
      *reinterpret_cast<uint4 *>(to + i * (rows_a_step * stride)) = piece;
    }
  }
}

// H on runs of `size` values, then times 2^-shift: stages of stride 1, 2, 4 ...
template <uint32_t kBlock>
QUIRE_DEVICE void rotate(float (&x)[kBlock], uint32_t size, uint32_t shift) {
  QUIRE_UNROLL
  for (uint32_t stride = 1; stride < kBlock; stride *= 2) {
    QUIRE_UNROLL
    for (uint32_t i = 0; i < kBlock; ++i) {
      if ((i & stride) != 0) continue;
      const float a = x[i], b = x[i + stride];
      x[i] = __fadd_rn(a, b);
      x[i + stride] = __fsub_rn(a, b);
    }
  }
  for (uint32_t apart = 1; apart < size / kBlock; apart *= 2) {
    // The upper lane's result is other - own: own * -1 is exact, so one rounding as in a sum.
    const float sign = (threadIdx.x & apart) != 0 ? -1.0f : 1.0f;
    QUIRE_UNROLL
    for (uint32_t i = 0; i < kBlock; ++i) {
      x[i] = __fmaf_rn(x[i], sign, __shfl_xor_sync(kAllLanes, x[i], static_cast<int>(apart)));
    }
  }
  const float factor = power(-static_cast<int>(shift));
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock; ++i) x[i] = __fmul_rn(x[i], factor);
}

// The largest magnitude; NaN or an infinity where a value is one.
QUIRE_DEVICE float larger(float a, float b) {
#if defined(__CUDA_ARCH__)
  float m;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(m) : "f"(a), "f"(fabsf(b)));
  return m;
#else
  return a != a || b != b ? from_bits(0x7fffffffu) : fmaxf(a, fabsf(b));
#endif
}

template <uint32_t kBlock>
QUIRE_DEVICE float peak(const float (&x)[kBlock]) {
  float largest = 0;
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock; ++i) largest = larger(largest, x[i]);
  return largest;
}

template <uint32_t kBlock>
QUIRE_DEVICE uint32_t count_nonfinite(const float (&x)[kBlock]) {
  uint32_t count = 0;
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock; ++i) count += finite(x[i]) ? 0u : 1u;
  return count;
}

// The largest finite magnitude.
template <uint32_t kBlock>
QUIRE_DEVICE float finite_peak(const float (&x)[kBlock]) {
  float largest = 0;
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock; ++i) largest = fmaxf(largest, finite(x[i]) ? fabsf(x[i]) : 0.0f);
  return largest;
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

QUIRE_DEVICE int scale_shift(uint32_t exponent) {
  return static_cast<int>(exponent) - QUIRE_EXPONENT_BIAS - 8;
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
  for (uint32_t i = 0; i < 15; ++i) code += z > codec.midpoints[i] ? 1u : 0u;
  return code;
}

// The scalar target's encoder, for what the fast one does not reach. Leaves codes as bytes.
QUIRE_OUTLINED uint32_t encode_slow(const CudaCodec &codec, const quire_part_layout &part,
                                    const float *x, uint32_t exponent, bool search,
                                    uint8_t *codes) {
  const uint32_t block = part.block;
  float largest = 0;
  for (uint32_t i = 0; i < block; ++i) {
    if (finite(x[i])) largest = fmaxf(largest, fabsf(x[i]));
  }
  const float up = power(-scale_shift(exponent)), down = power(scale_shift(exponent));
  if (part.codec.codebook == QUIRE_CODEBOOK_INT8) {
    const uint32_t byte = float_to_e4m3_up(__fmul_rn(__fmul_rn(largest, 128.0f / 127.0f), up));
    const float r = reciprocal(__fmul_rn(e4m3_value(byte), down));
    for (uint32_t i = 0; i < block; ++i) {
      const float z = __fmul_rn(__fmul_rn(tame(x[i]), r), 128.0f);
      codes[i] = static_cast<uint8_t>(__float2int_rn(fmaxf(fminf(z, 127.0f), -127.0f)));
    }
    return byte;
  }
  if (part.codec.scale == QUIRE_SCALE_F16) {
    const float r = reciprocal(largest);
    for (uint32_t i = 0; i < block; ++i) {
      codes[i] = static_cast<uint8_t>(code_by_midpoints(codec, __fmul_rn(tame(x[i]), r)));
    }
    return float_to_half(fminf(largest, 65504.0f));
  }
  float best_error = 0, squares[kMaxBlock];
  uint32_t best = 256;
  for (uint32_t f = search ? 0 : 1; f < (search ? 4u : 2u); ++f) {
    const uint32_t magnitude = float_to_e4m3(__fmul_rn(__fmul_rn(largest, factor_of(f)), up));
    for (uint32_t sign = 0; sign < 2; ++sign) {
      const float s = __fmul_rn(e4m3_value(magnitude | sign << 7), down), r = reciprocal(s);
      for (uint32_t i = 0; i < block; ++i) {
        const uint32_t code = code_by_midpoints(codec, __fmul_rn(tame(x[i]), r));
        const float e = finite(x[i]) ? __fmaf_rn(-codec.values[code], s, x[i]) : 0.0f;
        squares[i] = __fmul_rn(e, e);
      }
      for (uint32_t stride = block / 2; stride > 0; stride /= 2) {
        for (uint32_t i = 0; i < stride; ++i)
          squares[i] = __fadd_rn(squares[i], squares[i + stride]);
      }
      if (best < 256 && !(squares[0] < best_error)) continue;
      best = magnitude | sign << 7;
      best_error = squares[0];
    }
  }
  const float r = reciprocal(__fmul_rn(e4m3_value(best), down));
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

// True where it could not: nothing is written then.
template <uint32_t kBlock>
QUIRE_DEVICE bool encode_signed(const PairView &view, const float (&x)[kBlock], float largest,
                                uint32_t exponent, bool search, Encoded<kBlock> *out) {
  const float up = power(-scale_shift(exponent)), down = power(scale_shift(exponent));
  if (!search) {
    const uint32_t byte = float_to_e4m3(__fmul_rn(largest, up));
    const Magnitude m = Magnitude::of(__fmul_rn(e4m3_value(byte), down));
    if (!(__fmul_rn(largest, m.r) < kPairReach)) return true;
    uint32_t packed[kBlock / 4] = {};
    const float2 e = pair_errors<kBlock, 0, 1, true>(view, m, x, packed);
    const bool negative = e.y < e.x;
    codes_of_intervals<kBlock>(packed, view.first, negative, out->words);
    out->scale = byte | (negative ? 128u : 0u);
    return false;
  }
  float best_error = 0;
  uint32_t best = 256;
  Magnitude best_magnitude = {};
  QUIRE_ROLLED
  for (uint32_t f = 0; f < 4; ++f) {
    const uint32_t byte = float_to_e4m3(__fmul_rn(__fmul_rn(largest, factor_of(f)), up));
    const Magnitude m = Magnitude::of(__fmul_rn(e4m3_value(byte), down));
    if (!(__fmul_rn(largest, m.r) < kPairReach)) return true;
    const float2 e = pair_errors<kBlock, 0, 1, false>(view, m, x, nullptr);
    if (best == 256 || e.x < best_error) best = byte, best_error = e.x, best_magnitude = m;
    if (e.y < best_error) best = byte | 128u, best_error = e.y, best_magnitude = m;
  }
  find_codes<kBlock>(view, best_magnitude, x, (best & 128u) != 0, out->words);
  out->scale = best;
  return false;
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
    } else if (codec.paired != 0) {
      slow = encode_signed<kBlock>(view, x, largest, exponent, search, out);
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

// ---- codes and scales to and from a head's chunk

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

template <uint32_t kBytes>
QUIRE_DEVICE void load_unit(const uint8_t *from, uint32_t *words, uint32_t at) {
  if constexpr (kBytes == 1) {
    words[at / 4] |= static_cast<uint32_t>(*from) << (at % 4 * 8);
  } else if constexpr (kBytes == 2) {
    words[at / 4] |= static_cast<uint32_t>(*reinterpret_cast<const uint16_t *>(from))
                     << (at % 4 * 8);
  } else if constexpr (kBytes == 4) {
    words[at / 4] = *reinterpret_cast<const uint32_t *>(from);
  } else if constexpr (kBytes == 8) {
    const uint2 w = *reinterpret_cast<const uint2 *>(from);
    words[at / 4] = w.x, words[at / 4 + 1] = w.y;
  } else {
    QUIRE_UNROLL
    for (uint32_t i = 0; i < kBytes / 16; ++i) {
      const uint4 q = reinterpret_cast<const uint4 *>(from)[i];
      uint32_t *w = words + at / 4 + 4 * i;
      w[0] = q.x, w[1] = q.y, w[2] = q.z, w[3] = q.w;
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

template <uint32_t kBlock, uint32_t kBits>
QUIRE_DEVICE void load_codes(const quire_part_layout &part, uint32_t block, const uint8_t *row,
                             uint32_t *words) {
  constexpr uint32_t kBytes = kBlock * kBits / 8, kUnit = kBytes / 4;
  QUIRE_UNROLL
  for (uint32_t i = 0; i < (kBytes + 3) / 4; ++i) words[i] = 0;
  if (part.unit == 0) {
    load_unit<kBytes>(row + block * kBytes, words, 0);
    return;
  }
  QUIRE_UNROLL
  for (uint32_t t = 0; t < 4; ++t) {
    load_unit<kUnit>(row + (t * part.blocks + block) * kUnit, words, t * kUnit);
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

// ---- decoding

// One copy a lane: no two lanes meet in a bank.
struct DecodeShared {
  float values[16][kWarp];
};

QUIRE_DEVICE void load_values(const CudaCodec &codec, DecodeShared *shared) {
  for (uint32_t i = threadIdx.x; i < 16 * kWarp; i += blockDim.x) {
    shared->values[i / kWarp][i % kWarp] = codec.values[i / kWarp];
  }
}

struct DecodeView {
  const DecodeShared *shared;
  uint32_t values;  // shared address of this lane's copy
};

QUIRE_DEVICE DecodeView view_of(const DecodeShared &shared) {
  return {&shared, shared_address(shared.values) + 4 * (threadIdx.x % kWarp)};
}

// The value of the code in bits kAt to kAt + 3 of a word.
template <uint32_t kAt>
QUIRE_DEVICE float code_value(const DecodeView &view, uint32_t word) {
#if defined(__CUDA_ARCH__)
  const uint32_t moved = kAt < 7 ? word << (7 - kAt) % 32 : word >> (kAt - 7) % 32;
  float value;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"((moved & 0x780u) + view.values));
  return value;
#else
  return view.shared->values[word >> kAt & 15u][threadIdx.x % kWarp];
#endif
}

// Eight codes of a word: byte by byte, the high nibble first.
template <uint32_t kByte>
QUIRE_DEVICE void decode_pair(const DecodeView &view, uint32_t word, float s, float *x) {
  const float2 f = round_to_halves(__fmul_rn(code_value<8 * kByte + 4>(view, word), s),
                                   __fmul_rn(code_value<8 * kByte>(view, word), s));
  x[2 * kByte] = f.x, x[2 * kByte + 1] = f.y;
}

// Rotated values of a block, each RN16(RN32(code * scale)).
template <uint32_t kBlock>
QUIRE_DEVICE void decode_block(const quire_part_layout &part, const DecodeView &view,
                               const uint8_t *chunk, uint32_t token, uint32_t block,
                               uint32_t exponent, float (&x)[kBlock]) {
  const uint8_t *row = chunk + quire_row_offset(&part, token);
  const uint8_t *stored = chunk + quire_scale_offset(&part, token, block);
  const float s = part.scale_bytes == 2
                      ? halves_to_floats(*reinterpret_cast<const uint16_t *>(stored)).x
                      : __fmul_rn(e4m3_value(*stored), power(scale_shift(exponent)));
  uint32_t words[kBlock / 4];
  if (part.code_bits == 8) {
    load_codes<kBlock, 8>(part, block, row, words);
    QUIRE_UNROLL
    for (uint32_t i = 0; i < kBlock; i += 2) {
      const uint32_t word = words[i / 4] >> (i % 4 * 8);
      const auto a = static_cast<float>(static_cast<int8_t>(word));
      const auto b = static_cast<float>(static_cast<int8_t>(word >> 8));
      const float2 f =
          round_to_halves(__fmul_rn(__fmul_rn(a, 0x1p-7f), s), __fmul_rn(__fmul_rn(b, 0x1p-7f), s));
      x[i] = f.x, x[i + 1] = f.y;
    }
    return;
  }
  load_codes<kBlock, 4>(part, block, row, words);
  QUIRE_UNROLL
  for (uint32_t w = 0; w < kBlock / 8; ++w) {
    decode_pair<0>(view, words[w], s, x + 8 * w);
    decode_pair<1>(view, words[w], s, x + 8 * w);
    decode_pair<2>(view, words[w], s, x + 8 * w);
    decode_pair<3>(view, words[w], s, x + 8 * w);
  }
}

}  // namespace quire::kernels::cuda
