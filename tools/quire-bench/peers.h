// The maps and caches that the C API's rows are held against, behind one shape.
//
// A peer is given what an engine that builds on it would need: a 16-byte key finds a page number,
// and a reference is taken that keeps the page; `unpin` gives it back. Each is the product's own
// best way to say that:
//   TbbPins     oneTBB's concurrent_hash_map from key to page, and an atomic count a page
//   FlatPins    boost::concurrent_flat_map (Boost 1.83 and newer), and a count a page; prefixes are
//               looked up in bulk where it can (1.84), which overlaps their misses
//   CuckooPins  libcuckoo's cuckoohash_map, and a count a page
//   RcuPins     liburcu's lock-free hash table: a lookup and a count inside a read-side section
//   ClockCache  RocksDB's HyperClockCache, whose handles are pins
//   LruCache    RocksDB's LRUCache in 64 shards, as it is used by many threads; handles are pins
//   MutexMap    std::unordered_map and a count a page under one mutex
// None of them knows chains, so a prefix costs them a lookup a page.
//   after pin and unpin of the same keys, every count is as before.
// Thread class: any thread; filling and clearing from one.
#ifndef QUIRE_BENCH_PEERS_H
#define QUIRE_BENCH_PEERS_H

#include <tbb/concurrent_hash_map.h>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

#include "quire/quire.h"

#ifdef QUIRE_BENCH_HAVE_BOOST_CONCURRENT_FLAT_MAP
#include <boost/unordered/concurrent_flat_map.hpp>
#include <boost/version.hpp>
#endif
#ifdef QUIRE_BENCH_HAVE_LIBCUCKOO
#include <libcuckoo/cuckoohash_map.hh>
#endif
#ifdef QUIRE_BENCH_HAVE_URCU
#include <urcu/urcu-memb.h>

#include <urcu/rculfhash.h>
#endif
#ifdef QUIRE_BENCH_HAVE_ROCKSDB
#include <rocksdb/cache.h>
#include <rocksdb/slice.h>
#endif

namespace quire::bench {

struct KeyHash {
  // Keys are hashes already.
  size_t operator()(const quire_key &key) const { return key.lo; }
  static size_t hash(const quire_key &key) { return key.lo; }
  static bool equal(const quire_key &a, const quire_key &b) { return a.lo == b.lo && a.hi == b.hi; }
};

struct KeyEqual {
  bool operator()(const quire_key &a, const quire_key &b) const { return KeyHash::equal(a, b); }
};

class TbbPins {
 public:
  static constexpr uint32_t kAbsent = UINT32_MAX;
  explicit TbbPins(uint32_t pages) : references_(pages) { map_.rehash(pages); }

  bool insert(const quire_key &key, uint32_t page) { return map_.insert({key, page}); }
  void erase(const quire_key &key) { map_.erase(key); }

  // The page, pinned, or UINT32_MAX.
  uint32_t pin(const quire_key &key) {
    Map::const_accessor at;
    if (!map_.find(at, key)) return UINT32_MAX;
    const uint32_t page = at->second;
    // acquire, release below: what an exact count needs at least.
    references_[page].fetch_add(1, std::memory_order_acquire);
    return page;
  }
  void unpin(uint32_t page) { references_[page].fetch_sub(1, std::memory_order_release); }

 private:
  using Map = tbb::concurrent_hash_map<quire_key, uint32_t, KeyHash>;
  Map map_;
  std::vector<std::atomic<uint32_t>> references_;
};

class MutexMap {
 public:
  static constexpr uint32_t kAbsent = UINT32_MAX;
  explicit MutexMap(uint32_t pages) : references_(pages) { map_.reserve(pages); }

  bool insert(const quire_key &key, uint32_t page) {
    const std::lock_guard lock(mutex_);
    return map_.emplace(key, page).second;
  }
  void erase(const quire_key &key) {
    const std::lock_guard lock(mutex_);
    map_.erase(key);
  }
  uint32_t pin(const quire_key &key) {
    const std::lock_guard lock(mutex_);
    const auto at = map_.find(key);
    if (at == map_.end()) return UINT32_MAX;
    ++references_[at->second];
    return at->second;
  }
  void unpin(uint32_t page) {
    const std::lock_guard lock(mutex_);
    --references_[page];
  }

