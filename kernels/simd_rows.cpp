// SIMD rows: conversions, checksums, sums and differences, the Hadamard rotation, RoPE turns.
//
// Rotation: strides below a vector are a shuffle and an add of a value whose sign is flipped in the
// upper partners; the others are plain adds between vectors, all of a run held in registers up to
// sixteen vectors. Same operations and roundings as the scalar loops.
//
// Thread class: pure. Cost: a pass over the data; rotating 128 values takes about 60 instructions
// with AVX-512.
#include "kernels/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd_rows.cpp"
#include "hwy/foreach_target.h"  // re-includes this file per target
//
#include <cstring>

#include "kernels/page_checksum.h"
#include "kernels/scalar_rows.h"
#include "kernels/simd_common-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quire::kernels {
namespace HWY_NAMESPACE {
#if QUIRE_SIMD_TARGET
namespace {

void widen(DType type, const void *from, float *to, size_t n) {
  const auto *words = static_cast<const uint16_t *>(from);
  size_t done = 0;
  if (type == DType::kF16) {
    done = for_vectors(n, [&](auto d, size_t i) HWY_ATTR {
      const hn::Rebind<hwy::float16_t, decltype(d)> d16;
      const auto *at = reinterpret_cast<const hwy::float16_t *>(words + i);
      hn::StoreU(hn::PromoteTo(d, hn::LoadU(d16, at)), d, to + i);
    });
  } else if (type == DType::kBF16) {
    done = for_vectors(n, [&](auto d, size_t i) HWY_ATTR {
      const hn::Rebind<uint16_t, decltype(d)> d16;
      const hn::RebindToUnsigned<decltype(d)> du;
      const auto wide = hn::PromoteTo(du, hn::LoadU(d16, words + i));
      hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(wide)), d, to + i);
    });
  }
  const size_t bytes = done * dtype_bytes(type);
  scalar::widen(type, static_cast<const uint8_t *>(from) + bytes, to + done, n - done);
}

void narrow(DType type, const float *from, void *to, size_t n) {
  auto *words = static_cast<uint16_t *>(to);
  size_t done = 0;
  if (type == DType::kF16) {
    done = for_vectors(n, [&](auto d, size_t i) HWY_ATTR {
      const hn::Rebind<hwy::float16_t, decltype(d)> d16;
      auto *at = reinterpret_cast<hwy::float16_t *>(words + i);
      hn::StoreU(hn::DemoteTo(d16, hn::LoadU(d, from + i)), d16, at);
    });
  } else if (type == DType::kBF16) {
    done = for_vectors(n, [&](auto d, size_t i) HWY_ATTR {
      const hn::RebindToUnsigned<decltype(d)> du;
      const hn::RebindToSigned<decltype(d)> di;
      const hn::Rebind<uint16_t, decltype(d)> d16;
      const auto bits = hn::LoadU(du, reinterpret_cast<const uint32_t *>(from + i));
      const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
      const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), odd));
      const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40u));
      const auto magnitude = hn::And(bits, hn::Set(du, 0x7fffffffu));
      const auto nan =
          hn::RebindMask(du, hn::Gt(hn::BitCast(di, magnitude), hn::Set(di, 0x7f800000)));
      const auto result = hn::IfThenElse(nan, quiet, rounded);
      hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, result)), d16, words + i);
    });
  }
  const size_t bytes = done * dtype_bytes(type);
  scalar::narrow(type, from + done, static_cast<uint8_t *>(to) + bytes, n - done);
}

// a * b mod 2^64, of 32-bit products: not every target has more.
template <class D, class VU>
HWY_INLINE VU product(D d, VU a, uint64_t b) {
  const hn::Repartition<uint32_t, D> d32;
  const auto low = hn::BitCast(d32, hn::Set(d, b & 0xffffffffu));
  const auto high = hn::BitCast(d32, hn::Set(d, b >> 32));
  const auto a_low = hn::BitCast(d32, a), a_high = hn::BitCast(d32, hn::ShiftRight<32>(a));
  const auto cross = hn::Add(hn::MulEven(a_high, low), hn::MulEven(a_low, high));
  return hn::Add(hn::MulEven(a_low, low), hn::ShiftLeft<32>(cross));
}

