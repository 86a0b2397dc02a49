// A host program that libquire is brought into: linked, or by dlopen after another C++ library.
//
//   host PLUGIN LATE                          linked to libquire (HOST_IS_LINKED)
//   host PLUGIN LATE LIBQUIRE local|global    dlopen with RTLD_LOCAL or RTLD_GLOBAL
//
// The library's metadata heap exports malloc and operator new. None of it may reach the host:
//   for every name in kNames: object(name) after == object(name) before, and it is the C library
//   for malloc's family, the C++ library for operator new's; memory taken before the library was
//   loaded is given back after, and the other way around; exceptions still pass between the host
//   and its plugin.
// A dlclose leaves libquire where it is (it has threads and thread-local state): a stream that runs
// goes on, and the library is used again after it.
#include <dlfcn.h>
#include <quire/quire.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

int failures = 0;

void expect(bool holds, const std::string &what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what.c_str());
  ++failures;
}

const std::map<std::string, std::string> kNames = {
    {"malloc", "libc.so"},
    {"free", "libc.so"},
    {"calloc", "libc.so"},
    {"realloc", "libc.so"},
    {"posix_memalign", "libc.so"},
    {"aligned_alloc", "libc.so"},
    {"_Znwm", "libstdc++.so"},
    {"_Znam", "libstdc++.so"},
    {"_ZdlPv", "libstdc++.so"},
    {"_ZdaPv", "libstdc++.so"},
    {"_ZnwmSt11align_val_t", "libstdc++.so"},
};

std::string object_of(void *address) {
  Dl_info info;
  if (address == nullptr || dladdr(address, &info) == 0) return "nowhere";
  return info.dli_fname;
}

// What a name means to a library that is loaded from now on.
std::map<std::string, std::string> bindings() {
  std::map<std::string, std::string> found;
  for (const auto &[name, home] : kNames) {
    found[name] = object_of(dlsym(RTLD_DEFAULT, name.c_str()));
    expect(found[name].find(home) != std::string::npos,
           name + " is of " + home + ", not " + found[name]);
  }
  return found;
}

void *open_or_die(const char *path, int flags) {
  void *library = dlopen(path, flags);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    std::exit(1);
  }
  return library;
}

template <class Function>
Function *symbol(void *library, const char *name) {
  void *address = dlsym(library, name);
  if (address == nullptr) {
    std::fprintf(stderr, "%s: %s\n", name, dlerror());
    std::exit(1);
  }
  return reinterpret_cast<Function *>(address);
}

struct Plugin {
  explicit Plugin(const char *path) : library(open_or_die(path, RTLD_NOW | RTLD_LOCAL)) {}
  void *library;
  std::string *(*make)(const char *) = symbol<std::string *(const char *)>(library,
                                                                           "plugin_string");
  void (*destroy)(std::string *) = symbol<void(std::string *)>(library, "plugin_delete");
  void (*raise)(const std::string &) = symbol<void(const std::string &)>(library, "plugin_throw");
  void *(*operator_new)() = symbol<void *()>(library, "plugin_operator_new");
};

// A string that does not fit into itself, so that it owns memory.
const char *const kLong = "a text that is longer than any string keeps inside of itself, by far";

bool exceptions_pass(const Plugin &plugin) {
  try {
    plugin.raise(kLong);
  } catch (const std::exception &e) {
    return std::strcmp(e.what(), kLong) == 0;
  }
  return false;
}

#ifdef HOST_IS_LINKED
#define QUIRE_CALL(name) name
#else
void *quire_library = nullptr;
#define QUIRE_CALL(name) symbol<decltype(name)>(quire_library, #name)
#endif

bool check(quire_status status, const char *what) {
  if (status == QUIRE_OK) return true;
  std::fprintf(stderr, "%s: %s\n", what, QUIRE_CALL(quire_last_error)());
  ++failures;
  return false;
}

