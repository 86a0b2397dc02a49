#include "runtime/cuda/cuda_kernels.h"

#include <new>

#include "runtime/cuda_kernels.h"

namespace quire {
namespace {

cudaStream_t queue(Stream stream) noexcept {
  return static_cast<cudaStream_t>(stream);
}

Status not_yet(const char *what) noexcept {
  return set_error(Status::kUnsupported, "%s: not on the cuda device in this version", what);
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

Status CudaKernels::append(const kernels::AppendArgs &, Stream) noexcept {
  return not_yet("append");
}

Status CudaKernels::gather(const kernels::GatherArgs &, Stream) noexcept {
  return not_yet("gather");
}

Status CudaKernels::attention(const kernels::AttentionArgs &, Stream) noexcept {
  return not_yet("attention");
}

Status CudaKernels::attention_workspace(const kernels::AttentionArgs &, size_t *) noexcept {
  return not_yet("attention");
}

Status CudaKernels::seal(const kernels::SealArgs &, Stream) noexcept {
  return not_yet("seal");
}

Status CudaKernels::unseal(const kernels::SealArgs &, Stream) noexcept {
  return not_yet("unseal");
}

Status CudaKernels::copy_page(bool open, uint8_t *to, const uint8_t *from, Stream stream) noexcept {
  return launch("copy of a page", stream, [&](cudaStream_t s) {
    return device_.api().copy(to, from, layout(open).page_bytes, s);
  });
}

Status CudaKernels::zero_pages(bool open, const kernels::FrameView &view, const uint32_t *frames,
                               uint32_t n) noexcept {
  if (device_.lost()) return Status::kOk;  // nobody will ever read them
  const Status status = launch("zeroing of pages", zero_stream(), [&](cudaStream_t s) {
    CudaError error = kCudaSuccess;
    for (uint32_t i = 0; i < n && error == kCudaSuccess; ++i) {
      error = device_.api().zero(view.frame(frames[i]), layout(open).page_bytes, s);
    }
    return error;
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
