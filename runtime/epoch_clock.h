// EpochClock: the one clock of a cache, and the guards of threads.
//
// An epoch counts order, not time. Three things are counted in it: when memory may be reused, how
// old a page is, and (through runtime/epoch_log.h) when it expires. quire_step and the timer
// advance it. 64 bits never wrap; where 32 are kept (stamps, ready epochs), widen_epoch() makes
// them whole.
//
// GUARDS. A guard is a short critical section in which a thread may look at something that is
// swapped whole and then freed: a policy's table, a slab. Contents of pages are read under a lease,
// never under a guard, so guards do not hold frames back.
//
//   slot   0: free, else the epoch that its guard saw on entry
//
//   step                   atomic                              order    partner
//   enter: read            load clock                          acquire  retire_epoch()'s add
//   enter: take a slot     CAS slot, 0 -> e                    acquire  min_guard()'s add
//   leave                  store slot = 0                      release  min_guard()'s add
//   retire_epoch           add 0 to the clock                  release  enter's read
//   advance                add 1 to the clock                  acq_rel  (carries the chain on)
//   min_guard              add 0 to each slot                  acq_rel  enter's CAS, leave's store
//
// Rule of a swap: unlink the old thing, then r = retire_epoch(), free it once r < min_guard(). Why
// that is safe, for a guard that entered at e. Its CAS and the add of min_guard() are two
// read-modify-writes of one word. If the add came first, the CAS read it, so the guard sees the
// unlink and never finds the old thing. If the CAS came first, min_guard() is at most e. Then the
// thing is freed only if e > r: the guard read an epoch that some advance() wrote after our add to
// the clock, and the chain of read-modify-writes on the clock carries our unlink to it.
//
// A slot is taken per guard, not per thread: the search starts at the thread's own place, so that
// it is the same warm line each time; there is no registry to leave when a thread dies, guards
// nest, and what is bounded is the number of guards held at once. (decisions/guard-slots.md)
//
// A stalled guard is never skipped. It delays what waits for it, and nothing else; oldest_guard()
// names it.
//
// Invariants: 1 <= slot epoch <= now() for a taken slot (validate()); now() never falls.
// Progress: wait free, but for enter when its first place is taken: then at most `guards` probes.
// Cost: a guard is one CAS and one store on the thread's own line; 64 bytes a guard.
// Thread class: any thread, any time. format: before sharing. No guard is held across a callback, a
// device call or a wait for tasks.
#ifndef QUIRE_RUNTIME_EPOCH_CLOCK_H_
#define QUIRE_RUNTIME_EPOCH_CLOCK_H_

#include <cstddef>
#include <cstdint>
#include <new>

#include "allocators/atomics.h"

namespace quire {

// The epoch near `now` whose low half is `epoch`: right for distances below 2^31 either way.
constexpr uint64_t widen_epoch(uint64_t now, uint32_t epoch) noexcept {
  const auto distance = static_cast<int32_t>(epoch - static_cast<uint32_t>(now));
  return now + static_cast<uint64_t>(static_cast<int64_t>(distance));
}

// Raises a word to at least `value`; true if this call did.
template <class Word, class T>
bool raise_to(Word &word, T value, std::memory_order order) noexcept {
  T seen = word.load(std::memory_order_relaxed);
  while (seen < value) {
    if (word.compare_exchange_weak(seen, value, order, std::memory_order_relaxed)) return true;
  }
  return false;
}

// Who holds back what guards protect: slot kNone if nobody is inside.
struct OldestGuard {
  uint32_t slot = kNone;
  uint32_t thread = 0;  // thread_index() of whoever entered
  uint64_t epoch = 0;
  uint64_t age = 0;  // epochs since it entered
};

template <class A = StdAtomics>
class EpochClock {
  template <class T>
  using atomic = typename A::template atomic<T>;

  struct alignas(kCacheLine) Header {
    atomic<uint64_t> now;
    atomic<uint32_t> used;  // guards beyond were never taken
  };
  struct alignas(kCacheLine) Slot {
    atomic<uint64_t> epoch;
    atomic<uint32_t> thread;
  };

 public:
  static constexpr size_t kAlignment = kCacheLine;

  static size_t bytes(uint32_t guards) noexcept {
    return sizeof(Header) + size_t{guards} * sizeof(Slot);
  }

  EpochClock() = default;
  // A view: `memory` holds bytes(guards) bytes at a multiple of kAlignment.
  EpochClock(void *memory, uint32_t guards) noexcept
      : header_(static_cast<Header *>(memory)),
        slot_(reinterpret_cast<Slot *>(static_cast<std::byte *>(memory) + sizeof(Header))),
        guards_(guards) {}

  // Epochs begin at 1, so that 0 is before all of them; tests begin elsewhere.
  void format(uint64_t epoch = 1) noexcept {
    new (header_) Header;
    header_->now.store(epoch, kRelaxed);
    header_->used.store(0, kRelaxed);
    for (uint32_t i = 0; i < guards_; ++i) {
      Slot *slot = new (&slot_[i]) Slot;
      slot->epoch.store(0, kRelaxed);
      slot->thread.store(0, kRelaxed);
    }
  }

