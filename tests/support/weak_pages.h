// WeakPages: page table, prefix index and page pool over the simulated weak memory, with what each
// page contains, and a history per key. What threads of a model do with it, one call each; every
// failed judgement throws.
//
// All keys share one bin; generations and versions have 4 bits. A page's content is plain memory:
// written by the owner while the page is private, read under a pin, overwritten once it is evicted.
//
// At rest (check_at_rest): free + private + visible = all; table, index and pool are valid; nothing
// is pinned; each key's history is linearizable in an order that keeps what happened before.
#ifndef QUIRE_TESTS_SUPPORT_WEAK_PAGES_H_
#define QUIRE_TESTS_SUPPORT_WEAK_PAGES_H_

#include <cstdlib>
#include <memory>
#include <vector>

#include "allocators/frame_pool.h"
#include "runtime/evict.h"
#include "runtime/page_table.h"
#include "runtime/prefix_index.h"
#include "tests/support/linearizability.h"
#include "tests/support/scheduler.h"
#include "tests/support/weak_atomics.h"

namespace quire::model {

struct TinyWidths {
  static constexpr int kRef = 4, kChildren = 4, kState = 3, kGeneration = 4;
};
// One bin for all keys, each with its tag.
struct OneBin {
  static constexpr int kVersionBits = 4;
  static constexpr uint64_t bin(const Key &) noexcept { return 0; }
  static constexpr uint32_t tag(const Key &key) noexcept { return static_cast<uint32_t>(key.lo); }
};
// Each key in another bin than its parent: nothing of one is ordered by the other's header.
struct TwoBins : OneBin {
  static constexpr uint64_t bin(const Key &key) noexcept { return key.lo; }
};
// The worst hash: all keys alike until the whole key is compared.
struct OneTag : OneBin {
  static constexpr uint32_t tag(const Key &) noexcept { return 1; }
};

// As many keys as a case has, each the child of the one before where it makes a chain.
inline Key weak_key(uint32_t k) {
  return {k + 1, 77 + k};
}

template <class Traits = OneBin>
class WeakPages final : public EvictSink {
 public:
  using Table = PageTable<WeakAtomics, TinyWidths>;
  using Index = PrefixIndex<WeakAtomics, Traits, TinyWidths>;
  using Pool = FramePool<WeakAtomics>;
  static constexpr uint32_t kKeys = 4;

  explicit WeakPages(uint32_t pages)
      : memory_{memory_of(Table::bytes(pages)), memory_of(Index::bytes(pages)),
                memory_of(Pool::bytes(pages))},
        table(memory_[0].get(), pages),
        index(memory_[1].get(), table),
        pool(memory_[2].get(), pages),
        content(pages),
        released_(pages) {
    table.format();
    index.format((uint64_t{1} << Traits::kVersionBits) - 2);  // Wraps at the second commit.
    pool.format();
  }

  // Pins, looks, unpins with that stamp. Returns the page.
  uint32_t find(uint32_t k, uint32_t stamp = 1) {
    const Began began = begin();
    const uint32_t page = index.find_and_pin(weak_key(k));
    end(began, Did::kFind, k, life_of_pinned(page));
    if (page != kNone) {
      check_pinned(page, k);
      drop(page, k, stamp);
    }
    return page;
  }

  // What a look without a pin promises: the page had that key within the call, and a key that is
  // there throughout is not missed (the caller judges that).
  uint32_t peek(const Key &key) { return index.peek(key); }

  // A page for the key, private until it is published, given back if another one was there first.
  // `parent` is pinned by the caller, or kNone. pinned: whether the caller gets it pinned.
  uint32_t publish(uint32_t k, uint32_t parent = kNone, bool pinned = false) {
    uint32_t page = kNone;
    if (!pool.alloc(1, &page)) return kNone;
    const uint32_t generation = table.generation(page);
    content[page] = k + 1;
    table[page].parent.store(parent, std::memory_order_relaxed);
    table.set_stamp(page, 0);
    released_[page] = 0;
    if (parent != kNone) require(table.add_child(parent), "too many children");
    const Began began = begin();
    const Insert result = index.insert(weak_key(k), page);
    if (result.status == Insert::kInserted) {
      end(began, Did::kInsert, k, life(page, generation));
    } else {
      require(result.status == Insert::kFound, "neither inserted nor found");
      end(began, Did::kFoundOther, k, life_of_pinned(result.page));
      require(result.page != page, "found itself");
      if (parent != kNone) table.drop_child(parent);
      require(content[page] == k + 1, "another one wrote to a private page");
      require(table.free_private(page, generation), "a private page could not be freed");
      pool.free(&page, 1);
    }
    check_pinned(result.page, k);
    if (!pinned) drop(result.page, k, 1);
    return result.page;
  }

  // As the reclaimer does it.
  bool evict(uint32_t page) {
    // relaxed: a look orders nothing; begin_evict() does.
    const uint64_t seen = table[page].meta.load(std::memory_order_relaxed);
    if (!Table::M::visible(seen)) return false;
    uint32_t exposed = kNone;
    eviction_[thread()] = begin();
    EvictBatch batch;
    if (!evict_page(table, index, page, Table::M::generation(seen), EvictReason::kCapacity, *this,
                    batch, &exposed)) {
      return false;
    }
    give_back(pool, *this, &batch);
    return true;
  }

