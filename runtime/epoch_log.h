// EpochLog: when did an epoch begin? Pages carry the epoch of their last use; time to live is given
// in milliseconds. The log turns "idle since this time" into an epoch, once for a whole pass.
//
//   level k   a ring of 1024 buckets, each 16^k ms wide; 5 levels reach 776 days back
//   bucket    | lap:20 | epoch:44 |   lap: bucket number / 1024, so that a lap of the ring is told
//             from the next; epoch: the last one known to have begun in that bucket
//
// note(epoch, ms), by whoever advanced the clock: after advance(), read the time, then note. So the
// epoch began at `ms` or earlier. It raises one bucket of each level (CAS to a later lap or a later
// epoch), hence it does not matter who is late: an entry is a true statement for ever.
//
// began_by(ms): an epoch E that had begun by then; the latest that the log can prove. All uses that
// are stamped before E were made by `ms`. Hence, with cut = began_by(now - ttl),
//
//   stamp < cut   =>   last use + ttl <= now            (a page never expires early)
//
// and it is late by the time from `now - ttl` back to the entry that was found: one bucket of the
// first level that still has that time, which is 1 ms for ages below 1024 ms and at most 1/64 of
// the age beyond, plus the time for which the clock stood still.
//
// Why "had begun by" and not "was current at": uses of an epoch come until the next one begins, so
// only the next one's beginning says that they are all over.
//
// An entry that is exactly 2^20 laps old looks like a present one; it then names an epoch that is
// too old, and pages expire late, not early.
//
// Invariant (validate()): no bucket names an epoch after `now`.
// Progress: note is lock free, began_by wait free. Thread class: any. format: before sharing.
// Cost: note five uncontended CAS; began_by at most 5 x 1024 loads, usually one or two; 40 KiB.
#ifndef QUIRE_RUNTIME_EPOCH_LOG_H_
#define QUIRE_RUNTIME_EPOCH_LOG_H_

#include <cstddef>
#include <cstdint>
#include <new>

#include "allocators/atomics.h"

namespace quire {

template <class A = StdAtomics>
class EpochLog {
  using Word = typename A::template atomic<uint64_t>;

 public:
  static constexpr uint32_t kLevels = 5;
  static constexpr uint32_t kBuckets = 1024;
  static constexpr size_t kAlignment = kCacheLine;

  static constexpr size_t bytes() noexcept { return sizeof(Word) * kLevels * kBuckets; }

  EpochLog() = default;
  explicit EpochLog(void *memory) noexcept : word_(static_cast<Word *>(memory)) {}

  void format() noexcept {
    for (uint32_t i = 0; i < kLevels * kBuckets; ++i) (new (&word_[i]) Word)->store(0, kRelaxed);
  }

  // The epoch had begun at `ms`: advance the clock first, then read the time.
  void note(uint64_t epoch, uint64_t ms) noexcept {
    for (uint32_t level = 0; level < kLevels; ++level) {
      const uint64_t bucket = ms >> (4 * level);
      Word &word = word_of(level, bucket);
      const uint64_t entry = lap_of(bucket) << kEpochBits | (epoch & kEpochMask);
      uint64_t seen = word.load(kRelaxed);
      // relaxed: an entry stands for itself; stamps are read with no order to it.
      while (is_older(seen, entry) &&
             !word.compare_exchange_weak(seen, entry, kRelaxed, kRelaxed)) {
      }
    }
  }

  // The latest epoch that is known to have begun by `ms`; 0, before all epochs, if none is. `now`
  // is an epoch at or after all that were noted, `now_ms` a time likewise.
  uint64_t began_by(uint64_t ms, uint64_t now, uint64_t now_ms) const noexcept {
    if (ms > now_ms) ms = now_ms;
    for (uint32_t level = 0; level < kLevels; ++level) {
      const uint64_t last = now_ms >> (4 * level);
      uint64_t bucket = ms >> (4 * level);
      // A bucket that is not over at `ms` may hold an epoch that began later; 1 ms ones do not.
      if (level != 0) {
        if (bucket == 0) continue;
        --bucket;
      }
      // What is a lap back has been overwritten, or will be as we look.
      for (; last - bucket < kBuckets - 1; --bucket) {
        const uint64_t entry = word_of(level, bucket).load(kRelaxed);
        if (entry != 0 && entry >> kEpochBits == lap_of(bucket)) return widen(now, entry);
        if (bucket == 0) break;
      }
    }
    return 0;
  }

  bool validate(uint64_t now = UINT64_MAX) const noexcept {
    if (now == UINT64_MAX) return true;
    for (uint32_t i = 0; i < kLevels * kBuckets; ++i) {
      const uint64_t entry = word_[i].load(kRelaxed);
      if (entry != 0 && ((now - entry) & kEpochMask) >= kEpochMask / 2) return false;
    }
    return true;
  }

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;
  static constexpr unsigned kEpochBits = 44;
  static constexpr unsigned kLapBits = 64 - kEpochBits;
  static constexpr uint64_t kEpochMask = (uint64_t{1} << kEpochBits) - 1;
  static constexpr uint64_t kLapMask = (uint64_t{1} << kLapBits) - 1;

  Word &word_of(uint32_t level, uint64_t bucket) const noexcept {
    return word_[level * kBuckets + bucket % kBuckets];
  }
  static constexpr uint64_t lap_of(uint64_t bucket) noexcept {
    return bucket / kBuckets & kLapMask;
  }
  static constexpr uint64_t widen(uint64_t now, uint64_t entry) noexcept {
    return now - ((now - entry) & kEpochMask);
  }
  // Cyclic in both fields. An empty word (epoch 0) is older than anything.
  static constexpr bool is_older(uint64_t a, uint64_t b) noexcept {
    if (a == 0) return true;
    const uint64_t laps = ((b >> kEpochBits) - (a >> kEpochBits)) & kLapMask;
    if (laps != 0) return laps < kLapMask / 2;
    const uint64_t epochs = (b - a) & kEpochMask;
    return epochs != 0 && epochs < kEpochMask / 2;
  }

  Word *word_ = nullptr;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_EPOCH_LOG_H_
