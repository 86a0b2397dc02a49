// Seal: from open pages to encoded ones, back again, and copies between open pages.
//
// Sealing keeps the page and changes its frame: a sealed frame is taken, the encoder is enqueued,
// the descriptor is switched, and the open frame retires as of now, since the encoder, and perhaps
// the engine's kernels, still read it on some stream. The same in the other direction for
// unsealing, which sequences need to roll back into a full page.
//
// All or nothing: frames come first. Where the device fails half-way, frames that an enqueued
// encoder will still write go through limbo, and the pages are what they were.
#include <algorithm>

#include "runtime/cache.h"

namespace quire {
namespace {

// Pages a call of the kernels: as many as one launch takes, few enough for the stack.
constexpr uint32_t kBatch = 128;

}  // namespace

kernels::Frames Cache::kernel_frames() const noexcept {
  kernels::Frames frames;
  frames.sealed = {static_cast<uint8_t *>(arena_.base()), arena_.stride()};
  if (config_.has_open) {
    frames.open = {static_cast<uint8_t *>(open_arena_.base()), open_arena_.stride()};
  }
  return frames;
}

Status Cache::enqueue_seal(const uint32_t *from, const uint32_t *to, const uint32_t *index,
                           uint32_t n, Stream stream) noexcept {
  kernels::SealArgs args;
  args.frames = kernel_frames();
  args.from = from;
  args.to = to;
  args.page_index = index;
  args.pages = n;
  args.search = config_.values.fast_scales == 0;
  return launched(kernels_->seal(args, stream));
}

// The open ones among pages whose busy flags the caller holds, all or none. Between its steps the
// frame that a page is encoded into stands in the upper half of the page's key, which means nothing
// in a private page.
Status Cache::seal_claimed(const quire_page *pages, uint32_t n, Stream stream, uint32_t stream_slot,
                           uint32_t space) noexcept {
  Tables &t = *tables_;
  // f(page numbers, how many) for batches of open pages among the first n; until one is refused.
  const auto in_batches = [&](uint32_t among, auto &&f) {
    uint32_t batch[kBatch];
    uint32_t count = 0;
    for (uint32_t i = 0; i < among; ++i) {
      const auto page = static_cast<uint32_t>(pages[i]);
      if (is_open(page)) batch[count++] = page;
      if (count == 0 || (count < kBatch && i + 1 < among)) continue;
      if (const Status s = f(batch, count); s != Status::kOk) return s;
      count = 0;
    }
    return Status::kOk;
  };
  uint32_t taken = 0, enqueued = 0;
  Status status = in_batches(n, [&](const uint32_t *batch, uint32_t count) {
    uint32_t to[kBatch];
    const Status s = take_frames(FrameClass::kSealed, count, stream_slot, space, to);
    if (s != Status::kOk) return s;
    for (uint32_t i = 0; i < count; ++i) {
      t.pages[batch[i]].key_hi.store(to[i], std::memory_order_relaxed);
    }
    taken += count;
    return Status::kOk;
  });
  if (status == Status::kOk && taken > 0) status = freeze_anchors();
  if (status == Status::kOk) {
    status = in_batches(n, [&](const uint32_t *batch, uint32_t count) {
      uint32_t from[kBatch], to[kBatch], index[kBatch];
      for (uint32_t i = 0; i < count; ++i) {
        const PageDescriptor &d = t.pages[batch[i]];
        from[i] = d.frame.load(std::memory_order_relaxed);
        to[i] = static_cast<uint32_t>(d.key_hi.load(std::memory_order_relaxed));
        index[i] = d.depth.load(std::memory_order_relaxed);
      }
      enqueued += count;  // of a call that fails, a part may be
      return enqueue_seal(from, to, index, count, stream);
    });
  }
  uint32_t done = 0;
  const bool good = status == Status::kOk;
  static_cast<void>(in_batches(n, [&](const uint32_t *batch, uint32_t count) {
    for (uint32_t i = 0; i < count && done < taken; ++i, ++done) {
      PageDescriptor &d = t.pages[batch[i]];
      const auto to = static_cast<uint32_t>(d.key_hi.load(std::memory_order_relaxed));
      if (good) {
        const uint32_t from = d.frame.load(std::memory_order_relaxed);
        d.frame.store(to, std::memory_order_relaxed);
        d.flags.fetch_xor(kPageOpen | kPageSealed, std::memory_order_release);
        note_writer(batch[i], stream_slot);
        retire_frame(FrameClass::kOpen, from, clock_epoch(), zeroing());
      } else if (done < enqueued) {
        retire_frame(FrameClass::kSealed, to, clock_epoch(), zeroing());  // its encoder will run
      } else {
        put_back(FrameClass::kSealed, &to, 1);
      }
    }
    return Status::kOk;
  }));
  if (good) t.stats.add(Counter::pages_sealed_total, done);
  if (good && stream_slot != kNoIndex) streams_->want_of(stream_slot, clock_epoch());
  return status;
}

// The last bytes of a private page come from work that is on the stream by now, behind all that
// wrote to it before.
void Cache::note_writer(uint32_t page, uint32_t stream_slot) noexcept {
  PageDescriptor &d = tables_->pages[page];
  d.ready_epoch.store(static_cast<uint32_t>(clock_epoch()), std::memory_order_relaxed);
  d.writer.store(stream_slot == kNoIndex ? uint16_t{0} : static_cast<uint16_t>(stream_slot + 1),
                 std::memory_order_relaxed);
}

Status Cache::seal(const quire_page *pages, uint32_t n, Stream stream) noexcept {
  Tables &t = *tables_;
  uint32_t stream_slot = kNoIndex;
  if (const Status s = find_stream(stream, &stream_slot); s != Status::kOk) return s;
  Status status = Status::kOk;
  uint32_t claimed = 0;
  uint32_t open = 0;
  uint32_t space = kNoIndex;  // as the last one's lease says
  for (; claimed < n; ++claimed) {
    uint32_t page = 0;
    status = claim_page_of(pages, claimed, &page);
    if (status != Status::kOk) break;
    const uint16_t flags = t.pages[page].flags.load(std::memory_order_relaxed);
    if ((flags & kPageOpen) != 0) ++open;
    const uint32_t lease = t.pages[page].lease.load(std::memory_order_relaxed);
    if (lease != kNoIndex) space = space_of(t.leases.slot(lease));
    if ((flags & kPageLossy) == 0) continue;
    status = set_error(Status::kInvalid, "page %u was decoded from a sealed page", page);
    ++claimed;
    break;
  }
  // Frames for all are asked for first, so that a shortage costs nothing.
  if (status == Status::kOk && open > 0) {
    status = ensure_frames(FrameClass::kSealed, open, space);
  }
  if (status == Status::kOk && open > 0)
    status = seal_claimed(pages, n, stream, stream_slot, space);
  for (uint32_t i = 0; i < claimed && status == Status::kOk && !config_.has_open; ++i) {
    const auto page = static_cast<uint32_t>(pages[i]);
    const uint16_t before = t.pages[page].flags.fetch_or(kPageSealed, std::memory_order_relaxed);
    if ((before & kPageSealed) == 0) note_writer(page, stream_slot);
  }
  if (status == Status::kOk && !config_.has_open && stream_slot != kNoIndex) {
    streams_->want_of(stream_slot, clock_epoch());
  }
  for (uint32_t i = 0; i < claimed; ++i) unclaim_page(static_cast<uint32_t>(pages[i]));
  return status;
}

// A sealed private or visible page, decoded into the open frame of a private one.
Status Cache::unseal_into(uint32_t from_page, uint32_t to_page, Stream stream) noexcept {
  Tables &t = *tables_;
  const uint32_t from = t.pages[from_page].frame.load(std::memory_order_relaxed);
  const uint32_t to = t.pages[to_page].frame.load(std::memory_order_relaxed);
  const uint32_t index = t.pages[from_page].depth.load(std::memory_order_relaxed);
  kernels::SealArgs args;
  args.frames = kernel_frames();
  args.from = &from;
  args.to = &to;
  args.page_index = &index;
  args.pages = 1;
  if (const Status s = launched(kernels_->unseal(args, stream)); s != Status::kOk) return s;
  t.pages[to_page].flags.fetch_or(kPageLossy, std::memory_order_relaxed);
  t.stats.add(Counter::pages_unsealed_total);
  return Status::kOk;
}

// The bytes of one page's frame, into another page's frame of the same class.
Status Cache::copy_into(uint32_t from_page, uint32_t to_page, Stream stream,
                        uint32_t stream_slot) noexcept {
  const PageDescriptor &d = tables_->pages[from_page];
  const bool open = (d.flags.load(std::memory_order_relaxed) & kPageOpen) != 0;
  const FrameClass c = open ? FrameClass::kOpen : FrameClass::kSealed;
  const uint8_t *from = frame_address(c, d.frame.load(std::memory_order_relaxed));
  uint8_t *to = frame_address(c, tables_->pages[to_page].frame.load(std::memory_order_relaxed));
  const Status status = launched(kernels_->copy_page(open, to, from, stream));
  if (status == Status::kOk && stream_slot != kNoIndex) note_copy(from_page, stream_slot);
  return status;
}

// The last copy of a private page stands in its key, which means nothing before it is published:
// stream slot + 1 and epoch. Sharers copy at the same time: a note that another one replaces marks
// the page for good.
void Cache::note_copy(uint32_t page, uint32_t stream_slot) noexcept {
  PageDescriptor &d = tables_->pages[page];
  if (tables_->pages.view(page).state != PageState::kPrivate) return;
  const uint64_t epoch = clock_epoch();
  const uint64_t note = uint64_t{stream_slot + 1} << 32 | static_cast<uint32_t>(epoch);
  const uint64_t before = d.key_lo.exchange(note, std::memory_order_relaxed);
  if (before != 0 && before >> 32 != stream_slot + 1) {
    d.flags.fetch_or(kPageCopied, std::memory_order_relaxed);
  }
  streams_->want_of(stream_slot, epoch);
}

bool Cache::changeable(uint32_t page, Stream stream, uint32_t stream_slot) noexcept {
  const PageDescriptor &d = tables_->pages[page];
  if ((d.flags.load(std::memory_order_relaxed) & kPageCopied) != 0) return false;
  const uint64_t note = d.key_lo.load(std::memory_order_relaxed);
  return note == 0 || follow(static_cast<uint32_t>(note >> 32) - 1, static_cast<uint32_t>(note),
                             stream, stream_slot) == Status::kOk;
}

// What was enqueued on a slot's stream by that epoch comes before what the caller enqueues now, or
// kAgain: it will after the next step.
Status Cache::follow(uint32_t slot, uint32_t epoch, Stream stream, uint32_t stream_slot) noexcept {
  if (slot == stream_slot) return Status::kOk;
  const uint64_t at = tables_->clock.widen(epoch);
  // No work is of the future: such an epoch is so old that its half word has wrapped.
  if (at > clock_epoch() || streams_->ready(slot, at)) return Status::kOk;
  if (stream == nullptr) {
    streams_->want_of(slot, at);
    return Status::kAgain;
  }
  const Status status = streams_->wait_for(slot, at, stream);
  if (status == Status::kOk) tables_->stats.add(Counter::stream_waits_total);
  return status;
}

Status Cache::follow_writer(uint32_t page, Stream stream, uint32_t stream_slot) noexcept {
  const PageDescriptor &d = tables_->pages[page];
  // acquire: pairs with the release in cut_unready().
  const uint16_t writer = d.writer.load(std::memory_order_acquire);
  if (writer == 0) return Status::kOk;
  const uint32_t epoch = d.ready_epoch.load(std::memory_order_relaxed);
  const Status status = follow(writer - 1u, epoch, stream, stream_slot);
  if (status != Status::kAgain) return status;
  return set_error(Status::kAgain, "another stream still writes page %u, and no step was since",
                   page);
}

}  // namespace quire
