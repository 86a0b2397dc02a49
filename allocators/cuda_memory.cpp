#include "allocators/cuda_memory.h"

#include <algorithm>
#include <cstdint>
#include <new>

namespace quire {
Status CudaMemory::open(int ordinal, void *context, bool virtual_memory) noexcept {
  ordinal_ = ordinal;
  context_ = context;
  virtual_ = virtual_memory;
  granularity_ = virtual_ ? kGranule : kPlainGranule;
  if (!virtual_) return Status::kOk;
  const CudaScope scope(api_, context_);
  size_t unit = 0;
  CudaError error = scope.error();
  if (error == kCudaSuccess) error = api_.granularity(ordinal_, &unit);
  if (error != kCudaSuccess) return cuda_status(api_, error, "cuMemGetAllocationGranularity");
  while (granularity_ < unit) granularity_ *= 2;
  return Status::kOk;
}

Result<void *> CudaMemory::reserve(size_t bytes, size_t alignment) noexcept {
  if (bytes == 0 || bytes % granularity_ != 0) {
    return set_error(Status::kInvalid, "%zu bytes are no multiple of %zu", bytes, granularity_);
  }
  if ((alignment & (alignment - 1)) != 0) {
    return set_error(Status::kInvalid, "an alignment of %zu is no power of two", alignment);
  }
  alignment = std::max(alignment, granularity_);
  if (bytes > SIZE_MAX / 2) return set_error(Status::kNomem, "%zu bytes of addresses", bytes);
  const CudaScope scope(api_, context_);
  if (scope.error() != kCudaSuccess) return cuda_status(api_, scope.error(), "cuCtxSetCurrent");
  if (!virtual_) return reserve_plain(bytes, alignment);
  void *base = nullptr;
  const CudaError error = api_.reserve(bytes, alignment, &base);
  if (error != kCudaSuccess) return cuda_status(api_, error, "cuMemAddressReserve");
  return base;
}

Result<void *> CudaMemory::reserve_plain(size_t bytes, size_t alignment) noexcept {
  void *memory = nullptr;
  if (const CudaError error = api_.allocate(bytes + alignment, &memory); error != kCudaSuccess) {
    return cuda_status(api_, error, "cudaMalloc");
  }
  const uintptr_t misaligned = reinterpret_cast<uintptr_t>(memory) & (alignment - 1);
  char *const base = static_cast<char *>(memory) + (misaligned == 0 ? 0 : alignment - misaligned);
  try {
    const std::lock_guard lock(mutex_);
    plain_.push_back({base, memory});
  } catch (const std::bad_alloc &) {
    static_cast<void>(api_.free(memory));
    return set_error(Status::kNomem, "no memory to note an allocation in");
  }
  return static_cast<void *>(base);
}

Status CudaMemory::map_granule(void *at) noexcept {
  uint64_t memory = 0;
  CudaError error = api_.create_memory(ordinal_, granularity_, &memory);
  if (error != kCudaSuccess) return cuda_status(api_, error, "cuMemCreate");
  error = api_.map(at, granularity_, memory);
  if (error != kCudaSuccess) {
    const Status status = cuda_status(api_, error, "cuMemMap");
    static_cast<void>(api_.release_memory(memory));
    return status;
  }
  // The mapping keeps the memory.
  static_cast<void>(api_.release_memory(memory));
  return Status::kOk;
}

Status CudaMemory::commit(void *base, size_t offset, size_t bytes) noexcept {
  if (bytes == 0 || !virtual_) return Status::kOk;
  const CudaScope scope(api_, context_);
  if (scope.error() != kCudaSuccess) return cuda_status(api_, scope.error(), "cuCtxSetCurrent");
  char *const start = static_cast<char *>(base) + offset;
  for (size_t done = 0; done < bytes; done += granularity_) {
    if (const Status s = map_granule(start + done); s != Status::kOk) {
      if (done != 0) static_cast<void>(api_.unmap(start, done));
      return s;
    }
  }
  const CudaError error = api_.set_access(ordinal_, start, bytes);
  if (error == kCudaSuccess) return Status::kOk;
  const Status status = cuda_status(api_, error, "cuMemSetAccess");
  static_cast<void>(api_.unmap(start, bytes));
  return status;
}

Status CudaMemory::decommit(void *base, size_t offset, size_t bytes) noexcept {
  if (bytes == 0 || !virtual_) return Status::kOk;
  const CudaScope scope(api_, context_);
  if (scope.error() != kCudaSuccess) return cuda_status(api_, scope.error(), "cuCtxSetCurrent");
  return cuda_status(api_, api_.unmap(static_cast<char *>(base) + offset, bytes), "cuMemUnmap");
}

void CudaMemory::release(void *base, size_t bytes) noexcept {
  const CudaScope scope(api_, context_);
  if (scope.error() != kCudaSuccess) return;  // the context is gone, and its memory with it
  if (virtual_) {
    // What is mapped is not kept: asking for each granule is cheap, and a refusal changes nothing.
    for (size_t at = 0; at < bytes; at += granularity_) {
      static_cast<void>(api_.unmap(static_cast<char *>(base) + at, granularity_));
    }
    static_cast<void>(api_.free_addresses(base, bytes));
    api_.clear_error();
    return;
  }
  void *memory = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(plain_.begin(), plain_.end(),
                                    [base](const Plain &plain) { return plain.base == base; });
    if (found == plain_.end()) return;
    memory = found->memory;
    plain_.erase(found);
  }
  if (api_.free(memory) != kCudaSuccess) api_.clear_error();
}

}  // namespace quire
