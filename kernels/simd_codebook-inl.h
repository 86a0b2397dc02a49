// Lookups in a codebook, per target: z -> code by buckets (codebook.h) or by all midpoints, code ->
// value.
//
// A book offers codes(z), negated_codes(z) == codes(-z), and values(codes); codes are 32-bit lanes.
// BucketBook with AVX-512: the two 32-entry tables are two-register permutations. With AVX2: the
// bucket's base comes from two byte shuffles, and as threshold[b] == midpoints[base[b]] wherever
// the bucket has a threshold, while midpoints[base[b]] lies above the whole bucket wherever it has
// none, the threshold is a lookup of the base. Elsewhere: gathers.
#if defined(QUIRE_KERNELS_SIMD_CODEBOOK_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef QUIRE_KERNELS_SIMD_CODEBOOK_INL_H
#undef QUIRE_KERNELS_SIMD_CODEBOOK_INL_H
#else
#define QUIRE_KERNELS_SIMD_CODEBOOK_INL_H
#endif

#include "kernels/simd_common-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quire::kernels {
namespace HWY_NAMESPACE {
#if QUIRE_SIMD_TARGET

using VU = hn::Vec<Ints>;

#if HWY_TARGET == HWY_AVX3

struct BucketBook {
  __m512 threshold_lo, threshold_hi, negative_lo, negative_hi, all_values;
  __m512i base_lo, base_hi;

  explicit BucketBook(const Codebook &b) {
    const __m512 sign = _mm512_set1_ps(-0.0f);
    threshold_lo = _mm512_loadu_ps(b.threshold);
    threshold_hi = _mm512_loadu_ps(b.threshold + 16);
    negative_lo = _mm512_xor_ps(threshold_lo, sign);
    negative_hi = _mm512_xor_ps(threshold_hi, sign);
    base_lo = _mm512_loadu_si512(b.base);
    base_hi = _mm512_loadu_si512(b.base + 16);
    all_values = _mm512_loadu_ps(b.values);
  }

  static __m512 clamp(V z) {  // the smaller of |z| and 1, with z's sign
    return _mm512_range_ps(z.raw, _mm512_set1_ps(1.0f), 0x2);
  }

  VU codes(V z) const {
    const __m512 c = clamp(z);
    const __m512i bucket = _mm512_castps_si512(
        _mm512_fmadd_ps(c, _mm512_set1_ps(kBucketsAUnit), _mm512_set1_ps(kBucketOffset)));
    const __m512 t = _mm512_permutex2var_ps(threshold_lo, bucket, threshold_hi);
    const __m512i base = _mm512_permutex2var_epi32(base_lo, bucket, base_hi);
    const __mmask16 above = _mm512_cmp_ps_mask(c, t, _CMP_GT_OQ);
    return VU{_mm512_mask_add_epi32(base, above, base, _mm512_set1_epi32(1))};
  }

  VU negated_codes(V z) const {
    const __m512 c = clamp(z);
    const __m512i bucket = _mm512_castps_si512(
        _mm512_fnmadd_ps(c, _mm512_set1_ps(kBucketsAUnit), _mm512_set1_ps(kBucketOffset)));
    const __m512 t = _mm512_permutex2var_ps(negative_lo, bucket, negative_hi);
    const __m512i base = _mm512_permutex2var_epi32(base_lo, bucket, base_hi);
    const __mmask16 above = _mm512_cmp_ps_mask(c, t, _CMP_LT_OQ);
    return VU{_mm512_mask_add_epi32(base, above, base, _mm512_set1_epi32(1))};
  }

  V values(VU codes) const { return V{_mm512_permutexvar_ps(codes.raw, all_values)}; }
};

#elif HWY_TARGET == HWY_AVX2

struct BucketBook {
  __m256 midpoint_lo, midpoint_hi, value_lo, value_hi;
  __m256i base_lo, base_hi;  // bytes, the same in both halves

