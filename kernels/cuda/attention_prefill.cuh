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
      kJoin = kQueries + 2 * kTile,  // where the second group leaves its sums
      kEnd = kQueries + 4 * kTile;
  static_assert(kEnd <= kFastSharedBytes);
  // The second half of every 256 bytes of the table is free.
  static constexpr uint32_t gap(uint32_t i) { return kTable + i * 256 + 128; }
  static constexpr uint32_t kBarriers = gap(0), kFlags = gap(1);
  __device__ static uint32_t peak(uint32_t row) { return gap(2 + row / 16) + row % 16 * 8; }
  // Of each warp: where it is in the share; of those that attend: the segment. base: of shared memory.
  __device__ static PrefillWalker *walker(uint8_t *base) {
    static_assert(sizeof(PrefillWalker) <= 128);
    return reinterpret_cast<PrefillWalker *>(base + gap(6 + threadIdx.x / 32));
  }
  // A maker's ring of codes that are on their way: a slot is a gap of 8 rows x 16 bytes for each of
  // kCodeGaps, and one of scales, statistics (kAtStatistics) and the spot (kAtSpot).
  static constexpr uint32_t kRing = 3, kCodeGaps = kDim / 16, kSlotGaps = kCodeGaps + 1;
  static constexpr uint32_t kAtStatistics = 64, kAtSpot = 80;
  __device__ static uint32_t slot(uint32_t ring) {
    return gap(38 + ((threadIdx.x / 32 - 8) * kRing + ring) * kSlotGaps);
  }
  static_assert(38 + 8 * kRing * kSlotGaps <= 256);
  __device__ static PrefillSegment *segment(uint8_t *base) {
    static_assert(sizeof(PrefillSegment) <= 128);
    return reinterpret_cast<PrefillSegment *>(base + gap(22 + threadIdx.x / 32));
  }
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
  const uint8_t *chunk;  // nullptr: absent
  uint32_t at;           // of the first token in its page
  int32_t live;          // tokens below kv_len
  uint32_t head;
  bool open, any;  // any: there is such a tile

  // All of it in 24 bytes of shared memory.
  __device__ __forceinline__ void keep(uint32_t address) const {
    const auto bits = reinterpret_cast<uint64_t>(chunk);
    store_shared4(address, static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32), at,
                  static_cast<uint32_t>(live));
    store_shared(address + 16, head);
    store_shared(address + 20, (open ? 1u : 0u) | (any ? 2u : 0u));
  }
  __device__ __forceinline__ static Spot kept(uint32_t address) {
    uint32_t a[4], b[2];
    load_shared(a, address);
    load_shared(b, address + 16);
    return {reinterpret_cast<const uint8_t *>(uint64_t{a[1]} << 32 | a[0]),
            a[2],
            static_cast<int32_t>(a[3]),
            b[0],
            (b[1] & 1) != 0,
            (b[1] & 2) != 0};
  }
};

// The tiles of a share, one after the other: this warp's 16 tokens of each. Lane i holds the block table's
// entry for the i-th tile of 32.
class TileCursor {
 public:
  // walker: in shared memory, this warp's own.
  __device__ TileCursor(const Plan &p, PrefillWalker *walker) : p_(p), walker_(walker) {}

  __device__ __forceinline__ void next(Spot *s) {
    if (__any_sync(~0u, left_ == 0)) open_segment();
    *s = {};
    s->any = __any_sync(~0u, left_ != 0);
    if (!s->any) return;
    if (__any_sync(~0u, tile_ % 32 == 0)) load_entries();
    --left_;
    const int32_t live = kv_len_ - static_cast<int32_t>(tile_ * 64);
    s->head = head_;
    s->live = live < 16 ? live : 16;
    s->at = at_;
    const bool plain = p_.codec.sealed.v.codec.codebook == QUIRE_CODEBOOK_F16;
    const int32_t entry = __shfl_sync(~0u, entries_, static_cast<int>(tile_ % 32));
    s->open = plain || entry_is_open(entry);
    const bool opened = !plain && s->open;
    const FrameView &view = opened ? p_.args.frames.open : p_.args.frames.sealed;
    s->chunk = view.base + entry_frame(entry) * view.stride +
               (opened ? p_.open_offset + head_ * p_.codec.open.head_stride
                       : p_.sealed_offset + head_ * p_.codec.sealed.head_stride);
    if (entry == -1) s->chunk = nullptr;
    ++tile_;
    at_ += 64 % p_.page_tokens;
    if (at_ >= p_.page_tokens) at_ -= p_.page_tokens;
  }

