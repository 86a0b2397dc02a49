// CudaCodec: a Codec as kernels on a GPU see it, and the data plane's kernels behind plain calls.
//
// A CudaCodec is plain data that kernels take by value. What is small enough for a kernel's
// parameters (layouts, the codebook) lies in it; tables (RoPE turns, means, the encoder's) lie in
// device memory that the caller gives: device_bytes of it, filled by upload. Everything runs on the
// caller's stream, allocates nothing, copies nothing and can be captured into a graph.
//
// The calls mean what their namesakes in kernels/codec.h mean, and write the same bytes: pages are
// equal to those of the scalar target, bit for bit. Pointers in their arguments are device
// pointers (also to pinned and managed memory), but for the lists of frames in SealArgs and below,
// which are read before the call returns: they travel in the kernels' parameters. Rows and
// their strides must be multiples of 16 bytes.
//
//   append   writes, besides the rows, the header and the statistics of direct pages for every page
//            and layer that it touches; both are the same whoever writes them, so a frame needs no
//            work when it is allocated. A page that is appended to directly has, for all its life,
//            the exponent kDirectExponent.
//   seal     all layers of pages: open frame from[i] -> sealed frame to[i]; unseal back.
//   nonfinite  counter in device memory that values which are not finite are added to; nullptr: not
//            wanted.
//
// Every call returns cudaErrorInvalidValue for arguments that the codec cannot take, else what the
// launch returned. Zero tokens or pages: no launch.
//
// Invariants: CudaCodec::sealed and open equal the Codec's. means of a layer are valid where
// anchored[layer] is 1, which the stream sets after them.
// Thread class: host functions, any thread; upload_means excludes appends and seals of its layer by
// stream order. Cost: one kernel a call, two where K and V are encoded differently, one per
// kFramesALaunch frames.
#pragma once

#if !defined(QUIRE_CUDA_EMULATED)  // tests that run kernels on a CPU bring their own
#include <cuda_runtime_api.h>
#endif

#include "kernels/codec.h"
#include "kernels/cuda/codec_params.h"

namespace quire::kernels::cuda {

// Bytes of device memory, 256-aligned, that a codec's tables take.
size_t device_bytes(const Codec &codec) noexcept;
// Fills device_memory from pageable memory on the stream and *out on the host; means that the codec
// has go along. The stream is waited for: this is called once, when a cache opens.
cudaError_t upload(const Codec &codec, void *device_memory, CudaCodec *out,
                   cudaStream_t stream) noexcept;
// The means of one layer after set_anchor on the host's codec. Waits for the stream.
cudaError_t upload_means(const Codec &codec, uint32_t layer, const CudaCodec &target,
                         cudaStream_t stream) noexcept;

cudaError_t append(const CudaCodec &codec, const AppendArgs &args, unsigned long long *nonfinite,
                   cudaStream_t stream) noexcept;
cudaError_t gather(const CudaCodec &codec, const GatherArgs &args, cudaStream_t stream) noexcept;
cudaError_t seal(const CudaCodec &codec, const SealArgs &args, unsigned long long *nonfinite,
                 cudaStream_t stream) noexcept;
cudaError_t unseal(const CudaCodec &codec, const SealArgs &args, cudaStream_t stream) noexcept;

// Whole pages. to_frames and from_frames are host arrays; the views are of device memory or of pinned
// memory that is mapped; sums, in device memory, are made in the same pass.
cudaError_t copy_pages(const CudaCodec &codec, const CopyArgs &args, cudaStream_t stream) noexcept;
cudaError_t zero_pages(const CudaCodec &codec, bool open, FrameView view, const uint32_t *frames,
                       uint32_t pages, cudaStream_t stream) noexcept;
// sums[i] = checksum of frames[i]: of all bytes behind the header, see kernels/page_checksum.h.
cudaError_t checksum_pages(const CudaCodec &codec, bool open, FrameView view,
                           const uint32_t *frames, uint32_t pages, uint64_t *sums,
                           cudaStream_t stream) noexcept;

}  // namespace quire::kernels::cuda
