// WeakAtomics: words, fences and plain cells over a simulated weak memory (weak_memory.h), for
// algorithms over `template <class A>`. Each operation yields to the scheduler first, and then may see
// or do whatever its order allows; Mutator (mutation.h) may weaken it.
//
// Plain<T> is memory that one thread at a time may touch: every access is checked for a data race.
// Tests keep what pages and frames contain in it, algorithms their own plain members (A::plain<T>).
// An access is not a point at which the scheduler switches: where two can race, they race in some
// order of the atomics around them.
#ifndef QUIRE_TESTS_SUPPORT_WEAK_ATOMICS_H_
#define QUIRE_TESTS_SUPPORT_WEAK_ATOMICS_H_

#include <atomic>
#include <cstdint>
#include <utility>

#include "tests/support/mutation.h"
#include "tests/support/scheduler.h"
#include "tests/support/weak_memory.h"

namespace quire::model {

template <class T>
class WeakAtomic {
  using Order = std::memory_order;
  static constexpr Order kSeqCst = std::memory_order_seq_cst;

 public:
  WeakAtomic() = default;
  explicit WeakAtomic(T value) : value_(value) {}
  WeakAtomic(const WeakAtomic &) = delete;
  WeakAtomic &operator=(const WeakAtomic &) = delete;

  T load(Order order = kSeqCst, Where where = Where::current()) const {
    Scheduler *s = step("load", 0);
    if (s == nullptr) return value_;
    order = Mutator::get().order(where, Operation::kLoad, order);
    const uint64_t value = memory(s).load(word_, order);
    s->saw(value == bits(value_) ? "load" : "load, not the newest", value);
    return static_cast<T>(value);
  }
  void store(T value, Order order = kSeqCst, Where where = Where::current()) {
    Scheduler *s = step("store", bits(value));
    if (s == nullptr) {
      value_ = value;
      return;
    }
    order = Mutator::get().order(where, Operation::kStore, order);
    if (memory(s).store(word_, bits(value), order)) value_ = value;
  }

  T exchange(T value, Order order = kSeqCst, Where where = Where::current()) {
    return change("exchange", value, order, where, [=](T) { return value; });
  }
  T fetch_add(T by, Order order = kSeqCst, Where where = Where::current()) {
    return change("add", by, order, where, [=](T old) { return static_cast<T>(old + by); });
  }
  T fetch_sub(T by, Order order = kSeqCst, Where where = Where::current()) {
    return change("sub", by, order, where, [=](T old) { return static_cast<T>(old - by); });
  }
  T fetch_and(T by, Order order = kSeqCst, Where where = Where::current()) {
    return change("and", by, order, where, [=](T old) { return static_cast<T>(old & by); });
  }
  T fetch_or(T by, Order order = kSeqCst, Where where = Where::current()) {
    return change("or", by, order, where, [=](T old) { return static_cast<T>(old | by); });
  }

  bool compare_exchange_strong(T &expected, T desired, Order success, Order failure,
                               Where where = Where::current()) {
    Scheduler *s = step("cas", bits(desired));
    if (s == nullptr) {
      const bool equal = value_ == expected;
      if (equal) value_ = desired;
      if (!equal) expected = value_;
      return equal;
    }
    Mutator &mutator = Mutator::get();
    success = mutator.order(where, Operation::kCompare, success);
    failure = mutator.failure(where, failure);
    WeakMemory &m = memory(s);
    uint64_t seen = bits(expected);
    if (mutator.torn(where)) {
      const uint64_t value = m.load(word_, success);
      const bool equal = value == seen;
      if (equal) {
        s->yield("torn", this, bits(desired));
        if (m.store(word_, bits(desired), success)) value_ = desired;
      }
      expected = static_cast<T>(value);
      return equal;
    }
    size_t at = 0;
    const bool equal = m.compare(word_, &seen, success, failure, &at);
    if (equal && m.write_tied(word_, at, bits(desired), success)) value_ = desired;
    if (!equal) s->saw("cas fails", seen);
    expected = static_cast<T>(seen);
    return equal;
  }
  bool compare_exchange_strong(T &expected, T desired, Order order = kSeqCst,
                               Where where = Where::current()) {
    return compare_exchange_strong(expected, desired, order, of_failure(order), where);
  }
  bool compare_exchange_weak(T &expected, T desired, Order success, Order failure,
                             Where where = Where::current()) {
    Scheduler *s = Scheduler::current();
    // Spurious: nothing is learnt and nothing done.
    if (s != nullptr && s->spurious()) return false;
    return compare_exchange_strong(expected, desired, success, failure, where);
  }
  bool compare_exchange_weak(T &expected, T desired, Order order = kSeqCst,
                             Where where = Where::current()) {
    return compare_exchange_weak(expected, desired, order, of_failure(order), where);
  }

