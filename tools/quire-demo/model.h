// Model: the weights of a small decoder-only transformer in llama2.c's format.
//
// File: a header of 7 int32 (dim, hidden, layers, heads, KV heads, vocabulary, context; a negative
// vocabulary means that the classifier has weights of its own), then the tensors, one after the
// other: embedding; for all layers attention norm, Wq, Wk, Wv, Wo, FFN norm, W1, W2, W3; final
// norm; two tables of RoPE that are not used here; the classifier where it is separate. Values are
// fp32, as llama2.c writes them, or f16 in the same order (model/convert.py): the header says how
// many there are, so the size of the file says which.
//
// The architecture is Llama's: RMSNorm before each block, RoPE on neighbouring pairs, grouped-query
// attention, SwiGLU.
#ifndef QUIRE_DEMO_MODEL_H
#define QUIRE_DEMO_MODEL_H

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "matmul.h"

namespace quire::demo {

struct ModelConfig {
  size_t dim = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, vocab = 0, context = 0;
  bool shared_classifier = true;

  size_t head_dim() const { return dim / heads; }
  size_t kv_dim() const { return kv_heads * head_dim(); }
  size_t values_in_file() const;
};

inline constexpr float kRopeTheta = 10000.0F;

class Model {
 public:
  struct Layer {
    std::vector<float> attention_norm, ffn_norm;  // [dim]
    Matrix qkv;                                   // outputs: all of q, then k, then v
    Matrix out;                                   // attention's output projection
    Matrix gate_up;                               // outputs: W1's, then W3's
    Matrix down;
  };

  // Throws std::runtime_error with what is wrong with the file.
  static Model parse(std::span<const std::byte> file);
  static Model load(const std::string &path);

  const ModelConfig &config() const { return config_; }
  const float *embedding(uint32_t token) const { return embedding_.data() + token * config_.dim; }
  const Layer &layer(size_t i) const { return layers_[i]; }
  const std::vector<float> &final_norm() const { return final_norm_; }
  const Matrix &classifier() const { return classifier_; }
  bool half_precision() const { return half_precision_; }

  // Floating-point operations of one token that sees kv_len tokens, and of one row of logits.
  uint64_t token_flops(uint64_t kv_len) const;
  uint64_t logits_flops() const { return 2ULL * config_.dim * config_.vocab; }

 private:
  ModelConfig config_;
  std::vector<float> embedding_, final_norm_;
  std::vector<Layer> layers_;
  Matrix classifier_;
  bool half_precision_ = false;
};

// IEEE binary16 to binary32; exact.
float half_to_float(uint16_t half);

}  // namespace quire::demo

#endif  // QUIRE_DEMO_MODEL_H
