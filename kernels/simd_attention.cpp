// SIMD attention: the two small matrix products of a tile and what lies between them.
//
// scores: as many (row, token) pairs at once as a vector has lanes, so that their dot products end
// in one vector of sums. accumulate: a block of rows by channels stays in registers over all tokens
// of the tile. Sums are taken in another order than the scalar target's; attention's error bound is
// what tests hold both to.
//
// Thread class: pure. Cost: compute-bound; two fused multiply-adds a (row, token, channel).
#include "kernels/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd_attention.cpp"
#include "hwy/foreach_target.h"  // re-includes this file per target
//
#include <cmath>

#include "hwy/contrib/math/math-inl.h"
#include "kernels/scalar_rows.h"
#include "kernels/simd_common-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quire::kernels {
namespace HWY_NAMESPACE {
#if QUIRE_SIMD_TARGET
namespace {

// kRows x kTokens dot products, kRows * kTokens == kLanes; lane r * kTokens + t.
template <size_t kRows, size_t kTokens>
HWY_INLINE V dots(const float *q, const float *k, size_t dim) {
  static_assert(kRows * kTokens == kLanes);
  const Floats d;
  V sum[kLanes];
  HWY_UNROLL(16)
  for (size_t i = 0; i < kLanes; ++i) sum[i] = hn::Zero(d);
  for (size_t c = 0; c < dim; c += kLanes) {
    V a[kRows];
    HWY_UNROLL(4)
    for (size_t r = 0; r < kRows; ++r) a[r] = hn::LoadU(d, q + r * dim + c);
    HWY_UNROLL(16)
    for (size_t t = 0; t < kTokens; ++t) {
      const V b = hn::LoadU(d, k + t * dim + c);
      HWY_UNROLL(4)
      for (size_t r = 0; r < kRows; ++r) {
        sum[r * kTokens + t] = hn::MulAdd(a[r], b, sum[r * kTokens + t]);
      }
    }
  }
  alignas(64) float each[kLanes * kLanes];
  HWY_UNROLL(16)
  for (size_t i = 0; i < kLanes; ++i) hn::Store(sum[i], d, each + i * kLanes);
  return fold_each<AddOf>(each);
}

HWY_INLINE float dot(const float *a, const float *b, size_t dim) {
  const Floats d;
  V sum = hn::Zero(d);
  for (size_t c = 0; c < dim; c += kLanes) {
    sum = hn::MulAdd(hn::LoadU(d, a + c), hn::LoadU(d, b + c), sum);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

void scores(const float *q, size_t rows, const float *k, size_t tokens, size_t dim, float *s,
            size_t s_stride) {
  if (dim % kLanes != 0) {
    scalar::scores(q, rows, k, tokens, dim, s, s_stride);
    return;
  }
  constexpr size_t kRowsAtOnce = kLanes >= 8 ? kLanes / 4 : 2, kTokensAtOnce = kLanes / kRowsAtOnce;
  const hn::CappedTag<float, kTokensAtOnce> part;
  const Floats d;
  size_t r = 0;
  for (; r + kRowsAtOnce <= rows; r += kRowsAtOnce) {
    size_t t = 0;
    for (; t + kTokensAtOnce <= tokens; t += kTokensAtOnce) {
      alignas(64) float out[kLanes];
      hn::Store(dots<kRowsAtOnce, kTokensAtOnce>(q + r * dim, k + t * dim, dim), d, out);
      for (size_t i = 0; i < kRowsAtOnce; ++i) {
        hn::StoreU(hn::Load(part, out + i * kTokensAtOnce), part, s + (r + i) * s_stride + t);
      }
    }
    for (; t < tokens; ++t) {
      for (size_t i = 0; i < kRowsAtOnce; ++i) {
        s[(r + i) * s_stride + t] = dot(q + (r + i) * dim, k + t * dim, dim);
      }
    }
  }
  for (; r < rows; ++r) {
    size_t t = 0;
    for (; t + kLanes <= tokens; t += kLanes) {
      hn::StoreU(dots<1, kLanes>(q + r * dim, k + t * dim, dim), d, s + r * s_stride + t);
    }
    for (; t < tokens; ++t) s[r * s_stride + t] = dot(q + r * dim, k + t * dim, dim);
  }
}

// kRows rows by kVectors vectors of channels, from channel c on.
template <size_t kRows, size_t kVectors>
HWY_INLINE void accumulate_block(float *acc, const float *factor, const float *p, size_t p_stride,
                                 const float *v, size_t tokens, size_t dim) {
  const Floats d;
  V sum[kRows][kVectors];
  HWY_UNROLL(4)
  for (size_t r = 0; r < kRows; ++r) {
    const V f = hn::Set(d, factor[r]);
    HWY_UNROLL(4)
    for (size_t c = 0; c < kVectors; ++c) {
      sum[r][c] = hn::Mul(hn::LoadU(d, acc + r * dim + c * kLanes), f);
    }
  }
  for (size_t t = 0; t < tokens; ++t) {
    V x[kVectors];
    HWY_UNROLL(4)
    for (size_t c = 0; c < kVectors; ++c) x[c] = hn::LoadU(d, v + t * dim + c * kLanes);
    HWY_UNROLL(4)
    for (size_t r = 0; r < kRows; ++r) {
      const V weight = hn::Set(d, p[r * p_stride + t]);
      HWY_UNROLL(4)
      for (size_t c = 0; c < kVectors; ++c) sum[r][c] = hn::MulAdd(weight, x[c], sum[r][c]);
    }
  }
  HWY_UNROLL(4)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (size_t c = 0; c < kVectors; ++c) {
      hn::StoreU(sum[r][c], d, acc + r * dim + c * kLanes);
    }
  }
}

template <size_t kRows>
HWY_INLINE void accumulate_rows(float *acc, const float *factor, const float *p, size_t p_stride,
                                const float *v, size_t tokens, size_t dim) {
  constexpr size_t kWide = 4;
  size_t c = 0;
  for (; c + kWide * kLanes <= dim; c += kWide * kLanes) {
    accumulate_block<kRows, kWide>(acc + c, factor, p, p_stride, v + c, tokens, dim);
  }
  for (; c < dim; c += kLanes) {
    accumulate_block<kRows, 1>(acc + c, factor, p, p_stride, v + c, tokens, dim);
  }
}

void accumulate(float *acc, size_t rows, const float *factor, const float *p, size_t p_stride,
                const float *v, size_t tokens, size_t dim) {
  if (dim % kLanes != 0) {
    scalar::accumulate(acc, rows, factor, p, p_stride, v, tokens, dim);
    return;
  }
  constexpr size_t kRowsAtOnce = kLanes == 16 ? 4 : 2;
  size_t r = 0;
  for (; r + kRowsAtOnce <= rows; r += kRowsAtOnce) {
    accumulate_rows<kRowsAtOnce>(acc + r * dim, factor + r, p + r * p_stride, p_stride, v, tokens,
                                 dim);
  }
  for (; r < rows; ++r) {
    accumulate_rows<1>(acc + r * dim, factor + r, p + r * p_stride, p_stride, v, tokens, dim);
  }
}

void soft_cap(float *x, size_t n, float cap) {
  const size_t done = for_vectors(n, [&](auto d, size_t i) HWY_ATTR {
    const auto c = hn::Set(d, cap);
    const auto t = hn::Tanh(d, hn::Div(hn::LoadU(d, x + i), c));
    hn::StoreU(hn::Mul(c, t), d, x + i);
  });
  scalar::soft_cap(x + done, n - done, cap);
}

float maximum(const float *x, size_t n) {
  const Floats d;
  size_t i = 0;
  V largest = hn::Set(d, bits_float(0xff800000u));
  for (; i + kLanes <= n; i += kLanes) largest = hn::Max(largest, hn::LoadU(d, x + i));
  const float vectors = hn::GetLane(hn::MaxOfLanes(d, largest));
  const float rest = scalar::maximum(x + i, n - i);
  return rest > vectors ? rest : vectors;
}

float exponentials(float *x, size_t n, float peak) {
  const Floats d;
  size_t i = 0;
  V sum = hn::Zero(d);
  for (; i + kLanes <= n; i += kLanes) {
    const V e = hn::Exp(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, peak)));
    hn::StoreU(e, d, x + i);
    sum = hn::Add(sum, e);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum)) + scalar::exponentials(x + i, n - i, peak);
}

}  // namespace

void fill_attention(RowKernels *t) {
  t->scores = scores;
  t->accumulate = accumulate;
  t->soft_cap = soft_cap;
  t->maximum = maximum;
  t->exponentials = exponentials;
}

#endif  // QUIRE_SIMD_TARGET
}  // namespace HWY_NAMESPACE
}  // namespace quire::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quire::kernels {
#define QUIRE_SIMD_EXPORT simd_fill_attention
#define QUIRE_SIMD_FILL fill_attention
#include "kernels/simd_export-inl.h"
}  // namespace quire::kernels
#endif
