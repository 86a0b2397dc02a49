// Scheduler: runs the threads of a model test one at a time, and decides at every atomic operation
// who goes on. A whole execution is a function of the seed, so a failure is replayed by its seed.
//
//   using Pool = FramePool<ModelAtomics>;            // the algorithm over the model's atomics
//   for_each_seed(10000, [](uint64_t seed) {
//     ...                                            // set up: no scheduler, plain accesses
//     Scheduler s(seed);
//     s.spawn([&] { ... });                          // a thread; throw to fail
//     s.spawn([&] { ... });
//     s.run();                                       // throws what a thread threw
//     ...                                            // judge; throw to fail
//   });
//
// Three ways to explore:
//   Scheduler(seed)         a random walk: at each atomic, another thread with chance 1 / one_in
//   explore(bounds, f)      every execution with at most so many preemptions, for small cases;
//                           f(scheduler) sets up, spawns, runs and judges one of them. Stateless
//                           depth-first search: each execution is one path in the tree of choices.
//                           A preemption is a switch from a thread that could have gone on
//   s.stop(thread, n)       the thread never gets beyond its n-th atomic: what others do must not
//                           depend on it. Its stack is dropped, so it should own no heap memory
//   stop_everywhere(b, f)   the same before its first atomic, its second, ... to its last one, each in
//                           every execution within the bounds
//
// A failed seed is printed with the trace (thread, operation, address, value), and run alone with
// QUIRE_SEED=<seed>; QUIRE_SEEDS=<n> changes how many are tried. Sanitizer builds run a tenth of
// them, and explore with one preemption less, and say so: they are there for the memory errors, the
// interleavings are the same.
//
// Threads are fibers (ucontext) of one real thread. Over ModelAtomics, interleavings are sequentially
// consistent; over WeakAtomics (tests/support/weak_atomics.h) each load also chooses among the values
// that its memory order allows it to see, as one more choice of the walk or of the exploration,
// bounded by Bounds::stale. compare_exchange_weak fails spuriously now and then in a random walk.
//
// A failure that is found inside an algorithm (no end, a data race) abandons the execution: fibers
// are dropped where they are, since algorithms are noexcept and cannot be unwound.
#ifndef QUIRE_TESTS_SUPPORT_SCHEDULER_H_
#define QUIRE_TESTS_SUPPORT_SCHEDULER_H_

#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#define QUIRE_MODEL_SANITIZED 1
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define QUIRE_MODEL_SANITIZED 1
#endif

namespace quire::model {

#if defined(__SANITIZE_ADDRESS__)
inline void pause_leak_check() {
  __lsan_disable();
}
inline void resume_leak_check() {
  __lsan_enable();
}
#else
inline void pause_leak_check() {}
inline void resume_leak_check() {}
#endif

// SplitMix64: small, seeded, and the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((next() >> 32) * n >> 32); }
  bool one_in(uint32_t n) { return below(n) == 0; }

 private:
  uint64_t state_;
};

// The choices of one execution of explore(): a path in the tree of all of them.
struct Path {
  struct Choice {
    uint32_t taken, options;
  };
  std::vector<Choice> choices;
  size_t at = 0;

  uint32_t pick(uint32_t options) {
    if (at == choices.size()) choices.push_back({0, options});
    if (choices[at].options != options) throw std::logic_error("the case is not deterministic");
    return choices[at++].taken;
  }
  // To the next path in depth-first order; false when there is none.
  bool advance() {
    while (!choices.empty() && choices.back().taken + 1 == choices.back().options) {
      choices.pop_back();
    }
    if (choices.empty()) return false;
    ++choices.back().taken;
    at = 0;
    return true;
  }
};

// How far explore() goes: switches away from a thread that could go on, and, over WeakAtomics, reads
// of a value that is not the newest (and stores that are ordered before the newest).
struct Bounds {
  uint32_t preemptions = 2;
  uint32_t stale = 0;
};

class Scheduler {
 public:
  static constexpr uint64_t kMaxSteps = 200000;

