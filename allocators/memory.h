// MemorySource: where an arena's address ranges come from.
//
// A device's memory, plain memory and pinned memory differ in how they are obtained and in nothing
// else that an arena cares about. The interface has the four steps that all of them have (mmap;
// CUDA's virtual memory management): reserve addresses, back a part of them, take the backing away,
// give the addresses up.
//
// Contract (tests/support/memory_contract.h holds every implementation to it)
//   - reserve(): the range is contiguous and aligned as asked and does not move until release().
//   - Only committed bytes may be touched. Where the host can see them, they read as zero after a
//     commit that follows a reserve or a decommit. To commit a range twice is a caller's error.
//   - commit() is all or nothing. After a failure the range is as it was.
//   - commit(), decommit(): offset and bytes are multiples of granularity().
//   - release() takes the pointer and length that reserve() gave, whatever is committed in it.
//   - No call throws, aborts or waits for a stream.
//
// Any thread; calls on disjoint ranges may run at once. Cost: system calls; once a slab, never once
// a page.
#pragma once

#include <cstddef>

#include "allocators/status.h"

namespace quire {

class MemorySource {
 public:
  virtual ~MemorySource() = default;

  // The unit of commit and decommit, in bytes: a power of two.
  virtual size_t granularity() const noexcept = 0;

  // Addresses for `bytes` (a multiple of granularity()), aligned to `alignment` (a power of two; a
  // smaller one than granularity() counts as granularity()). Nothing is backed yet.
  virtual Result<void *> reserve(size_t bytes, size_t alignment) noexcept = 0;

  virtual Status commit(void *base, size_t offset, size_t bytes) noexcept = 0;
  virtual Status decommit(void *base, size_t offset, size_t bytes) noexcept = 0;
  virtual void release(void *base, size_t bytes) noexcept = 0;

  // True where the host can load and store the committed bytes.
  virtual bool host_visible() const noexcept = 0;
};

}  // namespace quire
