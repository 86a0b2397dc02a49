// The steps of StreamTable (runtime/stream_table.h), which says what they must be and why.
#ifndef QUIRE_RUNTIME_STREAM_TABLE_INL_H_
#define QUIRE_RUNTIME_STREAM_TABLE_INL_H_

#include "runtime/stream_table.h"

namespace quire {

template <class A, class O>
void StreamTable<A, O>::format() noexcept {
  new (header_) Header;
  for (auto *word : {&header_->wanted, &header_->recorded, &header_->failed, &header_->completed,
                     &header_->capturing}) {
    word->store(0, kRelaxed);
  }
  header_->used.store(0, kRelaxed);
  for (uint32_t i = 0; i < capacity_; ++i) {
    Slot *slot = new (&slot_[i]) Slot;
    for (auto *word : {&slot->state, &slot->claim, &slot->flags, &slot->rank}) {
      word->store(0, kRelaxed);
    }
    slot->stream.store(0, kRelaxed);
    slot->passed.store(UINT64_MAX, kRelaxed);
    slot->wanted.store(0, kRelaxed);
    for (uint32_t k = 0; k < kRing; ++k) {
      slot->event[k].store(0, kRelaxed);
      slot->tag[k].store(0, kRelaxed);
    }
  }
}

template <class A, class O>
void StreamTable<A, O>::close() noexcept {
  for (uint32_t i = 0; i < used(); ++i) {
    for (auto &event : slot_[i].event) {
      if (const Event e = event.exchange(0, kAcqRel); e != 0) device_->destroy_event(e);
    }
  }
}

// A slot in kAdding that holds the handle, or kInvalid if another slot has it.
template <class A, class O>
Status StreamTable<A, O>::take_slot(Stream stream, uint32_t *out) noexcept {
  // Asked first: where no slot is left, a stream that has one is told so all the same.
  if (find(stream) != kNone) return set_error(Status::kInvalid, "stream %p is registered", stream);
  uint32_t mine = kNone;
  for (uint32_t i = 0; i < capacity_ && mine == kNone; ++i) {
    uint32_t free = kFree;
    if (slot_[i].state.load(kRelaxed) != kFree) continue;
    raise_to(header_->used, i + 1, kAcqRel);
    if (slot_[i].state.compare_exchange_strong(free, kAdding, kAcquire, kRelaxed)) mine = i;
  }
  if (mine == kNone && (find(stream) != kNone)) {
    return set_error(Status::kInvalid, "stream %p is registered", stream);
  }
  if (mine == kNone) {
    return set_error(Status::kNomem, "all %u streams are registered (max_streams)", capacity_);
  }
  // Exchanges and adds, no loads: of two threads that add one handle, one's add comes before the
  // other's exchange of that slot; the exchange has read it, and so that thread sees the first one's.
  slot_[mine].stream.exchange(word_of(stream), kAcqRel);
  for (uint32_t i = 0; i < used(); ++i) {
    if (i == mine || slot_[i].stream.fetch_add(0, kAcqRel) != word_of(stream)) {
      continue;
    }
    const uint32_t state = slot_[i].state.load(kAcquire);
    if (state != kActive && state != kAdding) continue;  // A removed one may come back.
    free_slot(slot_[mine]);
    return set_error(Status::kInvalid, "stream %p is registered", stream);
  }
  *out = mine;
  return Status::kOk;
}

template <class A, class O>
void StreamTable<A, O>::free_slot(Slot &slot) noexcept {
  slot.stream.store(0, kRelaxed);
  // release, both: pages of the old writer are ready from here on; add() finds the slot clean.
  slot.passed.store(UINT64_MAX, kRelease);
  slot.state.store(kFree, kRelease);
}

template <class A, class O>
Status StreamTable<A, O>::add(Stream stream, uint32_t rank, uint32_t flags,
                              uint32_t *slot) noexcept {
  if (is_ambiguous_stream(stream)) {
    return set_error(Status::kInvalid, "stream %p names no definite queue", stream);
  }
  if (const Status s = device_->validate_stream(stream); s != Status::kOk) return s;
  uint32_t mine = kNone;
  if (const Status s = take_slot(stream, &mine); s != Status::kOk) return s;
  Slot &me = slot_[mine];
  // Events are made here, so that a step needs none: it has less that can fail.
  for (auto &word : me.event) {
    if (word.load(kRelaxed) != 0) continue;
    Event event = 0;
    if (const Status s = device_->create_event(&event); s != Status::kOk) {
      header_->failed.fetch_add(1, kRelaxed);
      free_slot(me);
      return s;
    }
    word.store(event, kRelease);
  }
  me.rank.store(rank, kRelaxed);
  me.flags.store(flags, kRelaxed);
  me.wanted.store(0, kRelaxed);
  // release: pairs with min_passed(). In this order: a reader that counts us has our `passed`.
  me.passed.store(clock_.advance(), kRelease);
  me.state.store(kActive, kRelease);
  *slot = mine;
  return Status::kOk;
}

template <class A, class O>
uint32_t StreamTable<A, O>::find(Stream stream) const noexcept {
  if (stream == nullptr) return kNone;
  for (uint32_t i = 0; i < used(); ++i) {
    if (slot_[i].stream.load(kRelaxed) != word_of(stream)) continue;
    if (slot_[i].state.load(kAcquire) == kActive) return i;
  }
  return kNone;
}

// The claim's holder is the only one that records on this stream.
template <class A, class O>
Status StreamTable<A, O>::record(Slot &slot, uint64_t epoch) noexcept {
  uint32_t at = kRing, youngest = 0;
  youngest_tag(slot, &youngest);
  for (uint32_t k = 0; k < kRing && at == kRing; ++k) {
    if (slot.tag[k].load(kRelaxed) == 0) at = k;
  }
  // All in flight: the youngest is put off, the others are not.
  if (at == kRing) at = youngest;
  const Status s = device_->record(slot.event[at].load(kAcquire), handle_of(slot));
  if (s != Status::kOk) {
    header_->failed.fetch_add(1, kRelaxed);
    return s;
  }
  header_->recorded.fetch_add(1, kRelaxed);
  // release: pairs with wait_for(): who sees the tag finds the event recorded.
  slot.tag[at].store(epoch, kRelease);
  return Status::kOk;
}

template <class A, class O>
uint64_t StreamTable<A, O>::youngest_tag(const Slot &slot, uint32_t *at) const noexcept {
  uint64_t most = 0;
  for (uint32_t k = 0; k < kRing; ++k) {
    const uint64_t tag = slot.tag[k].load(kRelaxed);
    if (tag <= most) continue;
    most = tag;
    *at = k;
  }
  return most;
}

template <class A, class O>
void StreamTable<A, O>::record_wanted(uint64_t epoch, bool only_background) noexcept {
  const uint64_t wanted_by_all = header_->wanted.load(kAcquire);
  for (uint32_t i = 0; i < used(); ++i) {
    Slot &slot = slot_[i];
    if (slot.state.load(kAcquire) != kActive) continue;
    if (only_background && (slot.flags.load(kRelaxed) & kBackground) == 0) continue;
    const uint64_t of_slot = slot.wanted.load(kAcquire);
    const uint64_t wanted = wanted_by_all > of_slot ? wanted_by_all : of_slot;
    uint32_t at = 0;
    if (wanted <= slot.passed.load(kRelaxed) || wanted <= youngest_tag(slot, &at)) continue;
    if (!try_claim(slot)) continue;  // Another step, or a removal, is at it.
    bool capturing = false;
    if (slot.state.load(kAcquire) == kActive && youngest_tag(slot, &at) < epoch) {
      const Status s = device_->is_capturing(handle_of(slot), &capturing);
      if (s != Status::kOk) {
        header_->failed.fetch_add(1, kRelaxed);
      } else if (capturing) {
        header_->capturing.fetch_add(1, kRelaxed);
      } else {
        static_cast<void>(record(slot, epoch));  // Counted; the next step tries again.
      }
    }
    unclaim(slot);
  }
}

template <class A, class O>
uint64_t StreamTable<A, O>::step(bool only_background) noexcept {
  if constexpr (O::kRecordFirst) {
    record_wanted(clock_.now(), only_background);
    return clock_.advance();
  } else {
    const uint64_t ended = clock_.advance();
    record_wanted(ended, only_background);
    return ended;
  }
}

// With the claim. Events of one stream complete in order of their records, but are asked one by
// one: a failed query of an old one does not hide a young one that is done.
template <class A, class O>
bool StreamTable<A, O>::poll_slot(Slot &slot) noexcept {
  bool moved = false;
  if (device_->lost()) {
    // Nothing runs there any more: whatever ended before now is passed.
    for (auto &tag : slot.tag) tag.store(0, kRelease);
    moved = raise_to(slot.passed, clock_.now() - 1, kAcqRel);
  }
  for (uint32_t k = 0; k < kRing; ++k) {
    const uint64_t tag = slot.tag[k].load(kRelaxed);
    if (tag == 0) continue;
    // A younger event that is done has spoken for this one.
    if (tag <= slot.passed.load(kRelaxed)) {
      slot.tag[k].store(0, kRelease);
      continue;
    }
    const Status s = device_->query(slot.event[k].load(kAcquire));
    if (s == Status::kAgain) continue;
    if (s != Status::kOk) {
      header_->failed.fetch_add(1, kRelaxed);
      continue;
    }
    header_->completed.fetch_add(1, kRelaxed);
    // release: pairs with min_passed(): the stream's reads and writes are done.
    moved |= raise_to(slot.passed, tag, kAcqRel);
    slot.tag[k].store(0, kRelease);
  }
  if (slot.state.load(kRelaxed) == kRemoving) {
    bool in_flight = false;
    for (auto &tag : slot.tag) in_flight |= tag.load(kRelaxed) != 0;
    if (!in_flight) {
      free_slot(slot);
      moved = true;
    }
  }
  return moved;
}

template <class A, class O>
uint32_t StreamTable<A, O>::poll() noexcept {
  uint32_t moved = 0;
  const bool lost = device_->lost();
  for (uint32_t i = 0; i < used(); ++i) {
    Slot &slot = slot_[i];
    const uint32_t state = slot.state.load(kAcquire);
    if (state != kActive && state != kRemoving) continue;
    uint32_t at = 0;
    if (state == kActive && !lost && youngest_tag(slot, &at) == 0) continue;
    if (!try_claim(slot)) continue;
    // Again under the claim: it may have become free, and even another stream, in between.
    const uint32_t present = slot.state.load(kAcquire);
    if (present == kActive || present == kRemoving) moved += poll_slot(slot) ? 1U : 0U;
    unclaim(slot);
  }
  return moved;
}

template <class A, class O>
Status StreamTable<A, O>::remove(Stream stream) noexcept {
  const uint32_t at = find(stream);
  if (at == kNone) return set_error(Status::kInvalid, "stream %p is not registered", stream);
  Slot &slot = slot_[at];
  if (!try_claim(slot)) {
    return set_error(Status::kBusy, "another thread is in step for stream %p", stream);
  }
  Status status = Status::kOk;
  bool capturing = false;
  if (slot.state.load(kAcquire) != kActive || handle_of(slot) != stream) {
    status = set_error(Status::kInvalid, "stream %p was removed meanwhile", stream);
  } else if (device_->lost()) {
    slot.state.store(kRemoving, kRelease);
    poll_slot(slot);  // Nothing is in flight on a lost device.
  } else if (status = device_->is_capturing(stream, &capturing); status != Status::kOk) {
    header_->failed.fetch_add(1, kRelaxed);
  } else if (capturing) {
    status = set_error(Status::kBusy, "stream %p is being captured", stream);
  } else if (status = record(slot, clock_.advance()); status == Status::kOk) {
    slot.state.store(kRemoving, kRelease);
    poll_slot(slot);  // An idle stream is gone at once.
  }
  unclaim(slot);
  return status;
}

template <class A, class O>
uint64_t StreamTable<A, O>::min_passed_except(uint32_t except) const noexcept {
  // The present epoch, read first: a stream that is added later has passed all before.
  uint64_t least = clock_.now();
  for (uint32_t i = 0; i < used(); ++i) {
    if (i == except) continue;
    const uint64_t passed = slot_[i].passed.load(kAcquire);
    if (passed < least) least = passed;
  }
  return least;
}

template <class A, class O>
Status StreamTable<A, O>::wait_for(uint32_t at, uint64_t epoch, Stream consumer) noexcept {
  Slot &slot = slot_[at];
  if (ready(at, epoch)) return Status::kOk;
  uint64_t best = UINT64_MAX;
  uint32_t chosen = kRing;
  for (uint32_t k = 0; k < kRing; ++k) {
    // acquire: pairs with record(): the event is recorded, for this epoch or a later one.
    const uint64_t tag = slot.tag[k].load(kAcquire);
    if (tag == 0 || tag < epoch || tag >= best) continue;
    best = tag;
    chosen = k;
  }
  if (chosen == kRing) {
    want_of(at, epoch);
    // Not asked twice: an event may have completed, and gone, between the two looks.
    return ready(at, epoch) ? Status::kOk : Status::kAgain;
  }
  const Status s = device_->stream_wait_event(consumer, slot.event[chosen].load(kAcquire));
  if (s != Status::kOk) header_->failed.fetch_add(1, kRelaxed);
  return s;
}

template <class A, class O>
uint32_t StreamTable<A, O>::readers() const noexcept {
  uint32_t n = 0;
  for (uint32_t i = 0; i < used(); ++i) n += slot_[i].state.load(kAcquire) != kFree ? 1U : 0U;
  return n;
}

template <class A, class O>
bool StreamTable<A, O>::registered() const noexcept {
  for (uint32_t i = 0; i < used(); ++i) {
    const uint32_t state = slot_[i].state.load(kAcquire);
    if (state == kActive || state == kAdding) return true;
  }
  return false;
}

template <class A, class O>
SlowestReader StreamTable<A, O>::slowest() const noexcept {
  SlowestReader slowest;
  const uint64_t ended = clock_.now() - 1;
  const uint64_t wanted = header_->wanted.load(kAcquire);
  for (uint32_t i = 0; i < used(); ++i) {
    const Slot &slot = slot_[i];
    const uint32_t state = slot.state.load(kAcquire);
    if (state != kActive && state != kRemoving) continue;
    const uint64_t passed = slot.passed.load(kAcquire);
    if (slowest.slot != kNone && passed >= slowest.passed) continue;
    const uint64_t of_slot = slot.wanted.load(kRelaxed);
    slowest = {i,
               handle_of(slot),
               passed,
               ended > passed ? ended - passed : 0,
               state == kRemoving,
               wanted > passed || of_slot > passed};
  }
  return slowest;
}

template <class A, class O>
StreamCounts StreamTable<A, O>::counts() const noexcept {
  return {header_->recorded.load(kRelaxed), header_->failed.load(kRelaxed),
          header_->completed.load(kRelaxed), header_->capturing.load(kRelaxed)};
}

template <class A, class O>
bool StreamTable<A, O>::validate() const noexcept {
  const uint64_t now = clock_.now();
  for (uint32_t i = 0; i < capacity_; ++i) {
    const Slot &slot = slot_[i];
    const uint32_t state = slot.state.load(kAcquire);
    if (slot.claim.load(kAcquire) != 0 || state == kAdding || (state != kFree && i >= used())) {
      return false;
    }
    const uint64_t passed = slot.passed.load(kAcquire);
    if (state == kFree ? passed != UINT64_MAX : passed >= now) return false;
    for (const auto &word : slot.tag) {
      const uint64_t tag = word.load(kAcquire);
      if (tag != 0 && (state == kFree || tag >= now)) return false;
    }
    for (uint32_t k = 0; k < i && state == kActive; ++k) {
      if (slot_[k].state.load(kAcquire) == kActive && handle_of(slot_[k]) == handle_of(slot)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace quire

#endif  // QUIRE_RUNTIME_STREAM_TABLE_INL_H_
