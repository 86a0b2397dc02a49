// Seal and unseal on a GPU. See cuda_codec.h.
//
// A *slot* of a CTA, 32 to 256 threads, takes K or V of one head of one layer in one page. Threads
// own blocks as in codec_block.cuh. A page's exponent depends on all of a head's rows: where these
// fit the slot they stay in registers while the slot agrees on its exponent, else they are prepared
// a second time. CTAs are persistent, so tables are filled once.
//
// K and V of a head write disjoint bytes of its statistics.
//
// Thread class: host calls any thread. Cost: see quire-bench --gpu.
#include "kernels/cuda/codec_anchor.cuh"
#include "kernels/cuda/codec_tile.cuh"
#include "kernels/cuda/codec_tuning.cuh"
#include "kernels/cuda/cuda_codec.h"
#include "kernels/cuda/launch.cuh"

namespace quire::kernels::cuda {
namespace {

constexpr uint32_t kMaxSlots = kCodecThreads / kWarp;

struct SealTask {
  CudaCodec codec;
  Frames frames;
  unsigned long long *nonfinite;
  uint32_t pages, tokens, search;
  uint32_t with_k, with_v;  // parts of this launch
  uint32_t slot_threads;
  uint32_t from[kFramesALaunch], to[kFramesALaunch], page_index[kFramesALaunch];
};
static_assert(sizeof(SealTask) <= 4096);

// What a slot works on. Jobs count over pages, layers, heads and, fastest, K and V: so ranges of jobs
// cost the same.
struct Job {
  uint32_t number, all;
  uint32_t parts, part;  // part 0 of two is K
  uint32_t page, layer, head;
  bool is_k;

