#include "watch.h"

#include <fmt/format.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>

#include "dump.h"
#include "segment.h"
#include "units.h"

namespace quire_stat {
namespace {

volatile sig_atomic_t interrupted = 0;

struct Sample {
  quire_stats stats;
  std::chrono::steady_clock::time_point at;
};

Sample sample(const Segment &segment) {
  return {segment.stats(), std::chrono::steady_clock::now()};
}

std::string rate(uint64_t before, uint64_t now, double seconds) {
  if (seconds <= 0) return "-";
  const double per_second = static_cast<double>(now - before) / seconds;
  if (per_second > 0 && per_second < 9.95) return fmt::format("{:.1f}", per_second);
  return brief(static_cast<uint64_t>(std::llround(per_second)));
}

std::string screen(const Segment &segment, const Sample &before, const Sample &now) {
  const quire_stats &a = before.stats, &b = now.stats;
  const double seconds = std::chrono::duration<double>(now.at - before.at).count();
  const uint64_t asked = b.prefix_queries_total - a.prefix_queries_total;
  const uint64_t found = b.prefix_hits_total - a.prefix_hits_total;
  const double hits = asked == 0 ? 0 : static_cast<double>(found) / static_cast<double>(asked);
  std::string out = headline(segment);
  out +=
      fmt::format("Usage   [{}] {:>7} of {} frames, {} in limbo\n", bar(b.kv_cache_usage_ratio, 30),
                  percent(b.kv_cache_usage_ratio), count(b.frames_capacity), count(b.frames_limbo));
  out += fmt::format("Hits    [{}] {:>7} now, {} in all\n\n", bar(hits, 30), percent(hits),
                     percent(b.prefix_hit_ratio));
  out += fmt::format("{:<28}{:>14}{:>16}\n", "", "a second", "in all");
  const auto row = [&](const char *label, uint64_t was, uint64_t is) {
    out += fmt::format("{:<28}{:>14}{:>16}\n", label, rate(was, is, seconds), count(is));
  };
  row("acquires", a.acquires_total, b.acquires_total);
  row("tokens asked for", a.prefix_queries_total, b.prefix_queries_total);
  row("tokens found", a.prefix_hits_total, b.prefix_hits_total);
  row("pages allocated", a.pages_allocated_total, b.pages_allocated_total);
  row("pages published", a.pages_published_total, b.pages_published_total);
  const auto evictions = [](const quire_stats &s) {
    return s.evictions_capacity_total + s.evictions_idle_total + s.evictions_expired_total +
           s.evictions_namespace_total;
  };
  row("pages evicted", evictions(a), evictions(b));
  row("frames retired", a.frames_retired_total, b.frames_retired_total);
  row("refused allocations", a.alloc_again_total + a.alloc_nomem_total,
      b.alloc_again_total + b.alloc_nomem_total);
  row("steps", a.steps_total, b.steps_total);
  out += fmt::format("\nLeases {}, late {}.  Sequences {}.  Private pages {}.\n", count(b.leases),
                     count(b.leases_late), count(b.sequences), count(b.pages_private));
  out += fmt::format("Streams {}; the slowest is {} epochs behind.\n", count(b.streams),
                     count(b.slowest_reader_lag));
  return out;
}

void on_interrupt(int) {
  interrupted = 1;
}

}  // namespace

int watch(const WatchArguments &arguments) {
  const Segment segment(arguments.name);
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  struct sigaction action = {};
  action.sa_handler = on_interrupt;  // without SA_RESTART: it ends the sleep
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  Sample before = sample(segment);
  for (uint64_t shown = 0; interrupted == 0;) {
    const auto nanoseconds = static_cast<int64_t>(arguments.interval_s * 1e9);
    timespec pause = {static_cast<time_t>(nanoseconds / 1000000000),
                      static_cast<long>(nanoseconds % 1000000000)};
    ::nanosleep(&pause, nullptr);
    const Sample now = sample(segment);
    // Home, the text, and what is left of the last one erased: no flicker.
    std::string text = screen(segment, before, now);
    if (terminal) {
      for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 4) {
        text.insert(at, "\x1b[K");
      }
      text = "\x1b[H" + text + "\x1b[J";
      if (shown == 0) text = "\x1b[2J" + text;
    } else if (shown != 0) {
      text = "\n" + text;
    }
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    if (segment.info().alive == 0) {
      std::puts("Its process has ended.");
      break;
    }
    before = now;
    if (++shown == arguments.frames) break;
  }
  return kExitOk;
}

}  // namespace quire_stat
