// The prefill kernel's shape, and the half of it that makes tiles: pages -> f16 panels in shared memory.
//
// A block is four groups of four warps. Two groups attend (attention_prefill.cu), one makes tiles of K,
// one tiles of V and, where the layer has anchors, of anchors. A tile is 64 tokens of one head in f16, in
// panels (attention_wgmma.cuh), in the domain of sealed pages: table_scale times the rotated values. Each
// warp of a maker does 16 tokens, which lie in one page: codes by the byte table of attention_fast.cuh
// times the block's scale; rows of open pages are rotated on the way. So whoever attends knows one kind
// of tile and decodes nothing.
//
//   keys, values  two stages each; barriers `full` (4 warps arrive) and `empty` (those that read it)
//   flags         of a stage of K, a word for each 16 tokens: kAbsent, kAnchored
//   anchors       one stage: high and low halves of the anchors (attention_anchor.cuh) in planes
// Invariant: V of tokens that are absent or at kv_len and behind is 0.
//
// Cost: a word of eight codes takes 14 instructions.
#pragma once

#include "kernels/cuda/attention_anchor.cuh"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_prefill_plan.cuh"
#include "kernels/cuda/attention_wgmma.cuh"

namespace quire::kernels::cuda {

inline constexpr uint32_t kAbsent = 1, kAnchored = 2;

// kSplit: the two attending groups share 64 rows and take tiles in turns; else each has 64 rows.
template <int kDim_, bool kSplit_>
struct PrefillShape {
  static constexpr int kDim = kDim_, kTokens = 64, kStages = 2, kThreads = 512;
  static constexpr bool kSplit = kSplit_;
  static constexpr int kRows = kSplit ? 64 : 128;
  static constexpr int kPanel = kTokens * 128, kTile = kPanel * (kDim / 64);
  static constexpr int kTable = 1024, kKeys = kTable + 65536, kValues = kKeys + kStages * kTile,
                       kAnchors = kValues + kStages * kTile,  // high, low
      kQueries = kAnchors + 2 * kTile,                        // [group][high, low]; split: [1] is
      kJoin = kQueries + 2 * kTile,                           // where the second group leaves its sums
      kEnd = kQueries + 4 * kTile;
  static_assert(kEnd <= kFastSharedBytes);
  // The second half of every 256 bytes of the table is free.
  static constexpr uint32_t gap(uint32_t i) { return kTable + i * 256 + 128; }
  static constexpr uint32_t kBarriers = gap(0), kFlags = gap(1);
  // Of each attending warp: where it is in the share, and its segment.
  __device__ static uint32_t walker(uint32_t warp) { return gap(2 + warp); }
  __device__ static uint32_t segment(uint32_t warp) { return gap(10 + warp); }
  __device__ static uint32_t peak(uint32_t row) { return gap(18 + row / 16) + row % 16 * 8; }
  static constexpr uint32_t kReaders = kSplit ? 4 : 8;  // warps that read a tile

  __device__ static uint32_t keys_full(uint32_t stage) { return kBarriers + stage * 8; }
  __device__ static uint32_t keys_empty(uint32_t stage) { return kBarriers + 16 + stage * 8; }
  __device__ static uint32_t values_full(uint32_t stage) { return kBarriers + 32 + stage * 8; }
  __device__ static uint32_t values_empty(uint32_t stage) { return kBarriers + 48 + stage * 8; }
  __device__ static uint32_t anchors_full() { return kBarriers + 64; }
  __device__ static uint32_t anchors_empty() { return kBarriers + 72; }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// 16 tokens of a tile.
struct Spot {
  const uint8_t *chunk = nullptr;  // nullptr: absent
  uint32_t at = 0;                 // of the first token in its page
  int32_t live = 0;                // tokens below kv_len
  bool open = false, any = false;  // any: there is such a tile
  uint32_t head = 0;
};

// The tiles of a share, one after the other.
class TileCursor {
 public:
  __device__ TileCursor(const Plan &p, const PrefillWalker &walker) : p_(p), walker_(walker) {}

