// Arithmetic of the codec on a GPU: the operations that have to give the scalar target's bits.
//
// Every product and sum that could be contracted is an intrinsic that is not, whatever the flags
// say. Conversions use the hardware's and mend its NaNs, which lose sign and payload, to what
// kernels/numbers.h defines; where no NaN can be, the plain forms are used.
//
// Compiled as device code, or as plain C++ by tests that run kernels on a CPU.
// Thread class: pure. Cost: one or two instructions each.
#pragma once

#include <cstdint>

#include "kernels/codec.h"
#include "kernels/numbers.h"

#define QUIRE_DEVICE __device__ __forceinline__
#if defined(QUIRE_CUDA_EMULATED)
#define QUIRE_OUTLINED static
#define QUIRE_UNROLL
#define QUIRE_ROLLED
#else
#define QUIRE_OUTLINED static __device__ __noinline__
#define QUIRE_UNROLL _Pragma("unroll")
#define QUIRE_ROLLED _Pragma("unroll 1")
#endif

namespace quire::kernels::cuda {

inline constexpr uint32_t kWarp = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;
inline constexpr float kLargest = 3.402823466e+38f;

#if !defined(QUIRE_CUDA_EMULATED)
// Barrier `number`, 1 to 15, of `threads` threads of a CTA, whole warps.
QUIRE_DEVICE void named_barrier(uint32_t number, uint32_t threads) {
#if defined(__CUDA_ARCH__)
  asm volatile("bar.sync %0, %1;" : : "r"(number), "r"(threads) : "memory");
#else
  (void)number, (void)threads;
#endif
}
#endif

// What every kernel that is launched by launch_early() begins with: the next one may be made ready
// from now on; then, before the first access to what the stream wrote or still reads, it waits for
// the kernels before it.
QUIRE_DEVICE void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
QUIRE_DEVICE void wait_for_stream() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" : : : "memory");
#endif
}

QUIRE_DEVICE void prefetch(const uint8_t *p) {
#if defined(__CUDA_ARCH__)
  asm volatile("prefetch.global.L2 [%0];" : : "l"(p));
#else
  (void)p;
#endif
}

QUIRE_DEVICE uint32_t bits(float x) {
  return __float_as_uint(x);
}
QUIRE_DEVICE float from_bits(uint32_t b) {
  return __uint_as_float(b);
}
QUIRE_DEVICE bool finite(float x) {
  return (bits(x) & 0x7f800000u) != 0x7f800000u;
}
// 2^e, -126 <= e <= 127.
QUIRE_DEVICE float power(int e) {
  return from_bits(static_cast<uint32_t>(e + 127) << 23);
}

// Two halves in a word -> floats, and back; NaNs come out as any NaN.
QUIRE_DEVICE float2 halves_to_floats(uint32_t word) {
#if defined(__CUDA_ARCH__)
  float2 f;
  asm("{.reg .f16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}"
      : "=f"(f.x), "=f"(f.y)
      : "r"(word));
  return f;
#else
  return make_float2(half_to_float(static_cast<uint16_t>(word)),
                     half_to_float(static_cast<uint16_t>(word >> 16)));
#endif
}

QUIRE_DEVICE uint32_t floats_to_halves(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return float_to_half(low) | static_cast<uint32_t>(float_to_half(high)) << 16;
#endif
}

QUIRE_DEVICE float2 bfloats_to_floats(uint32_t word) {
  return make_float2(from_bits(word << 16), from_bits(word & 0xffff0000u));
}

QUIRE_DEVICE uint32_t floats_to_bfloats(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return float_to_bfloat(low) | static_cast<uint32_t>(float_to_bfloat(high)) << 16;
#endif
}

// The same with the NaNs of kernels/numbers.h.
QUIRE_DEVICE float2 widen_pair(DType type, uint32_t word) {
  if (type == DType::kBF16) return bfloats_to_floats(word);
  const float2 f = halves_to_floats(word);
  if (f.x == f.x && f.y == f.y) return f;
  return make_float2(half_to_float(static_cast<uint16_t>(word)),
                     half_to_float(static_cast<uint16_t>(word >> 16)));
}

QUIRE_DEVICE uint32_t narrow_pair(DType type, float low, float high) {
  if (low == low && high == high) {
    return type == DType::kBF16 ? floats_to_bfloats(low, high) : floats_to_halves(low, high);
  }
  if (type == DType::kBF16) {
    return float_to_bfloat(low) | static_cast<uint32_t>(float_to_bfloat(high)) << 16;
  }
  return float_to_half(low) | static_cast<uint32_t>(float_to_half(high)) << 16;
}

// RN16 of both, as floats.
QUIRE_DEVICE float2 round_to_halves(float low, float high) {
  return halves_to_floats(floats_to_halves(low, high));
}

// e4m3fn without its NaNs: its bits are the top of a float's, off by 2^120.
QUIRE_DEVICE float e4m3_value(uint32_t byte) {
  return __fmul_rn(from_bits((byte & 127u) << 20 | (byte & 128u) << 24), 0x1p120f);
}

}  // namespace quire::kernels::cuda
