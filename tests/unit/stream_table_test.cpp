// Streams as readers and writers, over a device that completes late, never, or fails.
#define BOOST_TEST_MODULE unit_stream_table
#define BOOST_TEST_DYN_LINK
#include "runtime/stream_table.h"

#include <boost/test/unit_test.hpp>
#include <memory>
#include <random>
#include <vector>

#include "tests/support/adversary_device.h"
#include "tests/support/reclaim_world.h"

using namespace quire;
using namespace quire::test;
using Call = AdversaryDevice::Call;

namespace {

struct World {
  explicit World(uint32_t capacity = 4)
      : device(1),
        clock_memory(region_memory(EpochClock<>::bytes(1))),
        memory(region_memory(StreamTable<>::bytes(capacity))),
        clock(clock_memory.get(), 1),
        streams(memory.get(), capacity, clock, &device) {
    clock.format();
    streams.format();
  }
  ~World() {
    streams.close();
    BOOST_TEST(device.living_events() == 0U);
    BOOST_TEST(device.misuses() == 0U);
  }
  Stream add(uint32_t *slot, uint32_t flags = 0) {
    const Stream stream = device.add_stream();
    BOOST_REQUIRE((streams.add(stream, 0, flags, slot) == Status::kOk));
    return stream;
  }
  void work(Stream stream) {
    BOOST_REQUIRE((device.launch(stream, [] {}) == Status::kOk));
  }

  AdversaryDevice device;
  Memory clock_memory, memory;
  EpochClock<> clock;
  StreamTable<> streams;
};

}  // namespace

BOOST_AUTO_TEST_CASE(without_streams_the_present_epoch_has_passed) {
  World w;
  BOOST_TEST(w.streams.min_passed() == w.clock.now());
  w.clock.advance();
  BOOST_TEST(w.streams.min_passed() == w.clock.now());
}

BOOST_AUTO_TEST_CASE(a_new_stream_has_passed_what_ended_before_it) {
  World w;
  uint32_t slot;
  const uint64_t before = w.clock.now();
  w.add(&slot);
  BOOST_TEST(w.streams.passed(slot) == before);
  BOOST_TEST(w.streams.min_passed() == before);
  BOOST_TEST(w.clock.now() == before + 1);
}

BOOST_AUTO_TEST_CASE(ambiguous_and_twice_registered_streams_are_refused) {
  World w;
  uint32_t slot;
  for (const uintptr_t handle : {0U, 1U, 2U}) {
    const auto stream = reinterpret_cast<Stream>(handle);
    BOOST_TEST((w.streams.add(stream, 0, 0, &slot) == Status::kInvalid));
  }
  const Stream stream = w.add(&slot);
  BOOST_TEST((w.streams.add(stream, 0, 0, &slot) == Status::kInvalid));
  BOOST_TEST((w.streams.remove(w.device.add_stream()) == Status::kInvalid));
  for (int i = 0; i < 3; ++i) w.add(&slot);
  BOOST_TEST((w.streams.add(w.device.add_stream(), 0, 0, &slot) == Status::kNomem));
  BOOST_TEST(w.streams.readers() == 4U);
  BOOST_TEST(w.streams.validate());
}

BOOST_AUTO_TEST_CASE(nothing_is_recorded_while_nothing_waits) {
  World w;
  uint32_t slot;
  w.work(w.add(&slot));
  for (int i = 0; i < 10; ++i) w.streams.step();
  BOOST_TEST(w.device.calls(Call::kRecord) == 0U);
  w.streams.need();
  for (int i = 0; i < 10; ++i) w.streams.step();
  BOOST_TEST(w.device.calls(Call::kRecord) == 1U);  // One is enough for what waited.
  w.streams.need();
  w.streams.step();
  BOOST_TEST(w.device.calls(Call::kRecord) == 2U);
}

BOOST_AUTO_TEST_CASE(a_stream_passes_an_epoch_when_the_work_before_its_end_is_done) {
  World w;
  uint32_t slot;
  const Stream stream = w.add(&slot);
  w.work(stream);
  const uint64_t released = w.clock.now();
  w.streams.need();
  w.streams.step();
  w.streams.poll();
  BOOST_TEST(w.streams.min_passed() < released);
  w.work(stream);  // later work does not count
  w.device.pump(1);
  BOOST_TEST(w.streams.poll() == 1U);
  BOOST_TEST(w.streams.min_passed() == released);
  BOOST_TEST(w.streams.validate());
}

// An event that is recorded again and again would never be done.
BOOST_AUTO_TEST_CASE(a_stream_that_is_always_busy_passes_nevertheless) {
  World w;
  uint32_t slot;
  const Stream stream = w.add(&slot);
  for (int i = 0; i < 6; ++i) w.work(stream);
  uint64_t lag = 0;
  for (int i = 0; i < 200; ++i) {
    w.work(stream);
    w.streams.need();
    w.streams.step();
    w.device.pump(1);  // It stays six behind.
    w.streams.poll();
    if (i > 20) lag = std::max(lag, w.clock.now() - w.streams.passed(slot));
  }
  BOOST_TEST(lag < 20U);
}

