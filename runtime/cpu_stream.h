// CpuStream: an in-order queue of CPU work with a thread of its own.
//
// Streams are process-global, as CUDA's are: an engine creates them, gives them work, and names
// them in calls on any number of caches. The handle is a number that is never used twice, not an
// address, so a handle that is stale, foreign or made up is recognised (kInvalid) instead of being
// followed.
//
//   handle    0xC5 in the top byte (no user-space address has it) | a 56-bit serial number
//   position  how many entries were ever queued; one is done when completed() >= its position
//
// Invariants
//   completed() <= position(); both only grow; entries complete in the order of their positions.
//   completed() == position() once destroy() has returned, and ever after.
//   An entry that waits for another stream waits for a position that was queued earlier in time, so
//   waits form no cycle and a stream always drains, as long as the tasks themselves return.
//
// An event is then no object in the queue but a pair (stream, position): recording costs one lock
// and no entry, asking costs one load, and a stream can be destroyed under its events, which count
// as done.
//
// The thread starts with the first entry and is joined by destroy(). It blocks all signals: the
// host's handlers run on the host's threads. A task may use oneTBB: with a width of 0 it sees
// oneTBB's default concurrency, with a width of n it runs inside a task arena of n threads (at
// most as many as there are CPUs).
//
// In a forked child no stream thread exists, so every call here answers kInvalid there. The
// registry is never destroyed: at process exit stream threads may still be running, and they end
// with the process.
//
// Any thread. Cost: a launch is a lock, a copy of the task (256 B) and, if the thread sleeps, a
// futex wake; queue entries are recycled, so a stream in its steady state allocates nothing.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "runtime/device.h"

namespace quire {

class CpuStream {
 public:
  // The registry: what the C boundary and CpuDevice call.
  static Status create(unsigned width, Stream *handle) noexcept;
  // Runs what is queued, joins the thread, forgets the handle. kBusy from the stream's own thread.
  static Status destroy(Stream handle) noexcept;
  // Blocks until everything queued before the call has run. kBusy from the stream's own thread.
  static Status wait(Stream handle) noexcept;
  // kOk: everything queued before the call has run. kAgain: not yet.
  static Status query(Stream handle) noexcept;
  static Status launch(Stream handle, void (*function)(void *), void *argument) noexcept;
  // The living stream of a handle; null, with an error text, if there is none.
  static std::shared_ptr<CpuStream> find(Stream handle) noexcept;
  static size_t living() noexcept;

  explicit CpuStream(unsigned width);
  ~CpuStream();
  CpuStream(const CpuStream &) = delete;
  CpuStream &operator=(const CpuStream &) = delete;

  Status push(const Task &task) noexcept;
  // Later entries start after `other` has passed `position`.
  Status push_wait(std::shared_ptr<CpuStream> other, uint64_t position) noexcept;

  uint64_t position() const noexcept;
  // acquire: pairs with the release in drain(), so that a passed task's writes are visible.
  uint64_t completed() const noexcept { return completed_.load(std::memory_order_acquire); }
  bool passed(uint64_t position) const noexcept { return completed() >= position; }
  void wait_until_passed(uint64_t position) noexcept;
  bool on_own_thread() const noexcept;

  bool validate() const noexcept;

 private:
  struct Entry;
  struct Width;  // the oneTBB arena of a stream with a width

  Status push_entry(const Task *task, std::shared_ptr<CpuStream> *other,
                    uint64_t wait_position) noexcept;
  Status start_thread() noexcept;  // mutex_ held
  void close() noexcept;
  void drain() noexcept;  // the thread
  void run(Entry &entry) noexcept;

  mutable std::mutex mutex_;
  std::condition_variable work_;      // the thread sleeps on it: an entry came, or closing_
  std::condition_variable progress_;  // waiters sleep on it: completed_ moved
  Entry *head_ = nullptr;             // queued entries, oldest first
  Entry *tail_ = nullptr;
  Entry *spare_ = nullptr;  // entries to reuse
  uint64_t position_ = 0;
  std::atomic<uint64_t> completed_{0};  // written under mutex_, read anywhere
  unsigned waiters_ = 0;
  bool sleeping_ = false;
  bool closing_ = false;
  std::thread thread_;
  std::unique_ptr<Width> width_;
};

}  // namespace quire
