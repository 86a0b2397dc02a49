// Rows "publish/...": new pages and memory for them, through the C API.
//
// Publishing is measured in a cache that is full, as in service: each round publishes new chains,
// and the allocation before each (not timed in the publish rows) evicts what was used longest ago.
// Peers insert the same number of keys into a map of the same size, and erase as many, not timed
// either. Rows of one thread count its processor time, rows of several the wall's.
#include <algorithm>
#include <mutex>

#include "bench.h"
#include "filled_cache.h"
#include "peers.h"

namespace quire::bench {
namespace {

constexpr uint32_t kChain = 128;

std::vector<quire_key> random_keys(uint32_t n, uint64_t seed) {
  Random random(seed);
  std::vector<quire_key> keys(n);
  for (quire_key &key : keys) key = quire_key{random(), random()};
  return keys;
}

// Keeps a peer at `pages` entries: each round inserts new keys, then erases those of the last
// round.
template <class Peer>
class PeerRounds {
 public:
  PeerRounds(uint32_t pages, uint32_t batch, uint64_t seed)
      : peer_(pages + batch), batch_(batch), seed_(seed) {
    const std::vector<quire_key> keys = random_keys(pages, seed);
    for (uint32_t i = 0; i < pages; ++i) peer_.insert(keys[i], i % pages);
  }

  double round() {
    const std::vector<quire_key> keys = random_keys(batch_, ++seed_ * 7919);
    const CpuStopwatch watch;
    for (uint32_t i = 0; i < batch_; ++i) peer_.insert(keys[i], i);
    const double ns = watch.ns() / batch_;
    count_operations(batch_);
    for (const quire_key &key : keys) peer_.erase(key);
    return ns;
  }

 private:
  Peer peer_;
  uint32_t batch_;
  uint64_t seed_;
};

std::vector<Row> new_pages(const Context &context) {
  std::vector<Row> rows;
  for (const uint32_t pages : page_sweep(context)) {
    const uint32_t batch = std::min(pages / 4, 1u << 15);
    FilledCache cache(pages, pages / kChain, kChain, context.seed);
    uint64_t seed = context.seed * 1000003;
    PeerRounds<TbbPins> tbb(pages, batch, context.seed);
    PeerRounds<MutexMap> mutex(pages, batch, context.seed);
    std::vector<double> whole;
    const std::vector<Measure> m =
        interleave(context, {{"quire",
                              [&] {
                                const std::vector<quire_key> keys = random_keys(batch, ++seed);
                                double ns = 0;
                                const CpuStopwatch watch;
                                for (uint32_t i = 0; i < batch; i += kChain)
                                  ns += cache.publish_chain(keys.data() + i, kChain);
                                whole.push_back(watch.ns() / batch);
                                count_operations(batch);
                                return ns / batch;
                              }},
                             {"tbb", [&] { return tbb.round(); }},
                             {"mutex", [&] { return mutex.round(); }}});
    whole.erase(whole.begin());  // the warm-up
    std::sort(whole.begin(), whole.end());
    rows.push_back(Row{
        "new page, chains of 128, " + size_name(pages) + " pages",
        "ns/page",
        at_most(250),
        m[0],
        {Peer{"tbb::concurrent_hash_map insert", m[1]}, Peer{"mutex + unordered_map insert", m[2]}},
        "the peers' inserts publish nothing: no parent, no exactly-once chain"});
    rows.push_back(Row{"acquire + alloc + publish + release, " + size_name(pages) + " pages",
                       "ns/page",
                       report_lower(),
                       Measure(whole[whole.size() / 2], whole[whole.size() / 4],
                               whole[whole.size() - 1 - whole.size() / 4]),
                       {},
                       "the same rounds, with the evictions that make room"});
  }
  return rows;
}

// A free list of numbers under a mutex.
class MutexVector {
 public:
  explicit MutexVector(uint32_t n) {
    for (uint32_t i = 0; i < n; ++i) free_.push_back(i);
  }
  void alloc(uint32_t n, uint32_t *out) {
    const std::lock_guard lock(mutex_);
    for (uint32_t i = 0; i < n; ++i, free_.pop_back()) out[i] = free_.back();
  }
  void free(uint32_t n, const uint32_t *in) {
    const std::lock_guard lock(mutex_);
    free_.insert(free_.end(), in, in + n);
  }

 private:
  std::mutex mutex_;
  std::vector<uint32_t> free_;
};

Row alloc_free_row(const Context &context, unsigned threads) {
  constexpr uint32_t kBatch = 32;
  const uint32_t batches = context.quick ? 2000 : 40000;
  const FilledCache cache(1u << 17, 512, kChain, context.seed);
  MutexVector vector(1u << 17);
  const auto contender = [&](const char *name, auto body) {
    return Contender{name, [&, body] {
                       return run_threads(threads, body) / (static_cast<double>(batches) * kBatch);
                     }};
  };
  const std::vector<Measure> m = interleave(
      context, {contender("quire",
                          [&](unsigned) {
                            quire_alloc_options options;
                            QUIRE_INIT(&options);
                            options.flags = QUIRE_ALLOC_SEALED;
                            quire_page pages[kBatch];
                            for (uint32_t i = 0; i < batches; ++i) {
                              check(quire_alloc(cache.get(), kBatch, &options, pages),
                                    "quire_alloc");
                              check(quire_free(cache.get(), pages, kBatch), "quire_free");
                            }
                          }),
                contender("mutex + vector", [&](unsigned) {
                  uint32_t pages[kBatch];
                  for (uint32_t i = 0; i < batches; ++i) {
                    vector.alloc(kBatch, pages);
                    do_not_optimize(pages[0]);
                    vector.free(kBatch, pages);
                  }
                })});
  Row row;
  row.name = "batches of 32, " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
  row.unit = "ns/page";
  row.goal = at_most(12);
  row.value = m[0];
  row.peers = {Peer{"mutex + vector of numbers", m[1]}};
  row.note = "handles with generations, checked on free; the peer has neither";
  return row;
}

std::vector<Row> alloc_free(const Context &context) {
  return {alloc_free_row(context, 1), alloc_free_row(context, std::max(2u, context.threads))};
}

QUIRE_BENCHMARK("publish/new", "publish of new pages into a full cache (processor time)",
                new_pages);
QUIRE_BENCHMARK("publish/alloc-free", "quire_alloc + quire_free with handles", alloc_free);

}  // namespace
}  // namespace quire::bench
