// Belady's bound: the most hits that any policy can have on a trace, under the rules of a replay
// (hits are a prefix; a request holds its pages; exactly what it lacks is evicted; no page without
// its parent; a request with more pages than the cache keeps its first ones).
//
// Evicting the page whose next use is farthest is optimal, and here it is also allowed: whoever
// uses a child uses its parent, so a parent's next use is never later than its child's, and among
// equals the child goes first. This is a simulation: it calls no library.
//
// Each resident page waits in the queue of the request that uses it next. A queue is in eviction
// order by construction: a request appends its pages deepest first, and pages that an earlier
// request put into the same queue, and this one did not use, are deeper than all of these. So a
// victim is popped from the head of the last queue that is not empty, which a three-level bitmap
// finds. Cost: O(1) a reference, about 16 bytes a page and 4 a reference.
#ifndef QUIRE_REPLAY_BELADY_H
#define QUIRE_REPLAY_BELADY_H

#include <cstdint>
#include <vector>

#include "page_tree.h"
#include "trace.h"

namespace quire::replay {

struct BeladyResult {
  uint64_t hits = 0, inserted = 0, evicted = 0;
  std::vector<uint32_t> request_hits;  // of each request
};

BeladyResult replay_belady(const Trace &trace, const PageTree &tree, uint32_t capacity);

}  // namespace quire::replay

#endif  // QUIRE_REPLAY_BELADY_H
