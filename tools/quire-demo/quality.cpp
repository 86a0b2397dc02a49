#include "quality.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "sampler.h"

namespace quire::demo {

std::vector<float> teacher_forced(Engine &engine, std::span<const uint32_t> text, size_t vocab) {
  const size_t page = engine.options().page_tokens;
  // A tenant of its own, and nothing is asked for twice: the sequence starts empty.
  Sequence sequence = engine.open("quality", text.first(0));
  std::vector<float> all;
  all.reserve(text.size() * vocab);
  for (size_t first = 0; first < text.size(); first += page) {
    const size_t n = std::min(page, text.size() - first);
    const Step step{&sequence, text.subspan(first, n)};
    engine.forward(std::span(&step, 1), Logits::kAll);
    for (size_t i = 0; i < n; ++i) {
      const auto row = engine.logits(0, i);
      all.insert(all.end(), row.begin(), row.end());
    }
  }
  return all;
}

void QualityMeter::add(std::span<const uint32_t> text, std::span<const float> reference,
                       std::span<const float> candidate) {
  double kl = 0;
  for (size_t t = 0; t < text.size(); ++t) {
    const auto a = reference.subspan(t * vocab_, vocab_), b = candidate.subspan(t * vocab_, vocab_);
    const double n = static_cast<double>(vocab_);
    const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n;
    const double mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
    const std::vector<double> log_a = log_softmax(a), log_b = log_softmax(b);
    double aa = 0, bb = 0, ab = 0;
    for (size_t i = 0; i < vocab_; ++i) {
      const double x = a[i] - mean_a, y = b[i] - mean_b;
      aa += x * x;
      bb += y * y;
      ab += x * y;
      squared_error_ += (x - y) * (x - y);
      max_error_ = std::max(max_error_, std::abs(x - y));
      kl += std::exp(log_a[i]) * (log_a[i] - log_b[i]);
    }
    squared_logits_ += aa;
    cosines_ += ab / std::sqrt(aa * bb);
    if (t + 1 < text.size()) {
      reference_nats_ -= log_a[text[t + 1]];
      nats_ -= log_b[text[t + 1]];
      ++predicted_;
    }
  }
  kl_ += kl;
  tokens_ += text.size();
  kl_of_text_.push_back(kl / static_cast<double>(std::max<size_t>(text.size(), 1)));
}

Quality QualityMeter::result() const {
  Quality q;
  if (tokens_ == 0) return q;
  const auto tokens = static_cast<double>(tokens_), texts = static_cast<double>(kl_of_text_.size());
  const auto predicted = static_cast<double>(std::max<size_t>(predicted_, 1));
  q.tokens = tokens_;
  q.logit_error = std::sqrt(squared_error_ / squared_logits_);
  q.max_logit_error = max_error_;
  q.cosine = cosines_ / tokens;
  q.kl = kl_ / tokens;
  double squares = 0;
  const double mean = std::accumulate(kl_of_text_.begin(), kl_of_text_.end(), 0.0) / texts;
  for (const double kl : kl_of_text_) squares += (kl - mean) * (kl - mean);
  if (texts > 1) q.kl_error = std::sqrt(squares / (texts - 1) / texts);
  q.nats = nats_ / predicted;
  q.reference_nats = reference_nats_ / predicted;
  return q;
}

}  // namespace quire::demo
