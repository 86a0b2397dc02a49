// Replays a trace through the C API, as an engine would use it.
//
// Per request: make its keys; acquire its longest cached prefix; allocate the pages it lacks, which
// evicts exactly as many as the pool cannot give (watermarks are 0, reclaiming is on demand);
// publish them; release; step. A request with more pages than the cache keeps its first ones. A
// request that cannot get all its pages publishes what fits and goes on. The epoch moves once a
// request and by nothing else (no timer), and the cache's clock is the trace's timestamps, so that
// one thread gives the same result each time: LRU by last request, deeper pages of a request before
// shallower ones. The hash secret is a constant for the same reason: which bin of the index a key
// falls into is then the same in every run.
//
// On several threads in the trace's order, pipeline.h says who does what when, what stays exact and
// how much it can bring; in no order, each thread serves whole requests as it is free.
//
// The cache has the smallest geometry there is (frames are never written, so they cost no memory);
// lookups, pins, index and eviction are the real ones.
//
//   hits + inserted + duplicates + unindexed + unserved = referenced - beyond capacity
// Times: `seconds` is wall time without parsing and without the making of keys (the mean over
// threads, where each makes its own; in a pipeline they are made beside the rest and nothing is
// taken off). `processor_seconds` has the keys and the waiting of threads that look before they
// sleep.
// Thread class: call from one thread; it starts options.threads of its own when more than one.
#ifndef QUIRE_REPLAY_REPLAY_H
#define QUIRE_REPLAY_REPLAY_H

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "quire/quire.h"
#include "trace.h"

namespace quire::replay {

enum class Dealing : uint8_t { kOrdered, kUnordered };

struct Options {
  uint32_t pages = 0;
  uint32_t page_tokens = 64;  // of the trace, for the record
  uint32_t policy = QUIRE_POLICY_LRU;
  uint32_t idle_ttl_ms = 0;
  uint64_t absolute_ttl_ms = 0;
  unsigned threads = 1;
  Dealing dealing = Dealing::kOrdered;     // with more than one
  std::function<void(uint64_t)> progress;  // requests done; from any thread, or empty
};

// kAlloc: calls that found the cache not full yet; kEvict: those that had to evict for what they
// got. kAcquire: match, pin and gather of the pages.
enum Part : unsigned { kKeys, kAcquire, kAlloc, kEvict, kPublish, kRelease, kStep, kParts };
inline constexpr const char *kPartNames[kParts] = {"keys",    "acquire", "alloc", "evict",
                                                   "publish", "release", "step"};

struct Result {
  uint64_t requests = 0;
  uint64_t referenced = 0, served = 0;  // pages; served: without those beyond the capacity
  uint64_t hits = 0;
  uint64_t inserted = 0;        // pages that became visible
  uint64_t duplicates = 0;      // that another thread had published meanwhile
  uint64_t unindexed = 0;       // that the index could not take
  uint64_t unserved = 0;        // that memory could not be had for
  uint64_t short_requests = 0;  // requests with unserved or unindexed pages
  uint64_t evicted = 0;         // because pages were needed
  uint64_t expired = 0;         // by TTL
  uint64_t metadata_bytes = 0;
  double seconds = 0, processor_seconds = 0;
  double touch_seconds = 0;  // the first touch of the cache's memory, before all that; not in them
  double part_seconds[kParts] = {};    // summed over threads
  std::vector<uint32_t> lookup_ns;     // one a request that has pages, sorted
  std::vector<uint32_t> request_hits;  // by number of request

  double hit_ratio() const {
    return referenced == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(referenced);
  }
  double pages_per_second() const {
    return seconds <= 0 ? 0 : static_cast<double>(served) / seconds;
  }
  uint32_t lookup_quantile(double q) const;
};

// A call of the library that failed when it should not have.
class LibraryError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

Result replay(const Trace &trace, const Options &options);

}  // namespace quire::replay

#endif  // QUIRE_REPLAY_REPLAY_H
