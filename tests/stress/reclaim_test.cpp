// Real threads on streams, limbo and the reclaimer: engines that use and publish chains, an
// evictor, a stepper that drains and expires, a policy that is swapped. The word in each frame is
// checked under the pin and again by work of the stream; ThreadSanitizer sees the orders that the
// scheduler does not.
#define BOOST_TEST_MODULE stress_reclaim
#define BOOST_TEST_DYN_LINK
#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "runtime/limbo.h"
#include "runtime/reclaim_thread.h"
#include "runtime/stream_table.h"
#include "tests/support/adversary_device.h"
#include "tests/support/reclaim_world.h"

using namespace quire;
using namespace quire::test;

namespace {

constexpr uint32_t kPages = 256;
constexpr uint32_t kFrames = 128;
constexpr uint32_t kEngines = 3;

uint64_t rounds() {
  const char *soak = std::getenv("QUIRE_SOAK");
  return soak != nullptr && *soak == '1' ? 400000 : 3000;
}

struct World {
  auto give_back() {
    return [this](const uint32_t *ids, size_t n) {
      // A plain store: a reader that has not passed would be a data race.
      for (size_t i = 0; i < n; ++i) content[ids[i]] = 0;
      frames.free(ids, n);
    };
  }

  World()
      : device(1),
        base(kPages),
        memory{region_memory(FramePool<>::bytes(kFrames)), region_memory(Limbo<>::bytes(kFrames)),
               region_memory(StreamTable<>::bytes(8))},
        frames(memory[0].get(), kFrames),
        limbo(memory[1].get(), kFrames),
        streams(memory[2].get(), 8, base.clock, &device),
        content(kFrames) {
    frames.format();
    limbo.format();
    streams.format();
    base.on_evicted = [this](uint32_t page, uint32_t stamp, EvictReason) {
      const uint64_t r = base.clock.widen(stamp);
      streams.want(r);
      limbo.retire(base.pages[page].frame.load(), r, streams.min_passed(), give_back());
    };
  }
  ~World() { streams.close(); }

  void drop(uint32_t page) {
    base.pages.raise_stamp(page, static_cast<uint32_t>(base.clock.now()));
    base.pages.unpin(page);
  }
  // The pinned page of the key; published, if it must be.
  uint32_t get(uint32_t parent, const Key &key) {
    if (const uint32_t page = base.index.find_and_pin(key); page != kNone) return page;
    uint32_t page, frame;
    if (!base.pool.alloc(1, &page)) return kNone;
    if (!frames.alloc(1, &frame)) {
      base.reclaimer->reclaim(1);
      limbo.drain(streams.min_passed(), give_back());
      if (!frames.alloc(1, &frame)) {
        base.pool.free(&page, 1);
        return kNone;
      }
    }
    content[frame] = key.lo;
    const uint32_t generation = base.pages.generation(page);
    auto &d = base.pages[page];
    d.parent.store(parent);
    d.depth.store(parent == kNone ? 0 : base.pages[parent].depth.load() + 1);
    d.frame.store(frame);
    base.pages.set_class(page, 0);
    base.pages.set_stamp(page, static_cast<uint32_t>(base.clock.now()));
    if (parent != kNone) base.pages.add_child(parent);
    const Insert result = base.index.insert(key, page);
    if (result.status == Insert::kInserted) return page;
    if (parent != kNone) base.pages.drop_child(parent);
    base.pages.free_private(page, generation);
    base.pool.free(&page, 1);
    const uint64_t r = base.clock.now();
    streams.want(r);
    limbo.retire(frame, r, streams.min_passed(), give_back());
    return result.page;
  }