 private:
  std::mutex mutex_;
  std::unordered_map<quire_key, uint32_t, KeyHash, KeyEqual> map_;
  std::vector<uint32_t> references_;
};

#ifdef QUIRE_BENCH_HAVE_BOOST_CONCURRENT_FLAT_MAP
class FlatPins {
 public:
  static constexpr uint32_t kAbsent = UINT32_MAX;
  explicit FlatPins(uint32_t pages) : references_(pages) { map_.reserve(pages); }

  bool insert(const quire_key &key, uint32_t page) { return map_.emplace(key, page); }
  void erase(const quire_key &key) { map_.erase(key); }
  uint32_t pin(const quire_key &key) {
    uint32_t found = kAbsent;
    map_.visit(key, [&](const auto &entry) { found = pinned(entry.second); });
    return found;
  }
#if BOOST_VERSION >= 108400
  // Into pins[], those that are there one after the other; how many.
  uint32_t pin_all(const quire_key *keys, uint32_t n, uint32_t *pins) {
    uint32_t found = 0;
    map_.visit(keys, keys + n, [&](const auto &entry) { pins[found++] = pinned(entry.second); });
    return found;
  }
#endif
  void unpin(uint32_t page) {
    references_[page].fetch_sub(1, std::memory_order_release);
  }

 private:
  // The keys are hashes already; the map would mix them once more.
  struct Hash : KeyHash {
    using is_avalanching = void;
  };
  uint32_t pinned(uint32_t page) {
    references_[page].fetch_add(1, std::memory_order_acquire);
    return page;
  }
  boost::concurrent_flat_map<quire_key, uint32_t, Hash, KeyEqual> map_;
  std::vector<std::atomic<uint32_t>> references_;
};
#endif

#ifdef QUIRE_BENCH_HAVE_LIBCUCKOO
class CuckooPins {
 public:
  static constexpr uint32_t kAbsent = UINT32_MAX;
  explicit CuckooPins(uint32_t pages) : references_(pages) { map_.reserve(pages); }

  bool insert(const quire_key &key, uint32_t page) { return map_.insert(key, page); }
  void erase(const quire_key &key) { map_.erase(key); }
  uint32_t pin(const quire_key &key) {
    uint32_t found = kAbsent;
    map_.find_fn(key, [&](uint32_t page) {
      references_[page].fetch_add(1, std::memory_order_acquire);
      found = page;
    });
    return found;
  }
  void unpin(uint32_t page) { references_[page].fetch_sub(1, std::memory_order_release); }

 private:
  libcuckoo::cuckoohash_map<quire_key, uint32_t, KeyHash, KeyEqual> map_;
  std::vector<std::atomic<uint32_t>> references_;
};
#endif

#ifdef QUIRE_BENCH_HAVE_URCU
// A node is the page's descriptor, as an intrusive table is meant to be used; as many buckets as
// pages, never resized.
class RcuPins {
 public:
  static constexpr uint32_t kAbsent = UINT32_MAX;
  explicit RcuPins(uint32_t pages) : nodes_(pages) {
    const unsigned long buckets = std::bit_ceil(static_cast<unsigned long>(pages));
    table_ = cds_lfht_new_flavor(buckets, buckets, buckets, 0, &urcu_memb_flavor, nullptr);
    if (table_ == nullptr) throw std::runtime_error("cds_lfht_new failed");
  }
  RcuPins(const RcuPins &) = delete;
  RcuPins &operator=(const RcuPins &) = delete;
  ~RcuPins() {
    join();
    for (Node &node : nodes_) {
      if (!node.inserted) continue;
      urcu_memb_read_lock();
      cds_lfht_del(table_, &node.node);
      urcu_memb_read_unlock();
    }
    cds_lfht_destroy(table_, nullptr);
  }

