// ReuseModel: how likely pages of a class are used again, by age, and what that makes them worth.
// The arithmetic of the policy `hazard`; it knows nothing of pages.
//
//   bin(age)    0 .. 7 one each, from there 4 an octave: 124 for all of 2^32 epochs
//   reused      weights of uses that were followed by another one, by the class of the page between
//               the two and by the age that it had reached at the second
//   lost        weights of pages that fell out of memory, by class and age: not used until then
//   open        weights of pages that are known and have not been used again, as of now
//
// Kaplan and Meier's estimate of the hazard of reuse in a bin, with half of those whose wait was cut
// short within it at risk, and with a prior that speaks for kPriorRequests requests:
//
//   risk(b)     = reused(b) + (open(b) + lost(b)) / 2 + what lies in later bins
//   hazard(b)   = (reused(b) + prior * kPriorHazard) / (risk(b) + prior)
//
// One hazard in every bin, each a quarter of an octave wide, means that the worth of a page falls
// with its age: an LRU. The worth of a page at the beginning of bin b is Gittins' index: of all
// horizons the best ratio of the chance of reuse up to there to the time that the page will have
// stayed, until it is used or the horizon comes:
//
//   worth(b)    = max over j >= b of (1 - S(j)) / T(j),   S, T over bins b .. j
//   rank(b)     = 255 + kRanksOctave * log2(worth(b)), within 0 .. 255
//
// It may rise with age: who comes back does so after thinking, and a page is worth most just before.
// Weights are integers, so that sums do not depend on the order in which pages are counted.
//
// Invariant: a table depends on the sums only. Thread class: one thread at a time. Cost: reused() and
// the like an addition; fit() about 10 us a class that has been seen.
#pragma once

#include <bit>
#include <cstdint>

#include "runtime/policy.h"

namespace quire {

class ReuseModel {
 public:
  static constexpr uint32_t kBins = 8 + 29 * 4;
  static constexpr uint32_t kWeight = 65535;  // of one request
  static constexpr double kPriorRequests = 10;
  static constexpr double kPriorHazard = 0.05;
  static constexpr double kRanksOctave = 10;

  ReuseModel() noexcept;

  static constexpr uint32_t bin(uint32_t age) noexcept {
    if (age < 8) return age;
    const auto octave = static_cast<uint32_t>(std::bit_width(age)) - 1;
    return 8 + (octave - 3) * 4 + (age >> (octave - 2) & 3);
  }
  // The first age of a bin; of the one behind the last, 2^32.
  static constexpr uint64_t bin_begin(uint32_t bin) noexcept {
    if (bin < 8) return bin;
    return uint64_t{4 + (bin - 8) % 4} << ((bin - 8) / 4 + 1);
  }

  void reused(uint32_t cls, uint32_t age, uint32_t weight) noexcept {
    reused_[cls][bin(age)] += weight;
  }
  void lost(uint32_t cls, uint32_t age, uint32_t weight) noexcept {
    lost_[cls][bin(age)] += weight;
  }
  // Half of what was counted is forgotten: traffic changes.
  void halve() noexcept;

  // begin_fit(), open() for every page that is known, and then the table.
  void begin_fit() noexcept;
  void open(uint32_t cls, uint32_t age, uint32_t weight) noexcept {
    open_[cls][bin(age)] += weight;
  }
  const PolicyTable &fit() noexcept;

  // Without any evidence: an LRU.
  const PolicyTable &table() const noexcept { return table_; }
  // Classes that the last table knows something of.
  uint32_t classes() const noexcept { return classes_; }

 private:
  void fit_class(uint32_t cls, uint32_t end) noexcept;
  void set_rank(uint32_t cls, uint32_t bin, double worth) noexcept;

  using Counts = uint64_t[kPolicyClasses][kBins];
  Counts reused_{}, lost_{}, open_{};
  double prior_worth_[kBins];
  PolicyTable table_;
  uint32_t classes_ = 0;
};

}  // namespace quire
