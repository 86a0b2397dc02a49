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
#include "kernels/cuda/codec_decode.cuh"
#include "kernels/cuda/codec_encode.cuh"
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

QUIRE_DEVICE uint32_t blocks_of(const SealTask &task, const Job &job) {
  const quire_page_layout &layout = task.codec.sealed;
  return job.active() ? layout.page_tokens * (job.is_k ? layout.k : layout.v).blocks : 0;
}

// A head's largest magnitudes, a warp each; two sets, used in turns.
struct WarpPeaks {
  uint32_t of_warp[2][kCodecThreads / kWarp];
};

template <uint32_t kBlock, Way kWay>
struct SealShared {
  PairShared pairs;
  PageTurn turns[kMaxSlots];
  Stage<kBlock> stages[kCodecThreads / kWarp];
  WarpPeaks peaks;
};
template <uint32_t kBlock>
struct SealShared<kBlock, Way::kAny> {
  PairShared pairs;
  PageTurn turns[kMaxSlots];
  WarpPeaks peaks;
};

// The threads of a slot, whole warps, meet; others go on. Barrier 0 is the CTA's.
QUIRE_DEVICE void meet(uint32_t slot, uint32_t width) {
  if (width == kWarp) {
    __syncwarp();
  } else {
    named_barrier(slot + 1, width);
  }
}

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

// Where a job reads and writes.
struct Chunks {
  uint8_t *frame, *sealed;
  const uint8_t *open;

  QUIRE_DEVICE Chunks(const SealTask &task, const Job &job) {
    const quire_page_layout &layout = task.codec.sealed;
    frame = task.frames.sealed.base + task.to[job.page] * task.frames.sealed.stride;
    sealed = frame + quire_head_offset(&layout, job.layer, job.head);
    open = task.frames.open.base + task.from[job.page] * task.frames.open.stride +
           quire_head_offset(&task.codec.open, job.layer, job.head);
  }
};

struct Found {
  float largest;
  uint32_t nonfinite;
};

constexpr uint32_t kNoExponent = ~0u;

// One block of an open row a lane, whatever is in it: minus its anchor, tamed and rotated; encoded
// and stored where an exponent is given. Blocks from `blocks` on are none. Warps call it together.
template <uint32_t kBlock>
QUIRE_OUTLINED Found seal_step(const SealTask &task, const PairShared &pairs, const PageTurn &turn,
                               Job job, bool anchored, uint32_t flat, uint32_t blocks,
                               uint32_t exponent) {
  const quire_part_layout &part = job.is_k ? task.codec.sealed.k : task.codec.sealed.v;
  const quire_part_layout &from = job.is_k ? task.codec.open.k : task.codec.open.v;
  const Chunks chunks(task, job);
  const Row row = row_of(part, flat < blocks ? task.tokens : 0, flat);
  float x[kBlock], largest;
  const auto load = [&](uint32_t b) {
    if (!row.written) {
      QUIRE_UNROLL
      for (uint32_t i = 0; i < kBlock; ++i) x[i] = 0;
      return;
    }
    load_block<kBlock>(DType::kF16,
                       chunks.open + quire_row_offset(&from, row.token) + b * (kBlock * 2), x);
    if (!anchored) return;
    apply_anchor<kBlock, true>(task.codec.turns, mean_of(task.codec, job.layer, job.head),
                               row.token, turn, b, x);
  };
  load(row.block);
  Found found;
  found.nonfinite = rotate_tamed<kBlock>(part, row.block, load, x, &largest);
  found.largest = largest <= kLargest ? largest : finite_peak(x);
  if (exponent == kNoExponent) return found;
  Encoded<kBlock> encoded;
  encode_block<kBlock>(task.codec, part, view_of(pairs), x, largest, exponent, task.search != 0,
                       &encoded);
  if (flat < blocks) store_encoded<kBlock>(part, chunks.sealed, row.token, row.block, encoded);
  return found;
}

