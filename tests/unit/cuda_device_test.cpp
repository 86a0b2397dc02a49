// The CUDA device keeps the contract of a Device, leaves the engine's context and captures alone, and
// says what is wrong where there is no GPU or it is lost. The GPU is a fake
// (tests/support/fake_cuda.h).
#define BOOST_TEST_MODULE cuda_device
#include "runtime/cuda_device.h"

#include <boost/test/unit_test.hpp>

#include <atomic>
#include <cstring>
#include <string>

#include "tests/support/device_contract.h"
#include "tests/support/fake_cuda.h"

using namespace quire;
using test::FakeCuda;
using test::FakeCudaDevice;

namespace {

bool nothing_left(const FakeCuda &fake) {
  const FakeCuda::Living living = fake.living();
  BOOST_TEST((living == FakeCuda::Living{}), "left over:" << living.text());
  BOOST_TEST(fake.misuses() == 0u);
  return living == FakeCuda::Living{};
}

std::string open_error(FakeCuda &fake, int ordinal, Status wanted) {
  FakeCudaDevice device(fake);
  BOOST_TEST((device.open(ordinal) == wanted));
  return last_error();
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_cuda_device_keeps_the_contract) {
  FakeCuda fake;
  {
    FakeCudaDevice device(fake);
    BOOST_TEST_REQUIRE((device.open(0) == Status::kOk));
    test::check_device({&device, [&] { return fake.make_stream(); },
                        [&](Stream stream) { fake.drop_stream(stream); }});
    BOOST_TEST(std::string(device.name()) == "cuda");
    BOOST_TEST(!device.lost());
  }
  BOOST_TEST(nothing_left(fake));
}

BOOST_AUTO_TEST_CASE(a_cpu_kernel_is_refused) {
  FakeCuda fake;
  CudaDevice device(fake);
  BOOST_TEST_REQUIRE((device.open(0) == Status::kOk));
  BOOST_TEST((device.launch(nullptr, Task([] {})) == Status::kUnsupported));
}

BOOST_AUTO_TEST_CASE(why_there_is_no_device_is_said) {
  FakeCuda none(0);
  BOOST_TEST(open_error(none, 0, Status::kUnsupported).find("no CUDA device") == 0u);
  FakeCuda old;
  old.set_absence(35);
  BOOST_TEST(open_error(old, 0, Status::kUnsupported).find("driver version is insufficient") !=
             std::string::npos);
  FakeCuda two(2);
  BOOST_TEST(open_error(two, 2, Status::kInvalid).find("2 of 2") != std::string::npos);
  BOOST_TEST(open_error(two, -1, Status::kInvalid).find("-1 of 2") != std::string::npos);
  BOOST_TEST(nothing_left(two));
}

BOOST_AUTO_TEST_CASE(an_open_that_fails_at_any_call_leaves_nothing) {
  FakeCuda fake;
  uint64_t n = 1;
  for (;; ++n) {
    FakeCudaDevice device(fake);
    fake.fail_nth(n, 999);
    const Status status = device.open(0);
    const bool failed = fake.failed();
    fake.fail_nth(0, kCudaSuccess);
    BOOST_TEST((status == (failed ? Status::kDevice : Status::kOk)), "call " << n);
    if (!failed) break;
  }
  BOOST_TEST(n > 3u);
  BOOST_TEST(nothing_left(fake));
}

// An engine with two devices is on one of them, in the middle of a capture in the global mode.
BOOST_AUTO_TEST_CASE(calls_put_back_the_context_and_the_capture_mode) {
  FakeCuda fake(2);
  void *engine = nullptr;
  BOOST_TEST_REQUIRE(fake.retain_context(1, &engine) == kCudaSuccess);
  FakeCuda::set_current(engine);
  const auto unchanged = [&] {
    return FakeCuda::current() == engine && FakeCuda::capture_mode() == 0;
  };
  {
    FakeCudaDevice device(fake);
    BOOST_TEST_REQUIRE((device.open(0) == Status::kOk));
    BOOST_TEST(unchanged());
    const Stream stream = fake.make_stream(0);
    const Stream foreign = fake.make_stream(1);
    BOOST_TEST((device.validate_stream(stream) == Status::kOk));
    BOOST_TEST((device.validate_stream(foreign) == Status::kInvalid));
    fake.set_capturing(stream, true);
    bool capturing = false;
    BOOST_TEST((device.is_capturing(stream, &capturing) == Status::kOk));
    BOOST_TEST(capturing);
    fake.set_capturing(stream, false);
    Event event = 0;
    BOOST_TEST((device.create_event(&event) == Status::kOk));
    BOOST_TEST((device.record(event, stream) == Status::kOk));
    BOOST_TEST((device.wait_stream(stream) == Status::kOk));
    BOOST_TEST((device.query(event) == Status::kOk));
    Result<void *> range = device.reserve(device.granularity(), 1);
    BOOST_TEST_REQUIRE(range.ok());
    BOOST_TEST((device.commit(range.value(), 0, device.granularity()) == Status::kOk));
    BOOST_TEST(unchanged());
    device.release(range.value(), device.granularity());
    // A failure puts them back as well.
    fake.fail_nth(2, 999);
    BOOST_TEST((device.record(event, stream) == Status::kDevice));
    BOOST_TEST(fake.failed());
    BOOST_TEST(unchanged());
    device.destroy_event(event);
    fake.drop_stream(stream);
    fake.drop_stream(foreign);
    BOOST_TEST(unchanged());
  }
  BOOST_TEST(unchanged());
  FakeCuda::set_current(nullptr);
  BOOST_TEST(fake.release_context(1) == kCudaSuccess);
  BOOST_TEST(nothing_left(fake));
}

BOOST_AUTO_TEST_CASE(without_a_stream_work_is_done_when_the_call_returns) {
  FakeCuda fake;
  CudaDevice device(fake);
  BOOST_TEST_REQUIRE((device.open(0) == Status::kOk));
  char from[64];
  char to[64];
  std::memset(from, 'q', sizeof from);
  std::memset(to, 'z', sizeof to);
  BOOST_TEST((device.copy(to, from, 32, nullptr) == Status::kOk));
  BOOST_TEST((device.zero(to + 32, 32, nullptr) == Status::kOk));
  for (size_t i = 0; i < sizeof to; ++i) BOOST_TEST(to[i] == (i < 32 ? 'q' : '\0'));
}

BOOST_AUTO_TEST_CASE(a_passing_error_does_not_lose_the_device_and_a_lasting_one_does) {
  FakeCuda fake;
  {
    FakeCudaDevice device(fake);
    BOOST_TEST_REQUIRE((device.open(0) == Status::kOk));
    const Stream stream = fake.make_stream();
    Event event = 0;
    BOOST_TEST_REQUIRE((device.create_event(&event) == Status::kOk));
    fake.fail_nth(2, kCudaOutOfMemory);
    BOOST_TEST((device.record(event, stream) == Status::kNomem));
    BOOST_TEST(!device.lost());
    BOOST_TEST((device.record(event, stream) == Status::kOk));
    fake.lose(719);
    BOOST_TEST(!device.lost());  // nobody has asked
    BOOST_TEST((device.query(event) == Status::kDevice));
    BOOST_TEST(device.lost());
    BOOST_TEST((device.copy(&event, &event, 0, nullptr) == Status::kDevice));
    BOOST_TEST((device.reserve(device.granularity(), 1).status() == Status::kDevice));
    BOOST_TEST(std::string(last_error()).find("unspecified launch failure") != std::string::npos);
    device.destroy_event(event);
    fake.drop_stream(stream);
  }
  BOOST_TEST(fake.living().contexts == 0);
}
