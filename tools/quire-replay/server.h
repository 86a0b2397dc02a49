// Serves the requests of a trace through the C API: the four steps of one, each on any thread.
//
//   prepare    makes the request's keys
//   look_up    acquires its longest cached prefix; allocates the pages that it lacks, which evicts as
//              many as the pool cannot give
//   publish    the pages behind the hit
//   release    gives the lease back and steps the clock
// A Turn is one request on its way through them; its buffers are used again by the next one. Who
// calls a step does it with a Server of its own thread, which keeps that thread's figures.
//
// Thread class: ReplayCache serves any; a Server is of one thread, a Turn of one at a time.
#ifndef QUIRE_REPLAY_SERVER_H
#define QUIRE_REPLAY_SERVER_H

#include <atomic>
#include <cstdint>
#include <vector>

#include "replay.h"

namespace quire::replay {

// The cache of a run. Its clock is the latest timestamp served; a timestamp that goes back is read
// as no time passed.
class ReplayCache {
 public:
  ReplayCache(const Trace &trace, const Options &options);
  ReplayCache(const ReplayCache &) = delete;
  ReplayCache &operator=(const ReplayCache &) = delete;
  ~ReplayCache();

  quire_cache *get() const { return cache_; }
  quire_key root(uint32_t space) const { return roots_[space]; }
  double touch_seconds() const { return touch_seconds_; }
  void advance_to(uint64_t ms);
  // n pages more are asked for: how many have been, in all.
  uint64_t count_allocated(uint32_t n) {
    return allocated_.fetch_add(n, std::memory_order_relaxed) + n;  // relaxed: a sum
  }

 private:
  void touch(uint32_t pages);

  quire_cache *cache_ = nullptr;
  std::vector<quire_key> roots_;
  double touch_seconds_ = 0;
  std::atomic<uint64_t> now_{0}, allocated_{0};
};

// hits <= hits + got <= n.
struct Turn {
  uint32_t number = 0;  // of the request
  uint32_t n = 0;       // its pages, without those beyond the capacity
  uint32_t hits = 0;
  uint32_t got = 0;  // pages that memory was had for
  quire_lease lease = 0;
  std::vector<quire_key> keys;
  std::vector<quire_page> pages;
};

class Server {
 public:
  Server(const Trace &trace, const Options &options, ReplayCache *cache,
         std::vector<uint32_t> *request_hits);

  void prepare(uint32_t number, Turn *turn);
  void look_up(Turn *turn);
  void publish(Turn *turn);
  void release(Turn *turn);

  const Result &figures() const { return figures_; }

 private:
  quire_prefix prefix(const Turn &turn, uint32_t n) const;
  uint32_t allocate(quire_lease lease, uint32_t n, quire_page *pages);
  uint64_t lap(Part part);

  const Trace &trace_;
  const Options &options_;
  ReplayCache &cache_;
  std::vector<uint32_t> *request_hits_;  // an entry is written by whoever looks that request up
  quire_retention retention_, retention_at_end_;
  quire_publish_options publish_options_;
  Result figures_;
  uint64_t mark_ = 0;
};

// Adds up the figures of two threads.
void add_figures(const Result &from, Result *to);

}  // namespace quire::replay

#endif  // QUIRE_REPLAY_SERVER_H
