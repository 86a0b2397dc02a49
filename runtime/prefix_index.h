// PrefixIndex: from the key of a prefix to the page that ends it. Fixed capacity, bounded bins, no
// locks, no resize, no tombstones, no epochs: the index needs no memory reclamation of its own,
// since neither bins nor descriptors are ever freed (runtime/page_table.h).
//
//   bin     128 bytes, two cache lines; the second is touched only where the first one's slots are
//           not enough, which at two and a half entries a bin is one in a hundred or fewer
//   header  63                    30 29 28       3 2 1 0
//          +------------------------+-----+-----+---+---+    2 bits a slot: 0 empty, 1 claimed,
//          | version:34             | s14 | ... |s1 |s0 |    2 valid
//          +------------------------+-----+-----+---+---+
//   slot    tag:32 (never 0) | page:32
//
// A key's bin is the low half of key.lo modulo the number of bins; its tag comes from key.hi. An
// entry never moves and never leaves its bin. A bin with fifteen entries is full: its next key is
// "not indexed", which is a legal answer (at two and a half keys a bin, about one insert in
// fourteen million into a full table).
//
// | step                | atomic on the header                           | order   | pairs with     |
// | ------------------- | ---------------------------------------------- | ------- | -------------- |
// | find: look          | load                                           | acquire | commit         |
// | find: after the pin | load: slot still valid, version the same       | acquire | erase, commit  |
// | insert: claim       | CAS, slot 0 -> 1, whole header compared        | acquire | give up, erase |
// | insert: fill        | store of the slot                              | release | find's load    |
// | insert: commit      | CAS, slot 1 -> 2, version + 1, whole header    | acq_rel | find, commit   |
// | insert: give up     | and, slot 1 -> 0                               | release | claim          |
// | erase               | and, slot 2 -> 0                               | release | claim          |
//
// FIND. For each slot that is valid in the header with the key's tag: pin the page (state visible
// and the whole key, before and after the add), then read the header again. A hit linearises at
// that second read: an equal version says that nothing was committed to this bin in between, so a
// slot that was valid before and is valid now was valid all the time, and held this page. A miss
// linearises at the first read of the header, or, if an entry of the key was there and went while
// we looked, at the moment when its page became evicting.
//   Why the second read: without it a late finder can pin a page that was evicted, recycled, and is
//   just being published again under the same key, before that publish is decided.
//
// INSERT, by the owner of a private page. Scan as find does; if the key's page can be pinned, that
// one is the canonical page and we lost. Else claim an empty slot, fill it, make the page visible
// (with one pin, ours), and commit: this CAS linearises. It fails if anything was committed to the
// bin since the scan; then scan again with the slot still claimed, and commit or give up. Every
// commit raises the version, so among the commits of one bin each has seen all earlier ones: two
// live pages never have one key. Erasures in between do not matter: they only make keys absent.
//   A claim does not raise the version, for nothing becomes valid by it; so finders and inserters
//   of other keys in the bin are not sent back by it. What an inserter stopped for ever costs
//   others is one slot of one bin.
//
// EVICT. begin_evict() (the page table's CAS) linearises; erase() clears the slot; the parent drops
// the child; finish_evict() frees the page. Between the first two, finders see a valid slot whose
// page is not visible: absent. An inserter of the same key sees the same and takes another slot.
//
// Presence is monotone along a chain: a page gets its child only under a pin, holds a count for it
// until the child was erased, and is not evicted while that is not zero. So the longest cached
// prefix is found by searching (match), not by walking: with eight probes a round, whose cache
// misses overlap, n pages take log8(n) rounds.
//
// Liveness. A page may be visible and dead: expired, or of a namespace that was emptied. Every call
// takes a predicate `alive(page)`; dead pages are skipped, by insert as well, so that a live page
// can take over the key. The predicate may go from true to false for a page, never back.
//
// The version is 34 bits: an operation that sleeps through exactly a multiple of 2^34 commits to
// its one bin could take an old header for the present one. At one commit a microsecond to one bin,
// that is four hours and three quarters to the very instruction.
//
// The pages of a hit are not looked up at all: a pinned last page pins its chain, so they are read
// off it from the end, by the links of the page table (chain()). The index only says where eight
// walks may begin.
//
// Invariants at rest (validate()): no slot is claimed; a valid slot's page is visible, and its key
// has this bin and this tag; live pages of one bin have different keys; valid slots = visible
// pages.
//
// Cost: bins are two fifths of the pages: 51 bytes a page. Thread
// class: any thread. peek, match, chain are wait free; find is lock free (sent back only by a
// commit to the bin), so are insert and erase.
#ifndef QUIRE_RUNTIME_PREFIX_INDEX_H_
#define QUIRE_RUNTIME_PREFIX_INDEX_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>

