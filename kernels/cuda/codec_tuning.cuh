// What the kernels of the codec share on the host's side: sizes of grids, the choice of a block
// size, descriptions of rows; and the slow path of rows with values that are not finite.
//
// Thread class: pure.
#pragma once

#include <type_traits>

#include "kernels/cuda/codec_tile.cuh"
#include "kernels/cuda/cuda_codec.h"
#include "kernels/cuda/launch.cuh"

namespace quire::kernels::cuda {

inline constexpr uint32_t kCodecThreads = 256;

// CTAs a multiprocessor that kernels are compiled and grids sized for: 128 registers a thread where
// blocks are encoded, 80 where rows are copied.
template <uint32_t kBlock>
constexpr uint32_t resident() {
  return kBlock == 0 ? 3 : (kBlock == 64 ? 1 : 2);
}

// CTAs and their threads for so many warps' worth of work. A small call takes small CTAs, so that it
// reaches more multiprocessors.
struct Grid {
  uint32_t blocks, threads;
};

inline Grid grid_for(uint64_t warps, uint32_t resident) {
  const uint64_t all = processors();
  const uint32_t threads = warps <= 4 * all ? 2 * kWarp : kCodecThreads;
  const uint64_t blocks = (warps + threads / kWarp - 1) / (threads / kWarp);
  return {static_cast<uint32_t>(blocks < all * resident ? blocks : all * resident), threads};
}

inline Rows make_rows(const quire_part_layout &part, uint32_t heads, DType type, const void *data,
                      int64_t token_stride, int64_t head_stride) {
  const auto bytes = static_cast<int64_t>(dtype_bytes(type));
  if (head_stride == 0) head_stride = part.dim;
  if (token_stride == 0) token_stride = static_cast<int64_t>(part.dim) * heads;
  // Appends only read through it.
  return {static_cast<uint8_t *>(const_cast<void *>(data)), token_stride * bytes,
          head_stride * bytes};
}

inline bool aligned_rows(const Rows &rows) {
  return rows.data == nullptr || (reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 &&
                                  rows.token_stride % 16 == 0 && rows.head_stride % 16 == 0);
}

// block 0: plain rows.
inline Deal make_deal(const quire_part_layout &part, uint32_t block, uint32_t n) {
  Deal d = {8, 0, 0};
  if (part.dim == 0) return d;
  const uint32_t blocks = block == 0 ? 4 : part.blocks;
  while (d.tile_tokens < kWarp && d.tile_tokens * blocks < kWarp) d.tile_tokens *= 2;
  d.tiles = (n + d.tile_tokens - 1) / d.tile_tokens;
  d.block_magic = ((1u << 20) + blocks - 1) / blocks;
  return d;
}

// K and V go together where every warp gets two tiles of both.
inline Tiles make_tiles(const Rows &k, const Rows &v, const Deal &deal_k, const Deal &deal_v,
                        uint32_t heads, uint32_t resident) {
  const uint32_t of_k = k.data != nullptr ? deal_k.tiles * heads : 0;
  const uint32_t of_v = v.data != nullptr ? deal_v.tiles * heads : 0;
  const uint64_t warps = uint64_t{processors()} * resident * (kCodecThreads / kWarp);
  const bool joint =
      of_k != 0 && of_v != 0 && deal_k.tile_tokens == deal_v.tile_tokens && of_k >= 2 * warps;
  return {joint ? 1u : 0u, of_k, joint ? of_k : of_k + of_v};
}

inline uint32_t block_of(const quire_part_layout &part) {
  return part.code_bits < 16 ? part.block : 0;
}

// Calls f(block size, k, v) once, or for K and V apart where their blocks differ; parts that are
// not in a call have nullptr.
template <class F>
cudaError_t for_one_block(uint32_t block, const Rows &k, const Rows &v, const F &f) {
  switch (block) {
    case 0:
      return f(std::integral_constant<uint32_t, 0>(), k, v);
    case 8:
      return f(std::integral_constant<uint32_t, 8>(), k, v);
    case 16:
      return f(std::integral_constant<uint32_t, 16>(), k, v);
    case 32:
      return f(std::integral_constant<uint32_t, 32>(), k, v);
    default:
      return f(std::integral_constant<uint32_t, 64>(), k, v);
  }
}

template <class F>
cudaError_t for_blocks(const quire_page_layout &layout, const Rows &k, const Rows &v, const F &f) {
  const uint32_t of_k = block_of(layout.k), of_v = block_of(layout.v);
  if (k.data == nullptr && v.data == nullptr) return cudaSuccess;
  if (k.data == nullptr) return for_one_block(of_v, k, v, f);
  if (v.data == nullptr || of_k == of_v) return for_one_block(of_k, k, v, f);
  const Rows none = {nullptr, 0, 0};
  const cudaError_t error = for_one_block(of_k, k, none, f);
  return error != cudaSuccess ? error : for_one_block(of_v, none, v, f);
}

// ---- device code

// One atomic a warp.
QUIRE_DEVICE void add_count(unsigned long long *counter, uint32_t count) {
  if (counter == nullptr) return;
  const uint32_t sum = __reduce_add_sync(kAllLanes, count);
  if (threadIdx.x % kWarp == 0 && sum != 0)
    atomicAdd(counter, static_cast<unsigned long long>(sum));
}

// Rows with values that are not finite, once more: NaN becomes 0, an infinity its row's largest
// finite magnitude; load(b) fills x with block b of the lane's row. Returns how many values of
// this block were not finite. Warps call it together.
template <uint32_t kBlock, class Load>
QUIRE_DEVICE uint32_t tame_and_rotate(const quire_part_layout &part, uint32_t block,
                                      const Load &load, float (&x)[kBlock]) {
  float largest = 0;
  QUIRE_ROLLED
  for (uint32_t b = 0; b < part.blocks; ++b) {
    load(b);
    largest = fmaxf(largest, finite_peak(x));
  }
  load(block);
  const uint32_t count = count_nonfinite(x);
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock; ++i) {
    if (!finite(x[i])) x[i] = x[i] != x[i] ? 0.0f : copysignf(largest, x[i]);
  }
  rotate<kBlock>(x, part.rotation_size, part.rotation_stored);
  return count;
}

// Tames and rotates a block that was loaded, where its part wants it; load(b) loads block b of the
// lane's row again. Returns how many values were not finite. Warps call it together.
template <uint32_t kBlock, class Load>
QUIRE_DEVICE uint32_t rotate_tamed(const quire_part_layout &part, uint32_t block, const Load &load,
                                   float (&x)[kBlock], float *largest) {
  if (part.rotation_size == 1) {
    *largest = peak(x);
    return *largest <= kLargest ? 0 : count_nonfinite(x);
  }
  rotate<kBlock>(x, part.rotation_size, part.rotation_stored);
  *largest = peak(x);
  // A value that is not finite spreads over its rotation; so does a sum that overflows.
  if (!__any_sync(kAllLanes, !(*largest <= kLargest))) return 0;
  const uint32_t count = tame_and_rotate<kBlock>(part, block, load, x);
  *largest = peak(x);
  return count;
}

}  // namespace quire::kernels::cuda
