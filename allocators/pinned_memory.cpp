#include "allocators/pinned_memory.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <system_error>
#include <thread>

namespace quire {
namespace {

constexpr unsigned kMostThreads = 16;

HostMemoryOptions host_options(const PinnedMemoryOptions &options) noexcept {
  HostMemoryOptions host;
  host.huge_pages = options.huge_pages;
  host.numa_node = options.numa_node;
  return host;
}

}  // namespace

// One commit, shared by the threads that work on it.
struct PinnedMemory::Filling {
  char *start;
  size_t granules;
  std::atomic<size_t> next{0};
  std::atomic<CudaError> error{kCudaSuccess};
  // Which granules are registered, by the thread that took them: no two take one.
  std::atomic<bool> *done;
};

PinnedMemory::PinnedMemory(CudaApi &api, void *context, const PinnedMemoryOptions &options) noexcept
    : api_(api), context_(context), host_(host_options(options)), threads_(options.threads) {
  if (threads_ == 0) {
    threads_ = std::clamp(std::thread::hardware_concurrency(), 1U, kMostThreads);
  }
}

Result<void *> PinnedMemory::reserve(size_t bytes, size_t alignment) noexcept {
  if (bytes == 0 || bytes % kGranule != 0) {
    return set_error(Status::kInvalid, "%zu bytes are no multiple of %zu", bytes, kGranule);
  }
  if ((alignment & (alignment - 1)) != 0) {
    return set_error(Status::kInvalid, "an alignment of %zu is no power of two", alignment);
  }
  return host_.reserve(bytes, std::max(alignment, kGranule));
}

// A thread's share: granule after granule, until there are none or one failed.
void PinnedMemory::fill(Filling &filling) noexcept {
  const CudaScope scope(api_, context_);
  if (scope.error() != kCudaSuccess) {
    filling.error.store(scope.error(), std::memory_order_relaxed);
    return;
  }
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  // relaxed, all here: the join orders them for the caller.
  while (filling.error.load(std::memory_order_relaxed) == kCudaSuccess) {
    const size_t mine = filling.next.fetch_add(1, std::memory_order_relaxed);
    if (mine >= filling.granules) return;
    char *const granule = filling.start + mine * kGranule;
    for (size_t at = 0; at < kGranule; at += page) {
      // volatile: a write of zero to fresh memory is what is wanted here.
      *static_cast<volatile char *>(granule + at) = 0;
    }
    if (const CudaError e = api_.register_host(granule, kGranule); e != kCudaSuccess) {
      filling.error.store(e, std::memory_order_relaxed);
      return;
    }
    filling.done[mine].store(true, std::memory_order_relaxed);
  }
}

Status PinnedMemory::commit(void *base, size_t offset, size_t bytes) noexcept {
  if (bytes == 0) return Status::kOk;
  char *const start = static_cast<char *>(base) + offset;
  if (const Status s = host_.commit(base, offset, bytes); s != Status::kOk) return s;
  Filling filling{start, bytes / kGranule, {}, {}, nullptr};
  const std::unique_ptr<std::atomic<bool>[]> done(new (std::nothrow)
                                                      std::atomic<bool>[filling.granules]());
  const auto undo = [&](Status status) {
    for (size_t i = 0; done && i < filling.granules; ++i) {
      if (done[i].load(std::memory_order_relaxed)) {
        static_cast<void>(unregister(start + i * kGranule, kGranule));
      }
    }
    static_cast<void>(host_.decommit(base, offset, bytes));
    return status;
  };
  if (!done) return undo(set_error(Status::kNomem, "no memory to commit with"));
  filling.done = done.get();
  const size_t helpers = std::min<size_t>(threads_, filling.granules) - 1;
  std::thread helper[kMostThreads];
  for (size_t i = 0; i < std::min<size_t>(helpers, kMostThreads); ++i) {
    try {
      helper[i] = std::thread([this, &filling]() noexcept { fill(filling); });
    } catch (const std::system_error &) {
      break;  // with fewer hands, then
    }
  }
  fill(filling);
  for (std::thread &thread : helper) {
    if (thread.joinable()) thread.join();
  }
  const CudaError error = filling.error.load(std::memory_order_relaxed);
  return error == kCudaSuccess ? Status::kOk : undo(cuda_status(api_, error, "cudaHostRegister"));
}

// The first error of any granule; the others are unregistered all the same.
CudaError PinnedMemory::unregister(char *start, size_t bytes) noexcept {
  const CudaScope scope(api_, context_);
  if (scope.error() != kCudaSuccess) return scope.error();
  CudaError first = kCudaSuccess;
  for (size_t at = 0; at < bytes; at += kGranule) {
    const CudaError e = api_.unregister_host(start + at);
    if (first == kCudaSuccess) first = e;
  }
  return first;
}

Status PinnedMemory::decommit(void *base, size_t offset, size_t bytes) noexcept {
  if (bytes == 0) return Status::kOk;
  const CudaError error = unregister(static_cast<char *>(base) + offset, bytes);
  // On a lost device nothing is registered any more: the pages go all the same.
  if (error != kCudaSuccess && !cuda_error_is_lasting(error)) {
    return cuda_status(api_, error, "cudaHostUnregister");
  }
  return host_.decommit(base, offset, bytes);
}

void PinnedMemory::release(void *base, size_t bytes) noexcept {
  // What is committed is not kept: a granule that is not registered is refused, no more.
  static_cast<void>(unregister(static_cast<char *>(base), bytes));
  api_.clear_error();
  host_.release(base, bytes);
}

}  // namespace quire
