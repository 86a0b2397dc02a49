// AdversaryDevice: a Device without threads that does all that its contract allows.
//
// Work runs only when the test pumps it, in an order drawn from a seed: in order within a stream,
// in any order between streams. On demand, events are reported late, or never until told; queries
// say "not yet" although the work is done; streams stall; and the n-th call of a kind fails. The
// same seed and the same calls give the same history.
//
// Invariants (validate())
//   entries queued == position - completed, for every stream
//   an event reports kOk only when its stream's completed has reached its position
//
// Any thread may call; tasks run in the thread that pumps, outside the lock. It keeps account of
// what a library owes it: living events, and calls with handles that are not (or no longer) alive.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <vector>

#include "allocators/host_memory.h"
#include "runtime/device.h"

namespace quire::test {

class AdversaryDevice final : public Device {
 public:
  enum class Call : uint8_t {
    kReserve,
    kCommit,
    kDecommit,
    kCapturing,
    kCreateEvent,
    kRecord,
    kQuery,
    kStreamWait,
    kCopy,
    kZero,
    kLaunch,
    kCount
  };

  explicit AdversaryDevice(uint64_t seed) : random_(seed), seed_(seed) {}

  // Streams, as an engine makes them.
  Stream add_stream();
  void remove_stream(Stream stream);  // what is queued is dropped; its events count as done
  void set_capturing(Stream stream, bool capturing);

  // The scheduler. step() runs one entry of a stream drawn among those that can go on.
  bool step();
  size_t pump(size_t most = SIZE_MAX);
  void stall(Stream stream, bool stalled);
  size_t pending() const;  // entries queued, all streams
  uint64_t position(Stream stream) const;
  uint64_t completed(Stream stream) const;

  // An event whose work is done stays "not yet" for a number of queries drawn in [0, most].
  void delay_events(unsigned most);
  // Chance that a query says "not yet" for no reason, in 256ths.
  void set_spurious(unsigned in_256);
  // While held, no event is reported as done; held events are reported once it is let go.
  void hold_events(bool held);

  // The nth call of a kind from now (1: the next) fails; so do the `count - 1` after it.
  void fail(Call call, uint64_t nth, Status status, uint64_t count = 1);
  void fail_nothing();
  // From now on every call that admits failures fails, and nothing runs any more.
  void lose();
  uint64_t calls(Call call) const;

  size_t living_events() const;
  // Calls with a handle of an event or stream that was not living; 0 for a library in order.
  uint64_t misuses() const;
  uint64_t seed() const { return seed_; }
  bool validate() const;

  const char *name() const noexcept override { return "adversary"; }
  bool lost() const noexcept override;
  size_t granularity() const noexcept override { return memory_.granularity(); }
  Result<void *> reserve(size_t bytes, size_t alignment) noexcept override;
  Status commit(void *base, size_t offset, size_t bytes) noexcept override;
  Status decommit(void *base, size_t offset, size_t bytes) noexcept override;
  void release(void *base, size_t bytes) noexcept override { memory_.release(base, bytes); }
  bool host_visible() const noexcept override { return true; }
  Status validate_stream(Stream stream) noexcept override;
  Status is_capturing(Stream stream, bool *capturing) noexcept override;
  // Pumps. kDevice where that cannot succeed: the stream, or one that it waits for, is stalled.
  Status wait_stream(Stream stream) noexcept override;
  Status create_event(Event *event) noexcept override;
  void destroy_event(Event event) noexcept override;
  Status record(Event event, Stream stream) noexcept override;
  Status query(Event event) noexcept override;
  Status stream_wait_event(Stream stream, Event event) noexcept override;
  Status copy(void *to, const void *from, size_t bytes, Stream stream) noexcept override;
  Status zero(void *to, size_t bytes, Stream stream) noexcept override;
  Status launch(Stream stream, const Task &task) noexcept override;

 private:
  struct Entry {
    Task task;  // empty: a wait
    uint64_t other = 0;
    uint64_t position = 0;
  };
  struct Queue {
    std::deque<Entry> entries;
    uint64_t position = 0;
    uint64_t completed = 0;
    bool stalled = false;
    bool capturing = false;
    bool running = false;  // its first entry is in a pumping thread's hands
  };
  struct Mark {
    uint64_t queue = 0;  // 0: never recorded
    uint64_t position = 0;
    unsigned delay = 0;
  };
  struct Failure {
    uint64_t from = 0;  // calls of the kind, counted from the first; 0: none
    uint64_t to = 0;
    Status status = Status::kOk;
  };

  // All with mutex_ held.
  Status admit(Call call);
  Queue *queue_of(Stream stream);
  bool passed(uint64_t queue, uint64_t position) const;
  Status enqueue(Stream stream, const Entry &entry);
  Status run_or_enqueue(Call call, Stream stream, const Task &task);

  mutable std::mutex mutex_;
  HostMemory memory_;
  std::mt19937_64 random_;
  uint64_t seed_;
  std::map<uint64_t, Queue> queues_;
  std::map<Event, Mark> events_;
  uint64_t next_queue_ = 1;
  Event next_event_ = 1;
  uint64_t misuses_ = 0;
  unsigned longest_delay_ = 0;
  unsigned spurious_ = 0;
  bool held_ = false;
  bool lost_ = false;
  std::array<uint64_t, static_cast<size_t>(Call::kCount)> calls_{};
  std::array<Failure, static_cast<size_t>(Call::kCount)> failures_{};
};

}  // namespace quire::test
