// Cache: the parts of design put together; what a `quire_cache *` points to.
//
// It owns the region (metadata), the arenas (frames), the device, the clock's timer and the
// reclaimer, and holds the rules by which they meet. Its verbs are spread over files by noun:
//
//   cache.cpp      open, close, step, tick            lookup.cpp    match, acquire, release, clone, renew
//   pages.cpp      alloc, free, block tables, info    publish.cpp   publish
//   seal.cpp       seal, unseal, copy of a page       kv.cpp        append, gather, attention, anchor
//   sequence.cpp   sequences                          insight.cpp   stats, check, events
//   frames.cpp     where frames come from             reclaim.cpp   what an eviction does
//   namespaces.cpp quotas and floors of namespaces    events.cpp    what followers read
//   c_api.cpp      the C boundary: checks pointers and sizes, converts, and calls these
//
// Who owns what
//   a page is FREE (in page_pool), PRIVATE (of a lease, a sequence or a caller), VISIBLE (in the
//   index), or for a moment EVICTING; a frame is free (in its pool), held by exactly one page, or
//   in limbo.
//
// Invariants, quiescent (check() asserts them)
//   free + private + visible                == pages
//   frames in pool + held + limbo           == frames, per class
//   children(p)                             == visible pages whose parent is p
//   ref(p)                                  == leases whose tail is p
//   visible(p) and parent(p) != none        => visible(parent(p)), depth(p) == depth(parent) + 1
//   pages(namespace) == claimed(namespace)  == visible pages in it
//   sum of floors                           <= frames
//
// Thread class: every verb may run in any thread at any time. Verbs on one lease exclude each other
// by the lease's busy bit, verbs on one private page by the page's busy flag; a loser gets kBusy
// and never waits.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "allocators/arena.h"
#include "allocators/heap.h"
#include "kernels/codec.h"
#include "quire/quire.h"
#include "runtime/config.h"
#include "runtime/cpu_device.h"
#include "runtime/cpu_kernels.h"
#include "runtime/cuda_device.h"
#include "runtime/device.h"
#include "runtime/frame_debts.h"
#include "runtime/handle.h"
#include "runtime/keys.h"
#include "runtime/learner.h"
#include "runtime/page_kernels.h"
#include "runtime/reclaim_thread.h"
#include "runtime/reclaimer.h"
#include "runtime/region.h"
#include "runtime/sequence.h"
#include "runtime/status.h"
#include "runtime/stream_table.h"
#include "runtime/tables.h"

namespace quire {

// Flags of a page's descriptor.
inline constexpr uint16_t kPageOpen = 1;    // its frame is an open one
inline constexpr uint16_t kPageSealed = 2;  // encoded
inline constexpr uint16_t kPageLossy = 4;   // decoded from a sealed page
inline constexpr uint16_t kPageCopied =
    16;  // copies of this private page are on their way on several streams
inline constexpr uint16_t kPageBehind = 16;  // may be ready before a page above it is (publish.cpp)

enum class FrameClass : uint32_t { kSealed = 0, kOpen = 1 };

// Whether a page may be found: neither past its absolute expiry nor of a namespace that was
// evicted. Goes from true to false, never back, and never for a parent before its child.
//
// Exact to the clock's millisecond: the time of the last tick would let a page live on for as long
// as the timer rests. But a clock is asked at most once a call, and only when a page with an expiry
// is met: reading one costs as much as a good part of a lookup.
struct Alive {
  static constexpr uint64_t kUnread = UINT64_MAX;

  const PageTable<> *pages;
  const NamespaceTable *spaces;
  mutable uint64_t now_ms;
  quire_clock_fn clock = nullptr;  // where now_ms is kUnread
  void *clock_user = nullptr;

