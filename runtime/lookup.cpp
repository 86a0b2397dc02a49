// Lookup: match, acquire and the life of a lease.
//
// Acquire, step by step. Keys of a prefix are present in the index as a run from its start (a child
// is never there without its parent), so the length of the hit is found by search; the last page is
// pinned, which holds the whole chain; what cannot be read is then cut off from the end:
//
//   1. n    = length of the run of present, live keys          O(log n) probes; a child never outlives its parent
//   2. tail = pin(key[n - 1]); an eviction in between shortens n and tries again
//   3. while tail's writer has not passed (runtime/stream_table.h): make the caller's stream wait
//      for it, or cut: pin the parent, unpin the tail. The walk ends at the first ready page that
//      is not marked as published behind one that was not (runtime/publish.cpp): all above it is
//      ready
//   4. compare token ids, where the cache keeps them; cut before the first that differs
//   5. read the pages off the chain, from the pinned one upwards, where the caller asked for them
//
// A hit is linearised at the load that validated the pin of step 2 (runtime/prefix_index.h).
#include <algorithm>
#include <cstring>

#include "runtime/cache.h"

namespace quire {
namespace {

// As far as signed milliseconds go: "remaining" is one.
uint64_t deadline_after(uint64_t now_ms, uint64_t ms) noexcept {
  constexpr auto kLatest = static_cast<uint64_t>(INT64_MAX) - 1;
  return now_ms >= kLatest || ms > kLatest - now_ms ? kLatest : now_ms + ms;
}

}  // namespace

Alive Cache::alive() const noexcept {
  return Alive{&tables_->pages, &tables_->spaces, Alive::kUnread, config_.values.clock,
               config_.values.clock_user};
}

Status Cache::match(const quire_prefix &prefix, quire_hit *hit) noexcept {
  Tables &t = *tables_;
  t.stats.add(Counter::matches_total);
  const auto n = static_cast<uint32_t>(t.index.match(to_keys(prefix.keys), prefix.n, alive()));
  hit->pages = n;
  hit->on_device = n;
  hit->on_host = 0;
  return Status::kOk;
}

// The last page of the longest live run, pinned; *n is shortened to what could be pinned.
Status Cache::pin_tail(const Key *keys, uint32_t *n, uint32_t *tail) noexcept {
  Tables &t = *tables_;
  const Alive alive = this->alive();
  *tail = kNoIndex;
  for (;;) {
    *n = static_cast<uint32_t>(t.index.match<true>(keys, *n, alive));
    if (*n == 0) return Status::kOk;
    bool busy = false;
    *tail = t.index.find_and_pin(keys[*n - 1], alive, &busy);
    if (*tail != kNoIndex) return Status::kOk;
    if (busy) {
      return set_error(Status::kBusy,
                       "page %u of the prefix is held by as many leases as it can count", *n - 1);
    }
    --*n;  // evicted since
  }
}

// Gives the pin of *tail up for one on its parent, or for none. A page whose child is pinned is
// visible, and stays so.
void Cache::cut_tail(uint32_t *tail) noexcept {
  const uint32_t child = *tail;
  const uint32_t parent = tables_->pages[child].parent.load(std::memory_order_relaxed);
  if (parent != kNoIndex && tables_->pages.add_ref(parent)) {
    *tail = parent;
  } else {
    *tail = kNoIndex;  // the first page; or a parent with too many leases: nothing is held then
  }
  drop_pin(child);
}

void Cache::cut_unready(uint32_t *tail, uint32_t *n, Stream stream, uint32_t stream_slot) noexcept {
  Tables &t = *tables_;
  uint32_t page = *tail;
  uint32_t below = 0;  // pages between the tail and `page`
  bool all_ready = true;
  while (page != kNoIndex) {
    PageDescriptor &d = t.pages[page];
    // acquire: pairs with the release below: what the writer wrote is there for us, too.
    const uint16_t writer = d.writer.load(std::memory_order_acquire);
    const uint32_t slot = writer - 1u;
    const uint64_t epoch = t.clock.widen(d.ready_epoch.load(std::memory_order_relaxed));
    // No page was published in the future: such an epoch is so old that its half word has wrapped.
    if (writer == 0 || epoch > t.clock.now() || streams_->ready(slot, epoch)) {
      // Ready for good; so a page that is used is asked once, and never in its old age.
      if (writer != 0) d.writer.store(0, std::memory_order_release);
      if ((d.flags.load(std::memory_order_relaxed) & kPageBehind) == 0) break;
      page = d.parent.load(std::memory_order_relaxed);
      ++below;
      continue;
    }
    all_ready = false;
    bool waits = slot == stream_slot;
    if (!waits && stream != nullptr && streams_->wait_for(slot, epoch, stream) == Status::kOk) {
      t.stats.add(Counter::stream_waits_total);
      waits = true;
    }
    if (waits) {
      // The wait covers this page; those above may have another writer.
      page = d.parent.load(std::memory_order_relaxed);
      ++below;
      continue;
    }
    t.stats.add(Counter::not_ready_cuts_total);
    const uint32_t up_to = *n - below - 1;
    while (*n > up_to && *tail != kNoIndex) {
      cut_tail(tail);
      --*n;
    }
    if (*tail == kNoIndex) *n = 0;
    page = *tail;
    below = 0;
  }
  // What is ready stays so: the next hit that ends here need not look above.
  if (all_ready && *tail != kNoIndex &&
      (t.pages[*tail].flags.load(std::memory_order_relaxed) & kPageBehind) != 0) {
    t.pages[*tail].flags.fetch_and(static_cast<uint16_t>(~kPageBehind), std::memory_order_release);
  }
}

void Cache::cut_mismatch(const quire_prefix &prefix, uint32_t *tail, uint32_t *n) noexcept {
  Tables &t = *tables_;
  const uint32_t words = config_.page_tokens();
  uint32_t page = *tail;
  uint32_t good = *n;
  for (uint32_t i = *n; i-- > 0;) {
    const std::atomic<uint32_t> *have = t.tokens + size_t{page} * words;
    const uint32_t *asked = prefix.tokens + size_t{i} * words;
    for (uint32_t w = 0; w < words; ++w) {
      if (have[w].load(std::memory_order_relaxed) == asked[w]) continue;
      good = i;
      break;
    }
    page = t.pages[page].parent.load(std::memory_order_relaxed);
  }
  if (good < *n) t.stats.add(Counter::token_mismatches_total);
  while (*n > good && *tail != kNoIndex) {
    cut_tail(tail);
    --*n;
  }
  if (*tail == kNoIndex) *n = 0;
}

Status Cache::acquire(const quire_prefix &prefix, const quire_acquire_options &options,
                      quire_page *pages, quire_hit *hit, quire_lease *lease) noexcept {
  Tables &t = *tables_;
  uint32_t stream_slot = kNoIndex;
  if (const Status s = find_stream(options.stream, &stream_slot); s != Status::kOk) return s;
  if (options.tier != QUIRE_TIER_DEVICE) {
    return set_error(Status::kUnsupported,
                     "acquire in tier %u: this version has the device tier only", options.tier);
  }
  Handle handle;
  if (const Status s = t.leases.open(&handle); s != Status::kOk) return s;
  const Key *const keys = to_keys(prefix.keys);
  uint32_t n = options.max_pages == 0 ? prefix.n : std::min(prefix.n, options.max_pages);
  uint32_t tail = kNoIndex;
  if (const Status s = pin_tail(keys, &n, &tail); s != Status::kOk) {
    t.leases.close(handle.index);
    return s;
  }
  // A hit is a chain from its first page on: what follows walks it by parents, n steps.
  if (n > 0 && t.pages[tail].depth.load(std::memory_order_relaxed) != n - 1) {
    t.pages.unpin(tail);  // no touch: a call that fails changes nothing
    clear_lease(t.leases.slot(handle.index));
    t.leases.close(handle.index);
    return set_error(Status::kInvalid, "prefix.keys is no chain: key %u is of another place in one",
                     n - 1);
  }
  if (n > 0) cut_unready(&tail, &n, options.stream, stream_slot);
  if (n > 0 && t.tokens != nullptr) cut_mismatch(prefix, &tail, &n);
  if (pages != nullptr) {
    write_chain(keys, tail, n, pages);
    std::fill(pages + n, pages + prefix.n, quire_page{0});
  }
  fill_lease(handle, options, tail, n);
  if (floors_.load(std::memory_order_relaxed) != 0) {
    t.leases.slot(handle.index)
        .space.store(t.spaces.name_of(to_key(prefix.root)), std::memory_order_relaxed);
  }
  t.stats.add(Counter::acquires_total);
  t.stats.record(Histogram::chain_hit_pages, n);
  if (n > 0) {
    // Another holder may stamp the page with an epoch that began after we read the clock.
    const uint64_t now = clock_epoch();
    const uint64_t last = widen_epoch(now, t.pages.stamp(tail));
    t.stats.record(Histogram::reuse_gap_epochs, now > last ? now - last : 0);
  }
  t.stats.add(Counter::prefix_queries_total, uint64_t{prefix.n} * config_.page_tokens());
  t.stats.add(Counter::prefix_hits_total, uint64_t{n} * config_.page_tokens());
  if (hit != nullptr) {
    hit->pages = n;
    hit->on_device = n;
    hit->on_host = 0;
  }
  *lease = pack_handle(HandleKind::kLease, tag_, handle);
  t.leases.leave(handle.index);
  return Status::kOk;
}

// Page handles of a pinned chain: a link has the generation where a handle has it.
void Cache::write_chain(const Key *keys, uint32_t tail, uint32_t n, quire_page *pages) noexcept {
  if (n == 0) return;
  constexpr uint64_t kGenerations = ~uint64_t{UINT32_MAX};
  const uint64_t tag = pack_handle(HandleKind::kPage, tag_, Handle{0, 0});
  tables_->index.chain(keys, n, tail, [tag, pages](size_t i, uint32_t page, uint64_t link) {
    pages[i] = tag | (link & kGenerations) | page;
  });
}

void Cache::fill_lease(Handle handle, const quire_acquire_options &options, uint32_t tail,
                       uint32_t n) noexcept {
  LeaseSlot &slot = tables_->leases.slot(handle.index);
  clear_lease(slot);
  slot.tail.store(tail, std::memory_order_relaxed);
  slot.pages.store(n, std::memory_order_relaxed);
  slot.owner.store(options.owner, std::memory_order_relaxed);
  slot.flags.store(options.flags, std::memory_order_relaxed);
  const uint64_t taken = options.deadline_ms == 0 ? coarse_ms() : now_ms();
  slot.taken_ms.store(taken, std::memory_order_relaxed);
  if (options.deadline_ms != 0) set_deadline(slot, deadline_after(taken, options.deadline_ms));
}

void Cache::set_deadline(LeaseSlot &slot, uint64_t deadline_ms) noexcept {
  slot.deadline_ms.store(deadline_ms, std::memory_order_relaxed);
  if ((slot.flags.load(std::memory_order_relaxed) & kLeaseLate) != 0) {
    slot.flags.fetch_and(~kLeaseLate, std::memory_order_relaxed);
  }
  // The sweep for late leases runs when the earliest deadline has passed; ours may be earlier.
  uint64_t earliest = earliest_deadline_.load(std::memory_order_relaxed);
  // release: pairs with the exchange in sweep_leases(): a sweep that takes this away sees the
  // lease.
  while (deadline_ms != 0 && deadline_ms < earliest &&
         !earliest_deadline_.compare_exchange_weak(earliest, deadline_ms, std::memory_order_release,
                                                   std::memory_order_relaxed)) {
  }
}

Status Cache::find_lease(quire_lease lease, Handle *out) const noexcept {
  if (unpack_handle(HandleKind::kLease, tag_, lease, out)) return Status::kOk;
  return set_error(Status::kStale, "lease %016llx is none of this cache",
                   static_cast<unsigned long long>(lease));
}

Status Cache::enter_lease(quire_lease lease, Handle *out) noexcept {
  if (const Status s = find_lease(lease, out); s != Status::kOk) return s;
  return tables_->leases.enter(*out);
}

Status Cache::enter_own_lease(quire_lease lease, Handle *out) noexcept {
  if (const Status s = enter_lease(lease, out); s != Status::kOk) return s;
  LeaseSlot &slot = tables_->leases.slot(out->index);
  if ((slot.flags.load(std::memory_order_relaxed) & kLeaseOfSequence) == 0) return Status::kOk;
  tables_->leases.leave(out->index);
  return set_error(Status::kInvalid, "this lease belongs to a sequence, and ends with it");
}

Status Cache::release(quire_lease lease, const quire_retention *retention) noexcept {
  if (const Status s = check_retention(retention, false); s != Status::kOk) return s;
  Handle handle;
  if (const Status s = enter_own_lease(lease, &handle); s != Status::kOk) return s;
  return end_lease(handle, retention);
}

Status Cache::release_owned(quire_lease lease, const quire_retention *retention) noexcept {
  Handle handle;
  if (const Status s = enter_lease(lease, &handle); s != Status::kOk) return s;
  return end_lease(handle, retention);
}

// By who is inside; who is outside again where this fails.
Status Cache::end_lease(Handle handle, const quire_retention *retention) noexcept {
  LeaseSlot &slot = tables_->leases.slot(handle.index);
  if (const Status s = free_private_pages(slot); s != Status::kOk) {
    tables_->leases.leave(handle.index);
    return s;
  }
  const uint32_t tail = slot.tail.load(std::memory_order_relaxed);
  if (tail != kNoIndex) {
    if (retention != nullptr) retain(tail, *retention);
    if (learner_) note_use(tail, slot.pages.load(std::memory_order_relaxed));
    drop_pin(tail);
  }
  // The next owner is live before it has filled the slot: a sweep then finds no deadline of ours.
  clear_lease(slot);
  tables_->leases.close(handle.index);
  tables_->stats.add(Counter::releases_total);
  return Status::kOk;
}

// The order is a promise (runtime/epoch_clock.h): the engine enqueued its reads before this call;
// the clock is read, the stamp raised, and only then the pin dropped.
void Cache::drop_pin(uint32_t page) noexcept {
  Tables &t = *tables_;
  t.pages.raise_stamp(page, static_cast<uint32_t>(t.clock.now()));
  t.pages.unpin(page);
}

Status Cache::clone(quire_lease lease, uint32_t pages, const quire_acquire_options &options,
                    quire_lease *out) noexcept {
  Handle handle;
  const Status status = clone_inside(lease, pages, options, &handle);
  if (status != Status::kOk) return status;
  *out = pack_handle(HandleKind::kLease, tag_, handle);
  tables_->leases.leave(handle.index);
  return Status::kOk;
}

void Cache::undo_clone(Handle clone) noexcept {
  LeaseSlot &slot = tables_->leases.slot(clone.index);
  const uint32_t tail = slot.tail.load(std::memory_order_relaxed);
  // No touch: nothing was read under this pin, and the lease that was cloned has one of its own.
  if (tail != kNoIndex) tables_->pages.unpin(tail);
  clear_lease(slot);
  tables_->leases.close(clone.index);
}

Status Cache::clone_inside(quire_lease lease, uint32_t pages, const quire_acquire_options &options,
                           Handle *out) noexcept {
  Tables &t = *tables_;
  Handle from;
  if (const Status s = enter_lease(lease, &from); s != Status::kOk) return s;
  const LeaseSlot &source = t.leases.slot(from.index);
  const uint32_t length = source.pages.load(std::memory_order_relaxed);
  const uint32_t n = pages == UINT32_MAX ? length : pages;
  Status status = Status::kOk;
  Handle handle;
  if (n > length) {
    status = set_error(Status::kInvalid, "a clone of %u pages of a chain of %u", n, length);
  } else {
    status = t.leases.open(&handle);
  }
  if (status == Status::kOk) {
    uint32_t tail = n == 0 ? kNoIndex : source.tail.load(std::memory_order_relaxed);
    for (uint32_t i = n; i < length && n > 0; ++i) {
      tail = t.pages[tail].parent.load(std::memory_order_relaxed);
    }
    if (tail != kNoIndex && !t.pages.add_ref(tail)) {
      t.leases.close(handle.index);
      status = set_error(Status::kBusy, "page %u is held by as many leases as it can count", tail);
    } else {
      fill_lease(handle, options, tail, n);
      t.leases.slot(handle.index)
          .space.store(source.space.load(std::memory_order_relaxed), std::memory_order_relaxed);
      *out = handle;
    }
  }
  t.leases.leave(from.index);
  return status;
}

// Lets go of the end of a chain: for sequences that roll back.
Status Cache::shorten(quire_lease lease, uint32_t pages) noexcept {
  Tables &t = *tables_;
  Handle handle;
  if (const Status s = enter_lease(lease, &handle); s != Status::kOk) return s;
  LeaseSlot &slot = t.leases.slot(handle.index);
  const uint32_t length = slot.pages.load(std::memory_order_relaxed);
  const uint32_t old_tail = slot.tail.load(std::memory_order_relaxed);
  uint32_t tail = pages == 0 ? kNoIndex : old_tail;
  for (uint32_t i = pages; i < length && pages > 0; ++i) {
    tail = t.pages[tail].parent.load(std::memory_order_relaxed);
  }
  Status status = Status::kOk;
  if (pages >= length) {
    if (pages > length)
      status = set_error(Status::kInvalid, "%u pages of a chain of %u", pages, length);
  } else if (tail != kNoIndex && !t.pages.add_ref(tail)) {
    status = set_error(Status::kBusy, "page %u is held by as many leases as it can count", tail);
  } else {
    slot.tail.store(tail, std::memory_order_relaxed);
    slot.pages.store(pages, std::memory_order_relaxed);
    drop_pin(old_tail);
  }
  t.leases.leave(handle.index);
  return status;
}

Status Cache::renew(quire_lease lease, uint64_t deadline_ms) noexcept {
  Handle handle;
  if (const Status s = enter_lease(lease, &handle); s != Status::kOk) return s;
  LeaseSlot &slot = tables_->leases.slot(handle.index);
  set_deadline(slot, deadline_ms == 0 ? 0 : deadline_after(now_ms(), deadline_ms));
  tables_->leases.leave(handle.index);
  return Status::kOk;
}

Status Cache::lease_info(quire_lease lease, quire_lease_record *out) noexcept {
  Handle handle;
  if (const Status s = find_lease(lease, &handle); s != Status::kOk) return s;
  if (!tables_->leases.holds(handle)) return set_error(Status::kStale, "this lease was released");
  describe_lease(*tables_, handle, tag_, now_ms(), out);
  if (!tables_->leases.holds(handle)) return set_error(Status::kStale, "this lease was released");
  return Status::kOk;
}

Status Cache::lease_next(quire_lease *lease) noexcept {
  Handle handle;
  uint32_t from = 0;
  if (*lease != 0) {
    if (const Status s = find_lease(*lease, &handle); s != Status::kOk) return s;
    if (handle.index >= tables_->leases.capacity()) {
      return set_error(Status::kStale, "lease %016llx never was one of this cache",
                       static_cast<unsigned long long>(*lease));
    }
    // Whether it was released since does not matter: its place is where the walk is.
    from = handle.index + 1;
  }
  const bool found = tables_->leases.next(from, &handle);
  *lease = found ? pack_handle(HandleKind::kLease, tag_, handle) : 0;
  return Status::kOk;
}

void describe_lease(const Tables &tables, Handle lease, uint32_t cache_tag, uint64_t now_ms,
                    quire_lease_record *out) noexcept {
  const LeaseSlot &slot = tables.leases.slot(lease.index);
  out->pages = slot.pages.load(std::memory_order_relaxed);
  out->private_pages = slot.private_pages.load(std::memory_order_relaxed);
  out->flags = slot.flags.load(std::memory_order_relaxed) & kLeaseFlags;
  out->owner = slot.owner.load(std::memory_order_relaxed);
  const uint64_t taken = slot.taken_ms.load(std::memory_order_relaxed);
  out->age_ms = now_ms > taken ? now_ms - taken : 0;
  const uint64_t deadline = slot.deadline_ms.load(std::memory_order_relaxed);
  out->remaining_ms =
      deadline == 0 ? INT64_MAX : static_cast<int64_t>(deadline) - static_cast<int64_t>(now_ms);
  const uint32_t tail = slot.tail.load(std::memory_order_relaxed);
  out->tail = 0;
  if (tail < tables.pages.capacity()) {
    out->tail =
        pack_handle(HandleKind::kPage, cache_tag, Handle{tail, tables.pages.generation(tail)});
  }
}

}  // namespace quire
