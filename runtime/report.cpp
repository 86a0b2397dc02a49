#include "runtime/report.h"

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "runtime/cache.h"
#include "runtime/stream_table.h"
#include "runtime/text.h"

namespace quire {
namespace {

constexpr double kQuantiles[] = {0.5, 0.9, 0.99};
constexpr const char *kQuantileNames[] = {"p50", "p90", "p99"};

// Bounds of the Prometheus buckets: 2^k - 1 for k up to this. In milliseconds, 2^36 is two years.
constexpr uint32_t kBoundBits = 36;

const char *reader_kind(Reader::Kind kind) noexcept {
  return kind == Reader::kStream ? "stream" : "guard";
}

OwnerLeases *find_owner(LeaseReport *report, uint64_t owner) noexcept {
  for (uint32_t i = 0; i < report->owners; ++i) {
    if (report->owner[i].owner == owner) return &report->owner[i];
  }
  if (report->owners == LeaseReport::kMost) return &report->others;
  OwnerLeases &fresh = report->owner[report->owners++];
  fresh.owner = owner;
  return &fresh;
}

}  // namespace

void report_leases(const ReportSource &from, LeaseReport *out) noexcept {
  const LeaseTable &leases = from.tables.leases;
  Handle lease;
  for (uint32_t at = 0; leases.next(at, &lease); at = lease.index + 1) {
    const LeaseSlot &slot = leases.slot(lease.index);
    OwnerLeases &row = *find_owner(out, slot.owner.load(std::memory_order_relaxed));
    const uint64_t taken = slot.taken_ms.load(std::memory_order_relaxed);
    const uint64_t deadline = slot.deadline_ms.load(std::memory_order_relaxed);
    const bool late = deadline != 0 && deadline <= from.now_ms;
    row.leases += 1;
    row.late += late ? 1 : 0;
    row.pages += slot.pages.load(std::memory_order_relaxed);
    row.private_pages += slot.private_pages.load(std::memory_order_relaxed);
    if (from.now_ms > taken) row.oldest_ms = std::max(row.oldest_ms, from.now_ms - taken);
    out->leases += 1;
    out->late += late ? 1 : 0;
  }
  std::sort(out->owner.begin(), out->owner.begin() + out->owners,
            [](const OwnerLeases &a, const OwnerLeases &b) {
              return a.leases != b.leases ? a.leases > b.leases : a.owner < b.owner;
            });
}

void report_spaces(const ReportSource &from, SpaceReport *out) noexcept {
  quire_namespace_record record = {};
  for (uint32_t at = 0; out->spaces < SpaceReport::kMost;) {
    if (!next_namespace(from.tables, &at, &record)) break;
    out->space[out->spaces++] = record;
  }
  std::sort(out->space.begin(), out->space.begin() + out->spaces,
            [](const quire_namespace_record &a, const quire_namespace_record &b) {
              return a.pages != b.pages ? a.pages > b.pages : a.number < b.number;
            });
}

void report_readers(const ReportSource &from, ReaderReport *out) noexcept {
  const EpochClock<> &clock = from.tables.clock;
  const uint64_t now = clock.now();
  const auto put = [out](const Reader &reader) {
    if (out->readers < ReaderReport::kMost) out->reader[out->readers++] = reader;
  };
  // A view without a device: it looks, and cannot record.
  const StreamTable<> streams(from.region.part(Part::kStreams), from.region.shape().streams, clock,
                              nullptr);
  streams.for_each_reader([&](uint32_t slot, uint64_t passed, bool) {
    ++out->streams;
    // The epoch that runs has not ended: nobody can have passed it.
    put(Reader{Reader::kStream, slot, passed + 1 < now ? now - 1 - passed : 0});
  });
  const OldestGuard guard = clock.oldest_guard();
  if (guard.slot != kNone) put(Reader{Reader::kGuard, guard.slot, guard.age});
  std::sort(out->reader.begin(), out->reader.begin() + out->readers,
            [](const Reader &a, const Reader &b) {
              return a.lag != b.lag ? a.lag > b.lag : a.slot < b.slot;
            });
}

namespace {

// Everything that both texts need, gathered once.
struct Gathered {
  quire_stats stats = {};
  LeaseReport leases;
  SpaceReport spaces;
  ReaderReport readers;
};

void gather(const ReportSource &from, Gathered *out) noexcept {
  out->stats.size = sizeof out->stats;
  report_stats(from, &out->stats);
  report_leases(from, &out->leases);
  report_spaces(from, &out->spaces);
  report_readers(from, &out->readers);
}

const char *format_name(const ReportSource &from) noexcept {
  const char *name = quire_format_name(from.region.header().format);
  return name == nullptr ? "unknown" : name;
}

void write_version(const ReportSource &from, Text *text) noexcept {
  const uint32_t v = from.region.header().library;
  *text << '"' << v / 10000 << '.' << v / 100 % 100 << '.' << v % 100 << '"';
}

// ---- JSON --------------------------------------------------------------------------------------

void json_histogram(const Stats &stats, Histogram histogram, Text *text) noexcept {
  Stats::Buckets buckets;
  stats.counts(histogram, &buckets);
  uint64_t count = 0, most = 0;
  for (uint32_t b = 0; b < Stats::kBuckets; ++b) {
    count += buckets[b];
    if (buckets[b] != 0) most = Stats::lowest(b + 1) - 1;
  }
  *text << "{\"count\": " << count << ", \"sum\": " << stats.sum(histogram);
  for (size_t i = 0; i < std::size(kQuantiles); ++i) {
    *text << ", \"" << kQuantileNames[i] << "\": " << Stats::quantile_of(buckets, kQuantiles[i]);
  }
  *text << ", \"max\": " << most << '}';
}

void json_owner(const OwnerLeases &row, Text *text) noexcept {
  *text << "\"leases\": " << row.leases << ", \"late\": " << row.late
        << ", \"pages\": " << row.pages << ", \"private_pages\": " << row.private_pages
        << ", \"oldest_ms\": " << row.oldest_ms << '}';
}

// 32 hexadecimal digits: how a namespace is named where its fields are not known.
void write_root(const quire_key &root, Text *text) noexcept {
  char digits[40];
  std::snprintf(digits, sizeof digits, "\"%016llx%016llx\"",
                static_cast<unsigned long long>(root.hi), static_cast<unsigned long long>(root.lo));
  *text << static_cast<const char *>(digits);
}

void json_spaces(const SpaceReport &spaces, Text *text) noexcept {
  *text << "\"pages_by_namespace\": [";
  for (uint32_t i = 0; i < spaces.spaces; ++i) {
    const quire_namespace_record &row = spaces.space[i];
    *text << (i == 0 ? "\n    {\"namespace\": " : ",\n    {\"namespace\": ");
    write_root(row.root, text);
    *text << ", \"pages\": " << row.pages << ", \"quota\": " << row.quota
          << ", \"floor\": " << row.floor << ", \"zero\": " << row.zero << '}';
  }
  *text << (spaces.spaces == 0 ? "],\n  " : "\n  ],\n  ");
}

void json_text(const ReportSource &from, const Gathered &all, Text *text) noexcept {
  *text << "{\n  \"version\": ";
  write_version(from, text);
  *text << ",\n  \"segment\": ";
  text->quoted(from.region.name());
  *text << ",\n  \"pid\": " << from.region.header().pid << ",\n  \"format\": ";
  text->quoted(format_name(from));
#define QUIRE_JSON_FIGURE(name, help) *text << ",\n  \"" #name "\": " << all.stats.name;
  QUIRE_STATS_COUNTERS(QUIRE_JSON_FIGURE)
  QUIRE_STATS_GAUGES(QUIRE_JSON_FIGURE)
#undef QUIRE_JSON_FIGURE
  *text << ",\n  \"kv_cache_usage_ratio\": " << all.stats.kv_cache_usage_ratio;
  *text << ",\n  \"prefix_hit_ratio\": " << all.stats.prefix_hit_ratio;
  *text << ",\n  \"histograms\": {";
  for (uint32_t h = 0; h < kHistograms; ++h) {
    const auto histogram = static_cast<Histogram>(h);
    *text << (h == 0 ? "\n    \"" : ",\n    \"") << histogram_name(histogram) << "\": ";
    json_histogram(from.tables.stats, histogram, text);
  }
  *text << "\n  },\n  \"leases_by_owner\": [";
  const LeaseReport &leases = all.leases;
  for (uint32_t i = 0; i < leases.owners; ++i) {
    *text << (i == 0 ? "\n    {\"owner\": " : ",\n    {\"owner\": ") << leases.owner[i].owner
          << ", ";
    json_owner(leases.owner[i], text);
  }
  if (leases.others.leases != 0) {
    *text << ",\n    {\"owner\": null, ";
    json_owner(leases.others, text);
  }
  *text << (leases.owners == 0 ? "],\n  " : "\n  ],\n  ");
  json_spaces(all.spaces, text);
  *text << "\"readers\": [";
  for (uint32_t i = 0; i < all.readers.readers; ++i) {
    const Reader &r = all.readers.reader[i];
    *text << (i == 0 ? "\n    {\"reader\": \"" : ",\n    {\"reader\": \"") << reader_kind(r.kind)
          << ' ' << r.slot << "\", \"lag\": " << r.lag << '}';
  }
  *text << (all.readers.readers == 0 ? "]\n}\n" : "\n  ]\n}\n");
}

// ---- Prometheus --------------------------------------------------------------------------------

void metric(Text *text, const char *name, const char *help, const char *type) noexcept {
  *text << "# HELP quire_" << name << ' ' << help << "\n# TYPE quire_" << name << ' ' << type
        << '\n';
}

void prometheus_histogram(const Stats &stats, Histogram histogram, const char *help,
                          Text *text) noexcept {
  const char *const name = histogram_name(histogram);
  metric(text, name, help, "histogram");
  Stats::Buckets buckets;
  stats.counts(histogram, &buckets);
  uint64_t below = 0;
  uint32_t b = 0;
  for (uint32_t k = 0; k <= kBoundBits; ++k) {
    const uint64_t bound = (uint64_t{1} << k) - 1;
    for (; b < Stats::kBuckets && Stats::lowest(b) <= bound; ++b) below += buckets[b];
    *text << "quire_" << name << "_bucket{le=\"" << bound << "\"} " << below << '\n';
  }
  for (; b < Stats::kBuckets; ++b) below += buckets[b];
  *text << "quire_" << name << "_bucket{le=\"+Inf\"} " << below << '\n';
  *text << "quire_" << name << "_sum " << stats.sum(histogram) << '\n';
  *text << "quire_" << name << "_count " << below << '\n';
}

void prometheus_owners(const LeaseReport &leases, const char *name, const char *help,
                       uint64_t OwnerLeases::*field, Text *text) noexcept {
  metric(text, name, help, "gauge");
  for (uint32_t i = 0; i < leases.owners; ++i) {
    const OwnerLeases &row = leases.owner[i];
    *text << "quire_" << name << "{owner=\"" << row.owner << "\"} " << row.*field << '\n';
  }
  if (leases.others.leases != 0) {
    *text << "quire_" << name << "{owner=\"others\"} " << leases.others.*field << '\n';
  }
}

void prometheus_spaces(const SpaceReport &spaces, const char *name, const char *help,
                       uint64_t quire_namespace_record::*field, Text *text) noexcept {
  metric(text, name, help, "gauge");
  for (uint32_t i = 0; i < spaces.spaces; ++i) {
    *text << "quire_" << name << "{namespace=";
    write_root(spaces.space[i].root, text);
    *text << "} " << spaces.space[i].*field << '\n';
  }
}

void prometheus_text(const ReportSource &from, const Gathered &all, Text *text) noexcept {
  metric(text, "info", "what this cache is", "gauge");
  *text << "quire_info{version=";
  write_version(from, text);
  *text << ",segment=";
  text->quoted(from.region.name());
  *text << ",format=";
  text->quoted(format_name(from));
  *text << "} 1\n";
#define QUIRE_PROMETHEUS_FIGURE(name, help, type) \
  metric(text, #name, help, type);                \
  *text << "quire_" #name " " << all.stats.name << '\n';
#define QUIRE_PROMETHEUS_COUNTER(name, help) QUIRE_PROMETHEUS_FIGURE(name, help, "counter")
#define QUIRE_PROMETHEUS_GAUGE(name, help) QUIRE_PROMETHEUS_FIGURE(name, help, "gauge")
  QUIRE_STATS_COUNTERS(QUIRE_PROMETHEUS_COUNTER)
  QUIRE_STATS_GAUGES(QUIRE_PROMETHEUS_GAUGE)
  QUIRE_PROMETHEUS_GAUGE(kv_cache_usage_ratio, "sealed frames in use / all")
  QUIRE_PROMETHEUS_GAUGE(prefix_hit_ratio, "tokens found / tokens asked for, since the start")
#undef QUIRE_PROMETHEUS_FIGURE
#undef QUIRE_PROMETHEUS_COUNTER
#undef QUIRE_PROMETHEUS_GAUGE
#define QUIRE_PROMETHEUS_HISTOGRAM(name, help) \
  prometheus_histogram(from.tables.stats, Histogram::name, help, text);
  QUIRE_HISTOGRAMS(QUIRE_PROMETHEUS_HISTOGRAM)
#undef QUIRE_PROMETHEUS_HISTOGRAM
  const LeaseReport &leases = all.leases;
  prometheus_owners(leases, "owner_leases", "leases held, by owner", &OwnerLeases::leases, text);
  prometheus_owners(leases, "owner_leases_late", "leases past their deadline, by owner",
                    &OwnerLeases::late, text);
  prometheus_owners(leases, "owner_private_pages", "private pages, by owner of their lease",
                    &OwnerLeases::private_pages, text);
  const SpaceReport &spaces = all.spaces;
  prometheus_spaces(spaces, "namespace_pages", "published pages, by namespace",
                    &quire_namespace_record::pages, text);
  prometheus_spaces(spaces, "namespace_quota_pages", "most published pages, by namespace; 0: any",
                    &quire_namespace_record::quota, text);
  prometheus_spaces(spaces, "namespace_floor_pages", "pages that others leave, by namespace",
                    &quire_namespace_record::floor, text);
  metric(text, "reader_lag_epochs", "epochs behind the clock, by reader", "gauge");
  for (uint32_t i = 0; i < all.readers.readers; ++i) {
    const Reader &r = all.readers.reader[i];
    *text << "quire_reader_lag_epochs{reader=\"" << reader_kind(r.kind) << ' ' << r.slot << "\"} "
          << r.lag << '\n';
  }
}

using Writer = void (*)(const ReportSource &, const Gathered &, Text *);

Status write_text(const ReportSource &from, Writer writer, char *out, size_t *bytes) noexcept {
  Gathered all;
  gather(from, &all);
  Text text(out, out == nullptr ? 0 : *bytes);
  writer(from, all, &text);
  const bool fitted = text.finish();
  const size_t room = *bytes;
  *bytes = text.length() + 1;
  if (out == nullptr && room == 0) return Status::kOk;
  if (fitted) return Status::kOk;
  return set_error(Status::kInvalid, "the text needs %zu bytes, there is room for %zu", *bytes,
                   room);
}

}  // namespace

Status report_json(const ReportSource &from, char *out, size_t *bytes) noexcept {
  return write_text(from, json_text, out, bytes);
}

Status report_prometheus(const ReportSource &from, char *out, size_t *bytes) noexcept {
  return write_text(from, prometheus_text, out, bytes);
}

}  // namespace quire
