// Forward: one pass of the model over a batch of rows (tokens of one or several sequences).
//
// The pass is a list of pieces of work in order; a Backend runs them and does the attention, which
// is all that the pass needs to know of a KV cache:
//
//   embed | qkv(0) | attend(0) | ffn(0), qkv(1) | attend(1) | ... | ffn(L - 1) | logits
//
// A backend may run a piece at once (PlainBackend) or enqueue it on a stream (the engine's, which
// then waits once a pass). So buffers belong to the Forward and stay as they are until the backend
// has run everything: one pass at a time.
#ifndef QUIRE_DEMO_FORWARD_H
#define QUIRE_DEMO_FORWARD_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model.h"
#include "workers.h"

namespace quire::demo {

// q, k and v of all rows of one layer, after RoPE; `stride` floats from row to row, heads dense.
// out: [rows][heads * head_dim].
struct AttendArgs {
  size_t layer, rows, stride;
  const float *q, *k, *v;
  float *out;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual void run(std::function<void()> piece) = 0;
  // Stores k and v of the rows, then attends from each row to all tokens of its sequence up to it.
  virtual void attend(const AttendArgs &args) = 0;
};

// Sums of keys before RoPE, for the cache's anchor: [layer][kv_heads * head_dim].
struct KeyMeans {
  std::vector<std::vector<float>> sums;
  size_t rows = 0;
  std::vector<float> mean(size_t layer) const;
};

class Forward {
 public:
  Forward(const Model &model, size_t max_rows, Workers &workers);

  // Row i is tokens[i] at positions[i] of its sequence. Logits are computed of the rows in
  // `wanted`; logits(j) is row wanted[j]'s, valid once the backend has run everything.
  void enqueue(std::span<const uint32_t> tokens, std::span<const uint32_t> positions,
               std::span<const uint32_t> wanted, Backend &backend);
  std::span<const float> logits(size_t j) const;

  void observe_keys(KeyMeans *means) { means_ = means; }
  const Model &model() const { return model_; }
  size_t max_rows() const { return max_rows_; }

 private:
  void embed();
  void project_qkv(size_t layer);
  void feed_forward(size_t layer);
  void classify();
  void rotate(float *heads, size_t n_heads, size_t position) const;

  const Model &model_;
  Workers &workers_;
  size_t max_rows_;
  std::vector<uint32_t> tokens_, positions_, wanted_;
  std::vector<float> residual_, normed_, qkv_, attended_, hidden_, logits_;
  std::vector<float> cos_, sin_;  // [context][head_dim / 2]
  KeyMeans *means_ = nullptr;
};

}  // namespace quire::demo

#endif  // QUIRE_DEMO_FORWARD_H
