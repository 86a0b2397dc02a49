// PageTable: the descriptors of all pages, and the one word of each that decides every race.
//
// A page names content; it is a number below the capacity, and its descriptor is never freed. So a
// thread may look at any descriptor at any time, with no guard and no hazard pointer: whether what
// it sees is the page that it wants is decided by the state word, `meta`:
//
//    63            46   45  44 43 42  40 39                20 19                 0
//   +----------------+------+----+------+--------------------+--------------------+
//   |  generation:18 | busy | 0  |state | children:20        | ref:20             |
//   +----------------+------+----+------+--------------------+--------------------+
//
//   ref         pins: leases, transfers, and passing finders that will undo theirs
//   children    visible pages that name this one as parent; while it is private, the further
//               sequences that share it (a page published while shared keeps them in the count)
//   state       kPrivate -> kVisible -> kEvicting -> kPrivate: a page is private while nobody can find
//               it, be it that somebody has it or that its number is in the pool
//   busy        a verb works on this private page, or a sequence has it: others are refused
//   generation  life of the page number: it tells a stale handle; wraps. A life ends where the page
//               is given up, so a number in the pool has the generation of its next life, of which
//               there is no handle yet. Hence taking a number changes nothing here, and giving one
//               up is one read-modify-write; the pool's bits hand all else on from owner to owner.
//
// THE RULE. After format() every change of meta is a read-modify-write that preserves ref. A finder
// may add 1 to the word of a page that was recycled under it and take that back at any later time;
// then the +1 and the -1 cancel, whatever happened to state and generation in between. One plain
// store would tear that pair. It also makes every release on the word reach every later acquire on
// it, since a chain of read-modify-writes is one release sequence.
//
// | transition              | atomic on meta                          | order   | pairs with        |
// | ----------------------- | --------------------------------------- | ------- | ----------------- |
// | hold: busy              | CAS: that generation, private, not busy | acquire | unhold            |
// | unhold                  | sub                                     | release | hold, give_up     |
// | give_up: next life      | CAS: that generation, private, not      | acquire | unhold; sharers   |
// |                         | busy, no sharers                        |         |                   |
// | take_back               | sub: the generation before              | relaxed | (nothing changed) |
// | free_private: next life | CAS: that generation, private, no       | acquire | sharers           |
// |                         | sharers                                 |         |                   |
// | release_private         | CAS: a sharer less, or next life        | acq_rel | sharers           |
// | make_visible (+ 1 ref)  | add; the key is stored before           | release | try_pin, peek     |
// | undo_visible (- 1 ref)  | add                                     | release | free_private      |
// | try_pin                 | load, compare key, add 1, compare again | acquire | make_visible      |
// | unpin                   | sub 1; the stamp is raised before       | release | begin_evict       |
// | add_child               | add, under a pin                        | relaxed | (the pin)         |
// | drop_child              | sub; child erased, stamp handed up      | release | begin_evict       |
// | begin_evict             | CAS: visible, 0 refs, 0 children, that  | acquire | unpin, drop_child |
// |                         | generation                              |         |                   |
// | finish_evict: next life | add                                     | relaxed | (the pool)        |
//
// Why load and compare come before the add in try_pin: an add to a cold line keeps the core from
// overlapping misses; a finder that compares first touches most pages with plain loads only. Why
// they come again after it: the page may have been recycled in between.
//
// Counters are exact. An add that finds its counter at half of its range is undone and fails
// (kBusy): half of the range is left for additions that have not been undone yet, so a counter
// never carries into its neighbour and never saturates (a saturated page would be immortal).
//
// Dense arrays beside the descriptors, for the reclaimer's scans:
//   stamp     u32, epoch of the last release. Raised to the maximum, by signed difference, so it
//             wraps; a pass lifts those older than 2^30. Raised before the pin is dropped: an
//             eviction that succeeds has seen the stamps of all pins before it.
//   tag       u8, bit 7: candidate leaf (visible, no children), bits 6..0: class given by the caller
//   space     u8, the low bits of the namespace's number: a scan for the pages of one namespace, or
//             past those of some, looks at the descriptors of few others
//   link      u64, generation:32 | parent:32 of a page since it became visible: all that reading a
//             chain off its last page needs (runtime/prefix_index.h, chain()), eight pages to a
//             cache line instead of one. A page without a parent names itself, so that a walk
//             needs no test for the end. Stored by the page's owner before make_visible's release;
//             who pins the page, or one below it, reads what it stored
// The leaf bit is a hint kept right by looking again: whoever changes meta so that "visible and no
// children" changes writes the bit and then re-reads meta, until the two agree. The write is an
// acq_rel read-modify-write, so of two writers the later one has seen the earlier one's meta: the
// last write to the bit is right. (begin_evict stores it: no other change of meta can follow in
// that life.) begin_evict decides; the hint only finds.
//
// Invariants at rest (validate()):
//   private:  busy only as a sequence's; with its number in the pool: not busy, ref = 0,
//             children = 0
//   visible:  children >= visible pages whose parent it is; a parent is visible
//   leaf bit: set <=> visible and children = 0
//   no page is evicting
//   space:    of a visible page: the low bits of descriptor.space
//   link:     of a visible page: its generation, and its parent, or itself
//
// Cost: 64 + 14 bytes a page. Nothing waits; every call is lock free, and wait free but for
// hold, give_up, free_private, release_private, raise_stamp, set_class and refresh_leaf_hint.
// Thread class: any thread, under the rights named at each call. format: before sharing.
#ifndef QUIRE_RUNTIME_PAGE_TABLE_H_
#define QUIRE_RUNTIME_PAGE_TABLE_H_

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "allocators/atomics.h"

