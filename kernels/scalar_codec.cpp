// The scalar target, codec: what encoding and decoding a row mean. Read this one to know the
// format; the SIMD targets are tested to give the same bits.
//
// Thread class: pure. Cost: some tens of nanoseconds a value when searching; it is a reference.
#include <cfloat>
#include <cmath>

#include "kernels/scalar_rows.h"

namespace quire::kernels::scalar {
namespace {

constexpr uint32_t kMaxBlock = 64;
constexpr float kFactors[4] = {1.06f, 1.0f, 0.92f, 0.84f};
// Stands for 1 / s where the scale is 0: products with the finite values of such a block vanish,
// infinities still saturate.
constexpr float kReciprocalOfZero = 0x1p-120f;

float reciprocal(float s) {
  if (s == 0) return kReciprocalOfZero;
  const float r = 1.0f / s;
  return r > FLT_MAX ? FLT_MAX : (r < -FLT_MAX ? -FLT_MAX : r);
}

// NaN counts as 0, an infinity as the largest finite value.
float tame(float x) {
  if (x != x) return 0.0f;
  return x > FLT_MAX ? FLT_MAX : (x < -FLT_MAX ? -FLT_MAX : x);
}

// Codes of a block under one candidate scale, and the error they leave.
float try_scale(const Codebook &book, const float *x, uint32_t block, float s, uint8_t *codes) {
  const float r = reciprocal(s);
  float squares[kMaxBlock] = {};
  for (uint32_t i = 0; i < block; ++i) {
    codes[i] = static_cast<uint8_t>(code_by_midpoints(book, tame(x[i]) * r));
    const float e = is_finite(x[i]) ? std::fma(-book.values[codes[i]], s, x[i]) : 0.0f;
    squares[i] = e * e;
  }
  for (uint32_t stride = block / 2; stride > 0; stride /= 2) {
    for (uint32_t i = 0; i < stride; ++i) squares[i] += squares[i + stride];
  }
  return squares[0];
}

uint8_t encode_signed_e4m3(const Codebook &book, const float *x, uint32_t block, float largest,
                           uint32_t exponent, bool search, uint8_t *codes) {
  const int shift = static_cast<int>(exponent) - QUIRE_EXPONENT_BIAS - 8;
  const float to_e4m3 = power_of_two(-shift), from_e4m3 = power_of_two(shift);
  float best_error = 0;
  int best = -1;
  for (uint32_t f = search ? 0 : 1; f < (search ? 4u : 2u); ++f) {
    const uint32_t magnitude = float_to_e4m3(largest * kFactors[f] * to_e4m3);
    for (uint32_t sign = 0; sign < 2; ++sign) {
      const uint32_t byte = magnitude | sign << 7;
      uint8_t tried[kMaxBlock];
      const float error = try_scale(book, x, block, quire_e4m3_value(byte) * from_e4m3, tried);
      if (best >= 0 && !(error < best_error)) continue;
      best = static_cast<int>(byte);
      best_error = error;
      for (uint32_t i = 0; i < block; ++i) codes[i] = tried[i];
    }
  }
  return static_cast<uint8_t>(best);
}

uint8_t encode_int8(const float *x, uint32_t block, float largest, uint32_t exponent,
                    uint8_t *codes) {
  const int shift = static_cast<int>(exponent) - QUIRE_EXPONENT_BIAS - 8;
  const float wanted = largest * (128.0f / 127.0f) * power_of_two(-shift);
  const uint32_t byte = float_to_e4m3_up(wanted);
  const float r = reciprocal(quire_e4m3_value(byte) * power_of_two(shift));
  for (uint32_t i = 0; i < block; ++i) {
    const float z = tame(x[i]) * r * 128.0f;
    const float clamped = z > 127.0f ? 127.0f : (z < -127.0f ? -127.0f : z);
    codes[i] = static_cast<uint8_t>(static_cast<int8_t>(std::nearbyintf(clamped)));
  }
  return static_cast<uint8_t>(byte);
}

void encode_absmax_f16(const Codebook &book, const float *x, uint32_t block, float largest,
                       uint8_t *codes, uint8_t *scale) {
  const float r = reciprocal(largest);
  for (uint32_t i = 0; i < block; ++i) {
    codes[i] = static_cast<uint8_t>(code_by_midpoints(book, tame(x[i]) * r));
  }
  const uint16_t half = float_to_half(largest > 65504.0f ? 65504.0f : largest);
  scale[0] = static_cast<uint8_t>(half & 255u);
  scale[1] = static_cast<uint8_t>(half >> 8);
}

void store_codes(const quire_part_layout &part, uint32_t block_index, const uint8_t *codes,
                 uint8_t *row) {
  for (uint32_t i = 0; i < part.block; ++i) {
    const uint32_t at = quire_code_position(&part, block_index * part.block + i);
    if (part.code_bits == 8) {
      row[at] = codes[i];
    } else {
      const uint32_t shift = (at & 1u) != 0 ? 0 : 4;
      row[at / 2] = static_cast<uint8_t>((row[at / 2] & (0xf0u >> shift)) |
                                         static_cast<uint32_t>(codes[i]) << shift);
    }
  }
}

}  // namespace

float absmax(const float *x, size_t n) {
  float largest = 0;
  for (size_t i = 0; i < n; ++i) {
    const float magnitude = std::fabs(x[i]);
    if (is_finite(magnitude) && magnitude > largest) largest = magnitude;
  }
  return largest;
}

void encode(const quire_part_layout &part, const Codebook &book, const float *rows, size_t n,
            uint32_t exponent, bool search, uint8_t *codes, uint8_t *scales) {
  for (size_t r = 0; r < n; ++r) {
    for (uint32_t b = 0; b < part.blocks; ++b) {
      const float *x = rows + r * part.dim + b * part.block;
      uint8_t *scale = scales + (r * part.blocks + b) * part.scale_bytes;
      const float largest = absmax(x, part.block);
      uint8_t block_codes[kMaxBlock];
      if (part.codec.codebook == QUIRE_CODEBOOK_INT8) {
        *scale = encode_int8(x, part.block, largest, exponent, block_codes);
      } else if (part.codec.scale == QUIRE_SCALE_F16) {
        encode_absmax_f16(book, x, part.block, largest, block_codes, scale);
      } else {
        *scale = encode_signed_e4m3(book, x, part.block, largest, exponent, search, block_codes);
      }
      store_codes(part, b, block_codes, codes + r * part.row_bytes);
    }
  }
}

void codes(const Codebook &book, const float *z, size_t n, uint8_t *to) {
  for (size_t i = 0; i < n; ++i) to[i] = static_cast<uint8_t>(code_by_midpoints(book, tame(z[i])));
}

void decode(const quire_part_layout &part, const Codebook &book, const uint8_t *codes,
            const uint8_t *scales, size_t n, uint32_t exponent, uint16_t *halves) {
  const int shift = static_cast<int>(exponent) - QUIRE_EXPONENT_BIAS - 8;
  for (size_t r = 0; r < n; ++r) {
    const uint8_t *row = codes + r * part.row_bytes;
    for (uint32_t b = 0; b < part.blocks; ++b) {
      const uint8_t *stored = scales + (r * part.blocks + b) * part.scale_bytes;
      const float s = part.codec.scale == QUIRE_SCALE_F16
                          ? half_to_float(static_cast<uint16_t>(stored[0] | stored[1] << 8))
                          : quire_e4m3_value(*stored) * power_of_two(shift);
      for (uint32_t i = 0; i < part.block; ++i) {
        const uint32_t d = b * part.block + i;
        const float code =
            part.code_bits == 8
                ? static_cast<float>(static_cast<int8_t>(row[quire_code_position(&part, d)])) / 128
                : book.values[quire_code4(&part, row, d)];
        halves[r * part.dim + d] = float_to_half(code * s);
      }
    }
  }
}

}  // namespace quire::kernels::scalar
