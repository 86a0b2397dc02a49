// See rope.h.
#include "kernels/rope.h"

#include <cmath>
#include <cstring>

namespace quire::kernels {
namespace {

constexpr uint32_t kDigit = 64;

size_t token_floats(const quire_geometry &g) {
  return quire_round_up(static_cast<uint64_t>(g.page_tokens) * (g.rope.rotary_dim / 2), 16);
}

size_t page_doubles(const quire_geometry &g) {
  return quire_round_up(static_cast<uint64_t>(kTurnDigits) * kDigit * (g.rope.rotary_dim / 2), 8);
}

}  // namespace

size_t turns_bytes(const quire_geometry &geometry) noexcept {
  return 2 * token_floats(geometry) * sizeof(float) + 2 * page_doubles(geometry) * sizeof(double);
}

Turns make_turns(const quire_geometry &geometry, void *memory) noexcept {
  Turns t;
  t.pairs = geometry.rope.rotary_dim / 2;
  t.interleaved = geometry.rope.interleaved;
  t.page_cos = static_cast<double *>(memory);
  t.page_sin = t.page_cos + page_doubles(geometry);
  t.token_cos = reinterpret_cast<float *>(t.page_sin + page_doubles(geometry));
  t.token_sin = t.token_cos + token_floats(geometry);
  for (uint32_t i = 0; i < t.pairs; ++i) {
    const double frequency = static_cast<double>(geometry.rope.inv_freq[i]);
    for (uint32_t j = 0; j < geometry.page_tokens; ++j) {
      t.token_cos[j * t.pairs + i] = static_cast<float>(std::cos(j * frequency));
      t.token_sin[j * t.pairs + i] = static_cast<float>(std::sin(j * frequency));
    }
    double step = geometry.page_tokens;  // positions that one unit of this digit stands for
    for (uint32_t digit = 0; digit < kTurnDigits; ++digit, step *= kDigit) {
      for (uint32_t n = 0; n < kDigit; ++n) {
        const size_t at = (static_cast<size_t>(digit) * kDigit + n) * t.pairs + i;
        t.page_cos[at] = std::cos(n * step * frequency);
        t.page_sin[at] = std::sin(n * step * frequency);
      }
    }
  }
  return t;
}

void page_turn(const Turns &turns, uint32_t page, float *cos, float *sin) noexcept {
  const uint32_t n = turns.pairs;
  const double *c[kTurnDigits], *s[kTurnDigits];
  for (uint32_t digit = 0; digit < kTurnDigits; ++digit) {
    const size_t row = digit * kDigit + (page >> (6 * digit)) % kDigit;
    c[digit] = turns.page_cos + row * n;
    s[digit] = turns.page_sin + row * n;
  }
  for (uint32_t i = 0; i < n; ++i) {
    double x = c[kTurnDigits - 1][i], y = s[kTurnDigits - 1][i];
    for (uint32_t digit = kTurnDigits - 1; digit-- > 0;) {
      const double turned = x * c[digit][i] - y * s[digit][i];
      y = x * s[digit][i] + y * c[digit][i];
      x = turned;
    }
    cos[i] = static_cast<float>(x);
    sin[i] = static_cast<float>(y);
  }
}

void to_planes(const Turns &turns, uint32_t dim, const float *natural, float *planes) noexcept {
  const uint32_t n = turns.pairs;
  if (!turns.interleaved) {
    std::memcpy(planes, natural, dim * sizeof(float));
    return;
  }
  for (uint32_t i = 0; i < n; ++i) {
    planes[i] = natural[2 * i];
    planes[n + i] = natural[2 * i + 1];
  }
  std::memcpy(planes + 2 * n, natural + 2 * n, (dim - 2 * n) * sizeof(float));
}

void from_planes(const Turns &turns, uint32_t dim, const float *planes, float *natural) noexcept {
  const uint32_t n = turns.pairs;
  if (!turns.interleaved) {
    std::memcpy(natural, planes, dim * sizeof(float));
    return;
  }
  for (uint32_t i = 0; i < n; ++i) {
    natural[2 * i] = planes[i];
    natural[2 * i + 1] = planes[n + i];
  }
  std::memcpy(natural + 2 * n, planes + 2 * n, (dim - 2 * n) * sizeof(float));
}

}  // namespace quire::kernels
