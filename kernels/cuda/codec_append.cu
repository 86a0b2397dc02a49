// Append on a GPU: rows of tokens into pages, plain or encoded. See cuda_codec.h, codec_tile.cuh.
//
// Whether a token's page is open or sealed is in its slot, so one kernel does both: a warp copies
// the open rows of its tile, then encodes the sealed ones. Formats without open pages have a
// smaller kernel of their own. Grids are persistent: each CTA fills its tables once.
//
// Encoding with signed scales has kernels of its own (Way), which read a step's rows while they
// encode the one before; a step that their table does not serve, and every other format, goes by
// encode_step, a function of its own, so that what is rare takes neither registers nor instruction
// cache from what is not.
//
// Thread class: host calls any thread. Cost: memory-bound for open pages; see quire-bench --gpu.
#include "kernels/cuda/codec_encode.cuh"
#include "kernels/cuda/codec_plain.cuh"
#include "kernels/cuda/codec_tile.cuh"
#include "kernels/cuda/codec_tuning.cuh"
#include "kernels/cuda/cuda_codec.h"
#include "kernels/cuda/launch.cuh"

namespace quire::kernels::cuda {
namespace {

// Headers of pages that the tile touches, and the statistics of direct ones.
QUIRE_DEVICE void mark_pages(const RowsTask &task, const Tile &tile, const Place &place) {
  if (place.frame == nullptr || !place.first || tile.with_k != (task.k.data != nullptr)) return;
  const quire_page_layout &layout = place.open ? task.codec.open : task.codec.sealed;
  if (tile.head == 0) write_header(layout, place.frame);
  if (layout.statistics != 0) {
    write_direct_statistics(layout,
                            place.frame + quire_head_offset(&layout, task.layer, tile.head));
  }
}

constexpr uint32_t kDirectByte = kDirectExponent + QUIRE_EXPONENT_BIAS;

// One step of a tile, whatever is in it. Returns this lane's values that were not finite.
template <uint32_t kBlock>
QUIRE_OUTLINED uint32_t encode_step(const RowsTask &task, const PairShared &pairs, Tile tile,
                                    bool is_k, Place place, uint32_t wanted, uint32_t begin) {
  const quire_page_layout &layout = task.codec.sealed;
  const quire_part_layout &part = is_k ? layout.k : layout.v;
  const Rows &rows = is_k ? task.k : task.v;
  const LaneBlock at(is_k ? task.deal_k : task.deal_v, part, tile, place, wanted, begin);
  const uint8_t *row = at.use ? rows_at(rows, tile) + at.token * rows.token_stride : nullptr;
  const uint32_t bytes = kBlock * (task.dtype == DType::kF32 ? 4u : 2u);
  float x[kBlock], largest;
  const auto load = [&](uint32_t b) {
    if (row != nullptr) {
      load_block<kBlock>(task.dtype, row + b * bytes, x);
    } else {
      QUIRE_UNROLL
      for (uint32_t i = 0; i < kBlock; ++i) x[i] = 0;
    }
  };
  load(at.block);
  const uint32_t bad = rotate_tamed<kBlock>(part, at.block, load, x, &largest);
  Encoded<kBlock> encoded;
  encode_block<kBlock>(task.codec, part, view_of(pairs), x, largest, kDirectByte, task.search != 0,
                       &encoded);
  if (!at.use) return 0;
  store_encoded<kBlock>(part, at.place.frame + quire_head_offset(&layout, task.layer, tile.head),
                        at.place.offset, at.block, encoded);
  return bad;
}

// Whether rows go by way of a Stage.
template <uint32_t kBlock>
QUIRE_DEVICE bool staged(const RowsTask &task, bool is_k) {
  const quire_page_layout &layout = task.codec.sealed;
  return task.dtype != DType::kF32 && Stage<kBlock>::takes((is_k ? layout.k : layout.v).blocks);
}

// Rows of 16-bit values on their way to a warp.
template <uint32_t kBlock>
struct RowsAhead {
  uint4 pieces[kBlock / 8];
  bool ready;

