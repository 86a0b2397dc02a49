// The fast kernel's parts that one warp runs: feeding units into shared memory, scores, values.
//
// A warp owns a ring of stages; a stage holds a unit: K and V of 16 tokens of one head, as stored.
// The feed runs ahead of the sums by kStages - 1 units and crosses from one segment to the next.
//
//   stage   = K codes | V codes | K scales | V scales | statistics | block table entry
//   codes   = [16][row], 16-byte chunk c of row r at c ^ fold(r): no bank conflicts, whether lanes
//             read chunks of 8 tokens (ldmatrix) or consecutive bytes of two
//   table   = [256][32] half2: code byte -> both its values, one copy a bank, rows 256 bytes apart
//             so that one byte permutation makes the address; the gaps hold rows of anchors
//
// K of 16 tokens is operand A of S^T = K Q^T, so that rows of q come in eights. A lane's bytes of a
// stored K row are 8 channels of each block (page_format.h: quarter blocks), hence an MMA stays in
// a block and its scale is applied to the sum. V^T is operand A of O^T = V^T P^T: lanes need pairs
// of tokens, so nibbles of two tokens are put into one byte before the table is read. V's scales
// multiply P in fp32.
//
// Peaks are lazy: P may reach 2^kLazy before sums are rescaled. P is f16 times 2^kHeadroom, in units
// of the largest V exponent met (exponent_), which all sums share.
#pragma once

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/attention_plan.cuh"

namespace quire::kernels::cuda {

inline constexpr float kLazy = 4;
inline constexpr int kHeadroom = 2;  // 2^(kLazy + kHeadroom) * 448 (largest e4m3) < 65504
inline constexpr int kNoExponent = -100000;
inline constexpr int kOpenExponent = -8;  // of f16 pages: P * 2^(kHeadroom - kOpenExponent) fits

// How keys are stored; values are 4-bit codes unless keys are f16, and then they are f16 too.
enum class Keys { kCodes, kInt8, kHalf };

template <int kDim_, int kTiles_, int kWarps_, int kStages_, Keys kKeys_ = Keys::kCodes,
          int kScaled_ = 32>
struct FastShape {
  static constexpr int kDim = kDim_, kTiles = kTiles_, kWarps = kWarps_, kStages = kStages_;
  static constexpr Keys kKeys = kKeys_;
  static constexpr int kScaled = kScaled_;  // values a scale: 32 or 64
  static constexpr bool kPlain = kKeys == Keys::kHalf;
  static constexpr bool kAnchors = !kPlain;
  static constexpr int kRows = 8 * kTiles, kUnit = 16;
  static constexpr int kBlocks = kDim / 32;  // of 32 channels, whatever has a scale
  static constexpr int kScales = kDim / kScaled;
  static constexpr int kKRow = kKeys == Keys::kInt8 ? kDim : kDim / 2, kVRow = kDim / 2;

  static constexpr int kVCodes = kUnit * kKRow, kKScales = kVCodes + kUnit * kVRow,
                       kVScales = kKScales + kUnit * kScales,
                       kStatistics = kVScales + kUnit * kScales, kEntry = kStatistics + 16,
                       kStage = kPlain ? 128 : (kEntry + 16 + 127) / 128 * 128,
                       kStageEntry = kPlain ? 0 : kEntry;
  // Addresses in shared memory; what the system keeps for itself lies below kTable. Rows are padded
  // so that lanes meet no bank twice.
  static constexpr int kTable = 1024, kRing = kTable + (kPlain ? 0 : 65536),
                       kSums = kRing + kWarps * kStages * kStage,  // also: turned queries
      kSumsRow = kDim * 4 + 16, kSumsWarp = kRows * kSumsRow, kTurns = kSums + kWarps * kSumsWarp,
                       kTurnsWarp = kAnchors ? kDim / 2 * 8 : 0,
                       kQueries = kTurns + kWarps * kTurnsWarp, kQueryRow = (kDim + 8) * 4,
                       kRowsOfQ = kQueries + (kAnchors ? kRows * kQueryRow : 0),
                       kRowOfQ = kDim * 2 + 64, kVariants = kPlain ? 1 : 2,
                       kPeaks = kRowsOfQ + kVariants * kRows * kRowOfQ,
                       kFactors = kPeaks + kWarps * kRows * 8,
                       kEnd = kFactors + kVariants * kRows * 4;
  static_assert(kEnd <= kFastSharedBytes);
  static constexpr int kAnchorRows = kDim <= 128 ? 64 : 32;  // tokens a turn of q serves

