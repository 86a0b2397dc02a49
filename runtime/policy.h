// Policy: which of two leaves goes first. A table from (class, age) to a rank; lowest rank goes
// first, and within a rank the oldest, and of one age the deepest.
//
//   tag[page]   | leaf:1 | idle:1 | expires:1 | priority:2 | class:3 |      runtime/page_table.h
//     leaf      the page table's hint; the rest is the caller's retention
//     idle      the page has an idle TTL; expires: an absolute one (so that a pass looks only there)
//     priority  0 lowest .. 3 highest, 1 is normal
//     class     whatever the caller means by it, 0 .. 7
//
//   age_bucket  ages 0 .. 7 one each, from there 8 buckets an octave: 240 for all of 2^32 epochs
//   rank        [class: 128][age bucket: 256], 32 KiB, immutable
//
// `lru` ignores the class: rank = how young. `priority` gives each priority 64 ranks of its own; its
// class is the tag's low 5 bits. Both fall with age in every class; so (rank, stamp) orders as
// (priority, stamp) does, exactly, although ranks are coarse. `hazard` has its classes from
// runtime/learner.h, a byte a page beside the tags, and ranks that rise and fall with age.
//
// A table is swapped whole, while others read it: a reader holds a guard, the former table waits
// until the guards that could see it are gone (runtime/epoch_clock.h). Who swaps frees what has
// passed. A scan may run in tasks, and no guard is held across a wait for those: it works on a
// copy.
//
// Thread class: any thread. Cost: a look-up in the rows of the classes in use, 256 bytes each.
#ifndef QUIRE_RUNTIME_POLICY_H_
#define QUIRE_RUNTIME_POLICY_H_

#include <bit>
#include <cstdint>
#include <new>

#include "allocators/atomics.h"
#include "runtime/epoch_clock.h"

namespace quire {

inline constexpr uint8_t kTagIdle = 0x40;
inline constexpr uint8_t kTagExpires = 0x20;
inline constexpr uint32_t kPriorities = 4;
inline constexpr uint32_t kTagClasses = 32;      // what a tag tells: priority and the caller's
inline constexpr uint32_t kPolicyClasses = 128;  // of a table
inline constexpr uint32_t kAgeBuckets = 256;

// priority 0 .. 3, cls 0 .. 7.
constexpr uint8_t with_priority(uint8_t tag, uint32_t priority) noexcept {
  return static_cast<uint8_t>((tag & ~0x18u) | (priority & 3) << 3);
}
constexpr uint8_t with_class(uint8_t tag, uint32_t cls) noexcept {
  return static_cast<uint8_t>((tag & ~0x07u) | (cls & 7));
}
constexpr uint32_t priority_of(uint8_t tag) noexcept {
  return tag >> 3 & 3;
}
constexpr uint32_t class_of(uint8_t tag) noexcept {
  return tag & 7;
}
// What a table that is not learned is indexed by.
constexpr uint32_t policy_class(uint8_t tag) noexcept {
  return tag & (kTagClasses - 1);
}

constexpr uint32_t age_bucket(uint32_t age) noexcept {
  if (age < 8) return age;
  const auto octave = static_cast<uint32_t>(std::bit_width(age)) - 1;
  return (octave - 2) * 8 + (age >> (octave - 3) & 7);
}
inline constexpr uint32_t kOldestBucket = age_bucket(UINT32_MAX);

struct PolicyTable {
  // Of two leaves the one with the lower stamp goes first, whatever their classes: then a queue of
  // victims stays right while new pages come (runtime/reclaimer.h).
  bool age_only;
  bool learned;  // a page's class is what the learner says
  uint8_t rank[kPolicyClasses][kAgeBuckets];

  static constexpr PolicyTable lru() noexcept {
    PolicyTable table{};
    table.age_only = true;
    table.learned = false;
    for (auto &of_class : table.rank) {
      for (uint32_t bucket = 0; bucket < kAgeBuckets; ++bucket) of_class[bucket] = young(bucket, 1);
    }
    return table;
  }
  static constexpr PolicyTable by_priority() noexcept {
    PolicyTable table{};
    table.age_only = false;
    table.learned = false;
    for (uint32_t cls = 0; cls < kTagClasses; ++cls) {
      const uint32_t first = (cls >> 3) * (256 / kPriorities);
      for (uint32_t bucket = 0; bucket < kAgeBuckets; ++bucket) {
        table.rank[cls][bucket] = static_cast<uint8_t>(first + young(bucket, kPriorities));
      }
    }
    return table;
  }

