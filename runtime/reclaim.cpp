// How the cache and its reclaimer meet: what an eviction does to the cache, who asks for one, and
// what the cache's own thread does at a tick.
//
// A tick moves the clock only if somebody used the cache since the last one, or a frame waits in
// limbo: an idle cache keeps its epochs, and the thread rests longer and longer
// (runtime/reclaim_thread.h).
#include "runtime/cache.h"

namespace quire {

static_assert(static_cast<int>(EvictReason::kCapacity) == QUIRE_EVICT_CAPACITY);
static_assert(static_cast<int>(EvictReason::kIdle) == QUIRE_EVICT_IDLE);
static_assert(static_cast<int>(EvictReason::kExpired) == QUIRE_EVICT_EXPIRED);
static_assert(static_cast<int>(EvictReason::kNamespace) == QUIRE_EVICT_NAMESPACE);
static_assert(static_cast<int>(EvictReason::kQuota) == QUIRE_EVICT_QUOTA);

Status Cache::build_reclaimer() noexcept {
  runner_ = make_task_runner(config_.values.reclaim_threads, config_.values.numa_node - 1);
  Reclaimer::Parts parts;
  parts.pages = tables_->pages;
  parts.index = tables_->index;
  parts.page_pool = tables_->page_pool;
  parts.clock = tables_->clock;
  parts.log = tables_->log;
  parts.sink = this;
  parts.runner = runner_.get();
  PolicyTable table = PolicyTable::lru();
  if (config_.values.policy == QUIRE_POLICY_PRIORITY) table = PolicyTable::by_priority();
  if (config_.values.policy == QUIRE_POLICY_HAZARD) {
    learner_ = heap_make<Learner>(*heap_, *heap_);
    if (!learner_ || !learner_->open(tables_->pages)) {
      return set_error(Status::kNomem, "no memory for what the policy learns");
    }
    table = learner_->table();
    parts.learned = learner_->classes();
    region_.header().policy_bytes = learner_->bytes();
  }
  reclaimer_.emplace(parts, table);
  const auto share = [this](float part) {
    return static_cast<uint32_t>(static_cast<double>(part) * config_.shape.frames);
  };
  low_frames_ = share(config_.values.low_watermark);
  high_frames_ = share(config_.values.high_watermark);
  return Status::kOk;
}

// A page left the index. Its frame is still ours; its namespace forgets it with the others of its
// batch.
void Cache::evicted(uint32_t page, uint32_t /*stamp*/, EvictReason reason) noexcept {
  Tables &t = *tables_;
  const PageDescriptor &d = t.pages[page];
  const uint32_t space = d.space.load(std::memory_order_relaxed);
  if (t.spaces.zero(space)) {
    // relaxed: the pool's or limbo's release, which follows, publishes it.
    t.frame_flags[d.frame.load(std::memory_order_relaxed)].store(kFrameZero,
                                                                 std::memory_order_relaxed);
  }
  if (learner_) learner_->forget(page);
  emit_page(QUIRE_EVENT_REMOVED, page, static_cast<uint32_t>(reason));
}

// Each frame retires with its page's last use: those that all readers have passed go to the pool
// together, the others to limbo.
void Cache::retire(const EvictBatch &batch) noexcept {
  Tables &t = *tables_;
  static constexpr Counter kOfReason[] = {
      Counter::evictions_capacity_total,  Counter::evictions_capacity_total,
      Counter::evictions_idle_total,      Counter::evictions_expired_total,
      Counter::evictions_namespace_total, Counter::evictions_quota_total};
  uint32_t of_reason[kEvictReasons] = {};
  uint32_t passed[EvictBatch::kMost];
  uint32_t n_passed = 0;
  const uint64_t now = clock_epoch();
  const uint64_t min_passed = streams_->min_passed();
  for (uint32_t i = 0; i < batch.n; ++i) {
    ++of_reason[static_cast<uint32_t>(batch.reason[i])];
    const uint64_t epoch = widen_epoch(now, batch.stamp[i]);
    t.stats.record(Histogram::eviction_age_epochs, now > epoch ? now - epoch : 0);
    if (epoch <= min_passed) {
      passed[n_passed++] = batch.frame[i];
    } else {
      retire_frame(FrameClass::kSealed, batch.frame[i], epoch, false);
    }
  }
  if (n_passed != 0) {
    t.stats.add(Counter::frames_retired_total, n_passed);
    give_back(FrameClass::kSealed, passed, n_passed);
  }
  for (uint32_t i = 0; i < kEvictReasons; ++i) {
    if (of_reason[i] != 0) t.stats.add(kOfReason[i], of_reason[i]);
  }
  drop_from_spaces(batch);
}

bool Cache::is_dead(uint32_t page) noexcept {
  const PageDescriptor &d = tables_->pages[page];
  return d.space_generation.load(std::memory_order_relaxed) !=
         tables_->spaces.generation(d.space.load(std::memory_order_relaxed));
}

// In the caller's thread, for a pool that is dry. What has died goes first: it costs nobody a hit.
uint32_t Cache::reclaim(uint32_t frames) noexcept {
  uint32_t evicted = 0;
  const uint64_t now = now_ms();
  if (reclaimer_->expiry_due(now)) evicted = reclaimer_->expire(now).total();
  if (evicted < frames) evicted += reclaimer_->reclaim(frames - evicted);
  count_scans();
  return evicted;
}

// The reclaimer counts its scans for itself; others see them in the region. Two threads may come in
// either order: what one adds too much the other takes away.
void Cache::count_scans() noexcept {
  const ReclaimCounts counts = reclaimer_->counts();
  const uint64_t passes = seen_passes_.exchange(counts.passes, std::memory_order_relaxed);
  const uint64_t scanned = seen_scanned_.exchange(counts.scanned, std::memory_order_relaxed);
  tables_->stats.add(Counter::reclaim_passes_total, counts.passes - passes);
  tables_->stats.add(Counter::reclaim_scanned_total, counts.scanned - scanned);
}

void Cache::note_use(uint32_t tail, uint32_t pages) noexcept {
  const PageTable<> &table = tables_->pages;
  UseRecord record;
  record.tail = tail;
  record.generation = table.generation(tail);
  record.pages = pages;
  record.epoch = static_cast<uint32_t>(clock_epoch());
  record.cls = static_cast<uint8_t>(class_of(table.page_class(tail)));
  learner_->note(record);
}

void Cache::learn() noexcept {
  if (!learner_ || !learner_->run(*reclaimer_)) return;
  const LearnerCounts counts = learner_->counts();
  const auto add = [this](Counter counter, std::atomic<uint64_t> &seen, uint64_t count) {
    tables_->stats.add(counter, count - seen.exchange(count, std::memory_order_relaxed));
  };
  add(Counter::use_records_total, seen_walked_, counts.walked);
  add(Counter::use_records_lost_total, seen_lost_, counts.broken + counts.dropped);
  add(Counter::policy_fits_total, seen_fits_, counts.fits);
  region_.header().policy_classes.store(counts.classes, std::memory_order_relaxed);
}

bool Cache::expire_due() noexcept {
  const uint64_t now = now_ms();
  if (!reclaimer_->expiry_due(now)) return false;
  const bool any = reclaimer_->expire(now).total() != 0;
  count_scans();
  return any;
}

// From the low watermark up to the high one.
bool Cache::refill_pool() noexcept {
  const uint32_t available = tables_->frame_pool.available();
  if (low_frames_ == 0 || available >= low_frames_) return false;
  const bool any = reclaimer_->reclaim(high_frames_ - available) != 0;
  count_scans();
  return any;
}

bool Cache::tick(bool /*woken*/) noexcept {
  const Stats &stats = tables_->stats;
  const uint64_t activity =
      stats.total(Counter::acquires_total) + stats.total(Counter::releases_total) +
      stats.total(Counter::pages_freed_total) + stats.total(Counter::pages_published_total);
  const bool used = activity != last_activity_;
  last_activity_ = activity;
  const bool waiting = tables_->limbo.count() + tables_->open_limbo.count() != 0;
  if ((used || waiting) && config_.values.epoch_ms != QUIRE_NO_TIMER) {
    streams_->step(true);
    after_advance();
  } else {
    const uint64_t now = now_ms();
    region_.header().now_ms.store(now, std::memory_order_relaxed);
    if (earliest_deadline_.load(std::memory_order_relaxed) <= now) sweep_leases(now);
  }
  learn();
  const bool expired = expire_due();
  const bool refilled = refill_pool();
  return used || expired || refilled;
}

}  // namespace quire
