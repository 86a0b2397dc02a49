// Handle: the 64-bit name of a page, a lease or a sequence that a caller holds.
//
//   63           50 49          32 31                0
//   | cache tag:14 | generation:18 | index:32          |
//
// The tag's low two bits are the kind, so that a lease passed for a page is refused; its upper
// twelve tell caches of one process apart and are never zero, so that no handle is 0. The
// generation changes whenever the slot behind the index is given up: a handle kept too long is
// refused until the slot has been reused 2^18 times exactly.
//
// Any thread, no shared state, no cost.
#pragma once

#include <cstdint>

namespace quire {

inline constexpr uint32_t kNoIndex = UINT32_MAX;
inline constexpr unsigned kGenerationBits = 18;
inline constexpr uint32_t kGenerationMask = (1u << kGenerationBits) - 1;

enum class HandleKind : uint32_t { kPage = 0, kLease = 1, kSequence = 2, kTicket = 3 };

struct Handle {
  uint32_t index = kNoIndex;
  uint32_t generation = 0;
};

// Tags of caches are 1 to kCacheTags. Leases of a segment (runtime/segment.h) have the tag of no
// cache, so that no cache takes their handles.
inline constexpr uint32_t kCacheTags = 4094;
inline constexpr uint32_t kNoCacheTag = 4095;

// cache_tag: 1 to 4095.
constexpr uint64_t pack_handle(HandleKind kind, uint32_t cache_tag, Handle handle) {
  const uint64_t tag = uint64_t{cache_tag} << 2 | static_cast<uint64_t>(kind);
  return tag << 50 | uint64_t{handle.generation & kGenerationMask} << 32 | handle.index;
}

// False where the handle is none, of another cache or of another kind; says nothing of its age.
constexpr bool unpack_handle(HandleKind kind, uint32_t cache_tag, uint64_t bits, Handle *out) {
  if (bits >> 50 != (uint64_t{cache_tag} << 2 | static_cast<uint64_t>(kind))) return false;
  out->index = static_cast<uint32_t>(bits);
  out->generation = static_cast<uint32_t>(bits >> 32) & kGenerationMask;
  return true;
}

}  // namespace quire
