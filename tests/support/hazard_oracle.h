// The policy `hazard`, written down a second time: slow and plain, from its description
// (runtime/reuse_model.h, runtime/learner.h, runtime/reclaimer.h), to hold the cache against.
//
// It shares no code with the library: pages are nodes of a std::map by key, every estimate is
// computed from the list of all uses so far, and victims stand in a std::set. One thread, one
// request an epoch, and exactly as many evictions as a request lacks pages.
#ifndef QUIRE_TESTS_SUPPORT_HAZARD_ORACLE_H
#define QUIRE_TESTS_SUPPORT_HAZARD_ORACLE_H

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <span>
#include <tuple>
#include <vector>

namespace quire::test {

class HazardOracle {
 public:
  explicit HazardOracle(uint64_t capacity) : capacity_(capacity) {}

  // One request: the low halves of its pages' keys, and the caller's class, 1 .. 8, or 0: then the
  // one that was told of its last page before holds. Its hits.
  uint64_t serve(std::span<const uint64_t> keys, unsigned cls) {
    ++now_;
    keys = keys.first(std::min<uint64_t>(keys.size(), capacity_));
    std::vector<Page *> path;
    for (const uint64_t key : keys) {
      Page &page = pages_[key];
      page.key = key;
      page.depth = path.size();
      page.parent = path.empty() ? nullptr : path.back();
      path.push_back(&page);
    }
    uint64_t hits = 0;
    while (hits < path.size() && path[hits]->resident) ++hits;
    pinned_ = hits == 0 ? nullptr : path[hits - 1];
    const uint64_t total = resident_ + path.size() - hits;
    if (total > capacity_) evict(total - capacity_);
    pinned_ = nullptr;
    resident_ += path.size() - hits;
    hits_ += hits;
    for (uint64_t i = hits; i < path.size(); ++i) path[i]->told = 0;
    if (!path.empty() && cls != 0) path.back()->told = cls - 1;
    if (!path.empty()) learn(path, path.back()->told);
    for (uint64_t i = hits; i < path.size(); ++i) {
      path[i]->resident = true;
      if (i != 0) ++path[i - 1]->children;
    }
    return hits;
  }

  uint64_t hits() const { return hits_; }
  uint64_t evicted() const { return evicted_; }
  uint64_t fits() const { return fits_; }

 private:
  static constexpr unsigned kBins = 124, kClasses = 128;
  struct Page {
    uint64_t key = 0, depth = 0, last = 0;
    Page *parent = nullptr;
    unsigned weight = 0, cls = 0, fan = 0, children = 0, told = 0;
    bool resident = false, ghost = false;
  };
  using Place = std::tuple<unsigned, uint64_t, int64_t, uint64_t>;  // rank, last, -depth, key
  using Table = std::array<std::array<unsigned, kBins>, kClasses>;
  using Sums = std::map<std::pair<unsigned, unsigned>, uint64_t>;  // by class and bin

  static unsigned bin(uint64_t age) {
    if (age < 8) return static_cast<unsigned>(age);
    unsigned octave = 3;
    while (age >> (octave + 1) != 0) ++octave;
    return 8 + 4 * (octave - 3) +
           static_cast<unsigned>((age - (uint64_t{1} << octave)) * 4 >> octave);
  }
  static double width(unsigned b) {
    return b < 8 ? 1 : std::ldexp(1.0, static_cast<int>((b - 8) / 4) + 1);
  }

  // ---- Victims

  Place place(const Page &page) const {
    // As of the scan; a page used since is of no age.
    const uint64_t age = page.last > scanned_ ? 0 : scanned_ - page.last;
    return {used_[page.cls][bin(age)], page.last, -static_cast<int64_t>(page.depth), page.key};
  }

  bool evictable(const Page &page) const {
    return page.resident && page.children == 0 && &page != pinned_;
  }

