// EventRing: what happened to pages and leases, for whoever follows: a router that mirrors which
// prefixes are cached, say, in this process or, through a read-only mapping, in another. A bounded
// stream in the region: many threads push, any number of readers follow, each at a place of its own.
//
//   tail     the next event's number, from 1 on
//   slot     number % kCapacity: turn, then the record in words
//   turn     | number:62 | state:2 |
//              kVoid     events up to this number are over here; there is nothing to read
//              kWriting  the push of this number is at it
//              kDone     holds the record of this number
//              kHeld     an older push is still at it: the events up to this number have no place
//
// Nobody waits, and no reader can hold up a push: the newest events overwrite the oldest. A push
// takes its number, then the slot, if that is of an older, finished event. Where a push of an earlier
// lap is still inside (stopped, perhaps, for a whole lap), it marks the slot kHeld with its number and
// gives its event up; the one inside finds that out when it is done, and gives up its own. So a slot
// has one writer at a time, and what was lost is told by the turn.
//
// A reader at number n looks at n's slot: kDone with n, before and after it has copied the record:
// that is the event. A later number, or kHeld or kVoid with n: it is lost, and counted. Else it is
// not there yet; then so are all after it, and the reader comes again. A push that is stopped between
// its number and its turn makes readers stop before its event until the others have lapped it. A
// reader that was lapped goes on at the oldest event that may be there still.
//
// | step                        | atomic                 | order   | partner                          |
// | --------------------------- | ---------------------- | ------- | -------------------------------- |
// | push: number                | add tail               | release | begin's load: what was done      |
// |                             |                        |         | before an event is seen with it  |
// | push: take the slot         | CAS turn               | acquire | the last push's done: its words  |
// | push: the record            | store words            | release | read's loads: who sees a word of |
// |                             |                        |         | this record sees the slot taken  |
// | push: done                  | CAS turn               | release | read's first look                |
// | push: no place              | CAS turn               | relaxed | (the one inside sees the number) |
// | push: gives up a held slot  | CAS turn               | release | the next push's take             |
// | read: is it there           | load turn              | acquire | push's done: the words           |
// | read: the record            | load words             | acquire | push's stores; orders the second |
// |                             |                        |         | look behind them                 |
// | read: is it still there     | load turn              | relaxed | (the words' acquire)             |
// | poll: take it               | CAS cursor             | relaxed | (the turn decides what was read) |
// | start                       | store started          | seq_cst | push's load of it, which comes   |
// |                             |                        |         | after the index's commit or erase|
//
// NUMBERS AND STATE. An event's number is taken after what it tells has happened: so whoever reads
// the tail (begin) and then looks at the cache sees what the events below it told. Two events of one
// page come in their order. Nothing is recorded before the first reader: an engine that never asks
// pays one load of a line that nobody writes. A push that does not see the start yet has done its deed
// before whatever the reader looks at after the start; that needs one order of all four, so the start,
// the load of it here, and the index's commit and erase are seq_cst (runtime/prefix_index.h).
//
// poll() is one more reader, whose place (cursor) is in the region: threads that poll share it, and
// each event goes to one of them, in order.
//
// Invariants: records read at one place have rising numbers; read + lost = all numbers passed;
//             at rest, slot i is kVoid or kDone, its number is i modulo kCapacity, or 0, and < tail
//
// Thread class: any; format: before sharing. Reading from a read-only mapping: begin and read only.
// Cost: an add, two CAS and a line a record; a load when not started.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <new>

#include "allocators/atomics.h"
#include "runtime/page_table.h"

namespace quire {

// kCapacity: a power of two. Tests use small ones, and short records, so that laps happen in no time.
template <class A = StdAtomics, uint32_t kCapacity = 4096, size_t kWords = 7>
class BasicEventRing {
  template <class T>
  using atomic = typename A::template atomic<T>;

  enum State : uint64_t { kVoid = 0, kWriting = 1, kDone = 2, kHeld = 3 };
  static constexpr uint64_t turn_of(uint64_t number, State state) { return number << 2 | state; }
  static constexpr uint64_t number_of(uint64_t turn) { return turn >> 2; }
  static constexpr State state_of(uint64_t turn) { return static_cast<State>(turn & 3); }

 public:
  using Words = std::array<uint64_t, kWords>;
  static constexpr size_t kAlignment = kCacheLine;
  static constexpr uint32_t capacity() noexcept { return kCapacity; }

  static size_t bytes() noexcept { return sizeof(Memory); }

