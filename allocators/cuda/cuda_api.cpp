// The CUDA runtime and, for contexts and virtual memory, the driver behind it.
//
// libquire links the static runtime, which loads libcuda.so when it is first used; the driver's own
// functions are asked of the runtime by name, so that nothing here needs libcuda at load time. They
// are looked up once; a driver that lacks one makes device_count() fail, so that nobody comes here
// without them. Error numbers of driver and runtime are the same since CUDA 10.1.
#include "allocators/cuda_api.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdio>

namespace quire {
namespace {

struct Driver {
  decltype(&cuCtxGetCurrent) get_current = nullptr;
  decltype(&cuCtxSetCurrent) set_current = nullptr;
  decltype(&cuDevicePrimaryCtxRetain) retain = nullptr;
  decltype(&cuDevicePrimaryCtxRelease) release = nullptr;
  CUresult (*stream_context)(CUstream, CUcontext *) = nullptr;
  decltype(&cuMemGetAllocationGranularity) granularity = nullptr;
  decltype(&cuMemAddressReserve) reserve = nullptr;
  decltype(&cuMemAddressFree) free_addresses = nullptr;
  decltype(&cuMemCreate) create = nullptr;
  decltype(&cuMemRelease) release_memory = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemSetAccess) set_access = nullptr;
  CudaError error = kCudaSuccess;

  Driver() noexcept {
    find("cuCtxGetCurrent", &get_current);
    find("cuCtxSetCurrent", &set_current);
    find("cuDevicePrimaryCtxRetain", &retain);
    find("cuDevicePrimaryCtxRelease", &release);
    find("cuStreamGetCtx", &stream_context);
    find("cuMemGetAllocationGranularity", &granularity);
    find("cuMemAddressReserve", &reserve);
    find("cuMemAddressFree", &free_addresses);
    find("cuMemCreate", &create);
    find("cuMemRelease", &release_memory);
    find("cuMemMap", &map);
    find("cuMemUnmap", &unmap);
    find("cuMemSetAccess", &set_access);
  }

  template <class F>
  void find(const char *name, F *function) noexcept {
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    const cudaError_t status =
        cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result);
#else
    const cudaError_t status = cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &result);
#endif
    if (status != cudaSuccess) {
      error = status;
    } else if (result != cudaDriverEntryPointSuccess || found == nullptr) {
      error = cudaErrorSymbolNotFound;
    }
    *function = reinterpret_cast<F>(found);
  }
};

const Driver &driver() noexcept {
  static const Driver instance;
  return instance;
}

cudaStream_t stream_of(void *stream) noexcept {
  return static_cast<cudaStream_t>(stream);
}

cudaEvent_t event_of(void *event) noexcept {
  return static_cast<cudaEvent_t>(event);
}

CUdeviceptr address_of(void *address) noexcept {
  return static_cast<CUdeviceptr>(reinterpret_cast<uintptr_t>(address));
}

CUmemAllocationProp memory_of(int ordinal) noexcept {
  CUmemAllocationProp prop = {};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  prop.location.id = ordinal;
  return prop;
}

class RuntimeApi final : public CudaApi {
 public:
  const char *error_text(CudaError error) noexcept override {
    return cudaGetErrorString(static_cast<cudaError_t>(error));
  }
  void clear_error() noexcept override { static_cast<void>(cudaGetLastError()); }

  CudaError device_count(int *count) noexcept override {
    if (const cudaError_t e = cudaGetDeviceCount(count); e != cudaSuccess) return e;
    return driver().error;
  }

