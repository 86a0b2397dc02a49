#include "allocators/host_memory.h"

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

namespace quire {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
// The highest node number that the kernel can be built for (MAX_NUMNODES is 1 << 10).
constexpr int kMaxNode = 1023;

char *at(void *base, size_t offset) noexcept {
  return static_cast<char *>(base) + offset;
}

}  // namespace

HostMemory::HostMemory(const HostMemoryOptions &options) noexcept
    : options_(options), granularity_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
  if (options_.huge_pages) granularity_ = std::max(granularity_, kHugePage);
}

Result<void *> HostMemory::reserve(size_t bytes, size_t alignment) noexcept {
  if (bytes == 0 || bytes % granularity_ != 0) {
    return set_error(Status::kInvalid, "%zu bytes are no multiple of %zu", bytes, granularity_);
  }
  if ((alignment & (alignment - 1)) != 0) {
    return set_error(Status::kInvalid, "an alignment of %zu is no power of two", alignment);
  }
  alignment = std::max(alignment, granularity_);
  const size_t system_page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t slack = alignment > system_page ? alignment : 0;
  if (bytes > SIZE_MAX - slack) return set_error(Status::kNomem, "%zu bytes of addresses", bytes);
  void *const start =
      mmap(nullptr, bytes + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) {
    return set_error(Status::kNomem, "%zu bytes of addresses: %s", bytes, std::strerror(errno));
  }
  const size_t misaligned = reinterpret_cast<uintptr_t>(start) & (alignment - 1);
  const size_t before = misaligned == 0 ? 0 : alignment - misaligned;
  char *const aligned = at(start, before);
  if (before != 0) munmap(start, before);
  if (slack > before) munmap(aligned + bytes, slack - before);
  return static_cast<void *>(aligned);
}

Status HostMemory::commit(void *base, size_t offset, size_t bytes) noexcept {
  if (bytes == 0) return Status::kOk;
  char *const start = at(base, offset);
  // Over the old mapping in one step: a failure leaves that one, so nothing has to be undone.
  void *const mapped =
      mmap(start, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (mapped == MAP_FAILED) {
    return set_error(errno == ENOMEM ? Status::kNomem : Status::kInvalid, "commit of %zu bytes: %s",
                     bytes, std::strerror(errno));
  }
  advise(start, bytes);
  return Status::kOk;
}

void HostMemory::advise(void *start, size_t bytes) noexcept {
  if (options_.huge_pages && madvise(start, bytes, MADV_HUGEPAGE) != 0) {
    advice_refused_.fetch_add(1, std::memory_order_relaxed);
  }
  if (options_.numa_node >= 0 && options_.numa_node <= kMaxNode) {
    constexpr int kWordBits = static_cast<int>(CHAR_BIT * sizeof(unsigned long));
    unsigned long nodes[(kMaxNode + kWordBits) / kWordBits] = {};
    nodes[options_.numa_node / kWordBits] |= 1UL << (options_.numa_node % kWordBits);
    // By number: libnuma would be one more library for one call.
    if (syscall(SYS_mbind, start, bytes, MPOL_PREFERRED, nodes, kMaxNode + 2UL, 0U) != 0) {
      advice_refused_.fetch_add(1, std::memory_order_relaxed);
    }
  }
#ifdef MADV_POPULATE_WRITE
  if (options_.populate && madvise(start, bytes, MADV_POPULATE_WRITE) != 0) {
    advice_refused_.fetch_add(1, std::memory_order_relaxed);
  }
#endif
}

Status HostMemory::decommit(void *base, size_t offset, size_t bytes) noexcept {
  if (bytes == 0) return Status::kOk;
  void *const mapped = mmap(at(base, offset), bytes, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (mapped == MAP_FAILED) {
    return set_error(Status::kNomem, "decommit of %zu bytes: %s", bytes, std::strerror(errno));
  }
  return Status::kOk;
}

void HostMemory::release(void *base, size_t bytes) noexcept {
  if (base != nullptr && bytes != 0) munmap(base, bytes);
}

}  // namespace quire
