// Heap: memory for metadata: tables of a cache, leases, queues. Frames come from arenas.
//
// Three backends, and backend() says which:
//   "mimalloc 2.0.9"  its functions by name, from a privately loaded library. The default.
//   "system"          the C library's: where mimalloc is not found or not asked for, and in builds
//                     with a sanitizer, so that leaks and overruns are seen
//   "caller"          the caller's callbacks
//
// The host program's malloc is never touched: libmimalloc exports malloc, free and operator new, so
// it is not linked but loaded with RTLD_LOCAL and used through its mi_ names alone. Record:
// decisions/heap-mimalloc.md. It is loaded once a process and never unloaded: threads that used it
// run its clean-up when they end.
//
// Nothing here throws or aborts for want of memory. allocate() returns null and leaves an error
// text; HeapVector's and heap_make's failures are values. Code that is noexcept uses those;
// HeapAllocator, for standard containers, throws std::bad_alloc and belongs inside a try block.
//
// Invariants
//   live_bytes() == the sum of the sizes of allocate() not yet given to deallocate()
//   live_blocks() == their number; both 0 when the owner of a heap has given everything back
//   allocate(size, align) % align == 0
//
// Any thread, also to free what another thread allocated. Cost: that of the backend, and two
// relaxed atomic adds on counters that all threads share, which is why nothing on the path of a
// token or a page allocates here.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "allocators/status.h"

namespace quire {

// The caller's allocator. alloc may return null; free gets the size and alignment that alloc got.
// Neither may throw. Called from any thread.
struct HeapCallbacks {
  void *(*alloc)(size_t size, size_t align, void *user) = nullptr;
  void (*free)(void *pointer, size_t size, size_t align, void *user) = nullptr;
  void *user = nullptr;
};

class Heap {
 public:
  enum class Choice : uint8_t { kBest, kSystem };

  explicit Heap(Choice choice = Choice::kBest) noexcept;
  explicit Heap(const HeapCallbacks &callbacks) noexcept;  // both functions are set
  Heap(const Heap &) = delete;
  Heap &operator=(const Heap &) = delete;

  // `align` is a power of two. Null, with an error text, when there is no memory. A size of 0 is a
  // block of its own.
  void *allocate(size_t size, size_t align = alignof(std::max_align_t)) noexcept;
  void deallocate(void *pointer, size_t size, size_t align = alignof(std::max_align_t)) noexcept;

  const char *backend() const noexcept { return backend_; }
  // relaxed: counters for stats and tests; they order nothing.
  uint64_t live_bytes() const noexcept { return live_bytes_.load(std::memory_order_relaxed); }
  uint64_t live_blocks() const noexcept { return live_blocks_.load(std::memory_order_relaxed); }

 private:
  HeapCallbacks calls_;
  const char *backend_;
  std::atomic<uint64_t> live_bytes_{0};
  std::atomic<uint64_t> live_blocks_{0};
};

// For standard containers. Throws std::bad_alloc.
template <class T>
class HeapAllocator {
 public:
  using value_type = T;

  explicit HeapAllocator(Heap &heap) noexcept : heap_(&heap) {}
  template <class U>
  HeapAllocator(const HeapAllocator<U> &other) noexcept : heap_(&other.heap()) {}

  T *allocate(size_t n) {
    if (n > SIZE_MAX / sizeof(T)) throw std::bad_array_new_length();
    void *const block = heap_->allocate(n * sizeof(T), alignof(T));
    if (block == nullptr) throw std::bad_alloc();
    return static_cast<T *>(block);
  }
  void deallocate(T *pointer, size_t n) noexcept {
    heap_->deallocate(pointer, n * sizeof(T), alignof(T));
  }

  Heap &heap() const noexcept { return *heap_; }
  friend bool operator==(const HeapAllocator &a, const HeapAllocator &b) noexcept {
    return a.heap_ == b.heap_;
  }

