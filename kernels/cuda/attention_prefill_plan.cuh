// How the prefill kernel's work is cut: the items of attention_plan.cuh, in shares of equal weight
// (prefill_shares.h), which every worker finds from the lengths by itself.
//
// Thread class: kernels; all lanes of a warp hold the same state.
#pragma once

#include "kernels/cuda/attention_plan.cuh"
#include "kernels/cuda/prefill_shares.h"

namespace quire::kernels::cuda {

struct PrefillWork {
  SequenceWork s;  // its tiles; its units are not used here
  PrefillWeights weights;
  uint64_t work;
};

__device__ inline PrefillWork prefill_work(const Plan &p, uint32_t b) {
  PrefillWork w;
  w.s.first_query = p.args.q_offsets[b];
  w.s.queries = p.args.q_offsets[b + 1] - w.s.first_query;
  w.s.kv_len = p.args.kv_lens[b];
  if (w.s.queries < 0) w.s.queries = 0;
  if (w.s.kv_len < 0) w.s.kv_len = 0;
  w.weights = PrefillWeights::make(w.s.kv_len, w.s.queries, p.group, p.rows, p.unit, p.args.window);
  w.s.tiles = w.weights.tiles;
  w.s.units = 1;
  w.work = w.weights.before(w.weights.tiles) * p.kv_heads;
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
    while (in >= w_.weights.before(tile_ + 1) * p.kv_heads) ++tile_;
    PrefillSegment g;
    g.b = b_;
    g.tile = tile_;
    g.s = w_.s;
    g.weight = w_.weights.weight(tile_);
    const uint64_t rest = in - w_.weights.before(tile_) * p.kv_heads;
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
    g.u0 = prefill_units(rem, g.weight, units);
    g.u1 = prefill_units(rem1, g.weight, units);
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
        tile_ = w_.weights.tile_at(at_ - base_, p.kv_heads);
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
