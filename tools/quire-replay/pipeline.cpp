// See pipeline.h for who does what when.
#include "pipeline.h"

#include <thread>

namespace quire::replay {
namespace {

constexpr int kLooks = 400;

// A pause between two looks.
void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

Pipeline::Pipeline(const Trace &trace, const Options &options, std::vector<Server> *servers)
    : trace_(trace),
      options_(options),
      servers_(*servers),
      slots_(size_t{kSlotsOfWorker} * (options.threads - 1)) {
  for (size_t i = 0; i < slots_.size(); ++i) slots_[i].word = word_of(i, kFree);
}

void Pipeline::run() {
  std::vector<std::thread> workers;
  for (uint32_t worker = 0; worker + 1 < options_.threads; ++worker)
    workers.emplace_back([this, worker] {
      try {
        work(worker);
      } catch (...) {
        fail();
      }
    });
  try {
    sequence();
  } catch (...) {
    fail();
  }
  for (std::thread &worker : workers) worker.join();
  if (failure_) std::rethrow_exception(failure_);
}

void Pipeline::pass_on(uint64_t request, Phase phase) {
  Slot &its = slot(request);
  its.word.store(word_of(request, phase), std::memory_order_release);
  its.word.notify_one();
}

// 0 once somebody has failed: then no phase is acted on any more, but kFree of the first request.
// acquire: pairs with pass_on().
uint64_t Pipeline::word_in(uint64_t request) {
  const uint64_t word = slot(request).word.load(std::memory_order_acquire);
  return (word & kFailed) != 0 ? 0 : word;
}

void Pipeline::tell_sequencer() {
  changes_.fetch_add(1);
  changes_.notify_one();
}

void Pipeline::sequence() {
  const uint64_t requests = trace_.requests.size();
  for (int look = 0; oldest_ < requests && !stopped_.load(std::memory_order_relaxed);) {
    const uint32_t changes = changes_.load();
    if (release_oldest() || look_up_next()) {
      look = 0;
    } else if (++look < kLooks) {
      relax();
    } else {
      changes_.wait(changes);  // What changed since the looks has counted it.
    }
  }
}

bool Pipeline::release_oldest() {
  if (oldest_ == next_) return false;
  Slot &its = slot(oldest_);
  if (word_in(oldest_) != word_of(oldest_, kPublished)) return false;
  in_flight_pages_ -= its.turn.n;
  servers_[0].release(&its.turn);
  its.word.store(word_of(oldest_ + slots_.size(), kFree), std::memory_order_release);
  its.word.notify_one();
  ++oldest_;
  if (options_.progress) options_.progress(1);
  return true;
}

bool Pipeline::look_up_next() {
  if (next_ == trace_.requests.size()) return false;
  Slot &its = slot(next_);
  if (word_in(next_) != word_of(next_, kReady)) return false;
  if (wants_what_is_unpublished(its.turn)) return false;
  if (oldest_ != next_ && in_flight_pages_ + its.turn.n > options_.pages / 4) return false;
  servers_[0].look_up(&its.turn);
  in_flight_pages_ += its.turn.n;
  its.new_from = its.turn.hits < its.turn.n ? its.turn.hits : kNothingNew;
  pass_on(next_, its.turn.hits == its.turn.n ? kPublished : kServed);
  ++next_;
  return true;
}

// Its first new page stands for all that a request in flight is going to publish: pages are found
// from the first one on.
bool Pipeline::wants_what_is_unpublished(const Turn &turn) {
  for (uint64_t other = oldest_; other < next_; ++other) {
    const Slot &its = slot(other);
    if (its.new_from >= turn.n) continue;
    const quire_key &mine = turn.keys[its.new_from], &theirs = its.turn.keys[its.new_from];
    if (mine.lo == theirs.lo && mine.hi == theirs.hi && word_in(other) < word_of(other, kPublished))
      return true;
  }
  return false;
}

// Worker w has the requests w, w + workers, ...: `made` is the next one to prepare, `told` the next
// one whose lookup it waits for.
void Pipeline::work(uint32_t worker) {
  Server &server = servers_[worker + 1];
  const uint64_t requests = trace_.requests.size(), stride = options_.threads - 1;
  for (uint64_t made = worker, told = worker; told < requests;) {
    const uint64_t word = told < made ? word_in(told) : 0;
    if (word >= word_of(told, kServed)) {
      if (word == word_of(told, kServed)) {
        server.publish(&slot(told).turn);
        pass_on(told, kPublished);
        tell_sequencer();
      }
      told += stride;
      continue;
    }
    if (made < requests && made < told + kSlotsOfWorker * stride) {
      Slot &its = slot(made);
      const uint64_t free = word_in(made);
      if (free == word_of(made, kFree)) {
        server.prepare(static_cast<uint32_t>(made), &its.turn);
        pass_on(made, kReady);
        tell_sequencer();
        made += stride;
        continue;
      }
      if (told == made) {  // Nothing of its own is on its way: its next slot must come free.
        if (!wait_while(its, free)) return;
        continue;
      }
    }
    if (!wait_while(slot(told), word)) return;
  }
}

// False: somebody has failed.
bool Pipeline::wait_while(Slot &its, uint64_t word) {
  for (int look = 0; its.word.load(std::memory_order_acquire) == word; ++look) {
    if (stopped_.load()) return false;
    if (look < kLooks) {
      relax();
    } else {
      its.word.wait(word, std::memory_order_acquire);
    }
  }
  return !stopped_.load();
}

// Everybody is woken, sees it, and ends.
void Pipeline::fail() {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
  stopped_.store(true);
  for (Slot &its : slots_) {
    its.word.fetch_or(kFailed);
    its.word.notify_all();
  }
  tell_sequencer();
}

}  // namespace quire::replay
