// Attention for any layout: one warp a row of q, one token after the other, everything in fp32.
//
// Correct for every format, head dim, page size and stride, and written to be read beside the
// formula, not to be fast: each row decodes its keys and values anew. Lanes work on
// channels lane, lane + 32, ...; the logits of 8 tokens are summed over lanes at once. In shared
// memory lie the sums and, three times, the query: plain, rotated, turned to the page.
//
// Sums are in the domain (rotated or not) of the pages being read and change it where a sealed page
// meets an open one. Anchored pages: see kernels/attention.cpp and decisions/0001.
//
// Cost: about 100 instructions a token, row and 32 channels. Thread class: kernels.
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_plan.cuh"

namespace quire::kernels::cuda {
namespace {

constexpr uint32_t kWarps = 4;
constexpr uint32_t kUnit = 8;  // divides every page_tokens
constexpr float kNoPeak = -1e30f;

uint32_t warp_floats(const Plan &p) {
  const uint32_t widest = p.dim_k > p.dim_v ? p.dim_k : p.dim_v;
  return 4 * widest;
}

struct WarpMemory {
  float *q, *rotated, *turned, *sums;
};

__device__ float warp_add(float x) {
  for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
  return x;
}

// Value i (rotated, minus its anchor) of a row, as page_format.h defines it. A call: inlined into
// the unrolled loops it took the compiler a quarter of a minute.
__device__ __noinline__ float decode(const quire_part_layout &part, const float *book,
                                     const uint8_t *chunk, uint32_t exponent, uint32_t token,
                                     uint32_t i) {
  const uint8_t *row = chunk + quire_row_offset(&part, token);
  switch (part.codec.codebook) {
    case QUIRE_CODEBOOK_F16:
      return __half2float(reinterpret_cast<const __half *>(row)[i]);
    case QUIRE_CODEBOOK_BF16:
      return __bfloat162float(reinterpret_cast<const __nv_bfloat16 *>(row)[i]);
    case QUIRE_CODEBOOK_F32:
      return reinterpret_cast<const float *>(row)[i];
    default:
      break;
  }
  const uint8_t *at = chunk + quire_scale_offset(&part, token, i / part.block);
  const float scale = part.codec.scale == QUIRE_SCALE_F16
                          ? __half2float(*reinterpret_cast<const __half *>(at))
                          : quire_e4m3_scale(*at, exponent);
  float value;
  if (part.codec.codebook == QUIRE_CODEBOOK_INT8) {
    const auto code = static_cast<int8_t>(row[quire_code_position(&part, i)]);
    value = static_cast<float>(code) * (1.0f / 128);
  } else {
    value = book[quire_code4(&part, row, i)];
  }
  return __half2float(__float2half_rn(__fmul_rn(value, scale)));
}

// Rotates a row of n values in shared memory: runs of `size`, divided by 2^shift.
__device__ void rotate(float *x, uint32_t n, uint32_t size, uint32_t shift) {
  const uint32_t lane = threadIdx.x % 32;
  for (uint32_t stride = 1; stride < size; stride *= 2) {
    __syncwarp();
    for (uint32_t pair = lane; pair < n / 2; pair += 32) {
      const uint32_t i = pair / stride * 2 * stride + pair % stride;
      const float a = x[i], b = x[i + stride];
      x[i] = a + b;
      x[i + stride] = a - b;
    }
  }
  __syncwarp();
  const float factor = ldexpf(1.0f, -static_cast<int>(shift));
  for (uint32_t i = lane; i < n; i += 32) x[i] *= factor;
  __syncwarp();
}

// Natural position of element i of a row in planes.
__device__ uint32_t natural_of(const Turns &t, uint32_t i) {
  if (t.interleaved == 0 || i >= 2 * t.pairs) return i;
  return i < t.pairs ? 2 * i : 2 * (i - t.pairs) + 1;
}

class Row {
 public:
  __device__ Row(const Plan &p, const WarpMemory &m, const Segment &g)
      : p_(p), m_(m), g_(g), lane_(threadIdx.x % 32), place_(row_place(p, g.s, g.head, g.tile)) {
    to_ = row_to(p, g.s, g.tile);
    from_ = row_from(p, to_);
    if (to_ > g.s.kv_len) to_ = g.s.kv_len;
    load_query();
  }

  __device__ void run() {
    const int32_t first = tile_first_token(p_, g_.s, g_.tile);
    for (uint32_t u = g_.u0; u < g_.u1; ++u) {
      const int32_t token = first + static_cast<int32_t>(u * kUnit);
      if (token >= to_) break;
      read_unit(token);
    }
    set_domain(false);
  }

