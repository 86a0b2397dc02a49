// Report: what the tables say, gathered once and written as text, the same way for the engine
// (Cache) and for whoever looks in from outside (Segment).
//
// A report reads the region and nothing else, by const members only, and believes none of it: every
// index and capacity that it follows was checked against the region's shape (region.validate()), so
// a mapping that is damaged gives wrong figures and never a crash.
//
// The text's names come from the lists in quire.h and stats.h. JSON is one object:
//   version, segment, pid, format, every counter, every gauge, the two ratios,
//   histograms: {name: {count, sum, p50, p90, p99, max}},
//   leases_by_owner: [{owner, leases, late, pages, private_pages, oldest_ms}], most leases first,
//   pages_by_namespace: [{namespace, pages, quota, floor, zero}], most pages first
//   readers: [{reader, lag}]: every stream and the oldest guard, farthest behind first
// Prometheus text has the same under quire_*, with histograms as cumulative buckets whose bounds
// are 2^k - 1 (values are whole, so no bound cuts one of our buckets), and all that one metric has
// in one group, under one HELP and one TYPE.
//
// Thread class: any; nothing is stopped. Cost: O(pages + leases), tens of microseconds a 10^4
// pages.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "quire/quire.h"
#include "runtime/region.h"
#include "runtime/stats.h"
#include "runtime/tables.h"

namespace quire {

class Cache;

// What a report looks at.
struct ReportSource {
  const Region &region;
  const Tables &tables;
  // Bytes of frames backed by memory: the cache knows better than its header's last word.
  uint64_t arena_bytes = 0;
  uint64_t now_ms = 0;
};

struct OwnerLeases {
  uint64_t owner = 0;
  uint64_t leases = 0;
  uint64_t late = 0;
  uint64_t pages = 0;
  uint64_t private_pages = 0;
  uint64_t oldest_ms = 0;
};

// Namespaces, most pages first; of more than kMost, those that the walk meets first.
struct SpaceReport {
  static constexpr uint32_t kMost = 256;
  std::array<quire_namespace_record, kMost> space;
  uint32_t spaces = 0;
};

struct Reader {
  enum Kind : uint32_t { kStream, kGuard };
  Kind kind = kStream;
  uint32_t slot = 0;
  uint64_t lag = 0;  // epochs behind the clock
};

// Owners are grouped into a table of fixed size: the first kMost that the walk meets have a row
// each, the leases of all others are in `others`. So a label never has more than kMost values.
struct LeaseReport {
  static constexpr uint32_t kMost = 256;
  std::array<OwnerLeases, kMost> owner;
  uint32_t owners = 0;
  OwnerLeases others;
  uint64_t leases = 0;
  uint64_t late = 0;
};

struct ReaderReport {
  static constexpr uint32_t kMost = 256;
  std::array<Reader, kMost> reader;  // farthest behind first
  uint32_t readers = 0;
  uint32_t streams = 0;  // also those beyond kMost
};

// Of a cache of this process, whose clock is asked.
ReportSource report_source(Cache &cache) noexcept;

void report_leases(const ReportSource &from, LeaseReport *out) noexcept;
void report_spaces(const ReportSource &from, SpaceReport *out) noexcept;
void report_readers(const ReportSource &from, ReaderReport *out) noexcept;

// Every field but `size`, whatever it says.
void report_stats(const ReportSource &from, quire_stats *out) noexcept;

// quire_stats_json and its kin: out may be NULL and *bytes 0. kInvalid where room is too small;
// *bytes is then, and always, what the text needs with its final 0.
Status report_json(const ReportSource &from, char *out, size_t *bytes) noexcept;
Status report_prometheus(const ReportSource &from, char *out, size_t *bytes) noexcept;

}  // namespace quire
