// FramePool: which of the numbers 0 .. capacity - 1 are free. Frames of a class, page descriptors,
// leases and namespaces are all handed out by one of these.
//
//   word[i]     64 numbers a word, a set bit is a free number
//   summary[j]  64 words a word, a clear bit says "probably nothing free there": a hint only
//   available   numbers that are free and not spoken for
//
// alloc(n) is reserve(n), which takes n from `available`, all or nothing, in O(1), and then
// take_reserved(n): n bits are there for it, since free sets bits before it adds to `available`. So
// at every instant
//
//   set bits = available + bits that running allocs have yet to take + bits that running frees have
//              set and not yet added                                                  (conservation)
//
// and at rest set bits = available, which validate() asserts. The walk for them starts at the
// thread's cursor and takes up to 64 bits with one compare-and-swap, so numbers come out mostly
// contiguous, and copies of neighbours merge. A number freed is at once anybody's: nothing hides in
// another thread's cache.
//
// | step                | atomic                        | order   | partner                          |
// | ------------------- | ----------------------------- | ------- | -------------------------------- |
// | reserve             | CAS available, c -> c - n     | acquire | free's add: the bits are set     |
// | alloc: take bits    | CAS word                      | acquire | free's or: the frame's last use  |
// | alloc: found it dry | and summary, then load word   | seq_cst | free, next two rows              |
// | free: give bits     | or word                       | seq_cst | alloc's take; alloc found it dry |
// | free: word was dry  | load summary                  | seq_cst | alloc found it dry               |
// | both: hint is back  | or summary                    | relaxed | (the word decides)               |
// | free: announce      | add available                 | release | reserve                          |
//
// ABA: a take compares a word of bits, and equal bits are the same free numbers; there is no order
// among free numbers that could have changed in between.
//
// Progress: lock free. A thread stopped anywhere keeps what it had reserved or taken, and no more.
// The summary can be stale while its writer is stopped between clearing a bit and looking again;
// therefore a walk that found too little by the summary goes over the words themselves.
//
// Safety: numbers out of range and numbers that are free already are not given back a second time
// (free counts the bits that it really set). A number freed while somebody else holds it cannot be
// seen here: page generations see it.
//
// Cost: one contended add a call, one CAS per 64 numbers, 1/8 byte a number.
// Thread class: alloc, reserve, free, available: any thread, any time. format: before the pool is shared.
#ifndef QUIRE_ALLOCATORS_FRAME_POOL_H_
#define QUIRE_ALLOCATORS_FRAME_POOL_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>

#include "allocators/atomics.h"

namespace quire {

template <class A = StdAtomics>
class FramePool {
  using Word = typename A::template atomic<uint64_t>;
  using Count = typename A::template atomic<uint32_t>;

  // Cursors of threads, a line each: threads beyond their number share one, and lose only speed.
  static constexpr uint32_t kCursors = 16;

  struct alignas(kCacheLine) Line {
    Count value;
  };
  struct Header {
    Line available;
    Line cursor[kCursors];
  };

 public:
  static constexpr size_t kAlignment = kCacheLine;

  static size_t bytes(uint32_t capacity) noexcept {
    return sizeof(Header) + align_up(words(capacity) * sizeof(Word), kCacheLine) +
           align_up(summaries(capacity) * sizeof(Word), kCacheLine);
  }

  FramePool() = default;
  // A view: `memory` holds bytes(capacity) bytes at a multiple of kAlignment.
  FramePool(void *memory, uint32_t capacity) noexcept : capacity_(capacity) {
    auto *base = static_cast<std::byte *>(memory);
    header_ = reinterpret_cast<Header *>(base);
    word_ = reinterpret_cast<Word *>(base + sizeof(Header));
    summary_ = reinterpret_cast<Word *>(base + sizeof(Header) +
                                        align_up(words(capacity) * sizeof(Word), kCacheLine));
  }

