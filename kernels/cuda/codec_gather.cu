// Gather on a GPU: pages into plain rows. See cuda_codec.h, codec_tile.cuh.
//
// A warp takes a tile: tokens that are nowhere become zeros, open rows are copied, sealed ones are
// decoded, turned back and get their anchor; the codes of the next step are read meanwhile. The turn
// of a page is kept by each warp as long as its tiles lie in that page; tiles whose tokens lie in
// several pages take one page after another.
//
// Thread class: host calls any thread. Cost: open pages are memory-bound, sealed ones bound by 31
// instructions a value; see quire-bench --gpu.
#include "kernels/cuda/codec_anchor.cuh"
#include "kernels/cuda/codec_decode.cuh"
#include "kernels/cuda/codec_plain.cuh"
#include "kernels/cuda/codec_tile.cuh"
#include "kernels/cuda/codec_tuning.cuh"
#include "kernels/cuda/cuda_codec.h"
#include "kernels/cuda/launch.cuh"

namespace quire::kernels::cuda {
namespace {

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

QUIRE_DEVICE void zero_tile(const RowsTask &task, const Tile &tile, uint32_t nowhere) {
  const quire_page_layout &layout = task.codec.sealed;
  const uint32_t bytes = dtype_bytes(task.dtype);
  if (tile.with_k(task)) {
    zero_rows(rows_at(task.k, tile), task.k.token_stride, layout.k.dim * bytes, nowhere);
  }
  if (tile.with_v(task)) {
    zero_rows(rows_at(task.v, tile), task.v.token_stride, layout.v.dim * bytes, nowhere);
  }
}

// A step's codes on their way to a warp.
template <uint32_t kBlock, uint32_t kBits>
struct CodesAhead {
  Coded<kBlock, kBits> coded;
  uint32_t statistics, page_index;  // of the block's head
  bool ready;

