// The inside of a Codec. For kernels/*.cpp and their tests only.
//
// Invariants: see codec_valid. means holds, per layer and KV head, the mean key in planes (rope.h),
// its turned channels times the RoPE's magnitude; a layer without means holds zeros and anchored[l]
// 0. Thread class: immutable, but for codec_set_anchor.
#pragma once

#include "kernels/codebook.h"
#include "kernels/codec.h"
#include "kernels/rope.h"

namespace quire::kernels {

struct Codec {
  quire_geometry geometry;
  quire_page_layout sealed;
  quire_page_layout open;
  Codebook book;
  Turns turns;
  float *means = nullptr;  // [layers][kv_heads][head_dim_k]; nullptr where the format has no anchor
  uint8_t *anchored = nullptr;  // [layers]

  const float *mean(uint32_t layer, uint32_t head) const {
    return means + (static_cast<size_t>(layer) * geometry.kv_heads + head) * geometry.head_dim_k;
  }
};

inline constexpr uint32_t kMaxDim = 1024;
inline constexpr uint32_t kMaxPairs = QUIRE_ROPE_MAX_PAIRS;

// R(j) b in planes, for token j of a page.
void token_anchor(const Codec &codec, uint32_t layer, uint32_t head, uint32_t j,
                  float *planes) noexcept;
// The anchor of token j of a page, in natural order; cos and sin are those of page_turn.
void full_anchor(const Codec &codec, uint32_t layer, uint32_t head, uint32_t j, const float *cos,
                 const float *sin, float *natural) noexcept;

}  // namespace quire::kernels
