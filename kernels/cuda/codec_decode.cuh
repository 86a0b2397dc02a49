// Decoding a block (codec_block.cuh): codes and scale out of a page, values RN16(RN32(code * scale)).
//
// A block is fetched first and decoded later, so that the next one's bytes are under way while this
// one is turned back. The codebook lies in shared memory once for each lane.
//
// Thread class: device code. Cost: seven instructions and one shared wavefront a value.
#pragma once

#include "kernels/cuda/codec_block.cuh"

namespace quire::kernels::cuda {

template <uint32_t kBytes>
QUIRE_DEVICE void load_unit(const uint8_t *from, uint32_t *words, uint32_t at) {
  if constexpr (kBytes == 1) {
    words[at / 4] |= static_cast<uint32_t>(*from) << (at % 4 * 8);
  } else if constexpr (kBytes == 2) {
    words[at / 4] |= static_cast<uint32_t>(*reinterpret_cast<const uint16_t *>(from))
                     << (at % 4 * 8);
  } else if constexpr (kBytes == 4) {
    words[at / 4] = *reinterpret_cast<const uint32_t *>(from);
  } else if constexpr (kBytes == 8) {
    const uint2 w = *reinterpret_cast<const uint2 *>(from);
    words[at / 4] = w.x, words[at / 4 + 1] = w.y;
  } else {
    QUIRE_UNROLL
    for (uint32_t i = 0; i < kBytes / 16; ++i) {
      const uint4 q = reinterpret_cast<const uint4 *>(from)[i];
      uint32_t *w = words + at / 4 + 4 * i;
      w[0] = q.x, w[1] = q.y, w[2] = q.z, w[3] = q.w;
    }
  }
}

template <uint32_t kBlock, uint32_t kBits>
QUIRE_DEVICE void load_codes(const quire_part_layout &part, uint32_t block, const uint8_t *row,
                             uint32_t *words) {
  constexpr uint32_t kBytes = kBlock * kBits / 8, kUnit = kBytes / 4;
  QUIRE_UNROLL
  for (uint32_t i = 0; i < (kBytes + 3) / 4; ++i) words[i] = 0;
  if (part.unit == 0) {
    load_unit<kBytes>(row + block * kBytes, words, 0);
    return;
  }
  QUIRE_UNROLL
  for (uint32_t t = 0; t < 4; ++t) {
    load_unit<kUnit>(row + (t * part.blocks + block) * kUnit, words, t * kUnit);
  }
}

// ---- decoding

// One copy a lane: no two lanes meet in a bank.
struct DecodeShared {
  float values[16][kWarp];
};

QUIRE_DEVICE void load_values(const CudaCodec &codec, DecodeShared *shared) {
  for (uint32_t i = threadIdx.x; i < 16 * kWarp; i += blockDim.x) {
    shared->values[i / kWarp][i % kWarp] = codec.values[i / kWarp];
  }
}

struct DecodeView {
  const DecodeShared *shared;
  uint32_t values;  // shared address of this lane's copy
};

QUIRE_DEVICE DecodeView view_of(const DecodeShared &shared) {
  return {&shared, shared_address(shared.values) + 4 * (threadIdx.x % kWarp)};
}

// The value of the code in bits kAt to kAt + 3 of a word.
template <uint32_t kAt>
QUIRE_DEVICE float code_value(const DecodeView &view, uint32_t word) {
#if defined(__CUDA_ARCH__)
  const uint32_t moved = kAt < 7 ? word << (7 - kAt) % 32 : word >> (kAt - 7) % 32;
  float value;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"((moved & 0x780u) + view.values));
  return value;
#else
  return view.shared->values[word >> kAt & 15u][threadIdx.x % kWarp];
#endif
}

// Eight codes of a word: byte by byte, the high nibble first.
template <uint32_t kByte>
QUIRE_DEVICE void decode_pair(const DecodeView &view, uint32_t word, float s, float *x) {
  const float2 f = round_to_halves(__fmul_rn(code_value<8 * kByte + 4>(view, word), s),
                                   __fmul_rn(code_value<8 * kByte>(view, word), s));
  x[2 * kByte] = f.x, x[2 * kByte + 1] = f.y;
}

// What a page holds of a block.
template <uint32_t kBlock, uint32_t kBits>
struct Coded {
  uint32_t words[(kBlock * kBits + 31) / 32];
  uint32_t scale;  // as stored
};

template <uint32_t kBlock, uint32_t kBits>
QUIRE_DEVICE void fetch_block(const quire_part_layout &part, const uint8_t *chunk, uint32_t token,
                              uint32_t block, Coded<kBlock, kBits> *to) {
  const uint8_t *stored = chunk + quire_scale_offset(&part, token, block);
  to->scale = part.scale_bytes == 2 ? *reinterpret_cast<const uint16_t *>(stored) : *stored;
  load_codes<kBlock, kBits>(part, block, chunk + quire_row_offset(&part, token), to->words);
}

// Rotated values, each RN16(RN32(code * scale)).
template <uint32_t kBlock, uint32_t kBits>
QUIRE_DEVICE void decode_fetched(const quire_part_layout &part, const DecodeView &view,
                                 const Coded<kBlock, kBits> &coded, uint32_t exponent,
                                 float (&x)[kBlock]) {
  const float s = part.scale_bytes == 2
                      ? halves_to_floats(coded.scale).x
                      : __fmul_rn(e4m3_value(coded.scale), power(scale_shift(exponent)));
  if constexpr (kBits == 8) {
    QUIRE_UNROLL
    for (uint32_t i = 0; i < kBlock; i += 2) {
      const uint32_t word = coded.words[i / 4] >> (i % 4 * 8);
      const auto a = static_cast<float>(static_cast<int8_t>(word));
      const auto b = static_cast<float>(static_cast<int8_t>(word >> 8));
      const float2 f =
          round_to_halves(__fmul_rn(__fmul_rn(a, 0x1p-7f), s), __fmul_rn(__fmul_rn(b, 0x1p-7f), s));
      x[i] = f.x, x[i + 1] = f.y;
    }
  } else {
    QUIRE_UNROLL
    for (uint32_t w = 0; w < kBlock / 8; ++w) {
      decode_pair<0>(view, coded.words[w], s, x + 8 * w);
      decode_pair<1>(view, coded.words[w], s, x + 8 * w);
      decode_pair<2>(view, coded.words[w], s, x + 8 * w);
      decode_pair<3>(view, coded.words[w], s, x + 8 * w);
    }
  }
}

}  // namespace quire::kernels::cuda
