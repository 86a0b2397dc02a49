// The event ring: order, gaps, drops, laps; and with real threads, every event once.
#define BOOST_TEST_MODULE unit_event_ring
#define BOOST_TEST_DYN_LINK
#include "runtime/event_ring.h"

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <memory>
#include <set>
#include <thread>
#include <vector>

using namespace quire;

namespace {

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};

template <class Ring>
struct World {
  World() : memory(std::aligned_alloc(64, align_up(Ring::bytes(), 64))), ring(memory.get()) {
    ring.format();
  }
  std::unique_ptr<void, Free> memory;
  Ring ring;
};

using SmallRing = BasicEventRing<StdAtomics, 4>;

EventRecord event(uint64_t owner) {
  EventRecord record;
  record.kind = 1;
  record.owner = owner;
  record.epoch = owner * 2;
  record.key = Key{owner * 3, ~owner};
  return record;
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(nothing_is_kept_or_counted_before_the_first_poll, World<SmallRing>) {
  for (uint64_t i = 0; i < 10; ++i) BOOST_TEST(!ring.push(event(i)));
  BOOST_TEST(!ring.started());
  EventRecord out[4];
  BOOST_TEST(ring.poll(out, 4) == 0U);
  BOOST_TEST(ring.started());
  BOOST_TEST(ring.dropped() == 0U);
  BOOST_TEST(ring.numbered() == 0U);
}

BOOST_FIXTURE_TEST_CASE(a_poll_without_room_starts_it_too, World<SmallRing>) {
  BOOST_TEST(ring.poll(nullptr, 0) == 0U);
  BOOST_TEST(ring.push(event(1)));
}

BOOST_FIXTURE_TEST_CASE(events_come_whole_in_order_with_rising_numbers, World<SmallRing>) {
  ring.poll(nullptr, 0);
  uint64_t owner = 0, number = 0;
  for (int round = 0; round < 3000; ++round) {  // far beyond a lap of the ring
    const int n = 1 + round % 4;
    for (int i = 0; i < n; ++i) BOOST_REQUIRE(ring.push(event(owner + static_cast<uint64_t>(i))));
    EventRecord out[8];
    BOOST_REQUIRE_EQUAL(ring.poll(out, 8), static_cast<size_t>(n));
    for (int i = 0; i < n; ++i, ++owner) {
      BOOST_REQUIRE_EQUAL(out[i].sequence, ++number);
      BOOST_REQUIRE_EQUAL(out[i].owner, owner);
      BOOST_REQUIRE_EQUAL(out[i].epoch, owner * 2);
      BOOST_REQUIRE(out[i].key == (Key{owner * 3, ~owner}));
    }
  }
  BOOST_TEST(ring.dropped() == 0U);
  BOOST_TEST(ring.validate());
}

BOOST_FIXTURE_TEST_CASE(a_full_ring_drops_the_new_and_leaves_a_gap, World<SmallRing>) {
  ring.poll(nullptr, 0);
  for (uint64_t i = 1; i <= 4; ++i) BOOST_TEST(ring.push(event(i)));
  for (uint64_t i = 5; i <= 7; ++i) BOOST_TEST(!ring.push(event(i)));
  BOOST_TEST(ring.dropped() == 3U);
  EventRecord out[8];
  BOOST_TEST(ring.poll(out, 1) == 1U);
  BOOST_TEST(out[0].sequence == 1U);
  BOOST_TEST(ring.push(event(8)));
  BOOST_TEST(ring.poll(out, 8) == 4U);
  BOOST_TEST(out[2].sequence == 4U);
  BOOST_TEST(out[3].sequence == 8U);  // 5, 6 and 7 are the gap
  BOOST_TEST(out[3].owner == 8U);
  BOOST_TEST(ring.numbered() == 8U);
  BOOST_TEST(ring.validate());
}

BOOST_FIXTURE_TEST_CASE(positions_wrap_and_numbers_go_on, World<SmallRing>) {
  ring.poll(nullptr, 0);
  EventRecord out;
  constexpr uint64_t kPositions = (uint64_t{1} << 20) + 1000;
  for (uint64_t i = 1; i <= kPositions; ++i) {
    if (!ring.push(event(i)) || ring.poll(&out, 1) != 1 || out.sequence != i) {
      BOOST_FAIL("event " << i);
    }
  }
  BOOST_TEST(ring.validate());
}

BOOST_FIXTURE_TEST_CASE(with_threads_every_event_comes_once_and_gaps_are_drops, World<EventRing>) {
  constexpr int kProducers = 3, kPollers = 2;
  constexpr uint64_t kEvents = 30000;
  ring.poll(nullptr, 0);
  std::atomic<int> producing{kProducers};
  std::atomic<uint64_t> kept{0};
  std::vector<std::vector<EventRecord>> seen(kPollers);
  std::vector<std::thread> threads;
  for (uint64_t p = 0; p < kProducers; ++p) {
    threads.emplace_back([&, p] {
      uint64_t mine = 0;
      for (uint64_t i = 0; i < kEvents; ++i) mine += ring.push(event(p * kEvents + i)) ? 1U : 0U;
      kept += mine;
      --producing;
    });
  }
  for (auto &records : seen) {
    threads.emplace_back([&] {
      EventRecord out[64];
      for (bool last = false;;) {
        const size_t n = ring.poll(out, 64);
        records.insert(records.end(), out, out + n);
        if (n == 0 && last) return;
        if (n == 0) last = producing == 0;  // one more look after the last producer
      }
    });
  }
  for (auto &thread : threads) thread.join();
  std::set<uint64_t> numbers, owners;
  for (const auto &records : seen) {
    uint64_t before = 0;
    uint64_t last_of[kProducers] = {};
    for (const EventRecord &r : records) {
      BOOST_REQUIRE_LT(before, r.sequence);
      before = r.sequence;
      BOOST_REQUIRE(r.key == (Key{r.owner * 3, ~r.owner}));
      uint64_t &last = last_of[r.owner / kEvents];
      BOOST_REQUIRE_LE(last, r.owner);
      last = r.owner;
      BOOST_REQUIRE(numbers.insert(r.sequence).second);
      BOOST_REQUIRE(owners.insert(r.owner).second);
    }
  }
  BOOST_TEST(numbers.size() == kept);
  BOOST_TEST(numbers.size() + ring.dropped() == kProducers * kEvents);
  BOOST_TEST(ring.numbered() == kProducers * kEvents);
  BOOST_TEST(ring.validate());
}