  // This warp's part of the next tile. (The table entry is read here, long before it is needed.)
  __device__ Spot next() {
    Spot s;
    while (u_ == end_ && !walker_.done()) {
      g_ = walker_.next(p_);
      u_ = g_.u0;
      end_ = g_.u1;
    }
    if (u_ == end_) return s;
    const int32_t token = g_.first + static_cast<int32_t>(u_ * p_.unit) +
                          static_cast<int32_t>(threadIdx.x / 32 % 4) * 16;
    ++u_;
    s.any = true;
    s.head = g_.head;
    s.live = g_.s.kv_len - token < 16 ? g_.s.kv_len - token : 16;
    if (s.live <= 0) return s;
    const auto page = token / static_cast<int32_t>(p_.page_tokens);
    const int32_t entry = table_entry(p_, g_.b, page);
    if (entry == -1) return s;
    s.at = static_cast<uint32_t>(token) - static_cast<uint32_t>(page) * p_.page_tokens;
    const bool plain = p_.codec.sealed.v.codec.codebook == QUIRE_CODEBOOK_F16;
    s.open = plain || entry_is_open(entry);
    const bool opened = !plain && s.open;
    const FrameView &view = opened ? p_.args.frames.open : p_.args.frames.sealed;
    const uint64_t stride = opened ? p_.codec.open.head_stride : p_.codec.sealed.head_stride;
    s.chunk = view.base + entry_frame(entry) * view.stride +
              (opened ? p_.open_offset : p_.sealed_offset) + s.head * stride;
    return s;
  }

 private:
  const Plan &p_;
  PrefillWalker walker_;
  PrefillSegment g_ = {};
  uint32_t u_ = 0, end_ = 0;
};

__device__ __forceinline__ uint32_t half2_power(int e) {
  const __half h = __float2half_rn(__uint_as_float(static_cast<uint32_t>(e + 127) << 23));
  return __half_as_ushort(h) * 0x10001u;
}

// Makes K or V of 16 tokens.
template <class F, bool kOfKeys>
class TileMaker {
 public:
  static constexpr uint32_t kLoads = F::kDim / 64;  // 16-byte pieces of codes a lane has
  struct Raw {
    uint4 codes[kLoads];
    uint32_t scales[kLoads], exponent;
  };

  __device__ explicit TileMaker(const Plan &p)
      : p_(p), part_(kOfKeys ? p.codec.sealed.k : p.codec.sealed.v), lane_(threadIdx.x % 32) {
    const uint32_t j = lane_ / 8 % kPieces, bytes = part_.scale_bytes == 2 ? 2 : 1;
#pragma unroll
    for (uint32_t q = 0; q < 4; ++q) {
      const uint32_t channel = quire_code_channel(&part_, (4 * j + q) * 8);
      const uint32_t b = part_.block == 0 ? 0 : channel / part_.block;
      to_[q] = channel / 64 * F::kPanel + ((channel / 8 % 8) ^ (lane_ % 8)) * 16;
      pick_[q] = bytes == 2 ? 2 * b * 0x1111 + 0x1010 : 0x4400 | b * 0x11;
    }
    up_ = part_.codec.codebook == QUIRE_CODEBOOK_TABLE16 ? p.table_scale : 1.0f;
  }

  __device__ __forceinline__ void load(const Spot &s, Raw *raw) const {
    if (s.chunk == nullptr || s.open || part_.codec.codebook != QUIRE_CODEBOOK_TABLE16) return;
    const uint32_t row0 = s.at + lane_ % 8 + lane_ / (8 * kPieces) * 8, j = lane_ / 8 % kPieces;
#pragma unroll
    for (uint32_t i = 0; i < kLoads; ++i) {
      const uint32_t row = row0 + i * 8;
      raw->codes[i] = __ldg(reinterpret_cast<const uint4 *>(s.chunk + part_.codes +
                                                            row * (F::kDim / 2) + j * 16));
      raw->scales[i] = scales_of(s.chunk, row);
    }
    raw->exponent = 0;
    if (p_.codec.sealed.statistics != 0) {
      raw->exponent = s.chunk[p_.codec.sealed.statistics + (kOfKeys ? 0 : 1)];
    }
  }

