// Rows "index/...": the page table and the prefix index alone, without the C API around them.
//
// "acquire + gather + release" is what a scheduler does with a prefix that is cached: how long is
// the hit, pin it, get its page numbers, drop the pin. Peers have no chains, so they do what an
// engine built on them does: look every page up and count a reference on it, and take all of them
// back. All contenders hold the same keys, visited in the same random order of chains.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <list>
#include <memory>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include <tbb/concurrent_hash_map.h>

#include "bench.h"
#include "runtime/prefix_index.h"

#ifdef QUIRE_BENCH_HAVE_LIBCUCKOO
#include <libcuckoo/cuckoohash_map.hh>
#endif
#ifdef QUIRE_BENCH_HAVE_ROCKSDB
#include <rocksdb/cache.h>
#endif

namespace quire::bench {
namespace {

constexpr uint32_t kChain = 128;
constexpr uint32_t kLongChain = 8192;

struct KeyHash {
  size_t operator()(const Key &key) const { return key.lo; }
  static size_t hash(const Key &key) { return key.lo; }
  static bool equal(const Key &a, const Key &b) { return a == b; }
};

using Memory = std::unique_ptr<void, void (*)(void *)>;
Memory memory_of(size_t bytes) {
  return Memory(std::aligned_alloc(128, align_up(bytes, 128)), std::free);
}

// The keys of n pages in chains of `chain`, and an order in which to visit the chains.
struct Keys {
  std::vector<Key> key;
  std::vector<uint32_t> order;
  uint32_t chain;

  Keys(uint32_t n, uint32_t in_chain, uint64_t seed)
      : key(n), order(n / in_chain), chain(in_chain) {
    Random random(seed);
    for (Key &k : key) k = {random(), random()};
    std::iota(order.begin(), order.end(), 0u);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  }
  const Key *chain_at(size_t i) const { return &key[size_t{order[i % order.size()]} * chain]; }
  size_t size() const { return key.size(); }
};

class Ours {
 public:
  explicit Ours(uint32_t pages)
      : table_memory_(memory_of(PageTable<>::bytes(pages))),
        index_memory_(memory_of(PrefixIndex<>::bytes(pages))),
        table(table_memory_.get(), pages),
        index(index_memory_.get(), table) {
    table.format();
    index.format();
  }

  // Publishes a chain whose pages are first, first + 1, ...; returns how many were indexed.
  uint32_t publish(const Key *keys, uint32_t n, uint32_t first) {
    constexpr uint32_t kAhead = 8;
    uint32_t parent = kNone, done = 0;
    for (uint32_t i = 0; i < std::min(n, kAhead); ++i) index.prefetch(keys[i]);
    for (; done < n; ++done) {
      const uint32_t page = first + done;
      if (done + kAhead < n) {
        index.prefetch(keys[done + kAhead]);
        prefetch_for_write(&table[page + kAhead]);
      }
      const uint32_t generation = table.generation(page);
      table[page].parent.store(parent, std::memory_order_relaxed);
      table[page].depth.store(done, std::memory_order_relaxed);
      table.set_stamp(page, 1);
      if (parent != kNone) table.add_child(parent);
      if (index.insert(keys[done], page).status != Insert::kInserted) {
        if (parent != kNone) table.drop_child(parent);
        table.free_private(page, generation);
        break;
      }
      if (parent != kNone) table.unpin(parent);
      parent = page;
    }
    if (parent != kNone) table.unpin(parent);
    return done;
  }

  void evict(uint32_t page) {
    if (!table.begin_evict(page, table.generation(page))) return;
    const auto &d = table[page];
    index.erase(
        page, {d.key_lo.load(std::memory_order_relaxed), d.key_hi.load(std::memory_order_relaxed)});
    const uint32_t parent = d.parent.load(std::memory_order_relaxed);
    if (parent != kNone) {
      table.raise_stamp(parent, table.stamp(page));
      table.drop_child(parent);
    }
    table.finish_evict(page);
  }

