// quire-replay: what would this cache have done with that traffic?
//
// Reads traces (trace.h), replays each with each policy (replay.h), prints a table, and writes JSON
// and a plot where asked. Everything is read and checked before anything is printed: bad input ends
// with one sentence on stderr and exit status 2, a failure of the library or of a file with 1.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <deque>
#include <fstream>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "belady.h"
#include "peers.h"
#include "replay.h"
#include "report.h"
#include "trace.h"

namespace quire::replay {
namespace {

struct Arguments {
  std::vector<std::string> files;
  std::vector<std::string> pages;
  uint32_t page_tokens = 64;
  std::vector<std::string> policies = {"lru"};
  uint32_t idle_ttl_ms = 0;
  uint64_t absolute_ttl_ms = 0;
  unsigned threads = 1;
  uint64_t limit = 0;
  bool merge = false;
  bool unordered = false;
  bool quiet = false;
  std::string json_path, plot_path;
};

constexpr const char *kFooter = R"(
A trace is JSON lines: {"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [...]}
with one id per full page. FILE - is standard input:

  xz -dc trace.jsonl.xz | quire-replay - --pages 20000 --policy lru,min --plot hits.svg

--pages takes several sizes, and shares of the distinct pages of each trace:

  quire-replay trace.jsonl --pages 0.5%,1%,2%,5%,10%,20%,50% --policy lru,hazard,min --plot hits.svg

Policies of the library: lru; hazard (learns which pages come back, and when); priority (a trace
gives no priorities, so here it equals lru). An integer "class" in a request is told at release.
Computed without the library, so they have no times, no TTL and are never affected by --threads:
sieve, s3fifo, arc, lru2 (what others do, made to evict leaves first), min (Belady's bound: the most
hits that any policy could have had).

Times: the cache alone, one request after the other; reading the trace and making keys are not in
them and are shown apart. With one thread all counts are exact and the same in every run. With more,
requests, pages referenced and the sums are. One of them looks up, allocates and releases in the
trace's order, the others make keys and publish: counts are those of one thread, or very near.
--unordered keeps no order at all.

Exit status: 0 done, 1 the library or a file failed, 2 bad input or arguments.)";

// One line on stderr, redrawn ten times a second, where that is a terminal.
class Progress {
 public:
  Progress(bool shown, std::string label, uint64_t total)
      : shown_(shown && isatty(STDERR_FILENO) == 1), label_(std::move(label)), total_(total) {}
  Progress(const Progress &) = delete;
  Progress &operator=(const Progress &) = delete;
  ~Progress() {
    if (drawn_) fmt::print(stderr, "\r\033[K");
  }

  std::function<void(uint64_t)> callback() {
    if (!shown_) return {};
    return [this](uint64_t n) {
      // relaxed: a count for the eye.
      const uint64_t done = done_.fetch_add(n, std::memory_order_relaxed) + n;
      if (done % 64 == 0) draw(done);
    };
  }

 private:
  void draw(uint64_t done) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    const auto now = std::chrono::steady_clock::now();
    if (!lock || now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    drawn_ = true;
    constexpr uint64_t kCells = 30;
    const uint64_t full = done * kCells / total_;
    fmt::print(stderr, "\r\033[K{} [{:=<{}}{:<{}}] {} of {} requests", label_, "", full, "",
               kCells - full, done, total_);
    std::fflush(stderr);
  }

  const bool shown_;
  const std::string label_;
  const uint64_t total_;
  std::atomic<uint64_t> done_{0};
  std::mutex mutex_;
  std::chrono::steady_clock::time_point last_{};
  bool drawn_ = false;
};

bool is_simulated(const std::string &policy) {
  return policy == "min" ||
         std::find(std::begin(kPeers), std::end(kPeers), policy) != std::end(kPeers);
}

Run run_simulation(const Trace &trace, const PageTree &tree, const std::string &policy,
                   uint32_t pages, const Arguments &arguments) {
  BeladyResult bound =
      policy == "min" ? replay_belady(trace, tree, pages) : replay_peer(policy, trace, tree, pages);
  Run run;
  run.trace = &trace;
  run.policy = policy;
  run.simulated = true;
  run.options.pages = pages;
  run.options.page_tokens = arguments.page_tokens;
  run.result.requests = trace.requests.size();
  run.result.referenced = trace.ids.size();
  run.result.hits = bound.hits;
  run.result.inserted = bound.inserted;
  run.result.served = bound.hits + bound.inserted;
  run.result.evicted = bound.evicted;
  run.result.request_hits = std::move(bound.request_hits);
  return run;
}

Run run_policy(const Trace &trace, const std::string &policy, uint32_t pages,
               const Arguments &arguments) {
  Run run;
  run.trace = &trace;
  run.policy = policy;
  run.options.pages = pages;
  run.options.page_tokens = arguments.page_tokens;
  run.options.policy = policy == "hazard"     ? QUIRE_POLICY_HAZARD
                       : policy == "priority" ? QUIRE_POLICY_PRIORITY
                                              : QUIRE_POLICY_LRU;
  run.options.idle_ttl_ms = arguments.idle_ttl_ms;
  run.options.absolute_ttl_ms = arguments.absolute_ttl_ms;
  run.options.threads = arguments.threads;
  if (arguments.unordered) run.options.dealing = Dealing::kUnordered;
  Progress progress(!arguments.quiet, fmt::format("{}, {}", trace.name, policy),
                    trace.requests.size());
  run.options.progress = progress.callback();
  run.result = replay(trace, run.options);
  run.options.progress = nullptr;
  return run;
}

// Opened before the work begins, so that a path that cannot be written is known at once.
class OutputFile {
 public:
  explicit OutputFile(std::string path) : path_(std::move(path)) {
    if (path_.empty() || path_ == "-") return;
    file_.open(path_, std::ios::binary | std::ios::app);
    if (!file_) throw ParseError(fmt::format("{}: cannot be written", path_));
    file_.close();
  }