namespace quire {

// Layout of quire_key. Keys are the output of a keyed hash: all bits are good.
struct Key {
  uint64_t lo, hi;
  friend bool operator==(const Key &, const Key &) = default;
};

enum class PageState : uint8_t { kPrivate, kVisible, kEvicting };

// What became of an attempt to pin: kBusy is a page that is there and has too many pins.
enum class Pin : uint8_t { kMiss, kPinned, kBusy };

// What became of an attempt to work on a private page, or to give it up. kPublished: it is that life
// of the page, and visible.
enum class Hold : uint8_t { kStale, kPublished, kBusy, kHeld };

// What became of giving up one holder's share of a private page.
enum class Release : uint8_t { kStale, kShared, kFreed };

// Widths of the state word's fields; tests use narrow ones, so that wraps happen in seconds.
struct PageWidths {
  static constexpr int kRef = 20, kChildren = 20, kState = 3, kGeneration = 18;
};

// Arithmetic on the state word. Generation sits at the top, so its carry falls off the word.
template <class W = PageWidths>
struct Meta {
  static_assert(W::kRef >= 2 && W::kChildren >= 2 && W::kState >= 2);
  static_assert(W::kRef + W::kChildren + W::kState + W::kGeneration < 64);
  static constexpr int kChildShift = W::kRef;
  static constexpr int kStateShift = kChildShift + W::kChildren;
  static constexpr int kGenerationShift = 64 - W::kGeneration;

  static constexpr uint64_t kRefUnit = 1;
  static constexpr uint64_t kChildUnit = uint64_t{1} << kChildShift;
  static constexpr uint64_t kStateUnit = uint64_t{1} << kStateShift;
  static constexpr uint64_t kGenerationUnit = uint64_t{1} << kGenerationShift;
  static constexpr uint64_t kBusy = kGenerationUnit >> 1;
  static constexpr uint32_t kRefHalf = uint32_t{1} << (W::kRef - 1);
  static constexpr uint32_t kChildrenHalf = uint32_t{1} << (W::kChildren - 1);