BOOST_AUTO_TEST_CASE(a_stalled_stream_is_named_and_delays_only_itself) {
  World w;
  uint32_t slow, quick;
  const Stream stalled = w.add(&slow);
  const Stream other = w.add(&quick);
  w.work(stalled);
  w.work(other);
  w.device.stall(stalled, true);
  for (int i = 0; i < 5; ++i) {
    w.streams.need();
    w.streams.step();
    w.device.pump();
    w.streams.poll();
  }
  BOOST_TEST(w.streams.passed(quick) == w.clock.now() - 1);
  BOOST_TEST(w.streams.min_passed() == w.streams.passed(slow));
  BOOST_TEST(w.streams.min_passed_except(slow) == w.streams.passed(quick));
  const SlowestReader slowest = w.streams.slowest();
  BOOST_TEST(slowest.slot == slow);
  BOOST_TEST(slowest.stream == stalled);
  BOOST_TEST(slowest.lag >= 4U);
  BOOST_TEST(slowest.waited_for);
  w.device.stall(stalled, false);
  w.device.pump();
  w.streams.poll();
  BOOST_TEST(w.streams.slowest().lag <= 1U);
}

BOOST_AUTO_TEST_CASE(a_capturing_stream_has_not_passed_and_gets_no_event) {
  World w;
  uint32_t slot;
  const Stream stream = w.add(&slot);
  w.device.set_capturing(stream, true);
  const uint64_t waited = w.clock.now();
  w.streams.need();
  w.streams.step();
  w.streams.poll();
  BOOST_TEST(w.device.calls(Call::kRecord) == 0U);
  BOOST_TEST(w.streams.passed(slot) < waited);
  BOOST_TEST((w.streams.remove(stream) == Status::kBusy));
  w.device.set_capturing(stream, false);
  w.streams.step();
  w.streams.poll();
  BOOST_TEST(w.streams.passed(slot) >= waited);
}

BOOST_AUTO_TEST_CASE(the_timer_records_on_background_streams_only) {
  World w;
  uint32_t front, back;
  w.add(&front);
  w.add(&back, StreamTable<>::kBackground);
  const uint64_t waited = w.clock.now();
  w.streams.need();
  w.streams.step(true);
  w.streams.poll();
  BOOST_TEST(w.streams.passed(back) >= waited);
  BOOST_TEST(w.streams.passed(front) < waited);
  BOOST_TEST(w.device.calls(Call::kRecord) == 1U);
}

BOOST_AUTO_TEST_CASE(a_removed_stream_stays_a_reader_until_its_work_is_done) {
  World w;
  uint32_t slot, next;
  const Stream stream = w.add(&slot);
  w.work(stream);
  const uint64_t released = w.clock.now();
  BOOST_TEST((w.streams.remove(stream) == Status::kOk));
  BOOST_TEST(w.streams.find(stream) == kNone);
  BOOST_TEST((w.streams.remove(stream) == Status::kInvalid));
  BOOST_TEST(w.streams.readers() == 1U);
  BOOST_TEST(w.streams.min_passed() < released);
  // It may come back meanwhile, as another reader.
  BOOST_TEST((w.streams.add(stream, 0, 0, &next) == Status::kOk));
  BOOST_TEST(next != slot);
  w.device.pump();
  w.streams.poll();
  BOOST_TEST(w.streams.readers() == 1U);
  BOOST_TEST(w.streams.min_passed() >= released);
  BOOST_TEST(w.streams.ready(slot, released));
  BOOST_TEST(w.streams.validate());
}

BOOST_AUTO_TEST_CASE(an_idle_stream_is_gone_as_it_is_removed) {
  World w;
  uint32_t slot;
  BOOST_TEST((w.streams.remove(w.add(&slot)) == Status::kOk));
  BOOST_TEST(w.streams.readers() == 0U);
}

BOOST_AUTO_TEST_CASE(a_reader_waits_for_a_writer_once_that_is_recorded) {
  World w;
  uint32_t writer, reader;
  const Stream writes = w.add(&writer), reads = w.add(&reader);
  w.work(writes);
  const uint64_t epoch = w.clock.now();
  BOOST_TEST(!w.streams.ready(writer, epoch));
  BOOST_TEST((w.streams.wait_for(writer, epoch, reads) == Status::kAgain));
  w.streams.step();  // having been asked, it records
  BOOST_TEST((w.streams.wait_for(writer, epoch, reads) == Status::kOk));
  BOOST_TEST(w.device.calls(Call::kStreamWait) == 1U);
  w.device.pump();
  w.streams.poll();
  BOOST_TEST(w.streams.ready(writer, epoch));
  BOOST_TEST((w.streams.wait_for(writer, epoch, reads) == Status::kOk));
  BOOST_TEST(w.device.calls(Call::kStreamWait) == 1U);  // Nothing to wait for.
}

