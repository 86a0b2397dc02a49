// A kernel that only reads: the ceiling for work that is bound by reading.
#ifndef QUIRE_BENCH_GPU_READ_H
#define QUIRE_BENCH_GPU_READ_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace quire::bench::gpu {

// Enqueues a kernel that reads all of `from` (aligned to 16 bytes) once. sum keeps it from being
// dropped.
cudaError_t read_all(const void *from, size_t bytes, uint32_t *sum, cudaStream_t stream);

}  // namespace quire::bench::gpu

#endif  // QUIRE_BENCH_GPU_READ_H
