// SIMD decode: codes and scales -> halves in natural order.
//
// A block's table of sixteen halves is made already scaled, RN16(RN32(value * s)); then a value is one
// lookup: with AVX-512 a word permutation of 32 values at once, elsewhere two byte shuffles (the low
// and the high bytes of the halves). Bit-identical to multiplying each value and rounding it.
//
// Thread class: pure; about 3 KiB of stack. Cost: quire-bench's codec rows.
#include "kernels/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd_decode.cpp"
#include "hwy/foreach_target.h"  // re-includes this file per target
//
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

// Scales of n <= kBatch blocks in fp32.
HWY_INLINE void widen_scales(const quire_part_layout &part, const uint8_t *stored, size_t n,
                             int shift, float *scales) {
  const Floats d;
  if (part.codec.scale == QUIRE_SCALE_F16) {
    scalar::widen(DType::kF16, stored, scales, n);
    return;
  }
  uint8_t bytes[kBatch] = {};
  std::memcpy(bytes, stored, n);
  const hn::Rebind<uint8_t, Floats> d8;
  const Ints du;
  const V unit = hn::Set(d, power_of_two(shift));
  for (size_t b = 0; b < n; b += kLanes) {
    const auto byte = hn::PromoteTo(du, hn::LoadU(d8, bytes + b));
    hn::Store(hn::Mul(e4m3_value(d, byte), unit), d, scales + b);
  }
}

#if HWY_TARGET == HWY_AVX3

struct Book {
  __m512 values;
  explicit Book(const Codebook &b) : values(_mm512_loadu_ps(b.values)) {}
};

// One block of 16, 32 or 64 values from block / 2 bytes.
HWY_INLINE void decode_block(const Book &book, const uint8_t *codes, uint32_t block, float scale,
                             uint16_t *to) {
  const __m256i table16 =
      _mm512_cvtps_ph(_mm512_mul_ps(book.values, _mm512_set1_ps(scale)), _MM_FROUND_TO_NEAREST_INT);
  // The table twice, so that bit 4 of an index, which holds a bit of the neighbour, does not count.
  const __m512i table = _mm512_broadcast_i64x4(table16);
  if (block == 16) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(codes));
    const __m256i wide = _mm256_cvtepu8_epi32(bytes);
    const __m256i index = _mm256_or_si256(_mm256_srli_epi32(wide, 4), _mm256_slli_epi32(wide, 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), _mm256_permutexvar_epi16(index, table16));
    return;
  }
  for (uint32_t i = 0; i < block; i += 32) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(codes + i / 2));
    const __m512i wide = _mm512_cvtepu8_epi32(bytes);
    const __m512i index = _mm512_or_si512(_mm512_srli_epi32(wide, 4), _mm512_slli_epi32(wide, 16));
    _mm512_storeu_si512(to + i, _mm512_permutexvar_epi16(index, table));
  }
}

#else

using Bytes = hn::FixedTag<uint8_t, 16>;
using VB = hn::Vec<Bytes>;

struct Book {
  const float *values;
  explicit Book(const Codebook &b) : values(b.values) {}
};

HWY_INLINE void make_planes(const Book &book, float scale, VB *low, VB *high) {
  const Bytes d8;
  const Floats d;
  const hn::Rebind<hwy::float16_t, Floats> d16;
  const V s = hn::Set(d, scale);
  alignas(32) hwy::float16_t halves[16];
  for (size_t i = 0; i < 16; i += kLanes) {
    hn::Store(hn::DemoteTo(d16, hn::Mul(hn::LoadU(d, book.values + i), s)), d16, halves + i);
  }
  const auto *bytes = reinterpret_cast<const uint8_t *>(halves);
  const VB first = hn::Load(d8, bytes), second = hn::Load(d8, bytes + 16);
  *low = hn::ConcatEven(d8, second, first);
  *high = hn::ConcatOdd(d8, second, first);
}

HWY_INLINE void look_up(VB index, VB low, VB high, uint16_t *to) {
  const Bytes d8;
  const VB l = hn::TableLookupBytes(low, index), h = hn::TableLookupBytes(high, index);
  auto *bytes = reinterpret_cast<uint8_t *>(to);
  hn::StoreU(hn::InterleaveLower(d8, l, h), d8, bytes);
  hn::StoreU(hn::InterleaveUpper(d8, l, h), d8, bytes + 16);
}

