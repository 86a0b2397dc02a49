// Append on a GPU: rows of tokens into pages, plain or encoded. See cuda_codec.h, codec_tile.cuh.
//
// Whether a token's page is open or sealed is in its slot, so one kernel does both: a warp copies
// the open rows of its tile, then encodes the sealed ones. Formats without open pages have a
// smaller kernel of their own. Grids are persistent: each CTA fills its tables once.
//
// Thread class: host calls any thread. Cost: memory-bound for open pages; see quire-bench --gpu.
#include "kernels/cuda/codec_tile.cuh"
#include "kernels/cuda/codec_tuning.cuh"
#include "kernels/cuda/cuda_codec.h"
#include "kernels/cuda/launch.cuh"

namespace quire::kernels::cuda {
namespace {

struct AppendTask {
  CudaCodec codec;
  Frames frames;
  TokenMap map;
  Rows k, v;
  Deal deal_k, deal_v;
  unsigned long long *nonfinite;
  uint32_t layer, n;
  DType dtype;
  uint32_t search;
};

// Headers of pages that the tile touches, and the statistics of direct ones.
QUIRE_DEVICE void mark_pages(const AppendTask &task, const Tile &tile, const Place &place) {
  if (place.frame == nullptr || !place.first || tile.is_k != (task.k.data != nullptr)) return;
  const quire_page_layout &layout = place.open ? task.codec.open : task.codec.sealed;
  if (tile.head == 0) write_header(layout, place.frame);
  if (layout.statistics != 0) {
    write_direct_statistics(layout,
                            place.frame + quire_head_offset(&layout, task.layer, tile.head));
  }
}

// Rows of a tile as the encoder wants them: converted, tamed, rotated. Warps call it together;
// row nullptr: zeros.
template <uint32_t kBlock>
QUIRE_DEVICE uint32_t prepare_rows(const quire_part_layout &part, DType type, const uint8_t *row,
                                   uint32_t block, float (&x)[kBlock]) {
  const uint32_t bytes = kBlock * (type == DType::kF32 ? 4u : 2u);
  const auto load = [&](uint32_t b) {
    if (row != nullptr) {
      load_block<kBlock>(type, row + b * bytes, x);
    } else {
      QUIRE_UNROLL
      for (uint32_t i = 0; i < kBlock; ++i) x[i] = 0;
    }
  };
  load(block);
  if (part.rotation_size == 1) {
    return peak(x) <= kLargest ? 0 : count_nonfinite(x);
  }
  rotate<kBlock>(x, part.rotation_size, part.rotation_stored);
  // A value that is not finite spreads over its rotation; so does a sum that overflows.
  if (!__any_sync(kAllLanes, !(peak(x) <= kLargest))) return 0;
  return tame_and_rotate<kBlock>(part, block, load, x);
}

template <uint32_t kBlock>
QUIRE_DEVICE uint32_t encode_tile(const AppendTask &task, const PairShared &shared,
                                  const Tile &tile, const Place &place, uint32_t wanted) {
  const quire_page_layout &layout = task.codec.sealed;
  const quire_part_layout &part = tile.is_k ? layout.k : layout.v;
  const Rows &rows = tile.is_k ? task.k : task.v;
  const Deal &deal = tile.is_k ? task.deal_k : task.deal_v;
  const uint64_t chunk = quire_head_offset(&layout, task.layer, tile.head);
  uint32_t nonfinite = 0;
  QUIRE_ROLLED
  for (uint32_t begin = 0; begin < deal.tile_tokens * part.blocks; begin += kWarp) {
    const uint32_t at = begin + threadIdx.x % kWarp, token = at * deal.block_magic >> 20;
    const uint32_t block = at - token * part.blocks;
    const Place p = place_from(place, token % kWarp);
    const bool use = token < tile.tokens && (wanted >> token % kWarp & 1u) != 0;
    const uint8_t *row = use ? tile.base + token * rows.token_stride : nullptr;
    float x[kBlock];
    nonfinite += prepare_rows<kBlock>(part, task.dtype, row, block, x);
    Encoded<kBlock> encoded;
    encode_block<kBlock>(task.codec, part, shared, x, peak(x),
                         kDirectExponent + QUIRE_EXPONENT_BIAS, task.search != 0, &encoded);
    if (use) store_encoded<kBlock>(part, p.frame + chunk, p.offset, block, encoded);
  }
  return nonfinite;
}

template <uint32_t kBlock>  // 0: plain formats
__global__ void __launch_bounds__(kCodecThreads)
    append_kernel(const __grid_constant__ AppendTask task) {
  __shared__ PairShared shared;
  if constexpr (kBlock != 0) {
    load_pairs(*task.codec.pairs, &shared);
    __syncthreads();
  }
  const uint32_t lane = threadIdx.x % kWarp;
  const uint32_t heads = task.codec.sealed.kv_heads, page_tokens = task.codec.sealed.page_tokens;
  const uint32_t tiles_k = task.k.data != nullptr ? task.deal_k.tiles * heads : 0;
  const uint32_t tiles = tiles_k + (task.v.data != nullptr ? task.deal_v.tiles * heads : 0);
  const uint32_t warps = gridDim.x * (blockDim.x / kWarp);
  uint32_t nonfinite = 0;
  for (uint32_t i = blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp; i < tiles;
       i += warps) {
    const Tile tile = tile_of(task.k, task.v, task.deal_k, task.deal_v, heads, tiles_k, task.n, i);
    const Rows &rows = tile.is_k ? task.k : task.v;
    Place place = {};
    if (lane < tile.tokens) {
      place = place_of(task.frames, task.map, page_tokens, tile.first + lane);
      mark_pages(task, tile, place);
    }
    const uint32_t open = __ballot_sync(kAllLanes, place.frame != nullptr && place.open);
    const uint32_t sealed = __ballot_sync(kAllLanes, place.frame != nullptr && !place.open);
    const uint32_t plain = kBlock == 0 ? open | sealed : open;
    if (plain != 0) {
      const quire_page_layout &layout = kBlock == 0 ? task.codec.sealed : task.codec.open;
      plain_tile<true>(layout, tile.is_k ? layout.k : layout.v, place, plain, task.layer, tile.head,
                       task.dtype, tile.base, rows.token_stride,
                       tile.is_k ? task.deal_k.tile_tokens : task.deal_v.tile_tokens);
    }
    if constexpr (kBlock != 0) {
      if (sealed != 0) nonfinite += encode_tile<kBlock>(task, shared, tile, place, sealed);
    }
  }
  add_count(task.nonfinite, nonfinite);
}

}  // namespace

cudaError_t append(const CudaCodec &codec, const AppendArgs &args, unsigned long long *nonfinite,
                   cudaStream_t stream) noexcept {
  const quire_page_layout &layout = codec.sealed;
  if (args.layer >= layout.layers) return cudaErrorInvalidValue;
  AppendTask task = {};
  task.codec = codec;
  task.frames = args.frames;
  task.map = args.map;
  task.layer = args.layer;
  task.n = args.n;
  task.dtype = args.dtype;
  task.search = args.search ? 1 : 0;
  task.nonfinite = nonfinite;
  const bool has_v = layout.v.dim != 0;
  task.k = make_rows(layout.k, layout.kv_heads, args.dtype, args.k, args.k_token_stride,
                     args.k_head_stride);
  task.v = make_rows(layout.v, layout.kv_heads, args.dtype, has_v ? args.v : nullptr,
                     args.v_token_stride, args.v_head_stride);
  if (!aligned_rows(task.k) || !aligned_rows(task.v)) return cudaErrorInvalidValue;
  if (args.n == 0) return cudaSuccess;
  return for_blocks(layout, task.k, task.v, [&](auto size, const Rows &k, const Rows &v) {
    constexpr uint32_t kBlock = decltype(size)::value;
    AppendTask part = task;
    part.k = k;
    part.v = v;
    part.deal_k = make_deal(layout.k, kBlock, args.n);
    part.deal_v = make_deal(layout.v, kBlock, args.n);
    const uint32_t tiles = (k.data != nullptr ? part.deal_k.tiles * layout.kv_heads : 0) +
                           (v.data != nullptr ? part.deal_v.tiles * layout.kv_heads : 0);
    return launch(append_kernel<kBlock>, grid_for(tiles), kCodecThreads, stream, part);
  });
}

}  // namespace quire::kernels::cuda
