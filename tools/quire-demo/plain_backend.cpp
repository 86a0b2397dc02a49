#include "plain_backend.h"

#include <algorithm>
#include <cmath>

namespace quire::demo {

namespace {

float dot(const float *a, const float *b, size_t n) {
  constexpr size_t kLanes = 8;  // independent sums, so that the compiler may use vectors
  float lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] += a[i + j] * b[i + j];
  }
  float sum = 0.0F;
  for (; i < n; ++i) sum += a[i] * b[i];
  for (const float lane : lanes) sum += lane;
  return sum;
}

}  // namespace

void PlainBackend::clear() {
  for (auto &layer : keys_) layer.clear();
  for (auto &layer : values_) layer.clear();
}

void PlainBackend::attend(const AttendArgs &args) {
  const size_t head_dim = config_.head_dim(), kv_dim = config_.kv_dim();
  const size_t group = config_.heads / config_.kv_heads;
  const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
  std::vector<float> &keys = keys_[args.layer], &values = values_[args.layer];
  std::vector<float> weights;
  for (size_t r = 0; r < args.rows; ++r) {
    const float *k = args.k + r * args.stride, *v = args.v + r * args.stride;
    keys.insert(keys.end(), k, k + kv_dim);
    values.insert(values.end(), v, v + kv_dim);
    const size_t seen = keys.size() / kv_dim;
    for (size_t h = 0; h < config_.heads; ++h) {
      const float *q = args.q + r * args.stride + h * head_dim;
      const size_t head = h / group * head_dim;
      weights.resize(seen);
      for (size_t t = 0; t < seen; ++t) {
        weights[t] = scale * dot(q, keys.data() + t * kv_dim + head, head_dim);
      }
      const float top = *std::max_element(weights.begin(), weights.end());
      float sum = 0.0F;
      for (float &weight : weights) sum += weight = std::exp(weight - top);
      float *out = args.out + r * config_.dim + h * head_dim;
      std::fill_n(out, head_dim, 0.0F);
      for (size_t t = 0; t < seen; ++t) {
        const float *value = values.data() + t * kv_dim + head, weight = weights[t] / sum;
        for (size_t d = 0; d < head_dim; ++d) out[d] += weight * value[d];
      }
    }
  }
}

std::vector<float> plain_logits(Forward &forward, const std::vector<uint32_t> &text, size_t chunk) {
  PlainBackend backend(forward.model().config());
  std::vector<float> all;
  std::vector<uint32_t> positions, wanted;
  for (size_t first = 0; first < text.size(); first += chunk) {
    const size_t n = std::min(chunk, text.size() - first);
    positions.resize(n);
    wanted.resize(n);
    for (size_t i = 0; i < n; ++i) {
      positions[i] = static_cast<uint32_t>(first + i);
      wanted[i] = static_cast<uint32_t>(i);
    }
    forward.enqueue(std::span(text).subspan(first, n), positions, wanted, backend);
    for (size_t i = 0; i < n; ++i) {
      const auto row = forward.logits(i);
      all.insert(all.end(), row.begin(), row.end());
    }
  }
  return all;
}

KeyMeans key_means(const Model &model, const std::vector<uint32_t> &text, Workers &workers) {
  Forward forward(model, 128, workers);
  KeyMeans means;
  forward.observe_keys(&means);
  plain_logits(forward, text, forward.max_rows());
  return means;
}

}  // namespace quire::demo
