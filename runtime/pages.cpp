// Pages: private pages and their frames: alloc, free, block tables, and the lists that hang on
// leases.
//
// A verb on private pages claims each of them first, by the busy flag in its descriptor, and works
// only when it has them all: so a handle that is stale, published, named twice or in the hands of
// another call is found before anything has changed, and two verbs never work on one page.
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
  const bool held = view.state == PageState::kPrivate || view.state == PageState::kVisible;
  if (!held || view.generation != h.generation) {
    return set_error(Status::kStale, "page %u was freed or evicted", h.index);
  }
  *page = h.index;
  return Status::kOk;
}

// A private page behind a handle, with its busy flag taken.
Status Cache::claim_page(quire_page handle, uint32_t *page) noexcept {
  if (const Status s = find_page(handle, page); s != Status::kOk) return s;
  PageDescriptor &d = tables_->pages[*page];
  // acquire: pairs with the release in unclaim_page().
  if ((d.flags.fetch_or(kPageBusy, std::memory_order_acquire) & kPageBusy) != 0) {
    return set_error(Status::kBusy, "another call is working on page %u", *page);
  }
  // Look again: it may have been published or freed before we had the flag.
  uint32_t again;
  Status status = find_page(handle, &again);
  if (status == Status::kOk && tables_->pages.view(*page).state != PageState::kPrivate) {
    status = set_error(Status::kInvalid, "page %u is published", *page);
  }
  if (status != Status::kOk) unclaim_page(*page);
  return status;
}

// The same for pages[i], of which those before it are claimed: twice in one call is the caller's
// mistake, not a race. Looked for only where the flag was taken: so n pages cost O(n).
Status Cache::claim_page_of(const quire_page *pages, uint32_t i, uint32_t *page) noexcept {
  const Status status = claim_page(pages[i], page);
  if (status != Status::kBusy || std::find(pages, pages + i, pages[i]) == pages + i) return status;
  return set_error(Status::kInvalid, "page %u is named twice", *page);
}

void Cache::unclaim_page(uint32_t page) noexcept {
  // release: pairs with the acquire in claim_page().
  tables_->pages[page].flags.fetch_and(static_cast<uint16_t>(~kPageBusy),
                                       std::memory_order_release);
}

void Cache::init_page(uint32_t page, FrameClass c, uint32_t frame, uint32_t index) noexcept {
  PageTable<> &pages = tables_->pages;
  pages.claim(page);
  PageDescriptor &d = pages[page];
  d.expiry_ms.store(pack_links(kNoIndex, kNoIndex), std::memory_order_relaxed);
  d.parent.store(kNoIndex, std::memory_order_relaxed);
  d.depth.store(index, std::memory_order_relaxed);
  d.frame.store(frame, std::memory_order_relaxed);
  d.lease.store(kNoIndex, std::memory_order_relaxed);
  d.writer.store(0, std::memory_order_relaxed);
  d.key_lo.store(0, std::memory_order_relaxed);  // see note_copy()
  // A page that is appended to in its final format is sealed from the start, in a way.
  const bool direct = config_.has_open && c == FrameClass::kSealed;
  const uint16_t flags = c == FrameClass::kOpen ? kPageOpen : direct ? kPageSealed : 0;
  // Whatever a late claimer with a stale handle adds to this word it takes back itself.
  // The flags of its last life are often those of the next.
  const uint16_t old = d.flags.load(std::memory_order_relaxed);
  const auto other = static_cast<uint16_t>((old ^ flags) & ~kPageBusy);
  if (other != 0) d.flags.fetch_xor(other, std::memory_order_release);
  // Headers of open and of plain pages never change; those of the others come with each page's
  // scales.
  std::atomic<uint8_t> &frame_flags = frame_class(c).flags[frame];
  const uint8_t known = frame_flags.load(std::memory_order_relaxed);
  if (direct || (known & kFrameInitialised) == 0) {
    kernels_->init_page(c == FrameClass::kOpen, frame_address(c, frame));
    frame_flags.store(known | kFrameInitialised, std::memory_order_relaxed);
  }
}

// n <= kMostPages private pages on the caller's frames, with numbers that it has reserved.
void Cache::make_pages(FrameClass c, uint32_t n, const uint32_t *frames, uint32_t index,
                       uint32_t *out) noexcept {
  tables_->page_pool.take_reserved(n, out);
  for (uint32_t i = 0; i < n; ++i) init_page(out[i], c, frames[i], index + i);
  tables_->stats.add(Counter::pages_allocated_total, n);
}

Status Cache::take_pages(FrameClass c, uint32_t n, uint32_t stream_slot, uint32_t index,
                         uint32_t *out) noexcept {
  uint32_t frames[kMostPages];
  if (const Status s = take_frames(c, n, first_user(c, stream_slot), frames); s != Status::kOk) {
    return s;
  }
  if (!tables_->page_pool.reserve(n)) {
    put_back(c, frames, n);
    return no_numbers(n);
  }
  make_pages(c, n, frames, index, out);
  return Status::kOk;
}

