// Rows "gpu/moves": pages between a GPU's memory and pinned host memory, checksums made in the copy,
// held against one large cudaMemcpyAsync of the same bytes; and the host's own checksum.
//
// 512 pages of 16 tokens, 32 layers, 8 KV heads x 128, `nf4`: about 290 MB each way, shuffled frames
// on both sides, random bytes.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "bench.h"
#include "gpu_bench.h"
#include "kernels/codec.h"
#include "kernels/codec_state.h"
#include "kernels/cuda/cuda_codec.h"

namespace quire::bench {
namespace {

using namespace gpu;

class Pinned {
 public:
  explicit Pinned(size_t bytes) { ok(cudaHostAlloc(&data_, bytes, cudaHostAllocMapped)); }
  Pinned(const Pinned &) = delete;
  Pinned &operator=(const Pinned &) = delete;
  ~Pinned() { cudaFreeHost(data_); }
  uint8_t *data() const { return static_cast<uint8_t *>(data_); }

 private:
  void *data_ = nullptr;
};

struct Moves {
  uint32_t pages;
  std::vector<uint8_t> codec_memory;
  kernels::Codec *host;
  kernels::cuda::CudaCodec codec = {};
  Memory tables;
  uint64_t page_bytes, bytes;
  Memory device, sums;
  Pinned pinned;  // as much going down as coming up
  std::vector<uint32_t> here, there;
  cudaStream_t stream = nullptr, other = nullptr;
  cudaEvent_t begin = nullptr, joined = nullptr, end = nullptr;

  explicit Moves(const Context &context)
      : pages(context.quick ? 64 : 512),
        codec_memory(kernels::codec_bytes(config()) + 64),
        host(kernels::codec_create(
            config(), codec_memory.data() +
                          (64 - reinterpret_cast<uintptr_t>(codec_memory.data()) % 64) % 64)),
        tables(kernels::cuda::device_bytes(*host)),
        page_bytes(kernels::sealed_layout(*host).page_bytes),
        bytes(page_bytes * pages),
        device(2 * bytes),
        sums(2 * pages * sizeof(uint64_t)),
        pinned(2 * bytes),
        here(pages),
        there(pages) {
    Random random(context.seed);
    for (size_t at = 0; at + 8 <= 2 * bytes; at += 8) {
      const uint64_t word = random();
      std::memcpy(pinned.data() + at, &word, 8);
    }
    ok(cudaMemcpy(device.as<void>(), pinned.data(), 2 * bytes, cudaMemcpyHostToDevice));
    ok(kernels::cuda::upload(*host, tables.as<void>(), &codec, nullptr));
    std::iota(here.begin(), here.end(), 0u);
    there = here;
    for (size_t i = pages; i > 1; --i) {
      std::swap(here[i - 1], here[random.below(i)]);
      std::swap(there[i - 1], there[random.below(i)]);
    }
    for (cudaStream_t *s : {&stream, &other}) {
      ok(cudaStreamCreateWithFlags(s, cudaStreamNonBlocking));
    }
    for (cudaEvent_t *e : {&begin, &joined, &end}) ok(cudaEventCreate(e));
  }
  Moves(const Moves &) = delete;
  Moves &operator=(const Moves &) = delete;
  ~Moves() {
    for (cudaEvent_t e : {begin, joined, end}) cudaEventDestroy(e);
    for (cudaStream_t s : {stream, other}) cudaStreamDestroy(s);
  }

  static kernels::CodecConfig config() {
    kernels::CodecConfig c;
    c.geometry.layers = 32;
    c.geometry.kv_heads = 8;
    c.geometry.head_dim_k = c.geometry.head_dim_v = 128;
    c.geometry.page_tokens = 16;
    quire_rope_init(&c.geometry.rope, 128, 1e6, 0);
    return c;
  }

