// Quality: what the page format does to the model's output, teacher-forced.
//
// Both runs read the same tokens, a page at a time, so that each token sees its own page open (f16)
// and all earlier pages in the cache's format; f32 pages are the reference. Per token the logits of
// the two runs are compared: their error, their cosine, the Kullback-Leibler divergence of their
// distributions KL(reference || candidate), and how well each predicts the token that follows.
#ifndef QUIRE_DEMO_QUALITY_H
#define QUIRE_DEMO_QUALITY_H

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine.h"

namespace quire::demo {

struct Quality {
  size_t tokens = 0;
  double logit_error = 0;       // root of the mean squared error / root of the mean squared logit,
                                // both about each row's mean
  double max_logit_error = 0;   // the largest of a single logit
  double cosine = 0;            // mean over tokens, of logits about their mean
  double kl = 0, kl_error = 0;  // mean and its standard error over texts, in nats
  double nats = 0, reference_nats = 0;  // mean negative log-likelihood of the next token
};

// Logits of each token of `text`, [text.size()][vocab], read a page at a time.
std::vector<float> teacher_forced(Engine &engine, std::span<const uint32_t> text, size_t vocab);

// Sums up texts one by one.
class QualityMeter {
 public:
  explicit QualityMeter(size_t vocab) : vocab_(vocab) {}
  void add(std::span<const uint32_t> text, std::span<const float> reference,
           std::span<const float> candidate);
  Quality result() const;

 private:
  size_t vocab_;
  size_t tokens_ = 0, predicted_ = 0;
  double squared_error_ = 0, squared_logits_ = 0, max_error_ = 0, cosines_ = 0, kl_ = 0;
  double nats_ = 0, reference_nats_ = 0;
  std::vector<double> kl_of_text_;
};

}  // namespace quire::demo

#endif  // QUIRE_DEMO_QUALITY_H
