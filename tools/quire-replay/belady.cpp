// See belady.h for why the queues are in eviction order.
#include "belady.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace quire::replay {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

// A set of small numbers that knows its largest: a bit each, a summary bit per word, and so on.
class MaxSet {
 public:
  explicit MaxSet(size_t size) {
    do {
      size = (size + 63) / 64;
      levels_.emplace_back(size, 0);
    } while (size > 1);
  }

  void insert(uint32_t x) {
    for (auto &level : levels_) {
      level[x / 64] |= uint64_t{1} << (x % 64);
      x /= 64;
    }
  }

  void erase(uint32_t x) {
    for (auto &level : levels_) {
      level[x / 64] &= ~(uint64_t{1} << (x % 64));
      if (level[x / 64] != 0) return;
      x /= 64;
    }
  }

  // The set is not empty.
  uint32_t max() const {
    uint32_t x = 0;
    for (size_t l = levels_.size(); l-- > 0;)
      x = x * 64 + 63 - static_cast<uint32_t>(std::countl_zero(levels_[l][x]));
    return x;
  }

 private:
  std::vector<std::vector<uint64_t>> levels_;
};

// Pages by the request that uses them next, each queue first in, first out.
class Queues {
 public:
  Queues(uint32_t requests, uint32_t pages)
      : head_(requests, kNone), tail_(requests, kNone), next_(pages, kNone), used_(requests) {}

  void push(uint32_t queue, uint32_t page) {
    next_[page] = kNone;
    if (head_[queue] == kNone) {
      head_[queue] = page;
      used_.insert(queue);
    } else {
      next_[tail_[queue]] = page;
    }
    tail_[queue] = page;
  }

  // Some page waits.
  uint32_t pop_last_used() {
    const uint32_t queue = used_.max();
    const uint32_t page = head_[queue];
    head_[queue] = next_[page];
    if (head_[queue] == kNone) used_.erase(queue);
    return page;
  }

  void clear(uint32_t queue) {
    if (head_[queue] == kNone) return;
    head_[queue] = kNone;
    used_.erase(queue);
  }

 private:
  std::vector<uint32_t> head_, tail_, next_;
  MaxSet used_;
};

// next[i]: the request that uses the page of reference i again, or the number of requests.
std::vector<uint32_t> next_uses(const Trace &trace, const PageTree &tree, uint32_t capacity) {
  const auto requests = static_cast<uint32_t>(trace.requests.size());
  std::vector<uint32_t> next(tree.numbers.size(), requests), seen(tree.pages, requests);
  for (uint32_t r = requests; r-- > 0;) {
    const Request &request = trace.requests[r];
    const uint64_t kept = std::min(request.end, request.begin + capacity);
    for (uint64_t i = request.begin; i < kept; ++i)
      next[i] = std::exchange(seen[tree.numbers[i]], r);
  }
  return next;
}

}  // namespace

BeladyResult replay_belady(const Trace &trace, const PageTree &tree, uint32_t capacity) {
  const auto requests = static_cast<uint32_t>(trace.requests.size());
  const std::vector<uint32_t> next = next_uses(trace, tree, capacity);
  Queues queues(requests + 1, tree.pages);
  std::vector<bool> resident(tree.pages, false);
  BeladyResult result;
  result.request_hits.reserve(requests);
  uint64_t residents = 0;
  for (uint32_t r = 0; r < requests; ++r) {
    const Request &request = trace.requests[r];
    const uint64_t n = std::min<uint64_t>(request.end - request.begin, capacity);
    const uint32_t *pages = tree.numbers.data() + request.begin;
    uint64_t hits = 0;
    while (hits < n && resident[pages[hits]]) ++hits;
    // Its own pages, all in this queue, are held from here on.
    queues.clear(r);
    for (; residents + n - hits > capacity; --residents, ++result.evicted)
      resident[queues.pop_last_used()] = false;
    for (uint64_t i = n; i-- > 0;) queues.push(next[request.begin + i], pages[i]);
    for (uint64_t i = hits; i < n; ++i) resident[pages[i]] = true;
    residents += n - hits;
    result.inserted += n - hits;
    result.hits += hits;
    result.request_hits.push_back(static_cast<uint32_t>(hits));
  }
  return result;
}

}  // namespace quire::replay
