// The PageKernels of a GPU, where the build has them: a factory, so that the rest of the library needs
// no header of CUDA. See runtime/cuda/cuda_kernels.h.
#pragma once

#include <memory>

#include "runtime/cuda_device.h"
#include "runtime/page_kernels.h"

namespace quire {

// Puts the codec's tables on the device. `codec` and `device` outlive the kernels.
// kUnsupported in a build without CUDA.
Status make_cuda_kernels(kernels::Codec &codec, CudaDevice &device,
                         std::unique_ptr<PageKernels> *out) noexcept;

}  // namespace quire