  bool operator()(uint32_t page) const noexcept {
    const PageDescriptor &d = (*pages)[page];
    const uint32_t space = d.space.load(std::memory_order_relaxed);
    if (d.space_generation.load(std::memory_order_relaxed) != spaces->generation(space))
      return false;
    const uint64_t expiry = d.expiry_ms.load(std::memory_order_relaxed);
    if (expiry == UINT64_MAX) return true;
    if (now_ms == kUnread) now_ms = clock(clock_user);
    return expiry > now_ms;
  }
};

// quire_key and Key are the same two words.
inline const Key *to_keys(const quire_key *keys) noexcept {
  static_assert(sizeof(Key) == sizeof(quire_key) && alignof(Key) == alignof(quire_key));
  return reinterpret_cast<const Key *>(keys);
}
inline Key to_key(quire_key key) noexcept {
  return Key{key.lo, key.hi};
}

// The pool, the limbo and the flags of one class of frames.
struct FrameClassView {
  FramePool<> *pool;
  Limbo<> *limbo;
  std::atomic<uint8_t> *flags;
};

// What all pages of one publish have in common.
struct PublishContext {
  const quire_retention *retention;
  uint64_t expiry_ms;  // UINT64_MAX: none asked
  uint64_t epoch;      // of readiness and of the first stamp
  uint16_t writer;     // stream slot + 1; 0: the data is complete
  Stream stream;       // the same
  bool reads;          // the page of somebody else is read in place of ours: it must be ready
};

// What the report of leases says of one; from inside or from outside.
void describe_lease(const Tables &tables, Handle lease, uint32_t cache_tag, uint64_t now_ms,
                    quire_lease_record *out) noexcept;

// The same of a namespace.
void describe_namespace(const Tables &tables, uint32_t number,
                        quire_namespace_record *out) noexcept;
// The first one from number *at on, then *at is where to go on; false, and *at 0, at the end.
bool next_namespace(const Tables &tables, uint32_t *at, quire_namespace_record *out) noexcept;

// The key of a visible page's parent, of a first page the root of its namespace. The page is held, or
// looked at again.
Key parent_key(const Tables &tables, uint32_t page) noexcept;
// Published pages, up to *n of them, from place *at on; then *at is where to go on, 0 at the end.
void list_published(const Tables &tables, uint32_t cache_tag, uint64_t now_ms, uint64_t *at,
                    quire_published *out, size_t *n) noexcept;
void to_event(const Tables &tables, uint32_t cache_tag, const EventRecord &from, uint64_t number,
              quire_event *out) noexcept;
// Events from *cursor on (0: from here on, and none), up to *n; adds to *lost.
void read_events(const Tables &tables, uint32_t cache_tag, uint64_t *cursor, quire_event *out,
                 size_t *n, uint64_t *lost) noexcept;

class Cache final : private EvictSink, private BackgroundWork {
 public:
  // device: nullptr takes the one that the config names. A test passes its adversary, which
  // outlives the cache.
  static Status open(const quire_config &config, Device *device, Cache **out) noexcept;
  // kBusy, with what remains; else the cache is gone.
  static Status close(Cache *cache) noexcept;

  explicit Cache(const quire_allocator &allocator) noexcept;
  ~Cache();
  Cache(const Cache &) = delete;
  Cache &operator=(const Cache &) = delete;

  // ---- lookup.cpp
  Status match(const quire_prefix &prefix, quire_hit *hit) noexcept;
  Status acquire(const quire_prefix &prefix, const quire_acquire_options &options,
                 quire_page *pages, quire_hit *hit, quire_lease *lease) noexcept;
  Status release(quire_lease lease, const quire_retention *retention) noexcept;
  // As release(), for a sequence's own, which that refuses.
  Status release_owned(quire_lease lease, const quire_retention *retention) noexcept;
  Status clone(quire_lease lease, uint32_t pages, const quire_acquire_options &options,
               quire_lease *out) noexcept;
  // The same, with the caller inside the new lease; who then leaves it, or undoes it: the chain
  // counts as not used.
  Status clone_inside(quire_lease lease, uint32_t pages, const quire_acquire_options &options,
                      Handle *out) noexcept;
  void undo_clone(Handle clone) noexcept;
  Status shorten(quire_lease lease, uint32_t pages) noexcept;
  Status renew(quire_lease lease, uint64_t deadline_ms) noexcept;
  Status lease_info(quire_lease lease, quire_lease_record *out) noexcept;
  Status lease_next(quire_lease *lease) noexcept;
  Status enter_lease(quire_lease lease, Handle *out) noexcept;
  // The same, where it is no sequence's: what callers may publish on, hang pages on and release.
  Status enter_own_lease(quire_lease lease, Handle *out) noexcept;
  Alive alive() const noexcept;

