// The peers of a replay: what holds for any policy, what each of them is told apart by, and that none
// beats the bound.
#define BOOST_TEST_MODULE replay_peers
#include <boost/test/unit_test.hpp>

#include "support/random_trace.h"
#include "tools/quire-replay/peers.h"

namespace quire::replay {
namespace {

// One page a request, so that order is the policy's own.
Trace single_pages(const std::vector<uint64_t> &ids) {
  Trace trace;
  for (const uint64_t id : ids) {
    trace.ids.push_back(id);
    trace.requests.push_back(Request{0, trace.ids.size() - 1, trace.ids.size(), 0});
  }
  return trace;
}

std::vector<uint32_t> hits(const std::string &policy, const std::vector<uint64_t> &ids,
                           uint32_t capacity) {
  const Trace trace = single_pages(ids);
  return replay_peer(policy, trace, number_pages(trace), capacity).request_hits;
}

using Hits = std::vector<uint32_t>;

BOOST_AUTO_TEST_CASE(every_peer_keeps_the_rules_of_a_replay_and_none_beats_the_bound) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const Trace trace = test::random_trace(seed, 300, 24);
    const PageTree tree = number_pages(trace);
    for (const uint32_t capacity : {1u, 7u, 60u, 150u, tree.pages + 1}) {
      const BeladyResult bound = replay_belady(trace, tree, capacity);
      for (const char *policy : kPeers) {
        BOOST_TEST_CONTEXT("seed " << seed << ", " << policy << ", " << capacity << " pages") {
          const BeladyResult peer = replay_peer(policy, trace, tree, capacity);
          BOOST_TEST(peer.hits <= bound.hits);
          BOOST_TEST(peer.hits + peer.inserted == bound.hits + bound.inserted);
          BOOST_TEST(peer.inserted - peer.evicted <= capacity);
          if (capacity > tree.pages) BOOST_TEST(peer.hits == bound.hits);
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(sieve_keeps_what_was_used_since_the_hand_passed) {
  // 1 is used; the hand clears its bit, passes on, and takes 2. Then it stands at 3.
  BOOST_TEST(hits("sieve", {1, 2, 3, 1, 4, 1, 5, 3, 4}, 3) == (Hits{0, 0, 0, 1, 0, 1, 0, 0, 0}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(lru2_evicts_what_was_used_once_first) {
  BOOST_TEST(hits("lru2", {1, 1, 2, 3, 4, 1, 5, 1}, 2) == (Hits{0, 1, 0, 0, 0, 1, 0, 1}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(arc_keeps_what_was_used_twice_through_a_scan) {
  BOOST_TEST(
      hits("arc", {1, 1, 2, 2, 3, 4, 5, 6, 7, 1, 2}, 4) == (Hits{0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1}),
      boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(s3fifo_lets_new_pages_go_first) {
  BOOST_TEST(hits("s3fifo", {1, 1, 1, 2, 3, 4, 5, 1, 3}, 3) == (Hits{0, 1, 1, 0, 0, 0, 0, 1, 0}),
             boost::test_tools::per_element());
}

}  // namespace
}  // namespace quire::replay
