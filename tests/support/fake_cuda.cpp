#include "support/fake_cuda.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "runtime/cpu_stream.h"

namespace quire::test {

thread_local void *FakeCuda::current_context_ = nullptr;
thread_local int FakeCuda::capture_mode_ = 0;

std::string FakeCuda::Living::text() const {
  const auto item = [](const char *name, int n) {
    return n == 0 ? std::string() : " " + std::to_string(n) + " " + name;
  };
  return item("contexts", contexts) + item("streams", streams) + item("events", events) +
         item("ranges", ranges) + item("memories", memories) + item("mappings", mappings) +
         item("plain", plain) + item("registered", registered);
}

void FakeCuda::fail_nth(uint64_t n, CudaError error) {
  const std::lock_guard lock(mutex_);
  fail_at_ = n == 0 ? 0 : calls_ + n;
  failure_ = error;
  failed_ = false;
}

bool FakeCuda::failed() const {
  const std::lock_guard lock(mutex_);
  return failed_;
}

uint64_t FakeCuda::calls() const {
  const std::lock_guard lock(mutex_);
  return calls_;
}

uint64_t FakeCuda::misuses() const {
  const std::lock_guard lock(mutex_);
  return misuses_;
}

FakeCuda::Living FakeCuda::living() const {
  const std::lock_guard lock(mutex_);
  Living living;
  for (const int retained : contexts_) living.contexts += retained;
  living.streams = static_cast<int>(streams_.size());
  living.events = static_cast<int>(events_.size());
  living.ranges = static_cast<int>(ranges_.size());
  living.memories = static_cast<int>(memories_.size());
  living.mappings = static_cast<int>(mappings_.size());
  living.plain = static_cast<int>(plain_.size());
  living.registered = static_cast<int>(registered_.size());
  return living;
}

void *FakeCuda::make_stream(int ordinal) {
  Stream stream = nullptr;
  if (CpuStream::create(1, &stream) != Status::kOk) return nullptr;
  const std::lock_guard lock(mutex_);
  streams_[stream] = {ordinal, false};
  return stream;
}

void FakeCuda::drop_stream(void *stream) {
  {
    const std::lock_guard lock(mutex_);
    streams_.erase(stream);
  }
  static_cast<void>(CpuStream::destroy(stream));
}

void FakeCuda::set_capturing(void *stream, bool capturing) {
  const std::lock_guard lock(mutex_);
  streams_[stream].capturing = capturing;
}

CudaError FakeCuda::error_of(Status status) noexcept {
  switch (status) {
    case Status::kOk:
      return kCudaSuccess;
    case Status::kAgain:
      return kCudaNotReady;
    case Status::kNomem:
      return kCudaOutOfMemory;
    default:
      return 400;  // cudaErrorInvalidResourceHandle
  }
}

CudaError FakeCuda::admit(bool in_context) noexcept {
  if (lost_ != kCudaSuccess) return lost_;
  ++calls_;
  if (calls_ == fail_at_) {
    failed_ = true;
    return failure_;
  }
  if (!in_context) return kCudaSuccess;
  for (int i = 0; i < devices_; ++i) {
    if (current_context_ == &contexts_[i] && contexts_[i] > 0) return kCudaSuccess;
  }
  ++misuses_;
  return 201;  // cudaErrorDeviceUninitialized
}

CudaError FakeCuda::launch() noexcept {
  const std::lock_guard lock(mutex_);
  return admit(false);
}

const char *FakeCuda::error_text(CudaError error) noexcept {
  switch (error) {
    case 35:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case 100:
      return "no CUDA-capable device is detected";
    case 719:
      return "unspecified launch failure";
    default:
      return "a fake error";
  }
}

// ---- devices and contexts

CudaError FakeCuda::device_count(int *count) noexcept {
  const std::lock_guard lock(mutex_);
  if (absence_ != kCudaSuccess) return absence_;
  *count = devices_;
  return admit(false);
}

CudaError FakeCuda::properties(int ordinal, CudaProperties *out) noexcept {
  const std::lock_guard lock(mutex_);
  if (ordinal < 0 || ordinal >= devices_) return 101;  // cudaErrorInvalidDevice
  *out = CudaProperties{};
  std::strcpy(out->name, "fake");
  out->major = 9;
  out->memory = memory_;
  out->virtual_memory = virtual_memory_;
  return admit(false);
}

CudaError FakeCuda::retain_context(int ordinal, void **context) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(false); e != kCudaSuccess) return e;
  ++contexts_[ordinal];
  *context = &contexts_[ordinal];
  return kCudaSuccess;
}

