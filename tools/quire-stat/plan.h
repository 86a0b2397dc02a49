// How many tokens fit a budget, in each format.
#pragma once

#include <cstdint>
#include <string>

#include "quire/quire.h"

namespace quire_stat {

struct PlanArguments {
  uint32_t layers = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  int64_t head_dim_v = -1;  // -1: as head_dim; 0: there is no V
  uint32_t page_tokens = 64;
  uint32_t open_pages = 0;  // 0: the library's default
  std::string budget;
  std::string format;  // "": all
};

// Throw Trouble.
std::string plan_text(const PlanArguments &arguments);
std::string plan_json(const PlanArguments &arguments);

}  // namespace quire_stat
