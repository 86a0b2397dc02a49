// Tables: typed views of a region's parts, in one place for whoever works on it: the cache that
// made it, and a reader that attached to it from outside (which uses const members only: its
// mapping is read-only).
//
// Holds no state of its own. Views are two or three words each; they are built once.
#pragma once

#include "allocators/atomics.h"
#include "allocators/frame_pool.h"
#include "runtime/epoch_clock.h"
#include "runtime/epoch_log.h"
#include "runtime/event_ring.h"
#include "runtime/lease_table.h"
#include "runtime/limbo.h"
#include "runtime/namespace_table.h"
#include "runtime/page_table.h"
#include "runtime/prefix_index.h"
#include "runtime/region.h"
#include "runtime/stats.h"

namespace quire {

// A byte a frame: it held a page of a namespace that must be zeroed before the next owner; its page
// header was written.
inline constexpr uint8_t kFrameZero = 1;
inline constexpr uint8_t kFrameInitialised = 2;

struct Tables {
  explicit Tables(const Region &region) noexcept;

  // Makes every part empty. Once, by the region's maker, before finish().
  void format() noexcept;

  PageTable<> pages;
  PrefixIndex<> index;
  FramePool<> page_pool;
  FramePool<> frame_pool;
  FramePool<> open_pool;
  Limbo<> limbo;
  Limbo<> open_limbo;
  LeaseTable leases;
  NamespaceTable spaces;
  EpochClock<> clock;
  EpochLog<> log;
  Stats stats;
  EventRing events;
  std::atomic<uint8_t> *frame_flags;
  std::atomic<uint8_t> *open_frame_flags;
  std::atomic<uint32_t> *tokens;  // nullptr unless the cache keeps token ids
};

// Bytes of each part for these capacities.
size_t part_bytes(Part part, const Shape &shape) noexcept;

}  // namespace quire
