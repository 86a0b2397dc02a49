// The launches behind cuda_attention.h. For kernels/cuda/attention*.cu only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace quire::kernels::cuda {

struct Plan;

// Rows of q that a KV head has in a sequence, on average of what the bounds allow.
uint32_t rows_a_head(const Plan &plan);

// Each fills rows, unit and workers of a plan, then launches it.
void shape_generic(int processors, Plan *plan);
cudaError_t launch_generic(const Plan &plan, cudaStream_t stream);

inline constexpr int kFastSharedBytes = 227 * 1024;  // of a block, at most
bool fast_takes(const Plan &plan);
void shape_fast(int processors, Plan *plan);
cudaError_t launch_fast(const Plan &plan, cudaStream_t stream);

inline constexpr uint32_t kPrefillMostRows = 128;
bool prefill_takes(const Plan &plan);
void shape_prefill(int processors, Plan *plan);
cudaError_t launch_prefill(const Plan &plan, cudaStream_t stream);

cudaError_t launch_merge(const Plan &plan, cudaStream_t stream);

}  // namespace quire::kernels::cuda
