// See cuda_codec.h: a codec's tables on their way to the device.
#include "kernels/cuda/cuda_codec.h"

#include <cstring>

#include "kernels/codec_state.h"

namespace quire::kernels::cuda {
namespace {

struct Parts {
  size_t turns = 0, means = 0, anchored = 0, pairs = 0, total = 0;  // offsets
};

Parts lay_out(const Codec &codec) {
  const quire_geometry &g = codec.geometry;
  Parts p;
  size_t at = 0;
  if (codec.means != nullptr) {
    at += quire_round_up(turns_bytes(g), 256);
    p.means = at;
    at += quire_round_up(sizeof(float) * g.layers * g.kv_heads * g.head_dim_k, 256);
    p.anchored = at;
    at += quire_round_up(g.layers, 256);
  }
  p.pairs = at;
  p.total = at + quire_round_up(sizeof(PairTable), 256);
  return p;
}

cudaError_t copy_up(void *to, const void *from, size_t bytes, cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream);
}

}  // namespace

size_t device_bytes(const Codec &codec) noexcept {
  return lay_out(codec).total;
}

cudaError_t upload(const Codec &codec, void *device_memory, CudaCodec *out,
                   cudaStream_t stream) noexcept {
  if (device_memory == nullptr || out == nullptr) return cudaErrorInvalidValue;
  const Parts parts = lay_out(codec);
  const quire_geometry &g = codec.geometry;
  auto *bytes = static_cast<uint8_t *>(device_memory);
  CudaCodec c = {};
  c.sealed = codec.sealed;
  c.open = codec.open;
  std::memcpy(c.values, codec.book.values, sizeof c.values);
  std::memcpy(c.midpoints, codec.book.midpoints, sizeof c.midpoints);
  c.zero_code = codec.book.zero_code;
  PairTable table = {};
  c.paired = make_pair_table(codec.book, &table) ? 1 : 0;
  cudaError_t error = copy_up(bytes + parts.pairs, &table, sizeof table, stream);
  if (error != cudaSuccess) return error;
  c.pairs = reinterpret_cast<const PairTable *>(bytes + parts.pairs);
  if (codec.means != nullptr) {
    // The tables of a codec are one piece: page_cos, page_sin, token_cos, token_sin (rope.cpp).
    auto *host = reinterpret_cast<const uint8_t *>(codec.turns.page_cos);
    const auto moved = [&](const auto *p) {
      return bytes + parts.turns + (reinterpret_cast<const uint8_t *>(p) - host);
    };
    c.turns = codec.turns;
    c.turns.page_cos = reinterpret_cast<double *>(moved(codec.turns.page_cos));
    c.turns.page_sin = reinterpret_cast<double *>(moved(codec.turns.page_sin));
    c.turns.token_cos = reinterpret_cast<float *>(moved(codec.turns.token_cos));
    c.turns.token_sin = reinterpret_cast<float *>(moved(codec.turns.token_sin));
    c.means = reinterpret_cast<const float *>(bytes + parts.means);
    c.anchored = bytes + parts.anchored;
    const size_t means = sizeof(float) * g.layers * g.kv_heads * g.head_dim_k;
    if (turns_bytes(g) != 0) error = copy_up(bytes + parts.turns, host, turns_bytes(g), stream);
    if (error == cudaSuccess) error = copy_up(bytes + parts.means, codec.means, means, stream);
    if (error == cudaSuccess) {
      error = copy_up(bytes + parts.anchored, codec.anchored, g.layers, stream);
    }
    if (error != cudaSuccess) return error;
  }
  *out = c;
  return cudaStreamSynchronize(stream);
}

cudaError_t upload_means(const Codec &codec, uint32_t layer, const CudaCodec &target,
                         cudaStream_t stream) noexcept {
  const quire_geometry &g = codec.geometry;
  if (codec.means == nullptr || target.means == nullptr || layer >= g.layers) {
    return cudaErrorInvalidValue;
  }
  const size_t values = static_cast<size_t>(g.kv_heads) * g.head_dim_k;
  // The pointers of a CudaCodec are for kernels, which only read; this is their owner.
  auto *means = const_cast<float *>(target.means) + layer * values;
  auto *anchored = const_cast<uint8_t *>(target.anchored) + layer;
  cudaError_t error = copy_up(means, codec.mean(layer, 0), values * sizeof(float), stream);
  if (error == cudaSuccess) error = copy_up(anchored, codec.anchored + layer, 1, stream);
  return error != cudaSuccess ? error : cudaStreamSynchronize(stream);
}

}  // namespace quire::kernels::cuda
