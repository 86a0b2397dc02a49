// Plan: how many frames and tokens a budget gives, from the same arithmetic that opens a cache.
//
// Invariant: quire_open with the same config has these frames and this region (a test opens it).
//
// Thread class: any; touches nothing.
#pragma once

#include "quire/quire.h"
#include "runtime/status.h"

namespace quire {

// Fields of `config` that are zero have their defaults. A budget too small for a page gives no
// pages; no budget at all is kInvalid.
Status make_plan(const quire_config &config, quire_plan_result *out) noexcept;

}  // namespace quire