 private:
  __device__ __forceinline__ void open_segment() {
    PrefillWalker walker = *walker_;
    __syncwarp();
    while (left_ == 0 && !walker.done()) {
      const PrefillSegment g = walker.next(p_);
      left_ = g.u1 - g.u0;
      token_ = static_cast<uint32_t>(g.first) + g.u0 * 64 + threadIdx.x / 32 % 4 * 16;
      at_ = token_ % p_.page_tokens;
      kv_len_ = g.s.kv_len - static_cast<int32_t>(token_);
      head_ = g.head;
      sequence_ = g.b;
    }
    if (threadIdx.x % 32 == 0) *walker_ = walker;
    __syncwarp();
    tile_ = 0;
  }

  __device__ __forceinline__ void load_entries() {
    const uint32_t ahead = (tile_ + threadIdx.x % 32) * 64;
    entries_ = -1;
    if (static_cast<int32_t>(ahead) < kv_len_) {
      entries_ =
          table_entry(p_, sequence_, static_cast<int32_t>((token_ + ahead) / p_.page_tokens));
    }
  }

  const Plan &p_;
  PrefillWalker *walker_;
  uint32_t left_ = 0, at_ = 0, head_ = 0, sequence_ = 0, token_ = 0, tile_ = 0;
  int32_t kv_len_ = 0, entries_ = -1;  // kv_len_: from token_ on
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
  __device__ explicit TileMaker(const Plan &p)
      : p_(p), part_(kOfKeys ? p.codec.sealed.k : p.codec.sealed.v), lane_(threadIdx.x % 32) {
    const uint32_t j = lane_ / 8 % kPieces;
    const uint32_t chunk = kOfKeys ? j * (4 / kPieces) : j * 4;
    to_ = chunk / 8 * F::kPanel + ((chunk % 8) ^ (lane_ % 8)) * 16;
    pick_ = 0x4400 | j * 0x11;
  }

  // Enqueues what is stored of a spot. A lane copies the codes that it will read.
  __device__ __forceinline__ void load(const Spot &s, uint32_t slot) const {
    if (s.chunk == nullptr || s.open) return;
    if (lane_ == 31) {
      copy_async16(slot + F::kCodeGaps * 256 + F::kAtStatistics,
                   s.chunk + p_.codec.sealed.statistics);
    }
    if (part_.codec.codebook != QUIRE_CODEBOOK_TABLE16) return;
    const uint32_t j = lane_ / 8 % kPieces;
    const uint8_t *from = s.chunk + part_.codes + (s.at + row_of(0)) * (F::kDim / 2) + j * 16;
#pragma unroll
    for (uint32_t i = 0; i < kLoads; ++i) {
      copy_async16(slot + lane_ / 8 * 256 + i * 1024 + lane_ % 8 * 16,
                   from + i * 8 * (F::kDim / 2));
    }
    if (lane_ < kPieces) {
      copy_async16(slot + F::kCodeGaps * 256 + lane_ * 16,
                   s.chunk + part_.scales + s.at * kPieces + lane_ * 16);
    }
  }

  // to: where token 0 of the 16 lies in its stage.
  __device__ __forceinline__ void make(const Spot &s, uint32_t slot, uint32_t to) const {
    if (s.chunk == nullptr) {
      if (!kOfKeys) clear(to);
    } else if (s.open) {
      make_open(p_, s.chunk, s.at, s.live, to);
    } else if (part_.codec.codebook == QUIRE_CODEBOOK_TABLE16) {
      make_coded(s.live, slot, to);
    } else if (kOfKeys) {
      make_int8(p_, s.chunk, s.at, to);
    }
  }

