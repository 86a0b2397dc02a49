// StreamTable: the streams of an engine as readers of frames, and as writers of pages.
//
// A stream has *passed* epoch e when all work has run that was enqueued on it before any release
// stamped e or earlier. Two questions are answered from that:
//
//   reuse    may this frame be written?   its retire epoch r <= min_passed()
//   ready    may this page be read?       its {writer, epoch}: epoch <= passed(writer)
//
// How a stream passes: step() advances the clock, and only then records an event on the stream,
// tagged with the epoch that ended, e. Whoever was stamped e or earlier had read the clock before
// that advance, and had enqueued its work before it read the clock; so the event is behind that
// work. When it completes, passed >= e. The other order, record and then advance, lets work and
// release slip in between the two: stamped e, behind the event. (Orders::kRecordFirst is that
// mistake; a test shows that it is caught.)
//
//   slot    state:  kFree -> kAdding -> kActive -> kRemoving -> kFree
//           passed  see above; UINT64_MAX while the slot is free: nobody has to wait for it
//           wanted  the highest epoch that something waits for on this stream only
//           ring    4 events, each with the epoch it marks; tag 0: not in flight
//
// Why a ring: one event that is recorded again at every step would be put off for ever on a stream
// that is always busy. With four, the oldest is left alone; when all are in flight, the youngest is
// recorded again, which only moves it back.
//
// When something is recorded: only while a frame in limbo or an unready page waits, that is while
// the youngest tag is below max(wanted by all, wanted of this stream). Both are raised by want()
// and want_of(), and never fall; no counting down. A stream that is capturing a graph records
// nothing and so does not pass. The timer's step records on background streams only.
//
//   transition                   atomic                                       order    partner
//   add: kFree -> kAdding        CAS state                                    acquire  finish of removal
//   add: passed = e, -> kActive  stores, after clock.advance()                release  min_passed()
//   claim of a slot              CAS claim 0 -> 1; a loser skips the slot     acquire  its release
//   record, then tag             store tag                                    release  wait_for()
//   poll: query ok, passed = tag CAS to the maximum                           release  min_passed()
//   remove: -> kRemoving         store state, under the claim, after the last event was recorded
//   removal is over: -> kFree    passed = UINT64_MAX, then state              release  add
//
// Adding. The clock is advanced, and passed = the epoch that ended: whatever retired up to then,
// this stream has never touched. A min_passed() that does not see the new slot yet is right too:
// the stream's first kernel comes after add returned, on pages whose leases are still held.
//
// Removing records a last event and returns; the slot stays a reader until that completes. Its
// number may then be another stream's: that one's `passed` begins above every epoch that a page of
// the former writer can name, so those pages are ready. Events stay with their slot until the table
// is closed, so a wait_for() that comes late waits for nothing that is gone.
//
// A stopped thread: a slot whose claim it holds is not recorded or polled until it goes on, so it
// delays reuse as a stalled stream would. Nothing else waits for it; remove() says kBusy.
//
// Failures. A record or query that fails changes nothing: no tag, no passed. It is counted, and
// tried again at the next step. On a device that is lost nothing runs any more: poll() counts its
// streams as passed and remove() succeeds, so that the cache can be closed.
//
// Invariants (validate(), at rest): tags in flight > passed; tags < now; passed < now or free; no
// claim is held; no two active slots have one handle.
//
// Thread class: any thread, any time, in any combination. format: before sharing.
// Cost: step and poll O(streams ever used at once), a device call only where something waits;
// ready() one load; min_passed() one load a stream.
#ifndef QUIRE_RUNTIME_STREAM_TABLE_H_
#define QUIRE_RUNTIME_STREAM_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <new>

#include "allocators/atomics.h"
#include "runtime/device.h"
#include "runtime/epoch_clock.h"
#include "runtime/status.h"

namespace quire {

// The order that step() must have. Tests instantiate the wrong one, to see it caught.
struct StepOrders {
  static constexpr bool kRecordFirst = false;
};

// For stats. stream nullptr: no stream is registered.
struct SlowestReader {
  uint32_t slot = kNone;
  Stream stream = nullptr;
  uint64_t passed = 0;
  uint64_t lag = 0;  // epochs that ended and that it has not passed
  bool removing = false;
  bool waited_for = false;  // something waits for it; else it was never asked
};

struct StreamCounts {
  uint64_t recorded = 0, failed = 0, completed = 0, capturing = 0;
};

template <class A = StdAtomics, class Orders = StepOrders>
class StreamTable {
  template <class T>
  using atomic = typename A::template atomic<T>;

  static constexpr uint32_t kRing = 4;
  enum State : uint32_t { kFree, kAdding, kActive, kRemoving };

  struct alignas(kCacheLine) Slot {
    atomic<uint32_t> state;
    atomic<uint32_t> claim;
    atomic<uint32_t> flags;
    atomic<uint32_t> rank;
    atomic<uint64_t> stream;
    atomic<uint64_t> passed;
    atomic<uint64_t> wanted;
    atomic<uint64_t> event[kRing];
    atomic<uint64_t> tag[kRing];
  };
  struct alignas(kCacheLine) Header {
    atomic<uint64_t> wanted;
    atomic<uint32_t> used;  // slots beyond were never taken
    atomic<uint64_t> recorded, failed, completed, capturing;
  };

