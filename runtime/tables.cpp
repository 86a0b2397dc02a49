#include "runtime/tables.h"

#include <new>

#include "runtime/stream_table.h"

namespace quire {
namespace {

const Shape &shape_of(const Region &region) noexcept {
  return region.shape();
}

FramePool<> pool_at(const Region &region, Part part, uint32_t capacity) noexcept {
  return FramePool<>(region.part(part), capacity);
}

}  // namespace

size_t part_bytes(Part part, const Shape &s) noexcept {
  switch (part) {
    case Part::kPages:
      return PageTable<>::bytes(s.pages);
    case Part::kIndex:
      return PrefixIndex<>::bytes(s.pages);
    case Part::kPagePool:
      return FramePool<>::bytes(s.pages);
    case Part::kFramePool:
      return FramePool<>::bytes(s.frames);
    case Part::kOpenPool:
      return FramePool<>::bytes(s.open_frames);
    case Part::kLimbo:
      return Limbo<>::bytes(s.frames);
    case Part::kOpenLimbo:
      return Limbo<>::bytes(s.open_frames);
    case Part::kFrameFlags:
      return size_t{s.frames} + s.open_frames;
    case Part::kLeases:
      return LeaseTable::bytes(s.leases);
    case Part::kLeasePool:
      return FramePool<>::bytes(s.leases);
    case Part::kSpaces:
      return NamespaceTable::bytes(s.spaces);
    case Part::kClock:
      return EpochClock<>::bytes(s.guards);
    case Part::kLog:
      return EpochLog<>::bytes();
    case Part::kStreams:
      return StreamTable<>::bytes(s.streams);
    case Part::kStats:
      return Stats::bytes();
    case Part::kEvents:
      return EventRing::bytes();
    case Part::kTokens:
      return s.keeps_tokens == 0 ? 0 : size_t{s.pages} * s.page_tokens * sizeof(uint32_t);
  }
  return 0;
}

Tables::Tables(const Region &region) noexcept
    : pages(region.part(Part::kPages), shape_of(region).pages),
      index(region.part(Part::kIndex), pages),
      page_pool(pool_at(region, Part::kPagePool, shape_of(region).pages)),
      frame_pool(pool_at(region, Part::kFramePool, shape_of(region).frames)),
      open_pool(pool_at(region, Part::kOpenPool, shape_of(region).open_frames)),
      limbo(region.part(Part::kLimbo), shape_of(region).frames),
      open_limbo(region.part(Part::kOpenLimbo), shape_of(region).open_frames),
      leases(region.part(Part::kLeases), shape_of(region).leases,
             pool_at(region, Part::kLeasePool, shape_of(region).leases)),
      spaces(region.part(Part::kSpaces), shape_of(region).spaces),
      clock(region.part(Part::kClock), shape_of(region).guards),
      log(region.part(Part::kLog)),
      stats(region.part(Part::kStats)),
      events(region.part(Part::kEvents)),
      frame_flags(static_cast<std::atomic<uint8_t> *>(region.part(Part::kFrameFlags))),
      open_frame_flags(frame_flags + shape_of(region).frames),
      tokens(shape_of(region).keeps_tokens == 0
                 ? nullptr
                 : static_cast<std::atomic<uint32_t> *>(region.part(Part::kTokens))) {}

void Tables::format() noexcept {
  pages.format();
  index.format();
  page_pool.format();
  frame_pool.format();
  open_pool.format();
  limbo.format();
  open_limbo.format();
  spaces.format();
  clock.format();
  log.format();
  stats.format();
  events.format();
  for (uint32_t i = 0; i < leases.capacity(); ++i) clear_lease(*new (&leases.slot(i)) LeaseSlot);
  leases.format();
}

}  // namespace quire