  void enter(const Page &page) {
    const Place at = place(page);
    if (everything_ || std::pair(std::get<0>(at), std::get<1>(at)) <= bound_) queue_.insert(at);
  }

  bool scan(uint64_t want) {
    uint64_t target = std::max(want, capacity_ / 16);
    used_ = table_;
    scanned_ = now_;
    for (;; target *= 4) {
      std::vector<std::pair<Place, const Page *>> leaves;
      for (const auto &[key, page] : pages_)
        if (page.resident && page.children == 0) leaves.emplace_back(place(page), &page);
      std::sort(leaves.begin(), leaves.end());
      everything_ = target >= leaves.size();
      if (!everything_) {
        const Place &last = leaves[target - 1].first;
        bound_ = {std::get<0>(last), std::get<1>(last)};
        leaves.resize(target);
      }
      queue_.clear();
      for (const auto &[at, page] : leaves)
        if (evictable(*page)) queue_.insert(at);
      left_ = target;
      if (everything_ || queue_.size() >= want) return !queue_.empty();
    }
  }

  void evict(uint64_t n) {
    while (n != 0) {
      if (left_ == 0 || queue_.empty()) {
        if (!scan(n)) return;
      }
      const Place next = *queue_.begin();
      queue_.erase(queue_.begin());
      Page &page = pages_[std::get<3>(next)];
      if (!evictable(page)) continue;
      if (place(page) != next) {
        enter(page);
        continue;
      }
      page.resident = false;
      gone_.push_back(&page);
      --resident_;
      --left_;
      --n;
      ++evicted_;
      if (page.parent != nullptr && --page.parent->children == 0) enter(*page.parent);
    }
  }

  // ---- What is learned

  bool known(const Page &page) const { return page.resident || page.ghost; }

  void learn(const std::vector<Page *> &path, unsigned cls) {
    const size_t n = path.size();
    std::vector<bool> known_before;
    for (Page *page : path) {
      known_before.push_back(known(*page));
      if (!known_before.back()) page->fan = page->weight = page->cls = 0;
      if (page->ghost) {
        page->ghost = false;
        --ghosts_;
        for (auto &[ghost, live] : memory_)
          if (ghost == page) live = false;
      }
    }
    const auto unknown = static_cast<size_t>(
        std::find(known_before.begin(), known_before.end(), false) - known_before.begin());
    bool tail = false;
    if (unknown != 0 && unknown != n) {
      Page &above = *path[unknown - 1];
      above.fan = std::min(3u, above.fan + 1);
      tail = above.fan != 3;
    }
    for (size_t i = unknown + 1; i < n; ++i)
      if (!known_before[i]) path[i - 1]->fan = std::max(1u, path[i - 1]->fan);
    for (size_t i = 0; i < n; ++i) {
      Page &page = *path[i];
      const uint64_t gap = now_ - page.last;
      unsigned kind = 0;
      if (known_before[i]) reused_[{page.cls, bin(gap)}] += page.weight;
      if (page.fan == 3) {
        kind = 1;
      } else if (known_before[i]) {
        kind = 3;
        for (uint64_t bound = 4; bound <= gap && kind < 15; bound *= 4) ++kind;
      } else if (tail) {
        kind = 2;
      }
      page.cls = cls * 16 + kind;
      page.weight = std::max(1u, 65535u / static_cast<unsigned>(n));
      page.last = now_;
    }
    remember();
    ++records_;
    ++records_since_;
    pages_since_ += n;
    if (records_since_ >= 16 && pages_since_ * 8 >= resident_ + ghosts_) fit(path);
  }

  // The pages that this request's evictions took become ghosts.
  void remember() {
    std::sort(gone_.begin(), gone_.end(), [](const Page *a, const Page *b) {
      return std::pair(a->last, a->key) < std::pair(b->last, b->key);
    });
    for (Page *page : gone_) {
      memory_.emplace_back(page, true);
      page->ghost = true;
      ++ghosts_;
      if (memory_.size() <= 4 * capacity_) continue;
      const auto [oldest, live] = memory_.front();
      memory_.pop_front();
      if (!live) continue;
      oldest->ghost = false;
      --ghosts_;
      lost_[{oldest->cls, bin(now_ - oldest->last)}] += oldest->weight;
    }
    gone_.clear();
  }