 private:
  static constexpr uint32_t kPieces = F::kDim / 32;  // of 16 bytes, in a row of codes

  __device__ __forceinline__ static uint32_t row_scales(uint32_t at, uint32_t row) {
    uint32_t x[1];
    load_shared(x, at + (row * kPieces & ~3u));
    return kPieces == 4 ? x[0] : x[0] >> (row * kPieces % 4 * 8);
  }
  __device__ static uint32_t scales_of(const quire_part_layout &part, const uint8_t *chunk,
                                       uint32_t row) {
    const uint8_t *at = chunk + part.scales + row * kPieces;
    if constexpr (kPieces == 4) return __ldg(reinterpret_cast<const uint32_t *>(at));
    return __ldg(reinterpret_cast<const uint16_t *>(at));
  }

  // The row that a lane's i-th piece of codes is of.
  __device__ __forceinline__ uint32_t row_of(uint32_t i) const {
    return lane_ % 8 + lane_ / (8 * kPieces) * 8 + i * 8;
  }

  __device__ __forceinline__ void make_coded(int32_t live, uint32_t slot, uint32_t to) const {
    const uint32_t lane4 = lane_ * 4, few = slot + F::kCodeGaps * 256;
    uint32_t statistics[1];
    load_shared(statistics, few + F::kAtStatistics);
    // 2^e in two factors that are halves.
    int e = static_cast<int>(statistics[0] >> (kOfKeys ? 0 : 8) & 255) - QUIRE_EXPONENT_BIAS - 8;
    const int e0 = e < -14 ? -14 : (e > 15 ? 15 : e);
    e -= e0;
    const uint32_t f0 = half2_power(e0), f1 = half2_power(e < -24 ? -24 : (e > 15 ? 15 : e));
    uint32_t at = to + row_of(0) * 128 + to_;
    asm volatile("" : "+r"(at));  // else the addresses of both stages are kept, in memory
#pragma unroll
    for (uint32_t i = 0; i < kLoads; ++i) {
      uint32_t words[4], scales;
      load_shared(words, slot + lane_ / 8 * 256 + i * 1024 + lane_ % 8 * 16);
      scales = row_scales(few, row_of(i));
      if (!kOfKeys && static_cast<int32_t>(row_of(i)) >= live) scales = 0;
#pragma unroll
      for (uint32_t q = 0; q < 4; ++q) {
        // Word q of piece j holds chunk q * 4 + j (of 64 channels: q % 2 * 4 + q / 2 + 2 j) of a key.
        const uint32_t b = kPieces == 4 ? q : q % 2;
        const uint32_t chunk = !kOfKeys ? q : (kPieces == 4 ? q * 4 : q % 2 * 4 + q / 2);
        uint32_t scale = e4m3_pair(__byte_perm(scales, 0, kOfKeys ? 0x4400 | b * 0x11 : pick_));
        scale = multiply_half2(multiply_half2(scale, f0), f1);
        const uint32_t x0 = multiply_half2(look_up<0, F>(words[q], lane4), scale);
        const uint32_t x1 = multiply_half2(look_up<1, F>(words[q], lane4), scale);
        const uint32_t x2 = multiply_half2(look_up<2, F>(words[q], lane4), scale);
        const uint32_t x3 = multiply_half2(look_up<3, F>(words[q], lane4), scale);
        store_shared4((at ^ (chunk % 8 * 16)) + chunk / 8 * F::kPanel + i * 1024, x0, x1, x2, x3);
      }
    }
  }

