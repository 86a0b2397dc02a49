// The fast kernel: attention on pages at the speed of memory.
//
// One block a processor, alive for the whole call; its share of the work (attention_plan.cuh) is
// walked segment by segment, the units of a segment are dealt to its warps in contiguous runs. Warps
// meet only at a segment's end, where their sums are merged. See attention_worker.cuh for what a warp
// does, attention_fast.cuh for the parts it is made of and attention_anchor.cuh for anchors.
//
// Takes nf4 (head dims 64, 128, 256), f16 (64, 128), nf4-dq64 and k8v4 (128); K and V of one dim, pages
// of a multiple of 16 tokens, RoPE of a multiple of 32 channels. A tile is 8 or 16 rows of q, by the
// bounds; more rows are more tiles, which read and decode the pages anew. (Tiles of 32 rows took as long
// as two of 16.) Needs the 227 KiB of shared memory and the
// instructions of compute capability 9.0; other devices run the generic kernel.
//
// Thread class: kernels.
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_worker.cuh"

namespace quire::kernels::cuda {
namespace {

// Joins what the warps left, undoes the rotation and writes it to its rows, or as a piece. A warp
// takes a row.
template <class F>
__device__ void merge(const Plan &p, const Segment &g, float *piece) {
  const uint32_t lane = threadIdx.x % 32, rows = tile_rows(p, g.s, g.tile);
  for (uint32_t row = threadIdx.x / 32; row < rows; row += F::kWarps) {
    float own_peak = -INFINITY, own = 0;
    if (lane < F::kWarps) {
      const uint32_t at = F::kPeaks + (lane * F::kRows + row) * 8;
      own = load_shared_float(at + 4);
      if (own != 0) own_peak = load_shared_float(at);
    }
    float peak = own_peak;
    for (int d = 16; d > 0; d >>= 1) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, d));
    const float factor = own == 0 ? 0.0f : exp2_fast(own_peak - peak);
    float weight = own * factor;
    for (int d = 16; d > 0; d >>= 1) weight += __shfl_xor_sync(~0u, weight, d);
    float x[F::kBlocks] = {};
    for (int w = 0; w < F::kWarps; ++w) {
      const float times = __shfl_sync(~0u, factor, w);
      if (times == 0) continue;
      const uint32_t at =
          F::kSums + static_cast<uint32_t>(w) * F::kSumsWarp + row * F::kSumsRow + lane * 4;
#pragma unroll
      for (int b = 0; b < F::kBlocks; ++b) {
        x[b] = fmaf(load_shared_float(at + static_cast<uint32_t>(b) * 128), times, x[b]);
      }
    }
    float down = 1;
    if constexpr (!F::kPlain) {
      hadamard_row(x);
      down = exp2_fast(-static_cast<float>(p.codec.sealed.v.rotation_read));
    }
    if (piece != nullptr) {
#pragma unroll
      for (uint32_t b = 0; b < F::kBlocks; ++b) piece[row * F::kDim + b * 32 + lane] = x[b] * down;
      if (lane == 0) {
        piece[uint64_t{p.rows} * F::kDim + row] = peak;
        piece[uint64_t{p.rows} * (F::kDim + 1) + row] = weight;
      }
      continue;
    }
    const RowPlace place = row_place(p, g.s, g.head, g.tile * p.rows + row);
    const float inverse = weight == 0 ? 0.0f : down / weight;
#pragma unroll
    for (uint32_t b = 0; b < F::kBlocks; ++b) {
      store_from_float(p.args.out_dtype, p.args.out, place.out + b * 32 + lane, x[b] * inverse);
    }
    if (lane == 0 && p.args.lse != nullptr) p.args.lse[place.lse] = lse_of(peak, weight);
  }
}

// 256 bytes, both values of each, 32 times.
template <class F>
__device__ void fill_table(const Plan &p) {
  for (uint32_t i = threadIdx.x; i < 256 * 8; i += F::kWarps * 32) {
    const uint32_t code = i / 8;
    const uint32_t pair = pack_half2(p.codec.values[code / 16] * p.table_scale,
                                     p.codec.values[code % 16] * p.table_scale);
    store_shared4(F::kTable + code * 256 + i % 8 * 16, pair, pair, pair, pair);
  }
}

