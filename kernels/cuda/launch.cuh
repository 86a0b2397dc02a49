// Launching a kernel, as a call: so that the same host code runs under the tests' emulator, which
// brings a launch of its own.
//
// Thread class: any thread. Cost: one launch.
#pragma once

#if !defined(QUIRE_CUDA_EMULATED)
#include <cuda_runtime.h>

#include <cstdint>

namespace quire::kernels::cuda {

template <class Params>
cudaError_t launch(void (*kernel)(Params), uint32_t blocks, uint32_t threads, cudaStream_t stream,
                   const Params &params) noexcept {
  if (blocks == 0) return cudaSuccess;
  void *arguments[] = {const_cast<Params *>(&params)};
  return cudaLaunchKernel(reinterpret_cast<const void *>(kernel), dim3(blocks), dim3(threads),
                          arguments, 0, stream);
}

// The same for kernels that call wait_for_stream(): they may be made ready, and fill their tables,
// while the kernel before them in the stream still runs. A device that cannot do that launches them
// as ever.
template <class Params>
cudaError_t launch_early(void (*kernel)(Params), uint32_t blocks, uint32_t threads,
                         cudaStream_t stream, const Params &params) noexcept {
  if (blocks == 0) return cudaSuccess;
  int device = 0, major = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      major < 9) {
    return launch(kernel, blocks, threads, stream, params);
  }
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  void *arguments[] = {const_cast<Params *>(&params)};
  return cudaLaunchKernelExC(&config, reinterpret_cast<const void *>(kernel), arguments);
}

// Multiprocessors of the current device: what persistent grids are sized by.
inline uint32_t processors() noexcept {
  int device = 0, count = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess ||
      count <= 0) {
    return 1;
  }
  return static_cast<uint32_t>(count);
}

}  // namespace quire::kernels::cuda
#endif
