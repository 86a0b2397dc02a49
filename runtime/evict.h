// evict_page: one page leaves the cache. The order of its steps is what keeps the rest simple.
//
//   1. begin_evict   the CAS on the page's word: visible, no pins, no children, that generation. From
//                    here on the page is absent, and nobody's but ours. It linearises the eviction.
//   2. r = stamp     read after 1, so it is the latest release in the page's subtree: a release raises
//                    the stamp before it drops its pin, and 1 has seen that drop
//   3. erase         the index forgets it
//   4. sink          is told. The descriptor holds, and so does the parent's, which has this child:
//                    of a chain, the child's end is told before the parent's
//   5. hand up       stamp(parent) = max(own, r), to the maximum: the parent's stamp is the exact last
//                    use of its path once it is a leaf, and its own r when it goes in turn
//   6. drop_child    only now: whoever sees the parent without this child also sees its stamp
//   7. finish_evict  the page's next life may begin; its number and its frame go into a batch
//
// give_back() then frees the numbers of a batch first and lets the sink retire the frames after
// that. Whoever gets a frame must find a free number for it: descriptors are as many as frames. In
// the other order, a thread that was stopped between the two made every allocation of a full cache
// fail until it went on.
//
// Tests instantiate steps 5 and 6 and give_back() wrongly (EvictOrders), to see that caught.
//
// Thread class: any thread, lock free, unless the sink says otherwise. Cost: the descriptor's line,
// the bin's, the parent's; pools are asked once a batch.
#ifndef QUIRE_RUNTIME_EVICT_H_
#define QUIRE_RUNTIME_EVICT_H_

#include <cstdint>

#include "allocators/atomics.h"
#include "allocators/frame_pool.h"
#include "runtime/page_table.h"

namespace quire {

// As quire_evict_reason.
enum class EvictReason : uint32_t {
  kCapacity = 1,
  kIdle = 2,
  kExpired = 3,
  kNamespace = 4,
  kQuota = 5
};
inline constexpr uint32_t kEvictReasons = 6;

// Victims of one thread whose numbers and frames it has not given back yet.
struct EvictBatch {
  static constexpr uint32_t kMost = 64;
  uint32_t n = 0;
  bool counted = false;  // as one that is inside an eviction (BasicReclaimer::running())
  uint32_t page[kMost];
  uint32_t frame[kMost];
  uint32_t stamp[kMost];  // r
  uint32_t space[kMost];  // namespace
  bool taken[kMost];      // its namespace has counted it out before (EvictSink::take)
  EvictReason reason[kMost];
};

// Namespaces at their floor, by the low byte of their numbers.
struct Shield {
  enum How : uint8_t {
    kOpen = 0,  // no page of such a namespace is passed over
    kAll = 1,   // every one is
    kSome = 2,  // of some of these namespaces: EvictSink::is_shielded() knows
  };
  uint8_t of_byte[256];
};

// What a namespace says to the eviction of one of its pages.
enum class Take : uint8_t {
  kFree,   // nothing to count
  kTaken,  // counted out: give it back if the eviction fails
  kKept,   // it stays
};

// What the cache does with an evicted page. Calls come from any thread, several at once.
class EvictSink {
 public:
  // Step 4. `stamp` is r.
  virtual void evicted(uint32_t page, uint32_t stamp, EvictReason reason) noexcept = 0;
  // The frames of a batch, each with its r, to retire. The numbers are free by now.
  virtual void retire(const EvictBatch & /*batch*/) noexcept {}
  // Whether a visible page belongs to a generation of its namespace that was emptied.
  virtual bool is_dead(uint32_t /*page*/) noexcept { return false; }

  // Floors of namespaces (runtime/reclaimer_spaces_inl.h). Asked only once there is one.
  // Before a page of this namespace is evicted. own: for the namespace's own sake, or since the page
  // has died; that never stays.
  virtual Take take(uint32_t /*space*/, bool /*own*/) noexcept { return Take::kFree; }
  virtual void untake(uint32_t /*space*/) noexcept {}
  // False: no namespace is at its floor.
  virtual bool shield(Shield * /*out*/) noexcept { return false; }
  virtual bool is_shielded(uint32_t /*page*/) noexcept { return false; }

 protected:
  ~EvictSink() = default;
};

struct EvictOrders {
  static constexpr bool kOverwriteStamp = false;  // step 5 stores instead of taking the maximum
  static constexpr bool kDropFirst = false;       // step 6 before step 5
  static constexpr bool kFramesFirst = false;     // give_back(): frames before numbers
};

// False, and nothing changed, if the page is pinned, has children, or is another one by now; else
// the batch, which has room, has one more. *exposed: its parent, if this was the last child, else
// kNone.
template <class Orders = EvictOrders, class Index>
bool evict_page(typename Index::Pages &pages, Index &index, uint32_t page, uint32_t generation,
                EvictReason reason, EvictSink &sink, EvictBatch &batch, uint32_t *exposed,
                bool taken = false) noexcept {
  *exposed = kNone;
  if (!pages.begin_evict(page, generation)) return false;
  const uint32_t r = pages.stamp(page);
  auto &d = pages[page];
  // relaxed: the page is ours; begin_evict() acquired it.
  const Key key{d.key_lo.load(std::memory_order_relaxed), d.key_hi.load(std::memory_order_relaxed)};
  index.erase(page, key);
  sink.evicted(page, r, reason);
  if (const uint32_t parent = d.parent.load(std::memory_order_relaxed); parent != kNone) {
    uint32_t left = 0;
    if constexpr (Orders::kDropFirst) left = pages.drop_child(parent);
    if constexpr (Orders::kOverwriteStamp) {
      pages.set_stamp(parent, r);
    } else {
      pages.raise_stamp(parent, r);
    }
    if constexpr (!Orders::kDropFirst) left = pages.drop_child(parent);
    if (left == 0) *exposed = parent;
  }
  batch.page[batch.n] = page;
  batch.frame[batch.n] = d.frame.load(std::memory_order_relaxed);
  batch.stamp[batch.n] = r;
  batch.space[batch.n] = d.space.load(std::memory_order_relaxed);
  batch.taken[batch.n] = taken;
  batch.reason[batch.n++] = reason;
  d.frame.store(kNone, std::memory_order_relaxed);  // as of every page whose number is free
  pages.finish_evict(page);
  return true;
}

template <class Orders = EvictOrders, class A>
void give_back(FramePool<A> &page_pool, EvictSink &sink, EvictBatch *batch) noexcept {
  if constexpr (Orders::kFramesFirst) sink.retire(*batch);
  page_pool.free(batch->page, batch->n);
  if constexpr (!Orders::kFramesFirst) sink.retire(*batch);
  batch->n = 0;
}

}  // namespace quire

#endif  // QUIRE_RUNTIME_EVICT_H_
