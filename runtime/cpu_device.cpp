#include "runtime/cpu_device.h"

#include <cstring>
#include <memory>
#include <mutex>

#include "runtime/cpu_stream.h"

namespace quire {
namespace {

struct CpuEvent {
  std::mutex mutex;  // a query may run beside a record
  std::shared_ptr<CpuStream> stream;
  uint64_t position = 0;
};

CpuEvent *event_of(Event event) noexcept {
  return reinterpret_cast<CpuEvent *>(static_cast<uintptr_t>(event));
}

Status refuse_no_event() noexcept {
  return set_error(Status::kInvalid, "event 0 is no event");
}

}  // namespace

Status CpuDevice::validate_stream(Stream stream) noexcept {
  if (is_ambiguous_stream(stream)) {
    return set_error(Status::kInvalid, "stream %p names no definite queue", stream);
  }
  return CpuStream::find(stream) != nullptr ? Status::kOk : Status::kInvalid;
}

Status CpuDevice::is_capturing(Stream stream, bool *capturing) noexcept {
  if (Status status = validate_stream(stream); status != Status::kOk) return status;
  *capturing = false;  // CPU streams have no graphs
  return Status::kOk;
}

Status CpuDevice::wait_stream(Stream stream) noexcept {
  return CpuStream::wait(stream);
}

Status CpuDevice::create_event(Event *event) noexcept {
  auto *const created = new (std::nothrow) CpuEvent;
  if (created == nullptr) return set_error(Status::kNomem, "no memory for an event");
  *event = reinterpret_cast<uintptr_t>(created);
  return Status::kOk;
}

void CpuDevice::destroy_event(Event event) noexcept {
  delete event_of(event);
}

Status CpuDevice::record(Event event, Stream stream) noexcept {
  if (event == 0) return refuse_no_event();
  std::shared_ptr<CpuStream> queue = CpuStream::find(stream);
  if (queue == nullptr) return Status::kInvalid;
  CpuEvent &record = *event_of(event);
  const uint64_t position = queue->position();
  // The old stream's object is let go after the lock: its destructor may join a thread.
  {
    std::lock_guard lock(record.mutex);
    record.stream.swap(queue);
    record.position = position;
  }
  return Status::kOk;
}

Status CpuDevice::query(Event event) noexcept {
  if (event == 0) return refuse_no_event();
  CpuEvent &record = *event_of(event);
  std::lock_guard lock(record.mutex);
  if (record.stream == nullptr || record.stream->passed(record.position)) return Status::kOk;
  return Status::kAgain;
}

Status CpuDevice::stream_wait_event(Stream stream, Event event) noexcept {
  if (event == 0) return refuse_no_event();
  const std::shared_ptr<CpuStream> queue = CpuStream::find(stream);
  if (queue == nullptr) return Status::kInvalid;
  CpuEvent &record = *event_of(event);
  std::shared_ptr<CpuStream> other;
  uint64_t position = 0;
  {
    std::lock_guard lock(record.mutex);
    other = record.stream;
    position = record.position;
  }
  return queue->push_wait(std::move(other), position);
}

Status CpuDevice::copy(void *to, const void *from, size_t bytes, Stream stream) noexcept {
  if (bytes == 0) return stream == nullptr ? Status::kOk : validate_stream(stream);
  return launch(stream, Task([=] { std::memcpy(to, from, bytes); }));
}

Status CpuDevice::zero(void *to, size_t bytes, Stream stream) noexcept {
  if (bytes == 0) return stream == nullptr ? Status::kOk : validate_stream(stream);
  return launch(stream, Task([=] { std::memset(to, 0, bytes); }));
}

Status CpuDevice::launch(Stream stream, const Task &task) noexcept {
  if (!task) return set_error(Status::kInvalid, "a launch of an empty task");
  if (stream == nullptr) {
    Task now = task;
    now();
    return Status::kOk;
  }
  const std::shared_ptr<CpuStream> queue = CpuStream::find(stream);
  return queue == nullptr ? Status::kInvalid : queue->push(task);
}

}  // namespace quire