  void fit(const std::vector<Page *> &path) {
    halved_ += records_since_;
    if (halved_ >= 16384) {
      halved_ = 0;
      for (auto *sums : {&reused_, &lost_})
        for (auto &[at, sum] : *sums) sum /= 2;
    }
    records_since_ = pages_since_ = 0;
    ++fits_;
    const std::set<const Page *> served(path.begin(), path.end());
    Sums open;
    for (const auto &[key, page] : pages_)
      if (known(page) || served.contains(&page))
        open[{page.cls, bin(now_ - page.last)}] += page.weight;
    for (unsigned cls = 0; cls < kClasses; ++cls) fit_class(cls, open);
  }

  static uint64_t sum(const Sums &sums, unsigned cls, unsigned b) {
    const auto at = sums.find({cls, b});
    return at == sums.end() ? 0 : at->second;
  }

  void fit_class(unsigned cls, const Sums &open) {
    std::vector<uint64_t> used(kBins), cut(kBins);
    unsigned end = 0;
    for (unsigned b = 0; b < kBins; ++b) {
      used[b] = sum(reused_, cls, b);
      cut[b] = sum(open, cls, b) + sum(lost_, cls, b);
      if (used[b] + cut[b] != 0) end = b + 1;
    }
    if (end == 0) return;
    const double prior = 10.0 * 65535;
    std::vector<double> hazard(kBins, 0.05);
    for (unsigned b = 0; b < end; ++b) {
      uint64_t later = 0;
      for (unsigned j = b + 1; j < end; ++j) later += used[j] + cut[j];
      const double risk = static_cast<double>(used[b] + later) + static_cast<double>(cut[b]) / 2;
      hazard[b] = std::min(0.999, (static_cast<double>(used[b]) + prior * 0.05) / (risk + prior));
    }
    for (unsigned b = 0; b < kBins; ++b)
      table_[cls][b] = b < end ? rank(hazard, b, std::min(end + 4, kBins)) : lru()[cls][b];
  }

  static unsigned rank(const std::vector<double> &hazard, unsigned b, unsigned end) {
    double best = 0, stays = 1, time = 0;
    for (unsigned j = b; j < end; ++j) {
      time += stays * width(j) * (1 - hazard[j] / 2);
      stays *= 1 - hazard[j];
      best = std::max(best, (1 - stays) / time);
    }
    return static_cast<unsigned>(std::clamp(255 + 10 * std::log2(best), 0.0, 255.0));
  }

  static const Table &lru() {
    static const Table table = [] {
      Table all;
      const std::vector<double> prior(kBins, 0.05);
      for (auto &row : all)
        for (unsigned b = 0; b < kBins; ++b) row[b] = rank(prior, b, kBins);
      return all;
    }();
    return table;
  }

  const uint64_t capacity_;
  std::map<uint64_t, Page> pages_;  // ever seen
  std::deque<std::pair<Page *, bool>> memory_;
  std::vector<Page *> gone_;
  Sums reused_, lost_;
  Table table_ = lru(), used_ = lru();
  std::set<Place> queue_;
  std::pair<unsigned, uint64_t> bound_;
  bool everything_ = false;
  const Page *pinned_ = nullptr;
  uint64_t left_ = 0, scanned_ = 0, now_ = 0, resident_ = 0, ghosts_ = 0;
  uint64_t records_ = 0, records_since_ = 0, pages_since_ = 0, halved_ = 0, fits_ = 0;
  uint64_t hits_ = 0, evicted_ = 0;
};

}  // namespace quire::test

#endif  // QUIRE_TESTS_SUPPORT_HAZARD_ORACLE_H
