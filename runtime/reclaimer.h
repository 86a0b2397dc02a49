// Reclaimer: takes pages out of the cache: the oldest leaves when frames are short, and what has
// expired.
//
// VICTIMS IN ORDER. A scan goes over the dense arrays (a tag byte and a stamp a page), counts
// leaves by rank (runtime/policy.h), finds the rank up to which `want` leaves lie, collects those,
// and sorts them by (rank, stamp, deepest first). Then they go one by one, each only if it is still
// what it was. A parent that loses its last child enters the order before the next victim is
// chosen: it may be older than all that remain.
//
// THE QUEUE PERSISTS. Callers ask for a few pages at a time; scanning for each would cost pages /
// few. So a scan collects more (a sixteenth of the table), and what is left is kept, with the bound
// X up to which it was complete: every evictable leaf with an order at or below X was in it. For a
// table that goes by age alone (lru) the queue stays exact, because whatever is not in it stays
// behind X:
//   - a leaf above X then: stamps only grow;
//   - a page published or released since: its stamp is the present epoch, and X lies before the
//     epoch of the scan (entries of that very epoch serve the call that scanned, and no later one);
//   - a page with children then, that has become a leaf since: its last child was evicted, by us,
//     and we have put it in;
//   - a leaf that was pinned then or when its turn came: it is used now; its release stamps it
//     anew.
// And what is in it is checked when its turn comes: pinned or no longer a leaf: out; used since:
// back in at its new place if that is not beyond X, else out.
//   Exact means: with evictions by one thread at a time. A release that read the clock before the
//   scan
// and drops its pin after it can come out late by one queue; a helper (below) that exposes a parent
// leaves it to the next scan.
//   A table with priorities ranks new pages below old ones; there the queue is dropped when the
// clock has moved, so the order is exact as of the beginning of the epoch.
//   A learned table ranks by estimates that a few epochs do not change: there the queue, and the
// table that it was made by, serve until as many have gone as the scan collected for. New pages wait
// for the next scan. Tried: serving it until it is empty, which is never, as each victim exposes its
// parent; pages that came meanwhile, mostly the least worth keeping, stayed, and two thirds of the
// gain were lost.
//
// NOBODY WAITS. The queue is taken by a compare-and-swap on `owner`. Who does not get it scans
// windows of the table on its own, each from its own place on, takes the oldest of each, and goes
// on until it has enough or was once round the whole table in vain. A thread that stops while it
// owns the queue costs others exactness, not progress. That a call came out empty means that
// nothing could be evicted only if nobody else evicted meanwhile: evicted() tells
// (runtime/frame_supply.h).
//
// EXPIRY. Idle: stamp < the epoch that had begun by now - ttl (runtime/epoch_log.h), so never
// early. Absolute: the descriptor's expiry_ms, and a child's is never later than its parent's.
// Dead: the sink says that the page's namespace was emptied. Leaves only, then up the chain while
// the parent has expired too. Pinned pages are left for a later pass.
//
// NAMESPACES may have floors, which it leaves alone when it evicts for others, and give up pages of
// their own: runtime/reclaimer_spaces_inl.h.
//
// STAMPS are 32 bits, compared by signed difference. Every 2^28 epochs, at the latest, lift()
// raises those older than 2^30 to that age, so no two are ever 2^31 apart. Who moves the clock calls
// lift_in_time(): a cache that is only hit, and never short of frames, has no other pass.
//
// Invariants (validate()): queue entries are sorted; no entry is beyond the bound.
// Thread class: any thread, any time; the background thread is just one more.
// Cost: a scan reads a byte a page, and a stamp for leaves; a victim costs its descriptor, bin and
// parent. Memory: 32 bytes a page collected, kept; none in the region.
#ifndef QUIRE_RUNTIME_RECLAIMER_H_
#define QUIRE_RUNTIME_RECLAIMER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "allocators/atomics.h"
#include "allocators/frame_pool.h"
#include "runtime/epoch_clock.h"
#include "runtime/epoch_log.h"
#include "runtime/evict.h"
#include "runtime/page_table.h"
#include "runtime/policy.h"
#include "runtime/prefix_index.h"

