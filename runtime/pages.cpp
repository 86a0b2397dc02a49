// Pages: private pages and their frames: alloc, free, block tables, and the lists that hang on
// leases.
//
// A verb on private pages claims each of them first, by the busy bit of its state word, and works
// only when it has them all: so a handle that is stale, published, named twice or in the hands of
// another call is found before anything has changed, and two verbs never work on one page. A
// sequence claims its pages for as long as they are private: nobody else has a say in them.
//
// Where the verb is to free the page, the claim and the end of its life are one step, which can be
// taken back until its number is in the pool (PageTable::give_up). quire_free() looks at all
// handles before the first step; where one is refused all the same (it is named twice, or another
// call works on it), whoever looked at the others meanwhile found them stale. Pages on a lease it
// claims, since it has to enter that lease, too. That a page is on none is said by kNoIndex in its
// lease word, and that does not change before its life ends.
//
// Frames come from runtime/frames.cpp. A page's number is taken after its frame and freed before it
// retires; descriptors are as many as frames, so whoever has frames finds numbers for them.
#include <algorithm>

#include "runtime/cache.h"

namespace quire {
namespace {

constexpr uint64_t pack_links(uint32_t next, uint32_t previous) {
  return uint64_t{next} << 32 | previous;
}
constexpr uint32_t next_of(uint64_t links) {
  return static_cast<uint32_t>(links >> 32);
}
constexpr uint32_t previous_of(uint64_t links) {
  return static_cast<uint32_t>(links);
}

// Of a handle that was found to be a page of this cache.
uint32_t generation_of(quire_page handle) noexcept {
  return static_cast<uint32_t>(handle >> 32) & kGenerationMask;
}

// kOk where the page was not refused.
Status refused(Hold hold, uint32_t page) noexcept {
  switch (hold) {
    case Hold::kHeld:
      return Status::kOk;
    case Hold::kBusy:
      return set_error(Status::kBusy, "a sequence has page %u, or another call works on it", page);
    case Hold::kPublished:
      return set_error(Status::kInvalid, "page %u is published", page);
    case Hold::kStale:
      break;
  }
  return set_error(Status::kStale, "page %u was freed or evicted", page);
}

// Cannot be, as long as a number is freed before the frame that its page had.
Status no_numbers(uint32_t n) noexcept {
  return set_error(Status::kCorrupt, "%u frames and fewer page numbers: the pools disagree", n);
}

}  // namespace

// ---- pages

quire_page Cache::page_handle(uint32_t page) const noexcept {
  return pack_handle(HandleKind::kPage, tag_, Handle{page, tables_->pages.generation(page)});
}

Status Cache::find_page(quire_page handle, uint32_t *page) const noexcept {
  Handle h;
  if (!unpack_handle(HandleKind::kPage, tag_, handle, &h) || h.index >= tables_->pages.capacity()) {
    return set_error(Status::kStale, "page %016llx is none of this cache",
                     static_cast<unsigned long long>(handle));
  }
  const PageView view = tables_->pages.view(h.index);
  const bool held = view.state == PageState::kVisible ||
                    (view.state == PageState::kPrivate && has_frame(h.index));
  if (!held || view.generation != h.generation) {
    return set_error(Status::kStale, "page %u was freed or evicted", h.index);
  }
  *page = h.index;
  return Status::kOk;
}

// A private page behind a handle, which the caller then holds.
Status Cache::claim_page(quire_page handle, uint32_t *page) noexcept {
  if (const Status s = find_page(handle, page); s != Status::kOk) return s;
  return refused(tables_->pages.hold(*page, generation_of(handle)), *page);
}

// The same for pages[i], of which those before it are claimed: twice in one call is the caller's
// mistake, not a race. Looked for only where the page is held: so n pages cost O(n).
Status Cache::claim_page_of(const quire_page *pages, uint32_t i, uint32_t *page) noexcept {
  const Status status = claim_page(pages[i], page);
  if (status != Status::kBusy || std::find(pages, pages + i, pages[i]) == pages + i) return status;
  return set_error(Status::kInvalid, "page %u is named twice", *page);
}

// n <= kMostPages private pages on the caller's frames, with numbers that it has reserved.
void Cache::make_pages(FrameClass c, uint32_t n, const uint32_t *frames, uint32_t index,
                       uint32_t *out) noexcept {
  tables_->page_pool.take_reserved(n, out);
  // A page that is appended to in its final format is sealed from the start, in a way.
  const bool direct = config_.has_open && c == FrameClass::kSealed;
  const uint16_t flags = c == FrameClass::kOpen ? kPageOpen : direct ? kPageSealed : 0;
  PageTable<> &pages = tables_->pages;
  for (uint32_t i = 0; i < n; ++i) {
    PageDescriptor &d = pages[out[i]];
    d.expiry_ms.store(pack_links(kNoIndex, kNoIndex), std::memory_order_relaxed);
    d.parent.store(kNoIndex, std::memory_order_relaxed);
    d.depth.store(index + i, std::memory_order_relaxed);
    d.frame.store(frames[i], std::memory_order_relaxed);
    d.lease.store(kNoIndex, std::memory_order_relaxed);
    d.writer.store(0, std::memory_order_relaxed);
    d.key_lo.store(0, std::memory_order_relaxed);  // see note_copy()
    d.flags.store(flags, std::memory_order_relaxed);
  }
  // Headers of open and of plain pages never change; those of the others come with each page's
  // scales.
  std::atomic<uint8_t> *const frame_flags = frame_class(c).flags;
  for (uint32_t i = 0; i < n; ++i) {
    const uint8_t known = frame_flags[frames[i]].load(std::memory_order_relaxed);
    if (!direct && (known & kFrameInitialised) != 0) continue;
    kernels_->init_page(c == FrameClass::kOpen, frame_address(c, frames[i]));
    frame_flags[frames[i]].store(known | kFrameInitialised, std::memory_order_relaxed);
  }
  tables_->stats.add(Counter::pages_allocated_total, n);
}

Status Cache::take_pages(FrameClass c, uint32_t n, uint32_t stream_slot, uint32_t index,
                         uint32_t space, uint32_t *out) noexcept {
  uint32_t frames[kMostPages];
  const Status s = take_frames(c, n, first_user(c, stream_slot), space, frames);
  if (s != Status::kOk) return s;
  if (!tables_->page_pool.reserve(n)) {
    put_back(c, frames, n);
    return no_numbers(n);
  }
  make_pages(c, n, frames, index, out);
  return Status::kOk;
}

// Pages whose life is over and that are the caller's alone: their numbers and frames go to the
// pools, which are asked once a batch. T: a number or a handle.
template <class T>
void Cache::bury(const T *pages, uint32_t n) noexcept {
  Tables &t = *tables_;
  for (uint32_t done = 0; done < n; done += kMostPages) {
    const uint32_t count = std::min(n - done, kMostPages);
    uint32_t numbers[kMostPages];
    uint32_t sealed[kMostPages];
    uint32_t open[kMostPages];
    uint32_t n_open = 0;
    for (uint32_t i = 0; i < count; ++i) {
      numbers[i] = static_cast<uint32_t>(pages[done + i]);
      PageDescriptor &d = t.pages[numbers[i]];
      const uint32_t frame = d.frame.load(std::memory_order_relaxed);
      sealed[i - n_open] = open[n_open] = frame;
      n_open += (d.flags.load(std::memory_order_relaxed) & kPageOpen) != 0 ? 1U : 0U;
      d.frame.store(kNoIndex, std::memory_order_relaxed);
    }
    // Counted first: estimates then take no page for private whose frame is free.
    t.stats.add(Counter::pages_freed_total, count);
    t.page_pool.free(numbers, count);
    retire_frames(FrameClass::kSealed, sealed, count - n_open, clock_epoch(), zeroing());
    retire_frames(FrameClass::kOpen, open, n_open, clock_epoch(), zeroing());
  }
}

// Gives up one share of each page; a page whose last share it was goes, with its frame. The caller
// holds the pages, or they are a sequence's.
void Cache::drop_pages(const uint32_t *pages, uint32_t n) noexcept {
  PageTable<> &table = tables_->pages;
  uint32_t over[kMostPages];
  uint32_t n_over = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const Release release = table.release_private(pages[i], table.generation(pages[i]));
    if (release == Release::kFreed) over[n_over++] = pages[i];
    if (n_over < kMostPages && i + 1 < n) continue;
    bury(over, n_over);
    n_over = 0;
  }
}

