// Every memory source keeps its contract, and arenas over each of them keep theirs.
#define BOOST_TEST_MODULE arena
#include "allocators/arena.h"

#include <boost/test/unit_test.hpp>

#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include "allocators/host_memory.h"
#include "runtime/cpu_device.h"
#include "tests/support/adversary_device.h"
#include "tests/support/memory_contract.h"

using namespace quire;
using test::AdversaryDevice;

namespace {

constexpr uint64_t kSeed = 20260101;

// Records what the arena asks of its source.
class Recorder final : public MemorySource {
 public:
  size_t granularity() const noexcept override { return 4096; }
  Result<void *> reserve(size_t bytes, size_t alignment) noexcept override {
    reserved = bytes;
    return memory_.reserve(bytes, alignment);
  }
  Status commit(void *base, size_t offset, size_t bytes) noexcept override {
    commits.push_back({offset, bytes});
    return memory_.commit(base, offset, bytes);
  }
  Status decommit(void *base, size_t offset, size_t bytes) noexcept override {
    decommits.push_back({offset, bytes});
    return memory_.decommit(base, offset, bytes);
  }
  void release(void *base, size_t bytes) noexcept override {
    released = bytes;
    memory_.release(base, bytes);
  }
  bool host_visible() const noexcept override { return true; }

  struct Range {
    size_t offset, bytes;
  };
  std::vector<Range> commits, decommits;
  size_t reserved = 0, released = 0;