HWY_INLINE void decode_block(const Book &book, const uint8_t *codes, uint32_t block, float scale,
                             uint16_t *to) {
  const Bytes d8;
  const hn::Repartition<uint16_t, Bytes> d16;
  const VB nibble = hn::Set(d8, uint8_t{15});
  VB low, high;
  make_planes(book, scale, &low, &high);
  alignas(16) uint8_t padded[16] = {};
  if (block == 16) {
    std::memcpy(padded, codes, 8);
    codes = padded;
  }
  for (uint32_t i = 0; i < block; i += 32) {
    const VB bytes = hn::LoadU(d8, codes + i / 2);
    const VB even = hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, bytes))), nibble);
    const VB odd = hn::And(bytes, nibble);
    look_up(hn::InterleaveLower(d8, even, odd), low, high, to + i);
    if (block == 16) return;
    look_up(hn::InterleaveUpper(d8, even, odd), low, high, to + i + 16);
  }
}

#endif

HWY_INLINE void decode_int8(const uint8_t *codes, uint32_t block, float scale, uint16_t *to) {
  const Floats d;
  const hn::RebindToSigned<Floats> di;
  const hn::Rebind<int8_t, Floats> d8;
  const hn::Rebind<hwy::float16_t, Floats> d16;
  const V s = hn::Set(d, scale), unit = hn::Set(d, 1.0f / 128);
  for (uint32_t i = 0; i < block; i += kLanes) {
    const auto whole =
        hn::PromoteTo(di, hn::LoadU(d8, reinterpret_cast<const int8_t *>(codes + i)));
    const V value = hn::Mul(hn::Mul(hn::ConvertTo(d, whole), unit), s);
    hn::StoreU(hn::DemoteTo(d16, value), d16, reinterpret_cast<hwy::float16_t *>(to + i));
  }
}

// The codes of a stored K row in natural order.
HWY_INLINE const uint8_t *natural_row(const quire_part_layout &part, const uint8_t *row,
                                      uint8_t *room) {
  if (part.unit == 0) return row;
#if HWY_TARGET == HWY_AVX3
  if (part.blocks == 4 && part.unit == 8 &&
      part.code_bits == 4) {  // a 4 x 4 transposition of words
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_store_si512(room, _mm512_permutexvar_epi32(order, _mm512_loadu_si512(row)));
    return room;
  }
#endif
  to_natural(row, part.blocks, part.unit * part.code_bits / 8, room);
  return room;
}

void decode(const quire_part_layout &part, const Codebook &codebook, const uint8_t *codes,
            const uint8_t *scales, size_t n, uint32_t exponent, uint16_t *halves) {
  if (part.block < 16) {
    scalar::decode(part, codebook, codes, scales, n, exponent, halves);
    return;
  }
  const Book book(codebook);
  const int shift = static_cast<int>(exponent) - QUIRE_EXPONENT_BIAS - 8;
  const size_t step = kBatch / part.blocks;
  const uint32_t block_bytes = part.block * part.code_bits / 8;
  alignas(64) float scale[kBatch];
  alignas(64) uint8_t room[kMaxRow];
  for (size_t at = 0; at < n; at += step) {
    const size_t m = n - at < step ? n - at : step;
    widen_scales(part, scales + at * part.blocks * part.scale_bytes, m * part.blocks, shift, scale);
    for (size_t r = 0; r < m; ++r) {
      const uint8_t *row = natural_row(part, codes + (at + r) * part.row_bytes, room);
      uint16_t *to = halves + (at + r) * part.dim;
      for (uint32_t b = 0; b < part.blocks; ++b) {
        const float s = scale[r * part.blocks + b];
        if (part.code_bits == 8) {
          decode_int8(row + b * block_bytes, part.block, s, to + b * part.block);
        } else {
          decode_block(book, row + b * block_bytes, part.block, s, to + b * part.block);
        }
      }
    }
  }
}

}  // namespace

void fill_decode(RowKernels *t) {
  t->decode = decode;
}

#endif  // QUIRE_SIMD_TARGET
}  // namespace HWY_NAMESPACE
}  // namespace quire::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quire::kernels {
#define QUIRE_SIMD_EXPORT simd_fill_decode
#define QUIRE_SIMD_FILL fill_decode
#include "kernels/simd_export-inl.h"
}  // namespace quire::kernels
#endif
