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

// Which tokens, which head. A warp takes K and V of a tile one after the other where both are dealt
// alike and there are tiles enough for all warps, else one of them.
struct Tile {
  bool with_k, with_v;
  uint32_t head, first, tokens, tile_tokens;
};

// The tiles of a call.
struct Tiles {
  uint32_t joint;      // 1: K and V go together
  uint32_t of_k, all;  // tiles times heads
};

QUIRE_DEVICE Tile tile_of(const Tiles &tiles, const Deal &deal_k, const Deal &deal_v,
                          uint32_t heads, uint32_t n, uint32_t task) {
  Tile t;
  t.with_k = task < tiles.of_k;
  t.with_v = tiles.joint != 0 || !t.with_k;
  const uint32_t in_part = t.with_k ? task : task - tiles.of_k;
  t.tile_tokens = t.with_k ? deal_k.tile_tokens : deal_v.tile_tokens;
  t.head = in_part % heads;
  t.first = in_part / heads * t.tile_tokens;
  t.tokens = min(t.tile_tokens, n - t.first);
  return t;
}

// The tile behind one, without divisions.
QUIRE_DEVICE Tile next_tile(const Tile &tile, const Tiles &tiles, const Deal &deal_k,
                            const Deal &deal_v, uint32_t heads, uint32_t n, uint32_t task) {
  if (task == tiles.of_k) return tile_of(tiles, deal_k, deal_v, heads, n, task);
  Tile t = tile;
  if (++t.head == heads) {
    t.head = 0;
    t.first += t.tile_tokens;
    t.tokens = min(t.tile_tokens, n - t.first);
  }
  return t;
}

