// See replay.h for what a replay does. Here: the cache it runs on, and a worker a thread.
#include "replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <span>
#include <thread>
#include <utility>

#include "dealer.h"
#include "page_keys.h"

namespace quire::replay {
namespace {

using Clock = std::chrono::steady_clock;

uint64_t now_ns() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
          .count());
}

void check(quire_status status, const char *call) {
  if (status == QUIRE_OK) return;
  throw LibraryError(
      fmt::format("{}: {}: {}", call, quire_status_string(status), quire_last_error()));
}

// The cache of a run. Its clock is the latest timestamp dealt out; requests begin in the trace's
// order, and a timestamp that goes back is read as no time passed.
class ReplayCache {
 public:
  ReplayCache(const Trace &trace, const Options &options) {
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
    config.max_leases = std::max(64u, 2 * options.threads);
    config.max_namespaces = std::max(64u, 2 * trace.spaces);
    config.max_threads = std::max(256u, 2 * options.threads);
    config.secret = kSecret;
    config.epoch_ms = QUIRE_NO_TIMER;
    config.idle_ttl_ms = options.idle_ttl_ms;
    config.clock = [](void *user) {
      // relaxed: a time orders nothing; the dealer orders the requests.
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
  }

  ReplayCache(const ReplayCache &) = delete;
  ReplayCache &operator=(const ReplayCache &) = delete;
  ~ReplayCache() { quire_close(cache_); }

  quire_cache *get() const { return cache_; }
  quire_key root(uint32_t space) const { return roots_[space]; }

  void advance_to(uint64_t ms) {
    uint64_t now = now_.load(std::memory_order_relaxed);
    while (now < ms && !now_.compare_exchange_weak(now, ms, std::memory_order_relaxed)) {
    }
  }

 private:
  quire_cache *cache_ = nullptr;
  std::vector<quire_key> roots_;
  std::atomic<uint64_t> now_{0};
};

// Serves requests on one thread. Figures are summed up when it is done.
class Worker {
 public:
  Worker(const Trace &trace, const Options &options, const ReplayCache &cache, Dealer *dealer,
         std::vector<uint32_t> *request_hits)
      : trace_(trace),
        options_(options),
        cache_(cache),
        dealer_(*dealer),
        request_hits_(request_hits) {
    QUIRE_INIT(&retention_);
    retention_.absolute_ttl_ms = options.absolute_ttl_ms;
    QUIRE_INIT(&publish_options_);
    if (options.absolute_ttl_ms != 0) publish_options_.retention = &retention_;
  }

  void serve(uint32_t number) {
    const Request &request = trace_.requests[number];
    const std::span<const uint64_t> ids = trace_.pages(request);
    const auto n = static_cast<uint32_t>(std::min<uint64_t>(ids.size(), options_.pages));
    figures_.requests += 1;
    figures_.referenced += ids.size();
    figures_.served += n;
    mark_ = now_ns();
    quire_lease lease = 0;
    if (n != 0) keep_keys(request, ids.first(n));
    dealer_.begin_turn(number);
    uint32_t hits = 0, got = 0;
    if (n != 0) {
      hits = acquire(request, n, &lease);
      (*request_hits_)[number] = hits;
      if (hits < n) got = allocate(lease, n - hits, pages_.data() + hits);
    }
    dealer_.end_turn(number);
    if (hits < n) publish(request, lease, n, hits, got);
    dealer_.begin_end(number);
    mark_ = now_ns();
    if (n != 0) {
      check(quire_release(cache_.get(), lease, nullptr), "quire_release");
      lap(kRelease);
    }
    check(quire_step(cache_.get()), "quire_step");
    lap(kStep);
  }

  const Result &figures() const { return figures_; }

 private:
  void keep_keys(const Request &request, std::span<const uint64_t> ids) {
    if (keys_.size() < ids.size()) {
      keys_.resize(ids.size());
      pages_.resize(ids.size());
    }
    chain_keys(cache_.root(request.space), ids, keys_.data());
    lap(kKeys);
  }

  quire_prefix prefix(const Request &request, uint32_t n) const {
    quire_prefix p;
    QUIRE_INIT(&p);
    p.n = n;
    p.root = cache_.root(request.space);
    p.keys = keys_.data();
    return p;
  }

