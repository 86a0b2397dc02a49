// A cache full of chains, for rows that measure the C API: `chains` prefixes of `length` pages, all
// published, nothing leased. Smallest geometry; frames are never written.
//
// Young: chains were published one after the other into an empty cache, so that the pages of each
// have neighbouring numbers. Aged: each page of a chain is any page of the cache, which is worse
// than what evictions leave (they free the ends of chains, which are runs).
//
//   keys(c) are the keys of chain c; after construction quire_match of each gives `length`.
// Thread class: built on one thread; the cache itself serves any.
#ifndef QUIRE_BENCH_FILLED_CACHE_H
#define QUIRE_BENCH_FILLED_CACHE_H

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench.h"
#include "quire/quire.h"

namespace quire::bench {

inline void check(quire_status status, const char *call) {
  if (status != QUIRE_OK)
    throw std::runtime_error(std::string(call) + ": " + quire_status_string(status) + ": " +
                             quire_last_error());
}

class FilledCache {
 public:
  // room: pages of the cache, at least chains * length.
  FilledCache(uint32_t room, uint32_t chains, uint32_t length, uint64_t seed, bool aged = false)
      : chains_(chains), length_(length), keys_(size_t{chains} * length) {
    quire_config config;
    check(quire_config_init(&config), "quire_config_init");
    config.device = QUIRE_DEVICE_CPU;
    config.geometry.layers = config.geometry.kv_heads = 1;
    config.geometry.head_dim_k = config.geometry.head_dim_v = 8;
    config.geometry.page_tokens = 16;
    config.format = QUIRE_FORMAT_F16;
    config.device_pages = room;
    config.epoch_ms = QUIRE_NO_TIMER;
    config.segment = "-";
    check(quire_open(&config, &cache_), "quire_open");
    check(quire_root_key(cache_, nullptr, 0, &root_), "quire_root_key");
    Random random(seed);
    for (quire_key &key : keys_) key = quire_key{random(), random()};
    if (aged) {
      publish_shuffled(random);
      return;
    }
    for (uint32_t chain = 0; chain < chains; ++chain) publish_chain(keys(chain), length);
  }

  FilledCache(const FilledCache &) = delete;
  FilledCache &operator=(const FilledCache &) = delete;
  ~FilledCache() { quire_close(cache_); }

  quire_cache *get() const { return cache_; }
  uint32_t chains() const { return chains_; }
  uint32_t length() const { return length_; }
  const quire_key *keys(uint32_t chain) const { return keys_.data() + size_t{chain} * length_; }

  quire_prefix prefix(const quire_key *keys, uint32_t n) const {
    quire_prefix p;
    QUIRE_INIT(&p);
    p.n = n;
    p.root = root_;
    p.keys = keys;
    return p;
  }

  // One turn of a session: acquires what is cached of the prefix, publishes the rest, releases.
  // Returns the pages that were cached. From any thread, with n handles of its own for scratch.
  uint32_t serve(const quire_key *keys, uint32_t n, quire_page *pages) const {
    const quire_prefix p = prefix(keys, n);
    quire_lease lease;
    quire_hit hit;
    QUIRE_INIT(&hit);
    check(quire_acquire(cache_, &p, nullptr, pages, &hit, &lease), "quire_acquire");
    if (hit.pages < n) {
      quire_alloc_options options;
      QUIRE_INIT(&options);
      options.flags = QUIRE_ALLOC_SEALED;
      options.lease = lease;
      // Others may take what was evicted for us: then it is our turn again.
      quire_status status;
      while ((status = quire_alloc(cache_, n - hit.pages, &options, pages + hit.pages)) ==
             QUIRE_E_AGAIN)
        check(quire_step(cache_), "quire_step");
      check(status, "quire_alloc");
      quire_publish_result result;
      QUIRE_INIT(&result);
      check(quire_publish(cache_, lease, &p, pages, nullptr, &result), "quire_publish");
      if (result.n_published != n - hit.pages)
        throw std::runtime_error("the index did not take all pages");
    }
    check(quire_release(cache_, lease, nullptr), "quire_release");
    return hit.pages;
  }

  // Publishes n new pages; returns the ns of processor time that quire_publish alone took.
  double publish_chain(const quire_key *keys, uint32_t n) {
    quire_prefix p = prefix(keys, n);
    handles_.resize(n);
    quire_lease lease;
    check(quire_acquire(cache_, &p, nullptr, nullptr, nullptr, &lease), "quire_acquire");
    quire_alloc_options options;
    QUIRE_INIT(&options);
    options.flags = QUIRE_ALLOC_SEALED;
    options.lease = lease;
    check(quire_alloc(cache_, n, &options, handles_.data()), "quire_alloc");
    quire_publish_result result;
    QUIRE_INIT(&result);
    const CpuStopwatch watch;
    check(quire_publish(cache_, lease, &p, handles_.data(), nullptr, &result), "quire_publish");
    const double ns = watch.ns();
    check(quire_release(cache_, lease, nullptr), "quire_release");
    check(quire_step(cache_), "quire_step");
    if (result.n_published != n) throw std::runtime_error("the index did not take all pages");
    return ns;
  }

 private:
  void publish_shuffled(Random &random) {
    std::vector<quire_page> pages(keys_.size());
    quire_alloc_options options;
    QUIRE_INIT(&options);
    options.flags = QUIRE_ALLOC_SEALED;
    check(quire_alloc(cache_, static_cast<uint32_t>(pages.size()), &options, pages.data()),
          "quire_alloc");
    for (size_t i = pages.size(); i > 1; --i) std::swap(pages[i - 1], pages[random.below(i)]);
    for (uint32_t chain = 0; chain < chains_; ++chain) {
      const quire_prefix p = prefix(keys(chain), length_);
      quire_lease lease;
      check(quire_acquire(cache_, &p, nullptr, nullptr, nullptr, &lease), "quire_acquire");
      quire_publish_result result;
      QUIRE_INIT(&result);
      check(quire_publish(cache_, lease, &p, pages.data() + size_t{chain} * length_, nullptr,
                          &result),
            "quire_publish");
      check(quire_release(cache_, lease, nullptr), "quire_release");
      check(quire_step(cache_), "quire_step");
      if (result.n_published != length_)
        throw std::runtime_error("the index did not take all pages");
    }
  }

  uint32_t chains_, length_;
  quire_cache *cache_ = nullptr;
  quire_key root_{};
  std::vector<quire_key> keys_;
  std::vector<quire_page> handles_;
};

// 128K and 1M pages, with --large 16M as well; or little for --quick.
inline std::vector<uint32_t> page_sweep(const Context &context) {
  if (context.quick) return {1u << 13};
  if (context.large) return {1u << 17, 1u << 20, 1u << 24};
  return {1u << 17, 1u << 20};
}

inline std::string size_name(uint32_t pages) {
  return pages >= 1u << 20 ? std::to_string(pages >> 20) + "M" : std::to_string(pages >> 10) + "K";
}

// The same keys, in the same order, into a peer that knows pages only.
template <class Peer>
void fill_peer(Peer &peer, const FilledCache &cache) {
  for (uint32_t chain = 0, page = 0; chain < cache.chains(); ++chain)
    for (uint32_t i = 0; i < cache.length(); ++i) peer.insert(cache.keys(chain)[i], page++);
}

}  // namespace quire::bench

#endif  // QUIRE_BENCH_FILLED_CACHE_H
