// NamespaceTable: the namespaces of a cache, by root key.
//
// A second instance of the page table and its index, with other widths of the state word: a
// namespace is a "page" whose key is its root and whose children are the pages in it. So it is
// found without a lock, is unique per root, cannot go away while a page or a pin holds it, and its
// place is taken over, when the table is full, by the same eviction that pages know.
//
// Its generation counter (descriptor.space_generation) is what quire_evict bumps. A page carries
// the generation under which it was published; with another it is dead: the index passes over it
// (runtime/prefix_index.h, Liveness), so one store makes every page of the namespace a miss, and
// new pages under the same keys take their places at once.
//
// TWO COUNTS, one from each side, so that a limit from above and one from below are both kept while
// pages come and go:
//
//   pages (children)  raised after pages were published; lowered after they were evicted, but before
//                     the eviction where the namespace has a floor
//   claimed           raised before pages are published; lowered after they were evicted, or by what
//                     was not published after all
//
//   visible pages <= claimed <= quota, as far as the quota is not lowered below what is there
//   floor <= pages <= visible pages, as far as evictions for others go (take_page)
//   at rest: pages == claimed == visible pages with descriptor.space == it
//
// A quota bounds claimed: claim() takes what there is room for. A floor bounds pages: take_page()
// lowers it only while it is above the floor, and whoever may not take it leaves the page alone. One
// compare-and-swap each, so neither is ever overrun, however many publish and evict at once. Nobody
// stores `claimed`, all add and subtract: what a late evictor still has to subtract from a slot that
// was recycled under it cancels, as a late finder's pin does.
//
// Settings are changed by one call at a time: a second one meanwhile is kBusy. A namespace that has
// any keeps a pin of its own, so that it is not recycled.
//
// Fields of the descriptor that mean something here: meta, key, space_generation, flags (kSpace...),
// expiry_ms (claimed), frame (quota, 0: none), lease (floor).
//
// A recycled slot starts at the generation after its last one, whatever root it had: pages of the
// former namespace are all gone (children == 0), so this only spares a store.
//
// Thread class: any. Cost: find is one probe of a small table; enter (which creates) is an insert.
#pragma once

#include <algorithm>
#include <cstdint>

#include "allocators/frame_pool.h"
#include "runtime/evict.h"
#include "runtime/handle.h"
#include "runtime/page_table.h"
#include "runtime/prefix_index.h"
#include "runtime/status.h"

namespace quire {

// Up to 2^29 pages, 2^15 callers inside at once.
struct SpaceWidths {
  static constexpr int kRef = 16, kChildren = 30, kState = 2, kGeneration = 15;
};

struct Namespace {
  uint32_t number = kNoIndex;
  uint32_t generation = 0;
  bool zero = false;
};

inline constexpr uint16_t kSpaceZero = 1;     // frames are zeroed before anybody else gets them
inline constexpr uint16_t kSpaceKept = 2;     // has settings, and a pin for them
inline constexpr uint16_t kSpaceSetting = 4;  // a call is changing them

class NamespaceTable {
 public:
  using Table = PageTable<StdAtomics, SpaceWidths>;
  using Index = PrefixIndex<StdAtomics, IndexTraits, SpaceWidths>;

  static constexpr uint32_t kMostPages = uint32_t{1} << 26;  // of one call

  static size_t bytes(uint32_t capacity) noexcept {
    return align_up(Table::bytes(capacity), 128) + align_up(Index::bytes(capacity), 128) +
           FramePool<>::bytes(capacity);
  }

  NamespaceTable(void *memory, uint32_t capacity) noexcept
      : table_(memory, capacity),
        index_(static_cast<char *>(memory) + align_up(Table::bytes(capacity), 128), table_),
        pool_(static_cast<char *>(memory) + align_up(Table::bytes(capacity), 128) +
                  align_up(Index::bytes(capacity), 128),
              capacity) {}

  void format() noexcept {
    table_.format();
    for (uint32_t i = 0; i < capacity(); ++i) {
      table_[i].expiry_ms.store(0, std::memory_order_relaxed);
      table_[i].frame.store(0, std::memory_order_relaxed);
      table_[i].lease.store(0, std::memory_order_relaxed);
    }
    index_.format();
    pool_.format();
  }

  uint32_t capacity() const noexcept { return table_.capacity(); }
  uint32_t live() const noexcept { return capacity() - pool_.available(); }
  const Table &table() const noexcept { return table_; }

  uint32_t generation(uint32_t number) const noexcept {
    // acquire: pairs with the release in bump().
    return table_[number].space_generation.load(std::memory_order_acquire);
  }

