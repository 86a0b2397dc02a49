// Events and the list of published pages: what a follower needs to hold the same picture as the
// cache.
//
// A follower begins (its place is the number of the next event), then lists the published pages, then
// applies events from its place on, by page handle: stored adds, removed takes away; either may tell
// what the list told already. When it has read all there are, it has exactly the pages that are
// there. For every page P:
//   - what was told before the place is in the list: an event's number is taken after the deed, so
//     the list, which looks later, sees the deed (runtime/event_ring.h)
//   - what was done before the follower began and is not told at all (nobody followed, so nothing was
//     recorded) is in the list likewise
//   - what is done later is told, behind the place: it is applied after the list
//   - the list holds no page that is not told of: it is read off the index, so a page that is visible
//     and on its way in, which may yet lose against another of its key, is not in it; if it wins, its
//     event is behind the place
// A page's removal and its number's next life are told apart by the handle. Removals of a chain come
// child first; of stored ones, a child may come before its parent where two threads published them.
// After a loss the follower begins again.
//
// Thread class: any; readers of a mapping too. Cost: a list looks at every bin and every page in it.
#include <algorithm>

#include "runtime/cache.h"

namespace quire {

Key parent_key(const Tables &tables, uint32_t page) noexcept {
  const PageDescriptor &d = tables.pages[page];
  const uint32_t parent = d.parent.load(std::memory_order_relaxed);
  if (parent != kNoIndex && parent < tables.pages.capacity()) return tables.pages.key(parent);
  const uint32_t space = d.space.load(std::memory_order_relaxed);
  return space < tables.spaces.capacity() ? tables.spaces.table().key(space) : Key{};
}

// A row, if the page is still what it was when its row was written.
static bool describe_published(const Tables &tables, uint32_t cache_tag, const Alive &alive,
                               uint32_t page, quire_published *row) noexcept {
  const PageTable<> &pages = tables.pages;
  const PageView view = pages.view(page);
  if (view.state != PageState::kVisible) return false;
  const PageDescriptor &d = pages[page];
  const Key key = pages.key(page);
  const Key parent = parent_key(tables, page);
  *row = quire_published{};
  row->page = pack_handle(HandleKind::kPage, cache_tag, Handle{page, view.generation});
  row->key = quire_key{key.lo, key.hi};
  row->parent = quire_key{parent.lo, parent.hi};
  row->index = d.depth.load(std::memory_order_relaxed);
  row->space = d.space.load(std::memory_order_relaxed);
  row->tier = QUIRE_TIER_DEVICE;
  row->references = view.ref;
  row->children = view.children;
  const uint64_t now = tables.clock.now();
  const uint64_t stamp = widen_epoch(now, pages.stamp(page));
  row->age_epochs = now > stamp ? now - stamp : 0;
  if (row->space < tables.spaces.capacity() && !alive(page)) row->flags |= QUIRE_PAGE_DEAD;
  // An eviction ends with another generation, and its parent goes after it.
  const PageView again = pages.view(page);
  return again.state == PageState::kVisible && again.generation == view.generation;
}

void list_published(const Tables &tables, uint32_t cache_tag, uint64_t now_ms, uint64_t *at,
                    quire_published *out, size_t *n) noexcept {
  const Alive alive{&tables.pages, &tables.spaces, now_ms};
  const size_t room = *n;
  *n = 0;
  tables.index.visit(at, [&](uint32_t page) {
    if (*n == room) return false;
    if (describe_published(tables, cache_tag, alive, page, &out[*n])) ++*n;
    return true;
  });
}

void read_events(const Tables &tables, uint32_t cache_tag, uint64_t *cursor, quire_event *out,
                 size_t *n, uint64_t *lost) noexcept {
  const size_t room = *n;
  *n = 0;
  if (*cursor == 0) {
    *cursor = tables.events.begin();
    return;
  }
  EventRing::Words words;
  for (; *n < room && tables.events.read(cursor, &words, lost); ++*n) {
    to_event(tables, cache_tag, EventRecord::of(words), *cursor - 1, &out[*n]);
  }
}

void to_event(const Tables &tables, uint32_t cache_tag, const EventRecord &from, uint64_t number,
              quire_event *out) noexcept {
  *out = quire_event{};
  out->kind = from.kind;
  out->reason = from.reason;
  out->sequence = number;
  out->epoch = widen_epoch(tables.clock.now(), from.epoch);
  if (from.kind == QUIRE_EVENT_LEASE_LATE) {
    out->owner = from.key.lo;
    return;
  }
  out->index = from.index;
  out->key = quire_key{from.key.lo, from.key.hi};
  out->parent = quire_key{from.parent.lo, from.parent.hi};
  out->space = from.space;
  out->tier = from.tier;
  out->page = pack_handle(HandleKind::kPage, cache_tag, Handle{from.page, from.life});
}

}  // namespace quire