namespace quire {

// Runs body(context, chunk) for each chunk, in any order, in any threads, and returns after the
// last.
class ScanRunner {
 public:
  using Body = void (*)(void *context, uint32_t chunk);
  virtual ~ScanRunner() = default;
  virtual void run(uint32_t chunks, Body body, void *context) noexcept {
    for (uint32_t i = 0; i < chunks; ++i) body(context, i);
  }
};

// A task arena of oneTBB with `threads` slots, on a NUMA node (-1: any), at low priority. nullptr
// where that cannot be had; with one thread it runs in the caller.
std::unique_ptr<ScanRunner> make_task_runner(uint32_t threads, int numa_node) noexcept;

struct ReclaimCounts {
  uint64_t passes = 0;   // scans of the whole table
  uint64_t scanned = 0;  // pages that any scan looked at
  uint64_t evicted[kEvictReasons] = {};
  uint64_t helped = 0;  // calls that found the queue taken
};

struct ExpireResult {
  uint32_t idle = 0, expired = 0, dead = 0;
  uint32_t pinned = 0;            // expired or dead, but held
  uint64_t next_ms = UINT64_MAX;  // when the next page that is there now may expire
  uint32_t total() const noexcept { return idle + expired + dead; }
};

template <class A = StdAtomics, class Index = PrefixIndex<A>, class Orders = EvictOrders>
class BasicReclaimer {
 public:
  using Pages = typename Index::Pages;
  template <class T>
  using atomic = typename A::template atomic<T>;

  // Views over the region. The sink and the runner (nullptr: in the caller) outlive the reclaimer.
  struct Parts {
    Pages pages;
    Index index;
    FramePool<A> page_pool;
    EpochClock<A> clock;
    EpochLog<A> log;
    EvictSink *sink = nullptr;
    ScanRunner *runner = nullptr;
    const atomic<uint8_t> *learned = nullptr;  // a class a page; nullptr: no table is learned
  };

  BasicReclaimer(const Parts &parts, const PolicyTable &table) noexcept;
  BasicReclaimer(const BasicReclaimer &) = delete;
  BasicReclaimer &operator=(const BasicReclaimer &) = delete;

  // Evicts n pages, in order; fewer where no more can be evicted. Returns how many.
  uint32_t reclaim(uint32_t n) noexcept;
  // The same by the pages' own words, in no good order: an evictor that was stopped after it
  // dropped a page's last child, and before it wrote the hint, hides that page from scans. Costs a
  // line a page.
  uint32_t reclaim_closely(uint32_t n) noexcept { return reclaim_window(n, false); }
  // Threads that evict something or hold victims that they have not given back. Those that only
  // look for some do not count: many that find a cache all pinned would take each other for
  // evictors. acquire: pairs with give_back(): who does not see it there sees what it gave back.
  uint32_t running() const noexcept { return running_.load(kAcquire); }
  // Pages evicted and given back, ever.
  uint64_t evicted() const noexcept { return given_back_.load(kAcquire); }

  // Evicts n pages of one namespace, in order, whatever its floor. Returns how many. O(pages).
  uint32_t reclaim_space(uint32_t space, uint32_t n, EvictReason reason) noexcept;
  // A namespace has a floor, or is about to have one: the sink is asked from here on.
  void guard_floors() noexcept { guarded_.store(1, kRelaxed); }

  // Another policy; its order holds from the next call on. False without memory.
  bool set_policy(const PolicyTable &table) noexcept;

  // Evicts all leaves that have expired by now_ms or are dead, and up their chains.
  ExpireResult expire(uint64_t now_ms) noexcept;
  // The same if there can be any: a TTL is in use and one may be due, or a namespace was emptied.
  bool expiry_due(uint64_t now_ms) const noexcept;
  // A page got a TTL that may make it expire at that time. Without an argument: nobody knows when;
  // a pass comes within kTtlPeriodMs.
  void note_ttl(uint64_t due_ms) noexcept;
  void note_ttl() noexcept { note_ttl(expired_ms_.load(kRelaxed) + kTtlPeriodMs); }
  // A namespace was emptied.
  // release: pairs with expire(): the pass finds the pages dead.
  void note_dead() noexcept { new_dead_.store(1, kRelease); }

  // Raises stamps older than 2^30 epochs. Returns how many.
  uint32_t lift() noexcept;
  // The same once in 2^28 epochs. Cost otherwise: two loads. reclaim() and expire() do it, too.
  void lift_in_time() noexcept;