  static constexpr uint32_t field(uint64_t m, int shift, int bits) noexcept {
    return static_cast<uint32_t>(m >> shift & ((uint64_t{1} << bits) - 1));
  }
  static constexpr uint32_t ref(uint64_t m) noexcept { return field(m, 0, W::kRef); }
  static constexpr uint32_t children(uint64_t m) noexcept {
    return field(m, kChildShift, W::kChildren);
  }
  static constexpr PageState state(uint64_t m) noexcept {
    return static_cast<PageState>(field(m, kStateShift, W::kState));
  }
  static constexpr uint32_t generation(uint64_t m) noexcept {
    return field(m, kGenerationShift, W::kGeneration);
  }
  // Private, of that generation, and nobody works on it: all that is above the counters, at once.
  static constexpr bool idle(uint64_t m, uint32_t generation) noexcept {
    return m >> kStateShift == uint64_t{generation} << (kGenerationShift - kStateShift);
  }
  static constexpr bool visible(uint64_t m) noexcept { return state(m) == PageState::kVisible; }
  static constexpr bool leaf(uint64_t m) noexcept { return visible(m) && children(m) == 0; }
  // The difference that takes a page from one state to another, on top of any ref and children.
  static constexpr uint64_t change(PageState from, PageState to) noexcept {
    return kStateUnit * (static_cast<uint64_t>(to) - static_cast<uint64_t>(from));
  }
};

// One page. Fields but meta belong to the owner of the page while it is private; while it is
// visible they are read only, but for `lease` and links kept by their own users. All are atomics
// since a finder may read a page that is being recycled: it then finds that out and drops it.
template <class A = StdAtomics>
struct BasicPageDescriptor {
  template <class T>
  using atomic = typename A::template atomic<T>;

  atomic<uint64_t> meta;
  atomic<uint64_t> key_lo, key_hi;
  atomic<uint64_t>
      expiry_ms;            // visible: absolute, UINT64_MAX for none; private: links of its lease
  atomic<uint32_t> parent;  // page, kNone at the root
  atomic<uint32_t> depth;   // pages above it
  atomic<uint32_t> space;   // namespace
  atomic<uint32_t> space_generation;
  atomic<uint32_t> frame;
  atomic<uint32_t> lease;  // private: its lease, or kNone; visible: idle TTL in ms, 0 for none
  atomic<uint32_t> ready_epoch;
  atomic<uint16_t> writer;  // stream slot + 1, 0 for none
  atomic<uint16_t> flags;
};
using PageDescriptor = BasicPageDescriptor<StdAtomics>;
static_assert(sizeof(PageDescriptor) == 64, "one cache line a page");

struct PageCounts {
  uint32_t private_pages = 0, visible = 0, evicting = 0;
  uint64_t refs = 0;
};

// A page's state word, taken apart; already old when it is read.
struct PageView {
  PageState state;
  uint32_t ref, children, generation;
};

template <class A = StdAtomics, class W = PageWidths>
class PageTable {
 public:
  using Descriptor = BasicPageDescriptor<A>;
  using M = Meta<W>;
  template <class T>
  using atomic = typename A::template atomic<T>;

  static constexpr size_t kAlignment = 64;
  static constexpr uint8_t kLeafBit = 0x80;
  static constexpr uint32_t kGenerations = uint32_t{1} << W::kGeneration;

  static size_t bytes(uint32_t capacity) noexcept {
    return part<Descriptor>(capacity) + part<atomic<uint64_t>>(capacity) +
           part<atomic<uint32_t>>(capacity) + 2 * part<atomic<uint8_t>>(capacity);
  }

  PageTable() = default;
  // A view: `memory` holds bytes(capacity) bytes at a multiple of kAlignment.
  PageTable(void *memory, uint32_t capacity) noexcept : capacity_(capacity) {
    auto *at = static_cast<std::byte *>(memory);
    page_ = reinterpret_cast<Descriptor *>(at);
    link_ = reinterpret_cast<atomic<uint64_t> *>(at += part<Descriptor>(capacity));
    stamp_ = reinterpret_cast<atomic<uint32_t> *>(at += part<atomic<uint64_t>>(capacity));
    tag_ = reinterpret_cast<atomic<uint8_t> *>(at += part<atomic<uint32_t>>(capacity));
    space_ = reinterpret_cast<atomic<uint8_t> *>(at + part<atomic<uint8_t>>(capacity));
  }

