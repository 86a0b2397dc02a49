// See codec_kernels.h.
#include "tests/gpu/codec_kernels.h"

#include "kernels/cuda/codec_encode.cuh"

namespace quire::test {
namespace {

using namespace kernels::cuda;

__global__ void every_float_kernel(const __grid_constant__ CudaCodec codec,
                                   unsigned long long *wrong) {
  __shared__ PairShared shared;
  const PairPart part(*codec.pairs);
  part.fill(&shared);
  __syncthreads();
  const PairView view = view_of(shared);
  unsigned long long count = 0;
  for (uint64_t b = blockIdx.x * blockDim.x + threadIdx.x; b < 1ull << 32;
       b += gridDim.x * blockDim.x) {
    const float z = __uint_as_float(static_cast<uint32_t>(b));
    if (!(fabsf(z) < kPairReach)) continue;
    // The index comes from a product that is rounded once less than z: one step each way.
    for (int step = -1; step <= 1; ++step) {
      const Magnitude m = {1, 1, __uint_as_float(__float_as_uint(kPairBuckets) + step)};
      const uint32_t k = (interval_offset(view, m, z) / kIntervalBytes - view.first) % 256;
      if (k / 2 != code_by_midpoints(codec, z) || (30 - k) / 2 != code_by_midpoints(codec, -z)) {
        ++count;
      }
    }
  }
  if (count != 0) atomicAdd(wrong, count);
}

}  // namespace

cudaError_t check_every_float(const CudaCodec &codec, unsigned long long *wrong,
                              cudaStream_t stream) {
  every_float_kernel<<<264, 256, 0, stream>>>(codec, wrong);
  return cudaGetLastError();
}

}  // namespace quire::test
