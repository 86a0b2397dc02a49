// Plan: how attention's work is cut into equal shares on the device, whatever the lengths are.
//
//   row    one query token of one q head; row r of a sequence is query r / group, head r % group
//   item   (sequence, tile of Plan::rows rows, KV head): rows that read the same K and V
//   unit   Plan::unit consecutive tokens of an item, always inside one page
//   work   units of all items, in the order (sequence, tile, head, unit)
// Worker w of n does the units [share_begin(w), share_begin(w + 1)). Every worker finds its own share
// from kv_lens and q_offsets, so the grid depends on bounds alone. All items of a sequence count as
// many units as the longest of them; a unit that no row of an item sees is passed over.
//
// An item within one worker's share is finished there. Others leave pieces in the workspace: a
// worker has at most one item that began before its share (piece 0) and one that goes on behind it
// (piece 1). Its joint names the latter; merge_kernel joins the pieces.
//
//   piece  = sums [rows][dim_v], peak [rows], weight [rows]      fp32, peak in units of log 2
// Invariant: weight 0 <=> the row saw no token; then sums are 0 and peak is not read.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/codec.h"
#include "kernels/cuda/codec_params.h"

namespace quire::kernels::cuda {

struct Joint {
  uint32_t followers;  // workers behind this one that have a part of the item; 0: none to join
  uint32_t sequence, tile, head;
  uint64_t work;
};

struct Plan {
  CudaCodec codec;
  AttentionArgs args;  // strides and scale resolved: none is 0
  uint32_t group, kv_heads, rows, unit, workers;
  uint32_t page_tokens, dim_k, dim_v;
  uint64_t sealed_offset, open_offset;  // of layer and head 0 in a frame
  uint64_t piece_floats;
  // The codebook's values times this are closer to halves than the values themselves are.
  float table_scale, table_inverse;
  Joint *joints;  // [workers]
  float *pieces;  // [workers][2][piece_floats]

  __host__ __device__ float *piece(uint32_t worker, uint32_t which) const {
    return pieces + (static_cast<uint64_t>(worker) * 2 + which) * piece_floats;
  }
};

inline constexpr float kLog2e = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

struct SequenceWork {
  int32_t kv_len, queries, first_query;
  uint32_t tiles, units;  // units of each item, at least 1
  uint64_t work;
};

__device__ inline SequenceWork sequence_work(const Plan &p, uint32_t b) {
  SequenceWork s;
  s.first_query = p.args.q_offsets[b];
  s.queries = p.args.q_offsets[b + 1] - s.first_query;
  s.kv_len = p.args.kv_lens[b];
  if (s.queries < 0) s.queries = 0;
  if (s.kv_len < 0) s.kv_len = 0;
  const uint32_t rows = static_cast<uint32_t>(s.queries) * p.group;
  s.tiles = (rows + p.rows - 1) / p.rows;
  s.units = (static_cast<uint32_t>(s.kv_len) + p.unit - 1) / p.unit;
  if (p.args.window != 0) {
    const uint64_t span = uint64_t{p.args.window} + (p.rows + p.group - 2) / p.group;
    const uint64_t most = (span + p.unit - 2) / p.unit + 1;
    if (most < s.units) s.units = static_cast<uint32_t>(most);
  }
  if (s.units == 0) s.units = 1;
  s.work = static_cast<uint64_t>(s.tiles) * p.kv_heads * s.units;
  return s;
}

// The tokens that row `row` of a sequence sees: [row_from, row_to), empty where row_to <= 0.
__device__ inline int32_t row_to(const Plan &p, const SequenceWork &s, uint32_t row) {
  return s.kv_len - s.queries + static_cast<int32_t>(row / p.group) + 1;
}
__device__ inline int32_t row_from(const Plan &p, int32_t to) {
  if (p.args.window == 0 || static_cast<int64_t>(to) <= static_cast<int64_t>(p.args.window)) {
    return 0;
  }
  return to - static_cast<int32_t>(p.args.window);
}

__device__ inline uint64_t warp_sum(uint64_t x) {
  for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
  return x;
}

// Work of all sequences. To be called by whole warps.
__device__ inline uint64_t total_work(const Plan &p) {
  uint64_t sum = 0;
  for (uint32_t b = threadIdx.x % 32; b < p.args.batch; b += 32) sum += sequence_work(p, b).work;
  return warp_sum(sum);
}

// Shares differ by one unit at most; the first work % workers are the longer ones.
__host__ __device__ inline uint64_t share_begin(uint64_t work, uint32_t workers, uint32_t w) {
  const uint64_t each = work / workers, rest = work - each * workers;
  return each * w + (w < rest ? w : rest);
}

// The worker whose share holds unit `at`.
__device__ inline uint32_t worker_of(uint64_t work, uint32_t workers, uint64_t at) {
  const uint64_t each = work / workers, rest = work - each * workers;
  const uint64_t longer = (each + 1) * rest;
  if (at < longer) return static_cast<uint32_t>(at / (each + 1));
  return static_cast<uint32_t>(rest + (at - longer) / each);
}

// Walks the segments (parts of items) of a share. All lanes of a warp hold the same state.
struct Walker {
  uint64_t at = 0, end = 0;  // what is left of the share
  uint64_t base = 0;         // work before sequence b
  uint32_t b = 0;
  SequenceWork s = {};