 private:
  static constexpr uint8_t young(uint32_t bucket, uint32_t shares) noexcept {
    const uint32_t age = bucket < kOldestBucket ? bucket : kOldestBucket;
    return static_cast<uint8_t>((kOldestBucket - age) / shares);
  }
};

// The table in force. Owns it and the former ones that a guard may still see.
template <class A = StdAtomics>
class Policy {
  template <class T>
  using atomic = typename A::template atomic<T>;
  struct Node {
    PolicyTable table;
    Node *next;
    uint64_t retired;
  };

 public:
  Policy() {
    current_.store(0, std::memory_order_relaxed);
    retired_.store(0, std::memory_order_relaxed);
    version_.store(0, std::memory_order_relaxed);
  }
  Policy(const Policy &) = delete;
  Policy &operator=(const Policy &) = delete;
  // When nobody uses it any more.
  ~Policy() {
    delete node_of(current_.load(std::memory_order_acquire));
    for (Node *node = node_of(retired_.load(std::memory_order_acquire)); node != nullptr;) {
      Node *next = node->next;
      delete node;
      node = next;
    }
  }

  // Under a guard, until which is left the table is there. nullptr before the first set().
  const PolicyTable *get() const noexcept {
    // acquire: pairs with set().
    const Node *node = node_of(current_.load(std::memory_order_acquire));
    return node == nullptr ? nullptr : &node->table;
  }

  // How many tables have been set: whoever keeps a copy looks here before he uses it.
  // acquire: pairs with set(): the table of that version is in force.
  uint32_t version() const noexcept { return version_.load(std::memory_order_acquire); }

  // The table in force, copied under a guard; false where there is none, or no guard was free.
  bool copy(EpochClock<A> &clock, PolicyTable *out) const noexcept {
    const Guard<A> guard(clock);
    if (!guard.held()) return false;
    const PolicyTable *table = get();
    if (table != nullptr) *out = *table;
    return table != nullptr;
  }

  // False, and nothing changed, where there is no memory for it.
  bool set(const PolicyTable &table, EpochClock<A> &clock) noexcept {
    Node *node = new (std::nothrow) Node{table, nullptr, 0};
    if (node == nullptr) return false;
    // acq_rel: release pairs with get(); acquire makes the former node whole for us.
    Node *former = node_of(current_.exchange(word_of(node), std::memory_order_acq_rel));
    version_.fetch_add(1, std::memory_order_release);
    if (former != nullptr) {
      former->retired = clock.retire_epoch();
      push(former);
    }
    collect(clock);
    return true;
  }

  // Frees the former tables that no guard can see. Returns how many are left.
  uint32_t collect(EpochClock<A> &clock) noexcept {
    uint32_t left = 0;
    // acquire: pairs with push(). Whole or not at all, so there is no ABA.
    Node *node = node_of(retired_.exchange(0, std::memory_order_acq_rel));
    const uint64_t least = clock.min_guard();
    while (node != nullptr) {
      Node *next = node->next;
      if (node->retired < least) {
        delete node;
      } else {
        push(node);
        ++left;
      }
      node = next;
    }
    return left;
  }

 private:
  static Node *node_of(uintptr_t word) noexcept { return reinterpret_cast<Node *>(word); }
  static uintptr_t word_of(const Node *node) noexcept { return reinterpret_cast<uintptr_t>(node); }

  void push(Node *node) noexcept {
    uintptr_t head = retired_.load(std::memory_order_relaxed);
    do {
      node->next = node_of(head);
      // release: pairs with the exchange in collect().
    } while (!retired_.compare_exchange_weak(head, word_of(node), std::memory_order_acq_rel,
                                             std::memory_order_relaxed));
  }

  atomic<uintptr_t> current_;  // Node *; as numbers, which the models' atomics can show
  atomic<uintptr_t> retired_;
  atomic<uint32_t> version_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_POLICY_H_
