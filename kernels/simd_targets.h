// The targets that this machine can run, best first, scalar last.
//
// Thread class: any thread. Cost: asks the CPU once (Highway caches the answer).
#pragma once

#include <cstddef>

#include "kernels/rows.h"

namespace quire::kernels {

inline constexpr size_t kMaxTargets = 4;

// Returns how many; at least 1.
size_t usable_row_kernels(const RowKernels **tables) noexcept;

}  // namespace quire::kernels
