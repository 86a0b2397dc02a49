// See simd_targets.h.
#include "kernels/simd.h"
//
#include "hwy/highway.h"
#include "kernels/simd_targets.h"

namespace quire::kernels {
namespace {

struct Tables {
  RowKernels tables[kMaxTargets];
  size_t n = 0;

  void add(int64_t target, const char *name) {
    if ((hwy::SupportedTargets() & target) == 0) return;
    RowKernels table = scalar_row_kernels();
    table.name = name;
    if (!simd_fill_rows(target, &table)) return;
    if (!simd_fill_encode(target, &table)) return;
    if (!simd_fill_decode(target, &table)) return;
    if (!simd_fill_attention(target, &table)) return;
    tables[n++] = table;
  }

  Tables() {
    add(HWY_AVX3, "avx512");
    add(HWY_AVX2, "avx2");
    add(HWY_NEON, "neon");
    tables[n++] = scalar_row_kernels();
  }
};

}  // namespace

size_t usable_row_kernels(const RowKernels **out) noexcept {
  static const Tables all;
  for (size_t i = 0; i < all.n; ++i) out[i] = &all.tables[i];
  return all.n;
}

}  // namespace quire::kernels