  // ---- pages.cpp
  Status alloc(uint32_t n, const quire_alloc_options &options, quire_page *pages) noexcept;
  Status free(const quire_page *pages, uint32_t n) noexcept;
  Status frames(const quire_page *pages, uint32_t n, quire_tier tier, int32_t *out) noexcept;
  Status page_info(quire_page page, quire_page_record *out) noexcept;
  Status page_data(quire_page page, void **data, size_t *bytes) noexcept;
  // n <= kMostPages private pages with frames of the class, on no lease.
  static constexpr uint32_t kMostPages = 128;
  // space: the namespace that they are for, where it is known (see reserve_frames).
  Status take_pages(FrameClass c, uint32_t n, uint32_t stream_slot, uint32_t index, uint32_t space,
                    uint32_t *out) noexcept;
  // Gives up one share of each private page, on which no other verb works.
  void drop_pages(const uint32_t *pages, uint32_t n) noexcept;
  void drop_page(uint32_t page) noexcept { drop_pages(&page, 1); }
  quire_page page_handle(uint32_t page) const noexcept;
  quire_key key_of(uint32_t page) const noexcept;
  int32_t block_entry(uint32_t page) const noexcept;
  bool is_open(uint32_t page) const noexcept;

  // ---- seal.cpp
  Status seal(const quire_page *pages, uint32_t n, Stream stream) noexcept;
  // Pages by number; what a handle has above its index is not looked at.
  Status seal_claimed(const quire_page *pages, uint32_t n, Stream stream, uint32_t stream_slot,
                      uint32_t space) noexcept;
  Status unseal_into(uint32_t from_page, uint32_t to_page, Stream stream) noexcept;
  Status copy_into(uint32_t from_page, uint32_t to_page, Stream stream,
                   uint32_t stream_slot) noexcept;
  void note_writer(uint32_t page, uint32_t stream_slot) noexcept;
  // Work on the stream comes after the page's writer: that is done, or the stream is made to wait.
  // kAgain: no event of the writer's is recorded yet; the next step will.
  Status follow_writer(uint32_t page, Stream stream, uint32_t stream_slot) noexcept;
  // Whether work on the stream may change what a private page holds: copies of it are over, or come
  // first.
  bool changeable(uint32_t page, Stream stream, uint32_t stream_slot) noexcept;

  // ---- publish.cpp
  Status publish(quire_lease lease, const quire_prefix &prefix, quire_page *pages,
                 const quire_publish_options &options, quire_publish_result *result) noexcept;
  // room: false where the namespace has none for a page more; then a page of somebody else will do.
  Status publish_page(uint32_t page, const Key &key, const Namespace &space,
                      const PublishContext &context, bool room, uint32_t *tail,
                      bool *found) noexcept;
  PublishContext publish_context(const quire_retention *retention, Stream stream,
                                 uint32_t stream_slot) noexcept;
  void keep_tokens(uint32_t page, const uint32_t *tokens) noexcept;
  static Status check_retention(const quire_retention *retention, bool absolute_allowed) noexcept;

  // ---- namespaces.cpp
  Status namespace_set(Key root, const quire_namespace &settings) noexcept;
  void namespace_get(Key root, quire_namespace_record *out) noexcept;
  Status evict_namespace(Key root) noexcept;
  // The namespace of that root, or that a lease was taken in: kNoIndex where it is not known, or no
  // namespace has a floor.
  uint32_t space_of(Key root) const noexcept;
  uint32_t space_of(const LeaseSlot &slot) const noexcept;
  uint32_t begin_pages(const Namespace &space, uint32_t n) noexcept;
  void end_pages(const Namespace &space, uint32_t room, uint32_t published,
                 uint32_t duplicate) noexcept;
  // n pages stay private: the first of them found no room in its namespace, or no place.
  void count_unpublished(bool room, uint32_t n) noexcept;

  // ---- cache.cpp
  Status stream_add(Stream stream, uint32_t rank, uint32_t flags) noexcept;
  Status stream_remove(Stream stream) noexcept;
  Status step() noexcept;
  // A stream argument: NULL (then *slot is kNoIndex), or registered, else kInvalid.
  Status find_stream(Stream stream, uint32_t *slot) noexcept;
  // kInvalid in a child of fork(): every C call asks first.
  Status check_process() const noexcept;
  uint64_t now_ms() const noexcept { return config_.values.clock(config_.values.clock_user); }
  // The same as of the last tick, without asking the clock.
  uint64_t coarse_ms() const noexcept {
    return region_.header().now_ms.load(std::memory_order_relaxed);
  }
  uint64_t clock_epoch() const noexcept { return tables_->clock.now(); }

