// Worker: the sums of one warp of the fast kernel, and how a unit is added to them.
//
// The usual unit is sealed, without anchor, seen whole by all rows, of no larger V exponent than met
// before. It takes one vote, scores, one vote for the peaks, values: nothing else branches. Every other
// unit goes through add_unusual or add_open, which may be slow: a sequence has few, anchored layers
// excepted. Two units at once in eight warps were 3 % slower than one in twelve.
//
// Invariants: weight 0 <=> sums 0; logits seen so far <= peak + kLazy; sums are in units of
// 2^(exponent_ - kHeadroom) / table_scale, rotated where q_.variant is 1.
#pragma once

#include "kernels/cuda/attention_anchor.cuh"
#include "kernels/cuda/attention_fast.cuh"

namespace quire::kernels::cuda {

template <class F>
class Worker {
 public:
  __device__ explicit Worker(const Plan &p) : p_(p), lane_(threadIdx.x % 32) {}

  __device__ void begin(const Segment &g) {
    g_ = &g;
    first_to_ = row_to(p_, g.s, g.tile * p_.rows);
    last_from_ = row_from(p_, row_to(p_, g.s, g.tile * p_.rows + tile_rows(p_, g.s, g.tile) - 1));
    q_.load(kSealedVariant);
    exponent_ = kNoExponent;
    peaks_set_ = 0;
    turned_to_ = ~0u;
    complete_ = false;
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) peak_[n][r] = weight_[n][r] = 0;
#pragma unroll
      for (int b = 0; b < F::kBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < 8; ++i) o_[n][b][i / 4][i % 4] = 0;
      }
    }
  }

  // Adds tokens [token, token + 16), which lie in a stage of the ring. Everything unusual is asked
  // for at once: a branch of its own each cost a tenth of the time.
  __device__ __forceinline__ void add_unit(int32_t token, uint32_t stage) {
    uint32_t entry[1];
    load_shared(entry, stage + F::kStageEntry);
    if constexpr (F::kPlain) {
      if (entry[0] != ~0u) add_open(static_cast<int32_t>(entry[0]), token);
    } else {
      uint32_t statistics[2];
      load_shared(statistics, stage + F::kStatistics);
      const bool odd = q_.variant != kSealedVariant || p_.args.soft_cap != 0 ||
                       token + F::kUnit > first_to_ || token < last_from_ ||
                       static_cast<int32_t>(entry[0]) < 0 ||
                       (statistics[0] >> 16 & QUIRE_HEAD_ANCHORED) != 0 ||
                       exponent_of(statistics[0] >> 8) > exponent_;
      if (__any_sync(~0u, odd)) {
        add_unusual(token, stage);
        return;
      }
      float s[F::kTiles][4];
      sealed_scores<F>(s, q_, stage, places_);
      const float k_factor = k_factor_of(statistics[0]);
#pragma unroll
      for (int n = 0; n < F::kTiles; ++n) {
        const float factor[2] = {q_.factor[n][0] * k_factor, q_.factor[n][1] * k_factor};
#pragma unroll
        for (int i = 0; i < 4; ++i) s[n][i] = fmaf(s[n][i], factor[i % 2], -peak_[n][i % 2]);
      }
      weigh(s, v_factor_of(statistics[0]));
      sealed_values<F>(o_, s, stage, places_);
    }
  }

  // Makes sums final but for the rotation. Leaves peaks and weights where merge() finds them.
  __device__ void finish() {
    set_variant(kSealedVariant);
    scale_sums(power_of_two(exponent_ == kNoExponent ? 0 : exponent_ - kHeadroom) *
               p_.table_inverse);
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float weight = weight_[n][r];
        for (int d = 4; d < 32; d *= 2) weight += __shfl_xor_sync(~0u, weight, d);
        if (lane_ >= 4) continue;
        const uint32_t row = static_cast<uint32_t>(n * 8 + r) + 2 * lane_;
        const uint32_t at = F::kPeaks + (threadIdx.x / 32 * F::kRows + row) * 8;
        store_shared(at, peak_[n][r]);
        store_shared(at + 4, weight);
      }
    }
  }

  __device__ void leave() {
    const uint32_t g = lane_ / 4, t = lane_ % 4;
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const uint32_t row = static_cast<uint32_t>(n * 8 + r) + 2 * t;
        const uint32_t sums =
            F::kSums + threadIdx.x / 32 * F::kSumsWarp + row * F::kSumsRow + g * 16;
#pragma unroll
        for (int b = 0; b < F::kBlocks; ++b) {
          const float(&o)[2][4] = o_[n][b];
          store_shared4(sums + static_cast<uint32_t>(b) * 128, __float_as_uint(o[0][r]),
                        __float_as_uint(o[0][2 + r]), __float_as_uint(o[1][r]),
                        __float_as_uint(o[1][2 + r]));
        }
      }
    }
  }

 private:
  static constexpr uint32_t kSealedVariant = F::kPlain ? 0 : 1;  // of q and of the sums

  __device__ static float power_of_two(int e) {  // 0 or infinity where fp32 has none
    return exp2_fast(static_cast<float>(e));
  }
  __device__ static int exponent_of(uint32_t byte) {
    return static_cast<int>(byte & 255) - QUIRE_EXPONENT_BIAS - 8;
  }
  // Exponents are in [-100, 120]: no power of two here leaves fp32's normal range.
  __device__ static float k_factor_of(uint32_t statistics) {
    return __uint_as_float(((statistics & 255) + 127 - QUIRE_EXPONENT_BIAS - 8) << 23);
  }
  __device__ float v_factor_of(uint32_t statistics) const {
    const int e = exponent_of(statistics >> 8) - exponent_ + kHeadroom;
    return __uint_as_float(static_cast<uint32_t>(e > -127 ? e + 127 : 0) << 23);
  }

  // A unit that is not resident, open, anchored, capped, seen in part or of a larger exponent.
  __device__ void add_unusual(int32_t token, uint32_t stage) {
    uint32_t entry[1], statistics[2];
    load_shared(entry, stage + F::kStageEntry);
    if (static_cast<int32_t>(entry[0]) < 0) {
      if (entry[0] != ~0u) add_open(static_cast<int32_t>(entry[0]), token);
      return;
    }
    load_shared(statistics, stage + F::kStatistics);
    set_variant(kSealedVariant);
    const int exponent = exponent_of(statistics[0] >> 8);
    if (exponent > exponent_) raise_exponent(exponent);
    float s[F::kTiles][4], base[F::kTiles][4] = {};
    if constexpr (F::kAnchors) {
      if ((statistics[0] >> 16 & QUIRE_HEAD_ANCHORED) != 0) {
        add_anchors(base, token, statistics[1]);
      }
    }
    clear_unwritten(stage, g_->s.kv_len - token);
    sealed_scores<F>(s, q_, stage, places_);
    finish_logits(s, base, k_factor_of(statistics[0]), token);
    weigh(s, v_factor_of(statistics[0]));
    sealed_values<F>(o_, s, stage, places_);
  }

  // Scales of tokens from `limit` on were never written: 0 times what is there may be no number.
  __device__ void clear_unwritten(uint32_t stage, int32_t limit) const {
    if (limit >= F::kUnit) return;
    __syncwarp();
    if (lane_ < F::kUnit && static_cast<int32_t>(lane_) >= limit) {
      for (uint32_t i = 0; i < F::kScales; ++i) {
        store_shared_byte(stage + F::kVScales + lane_ * F::kScales + i, 0);
      }
    }
    __syncwarp();
  }

  // A unit of an f16 page: straight from device memory.
  __device__ void add_open(int32_t entry, int32_t token) {
    set_variant(0);
    if (exponent_ < kOpenExponent) raise_exponent(kOpenExponent);
    float s[F::kTiles][4];
    const float base[F::kTiles][4] = {};
    open_scores<F>(s, q_, open_rows(entry, token, p_.codec.open.k.codes), lane_);
    finish_logits(s, base, 1.0f, token);
    weigh(s, power_of_two(kHeadroom - exponent_) * p_.table_scale);
    open_values<F>(o_, s, open_rows(entry, token, p_.codec.open.v.codes), lane_,
                   g_->s.kv_len - token);
  }

  // Products -> logits in units of log 2, capped, masked, less the peaks.
  __device__ void finish_logits(float (&s)[F::kTiles][4], const float (&base)[F::kTiles][4],
                                float k_factor, int32_t token) const {
    const float cap = p_.args.soft_cap;
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float x = fmaf(s[n][i], q_.factor[n][i % 2] * k_factor, base[n][i]);
        if (cap != 0) {  // cap * tanh(x / cap): 1 - 2 / (1 + e^2x) is exact to 1e-7 of the cap
          const float e = exp2_fast(x * (2 * kLog2e / cap));
          x = cap * kLog2e * fmaf(-2.0f, reciprocal_fast(1.0f + e), 1.0f);
        }
        s[n][i] = x - peak_[n][i % 2];
      }
    }
    if (token + F::kUnit > first_to_ || token < last_from_) mask(s, token);
  }

  __device__ const __half *open_rows(int32_t entry, int32_t token, uint32_t part) const {
    const auto tokens = static_cast<int32_t>(p_.page_tokens);
    const FrameView &view = F::kPlain ? p_.args.frames.sealed : p_.args.frames.open;
    const uint8_t *chunk = view.base + entry_frame(entry) * view.stride + p_.open_offset +
                           g_->head * p_.codec.open.head_stride;
    return reinterpret_cast<const __half *>(chunk + part) + token % tokens * F::kDim;
  }

  __device__ void add_anchors(float (&a)[F::kTiles][4], int32_t token, uint32_t page_index) {
    const uint32_t position =
        page_index * p_.page_tokens + static_cast<uint32_t>(token) % p_.page_tokens;
    const uint32_t p0 = position / F::kAnchorRows * F::kAnchorRows;
    if (p0 != turned_to_) {
      Anchor<F>::turn(p_, p0);
      turned_to_ = p0;
    }
    Anchor<F>::add(a, position - p0);
  }

  // Sums are in units of 2^exponent_ from now on.
  __device__ void raise_exponent(int exponent) {
    scale_sums(power_of_two(exponent_ - exponent));
    exponent_ = exponent;
  }

  __device__ void scale_sums(float factor) {
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
      for (int b = 0; b < F::kBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < 8; ++i) o_[n][b][i / 4][i % 4] *= factor;
      }
    }
  }

  // Logits less the peaks -> P times v_factor.
  __device__ __forceinline__ void weigh(float (&s)[F::kTiles][4], float v_factor) {
    bool high = !complete_;
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) high |= s[n][i] > kLazy;
    }
    if (__any_sync(~0u, high)) raise_peaks(s);
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[n][i] = exp2_fast(s[n][i]);
      weight_[n][0] += s[n][0] + s[n][2];
      weight_[n][1] += s[n][1] + s[n][3];
