// The shares of a prompt's attention (kernels/cuda/prefill_shares.h), on a CPU: whatever the lengths, every
// unit of every item is in exactly one share, and shares are of equal cost.
#define BOOST_TEST_MODULE prefill_shares
#include "kernels/cuda/prefill_shares.h"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <vector>

#include "tests/support/kernel_fixture.h"

using namespace quire::test;
using quire::kernels::cuda::kPrefillItem;
using quire::kernels::cuda::prefill_units;
using quire::kernels::cuda::PrefillWeights;

namespace {

constexpr uint32_t kUnit = 64;

struct Shape {
  int32_t kv_len, queries;
  uint32_t group, rows, heads, window;
};

// Units that rows of a tile see, as the kernel counts them.
uint32_t units_of(const Shape &s, uint32_t tile) {
  const auto all = static_cast<uint32_t>(s.queries) * s.group;
  const uint32_t top = tile * s.rows, last = std::min(top + s.rows, all) - 1;
  const auto seen = [&](uint32_t row) {
    return s.kv_len - s.queries + static_cast<int32_t>(row / s.group) + 1;
  };
  int32_t from = 0;
  if (s.window != 0) from = std::max(0, seen(top) - static_cast<int32_t>(s.window));
  from = from / static_cast<int32_t>(kUnit) * static_cast<int32_t>(kUnit);
  const int32_t to = std::min(seen(last), s.kv_len);
  return to > from ? (static_cast<uint32_t>(to - from) + kUnit - 1) / kUnit : 0;
}

PrefillWeights weights_of(const Shape &s) {
  return PrefillWeights::make(s.kv_len, s.queries, s.group, s.rows, kUnit, s.window);
}

std::vector<Shape> shapes() {
  std::vector<Shape> all = {{2048, 2048, 4, 128, 8, 0}, {32768, 2048, 4, 128, 8, 0},
                            {8192, 8, 4, 64, 8, 0},     {0, 5, 4, 128, 2, 0},
                            {2, 300, 7, 128, 3, 0},     {9000, 9000, 1, 128, 2, 1000},
                            {100, 0, 4, 128, 1, 0},     {131072, 16, 8, 128, 8, 0}};
  auto random = make_random(77);
  for (int i = 0; i < 200; ++i) {
    Shape s = {};
    s.queries = static_cast<int32_t>(random() % 3000);
    s.kv_len = static_cast<int32_t>(random() % 9000);
    s.group = 1 + static_cast<uint32_t>(random() % 9);
    s.rows = random() % 2 == 0 ? 64 : 128;
    s.heads = 1 + static_cast<uint32_t>(random() % 8);
    s.window = random() % 3 == 0 ? 1 + static_cast<uint32_t>(random() % 5000) : 0;
    all.push_back(s);
  }
  return all;
}

}  // namespace

BOOST_AUTO_TEST_CASE(sums_are_those_of_the_weights) {
  for (const Shape &s : shapes()) {
    const PrefillWeights w = weights_of(s);
    uint64_t sum = 0;
    for (uint32_t t = 0; t < w.tiles; ++t) {
      BOOST_REQUIRE_EQUAL(w.before(t), sum);
      BOOST_REQUIRE_GE(w.weight(t), 1u);
      for (const uint64_t in : {sum * s.heads, (sum + w.weight(t)) * s.heads - 1}) {
        BOOST_REQUIRE_EQUAL(w.tile_at(in, s.heads), t);
      }
      sum += w.weight(t);
    }
    BOOST_REQUIRE_EQUAL(w.before(w.tiles), sum);
  }
}

BOOST_AUTO_TEST_CASE(every_unit_is_in_one_share) {
  for (const Shape &s : shapes()) {
    const PrefillWeights w = weights_of(s);
    const uint64_t work = w.before(w.tiles) * s.heads;
    for (const uint64_t workers : {uint64_t{1}, uint64_t{132}, uint64_t{1000}}) {
      std::vector<std::vector<uint32_t>> done(size_t{w.tiles} * s.heads);
      for (size_t i = 0; i < done.size(); ++i) {
        done[i].resize(units_of(s, static_cast<uint32_t>(i / s.heads)));
      }
      for (uint64_t k = 0; k < workers; ++k) {
        uint64_t at = work * k / workers;
        const uint64_t end = work * (k + 1) / workers;
        while (at < end) {
          const uint32_t tile = w.tile_at(at, s.heads), weight = w.weight(tile);
          const uint64_t rest = at - w.before(tile) * s.heads, head = rest / weight;
          const auto rem = static_cast<uint32_t>(rest - head * weight);
          const uint64_t stop = std::min(at - rem + weight, end);
          std::vector<uint32_t> &item = done[tile * s.heads + head];
          const auto units = static_cast<uint32_t>(item.size());
          const uint32_t last =
              prefill_units(static_cast<uint32_t>(stop - (at - rem)), weight, units);
          for (uint32_t u = prefill_units(rem, weight, units); u < last; ++u) ++item[u];
          at = stop;
        }
      }
      for (const auto &item : done) {
        for (const uint32_t times : item) BOOST_REQUIRE_EQUAL(times, 1u);
      }
    }
  }
}

// What a weight is off from the tokens that are read: less than two units and a tile's own queries.
BOOST_AUTO_TEST_CASE(weights_are_what_items_cost) {
  for (const Shape &s : shapes()) {
    if (s.kv_len < s.queries) continue;
    const PrefillWeights w = weights_of(s);
    for (uint32_t t = 0; t < w.tiles; ++t) {
      const double tokens = double{1} * units_of(s, t) * kUnit + kPrefillItem;
      const double slack = 2.0 * kUnit + 2.0 * s.rows + w.tiles;  // w.tiles: a step is rounded up
      BOOST_TEST(std::abs(w.weight(t) - tokens) <= slack,
                 "tile " << t << " of " << s.kv_len << "/" << s.queries << ": " << w.weight(t)
                         << " for " << tokens);
    }
  }
}
