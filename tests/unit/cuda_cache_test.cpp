// A cache on the CUDA device, whichever call of CUDA fails, and when the device is lost. The GPU is a
// fake whose memory is the host's (tests/support/fake_cuda.h), so that the CPU's kernels run on it.
#define BOOST_TEST_MODULE cuda_cache
#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <string>
#include <vector>

#include "runtime/c_boundary.h"
#include "runtime/cpu_stream.h"
#include "tests/support/api_fixture.h"
#include "tests/support/fake_cuda.h"

using namespace quire;
using test::FakeCuda;
using test::FakeCudaDevice;
using test::sized_struct;

namespace {

constexpr const char *kConfig = "format=nf4,device_pages=12,open_pages=8,max_streams=4";
constexpr uint32_t kTokens = 16;
constexpr uint32_t kDim = 16;

quire_config cuda_config() {
  return test::small_config(kConfig);
}

// A device and a stream of the engine's.
struct Machine {
  Machine() : device(fake) {
    BOOST_TEST_REQUIRE((device.open(0) == Status::kOk));
    stream = fake.make_stream();
  }
  ~Machine() { fake.drop_stream(stream); }

  quire_cache *open() {
    Cache *cache = nullptr;
    const Status status = Cache::open(cuda_config(), &device, &cache);
    BOOST_TEST_REQUIRE((status == Status::kOk), last_error());
    return to_c(cache);
  }

