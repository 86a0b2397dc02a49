// The steps of BasicReclaimer by which it finds and evicts the oldest. runtime/reclaimer.h says what
// they must be and why.
#ifndef QUIRE_RUNTIME_RECLAIMER_INL_H_
#define QUIRE_RUNTIME_RECLAIMER_INL_H_

#include <algorithm>
#include <functional>
#include <type_traits>

#include "runtime/entry_sort.h"
#include "runtime/reclaimer.h"

namespace quire {

#define QUIRE_RECLAIMER(result)                 \
  template <class A, class Index, class Orders> \
  result BasicReclaimer<A, Index, Orders>

QUIRE_RECLAIMER()::BasicReclaimer(const Parts &parts, const PolicyTable &table) noexcept
    : parts_(parts), table_(table) {
  for (auto *word : {&owner_, &running_, &next_window_, &new_dead_, &guarded_})
    word->store(0, kRelaxed);
  given_back_.store(0, kRelaxed);
  for (auto *word : {&passes_, &scanned_, &helped_, &expired_ms_}) word->store(0, kRelaxed);
  for (auto &word : evicted_) word.store(0, kRelaxed);
  next_ms_.store(UINT64_MAX, kRelaxed);
  lifted_.store(parts_.clock.now(), kRelaxed);
  // Without memory for the swappable one, the copy serves until a set_policy() succeeds.
  policy_.set(table, parts_.clock);
  table_version_ = policy_.version();
}

// ---- Small containers -------------------------------------------------------------------------

QUIRE_RECLAIMER(bool)::Entries::reserve(size_t n) noexcept {
  if (n <= room) return true;
  size_t more = room < 64 ? 64 : room * 2;
  if (more < n) more = n;
  std::unique_ptr<Entry[]> bigger(new (std::nothrow) Entry[more]);
  if (!bigger) return false;
  std::copy(at.get(), at.get() + size, bigger.get());
  at = std::move(bigger);
  room = more;
  return true;
}

QUIRE_RECLAIMER(bool)::Entries::push(const Entry &entry) noexcept {
  if (!reserve(size + 1)) return false;
  at[size++] = entry;
  return true;
}

QUIRE_RECLAIMER(bool)::Picks::wants(uint64_t key) const noexcept {
  return size < kPicks || key < at[worst].key;
}

QUIRE_RECLAIMER(void)::Picks::offer(const Entry &entry) noexcept {
  if (size < kPicks) {
    at[size++] = entry;
  } else if (entry < at[worst]) {
    at[worst] = entry;
  } else {
    return;
  }
  worst = static_cast<uint32_t>(std::max_element(at, at + size) - at);
}

QUIRE_RECLAIMER(bool)::Picks::pop(Entry *out) noexcept {
  if (size == 0) return false;
  Entry *best = std::min_element(at, at + size);
  *out = *best;
  *best = at[--size];
  worst = size == 0 ? 0 : static_cast<uint32_t>(std::max_element(at, at + size) - at);
  return true;
}

// ---- Scanning ---------------------------------------------------------------------------------

// f(page, tag) for pages whose leaf hint is set.
template <class A, class Index, class Orders>
template <class F>
void BasicReclaimer<A, Index, Orders>::for_leaves(uint32_t begin, uint32_t end,
                                                  F &&f) const noexcept {
  const auto *tags = parts_.pages.tags();
  uint32_t page = begin;
  if constexpr (std::is_same_v<A, StdAtomics>) {
    // Eight tags a load. Every tag is written by an atomic of its own; a load that is torn between
    // them would still give each one as it was at some time.
    using Word [[gnu::may_alias]] = uint64_t;
    constexpr uint64_t kLeaves = 0x8080808080808080;
    for (; page % 8 == 0 && page + 8 <= end; page += 8) {
      const auto *word = reinterpret_cast<const Word *>(tags + page);
      uint64_t eight = __atomic_load_n(word, __ATOMIC_RELAXED);
      for (uint64_t leaves = eight & kLeaves; leaves != 0; leaves &= leaves - 1) {
        const auto bit = static_cast<uint32_t>(std::countr_zero(leaves)) & ~7u;
        f(page + bit / 8, static_cast<uint8_t>(eight >> bit));
      }
    }
  }
  for (; page < end; ++page) {
    const uint8_t tag = tags[page].load(kRelaxed);
    if ((tag & Pages::kLeafBit) != 0) f(page, tag);
  }
}

QUIRE_RECLAIMER(void)::count_chunk(const Scan &scan, uint32_t chunk) const noexcept {
  const uint32_t begin = chunk * kChunk;
  const uint32_t end = std::min(parts_.pages.capacity(), begin + kChunk);
  // Two of them, in turn: neighbours are often of one age, and adding to one word again at once
  // waits.
  Histogram other{};
  Histogram *const into[2] = {&scan.histogram[chunk], &other};
  uint32_t turn = 0;
  for_leaves(begin, end, [&](uint32_t page, uint8_t tag) {
    if (scan.shield != nullptr && shielded(*scan.shield, page)) return;
    ++into[turn ^= 1]->count[scan.order.rank(page, tag, parts_.pages.stamp(page))];
  });
  for (uint32_t r = 0; r < kAgeBuckets; ++r) scan.histogram[chunk].count[r] += other.count[r];
}

QUIRE_RECLAIMER(void)::collect_chunk(const Scan &scan, uint32_t chunk) const noexcept {
  const uint32_t begin = chunk * kChunk;
  const uint32_t end = std::min(parts_.pages.capacity(), begin + kChunk);
  size_t at = scan.begin[chunk];
  for_leaves(begin, end, [&](uint32_t page, uint8_t tag) {
    const uint32_t stamp = parts_.pages.stamp(page);
    const uint32_t rank = scan.order.rank(page, tag, stamp);
    if (scan.shield != nullptr && shielded(*scan.shield, page)) return;
    // Leaves that came since they were counted may find no room; a later scan has them.
    if (rank > scan.limit || at == scan.begin[chunk + 1]) return;
    scan.out[at++] = {scan.order.key(rank, stamp), page};
  });
  scan.filled[chunk] = at - scan.begin[chunk];
}

QUIRE_RECLAIMER(void)::run_chunks(uint32_t chunks, ScanRunner::Body body,
                                  Scan *scan) const noexcept {
  if (parts_.runner != nullptr && chunks > 1) {
    parts_.runner->run(chunks, body, scan);
  } else {
    for (uint32_t i = 0; i < chunks; ++i) body(scan, i);
  }
}

// Puts into sorted_ the leaves of the lowest ranks that have `want` of them, unordered and without
// depth. *leaves: all that there are. False without memory.
QUIRE_RECLAIMER(bool)::collect(uint64_t want, size_t *leaves) noexcept {
  const uint32_t n = chunks();
  std::unique_ptr<Histogram[]> histogram(new (std::nothrow) Histogram[n]());
  std::unique_ptr<size_t[]> places(new (std::nothrow) size_t[size_t{n} * 2 + 1]());
  if (!histogram || !places) return false;
  passes_.fetch_add(1, kRelaxed);
  scanned_.fetch_add(parts_.pages.capacity(), kRelaxed);
  size_t *begin = places.get(), *filled = begin + n + 1;
  Shield shield;
  const Shield *const passed_over = read_shield(&shield) ? &shield : nullptr;
  Scan scan{this,  order_of_queue(), kAgeBuckets - 1, histogram.get(), filled,
            begin, nullptr,          passed_over};
  run_chunks(
      n,
      [](void *s, uint32_t chunk) {
        const auto &shared = *static_cast<Scan *>(s);
        shared.self->count_chunk(shared, chunk);
      },
      &scan);

  uint64_t total = 0, up_to_limit = 0;
  for (uint32_t r = 0; r < kAgeBuckets; ++r) {
    for (uint32_t i = 0; i < n; ++i) total += histogram[i].count[r];
    if (up_to_limit < want) {
      up_to_limit = total;
      scan.limit = r;
    }
  }
  *leaves = total;
  if (up_to_limit < want) scan.limit = kAgeBuckets - 1;
  for (uint32_t i = 0; i < n; ++i) {
    begin[i + 1] = begin[i];
    for (uint32_t r = 0; r <= scan.limit; ++r) begin[i + 1] += histogram[i].count[r];
  }
  sorted_.size = 0;
  if (!sorted_.reserve(begin[n])) return false;
  scan.out = sorted_.at.get();
  run_chunks(
      n,
      [](void *s, uint32_t chunk) {
        const auto &shared = *static_cast<Scan *>(s);
        shared.self->collect_chunk(shared, chunk);
      },
      &scan);
  for (uint32_t i = 0; i < n; ++i) {
    Entry *from = scan.out + begin[i];
    std::copy(from, from + filled[i], scan.out + sorted_.size);
    sorted_.size += filled[i];
  }
  return true;
}

// Of what was collected, the first `want` and those of the same stamp as the last of these; of them
// what can be evicted now, with its depth, sorted. Sets the bound.
QUIRE_RECLAIMER(void)::keep_evictable(uint64_t want, bool all) noexcept {
  Entry *const first = sorted_.at.get();
  size_t size = sorted_.size;
  bound_ = UINT64_MAX;
  if (!all || want < size) {
    if (want < size) {
      std::nth_element(first, first + want - 1, first + size);
      bound_ = first[want - 1].key | kDeepest;
      size = static_cast<size_t>(std::partition(first + want, first + size,
                                                [&](const Entry &e) { return e.key <= bound_; }) -
                                 first);
    } else {
      bound_ = 0;
      for (size_t i = 0; i < size; ++i) bound_ = std::max(bound_, first[i].key | kDeepest);
    }
  }
  constexpr size_t kAhead = 16;
  size_t kept = 0;
  for (size_t i = 0; i < size; ++i) {
    if (i + kAhead < size) prefetch(&parts_.pages[first[i + kAhead].page]);
    const uint32_t page = first[i].page;
    const PageView view = parts_.pages.view(page);
    if (view.state != PageState::kVisible || view.ref != 0 || view.children != 0) continue;
    const uint64_t depth = Order::deepest_first(parts_.pages[page].depth.load(kRelaxed));
    first[kept++] = {first[i].key | depth, page};
  }
  sorted_.size = kept;
  sort_entries(first, spare_.reserve(kept) ? spare_.at.get() : nullptr, kept);
}

// ---- The queue --------------------------------------------------------------------------------

QUIRE_RECLAIMER(void)::clear_queue() noexcept {
  sorted_.size = heap_.size = cursor_ = 0;
  bound_ = left_ = 0;
}

// The table in force, where the queue's is another.
QUIRE_RECLAIMER(void)::take_table() noexcept {
  const uint32_t version = policy_.version();
  if (version == table_version_) return;
  if (policy_.copy(parts_.clock, &table_)) table_version_ = version;
  clear_queue();
}

// What of an earlier call's queue still holds; see THE QUEUE PERSISTS.
QUIRE_RECLAIMER(void)::begin_call() noexcept {
  if (table_.learned && left_ != 0) return;
  take_table();
  if (table_.age_only) {
    const Order order = order_of_queue();
    const uint64_t present = order.key(order.rank(0, 0, order.now), order.now);
    if (bound_ >= present) bound_ = present - 1;
  } else if (parts_.clock.now() != built_) {
    clear_queue();
  }
}

// False if nothing can be evicted, or there is no memory to find it.
QUIRE_RECLAIMER(bool)::refill(uint32_t want) noexcept {
  uint64_t target = std::max<uint64_t>(want, parts_.pages.capacity() / kShare);
  // Where most of the oldest are pinned, look further up.
  for (;; target *= 4) {
    clear_queue();
    built_ = parts_.clock.now();
    size_t leaves = 0;
    starved_ = !collect(target, &leaves);
    if (starved_) {
      clear_queue();
      return false;
    }
    const bool all = target >= leaves;
    keep_evictable(target, all);
    if (!all && sorted_.size < want) continue;
    left_ = table_.learned ? target : UINT64_MAX;
    return sorted_.size != 0;
  }
}

QUIRE_RECLAIMER(bool)::pop(Entry *out) noexcept {
  const Entry *next = cursor_ < sorted_.size ? &sorted_.at[cursor_] : nullptr;
  const bool from_heap = heap_.size != 0 && (next == nullptr || heap_.at[0] < *next);
  if (from_heap) next = &heap_.at[0];
  if (next == nullptr || next->key > bound_) return false;
  *out = *next;
  if (from_heap) {
    std::pop_heap(heap_.at.get(), heap_.at.get() + heap_.size, std::not_fn(std::less<Entry>()));
    --heap_.size;
  } else {
    ++cursor_;
    ask_for_next(std::min(climbed_, kClimb));
    climbed_ = 0;
  }
  return true;
}

QUIRE_RECLAIMER(void)::enter(const Entry &entry) noexcept {
  if (entry.key > bound_) return;
  if (!heap_.push(entry)) {
    clear_queue();  // A queue that lost one is no longer complete.
    return;
  }
  std::push_heap(heap_.at.get(), heap_.at.get() + heap_.size, std::not_fn(std::less<Entry>()));
}

// What an eviction writes: descriptor and bin are a miss each, and the bin is known by the key in
// the descriptor. So both are asked for ahead of time, the descriptor first.

QUIRE_RECLAIMER(void)::ask_for_bin(uint32_t page) const noexcept {
  const auto &d = parts_.pages[page];
  parts_.index.prefetch_for_insert(Key{d.key_lo.load(kRelaxed), d.key_hi.load(kRelaxed)});
}

// Up to `steps` pages up from `page`, by links: eight of a chain lie in one line. f(page) for each.
template <class A, class Index, class Orders>
template <class F>
uint32_t BasicReclaimer<A, Index, Orders>::climb(uint32_t page, uint32_t steps,
                                                 F &&f) const noexcept {
  for (; steps > 0; --steps) {
    const auto parent = static_cast<uint32_t>(parts_.pages.link(page));
    if (parent == page) break;
    f(page = parent);
  }
  return page;
}

// For the leaves that come next, and so many pages above each.
QUIRE_RECLAIMER(void)::ask_for_next(uint32_t steps) const noexcept {
  constexpr size_t kLeaf = 8, kAbove = 4, kBins = 2;
  const Pages &pages = parts_.pages;
  if (cursor_ + kLeaf >= sorted_.size) return;
  const Entry *const next = &sorted_.at[cursor_];
  prefetch_for_write(&pages[next[kLeaf].page]);
  prefetch(&pages.links()[next[kLeaf].page]);
  ask_for_bin(next[kAbove].page);
  climb(next[kAbove].page, steps, [&](uint32_t page) { prefetch_for_write(&pages[page]); });
  climb(next[kBins].page, steps, [&](uint32_t page) { ask_for_bin(page); });
}

// Up a chain the next victims are known early. A parent that was exposed is likely the next one.
QUIRE_RECLAIMER(void)::look_ahead(uint32_t page) const noexcept {
  const uint32_t above = climb(page, kClimb, [](uint32_t) {});
  ask_for_bin(above);
  climb(above, 2, [&](uint32_t next) { prefetch_for_write(&parts_.pages[next]); });
}

QUIRE_RECLAIMER(bool)::evict(uint32_t page, EvictReason reason, EvictBatch *batch,
                             uint32_t *exposed, bool own) noexcept {
  const PageView view = parts_.pages.view(page);
  *exposed = kNone;
  if (view.state != PageState::kVisible || view.ref != 0 || view.children != 0) return false;
  const bool guarded = guarded_.load(kRelaxed) != 0;
  // Before we count as an evictor: who only looks does not.
  if (guarded && !own && parts_.sink->is_shielded(page)) return false;
  if (!batch->counted) {
    // acq_rel: before the page changes: who finds it gone finds us.
    running_.fetch_add(1, kAcqRel);
    batch->counted = true;
  }
  Take take = Take::kFree;
  uint32_t space = 0;
  if (guarded) {
    space = parts_.pages[page].space.load(kRelaxed);
    take = parts_.sink->take(space, own);
    if (take == Take::kKept) return false;
  }
  if (!evict_page<Orders>(parts_.pages, parts_.index, page, view.generation, reason, *parts_.sink,
                          *batch, exposed, take == Take::kTaken)) {
    if (take == Take::kTaken) parts_.sink->untake(space);
    return false;
  }
  if (batch->n == EvictBatch::kMost) give_back(batch);
  return true;
}

QUIRE_RECLAIMER(void)::give_back(EvictBatch *batch) noexcept {
  if (!batch->counted) return;
  uint32_t of_reason[kEvictReasons] = {};
  for (uint32_t i = 0; i < batch->n; ++i) ++of_reason[static_cast<uint32_t>(batch->reason[i])];
  const uint32_t n = batch->n;
  quire::give_back<Orders>(parts_.page_pool, *parts_.sink, batch);
  for (uint32_t i = 0; i < kEvictReasons; ++i) {
    if (of_reason[i] != 0) evicted_[i].fetch_add(of_reason[i], kRelaxed);
  }
  // release: pairs with evicted(): who sees the count finds them given back.
  given_back_.fetch_add(n, kRelease);
  batch->counted = false;
  running_.fetch_sub(1, kRelease);
}

QUIRE_RECLAIMER(uint32_t)::reclaim_owned(uint32_t n) noexcept {
  begin_call();
  EvictBatch batch;
  uint32_t done = 0;
  for (uint32_t at_refill = UINT32_MAX; done < n;) {
    Entry next;
    while (done < n && left_ != 0 && pop(&next)) {
      const PageView view = parts_.pages.view(next.page);
      if (view.state != PageState::kVisible || view.ref != 0 || view.children != 0) continue;
      const Entry present = order_of_queue().place(parts_.pages, next.page);
      if (present.key != next.key) {
        enter(present);
        continue;
      }
      uint32_t exposed;
      if (!evict(next.page, EvictReason::kCapacity, &batch, &exposed, false)) continue;
      ++done;
      --left_;
      if (exposed != kNone) {
        ++climbed_;
        look_ahead(exposed);
        enter(order_of_queue().place(parts_.pages, exposed));
      }
    }
    // A whole refill that gave nothing: others take or pin all of it under our hands.
    if (done == n || done == at_refill) break;
    at_refill = done;
    take_table();
    if (!refill(n - done)) break;
  }
  give_back(&batch);
  return done;
}

QUIRE_RECLAIMER(uint32_t)::reclaim(uint32_t n) noexcept {
  if (n == 0) return 0;
  lift_in_time();
  if (!try_own()) {
    helped_.fetch_add(1, kRelaxed);
    return reclaim_window(n, true);
  }
  const uint32_t done = reclaim_owned(n);
  const bool starved = starved_;
  disown();
  // Without memory for a queue, as one who has none.
  return done == n || !starved ? done : done + reclaim_window(n - done, true);
}

// ---- Without the queue ------------------------------------------------------------------------

QUIRE_RECLAIMER(uint32_t)::pick_window(uint32_t window, bool by_hint, const Order &order,
                                       Picks *picks) noexcept {
  const uint32_t begin = window * kWindow;
  const uint32_t end = std::min(parts_.pages.capacity(), begin + kWindow);
  Shield shield;
  const bool guarded = read_shield(&shield);
  const auto look = [&](uint32_t page, uint8_t tag) {
    if (guarded && shielded(shield, page)) return;
    const uint32_t stamp = parts_.pages.stamp(page);
    if (!picks->wants(order.key(order.rank(page, tag, stamp), stamp))) return;
    const PageView view = parts_.pages.view(page);
    if (view.state != PageState::kVisible || view.ref != 0 || view.children != 0) return;
    picks->offer(order.place(parts_.pages, page));
  };
  if (by_hint) {
    for_leaves(begin, end, look);
  } else {
    for (uint32_t page = begin; page < end; ++page) look(page, parts_.pages.page_class(page));
  }
  return end - begin;
}

QUIRE_RECLAIMER(uint32_t)::evict_picks(Picks &picks, uint32_t n, const Order &order,
                                       EvictBatch *batch) noexcept {
  uint32_t done = 0;
  Entry next;
  while (done < n && picks.pop(&next)) {
    uint32_t exposed;
    const Entry present = order.place(parts_.pages, next.page);
    if (present.key != next.key) {
      // Used since: at its new place, while there are others; the last one goes as it is.
      if (picks.size != 0) {
        picks.offer(present);
        continue;
      }
    }
    if (!evict(next.page, EvictReason::kCapacity, batch, &exposed, false)) continue;
    ++done;
    if (exposed != kNone) picks.offer(order.place(parts_.pages, exposed));
  }
  return done;
}

QUIRE_RECLAIMER(uint32_t)::reclaim_window(uint32_t n, bool by_hint) noexcept {
  PolicyTable table;
  if (!policy_.copy(parts_.clock, &table)) table = PolicyTable::lru();
  const uint32_t windows = (parts_.pages.capacity() + kWindow - 1) / kWindow;
  EvictBatch batch;
  uint32_t done = 0;
  // Each from a place of its own: two that draw their windows in turn would each see some only.
  uint32_t window = next_window_.fetch_add(1, kRelaxed) % windows;
  for (uint32_t barren = 0; done < n && barren < windows;) {
    const Order order{&table, static_cast<uint32_t>(parts_.clock.now()), parts_.learned};
    Picks picks;
    scanned_.fetch_add(pick_window(window, by_hint, order, &picks), kRelaxed);
    const uint32_t got = evict_picks(picks, n - done, order, &batch);
    done += got;
    // On a window that gave something there may be more.
    barren = got == 0 ? barren + 1 : 0;
    if (got < kPicks) window = window + 1 == windows ? 0 : window + 1;
  }
  give_back(&batch);
  return done;
}

// ---- Policy and figures ------------------------------------------------------------------------

QUIRE_RECLAIMER(bool)::set_policy(const PolicyTable &table) noexcept {
  return policy_.set(table, parts_.clock);
}

QUIRE_RECLAIMER(ReclaimCounts)::counts() const noexcept {
  ReclaimCounts counts;
  counts.passes = passes_.load(kRelaxed);
  counts.scanned = scanned_.load(kRelaxed);
  counts.helped = helped_.load(kRelaxed);
  for (uint32_t i = 0; i < kEvictReasons; ++i) counts.evicted[i] = evicted_[i].load(kRelaxed);
  return counts;
}

QUIRE_RECLAIMER(bool)::validate() const noexcept {
  if (owner_.load(kAcquire) != 0 || cursor_ > sorted_.size) return false;
  const Entry *sorted = sorted_.at.get(), *heap = heap_.at.get();
  if (!std::is_sorted(sorted, sorted + sorted_.size)) return false;
  return std::is_heap(heap, heap + heap_.size, std::not_fn(std::less<Entry>()));
}

#undef QUIRE_RECLAIMER

}  // namespace quire

#endif  // QUIRE_RUNTIME_RECLAIMER_INL_H_
