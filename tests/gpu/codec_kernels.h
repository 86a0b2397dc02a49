// Kernels that tests of the codec launch themselves (codec_kernels.cu).
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/codec_params.h"

namespace quire::test {

// Walks all 2^32 floats through the encoder's search and counts those whose code, or whose
// negative's code, is not the one by comparison with every midpoint.
cudaError_t check_every_float(const kernels::cuda::CudaCodec &codec, unsigned long long *wrong,
                              cudaStream_t stream);

}  // namespace quire::test
