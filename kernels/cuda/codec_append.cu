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
// Thread class: host calls any thread. Cost: memory-bound for open pages, else 44 instructions a value,
// 95 searched; see quire-bench --gpu.
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
  if (place.frame == nullptr || !place.first || tile.with_k(task) != (task.k.data != nullptr))
    return;
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
                                    Step step, Place place, uint32_t wanted) {
  const quire_page_layout &layout = task.codec.sealed;
  const quire_part_layout &part = task.part(step.is_k);
  const Rows &rows = task.rows(step.is_k);
  const LaneBlock at(task, tile, step, place, wanted);
  const uint8_t *row = at.use ? rows_at(rows, tile) + at.token * rows.token_stride : nullptr;
  const uint32_t bytes = kBlock * dtype_bytes(task.dtype);
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

// Asks for the rows of a step, where they go by way of the stage. Returns whether they do.
template <uint32_t kBlock>
QUIRE_DEVICE bool ask_rows(const RowsTask &task, const Tile &tile, const Step &step,
                           Stage<kBlock> *stage) {
  const uint32_t blocks = task.part(step.is_k).blocks;
  if (task.dtype == DType::kF32 || !Stage<kBlock>::takes(blocks)) return false;
  if constexpr (kBlock < 64) {
    const Rows &rows = task.rows(step.is_k);
    ask_pieces<kBlock>(rows_at(rows, tile), rows.token_stride, blocks, step.begin,
                       tile.tokens(task), stage);
  }
  return true;
}

// The values of a step, asked for or not; then asks for the next step's.
template <uint32_t kBlock>
QUIRE_DEVICE void take_rows(const RowsTask &task, const Walk &walk, const Step &step,
                            const LaneBlock &at, Stage<kBlock> *stage, bool *asked,
                            float (&x)[kBlock]) {
  const Tile &tile = walk.tile;
  if (!*asked) *asked = ask_rows<kBlock>(task, tile, step, stage);
  if (!*asked) {
    const Rows &rows = task.rows(step.is_k);
    const uint32_t row = at.token < tile.tokens(task) ? at.token : 0;
    load_block<kBlock>(task.dtype,
                       rows_at(rows, tile) + row * rows.token_stride +
                           at.block * (kBlock * dtype_bytes(task.dtype)),
                       x);
    return;
  }
  if constexpr (kBlock < 64) {
    uint4 q[kBlock / 8];
    take_pieces<kBlock>(*stage, q);
    widen_pieces<kBlock>(task.dtype, q, x);
  }
  *asked = false;
  if (!step.last) {
    *asked = ask_rows<kBlock>(task, tile, step.next(task, tile), stage);
  } else if (walk.more() && sealed_tokens(walk.next_place(task)) != 0) {
    const Tile next = walk.next(task);
    *asked = ask_rows<kBlock>(task, next, Step::first(task, next), stage);
  }
}

// A step that the table of pairs is made for.
template <uint32_t kBlock, bool kSearch>
QUIRE_DEVICE uint32_t encode_pairs(const RowsTask &task, const PairShared &pairs, const Walk &walk,
                                   const Step &step, uint32_t wanted, Stage<kBlock> *stage,
                                   bool *asked) {
  const quire_part_layout &part = task.part(step.is_k);
  const LaneBlock at(task, walk.tile, step, walk.place, wanted);
  uint8_t *chunk =
      at.place.frame + quire_head_offset(&task.codec.sealed, task.layer, walk.tile.head);
  float x[kBlock];
  take_rows<kBlock>(task, walk, step, at, stage, asked, x);
  rotate<kBlock>(x, part.rotation_size, part.rotation_stored);
  const float largest = peak(x);
  if (__any_sync(kAllLanes, !pairs_reach<kSearch>(largest, kDirectByte))) {
    return encode_step<kBlock>(task, pairs, walk.tile, step, walk.place, wanted);
  }
  Encoded<kBlock> encoded;
  encode_pair<kBlock, kSearch>(view_of(pairs), x, largest, kDirectByte, &encoded);
  if (at.use) store_encoded<kBlock>(part, chunk, at.place.offset, at.block, encoded);
  return 0;
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
  let_next_begin();
  if constexpr (kWay == Way::kPlain) {
    wait_for_stream();
    walk.begin(task);
  } else {
    const PairPart part(*task.codec.pairs);
    wait_for_stream();
    walk.begin(task);
    // Needed whatever the slots will say, which are on their way.
    if (walk.more()) prefetch_call(task, walk.next(task));
    // A small call whose slots are all open needs no tables.
    const uint32_t warps = gridDim.x * (blockDim.x / kWarp);
    if (__syncthreads_or(task.tiles.all > warps || walk.raw.at >= 0)) {
      part.fill(&shared.pairs);
      __syncthreads();
    }
  }
  uint32_t nonfinite = 0;
  bool asked = false;
  QUIRE_ROLLED
  while (walk.more()) {
    walk.enter(task);
    const Place &place = walk.place;
    if (threadIdx.x % kWarp < walk.tile.tokens(task)) mark_pages(task, walk.tile, place);
    const bool plain = place.frame != nullptr && (kWay == Way::kPlain || place.open);
    if (__any_sync(kAllLanes, plain)) {
      if (walk.more()) prefetch_call(task, walk.next(task));
      move_plain<true, kWay != Way::kPlain>(task, walk.tile, place, plain);
    }
    if constexpr (kWay != Way::kPlain) {
      const uint32_t sealed = sealed_tokens(place);
      Step step = Step::first(task, walk.tile);
      QUIRE_ROLLED
      for (bool more = sealed != 0; more; step = step.next(task, walk.tile)) {
        more = !step.last;
        if constexpr (kWay == Way::kAny) {
          nonfinite += encode_step<kBlock>(task, shared.pairs, walk.tile, step, place, sealed);
        } else {
          nonfinite += encode_pairs<kBlock, kWay == Way::kSearched>(
              task, shared.pairs, walk, step, sealed, &shared.stages[threadIdx.x / kWarp], &asked);
        }
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