  // Makes the numbers below `free` free and the others taken: those can be given later (growth).
  void format(uint32_t free) noexcept {
    new (header_) Header;
    if (free > capacity_) free = capacity_;
    const uint32_t n_words = words(capacity_), n_summaries = summaries(capacity_);
    for (uint32_t i = 0; i < n_words; ++i)
      (new (&word_[i]) Word)->store(low_bits(free, i), kRelaxed);
    for (uint32_t i = 0; i < n_summaries; ++i) {
      (new (&summary_[i]) Word)->store(low_bits(words(free), i), kRelaxed);
    }
    for (uint32_t i = 0; i < kCursors; ++i) {
      // Threads start far apart, so that two of them do not fight for one word.
      const uint64_t start = uint64_t{n_words} * i / kCursors;
      header_->cursor[i].value.store(static_cast<uint32_t>(start), kRelaxed);
    }
    // relaxed: whatever shares the pool with other threads orders this.
    header_->available.value.store(free, kRelaxed);
  }
  void format() noexcept { format(capacity_); }

  // Takes n numbers, or none and returns false: then fewer than n were available at one instant.
  bool alloc(uint32_t n, uint32_t *out) noexcept {
    if (!reserve(n)) return false;
    take_reserved(n, out);
    return true;
  }

  // Speaks for n numbers if `keep` others stay available: then they are the caller's, to take in
  // any portions, now or later. False, and nothing changed: fewer than n + keep were available at
  // one instant.
  bool reserve(uint32_t n, uint64_t keep = 0) noexcept {
    Count &available = header_->available.value;
    // One trip of the line between cores instead of two: read, then own.
    prefetch_for_write(&available);
    uint32_t count = available.load(kRelaxed);
    do {
      if (count < n + keep) return false;
      // acquire: pairs with the release add in free(): the bits counted here are set.
    } while (!available.compare_exchange_weak(count, count - n, kAcquire, kRelaxed));
    return true;
  }

  // Of what was reserved and not taken.
  void unreserve(uint32_t n) noexcept { announce(n); }

  // The next n of what the caller has reserved.
  void take_reserved(uint32_t n, uint32_t *out) noexcept {
    if (n == 0) return;
    Count &cursor = header_->cursor[A::thread_index() % kCursors].value;
    uint32_t at = cursor.load(kRelaxed), left = n;
    const uint32_t n_words = words(capacity_);
    // First by the summary, then over all words: see Progress above. Bits may also appear behind
    // the walk, when others free and take them in between: then it goes round again.
    for (bool by_summary = true; left != 0; by_summary = !by_summary) {
      for (uint32_t seen = 0; seen < n_words && left != 0;) {
        if (by_summary) {
          const uint32_t step = to_next_hint(at, n_words);
          seen += step;
          at = wrap(at + step, n_words);
          if (seen >= n_words) break;
        }
        const uint32_t got = take(at, left, out);
        out += got;
        left -= got;
        if (left == 0) break;  // The cursor stays at a word that may have more.
        ++seen;
        at = wrap(at + 1, n_words);
      }
    }
    cursor.store(at, kRelaxed);
  }

  // Gives numbers back; returns how many of them were really taken until now.
  size_t free(const uint32_t *ids, size_t n) noexcept {
    size_t freed = 0;
    for (size_t i = 0; i < n;) {
      const uint32_t w = ids[i] / 64;
      uint64_t mask = 0;
      const size_t in_word = std::min<size_t>(n - i, 64 - ids[i] % 64);
      const size_t run = run_of_eights(ids + i, in_word);
      if (run != 0 && ids[i] < capacity_ && run <= capacity_ - ids[i]) {
        mask = low_bits(static_cast<uint32_t>(run), 0) << (ids[i] % 64);
        i += run;
      }
      for (; i < n && ids[i] / 64 == w; ++i) mask |= uint64_t{ids[i] < capacity_} << (ids[i] % 64);
      if (mask != 0) freed += give(w, mask);
    }
    announce(freed);
    return freed;
  }