  // Makes every page private, at generation 0: their numbers are the pool's. The one place that stores a meta.
  void format() noexcept {
    for (uint32_t i = 0; i < capacity_; ++i) {
      Descriptor *d = new (&page_[i]) Descriptor;
      d->meta.store(0, kRelaxed);
      d->key_lo.store(0, kRelaxed);
      d->key_hi.store(0, kRelaxed);
      d->expiry_ms.store(UINT64_MAX, kRelaxed);
      d->parent.store(kNone, kRelaxed);
      for (auto *field : {&d->depth, &d->space, &d->space_generation, &d->ready_epoch}) {
        field->store(0, kRelaxed);
      }
      d->frame.store(kNone, kRelaxed);
      d->lease.store(kNone, kRelaxed);
      d->writer.store(0, kRelaxed);
      d->flags.store(0, kRelaxed);
      (new (&link_[i]) atomic<uint64_t>)->store(i, kRelaxed);
      (new (&stamp_[i]) atomic<uint32_t>)->store(0, kRelaxed);
      (new (&tag_[i]) atomic<uint8_t>)->store(0, kRelaxed);
      (new (&space_[i]) atomic<uint8_t>)->store(0, kRelaxed);
    }
  }

  uint32_t capacity() const noexcept { return capacity_; }
  Descriptor &operator[](uint32_t page) const noexcept {
    assert(page < capacity_);
    return page_[page];
  }
  // relaxed, both halves: of a page that the caller holds; or to be looked at again.
  Key key(uint32_t page) const noexcept {
    const Descriptor &d = (*this)[page];
    return Key{d.key_lo.load(kRelaxed), d.key_hi.load(kRelaxed)};
  }
  // The dense arrays, for scans.
  const atomic<uint32_t> *stamps() const noexcept { return stamp_; }
  const atomic<uint8_t> *tags() const noexcept { return tag_; }
  const atomic<uint8_t> *space_bytes() const noexcept { return space_; }

  PageView view(uint32_t page) const noexcept {
    const uint64_t m = meta(page).load(kAcquire);
    return {M::state(m), M::ref(m), M::children(m), M::generation(m)};
  }
  uint32_t generation(uint32_t page) const noexcept {
    return M::generation(meta(page).load(kAcquire));
  }
  // generation << 32 | parent (the page itself at the root), of a page that the caller pins or that
  // is above one. Of any other it is that of some life of the page: a number of a page in any case.
  // relaxed: the pin's acquire has shown it.
  uint64_t link(uint32_t page) const noexcept {
    assert(page < capacity_);
    return link_[page].load(kRelaxed);
  }
  const atomic<uint64_t> *links() const noexcept { return link_; }

  // ---- Pins -----------------------------------------------------------------------------------

  // Pins the page if it is visible with that key. Whether it is also in the index is for the index
  // to check: a page is visible for a moment before it is.
  Pin try_pin(uint32_t page, const Key &key) noexcept {
    Descriptor &d = (*this)[page];
    // relaxed: a filter. Who comes here from the index has acquired what its header shows, this
    // page's state and key among it.
    uint64_t m = d.meta.load(kRelaxed);
    if (!M::visible(m) || !has_key(d, key)) return Pin::kMiss;
    // acquire: pairs with the release in make_visible(): the key and all that the page says.
    m = d.meta.fetch_add(M::kRefUnit, kAcquire);
    if (M::visible(m) && M::ref(m) < M::kRefHalf && has_key(d, key)) return Pin::kPinned;
    undo_ref(d);
    return M::visible(m) && M::ref(m) >= M::kRefHalf ? Pin::kBusy : Pin::kMiss;
  }
  bool pin(uint32_t page, const Key &key) noexcept { return try_pin(page, key) == Pin::kPinned; }

  // The same for a handle: visible, and in that life. The handle must be one that a publish or an
  // acquire gave: only its publisher holds one while the page may still turn private again.
  Pin try_pin_exact(uint32_t page, uint32_t generation) noexcept {
    Descriptor &d = (*this)[page];
    uint64_t m = d.meta.load(kRelaxed);  // relaxed: a filter.
    if (!M::visible(m) || M::generation(m) != generation) return Pin::kMiss;
    m = d.meta.fetch_add(M::kRefUnit, kAcquire);  // acquire: as in try_pin.
    const bool right = M::visible(m) && M::generation(m) == generation;
    if (right && M::ref(m) < M::kRefHalf) return Pin::kPinned;
    undo_ref(d);
    return right ? Pin::kBusy : Pin::kMiss;
  }
  bool pin_exact(uint32_t page, uint32_t generation) noexcept {
    return try_pin_exact(page, generation) == Pin::kPinned;
  }

