// Rows "lookup/...": finding and pinning what is cached, through the C API.
//
// Chains are visited in a shuffled order, so nothing but the machine's caches decides what is hot.
// A peer pins each page of a chain and then unpins each; Quire pins the chain by its last page,
// gathers the handles of all, and releases once. Rows of one thread count its processor time, so
// that a busy machine costs them no waiting; rows of several count the wall's. Both sides are
// filled chain by chain, so both have a chain's entries near each other in memory, as a young cache
// has; rows "in any order" have Quire's pages anywhere, as no cache ever gets (filled_cache.h), and
// the peers as before.
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <numeric>

#include "bench.h"
#include "filled_cache.h"
#include "peers.h"

namespace quire::bench {
namespace {

constexpr uint32_t kChain = 128;

std::vector<uint32_t> shuffled(uint32_t n, uint64_t seed) {
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  Random random(seed);
  for (uint32_t i = n; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

// Chains [begin, end) of the order: acquire with handles, release. frames: the block table too.
void acquire_chains(const FilledCache &cache, const std::vector<uint32_t> &order, size_t begin,
                    size_t end, bool frames) {
  std::vector<quire_page> pages(cache.length());
  std::vector<int32_t> table(cache.length());
  for (size_t i = begin; i < end; ++i) {
    const quire_prefix prefix = cache.prefix(cache.keys(order[i]), cache.length());
    quire_hit hit;
    QUIRE_INIT(&hit);
    quire_lease lease;
    check(quire_acquire(cache.get(), &prefix, nullptr, pages.data(), &hit, &lease),
          "quire_acquire");
    if (hit.pages != cache.length()) throw std::runtime_error("a cached chain was not found");
    if (frames)
      check(quire_frames(cache.get(), pages.data(), hit.pages, QUIRE_TIER_DEVICE, table.data()),
            "quire_frames");
    do_not_optimize(table[0]);
    check(quire_release(cache.get(), lease, nullptr), "quire_release");
  }
}

template <class Peer>
void peer_chains(Peer &peer, const FilledCache &cache, const std::vector<uint32_t> &order,
                 size_t begin, size_t end) {
  using Pin = decltype(peer.pin(quire_key{}));
  std::vector<Pin> pins(cache.length());
  for (size_t i = begin; i < end; ++i) {
    const quire_key *keys = cache.keys(order[i]);
    uint32_t found = 0;
    for (uint32_t page = 0; page < cache.length(); ++page) {
      pins[page] = peer.pin(keys[page]);
      found += pins[page] != Peer::kAbsent;
    }
    if (found != cache.length()) throw std::runtime_error("a peer has lost keys");
    for (const Pin pin : pins) peer.unpin(pin);
  }
}

// One pass over all chains, `passes` times: ns of processor time a page.
template <class Body>
double pass_ns(const FilledCache &cache, uint32_t passes, const Body &body) {
  const CpuStopwatch watch;
  for (uint32_t pass = 0; pass < passes; ++pass) body();
  count_operations(uint64_t{passes} * cache.chains() * cache.length());
  return watch.ns() / (static_cast<double>(passes) * cache.chains() * cache.length());
}

Row chains_row(uint32_t pages, bool aged, const Measure &ours, const Measure &with_table,
               const std::vector<Peer> &peers) {
  Row row;
  row.name = size_name(pages) + (aged ? " pages in any order" : " pages") + ", chains of 128";
  row.unit = "ns/page";
  row.goal = pages <= 1u << 17 ? at_most(15) : pages <= 1u << 20 ? at_most(30) : report_lower();
  row.value = ours;
  row.peers = peers;
  row.peers.push_back(Peer{"quire, with quire_frames too", with_table});
  row.pages = pages;
  row.threads = 1;
  row.series = aged ? "pages in any order" : "young cache";
  if (aged) row.note = "every page of a chain is any page of the cache";
  return row;
}

void chains_at(const Context &context, uint32_t pages, std::vector<Row> *rows) {
  const FilledCache young(pages, pages / kChain, kChain, context.seed);
  const FilledCache aged(pages, pages / kChain, kChain, context.seed, true);  // the same keys
  const std::vector<uint32_t> order = shuffled(young.chains(), context.seed + 1);
  const uint32_t passes = std::max(1u, (1u << 19) / pages);
  TbbPins tbb_pins(pages);
  fill_peer(tbb_pins, young);
  std::vector<Contender> contenders;
  for (const FilledCache *cache : {&young, &aged})
    for (const bool table : {false, true})
      contenders.push_back(Contender{"quire", [&order, cache, table, passes] {
                                       return pass_ns(*cache, passes, [&] {
                                         acquire_chains(*cache, order, 0, order.size(), table);
                                       });
                                     }});
  contenders.push_back(Contender{"tbb", [&] {
                                   return pass_ns(young, passes, [&] {
                                     peer_chains(tbb_pins, young, order, 0, order.size());
                                   });
                                 }});
#ifdef QUIRE_BENCH_HAVE_ROCKSDB
  ClockCache clock_cache(pages);
  fill_peer(clock_cache, young);
  contenders.push_back(Contender{"rocksdb", [&] {
                                   return pass_ns(young, passes, [&] {
                                     peer_chains(clock_cache, young, order, 0, order.size());
                                   });
                                 }});
#endif
  const std::vector<Measure> m = interleave(context, contenders);
  std::vector<Peer> peers = {Peer{"tbb::concurrent_hash_map + count", m[4], 4}};
#ifdef QUIRE_BENCH_HAVE_ROCKSDB
  peers.push_back(Peer{"rocksdb HyperClockCache", m[5], 8});
#else
  peers.push_back(not_installed("rocksdb HyperClockCache", 8));
#endif
  rows->push_back(chains_row(pages, false, m[0], m[1], peers));
  rows->push_back(chains_row(pages, true, m[2], m[3], peers));
}

std::vector<Row> chains(const Context &context) {
  std::vector<Row> rows;
  for (const uint32_t pages : page_sweep(context)) chains_at(context, pages, &rows);
  return rows;
}

std::vector<Row> long_prefix(const Context &context) {
  std::vector<Row> rows;
  for (const uint32_t pages : page_sweep(context)) {
    const uint32_t length = std::min(pages, 8192u);
    const FilledCache cache(pages, pages / length, length, context.seed);
    const std::vector<uint32_t> order = shuffled(cache.chains(), context.seed + 1);
    TbbPins tbb_pins(pages);
    fill_peer(tbb_pins, cache);
    const auto us = [&](auto body) {
      const CpuStopwatch watch;
      for (size_t chain = 0; chain < cache.chains(); ++chain) body(chain, chain + 1);
      return watch.ns() / 1000 / cache.chains();
    };
    std::vector<Contender> contenders = {
        {"quire",
         [&] {
           return us([&](size_t a, size_t b) { acquire_chains(cache, order, a, b, false); });
         }},
        {"tbb", [&] {
           return us([&](size_t a, size_t b) { peer_chains(tbb_pins, cache, order, a, b); });
         }}};
#ifdef QUIRE_BENCH_HAVE_ROCKSDB
    ClockCache clock_cache(pages);
    fill_peer(clock_cache, cache);
    contenders.push_back(
        {"rocksdb", [&] {
           return us([&](size_t a, size_t b) { peer_chains(clock_cache, cache, order, a, b); });
         }});
#endif
    const std::vector<Measure> m = interleave(context, contenders);
    Row row;
    row.name = std::to_string(length) + "-page prefix of " + size_name(pages) + " pages";
    row.unit = "us";
    row.goal = at_most(pages <= 1u << 17 ? 100 : 250);
    row.value = m[0];
    row.peers.push_back(Peer{"single lookups + pins, tbb", m[1]});
#ifdef QUIRE_BENCH_HAVE_ROCKSDB
    row.peers.push_back(Peer{"single lookups + pins, rocksdb", m[2]});
#else
    row.peers.push_back(not_installed("single lookups + pins, rocksdb"));
#endif
    row.note = "the release is in it, on both sides; keys given";
    rows.push_back(row);
  }
  return rows;
}

// Prefixes that end anywhere: the first `hits` keys of a chain, then keys that nobody published.
struct Query {
  std::vector<quire_key> keys;
  uint32_t hits;
};

double match_round(const FilledCache &cache, const std::vector<Query> &queries, uint32_t passes) {
  const CpuStopwatch watch;
  for (uint32_t pass = 0; pass < passes; ++pass)
    for (const Query &query : queries) {
      const quire_prefix prefix =
          cache.prefix(query.keys.data(), static_cast<uint32_t>(query.keys.size()));
      quire_hit hit;
      QUIRE_INIT(&hit);
      check(quire_match(cache.get(), &prefix, &hit), "quire_match");
      if (hit.pages != query.hits) throw std::runtime_error("match gave a wrong length");
    }
  return watch.ns() / 1000 / (static_cast<double>(queries.size()) * passes);
}

std::vector<Row> match(const Context &context) {
  std::vector<Row> rows;
  for (const uint32_t pages : page_sweep(context)) {
    const uint32_t length = std::min(pages, 8192u);
    const FilledCache cache(pages, pages / length, length, context.seed);
    Random random(context.seed + 2);
    std::vector<Query> whole, anywhere;
    for (uint32_t i = 0; i < 64; ++i) {
      const quire_key *keys = cache.keys(static_cast<uint32_t>(random.below(cache.chains())));
      whole.push_back(Query{{keys, keys + length}, length});
      anywhere.push_back(Query{{keys, keys + length}, static_cast<uint32_t>(random.below(length))});
      for (uint32_t k = anywhere.back().hits; k < length; ++k)
        anywhere.back().keys[k] = quire_key{random(), random()};
    }
    TbbPins tbb_pins(pages);
    fill_peer(tbb_pins, cache);
    const uint32_t passes = context.quick ? 2 : 32;
    const std::vector<Measure> m =
        interleave(context, {{"whole", [&] { return match_round(cache, whole, passes); }},
                             {"anywhere", [&] { return match_round(cache, anywhere, passes); }},
                             {"walk", [&] {
                                const CpuStopwatch watch;
                                for (const Query &query : whole)
                                  for (const quire_key &key : query.keys)
                                    tbb_pins.unpin(tbb_pins.pin(key));
                                return watch.ns() / 1000 / static_cast<double>(whole.size());
                              }}});
    const Goal goal = at_most(pages <= 1u << 17 ? 3 : 5);
    const std::string size = std::to_string(length) + " pages of " + size_name(pages);
    rows.push_back(
        Row{size + ", all cached", "us", goal, m[0], {Peer{"single lookups, tbb", m[2]}}, ""});
    rows.push_back(Row{size + ", cached up to anywhere", "us", goal, m[1], {}, ""});
  }
  return rows;
}

uint64_t resident_bytes() {
  uint64_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

// Resident bytes that a peer with these keys takes, a page. In a child process, so that neither
// what was freed before nor what other peers leave behind is in it. 0: no child could be made.
template <class Peer>
double peer_bytes(uint32_t pages, uint64_t seed) {
  int ends[2];
  if (pipe(ends) != 0) return 0;
  malloc_trim(0);
  const pid_t child = fork();
  if (child == 0) {
    const uint64_t before = resident_bytes();
    Peer peer(pages);
    Random random(seed);
    for (uint32_t page = 0; page < pages; ++page) peer.insert(quire_key{random(), random()}, page);
    const uint64_t bytes = resident_bytes() - before;
    _exit(write(ends[1], &bytes, sizeof bytes) == sizeof bytes ? 0 : 1);
  }
  close(ends[1]);
  uint64_t bytes = 0;
  const bool told = read(ends[0], &bytes, sizeof bytes) == sizeof bytes;
  close(ends[0]);
  if (child > 0) waitpid(child, nullptr, 0);
  return told ? static_cast<double>(bytes) / pages : 0;
}

std::vector<Row> memory(const Context &context) {
  std::vector<Row> rows;
  for (const uint32_t pages : page_sweep(context)) {
    Row row;
    row.name = size_name(pages) + " pages";
    row.unit = "B/page";
    row.goal = at_most(144);
    row.peers.push_back(
        Peer{"tbb::concurrent_hash_map + count", peer_bytes<TbbPins>(pages, context.seed)});
#ifdef QUIRE_BENCH_HAVE_BOOST_CONCURRENT_FLAT_MAP
    row.peers.push_back(
        Peer{"boost::concurrent_flat_map + count", peer_bytes<FlatPins>(pages, context.seed)});
#endif
#ifdef QUIRE_BENCH_HAVE_LIBCUCKOO
    row.peers.push_back(Peer{"libcuckoo + count", peer_bytes<CuckooPins>(pages, context.seed)});
#endif
#ifdef QUIRE_BENCH_HAVE_URCU
    row.peers.push_back(Peer{"liburcu lfht + count", peer_bytes<RcuPins>(pages, context.seed)});
#endif
#ifdef QUIRE_BENCH_HAVE_ROCKSDB
    row.peers.push_back(
        Peer{"rocksdb HyperClockCache", peer_bytes<ClockCache>(pages, context.seed)});
    row.peers.push_back(
        Peer{"rocksdb LRUCache, 64 shards", peer_bytes<LruCache>(pages, context.seed)});
#endif
    row.peers.push_back(
        Peer{"mutex + unordered_map + count", peer_bytes<MutexMap>(pages, context.seed)});
    const FilledCache cache(pages, pages / kChain, kChain, context.seed);
    quire_stats stats;
    QUIRE_INIT(&stats);
    check(quire_stats_get(cache.get(), &stats), "quire_stats_get");
    row.value = static_cast<double>(stats.metadata_bytes) / pages;
    row.note =
        "the whole region: index, descriptors, pool, leases, namespaces, stats; peers hold keys, "
        "numbers and counts only, as resident bytes";
    row.pages = pages;
    row.series = "metadata";
    rows.push_back(row);
  }
  return rows;
}

QUIRE_BENCHMARK("lookup/chains", "acquire + gather + release of cached chains (processor time)",
                chains);
QUIRE_BENCHMARK("lookup/long-prefix", "acquire + release of an 8,192-page prefix (processor time)",
                long_prefix);
QUIRE_BENCHMARK("lookup/match", "how many tokens are cached? (processor time)", match);
QUIRE_BENCHMARK("lookup/memory", "metadata a page", memory);

}  // namespace
}  // namespace quire::bench