  // The same for first .. first + n - 1: how a pool grows within its capacity.
  size_t free_range(uint32_t first, uint32_t n) noexcept {
    size_t freed = 0;
    const uint64_t end = uint64_t{first} + n < capacity_ ? uint64_t{first} + n : capacity_;
    for (uint64_t i = first; i < end; i = (i / 64 + 1) * 64) {
      const uint64_t below = end - i / 64 * 64;
      const uint64_t upper = below >= 64 ? ~uint64_t{0} : (uint64_t{1} << below) - 1;
      freed += give(static_cast<uint32_t>(i / 64), upper & (~uint64_t{0} << (i % 64)));
    }
    announce(freed);
    return freed;
  }

  // relaxed: a figure that is old by the time it is used.
  uint32_t available() const noexcept { return header_->available.value.load(kRelaxed); }
  uint32_t capacity() const noexcept { return capacity_; }

  // A hint: may change as soon as it is read.
  bool is_free(uint32_t id) const noexcept {
    return id < capacity_ && (word_[id / 64].load(kRelaxed) >> (id % 64) & 1) != 0;
  }

  // At rest: the invariants of the header comment. A summary bit may be set over a dry word (the
  // next walk clears it), never clear over a word with free numbers.
  bool validate() const noexcept {
    uint64_t set = 0;
    const uint32_t n_words = words(capacity_);
    for (uint32_t i = 0; i < n_words; ++i) {
      const uint64_t bits = word_[i].load(kAcquire);
      if ((bits & ~low_bits(capacity_, i)) != 0) return false;
      if (bits != 0 && (summary_[i / 64].load(kAcquire) >> (i % 64) & 1) == 0) return false;
      set += static_cast<uint64_t>(std::popcount(bits));
    }
    return set == header_->available.value.load(kAcquire);
  }

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;
  static constexpr std::memory_order kAcquire = std::memory_order_acquire;
  static constexpr std::memory_order kRelease = std::memory_order_release;
  static constexpr std::memory_order kSeqCst = std::memory_order_seq_cst;

  static constexpr uint32_t words(uint32_t capacity) noexcept {
    return static_cast<uint32_t>((uint64_t{capacity} + 63) / 64);
  }
  static constexpr uint32_t summaries(uint32_t capacity) noexcept { return words(words(capacity)); }

  // Word i of a bitmap whose first n bits are set.
  static constexpr uint64_t low_bits(uint32_t n, uint32_t i) noexcept {
    const uint64_t first = uint64_t{i} * 64;
    if (n >= first + 64) return ~uint64_t{0};
    return n <= first ? 0 : (uint64_t{1} << (n - first)) - 1;
  }
  static constexpr uint32_t wrap(uint32_t i, uint32_t n) noexcept { return i >= n ? i - n : i; }

  // Words from `at` to the next one, cyclically, whose summary bit is set; n_words if there is
  // none.
  uint32_t to_next_hint(uint32_t at, uint32_t n_words) const noexcept {
    for (uint32_t step = 0; step < n_words;) {
      const uint32_t w = wrap(at + step, n_words);
      // relaxed: a hint; the word itself decides.
      const uint64_t bits = summary_[w / 64].load(kRelaxed) >> (w % 64);
      const uint32_t in_block = n_words - w < 64 - w % 64 ? n_words - w : 64 - w % 64;
      const auto skip = static_cast<uint32_t>(std::countr_zero(bits));
      if (skip < in_block) return step + skip < n_words ? step + skip : n_words;
      step += in_block;
    }
    return n_words;
  }

  uint32_t take(uint32_t w, uint32_t want, uint32_t *out) noexcept {
    Word &word = word_[w];
    uint64_t bits = word.load(kRelaxed);
    while (bits != 0) {
      const uint64_t taken = lowest(bits, want);
      // acquire: pairs with the or in give(): the frame's last use happened before.
      if (!word.compare_exchange_weak(bits, bits & ~taken, kAcquire, kRelaxed)) continue;
      return list(taken, w * 64, out);
    }
    mark_dry(w);
    return 0;
  }