 private:
  Heap *heap_;
};

// The deleter of what heap_make made. It holds for a T exactly, not for classes derived from it.
template <class T>
struct HeapDelete {
  Heap *heap = nullptr;
  void operator()(T *object) const noexcept {
    object->~T();
    heap->deallocate(object, sizeof(T), alignof(T));
  }
};

template <class T>
using HeapPtr = std::unique_ptr<T, HeapDelete<T>>;

// Null when there is no memory. T's constructor must not throw.
template <class T, class... Args>
HeapPtr<T> heap_make(Heap &heap, Args &&...args) noexcept {
  static_assert(std::is_nothrow_constructible_v<T, Args...>);
  void *const block = heap.allocate(sizeof(T), alignof(T));
  if (block == nullptr) return HeapPtr<T>(nullptr, HeapDelete<T>{&heap});
  return HeapPtr<T>(::new (block) T(std::forward<Args>(args)...), HeapDelete<T>{&heap});
}

// A vector whose growth can fail without throwing: try_ functions return false when there
// is no memory, and then nothing has changed. The way to use it in noexcept code is to reserve
// first, while nothing has to be undone, and to push afterwards.
//
//   size() <= capacity(); data() is stable while size() <= the last reserve
template <class T>
class HeapVector {
  static_assert(std::is_nothrow_move_constructible_v<T> && std::is_nothrow_destructible_v<T>);

 public:
  explicit HeapVector(Heap &heap) noexcept : heap_(&heap) {}
  HeapVector(HeapVector &&other) noexcept
      : heap_(other.heap_),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  HeapVector &operator=(HeapVector &&other) noexcept {
    if (this != &other) {
      reset();
      heap_ = other.heap_;
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
      capacity_ = std::exchange(other.capacity_, 0);
    }
    return *this;
  }
  ~HeapVector() { reset(); }

  // Room for that many; where it must grow, by half at the least, so that reserving one more each
  // time costs O(1) an element.
  [[nodiscard]] bool try_reserve(size_t capacity) noexcept {
    if (capacity <= capacity_) return true;
    if (capacity > SIZE_MAX / sizeof(T)) return false;
    capacity = grown(capacity);
    void *const block = heap_->allocate(capacity * sizeof(T), alignof(T));
    if (block == nullptr) return false;
    T *const moved = static_cast<T *>(block);
    for (size_t i = 0; i < size_; ++i) {
      ::new (static_cast<void *>(moved + i)) T(std::move(data_[i]));
      data_[i].~T();
    }
    if (data_ != nullptr) heap_->deallocate(data_, capacity_ * sizeof(T), alignof(T));
    data_ = moved;
    capacity_ = capacity;
    return true;
  }

  // `value` may be a copy of an element of this vector. It is gone when the push fails.
  [[nodiscard]] bool try_push(T value) noexcept {
    if (size_ == capacity_ && !try_reserve(size_ + 1)) return false;
    ::new (static_cast<void *>(data_ + size_)) T(std::move(value));
    ++size_;
    return true;
  }

  // New elements are value-initialised.
  [[nodiscard]] bool try_resize(size_t size) noexcept {
    static_assert(std::is_nothrow_default_constructible_v<T>);
    if (size > capacity_ && !try_reserve(size)) return false;
    while (size_ > size) pop_back();
    for (; size_ < size; ++size_) ::new (static_cast<void *>(data_ + size_)) T();
    return true;
  }

  [[nodiscard]] bool try_append(const T *values, size_t n) noexcept {
    static_assert(std::is_nothrow_copy_constructible_v<T>);
    if (n > SIZE_MAX - size_) return false;
    if (size_ + n > capacity_ && !try_reserve(size_ + n)) return false;
    for (size_t i = 0; i < n; ++i, ++size_) ::new (static_cast<void *>(data_ + size_)) T(values[i]);
    return true;
  }

  void pop_back() noexcept { data_[--size_].~T(); }
  void clear() noexcept {
    while (size_ != 0) pop_back();
  }
  // Also gives the memory back.
  void reset() noexcept {
    clear();
    if (data_ != nullptr) heap_->deallocate(data_, capacity_ * sizeof(T), alignof(T));
    data_ = nullptr;
    capacity_ = 0;
  }

  T *data() noexcept { return data_; }
  const T *data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  size_t capacity() const noexcept { return capacity_; }
  bool empty() const noexcept { return size_ == 0; }
  T &operator[](size_t i) noexcept { return data_[i]; }
  const T &operator[](size_t i) const noexcept { return data_[i]; }
  T &back() noexcept { return data_[size_ - 1]; }
  const T &back() const noexcept { return data_[size_ - 1]; }
  T *begin() noexcept { return data_; }
  T *end() noexcept { return data_ + size_; }
  const T *begin() const noexcept { return data_; }
  const T *end() const noexcept { return data_ + size_; }

 private:
  // Half as much again, so that n pushes move O(n) elements and freed blocks can be reused.
  size_t grown(size_t needed) const noexcept {
    const size_t more = capacity_ + capacity_ / 2;
    return more > needed ? more : needed;
  }

  Heap *heap_;
  T *data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace quire
