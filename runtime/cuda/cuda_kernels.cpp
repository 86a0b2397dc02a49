#include "runtime/cuda/cuda_kernels.h"

#include <new>
#include <utility>

#include "kernels/cuda/cuda_attention.h"
#include "runtime/cuda_kernels.h"

namespace quire {
namespace {

cudaStream_t queue(Stream stream) noexcept {
  return static_cast<cudaStream_t>(stream);
}

// Kernels move rows 16 bytes at a time.
template <class Args>
Status check_rows(const Args &args) noexcept {
  const auto bytes = int64_t{kernels::dtype_bytes(args.dtype)};
  const auto aligned = [bytes](const void *rows, int64_t token_stride, int64_t head_stride) {
    return rows == nullptr || (reinterpret_cast<uintptr_t>(rows) % 16 == 0 &&
                               token_stride * bytes % 16 == 0 && head_stride * bytes % 16 == 0);
  };
  if (aligned(args.k, args.k_token_stride, args.k_head_stride) &&
      aligned(args.v, args.v_token_stride, args.v_head_stride)) {
    return Status::kOk;
  }
  return set_error(Status::kInvalid,
                   "k or v: rows on the cuda device begin at multiples of 16 bytes");
}

}  // namespace

Status make_cuda_kernels(kernels::Codec &codec, CudaDevice &device,
                         std::unique_ptr<PageKernels> *out) noexcept {
  std::unique_ptr<CudaKernels> made(new (std::nothrow) CudaKernels(codec, device));
  if (!made) return set_error(Status::kNomem, "no memory for the device's kernels");
  if (const Status s = made->open(); s != Status::kOk) return s;
  *out = std::move(made);
  return Status::kOk;
}

Status CudaKernels::open_counter() noexcept {
  CudaApi &api = device_.api();
  const size_t bytes = host_.granularity();
  const CudaScope scope(api, device_.context());
  if (scope.error() != kCudaSuccess) return device_.check(scope.error(), "cuCtxSetCurrent");
  Result<void *> page = host_.reserve(bytes, 1);
  if (!page.ok()) return page.status();
  Status status = host_.commit(page.value(), 0, bytes);
  if (status == Status::kOk) {
    status = device_.check(api.register_host(page.value(), bytes), "cudaHostRegister");
  }
  if (status != Status::kOk) {
    host_.release(page.value(), bytes);
    return status;
  }
  counter_ = new (page.value()) unsigned long long(0);
  void *address = nullptr;
  status = device_.check(api.device_address(counter_, &address), "cudaHostGetDevicePointer");
  device_counter_ = static_cast<unsigned long long *>(address);
  return status;
}

Status CudaKernels::open() noexcept {
  if (const Status s = open_counter(); s != Status::kOk) return s;
  CudaApi &api = device_.api();
  const CudaScope scope(api, device_.context());
  if (scope.error() != kCudaSuccess) return device_.check(scope.error(), "cuCtxSetCurrent");
  const size_t bytes = kernels::cuda::device_bytes(codec_);
  if (bytes != 0) {
    if (const Status s = device_.check(api.allocate(bytes, &tables_), "cudaMalloc");
        s != Status::kOk) {
      return s;
    }
  }
  return device_.check(kernels::cuda::upload(codec_, tables_, &cuda_, queue(device_.own_stream())),
                       "upload of the codec's tables");
}

CudaKernels::~CudaKernels() {
  CudaApi &api = device_.api();
  const CudaScope scope(api, device_.context());
  if (!device_.lost()) static_cast<void>(api.wait_stream(device_.own_stream()));
  if (tables_ != nullptr) static_cast<void>(api.free(tables_));
  if (counter_ != nullptr) {
    static_cast<void>(api.unregister_host(counter_));
    host_.release(counter_, host_.granularity());
  }
  api.clear_error();
}

template <class Call>
Status CudaKernels::launch(const char *what, Stream stream, Call &&body) noexcept {
  if (is_ambiguous_stream(stream)) {
    return set_error(Status::kInvalid, "%s: the cuda device wants a stream", what);
  }
  if (const Status s = device_.usable(); s != Status::kOk) return s;
  const CudaScope scope(device_.api(), device_.context());
  if (scope.error() != kCudaSuccess) return device_.check(scope.error(), "cuCtxSetCurrent");
  return device_.check(body(queue(stream)), what);
}

Status CudaKernels::append(const kernels::AppendArgs &args, Stream stream) noexcept {
  if (const Status s = check_rows(args); s != Status::kOk) return s;
  return launch("append", stream, [&](cudaStream_t s) {
    return kernels::cuda::append(cuda_, args, device_counter_, s);
  });
}

Status CudaKernels::gather(const kernels::GatherArgs &args, Stream stream) noexcept {
  if (const Status s = check_rows(args); s != Status::kOk) return s;
  return launch("gather", stream,
                [&](cudaStream_t s) { return kernels::cuda::gather(cuda_, args, s); });
}

Status CudaKernels::attention(const kernels::AttentionArgs &args, Stream stream) noexcept {
  return launch("attention", stream,
                [&](cudaStream_t s) { return kernels::cuda::attention(cuda_, args, s); });
}

Status CudaKernels::attention_workspace(const kernels::AttentionArgs &args,
                                        size_t *bytes) noexcept {
  // It asks the device how many multiprocessors there are.
  const CudaScope scope(device_.api(), device_.context());
  if (scope.error() != kCudaSuccess) return device_.check(scope.error(), "cuCtxSetCurrent");
  *bytes = kernels::cuda::attention_workspace(cuda_, args);
  return Status::kOk;
}

Status CudaKernels::seal(const kernels::SealArgs &args, Stream stream) noexcept {
  return launch("seal", stream, [&](cudaStream_t s) {
    return kernels::cuda::seal(cuda_, args, device_counter_, s);
  });
}

Status CudaKernels::unseal(const kernels::SealArgs &args, Stream stream) noexcept {
  return launch("unseal", stream,
                [&](cudaStream_t s) { return kernels::cuda::unseal(cuda_, args, s); });
}

Status CudaKernels::copy_page(bool open, uint8_t *to, const uint8_t *from, Stream stream) noexcept {
  return launch("copy of a page", stream, [&](cudaStream_t s) {
    return device_.api().copy(to, from, layout(open).page_bytes, s);
  });
}

Status CudaKernels::copy_pages(const kernels::CopyArgs &args, Stream stream) noexcept {
  return launch("copy of pages", stream,
                [&](cudaStream_t s) { return kernels::cuda::copy_pages(cuda_, args, s); });
}

Status CudaKernels::zero_pages(bool open, const kernels::FrameView &view, const uint32_t *frames,
                               uint32_t n) noexcept {
  if (device_.lost()) return Status::kOk;  // nobody will ever read them
  const Status status = launch("zeroing of pages", zero_stream(), [&](cudaStream_t s) {
    return kernels::cuda::zero_pages(cuda_, open, view, frames, n, s);
  });
  return status == Status::kOk ? Status::kAgain : status;
}

// The host's codec takes the means, as on the CPU; the device's copy follows.
Status CudaKernels::set_anchor(uint32_t layer, const float *means) noexcept {
  if (!kernels::set_anchor(codec_, layer, means)) {
    return set_error(Status::kUnsupported, "this format stores keys without an anchor");
  }
  return launch("upload of means", device_.own_stream(), [&](cudaStream_t s) {
    return kernels::cuda::upload_means(codec_, layer, cuda_, s);
  });
}

uint64_t CudaKernels::nonfinite() const noexcept {
  // relaxed, and of a word that a GPU writes: a count that orders nothing.
  return std::atomic_ref(*counter_).load(std::memory_order_relaxed);
}

}  // namespace quire
