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
  Tiles tiles;
  unsigned long long *nonfinite;
  uint32_t layer, n;
  DType dtype;
  uint32_t search;
};

// Headers of pages that the tile touches, and the statistics of direct ones.
QUIRE_DEVICE void mark_pages(const AppendTask &task, const Tile &tile, const Place &place) {
  if (place.frame == nullptr || !place.first || tile.with_k != (task.k.data != nullptr)) return;
  const quire_page_layout &layout = place.open ? task.codec.open : task.codec.sealed;
  if (tile.head == 0) write_header(layout, place.frame);
  if (layout.statistics != 0) {
    write_direct_statistics(layout,
                            place.frame + quire_head_offset(&layout, task.layer, tile.head));
  }
}

template <uint32_t kBlock>
QUIRE_DEVICE uint32_t encode_tile(const AppendTask &task, const PairView &view, const Tile &tile,
                                  bool is_k, const Place &place, uint32_t wanted,
                                  Stage<kBlock> *stage) {
  const quire_page_layout &layout = task.codec.sealed;
  const quire_part_layout &part = is_k ? layout.k : layout.v;
  const Rows &rows = is_k ? task.k : task.v;
  const Deal &deal = is_k ? task.deal_k : task.deal_v;
  const uint8_t *base = rows_at(rows, tile);
  const uint64_t chunk = quire_head_offset(&layout, task.layer, tile.head);
  const uint32_t bytes = kBlock * (task.dtype == DType::kF32 ? 4u : 2u);
  const bool staged = task.dtype != DType::kF32 && Stage<kBlock>::takes(part.blocks);
  uint32_t nonfinite = 0;
  QUIRE_ROLLED
  for (uint32_t begin = 0; begin < deal.tile_tokens * part.blocks; begin += kWarp) {
    const uint32_t at = begin + threadIdx.x % kWarp, token = at * deal.block_magic >> 20;
    const uint32_t block = at - token * part.blocks;
    const Place p = place_from(place, token % kWarp);
    const bool use = token < tile.tokens && (wanted >> token % kWarp & 1u) != 0;
    const uint8_t *row = use ? base + token * rows.token_stride : nullptr;
    float x[kBlock], largest;
    const auto load = [&](uint32_t b) {
      if (row != nullptr) {
        load_block<kBlock>(task.dtype, row + b * bytes, x);
      } else {
        QUIRE_UNROLL
        for (uint32_t i = 0; i < kBlock; ++i) x[i] = 0;
      }
    };
    if constexpr (kBlock < 64) {
      if (staged) {
        load_staged<kBlock>(task.dtype, base, rows.token_stride, part.blocks, begin, tile.tokens,
                            stage, x);
      } else {
        load(block);
      }
    } else {
      load(block);
    }
    const uint32_t bad = rotate_tamed<kBlock>(part, block, load, x, &largest);
    Encoded<kBlock> encoded;
    encode_block<kBlock>(task.codec, part, view, x, largest, kDirectExponent + QUIRE_EXPONENT_BIAS,
                         task.search != 0, &encoded);
    if (use) {
      nonfinite += bad;
      store_encoded<kBlock>(part, p.frame + chunk, p.offset, block, encoded);
    }
  }
  return nonfinite;
}

// Copies the rows of a tile that go as they are.
template <uint32_t kBlock>
QUIRE_DEVICE void append_plain(const AppendTask &task, const Tile &tile, const Place &place,
                               bool wanted) {
  const quire_page_layout &layout = kBlock == 0 ? task.codec.sealed : task.codec.open;
  const auto rows = [&](bool is_k) {
    const Rows &of = is_k ? task.k : task.v;
    return plain_rows(layout, is_k ? layout.k : layout.v, place, wanted, task.layer, tile.head,
                      rows_at(of, tile), of.token_stride);
  };
  if (tile.with_k && tile.with_v && layout.k.dim == layout.v.dim) {
    const PlainRows both[2] = {rows(true), rows(false)};
    plain_tile<true, 2>(both, layout.k, task.dtype, tile.tile_tokens);
    return;
  }
  QUIRE_ROLLED
  for (uint32_t part = tile.with_k ? 0 : 1; part < (tile.with_v ? 2u : 1u); ++part) {
    const PlainRows one[1] = {rows(part == 0)};
    plain_tile<true, 1>(one, part == 0 ? layout.k : layout.v, task.dtype, tile.tile_tokens);
  }
}

template <uint32_t kBlock>
struct AppendShared {
  PairShared pairs;
  Stage<kBlock> stages[kCodecThreads / kWarp];
};
template <>
struct AppendShared<0> {};

template <uint32_t kBlock>  // 0: plain formats
__global__ void __launch_bounds__(kCodecThreads, resident<kBlock>())
    append_kernel(const __grid_constant__ AppendTask task) {
  __shared__ AppendShared<kBlock> shared;
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
  if constexpr (kBlock != 0) {
    // A small call whose slots are all open needs no tables.
    if (__syncthreads_or(task.tiles.all > warps || raw.at >= 0)) {
      load_pairs(*task.codec.pairs, &shared.pairs);
      __syncthreads();
    }
  }
  uint32_t nonfinite = 0;
  Place place = {};
  bool fresh = true;  // the tile's tokens are others than those of the one before
  QUIRE_ROLLED
  for (; i < end; ++i) {
    if (fresh) {
      place = lane < tile.tokens
                  ? place_of(task.frames, task.map, page_tokens, raw, tile.first + lane)
                  : Place{};
    }
    if (lane < tile.tokens) mark_pages(task, tile, place);
    const Tile here = tile;
    if (i + 1 < end) {
      tile = next_tile(here, task.tiles, task.deal_k, task.deal_v, heads, task.n, i + 1);
      fresh = tile.first != here.first || tile.with_k != here.with_k;
      if (fresh) raw = fetch(tile);
    }
    const bool there = place.frame != nullptr;
    const bool plain = there && (kBlock == 0 || place.open);
    if (__any_sync(kAllLanes, plain)) append_plain<kBlock>(task, here, place, plain);
    if constexpr (kBlock != 0) {
      const PairView view = view_of(shared.pairs);
      const uint32_t sealed = __ballot_sync(kAllLanes, there && !place.open);
      QUIRE_ROLLED
      for (uint32_t part = here.with_k ? 0 : 1; part < (here.with_v ? 2u : 1u); ++part) {
        if (sealed == 0) break;
        nonfinite +=
            encode_tile<kBlock>(task, view, here, part == 0, place, sealed, &shared.stages[warp]);
      }
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
    part.tiles =
        make_tiles(part.k, part.v, part.deal_k, part.deal_v, layout.kv_heads, resident<kBlock>());
    const Grid grid = grid_for(part.tiles.all, resident<kBlock>());
    return launch(append_kernel<kBlock>, grid.blocks, grid.threads, stream, part);
  });
}

}  // namespace quire::kernels::cuda
