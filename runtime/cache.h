// Cache: the parts of design put together; what a `quire_cache *` points to.
//
// It owns the region (metadata), the arenas (frames), the device, the clock's timer and the reclaimer, and
// holds the rules by which they meet. Its verbs are spread over files by noun:
//
//   cache.cpp      open, close, step, tick            lookup.cpp    match, acquire, release, clone, renew
//   pages.cpp      alloc, free, frames, info          publish.cpp   publish
//   seal.cpp       seal, unseal, copy of a page       kv.cpp        append, gather, attention, anchor
//   sequence.cpp   sequences                          insight.cpp   stats, check, events
//   c_api.cpp      the C boundary: checks pointers and sizes, converts, and calls these
//
// Who owns what
//   a page is FREE (in page_pool), PRIVATE (of a lease, a sequence or a caller), VISIBLE (in the index), or for a
//   moment EVICTING;
//   a frame is free (in its pool), held by exactly one page, or in limbo.
//
// Invariants, quiescent (check() asserts them)
//   free + private + visible                == pages
//   frames in pool + held + limbo           == frames, per class
//   children(p)                             == visible pages whose parent is p
//   ref(p)                                  == leases whose tail is p
//   visible(p) and parent(p) != none        => visible(parent(p)), depth(p) == depth(parent) + 1
//   children(namespace)                     == visible pages in it
//
// Thread class: every verb may run in any thread at any time. Verbs on one lease exclude each other by the
// lease's busy bit, verbs on one private page by the page's busy flag; a loser gets kBusy and never waits.
#pragma once

#include <memory>

#include "allocators/arena.h"
#include "allocators/heap.h"
#include "kernels/codec.h"
#include "quire/quire.h"
#include "runtime/config.h"
#include "runtime/device.h"
#include "runtime/handle.h"
#include "runtime/keys.h"
#include "runtime/reclaimer.h"
#include "runtime/region.h"
#include "runtime/status.h"
#include "runtime/stream_table.h"
#include "runtime/tables.h"

namespace quire {

class SequenceTable;

// Flags of a page's descriptor.
inline constexpr uint16_t kPageOpen = 1;    // its frame is an open one
inline constexpr uint16_t kPageSealed = 2;  // encoded
inline constexpr uint16_t kPageLossy = 4;   // decoded from a sealed page
inline constexpr uint16_t kPageBusy = 8;    // a verb works on this private page
inline constexpr uint16_t kPageShared = 16; // of a sequence: counted by the children bits

enum class FrameClass : uint32_t { kSealed = 0, kOpen = 1 };

// Whether a page may be found: neither past its absolute expiry nor of a namespace that was evicted. Goes from true to
// false, never back, and never for a parent before its child. now_ms 0: the cache has no absolute TTLs.
struct Alive {
  const PageTable<> *pages;
  const NamespaceTable *spaces;
  uint64_t now_ms;

  bool operator()(uint32_t page) const noexcept {
    const PageDescriptor &d = (*pages)[page];
    const uint32_t space = d.space.load(std::memory_order_relaxed);
    if (d.space_generation.load(std::memory_order_relaxed) != spaces->generation(space)) return false;
    return now_ms == 0 || d.expiry_ms.load(std::memory_order_relaxed) > now_ms;
  }
};

// quire_key and Key are the same two words.
inline const Key *to_keys(const quire_key *keys) noexcept {
  static_assert(sizeof(Key) == sizeof(quire_key) && alignof(Key) == alignof(quire_key));
  return reinterpret_cast<const Key *>(keys);
}
inline Key to_key(quire_key key) noexcept { return Key{key.lo, key.hi}; }

class Cache {
 public:
  // device: nullptr takes the one that the config names. A test passes its adversary, which must outlive the cache.
  static Status open(const Config &config, Device *device, Cache **out) noexcept;
  static Status close(Cache *cache) noexcept;

