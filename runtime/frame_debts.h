// FrameDebts: the calls that are short of frames of one class, in the order in which they came.
//
// A call that evicts for its own sake puts the frames into the pool, where anybody could take them.
// So it first says how many it needs. What was freed then goes to those who came first:
//
//   older(d)   what calls before d still need
//   d may take n frames        <=>  available >= n + older(d)       (FramePool::reserve)
//   a call without a debt may  <=>  available >= n + total()
//
// A debt is as good as an allocation that was granted and is not filled yet. Hence frames that one
// call evicted can be had only by itself and by the finitely many that came before it: however many
// threads stampede, each call is over after as many evictions, by whomever, as it and those before
// it need. And a thread that is stopped while it has a debt holds back that many frames, as if it
// had been given them; nobody waits for it.
//
//   ticket[i]   0: free, kArriving: being set up, else the place in the line
//   need[i]     what it is short of
//   total       sum of needs
//
//   step                   atomic                    order    partner
//   enter: take a place    CAS ticket, 0 -> arriving acq_rel  the store of leave()
//   enter: join the line   store ticket              release  older()'s load: `need` is there
//   older: look            load ticket, need, ticket acquire  the stores of enter() and leave()
//   leave                  store ticket = 0          release  the next enter()
//
// A sum that is old when it is used makes a call take less than it might, or take what a call needs
// that joins at this moment; both look again. More than kPlaces at once: the rest have no place and
// come last.
//
// Invariant, at rest (validate()): total = 0 and no place is taken.
// Thread class: any thread, any time. Nothing waits. Cost: without debts, one load of a line that
// nobody writes.
#ifndef QUIRE_RUNTIME_FRAME_DEBTS_H_
#define QUIRE_RUNTIME_FRAME_DEBTS_H_

#include <cstdint>

#include "allocators/atomics.h"

namespace quire {

template <class A = StdAtomics>
class FrameDebts {
  template <class T>
  using atomic = typename A::template atomic<T>;

 public:
  static constexpr uint32_t kPlaces = 64;

  FrameDebts() noexcept {
    for (Place &place : places_) {
      place.ticket.store(0, kRelaxed);
      place.need.store(0, kRelaxed);
    }
    total_.store(0, kRelaxed);
    used_.store(0, kRelaxed);
    next_.store(1, kRelaxed);
  }
  FrameDebts(const FrameDebts &) = delete;
  FrameDebts &operator=(const FrameDebts &) = delete;

  // A place in the line for n frames; kNone where there is none left: then leave() needs no call.
  uint32_t enter(uint32_t n) noexcept {
    for (uint32_t i = 0; i < kPlaces; ++i) {
      Place &place = places_[i];
      uint64_t free = 0;
      if (place.ticket.load(kRelaxed) != 0) continue;
      if (!place.ticket.compare_exchange_strong(free, kArriving, kAcqRel, kRelaxed)) continue;
      uint32_t used = used_.load(kRelaxed);
      // acq_rel: pairs with older()'s load: whoever is behind us in the line looks this far.
      while (used <= i && !used_.compare_exchange_weak(used, i + 1, kAcqRel, kRelaxed)) {
      }
      place.need.store(n, kRelaxed);
      total_.fetch_add(n, kAcqRel);
      // acq_rel: a later ticket comes after all that was done before this one.
      place.ticket.store(next_.fetch_add(1, kAcqRel), kRelease);
      return i;
    }
    return kNone;
  }

  void leave(uint32_t place) noexcept {
    total_.fetch_sub(places_[place].need.load(kRelaxed), kAcqRel);
    places_[place].ticket.store(0, kRelease);
  }

  // What those before it need; for kNone, what all need.
  uint64_t older(uint32_t place) const noexcept {
    if (place == kNone) return total();
    const uint64_t mine = places_[place].ticket.load(kRelaxed);
    const uint32_t used = used_.load(kAcquire);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < used; ++i) {
      const uint64_t ticket = places_[i].ticket.load(kAcquire);
      if (ticket == 0 || ticket >= mine) continue;
      const uint32_t need = places_[i].need.load(kAcquire);
      // Left in between: then the need may be that of the next one there, who is behind us.
      if (places_[i].ticket.load(kRelaxed) == ticket) sum += need;
    }
    return sum;
  }

  // relaxed: a figure that is old by the time it is used.
  uint64_t total() const noexcept { return total_.load(kRelaxed); }

  bool validate() const noexcept {
    for (const Place &place : places_) {
      if (place.ticket.load(kAcquire) != 0) return false;
    }
    return total() == 0;
  }

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;
  static constexpr std::memory_order kAcquire = std::memory_order_acquire;
  static constexpr std::memory_order kRelease = std::memory_order_release;
  static constexpr std::memory_order kAcqRel = std::memory_order_acq_rel;
  static constexpr uint64_t kArriving = UINT64_MAX;

  struct Place {
    atomic<uint64_t> ticket;
    atomic<uint32_t> need;
  };

  // A line of its own: every allocation reads it.
  alignas(kCacheLine) atomic<uint64_t> total_;
  alignas(kCacheLine) atomic<uint64_t> next_;
  atomic<uint32_t> used_;
  alignas(kCacheLine) Place places_[kPlaces];
};

// A debt for a scope.
template <class A = StdAtomics>
class FrameDebt {
 public:
  FrameDebt(FrameDebts<A> &debts, uint32_t n) noexcept : debts_(debts), place_(debts.enter(n)) {}
  ~FrameDebt() {
    if (place_ != kNone) debts_.leave(place_);
  }
  FrameDebt(const FrameDebt &) = delete;
  FrameDebt &operator=(const FrameDebt &) = delete;
  uint64_t older() const noexcept { return debts_.older(place_); }

 private:
  FrameDebts<A> &debts_;
  uint32_t place_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_FRAME_DEBTS_H_
