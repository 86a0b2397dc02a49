#include "model.h"

#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace quire::demo {

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t exponent = (half >> 10) & 0x1FU, fraction = half & 0x3FFU;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 255U : exponent + 112U;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

size_t ModelConfig::values_in_file() const {
  const size_t per_layer = 2 * dim + 2 * dim * dim + 2 * dim * kv_dim() + 3 * dim * hidden;
  return vocab * dim * (shared_classifier ? 1 : 2) + layers * per_layer + dim +
         context * head_dim();
}

uint64_t Model::token_flops(uint64_t kv_len) const {
  const ModelConfig &c = config_;
  const uint64_t weights = 2 * c.dim * c.dim + 2 * c.dim * c.kv_dim() + 3 * c.dim * c.hidden;
  return c.layers * (2 * weights + 4 * c.dim * kv_len);
}

namespace {

constexpr size_t kHeaderBytes = 7 * sizeof(int32_t);

// Hands out the file's values in order, widened to fp32.
class Reader {
 public:
  Reader(std::span<const std::byte> values, bool half) : next_(values.data()), half_(half) {}

  std::vector<float> take(size_t n) {
    std::vector<float> out(n);
    if (half_) {
      for (float &value : out) {
        uint16_t bits = 0;
        std::memcpy(&bits, next_, sizeof bits);
        next_ += sizeof bits;
        value = half_to_float(bits);
      }
    } else {
      std::memcpy(out.data(), next_, n * sizeof(float));
      next_ += n * sizeof(float);
    }
    return out;
  }

 private:
  const std::byte *next_;
  bool half_;
};

ModelConfig read_header(std::span<const std::byte> file) {
  int32_t raw[7];
  if (file.size() < kHeaderBytes) throw std::runtime_error("model: shorter than its header");
  std::memcpy(raw, file.data(), sizeof raw);
  ModelConfig c;
  c.shared_classifier = raw[5] > 0;
  if (raw[5] < 0) raw[5] = -raw[5];
  for (const int32_t value : raw) {
    if (value <= 0 || value > 1 << 24) throw std::runtime_error("model: not a llama2.c header");
  }
  size_t *const fields[7] = {&c.dim,      &c.hidden, &c.layers, &c.heads,
                             &c.kv_heads, &c.vocab,  &c.context};
  for (size_t i = 0; i < 7; ++i) *fields[i] = static_cast<size_t>(raw[i]);
  if (c.dim % c.heads != 0 || c.heads % c.kv_heads != 0 || c.head_dim() % 2 != 0) {
    throw std::runtime_error("model: heads do not divide its width");
  }
  return c;
}

// Rows of several matrices of one layer, below each other.
Matrix stack(std::initializer_list<std::span<const float>> parts, size_t inputs) {
  std::vector<float> rows;
  for (const auto &part : parts) rows.insert(rows.end(), part.begin(), part.end());
  return {rows.data(), rows.size() / inputs, inputs};
}

}  // namespace

Model Model::parse(std::span<const std::byte> file) {
  Model m;
  m.config_ = read_header(file);
  const ModelConfig &c = m.config_;
  const size_t values = c.values_in_file(), bytes = file.size() - kHeaderBytes;
  m.half_precision_ = bytes == values * 2;
  if (bytes != values * 4 && !m.half_precision_) {
    throw std::runtime_error("model: its size is neither fp32's nor f16's for its header");
  }
  Reader reader(file.subspan(kHeaderBytes), m.half_precision_);
  m.embedding_ = reader.take(c.vocab * c.dim);
  const auto attention_norm = reader.take(c.layers * c.dim);
  const auto wq = reader.take(c.layers * c.dim * c.dim);
  const auto wk = reader.take(c.layers * c.dim * c.kv_dim());
  const auto wv = reader.take(c.layers * c.dim * c.kv_dim());
  const auto wo = reader.take(c.layers * c.dim * c.dim);
  const auto ffn_norm = reader.take(c.layers * c.dim);
  const auto w1 = reader.take(c.layers * c.dim * c.hidden);
  const auto w2 = reader.take(c.layers * c.dim * c.hidden);
  const auto w3 = reader.take(c.layers * c.dim * c.hidden);
  m.final_norm_ = reader.take(c.dim);
  reader.take(c.context * c.head_dim());  // llama2.c's tables of RoPE
  for (size_t l = 0; l < c.layers; ++l) {
    const auto part = [&](const std::vector<float> &all) {
      const size_t n = all.size() / c.layers;
      return std::span<const float>(all).subspan(l * n, n);
    };
    const auto norm1 = part(attention_norm), norm2 = part(ffn_norm);
    m.layers_.push_back({.attention_norm = {norm1.begin(), norm1.end()},
                         .ffn_norm = {norm2.begin(), norm2.end()},
                         .qkv = stack({part(wq), part(wk), part(wv)}, c.dim),
                         .out = stack({part(wo)}, c.dim),
                         .gate_up = stack({part(w1), part(w3)}, c.dim),
                         .down = stack({part(w2)}, c.hidden)});
  }
  const auto classifier = c.shared_classifier ? m.embedding_ : reader.take(c.vocab * c.dim);
  m.classifier_ = Matrix(classifier.data(), c.vocab, c.dim);
  return m;
}

Model Model::load(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open " + path);
  const std::vector<char> file{std::istreambuf_iterator<char>(in), {}};
  return parse(std::as_bytes(std::span(file)));
}

}  // namespace quire::demo
