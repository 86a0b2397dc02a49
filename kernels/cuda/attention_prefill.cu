// The prefill kernel: attention of many rows of q on Hopper's matrix instructions.
//
// Tiles of 64 tokens are made by half of a block (attention_prefill.cuh) while the other half, two groups
// of four warps, attends: S = Q K^T with Q in registers, softmax, O += P V with P in registers. The scores
// of the next tile run beside the softmax and the values of this one. Equal shares of all items
// (attention_prefill_plan.cuh) go to one block a processor; items that several share are joined by the
// merge kernel.
//
// Takes nf4, k8v4 and f16, head dims 64 and 128, K and V of one dim, pages of a multiple of 16 tokens;
// RoPE of an even number of pairs. Needs compute capability 9.0 exactly. The tile is 128 rows of q, 64 for
// each group; where the bounds allow 64 rows or fewer both groups have the same 64 and take tiles in turns.
// kernels/decisions/0006 says what was tried.
//
// Thread class: kernels.
#include "kernels/cuda/attention_prefill.cuh"

namespace quire::kernels::cuda {
namespace {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr float kPeakHeadroom = 8;  // P times 2^8: less of it is denormal. 2^(8 + kLazy) is a half.

// A lane's part of a row: two values each 8 columns, from `at` on. The type is asked once, not per value:
// loads are on their way together then. Pairs of halves go as words where they lie on words.
template <int kCount>
__device__ __forceinline__ void load_row(float (&x)[kCount], DType type, const void *base,
                                         int64_t at) {
  if (type == DType::kF32) {
    const float *from = static_cast<const float *>(base) + at;
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = from[i / 2 * 8 + i % 2];
    return;
  }
  const uint16_t *from = static_cast<const uint16_t *>(base) + at;
  uint32_t pairs[kCount / 2];
  if (reinterpret_cast<uintptr_t>(from) % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      pairs[i] = *reinterpret_cast<const uint32_t *>(from + i * 8);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      pairs[i] = from[i * 8] | static_cast<uint32_t>(from[i * 8 + 1]) << 16;
    }
  }
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    if (type == DType::kF16) {
      const float2 two = unpack_half2(pairs[i]);
      x[2 * i] = two.x;
      x[2 * i + 1] = two.y;
    } else {
      x[2 * i] = __uint_as_float(pairs[i] << 16);
      x[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
  }
}

template <int kCount>
__device__ __forceinline__ void store_row(const float (&x)[kCount], DType type, void *base,
                                          int64_t at) {
  if (type == DType::kF32) {
    float *to = static_cast<float *>(base) + at;
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i / 2 * 8 + i % 2] = x[i];
    return;
  }
  uint16_t *to = static_cast<uint16_t *>(base) + at;
  const bool words = reinterpret_cast<uintptr_t>(to) % 4 == 0;
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    uint32_t pair = pack_half2(x[2 * i], x[2 * i + 1]);
    if (type == DType::kBF16) {
      const __nv_bfloat162 two = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
      pair = *reinterpret_cast<const uint32_t *>(&two);
    }
    if (words) {
      *reinterpret_cast<uint32_t *>(to + i * 8) = pair;
    } else {
      to[i * 8] = static_cast<uint16_t>(pair);
      to[i * 8 + 1] = static_cast<uint16_t>(pair >> 16);
    }
  }
}

// A group of four warps that attends. Registers: sums [n][row g, g + 8][2] of 8 columns n each, see
// attention_wgmma.cuh.
template <class F>
class Attender {
 public:
  // g: where this warp's segments will lie, in shared memory.
  __device__ Attender(const Plan &p, const PrefillSegment *g, bool anchored)
      : p_(p), g_(g), group_(threadIdx.x / 128), lane_(threadIdx.x % 32), anchored_(anchored) {}

