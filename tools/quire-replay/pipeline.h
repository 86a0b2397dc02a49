// A replay on several threads that keeps the trace's order.
//
// What decides which pages are hit and which are evicted is order: of lookups, of the allocations
// that evict, and of releases, which are the order of use. So all of these are made by one thread,
// the sequencer, in the trace's order, and the rest is done around it: the others make the keys of
// requests that are to come and publish the pages of those that were served.
//
//   worker      sequencer                              worker
//   prepare --> look_up (in order), release (in order) --> publish
//
// A request is looked up when none in flight (looked up and not released) has yet to publish a page
// that it has, too, and when the pages of all in flight and its own are at most a quarter of the
// cache, or nothing is in flight: so none is refused pages because others hold them.
//   So every lookup sees what was published before it on one thread, too, and those in flight are the
// youngest, never the next to be evicted. Hit ratios were within .04 points of one thread's in all
// runs, and mostly equal; why not always is not understood (no page was published twice, so nothing
// that was there was missed; some were evicted in another order).
//
// How much it can bring: what the sequencer does is in series, whatever the threads. Quire-replay
// prints the time of each part; (all parts) / (acquire + alloc + evict + release + step) is the
// bound, 1.3 to 1.8 on the traces that were tried: evictions in exact order are most of a replay of a
// full cache. What came of it on 16 quiet cores (Xeon guest, L2 of 2 MiB, caches of 10 % of the
// pages; quire-bench --rows replay/threads), rate over one thread's on 2 / 3 / 4 / 8 threads:
// mooncake-conversation .93 / 1.00 / .97 / .78, mooncake-synthetic .91 / 1.01 / 1.00 / .81,
// coding-agents .64 / .62 / .55 / .50. A request is a microsecond or a few, its pages' lines are in
// one core's cache where one thread does it all, and each of them goes from core to core where two
// do. So it does not scale; it is for holding the library's threads against exact counts.
//
// Tried and given up: threads that take turns at lookups and allocations (every hand-over moves the
// lines of the queue of victims, the pool and the clock to another core: slower than one thread);
// releases in any order (up to 0.3 points of hit ratio on a trace of long cyclic prompts just below
// its working set); allocations in any order (0.1, and spurious refusals).
//
// A turn (server.h) is in a slot; requests r, r + slots, ... share one. Its word says whose it is:
// 4 * request + phase, which only grows. Each phase has one writer, so a store is enough.
//   kFree       the worker may prepare request r in it
//   kReady      prepared: the sequencer's
//   kServed     looked up: the worker's, to publish
//   kPublished  or nothing to publish: the sequencer's, to release
// Who waits looks for some microseconds before it sleeps: requests are a microsecond or a few.
// Thread class: run() on one thread, which becomes the sequencer; it starts and joins the others.
#ifndef QUIRE_REPLAY_PIPELINE_H
#define QUIRE_REPLAY_PIPELINE_H

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <vector>

#include "server.h"

namespace quire::replay {

class Pipeline {
 public:
  // threads: at least 2. Keeps references; servers[0] is the sequencer's.
  Pipeline(const Trace &trace, const Options &options, std::vector<Server> *servers);

  // Serves all requests; the first exception of any thread is thrown again here.
  void run();

 private:
  enum Phase : uint64_t { kFree, kReady, kServed, kPublished };
  struct alignas(64) Slot {
    std::atomic<uint64_t> word{0};
    uint32_t new_from = 0;  // index of the first page to be published; the sequencer's
    Turn turn;
  };
  static constexpr uint32_t kNothingNew = UINT32_MAX;
  static constexpr uint32_t kSlotsOfWorker = 4;
  static constexpr uint64_t kFailed = uint64_t{1} << 63;  // in every word, when somebody has

  static uint64_t word_of(uint64_t request, Phase phase) { return request * 4 + phase; }
  Slot &slot(uint64_t request) { return slots_[request % slots_.size()]; }
  // release: what was done in the phase before is seen by who reads this with acquire.
  void pass_on(uint64_t request, Phase phase);
  uint64_t word_in(uint64_t request);
  void tell_sequencer();

  void sequence();
  bool release_oldest();
  bool look_up_next();
  bool wants_what_is_unpublished(const Turn &turn);
  void work(uint32_t worker);
  bool wait_while(Slot &slot, uint64_t word);
  void fail();

  const Trace &trace_;
  const Options &options_;
  std::vector<Server> &servers_;
  std::vector<Slot> slots_;

  // The sequencer's: oldest_ <= next_; requests between them are in flight.
  uint64_t oldest_ = 0, next_ = 0;
  uint64_t in_flight_pages_ = 0;

  alignas(64) std::atomic<uint32_t> changes_{0};  // what workers did; what the sequencer waits on
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::exception_ptr failure_;  // under mutex_
};

}  // namespace quire::replay

#endif  // QUIRE_REPLAY_PIPELINE_H
