// What the items of a prompt weigh, so that equal shares of weight are equal shares of work.
//
// An item is (sequence, tile of rows of q, KV head). Later rows see more tokens, so an item weighs what its
// last row sees, and kPrefillItem for its start and end, as a linear function of the tile, whose sums need
// no loop:
//     weight(tile) = min(first + tile * step, most)        most: where a window ends the growth
//     before(tile) = sum of weight(t), t < tile
// The weights of a sequence lie in the order (tile, head). A share that ends `rem` into an item ends at unit
// prefill_units(rem, ...) of it: both workers that meet there find the same unit.
//
// Invariants: weight >= 1; before(0) == 0; before(t + 1) - before(t) == weight(t).
// Plain arithmetic, for kernels and for the tests of a CPU. Thread class: any.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define QUIRE_SHARES_HD __host__ __device__
#else
#define QUIRE_SHARES_HD
#endif

namespace quire::kernels::cuda {

// Tokens that could be read while an item's rows are loaded, and its results written.
inline constexpr uint32_t kPrefillItem = 512;

struct PrefillWeights {
  uint32_t tiles = 0;
  uint32_t first = 1, step = 1, most = ~0u;
  uint32_t bend = 0;  // tiles from this one on weigh `most`

  // group: q heads of a KV head; rows: of a tile; unit: tokens that cannot be divided.
  QUIRE_SHARES_HD static PrefillWeights make(int32_t kv_len, int32_t queries, uint32_t group,
                                             uint32_t rows, uint32_t unit, uint32_t window) {
    PrefillWeights w;
    const uint32_t all = static_cast<uint32_t>(queries) * group;
    w.tiles = (all + rows - 1) / rows;
    w.step = (rows + group - 1) / group;
    const uint32_t last = (all < rows ? all : rows) / group;
    const int32_t seen = kv_len - queries + static_cast<int32_t>(last);
    if (window != 0) {
      const uint64_t span = uint64_t{window} + w.step + unit + kPrefillItem;
      w.most = span < 0x7fffffffu ? static_cast<uint32_t>(span) : 0x7fffffffu;
    }
    w.first = kPrefillItem + (seen < 1 ? 1 : static_cast<uint32_t>(seen));
    if (w.first > w.most) w.first = w.most;
    const uint32_t bend = (w.most - w.first) / w.step + 1;
    w.bend = bend < w.tiles ? bend : w.tiles;
    return w;
  }

  QUIRE_SHARES_HD uint32_t weight(uint32_t tile) const {
    return tile < bend ? first + tile * step : most;
  }
  QUIRE_SHARES_HD uint64_t before(uint32_t tile) const {
    const uint64_t n = tile < bend ? tile : bend;
    const uint64_t growing = n == 0 ? 0 : n * first + n * (n - 1) / 2 * step;
    return growing + (tile - n) * most;
  }
  // The tile that holds weight `in` of a sequence, in < before(tiles) * heads.
  QUIRE_SHARES_HD uint32_t tile_at(uint64_t in, uint32_t heads) const {
    uint32_t low = 0, high = tiles;  // before(low) * heads <= in < before(high) * heads
    while (high - low > 1) {
      const uint32_t mid = (low + high) / 2;
      if (before(mid) * heads <= in) {
        low = mid;
      } else {
        high = mid;
      }
    }
    return low;
  }
};

// The unit, of an item's `units`, at which a share ends that takes `rem` of its weight.
QUIRE_SHARES_HD inline uint32_t prefill_units(uint32_t rem, uint32_t weight, uint32_t units) {
  return static_cast<uint32_t>(uint64_t{rem} * units / weight);
}

}  // namespace quire::kernels::cuda