  QUIRE_DEVICE void ask(const RowsTask &task, const Tile &tile, bool is_k, const LaneBlock &at) {
    const quire_page_layout &layout = task.codec.sealed;
    ready = true;
    statistics = page_index = 0;
    coded = {};
    if (!at.use) return;
    const uint8_t *chunk = at.place.frame + quire_head_offset(&layout, task.layer, tile.head);
    if (layout.statistics != 0) {
      const uint2 s = *reinterpret_cast<const uint2 *>(chunk + layout.statistics);
      statistics = s.x, page_index = s.y;
    }
    fetch_block(task.part(is_k), chunk, at.place.offset, at.block, &coded);
  }
};

// Adds anchors to the lanes that want one, page by page.
template <uint32_t kBlock>
QUIRE_DEVICE void add_anchors(const RowsTask &task, const Tile &tile, bool anchored, uint32_t page,
                              uint32_t token, uint32_t block, WarpTurn *kept, float (&x)[kBlock]) {
  uint32_t waiting = __ballot_sync(kAllLanes, anchored);
  if (waiting == 0) return;
  const float *mean =
      task.codec.means == nullptr ? nullptr : mean_of(task.codec, task.layer, tile.head);
  QUIRE_ROLLED
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
QUIRE_DEVICE void store_rows(const RowsTask &task, const Tile &tile, const Step &step,
                             uint32_t wanted, const LaneBlock &at, Stage<kBlock> *stage,
                             const float (&x)[kBlock]) {
  const Rows &rows = task.rows(step.is_k);
  const uint32_t blocks = task.part(step.is_k).blocks;
  uint8_t *base = rows_at(rows, tile);
  if constexpr (kBlock < 64) {
    if (task.dtype != DType::kF32 && Stage<kBlock>::takes(blocks)) {
      store_staged<kBlock>(task.dtype, x, base, rows.token_stride, blocks, step.begin, wanted,
                           stage);
      return;
    }
  }
  if (!at.use) return;
  store_block<kBlock>(
      task.dtype, x,
      base + at.token * rows.token_stride + at.block * (kBlock * dtype_bytes(task.dtype)));
}

// A step's sealed rows; asks for the next step's.
template <uint32_t kBlock, uint32_t kBits>
QUIRE_DEVICE void decode_step(const RowsTask &task, const DecodeView &view, const Walk &walk,
                              const Step &step, uint32_t wanted, WarpTurn *kept,
                              Stage<kBlock> *stage, CodesAhead<kBlock, kBits> *ahead) {
  const quire_part_layout &part = task.part(step.is_k);
  const LaneBlock at(task, walk.tile, step, walk.place, wanted);
  if (!ahead->ready) ahead->ask(task, walk.tile, step.is_k, at);
  const uint32_t statistics = ahead->statistics, page_index = ahead->page_index;
  float x[kBlock];
  decode_fetched<kBlock, kBits>(part, view, ahead->coded,
                                (step.is_k ? statistics : statistics >> 8) & 255u, x);
  ahead->ready = false;
  if (!step.last) {
    const Step next = step.next(task, walk.tile);
    ahead->ask(task, walk.tile, next.is_k, LaneBlock(task, walk.tile, next, walk.place, wanted));
  } else if (walk.more()) {
    const Place place = walk.next_place(task);
    const uint32_t sealed = sealed_tokens(place);
    if (sealed != 0) {
      const Tile next = walk.next(task);
      const Step first = Step::first(task, next);
      ahead->ask(task, next, first.is_k, LaneBlock(task, next, first, place, sealed));
    }
  }
  if (part.rotation_size > 1) rotate<kBlock>(x, part.rotation_size, part.rotation_read);
  if (step.is_k && part.codec.anchor != 0) {
    const bool anchored = (statistics >> 16 & QUIRE_HEAD_ANCHORED) != 0;
    add_anchors<kBlock>(task, walk.tile, anchored, page_index, at.place.offset, at.block, kept, x);
  }
  store_rows<kBlock>(task, walk.tile, step, wanted, at, stage, x);
}

template <uint32_t kBlock>
struct GatherShared {
  DecodeShared values;
  PageTurn turns[kCodecThreads / kWarp];
  Stage<kBlock> stages[kCodecThreads / kWarp];
};
template <>
struct GatherShared<0> {};

template <uint32_t kBlock, uint32_t kBits>  // 0, 0: plain formats
__global__ void __launch_bounds__(kCodecThreads, resident<kBlock>())
    gather_kernel(const __grid_constant__ RowsTask task) {
  __shared__ GatherShared<kBlock> shared;
  const uint32_t warp = threadIdx.x / kWarp;
  Walk walk;
  let_next_begin();
  WarpTurn kept = {nullptr, 0, false};
  if constexpr (kBlock != 0) {
    kept.turn = &shared.turns[warp];
    load_values(task.codec, &shared.values);
  }
  wait_for_stream();
  walk.begin(task);
  if constexpr (kBlock != 0) __syncthreads();
  CodesAhead<kBlock == 0 ? 8 : kBlock, kBits == 0 ? 4 : kBits> ahead = {};
  QUIRE_ROLLED
  while (walk.more()) {
    walk.enter(task);
    const Place &place = walk.place;
    const bool there = place.frame != nullptr;
    const uint32_t nowhere =
        __ballot_sync(kAllLanes, threadIdx.x % kWarp < walk.tile.tokens(task) && !there);
    if (nowhere != 0) zero_tile(task, walk.tile, nowhere);
    const bool plain = there && (kBlock == 0 || place.open);
    if (__any_sync(kAllLanes, plain)) {
      move_plain<false, kBlock != 0>(task, walk.tile, place, plain);
    }
    if constexpr (kBlock != 0) {
      const uint32_t sealed = sealed_tokens(place);
      Step step = Step::first(task, walk.tile);
      QUIRE_ROLLED
      for (bool more_steps = sealed != 0; more_steps; step = step.next(task, walk.tile)) {
        more_steps = !step.last;
        decode_step<kBlock, kBits>(task, view_of(shared.values), walk, step, sealed, &kept,
                                   &shared.stages[warp], &ahead);
      }
    }
  }
}

}  // namespace

cudaError_t gather(const CudaCodec &codec, const GatherArgs &args, cudaStream_t stream) noexcept {
  RowsTask task = {};
  const cudaError_t error = make_task(codec, args, &task);
  if (error != cudaSuccess || args.n == 0) return error;
  const quire_page_layout &layout = codec.sealed;
  const bool alike =
      block_of(layout.k) == block_of(layout.v) && layout.k.code_bits == layout.v.code_bits;
  return for_parts(task.k, task.v, alike, [&](const Rows &k, const Rows &v) {
    const quire_part_layout &part = k.data != nullptr ? layout.k : layout.v;
    const auto run = [&](auto block, auto bits) {
      constexpr uint32_t kBlock = decltype(block)::value;
      return launch_rows(gather_kernel<kBlock, decltype(bits)::value>, kBlock, resident<kBlock>(),
                         task, k, v, stream);
    };
    if (block_of(part) == 0) return run(Constant<0>(), Constant<0>());
    return part.code_bits == 8 ? for_one_block(part.block, run, Constant<8>())
                               : for_one_block(part.block, run, Constant<4>());
  });
}

}  // namespace quire::kernels::cuda