 private:
  HostMemory memory_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(host_memory_keeps_the_contract) {
  HostMemory memory;
  test::check_memory_source(memory);
  test::check_arena(memory, kSeed);
}

BOOST_AUTO_TEST_CASE(huge_pages_a_node_and_populating_are_advice_that_may_be_refused) {
  HostMemoryOptions options;
  options.huge_pages = true;
  options.numa_node = 1000;  // no machine has it: refused, counted, and the memory works
  options.populate = true;
  HostMemory memory(options);
  BOOST_TEST(memory.granularity() == size_t{2} << 20);
  test::check_memory_source(memory);
  BOOST_TEST(memory.advice_refused() != 0u);
}

BOOST_AUTO_TEST_CASE(the_cpu_device_keeps_the_contract_of_memory) {
  CpuDevice device;
  test::check_memory_source(device);
  test::check_arena(device, kSeed + 1);
}

BOOST_AUTO_TEST_CASE(the_adversary_keeps_the_contract_of_memory) {
  AdversaryDevice device(kSeed);
  test::check_memory_source(device);
  test::check_arena(device, kSeed + 2);
}

BOOST_AUTO_TEST_CASE(slabs_are_committed_once_from_the_front_and_given_back_from_the_end) {
  Recorder source;
  {
    Arena arena;
    ArenaOptions options;
    options.frame_bytes = 3000;
    options.alignment = 1024;
    options.capacity = 100;
    options.slab_bytes = 10000;  // becomes 12288
    BOOST_TEST_REQUIRE((arena.open(source, options) == Status::kOk));
    BOOST_TEST(arena.stride() == 3072u);
    BOOST_TEST(arena.slab_bytes() == 12288u);
    BOOST_TEST(source.reserved == 307200u);
    BOOST_TEST(source.commits.empty());
    BOOST_TEST_REQUIRE((arena.grow(5) == Status::kOk));  // 15360 bytes: two slabs, eight frames
    BOOST_TEST_REQUIRE((arena.grow(8) == Status::kOk));
    BOOST_TEST_REQUIRE(source.commits.size() == 1u);
    BOOST_TEST(source.commits[0].bytes == 24576u);
    BOOST_TEST(arena.frames() == 8u);
    BOOST_TEST_REQUIRE((arena.grow(100) == Status::kOk));
    BOOST_TEST(arena.committed_bytes() == 307200u);
    BOOST_TEST(arena.frames() == 100u);
    BOOST_TEST_REQUIRE((arena.shrink(99) == Status::kOk));  // the last slab still holds frame 98
    BOOST_TEST(source.decommits.empty());
    BOOST_TEST_REQUIRE((arena.shrink(4) == Status::kOk));
    BOOST_TEST_REQUIRE(source.decommits.size() == 1u);
    BOOST_TEST(source.decommits[0].offset == 12288u);
    BOOST_TEST(arena.frames() == 4u);
  }
  BOOST_TEST(source.released == source.reserved);
}

BOOST_AUTO_TEST_CASE(a_failed_call_leaves_the_arena_as_it_was) {
  AdversaryDevice device(kSeed);
  ArenaOptions options;
  options.frame_bytes = 4096;
  options.capacity = 64;
  options.slab_bytes = 16 * 4096;
  Arena arena;
  device.fail(AdversaryDevice::Call::kReserve, 1, Status::kNomem);
  BOOST_TEST((arena.open(device, options) == Status::kNomem));
  BOOST_TEST(arena.validate());
  BOOST_TEST_REQUIRE((arena.open(device, options) == Status::kOk));
  BOOST_TEST_REQUIRE((arena.grow(16) == Status::kOk));
  device.fail(AdversaryDevice::Call::kCommit, 1, Status::kDevice);
  BOOST_TEST((arena.grow(40) == Status::kDevice));
  BOOST_TEST(arena.frames() == 16u);
  BOOST_TEST(arena.validate());
  BOOST_TEST_REQUIRE((arena.grow(40) == Status::kOk));
  BOOST_TEST(arena.frames() == 48u);
  device.fail(AdversaryDevice::Call::kDecommit, 1, Status::kDevice);
  BOOST_TEST((arena.shrink(0) == Status::kDevice));
  BOOST_TEST(arena.frames() == 48u);
  BOOST_TEST(arena.validate());
}

#ifdef __SANITIZE_ADDRESS__
BOOST_AUTO_TEST_CASE(a_poisoned_frame_is_caught_and_its_poison_ends_with_the_arena) {
  HostMemory memory;
  Arena arena;
  ArenaOptions options;
  options.frame_bytes = 1000;
  options.capacity = 8;
  BOOST_TEST_REQUIRE((arena.open(memory, options) == Status::kOk));
  BOOST_TEST_REQUIRE((arena.grow(8) == Status::kOk));
  char *const frame = static_cast<char *>(arena.frame(3));
  arena.poison(3);
  BOOST_TEST(__asan_region_is_poisoned(frame, 1) == frame);
  BOOST_TEST(__asan_region_is_poisoned(frame - 1, 1) == nullptr);
  arena.unpoison(3);
  BOOST_TEST(__asan_region_is_poisoned(frame, 1000) == nullptr);
  BOOST_TEST(__asan_region_is_poisoned(frame + 1000, 1) != nullptr);  // the stride's padding
  arena.poison(4);
  char *const next = static_cast<char *>(arena.frame(4));
  arena.close();
  BOOST_TEST(__asan_region_is_poisoned(next, 1) == nullptr);
}
#endif

BOOST_AUTO_TEST_CASE(sizes_that_are_none_are_refused) {
  HostMemory memory;
  Arena arena;
  ArenaOptions options;
  BOOST_TEST((arena.open(memory, options) == Status::kInvalid));
  options.frame_bytes = 64;
  BOOST_TEST((arena.open(memory, options) == Status::kInvalid));
  options.capacity = 1;
  options.alignment = 48;
  BOOST_TEST((arena.open(memory, options) == Status::kInvalid));
  options.alignment = 64;
  options.frame_bytes = SIZE_MAX / 2;
  options.capacity = 4;
  BOOST_TEST((arena.open(memory, options) == Status::kNomem));
  options.frame_bytes = SIZE_MAX;
  BOOST_TEST((arena.open(memory, options) == Status::kNomem));
  BOOST_TEST(arena.validate());
  BOOST_TEST(std::string(last_error()).find("address range") != std::string::npos);
}