  __device__ __noinline__ static void make_int8(const Plan &p, const uint8_t *chunk, uint32_t first,
                                                uint32_t to) {
    const quire_part_layout &part = p.codec.sealed.k;
    const uint32_t lane = threadIdx.x % 32;
    int e = static_cast<int>(chunk[p.codec.sealed.statistics]) - QUIRE_EXPONENT_BIAS - 8 - 7;
    const int e0 = e < -14 ? -14 : (e > 15 ? 15 : e);
    e -= e0;
    const uint32_t f0 = half2_power(e0), f1 = half2_power(e < -24 ? -24 : (e > 15 ? 15 : e));
#pragma unroll 1
    for (uint32_t i = lane; i < 16 * F::kDim / 16; i += 32) {
      const uint32_t row = i % 8 + i / (F::kDim / 2) * 8, j = i / 8 % (F::kDim / 16);
      const uint4 codes =
          *reinterpret_cast<const uint4 *>(chunk + part.codes + (first + row) * F::kDim + j * 16);
      const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
      const uint32_t scales = scales_of(part, chunk, first + row);
#pragma unroll
      for (uint32_t h = 0; h < 2; ++h) {
        const uint32_t channel = quire_code_channel(&part, j * 16 + h * 8);
        const uint32_t b = channel / part.block;
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
  __device__ __noinline__ static void make_open(const Plan &p, const uint8_t *chunk, uint32_t first,
                                                int32_t live, uint32_t to) {
    const quire_part_layout &part = kOfKeys ? p.codec.sealed.k : p.codec.sealed.v;
    const uint32_t lane = threadIdx.x % 32;
    constexpr uint32_t kChunks = F::kDim / 8;
    const uint32_t c = lane % kChunks;
    const bool change = part.codec.codebook != QUIRE_CODEBOOK_F16;
    const uint8_t *rows = chunk + (kOfKeys ? p.codec.open.k.codes : p.codec.open.v.codes);
    constexpr uint32_t kAtOnce = 4;
#pragma unroll 1
    for (uint32_t i0 = 0; i0 < kChunks / 2; i0 += kAtOnce) {
      uint4 x[kAtOnce];
#pragma unroll
      for (uint32_t i = 0; i < kAtOnce; ++i) {
        const uint32_t row = lane / kChunks + (i0 + i) * (32 / kChunks);
        x[i] = make_uint4(0, 0, 0, 0);
        if (static_cast<int32_t>(row) < live) {
          x[i] =
              __ldg(reinterpret_cast<const uint4 *>(rows + (first + row) * (F::kDim * 2) + c * 16));
        }
      }
#pragma unroll
      for (uint32_t i = 0; i < kAtOnce; ++i) {
        const uint32_t row = lane / kChunks + (i0 + i) * (32 / kChunks);
        if (change) x[i] = changed(p, part, x[i]);
        store_shared4(place(to, row, c), x[i].x, x[i].y, x[i].z, x[i].w);
      }
    }
  }

  __device__ static uint4 changed(const Plan &p, const quire_part_layout &part, uint4 x) {
    const uint32_t lane = threadIdx.x % 32;
    uint32_t words[4] = {x.x, x.y, x.z, x.w};
    float f[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 two = unpack_half2(words[i]);
      f[2 * i] = two.x;
      f[2 * i + 1] = two.y;
    }
    float up = part.codec.codebook == QUIRE_CODEBOOK_TABLE16 ? p.table_scale : 1.0f;
    {
      up *= exp2_fast(-static_cast<float>(part.rotation_stored));
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
          f[i] = (lane & across) != 0 ? other - f[i] : f[i] + other;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = pack_half2(f[2 * i] * up, f[2 * i + 1] * up);
    return make_uint4(words[0], words[1], words[2], words[3]);
  }

  __device__ static void clear(uint32_t to) {
    const uint32_t lane = threadIdx.x % 32;
    for (uint32_t i = lane; i < 16 * F::kDim / 8; i += 32) {
      store_shared4(place(to, i % 16, i / 16), 0, 0, 0, 0);
    }
  }

  __device__ static uint32_t place(uint32_t to, uint32_t row, uint32_t chunk) {
    return to + row * 128 + chunk / 8 * F::kPanel + ((chunk % 8) ^ (row % 8)) * 16;
  }

  const Plan &p_;
  const quire_part_layout &part_;
  const uint32_t lane_;
  uint32_t to_, pick_;
};

// Anchors of 16 tokens, as the sum of two halves: R(position) b for the first, one more turn by R(1) for
// each further one (16 roundings in fp32).
template <class F>
__device__ __noinline__ void make_anchors(const Plan &p, const Spot s, uint32_t to) {
  const uint32_t lane = threadIdx.x % 32;
  const Turns &t = p.codec.turns;
  const auto *statistics =
      reinterpret_cast<const quire_head_statistics *>(s.chunk + p.codec.sealed.statistics);
  const bool any = s.chunk != nullptr && !s.open && (statistics->flags & QUIRE_HEAD_ANCHORED) != 0;
  const float *b = p.codec.means + (uint64_t{p.args.layer} * p.kv_heads + s.head) * F::kDim;
  const auto put = [&](uint32_t row, uint32_t d, float x, float y) {
    const Halves h = split(x, y);
    const uint32_t at =
        to + row * 128 + d / 64 * F::kPanel + ((d / 8 % 8) ^ (row % 8)) * 16 + d % 8 * 2;
    store_shared(at, h.high);
    store_shared(at + F::kTile, h.low);
  };
  if (lane * 2 < t.pairs) {
    const uint32_t pair = lane * 2;
    float x[2] = {}, y[2] = {}, c[2] = {}, n[2] = {};
    if (any) {
#pragma unroll
      for (uint32_t e = 0; e < 2; ++e) {
        const float2 cs = position_turn(p, statistics->page_index * p.page_tokens + s.at, pair + e);
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
class TileGroup {
 public:
  __device__ TileGroup(const Plan &p, PrefillWalker *walker, bool anchored)
      : p_(p), cursor_(p, walker), maker_(p), anchored_(anchored) {}

  // Codes of two tiles are on their way while a third is made.
  __device__ void run() {
    uint32_t slot = 0, ahead = F::kRing - 1;
    for (uint32_t i = 0; i < F::kRing - 1; ++i) fetch(F::slot(i));
    for (uint32_t n = 0;; ++n) {
      fetch(F::slot(ahead));
      copy_wait<F::kRing - 1>();
      __syncwarp();
      const Spot spot = Spot::kept(F::slot(slot) + F::kCodeGaps * 256 + F::kAtSpot);
      if (__any_sync(~0u, !spot.any)) break;
      make(n, spot, F::slot(slot));
      slot = slot + 1 == F::kRing ? 0 : slot + 1;
      ahead = ahead + 1 == F::kRing ? 0 : ahead + 1;
    }
  }

 private:
  using Maker = TileMaker<F, kOfKeys>;

  __device__ __forceinline__ void fetch(uint32_t slot) {
    Spot spot;
    cursor_.next(&spot);
    if (threadIdx.x % 32 == 0) spot.keep(slot + F::kCodeGaps * 256 + F::kAtSpot);
    maker_.load(spot, slot);
    copy_commit();
  }

  __device__ __forceinline__ void make(uint32_t n, const Spot &spot, uint32_t slot) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, stage = n % 2;
    if (!kOfKeys && anchored_) {
      barrier_wait(F::anchors_empty(), (n & 1) ^ 1);
      make_anchors<F>(p_, spot, F::kAnchors + warp * 2048);
      tell(F::anchors_full());
    }
    barrier_wait(kOfKeys ? F::keys_empty(stage) : F::values_empty(stage), (n / 2 & 1) ^ 1);
    maker_.make(spot, slot, (kOfKeys ? F::kKeys : F::kValues) + stage * F::kTile + warp * 2048);
    if (kOfKeys && lane == 0) {
      uint32_t flags = spot.chunk == nullptr ? kAbsent : 0;
      if (anchored_ && spot.chunk != nullptr && !spot.open) {
        uint32_t statistics[1];
        load_shared(statistics, slot + F::kCodeGaps * 256 + F::kAtStatistics);
        if ((statistics[0] >> 16 & QUIRE_HEAD_ANCHORED) != 0) flags |= kAnchored;
      }
      store_shared(F::kFlags + (stage * 4 + warp) * 4, flags);
    }
    tell(kOfKeys ? F::keys_full(stage) : F::values_full(stage));
  }

  __device__ __forceinline__ static void tell(uint32_t barrier) {
    publish_to_matrices();
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(barrier);
  }

  const Plan &p_;
  TileCursor cursor_;
  const Maker maker_;
  const bool anchored_;
};

#endif

}  // namespace quire::kernels::cuda