  // to: where token 0 of the 16 lies in its stage.
  __device__ __forceinline__ void make(const Spot &s, const Raw &raw, uint32_t to) const {
    if (s.chunk == nullptr) {
      if (!kOfKeys) clear(to);
    } else if (s.open) {
      make_open(s, to);
    } else if (part_.codec.codebook == QUIRE_CODEBOOK_TABLE16) {
      make_coded(s, raw, to);
    } else if (kOfKeys) {
      make_int8(s, to);
    }
  }

 private:
  static constexpr uint32_t kPieces = F::kDim / 32;  // of 16 bytes, in a row of codes

  __device__ uint32_t scales_of(const uint8_t *chunk, uint32_t row) const {
    const uint32_t bytes = part_.blocks * part_.scale_bytes;
    const uint8_t *at = chunk + part_.scales + row * bytes;
    if (bytes == 4) return *reinterpret_cast<const uint32_t *>(at);
    if (bytes == 2) return *reinterpret_cast<const uint16_t *>(at);
    return *at;
  }

  __device__ __forceinline__ void make_coded(const Spot &s, const Raw &raw, uint32_t to) const {
    const uint32_t lane4 = lane_ * 4, row0 = lane_ % 8 + lane_ / (8 * kPieces) * 8;
    const bool e4m3 = part_.scale_bytes == 1;
    // 2^e in two factors that are halves.
    int e = p_.codec.sealed.statistics == 0
                ? 0
                : static_cast<int>(raw.exponent) - QUIRE_EXPONENT_BIAS - 8;
    const int e0 = e < -14 ? -14 : (e > 15 ? 15 : e);
    e -= e0;
    const uint32_t f0 = half2_power(e0), f1 = half2_power(e < -24 ? -24 : (e > 15 ? 15 : e));
#pragma unroll
    for (uint32_t i = 0; i < kLoads; ++i) {
      const uint32_t row = row0 + i * 8;
      const uint32_t words[4] = {raw.codes[i].x, raw.codes[i].y, raw.codes[i].z, raw.codes[i].w};
      uint32_t scales = raw.scales[i];
      if (!kOfKeys && static_cast<int32_t>(row) >= s.live) scales = 0;
#pragma unroll
      for (uint32_t q = 0; q < 4; ++q) {
        uint32_t scale = __byte_perm(scales, 0, pick_[q]);
        if (e4m3) scale = multiply_half2(multiply_half2(e4m3_pair(scale), f0), f1);
        const uint32_t x0 = multiply_half2(look_up<0, F>(words[q], lane4), scale);
        const uint32_t x1 = multiply_half2(look_up<1, F>(words[q], lane4), scale);
        const uint32_t x2 = multiply_half2(look_up<2, F>(words[q], lane4), scale);
        const uint32_t x3 = multiply_half2(look_up<3, F>(words[q], lane4), scale);
        store_shared4(to + row * 128 + to_[q], x0, x1, x2, x3);
      }
    }
  }

  __device__ void make_int8(const Spot &s, uint32_t to) const {
    int e = static_cast<int>(s.chunk[p_.codec.sealed.statistics]) - QUIRE_EXPONENT_BIAS - 8 - 7;
    const int e0 = e < -14 ? -14 : (e > 15 ? 15 : e);
    e -= e0;
    const uint32_t f0 = half2_power(e0), f1 = half2_power(e < -24 ? -24 : (e > 15 ? 15 : e));
#pragma unroll 1
    for (uint32_t i = lane_; i < 16 * F::kDim / 16; i += 32) {
      const uint32_t row = i % 8 + i / (F::kDim / 2) * 8, j = i / 8 % (F::kDim / 16);
      const uint4 codes = *reinterpret_cast<const uint4 *>(s.chunk + part_.codes +
                                                           (s.at + row) * F::kDim + j * 16);
      const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
      const uint32_t scales = scales_of(s.chunk, s.at + row);
#pragma unroll
      for (uint32_t h = 0; h < 2; ++h) {
        const uint32_t channel = quire_code_channel(&part_, j * 16 + h * 8);
        const uint32_t b = channel / part_.block;
        uint32_t scale = e4m3_pair(__byte_perm(scales, 0, 0x4400 | b * 0x11));
        scale = multiply_half2(multiply_half2(scale, f0), f1);
        uint32_t x[4];
#pragma unroll
        for (uint32_t k = 0; k < 4; ++k) {
          // As the low byte of a half, 1024 is its exponent: 1024 + (code + 128) - 1152.
          const uint32_t raised = words[2 * h + k / 2] ^ 0x80808080u;
          const uint32_t halves = __byte_perm(raised, 0x64646464u, k % 2 == 0 ? 0x4140 : 0x4342);
          x[k] = multiply_half2(add_half2(halves, 0xe480e480u), scale);
        }
        store_shared4(place(to, row, channel / 8), x[0], x[1], x[2], x[3]);
      }
    }
  }

