// CudaMemory: the MemorySource over one GPU's memory.
//
//   reserve   addresses of the GPU, which kernels take once and keep
//   commit    a piece of memory mapped behind each granule, readable and writable by the GPU
//   decommit  those mappings away: the memory is the GPU's again, the addresses stay
//
// Memory is mapped in granules of 16 MiB, because a mapping can only be taken away whole: so any
// range of granules can be decommitted, whatever was committed in one call. The handle of a piece is
// given up once it is mapped, so the source keeps nothing: the driver frees the piece with its
// mapping. Taking a range away is one call, so that it happens whole or not at all. Where the GPU cannot do this (some virtual machines), reserve() takes plain memory for
// the whole range at once, and commit and decommit do nothing.
//
// The bytes are not the host's, and are not zero after a commit: nobody reads what was not written.
//
// Thread class: any thread; calls on disjoint ranges may run at once. Cost: driver calls, once a
// granule; cuMemUnmap and cudaFree may wait for the GPU, so decommit and release belong to the end.
#pragma once

#include <mutex>
#include <vector>

#include "allocators/cuda_api.h"
#include "allocators/memory.h"

namespace quire {

class CudaMemory final : public MemorySource {
 public:
  // Unusable until open().
  explicit CudaMemory(CudaApi &api) noexcept : api_(api) {}

  // `context`: the primary one of the device, held by the caller as long as this lives.
  Status open(int ordinal, void *context, bool virtual_memory) noexcept;

  size_t granularity() const noexcept override { return granularity_; }
  Result<void *> reserve(size_t bytes, size_t alignment) noexcept override;
  Status commit(void *base, size_t offset, size_t bytes) noexcept override;
  Status decommit(void *base, size_t offset, size_t bytes) noexcept override;
  void release(void *base, size_t bytes) noexcept override;
  bool host_visible() const noexcept override { return false; }

 private:
  Status map_granule(void *at) noexcept;
  Result<void *> reserve_plain(size_t bytes, size_t alignment) noexcept;

  CudaApi &api_;
  int ordinal_ = 0;
  void *context_ = nullptr;
  bool virtual_ = false;
  size_t granularity_ = kGranule;

  struct Plain {
    void *base, *memory;
  };
  std::mutex mutex_;
  std::vector<Plain> plain_;  // under mutex_; with virtual memory empty

  static constexpr size_t kGranule = size_t{16} << 20;
  static constexpr size_t kPlainGranule = size_t{2} << 20;
};

}  // namespace quire
