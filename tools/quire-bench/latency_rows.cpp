// Rows "latency/...": what a caller's lookup takes while the cache is under fire, against the same
// lookups when it is left alone, in turn in one process.
//
// A lookup is quire_acquire of a cached prefix of 16 pages with its handles, and quire_release; one
// each 20 us a caller, measured from the time at which it was due (latency.h). Half of the threads
// that the run may use are callers, the others are fire. Where cores are fewer than threads, or busy
// with other things, the kernel's scheduler is part of the figure: so a third kind of segment takes
// turns with the two, in which as many threads as there are under fire only burn processor time and
// touch neither the cache nor memory. What is above quiet there is the scheduler's (and the
// processor's, for clocks and shared units), not Quire's.
//
// The chains that are looked up have a lease each, so that every lookup hits.
//
//   churn     fire threads publish new chains without pause into a full cache, so that all else
//             that it holds goes
//   pinned    the same, with leases on 95 % of the other pages
//   hot       all callers look up one prefix, and fire publishes tails behind that very prefix
//   ttl       all other pages expire at one moment, at the beginning of each segment; the cache's
//             own thread evicts them; fire does nothing else
//   stalled   churn, while a registered stream runs one piece of work that does not end: frames go
//             to limbo and none comes back, so that nearly all allocations are refused
//
// Goal: the 99.9th percentile under fire within twice the quiet one. The 99.99th is of a few calls a
// segment only.
#include <algorithm>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "filled_cache.h"
#include "latency.h"

namespace quire::bench {
namespace {

constexpr uint32_t kChain = 16;
constexpr uint32_t kHot = 256;  // chains that callers look up

// A cache of `others` chains beside the hot ones, all published, and room for nothing else.
class World {
 public:
  World(const Context &context, uint32_t others, uint32_t slack_pages, float low)
      : others_(others), random_(context.seed), keys_(size_t{kHot} * kChain) {
    quire_config config;
    check(quire_config_init(&config), "quire_config_init");
    config.device = QUIRE_DEVICE_CPU;
    config.geometry.layers = config.geometry.kv_heads = 1;
    config.geometry.head_dim_k = config.geometry.head_dim_v = 8;
    config.geometry.page_tokens = 16;
    config.format = QUIRE_FORMAT_F16;
    config.device_pages = (kHot + others) * kChain + slack_pages;
    config.max_leases = others + 1024;
    config.low_watermark = low;
    config.high_watermark = 2 * low;
    config.segment = "-";
    config.clock = [](void *user) {
      // The monotonic clock, moved on where a row lets time pass.
      const auto now = std::chrono::steady_clock::now().time_since_epoch();
      const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
      return static_cast<uint64_t>(ms) + static_cast<World *>(user)->ahead_ms.load();
    };
    config.clock_user = this;
    check(quire_open(&config, &cache_), "quire_open");
    check(quire_root_key(cache_, nullptr, 0, &root_), "quire_root_key");
    for (quire_key &key : keys_) key = quire_key{random_(), random_()};
    pages_.resize(kChain);
    for (uint32_t chain = 0; chain < kHot; ++chain) {
      held_.push_back(publish(hot(chain), kChain, 0, pages_.data(), true));
    }
  }
  World(const World &) = delete;
  World &operator=(const World &) = delete;
  ~World() {
    for (const quire_lease lease : held_) quire_release(cache_, lease, nullptr);
    quire_close(cache_);
  }

  quire_cache *get() const { return cache_; }
  const quire_key *hot(uint32_t chain) const { return keys_.data() + size_t{chain} * kChain; }

  // The other chains, with this TTL; a share of them stays leased.
  void fill(uint64_t ttl_ms, double leased) {
    std::vector<quire_key> keys(kChain);
    for (uint32_t i = 0; i < others_; ++i) {
      for (quire_key &key : keys) key = quire_key{random_(), random_()};
      const quire_lease lease =
          publish(keys.data(), kChain, ttl_ms, pages_.data(), i < leased * others_);
      if (lease != 0) held_.push_back(lease);
    }
  }