  // One more pin by a holder of one. False, and nothing changed, at half of the range.
  bool add_ref(uint32_t page) noexcept {
    // relaxed: the pin that the caller holds has ordered everything.
    const uint64_t m = meta(page).fetch_add(M::kRefUnit, kRelaxed);
    if (M::ref(m) < M::kRefHalf) return true;
    undo_ref((*this)[page]);
    return false;
  }

  // Drops a pin; returns how many are left. Raise the stamp first.
  uint32_t unpin(uint32_t page) noexcept {
    // release: pairs with the acquire in begin_evict(): our reads and our stamp come before.
    const uint64_t m = meta(page).fetch_sub(M::kRefUnit, kRelease);
    assert(M::ref(m) != 0);
    return M::ref(m) - 1;
  }

  // ---- Life -----------------------------------------------------------------------------------

  // Whoever takes a number from the pool has that page, in the life that generation() tells, with
  // nothing to do here: the pool's acquire has shown the end of its last life.

  // Whether hold() would give it, for a moment within the call.
  bool is_idle(uint32_t page, uint32_t generation) const noexcept {
    return M::idle(meta(page).load(kRelaxed), generation);  // relaxed: old as soon as it is read.
  }
  // The right to work on a private page behind a handle, until unhold(); whoever comes meanwhile
  // gets kBusy.
  Hold hold(uint32_t page, uint32_t generation) noexcept {
    return change_private(page, generation, [](uint64_t m) { return m | M::kBusy; });
  }
  void unhold(uint32_t page) noexcept {
    // release: pairs with the acquire in hold() and give_up(): our work on the page comes before.
    const uint64_t m = meta(page).fetch_sub(M::kBusy, kRelease);
    assert((m & M::kBusy) != 0);
    static_cast<void>(m);
  }

  // Ends the life of a private page behind a handle, at one stroke; then it is the caller's alone
  // until its number goes to the pool. kBusy also where others share it.
  Hold give_up(uint32_t page, uint32_t generation) noexcept {
    return change_private(page, generation, [](uint64_t m) {
      return M::children(m) == 0 ? m + M::kGenerationUnit : m;
    });
  }
  // The way back, by who gave it up and has not given the number to the pool. relaxed: the page is
  // as it was.
  void take_back(uint32_t page) noexcept { meta(page).fetch_sub(M::kGenerationUnit, kRelaxed); }

  // Gives up one holder's share of a page that it allocated or forked: with other sharers left,
  // drops that share (kShared); the last one frees it (kFreed): then the number goes back to the
  // pool. kStale, and nothing changed: another generation, or a published page without sharers.
  Release release_private(uint32_t page, uint32_t generation) noexcept {
    auto &word = meta(page);
    uint64_t m = word.load(kRelaxed);
    for (;;) {
      if (M::generation(m) != generation) return Release::kStale;
      const bool is_private = M::state(m) == PageState::kPrivate;
      if (!is_private && !M::visible(m)) return Release::kStale;
      const bool shared = M::children(m) != 0;
      if (!shared && !is_private) return Release::kStale;
      const uint64_t next = shared ? m - M::kChildUnit : next_life(m);
      // acq_rel: a sharer's writes (release) are before the last one's free (acquire).
      if (word.compare_exchange_weak(m, next, kAcqRel, kRelaxed)) {
        if (shared && M::leaf(next)) refresh_leaf_hint(page);
        return shared ? Release::kShared : Release::kFreed;
      }
    }
  }

  // Ends the life of a private page that the caller has, held or not; false, and nothing changed,
  // if the page is in another life, not private, or shared. A ref that a late finder holds stays in
  // the word until it drops it.
  bool free_private(uint32_t page, uint32_t generation) noexcept {
    auto &word = meta(page);
    uint64_t m = word.load(kRelaxed);
    do {
      if (M::state(m) != PageState::kPrivate || M::generation(m) != generation) return false;
      if (M::children(m) != 0) return false;
      // acquire: pairs with sharers' release_private() and with undo_visible().
    } while (!word.compare_exchange_weak(m, next_life(m), kAcquire, kRelaxed));
    return true;
  }

