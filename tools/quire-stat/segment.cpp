#include "segment.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace quire_stat {
namespace {

// Figures grow while the text is asked for: room is asked for again until it was enough.
template <class Write>
std::string text_of(Write write) {
  size_t bytes = 0;
  must(write(nullptr, &bytes));
  for (;;) {
    std::string text(bytes + 256, 0);
    bytes = text.size();
    const quire_status status = write(text.data(), &bytes);
    if (status == QUIRE_E_INVALID && bytes > text.size()) continue;
    must(status);
    text.resize(bytes - 1);
    return text;
  }
}

}  // namespace

void must(quire_status status) {
  if (status == QUIRE_OK) return;
  const char *const detail = quire_last_error();
  throw Trouble(*detail != 0 ? detail : quire_status_string(status));
}

std::vector<quire_segment_record> list_segments() {
  size_t n = 64;
  for (;;) {
    std::vector<quire_segment_record> records(n);
    for (auto &record : records) QUIRE_INIT(&record);
    must(quire_segment_list(records.data(), &n));
    if (n > records.size()) continue;
    records.resize(n);
    std::sort(records.begin(), records.end(),
              [](const auto &a, const auto &b) { return std::strcmp(a.name, b.name) < 0; });
    return records;
  }
}

std::string pick_segment(const std::string &name) {
  if (!name.empty()) return name;
  const std::vector<quire_segment_record> all = list_segments();
  if (all.size() == 1) return all[0].name;
  if (all.empty()) throw Trouble("no cache has a segment on this machine that you may read");
  std::string names;
  for (const auto &record : all) names += fmt::format("\n  {}", record.name);
  throw Trouble(fmt::format("{} segments are there, name one of them:{}", all.size(), names));
}

quire_segment_record Segment::info() const {
  quire_segment_record record;
  QUIRE_INIT(&record);
  must(quire_segment_info(segment_, &record));
  return record;
}

quire_layout_info Segment::layout() const {
  quire_layout_info info;
  QUIRE_INIT(&info);
  must(quire_segment_layout(segment_, &info));
  return info;
}

quire_stats Segment::stats() const {
  quire_stats stats;
  QUIRE_INIT(&stats);
  must(quire_segment_stats(segment_, &stats));
  return stats;
}

std::string Segment::json() const {
  return text_of([this](char *out, size_t *n) { return quire_segment_json(segment_, out, n); });
}

std::string Segment::prometheus() const {
  return text_of(
      [this](char *out, size_t *n) { return quire_segment_prometheus(segment_, out, n); });
}

std::string Segment::check() const {
  const quire_status status = quire_segment_check(segment_);
  if (status == QUIRE_OK) return {};
  if (status != QUIRE_E_CORRUPT) must(status);
  return quire_last_error();
}

std::vector<quire_event> Segment::events(uint64_t *cursor, uint64_t *lost) const {
  std::vector<quire_event> events(256);
  QUIRE_INIT(&events[0]);
  size_t n = events.size();
  must(quire_segment_events(segment_, cursor, events.data(), &n, lost));
  events.resize(n);
  return events;
}

std::vector<quire_lease_record> Segment::leases() const {
  std::vector<quire_lease_record> leases;
  quire_lease at = 0;
  for (;;) {
    quire_lease_record record;
    QUIRE_INIT(&record);
    must(quire_segment_lease_next(segment_, &at, &record));
    if (at == 0) return leases;
    leases.push_back(record);
  }
}

}  // namespace quire_stat
