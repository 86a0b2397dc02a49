// Curves: rows that are one sweep, over threads, over the size of the cache or over the quantiles of
// a latency, as lines.
//
// Rows belong to one curve that name the same series of one benchmark (Row::series) and differ in
// threads alone, in pages alone, or in their quantile. Both axes are logarithmic: a straight line at
// 45 degrees is perfect scaling, and a factor is the same length anywhere. A quantile q stands at
// 1 / (1 - q): each nine takes the same room. Peers are drawn by name.
#include "curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

namespace quire::bench {
namespace {

using tools::Svg;

constexpr double kPanelWidth = 500, kPanelHeight = 352, kLeft = 64, kRight = 20, kTop = 40,
                 kBottom = 122;

// 128K, 1M: sizes of caches are powers of two more often than not.
std::string pages_text(double pages) {
  const auto n = static_cast<uint64_t>(pages);
  if (n != 0 && n % (1u << 20) == 0) return std::to_string(n >> 20) + "M";
  if (n != 0 && n % 1024 == 0) return std::to_string(n >> 10) + "K";
  return tools::short_number(pages);
}

enum class Sweep : uint8_t { kThreads, kPages, kQuantiles };

struct Panel {
  std::string title, unit;
  Sweep sweep;
  std::vector<const Row *> rows;  // rising by what is swept
  double x(const Row &row) const {
    switch (sweep) {
      case Sweep::kThreads:
        return row.threads;
      case Sweep::kPages:
        return row.pages;
      default:
        return 1 / (1 - row.quantile);
    }
  }
  std::string tick(const Row &row) const {
    return sweep == Sweep::kQuantiles ? fmt::format("p{:g}", row.quantile * 100)
           : sweep == Sweep::kPages   ? pages_text(x(row))
                                      : tools::short_number(x(row));
  }
  const char *axis() const {
    constexpr const char *kNames[] = {"threads", "pages", "share of calls that took no longer"};
    return kNames[static_cast<size_t>(sweep)];
  }
};

std::vector<Panel> panels(const std::vector<Section> &sections) {
  using Key = std::tuple<std::string, std::string, Sweep, uint32_t>;
  std::map<Key, Panel> found;
  const auto add = [&](const char *benchmark, const Row &row, Sweep sweep, uint32_t fixed,
                       const std::string &what) {
    Panel &panel = found[{benchmark, row.series, sweep, fixed}];
    panel.sweep = sweep;
    panel.unit = row.unit;
    panel.title = fmt::format("{}: {}{}", benchmark, row.series, what);
    panel.rows.push_back(&row);
  };
  for (const Section &section : sections)
    for (const Row &row : section.rows) {
      if (row.series.empty()) continue;
      const char *name = section.benchmark->name;
      if (row.quantile != 0) {
        add(name, row, Sweep::kQuantiles, 0, "");
        continue;
      }
      const std::string pages = row.pages == 0 ? "" : ", " + pages_text(row.pages) + " pages";
      add(name, row, Sweep::kThreads, row.pages, pages);
      const char *s = row.threads == 1 ? "" : "s";
      add(name, row, Sweep::kPages, row.threads, fmt::format(", {} thread{}", row.threads, s));
    }
  std::vector<Panel> out;
  for (auto &entry : found) {
    Panel &panel = entry.second;
    std::sort(panel.rows.begin(), panel.rows.end(),
              [&](const Row *a, const Row *b) { return panel.x(*a) < panel.x(*b); });
    if (panel.x(*panel.rows.front()) < panel.x(*panel.rows.back())) out.push_back(std::move(panel));
  }
  return out;
}

// One axis: values to pixels, by their logarithms.
struct Axis {
  double low, high, from, to;
  double at(double value) const {
    return from + (to - from) * std::log(value / low) / std::log(high / low);
  }
};

struct Line {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

std::vector<Line> lines(const Panel &panel) {
  std::vector<Line> all = {{"quire", {}}};
  for (const Row *row : panel.rows) {
    all[0].points.emplace_back(panel.x(*row), row->value.median);
    for (const Peer &peer : row->peers) {
      if (!peer.installed) continue;
      auto line = std::find_if(all.begin(), all.end(),
                               [&](const Line &candidate) { return candidate.name == peer.name; });
      if (line == all.end()) line = all.insert(all.end(), Line{peer.name, {}});
      line->points.emplace_back(panel.x(*row), peer.value.median);
    }
  }
  return all;
}

void draw_panel(Svg *svg, double left, double top, const Panel &panel) {
  const std::vector<Line> all = lines(panel);
  double low = INFINITY, high = 0;
  for (const Line &line : all)
    for (const auto &[x, y] : line.points) {
      if (y > 0) low = std::min(low, y);
      high = std::max(high, y);
    }
  if (!(high > 0)) return;
  low = std::pow(10, std::floor(std::log10(low)));
  high = std::pow(10, std::ceil(std::log10(high) + 1e-9));
  const Axis across{panel.x(*panel.rows.front()), panel.x(*panel.rows.back()), left + kLeft,
                    left + kPanelWidth - kRight};
  const Axis up{low, high, top + kPanelHeight - kBottom, top + kTop};
  svg->text(left + kLeft, top + 18, panel.title, Svg::Anchor::kStart, 13, "#222222", true);
  svg->text(left + kLeft, top + 33, panel.unit, Svg::Anchor::kStart, 11, "#666666");
  for (double tick = low; tick <= high * 1.001; tick *= 10) {
    svg->line(across.from, up.at(tick), across.to, up.at(tick), "#dddddd");
    svg->text(across.from - 6, up.at(tick) + 4, tools::short_number(tick), Svg::Anchor::kEnd, 11);
  }
  for (const Row *row : panel.rows) {
    const double x = across.at(panel.x(*row));
    svg->line(x, up.from, x, up.to, "#eeeeee");
    svg->text(x, up.from + 16, panel.tick(*row), Svg::Anchor::kMiddle, 11);
  }
  svg->text((across.from + across.to) / 2, up.from + 32, panel.axis(), Svg::Anchor::kMiddle, 11,
            "#666666");
  for (size_t i = 0; i < all.size(); ++i) {
    std::vector<std::pair<double, double>> points;
    for (const auto &[x, y] : all[i].points)
      if (y > 0) points.emplace_back(across.at(x), up.at(y));
    svg->polyline(points, tools::colour(i), i != 0);
    for (const auto &[x, y] : points) svg->box(x - 2.5, y - 2.5, 5, 5, tools::colour(i));
    const double key_x = left + kLeft + (i % 2 == 0 ? 0 : 210);
    const size_t key_row = i / 2;
    const double key_y = up.from + 50 + 16 * static_cast<double>(key_row);
    svg->box(key_x, key_y - 8, 10, 10, tools::colour(i));
    svg->text(key_x + 15, key_y + 1, all[i].name, Svg::Anchor::kStart, 11);
  }
}

}  // namespace

double curves_height(const std::vector<Section> &sections) {
  const size_t rows = (panels(sections).size() + 1) / 2;
  return kPanelHeight * static_cast<double>(rows);
}

void draw_curves(Svg *svg, double top, const std::vector<Section> &sections) {
  const std::vector<Panel> all = panels(sections);
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t row = i / 2;
    draw_panel(svg, i % 2 == 0 ? 0 : kPanelWidth, top + kPanelHeight * static_cast<double>(row),
               all[i]);
  }
}

}  // namespace quire::bench