  // For the index, by the page's owner: private -> visible, and one pin for the owner in the same
  // step, so that nobody can evict the page before the owner is done.
  void make_visible(uint32_t page, const Key &key) noexcept {
    Descriptor &d = (*this)[page];
    // release: pairs with the acquire in peek's key loads: who sees the new key sees the new life.
    d.key_lo.store(key.lo, kRelease);
    d.key_hi.store(key.hi, kRelease);
    const uint32_t parent = d.parent.load(kRelaxed);
    // relaxed, both: the generation is the owner's, and the release below publishes the link.
    link_[page].store(
        uint64_t{M::generation(d.meta.load(kRelaxed))} << 32 | (parent == kNone ? page : parent),
        kRelaxed);
    // release: pairs with the acquire in try_pin() and peek().
    const uint64_t m = d.meta.fetch_add(
        M::change(PageState::kPrivate, PageState::kVisible) + M::kRefUnit, kRelease);
    assert(M::state(m) == PageState::kPrivate);
    static_cast<void>(m);
  }

  // The way back, for a page that did not get into the index.
  void undo_visible(uint32_t page) noexcept {
    const uint64_t m = meta(page).fetch_add(
        M::change(PageState::kVisible, PageState::kPrivate) - M::kRefUnit, kRelease);
    assert(M::visible(m) && M::ref(m) != 0);
    static_cast<void>(m);
    refresh_leaf_hint(page);
  }

  // visible -> evicting, for the reclaimer; from here on the page is nobody's but the caller's, and
  // absent. False: pinned, has children, or is not the page that the caller looked at.
  bool begin_evict(uint32_t page, uint32_t generation) noexcept {
    auto &word = meta(page);
    uint64_t m = word.load(kRelaxed);
    if (!M::leaf(m) || M::ref(m) != 0 || M::generation(m) != generation) return false;
    // acquire: pairs with the releases of unpin() and drop_child(). What those showed goes on to
    // whoever acquires this state: a read-modify-write is part of their release sequence.
    const uint64_t next = m + M::change(PageState::kVisible, PageState::kEvicting);
    if (!word.compare_exchange_strong(m, next, kAcquire, kRelaxed)) return false;
    // Nobody but the caller changes meta to a leaf's from here on, and nobody sets the class: a
    // store will do. release: pairs with the acquire of another writer of the bit, who is late: he
    // sees this state when he looks again.
    auto &tag = tag_[page];
    tag.store(static_cast<uint8_t>(tag.load(kRelaxed) & ~kLeafBit), kRelease);
    return true;
  }

  // evicting -> private, next generation; then the number goes back to the pool. Call it when the
  // index has erased the page and its parent has dropped it.
  void finish_evict(uint32_t page) noexcept {
    // relaxed: the pool's release and acquire bring the erase before the next life.
    const uint64_t m = meta(page).fetch_add(
        M::change(PageState::kEvicting, PageState::kPrivate) + M::kGenerationUnit, kRelaxed);
    assert(M::state(m) == PageState::kEvicting && M::children(m) == 0);
    static_cast<void>(m);
  }

  // ---- Children -------------------------------------------------------------------------------

  // n more children, or sharers, by a holder of a pin on the page or of a share in it. False, and
  // nothing changed, where they would be more than half of the range. n is at most an eighth of it.
  bool add_child(uint32_t page, uint32_t n = 1) noexcept {
    // relaxed: the caller's pin or share orders it: no eviction succeeds before that is dropped.
    const uint64_t m = meta(page).fetch_add(M::kChildUnit * n, kRelaxed);
    if (M::children(m) + n <= M::kChildrenHalf) {
      if (M::leaf(m)) refresh_leaf_hint(page);
      return true;
    }
    drop_child(page, n);
    return false;
  }

  // n less; returns how many are left. For a child: after the index erased it, and after its
  // stamp was handed up.
  uint32_t drop_child(uint32_t page, uint32_t n = 1) noexcept {
    // release: pairs with the acquire in begin_evict(): the child goes before its parent, so
    // presence is monotone along a chain, and the parent has the child's stamp.
    const uint64_t m = meta(page).fetch_sub(M::kChildUnit * n, kRelease);
    assert(M::children(m) >= n);
    if (M::leaf(m - M::kChildUnit * n)) refresh_leaf_hint(page);
    return M::children(m) - n;
  }

