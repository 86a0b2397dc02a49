// Belady's bound is a bound, and it is reached: on small traces it equals the best of all possible
// choices of victims, found by trying them all.
#define BOOST_TEST_MODULE replay_belady
#include <boost/test/unit_test.hpp>

#include <bit>
#include <map>

#include "support/lru_oracle.h"
#include "support/random_trace.h"
#include "tools/quire-replay/belady.h"

namespace quire::replay {
namespace {

// The most hits from request r on, with the set `resident` of pages (bits). Remembers what it
// knows.
class Exhaustive {
 public:
  Exhaustive(const Trace &trace, const PageTree &tree, uint32_t capacity)
      : trace_(trace), tree_(tree), capacity_(capacity), parent_(tree.pages, UINT32_MAX) {
    for (const Request &request : trace.requests)
      for (uint64_t i = request.begin + 1; i < request.end; ++i)
        parent_[tree.numbers[i]] = tree.numbers[i - 1];
  }

  uint64_t best(uint32_t r, uint32_t resident) {
    if (r == trace_.requests.size()) return 0;
    const auto known = known_.find({r, resident});
    if (known != known_.end()) return known->second;
    const Request &request = trace_.requests[r];
    const uint64_t n = std::min<uint64_t>(request.end - request.begin, capacity_);
    uint32_t own = 0;
    uint64_t hits = 0;
    for (uint64_t i = 0; i < n; ++i) {
      const uint32_t bit = 1u << tree_.numbers[request.begin + i];
      if (hits == i && (resident & bit)) ++hits;
      own |= bit;
    }
    const uint64_t result = hits + evict(r, resident | own, own);
    known_[{r, resident}] = result;
    return result;
  }

 private:
  // Tries every leaf that the request does not hold, until what is left fits.
  uint64_t evict(uint32_t r, uint32_t resident, uint32_t held) {
    if (static_cast<uint32_t>(std::popcount(resident)) <= capacity_) return best(r + 1, resident);
    uint32_t with_child = 0;
    for (uint32_t page = 0; page < tree_.pages; ++page)
      if ((resident >> page & 1) && parent_[page] != UINT32_MAX) with_child |= 1u << parent_[page];
    uint64_t most = 0;
    for (uint32_t page = 0; page < tree_.pages; ++page)
      if ((resident & ~held & ~with_child) >> page & 1)
        most = std::max(most, evict(r, resident & ~(1u << page), held));
    return most;
  }

  const Trace &trace_;
  const PageTree &tree_;
  const uint32_t capacity_;
  std::vector<uint32_t> parent_;
  std::map<std::pair<uint32_t, uint32_t>, uint64_t> known_;
};

BOOST_AUTO_TEST_CASE(no_choice_of_victims_has_more_hits) {
  unsigned tried = 0;
  for (uint64_t seed = 1; tried < 40; ++seed) {
    const Trace trace = test::random_trace(seed, 12, 5);
    const PageTree tree = number_pages(trace);
    if (tree.pages > 18) continue;
    ++tried;
    for (uint32_t pages = 1; pages <= 8; ++pages)
      BOOST_TEST(
          replay_belady(trace, tree, pages).hits == Exhaustive(trace, tree, pages).best(0, 0),
          "seed " << seed << ", " << pages << " pages");
  }
}

BOOST_AUTO_TEST_CASE(lru_has_never_more_hits_and_as_many_when_all_fits) {
  for (uint64_t seed = 100; seed < 110; ++seed) {
    const Trace trace = test::random_trace(seed, 500, 30);
    const PageTree tree = number_pages(trace);
    for (const uint32_t pages : {1u, 5u, 20u, 40u, 100u, 300u, tree.pages}) {
      test::LruOracle lru(pages);
      for (const Request &request : trace.requests) lru.serve(trace.pages(request));
      const BeladyResult bound = replay_belady(trace, tree, pages);
      BOOST_TEST(lru.hits() <= bound.hits);
      if (pages == tree.pages) {
        BOOST_TEST(lru.hits() == bound.hits);
        BOOST_TEST(bound.evicted == 0u);
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(pages_are_numbered_by_path_not_by_id) {
  Trace trace;
  trace.ids = {1, 2, 1, 3, 2, 2};
  trace.requests = {{0, 0, 2, 0}, {0, 2, 4, 0}, {0, 4, 6, 0}};
  const PageTree tree = number_pages(trace);
  BOOST_TEST(tree.pages == 5u);  // 1, 1/2, 1/3, 2, 2/2
  BOOST_TEST(tree.numbers == (std::vector<uint32_t>{0, 1, 0, 2, 3, 4}),
             boost::test_tools::per_element());
}

}  // namespace
}  // namespace quire::replay
