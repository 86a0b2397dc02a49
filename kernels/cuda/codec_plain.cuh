// Plain rows: rows of a tile (codec_tile.cuh) that go between pages and tensors without a code, as
// they are or converted.
//
// Copies keep four loads of 16 bytes a lane and part in flight, each lane in its column, where a
// warp's width is a whole number of rows; other row lengths go step by step.
//
// Thread class: device code, warps. Cost: memory-bound.
#pragma once

#include "kernels/cuda/codec_tile.cuh"

namespace quire::kernels::cuda {

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

// Asks for a tile's rows in the call's tensors, into the level-2 cache.
QUIRE_DEVICE void prefetch_call(const RowsTask &task, const Tile &tile) {
  const auto rows_of = [&](bool is_k) {
    const Rows &rows = task.rows(is_k);
    const uint32_t lines = (task.part(is_k).dim * dtype_bytes(task.dtype) + 127) / 128;
    const uint8_t *base = rows_at(rows, tile);
    for (uint32_t i = threadIdx.x % kWarp; i < tile.tokens(task) * lines; i += kWarp) {
      const uint32_t token = i / lines;
      prefetch(base + token * rows.token_stride + (i - token * lines) * 128);
    }
  };
  if (tile.with_k(task)) rows_of(true);
  if (tile.with_v(task)) rows_of(false);
}

// The rows of a tile whose tokens are wanted. kQuantised: those of open pages.
template <bool kToPages, bool kQuantised>
QUIRE_DEVICE void move_plain(const RowsTask &task, const Tile &tile, const Place &place,
                             bool wanted) {
  const quire_page_layout &layout = kQuantised ? task.codec.open : task.codec.sealed;
  const auto rows = [&](bool is_k) {
    const Rows &of = is_k ? task.k : task.v;
    return plain_rows(layout, is_k ? layout.k : layout.v, place, wanted, task.layer, tile.head,
                      rows_at(of, tile), of.token_stride);
  };
  const bool with_k = tile.with_k(task), with_v = tile.with_v(task);
  const uint32_t tokens = tile.all_tokens(task);
  if (with_k && with_v && layout.k.dim == layout.v.dim) {
    const PlainRows both[2] = {rows(true), rows(false)};
    plain_tile<kToPages, 2>(both, layout.k, task.dtype, tokens);
    return;
  }
  QUIRE_ROLLED
  for (uint32_t part = with_k ? 0 : 1; part < (with_v ? 2u : 1u); ++part) {
    const PlainRows one[1] = {rows(part == 0)};
    plain_tile<kToPages, 1>(one, part == 0 ? layout.k : layout.v, task.dtype, tokens);
  }
}

}  // namespace quire::kernels::cuda
