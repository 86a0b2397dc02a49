// What every Device must do (runtime/device.h), whatever makes its streams and whoever drives them.
#pragma once

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <array>
#include <functional>
#include <vector>

#include "runtime/device.h"

namespace quire::test {

struct DeviceContract {
  Device *device;
  std::function<Stream()> make_stream;
  std::function<void(Stream)> drop_stream;
  // Of a device without CPU kernels: how a host function gets into a stream.
  std::function<Status(Stream, const Task &)> launch = {};
  // 128 bytes that host and device both see; nullptr: the host's own will do.
  char *memory = nullptr;
  // Whether it recognises a handle that is made up or gone; CUDA follows it.
  bool knows_handles = true;

  Status run(Stream stream, const Task &task) const {
    return launch ? launch(stream, task) : device->launch(stream, task);
  }
};

// Waits by asking, for devices that complete work by themselves; wait_stream drives the others.
inline Status settle(Device &device, Event event, Stream stream) {
  Status status = device.wait_stream(stream);
  for (unsigned tries = 0; status == Status::kOk && tries < 1000; ++tries) {
    status = device.query(event);
    if (status != Status::kAgain) return status;
    status = Status::kOk;
  }
  return status == Status::kOk ? Status::kAgain : status;
}

inline void check_handles(const DeviceContract &contract) {
  Device &device = *contract.device;
  for (const uintptr_t ambiguous : {0u, 1u, 2u}) {
    BOOST_TEST((device.validate_stream(reinterpret_cast<Stream>(ambiguous)) == Status::kInvalid));
  }
  int local = 0;
  if (contract.knows_handles) {
    BOOST_TEST((device.validate_stream(&local) == Status::kInvalid));
  }
  const Stream stream = contract.make_stream();
  BOOST_TEST((device.validate_stream(stream) == Status::kOk));
  bool capturing = true;
  BOOST_TEST((device.is_capturing(stream, &capturing) == Status::kOk));
  BOOST_TEST(!capturing);
  contract.drop_stream(stream);
  Event event = 0;
  BOOST_TEST_REQUIRE((device.create_event(&event) == Status::kOk));
  device.destroy_event(0);
  if (!contract.knows_handles) {
    device.destroy_event(event);
    return;
  }
  BOOST_TEST((device.validate_stream(stream) == Status::kInvalid));
  BOOST_TEST((device.record(event, stream) == Status::kInvalid));
  BOOST_TEST((device.stream_wait_event(stream, event) == Status::kInvalid));
  BOOST_TEST((device.launch(stream, Task([] {})) == Status::kInvalid));
  BOOST_TEST((device.wait_stream(stream) == Status::kInvalid));
  device.destroy_event(event);
}

inline void check_order_and_visibility(const DeviceContract &contract) {
  Device &device = *contract.device;
  const Stream stream = contract.make_stream();
  std::vector<int> order;  // written by the stream's tasks alone, read once the event has passed
  Event event = 0;
  BOOST_TEST_REQUIRE((device.create_event(&event) == Status::kOk));
  BOOST_TEST((device.query(event) == Status::kOk));  // never recorded
  for (int i = 0; i < 100; ++i) {
    std::vector<int> *const to = &order;
    BOOST_TEST_REQUIRE((contract.run(stream, Task([to, i] { to->push_back(i); })) == Status::kOk));
  }
  BOOST_TEST_REQUIRE((device.record(event, stream) == Status::kOk));
  BOOST_TEST_REQUIRE((settle(device, event, stream) == Status::kOk));
  BOOST_TEST_REQUIRE(order.size() == 100u);
  for (int i = 0; i < 100; ++i) BOOST_TEST(order[static_cast<size_t>(i)] == i);

  // Work without a stream runs in the call.
  int ran = 0;
  int *const counter = &ran;
  if (!contract.launch) {
    BOOST_TEST((device.launch(nullptr, Task([counter] { ++*counter; })) == Status::kOk));
    BOOST_TEST(ran == 1);
    BOOST_TEST((device.launch(stream, Task()) == Status::kInvalid));
  }

  std::array<char, 128> local{};
  char *const from = contract.memory != nullptr ? contract.memory : local.data();
  char *const to = from + 64;
  std::fill_n(from, 64, 'q');
  std::fill_n(to, 64, '\0');
  BOOST_TEST((device.copy(to, from, 48, stream) == Status::kOk));
  BOOST_TEST((device.zero(to + 8, 8, stream) == Status::kOk));
  BOOST_TEST((device.copy(nullptr, nullptr, 0, stream) == Status::kOk));
  BOOST_TEST((device.wait_stream(stream) == Status::kOk));
  for (size_t i = 0; i < 64; ++i) {
    BOOST_TEST(to[i] == (i < 48 && i / 8 != 1 ? 'q' : '\0'));
  }
  contract.drop_stream(stream);
  BOOST_TEST((device.query(event) == Status::kOk));  // done, though its stream is gone
  device.destroy_event(event);
}

// b waits for what a was given before the wait, however often the event is recorded afterwards.
inline void check_waits(const DeviceContract &contract) {
  Device &device = *contract.device;
  const Stream a = contract.make_stream();
  const Stream b = contract.make_stream();
  Event event = 0;
  BOOST_TEST_REQUIRE((device.create_event(&event) == Status::kOk));
  struct State {
    int first = 0, seen = 0, later = 0;
  } state;
  State *const s = &state;
  for (int round = 1; round <= 50; ++round) {
    BOOST_TEST_REQUIRE((contract.run(a, Task([s, round] { s->first = round; })) == Status::kOk));
    BOOST_TEST_REQUIRE((device.record(event, a) == Status::kOk));
    BOOST_TEST_REQUIRE((device.stream_wait_event(b, event) == Status::kOk));
    // Recorded again on the waiting stream: the wait must not become one for itself.
    BOOST_TEST_REQUIRE((device.record(event, b) == Status::kOk));
    BOOST_TEST_REQUIRE((contract.run(b, Task([s] { s->seen = s->first; })) == Status::kOk));
    BOOST_TEST_REQUIRE((device.record(event, b) == Status::kOk));
    BOOST_TEST_REQUIRE((device.stream_wait_event(a, event) == Status::kOk));
    BOOST_TEST_REQUIRE((contract.run(a, Task([s] { s->later = s->seen; })) == Status::kOk));
    BOOST_TEST_REQUIRE((device.wait_stream(a) == Status::kOk));
    BOOST_TEST(state.seen == round);
    BOOST_TEST(state.later == round);
  }
  contract.drop_stream(a);
  contract.drop_stream(b);
  device.destroy_event(event);
}

inline void check_device(const DeviceContract &contract) {
  check_handles(contract);
  check_order_and_visibility(contract);
  check_waits(contract);
}

}  // namespace quire::test
