// The reclaimer over the library's atomics, compiled once, and its task arena.
#include "runtime/reclaimer.h"

#include <oneapi/tbb/info.h>
#include <oneapi/tbb/task_arena.h>

#include <atomic>

#include "runtime/parallel.h"

namespace quire {

template class BasicReclaimer<StdAtomics, PrefixIndex<StdAtomics>, EvictOrders>;

namespace {

class TaskRunner final : public ScanRunner {
 public:
  explicit TaskRunner(const oneapi::tbb::task_arena::constraints &constraints)
      : arena_(constraints, 1, oneapi::tbb::task_arena::priority::low) {}

  void run(uint32_t chunks, Body body, void *context) noexcept override {
    std::atomic<uint32_t> next{0};
    // relaxed: hands out numbers; the end of the loop orders what was done with them.
    const auto work = [&] {
      for (uint32_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < chunks;)
        body(context, i);
    };
    try {
      const auto workers = static_cast<uint64_t>(arena_.max_concurrency());
      parallel_ranges(arena_, workers, [&](uint64_t, uint64_t, uint32_t) { work(); });
    } catch (...) {
      // No memory for tasks: those that ran are over, and what they left is done here.
    }
    work();
  }

 private:
  oneapi::tbb::task_arena arena_;
};

}  // namespace

std::unique_ptr<ScanRunner> make_task_runner(uint32_t threads, int numa_node) noexcept {
  if (threads <= 1) return std::unique_ptr<ScanRunner>(new (std::nothrow) ScanRunner);
  try {
    oneapi::tbb::task_arena::constraints constraints;
    constraints.set_max_concurrency(static_cast<int>(threads));
    if (numa_node >= 0) {
      // A node that this machine lacks is no error: there is nothing to prefer then.
      for (const oneapi::tbb::numa_node_id node : oneapi::tbb::info::numa_nodes()) {
        if (node == numa_node) constraints.set_numa_id(node);
      }
    }
    return std::make_unique<TaskRunner>(constraints);
  } catch (...) {
    return nullptr;
  }
}

}  // namespace quire
