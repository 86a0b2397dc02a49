// Promises 1 and 10 on a real GPU: a frame is never written by its next owner before the last reader
// has passed, and nothing of one namespace is readable by another after reuse when zeroing is on.
//
// As tests/unit/promise_reuse_test.cpp, with kernels: every page that a kernel writes holds one word,
// repeated, that only its owner writes; readers idle for a while before they look, so that a frame
// that is handed on too early is found out.
#define BOOST_TEST_MODULE gpu_promise_reuse
#define BOOST_TEST_NO_MAIN
#include "gpu/gpu_support.h"

#include <cstdlib>
#include <memory>
#include <random>

#include "tests/support/api_fixture.h"

using namespace quire::test;

namespace {

// 10,000 by default; QUIRE_GPU_TRIALS for tools that look at every access.
const int kTrials =
    std::getenv("QUIRE_GPU_TRIALS") != nullptr ? std::atoi(std::getenv("QUIRE_GPU_TRIALS")) : 10000;
constexpr long long kLongestIdle = 40000;  // cycles of the GPU's clock, some tens of microseconds

quire_config gpu_config(const char *more) {
  quire_config config = small_config(more);
  config.device = QUIRE_DEVICE_CUDA;
  return config;
}

quire_stream handle_of(const std::unique_ptr<GpuStream> &stream) {
  return static_cast<cudaStream_t>(*stream);
}

class Engine : public ApiFixture {
 public:
  Engine(const char *more, size_t n_streams) : ApiFixture(gpu_config(more)), streams(n_streams) {
    QUIRE_INIT(&layout);
    QUIRE_OK_OR_DIE(quire_layout(cache, QUIRE_TIER_DEVICE, 0, &layout));
    QUIRE_CUDA_OK(cudaMallocManaged(reinterpret_cast<void **>(&wrong), sizeof *wrong));
    *wrong = 0;
    for (auto &stream : streams) {
      stream = std::make_unique<GpuStream>();
      QUIRE_OK_OR_DIE(quire_stream_add(cache, handle_of(stream), 0, 0));
    }
  }
  ~Engine() {
    BOOST_CHECK(cudaDeviceSynchronize() == cudaSuccess);
    BOOST_CHECK_EQUAL(*wrong, 0u);
    for (auto &stream : streams) {
      BOOST_CHECK(quire_stream_remove(cache, handle_of(stream)) == QUIRE_OK);
    }
    BOOST_CHECK(quire_step(cache) == QUIRE_OK);
    cudaFree(wrong);
  }

  uint32_t *address(quire_page page) {
    int32_t frame = -1;
    QUIRE_OK_OR_DIE(quire_frames(cache, &page, 1, QUIRE_TIER_DEVICE, &frame));
    char *const base = static_cast<char *>(frame >= 0 ? layout.base : layout.open_base);
    const auto number = static_cast<uint64_t>(frame >= 0 ? frame : -2 - frame);
    return reinterpret_cast<uint32_t *>(base +
                                        number * (frame >= 0 ? layout.stride : layout.open_stride));
  }
  size_t words() const { return layout.layout.page_bytes / sizeof(uint32_t); }

  void launch(quire_page page, uint32_t word, bool writes,
              const std::unique_ptr<GpuStream> &stream) {
    if (writes) {
      launch_fill(address(page), words(), word, *stream);
    } else {
      const auto idle = static_cast<long long>(random() % kLongestIdle);
      launch_slow_check(address(page), words(), word, idle, wrong, *stream);
    }
    QUIRE_CUDA_OK(cudaGetLastError());
  }
  // Steps until there is memory.
  void alloc_patiently(uint32_t n, quire_lease lease, quire_page *pages, quire_stream stream) {
    for (;;) {
      const quire_status status = alloc(n, lease, pages, stream);
      if (status == QUIRE_OK) return;
      BOOST_REQUIRE(status == QUIRE_E_AGAIN);
      QUIRE_OK_OR_DIE(quire_step(cache));
    }
  }

  std::vector<std::unique_ptr<GpuStream>> streams;
  quire_layout_info layout;
  unsigned long long *wrong = nullptr;
  std::mt19937 random{20261124};
};

}  // namespace

// Private pages: written and read on one stream, freed with the work still enqueued, handed on; half
// of the time to the same stream, which need not wait for itself.
BOOST_AUTO_TEST_CASE(promise_1_a_freed_frame_waits_for_its_readers) {
  Engine e("format=f32,device_pages=3", 2);
  for (int trial = 0; trial < kTrials; ++trial) {
    const auto &stream = e.streams[e.random() % 2];
    const bool names_it = e.random() % 2 == 0;
    quire_page page;
    const auto word = static_cast<uint32_t>(trial) + 1;
    e.alloc_patiently(1, 0, &page, names_it ? handle_of(stream) : nullptr);
    e.launch(page, word, true, stream);
    e.launch(page, word, false, stream);
    QUIRE_OK_OR_DIE(quire_free(e.cache, &page, 1));
    if (e.random() % 4 == 0) QUIRE_OK_OR_DIE(quire_step(e.cache));
  }
  BOOST_TEST(e.stats().frames_limbo_total > 0u);
}

