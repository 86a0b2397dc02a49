// The table and the JSON.
#include "report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace quire::replay {
namespace {

using Json = nlohmann::ordered_json;

// 1234567 as 1,234,567.
std::string grouped(uint64_t value) {
  std::string digits = std::to_string(value);
  for (size_t i = digits.size(); i > 3;) digits.insert(i -= 3, ",");
  return digits;
}

std::string micros(uint32_t ns) {
  return fmt::format("{:.1f}", static_cast<double>(ns) / 1000);
}

std::string with_unit(double rate) {
  return rate >= 1e6 ? fmt::format("{:.2f} M", rate / 1e6) : fmt::format("{:.1f} K", rate / 1e3);
}

// Columns as wide as their widest cell; the first two to the left, the rest to the right.
std::string aligned(const std::vector<std::vector<std::string>> &rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const auto &row : rows)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  std::string out;
  for (const auto &row : rows) {
    for (size_t c = 0; c < row.size(); ++c)
      out += c < 2 ? fmt::format("{:<{}}  ", row[c], widths[c])
                   : fmt::format("{:>{}}{}", row[c], widths[c], c + 1 < row.size() ? "  " : "");
    out += '\n';
  }
  return out;
}

// Where the time of a run went, in ns per page served, and which share of it.
std::string costs(const Run &run) {
  const Result &r = run.result;
  std::string out = fmt::format("{}, {}: ns a page:", run.trace->name, run.policy);
  const double pages = static_cast<double>(std::max<uint64_t>(r.served, 1));
  double all = 0, in_series = 0;
  for (unsigned part = kKeys + 1; part < kParts; ++part) {
    all += r.part_seconds[part];
    if (part != kPublish) in_series += r.part_seconds[part];
  }
  for (unsigned part = kKeys + 1; part < kParts; ++part)
    out +=
        fmt::format(" {} {:.1f} ({:.0f} %){}", kPartNames[part], r.part_seconds[part] * 1e9 / pages,
                    all > 0 ? 100 * r.part_seconds[part] / all : 0, part + 1 < kParts ? "," : "");
  out +=
      fmt::format("; not counted: keys {:.1f}, parsing {:.2f} s, first touch of memory {:.3f} s\n",
                  r.part_seconds[kKeys] * 1e9 / pages, run.trace->parse_seconds, r.touch_seconds);
  if (run.options.threads > 1 && run.options.dealing == Dealing::kOrdered && in_series > 0)
    out += fmt::format(
        "{}, {}: in order: all but publish and keys is in series, so that threads bring at most "
        "{:.2f}x of one thread's rate at these costs\n",
        run.trace->name, run.policy, all / in_series);
  return out;
}

Json run_json(const Run &run) {
  const Result &r = run.result;
  Json j;
  j["trace"] = run.trace->name;
  j["policy"] = run.policy;
  j["simulated"] = run.simulated;
  j["pages"] = run.options.pages;
  j["page_tokens"] = run.options.page_tokens;
  j["threads"] = run.options.threads;
  j["unordered"] = run.options.dealing == Dealing::kUnordered;
  j["ttl_ms"] = run.options.idle_ttl_ms;
  j["absolute_ttl_ms"] = run.options.absolute_ttl_ms;
  j["requests"] = r.requests;
  j["pages_referenced"] = r.referenced;
  j["pages_served"] = r.served;
  j["pages_hit"] = r.hits;
  j["hit_ratio"] = r.hit_ratio();
  j["pages_inserted"] = r.inserted;
  j["pages_evicted"] = r.evicted;
  j["pages_expired"] = r.expired;
  j["pages_duplicate"] = r.duplicates;
  j["pages_unindexed"] = r.unindexed;
  j["pages_unserved"] = r.unserved;
  j["requests_short"] = r.short_requests;
  j["parse_seconds"] = run.trace->parse_seconds;
  if (run.simulated) {
    for (const char *name :
         {"lookup_ns_p50", "lookup_ns_p99", "seconds", "processor_seconds", "pages_per_second"})
      j[name] = nullptr;
    return j;
  }
  j["lookup_ns_p50"] = r.lookup_quantile(0.50);
  j["lookup_ns_p99"] = r.lookup_quantile(0.99);
  j["seconds"] = r.seconds;
  j["processor_seconds"] = r.processor_seconds;
  j["touch_seconds"] = r.touch_seconds;
  j["pages_per_second"] = r.pages_per_second();
  j["metadata_bytes"] = r.metadata_bytes;
  for (unsigned part = 0; part < kParts; ++part)
    j["cost_seconds"][kPartNames[part]] = r.part_seconds[part];
  return j;
}

}  // namespace

std::string table(const std::vector<Run> &runs) {
  std::vector<std::vector<std::string>> rows = {
      {"trace", "policy", "pages", "requests", "referenced", "hits", "hit ratio", "inserted",
       "evicted", "expired", "p50 us", "p99 us", "pages/s"}};
  for (const Run &run : runs) {
    const Result &r = run.result;
    const auto timed = [&](std::string text) { return run.simulated ? "-" : std::move(text); };
    rows.push_back({run.trace->name, run.policy, grouped(run.options.pages), grouped(r.requests),
                    grouped(r.referenced), grouped(r.hits), fmt::format("{:.4f}", r.hit_ratio()),
                    grouped(r.inserted), grouped(r.evicted), grouped(r.expired),
                    timed(micros(r.lookup_quantile(0.50))), timed(micros(r.lookup_quantile(0.99))),
                    timed(with_unit(r.pages_per_second()))});
  }
  std::string out = aligned(rows) + '\n';
  for (const Run &run : runs) {
    if (!run.simulated) out += costs(run);
    const Result &r = run.result;
    if (r.unserved + r.unindexed != 0)
      out += fmt::format(
          "{}, {}: {} requests went on without {} pages that no memory could be had for and "
          "{} that the index could not take\n",
          run.trace->name, run.policy, grouped(r.short_requests), grouped(r.unserved),
          grouped(r.unindexed));
  }
  return out;
}

std::string json(const std::vector<Run> &runs) {
  Json out = run_json(runs.front());
  out["runs"] = Json::array();
  for (const Run &run : runs) out["runs"].push_back(run_json(run));
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace quire::replay
