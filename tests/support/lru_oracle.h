// An exact LRU for prefix trees, slow and plain, to hold the cache against.
//
// It shares nothing with the library: pages are nodes of a std::map keyed by (parent, id), and all
// resident pages stand in one std::set ordered by (last request that used it, deepest first). As
// whoever uses a page uses its parent, the first of that order never has a resident child:
//   last(parent) >= last(child), and where equal the child is deeper.
// So evicting is: take the first. Cost: O(log pages) a reference.
#ifndef QUIRE_TESTS_SUPPORT_LRU_ORACLE_H
#define QUIRE_TESTS_SUPPORT_LRU_ORACLE_H

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

namespace quire::test {

class LruOracle {
 public:
  explicit LruOracle(uint64_t capacity) : capacity_(capacity) {}

  // One request; returns its hits.
  uint64_t serve(std::span<const uint64_t> ids) {
    ++request_;
    ids = ids.first(std::min<uint64_t>(ids.size(), capacity_));
    std::vector<uint64_t> path;
    for (const uint64_t id : ids) path.push_back(node(path.empty() ? 0 : path.back(), id));
    uint64_t hits = 0;
    while (hits < path.size() && last_.contains(path[hits])) ++hits;
    for (uint64_t i = 0; i < hits; ++i) use(path[i], i);
    while (last_.size() + path.size() - hits > capacity_) evict_first();
    for (uint64_t i = hits; i < path.size(); ++i) use(path[i], i);
    hits_ += hits;
    return hits;
  }

  uint64_t hits() const { return hits_; }
  uint64_t evicted() const { return evicted_; }
  uint64_t resident() const { return last_.size(); }

 private:
  using Order = std::tuple<uint64_t, uint64_t, uint64_t>;  // last request, ~depth, node

  uint64_t node(uint64_t parent, uint64_t id) {
    return nodes_.try_emplace({parent, id}, nodes_.size() + 1).first->second;
  }

  void use(uint64_t node, uint64_t depth) {
    const auto [it, fresh] = last_.try_emplace(node, request_);
    if (!fresh) order_.erase({it->second, ~depth, node});
    it->second = request_;
    order_.insert({request_, ~depth, node});
  }

  void evict_first() {
    const uint64_t node = std::get<2>(*order_.begin());
    order_.erase(order_.begin());
    last_.erase(node);
    ++evicted_;
  }

  const uint64_t capacity_;
  std::map<std::pair<uint64_t, uint64_t>, uint64_t> nodes_;
  std::map<uint64_t, uint64_t> last_;  // resident pages
  std::set<Order> order_;
  uint64_t request_ = 0, hits_ = 0, evicted_ = 0;
};

}  // namespace quire::test

#endif  // QUIRE_TESTS_SUPPORT_LRU_ORACLE_H