  // ---- kv.cpp
  Status kv_append(const quire_append_args &args) noexcept;
  Status kv_gather(const quire_gather_args &args) noexcept;
  Status attention(const quire_attention_args &args) noexcept;
  Status attention_workspace(const quire_attention_bounds &bounds, size_t *bytes) noexcept;
  Status anchor_set(uint32_t layer, const float *means) noexcept;

  // ---- insight.cpp
  void stats(quire_stats *out) noexcept;
  Status check(uint32_t flags) noexcept;
  void layout_info(quire_layout_info *out) const noexcept;

  const Config &config() const noexcept { return config_; }
  Region &region() noexcept { return region_; }
  Tables &tables() noexcept { return *tables_; }
  const Tables &tables() const noexcept { return *tables_; }
  Device &device() noexcept { return *device_; }
  StreamTable<> &streams() noexcept { return *streams_; }
  const Keys &keys() const noexcept { return *keys_; }
  Heap &heap() noexcept { return *heap_; }
  SequenceTable &sequences() noexcept { return *sequences_; }
  uint64_t arena_bytes() const noexcept {
    return arena_.committed_bytes() + open_arena_.committed_bytes();
  }
  uint32_t tag() const noexcept { return tag_; }
  const quire_page_layout &layout(FrameClass c) const noexcept {
    return c == FrameClass::kOpen ? config_.open_layout : config_.layout;
  }
  uint8_t *frame_address(FrameClass c, uint32_t frame) const noexcept;

 private:
  // ---- cache.cpp
  Status build(const quire_config &config, Device *device) noexcept;
  Status open_device(Device *given) noexcept;
  Status open_codec() noexcept;
  Status open_kernels() noexcept;
  Status build_arenas() noexcept;
  Status fill_arena(Arena *arena, uint32_t frames) noexcept;
  uint32_t device_kind() const noexcept {
    return cuda_device_ ? uint32_t{QUIRE_DEVICE_CUDA} : uint32_t{QUIRE_DEVICE_CPU};
  }
  // The stream on which frames are zeroed becomes a reader, where there is one.
  Status watch_zero_stream() noexcept;
  bool watches_zero_stream() noexcept;
  Status build_reclaimer() noexcept;
  void after_advance() noexcept;
  void sweep_leases(uint64_t now) noexcept;
  uint64_t revoke_late(Handle lease, uint64_t now) noexcept;

  // ---- lookup.cpp
  Status pin_tail(const Key *keys, uint32_t *n, uint32_t *tail) noexcept;
  void cut_tail(uint32_t *tail) noexcept;
  void cut_unready(uint32_t *tail, uint32_t *n, Stream stream, uint32_t stream_slot) noexcept;
  void cut_mismatch(const quire_prefix &prefix, uint32_t *tail, uint32_t *n) noexcept;
  void write_chain(const Key *keys, uint32_t tail, uint32_t n, quire_page *pages) noexcept;
  void fill_lease(Handle handle, const quire_acquire_options &options, uint32_t tail,
                  uint32_t n) noexcept;
  void set_deadline(LeaseSlot &slot, uint64_t deadline_ms) noexcept;
  Status find_lease(quire_lease lease, Handle *out) const noexcept;
  Status end_lease(Handle handle, const quire_retention *retention) noexcept;
  void drop_pin(uint32_t page) noexcept;

  // ---- frames.cpp
  FrameClassView frame_class(FrameClass c) noexcept;
  template <class T>
  struct FrameSource;
  // space: the namespace that they are for: where nothing else is left to evict, its own pages go,
  // below its floor, too. kNoIndex: of none.
  template <class T>
  Status reserve_frames(FrameClass c, uint32_t n, uint32_t stream_slot, uint32_t space, T *frames,
                        uint32_t *listed) noexcept;
  Status ensure_frames(FrameClass c, uint32_t n, uint32_t space) noexcept;
  Status take_frames(FrameClass c, uint32_t n, uint32_t stream_slot, uint32_t space,
                     uint32_t *frames) noexcept;
  Status refuse_frames(FrameClass c, uint32_t n, bool busy = false) noexcept;
  uint64_t at_most_evictable() noexcept;
  uint32_t reclaim(uint32_t frames) noexcept;
  template <class T>
  bool take_from_limbo(FrameClass c, uint32_t n, uint32_t stream_slot, uint64_t keep, T *frames,
                       uint32_t *listed) noexcept;
  void retire_frames(FrameClass c, const uint32_t *frames, uint32_t n, uint64_t epoch,
                     bool zero) noexcept;
  void retire_frame(FrameClass c, uint32_t frame, uint64_t epoch, bool zero) noexcept {
    retire_frames(c, &frame, 1, epoch, zero);
  }
  void give_back(FrameClass c, const uint32_t *frames, size_t n) noexcept;
  void zero_frames(FrameClass c, const uint32_t *frames, uint32_t n) noexcept;
  void put_back(FrameClass c, const uint32_t *frames, uint32_t n) noexcept;
  void drain_limbo() noexcept;