  __device__ void finish(float *piece) {
    const uint32_t dim = p_.dim_v;
    const float factor = weight_ == 0 ? 0.0f : 1.0f / weight_;
    for (uint32_t d = lane_; d < dim; d += 32) {
      if (piece != nullptr) {
        piece[d] = m_.sums[d];
      } else {
        store_from_float(p_.args.out_dtype, p_.args.out, place_.out + d, m_.sums[d] * factor);
      }
    }
    if (lane_ != 0) return;
    if (piece != nullptr) {
      piece[dim] = peak_;
      piece[dim + 1] = weight_;
    } else if (p_.args.lse != nullptr) {
      p_.args.lse[place_.lse] = lse_of(peak_, weight_);
    }
  }

 private:
  __device__ void load_query() {
    __syncwarp();
    for (uint32_t d = lane_; d < p_.dim_k; d += 32) {
      const float x = load_as_float(p_.args.q_dtype, p_.args.q, place_.q + d) * p_.args.scale;
      m_.q[d] = x;
      m_.rotated[d] = x;
    }
    for (uint32_t d = lane_; d < p_.dim_v; d += 32) m_.sums[d] = 0;
    const quire_part_layout &k = p_.codec.sealed.k;
    if (k.rotation_size > 1) rotate(m_.rotated, p_.dim_k, k.rotation_size, k.rotation_read);
    __syncwarp();
  }

  __device__ void turn_query(uint32_t page) {
    if (page == turned_page_) return;
    turned_page_ = page;
    const Turns &t = p_.codec.turns;
    __syncwarp();
    for (uint32_t i = lane_; i < t.pairs; i += 32) {
      float c, s;
      page_turn_of(t, page, i, &c, &s);
      const float x = m_.q[natural_of(t, i)], y = m_.q[natural_of(t, t.pairs + i)];
      m_.turned[i] = c * x + s * y;
      m_.turned[t.pairs + i] = c * y - s * x;
    }
    for (uint32_t i = 2 * t.pairs + lane_; i < p_.dim_k; i += 32) m_.turned[i] = m_.q[i];
    __syncwarp();
  }

  // This lane's part of q . anchor for token j of the page that the query is turned to.
  __device__ float anchor_part(uint32_t j) const {
    const Turns &t = p_.codec.turns;
    const float *b =
        p_.codec.means + (static_cast<uint64_t>(p_.args.layer) * p_.kv_heads + g_.head) * p_.dim_k;
    float sum = 0;
    for (uint32_t i = lane_; i < t.pairs; i += 32) {
      const float c = t.token_cos[j * t.pairs + i], s = t.token_sin[j * t.pairs + i];
      const float x = b[i], y = b[t.pairs + i];
      sum = fmaf(m_.turned[i], c * x - s * y, sum);
      sum = fmaf(m_.turned[t.pairs + i], c * y + s * x, sum);
    }
    for (uint32_t i = 2 * t.pairs + lane_; i < p_.dim_k; i += 32) {
      sum = fmaf(m_.turned[i], b[i], sum);
    }
    return sum;
  }

