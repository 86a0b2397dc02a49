// How quire-bench shows rows: a table for people, JSON for programs, a plot of who wins by how
// much.
//
// Every output begins with the machine it ran on, its load, the day and the rounds, since absolute
// times mean nothing without them. What json() wrote, parse_json() reads, so that a run of another
// machine, or several, can be drawn here (quire-bench --from).
#ifndef QUIRE_BENCH_REPORT_H
#define QUIRE_BENCH_REPORT_H

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "bench.h"

namespace quire::bench {

struct Machine {
  std::string cpu;
  unsigned cores = 0;
  double load_before = 0, load_after = 0;  // 1 minute averages
  uint64_t memory_bytes = 0;
  unsigned numa_nodes = 1;
  std::string date;             // "2026-11-24 02:10 UTC", when the run began
  std::string placement;        // of threads: "anywhere", "near", "spread"
  std::string no_cache_misses;  // why they are not counted; empty: they are
};

Machine this_machine();
double load_average();

// Rows of one benchmark, printed as soon as it is done.
struct Section {
  const Benchmark *benchmark;
  std::vector<Row> rows;
};

std::string machine_text(const Machine &machine, const Context &context);
std::string section_text(const Section &section);
std::string summary_text(const std::vector<Section> &sections, const Machine &machine);
std::string json(const std::vector<Section> &sections, const Machine &machine,
                 const Context &context);
std::string plot(const std::vector<Section> &sections, const Machine &machine,
                 const Context &context);

// A run that was written by json(); it stays where it is, as its sections point into it.
struct StoredRun {
  StoredRun() = default;
  StoredRun(const StoredRun &) = delete;
  StoredRun &operator=(const StoredRun &) = delete;
  std::deque<std::string> texts;  // what the benchmarks' names point to
  std::deque<Benchmark> benchmarks;
  std::vector<Section> sections;
  Machine machine;
  Context context;
};
// Throws std::runtime_error on text that is none.
std::unique_ptr<StoredRun> parse_json(const std::string &text);

}  // namespace quire::bench

#endif  // QUIRE_BENCH_REPORT_H
