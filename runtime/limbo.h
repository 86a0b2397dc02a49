// Limbo: frames of one class that left service while some stream may still read them.
//
// A frame retires with r, the epoch of the last release of the page that held it. Once every stream
// has passed r (runtime/stream_table.h) it is free; until then it is here.
//
//   stack[256]    a wheel: frames with r % 256 == i hang on stack i, linked through next[frame]
//   epoch[frame]  the low half of its r
//   far, far_r    a stack of frames whose r the low half cannot tell, and the highest of these
//   passed        the highest epoch that all streams are known to have passed; never falls
//   drained       stacks of epochs up to here were emptied since `passed` reached them
//   count         frames in here, or on their way in or out
//
//   step                        atomic                   order    partner
//   push: announce              add count                acquire  drain's look at count
//   push: link                  CAS stack                acq_rel  drain's exchange of that stack
//   push: look again            load passed              acquire  drain's raise of passed
//   drain: raise                CAS passed               acq_rel  push's second look
//   drain: take a whole stack   exchange stack, empty    acq_rel  push's link
//   take (same stream)          as drain and push
//
// ABA: a stack is pushed to by compare-and-swap and emptied by exchange, never popped one by one.
// If a push finds the same head again after others came and went, that head is the top of the stack
// again, and linking to it is right.
//
// Nothing is stranded. A push of r and the drain that covers r both are read-modify-writes of one
// stack. If the push is first, the drain takes the frame. If the drain's exchange is first, the
// push has read it, so its second look sees the raised `passed`, and it empties the stack itself. A
// drain that finds frames of another turn of the wheel (same r % 256, not passed) pushes them back
// by the same rule. A drain that finds count = 0 leaves at once; a push that adds to count later
// has read that.
//
// Half an epoch is enough: r lies between drained - 2^30 and drained + 2^31. Not far below, since
// what is pushed that late is swept by its own push; not above, but behind a reader that has stood
// still for 2^31 epochs, 24 days of the fastest timer. A frame that retires later than that hangs on
// `far` until every epoch there has passed: late, never early.
//
// Conservation, at rest (validate()):
//   sum of lengths of stacks = count;  every frame on at most one;  r % 256 is its stack's number
//   free + used + limbo = capacity, for the owner of the pool
//
// Frames go to a callable `free(const uint32_t *frames, size_t n)`: the cache zeroes those that
// must be zeroed, then gives them to its pool.
//
// Progress: lock free. A thread stopped inside keeps the frames of the one stack that it took.
// Cost: retire of a passed epoch: one compare. Else one add, one CAS; 8 bytes a frame.
// Thread class: any thread, any time. format: before sharing.
#ifndef QUIRE_RUNTIME_LIMBO_H_
#define QUIRE_RUNTIME_LIMBO_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "allocators/atomics.h"
#include "runtime/epoch_clock.h"

namespace quire {

template <class A = StdAtomics>
class Limbo {
  template <class T>
  using atomic = typename A::template atomic<T>;

  static constexpr uint32_t kWheel = 256;
  static constexpr uint32_t kFar = kWheel;  // the stack behind the wheel's
  static constexpr uint64_t kBehind = uint64_t{1} << 30;
  static constexpr uint64_t kAhead = uint64_t{1} << 31;

  struct Header {
    alignas(kCacheLine) atomic<uint64_t> passed;
    atomic<uint64_t> drained;
    atomic<uint64_t> far_r;
    alignas(kCacheLine) atomic<uint32_t> count;
    alignas(kCacheLine) atomic<uint32_t> stack[kWheel + 1];
  };

 public:
  static constexpr size_t kAlignment = kCacheLine;

  static size_t bytes(uint32_t capacity) noexcept {
    return sizeof(Header) + 2 * align_up(size_t{capacity} * sizeof(atomic<uint32_t>), kCacheLine);
  }

  Limbo() = default;
  // A view: `memory` holds bytes(capacity) bytes at a multiple of kAlignment.
  Limbo(void *memory, uint32_t capacity) noexcept : capacity_(capacity) {
    auto *at = static_cast<std::byte *>(memory);
    header_ = reinterpret_cast<Header *>(at);
    epoch_ = reinterpret_cast<atomic<uint32_t> *>(at += sizeof(Header));
    next_ = reinterpret_cast<atomic<uint32_t> *>(
        at + align_up(size_t{capacity} * sizeof(atomic<uint32_t>), kCacheLine));
  }

