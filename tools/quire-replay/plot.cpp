// The plot. One size of the cache: hit ratio of windows of requests, so that one sees where in the
// trace a policy wins; the legend has the ratio of the whole run. Several: hit ratio over the size.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "../common/svg.h"
#include "report.h"

namespace quire::replay {
namespace {

using tools::Svg;

constexpr double kWidth = 960, kPanel = 330, kLeft = 64, kRight = 24, kTop = 64, kBottom = 52;
constexpr size_t kWindows = 80;

// One panel: [left, right] x [top, bottom] in pixels is [0, requests] x [0, ratio_top].
struct Frame {
  double left, right, top, bottom, requests, ratio_top;
  double x(double request) const { return left + (right - left) * request / requests; }
  double y(double ratio) const { return bottom - (bottom - top) * ratio / ratio_top; }
};

// (middle of the window, its hit ratio), windows of equally many requests.
std::vector<std::pair<double, double>> windows(const Run &run) {
  const auto &requests = run.trace->requests;
  const size_t windows = std::min(kWindows, requests.size());
  std::vector<std::pair<double, double>> points;
  for (size_t w = 0; w < windows; ++w) {
    const size_t begin = requests.size() * w / windows, end = requests.size() * (w + 1) / windows;
    uint64_t hits = 0, referenced = 0;
    for (size_t r = begin; r < end; ++r) {
      hits += run.result.request_hits[r];
      referenced += requests[r].end - requests[r].begin;
    }
    if (referenced != 0)
      points.emplace_back(static_cast<double>(begin + end) / 2,
                          static_cast<double>(hits) / static_cast<double>(referenced));
  }
  return points;
}

void draw_ratios(Svg *svg, const Frame &f) {
  for (const double ratio : tools::round_ticks(f.ratio_top, 5)) {
    svg->line(f.left, f.y(ratio), f.right, f.y(ratio), "#dddddd");
    svg->text(f.left - 8, f.y(ratio) + 4, fmt::format("{:.3g} %", ratio * 100), Svg::Anchor::kEnd);
  }
  svg->line(f.left, f.bottom, f.right, f.bottom);
  svg->line(f.left, f.top, f.left, f.bottom);
  svg->text(16, (f.top + f.bottom) / 2, "hit ratio", Svg::Anchor::kMiddle, 12, "#222222", false,
            true);
}

void draw_axes(Svg *svg, const Frame &f) {
  draw_ratios(svg, f);
  for (const double request : tools::round_ticks(f.requests, 8)) {
    svg->line(f.x(request), f.bottom, f.x(request), f.bottom + 4);
    svg->text(f.x(request), f.bottom + 18, tools::short_number(request), Svg::Anchor::kMiddle);
  }
  svg->text((f.left + f.right) / 2, f.bottom + 36, "requests", Svg::Anchor::kMiddle);
}

// All runs of one trace, whose sizes differ: a line a policy, sizes on a logarithmic axis.
void draw_sizes(Svg *svg, double top, const std::vector<const Run *> &runs) {
  double least = 1e18, largest = 0, most = 0.05;
  std::vector<std::string> policies;
  for (const Run *run : runs) {
    least = std::min(least, static_cast<double>(run->options.pages));
    largest = std::max(largest, static_cast<double>(run->options.pages));
    most = std::max(most, run->result.hit_ratio());
    if (std::find(policies.begin(), policies.end(), run->policy) == policies.end())
      policies.push_back(run->policy);
  }
  const Frame frame{kLeft,
                    kWidth - kRight,
                    top + kTop,
                    top + kPanel - kBottom,
                    std::log(largest / least),
                    std::min(1.0, most * 1.05)};
  svg->text(kLeft, top + 22, runs.front()->trace->name, Svg::Anchor::kStart, 15, "#222222", true);
  draw_ratios(svg, frame);
  for (const Run *run : runs) {
    if (run->policy != policies.front()) continue;
    const double x = frame.x(std::log(run->options.pages / least));
    svg->line(x, frame.bottom, x, frame.bottom + 4);
    svg->text(x, frame.bottom + 18, tools::short_number(run->options.pages), Svg::Anchor::kMiddle);
  }
  svg->text((frame.left + frame.right) / 2, frame.bottom + 36, "pages that the cache holds",
            Svg::Anchor::kMiddle);
  double x = kLeft;
  for (size_t i = 0; i < policies.size(); ++i) {
    std::vector<std::pair<double, double>> points;
    bool simulated = false;
    for (const Run *run : runs) {
      if (run->policy != policies[i]) continue;
      simulated = run->simulated;
      points.emplace_back(frame.x(std::log(run->options.pages / least)),
                          frame.y(run->result.hit_ratio()));
    }
    std::sort(points.begin(), points.end());
    svg->polyline({{x, top + 40}, {x + 26, top + 40}}, tools::colour(i), simulated);
    svg->text(x + 32, top + 44, policies[i]);
    x += 60 + 7.2 * static_cast<double>(policies[i].size());
    svg->polyline(points, tools::colour(i), simulated);
  }
}

// All runs of one trace, at one size.
void draw_panel(Svg *svg, double top, const std::vector<const Run *> &runs) {
  std::vector<std::vector<std::pair<double, double>>> lines;
  double most = 0.05;
  for (const Run *run : runs) {
    lines.push_back(windows(*run));
    for (const auto &point : lines.back()) most = std::max(most, point.second);
  }
  const Frame frame{kLeft,
                    kWidth - kRight,
                    top + kTop,
                    top + kPanel - kBottom,
                    static_cast<double>(runs.front()->trace->requests.size()),
                    std::min(1.0, most * 1.05)};
  const Options &options = runs.front()->options;
  svg->text(kLeft, top + 22,
            fmt::format("{} - cache of {} pages of {} tokens", runs.front()->trace->name,
                        options.pages, options.page_tokens),
            Svg::Anchor::kStart, 15, "#222222", true);
  draw_axes(svg, frame);
  double x = kLeft;
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string label =
        fmt::format("{} {:.2f} %", runs[i]->policy, runs[i]->result.hit_ratio() * 100);
    svg->polyline({{x, top + 40}, {x + 26, top + 40}}, tools::colour(i), runs[i]->simulated);
    svg->text(x + 32, top + 44, label);
    x += 60 + 7.2 * static_cast<double>(label.size());
    std::vector<std::pair<double, double>> points;
    for (const auto &[request, ratio] : lines[i])
      points.emplace_back(frame.x(request), frame.y(ratio));
    svg->polyline(points, tools::colour(i), runs[i]->simulated);
  }
}

}  // namespace

std::string plot(const std::vector<Run> &runs) {
  std::vector<std::vector<const Run *>> panels;
  for (const Run &run : runs) {
    if (panels.empty() || panels.back().front()->trace != run.trace) panels.emplace_back();
    panels.back().push_back(&run);
  }
  Svg svg(kWidth, kPanel * static_cast<double>(panels.size()));
  for (size_t p = 0; p < panels.size(); ++p) {
    const bool sizes = std::any_of(panels[p].begin(), panels[p].end(), [&](const Run *run) {
      return run->options.pages != panels[p].front()->options.pages;
    });
    (sizes ? draw_sizes : draw_panel)(&svg, kPanel * static_cast<double>(p), panels[p]);
  }
  return svg.finish();
}

}  // namespace quire::replay
