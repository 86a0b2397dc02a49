// See codec.h: making a codec, its anchors, and the plain moves of whole pages.
#include "kernels/codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "kernels/codec_state.h"
#include "kernels/page_checksum.h"
#include "kernels/rows.h"

namespace quire::kernels {
namespace {

struct Parts {
  size_t turns = 0, means = 0, anchored = 0, total = 0;  // offsets
};

bool has_anchor_format(const quire_page_layout &layout) {
  return layout.k.codec.anchor == QUIRE_ANCHOR_TURNED_MEAN;
}

bool lay_out(const CodecConfig &config, quire_page_layout *sealed, quire_page_layout *open,
             Parts *parts) {
  if (quire_page_layout_init(sealed, &config.geometry, config.format, 0) != QUIRE_LAYOUT_OK) {
    return false;
  }
  *open = *sealed;
  if (quire_format_has_open_pages(config.format) &&
      quire_page_layout_init(open, &config.geometry, config.format, 1) != QUIRE_LAYOUT_OK) {
    return false;
  }
  const quire_geometry &g = config.geometry;
  size_t at = quire_round_up(sizeof(Codec), 64);
  parts->turns = at;
  if (has_anchor_format(*sealed)) {
    at += turns_bytes(g);
    parts->means = at;
    at += quire_round_up(sizeof(float) * g.layers * g.kv_heads * g.head_dim_k, 64);
    parts->anchored = at;
    at += quire_round_up(g.layers, 64);
  }
  parts->total = at;
  return true;
}

}  // namespace

size_t codec_bytes(const CodecConfig &config) noexcept {
  quire_page_layout sealed, open;
  Parts parts;
  return lay_out(config, &sealed, &open, &parts) ? parts.total : 0;
}

Codec *codec_create(const CodecConfig &config, void *memory) noexcept {
  quire_page_layout sealed, open;
  Parts parts;
  Codebook book;
  if (memory == nullptr || !lay_out(config, &sealed, &open, &parts)) return nullptr;
  if (!make_codebook(config.codebook != nullptr ? config.codebook : kNf4Values, &book)) {
    return nullptr;
  }
  auto *bytes = static_cast<uint8_t *>(memory);
  Codec *codec = new (memory) Codec{config.geometry, sealed, open, book, {}, nullptr, nullptr};
  if (has_anchor_format(sealed)) {
    codec->turns = make_turns(config.geometry, bytes + parts.turns);
    codec->means = reinterpret_cast<float *>(bytes + parts.means);
    codec->anchored = bytes + parts.anchored;
    std::memset(bytes + parts.means, 0, parts.total - parts.means);
  }
  return codec;
}

const quire_page_layout &sealed_layout(const Codec &codec) noexcept {
  return codec.sealed;
}

const quire_page_layout &open_layout(const Codec &codec) noexcept {
  return codec.open;
}

bool set_anchor(Codec &codec, uint32_t layer, const float *means) noexcept {
  if (codec.means == nullptr || layer >= codec.geometry.layers || means == nullptr) return false;
  const uint32_t dim = codec.geometry.head_dim_k, turned = 2 * codec.turns.pairs;
  const float magnitude = codec.geometry.rope.magnitude == 0 ? 1 : codec.geometry.rope.magnitude;
  const size_t all = static_cast<size_t>(codec.geometry.kv_heads) * dim;
  for (size_t i = 0; i < all; ++i) {
    if (!is_finite(means[i])) return false;
  }
  for (uint32_t head = 0; head < codec.geometry.kv_heads; ++head) {
    float *to = codec.means + (static_cast<size_t>(layer) * codec.geometry.kv_heads + head) * dim;
    to_planes(codec.turns, dim, means + static_cast<size_t>(head) * dim, to);
    for (uint32_t i = 0; i < turned; ++i) to[i] *= magnitude;
  }
  codec.anchored[layer] = 1;
  return true;
}

bool has_anchor(const Codec &codec, uint32_t layer) noexcept {
  return codec.anchored != nullptr && layer < codec.geometry.layers && codec.anchored[layer] != 0;
}

bool codec_valid(const Codec &codec) noexcept {
  if (!quire_page_layout_valid(&codec.sealed) || !quire_page_layout_valid(&codec.open))
    return false;
  Codebook book;
  if (!make_codebook(codec.book.values, &book)) return false;
  if (std::memcmp(book.midpoints, codec.book.midpoints, sizeof book.midpoints) != 0) return false;
  if (book.bucketed != codec.book.bucketed || book.zero_code != codec.book.zero_code) return false;
  return (codec.means != nullptr) == has_anchor_format(codec.sealed);
}

void init_page(const Codec &codec, bool open, uint8_t *frame) noexcept {
  const quire_page_layout &layout = open ? codec.open : codec.sealed;
  quire_page_header header;
  quire_page_header_init(&header, &layout);
  std::memcpy(frame, &header, sizeof header);
  if (layout.statistics == 0) return;
  quire_head_statistics direct = {};
  direct.k_exponent = direct.v_exponent = kDirectExponent + QUIRE_EXPONENT_BIAS;
  for (uint32_t layer = 0; layer < layout.layers; ++layer) {
    for (uint32_t head = 0; head < layout.kv_heads; ++head) {
      std::memcpy(frame + quire_head_offset(&layout, layer, head) + layout.statistics, &direct,
                  sizeof direct);
    }
  }
}

void copy_page(const Codec &codec, bool open, uint8_t *to, const uint8_t *from) noexcept {
  std::memcpy(to, from, open ? codec.open.page_bytes : codec.sealed.page_bytes);
}

uint64_t page_checksum(const uint8_t *page, uint64_t page_bytes) noexcept {
  return checksum_end(
      row_kernels().sum_words(page + QUIRE_PAGE_HEADER_BYTES,
                              (page_bytes - QUIRE_PAGE_HEADER_BYTES) / sizeof(uint64_t), 0));
}

uint64_t copy_tasks(const Codec &, const CopyArgs &args) noexcept {
  return args.pages;
}

// Summed while a piece of it is still in the level-1 cache.
void copy_pages(const Codec &codec, const CopyArgs &args, uint64_t begin, uint64_t end) noexcept {
  constexpr uint64_t kPiece = 8192;
  const uint64_t bytes = args.open ? codec.open.page_bytes : codec.sealed.page_bytes;
  for (uint64_t i = begin; i < end; ++i) {
    uint8_t *to = args.to.frame(args.to_frames[i]);
    const uint8_t *from = args.from.frame(args.from_frames[i]);
    std::memcpy(to, from, QUIRE_PAGE_HEADER_BYTES);
    uint64_t sum = 0;
    for (uint64_t at = QUIRE_PAGE_HEADER_BYTES; at < bytes; at += kPiece) {
      const uint64_t n = std::min(kPiece, bytes - at);
      std::memcpy(to + at, from + at, n);
      if (args.sums != nullptr) {
        sum += row_kernels().sum_words(to + at, n / sizeof(uint64_t),
                                       (at - QUIRE_PAGE_HEADER_BYTES) / sizeof(uint64_t));
      }
    }
    if (args.sums != nullptr) args.sums[i] = checksum_end(sum);
  }
}

void zero_page(const Codec &codec, bool open, uint8_t *frame) noexcept {
  std::memset(frame, 0, open ? codec.open.page_bytes : codec.sealed.page_bytes);
}

void token_anchor(const Codec &codec, uint32_t layer, uint32_t head, uint32_t j,
                  float *planes) noexcept {
  const uint32_t pairs = codec.turns.pairs, dim = codec.geometry.head_dim_k;
  const float *mean = codec.mean(layer, head);
  row_kernels().turn(mean, codec.turns.token_cos + static_cast<size_t>(j) * pairs,
                     codec.turns.token_sin + static_cast<size_t>(j) * pairs, pairs, false, planes);
  std::memcpy(planes + 2 * pairs, mean + 2 * pairs, (dim - 2 * pairs) * sizeof(float));
}

void full_anchor(const Codec &codec, uint32_t layer, uint32_t head, uint32_t j, const float *cos,
                 const float *sin, float *natural) noexcept {
  float planes[kMaxDim];
  float *to = codec.turns.interleaved ? planes : natural;
  token_anchor(codec, layer, head, j, to);
  row_kernels().turn(to, cos, sin, codec.turns.pairs, false, to);
  if (codec.turns.interleaved) from_planes(codec.turns, codec.geometry.head_dim_k, planes, natural);
}

}  // namespace quire::kernels
