// FakeCuda: a CudaApi on host memory and CPU streams, with the account books of a driver.
//
// What CUDA refuses, it refuses: a mapping that is taken away in part, memory mapped outside of
// reserved addresses, a call in the wrong context. What CUDA would forgive but a library in order
// does not do is counted in misuses(): a context that is not put back, an object destroyed twice.
// Memory that is mapped but not made accessible faults when it is touched.
//
// Any call can fail: the n-th from now on (fail_nth), or all of them for good (lose), as after a
// kernel that trapped. living() says what the library still owes.
//
// Thread class: any thread; the current context and the capture mode are the thread's, as in CUDA.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "allocators/cuda_api.h"
#include "allocators/host_memory.h"
#include "runtime/cpu_device.h"
#include "runtime/cuda_device.h"

namespace quire::test {

class FakeCuda final : public CudaApi {
 public:
  struct Living {
    int contexts = 0, streams = 0, events = 0, ranges = 0, memories = 0, mappings = 0, plain = 0,
        registered = 0;
    bool operator==(const Living &) const = default;
    std::string text() const;
  };

  explicit FakeCuda(int devices = 1) : devices_(devices) {}

  // The machine.
  void set_absence(CudaError error) { absence_ = error; }  // no driver, or none that fits
  void set_virtual_memory(bool supported) { virtual_memory_ = supported; }
  void set_memory(uint64_t bytes) { memory_ = bytes; }  // of a device
  void set_granularity(size_t bytes) { granularity_ = bytes; }

  // The n-th call from now (1: the next) that can fail does; 0: none.
  void fail_nth(uint64_t n, CudaError error);
  bool failed() const;  // since fail_nth
  void lose(CudaError error) { lost_ = error; }
  uint64_t calls() const;

  // As an engine would.
  void *make_stream(int ordinal = 0);
  void drop_stream(void *stream);
  void set_capturing(void *stream, bool capturing);
  void *context(int ordinal) { return &contexts_[ordinal]; }
  static void *current() { return current_context_; }
  static void set_current(void *context) { current_context_ = context; }
  static int capture_mode() { return capture_mode_; }

  // What launching a kernel answers.
  CudaError launch() noexcept;

  Living living() const;
  uint64_t misuses() const;
  CpuDevice &cpu() { return cpu_; }

  const char *error_text(CudaError error) noexcept override;
  void clear_error() noexcept override {}
  CudaError device_count(int *count) noexcept override;
  CudaError properties(int ordinal, CudaProperties *out) noexcept override;
  CudaError retain_context(int ordinal, void **context) noexcept override;
  CudaError release_context(int ordinal) noexcept override;
  CudaError current_context(void **context) noexcept override;
  CudaError set_context(void *context) noexcept override;
  CudaError stream_context(void *stream, void **context) noexcept override;
  CudaError exchange_capture_mode(int *mode) noexcept override;
  CudaError create_stream(void **stream) noexcept override;
  CudaError destroy_stream(void *stream) noexcept override;
  CudaError wait_stream(void *stream) noexcept override;
  CudaError is_capturing(void *stream, bool *capturing) noexcept override;
  CudaError create_event(void **event) noexcept override;
  CudaError destroy_event(void *event) noexcept override;
  CudaError record(void *event, void *stream) noexcept override;
  CudaError query(void *event) noexcept override;
  CudaError stream_wait(void *stream, void *event) noexcept override;
  CudaError copy(void *to, const void *from, size_t bytes, void *stream) noexcept override;
  CudaError zero(void *to, size_t bytes, void *stream) noexcept override;
  CudaError granularity(int ordinal, size_t *bytes) noexcept override;
  CudaError reserve(size_t bytes, size_t alignment, void **base) noexcept override;
  CudaError free_addresses(void *base, size_t bytes) noexcept override;
  CudaError create_memory(int ordinal, size_t bytes, uint64_t *memory) noexcept override;
  CudaError release_memory(uint64_t memory) noexcept override;
  CudaError map(void *address, size_t bytes, uint64_t memory) noexcept override;
  CudaError unmap(void *address, size_t bytes) noexcept override;
  CudaError set_access(int ordinal, void *address, size_t bytes) noexcept override;
  CudaError allocate(size_t bytes, void **memory) noexcept override;
  CudaError free(void *memory) noexcept override;
  CudaError register_host(void *memory, size_t bytes) noexcept override;
  CudaError unregister_host(void *memory) noexcept override;
  CudaError device_address(void *host_memory, void **address) noexcept override;

 private:
  static constexpr int kMostDevices = 4;
  struct Memory {
    size_t bytes = 0;
    bool handle = true;
    bool mapped = false;
  };
  struct Mapping {
    size_t bytes = 0;
    uint64_t memory = 0;
    bool accessible = false;
  };
  struct FakeStream {
    int ordinal = 0;
    bool capturing = false;
  };

  CudaError admit(bool in_context = true) noexcept;  // mutex_ held
  CudaError misuse() noexcept {
    ++misuses_;
    return kCudaInvalidValue;
  }
  void drop_if_unused(uint64_t memory) noexcept;
  static CudaError error_of(Status status) noexcept;

  static thread_local void *current_context_;
  static thread_local int capture_mode_;

  mutable std::mutex mutex_;
  CpuDevice cpu_;
  HostMemory host_;
  int devices_;
  CudaError absence_ = kCudaSuccess;
  bool virtual_memory_ = true;
  uint64_t memory_ = uint64_t{1} << 40;
  size_t granularity_ = size_t{2} << 20;
  std::atomic<CudaError> lost_{kCudaSuccess};
  uint64_t calls_ = 0, fail_at_ = 0, misuses_ = 0, used_ = 0, next_memory_ = 1;
  CudaError failure_ = kCudaSuccess;
  bool failed_ = false;
  int contexts_[kMostDevices] = {};  // how often each is retained
  std::map<void *, FakeStream> streams_;
  std::map<void *, int> events_;
  std::map<char *, size_t> ranges_, plain_, registered_;
  std::map<uint64_t, Memory> memories_;
  std::map<char *, Mapping> mappings_;
};

// A CudaDevice on which CPU kernels run, too: the fake's memory is the host's.
class FakeCudaDevice final : public CudaDevice {
 public:
  explicit FakeCudaDevice(FakeCuda &fake) : CudaDevice(fake), fake_(fake) {}
  Status launch(Stream stream, const Task &task) noexcept override {
    if (const Status s = usable(); s != Status::kOk) return s;
    if (const Status s = check(fake_.launch(), "launch"); s != Status::kOk) return s;
    return fake_.cpu().launch(stream, task);
  }

 private:
  FakeCuda &fake_;
};

}  // namespace quire::test
