#include "runtime/learner.h"

#include <algorithm>
#include <bit>
#include <new>

namespace quire {
namespace {

// An epoch that another thread read later than this one is no age at all.
uint32_t age_of(uint32_t now, uint32_t last) noexcept {
  const uint32_t age = now - last;
  return static_cast<int32_t>(age) < 0 ? 0 : age;
}

}  // namespace

bool Learner::open(const PageTable<> &pages) noexcept {
  pages_ = pages;
  const uint32_t n = pages.capacity();
  const uint64_t ghosts = std::min<uint64_t>(uint64_t{n} * kGhosts, UINT32_MAX / 2);
  if (!seen_.try_resize(n) || !class_memory_.try_resize(n) ||
      !ghosts_.open(static_cast<uint32_t>(ghosts)) ||
      !ring_memory_.try_resize(Ring::bytes() + Ring::kAlignment)) {
    return false;
  }
  class_ = reinterpret_cast<std::atomic<uint8_t> *>(class_memory_.data());
  for (uint32_t i = 0; i < n; ++i)
    (new (&class_[i]) std::atomic<uint8_t>)->store(kFresh, std::memory_order_relaxed);
  auto at = reinterpret_cast<uintptr_t>(ring_memory_.data());
  at = align_up(at, Ring::kAlignment);
  ring_ = Ring(reinterpret_cast<void *>(at));
  ring_.format();
  ring_.poll_nothing();  // from here on records are kept
  bytes_ = sizeof *this + seen_.capacity() * sizeof(SeenPage) + class_memory_.capacity() +
           ghosts_.bytes() + ring_memory_.capacity();
  return true;
}

bool Learner::run(Reclaimer &reclaimer) noexcept {
  if (!enter()) return false;
  Ring::Words words;
  uint64_t number = 0;
  // No more than were there: who comes here lends his thread for a while, not for good.
  for (uint32_t i = 0; i < Ring::capacity() && ring_.poll(&words, &number); ++i) {
    const UseRecord record = UseRecord::of(words);
    if (!collect(record)) {
      broken_.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    walk(record);
    walked_.fetch_add(1, std::memory_order_relaxed);
    ++records_since_;
    pages_since_ += record.pages;
    if (!fit_due()) continue;
    fit(record.epoch);
    reclaimer.set_policy(model_.table());  // without memory the former one stays
  }
  leave();
  return true;
}

// The chain's pages and keys. False where it went, or is longer than memory could be had for. A page that goes while we look gives a key that
// is another page's: wrong evidence for one page, which is as good as none.
bool Learner::collect(const UseRecord &record) noexcept {
  if (record.pages == 0 || record.pages > seen_.size()) return false;
  PageView view = pages_.view(record.tail);
  if (view.state != PageState::kVisible || view.generation != record.generation) return false;
  chain_.clear();
  uint32_t page = record.tail;
  for (uint32_t i = record.pages; i-- > 0;) {
    Link link{page, {}, false};
    // relaxed: the view has acquired what the page's publisher wrote. 0 means none here.
    link.seen.key = std::max<uint64_t>(pages_[page].key_lo.load(std::memory_order_relaxed), 1);
    if (!chain_.try_push(link)) return false;
    const auto parent = static_cast<uint32_t>(pages_.link(page));
    if (i == 0) break;
    if (parent == page) return false;
    page = parent;
    view = pages_.view(page);
    if (view.state != PageState::kVisible) return false;
  }
  std::reverse(chain_.data(), chain_.data() + chain_.size());
  return true;
}

// What is known of each page of the chain. Returns how many of the first ones are known.
size_t Learner::know_chain() noexcept {
  size_t prefix = 0;
  for (size_t i = 0; i < chain_.size(); ++i) {
    Link &link = chain_[i];
    SeenPage &seen = seen_[link.page];
    if (seen.key == link.seen.key) {
      link.seen = seen;
      link.known = true;
    } else {
      if (seen.key == 0) ++known_pages_;
      if (seen.key != 0) static_cast<void>(gone_.try_push(seen));
      const uint64_t key = link.seen.key;
      link.known = ghosts_.take(key, &link.seen);
    }
    if (link.known && prefix == i) ++prefix;
  }
  return prefix;
}

uint8_t Learner::kind_of(bool known, uint32_t gap, uint32_t fan, bool tail) noexcept {
  if (fan >= kTrunkFan) return kTrunk;
  if (!known) return tail ? kTail : kFresh;
  const auto octave = static_cast<uint32_t>(std::bit_width(gap | 1)) - 1;
  return static_cast<uint8_t>(std::min(kContinued + octave / 2, kKinds - 1));
}

void Learner::walk(const UseRecord &record) noexcept {
  gone_.clear();
  const size_t n = chain_.size();
  const size_t prefix = know_chain();
  bool tail = false;
  if (prefix != 0 && prefix < n) {
    uint8_t &fan = chain_[prefix - 1].seen.fan;
    if (fan < kTrunkFan) ++fan;
    tail = fan < kTrunkFan;
  }
  for (size_t i = prefix + 1; i < n; ++i) {
    uint8_t &fan = chain_[i - 1].seen.fan;
    if (!chain_[i].known && fan == 0) fan = 1;
  }
  const uint32_t weight = std::max<uint32_t>(1, ReuseModel::kWeight / static_cast<uint32_t>(n));
  for (size_t i = 0; i < n; ++i) {
    Link &link = chain_[i];
    SeenPage &seen = link.seen;
    const uint32_t gap = link.known ? age_of(record.epoch, seen.last) : 0;
    if (link.known) model_.reused(seen.cls, gap, seen.weight);
    const uint8_t kind = kind_of(link.known, gap, seen.fan, tail);
    seen.cls = static_cast<uint8_t>(record.cls * kKinds + kind);
    seen.last = record.epoch;
    seen.weight = static_cast<uint16_t>(weight);
    seen_[link.page] = seen;
    class_[link.page].store(seen.cls, std::memory_order_relaxed);
  }
  send_away(record.epoch);
}

// Those whose numbers others have now.
void Learner::send_away(uint32_t now) noexcept {
  std::sort(gone_.data(), gone_.data() + gone_.size(), [](const SeenPage &a, const SeenPage &b) {
    return a.last != b.last ? static_cast<int32_t>(a.last - b.last) < 0 : a.key < b.key;
  });
  for (size_t i = 0; i < gone_.size(); ++i) {
    SeenPage lost;
    if (!ghosts_.push(gone_[i], &lost)) continue;
    model_.lost(lost.cls, age_of(now, lost.last), lost.weight);
  }
}

bool Learner::fit_due() const noexcept {
  return records_since_ >= kFitRecords && pages_since_ * kFitShare >= known_pages_ + ghosts_.live();
}

void Learner::fit(uint32_t now) noexcept {
  halved_ += records_since_;
  if (halved_ >= kHalveRecords) {
    halved_ = 0;
    model_.halve();
  }
  records_since_ = pages_since_ = 0;
  model_.begin_fit();
  const auto open = [&](const SeenPage &seen) {
    model_.open(seen.cls, age_of(now, seen.last), seen.weight);
  };
  for (size_t page = 0; page < seen_.size(); ++page) {
    if (seen_[page].key != 0) open(seen_[page]);
  }
  ghosts_.for_each(open);
  model_.fit();
  known_classes_.store(model_.classes(), std::memory_order_relaxed);
  fits_.fetch_add(1, std::memory_order_relaxed);
}

LearnerCounts Learner::counts() const noexcept {
  LearnerCounts counts;
  counts.walked = walked_.load(std::memory_order_relaxed);
  counts.broken = broken_.load(std::memory_order_relaxed);
  counts.dropped = ring_.dropped();
  counts.fits = fits_.load(std::memory_order_relaxed);
  counts.classes = known_classes_.load(std::memory_order_relaxed);
  return counts;
}

bool Learner::validate() noexcept {
  if (!enter()) return true;
  size_t known = 0;
  bool right = ring_.validate() && ghosts_.validate();
  for (size_t page = 0; page < seen_.size(); ++page) {
    if (seen_[page].key != 0) ++known;
    right = right && class_[page].load(std::memory_order_relaxed) < kPolicyClasses;
  }
  right = right && known == known_pages_;
  leave();
  return right;
}

}  // namespace quire
