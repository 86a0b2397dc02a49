// Namespaces: what they may have (quota), what others leave them (floor), and what is theirs.
//
// QUOTA. A bound on the published pages of a namespace. Publish takes room for its pages before it
// makes them visible (begin_pages) and gives back what it did not use (end_pages). A namespace without
// room evicts its own: what has died, then its oldest. So a tenant that floods competes with itself,
// and what it cannot make room for stays private.
//
// FLOOR. Pages of a namespace that evictions for others leave alone. Floors are promised out of the
// frames that there are: their sum never exceeds these. When nothing else is left to evict, a call
// replaces pages of the namespace that it is made for, whose floor is for others; without one, or
// with none of its own to give, it is refused (QUIRE_E_NOMEM). So floors never bring a tenant that
// has one to a stop, and one that has none never costs it a page. TTL, quire_evict and the
// namespace's own quota go below its floor.
//
// Private pages count for neither: until they are published they are of no namespace.
//
// The two counts by which both are exact: runtime/namespace_table.h. What the reclaimer does about
// floors: runtime/reclaimer_spaces_inl.h.
//
// Thread class: any thread, any time; settings of one namespace exclude each other (kBusy). Cost: one
// word of the namespace a publish, two with its pages; where the quota is full, a scan of all pages a
// sixteenth of the quota.
#include <algorithm>

#include "runtime/cache.h"

