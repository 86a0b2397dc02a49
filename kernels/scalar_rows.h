// The scalar target's functions, by name, for its table and for SIMD targets that leave odd sizes
// (blocks of 8, rows shorter than a vector) to them. See rows.h for what each does.
#pragma once

#include "kernels/rows.h"

namespace quire::kernels::scalar {

void widen(DType type, const void *from, float *to, size_t n);
void narrow(DType type, const float *from, void *to, size_t n);
uint64_t sum_words(const uint8_t *bytes, size_t words, uint64_t first);
uint64_t count_nonfinite(const float *x, size_t n);
float absmax(const float *x, size_t n);
void subtract(float *x, const float *y, size_t n);
void add(float *x, const float *y, size_t n);
void rotate(float *x, size_t n, uint32_t size, uint32_t shift);
void turn(const float *x, const float *cos, const float *sin, uint32_t pairs, bool back, float *y);
void encode(const quire_part_layout &part, const Codebook &book, const float *rows, size_t n,
            uint32_t exponent, bool search, uint8_t *codes, uint8_t *scales);
void decode(const quire_part_layout &part, const Codebook &book, const uint8_t *codes,
            const uint8_t *scales, size_t n, uint32_t exponent, uint16_t *halves);
void codes(const Codebook &book, const float *z, size_t n, uint8_t *codes);
void scores(const float *q, size_t rows, const float *k, size_t tokens, size_t dim, float *s,
            size_t s_stride);
void accumulate(float *acc, size_t rows, const float *factor, const float *p, size_t p_stride,
                const float *v, size_t tokens, size_t dim);
void soft_cap(float *x, size_t n, float cap);
float maximum(const float *x, size_t n);
float exponentials(float *x, size_t n, float peak);

}  // namespace quire::kernels::scalar
