// HostMemory: the MemorySource over mmap. It keeps nothing but its options.
//
//   reserve   PROT_NONE, MAP_NORESERVE: addresses only, no charge to the process
//   commit    a fresh writable mapping over the range; pages come at first touch
//   decommit  a fresh PROT_NONE mapping over the range: pages and charge go, addresses stay
//
// Advice is advice: where the kernel refuses huge pages or a NUMA node, commit still succeeds (a
// container without the permission must not lose its cache for it); advice_refused() counts it.
//
// Any thread. Cost: one to three system calls a call.
#pragma once

#include <atomic>
#include <cstdint>

#include "allocators/memory.h"

namespace quire {

struct HostMemoryOptions {
  bool huge_pages = false;  // madvise(MADV_HUGEPAGE); reserve then aligns to 2 MiB at least
  int numa_node = -1;       // preferred node; -1: that of the first touch
  bool populate = false;    // take the pages at commit instead of at first touch
};

class HostMemory final : public MemorySource {
 public:
  explicit HostMemory(const HostMemoryOptions &options = {}) noexcept;

  size_t granularity() const noexcept override { return granularity_; }
  Result<void *> reserve(size_t bytes, size_t alignment) noexcept override;
  Status commit(void *base, size_t offset, size_t bytes) noexcept override;
  Status decommit(void *base, size_t offset, size_t bytes) noexcept override;
  void release(void *base, size_t bytes) noexcept override;
  bool host_visible() const noexcept override { return true; }

  uint64_t advice_refused() const noexcept {
    return advice_refused_.load(std::memory_order_relaxed);
  }

 private:
  void advise(void *start, size_t bytes) noexcept;

  HostMemoryOptions options_;
  size_t granularity_;
  std::atomic<uint64_t> advice_refused_{0};  // relaxed everywhere: a counter that orders nothing
};

}  // namespace quire
