// What CUDA kernels of the codec get by value. Plain data, no CUDA headers: also read by the tests
// that run these kernels on a CPU.
//
// Thread class: immutable once uploaded.
#pragma once

#include <cstdint>

#include "kernels/cuda/pair_table.h"
#include "kernels/rope.h"
#include "quire/page_format.h"

namespace quire::kernels::cuda {

// The codec of one cache. Pointers are device memory, read only.
struct CudaCodec {
  quire_page_layout sealed;
  quire_page_layout open;  // plain formats: the sealed one
  float values[16];        // the codebook
  float midpoints[16];     // see kernels/codebook.h
  uint32_t zero_code;
  uint32_t paired;     // pairs is usable, see pair_table.h
  Turns turns;         // of anchors; pairs 0 where the format has none
  const float *means;  // [layers][kv_heads][head_dim_k] in planes, as Codec has them; or nullptr
  const uint8_t *anchored;  // [layers]; nullptr where the format has no anchor
  const PairTable *pairs;
};

// Frames that one launch takes in its parameters (4 KiB of them are safe everywhere).
inline constexpr uint32_t kFramesALaunch = 256;

}  // namespace quire::kernels::cuda
