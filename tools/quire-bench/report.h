// How quire-bench shows rows: a table for people, JSON for programs, a plot of who wins by how
// much.
//
// Every output begins with the machine it ran on, since absolute times mean nothing without it.
#ifndef QUIRE_BENCH_REPORT_H
#define QUIRE_BENCH_REPORT_H

#include <string>
#include <vector>

#include "bench.h"

namespace quire::bench {

struct Machine {
  std::string cpu;
  unsigned cores = 0;
  double load_before = 0, load_after = 0;  // 1 minute averages
  uint64_t memory_bytes = 0;
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
std::string plot(const std::vector<Section> &sections, const Machine &machine);

}  // namespace quire::bench

#endif  // QUIRE_BENCH_REPORT_H
