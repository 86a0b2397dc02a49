// What tests of the C API share: a small cache, prefixes of it, and terse calls.
//
// Checks are Boost's; a call that must succeed and does not is fatal, with quire_last_error.
#ifndef QUIRE_TESTS_SUPPORT_API_FIXTURE_H_
#define QUIRE_TESTS_SUPPORT_API_FIXTURE_H_

#include <boost/test/unit_test.hpp>

#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "quire/quire.h"

#define QUIRE_OK_OR_DIE(call)                                                                     \
  do {                                                                                            \
    const quire_status status_ = (call);                                                          \
    BOOST_REQUIRE_MESSAGE(status_ == QUIRE_OK, #call ": " << quire_status_string(status_) << ": " \
                                                          << quire_last_error());                 \
  } while (false)

// Fails with that status, and says why.
#define QUIRE_FAILS(call, want)                                                         \
  do {                                                                                  \
    const quire_status status_ = (call);                                                \
    BOOST_CHECK_MESSAGE(status_ == (want), #call ": " << quire_status_string(status_)); \
    BOOST_CHECK_MESSAGE(status_ != QUIRE_OK && quire_last_error()[0] != '\0',           \
                        #call ": no sentence");                                         \
  } while (false)

namespace quire::test {

template <class T>
T sized_struct() {
  T s;
  QUIRE_INIT(&s);
  return s;
}

inline quire_config small_config(const char *more = "format=f32,device_pages=16") {
  quire_config config;
  QUIRE_OK_OR_DIE(quire_config_init(&config));
  QUIRE_OK_OR_DIE(quire_config_parse(
      &config,
      "device=cpu,layers=1,kv_heads=1,head_dim=16,page_tokens=16,epoch_ms=none,segment=-"));
  QUIRE_OK_OR_DIE(quire_config_parse(&config, more));
  config.segment = "-";
  return config;
}

class ApiFixture {
 public:
  explicit ApiFixture(const quire_config &config = small_config()) {
    QUIRE_OK_OR_DIE(quire_open(&config, &cache));
    root = root_of(1);
  }
  ~ApiFixture() {
    if (cache == nullptr) return;
    BOOST_CHECK_MESSAGE(quire_check(cache, 0) == QUIRE_OK, quire_last_error());
    BOOST_CHECK_MESSAGE(quire_close(cache) == QUIRE_OK, quire_last_error());
  }
  ApiFixture(const ApiFixture &) = delete;
  ApiFixture &operator=(const ApiFixture &) = delete;

  quire_key root_of(uint32_t tenant) {
    const quire_field field = {QUIRE_FIELD_TENANT, sizeof tenant, &tenant};
    quire_key key;
    QUIRE_OK_OR_DIE(quire_root_key(cache, &field, 1, &key));
    return key;
  }
  // Keys of n pages of a prompt that `what` tells from others.
  std::vector<quire_key> keys_of(uint32_t what, size_t n, const quire_key *from = nullptr) {
    std::vector<uint32_t> tokens(n * 16, what);
    std::vector<quire_key> keys(n);
    size_t count = n;
    QUIRE_OK_OR_DIE(quire_chain_keys(cache, from != nullptr ? from : &root, tokens.data(),
                                     tokens.size(), nullptr, 0, keys.data(), &count));
    return keys;
  }
  quire_prefix prefix_of(const std::vector<quire_key> &keys) const {
    auto prefix = sized_struct<quire_prefix>();
    prefix.n = static_cast<uint32_t>(keys.size());
    prefix.root = root;
    prefix.keys = keys.data();
    return prefix;
  }
  quire_lease acquire(const std::vector<quire_key> &keys, uint32_t *hit_pages = nullptr,
                      quire_page *pages = nullptr, quire_stream stream = nullptr) {
    const quire_prefix prefix = prefix_of(keys);
    auto hit = sized_struct<quire_hit>();
    auto options = sized_struct<quire_acquire_options>();
    options.stream = stream;
    quire_lease lease = 0;
    QUIRE_OK_OR_DIE(quire_acquire(cache, &prefix, &options, pages, &hit, &lease));
    if (hit_pages != nullptr) *hit_pages = hit.pages;
    return lease;
  }
  void release(quire_lease lease) { QUIRE_OK_OR_DIE(quire_release(cache, lease, nullptr)); }
  uint32_t match(const std::vector<quire_key> &keys) {
    const quire_prefix prefix = prefix_of(keys);
    auto hit = sized_struct<quire_hit>();
    QUIRE_OK_OR_DIE(quire_match(cache, &prefix, &hit));
    return hit.pages;
  }
  quire_status alloc(uint32_t n, quire_lease lease, quire_page *pages,
                     quire_stream stream = nullptr) {
    auto options = sized_struct<quire_alloc_options>();
    options.lease = lease;
    options.stream = stream;
    return quire_alloc(cache, n, &options, pages);
  }
  quire_status publish(quire_lease lease, const std::vector<quire_key> &keys, quire_page *pages,
                       quire_publish_result *result, uint32_t flags = 0,
                       quire_stream stream = nullptr) {
    const quire_prefix prefix = prefix_of(keys);
    auto options = sized_struct<quire_publish_options>();
    options.flags = flags;
    options.stream = stream;
    return quire_publish(cache, lease, &prefix, pages, &options, result);
  }
  // All of keys[] published and released.
  void fill(const std::vector<quire_key> &keys) {
    std::vector<quire_page> pages(keys.size());
    uint32_t hit = 0;
    const quire_lease lease = acquire(keys, &hit, pages.data());
    QUIRE_OK_OR_DIE(alloc(static_cast<uint32_t>(keys.size()) - hit, lease, pages.data() + hit));
    QUIRE_OK_OR_DIE(publish(lease, keys, pages.data(), nullptr));
    release(lease);
  }
  quire_stats stats() {
    auto stats = sized_struct<quire_stats>();
    QUIRE_OK_OR_DIE(quire_stats_get(cache, &stats));
    return stats;
  }
  uint32_t *data(quire_page page, size_t *words = nullptr) {
    void *at = nullptr;
    size_t bytes = 0;
    QUIRE_OK_OR_DIE(quire_page_data(cache, page, &at, &bytes));
    if (words != nullptr) *words = bytes / sizeof(uint32_t);
    return static_cast<uint32_t *>(at);
  }

  quire_cache *cache = nullptr;
  quire_key root{};
};

}  // namespace quire::test

#endif  // QUIRE_TESTS_SUPPORT_API_FIXTURE_H_
