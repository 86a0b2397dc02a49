// See codec_kernels.h. The second half is also an example: a kernel of an engine that reads Quire's
// pages needs <quire/page_format.h> and nothing else.
#include "tests/gpu/codec_kernels.h"

#include <cuda_fp16.h>

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

// ---- an engine's own decoder

__device__ float code_value(const quire_part_layout *part, const float *codebook,
                            const unsigned char *row, uint32_t d) {
  switch (part->codec.codebook) {
    case QUIRE_CODEBOOK_TABLE16:
      return codebook[quire_code4(part, row, d)];
    case QUIRE_CODEBOOK_INT8:
      return static_cast<float>(static_cast<signed char>(row[quire_code_position(part, d)])) / 128;
    case QUIRE_CODEBOOK_F16:
      return __half2float(reinterpret_cast<const __half *>(row)[d]);
    case QUIRE_CODEBOOK_BF16:
      return __uint_as_float(static_cast<uint32_t>(reinterpret_cast<const uint16_t *>(row)[d])
                             << 16);
    default:
      return reinterpret_cast<const float *>(row)[d];
  }
}

__device__ float block_scale(const quire_page_layout *layout, const quire_part_layout *part,
                             const unsigned char *head, uint32_t token, uint32_t block, bool is_k) {
  const unsigned char *at = head + quire_scale_offset(part, token, block);
  if (part->codec.scale == QUIRE_SCALE_F16) {
    return __half2float(*reinterpret_cast<const __half *>(at));
  }
  const auto *s = reinterpret_cast<const quire_head_statistics *>(head + layout->statistics);
  return quire_e4m3_scale(*at, is_k ? s->k_exponent : s->v_exponent);
}

// A block per (token, head), a thread per channel.
__global__ void decode_by_header_kernel(quire_page_layout layout, const float *codebook,
                                        const unsigned char *page, uint32_t layer, bool is_k,
                                        float *out) {
  const quire_part_layout *part = is_k ? &layout.k : &layout.v;
  const uint32_t token = blockIdx.x, head = blockIdx.y;
  const unsigned char *chunk = page + quire_head_offset(&layout, layer, head);
  const unsigned char *row = chunk + quire_row_offset(part, token);
  for (uint32_t d = threadIdx.x; d < part->dim; d += blockDim.x) {
    float value = code_value(part, codebook, row, d);
    if (part->code_bits < 16) {
      value *= block_scale(&layout, part, chunk, token, d / part->block, is_k);
      value = __half2float(__float2half_rn(value));
    }
    out[(static_cast<size_t>(token) * layout.kv_heads + head) * part->dim + d] = value;
  }
}

}  // namespace

cudaError_t check_every_float(const CudaCodec &codec, unsigned long long *wrong,
                              cudaStream_t stream) {
  every_float_kernel<<<264, 256, 0, stream>>>(codec, wrong);
  return cudaGetLastError();
}

cudaError_t decode_by_header(const quire_page_layout &layout, const float *codebook,
                             const unsigned char *page, uint32_t layer, float *k, float *v,
                             cudaStream_t stream) {
  const dim3 grid(layout.page_tokens, layout.kv_heads);
  decode_by_header_kernel<<<grid, 64, 0, stream>>>(layout, codebook, page, layer, true, k);
  if (v != nullptr) {
    decode_by_header_kernel<<<grid, 64, 0, stream>>>(layout, codebook, page, layer, false, v);
  }
  return cudaGetLastError();
}

}  // namespace quire::test
