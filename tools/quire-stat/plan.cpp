#include "plan.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "segment.h"
#include "units.h"

namespace quire_stat {
namespace {

struct Row {
  unsigned format;
  std::optional<quire_plan_result> plan;  // none: this version cannot lay the format out
};

// The library reads the budget, so a size means here what it means in a config.
quire_config config_of(const PlanArguments &a) {
  quire_config config;
  must(quire_config_init(&config));
  const std::string text = fmt::format("device={}", a.budget);
  if (quire_config_parse(&config, text.c_str()) != QUIRE_OK || config.device_bytes == 0) {
    throw Trouble(fmt::format("--budget {}: a size is wanted, such as 24GiB", a.budget));
  }
  config.geometry.layers = a.layers;
  config.geometry.kv_heads = a.kv_heads;
  config.geometry.head_dim_k = a.head_dim;
  config.geometry.head_dim_v = a.head_dim_v < 0 ? a.head_dim : static_cast<uint32_t>(a.head_dim_v);
  config.geometry.page_tokens = a.page_tokens;
  config.open_pages = a.open_pages;
  return config;
}

std::vector<Row> plan(const PlanArguments &a) {
  quire_config config = config_of(a);
  std::vector<Row> rows;
  for (unsigned format = 0; format < QUIRE_FORMAT_COUNT; ++format) {
    const char *const name = quire_format_name(format);
    if (!a.format.empty() && a.format != name) continue;
    config.format = format;
    quire_plan_result result;
    QUIRE_INIT(&result);
    const quire_status status = quire_plan(&config, &result);
    if (status == QUIRE_E_UNSUPPORTED) {
      rows.push_back({format, std::nullopt});
      continue;
    }
    must(status);
    rows.push_back({format, result});
  }
  if (rows.empty()) {
    std::string names;
    for (unsigned f = 0; f < QUIRE_FORMAT_COUNT; ++f)
      names += fmt::format(" {}", quire_format_name(f));
    throw Trouble(fmt::format("--format {} is none of:{}", a.format, names));
  }
  return rows;
}

}  // namespace

std::string plan_text(const PlanArguments &a) {
  const std::vector<Row> rows = plan(a);
  const quire_config config = config_of(a);
  const quire_geometry &g = config.geometry;
  const std::string dims = g.head_dim_k == g.head_dim_v
                               ? fmt::format("{}", g.head_dim_k)
                               : fmt::format("{}/{}", g.head_dim_k, g.head_dim_v);
  std::string out = fmt::format("{} for {} layers x {} KV heads x {}, {} tokens a page\n\n",
                                bytes(static_cast<double>(config.device_bytes)), g.layers,
                                g.kv_heads, dims, g.page_tokens);
  out += fmt::format("{:<10}{:>11}{:>13}{:>11}{:>10}{:>11}{:>13}\n", "format", "bits/value",
                     "bytes/token", "pages", "open", "metadata", "tokens");
  for (const Row &row : rows) {
    const char *const name = quire_format_name(row.format);
    if (!row.plan) {
      out += fmt::format("{:<10}{:>11}  not in this version\n", name, "-");
      continue;
    }
    const quire_plan_result &p = *row.plan;
    out += fmt::format("{:<10}{:>11.2f}{:>13}{:>11}{:>10}{:>11}{:>13}\n", name, p.bits_per_value,
                       bytes(p.bytes_per_token), count(p.pages), count(p.open_pages),
                       bytes(static_cast<double>(p.metadata_bytes)), count(p.tokens));
  }
  out +=
      "\nopen: frames for pages that are being written, in f16, out of the same budget.\n"
      "metadata: in host memory, beside the budget.\n";
  return out;
}

std::string plan_json(const PlanArguments &a) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Row &row : plan(a)) {
    nlohmann::ordered_json entry;
    entry["format"] = quire_format_name(row.format);
    entry["supported"] = row.plan.has_value();
    if (row.plan) {
      const quire_plan_result &p = *row.plan;
      entry["bits_per_value"] = p.bits_per_value;
      entry["bytes_per_token"] = p.bytes_per_token;
      entry["page_tokens"] = p.page_tokens;
      entry["page_bytes"] = p.page_bytes;
      entry["open_page_bytes"] = p.open_page_bytes;
      entry["pages"] = p.pages;
      entry["open_pages"] = p.open_pages;
      entry["tokens"] = p.tokens;
      entry["metadata_bytes"] = p.metadata_bytes;
    }
    rows.push_back(entry);
  }
  return rows.dump(2) + "\n";
}

}  // namespace quire_stat