  // one_in: a switch at every so many atomics; stale_one_in: of the loads that may see an older
  // value, one in so many does.
  explicit Scheduler(uint64_t seed, uint32_t one_in = 3, uint32_t stale_one_in = 3)
      : serial_(next_serial()), random_(seed), one_in_(one_in), stale_one_in_(stale_one_in) {}
  Scheduler(Path *path, const Bounds &bounds)
      : serial_(next_serial()),
        random_(0),
        path_(path),
        left_(bounds.preemptions),
        stale_left_(bounds.stale) {}
  Scheduler(const Scheduler &) = delete;
  Scheduler &operator=(const Scheduler &) = delete;
  ~Scheduler() {
    if (std::uncaught_exceptions() > 0) last_trace() = trace();
    for (auto &thread : threads_) {
      destroy(*thread);
      stacks().push_back(std::move(thread->stack));
    }
  }

  // The scheduler that is running on this thread, if any.
  static Scheduler *&current() {
    static thread_local Scheduler *scheduler = nullptr;
    return scheduler;
  }
  static std::string &last_trace() {
    static thread_local std::string trace;
    return trace;
  }

  uint32_t spawn(std::function<void()> body) {
    auto thread = std::make_unique<Thread>();
    thread->body = std::move(body);
    thread->stack = take_stack();
    threads_.push_back(std::move(thread));
    return static_cast<uint32_t>(threads_.size() - 1);
  }

  // The thread does n atomics and then no more, for ever.
  void stop(uint32_t thread, uint64_t n) { threads_[thread]->stop_after = n; }

  // Runs until every thread has finished or stopped. Throws what a thread threw, or if the threads
  // do not finish within kMaxSteps: somebody waits for somebody.
  void run() {
    trace_.clear();
    for (auto &thread : threads_) create(*thread);
    // A thread that stops for good never gives back what it holds.
    const bool leaks = std::any_of(threads_.begin(), threads_.end(), [](const auto &thread) {
      return thread->stop_after != UINT64_MAX;
    });
    if (leaks) pause_leak_check();
    current() = this;
    const uint32_t first = choose(kNobody);
    if (first != kNobody) switch_to(first);
    current() = nullptr;
    if (leaks) resume_leak_check();
    if (failure_) std::rethrow_exception(failure_);
  }

  // Called by the model's atomics before each operation.
  void yield(const char *operation, const void *address, uint64_t value) {
    Thread &self = *threads_[running_];
    if (unwinding_ || std::uncaught_exceptions() > 0) return;
    if (trace_.size() > kMaxSteps) {
      static_assert(kMaxSteps == 200000);
      abandon("no end after 200000 atomics");
    }
    if (self.steps++ >= self.stop_after) self.done = true;  // It stays where it is.
    const uint32_t next = choose(running_);
    if (next != running_) switch_to(next);
    // Here, not before: the trace is in the order of what was done.
    trace_.push_back({running_, operation, address, value});
  }

  // What the operation that has just yielded saw, for the trace.
  void saw(const char *operation, uint64_t value) {
    if (trace_.empty()) return;
    trace_.back().operation = operation;
    trace_.back().value = value;
  }

  // Which of so many values an operation takes; 0: the newest.
  uint32_t choose_value(uint32_t options) {
    if (options <= 1) return 0;
    if (path_ == nullptr) {
      if (stale_one_in_ == 0 || !random_.one_in(stale_one_in_)) return 0;
      // As old as can be, or any that is not the newest.
      return random_.one_in(2) ? options - 1 : 1 + random_.below(options - 1);
    }
    if (stale_left_ == 0) return 0;
    const uint32_t taken = path_->pick(options);
    if (taken != 0) --stale_left_;
    return taken;
  }

  // Ends the execution as failed, from inside of a model thread. Does not return, so nothing on the
  // way here may own memory.
  [[noreturn]] void abandon(const char *why) {
    note_failure(why);
    unwinding_ = true;
    for (auto &thread : threads_) thread->done = true;
    switch_to(kNobody);
    std::abort();  // Nobody switches to a thread that is done.
  }

