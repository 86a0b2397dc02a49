// SlotTable: things that callers hold by handle and that one verb at a time may work on: leases,
// sequences.
//
// Slots come from a pool; a handle names a slot and its generation, and one word of the slot
// decides whether the two still belong together:
//
//   word   | generation:18 | live:1 | busy:1 |
//
//   transition                         operation                         order: partner
//   open     !live -> live, busy       fetch_or by the slot's owner      release: the acquire of enter()
//   enter    live -> live, busy        CAS on the whole word             acquire: the release of leave() and open()
//   leave    busy -> !busy             fetch_and                         release: the acquire of the next enter()
//   close    live, busy -> neither,    store; the slot goes to the pool  release: the acquire of a late enter()
//            generation + 1
//
// A verb enters first and leaves last. Two verbs on one slot therefore exclude each other: the
// second gets kBusy at once. A thread that is stopped inside a verb keeps that one slot, and
// nothing else.
//
// Every acquire opens a slot and every release closes one, so the pool's count of free slots would
// be the one line that all threads write. Therefore each thread (each of kSpares numbers) may leave
// the last slot that it closed beside the pool, in a line of its own, and takes that one first.
// Nothing is stranded by it: who finds the pool empty takes anybody's spare.
//
// Invariant, quiescent: live slots == capacity - pool.available() - spares, and none is busy.
//
// Thread class: any. Cost: enter and leave are a CAS and an RMW on the slot's own line; open and
// close one more each, on the thread's line.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "allocators/frame_pool.h"
#include "runtime/handle.h"
#include "runtime/status.h"

namespace quire {

// Slot has an A::atomic<uint32_t> `word`. Tests use narrower generations, and let threads share
// lines for their spares: threads beyond kSpares do, and lose only speed.
template <class Slot, class A = StdAtomics, uint32_t kMask = kGenerationMask, uint32_t kSpares = 32>
class SlotTable {
 public:
  static constexpr uint32_t kBusy = 1;
  static constexpr uint32_t kLive = 2;
  static constexpr unsigned kGenerationShift = 2;

  static constexpr size_t kAlignment = kCacheLine;

  SlotTable() = default;
  static size_t bytes(uint32_t capacity) noexcept {
    return slot_bytes(capacity) + kSpares * sizeof(Spare);
  }

  // A view: `memory` holds bytes(capacity) bytes at a multiple of kAlignment.
  SlotTable(void *memory, uint32_t capacity, FramePool<A> pool) noexcept
      : slots_(static_cast<Slot *>(memory)),
        spares_(reinterpret_cast<Spare *>(static_cast<std::byte *>(memory) + slot_bytes(capacity))),
        capacity_(capacity),
        pool_(pool) {}

  // All free. Before sharing; the slots' own fields are the caller's to construct.
  void format() noexcept {
    for (uint32_t i = 0; i < kSpares; ++i) {
      (new (&spares_[i]) Spare)->index.store(kNone, std::memory_order_relaxed);
    }
    pool_.format();
  }

  uint32_t capacity() const noexcept { return capacity_; }
  // Exact at rest; a slot that changes hands meanwhile may be counted once too often or too seldom.
  uint32_t live() const noexcept {
    uint32_t idle = pool_.available();
    for (uint32_t i = 0; i < kSpares; ++i) {
      if (spares_[i].index.load(std::memory_order_relaxed) != kNone) ++idle;
    }
    return capacity_ - std::min(idle, capacity_);
  }
  Slot &slot(uint32_t index) const noexcept { return slots_[index]; }

  // One with the caller inside it, its fields as the last owner left them. kNomem: each was in use
  // when it was looked at.
  Status open(Handle *out) noexcept {
    uint32_t index = take_spare(spare_of_thread());
    if (index == kNone && !pool_.alloc(1, &index)) index = take_any_spare();
    if (index == kNone) {
      return set_error(Status::kNomem, "all %u %s are in use", capacity_, Slot::kName);
    }
    Slot &s = slots_[index];
    // release: pairs with the acquire of enter(), so that nobody enters a half-made one.
    const uint32_t word = s.word.fetch_or(kLive | kBusy, std::memory_order_release);
    *out = Handle{index, (word >> kGenerationShift) & kMask};
    return Status::kOk;
  }