  // Whole warps: puts the walker at the sequence that holds `at`.
  __device__ void locate(const Plan &p) {
    const uint32_t lane = threadIdx.x % 32;
    uint64_t before = 0;
    for (uint32_t first = 0; first < p.args.batch; first += 32) {
      const uint32_t mine = first + lane;
      uint64_t sum = mine < p.args.batch ? sequence_work(p, mine).work : 0;
      for (uint32_t d = 1; d < 32; d *= 2) {
        const uint64_t other = __shfl_up_sync(~0u, sum, d);
        if (lane >= d) sum += other;
      }
      const uint32_t beyond = __ballot_sync(~0u, before + sum > at);
      if (beyond != 0) {
        const int hit = __ffs(static_cast<int>(beyond)) - 1;
        const uint64_t ahead = __shfl_sync(~0u, sum, hit > 0 ? hit - 1 : 0);
        b = first + static_cast<uint32_t>(hit);
        base = before + (hit > 0 ? ahead : 0);
        s = sequence_work(p, b);
        return;
      }
      before += __shfl_sync(~0u, sum, 31);
    }
    end = at;  // nothing there
  }

  __device__ bool done() const { return at >= end; }
};

struct Segment {
  uint32_t b, tile, head;
  uint32_t u0, u1;      // units of the item that are to be done here
  uint32_t units;       // of the item
  uint64_t item_begin;  // in work
  SequenceWork s;