namespace {

// By the verb that is inside the lease: nobody else writes this word.
void count_private(LeaseSlot &slot, int32_t change) noexcept {
  const uint32_t n = slot.private_pages.load(std::memory_order_relaxed);
  slot.private_pages.store(n + static_cast<uint32_t>(change), std::memory_order_relaxed);
}

}  // namespace

void Cache::link(uint32_t lease_index, uint32_t page) noexcept {
  LeaseSlot &slot = tables_->leases.slot(lease_index);
  PageTable<> &pages = tables_->pages;
  const uint32_t last = slot.private_tail.load(std::memory_order_relaxed);
  pages[page].lease.store(lease_index, std::memory_order_relaxed);
  pages[page].expiry_ms.store(pack_links(kNoIndex, last), std::memory_order_relaxed);
  if (last == kNoIndex) {
    slot.private_head.store(page, std::memory_order_relaxed);
  } else {
    auto &links = pages[last].expiry_ms;
    links.store(pack_links(page, previous_of(links.load(std::memory_order_relaxed))),
                std::memory_order_relaxed);
  }
  slot.private_tail.store(page, std::memory_order_relaxed);
  count_private(slot, 1);
}

// The same at the list's other end.
void Cache::link_first(uint32_t lease_index, uint32_t page) noexcept {
  LeaseSlot &slot = tables_->leases.slot(lease_index);
  PageTable<> &pages = tables_->pages;
  const uint32_t first = slot.private_head.load(std::memory_order_relaxed);
  pages[page].lease.store(lease_index, std::memory_order_relaxed);
  pages[page].expiry_ms.store(pack_links(first, kNoIndex), std::memory_order_relaxed);
  if (first == kNoIndex) {
    slot.private_tail.store(page, std::memory_order_relaxed);
  } else {
    auto &links = pages[first].expiry_ms;
    links.store(pack_links(next_of(links.load(std::memory_order_relaxed)), page),
                std::memory_order_relaxed);
  }
  slot.private_head.store(page, std::memory_order_relaxed);
  count_private(slot, 1);
}

