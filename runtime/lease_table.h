// LeaseTable: who holds which chain, since when and until when.
//
// A lease is a slot of 64 bytes in the region (runtime/slot_table.h has its states). Its fields are
// relaxed atomics: verbs read and write them while they are inside; the report of leases (and
// quire-stat, from another process) reads them at any time and takes what it sees, checking the
// word before and after.
//
// Private pages that hang on a lease form a doubly linked list through their descriptors'
// `expiry_ms` word, which means {next:32, previous:32} while a page is private.
//
// Invariants, quiescent
//   pages == 0          <=> tail == none
//   private_pages == 0  <=> private_head == none <=> private_tail == none
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/slot_table.h"

namespace quire {

struct LeaseSlot {
  static constexpr const char *kName = "leases (max_leases)";
  static constexpr const char *kNoun = "lease";

  std::atomic<uint32_t> word;
  std::atomic<uint32_t> tail;           // page, kNoIndex where the chain is empty
  std::atomic<uint32_t> pages;          // length of the chain
  std::atomic<uint32_t> private_head;   // first of its private pages, kNoIndex
  std::atomic<uint32_t> private_tail;   // last of them
  std::atomic<uint32_t> private_pages;  // how many
  std::atomic<uint32_t> flags;
  std::atomic<uint32_t> space;  // its namespace, once one has a floor (NamespaceTable::name_of)
  std::atomic<uint64_t> owner;
  std::atomic<uint64_t> deadline_ms;  // of the cache's clock; 0: none
  std::atomic<uint64_t> taken_ms;
  std::atomic<uint64_t> visitor;  // the call of quire_free that is inside
};
static_assert(sizeof(LeaseSlot) == 64);

using LeaseTable = SlotTable<LeaseSlot>;

// Beside the flags of quire_acquire_options: the lease of a sequence, whose chain and end are the
// sequence's; and one that was reported as past its deadline.
inline constexpr uint32_t kLeaseOfSequence = uint32_t{1} << 31;
inline constexpr uint32_t kLeaseLate = uint32_t{1} << 30;
inline constexpr uint32_t kLeaseFlags = kLeaseLate - 1;  // those of callers

// The state of a lease on nothing; the word is the table's.
inline void clear_lease(LeaseSlot &s) noexcept {
  s.tail.store(kNoIndex, std::memory_order_relaxed);
  s.pages.store(0, std::memory_order_relaxed);
  s.private_head.store(kNoIndex, std::memory_order_relaxed);
  s.private_tail.store(kNoIndex, std::memory_order_relaxed);
  s.private_pages.store(0, std::memory_order_relaxed);
  s.flags.store(0, std::memory_order_relaxed);
  s.space.store(kNoIndex, std::memory_order_relaxed);
  s.owner.store(0, std::memory_order_relaxed);
  s.deadline_ms.store(0, std::memory_order_relaxed);
  s.taken_ms.store(0, std::memory_order_relaxed);
  s.visitor.store(0, std::memory_order_relaxed);
}

// At rest.
inline bool validate_lease(const LeaseSlot &s) noexcept {
  const bool empty = s.pages.load(std::memory_order_relaxed) == 0;
  const bool none = s.private_pages.load(std::memory_order_relaxed) == 0;
  return empty == (s.tail.load(std::memory_order_relaxed) == kNoIndex) &&
         none == (s.private_head.load(std::memory_order_relaxed) == kNoIndex) &&
         none == (s.private_tail.load(std::memory_order_relaxed) == kNoIndex);
}

}  // namespace quire