template <class F>
__global__ void __launch_bounds__(F::kWarps * 32, 1) fast_kernel(const __grid_constant__ Plan p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ uint8_t fast_memory[];
  if (static_cast<uint32_t>(__cvta_generic_to_shared(fast_memory)) > F::kTable) __trap();
  cudaTriggerProgrammaticLaunchCompletion();
  const bool anchored = p.codec.anchored != nullptr && p.codec.anchored[p.args.layer] != 0;
  const uint64_t work = total_work(p);
  Walker walker;
  walker.at = share_begin(work, p.workers, blockIdx.x);
  walker.end = share_begin(work, p.workers, blockIdx.x + 1);
  if (!walker.done()) walker.locate(p);
  Feed<F> feed(p, walker);
  const uint32_t ring = F::kRing + threadIdx.x / 32 * (F::kStages * F::kStage);
  const uint32_t ring_end = ring + F::kStages * F::kStage;
  for (uint32_t i = 0; i + 1 < F::kStages; ++i) feed.issue(ring + i * F::kStage);
  if constexpr (!F::kPlain) fill_table<F>(p);
  __syncthreads();
  Worker<F> worker(p);
  Segment g = {};
  uint32_t followers = 0, stage = ring, refill = ring + (F::kStages - 1) * F::kStage;
  while (!walker.done()) {
    g = next_segment(p, &walker);
    QueryFragments<F>::share(p, g);
    if constexpr (F::kAnchors) {
      if (anchored) Anchor<F>::prepare(p, g);
    }
    __syncthreads();
    worker.begin(g);
    uint32_t unit, end;
    Feed<F>::warp_units(p, g, &unit, &end);
    int32_t token = tile_first_token(p, g.s, g.tile) + static_cast<int32_t>(unit) * F::kUnit;
    for (; unit < end; ++unit, token += F::kUnit) {
      copy_wait<F::kStages - 2>();
      __syncwarp();
      feed.issue(refill);
      worker.add_unit(token, stage);
      refill = refill + F::kStage == ring_end ? ring : refill + F::kStage;
      stage = stage + F::kStage == ring_end ? ring : stage + F::kStage;
    }
    __syncwarp();
    worker.finish();
    float *piece = nullptr;
    if (!g.starts()) {
      piece = p.piece(blockIdx.x, 0);
    } else if (!g.ends()) {
      piece = p.piece(blockIdx.x, 1);
      followers = worker_of(work, p.workers, g.item_begin + g.units - 1) - blockIdx.x;
    }
    worker.leave();
    __syncthreads();
    merge<F>(p, g, piece);
    __syncthreads();
  }
  if (threadIdx.x == 0) write_joint(p, blockIdx.x, work, followers, g);
#else
  __trap();
#endif
}

template <class F>
cudaError_t launch(const Plan &plan, cudaStream_t stream) {
  const cudaError_t error =
      cudaFuncSetAttribute(fast_kernel<F>, cudaFuncAttributeMaxDynamicSharedMemorySize, F::kEnd);
  if (error != cudaSuccess) return error;
  fast_kernel<F><<<plan.workers, F::kWarps * 32, F::kEnd, stream>>>(plan);
  return cudaGetLastError();
}

// Rows of the widest tile that there is a kernel for; 0 where there is none.
uint32_t most_rows(const Plan &plan) {
  const quire_page_layout &l = plan.codec.sealed;
  const uint32_t dim = plan.dim_k;
  if (plan.dim_v != dim || l.page_tokens % 16 != 0) return 0;
  if (l.format == QUIRE_FORMAT_F16) return dim == 64 || dim == 128 ? 16 : 0;
  if (l.k.rotation_size != dim || plan.codec.turns.pairs % 16 != 0) return 0;
  switch (l.format) {
    case QUIRE_FORMAT_NF4:
      return dim == 64 || dim == 128 ? 16 : (dim == 256 ? 8 : 0);
    case QUIRE_FORMAT_NF4_DQ64:
    case QUIRE_FORMAT_K8V4:
      return dim == 128 ? 16 : 0;
    default:
      return 0;
  }
}

cudaError_t launch_128(const Plan &plan, cudaStream_t stream) {
  switch (plan.codec.sealed.format) {
    case QUIRE_FORMAT_NF4_DQ64:
      return launch<FastShape<128, 2, 8, 4, Keys::kCodes, 64>>(plan, stream);
    case QUIRE_FORMAT_K8V4:
      return launch<FastShape<128, 2, 6, 4, Keys::kInt8>>(plan, stream);
    case QUIRE_FORMAT_F16:
      return launch<FastShape<128, 2, 8, 4, Keys::kHalf>>(plan, stream);
    default:
      break;
  }
  return plan.rows == 8 ? launch<FastShape<128, 1, 12, 3>>(plan, stream)
                        : launch<FastShape<128, 2, 8, 4>>(plan, stream);
}

cudaError_t launch_64(const Plan &plan, cudaStream_t stream) {
  if (plan.codec.sealed.format == QUIRE_FORMAT_F16) {
    return launch<FastShape<64, 2, 8, 4, Keys::kHalf>>(plan, stream);
  }
  return plan.rows == 8 ? launch<FastShape<64, 1, 12, 3>>(plan, stream)
                        : launch<FastShape<64, 2, 8, 4>>(plan, stream);
}

}  // namespace

bool fast_takes(const Plan &plan) {
  return most_rows(plan) != 0;
}

void shape_fast(int processors, Plan *plan) {
  const uint32_t batch = plan->args.batch == 0 ? 1 : plan->args.batch;
  const uint32_t rows = plan->group * ((plan->args.max_q + batch - 1) / batch);
  const uint32_t most = most_rows(*plan);
  plan->unit = 16;
  plan->rows = rows <= 8 ? 8 : 16;
  if (plan->codec.sealed.format != QUIRE_FORMAT_NF4) plan->rows = most;
  if (plan->rows > most) plan->rows = most;
  plan->workers = static_cast<uint32_t>(processors);
}

cudaError_t launch_fast(const Plan &plan, cudaStream_t stream) {
  switch (plan.dim_k) {
    case 64:
      return launch_64(plan, stream);
    case 128:
      return launch_128(plan, stream);
    default:
      return launch<FastShape<256, 1, 4, 5>>(plan, stream);
  }
}

}  // namespace quire::kernels::cuda
