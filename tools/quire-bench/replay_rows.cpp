// Rows "replay/...": a trace through the C API on one thread, as quire-replay does it.
//
// Without --trace, traffic is made up: 40 sessions that share one of four system prompts and grow
// by a few pages each turn, prompts of some 500 pages; caches of 2, 10 and 50 % of its distinct
// pages. With --trace FILE, the same shares of that trace's. A row's figure is pages per second of
// processor time, with reading and key making excluded; the note has where the time went. Rows of
// more threads (replay/threads) are of wall time, in the trace's order, against one thread in turn.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "../quire-replay/page_tree.h"
#include "../quire-replay/replay.h"
#include "../quire-replay/trace.h"
#include "bench.h"

namespace quire::bench {
namespace {

using replay::Trace;

Trace made_up_traffic(uint32_t requests, uint64_t seed) {
  Random random(seed);
  Trace trace;
  trace.name = "made-up sessions";
  uint64_t next_id = 0;
  std::vector<std::vector<uint64_t>> prompts(4), sessions(40);
  for (auto &prompt : prompts)
    for (uint64_t i = 64 + random.below(128); i > 0; --i) prompt.push_back(next_id++);
  for (uint32_t r = 0; r < requests; ++r) {
    auto &session = sessions[random.below(sessions.size())];
    if (session.size() > 900 || session.empty()) session = prompts[random.below(prompts.size())];
    for (uint64_t i = 1 + random.below(24); i > 0; --i) session.push_back(next_id++);
    const uint64_t begin = trace.ids.size();
    trace.ids.insert(trace.ids.end(), session.begin(), session.end());
    trace.requests.push_back(replay::Request{r * 100, begin, trace.ids.size(), 0});
  }
  return trace;
}

// Files are named without their folders.
std::vector<Trace> traces_of(const Context &context) {
  std::vector<Trace> traces;
  for (const std::string &file : context.traces) {
    traces.push_back(replay::load_trace(file, context.quick ? 200 : 0));
    traces.back().name = file.substr(file.rfind('/') + 1);
  }
  if (traces.empty()) traces.push_back(made_up_traffic(context.quick ? 200 : 4000, context.seed));
  return traces;
}

std::string split_note(const replay::Result &r) {
  std::string out = "ns a page:";
  for (unsigned part = 0; part < replay::kParts; ++part) {
    char text[48];
    std::snprintf(text, sizeof text, " %s %.1f%s", replay::kPartNames[part],
                  r.part_seconds[part] * 1e9 / static_cast<double>(std::max<uint64_t>(r.served, 1)),
                  part == replay::kKeys       ? " (not counted),"
                  : part + 1 < replay::kParts ? ","
                                              : "");
    out += text;
  }
  char hits[48];
  std::snprintf(hits, sizeof hits, "; hit ratio %.4f", r.hit_ratio());
  return out + hits;
}

// M pages a second of processor time; keys are not in it.
double rate(const replay::Result &r) {
  return static_cast<double>(r.served) / 1e6 /
         (r.processor_seconds - r.part_seconds[replay::kKeys]);
}

std::vector<Row> replay_rate(const Context &context) {
  const std::vector<Trace> traces = traces_of(context);
  Context once = context;
  once.rounds = std::min(context.rounds, 3u);
  std::vector<Row> rows;
  for (const Trace &trace : traces) {
    const uint32_t pages = replay::number_pages(trace).pages;
    for (const uint32_t percent : {2u, 10u, 50u}) {
      replay::Options options;
      options.pages = std::max(1u, static_cast<uint32_t>(uint64_t{pages} * percent / 100));
      replay::Result last;
      const std::vector<Measure> m = interleave(once, {{"replay", [&] {
                                                          last = replay::replay(trace, options);
                                                          return rate(last);
                                                        }}});
      rows.push_back(Row{trace.name + ", " + std::to_string(options.pages) + " pages (" +
                             std::to_string(percent) + " %)",
                         "M pages/s",
                         at_least(5),
                         m[0],
                         {},
                         split_note(last)});
    }
  }
  return rows;
}

// The trace's order kept, on each number of threads that the run may use.
std::vector<Row> replay_threads(const Context &context) {
  const std::vector<Trace> traces = traces_of(context);
  Context some = context;
  some.rounds = std::min(context.rounds, 5u);
  std::vector<Row> rows;
  for (const Trace &trace : traces) {
    const uint32_t pages = std::max(1u, replay::number_pages(trace).pages / 10);
    std::vector<replay::Result> last(context.thread_counts.size());
    std::vector<Contender> contenders;
    for (size_t i = 0; i < last.size(); ++i)
      contenders.push_back(Contender{"", [&, i] {
                                       replay::Options options;
                                       options.pages = pages;
                                       options.threads = context.thread_counts[i];
                                       last[i] = replay::replay(trace, options);
                                       return last[i].pages_per_second() / 1e6;
                                     }});
    const std::vector<Measure> m = interleave(some, contenders);
    for (size_t i = 0; i < last.size(); ++i) {
      Row row;
      row.name = trace.name + ", " + std::to_string(pages) + " pages (10 %), threads " +
                 std::to_string(context.thread_counts[i]);
      row.unit = "M pages/s";
      row.goal = report_higher();
      row.value = m[i];
      if (i != 0) row.peers.push_back(Peer{"one thread", m[0]});
      const double points = 100 * std::abs(last[i].hit_ratio() - last[0].hit_ratio());
      char text[96];
      std::snprintf(text, sizeof text, "hit ratio %.3f points from one thread's; ", points);
      row.note = text + split_note(last[i]);
      row.threads = context.thread_counts[i];
      row.pages = pages;
      row.series = trace.name;
      rows.push_back(row);
    }
  }
  return rows;
}

QUIRE_BENCHMARK("replay/threads", "trace replay on more threads, in the trace's order, LRU",
                replay_threads);
QUIRE_BENCHMARK("replay/rate", "trace replay on one thread, LRU", replay_rate);

}  // namespace
}  // namespace quire::bench
