// Whole pages on a GPU: copies, with checksums where wanted, zeroing, checksums. See cuda_codec.h.
//
// A page is cut into pieces of 16 KiB, a CTA takes a piece: 16 bytes a thread, four loads in
// flight. A checksum is a sum over words (kernels/page_checksum.h), so pieces add theirs to the
// page's with one atomic each; two tiny kernels set the sums to 0 before and finish them behind.
//
// Thread class: host calls any thread. Cost: memory-bound; in pinned memory that is mapped, the
// bus-bound. A checksum costs two 64-bit products a word and does not slow a copy down.
#include "kernels/cuda/codec_tile.cuh"
#include "kernels/cuda/codec_tuning.cuh"
#include "kernels/cuda/cuda_codec.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/page_checksum.h"

namespace quire::kernels::cuda {
namespace {

constexpr uint32_t kDeep = 4;  // loads in flight a thread
constexpr uint32_t kPieceBytes = kCodecThreads * 16 * kDeep;

enum class Work : uint32_t { kCopy, kZero, kSum };

struct PagesTask {
  FrameView to, from;
  uint64_t page_bytes;
  uint64_t *sums;  // of this launch's pages
  uint32_t pages, pieces;
  uint32_t to_frames[kFramesALaunch], from_frames[kFramesALaunch];
};
static_assert(sizeof(PagesTask) <= 4096);

// The sum of one load of 16 bytes at `at` in its page; nothing of the header counts.
QUIRE_DEVICE uint64_t sum_of(const uint4 &q, uint64_t at) {
  if (at < QUIRE_PAGE_HEADER_BYTES) return 0;
  const uint64_t word = (at - QUIRE_PAGE_HEADER_BYTES) / 8;
  return checksum_word(q.x | static_cast<uint64_t>(q.y) << 32, word) +
         checksum_word(q.z | static_cast<uint64_t>(q.w) << 32, word + 1);
}

QUIRE_DEVICE uint64_t warp_sum(uint64_t sum) {
  for (int apart = 16; apart > 0; apart /= 2) {
    const uint32_t low = __shfl_xor_sync(kAllLanes, static_cast<uint32_t>(sum), apart);
    const uint32_t high = __shfl_xor_sync(kAllLanes, static_cast<uint32_t>(sum >> 32), apart);
    sum += low | static_cast<uint64_t>(high) << 32;
  }
  return sum;
}

template <Work kWork, bool kSum>
__global__ void __launch_bounds__(kCodecThreads)
    pages_kernel(const __grid_constant__ PagesTask task) {
  __shared__ unsigned long long sums[kCodecThreads / kWarp];
  QUIRE_ROLLED
  for (uint32_t i = blockIdx.x; i < task.pages * task.pieces; i += gridDim.x) {
    const uint32_t page = i / task.pieces, piece = i - page * task.pieces;
    const uint8_t *from = task.from.base + task.from_frames[page] * task.from.stride;
    uint8_t *to = task.to.base + task.to_frames[page] * task.to.stride;
    const uint64_t begin = static_cast<uint64_t>(piece) * kPieceBytes + threadIdx.x * 16;
    uint4 q[kDeep];
    uint64_t sum = 0;
    QUIRE_UNROLL
    for (uint32_t d = 0; d < kDeep; ++d) {
      const uint64_t at = begin + d * (kCodecThreads * 16);
      q[d] = make_uint4(0, 0, 0, 0);
      if (kWork != Work::kZero && at < task.page_bytes) {
        q[d] = *reinterpret_cast<const uint4 *>(from + at);
      }
    }
    QUIRE_UNROLL
    for (uint32_t d = 0; d < kDeep; ++d) {
      const uint64_t at = begin + d * (kCodecThreads * 16);
      if (at >= task.page_bytes) continue;
      if (kWork != Work::kSum) *reinterpret_cast<uint4 *>(to + at) = q[d];
      if (kSum) sum += sum_of(q[d], at);
    }
    if constexpr (kSum) {
      sum = warp_sum(sum);
      if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = sum;
      __syncthreads();
      if (threadIdx.x == 0) {
        for (uint32_t w = 1; w < kCodecThreads / kWarp; ++w) sum += sums[w];
        atomicAdd(reinterpret_cast<unsigned long long *>(task.sums + page),
                  static_cast<unsigned long long>(sum));
      }
      __syncthreads();
    }
  }
}

struct SumsTask {
  uint64_t *sums;
  uint32_t pages;
};

__global__ void begin_sums_kernel(const __grid_constant__ SumsTask task) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < task.pages) task.sums[i] = 0;
}

