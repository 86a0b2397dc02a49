// Seal and unseal: a page of f16 rows into its final encoding, and back. See codec.h.
//
// A task is one (page, layer, head). Two passes over its rows: the first finds the exponent 2^x >=
// absmax of what will be encoded, the second encodes. Where a head's rows fit the buffer they are
// prepared (anchor subtracted, rotated) once; larger heads prepare them twice, from the open page.
//
// Unseal restores plain rows, so a page that is sealed again later is encoded from decoded values:
// lossy, and the runtime does not publish it.
//
// Thread class: pure functions on memory that the caller owns for the call. Cost: quire-bench.
#include <cstring>

#include "kernels/codec_state.h"
#include "kernels/part_rows.h"

namespace quire::kernels {
namespace {

constexpr uint32_t kBuffer = 8192;  // fp32 values; 32 KiB of stack

struct Head {  // what a task works on
  uint32_t page, layer, head;
};

Head head_of(const Codec &codec, uint64_t task) {
  const uint64_t heads = codec.geometry.kv_heads, layers = codec.geometry.layers;
  return {static_cast<uint32_t>(task / heads / layers),
          static_cast<uint32_t>(task / heads % layers), static_cast<uint32_t>(task % heads)};
}

struct Anchor {  // of one head in one page; `used` false: zero
  bool used = false;
  float cos[kMaxPairs], sin[kMaxPairs];
};

struct Sealer {
  const Codec &codec;
  const RowKernels &rk;
  const SealArgs &args;
  uint64_t nonfinite = 0;

  // Rows [token, token + n) of the open page, made ready to be encoded.
  void prepare(const quire_part_layout &from, const quire_part_layout &to, const uint8_t *chunk,
               const Head &at, const Anchor &anchor, uint32_t token, uint32_t n, bool count,
               float *rows) {
    decode_part(rk, from, codec.book, chunk, token, n, 0, rows);
    if (anchor.used) {
      float natural[kMaxDim];
      for (uint32_t t = 0; t < n; ++t) {
        full_anchor(codec, at.layer, at.head, token + t, anchor.cos, anchor.sin, natural);
        rk.subtract(rows + static_cast<size_t>(t) * to.dim, natural, to.dim);
      }
    }
    uint64_t bad = 0;
    if (to.rotation_size > 1) {
      bad = tame_rows(rk, rows, n, to.dim);
      rk.rotate(rows, static_cast<size_t>(n) * to.dim, to.rotation_size, to.rotation_stored);
    } else {
      bad = rk.count_nonfinite(rows, static_cast<size_t>(n) * to.dim);
    }
    if (count) nonfinite += bad;
  }

  // Returns the exponent byte.
  uint32_t part(const quire_part_layout &from, const quire_part_layout &to, const uint8_t *open,
                uint8_t *sealed, const Head &at, const Anchor &anchor, uint32_t tokens) {
    alignas(64) float rows[kBuffer];
    const uint32_t step = kBuffer / to.dim;
    const bool once = tokens <= step;
    float largest = 0;
    for (uint32_t t = 0; t < tokens; t += step) {
      const uint32_t n = tokens - t < step ? tokens - t : step;
      prepare(from, to, open, at, anchor, t, n, true, rows);
      const float here = rk.absmax(rows, static_cast<size_t>(n) * to.dim);
      largest = here > largest ? here : largest;
    }
    const uint32_t exponent = exponent_byte(largest);
    for (uint32_t t = 0; t < tokens; t += step) {
      const uint32_t n = tokens - t < step ? tokens - t : step;
      if (!once) prepare(from, to, open, at, anchor, t, n, false, rows);
      encode_part(rk, to, codec.book, Stage::kRotated, rows, t, n, exponent, args.search, sealed);
    }
    const uint32_t all = codec.geometry.page_tokens;
    for (uint32_t t = tokens; t < all; t += step) {
      const uint32_t n = all - t < step ? all - t : step;
      std::memset(rows, 0, sizeof(float) * n * to.dim);
      encode_part(rk, to, codec.book, Stage::kRotated, rows, t, n, exponent, args.search, sealed);
    }
    return exponent;
  }

