// Defines QUIRE_SIMD_EXPORT(int64_t target, RowKernels *), which calls
// QUIRE_SIMD_FILL(table) of the target's namespace.
// Included once by each kernels/simd_*.cpp, inside namespace quire::kernels.
#ifndef QUIRE_SIMD_EXPORT
#error "name the function to define"
#endif

bool QUIRE_SIMD_EXPORT(int64_t target, RowKernels *table) {
#if HWY_TARGETS & HWY_AVX3
  if (target == HWY_AVX3) {
    N_AVX3::QUIRE_SIMD_FILL(table);
    return true;
  }
#endif
#if HWY_TARGETS & HWY_AVX2
  if (target == HWY_AVX2) {
    N_AVX2::QUIRE_SIMD_FILL(table);
    return true;
  }
#endif
#if HWY_TARGETS & HWY_NEON
  if (target == HWY_NEON) {
    N_NEON::QUIRE_SIMD_FILL(table);
    return true;
  }
#endif
  (void)target;
  (void)table;
  return false;
}
#undef QUIRE_SIMD_EXPORT
#undef QUIRE_SIMD_FILL
