// Cache misses of this process: a counter of the processor's, through perf_event_open.
//
// Counted are misses of the last level, in user space, of the thread that makes the counter and of
// all threads that are started later (their counts come in when they end, so read() after a join
// has them all). Many machines give no such counter: guests often have none (ENOENT), and a strict
// perf_event_paranoid refuses (EACCES). Then available() is false and why_not() is a sentence for
// the report; nothing else changes.
//
// Where counters are fewer than users the kernel takes turns: what it read is scaled by the time
// enabled over the time counted, as perf does (perf_event_open(2)).
// Thread class: a plain object, of the thread that made it.
#ifndef QUIRE_BENCH_CACHE_MISSES_H
#define QUIRE_BENCH_CACHE_MISSES_H

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

namespace quire::bench {

class CacheMisses {
 public:
  // Opens a counter: a descriptor, or -1 with errno. Tests bring their own.
  using Open = int (*)(const perf_event_attr &attributes);

  explicit CacheMisses(Open open = of_kernel) {
    perf_event_attr attributes{};
    attributes.size = sizeof attributes;
    attributes.type = PERF_TYPE_HARDWARE;
    attributes.config = PERF_COUNT_HW_CACHE_MISSES;
    attributes.exclude_kernel = 1;
    attributes.exclude_hv = 1;
    attributes.inherit = 1;
    attributes.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
    descriptor_ = open(attributes);
    if (descriptor_ < 0) {
      why_not_ = std::string("perf_event_open: ") + std::strerror(errno);
      return;
    }
    double first = 0;
    if (!read(&first)) close_counter("the counter gives nothing");
  }
  CacheMisses(const CacheMisses &) = delete;
  CacheMisses &operator=(const CacheMisses &) = delete;
  ~CacheMisses() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  bool available() const { return descriptor_ >= 0; }
  const std::string &why_not() const { return why_not_; }

  // Misses since the counter was made. False: there is no figure.
  bool read(double *misses) const {
    Reading reading{};
    if (descriptor_ < 0 || ::read(descriptor_, &reading, sizeof reading) != sizeof reading)
      return false;
    return scaled(reading.value, reading.enabled, reading.running, misses);
  }

  // False where the counter never ran.
  static bool scaled(uint64_t value, uint64_t enabled, uint64_t running, double *misses) {
    if (running == 0) return value == 0 && enabled == 0 && (*misses = 0, true);
    *misses = static_cast<double>(value) *
              (running < enabled ? static_cast<double>(enabled) / static_cast<double>(running) : 1);
    return true;
  }

 private:
  struct Reading {
    uint64_t value, enabled, running;
  };

  static int of_kernel(const perf_event_attr &attributes) {
    return static_cast<int>(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0UL));
  }
  void close_counter(const char *why) {
    ::close(descriptor_);
    descriptor_ = -1;
    why_not_ = why;
  }

  int descriptor_ = -1;
  std::string why_not_;
};

}  // namespace quire::bench

#endif  // QUIRE_BENCH_CACHE_MISSES_H