  // ---- pages.cpp
  // The stream that may have frames of the class which it reads still. Where init_page() writes to
  // frames of the final format at once, no stream may still read them.
  uint32_t first_user(FrameClass c, uint32_t stream_slot) const noexcept {
    const bool direct = config_.has_open && c == FrameClass::kSealed;
    return direct && kernels_->inits_on_host() ? kNoIndex : stream_slot;
  }
  void make_pages(FrameClass c, uint32_t n, const uint32_t *frames, uint32_t index,
                  uint32_t *out) noexcept;
  Status alloc_on(FrameClass c, uint32_t n, uint32_t stream_slot, uint32_t index, uint32_t lease,
                  uint32_t space, quire_page *pages) noexcept;
  Status find_page(quire_page handle, uint32_t *page) const noexcept;
  Status claim_page(quire_page handle, uint32_t *page) noexcept;
  Status claim_page_of(const quire_page *pages, uint32_t i, uint32_t *page) noexcept;
  void unclaim_page(uint32_t page) noexcept { tables_->pages.unhold(page); }
  void link(uint32_t lease_index, uint32_t page) noexcept;
  void link_first(uint32_t lease_index, uint32_t page) noexcept;
  void unlink(uint32_t page) noexcept;
  template <class T>
  void bury(const T *pages, uint32_t n) noexcept;
  Status free_private_pages(LeaseSlot &slot) noexcept;
  // Of a private page. Nobody was given a handle of a number in the pool, but it can be made up.
  bool has_frame(uint32_t page) const noexcept {
    return tables_->pages[page].frame.load(std::memory_order_relaxed) != kNoIndex;
  }
  Status look_private(quire_page handle) const noexcept;
  Status refuse_free(const quire_page *pages, uint32_t i, Hold hold) const noexcept;
  Status end_pages(const quire_page *pages, uint32_t n, uint64_t token) noexcept;
  void undo_free(const quire_page *pages, uint32_t n, uint64_t token) noexcept;
  Status enter_lease_of(uint32_t page, uint64_t token) noexcept;
  void leave_lease_of(uint32_t lease_index, uint64_t token) noexcept;
  // Whether frames that held private data are zeroed before reuse: once a namespace asked for it.
  bool zeroing() const noexcept { return zeroing_.load(std::memory_order_relaxed); }

  // ---- seal.cpp
  kernels::Frames kernel_frames() const noexcept;
  void note_copy(uint32_t page, uint32_t stream_slot) noexcept;
  Status follow(uint32_t slot, uint32_t epoch, Stream stream, uint32_t stream_slot) noexcept;
  Status freeze_anchors() noexcept;
  Status enqueue_seal(const uint32_t *from, const uint32_t *to, const uint32_t *index, uint32_t n,
                      Stream stream) noexcept;

  // ---- publish.cpp
  void retain(uint32_t page, const quire_retention &retention) noexcept;
  bool ready_above(uint32_t parent, uint32_t page) const noexcept;
  void describe_page(uint32_t page, uint32_t parent, const Namespace &space,
                     const PublishContext &context) noexcept;
  bool may_follow(uint32_t page, uint32_t ours, uint32_t parent,
                  const PublishContext &context) noexcept;
  Status claim_for_publish(const quire_page *pages, uint32_t n, uint32_t lease_index,
                           uint32_t first, uint32_t *claimed) noexcept;
  Status check_chain(const LeaseSlot &slot, const quire_prefix &prefix) const noexcept;
  Status enter_space(const LeaseSlot &slot, const quire_prefix &prefix, Namespace *space) noexcept;
  Status seal_for_publish(const quire_page *pages, uint32_t n, Stream stream, uint32_t stream_slot,
                          uint32_t space) noexcept;