 public:
  static constexpr size_t kAlignment = kCacheLine;
  static constexpr uint32_t kBackground = 1;  // flag: never captured; the timer may record on it

  static size_t bytes(uint32_t capacity) noexcept {
    return sizeof(Header) + size_t{capacity} * sizeof(Slot);
  }

  StreamTable() = default;
  // A view. device nullptr: for looking only (stats from outside).
  StreamTable(void *memory, uint32_t capacity, EpochClock<A> clock, Device *device) noexcept
      : header_(static_cast<Header *>(memory)),
        slot_(reinterpret_cast<Slot *>(static_cast<std::byte *>(memory) + sizeof(Header))),
        capacity_(capacity),
        clock_(clock),
        device_(device) {}

  void format() noexcept;

  // Destroys the events. When nobody uses the table any more.
  void close() noexcept;

  uint32_t capacity() const noexcept { return capacity_; }

  // kInvalid: no definite stream, or registered already. kNomem: no slot. Else *slot is its number.
  Status add(Stream stream, uint32_t rank, uint32_t flags, uint32_t *slot) noexcept;

  // kInvalid: not registered. kBusy: capturing, or another thread is in step() for it right now.
  // kDevice: the event could not be recorded; the stream is still registered.
  Status remove(Stream stream) noexcept;

  // The slot of a registered stream, kNone if it is none.
  uint32_t find(Stream stream) const noexcept;

  // Ends an epoch, returns it; records where something waits. only_background: for the timer.
  uint64_t step(bool only_background = false) noexcept;

  // Asks events; raises what streams have passed. Returns how many streams moved.
  uint32_t poll() noexcept;

  // Every stream has passed this epoch. Without streams: the present epoch.
  uint64_t min_passed() const noexcept { return min_passed_except(kNone); }
  // The same, leaving one slot out.
  uint64_t min_passed_except(uint32_t slot) const noexcept;
  // acquire: pairs with poll()'s raise: what the stream did until then is done.
  uint64_t passed(uint32_t slot) const noexcept { return slot_[slot].passed.load(kAcquire); }

  // Something waits for all streams, or for one, to pass that epoch: the next step records.
  void want(uint64_t epoch) noexcept { raise_to(header_->wanted, epoch, kAcqRel); }
  // The same for whatever waits at present.
  void need() noexcept { want(clock_.now()); }
  void want_of(uint32_t slot, uint64_t epoch) noexcept {
    raise_to(slot_[slot].wanted, epoch, kAcqRel);
  }

  bool ready(uint32_t slot, uint64_t epoch) const noexcept { return epoch <= passed(slot); }

  // Makes `consumer` wait until the stream of `slot` has passed the epoch. kOk: it waits, or need
  // not; kAgain: no event for that epoch is recorded yet (one will be, by the next step); else the
  // device's error, and nothing waits.
  Status wait_for(uint32_t slot, uint64_t epoch, Stream consumer) noexcept;

  // Registered, or removed and not yet passed.
  uint32_t readers() const noexcept;
  bool registered() const noexcept;  // any stream that was not removed
  SlowestReader slowest() const noexcept;
  // f(slot, passed, removing) for each reader; for stats, from outside as well.
  template <class F>
  void for_each_reader(F &&f) const noexcept {
    const uint32_t n = used() < capacity_ ? used() : capacity_;
    for (uint32_t i = 0; i < n; ++i) {
      const uint32_t state = slot_[i].state.load(kAcquire);
      if (state == kActive || state == kRemoving) f(i, passed(i), state == kRemoving);
    }
  }
  StreamCounts counts() const noexcept;
  bool validate() const noexcept;

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;
  static constexpr std::memory_order kAcquire = std::memory_order_acquire;
  static constexpr std::memory_order kRelease = std::memory_order_release;
  static constexpr std::memory_order kAcqRel = std::memory_order_acq_rel;

  static Stream handle_of(const Slot &slot) noexcept {
    return reinterpret_cast<Stream>(static_cast<uintptr_t>(slot.stream.load(kRelaxed)));
  }
  static uint64_t word_of(Stream stream) noexcept {
    return static_cast<uint64_t>(reinterpret_cast<uintptr_t>(stream));
  }
  uint32_t used() const noexcept { return header_->used.load(kAcquire); }

  bool try_claim(Slot &slot) noexcept {
    uint32_t free = 0;
    // acquire: pairs with the release below; strong, so that a failure means another thread.
    return slot.claim.compare_exchange_strong(free, 1, kAcquire, kRelaxed);
  }
  void unclaim(Slot &slot) noexcept { slot.claim.store(0, kRelease); }

  uint64_t youngest_tag(const Slot &slot, uint32_t *at) const noexcept;
  Status record(Slot &slot, uint64_t epoch) noexcept;
  void record_wanted(uint64_t epoch, bool only_background) noexcept;
  bool poll_slot(Slot &slot) noexcept;
  Status take_slot(Stream stream, uint32_t *out) noexcept;
  void free_slot(Slot &slot) noexcept;

  Header *header_ = nullptr;
  Slot *slot_ = nullptr;
  uint32_t capacity_ = 0;
  EpochClock<A> clock_;
  Device *device_ = nullptr;
};

}  // namespace quire

#include "runtime/stream_table_inl.h"  // IWYU pragma: export

#endif  // QUIRE_RUNTIME_STREAM_TABLE_H_
