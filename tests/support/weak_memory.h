// WeakMemory: what a C++20 memory that is weaker than sequentially consistent may do, simulated. The
// words over it are in tests/support/weak_atomics.h; tests/model/weak_memory_test.cpp proves it by
// litmus tests.
//
// It is an operational form of C++20's model (release and acquire as views, as in "A promising
// semantics for relaxed-memory concurrency", 2017, without the promises):
//
//   message    one store to a word: its value, its place in the word's modification order, and the
//              view that a reader who acquires it gets
//   view       for each word the place up to which somebody knows it, and for each thread a clock:
//              how much of that thread happened before
//   thread     cur: what it knows. acq: what an acquire fence would add (messages read relaxed).
//              rel: what a relaxed store would hand on (cur at its last release fence)
//
//   load       any message of the word that is not before the thread's view of it
//   store      a message anywhere behind the thread's view of it: usually last; before a newer one
//              where it knows nothing of that one (2+2W)
//   RMW        reads a message and stores directly behind it; nobody can come in between. What it
//              read is handed on with what it stores, whatever its order (release sequence)
//   failed CAS a load, by the order of failure
//
// seq_cst: the total order S is the order of execution. A seq_cst operation on a word must not be
// before, in the word's order, what an earlier seq_cst operation wrote or read there, or what a
// thread knew at a seq_cst fence; a seq_cst fence takes over both. It gives no happens-before beyond
// acquire and release ([atomics.order] of C++20).
//
// Not modelled: load buffering (a load that reads a store which comes later in the order of
// execution): C++ allows it for relaxed operations, compilers and CPUs of today may show it for
// independent ones, and no algorithm here would tell, for each load that matters is followed by a
// dependent operation. memory_order_consume is acquire. Words of mixed sizes do not exist.
//
// Plain memory is checked by the same clocks: two accesses, one of them a write, of which neither
// happened before the other, are a data race and end the execution.
//
// Everything belongs to one run of a scheduler. Before and after it words are plain; a run begins
// with every thread knowing all of what was done before.
//
// Cost: a copy of a view a release; a view has one entry a word that was stored to in the run.
#ifndef QUIRE_TESTS_SUPPORT_WEAK_MEMORY_H_
#define QUIRE_TESTS_SUPPORT_WEAK_MEMORY_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/support/scheduler.h"

namespace quire::model {

inline constexpr uint32_t kWeakThreads = 8;

// Place in a word's modification order. 0 is the value before the run; stores at the end go a gap
// further, so that later ones fit in between.
using Place = uint64_t;
inline constexpr Place kPlaceGap = Place{1} << 32;

struct WeakView {
  // Of a thread: rises with each of its stores, so it tells what came before a release of it.
  std::array<uint32_t, kWeakThreads> clock{};
  std::vector<Place> place;  // by number of the word

  Place of(uint32_t word) const { return word < place.size() ? place[word] : 0; }
  void raise(uint32_t word, Place to) {
    if (place.size() <= word) place.resize(word + 1, 0);
    place[word] = std::max(place[word], to);
  }
  void join_places(const WeakView &other) {
    if (place.size() < other.place.size()) place.resize(other.place.size(), 0);
    for (size_t i = 0; i < other.place.size(); ++i) place[i] = std::max(place[i], other.place[i]);
  }
  void join(const WeakView &other) {
    join_places(other);
    for (uint32_t t = 0; t < kWeakThreads; ++t) clock[t] = std::max(clock[t], other.clock[t]);
  }
};

constexpr bool acquires(std::memory_order order) {
  return order == std::memory_order_acquire || order == std::memory_order_acq_rel ||
         order == std::memory_order_seq_cst || order == std::memory_order_consume;
}
constexpr bool releases(std::memory_order order) {
  return order == std::memory_order_release || order == std::memory_order_acq_rel ||
         order == std::memory_order_seq_cst;
}
constexpr bool is_total(std::memory_order order) {
  return order == std::memory_order_seq_cst;
}

class WeakMemory {
 public:
  // Of the scheduler's present run; emptied where that is another one than before.
  static WeakMemory &of(Scheduler &scheduler) {
    static thread_local WeakMemory memory;
    if (memory.serial_ != scheduler.serial()) memory.begin(scheduler);
    return memory;
  }

  // A word that has no number in this run gets one, and `value` as its first message.
  uint32_t number(uint64_t value) {
    if (words_ == word_.size()) word_.emplace_back();
    Word &word = word_[words_];
    word.messages.clear();
    word.messages.push_back({0, value, {}, false});
    word.total = 0;
    return words_++;
  }
  uint64_t serial() const { return serial_; }

  uint64_t load(uint32_t w, std::memory_order order) {
    Word &word = word_[w];
    const size_t first = first_visible(w, is_total(order));
    const size_t last = word.messages.size() - 1;
    const size_t at = last - scheduler_->choose_value(static_cast<uint32_t>(last - first + 1));
    observe(w, at, order);
    return word.messages[at].value;
  }

  // Whether the store is the last of its word's order.
  bool store(uint32_t w, uint64_t value, std::memory_order order) {
    const size_t after = choose_open(w, is_total(order));
    return append(w, after, value, order, false);
  }

  // Reads a message that nothing is tied to. What is then stored behind it: write_tied().
  uint64_t read_open(uint32_t w, std::memory_order order, size_t *at) {
    *at = choose_open(w, is_total(order));
    observe(w, *at, order);
    return word_[w].messages[*at].value;
  }
  bool write_tied(uint32_t w, size_t at, uint64_t value, std::memory_order order) {
    return append(w, at, value, order, true);
  }