  // f16 rows: copied, or rotated and scaled like sealed ones.
  __device__ void make_open(const Spot &s, uint32_t to) const {
    constexpr uint32_t kChunks = F::kDim / 8;
    const uint32_t c = lane_ % kChunks;
    const bool change = part_.rotation_size > 1 || up_ != 1.0f;
    const uint8_t *rows = s.chunk + (kOfKeys ? p_.codec.open.k.codes : p_.codec.open.v.codes);
#pragma unroll 4
    for (uint32_t i = 0; i < kChunks / 2; ++i) {
      const uint32_t row = lane_ / kChunks + i * (32 / kChunks);
      uint4 x = make_uint4(0, 0, 0, 0);
      if (static_cast<int32_t>(row) < s.live) {
        x = __ldg(reinterpret_cast<const uint4 *>(rows + (s.at + row) * (F::kDim * 2) + c * 16));
      }
      if (change) x = changed(x);
      store_shared4(place(to, row, c), x.x, x.y, x.z, x.w);
    }
  }

  __device__ uint4 changed(uint4 x) const {
    uint32_t words[4] = {x.x, x.y, x.z, x.w};
    float f[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 two = unpack_half2(words[i]);
      f[2 * i] = two.x;
      f[2 * i + 1] = two.y;
    }
    float up = up_;
    if (part_.rotation_size > 1) {
      up *= exp2_fast(-static_cast<float>(part_.rotation_stored));
#pragma unroll
      for (int stride = 1; stride < 8; stride *= 2) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          if ((i & stride) != 0) continue;
          const float a = f[i], b = f[i | stride];
          f[i] = a + b;
          f[i | stride] = a - b;
        }
      }
#pragma unroll
      for (uint32_t across = 1; across < F::kDim / 8; across *= 2) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const float other = __shfl_xor_sync(~0u, f[i], static_cast<int>(across));
          f[i] = (lane_ & across) != 0 ? other - f[i] : f[i] + other;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = pack_half2(f[2 * i] * up, f[2 * i + 1] * up);
    return make_uint4(words[0], words[1], words[2], words[3]);
  }

  __device__ void clear(uint32_t to) const {
    for (uint32_t i = lane_; i < 16 * F::kDim / 8; i += 32) {
      store_shared4(place(to, i % 16, i / 16), 0, 0, 0, 0);
    }
  }

  __device__ static uint32_t place(uint32_t to, uint32_t row, uint32_t chunk) {
    return to + row * 128 + chunk / 8 * F::kPanel + ((chunk % 8) ^ (row % 8)) * 16;
  }

