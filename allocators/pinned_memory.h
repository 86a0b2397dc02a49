// PinnedMemory: the MemorySource over host memory that a GPU reads and writes itself.
//
//   commit    fresh pages (mmap), touched by several threads, registered with CUDA granule by granule
//   decommit  unregistered, then given back
//
// cudaMallocHost does the same on one thread. Touching first and registering afterwards lets all
// cores clear pages, and registering by granule lets that begin while others still touch. An arena
// that commits a slab at a time has its first frames long before its last.
//
// CUDA takes a copy or a memset of its own only within one registration: those, for what lies across
// granules, are made in parts. Kernels see no seam.
//
// Invariants: a granule is registered <=> it is committed; a commit that fails leaves neither.
// Thread class: any thread; calls on disjoint ranges may run at once. Cost: tests/gpu/device_test.cpp
// prints it; threads live for one commit.
#pragma once

#include "allocators/cuda_api.h"
#include "allocators/host_memory.h"

namespace quire {

struct PinnedMemoryOptions {
  bool huge_pages = true;  // asked of the kernel; see HostMemoryOptions
  int numa_node = -1;
  unsigned threads = 0;  // that touch; 0: one a CPU, at most 16
};

class PinnedMemory final : public MemorySource {
 public:
  // `context` is current in every call of CUDA; the caller holds it as long as this lives.
  PinnedMemory(CudaApi &api, void *context, const PinnedMemoryOptions &options = {}) noexcept;

  size_t granularity() const noexcept override { return kGranule; }
  Result<void *> reserve(size_t bytes, size_t alignment) noexcept override;
  Status commit(void *base, size_t offset, size_t bytes) noexcept override;
  Status decommit(void *base, size_t offset, size_t bytes) noexcept override;
  void release(void *base, size_t bytes) noexcept override;
  bool host_visible() const noexcept override { return true; }

 private:
  struct Filling;
  void fill(Filling &filling) noexcept;
  CudaError unregister(char *start, size_t bytes) noexcept;

  CudaApi &api_;
  void *context_;
  HostMemory host_;
  unsigned threads_;

  static constexpr size_t kGranule = size_t{32} << 20;
};

}  // namespace quire
