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
  Tiles tiles;
  uint32_t layer, n;
  DType dtype;
};

// What a warp keeps between tiles.
struct WarpTurn {
  PageTurn *turn;
  uint32_t page;  // whose turn that is
  bool made;
};

QUIRE_DEVICE void zero_rows(uint8_t *base, int64_t stride, uint32_t row_bytes, uint32_t nowhere) {
  for (; nowhere != 0; nowhere &= nowhere - 1) {
    const auto token = static_cast<uint32_t>(__ffs(static_cast<int>(nowhere)) - 1);
    for (uint32_t i = threadIdx.x % kWarp * 16; i < row_bytes; i += kWarp * 16) {
      *reinterpret_cast<uint4 *>(base + token * stride + i) = make_uint4(0, 0, 0, 0);
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
QUIRE_DEVICE void decode_tile(const GatherTask &task, const DecodeView &view, const Tile &tile,
                              bool is_k, const Place &place, uint32_t wanted, WarpTurn *kept,
                              Stage<kBlock> *stage) {
  const quire_page_layout &layout = task.codec.sealed;
  const quire_part_layout &part = is_k ? layout.k : layout.v;
  const Rows &rows = is_k ? task.k : task.v;
  const Deal &deal = is_k ? task.deal_k : task.deal_v;
  uint8_t *base = rows_at(rows, tile);
  const uint64_t head = quire_head_offset(&layout, task.layer, tile.head);
  const uint32_t bytes = kBlock * (task.dtype == DType::kF32 ? 4u : 2u);
  const bool staged = task.dtype != DType::kF32 && Stage<kBlock>::takes(part.blocks);
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
      const uint32_t exponent = (is_k ? statistics.x : statistics.x >> 8) & 255u;
      decode_block<kBlock>(part, view, chunk, p.offset, block, exponent, x);
    } else {
      QUIRE_UNROLL
      for (uint32_t i = 0; i < kBlock; ++i) x[i] = 0;
    }
    if (part.rotation_size > 1) rotate<kBlock>(x, part.rotation_size, part.rotation_read);
    if (is_k && part.codec.anchor != 0) {
      const bool anchored = (statistics.x >> 16 & QUIRE_HEAD_ANCHORED) != 0;
      add_anchors<kBlock>(task, tile, anchored, statistics.y, p.offset, block, kept, x);
    }
    if constexpr (kBlock < 64) {
      if (staged) {
        store_staged<kBlock>(task.dtype, x, base, rows.token_stride, part.blocks, begin, wanted,
                             stage);
        continue;
      }
    }
    if (use) store_block<kBlock>(task.dtype, x, base + token * rows.token_stride + block * bytes);
  }
}

template <uint32_t kBlock>
QUIRE_DEVICE void gather_plain(const GatherTask &task, const Tile &tile, const Place &place,
                               bool wanted) {
  const quire_page_layout &layout = kBlock == 0 ? task.codec.sealed : task.codec.open;
  const auto rows = [&](bool is_k) {
    const Rows &of = is_k ? task.k : task.v;
    return plain_rows(layout, is_k ? layout.k : layout.v, place, wanted, task.layer, tile.head,
                      rows_at(of, tile), of.token_stride);
  };
  if (tile.with_k && tile.with_v && layout.k.dim == layout.v.dim) {
    const PlainRows both[2] = {rows(true), rows(false)};
    plain_tile<false, 2>(both, layout.k, task.dtype, tile.tile_tokens);
    return;
  }
  QUIRE_ROLLED
  for (uint32_t part = tile.with_k ? 0 : 1; part < (tile.with_v ? 2u : 1u); ++part) {
    const PlainRows one[1] = {rows(part == 0)};
    plain_tile<false, 1>(one, part == 0 ? layout.k : layout.v, task.dtype, tile.tile_tokens);
  }
}

template <uint32_t kBlock>
struct GatherShared {
  DecodeShared values;
  PageTurn turns[kCodecThreads / kWarp];
  Stage<kBlock> stages[kCodecThreads / kWarp];
};
template <>
struct GatherShared<0> {};

template <uint32_t kBlock>  // 0: plain formats
__global__ void __launch_bounds__(kCodecThreads, resident<kBlock>())
    gather_kernel(const __grid_constant__ GatherTask task) {
  __shared__ GatherShared<kBlock> shared;
  const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const uint32_t heads = task.codec.sealed.kv_heads, page_tokens = task.codec.sealed.page_tokens;
  const uint32_t warps = gridDim.x * (blockDim.x / kWarp);
  // A warp's tiles follow one another: heads of the same tokens, so the same pages.
  const uint32_t share = (task.tiles.all + warps - 1) / warps;
  uint32_t i = (blockIdx.x * (blockDim.x / kWarp) + warp) * share;
  const uint32_t end = min(i + share, task.tiles.all);
  const auto fetch = [&](const Tile &tile) {
    return lane < tile.tokens ? fetch_place(task.map, page_tokens, tile.first + lane)
                              : RawPlace{-1, -1};
  };
  Tile tile =
      tile_of(task.tiles, task.deal_k, task.deal_v, heads, task.n, i < task.tiles.all ? i : 0);
  RawPlace raw = fetch(tile);
  WarpTurn kept = {nullptr, 0, false};
  if constexpr (kBlock != 0) {
    kept.turn = &shared.turns[warp];
    load_values(task.codec, &shared.values);
    __syncthreads();
  }
  Place place = {};
  bool fresh = true;  // the tile's tokens are others than those of the one before
  QUIRE_ROLLED
  for (; i < end; ++i) {
    if (fresh) {
      place = lane < tile.tokens
                  ? place_of(task.frames, task.map, page_tokens, raw, tile.first + lane)
                  : Place{};
    }
    const Tile here = tile;
    if (i + 1 < end) {
      tile = next_tile(here, task.tiles, task.deal_k, task.deal_v, heads, task.n, i + 1);
      fresh = tile.first != here.first || tile.with_k != here.with_k;
      if (fresh) raw = fetch(tile);
    }
    const bool there = place.frame != nullptr;
    const uint32_t nowhere = __ballot_sync(kAllLanes, lane < here.tokens && !there);
    const bool plain = there && (kBlock == 0 || place.open);
    const uint32_t value_bytes = task.dtype == DType::kF32 ? 4 : 2;
    if (nowhere != 0 && here.with_k) {
      zero_rows(rows_at(task.k, here), task.k.token_stride, task.codec.sealed.k.dim * value_bytes,
                nowhere);
    }
    if (nowhere != 0 && here.with_v) {
      zero_rows(rows_at(task.v, here), task.v.token_stride, task.codec.sealed.v.dim * value_bytes,
                nowhere);
    }
    if (__any_sync(kAllLanes, plain)) gather_plain<kBlock>(task, here, place, plain);
    if constexpr (kBlock != 0) {
      const DecodeView view = view_of(shared.values);
      const uint32_t sealed = __ballot_sync(kAllLanes, there && !place.open);
      QUIRE_ROLLED
      for (uint32_t part = here.with_k ? 0 : 1; part < (here.with_v ? 2u : 1u); ++part) {
        if (sealed == 0) break;
        decode_tile<kBlock>(task, view, here, part == 0, place, sealed, &kept,
                            &shared.stages[warp]);
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
    part.tiles =
        make_tiles(part.k, part.v, part.deal_k, part.deal_v, layout.kv_heads, resident<kBlock>());
    const Grid grid = grid_for(part.tiles.all, resident<kBlock>());
    return launch(gather_kernel<kBlock>, grid.blocks, grid.threads, stream, part);
  });
}

}  // namespace quire::kernels::cuda
