// ApiOracle: what the C API must do, in plain maps, for one thread at a time.
//
// It knows every page by its handle: the published ones with parent, namespace generation, expiry,
// stamp and pins, the private ones with their owner; leases as lists of pages; namespaces as
// generations. It decides nothing by the library's word, with two exceptions that it then checks
// against the rules:
//   - which pages are gone after a call that may evict: only leaves without pins, in the order of
//     (stamp, deepest first), up the chains, and the dead in any order; under the policy by
//     priority (priority, stamp, deepest first), as of the beginning of the epoch  (sync_evictions)
//     With floors, order is held to within namespaces that have none
//   - which frame a page lies in
//
// A walk through the API with it is tests/model/api_oracle_test.cpp.
#ifndef QUIRE_TESTS_SUPPORT_API_ORACLE_H_
#define QUIRE_TESTS_SUPPORT_API_ORACLE_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "quire/quire.h"

namespace quire::test {

inline bool same_key(const quire_key &a, const quire_key &b) {
  return a.lo == b.lo && a.hi == b.hi;
}

struct OraclePage {
  quire_key key{};
  quire_page parent = 0;
  uint32_t depth = 0;
  size_t space = 0;
  uint64_t generation = 0;
  uint64_t stamp = 0;    // epoch of the last use of it, or of what hung on it
  uint64_t used_ms = 0;  // the same, in time
  uint64_t expiry_ms = UINT64_MAX;
  uint32_t idle_ms = 0;
  uint32_t priority = 2;
  uint32_t children = 0;
  uint32_t references = 0;
  quire_stream writer = nullptr;
  uint64_t written = 0;  // the writer's position when it was published
  uint32_t variant = 0;  // of its token ids; 0: those that its key was made of
};

struct OraclePrivate {
  quire_lease lease = 0;
  bool open = false;
  bool sealed = false;            // by quire_seal; a page is sealed once
  quire_stream writer = nullptr;  // that sealed it
  uint64_t written = 0;
};

struct OracleLease {
  std::vector<quire_page> chain;
  std::vector<quire_page> privates;
  size_t space = 0;
  std::vector<uint32_t>
      path;  // the tokens' branch at each page of the prefix that it was taken for
  uint64_t owner = 0;
  uint64_t deadline_ms = 0;  // absolute; 0: none
  bool revocable = false;
};

class ApiOracle {
 public:
  using Order = std::tuple<uint32_t, uint64_t, int64_t>;  // priority, stamp, deepest first
  std::map<quire_page, OraclePage> published;
  std::map<quire_page, OraclePrivate> privates;
  std::map<quire_lease, OracleLease> leases;
  std::vector<uint64_t> generations;     // by namespace
  std::vector<uint32_t> quotas, floors;  // the same; 0: none. Empty: nobody has any
  uint64_t epoch = 0;
  uint64_t now_ms = 0;
  bool by_priority = false;
  bool learned = false;                        // any leaf may be the next to go
  uint32_t shared_pages = 0, shared_open = 0;  // frames held by sequences' private pages

  static void require(bool good, const std::string &what) {
    if (!good) throw std::runtime_error(what);
  }

  bool alive(const OraclePage &page) const {
    return page.generation == generations[page.space] && page.expiry_ms > now_ms;
  }
  bool idle(const OraclePage &page) const {
    return page.idle_ms != 0 && now_ms >= page.used_ms + page.idle_ms;
  }
  quire_page find(const quire_key &key) const {
    for (const auto &[handle, page] : published) {
      if (same_key(page.key, key) && alive(page)) return handle;
    }
    return 0;
  }
  std::vector<quire_page> run(const std::vector<quire_key> &keys) const {
    std::vector<quire_page> hit;
    for (const quire_key &key : keys) {
      const quire_page page = find(key);
      if (page == 0) break;
      hit.push_back(page);
    }
    return hit;
  }
  // How many pages of a run have the token ids that are asked for: one variant a page.
  size_t same_tokens(const std::vector<quire_page> &run,
                     const std::vector<uint32_t> &variants) const {
    size_t n = 0;
    while (n < run.size() && published.at(run[n]).variant == variants[n]) ++n;
    return n;
  }
  void touch(quire_page handle) {
    OraclePage &page = published.at(handle);
    page.stamp = std::max(page.stamp, epoch);
    page.used_ms = std::max(page.used_ms, now_ms);
  }
  void pin(quire_page handle) { ++published.at(handle).references; }
  void unpin(quire_page handle) {
    touch(handle);
    require(published.at(handle).references-- > 0, "the oracle itself lost a reference");
  }
  void release(quire_lease lease) {
    const OracleLease &l = leases.at(lease);
    for (const quire_page page : l.privates) privates.erase(page);
    if (!l.chain.empty()) unpin(l.chain.back());
    leases.erase(lease);
  }
  uint32_t held(bool open) const {
    uint32_t n = open ? shared_open : shared_pages + static_cast<uint32_t>(published.size());
    for (const auto &[handle, page] : privates) n += page.open == open ? 1u : 0u;
    return n;
  }
  uint32_t pages_of(size_t space) const {
    uint32_t n = 0;
    for (const auto &[handle, page] : published) n += page.space == space ? 1u : 0u;
    return n;
  }
  // Pages of a namespace that could go, one after the other: those without a pin in their subtree.
  uint32_t evictable_of(size_t space) const {
    const std::set<quire_page> pinned = pinned_pages();
    uint32_t n = 0;
    for (const auto &[handle, page] : published) {
      n += page.space == space && pinned.count(handle) == 0 ? 1u : 0u;
    }
    return n;
  }
  // What an eviction for namespace `own` (kNobody: for none) could take of all.
  static constexpr size_t kNobody = SIZE_MAX;
  uint32_t evictable(size_t own = kNobody) const {
    if (floors.empty()) return static_cast<uint32_t>(published.size() - pinned_pages().size());
    uint32_t n = 0;
    for (size_t space = 0; space < floors.size(); ++space) {
      const uint32_t pages = pages_of(space), can = evictable_of(space);
      const uint32_t above = pages > floors[space] ? pages - floors[space] : 0;
      n += space == own ? can : std::min(can, above);
    }
    return n;
  }
  std::set<quire_page> pinned_pages() const {
    std::set<quire_page> pinned;
    for (const auto &[handle, page] : published) {
      if (page.references == 0) continue;
      for (quire_page p = handle; p != 0 && pinned.insert(p).second;) p = published.at(p).parent;
    }
    return pinned;
  }

