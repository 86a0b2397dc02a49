// Device: the machine that kernels run on: memory, streams, events, copies, kernels.
//
// Everything above this interface is the same for a GPU and for the CPU, and is tested without a
// GPU. `runtime/cpu_device.h` is the CPU's implementation, a product of its own; tests add
// `tests/support/adversary_device.h`, which delays, reorders and fails whatever the contract lets
// it.
//
// Contract, for every implementation
//   1. A stream is an in-order queue. Nothing is promised between streams but what events say.
//   2. record(e, s) marks the work that s has been given so far. query(e) speaks of e's latest
//      record: kOk (all of that work is done and its writes are visible to the caller), kAgain (not
//      yet), or an error. It may say kAgain when the work is done, never kOk before. An event that
//      was never recorded is done.
//      What is given to one stream, and records on it, are in one order, as if by a lock: the later
//      of two calls sees what was done before the earlier one. The epochs of reuse lean on it: a
//      thread that launches behind a record reads an epoch behind the one that it marks.
//   3. stream_wait_event(s, e): what s is given later starts after the work that e's latest record
//      at the time of this call had marked. A later record of e does not change that.
//   4. copy, zero and launch run in the caller, before they return, when the stream is nullptr;
//      otherwise they return at once and whatever they point to must stay valid until the stream
//      has run them.
//   5. A stream handle is the engine's. nullptr and CUDA's legacy (0x1) and per-thread (0x2)
//      handles name no definite queue, so validate_stream() refuses them, and a handle of another
//      device, or of a stream that is gone, where the device can tell; the CPU can always tell.
//   6. A call that fails has done nothing. kDevice: the device is in trouble; kNomem: something ran
//      out; kInvalid: the caller's mistake; kUnsupported: this device has no such thing.
//   7. Nothing throws. Only the calls whose names say `wait` block, except for a launch or copy on
//      nullptr (rule 4) and stream_wait_event, which makes the *stream* wait.
//
// Thread class: any thread, except that one event is recorded by one thread at a time (query may
// run beside it) and destroyed after its last use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "allocators/memory.h"
#include "runtime/status.h"

namespace quire {

// As the C API's quire_stream: a cudaStream_t, or the handle of a CPU stream. Never dereferenced.
using Stream = void *;

// Names an event of one device; 0 is none.
using Event = uint64_t;

// True for the handles that stand for "whichever stream": no device takes them for a queue.
inline bool is_ambiguous_stream(Stream stream) noexcept {
  return reinterpret_cast<uintptr_t>(stream) <= 2;
}

// A closure for CPU kernels that lives inside the queue's entry: no allocation, no destructor. What
// it captures must be trivially copyable (pointers and numbers, as with a GPU kernel's arguments)
// and at most kCapacity bytes.
class Task {
 public:
  static constexpr size_t kCapacity = 240;

  Task() noexcept = default;

  template <class F, class = std::enable_if_t<!std::is_same_v<std::decay_t<F>, Task>>>
  Task(F &&function) noexcept {
    using Closure = std::decay_t<F>;
    static_assert(sizeof(Closure) <= kCapacity, "capture a pointer to the arguments instead");
    static_assert(alignof(Closure) <= alignof(std::max_align_t));
    static_assert(std::is_trivially_copyable_v<Closure> &&
                  std::is_trivially_destructible_v<Closure>);
    ::new (static_cast<void *>(storage_)) Closure(static_cast<F &&>(function));
    run_ = [](void *closure) { (*std::launder(static_cast<Closure *>(closure)))(); };
  }

  explicit operator bool() const noexcept { return run_ != nullptr; }

  // The closure must not throw: an exception on a stream's thread has nowhere to go.
  void operator()() noexcept { run_(storage_); }

 private:
  alignas(std::max_align_t) unsigned char storage_[kCapacity] = {};
  void (*run_)(void *) = nullptr;
};

class Device : public MemorySource {
 public:
  virtual const char *name() const noexcept = 0;  // "cpu", "cuda"
  // Whether the device failed for good: every call that needs it answers kDevice, and nothing that it
  // was given runs any more, so nobody reads or writes its memory.
  virtual bool lost() const noexcept { return false; }

  // Streams. kInvalid unless the handle names one definite, living queue of this device.
  virtual Status validate_stream(Stream stream) noexcept = 0;
  // Whether the stream is recording a graph, so that what it is given now does not run now. The
  // epoch clock records no event on such a stream and counts it as not passed.
  virtual Status is_capturing(Stream stream, bool *capturing) noexcept = 0;
  // Blocks until the stream has run what it was given before the call.
  virtual Status wait_stream(Stream stream) noexcept = 0;

  // Events.
  virtual Status create_event(Event *event) noexcept = 0;
  virtual void destroy_event(
      Event event) noexcept = 0;  // 0 is allowed; a wait already queued still holds
  virtual Status record(Event event, Stream stream) noexcept = 0;
  virtual Status query(Event event) noexcept = 0;  // kOk done, kAgain not yet, else an error
  virtual Status stream_wait_event(Stream stream, Event event) noexcept = 0;

  // Work. The ranges of a copy do not overlap.
  virtual Status copy(void *to, const void *from, size_t bytes, Stream stream) noexcept = 0;
  virtual Status zero(void *to, size_t bytes, Stream stream) noexcept = 0;
  // A CPU kernel. kUnsupported on a GPU, whose kernels are launched by kernels/.
  virtual Status launch(Stream stream, const Task &task) noexcept = 0;
};

}  // namespace quire