#include "allocators/atomics.h"
#include "runtime/page_table.h"

namespace quire {

// How keys are spread, and how wide the version is. Tests use worse hashes and narrower versions.
struct IndexTraits {
  static constexpr int kVersionBits = 34;
  static constexpr uint64_t bin(const Key &key) noexcept { return key.lo; }
  static constexpr uint32_t tag(const Key &key) noexcept {
    const auto tag = static_cast<uint32_t>(key.hi >> 32);
    return tag == 0 ? 1 : tag;
  }
};

// The predicate of those who have no dead pages.
struct AlwaysAlive {
  constexpr bool operator()(uint32_t) const noexcept { return true; }
};

struct Insert {
  enum Status : uint8_t {
    kInserted,  // page: the caller's, now visible and pinned once for the caller
    kFound,     // page: the canonical one of this key, pinned once for the caller; ours is private
    kFull,      // no slot; ours is private
    kBusy,      // the key's page has too many pins; ours is private
  };
  Status status;
  uint32_t page;  // kNone for kFull and kBusy
};

template <class A = StdAtomics, class Traits = IndexTraits, class W = PageWidths>
class PrefixIndex {
 public:
  using Pages = PageTable<A, W>;
  template <class T>
  using atomic = typename A::template atomic<T>;

  static constexpr uint32_t kSlots = 15;
  static constexpr uint32_t kFirstLine = 7;
  static constexpr size_t kAlignment = 128;
  // A round of a match looks at this many keys at once; a chain is read by as many walks, from the
  // same keys where all are there, so that their bins are in cache. 4 walks and 16 were slower
  // (decisions/chain-links.md).
  static constexpr size_t kProbes = 8;

  static uint32_t bins(uint32_t capacity) noexcept {
    return std::max<uint32_t>(1, static_cast<uint32_t>((uint64_t{capacity} * 2 + 4) / 5));
  }
  static size_t bytes(uint32_t capacity) noexcept { return size_t{bins(capacity)} * sizeof(Bin); }

  PrefixIndex() = default;
  // A view: `memory` holds bytes(pages.capacity()) bytes at a multiple of kAlignment.
  PrefixIndex(void *memory, const Pages &pages) noexcept
      : bin_(static_cast<Bin *>(memory)),
        bins_(bins(pages.capacity())),
        inverse_(UINT64_MAX / bins_ + 1),
        pages_(pages) {}

  // Makes it empty. Before sharing.
  void format() noexcept { format(0); }
  // The same with versions that start elsewhere, for tests that want them to wrap.
  void format(uint64_t version) noexcept {
    for (uint32_t i = 0; i < bins_; ++i) {
      Bin *bin = new (&bin_[i]) Bin;
      bin->header.store(version << kVersionShift, kRelaxed);
      for (auto &slot : bin->slot) slot.store(0, kRelaxed);
    }
  }

  const Pages &pages() const noexcept { return pages_; }

  // Before an insert, a find or a match of this key, as early as it is known.
  void prefetch(const Key &key) const noexcept { quire::prefetch(&bin_of(key)); }
  void prefetch_for_insert(const Key &key) const noexcept {
    quire::prefetch_for_write(&bin_of(key));
  }

  // ---- One key --------------------------------------------------------------------------------