  ReclaimCounts counts() const noexcept;
  // At rest.
  bool validate() const noexcept;

  static constexpr uint32_t kMostAge = uint32_t{1} << 30;
  static constexpr uint64_t kLiftEvery = uint64_t{1} << 28;
  static constexpr uint64_t kTtlPeriodMs = 16;

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;
  static constexpr std::memory_order kAcquire = std::memory_order_acquire;
  static constexpr std::memory_order kRelease = std::memory_order_release;
  static constexpr std::memory_order kAcqRel = std::memory_order_acq_rel;
  static constexpr uint32_t kChunk = 64 * 1024;   // pages a task of a scan
  static constexpr uint32_t kWindow = 32 * 1024;  // pages of a helper's scan
  static constexpr uint32_t kPicks = 64;          // victims that it takes of one
  static constexpr uint32_t kShare = 16;          // a scan collects at least a 1/16 of the pages
  static constexpr uint32_t kClimb = 4;           // pages up a chain whose bins are asked for ahead

  // key: rank:8 | stamp, from `base` on:32 | complement of the depth:24. Less goes first.
  struct Entry {
    uint64_t key;
    uint32_t page;
    friend bool operator<(const Entry &a, const Entry &b) noexcept {
      return a.key != b.key ? a.key < b.key : a.page < b.page;
    }
  };
  static constexpr unsigned kRankShift = 56, kStampShift = 24;
  static constexpr uint64_t kDeepest = (uint64_t{1} << kStampShift) - 1;

  // How pages compare, as of an epoch. For a stamp that is later, its age is 0.
  struct Order {
    const PolicyTable *table;
    uint32_t now;
    const atomic<uint8_t> *learned;
    static constexpr uint32_t kBack = uint32_t{1} << 31;  // `base` lies so far before `now`

    static uint32_t age(uint32_t at, uint32_t stamp) noexcept {
      const uint32_t age = at - stamp;
      return static_cast<int32_t>(age) < 0 ? 0 : age;
    }
    // relaxed: an estimate of the page's worth, by the learner's last look.
    uint32_t rank(uint32_t page, uint8_t tag, uint32_t stamp) const noexcept {
      const uint32_t cls = table->learned ? learned[page].load(kRelaxed) : policy_class(tag);
      return table->rank[cls % kPolicyClasses][age_bucket(age(now, stamp))];
    }
    uint64_t key(uint32_t rank, uint32_t stamp) const noexcept {
      return uint64_t{rank} << kRankShift | uint64_t{stamp - (now - kBack)} << kStampShift;
    }
    static uint64_t deepest_first(uint32_t depth) noexcept {
      return depth < kDeepest ? kDeepest - depth : 0;
    }
    // Where a page stands now.
    Entry place(const Pages &pages, uint32_t page) const noexcept {
      const uint32_t stamp = pages.stamp(page);
      const uint64_t depth = deepest_first(pages[page].depth.load(kRelaxed));
      return {key(rank(page, pages.page_class(page), stamp), stamp) | depth, page};
    }
  };

  // An array of entries that grows, and says so where it cannot.
  struct Entries {
    std::unique_ptr<Entry[]> at;
    size_t size = 0, room = 0;
    bool reserve(size_t n) noexcept;
    bool push(const Entry &entry) noexcept;
  };
  struct Histogram {
    uint32_t count[kAgeBuckets];
  };
  // What the tasks of a scan share.
  struct Scan {
    BasicReclaimer *self;
    Order order;
    uint32_t limit;        // the last rank that is collected
    Histogram *histogram;  // of each chunk
    size_t *filled;        // per chunk: entries written
    const size_t *begin;   // per chunk: where its entries go, chunks + 1 of them
    Entry *out;
    const Shield *shield;  // nullptr: nothing is passed over
  };
  // The best of a window.
  struct Picks {
    Entry at[kPicks];
    uint32_t size = 0;
    bool wants(uint64_t key) const noexcept;
    void offer(const Entry &entry) noexcept;
    bool pop(Entry *out) noexcept;
    uint32_t worst = 0;
  };
  struct ExpirePass;