  // False: no page was ever published in it, or all are gone and so is the namespace. No pin: what
  // is found may be recycled at any time; then its generation's keys name nothing.
  bool find(const Key &root, Namespace *out) const noexcept {
    const uint32_t number = index_.peek(root);
    if (number == kNoIndex) return false;
    *out = describe(number);
    return true;
  }

  // Finds or creates it, and pins it until leave(). kNomem: all are in use.
  Status enter(const Key &root, Namespace *out) noexcept {
    for (;;) {
      const uint32_t number = index_.find_and_pin(root);
      if (number != kNoIndex) {
        *out = describe(number);
        return Status::kOk;
      }
      uint32_t fresh;
      if (!pool_.alloc(1, &fresh) && !recycle(&fresh)) {
        return set_error(Status::kNomem, "all %u namespaces are in use (max_namespaces)",
                         capacity());
      }
      const uint32_t life = table_.generation(fresh);
      auto &d = table_[fresh];
      d.parent.store(kNoIndex, std::memory_order_relaxed);
      d.flags.store(0, std::memory_order_relaxed);
      const Insert inserted = index_.insert(root, fresh);
      if (inserted.status == Insert::kInserted) {
        *out = describe(fresh);
        return Status::kOk;
      }
      table_.free_private(fresh, life);
      pool_.free(&fresh, 1);
      if (inserted.status == Insert::kFound) {
        *out = describe(inserted.page);
        return Status::kOk;
      }
      if (inserted.status == Insert::kFull) {
        return set_error(Status::kNomem, "no room for this namespace in the table of %u",
                         capacity());
      }
      return set_error(Status::kBusy, "too many calls are inside this namespace");
    }
  }
  void leave(uint32_t number) noexcept { table_.unpin(number); }

  // What a lease keeps of a namespace, to find it again without its key: number:24 | life:8, kNoIndex
  // where there is none. A namespace with settings is not recycled, so for one of those it stays true;
  // the life tells one that lost them and was.
  uint32_t name_of(const Key &root) const noexcept {
    const uint32_t number = index_.peek(root);
    return number == kNoIndex ? kNoIndex : number | table_.generation(number) << 24;
  }
  uint32_t number_of(uint32_t name) const noexcept {
    const uint32_t number = name & 0xffffff;
    if (name == kNoIndex || number >= capacity()) return kNoIndex;
    return name == (number | table_.generation(number) << 24) ? number : kNoIndex;
  }

  // Inside it: room for n more pages, or for as many as the quota leaves.
  uint32_t claim(uint32_t number, uint32_t n) noexcept {
    auto &claimed = table_[number].expiry_ms;
    const uint32_t most = quota(number);
    if (most == 0) {
      // relaxed, here and below: a count that orders nothing.
      claimed.fetch_add(n, std::memory_order_relaxed);
      return n;
    }
    uint64_t now = claimed.load(std::memory_order_relaxed);
    uint32_t got;
    do {
      got = now < most ? static_cast<uint32_t>(std::min<uint64_t>(n, most - now)) : 0;
    } while (got != 0 && !claimed.compare_exchange_weak(now, now + got, std::memory_order_relaxed,
                                                        std::memory_order_relaxed));
    return got;
  }
  // Of what was claimed, n were published, in this order: they are counted once they are there.
  void add_pages(uint32_t number, uint32_t n) noexcept {
    for (uint32_t part; n != 0; n -= part) {
      part = std::min(n, kMostPages);
      // Pages are fewer than half of the counter's range.
      static_cast<void>(table_.add_child(number, part));
    }
  }
  void unclaim(uint32_t number, uint32_t n) noexcept {
    if (n != 0) table_[number].expiry_ms.fetch_sub(n, std::memory_order_relaxed);
  }
  // n pages were evicted; `taken` of them had been taken before.
  void drop_pages(uint32_t number, uint32_t n, uint32_t taken = 0) noexcept {
    unclaim(number, n);
    // Last: without pages the namespace may be recycled.
    if (n != taken) table_.drop_child(number, n - taken);
  }

  // Before a page of a namespace with a floor is evicted; own: by itself, or since the page has died.
  // False: it stays. An eviction that fails gives it back by add_pages().
  bool take_page(uint32_t number, bool own) noexcept {
    return table_.drop_child_above(number, own ? 0 : floor(number));
  }

  uint32_t pages(uint32_t number) const noexcept { return table_.view(number).children; }
  uint64_t claimed(uint32_t number) const noexcept {
    return table_[number].expiry_ms.load(std::memory_order_relaxed);
  }
  // relaxed, all of these: a limit that changes while it is looked at held before or holds after.
  uint32_t quota(uint32_t number) const noexcept {
    return table_[number].frame.load(std::memory_order_relaxed);
  }
  uint32_t floor(uint32_t number) const noexcept {
    return table_[number].lease.load(std::memory_order_relaxed);
  }
  // Whether others may not take pages of it at this time.
  bool at_floor(uint32_t number) const noexcept {
    const uint32_t least = floor(number);
    return least != 0 && pages(number) <= least;
  }

