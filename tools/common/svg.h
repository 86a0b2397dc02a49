// A small SVG writer for the tools' plots: text, lines, boxes, and axes whose ticks fall on round
// numbers. No fonts, scripts or links to anything outside; opens in any browser.
//
// Coordinates are pixels from the top left. Thread class: a plain object.
#ifndef QUIRE_TOOLS_COMMON_SVG_H
#define QUIRE_TOOLS_COMMON_SVG_H

#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quire::tools {

// Colours that stay apart for colour-blind readers (Okabe and Ito, 2008), dark enough on white.
inline constexpr const char *kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                           "#7a6a00", "#56b4e9", "#444444"};
inline const char *colour(size_t i) {
  return kColours[i % std::size(kColours)];
}

// Round values that cover [0 .. top] in at most `most` steps of 1, 2 or 5 times a power of ten.
inline std::vector<double> round_ticks(double top, int most) {
  if (!(top > 0)) top = 1;
  double step = std::pow(10, std::floor(std::log10(top / most)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0})
    if (top / (step * factor) <= most) {
      step *= factor;
      break;
    }
  std::vector<double> ticks;
  for (int i = 0; step * i <= top * (1 + 1e-9); ++i) ticks.push_back(step * i);
  return ticks;
}

// "1.2M", "340K", "0.25": short labels of ticks.
inline std::string short_number(double value) {
  const auto trim = [](double v, const char *suffix) { return fmt::format("{:.3g}{}", v, suffix); };
  if (value >= 1e9) return trim(value / 1e9, "G");
  if (value >= 1e6) return trim(value / 1e6, "M");
  if (value >= 1e4) return trim(value / 1e3, "K");
  return fmt::format("{:.4g}", value);
}

class Svg {
 public:
  enum class Anchor { kStart, kMiddle, kEnd };

  Svg(double width, double height) {
    body_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
        "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"sans-serif\" font-size=\"12\">\n"
        "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        width, height);
  }

  void text(double x, double y, std::string_view words, Anchor anchor = Anchor::kStart,
            int size = 12, const char *fill = "#222222", bool bold = false, bool upwards = false) {
    static constexpr const char *kAnchors[] = {"start", "middle", "end"};
    body_ += fmt::format(
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" font-size=\"{}\" fill=\"{}\"{}{}>{}"
        "</text>\n",
        x, y, kAnchors[static_cast<int>(anchor)], size, fill, bold ? " font-weight=\"bold\"" : "",
        upwards ? fmt::format(" transform=\"rotate(-90 {:.1f} {:.1f})\"", x, y) : std::string(),
        escaped(words));
  }

  void line(double x1, double y1, double x2, double y2, const char *stroke = "#222222",
            double width = 1, bool dashed = false) {
    body_ += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" "
        "stroke-width=\"{}\"{}/>\n",
        x1, y1, x2, y2, stroke, width, dashed ? " stroke-dasharray=\"5 4\"" : "");
  }

  void box(double x, double y, double width, double height, const char *fill,
           const char *stroke = "none") {
    body_ += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\" "
        "stroke=\"{}\"/>\n",
        x, y, width, height, fill, stroke);
  }

  void polyline(const std::vector<std::pair<double, double>> &points, const char *stroke,
                bool dashed = false) {
    body_ += fmt::format(
        "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" stroke-linejoin=\"round\"{} "
        "points=\"",
        stroke, dashed ? " stroke-dasharray=\"6 4\"" : "");
    for (const auto &[x, y] : points) body_ += fmt::format("{:.1f},{:.1f} ", x, y);
    body_ += "\"/>\n";
  }

  std::string finish() const { return body_ + "</svg>\n"; }

 private:
  static std::string escaped(std::string_view words) {
    std::string out;
    for (const char c : words) {
      switch (c) {
        case '<':
          out += "&lt;";
          break;
        case '>':
          out += "&gt;";
          break;
        case '&':
          out += "&amp;";
          break;
        default:
          out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
      }
    }
    return out;
  }

  std::string body_;
};

}  // namespace quire::tools

#endif  // QUIRE_TOOLS_COMMON_SVG_H
