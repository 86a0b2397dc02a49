// What the SIMD targets share: loops with tails, sums of many vectors at once, e4m3 in vectors.
// Included per target by kernels/simd_*.cpp.
#if defined(QUIRE_KERNELS_SIMD_COMMON_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef QUIRE_KERNELS_SIMD_COMMON_INL_H
#undef QUIRE_KERNELS_SIMD_COMMON_INL_H
#else
#define QUIRE_KERNELS_SIMD_COMMON_INL_H
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quire::kernels {
namespace HWY_NAMESPACE {
#if QUIRE_SIMD_TARGET
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Ints = hn::RebindToUnsigned<Floats>;
using V = hn::Vec<Floats>;
inline constexpr size_t kLanes = HWY_LANES(float);

// Calls f(tag, i) for whole vectors, then for halves of eight; returns how many values it covered.
template <class F>
HWY_INLINE size_t for_vectors(size_t n, F &&f) {
  size_t i = 0;
  const Floats d;
  for (; i + kLanes <= n; i += kLanes) f(d, i);
  if constexpr (kLanes > 8) {
    const hn::CappedTag<float, 8> d8;
    for (; i + 8 <= n; i += 8) f(d8, i);
  }
  return i;
}

struct AddOf {
  static HWY_INLINE V of(V a, V b) { return hn::Add(a, b); }
};
// The largest of the bits: of magnitudes, and a NaN is above all.
struct MaxBits {
  static HWY_INLINE V of(V a, V b) {
    const Ints du;
    return hn::BitCast(Floats(), hn::Max(hn::BitCast(du, a), hn::BitCast(du, b)));
  }
};

// kLanes vectors in memory, each folded to one value by the tree of strides kLanes / 2 ... 2, 1:
// lane l of the result belongs to vector l.
#if HWY_TARGET == HWY_NEON
template <class Op>
HWY_INLINE V fold_each(const float *x) {
  const Floats d;
  V v[4];
  for (size_t i = 0; i < 4; ++i) v[i] = hn::Load(d, x + i * 4);
  const V a = Op::of(hn::ConcatLowerLower(d, v[1], v[0]), hn::ConcatUpperUpper(d, v[1], v[0]));
  const V b = Op::of(hn::ConcatLowerLower(d, v[3], v[2]), hn::ConcatUpperUpper(d, v[3], v[2]));
  return Op::of(hn::ConcatEven(d, b, a), hn::ConcatOdd(d, b, a));
}
#elif HWY_TARGET == HWY_AVX2
template <class Op>
HWY_INLINE V fold_each(const float *from) {
  V a[4], b[2];
  HWY_UNROLL(4)
  for (int i = 0; i < 4; ++i) {  // a[i]: half of vector i, half of vector i + 4
    const __m256 x = _mm256_load_ps(from + 8 * i), y = _mm256_load_ps(from + 8 * (i + 4));
    a[i] = Op::of(V{_mm256_permute2f128_ps(x, y, 0x20)}, V{_mm256_permute2f128_ps(x, y, 0x31)});
  }
  HWY_UNROLL(2)
  for (int i = 0; i < 2; ++i) {
    const __m256 x = a[2 * i].raw, y = a[2 * i + 1].raw;
    b[i] = Op::of(V{_mm256_shuffle_ps(x, y, 0x44)}, V{_mm256_shuffle_ps(x, y, 0xee)});
  }
  const __m256 x = b[0].raw, y = b[1].raw;
  return Op::of(V{_mm256_shuffle_ps(x, y, 0x88)}, V{_mm256_shuffle_ps(x, y, 0xdd)});
}
#else
template <class Op>
HWY_INLINE V fold_each(const float *from) {
  V a[8], b[4], c[2];
  HWY_UNROLL(8)
  for (int i = 0; i < 8; ++i) {  // a[i]: half of vector i, half of vector i + 8
    const __m512 x = _mm512_load_ps(from + 16 * i), y = _mm512_load_ps(from + 16 * (i + 8));
    a[i] = Op::of(V{_mm512_shuffle_f32x4(x, y, 0x44)}, V{_mm512_shuffle_f32x4(x, y, 0xee)});
  }
  HWY_UNROLL(4)
  for (int i = 0; i < 4; ++i) {  // b[i]: quarters of vectors i, i + 8, i + 4, i + 12
    const __m512 x = a[i].raw, y = a[i + 4].raw;
    b[i] = Op::of(V{_mm512_shuffle_f32x4(x, y, 0x88)}, V{_mm512_shuffle_f32x4(x, y, 0xdd)});
  }
  HWY_UNROLL(2)
  for (int i = 0; i < 2; ++i) {
    const __m512 x = b[2 * i].raw, y = b[2 * i + 1].raw;
    c[i] = Op::of(V{_mm512_shuffle_ps(x, y, 0x44)}, V{_mm512_shuffle_ps(x, y, 0xee)});
  }
  const __m512 x = c[0].raw, y = c[1].raw;
  const V folded = Op::of(V{_mm512_shuffle_ps(x, y, 0x88)}, V{_mm512_shuffle_ps(x, y, 0xdd)});
  // Blocks hold vectors 0-3, 8-11, 4-7, 12-15.
  return V{_mm512_shuffle_f32x4(folded.raw, folded.raw, 0xd8)};
}
#endif

// e4m3 of v >= 0 in the low bits of each lane: float_to_e4m3 and float_to_e4m3_up.
template <bool kUp, class D, class VF = hn::Vec<D>>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> e4m3_of(D d, VF v) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, v);
  const auto lost =
      kUp ? hn::Set(du, 0xfffffu)
          : hn::Add(hn::Set(du, 0x7ffffu), hn::And(hn::ShiftRight<20>(bits), hn::Set(du, 1u)));
  const auto normal = hn::Sub(hn::ShiftRight<20>(hn::Add(bits, lost)), hn::Set(du, 120u << 3));
  const auto large = hn::Set(d, 0x1p14f);
  auto small = hn::Sub(hn::BitCast(du, hn::Add(v, large)), hn::BitCast(du, large));
  if (kUp) {
    const auto back =
        hn::Mul(hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<D>(), small)), hn::Set(d, 0x1p-9f));
    small = hn::Sub(small, hn::VecFromMask(du, hn::RebindMask(du, hn::Lt(back, v))));
  }
  const auto is_small = hn::RebindMask(du, hn::Lt(v, hn::Set(d, 0x1p-6f)));
  const auto byte = hn::Min(hn::IfThenElse(is_small, small, normal), hn::Set(du, 0x7eu));
  const auto fits = hn::RebindMask(du, hn::Lt(v, hn::Set(d, 448.0f)));
  return hn::IfThenElse(fits, byte, hn::Set(du, 0x7eu));
}

// quire_e4m3_value of each lane.
template <class D, class VU>
HWY_INLINE hn::Vec<D> e4m3_value(D d, VU byte) {
  const hn::RebindToUnsigned<D> du;
  const auto magnitude = hn::And(byte, hn::Set(du, 127u));
  const auto sign = hn::ShiftLeft<24>(hn::And(byte, hn::Set(du, 128u)));
  const auto normal = hn::BitCast(d, hn::ShiftLeft<20>(hn::Add(magnitude, hn::Set(du, 120u << 3))));
  const auto small = hn::Mul(hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<D>(), magnitude)),
                             hn::Set(d, 0x1p-9f));
  const auto is_small = hn::RebindMask(d, hn::Lt(hn::BitCast(hn::RebindToSigned<D>(), magnitude),
                                                 hn::Set(hn::RebindToSigned<D>(), 8)));
  return hn::Or(hn::IfThenElse(is_small, small, normal), hn::BitCast(d, sign));
}

#endif  // QUIRE_SIMD_TARGET
}  // namespace HWY_NAMESPACE
}  // namespace quire::kernels
HWY_AFTER_NAMESPACE();

#endif
