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
  // and fewer threads would take longer to get over that.
  const size_t share = order.size() / n;
  wall_ns(n, [&](unsigned t) { pass(t, share); });
  const double ns = wall_ns(n, [&](unsigned t) { pass(t, visits); });
  const uint64_t pages = uint64_t{n} * visits * length;
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
      for (uint32_t page = 0; page < cache.length(); ++page) {
        pins[page] = peer.pin(keys[page]);
        found += pins[page] != Peer::kAbsent;
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

void lookup_at(const Context &context, uint32_t pages, std::vector<Row> *rows) {
  const FilledCache cache(pages, pages / kChain, kChain, context.seed);
  const std::vector<uint32_t> order = shuffled(cache.chains(), context.seed + 1);
  const uint32_t visits = context.quick ? 64 : 8192, fewer = std::max(1u, visits / 8);
  TbbPins tbb(pages);
  fill_peer(tbb, cache);
  // What a lookup may touch: bins, descriptors, links, keys.
  const RandomReads reads(size_t{pages} * 128);
  std::vector<std::function<double(unsigned)>> contenders = {
      [&](unsigned n) {
        return throughput(n, order, kChain, visits, [&](unsigned) {
          return [&cache, out = std::vector<quire_page>(kChain)](uint32_t chain) mutable {
            return hit(cache, cache.keys(chain), kChain, out.data());
          };
        });
      },
      [&](unsigned n) { return reads.round(n, visits * 64); },
      [&](unsigned n) { return throughput(n, order, kChain, fewer, peer_visit(tbb, cache)); }};
#ifdef QUIRE_BENCH_HAVE_ROCKSDB
  ClockCache clock(pages);
  fill_peer(clock, cache);
  contenders.emplace_back(
      [&](unsigned n) { return throughput(n, order, kChain, fewer, peer_visit(clock, cache)); });
#endif
  const std::vector<Curve> curve = curves(context, contenders);
  for (size_t i = 0; i < context.thread_counts.size(); ++i) {
    const unsigned n = context.thread_counts[i];
    Row row;
    row.name = size_name(pages) + " pages, " + threads_name(n);
    row.unit = "M pages/s";
    row.goal = report_higher();
    row.value = curve[0].at[i];
    row.peers.push_back(Peer{"tbb::concurrent_hash_map + count", curve[2].at[i], 4});
#ifdef QUIRE_BENCH_HAVE_ROCKSDB
    row.peers.push_back(Peer{"rocksdb HyperClockCache", curve[3].at[i], 8});
#else
    row.peers.push_back(not_installed("rocksdb HyperClockCache", 8));
#endif
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

Row ratio_row(const std::string &name, const Curve &ours, const Curve &other, size_t i, Goal goal,
              unsigned threads) {
  Row row;
  row.name = name + ", over disjoint prompts, " + threads_name(threads);
  row.unit = "x";
  row.goal = goal;
  row.value = ours.at[i].median / other.at[i].median;
  row.threads = threads;
  char text[96];
  std::snprintf(text, sizeof text, "%.1f against %.1f M pages/s", ours.at[i].median,
                other.at[i].median);
  row.note = text;
  return row;
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
  for (size_t i = 0; i < context.thread_counts.size(); ++i) {
    const unsigned n = context.thread_counts[i];
    rows.push_back(ratio_row("a prompt of 112 pages shared, 16 of their own", curve[1], curve[0], i,
                             at_least(0.8), n));
    rows.push_back(
        ratio_row("all on the very same 128 pages", curve[2], curve[0], i, report_higher(), n));
  }
  return rows;
}

// Sessions that publish: each turn hits the prompt and adds 16 new pages behind it. Behind one
// prompt, all turns count their children on its last page.
std::vector<Row> hot_publish(const Context &context) {
  const uint32_t turns = context.quick ? 16 : 128;
  // Room for all that all rounds publish: what is measured is publishing, not making room.
  uint32_t room = 2 * (context.threads + 1) * kChain;
  for (const unsigned n : context.thread_counts)
    room += 2 * (context.rounds + 1) * n * turns * (kChain - kShared);
  const FilledCache cache(room, 0, kChain, context.seed);
  const auto own = prompts(context.threads, 0, context.seed + 1);
  const auto one = prompts(1, 0, context.seed + 2);
  std::atomic<uint64_t> seed{context.seed + 3};
  const auto contender = [&](const std::vector<quire_key> &keys, bool shared) {
    return [&, shared](unsigned n) {
      const double ns = wall_ns(n, [&](unsigned t) {
        std::vector<quire_key> mine(keys.begin() + (shared ? 0 : std::ptrdiff_t{t} * kChain),
                                    keys.begin() + (shared ? 1 : std::ptrdiff_t{t} + 1) * kChain);
        std::vector<quire_page> pages(kChain);
        Random random(++seed);
        for (uint32_t turn = 0; turn < turns; ++turn) {
          for (uint32_t i = kShared; i < kChain; ++i) mine[i] = quire_key{random(), random()};
          cache.serve(mine.data(), kChain, pages.data());
        }
      });
      return static_cast<double>(n) * turns * kChain * 1000 / ns;
    };
  };
  const std::vector<Curve> curve = curves(context, {contender(own, false), contender(one, true)});
  std::vector<Row> rows;
  for (size_t i = 0; i < context.thread_counts.size(); ++i)
    rows.push_back(ratio_row("16 new pages behind one prompt of 112", curve[1], curve[0], i,
                             report_higher(), context.thread_counts[i]));
  return rows;
}

QUIRE_BENCHMARK("scale/lookup", "acquire + gather + release of chains of 128 on more threads",
                lookup);
QUIRE_BENCHMARK("scale/hot-prompt", "sessions behind one hot system prompt", hot_prompt);
QUIRE_BENCHMARK("scale/hot-publish", "the same, with new pages published behind it", hot_publish);

}  // namespace
}  // namespace quire::bench
