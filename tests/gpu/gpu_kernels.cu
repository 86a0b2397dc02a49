// Kernels that the tests on a GPU play the engine with; see gpu_support.h.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace quire::test {
namespace {

__global__ void fill(uint32_t *at, size_t words, uint32_t word) {
  for (size_t i = threadIdx.x; i < words; i += blockDim.x) at[i] = word;
}

__global__ void slow_check(const uint32_t *at, size_t words, uint32_t word, long long cycles,
                           unsigned long long *wrong) {
  const long long start = clock64();
  while (clock64() - start < cycles) {
  }
  for (size_t i = threadIdx.x; i < words; i += blockDim.x) {
    // volatile: read when the idling is over, not before.
    if (*static_cast<const volatile uint32_t *>(at + i) != word) atomicAdd(wrong, 1ULL);
  }
}

__global__ void gate(const volatile int *go) {
  while (*go == 0) {
  }
}

__global__ void trap() {
  __trap();
}

}  // namespace

void launch_fill(uint32_t *at, size_t words, uint32_t word, cudaStream_t stream) {
  fill<<<1, 128, 0, stream>>>(at, words, word);
}

void launch_slow_check(const uint32_t *at, size_t words, uint32_t word, long long cycles,
                       unsigned long long *wrong, cudaStream_t stream) {
  slow_check<<<1, 128, 0, stream>>>(at, words, word, cycles, wrong);
}

void launch_gate(const volatile int *go, cudaStream_t stream) {
  gate<<<1, 1, 0, stream>>>(go);
}

void launch_trap(cudaStream_t stream) {
  trap<<<1, 1, 0, stream>>>();
}

}  // namespace quire::test