  // After a call that may have evicted: takes the pages that are gone (`is_there` says which) out,
  // and holds the library to its order. Returns how many are gone.
  template <class IsThere>
  uint32_t sync_evictions(const IsThere &is_there) {
    std::set<quire_page> gone;
    for (const auto &[handle, page] : published) {
      if (!is_there(handle)) gone.insert(handle);
    }
    if (gone.empty()) return 0;
    const auto n = static_cast<uint32_t>(gone.size());
    std::map<quire_page, Order> freed;  // pages that became leaves, and after what
    while (!gone.empty()) {
      quire_page first = 0;
      for (const quire_page handle : gone) {
        const OraclePage &page = published.at(handle);
        if (page.children != 0) continue;
        const bool dying = !alive(page) || idle(page);
        if (first == 0 || dying || order(page) < order(published.at(first))) first = handle;
        if (dying) break;  // before its turn
      }
      require(first != 0, "a page with children was evicted");
      const OraclePage page = published.at(first);
      require(page.references == 0, "a pinned page was evicted");
      if (alive(page) && !idle(page)) require_turn(page, gone, freed);
      if (page.parent != 0) {
        // Not before this page went, nor what it waited for itself.
        Order &after = freed[page.parent];
        after = std::max({after, order(page), freed[first]});
        OraclePage &parent = published.at(page.parent);
        --parent.children;
        parent.stamp = std::max(parent.stamp, page.stamp);
        parent.used_ms = std::max(parent.used_ms, page.used_ms);
      }
      published.erase(first);
      gone.erase(first);
    }
    return n;
  }

  // Dead or idle pages that nothing pins: they may go before their turn.
  uint32_t dying() const {
    uint32_t n = 0;
    for (const auto &[handle, page] : published) n += !alive(page) || idle(page) ? 1u : 0u;
    return n;
  }

  void publish(quire_page handle, const OraclePage &page) {
    if (page.parent != 0) ++published.at(page.parent).children;
    published[handle] = page;
  }

 private:
  // Of the leaves that stay none comes before this one, which goes because frames are needed. By
  // priority, what was used in this epoch may not have been seen, and a parent may come before its
  // last child, but is a leaf only after it.
  void require_turn(const OraclePage &goes, const std::set<quire_page> &gone,
                    const std::map<quire_page, Order> &freed) const {
    if (learned) return;
    if (!floors.empty() && floors[goes.space] != 0) return;
    for (const auto &[handle, page] : published) {
      if (page.references != 0 || page.children != 0 || gone.count(handle) != 0) continue;
      if (!floors.empty() && page.space != goes.space) continue;
      if (by_priority && page.stamp == epoch) continue;
      const auto at = freed.find(handle);
      if (by_priority && at != freed.end() && !(at->second < order(goes))) continue;
      require(!(order(page) < order(goes)),
              "an older leaf was passed over: priority " + std::to_string(page.priority) +
                  " stamp " + std::to_string(page.stamp) + " depth " + std::to_string(page.depth) +
                  ", evicted were " + std::to_string(goes.priority) + ", " +
                  std::to_string(goes.stamp) + ", " + std::to_string(goes.depth));
    }
  }

  Order order(const OraclePage &page) const {
    return {by_priority ? page.priority : 0, page.stamp, -int64_t{page.depth}};
  }
};

}  // namespace quire::test

#endif  // QUIRE_TESTS_SUPPORT_API_ORACLE_H_