  // Which chunk of 16 bytes lies where in a row of `chunks` of them.
  __device__ static constexpr uint32_t fold(uint32_t row, uint32_t chunks) {
    return (row / (8 / chunks)) & (chunks - 1);
  }
  // The first of the 8 channels that lane t has in its word b of a stored key.
  __device__ static constexpr uint32_t key_channel(uint32_t b, uint32_t t) {
    return kScaled == 32 ? 32 * b + 8 * t : 64 * (b / 2) + 16 * t + 8 * (b % 2);
  }
};

// Feed: the units of a warp's share, one after the other, on their way into its ring.
template <class F>
class Feed {
 public:
  __device__ Feed(const Plan &p, const Walker &walker) : p_(p), walker_(walker) {
    const uint32_t lane = threadIdx.x % 32;
    constexpr uint32_t kScales = F::kScales;
    const quire_page_layout &l = p.codec.sealed;
    k_to_ = code_place(lane, F::kKRow / 16);
    v_to_ = F::kVCodes + code_place(lane, F::kVRow / 16);
    k_start_ = l.k.codes + lane * 16;
    v_start_ = l.v.codes + lane * 16;
    few_ = lane <= 2 * kScales;
    few_step_ = lane < 2 * kScales ? kScales * F::kUnit : 0;
    few_start_ = lane < kScales       ? l.k.scales + lane * 16
                 : lane < 2 * kScales ? l.v.scales + (lane - kScales) * 16
                                      : l.statistics;
    few_to_ = F::kKScales + lane * 16;
  }

  // The units [*begin, *end) of a segment that are this warp's.
  __device__ static void warp_units(const Plan &p, const Segment &g, uint32_t *begin,
                                    uint32_t *end) {
    const int32_t first = tile_first_token(p, g.s, g.tile), last = tile_end_token(p, g.s, g.tile);
    const auto visible =
        last > first ? static_cast<uint32_t>(last - first + F::kUnit - 1) / F::kUnit : 0u;
    const uint32_t hi = g.u1 < visible ? g.u1 : visible, lo = g.u0 < hi ? g.u0 : hi;
    const uint32_t n = hi - lo, warp = threadIdx.x / 32;
    *begin = lo + n * warp / F::kWarps;
    *end = lo + n * (warp + 1) / F::kWarps;
  }

  // Enqueues the next unit, if there is one, into a stage. Always commits a group.
  __device__ __forceinline__ void issue(uint32_t stage) {
    if (__any_sync(~0u, left_ == 0)) open_segment();
    if (__any_sync(~0u, left_ != 0)) {
      if (__any_sync(~0u, offset_ == p_.page_tokens)) next_page();
      send(stage);
      --left_;
      offset_ += F::kUnit;
    }
    copy_commit();
  }

 private:
  // Where chunk `lane` of a unit's codes goes; chunk lane + 32 i follows 512 i bytes behind, its
  // column folded like this one's where 32 chunks are a multiple of 8 rows.
  __device__ static uint32_t code_place(uint32_t lane, uint32_t chunks) {
    const uint32_t row = lane / chunks;
    return row * chunks * 16 + ((lane % chunks) ^ F::fold(row, chunks)) * 16;
  }