CudaError FakeCuda::release_context(int ordinal) noexcept {
  const std::lock_guard lock(mutex_);
  if (contexts_[ordinal] == 0) return misuse();
  --contexts_[ordinal];
  return kCudaSuccess;
}

CudaError FakeCuda::current_context(void **context) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(false); e != kCudaSuccess) return e;
  *context = current_context_;
  return kCudaSuccess;
}

CudaError FakeCuda::set_context(void *context) noexcept {
  current_context_ = context;
  return kCudaSuccess;
}

CudaError FakeCuda::stream_context(void *stream, void **context) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  const auto found = streams_.find(stream);
  if (found == streams_.end()) return 400;
  *context = &contexts_[found->second.ordinal];
  return kCudaSuccess;
}

CudaError FakeCuda::exchange_capture_mode(int *mode) noexcept {
  std::swap(capture_mode_, *mode);
  return kCudaSuccess;
}

// ---- streams and events

CudaError FakeCuda::create_stream(void **stream) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  Stream made = nullptr;
  if (const CudaError e = error_of(CpuStream::create(1, &made)); e != kCudaSuccess) return e;
  int ordinal = 0;
  while (&contexts_[ordinal] != current_context_) ++ordinal;
  streams_[made] = {ordinal, false};
  *stream = made;
  return kCudaSuccess;
}

CudaError FakeCuda::destroy_stream(void *stream) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (streams_.erase(stream) == 0) return misuse();
  }
  return error_of(CpuStream::destroy(stream));
}

CudaError FakeCuda::wait_stream(void *stream) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (const CudaError e = admit(); e != kCudaSuccess) return e;
  }
  return error_of(CpuStream::wait(stream));
}

CudaError FakeCuda::is_capturing(void *stream, bool *capturing) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  const auto found = streams_.find(stream);
  if (found == streams_.end()) return 400;
  *capturing = found->second.capturing;
  return kCudaSuccess;
}

CudaError FakeCuda::create_event(void **event) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  Event made = 0;
  if (const CudaError e = error_of(cpu_.create_event(&made)); e != kCudaSuccess) return e;
  *event = reinterpret_cast<void *>(static_cast<uintptr_t>(made));
  events_[*event] = 1;
  return kCudaSuccess;
}

CudaError FakeCuda::destroy_event(void *event) noexcept {
  const std::lock_guard lock(mutex_);
  if (events_.erase(event) == 0) return misuse();
  cpu_.destroy_event(reinterpret_cast<uintptr_t>(event));
  return kCudaSuccess;
}

CudaError FakeCuda::record(void *event, void *stream) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  return error_of(cpu_.record(reinterpret_cast<uintptr_t>(event), stream));
}

CudaError FakeCuda::query(void *event) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  return error_of(cpu_.query(reinterpret_cast<uintptr_t>(event)));
}

CudaError FakeCuda::stream_wait(void *stream, void *event) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  return error_of(cpu_.stream_wait_event(stream, reinterpret_cast<uintptr_t>(event)));
}

CudaError FakeCuda::copy(void *to, const void *from, size_t bytes, void *stream) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  return error_of(cpu_.copy(to, from, bytes, stream));
}

CudaError FakeCuda::zero(void *to, size_t bytes, void *stream) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  return error_of(cpu_.zero(to, bytes, stream));
}

// ---- virtual memory

CudaError FakeCuda::granularity(int, size_t *bytes) noexcept {
  const std::lock_guard lock(mutex_);
  *bytes = granularity_;
  return admit();
}

CudaError FakeCuda::reserve(size_t bytes, size_t alignment, void **base) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  if (bytes % granularity_ != 0 || bytes > uint64_t{1} << 46) return kCudaOutOfMemory;
  Result<void *> found = host_.reserve(bytes, std::max(alignment, granularity_));
  if (!found.ok()) return error_of(found.status());
  ranges_[static_cast<char *>(found.value())] = bytes;
  *base = found.value();
  return kCudaSuccess;
}

CudaError FakeCuda::free_addresses(void *base, size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = ranges_.find(static_cast<char *>(base));
  if (found == ranges_.end() || found->second != bytes) return misuse();
  const auto mapped = mappings_.lower_bound(found->first);
  if (mapped != mappings_.end() && mapped->first < found->first + bytes) return misuse();
  host_.release(base, bytes);
  ranges_.erase(found);
  return kCudaSuccess;
}

