#include "units.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace quire_stat {
namespace {

// Three digits, whatever the size: 4.25, 42.5, 425.
std::string three_digits(double x) {
  if (x >= 99.95) return fmt::format("{:.0f}", x);
  return x >= 9.995 ? fmt::format("{:.1f}", x) : fmt::format("{:.2f}", x);
}

}  // namespace

std::string count(uint64_t n) {
  std::string text = fmt::format("{}", n);
  for (int at = static_cast<int>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

std::string brief(uint64_t n) {
  if (n < 1000000) return count(n);
  double x = static_cast<double>(n) / 1e6;
  const char *unit = "MGTPE";
  for (; x >= 999.5 && unit[1] != 0; ++unit) x /= 1000;
  return three_digits(x) + *unit;
}

std::string bytes(double n) {
  if (n < 1024) return fmt::format("{:.0f} B", n);
  static constexpr const char *kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  for (n /= 1024; n >= 999.5 && unit + 1 < std::size(kUnits); ++unit) n /= 1024;
  return three_digits(n) + " " + kUnits[unit];
}

std::string duration_ms(uint64_t ms) {
  const auto x = static_cast<double>(ms);
  if (ms < 1000) return fmt::format("{} ms", ms);
  if (x < 60e3) return fmt::format("{:.1f} s", x / 1e3);
  if (x < 3600e3) return fmt::format("{:.1f} min", x / 60e3);
  if (x < 24 * 3600e3) return fmt::format("{:.1f} h", x / 3600e3);
  return fmt::format("{:.1f} d", x / (24 * 3600e3));
}

std::string percent(double ratio) {
  return fmt::format("{:.1f} %", 100 * ratio);
}

std::string bar(double ratio, int width) {
  const double share = std::isfinite(ratio) ? std::clamp(ratio, 0.0, 1.0) : 0.0;
  // Neither empty nor full unless it is.
  int cells = static_cast<int>(std::lround(share * width));
  if (share > 0) cells = std::max(cells, 1);
  if (share < 1) cells = std::min(cells, width - 1);
  return std::string(static_cast<size_t>(cells), '#') +
         std::string(static_cast<size_t>(width - cells), '.');
}

}  // namespace quire_stat
