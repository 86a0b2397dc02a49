// The table and the JSON.
#include "report.h"

#include <fmt/format.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "placement.h"

namespace quire::bench {
namespace {

using Json = nlohmann::ordered_json;

std::string number(double value) {
  if (value >= 1e4) return fmt::format("{:.0f}", value);
  if (value >= 100) return fmt::format("{:.1f}", value);
  return fmt::format("{:.3g}", value);
}

std::string goal_text(const Row &row) {
  switch (row.goal.sense) {
    case Sense::kAtMost:
      return fmt::format("<= {}", number(row.goal.bound));
    case Sense::kAtLeast:
      return fmt::format(">= {}", number(row.goal.bound));
    case Sense::kNone:
      break;
  }
  return "";
}

bool has_goal(const Row &row) {
  if (row.goal.sense != Sense::kNone) return true;
  for (const Peer &peer : row.peers)
    if (peer.want != 0 && peer.installed) return true;
  return false;
}

const char *verdict(const Row &row) {
  if (!has_goal(row)) return "reported";
  return met(row) ? "met" : "FALLS SHORT";
}

std::string misses_text(const Measure &m) {
  return m.misses < 0 ? "" : fmt::format("  {:.2f} misses", m.misses);
}

std::string peer_text(const Row &row, const Peer &peer) {
  if (!peer.installed) return fmt::format("    {:<40} not installed\n", peer.name);
  std::string out =
      fmt::format("    {:<40} {:>9}  {:>6.2f}x{}", peer.name, number(peer.value.median),
                  advantage(row, peer), misses_text(peer.value));
  if (peer.want != 0)
    out += fmt::format("  (goal {}x: {})", number(peer.want),
                       advantage(row, peer) >= peer.want ? "met" : "FALLS SHORT");
  return out + '\n';
}

Json misses_json(const Measure &m) {
  return m.misses < 0 ? Json(nullptr) : Json(m.misses);
}

Json measure_json(const Measure &m) {
  return {{"median", m.median}, {"low", m.low}, {"high", m.high}, {"cache_misses", misses_json(m)}};
}

Json row_json(const Benchmark &benchmark, const Row &row) {
  Json j = {{"benchmark", benchmark.name},
            {"name", row.name},
            {"unit", row.unit},
            {"goal", nullptr},
            {"value", row.value.median},
            {"low", row.value.low},
            {"high", row.value.high},
            {"cache_misses", misses_json(row.value)},
            {"has_goal", has_goal(row)},
            {"met", met(row)},
            {"note", row.note}};
  if (row.pages != 0) j["pages"] = row.pages;
  if (row.threads != 0) j["threads"] = row.threads;
  if (row.quantile != 0) j["quantile"] = row.quantile;
  if (!row.series.empty()) j["series"] = row.series;
  j["lower_is_better"] = row.goal.lower_is_better;
  if (row.goal.sense != Sense::kNone)
    j["goal"] = {{"at", row.goal.sense == Sense::kAtMost ? "most" : "least"},
                 {"bound", row.goal.bound}};
  j["peers"] = Json::array();
  for (const Peer &peer : row.peers) {
    Json p = {{"name", peer.name}, {"installed", peer.installed}};
    if (peer.installed) {
      p.update(measure_json(peer.value));
      p["advantage"] = advantage(row, peer);
    }
    p["want"] = peer.want == 0 ? Json(nullptr) : Json(peer.want);
    j["peers"].push_back(std::move(p));
  }
  return j;
}

}  // namespace

double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

Machine this_machine() {
  Machine machine;
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);)
    if (line.rfind("model name", 0) == 0) {
      machine.cpu = line.substr(line.find(':') + 2);
      break;
    }
  if (machine.cpu.empty()) machine.cpu = "unknown cpu";
  machine.cores = static_cast<unsigned>(sysconf(_SC_NPROCESSORS_ONLN));
  machine.memory_bytes =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  machine.load_before = machine.load_after = load_average();
  machine.numa_nodes = std::max(1u, static_cast<unsigned>(numa_nodes().size()));
  char date[32];
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &utc);
  machine.date = date;
  machine.placement = "anywhere";
  machine.no_cache_misses = why_no_cache_misses();
  return machine;
}

std::string machine_text(const Machine &machine, const Context &context) {
  return fmt::format(
      "{}, {} cores, {} NUMA node{}, {:.0f} GiB; load {:.2f} at the start; {}\n"
      "{} interleaved rounds after a warm-up, medians [quartiles]; Nx: so many times better than "
      "the peer{}\n"
      "threads run {}; cache misses: {}\n\n",
      machine.cpu, machine.cores, machine.numa_nodes, machine.numa_nodes == 1 ? "" : "s",
      static_cast<double>(machine.memory_bytes) / (1 << 30), machine.load_before, machine.date,
      context.rounds, context.quick ? "; QUICK: sizes and rounds cut, not for quoting" : "",
      machine.placement == "anywhere" ? "where the kernel puts them"
                                      : "pinned, " + machine.placement,
      machine.no_cache_misses.empty() ? "of the last level, an operation"
                                      : "not available here (" + machine.no_cache_misses + ")");
}

