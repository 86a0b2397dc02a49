// The metadata heap: whose memory it is, that the host's malloc is left alone, failures as values.
#define BOOST_TEST_MODULE heap
#include "allocators/heap.h"

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using namespace quire;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

// The caller's allocator of these tests: it checks what it is given back, and fails when told.
class Caller {
 public:
  HeapCallbacks callbacks() {
    return {[](size_t size, size_t align, void *user) -> void * {
              auto *const self = static_cast<Caller *>(user);
              if (self->fail_at_ != 0 && ++self->calls_ == self->fail_at_) return nullptr;
              void *const block = std::aligned_alloc(align, (size + align - 1) / align * align);
              self->blocks_[block] = {size, align};
              return block;
            },
            [](void *pointer, size_t size, size_t align, void *user) {
              auto *const self = static_cast<Caller *>(user);
              const auto found = self->blocks_.find(pointer);
              if (found == self->blocks_.end() || found->second != std::pair{size, align}) {
                ++self->mistakes;
              } else {
                self->blocks_.erase(found);
              }
              std::free(pointer);
            },
            this};
  }
  void fail_at(size_t call) {
    calls_ = 0;
    fail_at_ = call;
  }
  size_t living() const { return blocks_.size(); }
  int mistakes = 0;

 private:
  std::map<void *, std::pair<size_t, size_t>> blocks_;
  size_t calls_ = 0;
  size_t fail_at_ = 0;
};

