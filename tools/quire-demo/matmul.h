// Matrix: weights [outputs][inputs], packed for products with a batch of activation rows.
//
// Packing puts kPanel outputs side by side, so that one vector holds neighbouring outputs and an
// activation is broadcast: packed[panel][input][kPanel], the last panel padded with zeros. The same
// kernel serves prefill (many rows, weights reused from cache) and decode (few rows, weights
// streamed once), in the best instruction set of the machine (Highway, chosen at run time).
//
// Invariant: y[r] depends on x[r] and the weights alone, not on how many rows or threads there are:
// each sum runs over the inputs in order. So a prompt computed in pieces gives the same bits as in
// one, and a difference between two runs of the demo comes from the cache.
#ifndef QUIRE_DEMO_MATMUL_H
#define QUIRE_DEMO_MATMUL_H

#include <cstddef>
#include <vector>

#include "workers.h"

namespace quire::demo {

class Matrix {
 public:
  static constexpr size_t kPanel = 16;

  Matrix() = default;
  // weights: [outputs][inputs], row by row, as llama2.c keeps them.
  Matrix(const float *weights, size_t outputs, size_t inputs);

  size_t outputs() const { return outputs_; }
  size_t inputs() const { return inputs_; }

  // y[rows][outputs] = x[rows][inputs] * weights^T.
  void multiply(const float *x, size_t rows, float *y, Workers &workers) const;

 private:
  size_t outputs_ = 0, inputs_ = 0;
  std::vector<float> packed_;
};

}  // namespace quire::demo

#endif  // QUIRE_DEMO_MATMUL_H