std::string section_text(const Section &section) {
  std::string out = fmt::format("{} - {}\n", section.benchmark->name, section.benchmark->about);
  for (const Row &row : section.rows) {
    const std::string goal = goal_text(row);
    out += fmt::format("  {:<42} {:>9} {} [{} .. {}]{}{}  {}\n", row.name, number(row.value.median),
                       row.unit, number(row.value.low), number(row.value.high),
                       misses_text(row.value), goal.empty() ? "" : "  goal " + goal, verdict(row));
    for (const Peer &peer : row.peers) out += peer_text(row, peer);
    if (!row.note.empty()) out += fmt::format("    note: {}\n", row.note);
  }
  return out + '\n';
}

std::string summary_text(const std::vector<Section> &sections, const Machine &machine) {
  size_t with_goal = 0, good = 0;
  std::string shorts;
  for (const Section &section : sections)
    for (const Row &row : section.rows)
      if (has_goal(row)) {
        ++with_goal;
        if (met(row))
          ++good;
        else
          shorts += fmt::format("  {}: {}: {} {}{}\n", section.benchmark->name, row.name,
                                number(row.value.median), row.unit,
                                goal_text(row).empty() ? "" : ", goal " + goal_text(row));
      }
  std::string out = fmt::format("{} of {} rows with a goal are met; load {:.2f} at the end\n", good,
                                with_goal, machine.load_after);
  if (!shorts.empty()) out += "falling short:\n" + shorts;
  return out;
}

std::string json(const std::vector<Section> &sections, const Machine &machine,
                 const Context &context) {
  Json out;
  out["machine"] = {{"cpu", machine.cpu},
                    {"cores", machine.cores},
                    {"memory_bytes", machine.memory_bytes},
                    {"numa_nodes", machine.numa_nodes},
                    {"date", machine.date},
                    {"placement", machine.placement},
                    {"no_cache_misses", machine.no_cache_misses},
                    {"load_before", machine.load_before},
                    {"load_after", machine.load_after}};
  out["quick"] = context.quick;
  out["rounds"] = context.rounds;
  out["rows"] = Json::array();
  for (const Section &section : sections)
    for (const Row &row : section.rows) out["rows"].push_back(row_json(*section.benchmark, row));
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

namespace {

Measure measure_of(const Json &j, const char *median) {
  Measure m(j.at(median), j.at("low"), j.at("high"));
  const Json &misses = j.at("cache_misses");
  if (!misses.is_null()) m.misses = misses;
  return m;
}

Row row_of(const Json &j) {
  Row row;
  row.name = j.at("name");
  row.unit = j.at("unit");
  row.note = j.at("note");
  row.value = measure_of(j, "value");
  row.pages = j.value("pages", 0u);
  row.threads = j.value("threads", 0u);
  row.quantile = j.value("quantile", 0.0);
  row.series = j.value("series", std::string());
  if (const Json &goal = j.at("goal"); !goal.is_null()) {
    row.goal.sense = goal.at("at") == "most" ? Sense::kAtMost : Sense::kAtLeast;
    row.goal.bound = goal.at("bound");
  }
  row.goal.lower_is_better = j.at("lower_is_better");
  for (const Json &p : j.at("peers")) {
    Peer peer =
        not_installed(p.at("name"), p.at("want").is_null() ? 0 : p.at("want").get<double>());
    peer.installed = p.at("installed");
    if (peer.installed) peer.value = measure_of(p, "median");
    row.peers.push_back(std::move(peer));
  }
  return row;
}

}  // namespace

std::unique_ptr<StoredRun> parse_json(const std::string &text) {
  auto run = std::make_unique<StoredRun>();
  try {
    const Json j = Json::parse(text);
    const Json &m = j.at("machine");
    run->machine.cpu = m.at("cpu");
    run->machine.cores = m.at("cores");
    run->machine.memory_bytes = m.at("memory_bytes");
    run->machine.load_before = m.at("load_before");
    run->machine.load_after = m.at("load_after");
    run->machine.numa_nodes = m.at("numa_nodes");
    run->machine.date = m.at("date");
    run->machine.placement = m.at("placement");
    run->machine.no_cache_misses = m.at("no_cache_misses");
    run->context.quick = j.at("quick");
    run->context.rounds = j.at("rounds");
    for (const Json &row : j.at("rows")) {
      const std::string name = row.at("benchmark");
      if (run->sections.empty() || name != run->sections.back().benchmark->name) {
        run->texts.push_back(name);
        run->benchmarks.push_back(Benchmark{run->texts.back().c_str(), "", nullptr});
        run->sections.push_back(Section{&run->benchmarks.back(), {}});
      }
      run->sections.back().rows.push_back(row_of(row));
    }
  } catch (const Json::exception &e) {
    throw std::runtime_error(std::string("not a run of quire-bench: ") + e.what());
  }
  return run;
}

}  // namespace quire::bench
