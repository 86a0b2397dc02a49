// SIMD encode: rows -> codes and scales, a batch of up to 64 blocks at a time, in passes that keep
// vectors full:
//   1. absmax of each block (a batch that meets a value that is not finite goes to the scalar
//      target)
//   2. for all blocks at once: each candidate's e4m3 byte, scale and reciprocal
//   3. errors of each candidate and sign: codes by the bucket method, squares summed by the tree,
//      one vector of sums per kLanes (block, sign) pairs
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
#include "kernels/simd_codebook-inl.h"
#include "kernels/units.h"

HWY_BEFORE_NAMESPACE();
namespace quire::kernels {
namespace HWY_NAMESPACE {
#if QUIRE_SIMD_TARGET
namespace {

constexpr size_t kBatch = 64;
constexpr uint32_t kMaxRow = 1024;

// Pass 1. False where a value is not finite. absmax is padded to whole vectors.
template <uint32_t kBlock>
HWY_INLINE bool absmax_each(const float *x, size_t n, float *absmax) {
  const Floats d;
  const Ints du;
  const hn::RebindToSigned<Floats> di;
  V worst = hn::Zero(d);
  for (size_t first = 0; first < n; first += kLanes) {
    alignas(64) float folded[kLanes * kLanes];
    const size_t m = n - first < kLanes ? n - first : kLanes;
    for (size_t b = 0; b < m; ++b) {
      const float *block = x + (first + b) * kBlock;
      V largest = hn::Abs(hn::LoadU(d, block));
      HWY_UNROLL(16)
      for (uint32_t i = kLanes; i < kBlock; i += kLanes) {
        largest = MaxBits::of(largest, hn::Abs(hn::LoadU(d, block + i)));
      }
      hn::Store(largest, d, folded + b * kLanes);
    }
    for (size_t b = m; b < kLanes; ++b) hn::Store(hn::Zero(d), d, folded + b * kLanes);
    const V each = fold_each<MaxBits>(folded);
    worst = MaxBits::of(worst, each);
    hn::Store(each, d, absmax + first);
  }
  const auto bits = hn::BitCast(di, hn::BitCast(du, worst));
  return hn::AllTrue(di, hn::Lt(bits, hn::Set(di, 0x7f800000)));
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
template <uint32_t kBlock, class Book>
HWY_INLINE void fold_errors(const Book &book, const float *x, float scale, float r, float *plus,
                            float *minus) {
  constexpr size_t kVectors = kBlock / kLanes;
  const Floats d;
  const V s = hn::Set(d, scale), inverse = hn::Set(d, r);
  V p[kVectors], m[kVectors];
  HWY_UNROLL(16)
  for (size_t i = 0; i < kVectors; ++i) {
    const V v = hn::LoadU(d, x + i * kLanes);
    const V z = hn::Mul(v, inverse);
    const V ep = hn::NegMulAdd(book.values(book.codes(z)), s, v);
    const V em = hn::MulAdd(book.values(book.negated_codes(z)), s, v);
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
  hn::Store(p[0], d, plus);
  hn::Store(m[0], d, minus);
}

// Pass 3: sums[b] and sums[kBatch + b], errors of block b under the two signs.
template <uint32_t kBlock, class Book>
HWY_INLINE void sum_errors(const Book &book, const float *x, const Candidate &c, size_t n,
                           float *sums) {
  const Floats d;
  alignas(64) float plus[kLanes * kLanes], minus[kLanes * kLanes];
  for (size_t first = 0; first < n; first += kLanes) {
    const size_t m = n - first < kLanes ? n - first : kLanes;
    for (size_t b = 0; b < m; ++b) {
      fold_errors<kBlock>(book, x + (first + b) * kBlock, c.scale[first + b],
                          c.reciprocal[first + b], plus + b * kLanes, minus + b * kLanes);
    }
    for (size_t i = m * kLanes; i < kLanes * kLanes; ++i) plus[i] = minus[i] = 0;
    hn::Store(fold_each<AddOf>(plus), d, sums + first);
    hn::Store(fold_each<AddOf>(minus), d, sums + kBatch + first);
  }
}

// Passes 2 to 4: the byte and the signed reciprocal of each block.
template <uint32_t kBlock, class Book>
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

// The codes of kBlock values, two a byte, the even one high: kBlock / 2 bytes.
#if HWY_TARGET == HWY_AVX3
template <uint32_t kBlock, class Book>
HWY_INLINE void block_codes(const Book &book, const float *x, float reciprocal, uint8_t *packed) {
  const Floats d;
  const V r = hn::Set(d, reciprocal);
  const __m512i weights = _mm512_set1_epi32(0x00010010);  // even word * 16 + odd word
  // Bytes come out as pairs in the order of 128-bit lanes: vector 0, vector 1, vector 0 ...
  const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  HWY_UNROLL(2)
  for (uint32_t i = 0; i < kBlock; i += 32) {
    const __m512i a = book.codes(hn::Mul(hn::LoadU(d, x + i), r)).raw;
    __m512i b = a;
    if (kBlock > 16) b = book.codes(hn::Mul(hn::LoadU(d, x + i + 16), r)).raw;
    const __m512i pairs = _mm512_madd_epi16(_mm512_packus_epi32(a, b), weights);
    const __m128i bytes = _mm_shuffle_epi8(_mm512_cvtepi32_epi8(pairs), order);
    if (kBlock > 16) {
      _mm_storeu_si128(reinterpret_cast<__m128i *>(packed + i / 2), bytes);
    } else {
      _mm_storel_epi64(reinterpret_cast<__m128i *>(packed), bytes);
    }
  }
}
#elif HWY_TARGET == HWY_AVX2
template <uint32_t kBlock, class Book>
HWY_INLINE void block_codes(const Book &book, const float *x, float reciprocal, uint8_t *packed) {
  const Floats d;
  const V r = hn::Set(d, reciprocal);
  const __m256i weights = _mm256_set1_epi32(0x00010010);  // even word * 16 + odd word
  HWY_UNROLL(4)
  for (uint32_t i = 0; i < kBlock; i += 16) {
    const __m256i a = book.codes(hn::Mul(hn::LoadU(d, x + i), r)).raw;
    const __m256i b = book.codes(hn::Mul(hn::LoadU(d, x + i + 8), r)).raw;
    const __m256i pairs = _mm256_madd_epi16(_mm256_packus_epi32(a, b), weights);
    // 128-bit halves hold {a, b} of values 0-3 and 4-7 of each, a byte in 32 bits.
    const __m128i low = _mm256_castsi256_si128(pairs), high = _mm256_extracti128_si256(pairs, 1);
    const __m128i words = _mm_packus_epi32(low, high);
    const __m128i order = _mm_setr_epi8(0, 2, 8, 10, 4, 6, 12, 14, -1, -1, -1, -1, -1, -1, -1, -1);
    _mm_storel_epi64(reinterpret_cast<__m128i *>(packed + i / 2), _mm_shuffle_epi8(words, order));
  }
}
#else
template <uint32_t kBlock, class Book>
HWY_INLINE void block_codes(const Book &book, const float *x, float reciprocal, uint8_t *packed) {
  const Floats d;
  const hn::Rebind<uint8_t, Floats> d8;
  const hn::RebindToSigned<Floats> di;
  const V r = hn::Set(d, reciprocal);
  uint8_t codes[kBlock];
  for (uint32_t i = 0; i < kBlock; i += kLanes) {
    const VU code = book.codes(hn::Mul(hn::LoadU(d, x + i), r));
    hn::StoreU(hn::DemoteTo(d8, hn::BitCast(di, code)), d8, codes + i);
  }
  for (uint32_t i = 0; i < kBlock; i += 2) {
    packed[i / 2] = static_cast<uint8_t>(codes[i] << 4 | codes[i + 1]);
  }
}
#endif

// Pass 5 of one row.
template <uint32_t kBlock, class Book>
HWY_INLINE void row_codes(const quire_part_layout &part, const Book &book, const float *x,
                          const float *reciprocals, uint8_t *row) {
  constexpr uint32_t kUnit = kBlock / 8;  // bytes of a quarter block
  for (uint32_t b = 0; b < part.blocks; ++b) {
    if (part.unit == 0) {
      block_codes<kBlock>(book, x + b * kBlock, reciprocals[b], row + b * kBlock / 2);
      continue;
    }
    alignas(16) uint8_t packed[kBlock / 2];
    block_codes<kBlock>(book, x + b * kBlock, reciprocals[b], packed);
    HWY_UNROLL(4)
    for (uint32_t t = 0; t < 4; ++t) {
      std::memcpy(row + (t * part.blocks + b) * kUnit, packed + t * kUnit, kUnit);
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

// Blocks of `rows` whole rows, at most kBatch. False where a value is not finite.
template <uint32_t kBlock, class Book>
HWY_INLINE bool encode_batch(const quire_part_layout &part, const Book &book, const float *x,
                             size_t rows, int shift, bool search, uint8_t *codes, uint8_t *scales) {
  alignas(64) float absmax[kBatch];
  alignas(64) float reciprocals[kBatch];
  alignas(64) uint32_t bytes[kBatch];
  const size_t n = rows * part.blocks;
  if (!absmax_each<kBlock>(x, n, absmax)) return false;
  if (part.codec.scale == QUIRE_SCALE_F16) {
    store_scales_f16(absmax, n, scales, reciprocals);
  } else {
    if (part.code_bits == 8) {
      Candidate c;
      make_candidate<true>(absmax, 128.0f / 127.0f, shift, n, &c);
      std::memcpy(bytes, c.byte, sizeof bytes);
      std::memcpy(reciprocals, c.reciprocal, sizeof reciprocals);
    } else {
      choose_scales<kBlock>(book, x, absmax, n, shift, search, bytes, reciprocals);
    }
    for (size_t b = 0; b < n; ++b) scales[b] = static_cast<uint8_t>(bytes[b]);
  }
  alignas(64) uint8_t natural[kMaxRow];
  for (size_t r = 0; r < rows; ++r) {
    const float *row = x + r * part.dim;
    const float *inverse = reciprocals + r * part.blocks;
    if (part.code_bits == 8) {
      row_int8(row, kBlock, part.blocks, inverse, natural);
      to_stored(natural, part.blocks, part.unit, codes + r * part.row_bytes);
    } else {
      row_codes<kBlock>(part, book, row, inverse, codes + r * part.row_bytes);
    }
  }
  return true;
}

template <uint32_t kBlock, class Book>
HWY_NOINLINE void encode_rows(const quire_part_layout &part, const Codebook &codebook,
                              const float *rows, size_t n, uint32_t exponent, bool search,
                              uint8_t *codes, uint8_t *scales) {
  const Book book(codebook);
  const int shift = static_cast<int>(exponent) - QUIRE_EXPONENT_BIAS - 8;
  const size_t step = kBatch / part.blocks;  // at least 1: dims end at 1024
  for (size_t at = 0; at < n; at += step) {
    const size_t m = n - at < step ? n - at : step;
    const float *x = rows + at * part.dim;
    uint8_t *to = codes + at * part.row_bytes;
    uint8_t *s = scales + at * part.blocks * part.scale_bytes;
    if (!encode_batch<kBlock>(part, book, x, m, shift, search, to, s)) {
      scalar::encode(part, codebook, x, m, exponent, search, to, s);
    }
  }
}

template <class Book>
void encode_with(const quire_part_layout &part, const Codebook &book, const float *rows, size_t n,
                 uint32_t exponent, bool search, uint8_t *codes, uint8_t *scales) {
  switch (part.block) {
    case 16:
      encode_rows<16, Book>(part, book, rows, n, exponent, search, codes, scales);
      break;
    case 32:
      encode_rows<32, Book>(part, book, rows, n, exponent, search, codes, scales);
      break;
    case 64:
      encode_rows<64, Book>(part, book, rows, n, exponent, search, codes, scales);
      break;
    default:
      scalar::encode(part, book, rows, n, exponent, search, codes, scales);
      break;
  }
}

void encode(const quire_part_layout &part, const Codebook &book, const float *rows, size_t n,
            uint32_t exponent, bool search, uint8_t *codes, uint8_t *scales) {
  if (book.bucketed != 0) {
    encode_with<BucketBook>(part, book, rows, n, exponent, search, codes, scales);
  } else {
    encode_with<MidpointBook>(part, book, rows, n, exponent, search, codes, scales);
  }
}

template <class Book>
void codes_with(const Codebook &codebook, const float *z, size_t n, uint8_t *to) {
  const Book book(codebook);
  const Floats d;
  const hn::Rebind<uint8_t, Floats> d8;
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V x = hn::LoadU(d, z + i);
    const VU code = book.codes(hn::IfThenElseZero(hn::Eq(x, x), x));
    hn::StoreU(hn::DemoteTo(d8, hn::BitCast(hn::RebindToSigned<Floats>(), code)), d8, to + i);
  }
  scalar::codes(codebook, z + i, n - i, to + i);
}

void codes(const Codebook &book, const float *z, size_t n, uint8_t *to) {
  if (book.bucketed != 0) {
    codes_with<BucketBook>(book, z, n, to);
  } else {
    codes_with<MidpointBook>(book, z, n, to);
  }
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
