#include "runtime/reclaim_thread.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <system_error>

namespace quire {

Status ReclaimThread::start(uint32_t period_ms, BackgroundWork *work) noexcept {
  work_ = work;
  period_ms_ = period_ms;
  stop_.store(false, std::memory_order_relaxed);
  // A new thread has its maker's mask.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  Status status = Status::kOk;
  try {
    thread_ = std::thread([this]() noexcept { run(); });
    pthread_setname_np(thread_.native_handle(), "quire-reclaim");
  } catch (const std::system_error &e) {
    status = set_error(Status::kNomem, "no thread for the cache: error %d", e.code().value());
  } catch (...) {
    status = set_error(Status::kNomem, "no memory for the cache's thread");
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return status;
}

void ReclaimThread::stop() noexcept {
  if (!thread_.joinable()) return;
  // release: pairs with the acquire in sleep().
  stop_.store(true, std::memory_order_release);
  posts_.release();
  thread_.join();
}

bool ReclaimThread::sleep(uint64_t ms, bool hold_back) noexcept {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::milliseconds(ms);
  for (;;) {
    if (ms == 0) {
      posts_.acquire();
    } else if (!posts_.try_acquire_until(end)) {
      return !stop_.load(std::memory_order_acquire);
    }
    if (stop_.load(std::memory_order_acquire)) return false;
    // A post that was held back is still known by `pending`.
    if (!hold_back) return true;
  }
}

void ReclaimThread::run() noexcept {
  uint64_t rests = 1;
  bool hold_back = false;
  for (;;) {
    const uint64_t unit = period_ms_ != 0 ? period_ms_ : hold_back ? kRestMs : 0;
    if (!sleep(unit * rests, hold_back)) return;
    // acq_rel: pairs with wake().
    const bool woken = pending_.exchange(false, std::memory_order_acq_rel);
    const bool useful = work_->tick(woken);
    ticks_.fetch_add(1, std::memory_order_relaxed);
    rests = useful ? 1 : std::min<uint64_t>(rests * 2, kMostRests);
    hold_back = woken && !useful;
  }
}

}  // namespace quire
