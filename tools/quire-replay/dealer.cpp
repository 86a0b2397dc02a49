// See dealer.h for the rules of admission.
#include "dealer.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace quire::replay {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

// A pause between two looks.
void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

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

// By the one thread whose request is the next to begin.
bool Dealer::may_begin(uint32_t request) const {
  const uint32_t oldest = oldest_.load();
  if (oldest == request) return true;
  if (after_[request] != kNone && after_[request] >= oldest) return false;
  return in_flight_pages_.load() + pages_of(request) <= capacity_ / 4;
}

template <class Condition>
bool Dealer::wait_until(const Condition &condition) {
  constexpr int kLooks = 200;
  for (int look = 0;; ++look) {
    const uint32_t changes = changes_.load();
    if (stopped_.load()) return false;
    if (condition()) return true;
    if (look < kLooks) {
      relax();
    } else {
      changes_.wait(changes);  // What changed since the look has counted it.
    }
  }
}

void Dealer::changed() {
  changes_.fetch_add(1);
  changes_.notify_all();
}

bool Dealer::take(uint32_t *request) {
  if (stopped_.load()) return false;
  *request = next_.fetch_add(1);
  if (*request >= trace_.requests.size()) return false;
  if (ordered_) {
    const auto my_turn = [&] { return begun_.load() == *request && may_begin(*request); };
    if (!wait_until(my_turn)) return false;
    in_flight_pages_.fetch_add(pages_of(*request));
  }
  admitted_(trace_.requests[*request]);
  if (ordered_) {
    begun_.store(*request + 1);
    changed();
  }
  return true;
}

void Dealer::begin_turn(uint32_t request) {
  if (ordered_) wait_until([&] { return turn_.load() == request; });
}

void Dealer::end_turn(uint32_t request) {
  if (!ordered_) return;
  turn_.store(request + 1);
  changed();
}

void Dealer::begin_end(uint32_t request) {
  if (ordered_) wait_until([&] { return oldest_.load() == request; });
}

void Dealer::done(uint32_t request) {
  if (!ordered_) return;
  in_flight_pages_.fetch_sub(pages_of(request));
  oldest_.store(request + 1);
  changed();
}

void Dealer::stop() {
  stopped_.store(true);
  changed();
}

}  // namespace quire::replay
