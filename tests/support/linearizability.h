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

template <class State, class Op>
bool place(const std::vector<Op> &history, const State &state, uint64_t placed,
           std::set<std::pair<uint64_t, State>> &tried) {
  const size_t n = history.size();
  if (placed == (n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1)) return true;
  if (!tried.insert({placed, state}).second) return false;
  uint64_t first_end = UINT64_MAX;
  for (size_t i = 0; i < n; ++i) {
    if ((placed >> i & 1) == 0 && history[i].end < first_end) first_end = history[i].end;
  }
  for (size_t i = 0; i < n; ++i) {
    if ((placed >> i & 1) != 0 || history[i].begin > first_end) continue;
    State next = state;
    if (next.apply(history[i]) && place(history, next, placed | uint64_t{1} << i, tried)) {
      return true;
    }
  }
  return false;
}

}  // namespace detail

template <class State, class Op>
bool linearizable(const std::vector<Op> &history, const State &initial) {
  if (history.size() > 64) throw std::length_error("a history of more than 64 operations");
  std::set<std::pair<uint64_t, State>> tried;
  return detail::place(history, initial, 0, tried);
}

}  // namespace quire::model

#endif  // QUIRE_TESTS_SUPPORT_LINEARIZABILITY_H_
