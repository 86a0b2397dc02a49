// CpuKernels: PageKernels over kernels/codec.h: each call is one task of a CPU stream (or of the
// caller, without a stream), which spreads its work over an arena of oneTBB.
//
// It enqueues through Device::launch, so that a test's device may delay, reorder or fail it; and it
// works wherever the host sees the device's memory.
//
// Invariants: the codec outlives the kernels, and these outlive every task: a cache closes only when
// its streams are done.
// Thread class and cost: see page_kernels.h; a launch is one task of at most Task::kCapacity bytes,
// so that a seal of many pages is several.
#pragma once

#include <oneapi/tbb/task_arena.h>

#include <atomic>

#include "runtime/page_kernels.h"

namespace quire {

class CpuKernels final : public PageKernels {
 public:
  CpuKernels(kernels::Codec &codec, Device &device) noexcept : codec_(codec), device_(device) {}

  bool needs_stream() const noexcept override { return false; }
  Status append(const kernels::AppendArgs &args, Stream stream) noexcept override;
  Status gather(const kernels::GatherArgs &args, Stream stream) noexcept override;
  Status attention(const kernels::AttentionArgs &args, Stream stream) noexcept override;
  Status attention_workspace(const kernels::AttentionArgs &args, size_t *bytes) noexcept override;
  Status seal(const kernels::SealArgs &args, Stream stream) noexcept override;
  Status unseal(const kernels::SealArgs &args, Stream stream) noexcept override;
  Status copy_page(bool open, uint8_t *to, const uint8_t *from, Stream stream) noexcept override;
  Status copy_pages(const kernels::CopyArgs &args, Stream stream) noexcept override;
  bool inits_on_host() const noexcept override { return true; }
  void init_page(bool open, uint8_t *frame) noexcept override;
  Status zero_pages(bool open, const kernels::FrameView &view, const uint32_t *frames,
                    uint32_t n) noexcept override;
  Stream zero_stream() noexcept override { return nullptr; }
  Status set_anchor(uint32_t layer, const float *means) noexcept override;
  uint64_t nonfinite() const noexcept override {
    return nonfinite_.load(std::memory_order_relaxed);
  }

 private:
  Status enqueue_pages(const kernels::SealArgs &args, bool back, Stream stream) noexcept;
  // relaxed: a sum that orders nothing.
  void count(uint64_t bad) noexcept {
    if (bad != 0) nonfinite_.fetch_add(bad, std::memory_order_relaxed);
  }
  uint32_t workers() const noexcept { return static_cast<uint32_t>(workers_.max_concurrency()); }

  kernels::Codec &codec_;
  Device &device_;
  oneapi::tbb::task_arena workers_;
  std::atomic<uint64_t> nonfinite_{0};
};

}  // namespace quire
