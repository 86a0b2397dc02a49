// The CUDA device and its memory keep their contracts on a real GPU; a lost one is reported.
#define BOOST_TEST_MODULE gpu_device
#define BOOST_TEST_NO_MAIN
#include "runtime/cuda_device.h"

#include "gpu/gpu_support.h"

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>

#include "allocators/pinned_memory.h"
#include "runtime/c_boundary.h"
#include "tests/support/api_fixture.h"
#include "tests/support/device_contract.h"
#include "tests/support/memory_contract.h"

using namespace quire;
using test::GpuStream;

namespace {

constexpr uint64_t kSeed = 20261124;

struct Opened {
  Opened() : device(*cuda_api()) {
    BOOST_TEST_REQUIRE((device.open(0) == Status::kOk), last_error());
  }
  CudaDevice device;
};

Stream make_stream() {
  cudaStream_t stream = nullptr;
  QUIRE_CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void drop_stream(Stream stream) {
  QUIRE_CUDA_OK(cudaStreamDestroy(static_cast<cudaStream_t>(stream)));
}

Status launch_host(Stream stream, const Task &task) {
  const auto run = [](void *argument) {
    Task *const copy = static_cast<Task *>(argument);
    (*copy)();
    delete copy;
  };
  const cudaError_t error =
      cudaLaunchHostFunc(static_cast<cudaStream_t>(stream), run, new Task(task));
  return error == cudaSuccess ? Status::kOk : Status::kDevice;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// In a process of its own: a kernel traps while a cache is in use.
int child_that_loses_its_device() {
  const auto fail = [](const char *what) {
    std::printf("lost device: %s: %s\n", what, quire_last_error());
    return 1;
  };
  quire_config config;
  quire_config_init(&config);
  if (quire_config_parse(&config,
                         "device=cuda,layers=1,kv_heads=1,head_dim=16,page_tokens=16,format=f32,"
                         "device_pages=8,epoch_ms=none,segment=-") != QUIRE_OK) {
    return fail("config");
  }
  quire_cache *cache = nullptr;
  if (quire_open(&config, &cache) != QUIRE_OK) return fail("open");
  cudaStream_t stream = nullptr;
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return 2;
  if (quire_stream_add(cache, stream, 0, 0) != QUIRE_OK) return fail("stream_add");
  quire_key root, key;
  size_t n = 1;
  uint32_t tokens[16] = {};
  quire_root_key(cache, nullptr, 0, &root);
  quire_chain_keys(cache, &root, tokens, 16, nullptr, 0, &key, &n);
  auto prefix = test::sized_struct<quire_prefix>();
  prefix.n = 1;
  prefix.root = root;
  prefix.keys = &key;
  auto hit = test::sized_struct<quire_hit>();
  quire_lease lease = 0;
  quire_page pages[2] = {};
  if (quire_acquire(cache, &prefix, nullptr, pages, &hit, &lease) != QUIRE_OK)
    return fail("acquire");
  auto rest = test::sized_struct<quire_alloc_options>();
  rest.lease = lease;
  if (quire_alloc(cache, 2, &rest, pages) != QUIRE_OK) return fail("alloc");
  auto publish = test::sized_struct<quire_publish_options>();
  publish.stream = stream;
  if (quire_publish(cache, lease, &prefix, pages, &publish, nullptr) != QUIRE_OK) {
    return fail("publish");
  }
  test::launch_trap(stream);
  // Until the fault has come to light: a step records and asks events.
  auto stats = test::sized_struct<quire_stats>();
  for (int i = 0; i < 100000; ++i) {
    if (quire_step(cache) != QUIRE_OK) return fail("step");
    quire_stats_get(cache, &stats);
    if (stats.device_errors_total != 0) break;
  }
  if (stats.device_errors_total == 0) return fail("the fault was never seen");
  if (quire_match(cache, &prefix, &hit) != QUIRE_OK || hit.pages != 1) return fail("match");
  if (quire_release(cache, lease, nullptr) != QUIRE_OK) return fail("release");
  if (quire_step(cache) != QUIRE_OK) return fail("step");
  if (quire_check(cache, 0) != QUIRE_OK) return fail("check");
  if (quire_stream_add(cache, reinterpret_cast<void *>(uintptr_t{0x1000}), 0, 0) !=
      QUIRE_E_DEVICE) {
    return fail("a device that is lost is not reported");
  }
  if (quire_stream_remove(cache, stream) != QUIRE_OK) return fail("stream_remove");
  if (quire_close(cache) != QUIRE_OK) return fail("close");
  std::printf("lost device: closed in order\n");
  return 0;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_cuda_device_keeps_the_contract) {
  Opened o;
  void *memory = nullptr;
  QUIRE_CUDA_OK(cudaMallocHost(&memory, 128));
  test::DeviceContract contract{&o.device, make_stream, drop_stream};
  contract.launch = launch_host;
  contract.memory = static_cast<char *>(memory);
  contract.knows_handles = false;
  test::check_device(contract);
  QUIRE_CUDA_OK(cudaFreeHost(memory));
  BOOST_TEST_MESSAGE("device: " << o.device.properties().name);
}

BOOST_AUTO_TEST_CASE(device_memory_keeps_the_contract_of_a_source) {
  Opened o;
  BOOST_TEST(o.device.properties().virtual_memory);
  test::check_memory_source(o.device);
  test::check_arena(o.device, kSeed);
  CudaMemory plain(*cuda_api());
  BOOST_TEST_REQUIRE((plain.open(0, o.device.context(), false) == Status::kOk));
  test::check_memory_source(plain);
  test::check_arena(plain, kSeed);
}

// Addresses stay, what is committed can be written, and what is given back is free for others.
BOOST_AUTO_TEST_CASE(committed_memory_is_the_devices_and_comes_back,
                     *boost::unit_test::label("not_under_a_tool")) {
  Opened o;
  size_t before = 0, within = 0, after = 0, total = 0;
  const size_t bytes = size_t{2} << 30;
  QUIRE_CUDA_OK(cudaMemGetInfo(&before, &total));
  Result<void *> range = o.device.reserve(2 * bytes, 1);
  BOOST_TEST_REQUIRE(range.ok());
  BOOST_TEST_REQUIRE((o.device.commit(range.value(), 0, bytes) == Status::kOk));
  BOOST_TEST_REQUIRE((o.device.commit(range.value(), bytes, bytes) == Status::kOk));
  QUIRE_CUDA_OK(cudaMemGetInfo(&within, &total));
  BOOST_TEST(before - within >= 2 * bytes);
  const GpuStream stream;
  QUIRE_CUDA_OK(cudaMemsetAsync(range.value(), 0x5A, 2 * bytes, stream));
  stream.wait();
  // One call takes away what two gave, granule by granule.
  BOOST_TEST((o.device.decommit(range.value(), bytes / 2, bytes) == Status::kOk), last_error());
  QUIRE_CUDA_OK(cudaMemGetInfo(&within, &total));
  BOOST_TEST(before - within >= bytes);
  BOOST_TEST(before - within < bytes + (size_t{64} << 20));
  unsigned char last = 0;
  QUIRE_CUDA_OK(cudaMemcpy(&last, static_cast<char *>(range.value()) + 2 * bytes - 1, 1,
                           cudaMemcpyDeviceToHost));
  BOOST_TEST(last == 0x5A);
  o.device.release(range.value(), 2 * bytes);
  QUIRE_CUDA_OK(cudaMemGetInfo(&after, &total));
  BOOST_TEST(before - after < size_t{64} << 20);
}

BOOST_AUTO_TEST_CASE(pinned_memory_is_seen_by_both_sides) {
  Opened o;
  PinnedMemory memory(*cuda_api(), o.device.context());
  test::check_memory_source(memory);
  const size_t bytes = 4 * memory.granularity();
  Result<void *> range = memory.reserve(bytes, 1);
  BOOST_TEST_REQUIRE(range.ok());
  BOOST_TEST_REQUIRE((memory.commit(range.value(), 0, bytes) == Status::kOk), last_error());
  const GpuStream stream;
  for (size_t at = 0; at < bytes; at += memory.granularity()) {
    QUIRE_CUDA_OK(cudaMemsetAsync(static_cast<char *>(range.value()) + at, 0x7E,
                                  memory.granularity(), stream));
  }
  stream.wait();
  BOOST_TEST(test::all_bytes_are(range.value(), bytes, 0x7E));
  // A kernel goes across granules.
  test::launch_fill(static_cast<uint32_t *>(range.value()), bytes / 4, 0x01020304, stream);
  QUIRE_CUDA_OK(cudaGetLastError());
  stream.wait();
  const auto *const words = static_cast<uint32_t *>(range.value());
  BOOST_TEST((words[0] == 0x01020304u && words[bytes / 4 - 1] == 0x01020304u));
  memory.release(range.value(), bytes);
}

// The figure of goals for pinned memory; the size by QUIRE_GPU_PINNED_GIB.
BOOST_AUTO_TEST_CASE(pinned_memory_is_ready_in_time) {
  Opened o;
  const char *const asked = std::getenv("QUIRE_GPU_PINNED_GIB");
  const size_t bytes = (asked != nullptr ? std::strtoull(asked, nullptr, 10) : 1) << 30;
  for (const bool huge : {true, false}) {
    for (const unsigned threads : {16U, 8U, 4U, 1U}) {
      if (threads < 8 && asked == nullptr) continue;
      PinnedMemoryOptions options;
      options.huge_pages = huge;
      options.threads = threads;
      PinnedMemory memory(*cuda_api(), o.device.context(), options);
      Result<void *> range = memory.reserve(bytes, 1);
      BOOST_TEST_REQUIRE(range.ok());
      const auto start = std::chrono::steady_clock::now();
      BOOST_TEST_REQUIRE((memory.commit(range.value(), 0, bytes) == Status::kOk), last_error());
      const double took = seconds_since(start);
      const auto end = std::chrono::steady_clock::now();
      memory.release(range.value(), bytes);
      std::printf(
          "pinned: %zu GiB, huge pages %d, %2u threads: ready in %.3f s, given up in %.3f s\n",
          bytes >> 30, huge ? 1 : 0, threads, took, seconds_since(end));
    }
  }
}

BOOST_AUTO_TEST_CASE(an_engines_capture_is_seen_and_not_broken) {
  Opened o;
  const GpuStream captured, other;
  Event event = 0;
  BOOST_TEST_REQUIRE((o.device.create_event(&event) == Status::kOk));
  QUIRE_CUDA_OK(cudaStreamBeginCapture(captured, cudaStreamCaptureModeGlobal));
  bool capturing = false;
  BOOST_TEST((o.device.is_capturing(captured, &capturing) == Status::kOk));
  BOOST_TEST(capturing);
  BOOST_TEST((o.device.is_capturing(other, &capturing) == Status::kOk));
  BOOST_TEST(!capturing);
  // Calls that CUDA forbids a thread that captures in the global mode, but for the relaxed one.
  Event late = 0;
  BOOST_TEST((o.device.create_event(&late) == Status::kOk));
  BOOST_TEST((o.device.record(event, other) == Status::kOk));
  while (o.device.query(event) == Status::kAgain) {
  }
  Result<void *> range = o.device.reserve(o.device.granularity(), 1);
  BOOST_TEST_REQUIRE(range.ok());
  BOOST_TEST((o.device.commit(range.value(), 0, o.device.granularity()) == Status::kOk));
  BOOST_TEST((o.device.zero(range.value(), 4096, nullptr) == Status::kOk));
  cudaGraph_t graph = nullptr;
  QUIRE_CUDA_OK(cudaStreamEndCapture(captured, &graph));
  QUIRE_CUDA_OK(cudaGraphDestroy(graph));
  o.device.release(range.value(), o.device.granularity());
  o.device.destroy_event(event);
  o.device.destroy_event(late);
}

BOOST_AUTO_TEST_CASE(what_events_cost) {
  Opened o;
  const GpuStream stream;
  Event event = 0;
  BOOST_TEST_REQUIRE((o.device.create_event(&event) == Status::kOk));
  constexpr int kRounds = 20000;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kRounds; ++i) static_cast<void>(o.device.record(event, stream));
  const double record = seconds_since(start);
  stream.wait();
  const auto middle = std::chrono::steady_clock::now();
  for (int i = 0; i < kRounds; ++i) static_cast<void>(o.device.query(event));
  std::printf("events: record %.0f ns, query %.0f ns\n", record / kRounds * 1e9,
              seconds_since(middle) / kRounds * 1e9);
  o.device.destroy_event(event);
}

BOOST_AUTO_TEST_CASE(a_lost_device_is_reported_and_the_cache_closes,
                     *boost::unit_test::label("not_under_a_tool")) {
  const pid_t child = ::fork();
  BOOST_TEST_REQUIRE(child >= 0);
  if (child == 0) {
    ::execl("/proc/self/exe", "device_test", "--lose-the-device", static_cast<char *>(nullptr));
    ::_exit(127);
  }
  int status = 0;
  BOOST_TEST_REQUIRE(::waitpid(child, &status, 0) == child);
  BOOST_TEST((WIFEXITED(status) && WEXITSTATUS(status) == 0), "status " << status);
}

int main(int argc, char **argv) {
  if (argc == 2 && std::strcmp(argv[1], "--lose-the-device") == 0) {
    return child_that_loses_its_device();
  }
  return test::gpu_main(argc, argv);
}
