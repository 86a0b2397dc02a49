// SIMD decode: codes and scales -> halves in natural order.
//
// A block's table of sixteen halves is made already scaled, RN16(RN32(value * s)); then a value is
// one lookup: with AVX-512 a word permutation of 32 values at once, elsewhere two byte shuffles
// (the low and the high bytes of the halves). Bit-identical to multiplying each value and rounding
// it.
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

// What lookups need, in registers: the codebook, and byte shuffles after which both words of 32
// bits hold one byte of codes, four times.
struct Book {
  __m512 values;
  __m512i consecutive;  // bytes 4 l ... 4 l + 3 in 128-bit lane l
  __m512i unit[4];      // bytes 4 b ... 4 b + 3 of every lane

  explicit Book(const Codebook &b) : values(_mm512_loadu_ps(b.values)) {
    const __m128i four = _mm_set_epi32(0x03030303, 0x02020202, 0x01010101, 0);
    for (int i = 0; i < 4; ++i) {
      unit[i] =
          _mm512_add_epi8(_mm512_broadcast_i32x4(four), _mm512_set1_epi8(static_cast<char>(4 * i)));
    }
    consecutive = _mm512_setr_epi32(0, 0x01010101, 0x02020202, 0x03030303, 0x04040404, 0x05050505,
                                    0x06060606, 0x07070707, 0x08080808, 0x09090909, 0x0a0a0a0a,
                                    0x0b0b0b0b, 0x0c0c0c0c, 0x0d0d0d0d, 0x0e0e0e0e, 0x0f0f0f0f);
  }
};

// A block's sixteen halves, twice: an index has five bits, and the fifth, which an odd value's
// index shares with its even neighbour, must not count.
HWY_INLINE __m512i make_table(const Book &book, float scale) {
  const __m512 scaled = _mm512_mul_ps(book.values, _mm512_set1_ps(scale));
  return _mm512_broadcast_i64x4(_mm512_cvtps_ph(scaled, _MM_FROUND_TO_NEAREST_INT));
}

// 32 values from their spread bytes: the even one's nibble is shifted down.
HWY_INLINE void look_up(__m512i wide, __m512i table, uint16_t *to) {
  const __m512i index = _mm512_srlv_epi16(wide, _mm512_set1_epi32(4));
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(index, table));
}

// One block of 16, 32 or 64 values from kBlock / 2 bytes.
template <uint32_t kBlock>
HWY_INLINE void decode_block(const Book &book, const uint8_t *codes, float scale, uint16_t *to) {
  const __m512i table = make_table(book, scale);
  const __m512i spread = book.consecutive;
  if (kBlock == 16) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(codes));
    const __m256i wide =
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), _mm512_castsi512_si256(spread));
    const __m256i index = _mm256_srlv_epi16(wide, _mm256_set1_epi32(4));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to),
                        _mm256_permutexvar_epi16(index, _mm512_castsi512_si256(table)));
    return;
  }
  HWY_UNROLL(2)
  for (uint32_t i = 0; i < kBlock; i += 32) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(codes + i / 2));
    look_up(_mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), spread), table, to + i);
  }
}

// Stored K rows of blocks of 32: unit t of a block is in lane t already, no order to undo. True
// where the row was decoded: head dims 64 and multiples of 128.
HWY_INLINE bool decode_stored_row(const Book &book, const uint8_t *row, uint32_t blocks,
                                  const float *scale, uint16_t *to) {
  if (blocks == 2) {
    const __m512i both =
        _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(row)));
    const __m512i lanes = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), both);
    look_up(_mm512_shuffle_epi8(lanes, book.unit[0]), make_table(book, scale[0]), to);
    look_up(_mm512_shuffle_epi8(lanes, book.unit[1]), make_table(book, scale[1]), to + 32);
    return true;
  }
  if (blocks % 4 != 0) return false;
  for (uint32_t b = 0; b < blocks; b += 4) {
    const uint8_t *at = row + b * 4;
    __m512i lanes;
    if (blocks == 4) {
      lanes = _mm512_loadu_si512(at);
    } else {
      const auto unit = [&](uint32_t t) HWY_ATTR {
        return _mm_loadu_si128(reinterpret_cast<const __m128i *>(at + t * blocks * 4));
      };
      lanes = _mm512_castsi128_si512(unit(0));
      lanes = _mm512_inserti32x4(lanes, unit(1), 1);
      lanes = _mm512_inserti32x4(lanes, unit(2), 2);
      lanes = _mm512_inserti32x4(lanes, unit(3), 3);
    }
    look_up(_mm512_shuffle_epi8(lanes, book.unit[0]), make_table(book, scale[b]), to + b * 32);
    look_up(_mm512_shuffle_epi8(lanes, book.unit[1]), make_table(book, scale[b + 1]),
            to + b * 32 + 32);
    look_up(_mm512_shuffle_epi8(lanes, book.unit[2]), make_table(book, scale[b + 2]),
            to + b * 32 + 64);
    look_up(_mm512_shuffle_epi8(lanes, book.unit[3]), make_table(book, scale[b + 3]),
            to + b * 32 + 96);
  }
  return true;
}

