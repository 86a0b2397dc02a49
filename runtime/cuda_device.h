// CudaDevice: the Device whose memory is one GPU's and whose streams are the engine's cudaStream_t.
//
// A Stream is a cudaStream_t, an Event a cudaEvent_t, both by value: CUDA keeps the objects, this
// class keeps its context, one stream of its own (non-blocking, of the lowest priority, for work
// without a stream) and whether the device is lost.
//
// Every call makes the device's primary context current and the thread's capture mode relaxed, and
// puts back what it found (CudaScope): the engine's current device and its captures are not touched.
//
// A lost device. After a fault in any kernel of the process (an illegal address, a trap) CUDA answers
// every later call of the context with an error. The first one seen sets lost(), for good: from then
// on each call here returns kDevice without asking CUDA, and nothing runs on the device any more, so
// the stream table counts its streams as passed. What needs no device goes on: match, acquire,
// release, stats, close.
//
// Handles. CUDA takes a pointer for what it is: that a stream is of another device or context is
// found, that it is gone is not.
//
// Invariants: lost() never goes back; between open() and the destructor the context is retained.
// Thread class: device.h's. Cost: beside CUDA's own, two reads and two swaps of thread-local words;
// record about half a microsecond, query a third.
#pragma once

#include <atomic>

#include "allocators/cuda_api.h"
#include "allocators/cuda_memory.h"
#include "runtime/device.h"

namespace quire {

class CudaDevice : public Device {
 public:
  // Unusable until open(). `api` outlives it.
  explicit CudaDevice(CudaApi &api) noexcept : api_(api), memory_(api) {}
  ~CudaDevice() override;
  CudaDevice(const CudaDevice &) = delete;
  CudaDevice &operator=(const CudaDevice &) = delete;

  // kUnsupported: no driver or no GPU, with the reason. kInvalid: no such ordinal.
  Status open(int ordinal) noexcept;

  const char *name() const noexcept override { return "cuda"; }
  bool lost() const noexcept override { return lost_.load(std::memory_order_acquire); }

  CudaApi &api() noexcept { return api_; }
  int ordinal() const noexcept { return ordinal_; }
  void *context() const noexcept { return context_; }
  const CudaProperties &properties() const noexcept { return properties_; }
  // For the library's own work: in order, beside the engine's.
  Stream own_stream() const noexcept { return own_stream_; }
  // What became of a call: notes a lasting error. Kernels report theirs here, too.
  Status check(CudaError error, const char *what) noexcept;
  // kDevice once the device is lost.
  Status usable() const noexcept;

  size_t granularity() const noexcept override { return memory_.granularity(); }
  Result<void *> reserve(size_t bytes, size_t alignment) noexcept override;
  Status commit(void *base, size_t offset, size_t bytes) noexcept override;
  Status decommit(void *base, size_t offset, size_t bytes) noexcept override;
  void release(void *base, size_t bytes) noexcept override;
  bool host_visible() const noexcept override { return false; }

  Status validate_stream(Stream stream) noexcept override;
  Status is_capturing(Stream stream, bool *capturing) noexcept override;
  Status wait_stream(Stream stream) noexcept override;

  Status create_event(Event *event) noexcept override;
  void destroy_event(Event event) noexcept override;
  Status record(Event event, Stream stream) noexcept override;
  Status query(Event event) noexcept override;
  Status stream_wait_event(Stream stream, Event event) noexcept override;

  Status copy(void *to, const void *from, size_t bytes, Stream stream) noexcept override;
  Status zero(void *to, size_t bytes, Stream stream) noexcept override;
  Status launch(Stream stream, const Task &task) noexcept override;

 private:
  template <class Call>
  Status call(const char *what, Call &&body) noexcept;
  void settle() noexcept;
  template <class Call>
  Status enqueue(const char *what, Stream stream, Call &&body) noexcept;

  CudaApi &api_;
  CudaMemory memory_;
  int ordinal_ = 0;
  void *context_ = nullptr;
  Stream own_stream_ = nullptr;
  CudaProperties properties_;
  std::atomic<bool> lost_{false};
  std::atomic<CudaError> cause_{kCudaSuccess};
};

}  // namespace quire