  // Inside it: from here on its pages are misses.
  void bump(uint32_t number) noexcept {
    // release: pairs with the acquire in generation().
    table_[number].space_generation.fetch_add(1, std::memory_order_release);
  }

  // The same where it exists; creates nothing. *busy: it is there, with too many callers inside.
  bool enter_existing(const Key &root, Namespace *out, bool *busy) noexcept {
    const uint32_t number = index_.find_and_pin(root, AlwaysAlive{}, busy);
    if (number == kNoIndex) return false;
    *out = describe(number);
    return true;
  }

  // Inside it: the right to change its settings, until end_settings(). kBusy: another call has it.
  Status begin_settings(uint32_t number) noexcept {
    // acq_rel: pairs with end_settings().
    if ((table_[number].flags.fetch_or(kSpaceSetting, std::memory_order_acq_rel) & kSpaceSetting) !=
        0) {
      return set_error(Status::kBusy, "another call is changing the settings of this namespace");
    }
    // The pin of settings, also while there are none yet: nothing can fail half-way.
    if (kept(number) || table_.add_ref(number)) return Status::kOk;
    unflag(number, kSpaceSetting);
    return set_error(Status::kBusy, "too many calls are inside this namespace");
  }
  // Between the two.
  void set_zero(uint32_t number, bool zero) noexcept {
    if (zero) {
      // release: pairs with the acquire in zero().
      table_[number].flags.fetch_or(kSpaceZero, std::memory_order_release);
    } else {
      unflag(number, kSpaceZero);
    }
  }
  void set_limits(uint32_t number, uint32_t quota, uint32_t floor) noexcept {
    table_[number].frame.store(quota, std::memory_order_relaxed);
    table_[number].lease.store(floor, std::memory_order_relaxed);
  }
  void end_settings(uint32_t number) noexcept {
    const bool any = zero(number) || quota(number) != 0 || floor(number) != 0;
    if (any) {
      table_[number].flags.fetch_or(kSpaceKept, std::memory_order_relaxed);
    } else {
      unflag(number, kSpaceKept);
    }
    unflag(number, kSpaceSetting);
    // Ours from begin_settings(), or the one that was kept. The caller is inside, so it is not the
    // last.
    if (!any) table_.unpin(number);
  }
  bool kept(uint32_t number) const noexcept {
    return (table_[number].flags.load(std::memory_order_relaxed) & kSpaceKept) != 0;
  }
  // Which namespaces are at their floor; false: none.
  bool shield(Shield *out) const noexcept {
    uint32_t at_floor_of[256] = {}, above[256] = {};
    bool any = false;
    for (uint32_t i = 0; i < capacity(); ++i) {
      if (table_.view(i).state != PageState::kVisible) continue;
      const bool at = at_floor(i);
      any |= at;
      ++(at ? at_floor_of : above)[i % 256];
    }
    for (uint32_t b = 0; b < 256; ++b) {
      out->of_byte[b] = at_floor_of[b] == 0 ? Shield::kOpen
                        : above[b] == 0     ? Shield::kAll
                                            : Shield::kSome;
    }
    return any;
  }

  bool zero(uint32_t number) const noexcept {
    return (table_[number].flags.load(std::memory_order_acquire) & kSpaceZero) != 0;
  }

  bool validate() const { return table_.validate() && index_.validate() && pool_.validate(); }

 private:
  Namespace describe(uint32_t number) const noexcept {
    return {number, generation(number), zero(number)};
  }

  void unflag(uint32_t number, uint16_t flag) noexcept {
    // release: pairs with the acquire of the next begin_settings().
    table_[number].flags.fetch_and(static_cast<uint16_t>(~flag), std::memory_order_release);
  }

  // Takes the place of a namespace that has no pages and nobody inside. O(capacity), only when the
  // table is full.
  bool recycle(uint32_t *out) noexcept {
    for (uint32_t i = 0; i < capacity(); ++i) {
      const auto view = table_.view(i);
      if (view.state != PageState::kVisible || view.ref != 0 || view.children != 0) continue;
      if (!table_.begin_evict(i, view.generation)) continue;
      auto &d = table_[i];
      index_.erase(i, Key{d.key_lo.load(std::memory_order_relaxed),
                          d.key_hi.load(std::memory_order_relaxed)});
      d.space_generation.fetch_add(1, std::memory_order_release);
      table_.finish_evict(i);
      *out = i;
      return true;
    }
    return false;
  }

  Table table_;
  Index index_;
  FramePool<> pool_;
};

}  // namespace quire
