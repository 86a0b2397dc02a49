// See simd_targets.h.
#include "kernels/simd_targets.h"

namespace quire::kernels {

size_t usable_row_kernels(const RowKernels **tables) noexcept {
  tables[0] = &scalar_row_kernels();
  return 1;
}

}  // namespace quire::kernels
