#include "runtime/reuse_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace quire {
namespace {

constexpr double kMostHazard = 0.999;

double width(uint32_t bin) noexcept {
  return static_cast<double>(ReuseModel::bin_begin(bin + 1) - ReuseModel::bin_begin(bin));
}

// Gittins' index at the beginning of bin b, with horizons at the ends of bins b .. end - 1.
double index(const double *hazard, uint32_t b, uint32_t end) noexcept {
  double stays = 1, time = 0, chance = 0, best_time = 1;
  for (uint32_t j = b; j < end; ++j) {
    time += stays * width(j) * (1 - 0.5 * hazard[j]);
    stays *= 1 - hazard[j];
    // Products, since a division costs as much as all the rest.
    if ((1 - stays) * best_time > chance * time) {
      chance = 1 - stays;
      best_time = time;
    }
  }
  return chance / best_time;
}

}  // namespace

ReuseModel::ReuseModel() noexcept : table_(PolicyTable::lru()) {
  table_.age_only = false;
  table_.learned = true;
  double hazard[kBins];
  std::fill(hazard, hazard + kBins, kPriorHazard);
  for (uint32_t b = 0; b < kBins; ++b) prior_worth_[b] = index(hazard, b, kBins);
  for (uint32_t cls = 0; cls < kPolicyClasses; ++cls) {
    for (uint32_t b = 0; b < kBins; ++b) set_rank(cls, b, prior_worth_[b]);
  }
}

void ReuseModel::halve() noexcept {
  for (auto *counts : {&reused_, &lost_}) {
    for (auto &of_class : *counts) {
      for (uint64_t &count : of_class) count /= 2;
    }
  }
}

void ReuseModel::begin_fit() noexcept {
  std::memset(open_, 0, sizeof open_);
}

const PolicyTable &ReuseModel::fit() noexcept {
  classes_ = 0;
  for (uint32_t cls = 0; cls < kPolicyClasses; ++cls) {
    uint32_t end = kBins;
    while (end != 0 && (reused_[cls][end - 1] | lost_[cls][end - 1] | open_[cls][end - 1]) == 0) {
      --end;
    }
    if (end == 0) continue;
    ++classes_;
    fit_class(cls, end);
  }
  return table_;
}

// Bins from `end` on have nothing in them: there the prior speaks alone.
void ReuseModel::fit_class(uint32_t cls, uint32_t end) noexcept {
  constexpr double kPrior = kPriorRequests * kWeight;
  constexpr uint32_t kBeyond = 4;  // bins of the prior that a horizon may lie in
  double hazard[kBins];
  uint64_t later = 0;
  for (uint32_t b = end; b-- > 0;) {
    const uint64_t cut = open_[cls][b] + lost_[cls][b];
    const auto twice = static_cast<double>(2 * (reused_[cls][b] + later) + cut);
    const auto reused = static_cast<double>(reused_[cls][b]);
    hazard[b] = std::min((reused + kPrior * kPriorHazard) / (twice / 2 + kPrior), kMostHazard);
    later += reused_[cls][b] + cut;
  }
  const uint32_t horizon = std::min(end + kBeyond, kBins);
  std::fill(hazard + end, hazard + horizon, kPriorHazard);
  for (uint32_t b = 0; b < end; ++b) set_rank(cls, b, index(hazard, b, horizon));
  for (uint32_t b = end; b < kBins; ++b) set_rank(cls, b, prior_worth_[b]);
}

// The table has 8 buckets an octave, two to a bin.
void ReuseModel::set_rank(uint32_t cls, uint32_t bin, double worth) noexcept {
  const double rank = std::clamp(255 + kRanksOctave * std::log2(worth), 0.0, 255.0);
  const auto byte = static_cast<uint8_t>(rank);
  if (bin < 8) {
    table_.rank[cls][bin] = byte;
  } else {
    table_.rank[cls][2 * bin - 8] = table_.rank[cls][2 * bin - 7] = byte;
  }
}

}  // namespace quire
