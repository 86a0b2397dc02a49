// The plot: curves of what was swept (curves.cpp), then a group of bars a row, ours and each peer's,
// scaled to the largest of the group; every bar carries its figure, and a mark shows the goal. Rows
// have different units, so only lengths within one group can be compared.
#include <fmt/format.h>

#include <algorithm>

#include "../common/svg.h"
#include "curves.h"
#include "report.h"

namespace quire::bench {
namespace {

using tools::Svg;

constexpr double kWidth = 1000, kBarLeft = 300, kBarRight = 860, kBar = 16, kStep = 20, kTop = 82,
                 kGap = 46;

double group_height(const Row &row) {
  return kGap + kStep * static_cast<double>(1 + row.peers.size());
}

void draw_bar(Svg *svg, double y, const std::string &name, double value, double most,
              const std::string &figure, const char *fill) {
  svg->text(kBarLeft - 8, y + 12, name, Svg::Anchor::kEnd);
  const double length = most > 0 ? (kBarRight - kBarLeft) * value / most : 0;
  svg->box(kBarLeft, y, std::max(length, 1.0), kBar, fill);
  svg->text(kBarLeft + std::max(length, 1.0) + 6, y + 12, figure);
}

void draw_row(Svg *svg, double top, const Benchmark &benchmark, const Row &row) {
  double most = std::max(row.value.median, row.goal.bound);
  for (const Peer &peer : row.peers)
    if (peer.installed) most = std::max(most, peer.value.median);
  svg->text(20, top + 14, fmt::format("{}: {}", benchmark.name, row.name), Svg::Anchor::kStart, 13,
            "#222222", true);
  svg->text(kWidth - 20, top + 14, met(row) ? "" : "falls short", Svg::Anchor::kEnd, 12, "#d55e00");
  double y = top + 24;
  draw_bar(svg, y, "quire", row.value.median, most,
           fmt::format("{} {}", tools::short_number(row.value.median), row.unit), tools::colour(0));
  if (row.goal.sense != Sense::kNone && most > 0) {
    const double x = kBarLeft + (kBarRight - kBarLeft) * row.goal.bound / most;
    svg->line(x, y - 3, x, y + kBar + 3, "#d55e00", 2);
  }
  for (const Peer &peer : row.peers) {
    y += kStep;
    if (peer.installed)
      draw_bar(svg, y, peer.name, peer.value.median, most,
               fmt::format("{}  ({:.2f}x)", tools::short_number(peer.value.median),
                           advantage(row, peer)),
               "#b0b0b0");
    else
      draw_bar(svg, y, peer.name, 0, most, "not installed", "#ffffff");
  }
}

}  // namespace

std::string plot(const std::vector<Section> &sections, const Machine &machine,
                 const Context &context) {
  const double curves = curves_height(sections);
  double height = kTop + 20 + curves;
  for (const Section &section : sections)
    for (const Row &row : section.rows) height += group_height(row);
  Svg svg(kWidth, height);
  svg.text(20, 28, "quire-bench", Svg::Anchor::kStart, 18, "#222222", true);
  svg.text(
      20, 48,
      fmt::format("{}, {} cores, load {:.2f} to {:.2f}, {}; medians of {} rounds{}", machine.cpu,
                  machine.cores, machine.load_before, machine.load_after, machine.date,
                  context.rounds, context.quick ? ", QUICK: not for quoting" : ""));
  svg.text(
      20, 64,
      "bars compare within a group only; the mark is the goal; Nx: times better than that peer");
  draw_curves(&svg, kTop, sections);
  double top = kTop + curves;
  for (const Section &section : sections)
    for (const Row &row : section.rows) {
      draw_row(&svg, top, *section.benchmark, row);
      top += group_height(row);
    }
  return svg.finish();
}

}  // namespace quire::bench