  // The live page of the key, pinned, or kNone. *busy, if given, tells a page that is there and has
  // too many pins from one that is not.
  template <class Alive = AlwaysAlive>
  uint32_t find_and_pin(const Key &key, const Alive &alive = {}, bool *busy = nullptr) noexcept {
    Bin &bin = bin_of(key);
    for (;;) {
      // acquire: pairs with the release of the commit: the slots that are valid are filled.
      const Sought found = seek_and_pin(bin, bin.header.load(kAcquire), key, alive);
      if (found.outcome == kMoved) continue;
      if (busy != nullptr) *busy = found.outcome == kSaturated;
      return found.page;
    }
  }

  // The live page of the key, or kNone; not pinned, so it may be gone already. Never misses a page
  // that is there throughout the call.
  template <class Alive = AlwaysAlive>
  uint32_t peek(const Key &key, const Alive &alive = {}) const noexcept {
    const Bin &bin = bin_of(key);
    const uint64_t header = bin.header.load(kAcquire);  // acquire: as in find_and_pin.
    for (uint32_t some = matches(bin, header, Traits::tag(key)); some != 0; some &= some - 1) {
      const uint32_t slot = slot_of(some);
      // acquire: pairs with the release of insert's fill; see seek_and_pin().
      const uint32_t page = page_of(bin.slot[slot].load(kAcquire));
      if (shows(page, key, alive) && (bin.header.load(kAcquire) & valid_bit(slot)) != 0)
        return page;
    }
    return kNone;
  }

  // By the owner of the private `page`, whose descriptor it has filled but for the key, and which
  // holds a child count on its parent already, got under a pin on the parent.
  template <class Alive = AlwaysAlive>
  Insert insert(const Key &key, uint32_t page, const Alive &alive = {}) noexcept {
    Bin &bin = bin_of(key);
    uint32_t slot = kSlots;                        // None claimed yet.
    uint64_t scanned = bin.header.load(kAcquire);  // acquire: as in find_and_pin.
    for (;;) {
      const Sought found = seek_and_pin(bin, scanned, key, alive);
      if (found.outcome == kMoved) {
        scanned = bin.header.load(kAcquire);  // acquire: as in find_and_pin.
        continue;
      }
      if (found.outcome != kAbsent) {
        if (slot != kSlots) give_up(bin, slot, page);
        return {found.outcome == kPinned ? Insert::kFound : Insert::kBusy, found.page};
      }
      if (slot == kSlots) {
        slot = claim_slot(bin);
        if (slot == kSlots) return {Insert::kFull, kNone};
        // release: pairs with the acquire of finders' slot loads: who sees this sees the claim.
        bin.slot[slot].store(entry_of(key, page), kRelease);
        pages_.make_visible(page, key);
      }
      if (commit(bin, scanned, slot)) {
        pages_.refresh_leaf_hint(page);
        return {Insert::kInserted, page};
      }
    }
  }

  // Between begin_evict() and finish_evict(), before the parent drops the page. False: not indexed.
  bool erase(uint32_t page, const Key &key) noexcept {
    Bin &bin = bin_of(key);
    const uint64_t header = bin.header.load(kAcquire);  // acquire: as in find_and_pin.
    for (uint32_t some = matches(bin, header, Traits::tag(key)); some != 0; some &= some - 1) {
      const uint32_t slot = slot_of(some);
      // relaxed: while our page is in a valid slot, that slot does not change.
      if (bin.slot[slot].load(kRelaxed) != entry_of(key, page)) continue;
      // release: pairs with the acquire of header loads: who sees the parent's slot empty, sees
      // that the child went before. seq_cst: as in commit().
      bin.header.fetch_and(~(uint64_t{3} << (2 * slot)), kSeqCst);
      return true;
    }
    return false;
  }

  // f(page) for the pages that are here, live or dead, from place *at on, until f says false; moves
  // *at on, to 0 at the end. Each page that is here throughout is met once. Not those that are
  // visible and on their way in, which may yet find another one in their place. `page` is below the
  // capacity; whether it is still what was here is for f to see.
  template <class F>
  void visit(uint64_t *at, F &&f) const noexcept {
    for (uint64_t place = *at; place < uint64_t{bins_} * kPlaces; ++place) {
      const Bin &bin = bin_[place / kPlaces];
      const auto slot = static_cast<uint32_t>(place % kPlaces);
      const uint32_t page = slot < kSlots ? page_in(bin, slot) : kNone;
      if (page >= pages_.capacity() || f(page)) continue;
      *at = place;
      return;
    }
    *at = 0;
  }

