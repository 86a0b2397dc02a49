// Publish: private pages become part of the shared index.
//
// A lease's chain grows by one page a step, under the pin of the chain's tail:
//
//   1. the tail is alive, else stop (nothing can be found below a dead page)
//   2. the page's descriptor is filled: parent, depth, namespace and its generation, expiry =
//      min(asked, parent's), writer and epoch of readiness, stamp = now
//   3. children(parent) + 1; a counter at its limit stops the publish. claimed(namespace) is raised
//      once a call, by all that may come and the quota allows, and lowered by what did not
//   4. insert: ours becomes visible with one pin (ours), or the canonical page of this key is
//      pinned for us
//   5. the pin on the old tail is dropped, the new page is the tail
//
// So there is no moment at which the new page, or the old tail, could be evicted. On anything but
// an insert, step 3 is undone. pages(namespace) is raised once a call, at its end: until then the
// lease holds what came. Exactly-once is the index's (one live page a key); a prefix is
// published because a step comes only after the one before it.
#include <algorithm>

#include "runtime/cache.h"

namespace quire {
namespace {

// An insert's bin is asked for so many pages before its turn.
constexpr uint32_t kBinsAhead = 8;

}  // namespace

Status Cache::check_retention(const quire_retention *retention, bool absolute_allowed) noexcept {
  if (retention == nullptr) return Status::kOk;
  if (retention->priority > 4) {
    return set_error(Status::kInvalid, "retention: priority %u, 0 to 4 are known",
                     retention->priority);
  }
  if (retention->cls > 8) {
    return set_error(Status::kInvalid, "retention: class %u, 0 to 8 are known", retention->cls);
  }
  if (retention->absolute_ttl_ms != 0 && !absolute_allowed) {
    return set_error(Status::kInvalid, "retention: an absolute TTL is set at publish only");
  }
  return Status::kOk;
}

// What a page that the caller owns or pins is kept by. Zero fields leave what is there.
void Cache::retain(uint32_t page, const quire_retention &retention) noexcept {
  PageTable<> &pages = tables_->pages;
  uint8_t cls = pages.page_class(page);
  if (retention.priority != 0) cls = with_priority(cls, retention.priority - 1);
  if (retention.cls != 0) cls = with_class(cls, retention.cls - 1);
  if (retention.idle_ttl_ms != 0) {
    const bool none = retention.idle_ttl_ms == UINT32_MAX;
    pages.set_idle_ttl_ms(page, none ? 0 : retention.idle_ttl_ms);
    cls = static_cast<uint8_t>(none ? cls & ~kTagIdle : cls | kTagIdle);
    if (!none) reclaimer_->note_ttl();
  }
  pages.set_class(page, cls);
}

// Whether `page`, behind `parent`, is never ready before the parent and all above it: the parent is
// ready, or the same stream writes the page after it. Not so where another stream still writes the
// parent (two computed the same prefix, and the one whose page was not taken has gone on behind the
// other's), or where the page was sealed before the parent was written.
bool Cache::ready_above(uint32_t parent, uint32_t page) const noexcept {
  const PageDescriptor &above = tables_->pages[parent];
  const PageDescriptor &d = tables_->pages[page];
  if ((above.flags.load(std::memory_order_relaxed) & kPageBehind) != 0) return false;
  // acquire: pairs with the release in cut_unready().
  const uint16_t writer = above.writer.load(std::memory_order_acquire);
  if (writer == 0) return true;
  const uint32_t epoch = above.ready_epoch.load(std::memory_order_relaxed);
  const uint32_t ours = d.ready_epoch.load(std::memory_order_relaxed);
  if (writer == d.writer.load(std::memory_order_relaxed) &&
      static_cast<int32_t>(ours - epoch) >= 0) {
    return true;
  }
  return streams_->ready(writer - 1u, tables_->clock.widen(epoch));
}

// Everything a descriptor says of a page that is about to be published, but its key.
void Cache::describe_page(uint32_t page, uint32_t parent, const Namespace &space,
                          const PublishContext &context) noexcept {
  PageTable<> &pages = tables_->pages;
  PageDescriptor &d = pages[page];
  uint64_t expiry = context.expiry_ms;
  uint32_t depth = 0;
  if (parent != kNoIndex) {
    expiry = std::min(expiry, pages[parent].expiry_ms.load(std::memory_order_relaxed));
    depth = pages[parent].depth.load(std::memory_order_relaxed) + 1;
  }
  d.parent.store(parent, std::memory_order_relaxed);
  d.depth.store(depth, std::memory_order_relaxed);
  pages.set_space(page, space.number);
  d.space_generation.store(space.generation, std::memory_order_relaxed);
  d.expiry_ms.store(expiry, std::memory_order_relaxed);
  // A page that was sealed, or is a sequence's, has its writer already, which came after all
  // others.
  if (d.writer.load(std::memory_order_relaxed) == 0) {
    d.writer.store(context.writer, std::memory_order_relaxed);
    d.ready_epoch.store(static_cast<uint32_t>(context.epoch), std::memory_order_relaxed);
  }
  if (parent != kNoIndex && !ready_above(parent, page)) {
    d.flags.fetch_or(kPageBehind, std::memory_order_relaxed);
  } else if ((d.flags.load(std::memory_order_relaxed) & kPageBehind) != 0) {
    d.flags.fetch_and(static_cast<uint16_t>(~kPageBehind), std::memory_order_relaxed);
  }
  pages.set_stamp(page, static_cast<uint32_t>(context.epoch));
  pages.set_class(page, with_priority(0, 1));
  pages.set_idle_ttl_ms(page, 0);
  if (config_.values.idle_ttl_ms != 0) {
    quire_retention standard = {};
    standard.idle_ttl_ms = config_.values.idle_ttl_ms;
    retain(page, standard);
  }
  if (context.retention != nullptr) retain(page, *context.retention);
  if (expiry != UINT64_MAX) {
    pages.set_class(page, pages.page_class(page) | kTagExpires);
    reclaimer_->note_ttl();
  }
}

// Whether the canonical page of a key, pinned, may stand in the chain for ours. Not where it hangs
// on another page than our tail, which died meanwhile: then the chain would hold the new one, and
// our caller's handles name the old. And not where its token ids are others, or it is to be read
// and cannot be yet.
bool Cache::may_follow(uint32_t page, uint32_t ours, uint32_t parent,
                       const PublishContext &context) noexcept {
  const Tables &t = *tables_;
  if (t.pages[page].parent.load(std::memory_order_relaxed) != parent) return false;
  if (t.tokens != nullptr) {
    const size_t words = config_.page_tokens();
    const bool same =
        std::equal(t.tokens + page * words, t.tokens + (page + 1) * words, t.tokens + ours * words,
                   [](const auto &a, const auto &b) {
                     return a.load(std::memory_order_relaxed) == b.load(std::memory_order_relaxed);
                   });
    if (!same) {
      tables_->stats.add(Counter::token_mismatches_total);
      return false;
    }
  }
  const uint32_t stream_slot = context.writer == 0 ? kNoIndex : context.writer - 1u;
  return !context.reads || follow_writer(page, context.stream, stream_slot) == Status::kOk;
}

// One step: page `page` with `key` behind `*tail`. kOk: *tail moved on, *found tells a page of
// somebody else. kAgain (no error text): cannot be indexed, nothing has changed. The caller has
// counted the page in its namespace (begin_pages) and tells what became of it (end_pages).
Status Cache::publish_page(uint32_t page, const Key &key, const Namespace &space,
                           const PublishContext &context, bool room, uint32_t *tail,
                           bool *found) noexcept {
  Tables &t = *tables_;
  const uint32_t parent = *tail;
  const Alive alive = this->alive();
  if (parent != kNoIndex && !alive(parent)) return Status::kAgain;
  const uint64_t links = t.pages[page].expiry_ms.load(std::memory_order_relaxed);
  if (parent != kNoIndex && !t.pages.add_child(parent)) return Status::kAgain;
  // From here on the descriptor's expiry word means an expiry, and its lease word an idle TTL; the
  // lease's list lets go of the page.
  const uint32_t lease = t.pages[page].lease.load(std::memory_order_relaxed);
  const uint16_t writer = t.pages[page].writer.load(std::memory_order_relaxed);
  const uint64_t copied = t.pages[page].key_lo.load(std::memory_order_relaxed);
  unlink(page);
  describe_page(page, parent, space, context);
  Insert result{Insert::kFull, kNone};
  if (room) {
    result = t.index.insert(key, page, alive);
  } else if (const uint32_t there = t.index.find_and_pin(key, alive); there != kNone) {
    result = {Insert::kFound, there};
  }
  if (result.status == Insert::kInserted) {
    emit_page(QUIRE_EVENT_STORED, page, 0);
  } else {
    t.pages[page].expiry_ms.store(links, std::memory_order_relaxed);
    t.pages[page].parent.store(kNoIndex, std::memory_order_relaxed);
    t.pages[page].writer.store(writer, std::memory_order_relaxed);
    t.pages[page].key_lo.store(copied, std::memory_order_relaxed);  // see note_copy()
    if (lease != kNoIndex) {
      link_first(lease, page);
    } else {
      t.pages[page].lease.store(kNoIndex, std::memory_order_relaxed);  // it held an idle TTL
    }
    if (parent != kNoIndex) t.pages.drop_child(parent);
    if (result.status != Insert::kFound) return Status::kAgain;
    if (!may_follow(result.page, page, parent, context)) {
      t.pages.unpin(result.page);  // no touch: nothing was read under this pin
      return Status::kAgain;
    }
  }
  *found = result.status == Insert::kFound;
  *tail = result.page;
  if (parent != kNoIndex) drop_pin(parent);
  return Status::kOk;
}

// The private pages that a publish is asked for: valid, of one lease or none, not lossy, claimed.
// The first one's place in the chain is `first`.
Status Cache::claim_for_publish(const quire_page *pages, uint32_t n, uint32_t lease_index,
                                uint32_t first, uint32_t *claimed) noexcept {
  for (*claimed = 0; *claimed < n; ++*claimed) {
    uint32_t page = 0;
    if (const Status s = claim_page_of(pages, *claimed, &page); s != Status::kOk) return s;
    PageDescriptor &d = tables_->pages[page];
    const uint32_t lease = d.lease.load(std::memory_order_relaxed);
    const uint16_t flags = d.flags.load(std::memory_order_relaxed);
    Status status = Status::kOk;
    if (lease != kNoIndex && lease != lease_index) {
      status = set_error(Status::kInvalid, "page %u hangs on another lease", page);
    } else if ((flags & kPageLossy) != 0) {
      status = set_error(Status::kInvalid, "page %u was decoded from a sealed page", page);
    }
    if (status != Status::kOk) {
      unclaim_page(page);
      return status;
    }
    // An open page is encoded for the place that it gets.
    if ((flags & kPageOpen) != 0) d.depth.store(first + *claimed, std::memory_order_relaxed);
  }
  return Status::kOk;
}

Status Cache::check_chain(const LeaseSlot &slot, const quire_prefix &prefix) const noexcept {
  const uint32_t length = slot.pages.load(std::memory_order_relaxed);
  if (prefix.n < length) {
    return set_error(Status::kInvalid, "a prefix of %u pages under a lease on %u", prefix.n,
                     length);
  }
  if (length == 0) return Status::kOk;
  const PageDescriptor &d = tables_->pages[slot.tail.load(std::memory_order_relaxed)];
  const quire_key &key = prefix.keys[length - 1];
  if (d.key_lo.load(std::memory_order_relaxed) == key.lo &&
      d.key_hi.load(std::memory_order_relaxed) == key.hi) {
    return Status::kOk;
  }
  return set_error(Status::kInvalid, "key %u of the prefix is not the one of the lease's last page",
                   length - 1);
}

// The namespace of the prefix, pinned. A chain that goes on has the one it began with: a page of
// another would outlive its parents when that one is evicted.
Status Cache::enter_space(const LeaseSlot &slot, const quire_prefix &prefix,
                          Namespace *space) noexcept {
  if (const Status s = tables_->spaces.enter(to_key(prefix.root), space); s != Status::kOk)
    return s;
  const uint32_t tail = slot.tail.load(std::memory_order_relaxed);
  if (tail == kNoIndex ||
      tables_->pages[tail].space.load(std::memory_order_relaxed) == space->number) {
    return Status::kOk;
  }
  tables_->spaces.leave(space->number);
  *space = Namespace{};
  return set_error(Status::kInvalid, "the root of the prefix is not the one of the lease's chain");
}

void Cache::keep_tokens(uint32_t page, const uint32_t *tokens) noexcept {
  if (tables_->tokens == nullptr) return;
  std::atomic<uint32_t> *at = tables_->tokens + size_t{page} * config_.page_tokens();
  for (uint32_t i = 0; i < config_.page_tokens(); ++i) {
    at[i].store(tokens[i], std::memory_order_relaxed);  // relaxed: make_visible publishes them
  }
}

Status Cache::publish(quire_lease lease, const quire_prefix &prefix, quire_page *pages,
                      const quire_publish_options &options, quire_publish_result *result) noexcept {
  uint32_t stream_slot = kNoIndex;
  if (const Status s = find_stream(options.stream, &stream_slot); s != Status::kOk) return s;
  if (const Status s = check_retention(options.retention, true); s != Status::kOk) return s;
  Handle handle;
  if (const Status s = enter_own_lease(lease, &handle); s != Status::kOk) return s;
  LeaseSlot &slot = tables_->leases.slot(handle.index);
  const uint32_t length = slot.pages.load(std::memory_order_relaxed);
  Status status = check_chain(slot, prefix);
  uint32_t claimed = 0;
  Namespace space;
  if (status == Status::kOk && prefix.n > length) {
    status = claim_for_publish(pages + length, prefix.n - length, handle.index, length, &claimed);
    if (status == Status::kOk) status = enter_space(slot, prefix, &space);
    if (status == Status::kOk) {
      status = seal_for_publish(pages + length, claimed, options.stream, stream_slot, space.number);
      if (status != Status::kOk) tables_->spaces.leave(space.number);
    }
  }
  uint32_t published = 0, duplicate = 0, replaced = 0;
  if (status == Status::kOk && space.number != kNoIndex) {
    const PublishContext context = publish_context(options.retention, options.stream, stream_slot);
    uint32_t tail = slot.tail.load(std::memory_order_relaxed);
    const Key *const keys = to_keys(prefix.keys);
    for (uint32_t i = length; i < std::min(length + kBinsAhead, prefix.n); ++i) {
      tables_->index.prefetch_for_insert(keys[i]);
    }
    const uint32_t asked = prefix.n - length;
    const uint32_t room = begin_pages(space, asked);
    for (uint32_t i = length; i < prefix.n; ++i) {
      if (i + kBinsAhead < prefix.n) tables_->index.prefetch_for_insert(keys[i + kBinsAhead]);
      const auto page = static_cast<uint32_t>(pages[i]);
      bool found = false;
      if (tables_->tokens != nullptr)
        keep_tokens(page, prefix.tokens + size_t{i} * config_.page_tokens());
      const bool more = published - duplicate < room;
      if (publish_page(page, keys[i], space, context, more, &tail, &found) != Status::kOk) {
        count_unpublished(more, prefix.n - i);
        break;
      }
      ++published;
      if (found) ++duplicate;
      if (!found || (options.flags & QUIRE_PUBLISH_REPLACE) == 0 ||
          follow_writer(tail, options.stream, stream_slot) != Status::kOk) {
        unclaim_page(page);
        continue;
      }
      unlink(page);
      drop_page(page);
      pages[i] = page_handle(tail);
      ++replaced;
    }
    end_pages(space, room, published, duplicate);
    tables_->stats.record(Histogram::publish_pages, published);
    slot.tail.store(tail, std::memory_order_relaxed);
    slot.pages.store(length + published, std::memory_order_relaxed);
    tables_->spaces.leave(space.number);
  }
  for (uint32_t i = published; i < claimed; ++i) {
    unclaim_page(static_cast<uint32_t>(pages[length + i]));
  }
  tables_->leases.leave(handle.index);
  if (status == Status::kOk && result != nullptr) {
    result->n_published = published;
    result->n_replaced = replaced;
    result->n_duplicate = duplicate;
  }
  return status;
}

// The open ones among claimed pages are sealed; all or nothing where frames are short.
Status Cache::seal_for_publish(const quire_page *pages, uint32_t n, Stream stream,
                               uint32_t stream_slot, uint32_t space) noexcept {
  if (!config_.has_open) return Status::kOk;
  uint32_t open = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const PageDescriptor &d = tables_->pages[static_cast<uint32_t>(pages[i])];
    if ((d.flags.load(std::memory_order_relaxed) & kPageOpen) != 0) ++open;
  }
  if (open == 0) return Status::kOk;
  if (const Status s = ensure_frames(FrameClass::kSealed, open, space); s != Status::kOk) return s;
  return seal_claimed(pages, n, stream, stream_slot, space);
}

PublishContext Cache::publish_context(const quire_retention *retention, Stream stream,
                                      uint32_t stream_slot) noexcept {
  PublishContext context{retention, UINT64_MAX, clock_epoch(), 0, stream, false};
  if (retention != nullptr && retention->absolute_ttl_ms != 0) {
    const uint64_t now = now_ms();
    if (retention->absolute_ttl_ms < UINT64_MAX - now)
      context.expiry_ms = now + retention->absolute_ttl_ms;
  }
  if (stream_slot != kNoIndex) {
    context.writer = static_cast<uint16_t>(stream_slot + 1);
    streams_->want_of(stream_slot, context.epoch);
  }
  return context;
}

}  // namespace quire
