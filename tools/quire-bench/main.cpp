// quire-bench: every figure that Quire claims, beside the peers it is held against, in one run.
//
// Benchmarks register themselves (bench.h); this file chooses, runs and shows them. A row that
// misses its goal is printed as falling short and does not change the exit status: a bench
// measures, and a busy machine is no failure of the library. Exit status: 0 measured, 1 a benchmark
// could not run, 2 bad arguments.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "bench.h"
#include "placement.h"
#include "report.h"

namespace quire::bench {
namespace {

bool write_file(const std::string &path, const std::string &text) {
  if (path.empty()) return true;
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) fmt::print(stderr, "quire-bench: {}: writing failed\n", path);
  return static_cast<bool>(file);
}

int run_benchmarks(const std::vector<const Benchmark *> &chosen, const Context &context,
                   const std::string &placement, const std::string &json_path,
                   const std::string &plot_path) {
  Machine machine = this_machine();
  machine.placement = placement;
  fmt::print("{}", machine_text(machine, context));
  std::vector<Section> sections;
  bool all_ran = true;
  for (const Benchmark *benchmark : chosen) {
    try {
      sections.push_back(Section{benchmark, benchmark->run(context)});
      fmt::print("{}", section_text(sections.back()));
    } catch (const std::exception &e) {
      all_ran = false;
      fmt::print("{} - could not run: {}\n\n", benchmark->name, e.what());
    }
    std::fflush(stdout);
  }
  machine.load_after = load_average();
  fmt::print("{}", summary_text(sections, machine));
  const bool wrote = write_file(json_path, json(sections, machine, context));
  const bool drew = write_file(plot_path, plot(sections, machine, context));
  return all_ran && wrote && drew ? 0 : 1;
}

// Shows runs that were stored, one after the other, as one run of the first one's machine.
int show_stored(const std::vector<std::string> &files, const std::string &plot_path) {
  std::vector<std::unique_ptr<StoredRun>> runs;
  std::vector<Section> sections;
  for (const std::string &path : files) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    try {
      if (!file) throw std::runtime_error("cannot be read");
      runs.push_back(parse_json(text.str()));
    } catch (const std::exception &e) {
      fmt::print(stderr, "quire-bench: {}: {}\n", path, e.what());
      return 2;
    }
    const StoredRun &run = *runs.back();
    sections.insert(sections.end(), run.sections.begin(), run.sections.end());
    fmt::print("{}", machine_text(run.machine, run.context));
    for (const Section &section : run.sections) fmt::print("{}", section_text(section));
    fmt::print("{}", summary_text(run.sections, run.machine));
  }
  const StoredRun &first = *runs.front();
  return write_file(plot_path, plot(sections, first.machine, first.context)) ? 0 : 1;
}

bool is_of_gpu(const Benchmark &benchmark) {
  return std::string_view(benchmark.name).starts_with("gpu/");
}

// One figure stands for all powers of two up to it, and itself.
void set_threads(Context *context) {
  std::vector<unsigned> &counts = context->thread_counts;
  if (counts.size() == 1) {
    const unsigned most = counts.front();
    counts.clear();
    for (unsigned n = 1; n < most; n *= 2) counts.push_back(n);
    counts.push_back(most);
  }
  std::sort(counts.begin(), counts.end());
  counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
  context->threads = counts.back();
}

Placement placement_of(const std::string &name) {
  return name == "near"     ? Placement::kNear
         : name == "spread" ? Placement::kSpread
                            : Placement::kAnywhere;
}

int run(int argc, char **argv) {
  Context context;
  std::string rows = ".*", json_path, plot_path, placement = "anywhere";
  std::vector<std::string> stored;
  bool list = false, gpu = false;
  unsigned rounds = 0;
  CLI::App app("Measures Quire and its peers; prints each figure with its goal.");
  app.add_option("--rows", rows, "run the benchmarks whose name this regular expression finds");
  app.add_flag("--quick", context.quick, "small sizes, few rounds: shows that it works");
  app.add_option("--rounds", rounds, "counted rounds of each contender")
      ->check(CLI::Range(1u, 1000u));
  app.add_option(
         "--threads", context.thread_counts,
         "threads of the rows that scale, rising: 1,2,4,8,16; one figure N: 1 to N, doubling")
      ->delimiter(',')
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  app.add_flag("--large", context.large, "caches of 16M pages too: up to 16 GiB of memory");
  app.add_option("--pin", placement,
                 "keep each thread on a processor of its own: near fills one NUMA node after the "
                 "other, spread takes them in turn")
      ->check(CLI::IsMember({"anywhere", "near", "spread"}))
      ->capture_default_str();
  app.add_option("--seed", context.seed, "of shuffles and data")->capture_default_str();
  app.add_option("--json", json_path, "write figures here");
  app.add_option("--plot", plot_path, "write an SVG plot here");
  app.add_option("--from", stored, "measure nothing: show and plot what --json wrote");
  app.add_option("--trace", context.traces, "JSON lines to replay too, as quire-replay reads them");
  app.add_flag("--gpu", gpu, "run the benchmarks of the GPU's data plane, and only these");
  app.add_flag("--list", list, "name the benchmarks and end");
  std::vector<const Benchmark *> chosen;
  try {
    app.parse(argc, argv);
    const std::regex pattern(rows);
    for (const Benchmark &benchmark : benchmarks())
      if (is_of_gpu(benchmark) == gpu && std::regex_search(benchmark.name, pattern))
        chosen.push_back(&benchmark);
  } catch (const CLI::ParseError &e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const std::regex_error &e) {
    fmt::print(stderr, "quire-bench: --rows {}: {}\n", rows, e.what());
    return 2;
  }
  if (chosen.empty()) {
    fmt::print(stderr, "quire-bench: no benchmark is named like {}; --list has them\n", rows);
    return 2;
  }
  if (list) {
    for (const Benchmark *benchmark : chosen)
      fmt::print("{:<28} {}\n", benchmark->name, benchmark->about);
    return 0;
  }
  if (!stored.empty()) return show_stored(stored, plot_path);
  set_threads(&context);
  place_threads(cpu_order(placement_of(placement), numa_nodes(), usable_cpus()));
  context.rounds = rounds != 0 ? rounds : context.quick ? 3 : 9;
  return run_benchmarks(chosen, context, placement, json_path, plot_path);
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char **argv) {
  return quire::bench::run(argc, argv);
}
