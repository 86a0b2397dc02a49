#include "runtime/plan.h"

#include "runtime/config.h"
#include "runtime/region.h"

namespace quire {

Status make_plan(const quire_config &config, quire_plan_result *out) noexcept {
  quire_config asked = config;
  if (asked.device_bytes == 0 && asked.device_pages == 0) {
    return set_error(Status::kInvalid, "config: device_bytes: a budget is wanted");
  }
  Config plan;
  if (const Status s = config_layouts(asked, &plan); s != Status::kOk) return s;
  config_budget(&plan);
  const quire_config &v = plan.values;
  const quire_geometry &g = v.geometry;
  // What lies behind the layout's end until the next frame's start belongs to the page.
  const uint64_t sealed = frame_bytes(plan.layout), open = frame_bytes(plan.open_layout);
  const uint64_t values =
      uint64_t{g.page_tokens} * g.layers * g.kv_heads * (g.head_dim_k + g.head_dim_v);
  out->page_tokens = g.page_tokens;
  out->page_bytes = sealed;
  out->open_page_bytes = plan.has_open ? open : 0;
  out->pages = v.device_pages;
  // Open pages without sealed ones are of no use: a budget for no page has neither.
  out->open_pages = v.device_pages == 0 ? 0 : v.open_pages;
  out->tokens = out->pages * g.page_tokens;
  out->metadata_bytes = 0;
  out->bits_per_value = 8.0 * static_cast<double>(sealed) / static_cast<double>(values);
  out->bytes_per_token = static_cast<double>(sealed) / g.page_tokens;
  if (v.device_pages == 0) return Status::kOk;
  Config whole;
  if (const Status s = config_resolve(plan.values, &whole); s != Status::kOk) return s;
  out->metadata_bytes = Region::bytes_for(whole.shape);
  return Status::kOk;
}

}  // namespace quire
