// CPU streams are in-order queues that run by themselves, lose no wake-up, and know their handles.
#define BOOST_TEST_MODULE cpu_stream
#include "runtime/cpu_stream.h"

#include <oneapi/tbb/info.h>
#include <oneapi/tbb/task_arena.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

using namespace quire;

namespace {

constexpr uint64_t kSeed = 77;

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

Stream make(unsigned width = 0) {
  Stream stream = nullptr;
  BOOST_TEST_REQUIRE((CpuStream::create(width, &stream) == Status::kOk));
  return stream;
}

}  // namespace

BOOST_AUTO_TEST_CASE(tasks_run_in_order_and_wait_means_all_of_them) {
  const Stream stream = make();
  struct Log {
    std::vector<int> ran;
  } log;
  for (int round = 0; round < 200; ++round) {
    struct Step {
      Log *log;
      int number;
    };
    std::array<Step, 3> steps;
    for (int i = 0; i < 3; ++i) {
      steps[static_cast<size_t>(i)] = {&log, round * 3 + i};
      BOOST_TEST_REQUIRE((CpuStream::launch(
                              stream,
                              [](void *argument) {
                                const auto *step = static_cast<Step *>(argument);
                                step->log->ran.push_back(step->number);
                              },
                              &steps[static_cast<size_t>(i)]) == Status::kOk));
    }
    // The thread sleeps and wakes in every round: a lost wake-up would hang here.
    BOOST_TEST_REQUIRE((CpuStream::wait(stream) == Status::kOk));
    BOOST_TEST_REQUIRE(log.ran.size() == static_cast<size_t>(round + 1) * 3);
  }
  for (size_t i = 0; i < log.ran.size(); ++i) BOOST_TEST(log.ran[i] == static_cast<int>(i));
  BOOST_TEST((CpuStream::query(stream) == Status::kOk));
  BOOST_TEST(CpuStream::find(stream)->validate());
  BOOST_TEST((CpuStream::destroy(stream) == Status::kOk));
}

BOOST_AUTO_TEST_CASE(stale_foreign_and_made_up_handles_are_invalid) {
  const Stream stream = make();
  BOOST_TEST((CpuStream::destroy(stream) == Status::kOk));
  const Stream next = make();
  BOOST_TEST(next != stream);  // a handle is never used twice
  int local = 0;
  for (const Stream wrong : {stream, Stream{nullptr}, Stream{&local}, reinterpret_cast<Stream>(1),
                             reinterpret_cast<Stream>(2), reinterpret_cast<Stream>(UINTPTR_MAX)}) {
    BOOST_TEST((CpuStream::wait(wrong) == Status::kInvalid));
    BOOST_TEST((CpuStream::query(wrong) == Status::kInvalid));
    BOOST_TEST((CpuStream::launch(
                    wrong, [](void *) {}, nullptr) == Status::kInvalid));
    BOOST_TEST((CpuStream::destroy(wrong) == Status::kInvalid));
  }
  BOOST_TEST((CpuStream::launch(next, nullptr, nullptr) == Status::kInvalid));
  BOOST_TEST((CpuStream::create(0, nullptr) == Status::kInvalid));
  BOOST_TEST(CpuStream::living() == 1u);
  BOOST_TEST((CpuStream::destroy(next) == Status::kOk));
}

BOOST_AUTO_TEST_CASE(destroy_runs_what_is_queued_and_a_stream_without_work_has_no_thread) {
  const Stream idle = make();
  BOOST_TEST((CpuStream::destroy(idle) == Status::kOk));
  const Stream stream = make();
  int count = 0;
  for (int i = 0; i < 1000; ++i) {
    BOOST_TEST_REQUIRE((
        CpuStream::launch(
            stream, [](void *counter) { ++*static_cast<int *>(counter); }, &count) == Status::kOk));
  }
  const std::shared_ptr<CpuStream> object = CpuStream::find(stream);
  BOOST_TEST((CpuStream::destroy(stream) == Status::kOk));
  BOOST_TEST(count == 1000);
  BOOST_TEST(object->completed() == object->position());
  BOOST_TEST((object->push(Task([] {})) == Status::kInvalid));
}