  // ---- namespaces.cpp
  bool set_floor(uint32_t number, uint32_t floor) noexcept;
  uint32_t reclaim_own(uint32_t space, uint32_t pages, EvictReason reason) noexcept;
  Take take(uint32_t space, bool own) noexcept override;
  void untake(uint32_t space) noexcept override;
  bool shield(Shield *out) noexcept override;
  bool is_shielded(uint32_t page) noexcept override;
  void drop_from_spaces(const EvictBatch &batch) noexcept;

  // ---- events
  void emit_page(uint32_t kind, uint32_t page, uint32_t reason) noexcept;

  // ---- reclaim.cpp
  void evicted(uint32_t page, uint32_t stamp, EvictReason reason) noexcept override;
  void retire(const EvictBatch &batch) noexcept override;
  bool is_dead(uint32_t page) noexcept override;
  bool tick(bool woken) noexcept override;
  bool expire_due() noexcept;
  void count_scans() noexcept;
  // The chain that ends in `tail`, which the caller pins, was used.
  void note_use(uint32_t tail, uint32_t pages) noexcept;
  void learn() noexcept;
  bool refill_pool() noexcept;
  void wake_if_low() noexcept {
    if (low_frames_ != 0 && tables_->frame_pool.available() < low_frames_) thread_.wake();
  }

  // ---- kv.cpp
  Status check_bounds(const quire_attention_bounds &bounds) const noexcept;
  kernels::AttentionArgs attention_bounds(const quire_attention_bounds &bounds) const noexcept;
  Status find_kernel_stream(Stream stream, uint32_t *slot) noexcept;
  template <class Args, class From>
  Status token_args(const From &from, Args *to) noexcept;
  Status launched(Status status) noexcept;
  void count_nonfinite() noexcept;

  std::optional<Heap> own_heap_;
  Heap *heap_ = nullptr;
  Config config_;
  uint32_t tag_ = 0;
  int pid_ = 0;
  std::atomic<uint32_t> *fork_mark_ = nullptr;  // holds the pid; nullptr: ask the kernel
  std::optional<CpuDevice> own_device_;
  Device *device_ = nullptr;
  Region region_;
  std::optional<Tables> tables_;
  std::optional<StreamTable<>> streams_;
  std::optional<Keys> keys_;
  Arena arena_;
  Arena open_arena_;
  void *codec_memory_ = nullptr;
  size_t codec_bytes_ = 0;
  kernels::Codec *codec_ = nullptr;
  std::optional<CudaDevice> cuda_device_;
  std::optional<CpuKernels> cpu_kernels_;
  std::unique_ptr<PageKernels> cuda_kernels_;
  PageKernels *kernels_ = nullptr;
  std::atomic<uint64_t> nonfinite_seen_{0};
  std::optional<SequenceTable> sequences_;
  std::unique_ptr<ScanRunner> runner_;
  HeapPtr<Learner> learner_;  // where the policy is a learned one
  std::optional<Reclaimer> reclaimer_;
  FrameDebts<> debts_[2];  // by class
  std::atomic<uint64_t> seen_passes_{0};
  std::atomic<uint64_t> seen_scanned_{0};
  std::atomic<uint64_t> seen_walked_{0}, seen_lost_{0}, seen_fits_{0};  // likewise
  ReclaimThread thread_;
  uint32_t low_frames_ = 0;  // watermarks, in frames
  uint32_t high_frames_ = 0;
  uint64_t last_activity_ = 0;  // the thread's: what the counters summed up to at its last tick
  std::atomic<bool> zeroing_{false};
  std::atomic<uint64_t> floors_{0};  // the sum of all namespaces' floors
  // What all streams had passed when an eviction for the caller's sake last gave limbo frames only.
  std::atomic<uint64_t> fed_limbo_at_{0};
  // 1 while a call is inside anchor_set, kAnchorsFrozen once a page may have been encoded.
  static constexpr uint32_t kAnchorsFrozen = uint32_t{1} << 31;
  std::atomic<uint32_t> anchors_{0};
  std::atomic<uint64_t> earliest_deadline_{UINT64_MAX};
};

}  // namespace quire
