// Merge: joins the pieces of items that several workers shared (attention_plan.cuh).
//
// One block a worker; it has work only where that worker's last item goes on behind its share. A
// warp takes a row: the largest peak of all pieces, then the sums of pieces times
// exp2(peak - largest), then the row is written. Pieces of one item lie one worker apart. (Finding
// out by a division per piece which workers had none took longer than all the rest.)
//
// Cost: a launch; reads each piece once. Thread class: kernels.
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_plan.cuh"

namespace quire::kernels::cuda {
namespace {

constexpr uint32_t kThreads = 256;

constexpr uint32_t kChannels = 8;  // of a lane at a time

struct Pieces {
  const Plan &p;
  const Joint &j;
  uint32_t worker;
  bool sparse;    // there are fewer units than workers:
  uint64_t busy;  // those from this one on have none

  // Piece i of the item, or nullptr where there is none.
  __device__ const float *at(uint32_t i) const {
    const uint32_t w = worker + i;
    if (i > j.followers || (sparse && w >= busy)) return nullptr;
    return p.piece(w, i == 0 ? 1 : 0);
  }
};

__device__ void merge_row(const Pieces &pieces, const SequenceWork &s, uint32_t row) {
  const Plan &p = pieces.p;
  const Joint &j = pieces.j;
  const uint32_t lane = threadIdx.x % 32;
  const uint64_t peak_at = uint64_t{p.rows} * p.dim_v + row, weight_at = peak_at + p.rows;
  float peak = -INFINITY;
  for (uint32_t i = lane; i <= j.followers; i += 32) {
    const float *piece = pieces.at(i);
    if (piece != nullptr && piece[weight_at] != 0) peak = fmaxf(peak, piece[peak_at]);
  }
  for (int d = 16; d > 0; d >>= 1) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, d));
  const RowPlace place = row_place(p, s, j.head, j.tile * p.rows + row);
  float weight = 0;
  for (uint32_t first = 0; first < p.dim_v; first += 32 * kChannels) {
    float x[kChannels] = {};
    weight = 0;
    for (uint32_t i0 = 0; i0 <= j.followers; i0 += 32) {  // lane l has the factor of piece i0 + l
      const float *mine = pieces.at(i0 + lane);
      const float own = mine != nullptr ? mine[weight_at] : 0;
      const float factor = own == 0 ? 0.0f : exp2f(mine[peak_at] - peak);
      weight = fmaf(own, factor, weight);
      const uint32_t n = j.followers + 1 - i0 < 32 ? j.followers + 1 - i0 : 32;
#pragma unroll 4
      for (uint32_t k = 0; k < n; ++k) {
        const float times = __shfl_sync(~0u, factor, static_cast<int>(k));
        if (times == 0) continue;
        const float *sums = pieces.at(i0 + k) + uint64_t{row} * p.dim_v;
#pragma unroll
        for (uint32_t c = 0; c < kChannels; ++c) {
          const uint32_t d = first + c * 32 + lane;
          if (d < p.dim_v) x[c] = fmaf(sums[d], times, x[c]);
        }
      }
    }
    for (int d = 16; d > 0; d >>= 1) weight += __shfl_xor_sync(~0u, weight, d);
    const float inverse = weight == 0 ? 0.0f : 1.0f / weight;
#pragma unroll
    for (uint32_t c = 0; c < kChannels; ++c) {
      const uint32_t d = first + c * 32 + lane;
      if (d < p.dim_v) {
        store_from_float(p.args.out_dtype, p.args.out, place.out + d, x[c] * inverse);
      }
    }
  }
  if (lane == 0 && p.args.lse != nullptr) p.args.lse[place.lse] = lse_of(peak, weight);
}

__global__ void __launch_bounds__(kThreads) merge_kernel(const __grid_constant__ Plan p) {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
  const Joint j = p.joints[blockIdx.x];
  if (j.followers == 0) return;
  const SequenceWork s = sequence_work(p, j.sequence);
  const Pieces pieces = {p, j, blockIdx.x, j.work < p.workers, j.work};
  const uint32_t rows = tile_rows(p, s, j.tile);
  for (uint32_t row = threadIdx.x / 32; row < rows; row += kThreads / 32) {
    merge_row(pieces, s, row);
  }
}

}  // namespace

cudaError_t launch_merge(const Plan &plan, cudaStream_t stream) {
  // Launched while the workers still run (where the device can), so that its launch costs nothing.
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  int device = 0, generation = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&generation, cudaDevAttrComputeCapabilityMajor, device);
  }
  if (error != cudaSuccess) return error;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(plan.workers);
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = generation >= 9 ? 1 : 0;
  return cudaLaunchKernelEx(&config, merge_kernel, plan);
}

}  // namespace quire::kernels::cuda