// Whatever call fails, and whichever of its turns: counted, nothing passes early, and the next try
// works.
BOOST_AUTO_TEST_CASE(every_failing_device_call_leaves_the_table_as_it_was) {
  for (const Call call :
       {Call::kCreateEvent, Call::kRecord, Call::kQuery, Call::kCapturing, Call::kStreamWait}) {
    for (uint64_t nth = 1; nth <= 5; ++nth) {
      World w;
      w.device.fail(call, nth, Status::kDevice);
      uint32_t slot = kNone, other = kNone;
      const Stream stream = w.device.add_stream(), reads = w.device.add_stream();
      while (w.streams.add(stream, 0, 0, &slot) != Status::kOk) {
        BOOST_TEST(w.streams.readers() == 0U);
        BOOST_TEST(w.streams.min_passed() == w.clock.now());
      }
      while (w.streams.add(reads, 0, 0, &other) != Status::kOk) BOOST_TEST(w.streams.validate());
      w.work(stream);
      const uint64_t released = w.clock.now();
      w.streams.need();
      w.streams.step();
      static_cast<void>(w.streams.wait_for(slot, released, reads));
      w.streams.poll();
      BOOST_TEST(w.streams.min_passed() < released);
      w.device.pump();
      for (int i = 0; i < 3; ++i) {
        w.streams.step();
        w.streams.poll();
      }
      BOOST_TEST(w.streams.min_passed() >= released, "call " << int(call) << " turn " << nth);
      while (w.streams.remove(stream) != Status::kOk) BOOST_TEST(w.streams.find(stream) == slot);
      for (int i = 0; i < 3; ++i) w.streams.poll();
      BOOST_TEST(w.streams.readers() == 1U);
      BOOST_TEST(w.streams.validate());
    }
  }
}

// Late, out of order between streams, and now and then "not yet" for no reason.
BOOST_AUTO_TEST_CASE(epochs_pass_in_order_whatever_the_device_does) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    World w(3);
    std::mt19937_64 random(seed);
    w.device.delay_events(static_cast<unsigned>(random() % 5));
    w.device.set_spurious(64);
    std::vector<Stream> streams;
    std::vector<uint32_t> slots(3);
    for (auto &slot : slots) streams.push_back(w.add(&slot));
    // Per stream: the epoch of each release, and the device's position that it must be behind.
    struct Use {
      uint64_t epoch, position;
    };
    std::vector<std::vector<Use>> uses(3);
    for (uint32_t i = 0; i < 300; ++i) {
      const size_t s = random() % 3;
      if (random() % 2 == 0) {
        w.work(streams[s]);
        uses[s].push_back({w.clock.now(), w.device.position(streams[s])});
      } else if (random() % 3 == 0) {
        w.device.step();
      } else {
        w.streams.need();
        w.streams.step();
        w.streams.poll();
      }
      for (size_t k = 0; k < 3; ++k) {
        for (const Use &use : uses[k]) {
          const bool done = w.device.completed(streams[k]) >= use.position;
          BOOST_TEST_REQUIRE((done || w.streams.passed(slots[k]) < use.epoch), "seed " << seed);
        }
      }
    }
    w.device.pump();
    w.device.set_spurious(0);
    w.streams.need();
    w.streams.step();
    for (int i = 0; i < 40; ++i) w.streams.poll();
    BOOST_TEST_REQUIRE(w.streams.min_passed() == w.clock.now() - 1, "seed " << seed);
  }
}

BOOST_AUTO_TEST_CASE(on_a_lost_device_every_stream_has_passed_and_can_be_removed) {
  World w;
  uint32_t a, b;
  const Stream first = w.add(&a);
  const Stream second = w.add(&b);
  w.work(first);
  w.work(second);
  const uint64_t retired = w.clock.now();
  w.streams.want(retired);
  w.streams.step();
  BOOST_TEST((w.streams.remove(second) == Status::kOk));
  w.streams.poll();
  BOOST_TEST(w.streams.min_passed() < retired);
  BOOST_TEST(w.streams.readers() == 2U);

  w.device.lose();
  const uint64_t later = w.clock.now();  // no event marks this epoch, and none ever will
  w.streams.want(later);
  w.streams.step();
  BOOST_TEST(w.streams.poll() == 2U);
  BOOST_TEST(w.streams.min_passed() >= later);
  BOOST_TEST(w.streams.readers() == 1U);
  BOOST_TEST((w.streams.remove(first) == Status::kOk));
  BOOST_TEST(w.streams.readers() == 0U);
  BOOST_TEST(w.streams.validate());
}
