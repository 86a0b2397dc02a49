// CudaKernels: PageKernels over kernels/cuda: each call launches on the engine's stream, with the
// device's context current, and reports what CUDA says to the device.
//
// What it owns: device memory with the codec's tables, uploaded when it is opened and, for the means
// of keys, when they are set; and one page of pinned host memory in which kernels count values that
// are not finite, so that the host reads the count without asking CUDA.
//
// Frames are zeroed on the device's own stream, in order of lowest priority; zero_stream() is that
// stream, and the cache counts it as a reader.
//
// A page needs nothing when it is allocated: append writes the header and the statistics of the pages
// it touches.
//
// Invariants: see page_kernels.h. Thread class: any thread. Cost: a launch, about 5 us of the host's.
#pragma once

#include <atomic>

#include "allocators/host_memory.h"
#include "kernels/cuda/cuda_codec.h"
#include "runtime/cuda_device.h"
#include "runtime/page_kernels.h"

namespace quire {

class CudaKernels final : public PageKernels {
 public:
  CudaKernels(kernels::Codec &codec, CudaDevice &device) noexcept
      : codec_(codec), device_(device) {}
  // Waits for what zero_pages() enqueued.
  ~CudaKernels() override;

  Status open() noexcept;

  bool needs_stream() const noexcept override { return true; }
  Status append(const kernels::AppendArgs &args, Stream stream) noexcept override;
  Status gather(const kernels::GatherArgs &args, Stream stream) noexcept override;
  Status attention(const kernels::AttentionArgs &args, Stream stream) noexcept override;
  Status attention_workspace(const kernels::AttentionArgs &args, size_t *bytes) noexcept override;
  Status seal(const kernels::SealArgs &args, Stream stream) noexcept override;
  Status unseal(const kernels::SealArgs &args, Stream stream) noexcept override;
  Status copy_page(bool open, uint8_t *to, const uint8_t *from, Stream stream) noexcept override;
  Status copy_pages(const kernels::CopyArgs &args, Stream stream) noexcept override;
  bool inits_on_host() const noexcept override { return false; }
  void init_page(bool, uint8_t *) noexcept override {}
  Status zero_pages(bool open, const kernels::FrameView &view, const uint32_t *frames,
                    uint32_t n) noexcept override;
  Stream zero_stream() noexcept override { return device_.own_stream(); }
  Status set_anchor(uint32_t layer, const float *means) noexcept override;
  uint64_t nonfinite() const noexcept override;

 private:
  template <class Call>
  Status launch(const char *what, Stream stream, Call &&body) noexcept;
  Status open_counter() noexcept;
  const quire_page_layout &layout(bool open) const noexcept {
    return open ? kernels::open_layout(codec_) : kernels::sealed_layout(codec_);
  }

  kernels::Codec &codec_;
  CudaDevice &device_;
  kernels::cuda::CudaCodec cuda_ = {};
  void *tables_ = nullptr;  // device memory
  HostMemory host_;
  unsigned long long *counter_ = nullptr;         // pinned; written by kernels
  unsigned long long *device_counter_ = nullptr;  // the same, as they see it
};

}  // namespace quire
