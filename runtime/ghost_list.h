// GhostList: what is remembered of pages that are gone: when they were last used, and as what. A
// page that comes back tells how long its likes are worth waiting for; without ghosts only waits
// that the cache itself outlasted would be seen.
//
//   ring     the last `capacity` ghosts in the order in which they came; the oldest falls off
//   first    by hash: the newest ghost of a chain, linked by `next`
//   a ghost that was taken back keeps its place in the ring, with key 0, until it falls off
//
// Invariants (validate()): each live ghost is on the chain of its key, once; live() of them.
// Thread class: one thread at a time (runtime/learner.h). Cost: 24 bytes a ghost, all taken at
// open(); two lines a call, and those of the chain.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "allocators/heap.h"

namespace quire {

// A page as the learner knows it. key: the low half of its key, 0 for none.
struct SeenPage {
  uint64_t key = 0;
  uint32_t last = 0;    // epoch of the last use
  uint16_t weight = 0;  // of that use
  uint8_t cls = 0;
  uint8_t fan = 0;  // different pages seen to follow it, up to 3
};

class GhostList {
 public:
  explicit GhostList(Heap &heap) noexcept : ring_(heap), first_(heap) {}

  // Before all else. False without memory.
  bool open(uint32_t capacity) noexcept {
    const auto buckets = std::bit_ceil(std::max<uint32_t>(capacity, 1));
    if (!ring_.try_resize(capacity) || !first_.try_resize(buckets)) return false;
    for (size_t i = 0; i < buckets; ++i) first_[i] = kEnd;
    return true;
  }

  // The ghost of that key, which is one no longer. False: none is remembered.
  bool take(uint64_t key, SeenPage *out) noexcept {
    uint32_t *at = &first_of(key);
    while (*at != kEnd && ring_[*at].page.key != key) at = &ring_[*at].next;
    if (*at == kEnd) return false;
    Ghost &ghost = ring_[*at];
    *out = ghost.page;
    *at = ghost.next;
    ghost.page.key = 0;
    --live_;
    return true;
  }

  // One more, whose key is not 0; it takes the place of an older one of that key (a page that went,
  // came and went again unseen). True, and *lost is set: another fell off for it.
  bool push(const SeenPage &page, SeenPage *lost) noexcept {
    if (ring_.empty()) {
      *lost = page;
      return true;
    }
    SeenPage older;
    take(page.key, &older);
    Ghost &ghost = ring_[head_];
    const bool full = ghost.page.key != 0 && take(ghost.page.key, lost);
    uint32_t &first = first_of(page.key);
    ghost = {page, first};
    first = head_;
    head_ = head_ + 1 == ring_.size() ? 0 : head_ + 1;
    ++live_;
    return full;
  }

  template <class F>
  void for_each(F &&f) const noexcept {
    for (size_t i = 0; i < ring_.size(); ++i) {
      if (ring_[i].page.key != 0) f(ring_[i].page);
    }
  }
  size_t live() const noexcept { return live_; }
  size_t bytes() const noexcept {
    return ring_.capacity() * sizeof(Ghost) + first_.capacity() * sizeof(uint32_t);
  }

  bool validate() const noexcept {
    size_t chained = 0, live = 0;
    for (size_t b = 0; b < first_.size(); ++b) {
      for (uint32_t i = first_[b]; i != kEnd; i = ring_[i].next, ++chained) {
        const uint64_t key = ring_[i].page.key;
        if (key == 0 || &first_of(key) != &first_[b] || chained > ring_.size()) return false;
      }
    }
    for_each([&](const SeenPage &) { ++live; });
    return chained == live && live == live_;
  }

 private:
  static constexpr uint32_t kEnd = UINT32_MAX;
  struct Ghost {
    SeenPage page;
    uint32_t next = kEnd;
  };

  // Keys are the output of a keyed hash.
  uint32_t &first_of(uint64_t key) noexcept { return first_[(key >> 32) & (first_.size() - 1)]; }
  const uint32_t &first_of(uint64_t key) const noexcept {
    return first_[(key >> 32) & (first_.size() - 1)];
  }

  HeapVector<Ghost> ring_;
  HeapVector<uint32_t> first_;
  uint32_t head_ = 0;
  size_t live_ = 0;
};

}  // namespace quire
