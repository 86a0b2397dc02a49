// The product's inner kernel, compiled once per instruction set by Highway's foreach_target.
#include "matmul.h"

#include <algorithm>

// Targets whose vectors have no size at compile time cannot keep accumulators in an array.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#undef HWY_TARGET_INCLUDE
#if __has_include("tools/quire-demo/matmul.cpp")
#define HWY_TARGET_INCLUDE "tools/quire-demo/matmul.cpp"
#else
#define HWY_TARGET_INCLUDE "matmul.cpp"
#endif
#include <hwy/foreach_target.h>
// foreach_target.h has to come first.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace quire::demo::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = HWY_CAPPED(float, Matrix::kPanel);
constexpr size_t kVectors = Matrix::kPanel / MaxLanes(Tag());
// Twelve accumulators hide the latency of fused multiply-add and fit sixteen registers.
constexpr size_t kTileRows = kVectors >= 12 ? 1 : 12 / kVectors;

// y[kRows][width] of one panel; width < kPanel in the last one only.
template <size_t kRows>
HWY_INLINE void tile(const float *x, size_t inputs, const float *panel, float *y, size_t outputs,
                     size_t width) {
  const Tag d;
  using V = hn::Vec<Tag>;
  V sum[kRows][kVectors];
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(d);
  }
  for (size_t i = 0; i < inputs; ++i) {
    V w[kVectors];
    for (size_t v = 0; v < kVectors; ++v) {
      w[v] = hn::LoadU(d, panel + i * Matrix::kPanel + v * MaxLanes(d));
    }
    for (size_t r = 0; r < kRows; ++r) {
      const V a = hn::Set(d, x[r * inputs + i]);
      for (size_t v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(a, w[v], sum[r][v]);
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    float row[Matrix::kPanel];
    for (size_t v = 0; v < kVectors; ++v) hn::StoreU(sum[r][v], d, row + v * MaxLanes(d));
    std::copy_n(row, width, y + r * outputs);
  }
}

template <size_t kRows>
void remaining_rows(size_t rows, const float *x, size_t inputs, const float *panel, float *y,
                    size_t outputs, size_t width) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return tile<kRows>(x, inputs, panel, y, outputs, width);
    remaining_rows<kRows - 1>(rows, x, inputs, panel, y, outputs, width);
  }
}

void multiply_panels(const float *packed, size_t begin, size_t end, const float *x, size_t rows,
                     size_t inputs, float *y, size_t outputs) {
  for (size_t p = begin; p < end; ++p) {
    const float *panel = packed + p * inputs * Matrix::kPanel;
    float *column = y + p * Matrix::kPanel;
    const size_t width = std::min(Matrix::kPanel, outputs - p * Matrix::kPanel);
    size_t r = 0;
    for (; r + kTileRows <= rows; r += kTileRows) {
      tile<kTileRows>(x + r * inputs, inputs, panel, column + r * outputs, outputs, width);
    }
    remaining_rows<kTileRows - 1>(rows - r, x + r * inputs, inputs, panel, column + r * outputs,
                                  outputs, width);
  }
}

}  // namespace quire::demo::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quire::demo {

HWY_EXPORT(multiply_panels);

Matrix::Matrix(const float *weights, size_t outputs, size_t inputs)
    : outputs_(outputs), inputs_(inputs) {
  const size_t panels = (outputs + kPanel - 1) / kPanel;
  packed_.assign(panels * inputs * kPanel, 0.0F);
  for (size_t o = 0; o < outputs; ++o) {
    float *column = packed_.data() + (o / kPanel) * inputs * kPanel + o % kPanel;
    for (size_t i = 0; i < inputs; ++i) column[i * kPanel] = weights[o * inputs + i];
  }
}

void Matrix::multiply(const float *x, size_t rows, float *y, Workers &workers) const {
  const size_t panels = (outputs_ + kPanel - 1) / kPanel;
  const auto share = [&](size_t begin, size_t end) {
    HWY_DYNAMIC_DISPATCH(multiply_panels)
    (packed_.data(), begin, end, x, rows, inputs_, y, outputs_);
  };
  // Less is done sooner than a sleeping thread has woken up.
  constexpr size_t kWorthSharing = 12'000'000;
  if (rows * outputs_ * inputs_ < kWorthSharing) {
    share(0, panels);
  } else {
    workers.for_each(panels, share);
  }
}

}  // namespace quire::demo
#endif  // HWY_ONCE
