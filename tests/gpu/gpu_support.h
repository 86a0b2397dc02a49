// What the tests on a GPU share: their main(), which skips where there is none, checks of CUDA's
// answers, memory, and the kernels of an engine that misbehaves as little as it is allowed to.
#pragma once

#include <cuda_runtime_api.h>
#include <boost/test/unit_test.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

#define QUIRE_CUDA_OK(call)                                                                 \
  do {                                                                                      \
    const cudaError_t error_ = (call);                                                      \
    BOOST_REQUIRE_MESSAGE(error_ == cudaSuccess, #call ": " << cudaGetErrorString(error_)); \
  } while (false)

namespace quire::test {

// Exit status 77, with the reason, where no GPU can be used.
inline int gpu_main(int argc, char **argv) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    std::printf("SKIPPED: no GPU: %s\n",
                error != cudaSuccess ? cudaGetErrorString(error) : "none is there");
    return 77;
  }
  return boost::unit_test::unit_test_main([] { return true; }, argc, argv);
}

// Clears and copies from pageable memory may still be under way when they return, on the default
// stream, which streams that do not block are not ordered with: so they are waited for.
inline void settle_default_stream() {
  QUIRE_CUDA_OK(cudaStreamSynchronize(cudaStreamLegacy));
}

// Device memory that is filled with bytes nobody wrote.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t n) : n_(n) {
    QUIRE_CUDA_OK(cudaMalloc(&data_, bytes()));
    QUIRE_CUDA_OK(cudaMemset(data_, 0xEE, bytes()));
    settle_default_stream();
  }
  explicit DeviceArray(const std::vector<T> &from) : DeviceArray(from.size()) {
    QUIRE_CUDA_OK(cudaMemcpy(data_, from.data(), bytes(), cudaMemcpyHostToDevice));
    settle_default_stream();
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray &) = delete;
  DeviceArray &operator=(const DeviceArray &) = delete;

  T *data() const { return data_; }
  size_t bytes() const { return n_ * sizeof(T); }
  std::vector<T> host() const {
    std::vector<T> out(n_);
    QUIRE_CUDA_OK(cudaMemcpy(out.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  size_t n_;
  T *data_ = nullptr;
};

class GpuStream {
 public:
  GpuStream() { QUIRE_CUDA_OK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~GpuStream() { cudaStreamDestroy(stream_); }
  GpuStream(const GpuStream &) = delete;
  GpuStream &operator=(const GpuStream &) = delete;

  operator cudaStream_t() const { return stream_; }
  void wait() const { QUIRE_CUDA_OK(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

// ---- gpu_kernels.cu

// Writes a word all over [at, at + words).
void launch_fill(uint32_t *at, size_t words, uint32_t word, cudaStream_t stream);
// Idles for about `cycles`, then counts words that are not `word`.
void launch_slow_check(const uint32_t *at, size_t words, uint32_t word, long long cycles,
                       unsigned long long *wrong, cudaStream_t stream);
// Idles until *go is not 0 (mapped or managed memory).
void launch_gate(const volatile int *go, cudaStream_t stream);
// Breaks the context.
void launch_trap(cudaStream_t stream);

}  // namespace quire::test
