// Anchors in the fast kernel: q . anchor of a unit's tokens, in twice f16's precision.
//
// anchor(p) = R(p0) (R(j) b), p = p0 + j, with p0 the multiple of kAnchorRows below p: rows R(j) b are
// made once a segment (all warps, in the gaps of the table), q is turned back by R(p0) once per
// kAnchorRows tokens of a warp. Their product may be hundreds beside a softmax that needs 1e-3: both
// are split into the sum of two f16 and three of the four products are taken (what is left out is
// 2^-22 of the whole).
//
//   rows     [kAnchorRows][2: high, low][dim] f16, in planes, 16-byte chunk c of row j at c ^ (j % 8)
//   queries  [rows of the tile][dim] fp32, in planes, times what makes logits of them
//   turned   of a warp: [tiles][dim / 16][32 lanes]{high b0, b1, low b0, b1}: operands B
//
// Where the pages of a turn begin amid kAnchorRows tokens, R(p0) is a page's turn times a token's.
// Requires pairs % 16 == 0. Cost: about 300 instructions a turn and tile of 8 rows, 24 MMAs and 16
// ldmatrix a unit of 128 channels.
#pragma once

#include "kernels/cuda/attention_fast.cuh"

namespace quire::kernels::cuda {

// cos and sin of R(position) for one pair.
__device__ inline float2 position_turn(const Plan &p, uint32_t position, uint32_t pair) {
  const Turns &t = p.codec.turns;
  const uint32_t page = position / p.page_tokens, token = position - page * p.page_tokens;
  float c, s;
  page_turn_of(t, page, pair, &c, &s);
  if (token != 0) {
    const float cj = t.token_cos[token * t.pairs + pair], sj = t.token_sin[token * t.pairs + pair];
    const float turned = c * cj - s * sj;
    s = c * sj + s * cj;
    c = turned;
  }
  return make_float2(c, s);
}

// Natural channel of element i of a row in planes.
__device__ inline uint32_t plane_channel(const Turns &t, uint32_t i) {
  if (t.interleaved == 0 || i >= 2 * t.pairs) return i;
  return i < t.pairs ? 2 * i : 2 * (i - t.pairs) + 1;
}

struct Halves {
  uint32_t high, low;  // two values each
};
__device__ __forceinline__ Halves split(float x, float y) {
  Halves h;
  h.high = pack_half2(x, y);
  const float2 back = unpack_half2(h.high);
  h.low = pack_half2(x - back.x, y - back.y);
  return h;
}

template <class F>
struct Anchor {
  // 16-byte chunk c of row j, of its high (0) or low (1) halves.
  __device__ static uint32_t row_chunk(uint32_t j, uint32_t half, uint32_t c) {
    const uint32_t piece = (j * 2 + half) * (F::kDim / 64) + c / 8;
    return F::kTable + piece * 256 + 128 + ((c % 8) ^ (j % 8)) * 16;
  }

  // Whole block, once a segment: rows of anchors and queries. A barrier has to follow.
  __device__ static void prepare(const Plan &p, const Segment &g) {
    const Turns &t = p.codec.turns;
    const float *b =
        p.codec.means + (static_cast<uint64_t>(p.args.layer) * p.kv_heads + g.head) * F::kDim;
    constexpr uint32_t kPairsOfValues = F::kDim / 2;
    for (uint32_t i = threadIdx.x; i < F::kAnchorRows * kPairsOfValues; i += F::kWarps * 32) {
      const uint32_t j = i / kPairsOfValues, d = i % kPairsOfValues * 2;
      float x[2];
#pragma unroll
      for (uint32_t e = 0; e < 2; ++e) x[e] = turned_mean(p, t, b, j, d + e);
      const Halves h = split(x[0], x[1]);
      store_shared(row_chunk(j, 0, d / 8) + d % 8 * 2, h.high);
      store_shared(row_chunk(j, 1, d / 8) + d % 8 * 2, h.low);
    }
    const float factor = p.args.soft_cap == 0 ? p.args.scale * kLog2e : p.args.scale;
    const uint32_t rows = tile_rows(p, g.s, g.tile);
    for (uint32_t i = threadIdx.x; i < F::kRows * F::kDim; i += F::kWarps * 32) {
      const uint32_t row = i / F::kDim, d = i % F::kDim;
      float x = 0;
      if (row < rows) {
        const int64_t at = row_place(p, g.s, g.head, g.tile * p.rows + row).q;
        x = load_as_float(p.args.q_dtype, p.args.q, at + plane_channel(t, d)) * factor;
      }
      store_shared(F::kQueries + row * F::kQueryRow + d * 4, x);
    }
  }