  const Plan &p_;
  const quire_part_layout &part_;
  const uint32_t lane_;
  uint32_t to_[4], pick_[4];
  float up_;
};

// Anchors of 16 tokens, as the sum of two halves: R(position) b for the first, one more turn by R(1) for
// each further one (16 roundings in fp32).
template <class F>
__device__ inline void make_anchors(const Plan &p, const Spot &s, uint32_t to) {
  const uint32_t lane = threadIdx.x % 32;
  const Turns &t = p.codec.turns;
  const auto *statistics =
      reinterpret_cast<const quire_head_statistics *>(s.chunk + p.codec.sealed.statistics);
  const bool any = s.chunk != nullptr && !s.open && (statistics->flags & QUIRE_HEAD_ANCHORED) != 0;
  const float *b = p.codec.means + (uint64_t{p.args.layer} * p.kv_heads + s.head) * F::kDim;
  const auto put = [&](uint32_t row, uint32_t d, float x, float y) {
    const Halves h = split(x, y);
    const uint32_t at = to + row * 128 + d / 64 * F::kPanel + ((d / 8 % 8) ^ (row % 8)) * 16 +
                        d % 8 * 2;
    store_shared(at, h.high);
    store_shared(at + F::kTile, h.low);
  };
  if (lane * 2 < t.pairs) {
    const uint32_t pair = lane * 2;
    float x[2] = {}, y[2] = {}, c[2] = {}, n[2] = {};
    if (any) {
#pragma unroll
      for (uint32_t e = 0; e < 2; ++e) {
        const float2 cs =
            position_turn(p, statistics->page_index * p.page_tokens + s.at, pair + e);
        const float bx = b[pair + e], by = b[t.pairs + pair + e];
        x[e] = cs.x * bx - cs.y * by;
        y[e] = cs.x * by + cs.y * bx;
        c[e] = t.token_cos[t.pairs + pair + e];
        n[e] = t.token_sin[t.pairs + pair + e];
      }
    }
    for (uint32_t row = 0; row < 16; ++row) {
      put(row, pair, x[0], x[1]);
      put(row, t.pairs + pair, y[0], y[1]);
#pragma unroll
      for (uint32_t e = 0; e < 2; ++e) {
        const float turned = c[e] * x[e] - n[e] * y[e];
        y[e] = c[e] * y[e] + n[e] * x[e];
        x[e] = turned;
      }
    }
  }
  for (uint32_t d = 2 * t.pairs + lane * 2; d < F::kDim; d += 64) {
    for (uint32_t row = 0; row < 16; ++row) put(row, d, any ? b[d] : 0, any ? b[d + 1] : 0);
  }
}

// A group of four warps that makes tiles of one part of a share.
template <class F, bool kOfKeys>
__device__ inline void make_tiles(const Plan &p, const PrefillWalker &walker, bool anchored) {
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  TileCursor cursor(p, walker);
  const TileMaker<F, kOfKeys> maker(p);
  typename TileMaker<F, kOfKeys>::Raw raw = {}, ahead = {};
  Spot spot = cursor.next(), second = cursor.next();
  maker.load(spot, &raw);
  for (uint32_t n = 0; spot.any; ++n) {
    const Spot third = cursor.next();
    maker.load(second, &ahead);
    const uint32_t stage = n % 2, parity = (n / 2 & 1) ^ 1;
    if (!kOfKeys && anchored) {
      barrier_wait(F::anchors_empty(), (n & 1) ^ 1);
      make_anchors<F>(p, spot, F::kAnchors + warp * 2048);
      publish_to_matrices();
      __syncwarp();
      if (lane == 0) barrier_arrive(F::anchors_full());
    }
    barrier_wait(kOfKeys ? F::keys_empty(stage) : F::values_empty(stage), parity);
    maker.make(spot, raw,
               (kOfKeys ? F::kKeys : F::kValues) + stage * F::kTile + warp * 2048);
    if (kOfKeys && lane == 0) {
      uint32_t flags = spot.chunk == nullptr ? kAbsent : 0;
      if (anchored && spot.chunk != nullptr && !spot.open) {
        const auto *statistics = reinterpret_cast<const quire_head_statistics *>(
            spot.chunk + p.codec.sealed.statistics);
        if ((statistics->flags & QUIRE_HEAD_ANCHORED) != 0) flags |= kAnchored;
      }
      store_shared(F::kFlags + (stage * 4 + warp) * 4, flags);
    }
    publish_to_matrices();
    __syncwarp();
    if (lane == 0) barrier_arrive(kOfKeys ? F::keys_full(stage) : F::values_full(stage));
    spot = second;
    second = third;
    raw = ahead;
  }
}

#endif

}  // namespace quire::kernels::cuda
