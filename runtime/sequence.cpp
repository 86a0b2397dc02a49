#include "runtime/sequence.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "runtime/cache.h"

namespace quire {

// ---- the table

size_t SequenceTable::bytes(uint32_t capacity) const noexcept {
  return align_up(SlotTable<SequenceSlot>::bytes(capacity), 128) + FramePool<>::bytes(capacity);
}

Status SequenceTable::open(uint32_t capacity) noexcept {
  memory_ = heap_->allocate(bytes(capacity), 128);
  if (memory_ == nullptr) return set_error(Status::kNomem, "no memory for %u sequences", capacity);
  capacity_ = capacity;
  auto *slots = static_cast<SequenceSlot *>(memory_);
  for (uint32_t i = 0; i < capacity; ++i) {
    new (&slots[i]) SequenceSlot;
    slots[i].word.store(0, std::memory_order_relaxed);
    slots[i].sequence = nullptr;
  }
  FramePool<> pool(
      static_cast<char *>(memory_) + align_up(SlotTable<SequenceSlot>::bytes(capacity), 128),
      capacity);
  slots_ = SlotTable<SequenceSlot>(memory_, capacity, pool);
  slots_.format();
  return Status::kOk;
}

SequenceTable::~SequenceTable() {
  if (memory_ != nullptr) heap_->deallocate(memory_, bytes(capacity_), 128);
}

Status SequenceTable::create(Handle *handle, Sequence **out) noexcept {
  HeapPtr<Sequence> sequence = heap_make<Sequence>(*heap_, *heap_);
  if (sequence == nullptr) return set_error(Status::kNomem, "no memory for a sequence");
  if (const Status s = slots_.open(handle); s != Status::kOk) return s;
  *out = slots_.slot(handle->index).sequence = sequence.release();
  return Status::kOk;
}

Status SequenceTable::enter(Handle handle, Sequence **out) noexcept {
  if (const Status s = slots_.enter(handle); s != Status::kOk) return s;
  *out = slots_.slot(handle.index).sequence;
  return Status::kOk;
}

void SequenceTable::destroy(Handle handle) noexcept {
  SequenceSlot &slot = slots_.slot(handle.index);
  HeapDelete<Sequence>{heap_}(slot.sequence);
  slot.sequence = nullptr;
  slots_.close(handle.index);
}

// ---- helpers

Status Sequences::create(Handle *handle, Sequence **out) noexcept {
  const Status status = cache_.sequences().create(handle, out);
  if (status == Status::kOk) {
    cache_.region().header().sequences.fetch_add(1, std::memory_order_relaxed);
  }
  return status;
}

void Sequences::destroy(Handle handle) noexcept {
  cache_.sequences().destroy(handle);
  cache_.region().header().sequences.fetch_sub(1, std::memory_order_relaxed);
}

Status Sequences::enter(quire_seq seq, Handle *handle, Sequence **out) noexcept {
  if (!unpack_handle(HandleKind::kSequence, cache_.tag(), seq, handle)) {
    return set_error(Status::kStale, "sequence %016llx is none of this cache",
                     static_cast<unsigned long long>(seq));
  }
  return cache_.sequences().enter(*handle, out);
}

uint32_t Sequences::pages_for(uint64_t tokens) const noexcept {
  const uint32_t per_page = cache_.config().page_tokens();
  return static_cast<uint32_t>((tokens + per_page - 1) / per_page);
}

bool Sequences::shared(uint32_t page) const noexcept {
  const PageView view = cache_.tables().pages.view(page);
  return view.state != PageState::kPrivate || view.children != 0;
}

void Sequences::drop_share(uint32_t page) noexcept {
  cache_.drop_page(page);
}

Status Sequences::take_pages(const Sequence &s, FrameClass c, uint32_t n, uint32_t stream_slot,
                             uint32_t index, uint32_t *out) noexcept {
  const uint32_t space = cache_.space_of(to_key(s.root));
  if (const Status status = cache_.take_pages(c, n, stream_slot, index, space, out);
      status != Status::kOk) {
    return status;
  }
  PageTable<> &pages = cache_.tables().pages;
  for (uint32_t i = 0; i < n; ++i) {
    // Ours until it is published or freed. Nobody has a handle of this life yet.
    static_cast<void>(pages.hold(out[i], pages.generation(out[i])));
  }
  return Status::kOk;
}

Status Sequences::copy_page(const Sequence &s, uint32_t i, bool decode, Stream stream,
                            uint32_t stream_slot, uint32_t *out) {
  const bool open = cache_.config().has_open && (decode || cache_.is_open(s.pages[i]));
  const FrameClass c = open ? FrameClass::kOpen : FrameClass::kSealed;
  if (const Status status = cache_.follow_writer(s.pages[i], stream, stream_slot);
      status != Status::kOk) {
    return status;
  }
  if (const Status status = take_pages(s, c, 1, stream_slot, i, out); status != Status::kOk) {
    return status;
  }
  const Status status = decode ? cache_.unseal_into(s.pages[i], *out, stream)
                               : cache_.copy_into(s.pages[i], *out, stream, stream_slot);
  if (status != Status::kOk) {
    cache_.drop_page(*out);
    return status;
  }
  cache_.note_writer(*out, stream_slot);
  return Status::kOk;
}

// Page i is this sequence's alone, and work on the stream may write to it: behind its writer, who
// may have been a copy of the whole frame or have written tokens that were rolled back, and behind
// copies of it.
Status Sequences::own_page(Sequence &s, uint32_t i, Stream stream, uint32_t stream_slot) {
  if (!shared(s.pages[i]) && cache_.changeable(s.pages[i], stream, stream_slot)) {
    return cache_.follow_writer(s.pages[i], stream, stream_slot);
  }
  uint32_t copy;
  if (const Status status = copy_page(s, i, false, stream, stream_slot, &copy);
      status != Status::kOk) {
    return status;
  }
  drop_share(s.pages[i]);
  s.pages[i] = copy;
  cache_.tables().stats.add(Counter::cow_copies_total);
  return Status::kOk;
}

// ---- open, close

Status Sequences::keep_extras(Sequence &s, const quire_page_extra *extra, size_t n_extra) {
  for (size_t i = 0; i < n_extra; ++i) {
    if (extra[i].bytes > 0 && extra[i].digest == nullptr) {
      return set_error(Status::kInvalid, "extra[%zu].digest is NULL", i);
    }
    const SequenceExtra kept{extra[i].page, static_cast<uint32_t>(s.digests.size()),
                             extra[i].bytes};
    const auto *bytes = static_cast<const uint8_t *>(extra[i].digest);
    if (!s.extras.try_push(kept) || !s.digests.try_append(bytes, extra[i].bytes)) {
      return set_error(Status::kNomem, "no memory for %zu digests", n_extra);
    }
  }
  return Status::kOk;
}

Status Sequences::acquire(Sequence &s, const uint32_t *tokens, size_t n_tokens,
                          const quire_seq_options &options, quire_hit *hit) {
  const uint32_t per_page = cache_.config().page_tokens();
  size_t full = s.publishes ? n_tokens / per_page : 0;
  if (full > 0 && (options.flags & QUIRE_SEQ_LEAVE_ONE) != 0 && full * per_page == n_tokens) --full;
  if (full > UINT32_MAX) return set_error(Status::kInvalid, "%zu tokens", n_tokens);
  HeapVector<quire_key> keys(cache_.heap());
  HeapVector<quire_page> pages(cache_.heap());
  if (!keys.try_resize(full) || !pages.try_resize(full) || !s.pages.try_resize(full) ||
      !s.tokens.try_append(tokens, full * per_page)) {
    return set_error(Status::kNomem, "no memory for a prompt of %zu tokens", n_tokens);
  }
  size_t n_extra = 0;
  while (n_extra < options.n_extra && options.extra[n_extra].page < full) ++n_extra;
  size_t n = full;
  Status status = cache_.keys().chain_keys(s.root, tokens, full * per_page, per_page, options.extra,
                                           n_extra, keys.data(), &n);
  if (status != Status::kOk) return status;
  quire_prefix prefix = {};
  prefix.n = static_cast<uint32_t>(full);
  prefix.root = s.root;
  prefix.keys = keys.data();
  prefix.tokens = tokens;
  quire_acquire_options acquire = {};
  acquire.flags = kLeaseOfSequence;
  acquire.owner = options.owner;
  acquire.deadline_ms = options.deadline_ms;
  acquire.stream = options.stream;
  status = cache_.acquire(prefix, acquire, pages.data(), hit, &s.lease);
  if (status != Status::kOk) return status;
  s.chain = hit->pages;
  for (uint32_t i = 0; i < s.chain; ++i) s.pages[i] = static_cast<uint32_t>(pages[i]);
  while (s.pages.size() > s.chain) s.pages.pop_back();
  s.hit = s.committed = s.reserved = uint64_t{s.chain} * per_page;
  while (s.tokens.size() > s.committed) s.tokens.pop_back();
  return Status::kOk;
}

Status Sequences::open(const quire_key &root, const uint32_t *tokens, size_t n_tokens,
                       const quire_seq_options &options, quire_hit *hit, quire_seq *out) {
  if (const Status s = Cache::check_retention(options.retention, true); s != Status::kOk) return s;
  uint32_t stream_slot;
  if (const Status s = cache_.find_stream(options.stream, &stream_slot); s != Status::kOk) return s;
  Handle handle;
  Sequence *s = nullptr;
  if (const Status status = create(&handle, &s); status != Status::kOk) {
    return status;
  }
  s->root = root;
  s->flags = options.flags;
  s->publishes = (options.flags & QUIRE_SEQ_PRIVATE) == 0;
  s->owner = options.owner;
  s->deadline_ms = options.deadline_ms;
  if (options.retention != nullptr) {
    s->retains = true;
    s->retention = *options.retention;
  }
  quire_hit found = {};
  Status status = keep_extras(*s, options.extra, options.n_extra);
  if (status == Status::kOk) status = acquire(*s, tokens, n_tokens, options, &found);
  if (status != Status::kOk) {
    destroy(handle);
    return status;
  }
  hit->pages = found.pages;
  hit->on_device = found.on_device;
  hit->on_host = found.on_host;
  *out = pack_handle(HandleKind::kSequence, cache_.tag(), handle);
  cache_.sequences().leave(handle);
  return Status::kOk;
}

Status Sequences::close(quire_seq seq, const quire_retention *retention) {
  Handle handle;
  Sequence *s = nullptr;
  if (const Status status = Cache::check_retention(retention, false); status != Status::kOk) {
    return status;
  }
  if (const Status status = enter(seq, &handle, &s); status != Status::kOk) return status;
  if (const Status status = cache_.release_owned(s->lease, retention); status != Status::kOk) {
    cache_.sequences().leave(handle);
    return status;
  }
  for (size_t i = s->chain; i < s->pages.size(); ++i) drop_share(s->pages[i]);
  destroy(handle);
  return Status::kOk;
}

// ---- append, commit

Status Sequences::append(quire_seq seq, uint32_t n, quire_stream stream, int64_t *slots) {
  uint32_t stream_slot;
  if (const Status s = cache_.find_stream(stream, &stream_slot); s != Status::kOk) return s;
  Handle handle;
  Sequence *s = nullptr;
  if (const Status status = enter(seq, &handle, &s); status != Status::kOk) return status;
  const uint32_t per_page = cache_.config().page_tokens();
  const auto have = static_cast<uint32_t>(s->pages.size());
  const uint32_t want = pages_for(s->reserved + n);
  Status status = Status::kOk;
  const FrameClass c = cache_.config().has_open ? FrameClass::kOpen : FrameClass::kSealed;
  const Shape &shape = cache_.config().shape;
  const uint32_t frames = c == FrameClass::kOpen ? shape.open_frames : shape.frames;
  if (want - have > frames) {
    // Before anything is evicted for what can never be.
    status = set_error(Status::kNomem, "%u pages of %u", want - have, frames);
  } else if (!s->pages.try_reserve(want)) {
    status = set_error(Status::kNomem, "no memory for a block table");
  }
  uint32_t taken = have;
  while (status == Status::kOk && taken < want) {
    uint32_t batch[64];
    const uint32_t count = std::min<uint32_t>(want - taken, 64);
    status = take_pages(*s, c, count, stream_slot, taken, batch);
    if (status != Status::kOk) break;
    // Room was reserved above.
    for (uint32_t i = 0; i < count; ++i) static_cast<void>(s->pages.try_push(batch[i]));
    taken += count;
  }
  const bool partial = s->reserved % per_page != 0;
  if (status == Status::kOk && n > 0 && partial) {
    status = own_page(*s, have - 1, stream, stream_slot);
  }
  if (status != Status::kOk) {
    for (; taken > have; --taken) {
      cache_.drop_page(s->pages.back());
      s->pages.pop_back();
    }
  } else {
    for (uint32_t i = 0; i < n && slots != nullptr; ++i) {
      const uint64_t token = s->reserved + i;
      const int64_t entry = cache_.block_entry(s->pages[token / per_page]);
      const auto offset = static_cast<int64_t>(token % per_page);
      slots[i] = entry >= 0 ? entry * per_page + offset : -2 - ((-2 - entry) * per_page + offset);
    }
    s->reserved += n;
  }
  cache_.sequences().leave(handle);
  return status;
}

// Pages [first, last) have become full: ours alone, and in their final encoding.
Status Sequences::own_and_seal(Sequence &s, uint32_t first, uint32_t last, Stream stream,
                               uint32_t stream_slot) {
  if (!cache_.config().has_open) return Status::kOk;
  HeapVector<quire_page> open(cache_.heap());
  if (!open.try_reserve(last - first)) {
    return set_error(Status::kNomem, "no memory to seal %u pages", last - first);
  }
  for (uint32_t i = first; i < last; ++i) {
    if (!cache_.is_open(s.pages[i])) continue;
    const Status status = shared(s.pages[i]) ? own_page(s, i, stream, stream_slot) : Status::kOk;
    if (status != Status::kOk) return status;
    static_cast<void>(open.try_push(s.pages[i]));
  }
  return cache_.seal_claimed(open.data(), static_cast<uint32_t>(open.size()), stream, stream_slot,
                             cache_.space_of(to_key(s.root)));
}

Status Sequences::page_key(const Sequence &s, uint32_t page, const quire_key &parent,
                           quire_key *out) {
  const uint32_t per_page = cache_.config().page_tokens();
  HeapVector<quire_page_extra> extra(cache_.heap());
  for (const SequenceExtra &kept : s.extras) {
    if (kept.page != page) continue;
    const quire_page_extra one{0, kept.bytes, s.digests.data() + kept.offset};
    if (!extra.try_push(one)) return set_error(Status::kNomem, "no memory for digests");
  }
  size_t n = 1;
  return cache_.keys().chain_keys(parent, s.tokens.data() + size_t{page} * per_page, per_page,
                                  per_page, extra.data(), extra.size(), out, &n);
}

// Full pages [first, last) become findable, as far as the index takes them. Never fails the commit:
// what is not published is private. The caller is inside the lease.
void Sequences::publish(Sequence &s, Handle lease, uint32_t first, uint32_t last, Stream stream,
                        uint32_t stream_slot) {
  Cache &c = cache_;
  Namespace space;
  if (c.tables().spaces.enter(to_key(s.root), &space) != Status::kOk) {
    s.publishes = false;
    return;
  }
  const uint32_t room = c.begin_pages(space, last - first);
  uint32_t published = 0, duplicate = 0;
  PublishContext context =
      c.publish_context(s.retains ? &s.retention : nullptr, stream, stream_slot);
  context.reads = true;
  LeaseSlot &slot = c.tables().leases.slot(lease.index);
  uint32_t tail = slot.tail.load(std::memory_order_relaxed);
  for (uint32_t i = first; i < last && s.publishes; ++i) {
    const uint32_t page = s.pages[i];
    quire_key key;
    const quire_key parent = tail == kNoIndex ? s.root : c.key_of(tail);
    bool found = false;
    const bool more = published - duplicate < room;
    c.keep_tokens(page, s.tokens.data() + size_t{i} * c.config().page_tokens());
    if (page_key(s, i, parent, &key) != Status::kOk ||
        c.publish_page(page, to_key(key), space, context, more, &tail, &found) != Status::kOk) {
      c.count_unpublished(more, last - i);
      s.publishes = false;
      break;
    }
    s.chain = i + 1;
    ++published;
    if (!found) {
      c.tables().pages.unhold(page);
      continue;
    }
    ++duplicate;
    drop_share(page);
    s.pages[i] = tail;
  }
  slot.tail.store(tail, std::memory_order_relaxed);
  slot.pages.store(s.chain, std::memory_order_relaxed);
  c.end_pages(space, room, published, duplicate);
  c.tables().spaces.leave(space.number);
}

Status Sequences::commit(quire_seq seq, const uint32_t *tokens, uint32_t n, quire_stream stream) {
  uint32_t stream_slot;
  if (const Status s = cache_.find_stream(stream, &stream_slot); s != Status::kOk) return s;
  Handle handle;
  Sequence *s = nullptr;
  if (const Status status = enter(seq, &handle, &s); status != Status::kOk) return status;
  const uint32_t per_page = cache_.config().page_tokens();
  Status status = Status::kOk;
  if (s->committed + n > s->reserved) {
    status = set_error(Status::kInvalid, "%u tokens committed, %llu are reserved", n,
                       static_cast<unsigned long long>(s->reserved - s->committed));
  }
  const bool publishes = s->publishes && tokens != nullptr;
  if (status == Status::kOk && publishes && !s->tokens.try_reserve(s->committed + n)) {
    status = set_error(Status::kNomem, "no memory for %u token ids", n);
  }
  const auto first = static_cast<uint32_t>(s->committed / per_page);
  const auto last = static_cast<uint32_t>((s->committed + n) / per_page);
  // The lease comes before the sealing: that is not undone.
  const bool enters = status == Status::kOk && publishes && last > first;
  Handle lease;
  if (enters) status = cache_.enter_lease(s->lease, &lease);
  const bool inside = enters && status == Status::kOk;
  // One writer stands for all of a page's: the last, which comes after the others.
  if (status == Status::kOk && n > 0) {
    status = cache_.follow_writer(s->pages[first], stream, stream_slot);
  }
  if (status == Status::kOk && last > first) {
    status = own_and_seal(*s, first, last, stream, stream_slot);
  }
  if (status == Status::kOk) {
    const uint32_t sealed = cache_.config().has_open ? last : first;
    for (uint32_t i = sealed; i < pages_for(s->committed + n); ++i) {
      cache_.note_writer(s->pages[i], stream_slot);
    }
    // A prompt may go on on another stream, which waits for this event; what is decoded token by
    // token stays where it is, and should cost none.
    if (n > 1 && stream_slot != kNoIndex) {
      cache_.streams().want_of(stream_slot, cache_.clock_epoch());
    }
  }
  if (status == Status::kOk && publishes) {
    static_cast<void>(s->tokens.try_append(tokens, n));  // reserved above
    if (last > first) publish(*s, lease, first, last, stream, stream_slot);
  }
  if (inside) cache_.tables().leases.leave(lease.index);
  if (status == Status::kOk) {
    s->committed += n;
    s->publishes = s->publishes && (publishes || n == 0);
    if (!s->publishes) s->tokens.reset();
  }
  cache_.sequences().leave(handle);
  return status;
}

// ---- fork, truncate

Status Sequences::fork(quire_seq seq, quire_stream stream, quire_seq *child) {
  uint32_t stream_slot;
  if (const Status s = cache_.find_stream(stream, &stream_slot); s != Status::kOk) return s;
  Handle from, to, lease;
  Sequence *s = nullptr, *f = nullptr;
  if (const Status status = enter(seq, &from, &s); status != Status::kOk) return status;
  Status status = create(&to, &f);
  if (status != Status::kOk) {
    cache_.sequences().leave(from);
    return status;
  }
  const uint32_t per_page = cache_.config().page_tokens();
  const uint32_t n_pages = pages_for(s->committed);
  uint32_t shared_pages = s->chain;
  if (!f->pages.try_append(s->pages.data(), n_pages) ||
      !f->tokens.try_append(s->tokens.data(), s->tokens.size()) ||
      !f->extras.try_append(s->extras.data(), s->extras.size()) ||
      !f->digests.try_append(s->digests.data(), s->digests.size())) {
    status = set_error(Status::kNomem, "no memory to fork a sequence");
  }
  if (status == Status::kOk) {
    quire_acquire_options options = {};
    options.flags = kLeaseOfSequence;
    options.owner = s->owner;
    options.deadline_ms = s->deadline_ms;
    status = cache_.clone_inside(s->lease, s->chain, options, &lease);
  }
  const bool leased = status == Status::kOk;
  for (uint32_t i = s->chain; i < n_pages && status == Status::kOk; ++i) {
    const bool written =
        i + 1 == n_pages && s->committed % per_page != 0 && s->reserved > s->committed;
    if (written) {
      status = copy_page(*s, i, false, stream, stream_slot, &f->pages[i]);
      if (status == Status::kOk) cache_.tables().stats.add(Counter::cow_copies_total);
    } else if (!cache_.tables().pages.add_child(s->pages[i])) {
      status =
          set_error(Status::kBusy, "page %u is shared by as many sequences as it can count", i);
    }
    if (status != Status::kOk) break;
    ++shared_pages;
  }
  if (status != Status::kOk) {
    for (uint32_t i = s->chain; i < shared_pages; ++i) drop_share(f->pages[i]);
    if (leased) cache_.undo_clone(lease);
    destroy(to);
  } else {
    f->lease = pack_handle(HandleKind::kLease, cache_.tag(), lease);
    cache_.tables().leases.leave(lease.index);
    f->root = s->root;
    f->chain = s->chain;
    f->flags = s->flags;
    f->publishes = s->publishes;
    f->retains = s->retains;
    f->retention = s->retention;
    f->owner = s->owner;
    f->deadline_ms = s->deadline_ms;
    f->committed = f->reserved = s->committed;
    f->hit = s->hit;
    *child = pack_handle(HandleKind::kSequence, cache_.tag(), to);
    cache_.sequences().leave(to);
  }
  cache_.sequences().leave(from);
  return status;
}

Status Sequences::truncate(quire_seq seq, uint64_t n_tokens, quire_stream stream) {
  uint32_t stream_slot;
  if (const Status s = cache_.find_stream(stream, &stream_slot); s != Status::kOk) return s;
  Handle handle;
  Sequence *s = nullptr;
  if (const Status status = enter(seq, &handle, &s); status != Status::kOk) return status;
  const uint32_t per_page = cache_.config().page_tokens();
  const uint32_t keep = pages_for(n_tokens);
  const bool cuts_page = n_tokens % per_page != 0;
  const bool has_open = cache_.config().has_open;
  Status status = Status::kOk;
  uint32_t copy = kNoIndex;
  bool decode = false;
  if (n_tokens > s->reserved) {
    status = set_error(Status::kInvalid, "truncate to %llu tokens of %llu",
                       static_cast<unsigned long long>(n_tokens),
                       static_cast<unsigned long long>(s->reserved));
  } else if (cuts_page && n_tokens < s->reserved) {
    // The page that is cut must be one that can be written to. Open ones can, as can plain private
    // ones (own_page sees to the rest when it is written); sealed and published ones cannot.
    const uint32_t page = s->pages[keep - 1];
    decode = has_open && !cache_.is_open(page);
    if (decode || keep <= s->chain) {
      status = copy_page(*s, keep - 1, decode, stream, stream_slot, &copy);
    }
  }
  if (status == Status::kOk) {
    const uint32_t chain = std::min(s->chain, copy == kNoIndex ? keep : keep - 1);
    if (chain < s->chain) status = cache_.shorten(s->lease, chain);
    if (status != Status::kOk && copy != kNoIndex) cache_.drop_page(copy);
    if (status == Status::kOk) {
      if (copy != kNoIndex && keep > s->chain) drop_share(s->pages[keep - 1]);
      for (size_t i = std::max<size_t>(keep, s->chain); i < s->pages.size(); ++i) {
        drop_share(s->pages[i]);
      }
      while (s->pages.size() > keep) s->pages.pop_back();
      if (copy != kNoIndex) s->pages[keep - 1] = copy;
      s->chain = chain;
      s->reserved = n_tokens;
      s->committed = std::min(s->committed, n_tokens);
      if (decode) s->publishes = false;
      if (!s->publishes) s->tokens.reset();
      while (s->tokens.size() > s->committed) s->tokens.pop_back();
    }
  }
  cache_.sequences().leave(handle);
  return status;
}

// ---- looking

Status Sequences::block_table(quire_seq seq, int32_t *out, uint32_t room, uint32_t *n_pages,
                              uint64_t *kv_len) {
  Handle handle;
  Sequence *s = nullptr;
  if (const Status status = enter(seq, &handle, &s); status != Status::kOk) return status;
  const auto n = static_cast<uint32_t>(s->pages.size());
  Status status = Status::kOk;
  if (out != nullptr && room < n) {
    status = set_error(Status::kInvalid, "a block table of %u pages in room for %u", n, room);
  } else if (out != nullptr) {
    for (uint32_t i = 0; i < n; ++i) out[i] = cache_.block_entry(s->pages[i]);
  }
  if (n_pages != nullptr) *n_pages = n;
  if (kv_len != nullptr) *kv_len = s->reserved;
  cache_.sequences().leave(handle);
  return status;
}

Status Sequences::info(quire_seq seq, quire_seq_record *out) {
  Handle handle;
  Sequence *s = nullptr;
  if (const Status status = enter(seq, &handle, &s); status != Status::kOk) return status;
  out->flags = s->flags;
  out->reserved = s->reserved;
  out->committed = s->committed;
  out->published = uint64_t{s->chain} * cache_.config().page_tokens();
  out->hit = s->hit;
  out->lease = s->lease;
  cache_.sequences().leave(handle);
  return Status::kOk;
}

}  // namespace quire