void use_cache() {
  quire_config config;
  quire_cache *cache = nullptr;
  if (!check(QUIRE_CALL(quire_config_init)(&config), "config_init") ||
      !check(QUIRE_CALL(quire_config_parse)(&config,
                                            "device=cpu,layers=2,kv_heads=2,head_dim=64,"
                                            "page_tokens=16,format=nf4,device_pages=64"),
             "config_parse") ||
      !check(QUIRE_CALL(quire_open)(&config, &cache), "open")) {
    return;
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([cache] {
      std::vector<quire_page> pages(4);
      for (int round = 0; round < 100; ++round) {
        std::string grows;
        while (grows.size() < 4096) grows += kLong;
        const auto n = static_cast<uint32_t>(pages.size());
        if (QUIRE_CALL(quire_alloc)(cache, n, nullptr, pages.data()) == QUIRE_OK) {
          QUIRE_CALL(quire_free)(cache, pages.data(), n);
        }
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  check(QUIRE_CALL(quire_close)(cache), "close");
}

#ifndef HOST_IS_LINKED
// A stream works while the host closes the library, and until the host has opened it again.
void close_under_work(const char *path, int flags) {
  std::atomic<bool> go{false}, done{false};
  struct Work {
    std::atomic<bool> *go, *done;
  } work{&go, &done};
  quire_stream stream = nullptr;
  if (!check(QUIRE_CALL(quire_cpu_stream_create)(&stream), "cpu_stream_create")) return;
  const auto run = [](void *at) {
    const auto &w = *static_cast<Work *>(at);
    while (!w.go->load()) std::this_thread::yield();
    w.done->store(true);
  };
  check(QUIRE_CALL(quire_cpu_stream_launch)(stream, run, &work), "cpu_stream_launch");
  const std::string home = object_of(dlsym(quire_library, "quire_open"));
  void *const code = dlsym(quire_library, "quire_open");
  dlclose(quire_library);
  expect(object_of(code) == home, "the library is where it was");
  go = true;
  while (!done.load()) std::this_thread::yield();
  quire_library = open_or_die(path, flags);
  check(QUIRE_CALL(quire_cpu_stream_destroy)(stream), "cpu_stream_destroy");
}
#endif

}  // namespace

int main(int argc, char **argv) {
#ifdef HOST_IS_LINKED
  if (argc != 3) return 2;
#else
  if (argc != 5) return 2;
#endif
  const Plugin plugin(argv[1]);
  std::string *of_plugin = plugin.make(kLong);
  auto *of_host = new std::string(kLong);
  void *block = std::malloc(100000);
  const auto before = bindings();
  const std::string plugin_before = object_of(plugin.operator_new());
  expect(exceptions_pass(plugin), "exceptions pass before");

#ifndef HOST_IS_LINKED
  const int scope = std::strcmp(argv[4], "global") == 0 ? RTLD_GLOBAL : RTLD_LOCAL;
  // The test's own wish for lazy binding; LD_BIND_NOW overrides it.
  quire_library = open_or_die(argv[3], RTLD_LAZY | scope);
#endif
  for (int round = 0; round < 2; ++round) {
    use_cache();
    expect(bindings() == before, "names mean what they meant");
    expect(object_of(plugin.operator_new()) == plugin_before,
           "the plugin's operator new is the same");
    const Plugin late(argv[2]);
    expect(object_of(late.operator_new()) == plugin_before, "so is that of a library loaded later");
    expect(exceptions_pass(plugin), "exceptions pass after");
    late.destroy(new std::string(kLong));
    delete late.make(kLong);
  }

#ifndef HOST_IS_LINKED
  close_under_work(argv[3], RTLD_LAZY | scope);
  use_cache();
#endif

  // What was taken before goes back now, by the other side each.
  delete of_plugin;
  plugin.destroy(of_host);
  block = std::realloc(block, 200000);
  std::free(block);
  if (failures == 0) std::puts("the host's allocator is its own");
  return failures == 0 ? 0 : 1;
}