  // ---- lookup.cpp
  Status match(const quire_prefix &prefix, quire_hit *hit) noexcept;
  Status acquire(const quire_prefix &prefix, const quire_acquire_options &options, quire_page *pages,
                 quire_hit *hit, quire_lease *lease) noexcept;
  Status release(quire_lease lease, const quire_retention *retention) noexcept;
  Status clone(quire_lease lease, uint32_t pages, const quire_acquire_options &options,
               quire_lease *out) noexcept;
  Status renew(quire_lease lease, uint64_t deadline_ms) noexcept;
  Status lease_info(quire_lease lease, quire_lease_record *out) noexcept;
  Status lease_next(quire_lease *lease) noexcept;

  // ---- pages.cpp
  Status alloc(uint32_t n, const quire_alloc_options &options, quire_page *pages) noexcept;
  Status free(const quire_page *pages, uint32_t n) noexcept;
  Status frames(const quire_page *pages, uint32_t n, int32_t *out) noexcept;
  Status page_info(quire_page page, quire_page_record *out) noexcept;
  Status page_data(quire_page page, void **data, size_t *bytes) noexcept;

  // ---- seal.cpp
  Status seal(const quire_page *pages, uint32_t n, Stream stream) noexcept;

  // ---- publish.cpp
  Status publish(quire_lease lease, const quire_prefix &prefix, quire_page *pages,
                 const quire_publish_options &options, quire_publish_result *result) noexcept;
  Status namespace_set(Key root, const quire_namespace &settings) noexcept;
  Status evict_namespace(Key root) noexcept;

  // ---- cache.cpp
  Status stream_add(Stream stream, uint32_t rank, uint32_t flags) noexcept;
  Status stream_remove(Stream stream) noexcept;
  Status step() noexcept;
  // kInvalid in a child of fork(): every C call asks first.
  Status check_process() const noexcept;
  uint64_t now_ms() const noexcept { return config_.clock(config_.clock_user); }

  // ---- kv.cpp
  Status kv_append(const quire_append_args &args) noexcept;
  Status kv_gather(const quire_gather_args &args) noexcept;
  Status attention(const quire_attention_args &args) noexcept;
  Status attention_workspace(const quire_attention_bounds &bounds, size_t *bytes) noexcept;
  Status anchor_set(uint32_t layer, const float *means) noexcept;

  // ---- insight.cpp
  void stats(quire_stats *out) noexcept;
  Status check(uint32_t flags) noexcept;

  const Config &config() const noexcept { return config_; }
  Region &region() noexcept { return region_; }
  Tables &tables() noexcept { return *tables_; }
  Device &device() noexcept { return *device_; }
  StreamTable<> &streams() noexcept { return *streams_; }
  KeyMaker &keys() noexcept { return keys_; }
  Heap &heap() noexcept { return heap_; }
  SequenceTable &sequences() noexcept { return *sequences_; }
  uint32_t tag() const noexcept { return tag_; }
  const quire_page_layout &layout(FrameClass c) const noexcept {
    return c == FrameClass::kOpen ? open_layout_ : layout_;
  }
  void *frame_address(FrameClass c, uint32_t frame) const noexcept;

  // ---- for sequence.cpp and kv.cpp: the steps that verbs share
  // A stream argument: NULL, or registered, else kInvalid. *slot is kNoIndex for NULL.
  Status find_stream(Stream stream, uint32_t *slot) noexcept;
  // Frames of a class, all or nothing; evicts where it must. kAgain, kNomem.
  Status take_frames(FrameClass c, uint32_t n, uint32_t stream_slot, uint32_t *frames) noexcept;
  // Frames that some reader may still read, as of now.
  void retire_frame(FrameClass c, uint32_t frame, uint64_t epoch, bool zero) noexcept;
  // One private page with a frame of the class, on no lease. Its generation is current.
  Status take_page(FrameClass c, uint32_t stream_slot, uint32_t index_in_chain, Handle *out) noexcept;
  void drop_page(uint32_t page) noexcept;  // a private page whose busy flag the caller holds
  quire_page page_handle(uint32_t page) const noexcept;
  // A private or visible page behind a handle. kStale.
  Status find_page(quire_page handle, uint32_t *page) const noexcept;
  int32_t block_entry(uint32_t page) const noexcept;

 private:
  friend class Reclaimer;
  Cache() = default;
  ~Cache();

  Config config_;
  Region region_;
  Heap heap_;
  std::unique_ptr<Tables> tables_;
  uint32_t tag_ = 0;
};

}  // namespace quire
