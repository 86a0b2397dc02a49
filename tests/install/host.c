/* A host without a C++ library of its own, as an interpreter is one: the first library that brings one
 * decides what operator new means to those that come later.
 *
 *   host PLUGIN LATE LIBQUIRE local|global
 *
 * PLUGIN, then libquire, then LATE are loaded. Whatever libquire brings along, LATE's operator new has
 * to be PLUGIN's: strings made by one are given back by the other. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <quire/quire.h>
#include <stdio.h>
#include <string.h>

static int failures = 0;

static void expect(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "does not hold: %s\n", what);
  ++failures;
}

/* ISO C has no cast from an object's address to a function's; POSIX promises that the bytes agree. */
static void find(void *library, const char *name, void *function) {
  void *address = dlsym(library, name);
  if (address == NULL) fprintf(stderr, "%s\n", dlerror());
  expect(address != NULL, name);
  memcpy(function, &address, sizeof address);
}

typedef struct plugin {
  void *library;
  void *(*make)(const char *);
  void (*destroy)(void *);
  void *(*operator_new)(void);
} plugin;

static int load(plugin *p, const char *path) {
  p->library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
  if (p->library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 0;
  }
  find(p->library, "plugin_string", &p->make);
  find(p->library, "plugin_delete", &p->destroy);
  find(p->library, "plugin_operator_new", &p->operator_new);
  return failures == 0;
}

static const char *home_of(void *address) {
  Dl_info info;
  return dladdr(address, &info) != 0 ? info.dli_fname : "nowhere";
}

static void use_cache(void *library) {
  quire_status (*config_init)(quire_config *);
  quire_status (*config_parse)(quire_config *, const char *);
  quire_status (*open_cache)(const quire_config *, quire_cache **);
  quire_status (*close_cache)(quire_cache *);
  quire_config config;
  quire_cache *cache = NULL;
  find(library, "quire_config_init", &config_init);
  find(library, "quire_config_parse", &config_parse);
  find(library, "quire_open", &open_cache);
  find(library, "quire_close", &close_cache);
  if (failures != 0) return;
  expect(config_init(&config) == QUIRE_OK, "config_init");
  expect(config_parse(&config,
                      "device=cpu,layers=2,kv_heads=2,head_dim=64,page_tokens=16,format=nf4,"
                      "device_pages=64") == QUIRE_OK,
         "config_parse");
  expect(open_cache(&config, &cache) == QUIRE_OK, "open");
  expect(close_cache(cache) == QUIRE_OK, "close");
}

int main(int argc, char **argv) {
  static const char *const text = "a text that is longer than any string keeps inside of itself";
  plugin first, late;
  void *library, *string;
  if (argc != 5) return 2;
  if (!load(&first, argv[1])) return 1;
  string = first.make(text);

  library =
      dlopen(argv[3], RTLD_LAZY | (strcmp(argv[4], "global") == 0 ? RTLD_GLOBAL : RTLD_LOCAL));
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  use_cache(library);

  if (!load(&late, argv[2])) return 1;
  expect(strstr(home_of(late.operator_new()), "libstdc++.so") != NULL,
         "operator new is libstdc++'s");
  expect(late.operator_new() == first.operator_new(), "both plugins have one operator new");
  if (failures == 0) {
    late.destroy(string);
    first.destroy(late.make(text));
    puts("the host's allocator is its own");
  }
  return failures == 0 ? 0 : 1;
}
