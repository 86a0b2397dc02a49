// sort_entries: the victims of a scan, by (key, page).
//
// A scan sorts a sixteenth of the pages, and comparing them took more than half of its time. Keys of
// one scan differ in few bits (stamps of a few thousand epochs, depths of a few hundred), so this
// goes through the bytes that differ, from the lowest on, and moves entries by them, twice in
// turn between two arrays (a radix sort, stable). Equal keys are then put in the order of pages.
//
// `spare` holds as many entries as `at`; nullptr, or few entries: sorted by comparing.
// Thread class: any; no shared state. Cost: about 2 ns an entry and byte that differs.
#ifndef QUIRE_RUNTIME_ENTRY_SORT_H_
#define QUIRE_RUNTIME_ENTRY_SORT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace quire {

// Entry: uint64_t key, uint32_t page, and operator< by both.
template <class Entry>
void sort_entries(Entry *at, Entry *spare, size_t n) noexcept {
  constexpr size_t kFew = 512;
  if (std::is_sorted(at, at + n)) return;  // pages whose numbers are as old as they are
  if (spare == nullptr || n < kFew) {
    std::sort(at, at + n);
    return;
  }
  uint64_t differ = 0;
  for (size_t i = 1; i < n; ++i) differ |= at[i].key ^ at[0].key;
  Entry *from = at, *to = spare;
  for (unsigned shift = 0; shift < 64; shift += 8) {
    if ((differ >> shift & 0xff) == 0) continue;
    size_t place[257] = {};
    for (size_t i = 0; i < n; ++i) ++place[(from[i].key >> shift & 0xff) + 1];
    for (size_t b = 0; b < 256; ++b) place[b + 1] += place[b];
    for (size_t i = 0; i < n; ++i) to[place[from[i].key >> shift & 0xff]++] = from[i];
    std::swap(from, to);
  }
  if (from != at) std::copy(from, from + n, at);
  for (size_t i = 0; i < n;) {
    size_t end = i + 1;
    while (end < n && at[end].key == at[i].key) ++end;
    if (end - i > 1) std::sort(at + i, at + end);
    i = end;
  }
}

}  // namespace quire

#endif  // QUIRE_RUNTIME_ENTRY_SORT_H_
