// Curves of a run's sweeps, for its plot: throughput over threads, cost over the size of the cache.
// What belongs to one curve: curves.cpp. Thread class: plain functions.
#ifndef QUIRE_BENCH_CURVES_H
#define QUIRE_BENCH_CURVES_H

#include <vector>

#include "../common/svg.h"
#include "report.h"

namespace quire::bench {

// Pixels that draw_curves() takes below `top`; 0 where no rows are a sweep.
double curves_height(const std::vector<Section> &sections);
void draw_curves(tools::Svg *svg, double top, const std::vector<Section> &sections);

}  // namespace quire::bench

#endif  // QUIRE_BENCH_CURVES_H