  // kStale: released before; kBusy: another verb is inside.
  Status enter(Handle handle) noexcept {
    if (handle.index >= capacity_) return set_error(Status::kStale, "no such handle");
    Slot &s = slots_[handle.index];
    uint32_t word = s.word.load(std::memory_order_relaxed);
    if (word >> kGenerationShift != handle.generation || (word & kLive) == 0) {
      return set_error(Status::kStale, "this %s was given up", Slot::kNoun);
    }
    // acquire: pairs with the releases of leave() and open(). A spurious failure cannot happen
    // (strong CAS), so a change means another verb.
    const uint32_t idle = handle.generation << kGenerationShift | kLive;
    word = idle;
    if (s.word.compare_exchange_strong(word, idle | kBusy, std::memory_order_acquire,
                                       std::memory_order_relaxed)) {
      return Status::kOk;
    }
    if (word >> kGenerationShift != handle.generation || (word & kLive) == 0) {
      return set_error(Status::kStale, "this %s was given up", Slot::kNoun);
    }
    return set_error(Status::kBusy, "another call is working on this %s", Slot::kNoun);
  }

  void leave(uint32_t index) noexcept {
    // release: pairs with the acquire of the next enter().
    slots_[index].word.fetch_and(~kBusy, std::memory_order_release);
  }

  // By the verb that is inside; the handle is stale from here on.
  void close(uint32_t index) noexcept {
    Slot &s = slots_[index];
    const uint32_t generation = s.word.load(std::memory_order_relaxed) >> kGenerationShift;
    // release: the next owner's open() comes after the slot is given up below, but an enter() with
    // the old handle may look in between and must see either this slot whole or the new generation.
    s.word.store(((generation + 1) & kMask) << kGenerationShift, std::memory_order_release);
    uint32_t none = kNone;
    // release: pairs with the acquire of take_spare(): the slot's fields, for its next owner.
    if (!spare_of_thread().index.compare_exchange_strong(none, index, std::memory_order_release,
                                                         std::memory_order_relaxed)) {
      pool_.free(&index, 1);
    }
  }

  // Whether the handle is of a live slot, at this moment.
  bool holds(Handle handle) const noexcept {
    if (handle.index >= capacity_) return false;
    // acquire: pairs with the release of open(): what the slot says is this life's.
    const uint32_t word = slots_[handle.index].word.load(std::memory_order_acquire);
    return word >> kGenerationShift == handle.generation && (word & kLive) != 0;
  }

  // The handle of the first live slot at `from` or behind it. False at the end.
  bool next(uint32_t from, Handle *out) const noexcept {
    for (uint32_t i = from; i < capacity_; ++i) {
      const uint32_t word = slots_[i].word.load(std::memory_order_acquire);
      if ((word & kLive) == 0) continue;
      *out = Handle{i, (word >> kGenerationShift) & kMask};
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
    }
    return live_slots == live();
  }

 private:
  struct alignas(kCacheLine) Spare {
    typename A::template atomic<uint32_t> index;  // kNone: there is none
  };

  static size_t slot_bytes(uint32_t capacity) noexcept {
    return align_up(sizeof(Slot) * size_t{capacity}, kCacheLine);
  }
  Spare &spare_of_thread() noexcept { return spares_[A::thread_index() % kSpares]; }

  static uint32_t take_spare(Spare &spare) noexcept {
    // relaxed look first: an empty line is not written to.
    if (spare.index.load(std::memory_order_relaxed) == kNone) return kNone;
    // acquire: pairs with the release in close().
    return spare.index.exchange(kNone, std::memory_order_acquire);
  }
  uint32_t take_any_spare() noexcept {
    for (uint32_t i = 0; i < kSpares; ++i) {
      const uint32_t index = take_spare(spares_[i]);
      if (index != kNone) return index;
    }
    return kNone;
  }

  Slot *slots_ = nullptr;
  Spare *spares_ = nullptr;
  uint32_t capacity_ = 0;
  FramePool<A> pool_;
};

}  // namespace quire
