// The maps and caches that the C API's rows are held against, behind one shape.
//
// A peer is given what an engine that builds on it would need: a 16-byte key finds a page number,
// and a reference is taken that keeps the page; `unpin` gives it back. Each is the product's own
// best way to say that:
//   TbbPins     oneTBB's concurrent_hash_map from key to page, and an atomic count a page
//   ClockCache  RocksDB's HyperClockCache, whose handles are pins
//   MutexMap    std::unordered_map and a count a page under one mutex
// None of them knows chains, so a prefix costs them a lookup a page.
//   after pin and unpin of the same keys, every count is as before.
// Thread class: any thread; filling and clearing from one.
#ifndef QUIRE_BENCH_PEERS_H
#define QUIRE_BENCH_PEERS_H

#include <tbb/concurrent_hash_map.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "quire/quire.h"

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

#ifdef QUIRE_BENCH_HAVE_ROCKSDB
class ClockCache {
 public:
  using Handle = rocksdb::Cache::Handle *;
  static constexpr Handle kAbsent = nullptr;

  // Room for twice the pages, so that its own eviction stays out of the picture.
  explicit ClockCache(uint32_t pages) {
    rocksdb::HyperClockCacheOptions options(size_t{2} * pages, 1);
    options.metadata_charge_policy = rocksdb::kDontChargeCacheMetadata;
    cache_ = options.MakeSharedCache();
  }

  bool insert(const quire_key &key, uint32_t page) {
    // The value is a number, never followed: one past it, as a null value means none.
    void *value = reinterpret_cast<void *>(uintptr_t{page} + 1);
    return cache_->Insert(slice(key), value, 1, [](const rocksdb::Slice &, void *) {}).ok();
  }
  void erase(const quire_key &key) { cache_->Erase(slice(key)); }
  Handle pin(const quire_key &key) { return cache_->Lookup(slice(key)); }
  void unpin(Handle handle) { cache_->Release(handle); }

 private:
  static rocksdb::Slice slice(const quire_key &key) {
    return rocksdb::Slice(reinterpret_cast<const char *>(&key), sizeof key);
  }
  std::shared_ptr<rocksdb::Cache> cache_;
};
#endif

}  // namespace quire::bench

#endif  // QUIRE_BENCH_PEERS_H
