// See peers.h for what these are and what was changed in them.
#include "peers.h"

#include <algorithm>
#include <memory>
#include <set>
#include <tuple>
#include <vector>

namespace quire::replay {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

// What is resident, and what of that may go: no children, not held.
struct Residents {
  std::vector<uint32_t> parent, children, depth, held;
  std::vector<bool> resident;
  uint32_t request = 0;  // that holds pages, from 1 on

  explicit Residents(uint32_t pages)
      : parent(pages, kNone), children(pages), depth(pages), held(pages), resident(pages) {}
  bool may_go(uint32_t page) const { return children[page] == 0 && held[page] != request; }
};

// A queue in links that all queues of a policy share: a page is in one of them at most.
class Queue {
 public:
  struct Links {
    explicit Links(uint32_t pages) : newer(pages, kNone), older(pages, kNone) {}
    std::vector<uint32_t> newer, older;
  };
  explicit Queue(Links *links) : links_(*links) {}

  void push(uint32_t page) {  // as the newest
    links_.newer[page] = kNone;
    links_.older[page] = newest_;
    (newest_ == kNone ? oldest_ : links_.newer[newest_]) = page;
    newest_ = page;
    ++size_;
  }
  void remove(uint32_t page) {
    const uint32_t newer = links_.newer[page], older = links_.older[page];
    (newer == kNone ? newest_ : links_.older[newer]) = older;
    (older == kNone ? oldest_ : links_.newer[older]) = newer;
    --size_;
  }
  uint32_t oldest() const { return oldest_; }
  uint32_t newer(uint32_t page) const { return links_.newer[page]; }
  uint32_t size() const { return size_; }
  // The oldest that may go; kNone: none.
  uint32_t oldest_leaf(const Residents &r) const {
    uint32_t page = oldest_;
    while (page != kNone && !r.may_go(page)) page = links_.newer[page];
    return page;
  }

 private:
  Links &links_;
  uint32_t newest_ = kNone, oldest_ = kNone, size_ = 0;
};

class Peer {
 public:
  virtual ~Peer() = default;
  virtual void hit(uint32_t page) = 0;
  virtual void insert(uint32_t page) = 0;
  // A page that may go, which there is. It is forgotten, or a ghost.
  virtual uint32_t evict(const Residents &r) = 0;
};

class Sieve : public Peer {
 public:
  explicit Sieve(uint32_t pages) : links_(pages), queue_(&links_), used_(pages) {}
  void hit(uint32_t page) override { used_[page] = true; }
  void insert(uint32_t page) override {
    used_[page] = false;
    queue_.push(page);
  }
  uint32_t evict(const Residents &r) override {
    for (;; hand_ = queue_.newer(hand_)) {
      if (hand_ == kNone) hand_ = queue_.oldest();
      if (!r.may_go(hand_)) continue;
      if (!used_[hand_]) break;
      used_[hand_] = false;
    }
    const uint32_t page = hand_;
    hand_ = queue_.newer(page);
    queue_.remove(page);
    return page;
  }

 private:
  Queue::Links links_;
  Queue queue_;
  std::vector<bool> used_;
  uint32_t hand_ = kNone;
};

class S3Fifo : public Peer {
 public:
  S3Fifo(uint32_t pages, uint32_t capacity)
      : links_(pages),
        small_(&links_),
        main_(&links_),
        ghosts_(&links_),
        capacity_(capacity),
        where_(pages),
        count_(pages) {}
  void hit(uint32_t page) override { count_[page] = std::min<uint8_t>(3, count_[page] + 1); }
  void insert(uint32_t page) override {
    count_[page] = 0;
    if (where_[page] == kGhost) {
      ghosts_.remove(page);
      put(page, kMain);
    } else {
      put(page, kSmall);
    }
  }
  uint32_t evict(const Residents &r) override {
    for (;;) {
      const bool small = small_.size() > capacity_ / 10;
      uint32_t page = (small ? small_ : main_).oldest_leaf(r);
      if (page == kNone) page = (small ? main_ : small_).oldest_leaf(r);
      const bool from_small = where_[page] == kSmall;
      (from_small ? small_ : main_).remove(page);
      if (from_small ? count_[page] > 1 : count_[page] > 0) {
        count_[page] = from_small ? 0 : static_cast<uint8_t>(count_[page] - 1);
        put(page, kMain);
        continue;
      }
      where_[page] = kGone;
      if (from_small) remember(page);
      return page;
    }
  }

 private:
  enum Where : uint8_t { kGone, kSmall, kMain, kGhost };
  void put(uint32_t page, Where where) {
    where_[page] = where;
    (where == kSmall ? small_ : main_).push(page);
  }
  void remember(uint32_t page) {
    where_[page] = kGhost;
    ghosts_.push(page);
    if (ghosts_.size() <= capacity_) return;
    where_[ghosts_.oldest()] = kGone;
    ghosts_.remove(ghosts_.oldest());
  }

