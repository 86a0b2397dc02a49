// Numbers: half, bfloat16 and e4m3 conversions by integer arithmetic, equal to the hardware's bit
// for bit.
//
// They are the scalar target's arithmetic and the reference that the other targets are tested
// against. No F16C, no <stdfloat>: the same on every machine. Round to nearest, ties to even;
// NaN keeps its sign and the top of its payload and becomes quiet, as x86 and Arm do it.
//
// Thread class: pure. Cost: a handful of integer instructions. constexpr, so that kernels on a GPU may
// call them too.
#pragma once

#include <bit>
#include <cstdint>

namespace quire::kernels {

constexpr uint32_t float_bits(float x) {
  return std::bit_cast<uint32_t>(x);
}
constexpr float bits_float(uint32_t b) {
  return std::bit_cast<float>(b);
}

constexpr float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
  if (exponent == 31) {
    const uint32_t quiet = mantissa != 0 ? 0x400000u : 0u;
    return bits_float(sign | 0x7f800000u | (mantissa << 13) | quiet);
  }
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24 is exact
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return bits_float(float_bits(magnitude) | sign);
  }
  return bits_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

constexpr uint16_t float_to_half(float x) {
  const uint32_t bits = float_bits(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  }
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // >= 65520
  if (magnitude >= 0x38800000u) {                                              // normal in half
    const uint32_t rebased = magnitude - (112u << 23);
    return static_cast<uint16_t>(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
  }
  // Subnormal: adding 2^-1 * 2^... aligns the last kept bit with the last bit of the sum.
  const float aligned = bits_float(magnitude) + 0.5f;
  return static_cast<uint16_t>(sign | (float_bits(aligned) - 0x3f000000u));
}

constexpr float bfloat_to_float(uint16_t b) {
  const uint32_t bits = static_cast<uint32_t>(b) << 16;
  return bits_float(bits);
}

constexpr uint16_t float_to_bfloat(float x) {
  const uint32_t bits = float_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// The nearest e4m3fn of v >= 0, ties to even, saturating at 448 (0x7e).
constexpr uint32_t float_to_e4m3(float v) {
  if (!(v < 448.0f)) return 0x7eu;
  if (v < 0x1p-6f) {  // subnormal: units of 2^-9; 2^14 + v has its last bit there
    return float_bits(v + 0x1p14f) - float_bits(0x1p14f);
  }
  const uint32_t bits = float_bits(v);
  const uint32_t rounded = (bits + 0x7ffffu + ((bits >> 20) & 1u)) >> 20;
  const uint32_t byte = rounded - (120u << 3);
  return byte < 0x7eu ? byte : 0x7eu;
}

// The least e4m3fn that is not below v >= 0, or 448.
constexpr uint32_t float_to_e4m3_up(float v) {
  if (!(v < 448.0f)) return 0x7eu;
  if (v < 0x1p-6f) {
    const uint32_t byte = float_bits(v + 0x1p14f) - float_bits(0x1p14f);
    return static_cast<float>(byte) * 0x1p-9f < v ? byte + 1 : byte;
  }
  return ((float_bits(v) + 0xfffffu) >> 20) - (120u << 3);
}

// 2^e for -126 <= e <= 127.
constexpr float power_of_two(int e) {
  return bits_float(static_cast<uint32_t>(e + 127) << 23);
}

constexpr bool is_finite(float x) {
  return (float_bits(x) & 0x7f800000u) != 0x7f800000u;
}

}  // namespace quire::kernels