  CudaError properties(int ordinal, CudaProperties *out) noexcept override {
    cudaDeviceProp found;
    if (const cudaError_t e = cudaGetDeviceProperties(&found, ordinal); e != cudaSuccess) return e;
    std::snprintf(out->name, sizeof out->name, "%.63s", found.name);
    out->major = found.major;
    out->minor = found.minor;
    out->memory = found.totalGlobalMem;
    // The runtime has no name for it; the driver's number is the same.
    int supported = 0;
    const auto attribute =
        static_cast<cudaDeviceAttr>(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
    out->virtual_memory =
        cudaDeviceGetAttribute(&supported, attribute, ordinal) == cudaSuccess && supported != 0;
    return kCudaSuccess;
  }

  CudaError retain_context(int ordinal, void **context) noexcept override {
    CUcontext found = nullptr;
    const CUresult result = driver().retain(&found, ordinal);
    *context = found;
    return static_cast<CudaError>(result);
  }
  CudaError release_context(int ordinal) noexcept override {
    return static_cast<CudaError>(driver().release(ordinal));
  }
  CudaError current_context(void **context) noexcept override {
    CUcontext found = nullptr;
    const CUresult result = driver().get_current(&found);
    *context = found;
    return static_cast<CudaError>(result);
  }
  CudaError set_context(void *context) noexcept override {
    return static_cast<CudaError>(driver().set_current(static_cast<CUcontext>(context)));
  }
  CudaError stream_context(void *stream, void **context) noexcept override {
    CUcontext found = nullptr;
    const CUresult result = driver().stream_context(stream_of(stream), &found);
    *context = found;
    return static_cast<CudaError>(result);
  }
  CudaError exchange_capture_mode(int *mode) noexcept override {
    auto swapped = static_cast<cudaStreamCaptureMode>(*mode);
    const cudaError_t e = cudaThreadExchangeStreamCaptureMode(&swapped);
    *mode = static_cast<int>(swapped);
    return e;
  }

  CudaError create_stream(void **stream) noexcept override {
    int least = 0, greatest = 0;
    if (const cudaError_t e = cudaDeviceGetStreamPriorityRange(&least, &greatest);
        e != cudaSuccess) {
      return e;
    }
    cudaStream_t made = nullptr;
    const cudaError_t e = cudaStreamCreateWithPriority(&made, cudaStreamNonBlocking, least);
    *stream = made;
    return e;
  }
  CudaError destroy_stream(void *stream) noexcept override {
    return cudaStreamDestroy(stream_of(stream));
  }
  CudaError wait_stream(void *stream) noexcept override {
    return cudaStreamSynchronize(stream_of(stream));
  }
  CudaError is_capturing(void *stream, bool *capturing) noexcept override {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    const cudaError_t e = cudaStreamIsCapturing(stream_of(stream), &status);
    *capturing = status != cudaStreamCaptureStatusNone;
    return e;
  }
  CudaError create_event(void **event) noexcept override {
    cudaEvent_t made = nullptr;
    const cudaError_t e = cudaEventCreateWithFlags(&made, cudaEventDisableTiming);
    *event = made;
    return e;
  }
  CudaError destroy_event(void *event) noexcept override {
    return cudaEventDestroy(event_of(event));
  }
  CudaError record(void *event, void *stream) noexcept override {
    return cudaEventRecord(event_of(event), stream_of(stream));
  }
  CudaError query(void *event) noexcept override { return cudaEventQuery(event_of(event)); }
  CudaError stream_wait(void *stream, void *event) noexcept override {
    return cudaStreamWaitEvent(stream_of(stream), event_of(event), 0);
  }

  CudaError copy(void *to, const void *from, size_t bytes, void *stream) noexcept override {
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream));
  }
  CudaError zero(void *to, size_t bytes, void *stream) noexcept override {
    return cudaMemsetAsync(to, 0, bytes, stream_of(stream));
  }

  CudaError granularity(int ordinal, size_t *bytes) noexcept override {
    const CUmemAllocationProp prop = memory_of(ordinal);
    return static_cast<CudaError>(
        driver().granularity(bytes, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED));
  }
  CudaError reserve(size_t bytes, size_t alignment, void **base) noexcept override {
    CUdeviceptr found = 0;
    const CUresult result = driver().reserve(&found, bytes, alignment, 0, 0);
    *base = reinterpret_cast<void *>(static_cast<uintptr_t>(found));
    return static_cast<CudaError>(result);
  }
  CudaError free_addresses(void *base, size_t bytes) noexcept override {
    return static_cast<CudaError>(driver().free_addresses(address_of(base), bytes));
  }
  CudaError create_memory(int ordinal, size_t bytes, uint64_t *memory) noexcept override {
    const CUmemAllocationProp prop = memory_of(ordinal);
    CUmemGenericAllocationHandle made = 0;
    const CUresult result = driver().create(&made, bytes, &prop, 0);
    *memory = made;
    return static_cast<CudaError>(result);
  }
  CudaError release_memory(uint64_t memory) noexcept override {
    return static_cast<CudaError>(driver().release_memory(memory));
  }
  CudaError map(void *address, size_t bytes, uint64_t memory) noexcept override {
    return static_cast<CudaError>(driver().map(address_of(address), bytes, 0, memory, 0));
  }
  CudaError unmap(void *address, size_t bytes) noexcept override {
    return static_cast<CudaError>(driver().unmap(address_of(address), bytes));
  }
  CudaError set_access(int ordinal, void *address, size_t bytes) noexcept override {
    CUmemAccessDesc access = {};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.location.id = ordinal;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return static_cast<CudaError>(driver().set_access(address_of(address), bytes, &access, 1));
  }

  CudaError allocate(size_t bytes, void **memory) noexcept override {
    return cudaMalloc(memory, bytes);
  }
  CudaError free(void *memory) noexcept override { return cudaFree(memory); }
  CudaError register_host(void *memory, size_t bytes) noexcept override {
    return cudaHostRegister(memory, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped);
  }
  CudaError unregister_host(void *memory) noexcept override { return cudaHostUnregister(memory); }
  CudaError device_address(void *host_memory, void **address) noexcept override {
    return cudaHostGetDevicePointer(address, host_memory, 0);
  }
};

}  // namespace

CudaApi *cuda_api() noexcept {
  static RuntimeApi api;
  return &api;
}

}  // namespace quire
