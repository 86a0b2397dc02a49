// Segment: the region of a cache, mapped read-only by somebody who is not that cache: another
// process while the engine runs, or anybody after it died.
//
// Nothing here writes to the region or takes part in its protocols, so it cannot disturb the
// engine; in exchange nothing it reads is of a single instant. And nothing it reads is believed:
//
//   attach() accepts a mapping only if  magic, version and shape are right,
//                                       every part's offset and length are what the shape says,
//                                       all of them lie within the bytes that are really mapped
//   views are built once, from that header; whoever follows an index found in a part compares it
//   with a capacity of the shape first
//
// So damage costs right answers, not the process. What cannot be helped: a file that somebody cuts
// short under the mapping faults with SIGBUS (engines never do that).
//
// Thread class: a Segment is used by one thread at a time. Cost: attach is a mapping; the rest is
// the report's (runtime/report.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "quire/quire.h"
#include "runtime/region.h"
#include "runtime/report.h"
#include "runtime/tables.h"

namespace quire {

class Segment {
 public:
  // kInvalid: not a name; kIo, kCorrupt, kVersion.
  Status attach(const char *name) noexcept;

  void info(quire_segment_record *out) const noexcept;
  // kCorrupt: the geometry in the header cannot be laid out.
  Status layout(quire_layout_info *out) const noexcept;
  void stats(quire_stats *out) const noexcept { report_stats(source(), out); }
  Status json(char *out, size_t *bytes) const noexcept { return report_json(source(), out, bytes); }
  Status prometheus(char *out, size_t *bytes) const noexcept {
    return report_prometheus(source(), out, bytes);
  }
  // What holds at any time while its process runs, everything after it died. kCorrupt.
  Status check() const noexcept;
  // As quire_lease_next, with the record of the lease it found. *lease = 0 at the end.
  Status lease_next(quire_lease *lease, quire_lease_record *out) const noexcept;

  // As quire_namespace_next; false at the end.
  bool namespace_next(uint32_t *at, quire_namespace_record *out) const noexcept;

  const Tables &tables() const noexcept { return *tables_; }
  uint64_t now_ms() const noexcept { return source().now_ms; }

  bool alive() const noexcept { return region_alive(region_.header()); }

 private:
  ReportSource source() const noexcept;

  Region region_;
  std::optional<Tables> tables_;
};

// Fills out[0 .. min(*n, found)) and sets *n to how many there are. kIo: /dev/shm cannot be read.
Status segment_list(quire_segment_record *out, size_t *n) noexcept;

// kBusy: its process runs. kIo, kCorrupt (not one of ours: it is left alone), kVersion.
Status segment_remove(const char *name) noexcept;

}  // namespace quire
