// Gather on a GPU: pages into plain rows. See cuda_codec.h, codec_tile.cuh.
//
// A warp takes a tile: tokens that are nowhere become zeros, open rows are copied, sealed ones are
// decoded, turned back and get their anchor. The turn of a page is kept by each warp as long as its
// tiles lie in that page; tiles whose tokens lie in several pages take one page after another.
//
// Thread class: host calls any thread. Cost: memory-bound; see quire-bench --gpu.
#include "kernels/cuda/codec_anchor.cuh"
#include "kernels/cuda/codec_tile.cuh"
#include "kernels/cuda/codec_tuning.cuh"
#include "kernels/cuda/cuda_codec.h"
#include "kernels/cuda/launch.cuh"

namespace quire::kernels::cuda {
namespace {

struct GatherTask {
  CudaCodec codec;
  Frames frames;
  TokenMap map;
  Rows k, v;
  Deal deal_k, deal_v;
  uint32_t layer, n;
  DType dtype;
};

// What a warp keeps between tiles.
struct WarpTurn {
  PageTurn *turn;
  uint32_t page;  // whose turn that is
  bool made;
};

QUIRE_DEVICE void zero_rows(const Tile &tile, const Rows &rows, uint32_t row_bytes,
                            uint32_t nowhere) {
  for (; nowhere != 0; nowhere &= nowhere - 1) {
    const auto token = static_cast<uint32_t>(__ffs(static_cast<int>(nowhere)) - 1);
    uint8_t *row = tile.base + token * rows.token_stride;
    for (uint32_t i = threadIdx.x % kWarp * 16; i < row_bytes; i += kWarp * 16) {
      *reinterpret_cast<uint4 *>(row + i) = make_uint4(0, 0, 0, 0);
    }
  }
}

// Adds anchors to the lanes that want one, page by page.
template <uint32_t kBlock>
QUIRE_DEVICE void add_anchors(const GatherTask &task, const Tile &tile, bool anchored,
                              uint32_t page, uint32_t token, uint32_t block, WarpTurn *kept,
                              float (&x)[kBlock]) {
  const float *mean =
      task.codec.means == nullptr ? nullptr : mean_of(task.codec, task.layer, tile.head);
  uint32_t waiting = __ballot_sync(kAllLanes, anchored);
  while (waiting != 0) {
    const uint32_t next = __shfl_sync(kAllLanes, page, __ffs(static_cast<int>(waiting)) - 1);
    if (!kept->made || kept->page != next) {
      __syncwarp();
      make_page_turn(task.codec.turns, next, threadIdx.x % kWarp, kWarp, kept->turn);
      __syncwarp();
      kept->made = true;
      kept->page = next;
    }
    const bool mine = anchored && page == next;
    if (mine) {
      apply_anchor<kBlock, false>(task.codec.turns, mean, token, *kept->turn, block, x);
    }
    waiting &= ~__ballot_sync(kAllLanes, mine);
  }
}

template <uint32_t kBlock>
QUIRE_DEVICE void decode_tile(const GatherTask &task, const DecodeShared &shared, const Tile &tile,
                              const Place &place, uint32_t wanted, WarpTurn *kept) {
  const quire_page_layout &layout = task.codec.sealed;
  const quire_part_layout &part = tile.is_k ? layout.k : layout.v;
  const Rows &rows = tile.is_k ? task.k : task.v;
  const Deal &deal = tile.is_k ? task.deal_k : task.deal_v;
  const uint64_t head = quire_head_offset(&layout, task.layer, tile.head);
  const uint32_t bytes = kBlock * (task.dtype == DType::kF32 ? 4u : 2u);
  QUIRE_ROLLED
  for (uint32_t begin = 0; begin < deal.tile_tokens * part.blocks; begin += kWarp) {
    const uint32_t at = begin + threadIdx.x % kWarp, token = at * deal.block_magic >> 20;
    const uint32_t block = at - token * part.blocks;
    const Place p = place_from(place, token % kWarp);
    const bool use = token < tile.tokens && (wanted >> token % kWarp & 1u) != 0;
    const uint8_t *chunk = p.frame + head;
    uint4 statistics = make_uint4(0, 0, 0, 0);
    float x[kBlock];
    if (use) {
      if (layout.statistics != 0) {
        statistics = *reinterpret_cast<const uint4 *>(chunk + layout.statistics);
      }
      const uint32_t exponent = (tile.is_k ? statistics.x : statistics.x >> 8) & 255u;
      decode_block<kBlock>(part, shared, chunk, p.offset, block, exponent, x);
    } else {
      QUIRE_UNROLL
      for (uint32_t i = 0; i < kBlock; ++i) x[i] = 0;
    }
    if (part.rotation_size > 1) rotate<kBlock>(x, part.rotation_size, part.rotation_read);
    if (tile.is_k && part.codec.anchor != 0) {
      const bool anchored = (statistics.x >> 16 & QUIRE_HEAD_ANCHORED) != 0;
      add_anchors<kBlock>(task, tile, anchored, statistics.y, p.offset, block, kept, x);
    }
    if (use) {
      store_block<kBlock>(task.dtype, x, tile.base + token * rows.token_stride + block * bytes);
    }
  }
}

template <uint32_t kBlock>  // 0: plain formats
__global__ void __launch_bounds__(kCodecThreads)
    gather_kernel(const __grid_constant__ GatherTask task) {
  __shared__ DecodeShared shared;
  __shared__ PageTurn turns[kBlock == 0 ? 1 : kCodecThreads / kWarp];
  if constexpr (kBlock != 0) {
    load_values(task.codec, &shared);
    __syncthreads();
  }
  const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  WarpTurn kept = {&turns[kBlock == 0 ? 0 : warp], 0, false};
  const uint32_t heads = task.codec.sealed.kv_heads, page_tokens = task.codec.sealed.page_tokens;
  const uint32_t tiles_k = task.k.data != nullptr ? task.deal_k.tiles * heads : 0;
  const uint32_t tiles = tiles_k + (task.v.data != nullptr ? task.deal_v.tiles * heads : 0);
  for (uint32_t i = blockIdx.x * (blockDim.x / kWarp) + warp; i < tiles;
       i += gridDim.x * (blockDim.x / kWarp)) {
    const Tile tile = tile_of(task.k, task.v, task.deal_k, task.deal_v, heads, tiles_k, task.n, i);
    const Deal &deal = tile.is_k ? task.deal_k : task.deal_v;
    const Rows &rows = tile.is_k ? task.k : task.v;
    Place place = {};
    if (lane < tile.tokens) {
      place = place_of(task.frames, task.map, page_tokens, tile.first + lane);
    }
    const uint32_t here = __ballot_sync(kAllLanes, place.frame != nullptr);
    const uint32_t open = __ballot_sync(kAllLanes, place.frame != nullptr && place.open);
    const uint32_t all = __ballot_sync(kAllLanes, lane < tile.tokens);
    const quire_part_layout &sealed = tile.is_k ? task.codec.sealed.k : task.codec.sealed.v;
    if (here != all) {
      zero_rows(tile, rows, sealed.dim * (task.dtype == DType::kF32 ? 4u : 2u), all & ~here);
    }
    const uint32_t plain = kBlock == 0 ? here : open;
    if (plain != 0) {
      const quire_page_layout &layout = kBlock == 0 ? task.codec.sealed : task.codec.open;
      plain_tile<false>(layout, tile.is_k ? layout.k : layout.v, place, plain, task.layer,
                        tile.head, task.dtype, tile.base, rows.token_stride, deal.tile_tokens);
    }
    if constexpr (kBlock != 0) {
      if ((here & ~open) != 0) {
        decode_tile<kBlock>(task, shared, tile, place, here & ~open, &kept);
      }
    }
  }
}

}  // namespace

cudaError_t gather(const CudaCodec &codec, const GatherArgs &args, cudaStream_t stream) noexcept {
  const quire_page_layout &layout = codec.sealed;
  if (args.layer >= layout.layers) return cudaErrorInvalidValue;
  GatherTask task = {};
  task.codec = codec;
  task.frames = args.frames;
  task.map = args.map;
  task.layer = args.layer;
  task.n = args.n;
  task.dtype = args.dtype;
  const bool has_v = layout.v.dim != 0;
  const Rows k_rows = make_rows(layout.k, layout.kv_heads, args.dtype, args.k, args.k_token_stride,
                                args.k_head_stride);
  const Rows v_rows = make_rows(layout.v, layout.kv_heads, args.dtype, has_v ? args.v : nullptr,
                                args.v_token_stride, args.v_head_stride);
  if (!aligned_rows(k_rows) || !aligned_rows(v_rows)) return cudaErrorInvalidValue;
  if (args.n == 0) return cudaSuccess;
  return for_blocks(layout, k_rows, v_rows, [&](auto size, const Rows &k, const Rows &v) {
    constexpr uint32_t kBlock = decltype(size)::value;
    GatherTask part = task;
    part.k = k;
    part.v = v;
    part.deal_k = make_deal(layout.k, kBlock, args.n);
    part.deal_v = make_deal(layout.v, kBlock, args.n);
    const uint32_t tiles = (k.data != nullptr ? part.deal_k.tiles * layout.kv_heads : 0) +
                           (v.data != nullptr ? part.deal_v.tiles * layout.kv_heads : 0);
    return launch(gather_kernel<kBlock>, grid_for(tiles), kCodecThreads, stream, part);
  });
}

}  // namespace quire::kernels::cuda
