// Arena: the frames of one class, in one address range that never moves.
//
//   frame(i) == base + i * stride, for every i < capacity, from open() until close()
//   frames == min(capacity, committed_bytes / stride): those that may be touched are [0, frames)
//   committed_bytes % slab_bytes == 0, or committed_bytes == reserved_bytes
//   stride % alignment == 0, stride >= frame_bytes, slab_bytes % granularity == 0
//
// Addresses for all the frames that the class can ever have are reserved at open; memory is
// committed behind them in slabs, from the front, as the tier's budget grows, and given back from
// the end. So a kernel takes base and stride once and keeps them through every resize, and a
// captured graph stays valid.
//
// The arena knows nothing of who uses which frame: that is the frame pool's. Before shrink() the
// caller has taken the frames that go out of the pool, and every reader has passed.
//
// poison() and unpoison() tell AddressSanitizer which frames are out of service, where the host can
// see them; in other builds they do nothing. So a kernel that touches a freed frame is caught.
//
// frame() and the getters: any thread. open, grow, shrink, close, poison: one thread at a time.
// Cost: grow and shrink are one system call or two; frame() is a multiply and an add.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "allocators/memory.h"

namespace quire {

struct ArenaOptions {
  size_t frame_bytes = 0;
  uint32_t capacity = 0;   // frames that the class can grow to
  size_t alignment = 256;  // of every frame: a power of two
  size_t slab_bytes = 0;   // rounded up to the granularity; 0: kDefaultSlabBytes
};

class Arena {
 public:
  // Large enough that a system call does not show beside touching the slab's pages, small enough
  // that rounding a budget up to it does not either.
  static constexpr size_t kDefaultSlabBytes = size_t{16} << 20;

  Arena() noexcept = default;
  ~Arena() { close(); }
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;

  // Reserves; commits nothing. `source` outlives the arena. kBusy if it is open.
  Status open(MemorySource &source, const ArenaOptions &options) noexcept;
  void close() noexcept;

  // Commits until at least `frames` frames can be touched, or does nothing and says why.
  Status grow(uint32_t frames) noexcept;
  // Gives back the slabs that hold no frame below `frames`.
  Status shrink(uint32_t frames) noexcept;

  void *frame(uint32_t index) const noexcept { return base_ + size_t{index} * stride_; }

  void *base() const noexcept { return base_; }
  size_t stride() const noexcept { return stride_; }
  uint32_t capacity() const noexcept { return capacity_; }
  // acquire: pairs with the release in grow(), so that who sees the frames may touch them.
  uint32_t frames() const noexcept { return frames_.load(std::memory_order_acquire); }
  size_t committed_bytes() const noexcept { return committed_.load(std::memory_order_relaxed); }
  size_t reserved_bytes() const noexcept { return reserved_; }
  size_t slab_bytes() const noexcept { return slab_; }

  void poison(uint32_t index) noexcept;
  void unpoison(uint32_t index) noexcept;

  bool validate() const noexcept;

 private:
  size_t bytes_for(uint32_t frames) const noexcept;
  void set_committed(size_t bytes) noexcept;

  MemorySource *source_ = nullptr;
  char *base_ = nullptr;
  size_t frame_bytes_ = 0;
  size_t stride_ = 0;
  size_t slab_ = 0;
  size_t reserved_ = 0;
  uint32_t capacity_ = 0;
  bool host_visible_ = false;
  std::atomic<size_t> committed_{0};  // relaxed: others read it for stats only
  std::atomic<uint32_t> frames_{0};
};

}  // namespace quire
