// How the prefill kernel's work is cut: equal shares although later rows of a prompt see more.
//
// Items are those of attention_plan.cuh, but each counts what it costs: the tokens that its last row
// sees, as a linear function of the tile (so that sums need no loop),
//     weight(tile) = min(first + tile * step, most)          most: where a window ends the growth
//     work         = weights of all items, in the order (sequence, tile, head)
// A share that ends in an item at `rem` of its weight ends at unit rem * units / weight of it, found by
// the same division on both sides.
//
// Thread class: kernels; all lanes of a warp hold the same state.
#pragma once

#include "kernels/cuda/attention_plan.cuh"

namespace quire::kernels::cuda {

struct PrefillWork {
  SequenceWork s;  // its units and work are not used here
  uint32_t first, step, most, bend;  // tiles from `bend` on weigh `most`
  uint64_t work;

  __device__ uint32_t weight(uint32_t tile) const {
    return tile < bend ? first + tile * step : most;
  }
  // Of one head, all tiles before this one.
  __device__ uint64_t before(uint32_t tile) const {
    const uint64_t n = tile < bend ? tile : bend;
    const uint64_t growing = n == 0 ? 0 : n * first + n * (n - 1) / 2 * step;
    return growing + (tile - n) * most;
  }
};

__device__ inline PrefillWork prefill_work(const Plan &p, uint32_t b) {
  PrefillWork w;
  w.s.first_query = p.args.q_offsets[b];
  w.s.queries = p.args.q_offsets[b + 1] - w.s.first_query;
  w.s.kv_len = p.args.kv_lens[b];
  if (w.s.queries < 0) w.s.queries = 0;
  if (w.s.kv_len < 0) w.s.kv_len = 0;
  const uint32_t rows = static_cast<uint32_t>(w.s.queries) * p.group;
  w.s.tiles = (rows + p.rows - 1) / p.rows;
  w.s.units = 1;
  const uint32_t last = rows < p.rows ? rows : p.rows;
  int32_t seen = w.s.tiles == 0 ? 0 : row_to(p, w.s, last - 1);
  seen = seen < 1 ? 1 : seen;
  w.step = (p.rows + p.group - 1) / p.group;
  w.most = ~0u;
  w.bend = w.s.tiles;
  if (p.args.window != 0) {
    const uint64_t span = uint64_t{p.args.window} + w.step + p.unit;
    w.most = span < 0x7fffffffu ? static_cast<uint32_t>(span) : 0x7fffffffu;
  }
  w.first = static_cast<uint32_t>(seen) < w.most ? static_cast<uint32_t>(seen) : w.most;
  const uint32_t bend = (w.most - w.first) / w.step + 1;
  if (bend < w.bend) w.bend = bend;
  w.work = w.before(w.s.tiles) * p.kv_heads;
  w.s.work = w.work;
  return w;
}

__device__ inline uint64_t total_prefill_work(const Plan &p) {
  uint64_t sum = 0;
  for (uint32_t b = threadIdx.x % 32; b < p.args.batch; b += 32) sum += prefill_work(p, b).work;
  return warp_sum(sum);
}

struct PrefillSegment {
  uint32_t b, tile, head;
  uint32_t u0, u1;  // units of the tile that are to be done here
  int32_t first;    // token that unit 0 begins with
  bool starts, ends;
  uint64_t item_begin;
  uint32_t weight;
  SequenceWork s;
};

class PrefillWalker {
 public:
  __device__ PrefillWalker(const Plan &p, uint64_t work, uint32_t worker)
      : at_(share_begin(work, p.workers, worker)), end_(share_begin(work, p.workers, worker + 1)) {
    if (!done()) locate(p);
  }
  __device__ bool done() const { return at_ >= end_; }

  // The next part of the share; the walker must not be done.
  __device__ PrefillSegment next(const Plan &p) {
    while (at_ >= base_ + w_.work) {
      base_ += w_.work;
      w_ = prefill_work(p, ++b_);
      tile_ = 0;
    }
    const uint64_t in = at_ - base_;
    while (in >= w_.before(tile_ + 1) * p.kv_heads) ++tile_;
    PrefillSegment g;
    g.b = b_;
    g.tile = tile_;
    g.s = w_.s;
    g.weight = w_.weight(tile_);
    const uint64_t rest = in - w_.before(tile_) * p.kv_heads;
    g.head = static_cast<uint32_t>(rest / g.weight);
    const auto rem = static_cast<uint32_t>(rest - uint64_t{g.head} * g.weight);
    g.item_begin = at_ - rem;
    const uint64_t stop = g.item_begin + g.weight < end_ ? g.item_begin + g.weight : end_;
    const auto rem1 = static_cast<uint32_t>(stop - g.item_begin);
    g.starts = rem == 0;
    g.ends = rem1 == g.weight;
    g.first = tile_first_token(p, g.s, tile_);
    const int32_t last = tile_end_token(p, g.s, tile_);
    const uint32_t units =
        last > g.first ? (static_cast<uint32_t>(last - g.first) + p.unit - 1) / p.unit : 0;
    g.u0 = static_cast<uint32_t>(uint64_t{rem} * units / g.weight);
    g.u1 = static_cast<uint32_t>(uint64_t{rem1} * units / g.weight);
    at_ = stop;
    return g;
  }

 private:
  __device__ void locate(const Plan &p) {
    const uint32_t lane = threadIdx.x % 32;
    uint64_t before = 0;
    for (uint32_t first = 0; first < p.args.batch; first += 32) {
      const uint32_t mine = first + lane;
      uint64_t sum = mine < p.args.batch ? prefill_work(p, mine).work : 0;
      for (uint32_t d = 1; d < 32; d *= 2) {
        const uint64_t other = __shfl_up_sync(~0u, sum, d);
        if (lane >= d) sum += other;
      }
      const uint32_t beyond = __ballot_sync(~0u, before + sum > at_);
      if (beyond != 0) {
        const int hit = __ffs(static_cast<int>(beyond)) - 1;
        const uint64_t ahead = __shfl_sync(~0u, sum, hit > 0 ? hit - 1 : 0);
        b_ = first + static_cast<uint32_t>(hit);
        base_ = before + (hit > 0 ? ahead : 0);
        w_ = prefill_work(p, b_);
        uint32_t low = 0, high = w_.s.tiles;  // before(low) <= in < before(high)
        while (high - low > 1) {
          const uint32_t mid = (low + high) / 2;
          if (w_.before(mid) * p.kv_heads <= at_ - base_) {
            low = mid;
          } else {
            high = mid;
          }
        }
        tile_ = low;
        return;
      }
      before += __shfl_sync(~0u, sum, 31);
    }
    end_ = at_;  // nothing there
  }

  uint64_t at_, end_;  // what is left of the share
  uint64_t base_ = 0;  // work before sequence b_
  uint32_t b_ = 0, tile_ = 0;
  PrefillWork w_ = {};
};

}  // namespace quire::kernels::cuda