  void format() noexcept {
    new (header_) Header;
    header_->passed.store(0, kRelaxed);
    header_->drained.store(0, kRelaxed);
    header_->far_r.store(0, kRelaxed);
    header_->count.store(0, kRelaxed);
    for (auto &stack : header_->stack) stack.store(kNone, kRelaxed);
    for (uint32_t i = 0; i < capacity_; ++i) {
      (new (&epoch_[i]) atomic<uint32_t>)->store(0, kRelaxed);
      (new (&next_[i]) atomic<uint32_t>)->store(kNone, kRelaxed);
    }
  }

  uint32_t capacity() const noexcept { return capacity_; }
  // relaxed: a figure that is old by the time it is used.
  uint32_t count() const noexcept { return header_->count.load(kRelaxed); }
  uint64_t passed() const noexcept { return header_->passed.load(kAcquire); }

  // The frame's last use was at or before epoch r, and it is the caller's. `passed` is a fresh
  // min_passed(). Returns true if it is free already; else it waits here, and the streams must be
  // told (StreamTable::want(r)).
  template <class Free>
  bool retire(uint32_t frame, uint64_t r, uint64_t passed, Free &&free) noexcept {
    if (r <= passed) {
      free(static_cast<const uint32_t *>(&frame), size_t{1});
      return true;
    }
    push(frame, r, free);
    return false;
  }

  // The same, for what has not passed, as far as the caller knows.
  template <class Free>
  void push(uint32_t frame, uint64_t r, Free &&free) noexcept {
    // acquire: pairs with drain's add: whoever was not counted there sees the raise before it.
    header_->count.fetch_add(1, kAcquire);
    const uint32_t stack = link(frame, r);
    // What a drain learned while we linked; see "Nothing is stranded".
    if (r <= header_->passed.load(kAcquire)) sweep(stack, free);
  }

  // Frees every frame whose epoch is at or before `passed`, a fresh min_passed(). Returns how many.
  template <class Free>
  uint32_t drain(uint64_t passed, Free &&free) noexcept {
    raise_to(header_->passed, passed, kAcqRel);
    // An add, not a load: a push that is not seen here has seen the raise.
    if (header_->count.fetch_add(0, kRelease) == 0) return 0;
    passed = header_->passed.load(kAcquire);
    uint64_t from = header_->drained.load(kAcquire);
    if (from >= passed) return 0;
    if (passed - from > kWheel) from = passed - kWheel;
    uint32_t freed = 0;
    // relaxed: the exchange in the sweep decides.
    if (header_->stack[kFar].load(kRelaxed) != kNone) freed += sweep(kFar, free);
    for (uint64_t e = from; e < passed; ++e) {
      freed += sweep(static_cast<uint32_t>((e + 1) % kWheel), free);
    }
    // acq_rel: pairs with the acquire above: whoever skips these stacks comes after our sweeps.
    raise_to(header_->drained, passed, kAcqRel);
    return freed;
  }

  // Up to n frames that only one stream may still read, for that stream's next work: `threshold` is
  // min_passed_except() of it. Returns how many; they are the caller's.
  template <class Out, class Free>
  uint32_t take(uint32_t n, uint64_t threshold, Out *out, Free &&free) noexcept {
    if (n == 0 || count() == 0) return 0;
    const uint64_t from = header_->passed.load(kAcquire);
    if (threshold <= from) return 0;
    const uint64_t turns = threshold - from < kWheel ? threshold - from : kWheel;
    uint32_t got = 0;
    for (uint64_t i = 1; i <= turns && got < n; ++i) {
      const auto stack = static_cast<uint32_t>((from + i) % kWheel);
      uint64_t least_back = UINT64_MAX;
      for (uint32_t frame = take_all(stack); frame != kNone;) {
        const uint32_t next = next_[frame].load(kRelaxed);
        const uint64_t r = epoch_of(frame, stack);
        if (got < n && r <= threshold) {
          out[got++] = frame;
        } else {
          link_on(frame, stack);
          if (r < least_back) least_back = r;
        }
        frame = next;
      }
      // As after a push: a drain may have found the stack empty while we held it.
      if (least_back <= header_->passed.load(kAcquire)) sweep(stack, free);
    }
    // relaxed: a read-modify-write, so it carries on what a drain released on the word.
    if (got != 0) header_->count.fetch_sub(got, kRelaxed);
    return got;
  }

