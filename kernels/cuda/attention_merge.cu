// Merge: joins the pieces of items that several workers shared (attention_plan.cuh).
//
// One block a worker; it has work only where that worker's last item goes on behind its share. A
// warp takes a row: the largest peak of all pieces, then the sums of pieces times
// exp2(peak - largest), then the row is written. Pieces of one item lie one worker apart.
//
// Cost: a launch; reads each piece once. Thread class: kernels.
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_plan.cuh"

namespace quire::kernels::cuda {
namespace {

constexpr uint32_t kThreads = 256;

struct Pieces {
  const Plan &p;
  uint32_t worker, followers;
  uint64_t work;

  // Piece i of the item, or nullptr where that worker's share is empty.
  __device__ const float *at(uint32_t i) const {
    const uint32_t w = worker + i;
    if (share_begin(work, p.workers, w) == share_begin(work, p.workers, w + 1)) return nullptr;
    return p.piece(w, i == 0 ? 1 : 0);
  }
};

__device__ void merge_row(const Pieces &pieces, const SequenceWork &s, const Joint &j,
                          uint32_t row) {
  const Plan &p = pieces.p;
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
  for (uint32_t d = lane; d < (p.dim_v + 31) / 32 * 32; d += 32) {
    float sum = 0;
    weight = 0;
#pragma unroll 4
    for (uint32_t i = 0; i <= j.followers; ++i) {
      const float *piece = pieces.at(i);
      const float own = piece != nullptr ? piece[weight_at] : 0;
      if (own == 0) continue;
      const float factor = exp2f(piece[peak_at] - peak);
      weight = fmaf(own, factor, weight);
      if (d < p.dim_v) sum = fmaf(piece[uint64_t{row} * p.dim_v + d], factor, sum);
    }
    const float inverse = weight == 0 ? 0.0f : 1.0f / weight;
    if (d < p.dim_v) store_from_float(p.args.out_dtype, p.args.out, place.out + d, sum * inverse);
  }
  if (lane == 0 && p.args.lse != nullptr) p.args.lse[place.lse] = lse_of(peak, weight);
}

__global__ void __launch_bounds__(kThreads) merge_kernel(Plan p) {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
  const Joint j = p.joints[blockIdx.x];
  if (j.followers == 0) return;
  p.rows = j.rows;
  const SequenceWork s = sequence_work(p, j.sequence);
  const Pieces pieces = {p, blockIdx.x, j.followers, j.work};
  const uint32_t rows = tile_rows(p, s, j.tile);
  for (uint32_t row = threadIdx.x / 32; row < rows; row += kThreads / 32) {
    merge_row(pieces, s, j, row);
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