  // Tells one scheduler from another for the life of the process.
  uint64_t serial() const { return serial_; }
  uint32_t threads() const { return static_cast<uint32_t>(threads_.size()); }
  bool spurious() { return path_ == nullptr && random_.one_in(16); }
  uint32_t running() const { return running_; }
  uint64_t steps(uint32_t thread) const { return threads_[thread]->steps; }

  std::string trace() const {
    std::string text;
    const size_t first = trace_.size() > kTraceTail ? trace_.size() - kTraceTail : 0;
    for (size_t i = first; i < trace_.size(); ++i) {
      char line[128];
      std::snprintf(line, sizeof line, "  %zu: thread %u %s %p 0x%llx\n", i, trace_[i].thread,
                    trace_[i].operation, trace_[i].address,
                    static_cast<unsigned long long>(trace_[i].value));
      text += line;
    }
    return text;
  }

 private:
  static constexpr uint32_t kNobody = UINT32_MAX;
  static constexpr size_t kStack = 128 * 1024;
  static constexpr size_t kTraceTail = 200;

  struct Thread {
    std::function<void()> body;
    std::unique_ptr<char[]> stack;
    ucontext_t context{};
    void *fiber = nullptr;
    uint64_t steps = 0, stop_after = UINT64_MAX;
    bool done = false;
  };
  struct Step {
    uint32_t thread;
    const char *operation;
    const void *address;
    uint64_t value;
  };

  // Stacks are kept from one seed to the next: mapping them anew costs more than most executions.
  static std::vector<std::unique_ptr<char[]>> &stacks() {
    static thread_local std::vector<std::unique_ptr<char[]>> stacks;
    return stacks;
  }
  static std::unique_ptr<char[]> take_stack() {
    if (stacks().empty()) return std::make_unique<char[]>(kStack);
    std::unique_ptr<char[]> stack = std::move(stacks().back());
    stacks().pop_back();
    return stack;
  }

  void note_failure(const char *why) {
    if (!failure_) failure_ = std::make_exception_ptr(std::runtime_error(why));
  }

  static uint64_t next_serial() {
    static std::atomic<uint64_t> serials{0};
    // relaxed: a number, and nothing else.
    return serials.fetch_add(1, std::memory_order_relaxed) + 1;
  }

  // Who goes on, after `now` was about to do an atomic or has finished; kNobody: the end.
  uint32_t choose(uint32_t now) {
    uint32_t others[64], n = 0;
    const bool stays = now != kNobody && !threads_[now]->done;
    for (uint32_t i = 0; i < threads_.size(); ++i) {
      if (i != now && !threads_[i]->done) others[n++] = i;
    }
    if (n == 0) return stays ? now : kNobody;
    if (path_ != nullptr) {
      if (!stays) return others[path_->pick(n)];
      if (left_ == 0) return now;
      const uint32_t taken = path_->pick(n + 1);
      if (taken == 0) return now;
      --left_;
      return others[taken - 1];
    }
    if (stays && !random_.one_in(one_in_)) return now;
    return others[random_.below(n)];
  }

  static void entry() {
    Scheduler &s = *current();
    s.arrive();
    try {
      s.threads_[s.running_]->body();
    } catch (...) {
      if (!s.failure_) s.failure_ = std::current_exception();
      s.unwinding_ = true;
    }
    s.threads_[s.running_]->done = true;
    // After a failure nobody else goes on: what they would do means nothing any more.
    s.switch_to(s.failure_ ? kNobody : s.choose(s.running_));
    std::abort();  // Nobody switches to a thread that is done.
  }