// Gives up one share of each page; a page whose last share it was goes, with its frame. The caller
// holds the pages' busy flags, or they are a sequence's. Pools are asked once a batch.
void Cache::drop_pages(const uint32_t *pages, uint32_t n) noexcept {
  Tables &t = *tables_;
  for (uint32_t done = 0; done < n; done += kMostPages) {
    const uint32_t end = std::min(n, done + kMostPages);
    uint32_t freed[kMostPages];
    uint32_t frames[2][kMostPages];  // by class
    uint32_t n_frames[2] = {0, 0};
    uint32_t n_freed = 0;
    for (uint32_t i = done; i < end; ++i) {
      const PageDescriptor &d = t.pages[pages[i]];
      const bool open = (d.flags.load(std::memory_order_relaxed) & kPageOpen) != 0;
      const uint32_t frame = d.frame.load(std::memory_order_relaxed);
      // A page that other sequences share loses a sharer, no more; nobody claims such a page.
      if (t.pages.release_private(pages[i], t.pages.generation(pages[i])) != Release::kFreed)
        continue;
      const auto c = static_cast<uint32_t>(open ? FrameClass::kOpen : FrameClass::kSealed);
      frames[c][n_frames[c]++] = frame;
      freed[n_freed++] = pages[i];
      // Here: whoever claims the page by its old handle finds it freed, and the next owner, who has
      // the number from the pool, finds no flag of ours.
      unclaim_page(pages[i]);
    }
    // Counted first: estimates then take no page for private whose frame is free.
    t.stats.add(Counter::pages_freed_total, n_freed);
    t.page_pool.free(freed, n_freed);
    for (const FrameClass c : {FrameClass::kSealed, FrameClass::kOpen}) {
      const auto at = static_cast<uint32_t>(c);
      retire_frames(c, frames[at], n_frames[at], clock_epoch(), zeroing());
    }
  }
}

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
  slot.private_pages.fetch_add(1, std::memory_order_relaxed);
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
  slot.private_pages.fetch_add(1, std::memory_order_relaxed);
}

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
  slot.private_pages.fetch_sub(1, std::memory_order_relaxed);
  pages[page].lease.store(kNoIndex, std::memory_order_relaxed);
}

// All private pages of a lease that the caller is inside of, or kBusy and none.
Status Cache::free_private_pages(LeaseSlot &slot) noexcept {
  PageTable<> &pages = tables_->pages;
  const uint32_t head = slot.private_head.load(std::memory_order_relaxed);
  for (uint32_t page = head; page != kNoIndex;) {
    PageDescriptor &d = pages[page];
    // acquire: pairs with the release in unclaim_page().
    const bool busy = (d.flags.fetch_or(kPageBusy, std::memory_order_acquire) & kPageBusy) != 0;
    if (busy) {
      for (uint32_t back = head; back != page;) {
        const uint32_t next = next_of(pages[back].expiry_ms.load(std::memory_order_relaxed));
        unclaim_page(back);
        back = next;
      }
      return set_error(Status::kBusy, "another call is working on private page %u of this lease",
                       page);
    }
    page = next_of(d.expiry_ms.load(std::memory_order_relaxed));
  }
  uint32_t batch[kMostPages];
  uint32_t n = 0;
  for (uint32_t page = head; page != kNoIndex;) {
    batch[n++] = page;
    pages[page].lease.store(kNoIndex, std::memory_order_relaxed);
    page = next_of(pages[page].expiry_ms.load(std::memory_order_relaxed));
    if (n < kMostPages && page != kNoIndex) continue;
    drop_pages(batch, n);
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
    status = alloc_on(c, n, stream_slot, index, options.lease == 0 ? kNoIndex : lease.index, pages);
  }
  if (options.lease != 0) tables_->leases.leave(lease.index);
  return status;
}

// All frames are spoken for before the first page is made: a refusal has made none. pages[] holds
// the numbers of those that came out of limbo until their pages are made.
Status Cache::alloc_on(FrameClass c, uint32_t n, uint32_t stream_slot, uint32_t index,
                       uint32_t lease, quire_page *pages) noexcept {
  FramePool<> &pool = *frame_class(c).pool;
  uint32_t listed = 0;
  const Status status = reserve_frames(c, n, first_user(c, stream_slot), pages, &listed);
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
    for (uint32_t i = 0; i < count; ++i) {
      if (lease != kNoIndex) link(lease, batch[i]);
      pages[done + i] = page_handle(batch[i]);
    }
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

Status Cache::free(const quire_page *pages, uint32_t n) noexcept {
  const uint64_t token = uint64_t{StdAtomics::thread_index() + 1} << 32;
  uint32_t claimed = 0;
  Status status = Status::kOk;
  for (; claimed < n && status == Status::kOk; ++claimed) {
    uint32_t page = 0;
    status = claim_page_of(pages, claimed, &page);
    if (status != Status::kOk) break;
    status = enter_lease_of(page, token | claimed);
    if (status != Status::kOk) {
      unclaim_page(page);
      break;
    }
  }
  const bool good = status == Status::kOk;
  uint32_t batch[kMostPages];
  uint32_t in_batch = 0;
  for (uint32_t i = 0; i < claimed; ++i) {
    const auto page = static_cast<uint32_t>(pages[i]);
    const uint32_t lease = tables_->pages[page].lease.load(std::memory_order_relaxed);
    if (!good) {
      leave_lease_of(lease, token);
      unclaim_page(page);
      continue;
    }
    unlink(page);
    // The last page of this lease in the call lets go of it; unlink needs it until then.
    const bool last = lease != kNoIndex && tables_->leases.slot(lease).visitor.load(
                                               std::memory_order_relaxed) == (token | i);
    if (last) leave_lease_of(lease, token);
    batch[in_batch++] = page;
    if (in_batch < kMostPages && i + 1 < claimed) continue;
    drop_pages(batch, in_batch);
    in_batch = 0;
  }
  return status;
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