  // Whole warp: q turned back by R(p0).
  __device__ static void turn(const Plan &p, uint32_t p0) {
    const Turns &t = p.codec.turns;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t turns = F::kTurns + warp * F::kTurnsWarp;
    __syncwarp();
    for (uint32_t i = lane; i < t.pairs; i += 32) {
      const float2 cs = position_turn(p, p0, i);
      store_shared(turns + i * 8, cs.x);
      store_shared(turns + i * 8 + 4, cs.y);
    }
    __syncwarp();
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
      const uint32_t q =
          F::kQueries + (static_cast<uint32_t>(n) * 8 + lane / 4) * F::kQueryRow + lane % 4 * 8;
      for (uint32_t step = 0; step < t.pairs / 16; ++step) {
        float x[4], y[4];
#pragma unroll
        for (uint32_t h = 0; h < 2; ++h) {
          uint32_t a[2], c[2], cs[4];
          load_shared(a, q + (step * 16 + h * 8) * 4);
          load_shared(c, q + (t.pairs + step * 16 + h * 8) * 4);
          load_shared(cs, turns + (step * 16 + h * 8 + lane % 4 * 2) * 8);
#pragma unroll
          for (uint32_t e = 0; e < 2; ++e) {
            const float ax = __uint_as_float(a[e]), ay = __uint_as_float(c[e]);
            const float cos = __uint_as_float(cs[2 * e]), sin = __uint_as_float(cs[2 * e + 1]);
            x[2 * h + e] = fmaf(cos, ax, sin * ay);
            y[2 * h + e] = fmaf(cos, ay, -(sin * ax));
          }
        }
        keep(n, step, x);
        keep(n, step + t.pairs / 16, y);
      }
      for (uint32_t step = t.pairs / 8; step < F::kDim / 16; ++step) {
        uint32_t a[2], b[2];
        load_shared(a, q + step * 64);
        load_shared(b, q + step * 64 + 32);
        const float x[4] = {__uint_as_float(a[0]), __uint_as_float(a[1]), __uint_as_float(b[0]),
                            __uint_as_float(b[1])};
        keep(n, step, x);
      }
    }
    __syncwarp();
  }

  // Adds q . anchor of tokens j .. j + 15 behind the turn.
  __device__ static void add(float (&a)[F::kTiles][4], uint32_t j) {
    const uint32_t lane = threadIdx.x % 32, row = j + lane % 16, half = lane / 16;
    float rest[F::kTiles][4] = {};
#pragma unroll
    for (uint32_t step = 0; step < F::kDim / 16; ++step) {
      uint32_t high[4], low[4];
      load_matrices(high, row_chunk(row, 0, step * 2 + half));
      load_matrices(low, row_chunk(row, 1, step * 2 + half));
#pragma unroll
      for (int n = 0; n < F::kTiles; ++n) {
        uint32_t b[4];
        load_shared(b, turned(n, step));
        mma(a[n], high, b[0], b[1], a[n]);
        mma(rest[n], high, b[2], b[3], rest[n]);
        mma(rest[n], low, b[0], b[1], rest[n]);
      }
    }
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[n][i] += rest[n][i];
    }
  }

 private:
  // Element d, in planes, of R(j) b.
  __device__ static float turned_mean(const Plan &p, const Turns &t, const float *b, uint32_t j,
                                      uint32_t d) {
    if (d >= 2 * t.pairs) return b[d];
    const uint32_t pair = d < t.pairs ? d : d - t.pairs;
    const float2 cs = position_turn(p, j, pair);
    const float x = b[pair], y = b[t.pairs + pair];
    return d < t.pairs ? cs.x * x - cs.y * y : cs.x * y + cs.y * x;
  }

  __device__ static uint32_t turned(int n, uint32_t step) {
    return F::kSums + threadIdx.x / 32 * F::kSumsWarp +
           ((static_cast<uint32_t>(n) * (F::kDim / 16) + step) * 32 + threadIdx.x % 32) * 16;
  }
  __device__ static void keep(int n, uint32_t step, const float (&x)[4]) {
    const Halves a = split(x[0], x[1]), b = split(x[2], x[3]);
    store_shared4(turned(n, step), a.high, b.high, a.low, b.low);
  }
};

}  // namespace quire::kernels::cuda
