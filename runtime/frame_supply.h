// get_frames: how a call that finds too few free frames comes by them, or finds out that there are
// none.
//
// It takes a place in the line (runtime/frame_debts.h) and then goes round: look whether readers
// have passed, take from the pool if those before it leave enough, else evict what is missing.
//
// REFUSED only when the pool had too few and one round within the call found nothing to evict: it
// looked at every page, each was pinned, private or free as it looked, nobody else evicted one from
// the beginning of the round to its end, and nobody was inside an eviction at its end. While others
// evict, a round that came out empty says nothing: what they evict comes to this call in its turn.
// In the end order does not matter: who finds nothing left to evict takes what there is, of
// whomever before it.
//
// BUSY where somebody was inside an eviction all the time and gave nothing back, stopped perhaps. It
// may hold a batch of at most EvictBatch::kMost pages, and the chain above the last of them cannot
// be evicted. Such rounds are repeated closely, by the pages' own words instead of the hints that
// an evictor maintains, and kLooks times at most: it is not waited for.
//
// BOUNDED: each round but the last sees an eviction, and what is evicted can only go to calls that
// came before this one, or to calls without a debt that looked before the first of them joined.
//
// Source is what the caller knows of its frames:
//   void refresh()                    asks which readers have passed; frees what they have
//   bool elsewhere(uint64_t keep)     took all n where they need not be free, leaving `keep` others
//   bool pointless(uint64_t wanted)   an eviction would only add to what waits for readers already
//   uint32_t evict(uint32_t n)        how many it evicted; 0 if a look at every page found none
//   uint32_t evict_closely(uint32_t)  the same without the hints
//   bool others_inside()              somebody is inside an eviction; else all of it is in evictions()
//   uint64_t evictions()              pages given back by anybody's evictions, ever
//   void pause()                      lets others run, if they can
//
// Thread class: any thread. Nothing waits. Cost: an eviction a frame.
#ifndef QUIRE_RUNTIME_FRAME_SUPPLY_H_
#define QUIRE_RUNTIME_FRAME_SUPPLY_H_

#include <algorithm>
#include <cstdint>

#include "allocators/frame_pool.h"
#include "runtime/frame_debts.h"

namespace quire {

enum class Supply : uint8_t {
  kReserved,   // n are reserved in the pool
  kElsewhere,  // n were taken by Source::elsewhere()
  kRefused,    // there are too few; nothing has changed but for what was evicted
  kBusy,       // the same, but another call may have some in its hands
};

template <class A, class Source>
Supply get_frames(FramePool<A> &pool, FrameDebts<A> &debts, uint32_t n, Source &&source) noexcept {
  constexpr uint32_t kLooks = 16;
  FrameDebt<A> debt(debts, n);
  Supply refusal = Supply::kRefused;
  for (uint32_t looks = 0;;) {
    source.refresh();
    const uint64_t wanted = n + debt.older();
    if (pool.reserve(n, wanted - n)) return Supply::kReserved;
    if (source.elsewhere(wanted - n)) return Supply::kElsewhere;
    if (source.pointless(wanted)) break;
    const uint64_t before = source.evictions();
    const uint32_t available = pool.available();
    // No more than it needs itself, though others may take it: they come for it, too.
    const uint64_t few = wanted > available ? std::min<uint64_t>(wanted - available, n) : 1;
    const auto missing = static_cast<uint32_t>(few);
    uint32_t evicted = source.evict(missing);
    if (evicted == 0 && looks > 0) evicted = source.evict_closely(missing);
    const bool inside = source.others_inside();
    // Since the round began, by whomever: those before us may take it, and we look again.
    if (evicted != 0 || source.evictions() != before) {
      looks = 0;
      continue;
    }
    if (!inside) break;
    if (++looks == kLooks) {
      refusal = Supply::kBusy;
      break;
    }
    source.pause();
  }
  return pool.reserve(n) ? Supply::kReserved : refusal;
}

}  // namespace quire

#endif  // QUIRE_RUNTIME_FRAME_SUPPLY_H_
