// Block: one block of a row (8 to 64 values that share a scale) in the registers of one thread.
//
// That is how all kernels of the codec divide their work: a thread owns a block, the lanes of a
// warp own 32 blocks that follow one another in a row and then in the next rows. So absmax, the
// search of scales and the tree of squared errors stay within a thread; a rotation of R values
// stays within one for strides below the block and goes on between lanes R / block apart. As the
// blocks of a row are a multiple of R / block, a power of two, and warps begin at multiples of it,
// a rotation never leaves its warp. This serves every geometry and every format.
//
// Here: rows in and out, rotation, magnitudes. codec_encode.cuh and codec_decode.cuh turn a block
// into codes and back.
//
// Invariants: lanes of a warp call these together where they shuffle; x of lanes without work is
// finite or not used.
// Thread class: device code. Cost: see each part; a rotation of 128 values takes nine instructions a
// value.
#pragma once

#include "kernels/cuda/codec_arith.cuh"
#include "kernels/cuda/codec_params.h"

namespace quire::kernels::cuda {

inline constexpr uint32_t kMaxBlock = 64;

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

// Sixteen bytes into shared memory, or zeros, by and by: in order before wait_for_copies() of the
// same thread.
QUIRE_DEVICE void copy_ahead(uint4 *to, const uint8_t *from, bool there) {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(to)), "l"(from), "r"(there ? 16u : 0u)
               : "memory");
#else
  *to = there ? *reinterpret_cast<const uint4 *>(from) : make_uint4(0, 0, 0, 0);
#endif
}

QUIRE_DEVICE void wait_for_copies() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_all;" : : : "memory");
#endif
}

// ---- rows in and out

// 16-bit values, eight a piece; quantised paths only (NaNs stay NaNs of any kind).
template <uint32_t kBlock, DType kType>
QUIRE_DEVICE void widen_pieces_of(const uint4 (&q)[kBlock / 8], float (&x)[kBlock]) {
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock / 8; ++i) {
    const uint32_t words[4] = {q[i].x, q[i].y, q[i].z, q[i].w};
    QUIRE_UNROLL
    for (uint32_t j = 0; j < 4; ++j) {
      const float2 f =
          kType == DType::kBF16 ? bfloats_to_floats(words[j]) : halves_to_floats(words[j]);
      x[8 * i + 2 * j] = f.x;
      x[8 * i + 2 * j + 1] = f.y;
    }
  }
}

// One branch a block, not one a value.
template <uint32_t kBlock>
QUIRE_DEVICE void widen_pieces(DType type, const uint4 (&q)[kBlock / 8], float (&x)[kBlock]) {
  if (type == DType::kBF16) {
    widen_pieces_of<kBlock, DType::kBF16>(q, x);
  } else {
    widen_pieces_of<kBlock, DType::kF16>(q, x);
  }
}

template <uint32_t kBlock, DType kType>
QUIRE_DEVICE void narrow_pieces_of(const float (&x)[kBlock], uint4 (&q)[kBlock / 8]) {
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock / 8; ++i) {
    uint32_t words[4];
    QUIRE_UNROLL
    for (uint32_t j = 0; j < 4; ++j) {
      const float low = x[8 * i + 2 * j], high = x[8 * i + 2 * j + 1];
      words[j] = kType == DType::kBF16 ? floats_to_bfloats(low, high) : floats_to_halves(low, high);
    }
    q[i] = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

template <uint32_t kBlock>
QUIRE_DEVICE void narrow_pieces(DType type, const float (&x)[kBlock], uint4 (&q)[kBlock / 8]) {
  if (type == DType::kBF16) {
    narrow_pieces_of<kBlock, DType::kBF16>(x, q);
  } else {
    narrow_pieces_of<kBlock, DType::kF16>(x, q);
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

// Asks for the 32 blocks from block `begin` on (a multiple of 32) of rows that lie `stride` bytes
// apart, as they lie; rows from `limit` on become zeros. For block sizes with a Stage, whose pieces
// were all read.
template <uint32_t kBlock>
QUIRE_DEVICE void ask_pieces(const uint8_t *rows, int64_t stride, uint32_t blocks, uint32_t begin,
                             uint32_t limit, Stage<kBlock> *stage) {
  using S = Stage<kBlock>;
  const uint32_t lane = threadIdx.x % kWarp, owner = lane / S::kPieces;
  const auto shift = static_cast<uint32_t>(__ffs(static_cast<int>(blocks)) - 1);
  const uint32_t first = begin + owner, row = first >> shift, block = first & (blocks - 1);
  const uint32_t rows_a_step = S::kOwners >> shift;
  const uint8_t *from =
      rows + static_cast<int64_t>(row) * stride + block * (kBlock * 2) + lane % S::kPieces * 16;
  QUIRE_UNROLL
  for (uint32_t i = 0; i < S::kPieces; ++i) {
    const bool there = row + i * rows_a_step < limit;
    copy_ahead(&stage->pieces[S::at(i * S::kOwners + owner, lane % S::kPieces)],
               there ? from + i * (rows_a_step * stride) : rows, there);
  }
}

// Each lane's own block of what was asked for. Warps call it together; the stage is free then.
template <uint32_t kBlock>
QUIRE_DEVICE void take_pieces(const Stage<kBlock> &stage, uint4 (&q)[kBlock / 8]) {
  using S = Stage<kBlock>;
  wait_for_copies();
  __syncwarp();
  QUIRE_UNROLL
  for (uint32_t i = 0; i < S::kPieces; ++i) q[i] = stage.pieces[S::at(threadIdx.x % kWarp, i)];
  __syncwarp();
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

QUIRE_DEVICE int scale_shift(uint32_t exponent) {
  return static_cast<int>(exponent) - QUIRE_EXPONENT_BIAS - 8;
}

}  // namespace quire::kernels::cuda
