// The event ring under the scheduler: readers see whole events in the order of their numbers and miss
// none but what they count, each poll's event is nobody else's, and a thread stopped anywhere stops
// nobody.
#define BOOST_TEST_MODULE model_event_ring
#define BOOST_TEST_DYN_LINK
#include "runtime/event_ring.h"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include "tests/support/scheduler.h"

using namespace quire;
using namespace quire::model;

namespace {

// Two words a record: whether they belong together is seen.
template <uint32_t kSlots>
struct World {
  using Ring = BasicEventRing<ModelAtomics, kSlots, 2>;
  struct Free {
    void operator()(void *at) const { std::free(at); }
  };

  World() : memory(std::aligned_alloc(64, align_up(Ring::bytes(), 64))), ring(memory.get()) {
    ring.format();
    ring.poll_nothing();
  }
  void push(uint64_t what) {
    const bool done = ring.push({what, ~what});
    ++pushed;
    kept += done ? 1U : 0U;
  }
  void judge(const typename Ring::Words &words, uint64_t number) {
    require(words[1] == ~words[0], "a record in pieces");
    const auto [at, fresh] = told.emplace(number, words[0]);
    require(fresh || at->second == words[0], "two readers saw two events of one number");
  }
  bool poll() {
    typename Ring::Words words;
    uint64_t number = 0;
    if (!ring.poll(&words, &number)) return false;
    judge(words, number);
    polled.push_back(number);
    return true;
  }
  struct Reader {
    uint64_t place = 1, lost = 0, got = 0, last = 0;
  };
  bool read(Reader &r) {
    typename Ring::Words words;
    if (!ring.read(&r.place, &words, &r.lost)) return false;
    judge(words, r.place - 1);
    require(r.place - 1 > r.last, "numbers fell");
    r.last = r.place - 1;
    ++r.got;
    return true;
  }
  void check_at_rest() {
    while (poll()) {
    }
    require(ring.validate(), "ring invalid");
    require(ring.numbered() == pushed, "a number is missing");
    require(polled.size() + ring.dropped() == pushed, "polls: an event got lost uncounted");
    std::sort(polled.begin(), polled.end());
    require(std::adjacent_find(polled.begin(), polled.end()) == polled.end(),
            "an event was polled twice");
    Reader late;
    while (read(late)) {
    }
    require(late.got + late.lost == pushed, "a reader: an event got lost uncounted");
    require(told.size() <= kept, "an event that found no place was told");
  }

  std::unique_ptr<void, Free> memory;
  Ring ring;
  uint64_t pushed = 0, kept = 0;
  std::map<uint64_t, uint64_t> told;  // number, event
  std::vector<uint64_t> polled;
};

}  // namespace

BOOST_AUTO_TEST_CASE(readers_and_polls_see_whole_events_in_order_and_count_the_rest) {
  const uint64_t seeds = for_each_seed(10000, [](uint64_t seed) {
    World<2> world;
    Scheduler s(seed, 2 + static_cast<uint32_t>(seed % 5));
    for (uint64_t t = 0; t < 3; ++t) {
      s.spawn([&world, t] {
        for (uint64_t i = 0; i < 4; ++i) world.push(t * 100 + i + 1);
      });
    }
    s.spawn([&world] {
      for (int i = 0; i < 6; ++i) world.poll();
    });
    s.spawn([&world] {
      World<2>::Reader reader;
      for (int i = 0; i < 8; ++i) world.read(reader);
      require(reader.got + reader.lost == reader.place - 1, "a reader: uncounted");
    });
    s.run();
    world.check_at_rest();
  });
  BOOST_TEST(seeds != 0U);
}

BOOST_AUTO_TEST_CASE(two_pushes_and_a_reader_in_every_order) {
  const uint64_t executions = explore(4, [](Scheduler &s) {
    World<1> world;
    world.push(7);
    s.spawn([&] { world.push(1); });
    s.spawn([&] { world.push(2); });
    s.spawn([&] {
      World<1>::Reader reader;
      world.read(reader);
    });
    s.run();
    world.check_at_rest();
  });
  BOOST_TEST(executions > 100U);
}

// Promise 6, for events: whoever is stopped, the others' pushes and polls return.
BOOST_AUTO_TEST_CASE(a_thread_stopped_at_any_atomic_stops_nobody) {
  uint64_t stops = 0, read = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    World<2> world;
    Scheduler s(seed + 1, 4);
    const bool push_stops = seed % 2 == 0;
    const uint32_t stopped = s.spawn([&] {
      for (uint64_t i = 0; i < 3; ++i) {
        if (push_stops) {
          world.ring.push({i, ~i});
        } else {
          world.poll();
        }
      }
    });
    uint64_t returned = 0;
    for (uint64_t t = 0; t < 2; ++t) {
      s.spawn([&, t] {
        World<2>::Reader reader;
        for (uint64_t i = 0; i < 12; ++i) {
          world.ring.push({t * 100 + i, ~(t * 100 + i)});
          world.poll();
          read += world.read(reader) ? 1U : 0U;
          ++returned;
        }
      });
    }
    const uint64_t n = seed / 2 % 12;
    s.stop(stopped, n);
    s.run();
    require(returned == 24, "somebody waited");
    stops += s.steps(stopped) > n ? 1U : 0U;
  }
  BOOST_TEST(stops > 200U);
  BOOST_TEST(read > 400U);  // past the one that is stopped
}
