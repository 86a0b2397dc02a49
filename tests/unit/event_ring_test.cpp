// The event ring: order, laps, what is lost; readers of their own; and with real threads, every event
// once to those who poll, whole and in order to those who read.
#define BOOST_TEST_MODULE unit_event_ring
#define BOOST_TEST_DYN_LINK
#include "runtime/event_ring.h"

#include <algorithm>
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

EventRing::Words event(uint64_t n) {
  return {n, n * 2, n * 3, ~n, n ^ 77, n + 5, n * n};
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(nothing_is_kept_or_counted_before_somebody_follows, World<SmallRing>) {
  for (uint64_t i = 0; i < 10; ++i) BOOST_TEST(!ring.push(event(i)));
  BOOST_TEST(!ring.started());
  SmallRing::Words out;
  uint64_t number = 0;
  BOOST_TEST(!ring.poll(&out, &number));
  BOOST_TEST(ring.started());
  BOOST_TEST(ring.dropped() == 0U);
  BOOST_TEST(ring.numbered() == 0U);
}

BOOST_FIXTURE_TEST_CASE(a_record_survives_its_words, World<SmallRing>) {
  EventRecord r;
  r.kind = 2;
  r.reason = 5;
  r.tier = 1;
  r.index = 0xdeadbeef;
  r.epoch = 0xfffffffe;
  r.space = 77;
  r.page = 0x80000001;
  r.life = 0x3ffff;
  r.key = Key{1, UINT64_MAX};
  r.parent = Key{UINT64_MAX - 1, 3};
  const EventRecord back = EventRecord::of(r.words());
  BOOST_TEST(back.words() == r.words(), boost::test_tools::per_element());
  BOOST_TEST(back.kind == 2U);
  BOOST_TEST(back.reason == 5U);
  BOOST_TEST(back.tier == 1U);
  BOOST_TEST(back.index == r.index);
  BOOST_TEST(back.epoch == r.epoch);
  BOOST_TEST(back.space == r.space);
  BOOST_TEST(back.page == r.page);
  BOOST_TEST(back.life == r.life);
  BOOST_TEST((back.key == r.key && back.parent == r.parent));
}

BOOST_FIXTURE_TEST_CASE(events_come_whole_in_order_with_rising_numbers, World<SmallRing>) {
  ring.poll_nothing();
  uint64_t next = 0, number = 0;
  for (uint64_t round = 0; round < 3000; ++round) {  // far beyond a lap of the ring
    const uint64_t n = 1 + round % 4;
    for (uint64_t i = 0; i < n; ++i) BOOST_REQUIRE(ring.push(event(next + i)));
    for (uint64_t i = 0; i < n; ++i, ++next) {
      SmallRing::Words out;
      BOOST_REQUIRE(ring.poll(&out, &number));
      BOOST_REQUIRE_EQUAL(number, next + 1);
      BOOST_REQUIRE(out == event(next));
    }
  }
  BOOST_TEST(ring.dropped() == 0U);
  BOOST_TEST(ring.validate());
}

BOOST_FIXTURE_TEST_CASE(the_newest_stay_and_what_is_lost_is_counted, World<SmallRing>) {
  ring.poll_nothing();
  for (uint64_t i = 1; i <= 7; ++i) BOOST_TEST(ring.push(event(i)));
  BOOST_TEST(ring.dropped() == 3U);
  SmallRing::Words out;
  uint64_t number = 0;
  for (uint64_t i = 4; i <= 7; ++i) {
    BOOST_REQUIRE(ring.poll(&out, &number));
    BOOST_TEST(number == i);
    BOOST_TEST((out == event(i)));
  }
  BOOST_TEST(!ring.poll(&out, &number));
  BOOST_TEST(ring.dropped() == 3U);
  BOOST_TEST(ring.numbered() == 7U);
  BOOST_TEST(ring.validate());
}

BOOST_FIXTURE_TEST_CASE(readers_have_places_of_their_own, World<SmallRing>) {
  ring.start();
  ring.push(event(1));
  uint64_t early = ring.begin(), late = 0, lost = 0;
  BOOST_TEST(early == 2U);
  for (uint64_t i = 2; i <= 4; ++i) ring.push(event(i));
  late = ring.begin();
  SmallRing::Words out;
  for (uint64_t i = 2; i <= 4; ++i) {
    BOOST_REQUIRE(ring.read(&early, &out, &lost));
    BOOST_TEST((out == event(i)));
  }
  BOOST_TEST(!ring.read(&early, &out, &lost));
  BOOST_TEST(!ring.read(&late, &out, &lost));
  BOOST_TEST(lost == 0U);
  // One comes too late.
  for (uint64_t i = 5; i <= 12; ++i) ring.push(event(i));
  BOOST_REQUIRE(ring.read(&late, &out, &lost));
  BOOST_TEST((out == event(9)));
  BOOST_TEST(lost == 4U);
  BOOST_TEST(ring.dropped() == 0U);  // nobody polls
}

// A place that no event has: of a damaged mapping, or a caller's invention.
BOOST_FIXTURE_TEST_CASE(any_place_is_survived, World<SmallRing>) {
  ring.start();
  for (uint64_t i = 1; i <= 9; ++i) ring.push(event(i));
  for (uint64_t place : {uint64_t{1}, uint64_t{10}, uint64_t{11}, UINT64_MAX >> 2, UINT64_MAX}) {
    SmallRing::Words out;
    uint64_t lost = 0;
    for (int i = 0; i < 10 && ring.read(&place, &out, &lost); ++i) {
    }
  }
  BOOST_TEST(ring.validate());
}

BOOST_FIXTURE_TEST_CASE(with_threads_polls_get_each_event_once_and_readers_all_in_order,
                        World<EventRing>) {
  constexpr uint64_t kProducers = 3, kPollers = 2, kReaders = 2;
  constexpr uint64_t kEvents = 30000;
  ring.poll_nothing();
  std::atomic<uint64_t> producing{kProducers}, kept{0}, wrong{0}, unread{0};
  std::vector<std::vector<uint64_t>> seen(kPollers);
  std::vector<std::thread> threads;
  for (uint64_t p = 0; p < kProducers; ++p) {
    threads.emplace_back([&, p] {
      uint64_t mine = 0;
      for (uint64_t i = 0; i < kEvents; ++i) mine += ring.push(event(p * kEvents + i)) ? 1U : 0U;
      kept += mine;
      --producing;
    });
  }
  for (auto &numbers : seen) {
    threads.emplace_back([&] {
      EventRing::Words out;
      uint64_t number = 0;
      for (bool last = false;;) {
        if (ring.poll(&out, &number)) {
          if (out != event(out[0])) ++wrong;
          numbers.push_back(number);
          continue;
        }
        if (last) return;
        last = producing == 0;  // one more look after the last producer
      }
    });
  }
  for (uint64_t r = 0; r < kReaders; ++r) {
    threads.emplace_back([&] {
      EventRing::Words out;
      uint64_t place = 1, lost = 0, read = 0, last_of[kProducers] = {};
      for (bool last = false;;) {
        if (ring.read(&place, &out, &lost)) {
          if (out != event(out[0])) ++wrong;
          uint64_t &before = last_of[out[0] / kEvents];
          if (before > out[0]) ++wrong;
          before = out[0];
          ++read;
          continue;
        }
        if (last) break;
        last = producing == 0;
      }
      if (read + lost != kProducers * kEvents) ++unread;
    });
  }
  for (auto &thread : threads) thread.join();
  std::set<uint64_t> numbers;
  for (const auto &of_one : seen) {
    BOOST_TEST(std::is_sorted(of_one.begin(), of_one.end()));
    for (const uint64_t n : of_one) BOOST_REQUIRE(numbers.insert(n).second);
  }
  BOOST_TEST(wrong == 0U);
  BOOST_TEST(unread == 0U);
  BOOST_TEST(numbers.size() <= kept.load());
  BOOST_TEST(numbers.size() + ring.dropped() == kProducers * kEvents);
  BOOST_TEST(ring.numbered() == kProducers * kEvents);
  BOOST_TEST(ring.validate());
}