  // Numbers of the set bits, from `base`. Numbers come and go in runs, and a run needs no search.
  static uint32_t list(uint64_t bits, uint32_t base, uint32_t *out) noexcept {
    const auto first = static_cast<uint32_t>(std::countr_zero(bits));
    const auto n = static_cast<uint32_t>(std::popcount(bits));
    if (static_cast<uint32_t>(std::countr_one(bits >> first)) == n) {
      for (uint32_t i = 0; i < n; ++i) out[i] = base + first + i;
      return n;
    }
    for (; bits != 0; bits &= bits - 1) {
      *out++ = base + static_cast<uint32_t>(std::countr_zero(bits));
    }
    return n;
  }

  // How many of the numbers ids[0 .. n - 1] count up by one from the first, in steps of eight.
  static size_t run_of_eights(const uint32_t *ids, size_t n) noexcept {
    size_t run = 0;
    for (; run + 8 <= n; run += 8) {
      uint32_t differ = 0;
      for (uint32_t i = 0; i < 8; ++i) {
        differ |= ids[run + i] ^ (ids[0] + static_cast<uint32_t>(run) + i);
      }
      if (differ != 0) break;
    }
    return run;
  }

  // The lowest `want` set bits.
  static uint64_t lowest(uint64_t bits, uint32_t want) noexcept {
    if (static_cast<uint32_t>(std::popcount(bits)) <= want) return bits;
    // A run at the bottom is the common case: numbers come and go in runs.
    const uint64_t run = bits >> std::countr_zero(bits);
    if (static_cast<uint32_t>(std::countr_one(run)) >= want) {
      return ((uint64_t{1} << want) - 1) << std::countr_zero(bits);
    }
    uint64_t rest = bits;
    for (uint32_t i = 0; i < want; ++i) rest &= rest - 1;
    return bits & ~rest;
  }

  // Clears the hint over a word that was found dry, then looks again. Only a walk that finds
  // nothing does this, not the one that empties a word: most words are refilled before the next
  // walk. seq_cst, here and in give(): we write the summary and read the word, the freer writes the
  // word and reads the summary; in one order of all four, one of the two sees the other's write.
  void mark_dry(uint32_t w) noexcept {
    const uint64_t bit = uint64_t{1} << (w % 64);
    if ((summary_[w / 64].load(kRelaxed) & bit) == 0) return;  // relaxed: as a hint.
    summary_[w / 64].fetch_and(~bit, kSeqCst);
    // relaxed, here and in give(): whoever sees the hint still has to look at the word.
    if (word_[w].load(kSeqCst) != 0) summary_[w / 64].fetch_or(bit, kRelaxed);
  }

  size_t give(uint32_t w, uint64_t mask) noexcept {
    // seq_cst: pairs with the acquire in take(), and with mark_dry().
    const uint64_t old = word_[w].fetch_or(mask, kSeqCst);
    if (old == 0) {
      const uint64_t bit = uint64_t{1} << (w % 64);
      if ((summary_[w / 64].load(kSeqCst) & bit) == 0) summary_[w / 64].fetch_or(bit, kRelaxed);
    }
    return static_cast<size_t>(std::popcount(mask & ~old));
  }

  void announce(size_t n) noexcept {
    // release: pairs with the acquire of alloc()'s reservation: the bits come first.
    if (n != 0) header_->available.value.fetch_add(static_cast<uint32_t>(n), kRelease);
  }

  Header *header_ = nullptr;
  Word *word_ = nullptr;
  Word *summary_ = nullptr;
  uint32_t capacity_ = 0;
};

}  // namespace quire

#endif  // QUIRE_ALLOCATORS_FRAME_POOL_H_