  // ---- Many keys ------------------------------------------------------------------------------

  // How many of the keys of one chain, root first, are there: at least as many as were there
  // throughout the call. Touches about 16 log8(n) cache lines, eight at a time. kPins: the caller is
  // to pin the last page of the hit; the last one of all is asked for to be written, since a line
  // that is first read and then taken from the core that wrote it last crosses the machine twice.
  template <bool kPins = false, class Alive = AlwaysAlive>
  size_t match(const Key *keys, size_t n, const Alive &alive = {}) const noexcept {
    size_t present = 0, absent = n;  // keys[present - 1] was there, keys[absent] was not.
    while (present < absent) {
      const size_t probes = std::min(absent - present, kProbes);
      size_t at[kProbes];
      for (size_t j = 0; j < probes; ++j) {
        at[j] = present + (absent - present) * (j + 1) / probes - 1;
        prefetch(keys[at[j]]);
      }
      for (size_t j = 0; j < probes; ++j) candidate(keys[at[j]], kPins && at[j] == n - 1);
      // From the top: presence is monotone, so the first hit settles all below.
      for (size_t j = probes; j-- > 0;) {
        if (peek(keys[at[j]], alive) != kNone) {
          present = at[j] + 1;
          break;
        }
        absent = at[j];
      }
    }
    return present;
  }

  // The pages of a chain, read off its last page: `tail`, of keys[n - 1] and at depth n - 1, which
  // the caller pins. Calls put(i, page, link) for each i < n, in no order and perhaps again with
  // another page, the last time with the right one; link as in PageTable::link().
  //   Exact: every page is the parent of one that was read before it, from the pinned one on, so no
  // key is compared. What the keys give, pages with the right tags, are hints where kWalks walks
  // may begin at once, so that their cache misses overlap. A walk that began at a wrong hint does
  // not end where the next one above it says; then that one is done again.
  template <size_t kWalks = kProbes, size_t kShortestWalk = 2, class Put>
  void chain(const Key *keys, size_t n, uint32_t tail, Put &&put) const noexcept {
    const size_t length = n / kWalks;
    if (length < kShortestWalk) {
      walk(tail, n, n, put);
      return;
    }
    for (size_t w = 1; w < kWalks; ++w) prefetch(keys[w * length - 1]);
    uint32_t start[kWalks], at[kWalks];
    start[kWalks - 1] = walk(tail, n, n - kWalks * length, put);
    for (size_t w = 1; w < kWalks; ++w) start[w - 1] = hint(keys[w * length - 1]);
    std::copy(start, start + kWalks, at);
    for (size_t step = length; step-- > 0;) {
      for (size_t w = 0; w < kWalks; ++w) {
        const uint64_t link = pages_.link(at[w]);
        put(w * length + step, at[w], link);
        at[w] = static_cast<uint32_t>(link);
      }
    }
    // From the pinned end: what a right walk ends at is right.
    for (size_t w = kWalks; w-- > 1;) {
      if (at[w] != start[w - 1]) at[w - 1] = walk(at[w], w * length, length, put);
    }
  }

  // find_and_pin for many unrelated keys; pages[i] is kNone where that misses. Returns the hits.
  template <class Alive = AlwaysAlive>
  size_t find_and_pin(const Key *keys, size_t n, uint32_t *pages,
                      const Alive &alive = {}) noexcept {
    size_t hits = 0;
    start(keys, n, pages);
    for (size_t i = 0; i < n; ++i) {
      look_ahead(keys, n, pages, i);
      // Nobody of this key in its bin then: absent at that moment, which lies within the call.
      if (pages[i] == kNone) continue;
      pages[i] = find_and_pin(keys[i], alive);
      hits += pages[i] != kNone;
    }
    return hits;
  }

  // ---- Insight --------------------------------------------------------------------------------

  // Entries; exact at rest.
  uint64_t size() const noexcept {
    uint64_t entries = 0;
    for (uint32_t i = 0; i < bins_; ++i) {
      entries += static_cast<uint64_t>(std::popcount(bin_[i].header.load(kAcquire) & kValidBits));
    }
    return entries;
  }