  // n: tiles of the share before this segment.
  __device__ void run(uint32_t n, uint32_t end, float *piece) {
    const PrefillSegment &g = *g_;
    row_ = g.tile * p_.rows + (F::kSplit ? 0 : group_ * 64) + threadIdx.x / 32 % 4 * 16 + lane_ / 4;
    rows_ = static_cast<uint32_t>(g.s.queries) * p_.group;
    const uint32_t top = g.tile * p_.rows + (F::kSplit ? 0 : group_ * 64);
    const uint32_t last = top + 63 < rows_ ? top + 63 : (rows_ == 0 ? 0 : rows_ - 1);
    first_to_ = row_to(p_, g.s, top);
    last_from_ = row_from(p_, row_to(p_, g.s, last));
    load_query();
#pragma unroll
    for (int i = 0; i < kSums; ++i) o_[i] = 0;
    for (int r = 0; r < 2; ++r) {
      peak_[r] = -INFINITY;
      weight_[r] = 0;
    }
    uint32_t i = F::kSplit && (n & 1) != group_ ? n + 1 : n;
    if (__any_sync(~0u, i < end))
      tiles(i, end, g.first + static_cast<int32_t>((g.u0 + i - n) * 64));
    for (int r = 0; r < 2; ++r) {
      for (int d = 1; d < 4; d *= 2) weight_[r] += __shfl_xor_sync(~0u, weight_[r], d);
    }
    if constexpr (F::kSplit) join();
    if (!F::kSplit || group_ == 0) write(piece);
  }

 private:
  static constexpr int kSums = F::kDim / 2, kSteps = F::kDim / 16;
  static constexpr uint32_t kStride = F::kSplit ? 2 : 1;