  AdversaryDevice device;
  ReclaimWorld<> base;
  Memory memory[3];
  FramePool<> frames;
  Limbo<> limbo;
  StreamTable<> streams;
  std::vector<uint64_t> content;
  std::atomic<uint64_t> wrong{0}, reads{0};
};

void engine(World &w, uint32_t number, Stream stream) {
  std::mt19937_64 random(number + 1);
  for (uint64_t i = 0; i < rounds();) {
    Key key{1, 1};
    uint32_t tail = kNone;
    uint64_t id = random() % 24;
    for (uint64_t depth = 1 + random() % 8; depth > 0; --depth, id = random() % 3) {
      const Key next = child_key(key, id);
      const uint32_t page = w.get(tail, next);
      if (page == kNone) break;
      if (tail != kNone) w.drop(tail);
      tail = page;
      key = next;
    }
    if (tail == kNone) {
      std::this_thread::yield();  // All frames wait for the device or a step.
      continue;
    }
    ++i;
    const uint64_t *at = &w.content[w.base.pages[tail].frame.load()];
    if (*at != key.lo) w.wrong.fetch_add(1);
    const uint64_t expected = key.lo;
    World *const world = &w;
    const Status s = w.device.launch(stream, [world, at, expected] {
      if (*at != expected) world->wrong.fetch_add(1);
      world->reads.fetch_add(1);
    });
    if (s != Status::kOk) w.wrong.fetch_add(1);
    w.drop(tail);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(frames_keep_their_words_while_anybody_reads_them) {
  World w;
  std::vector<Stream> streams;
  for (uint32_t i = 0; i < kEngines; ++i) {
    uint32_t slot;
    streams.push_back(w.device.add_stream());
    BOOST_REQUIRE((w.streams.add(streams.back(), 0, 0, &slot) == Status::kOk));
  }
  std::atomic<uint32_t> left{kEngines};
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kEngines; ++i) {
    threads.emplace_back([&, i] {
      engine(w, i, streams[i]);
      left.fetch_sub(1);
    });
  }
  threads.emplace_back([&] {
    for (uint64_t i = 0; left.load() != 0; ++i) {
      w.streams.step();
      w.base.log.note(w.base.clock.now(), i);
      w.streams.poll();
      w.limbo.drain(w.streams.min_passed(), w.give_back());
      if (i % 64 == 0) w.base.reclaimer->expire(i);
      if (i % 256 == 0) {
        w.base.reclaimer->set_policy(i % 512 == 0 ? PolicyTable::lru()
                                                  : PolicyTable::by_priority());
      }
    }
  });
  threads.emplace_back([&] {
    while (left.load() != 0) w.base.reclaimer->reclaim(2);
  });
  threads.emplace_back([&] {
    while (left.load() != 0) w.device.step();
  });
  for (auto &thread : threads) thread.join();
  w.device.pump();
  for (int i = 0; i < 3; ++i) {
    w.streams.step();
    w.streams.poll();
    w.limbo.drain(w.streams.min_passed(), w.give_back());
  }
  BOOST_TEST(w.wrong.load() == 0U);
  BOOST_TEST(w.reads.load() == rounds() * kEngines);
  BOOST_TEST(w.limbo.count() == 0U);
  BOOST_TEST(w.frames.available() + w.base.pages.counts().visible == kFrames);
  BOOST_TEST(w.base.validate());
  BOOST_TEST(w.streams.validate());
  BOOST_TEST(w.limbo.validate());
  BOOST_TEST(w.frames.validate());
}

namespace {

struct Work final : BackgroundWork {
  bool tick(bool woken) noexcept override {
    if (woken) {
      woken_ticks.fetch_add(1);
      woken_ticks.notify_all();
    }
    ticks.fetch_add(1);
    ticks.notify_all();
    return useful;
  }
  std::atomic<uint32_t> ticks{0}, woken_ticks{0};
  bool useful = true;
};

}  // namespace

BOOST_AUTO_TEST_CASE(the_thread_ticks_by_time_and_when_it_is_woken) {
  Work by_time, by_wake;
  {
    ReclaimThread thread;
    BOOST_REQUIRE((thread.start(1, &by_time) == Status::kOk));
    for (uint32_t seen = 0; seen < 5; seen = by_time.ticks.load()) by_time.ticks.wait(seen);
  }
  {
    ReclaimThread thread;
    BOOST_REQUIRE((thread.start(0, &by_wake) == Status::kOk));
    for (uint32_t i = 0; i < 20; ++i) {
      thread.wake();
      for (uint32_t seen; (seen = by_wake.woken_ticks.load()) <= i;) by_wake.woken_ticks.wait(seen);
    }
    thread.stop();
    thread.stop();
    thread.wake();  // harmless
    BOOST_TEST(by_wake.woken_ticks.load() == 20U);
  }
}

// A thousand wakes of no use are a handful of ticks, and the thread still stops at once.
BOOST_AUTO_TEST_CASE(a_wake_that_is_of_no_use_is_slept_on) {
  Work work;
  work.useful = false;
  ReclaimThread thread;
  BOOST_REQUIRE((thread.start(1000, &work) == Status::kOk));
  thread.wake();
  for (uint32_t seen = 0; seen == 0; seen = work.ticks.load()) work.ticks.wait(seen);
  for (int i = 0; i < 1000; ++i) thread.wake();
  BOOST_TEST(work.ticks.load() <= 2U);
  thread.stop();
  BOOST_TEST(!thread.running());
}
