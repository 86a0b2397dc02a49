// See cuda_attention.h: which kernel takes a call, and how the workspace is cut.
#include "kernels/cuda/cuda_attention.h"

#include <cmath>

#include "kernels/codebook.h"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_plan.cuh"

namespace quire::kernels::cuda {
namespace {

constexpr uint64_t kAlign = 64;
constexpr uint32_t kMostRows = 16;  // of a tile

struct Machine {
  int processors = 0, generation = 0, shared_bytes = 0;
};

cudaError_t find_machine(Machine *m) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  const auto ask = [&](int *value, cudaDeviceAttr what) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(value, what, device);
  };
  ask(&m->processors, cudaDevAttrMultiProcessorCount);
  ask(&m->generation, cudaDevAttrComputeCapabilityMajor);
  ask(&m->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return error;
}

// Of the multiples of NF4's values, this one is the closest to halves: 0.65e-4 of their energy's root
// is lost instead of 1.56e-4. Found by trying 1 + i / 8192.
constexpr float kNf4Scale = 1.3662109375f;

bool is_nf4(const CudaCodec &codec) {
  if (codec.sealed.v.codec.codebook != QUIRE_CODEBOOK_TABLE16) return false;
  for (uint32_t i = 0; i < 16; ++i) {
    if (codec.values[i] != kNf4Values[i]) return false;
  }
  return true;
}

bool can_run(const CudaCodec &codec, const AttentionArgs &args) {
  return codec.sealed.v.dim != 0 && args.q_heads != 0 && args.q_heads % codec.sealed.kv_heads == 0;
}

enum class Kernel { kGeneric, kFast, kPrefill };

// Rows of a KV head, on average, from which on the prefill kernel takes a call.
constexpr uint32_t kPrefillRows = 33;

Kernel choose(AttentionChoice choice, const Machine &machine, const Plan &plan) {
  if (choice == AttentionChoice::kGeneric) return Kernel::kGeneric;
  const bool large = machine.shared_bytes >= kFastSharedBytes;
  if (choice != AttentionChoice::kFast && machine.generation == 9 && large && prefill_takes(plan)) {
    if (choice == AttentionChoice::kPrefill || rows_a_head(plan) >= kPrefillRows)
      return Kernel::kPrefill;
  }
  return machine.generation >= 9 && large && fast_takes(plan) ? Kernel::kFast : Kernel::kGeneric;
}

// Everything but workspace pointers. bytes: what the workspace takes.
cudaError_t make_plan(AttentionChoice choice, const CudaCodec &codec, const AttentionArgs &args,
                      Plan *plan, size_t *bytes, Kernel *kernel) {
  if (!can_run(codec, args)) return cudaErrorInvalidValue;
  Machine machine;
  const cudaError_t error = find_machine(&machine);
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
  *kernel = choose(choice, machine, *plan);
  // Of one size whatever the tile is, so that workspace does not depend on the batch of a call.
  uint64_t rows = kMostRows;
  if (*kernel == Kernel::kPrefill) {
    shape_prefill(machine.processors, plan);
    rows = kPrefillMostRows;
  } else if (*kernel == Kernel::kFast) {
    shape_fast(machine.processors, plan);
  } else {
    shape_generic(machine.processors, plan);
    rows = plan->rows;
  }
  plan->table_scale = is_nf4(codec) ? kNf4Scale : 1.0f;
  plan->table_inverse = 1.0f / plan->table_scale;
  plan->piece_floats = quire_round_up(rows * (plan->dim_v + 2), 16);
  const uint64_t joints = quire_round_up(sizeof(Joint) * plan->workers, kAlign);
  plan->joints = static_cast<Joint *>(args.workspace);
  plan->pieces = reinterpret_cast<float *>(static_cast<uint8_t *>(args.workspace) + joints);
  *bytes = joints + sizeof(float) * plan->piece_floats * plan->workers * 2;
  return cudaSuccess;
}

}  // namespace

uint32_t rows_a_head(const Plan &plan) {
  const AttentionArgs &a = plan.args;
  const uint32_t batch = a.max_batch != 0 ? a.max_batch : (a.batch != 0 ? a.batch : 1);
  return plan.group * ((a.max_q + batch - 1) / batch);
}

size_t attention_workspace(const CudaCodec &codec, const AttentionArgs &bounds,
                           AttentionChoice choice) noexcept {
  Plan plan;
  size_t most = 0;
  for (const auto each : {choice, AttentionChoice::kGeneric}) {
    size_t bytes;
    Kernel kernel;
    if (make_plan(each, codec, bounds, &plan, &bytes, &kernel) != cudaSuccess) return 0;
    most = bytes > most ? bytes : most;
  }
  return most;
}

cudaError_t attention_with(AttentionChoice choice, const CudaCodec &codec,
                           const AttentionArgs &args, cudaStream_t stream) noexcept {
  if (args.batch == 0) return cudaSuccess;
  Plan plan;
  size_t bytes;
  Kernel kernel;
  cudaError_t error = make_plan(choice, codec, args, &plan, &bytes, &kernel);
  if (error == cudaSuccess && args.workspace == nullptr) error = cudaErrorInvalidValue;
  if (error == cudaSuccess) {
    error = kernel == Kernel::kPrefill ? launch_prefill(plan, stream)
            : kernel == Kernel::kFast  ? launch_fast(plan, stream)
                                       : launch_generic(plan, stream);
  }
  return error == cudaSuccess ? launch_merge(plan, stream) : error;
}

cudaError_t attention(const CudaCodec &codec, const AttentionArgs &args,
                      cudaStream_t stream) noexcept {
  return attention_with(AttentionChoice::kBest, codec, args, stream);
}

const char *attention_kernel(const CudaCodec &codec, const AttentionArgs &args) noexcept {
  Plan plan;
  size_t bytes;
  Kernel kernel;
  if (make_plan(AttentionChoice::kBest, codec, args, &plan, &bytes, &kernel) != cudaSuccess) {
    return "none";
  }
  return kernel == Kernel::kPrefill ? "prefill" : (kernel == Kernel::kFast ? "fast" : "generic");
}

}  // namespace quire::kernels::cuda
