// Attention over pages on a GPU; what kernels/attention.cpp does on a CPU, with the same arguments.
//
// Pointers in AttentionArgs are device pointers; args.batch and args.block_table_stride are the
// call's, the rest of what a launch depends on is bounds (q_heads, max_q, max_kv, max_batch). Lengths are read on the device, so a captured graph serves
// all lengths under its bounds. Nothing is allocated, waited for or read on the host.
//
// Kernels share one merge, and but for prefill one scheduler (attention_plan.cuh):
//   prefill  attention_prefill.cu: from 33 rows of q a KV head on, by the bounds; nf4, k8v4
//            and f16, head dims 64 and 128, pages of a multiple of 16 tokens; compute capability 9.0
//   fast     attention_fast.cu: nf4 (head dims 64, 128, 256), f16 (64, 128), nf4-dq64 and k8v4 (128) in
//            pages of a multiple of 16 tokens
//   generic  attention_generic.cu: everything else that can be laid out
//   merge    attention_merge.cu: joins the pieces of sequences that several workers shared
//
// Thread class: host functions, any thread.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/codec.h"
#include "kernels/cuda/codec_params.h"

namespace quire::kernels::cuda {

// What a test or a measurement may force; kFast: the best but prefill.
enum class AttentionChoice : uint32_t { kBest = 0, kGeneric = 1, kPrefill = 2, kFast = 3 };

// Bytes of workspace, 64-aligned; 0 where attention cannot run (no V, or q_heads is no multiple of
// the KV heads). Enough for the generic kernel too.
size_t attention_workspace(const CudaCodec &codec, const AttentionArgs &bounds,
                           AttentionChoice choice = AttentionChoice::kBest) noexcept;

cudaError_t attention(const CudaCodec &codec, const AttentionArgs &args,
                      cudaStream_t stream) noexcept;

// For tests and measurements: the kernel that a call takes, and a way to force another one.
const char *attention_kernel(const CudaCodec &codec, const AttentionArgs &args) noexcept;
cudaError_t attention_with(AttentionChoice choice, const CudaCodec &codec,
                           const AttentionArgs &args, cudaStream_t stream) noexcept;

}  // namespace quire::kernels::cuda