  __device__ void open_segment() {
    while (left_ == 0 && !walker_.done()) {
      const Segment g = next_segment(p_, &walker_);
      uint32_t begin, end;
      warp_units(p_, g, &begin, &end);
      left_ = end - begin;
      if (left_ == 0) continue;
      base_ = p_.args.frames.sealed.base + p_.sealed_offset +
              uint64_t{g.head} * p_.codec.sealed.head_stride;
      const auto token = static_cast<uint32_t>(tile_first_token(p_, g.s, g.tile)) +
                         begin * static_cast<uint32_t>(F::kUnit);
      const uint32_t page = token / p_.page_tokens;
      sequence_ = g.b;
      first_page_ = page;
      at_page_ = ~0u;  // next_page() makes it 0
      entries_ = load_entries(page);
      ahead_ = load_entries(page + 32);
      next_page();
      const uint32_t units = (token - page * p_.page_tokens) / F::kUnit;
      offset_ = units * F::kUnit;
      k_at_ += units * F::kUnit * F::kKRow;
      v_at_ += units * F::kUnit * F::kVRow;
      few_at_ += units * few_step_;
    }
  }

  __device__ int32_t load_entries(uint32_t page) const {
    return table_entry(p_, sequence_, static_cast<int32_t>(page + threadIdx.x % 32));
  }

  __device__ __forceinline__ void next_page() {
    offset_ = 0;
    if (++at_page_ == 32) {
      at_page_ = 0;
      first_page_ += 32;
      entries_ = ahead_;
      ahead_ = load_entries(first_page_ + 32);
    }
    entry_ = __shfl_sync(~0u, entries_, static_cast<int>(at_page_));
    page_ =
        base_ + static_cast<uint64_t>(static_cast<uint32_t>(entry_)) * p_.args.frames.sealed.stride;
    k_at_ = k_start_;
    v_at_ = v_start_;
    few_at_ = few_start_;
  }

  __device__ __forceinline__ void send(uint32_t stage) {
    store_shared(stage + F::kStageEntry, static_cast<uint32_t>(entry_));
    if constexpr (!F::kPlain) {
      if (__all_sync(~0u, entry_ >= 0)) {
        copy_codes<F::kKRow>(stage, k_to_, page_ + k_at_);
        copy_codes<F::kVRow>(stage, v_to_, page_ + v_at_);
        if (few_) copy_async16(stage + few_to_, page_ + few_at_);
      }
      k_at_ += F::kUnit * F::kKRow;
      v_at_ += F::kUnit * F::kVRow;
      few_at_ += few_step_;
    }
  }

  template <int kRow>
  __device__ __forceinline__ static void copy_codes(uint32_t stage, uint32_t place,
                                                    const uint8_t *from) {
    constexpr uint32_t kChunks = kRow / 16;
#pragma unroll
    for (uint32_t i = 0; i < kRow / 32; ++i) {
      // Rows 32 i / kChunks further; folding repeats every 8 rows.
      const uint32_t turn = F::fold(32 * i / kChunks % 8, kChunks) * 16;
      copy_async16((stage + place + i * 512) ^ turn, from + i * 512);
    }
  }

  const Plan &p_;
  Walker walker_;
  uint32_t k_to_, v_to_, few_to_, k_start_, v_start_, few_start_, few_step_;
  bool few_;
  uint32_t left_ = 0;  // units of the segment
  const uint8_t *base_ = nullptr, *page_ = nullptr;
  uint32_t k_at_ = 0, v_at_ = 0, few_at_ = 0;
  uint32_t sequence_ = 0, offset_ = 0;     // of the next unit in its page
  uint32_t first_page_ = 0, at_page_ = 0;  // lane i holds the entry of page first_page_ + i
  int32_t entries_ = -1, ahead_ = -1, entry_ = -1;
};

// Both values of code byte i of `word`.
template <int i, class F>
__device__ __forceinline__ uint32_t look_up(uint32_t word, uint32_t lane4) {
  uint32_t address, pair;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(address) : "r"(word), "r"(lane4), "n"(0x5504 | (i << 4)));
  asm("ld.shared.b32 %0, [%1+%2];" : "=r"(pair) : "r"(address), "n"(F::kTable));
  return pair;
}

