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
// Fields of the descriptor that mean something here: meta, key, space_generation, flags
// (kSpaceZero).
//
// A recycled slot starts at the generation after its last one, whatever root it had: pages of the
// former namespace are all gone (children == 0), so this only spares a store.
//
// Invariant, quiescent: children(namespace) == visible pages with descriptor.space == it
//
// Thread class: any. Cost: find is one probe of a small table; enter (which creates) is an insert.
#pragma once

#include <cstdint>

#include "allocators/frame_pool.h"
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

inline constexpr uint16_t kSpaceZero = 1;  // frames are zeroed before anybody else gets them

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

  // Inside it: n more pages, n less. add: false at the limit of the counter. All publishers write
  // this word: take what a call may need at once, and give back what it did not.
  bool add_pages(uint32_t number, uint32_t n) noexcept {
    static_assert(kMostPages <= Meta<SpaceWidths>::kChildrenHalf / 8);
    return n <= kMostPages && table_.add_child(number, n);
  }
  void drop_pages(uint32_t number, uint32_t n) noexcept {
    if (n != 0) table_.drop_child(number, n);
  }
  void drop_page(uint32_t number) noexcept { table_.drop_child(number); }
  uint32_t pages(uint32_t number) const noexcept { return table_.view(number).children; }

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

  // Inside it. A namespace with settings keeps a pin of its own, so that it is not recycled. The
  // pin comes before the flag and goes after it; of two callers at once, the one that changes the
  // flag moves the pin.
  Status set_zero(uint32_t number, bool zero) noexcept {
    auto &flags = table_[number].flags;
    if (zero) {
      if (!table_.add_ref(number)) {
        return set_error(Status::kBusy, "too many calls are inside this namespace");
      }
      // acq_rel: pairs with itself and with the acquire in zero().
      if ((flags.fetch_or(kSpaceZero, std::memory_order_acq_rel) & kSpaceZero) != 0) {
        table_.unpin(number);
      }
    } else if ((flags.fetch_and(static_cast<uint16_t>(~kSpaceZero), std::memory_order_acq_rel) &
                kSpaceZero) != 0) {
      table_.unpin(number);
    }
    return Status::kOk;
  }
  bool zero(uint32_t number) const noexcept {
    return (table_[number].flags.load(std::memory_order_acquire) & kSpaceZero) != 0;
  }

  bool validate() const { return table_.validate() && index_.validate() && pool_.validate(); }

 private:
  Namespace describe(uint32_t number) const noexcept {
    return {number, generation(number), zero(number)};
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
