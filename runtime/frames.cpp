// Frames: where they come from and where they go.
//
// Getting frames, in this order: the pool; limbo, where readers have passed since; limbo again,
// what only the stream of first use still reads; and, for sealed frames, an eviction of exactly
// what is missing, in turn with the other calls that are short (runtime/frame_supply.h says when a
// call is refused, and that it ends). Then kAgain: limbo has enough, or another call that evicts
// has; or kNomem. No step waits for another thread.
//
// A call for more than it could ever get evicts nothing: before more than kMostPages frames are
// evicted for one call, what could be is estimated from above (at_most_evictable()). Smaller ones
// may evict some pages in vain, which are in the pool then.
#include <algorithm>
#include <thread>

#include "runtime/cache.h"
#include "runtime/frame_supply.h"

namespace quire {

FrameClassView Cache::frame_class(FrameClass c) noexcept {
  Tables &t = *tables_;
  return c == FrameClass::kSealed ? FrameClassView{&t.frame_pool, &t.limbo, t.frame_flags}
                                  : FrameClassView{&t.open_pool, &t.open_limbo, t.open_frame_flags};
}

uint8_t *Cache::frame_address(FrameClass c, uint32_t frame) const noexcept {
  const Arena &arena = c == FrameClass::kSealed ? arena_ : open_arena_;
  return static_cast<uint8_t *>(arena.frame(frame));
}

// ---- getting them

// What get_frames() asks of the cache, for one call. T: where numbers of frames from limbo are kept.
template <class T>
struct Cache::FrameSource {
  Cache &cache;
  FrameClass c;
  uint32_t n;
  uint32_t stream_slot;
  uint32_t space;
  T *frames;
  uint32_t *listed;
  FrameClassView f = cache.frame_class(c);

