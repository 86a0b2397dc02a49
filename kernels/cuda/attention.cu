// See cuda_attention.h: how the workspace is cut.
#include "kernels/cuda/cuda_attention.h"

#include <cmath>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_plan.cuh"

namespace quire::kernels::cuda {
namespace {

constexpr uint64_t kAlign = 64;
constexpr uint32_t kMostRows = 32;  // of a tile

cudaError_t processors_of_device(int *processors) {
  int device;
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  return cudaDeviceGetAttribute(processors, cudaDevAttrMultiProcessorCount, device);
}

bool can_run(const CudaCodec &codec, const AttentionArgs &args) {
  return codec.sealed.v.dim != 0 && args.q_heads != 0 && args.q_heads % codec.sealed.kv_heads == 0;
}

// Everything but workspace pointers. bytes: what the workspace takes.
cudaError_t make_plan(const CudaCodec &codec, const AttentionArgs &args, Plan *plan,
                      size_t *bytes) {
  if (!can_run(codec, args)) return cudaErrorInvalidValue;
  int processors;
  const cudaError_t error = processors_of_device(&processors);
  if (error != cudaSuccess) return error;
  plan->codec = codec;
  plan->args = args;
  plan->kv_heads = codec.sealed.kv_heads;
  plan->group = args.q_heads / plan->kv_heads;
  plan->page_tokens = codec.sealed.page_tokens;
  plan->dim_k = codec.sealed.k.dim;
  plan->dim_v = codec.sealed.v.dim;
  plan->sealed_offset = quire_head_offset(&codec.sealed, args.layer, 0);
  plan->open_offset = quire_head_offset(&codec.open, args.layer, 0);
  AttentionArgs &a = plan->args;
  if (a.scale == 0) a.scale = 1.0f / std::sqrt(static_cast<float>(plan->dim_k));
  if (a.q_head_stride == 0) a.q_head_stride = plan->dim_k;
  if (a.q_token_stride == 0) a.q_token_stride = static_cast<int64_t>(plan->dim_k) * a.q_heads;
  if (a.out_head_stride == 0) a.out_head_stride = plan->dim_v;
  if (a.out_token_stride == 0) a.out_token_stride = static_cast<int64_t>(plan->dim_v) * a.q_heads;
  shape_generic(processors, plan);
  plan->only_where = kAlways;
  // Of one size whatever the tile is, so that workspace does not depend on the batch of a call.
  plan->piece_floats = quire_round_up(uint64_t{kMostRows} * (plan->dim_v + 2), 16);
  const uint64_t joints = quire_round_up(sizeof(Joint) * plan->workers, kAlign);
  plan->joints = static_cast<Joint *>(args.workspace);
  plan->pieces = reinterpret_cast<float *>(static_cast<uint8_t *>(args.workspace) + joints);
  *bytes = joints + sizeof(float) * plan->piece_floats * plan->workers * 2;
  return cudaSuccess;
}

}  // namespace

size_t attention_workspace(const CudaCodec &codec, const AttentionArgs &bounds) noexcept {
  Plan plan;
  size_t bytes;
  return make_plan(codec, bounds, &plan, &bytes) == cudaSuccess ? bytes : 0;
}

cudaError_t attention(const CudaCodec &codec, const AttentionArgs &args,
                      cudaStream_t stream) noexcept {
  if (args.batch == 0) return cudaSuccess;
  Plan plan;
  size_t bytes;
  cudaError_t error = make_plan(codec, args, &plan, &bytes);
  if (error == cudaSuccess && args.workspace == nullptr) error = cudaErrorInvalidValue;
  if (error == cudaSuccess) error = launch_generic(plan, stream);
  return error == cudaSuccess ? launch_merge(plan, stream) : error;
}

}  // namespace quire::kernels::cuda
