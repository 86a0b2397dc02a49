// A small cache with something in it, for tests that look at caches from inside and outside:
// through the C API only, so that a child process can make one too.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "quire/quire.h"

namespace quire::test {

inline void must(quire_status status) {
  if (status != QUIRE_OK) {
    throw std::runtime_error(std::string(quire_status_string(status)) + ": " + quire_last_error());
  }
}

inline constexpr uint32_t kPageTokens = 8;
inline constexpr uint32_t kPages = 24;

// `more` is appended to the config's text. segment "-" is private memory.
inline quire_cache *open_small(const std::string &segment, const std::string &more = "") {
  quire_config config;
  must(quire_config_init(&config));
  const std::string text =
      "device=cpu,layers=1,kv_heads=1,head_dim=16,page_tokens=8,format=nf4,device_pages=24,open_"
      "pages=8,"
      "max_leases=16,max_sequences=8,max_namespaces=8,max_streams=4,max_threads=8,epoch_ms=none,"
      "segment=" +
      segment + more;
  must(quire_config_parse(&config, text.c_str()));
  quire_cache *cache = nullptr;
  must(quire_open(&config, &cache));
  return cache;
}

// A chain of `pages` published pages that is told from others by `id`; the lease on it.
inline quire_lease publish_chain(quire_cache *cache, uint32_t id, uint32_t pages,
                                 uint64_t owner = 0, uint64_t deadline_ms = 0) {
  quire_key root;
  const quire_field field = {QUIRE_FIELD_MODEL, 4, "test"};
  must(quire_root_key(cache, &field, 1, &root));
  std::vector<uint32_t> tokens(size_t{pages} * kPageTokens, id);
  std::vector<quire_key> keys(pages);
  size_t n = pages;
  must(quire_chain_keys(cache, &root, tokens.data(), tokens.size(), nullptr, 0, keys.data(), &n));
  quire_prefix prefix;
  QUIRE_INIT(&prefix);
  prefix.n = pages;
  prefix.root = root;
  prefix.keys = keys.data();
  quire_acquire_options options;
  QUIRE_INIT(&options);
  options.owner = owner;
  options.deadline_ms = deadline_ms;
  std::vector<quire_page> handles(pages);
  quire_hit hit;
  QUIRE_INIT(&hit);
  quire_lease lease = 0;
  must(quire_acquire(cache, &prefix, &options, handles.data(), &hit, &lease));
  if (hit.pages < pages) {
    quire_alloc_options alloc;
    QUIRE_INIT(&alloc);
    alloc.lease = lease;
    must(quire_alloc(cache, pages - hit.pages, &alloc, handles.data() + hit.pages));
    must(quire_publish(cache, lease, &prefix, handles.data(), nullptr, nullptr));
  }
  return lease;
}

// A lease with `n` private pages on it and no chain.
inline quire_lease hold_private(quire_cache *cache, uint32_t n, uint64_t owner = 0) {
  quire_prefix prefix;
  QUIRE_INIT(&prefix);
  quire_acquire_options options;
  QUIRE_INIT(&options);
  options.owner = owner;
  quire_lease lease = 0;
  must(quire_acquire(cache, &prefix, &options, nullptr, nullptr, &lease));
  quire_alloc_options alloc;
  QUIRE_INIT(&alloc);
  alloc.lease = lease;
  std::vector<quire_page> pages(n);
  must(quire_alloc(cache, n, &alloc, pages.data()));
  return lease;
}

inline quire_stats stats_of(quire_cache *cache) {
  quire_stats stats;
  QUIRE_INIT(&stats);
  must(quire_stats_get(cache, &stats));
  return stats;
}

// A text of a call that is asked for its size first.
template <class Call>
std::string text_of(Call call) {
  size_t bytes = 0;
  must(call(nullptr, &bytes));
  bytes += 512;  // figures may get longer in between
  std::string text(bytes, 0);
  must(call(text.data(), &bytes));
  text.resize(bytes - 1);
  return text;
}

}  // namespace quire::test