  // A whole hit: length, pin, pages, release. Returns the pages found.
  size_t acquire(const Key *keys, size_t n, uint32_t *pages, uint32_t epoch) {
    const size_t hit = index.match(keys, n);
    if (hit == 0) return 0;
    const uint32_t tail = index.find_and_pin(keys[hit - 1]);
    if (tail == kNone) return 0;
    index.chain(keys, hit, tail, [pages](size_t i, uint32_t page, uint64_t) { pages[i] = page; });
    table.raise_stamp(tail, epoch);
    table.unpin(tail);
    return hit;
  }

 private:
  Memory table_memory_, index_memory_;

 public:
  PageTable<> table;
  PrefixIndex<> index;
};

// A value with a reference count, which is what a page of any of the peers needs.
struct Counted {
  uint32_t page = 0;
  mutable std::atomic<uint32_t> ref{0};
  Counted() = default;
  explicit Counted(uint32_t p) : page(p) {}
  Counted(const Counted &other) : page(other.page) {}
};

using TbbMap = tbb::concurrent_hash_map<Key, Counted, KeyHash>;
using StdMap = std::unordered_map<Key, Counted, KeyHash>;

struct TbbPeer {
  TbbMap map;
  explicit TbbPeer(const Keys &keys) {
    for (uint32_t i = 0; i < keys.size(); ++i) map.insert({keys.key[i], Counted(i)});
  }
  size_t acquire(const Key *keys, size_t n, const Counted **held) {
    size_t got = 0;
    for (size_t i = 0; i < n; ++i) {
      TbbMap::const_accessor at;
      if (!map.find(at, keys[i])) continue;
      at->second.ref.fetch_add(1, std::memory_order_acquire);
      held[got++] = &at->second;
    }
    for (size_t i = 0; i < got; ++i) held[i]->ref.fetch_sub(1, std::memory_order_release);
    return got;
  }
};

struct MutexPeer {
  StdMap map;
  std::mutex mutex;
  explicit MutexPeer(const Keys &keys) {
    for (uint32_t i = 0; i < keys.size(); ++i) map.emplace(keys.key[i], Counted(i));
  }
  size_t acquire(const Key *keys, size_t n, const Counted **held) {
    size_t got = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      for (size_t i = 0; i < n; ++i) {
        const auto at = map.find(keys[i]);
        if (at == map.end()) continue;
        at->second.ref.fetch_add(1, std::memory_order_relaxed);
        held[got++] = &at->second;
      }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    for (size_t i = 0; i < got; ++i) held[i]->ref.fetch_sub(1, std::memory_order_relaxed);
    return got;
  }
};

#ifdef QUIRE_BENCH_HAVE_LIBCUCKOO
struct CuckooPeer {
  libcuckoo::cuckoohash_map<Key, Counted *, KeyHash> map;
  std::vector<Counted> counted;
  explicit CuckooPeer(const Keys &keys) : counted(keys.size()) {
    for (uint32_t i = 0; i < keys.size(); ++i) map.insert(keys.key[i], &counted[i]);
  }
  size_t acquire(const Key *keys, size_t n, const Counted **held) {
    size_t got = 0;
    for (size_t i = 0; i < n; ++i) {
      map.find_fn(keys[i], [&](const Counted *value) {
        value->ref.fetch_add(1, std::memory_order_acquire);
        held[got++] = value;
      });
    }
    for (size_t i = 0; i < got; ++i) held[i]->ref.fetch_sub(1, std::memory_order_release);
    return got;
  }
};
#endif

#ifdef QUIRE_BENCH_HAVE_ROCKSDB
struct RocksPeer {
  std::shared_ptr<rocksdb::Cache> cache;
  RocksPeer(const Keys &keys, bool hyper_clock) {
    // Room for twice the keys, so that none is evicted; a key costs one, its handle nothing.
    const size_t capacity = keys.size() * 2;
    if (hyper_clock) {
      rocksdb::HyperClockCacheOptions options(capacity, 1);
      options.metadata_charge_policy = rocksdb::kDontChargeCacheMetadata;
      cache = options.MakeSharedCache();
    } else {
      rocksdb::LRUCacheOptions options;
      options.capacity = capacity;
      options.metadata_charge_policy = rocksdb::kDontChargeCacheMetadata;
      cache = rocksdb::NewLRUCache(options);
    }
    for (const Key &key : keys.key) {
      cache->Insert(slice(key), nullptr, 1, [](const rocksdb::Slice &, void *) {})
          .PermitUncheckedError();
    }
  }
  static rocksdb::Slice slice(const Key &key) {
    return rocksdb::Slice(reinterpret_cast<const char *>(&key), sizeof key);
  }
  size_t acquire(const Key *keys, size_t n, rocksdb::Cache::Handle **held) {
    size_t got = 0;
    for (size_t i = 0; i < n; ++i) {
      if (rocksdb::Cache::Handle *handle = cache->Lookup(slice(keys[i]))) held[got++] = handle;
    }
    for (size_t i = 0; i < got; ++i) cache->Release(held[i]);
    return got;
  }
};
#endif

// Visits `visits` chains on n threads; ns per page looked up, on one thread's clock. acquire:
// (keys, n, scratch) -> pages found.
template <class Scratch, class Acquire>
double visit(const Context &context, const Keys &keys, unsigned threads, uint32_t visits,
             const Acquire &acquire) {
  std::atomic<uint64_t> missing{0};
  static std::atomic<uint64_t> round{0};
  const uint64_t start = round.fetch_add(1) * 7919 + context.seed;
  const double ns = run_threads(threads, [&](unsigned t) {
    std::vector<Scratch> scratch(keys.chain);
    uint64_t lost = 0;
    const uint64_t from = start + t * (keys.order.size() / 2 + 1);
    for (uint32_t i = 0; i < visits; ++i) {
      lost += keys.chain - acquire(keys.chain_at(from + i), keys.chain, scratch.data());
    }
    missing += lost;
  });
  // A full bin leaves a hole in one chain in thousands; more than that is no measurement.
  if (missing.load() > uint64_t{visits} * threads * keys.chain / 100) {
    throw std::runtime_error("a contender has lost its keys");
  }
  return ns / (double(visits) * keys.chain);
}

std::string size_text(uint32_t pages) {
  return pages >= 1u << 20 ? std::to_string(pages >> 20) + "M pages"
                           : std::to_string(pages >> 10) + "K pages";
}

void fill(Ours &ours, const Keys &keys) {
  for (uint32_t i = 0; i < keys.size(); i += keys.chain) ours.publish(&keys.key[i], keys.chain, i);
}

Row acquire_row(const Context &context, uint32_t pages, unsigned threads, Goal goal) {
  const Keys keys(pages, kChain, context.seed);
  Ours ours(pages);
  fill(ours, keys);
  TbbPeer tbb_map(keys);
  MutexPeer std_map(keys);
  // Several times all chains where they fit the caches, so that what is timed is the steady state
  // and not the return after the other contenders' turn.
  const uint32_t visits = context.quick ? 50 : 4096;
  uint32_t epoch = 1;
  std::vector<Contender> contenders;
  const auto add = [&]<class Scratch>(const char *name, Scratch, auto &&acquire) {
    contenders.push_back(
        {name, [&, acquire] { return visit<Scratch>(context, keys, threads, visits, acquire); }});
  };
  add("quire", uint32_t{},
      [&](const Key *k, size_t n, uint32_t *out) { return ours.acquire(k, n, out, epoch); });
  const Counted *counted = nullptr;
  add("tbb::concurrent_hash_map + count", counted,
      [&](const Key *k, size_t n, const Counted **held) { return tbb_map.acquire(k, n, held); });
  add("mutex + unordered_map + count", counted,
      [&](const Key *k, size_t n, const Counted **held) { return std_map.acquire(k, n, held); });
#ifdef QUIRE_BENCH_HAVE_LIBCUCKOO
  CuckooPeer cuckoo(keys);
  add("libcuckoo + count", counted,
      [&](const Key *k, size_t n, const Counted **held) { return cuckoo.acquire(k, n, held); });
#endif
#ifdef QUIRE_BENCH_HAVE_ROCKSDB
  RocksPeer hyper(keys, true), lru(keys, false);
  rocksdb::Cache::Handle *handle = nullptr;
  add("RocksDB HyperClockCache", handle,
      [&](const Key *k, size_t n, rocksdb::Cache::Handle **held) {
        return hyper.acquire(k, n, held);
      });
  add("RocksDB LRUCache", handle, [&](const Key *k, size_t n, rocksdb::Cache::Handle **held) {
    return lru.acquire(k, n, held);
  });
#endif
  const std::vector<Measure> measures = interleave(context, contenders);
  std::vector<Peer> peers;
  for (size_t i = 1; i < contenders.size(); ++i) {
    const std::string &name = contenders[i].name;
    const double want = name == "RocksDB HyperClockCache" ? 8 : i == 1 ? 4 : 0;
    peers.push_back(Peer{name, measures[i], want});
  }
#ifndef QUIRE_BENCH_HAVE_LIBCUCKOO
  peers.push_back(not_installed("libcuckoo + count"));
#endif
#ifndef QUIRE_BENCH_HAVE_ROCKSDB
  peers.push_back(not_installed("RocksDB HyperClockCache", 8));
#endif
  return Row{"acquire + gather + release, chains of 128, " + size_text(pages) + ", " +
                 std::to_string(threads) + (threads == 1 ? " thread" : " threads"),
             "ns/page",
             goal,
             measures[0],
             peers,
             "index alone: through the C API a lease is made and pages are checked besides"};
}

std::vector<Row> acquire_rows(const Context &context) {
  std::vector<Row> rows;
  for (const uint32_t pages : {128u << 10, 1u << 20}) {
    if (context.quick && pages > 128u << 10) continue;
    const double bound = pages > 128u << 10 ? 30 : 15;
    rows.push_back(acquire_row(context, pages, 1, at_most(bound)));
    if (context.threads > 1) rows.push_back(acquire_row(context, pages, 2, report_lower()));
  }
  return rows;
}

// Chains of 8,192 of which a random part is cached: keys[0 .. cut) are there, the rest is not.
std::vector<Row> match_rows(const Context &context) {
  std::vector<Row> rows;
  for (const uint32_t pages : {128u << 10, 1u << 20}) {
    if (context.quick && pages > 128u << 10) continue;
    const Keys keys(pages, kLongChain, context.seed);
    const Keys strange(kLongChain, kLongChain, context.seed + 1);
    Ours ours(pages);
    fill(ours, keys);
    const uint32_t queries = 32;
    Random random(context.seed + 2);
    std::vector<std::vector<Key>> query(queries);
    std::vector<size_t> cached(queries);
    for (uint32_t i = 0; i < queries; ++i) {
      const Key *chain = keys.chain_at(i);
      cached[i] = ours.index.match(chain, random.below(kLongChain));
      query[i].assign(chain, chain + cached[i]);
      query[i].insert(query[i].end(), strange.key.begin(),
                      strange.key.end() - static_cast<std::ptrdiff_t>(cached[i]));
    }
    // Between two matches, a look at a few thousand other pages, as an engine would have: not
    // timed.
    std::vector<uint32_t> scratch(kLongChain);
    uint32_t turn = 0;
    const auto measure = [&](auto &&work) {
      double ns = 0;
      for (uint32_t i = 0; i < queries; ++i) {
        ours.acquire(keys.chain_at(++turn), kLongChain, scratch.data(), 1);
        const Stopwatch watch;
        const size_t got = work(query[i].data(), query[i].size());
        ns += watch.ns();
        if (got != cached[i]) throw std::runtime_error("a match is not what it was");
      }
      return ns / queries / 1000;
    };
    const auto singles = [&](const Key *k, size_t n) {
      size_t got = 0;
      for (; got < n; ++got) {
        const uint32_t page = ours.index.find_and_pin(k[got]);
        if (page == kNone) break;
        scratch[got] = page;
      }
      for (size_t i = 0; i < got; ++i) ours.table.unpin(scratch[i]);
      return got;
    };
    const std::vector<Measure> match = interleave(
        context,
        {{"quire",
          [&] { return measure([&](const Key *k, size_t n) { return ours.index.match(k, n); }); }},
         {"singles", [&] { return measure(singles); }},
         {"acquire", [&] {
            return measure(
                [&](const Key *k, size_t n) { return ours.acquire(k, n, scratch.data(), 1); });
          }}});
    const bool small = pages <= 128u << 10;
    const std::string size = ", " + size_text(pages);
    rows.push_back(Row{"match of 8,192 pages, a random part cached" + size,
                       "us",
                       at_most(small ? 3 : 5),
                       match[0],
                       {Peer{"the same, by single lookups and pins", match[1]}},
                       ""});
    rows.push_back(Row{"acquire + gather + release of the same" + size,
                       "us",
                       at_most(small ? 100 : 250),
                       match[2],
                       {Peer{"the same, by single lookups and pins", match[1]}},
                       "index alone; the mean hit is half of 8,192 pages"});
  }
  return rows;
}

// An empty cache of 128K pages is filled with chains of 128, then emptied leaf first.
std::vector<Row> publish_rows(const Context &context) {
  const uint32_t pages = context.quick ? 16u << 10 : 128u << 10;
  const Keys keys(pages, kChain, context.seed);
  Ours ours(pages);
  double evict_ns = 0;
  const double n = pages;
  std::vector<double> evictions;
  const auto fill_ours = [&] {
    const Stopwatch watch;
    fill(ours, keys);
    const double ns = watch.ns();
    const Stopwatch evicting;
    for (uint32_t page = pages; page-- > 0;) ours.evict(page);
    evict_ns = evicting.ns() / n;
    evictions.push_back(evict_ns);
    return ns / n;
  };
  const auto fill_tbb = [&] {
    TbbMap map;
    const Stopwatch watch;
    for (uint32_t i = 0; i < pages; ++i) map.insert({keys.key[i], Counted(i)});
    return watch.ns() / n;
  };
  const auto fill_std = [&] {
    StdMap map;
    std::mutex mutex;
    const Stopwatch watch;
    for (uint32_t i = 0; i < pages; ++i) {
      const std::lock_guard<std::mutex> lock(mutex);
      map.emplace(keys.key[i], Counted(i));
    }
    return watch.ns() / n;
  };
  const auto measures =
      interleave(context, {{"quire", fill_ours}, {"tbb", fill_tbb}, {"mutex", fill_std}});
  std::sort(evictions.begin(), evictions.end());
  return {Row{"publish of a new page, chains of 128, 128K pages",
              "ns/page",
              at_most(250),
              measures[0],
              {Peer{"tbb::concurrent_hash_map insert", measures[1]},
               Peer{"mutex + unordered_map", measures[2]}},
              "index and page table alone; the maps grow from empty"},
          Row{"evict of a leaf: index, page table, parent",
              "ns/page",
              report_lower(),
              Measure(evictions[evictions.size() / 2], evictions[evictions.size() / 4],
                      evictions[evictions.size() * 3 / 4]),
              {},
              "in page order, so mostly in cache"}};
}

// A touch is what a release does to age: raise the stamp, drop the pin. One page, hot.
std::vector<Row> touch_rows(const Context &context) {
  const Keys keys(1024, kChain, context.seed);
  Ours ours(1024);
  fill(ours, keys);
  const uint32_t n = context.quick ? 10000 : 1000000;
  std::list<uint32_t> lru(1024);
  std::vector<std::list<uint32_t>::iterator> at;
  for (auto i = lru.begin(); i != lru.end(); ++i) at.push_back(i);
  std::mutex mutex;
  uint32_t epoch = 1;
  const auto measures =
      interleave(context, {{"quire",
                            [&] {
                              const Stopwatch watch;
                              for (uint32_t i = 0; i < n; ++i) {
                                ours.table.raise_stamp(i & 1023, epoch + (i >> 14));
                                clobber_memory();
                              }
                              epoch += n >> 14;
                              return watch.ns() / n;
                            }},
                           {"list", [&] {
                              const Stopwatch watch;
                              for (uint32_t i = 0; i < n; ++i) {
                                const std::lock_guard<std::mutex> lock(mutex);
                                lru.splice(lru.begin(), lru, at[i & 1023]);
                              }
                              return watch.ns() / n;
                            }}});
  return {Row{"touch of a page, hot",
              "ns",
              at_most(5),
              measures[0],
              {Peer{"list LRU with a mutex", measures[1]}},
              "1,024 pages; the epoch moves every 16,384 touches"}};
}

QUIRE_BENCHMARK("index/acquire", "chains looked up, pinned, gathered, released", acquire_rows);
QUIRE_BENCHMARK("index/match", "how many of 8,192 pages are cached?", match_rows);
QUIRE_BENCHMARK("index/publish", "new pages into the index, and out again", publish_rows);
QUIRE_BENCHMARK("index/touch", "age of a page", touch_rows);

}  // namespace
}  // namespace quire::bench