__global__ void end_sums_kernel(const __grid_constant__ SumsTask task) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < task.pages) task.sums[i] = checksum_end(task.sums[i]);
}

cudaError_t sums_pass(void (*kernel)(SumsTask), uint64_t *sums, uint32_t pages,
                      cudaStream_t stream) {
  return launch(kernel, (pages + 255) / 256, 256, stream, SumsTask{sums, pages});
}

// Of copies over a bus: 256 KiB in flight are more than it holds, and other kernels keep their
// multiprocessors.
constexpr uint64_t kBusCtas = 16;

template <Work kWork, bool kSum>
cudaError_t for_pages(const CudaCodec &codec, const CopyArgs &args, cudaStream_t stream) {
  if (args.pages == 0) return cudaSuccess;
  const bool reads = kWork != Work::kZero, writes = kWork != Work::kSum;
  if (reads && (args.from.base == nullptr || args.from_frames == nullptr)) {
    return cudaErrorInvalidValue;
  }
  if (writes && (args.to.base == nullptr || args.to_frames == nullptr)) {
    return cudaErrorInvalidValue;
  }
  PagesTask task = {};
  task.to = args.to;
  task.from = args.from;
  task.page_bytes = (args.open ? codec.open : codec.sealed).page_bytes;
  task.pieces = static_cast<uint32_t>((task.page_bytes + kPieceBytes - 1) / kPieceBytes);
  cudaError_t error =
      kSum ? sums_pass(begin_sums_kernel, args.sums, args.pages, stream) : cudaSuccess;
  for (uint32_t begin = 0; begin < args.pages && error == cudaSuccess; begin += kFramesALaunch) {
    task.pages = args.pages - begin < kFramesALaunch ? args.pages - begin : kFramesALaunch;
    task.sums = kSum ? args.sums + begin : nullptr;
    for (uint32_t i = 0; i < task.pages; ++i) {
      task.to_frames[i] = writes ? args.to_frames[begin + i] : 0;
      task.from_frames[i] = reads ? args.from_frames[begin + i] : 0;
    }
    const uint64_t all = uint64_t{task.pages} * task.pieces;
    const uint64_t beside = uint64_t{processors()} * 8;  // CTAs that fit beside one another
    const uint64_t most = args.over_bus ? kBusCtas : beside;
    error = launch(pages_kernel<kWork, kSum>, static_cast<uint32_t>(all < most ? all : most),
                   kCodecThreads, stream, task);
  }
  if (kSum && error == cudaSuccess) {
    error = sums_pass(end_sums_kernel, args.sums, args.pages, stream);
  }
  return error;
}

}  // namespace

cudaError_t copy_pages(const CudaCodec &codec, const CopyArgs &args, cudaStream_t stream) noexcept {
  if (args.sums != nullptr) return for_pages<Work::kCopy, true>(codec, args, stream);
  return for_pages<Work::kCopy, false>(codec, args, stream);
}

cudaError_t zero_pages(const CudaCodec &codec, bool open, FrameView view, const uint32_t *frames,
                       uint32_t pages, cudaStream_t stream) noexcept {
  CopyArgs args;
  args.open = open;
  args.to = view;
  args.to_frames = frames;
  args.pages = pages;
  return for_pages<Work::kZero, false>(codec, args, stream);
}

cudaError_t checksum_pages(const CudaCodec &codec, bool open, FrameView view,
                           const uint32_t *frames, uint32_t pages, uint64_t *sums,
                           cudaStream_t stream) noexcept {
  if (pages != 0 && sums == nullptr) return cudaErrorInvalidValue;
  CopyArgs args;
  args.open = open;
  args.from = view;
  args.from_frames = frames;
  args.pages = pages;
  args.sums = sums;
  return for_pages<Work::kSum, true>(codec, args, stream);
}

}  // namespace quire::kernels::cuda
