#include "workers.h"

#include <algorithm>

namespace quire::demo {

Workers::Workers(size_t threads) {
  for (size_t i = 1; i < std::max<size_t>(threads, 1); ++i) {
    threads_.emplace_back([this, i] { loop(i); });
  }
}

Workers::~Workers() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  for (std::thread &thread : threads_) thread.join();
}

void Workers::run_share(size_t index) const {
  const size_t n = threads();
  const size_t begin = count_ * index / n, end = count_ * (index + 1) / n;
  if (begin < end) (*body_)(begin, end);
}

void Workers::for_each(size_t count, const Body &body) {
  if (threads_.empty() || count < 2) {
    if (count > 0) body(0, count);
    return;
  }
  {
    std::lock_guard lock(mutex_);
    body_ = &body;
    count_ = count;
    running_ = threads_.size();
    ++round_;
  }
  work_.notify_all();
  run_share(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return running_ == 0; });
}

void Workers::loop(size_t index) {
  size_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [&] { return stop_ || round_ != seen; });
    if (stop_) return;
    seen = round_;
    lock.unlock();
    run_share(index);  // body_ and count_ stay as they are until running_ is 0
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

}  // namespace quire::demo