// The page's lease word stays as it is.
void Cache::unlink(uint32_t page) noexcept {
  PageTable<> &pages = tables_->pages;
  const uint32_t lease_index = pages[page].lease.load(std::memory_order_relaxed);
  if (lease_index == kNoIndex) return;
  LeaseSlot &slot = tables_->leases.slot(lease_index);
  const uint64_t links = pages[page].expiry_ms.load(std::memory_order_relaxed);
  const uint32_t next = next_of(links);
  const uint32_t previous = previous_of(links);
  if (previous == kNoIndex) {
    slot.private_head.store(next, std::memory_order_relaxed);
  } else {
    auto &word = pages[previous].expiry_ms;
    word.store(pack_links(next, previous_of(word.load(std::memory_order_relaxed))),
               std::memory_order_relaxed);
  }
  if (next == kNoIndex) {
    slot.private_tail.store(previous, std::memory_order_relaxed);
  } else {
    auto &word = pages[next].expiry_ms;
    word.store(pack_links(next_of(word.load(std::memory_order_relaxed)), previous),
               std::memory_order_relaxed);
  }
  count_private(slot, -1);
}

// All private pages of a lease that the caller is inside of, or kBusy and none.
Status Cache::free_private_pages(LeaseSlot &slot) noexcept {
  PageTable<> &pages = tables_->pages;
  const auto next = [&pages](uint32_t page) {
    return next_of(pages[page].expiry_ms.load(std::memory_order_relaxed));
  };
  const uint32_t head = slot.private_head.load(std::memory_order_relaxed);
  for (uint32_t page = head; page != kNoIndex; page = next(page)) {
    if (pages.give_up(page, pages.generation(page)) == Hold::kHeld) continue;
    for (uint32_t back = head; back != page; back = next(back)) pages.take_back(back);
    return set_error(Status::kBusy, "another call is working on private page %u of this lease",
                     page);
  }
  uint32_t batch[kMostPages];
  uint32_t n = 0;
  for (uint32_t page = head; page != kNoIndex;) {
    batch[n++] = page;
    page = next(page);
    if (n < kMostPages && page != kNoIndex) continue;
    bury(batch, n);
    n = 0;
  }
  slot.private_head.store(kNoIndex, std::memory_order_relaxed);
  slot.private_tail.store(kNoIndex, std::memory_order_relaxed);
  slot.private_pages.store(0, std::memory_order_relaxed);
  return Status::kOk;
}

// ---- verbs