  bool try_own() noexcept {
    uint32_t free = 0;
    // acquire: pairs with disown(): the queue as its last owner left it.
    return owner_.compare_exchange_strong(free, 1, kAcqRel, kRelaxed);
  }
  void disown() noexcept { owner_.store(0, kRelease); }

  Order order_of_queue() const noexcept {
    return {&table_, static_cast<uint32_t>(built_), parts_.learned};
  }
  void begin_call() noexcept;
  void take_table() noexcept;
  void clear_queue() noexcept;
  uint32_t reclaim_owned(uint32_t n) noexcept;
  uint32_t reclaim_window(uint32_t n, bool by_hint) noexcept;
  uint32_t pick_window(uint32_t window, bool by_hint, const Order &order, Picks *picks) noexcept;
  uint32_t evict_picks(Picks &picks, uint32_t n, const Order &order, EvictBatch *batch) noexcept;
  bool refill(uint32_t want) noexcept;
  bool collect(uint64_t want, size_t *leaves) noexcept;
  void keep_evictable(uint64_t want, bool all) noexcept;
  bool pop(Entry *out) noexcept;
  void enter(const Entry &entry) noexcept;
  void ask_for_bin(uint32_t page) const noexcept;
  void ask_for_next(uint32_t steps) const noexcept;
  template <class F>
  uint32_t climb(uint32_t page, uint32_t steps, F &&f) const noexcept;
  void look_ahead(uint32_t page) const noexcept;
  // kNone for *exposed: nobody, or pinned, or it was not evicted. Gives a full batch back.
  // own: whatever the floor of its namespace.
  bool evict(uint32_t page, EvictReason reason, EvictBatch *batch, uint32_t *exposed,
             bool own) noexcept;
  void give_back(EvictBatch *batch) noexcept;
  template <class F>
  void for_leaves(uint32_t begin, uint32_t end, F &&f) const noexcept;
  void count_chunk(const Scan &scan, uint32_t chunk) const noexcept;
  void collect_chunk(const Scan &scan, uint32_t chunk) const noexcept;
  void run_chunks(uint32_t chunks, ScanRunner::Body body, Scan *scan) const noexcept;
  uint32_t chunks() const noexcept { return (parts_.pages.capacity() + kChunk - 1) / kChunk; }
  bool read_shield(Shield *out) const noexcept;
  bool shielded(const Shield &shield, uint32_t page) const noexcept;
  template <class F>
  void for_leaves_of(uint8_t space, F &&f) const noexcept;
  bool has_expired(uint32_t page, ExpirePass &pass, EvictReason *reason) noexcept;
  void expire_chain(uint32_t page, ExpirePass &pass) noexcept;

  Parts parts_;
  Policy<A> policy_;

  // The queue; under `owner_`.
  PolicyTable table_;  // the copy that its order goes by
  uint32_t table_version_ = 0;
  Entries sorted_, heap_, spare_;
  size_t cursor_ = 0;
  uint32_t climbed_ = 0;  // parents exposed since the last victim that was found by the scan
  uint64_t bound_ = 0;    // complete up to this key; nothing beyond is given out
  uint64_t built_ = 0;    // epoch of the scan
  uint64_t left_ = 0;     // learned: victims that it may still give
  bool starved_ = false;  // the last scan found no memory
  atomic<uint32_t> owner_;

  atomic<uint32_t> running_;
  atomic<uint64_t> given_back_;
  atomic<uint32_t> next_window_;
  atomic<uint32_t> new_dead_;
  atomic<uint32_t> guarded_;     // 1: namespaces may have floors
  atomic<uint64_t> next_ms_;     // when the next expiry pass is due; UINT64_MAX: no TTL is in use
  atomic<uint64_t> expired_ms_;  // the last pass
  atomic<uint64_t> lifted_;      // epoch of the last lift()
  atomic<uint64_t> passes_, scanned_, helped_;
  atomic<uint64_t> evicted_[kEvictReasons];
};

using Reclaimer = BasicReclaimer<>;

}  // namespace quire

#include "runtime/reclaimer_expiry_inl.h"  // IWYU pragma: export
#include "runtime/reclaimer_inl.h"         // IWYU pragma: export
#include "runtime/reclaimer_spaces_inl.h"  // IWYU pragma: export

#endif  // QUIRE_RUNTIME_RECLAIMER_H_
