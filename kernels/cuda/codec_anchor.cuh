// Anchors on a GPU: R(page) (R(j) b) of kernels/rope.h, with its roundings.
//
// Turns of tokens are read from the codec's tables; that of a page is a product of four in double,
// so it is made once for all that share the page and kept in shared memory.
//
// Thread class: device code. Cost: nine products and sums a value, and six loads; a page's turn
// about twenty operations in double a pair.
#pragma once

#include "kernels/cuda/codec_block.cuh"

namespace quire::kernels::cuda {

inline constexpr uint32_t kMaxTurnPairs = QUIRE_ROPE_MAX_PAIRS;

struct PageTurn {
  float cos[kMaxTurnPairs], sin[kMaxTurnPairs];
};

QUIRE_DEVICE float2 page_turn_of(const Turns &turns, uint32_t page, uint32_t pair) {
  const auto at = [&](uint32_t digit) {
    return (digit * 64 + (page >> (6 * digit)) % 64) * turns.pairs + pair;
  };
  double x = turns.page_cos[at(kTurnDigits - 1)], y = turns.page_sin[at(kTurnDigits - 1)];
  for (uint32_t digit = kTurnDigits - 1; digit-- > 0;) {
    const double c = turns.page_cos[at(digit)], s = turns.page_sin[at(digit)];
    const double turned = __dsub_rn(__dmul_rn(x, c), __dmul_rn(y, s));
    y = __dadd_rn(__dmul_rn(x, s), __dmul_rn(y, c));
    x = turned;
  }
  return make_float2(__double2float_rn(x), __double2float_rn(y));
}

// By `threads` threads, of which this is number `index`.
QUIRE_DEVICE void make_page_turn(const Turns &turns, uint32_t page, uint32_t index,
                                 uint32_t threads, PageTurn *turn) {
  for (uint32_t i = index; i < turns.pairs; i += threads) {
    const float2 t = page_turn_of(turns, page, i);
    turn->cos[i] = t.x;
    turn->sin[i] = t.y;
  }
}

// First or second element of a pair (a, b) after the token's turn t and the page's turn p.
QUIRE_DEVICE float turned_twice(float a, float b, float tc, float ts, float pc, float ps,
                                bool second) {
  const float x = __fsub_rn(__fmul_rn(tc, a), __fmul_rn(ts, b));
  const float y = __fadd_rn(__fmul_rn(tc, b), __fmul_rn(ts, a));
  return second ? __fadd_rn(__fmul_rn(pc, y), __fmul_rn(ps, x))
                : __fsub_rn(__fmul_rn(pc, x), __fmul_rn(ps, y));
}

// Of natural channel d.
QUIRE_DEVICE float anchor_value(const Turns &turns, const float *mean, uint32_t token,
                                const PageTurn &turn, uint32_t d) {
  const uint32_t pairs = turns.pairs;
  if (d >= 2 * pairs) return mean[d];
  const uint32_t pair = turns.interleaved != 0 ? d / 2 : (d < pairs ? d : d - pairs);
  const bool second = turns.interleaved != 0 ? (d & 1) != 0 : d >= pairs;
  const size_t at = static_cast<size_t>(token) * pairs + pair;
  return turned_twice(mean[pair], mean[pairs + pair], turns.token_cos[at], turns.token_sin[at],
                      turn.cos[pair], turn.sin[pair], second);
}

// x +- the anchor of block `block` of a token's key.
template <uint32_t kBlock, bool kSubtract>
QUIRE_DEVICE void apply_anchor(const Turns &turns, const float *mean, uint32_t token,
                               const PageTurn &turn, uint32_t block, float (&x)[kBlock]) {
  const uint32_t pairs = turns.pairs, first = block * kBlock;
  if (turns.interleaved == 0 && pairs % kBlock == 0 && first < 2 * pairs) {
    const bool second = first >= pairs;
    const uint32_t pair = second ? first - pairs : first;
    const size_t at = static_cast<size_t>(token) * pairs + pair;
    const auto quad = [](const float *p, uint32_t i) {
      return reinterpret_cast<const float4 *>(p)[i];
    };
    QUIRE_UNROLL
    for (uint32_t i = 0; i < kBlock / 4; ++i) {
      const float4 a = quad(mean + pair, i), b = quad(mean + pairs + pair, i);
      const float4 tc = quad(turns.token_cos + at, i), ts = quad(turns.token_sin + at, i);
      const float4 pc = quad(turn.cos + pair, i), ps = quad(turn.sin + pair, i);
      const float v[4] = {turned_twice(a.x, b.x, tc.x, ts.x, pc.x, ps.x, second),
                          turned_twice(a.y, b.y, tc.y, ts.y, pc.y, ps.y, second),
                          turned_twice(a.z, b.z, tc.z, ts.z, pc.z, ps.z, second),
                          turned_twice(a.w, b.w, tc.w, ts.w, pc.w, ps.w, second)};
      QUIRE_UNROLL
      for (uint32_t j = 0; j < 4; ++j) {
        float &to = x[4 * i + j];
        to = kSubtract ? __fsub_rn(to, v[j]) : __fadd_rn(to, v[j]);
      }
    }
    return;
  }
  float anchor[kBlock];
  QUIRE_ROLLED
  for (uint32_t i = 0; i < kBlock; ++i) {
    anchor[i] = anchor_value(turns, mean, token, turn, first + i);
  }
  QUIRE_UNROLL
  for (uint32_t i = 0; i < kBlock; ++i) {
    x[i] = kSubtract ? __fsub_rn(x[i], anchor[i]) : __fadd_rn(x[i], anchor[i]);
  }
}

QUIRE_DEVICE const float *mean_of(const CudaCodec &codec, uint32_t layer, uint32_t head) {
  return codec.means +
         (static_cast<size_t>(layer) * codec.sealed.kv_heads + head) * codec.sealed.k.dim;
}

}  // namespace quire::kernels::cuda
