// The public header from C++: constants, the C calls, and the C++ wrappers where the release has
// them.
#include <quire/quire.h>

#if __has_include(<quire/quire.hpp>)
#include <quire/quire.hpp>
#endif

#include <iostream>
#include <string>

int main() {
  if (quire_version() != QUIRE_VERSION_NUMBER) return 1;
  quire_config config;
  quire_cache *cache = nullptr;
  if (quire_config_init(&config) != QUIRE_OK ||
      quire_config_parse(&config,
                         "device=cpu,layers=2,kv_heads=2,head_dim=64,page_tokens=16,format=nf4,"
                         "device_pages=64") != QUIRE_OK ||
      quire_open(&config, &cache) != QUIRE_OK) {
    std::cerr << quire_last_error() << "\n";
    return 1;
  }
  const std::string model = "a model";
  const quire_field field = {QUIRE_FIELD_MODEL, static_cast<uint32_t>(model.size()), model.data()};
  quire_key root = {};
  const bool good = quire_root_key(cache, &field, 1, &root) == QUIRE_OK && (root.lo | root.hi) != 0;
  return quire_close(cache) == QUIRE_OK && good ? 0 : 1;
}