  // One less, if more than `least` are there. False, and nothing changed, if not. Whoever takes one
  // so and gives it back by add_child() has seen no fewer than `least` in between.
  bool drop_child_above(uint32_t page, uint32_t least) noexcept {
    auto &word = meta(page);
    uint64_t m = word.load(kRelaxed);
    do {
      if (M::children(m) <= least) return false;
      // release: as in drop_child().
    } while (!word.compare_exchange_weak(m, m - M::kChildUnit, kRelease, kRelaxed));
    if (M::leaf(m - M::kChildUnit)) refresh_leaf_hint(page);
    return true;
  }

  // ---- Age and class --------------------------------------------------------------------------

  uint32_t stamp(uint32_t page) const noexcept { return stamp_[page].load(kRelaxed); }

  // To the maximum, in the order of signed differences: a stalled thread does not make a page
  // older.
  void raise_stamp(uint32_t page, uint32_t epoch) noexcept {
    auto &stamp = stamp_[page];
    uint32_t now = stamp.load(kRelaxed);
    // relaxed: the release in unpin() or drop_child(), which follows, publishes it.
    while (static_cast<int32_t>(epoch - now) > 0 &&
           !stamp.compare_exchange_weak(now, epoch, kRelaxed, kRelaxed)) {
    }
  }
  // By the owner of a private page: its former life's stamp means nothing.
  // relaxed: make_visible() publishes it.
  void set_stamp(uint32_t page, uint32_t epoch) noexcept { stamp_[page].store(epoch, kRelaxed); }

  // Of a visible page. By its publisher before it is one (which must set it: the word was the
  // lease's), by holders of a pin later. Never kNone, which says of any page that it is private and
  // on no lease (Cache::free).
  uint32_t idle_ttl_ms(uint32_t page) const noexcept { return (*this)[page].lease.load(kRelaxed); }
  void set_idle_ttl_ms(uint32_t page, uint32_t ms) noexcept {
    (*this)[page].lease.store(ms == kNone ? kNone - 1 : ms, kRelaxed);
  }

  // The namespace of a page that becomes visible. By its owner.
  // relaxed: make_visible() publishes it.
  void set_space(uint32_t page, uint32_t number) noexcept {
    (*this)[page].space.store(number, kRelaxed);
    space_[page].store(static_cast<uint8_t>(number), kRelaxed);
  }

  // The caller's class of a page, 0 .. 127.
  uint8_t page_class(uint32_t page) const noexcept {
    return static_cast<uint8_t>(tag_[page].load(kRelaxed) & ~kLeafBit);
  }
  void set_class(uint32_t page, uint8_t value) noexcept {
    auto &tag = tag_[page];
    uint8_t old = tag.load(kRelaxed);
    // relaxed: this write carries the leaf bit on; as a read-modify-write it does not break the chain
    // of that bit's writers.
    while (!tag.compare_exchange_weak(
        old, static_cast<uint8_t>((old & kLeafBit) | (value & ~kLeafBit)), kRelaxed, kRelaxed)) {
    }
  }
  // A hint: see the header comment.
  bool leaf_hint(uint32_t page) const noexcept {
    return (tag_[page].load(kRelaxed) & kLeafBit) != 0;
  }

  // Makes the leaf bit what meta says. The calls above do this; the index does after publishing.
  void refresh_leaf_hint(uint32_t page) noexcept {
    for (;;) {
      // relaxed, both loads: the second one cannot be older than what the last writer of the bit
      // saw, since his write came before ours.
      const bool leaf = M::leaf(meta(page).load(kRelaxed));
      // acq_rel: pairs with itself in the other thread that writes this bit.
      if (leaf) {
        tag_[page].fetch_or(kLeafBit, kAcqRel);
      } else {
        tag_[page].fetch_and(static_cast<uint8_t>(~kLeafBit), kAcqRel);
      }
      if (M::leaf(meta(page).load(kRelaxed)) == leaf) return;
    }
  }

  // ---- Insight --------------------------------------------------------------------------------