uint64_t sum_words(const uint8_t *bytes, size_t words, uint64_t first) {
  const hn::ScalableTag<uint64_t> d;
  constexpr size_t kWords = HWY_LANES(uint64_t);
  const auto stride = hn::Set(d, kWords * QUIRE_CHECKSUM_STEP);
  auto place = hn::Add(product(d, hn::Iota(d, 0), QUIRE_CHECKSUM_STEP),
                       hn::Set(d, first * QUIRE_CHECKSUM_STEP));
  auto sum = hn::Zero(d);
  size_t i = 0;
  for (; i + kWords <= words; i += kWords) {
    const auto *at = reinterpret_cast<const uint64_t *>(bytes + i * sizeof(uint64_t));
    const auto mixed = product(d, hn::Add(hn::LoadU(d, at), place), QUIRE_CHECKSUM_MIX);
    sum = hn::Add(sum, hn::Xor(mixed, hn::ShiftRight<32>(mixed)));
    place = hn::Add(place, stride);
  }
  // Lane by lane: a sum over lanes of AVX-512 is one of signed numbers, which must not wrap.
  HWY_ALIGN uint64_t lanes[kWords];
  hn::Store(sum, d, lanes);
  uint64_t vectors = 0;
  for (const uint64_t lane : lanes) vectors += lane;
  return vectors * QUIRE_CHECKSUM_MIX +
         scalar::sum_words(bytes + i * sizeof(uint64_t), words - i, first + i);
}

uint64_t count_nonfinite(const float *x, size_t n) {
  uint64_t count = 0;
  const size_t done = for_vectors(n, [&](auto d, size_t i) HWY_ATTR {
    const hn::RebindToUnsigned<decltype(d)> du;
    const auto exponent = hn::Set(du, 0x7f800000u);
    const auto bits = hn::And(hn::LoadU(du, reinterpret_cast<const uint32_t *>(x + i)), exponent);
    const auto bad = hn::Eq(bits, exponent);
    if (HWY_UNLIKELY(!hn::AllFalse(du, bad))) count += hn::CountTrue(du, bad);
  });
  return count + scalar::count_nonfinite(x + done, n - done);
}

float absmax(const float *x, size_t n) {
  const Floats d;
  V largest = hn::Zero(d);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V magnitude = hn::Abs(hn::LoadU(d, x + i));
    const auto finite = hn::Lt(magnitude, hn::Set(d, bits_float(0x7f800000u)));
    largest = hn::Max(largest, hn::IfThenElseZero(finite, magnitude));
  }
  const float vectors = hn::GetLane(hn::MaxOfLanes(d, largest));
  const float rest = scalar::absmax(x + i, n - i);
  return rest > vectors ? rest : vectors;
}

void subtract(float *x, const float *y, size_t n) {
  const size_t done = for_vectors(n, [&](auto d, size_t i) HWY_ATTR {
    hn::StoreU(hn::Sub(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, x + i);
  });
  scalar::subtract(x + done, y + done, n - done);
}

void add(float *x, const float *y, size_t n) {
  const size_t done = for_vectors(n, [&](auto d, size_t i) HWY_ATTR {
    hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, x + i);
  });
  scalar::add(x + done, y + done, n - done);
}

// One stage of stride < lanes: lane l gets v[l] + v[l ^ stride], or the difference where l has the
// bit.
template <size_t kStride, class D, class VF>
HWY_INLINE VF butterfly(D d, VF v, VF sign) {
  VF partner;
  if constexpr (kStride == 1) {
    partner = hn::Shuffle2301(v);
  } else if constexpr (kStride == 2) {
    partner = hn::Shuffle1032(v);
  } else if constexpr (kStride == 4) {
    partner = hn::SwapAdjacentBlocks(v);
  } else {
    partner = hn::ConcatLowerUpper(d, v, v);
  }
  return hn::Add(hn::Xor(v, sign), partner);
}

// -0.0 in the lanes that have the bit.
template <class D>
HWY_INLINE hn::Vec<D> sign_of_bit(D d, uint32_t bit) {
  const hn::RebindToUnsigned<D> du;
  const auto lanes = hn::Iota(du, 0u);
  const auto has = hn::Ne(hn::And(lanes, hn::Set(du, bit)), hn::Zero(du));
  return hn::BitCast(d, hn::IfThenElseZero(has, hn::Set(du, 0x80000000u)));
}

template <class D>
struct Signs {
  hn::Vec<D> s1, s2, s4, s8;
  explicit Signs(D d)
      : s1(sign_of_bit(d, 1)),
        s2(sign_of_bit(d, 2)),
        s4(sign_of_bit(d, 4)),
        s8(sign_of_bit(d, 8)) {}
};

// All stages of stride < min(size, lanes).
template <class D, class VF>
HWY_INLINE VF stages_in_vector(D d, VF v, const Signs<D> &signs, uint32_t size) {
  constexpr size_t kN = hn::MaxLanes(D());
  if (size > 1) v = butterfly<1>(d, v, signs.s1);
  if (size > 2) v = butterfly<2>(d, v, signs.s2);
  if constexpr (kN > 4) {
    if (size > 4) v = butterfly<4>(d, v, signs.s4);
  }
  if constexpr (kN > 8) {
    if (size > 8) v = butterfly<8>(d, v, signs.s8);
  }
  return v;
}