  void create(Thread &thread) {
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, entry, 0);
#if defined(__SANITIZE_THREAD__)
    thread.fiber = __tsan_create_fiber(0);
#endif
  }
  static void destroy([[maybe_unused]] Thread &thread) {
#if defined(__SANITIZE_THREAD__)
    if (thread.fiber != nullptr) __tsan_destroy_fiber(thread.fiber);
#endif
  }

  // To a thread, or back into run() for kNobody.
  void switch_to(uint32_t next) {
    ucontext_t *from = running_ == kNobody ? &main_ : &threads_[running_]->context;
    ucontext_t *to = next == kNobody ? &main_ : &threads_[next]->context;
    if (from == to) return;
#if defined(__SANITIZE_THREAD__)
    if (running_ == kNobody) main_fiber_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(next == kNobody ? main_fiber_ : threads_[next]->fiber, 0);
#endif
#if defined(__SANITIZE_ADDRESS__)
    void *fake = nullptr;
    const void *bottom = next == kNobody ? main_stack_ : threads_[next]->stack.get();
    __sanitizer_start_switch_fiber(&fake, bottom, next == kNobody ? main_size_ : kStack);
    came_from_main_ = running_ == kNobody;
#endif
    running_ = next;
    swapcontext(from, to);
#if defined(__SANITIZE_ADDRESS__)
    arrive(fake);
#endif
  }

  // The other half of a switch, on the stack that was switched to.
  void arrive([[maybe_unused]] void *fake = nullptr) {
#if defined(__SANITIZE_ADDRESS__)
    const void *bottom = nullptr;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(fake, &bottom, &size);
    if (came_from_main_) {
      main_stack_ = bottom;
      main_size_ = size;
      came_from_main_ = false;
    }
#endif
  }

  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<Step> trace_;
  ucontext_t main_{};
  uint32_t running_ = kNobody;
  uint64_t serial_;
  Random random_;
  uint32_t one_in_ = 1, stale_one_in_ = 0;
  Path *path_ = nullptr;
  uint32_t left_ = 0, stale_left_ = 0;
  bool unwinding_ = false;
  std::exception_ptr failure_;
#if defined(__SANITIZE_THREAD__)
  void *main_fiber_ = nullptr;
#endif
#if defined(__SANITIZE_ADDRESS__)
  const void *main_stack_ = nullptr;
  size_t main_size_ = 0;
  bool came_from_main_ = false;
#endif
};

// A word of the model: a value, and a yield before each operation. Outside of run() it is plain.
template <class T>
class Atomic {
 public:
  Atomic() = default;
  explicit Atomic(T value) : value_(value) {}
  Atomic(const Atomic &) = delete;
  Atomic &operator=(const Atomic &) = delete;

  T load(std::memory_order = std::memory_order_seq_cst) const {
    step("load", 0);
    return value_;
  }
  void store(T value, std::memory_order = std::memory_order_seq_cst) {
    step("store", value);
    value_ = value;
  }
  T exchange(T value, std::memory_order = std::memory_order_seq_cst) {
    return change("exchange", value, value);
  }
  T fetch_add(T by, std::memory_order = std::memory_order_seq_cst) {
    step("add", by);
    return std::exchange(value_, static_cast<T>(value_ + by));
  }
  T fetch_sub(T by, std::memory_order = std::memory_order_seq_cst) {
    step("sub", by);
    return std::exchange(value_, static_cast<T>(value_ - by));
  }
  T fetch_and(T by, std::memory_order = std::memory_order_seq_cst) {
    step("and", by);
    return std::exchange(value_, static_cast<T>(value_ & by));
  }
  T fetch_or(T by, std::memory_order = std::memory_order_seq_cst) {
    step("or", by);
    return std::exchange(value_, static_cast<T>(value_ | by));
  }
  bool compare_exchange_strong(T &expected, T desired,
                               std::memory_order = std::memory_order_seq_cst) {
    step("cas", desired);
    if (value_ != expected) {
      expected = value_;
      return false;
    }
    value_ = desired;
    return true;
  }
  bool compare_exchange_strong(T &expected, T desired, std::memory_order, std::memory_order) {
    return compare_exchange_strong(expected, desired);
  }
  bool compare_exchange_weak(T &expected, T desired,
                             std::memory_order = std::memory_order_seq_cst) {
    Scheduler *scheduler = Scheduler::current();
    if (scheduler != nullptr && scheduler->spurious()) {
      step("cas fails", desired);
      expected = value_;
      return false;
    }
    return compare_exchange_strong(expected, desired);
  }
  bool compare_exchange_weak(T &expected, T desired, std::memory_order, std::memory_order) {
    return compare_exchange_weak(expected, desired);
  }

