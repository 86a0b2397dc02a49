#include "runtime/check.h"

#include <algorithm>
#include <memory>
#include <new>

#include "runtime/cache.h"

namespace quire {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

Status corrupt_part(const char *part) noexcept {
  return set_error(Status::kCorrupt, "%s: an invariant of its own does not hold", part);
}

template <class Pool>
Status check_pool(const Pool &pool, const char *name) noexcept {
  if (pool.available() <= pool.capacity()) return Status::kOk;
  return set_error(Status::kCorrupt, "%s: %u free of %u", name, pool.available(), pool.capacity());
}

// ---- what holds at any time --------------------------------------------------------------------

Status check_page_live(const Shape &shape, const Tables &t, uint32_t page) noexcept {
  const PageDescriptor &d = t.pages[page];
  const PageView view = t.pages.view(page);
  if (view.state > PageState::kEvicting) {
    return set_error(Status::kCorrupt, "page %u: state %u is none", page,
                     static_cast<unsigned>(view.state));
  }
  const uint32_t parent = d.parent.load(kRelaxed);
  if (parent != kNoIndex && (parent >= shape.pages || parent == page)) {
    return set_error(Status::kCorrupt, "page %u: parent %u of %u pages", page, parent, shape.pages);
  }
  const uint32_t frame = d.frame.load(kRelaxed);
  // Frame and class change one after the other when a page is sealed: either capacity will do here.
  if (frame != kNoIndex && frame >= std::max(shape.frames, shape.open_frames)) {
    return set_error(Status::kCorrupt, "page %u: frame %u of %u", page, frame,
                     std::max(shape.frames, shape.open_frames));
  }
  const uint32_t space = d.space.load(kRelaxed);
  if (space >= std::max(shape.spaces, 1u)) {
    return set_error(Status::kCorrupt, "page %u: namespace %u of %u", page, space, shape.spaces);
  }
  const uint16_t writer = d.writer.load(kRelaxed);
  if (writer > shape.streams) {
    return set_error(Status::kCorrupt, "page %u: writer %u of %u streams", page, writer,
                     shape.streams);
  }
  return Status::kOk;
}

Status check_lease_live(const Shape &shape, const Tables &t, uint32_t lease) noexcept {
  const LeaseSlot &s = t.leases.slot(lease);
  const uint32_t pages[] = {s.tail.load(kRelaxed), s.private_head.load(kRelaxed),
                            s.private_tail.load(kRelaxed)};
  for (const uint32_t page : pages) {
    // Slots that were never used are zero, which is a page's number as well.
    if (page != kNoIndex && page >= std::max(shape.pages, 1u)) {
      return set_error(Status::kCorrupt, "lease %u: page %u of %u", lease, page, shape.pages);
    }
  }
  return Status::kOk;
}

Status check_live(const Region &region, const Tables &t) noexcept {
  if (!region.validate())
    return set_error(Status::kCorrupt, "the region's header contradicts itself");
  const Shape &shape = region.shape();
  if (t.clock.now() == 0) return set_error(Status::kCorrupt, "the clock is at epoch 0");
  if (const Status s = check_pool(t.page_pool, "the pool of pages"); s != Status::kOk) return s;
  if (const Status s = check_pool(t.frame_pool, "the pool of frames"); s != Status::kOk) return s;
  if (const Status s = check_pool(t.open_pool, "the pool of open frames"); s != Status::kOk)
    return s;
  for (uint32_t page = 0; page < shape.pages; ++page) {
    if (const Status s = check_page_live(shape, t, page); s != Status::kOk) return s;
  }
  for (uint32_t lease = 0; lease < shape.leases; ++lease) {
    if (const Status s = check_lease_live(shape, t, lease); s != Status::kOk) return s;
  }
  return Status::kOk;
}

// ---- what holds at rest ------------------------------------------------------------------------

// A count a page and a namespace, and who holds each frame.
struct Counts {
  std::unique_ptr<uint32_t[]> children, refs, in_space, holder[2];

