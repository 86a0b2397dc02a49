// The scalar target, all but the codec: conversions, rotation, turns and attention's loops,
// plainly.
//
// Thread class: pure.
#include "kernels/scalar_rows.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/page_checksum.h"

namespace quire::kernels {
namespace scalar {

void widen(DType type, const void *from, float *to, size_t n) {
  if (type == DType::kF32) {
    if (n != 0) std::memcpy(to, from, n * sizeof(float));  // no rows may mean no memory
    return;
  }
  const auto *bytes = static_cast<const uint8_t *>(from);
  for (size_t i = 0; i < n; ++i) {
    uint16_t x;
    std::memcpy(&x, bytes + 2 * i, 2);
    to[i] = type == DType::kF16 ? half_to_float(x) : bfloat_to_float(x);
  }
}

void narrow(DType type, const float *from, void *to, size_t n) {
  if (type == DType::kF32) {
    if (n != 0) std::memcpy(to, from, n * sizeof(float));  // no rows may mean no memory
    return;
  }
  auto *bytes = static_cast<uint8_t *>(to);
  for (size_t i = 0; i < n; ++i) {
    const uint16_t x = type == DType::kF16 ? float_to_half(from[i]) : float_to_bfloat(from[i]);
    std::memcpy(bytes + 2 * i, &x, 2);
  }
}

uint64_t sum_words(const uint8_t *bytes, size_t words, uint64_t first) {
  uint64_t sum = 0, word;
  for (size_t i = 0; i < words; ++i) {
    std::memcpy(&word, bytes + i * sizeof word, sizeof word);
    sum += checksum_word(word, first + i);
  }
  return sum;
}

uint64_t count_nonfinite(const float *x, size_t n) {
  uint64_t count = 0;
  for (size_t i = 0; i < n; ++i) count += is_finite(x[i]) ? 0u : 1u;
  return count;
}

void subtract(float *x, const float *y, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] -= y[i];
}

void add(float *x, const float *y, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] += y[i];
}

void rotate(float *x, size_t n, uint32_t size, uint32_t shift) {
  const float factor = power_of_two(-static_cast<int>(shift));
  for (size_t start = 0; start < n; start += size) {
    float *run = x + start;
    for (uint32_t stride = 1; stride < size; stride *= 2) {
      for (uint32_t i = 0; i < size; i += 2 * stride) {
        for (uint32_t j = i; j < i + stride; ++j) {
          const float a = run[j], b = run[j + stride];
          run[j] = a + b;
          run[j + stride] = a - b;
        }
      }
    }
    for (uint32_t i = 0; i < size; ++i) run[i] *= factor;
  }
}

void turn(const float *x, const float *cos, const float *sin, uint32_t pairs, bool back, float *y) {
  for (uint32_t i = 0; i < pairs; ++i) {
    const float a = x[i], b = x[pairs + i], c = cos[i], s = back ? -sin[i] : sin[i];
    y[i] = c * a - s * b;
    y[pairs + i] = c * b + s * a;
  }
}

void scores(const float *q, size_t rows, const float *k, size_t tokens, size_t dim, float *s,
            size_t s_stride) {
  for (size_t r = 0; r < rows; ++r) {
    for (size_t t = 0; t < tokens; ++t) {
      float sum = 0;
      for (size_t d = 0; d < dim; ++d) sum += q[r * dim + d] * k[t * dim + d];
      s[r * s_stride + t] = sum;
    }
  }
}

void accumulate(float *acc, size_t rows, const float *factor, const float *p, size_t p_stride,
                const float *v, size_t tokens, size_t dim) {
  for (size_t r = 0; r < rows; ++r) {
    for (size_t d = 0; d < dim; ++d) {
      float sum = acc[r * dim + d] * factor[r];
      for (size_t t = 0; t < tokens; ++t) sum += p[r * p_stride + t] * v[t * dim + d];
      acc[r * dim + d] = sum;
    }
  }
}

void soft_cap(float *x, size_t n, float cap) {
  for (size_t i = 0; i < n; ++i) x[i] = cap * std::tanh(x[i] / cap);
}

float maximum(const float *x, size_t n) {
  float largest = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

float exponentials(float *x, size_t n, float peak) {
  float sum = 0;
  for (size_t i = 0; i < n; ++i) {
    x[i] = std::exp(x[i] - peak);
    sum += x[i];
  }
  return sum;
}

}  // namespace scalar

const RowKernels &scalar_row_kernels() noexcept {
  static constexpr RowKernels kTable = {
      .name = "scalar",
      .widen = scalar::widen,
      .narrow = scalar::narrow,
      .sum_words = scalar::sum_words,
      .count_nonfinite = scalar::count_nonfinite,
      .absmax = scalar::absmax,
      .subtract = scalar::subtract,
      .add = scalar::add,
      .rotate = scalar::rotate,
      .turn = scalar::turn,
      .encode = scalar::encode,
      .decode = scalar::decode,
      .codes = scalar::codes,
      .scores = scalar::scores,
      .accumulate = scalar::accumulate,
      .soft_cap = scalar::soft_cap,
      .maximum = scalar::maximum,
      .exponentials = scalar::exponentials,
  };
  return kTable;
}

uint32_t exponent_byte(float absmax) noexcept {
  const uint32_t bits = float_bits(absmax);
  int exponent = static_cast<int>(bits >> 23) - 127 + ((bits & 0x7fffffu) != 0 ? 1 : 0);
  if (exponent < QUIRE_EXPONENT_MIN) exponent = QUIRE_EXPONENT_MIN;
  if (exponent > QUIRE_EXPONENT_MAX) exponent = QUIRE_EXPONENT_MAX;
  return static_cast<uint32_t>(exponent + QUIRE_EXPONENT_BIAS);
}

}  // namespace quire::kernels