  // n keys, of which the cache has none, or the first ones; 0, or the lease where it is to be kept.
  quire_lease publish(const quire_key *keys, uint32_t n, uint64_t ttl_ms, quire_page *pages,
                      bool keep = false) {
    const quire_prefix p = prefix(keys, n);
    quire_lease lease = 0;
    quire_hit hit;
    QUIRE_INIT(&hit);
    check(quire_acquire(cache_, &p, nullptr, pages, &hit, &lease), "quire_acquire");
    quire_alloc_options options;
    QUIRE_INIT(&options);
    options.lease = lease;
    const quire_status status = quire_alloc(cache_, n - hit.pages, &options, pages + hit.pages);
    if (status == QUIRE_OK) {
      quire_retention retention;
      QUIRE_INIT(&retention);
      retention.absolute_ttl_ms = ttl_ms;
      quire_publish_options publish_options;
      QUIRE_INIT(&publish_options);
      if (ttl_ms != 0) publish_options.retention = &retention;
      check(quire_publish(cache_, lease, &p, pages, &publish_options, nullptr), "quire_publish");
    } else if (status == QUIRE_E_AGAIN || status == QUIRE_E_NOMEM) {
      refused.fetch_add(1, std::memory_order_relaxed);
    } else {
      check(status, "quire_alloc");
    }
    if (keep) return lease;
    check(quire_release(cache_, lease, nullptr), "quire_release");
    return 0;
  }

  quire_prefix prefix(const quire_key *keys, uint32_t n) const {
    quire_prefix p;
    QUIRE_INIT(&p);
    p.n = n;
    p.root = root_;
    p.keys = keys;
    return p;
  }

  // One lookup; in a caller's thread, so it counts what goes wrong instead of throwing.
  void look_up(uint32_t chain) {
    const quire_prefix p = prefix(hot(chain), kChain);
    quire_page pages[kChain];
    quire_hit hit;
    QUIRE_INIT(&hit);
    quire_lease lease = 0;
    const bool good = quire_acquire(cache_, &p, nullptr, pages, &hit, &lease) == QUIRE_OK &&
                      quire_release(cache_, lease, nullptr) == QUIRE_OK;
    if (!good || hit.pages != kChain) missed.fetch_add(1, std::memory_order_relaxed);
  }

  uint64_t evictions() const {
    quire_stats stats;
    QUIRE_INIT(&stats);
    check(quire_stats_get(cache_, &stats), "quire_stats_get");
    return stats.evictions_capacity_total + stats.evictions_expired_total;
  }

  std::atomic<uint64_t> refused{0}, missed{0}, ahead_ms{0};

 private:
  uint32_t others_;
  Random random_;
  std::vector<quire_key> keys_;
  std::vector<quire_page> pages_;
  std::vector<quire_lease> held_;
  quire_cache *cache_ = nullptr;
  quire_key root_{};
};

// Threads that do work(thread) over and over, from begin() to end().
class Fire {
 public:
  Fire(unsigned threads, std::function<void(unsigned, Random &)> work)
      : count_(threads), work_(std::move(work)) {}
  void begin() {
    stop_ = false;
    for (unsigned t = 0; t < count_; ++t) {
      threads_.emplace_back([this, t] {
        Random random(t + 99 + 1000 * begun_);
        while (!stop_.load(std::memory_order_relaxed)) work_(t, random);
      });
    }
    ++begun_;
  }
  void end() {
    stop_ = true;
    for (std::thread &thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  unsigned count_;
  std::function<void(unsigned, Random &)> work_;
  std::vector<std::thread> threads_;
  std::atomic<bool> stop_{false};
  uint64_t begun_ = 0;
};

constexpr std::pair<const char *, double> kQuantiles[] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}};

// Quantiles are taken of each segment, and then their median over the rounds: a machine that stops
// everything for a moment spoils one round of one side, not the comparison. The worst call of all
// is told as well.
struct Side {
  std::vector<double> us[std::size(kQuantiles)];
  uint64_t calls = 0, worst_ns = 0;