Status Cache::alloc(uint32_t n, const quire_alloc_options &options, quire_page *pages) noexcept {
  if (options.tier != QUIRE_TIER_DEVICE) {
    return set_error(Status::kUnsupported,
                     "alloc in tier %u: this version has the device tier only", options.tier);
  }
  uint32_t stream_slot = kNoIndex;
  if (const Status s = find_stream(options.stream, &stream_slot); s != Status::kOk) return s;
  Handle lease;
  if (options.lease != 0) {
    if (const Status s = enter_own_lease(options.lease, &lease); s != Status::kOk) return s;
  }
  const bool open = config_.has_open && (options.flags & QUIRE_ALLOC_SEALED) == 0;
  const FrameClass c = open ? FrameClass::kOpen : FrameClass::kSealed;
  uint32_t index = 0;
  if (options.first != 0) {
    index = options.first - 1;
  } else if (options.lease != 0) {
    const LeaseSlot &slot = tables_->leases.slot(lease.index);
    // Behind the chain, or behind the page that was allocated last, if that is not in the chain:
    // pages that somebody else published first stay private, at the front of the list.
    const uint32_t last = slot.private_tail.load(std::memory_order_relaxed);
    index = slot.pages.load(std::memory_order_relaxed);
    if (last != kNoIndex) {
      index = std::max(index, tables_->pages[last].depth.load(std::memory_order_relaxed) + 1);
    }
  }
  Status status = n <= frame_class(c).pool->capacity() ? Status::kOk : refuse_frames(c, n);
  if (n > kNoIndex - index) {
    status = set_error(Status::kInvalid, "first: no chain has pages %u to %llu", index,
                       static_cast<unsigned long long>(index) + n - 1);
  }
  // Pages in their final format are encoded as they are appended to.
  if (status == Status::kOk && config_.has_open && !open && n > 0) status = freeze_anchors();
  if (status == Status::kOk) {
    const bool hangs = options.lease != 0;
    const uint32_t space = hangs ? space_of(tables_->leases.slot(lease.index)) : kNoIndex;
    status = alloc_on(c, n, stream_slot, index, hangs ? lease.index : kNoIndex, space, pages);
  }
  if (options.lease != 0) tables_->leases.leave(lease.index);
  return status;
}

// All frames are spoken for before the first page is made: a refusal has made none. pages[] holds
// the numbers of those that came out of limbo until their pages are made.
Status Cache::alloc_on(FrameClass c, uint32_t n, uint32_t stream_slot, uint32_t index,
                       uint32_t lease, uint32_t space, quire_page *pages) noexcept {
  FramePool<> &pool = *frame_class(c).pool;
  uint32_t listed = 0;
  const Status status = reserve_frames(c, n, first_user(c, stream_slot), space, pages, &listed);
  if (status != Status::kOk) return status;
  if (!tables_->page_pool.reserve(n)) {
    for (uint32_t i = 0; i < listed; ++i) {
      const auto frame = static_cast<uint32_t>(pages[i]);
      put_back(c, &frame, 1);
    }
    pool.unreserve(n - listed);
    return no_numbers(n);
  }
  for (uint32_t done = 0; done < n;) {
    uint32_t frames[kMostPages];
    uint32_t batch[kMostPages];
    const uint32_t count = std::min(n - done, kMostPages);
    const uint32_t known = listed > done ? std::min(listed - done, count) : 0;
    for (uint32_t i = 0; i < known; ++i) frames[i] = static_cast<uint32_t>(pages[done + i]);
    pool.take_reserved(count - known, frames + known);
    make_pages(c, count, frames, index + done, batch);
    for (uint32_t i = 0; i < count && lease != kNoIndex; ++i) link(lease, batch[i]);
    for (uint32_t i = 0; i < count; ++i) pages[done + i] = page_handle(batch[i]);
    done += count;
  }
  return Status::kOk;
}