  // Hadamard over the columns of rows g and g + 8 (x[n * 4 + 2 r + e] is column 8 n + 2 t + e).
  __device__ void rotate(float (&x)[kSums]) const {
#pragma unroll
    for (int bit = 0; (1 << bit) < kSums; ++bit) {
      const int stride = 1 << bit;
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        if (bit == 1 || (i & stride) != 0) continue;
        const float a = x[i], b = x[i | stride];
        x[i] = a + b;
        x[i | stride] = a - b;
      }
    }
#pragma unroll
    for (uint32_t across = 1; across < 4; across *= 2) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        const float other = __shfl_xor_sync(~0u, x[i], static_cast<int>(across));
        x[i] = (lane_ & across) != 0 ? other - x[i] : x[i] + other;
      }
    }
  }

  __device__ void load_query() {
    const quire_part_layout &k = p_.codec.sealed.k;
    float x[kSums];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t row = row_ + static_cast<uint32_t>(r) * 8;
      const bool there = row < rows_;
      const int64_t at = row_place(p_, g_->s, g_->head, there ? row : 0).q + lane_ % 4 * 2;
      float v[F::kDim / 4], most = 0;
      load_row(v, p_.args.q_dtype, p_.args.q, at);
#pragma unroll
      for (int i = 0; i < F::kDim / 4; ++i) {
        if (!there) v[i] = 0;
        x[i / 2 * 4 + 2 * r + i % 2] = v[i];
        most = fmaxf(most, fabsf(v[i]));
      }
      for (int d = 1; d < 4; d *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
      // A power of two brings the row into f16's range; a negative scale becomes q's.
      int exponent = static_cast<int>(__float_as_uint(most) >> 23) - 127;
      exponent = exponent < -100 ? -100 : (exponent > 110 ? 110 : exponent);
      float down = __uint_as_float(static_cast<uint32_t>(127 - exponent) << 23);
      if (p_.args.scale < 0) down = -down;
      factor_[r] = __uint_as_float(static_cast<uint32_t>(127 + exponent) << 23) *
                   fabsf(p_.args.scale) * (p_.args.soft_cap == 0 ? kLog2e : 1.0f);
#pragma unroll
      for (int n = 0; n < F::kDim / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) x[n * 4 + 2 * r + e] *= down;
      }
    }
    float up = 1;  // what products with tiles have too much
    if (k.rotation_size > 1) up = exp2_fast(static_cast<float>(k.rotation_read));
    if (k.codec.codebook == QUIRE_CODEBOOK_TABLE16) up *= p_.table_scale;
    factor_[0] /= up;
    factor_[1] /= up;
    if (anchored_) share_query(x, up);
    if (k.rotation_size > 1) rotate(x);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      q_[s][0] = pack_half2(x[s * 8], x[s * 8 + 1]);
      q_[s][1] = pack_half2(x[s * 8 + 2], x[s * 8 + 3]);
      q_[s][2] = pack_half2(x[s * 8 + 4], x[s * 8 + 5]);
      q_[s][3] = pack_half2(x[s * 8 + 6], x[s * 8 + 7]);
    }
  }

  // Leaves q as two halves, in planes, for products with anchors.
  __device__ void share_query(const float (&x)[kSums], float up) const {
    const Turns &t = p_.codec.turns;
    group_barrier();  // all have done with the last one
    if (!F::kSplit || group_ == 0) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        const uint32_t r = threadIdx.x / 32 % 4 * 16 + lane_ / 4 + (i & 2) * 4;
        uint32_t d = static_cast<uint32_t>(i / 4 * 8 + i % 2) + lane_ % 4 * 2;
        if (t.interleaved != 0 && d < 2 * t.pairs) d = d / 2 + (d % 2) * t.pairs;
        const float v = x[i] * up;
        const __half high = __float2half_rn(v);
        const uint32_t at =
            queries() + r * 128 + d / 64 * F::kPanel + ((d / 8 % 8) ^ (r % 8)) * 16 + d % 8 * 2;
        store_shared_half(at, high);
        store_shared_half(at + F::kTile, __float2half_rn(v - __half2float(high)));
      }
      publish_to_matrices();
    }
    if constexpr (F::kSplit) {
      named_barrier<3, 256>();
    } else {
      group_barrier();
    }
  }
  __device__ void group_barrier() const {
    if (group_ == 0) {
      named_barrier<1, 128>();
    } else {
      named_barrier<2, 128>();
    }
  }
  __device__ uint32_t queries() const {
    return F::kQueries + (F::kSplit ? 0 : group_ * (2 * F::kTile));
  }

  // Enqueues S of tile n. flags: what the tile is.
  __device__ void scores(uint32_t n, uint32_t (&flags)[4]) {
    const uint32_t stage = n % 2;
    barrier_wait(F::keys_full(stage), n / 2 & 1);
    load_shared(flags, F::kFlags + stage * 16);
    if (anchored_) barrier_wait(F::anchors_full(), n & 1);
    matrix_settle(s_);
    matrix_fence();
#pragma unroll
    for (uint32_t k = 0; k < kSteps; ++k) {
      const uint32_t at = F::kKeys + stage * F::kTile + k / 4 * F::kPanel + k % 4 * 32;
      matrix_64<false>(s_, q_[k], matrix_at(at, 0), k != 0);
    }
    if (__any_sync(~0u, ((flags[0] | flags[1] | flags[2] | flags[3]) & kAnchored) != 0)) {
      matrix_fence();
#pragma unroll
      for (uint32_t k = 0; k < kSteps; ++k) {
        const uint32_t at = k / 4 * F::kPanel + k % 4 * 32;
        const uint64_t q0 = matrix_at(queries() + at, 0),
                       q1 = matrix_at(queries() + F::kTile + at, 0),
                       a0 = matrix_at(F::kAnchors + at, 0),
                       a1 = matrix_at(F::kAnchors + F::kTile + at, 0);
        matrix_64(s_, q0, a0);
        matrix_64(s_, q0, a1);
        matrix_64(s_, q1, a0);
      }
    }
    matrix_commit();
  }
  __device__ void release_keys(uint32_t n) const {
    if (lane_ != 0) return;
    barrier_arrive(F::keys_empty(n % 2));
    if (anchored_) barrier_arrive(F::anchors_empty());
  }

  // All tiles of a segment that are this group's: i, i + kStride ... below end.
  __device__ void tiles(uint32_t i, uint32_t end, int32_t token) {
    uint32_t flags[4], pairs[4][4];
    float raise[2] = {1, 1};
    scores(i, flags);
    matrix_wait<0>();
    matrix_settle(s_);
    release_keys(i);
    soften(token, flags, raise);
    pack(pairs);
    while (__any_sync(~0u, i + kStride < end)) {
      const uint32_t next = i + kStride;
      token += static_cast<int32_t>(64 * kStride);
      scores(next, flags);
      values(i, pairs);
      matrix_wait<1>();
      matrix_settle(s_);
      release_keys(next);
      const bool raised = soften(token, flags, raise);
      matrix_wait<0>();
      matrix_settle(o_);
      if (lane_ == 0) barrier_arrive(F::values_empty(i % 2));
      if (raised) {
#pragma unroll
        for (int j = 0; j < kSums; ++j) o_[j] *= raise[j / 2 % 2];
      }
      pack(pairs);
      i = next;
    }
    values(i, pairs);
    matrix_wait<0>();
    matrix_settle(o_);
    if (lane_ == 0) barrier_arrive(F::values_empty(i % 2));
  }

  // P as operand A of four steps of 16 tokens.
  __device__ __forceinline__ void pack(uint32_t (&pairs)[4][4]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        pairs[k][j] = pack_half2(s_[k * 8 + j * 2], s_[k * 8 + j * 2 + 1]);
      }
    }
  }

  // Enqueues O += P V of tile n.
  __device__ __forceinline__ void values(uint32_t n, const uint32_t (&pairs)[4][4]) {
    barrier_wait(F::values_full(n % 2), n / 2 & 1);
    matrix_settle(o_);
    matrix_fence();
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k) {
      sum_values(o_, pairs[k], matrix_at(F::kValues + n % 2 * F::kTile + k * 2048, F::kPanel));
    }
    matrix_commit();
  }

  // Scores -> P. True where sums have to be multiplied by `raise`.
  __device__ __forceinline__ bool soften(int32_t token, const uint32_t (&flags)[4],
                                         float (&raise)[2]) {
    float factor[2] = {factor_[0], factor_[1]};
    if (p_.args.soft_cap != 0) {
      cap();
      factor[0] = factor[1] = 1;
    }
    const bool absent = ((flags[0] | flags[1] | flags[2] | flags[3]) & kAbsent) != 0;
    if (token + 64 > first_to_ || token < last_from_ || absent) mask(token, flags);
    float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < 32; ++i) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], s_[i]);
    bool raised = false;
    raise[0] = raise[1] = 1;
    if (__any_sync(~0u, most[0] * factor[0] > peak_[0] + kLazy ||
                            most[1] * factor[1] > peak_[1] + kLazy)) {
      raised = true;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float m = most[r] * factor[r];
        for (int d = 1; d < 4; d *= 2) m = fmaxf(m, __shfl_xor_sync(~0u, m, d));
        if (m > peak_[r]) {
          raise[r] = exp2_fast(peak_[r] - m);
          peak_[r] = m;
          weight_[r] *= raise[r];
        }
      }
    }
    float offset[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      offset[r] = peak_[r] == -INFINITY ? 0 : kPeakHeadroom - peak_[r];
    }
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int r = i / 2 % 2;
      s_[i] = exp2_fast(fmaf(s_[i], factor[r], offset[r]));
      weight_[r] += s_[i];
    }
    return raised;
  }

  // cap * tanh(x / cap), in units of log 2: 1 - 2 / (1 + e^2x) is exact to 1e-7 of the cap.
  __device__ void cap() {
    const float cap = p_.args.soft_cap;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const float e = exp2_fast(s_[i] * factor_[i / 2 % 2] * (2 * kLog2e / cap));
      s_[i] = cap * kLog2e * fmaf(-2.0f, reciprocal_fast(1.0f + e), 1.0f);
    }
  }

  __device__ void mask(int32_t token, const uint32_t (&flags)[4]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int32_t to = row_to(p_, g_->s, row_ + static_cast<uint32_t>(r) * 8);
      const int32_t from = row_from(p_, to) - token - static_cast<int32_t>(lane_ % 4 * 2);
      to = (to > g_->s.kv_len ? g_->s.kv_len : to) - token - static_cast<int32_t>(lane_ % 4 * 2);
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int32_t at = n * 8 + e;
          if (at < from || at >= to || (flags[n / 2] & kAbsent) != 0) {
            s_[n * 4 + 2 * r + e] = -INFINITY;
          }
        }
      }
    }
  }

  // The first group takes the second one's sums.
  __device__ void join() {
    const uint32_t at = F::kJoin + threadIdx.x % 128 * 4;
    const uint32_t peaks = F::peak(threadIdx.x / 32 % 4 * 16 + lane_ / 4);
    if (group_ == 1) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) store_shared(at + static_cast<uint32_t>(i) * 512, o_[i]);
      for (uint32_t r = 0; r < 2; ++r) {
        if (lane_ % 4 != 0) break;
        store_shared(peaks + r * 64, peak_[r]);
        store_shared(peaks + r * 64 + 4, weight_[r]);
      }
      named_barrier<3, 256>();
    } else {
      named_barrier<3, 256>();
      float own[2], other[2];
      for (uint32_t r = 0; r < 2; ++r) {
        const float peak = load_shared_float(peaks + r * 64);
        const float weight = load_shared_float(peaks + r * 64 + 4);
        const float top = fmaxf(peak, peak_[r]);
        own[r] = weight_[r] == 0 ? 0.0f : exp2_fast(peak_[r] - top);
        other[r] = weight == 0 ? 0.0f : exp2_fast(peak - top);
        weight_[r] = weight_[r] * own[r] + weight * other[r];
        peak_[r] = top;
      }
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        const float x = load_shared_float(at + static_cast<uint32_t>(i) * 512);
        o_[i] = o_[i] * own[i / 2 % 2] + x * other[i / 2 % 2];
      }
    }
    named_barrier<3, 256>();
  }

  __device__ void write(float *piece) {
    const quire_part_layout &v = p_.codec.sealed.v;
    float down = v.codec.codebook == QUIRE_CODEBOOK_TABLE16 ? p_.table_inverse : 1.0f;
    if (v.rotation_size > 1) {
      rotate(o_);
      down *= exp2_fast(-static_cast<float>(v.rotation_read));
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t row = row_ + static_cast<uint32_t>(r) * 8;
      if (row >= rows_) continue;
      const uint32_t in = row - g_->tile * p_.rows;
      const float peak = peak_[r] - kPeakHeadroom;
      if (piece != nullptr) {
#pragma unroll
        for (int n = 0; n < F::kDim / 8; ++n) {
          *reinterpret_cast<float2 *>(piece + in * F::kDim + n * 8 + lane_ % 4 * 2) =
              make_float2(o_[n * 4 + 2 * r] * down, o_[n * 4 + 2 * r + 1] * down);
        }
        if (lane_ % 4 == 0) {
          piece[p_.rows * F::kDim + in] = peak;
          piece[p_.rows * (F::kDim + 1) + in] = weight_[r];
        }
        continue;
      }
      const RowPlace place = row_place(p_, g_->s, g_->head, row);
      const float inverse = weight_[r] == 0 ? 0.0f : down / weight_[r];
      float v[F::kDim / 4];
#pragma unroll
      for (int i = 0; i < F::kDim / 4; ++i) v[i] = o_[i / 2 * 4 + 2 * r + i % 2] * inverse;
      store_row(v, p_.args.out_dtype, p_.args.out, place.out + lane_ % 4 * 2);
      if (lane_ % 4 == 0 && p_.args.lse != nullptr) {
        p_.args.lse[place.lse] = lse_of(peak, weight_[r]);
      }
    }
  }

  const Plan &p_;
  const PrefillSegment *g_;
  const uint32_t group_, lane_;
  const bool anchored_;
  uint32_t row_ = 0, rows_ = 0;   // this lane's first row of the sequence; rows of it
  int32_t first_to_, last_from_;  // tokens that all rows see: [last_from_, first_to_)
  uint32_t q_[kSteps][4];
  float s_[32], o_[kSums], factor_[2], peak_[2], weight_[2];
};

