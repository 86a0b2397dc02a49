// The tree of a trace's pages, numbered 0, 1, ...: what Belady's bound is computed from. A page is a
// path of ids (page_keys.h), so each has one parent.
//
//   numbers.size() == ids.size(): numbers[i] is the page of reference i
//   in every request, numbers are distinct, and each page's parent is the one before it.
// Cost: one probe of an open-addressed table a reference, about 20 ns where it misses the caches.
#ifndef QUIRE_REPLAY_PAGE_TREE_H
#define QUIRE_REPLAY_PAGE_TREE_H

#include <cstdint>
#include <vector>

#include "trace.h"

namespace quire::replay {

struct PageTree {
  std::vector<uint32_t> numbers;
  uint32_t pages = 0;  // distinct ones
};

PageTree number_pages(const Trace &trace);

}  // namespace quire::replay

#endif  // QUIRE_REPLAY_PAGE_TREE_H