// Runs `body` in a forked child and says whether it ended well; `with_exit` runs exit handlers.
bool child_succeeds(bool (*body)(), bool with_exit) {
  const pid_t child = fork();
  if (child == 0) {
    const int result = body() ? 0 : 1;
    if (with_exit) std::exit(result);
    _exit(result);
  }
  int status = -1;
  if (child < 0 || waitpid(child, &status, 0) != child) return false;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

std::string library_of(void *symbol) {
  Dl_info info{};
  return dladdr(symbol, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

}  // namespace

// An engine that closes its cache in an exit handler, or in the destructor of a static object. The
// first case of this file: the child then loads the backend itself, after registering its handler,
// which therefore runs after whatever the backend registered.
BOOST_AUTO_TEST_CASE(exit_handlers_may_still_use_the_heap,
                     *boost::unit_test::enable_if<!kThreadSanitizer>()) {
  BOOST_TEST(child_succeeds(
      [] {
        static Heap *heap = nullptr;
        static void *block = nullptr;
        std::atexit([] {
          heap->deallocate(block, 300);
          void *const late = heap->allocate(70000);
          if (late == nullptr || heap->live_blocks() != 1) _exit(3);
          heap->deallocate(late, 70000);
          std::_Exit(0);  // the exit handlers of the test framework are not the child's
        });
        heap = new Heap;
        block = heap->allocate(300);
        return block != nullptr;
      },
      true));
}

BOOST_AUTO_TEST_CASE(the_backend_says_what_it_is) {
  Heap heap;
  const std::string name = heap.backend();
  if (kSanitized) {
    BOOST_TEST(name == "system");
  } else if (void *const library = dlopen(QUIRE_MIMALLOC_SONAME, RTLD_NOW | RTLD_LOCAL)) {
    BOOST_TEST(name.rfind("mimalloc ", 0) == 0u);
    dlclose(library);
  } else {
    BOOST_TEST(name == "system");
  }
  BOOST_TEST(Heap(Heap::Choice::kSystem).backend() == std::string("system"));
  Caller caller;
  BOOST_TEST(Heap(caller.callbacks()).backend() == std::string("caller"));
}

BOOST_AUTO_TEST_CASE(the_hosts_malloc_is_not_replaced) {
  Heap heap;
  void *const block = heap.allocate(100);
  BOOST_TEST_REQUIRE(block != nullptr);
  heap.deallocate(block, 100);
  BOOST_TEST(dlsym(RTLD_DEFAULT, "mi_malloc") == nullptr);
  for (const char *const name : {"malloc", "free", "_Znwm", "_ZdlPv"}) {
    const std::string library = library_of(dlsym(RTLD_DEFAULT, name));
    BOOST_TEST(library.find("mimalloc") == std::string::npos, name << " comes from " << library);
  }
}

BOOST_AUTO_TEST_CASE(blocks_are_aligned_apart_and_counted) {
  Caller caller;
  Heap heaps[] = {Heap(), Heap(Heap::Choice::kSystem), Heap(caller.callbacks())};
  for (Heap &heap : heaps) {
    BOOST_TEST_CONTEXT(heap.backend()) {
      struct Block {
        unsigned char *start;
        size_t size, align;
      };
      std::vector<Block> blocks;
      uint64_t bytes = 0;
      for (size_t align = 1; align <= size_t{1} << 16; align *= 2) {
        for (const size_t size : {size_t{0}, size_t{1}, size_t{100}, size_t{5000}}) {
          if (&heap == &heaps[2] && align < sizeof(void *)) continue;  // aligned_alloc's own limit
          auto *const start = static_cast<unsigned char *>(heap.allocate(size, align));
          BOOST_TEST_REQUIRE(start != nullptr);
          BOOST_TEST(reinterpret_cast<uintptr_t>(start) % align == 0u);
          if (size != 0) std::memset(start, static_cast<int>(blocks.size() % 251), size);
          blocks.push_back({start, size, align});
          bytes += size;
        }
      }
      BOOST_TEST(heap.live_bytes() == bytes);
      BOOST_TEST(heap.live_blocks() == blocks.size());
      for (size_t i = 0; i < blocks.size(); ++i) {
        for (size_t k = 0; k < blocks[i].size; ++k) {
          if (blocks[i].start[k] != i % 251) BOOST_ERROR("block " << i << " was overwritten");
        }
        heap.deallocate(blocks[i].start, blocks[i].size, blocks[i].align);
      }
      heap.deallocate(nullptr, 0);
      BOOST_TEST(heap.live_bytes() == 0u);
      BOOST_TEST(heap.live_blocks() == 0u);
    }
  }
  BOOST_TEST(caller.living() == 0u);
  BOOST_TEST(caller.mistakes == 0);
}

BOOST_AUTO_TEST_CASE(blocks_outlive_the_thread_that_made_them) {
  Heap heap;
  constexpr size_t kBlocks = 200;
  for (int round = 0; round < 20; ++round) {
    std::vector<void *> blocks(kBlocks);
    std::thread maker([&] {
      for (size_t i = 0; i < kBlocks; ++i) {
        blocks[i] = heap.allocate(i + 1);
        if (blocks[i] != nullptr) std::memset(blocks[i], static_cast<int>(i % 251), i + 1);
      }
    });
    maker.join();
    for (size_t i = 0; i < kBlocks; ++i) {
      BOOST_TEST_REQUIRE(blocks[i] != nullptr);
      BOOST_TEST(static_cast<unsigned char *>(blocks[i])[i] == i % 251);
    }
    std::thread freer([&] {
      for (size_t i = 0; i < kBlocks; ++i) heap.deallocate(blocks[i], i + 1);
    });
    freer.join();
  }
  BOOST_TEST(heap.live_blocks() == 0u);
}

// ThreadSanitizer does not follow a process that forks after it had threads.
BOOST_AUTO_TEST_CASE(a_forked_child_can_allocate_and_free_what_it_inherited,
                     *boost::unit_test::enable_if<!kThreadSanitizer>()) {
  static Heap heap;
  static void *inherited = heap.allocate(1000);
  BOOST_TEST(child_succeeds(
      [] {
        heap.deallocate(inherited, 1000);
        void *const block = heap.allocate(64);
        if (block == nullptr) return false;
        std::thread([block] { heap.deallocate(block, 64); }).join();
        return heap.live_blocks() == 0;
      },
      false));
  heap.deallocate(inherited, 1000);
}

BOOST_AUTO_TEST_CASE(memory_that_is_not_there_is_null_with_a_text) {
  for (Heap *const heap : {new Heap, new Heap(Heap::Choice::kSystem)}) {
    const std::unique_ptr<Heap> owned(heap);
    if (!kSanitized) {  // the sanitizers' malloc ends the process for such a size
      BOOST_TEST(heap->allocate(size_t{1} << 62) == nullptr);
      BOOST_TEST(std::string(last_error()).find("metadata") != std::string::npos);
    }
    BOOST_TEST(heap->live_blocks() == 0u);
  }
  Caller caller;
  caller.fail_at(1);
  Heap heap(caller.callbacks());
  BOOST_TEST(heap.allocate(8) == nullptr);
  BOOST_TEST(heap.live_bytes() == 0u);
}

// Every allocation of a piece of work fails once; each time it says so, and nothing is lost.
BOOST_AUTO_TEST_CASE(a_vector_survives_the_failure_of_any_of_its_allocations) {
  size_t failures = 0;
  for (size_t nth = 1;; ++nth) {
    Caller caller;
    Heap heap(caller.callbacks());
    caller.fail_at(nth);
    bool ok = true;
    {
      HeapVector<HeapPtr<int>> owners(heap);
      HeapVector<int> numbers(heap);
      for (int i = 0; i < 40 && ok; ++i) {
        HeapPtr<int> owner = heap_make<int>(heap, i);
        ok = owner != nullptr;
        const size_t size = owners.size();
        if (ok && !owners.try_push(std::move(owner))) {
          ok = false;
          BOOST_TEST(owners.size() == size);
        }
        if (ok && !numbers.try_push(i)) {
          ok = false;
          BOOST_TEST(numbers.size() == static_cast<size_t>(i));
        }
      }
      const int more[] = {1, 2, 3};
      if (ok) ok = numbers.try_append(more, 3);
      if (ok) ok = numbers.try_resize(500);
      if (ok) {
        BOOST_TEST(numbers[42] == 3);
        BOOST_TEST(numbers[499] == 0);
        BOOST_TEST(numbers.size() == 500u);
      }
      for (size_t i = 0; i < owners.size(); ++i) BOOST_TEST(*owners[i] == static_cast<int>(i));
      for (size_t i = 0; i < std::min<size_t>(numbers.size(), 40); ++i) {
        BOOST_TEST(numbers[i] == static_cast<int>(i));
      }
      // After the failure memory is there again, and the vectors work on.
      caller.fail_at(0);
      BOOST_TEST(owners.try_push(heap_make<int>(heap, 7)));
      BOOST_TEST(*owners.back() == 7);
    }
    BOOST_TEST(caller.living() == 0u);
    BOOST_TEST(caller.mistakes == 0);
    BOOST_TEST(heap.live_bytes() == 0u);
    if (ok) break;
    ++failures;
  }
  BOOST_TEST(failures > 40u);
}

BOOST_AUTO_TEST_CASE(a_vector_moves_pushes_its_own_elements_and_refuses_absurd_sizes) {
  Heap heap;
  HeapVector<std::string> words(heap);
  BOOST_TEST(words.try_push("a word that is too long for the short string buffer"));
  for (int i = 0; i < 100; ++i) BOOST_TEST_REQUIRE(words.try_push(words[0]));
  HeapVector<std::string> moved(std::move(words));
  BOOST_TEST(words.empty());
  BOOST_TEST(moved.size() == 101u);
  BOOST_TEST(moved.back() == moved[0]);
  moved.pop_back();
  words = std::move(moved);
  BOOST_TEST(words.size() == 100u);
  BOOST_TEST(!words.try_reserve(SIZE_MAX / 2));
  const size_t capacity = words.capacity();
  BOOST_TEST(words.try_reserve(1));
  BOOST_TEST(words.capacity() == capacity);
  words.reset();
  BOOST_TEST(heap.live_blocks() == 0u);
}

BOOST_AUTO_TEST_CASE(a_vector_that_reserves_one_more_each_time_moves_its_elements_rarely) {
  Heap heap;
  HeapVector<uint32_t> numbers(heap);
  size_t moves = 0;
  for (uint32_t i = 0; i < 10000; ++i) {
    const size_t before = numbers.capacity();
    BOOST_TEST_REQUIRE(numbers.try_reserve(numbers.size() + 1));
    if (numbers.capacity() != before) ++moves;
    BOOST_TEST_REQUIRE(numbers.try_push(i));
  }
  BOOST_TEST(moves < 30u);
}

BOOST_AUTO_TEST_CASE(standard_containers_take_the_heap_and_throw_when_it_is_dry) {
  Caller caller;
  Heap heap(caller.callbacks());
  {
    std::vector<int, HeapAllocator<int>> numbers{HeapAllocator<int>(heap)};
    std::map<int, int, std::less<>, HeapAllocator<std::pair<const int, int>>> map{
        HeapAllocator<std::pair<const int, int>>(heap)};
    for (int i = 0; i < 100; ++i) {
      numbers.push_back(i);
      map[i] = i;
    }
    BOOST_TEST(heap.live_blocks() == 101u);
    caller.fail_at(1);
    BOOST_CHECK_THROW(map[1000] = 1, std::bad_alloc);
    BOOST_TEST(map.size() == 100u);
  }
  BOOST_TEST(heap.live_bytes() == 0u);
  BOOST_TEST(caller.mistakes == 0);
}
