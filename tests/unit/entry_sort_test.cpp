// sort_entries gives what comparing gives, for keys that differ in any of their bytes, with and
// without room beside them.
#define BOOST_TEST_MODULE unit_entry_sort
#define BOOST_TEST_DYN_LINK
#include "runtime/entry_sort.h"

#include <boost/test/unit_test.hpp>
#include <random>
#include <vector>

namespace {

struct Entry {
  uint64_t key;
  uint32_t page;
  friend bool operator<(const Entry &a, const Entry &b) {
    return a.key != b.key ? a.key < b.key : a.page < b.page;
  }
  friend bool operator==(const Entry &, const Entry &) = default;
};

}  // namespace

BOOST_AUTO_TEST_CASE(entries_are_sorted_by_key_and_page) {
  const uint64_t seed = std::random_device{}();
  BOOST_TEST_INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (const size_t n : std::vector<size_t>{0, 1, 2, 511, 512, 513, 5000, 70000}) {
    // All bits; the byte of the rank and three of the stamp; few keys, many pages of each; one key.
    for (const uint64_t mask :
         {~uint64_t{0}, uint64_t{0xff00ffff'ff000000}, uint64_t{0x100}, uint64_t{0}}) {
      for (const bool room : {false, true}) {
        std::vector<Entry> entries(n), spare(n);
        for (Entry &entry : entries) entry = {random() & mask, static_cast<uint32_t>(random())};
        std::vector<Entry> expected = entries;
        std::sort(expected.begin(), expected.end());
        quire::sort_entries(entries.data(), room ? spare.data() : nullptr, n);
        BOOST_TEST((entries == expected),
                   "seed " << seed << ", " << n << " entries, mask " << mask);
        quire::sort_entries(entries.data(), room ? spare.data() : nullptr, n);
        BOOST_TEST((entries == expected), "sorted again, seed " << seed);
      }
    }
  }
}
