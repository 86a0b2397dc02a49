// SIMD targets through Highway (github.com/google/highway): one source, compiled once per
// instruction set, and the set of targets that Quire builds.
//
// Each kernels/simd_*.cpp defines one part of RowKernels for all targets and exports one function
// that fills it in. Highway's own choice of targets is narrowed to those that have been written
// for: AVX2 (with FMA and F16C, which every AVX2 machine has), AVX3 (AVX-512 F, BW, DQ, VL, CD),
// NEON. The baseline that Highway insists on compiling is left empty: the scalar target is ours.
//
// Include before any Highway header.
#pragma once

#include <cstdint>

#include "kernels/rows.h"

#define HWY_DISABLED_TARGETS \
  (~(HWY_AVX2 | HWY_AVX3 | HWY_NEON | HWY_EMU128 | HWY_SCALAR) & ((1LL << 62) - 1))

// In #if, after a Highway header: is the target that is being compiled one of ours?
#define QUIRE_SIMD_TARGET \
  (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON)

namespace quire::kernels {

// Each fills its entries for a Highway target bit; false where this build lacks the target.
bool simd_fill_rows(int64_t target, RowKernels *table);
bool simd_fill_encode(int64_t target, RowKernels *table);
bool simd_fill_decode(int64_t target, RowKernels *table);
bool simd_fill_attention(int64_t target, RowKernels *table);

}  // namespace quire::kernels
