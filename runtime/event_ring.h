// EventRing: what happened to pages and leases, for an engine that wants to follow (a router that
// mirrors which prefixes are cached, say), and in another one for the policy's learner. A bounded
// queue: many threads push, many poll.
//
//   tail   | sequence:44 | position:20 |     next event's number; where it would go
//   head   | count:44    | position:20 |     events taken; where the next one is
//   slot   position % kCapacity: turn, then the record
//
//   turn == p              free for the push at position p        turns are modulo 2^20
//   turn == p + 1          holds the record of position p
//   turn == p + kCapacity  free again: the next lap's p
//
// A push never waits. It numbers its event by a CAS on the tail, whether it finds room (position +
// 1) or not (position as it is: the event is dropped and its number is the gap that a poller sees).
// Since the number is in the same word as the position, records come out in the order of their
// numbers, and the word never takes a value twice (no ABA): 2^44 events are years at a million a
// second.
//
// | step                     | atomic               | order   | partner                               |
// | ------------------------ | -------------------- | ------- | ------------------------------------- |
// | push: is there room      | load turn            | acquire | poll's turn: its read of the record   |
// | push: number, or drop    | CAS tail             | relaxed | (the turn orders the record)          |
// | push: the record is made | store turn           | release | poll's load of the turn               |
// | poll: is there one       | load turn            | acquire | push's turn: the record               |
// | poll: take it            | CAS head             | relaxed | (the turn orders the record)          |
// | poll: the slot is free   | store turn           | release | push's load of the turn               |
//
// Linearizable: a push that gets in, at its CAS. One that drops, at its load of the turn: the slot
// at the tail was taken then, and the CAS proves that no other push came in between. A poll that
// gets a record, at its CAS: records come out exactly in the order in which pushes took their
// numbers. A poll that gets none says a little less: there is none, or the oldest is still being
// written by a push that has not returned. Likewise a slot that a poll is still reading counts as
// taken.
//
// Progress: lock free. A push stopped between its CAS and its turn, or a poll likewise, holds one
// slot. Other pushes go on around the ring and drop when they come back to that slot; pollers stop
// before it (they see fewer) until it moves. Nobody waits.
//
// Nothing is recorded, numbered or counted before the first poll: an engine that never asks pays
// one load of a line that nobody writes.
//
// Invariants: records polled have rising numbers; a number seen + numbers dropped are all numbers;
//             head <= tail <= head + kCapacity, in positions (validate(), at rest).
//
// Thread class: any; format: before sharing. Cost: two CAS and a line a record; none when not
// started.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#include "allocators/atomics.h"
#include "runtime/page_table.h"

namespace quire {

struct EventRecord {
  uint16_t kind = 0;    // quire_event_kind
  uint16_t reason = 0;  // quire_evict_reason
  uint32_t index = 0;   // of the page in its chain
  uint64_t sequence = 0;
  uint64_t epoch = 0;
  uint64_t owner = 0;
  Key key = {};
};

// kCapacity: a power of two. Tests use small ones, so that laps happen in no time. Record: plain data
// with a `sequence`, which the ring fills in.
template <class A = StdAtomics, uint32_t kCapacity = 4096, class Record = EventRecord>
class BasicEventRing {
  static constexpr uint32_t kPositionBits = 20;
  static constexpr uint32_t kPositionMask = (1u << kPositionBits) - 1;
  static constexpr uint64_t kNumberUnit = uint64_t{1} << kPositionBits;
  static_assert((kCapacity & (kCapacity - 1)) == 0 && kCapacity >= 2);
  // Positions of one lap and the next must differ, or a full slot would look free.
  static_assert(kCapacity < kPositionMask / 2);

  template <class T>
  using atomic = typename A::template atomic<T>;

 public:
  static constexpr size_t kAlignment = kCacheLine;
  static constexpr uint32_t capacity() noexcept { return kCapacity; }

  static size_t bytes() noexcept { return sizeof(Memory); }

  BasicEventRing() = default;
  // A view: `memory` holds bytes() bytes at a multiple of kAlignment.
  explicit BasicEventRing(void *memory) noexcept : memory_(static_cast<Memory *>(memory)) {}

  void format() noexcept {
    new (memory_) Memory;
    memory_->started.value.store(0, std::memory_order_relaxed);
    memory_->dropped.value.store(0, std::memory_order_relaxed);
    memory_->tail.value.store(kNumberUnit, std::memory_order_relaxed);  // the first number is 1
    memory_->head.value.store(0, std::memory_order_relaxed);
    for (uint32_t i = 0; i < kCapacity; ++i) {
      memory_->slot[i].turn.store(i, std::memory_order_relaxed);
    }
  }

