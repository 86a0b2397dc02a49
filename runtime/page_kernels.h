// PageKernels: what a cache asks to be done to the bytes of its pages, behind one interface for the
// devices that have kernels: `runtime/cpu_kernels.h` runs kernels/codec.h on CPU streams,
// `runtime/cuda/cuda_kernels.h` launches kernels/cuda.
//
// The arguments are those of kernels/codec.h, with pointers of the device's own memory; what they
// mean to the bit is written there. Frames, layers and sizes were checked by the cache.
//
// Contract
//   1. A call enqueues on the stream and returns; arrays of the engine (tokens, slots, block tables,
//      outputs) are read and written when the stream gets there. Page lists (SealArgs' from, to,
//      page_index) are host arrays and are copied before the call returns.
//   2. The stream nullptr: a device whose memory the host sees does the work before the call returns;
//      another one answers kInvalid (needs_stream()).
//   3. No call allocates memory or waits for a stream, so all may be captured into a graph.
//   4. kUnsupported: this device has no such kernel, and nothing was done. Any other failure of a
//      seal may leave its first pages enqueued: the caller treats the frames of all as written.
//   5. The layout of a page is the codec's, on every device.
//
// Thread class: any thread, at any time; set_anchor excludes the calls that encode.
// Cost: a launch or a few.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/codec.h"
#include "runtime/device.h"
#include "runtime/status.h"

namespace quire {

class PageKernels {
 public:
  virtual ~PageKernels() = default;

  // Whether nullptr names no queue here (contract, 2).
  virtual bool needs_stream() const noexcept = 0;

  virtual Status append(const kernels::AppendArgs &args, Stream stream) noexcept = 0;
  virtual Status gather(const kernels::GatherArgs &args, Stream stream) noexcept = 0;
  virtual Status attention(const kernels::AttentionArgs &args, Stream stream) noexcept = 0;
  // For the bounds in args. kUnsupported where attention cannot run on this geometry.
  virtual Status attention_workspace(const kernels::AttentionArgs &args,
                                     size_t *bytes) noexcept = 0;

  virtual Status seal(const kernels::SealArgs &args, Stream stream) noexcept = 0;
  virtual Status unseal(const kernels::SealArgs &args, Stream stream) noexcept = 0;
  // Frames of one class.
  virtual Status copy_page(bool open, uint8_t *to, const uint8_t *from, Stream stream) noexcept = 0;
  // Many pages between two memories that the device reaches, with their checksums (to arrays of the
  // device's memory) where wanted: what tiers move pages by.
  virtual Status copy_pages(const kernels::CopyArgs &args, Stream stream) noexcept = 0;

  // Before the first append to a frame that became a page. Where the device's append writes what a
  // page begins with itself, nothing is done, and inits_on_host() is false.
  virtual bool inits_on_host() const noexcept = 0;
  virtual void init_page(bool open, uint8_t *frame) noexcept = 0;

  // Clears frames that nobody reads. kOk: they are clear. kAgain: they will be once zero_stream(),
  // a stream of these kernels' own, has run what it was given until now.
  virtual Status zero_pages(bool open, const kernels::FrameView &view, const uint32_t *frames,
                            uint32_t n) noexcept = 0;
  // nullptr where zero_pages() never answers kAgain.
  virtual Stream zero_stream() noexcept = 0;

  // Means of a layer, as kernels::set_anchor. Before the first page is encoded.
  virtual Status set_anchor(uint32_t layer, const float *means) noexcept = 0;

  // Values that were not finite, met by encoders that are done, since the kernels were made.
  virtual uint64_t nonfinite() const noexcept = 0;
};

}  // namespace quire
