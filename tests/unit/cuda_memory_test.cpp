// Memory of a GPU and memory that is pinned for one keep the contract of a memory source, and give
// back everything whichever of their calls fails. The GPU is a fake (tests/support/fake_cuda.h).
#define BOOST_TEST_MODULE cuda_memory
#include "allocators/cuda_memory.h"

#include <boost/test/unit_test.hpp>

#include <cstring>

#include "allocators/pinned_memory.h"
#include "tests/support/fake_cuda.h"
#include "tests/support/memory_contract.h"

using namespace quire;
using test::FakeCuda;

namespace {

constexpr uint64_t kSeed = 20261123;

// A fake with the context of its first device held.
struct Machine {
  explicit Machine(bool virtual_memory = true) {
    fake.set_virtual_memory(virtual_memory);
    BOOST_TEST_REQUIRE(fake.retain_context(0, &context) == kCudaSuccess);
  }
  ~Machine() {
    BOOST_TEST(fake.release_context(0) == kCudaSuccess);
    const FakeCuda::Living living = fake.living();
    BOOST_TEST((living == FakeCuda::Living{}), "left over:" << living.text());
    BOOST_TEST(FakeCuda::current() == nullptr);
    BOOST_TEST(FakeCuda::capture_mode() == 0);
  }

  FakeCuda fake;
  void *context = nullptr;
};

// Runs body with the 1st, 2nd, ... call failing until it gets through without. body gives the state
// that it was called in back when it fails.
template <class Body>
uint64_t with_each_call_failing(FakeCuda &fake, CudaError error, Body &&body) {
  for (uint64_t n = 1;; ++n) {
    fake.fail_nth(n, error);
    const Status status = body();
    const bool failed = fake.failed();
    fake.fail_nth(0, kCudaSuccess);
    BOOST_TEST_CONTEXT("call " << n << " failed") {
      if (!failed) {
        BOOST_TEST((status == Status::kOk));
        return n - 1;
      }
      BOOST_TEST((status != Status::kOk));
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(virtual_memory_keeps_the_contract_of_a_source) {
  Machine machine;
  CudaMemory memory(machine.fake);
  BOOST_TEST_REQUIRE((memory.open(0, machine.context, true) == Status::kOk));
  BOOST_TEST(!memory.host_visible());
  test::check_memory_source(memory);
  test::check_arena(memory, kSeed);
  // Asking for what is mapped when a range is given up is no misuse.
  BOOST_TEST(machine.fake.misuses() == 0u);
}

BOOST_AUTO_TEST_CASE(plain_memory_keeps_the_contract_of_a_source) {
  Machine machine(false);
  CudaMemory memory(machine.fake);
  BOOST_TEST_REQUIRE((memory.open(0, machine.context, false) == Status::kOk));
  test::check_memory_source(memory);
  test::check_arena(memory, kSeed);
  BOOST_TEST(machine.fake.misuses() == 0u);
}

BOOST_AUTO_TEST_CASE(granules_are_no_smaller_than_the_devices) {
  Machine machine;
  machine.fake.set_granularity(size_t{64} << 20);
  CudaMemory memory(machine.fake);
  BOOST_TEST_REQUIRE((memory.open(0, machine.context, true) == Status::kOk));
  BOOST_TEST(memory.granularity() == size_t{64} << 20);
}

BOOST_AUTO_TEST_CASE(a_commit_that_fails_at_any_call_maps_nothing) {
  Machine machine;
  CudaMemory memory(machine.fake);
  BOOST_TEST_REQUIRE((memory.open(0, machine.context, true) == Status::kOk));
  const size_t unit = memory.granularity();
  Result<void *> base = memory.reserve(8 * unit, 1);
  BOOST_TEST_REQUIRE(base.ok());
  BOOST_TEST_REQUIRE((memory.commit(base.value(), 0, unit) == Status::kOk));
  const FakeCuda::Living before = machine.fake.living();
  const uint64_t points = with_each_call_failing(machine.fake, kCudaOutOfMemory, [&] {
    const Status status = memory.commit(base.value(), unit, 4 * unit);
    if (status != Status::kOk) BOOST_TEST((machine.fake.living() == before));
    return status;
  });
  BOOST_TEST(points > 8u);  // four memories, four mappings, their access, and the context
  const FakeCuda::Living mapped = machine.fake.living();
  with_each_call_failing(machine.fake, 999, [&] {
    const Status status = memory.decommit(base.value(), unit, 4 * unit);
    if (status != Status::kOk) BOOST_TEST((machine.fake.living() == mapped));
    return status;
  });
  BOOST_TEST((machine.fake.living() == before));
  memory.release(base.value(), 8 * unit);
  BOOST_TEST(machine.fake.misuses() == 0u);
}

BOOST_AUTO_TEST_CASE(a_device_that_is_full_says_so_and_an_arena_keeps_what_it_has) {
  Machine machine;
  CudaMemory memory(machine.fake);
  BOOST_TEST_REQUIRE((memory.open(0, machine.context, true) == Status::kOk));
  const size_t unit = memory.granularity();
  machine.fake.set_memory(3 * unit);
  Arena arena;
  ArenaOptions options;
  options.frame_bytes = unit / 4;
  options.capacity = 64;
  options.slab_bytes = unit;
  BOOST_TEST_REQUIRE((arena.open(memory, options) == Status::kOk));
  BOOST_TEST((arena.grow(12) == Status::kOk));
  BOOST_TEST((arena.grow(13) == Status::kNomem));
  BOOST_TEST(arena.frames() == 12u);
  BOOST_TEST((arena.shrink(4) == Status::kOk));
  BOOST_TEST((arena.grow(12) == Status::kOk));
}

BOOST_AUTO_TEST_CASE(pinned_memory_keeps_the_contract_of_a_source) {
  Machine machine;
  PinnedMemoryOptions options;
  options.huge_pages = false;  // so that untouched pages of the test cost nothing
  PinnedMemory memory(machine.fake, machine.context, options);
  test::check_memory_source(memory);
  BOOST_TEST(machine.fake.living().registered == 0);
}

BOOST_AUTO_TEST_CASE(pinned_memory_is_registered_whole_or_not_at_all) {
  Machine machine;
  PinnedMemoryOptions options;
  options.huge_pages = false;
  options.threads = 2;
  PinnedMemory memory(machine.fake, machine.context, options);
  const size_t unit = memory.granularity();
  Result<void *> base = memory.reserve(4 * unit, 1);
  BOOST_TEST_REQUIRE(base.ok());
  with_each_call_failing(machine.fake, kCudaOutOfMemory, [&] {
    const Status status = memory.commit(base.value(), unit, 2 * unit);
    if (status != Status::kOk) BOOST_TEST(machine.fake.living().registered == 0);
    return status;
  });
  BOOST_TEST(machine.fake.living().registered == 2);
  std::memset(static_cast<char *>(base.value()) + unit, 1, 2 * unit);
  BOOST_TEST((memory.decommit(base.value(), 2 * unit, unit) == Status::kOk));
  BOOST_TEST(machine.fake.living().registered == 1);
  memory.release(base.value(), 4 * unit);
  BOOST_TEST(machine.fake.living().registered == 0);
}
