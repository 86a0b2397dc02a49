#include "forward.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace quire::demo {

namespace {

void rms_norm(const float *x, const std::vector<float> &weight, float *out) {
  double squares = 0.0;
  for (size_t i = 0; i < weight.size(); ++i) squares += static_cast<double>(x[i]) * x[i];
  const double mean = squares / static_cast<double>(weight.size());
  const float scale = static_cast<float>(1.0 / std::sqrt(mean + 1e-5));
  for (size_t i = 0; i < weight.size(); ++i) out[i] = weight[i] * (scale * x[i]);
}

void add(float *x, const float *y, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] += y[i];
}

}  // namespace

std::vector<float> KeyMeans::mean(size_t layer) const {
  std::vector<float> out(sums[layer]);
  for (float &value : out) value /= static_cast<float>(std::max<size_t>(rows, 1));
  return out;
}

Forward::Forward(const Model &model, size_t max_rows, Workers &workers)
    : model_(model), workers_(workers), max_rows_(max_rows) {
  const ModelConfig &c = model.config();
  residual_.resize(max_rows * c.dim);
  normed_.resize(max_rows * c.dim);
  qkv_.resize(max_rows * (c.dim + 2 * c.kv_dim()));
  attended_.resize(max_rows * c.dim);
  hidden_.resize(max_rows * 2 * c.hidden);
  logits_.resize(max_rows * c.vocab);
  const size_t half = c.head_dim() / 2;
  for (size_t p = 0; p < c.context; ++p) {
    for (size_t i = 0; i < half; ++i) {
      const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim());
      const double angle =
          static_cast<double>(p) * std::pow(static_cast<double>(kRopeTheta), -exponent);
      cos_.push_back(static_cast<float>(std::cos(angle)));
      sin_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

void Forward::enqueue(std::span<const uint32_t> tokens, std::span<const uint32_t> positions,
                      std::span<const uint32_t> wanted, Backend &backend) {
  const ModelConfig &c = model_.config();
  if (tokens.size() > max_rows_ || tokens.size() != positions.size()) {
    throw std::invalid_argument("forward: more rows than there is room for");
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= c.vocab) throw std::invalid_argument("forward: no such token");
    if (positions[i] >= c.context) {
      throw std::invalid_argument("forward: beyond the model's context");
    }
  }
  tokens_.assign(tokens.begin(), tokens.end());
  positions_.assign(positions.begin(), positions.end());
  wanted_.assign(wanted.begin(), wanted.end());
  const size_t stride = c.dim + 2 * c.kv_dim();
  for (size_t layer = 0; layer < c.layers; ++layer) {
    backend.run([this, layer] {
      layer == 0 ? embed() : feed_forward(layer - 1);
      project_qkv(layer);
    });
    backend.attend({.layer = layer,
                    .rows = tokens_.size(),
                    .stride = stride,
                    .q = qkv_.data(),
                    .k = qkv_.data() + c.dim,
                    .v = qkv_.data() + c.dim + c.kv_dim(),
                    .out = attended_.data()});
  }
  backend.run([this] {
    feed_forward(model_.config().layers - 1);
    classify();
  });
}

std::span<const float> Forward::logits(size_t j) const {
  const size_t vocab = model_.config().vocab;
  return std::span(logits_).subspan(j * vocab, vocab);
}

void Forward::embed() {
  const size_t dim = model_.config().dim;
  for (size_t r = 0; r < tokens_.size(); ++r) {
    std::copy_n(model_.embedding(tokens_[r]), dim, residual_.data() + r * dim);
  }
}

void Forward::rotate(float *heads, size_t n_heads, size_t position) const {
  const size_t half = model_.config().head_dim() / 2;
  const float *cosines = cos_.data() + position * half, *sines = sin_.data() + position * half;
  for (size_t h = 0; h < n_heads; ++h) {
    float *pairs = heads + h * 2 * half;
    for (size_t i = 0; i < half; ++i) {
      const float a = pairs[2 * i], b = pairs[2 * i + 1];
      pairs[2 * i] = a * cosines[i] - b * sines[i];
      pairs[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
  }
}

void Forward::project_qkv(size_t layer) {
  const ModelConfig &c = model_.config();
  const Model::Layer &weights = model_.layer(layer);
  const size_t rows = tokens_.size(), stride = c.dim + 2 * c.kv_dim();
  for (size_t r = 0; r < rows; ++r) {
    rms_norm(residual_.data() + r * c.dim, weights.attention_norm, normed_.data() + r * c.dim);
  }
  weights.qkv.multiply(normed_.data(), rows, qkv_.data(), workers_);
  for (size_t r = 0; r < rows; ++r) {
    float *q = qkv_.data() + r * stride, *k = q + c.dim;
    if (means_ != nullptr) {
      means_->sums.resize(c.layers, std::vector<float>(c.kv_dim()));
      add(means_->sums[layer].data(), k, c.kv_dim());
      means_->rows += layer == 0 ? 1 : 0;
    }
    rotate(q, c.heads, positions_[r]);
    rotate(k, c.kv_heads, positions_[r]);
  }
}

void Forward::feed_forward(size_t layer) {
  const ModelConfig &c = model_.config();
  const Model::Layer &weights = model_.layer(layer);
  const size_t rows = tokens_.size();
  weights.out.multiply(attended_.data(), rows, normed_.data(), workers_);
  for (size_t r = 0; r < rows; ++r) {
    float *x = residual_.data() + r * c.dim;
    add(x, normed_.data() + r * c.dim, c.dim);
    rms_norm(x, weights.ffn_norm, normed_.data() + r * c.dim);
  }
  weights.gate_up.multiply(normed_.data(), rows, hidden_.data(), workers_);
  for (size_t r = 0; r < rows; ++r) {  // SwiGLU; row r moves to where it is dense for `down`
    const float *gate = hidden_.data() + r * 2 * c.hidden, *up = gate + c.hidden;
    float *out = hidden_.data() + r * c.hidden;
    for (size_t i = 0; i < c.hidden; ++i) out[i] = gate[i] / (1.0F + std::exp(-gate[i])) * up[i];
  }
  weights.down.multiply(hidden_.data(), rows, normed_.data(), workers_);
  add(residual_.data(), normed_.data(), rows * c.dim);
}

void Forward::classify() {
  const ModelConfig &c = model_.config();
  for (size_t j = 0; j < wanted_.size(); ++j) {
    rms_norm(residual_.data() + wanted_[j] * c.dim, model_.final_norm(),
             normed_.data() + j * c.dim);
  }
  model_.classifier().multiply(normed_.data(), wanted_.size(), logits_.data(), workers_);
}

}  // namespace quire::demo
