// Learner: finds out which pages come back, and when, and makes the table of the policy `hazard`
// (runtime/reuse_model.h) of it.
//
// RECORDS. A release says which chain was used: one record in a bounded ring, whatever its length. The
// learner's own task walks the chains later. A record may drop (the ring was full) or come to
// nothing (the chain went before the walk); both are counted, and cost some evidence.
//
// CLASSES. At each use every page of the chain gets a class, a byte in a dense array that scans read:
//
//   caller:3 | kind:4       caller: of quire_retention, 0 where none was given
//   kind 0   fresh          a page never seen, with no known page above it but trunks
//        1   trunk          three different pages were seen to follow it: many sessions share it
//        2   tail           never seen, at the end of a chain that was known: a session goes on
//        3.. continued      seen before; by the time between the two uses, two octaves a kind
//
// Known is what is there, and what the ghosts (runtime/ghost_list.h) remember of pages that went.
// What the use before this one was, a class and a time ago, is the evidence: one weight in `reused`.
// A page's weight is 1 / the length of the chain, so that a long session is no more than a request.
//
//   seen[page]   what the learner knows of the page that it last saw at that number. A new page there
//                sends it to the ghosts, which need no word of evictions then. Those of one walk
//                go in the order of (last use, key), whatever numbers they had
//   class[page]  0 (fresh) from the eviction on, so that a page that no walk has seen yet is judged as
//                one, not as its predecessor
//
// TABLES. A fit counts all that is known, pages and ghosts, so it comes when a share of that has been
// used since the last one, and not more often than every kFitRecords records. The table is swapped
// whole (runtime/policy.h). With one thread, everything here is a function of the calls.
//
// Invariants (validate(), at rest): known pages = seen with a key; the ghosts'.
// Thread class: note, forget: any, lock free. run: any; who finds another one in it leaves. Cost: note
// a record; a walk two or three lines a page; a fit 2 ns for all that is known. Memory: 17 bytes a
// page and 24 a ghost, kGhosts of them a page, and 0.7 MB.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "allocators/atomics.h"
#include "allocators/heap.h"
#include "runtime/event_ring.h"
#include "runtime/ghost_list.h"
#include "runtime/page_table.h"
#include "runtime/reclaimer.h"
#include "runtime/reuse_model.h"

namespace quire {

// A chain was used.
struct UseRecord {
  uint32_t tail = 0;  // its last page
  uint32_t generation = 0;
  uint32_t pages = 0;
  uint32_t epoch = 0;
  uint8_t cls = 0;  // the caller's, 0 .. 7

  std::array<uint64_t, 2> words() const noexcept {
    return {uint64_t{tail} | uint64_t{pages} << 32,
            uint64_t{epoch} | uint64_t{generation} << 32 | uint64_t{cls} << 56};
  }
  static UseRecord of(const std::array<uint64_t, 2> &w) noexcept {
    UseRecord r;
    r.tail = static_cast<uint32_t>(w[0]);
    r.pages = static_cast<uint32_t>(w[0] >> 32);
    r.epoch = static_cast<uint32_t>(w[1]);
    r.generation = static_cast<uint32_t>(w[1] >> 32) & 0xffffff;
    r.cls = static_cast<uint8_t>(w[1] >> 56);
    return r;
  }
};

struct LearnerCounts {
  uint64_t walked = 0;   // records
  uint64_t broken = 0;   // records whose chain was gone
  uint64_t dropped = 0;  // records that were overwritten before they were walked
  uint64_t fits = 0;
  uint32_t classes = 0;  // known to the table
};

class Learner {
 public:
  static constexpr uint32_t kGhosts = 4;
  static constexpr uint32_t kFitRecords = 16;
  static constexpr uint32_t kFitShare = 8;  // a fit after uses of 1 / 8 of what is known
  static constexpr uint64_t kHalveRecords = 16384;
  static constexpr uint32_t kTrunkFan = 3;
  enum Kind : uint8_t { kFresh = 0, kTrunk = 1, kTail = 2, kContinued = 3 };
  static constexpr uint32_t kKinds = 16;

  explicit Learner(Heap &heap) noexcept
      : seen_(heap),
        class_memory_(heap),
        ghosts_(heap),
        ring_memory_(heap),
        chain_(heap),
        gone_(heap) {}

  // Before sharing. False without memory.
  bool open(const PageTable<> &pages) noexcept;

  const std::atomic<uint8_t> *classes() const noexcept { return class_; }
  const PolicyTable &table() const noexcept { return model_.table(); }

  // By who pins the chain's last page.
  void note(const UseRecord &record) noexcept { ring_.push(record.words()); }
  // By who evicts the page.
  // relaxed: an estimate; the page's next life starts with this one or the walk's.
  void forget(uint32_t page) noexcept { class_[page].store(0, std::memory_order_relaxed); }

  // Walks what was noted, and hands the reclaimer a new table where it is time. False: another
  // thread is in here.
  bool run(Reclaimer &reclaimer) noexcept;

  LearnerCounts counts() const noexcept;
  size_t bytes() const noexcept { return bytes_; }
  // While nobody notes or evicts. True also where somebody is in here.
  bool validate() noexcept;

 private:
  bool enter() noexcept {
    uint32_t free = 0;
    // acquire: pairs with leave(): all that the last one in here has learned.
    return owner_.compare_exchange_strong(free, 1, std::memory_order_acquire,
                                          std::memory_order_relaxed);
  }
  void leave() noexcept { owner_.store(0, std::memory_order_release); }

  using Ring = BasicEventRing<StdAtomics, 4096, 2>;
  struct Link {
    uint32_t page;
    SeenPage seen;  // what was known of it
    bool known;
  };

  bool collect(const UseRecord &record) noexcept;
  size_t know_chain() noexcept;
  void walk(const UseRecord &record) noexcept;
  void send_away(uint32_t now) noexcept;
  bool fit_due() const noexcept;
  void fit(uint32_t now) noexcept;
  static uint8_t kind_of(bool known, uint32_t gap, uint32_t fan, bool tail) noexcept;

  PageTable<> pages_;
  HeapVector<SeenPage> seen_;
  HeapVector<std::byte> class_memory_;
  std::atomic<uint8_t> *class_ = nullptr;  // in that
  GhostList ghosts_;
  HeapVector<std::byte> ring_memory_;
  Ring ring_;
  HeapVector<Link> chain_;  // of the record in hand, first page first
  HeapVector<SeenPage> gone_;
  ReuseModel model_;
  size_t known_pages_ = 0;  // of seen_
  uint64_t records_since_ = 0, pages_since_ = 0, halved_ = 0;
  size_t bytes_ = 0;
  std::atomic<uint32_t> owner_{0};
  std::atomic<uint64_t> walked_{0}, broken_{0}, fits_{0};
  std::atomic<uint32_t> known_classes_{0};
};

}  // namespace quire