  void refresh() noexcept {
    cache.streams_->poll();
    cache.drain_limbo();
  }
  bool elsewhere(uint64_t keep) noexcept {
    return stream_slot != kNoIndex &&
           cache.take_from_limbo(c, n, stream_slot, keep, frames, listed);
  }
  // Where the last eviction only fed limbo, another one does, too, until a reader has moved.
  bool pointless(uint64_t wanted) noexcept {
    if (c == FrameClass::kOpen) return true;
    const uint64_t available = f.pool->available();
    if (available >= wanted || available + f.limbo->count() < wanted) return false;
    return cache.streams_->min_passed() <= cache.fed_limbo_at_.load(std::memory_order_relaxed);
  }
  uint32_t evict(uint32_t missing) noexcept {
    const uint32_t limbo = f.limbo->count();
    uint32_t evicted = cache.reclaim(missing);
    // All that is left is pinned, or under the floors of namespaces. A floor is for others: who asked
    // replaces its own.
    if (evicted == 0 && space != kNoIndex && cache.tables_->spaces.floor(space) != 0) {
      evicted = cache.reclaim_own(space, missing, EvictReason::kCapacity);
    }
    if (evicted != 0 && f.limbo->count() >= limbo + evicted) {
      cache.fed_limbo_at_.store(cache.streams_->min_passed(), std::memory_order_relaxed);
    }
    return evicted;
  }
  uint32_t evict_closely(uint32_t missing) noexcept {
    return cache.reclaimer_->reclaim_closely(missing);
  }
  bool others_inside() const noexcept { return cache.reclaimer_->running() != 0; }
  void pause() const noexcept { std::this_thread::yield(); }
  uint64_t evictions() const noexcept { return cache.reclaimer_->evicted(); }
};

// n frames for the caller: *listed of them in frames[], the rest reserved in the pool.
template <class T>
Status Cache::reserve_frames(FrameClass c, uint32_t n, uint32_t stream_slot, uint32_t space,
                             T *frames, uint32_t *listed) noexcept {
  FrameClassView f = frame_class(c);
  *listed = 0;
  FrameDebts<> &debts = debts_[static_cast<uint32_t>(c)];
  if (f.pool->reserve(n, debts.total())) {
    wake_if_low();
    return Status::kOk;
  }
  if (n > f.pool->capacity()) return refuse_frames(c, n);
  const uint64_t coming = uint64_t{f.pool->available()} + f.limbo->count();
  if (c == FrameClass::kSealed && n > coming + kMostPages && n > coming + at_most_evictable()) {
    return refuse_frames(c, n);
  }
  const Supply got = get_frames(*f.pool, debts, n,
                                FrameSource<T>{*this, c, n, stream_slot, space, frames, listed});
  if (got == Supply::kReserved || got == Supply::kElsewhere) return Status::kOk;
  return refuse_frames(c, n, got == Supply::kBusy);
}

template Status Cache::reserve_frames(FrameClass, uint32_t, uint32_t, uint32_t, quire_page *,
                                      uint32_t *) noexcept;

Status Cache::take_frames(FrameClass c, uint32_t n, uint32_t stream_slot, uint32_t space,
                          uint32_t *frames) noexcept {
  uint32_t listed = 0;
  const Status status = reserve_frames(c, n, stream_slot, space, frames, &listed);
  if (status == Status::kOk) frame_class(c).pool->take_reserved(n - listed, frames + listed);
  return status;
}

// Whether n frames can be had, as far as is known: evicts what is missing. Nothing is taken.
Status Cache::ensure_frames(FrameClass c, uint32_t n, uint32_t space) noexcept {
  uint32_t listed = 0;
  const Status status = reserve_frames<uint32_t>(c, n, kNoIndex, space, nullptr, &listed);
  if (status == Status::kOk) frame_class(c).pool->unreserve(n);
  return status;
}

// busy: another call may have some in its hands.
Status Cache::refuse_frames(FrameClass c, uint32_t n, bool busy) noexcept {
  FrameClassView f = frame_class(c);
  const char *const what = c == FrameClass::kSealed ? "sealed" : "open";
  const uint32_t available = f.pool->available();
  const uint64_t coming = uint64_t{available} + f.limbo->count();
  if (n <= f.pool->capacity() && coming >= n) {
    streams_->need();
    tables_->stats.add(Counter::alloc_again_total);
    return set_error(Status::kAgain, "%u %s frames: %u are in limbo, until readers have passed", n,
                     what, f.limbo->count());
  }
  if (busy) {
    tables_->stats.add(Counter::alloc_again_total);
    return set_error(Status::kAgain, "%u %s frames: another call is evicting what there is", n,
                     what);
  }
  tables_->stats.add(Counter::alloc_nomem_total);
  return set_error(Status::kNomem, "%u %s frames: %u of %u are free, the others are in use", n,
                   what, available, f.pool->capacity());
}

// How many sealed frames evictions could free at this time, and no fewer, as far as others leave
// what they hold alone meanwhile: those in use, less private pages and the chains that leases hold.
// Costs the live leases and the pages that they pin.
uint64_t Cache::at_most_evictable() noexcept {
  const Tables &t = *tables_;
  const uint32_t capacity = t.pages.capacity();
  // Added in this order, private pages are never counted as more than they are.
  uint64_t held = t.stats.total(Counter::pages_allocated_total);
  const uint64_t gone =
      t.stats.total(Counter::pages_freed_total) + t.stats.total(Counter::pages_published_total);
  // Where there are open frames, private pages may hold none of these.
  held = config_.has_open || held < gone ? 0 : held - gone;
  HeapVector<uint64_t> seen(*heap_);
  const bool sees = seen.try_resize((capacity + 63) / 64);
  Handle lease;
  for (uint32_t from = 0; sees && t.leases.next(from, &lease); from = lease.index + 1) {
    const LeaseSlot &slot = t.leases.slot(lease.index);
    const uint32_t tail = slot.tail.load(std::memory_order_relaxed);
    uint64_t chain = 0;
    for (uint32_t page = tail; page < capacity; ++chain) {
      uint64_t &word = seen[page / 64];
      const uint64_t bit = uint64_t{1} << (page % 64);
      if ((word & bit) != 0) break;
      word |= bit;
      page = t.pages[page].parent.load(std::memory_order_relaxed);
    }
    // Still on the same page: then it has held what we walked over all the time.
    const bool still = t.leases.holds(lease) && slot.tail.load(std::memory_order_relaxed) == tail;
    if (still) held += chain;
  }
  const uint64_t used = t.frame_pool.capacity() - t.frame_pool.available();
  held += t.limbo.count();
  return used > held ? used - held : 0;
}

// What only this stream may still read it may have at once: its own work is in order. `keep` frames
// are left, here and in the pool, to those who came before.
template <class T>
bool Cache::take_from_limbo(FrameClass c, uint32_t n, uint32_t stream_slot, uint64_t keep,
                            T *frames, uint32_t *listed) noexcept {
  FrameClassView f = frame_class(c);
  if (uint64_t{f.pool->available()} + f.limbo->count() < n + keep) return false;
  const auto free = [this, c](const uint32_t *some, size_t m) { give_back(c, some, m); };
  const auto push = [&](T frame, uint64_t epoch) {
    f.limbo->push(static_cast<uint32_t>(frame), epoch, free);
  };
  // The others have passed this epoch, and all that take() gives retired by then.
  const uint64_t epoch = streams_->min_passed_except(stream_slot);
  uint32_t got = f.limbo->take(n, epoch, frames, free);
  const uint32_t taken = got;
  // A frame that must be zeroed first is zeroed by the host, behind its last reader: it waits.
  for (uint32_t i = 0; i < got;) {
    if ((f.flags[frames[i]].load(std::memory_order_relaxed) & kFrameZero) != 0) {
      push(frames[i], epoch);
      frames[i] = frames[--got];
    } else {
      ++i;
    }
  }
  const bool enough = got == n || (got > 0 && f.pool->reserve(n - got, keep));
  for (uint32_t i = 0; i < got && !enough; ++i) push(frames[i], epoch);
  // Later, perhaps, than what was asked for when they retired.
  if (taken > 0 && (!enough || got < taken)) streams_->want(epoch);
  *listed = enough ? got : 0;
  return enough;
}

// ---- giving them back

void Cache::retire_frames(FrameClass c, const uint32_t *frames, uint32_t n, uint64_t epoch,
                          bool zero) noexcept {
  if (n == 0) return;
  FrameClassView f = frame_class(c);
  tables_->stats.add(Counter::frames_retired_total, n);
  for (uint32_t i = 0; i < n && zero; ++i) {
    // relaxed: the pool's or limbo's release, which follows, publishes it.
    f.flags[frames[i]].store(kFrameZero, std::memory_order_relaxed);
  }
  if (epoch <= streams_->min_passed()) {
    give_back(c, frames, n);
    return;
  }
  const auto free = [this, c](const uint32_t *some, size_t m) { give_back(c, some, m); };
  for (uint32_t i = 0; i < n; ++i) f.limbo->push(frames[i], epoch, free);
  tables_->stats.add(Counter::frames_limbo_total, n);
  streams_->want(epoch);
}

// Frames whose readers have all passed go to the pool, zeroed where that was asked for: at once, or
// by way of limbo, with the stream that zeroes them as the last reader.
void Cache::give_back(FrameClass c, const uint32_t *frames, size_t n) noexcept {
  FrameClassView f = frame_class(c);
  const auto dirty = [&f](uint32_t frame) {
    return (f.flags[frame].load(std::memory_order_relaxed) & kFrameZero) != 0;
  };
  const uint32_t *const end = std::find_if(frames, frames + n, dirty);
  f.pool->free(frames, static_cast<size_t>(end - frames));
  for (size_t done = static_cast<size_t>(end - frames); done < n; done += kMostPages) {
    uint32_t zero[kMostPages];
    uint32_t clean[kMostPages];
    uint32_t n_zero = 0, n_clean = 0;
    for (size_t i = done; i < std::min(n, done + kMostPages); ++i) {
      (dirty(frames[i]) ? zero[n_zero++] : clean[n_clean++]) = frames[i];
    }
    f.pool->free(clean, n_clean);
    zero_frames(c, zero, n_zero);
  }
}

void Cache::zero_frames(FrameClass c, const uint32_t *frames, uint32_t n) noexcept {
  if (n == 0) return;
  FrameClassView f = frame_class(c);
  const bool open = c == FrameClass::kOpen;
  const kernels::Frames views = kernel_frames();
  const Status status = kernels_->zero_pages(open, open ? views.open : views.sealed, frames, n);
  const bool enqueued = status == Status::kAgain;
  for (uint32_t i = 0; i < n && (enqueued || status == Status::kOk); ++i) {
    f.flags[frames[i]].store(0, std::memory_order_relaxed);
  }
  if (status == Status::kOk) {
    f.pool->free(frames, n);
    return;
  }
  // The stream that zeroes them is their last reader; after a failure it is tried again, in a later
  // epoch.
  if (!enqueued) tables_->stats.add(Counter::device_errors_total);
  const uint64_t epoch = clock_epoch() + (enqueued ? 0 : 1);
  const auto free = [this, c](const uint32_t *some, size_t m) { give_back(c, some, m); };
  for (uint32_t i = 0; i < n; ++i) f.limbo->push(frames[i], epoch, free);
  streams_->want(epoch);
}

// Frames from take_frames() that were not used. A stream may still read those that came from limbo.
void Cache::put_back(FrameClass c, const uint32_t *frames, uint32_t n) noexcept {
  const uint64_t epoch = clock_epoch();
  retire_frames(c, frames, n, epoch, false);
}

void Cache::drain_limbo() noexcept {
  const uint64_t passed = streams_->min_passed();
  tables_->limbo.drain(passed, [this](const uint32_t *frames, size_t n) {
    give_back(FrameClass::kSealed, frames, n);
  });
  tables_->open_limbo.drain(passed, [this](const uint32_t *frames, size_t n) {
    give_back(FrameClass::kOpen, frames, n);
  });
}

}  // namespace quire
