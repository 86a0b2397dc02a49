// What rows on a GPU share: checked calls, memory, work captured into graphs, and the ceiling that
// they are held against, a device copy measured in the same rounds.
//
// Work is captured once per buffer set and launched set after set, so that the level-2 cache serves
// nothing: sets together are 2 GiB and more. A round launches all of them back to back between two
// events; its figure is the mean time of one. Data is random, never zeros.
//
// Thread class: the main thread. Errors are thrown as std::runtime_error; a benchmark then counts
// as one that could not run.
#ifndef QUIRE_BENCH_GPU_BENCH_H
#define QUIRE_BENCH_GPU_BENCH_H

#include <cuda_runtime_api.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench.h"

namespace quire::bench::gpu {

inline void ok(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

// Throws where there is no GPU.
inline void require_device() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    throw std::runtime_error("no CUDA device");
  }
}

// Device memory, filled with bytes that are no data of anybody.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_(bytes) {
    ok(cudaMalloc(&data_, bytes));
    ok(cudaMemset(data_, 0x5a, bytes));
  }
  Memory(Memory &&other) noexcept : data_(other.data_), bytes_(other.bytes_) {
    other.data_ = nullptr;
  }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  Memory &operator=(Memory &&) = delete;
  ~Memory() { cudaFree(data_); }

  template <class T>
  T *as() const {
    return static_cast<T *>(data_);
  }
  uint8_t *bytes_at(size_t offset) const { return as<uint8_t>() + offset; }
  size_t size() const { return bytes_; }

 private:
  void *data_ = nullptr;
  size_t bytes_;
};

template <class T>
Memory uploaded(const std::vector<T> &host) {
  Memory m(host.size() * sizeof(T));
  ok(cudaMemcpy(m.as<void>(), host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  return m;
}

// One graph a buffer set.
class Graphs {
 public:
  // work(set, stream) enqueues what is measured.
  Graphs(unsigned sets, const std::function<void(unsigned, cudaStream_t)> &work) {
    ok(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    ok(cudaEventCreate(&begin_));
    ok(cudaEventCreate(&end_));
    for (unsigned set = 0; set < sets; ++set) {
      cudaGraph_t graph = nullptr;
      cudaGraphExec_t ready = nullptr;
      ok(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
      work(set, stream_);
      ok(cudaStreamEndCapture(stream_, &graph));
      ok(cudaGraphInstantiate(&ready, graph, 0));
      ok(cudaGraphDestroy(graph));
      graphs_.push_back(ready);
    }
  }
  Graphs(const Graphs &) = delete;
  Graphs &operator=(const Graphs &) = delete;
  ~Graphs() {
    for (cudaGraphExec_t g : graphs_) cudaGraphExecDestroy(g);
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }

  // Microseconds of one graph.
  double us() const {
    ok(cudaEventRecord(begin_, stream_));
    for (cudaGraphExec_t g : graphs_) ok(cudaGraphLaunch(g, stream_));
    ok(cudaEventRecord(end_, stream_));
    ok(cudaStreamSynchronize(stream_));
    ok(cudaGetLastError());
    float ms = 0;
    ok(cudaEventElapsedTime(&ms, begin_, end_));
    return static_cast<double>(ms) * 1e3 / static_cast<double>(graphs_.size());
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::vector<cudaGraphExec_t> graphs_;
};

// The ceiling: GB/s, read and written, of copies within the device.
class DeviceCopy {
 public:
  explicit DeviceCopy(size_t bytes = size_t{1} << 29)
      : bytes_(bytes),
        from_(4 * bytes),
        to_(4 * bytes),
        graphs_(4, [this](unsigned set, cudaStream_t stream) {
          ok(cudaMemcpyAsync(to_.bytes_at(set * bytes_), from_.bytes_at(set * bytes_), bytes_,
                             cudaMemcpyDeviceToDevice, stream));
        }) {}
  double gigabytes() const { return 2 * static_cast<double>(bytes_) / graphs_.us() / 1e3; }

 private:
  size_t bytes_;
  Memory from_, to_;
  Graphs graphs_;
};

}  // namespace quire::bench::gpu

#endif  // QUIRE_BENCH_GPU_BENCH_H