  // At rest. False also where memory for it is short.
  bool validate() const {
    std::unique_ptr<bool[]> seen(new (std::nothrow) bool[capacity_]());
    if (!seen) return false;
    uint32_t total = 0;
    for (uint32_t i = 0; i <= kWheel; ++i) {
      for (uint32_t frame = header_->stack[i].load(kAcquire); frame != kNone;
           frame = next_[frame].load(kRelaxed)) {
        if (frame >= capacity_ || seen[frame]) return false;
        seen[frame] = true;
        if (i != kFar && epoch_[frame].load(kRelaxed) % kWheel != i) return false;
        ++total;
      }
    }
    return total == header_->count.load(kAcquire);
  }

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;
  static constexpr std::memory_order kAcquire = std::memory_order_acquire;
  static constexpr std::memory_order kRelease = std::memory_order_release;
  static constexpr std::memory_order kAcqRel = std::memory_order_acq_rel;
  static constexpr size_t kBatch = 64;

  // Returns the stack that it is on.
  uint32_t link(uint32_t frame, uint64_t r) noexcept {
    const uint64_t drained = header_->drained.load(kRelaxed);
    const bool far = r > drained && r - drained >= kAhead;
    // Before the frame is there: whoever takes it has this epoch, or a later one.
    if (far) raise_to(header_->far_r, r, kAcqRel);
    const uint32_t at = far ? kFar : static_cast<uint32_t>(r % kWheel);
    epoch_[frame].store(static_cast<uint32_t>(r), kRelaxed);
    link_on(frame, at);
    return at;
  }

  void link_on(uint32_t frame, uint32_t at) noexcept {
    auto &stack = header_->stack[at];
    uint32_t head = stack.load(kRelaxed);
    do {
      next_[frame].store(head, kRelaxed);
      // acq_rel: release gives `epoch` and `next` to take_all(), acquire is the second look's.
    } while (!stack.compare_exchange_weak(head, frame, kAcqRel, kRelaxed));
  }

  // r of a frame that was taken off a stack; for one off `far`, the highest of all there.
  uint64_t epoch_of(uint32_t frame, uint32_t stack) const noexcept {
    if (stack == kFar) return header_->far_r.load(kAcquire);
    const uint64_t least = header_->drained.load(kAcquire) - kBehind;
    return least + (epoch_[frame].load(kRelaxed) - static_cast<uint32_t>(least));
  }

  uint32_t take_all(uint32_t stack) noexcept {
    // acq_rel: acquire pairs with link(); release shows a later push our raise of `passed`.
    return header_->stack[stack].exchange(kNone, kAcqRel);
  }

  // Frees what has passed on one stack, pushes the rest back.
  template <class Free>
  uint32_t sweep(uint32_t stack, Free &free) noexcept {
    uint32_t batch[kBatch];
    uint32_t freed = 0;
    for (uint64_t least_back = 0; least_back <= header_->passed.load(kAcquire);) {
      least_back = UINT64_MAX;
      size_t n = 0;
      uint32_t frame = take_all(stack);
      const uint64_t passed = header_->passed.load(kAcquire);
      while (frame != kNone) {
        const uint32_t next = next_[frame].load(kRelaxed);
        const uint64_t r = epoch_of(frame, stack);
        if (r > passed) {
          link_on(frame, stack);
          if (r < least_back) least_back = r;
        } else {
          batch[n++] = frame;
          if (n == kBatch) freed += give(batch, &n, free);
        }
        frame = next;
      }
      if (n != 0) freed += give(batch, &n, free);
    }
    return freed;
  }

  template <class Free>
  uint32_t give(const uint32_t *batch, size_t *n, Free &free) noexcept {
    const auto freed = static_cast<uint32_t>(*n);
    free(batch, *n);
    // After the frames are free: count never says less than what is in here. relaxed: as in take().
    header_->count.fetch_sub(freed, kRelaxed);
    *n = 0;
    return freed;
  }

  Header *header_ = nullptr;
  atomic<uint32_t> *epoch_ = nullptr;
  atomic<uint32_t> *next_ = nullptr;
  uint32_t capacity_ = 0;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_LIMBO_H_