  FakeCuda fake;
  FakeCudaDevice device;
  void *stream = nullptr;
};

std::vector<float> values(uint32_t seed) {
  std::vector<float> v(size_t{kTokens} * kDim);
  for (size_t i = 0; i < v.size(); ++i) {
    v[i] = static_cast<float>((i * 37 + seed * 101) % 64) / 32.0F - 1.0F;
  }
  return v;
}

// Writes a page's tokens and publishes it as the only page of a chain. Everything that it took it
// gives back, whatever fails; data outlives the stream's work.
quire_status write_page(quire_cache *cache, const quire_key &root, uint32_t what,
                        const std::vector<float> &data, quire_stream stream) {
  std::vector<uint32_t> tokens(kTokens, what);
  quire_key key;
  size_t n = 1;
  QUIRE_OK_OR_DIE(quire_chain_keys(cache, &root, tokens.data(), kTokens, nullptr, 0, &key, &n));
  auto prefix = sized_struct<quire_prefix>();
  prefix.n = 1;
  prefix.root = root;
  prefix.keys = &key;
  auto hit = sized_struct<quire_hit>();
  auto options = sized_struct<quire_acquire_options>();
  options.stream = stream;
  quire_lease lease = 0;
  quire_page page = 0;
  quire_status status = quire_acquire(cache, &prefix, &options, &page, &hit, &lease);
  if (status != QUIRE_OK) return status;
  if (hit.pages == 0) {
    auto rest = sized_struct<quire_alloc_options>();
    rest.lease = lease;
    rest.stream = stream;
    status = quire_alloc(cache, 1, &rest, &page);
    int32_t frame = -1;
    if (status == QUIRE_OK) status = quire_frames(cache, &page, 1, QUIRE_TIER_DEVICE, &frame);
    if (status == QUIRE_OK) {
      auto append = sized_struct<quire_append_args>();
      append.n = kTokens;
      append.k = append.v = data.data();
      append.block_table = &frame;
      append.block_table_length = 1;
      append.stream = stream;
      status = quire_kv_append(cache, &append);
      // What it points to is on this stack.
      static_cast<void>(CpuStream::wait(stream));
    }
    auto publish = sized_struct<quire_publish_options>();
    publish.stream = stream;
    if (status == QUIRE_OK) {
      status = quire_publish(cache, lease, &prefix, &page, &publish, nullptr);
    }
  }
  QUIRE_OK_OR_DIE(quire_release(cache, lease, nullptr));
  return status;
}

quire_key root_of(quire_cache *cache) {
  quire_key root;
  QUIRE_OK_OR_DIE(quire_root_key(cache, nullptr, 0, &root));
  return root;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_host_has_no_address_of_a_page) {
  Machine m;
  quire_cache *const cache = m.open();
  quire_page page = 0;
  auto options = sized_struct<quire_alloc_options>();
  BOOST_TEST_REQUIRE(quire_alloc(cache, 1, &options, &page) == QUIRE_OK);
  void *data = nullptr;
  size_t bytes = 0;
  QUIRE_FAILS(quire_page_data(cache, page, &data, &bytes), QUIRE_E_UNSUPPORTED);
  BOOST_TEST(quire_free(cache, &page, 1) == QUIRE_OK);
  BOOST_TEST(quire_close(cache) == QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(an_open_that_fails_at_any_call_leaves_nothing) {
  Machine m;
  const FakeCuda::Living before = m.fake.living();
  uint64_t n = 1;
  for (;; ++n) {
    Cache *cache = nullptr;
    m.fake.fail_nth(n, kCudaOutOfMemory);
    const Status status = Cache::open(cuda_config(), &m.device, &cache);
    const bool failed = m.fake.failed();
    m.fake.fail_nth(0, kCudaSuccess);
    BOOST_TEST((status == (failed ? Status::kNomem : Status::kOk)), "call " << n);
    if (status == Status::kOk) BOOST_TEST_REQUIRE((Cache::close(cache) == Status::kOk));
    const FakeCuda::Living living = m.fake.living();
    BOOST_TEST((living == before), "call " << n << " left:" << living.text());
    if (!failed) break;
  }
  BOOST_TEST(n > 8u);
  BOOST_TEST(m.fake.misuses() == 0u);
}

// Whatever fails in the middle of a request, the cache is sound afterwards and the same request gets
// through.
BOOST_AUTO_TEST_CASE(a_request_that_fails_at_any_call_changes_nothing) {
  Machine m;
  quire_cache *const cache = m.open();
  const quire_key root = root_of(cache);
  BOOST_TEST_REQUIRE(quire_stream_add(cache, m.stream, 0, 0) == QUIRE_OK);
  uint32_t what = 0;
  uint64_t failures = 0;
  // Chains beyond what the cache holds, so that frames go through limbo and evictions, too.
  for (; what < 40; ++what) {
    const std::vector<float> data = values(what);
    m.fake.fail_nth(1 + what % 7, what % 2 == 0 ? kCudaOutOfMemory : 999);
    quire_status status = write_page(cache, root, what, data, m.stream);
    // A step tries again what an event could not be recorded for.
    BOOST_TEST(quire_step(cache) == QUIRE_OK);
    if (m.fake.failed()) ++failures;
    m.fake.fail_nth(0, kCudaSuccess);
    BOOST_TEST_REQUIRE(quire_check(cache, 0) == QUIRE_OK, quire_last_error());
    for (int again = 0; again < 100 && status != QUIRE_OK; ++again) {
      BOOST_TEST(quire_step(cache) == QUIRE_OK);
      static_cast<void>(CpuStream::wait(m.stream));
      status = write_page(cache, root, what, data, m.stream);
    }
    BOOST_TEST_REQUIRE(status == QUIRE_OK, "chain " << what << ": " << quire_last_error());
  }
  BOOST_TEST(failures > 10u);
  BOOST_TEST(quire_stream_remove(cache, m.stream) == QUIRE_OK);
  static_cast<void>(CpuStream::wait(m.stream));
  BOOST_TEST(quire_check(cache, 0) == QUIRE_OK);
  BOOST_TEST(quire_close(cache) == QUIRE_OK);
  BOOST_TEST(m.fake.misuses() == 0u);
}

BOOST_AUTO_TEST_CASE(when_the_device_is_lost_the_host_side_goes_on_and_closes) {
  Machine m;
  quire_cache *const cache = m.open();
  const quire_key root = root_of(cache);
  BOOST_TEST_REQUIRE(quire_stream_add(cache, m.stream, 0, 0) == QUIRE_OK);
  const std::vector<float> data = values(1);
  BOOST_TEST_REQUIRE(write_page(cache, root, 1, data, m.stream) == QUIRE_OK);
  BOOST_TEST(quire_step(cache) == QUIRE_OK);
  static_cast<void>(CpuStream::wait(m.stream));
  BOOST_TEST(quire_step(cache) == QUIRE_OK);

  // A lease is held, and a private page, when a kernel of the engine's traps.
  std::vector<uint32_t> tokens(kTokens, 1);
  quire_key key;
  size_t n = 1;
  BOOST_TEST_REQUIRE(quire_chain_keys(cache, &root, tokens.data(), kTokens, nullptr, 0, &key, &n) ==
                     QUIRE_OK);
  auto prefix = sized_struct<quire_prefix>();
  prefix.n = 1;
  prefix.root = root;
  prefix.keys = &key;
  auto hit = sized_struct<quire_hit>();
  auto options = sized_struct<quire_acquire_options>();
  options.stream = m.stream;
  quire_lease lease = 0;
  quire_page page = 0;
  BOOST_TEST_REQUIRE(quire_acquire(cache, &prefix, &options, &page, &hit, &lease) == QUIRE_OK);
  BOOST_TEST(hit.pages == 1u);
  auto rest = sized_struct<quire_alloc_options>();
  rest.lease = lease;
  BOOST_TEST_REQUIRE(quire_alloc(cache, 1, &rest, &page) == QUIRE_OK);
  m.fake.lose(719);

  const quire_status written = write_page(cache, root, 2, values(2), m.stream);
  BOOST_TEST(written == QUIRE_E_DEVICE);
  BOOST_TEST(std::string(quire_last_error()).find("launch failure") != std::string::npos);
  BOOST_TEST(m.device.lost());
  BOOST_TEST(quire_match(cache, &prefix, &hit) == QUIRE_OK);
  BOOST_TEST(hit.pages == 1u);
  auto stats = sized_struct<quire_stats>();
  BOOST_TEST(quire_stats_get(cache, &stats) == QUIRE_OK);
  BOOST_TEST(stats.device_errors_total > 0u);
  BOOST_TEST(quire_close(cache) == QUIRE_E_BUSY);
  BOOST_TEST(quire_release(cache, lease, nullptr) == QUIRE_OK);
  BOOST_TEST(quire_step(cache) == QUIRE_OK);
  BOOST_TEST(quire_check(cache, 0) == QUIRE_OK);
  BOOST_TEST(quire_stream_remove(cache, m.stream) == QUIRE_OK);
  BOOST_TEST(quire_close(cache) == QUIRE_OK, quire_last_error());
}