CudaError FakeCuda::create_memory(int, size_t bytes, uint64_t *memory) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  if (bytes % granularity_ != 0) return misuse();
  if (used_ + bytes > memory_) return kCudaOutOfMemory;
  used_ += bytes;
  *memory = next_memory_++;
  memories_[*memory] = {bytes, true, false};
  return kCudaSuccess;
}

void FakeCuda::drop_if_unused(uint64_t memory) noexcept {
  const auto found = memories_.find(memory);
  if (found->second.handle || found->second.mapped) return;
  used_ -= found->second.bytes;
  memories_.erase(found);
}

CudaError FakeCuda::release_memory(uint64_t memory) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = memories_.find(memory);
  if (found == memories_.end() || !found->second.handle) return misuse();
  found->second.handle = false;
  drop_if_unused(memory);
  return kCudaSuccess;
}

CudaError FakeCuda::map(void *address, size_t bytes, uint64_t memory) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  char *const at = static_cast<char *>(address);
  auto range = ranges_.upper_bound(at);
  if (range == ranges_.begin()) return misuse();
  --range;
  const auto found = memories_.find(memory);
  if (at + bytes > range->first + range->second || found == memories_.end() ||
      found->second.bytes != bytes || found->second.mapped) {
    return misuse();
  }
  const auto next = mappings_.lower_bound(at);
  if (next != mappings_.end() && next->first < at + bytes) return misuse();
  found->second.mapped = true;
  mappings_[at] = {bytes, memory, false};
  return kCudaSuccess;
}

CudaError FakeCuda::unmap(void *address, size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  char *const begin = static_cast<char *>(address);
  char *at = begin;
  // Whole mappings, without a hole.
  while (at < begin + bytes) {
    const auto found = mappings_.find(at);
    if (found == mappings_.end() || at + found->second.bytes > begin + bytes) {
      return kCudaInvalidValue;
    }
    at += found->second.bytes;
  }
  static_cast<void>(host_.decommit(begin, 0, bytes));
  for (at = begin; at < begin + bytes;) {
    const auto found = mappings_.find(at);
    at += found->second.bytes;
    memories_[found->second.memory].mapped = false;
    drop_if_unused(found->second.memory);
    mappings_.erase(found);
  }
  return kCudaSuccess;
}

CudaError FakeCuda::set_access(int, void *address, size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  char *const begin = static_cast<char *>(address);
  for (char *at = begin; at < begin + bytes;) {
    const auto found = mappings_.find(at);
    if (found == mappings_.end()) return misuse();
    if (!found->second.accessible && host_.commit(at, 0, found->second.bytes) != Status::kOk) {
      return kCudaOutOfMemory;
    }
    found->second.accessible = true;
    at += found->second.bytes;
  }
  return kCudaSuccess;
}

// ---- plain and pinned memory

CudaError FakeCuda::allocate(size_t bytes, void **memory) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  if (used_ + bytes > memory_) return kCudaOutOfMemory;
  void *const made = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (made == nullptr) return kCudaOutOfMemory;
  used_ += bytes;
  plain_[static_cast<char *>(made)] = bytes;
  *memory = made;
  return kCudaSuccess;
}

CudaError FakeCuda::free(void *memory) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = plain_.find(static_cast<char *>(memory));
  if (found == plain_.end()) return misuse();
  used_ -= found->second;
  plain_.erase(found);
  std::free(memory);
  return kCudaSuccess;
}

CudaError FakeCuda::register_host(void *memory, size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  char *const at = static_cast<char *>(memory);
  const auto next = registered_.upper_bound(at);
  if (next != registered_.end() && next->first < at + bytes) return 712;  // already registered
  if (next != registered_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second > at) return 712;
  }
  registered_[at] = bytes;
  return kCudaSuccess;
}

CudaError FakeCuda::unregister_host(void *memory) noexcept {
  const std::lock_guard lock(mutex_);
  if (registered_.erase(static_cast<char *>(memory)) == 0) return misuse();
  return kCudaSuccess;
}

CudaError FakeCuda::device_address(void *host_memory, void **address) noexcept {
  const std::lock_guard lock(mutex_);
  if (const CudaError e = admit(); e != kCudaSuccess) return e;
  *address = host_memory;
  return kCudaSuccess;
}

}  // namespace quire::test