// A run of kVectors vectors, all stages, in registers.
template <size_t kVectors>
HWY_INLINE void rotate_run(float *x, const Signs<Floats> &signs, V factor) {
  const Floats d;
  V v[kVectors];
  HWY_UNROLL(16)
  for (size_t i = 0; i < kVectors; ++i) {
    v[i] = stages_in_vector(d, hn::LoadU(d, x + i * kLanes), signs, kLanes);
  }
  HWY_UNROLL(4)
  for (size_t stride = 1; stride < kVectors; stride *= 2) {
    HWY_UNROLL(8)
    for (size_t pair = 0; pair < kVectors / 2; ++pair) {
      const size_t i = pair / stride * 2 * stride + pair % stride;
      const V a = v[i], b = v[i + stride];
      v[i] = hn::Add(a, b);
      v[i + stride] = hn::Sub(a, b);
    }
  }
  HWY_UNROLL(16)
  for (size_t i = 0; i < kVectors; ++i) hn::StoreU(hn::Mul(v[i], factor), d, x + i * kLanes);
}

// Runs of any length from a vector on: passes over memory.
HWY_INLINE void rotate_long(float *x, uint32_t size, const Signs<Floats> &signs, V factor) {
  const Floats d;
  for (uint32_t i = 0; i < size; i += kLanes) {
    hn::StoreU(stages_in_vector(d, hn::LoadU(d, x + i), signs, kLanes), d, x + i);
  }
  for (uint32_t stride = kLanes; stride < size; stride *= 2) {
    for (uint32_t i = 0; i < size; i += 2 * stride) {
      for (uint32_t j = i; j < i + stride; j += kLanes) {
        const V a = hn::LoadU(d, x + j), b = hn::LoadU(d, x + j + stride);
        hn::StoreU(hn::Add(a, b), d, x + j);
        hn::StoreU(hn::Sub(a, b), d, x + j + stride);
      }
    }
  }
  for (uint32_t i = 0; i < size; i += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + i), factor), d, x + i);
  }
}

void rotate(float *x, size_t n, uint32_t size, uint32_t shift) {
  const Floats d;
  const float scale = power_of_two(-static_cast<int>(shift));
  if (size < kLanes) {
    const size_t done = for_vectors(n, [&](auto tag, size_t i) HWY_ATTR {
      const auto v = stages_in_vector(tag, hn::LoadU(tag, x + i), Signs<decltype(tag)>(tag), size);
      hn::StoreU(hn::Mul(v, hn::Set(tag, scale)), tag, x + i);
    });
    scalar::rotate(x + done, n - done, size, shift);
    return;
  }
  const Signs<Floats> signs(d);
  const V factor = hn::Set(d, scale);
  for (size_t start = 0; start < n; start += size) {
    switch (size / kLanes) {
      case 1:
        rotate_run<1>(x + start, signs, factor);
        break;
      case 2:
        rotate_run<2>(x + start, signs, factor);
        break;
      case 4:
        rotate_run<4>(x + start, signs, factor);
        break;
      case 8:
        rotate_run<8>(x + start, signs, factor);
        break;
      case 16:
        rotate_run<16>(x + start, signs, factor);
        break;
      default:
        rotate_long(x + start, size, signs, factor);
        break;
    }
  }
}

void turn(const float *x, const float *cos, const float *sin, uint32_t pairs, bool back, float *y) {
  uint32_t i = 0;
  const Floats d;
  const V flip = back ? hn::SignBit(d) : hn::Zero(d);
  for (; i + kLanes <= pairs; i += kLanes) {
    const V a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + pairs + i);
    const V c = hn::LoadU(d, cos + i), s = hn::Xor(hn::LoadU(d, sin + i), flip);
    hn::StoreU(hn::Sub(hn::Mul(c, a), hn::Mul(s, b)), d, y + i);
    hn::StoreU(hn::Add(hn::Mul(c, b), hn::Mul(s, a)), d, y + pairs + i);
  }
  for (; i < pairs; ++i) {
    const float a = x[i], b = x[pairs + i], c = cos[i], s = back ? -sin[i] : sin[i];
    y[i] = c * a - s * b;
    y[pairs + i] = c * b + s * a;
  }
}

}  // namespace

void fill_rows(RowKernels *t) {
  t->widen = widen;
  t->narrow = narrow;
  t->sum_words = sum_words;
  t->count_nonfinite = count_nonfinite;
  t->absmax = absmax;
  t->subtract = subtract;
  t->add = add;
  t->rotate = rotate;
  t->turn = turn;
}

#endif  // QUIRE_SIMD_TARGET
}  // namespace HWY_NAMESPACE
}  // namespace quire::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quire::kernels {
#define QUIRE_SIMD_EXPORT simd_fill_rows
#define QUIRE_SIMD_FILL fill_rows
#include "kernels/simd_export-inl.h"
}  // namespace quire::kernels
#endif
