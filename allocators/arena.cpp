#include "allocators/arena.h"

#include <algorithm>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define QUIRE_ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QUIRE_ARENA_ASAN 1
#endif
#endif
#ifdef QUIRE_ARENA_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace quire {
namespace {

// False if the result does not fit. `unit` need not be a power of two.
bool round_up(size_t value, size_t unit, size_t *result) noexcept {
  const size_t rest = value % unit;
  return !__builtin_add_overflow(value, rest == 0 ? 0 : unit - rest, result);
}

// ASan remembers poison by address: a later mapping at the same place would inherit it.
void forget_poison(const void *start, size_t bytes) noexcept {
#ifdef QUIRE_ARENA_ASAN
  __asan_unpoison_memory_region(start, bytes);
#else
  (void)start, (void)bytes;
#endif
}

}  // namespace

Status Arena::open(MemorySource &source, const ArenaOptions &options) noexcept {
  if (base_ != nullptr) return set_error(Status::kBusy, "the arena is open");
  const bool power_of_two =
      options.alignment != 0 && (options.alignment & (options.alignment - 1)) == 0;
  if (options.frame_bytes == 0 || options.capacity == 0 || !power_of_two) {
    return set_error(Status::kInvalid, "an arena of %u frames of %zu bytes, aligned to %zu",
                     options.capacity, options.frame_bytes, options.alignment);
  }
  size_t stride = 0;
  size_t slab = 0;
  size_t used = 0;
  size_t reserved = 0;
  const size_t granularity = source.granularity();
  const size_t asked_slab = options.slab_bytes != 0 ? options.slab_bytes : kDefaultSlabBytes;
  if (!round_up(options.frame_bytes, options.alignment, &stride) ||
      !round_up(asked_slab, granularity, &slab) ||
      __builtin_mul_overflow(stride, size_t{options.capacity}, &used) ||
      !round_up(used, granularity, &reserved)) {
    return set_error(Status::kNomem, "%u frames of %zu bytes are no address range",
                     options.capacity, options.frame_bytes);
  }
  Result<void *> base = source.reserve(reserved, options.alignment);
  if (!base.ok()) return base.status();
  source_ = &source;
  base_ = static_cast<char *>(base.value());
  frame_bytes_ = options.frame_bytes;
  stride_ = stride;
  slab_ = slab;
  reserved_ = reserved;
  capacity_ = options.capacity;
  host_visible_ = source.host_visible();
  set_committed(0);
  return Status::kOk;
}

void Arena::close() noexcept {
  if (base_ == nullptr) return;
  if (host_visible_) forget_poison(base_, committed_bytes());
  set_committed(0);
  source_->release(base_, reserved_);
  source_ = nullptr;
  base_ = nullptr;
  frame_bytes_ = stride_ = slab_ = reserved_ = 0;
  capacity_ = 0;
}

size_t Arena::bytes_for(uint32_t frames) const noexcept {
  const size_t used = size_t{frames} * stride_;  // <= reserved_
  const size_t slabs = used / slab_ + (used % slab_ != 0);
  // The last slab may reach beyond the range; compared by division, which cannot overflow.
  return slabs > reserved_ / slab_ ? reserved_ : slabs * slab_;
}

void Arena::set_committed(size_t bytes) noexcept {
  committed_.store(bytes, std::memory_order_relaxed);
  const size_t frames = stride_ == 0 ? 0 : bytes / stride_;
  // release: pairs with the acquire in frames().
  frames_.store(static_cast<uint32_t>(std::min<size_t>(frames, capacity_)),
                std::memory_order_release);
}

Status Arena::grow(uint32_t frames) noexcept {
  if (base_ == nullptr || frames > capacity_) {
    return set_error(Status::kInvalid, "%u frames of at most %u", frames, capacity_);
  }
  const size_t have = committed_bytes();
  const size_t need = bytes_for(frames);
  if (need <= have) return Status::kOk;
  if (Status status = source_->commit(base_, have, need - have); status != Status::kOk) {
    return status;
  }
  set_committed(need);
  return Status::kOk;
}

Status Arena::shrink(uint32_t frames) noexcept {
  if (base_ == nullptr) return set_error(Status::kInvalid, "the arena is closed");
  const size_t have = committed_bytes();
  const size_t keep = bytes_for(std::min(frames, capacity_));
  if (keep >= have) return Status::kOk;
  // First out of frames(), then out of memory: nobody is told of a frame that is gone.
  set_committed(keep);
  if (host_visible_) forget_poison(base_ + keep, have - keep);
  if (Status status = source_->decommit(base_, keep, have - keep); status != Status::kOk) {
    set_committed(have);
    return status;
  }
  return Status::kOk;
}

void Arena::poison(uint32_t index) noexcept {
#ifdef QUIRE_ARENA_ASAN
  if (host_visible_) __asan_poison_memory_region(frame(index), stride_);
#else
  (void)index;
#endif
}

void Arena::unpoison(uint32_t index) noexcept {
#ifdef QUIRE_ARENA_ASAN
  if (host_visible_) __asan_unpoison_memory_region(frame(index), frame_bytes_);
#else
  (void)index;
#endif
}

bool Arena::validate() const noexcept {
  if (base_ == nullptr) return reserved_ == 0 && committed_bytes() == 0 && frames() == 0;
  const size_t committed = committed_bytes();
  return stride_ >= frame_bytes_ && slab_ % source_->granularity() == 0 &&
         reserved_ % source_->granularity() == 0 && size_t{capacity_} * stride_ <= reserved_ &&
         committed <= reserved_ && (committed % slab_ == 0 || committed == reserved_) &&
         frames() == std::min<size_t>(capacity_, committed / stride_);
}

}  // namespace quire