  // At rest: the invariants of the header comment.
  template <class Alive = AlwaysAlive>
  bool validate(const Alive &alive = {}) const noexcept {
    for (uint32_t i = 0; i < bins_; ++i) {
      if (!validate_bin(i, alive)) return false;
    }
    return size() == pages_.counts().visible;
  }

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;
  static constexpr uint32_t kPlaces = 16;  // a bin, to a visitor: its slots and none
  static constexpr std::memory_order kSeqCst = std::memory_order_seq_cst;
  static constexpr std::memory_order kAcquire = std::memory_order_acquire;
  static constexpr std::memory_order kRelease = std::memory_order_release;

  static constexpr int kVersionShift = 64 - Traits::kVersionBits;
  static_assert(Traits::kVersionBits >= 1 && kVersionShift >= static_cast<int>(2 * kSlots));
  static constexpr uint64_t kVersionUnit = uint64_t{1} << kVersionShift;
  static constexpr uint64_t kClaimedBits = 0x15555555;  // Bit 2 i: slot i is claimed.
  static constexpr uint64_t kValidBits = kClaimedBits << 1;
  static constexpr uint64_t kSecondLineBits = kValidBits & ~((uint64_t{1} << 2 * kFirstLine) - 1);

  // A bin is asked for this many keys ahead, its page's descriptor this many: by then the bin has
  // come. Measured for chains of 128 among 1M pages: 16 and 8 took 27 ns a page, 12 and 6 took 31,
  // 24 and 8 took 21, 32 and 16 no less. Among 128K pages all take 9 to 10.
  static constexpr size_t kBinsAhead = 24;
  static constexpr size_t kPagesAhead = 8;

  struct alignas(128) Bin {
    atomic<uint64_t> header;
    atomic<uint64_t> slot[kSlots];
  };

  enum Outcome : uint8_t { kAbsent, kPinned, kSaturated, kMoved };
  struct Sought {
    Outcome outcome;
    uint32_t page;
  };

  static constexpr uint64_t claimed_bit(uint32_t slot) noexcept {
    return uint64_t{1} << (2 * slot);
  }
  static constexpr uint64_t valid_bit(uint32_t slot) noexcept { return uint64_t{2} << (2 * slot); }
  static constexpr bool same_version(uint64_t a, uint64_t b) noexcept {
    return a >> kVersionShift == b >> kVersionShift;
  }
  static constexpr uint64_t entry_of(const Key &key, uint32_t page) noexcept {
    return uint64_t{Traits::tag(key)} << 32 | page;
  }
  static constexpr uint32_t page_of(uint64_t entry) noexcept {
    return static_cast<uint32_t>(entry);
  }
  static constexpr uint32_t slot_of(uint32_t valid_bits) noexcept {
    return static_cast<uint32_t>(std::countr_zero(valid_bits)) / 2;
  }

  // The remainder of 32 bits of the key by the number of bins, without a division: the fraction
  // x / bins, as 64 bits behind the point, times bins (Lemire, Kaser, Kurz 2019: exact for 32 bits).
  uint32_t bin_number(const Key &key) const noexcept {
    __extension__ using Wide = unsigned __int128;
    const uint64_t fraction = inverse_ * static_cast<uint32_t>(Traits::bin(key));
    return static_cast<uint32_t>(static_cast<Wide>(fraction) * bins_ >> 64);
  }
  Bin &bin_of(const Key &key) const noexcept { return bin_[bin_number(key)]; }

  // The valid bits of the slots with this tag. Without branches on the slots: their number and
  // place are what a branch predictor cannot know.
  static uint32_t matches(const Bin &bin, uint64_t header, uint32_t tag) noexcept {
    uint64_t found = 0;
    // relaxed: the acquire of the header has shown the fill of every slot that is valid in it; a
    // newer value means that the entry seen there is gone.
    for (uint32_t i = 0; i < kFirstLine; ++i) {
      found |= uint64_t{bin.slot[i].load(kRelaxed) >> 32 == tag} << (2 * i + 1);
    }
    if ((header & kSecondLineBits) != 0) {
      for (uint32_t i = kFirstLine; i < kSlots; ++i) {
        found |= uint64_t{bin.slot[i].load(kRelaxed) >> 32 == tag} << (2 * i + 1);
      }
    }
    return static_cast<uint32_t>(found & header);
  }

