// The CPU device, and the adversary that tests use in its place, keep the contract of a Device.
#define BOOST_TEST_MODULE cpu_device
#include "runtime/cpu_device.h"

#include <boost/test/unit_test.hpp>

#include <atomic>
#include <thread>
#include <vector>

#include "runtime/cpu_stream.h"
#include "tests/support/adversary_device.h"
#include "tests/support/device_contract.h"

using namespace quire;
using test::AdversaryDevice;
using test::DeviceContract;

namespace {

Stream new_cpu_stream() {
  Stream stream = nullptr;
  BOOST_TEST_REQUIRE((CpuStream::create(0, &stream) == Status::kOk));
  return stream;
}

void drop_cpu_stream(Stream stream) {
  BOOST_TEST((CpuStream::destroy(stream) == Status::kOk));
}

DeviceContract adversary_contract(AdversaryDevice &device) {
  return {&device, [&] { return device.add_stream(); },
          [&](Stream stream) { device.remove_stream(stream); }};
}

Event new_event(Device &device) {
  Event event = 0;
  BOOST_TEST_REQUIRE((device.create_event(&event) == Status::kOk));
  return event;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_cpu_device_keeps_the_contract) {
  CpuDevice device;
  test::check_device({&device, new_cpu_stream, drop_cpu_stream});
  BOOST_TEST(CpuStream::living() == 0u);
}

BOOST_AUTO_TEST_CASE(the_adversary_keeps_the_contract_for_every_seed) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    BOOST_TEST_CONTEXT("seed " << seed) {
      AdversaryDevice device(seed);
      device.delay_events(5);
      device.set_spurious(64);
      // A removed stream's events count as done at once, delays and doubts aside.
      test::check_waits(adversary_contract(device));
      device.delay_events(0);
      device.set_spurious(0);
      test::check_device(adversary_contract(device));
      BOOST_TEST(device.validate());
      BOOST_TEST(device.living_events() == 0u);
    }
  }
}

BOOST_AUTO_TEST_CASE(an_event_is_not_done_while_its_work_runs) {
  CpuDevice device;
  const Stream stream = new_cpu_stream();
  const Event event = new_event(device);
  std::atomic<bool> go{false};
  std::atomic<bool> *const gate = &go;
  BOOST_TEST_REQUIRE((device.launch(stream, Task([gate] { gate->wait(false); })) == Status::kOk));
  BOOST_TEST((device.query(event) == Status::kOk));  // nothing recorded so far
  BOOST_TEST_REQUIRE((device.record(event, stream) == Status::kOk));
  BOOST_TEST((device.query(event) == Status::kAgain));
  BOOST_TEST((CpuStream::query(stream) == Status::kAgain));
  go.store(true);
  go.notify_all();
  BOOST_TEST((device.wait_stream(stream) == Status::kOk));
  BOOST_TEST((device.query(event) == Status::kOk));
  drop_cpu_stream(stream);
  device.destroy_event(event);
}

BOOST_AUTO_TEST_CASE(an_event_may_be_destroyed_under_a_wait_for_it) {
  CpuDevice device;
  const Stream a = new_cpu_stream();
  const Stream b = new_cpu_stream();
  const Event event = new_event(device);
  std::atomic<bool> go{false};
  std::atomic<bool> *const gate = &go;
  int value = 0;
  int seen = -1;
  int *const v = &value;
  int *const s = &seen;
  BOOST_TEST_REQUIRE((device.launch(a, Task([=] {
                                      gate->wait(false);
                                      *v = 7;
                                    })) == Status::kOk));
  BOOST_TEST_REQUIRE((device.record(event, a) == Status::kOk));
  BOOST_TEST_REQUIRE((device.stream_wait_event(b, event) == Status::kOk));
  device.destroy_event(event);
  BOOST_TEST_REQUIRE((device.launch(b, Task([=] { *s = *v; })) == Status::kOk));
  go.store(true);
  go.notify_all();
  drop_cpu_stream(a);  // drains it
  drop_cpu_stream(b);
  BOOST_TEST(seen == 7);
}

BOOST_AUTO_TEST_CASE(queries_may_run_beside_records) {
  CpuDevice device;
  const Stream a = new_cpu_stream();
  const Stream b = new_cpu_stream();
  const Event event = new_event(device);
  std::atomic<bool> stop{false};
  std::thread asker([&] {
    while (!stop.load()) {
      const Status status = device.query(event);
      if (status != Status::kOk && status != Status::kAgain) std::abort();
    }
  });
  for (int i = 0; i < 500; ++i) {
    const Stream stream = i % 2 == 0 ? a : b;
    BOOST_TEST_REQUIRE((device.launch(stream, Task([] {})) == Status::kOk));
    BOOST_TEST_REQUIRE((device.record(event, stream) == Status::kOk));
  }
  stop.store(true);
  asker.join();
  drop_cpu_stream(a);
  drop_cpu_stream(b);
  BOOST_TEST((device.query(event) == Status::kOk));
  device.destroy_event(event);
}

BOOST_AUTO_TEST_CASE(the_adversary_reorders_between_streams_but_never_within_one) {
  bool b_before_a = false;
  bool a_before_b = false;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    BOOST_TEST_CONTEXT("seed " << seed) {
      AdversaryDevice device(seed);
      const Stream streams[2] = {device.add_stream(), device.add_stream()};
      std::vector<int> ran;
      std::vector<int> *const log = &ran;
      for (int i = 0; i < 10; ++i) {
        BOOST_TEST_REQUIRE(
            (device.launch(streams[i % 2], Task([=] { log->push_back(i); })) == Status::kOk));
      }
      BOOST_TEST(ran.empty());  // nothing runs before the pump
      BOOST_TEST(device.pending() == 10u);
      BOOST_TEST(device.pump() == 10u);
      int last[2] = {-1, -1};
      for (const int i : ran) {
        BOOST_TEST(i > last[i % 2]);
        last[i % 2] = i;
      }
      (ran.front() == 0 ? a_before_b : b_before_a) = true;
      BOOST_TEST(device.validate());
    }
  }
  BOOST_TEST((a_before_b && b_before_a));
}

