// RoPE turns of anchors: the same fp32 numbers wherever they are needed.
//
// The anchor of a key is the mean b of its layer and head before RoPE, turned to the key's position
// p = page * page_tokens + j, in two steps so that attention can share the second among pages:
//     anchor(p) = R(page) (R(j) b)          q . anchor(p) = (R(page)^T q) . (R(j) b)
// R(j), j < page_tokens: cos and sin of j * inv_freq, taken in double, rounded to fp32. R(page):
// the product, in double, of four turns (page's base-64 digits times 64^i * page_tokens *
// inv_freq), most significant first, rounded to fp32. Every angle is exact in double (24 bits of
// inv_freq times at most 2^29), so the products are within 2^-50 of the true turn at any position,
// and any device that has the tables computes the same bits. Applying a turn to a pair (x, y):
//     (RN(RN(c x) - RN(s y)), RN(RN(c y) + RN(s x)))
//
// In *planes*: a row's first elements of all pairs, then the second elements, then the channels
// that are not turned. Half-split RoPE is in planes already; interleaved is not.
//
// Thread class: immutable once made. Cost of the tables: 8 * pairs * page_tokens + 4096 * pairs
// bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quire/page_format.h"

namespace quire::kernels {

struct Turns {
  uint32_t pairs = 0;
  uint32_t interleaved = 0;
  float *token_cos = nullptr;  // [page_tokens][pairs]
  float *token_sin = nullptr;
  double *page_cos = nullptr;  // [4][64][pairs]
  double *page_sin = nullptr;
};

inline constexpr uint32_t kTurnDigits =
    4;  // pages 2^24 and on repeat; reading undoes what sealing did

size_t turns_bytes(const quire_geometry &geometry) noexcept;  // a multiple of 64
// memory: turns_bytes, 64-aligned.
Turns make_turns(const quire_geometry &geometry, void *memory) noexcept;

// cos and sin of R(page), [pairs] each.
void page_turn(const Turns &turns, uint32_t page, float *cos, float *sin) noexcept;

// Natural order <-> planes, for one row of dim channels.
void to_planes(const Turns &turns, uint32_t dim, const float *natural, float *planes) noexcept;
void from_planes(const Turns &turns, uint32_t dim, const float *planes, float *natural) noexcept;

}  // namespace quire::kernels
