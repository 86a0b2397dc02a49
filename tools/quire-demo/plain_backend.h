// PlainBackend: keys and values of one sequence in plain fp32 arrays, attention by its definition.
//
// The oracle that the tests hold the engine's logits against, and what the key anchors are computed
// with. Rows of a pass are the next tokens of the sequence. Runs every piece at once.
#ifndef QUIRE_DEMO_PLAIN_BACKEND_H
#define QUIRE_DEMO_PLAIN_BACKEND_H

#include <cstddef>
#include <cstdint>
#include <vector>

#include "forward.h"

namespace quire::demo {

class PlainBackend final : public Backend {
 public:
  explicit PlainBackend(const ModelConfig &config)
      : config_(config), keys_(config.layers), values_(config.layers) {}

  void run(std::function<void()> piece) override { piece(); }
  void attend(const AttendArgs &args) override;

  size_t tokens() const { return keys_.back().size() / config_.kv_dim(); }
  void clear();

 private:
  ModelConfig config_;
  std::vector<std::vector<float>> keys_, values_;  // [layer][token][kv_heads][head_dim]
};

// Appends the logits of `text` (fp32, [text.size()][vocab]) computed in pieces of `chunk` tokens.
std::vector<float> plain_logits(Forward &forward, const std::vector<uint32_t> &text, size_t chunk);

// Means of the keys of `text` before RoPE.
KeyMeans key_means(const Model &model, const std::vector<uint32_t> &text, Workers &workers);

}  // namespace quire::demo

#endif  // QUIRE_DEMO_PLAIN_BACKEND_H
