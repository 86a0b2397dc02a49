#include "dump.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "units.h"

namespace quire_stat {
namespace {

using nlohmann::json;

struct Figure {
  const char *label;
  std::string value;
};

// Two figures a row, each 38 columns wide.
std::string group(const char *title, const std::vector<Figure> &figures) {
  std::string out = fmt::format("{}\n", title);
  for (size_t i = 0; i < figures.size(); i += 2) {
    std::string row = fmt::format("  {:<23}{:>13}", figures[i].label, figures[i].value);
    if (i + 1 < figures.size()) {
      row += fmt::format("    {:<23}{:>13}", figures[i + 1].label, figures[i + 1].value);
    }
    out += row + "\n";
  }
  return out + "\n";
}

std::string gauges(const quire_stats &s) {
  std::string out =
      fmt::format("Usage   [{}] {:>7} of {} frames, {}\n", bar(s.kv_cache_usage_ratio, 30),
                  percent(s.kv_cache_usage_ratio), count(s.frames_capacity),
                  bytes(static_cast<double>(s.frames_capacity * s.page_bytes)));
  out += fmt::format("Hits    [{}] {:>7} of {} tokens asked for\n\n", bar(s.prefix_hit_ratio, 30),
                     percent(s.prefix_hit_ratio), brief(s.prefix_queries_total));
  return out;
}

std::string frame_row(const char *kind, uint64_t capacity, uint64_t free, uint64_t limbo,
                      uint64_t frame_bytes) {
  const uint64_t used = capacity - std::min(capacity, free + limbo);
  return fmt::format("  {:<10}{:>12}{:>12}{:>12}{:>12}{:>16}\n", kind, count(capacity), count(used),
                     count(limbo), count(free), bytes(static_cast<double>(frame_bytes)));
}

std::string frames(const quire_stats &s) {
  std::string out = fmt::format("{:<12}{:>12}{:>12}{:>12}{:>12}{:>16}\n", "Frames", "all", "in use",
                                "in limbo", "free", "bytes a frame");
  out += frame_row("sealed", s.frames_capacity, s.frames_free, s.frames_limbo, s.page_bytes);
  if (s.open_frames_capacity != 0) {
    out += frame_row("open", s.open_frames_capacity, s.open_frames_free, s.open_frames_limbo,
                     s.open_page_bytes);
  }
  return out + "\n";
}

std::string counters(const quire_stats &s) {
  std::string out;
  out += group("Pages", {{"published now", count(s.pages_visible)},
                         {"published ever", count(s.pages_published_total)},
                         {"private now", count(s.pages_private)},
                         {"allocated ever", count(s.pages_allocated_total)},
                         {"sealed", count(s.pages_sealed_total)},
                         {"given back", count(s.pages_freed_total)},
                         {"found published", count(s.pages_duplicate_total)},
                         {"left unindexed", count(s.pages_unindexed_total)},
                         {"left over quota", count(s.pages_over_quota_total)},
                         {"copied on write", count(s.cow_copies_total)},
                         {"unsealed", count(s.pages_unsealed_total)}});
  out += group("Lookups", {{"acquires", count(s.acquires_total)},
                           {"tokens asked for", brief(s.prefix_queries_total)},
                           {"matches", count(s.matches_total)},
                           {"tokens found", brief(s.prefix_hits_total)},
                           {"cut, page not ready", count(s.not_ready_cuts_total)},
                           {"waits between streams", count(s.stream_waits_total)},
                           {"token mismatches", count(s.token_mismatches_total)},
                           {"releases", count(s.releases_total)}});
  out += group("Evictions", {{"frames were needed", count(s.evictions_capacity_total)},
                             {"unused too long", count(s.evictions_idle_total)},
                             {"expired", count(s.evictions_expired_total)},
                             {"namespace evicted", count(s.evictions_namespace_total)},
                             {"over their quota", count(s.evictions_quota_total)},
                             {"reclaim passes", count(s.reclaim_passes_total)},
                             {"pages scanned", brief(s.reclaim_scanned_total)},
                             {"policy learned from", brief(s.use_records_total)},
                             {"policy missed", brief(s.use_records_lost_total)},
                             {"classes learned", count(s.policy_classes)},
                             {"policy memory", bytes(static_cast<double>(s.policy_bytes))}});
  out += group("Engine", {{"epoch", count(s.epoch)},
                          {"steps", count(s.steps_total)},
                          {"leases held", count(s.leases)},
                          {"of these late", count(s.leases_late)},
                          {"sequences open", count(s.sequences)},
                          {"namespaces", count(s.namespaces)},
                          {"frames retired", count(s.frames_retired_total)},
                          {"of these by limbo", count(s.frames_limbo_total)},
                          {"refused: try again", count(s.alloc_again_total)},
                          {"refused: all pinned", count(s.alloc_nomem_total)},
                          {"device events", count(s.events_recorded_total)},
                          {"device errors", count(s.device_errors_total)},
                          {"NaN, inf in values", count(s.nonfinite_values_total)},
                          {"page events lost", count(s.events_dropped_total)},
                          {"metadata", bytes(static_cast<double>(s.metadata_bytes))},
                          {"memory for frames", bytes(static_cast<double>(s.arena_bytes))}});
  return out;
}

// Names of histograms end in their unit: "_ms", "_pages".
std::string histograms(const json &report) {
  std::string rows;
  for (const auto &[name, h] : report.at("histograms").items()) {
    if (h.at("count").get<uint64_t>() == 0) continue;
    const bool time = name.ends_with("_ms");
    const auto show = [time, &row = h](const char *key) {
      const auto value = row.at(key).get<uint64_t>();
      return time ? duration_ms(value) : count(value);
    };
    rows += fmt::format(
        "  {:<18}{:>12}{:>11}{:>11}{:>11}{:>11}\n", time ? name.substr(0, name.size() - 3) : name,
        brief(h.at("count").get<uint64_t>()), show("p50"), show("p90"), show("p99"), show("max"));
  }
  if (rows.empty()) return {};
  return fmt::format("{:<20}{:>12}{:>11}{:>11}{:>11}{:>11}\n", "Distributions", "samples", "half",
                     "9 in 10", "99 in 100", "most") +
         rows + "\n";
}

std::string owners(const json &report, size_t most) {
  const json &rows = report.at("leases_by_owner");
  if (rows.empty()) return {};
  std::string out = fmt::format("{:<22}{:>10}{:>10}{:>12}{:>12}{:>12}\n", "Leases by owner", "held",
                                "late", "pages", "private", "oldest");
  for (size_t i = 0; i < rows.size() && i < most; ++i) {
    const json &row = rows[i];
    const json &owner = row.at("owner");
    out += fmt::format(
        "  {:<20}{:>10}{:>10}{:>12}{:>12}{:>12}\n",
        owner.is_null() ? "all others" : fmt::format("{}", owner.get<uint64_t>()),
        count(row.at("leases").get<uint64_t>()), count(row.at("late").get<uint64_t>()),
        count(row.at("pages").get<uint64_t>()), count(row.at("private_pages").get<uint64_t>()),
        duration_ms(row.at("oldest_ms").get<uint64_t>()));
  }
  if (rows.size() > most) out += fmt::format("  and {} more owners\n", rows.size() - most);
  return out + "\n";
}

std::string namespaces(const json &report, size_t most) {
  const json &rows = report.at("pages_by_namespace");
  if (rows.empty()) return {};
  std::string out = fmt::format("{:<36}{:>12}{:>12}{:>12}{:>7}\n", "Namespaces", "pages", "quota",
                                "floor", "zero");
  const auto limit = [](const json &n) {
    return n.get<uint64_t>() == 0 ? std::string("none") : count(n.get<uint64_t>());
  };
  for (size_t i = 0; i < rows.size() && i < most; ++i) {
    const json &row = rows[i];
    out += fmt::format("  {:<34}{:>12}{:>12}{:>12}{:>7}\n", row.at("namespace").get<std::string>(),
                       count(row.at("pages").get<uint64_t>()), limit(row.at("quota")),
                       limit(row.at("floor")), row.at("zero") == 0 ? "no" : "yes");
  }
  if (rows.size() > most) out += fmt::format("  and {} more\n", rows.size() - most);
  return out + "\n";
}

std::string readers(const json &report, size_t most) {
  const json &rows = report.at("readers");
  if (rows.empty()) return {};
  std::string out = "Readers, farthest behind the clock first\n";
  for (size_t i = 0; i < rows.size() && i < most; ++i) {
    out += fmt::format("  {:<20}{:>10} epochs\n", rows[i].at("reader").get<std::string>(),
                       count(rows[i].at("lag").get<uint64_t>()));
  }
  if (rows.size() > most) out += fmt::format("  and {} more\n", rows.size() - most);
  return out + "\n";
}

std::string deadline(int64_t remaining_ms) {
  if (remaining_ms == INT64_MAX) return "none";
  if (remaining_ms < 0) return "late " + duration_ms(static_cast<uint64_t>(-remaining_ms));
  return "in " + duration_ms(static_cast<uint64_t>(remaining_ms));
}

}  // namespace

std::string headline(const Segment &segment) {
  const quire_segment_record info = segment.info();
  const quire_layout_info layout = segment.layout();
  const quire_geometry &g = layout.geometry;
  const char *format = quire_format_name(layout.format);
  const std::string dims = g.head_dim_k == g.head_dim_v
                               ? fmt::format("{}", g.head_dim_k)
                               : fmt::format("{}/{}", g.head_dim_k, g.head_dim_v);
  return fmt::format("{}, process {} {}\n{}{}, {} layers x {} KV heads x {}, {} tokens a page\n\n",
                     info.name, info.pid, info.alive != 0 ? "running" : "dead",
                     format != nullptr ? format : "unknown format",
                     layout.device == QUIRE_DEVICE_CUDA ? " on a GPU" : "", g.layers, g.kv_heads,
                     dims, g.page_tokens);
}

std::string dump_text(const Segment &segment) {
  const quire_stats s = segment.stats();
  const json report = json::parse(segment.json());
  std::string out = headline(segment) + gauges(s) + frames(s) + counters(s) + histograms(report) +
                    owners(report, 5) + namespaces(report, 5) + readers(report, 5);
  out.pop_back();  // the blank line of the last part
  return out;
}

std::string leases_text(const Segment &segment, size_t most) {
  std::vector<quire_lease_record> leases = segment.leases();
  if (leases.empty()) return "no leases are held\n";
  std::sort(leases.begin(), leases.end(), [](const auto &a, const auto &b) {
    return a.remaining_ms != b.remaining_ms ? a.remaining_ms < b.remaining_ms : a.age_ms > b.age_ms;
  });
  std::string out = fmt::format("{:<22}{:>10}{:>10}{:>14}{:>16}\n", "owner", "pages", "private",
                                "held for", "deadline");
  for (size_t i = 0; i < leases.size() && i < most; ++i) {
    const quire_lease_record &l = leases[i];
    out += fmt::format("{:<22}{:>10}{:>10}{:>14}{:>16}\n", l.owner, count(l.pages),
                       count(l.private_pages), duration_ms(l.age_ms), deadline(l.remaining_ms));
  }
  if (leases.size() > most) out += fmt::format("and {} more (--all)\n", leases.size() - most);
  return out;
}

}  // namespace quire_stat