// A group's share. What is not needed beside the sums lies in shared memory, which a warp keeps for itself.
template <class F>
__device__ __forceinline__ void attend(const Plan &p, uint64_t work, bool anchored,
                                       uint8_t *memory) {
  PrefillWalker *kept = F::walker(memory);
  PrefillSegment *segment = F::segment(memory);
  Attender<F> attender(p, segment, anchored);
  uint32_t followers = 0, n = 0;
  while (__any_sync(~0u, !kept->done())) {
    PrefillWalker walker = *kept;
    const PrefillSegment g = walker.next(p);
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      *kept = walker;
      *segment = g;
    }
    __syncwarp();
    float *piece = nullptr;
    if (!g.starts) {
      piece = p.piece(blockIdx.x, 0);
    } else if (!g.ends) {
      piece = p.piece(blockIdx.x, 1);
      followers = worker_of(work, p.workers, g.item_begin + g.weight - 1) - blockIdx.x;
    }
    const uint32_t end = n + (g.u1 - g.u0);
    attender.run(n, end, piece);
    n = end;
  }
  if (threadIdx.x == 0) {
    p.joints[blockIdx.x] = {followers, segment->b, segment->tile, segment->head, work};
  }
}

template <class F>
__device__ void fill_table(const Plan &p) {
  for (uint32_t i = threadIdx.x; i < 256 * 8; i += F::kThreads) {
    const uint32_t code = i / 8;
    const uint32_t pair = pack_half2(p.codec.values[code / 16] * p.table_scale,
                                     p.codec.values[code % 16] * p.table_scale);
    store_shared4(F::kTable + code * 256 + i % 8 * 16, pair, pair, pair, pair);
  }
}