  void add(const LatencyHistogram &took) {
    for (size_t i = 0; i < std::size(kQuantiles); ++i) {
      us[i].push_back(took.quantile(kQuantiles[i].second) / 1000);
    }
    calls += took.count();
    worst_ns = std::max(worst_ns, took.most());
  }
  Measure measure(size_t i) const {
    std::vector<double> sorted = us[i];
    std::sort(sorted.begin(), sorted.end());
    const size_t n = sorted.size();
    const double median = n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
    return Measure(median, sorted[n / 4], sorted[n - 1 - n / 4]);
  }
};

struct Sides {
  Side quiet, burning, fire;
  uint64_t evicted = 0;  // under fire
  double fire_ns = 0;
};

Schedule schedule_of(const Context &context) {
  Schedule schedule;
  schedule.callers = std::max(1u, context.threads / 2);
  if (context.quick) schedule.segment_ns = 20000000;
  return schedule;
}

unsigned fire_threads(const Context &context) {
  return std::max(1u, context.threads - schedule_of(context).callers);
}

// prepare() comes before each segment, begin() and end() around those under fire. burners: threads
// that fire takes, for the segments that only burn.
Sides take_turns(const Context &context, World &world, bool one_chain, unsigned burners,
                 const std::function<void()> &prepare, const std::function<void()> &begin,
                 const std::function<void()> &end) {
  const Schedule schedule = schedule_of(context);
  Sides sides;
  const auto call = [&](unsigned caller, uint64_t i) {
    world.look_up(one_chain ? 0 : static_cast<uint32_t>((i * 97 + caller * 31) % kHot));
  };
  Fire burning(burners, [](unsigned, Random &random) {
    uint64_t sum = 0;
    for (int i = 0; i < 1000; ++i) sum += random();
    do_not_optimize(sum);
  });
  for (unsigned round = 0; round <= context.rounds; ++round) {
    for (unsigned turn = 0; turn < 3; ++turn) {
      const unsigned kind = (turn + round) % 3;  // quiet, burning, under fire
      const bool under_fire = kind == 2;
      prepare();
      const uint64_t evicted = world.evictions();
      const Stopwatch watch;
      if (under_fire) begin();
      if (kind == 1) burning.begin();
      const LatencyHistogram took = run_callers(schedule, call);
      if (kind == 1) burning.end();
      if (under_fire) end();
      if (round == 0) continue;
      (kind == 0 ? sides.quiet : kind == 1 ? sides.burning : sides.fire).add(took);
      if (!under_fire) continue;
      sides.evicted += world.evictions() - evicted;
      sides.fire_ns += watch.ns();
    }
  }
  return sides;
}

std::vector<Row> rows_of(const World &world, const Context &context, const Sides &sides,
                         const std::string &what) {
  std::vector<Row> rows;
  for (size_t i = 0; i < std::size(kQuantiles); ++i) {
    Row row;
    row.name = std::string("lookup ") + kQuantiles[i].first + ", " + what;
    row.unit = "us";
    row.goal = report_lower();
    row.value = sides.fire.measure(i);
    // Half as good as quiet is within twice.
    row.peers = {Peer{"quiet", sides.quiet.measure(i), kQuantiles[i].second == 0.999 ? 0.5 : 0},
                 Peer{"beside threads that only burn", sides.burning.measure(i)}};
    row.quantile = kQuantiles[i].second;
    row.series = what;
    rows.push_back(std::move(row));
  }
  const double seconds = sides.fire_ns * 1e-9;
  rows.back().note =
      std::to_string(schedule_of(context).callers) + " callers, " +
      std::to_string(sides.fire.calls) + " lookups a side, worst " +
      std::to_string(sides.fire.worst_ns / 1000) + " us, quiet " +
      std::to_string(sides.quiet.worst_ns / 1000) + " us, beside burners " +
      std::to_string(sides.burning.worst_ns / 1000) + " us; " +
      std::to_string(static_cast<uint64_t>(static_cast<double>(sides.evicted) / seconds)) +
      " evictions a second; " + std::to_string(world.refused.load()) + " allocations refused; " +
      std::to_string(world.missed.load()) + " lookups missed";
  return rows;
}

uint32_t other_chains(const Context &context, uint32_t pages) {
  return (context.quick ? 1u << 13 : pages) / kChain - kHot;
}
// One new chain a time.
std::function<void(unsigned, Random &)> churn(World &world) {
  return [&world](unsigned, Random &random) {
    quire_key keys[kChain];
    quire_page pages[kChain];
    for (quire_key &key : keys) key = quire_key{random(), random()};
    world.publish(keys, kChain, 0, pages);
  };
}

std::vector<Row> churned(const Context &context, double leased, const std::string &what) {
  World world(context, other_chains(context, 1u << 17), kChain, 0.01F);
  world.fill(0, leased);
  Fire fire(fire_threads(context), churn(world));
  const Sides sides = take_turns(
      context, world, false, fire_threads(context), [] {}, [&] { fire.begin(); },
      [&] { fire.end(); });
  return rows_of(world, context, sides, what);
}

std::vector<Row> full_speed(const Context &context) {
  return churned(context, 0, "all else churns");
}
std::vector<Row> pinned(const Context &context) {
  return churned(context, 0.95, "95 % pinned, the rest churns");
}

std::vector<Row> hot_prefix(const Context &context) {
  World world(context, other_chains(context, 1u << 17), kChain, 0.01F);
  world.fill(0, 0);
  Fire fire(fire_threads(context), [&world](unsigned, Random &random) {
    quire_key keys[2 * kChain];
    quire_page pages[2 * kChain];
    std::copy(world.hot(0), world.hot(0) + kChain, keys);
    for (uint32_t i = kChain; i < 2 * kChain; ++i) keys[i] = quire_key{random(), random()};
    world.publish(keys, 2 * kChain, 0, pages);
  });
  const Sides sides = take_turns(
      context, world, true, fire_threads(context), [] {}, [&] { fire.begin(); },
      [&] { fire.end(); });
  return rows_of(world, context, sides, "one hot prefix that grows tails");
}

std::vector<Row> expiry(const Context &context) {
  constexpr uint64_t kTtl = 1000000;  // ms; nobody waits for it
  const uint32_t chains = other_chains(context, 1u << 20);
  World world(context, chains, kChain, 0);
  world.fill(kTtl, 0);
  // What a segment under fire has taken is there again before the next one begins.
  bool expired = false;
  const auto prepare = [&] {
    if (std::exchange(expired, false)) world.fill(kTtl, 0);
  };
  const uint64_t before = world.evictions();
  const Sides sides = take_turns(
      context, world, false, 1, prepare,  // the cache's own thread is all the fire there is
      [&] {
        world.ahead_ms.fetch_add(2 * kTtl);
        expired = true;
      },
      [] {});
  if (world.evictions() == before) throw std::runtime_error("no page expired");
  return rows_of(world, context, sides, std::to_string(chains * kChain) + " pages expire at once");
}

std::vector<Row> stalled(const Context &context) {
  World world(context, other_chains(context, 1u << 17), kChain, 0.01F);
  world.fill(0, 0);
  quire_stream stream = nullptr;
  check(quire_cpu_stream_create(&stream), "quire_cpu_stream_create");
  check(quire_stream_add(world.get(), stream, 0, QUIRE_STREAM_BACKGROUND), "quire_stream_add");
  std::mutex gate;
  Fire fire(fire_threads(context), churn(world));
  const Sides sides = take_turns(
      context, world, false, fire_threads(context),
      [&] { check(quire_cpu_stream_wait(stream), "quire_cpu_stream_wait"); },
      [&] {
        gate.lock();
        check(
            quire_cpu_stream_launch(
                stream,
                [](void *mutex) { const std::lock_guard wait(*static_cast<std::mutex *>(mutex)); },
                &gate),
            "quire_cpu_stream_launch");
        fire.begin();
      },
      [&] {
        fire.end();
        gate.unlock();
      });
  check(quire_stream_remove(world.get(), stream), "quire_stream_remove");
  check(quire_cpu_stream_wait(stream), "quire_cpu_stream_wait");
  check(quire_step(world.get()), "quire_step");
  std::vector<Row> rows = rows_of(world, context, sides, "a stream stalls, all churns");
  check(quire_cpu_stream_destroy(stream), "quire_cpu_stream_destroy");
  return rows;
}

QUIRE_BENCHMARK("latency/churn", "lookups while all else is evicted and published", full_speed);
QUIRE_BENCHMARK("latency/pinned", "the same with 95 % of the pages leased", pinned);
QUIRE_BENCHMARK("latency/hot", "lookups of one prefix that others publish behind", hot_prefix);
QUIRE_BENCHMARK("latency/ttl", "lookups while everything else expires at once", expiry);
QUIRE_BENCHMARK("latency/stalled", "lookups while a reader stalls and allocations fail", stalled);

}  // namespace
}  // namespace quire::bench
