// The steps of BasicReclaimer that go by time: what has expired or is dead leaves the cache, and
// stamps are kept within reach of the clock. runtime/reclaimer.h says what they must be and why
// (EXPIRY, STAMPS); runtime/reclaimer_inl.h has those that go by age.
#ifndef QUIRE_RUNTIME_RECLAIMER_EXPIRY_INL_H_
#define QUIRE_RUNTIME_RECLAIMER_EXPIRY_INL_H_

#include <algorithm>

#include "runtime/reclaimer.h"

namespace quire {

#define QUIRE_RECLAIMER(result)                 \
  template <class A, class Index, class Orders> \
  result BasicReclaimer<A, Index, Orders>

// ---- Expiry -----------------------------------------------------------------------------------

QUIRE_RECLAIMER(struct)::ExpirePass {
  static constexpr uint32_t kCuts = 64;
  struct Cut {
    uint32_t ttl = 0;
    uint64_t epoch = 0;
  };

  uint64_t now_ms, now;
  bool dead, owned;
  ExpireResult result;
  EvictBatch batch;
  Cut cut[kCuts];

  // Uses before this epoch are idle for that long. TTLs are few; each is looked up once a pass.
  uint64_t idle_since(const EpochLog<A> &log, uint32_t ttl) noexcept {
    Cut &slot = cut[(ttl * 0x9e3779b1u) >> 26];
    if (slot.ttl != ttl) slot = {ttl, now_ms < ttl ? 0 : log.began_by(now_ms - ttl, now, now_ms)};
    return slot.epoch;
  }
  void due(uint64_t ms) noexcept {
    result.next_ms = std::min(result.next_ms, ms);
  }
};

QUIRE_RECLAIMER(bool)::has_expired(uint32_t page, ExpirePass &pass, EvictReason *reason) noexcept {
  const Pages &pages = parts_.pages;
  const uint8_t tag = pages.page_class(page);
  if ((tag & kTagExpires) != 0) {
    const uint64_t at = pages[page].expiry_ms.load(kRelaxed);
    *reason = EvictReason::kExpired;
    if (at <= pass.now_ms) return true;
    pass.due(at);
  }
  if ((tag & kTagIdle) != 0) {
    const uint32_t ttl = pages.idle_ttl_ms(page);
    *reason = EvictReason::kIdle;
    if (ttl != 0) {
      const uint64_t cut = pass.idle_since(parts_.log, ttl);
      if (widen_epoch(pass.now, pages.stamp(page)) < cut) return true;
      // As late as the log may be for that age, and no later.
      pass.due(pass.now_ms + std::max<uint64_t>(1, ttl / 64));
    }
  }
  *reason = EvictReason::kNamespace;
  return pass.dead && parts_.sink->is_dead(page);
}

// The page, if it has expired, then its parent if that is a leaf now and has expired, and so on.
QUIRE_RECLAIMER(void)::expire_chain(uint32_t page, ExpirePass &pass) noexcept {
  while (page != kNone) {
    const PageView view = parts_.pages.view(page);
    EvictReason reason;
    if (view.state != PageState::kVisible || view.children != 0) return;
    uint32_t exposed = kNone;
    const bool over = has_expired(page, pass, &reason);
    if (over && evict(page, reason, &pass.batch, &exposed, true)) {
      if (reason == EvictReason::kIdle) ++pass.result.idle;
      if (reason == EvictReason::kExpired) ++pass.result.expired;
      if (reason == EvictReason::kNamespace) ++pass.result.dead;
    } else if (over) {
      ++pass.result.pinned;
      pass.due(pass.now_ms + kTtlPeriodMs);
      if (reason == EvictReason::kNamespace) note_dead();
    }
    if (exposed != kNone && pass.owned) {
      enter(order_of_queue().place(parts_.pages, exposed));
    }
    page = exposed;
  }
}

QUIRE_RECLAIMER(ExpireResult)::expire(uint64_t now_ms) noexcept {
  lift_in_time();
  ExpirePass pass{};
  pass.now_ms = now_ms;
  // Before the scan: a TTL or an emptied namespace that comes meanwhile asks for another pass.
  next_ms_.store(UINT64_MAX, kRelaxed);
  expired_ms_.store(now_ms, kRelaxed);
  pass.dead = new_dead_.exchange(0, kAcqRel) != 0;
  pass.now = parts_.clock.now();
  // With the queue, so that parents which become leaves enter it; without, a later scan has them.
  pass.owned = try_own();
  if (pass.owned) begin_call();
  const uint8_t wanted = pass.dead ? 0xff : kTagIdle | kTagExpires;
  for_leaves(0, parts_.pages.capacity(), [&](uint32_t page, uint8_t tag) {
    if ((tag & wanted) != 0) expire_chain(page, pass);
  });
  scanned_.fetch_add(parts_.pages.capacity(), kRelaxed);
  give_back(&pass.batch);
  if (pass.owned) disown();
  if (pass.result.next_ms != UINT64_MAX) note_ttl(pass.result.next_ms);
  return pass.result;
}

QUIRE_RECLAIMER(bool)::expiry_due(uint64_t now_ms) const noexcept {
  // acquire: pairs with note_dead().
  return now_ms >= next_ms_.load(kRelaxed) || new_dead_.load(kAcquire) != 0;
}

QUIRE_RECLAIMER(void)::note_ttl(uint64_t due_ms) noexcept {
  uint64_t next = next_ms_.load(kRelaxed);
  // relaxed: a time to look at, not a promise of what will be seen then.
  while (due_ms < next && !next_ms_.compare_exchange_weak(next, due_ms, kRelaxed, kRelaxed)) {
  }
}

// ---- Age --------------------------------------------------------------------------------------

QUIRE_RECLAIMER(uint32_t)::lift() noexcept {
  const auto now = static_cast<uint32_t>(parts_.clock.now());
  uint32_t lifted = 0;
  for (uint32_t page = 0; page < parts_.pages.capacity(); ++page) {
    if (Order::age(now, parts_.pages.stamp(page)) <= kMostAge) continue;
    parts_.pages.raise_stamp(page, now - kMostAge);
    ++lifted;
  }
  return lifted;
}

QUIRE_RECLAIMER(void)::lift_in_time() noexcept {
  const uint64_t now = parts_.clock.now();
  uint64_t last = lifted_.load(kRelaxed);
  if (now - last < kLiftEvery) return;
  // One thread does it; the others go on with stamps that are good for another 2^29 epochs.
  if (lifted_.compare_exchange_strong(last, now, kAcqRel, kRelaxed)) lift();
}

#undef QUIRE_RECLAIMER

}  // namespace quire

#endif  // QUIRE_RUNTIME_RECLAIMER_EXPIRY_INL_H_
