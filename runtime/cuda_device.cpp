#include "runtime/cuda_device.h"

namespace quire {
namespace {

void *object_of(Event event) noexcept {
  return reinterpret_cast<void *>(static_cast<uintptr_t>(event));
}

Status refuse_no_event() noexcept {
  return set_error(Status::kInvalid, "event 0 is no event");
}

Status refuse_ambiguous(Stream stream) noexcept {
  return set_error(Status::kInvalid, "stream %p names no definite queue", stream);
}

}  // namespace

Status CudaDevice::open(int ordinal) noexcept {
  int count = 0;
  if (const CudaError error = api_.device_count(&count); error != kCudaSuccess) {
    return check(error, "no CUDA device");
  }
  if (count == 0) return set_error(Status::kUnsupported, "no CUDA device");
  if (ordinal < 0 || ordinal >= count) {
    return set_error(Status::kInvalid, "CUDA device %d of %d", ordinal, count);
  }
  if (const Status s = check(api_.properties(ordinal, &properties_), "cudaGetDeviceProperties");
      s != Status::kOk) {
    return s;
  }
  void *context = nullptr;
  if (const Status s = check(api_.retain_context(ordinal, &context), "cuDevicePrimaryCtxRetain");
      s != Status::kOk) {
    return s;
  }
  ordinal_ = ordinal;
  context_ = context;
  if (const Status s = memory_.open(ordinal, context, properties_.virtual_memory);
      s != Status::kOk) {
    return s;
  }
  return call("cudaStreamCreateWithPriority", [&] { return api_.create_stream(&own_stream_); });
}

CudaDevice::~CudaDevice() {
  if (context_ == nullptr) return;
  settle();
  if (own_stream_ != nullptr) {
    const CudaScope scope(api_, context_);
    static_cast<void>(api_.destroy_stream(own_stream_));
    api_.clear_error();
  }
  static_cast<void>(api_.release_context(ordinal_));
}

Status CudaDevice::usable() const noexcept {
  if (!lost()) return Status::kOk;
  const CudaError cause = cause_.load(std::memory_order_relaxed);
  return set_error(Status::kDevice, "CUDA device %d is lost: error %d, %s", ordinal_, cause,
                   api_.error_text(cause));
}

Status CudaDevice::check(CudaError error, const char *what) noexcept {
  if (error == kCudaSuccess) return Status::kOk;
  if (cuda_error_is_lasting(error)) {
    CudaError none = kCudaSuccess;
    // relaxed: the store below orders it. The first cause stands.
    cause_.compare_exchange_strong(none, error, std::memory_order_relaxed);
    // release: pairs with the acquire in lost(), after which the cause is read.
    lost_.store(true, std::memory_order_release);
  }
  return cuda_status(api_, error, what);
}

// Runs one call of CUDA's with the context current.
template <class Call>
Status CudaDevice::call(const char *what, Call &&body) noexcept {
  if (const Status s = usable(); s != Status::kOk) return s;
  const CudaScope scope(api_, context_);
  if (scope.error() != kCudaSuccess) return check(scope.error(), "cuCtxSetCurrent");
  return check(body(), what);
}

// Work without a stream runs on the device's own, to the end.
template <class Call>
Status CudaDevice::enqueue(const char *what, Stream stream, Call &&body) noexcept {
  if (stream != nullptr && is_ambiguous_stream(stream)) return refuse_ambiguous(stream);
  return call(what, [&] {
    if (stream != nullptr) return body(stream);
    const CudaError error = body(own_stream_);
    return error == kCudaSuccess ? api_.wait_stream(own_stream_) : error;
  });
}

// ---- memory

Result<void *> CudaDevice::reserve(size_t bytes, size_t alignment) noexcept {
  if (const Status s = usable(); s != Status::kOk) return s;
  return memory_.reserve(bytes, alignment);
}

Status CudaDevice::commit(void *base, size_t offset, size_t bytes) noexcept {
  if (const Status s = usable(); s != Status::kOk) return s;
  return memory_.commit(base, offset, bytes);
}

Status CudaDevice::decommit(void *base, size_t offset, size_t bytes) noexcept {
  if (const Status s = usable(); s != Status::kOk) return s;
  settle();
  return memory_.decommit(base, offset, bytes);
}

void CudaDevice::release(void *base, size_t bytes) noexcept {
  settle();
  memory_.release(base, bytes);
}

// Work of the device's own on memory that goes away: a wait for it may have failed before.
void CudaDevice::settle() noexcept {
  if (own_stream_ == nullptr || lost()) return;
  const CudaScope scope(api_, context_);
  if (api_.wait_stream(own_stream_) != kCudaSuccess) api_.clear_error();
}

// ---- streams

Status CudaDevice::validate_stream(Stream stream) noexcept {
  if (is_ambiguous_stream(stream)) return refuse_ambiguous(stream);
  void *context = nullptr;
  const Status status =
      call("cuStreamGetCtx", [&] { return api_.stream_context(stream, &context); });
  if (status != Status::kOk || context == context_) return status;
  return set_error(Status::kInvalid,
                   "stream %p is not of CUDA device %d, or of a context of its own", stream,
                   ordinal_);
}

Status CudaDevice::is_capturing(Stream stream, bool *capturing) noexcept {
  if (is_ambiguous_stream(stream)) return refuse_ambiguous(stream);
  return call("cudaStreamIsCapturing", [&] { return api_.is_capturing(stream, capturing); });
}

Status CudaDevice::wait_stream(Stream stream) noexcept {
  if (is_ambiguous_stream(stream)) return refuse_ambiguous(stream);
  return call("cudaStreamSynchronize", [&] { return api_.wait_stream(stream); });
}

// ---- events

Status CudaDevice::create_event(Event *event) noexcept {
  void *made = nullptr;
  const Status status = call("cudaEventCreateWithFlags", [&] { return api_.create_event(&made); });
  if (status == Status::kOk) *event = reinterpret_cast<uintptr_t>(made);
  return status;
}

void CudaDevice::destroy_event(Event event) noexcept {
  if (event == 0) return;
  const CudaScope scope(api_, context_);
  if (api_.destroy_event(object_of(event)) != kCudaSuccess) api_.clear_error();
}

Status CudaDevice::record(Event event, Stream stream) noexcept {
  if (event == 0) return refuse_no_event();
  if (is_ambiguous_stream(stream)) return refuse_ambiguous(stream);
  return call("cudaEventRecord", [&] { return api_.record(object_of(event), stream); });
}

Status CudaDevice::query(Event event) noexcept {
  if (event == 0) return refuse_no_event();
  return call("cudaEventQuery", [&] { return api_.query(object_of(event)); });
}

Status CudaDevice::stream_wait_event(Stream stream, Event event) noexcept {
  if (event == 0) return refuse_no_event();
  if (is_ambiguous_stream(stream)) return refuse_ambiguous(stream);
  return call("cudaStreamWaitEvent", [&] { return api_.stream_wait(stream, object_of(event)); });
}

// ---- work

Status CudaDevice::copy(void *to, const void *from, size_t bytes, Stream stream) noexcept {
  if (bytes == 0) return stream == nullptr ? usable() : validate_stream(stream);
  return enqueue("cudaMemcpyAsync", stream,
                 [&](Stream queue) { return api_.copy(to, from, bytes, queue); });
}

Status CudaDevice::zero(void *to, size_t bytes, Stream stream) noexcept {
  if (bytes == 0) return stream == nullptr ? usable() : validate_stream(stream);
  return enqueue("cudaMemsetAsync", stream,
                 [&](Stream queue) { return api_.zero(to, bytes, queue); });
}

Status CudaDevice::launch(Stream, const Task &) noexcept {
  return set_error(Status::kUnsupported, "a CPU kernel on a GPU");
}

}  // namespace quire