  __device__ void read_unit(int32_t first) {
    const auto tokens = static_cast<int32_t>(p_.page_tokens);
    const int32_t entry = table_entry(p_, g_.b, first / tokens);
    if (entry == -1) return;
    const bool open = entry_is_open(entry);
    const quire_page_layout &layout = open ? p_.codec.open : p_.codec.sealed;
    const FrameView &view = open ? p_.args.frames.open : p_.args.frames.sealed;
    const uint8_t *chunk = view.base + entry_frame(entry) * view.stride +
                           quire_head_offset(&layout, p_.args.layer, g_.head);
    const quire_head_statistics *statistics =
        layout.statistics != 0
            ? reinterpret_cast<const quire_head_statistics *>(chunk + layout.statistics)
            : nullptr;
    const bool anchored = statistics != nullptr && (statistics->flags & QUIRE_HEAD_ANCHORED) != 0;
    if (anchored) turn_query(statistics->page_index);
    set_domain(layout.v.rotation_size > 1);
    const float *q = layout.k.rotation_size > 1 ? m_.rotated : m_.q;
    const uint32_t k_exponent = statistics != nullptr ? statistics->k_exponent : 0;
    const uint32_t v_exponent = statistics != nullptr ? statistics->v_exponent : 0;
    const auto j0 = static_cast<uint32_t>(first % tokens);
    float logits[kUnit];
#pragma unroll
    for (uint32_t j = 0; j < kUnit; ++j) {
      float sum = 0;
      for (uint32_t d = lane_; d < p_.dim_k; d += 32) {
        sum = fmaf(q[d], decode(layout.k, p_.codec.values, chunk, k_exponent, j0 + j, d), sum);
      }
      if (anchored) sum += anchor_part(j0 + j);
      logits[j] = warp_add(sum);
    }
    float here = kNoPeak;
#pragma unroll
    for (uint32_t j = 0; j < kUnit; ++j) {
      const int32_t token = first + static_cast<int32_t>(j);
      const bool seen = token >= from_ && token < to_;
      float x = logits[j];
      if (p_.args.soft_cap != 0) x = p_.args.soft_cap * tanhf(x / p_.args.soft_cap);
      logits[j] = seen ? x * kLog2e : -INFINITY;
      if (seen && logits[j] > here) here = logits[j];
    }
    float factor = 1;
    if (here > peak_) {
      factor = exp2f(peak_ - here);
      peak_ = here;
    }
    float weights[kUnit];
    weight_ *= factor;
#pragma unroll
    for (uint32_t j = 0; j < kUnit; ++j) {
      weights[j] = logits[j] == -INFINITY ? 0.0f : exp2f(logits[j] - peak_);
      weight_ += weights[j];
    }
    for (uint32_t d = lane_; d < p_.dim_v; d += 32) {
      float sum = m_.sums[d] * factor;
#pragma unroll
      for (uint32_t j = 0; j < kUnit; ++j) {
        if (weights[j] == 0) continue;  // what was never written may be no number
        sum =
            fmaf(weights[j], decode(layout.v, p_.codec.values, chunk, v_exponent, j0 + j, d), sum);
      }
      m_.sums[d] = sum;
    }
  }

  __device__ void set_domain(bool rotated) {
    if (rotated == rotated_) return;
    rotated_ = rotated;
    const quire_part_layout &v = p_.codec.sealed.v;
    rotate(m_.sums, p_.dim_v, v.rotation_size, rotated ? v.rotation_stored : v.rotation_read);
  }

  const Plan &p_;
  const WarpMemory &m_;
  const Segment &g_;
  const uint32_t lane_;
  const RowPlace place_;
  int32_t from_, to_;
  uint32_t turned_page_ = ~0u;
  bool rotated_ = false;
  float peak_ = kNoPeak, weight_ = 0;
};

__global__ void __launch_bounds__(kWarps * 32)
    generic_kernel(const __grid_constant__ Plan p, uint32_t floats) {
  extern __shared__ float memory[];
  const uint32_t warp = threadIdx.x / 32, worker = blockIdx.x * kWarps + warp;
  float *mine = memory + warp * floats;
  const WarpMemory m = {mine, mine + floats / 4, mine + floats / 2, mine + floats / 4 * 3};
  const uint64_t work = total_work(p);
  Walker walker;
  walker.at = share_begin(work, p.workers, worker);
  walker.end = share_begin(work, p.workers, worker + 1);
  Segment g = {};
  uint32_t followers = 0;
  if (!walker.done()) walker.locate(p);
  while (!walker.done()) {
    g = next_segment(p, &walker);
    Row row(p, m, g);
    row.run();
    float *piece = nullptr;
    if (!g.starts()) {
      piece = p.piece(worker, 0);
    } else if (!g.ends()) {
      piece = p.piece(worker, 1);
      followers = worker_of(work, p.workers, g.item_begin + g.units - 1) - worker;
    }
    row.finish(piece);
  }
  if (threadIdx.x % 32 == 0) write_joint(p, worker, work, followers, g);
}

}  // namespace

void shape_generic(int processors, Plan *plan) {
  plan->rows = 1;
  plan->unit = kUnit;
  plan->workers = static_cast<uint32_t>(processors) * 4 * kWarps;
}

cudaError_t launch_generic(const Plan &plan, cudaStream_t stream) {
  const uint32_t floats = warp_floats(plan);
  const size_t bytes = size_t{kWarps} * floats * sizeof(float);
  const cudaError_t error = cudaFuncSetAttribute(
      generic_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return error;
  generic_kernel<<<plan.workers / kWarps, kWarps * 32, bytes, stream>>>(plan, floats);
  return cudaGetLastError();
}

}  // namespace quire::kernels::cuda