// Hadamard over a row of which lane l holds channels l + 32 i, not divided.
template <int kCount>
__device__ __forceinline__ void hadamard_row(float (&x)[kCount]) {
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll 1
  for (uint32_t across = 1; across < 32; across *= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float other = __shfl_xor_sync(~0u, x[i], static_cast<int>(across));
      x[i] = (lane & across) != 0 ? other - x[i] : x[i] + other;
    }
  }
#pragma unroll
  for (int stride = 1; stride < kCount; stride *= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if ((i & stride) != 0) continue;
      const float a = x[i], b = x[i | stride];
      x[i] = a + b;
      x[i | stride] = a - b;
    }
  }
}

// q of a tile's rows, in f16: made once a segment by the whole block in shared memory, plain and
// rotated; operands B are read from there, in the order in which a lane finds K's channels.
template <class F>
struct QueryFragments {
  uint32_t fragment[F::kTiles][F::kBlocks][4];
  float factor[F::kTiles][2];  // of rows 2t, 2t + 1: what logits are to be multiplied with
  uint32_t variant;            // 1: rotated

  // Whole block. A barrier follows.
  __device__ static void share(const Plan &p, const Segment &g) {
    const uint32_t lane = threadIdx.x % 32, rows = tile_rows(p, g.s, g.tile);
    for (uint32_t row = threadIdx.x / 32; row < F::kRows; row += F::kWarps) {
      float x[F::kBlocks];
      const int64_t at = row_place(p, g.s, g.head, g.tile * p.rows + (row < rows ? row : 0)).q;
#pragma unroll
      for (int i = 0; i < F::kBlocks; ++i) {
        x[i] = load_as_float(p.args.q_dtype, p.args.q, at + i * 32 + lane);
        if (row >= rows) x[i] = 0;
      }
      keep(p, row, 0, x);
      if constexpr (!F::kPlain) {
        hadamard_row(x);
        keep(p, row, 1, x);
      }
    }
  }

  __device__ void load(uint32_t which) {
    variant = which;
    const uint32_t t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
      uint32_t x[2];
      load_shared(x, F::kFactors + (which * F::kRows + static_cast<uint32_t>(n) * 8 + 2 * t) * 4);
      factor[n][0] = __uint_as_float(x[0]);
      factor[n][1] = __uint_as_float(x[1]);
#pragma unroll
      for (int b = 0; b < F::kBlocks; ++b) load_shared(fragment[n][b], place(n, b));
    }
  }

 private:
  __device__ uint32_t place(int n, int b) const {
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t row = variant * F::kRows + static_cast<uint32_t>(n) * 8 + lane / 4;
    return F::kRowsOfQ + row * F::kRowOfQ + F::key_channel(static_cast<uint32_t>(b), lane % 4) * 2;
  }

  __device__ static void keep(const Plan &p, uint32_t row, uint32_t which,
                              const float (&x)[F::kBlocks]) {
    const uint32_t lane = threadIdx.x % 32;
    float most = 0;
#pragma unroll
    for (int i = 0; i < F::kBlocks; ++i) most = fmaxf(most, fabsf(x[i]));
    for (int d = 16; d > 0; d >>= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
    // A power of two brings the row into f16's range.
    int exponent = static_cast<int>(__float_as_uint(most) >> 23) - 127;
    exponent = exponent < -100 ? -100 : (exponent > 120 ? 120 : exponent);
    const float down = __uint_as_float(static_cast<uint32_t>(127 - exponent) << 23);
    const uint32_t at = F::kRowsOfQ + (which * F::kRows + row) * F::kRowOfQ + lane * 2;
#pragma unroll
    for (int i = 0; i < F::kBlocks; ++i) {
      store_shared_half(at + static_cast<uint32_t>(i) * 64, __float2half_rn(x[i] * down));
    }
    float up = __uint_as_float(static_cast<uint32_t>(127 + exponent) << 23) * p.args.scale;
    if (p.args.soft_cap == 0) up *= kLog2e;
    if (which == 1) {
      up *= exp2_fast(-static_cast<float>(p.codec.sealed.k.rotation_read));
      if constexpr (F::kKeys == Keys::kCodes) up *= p.table_inverse;
      if constexpr (F::kKeys == Keys::kInt8) up *= 1.0f / 128;  // codes stand for code / 128
    }
    if (lane == 0) store_shared(F::kFactors + (which * F::kRows + row) * 4, up);
  }
};