  template <class Alive>
  Sought seek_and_pin(Bin &bin, uint64_t header, const Key &key, const Alive &alive) noexcept {
    for (uint32_t some = matches(bin, header, Traits::tag(key)); some != 0; some &= some - 1) {
      const uint32_t slot = slot_of(some);
      // acquire: pairs with the release of insert's fill: if the slot was filled anew, the second
      // read of the header sees the claim at least.
      const uint32_t page = page_of(bin.slot[slot].load(kAcquire));
      const Pin pin = pages_.try_pin(page, key);
      if (pin == Pin::kMiss) continue;
      // acquire: in order after the pin, whose acquire has shown every erase before this life.
      const uint64_t now = bin.header.load(kAcquire);
      if (!same_version(header, now) || (now & valid_bit(slot)) == 0) {
        if (pin == Pin::kPinned) pages_.unpin(page);
        return {kMoved, kNone};
      }
      if (alive(page)) {
        if (pin == Pin::kBusy) return {kSaturated, kNone};
        return {kPinned, page};
      }
      if (pin == Pin::kPinned) pages_.unpin(page);
    }
    return {kAbsent, kNone};
  }

  // Visible with that key, and alive, for a moment within the call.
  template <class Alive>
  bool shows(uint32_t page, const Key &key, const Alive &alive) const noexcept {
    const auto &d = pages_[page];
    const uint64_t before = d.meta.load(kAcquire);  // acquire: pairs with make_visible's release.
    if (!Pages::M::visible(before)) return false;
    // acquire: pairs with the release of the key's stores: had we seen a later life's key, then
    // the second load of meta sees that life.
    if (d.key_lo.load(kAcquire) != key.lo || d.key_hi.load(kAcquire) != key.hi) return false;
    if (!alive(page)) return false;
    const uint64_t after = d.meta.load(kAcquire);
    return Pages::M::visible(after) && Pages::M::generation(after) == Pages::M::generation(before);
  }

  // An empty slot, now claimed; kSlots if there is none.
  static uint32_t claim_slot(Bin &bin) noexcept {
    uint64_t header = bin.header.load(kRelaxed);
    for (;;) {
      const uint64_t empty = ~(header | header >> 1) & kClaimedBits;
      if (empty == 0) return kSlots;
      const auto slot = static_cast<uint32_t>(std::countr_zero(empty)) / 2;
      // acquire: pairs with the releases of give_up() and erase(): what the slot's former owners
      // stored to it comes before our fill. Else theirs could come to be the last.
      if (bin.header.compare_exchange_weak(header, header | claimed_bit(slot), kAcquire,
                                           kRelaxed)) {
        return slot;
      }
    }
  }

  // Claimed to valid, if nothing was committed since `scanned`; else `scanned` becomes what the
  // header is now.
  static bool commit(Bin &bin, uint64_t &scanned, uint32_t slot) noexcept {
    uint64_t header = bin.header.load(kAcquire);
    while (same_version(header, scanned)) {
      // Adding the claimed bit once more makes it the valid bit.
      const uint64_t next = header + claimed_bit(slot) + kVersionUnit;
      // release: pairs with the acquire of header loads: slot and page are ready. acquire where it
      // fails: what it then sees is scanned. seq_cst: who commits looks next whether anybody follows
      // the events; who starts to follow looks then which pages are here (visit()).
      if (bin.header.compare_exchange_weak(header, next, kSeqCst, kAcquire)) return true;
    }
    scanned = header;
    return false;
  }

  // The page in a slot that is valid, or kNone.
  static uint32_t page_in(const Bin &bin, uint32_t slot) noexcept {
    for (;;) {
      const uint64_t header = bin.header.load(kSeqCst);  // seq_cst: as in commit().
      if ((header & valid_bit(slot)) == 0) return kNone;
      // acquire: as in peek(): if the slot was filled anew, the header shows that it was claimed.
      const uint32_t page = page_of(bin.slot[slot].load(kAcquire));
      const uint64_t now = bin.header.load(kAcquire);
      if (same_version(header, now) && (now & valid_bit(slot)) != 0) return page;
    }
  }

