// WeakDevice: a Device whose streams are threads of a model, over the simulated weak memory. It gives
// what its contract promises (runtime/device.h) and no more: what was done before a launch happened
// before the task; what a task did happened before a query that says so; and launches and records of
// one stream are in one order, as by a lock: the later one comes after what was done before the
// earlier one. Nothing else.
//
// A stream runs tasks when its thread calls run(); what is left after the scheduler's run is run by
// finish(). Events may be asked late, never early. Small and fixed: streams, tasks and events.
#ifndef QUIRE_TESTS_SUPPORT_WEAK_DEVICE_H_
#define QUIRE_TESTS_SUPPORT_WEAK_DEVICE_H_

#include <cstdint>
#include <vector>

#include "allocators/host_memory.h"
#include "runtime/device.h"
#include "tests/support/weak_atomics.h"

namespace quire::model {

class WeakDevice final : public Device {
 public:
  static constexpr uint32_t kStreams = 2, kTasks = 16, kEvents = 16;

  static Stream stream(uint32_t i) {
    return reinterpret_cast<Stream>(uintptr_t{16} * (i + 1));  // NOLINT(performance-no-int-to-ptr)
  }

  // Up to n tasks of a stream, in order. One thread a stream.
  void run(uint32_t i, uint32_t n) {
    Queue &q = queue_[i];
    for (uint32_t done = q.completed.load(std::memory_order_relaxed); n != 0; --n) {
      if (done == q.position.load(std::memory_order_acquire)) continue;
      q.task[done]();
      q.completed.store(++done, std::memory_order_release);
    }
  }
  void finish() {
    for (uint32_t i = 0; i < kStreams; ++i) run(i, kTasks);
  }

  const char *name() const noexcept override { return "weak"; }
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
  Status validate_stream(Stream) noexcept override { return Status::kOk; }
  Status is_capturing(Stream, bool *capturing) noexcept override {
    *capturing = false;
    return Status::kOk;
  }
  Status wait_stream(Stream) noexcept override { return Status::kUnsupported; }
  Status create_event(Event *event) noexcept override {
    if (events_ == kEvents) return Status::kNomem;
    *event = ++events_;
    return Status::kOk;
  }
  void destroy_event(Event) noexcept override {}
  // One thread at a time records one event: the library's claim sees to that, and Plain checks it.
  Status record(Event event, Stream s) noexcept override {
    Queue &q = queue_of(s);
    mark_[event - 1] = {&q, q.position.fetch_add(0, std::memory_order_acq_rel)};
    ++records;
    return Status::kOk;
  }
  Status query(Event event) noexcept override {
    const Mark mark = mark_[event - 1];
    const bool done = mark.queue == nullptr ||
                      mark.queue->completed.load(std::memory_order_acquire) >= mark.position;
    if (done) ++answers;
    return done ? Status::kOk : Status::kAgain;
  }
  // Only looks whether the event was recorded, where the caller can know it.
  Status stream_wait_event(Stream, Event event) noexcept override {
    const Mark mark = mark_[event - 1];
    return mark.queue != nullptr ? Status::kOk : Status::kInvalid;
  }
  Status copy(void *, const void *, size_t, Stream) noexcept override {
    return Status::kUnsupported;
  }
  Status zero(void *, size_t, Stream) noexcept override { return Status::kUnsupported; }
  // One thread at a time gives work to a stream.
  Status launch(Stream s, const Task &task) noexcept override {
    Queue &q = queue_of(s);
    const uint32_t at = q.position.load(std::memory_order_relaxed);
    if (at == kTasks) return Status::kNomem;
    q.task[at] = task;
    q.position.fetch_add(1, std::memory_order_acq_rel);
    return Status::kOk;
  }

  uint64_t records = 0, answers = 0;  // events recorded; queries that said kOk

 private:
  struct Queue {
    WeakAtomic<uint32_t> position{0}, completed{0};
    Task task[kTasks];
  };
  struct Mark {
    Queue *queue = nullptr;
    uint32_t position = 0;
  };
  Queue &queue_of(Stream s) { return queue_[reinterpret_cast<uintptr_t>(s) / 16 - 1]; }

  HostMemory memory_;
  Queue queue_[kStreams];
  Plain<Mark> mark_[kEvents];
  Event events_ = 0;
};

}  // namespace quire::model

#endif  // QUIRE_TESTS_SUPPORT_WEAK_DEVICE_H_