// Enters each lease that a claimed page hangs on, once. `token` is the call's (its upper half) and
// the page's place in the call: the lease keeps the last one's.
Status Cache::enter_lease_of(uint32_t page, uint64_t token) noexcept {
  const uint32_t index = tables_->pages[page].lease.load(std::memory_order_relaxed);
  if (index == kNoIndex) return Status::kOk;
  LeaseSlot &slot = tables_->leases.slot(index);
  if (slot.visitor.load(std::memory_order_relaxed) >> 32 == token >> 32) {
    slot.visitor.store(token, std::memory_order_relaxed);
    return Status::kOk;
  }
  const uint32_t word = slot.word.load(std::memory_order_relaxed);
  const Handle lease{index, (word >> LeaseTable::kGenerationShift) & kGenerationMask};
  if (const Status s = tables_->leases.enter(lease); s != Status::kOk) {
    return s == Status::kStale ? Status::kBusy : s;  // being released: its pages go with it
  }
  slot.visitor.store(token, std::memory_order_relaxed);
  // The page may have left this lease before we were inside.
  if (tables_->pages[page].lease.load(std::memory_order_relaxed) == index) return Status::kOk;
  slot.visitor.store(0, std::memory_order_relaxed);
  tables_->leases.leave(index);
  return set_error(Status::kBusy, "page %u is changing hands", page);
}

void Cache::leave_lease_of(uint32_t lease_index, uint64_t token) noexcept {
  if (lease_index == kNoIndex) return;
  LeaseSlot &slot = tables_->leases.slot(lease_index);
  if (slot.visitor.load(std::memory_order_relaxed) >> 32 != token >> 32) return;
  slot.visitor.store(0, std::memory_order_relaxed);
  tables_->leases.leave(lease_index);
}

// As free() will find it, if nothing comes between.
Status Cache::look_private(quire_page handle) const noexcept {
  Handle h;
  if (unpack_handle(HandleKind::kPage, tag_, handle, &h) && h.index < tables_->pages.capacity() &&
      tables_->pages.is_idle(h.index, h.generation) && has_frame(h.index)) {
    return Status::kOk;
  }
  uint32_t page = 0;
  if (const Status s = find_page(handle, &page); s != Status::kOk) return s;
  const bool is_private = tables_->pages.view(page).state == PageState::kPrivate;
  return refused(is_private ? Hold::kBusy : Hold::kPublished, page);
}

// Why pages[i], of which those before it are the caller's, was not given up.
Status Cache::refuse_free(const quire_page *pages, uint32_t i, Hold hold) const noexcept {
  const auto page = static_cast<uint32_t>(pages[i]);
  if (std::find(pages, pages + i, pages[i]) == pages + i) return refused(hold, page);
  return set_error(Status::kInvalid, "page %u is named twice", page);
}

void Cache::undo_free(const quire_page *pages, uint32_t n, uint64_t token) noexcept {
  for (uint32_t i = 0; i < n; ++i) {
    const auto page = static_cast<uint32_t>(pages[i]);
    const uint32_t lease = tables_->pages[page].lease.load(std::memory_order_relaxed);
    if (lease == kNoIndex) {
      tables_->pages.take_back(page);
    } else {
      leave_lease_of(lease, token);
      unclaim_page(page);
    }
  }
}

// The life of each page ends; or, on a lease, is claimed, with the caller inside that lease. All or
// none.
Status Cache::end_pages(const quire_page *pages, uint32_t n, uint64_t token) noexcept {
  PageTable<> &table = tables_->pages;
  for (uint32_t i = 0; i < n; ++i) {
    const auto page = static_cast<uint32_t>(pages[i]);
    const uint32_t generation = generation_of(pages[i]);
    // relaxed: kNoIndex holds for the life that the handle names; anything else is read again.
    const bool alone = table[page].lease.load(std::memory_order_relaxed) == kNoIndex;
    const Hold hold = alone ? table.give_up(page, generation) : table.hold(page, generation);
    Status status = hold == Hold::kHeld ? Status::kOk : refuse_free(pages, i, hold);
    if (!alone && status == Status::kOk) {
      status = enter_lease_of(page, token | i);
      if (status != Status::kOk) unclaim_page(page);
    }
    if (status == Status::kOk) continue;
    undo_free(pages, i, token);
    return status;
  }
  return Status::kOk;
}

Status Cache::free(const quire_page *pages, uint32_t n) noexcept {
  const uint64_t token = uint64_t{StdAtomics::thread_index() + 1} << 32;
  for (uint32_t i = 0; i < n; ++i) {
    if (const Status s = look_private(pages[i]); s != Status::kOk) return s;
  }
  if (const Status s = end_pages(pages, n, token); s != Status::kOk) return s;
  PageTable<> &table = tables_->pages;
  for (uint32_t i = 0; i < n; ++i) {
    const auto page = static_cast<uint32_t>(pages[i]);
    const uint32_t lease = table[page].lease.load(std::memory_order_relaxed);
    if (lease == kNoIndex) continue;
    unlink(page);
    // The last page of this lease in the call lets go of it; unlink needs it until then.
    const LeaseSlot &slot = tables_->leases.slot(lease);
    if (slot.visitor.load(std::memory_order_relaxed) == (token | i)) leave_lease_of(lease, token);
    table.release_private(page, generation_of(pages[i]));
  }
  bury(pages, n);
  return Status::kOk;
}