// What of a lane's addresses is the same in every stage.
template <class F>
struct StagePlaces {
  uint32_t table, keys, scales, values;

  __device__ StagePlaces() {
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    table = lane * 4;
    constexpr uint32_t kKeyChunks = F::kKRow / 16, kValueChunks = F::kVRow / 16;
    const uint32_t chunk = kKeyChunks == 2 ? t / 2 : t * (kKeyChunks / 4);
    keys = g * F::kKRow + (chunk ^ F::fold(g, kKeyChunks)) * 16 + (kKeyChunks == 2 ? t % 2 * 8 : 0);
    scales = F::kKScales + g * F::kScales;
    const uint32_t token = lane % 8 + lane / 8 % 2 * 8;
    values = F::kVCodes + token * F::kVRow + ((lane / 16) ^ F::fold(token, kValueChunks)) * 16;
  }
};

// A lane's words of the stored keys of one token: word b holds 8 codes of 4 bits; or words 2b and
// 2b + 1 hold 8 of 8 bits.
template <class F>
struct KeyWords {
  static constexpr int kWords = F::kKRow / 16;
  uint32_t word[kWords];

  // at: where the lane's first chunk lies. Chunks of one lane differ in their lowest bits only.
  __device__ __forceinline__ void load(uint32_t at) {
    if constexpr (kWords == 2) {
      load_shared(word, at);
    } else {
#pragma unroll
      for (uint32_t i = 0; i < kWords / 4; ++i) {
        uint32_t part[4];
        load_shared(part, at ^ (i * 16));
#pragma unroll
        for (int j = 0; j < 4; ++j) word[i * 4 + j] = part[j];
      }
    }
  }

  // Values 2i, 2i + 1 of the 8 of word b.
  template <int i>
  __device__ __forceinline__ uint32_t pair(int b, uint32_t lane4) const {
    if constexpr (F::kKeys == Keys::kCodes) {
      return look_up<i, F>(word[b], lane4);
    } else {
      // As the low byte of a half, 1024 is its exponent: 1024 + (code + 128) - 1152.
      const uint32_t raised = word[2 * b + i / 2] ^ 0x80808080u;
      const uint32_t halves = __byte_perm(raised, 0x64646464u, i % 2 == 0 ? 0x4140 : 0x4342);
      return add_half2(halves, 0xe480e480u);
    }
  }
};

// The scales of one token, as fp32.
template <class F>
__device__ __forceinline__ void load_scales(float (&scale)[F::kScales], uint32_t at) {
  constexpr int kWords = F::kScales <= 4 ? 1 : F::kScales / 4;
  uint32_t x[kWords];
  if constexpr (F::kScales >= 4) {
    load_shared(x, at);
  } else {
    load_shared(x, at & ~3u);
    x[0] >>= at % 4 * 8;
  }
#pragma unroll
  for (int b = 0; b < F::kScales; b += 2) {
    const float2 two = unpack_half2(e4m3_pair(x[b / 4] >> (b % 4 * 8)));
    scale[b] = two.x;
    if (b + 1 < F::kScales) scale[b + 1] = two.y;
  }
}