  QUIRE_DEVICE bool active() const { return number < all; }
};

QUIRE_DEVICE Job job_of(const SealTask &task, uint32_t number) {
  const uint32_t heads = task.codec.sealed.kv_heads, layers = task.codec.sealed.layers;
  Job j;
  j.number = number;
  j.parts = task.with_k + task.with_v;
  j.all = task.pages * layers * heads * j.parts;
  j.part = number & (j.parts - 1);
  j.is_k = task.with_k != 0 && j.part == 0;
  const uint32_t n = number >> (j.parts - 1);
  j.head = n % heads;
  j.layer = n / heads % layers;
  j.page = n / heads / layers;
  if (j.page >= task.pages) j.page = 0;  // not active: reads nothing, but names a frame
  return j;
}

// `step` jobs on, without divisions.
QUIRE_DEVICE void advance(const SealTask &task, uint32_t step, Job *j) {
  const uint32_t heads = task.codec.sealed.kv_heads, layers = task.codec.sealed.layers;
  const uint32_t parts = j->part + step;
  j->number += step;
  j->part = parts & (j->parts - 1);
  j->is_k = task.with_k != 0 && j->part == 0;
  j->head += parts >> (j->parts - 1);
  while (j->head >= heads) {
    j->head -= heads;
    if (++j->layer == layers) j->layer = 0, ++j->page;
  }
  if (j->page >= task.pages) j->page = 0;
}

template <uint32_t kBlock>
struct SealShared {
  PairShared pairs;
  PageTurn turns[kMaxSlots];
  Stage<kBlock> stages[kCodecThreads / kWarp];
  uint32_t largest[kMaxSlots];
};

struct Row {
  uint32_t token, block;
  bool written;  // below the seal's token count
};

QUIRE_DEVICE Row row_of(const quire_part_layout &part, uint32_t tokens, uint32_t flat) {
  Row r;
  r.token = flat / part.blocks;
  r.block = flat - r.token * part.blocks;
  r.written = r.token < tokens;
  return r;
}

// Block of an open row, minus its anchor, tamed and rotated. `begin` is the flat number of the
// warp's first block. Returns its values that were not finite. Warps call it together.
template <uint32_t kBlock>
QUIRE_DEVICE uint32_t prepare_open(const SealTask &task, const Job &job, const PageTurn &turn,
                                   bool anchored, const uint8_t *open, const Row &row,
                                   uint32_t begin, Stage<kBlock> *stage, float (&x)[kBlock],
                                   float *largest) {
  const quire_part_layout &part = job.is_k ? task.codec.sealed.k : task.codec.sealed.v;
  const quire_part_layout &from = job.is_k ? task.codec.open.k : task.codec.open.v;
  const auto subtract = [&](uint32_t b) {
    if (!anchored || !row.written) return;
    apply_anchor<kBlock, true>(task.codec.turns, mean_of(task.codec, job.layer, job.head),
                               row.token, turn, b, x);
  };
  const auto load = [&](uint32_t b) {
    if (!row.written) {
      QUIRE_UNROLL
      for (uint32_t i = 0; i < kBlock; ++i) x[i] = 0;
      return;
    }
    load_block<kBlock>(DType::kF16, open + quire_row_offset(&from, row.token) + b * (kBlock * 2),
                       x);
    subtract(b);
  };
  if constexpr (kBlock < 64) {
    if (Stage<kBlock>::takes(part.blocks)) {
      load_staged<kBlock>(DType::kF16, open + from.codes, from.row_bytes, part.blocks, begin,
                          task.tokens, stage, x);
      subtract(row.block);
    } else {
      load(row.block);
    }
  } else {
    load(row.block);
  }
  return rotate_tamed<kBlock>(part, row.block, load, x, largest);
}

QUIRE_DEVICE void finish_head(const SealTask &task, const Job &job, uint8_t *frame, uint8_t *sealed,
                              uint32_t exponent, bool anchored) {
  const quire_page_layout &layout = task.codec.sealed;
  if (layout.statistics != 0) {
    if (job.is_k) {
      const bool alone = layout.v.dim == 0;
      write_k_statistics(layout, sealed, exponent, anchored ? QUIRE_HEAD_ANCHORED : 0u,
                         task.page_index[job.page], alone, 0);
    } else {
      sealed[layout.statistics + 1] = static_cast<uint8_t>(exponent);
    }
  }
  if (job.is_k && job.layer == 0 && job.head == 0) write_header(layout, frame);
}

template <uint32_t kBlock>
__global__ void __launch_bounds__(kCodecThreads, resident<kBlock>())
    seal_kernel(const __grid_constant__ SealTask task) {
  __shared__ SealShared<kBlock> shared;
  const PairView view = view_of(shared.pairs);
  Stage<kBlock> *stage = &shared.stages[threadIdx.x / kWarp];
  load_pairs(*task.codec.pairs, &shared.pairs);
  const uint32_t width = task.slot_threads, slot = threadIdx.x / width;
  const uint32_t index = threadIdx.x % width, slots = kCodecThreads / width;
  const quire_page_layout &layout = task.codec.sealed;
  const uint32_t jobs = task.pages * layout.layers * layout.kv_heads * (task.with_k + task.with_v);
  // A CTA's jobs follow one another: one page's layers and heads, whose turn is made once.
  const uint32_t share = ((jobs + slots - 1) / slots + gridDim.x - 1) / gridDim.x * slots;
  const uint32_t begin = blockIdx.x * share, end = min(begin + share, jobs);
  Job job = job_of(task, begin + slot);
  uint32_t turned_page = 0;
  bool turned = false;
  uint32_t nonfinite = 0;
  QUIRE_ROLLED
  for (uint32_t first = begin; first < end; first += slots, advance(task, slots, &job)) {
    const quire_part_layout &part = job.is_k ? layout.k : layout.v;
    uint8_t *frame = task.frames.sealed.base + task.to[job.page] * task.frames.sealed.stride;
    uint8_t *sealed = frame + quire_head_offset(&layout, job.layer, job.head);
    const uint8_t *open = task.frames.open.base + task.from[job.page] * task.frames.open.stride +
                          quire_head_offset(&task.codec.open, job.layer, job.head);
    const bool anchored = job.active() && job.is_k && task.codec.anchored != nullptr &&
                          task.codec.anchored[job.layer] != 0;
    __syncthreads();  // the turn and the maximum of the job before are no longer read
    if (anchored && !(turned && turned_page == task.page_index[job.page])) {
      turned_page = task.page_index[job.page];
      turned = true;
      make_page_turn(task.codec.turns, turned_page, index, width, &shared.turns[slot]);
    }
    if (index == 0) shared.largest[slot] = 0;
    __syncthreads();
    const uint32_t blocks = job.active() ? layout.page_tokens * part.blocks : 0;
    const bool once = blocks <= width;
    float x[kBlock], largest = 0, largest_here = 0;
    Row row = {};
    QUIRE_ROLLED
    for (uint32_t at = 0; at < blocks; at += width) {
      row = row_of(part, at + index < blocks ? task.tokens : 0, at + index);
      nonfinite += prepare_open<kBlock>(task, job, shared.turns[slot], anchored, open, row,
                                        at + index / kWarp * kWarp, stage, x, &largest);
      largest_here = fmaxf(largest_here, largest <= kLargest ? largest : finite_peak(x));
    }
    const uint32_t of_warp = __reduce_max_sync(kAllLanes, bits(largest_here));
    if (threadIdx.x % kWarp == 0) atomicMax(&shared.largest[slot], of_warp);
    __syncthreads();
    const uint32_t exponent = exponent_of(from_bits(shared.largest[slot]));
    QUIRE_ROLLED
    for (uint32_t at = 0; at < blocks; at += width) {
      const bool use = at + index < blocks;
      if (!once) {
        row = row_of(part, use ? task.tokens : 0, at + index);
        prepare_open<kBlock>(task, job, shared.turns[slot], anchored, open, row,
                             at + index / kWarp * kWarp, stage, x, &largest);
      }
      Encoded<kBlock> encoded;
      encode_block<kBlock>(task.codec, part, view, x, largest, exponent, task.search != 0,
                           &encoded);
      if (use) store_encoded<kBlock>(part, sealed, row.token, row.block, encoded);
    }
    if (job.active() && index == 0) finish_head(task, job, frame, sealed, exponent, anchored);
  }
  add_count(task.nonfinite, nonfinite);
}

template <uint32_t kBlock>
__global__ void __launch_bounds__(kCodecThreads, resident<kBlock>())
    unseal_kernel(const __grid_constant__ SealTask task) {
  __shared__ DecodeShared shared;
  __shared__ PageTurn turns[kMaxSlots];
  load_values(task.codec, &shared);
  const DecodeView view = view_of(shared);
  const uint32_t width = task.slot_threads, slot = threadIdx.x / width;
  const uint32_t index = threadIdx.x % width, slots = kCodecThreads / width;
  const quire_page_layout &layout = task.codec.sealed;
  const uint32_t jobs = task.pages * layout.layers * layout.kv_heads * (task.with_k + task.with_v);
  // A CTA's jobs follow one another: one page's layers and heads, whose turn is made once.
  const uint32_t share = ((jobs + slots - 1) / slots + gridDim.x - 1) / gridDim.x * slots;
  const uint32_t begin = blockIdx.x * share, end = min(begin + share, jobs);
  Job job = job_of(task, begin + slot);
  uint32_t turned_page = 0;
  bool turned = false;
  QUIRE_ROLLED
  for (uint32_t first = begin; first < end; first += slots, advance(task, slots, &job)) {
    const quire_part_layout &part = job.is_k ? layout.k : layout.v;
    const quire_part_layout &to = job.is_k ? task.codec.open.k : task.codec.open.v;
    const uint8_t *sealed = task.frames.sealed.base +
                            task.from[job.page] * task.frames.sealed.stride +
                            quire_head_offset(&layout, job.layer, job.head);
    uint8_t *frame = task.frames.open.base + task.to[job.page] * task.frames.open.stride;
    uint8_t *open = frame + quire_head_offset(&task.codec.open, job.layer, job.head);
    uint4 statistics = make_uint4(0, 0, 0, 0);
    if (job.active() && layout.statistics != 0) {
      statistics = *reinterpret_cast<const uint4 *>(sealed + layout.statistics);
    }
    const bool anchored =
        job.is_k && task.codec.means != nullptr && (statistics.x >> 16 & QUIRE_HEAD_ANCHORED) != 0;
    __syncthreads();
    if (anchored && !(turned && turned_page == statistics.y)) {
      turned_page = statistics.y;
      turned = true;
      make_page_turn(task.codec.turns, turned_page, index, width, &turns[slot]);
    }
    __syncthreads();
    const uint32_t exponent = (job.is_k ? statistics.x : statistics.x >> 8) & 255u;
    const uint32_t blocks = job.active() ? layout.page_tokens * part.blocks : 0;
    QUIRE_ROLLED
    for (uint32_t at = 0; at < blocks; at += width) {
      const bool use = at + index < blocks;
      const Row row = row_of(part, layout.page_tokens, use ? at + index : 0);
      float x[kBlock];
      decode_block<kBlock>(part, view, sealed, row.token, row.block, exponent, x);
      if (part.rotation_size > 1) rotate<kBlock>(x, part.rotation_size, part.rotation_read);
      if (anchored) {
        apply_anchor<kBlock, false>(task.codec.turns, mean_of(task.codec, job.layer, job.head),
                                    row.token, turns[slot], row.block, x);
      }
      if (use) {
        store_block<kBlock>(DType::kF16, x,
                            open + quire_row_offset(&to, row.token) + row.block * (kBlock * 2));
      }
    }
    if (job.active() && index == 0 && job.is_k && job.layer == 0 && job.head == 0) {
      write_header(task.codec.open, frame);
    }
  }
}

// Threads a slot: the blocks of a head, within 32 ... 256.
uint32_t slot_width(const quire_page_layout &layout, bool with_k, bool with_v) {
  uint32_t blocks = with_k ? layout.page_tokens * layout.k.blocks : 0;
  if (with_v && layout.page_tokens * layout.v.blocks > blocks) {
    blocks = layout.page_tokens * layout.v.blocks;
  }
  uint32_t width = kWarp;
  while (width < kCodecThreads && width < blocks) width *= 2;
  return width;
}

// Batches of pages, parts of different blocks apart: kernel(block size) names what runs.
template <class Kernel>
cudaError_t for_batches(const CudaCodec &codec, const SealArgs &args, unsigned long long *nonfinite,
                        cudaStream_t stream, const Kernel &kernel) {
  const quire_page_layout &layout = codec.sealed;
  if (!quire_format_has_open_pages(layout.format)) return cudaErrorInvalidValue;
  if (args.pages == 0) return cudaSuccess;
  if (args.from == nullptr || args.to == nullptr || args.frames.open.base == nullptr ||
      args.frames.sealed.base == nullptr) {
    return cudaErrorInvalidValue;
  }
  SealTask task = {};
  task.codec = codec;
  task.frames = args.frames;
  task.nonfinite = nonfinite;
  task.tokens =
      args.tokens == 0 || args.tokens > layout.page_tokens ? layout.page_tokens : args.tokens;
  task.search = args.search ? 1 : 0;
  for (uint32_t begin = 0; begin < args.pages; begin += kFramesALaunch) {
    task.pages = args.pages - begin < kFramesALaunch ? args.pages - begin : kFramesALaunch;
    for (uint32_t i = 0; i < task.pages; ++i) {
      task.from[i] = args.from[begin + i];
      task.to[i] = args.to[begin + i];
      task.page_index[i] = args.page_index != nullptr ? args.page_index[begin + i] : 0;
    }
    // for_blocks asks for rows: any address says that a part is there.
    const Rows there = {args.frames.open.base, 0, 0};
    const Rows none = {nullptr, 0, 0};
    const Rows v_part = layout.v.dim != 0 ? there : none;
    const cudaError_t error =
        for_blocks(layout, there, v_part, [&](auto size, const Rows &k, const Rows &v) {
          constexpr uint32_t kBlock = decltype(size)::value;
          task.with_k = k.data != nullptr ? 1 : 0;
          task.with_v = v.data != nullptr ? 1 : 0;
          task.slot_threads = slot_width(layout, task.with_k != 0, task.with_v != 0);
          const uint64_t jobs =
              uint64_t{task.pages} * layout.layers * layout.kv_heads * (task.with_k + task.with_v);
          const uint64_t ctas = (jobs * task.slot_threads + kCodecThreads - 1) / kCodecThreads;
          const uint64_t most = uint64_t{processors()} * resident<kBlock>();
          const auto grid = static_cast<uint32_t>(ctas < most ? ctas : most);
          if constexpr (kBlock == 0) {
            return cudaErrorInvalidValue;
          } else {
            return launch(kernel(size), grid, kCodecThreads, stream, task);
          }
        });
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t seal(const CudaCodec &codec, const SealArgs &args, unsigned long long *nonfinite,
                 cudaStream_t stream) noexcept {
  return for_batches(codec, args, nonfinite, stream,
                     [](auto size) { return seal_kernel<decltype(size)::value>; });
}

cudaError_t unseal(const CudaCodec &codec, const SealArgs &args, cudaStream_t stream) noexcept {
  return for_batches(codec, args, nullptr, stream,
                     [](auto size) { return unseal_kernel<decltype(size)::value>; });
}

}  // namespace quire::kernels::cuda
