// Deals the requests of a trace to threads, the way an engine's scheduler would admit them.
//
// One thread: one after the other, and every figure of the replay is exact. Several: requests begin
// in the trace's order, and the next one begins as soon as
//   - the request that last used its deepest page seen so far has ended: a turn of a session comes
//     after the turn before it, else it would miss what that one was about to publish;
//   - the pages of all requests in flight and its own are at most a quarter of the cache, or nothing
//     is in flight: so no request is refused pages because others hold them;
//   - it is fewer requests ahead of the oldest one in flight than there are threads: while the system
//     lets one thread sleep, the others do not run away from the trace's order. (Four times as many
//     cost a trace of long cyclic prompts up to 0.3 points, at a capacity just below its working set.)
// What stays exact: requests, pages referenced, and hits + inserted + duplicates = served. What may
// differ from one thread: the order of use among requests in flight together, so which pages are
// evicted and, by a little, hits.
//
// Invariant: done requests are those below oldest_ and those marked in done_; in_flight_pages_ is the
// sum over requests dealt and not done. Thread class: any; take() blocks.
#ifndef QUIRE_REPLAY_DEALER_H
#define QUIRE_REPLAY_DEALER_H

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "page_tree.h"
#include "trace.h"

namespace quire::replay {

class Dealer {
 public:
  // Keeps references to the trace. admitted (or empty) is called in the trace's order, before take
  // returns that request.
  Dealer(const Trace &trace, uint32_t capacity, unsigned threads,
         std::function<void(const Request &)> admitted);

  // False: no requests are left, or somebody called stop().
  bool take(uint32_t *request);
  void done(uint32_t request);
  void stop();

 private:
  uint64_t pages_of(uint32_t request) const;
  bool may_begin() const;

  const Trace &trace_;
  const uint32_t capacity_;
  const uint32_t window_;
  const std::function<void(const Request &)> admitted_;
  std::vector<uint32_t> after_;  // the request that must have ended first; empty: one thread
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> done_;
  uint32_t next_ = 0, oldest_ = 0;
  uint64_t in_flight_pages_ = 0;
  bool stopped_ = false;
};

}  // namespace quire::replay

#endif  // QUIRE_REPLAY_DEALER_H