  BasicEventRing() = default;
  // A view: `memory` holds bytes() bytes at a multiple of kAlignment.
  explicit BasicEventRing(void *memory) noexcept : memory_(static_cast<Memory *>(memory)) {}

  void format() noexcept {
    new (memory_) Memory;
    for (auto *line : {&memory_->tail, &memory_->cursor, &memory_->lost, &memory_->started}) {
      line->value.store(0, kRelaxed);
    }
    memory_->tail.value.store(1, kRelaxed);
    for (auto &slot : memory_->slot) {
      slot.turn.store(turn_of(0, kVoid), kRelaxed);
      for (auto &word : slot.word) word.store(0, kRelaxed);
    }
  }

  // True while somebody follows: callers that must work to make a record ask first, after the deed.
  // seq_cst: see NUMBERS AND STATE.
  bool started() const noexcept { return memory_->started.value.load(kSeqCst) != 0; }
  void start() noexcept { memory_->started.value.store(1, kSeqCst); }

  // False: not started, or the event found no place.
  bool push(const Words &record) noexcept {
    if (!started()) return false;
    // release: pairs with begin(): who sees this number taken sees what the event tells.
    const uint64_t number = memory_->tail.value.fetch_add(1, kRelease);
    Slot &slot = memory_->slot[number % kCapacity];
    if (!take(slot, number)) return false;
    for (size_t i = 0; i < kWords; ++i) {
      // release: pairs with read(): who sees this word sees, in its second look, the slot taken.
      slot.word[i].store(record[i], kRelease);
    }
    return finish(slot, number);
  }

  // The number of the next event: where a reader begins. All that earlier ones tell can be seen.
  uint64_t begin() const noexcept {
    return memory_->tail.value.load(kAcquire);  // acquire: pairs with push().
  }

  // The event at *number, which moves on; over those that are lost, which are added to *lost. False:
  // it is not there yet.
  bool read(uint64_t *number, Words *out, uint64_t *lost) const noexcept {
    // A bound for mappings that are damaged: who is on time sees no more than a lap that is lost.
    for (uint64_t looks = 0; looks < 4 * uint64_t{kCapacity}; ++looks) {
      const Slot &slot = memory_->slot[*number % kCapacity];
      const uint64_t turn = slot.turn.load(kAcquire);  // acquire: pairs with finish().
      if (turn == turn_of(*number, kDone)) {
        for (size_t i = 0; i < kWords; ++i) {
          // acquire: pairs with push(); and the look below comes after it.
          (*out)[i] = slot.word[i].load(kAcquire);
        }
        if (slot.turn.load(kRelaxed) == turn) {  // relaxed: behind the words' acquire.
          ++*number;
          return true;
        }
        continue;
      }
      const bool over =
          number_of(turn) > *number ||
          (number_of(turn) == *number && (state_of(turn) == kVoid || state_of(turn) == kHeld));
      // relaxed: how far behind we are, about.
      const uint64_t tail = memory_->tail.value.load(kRelaxed);
      uint64_t next = *number;
      if (tail > *number && tail - *number > kCapacity) next = tail - kCapacity;
      if (over && next == *number) ++next;
      if (next == *number) return false;
      *lost += next - *number;
      *number = next;
    }
    return false;
  }

  // The same at the place that all polls share: each event once. The first call starts the ring.
  bool poll(Words *out, uint64_t *number) noexcept {
    auto &cursor = memory_->cursor.value;
    uint64_t place = cursor.load(kRelaxed);
    if (place == 0) {
      start();
      if (cursor.compare_exchange_strong(place, 1, kRelaxed, kRelaxed)) place = 1;
    }
    for (;;) {
      uint64_t next = place, lost = 0;
      const bool got = read(&next, out, &lost);
      if (next == place) return false;
      if (!cursor.compare_exchange_strong(place, next, kRelaxed, kRelaxed)) continue;
      if (lost != 0) memory_->lost.value.fetch_add(lost, kRelaxed);
      if (got) {
        *number = next - 1;
        return true;
      }
      place = next;
    }
  }
  // Starts it, as a poll without room.
  void poll_nothing() noexcept {
    start();
    uint64_t none = 0;
    memory_->cursor.value.compare_exchange_strong(none, 1, kRelaxed, kRelaxed);
  }

