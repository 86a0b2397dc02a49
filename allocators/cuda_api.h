// CudaApi: the CUDA calls that this library makes itself, as one table. Kernels are launched by
// kernels/cuda; everything else goes through here.
//
// Why a table: allocators/cuda/cuda_api.cpp fills it from the CUDA runtime, where the build has one;
// tests fill it with a machine of their own (tests/support/fake_cuda.h), on which each call can be
// made to fail and all of the logic above runs without a GPU, under sanitizers, in builds without
// CUDA. So no header of CUDA is needed here: a stream is the void * that the C API knows, an error is
// CUDA's number.
//
// The real table loads the driver when it is first used, never with the library: what asks for it on
// a machine without a driver is told so by device_count().
//
// Contract: as CUDA's. Calls that take a stream, an event or memory are made with the device's
// context current (CudaScope). Nothing throws.
// Thread class: any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "allocators/status.h"

namespace quire {

// A value of cudaError_t.
using CudaError = int;
inline constexpr CudaError kCudaSuccess = 0;
inline constexpr CudaError kCudaInvalidValue = 1;
inline constexpr CudaError kCudaOutOfMemory = 2;
inline constexpr CudaError kCudaNotReady = 600;

struct CudaProperties {
  char name[64] = {};
  int major = 0, minor = 0;  // compute capability
  uint64_t memory = 0;       // bytes
  bool virtual_memory = false;
};

class CudaApi {
 public:
  virtual ~CudaApi() = default;

  virtual const char *error_text(CudaError error) noexcept = 0;
  // Takes this thread's last error away, so that the engine does not find one of ours.
  virtual void clear_error() noexcept = 0;

  // Devices. count() may say why there is none.
  virtual CudaError device_count(int *count) noexcept = 0;
  virtual CudaError properties(int ordinal, CudaProperties *out) noexcept = 0;

  // Contexts: the device's primary one, which the CUDA runtime uses, too.
  virtual CudaError retain_context(int ordinal, void **context) noexcept = 0;
  virtual CudaError release_context(int ordinal) noexcept = 0;
  virtual CudaError current_context(void **context) noexcept = 0;
  virtual CudaError set_context(void *context) noexcept = 0;
  virtual CudaError stream_context(void *stream, void **context) noexcept = 0;
  // Swaps the thread's capture mode: 0 global, 1 thread-local, 2 relaxed.
  virtual CudaError exchange_capture_mode(int *mode) noexcept = 0;

  // Streams and events.
  virtual CudaError create_stream(void **stream) noexcept = 0;  // non-blocking, lowest priority
  virtual CudaError destroy_stream(void *stream) noexcept = 0;
  virtual CudaError wait_stream(void *stream) noexcept = 0;
  virtual CudaError is_capturing(void *stream, bool *capturing) noexcept = 0;
  virtual CudaError create_event(void **event) noexcept = 0;  // without timing
  virtual CudaError destroy_event(void *event) noexcept = 0;
  virtual CudaError record(void *event, void *stream) noexcept = 0;
  virtual CudaError query(void *event) noexcept = 0;  // kCudaNotReady: not yet
  virtual CudaError stream_wait(void *stream, void *event) noexcept = 0;

  virtual CudaError copy(void *to, const void *from, size_t bytes, void *stream) noexcept = 0;
  virtual CudaError zero(void *to, size_t bytes, void *stream) noexcept = 0;

  // Virtual memory: addresses, memory, and the one behind the other.
  virtual CudaError granularity(int ordinal, size_t *bytes) noexcept = 0;
  virtual CudaError reserve(size_t bytes, size_t alignment, void **base) noexcept = 0;
  virtual CudaError free_addresses(void *base, size_t bytes) noexcept = 0;
  virtual CudaError create_memory(int ordinal, size_t bytes, uint64_t *memory) noexcept = 0;
  // What is mapped stays until it is unmapped.
  virtual CudaError release_memory(uint64_t memory) noexcept = 0;
  virtual CudaError map(void *address, size_t bytes, uint64_t memory) noexcept = 0;
  virtual CudaError unmap(void *address, size_t bytes) noexcept = 0;  // whole mappings
  virtual CudaError set_access(int ordinal, void *address, size_t bytes) noexcept = 0;

  // Plain memory.
  virtual CudaError allocate(size_t bytes, void **memory) noexcept = 0;
  virtual CudaError free(void *memory) noexcept = 0;

  // Pinned memory: mapped into the device's addresses, for all contexts.
  virtual CudaError register_host(void *memory, size_t bytes) noexcept = 0;
  virtual CudaError unregister_host(void *memory) noexcept = 0;
  virtual CudaError device_address(void *host_memory, void **address) noexcept = 0;
};

// The CUDA runtime's; nullptr in a build without CUDA. Never destroyed.
CudaApi *cuda_api() noexcept;

// Whether no further call can succeed in this process: the device's context is broken.
bool cuda_error_is_lasting(CudaError error) noexcept;
// Whether it says that there is no driver, or none that fits, or no device.
bool cuda_error_is_absence(CudaError error) noexcept;
// The Status of an error, with its text; `what` names the call. Clears the thread's last error.
Status cuda_status(CudaApi &api, CudaError error, const char *what) noexcept;

// Makes a context current and the thread's capture mode relaxed, and puts back what was there: a
// call of this library neither changes the engine's device nor breaks a capture of its own.
class CudaScope {
 public:
  CudaScope(CudaApi &api, void *context) noexcept;
  ~CudaScope();
  CudaScope(const CudaScope &) = delete;
  CudaScope &operator=(const CudaScope &) = delete;

  CudaError error() const noexcept { return error_; }

 private:
  CudaApi &api_;
  void *before_ = nullptr;
  int mode_ = 2;
  bool changed_ = false;
  CudaError error_ = kCudaSuccess;
};

}  // namespace quire
