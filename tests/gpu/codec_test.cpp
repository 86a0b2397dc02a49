// The CUDA codec on a GPU gives the scalar target's bytes: whole pages for every format, geometry,
// page size and type of rows, from poisoned memory, on hard values. Seeds are fresh each run unless
// QUIRE_TEST_SEED is set.
#define BOOST_TEST_MODULE gpu_codec
#define BOOST_TEST_NO_MAIN
#include <cuda_runtime_api.h>

#include <boost/test/unit_test.hpp>
#include <chrono>

#include "tests/gpu/codec_kernels.h"
#include "tests/gpu/gpu_support.h"
#include "tests/support/cuda_codec_cases.h"
#include "tools/examples/read_pages.h"

using namespace quire;
using namespace quire::kernels;
using namespace quire::test;

namespace {

struct Gpu : Backend {
  ~Gpu() override {
    for (void *p : blocks) cudaFree(p);
  }
  void *allocate(size_t bytes) override {
    void *p = nullptr;
    QUIRE_CUDA_OK(cudaMalloc(&p, bytes + 16));
    QUIRE_CUDA_OK(cudaMemset(p, 0xEE, bytes + 16));
    settle_default_stream();
    blocks.push_back(p);
    return p;
  }
  void up(void *to, const void *from, size_t bytes) override {
    QUIRE_CUDA_OK(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
    settle_default_stream();
  }
  void down(void *to, const void *from, size_t bytes) override {
    QUIRE_CUDA_OK(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
  }
  void check(const char *what) override {
    const cudaError_t launched = cudaGetLastError(), ran = cudaDeviceSynchronize();
    BOOST_REQUIRE_MESSAGE(
        launched == cudaSuccess && ran == cudaSuccess,
        what << ": " << cudaGetErrorString(launched) << ", " << cudaGetErrorString(ran));
  }
  std::vector<void *> blocks;
};

// Cases of a run: what a sanitizer can look at in time is a part of them.
size_t trials() {
  const char *text = std::getenv("QUIRE_GPU_TRIALS");
  return text != nullptr ? std::strtoul(text, nullptr, 10) : 100000;
}

Case random_case(std::mt19937_64 &random) {
  static const std::vector<uint32_t> dims = {8,   16,  24,  32,  40,  64,  72,  80,  96,
                                             112, 128, 160, 192, 256, 384, 512, 576, 1024};
  static const std::vector<uint32_t> pages = {8, 16, 24, 32, 64, 128};
  const auto pick = [&](const std::vector<uint32_t> &of) { return of[random() % of.size()]; };
  Case c;
  c.format = pick(all_formats());
  c.geometry.layers = 1 + static_cast<uint32_t>(random() % 3);
  c.geometry.kv_heads = 1 + static_cast<uint32_t>(random() % 8);
  c.geometry.dim_k = pick(dims);
  c.geometry.dim_v = random() % 3 != 0 ? c.geometry.dim_k : (random() % 8 == 0 ? 0 : pick(dims));
  c.geometry.page_tokens = pick(pages);
  const uint32_t half = std::min<uint32_t>(128, c.geometry.dim_k / 2);
  if (random() % 2 == 0) c.geometry.rotary = 2 * (1 + static_cast<uint32_t>(random() % half));
  c.geometry.interleaved = random() % 3 == 0;
  c.pages = 1 + static_cast<uint32_t>(random() % 6);
  c.dtype = static_cast<DType>(random() % 3);
  c.search = random() % 2 == 0;
  c.strided = random() % 3 == 0;
  if (random() % 3 == 0) c.tokens = 1 + static_cast<uint32_t>(random() % c.geometry.page_tokens);
  return c;
}

uint64_t fresh_seed() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

}  // namespace

BOOST_AUTO_TEST_CASE(pages_equal_the_scalar_targets_in_the_chosen_cases) {
  auto random = make_random(201);
  size_t left = trials();
  for (const Case &c : small_cases()) {
    if (left-- == 0) break;
    Gpu gpu;
    BOOST_TEST_CONTEXT(name_of(c)) {
      run_case(gpu, c, random);
    }
  }
}

BOOST_AUTO_TEST_CASE(pages_equal_the_scalar_targets_in_random_cases) {
  const char *given = std::getenv("QUIRE_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : fresh_seed();
  std::printf("QUIRE_TEST_SEED=%llu of the random cases\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(12);
  size_t done = 0;
  for (; done < trials() && std::chrono::steady_clock::now() < until; ++done) {
    const Case c = random_case(random);
    Gpu gpu;
    BOOST_TEST_CONTEXT("seed " << seed << ", case " << done << ": " << name_of(c)) {
      run_case(gpu, c, random);
    }
  }
  std::printf("%zu random cases\n", done);
  BOOST_TEST(done > 0);
}

BOOST_AUTO_TEST_CASE(every_float_gets_the_code_that_comparison_with_all_midpoints_gives) {
  const TargetScope scalar("scalar");
  Case c;
  Gpu gpu;
  auto random = make_random(202);
  BothSides both(gpu, c, random);
  const Mirror<unsigned long long> wrong(gpu, std::vector<unsigned long long>(1, 0));
  QUIRE_CUDA_OK(check_every_float(both.codec, wrong.device, nullptr));
  gpu.check("every float");
  BOOST_REQUIRE_EQUAL(wrong.down()[0], 0);
}

BOOST_AUTO_TEST_CASE(checksums_copies_and_zeroing_equal_the_hosts) {
  auto random = make_random(203);
  for (const uint32_t format : all_formats()) {
    Gpu gpu;
    run_pages(gpu, format, false, random);
  }
}

// Down to pinned memory and up again, both at once at the end.
BOOST_AUTO_TEST_CASE(pages_move_over_the_bus_with_the_checksums_of_the_host) {
  auto random = make_random(207);
  Case c;
  c.geometry.layers = 3;
  c.geometry.dim_k = c.geometry.dim_v = 128;
  c.pages = cuda::kFramesALaunch + 9;
  Gpu gpu;
  BothSides both(gpu, c, random);
  const uint64_t bytes = both.codec.sealed.page_bytes;
  uint8_t *pinned = nullptr;
  QUIRE_CUDA_OK(
      cudaHostAlloc(reinterpret_cast<void **>(&pinned), bytes * c.pages, cudaHostAllocMapped));
  std::memset(pinned, 0xEE, bytes * c.pages);
  std::vector<uint32_t> there = both.host.indices();
  const std::vector<uint32_t> here = there;
  std::shuffle(there.begin(), there.end(), random);
  const Mirror<uint64_t> sums_down(gpu, std::vector<uint64_t>(c.pages, 1));
  const Mirror<uint64_t> sums_up(gpu, std::vector<uint64_t>(c.pages, 1));
  uint8_t *back = both.put(random_bytes(bytes * c.pages, random));
  CopyArgs down, up;
  down.from = both.frames.sealed;
  down.to = {pinned, bytes};
  down.from_frames = here.data();
  down.to_frames = there.data();
  down.pages = c.pages;
  down.sums = sums_down.device;
  down.over_bus = true;
  BOOST_REQUIRE(cuda::copy_pages(both.codec, down, nullptr) == cudaSuccess);
  gpu.check("down");
  for (uint32_t i = 0; i < c.pages; ++i) {
    const uint8_t *page = both.host.frames.sealed.frame(here[i]);
    BOOST_REQUIRE(std::memcmp(pinned + there[i] * bytes, page, bytes) == 0);
  }
  up = down;
  up.from = down.to;
  up.to = {back, bytes};
  up.from_frames = there.data();
  up.to_frames = here.data();
  up.sums = sums_up.device;
  GpuStream one, other;
  BOOST_REQUIRE(cuda::copy_pages(both.codec, up, one) == cudaSuccess);
  BOOST_REQUIRE(cuda::copy_pages(both.codec, down, other) == cudaSuccess);  // the same bytes again
  gpu.check("up beside down");
  require_same(both.host.sealed, both.get(back, both.host.sealed.size()), "up");
  const std::vector<uint64_t> got = sums_up.down();
  BOOST_TEST(got == sums_down.down());
  for (uint32_t i = 0; i < c.pages; ++i) {
    BOOST_REQUIRE_EQUAL(got[i], page_checksum(both.host.frames.sealed.frame(i), bytes));
  }
  QUIRE_CUDA_OK(cudaFreeHost(pinned));
}

BOOST_AUTO_TEST_CASE(more_pages_than_a_launch_takes_are_sealed_and_opened_again) {
  auto random = make_random(204);
  Case c;
  c.geometry.layers = 1;
  c.geometry.kv_heads = 1;
  c.pages = 2 * cuda::kFramesALaunch + 3;
  Gpu gpu;
  run_case(gpu, c, random);
}

BOOST_AUTO_TEST_CASE(calls_can_be_captured_and_replayed) {
  auto random = make_random(205);
  const TargetScope scalar("scalar");
  Case c;
  c.geometry.dim_k = c.geometry.dim_v = 128;
  c.geometry.layers = 2;
  Gpu gpu;
  BothSides both(gpu, c, random);
  const std::vector<uint32_t> pages = both.host.indices();
  SealArgs s;
  s.frames = both.frames;
  s.from = s.to = pages.data();
  s.pages = c.pages;
  GpuStream stream;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  QUIRE_CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  BOOST_REQUIRE(cuda::seal(both.codec, s, nullptr, stream) == cudaSuccess);
  QUIRE_CUDA_OK(cudaStreamEndCapture(stream, &graph));
  QUIRE_CUDA_OK(cudaGraphInstantiate(&ready, graph, 0));
  s.frames = both.host.frames;
  seal(*both.host.codec, s, 0, seal_tasks(*both.host.codec, s));
  for (int replay = 0; replay < 2; ++replay) {
    QUIRE_CUDA_OK(cudaGraphLaunch(ready, stream));
    stream.wait();
    gpu.check("replay");
    both.compare("replayed seal");
  }
  QUIRE_CUDA_OK(cudaGraphExecDestroy(ready));
  QUIRE_CUDA_OK(cudaGraphDestroy(graph));
}

BOOST_AUTO_TEST_CASE(an_example_that_knows_only_the_page_format_reads_what_gather_reads) {
  auto random = make_random(206);
  const TargetScope scalar("scalar");
  for (const uint32_t format : all_formats()) {
    Case c;
    c.format = format;
    c.geometry.dim_k = 128;
    c.geometry.dim_v = 96;
    c.geometry.layers = 2;
    c.pages = 3;
    Gpu gpu;
    BothSides both(gpu, c, random);
    const std::vector<float> k = normal_values(both.host.k_size(), random);
    const std::vector<float> v = normal_values(both.host.v_size(), random);
    for (uint32_t layer = 0; layer < 2; ++layer) {
      both.host.append_all(k.data(), v.data(), layer, both.host.has_open);
    }
    if (both.host.has_open) both.host.seal_all(both.host.indices(7));
    both.push();
    const Mirror<float> book(gpu, both.codec.values, 16);
    const std::vector<int32_t> table = {2, both.host.has_open ? -2 - 1 : 1, -1, 0};
    const Mirror<int32_t> device_table(gpu, table);
    const auto n = static_cast<uint32_t>(table.size()) * c.geometry.page_tokens;
    const size_t heads = size_t{n} * c.geometry.kv_heads;
    const std::vector<float> k_before(heads * c.geometry.dim_k, 5), v_before(heads * 96, 5);
    const Mirror<float> read_k(gpu, k_before), read_v(gpu, v_before);
    const Mirror<float> gathered_k(gpu, k_before), gathered_v(gpu, v_before);
    const read_pages_frames sealed = {both.frames.sealed.base, both.frames.sealed.stride,
                                      both.codec.sealed};
    const read_pages_frames open = {both.frames.open.base, both.frames.open.stride,
                                    both.codec.open};
    // Layer 0 has no means.
    QUIRE_CUDA_OK(read_pages(&sealed, &open, device_table.device, book.device, 0, 1, n,
                             read_k.device, nullptr));
    QUIRE_CUDA_OK(read_pages(&sealed, &open, device_table.device, book.device, 0, 0, n,
                             read_v.device, nullptr));
    gpu.check("example");
    GatherArgs g;
    g.frames = both.frames;
    g.map.block_table = device_table.device;
    g.map.block_table_length = static_cast<uint32_t>(table.size());
    g.n = n;
    g.k = gathered_k.device;
    g.v = gathered_v.device;
    BOOST_REQUIRE(cuda::gather(both.codec, g, nullptr) == cudaSuccess);
    gpu.check("gather");
    BOOST_TEST(gathered_k.down() == read_k.down(), quire_format_name(format) << " k");
    BOOST_TEST(gathered_v.down() == read_v.down(), quire_format_name(format) << " v");
  }
}

int main(int argc, char **argv) {
  return gpu_main(argc, argv);
}
