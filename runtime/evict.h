// evict_page: one page leaves the cache. The order of its steps is what keeps the rest simple.
//
//   1. begin_evict   the CAS on the page's word: visible, no pins, no children, that generation. From
//                    here on the page is absent, and nobody's but ours. It linearises the eviction.
//   2. r = stamp     read after 1, so it is the latest release in the page's subtree: a release raises
//                    the stamp before it drops its pin, and 1 has seen that drop
//   3. erase         the index forgets it
//   4. hand up       stamp(parent) = max(own, r), to the maximum: the parent's stamp is the exact last
//                    use of its path once it is a leaf, and its own r when it goes in turn
//   5. drop_child    only now: whoever sees the parent without this child also sees its stamp
//   6. sink          takes the frame (it retires with r), counts, tells. The descriptor still holds.
//   7. finish_evict  the number is free
//
// Tests instantiate steps 4 and 5 wrongly (EvictOrders), to see that caught.
//
// Thread class: any thread, lock free, unless the sink says otherwise. Cost: the descriptor's line,
// the bin's, the parent's.
#ifndef QUIRE_RUNTIME_EVICT_H_
#define QUIRE_RUNTIME_EVICT_H_

#include <cstdint>

#include "allocators/atomics.h"
#include "allocators/frame_pool.h"
#include "runtime/page_table.h"

namespace quire {

// As quire_evict_reason.
enum class EvictReason : uint32_t { kCapacity = 1, kIdle = 2, kExpired = 3, kNamespace = 4 };
inline constexpr uint32_t kEvictReasons = 5;

// What the cache does with an evicted page. Calls come from any thread, several at once.
class EvictSink {
 public:
  // Step 6. `stamp` is r.
  virtual void evicted(uint32_t page, uint32_t stamp, EvictReason reason) noexcept = 0;
  // Whether a visible page belongs to a generation of its namespace that was emptied.
  virtual bool is_dead(uint32_t /*page*/) noexcept { return false; }

 protected:
  ~EvictSink() = default;
};

struct EvictOrders {
  static constexpr bool kOverwriteStamp = false;  // step 4 stores instead of taking the maximum
  static constexpr bool kDropFirst = false;       // step 5 before step 4
};

// False, and nothing changed, if the page is pinned, has children, or is another one by now.
// *exposed: its parent, if this was the last child, else kNone.
template <class Orders = EvictOrders, class A, class Index>
bool evict_page(typename Index::Pages &pages, Index &index, FramePool<A> &page_pool, uint32_t page,
                uint32_t generation, EvictReason reason, EvictSink &sink,
                uint32_t *exposed) noexcept {
  *exposed = kNone;
  if (!pages.begin_evict(page, generation)) return false;
  const uint32_t r = pages.stamp(page);
  const auto &d = pages[page];
  // relaxed: the page is ours; begin_evict() acquired it.
  const Key key{d.key_lo.load(std::memory_order_relaxed), d.key_hi.load(std::memory_order_relaxed)};
  index.erase(page, key);
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
  sink.evicted(page, r, reason);
  pages.finish_evict(page);
  page_pool.free(&page, 1);
  return true;
}

}  // namespace quire

#endif  // QUIRE_RUNTIME_EVICT_H_
