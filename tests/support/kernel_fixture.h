// What tests of kernels/ share: caches of pages in plain vectors, seeded data, every usable target.
//
// PageSet owns a codec and the frames of both classes; append_all, seal_all and gather_all move
// whole sequences of tokens through it. Failures print the seed (QUIRE_TEST_SEED overrides it).
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/codec.h"
#include "kernels/codec_state.h"
#include "kernels/rows.h"

namespace quire::test {

inline uint64_t test_seed() {
  static const uint64_t seed = [] {
    const char *text = std::getenv("QUIRE_TEST_SEED");
    const uint64_t s = text != nullptr ? std::strtoull(text, nullptr, 10) : 20260117;
    std::printf("QUIRE_TEST_SEED=%llu\n", static_cast<unsigned long long>(s));
    return s;
  }();
  return seed;
}

inline std::mt19937_64 make_random(uint64_t stream) {
  return std::mt19937_64(test_seed() * 0x9e3779b97f4a7c15u + stream);
}

// Scalar first: the others are held against it.
inline std::vector<std::string> targets() {
  const char *names[8];
  const size_t n = kernels::usable_targets(names, 8);
  std::vector<std::string> all(names, names + n);
  std::swap(all.front(), all.back());
  return all;
}

// Restores the best target at the end of a scope.
struct TargetScope {
  explicit TargetScope(const std::string &name) : selected(kernels::select_target(name.c_str())) {}
  ~TargetScope() { kernels::select_target(nullptr); }
  bool selected;
};

inline const std::vector<uint32_t> &all_formats() {
  static const std::vector<uint32_t> formats = {
      QUIRE_FORMAT_NF4, QUIRE_FORMAT_NF4_DQ64, QUIRE_FORMAT_NF4_64, QUIRE_FORMAT_K8V4,
      QUIRE_FORMAT_F16, QUIRE_FORMAT_BF16,     QUIRE_FORMAT_F32};
  return formats;
}

struct Geometry {
  uint32_t layers = 1, kv_heads = 2, dim_k = 64, dim_v = 64, page_tokens = 16;
  uint32_t rotary = 0;  // 0: the whole head dim
  bool interleaved = false;
  double theta = 10000;
};

inline quire_geometry to_c(const Geometry &g) {
  quire_geometry c = {};
  c.layers = g.layers;
  c.kv_heads = g.kv_heads;
  c.head_dim_k = g.dim_k;
  c.head_dim_v = g.dim_v;
  c.page_tokens = g.page_tokens;
  const uint32_t turned = g.dim_k < 256 ? g.dim_k : 256;
  quire_rope_init(&c.rope, g.rotary != 0 ? g.rotary : turned, g.theta, g.interleaved);
  return c;
}

class PageSet {
 public:
  PageSet(const Geometry &g, uint32_t format, uint32_t pages, const float *codebook = nullptr)
      : geometry(g), pages_(pages) {
    kernels::CodecConfig config;
    config.geometry = to_c(g);
    config.format = format;
    config.codebook = codebook;
    memory_.resize(kernels::codec_bytes(config) + 64);
    const auto at = reinterpret_cast<uintptr_t>(memory_.data());
    codec = kernels::codec_create(config, memory_.data() + (64 - at % 64) % 64);
    if (codec == nullptr) std::abort();
    sealed.resize(codec->sealed.page_bytes * pages, 0xa5);
    frames.sealed = {sealed.data(), codec->sealed.page_bytes};
    has_open = quire_format_has_open_pages(format) != 0;
    if (has_open) {
      open.resize(codec->open.page_bytes * pages, 0x5a);
      frames.open = {open.data(), codec->open.page_bytes};
    }
    for (uint32_t p = 0; p < pages; ++p) {
      kernels::init_page(*codec, false, frames.sealed.frame(p));
      if (has_open) kernels::init_page(*codec, true, frames.open.frame(p));
    }
  }
  PageSet(const PageSet &) = delete;

  uint32_t tokens() const { return pages_ * geometry.page_tokens; }
  size_t k_size() const { return size_t{tokens()} * geometry.kv_heads * geometry.dim_k; }
  size_t v_size() const { return size_t{tokens()} * geometry.kv_heads * geometry.dim_v; }

