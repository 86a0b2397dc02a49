// See part_rows.h.
#include "kernels/part_rows.h"

#include <cmath>

namespace quire::kernels {

uint64_t tame_rows(const RowKernels &rk, float *rows, size_t n, uint32_t dim) noexcept {
  const uint64_t count = rk.count_nonfinite(rows, n * dim);
  if (count == 0) return 0;
  for (size_t r = 0; r < n; ++r) {
    float *row = rows + r * dim;
    if (rk.count_nonfinite(row, dim) == 0) continue;
    const float largest = rk.absmax(row, dim);
    for (uint32_t i = 0; i < dim; ++i) {
      if (is_finite(row[i])) continue;
      row[i] = row[i] != row[i] ? 0.0f : std::copysign(largest, row[i]);
    }
  }
  return count;
}

void encode_part(const RowKernels &rk, const quire_part_layout &part, const Codebook &book,
                 Stage stage, float *rows, uint32_t token, size_t n, uint32_t exponent, bool search,
                 uint8_t *chunk) noexcept {
  if (!is_quantised(part)) {
    rk.narrow(plain_type(part), rows, chunk + quire_row_offset(&part, token), n * part.dim);
    return;
  }
  if (stage == Stage::kPlain && part.rotation_size > 1) {
    rk.rotate(rows, n * part.dim, part.rotation_size, part.rotation_stored);
  }
  rk.encode(part, book, rows, n, exponent, search, chunk + quire_row_offset(&part, token),
            chunk + quire_scale_offset(&part, token, 0));
}

void decode_part(const RowKernels &rk, const quire_part_layout &part, const Codebook &book,
                 const uint8_t *chunk, uint32_t token, size_t n, uint32_t exponent,
                 float *rows) noexcept {
  if (!is_quantised(part)) {
    rk.widen(plain_type(part), chunk + quire_row_offset(&part, token), rows, n * part.dim);
    return;
  }
  constexpr size_t kHalves = 4096;  // a buffer that stays in the first-level cache
  uint16_t halves[kHalves];
  const size_t step = kHalves / part.dim;
  for (size_t at = 0; at < n; at += step) {
    const size_t m = n - at < step ? n - at : step;
    const uint32_t t = token + static_cast<uint32_t>(at);
    rk.decode(part, book, chunk + quire_row_offset(&part, t),
              chunk + quire_scale_offset(&part, t, 0), m, exponent, halves);
    rk.widen(DType::kF16, halves, rows + at * part.dim, m * part.dim);
  }
}

}  // namespace quire::kernels
