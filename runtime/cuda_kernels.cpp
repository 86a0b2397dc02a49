#include "runtime/cuda_kernels.h"

#ifndef QUIRE_HAVE_CUDA

namespace quire {

Status make_cuda_kernels(kernels::Codec &, CudaDevice &, std::unique_ptr<PageKernels> *) noexcept {
  return set_error(Status::kUnsupported, "this build has no kernels for CUDA");
}

}  // namespace quire

#endif