// S^T of a sealed unit, without K's exponent.
template <class F>
__device__ __forceinline__ void sealed_scores(float (&s)[F::kTiles][4], const QueryFragments<F> &q,
                                              uint32_t stage, const StagePlaces<F> &places) {
  const uint32_t lane4 = places.table;
  KeyWords<F> near, far;
  near.load(stage + places.keys);
  // 8 rows on: folded alike but where a row has 2 chunks (fold(g + 8, 2) = fold(g, 2) too).
  far.load(stage + places.keys + 8 * F::kKRow);
  float scale[F::kScales], scale8[F::kScales];
  load_scales<F>(scale, stage + places.scales);
  load_scales<F>(scale8, stage + places.scales + 8 * F::kScales);
#pragma unroll
  for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] = 0;
  }
  const float none[4] = {0, 0, 0, 0};
#pragma unroll
  for (int b = 0; b < F::kBlocks; ++b) {
    const uint32_t a0[4] = {near.template pair<0>(b, lane4), far.template pair<0>(b, lane4),
                            near.template pair<1>(b, lane4), far.template pair<1>(b, lane4)};
    const uint32_t a1[4] = {near.template pair<2>(b, lane4), far.template pair<2>(b, lane4),
                            near.template pair<3>(b, lane4), far.template pair<3>(b, lane4)};
    const float own = scale[b * 32 / F::kScaled], own8 = scale8[b * 32 / F::kScaled];
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
      const uint32_t(&f)[4] = q.fragment[n][b];
      float d[4];
      mma(d, a0, f[0], f[1], none);
      mma(d, a1, f[2], f[3], d);
      s[n][0] = fmaf(d[0], own, s[n][0]);
      s[n][1] = fmaf(d[1], own, s[n][1]);
      s[n][2] = fmaf(d[2], own8, s[n][2]);
      s[n][3] = fmaf(d[3], own8, s[n][3]);
    }
  }
}

// O^T += V^T P^T of a sealed unit. P is weighted with V's scales in fp32, before its one rounding.
template <class F>
__device__ __forceinline__ void sealed_values(float (&o)[F::kTiles][F::kBlocks][2][4],
                                              const float (&p)[F::kTiles][4], uint32_t stage,
                                              const StagePlaces<F> &places) {
  const uint32_t lane4 = places.table;
  float scale[F::kScales], scale8[F::kScales];
  load_scales<F>(scale, stage + places.scales + (F::kVScales - F::kKScales));
  load_scales<F>(scale8, stage + places.scales + (F::kVScales - F::kKScales) + 8 * F::kScales);
  uint32_t pairs[F::kTiles][2];
#pragma unroll
  for (int b = 0; b < F::kBlocks; b += 2) {
    uint32_t codes[4];
    load_matrices_transposed(codes, (stage + places.values) ^ (static_cast<uint32_t>(b) * 16));
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t even = __byte_perm(codes[2 * i], codes[2 * i + 1], 0x5410);
      const uint32_t odd = __byte_perm(codes[2 * i], codes[2 * i + 1], 0x7632);
      const uint32_t upper = select_bits(even, odd >> 4, 0xf0f0f0f0u);
      const uint32_t lower = select_bits(even << 4, odd, 0xf0f0f0f0u);
      const uint32_t a0[4] = {look_up<0, F>(upper, lane4), look_up<0, F>(lower, lane4),
                              look_up<2, F>(upper, lane4), look_up<2, F>(lower, lane4)};
      const uint32_t a1[4] = {look_up<1, F>(upper, lane4), look_up<1, F>(lower, lane4),
                              look_up<3, F>(upper, lane4), look_up<3, F>(lower, lane4)};
      if ((b + i) * 32 % F::kScaled == 0) {
        const float own = scale[(b + i) * 32 / F::kScaled],
                    own8 = scale8[(b + i) * 32 / F::kScaled];
#pragma unroll
        for (int n = 0; n < F::kTiles; ++n) {
          pairs[n][0] = transpose_8x8(pack_half2(p[n][0] * own, p[n][1] * own));
          pairs[n][1] = transpose_8x8(pack_half2(p[n][2] * own8, p[n][3] * own8));
        }
      }
#pragma unroll
      for (int n = 0; n < F::kTiles; ++n) {
        mma(o[n][b + i][0], a0, pairs[n][0], pairs[n][1], o[n][b + i][0]);
        mma(o[n][b + i][1], a1, pairs[n][0], pairs[n][1], o[n][b + i][1]);
      }
    }
  }
}

