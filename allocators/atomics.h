// Atomics: the seam through which every lock-free algorithm of Quire touches shared memory.
//
// An algorithm is a template over `class A = StdAtomics` and uses `typename A::template atomic<T>`
// for every word that two threads may touch. In the library that is std::atomic, at no cost. In the
// model tests it is a word whose every operation hands the processor to a seeded scheduler
// (tests/support/scheduler.h), so that one execution in a thousand becomes one test among
// thousands; and which may, as far as its memory order allows, read values that are not the newest
// (tests/support/weak_atomics.h), so that an order that is too weak fails a test.
//
// Words of the region are placed in memory that several processes may map, so they must be lock
// free and must hold nothing but their value: both are asserted below. Structures over the region
// are views: they hold a pointer into it and the region holds none.
//
// Every change to a word that others may be changing is a read-modify-write. ThreadSanitizer does
// not model fences, so there are none: an order is always on an operation, and names its partner.
#ifndef QUIRE_ALLOCATORS_ATOMICS_H_
#define QUIRE_ALLOCATORS_ATOMICS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace quire {

// "No such page, frame or slot", for every index in the region.
inline constexpr uint32_t kNone = UINT32_MAX;

// The unit in which cores exchange memory; 64 on every machine that Quire is built for.
inline constexpr size_t kCacheLine = 64;

struct StdAtomics {
  template <class T>
  using atomic = std::atomic<T>;
  // A member that one thread at a time may touch; model tests check every access of it.
  template <class T>
  using plain = T;

  // A small number of the calling thread, dense over the life of the process: it spreads threads
  // over cursors and shards, and never decides anything.
  static uint32_t thread_index() noexcept {
    static std::atomic<uint32_t> threads{0};
    // relaxed: a number, read by nobody else.
    static thread_local const uint32_t index = threads.fetch_add(1, std::memory_order_relaxed);
    return index;
  }
};

static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(std::atomic<uint32_t>::is_always_lock_free);
static_assert(std::atomic<uint8_t>::is_always_lock_free);
static_assert(sizeof(std::atomic<uint64_t>) == 8 && sizeof(std::atomic<uint32_t>) == 4 &&
              sizeof(std::atomic<uint16_t>) == 2 && sizeof(std::atomic<uint8_t>) == 1);

inline void prefetch(const void *address) noexcept {
  __builtin_prefetch(address, 0, 3);
}
// With the right to write. Compilers make a plain prefetch of that where they are not told that the
// processor has prefetchw; those for x86-64 that lack it take it for a long nop.
inline void prefetch_for_write(const void *address) noexcept {
#ifdef __x86_64__
  __asm__ volatile("prefetchw %0" : : "m"(*static_cast<const char *>(address)));
#else
  __builtin_prefetch(address, 1, 3);
#endif
}

// How an array in the region is laid out: every part of a view starts at a multiple of `alignment`.
constexpr size_t align_up(size_t bytes, size_t alignment) noexcept {
  return (bytes + alignment - 1) / alignment * alignment;
}

}  // namespace quire

#endif  // QUIRE_ALLOCATORS_ATOMICS_H_
