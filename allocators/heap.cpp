#include "allocators/heap.h"

#include <dlfcn.h>
#include <pthread.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define QUIRE_HEAP_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define QUIRE_HEAP_SANITIZED 1
#endif
#endif

#ifndef QUIRE_MIMALLOC_SONAME
#define QUIRE_MIMALLOC_SONAME "libmimalloc.so.2"
#endif

namespace quire {
namespace {

void *system_alloc(size_t size, size_t align, void *) {
  if (align <= alignof(std::max_align_t)) return std::malloc(size != 0 ? size : 1);
  void *block = nullptr;
  return posix_memalign(&block, align, size != 0 ? size : 1) == 0 ? block : nullptr;
}

void system_free(void *pointer, size_t, size_t, void *) {
  std::free(pointer);
}

// What is used of mimalloc. Present for the life of the process, or not at all.
struct Mimalloc {
  void *(*malloc_aligned)(size_t size, size_t align) = nullptr;
  void (*free)(void *) = nullptr;
  char name[32] = {};

  bool present() const noexcept { return malloc_aligned != nullptr; }
};

template <class Function>
bool find(void *library, const char *name, Function *function) noexcept {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

// mimalloc asks for a key of thread-specific data as it loads, and goes on without one: then what
// ended threads held is never given back. A process without keys is better off with malloc.
[[maybe_unused]] bool thread_keys_are_left() noexcept {
  pthread_key_t key;
  return pthread_key_create(&key, nullptr) == 0 && pthread_key_delete(key) == 0;
}

Mimalloc load_mimalloc() noexcept {
  Mimalloc loaded;
#ifndef QUIRE_HEAP_SANITIZED
  if (!thread_keys_are_left()) return loaded;
  // RTLD_LOCAL: its malloc and operator new stay out of the host's scope. RTLD_NODELETE: threads
  // run its destructor of thread-specific data when they end, so its code has to stay.
  void *const library = dlopen(QUIRE_MIMALLOC_SONAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    dlerror();  // the next dlopen of the host should not find our text
    return loaded;
  }
  int (*version)() = nullptr;
  Mimalloc found;
  if (find(library, "mi_version", &version) && find(library, "mi_free", &found.free) &&
      find(library, "mi_malloc_aligned", &found.malloc_aligned)) {
    const int number = version();
    std::snprintf(found.name, sizeof found.name, "mimalloc %d.%d.%d", number / 100,
                  number / 10 % 10, number % 10);
    loaded = found;
  }
#endif
  return loaded;
}

const Mimalloc &mimalloc() noexcept {
  static const Mimalloc loaded = load_mimalloc();
  return loaded;
}

void *mimalloc_alloc(size_t size, size_t align, void *) {
  return mimalloc().malloc_aligned(size, align);
}

void mimalloc_free(void *pointer, size_t, size_t, void *) {
  mimalloc().free(pointer);
}

}  // namespace

Heap::Heap(Choice choice) noexcept : calls_{system_alloc, system_free}, backend_("system") {
  if (choice == Choice::kBest && mimalloc().present()) {
    calls_ = {mimalloc_alloc, mimalloc_free};
    backend_ = mimalloc().name;
  }
}

Heap::Heap(const HeapCallbacks &callbacks) noexcept : calls_(callbacks), backend_("caller") {}

void *Heap::allocate(size_t size, size_t align) noexcept {
  void *const block = calls_.alloc(size, align, calls_.user);
  if (block == nullptr) {
    (void)set_error(Status::kNomem, "%zu bytes of metadata (%s)", size, backend_);
    return nullptr;
  }
  live_bytes_.fetch_add(size, std::memory_order_relaxed);
  live_blocks_.fetch_add(1, std::memory_order_relaxed);
  return block;
}

void Heap::deallocate(void *pointer, size_t size, size_t align) noexcept {
  if (pointer == nullptr) return;
  live_bytes_.fetch_sub(size, std::memory_order_relaxed);
  live_blocks_.fetch_sub(1, std::memory_order_relaxed);
  calls_.free(pointer, size, align, calls_.user);
}

}  // namespace quire