QUIRE_DEVICE uint8_t *rows_at(const Rows &rows, const Tile &tile) {
  return rows.data + static_cast<int64_t>(tile.first) * rows.token_stride +
         static_cast<int64_t>(tile.head) * rows.head_stride;
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

// What a token's place is made of, as loaded: asked for a tile ahead, since all else waits for it.
struct RawPlace {
  int64_t at, before;  // slots, or the entry of a block table
};

QUIRE_DEVICE RawPlace fetch_place(const TokenMap &map, uint32_t page_tokens, uint32_t i) {
  RawPlace r = {-1, -1};
  if (map.slots != nullptr) {
    r.at = map.slots[i];
    if (i != 0) r.before = map.slots[i - 1];
    return r;
  }
  const uint64_t page = (map.first + i) / page_tokens;
  if (page < map.block_table_length) r.at = map.block_table[page];
  return r;
}

QUIRE_DEVICE Place place_of(const Frames &frames, const TokenMap &map, uint32_t page_tokens,
                            const RawPlace &raw, uint32_t i) {
  if (map.slots != nullptr) {
    Place p = place_of_slot(frames, page_tokens, raw.at);
    p.first = p.offset == 0 || raw.before == -1 || raw.before != (p.open ? raw.at + 1 : raw.at - 1);
    return p;
  }
  Place p = {};
  if (raw.at == -1) return p;
  p.open = raw.at < 0;
  p.offset = static_cast<uint32_t>((map.first + i) % page_tokens);
  p.first = p.offset == 0 || i == 0;
  const FrameView &view = p.open ? frames.open : frames.sealed;
  p.frame = view.base + static_cast<uint64_t>(p.open ? -2 - raw.at : raw.at) * view.stride;
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

// Outlined: who converts waits for memory anyway, and registers are wanted elsewhere.
QUIRE_OUTLINED void convert_octet(DType from_type, const uint8_t *from, DType to_type,
                                  uint8_t *to) {
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

// The rows that a lane's token has in its page, and in the call: K's, and V's where they go along.
struct PlainRows {
  uint8_t *in_page;  // of this lane's token; nullptr: skipped
  uint8_t *in_call;  // of the tile's first token
  int64_t stride;
};

QUIRE_DEVICE PlainRows plain_rows(const quire_page_layout &layout, const quire_part_layout &part,
                                  const Place &place, bool wanted, uint32_t layer, uint32_t head,
                                  uint8_t *in_call, int64_t stride) {
  PlainRows r = {nullptr, in_call, stride};
  if (wanted) {
    r.in_page = place.frame + quire_head_offset(&layout, layer, head) +
                quire_row_offset(&part, place.offset);
  }
  return r;
}

QUIRE_DEVICE uint8_t *pointer_from(uint8_t *p, uint32_t lane) {
  const auto bits64 = reinterpret_cast<uint64_t>(p);
  const auto source = static_cast<int>(lane);
  const uint32_t low = __shfl_sync(kAllLanes, static_cast<uint32_t>(bits64), source);
  const uint32_t high = __shfl_sync(kAllLanes, static_cast<uint32_t>(bits64 >> 32), source);
  return reinterpret_cast<uint8_t *>(static_cast<uint64_t>(high) << 32 | low);
}

// Steps of a tile's rows, a warp's width at a time, without a division each.
struct Steps {
  uint32_t steps, token, step, token_add, step_add;

  QUIRE_DEVICE explicit Steps(uint32_t steps_a_row) : steps(steps_a_row) {
    const uint32_t lane = threadIdx.x % kWarp;
    token = lane / steps;
    step = lane - token * steps;
    token_add = kWarp / steps;
    step_add = kWarp - token_add * steps;
  }
  QUIRE_DEVICE void next() {
    token += token_add;
    step += step_add;
    if (step >= steps) step -= steps, ++token;
  }
};

// Rows whose bits stay as they are, of kParts parts side by side, where a warp's width is a whole
// number of rows: a lane stays in its column.
template <bool kToPages, uint32_t kParts>
QUIRE_DEVICE void copy_columns(const PlainRows (&parts)[kParts], uint32_t steps,
                               uint32_t tile_tokens) {
  constexpr uint32_t kDeep = 4;  // loads in flight, of each part
  const uint32_t lane = threadIdx.x % kWarp, rows_a_step = kWarp / steps;
  const uint32_t first = lane / steps, column = (lane - first * steps) * 16;
  uint8_t *in_call[kParts];
  QUIRE_UNROLL
  for (uint32_t p = 0; p < kParts; ++p) {
    in_call[p] = parts[p].in_call + first * parts[p].stride + column;
  }
  QUIRE_ROLLED
  for (uint32_t token = first; token - first < tile_tokens; token += kDeep * rows_a_step) {
    uint8_t *in_page[kParts][kDeep];
    uint4 q[kParts][kDeep];
    QUIRE_UNROLL
    for (uint32_t p = 0; p < kParts; ++p) {
      QUIRE_UNROLL
      for (uint32_t d = 0; d < kDeep; ++d) {
        uint8_t *page = pointer_from(parts[p].in_page, (token + d * rows_a_step) % kWarp);
        const bool use = page != nullptr && token + d * rows_a_step < tile_tokens;
        in_page[p][d] = use ? page + column : nullptr;
        const uint8_t *from = in_call[p] + d * (rows_a_step * parts[p].stride);
        if (!kToPages) from = page + column;
        // Loaded in any case, so that all loads are under way together.
        q[p][d] = *reinterpret_cast<const uint4 *>(use ? from : parts[p].in_call);
      }
    }
    QUIRE_UNROLL
    for (uint32_t p = 0; p < kParts; ++p) {
      QUIRE_UNROLL
      for (uint32_t d = 0; d < kDeep; ++d) {
        if (in_page[p][d] == nullptr) continue;
        uint8_t *to = in_call[p] + d * (rows_a_step * parts[p].stride);
        *reinterpret_cast<uint4 *>(kToPages ? in_page[p][d] : to) = q[p][d];
      }
      in_call[p] += kDeep * (rows_a_step * parts[p].stride);
    }
  }
}

// The same for rows of any length.
template <bool kToPages>
QUIRE_DEVICE void copy_steps(const PlainRows &rows, uint32_t steps, uint32_t tile_tokens) {
  Steps at(steps);
  QUIRE_ROLLED
  for (uint32_t done = 0; done < tile_tokens * steps; done += kWarp) {
    uint8_t *in_page = pointer_from(rows.in_page, at.token % kWarp);
    if (in_page != nullptr && at.token < tile_tokens) {
      in_page += at.step * 16;
      uint8_t *in_call = rows.in_call + at.token * rows.stride + at.step * 16;
      *reinterpret_cast<uint4 *>(kToPages ? in_page : in_call) =
          *reinterpret_cast<const uint4 *>(kToPages ? in_call : in_page);
    }
    at.next();
  }
}

template <bool kToPages>
QUIRE_DEVICE void convert_tile(const PlainRows &rows, const quire_part_layout &part, DType type,
                               uint32_t tile_tokens) {
  const DType stored = plain_type(part);
  const uint32_t size = type == DType::kF32 ? 4 : 2, stored_size = part.code_bits / 8;
  Steps at(part.dim / 8);
  QUIRE_ROLLED
  for (uint32_t done = 0; done < tile_tokens * at.steps; done += kWarp) {
    uint8_t *in_page = pointer_from(rows.in_page, at.token % kWarp);
    if (in_page != nullptr && at.token < tile_tokens) {
      in_page += at.step * 8 * stored_size;
      uint8_t *in_call = rows.in_call + at.token * rows.stride + at.step * 8 * size;
      if (kToPages) {
        convert_octet(type, in_call, stored, in_page);
      } else {
        convert_octet(stored, in_page, type, in_call);
      }
    }
    at.next();
  }
}

// Plain rows of a tile between pages and the call's tensors.
template <bool kToPages, uint32_t kParts>
QUIRE_DEVICE void plain_tile(const PlainRows (&rows)[kParts], const quire_part_layout &part,
                             DType type, uint32_t tile_tokens) {
  if (plain_type(part) == type) {
    const uint32_t steps = part.row_bytes / 16;
    if (kWarp % steps == 0) {
      copy_columns<kToPages, kParts>(rows, steps, tile_tokens);
      return;
    }
    QUIRE_UNROLL
    for (uint32_t p = 0; p < kParts; ++p) copy_steps<kToPages>(rows[p], steps, tile_tokens);
    return;
  }
  QUIRE_UNROLL
  for (uint32_t p = 0; p < kParts; ++p) {
    convert_tile<kToPages>(rows[p], part, type, tile_tokens);
  }
}

}  // namespace quire::kernels::cuda