template <class F>
__device__ void init_barriers() {
  for (uint32_t stage = 0; stage < 2; ++stage) {
    barrier_init(F::keys_full(stage), 4);
    barrier_init(F::values_full(stage), 4);
    barrier_init(F::keys_empty(stage), F::kReaders);
    barrier_init(F::values_empty(stage), F::kReaders);
  }
  barrier_init(F::anchors_full(), 4);
  barrier_init(F::anchors_empty(), F::kReaders);
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

#endif

template <class F>
__global__ void __launch_bounds__(F::kThreads, 1) prefill_kernel(const __grid_constant__ Plan p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t prefill_memory[];
  const auto below = static_cast<uint32_t>(__cvta_generic_to_shared(prefill_memory));
  if (below > F::kTable) __trap();
  uint8_t *base = prefill_memory - below;
  cudaTriggerProgrammaticLaunchCompletion();
  const bool anchored = p.codec.anchored != nullptr && p.codec.anchored[p.args.layer] != 0;
  const uint64_t work = total_prefill_work(p);
  const PrefillWalker walker(p, work, blockIdx.x);
  if (threadIdx.x == 0) init_barriers<F>();
  fill_table<F>(p);
  __syncthreads();
  const uint32_t role = __shfl_sync(~0u, threadIdx.x / 128, 0);
  PrefillWalker *kept = F::walker(base);
  if (threadIdx.x % 32 == 0) *kept = walker;
  __syncwarp();
  if (role == 2) {
    fewer_registers<72>();
    TileGroup<F, true>(p, kept, anchored).run();
  } else if (role == 3) {
    fewer_registers<72>();
    TileGroup<F, false>(p, kept, anchored).run();
  } else {
    more_registers<184>();
    attend<F>(p, work, anchored, base);
  }
#else
  __trap();
#endif
}

template <class F>
cudaError_t launch(const Plan &plan, cudaStream_t stream) {
  const cudaError_t error =
      cudaFuncSetAttribute(prefill_kernel<F>, cudaFuncAttributeMaxDynamicSharedMemorySize, F::kEnd);
  if (error != cudaSuccess) return error;
  prefill_kernel<F><<<plan.workers, F::kThreads, F::kEnd, stream>>>(plan);
  return cudaGetLastError();
}

template <int kDim>
cudaError_t launch_dim(const Plan &plan, cudaStream_t stream) {
  return plan.rows == 64 ? launch<PrefillShape<kDim, true>>(plan, stream)
                         : launch<PrefillShape<kDim, false>>(plan, stream);
}

}  // namespace

bool prefill_takes(const Plan &plan) {
  const quire_page_layout &l = plan.codec.sealed;
  const uint32_t dim = plan.dim_k;
  if ((dim != 64 && dim != 128) || plan.dim_v != dim || l.page_tokens % 16 != 0) return false;
  if (l.format == QUIRE_FORMAT_F16) return true;
  return (l.format == QUIRE_FORMAT_NF4 || l.format == QUIRE_FORMAT_K8V4) &&
         plan.codec.turns.pairs % 2 == 0;
}

void shape_prefill(int processors, Plan *plan) {
  plan->unit = 64;
  plan->rows = rows_a_head(*plan) <= 64 ? 64 : 128;
  plan->workers = static_cast<uint32_t>(processors);
}

cudaError_t launch_prefill(const Plan &plan, cudaStream_t stream) {
  return plan.dim_k == 64 ? launch_dim<64>(plan, stream) : launch_dim<128>(plan, stream);
}

}  // namespace quire::kernels::cuda