  void task(uint64_t number) {
    const Head at = head_of(codec, number);
    const uint8_t *open_frame = args.frames.open.frame(args.from[at.page]);
    uint8_t *frame = args.frames.sealed.frame(args.to[at.page]);
    const uint8_t *open = open_frame + quire_head_offset(&codec.open, at.layer, at.head);
    uint8_t *sealed = frame + quire_head_offset(&codec.sealed, at.layer, at.head);
    const uint32_t all = codec.geometry.page_tokens;
    const uint32_t tokens = args.tokens == 0 || args.tokens > all ? all : args.tokens;
    const uint32_t page = args.page_index != nullptr ? args.page_index[at.page] : 0;
    Anchor anchor;
    anchor.used = has_anchor(codec, at.layer);
    if (anchor.used) page_turn(codec.turns, page, anchor.cos, anchor.sin);
    quire_head_statistics statistics = {};
    statistics.page_index = page;
    statistics.flags = anchor.used ? QUIRE_HEAD_ANCHORED : 0;
    const uint32_t k = part(codec.open.k, codec.sealed.k, open, sealed, at, anchor, tokens);
    statistics.k_exponent = static_cast<uint8_t>(k);
    if (codec.sealed.v.dim != 0) {
      const uint32_t v = part(codec.open.v, codec.sealed.v, open, sealed, at, Anchor(), tokens);
      statistics.v_exponent = static_cast<uint8_t>(v);
    }
    if (codec.sealed.statistics != 0) {
      std::memcpy(sealed + codec.sealed.statistics, &statistics, sizeof statistics);
    }
    if (at.layer == 0 && at.head == 0) {
      quire_page_header header;
      quire_page_header_init(&header, &codec.sealed);
      std::memcpy(frame, &header, sizeof header);
    }
  }
};

void unseal_part(const Codec &codec, const RowKernels &rk, const quire_part_layout &from,
                 const quire_part_layout &to, const uint8_t *sealed, uint8_t *open, const Head &at,
                 const quire_head_statistics &statistics, bool is_k) {
  alignas(64) float rows[kBuffer];
  float cos[kMaxPairs], sin[kMaxPairs], natural[kMaxDim];
  const bool anchored = is_k && (statistics.flags & QUIRE_HEAD_ANCHORED) != 0;
  if (anchored) page_turn(codec.turns, statistics.page_index, cos, sin);
  const uint32_t all = codec.geometry.page_tokens, step = kBuffer / to.dim;
  const uint32_t exponent = is_k ? statistics.k_exponent : statistics.v_exponent;
  for (uint32_t t = 0; t < all; t += step) {
    const uint32_t n = all - t < step ? all - t : step;
    decode_part(rk, from, codec.book, sealed, t, n, exponent, rows);
    restore_part(rk, from, rows, n);
    for (uint32_t i = 0; anchored && i < n; ++i) {
      full_anchor(codec, at.layer, at.head, t + i, cos, sin, natural);
      rk.add(rows + static_cast<size_t>(i) * to.dim, natural, to.dim);
    }
    encode_part(rk, to, codec.book, Stage::kPlain, rows, t, n, 0, false, open);
  }
}

}  // namespace

uint64_t seal_tasks(const Codec &codec, const SealArgs &args) noexcept {
  return static_cast<uint64_t>(args.pages) * codec.geometry.layers * codec.geometry.kv_heads;
}

uint64_t seal(const Codec &codec, const SealArgs &args, uint64_t begin, uint64_t end) noexcept {
  Sealer sealer{codec, row_kernels(), args};
  for (uint64_t i = begin; i < end; ++i) sealer.task(i);
  return sealer.nonfinite;
}

void unseal(const Codec &codec, const SealArgs &args, uint64_t begin, uint64_t end) noexcept {
  const RowKernels &rk = row_kernels();
  for (uint64_t i = begin; i < end; ++i) {
    const Head at = head_of(codec, i);
    const uint8_t *sealed = args.frames.sealed.frame(args.from[at.page]) +
                            quire_head_offset(&codec.sealed, at.layer, at.head);
    uint8_t *frame = args.frames.open.frame(args.to[at.page]);
    uint8_t *open = frame + quire_head_offset(&codec.open, at.layer, at.head);
    quire_head_statistics s = {};
    if (codec.sealed.statistics != 0) {
      std::memcpy(&s, sealed + codec.sealed.statistics, sizeof s);
    }
    unseal_part(codec, rk, codec.sealed.k, codec.open.k, sealed, open, at, s, true);
    if (codec.sealed.v.dim != 0) {
      unseal_part(codec, rk, codec.sealed.v, codec.open.v, sealed, open, at, s, false);
    }
    if (at.layer == 0 && at.head == 0) init_page(codec, true, frame);
  }
}

}  // namespace quire::kernels
