// See dealer.h for the rules of admission.
#include "dealer.h"

#include <algorithm>
#include <utility>

namespace quire::replay {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

// For each request, the last one before it that used the deepest of its pages seen so far.
std::vector<uint32_t> predecessors(const Trace &trace) {
  const PageTree tree = number_pages(trace);
  std::vector<uint32_t> last(tree.pages, kNone), after(trace.requests.size(), kNone);
  for (uint32_t r = 0; r < trace.requests.size(); ++r) {
    const Request &request = trace.requests[r];
    for (uint64_t i = request.begin; i < request.end; ++i) {
      const uint32_t user = std::exchange(last[tree.numbers[i]], r);
      if (user != kNone) after[r] = user;
    }
  }
  return after;
}

}  // namespace

Dealer::Dealer(const Trace &trace, uint32_t capacity, unsigned threads, Dealing dealing,
               std::function<void(const Request &)> admitted)
    : trace_(trace),
      capacity_(capacity),
      ordered_(threads > 1 && dealing == Dealing::kOrdered),
      admitted_(std::move(admitted)) {
  if (ordered_) after_ = predecessors(trace);
}

uint64_t Dealer::pages_of(uint32_t request) const {
  const Request &r = trace_.requests[request];
  return std::min<uint64_t>(r.end - r.begin, capacity_);
}

bool Dealer::may_begin() const {
  if (!ordered_ || oldest_ == next_) return true;
  if (after_[next_] != kNone && after_[next_] >= oldest_) return false;
  return in_flight_pages_ + pages_of(next_) <= capacity_ / 4;
}

bool Dealer::take(uint32_t *request) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || next_ == trace_.requests.size() || may_begin(); });
  if (stopped_ || next_ == trace_.requests.size()) return false;
  *request = next_++;
  in_flight_pages_ += pages_of(*request);
  admitted_(trace_.requests[*request]);
  return true;
}

void Dealer::begin_turn(uint32_t request) {
  if (!ordered_) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || turn_ == request; });
}

void Dealer::end_turn(uint32_t request) {
  if (!ordered_) return;
  {
    const std::lock_guard lock(mutex_);
    turn_ = request + 1;
  }
  changed_.notify_all();
}

void Dealer::begin_end(uint32_t request) {
  if (!ordered_) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || oldest_ == request; });
}

void Dealer::done(uint32_t request) {
  {
    const std::lock_guard lock(mutex_);
    in_flight_pages_ -= pages_of(request);
    oldest_ = request + 1;  // read only if ordered
  }
  changed_.notify_all();
}

void Dealer::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

}  // namespace quire::replay