  // One way: up from the first half of the pinned memory, down into its second.
  void pages_move(bool up, cudaStream_t s) const {
    kernels::CopyArgs copy;
    const kernels::FrameView on_device = {device.bytes_at(up ? 0 : bytes), page_bytes};
    const kernels::FrameView on_host = {pinned.data() + (up ? 0 : bytes), page_bytes};
    copy.to = up ? on_device : on_host;
    copy.from = up ? on_host : on_device;
    copy.to_frames = (up ? here : there).data();
    copy.from_frames = (up ? there : here).data();
    copy.pages = pages;
    copy.sums = sums.as<uint64_t>() + (up ? 0 : pages);
    copy.over_bus = true;
    ok(kernels::cuda::copy_pages(codec, copy, s));
  }
  void block_moves(bool up, cudaStream_t s) const {
    if (up) {
      ok(cudaMemcpyAsync(device.bytes_at(0), pinned.data(), bytes, cudaMemcpyHostToDevice, s));
    } else {
      ok(cudaMemcpyAsync(pinned.data() + bytes, device.bytes_at(bytes), bytes,
                         cudaMemcpyDeviceToHost, s));
    }
  }

  // GB/s of what is enqueued, on both streams or on one; `ways` times the bytes.
  double rate(double ways, const std::function<void()> &enqueue) const {
    ok(cudaEventRecord(begin, stream));
    ok(cudaStreamWaitEvent(other, begin, 0));
    enqueue();
    ok(cudaEventRecord(joined, other));
    ok(cudaStreamWaitEvent(stream, joined, 0));
    ok(cudaEventRecord(end, stream));
    ok(cudaStreamSynchronize(stream));
    ok(cudaGetLastError());
    float ms = 0;
    ok(cudaEventElapsedTime(&ms, begin, end));
    return ways * static_cast<double>(bytes) / static_cast<double>(ms) / 1e6;
  }
};

double seconds_of(const std::function<void()> &work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::vector<Row> move_rows(const Context &context) {
  require_device();
  const Moves moves(context);
  std::vector<Row> rows;
  for (const bool up : {false, true}) {
    const std::vector<Measure> m = interleave(
        context,
        {{"pages", [&] { return moves.rate(1, [&] { moves.pages_move(up, moves.stream); }); }},
         {"block", [&] { return moves.rate(1, [&] { moves.block_moves(up, moves.stream); }); }}});
    rows.push_back(Row{std::string("pages ") + (up ? "up" : "down") + ", with checksums",
                       "GB/s",
                       report_higher(),
                       m[0],
                       {Peer{"one cudaMemcpyAsync", m[1], 0.9}},
                       "one way"});
  }
  const std::vector<Measure> both = interleave(context, {{"pages",
                                                          [&] {
                                                            return moves.rate(2, [&] {
                                                              moves.pages_move(true, moves.stream);
                                                              moves.pages_move(false, moves.other);
                                                            });
                                                          }},
                                                         {"blocks", [&] {
                                                            return moves.rate(2, [&] {
                                                              moves.block_moves(true, moves.stream);
                                                              moves.block_moves(false, moves.other);
                                                            });
                                                          }}});
  rows.push_back(Row{"pages up and down at once, with checksums",
                     "GB/s",
                     at_least(73),
                     both[0],
                     {Peer{"two cudaMemcpyAsync", both[1], 0.9}},
                     "the sum of both ways"});
  uint64_t sum = 0;
  std::vector<uint8_t> target(moves.bytes);
  const auto checksum = [&] {
    for (uint32_t p = 0; p < moves.pages; ++p) {
      sum ^= kernels::page_checksum(moves.pinned.data() + p * moves.page_bytes, moves.page_bytes);
    }
  };
  const auto copy = [&] { std::memcpy(target.data(), moves.pinned.data(), moves.bytes); };
  const double gigabytes = static_cast<double>(moves.bytes) / 1e9;
  const std::vector<Measure> host =
      interleave(context, {{"checksum", [&] { return gigabytes / seconds_of(checksum); }},
                           {"memcpy", [&] { return gigabytes / seconds_of(copy); }}});
  rows.push_back(Row{"checksums of pages on the host, one thread",
                     "GB/s",
                     report_higher(),
                     host[0],
                     {Peer{"memcpy", host[1], 1.0}},
                     sum == 0 ? "" : "read"});
  return rows;
}

QUIRE_BENCHMARK("gpu/moves", "pages between device and pinned memory", move_rows);

}  // namespace
}  // namespace quire::bench