#pragma unroll
      for (int i = 0; i < 4; ++i) s[n][i] *= v_factor;
    }
  }

  __device__ void mask(float (&s)[F::kTiles][4], int32_t token) const {
    const uint32_t g = lane_ / 4, t = lane_ % 4;
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const uint32_t row = g_->tile * p_.rows + static_cast<uint32_t>(n * 8 + r) + 2 * t;
        int32_t to = row_to(p_, g_->s, row);
        const int32_t from = row_from(p_, to);
        if (to > g_->s.kv_len) to = g_->s.kv_len;
        const int32_t near = token + static_cast<int32_t>(g), far = near + 8;
        if (near < from || near >= to) s[n][r] = -INFINITY;
        if (far < from || far >= to) s[n][2 + r] = -INFINITY;
      }
    }
  }

  // Moves peaks to where no logit is above them. s is relative to them.
  __device__ void raise_peaks(float (&s)[F::kTiles][4]) {
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float most = fmaxf(s[n][r], s[n][2 + r]);
        for (int d = 4; d < 32; d *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
        const uint32_t bit = 1u << (2 * n + r);
        if (most == -INFINITY || ((peaks_set_ & bit) != 0 && most <= 0)) continue;
        const float factor = (peaks_set_ & bit) != 0 ? exp2_fast(-most) : 0.0f;
        peaks_set_ |= bit;
        peak_[n][r] += most;
        weight_[n][r] *= factor;
        s[n][r] -= most;
        s[n][2 + r] -= most;
#pragma unroll
        for (int b = 0; b < F::kBlocks; ++b) {
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            o_[n][b][m][r] *= factor;
            o_[n][b][m][2 + r] *= factor;
          }
        }
      }
    }
    complete_ = __all_sync(~0u, peaks_set_ == (1u << (2 * F::kTiles)) - 1);
  }

  // Takes the plain or the rotated q, and rotates the sums or undoes it. A lane's channels of the
  // sums are 32 b + 4 g + 2 m + i, see sealed_values.
  __device__ void set_variant(uint32_t variant) {
    if (q_.variant == variant) return;
    q_.load(variant);
    const quire_part_layout &v = p_.codec.sealed.v;
    const float factor =
        power_of_two(-static_cast<int>(variant == 1 ? v.rotation_stored : v.rotation_read));
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
      for (int b = 0; b < F::kBlocks; ++b) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          float x[4] = {o_[n][b][0][r], o_[n][b][0][2 + r], o_[n][b][1][r], o_[n][b][1][2 + r]};
          const float y[4] = {x[0] + x[1], x[0] - x[1], x[2] + x[3], x[2] - x[3]};
          x[0] = y[0] + y[2];
          x[1] = y[1] + y[3];
          x[2] = y[0] - y[2];
          x[3] = y[1] - y[3];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (uint32_t across = 4; across < 32; across *= 2) {
              const float other = __shfl_xor_sync(~0u, x[i], static_cast<int>(across));
              x[i] = (lane_ & across) != 0 ? other - x[i] : x[i] + other;
            }
            o_[n][b][i / 2][i % 2 * 2 + r] = x[i] * factor;
          }
        }
      }
#pragma unroll
      for (int stride = 1; stride < F::kBlocks; stride *= 2) {
#pragma unroll
        for (int b = 0; b < F::kBlocks; ++b) {
          if ((b & stride) != 0) continue;
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            const float x = o_[n][b][i / 4][i % 4], y = o_[n][b | stride][i / 4][i % 4];
            o_[n][b][i / 4][i % 4] = x + y;
            o_[n][b | stride][i / 4][i % 4] = x - y;
          }
        }
      }
    }
  }

  const Plan &p_;
  const Segment *g_ = nullptr;
  const uint32_t lane_;
  const StagePlaces<F> places_;
  QueryFragments<F> q_;
  int32_t first_to_, last_from_;  // tokens that all rows see: [last_from_, first_to_)
  float o_[F::kTiles][F::kBlocks][2][4], peak_[F::kTiles][2], weight_[F::kTiles][2];
  int exponent_;
  uint32_t peaks_set_, turned_to_;
  bool complete_;
};

}  // namespace quire::kernels::cuda
