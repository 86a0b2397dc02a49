// Calls that are short of frames, under the scheduler: who asks for no more than there is gets it,
// whoever evicts; each is over though another thread is stopped anywhere; whoever has frames finds
// page numbers for them.
#define BOOST_TEST_MODULE model_frame_supply
#define BOOST_TEST_DYN_LINK
#include "runtime/frame_supply.h"

#include <boost/test/unit_test.hpp>
#include <vector>

#include "tests/support/reclaim_world.h"
#include "tests/support/scheduler.h"

using namespace quire;
using namespace quire::model;
using namespace quire::test;

namespace {

using A = ModelAtomics;
constexpr uint32_t kPages = 12;

// A full cache: page numbers and frames, as many of the one as of the other.
template <class Orders = EvictOrders>
class World {
 public:
  // Chains of these lengths; together kPages.
  explicit World(const std::vector<uint32_t> &chains)
      : base(kPages),
        memory_(region_memory(FramePool<A>::bytes(kPages))),
        frames(memory_.get(), kPages) {
    frames.format();
    base.on_retire = [this](const EvictBatch &batch) {
      require(frames.free(batch.frame, batch.n) == batch.n, "a frame was freed twice");
    };
    uint64_t chain = 0;
    for (const uint32_t length : chains) {
      Key key{++chain, 1};
      uint32_t tail = kNone;
      for (uint32_t i = 0; i < length; ++i) {
        uint32_t frame;
        require(frames.reserve(1), "frames");
        frames.take_reserved(1, &frame);
        key = child_key(key, i);
        const uint32_t page = base.publish(tail, key);
        require(page != kNone, "pages");
        base.pages[page].frame.store(frame);
        if (tail != kNone) base.pages.unpin(tail);
        tail = page;
      }
      base.touch_and_unpin(tail);
      base.clock.advance();
    }
  }

  struct Source {
    World &world;
    void refresh() {}
    bool elsewhere(uint64_t) { return false; }
    bool pointless(uint64_t) { return false; }
    uint32_t evict(uint32_t n) { return world.base.reclaimer->reclaim(n); }
    uint32_t evict_closely(uint32_t n) { return world.base.reclaimer->reclaim_closely(n); }
    bool others_inside() const { return world.base.reclaimer->running() != 0; }
    void pause() {}
    uint64_t evictions() const { return world.base.reclaimer->evicted(); }
  };

  Supply reserve(uint32_t n) {
    if (frames.reserve(n, debts.total())) return Supply::kReserved;
    return get_frames(frames, debts, n, Source{*this});
  }

  // As a caller does it, who asks again where another call has some in its hands: frames, then
  // numbers.
  bool get(uint32_t n, std::vector<uint32_t> *out) {
    Supply supply = Supply::kBusy;
    while (supply == Supply::kBusy) supply = reserve(n);
    if (supply == Supply::kRefused) return false;
    require(base.pool.reserve(n), "frames, and no numbers for them");
    std::vector<uint32_t> numbers(n);
    out->resize(n);
    frames.take_reserved(n, out->data());
    base.pool.take_reserved(n, numbers.data());
    return true;
  }

  // Numbers that were given out and not claimed are of pages that are free.
  bool validate() const {
    return debts.validate() && frames.validate() && base.pages.validate() &&
           base.index.validate() && base.pool.validate() && base.reclaimer->validate();
  }

  ReclaimWorld<A, Orders> base;

 private:
  Memory memory_;