int32_t Cache::block_entry(uint32_t page) const noexcept {
  const PageDescriptor &d = tables_->pages[page];
  const auto frame = static_cast<int32_t>(d.frame.load(std::memory_order_relaxed));
  return is_open(page) ? -2 - frame : frame;
}

quire_key Cache::key_of(uint32_t page) const noexcept {
  const PageDescriptor &d = tables_->pages[page];
  return quire_key{d.key_lo.load(std::memory_order_relaxed),
                   d.key_hi.load(std::memory_order_relaxed)};
}

bool Cache::is_open(uint32_t page) const noexcept {
  return (tables_->pages[page].flags.load(std::memory_order_relaxed) & kPageOpen) != 0;
}

Status Cache::frames(const quire_page *pages, uint32_t n, quire_tier tier, int32_t *out) noexcept {
  for (uint32_t i = 0; i < n; ++i) {
    uint32_t page = 0;
    if (const Status s = find_page(pages[i], &page); s != Status::kOk) return s;
    out[i] = tier == QUIRE_TIER_DEVICE ? block_entry(page) : -1;
  }
  return Status::kOk;
}

Status Cache::page_info(quire_page handle, quire_page_record *out) noexcept {
  uint32_t page = 0;
  if (const Status s = find_page(handle, &page); s != Status::kOk) return s;
  const Tables &t = *tables_;
  const PageDescriptor &d = t.pages[page];
  const PageView view = t.pages.view(page);
  const bool visible = view.state == PageState::kVisible;
  const uint16_t flags = d.flags.load(std::memory_order_relaxed);
  out->state = visible ? QUIRE_PAGE_PUBLISHED : QUIRE_PAGE_PRIVATE;
  out->flags = ((flags & kPageOpen) != 0 ? QUIRE_PAGE_OPEN : 0u) |
               ((flags & kPageSealed) != 0 ? QUIRE_PAGE_SEALED : 0u) |
               ((flags & kPageLossy) != 0 ? QUIRE_PAGE_LOSSY : 0u);
  if (visible && !Alive{&t.pages, &t.spaces, now_ms()}(page)) out->flags |= QUIRE_PAGE_DEAD;
  out->index = d.depth.load(std::memory_order_relaxed);
  out->frame = block_entry(page);
  out->references = view.ref;
  out->children = view.children;
  out->idle_ttl_ms = visible ? t.pages.idle_ttl_ms(page) : 0;
  const auto now = static_cast<uint32_t>(clock_epoch());
  out->age_epochs = visible ? now - t.pages.stamp(page) : 0;
  out->expires_ms = visible ? d.expiry_ms.load(std::memory_order_relaxed) : UINT64_MAX;
  out->key = quire_key{0, 0};
  out->parent = 0;
  out->space = visible ? d.space.load(std::memory_order_relaxed) : UINT32_MAX;
  if (visible) {
    out->key = key_of(page);
    const uint32_t parent = d.parent.load(std::memory_order_relaxed);
    if (parent != kNoIndex) out->parent = page_handle(parent);
  }
  // What was read of a page that went away meanwhile is of two pages.
  return find_page(handle, &page);
}

Status Cache::page_data(quire_page handle, void **data, size_t *bytes) noexcept {
  uint32_t page = 0;
  if (const Status s = find_page(handle, &page); s != Status::kOk) return s;
  if (!device_->host_visible()) {
    return set_error(
        Status::kUnsupported,
        "the host does not see the %s device's memory (quire_layout has its addresses)",
        device_->name());
  }
  const PageDescriptor &d = tables_->pages[page];
  const bool open = (d.flags.load(std::memory_order_relaxed) & kPageOpen) != 0;
  const FrameClass c = open ? FrameClass::kOpen : FrameClass::kSealed;
  *data = frame_address(c, d.frame.load(std::memory_order_relaxed));
  *bytes = layout(c).page_bytes;
  return Status::kOk;
}

}  // namespace quire
