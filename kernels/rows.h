// RowKernels: what a target (an instruction set) has to supply; all else is written once above it.
//
// Each entry works on rows of values in plain memory. The scalar target's entries define the
// result; every other target gives the same bits, except in the group "attention", where sums may
// be taken in another order.
//
// Thread class: pure functions. Rows may have any alignment; sizes are what the layouts allow
// (dims multiples of 8, blocks 8, 16, 32 or 64, or a plain row).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/codebook.h"
#include "kernels/codec.h"
#include "quire/page_format.h"

namespace quire::kernels {

struct RowKernels {
  const char *name;

  // ---- conversion
  void (*widen)(DType type, const void *from, float *to, size_t n);
  void (*narrow)(DType type, const float *from, void *to, size_t n);

  // ---- words of 8 bytes: the sum over i of checksum_word(word[i], first + i), see page_checksum.h
  uint64_t (*sum_words)(const uint8_t *bytes, size_t words, uint64_t first);

  // ---- arithmetic on rows, in place
  uint64_t (*count_nonfinite)(const float *x, size_t n);
  float (*absmax)(const float *x, size_t n);  // over the finite ones; 0 where there is none
  void (*subtract)(float *x, const float *y, size_t n);
  void (*add)(float *x, const float *y, size_t n);
  // H on each run of `size` values, then times 2^-shift. n is a multiple of size.
  void (*rotate)(float *x, size_t n, uint32_t size, uint32_t shift);
  // Turns `pairs` pairs given in planes; y may be x. Forwards, or backwards (sin negated).
  void (*turn)(const float *x, const float *cos, const float *sin, uint32_t pairs, bool back,
               float *y);

  // ---- codec: rows [n][dim] <-> codes [n][row_bytes] and scales [n][blocks]
  // exponent is the statistics' byte (of no meaning for f16 scales).
  void (*encode)(const quire_part_layout &part, const Codebook &book, const float *rows, size_t n,
                 uint32_t exponent, bool search, uint8_t *codes, uint8_t *scales);
  void (*decode)(const quire_part_layout &part, const Codebook &book, const uint8_t *codes,
                 const uint8_t *scales, size_t n, uint32_t exponent, uint16_t *halves);

  // The code of each z (a value already divided by its scale; NaN counts as 0): encode's inner
  // step.
  void (*codes)(const Codebook &book, const float *z, size_t n, uint8_t *codes);

  // ---- attention
  // s[r * s_stride + t] = q[r] . k[t], rows of dim.
  void (*scores)(const float *q, size_t rows, const float *k, size_t tokens, size_t dim, float *s,
                 size_t s_stride);
  // acc[r] = acc[r] * factor[r] + sum over t of p[r * p_stride + t] v[t]
  void (*accumulate)(float *acc, size_t rows, const float *factor, const float *p, size_t p_stride,
                     const float *v, size_t tokens, size_t dim);
  // x = cap * tanh(x / cap)
  void (*soft_cap)(float *x, size_t n, float cap);
  float (*maximum)(const float *x, size_t n);  // -inf where n is 0
  // x = exp(x - peak); their sum. x may hold -inf; peak is finite.
  float (*exponentials)(float *x, size_t n, float peak);
};

// The target in use; constant between calls of select_target.
const RowKernels &row_kernels() noexcept;

const RowKernels &scalar_row_kernels() noexcept;
// The least exponent byte whose power of two is not below absmax, within what pages can hold.
uint32_t exponent_byte(float absmax) noexcept;

}  // namespace quire::kernels