  // Of `in_pool` numbers that the pool has: those are in no life. Exact at rest; under traffic each
  // page is counted once, in a state that it had.
  PageCounts counts(uint32_t in_pool = 0) const noexcept {
    PageCounts counts;
    for (uint32_t i = 0; i < capacity_; ++i) {
      const uint64_t m = meta(i).load(kRelaxed);
      counts.refs += M::ref(m);
      switch (M::state(m)) {
        case PageState::kPrivate:
          ++counts.private_pages;
          break;
        case PageState::kVisible:
          ++counts.visible;
          break;
        case PageState::kEvicting:
          ++counts.evicting;
          break;
      }
    }
    counts.private_pages -= in_pool < counts.private_pages ? in_pool : counts.private_pages;
    return counts;
  }

  // At rest: the invariants of the header comment. False also where memory for it is short.
  bool validate() const {
    std::unique_ptr<uint32_t[]> children(new (std::nothrow) uint32_t[capacity_]());
    if (!children) return false;
    for (uint32_t i = 0; i < capacity_; ++i) {
      const uint64_t m = meta(i).load(kAcquire);
      const PageState state = M::state(m);
      if (state > PageState::kVisible) return false;
      if ((m & M::kBusy) != 0 && state != PageState::kPrivate) return false;
      if (leaf_hint(i) != M::leaf(m)) return false;
      if (state != PageState::kVisible) continue;
      const uint32_t parent = page_[i].parent.load(kRelaxed);
      const uint64_t link = uint64_t{M::generation(m)} << 32 | (parent == kNone ? i : parent);
      if (link_[i].load(kRelaxed) != link) return false;
      if (space_[i].load(kRelaxed) != static_cast<uint8_t>(page_[i].space.load(kRelaxed)))
        return false;
      if (parent == kNone) continue;
      if (parent >= capacity_ || !M::visible(meta(parent).load(kAcquire))) return false;
      ++children[parent];
    }
    for (uint32_t i = 0; i < capacity_; ++i) {
      if (M::children(meta(i).load(kAcquire)) < children[i]) return false;
    }
    return true;
  }

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;
  static constexpr std::memory_order kAcquire = std::memory_order_acquire;
  static constexpr std::memory_order kRelease = std::memory_order_release;
  static constexpr std::memory_order kAcqRel = std::memory_order_acq_rel;

  template <class T>
  static constexpr size_t part(uint32_t capacity) noexcept {
    return align_up(size_t{capacity} * sizeof(T), kAlignment);
  }
  // Of a private page; whoever holds it lets go of it by that.
  static constexpr uint64_t next_life(uint64_t m) noexcept {
    return (m & ~M::kBusy) + M::kGenerationUnit;
  }
  // change(word) of a private page of that generation that nobody works on; the same word: refused.
  template <class Change>
  Hold change_private(uint32_t page, uint32_t generation, Change change) noexcept {
    auto &word = meta(page);
    uint64_t m = word.load(kRelaxed);
    while (M::idle(m, generation)) {
      const uint64_t next = change(m);
      if (next == m) return Hold::kBusy;
      // acquire: pairs with the releases in unhold() and release_private().
      if (word.compare_exchange_weak(m, next, kAcquire, kRelaxed)) return Hold::kHeld;
    }
    if (M::generation(m) != generation || M::state(m) > PageState::kVisible) return Hold::kStale;
    return M::visible(m) ? Hold::kPublished : Hold::kBusy;
  }
  atomic<uint64_t> &meta(uint32_t page) const noexcept { return (*this)[page].meta; }

  // relaxed: whether the key is right counts only between two looks at a visible state.
  static bool has_key(const Descriptor &d, const Key &key) noexcept {
    return d.key_lo.load(kRelaxed) == key.lo && d.key_hi.load(kRelaxed) == key.hi;
  }
  // relaxed: nothing was read under this pin that anybody has to wait for.
  static void undo_ref(Descriptor &d) noexcept { d.meta.fetch_sub(M::kRefUnit, kRelaxed); }

  Descriptor *page_ = nullptr;
  atomic<uint64_t> *link_ = nullptr;
  atomic<uint32_t> *stamp_ = nullptr;
  atomic<uint8_t> *tag_ = nullptr;
  atomic<uint8_t> *space_ = nullptr;
  uint32_t capacity_ = 0;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_PAGE_TABLE_H_