  explicit BucketBook(const Codebook &b) {
    alignas(16) uint8_t bytes[32];
    for (int i = 0; i < 32; ++i) bytes[i] = static_cast<uint8_t>(b.base[i]);
    base_lo = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<__m128i *>(bytes)));
    base_hi = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<__m128i *>(bytes + 16)));
    midpoint_lo = _mm256_loadu_ps(b.midpoints);
    midpoint_hi = _mm256_loadu_ps(b.midpoints + 8);
    value_lo = _mm256_loadu_ps(b.values);
    value_hi = _mm256_loadu_ps(b.values + 8);
  }

  // Entry i < 16 of a table of two registers.
  static __m256 look_up(__m256 lo, __m256 hi, __m256i i) {
    const __m256 which = _mm256_castsi256_ps(_mm256_slli_epi32(i, 28));  // bit 3 to the sign
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(lo, i), _mm256_permutevar8x32_ps(hi, i),
                            which);
  }

  VU codes(V z) const {
    const __m256 c =
        _mm256_max_ps(_mm256_min_ps(z.raw, _mm256_set1_ps(1.0f)), _mm256_set1_ps(-1.0f));
    const __m256i bits = _mm256_castps_si256(
        _mm256_fmadd_ps(c, _mm256_set1_ps(kBucketsAUnit), _mm256_set1_ps(kBucketOffset)));
    const __m256i bucket = _mm256_and_si256(bits, _mm256_set1_epi32(31));
    // A shuffle gives 0 for an index with bit 7: buckets from 16 on in the first, below 16 in the
    // second, and the upper three bytes of every lane in both.
    const __m256i first =
        _mm256_add_epi32(bucket, _mm256_set1_epi32(static_cast<int>(0x80808070u)));
    const __m256i second =
        _mm256_add_epi32(bucket, _mm256_set1_epi32(static_cast<int>(0x808080f0u)));
    const __m256i base =
        _mm256_or_si256(_mm256_shuffle_epi8(base_lo, first), _mm256_shuffle_epi8(base_hi, second));
    const __m256 above = _mm256_cmp_ps(c, look_up(midpoint_lo, midpoint_hi, base), _CMP_GT_OQ);
    return VU{_mm256_sub_epi32(base, _mm256_castps_si256(above))};
  }

  VU negated_codes(V z) const { return codes(hn::Neg(z)); }
  V values(VU codes) const { return V{look_up(value_lo, value_hi, codes.raw)}; }
};

#else

struct BucketBook {
  const Codebook &from;
  explicit BucketBook(const Codebook &b) : from(b) {}

  VU codes(V z) const {
    const Floats d;
    const Ints du;
    const hn::RebindToSigned<Floats> di;
    const V c = hn::Max(hn::Min(z, hn::Set(d, 1.0f)), hn::Set(d, -1.0f));
    const VU bits =
        hn::BitCast(du, hn::MulAdd(c, hn::Set(d, kBucketsAUnit), hn::Set(d, kBucketOffset)));
    const auto bucket = hn::BitCast(di, hn::And(bits, hn::Set(du, 31u)));
    const V t = hn::GatherIndex(d, from.threshold, bucket);
    const VU base = hn::GatherIndex(du, from.base, bucket);
    return hn::Sub(base, hn::VecFromMask(du, hn::RebindMask(du, hn::Gt(c, t))));
  }

  VU negated_codes(V z) const { return codes(hn::Neg(z)); }
  V values(VU codes) const {
    const hn::RebindToSigned<Floats> di;
    return hn::GatherIndex(Floats(), from.values, hn::BitCast(di, codes));
  }
};

#endif

// For codebooks whose midpoints crowd a bucket.
struct MidpointBook {
  const Codebook &from;
  explicit MidpointBook(const Codebook &b) : from(b) {}

  VU codes(V z) const {
    const Floats d;
    const Ints du;
    VU code = hn::Zero(du);
    for (uint32_t i = 0; i < 15; ++i) {
      const auto above = hn::Gt(z, hn::Set(d, from.midpoints[i]));
      code = hn::Sub(code, hn::VecFromMask(du, hn::RebindMask(du, above)));
    }
    return code;
  }

  VU negated_codes(V z) const { return codes(hn::Neg(z)); }
  V values(VU codes) const {
    const hn::RebindToSigned<Floats> di;
    return hn::GatherIndex(Floats(), from.values, hn::BitCast(di, codes));
  }
};

#endif  // QUIRE_SIMD_TARGET
}  // namespace HWY_NAMESPACE
}  // namespace quire::kernels
HWY_AFTER_NAMESPACE();

#endif