// Shared pages: published by the stream that writes them, hit from others (which are made to wait
// for it), released with readers enqueued, evicted for others.
BOOST_AUTO_TEST_CASE(promise_1_an_evicted_frame_waits_for_its_readers) {
  Engine e("format=f32,device_pages=5", 3);
  std::vector<std::vector<quire_key>> prompts;
  for (uint32_t i = 0; i < 6; ++i) prompts.push_back(e.keys_of(i, 2));
  for (int trial = 0; trial < kTrials; ++trial) {
    const auto which = static_cast<uint32_t>(e.random() % prompts.size());
    const auto &stream = e.streams[e.random() % 3];
    quire_page pages[2];
    uint32_t hit = 0;
    const quire_lease lease = e.acquire(prompts[which], &hit, pages, handle_of(stream));
    if (hit < 2) {
      e.alloc_patiently(2 - hit, lease, pages + hit,
                        e.random() % 2 == 0 ? handle_of(stream) : nullptr);
      for (uint32_t i = hit; i < 2; ++i) e.launch(pages[i], which * 2 + i + 1, true, stream);
      QUIRE_OK_OR_DIE(e.publish(lease, prompts[which], pages, nullptr, QUIRE_PUBLISH_REPLACE,
                                handle_of(stream)));
    }
    for (uint32_t i = 0; i < hit; ++i) e.launch(pages[i], which * 2 + i + 1, false, stream);
    e.release(lease);
    if (e.random() % 3 == 0) QUIRE_OK_OR_DIE(quire_step(e.cache));
  }
  BOOST_TEST(e.stats().evictions_capacity_total > 0u);
  BOOST_TEST(e.stats().prefix_hits_total > 0u);
  BOOST_TEST(e.stats().stream_waits_total > 0u);
}

// A stream's own frames come back to it at once, with its work still enqueued and no step between.
BOOST_AUTO_TEST_CASE(a_stream_reuses_its_own_frames_without_waiting) {
  Engine e("format=f32,device_pages=2", 1);
  int *go = nullptr;
  QUIRE_CUDA_OK(cudaMallocHost(reinterpret_cast<void **>(&go), sizeof *go));
  *go = 0;
  launch_gate(go, *e.streams[0]);
  QUIRE_CUDA_OK(cudaGetLastError());
  for (uint32_t trial = 0; trial < 100; ++trial) {
    quire_page page;
    QUIRE_OK_OR_DIE(e.alloc(1, 0, &page, handle_of(e.streams[0])));
    e.launch(page, trial + 1, true, e.streams[0]);
    e.launch(page, trial + 1, false, e.streams[0]);
    QUIRE_OK_OR_DIE(quire_free(e.cache, &page, 1));
  }
  // To anybody else they are not given while that work is waiting.
  quire_page pages[2];
  BOOST_TEST(e.alloc(2, 0, pages, nullptr) == QUIRE_E_AGAIN);
  *static_cast<volatile int *>(go) = 1;
  e.streams[0]->wait();
  QUIRE_OK_OR_DIE(quire_step(e.cache));
  e.alloc_patiently(2, 0, pages, nullptr);
  QUIRE_OK_OR_DIE(quire_free(e.cache, pages, 2));
  QUIRE_CUDA_OK(cudaFreeHost(go));
}

BOOST_AUTO_TEST_CASE(promise_10_frames_are_zeroed_before_others_get_them) {
  Engine e("format=f32,device_pages=8", 2);
  auto settings = sized_struct<quire_namespace>();
  settings.zero = 1;
  QUIRE_OK_OR_DIE(quire_namespace_set(e.cache, &e.root, &settings));
  for (uint32_t trial = 0; trial < 200; ++trial) {
    quire_page pages[4];
    const auto &stream = e.streams[trial % 2];
    e.alloc_patiently(4, 0, pages, handle_of(stream));
    for (const quire_page page : pages) {
      // What the last owner left behind is gone.
      launch_slow_check(e.address(page), e.words(), 0, 0, e.wrong, *stream);
      e.launch(page, 0x5EC4E700u + trial, true, stream);
    }
    QUIRE_OK_OR_DIE(quire_free(e.cache, pages, 4));
    QUIRE_OK_OR_DIE(quire_step(e.cache));
  }
}

// While a stream captures nothing is recorded on it, so it has not passed; its frames wait, the
// capture is whole, and replays of the graph are work of the stream they are launched on.
BOOST_AUTO_TEST_CASE(a_capturing_stream_has_not_passed_and_its_capture_is_whole) {
  Engine e("format=f32,device_pages=2", 1);
  quire_page page;
  QUIRE_OK_OR_DIE(e.alloc(1, 0, &page, handle_of(e.streams[0])));
  QUIRE_CUDA_OK(cudaStreamBeginCapture(*e.streams[0], cudaStreamCaptureModeGlobal));
  e.launch(page, 7, true, e.streams[0]);
  e.launch(page, 7, false, e.streams[0]);
  quire_page other;
  QUIRE_OK_OR_DIE(e.alloc(1, 0, &other, nullptr));
  QUIRE_OK_OR_DIE(quire_free(e.cache, &other, 1));
  for (int i = 0; i < 5; ++i) QUIRE_OK_OR_DIE(quire_step(e.cache));
  quire_page pages[2];
  BOOST_TEST(e.alloc(1, 0, pages, nullptr) == QUIRE_E_AGAIN);
  cudaGraph_t graph = nullptr;
  QUIRE_CUDA_OK(cudaStreamEndCapture(*e.streams[0], &graph));
  cudaGraphExec_t replay = nullptr;
  QUIRE_CUDA_OK(cudaGraphInstantiate(&replay, graph, 0));
  for (int i = 0; i < 10; ++i) QUIRE_CUDA_OK(cudaGraphLaunch(replay, *e.streams[0]));
  QUIRE_OK_OR_DIE(quire_free(e.cache, &page, 1));
  e.alloc_patiently(2, 0, pages, nullptr);
  QUIRE_OK_OR_DIE(quire_free(e.cache, pages, 2));
  QUIRE_CUDA_OK(cudaGraphExecDestroy(replay));
  QUIRE_CUDA_OK(cudaGraphDestroy(graph));
}

int main(int argc, char **argv) {
  return gpu_main(argc, argv);
}