  void evicted(uint32_t page, uint32_t stamp, EvictReason) noexcept override {
    const auto k = static_cast<uint32_t>(table[page].key_lo.load(std::memory_order_relaxed) - 1);
    if (content[page] != k + 1) fail("evicted other content");
    if (stamp != released_[page]) fail("an eviction missed a stamp");
    content[page] = 0;
    end(eviction_[thread()], Did::kEvict, k, life(page, table.generation(page)));
  }

  void check_pinned(uint32_t page, uint32_t k) {
    // First, with nothing between the pin and this: what the pin orders must be enough.
    require(content[page] == k + 1, "pinned, and other content");
    const PageView seen = table.view(page);
    require(seen.state == PageState::kVisible && seen.ref != 0, "pinned, and not visible");
  }

  // A release, as all are made: raise the stamp, then drop the pin.
  void drop(uint32_t page, uint32_t, uint32_t stamp) {
    for (uint32_t up = page; up != kNone; up = table[up].parent.load(std::memory_order_relaxed)) {
      if (stamp > released_[up]) released_[up] = stamp;
    }
    table.raise_stamp(page, stamp);
    table.unpin(page);
  }

  void check_at_rest() {
    const PageCounts counts = table.counts(pool.available());
    require(table.validate(), "page table invalid");
    require(index.validate(), "index invalid");
    require(pool.validate(), "pool invalid");
    require(counts.private_pages == 0 && counts.refs == 0, "leaked");
    require(counts.evicting == 0 && counts.visible + pool.available() == table.capacity(),
            "free + visible != all");
    for (uint32_t k = 0; k < kKeys; ++k) {
      std::vector<Op> one;
      for (const Op &op : history_) {
        if (op.key == k) one.push_back(op);
      }
      require(linearizable_by(one, Truth{}, precedes), "not linearizable");
    }
  }
  // For runs in which somebody stops: what must hold all the same.
  void check_conservation() {
    require(table.counts().visible + pool.available() <= table.capacity(), "free and visible");
  }
  void forget_history() { history_.clear(); }

 private:
  struct Free {
    void operator()(void *memory) const { std::free(memory); }
  };
  using Memory = std::unique_ptr<void, Free>;
  static Memory memory_of(size_t bytes) {
    return Memory(std::aligned_alloc(128, align_up(bytes, 128)));
  }

  enum class Did : uint8_t { kFind, kInsert, kFoundOther, kEvict };
  struct Began {
    WeakMemory::Clocks clock;
  };
  struct Op {
    WeakMemory::Clocks begin;  // of each thread, what happened before it
    uint32_t thread, end, at;  // its thread's clock as it ended; its place in that thread
    Did did;
    uint32_t key, page;
  };
  static bool precedes(const Op &a, const Op &b) {
    return a.thread == b.thread ? a.at < b.at : a.end <= b.begin[a.thread];
  }
  // One key's truth: its page's life, or none.
  struct Truth {
    uint32_t page = kNone;
    auto operator<=>(const Truth &) const = default;
    bool apply(const Op &op) {
      switch (op.did) {
        case Did::kFind:
          return page == op.page;
        case Did::kFoundOther:
          return page == op.page && page != kNone;
        case Did::kInsert:
          if (page != kNone) return false;
          page = op.page;
          return true;
        case Did::kEvict:
          if (page != op.page) return false;
          page = kNone;
          return true;
      }
      return false;
    }
  };

  // A page number that was recycled is another page.
  static uint32_t life(uint32_t page, uint32_t generation) { return page | generation << 16; }
  uint32_t life_of_pinned(uint32_t page) {
    return page == kNone ? kNone : life(page, table.generation(page));
  }
  static Began begin() {
    Scheduler *s = Scheduler::current();
    return s == nullptr ? Began{} : Began{WeakMemory::of(*s).clocks()};
  }
  // Operations outside of the run are those of a thread of their own, whose clock stands at 0.
  static uint32_t thread() {
    Scheduler *s = Scheduler::current();
    return s == nullptr ? kWeakThreads - 1 : s->running();
  }
  void end(const Began &began, Did did, uint32_t k, uint32_t page) {
    Scheduler *s = Scheduler::current();
    const auto at = static_cast<uint32_t>(history_.size());
    const uint32_t now = s == nullptr ? 0 : WeakMemory::of(*s).clock();
    history_.push_back({began.clock, thread(), now, at, did, k, page});
  }
  [[noreturn]] static void fail(const char *what) {
    if (Scheduler *s = Scheduler::current()) s->abandon(what);
    std::abort();
  }

  Memory memory_[3];

 public:
  Table table;
  Index index;
  Pool pool;
  std::vector<Plain<uint32_t>> content;

 private:
  std::vector<uint32_t> released_;  // the latest release of the page or of one below it
  std::vector<Op> history_;
  Began eviction_[kWeakThreads] = {};  // of each thread's running eviction
};

}  // namespace quire::model

#endif  // QUIRE_TESTS_SUPPORT_WEAK_PAGES_H_