  void write(const std::string &text) {
    if (path_.empty()) return;
    if (path_ == "-") {
      fmt::print("{}", text);
      return;
    }
    file_.open(path_, std::ios::binary | std::ios::trunc);
    file_ << text;
    file_.close();
    if (!file_) throw LibraryError(fmt::format("{}: writing failed", path_));
  }

 private:
  std::string path_;
  std::ofstream file_;
};

// "2000", or "2%" of that many distinct pages. False: it is neither, or not within 1 to 2^28 pages.
bool parse_pages(const std::string &text, uint32_t distinct, uint32_t *pages) {
  constexpr double kMost = 1u << 28;
  const bool share = !text.empty() && text.back() == '%';
  double value = 0;
  const char *end = text.data() + text.size() - (share ? 1 : 0);
  const auto [stop, error] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (error != std::errc() || stop != end || !(value > 0)) return false;
  if (share) {
    if (value > 100) return false;
    value = std::max(1.0, std::round(value / 100 * distinct));
  } else if (value != std::floor(value) || value > kMost) {
    return false;
  }
  *pages = static_cast<uint32_t>(value);
  return true;
}

std::string check_pages(const std::string &text) {
  uint32_t pages;
  if (parse_pages(text, 1, &pages)) return {};
  return fmt::format("{} is neither a number of pages, 1 to 2^28, nor a share such as 2%", text);
}

void replay_all(const Arguments &arguments) {
  OutputFile json_file(arguments.json_path), plot_file(arguments.plot_path);
  std::vector<Trace> traces;
  for (const std::string &file : arguments.files)
    traces.push_back(load_trace(file, arguments.limit));
  if (arguments.merge && traces.size() > 1) {
    Trace merged = merge_traces(std::move(traces));
    traces.clear();
    traces.push_back(std::move(merged));
  }
  std::vector<Run> runs;
  for (const Trace &trace : traces) {
    PageTree tree;  // numbered once, where somebody asks for it
    const auto numbered = [&]() -> const PageTree & {
      if (tree.pages == 0) tree = number_pages(trace);
      return tree;
    };
    for (const std::string &size : arguments.pages) {
      uint32_t pages = 0;
      parse_pages(size, size.back() == '%' ? numbered().pages : 1, &pages);
      for (const std::string &policy : arguments.policies) {
        runs.push_back(is_simulated(policy)
                           ? run_simulation(trace, numbered(), policy, pages, arguments)
                           : run_policy(trace, policy, pages, arguments));
      }
    }
  }
  if (arguments.json_path != "-" && arguments.plot_path != "-") fmt::print("{}", table(runs));
  json_file.write(json(runs));
  plot_file.write(plot(runs));
}

int run(int argc, char **argv) {
  Arguments arguments;
  CLI::App app(
      "Replays request traces through the Quire KV cache and counts hits, evictions, time.");
  app.footer(kFooter);
  app.add_option("FILE", arguments.files, "traces, JSON lines; - is standard input")->required();
  app.add_option("--pages", arguments.pages,
                 "pages that the cache holds, or a share of the trace's distinct ones, as 2%; "
                 "several: each policy with each")
      ->required()
      ->delimiter(',')
      ->check(CLI::Validator(check_pages, "N or N%"));
  app.add_option("--page-tokens", arguments.page_tokens,
                 "tokens a page: how the trace was cut; for the record, no hit depends on it")
      ->check(CLI::Range(1u, 1u << 20))
      ->capture_default_str();
  app.add_option("--policy", arguments.policies,
                 "lru, hazard, priority, sieve, s3fifo, arc, lru2, min; several: one run each")
      ->delimiter(',')
      ->check(CLI::IsMember({"lru", "priority", "hazard", "sieve", "s3fifo", "arc", "lru2", "min"}))
      ->capture_default_str();
  app.add_option("--ttl-ms", arguments.idle_ttl_ms,
                 "idle TTL in ms of the trace's time: a page unused so long expires; 0: none");
  app.add_option("--absolute-ttl-ms", arguments.absolute_ttl_ms,
                 "a page expires so long after its publish; 0: none");
  app.add_option("--threads", arguments.threads, "threads that requests are dealt to")
      ->check(CLI::Range(1u, 256u))
      ->capture_default_str();
  app.add_flag("--unordered", arguments.unordered,
               "threads take requests as they are free and wait for nothing: a stampede");
  app.add_option("--limit", arguments.limit, "only the first so many requests of each file");
  app.add_flag("--merge", arguments.merge,
               "several traces into one cache, by timestamp, each in a namespace of its own "
               "(default: a cache and a row for each)");
  app.add_option("--json", arguments.json_path, "write figures here; - is standard output");
  app.add_option("--plot", arguments.plot_path, "write an SVG plot of hit ratios here");
  app.add_flag("--quiet", arguments.quiet, "no progress bar (there is none unless on a terminal)");
  app.set_version_flag("--version", fmt::format("quire-replay, Quire {}.{}.{}", QUIRE_VERSION_MAJOR,
                                                QUIRE_VERSION_MINOR, QUIRE_VERSION_PATCH));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    replay_all(arguments);
    return 0;
  } catch (const ParseError &e) {
    fmt::print(stderr, "quire-replay: {}\n", e.what());
    return 2;
  } catch (const std::exception &e) {
    fmt::print(stderr, "quire-replay: {}\n", e.what());
    return 1;
  }
}

}  // namespace
}  // namespace quire::replay

int main(int argc, char **argv) {
  return quire::replay::run(argc, argv);
}
