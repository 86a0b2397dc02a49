// CUDA emulator: runs the codec's CUDA kernels on a CPU, so that their bits can be tested where no
// GPU is.
//
// A kernel's source is included behind this header as plain C++ (QUIRE_CUDA_EMULATED is defined,
// no CUDA header is read). Each thread of a block is a fiber on one operating system thread; blocks
// run one after another. A collective (shuffle, vote, __syncthreads) suspends a fiber until its
// warp or block has arrived. Fibers take turns in an order that changes from round to round, so
// that code that forgets a barrier reads what is not there yet.
//
// What it finds: wrong bits, wrong indices (under AddressSanitizer also those outside of
// allocations), collectives that not every lane reaches (the program ends with a message). What it
// does not find: races between warps that the turns happen to hide, faults of the hardware's own
// arithmetic, timing.
//
// Thread class: one thread. Cost: about a third of a microsecond a fiber and collective.
#pragma once

#define QUIRE_CUDA_EMULATED 1

#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>

#include "kernels/numbers.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// ---- CUDA's names

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
  uint32_t x = 1, y = 1, z = 1;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(uint32_t x, uint32_t y) {
  return {x, y};
}
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1 };
using cudaStream_t = void *;
inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}

inline dim3 threadIdx, blockIdx, blockDim, gridDim;  // NOLINT: CUDA's names

namespace quire::test {

// One block's fibers.
class EmulatedBlock {
 public:
  static constexpr size_t kStack = 128 * 1024;
  static constexpr uint32_t kLanes = 32;

  static EmulatedBlock *&current() {
    static EmulatedBlock *block = nullptr;
    return block;
  }

  EmulatedBlock(uint32_t threads, const std::function<void()> &body)
      : body_(body), fibers_(threads), warps_((threads + kLanes - 1) / kLanes) {}

  void run() {
    current() = this;
    for (uint32_t i = 0; i < fibers_.size(); ++i) start(i);
    std::minstd_rand random(1);
    std::vector<uint32_t> order(fibers_.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    for (size_t done = 0; done < fibers_.size();) {
      std::swap(order[random() % order.size()], order[random() % order.size()]);
      progress_ = false;
      for (const uint32_t i : order) {
        if (fibers_[i].done) continue;
        resume(i);
        if (fibers_[i].done) {
          ++done;
          progress_ = true;
        }
      }
      if (!progress_ && done < fibers_.size()) {
        std::fprintf(stderr, "cuda_emulator: a collective was not reached by all its threads\n");
        std::abort();
      }
    }
    current() = nullptr;
  }

  // Gives a value to the warp and returns all lanes' values, the same for each of them.
  const uint64_t *exchange(uint64_t value) {
    Fiber &f = fibers_[at_];
    Warp &w = warps_[at_ / kLanes];
    const uint32_t parity = f.exchanges++ & 1;
    const uint32_t lanes =
        std::min<uint32_t>(kLanes, static_cast<uint32_t>(fibers_.size()) - at_ / kLanes * kLanes);
    if (w.arrived[parity] == lanes) w.arrived[parity] = 0;  // of two exchanges ago
    w.values[parity][at_ % kLanes] = value;
    ++w.arrived[parity];
    progress_ = true;
    while (w.arrived[parity] != lanes) yield();
    return w.values[parity];
  }

  // Barrier 0 is that of all threads; others have as many as they say.
  void barrier(uint32_t number, uint64_t threads) {
    uint64_t &arrived = barriers_[number];
    const uint64_t wanted = (arrived / threads + 1) * threads;
    ++arrived;
    progress_ = true;
    while (arrived < wanted) yield();
  }
  void barrier() { barrier(0, fibers_.size()); }

 private:
  struct Fiber {
    ucontext_t context = {};
    char *stack = nullptr;
    bool done = false;
    uint32_t exchanges = 0;
    void *fake_stack = nullptr;
  };
  struct Warp {
    uint64_t values[2][kLanes] = {};
    uint32_t arrived[2] = {};
  };

  static void entry() {
    EmulatedBlock *block = current();
    block->entered(nullptr);
    block->body_();
    block->fibers_[block->at_].done = true;
    block->leave(true);
  }

  // Kept from block to block: allocating them would cost more than the kernels.
  static char *stack_of(uint32_t i) {
    static std::vector<std::unique_ptr<char[]>> stacks;
    while (stacks.size() <= i) stacks.push_back(std::make_unique<char[]>(kStack));
    return stacks[i].get();
  }

  void start(uint32_t i) {
    Fiber &f = fibers_[i];
    f.stack = stack_of(i);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = kStack;
    f.context.uc_link = nullptr;
    makecontext(&f.context, &EmulatedBlock::entry, 0);
  }

  void resume(uint32_t i) {
    at_ = i;
    threadIdx.x = i;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&main_fake_, fibers_[i].stack, kStack);
#endif
    swapcontext(&main_, &fibers_[i].context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(main_fake_, nullptr, nullptr);
#endif
  }

  void entered([[maybe_unused]] void *fake) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, &main_stack_, &main_size_);
#endif
  }

  void leave([[maybe_unused]] bool last) {
    Fiber &f = fibers_[at_];
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(last ? nullptr : &f.fake_stack, main_stack_, main_size_);
#endif
    swapcontext(&f.context, &main_);
  }