  // A compare-and-swap's read. True: it read `expected`, at *at, and may store behind it.
  bool compare(uint32_t w, uint64_t *expected, std::memory_order success, std::memory_order failure,
               size_t *at) {
    Word &word = word_[w];
    const size_t first = first_visible(w, is_total(success) || is_total(failure));
    const size_t last = word.messages.size() - 1;
    *at = last - scheduler_->choose_value(static_cast<uint32_t>(last - first + 1));
    // It would succeed here, but somebody has come directly behind: then it reads the newest.
    if (word.messages[*at].value == *expected && !is_open(word, *at)) *at = last;
    const bool equal = word.messages[*at].value == *expected;
    observe(w, *at, equal ? success : failure);
    *expected = word.messages[*at].value;
    return equal;
  }

  void fence(std::memory_order order) {
    Thread &self = running();
    if (acquires(order)) self.cur.join(self.acq);
    if (is_total(order)) {
      self.cur.join_places(total_);
      for (uint32_t w = 0; w < words_; ++w) {
        if (word_[w].total != 0) self.cur.raise(w, word_[w].total);
      }
      total_.join_places(self.cur);
    }
    self.acq.join(self.cur);
    if (releases(order)) {
      self.rel = self.cur;
      tick(self);
    }
  }

  // Plain accesses. `clocks` of a cell: of its last write and its reads, by thread; 0: never.
  using Clocks = std::array<uint32_t, kWeakThreads>;
  bool happened_before(const Clocks &clocks) {
    const Thread &self = running();
    for (uint32_t t = 0; t < kWeakThreads; ++t) {
      if (clocks[t] > self.cur.clock[t]) return false;
    }
    return true;
  }
  uint32_t clock() { return running().cur.clock[scheduler_->running()]; }
  // How much of each thread happened before what the running one does next.
  Clocks clocks() { return running().cur.clock; }

 private:
  struct Message {
    Place place;
    uint64_t value;
    WeakView view;
    bool tied;  // a read-modify-write's: nothing comes between it and the one before
  };
  struct Word {
    std::vector<Message> messages;  // by place
    Place total = 0;                // the last that a seq_cst operation wrote or read
  };
  struct Thread {
    WeakView cur, acq, rel;
  };

  void begin(Scheduler &scheduler) {
    scheduler_ = &scheduler;
    serial_ = scheduler.serial();
    words_ = 0;
    total_ = {};
    threads_.assign(kWeakThreads, {});
    if (scheduler.threads() > kWeakThreads) throw std::length_error("too many model threads");
    for (uint32_t t = 0; t < kWeakThreads; ++t) {
      threads_[t].cur.clock[t] = threads_[t].acq.clock[t] = 1;
    }
  }
  Thread &running() { return threads_[scheduler_->running()]; }
  void tick(Thread &self) {
    const uint32_t t = scheduler_->running();
    self.acq.clock[t] = ++self.cur.clock[t];
  }

  // The first message that the running thread may still see.
  size_t first_visible(uint32_t w, bool total) {
    const Word &word = word_[w];
    Place known = running().cur.of(w);
    if (total) known = std::max({known, word.total, total_.of(w)});
    size_t at = word.messages.size() - 1;
    while (word.messages[at].place > known) --at;
    return at;
  }
  static bool is_open(const Word &word, size_t at) {
    if (at + 1 == word.messages.size()) return true;
    const Message &next = word.messages[at + 1];
    return !next.tied && next.place - word.messages[at].place > 1;
  }
  // A message directly behind which the running thread may store.
  size_t choose_open(uint32_t w, bool total) {
    const Word &word = word_[w];
    const size_t first = first_visible(w, total), last = word.messages.size() - 1;
    uint32_t open = 0;
    for (size_t i = first; i <= last; ++i) open += is_open(word, i) ? 1U : 0U;
    uint32_t skip = scheduler_->choose_value(open);
    size_t at = last;
    for (;; --at) {
      if (is_open(word, at) && skip-- == 0) return at;
    }
  }

  void observe(uint32_t w, size_t at, std::memory_order order) {
    Thread &self = running();
    Word &word = word_[w];
    const Message &message = word.messages[at];
    if (message.place != 0) {
      self.cur.raise(w, message.place);
      self.acq.raise(w, message.place);
      self.acq.join(message.view);
      if (acquires(order)) self.cur.join(message.view);
    }
    if (is_total(order)) word.total = std::max(word.total, message.place);
  }

  bool append(uint32_t w, size_t after, uint64_t value, std::memory_order order, bool tied) {
    Thread &self = running();
    Word &word = word_[w];
    const bool last = after + 1 == word.messages.size();
    const Place before = word.messages[after].place;
    const Place place =
        last ? before + kPlaceGap : before + (word.messages[after + 1].place - before) / 2;
    self.cur.raise(w, place);
    self.acq.raise(w, place);
    Message message{place, value, releases(order) ? self.cur : self.rel, tied};
    message.view.raise(w, place);
    if (tied) message.view.join(word.messages[after].view);
    word.messages.insert(word.messages.begin() + static_cast<std::ptrdiff_t>(after) + 1,
                         std::move(message));
    if (is_total(order)) word.total = std::max(word.total, place);
    tick(self);
    return last;
  }

  Scheduler *scheduler_ = nullptr;
  uint64_t serial_ = 0;
  uint32_t words_ = 0;
  std::vector<Word> word_;
  std::vector<Thread> threads_;
  WeakView total_;  // places known at seq_cst fences
};

}  // namespace quire::model

#endif  // QUIRE_TESTS_SUPPORT_WEAK_MEMORY_H_