 public:
  FramePool<A> frames;
  FrameDebts<A> debts;
};

const std::vector<std::vector<uint32_t>> kShapes = {
    {12}, {6, 6}, {4, 4, 4}, {1, 2, 3, 6}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};

// Needs that add up to what there is: nobody is refused, and all that there was is gone.
template <class Orders>
void satisfiable(uint64_t seed) {
  Random random(seed * 31);
  World<Orders> world(kShapes[random.below(static_cast<uint32_t>(kShapes.size()))]);
  const uint32_t threads = 2 + random.below(3);
  std::vector<std::vector<uint32_t>> got(threads);
  Scheduler s(seed, 2u << random.below(6));
  for (uint32_t t = 0; t < threads; ++t) {
    s.spawn([&, t] { require(world.get(kPages / threads, &got[t]), "refused, though there was"); });
  }
  s.run();
  std::vector<bool> held(kPages);
  for (const auto &frames : got) {
    for (const uint32_t frame : frames) {
      require(!held[frame], "a frame was given twice");
      held[frame] = true;
    }
  }
  require(world.frames.available() == kPages % threads, "more was evicted than asked for");
  require(world.validate(), "invalid");
}

// More is asked for than there is: some are refused, and what remains is then too little for each
// of them. Chains are short, so that no chain is in the hands of one who has had enough.
void too_much(uint64_t seed) {
  Random random(seed * 37);
  World<> world(kShapes[random.below(static_cast<uint32_t>(kShapes.size()))]);
  std::vector<uint32_t> need, refused;
  uint32_t granted = 0;
  std::vector<uint32_t> got[3];
  for (uint32_t t = 0; t < 3; ++t) need.push_back(3 + random.below(kPages));
  Scheduler s(seed, 2u << random.below(6));
  for (uint32_t t = 0; t < 3; ++t) {
    s.spawn([&, t] {
      if (world.get(need[t], &got[t])) {
        granted += need[t];
      } else {
        refused.push_back(need[t]);
      }
    });
  }
  s.run();
  require(granted <= kPages, "more than there is");
  require(world.frames.available() + granted + world.base.pages.counts().visible == kPages, "lost");
  const uint32_t left = kPages - granted;
  for (const uint32_t n : refused) {
    // Whoever was refused had asked while others held no more than they were granted.
    require(n > left || refused.size() > 1, "refused, though there was");
  }
  require(world.validate(), "invalid");
}

// One thread never goes on from somewhere within its call. The other gets what the stopped one
// cannot have in its hands: its need, and, of the chain that it was evicting, what hangs above.
void one_stopped(uint64_t seed) {
  Random random(seed * 41);
  World<> world({3, 3, 3, 3});
  std::vector<uint32_t> got, lost(2);
  Scheduler s(seed, 2u << random.below(6));
  const uint32_t stopped = s.spawn([&] {
    // Its stack is dropped: no heap memory of its own.
    if (world.reserve(2) == Supply::kReserved) world.frames.take_reserved(2, lost.data());
  });
  s.stop(stopped, random.below(600));
  s.spawn([&] { require(world.get(6, &got), "refused, because another thread is stopped"); });
  s.run();
}

struct FramesFirst : EvictOrders {
  static constexpr bool kFramesFirst = true;
};

bool caught(uint64_t seeds) {
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    try {
      satisfiable<FramesFirst>(seed);
    } catch (const std::exception &e) {
      BOOST_TEST_MESSAGE("seed " << seed << ": " << e.what());
      if (std::string(e.what()).find("no numbers") != std::string::npos) return true;
      throw;
    }
  }
  return false;
}

}  // namespace

BOOST_AUTO_TEST_CASE(nobody_is_refused_what_there_is) {
  BOOST_TEST(for_each_seed(10000, satisfiable<EvictOrders>) > 0U);
}
// What made allocations of a full cache fail as long as an evictor was stopped.
BOOST_AUTO_TEST_CASE(a_frame_that_is_free_before_its_page_number_is_caught) {
  BOOST_TEST(caught(10000));
}
BOOST_AUTO_TEST_CASE(who_is_refused_asked_for_more_than_there_was) {
  BOOST_TEST(for_each_seed(10000, too_much) > 0U);
}
BOOST_AUTO_TEST_CASE(promise_6_an_allocation_does_not_wait_for_one_that_is_stopped) {
  BOOST_TEST(for_each_seed(10000, one_stopped) > 0U);
}