BOOST_AUTO_TEST_CASE(a_task_cannot_wait_for_or_destroy_its_own_stream) {
  struct State {
    Stream stream;
    Status wait = Status::kOk, destroy = Status::kOk;
  } state;
  state.stream = make();
  BOOST_TEST_REQUIRE((CpuStream::launch(
                          state.stream,
                          [](void *argument) {
                            auto *const s = static_cast<State *>(argument);
                            s->wait = CpuStream::wait(s->stream);
                            s->destroy = CpuStream::destroy(s->stream);
                          },
                          &state) == Status::kOk));
  BOOST_TEST((CpuStream::wait(state.stream) == Status::kOk));
  BOOST_TEST((CpuStream::destroy(state.stream) == Status::kOk));
  BOOST_TEST((state.wait == Status::kBusy));
  BOOST_TEST((state.destroy == Status::kBusy));
}

BOOST_AUTO_TEST_CASE(a_task_may_launch_on_its_own_stream) {
  struct State {
    Stream stream;
    int depth = 0;
  } state;
  state.stream = make();
  static constexpr auto again = [](void *argument) {
    static constexpr auto nested = [](void *inner) { ++static_cast<State *>(inner)->depth; };
    auto *const s = static_cast<State *>(argument);
    ++s->depth;
    if (CpuStream::launch(s->stream, nested, s) != Status::kOk) s->depth = -1;
  };
  BOOST_TEST_REQUIRE((CpuStream::launch(state.stream, again, &state) == Status::kOk));
  // The first wait covers the outer task; by then the inner one is queued.
  BOOST_TEST((CpuStream::wait(state.stream) == Status::kOk));
  BOOST_TEST((CpuStream::wait(state.stream) == Status::kOk));
  BOOST_TEST(state.depth == 2);
  BOOST_TEST((CpuStream::destroy(state.stream) == Status::kOk));
}

// Producers on several threads, streams that wait for each other at random, and a counter per
// stream that its own tasks alone touch, unprotected: the sanitizers see any order that is missing.
BOOST_AUTO_TEST_CASE(streams_that_wait_for_each_other_drain_and_order_their_writes) {
  constexpr size_t kStreams = 4;
  constexpr int kSteps = 400;
  struct Shared {
    std::array<std::shared_ptr<CpuStream>, kStreams> streams;
    std::array<int, kStreams> counter{};
    std::atomic<int> backwards{0};
  } shared;
  std::array<Stream, kStreams> handles;
  for (size_t i = 0; i < kStreams; ++i) {
    handles[i] = make();
    shared.streams[i] = CpuStream::find(handles[i]);
  }
  std::vector<std::thread> producers;
  for (uint64_t producer = 0; producer < 2; ++producer) {
    producers.emplace_back([&, producer] {
      std::mt19937_64 random(kSeed + producer);
      Shared *const s = &shared;
      for (int step = 0; step < kSteps; ++step) {
        const size_t a = random() % kStreams;
        const size_t b = (a + 1 + random() % (kStreams - 1)) % kStreams;
        // b reads a's counter after a wait for it, and a goes on only after b has read.
        bool ok = s->streams[a]->push(Task([s, a] { ++s->counter[a]; })) == Status::kOk;
        ok =
            ok && s->streams[b]->push_wait(s->streams[a], s->streams[a]->position()) == Status::kOk;
        ok = ok && s->streams[b]->push(Task([s, b] { ++s->counter[b]; })) == Status::kOk;
        if (!ok) s->backwards.fetch_add(1);
      }
    });
  }
  for (std::thread &producer : producers) producer.join();
  for (const Stream handle : handles) BOOST_TEST((CpuStream::wait(handle) == Status::kOk));
  int sum = 0;
  for (size_t i = 0; i < kStreams; ++i) {
    BOOST_TEST(shared.streams[i]->validate());
    sum += shared.counter[i];
  }
  BOOST_TEST(sum == 2 * 2 * kSteps, "seed " << kSeed);
  BOOST_TEST(shared.backwards.load() == 0);
  for (const Stream handle : handles) BOOST_TEST((CpuStream::destroy(handle) == Status::kOk));
}