  QUIRE_DEVICE void ask(const RowsTask &task, const Tile &tile, bool is_k, uint32_t begin) {
    ready = staged<kBlock>(task, is_k);
    if (!ready) return;
    const Rows &rows = is_k ? task.k : task.v;
    load_pieces<kBlock>(rows_at(rows, tile), rows.token_stride,
                        (is_k ? task.codec.sealed.k : task.codec.sealed.v).blocks, begin,
                        tile.tokens, pieces);
  }
  // The first step of the next tile, if it has sealed rows.
  QUIRE_DEVICE void ask_behind(const RowsTask &task, Walk *walk) {
    ready = false;
    if (!walk->more()) return;
    walk->resolve(task);
    const bool sealed = walk->next_place.frame != nullptr && !walk->next_place.open;
    if (__any_sync(kAllLanes, sealed)) ask(task, walk->next, walk->next.with_k, 0);
  }
};

// The sealed rows of a tile that the table of pairs is made for.
template <uint32_t kBlock, bool kSearch>
QUIRE_DEVICE uint32_t encode_pairs(const RowsTask &task, const PairShared &pairs, Walk *walk,
                                   uint32_t wanted, Stage<kBlock> *stage, RowsAhead<kBlock> *ahead) {
  const quire_page_layout &layout = task.codec.sealed;
  const PairView view = view_of(pairs);
  const Tile tile = walk->tile;
  uint32_t nonfinite = 0, begin = 0;
  bool is_k = tile.with_k, last = false;
  QUIRE_ROLLED
  while (!last) {
    const quire_part_layout &part = is_k ? layout.k : layout.v;
    const Deal &deal = is_k ? task.deal_k : task.deal_v;
    const uint32_t now = begin;
    const bool now_k = is_k;
    begin += kWarp;
    if (begin >= deal.tile_tokens * part.blocks) {
      begin = 0;
      last = !(is_k && tile.with_v);
      is_k = false;
    }
    const LaneBlock at(deal, part, tile, walk->place, wanted, now);
    float x[kBlock];
    if (staged<kBlock>(task, now_k)) {
      if constexpr (kBlock < 64) {
        if (!ahead->ready) ahead->ask(task, tile, now_k, now);
        exchange_pieces<kBlock>(ahead->pieces, stage);
        widen_pieces<kBlock>(task.dtype, ahead->pieces, x);
        if (!last) {
          ahead->ask(task, tile, is_k, begin);
        } else {
          ahead->ask_behind(task, walk);
        }
      }
    } else {
      const uint32_t row = at.token < tile.tokens ? at.token : 0;
      load_block<kBlock>(task.dtype,
                         rows_at(now_k ? task.k : task.v, tile) +
                             row * (now_k ? task.k : task.v).token_stride +
                             at.block * (kBlock * dtype_bytes(task.dtype)),
                         x);
    }
    rotate<kBlock>(x, part.rotation_size, part.rotation_stored);
    const float largest = peak(x);
    if (__any_sync(kAllLanes, !pairs_reach<kSearch>(largest, kDirectByte))) {
      nonfinite += encode_step<kBlock>(task, pairs, tile, now_k, walk->place, wanted, now);
      continue;
    }
    Encoded<kBlock> encoded;
    encode_pair<kBlock, kSearch>(view, x, largest, kDirectByte, &encoded);
    if (at.use) {
      store_encoded<kBlock>(part,
                            at.place.frame + quire_head_offset(&layout, task.layer, tile.head),
                            at.place.offset, at.block, encoded);
    }
  }
  return nonfinite;
}

template <uint32_t kBlock, Way kWay>
struct AppendShared {
  PairShared pairs;
  Stage<kBlock> stages[kCodecThreads / kWarp];
};
template <uint32_t kBlock>
struct AppendShared<kBlock, Way::kAny> {
  PairShared pairs;
};
template <>
struct AppendShared<0, Way::kPlain> {};

template <uint32_t kBlock, Way kWay>
__global__ void __launch_bounds__(kCodecThreads, resident<kBlock>())
    append_kernel(const __grid_constant__ RowsTask task) {
  __shared__ AppendShared<kBlock, kWay> shared;
  Walk walk;
  walk.begin(task);
  if constexpr (kWay != Way::kPlain) {
    const PairPart part(*task.codec.pairs);
    // A small call whose slots are all open needs no tables.
    const uint32_t warps = gridDim.x * (blockDim.x / kWarp);
    if (__syncthreads_or(task.tiles.all > warps || walk.raw.at >= 0)) {
      part.fill(&shared.pairs);
      __syncthreads();
    }
  }
  uint32_t nonfinite = 0;
  RowsAhead<kBlock == 0 ? 8 : kBlock> ahead;
  ahead.ready = false;
  QUIRE_ROLLED
  while (walk.more()) {
    walk.enter(task);
    const Place &place = walk.place;
    const Tile &tile = walk.tile;
    if (threadIdx.x % kWarp < tile.tokens) mark_pages(task, tile, place);
    const bool there = place.frame != nullptr;
    const bool plain = there && (kWay == Way::kPlain || place.open);
    if (__any_sync(kAllLanes, plain)) {
      move_plain<true, kWay != Way::kPlain>(task, tile, place, plain);
    }
    if constexpr (kWay != Way::kPlain) {
      const uint32_t sealed = __ballot_sync(kAllLanes, there && !place.open);
      if (sealed == 0) continue;
      if constexpr (kWay == Way::kAny) {
        QUIRE_ROLLED
        for (uint32_t part = tile.with_k ? 0 : 1; part < (tile.with_v ? 2u : 1u); ++part) {
          const bool is_k = part == 0;
          const uint32_t blocks = (is_k ? task.deal_k : task.deal_v).tile_tokens *
                                  (is_k ? task.codec.sealed.k : task.codec.sealed.v).blocks;
          QUIRE_ROLLED
          for (uint32_t begin = 0; begin < blocks; begin += kWarp) {
            nonfinite += encode_step<kBlock>(task, shared.pairs, tile, is_k, place, sealed, begin);
          }
        }
      } else {
        nonfinite += encode_pairs<kBlock, kWay == Way::kSearched>(
            task, shared.pairs, &walk, sealed, &shared.stages[threadIdx.x / kWarp], &ahead);
      }
    }
  }
  add_count(task.nonfinite, nonfinite);
}

}  // namespace

cudaError_t append(const CudaCodec &codec, const AppendArgs &args, unsigned long long *nonfinite,
                   cudaStream_t stream) noexcept {
  RowsTask task = {};
  const cudaError_t error = make_task(codec, args, &task);
  if (error != cudaSuccess || args.n == 0) return error;
  task.search = args.search ? 1 : 0;
  task.nonfinite = nonfinite;
  const quire_page_layout &layout = codec.sealed;
  const Way way_k = way_of(codec, layout.k, args.search),
            way_v = way_of(codec, layout.v, args.search);
  const bool alike = way_k == way_v && block_of(layout.k) == block_of(layout.v);
  return for_parts(task.k, task.v, alike, [&](const Rows &k, const Rows &v) {
    const bool of_k = k.data != nullptr;
    return for_encoder(block_of(of_k ? layout.k : layout.v), of_k ? way_k : way_v,
                       [&](auto block, auto way) {
                         constexpr uint32_t kBlock = decltype(block)::value;
                         return launch_rows(append_kernel<kBlock, decltype(way)::value>, kBlock,
                                            resident<kBlock>(), task, k, v, stream);
                       });
  });
}

}  // namespace quire::kernels::cuda
