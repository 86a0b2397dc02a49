// LeaseTable: who holds which chain, since when and until when.
//
// A lease is a slot of 64 bytes in the region. Slots come from a pool of their own; a handle names
// a slot and its generation, and one word decides whether the two still belong together:
//
//   word   | generation:18 | live:1 | busy:1 |
//
//   transition            operation                           order: partner
//   open    !live -> live, busy    fetch_or by the slot's owner      release: the acquire of
//   enter() enter   live -> live, busy     CAS on the whole word             acquire: the release
//   of leave() and open() leave   busy -> !busy          fetch_and                         release:
//   the acquire of the next enter() close   live, busy -> neither, generation + 1   store release:
//   the pool's free() orders it before reuse
//
// A verb on a lease enters it first and leaves it last. Two verbs on one lease therefore exclude
// each other: the second gets kBusy at once. A thread that is stopped inside a verb keeps that one
// lease, and nothing else.
//
// The fields are relaxed atomics: verbs read and write them while they are inside; the report of
// leases (and quire-stat, from another process) reads them at any time and takes what it sees,
// checking the word before and after.
//
// Private pages that hang on a lease form a doubly linked list through their descriptors'
// `expiry_ms` word, which means {next:32, prev:32} while a page is private.
//
// Invariant, quiescent: live slots == capacity - pool.available()
//
// Thread class: any. Cost: enter and leave are a CAS and an RMW on the lease's own line.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "allocators/atomics.h"
#include "allocators/frame_pool.h"
#include "runtime/handle.h"
#include "runtime/status.h"

namespace quire {

struct LeaseSlot {
  std::atomic<uint32_t> word;
  std::atomic<uint32_t> tail;           // page, kNoIndex where the chain is empty
  std::atomic<uint32_t> pages;          // length of the chain
  std::atomic<uint32_t> private_head;   // first of its private pages, kNoIndex
  std::atomic<uint32_t> private_tail;   // last of them
  std::atomic<uint32_t> private_pages;  // how many
  std::atomic<uint32_t> flags;
  std::atomic<uint32_t> late;  // 1: reported as past its deadline
  std::atomic<uint64_t> owner;
  std::atomic<uint64_t> deadline_ms;  // of the cache's clock; 0: none
  std::atomic<uint64_t> taken_ms;
  std::atomic<uint64_t> spare;
};
static_assert(sizeof(LeaseSlot) == 64);

class LeaseTable {
 public:
  static constexpr uint32_t kBusy = 1;
  static constexpr uint32_t kLive = 2;
  static constexpr unsigned kGenerationShift = 2;

  static size_t bytes(uint32_t capacity) noexcept { return sizeof(LeaseSlot) * size_t{capacity}; }

  LeaseTable(void *memory, uint32_t capacity, FramePool<> pool) noexcept
      : slots_(static_cast<LeaseSlot *>(memory)), capacity_(capacity), pool_(pool) {}

  uint32_t capacity() const noexcept { return capacity_; }
  uint32_t live() const noexcept { return capacity_ - pool_.available(); }
  LeaseSlot &slot(uint32_t index) const noexcept { return slots_[index]; }

  // A lease with the caller inside it. kNomem: all are in use.
  Status open(Handle *out) noexcept {
    uint32_t index;
    if (!pool_.alloc(1, &index)) {
      return set_error(Status::kNomem, "all %u leases are in use (max_leases)", capacity_);
    }
    LeaseSlot &s = slots_[index];
    s.tail.store(kNoIndex, std::memory_order_relaxed);
    s.pages.store(0, std::memory_order_relaxed);
    s.private_head.store(kNoIndex, std::memory_order_relaxed);
    s.private_tail.store(kNoIndex, std::memory_order_relaxed);
    s.private_pages.store(0, std::memory_order_relaxed);
    s.flags.store(0, std::memory_order_relaxed);
    s.late.store(0, std::memory_order_relaxed);
    s.owner.store(0, std::memory_order_relaxed);
    s.deadline_ms.store(0, std::memory_order_relaxed);
    // release: pairs with the acquire of enter(), so that nobody enters a half-made lease.
    const uint32_t word = s.word.fetch_or(kLive | kBusy, std::memory_order_release);
    *out = Handle{index, (word >> kGenerationShift) & kGenerationMask};
    return Status::kOk;
  }

  // kStale: released before; kBusy: another verb is inside.
  Status enter(Handle lease) noexcept {
    if (lease.index >= capacity_) return set_error(Status::kStale, "no such lease");
    LeaseSlot &s = slots_[lease.index];
    uint32_t word = s.word.load(std::memory_order_relaxed);
    if (word >> kGenerationShift != lease.generation || (word & kLive) == 0) {
      return set_error(Status::kStale, "this lease was released");
    }
    // acquire: pairs with the releases of leave() and open(). A spurious failure cannot happen
    // (strong CAS), so a change means another verb.
    const uint32_t idle = lease.generation << kGenerationShift | kLive;
    word = idle;
    if (s.word.compare_exchange_strong(word, idle | kBusy, std::memory_order_acquire,
                                       std::memory_order_relaxed)) {
      return Status::kOk;
    }
    if (word >> kGenerationShift != lease.generation || (word & kLive) == 0) {
      return set_error(Status::kStale, "this lease was released");
    }
    return set_error(Status::kBusy, "another call is working on this lease");
  }

  void leave(uint32_t index) noexcept {
    // release: pairs with the acquire of the next enter().
    slots_[index].word.fetch_and(~kBusy, std::memory_order_release);
  }

  // By the verb that is inside; the handle is stale from here on.
  void close(uint32_t index) noexcept {
    LeaseSlot &s = slots_[index];
    const uint32_t generation = s.word.load(std::memory_order_relaxed) >> kGenerationShift;
    // release: the next owner's open() comes after pool_.free(), but an enter() with the old handle
    // may look in between and must see either this lease whole or the new generation.
    s.word.store(((generation + 1) & kGenerationMask) << kGenerationShift,
                 std::memory_order_release);
    pool_.free(&index, 1);
  }

  // The handle of the first live lease at `from` or behind it. False at the end.
  bool next(uint32_t from, Handle *out) const noexcept {
    for (uint32_t i = from; i < capacity_; ++i) {
      const uint32_t word = slots_[i].word.load(std::memory_order_acquire);
      if ((word & kLive) == 0) continue;
      *out = Handle{i, (word >> kGenerationShift) & kGenerationMask};
      return true;
    }
    return false;
  }

  // Quiescent only.
  bool validate() const noexcept {
    uint32_t live_slots = 0;
    for (uint32_t i = 0; i < capacity_; ++i) {
      const uint32_t word = slots_[i].word.load(std::memory_order_relaxed);
      if ((word & kBusy) != 0) return false;
      if ((word & kLive) == 0) continue;
      ++live_slots;
      const LeaseSlot &s = slots_[i];
      const bool empty = s.pages.load(std::memory_order_relaxed) == 0;
      if (empty != (s.tail.load(std::memory_order_relaxed) == kNoIndex)) return false;
      const bool none = s.private_pages.load(std::memory_order_relaxed) == 0;
      if (none != (s.private_head.load(std::memory_order_relaxed) == kNoIndex)) return false;
    }
    return live_slots == live();
  }

 private:
  LeaseSlot *slots_;
  uint32_t capacity_;
  FramePool<> pool_;
};

}  // namespace quire
