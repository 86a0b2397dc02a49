// How the cache and its reclaimer meet: what an eviction does to the cache, and who asks for one.
#include "runtime/cache.h"

namespace quire {

static_assert(static_cast<int>(EvictReason::kCapacity) == QUIRE_EVICT_CAPACITY);
static_assert(static_cast<int>(EvictReason::kIdle) == QUIRE_EVICT_IDLE);
static_assert(static_cast<int>(EvictReason::kExpired) == QUIRE_EVICT_EXPIRED);
static_assert(static_cast<int>(EvictReason::kNamespace) == QUIRE_EVICT_NAMESPACE);

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
  const bool lru = config_.values.policy == QUIRE_POLICY_LRU;
  reclaimer_.emplace(parts, lru ? PolicyTable::lru() : PolicyTable::by_priority());
  return Status::kOk;
}

// A page left the index: its frame retires with its last use, and its namespace forgets it.
void Cache::evicted(uint32_t page, uint32_t stamp, EvictReason reason) noexcept {
  Tables &t = *tables_;
  const PageDescriptor &d = t.pages[page];
  const uint32_t space = d.space.load(std::memory_order_relaxed);
  const uint64_t epoch = t.clock.widen(stamp);
  retire_frame(FrameClass::kSealed, d.frame.load(std::memory_order_relaxed), epoch,
               t.spaces.zero(space));
  t.spaces.drop_page(space);
  static constexpr Counter kOfReason[] = {
      Counter::evictions_capacity_total, Counter::evictions_capacity_total,
      Counter::evictions_idle_total, Counter::evictions_expired_total,
      Counter::evictions_namespace_total};
  t.stats.add(kOfReason[static_cast<uint32_t>(reason)]);
  t.stats.record(Histogram::eviction_age_epochs, clock_epoch() - epoch);
  emit_page(QUIRE_EVENT_REMOVED, page, static_cast<uint32_t>(reason));
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
  return evicted;
}

}  // namespace quire