  // Token i of n goes to slot i of the open frames (or the sealed ones).
  uint64_t append_all(const float *k, const float *v, uint32_t layer, bool to_open,
                      bool search = true) {
    const std::vector<int64_t> slots = slots_of(to_open);
    kernels::AppendArgs a;
    a.frames = frames;
    a.map.slots = slots.data();
    a.layer = layer;
    a.n = tokens();
    a.k = k;
    a.v = v;
    a.search = search;
    return kernels::append(*codec, a, 0, kernels::append_tasks(*codec, a));
  }

  uint64_t seal_all(const std::vector<uint32_t> &page_index, bool search = true) {
    std::vector<uint32_t> same(pages_);
    for (uint32_t p = 0; p < pages_; ++p) same[p] = p;
    kernels::SealArgs s;
    s.frames = frames;
    s.from = s.to = same.data();
    s.page_index = page_index.data();
    s.pages = pages_;
    s.search = search;
    return kernels::seal(*codec, s, 0, kernels::seal_tasks(*codec, s));
  }

  void gather_all(float *k, float *v, uint32_t layer, bool from_open) const {
    const std::vector<int64_t> slots = slots_of(from_open);
    kernels::GatherArgs g;
    g.frames = frames;
    g.map.slots = slots.data();
    g.layer = layer;
    g.n = tokens();
    g.k = k;
    g.v = v;
    kernels::gather(*codec, g, 0, kernels::gather_tasks(*codec, g));
  }

  std::vector<int64_t> slots_of(bool of_open) const {
    std::vector<int64_t> slots(tokens());
    for (uint32_t i = 0; i < tokens(); ++i) slots[i] = of_open ? -2 - int64_t{i} : int64_t{i};
    return slots;
  }

  std::vector<uint32_t> indices(uint32_t first = 0) const {
    std::vector<uint32_t> index(pages_);
    for (uint32_t p = 0; p < pages_; ++p) index[p] = first + p;
    return index;
  }

  Geometry geometry;
  kernels::Codec *codec = nullptr;
  kernels::Frames frames;
  std::vector<uint8_t> sealed, open;
  bool has_open = false;

 private:
  uint32_t pages_;
  std::vector<uint8_t> memory_;
};

inline std::vector<float> normal_values(size_t n, std::mt19937_64 &random, float scale = 1) {
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float &value : x) value = normal(random) * scale;
  return x;
}

// A mean key b of each head turned to position first + i, as an engine's RoPE does it, in double.
inline void add_turned_mean(const PageSet &set, const std::vector<float> &means, uint64_t first,
                            std::vector<float> *keys) {
  const uint32_t dim = set.geometry.dim_k, heads = set.geometry.kv_heads;
  const quire_rope &rope = set.codec->geometry.rope;
  const uint32_t pairs = rope.rotary_dim / 2;
  for (size_t i = 0; i < keys->size() / dim; ++i) {
    const uint64_t token = first + i / heads;
    const auto position = static_cast<double>(token);
    const float *b = means.data() + i % heads * dim;
    float *key = keys->data() + i * dim;
    for (uint32_t p = 0; p < pairs; ++p) {
      const uint32_t x = rope.interleaved != 0 ? 2 * p : p,
                     y = rope.interleaved != 0 ? x + 1 : p + pairs;
      const double angle = position * static_cast<double>(rope.inv_freq[p]);
      const double c = std::cos(angle), s = std::sin(angle);
      key[x] += static_cast<float>(c * static_cast<double>(b[x]) - s * static_cast<double>(b[y]));
      key[y] += static_cast<float>(s * static_cast<double>(b[x]) + c * static_cast<double>(b[y]));
    }
    for (uint32_t d = 2 * pairs; d < dim; ++d) key[d] += b[d];
  }
}

struct Likeness {
  double cosine, relative_error;  // of the vectors as wholes; |x - y|^2 / |x|^2
};

inline Likeness compare(const float *x, const float *y, size_t n) {
  double xx = 0, yy = 0, xy = 0, ee = 0;
  for (size_t i = 0; i < n; ++i) {
    const double a = static_cast<double>(x[i]), b = static_cast<double>(y[i]);
    xx += a * a;
    yy += b * b;
    xy += a * b;
    ee += (a - b) * (a - b);
  }
  return {xy / std::sqrt(xx * yy), ee / xx};
}

}  // namespace quire::test