  uint32_t acquire(const Request &request, uint32_t n, quire_lease *lease) {
    const quire_prefix wanted = prefix(request, n);
    quire_hit hit;
    QUIRE_INIT(&hit);
    mark_ = now_ns();
    check(quire_acquire(cache_.get(), &wanted, nullptr, pages_.data(), &hit, lease),
          "quire_acquire");
    const uint64_t ns = lap(kAcquire);
    figures_.lookup_ns.push_back(static_cast<uint32_t>(std::min<uint64_t>(ns, UINT32_MAX)));
    figures_.hits += hit.pages;
    return hit.pages;
  }

  // As many of n pages as memory can be had for.
  uint32_t allocate(quire_lease lease, uint32_t n, quire_page *pages) {
    quire_alloc_options options;
    QUIRE_INIT(&options);
    options.flags = QUIRE_ALLOC_SEALED;
    options.lease = lease;
    quire_status status = quire_alloc(cache_.get(), n, &options, pages);
    if (status == QUIRE_OK) {
      lap(kAlloc);
      return n;
    }
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
    lap(kAlloc);
    return got;
  }

  // The `got` pages behind the hits; n is what the request has.
  void publish(const Request &request, quire_lease lease, uint32_t n, uint32_t hits, uint32_t got) {
    uint32_t published = 0;
    mark_ = now_ns();
    if (got != 0) {
      const quire_prefix grown = prefix(request, hits + got);
      quire_publish_result result;
      QUIRE_INIT(&result);
      check(quire_publish(cache_.get(), lease, &grown, pages_.data(), &publish_options_, &result),
            "quire_publish");
      published = result.n_published;
      figures_.duplicates += result.n_duplicate;
      figures_.inserted += published - result.n_duplicate;
      figures_.unindexed += got - published;
    }
    figures_.unserved += n - hits - got;
    if (hits + published != n) figures_.short_requests += 1;
    lap(kPublish);
  }

  uint64_t lap(Part part) {
    const uint64_t now = now_ns(), took = now - std::exchange(mark_, now);
    figures_.part_seconds[part] += static_cast<double>(took) * 1e-9;
    return took;
  }

  const Trace &trace_;
  const Options &options_;
  const ReplayCache &cache_;
  Dealer &dealer_;
  std::vector<uint32_t> *request_hits_;  // entries of requests are written by whoever serves them
  quire_retention retention_;
  quire_publish_options publish_options_;
  std::vector<quire_key> keys_;
  std::vector<quire_page> pages_;
  Result figures_;
  uint64_t mark_ = 0;
};

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

// Runs fn on n threads, or here for one; the first exception of any is thrown again here.
void on_threads(unsigned n, const std::function<void(unsigned)> &fn,
                const std::function<void()> &on_failure) {
  if (n == 1) return fn(0);
  std::mutex mutex;
  std::exception_ptr failure;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < n; ++t)
    threads.emplace_back([&, t] {
      try {
        fn(t);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        on_failure();
      }
    });
  for (std::thread &thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

uint32_t Result::lookup_quantile(double q) const {
  if (lookup_ns.empty()) return 0;
  return lookup_ns[static_cast<size_t>(q * static_cast<double>(lookup_ns.size() - 1))];
}

Result replay(const Trace &trace, const Options &options) {
  ReplayCache cache(trace, options);
  Result result;
  result.request_hits.resize(trace.requests.size());
  Dealer dealer(trace, options.pages, options.threads, options.dealing,
                [&](const Request &request) { cache.advance_to(request.timestamp_ms); });
  std::vector<Worker> workers;
  for (unsigned t = 0; t < options.threads; ++t)
    workers.emplace_back(trace, options, cache, &dealer, &result.request_hits);

  const Clock::time_point start = Clock::now();
  on_threads(
      options.threads,
      [&](unsigned t) {
        for (uint32_t r; dealer.take(&r); dealer.done(r)) {
          workers[t].serve(r);
          if (options.progress) options.progress(1);
        }
      },
      [&] { dealer.stop(); });
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  for (const Worker &worker : workers) add_figures(worker.figures(), &result);
  result.seconds -= result.part_seconds[kKeys] / options.threads;
  std::sort(result.lookup_ns.begin(), result.lookup_ns.end());

  quire_stats stats;
  QUIRE_INIT(&stats);
  check(quire_stats_get(cache.get(), &stats), "quire_stats_get");
  result.evicted = stats.evictions_capacity_total;
  result.expired = stats.evictions_idle_total + stats.evictions_expired_total;
  result.metadata_bytes = stats.metadata_bytes;
  return result;
}

}  // namespace quire::replay