  // acquire: pairs with advance(): who sees an epoch sees what was done before it began.
  uint64_t now() const noexcept { return header_->now.load(kAcquire); }

  // Begins the next epoch; returns the one that ended.
  // acq_rel: one link of the chain that retire_epoch() starts and now() ends.
  uint64_t advance() noexcept { return header_->now.fetch_add(1, kAcqRel); }

  // The epoch in which something is retired that was unlinked before: see the header comment.
  uint64_t retire_epoch() noexcept { return header_->now.fetch_add(0, kRelease); }

  // A stamp of the last 2^31 epochs, made whole.
  uint64_t widen(uint32_t stamp) const noexcept { return widen_epoch(now(), stamp); }

  uint32_t guards() const noexcept { return guards_; }

  // Returns the slot to leave with, or kNone when as many guards as there are slots are held.
  uint32_t enter() noexcept {
    const uint64_t epoch = now();
    const uint32_t thread = A::thread_index();
    uint32_t at = guards_ == 0 ? 0 : thread % guards_;
    for (uint32_t tried = 0; tried < guards_; ++tried) {
      Slot &slot = slot_[at];
      uint64_t free = 0;
      // relaxed look first: a taken line is not written to.
      if (slot.epoch.load(kRelaxed) == 0) {
        // The bound is raised before the slot is taken: min_guard() looks at all that it covers.
        // acquire: as good as our own raise, where another guard's made it unnecessary. Looked at
        // again after the raise: one that finds the bound raised already has acquired nothing.
        while (at >= header_->used.load(kAcquire)) raise_to(header_->used, at + 1, kAcqRel);
        // acquire: pairs with min_guard()'s add, if that came first; else it has read our epoch.
        if (slot.epoch.compare_exchange_strong(free, epoch, kAcquire, kRelaxed)) {
          slot.thread.store(thread, kRelaxed);
          return at;
        }
      }
      at = at + 1 == guards_ ? 0 : at + 1;
    }
    return kNone;
  }

  // release: pairs with min_guard()'s add: what was read under the guard was read before.
  void leave(uint32_t slot) noexcept { slot_[slot].epoch.store(0, kRelease); }

  // The epoch of the oldest guard, UINT64_MAX without guards. What was retired at r may be freed
  // once r < min_guard().
  uint64_t min_guard() noexcept {
    uint64_t least = UINT64_MAX;
    // An add, not a load: a guard that raises `used` later also sees our unlink.
    const uint32_t used = header_->used.fetch_add(0, kRelease);
    for (uint32_t i = 0; i < used; ++i) {
      const uint64_t epoch = slot_[i].epoch.fetch_add(0, kAcqRel);
      if (epoch != 0 && epoch < least) least = epoch;
    }
    return least;
  }

  // f(slot, epoch, thread) for each guard held; for stats, from outside as well.
  template <class F>
  void for_each_guard(F &&f) const noexcept {
    uint32_t used = header_->used.load(kAcquire);
    if (used > guards_) used = guards_;
    for (uint32_t i = 0; i < used; ++i) {
      const uint64_t epoch = slot_[i].epoch.load(kAcquire);
      if (epoch != 0) f(i, epoch, slot_[i].thread.load(kRelaxed));
    }
  }

  OldestGuard oldest_guard() const noexcept {
    OldestGuard oldest;
    const uint64_t present = now();
    for_each_guard([&](uint32_t slot, uint64_t epoch, uint32_t thread) {
      if (oldest.slot != kNone && epoch >= oldest.epoch) return;
      oldest = {slot, thread, epoch, present > epoch ? present - epoch : 0};
    });
    return oldest;
  }

  bool validate() const noexcept {
    const uint32_t used = header_->used.load(kAcquire);
    if (used > guards_) return false;
    for (uint32_t i = 0; i < guards_; ++i) {
      const uint64_t epoch = slot_[i].epoch.load(kAcquire);
      if (epoch != 0 && (i >= used || epoch > now())) return false;
    }
    return now() != 0;
  }

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;
  static constexpr std::memory_order kAcquire = std::memory_order_acquire;
  static constexpr std::memory_order kRelease = std::memory_order_release;
  static constexpr std::memory_order kAcqRel = std::memory_order_acq_rel;

  Header *header_ = nullptr;
  Slot *slot_ = nullptr;
  uint32_t guards_ = 0;
};

// A guard for a scope. held() is false where no slot was free: then nothing may be looked at.
template <class A = StdAtomics>
class Guard {
 public:
  explicit Guard(EpochClock<A> &clock) noexcept : clock_(clock), slot_(clock.enter()) {}
  ~Guard() {
    if (held()) clock_.leave(slot_);
  }
  Guard(const Guard &) = delete;
  Guard &operator=(const Guard &) = delete;
  bool held() const noexcept { return slot_ != kNone; }

 private:
  EpochClock<A> &clock_;
  uint32_t slot_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_EPOCH_CLOCK_H_
