// CpuDevice: the Device whose memory is plain memory, whose streams are CpuStreams and whose
// kernels are C++ functions. CPU-only engines run on it; it is also what the library serves on
// without a GPU.
//
// An event is a pair (stream, position), see cpu_stream.h:
//   query(e) == kOk  <=>  e was never recorded, or its stream's completed() >= its position
// It keeps the stream's object alive, not its thread: events may outlive the streams they were
// recorded on.
//
// The device has no state of its own, so one per cache costs nothing. Any thread, under device.h's
// rule for one event. Cost: record and stream_wait_event two short locks; query one lock of the
// event's own and one load; memory calls are system calls.
#pragma once

#include "allocators/host_memory.h"
#include "runtime/device.h"

namespace quire {

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(const HostMemoryOptions &options = {}) noexcept : memory_(options) {}

  const char *name() const noexcept override { return "cpu"; }

  size_t granularity() const noexcept override { return memory_.granularity(); }
  Result<void *> reserve(size_t bytes, size_t alignment) noexcept override {
    return memory_.reserve(bytes, alignment);
  }
  Status commit(void *base, size_t offset, size_t bytes) noexcept override {
    return memory_.commit(base, offset, bytes);
  }
  Status decommit(void *base, size_t offset, size_t bytes) noexcept override {
    return memory_.decommit(base, offset, bytes);
  }
  void release(void *base, size_t bytes) noexcept override { memory_.release(base, bytes); }
  bool host_visible() const noexcept override { return true; }

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
  HostMemory memory_;
};

}  // namespace quire