  Queue::Links links_;
  Queue small_, main_, ghosts_;
  const uint32_t capacity_;
  std::vector<Where> where_;
  std::vector<uint8_t> count_;
};

class Arc : public Peer {
 public:
  Arc(uint32_t pages, uint32_t capacity)
      : links_(pages), queue_(4, Queue(&links_)), capacity_(capacity), where_(pages, kGone) {}
  void hit(uint32_t page) override { move(page, kFrequent); }
  void insert(uint32_t page) override {
    const uint32_t recent = queue_[kRecentGhost].size(), frequent = queue_[kFrequentGhost].size();
    if (where_[page] == kRecentGhost) {
      share_ = std::min(capacity_, share_ + std::max(1u, frequent / recent));
      move(page, kFrequent);
    } else if (where_[page] == kFrequentGhost) {
      share_ -= std::min(share_, std::max(1u, recent / frequent));
      move(page, kFrequent);
    } else {
      move(page, kRecent);
    }
    // Recent pages and their ghosts are as many as the cache, all together twice that.
    while (queue_[kRecent].size() + queue_[kRecentGhost].size() > capacity_ &&
           queue_[kRecentGhost].size() != 0)
      move(queue_[kRecentGhost].oldest(), kGone);
    while (queue_[kRecentGhost].size() + queue_[kFrequentGhost].size() > capacity_)
      move(queue_[queue_[kFrequentGhost].size() != 0 ? kFrequentGhost : kRecentGhost].oldest(),
           kGone);
  }
  uint32_t evict(const Residents &r) override {
    Where from = queue_[kRecent].size() > share_ ? kRecent : kFrequent;
    uint32_t page = queue_[from].oldest_leaf(r);
    if (page == kNone) {
      from = from == kRecent ? kFrequent : kRecent;
      page = queue_[from].oldest_leaf(r);
    }
    move(page, from == kRecent ? kRecentGhost : kFrequentGhost);
    return page;
  }

 private:
  enum Where : uint8_t { kRecent, kFrequent, kRecentGhost, kFrequentGhost, kGone };
  void move(uint32_t page, Where to) {
    if (where_[page] != kGone) queue_[where_[page]].remove(page);
    where_[page] = to;
    if (to != kGone) queue_[to].push(page);
  }

  Queue::Links links_;
  std::vector<Queue> queue_;
  const uint32_t capacity_;
  std::vector<Where> where_;
  uint32_t share_ = 0;  // of the recent ones
};

class Lru2 : public Peer {
 public:
  Lru2(uint32_t pages, const Residents *r) : r_(*r), last_(pages), before_(pages) {}
  void hit(uint32_t page) override {
    order_.erase(place(page));
    insert(page);
  }
  void insert(uint32_t page) override {
    before_[page] = last_[page];
    last_[page] = r_.request;
    order_.insert(place(page));
  }
  uint32_t evict(const Residents &r) override {
    auto at = order_.begin();
    while (!r.may_go(std::get<3>(*at))) ++at;
    const uint32_t page = std::get<3>(*at);
    order_.erase(at);
    return page;
  }

 private:
  std::tuple<uint32_t, uint32_t, uint32_t, uint32_t> place(uint32_t page) const {
    return {before_[page], last_[page], ~r_.depth[page], page};
  }
  const Residents &r_;
  std::vector<uint32_t> last_, before_;  // requests, from 1 on
  std::set<std::tuple<uint32_t, uint32_t, uint32_t, uint32_t>> order_;
};

std::unique_ptr<Peer> make_peer(const std::string &policy, uint32_t pages, uint32_t capacity,
                                const Residents *residents) {
  if (policy == "sieve") return std::make_unique<Sieve>(pages);
  if (policy == "s3fifo") return std::make_unique<S3Fifo>(pages, capacity);
  if (policy == "arc") return std::make_unique<Arc>(pages, capacity);
  return std::make_unique<Lru2>(pages, residents);
}

}  // namespace

BeladyResult replay_peer(const std::string &policy, const Trace &trace, const PageTree &tree,
                         uint32_t capacity) {
  Residents r(tree.pages);
  const std::unique_ptr<Peer> peer = make_peer(policy, tree.pages, capacity, &r);
  BeladyResult result;
  uint64_t residents = 0;
  for (const Request &request : trace.requests) {
    ++r.request;
    const uint64_t n = std::min<uint64_t>(request.end - request.begin, capacity);
    const uint32_t *pages = tree.numbers.data() + request.begin;
    uint64_t hits = 0;
    for (uint64_t i = 0; i < n; ++i) {
      r.held[pages[i]] = r.request;
      r.depth[pages[i]] = static_cast<uint32_t>(i);
      if (i != 0) r.parent[pages[i]] = pages[i - 1];
      if (hits == i && r.resident[pages[i]]) ++hits;
    }
    for (; residents + n - hits > capacity; --residents, ++result.evicted) {
      const uint32_t page = peer->evict(r);
      r.resident[page] = false;
      if (r.parent[page] != kNone) --r.children[r.parent[page]];
    }
    for (uint64_t i = n; i-- > hits;) {
      peer->insert(pages[i]);
      r.resident[pages[i]] = true;
      if (i != 0) ++r.children[pages[i - 1]];
    }
    for (uint64_t i = hits; i-- > 0;) peer->hit(pages[i]);
    residents += n - hits;
    result.inserted += n - hits;
    result.hits += hits;
    result.request_hits.push_back(static_cast<uint32_t>(hits));
  }
  return result;
}

}  // namespace quire::replay
