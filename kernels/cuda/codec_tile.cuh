// Tile: what one warp does at a time in append and gather: rows of one head for up to 32 tokens
// that follow one another in the call, K or V.
//
// Tokens come first in a tile, so that a warp writes to and reads from pages what lies together
// there: for head dim 128 eight rows of codes, 512 bytes, and their 32 bytes of scales.
//
// Invariants: lane t of a warp holds the place of token t of its tile; tile_tokens is a power of
// two, at most 32, and tile_tokens * blocks >= 32.
// Thread class: device code, warps. Cost: a load of a slot a token; a division where page_tokens is
// no power of two.
#pragma once

#include <cstddef>

#include "kernels/cuda/codec_block.cuh"

namespace quire::kernels::cuda {

// K or V of a call.
struct Rows {
  uint8_t *data;                      // nullptr: not part of the call
  int64_t token_stride, head_stride;  // bytes
};

// How the blocks of a part are dealt to lanes.
struct Deal {
  uint32_t tile_tokens;
  uint32_t tiles;        // of the call, over tokens
  uint32_t block_magic;  // ceil(2^20 / blocks): x / blocks for x * blocks < 2^20
};

// One tile of one part: which tokens, which head, and its rows in the call.
struct Tile {
  bool is_k;
  uint32_t head, first, tokens;
  uint8_t *base;
};

QUIRE_DEVICE Tile tile_of(const Rows &k, const Rows &v, const Deal &deal_k, const Deal &deal_v,
                          uint32_t heads, uint32_t tiles_k, uint32_t n, uint32_t task) {
  Tile t;
  t.is_k = task < tiles_k;
  const Deal &deal = t.is_k ? deal_k : deal_v;
  const Rows &rows = t.is_k ? k : v;
  const uint32_t in_part = t.is_k ? task : task - tiles_k;
  t.head = in_part % heads;
  t.first = in_part / heads * deal.tile_tokens;
  t.tokens = min(deal.tile_tokens, n - t.first);
  t.base = rows.data + static_cast<int64_t>(t.first) * rows.token_stride +
           static_cast<int64_t>(t.head) * rows.head_stride;
  return t;
}

struct Place {
  uint8_t *frame;   // nullptr: nowhere
  uint32_t offset;  // in its page
  bool open;
  bool first;  // of those in its page, as far as this call goes
};

QUIRE_DEVICE Place place_of_slot(const Frames &frames, uint32_t page_tokens, int64_t slot) {
  Place p = {};
  if (slot == -1) return p;
  p.open = slot < 0;
  const auto at = static_cast<uint64_t>(p.open ? -2 - slot : slot);
  uint64_t frame;
  if (at >> 32 == 0) {  // a short division where it does
    frame = static_cast<uint32_t>(at) / page_tokens;
  } else {
    frame = at / page_tokens;
  }
  p.offset = static_cast<uint32_t>(at - frame * page_tokens);
  const FrameView &view = p.open ? frames.open : frames.sealed;
  p.frame = view.base + frame * view.stride;
  return p;
}

QUIRE_DEVICE Place place_of(const Frames &frames, const TokenMap &map, uint32_t page_tokens,
                            uint32_t i) {
  if (map.slots != nullptr) {
    const int64_t slot = map.slots[i];
    Place p = place_of_slot(frames, page_tokens, slot);
    const int64_t before = i == 0 ? -1 : map.slots[i - 1];
    p.first = p.offset == 0 || before == -1 || before != (p.open ? slot + 1 : slot - 1);
    return p;
  }
  const uint64_t token = map.first + i, page = token / page_tokens;
  Place p = {};
  const int64_t entry = page < map.block_table_length ? map.block_table[page] : -1;
  if (entry == -1) return p;
  p.open = entry < 0;
  p.offset = static_cast<uint32_t>(token - page * page_tokens);
  p.first = p.offset == 0 || i == 0;
  const FrameView &view = p.open ? frames.open : frames.sealed;
  p.frame = view.base + static_cast<uint64_t>(p.open ? -2 - entry : entry) * view.stride;
  return p;
}

// The place that lane `from` holds.
QUIRE_DEVICE Place place_from(const Place &p, uint32_t from) {
  const auto frame = reinterpret_cast<uint64_t>(p.frame);
  const auto source = static_cast<int>(from);
  Place q = {};
  const uint32_t low = __shfl_sync(kAllLanes, static_cast<uint32_t>(frame), source);
  const uint32_t high = __shfl_sync(kAllLanes, static_cast<uint32_t>(frame >> 32), source);
  const uint32_t rest = __shfl_sync(
      kAllLanes, p.offset | (p.open ? 1u << 30 : 0u) | (p.first ? 1u << 31 : 0u), source);
  q.frame = reinterpret_cast<uint8_t *>(static_cast<uint64_t>(high) << 32 | low);
  q.offset = rest & 0xffffu;
  q.open = (rest & 1u << 30) != 0;
  q.first = (rest & 1u << 31) != 0;
  return q;
}

// ---- page headers

QUIRE_DEVICE void write_header(const quire_page_layout &layout, uint8_t *frame) {
  static_assert(offsetof(quire_page_header, fingerprint) == 8);
  static_assert(offsetof(quire_page_header, page_tokens) == 16);
  static_assert(offsetof(quire_page_header, bytes) == 24);
  static_assert(sizeof(quire_page_header) == 128 && QUIRE_PAGE_HEADER_BYTES == 128);
  auto *to = reinterpret_cast<uint4 *>(frame);
  to[0] = make_uint4(QUIRE_PAGE_MAGIC, QUIRE_PAGE_VERSION | layout.format << 16 | layout.open << 24,
                     static_cast<uint32_t>(layout.fingerprint),
                     static_cast<uint32_t>(layout.fingerprint >> 32));
  to[1] = make_uint4(layout.page_tokens, 0, static_cast<uint32_t>(layout.page_bytes),
                     static_cast<uint32_t>(layout.page_bytes >> 32));
  for (uint32_t i = 2; i < 8; ++i) to[i] = make_uint4(0, 0, 0, 0);
}

// A head's statistics; K's are all of them but v_exponent, so that K and V may be written apart.
QUIRE_DEVICE void write_k_statistics(const quire_page_layout &layout, uint8_t *chunk,
                                     uint32_t exponent, uint32_t flags, uint32_t page_index,
                                     bool also_v, uint32_t v_exponent) {
  uint8_t *to = chunk + layout.statistics;
  *to = static_cast<uint8_t>(exponent);
  if (also_v) to[1] = static_cast<uint8_t>(v_exponent);
  *reinterpret_cast<uint16_t *>(to + 2) = static_cast<uint16_t>(flags);
  reinterpret_cast<uint32_t *>(to)[1] = page_index;
  *reinterpret_cast<uint2 *>(to + 8) = make_uint2(0, 0);
}

QUIRE_DEVICE void write_direct_statistics(const quire_page_layout &layout, uint8_t *chunk) {
  constexpr uint32_t kDirect = kDirectExponent + QUIRE_EXPONENT_BIAS;
  *reinterpret_cast<uint4 *>(chunk + layout.statistics) =
      make_uint4(kDirect | kDirect << 8, 0, 0, 0);
}

// ---- plain rows, eight values at a time

QUIRE_DEVICE DType plain_type(const quire_part_layout &part) {
  if (part.codec.codebook == QUIRE_CODEBOOK_F32) return DType::kF32;
  return part.codec.codebook == QUIRE_CODEBOOK_BF16 ? DType::kBF16 : DType::kF16;
}

QUIRE_DEVICE void convert_octet(DType from_type, const uint8_t *from, DType to_type, uint8_t *to) {
  float x[8];
  if (from_type == DType::kF32) {
    load_block<8>(DType::kF32, from, x);
  } else {
    const uint4 q = *reinterpret_cast<const uint4 *>(from);
    const uint32_t words[4] = {q.x, q.y, q.z, q.w};
    QUIRE_UNROLL
    for (uint32_t j = 0; j < 4; ++j) {
      const float2 f = widen_pair(from_type, words[j]);
      x[2 * j] = f.x, x[2 * j + 1] = f.y;
    }
  }
  if (to_type == DType::kF32) {
    store_block<8>(DType::kF32, x, to);
    return;
  }
  uint32_t words[4];
  QUIRE_UNROLL
  for (uint32_t j = 0; j < 4; ++j) words[j] = narrow_pair(to_type, x[2 * j], x[2 * j + 1]);
  *reinterpret_cast<uint4 *>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}

// Rows of a tile between pages and the call's tensor. `wanted` is a mask of the tile's tokens; the
// others are skipped.
template <bool kToPages>
QUIRE_DEVICE void plain_tile(const quire_page_layout &layout, const quire_part_layout &part,
                             const Place &place, uint32_t wanted, uint32_t layer, uint32_t head,
                             DType type, uint8_t *rows, int64_t token_stride,
                             uint32_t tile_tokens) {
  const DType stored = plain_type(part);
  const uint32_t size = type == DType::kF32 ? 4 : 2, stored_size = part.code_bits / 8;
  // In steps of 16 bytes where bits stay as they are, else of eight values.
  const bool same = stored == type;
  const uint32_t steps = same ? part.row_bytes / 16 : part.dim / 8;
  const uint32_t row_step = same ? 16 : 8 * size, page_step = same ? 16 : 8 * stored_size;
  const uint64_t chunk = quire_head_offset(&layout, layer, head);
  const uint32_t lane = threadIdx.x % kWarp;
  constexpr uint32_t kDeep = 4;  // loads in flight
  const uint32_t all = tile_tokens * steps;
  for (uint32_t begin = 0; begin < all; begin += kDeep * kWarp) {
    uint8_t *in_page[kDeep], *in_row[kDeep];
    uint4 q[kDeep];
    QUIRE_UNROLL
    for (uint32_t d = 0; d < kDeep; ++d) {
      const uint32_t at = begin + d * kWarp + lane, token = at / steps, step = at - token * steps;
      const Place p = place_from(place, token % kWarp);
      const bool use = at < all && (wanted >> token % kWarp & 1u) != 0;
      in_row[d] = rows + token * token_stride + step * row_step;
      in_page[d] =
          use ? p.frame + chunk + quire_row_offset(&part, p.offset) + step * page_step : nullptr;
    }
    if (same) {
      QUIRE_UNROLL
      for (uint32_t d = 0; d < kDeep; ++d) {
        if (in_page[d] != nullptr) {
          q[d] = *reinterpret_cast<const uint4 *>(kToPages ? in_row[d] : in_page[d]);
        }
      }
      QUIRE_UNROLL
      for (uint32_t d = 0; d < kDeep; ++d) {
        if (in_page[d] != nullptr) {
          *reinterpret_cast<uint4 *>(kToPages ? in_page[d] : in_row[d]) = q[d];
        }
      }
      continue;
    }
    for (uint32_t d = 0; d < kDeep; ++d) {
      if (in_page[d] == nullptr) continue;
      if (kToPages) {
        convert_octet(type, in_row[d], stored, in_page[d]);
      } else {
        convert_octet(stored, in_page[d], type, in_row[d]);
      }
    }
  }
}

}  // namespace quire::kernels::cuda
