// ReclaimThread: the cache's own thread. It ticks by time and comes at once when it is woken; what
// there is to do at a tick (advance the clock, drain limbo, expire, reclaim up to a watermark) is
// the owner's BackgroundWork.
//
//   wake()   sets `pending`; only who set it posts the semaphore, so a thousand callers cost one post.
//            Never waits, takes no lock: callers are in the middle of an allocation
//   tick     clears `pending` first, so that a wake during it is not lost
//   rest     a tick that found nothing useful doubles the time until the next one, up to kMostRests
//            periods; a useful one resets it. After a *woken* tick that was of no use (everything
//            is pinned, say) wakes are held back until that time: noticed and slept on, not spun on
//
// period_ms = 0: no time, only wakes; the unit of rests is then kRestMs.
//
// Invariant: tick() is never called by two threads, nor after stop() has returned. Thread class:
// wake from any thread; start and stop by the owner. All signals are blocked in the thread, so that
// the program's handlers run in its own threads.
#ifndef QUIRE_RUNTIME_RECLAIM_THREAD_H_
#define QUIRE_RUNTIME_RECLAIM_THREAD_H_

#include <atomic>
#include <cstdint>
#include <semaphore>
#include <thread>

#include "runtime/status.h"

namespace quire {

class BackgroundWork {
 public:
  // woken: somebody asked. Returns whether it was of use.
  virtual bool tick(bool woken) noexcept = 0;

 protected:
  ~BackgroundWork() = default;
};

class ReclaimThread {
 public:
  static constexpr uint32_t kMostRests = 16;
  static constexpr uint32_t kRestMs = 1;

  ReclaimThread() = default;
  ReclaimThread(const ReclaimThread &) = delete;
  ReclaimThread &operator=(const ReclaimThread &) = delete;
  ~ReclaimThread() { stop(); }

  // kNomem: no thread could be had. The work outlives the thread.
  Status start(uint32_t period_ms, BackgroundWork *work) noexcept;

  // Returns once the running tick, if any, is over. Harmless when not started.
  void stop() noexcept;

  void wake() noexcept {
    // acq_rel: pairs with the exchange before a tick: what the caller saw, the tick sees.
    if (!pending_.exchange(true, std::memory_order_acq_rel)) posts_.release();
  }

  bool running() const noexcept { return thread_.joinable(); }
  uint64_t ticks() const noexcept { return ticks_.load(std::memory_order_relaxed); }

 private:
  void run() noexcept;
  // Until a wake (unless held back) or that many ms; 0: for ever. Returns false at the end.
  bool sleep(uint64_t ms, bool hold_back) noexcept;

  std::thread thread_;
  BackgroundWork *work_ = nullptr;
  uint32_t period_ms_ = 0;
  std::atomic<bool> pending_{false};
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> ticks_{0};
  std::counting_semaphore<> posts_{0};  // at most one for `pending` and one for stop()
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_RECLAIM_THREAD_H_