  // True while somebody follows: callers that must work to make a record ask first.
  bool started() const noexcept {
    // relaxed: a push that just misses the start is a push before it.
    return memory_->started.value.load(std::memory_order_relaxed) != 0;
  }

  // `event.sequence` is ignored. False: not started, or full and dropped.
  bool push(const Record &event) noexcept {
    if (!started()) return false;
    auto &tail = memory_->tail.value;
    uint64_t word = tail.load(std::memory_order_relaxed);
    for (;;) {
      const auto position = static_cast<uint32_t>(word) & kPositionMask;
      Slot &slot = memory_->slot[position % kCapacity];
      // acquire: pairs with poll's store: the poller has read the record that was here.
      const bool room = slot.turn.load(std::memory_order_acquire) == position;
      const uint64_t next = room ? forward(word) : word + kNumberUnit;
      if (!tail.compare_exchange_weak(word, next, std::memory_order_relaxed,
                                      std::memory_order_relaxed)) {
        continue;
      }
      if (!room) {
        memory_->dropped.value.fetch_add(1, std::memory_order_relaxed);
        return false;
      }
      Record numbered = event;
      numbered.sequence = word >> kPositionBits;
      slot.record = numbered;
      // release: pairs with poll's load: the record is whole.
      slot.turn.store((position + 1) & kPositionMask, std::memory_order_release);
      return true;
    }
  }

  // Up to n records, oldest first; how many. The first call starts the ring.
  size_t poll(Record *out, size_t n) noexcept {
    if (!started()) memory_->started.value.store(1, std::memory_order_relaxed);
    size_t got = 0;
    while (got < n && pop(out + got)) ++got;
    return got;
  }

  uint64_t dropped() const noexcept {
    return memory_->dropped.value.load(std::memory_order_relaxed);
  }
  // Events that got a number: recorded or dropped.
  uint64_t numbered() const noexcept {
    return (memory_->tail.value.load(std::memory_order_relaxed) >> kPositionBits) - 1;
  }

  // At rest.
  bool validate() const noexcept {
    const auto tail = position_of(memory_->tail.value), head = position_of(memory_->head.value);
    const uint32_t held = (tail - head) & kPositionMask;
    if (held > kCapacity) return false;
    for (uint32_t i = 0; i < kCapacity; ++i) {
      const uint32_t p = (head + i) & kPositionMask;
      const uint32_t turn = memory_->slot[p % kCapacity].turn.load(std::memory_order_relaxed);
      if (turn != ((i < held ? p + 1 : p) & kPositionMask)) return false;
    }
    return dropped() <= numbered();
  }

 private:
  template <class T>
  struct alignas(kCacheLine) Line {
    atomic<T> value;
  };
  struct alignas(kCacheLine) Slot {
    atomic<uint32_t> turn;
    // Of the one thread that the turn gives it to.
    typename A::template plain<Record> record;
  };
  struct Memory {
    Line<uint32_t> started;
    Line<uint64_t> dropped;
    Line<uint64_t> tail;
    Line<uint64_t> head;
    Slot slot[kCapacity];
  };

  // The word after one more number and one more position, each within its bits.
  static uint64_t forward(uint64_t word) noexcept {
    const uint64_t number = (word >> kPositionBits) + 1;
    return number << kPositionBits | ((static_cast<uint32_t>(word) + 1) & kPositionMask);
  }
  static uint32_t position_of(const atomic<uint64_t> &word) noexcept {
    return static_cast<uint32_t>(word.load(std::memory_order_relaxed)) & kPositionMask;
  }

  bool pop(Record *out) noexcept {
    auto &head = memory_->head.value;
    uint64_t word = head.load(std::memory_order_relaxed);
    for (;;) {
      const auto position = static_cast<uint32_t>(word) & kPositionMask;
      Slot &slot = memory_->slot[position % kCapacity];
      // acquire: pairs with push's store: the record is whole.
      if (slot.turn.load(std::memory_order_acquire) != ((position + 1) & kPositionMask)) {
        // Empty, or the record at the head is still being written; or another poll took it since.
        const uint64_t now = head.load(std::memory_order_relaxed);
        if (now == word) return false;
        word = now;
        continue;
      }
      if (!head.compare_exchange_weak(word, forward(word), std::memory_order_relaxed,
                                      std::memory_order_relaxed)) {
        continue;
      }
      *out = slot.record;
      // release: pairs with push's load: the slot may be written again.
      slot.turn.store((position + kCapacity) & kPositionMask, std::memory_order_release);
      return true;
    }
  }

  Memory *memory_ = nullptr;
};

using EventRing = BasicEventRing<>;

}  // namespace quire