  // Events that polls will not give: passed over, or overwritten since. None where nobody polls.
  uint64_t dropped() const noexcept {
    const uint64_t place = memory_->cursor.value.load(kRelaxed);
    const uint64_t tail = memory_->tail.value.load(kRelaxed);
    const uint64_t behind = place != 0 && tail > place ? tail - place : 0;
    return memory_->lost.value.load(kRelaxed) + (behind > kCapacity ? behind - kCapacity : 0);
  }
  uint64_t numbered() const noexcept { return memory_->tail.value.load(kRelaxed) - 1; }

  // At rest.
  bool validate() const noexcept {
    const uint64_t tail = memory_->tail.value.load(kAcquire);
    if (memory_->cursor.value.load(kRelaxed) > tail) return false;
    for (uint64_t i = 0; i < kCapacity; ++i) {
      const uint64_t turn = memory_->slot[i].turn.load(kAcquire);
      const uint64_t number = number_of(turn);
      if (state_of(turn) == kWriting || state_of(turn) == kHeld || number >= tail) return false;
      if (number != 0 && number % kCapacity != i) return false;
    }
    return true;
  }

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;
  static constexpr std::memory_order kAcquire = std::memory_order_acquire;
  static constexpr std::memory_order kRelease = std::memory_order_release;
  static constexpr std::memory_order kSeqCst = std::memory_order_seq_cst;

  template <class T>
  struct alignas(kCacheLine) Line {
    atomic<T> value;
  };
  struct alignas(kCacheLine) Slot {
    atomic<uint64_t> turn;
    atomic<uint64_t> word[kWords];
  };
  struct Memory {
    Line<uint64_t> started;
    Line<uint64_t> tail;
    Line<uint64_t> cursor;  // of poll(); 0: nobody has polled
    Line<uint64_t> lost;
    Slot slot[kCapacity];
  };

  // False: a later lap has passed, or an older push is inside: the event has no place.
  static bool take(Slot &slot, uint64_t number) noexcept {
    uint64_t turn = slot.turn.load(kRelaxed);
    for (;;) {
      if (number_of(turn) > number) return false;
      const bool inside = state_of(turn) == kWriting || state_of(turn) == kHeld;
      const uint64_t next = turn_of(number, inside ? kHeld : kWriting);
      // acquire: pairs with finish(): the words of the record before are written.
      if (slot.turn.compare_exchange_weak(turn, next, kAcquire, kRelaxed)) return !inside;
    }
  }

  static bool finish(Slot &slot, uint64_t number) noexcept {
    uint64_t turn = turn_of(number, kWriting);
    // release: pairs with read(): the words; and with the next take().
    if (slot.turn.compare_exchange_strong(turn, turn_of(number, kDone), kRelease, kRelaxed)) {
      return true;
    }
    // Held meanwhile: our number and those up to the mark are over.
    while (!slot.turn.compare_exchange_weak(turn, turn_of(number_of(turn), kVoid), kRelease,
                                            kRelaxed)) {
    }
    return false;
  }

  Memory *memory_ = nullptr;
};

using EventRing = BasicEventRing<>;

struct EventRecord {
  uint8_t kind = 0;    // quire_event_kind
  uint8_t reason = 0;  // quire_evict_reason
  uint8_t tier = 0;    // quire_tier
  uint32_t index = 0;  // of the page in its chain
  uint32_t epoch = 0;  // its low half
  uint32_t space = 0;  // namespace
  uint32_t page = 0;   // number
  uint32_t life = 0;   // its generation
  Key key = {};        // of the page; of a lease: its owner, 0
  Key parent = {};     // the key of its parent; of a first page its namespace's root

  EventRing::Words words() const noexcept {
    return {uint64_t{kind} | uint64_t{reason} << 8 | uint64_t{tier} << 16 | uint64_t{index} << 32,
            uint64_t{epoch} | uint64_t{space} << 32,
            uint64_t{page} | uint64_t{life} << 32,
            key.lo,
            key.hi,
            parent.lo,
            parent.hi};
  }
  static EventRecord of(const EventRing::Words &w) noexcept {
    EventRecord r;
    r.kind = static_cast<uint8_t>(w[0]);
    r.reason = static_cast<uint8_t>(w[0] >> 8);
    r.tier = static_cast<uint8_t>(w[0] >> 16);
    r.index = static_cast<uint32_t>(w[0] >> 32);
    r.epoch = static_cast<uint32_t>(w[1]);
    r.space = static_cast<uint32_t>(w[1] >> 32);
    r.page = static_cast<uint32_t>(w[2]);
    r.life = static_cast<uint32_t>(w[2] >> 32);
    r.key = Key{w[3], w[4]};
    r.parent = Key{w[5], w[6]};
    return r;
  }
};

}  // namespace quire
