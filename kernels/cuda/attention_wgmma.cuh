// Hopper's matrix instructions and barriers, by their PTX names: what attention's prefill kernel adds to
// attention_mma.cuh. Compute capability 9.0a.
//
// Operands in shared memory are panels of 64 halves (128 bytes a row) whose 16-byte chunk c of row r lies
// at c ^ (r % 8), in groups of 8 rows, 1,024-aligned. The same panel serves as K (rows are B's columns:
// "by rows") and as V (rows are what is summed over: "by columns"). A warp of the four holds rows
// 16 w .. 16 w + 15 of A and of the sums, as fragments of m16n8k16 (attention_mma.cuh).
#pragma once

#include <cstdint>

#include "kernels/cuda/attention_mma.cuh"

namespace quire::kernels::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// The operand that begins at `address`. panels: bytes from one panel to the next (by columns only).
__device__ __forceinline__ uint64_t matrix_at(uint32_t address, uint32_t panels) {
  return static_cast<uint64_t>(address >> 4 & 0x3fff) | static_cast<uint64_t>(panels >> 4) << 16 |
         uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

__device__ __forceinline__ void matrix_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void matrix_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void matrix_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// The compiler knows nothing of sums in flight: keeps reads behind the wait and writes before the fence.
template <int kCount>
__device__ __forceinline__ void matrix_settle(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(x[i])::"memory");
}

#define QUIRE_SUMS8(x, i)                                                                     \
  "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3]), "+f"(x[i + 4]), "+f"(x[i + 5]), \
      "+f"(x[i + 6]), "+f"(x[i + 7])
#define QUIRE_SUMS32(x, i) \
  QUIRE_SUMS8(x, i), QUIRE_SUMS8(x, i + 8), QUIRE_SUMS8(x, i + 16), QUIRE_SUMS8(x, i + 24)
#define QUIRE_NAMES32                                                                          \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24," \
  "%25,%26,%27,%28,%29,%30,%31"
#define QUIRE_NAMES64                                                                         \
  QUIRE_NAMES32                                                                               \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53," \
  "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

// d[64 rows][64] = a b (+ d where add). a in registers, b by rows or by columns.
template <bool kColumns>
__device__ __forceinline__ void matrix_64(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                          uint32_t add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" QUIRE_NAMES32
      "}, {%32,%33,%34,%35}, %36, p, 1, 1, %38; }"
      : QUIRE_SUMS32(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kColumns ? 1 : 0));
}
// The same, a and b by rows in shared memory; always adds.
__device__ __forceinline__ void matrix_64(float (&d)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{ .reg .pred p; setp.eq.b32 p, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" QUIRE_NAMES32
      "}, %32, %33, p, 1, 1, 0, 0; }"
      : QUIRE_SUMS32(d, 0)
      : "l"(a), "l"(b));
}
// d[64 rows][128] = a b (+ d where add), b by columns.
__device__ __forceinline__ void matrix_128(float (&d)[64], const uint32_t (&a)[4], uint64_t b,
                                           uint32_t add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" QUIRE_NAMES64
      "}, {%64,%65,%66,%67}, %68, p, 1, 1, 1; }"
      : QUIRE_SUMS32(d, 0), QUIRE_SUMS32(d, 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ __forceinline__ void sum_values(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  matrix_64<true>(d, a, b, 1);
}
__device__ __forceinline__ void sum_values(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
  matrix_128(d, a, b, 1);
}

// Registers of a thread, from here on; all warps of a group of four.
template <int kCount>
__device__ __forceinline__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

// Makes this thread's plain stores visible to matrix instructions; before the barrier that tells of them.
__device__ __forceinline__ void publish_to_matrices() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Barriers that count arrivals; a phase ends when all have come. wait(parity) returns once the phase of
// that parity has ended.
__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{ .reg .pred p;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra done;\n"
      "bra again;\n"
      "done: }" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
template <int kName, int kThreads>
__device__ __forceinline__ void named_barrier() {
  asm volatile("bar.sync %0, %1;" ::"n"(kName), "n"(kThreads) : "memory");
}

#endif

}  // namespace quire::kernels::cuda