#else

using Bytes = hn::FixedTag<uint8_t, 16>;
using VB = hn::Vec<Bytes>;

struct Book {
  const float *values;
  explicit Book(const Codebook &b) : values(b.values) {}
};

// A block's sixteen halves, as their low and their high bytes.
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

template <uint32_t kBlock>
HWY_INLINE void decode_block(const Book &book, const uint8_t *codes, float scale, uint16_t *to) {
  const Bytes d8;
  const hn::Repartition<uint16_t, Bytes> d16;
  const VB nibble = hn::Set(d8, uint8_t{15});
  VB low, high;
  make_planes(book, scale, &low, &high);
  for (uint32_t i = 0; i < kBlock; i += 32) {
    VB bytes;
    if (kBlock == 16) {
      const hn::FixedTag<uint8_t, 8> half;
      bytes = hn::ZeroExtendVector(d8, hn::LoadU(half, codes));
    } else {
      bytes = hn::LoadU(d8, codes + i / 2);
    }
    const VB even = hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, bytes))), nibble);
    const VB odd = hn::And(bytes, nibble);
    look_up(hn::InterleaveLower(d8, even, odd), low, high, to + i);
    if (kBlock > 16) look_up(hn::InterleaveUpper(d8, even, odd), low, high, to + i + 16);
  }
}

#endif

#if HWY_TARGET == HWY_AVX2

HWY_INLINE void store_halves(__m256i x, uint16_t *low, uint16_t *high) {
  _mm_storeu_si128(reinterpret_cast<__m128i *>(low), _mm256_castsi256_si128(x));
  _mm_storeu_si128(reinterpret_cast<__m128i *>(high), _mm256_extracti128_si256(x, 1));
}

// Two blocks side by side, each in a half of the registers; or, for blocks of 64, two halves of
// one.
template <uint32_t kBlock>
HWY_INLINE void decode_pair(const Book &book, const uint8_t *codes, float scale_a, float scale_b,
                            uint16_t *to) {
  const __m256 first = _mm256_loadu_ps(book.values), second = _mm256_loadu_ps(book.values + 8);
  const auto halves_of = [&](__m256 values, float scale) HWY_ATTR {
    return _mm256_cvtps_ph(_mm256_mul_ps(values, _mm256_set1_ps(scale)), _MM_FROUND_TO_NEAREST_INT);
  };
  __m256i x, y;  // entries 0 to 7 and 8 to 15 of both blocks' tables
  if (kBlock == 64) {
    x = _mm256_broadcastsi128_si256(halves_of(first, scale_a));
    y = _mm256_broadcastsi128_si256(halves_of(second, scale_a));
  } else {
    x = _mm256_set_m128i(halves_of(first, scale_b), halves_of(first, scale_a));
    y = _mm256_set_m128i(halves_of(second, scale_b), halves_of(second, scale_a));
  }
  const __m256i byte = _mm256_set1_epi16(255), nibble = _mm256_set1_epi8(15);
  const __m256i low = _mm256_packus_epi16(_mm256_and_si256(x, byte), _mm256_and_si256(y, byte));
  const __m256i high = _mm256_packus_epi16(_mm256_srli_epi16(x, 8), _mm256_srli_epi16(y, 8));
  __m256i bytes;
  if (kBlock == 16) {
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i *>(codes));
    bytes = _mm256_permute4x64_epi64(_mm256_castsi128_si256(both), 0x10);
  } else {
    // Two loads: the codes may just have been stored by sixteen bytes.
    const auto *at = reinterpret_cast<const __m128i *>(codes);
    bytes = _mm256_set_m128i(_mm_loadu_si128(at + 1), _mm_loadu_si128(at));
  }
  const __m256i even = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
  const __m256i odd = _mm256_and_si256(bytes, nibble);
  constexpr uint32_t kHalf = kBlock == 16 ? 16 : 32;  // values a half of the registers
  const auto sixteen = [&](__m256i index, uint16_t *at) HWY_ATTR {
    const __m256i l = _mm256_shuffle_epi8(low, index), h = _mm256_shuffle_epi8(high, index);
    store_halves(_mm256_unpacklo_epi8(l, h), at, at + kHalf);
    store_halves(_mm256_unpackhi_epi8(l, h), at + 8, at + kHalf + 8);
  };
  sixteen(_mm256_unpacklo_epi8(even, odd), to);
  if (kBlock > 16) sixteen(_mm256_unpackhi_epi8(even, odd), to + 16);
}

#endif

