// Kernels that tests of the codec launch themselves (codec_kernels.cu).
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/codec_params.h"
#include "quire/page_format.h"

namespace quire::test {

// Walks all 2^32 floats through the encoder's search and counts those whose code, or whose
// negative's code, is not the one by comparison with every midpoint.
cudaError_t check_every_float(const kernels::cuda::CudaCodec &codec, unsigned long long *wrong,
                              cudaStream_t stream);

// Rows of one layer of a page, decoded by nothing but quire/page_format.h: rotated values as halves,
// K [tokens][heads][dim] (still rotated, without anchors) and V likewise.
cudaError_t decode_by_header(const quire_page_layout &layout, const float *codebook,
                             const unsigned char *page, uint32_t layer, float *k, float *v,
                             cudaStream_t stream);

}  // namespace quire::test
