// Insight: the figures of a cache, from its tables, and the cache's own verbs on them.
#include <algorithm>

#include "runtime/cache.h"
#include "runtime/check.h"
#include "runtime/report.h"

namespace quire {

void report_stats(const ReportSource &from, quire_stats *out) noexcept {
  const Tables &t = from.tables;
  const RegionHeader &h = from.region.header();
#define QUIRE_COPY_COUNTER(name, help) out->name = t.stats.total(Counter::name);
  QUIRE_STATS_COUNTERS(QUIRE_COPY_COUNTER)
#undef QUIRE_COPY_COUNTER
  // The ring counts what it drops itself: whoever pushes need not look.
  out->events_dropped_total += t.events.dropped();

  // So does the table of streams.
  const Shape &shape = from.region.shape();
  const StreamTable<> streams(from.region.part(Part::kStreams), shape.streams, t.clock, nullptr);
  out->events_recorded_total += streams.counts().recorded;
  out->device_errors_total += streams.counts().failed;

  const PageCounts pages = t.pages.counts(t.page_pool.available());
  LeaseReport leases;
  report_leases(from, &leases);
  ReaderReport readers;
  report_readers(from, &readers);

  out->epoch = t.clock.now();
  out->pages_capacity = shape.pages;
  out->pages_free = t.page_pool.available();
  out->pages_private = pages.private_pages;
  out->pages_visible = pages.visible;
  out->frames_capacity = shape.frames;
  out->frames_free = t.frame_pool.available();
  out->frames_limbo = t.limbo.count();
  out->open_frames_capacity = shape.open_frames;
  out->open_frames_free = t.open_pool.available();
  out->open_frames_limbo = t.open_limbo.count();
  out->leases = leases.leases;
  out->leases_late = leases.late;
  out->sequences = h.sequences.load(std::memory_order_relaxed);
  out->namespaces = t.spaces.live();
  out->streams = readers.streams;
  out->slowest_reader_lag = 0;
  out->slowest_guard_age = 0;
  for (uint32_t i = 0; i < readers.readers; ++i) {
    const Reader &r = readers.reader[i];
    uint64_t &slowest =
        r.kind == Reader::kStream ? out->slowest_reader_lag : out->slowest_guard_age;
    slowest = std::max(slowest, r.lag);
  }
  out->page_bytes = h.frame_bytes;
  out->open_page_bytes = h.open_frame_bytes;
  out->page_tokens = shape.page_tokens;
  out->metadata_bytes = h.bytes;
  out->arena_bytes = from.arena_bytes;
  out->policy_bytes = h.policy_bytes;
  out->policy_classes = h.policy_classes.load(std::memory_order_relaxed);

  // Frames in limbo hold nothing that anybody can find, but nobody can have them yet: in use.
  const uint64_t free = std::min(out->frames_free, out->frames_capacity);
  const auto in_use = static_cast<double>(out->frames_capacity - free);
  out->kv_cache_usage_ratio =
      out->frames_capacity == 0 ? 0 : in_use / static_cast<double>(out->frames_capacity);
  out->prefix_hit_ratio = out->prefix_queries_total == 0
                              ? 0
                              : static_cast<double>(out->prefix_hits_total) /
                                    static_cast<double>(out->prefix_queries_total);
}

ReportSource report_source(Cache &cache) noexcept {
  return ReportSource{cache.region(), cache.tables(), cache.arena_bytes(), cache.now_ms()};
}

void Cache::stats(quire_stats *out) noexcept {
  count_nonfinite();
  report_stats(report_source(*this), out);
}

Status Cache::check(uint32_t flags) noexcept {
  if (flags == 0 && learner_ && !learner_->validate()) {
    return set_error(Status::kCorrupt, "what the policy has learned contradicts itself");
  }
  return check_tables(region_, *tables_, flags);
}

}  // namespace quire