// Blocks that follow each other.
template <uint32_t kBlock>
HWY_INLINE void decode_blocks(const Book &book, const uint8_t *codes, size_t n, const float *scale,
                              uint16_t *to) {
  size_t b = 0;
#if HWY_TARGET == HWY_AVX2
  constexpr size_t kAtOnce = kBlock == 64 ? 1 : 2;
  for (; b + kAtOnce <= n; b += kAtOnce) {
    decode_pair<kBlock>(book, codes, scale[b], scale[b + kAtOnce - 1], to);
    codes += kAtOnce * kBlock / 2;
    to += kAtOnce * kBlock;
  }
#else
  for (; b + 4 <= n; b += 4) {
    HWY_UNROLL(4)
    for (size_t i = 0; i < 4; ++i) {
      decode_block<kBlock>(book, codes + i * kBlock / 2, scale[b + i], to + i * kBlock);
    }
    codes += 4 * kBlock / 2;
    to += 4 * kBlock;
  }
#endif
  for (; b < n; ++b) {
    decode_block<kBlock>(book, codes, scale[b], to);
    codes += kBlock / 2;
    to += kBlock;
  }
}

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
  const hn::FixedTag<uint32_t, 4> d;
  const uint32_t blocks = part.blocks, unit_bytes = part.unit * part.code_bits / 8;
  auto *to = reinterpret_cast<uint32_t *>(room);
  const auto *from = reinterpret_cast<const uint32_t *>(row);
  if (unit_bytes == 4 && blocks == 2) {
    const auto a = hn::LoadU(d, from), b = hn::LoadU(d, from + 4);
    hn::Store(hn::ConcatEven(d, b, a), d, to);
    hn::Store(hn::ConcatOdd(d, b, a), d, to + 4);
  } else if (unit_bytes == 4 && blocks % 4 == 0) {  // transpositions of 4 x 4 words
    for (uint32_t b = 0; b < blocks; b += 4) {
      const auto u0 = hn::LoadU(d, from + b), u1 = hn::LoadU(d, from + blocks + b);
      const auto u2 = hn::LoadU(d, from + 2 * blocks + b), u3 = hn::LoadU(d, from + 3 * blocks + b);
      const auto x0 = hn::InterleaveLower(d, u0, u2), x1 = hn::InterleaveLower(d, u1, u3);
      const auto y0 = hn::InterleaveUpper(d, u0, u2), y1 = hn::InterleaveUpper(d, u1, u3);
      hn::Store(hn::InterleaveLower(d, x0, x1), d, to + b * 4);
      hn::Store(hn::InterleaveUpper(d, x0, x1), d, to + b * 4 + 4);
      hn::Store(hn::InterleaveLower(d, y0, y1), d, to + b * 4 + 8);
      hn::Store(hn::InterleaveUpper(d, y0, y1), d, to + b * 4 + 12);
    }
  } else {
    to_natural(row, blocks, unit_bytes, room);
  }
  return room;
}

template <uint32_t kBlock>
HWY_NOINLINE void decode_rows(const quire_part_layout &part, const Codebook &codebook,
                              const uint8_t *codes, const uint8_t *scales, size_t n, int shift,
                              uint16_t *halves) {
  const Book book(codebook);
  const size_t step = kBatch / part.blocks;
  alignas(64) float scale[kBatch];
  alignas(64) uint8_t room[kMaxRow];
  for (size_t at = 0; at < n; at += step) {
    const size_t m = n - at < step ? n - at : step;
    widen_scales(part, scales + at * part.blocks * part.scale_bytes, m * part.blocks, shift, scale);
    const uint8_t *from = codes + at * part.row_bytes;
    uint16_t *to = halves + at * part.dim;
    if (part.unit == 0) {  // rows are dense: one run of blocks
      decode_blocks<kBlock>(book, from, m * part.blocks, scale, to);
      continue;
    }
    const float *s = scale;
    for (size_t r = 0; r < m; ++r, from += part.row_bytes, to += part.dim, s += part.blocks) {
#if HWY_TARGET == HWY_AVX3
      if (kBlock == 32 && part.code_bits == 4 &&
          decode_stored_row(book, from, part.blocks, s, to)) {
        continue;
      }
#endif
      const uint8_t *row = natural_row(part, from, room);
      if (part.code_bits == 8) {
        for (uint32_t b = 0; b < part.blocks; ++b) {
          decode_int8(row + b * kBlock, kBlock, s[b], to + b * kBlock);
        }
      } else {
        decode_blocks<kBlock>(book, row, part.blocks, s, to);
      }
    }
  }
}

void decode(const quire_part_layout &part, const Codebook &book, const uint8_t *codes,
            const uint8_t *scales, size_t n, uint32_t exponent, uint16_t *halves) {
  const int shift = static_cast<int>(exponent) - QUIRE_EXPONENT_BIAS - 8;
  switch (part.block) {
    case 16:
      decode_rows<16>(part, book, codes, scales, n, shift, halves);
      break;
    case 32:
      decode_rows<32>(part, book, codes, scales, n, shift, halves);
      break;
    case 64:
      decode_rows<64>(part, book, codes, scales, n, shift, halves);
      break;
    default:
      scalar::decode(part, book, codes, scales, n, exponent, halves);
      break;
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
