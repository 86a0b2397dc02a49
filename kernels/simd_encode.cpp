// SIMD encode: rows -> codes and scales, a batch of up to 64 blocks at a time, in passes that keep
// vectors full:
//   1. absmax of each block (a batch that meets a value that is not finite goes to the scalar target)
//   2. for all blocks at once: each candidate's e4m3 byte, scale and reciprocal
//   3. errors of each candidate and sign: codes by the bucket method, squares summed by the tree, one
//      vector of sums per kLanes (block, sign) pairs
//   4. for all blocks at once: the candidate with the least error, in written order
//   5. codes under the scale that won, packed and put in place
//
// The arithmetic is that of scalar_codec.cpp, operation by operation.
//
// Thread class: pure; about 12 KiB of stack. Cost: quire-bench's codec rows.
#include "kernels/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd_encode.cpp"
#include "hwy/foreach_target.h"  // re-includes this file per target
//
#include <cfloat>
#include <cstring>

#include "kernels/scalar_rows.h"
#include "kernels/simd_common-inl.h"
#include "kernels/units.h"

HWY_BEFORE_NAMESPACE();
namespace quire::kernels {
namespace HWY_NAMESPACE {
#if QUIRE_SIMD_TARGET
namespace {

constexpr size_t kBatch = 64;
constexpr uint32_t kMaxRow = 1024;

// What lookups need of a codebook, in registers.
struct Book {
  const Codebook &from;
#if HWY_TARGET == HWY_AVX3
  __m512 threshold_lo, threshold_hi, values;
  __m512i base_lo, base_hi;
  explicit Book(const Codebook &b) : from(b) {
    threshold_lo = _mm512_loadu_ps(b.threshold);
    threshold_hi = _mm512_loadu_ps(b.threshold + 16);
    base_lo = _mm512_loadu_si512(b.base);
    base_hi = _mm512_loadu_si512(b.base + 16);
    values = _mm512_loadu_ps(b.values);
  }
#else
  explicit Book(const Codebook &b) : from(b) {}
#endif
};

using VU = hn::Vec<Ints>;

// Codes of z, in 32-bit lanes.
HWY_INLINE VU codes_of(const Book &book, V z) {
  const Floats d;
  const Ints du;
  if (HWY_LIKELY(book.from.bucketed != 0)) {
#if HWY_TARGET == HWY_AVX3
    const __m512 c =
        _mm512_range_ps(z.raw, _mm512_set1_ps(1.0f), 0x2);  // the smaller magnitude, z's sign
    const __m512i bucket = _mm512_castps_si512(
        _mm512_fmadd_ps(c, _mm512_set1_ps(kBucketsAUnit), _mm512_set1_ps(kBucketOffset)));
    const __m512 t = _mm512_permutex2var_ps(book.threshold_lo, bucket, book.threshold_hi);
    const __m512i base = _mm512_permutex2var_epi32(book.base_lo, bucket, book.base_hi);
    const __mmask16 above = _mm512_cmp_ps_mask(c, t, _CMP_GT_OQ);
    return VU{_mm512_mask_add_epi32(base, above, base, _mm512_set1_epi32(1))};
#else
    const hn::RebindToSigned<Floats> di;
    const V c = hn::Max(hn::Min(z, hn::Set(d, 1.0f)), hn::Set(d, -1.0f));
    const VU bits =
        hn::BitCast(du, hn::MulAdd(c, hn::Set(d, kBucketsAUnit), hn::Set(d, kBucketOffset)));
    const auto bucket = hn::BitCast(di, hn::And(bits, hn::Set(du, 31u)));
    const V t = hn::GatherIndex(d, book.from.threshold, bucket);
    const VU base = hn::GatherIndex(du, book.from.base, bucket);
    return hn::Sub(base, hn::VecFromMask(du, hn::RebindMask(du, hn::Gt(c, t))));
#endif
  }
  VU code = hn::Zero(du);
  for (uint32_t i = 0; i < 15; ++i) {
    const auto above = hn::Gt(z, hn::Set(d, book.from.midpoints[i]));
    code = hn::Sub(code, hn::VecFromMask(du, hn::RebindMask(du, above)));
  }
  return code;
}

HWY_INLINE V values_of(const Book &book, VU codes) {
#if HWY_TARGET == HWY_AVX3
  return V{_mm512_permutexvar_ps(codes.raw, book.values)};
#else
  const Floats d;
  const hn::RebindToSigned<Floats> di;
  return hn::GatherIndex(d, book.from.values, hn::BitCast(di, codes));
#endif
}

// Pass 1. False where a value is not finite.
HWY_INLINE bool absmax_each(const float *x, uint32_t block, size_t n, float *absmax) {
  const Floats d;
  const V limit = hn::Set(d, FLT_MAX);
  V worst = hn::Zero(d);
  auto finite = hn::Le(worst, limit);
  for (size_t b = 0; b < n; ++b) {
    V largest = hn::Zero(d);
    for (uint32_t i = 0; i < block; i += kLanes) {
      const V magnitude = hn::Abs(hn::LoadU(d, x + b * block + i));
      finite = hn::And(finite, hn::Le(magnitude, limit));  // false for NaN too
      largest = hn::Max(largest, magnitude);
    }
    absmax[b] = hn::GetLane(hn::MaxOfLanes(d, largest));
  }
  return hn::AllTrue(d, finite);
}

HWY_INLINE V reciprocal(V s) {
  const Floats d;
  const V r = hn::Min(hn::Div(hn::Set(d, 1.0f), s), hn::Set(d, FLT_MAX));
  return hn::IfThenElse(hn::Eq(s, hn::Zero(d)), hn::Set(d, 0x1p-120f), r);
}

struct Candidate {  // of one factor, for a batch
  alignas(64) uint32_t byte[kBatch];
  alignas(64) float scale[kBatch];
  alignas(64) float reciprocal[kBatch];
};

// Pass 2.
template <bool kUp>
HWY_INLINE void make_candidate(const float *absmax, float factor, int shift, size_t n,
                               Candidate *to) {
  const Floats d;
  const Ints du;
  const V to_e4m3 = hn::Set(d, power_of_two(-shift)), from_e4m3 = hn::Set(d, power_of_two(shift));
  for (size_t b = 0; b < n; b += kLanes) {
    const V wanted = hn::Mul(hn::Mul(hn::Load(d, absmax + b), hn::Set(d, factor)), to_e4m3);
    const VU byte = e4m3_of<kUp>(d, wanted);
    const V scale = hn::Mul(e4m3_value(d, byte), from_e4m3);
    hn::Store(byte, du, to->byte + b);
    hn::Store(scale, d, to->scale + b);
    hn::Store(reciprocal(scale), d, to->reciprocal + b);
  }
}

// The squares of a block's errors under both signs of a scale, folded to one vector each.
template <uint32_t kBlock>
HWY_INLINE void fold_errors(const Book &book, const float *x, float scale, float r, V *plus,
                            V *minus) {
  constexpr size_t kVectors = kBlock / kLanes;
  const Floats d;
  const V s = hn::Set(d, scale), inverse = hn::Set(d, r);
  V p[kVectors], m[kVectors];
  HWY_UNROLL(16)
  for (size_t i = 0; i < kVectors; ++i) {
    const V v = hn::LoadU(d, x + i * kLanes);
    const V z = hn::Mul(v, inverse);
    const V ep = hn::NegMulAdd(values_of(book, codes_of(book, z)), s, v);
    const V em = hn::MulAdd(values_of(book, codes_of(book, hn::Neg(z))), s, v);
    p[i] = hn::Mul(ep, ep);
    m[i] = hn::Mul(em, em);
  }
  HWY_UNROLL(4)
  for (size_t half = kVectors / 2; half > 0; half /= 2) {
    HWY_UNROLL(8)
    for (size_t i = 0; i < half; ++i) {
      p[i] = hn::Add(p[i], p[i + half]);
      m[i] = hn::Add(m[i], m[i + half]);
    }
  }
  *plus = p[0];
  *minus = m[0];
}

// Pass 3: sums[b] and sums[kBatch + b], errors of block b under the two signs.
template <uint32_t kBlock>
HWY_INLINE void sum_errors(const Book &book, const float *x, const Candidate &c, size_t n,
                           float *sums) {
  const Floats d;
  for (size_t b = 0; b < n; b += kLanes) {
    V plus[kLanes], minus[kLanes];
    for (size_t i = 0; i < kLanes; ++i) {
      plus[i] = minus[i] = hn::Zero(d);
      if (b + i >= n) continue;
      fold_errors<kBlock>(book, x + (b + i) * kBlock, c.scale[b + i], c.reciprocal[b + i], plus + i,
                          minus + i);
    }
    hn::Store(sum_each(plus), d, sums + b);
    hn::Store(sum_each(minus), d, sums + kBatch + b);
  }
}

// Passes 2 to 4: the byte and the signed reciprocal of each block.
template <uint32_t kBlock>
HWY_INLINE void choose_scales(const Book &book, const float *x, const float *absmax, size_t n,
                              int shift, bool search, uint32_t *bytes, float *reciprocals) {
  constexpr float kFactors[4] = {1.06f, 1.0f, 0.92f, 0.84f};
  const Floats d;
  const Ints du;
  const VU sign = hn::Set(du, 128u);
  alignas(64) float best[kBatch];
  alignas(64) float sums[2 * kBatch];
  Candidate c;
  const size_t first = search ? 0 : 1, last = search ? 4 : 2;
  for (size_t f = first; f < last; ++f) {
    make_candidate<false>(absmax, kFactors[f], shift, n, &c);
    sum_errors<kBlock>(book, x, c, n, sums);
    for (size_t b = 0; b < n; b += kLanes) {
      const V plus = hn::Load(d, sums + b), minus = hn::Load(d, sums + kBatch + b);
      const V r = hn::Load(d, c.reciprocal + b);
      const VU byte = hn::Load(du, c.byte + b);
      V least = plus, inverse = r;
      VU chosen = byte;
      if (f != first) {
        least = hn::Load(d, best + b);
        inverse = hn::Load(d, reciprocals + b);
        chosen = hn::Load(du, bytes + b);
        const auto better = hn::Lt(plus, least);
        least = hn::IfThenElse(better, plus, least);
        inverse = hn::IfThenElse(better, r, inverse);
        chosen = hn::IfThenElse(hn::RebindMask(du, better), byte, chosen);
      }
      const auto better = hn::Lt(minus, least);
      hn::Store(hn::IfThenElse(better, minus, least), d, best + b);
      hn::Store(hn::IfThenElse(better, hn::Neg(r), inverse), d, reciprocals + b);
      hn::Store(hn::IfThenElse(hn::RebindMask(du, better), hn::Or(byte, sign), chosen), du,
                bytes + b);
    }
  }
}

// Pass 5 of one row: codes, a byte each, in natural order.
HWY_INLINE void row_codes(const Book &book, const float *x, uint32_t block, uint32_t blocks,
                          const float *reciprocals, uint8_t *codes) {
  const Floats d;
  const hn::Rebind<uint8_t, Floats> d8;
  for (uint32_t b = 0; b < blocks; ++b) {
    const V r = hn::Set(d, reciprocals[b]);
    for (uint32_t i = b * block; i < (b + 1) * block; i += kLanes) {
      const VU code = codes_of(book, hn::Mul(hn::LoadU(d, x + i), r));
      hn::StoreU(hn::DemoteTo(d8, hn::BitCast(hn::RebindToSigned<Floats>(), code)), d8, codes + i);
    }
  }
}

HWY_INLINE void row_int8(const float *x, uint32_t block, uint32_t blocks, const float *reciprocals,
                         uint8_t *codes) {
  const Floats d;
  const hn::Rebind<int8_t, Floats> d8;
  const V most = hn::Set(d, 127.0f);
  for (uint32_t b = 0; b < blocks; ++b) {
    const V r = hn::Set(d, reciprocals[b]);
    for (uint32_t i = b * block; i < (b + 1) * block; i += kLanes) {
      const V z = hn::Mul(hn::Mul(hn::LoadU(d, x + i), r), hn::Set(d, 128.0f));
      const auto whole = hn::NearestInt(hn::Max(hn::Min(z, most), hn::Neg(most)));
      hn::StoreU(hn::DemoteTo(d8, whole), d8, reinterpret_cast<int8_t *>(codes + i));
    }
  }
}

// Two codes a byte, the even one high.
HWY_INLINE void pack_nibbles(const uint8_t *codes, uint32_t n, uint8_t *packed) {
  const hn::CappedTag<uint16_t, 8> d16;  // 16 codes a step: dims are multiples of 16 here
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const hn::Rebind<int16_t, decltype(d16)> di16;
  for (uint32_t i = 0; i < n; i += 16) {
    const auto pair = hn::LoadU(d16, reinterpret_cast<const uint16_t *>(codes + i));
    const auto byte = hn::And(hn::Or(hn::ShiftLeft<4>(pair), hn::ShiftRight<8>(pair)),
                              hn::Set(d16, uint16_t{255}));
    hn::StoreU(hn::DemoteTo(d8, hn::BitCast(di16, byte)), d8, packed + i / 2);
  }
}

HWY_INLINE void store_row(const quire_part_layout &part, const uint8_t *codes, uint8_t *row) {
  if (part.code_bits == 8) {
    to_stored(codes, part.blocks, part.unit, row);
  } else if (part.unit == 0) {
    pack_nibbles(codes, part.dim, row);
  } else {
    uint8_t packed[kMaxRow / 2];
    pack_nibbles(codes, part.dim, packed);
    to_stored(packed, part.blocks, part.unit / 2, row);
  }
}

HWY_INLINE void store_scales_f16(const float *absmax, size_t n, uint8_t *scales,
                                 float *reciprocals) {
  const Floats d;
  const hn::Rebind<hwy::float16_t, Floats> d16;
  alignas(64) hwy::float16_t halves[kBatch];
  for (size_t b = 0; b < n; b += kLanes) {
    const V largest = hn::Load(d, absmax + b);
    hn::Store(reciprocal(largest), d, reciprocals + b);
    hn::Store(hn::DemoteTo(d16, hn::Min(largest, hn::Set(d, 65504.0f))), d16, halves + b);
  }
  std::memcpy(scales, halves, n * sizeof(uint16_t));
}

// Blocks of `rows` whole rows, at most kBatch.
HWY_INLINE bool encode_batch(const quire_part_layout &part, const Book &book, const float *x,
                             size_t rows, int shift, bool search, uint8_t *codes, uint8_t *scales) {
  alignas(64) float absmax[kBatch] = {};
  alignas(64) float reciprocals[kBatch];
  alignas(64) uint32_t bytes[kBatch];
  const size_t n = rows * part.blocks;
  if (!absmax_each(x, part.block, n, absmax)) return false;
  if (part.codec.scale == QUIRE_SCALE_F16) {
    store_scales_f16(absmax, n, scales, reciprocals);
  } else {
    if (part.code_bits == 8) {
      Candidate c;
      make_candidate<true>(absmax, 128.0f / 127.0f, shift, n, &c);
      std::memcpy(bytes, c.byte, sizeof bytes);
      std::memcpy(reciprocals, c.reciprocal, sizeof reciprocals);
    } else if (part.block == 16) {
      choose_scales<16>(book, x, absmax, n, shift, search, bytes, reciprocals);
    } else if (part.block == 32) {
      choose_scales<32>(book, x, absmax, n, shift, search, bytes, reciprocals);
    } else {
      choose_scales<64>(book, x, absmax, n, shift, search, bytes, reciprocals);
    }
    for (size_t b = 0; b < n; ++b) scales[b] = static_cast<uint8_t>(bytes[b]);
  }
  alignas(64) uint8_t row_bytes[kMaxRow];
  for (size_t r = 0; r < rows; ++r) {
    const float *row = x + r * part.dim;
    const float *inverse = reciprocals + r * part.blocks;
    if (part.code_bits == 8) {
      row_int8(row, part.block, part.blocks, inverse, row_bytes);
    } else {
      row_codes(book, row, part.block, part.blocks, inverse, row_bytes);
    }
    store_row(part, row_bytes, codes + r * part.row_bytes);
  }
  return true;
}

void encode(const quire_part_layout &part, const Codebook &codebook, const float *rows, size_t n,
            uint32_t exponent, bool search, uint8_t *codes, uint8_t *scales) {
  if (part.block < 16) {
    scalar::encode(part, codebook, rows, n, exponent, search, codes, scales);
    return;
  }
  const Book book(codebook);
  const int shift = static_cast<int>(exponent) - QUIRE_EXPONENT_BIAS - 8;
  const size_t step = kBatch / part.blocks;  // at least 1: dims end at 1024
  for (size_t at = 0; at < n; at += step) {
    const size_t m = n - at < step ? n - at : step;
    const float *x = rows + at * part.dim;
    uint8_t *to = codes + at * part.row_bytes;
    uint8_t *s = scales + at * part.blocks * part.scale_bytes;
    if (!encode_batch(part, book, x, m, shift, search, to, s)) {
      scalar::encode(part, codebook, x, m, exponent, search, to, s);
    }
  }
}

void codes(const Codebook &codebook, const float *z, size_t n, uint8_t *to) {
  const Book book(codebook);
  const Floats d;
  const hn::Rebind<uint8_t, Floats> d8;
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V x = hn::LoadU(d, z + i);
    const VU code = codes_of(book, hn::IfThenElseZero(hn::Eq(x, x), x));
    hn::StoreU(hn::DemoteTo(d8, hn::BitCast(hn::RebindToSigned<Floats>(), code)), d8, to + i);
  }
  scalar::codes(codebook, z + i, n - i, to + i);
}

}  // namespace

void fill_encode(RowKernels *t) {
  t->encode = encode;
  t->codes = codes;
}

#endif  // QUIRE_SIMD_TARGET
}  // namespace HWY_NAMESPACE
}  // namespace quire::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quire::kernels {
#define QUIRE_SIMD_EXPORT simd_fill_encode
#define QUIRE_SIMD_FILL fill_encode
#include "kernels/simd_export-inl.h"
}  // namespace quire::kernels
#endif
