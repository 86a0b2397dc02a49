// Deals the requests of a trace to threads, the way an engine's scheduler would admit them.
//
// One thread: one after the other, and every figure of the replay is exact. Several, kOrdered: what
// decides the order of use is done in the trace's order, the rest in parallel. A request
//   1. begins (take) when the request that last used its deepest page seen so far has ended, since
//      a turn of a session comes after the turn before it, and when the pages of all in flight and
//      its own are at most a quarter of the cache, or nothing is in flight: so none is refused
//      pages because others hold them;
//   2. looks up and allocates in its turn (begin_turn to end_turn), as one scheduler does it: the
//      library chooses victims in exact order only while one thread evicts at a time;
//   3. publishes in parallel with the others, as workers do when they have computed;
//   4. releases when all before it have (begin_end to done): LRU order is the order of releases.
// Keys are made before 2, in parallel. What stays exact: requests, pages referenced, hits +
// inserted + duplicates = served. What may differ from one thread: pages that requests in flight
// hold cannot be victims, and what they have not yet published cannot be hit.
//
// Tried and given up: releases in any order cost a trace of long cyclic prompts up to 0.3 points at
// a capacity just below its working set; allocations in any order 0.1, and a few spurious refusals.
//
// kUnordered: a request begins whenever a thread is free, and nothing waits for anything. That is a
// stampede: it shows what the library does under it, not what a policy is worth.
//
// Requests are a microsecond or a few, so a lock and a sleep at each of these points would cost more
// than what they order: they are counters, each written by the one thread whose turn it is, and who
// waits looks at them for some microseconds before it sleeps.
//
// Invariants when ordered: oldest_ <= turn_ <= begun_ <= next_; in_flight_pages_ is the sum over
// requests begun and not done. Thread class: any; take, begin_turn and begin_end block.
#ifndef QUIRE_REPLAY_DEALER_H
#define QUIRE_REPLAY_DEALER_H

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "page_tree.h"
#include "trace.h"

namespace quire::replay {

enum class Dealing : uint8_t { kOrdered, kUnordered };

class Dealer {
 public:
  // Keeps a reference to the trace. admitted is called before take returns that request; if ordered,
  // in the trace's order, by one thread at a time.
  Dealer(const Trace &trace, uint32_t capacity, unsigned threads, Dealing dealing,
         std::function<void(const Request &)> admitted);

  // False: no requests are left, or somebody called stop().
  bool take(uint32_t *request);

  // Every request taken calls these once, in this order, whatever it needs.
  void begin_turn(uint32_t request);
  void end_turn(uint32_t request);
  void begin_end(uint32_t request);
  void done(uint32_t request);

  // Nobody waits any more. Requests taken may go on.
  void stop();

 private:
  using Count = std::atomic<uint32_t>;

  uint64_t pages_of(uint32_t request) const;
  bool may_begin(uint32_t request) const;
  // Until condition() holds, or somebody called stop(): then false.
  template <class Condition>
  bool wait_until(const Condition &condition);
  void changed();

  const Trace &trace_;
  const uint32_t capacity_;
  const bool ordered_;  // and more than one thread
  const std::function<void(const Request &)> admitted_;
  std::vector<uint32_t> after_;   // the request that must have ended first, if ordered
  alignas(64) Count next_{0};     // to be dealt
  alignas(64) Count begun_{0};    // requests before have begun, if ordered
  alignas(64) Count turn_{0};     // whose turn it is, if ordered
  alignas(64) Count oldest_{0};   // not done, if ordered
  alignas(64) Count changes_{0};  // of any of these; what sleepers wait on
  std::atomic<uint64_t> in_flight_pages_{0};
  std::atomic<bool> stopped_{false};
};

}  // namespace quire::replay

#endif  // QUIRE_REPLAY_DEALER_H
