// Attention over pages on a GPU; what kernels/attention.cpp does on a CPU, with the same arguments.
//
// Pointers in AttentionArgs are device pointers; args.batch and args.block_table_stride are the
// call's, the rest of what a launch depends on is bounds (q_heads, max_q, max_kv; batch stands for
// max_batch when asking for workspace). Lengths are read on the device, so a captured graph serves
// all lengths under its bounds. Nothing is allocated, waited for or read on the host.
//
// Two kernels, with one scheduler (attention_plan.cuh):
//   generic  attention_generic.cu: everything that can be laid out
//   merge    attention_merge.cu: joins the pieces of sequences that several workers shared
//
// Thread class: host functions, any thread.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/codec.h"
#include "kernels/cuda/codec_params.h"

namespace quire::kernels::cuda {

// Bytes of workspace, 64-aligned; 0 where attention cannot run (no V, or q_heads is no multiple of
// the KV heads).
size_t attention_workspace(const CudaCodec &codec, const AttentionArgs &bounds) noexcept;

cudaError_t attention(const CudaCodec &codec, const AttentionArgs &args,
                      cudaStream_t stream) noexcept;

}  // namespace quire::kernels::cuda