  __device__ bool starts() const { return u0 == 0; }
  __device__ bool ends() const { return u1 == units; }
};

// The next segment of the share; the walker must not be done.
__device__ inline Segment next_segment(const Plan &p, Walker *w) {
  while (w->at >= w->base + w->s.work) {
    w->base += w->s.work;
    ++w->b;
    w->s = sequence_work(p, w->b);
  }
  Segment g;
  const uint64_t in = w->at - w->base;
  const auto item = static_cast<uint32_t>(in / w->s.units);
  g.b = w->b;
  g.tile = item / p.kv_heads;
  g.head = item % p.kv_heads;
  g.units = w->s.units;
  g.u0 = static_cast<uint32_t>(in - static_cast<uint64_t>(item) * g.units);
  g.item_begin = w->at - g.u0;
  const uint64_t stop = g.item_begin + g.units < w->end ? g.item_begin + g.units : w->end;
  g.u1 = static_cast<uint32_t>(stop - g.item_begin);
  g.s = w->s;
  w->at = stop;
  return g;
}

// The token that unit 0 of a tile begins with, and the end of what its rows see.
__device__ inline int32_t tile_first_token(const Plan &p, const SequenceWork &s, uint32_t tile) {
  const int32_t from = row_from(p, row_to(p, s, tile * p.rows));
  return from / static_cast<int32_t>(p.unit) * static_cast<int32_t>(p.unit);
}
__device__ inline uint32_t tile_rows(const Plan &p, const SequenceWork &s, uint32_t tile) {
  const uint32_t all = static_cast<uint32_t>(s.queries) * p.group;
  return all - tile * p.rows < p.rows ? all - tile * p.rows : p.rows;
}
__device__ inline int32_t tile_end_token(const Plan &p, const SequenceWork &s, uint32_t tile) {
  const int32_t to = row_to(p, s, tile * p.rows + tile_rows(p, s, tile) - 1);
  return to < s.kv_len ? to : s.kv_len;
}

__device__ inline int32_t table_entry(const Plan &p, uint32_t b, int32_t page) {
  if (static_cast<uint32_t>(page) >= p.args.block_table_stride) return -1;
  return p.args.block_table[static_cast<uint64_t>(b) * p.args.block_table_stride +
                            static_cast<uint32_t>(page)];
}

__device__ inline void write_joint(const Plan &p, uint32_t worker, uint64_t work,
                                   uint32_t followers, const Segment &g) {
  Joint j;
  j.followers = followers;
  j.sequence = g.b;
  j.tile = g.tile;
  j.head = g.head;
  j.work = work;
  p.joints[worker] = j;
}

// ---- values in and out

__device__ inline float load_as_float(DType type, const void *base, int64_t at) {
  switch (type) {
    case DType::kF16:
      return __half2float(static_cast<const __half *>(base)[at]);
    case DType::kBF16:
      return __bfloat162float(static_cast<const __nv_bfloat16 *>(base)[at]);
    default:
      return static_cast<const float *>(base)[at];
  }
}

__device__ inline void store_from_float(DType type, void *base, int64_t at, float x) {
  switch (type) {
    case DType::kF16:
      static_cast<__half *>(base)[at] = __float2half_rn(x);
      break;
    case DType::kBF16:
      static_cast<__nv_bfloat16 *>(base)[at] = __float2bfloat16_rn(x);
      break;
    default:
      static_cast<float *>(base)[at] = x;
      break;
  }
}

// Where row `row` of a sequence lies in q, out and lse.
struct RowPlace {
  int64_t q, out, lse;
};
__device__ inline RowPlace row_place(const Plan &p, const SequenceWork &s, uint32_t head,
                                     uint32_t row) {
  const int64_t token = s.first_query + static_cast<int32_t>(row / p.group);
  const int64_t q_head = head * p.group + row % p.group;
  return {token * p.args.q_token_stride + q_head * p.args.q_head_stride,
          token * p.args.out_token_stride + q_head * p.args.out_head_stride,
          token * p.args.q_heads + q_head};
}

__device__ inline float lse_of(float peak, float weight) {
  return weight == 0 ? -INFINITY : (peak + log2f(weight)) * kLn2;
}

// cos and sin of R(page) for one pair: rope.cpp's page_turn.
__device__ inline void page_turn_of(const Turns &t, uint32_t page, uint32_t pair, float *cos,
                                    float *sin) {
  double x = 0, y = 0;
  for (int digit = static_cast<int>(kTurnDigits) - 1; digit >= 0; --digit) {
    const uint64_t at =
        (static_cast<uint64_t>(digit) * 64 + (page >> (6 * digit)) % 64) * t.pairs + pair;
    const double c = t.page_cos[at], s = t.page_sin[at];
    if (digit == static_cast<int>(kTurnDigits) - 1) {
      x = c;
      y = s;
      continue;
    }
    const double turned = x * c - y * s;
    y = x * s + y * c;
    x = turned;
  }
  *cos = static_cast<float>(x);
  *sin = static_cast<float>(y);
}

}  // namespace quire::kernels::cuda
