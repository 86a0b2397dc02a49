// Is a history of concurrent operations one that some order of them, one at a time, could have
// given? (Wing and Gong, "Testing and verifying concurrent objects", 1993, with Lowe's memory of
// states already tried.)
//
//   Op      begin and end, from a Clock read right before and right after the call; and whatever
//           State::apply needs
//   State   a copyable, ordered sequential model; bool apply(const Op &): does the operation, or
//           returns false where it could not have given that result
//
// An operation may be placed anywhere between its begin and its end. At most 64 operations; the
// cost is exponential in how many overlap, not in their number.
//
// Over a weak memory there is no common clock: an operation comes before another where it happened
// before it (linearizable_by, with that relation). Within one thread that is its own order.
#ifndef QUIRE_TESTS_SUPPORT_LINEARIZABILITY_H_
#define QUIRE_TESTS_SUPPORT_LINEARIZABILITY_H_

#include <cstddef>
#include <cstdint>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

namespace quire::model {

namespace detail {

// before[i]: the operations that must be placed before operation i.
template <class State, class Op>
bool place(const std::vector<Op> &history, const std::vector<uint64_t> &before, const State &state,
           uint64_t placed, std::set<std::pair<uint64_t, State>> &tried) {
  const size_t n = history.size();
  if (placed == (n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1)) return true;
  if (!tried.insert({placed, state}).second) return false;
  for (size_t i = 0; i < n; ++i) {
    if ((placed >> i & 1) != 0 || (before[i] & ~placed) != 0) continue;
    State next = state;
    if (next.apply(history[i]) && place(history, before, next, placed | uint64_t{1} << i, tried)) {
      return true;
    }
  }
  return false;
}

}  // namespace detail

// precedes(a, b): a was over before b began; transitive, and never so for a and a.
template <class State, class Op, class Precedes>
bool linearizable_by(const std::vector<Op> &history, const State &initial,
                     const Precedes &precedes) {
  if (history.size() > 64) throw std::length_error("a history of more than 64 operations");
  std::vector<uint64_t> before(history.size(), 0);
  for (size_t i = 0; i < history.size(); ++i) {
    for (size_t k = 0; k < history.size(); ++k) {
      if (i != k && precedes(history[k], history[i])) before[i] |= uint64_t{1} << k;
    }
  }
  std::set<std::pair<uint64_t, State>> tried;
  return detail::place(history, before, initial, 0, tried);
}

template <class State, class Op>
bool linearizable(const std::vector<Op> &history, const State &initial) {
  return linearizable_by(history, initial,
                         [](const Op &a, const Op &b) { return a.end < b.begin; });
}

}  // namespace quire::model

#endif  // QUIRE_TESTS_SUPPORT_LINEARIZABILITY_H_
