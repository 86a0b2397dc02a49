#include "report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "prompts.h"

namespace quire::demo {

namespace {

constexpr double kMilli = 1e3;

double median(const std::vector<double> &values) {
  return percentile(values, 0.5);
}

const AgentRow *find_row(const Report &report, const std::string &format, bool reuse) {
  for (const AgentRow &row : report.rows) {
    if (row.format == format && row.reuse == reuse) return &row;
  }
  return nullptr;
}

uint64_t tokens_computed(const EngineCounters &c) {
  return c.prefill_tokens + c.decode_tokens;
}

double ratio(uint64_t a, uint64_t b) {
  return static_cast<double>(a) / static_cast<double>(b);
}

size_t equal_replies(const AgentResult &a, const AgentResult &b) {
  size_t equal = 0;
  for (size_t i = 0; i < std::min(a.replies.size(), b.replies.size()); ++i) {
    if (a.replies[i] == b.replies[i]) ++equal;
  }
  return equal;
}

void print_speedup(const Report &report, const std::string &format) {
  const AgentRow *with = find_row(report, format, true), *without = find_row(report, format, false);
  if (with == nullptr || without == nullptr || with->result.requests == 0) return;
  const AgentResult &a = with->result, &b = without->result;
  fmt::print(
      "  {:<8} reuse saves {:.1f}x of the tokens computed ({:.1f}x of those of prompts), {:.1f}x "
      "of "
      "the\n           floating-point operations; measured: {:.1f}x of the time, {:.1f}x of the "
      "processors' time.\n           {} of {} replies equal.\n",
      format, ratio(tokens_computed(b.computed), tokens_computed(a.computed)),
      ratio(b.computed.prefill_tokens, a.computed.prefill_tokens),
      ratio(b.computed.flops, a.computed.flops), b.seconds / a.seconds,
      b.cpu_seconds / a.cpu_seconds, equal_replies(a, b), a.replies.size());
}

}  // namespace

void print_replies(const Report &report) {
  if (report.rows.empty()) return;
  const AgentRow &row = report.rows.back();
  fmt::print("\nAgents, as {} pages answered them (observation | reply of the model):\n",
             row.format);
  const size_t steps = report.agents.steps;
  for (size_t call = 0; call < std::min<size_t>(3, report.agents.calls); ++call) {
    for (size_t step = 0; step < std::min<size_t>(3, steps); ++step) {
      fmt::print("  call {} step {}: {} | {}\n", call, step,
                 printable(observation(report.agents.seed, call, step)),
                 printable(row.result.replies[call * steps + step]));
    }
  }
}

void print_chats(const Report &report) {
  if (report.chats.empty()) return;
  fmt::print("\nChats, on {} pages (best of several samples; the last turn greedy with drafts):\n",
             report.chat_format);
  ChatResult sum;
  for (const ChatResult &chat : report.chats) {
    for (const ChatTurn &turn : chat.turns) {
      fmt::print("  > {}\n    {}\n", printable(turn.user), printable(turn.reply));
    }
    sum.forks += chat.forks;
    sum.drafted += chat.drafted;
    sum.accepted += chat.accepted;
    sum.draft_passes += chat.draft_passes;
    sum.seconds += chat.seconds;
  }
  fmt::print(
      "  {} forks; {} tokens drafted, {} accepted, {} rolled back: {:.2f} tokens a pass; {:.2f} "
      "s\n",
      sum.forks, sum.drafted, sum.accepted, sum.drafted - sum.accepted,
      ratio(sum.accepted + sum.draft_passes, std::max<size_t>(sum.draft_passes, 1)), sum.seconds);
}

void print_agents(const Report &report) {
  const AgentOptions &o = report.agents;
  fmt::print(
      "\n{} calls over {} system prompts, {} requests a call, {} tokens a reply, pages of {} "
      "tokens, "
      "{} threads, {}\n",
      o.calls, o.prompts, o.steps, o.reply_tokens, report.page_tokens, report.threads,
      report.cpu_target);
  fmt::print("  {:<8} {:<5} {:>9} {:>9} {:>8} {:>10} {:>10} {:>10} {:>9} {:>8} {:>8} {:>14}\n",
             "format", "reuse", "hits all", "prompts", "warm", "ttft first", "ttft later",
             "prefilled", "decoded", "seconds", "cpu s", "B/token");
  for (const AgentRow &row : report.rows) {
    const AgentResult &r = row.result;
    fmt::print(
        "  {:<8} {:<5} {:>8.2f}% {:>8.2f}% {:>7.2f}% {:>7.2f} ms {:>7.2f} ms {:>10} {:>9} {:>8.2f} "
        "{:>8.2f} {:>6.0f} ({:+.1f}%)\n",
        row.format, row.reuse ? "yes" : "no", 100 * r.all.ratio(), 100 * r.shared.ratio(),
        100 * r.shared_warm.ratio(), kMilli * median(r.cold_ttft), kMilli * median(r.warm_ttft),
        r.computed.prefill_tokens, r.computed.decode_tokens, r.seconds, r.cpu_seconds,
        row.bytes_per_token, 100 * (row.bytes_per_token / row.plain_bytes_per_token - 1));
  }
  fmt::print(
      "  hits all: pages found / full pages asked for, of every request. prompts: of the pages of "
      "system\n  prompts only. warm: the same without the first request of each, which nobody can "
      "have computed.\n  ttft: median time to first token, of those first requests and of all "
      "others. B/token: keys and values\n  of all layers in a sealed page, scales and header "
      "included (against bare fp32 values).\n");
  for (const AgentRow &row : report.rows) {
    if (row.reuse) print_speedup(report, row.format);
  }
}

void print_quality(const Report &report) {
  if (report.quality.empty()) return;
  fmt::print("\nAgainst f32 pages on the same {} tokens, read a page at a time:\n",
             report.quality.front().quality.tokens);
  fmt::print("  {:<8} {:>12} {:>12} {:>10} {:>22} {:>10} {:>10}\n", "format", "logit error",
             "largest", "cosine", "KL (nats)", "nats/byte", "with f32");
  for (const QualityRow &row : report.quality) {
    const Quality &q = row.quality;
    fmt::print("  {:<8} {:>11.3f}% {:>12.4f} {:>10.6f} {:>11.6f} +- {:.6f} {:>10.4f} {:>10.4f}\n",
               row.format, 100 * q.logit_error, q.max_logit_error, q.cosine, q.kl, q.kl_error,
               q.nats, q.reference_nats);
  }
}

void print_stats(const Report &report) {
  const quire_stats &s = report.stats;
  fmt::print(
      "\nThe {} cache at the end: {:.1f} % of {} frames in use, {} pages visible, {} metadata KiB\n"
      "  prefix tokens asked {}, found {} ({:.2f} %); pages allocated {}, sealed {}, published {}, "
      "duplicate {}\n"
      "  copied on write {}, decoded back by truncate {}; evicted for room {}; frames that waited "
      "for a reader {}\n"
      "  steps {}, events {}, device errors {}\n",
      report.stats_format, 100 * s.kv_cache_usage_ratio, s.frames_capacity, s.pages_visible,
      s.metadata_bytes / 1024, s.prefix_queries_total, s.prefix_hits_total,
      100 * s.prefix_hit_ratio, s.pages_allocated_total, s.pages_sealed_total,
      s.pages_published_total, s.pages_duplicate_total, s.cow_copies_total, s.pages_unsealed_total,
      s.evictions_capacity_total, s.frames_limbo_total, s.steps_total, s.events_recorded_total,
      s.device_errors_total);
}

std::string to_json(const Report &report) {
  using nlohmann::json;
  const auto count = [](const PageCount &c) {
    return json{{"asked", c.asked}, {"found", c.found}, {"ratio", c.ratio()}};
  };
  json out;
  out["calls"] = report.agents.calls;
  out["prompts"] = report.agents.prompts;
  out["steps"] = report.agents.steps;
  out["reply_tokens"] = report.agents.reply_tokens;
  out["page_tokens"] = report.page_tokens;
  out["threads"] = report.threads;
  out["cpu_target"] = report.cpu_target;
  for (const AgentRow &row : report.rows) {
    const AgentResult &r = row.result;
    out["agents"].push_back({{"format", row.format},
                             {"reuse", row.reuse},
                             {"requests", r.requests},
                             {"seconds", r.seconds},
                             {"cpu_seconds", r.cpu_seconds},
                             {"bytes_per_token", row.bytes_per_token},
                             {"pages", count(r.all)},
                             {"prompt_pages", count(r.shared)},
                             {"prompt_pages_warm", count(r.shared_warm)},
                             {"ttft_first_ms", kMilli * median(r.cold_ttft)},
                             {"ttft_later_ms", kMilli * median(r.warm_ttft)},
                             {"ttft_later_p99_ms", kMilli * percentile(r.warm_ttft, 0.99)},
                             {"prefill_tokens", r.computed.prefill_tokens},
                             {"decode_tokens", r.computed.decode_tokens},
                             {"flops", r.computed.flops},
                             {"passes", r.computed.passes}});
  }
  for (const QualityRow &row : report.quality) {
    const Quality &q = row.quality;
    out["quality"].push_back({{"format", row.format},
                              {"tokens", q.tokens},
                              {"logit_error", q.logit_error},
                              {"max_logit_error", q.max_logit_error},
                              {"cosine", q.cosine},
                              {"kl", q.kl},
                              {"kl_standard_error", q.kl_error},
                              {"nats", q.nats},
                              {"f32_nats", q.reference_nats}});
  }
  for (const ChatResult &chat : report.chats) {
    json turns;
    for (const ChatTurn &turn : chat.turns) {
      turns.push_back({{"user", printable(turn.user)}, {"reply", printable(turn.reply)}});
    }
    out["chats"].push_back({{"format", report.chat_format},
                            {"turns", turns},
                            {"forks", chat.forks},
                            {"drafted", chat.drafted},
                            {"accepted", chat.accepted},
                            {"seconds", chat.seconds}});
  }
#define QUIRE_DEMO_FIELD(name, help) out["stats"][#name] = report.stats.name;
  QUIRE_STATS_COUNTERS(QUIRE_DEMO_FIELD)
  QUIRE_STATS_GAUGES(QUIRE_DEMO_FIELD)
#undef QUIRE_DEMO_FIELD
  out["stats"]["prefix_hit_ratio"] = report.stats.prefix_hit_ratio;
  return out.dump(2);
}

}  // namespace quire::demo
