// Report: what a run of the demo found, as tables for people and as JSON for programs.
#ifndef QUIRE_DEMO_REPORT_H
#define QUIRE_DEMO_REPORT_H

#include <string>
#include <vector>

#include "chat.h"
#include "quality.h"
#include "workload.h"

namespace quire::demo {

// The agents on one engine.
struct AgentRow {
  std::string format;
  bool reuse = true;
  double bytes_per_token = 0;
  double plain_bytes_per_token = 0;  // of the values alone, in fp32
  AgentResult result;
};

struct QualityRow {
  std::string format;
  Quality quality;
};

struct Report {
  AgentOptions agents;
  uint32_t page_tokens = 0;
  size_t threads = 0;
  std::string cpu_target;
  std::vector<AgentRow> rows;
  std::vector<QualityRow> quality;
  std::string chat_format;
  std::vector<ChatResult> chats;
  quire_stats stats = {};
  std::string stats_format;  // of the cache that `stats` is of
};

void print_replies(const Report &report);
void print_chats(const Report &report);
void print_agents(const Report &report);
void print_quality(const Report &report);
void print_stats(const Report &report);
std::string to_json(const Report &report);

}  // namespace quire::demo

#endif  // QUIRE_DEMO_REPORT_H
