/* See read_pages.h. */
#include "read_pages.h"

#include <cuda_fp16.h>

namespace {

constexpr unsigned kMaxDim = 1024;

struct Task {
  read_pages_frames sealed, open;
  const int32_t *block_table;
  const float *codebook;
  uint32_t layer;
  int is_k;
  float *out;
};

__device__ float code_value(const quire_part_layout &part, const float *codebook,
                            const unsigned char *row, uint32_t d) {
  switch (part.codec.codebook) {
    case QUIRE_CODEBOOK_TABLE16:
      return codebook[quire_code4(&part, row, d)];
    case QUIRE_CODEBOOK_INT8:
      return static_cast<float>(static_cast<signed char>(row[quire_code_position(&part, d)])) / 128;
    case QUIRE_CODEBOOK_F16:
      return __half2float(reinterpret_cast<const __half *>(row)[d]);
    case QUIRE_CODEBOOK_BF16:
      return __uint_as_float(static_cast<uint32_t>(reinterpret_cast<const uint16_t *>(row)[d])
                             << 16);
    default:
      return reinterpret_cast<const float *>(row)[d];
  }
}

__device__ float block_scale(const quire_page_layout &layout, const quire_part_layout &part,
                             const unsigned char *head, uint32_t token, uint32_t block, int is_k) {
  const unsigned char *at = head + quire_scale_offset(&part, token, block);
  if (part.codec.scale == QUIRE_SCALE_F16) {
    return __half2float(*reinterpret_cast<const __half *>(at));
  }
  const auto *s = reinterpret_cast<const quire_head_statistics *>(head + layout.statistics);
  return quire_e4m3_scale(*at, is_k != 0 ? s->k_exponent : s->v_exponent);
}

/* x[d] of a row, the whole row being in `row`: H x on runs of rotation_size channels. */
__device__ void turn_back(const quire_part_layout &part, float *row) {
  for (uint32_t stride = 1; stride < part.rotation_size; stride *= 2) {
    float turned[kMaxDim / 64];
    uint32_t n = 0;
    for (uint32_t d = threadIdx.x; d < part.dim; d += blockDim.x) {
      const float mine = row[d], other = row[d ^ stride];
      turned[n++] = (d & stride) != 0 ? other - mine : mine + other;
    }
    __syncthreads();
    n = 0;
    for (uint32_t d = threadIdx.x; d < part.dim; d += blockDim.x) row[d] = turned[n++];
    __syncthreads();
  }
}

__global__ void read_pages_kernel(Task task) {
  __shared__ float row[kMaxDim];
  const uint32_t token = blockIdx.x, head = blockIdx.y, heads = gridDim.y;
  const uint32_t page_tokens = task.sealed.layout.page_tokens;
  const int32_t entry = task.block_table[token / page_tokens];
  const read_pages_frames &frames = entry >= 0 ? task.sealed : task.open;
  const quire_page_layout &layout = frames.layout;
  const quire_part_layout &part = task.is_k != 0 ? layout.k : layout.v;
  const uint32_t in_page = token % page_tokens;
  const auto frame = static_cast<uint64_t>(entry >= 0 ? entry : -2 - entry);
  const unsigned char *chunk =
      frames.base + frame * frames.stride + quire_head_offset(&layout, task.layer, head);
  for (uint32_t d = threadIdx.x; d < part.dim; d += blockDim.x) {
    float x = 0;
    if (entry != -1) {
      x = code_value(part, task.codebook, chunk + quire_row_offset(&part, in_page), d);
      if (part.code_bits < 16) {
        x *= block_scale(layout, part, chunk, in_page, d / part.block, task.is_k);
        x = __half2float(__float2half_rn(x));
      }
    }
    row[d] = x;
  }
  __syncthreads();
  turn_back(part, row);
  const float factor = ldexpf(1.0f, -static_cast<int>(part.rotation_read));
  for (uint32_t d = threadIdx.x; d < part.dim; d += blockDim.x) {
    task.out[(static_cast<size_t>(token) * heads + head) * part.dim + d] = row[d] * factor;
  }
}

}  // namespace

cudaError_t read_pages(const read_pages_frames *sealed, const read_pages_frames *open,
                       const int32_t *block_table, const float *codebook, uint32_t layer, int is_k,
                       uint32_t tokens, float *out, cudaStream_t stream) {
  const Task task = {*sealed, *open, block_table, codebook, layer, is_k, out};
  if (tokens == 0) return cudaSuccess;
  read_pages_kernel<<<dim3(tokens, sealed->layout.kv_heads), 64, 0, stream>>>(task);
  return cudaGetLastError();
}