  // Each page once.
  bool insert(const quire_key &key, uint32_t page) {
    join();
    Node &node = nodes_[page];
    node.key = key;
    cds_lfht_node_init(&node.node);
    urcu_memb_read_lock();
    node.inserted = cds_lfht_add_unique(table_, key.lo, same_key, &key, &node.node) == &node.node;
    urcu_memb_read_unlock();
    return node.inserted;
  }
  uint32_t pin(const quire_key &key) {
    join();
    uint32_t found = kAbsent;
    cds_lfht_iter iter;
    urcu_memb_read_lock();
    cds_lfht_lookup(table_, key.lo, same_key, &key, &iter);
    if (Node *node = of(cds_lfht_iter_get_node(&iter))) {
      node->references.fetch_add(1, std::memory_order_acquire);
      found = static_cast<uint32_t>(node - nodes_.data());
    }
    urcu_memb_read_unlock();
    return found;
  }
  void unpin(uint32_t page) { nodes_[page].references.fetch_sub(1, std::memory_order_release); }

 private:
  struct Node {
    cds_lfht_node node;  // first: of() relies on it
    quire_key key;
    std::atomic<uint32_t> references{0};
    bool inserted = false;
  };
  static Node *of(cds_lfht_node *node) { return reinterpret_cast<Node *>(node); }
  static int same_key(cds_lfht_node *node, const void *key) {
    return KeyHash::equal(of(node)->key, *static_cast<const quire_key *>(key)) ? 1 : 0;
  }
  // Threads are known to RCU from their first call until they end.
  static void join() {
    struct Membership {
      Membership() { urcu_memb_register_thread(); }
      ~Membership() { urcu_memb_unregister_thread(); }
    };
    thread_local const Membership member;
    static_cast<void>(member);
  }

  std::vector<Node> nodes_;
  cds_lfht *table_ = nullptr;
};
#endif

#ifdef QUIRE_BENCH_HAVE_ROCKSDB
// What both caches of RocksDB have in common. Room for twice the pages, so that their own eviction
// stays out of the picture.
class RocksCache {
 public:
  using Handle = rocksdb::Cache::Handle *;
  static constexpr Handle kAbsent = nullptr;

  bool insert(const quire_key &key, uint32_t page) {
    // The value is a number, never followed: one past it, as a null value means none.
    void *value = reinterpret_cast<void *>(uintptr_t{page} + 1);
    return cache_->Insert(slice(key), value, 1, [](const rocksdb::Slice &, void *) {}).ok();
  }
  void erase(const quire_key &key) { cache_->Erase(slice(key)); }
  Handle pin(const quire_key &key) { return cache_->Lookup(slice(key)); }
  void unpin(Handle handle) { cache_->Release(handle); }

 protected:
  explicit RocksCache(std::shared_ptr<rocksdb::Cache> cache) : cache_(std::move(cache)) {}

 private:
  static rocksdb::Slice slice(const quire_key &key) {
    return rocksdb::Slice(reinterpret_cast<const char *>(&key), sizeof key);
  }
  std::shared_ptr<rocksdb::Cache> cache_;
};

class ClockCache : public RocksCache {
 public:
  explicit ClockCache(uint32_t pages) : RocksCache(make(pages)) {}

 private:
  static std::shared_ptr<rocksdb::Cache> make(uint32_t pages) {
    rocksdb::HyperClockCacheOptions options(size_t{2} * pages, 1);
    options.metadata_charge_policy = rocksdb::kDontChargeCacheMetadata;
    return options.MakeSharedCache();
  }
};

class LruCache : public RocksCache {
 public:
  explicit LruCache(uint32_t pages) : RocksCache(make(pages)) {}

 private:
  static std::shared_ptr<rocksdb::Cache> make(uint32_t pages) {
    rocksdb::LRUCacheOptions options;
    options.capacity = size_t{2} * pages;
    options.num_shard_bits = 6;
    options.metadata_charge_policy = rocksdb::kDontChargeCacheMetadata;
    return rocksdb::NewLRUCache(options);
  }
};
#endif

}  // namespace quire::bench

#endif  // QUIRE_BENCH_PEERS_H
