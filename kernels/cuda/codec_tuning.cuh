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

// How a kernel encodes.
enum class Way : uint32_t {
  kPlain,     // not at all
  kAny,       // as the codec says, decided block by block
  kTried,     // signed e4m3 scales through the table of pairs, both signs of one magnitude
  kSearched,  // the same, of four magnitudes
};

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

// Blocks below 16 have rows of a few dozen values: no kernels of their own for them.
inline Way way_of(const CudaCodec &codec, const quire_part_layout &part, bool search) {
  if (block_of(part) == 0) return Way::kPlain;
  const bool pairs = codec.paired != 0 && part.codec.codebook == QUIRE_CODEBOOK_TABLE16 &&
                     part.codec.scale == QUIRE_SCALE_E4M3 && part.rotation_size > 1;
  if (!pairs || part.block < 16) return Way::kAny;
  return search ? Way::kSearched : Way::kTried;
}

template <Way kWay>
using WayConstant = std::integral_constant<Way, kWay>;
template <uint32_t kNumber>
using Constant = std::integral_constant<uint32_t, kNumber>;

template <class F, class Fixed>
cudaError_t for_one_block(uint32_t block, const F &f, Fixed fixed) {
  switch (block) {
    case 8:
      return f(Constant<8>(), fixed);
    case 16:
      return f(Constant<16>(), fixed);
    case 32:
      return f(Constant<32>(), fixed);
    default:
      return f(Constant<64>(), fixed);
  }
}

// Calls f(block size, way) for a part; block size 0 and kPlain go together.
template <class F>
cudaError_t for_encoder(uint32_t block, Way way, const F &f) {
  if (way == Way::kPlain) return f(Constant<0>(), WayConstant<Way::kPlain>());
  if (way == Way::kAny) return for_one_block(block, f, WayConstant<Way::kAny>());
  const auto of_pairs = [&](auto fixed) {
    if (block == 16) return f(Constant<16>(), fixed);
    return block == 32 ? f(Constant<32>(), fixed) : f(Constant<64>(), fixed);
  };
  return way == Way::kTried ? of_pairs(WayConstant<Way::kTried>())
                            : of_pairs(WayConstant<Way::kSearched>());
}

// Calls f(k, v) once where both parts are in the call and alike, else for each that is, with rows
// that are not there for the other.
template <class F>
cudaError_t for_parts(const Rows &k, const Rows &v, bool alike, const F &f) {
  if (k.data == nullptr && v.data == nullptr) return cudaSuccess;
  if (k.data == nullptr || v.data == nullptr || alike) return f(k, v);
  const Rows none = {nullptr, 0, 0};
  const cudaError_t error = f(k, none);
  return error != cudaSuccess ? error : f(none, v);
}

// ---- calls that move rows

// All of a task but its parts; an error where the arguments are none that kernels can take.
template <class Args>
cudaError_t make_task(const CudaCodec &codec, const Args &args, RowsTask *task) {
  const quire_page_layout &layout = codec.sealed;
  if (args.layer >= layout.layers) return cudaErrorInvalidValue;
  task->codec = codec;
  task->frames = args.frames;
  task->map = args.map;
  task->layer = args.layer;
  task->n = args.n;
  task->dtype = args.dtype;
  task->k = make_rows(layout.k, layout.kv_heads, args.dtype, args.k, args.k_token_stride,
                      args.k_head_stride);
  task->v = make_rows(layout.v, layout.kv_heads, args.dtype, layout.v.dim != 0 ? args.v : nullptr,
                      args.v_token_stride, args.v_head_stride);
  return aligned_rows(task->k) && aligned_rows(task->v) ? cudaSuccess : cudaErrorInvalidValue;
}

// Launches a kernel for the parts that have rows.
inline cudaError_t launch_rows(void (*kernel)(RowsTask), uint32_t block, uint32_t resident,
                               RowsTask task, const Rows &k, const Rows &v, cudaStream_t stream) {
  const quire_page_layout &layout = task.codec.sealed;
  task.k = k;
  task.v = v;
  task.deal_k = make_deal(layout.k, block, task.n);
  task.deal_v = make_deal(layout.v, block, task.n);
  task.tiles = make_tiles(k, v, task.deal_k, task.deal_v, layout.kv_heads, resident);
  const Grid grid = grid_for(task.tiles.all, resident);
  return launch_early(kernel, grid.blocks, grid.threads, stream, task);
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