BOOST_AUTO_TEST_CASE(streams_come_and_go_while_others_use_their_handles) {
  std::atomic<uintptr_t> shown{0};
  std::atomic<bool> stop{false};
  std::atomic<int> ran{0};
  std::atomic<int> launched{0};
  std::thread user([&] {
    while (!stop.load()) {
      const auto handle = reinterpret_cast<Stream>(shown.load());
      const Status status = CpuStream::launch(
          handle, [](void *counter) { static_cast<std::atomic<int> *>(counter)->fetch_add(1); },
          &ran);
      if (status == Status::kOk) launched.fetch_add(1);
      if (status != Status::kOk && status != Status::kInvalid) std::abort();
    }
  });
  for (int i = 0; i < 200; ++i) {
    const Stream stream = make();
    shown.store(reinterpret_cast<uintptr_t>(stream));
    BOOST_TEST((CpuStream::launch(
                    stream, [](void *) {}, nullptr) == Status::kOk));
    BOOST_TEST((CpuStream::destroy(stream) == Status::kOk));
  }
  stop.store(true);
  user.join();
  BOOST_TEST(ran.load() == launched.load());  // whatever was accepted has run
  BOOST_TEST(CpuStream::living() == 0u);
}

BOOST_AUTO_TEST_CASE(a_stream_with_a_width_runs_its_tasks_in_order_and_within_that_width) {
  for (const unsigned width : {1u, 2u, 3u}) {
    const Stream stream = make(width);
    int concurrency = 0;
    BOOST_TEST_REQUIRE(
        (CpuStream::launch(
             stream,
             [](void *to) { *static_cast<int *>(to) = tbb::this_task_arena::max_concurrency(); },
             &concurrency) == Status::kOk));
    BOOST_TEST_REQUIRE((CpuStream::wait(stream) == Status::kOk));
    BOOST_TEST(concurrency == std::min(static_cast<int>(width), tbb::info::default_concurrency()));
    std::vector<int> ran;
    std::vector<int> *const log = &ran;
    const std::shared_ptr<CpuStream> object = CpuStream::find(stream);
    for (int i = 0; i < 50; ++i) {
      BOOST_TEST_REQUIRE((object->push(Task([=] { log->push_back(i); })) == Status::kOk));
    }
    BOOST_TEST((CpuStream::destroy(stream) == Status::kOk));
    BOOST_TEST_REQUIRE(ran.size() == 50u);
    for (int i = 0; i < 50; ++i) BOOST_TEST(ran[static_cast<size_t>(i)] == i);
  }
  Stream stream = nullptr;
  BOOST_TEST((CpuStream::create(1u << 20, &stream) == Status::kInvalid));
}

// ThreadSanitizer does not follow a process that forks while it has threads.
BOOST_AUTO_TEST_CASE(a_forked_child_is_told_that_it_has_no_streams,
                     *boost::unit_test::enable_if<!kThreadSanitizer>()) {
  const Stream stream = make();
  BOOST_TEST_REQUIRE((CpuStream::launch(
                          stream, [](void *) {}, nullptr) == Status::kOk));
  const pid_t child = fork();
  BOOST_TEST_REQUIRE(child >= 0);
  if (child == 0) {
    Stream fresh = nullptr;
    const bool refused = CpuStream::launch(
                             stream, [](void *) {}, nullptr) == Status::kInvalid &&
                         CpuStream::wait(stream) == Status::kInvalid &&
                         CpuStream::create(0, &fresh) == Status::kInvalid &&
                         CpuStream::destroy(stream) == Status::kInvalid;
    _exit(refused ? 0 : 1);
  }
  int result = -1;
  BOOST_TEST_REQUIRE(waitpid(child, &result, 0) == child);
  BOOST_TEST(WIFEXITED(result));
  BOOST_TEST(WEXITSTATUS(result) == 0);
  BOOST_TEST((CpuStream::wait(stream) == Status::kOk));
  BOOST_TEST((CpuStream::destroy(stream) == Status::kOk));
}