namespace quire {

void describe_namespace(const Tables &tables, uint32_t number,
                        quire_namespace_record *out) noexcept {
  const NamespaceTable &spaces = tables.spaces;
  const auto &d = spaces.table()[number];
  out->number = number;
  out->zero = spaces.zero(number) ? 1 : 0;
  out->root =
      quire_key{d.key_lo.load(std::memory_order_relaxed), d.key_hi.load(std::memory_order_relaxed)};
  out->quota = spaces.quota(number);
  out->floor = spaces.floor(number);
  out->pages = spaces.pages(number);
}

bool next_namespace(const Tables &tables, uint32_t *at, quire_namespace_record *out) noexcept {
  const NamespaceTable &spaces = tables.spaces;
  for (uint32_t number = *at; number < spaces.capacity(); ++number) {
    if (spaces.table().view(number).state != PageState::kVisible) continue;
    describe_namespace(tables, number, out);
    *at = number + 1;
    return true;
  }
  *at = 0;
  return false;
}

// ---- settings

// Takes the floor into the sum of all, in place of the former one, if the frames suffice. The caller
// changes the namespace's settings.
bool Cache::set_floor(uint32_t number, uint32_t floor) noexcept {
  const uint32_t former = tables_->spaces.floor(number);
  uint64_t sum = floors_.load(std::memory_order_relaxed);
  do {
    if (floor > former && sum - former + floor > config_.shape.frames) return false;
    // relaxed: a sum that orders nothing.
  } while (!floors_.compare_exchange_weak(sum, sum - former + floor, std::memory_order_relaxed,
                                          std::memory_order_relaxed));
  return true;
}

Status Cache::namespace_set(Key root, const quire_namespace &settings) noexcept {
  if (settings.zero > 1) return set_error(Status::kInvalid, "zero: 0 or 1 is wanted");
  if (settings.quota != 0 && settings.floor > settings.quota) {
    return set_error(Status::kInvalid, "a floor of %llu pages above a quota of %llu",
                     static_cast<unsigned long long>(settings.floor),
                     static_cast<unsigned long long>(settings.quota));
  }
  if (settings.zero != 0) {
    if (const Status s = watch_zero_stream(); s != Status::kOk) return s;
  }
  NamespaceTable &spaces = tables_->spaces;
  Namespace space;
  if (const Status s = spaces.enter(root, &space); s != Status::kOk) return s;
  Status status = spaces.begin_settings(space.number);
  if (status == Status::kOk) {
    // A quota that no cache can reach is as good as the greatest that is kept.
    const auto quota = static_cast<uint32_t>(std::min<uint64_t>(settings.quota, UINT32_MAX));
    const auto floor = static_cast<uint32_t>(std::min<uint64_t>(settings.floor, UINT32_MAX));
    if (floor != 0) reclaimer_->guard_floors();
    if (set_floor(space.number, floor)) {
      if (settings.zero != 0) zeroing_.store(true, std::memory_order_relaxed);
      spaces.set_zero(space.number, settings.zero != 0);
      spaces.set_limits(space.number, quota, floor);
    } else {
      status = set_error(Status::kNomem, "floors of %llu pages with this one, of %u frames",
                         static_cast<unsigned long long>(floors_.load(std::memory_order_relaxed)) +
                             floor - spaces.floor(space.number),
                         config_.shape.frames);
    }
    spaces.end_settings(space.number);
    const uint64_t claimed = spaces.claimed(space.number);
    if (status == Status::kOk && quota != 0 && claimed > quota) {
      reclaim_own(space.number, static_cast<uint32_t>(claimed - quota), EvictReason::kQuota);
    }
  }
  spaces.leave(space.number);
  return status;
}

void Cache::namespace_get(Key root, quire_namespace_record *out) noexcept {
  Namespace space;
  if (tables_->spaces.find(root, &space)) {
    describe_namespace(*tables_, space.number, out);
  } else {
    out->root = quire_key{root.lo, root.hi};
  }
}

uint32_t Cache::space_of(const LeaseSlot &slot) const noexcept {
  if (floors_.load(std::memory_order_relaxed) == 0) return kNoIndex;
  const uint32_t known = tables_->spaces.number_of(slot.space.load(std::memory_order_relaxed));
  const uint32_t tail = slot.tail.load(std::memory_order_relaxed);
  if (known != kNoIndex || tail == kNoIndex) return known;
  return tables_->pages[tail].space.load(std::memory_order_relaxed);
}

Status Cache::evict_namespace(Key root) noexcept {
  Namespace space;
  bool busy = false;
  if (!tables_->spaces.enter_existing(root, &space, &busy)) {
    if (!busy) return Status::kOk;
    return set_error(Status::kBusy, "too many calls are inside this namespace");
  }
  tables_->spaces.bump(space.number);
  tables_->spaces.leave(space.number);
  reclaimer_->note_dead();
  if (thread_.running()) thread_.wake();
  return Status::kOk;
}

uint32_t Cache::space_of(Key root) const noexcept {
  if (floors_.load(std::memory_order_relaxed) == 0) return kNoIndex;
  return tables_->spaces.number_of(tables_->spaces.name_of(root));
}

// ---- pages that come

// Before n calls of publish_page(): room for so many pages in their namespace, counted once, or as
// much as its quota leaves. Then it gives up pages of its own: the dead, then the oldest, and a
// sixteenth of the quota more, since each such call looks at all pages of the cache.
uint32_t Cache::begin_pages(const Namespace &space, uint32_t n) noexcept {
  NamespaceTable &spaces = tables_->spaces;
  uint32_t room = spaces.claim(space.number, n);
  if (room == n) return room;
  if (const uint64_t now = now_ms(); reclaimer_->expiry_due(now)) {
    reclaimer_->expire(now);
    room += spaces.claim(space.number, n - room);
  }
  const uint32_t quota = spaces.quota(space.number);
  if (room == n || quota == 0) return room + spaces.claim(space.number, n - room);
  const uint64_t over = spaces.claimed(space.number) + (n - room);
  // What is there beyond the quota, and what is to come; no more than a whole quota of it can stay.
  const uint64_t wanted = std::min<uint64_t>(over > quota ? over - quota : 0, over) + quota / 16;
  reclaim_own(space.number, static_cast<uint32_t>(std::min<uint64_t>(wanted, UINT32_MAX)),
              EvictReason::kQuota);
  return room + spaces.claim(space.number, n - room);
}

// After them: of the pages that there was room for, `published` stand in the chain, `duplicate` of
// them somebody else's.
void Cache::end_pages(const Namespace &space, uint32_t room, uint32_t published,
                      uint32_t duplicate) noexcept {
  const uint32_t inserted = published - duplicate;
  tables_->spaces.add_pages(space.number, inserted);
  tables_->spaces.unclaim(space.number, room - inserted);
  if (inserted != 0) tables_->stats.add(Counter::pages_published_total, inserted);
  if (duplicate != 0) tables_->stats.add(Counter::pages_duplicate_total, duplicate);
}

void Cache::count_unpublished(bool room, uint32_t n) noexcept {
  tables_->stats.add(room ? Counter::pages_unindexed_total : Counter::pages_over_quota_total, n);
}

// ---- pages that go

// Victims of one namespace follow one another more often than not: each run is counted at once.
void Cache::drop_from_spaces(const EvictBatch &batch) noexcept {
  for (uint32_t i = 0; i < batch.n;) {
    const uint32_t space = batch.space[i];
    uint32_t run = 0, taken = 0;
    for (; i < batch.n && batch.space[i] == space; ++i, ++run) taken += batch.taken[i] ? 1 : 0;
    tables_->spaces.drop_pages(space, run, taken);
  }
}

Take Cache::take(uint32_t space, bool own) noexcept {
  NamespaceTable &spaces = tables_->spaces;
  if (spaces.floor(space) == 0) return Take::kFree;
  if (spaces.take_page(space, own)) return Take::kTaken;
  // None is counted that others have not taken: of its own it may go uncounted for a moment.
  return own ? Take::kFree : Take::kKept;
}

void Cache::untake(uint32_t space) noexcept {
  tables_->spaces.add_pages(space, 1);
}

bool Cache::shield(Shield *out) noexcept {
  return tables_->spaces.shield(out);
}

bool Cache::is_shielded(uint32_t page) noexcept {
  return tables_->spaces.at_floor(tables_->pages[page].space.load(std::memory_order_relaxed));
}

// Pages of a namespace that go for its own sake: its floor is for others.
uint32_t Cache::reclaim_own(uint32_t space, uint32_t pages, EvictReason reason) noexcept {
  const uint32_t evicted = reclaimer_->reclaim_space(space, pages, reason);
  count_scans();
  return evicted;
}

}  // namespace quire
