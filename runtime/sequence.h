// Sequence: a block table that grows, forks copy-on-write and rolls back.
//
//   pages     | chain: published, pinned by the lease | private: full | private: partial | reserved ... |
//   tokens    | committed                                                                | reserved     |
//
// Invariants, between verbs
//   published <= committed <= reserved, all in tokens; published == chain * page_tokens
//   pages.size() == ceil(reserved / page_tokens) a page behind the chain is private and one of its
//   shares is ours; the children bits of its state word count the further sequences that share it
//   (runtime/page_table.h) full committed pages are sealed; only the page that holds token
//   `reserved` and those behind it are open tokens.size() == committed while the sequence may still
//   publish, else 0
//
// Copy-on-write. A fork shares every committed page. Before a sequence writes to a page (append
// into a partial one, or encoding it) that others share, it takes a copy and gives its share up.
// The copy may still be on its way on another stream when the last sharer goes on in the old page;
// so that one waits for that stream, or takes a copy, too (Cache::changeable). Where the parent has
// reserved room in the partial page, its engine may still be writing behind the committed tokens:
// then the fork gets its copy at once.
//
// Streams. A page behind the chain names its writer: the stream of the last commit, encoding or
// copy, and the epoch. Whatever works on the page next, a copy, an encoder, the engine that appends
// to it, on another stream, comes after the writer: the stream is made to wait for it. Where no
// step has recorded an event since, that cannot be, and the verb says kAgain, with nothing changed.
// So one writer stands for all that came before it.
//
// Rolling back into a sealed page. The rest of it is decoded into an open page, marked lossy, and
// nothing of this sequence is published any more: what others find must be what the model computed.
// Plain formats lose nothing, so there the page is copied and the sequence goes on publishing.
//
// Sequences live in the process (their tables grow), in slots as leases do: one verb at a time on
// each.
#pragma once

#include <cstdint>

#include "allocators/frame_pool.h"
#include "allocators/heap.h"
#include "quire/quire.h"
#include "runtime/device.h"
#include "runtime/handle.h"
#include "runtime/page_table.h"
#include "runtime/slot_table.h"
#include "runtime/status.h"

namespace quire {

class Cache;

// A digest of a page of the prompt, with its bytes in Sequence::digests.
struct SequenceExtra {
  uint32_t page;
  uint32_t offset;
  uint32_t bytes;
};

enum class FrameClass : uint32_t;

struct Sequence {
  explicit Sequence(Heap &heap) noexcept : pages(heap), tokens(heap), extras(heap), digests(heap) {}

  HeapVector<uint32_t> pages;
  HeapVector<uint32_t> tokens;
  HeapVector<SequenceExtra> extras;
  HeapVector<uint8_t> digests;
  quire_key root = {};
  quire_lease lease = 0;
  uint32_t chain = 0;  // pages
  uint32_t flags = 0;
  bool publishes = false;
  bool retains = false;
  quire_retention retention = {};
  uint64_t owner = 0;
  uint64_t deadline_ms = 0;
  uint64_t committed = 0;
  uint64_t reserved = 0;
  uint64_t hit = 0;
};

struct SequenceSlot {
  static constexpr const char *kName = "sequences (max_sequences)";
  static constexpr const char *kNoun = "sequence";

  std::atomic<uint32_t> word;
  Sequence *sequence;
};

// The sequences of a cache, in its metadata heap.
class SequenceTable {
 public:
  explicit SequenceTable(Heap &heap) noexcept : heap_(&heap) {}
  ~SequenceTable();
  SequenceTable(const SequenceTable &) = delete;
  SequenceTable &operator=(const SequenceTable &) = delete;

  Status open(uint32_t capacity) noexcept;
  uint32_t live() const noexcept { return slots_.live(); }

  // A new sequence with the caller inside it. kNomem.
  Status create(Handle *handle, Sequence **out) noexcept;
  Status enter(Handle handle, Sequence **out) noexcept;
  void leave(Handle handle) noexcept { slots_.leave(handle.index); }
  void destroy(Handle handle) noexcept;  // by who is inside

 private:
  size_t bytes(uint32_t capacity) const noexcept;

  Heap *heap_;
  void *memory_ = nullptr;
  uint32_t capacity_ = 0;
  SlotTable<SequenceSlot> slots_;
};

// The verbs, on a cache's sequences. As in quire.h.
class Sequences {
 public:
  explicit Sequences(Cache &cache) noexcept : cache_(cache) {}

  Status open(const quire_key &root, const uint32_t *tokens, size_t n_tokens,
              const quire_seq_options &options, quire_hit *hit, quire_seq *out);
  Status append(quire_seq seq, uint32_t n, quire_stream stream, int64_t *slots);
  Status commit(quire_seq seq, const uint32_t *tokens, uint32_t n, quire_stream stream);
  Status fork(quire_seq seq, quire_stream stream, quire_seq *child);
  Status truncate(quire_seq seq, uint64_t n_tokens, quire_stream stream);
  Status block_table(quire_seq seq, int32_t *out, uint32_t room, uint32_t *n_pages,
                     uint64_t *kv_len);
  Status info(quire_seq seq, quire_seq_record *out);
  Status close(quire_seq seq, const quire_retention *retention);

 private:
  // The table's, and counted where a reader from outside sees it.
  Status create(Handle *handle, Sequence **out) noexcept;
  void destroy(Handle handle) noexcept;
  Status enter(quire_seq seq, Handle *handle, Sequence **out) noexcept;
  Status acquire(Sequence &s, const uint32_t *tokens, size_t n_tokens,
                 const quire_seq_options &options, quire_hit *hit);
  Status keep_extras(Sequence &s, const quire_page_extra *extra, size_t n_extra);
  // A copy of page i that is this sequence's alone; the old share is given up by the caller's
  // switch.
  Status copy_page(const Sequence &s, uint32_t i, bool decode, Stream stream, uint32_t stream_slot,
                   uint32_t *out);
  Status take_pages(const Sequence &s, FrameClass c, uint32_t n, uint32_t stream_slot,
                    uint32_t index, uint32_t *out) noexcept;
  Status own_page(Sequence &s, uint32_t i, Stream stream, uint32_t stream_slot);
  Status own_and_seal(Sequence &s, uint32_t first, uint32_t last, Stream stream,
                      uint32_t stream_slot);
  void publish(Sequence &s, Handle lease, uint32_t first, uint32_t last, Stream stream,
               uint32_t stream_slot);
  Status page_key(const Sequence &s, uint32_t page, const quire_key &parent, quire_key *out);
  void drop_share(uint32_t page) noexcept;
  bool shared(uint32_t page) const noexcept;
  uint32_t pages_for(uint64_t tokens) const noexcept;

  Cache &cache_;
};

}  // namespace quire
