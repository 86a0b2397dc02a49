// Rows "scale/...": what more threads bring, through the C API.
//
// Every thread does the same work over again, so perfect scaling is n times the throughput of one.
// No machine gives that to work that misses its caches; hence a loop of random reads over as much
// memory as the lookups touch runs in the same rounds, and scaling is quoted beside the loop's.
// Wall time throughout: threads wait for each other at the start of a round and are joined at its
// end.
//   Every hit is checked for its length, so no contender gets away with finding less.
#include <algorithm>
#include <atomic>
#include <numeric>
#include <stdexcept>

#include "bench.h"
#include "filled_cache.h"
#include "peers.h"

namespace quire::bench {
namespace {

constexpr uint32_t kChain = 128;
constexpr uint32_t kWarmPages = 1u << 21;

std::string threads_name(unsigned n) {
  return std::to_string(n) + (n == 1 ? " thread" : " threads");
}

std::vector<uint32_t> shuffled(uint32_t n, uint64_t seed) {
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  Random random(seed);
  for (uint32_t i = n; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

// Wall time of n threads, also where n is 1.
double wall_ns(unsigned n, const std::function<void(unsigned)> &fn) {
  const Stopwatch watch;
  const double several = run_threads(n, fn);
  return n == 1 ? watch.ns() : several;
}

// M pages a second of n threads that each visit `visits` chains, from places of the order that lie
// far apart. visit: (chain) -> pages found.
template <class MakeVisit>
double throughput(unsigned n, const std::vector<uint32_t> &order, uint32_t length, uint32_t visits,
                  const MakeVisit &make_visit) {
  std::atomic<uint64_t> found{0};
  const auto pass = [&](unsigned t, size_t count) {
    auto visit = make_visit(t);
    uint64_t mine = 0;
    const size_t from = order.size() * t / n;
    for (size_t i = 0; i < count; ++i) mine += visit(order[(from + i) % order.size()]);
    found += mine;
  };
  // Once over everything, not timed: the contenders before have left other things in the caches,
  // and fewer threads would take longer to get over that. What no cache holds anyway is left out.
  const size_t share = std::min<size_t>(order.size(), kWarmPages / length) / n;
  wall_ns(n, [&](unsigned t) { pass(t, share); });
  const double ns = wall_ns(n, [&](unsigned t) { pass(t, visits); });
  const uint64_t pages = uint64_t{n} * visits * length;
  count_operations(found.load());
  if (found.load() != pages + uint64_t{n} * share * length)
    throw std::runtime_error("a contender has lost pages");
  return static_cast<double>(pages) * 1000 / ns;
}

// Acquire with handles and release of one prefix.
uint32_t hit(const FilledCache &cache, const quire_key *keys, uint32_t n, quire_page *pages) {
  const quire_prefix prefix = cache.prefix(keys, n);
  quire_hit hit;
  QUIRE_INIT(&hit);
  quire_lease lease;
  check(quire_acquire(cache.get(), &prefix, nullptr, pages, &hit, &lease), "quire_acquire");
  check(quire_release(cache.get(), lease, nullptr), "quire_release");
  return hit.pages;
}

template <class Peer>
auto peer_visit(Peer &peer, const FilledCache &cache) {
  return [&](unsigned) {
    using Pin = decltype(peer.pin(quire_key{}));
    return [&peer, &cache, pins = std::vector<Pin>(cache.length())](uint32_t chain) mutable {
      const quire_key *keys = cache.keys(chain);
      uint32_t found = 0;
      if constexpr (requires { peer.pin_all(keys, 1u, pins.data()); }) {
        found = peer.pin_all(keys, cache.length(), pins.data());
        std::fill(pins.begin() + found, pins.end(), Peer::kAbsent);
      } else {
        for (uint32_t page = 0; page < cache.length(); ++page) {
          pins[page] = peer.pin(keys[page]);
          found += pins[page] != Peer::kAbsent;
        }
      }
      for (const Pin pin : pins)
        if (pin != Peer::kAbsent) peer.unpin(pin);
      return found;
    };
  };
}

// Random reads: independent ones, as a pipelined lookup's are. M reads a second.
class RandomReads {
 public:
  explicit RandomReads(size_t bytes) : lines_(bytes / sizeof(Line)) {
    for (size_t i = 0; i < lines_.size(); ++i) lines_[i].word = i;
  }
  double round(unsigned n, uint32_t reads) const {
    std::atomic<uint64_t> sum{0};
    wall_ns(n, [&](unsigned t) {  // As in throughput().
      uint64_t mine = 0;
      for (size_t i = lines_.size() * t / n; i < lines_.size() * (t + 1) / n; ++i)
        mine += lines_[i].word;
      sum += mine;
    });
    const double ns = wall_ns(n, [&](unsigned t) {
      Random random(t + 1);
      uint64_t mine = 0;
      for (uint32_t i = 0; i < reads; ++i) mine += lines_[random.below(lines_.size())].word;
      sum += mine;
    });
    do_not_optimize(sum.load());
    count_operations(lines_.size() + uint64_t{n} * reads);
    return static_cast<double>(n) * reads * 1000 / ns;
  }

 private:
  struct alignas(64) Line {
    uint64_t word;
  };
  std::vector<Line> lines_;
};

// In the order of `threads`: throughputs of one contender.
struct Curve {
  std::vector<Measure> at;
  double gain(size_t i) const { return at[i].median / at[0].median; }
};

// Contenders x thread counts, all in one set of rounds.
std::vector<Curve> curves(const Context &context,
                          const std::vector<std::function<double(unsigned)>> &contenders) {
  std::vector<Contender> all;
  for (const auto &contender : contenders)
    for (const unsigned n : context.thread_counts)
      all.push_back(Contender{"", [&contender, n] { return contender(n); }});
  const std::vector<Measure> measures = interleave(context, all);
  std::vector<Curve> out(contenders.size());
  for (size_t i = 0; i < measures.size(); ++i)
    out[i / context.thread_counts.size()].at.push_back(measures[i]);
  return out;
}

Row scaling_row(const std::string &name, const Curve &ours, const Curve &reads, size_t i,
                unsigned threads) {
  Row row;
  row.name = name;
  row.unit = "x";
  row.goal = at_least(0.75);
  row.value = ours.gain(i) / reads.gain(i);
  row.threads = threads;
  char text[128];
  std::snprintf(text, sizeof text, "lookups %.2fx of one thread's, random reads %.2fx",
                ours.gain(i), reads.gain(i));
  row.note = text;
  return row;
}

// The peers that a row of lookups is held against, filled with the same keys: each by a thread of
// its own, as they take turns for nothing else.
class Peers {
 public:
  using Round = std::function<double(unsigned threads)>;
  struct One {
    std::string name;
    double want;
    Round round;
  };

  Peers(const FilledCache &cache, const std::vector<uint32_t> &order, uint32_t visits) {
    const uint32_t pages = cache.chains() * cache.length();
    std::vector<std::function<void()>> fills;
    const auto add = [&]<class Peer>(const std::shared_ptr<Peer> &peer, const char *name,
                                     double want) {
      fills.emplace_back([&cache, peer] { fill_peer(*peer, cache); });
      all_.push_back(One{name, want, [&cache, &order, visits, peer](unsigned n) {
                           return throughput(n, order, kChain, visits, peer_visit(*peer, cache));
                         }});
    };
    add(std::make_shared<TbbPins>(pages), "tbb::concurrent_hash_map + count", 4);
#ifdef QUIRE_BENCH_HAVE_ROCKSDB
    add(std::make_shared<ClockCache>(pages), "rocksdb HyperClockCache", 8);
    add(std::make_shared<LruCache>(pages), "rocksdb LRUCache, 64 shards", 0);
#else
    missing_ = {not_installed("rocksdb HyperClockCache", 8), not_installed("rocksdb LRUCache")};
#endif
#ifdef QUIRE_BENCH_HAVE_LIBCUCKOO
    add(std::make_shared<CuckooPins>(pages), "libcuckoo + count", 0);
#else
    missing_.push_back(not_installed("libcuckoo + count"));
#endif
#ifdef QUIRE_BENCH_HAVE_BOOST_CONCURRENT_FLAT_MAP
    add(std::make_shared<FlatPins>(pages), "boost::concurrent_flat_map + count", 0);
#else
    missing_.push_back(not_installed("boost::concurrent_flat_map + count"));
#endif
#ifdef QUIRE_BENCH_HAVE_URCU
    add(std::make_shared<RcuPins>(pages), "liburcu lfht + count", 0);
#else
    missing_.push_back(not_installed("liburcu lfht + count"));
#endif
    run_threads(static_cast<unsigned>(fills.size()), [&](unsigned t) { fills[t](); });
  }

  const std::vector<One> &all() const {
    return all_;
  }
  const std::vector<Peer> &missing() const {
    return missing_;
  }

 private:
  std::vector<One> all_;
  std::vector<Peer> missing_;
};

void lookup_at(const Context &context, uint32_t pages, std::vector<Row> *rows) {
  const FilledCache cache(pages, pages / kChain, kChain, context.seed);
  const std::vector<uint32_t> order = shuffled(cache.chains(), context.seed + 1);
  const uint32_t visits = context.quick ? 64 : 8192;
  const Peers peers(cache, order, std::max(1u, visits / 8));
  // What a lookup may touch: bins, descriptors, links, keys.
  const RandomReads reads(size_t{pages} * 128);
  std::vector<Peers::Round> contenders = {
      [&](unsigned n) {
        return throughput(n, order, kChain, visits, [&](unsigned) {
          return [&cache, out = std::vector<quire_page>(kChain)](uint32_t chain) mutable {
            return hit(cache, cache.keys(chain), kChain, out.data());
          };
        });
      },
      [&](unsigned n) { return reads.round(n, visits * 64); }};
  for (const Peers::One &peer : peers.all()) contenders.push_back(peer.round);
  const std::vector<Curve> curve = curves(context, contenders);
  for (size_t i = 0; i < context.thread_counts.size(); ++i) {
    const unsigned n = context.thread_counts[i];
    Row row;
    row.name = size_name(pages) + " pages, " + threads_name(n);
    row.unit = "M pages/s";
    row.goal = report_higher();
    row.value = curve[0].at[i];
    for (size_t k = 0; k < peers.all().size(); ++k)
      row.peers.push_back(Peer{peers.all()[k].name, curve[2 + k].at[i], peers.all()[k].want});
    row.peers.insert(row.peers.end(), peers.missing().begin(), peers.missing().end());
    row.peers.push_back(Peer{"random reads, M lines/s", curve[1].at[i]});
    row.pages = pages;
    row.threads = n;
    row.series = "throughput";
    rows->push_back(row);
    if (n == 1) continue;
    rows->push_back(
        scaling_row(size_name(pages) + " pages, gain over the random reads', " + threads_name(n),
                    curve[0], curve[1], i, n));
    rows->back().pages = pages;
  }
}

std::vector<Row> lookup(const Context &context) {
  std::vector<Row> rows;
  for (const uint32_t pages : page_sweep(context)) lookup_at(context, pages, &rows);
  return rows;
}

// Prompts of `sessions` sessions: `shared` pages that all have, then pages of their own.
std::vector<quire_key> prompts(uint32_t sessions, uint32_t shared, uint64_t seed) {
  Random random(seed);
  std::vector<quire_key> keys(size_t{sessions} * kChain);
  for (quire_key &key : keys) key = quire_key{random(), random()};
  for (uint32_t session = 1; session < sessions; ++session)
    std::copy_n(keys.begin(), shared, keys.begin() + std::ptrdiff_t{session} * kChain);
  return keys;
}

constexpr uint32_t kShared = 112;

// What sessions behind one prompt reach on each number of threads, against disjoint ones.
void hot_rows(const Context &context, const std::string &name, const Curve &ours,
              const Curve &disjoint, double want, std::vector<Row> *rows) {
  for (size_t i = 0; i < context.thread_counts.size(); ++i) {
    Row row;
    row.name = name + ", " + threads_name(context.thread_counts[i]);
    row.unit = "M pages/s";
    row.goal = report_higher();
    row.value = ours.at[i];
    row.peers = {Peer{"disjoint prompts", disjoint.at[i], want}};
    row.threads = context.thread_counts[i];
    row.series = name;
    rows->push_back(row);
  }
}

std::vector<Row> hot_prompt(const Context &context) {
  const uint32_t sessions = context.quick ? 64 : 1024;
  const uint32_t visits = context.quick ? 64 : 8192;
  const FilledCache cache(4 * sessions * kChain, 0, kChain, context.seed);
  const auto disjoint = prompts(sessions, 0, context.seed + 1);
  const auto behind_one = prompts(sessions, kShared, context.seed + 2);
  std::vector<quire_page> scratch(kChain);
  for (const auto *all : {&disjoint, &behind_one})
    for (uint32_t session = 0; session < sessions; ++session)
      cache.serve(all->data() + size_t{session} * kChain, kChain, scratch.data());
  const std::vector<uint32_t> order = shuffled(sessions, context.seed + 3);
  const std::vector<uint32_t> same(sessions, 0);
  const auto contender = [&](const std::vector<quire_key> &keys,
                             const std::vector<uint32_t> &visit_order) {
    return [&](unsigned n) {
      return throughput(n, visit_order, kChain, visits, [&](unsigned) {
        return [&, out = std::vector<quire_page>(kChain)](uint32_t session) mutable {
          return hit(cache, keys.data() + size_t{session} * kChain, kChain, out.data());
        };
      });
    };
  };
  const std::vector<Curve> curve =
      curves(context,
             {contender(disjoint, order), contender(behind_one, order), contender(disjoint, same)});
  std::vector<Row> rows;
  hot_rows(context, "112 pages shared, 16 of their own", curve[1], curve[0], 0.8, &rows);
  hot_rows(context, "the very same 128 pages", curve[2], curve[0], 0, &rows);
  return rows;
}

// Where the 16 new pages of a turn go: behind a prompt of the thread's own, behind one that all
// share, or there and the same ones for all, so that one of them publishes and the others find it
// done or are told so.
enum class Tails : uint8_t { kDisjoint, kBehindOne, kTheSame };

// Sessions that publish: each turn hits the prompt and adds 16 new pages behind it. Behind one
// prompt, all turns count their children on its last page.
std::vector<Row> hot_publish(const Context &context) {
  const uint32_t turns = context.quick ? 16 : 128;
  // Room for all that all rounds publish: what is measured is publishing, not making room.
  uint32_t room = 2 * (context.threads + 1) * kChain;
  for (const unsigned n : context.thread_counts)
    room += 3 * (context.rounds + 1) * n * turns * (kChain - kShared);
  const FilledCache cache(room, 0, kChain, context.seed);
  const auto own = prompts(context.threads, 0, context.seed + 1);
  const auto one = prompts(1, 0, context.seed + 2);
  uint64_t seed = context.seed + 3;
  const auto contender = [&](Tails tails) {
    return [&, tails](unsigned n) {
      const bool shared = tails != Tails::kDisjoint;
      const uint64_t first = seed;
      seed += n;
      const double ns = wall_ns(n, [&](unsigned t) {
        const std::vector<quire_key> &keys = shared ? one : own;
        const auto from = keys.begin() + (shared ? 0 : std::ptrdiff_t{t} * kChain);
        std::vector<quire_key> mine(from, from + kChain);
        std::vector<quire_page> pages(kChain);
        Random random(first + (tails == Tails::kTheSame ? 0 : t));
        for (uint32_t turn = 0; turn < turns; ++turn) {
          for (uint32_t i = kShared; i < kChain; ++i) mine[i] = quire_key{random(), random()};
          cache.serve(mine.data(), kChain, pages.data());
        }
      });
      count_operations(uint64_t{n} * turns * kChain);
      return static_cast<double>(n) * turns * kChain * 1000 / ns;
    };
  };
  const std::vector<Curve> curve = curves(
      context,
      {contender(Tails::kDisjoint), contender(Tails::kBehindOne), contender(Tails::kTheSame)});
  std::vector<Row> rows;
  hot_rows(context, "16 new pages each behind one prompt of 112", curve[1], curve[0], 0.8, &rows);
  hot_rows(context, "the very same 16 new pages for all", curve[2], curve[0], 0, &rows);
  return rows;
}

QUIRE_BENCHMARK("scale/lookup", "acquire + gather + release of chains of 128 on more threads",
                lookup);
QUIRE_BENCHMARK("scale/hot-prompt", "sessions behind one hot system prompt", hot_prompt);
QUIRE_BENCHMARK("scale/hot-publish", "the same, with new pages published behind it", hot_publish);

}  // namespace
}  // namespace quire::bench
