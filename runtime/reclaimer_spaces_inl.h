// What BasicReclaimer (runtime/reclaimer.h) does about namespaces: the floors that it leaves alone
// when it evicts for others, and the eviction of one namespace's own pages.
//
// FLOORS. Until a namespace has one, the reclaimer knows of none and pays one load a victim. From
// then on
//   - a scan passes over the pages of namespaces that are at their floor when it begins. It asks the
//     sink once for all of them and goes by the low byte of a namespace's number, which lies in a
//     dense array; where another namespace shares that byte it asks the sink about the page.
//   - a victim is taken from its namespace before it is evicted. That decides, exactly: a namespace
//     that was above its floor when the scan began and is no longer keeps the rest.
// What was passed over comes back with the next scan: a namespace that grows beyond its floor while
// a queue is in use gives its oldest pages later than pages of others that are as old, by one queue.
//
// ONE NAMESPACE. Its leaves are collected in a heap by one scan over the two dense bytes a page, and
// go in the order of the policy, up the chains. No queue is kept for it: who calls asks for more than
// one page at a time (Cache::begin_pages).
#ifndef QUIRE_RUNTIME_RECLAIMER_SPACES_INL_H_
#define QUIRE_RUNTIME_RECLAIMER_SPACES_INL_H_

#include <algorithm>
#include <functional>
#include <type_traits>

#include "runtime/reclaimer.h"

namespace quire {

#define QUIRE_RECLAIMER(result)                 \
  template <class A, class Index, class Orders> \
  result BasicReclaimer<A, Index, Orders>

QUIRE_RECLAIMER(bool)::read_shield(Shield *out) const noexcept {
  // relaxed: a floor that is set meanwhile holds from the next scan on; take() knows it before.
  return guarded_.load(kRelaxed) != 0 && parts_.sink->shield(out);
}

QUIRE_RECLAIMER(bool)::shielded(const Shield &shield, uint32_t page) const noexcept {
  const uint8_t how = shield.of_byte[parts_.pages.space_bytes()[page].load(kRelaxed)];
  return how == Shield::kAll || (how == Shield::kSome && parts_.sink->is_shielded(page));
}

// f(page) for leaves whose namespace has that low byte.
template <class A, class Index, class Orders>
template <class F>
void BasicReclaimer<A, Index, Orders>::for_leaves_of(uint8_t space, F &&f) const noexcept {
  const auto *tags = parts_.pages.tags();
  const auto *spaces = parts_.pages.space_bytes();
  const uint32_t end = parts_.pages.capacity();
  uint32_t page = 0;
  if constexpr (std::is_same_v<A, StdAtomics>) {
    // Eight of each a load, as in for_leaves().
    using Word [[gnu::may_alias]] = uint64_t;
    constexpr uint64_t kHigh = 0x8080808080808080;
    const uint64_t wanted = 0x0101010101010101 * space;
    for (; page + 8 <= end; page += 8) {
      const uint64_t leaves =
          __atomic_load_n(reinterpret_cast<const Word *>(tags + page), __ATOMIC_RELAXED) & kHigh;
      if (leaves == 0) continue;
      const uint64_t differs =
          __atomic_load_n(reinterpret_cast<const Word *>(spaces + page), __ATOMIC_RELAXED) ^ wanted;
      // The high bit of each byte that is zero, exactly.
      const uint64_t same = ~(((differs & ~kHigh) + ~kHigh) | differs) & kHigh;
      for (uint64_t hits = leaves & same; hits != 0; hits &= hits - 1) {
        f(page + static_cast<uint32_t>(std::countr_zero(hits)) / 8);
      }
    }
  }
  for (; page < end; ++page) {
    if ((tags[page].load(kRelaxed) & Pages::kLeafBit) != 0 && spaces[page].load(kRelaxed) == space)
      f(page);
  }
}

QUIRE_RECLAIMER(uint32_t)::reclaim_space(uint32_t space, uint32_t n, EvictReason reason) noexcept {
  if (n == 0) return 0;
  lift_in_time();
  PolicyTable table;
  if (!policy_.copy(parts_.clock, &table)) table = PolicyTable::lru();
  const Order order{&table, static_cast<uint32_t>(parts_.clock.now()), parts_.learned};
  const Pages &pages = parts_.pages;
  const auto later = std::not_fn(std::less<Entry>());
  Entries heap;
  const auto is_leaf = [&pages](uint32_t page) {
    const PageView view = pages.view(page);
    return view.state == PageState::kVisible && view.ref == 0 && view.children == 0;
  };
  // Without memory for more, those that were found first.
  for_leaves_of(static_cast<uint8_t>(space), [&](uint32_t page) {
    if (pages[page].space.load(kRelaxed) != space || !is_leaf(page)) return;
    static_cast<void>(heap.push(order.place(pages, page)));
  });
  scanned_.fetch_add(pages.capacity(), kRelaxed);
  std::make_heap(heap.at.get(), heap.at.get() + heap.size, later);
  const auto push = [&heap, &later](const Entry &entry) {
    if (!heap.push(entry)) return;
    std::push_heap(heap.at.get(), heap.at.get() + heap.size, later);
  };
  EvictBatch batch;
  uint32_t done = 0;
  // With the queue, so that parents which become leaves enter it, as in expire().
  const bool owned = try_own();
  if (owned) begin_call();
  while (done < n && heap.size != 0) {
    std::pop_heap(heap.at.get(), heap.at.get() + heap.size, later);
    const Entry next = heap.at[--heap.size];
    const Entry present = order.place(pages, next.page);
    if (next.key < present.key) {
      push(present);  // used since
      continue;
    }
    // Its number may be another page's by now.
    if (pages[next.page].space.load(kRelaxed) != space) continue;
    uint32_t exposed;
    if (!evict(next.page, reason, &batch, &exposed, true)) continue;
    ++done;
    if (exposed == kNone) continue;
    push(order.place(pages, exposed));
    if (owned) enter(order_of_queue().place(pages, exposed));
  }
  give_back(&batch);
  if (owned) disown();
  return done;
}

#undef QUIRE_RECLAIMER

}  // namespace quire

#endif  // QUIRE_RUNTIME_RECLAIMER_SPACES_INL_H_
