// Parallel: ranges of a CPU kernel's tasks, spread over a task arena of oneTBB.
//
// The arena is the cache's own: its width is a setting, and the engine's own oneTBB tasks are not
// stolen into a kernel. No guard and no lock may be held across these calls (a waiting thread takes
// other tasks of the arena).
//
// ThreadSanitizer does not see the synchronisation inside the oneTBB library (which is not built
// for it), so under it the ranges run one after the other in the caller.
#pragma once

#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <atomic>
#include <cstdint>

namespace quire {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kRunParallel = false;
#else
inline constexpr bool kRunParallel = true;
#endif

// body(begin, end, worker) over [0, tasks), worker < the arena's width.
template <class Body>
void parallel_ranges(oneapi::tbb::task_arena &arena, uint64_t tasks, Body &&body) {
  if (tasks == 0) return;
  if (!kRunParallel || tasks == 1 || arena.max_concurrency() == 1) {
    body(uint64_t{0}, tasks, 0u);
    return;
  }
  arena.execute([&] {
    oneapi::tbb::parallel_for(
        oneapi::tbb::blocked_range<uint64_t>(0, tasks), [&](const auto &range) {
          const int worker = oneapi::tbb::this_task_arena::current_thread_index();
          body(range.begin(), range.end(), static_cast<uint32_t>(worker));
        });
  });
}

// The sum of what body(begin, end) returns.
template <class Body>
uint64_t parallel_sum(oneapi::tbb::task_arena &arena, uint64_t tasks, Body &&body) {
  std::atomic<uint64_t> sum{0};
  parallel_ranges(arena, tasks, [&](uint64_t begin, uint64_t end, uint32_t) {
    // relaxed: a sum; the end of the loop orders it.
    sum.fetch_add(body(begin, end), std::memory_order_relaxed);
  });
  return sum.load(std::memory_order_relaxed);
}

}  // namespace quire
