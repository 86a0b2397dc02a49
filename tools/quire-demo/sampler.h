// Sampler: picks the next token from logits, greedily or at a temperature, reproducibly.
#ifndef QUIRE_DEMO_SAMPLER_H
#define QUIRE_DEMO_SAMPLER_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace quire::demo {

inline uint32_t greedy(std::span<const float> logits) {
  return static_cast<uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Natural logarithms of softmax(logits), in double.
inline std::vector<double> log_softmax(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float x : logits) sum += std::exp(x - top);
  std::vector<double> out;
  for (const float x : logits) out.push_back(x - top - std::log(sum));
  return out;
}

class Sampler {
 public:
  explicit Sampler(uint64_t seed) : random_(seed) {}

  // temperature 0: greedy.
  uint32_t pick(std::span<const float> logits, double temperature) {
    if (temperature <= 0.0) return greedy(logits);
    std::vector<float> scaled(logits.begin(), logits.end());
    for (float &x : scaled) x = static_cast<float>(x / temperature);
    // 53 bits of the generator: the same number on every standard library.
    double left = static_cast<double>(random_() >> 11) * 0x1p-53;
    const std::vector<double> logs = log_softmax(scaled);
    for (size_t i = 0; i < logs.size(); ++i) {
      left -= std::exp(logs[i]);
      if (left < 0.0) return static_cast<uint32_t>(i);
    }
    return greedy(logits);  // rounding left a sliver above the last token
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace quire::demo

#endif  // QUIRE_DEMO_SAMPLER_H
