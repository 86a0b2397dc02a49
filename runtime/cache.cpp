#include "runtime/cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

#include "quire/quire.h"
#include "runtime/cuda_kernels.h"

namespace quire {
namespace {

// The twelve bits by which handles tell caches apart; never 0, never kNoCacheTag.
uint32_t next_tag() noexcept {
  static std::atomic<uint32_t> caches{0};
  return 1 + caches.fetch_add(1, std::memory_order_relaxed) % kCacheTags;
}

// A page that the kernel empties in a forked child: so every call can ask whether it is in one for
// the price of a load, where getpid() is a system call. nullptr where the kernel cannot (before
// Linux 4.14).
std::atomic<uint32_t> *make_fork_mark() noexcept {
  void *page = ::mmap(nullptr, sizeof(std::atomic<uint32_t>), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return nullptr;
  if (::madvise(page, sizeof(std::atomic<uint32_t>), MADV_WIPEONFORK) == 0) {
    return new (page) std::atomic<uint32_t>(0);
  }
  ::munmap(page, sizeof(std::atomic<uint32_t>));
  return nullptr;
}

// One a process; it holds the process's number, in a child nothing until that opens a cache of its
// own.
std::atomic<uint32_t> *fork_mark() noexcept {
  static std::atomic<uint32_t> *const mark = make_fork_mark();
  return mark;
}

HeapCallbacks callbacks_of(const quire_allocator &allocator) noexcept {
  return {allocator.alloc, allocator.free, allocator.user};
}

}  // namespace

// ---- open, close

Cache::Cache(const quire_allocator &allocator) noexcept
    : tag_(next_tag()), pid_(::getpid()), fork_mark_(fork_mark()) {
  // All caches of one process write the same.
  if (fork_mark_ != nullptr) {
    fork_mark_->store(static_cast<uint32_t>(pid_), std::memory_order_relaxed);
  }
  if (allocator.alloc != nullptr) {
    own_heap_.emplace(callbacks_of(allocator));
  } else {
    own_heap_.emplace();
  }
  heap_ = &*own_heap_;
}

Cache::~Cache() {
  thread_.stop();
  reclaimer_.reset();
  if (streams_) streams_->close();
  sequences_.reset();
  cuda_kernels_.reset();  // waits for its own stream, which may be zeroing frames
  if (codec_memory_ != nullptr) heap_->deallocate(codec_memory_, codec_bytes_, 64);
  arena_.close();
  open_arena_.close();
}

Status Cache::open(const quire_config &config, Device *device, Cache **out) noexcept {
  // The cache itself comes from the caller's allocator, too.
  Heap heap_for_self{config.allocator.alloc != nullptr && config.allocator.free != nullptr
                         ? Heap(callbacks_of(config.allocator))
                         : Heap()};
  void *memory = heap_for_self.allocate(sizeof(Cache), alignof(Cache));
  if (memory == nullptr) return set_error(Status::kNomem, "no memory for a cache");
  auto *cache = new (memory) Cache(config.allocator);
  const Status status = cache->build(config, device);
  if (status == Status::kOk) {
    *out = cache;
    return Status::kOk;
  }
  cache->~Cache();
  heap_for_self.deallocate(memory, sizeof(Cache), alignof(Cache));
  return status;
}

Status Cache::build_arenas() noexcept {
  const Shape &shape = config_.shape;
  ArenaOptions options;
  options.frame_bytes = config_.layout.page_bytes;
  options.capacity = shape.frames;
  if (const Status s = arena_.open(*device_, options); s != Status::kOk) return s;
  if (const Status s = fill_arena(&arena_, shape.frames); s != Status::kOk) return s;
  if (!config_.has_open) return Status::kOk;
  options.frame_bytes = config_.open_layout.page_bytes;
  options.capacity = shape.open_frames;
  if (const Status s = open_arena_.open(*device_, options); s != Status::kOk) return s;
  return fill_arena(&open_arena_, shape.open_frames);
}

// All the memory of a class, which reads as zero: what no kernel writes, the padding of a page, is the
// same everywhere, and a GPU's memory may have been somebody else's in this process.
Status Cache::fill_arena(Arena *arena, uint32_t frames) noexcept {
  const Status status = arena->grow(frames);
  if (status != Status::kOk || device_->host_visible()) return status;
  return device_->zero(arena->base(), arena->committed_bytes(), nullptr);
}

// A device that is given, or the one that the config names; AUTO is cuda where there is one.
Status Cache::open_device(Device *given) noexcept {
  device_ = given;
  if (device_ != nullptr) return Status::kOk;
  const uint32_t kind = config_.values.device;
  if (kind != QUIRE_DEVICE_CPU) {
    CudaApi *const api = cuda_api();
    Status status = Status::kUnsupported;
    if (api == nullptr) {
      status = set_error(status, "config: device: this build has the cpu device only");
    } else {
      status = cuda_device_.emplace(*api).open(static_cast<int>(config_.values.device_ordinal));
    }
    if (status == Status::kOk) {
      device_ = &*cuda_device_;
      return Status::kOk;
    }
    cuda_device_.reset();
    if (kind == QUIRE_DEVICE_CUDA || status != Status::kUnsupported) return status;
  }
  device_ = &own_device_.emplace();
  return Status::kOk;
}

Status Cache::open_codec() noexcept {
  kernels::CodecConfig codec;
  codec.geometry = config_.values.geometry;
  codec.format = config_.values.format;
  codec.codebook = config_.values.codebook;
  codec_bytes_ = kernels::codec_bytes(codec);
  if (codec_bytes_ == 0) return set_error(Status::kInvalid, "config: no codec for this geometry");
  codec_memory_ = heap_->allocate(codec_bytes_, 64);
  if (codec_memory_ == nullptr) return set_error(Status::kNomem, "no memory for the codec");
  codec_ = kernels::codec_create(codec, codec_memory_);
  if (codec_ != nullptr) return Status::kOk;
  return set_error(
      Status::kInvalid,
      "config: codebook: 16 values that ascend within [-1, 1] are wanted, the one nearest 0 "
      "not negative");
}

Status Cache::open_kernels() noexcept {
  if (!cuda_device_) {
    kernels_ = &cpu_kernels_.emplace(*codec_, *device_);
    return Status::kOk;
  }
  const Status status = make_cuda_kernels(*codec_, *cuda_device_, &cuda_kernels_);
  kernels_ = cuda_kernels_.get();
  return status;
}

Status Cache::build(const quire_config &config, Device *device) noexcept {
  if (const Status s = config_resolve(config, &config_); s != Status::kOk) return s;
  if (const Status s = open_device(device); s != Status::kOk) return s;
  if (const Status s = open_codec(); s != Status::kOk) return s;
  if (const Status s = open_kernels(); s != Status::kOk) return s;
  if (!config_.has_secret) {
    if (const Status s = Keys::random_secret(config_.secret); s != Status::kOk) return s;
  }
  keys_.emplace(config_.secret);
  if (const Status s = build_arenas(); s != Status::kOk) return s;
  if (const Status s = region_.create(config_.values.segment, config_.shape); s != Status::kOk) {
    return s;
  }
  tables_.emplace(region_);
  tables_->format();
  streams_.emplace(region_.part(Part::kStreams), config_.shape.streams, tables_->clock, device_);
  streams_->format();
  RegionHeader &header = region_.header();
  header.format = config_.values.format;
  header.policy = config_.values.policy;
  header.geometry = config_.values.geometry;
  header.device = device_kind();
  header.frame_bytes = arena_.stride();
  header.open_frame_bytes = config_.has_open ? open_arena_.stride() : 0;
  header.arena_bytes = arena_bytes();
  header.now_ms.store(now_ms(), std::memory_order_relaxed);
  tables_->log.note(tables_->clock.now(), coarse_ms());
  if (config_.values.events != 0) tables_->events.start();
  sequences_.emplace(*heap_);
  if (const Status s = sequences_->open(config_.values.max_sequences); s != Status::kOk) return s;
  if (const Status s = build_reclaimer(); s != Status::kOk) return s;
  region_.finish();
  // Last: from here on the cache has two threads.
  const uint32_t period = config_.values.epoch_ms;
  if (period != QUIRE_NO_TIMER) return thread_.start(period, this);
  return low_frames_ != 0 ? thread_.start(0, this) : Status::kOk;
}

Status Cache::close(Cache *cache) noexcept {
  Tables &t = *cache->tables_;
  cache->streams_->poll();
  cache->drain_limbo();
  const uint32_t sequences = cache->sequences_->live();
  const uint32_t leases = t.leases.live();
  // The cache's own stream goes with it.
  const uint32_t streams = cache->streams_->readers() - (cache->watches_zero_stream() ? 1U : 0U);
  const PageCounts pages = t.pages.counts(t.page_pool.available());
  if (sequences + leases + streams + pages.private_pages > 0) {
    return set_error(
        Status::kBusy,
        "still there: %u sequences, %u leases, %u private pages, %u streams that are registered "
        "or not done",
        sequences, leases, pages.private_pages, streams);
  }
  Heap heap_for_self{cache->config_.values.allocator.alloc != nullptr
                         ? Heap(callbacks_of(cache->config_.values.allocator))
                         : Heap()};
  cache->~Cache();
  heap_for_self.deallocate(cache, sizeof(Cache), alignof(Cache));
  return Status::kOk;
}

bool Cache::watches_zero_stream() noexcept {
  const Stream stream = kernels_->zero_stream();
  return stream != nullptr && streams_->find(stream) != kNoIndex;
}

Status Cache::watch_zero_stream() noexcept {
  const Stream stream = kernels_->zero_stream();
  if (stream == nullptr || watches_zero_stream()) return Status::kOk;
  uint32_t slot;
  const Status status = streams_->add(stream, 0, StreamTable<>::kBackground, &slot);
  return watches_zero_stream() ? Status::kOk : status;  // another call may have been first
}

Status Cache::check_process() const noexcept {
  const uint32_t here = fork_mark_ != nullptr ? fork_mark_->load(std::memory_order_relaxed)
                                              : static_cast<uint32_t>(::getpid());
  if (here == static_cast<uint32_t>(pid_)) return Status::kOk;
  return set_error(Status::kInvalid, "this cache was opened by process %d, before a fork", pid_);
}

void Cache::layout_info(quire_layout_info *out) const noexcept {
  out->frames = config_.shape.frames;
  out->open_frames = config_.shape.open_frames;
  out->format = config_.values.format;
  out->base = arena_.base();
  out->open_base = config_.has_open ? open_arena_.base() : nullptr;
  out->stride = arena_.stride();
  out->open_stride = config_.has_open ? open_arena_.stride() : 0;
  out->geometry = config_.values.geometry;
  out->device = device_kind();
  out->layout = config_.layout;
  out->open_layout = config_.open_layout;
}

// ---- streams and the clock

Status Cache::find_stream(Stream stream, uint32_t *slot) noexcept {
  *slot = kNoIndex;
  if (stream == nullptr) return Status::kOk;
  *slot = streams_->find(stream);
  if (*slot != kNoIndex) return Status::kOk;
  return set_error(Status::kInvalid, "this stream is not registered (quire_stream_add)");
}

Status Cache::stream_add(Stream stream, uint32_t rank, uint32_t flags) noexcept {
  if (rank != 0) return set_error(Status::kInvalid, "rank %u of 1", rank);
  if ((flags & ~QUIRE_STREAM_BACKGROUND) != 0) {
    return set_error(Status::kInvalid, "flags: unknown bits in %#x", flags);
  }
  static_assert(QUIRE_STREAM_BACKGROUND == StreamTable<>::kBackground);
  uint32_t slot;
  return streams_->add(stream, rank, flags, &slot);
}

Status Cache::stream_remove(Stream stream) noexcept {
  const Status status = streams_->remove(stream);
  streams_->poll();
  drain_limbo();
  return status;
}

Status Cache::step() noexcept {
  streams_->step();
  after_advance();
  // Where the cache has no timer, its steps are what TTLs are kept by, and when the policy learns.
  if (config_.values.epoch_ms == QUIRE_NO_TIMER) {
    learn();
    expire_due();
  }
  tables_->stats.add(Counter::steps_total);
  return Status::kOk;
}

// What follows each move of the clock, by step or by the timer.
void Cache::after_advance() noexcept {
  const uint64_t now = now_ms();
  region_.header().now_ms.store(now, std::memory_order_relaxed);
  tables_->log.note(tables_->clock.now(), now);
  reclaimer_->lift_in_time();
  streams_->poll();
  drain_limbo();
  count_nonfinite();
  if (earliest_deadline_.load(std::memory_order_relaxed) <= now) sweep_leases(now);
}

// Takes a lease back unless its deadline was moved since. When it must be looked at again;
// UINT64_MAX: never.
uint64_t Cache::revoke_late(Handle lease, uint64_t now) noexcept {
  if (const Status s = tables_->leases.enter(lease); s != Status::kOk) {
    return s == Status::kBusy ? now + 1 : UINT64_MAX;  // in the middle of a call; or gone
  }
  const LeaseSlot &slot = tables_->leases.slot(lease.index);
  const uint64_t deadline = slot.deadline_ms.load(std::memory_order_relaxed);
  const bool revocable =
      (slot.flags.load(std::memory_order_relaxed) & QUIRE_ACQUIRE_REVOCABLE) != 0;
  if (deadline == 0 || deadline > now || !revocable) {
    tables_->leases.leave(lease.index);
    return deadline == 0 ? UINT64_MAX : std::max(deadline, now + 1);
  }
  if (end_lease(lease, nullptr) != Status::kOk) return now + 1;
  tables_->stats.add(Counter::leases_revoked_total);
  return UINT64_MAX;
}

// Reports leases that are late; takes back those that are late and revocable.
void Cache::sweep_leases(uint64_t now) noexcept {
  // acq_rel: pairs with set_deadline(): a lease whose deadline this takes away is seen below.
  earliest_deadline_.exchange(UINT64_MAX, std::memory_order_acq_rel);
  uint64_t next = UINT64_MAX;
  Handle lease;
  for (uint32_t at = 0; tables_->leases.next(at, &lease); at = lease.index + 1) {
    LeaseSlot &slot = tables_->leases.slot(lease.index);
    const uint64_t deadline = slot.deadline_ms.load(std::memory_order_relaxed);
    if (deadline == 0) continue;
    if (deadline > now) {
      next = std::min(next, deadline);
      continue;
    }
    if ((slot.flags.fetch_or(kLeaseLate, std::memory_order_relaxed) & kLeaseLate) == 0) {
      tables_->stats.add(Counter::leases_late_total);
      EventRecord event{};
      event.kind = QUIRE_EVENT_LEASE_LATE;
      event.key.lo = slot.owner.load(std::memory_order_relaxed);
      event.epoch = static_cast<uint32_t>(clock_epoch());
      tables_->events.push(event.words());
    }
    if ((slot.flags.load(std::memory_order_relaxed) & QUIRE_ACQUIRE_REVOCABLE) == 0) continue;
    next = std::min(next, revoke_late(lease, now));
  }
  uint64_t earliest = earliest_deadline_.load(std::memory_order_relaxed);
  while (next < earliest &&
         !earliest_deadline_.compare_exchange_weak(earliest, next, std::memory_order_relaxed)) {
  }
}

void Cache::emit_page(uint32_t kind, uint32_t page, uint32_t reason) noexcept {
  const Tables &t = *tables_;
  if (!t.events.started()) return;
  const PageDescriptor &d = t.pages[page];
  EventRecord event{};
  event.kind = static_cast<uint8_t>(kind);
  event.reason = static_cast<uint8_t>(reason);
  event.tier = QUIRE_TIER_DEVICE;
  event.index = d.depth.load(std::memory_order_relaxed);
  event.epoch = static_cast<uint32_t>(clock_epoch());
  event.space = d.space.load(std::memory_order_relaxed);
  event.page = page;
  event.life = t.pages.generation(page);
  event.key = t.pages.key(page);
  event.parent = parent_key(t, page);
  tables_->events.push(event.words());
}

}  // namespace quire