 private:
  T change(const char *operation, T shown, T value) {
    step(operation, shown);
    return std::exchange(value_, value);
  }
  void step(const char *operation, T value) const {
    Scheduler *scheduler = Scheduler::current();
    if (scheduler != nullptr) scheduler->yield(operation, this, static_cast<uint64_t>(value));
  }

  T value_;
};

struct ModelAtomics {
  template <class T>
  using atomic = Atomic<T>;
  template <class T>
  using plain = T;
  static uint32_t thread_index() {
    return Scheduler::current() == nullptr ? 0 : Scheduler::current()->running();
  }
};

// Runs every execution within the bounds, or the first `most` of them; returns their number.
template <class Case>
uint64_t explore(Bounds bounds, const Case &one_case, uint64_t most = UINT64_MAX) {
  Path path;
  uint64_t executions = 0;
#if defined(QUIRE_MODEL_SANITIZED)
  if (bounds.preemptions > 1) {
    --bounds.preemptions;
    std::printf("sanitizer build: executions with at most %u preemptions, one less\n",
                bounds.preemptions);
  }
#endif
  do {
    ++executions;
    try {
      Scheduler scheduler(&path, bounds);
      one_case(scheduler);
    } catch (const std::exception &e) {
      throw std::runtime_error("execution " + std::to_string(executions) + ": " + e.what() + "\n" +
                               Scheduler::last_trace());
    }
  } while (executions < most && path.advance());
  return executions;
}
template <class Case>
uint64_t explore(uint32_t preemptions, const Case &one_case) {
  return explore(Bounds{preemptions, 0}, one_case);
}

struct Stops {
  uint64_t executions = 0;
  uint64_t places = 0;   // at which a thread was stopped
  uint64_t longest = 0;  // steps that the other one took to its end
};

// one_case(scheduler, go) sets up, spawns, calls go(stopped, other) once, which runs all, and judges
// what must hold although the first never went on. Adds to *stops.
template <class Case>
void stop_everywhere(Bounds bounds, Stops *stops, const Case &one_case) {
  bool stopped_early = true;
  for (uint64_t n = 0; stopped_early; ++n) {
    stopped_early = false;
    stops->executions += explore(bounds, [&](Scheduler &s) {
      one_case(s, [&](uint32_t stopped, uint32_t other) {
        s.stop(stopped, n);
        s.run();
        stopped_early |= s.steps(stopped) > n;
        stops->longest = std::max<uint64_t>(stops->longest, s.steps(other));
      });
    });
    stops->places += stopped_early ? 1U : 0U;
  }
}
inline void print(const Stops &stops) {
  std::printf("%llu executions, stopped at %llu places; the other one took at most %llu steps\n",
              static_cast<unsigned long long>(stops.executions),
              static_cast<unsigned long long>(stops.places),
              static_cast<unsigned long long>(stops.longest));
}

// Runs body(seed) for so many seeds, and returns how many; the first that throws is named, with its
// trace.
template <class Body>
uint64_t for_each_seed(uint64_t count, const Body &body) {
  uint64_t first = 1;
  if (const char *n = std::getenv("QUIRE_SEEDS")) count = std::strtoull(n, nullptr, 10);
#if defined(QUIRE_MODEL_SANITIZED)
  count = count / 10 + 1;
  std::printf("sanitizer build: %llu seeds, a tenth\n", static_cast<unsigned long long>(count));
#endif
  if (const char *one = std::getenv("QUIRE_SEED")) {
    first = std::strtoull(one, nullptr, 10);
    count = 1;
  }
  for (uint64_t seed = first; seed < first + count; ++seed) {
    try {
      body(seed);
    } catch (const std::exception &e) {
      throw std::runtime_error("seed " + std::to_string(seed) +
                               " (run alone with QUIRE_SEED=" + std::to_string(seed) +
                               "): " + e.what() + "\n" + Scheduler::last_trace());
    }
  }
  return count;
}

// For judgements in model threads, where a failure must end the execution.
inline void require(bool holds, const char *what) {
  if (!holds) throw std::runtime_error(what);
}

}  // namespace quire::model

#endif  // QUIRE_TESTS_SUPPORT_SCHEDULER_H_
