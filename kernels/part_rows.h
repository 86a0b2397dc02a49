// Part rows: rows of K or V on their way between plain fp32 and the bytes of a head's chunk.
//
// encode_part: x (already minus its anchor) -> tame non-finite values -> rotate -> codes and
// scales. decode_part: codes and scales -> rotated rows in fp32 (exact halves); plain parts are
// widened. restore_part: rotated rows -> un-rotate -> plain rows, without the anchor.
//
// Thread class: pure. Cost: that of the row kernels they call.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/codec_state.h"
#include "kernels/rows.h"

namespace quire::kernels {

inline bool is_quantised(const quire_part_layout &part) {
  return part.dim != 0 && part.code_bits < 16;
}

inline DType plain_type(const quire_part_layout &part) {
  switch (part.codec.codebook) {
    case QUIRE_CODEBOOK_BF16:
      return DType::kBF16;
    case QUIRE_CODEBOOK_F32:
      return DType::kF32;
    default:
      return DType::kF16;
  }
}

// Non-finite values of rows that are to be rotated: NaN -> 0, an infinity -> the largest finite
// magnitude of its row, with its sign. Counts them.
uint64_t tame_rows(const RowKernels &rk, float *rows, size_t n, uint32_t dim) noexcept;

// rows is destroyed; `tamed` and rotated rows may be encoded again with kRotated.
enum class Stage { kPlain, kRotated };
void encode_part(const RowKernels &rk, const quire_part_layout &part, const Codebook &book,
                 Stage stage, float *rows, uint32_t token, size_t n, uint32_t exponent, bool search,
                 uint8_t *chunk) noexcept;

// Tokens token .. token + n - 1 of a chunk, as rows [n][dim] in the rotated domain.
void decode_part(const RowKernels &rk, const quire_part_layout &part, const Codebook &book,
                 const uint8_t *chunk, uint32_t token, size_t n, uint32_t exponent,
                 float *rows) noexcept;

inline void restore_part(const RowKernels &rk, const quire_part_layout &part, float *rows,
                         size_t n) {
  if (part.rotation_size > 1) {
    rk.rotate(rows, n * part.dim, part.rotation_size, part.rotation_read);
  }
}

}  // namespace quire::kernels