BOOST_AUTO_TEST_CASE(the_adversary_repeats_itself_for_a_seed) {
  std::vector<std::vector<int>> histories;
  for (int repeat = 0; repeat < 2; ++repeat) {
    AdversaryDevice device(99);
    std::vector<int> ran;
    std::vector<int> *const log = &ran;
    std::vector<Stream> streams;
    for (int i = 0; i < 4; ++i) streams.push_back(device.add_stream());
    for (int i = 0; i < 64; ++i) {
      BOOST_TEST_REQUIRE((device.launch(streams[static_cast<size_t>(i) % 4],
                                        Task([=] { log->push_back(i); })) == Status::kOk));
    }
    device.pump();
    histories.push_back(ran);
  }
  BOOST_TEST((histories[0] == histories[1]));
}

BOOST_AUTO_TEST_CASE(the_adversary_holds_delays_stalls_and_doubts) {
  AdversaryDevice device(3);
  const Stream stream = device.add_stream();
  const Stream other = device.add_stream();
  const Event event = new_event(device);
  BOOST_TEST_REQUIRE((device.launch(stream, Task([] {})) == Status::kOk));
  BOOST_TEST_REQUIRE((device.record(event, stream) == Status::kOk));
  BOOST_TEST_REQUIRE((device.stream_wait_event(other, event) == Status::kOk));

  device.stall(stream, true);
  BOOST_TEST(device.pump() == 0u);
  BOOST_TEST((device.wait_stream(other) == Status::kDevice));  // it would never return
  BOOST_TEST((device.query(event) == Status::kAgain));
  device.stall(stream, false);
  device.hold_events(true);
  BOOST_TEST(device.pump() == 2u);
  BOOST_TEST((device.query(event) == Status::kAgain));
  device.hold_events(false);
  device.set_spurious(256);
  BOOST_TEST((device.query(event) == Status::kAgain));
  device.set_spurious(0);
  BOOST_TEST((device.query(event) == Status::kOk));

  device.delay_events(3);
  bool late = false;
  for (int i = 0; i < 20; ++i) {
    BOOST_TEST_REQUIRE((device.record(event, stream) == Status::kOk));
    int queries = 1;
    while (device.query(event) == Status::kAgain) ++queries;
    BOOST_TEST(queries <= 4);
    late = late || queries > 1;
  }
  BOOST_TEST(late);

  device.set_capturing(stream, true);
  bool capturing = false;
  BOOST_TEST((device.is_capturing(stream, &capturing) == Status::kOk));
  BOOST_TEST(capturing);
  device.destroy_event(event);
  BOOST_TEST(device.misuses() == 0u);
}

BOOST_AUTO_TEST_CASE(the_adversary_fails_the_call_that_it_is_told_to) {
  using Call = AdversaryDevice::Call;
  AdversaryDevice device(4);
  const Stream stream = device.add_stream();
  Event event = new_event(device);
  const struct {
    Call call;
    std::function<Status()> run;
  } cases[] = {
      {Call::kRecord, [&] { return device.record(event, stream); }},
      {Call::kQuery, [&] { return device.query(event); }},
      {Call::kStreamWait, [&] { return device.stream_wait_event(stream, event); }},
      {Call::kLaunch, [&] { return device.launch(stream, Task([] {})); }},
      {Call::kCopy, [&] { return device.copy(nullptr, nullptr, 0, stream); }},
      {Call::kZero, [&] { return device.zero(nullptr, 0, stream); }},
      {Call::kCapturing,
       [&] {
         bool capturing = false;
         return device.is_capturing(stream, &capturing);
       }},
      {Call::kCreateEvent,
       [&] {
         Event more = 0;
         const Status status = device.create_event(&more);
         device.destroy_event(more);
         return status;
       }},
  };
  for (const auto &one : cases) {
    BOOST_TEST_CONTEXT("call " << static_cast<int>(one.call)) {
      device.fail(one.call, 2, Status::kDevice, 2);
      const uint64_t before = device.calls(one.call);
      BOOST_TEST((one.run() == Status::kOk));
      const size_t pending = device.pending();
      BOOST_TEST((one.run() == Status::kDevice));
      BOOST_TEST((one.run() == Status::kDevice));
      BOOST_TEST(device.pending() == pending);  // a call that fails has done nothing
      device.pump();
      BOOST_TEST((one.run() == Status::kOk));
      BOOST_TEST(device.calls(one.call) == before + 4);
      device.pump();
    }
  }
  device.fail(Call::kLaunch, 1, Status::kNomem, UINT64_MAX);
  BOOST_TEST((device.launch(nullptr, Task([] {})) == Status::kNomem));
  device.fail_nothing();
  BOOST_TEST((device.launch(nullptr, Task([] {})) == Status::kOk));
  device.destroy_event(event);
  BOOST_TEST(device.misuses() == 0u);
  device.destroy_event(event);
  BOOST_TEST(device.misuses() == 1u);
  BOOST_TEST((device.query(event) == Status::kInvalid));
  BOOST_TEST(device.misuses() == 2u);
}