 private:
  static constexpr uint64_t bits(T value) { return static_cast<uint64_t>(value); }
  static constexpr Order of_failure(Order order) {
    if (order == std::memory_order_acq_rel) return std::memory_order_acquire;
    return order == std::memory_order_release ? std::memory_order_relaxed : order;
  }

  template <class F>
  T change(const char *operation, T shown, Order order, const Where &where, const F &f) {
    Scheduler *s = step(operation, bits(shown));
    if (s == nullptr) return std::exchange(value_, f(value_));
    order = Mutator::get().order(where, Operation::kChange, order);
    WeakMemory &m = memory(s);
    if (Mutator::get().torn(where)) {
      const auto old = static_cast<T>(m.load(word_, order));
      s->yield("torn", this, bits(shown));
      const T next = f(old);
      if (m.store(word_, bits(next), order)) value_ = next;
      return old;
    }
    size_t at = 0;
    const auto old = static_cast<T>(m.read_open(word_, order, &at));
    const T next = f(old);
    if (m.write_tied(word_, at, bits(next), order)) value_ = next;
    return old;
  }

  // The scheduler, after it had its say; nullptr outside of a run.
  Scheduler *step(const char *operation, uint64_t value) const {
    Scheduler *scheduler = Scheduler::current();
    if (scheduler != nullptr) scheduler->yield(operation, this, value);
    return scheduler;
  }
  WeakMemory &memory(Scheduler *scheduler) const {
    WeakMemory &memory = WeakMemory::of(*scheduler);
    if (run_ != memory.serial()) {
      run_ = memory.serial();
      word_ = memory.number(bits(value_));
    }
    return memory;
  }

  T value_{};  // the last in the word's order
  mutable uint32_t word_ = 0;
  mutable uint64_t run_ = 0;  // for which `word_` is its number
};

template <class T>
class Plain {
 public:
  Plain() = default;
  explicit Plain(const T &value) : value_(value) {}

  operator T() const {  // NOLINT(google-explicit-constructor): it stands for a plain member.
    look();
    return value_;
  }
  Plain &operator=(const T &value) {
    touch();
    value_ = value;
    return *this;
  }

 private:
  void look() const {
    if (WeakMemory *memory = present()) {
      if (!memory->happened_before(written_)) race("data race: read of what another thread writes");
      read_[Scheduler::current()->running()] = memory->clock();
    }
  }
  void touch() {
    if (WeakMemory *memory = present()) {
      if (!memory->happened_before(written_))
        race("data race: write of what another thread writes");
      if (!memory->happened_before(read_)) race("data race: write of what another thread reads");
      written_ = {};
      read_ = {};
      written_[Scheduler::current()->running()] = memory->clock();
    }
  }
  // nullptr outside of a run. Accesses before the run happened before all of it.
  WeakMemory *present() const {
    Scheduler *scheduler = Scheduler::current();
    if (scheduler == nullptr) return nullptr;
    WeakMemory &memory = WeakMemory::of(*scheduler);
    if (run_ != memory.serial()) {
      run_ = memory.serial();
      written_ = {};
      read_ = {};
    }
    return &memory;
  }
  [[noreturn]] static void race(const char *what) { Scheduler::current()->abandon(what); }

  T value_{};
  mutable uint64_t run_ = 0;
  mutable WeakMemory::Clocks written_{}, read_{};
};

struct WeakAtomics {
  template <class T>
  using atomic = WeakAtomic<T>;
  template <class T>
  using plain = Plain<T>;

  static uint32_t thread_index() {
    return Scheduler::current() == nullptr ? 0 : Scheduler::current()->running();
  }
  static void fence(std::memory_order order) {
    Scheduler *scheduler = Scheduler::current();
    if (scheduler == nullptr) return;
    scheduler->yield("fence", nullptr, 0);
    WeakMemory::of(*scheduler).fence(order);
  }
};

}  // namespace quire::model

#endif  // QUIRE_TESTS_SUPPORT_WEAK_ATOMICS_H_