// Asks for a warp's rows of a job, from the block that its first lane has on, where they go by way
// of the stage. Returns whether they do.
template <uint32_t kBlock>
QUIRE_DEVICE bool ask_rows(const SealTask &task, const Job &job, uint32_t flat,
                           Stage<kBlock> *stage) {
  const quire_part_layout &part = job.is_k ? task.codec.sealed.k : task.codec.sealed.v;
  const quire_part_layout &from = job.is_k ? task.codec.open.k : task.codec.open.v;
  if (!Stage<kBlock>::takes(part.blocks)) return false;
  if constexpr (kBlock < 64) {
    const uint32_t begin = flat / kWarp * kWarp;
    ask_pieces<kBlock>(Chunks(task, job).open + from.codes, from.row_bytes, part.blocks, begin,
                       begin < blocks_of(task, job) ? task.tokens : 0, stage);
  }
  return true;
}

// A block of a job, minus its anchor and rotated; not tamed. Warps call it together.
template <uint32_t kBlock>
QUIRE_DEVICE void prepare_block(const SealTask &task, const PageTurn &turn, const Job &job,
                                bool anchored, uint32_t flat, Stage<kBlock> *stage, bool *asked,
                                float (&x)[kBlock]) {
  const quire_part_layout &part = job.is_k ? task.codec.sealed.k : task.codec.sealed.v;
  const quire_part_layout &from = job.is_k ? task.codec.open.k : task.codec.open.v;
  const Row row = row_of(part, flat < blocks_of(task, job) ? task.tokens : 0, flat);
  if (!*asked) *asked = ask_rows<kBlock>(task, job, flat, stage);
  if (*asked) {
    if constexpr (kBlock < 64) {
      uint4 q[kBlock / 8];
      take_pieces<kBlock>(*stage, q);
      widen_pieces_of<kBlock, DType::kF16>(q, x);
    }
  } else if (row.written) {
    load_block<kBlock>(
        DType::kF16,
        Chunks(task, job).open + quire_row_offset(&from, row.token) + row.block * (kBlock * 2), x);
  } else {
    QUIRE_UNROLL
    for (uint32_t i = 0; i < kBlock; ++i) x[i] = 0;
  }
  *asked = false;
  if (anchored && row.written) {
    apply_anchor<kBlock, true>(task.codec.turns, mean_of(task.codec, job.layer, job.head),
                               row.token, turn, row.block, x);
  }
  rotate<kBlock>(x, part.rotation_size, part.rotation_stored);
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

// What a slot keeps from job to job.
struct Slot {
  uint32_t number, width, index;  // index: of this thread in it
  uint32_t turned_page, parity;
  bool turned;

  QUIRE_DEVICE explicit Slot(uint32_t threads)
      : number(threadIdx.x / threads),
        width(threads),
        index(threadIdx.x % threads),
        turned_page(0),
        parity(0),
        turned(false) {}

  // The turn of a page that is not the one before's.
  QUIRE_DEVICE void make_turn(const Turns &turns, uint32_t page, bool anchored, PageTurn *turn) {
    if (!anchored || (turned && turned_page == page)) return;
    turned = true;
    turned_page = page;
    meet(number, width);  // the turn before is no longer read
    make_page_turn(turns, page, index, width, turn);
    meet(number, width);
  }

  // The largest of all its threads'.
  QUIRE_DEVICE float agree(float largest, WarpPeaks *peaks) {
    const uint32_t of_warp = __reduce_max_sync(kAllLanes, bits(largest));
    uint32_t *mine = peaks->of_warp[parity];
    parity ^= 1;  // who reads this set's values of two jobs ago has met since
    if (threadIdx.x % kWarp == 0) mine[threadIdx.x / kWarp] = of_warp;
    meet(number, width);
    uint32_t most = 0;
    for (uint32_t w = 0; w < width / kWarp; ++w) most = max(most, mine[number * width / kWarp + w]);
    return from_bits(most);
  }
};

template <uint32_t kBlock, Way kWay>
__global__ void __launch_bounds__(kCodecThreads, resident<kBlock>())
    seal_kernel(const __grid_constant__ SealTask task) {
  __shared__ SealShared<kBlock, kWay> shared;
  constexpr bool kPairs = kWay != Way::kAny, kSearch = kWay == Way::kSearched;
  let_next_begin();
  const PairPart pair_part(*task.codec.pairs);
  pair_part.fill(&shared.pairs);
  wait_for_stream();
  __syncthreads();
  const PairView view = view_of(shared.pairs);
  Slot slot(task.slot_threads);
  const uint32_t slots = kCodecThreads / slot.width;
  const quire_page_layout &layout = task.codec.sealed;
  const uint32_t jobs = task.pages * layout.layers * layout.kv_heads * (task.with_k + task.with_v);
  // A CTA's jobs follow one another: one page's layers and heads, whose turn is made once.
  const uint32_t share = ((jobs + slots - 1) / slots + gridDim.x - 1) / gridDim.x * slots;
  const uint32_t begin = blockIdx.x * share, end = min(begin + share, jobs);
  Job job = job_of(task, begin + slot.number);
  PageTurn &turn = shared.turns[slot.number];
  uint32_t nonfinite = 0;
  bool asked = false;
  QUIRE_ROLLED
  for (uint32_t first = begin; first < end; first += slots) {
    const quire_part_layout &part = job.is_k ? layout.k : layout.v;
    const bool anchored = job.active() && job.is_k && task.codec.anchored != nullptr &&
                          task.codec.anchored[job.layer] != 0;
    slot.make_turn(task.codec.turns, task.page_index[job.page], anchored, &turn);
    const uint32_t blocks = blocks_of(task, job);
    const bool once = blocks <= slot.width;
    float x[kBlock], largest = 0, largest_here = 0;
    bool hard = !kPairs;  // of the warp's last step
    QUIRE_ROLLED
    for (uint32_t at = slot.index; blocks > at - slot.index; at += slot.width) {
      if constexpr (kPairs) {
        prepare_block<kBlock>(task, turn, job, anchored, at, &shared.stages[threadIdx.x / kWarp],
                              &asked, x);
        largest = peak(x);
        hard = __any_sync(kAllLanes, !(largest <= kLargest)) != 0;
      }
      if (hard) {
        const Found found =
            seal_step<kBlock>(task, shared.pairs, turn, job, anchored, at, blocks, kNoExponent);
        nonfinite += found.nonfinite;
        largest = found.largest;
      }
      largest_here = fmaxf(largest_here, largest);
    }
    const uint32_t exponent = exponent_of(slot.agree(largest_here, &shared.peaks));
    Job next = job;
    advance(task, slots, &next);
    if constexpr (kPairs) {
      // Beyond one step a job reads its own rows again first.
      if (once && first + slots < end) {
        asked = ask_rows<kBlock>(task, next, slot.index, &shared.stages[threadIdx.x / kWarp]);
      }
    }
    QUIRE_ROLLED
    for (uint32_t at = slot.index; blocks > at - slot.index; at += slot.width) {
      if constexpr (kPairs) {
        if (!once) {
          prepare_block<kBlock>(task, turn, job, anchored, at, &shared.stages[threadIdx.x / kWarp],
                                &asked, x);
          largest = peak(x);
          hard = false;
        }
        hard = hard || __any_sync(kAllLanes, !pairs_reach<kSearch>(largest, exponent)) != 0;
        if (!hard) {
          Encoded<kBlock> encoded;
          encode_pair<kBlock, kSearch>(view, x, largest, exponent, &encoded);
          if (at < blocks) {
            const Row row = row_of(part, task.tokens, at);
            store_encoded<kBlock>(part, Chunks(task, job).sealed, row.token, row.block, encoded);
          }
          continue;
        }
      }
      seal_step<kBlock>(task, shared.pairs, turn, job, anchored, at, blocks, exponent);
    }
    if (job.active() && slot.index == 0) {
      const Chunks chunks(task, job);
      finish_head(task, job, chunks.frame, chunks.sealed, exponent, anchored);
    }
    job = next;
  }
  add_count(task.nonfinite, nonfinite);
}

template <uint32_t kBlock>
__global__ void __launch_bounds__(kCodecThreads, resident<kBlock>())
    unseal_kernel(const __grid_constant__ SealTask task) {
  __shared__ DecodeShared shared;
  __shared__ PageTurn turns[kMaxSlots];
  let_next_begin();
  load_values(task.codec, &shared);
  wait_for_stream();
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
      if (part.code_bits == 8) {
        Coded<kBlock, 8> coded;
        fetch_block(part, sealed, row.token, row.block, &coded);
        decode_fetched<kBlock, 8>(part, view, coded, exponent, x);
      } else {
        Coded<kBlock, 4> coded;
        fetch_block(part, sealed, row.token, row.block, &coded);
        decode_fetched<kBlock, 4>(part, view, coded, exponent, x);
      }
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

// Batches of pages: run(task, part) launches for the parts that the task names, of which `part` is
// one.
template <class Run>
cudaError_t for_batches(const CudaCodec &codec, const SealArgs &args, unsigned long long *nonfinite,
                        bool alike, const Run &run) {
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
  // for_parts asks for rows: any address says that a part is there.
  const Rows there = {args.frames.open.base, 0, 0}, none = {nullptr, 0, 0};
  for (uint32_t begin = 0; begin < args.pages; begin += kFramesALaunch) {
    task.pages = args.pages - begin < kFramesALaunch ? args.pages - begin : kFramesALaunch;
    for (uint32_t i = 0; i < task.pages; ++i) {
      task.from[i] = args.from[begin + i];
      task.to[i] = args.to[begin + i];
      task.page_index[i] = args.page_index != nullptr ? args.page_index[begin + i] : 0;
    }
    const cudaError_t error = for_parts(
        there, layout.v.dim != 0 ? there : none, alike, [&](const Rows &k, const Rows &v) {
          task.with_k = k.data != nullptr ? 1 : 0;
          task.with_v = v.data != nullptr ? 1 : 0;
          task.slot_threads = slot_width(layout, task.with_k != 0, task.with_v != 0);
          return run(task, task.with_k != 0 ? layout.k : layout.v);
        });
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t launch_jobs(void (*kernel)(SealTask), const SealTask &task, uint32_t resident,
                        cudaStream_t stream) {
  const quire_page_layout &layout = task.codec.sealed;
  const uint64_t jobs =
      uint64_t{task.pages} * layout.layers * layout.kv_heads * (task.with_k + task.with_v);
  const uint64_t ctas = (jobs * task.slot_threads + kCodecThreads - 1) / kCodecThreads;
  const uint64_t most = uint64_t{processors()} * resident;
  return launch_early(kernel, static_cast<uint32_t>(ctas < most ? ctas : most), kCodecThreads,
                      stream, task);
}

}  // namespace

cudaError_t seal(const CudaCodec &codec, const SealArgs &args, unsigned long long *nonfinite,
                 cudaStream_t stream) noexcept {
  const quire_page_layout &layout = codec.sealed;
  const Way way_k = way_of(codec, layout.k, args.search);
  const Way way_v = way_of(codec, layout.v, args.search);
  const bool alike = way_k == way_v && block_of(layout.k) == block_of(layout.v);
  return for_batches(
      codec, args, nonfinite, alike, [&](const SealTask &task, const quire_part_layout &part) {
        return for_encoder(block_of(part), task.with_k != 0 ? way_k : way_v,
                           [&](auto block, auto way) -> cudaError_t {
                             constexpr uint32_t kBlock = decltype(block)::value;
                             if constexpr (kBlock == 0) {
                               return cudaErrorInvalidValue;
                             } else {
                               return launch_jobs(seal_kernel<kBlock, decltype(way)::value>, task,
                                                  resident<kBlock>(), stream);
                             }
                           });
      });
}

cudaError_t unseal(const CudaCodec &codec, const SealArgs &args, cudaStream_t stream) noexcept {
  const quire_page_layout &layout = codec.sealed;
  return for_batches(codec, args, nullptr, block_of(layout.k) == block_of(layout.v),
                     [&](const SealTask &task, const quire_part_layout &part) {
                       const auto run = [&](auto block, auto) {
                         constexpr uint32_t kBlock = decltype(block)::value;
                         return launch_jobs(unseal_kernel<kBlock>, task, resident<kBlock>(),
                                            stream);
                       };
                       return for_one_block(block_of(part), run, 0);
                     });
}

}  // namespace quire::kernels::cuda