  bool allocate(const Shape &shape) noexcept {
    children.reset(new (std::nothrow) uint32_t[shape.pages + 1]());
    refs.reset(new (std::nothrow) uint32_t[shape.pages + 1]());
    in_space.reset(new (std::nothrow) uint32_t[shape.spaces + 1]());
    holder[0].reset(new (std::nothrow) uint32_t[shape.frames + 1]());
    holder[1].reset(new (std::nothrow) uint32_t[shape.open_frames + 1]());
    return children && refs && in_space && holder[0] && holder[1];
  }
};

bool is_open(const PageDescriptor &d) noexcept {
  return (d.flags.load(kRelaxed) & kPageOpen) != 0;
}

// Counts a page that is private or visible.
Status count_page(const Shape &shape, const Tables &t, uint32_t page, bool visible,
                  Counts *counts) noexcept {
  const PageDescriptor &d = t.pages[page];
  const bool open = is_open(d);
  const uint32_t frame = d.frame.load(kRelaxed);
  const uint32_t frames = open ? shape.open_frames : shape.frames;
  const char *const kind = open ? "open" : "sealed";
  if (frame >= frames) {
    return set_error(Status::kCorrupt, "page %u: %s frame %u of %u", page, kind, frame, frames);
  }
  uint32_t &holder = counts->holder[open ? 1 : 0][frame];
  if (holder != 0) {
    return set_error(Status::kCorrupt, "%s frame %u is held by pages %u and %u", kind, frame,
                     holder - 1, page);
  }
  holder = page + 1;
  if ((open ? t.open_pool : t.frame_pool).is_free(frame)) {
    return set_error(Status::kCorrupt, "%s frame %u is in its pool and held by page %u", kind,
                     frame, page);
  }
  const uint32_t lease = d.lease.load(kRelaxed);
  if (!visible && lease != kNoIndex && lease >= shape.leases) {
    return set_error(Status::kCorrupt, "page %u: lease %u of %u", page, lease, shape.leases);
  }
  if (!visible) return Status::kOk;
  ++counts->in_space[d.space.load(kRelaxed)];
  const uint32_t parent = d.parent.load(kRelaxed);
  const uint32_t depth = d.depth.load(kRelaxed);
  if (parent == kNoIndex) {
    if (depth == 0) return Status::kOk;
    return set_error(Status::kCorrupt, "page %u: depth %u without a parent", page, depth);
  }
  ++counts->children[parent];
  const PageDescriptor &above = t.pages[parent];
  if (t.pages.view(parent).state != PageState::kVisible) {
    return set_error(Status::kCorrupt, "page %u is visible, its parent %u is not", page, parent);
  }
  if (above.depth.load(kRelaxed) + 1 != depth) {
    return set_error(Status::kCorrupt, "page %u: depth %u under parent %u at depth %u", page, depth,
                     parent, above.depth.load(kRelaxed));
  }
  return Status::kOk;
}

Status check_page_states(const Shape &shape, const Tables &t, Counts *counts) noexcept {
  uint32_t free = 0;
  for (uint32_t page = 0; page < shape.pages; ++page) {
    const PageState state = t.pages.view(page).state;
    if (state == PageState::kEvicting) {
      return set_error(Status::kCorrupt, "page %u: an eviction was not finished", page);
    }
    if (t.page_pool.is_free(page)) {
      ++free;
      const PageView view = t.pages.view(page);
      if (state == PageState::kPrivate && view.children == 0 && view.ref == 0) continue;
      return set_error(Status::kCorrupt, "page %u is in use, the pool says otherwise", page);
    }
    const Status s = count_page(shape, t, page, state == PageState::kVisible, counts);
    if (s != Status::kOk) return s;
  }
  if (free == t.page_pool.available()) return Status::kOk;
  return set_error(Status::kCorrupt, "%u pages are free, the pool has %u", free,
                   t.page_pool.available());
}

Status check_frames(const Shape &shape, const Tables &t, const Counts &counts) noexcept {
  for (const bool open : {false, true}) {
    const uint32_t frames = open ? shape.open_frames : shape.frames;
    const auto *const holder = counts.holder[open ? 1 : 0].get();
    const auto unheld = static_cast<uint32_t>(std::count(holder, holder + frames, 0u));
    const uint32_t pool = (open ? t.open_pool : t.frame_pool).available();
    const auto limbo = static_cast<uint32_t>((open ? t.open_limbo : t.limbo).count());
    if (uint64_t{pool} + limbo == unheld) continue;
    return set_error(Status::kCorrupt, "%s frames: %u held + %u in the pool + %u in limbo of %u",
                     open ? "open" : "sealed", frames - unheld, pool, limbo, frames);
  }
  return Status::kOk;
}

// The private pages of a lease, along their links.
Status check_private_list(const Shape &shape, const Tables &t, uint32_t lease) noexcept {
  const LeaseSlot &s = t.leases.slot(lease);
  const uint32_t count = s.private_pages.load(kRelaxed);
  uint32_t previous = kNoIndex, seen = 0;
  for (uint32_t page = s.private_head.load(kRelaxed); page != kNoIndex; ++seen) {
    if (page >= shape.pages || seen == count) {
      return set_error(Status::kCorrupt, "lease %u: its list of %u private pages goes on to %u",
                       lease, count, page);
    }
    const PageDescriptor &d = t.pages[page];
    const uint64_t links = d.expiry_ms.load(kRelaxed);
    if (t.pages.view(page).state != PageState::kPrivate || d.lease.load(kRelaxed) != lease ||
        static_cast<uint32_t>(links) != previous) {
      return set_error(Status::kCorrupt, "lease %u: page %u of its list is not its own", lease,
                       page);
    }
    previous = page;
    page = static_cast<uint32_t>(links >> 32);
  }
  if (seen == count && previous == s.private_tail.load(kRelaxed)) return Status::kOk;
  return set_error(Status::kCorrupt, "lease %u: %u private pages in its list, %u counted", lease,
                   seen, count);
}

Status check_leases(const Shape &shape, const Tables &t, Counts *counts) noexcept {
  Handle lease;
  for (uint32_t at = 0; t.leases.next(at, &lease); at = lease.index + 1) {
    const LeaseSlot &s = t.leases.slot(lease.index);
    if (const Status l = check_private_list(shape, t, lease.index); l != Status::kOk) return l;
    const uint32_t tail = s.tail.load(kRelaxed), pages = s.pages.load(kRelaxed);
    if (tail == kNoIndex) {
      if (pages == 0) continue;
      return set_error(Status::kCorrupt, "lease %u: a chain of %u without a last page", lease.index,
                       pages);
    }
    if (t.pages.view(tail).state != PageState::kVisible ||
        t.pages[tail].depth.load(kRelaxed) + 1 != pages) {
      return set_error(Status::kCorrupt, "lease %u: page %u does not end a chain of %u",
                       lease.index, tail, pages);
    }
    ++counts->refs[tail];
  }
  return Status::kOk;
}

Status check_counters(const Shape &shape, const Tables &t, const Counts &counts) noexcept {
  for (uint32_t page = 0; page < shape.pages; ++page) {
    const PageView view = t.pages.view(page);
    if (view.ref != counts.refs[page]) {
      return set_error(Status::kCorrupt, "page %u: %u references, %u leases end at it", page,
                       view.ref, counts.refs[page]);
    }
    // Sequences that share a page since it was private stay in the count: it may be more.
    if (view.children < counts.children[page]) {
      return set_error(Status::kCorrupt, "page %u: %u children, %u pages name it as parent", page,
                       view.children, counts.children[page]);
    }
  }
  uint64_t floors = 0;
  for (uint32_t space = 0; space < shape.spaces; ++space) {
    const uint32_t there = counts.in_space[space];
    if (t.spaces.pages(space) != there || t.spaces.claimed(space) != there) {
      return set_error(Status::kCorrupt, "namespace %u: counts %u pages and %llu claimed, has %u",
                       space, t.spaces.pages(space),
                       static_cast<unsigned long long>(t.spaces.claimed(space)), there);
    }
    floors += t.spaces.floor(space);
  }
  if (floors <= shape.frames) return Status::kOk;
  return set_error(Status::kCorrupt, "namespaces: floors of %llu pages, of %u frames",
                   static_cast<unsigned long long>(floors), shape.frames);
}

Status check_parts(const Region &region, const Tables &t) noexcept {
  // Two pages of one key are no violation where one of them is dead. Whether a page with an expiry
  // was alive when the other came cannot be told afterwards, so at "the end of time" all of those
  // are dead, and pages without an expiry are compared.
  const Alive alive{&t.pages, &t.spaces, UINT64_MAX - 1};
  if (!t.page_pool.validate()) return corrupt_part("the pool of pages");
  if (!t.frame_pool.validate()) return corrupt_part("the pool of frames");
  if (!t.open_pool.validate()) return corrupt_part("the pool of open frames");
  if (!t.pages.validate()) return corrupt_part("the page table");
  if (!t.index.validate(alive)) return corrupt_part("the prefix index");
  if (!t.spaces.validate()) return corrupt_part("the namespaces");
  if (!t.leases.validate()) return corrupt_part("the leases");
  if (!t.limbo.validate()) return corrupt_part("limbo");
  if (!t.open_limbo.validate()) return corrupt_part("limbo of open frames");
  if (!t.clock.validate()) return corrupt_part("the clock");
  const StreamTable<> streams(region.part(Part::kStreams), region.shape().streams, t.clock,
                              nullptr);
  if (!streams.validate()) return corrupt_part("the streams");
  if (!t.log.validate()) return corrupt_part("the epoch log");
  if (!t.events.validate()) return corrupt_part("the event ring");
  return Status::kOk;
}

}  // namespace

Status check_tables(const Region &region, const Tables &tables, uint32_t flags) noexcept {
  if (const Status s = check_live(region, tables); s != Status::kOk) return s;
  if ((flags & QUIRE_CHECK_LIVE) != 0) return Status::kOk;
  const Shape &shape = region.shape();
  Counts counts;
  if (!counts.allocate(shape)) return set_error(Status::kNomem, "no room to count the pages in");
  if (const Status s = check_page_states(shape, tables, &counts); s != Status::kOk) return s;
  if (const Status s = check_frames(shape, tables, counts); s != Status::kOk) return s;
  if (const Status s = check_leases(shape, tables, &counts); s != Status::kOk) return s;
  if (const Status s = check_counters(shape, tables, counts); s != Status::kOk) return s;
  return check_parts(region, tables);
}

}  // namespace quire
