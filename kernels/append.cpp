// Append and gather: plain rows of tokens into pages, and out of them. See codec.h.
//
// A call's tokens are cut into runs that are adjacent in a page; a run's rows of one head go
// through a buffer on the stack, or straight through memcpy where nothing has to change.
//
// Thread class: pure functions on memory that the caller owns for the call.
#include <cstring>

#include "kernels/codec_state.h"
#include "kernels/part_rows.h"
#include "kernels/token_runs.h"

namespace quire::kernels {
namespace {

constexpr uint32_t kBuffer = 8192;  // fp32 values; 32 KiB of stack

struct Side {  // K or V of a call
  const quire_part_layout *sealed, *open;
  int64_t token_stride, head_stride;  // in bytes
};

Side make_side(const quire_part_layout &sealed, const quire_part_layout &open, uint32_t kv_heads,
               DType type, int64_t token_stride, int64_t head_stride) {
  const auto bytes = static_cast<int64_t>(dtype_bytes(type));
  const auto dim = static_cast<int64_t>(sealed.dim);
  if (head_stride == 0) head_stride = dim;
  if (token_stride == 0) token_stride = dim * kv_heads;
  return {&sealed, &open, token_stride * bytes, head_stride * bytes};
}

// Rows of n tokens and one head: to and from a dense buffer.
void read_rows(const RowKernels &rk, DType type, const uint8_t *from, int64_t stride, uint32_t n,
               uint32_t dim, float *rows) {
  if (stride == static_cast<int64_t>(dim) * dtype_bytes(type)) {
    rk.widen(type, from, rows, static_cast<size_t>(n) * dim);
    return;
  }
  for (uint32_t t = 0; t < n; ++t) rk.widen(type, from + t * stride, rows + t * dim, dim);
}

void write_rows(const RowKernels &rk, DType type, const float *rows, uint32_t n, uint32_t dim,
                uint8_t *to, int64_t stride) {
  if (stride == static_cast<int64_t>(dim) * dtype_bytes(type)) {
    rk.narrow(type, rows, to, static_cast<size_t>(n) * dim);
    return;
  }
  for (uint32_t t = 0; t < n; ++t) rk.narrow(type, rows + t * dim, to + t * stride, dim);
}

uint32_t exponent_of(const quire_page_layout &layout, const uint8_t *chunk, bool is_k) {
  if (layout.statistics == 0) return 0;
  quire_head_statistics s;
  std::memcpy(&s, chunk + layout.statistics, sizeof s);
  return is_k ? s.k_exponent : s.v_exponent;
}

uint64_t append_run(const Codec &codec, const RowKernels &rk, const AppendArgs &args,
                    uint64_t first, const TokenRun &run, const Side &side, const void *source,
                    bool is_k) {
  const quire_page_layout &layout = run.open ? codec.open : codec.sealed;
  const quire_part_layout &part = run.open ? *side.open : *side.sealed;
  uint64_t nonfinite = 0;
  alignas(64) float rows[kBuffer];
  for (uint32_t head = 0; head < layout.kv_heads; ++head) {
    uint8_t *chunk = run.frame + quire_head_offset(&layout, args.layer, head);
    const uint8_t *from = static_cast<const uint8_t *>(source) +
                          static_cast<int64_t>(first) * side.token_stride + head * side.head_stride;
    if (!is_quantised(part) && plain_type(part) == args.dtype) {
      for (uint32_t t = 0; t < run.n; ++t) {
        std::memcpy(chunk + quire_row_offset(&part, run.offset + t), from + t * side.token_stride,
                    part.row_bytes);
      }
      continue;
    }
    read_rows(rk, args.dtype, from, side.token_stride, run.n, part.dim, rows);
    if (part.rotation_size > 1) {
      nonfinite += tame_rows(rk, rows, run.n, part.dim);
    } else if (is_quantised(part)) {
      nonfinite += rk.count_nonfinite(rows, static_cast<size_t>(run.n) * part.dim);
    }
    encode_part(rk, part, codec.book, Stage::kPlain, rows, run.offset, run.n,
                exponent_of(layout, chunk, is_k), args.search, chunk);
  }
  return nonfinite;
}

void gather_run(const Codec &codec, const RowKernels &rk, const GatherArgs &args, uint64_t first,
                const TokenRun &run, const Side &side, void *target, bool is_k) {
  const quire_page_layout &layout = run.open ? codec.open : codec.sealed;
  const quire_part_layout &part = run.open ? *side.open : *side.sealed;
  alignas(64) float rows[kBuffer];
  float cos[kMaxPairs], sin[kMaxPairs], anchor[kMaxDim];
  uint32_t turned_page = UINT32_MAX;
  for (uint32_t head = 0; head < layout.kv_heads; ++head) {
    uint8_t *to = static_cast<uint8_t *>(target) + static_cast<int64_t>(first) * side.token_stride +
                  head * side.head_stride;
    if (run.frame == nullptr) {
      for (uint32_t t = 0; t < run.n; ++t) {
        std::memset(to + t * side.token_stride, 0,
                    static_cast<size_t>(part.dim) * dtype_bytes(args.dtype));
      }
      continue;
    }
    const uint8_t *chunk = run.frame + quire_head_offset(&layout, args.layer, head);
    if (!is_quantised(part) && plain_type(part) == args.dtype) {
      for (uint32_t t = 0; t < run.n; ++t) {
        std::memcpy(to + t * side.token_stride, chunk + quire_row_offset(&part, run.offset + t),
                    part.row_bytes);
      }
      continue;
    }
    decode_part(rk, part, codec.book, chunk, run.offset, run.n, exponent_of(layout, chunk, is_k),
                rows);
    restore_part(rk, part, rows, run.n);
    quire_head_statistics s = {};
    if (layout.statistics != 0) std::memcpy(&s, chunk + layout.statistics, sizeof s);
    if (is_k && (s.flags & QUIRE_HEAD_ANCHORED) != 0) {
      if (turned_page != s.page_index) page_turn(codec.turns, s.page_index, cos, sin);
      turned_page = s.page_index;
      for (uint32_t t = 0; t < run.n; ++t) {
        full_anchor(codec, args.layer, head, run.offset + t, cos, sin, anchor);
        rk.add(rows + static_cast<size_t>(t) * part.dim, anchor, part.dim);
      }
    }
    write_rows(rk, args.dtype, rows, run.n, part.dim, to, side.token_stride);
  }
}

uint32_t rows_a_buffer(const Codec &codec) {
  const uint32_t widest = codec.geometry.head_dim_k > codec.geometry.head_dim_v
                              ? codec.geometry.head_dim_k
                              : codec.geometry.head_dim_v;
  return kBuffer / widest;
}

}  // namespace

uint64_t append_tasks(const Codec &, const AppendArgs &args) noexcept {
  return args.n;
}

uint64_t append(const Codec &codec, const AppendArgs &args, uint64_t begin, uint64_t end) noexcept {
  const RowKernels &rk = row_kernels();
  const uint32_t heads = codec.geometry.kv_heads, most = rows_a_buffer(codec);
  const Side k = make_side(codec.sealed.k, codec.open.k, heads, args.dtype, args.k_token_stride,
                           args.k_head_stride);
  const Side v = make_side(codec.sealed.v, codec.open.v, heads, args.dtype, args.v_token_stride,
                           args.v_head_stride);
  uint64_t nonfinite = 0;
  for (uint64_t i = begin; i < end;) {
    const TokenRun run = next_run(args.map, args.frames, codec.geometry.page_tokens, i, end, most);
    if (run.frame != nullptr) {
      if (args.k != nullptr) nonfinite += append_run(codec, rk, args, i, run, k, args.k, true);
      if (args.v != nullptr && codec.geometry.head_dim_v != 0) {
        nonfinite += append_run(codec, rk, args, i, run, v, args.v, false);
      }
    }
    i += run.n;
  }
  return nonfinite;
}

uint64_t gather_tasks(const Codec &, const GatherArgs &args) noexcept {
  return args.n;
}

void gather(const Codec &codec, const GatherArgs &args, uint64_t begin, uint64_t end) noexcept {
  const RowKernels &rk = row_kernels();
  const uint32_t heads = codec.geometry.kv_heads, most = rows_a_buffer(codec);
  const Side k = make_side(codec.sealed.k, codec.open.k, heads, args.dtype, args.k_token_stride,
                           args.k_head_stride);
  const Side v = make_side(codec.sealed.v, codec.open.v, heads, args.dtype, args.v_token_stride,
                           args.v_head_stride);
  for (uint64_t i = begin; i < end;) {
    const TokenRun run = next_run(args.map, args.frames, codec.geometry.page_tokens, i, end, most);
    if (args.k != nullptr) gather_run(codec, rk, args, i, run, k, args.k, true);
    if (args.v != nullptr && codec.geometry.head_dim_v != 0) {
      gather_run(codec, rk, args, i, run, v, args.v, false);
    }
    i += run.n;
  }
}

}  // namespace quire::kernels