  void yield() {
    Fiber &f = fibers_[at_];
    leave(false);
    entered(f.fake_stack);
  }

  const std::function<void()> &body_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  ucontext_t main_ = {};
  uint32_t at_ = 0;
  uint64_t barriers_[16] = {};
  bool progress_ = false;
  [[maybe_unused]] void *main_fake_ = nullptr;
  [[maybe_unused]] const void *main_stack_ = nullptr;
  [[maybe_unused]] size_t main_size_ = 0;
};

template <class T>
inline T lane_value(uint64_t raw) {
  T value;
  std::memcpy(&value, &raw, sizeof value);
  return value;
}

template <class T>
inline uint64_t raw_value(T value) {
  uint64_t raw = 0;
  std::memcpy(&raw, &value, sizeof value);
  return raw;
}

}  // namespace quire::test

// ---- collectives

template <class T>
inline T __shfl_sync(uint32_t, T value, int from) {
  using namespace quire::test;
  return lane_value<T>(EmulatedBlock::current()->exchange(raw_value(value))[from & 31]);
}
template <class T>
inline T __shfl_xor_sync(uint32_t, T value, int apart) {
  using namespace quire::test;
  const uint32_t lane = threadIdx.x % 32;
  return lane_value<T>(
      EmulatedBlock::current()->exchange(raw_value(value))[lane ^ static_cast<uint32_t>(apart)]);
}
inline uint32_t __ballot_sync(uint32_t, int condition) {
  const uint64_t *all = quire::test::EmulatedBlock::current()->exchange(condition != 0 ? 1 : 0);
  uint32_t mask = 0;
  for (uint32_t i = 0; i < 32; ++i) mask |= static_cast<uint32_t>(all[i]) << i;
  return mask;
}
inline int __any_sync(uint32_t mask, int condition) {
  return __ballot_sync(mask, condition) != 0 ? 1 : 0;
}
inline uint32_t __reduce_add_sync(uint32_t, uint32_t value) {
  const uint64_t *all = quire::test::EmulatedBlock::current()->exchange(value);
  uint32_t sum = 0;
  for (uint32_t i = 0; i < 32; ++i) sum += static_cast<uint32_t>(all[i]);
  return sum;
}
inline uint32_t __reduce_max_sync(uint32_t, uint32_t value) {
  const uint64_t *all = quire::test::EmulatedBlock::current()->exchange(value);
  return static_cast<uint32_t>(*std::max_element(all, all + 32));
}
inline void __syncwarp() {
  quire::test::EmulatedBlock::current()->exchange(0);
}
inline void __syncthreads() {
  quire::test::EmulatedBlock::current()->barrier();
}
namespace quire::kernels::cuda {
inline void named_barrier(uint32_t number, uint32_t threads) {
  test::EmulatedBlock::current()->barrier(number, threads);
}
}  // namespace quire::kernels::cuda
inline int __syncthreads_or(int condition) {
  static int any = 0;
  __syncthreads();  // the answer before this one has been read by all
  any = 0;
  __syncthreads();
  if (condition != 0) any = 1;
  __syncthreads();
  return any;
}

inline unsigned long long atomicAdd(unsigned long long *to, unsigned long long value) {
  const unsigned long long before = *to;
  *to += value;
  return before;
}
inline uint32_t atomicMax(uint32_t *to, uint32_t value) {
  const uint32_t before = *to;
  *to = std::max(before, value);
  return before;
}

// ---- arithmetic

inline uint32_t __float_as_uint(float x) {
  return std::bit_cast<uint32_t>(x);
}
inline float __uint_as_float(uint32_t b) {
  return std::bit_cast<float>(b);
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float __frcp_rn(float a) {
  return 1.0f / a;
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline double __dsub_rn(double a, double b) {
  return a - b;
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline float __double2float_rn(double a) {
  return static_cast<float>(a);
}
inline int __float2int_rn(float a) {
  return static_cast<int>(std::nearbyintf(a));
}
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<uint32_t>(x)) + 1;
}
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t both = a | static_cast<uint64_t>(b) << 32;
  uint32_t result = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint64_t byte = both >> (8 * (selector >> (4 * i) & 7u)) & 255u;
    result |= static_cast<uint32_t>(byte) << (8 * i);
  }
  return result;
}
using std::max;
using std::min;

namespace quire::kernels::cuda {

template <class Params>
inline cudaError_t launch(void (*kernel)(Params), uint32_t blocks, uint32_t threads, cudaStream_t,
                          const Params &params) noexcept {
  gridDim.x = blocks;
  blockDim.x = threads;
  for (uint32_t b = 0; b < blocks; ++b) {
    blockIdx.x = b;
    const std::function<void()> body = [&] { kernel(params); };
    test::EmulatedBlock(threads, body).run();
  }
  return cudaSuccess;
}

template <class Params>
inline cudaError_t launch_early(void (*kernel)(Params), uint32_t blocks, uint32_t threads,
                                cudaStream_t stream, const Params &params) noexcept {
  return launch(kernel, blocks, threads, stream, params);
}

// Shared memory begins behind what the system keeps of it, so at no round address.
inline uint32_t emulated_shared_address(const void *) {
  return 1024;
}

inline uint32_t processors() noexcept {
  return 1;
}

}  // namespace quire::kernels::cuda
