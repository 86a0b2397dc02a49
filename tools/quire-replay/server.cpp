// See server.h for the steps.
#include "server.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>

#include "page_keys.h"

namespace quire::replay {
namespace {

uint64_t now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

void check(quire_status status, const char *call) {
  if (status == QUIRE_OK) return;
  throw LibraryError(
      fmt::format("{}: {}: {}", call, quire_status_string(status), quire_last_error()));
}

}  // namespace

ReplayCache::ReplayCache(const Trace &trace, const Options &options) {
  static constexpr uint8_t kSecret[32] = {'q', 'u', 'i', 'r', 'e', '-',
                                          'r', 'e', 'p', 'l', 'a', 'y'};
  quire_config config;
  check(quire_config_init(&config), "quire_config_init");
  config.device = QUIRE_DEVICE_CPU;
  config.geometry.layers = 1;
  config.geometry.kv_heads = 1;
  config.geometry.head_dim_k = 8;
  config.geometry.head_dim_v = 8;
  config.geometry.page_tokens = 8;  // keys are given, so no hit depends on it
  config.format = QUIRE_FORMAT_F16;
  config.policy = options.policy;
  config.device_pages = options.pages;
  config.max_leases = std::max(64u, 4 * options.threads);
  config.max_namespaces = std::max(64u, 2 * trace.spaces);
  config.max_threads = std::max(256u, 2 * options.threads);
  config.secret = kSecret;
  config.epoch_ms = QUIRE_NO_TIMER;
  config.idle_ttl_ms = options.idle_ttl_ms;
  config.clock = [](void *user) {
    // relaxed: a time orders nothing; who looks requests up orders them.
    return static_cast<ReplayCache *>(user)->now_.load(std::memory_order_relaxed);
  };
  config.clock_user = this;
  now_ = trace.requests.front().timestamp_ms;
  check(quire_open(&config, &cache_), "quire_open");
  for (uint32_t space = 0; space < trace.spaces; ++space) {
    const quire_field field = {QUIRE_FIELD_USER, sizeof space, &space};
    quire_key root;
    check(quire_root_key(cache_, &field, 1, &root), "quire_root_key");
    roots_.push_back(root);
  }
  touch(options.pages);
}

// A run that failed leaves leases behind.
ReplayCache::~ReplayCache() {
  quire_lease lease = 0;
  while (cache_ != nullptr && quire_lease_next(cache_, &lease) == QUIRE_OK && lease != 0) {
    quire_release(cache_, lease, nullptr);
  }
  quire_close(cache_);
}

// Every page is had once and given back. The kernel maps memory at its first touch, about 200 ns a
// page here, which an engine has behind it when it begins to serve.
void ReplayCache::touch(uint32_t pages) {
  const uint64_t start = now_ns();
  std::vector<quire_page> all(pages);
  quire_alloc_options options;
  QUIRE_INIT(&options);
  options.flags = QUIRE_ALLOC_SEALED;
  check(quire_alloc(cache_, pages, &options, all.data()), "quire_alloc");
  check(quire_free(cache_, all.data(), pages), "quire_free");
  touch_seconds_ = static_cast<double>(now_ns() - start) * 1e-9;
}

void ReplayCache::advance_to(uint64_t ms) {
  // relaxed: as in its clock.
  uint64_t now = now_.load(std::memory_order_relaxed);
  while (now < ms && !now_.compare_exchange_weak(now, ms, std::memory_order_relaxed)) {
  }
}

Server::Server(const Trace &trace, const Options &options, ReplayCache *cache,
               std::vector<uint32_t> *request_hits)
    : trace_(trace), options_(options), cache_(*cache), request_hits_(request_hits) {
  QUIRE_INIT(&retention_);
  QUIRE_INIT(&retention_at_end_);
  retention_.absolute_ttl_ms = options.absolute_ttl_ms;
  QUIRE_INIT(&publish_options_);
  if (options.absolute_ttl_ms != 0) publish_options_.retention = &retention_;
}

void Server::prepare(uint32_t number, Turn *turn) {
  const Request &request = trace_.requests[number];
  const std::span<const uint64_t> ids = trace_.pages(request);
  turn->number = number;
  turn->n = static_cast<uint32_t>(std::min<uint64_t>(ids.size(), options_.pages));
  turn->hits = turn->got = 0;
  turn->lease = 0;
  figures_.requests += 1;
  figures_.referenced += ids.size();
  figures_.served += turn->n;
  if (turn->n == 0) return;
  mark_ = now_ns();
  if (turn->keys.size() < turn->n) {
    turn->keys.resize(turn->n);
    turn->pages.resize(turn->n);
  }
  chain_keys(cache_.root(request.space), ids.first(turn->n), turn->keys.data());
  lap(kKeys);
}

void Server::look_up(Turn *turn) {
  cache_.advance_to(trace_.requests[turn->number].timestamp_ms);
  if (turn->n == 0) return;
  const quire_prefix wanted = prefix(*turn, turn->n);
  quire_hit hit;
  QUIRE_INIT(&hit);
  mark_ = now_ns();
  check(quire_acquire(cache_.get(), &wanted, nullptr, turn->pages.data(), &hit, &turn->lease),
        "quire_acquire");
  const uint64_t ns = lap(kAcquire);
  figures_.lookup_ns.push_back(static_cast<uint32_t>(std::min<uint64_t>(ns, UINT32_MAX)));
  figures_.hits += hit.pages;
  (*request_hits_)[turn->number] = turn->hits = hit.pages;
  const uint32_t missing = turn->n - turn->hits;
  if (missing == 0) return;
  const bool fits = cache_.count_allocated(missing) <= options_.pages;
  turn->got = allocate(turn->lease, missing, turn->pages.data() + turn->hits);
  lap(fits ? kAlloc : kEvict);
}

// As many of n pages as memory can be had for.
uint32_t Server::allocate(quire_lease lease, uint32_t n, quire_page *pages) {
  quire_alloc_options options;
  QUIRE_INIT(&options);
  options.flags = QUIRE_ALLOC_SEALED;
  options.lease = lease;
  quire_status status = quire_alloc(cache_.get(), n, &options, pages);
  if (status == QUIRE_OK) return n;
  // All or nothing gave nothing: the most that fits, by halves.
  uint32_t got = 0;
  for (uint32_t part = n; part != 0; part /= 2) {
    while (got + part <= n) {
      if (status != QUIRE_E_NOMEM && status != QUIRE_E_AGAIN) check(status, "quire_alloc");
      status = quire_alloc(cache_.get(), part, &options, pages + got);
      if (status != QUIRE_OK) break;
      got += part;
    }
  }
  return got;
}

void Server::publish(Turn *turn) {
  if (turn->hits == turn->n) return;
  uint32_t published = 0;
  mark_ = now_ns();
  if (turn->got != 0) {
    const quire_prefix grown = prefix(*turn, turn->hits + turn->got);
    quire_publish_result result;
    QUIRE_INIT(&result);
    check(quire_publish(cache_.get(), turn->lease, &grown, turn->pages.data(), &publish_options_,
                        &result),
          "quire_publish");
    published = result.n_published;
    figures_.duplicates += result.n_duplicate;
    figures_.inserted += published - result.n_duplicate;
    figures_.unindexed += turn->got - published;
  }
  figures_.unserved += turn->n - turn->hits - turn->got;
  if (turn->hits + published != turn->n) figures_.short_requests += 1;
  lap(kPublish);
}

void Server::release(Turn *turn) {
  mark_ = now_ns();
  if (turn->n != 0) {
    // Where nobody learns from it, telling the class would only cost time.
    retention_at_end_.cls = trace_.requests[turn->number].cls;
    const bool tells = retention_at_end_.cls != 0 && options_.policy == QUIRE_POLICY_HAZARD;
    check(quire_release(cache_.get(), turn->lease, tells ? &retention_at_end_ : nullptr),
          "quire_release");
    lap(kRelease);
  }
  check(quire_step(cache_.get()), "quire_step");
  lap(kStep);
}

quire_prefix Server::prefix(const Turn &turn, uint32_t n) const {
  quire_prefix p;
  QUIRE_INIT(&p);
  p.n = n;
  p.root = cache_.root(trace_.requests[turn.number].space);
  p.keys = turn.keys.data();
  return p;
}

uint64_t Server::lap(Part part) {
  const uint64_t now = now_ns(), took = now - std::exchange(mark_, now);
  figures_.part_seconds[part] += static_cast<double>(took) * 1e-9;
  return took;
}

void add_figures(const Result &from, Result *to) {
  to->requests += from.requests;
  to->referenced += from.referenced;
  to->served += from.served;
  to->hits += from.hits;
  to->inserted += from.inserted;
  to->duplicates += from.duplicates;
  to->unindexed += from.unindexed;
  to->unserved += from.unserved;
  to->short_requests += from.short_requests;
  for (unsigned part = 0; part < kParts; ++part) to->part_seconds[part] += from.part_seconds[part];
  to->lookup_ns.insert(to->lookup_ns.end(), from.lookup_ns.begin(), from.lookup_ns.end());
}

}  // namespace quire::replay