// The same two for f16 pages, straight from device memory: a sequence has one such page.
template <class F>
__device__ __forceinline__ void open_scores(float (&s)[F::kTiles][4], const QueryFragments<F> &q,
                                            const __half *k, uint32_t lane) {
  const uint32_t g = lane / 4, t = lane % 4;
  uint4 near[F::kBlocks], far[F::kBlocks];
#pragma unroll
  for (int b = 0; b < F::kBlocks; ++b) {
    const uint32_t d = F::key_channel(static_cast<uint32_t>(b), t);
    near[b] = *reinterpret_cast<const uint4 *>(k + g * F::kDim + d);
    far[b] = *reinterpret_cast<const uint4 *>(k + (g + 8) * F::kDim + d);
  }
#pragma unroll
  for (int n = 0; n < F::kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] = 0;
#pragma unroll
    for (int b = 0; b < F::kBlocks; ++b) {
      const uint32_t a0[4] = {near[b].x, far[b].x, near[b].y, far[b].y};
      const uint32_t a1[4] = {near[b].z, far[b].z, near[b].w, far[b].w};
      const uint32_t(&f)[4] = q.fragment[n][b];
      mma(s[n], a0, f[0], f[1], s[n]);
      mma(s[n], a1, f[2], f[3], s[n]);
    }
  }
}

template <class F>
__device__ __forceinline__ void open_values(float (&o)[F::kTiles][F::kBlocks][2][4],
                                            const float (&p)[F::kTiles][4], const __half *v,
                                            uint32_t lane, int32_t limit) {
  const uint32_t g = lane / 4, t = lane % 4;
  uint32_t pairs[F::kTiles][2];
#pragma unroll
  for (int n = 0; n < F::kTiles; ++n) {
    pairs[n][0] = transpose_8x8(pack_half2(p[n][0], p[n][1]));
    pairs[n][1] = transpose_8x8(pack_half2(p[n][2], p[n][3]));
  }
#pragma unroll
  for (int b = 0; b < F::kBlocks; ++b) {
    uint2 x[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t token = 2 * t + i % 2 + i / 2 * 8;
      x[i] = make_uint2(0, 0);
      if (static_cast<int32_t>(token) < limit) {
        x[i] = *reinterpret_cast<const uint2 *>(v + token * F::kDim + b * 32 + g * 4);
      }
    }
    const uint32_t a0[4] = {
        __byte_perm(x[0].x, x[1].x, 0x5410), __byte_perm(x[0].x, x[1].x, 0x7632),
        __byte_perm(x[2].x, x[3].x, 0x5410), __byte_perm(x[2].x, x[3].x, 0x7632)};
    const uint32_t a1[4] = {
        __byte_perm(x[0].y, x[1].y, 0x5410), __byte_perm(x[0].y, x[1].y, 0x7632),
        __byte_perm(x[2].y, x[3].y, 0x5410), __byte_perm(x[2].y, x[3].y, 0x7632)};
#pragma unroll
    for (int n = 0; n < F::kTiles; ++n) {
      mma(o[n][b][0], a0, pairs[n][0], pairs[n][1], o[n][b][0]);
      mma(o[n][b][1], a1, pairs[n][0], pairs[n][1], o[n][b][1]);
    }
  }
}

}  // namespace quire::kernels::cuda