  void give_up(Bin &bin, uint32_t slot, uint32_t page) noexcept {
    // The page first: an empty slot is anybody's. Finders that still see it come from a former life
    // of this slot and find it claimed or empty.
    pages_.undo_visible(page);
    // release: pairs with the acquire of claim_slot(): our fill comes before the next owner's.
    bin.header.fetch_and(~claimed_bit(slot), kRelease);
  }

  // A page that has the key's tag, its descriptor on its way into the cache, to be pinned at once or
  // not; kNone if there is none.
  uint32_t candidate(const Key &key, bool pins = false) const noexcept {
    const Bin &bin = bin_of(key);
    const uint64_t header = bin.header.load(kAcquire);  // acquire: as in find_and_pin.
    const uint32_t some = matches(bin, header, Traits::tag(key));
    if (some == 0) return kNone;
    const uint32_t page = page_of(bin.slot[slot_of(some)].load(kRelaxed));  // relaxed: a hint.
    pins ? quire::prefetch_for_write(&pages_[page]) : quire::prefetch(&pages_[page]);
    quire::prefetch(&pages_.links()[page]);
    return page;
  }

  // A page that has the key's tag, its link on its way into the cache; any page if there is none.
  uint32_t hint(const Key &key) const noexcept {
    const Bin &bin = bin_of(key);
    const uint64_t header = bin.header.load(kAcquire);  // acquire: as in find_and_pin.
    const uint32_t some = matches(bin, header, Traits::tag(key));
    if (some == 0) return 0;
    const uint32_t page = page_of(bin.slot[slot_of(some)].load(kRelaxed));  // relaxed: a hint.
    quire::prefetch(&pages_.links()[page]);
    return page;
  }

  // `steps` pages upwards from `page`, which is the one before keys[end]; returns the next.
  template <class Put>
  uint32_t walk(uint32_t page, size_t end, size_t steps, Put &put) const noexcept {
    for (size_t i = end; i-- > end - steps;) {
      const uint64_t link = pages_.link(page);
      put(i, page, link);
      page = static_cast<uint32_t>(link);
    }
    return page;
  }

  void start(const Key *keys, size_t n, uint32_t *pages) const noexcept {
    for (size_t i = 0; i < std::min(n, kBinsAhead); ++i) prefetch(keys[i]);
    for (size_t i = 0; i < std::min(n, kPagesAhead); ++i) pages[i] = candidate(keys[i]);
  }
  void look_ahead(const Key *keys, size_t n, uint32_t *pages, size_t i) const noexcept {
    if (i + kBinsAhead < n) prefetch(keys[i + kBinsAhead]);
    if (i + kPagesAhead < n) pages[i + kPagesAhead] = candidate(keys[i + kPagesAhead]);
  }

  template <class Alive>
  bool validate_bin(uint32_t i, const Alive &alive) const noexcept {
    const Bin &bin = bin_[i];
    const uint64_t header = bin.header.load(kAcquire);
    if ((header & kClaimedBits) != 0) return false;
    Key keys[kSlots];
    uint32_t n = 0;
    for (uint64_t some = header & kValidBits; some != 0; some &= some - 1) {
      const uint64_t entry = bin.slot[slot_of(static_cast<uint32_t>(some))].load(kAcquire);
      const uint32_t page = page_of(entry);
      if (page >= pages_.capacity()) return false;
      if (pages_.view(page).state != PageState::kVisible) return false;
      const Key key{pages_[page].key_lo.load(kAcquire), pages_[page].key_hi.load(kAcquire)};
      if (entry != entry_of(key, page) || bin_number(key) != i) return false;
      if (!alive(page)) continue;
      if (std::find(keys, keys + n, key) != keys + n) return false;
      keys[n++] = key;
    }
    return true;
  }

  Bin *bin_ = nullptr;
  uint32_t bins_ = 0;
  uint64_t inverse_ = 0;  // 2^64 / bins, rounded up; 0 for one bin
  Pages pages_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_PREFIX_INDEX_H_
