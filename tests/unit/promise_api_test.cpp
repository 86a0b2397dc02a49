// The promises about the API that one process without a GPU can show, each test named after its
// number. Elsewhere: 1 and 10 in promise_reuse_test.cpp; 5 for every call in
// model/api_oracle_test.cpp; 6 between any two atomics in the model tests; 9 in
// codec_targets_test.cpp. 7 and 8 are about tiers that this version does not have.
#define BOOST_TEST_MODULE promise_api
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <thread>

#include "tests/support/api_fixture.h"

using namespace quire::test;

BOOST_AUTO_TEST_CASE(promise_2_a_hit_is_of_these_tokens_in_this_namespace) {
  ApiFixture f(small_config("format=f32,device_pages=16,verify_tokens=1"));
  std::vector<uint32_t> tokens(32, 5);
  std::vector<quire_key> keys(2);
  size_t n = 2;
  QUIRE_OK_OR_DIE(
      quire_chain_keys(f.cache, &f.root, tokens.data(), 32, nullptr, 0, keys.data(), &n));
  quire_prefix prefix = f.prefix_of(keys);
  prefix.tokens = tokens.data();
  quire_page pages[2];
  quire_lease lease = 0;
  auto hit = sized_struct<quire_hit>();
  QUIRE_OK_OR_DIE(quire_acquire(f.cache, &prefix, nullptr, nullptr, &hit, &lease));
  QUIRE_OK_OR_DIE(f.alloc(2, lease, pages));
  QUIRE_OK_OR_DIE(quire_publish(f.cache, lease, &prefix, pages, nullptr, nullptr));
  f.release(lease);
  QUIRE_OK_OR_DIE(quire_acquire(f.cache, &prefix, nullptr, nullptr, &hit, &lease));
  BOOST_TEST(hit.pages == 2u);
  f.release(lease);
  // The same keys, as a collision would give them, with other tokens in the second page.
  tokens[20] = 6;
  QUIRE_OK_OR_DIE(quire_acquire(f.cache, &prefix, nullptr, nullptr, &hit, &lease));
  BOOST_TEST(hit.pages == 1u);
  f.release(lease);
  BOOST_TEST(f.stats().token_mismatches_total == 1u);
  // The same tokens in another namespace.
  tokens[20] = 5;
  const quire_key other = f.root_of(2);
  QUIRE_OK_OR_DIE(
      quire_chain_keys(f.cache, &other, tokens.data(), 32, nullptr, 0, keys.data(), &n));
  QUIRE_OK_OR_DIE(quire_match(f.cache, &prefix, &hit));
  BOOST_TEST(hit.pages == 0u);
}

// Else its pages would outlive their parents when that one is evicted.
BOOST_AUTO_TEST_CASE(promise_2_a_chain_stays_in_the_namespace_it_began_in) {
  ApiFixture f;
  const auto keys = f.keys_of(9, 2);
  f.fill({keys[0]});
  const quire_lease lease = f.acquire(keys);
  quire_page pages[2] = {};
  QUIRE_OK_OR_DIE(f.alloc(1, lease, pages + 1));
  quire_prefix wrong = f.prefix_of(keys);
  wrong.root = f.root_of(2);
  QUIRE_FAILS(quire_publish(f.cache, lease, &wrong, pages, nullptr, nullptr), QUIRE_E_INVALID);
  f.release(lease);
}

BOOST_AUTO_TEST_CASE(promise_3_root_fields_never_alias) {
  ApiFixture f;
  const std::string parts[] = {"", "a", "b", "ab", std::string(1, '\0'), std::string(9, 'a')};
  std::set<std::pair<uint64_t, uint64_t>> seen;
  const auto add = [&](const std::vector<quire_field> &fields) {
    quire_key key;
    QUIRE_OK_OR_DIE(quire_root_key(f.cache, fields.data(), fields.size(), &key));
    BOOST_TEST(seen.insert({key.lo, key.hi}).second);
  };
  const auto field = [](uint32_t type, const std::string &text) {
    return quire_field{type, static_cast<uint32_t>(text.size()), text.data()};
  };
  add({});
  for (const uint32_t type : {QUIRE_FIELD_MODEL, QUIRE_FIELD_ADAPTER, QUIRE_FIELD_USER}) {
    for (const std::string &x : parts) {
      add({field(type, x)});
      for (const uint32_t second : {QUIRE_FIELD_MODEL, QUIRE_FIELD_TENANT}) {
        for (const std::string &y : parts) add({field(type, x), field(second, y)});
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(promise_4_double_frees_and_old_and_foreign_handles_change_nothing) {
  ApiFixture f, other;
  quire_page pages[4], foreign;
  QUIRE_OK_OR_DIE(f.alloc(4, 0, pages));
  QUIRE_OK_OR_DIE(other.alloc(1, 0, &foreign));
  const quire_page twice[] = {pages[0], pages[1], pages[0]};
  QUIRE_FAILS(quire_free(f.cache, twice, 3), QUIRE_E_INVALID);
  const quire_page with_foreign[] = {pages[0], foreign};
  QUIRE_FAILS(quire_free(f.cache, with_foreign, 2), QUIRE_E_STALE);
  BOOST_TEST(f.stats().pages_private == 4u);
  QUIRE_OK_OR_DIE(quire_free(f.cache, pages, 4));
  QUIRE_FAILS(quire_free(f.cache, pages, 1), QUIRE_E_STALE);
  // The page's number has a new owner: the old handle still is stale.
  quire_page again[16];
  QUIRE_OK_OR_DIE(f.alloc(16, 0, again));
  for (const quire_page page : pages) QUIRE_FAILS(quire_free(f.cache, &page, 1), QUIRE_E_STALE);
  BOOST_TEST(f.stats().pages_private == 16u);
  for (uint64_t bits = 0; bits < 64; ++bits) {
    const quire_page wrong = again[0] ^ uint64_t { 1 } << bits;
    if (std::find(again, again + 16, wrong) != again + 16) continue;
    QUIRE_FAILS(quire_free(f.cache, &wrong, 1), QUIRE_E_STALE);
  }
  QUIRE_OK_OR_DIE(quire_free(f.cache, again, 16));
  QUIRE_OK_OR_DIE(quire_free(other.cache, &foreign, 1));
}

// Nobody is given handles of a sequence's private pages. Made up, they are refused: the sequence has
// those pages until it publishes or frees them.
BOOST_AUTO_TEST_CASE(promise_4_a_sequence_s_pages_are_nobody_else_s) {
  ApiFixture f(small_config("format=nf4,device_pages=16,open_pages=4"));
  const auto keys = f.keys_of(9, 1);
  quire_page mine;
  QUIRE_OK_OR_DIE(f.alloc(1, 0, &mine));
  quire_seq seq, fork;
  std::vector<uint32_t> tokens(40, 7);
  std::vector<int64_t> slots(tokens.size());
  const auto options = sized_struct<quire_seq_options>();
  QUIRE_OK_OR_DIE(quire_seq_open(f.cache, &f.root, tokens.data(), 1, &options, nullptr, &seq));
  QUIRE_OK_OR_DIE(quire_seq_append(f.cache, seq, 40, nullptr, slots.data()));
  const auto refused = [&] {
    const quire_lease lease = f.acquire({keys[0]});
    size_t busy = 0;
    for (uint64_t index = 0; index < 20; ++index) {
      const quire_page made_up = mine >> 32 << 32 | index;
      if (made_up == mine) continue;
      const quire_status status = quire_free(f.cache, &made_up, 1);
      BOOST_TEST((status == QUIRE_E_STALE || status == QUIRE_E_BUSY || status == QUIRE_E_INVALID));
      busy += status == QUIRE_E_BUSY ? 1U : 0U;
      QUIRE_FAILS(quire_seal(f.cache, &made_up, 1, nullptr), status);
      quire_page page = made_up;
      auto prefix = sized_struct<quire_prefix>();
      prefix.n = 1;
      prefix.root = f.root;
      prefix.keys = keys.data();
      QUIRE_FAILS(quire_publish(f.cache, lease, &prefix, &page, nullptr, nullptr), status);
    }
    f.release(lease);
    return busy;
  };
  BOOST_TEST(refused() == 3u);
  QUIRE_OK_OR_DIE(quire_seq_commit(f.cache, seq, tokens.data(), 40, nullptr));  // two are published
  BOOST_TEST(refused() == 1u);
  QUIRE_OK_OR_DIE(quire_seq_fork(f.cache, seq, nullptr, &fork));
  QUIRE_OK_OR_DIE(quire_seq_append(f.cache, fork, 1, nullptr, slots.data()));  // takes a copy
  BOOST_TEST(refused() == 2u);
  QUIRE_OK_OR_DIE(quire_seq_close(f.cache, seq, nullptr));
  BOOST_TEST(refused() == 1u);
  QUIRE_OK_OR_DIE(quire_seq_close(f.cache, fork, nullptr));
  BOOST_TEST(refused() == 0u);
  QUIRE_OK_OR_DIE(quire_free(f.cache, &mine, 1));
  BOOST_TEST(f.stats().pages_private == 0u);
}

// A failed alloc keeps what it was not given: also where it could not have succeeded.
BOOST_AUTO_TEST_CASE(promise_5_a_call_that_fails_leaves_the_cache_as_it_was) {
  ApiFixture f(small_config("format=f32,device_pages=8"));
  const auto keys = f.keys_of(1, 4);
  f.fill(keys);
  quire_page pages[9];
  QUIRE_FAILS(f.alloc(9, 0, pages), QUIRE_E_NOMEM);
  BOOST_TEST(f.match(keys) == 4u);
  const quire_lease lease = f.acquire({keys[0], keys[1]});
  QUIRE_FAILS(f.alloc(7, 0, pages), QUIRE_E_NOMEM);
  BOOST_TEST(f.stats().pages_private == 0u);
  f.release(lease);
}

namespace {

// The metadata allocator of a test whose thread can be stopped inside it.
thread_local bool stops_here = false;
std::atomic<int> gate{0};  // 0: nobody came; 1: a thread stands in it; 2: open

void *gated_alloc(size_t bytes, size_t align, void *) {
  if (stops_here) {
    stops_here = false;  // once
    gate = 1;
    gate.notify_all();
    gate.wait(1);
  }
  const size_t step = align < sizeof(void *) ? sizeof(void *) : align;
  return std::aligned_alloc(step, (bytes + step - 1) / step * step);
}
void plain_free(void *p, size_t, size_t, void *) {
  std::free(p);
}

}  // namespace

BOOST_AUTO_TEST_CASE(promise_6_no_call_waits_for_a_thread_that_stands_still) {
  quire_config config = small_config("format=f32,device_pages=8");
  config.allocator = {gated_alloc, plain_free, nullptr};
  ApiFixture f(config);
  const auto keys = f.keys_of(1, 3);
  f.fill(keys);
  std::thread stopped([&] {
    stops_here = true;
    quire_seq seq = 0;
    const std::vector<uint32_t> tokens(40, 1);
    const quire_status opened =
        quire_seq_open(f.cache, &f.root, tokens.data(), tokens.size(), nullptr, nullptr, &seq);
    stops_here = false;
    BOOST_CHECK(opened == QUIRE_OK);
    BOOST_CHECK(quire_seq_close(f.cache, seq, nullptr) == QUIRE_OK);
  });
  gate.wait(0);
  // It stands inside a call. Everybody else goes on, through evictions, too.
  for (uint32_t i = 0; i < 200; ++i) {
    const auto other = f.keys_of(2 + i, 2);
    f.fill(other);
    BOOST_TEST(f.match(other) == 2u);
    quire_page page;
    QUIRE_OK_OR_DIE(f.alloc(1, 0, &page));
    QUIRE_OK_OR_DIE(quire_free(f.cache, &page, 1));
    QUIRE_OK_OR_DIE(quire_step(f.cache));
  }
  gate = 2;
  gate.notify_all();
  stopped.join();
}

namespace {

// Names that a library or an archive leaves to others, as nm prints them.
std::set<std::string> imports(const std::string &nm_arguments) {
  std::set<std::string> names;
  std::FILE *const lines = ::popen(("nm --undefined-only " + nm_arguments).c_str(), "r");
  BOOST_TEST_REQUIRE(lines != nullptr);
  char line[4096];
  while (std::fgets(line, sizeof line, lines) != nullptr) {
    std::string name(line);
    name.erase(name.find_last_not_of("\n ") + 1);
    name.erase(0, name.find_last_of(' ') + 1);
    name.erase(std::min(name.find('@'), name.size()));
    names.insert(name);
  }
  BOOST_TEST(::pclose(lines) == 0);
  BOOST_TEST(!names.empty());
  return names;
}

void check_no_sockets(const std::set<std::string> &names, const std::string &whose) {
  for (const char *forbidden :
       {"socket", "connect", "bind", "listen", "accept", "accept4", "sendto", "recvfrom", "sendmsg",
        "recvmsg", "getaddrinfo", "gethostbyname", "execve", "execvp", "system", "popen",
        "posix_spawn"}) {
    BOOST_TEST(names.count(forbidden) == 0u, whose + " imports " + forbidden);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(promise_11_no_sockets) {
  const std::string folder = std::string(QUIRE_TOOLS_DIR) + "/../lib/";
  // The archive is the library's own code and nothing else.
  const std::set<std::string> own = imports("'" + folder + "libquire.a'");
  check_no_sockets(own, "libquire.a");
  const std::string library = folder + "libquire.so";
  if (std::FILE *there = std::fopen(library.c_str(), "rb"); there != nullptr) {
    std::fclose(there);
  } else {
    std::printf("SKIPPED: promise_11_no_sockets: %s was not built\n", library.c_str());
    return;
  }
  // With CUDA, NVIDIA's runtime is linked in, whose calls between processes know sockets.
  if (own.count("__cudaRegisterFatBinary") == 0) {
    check_no_sockets(imports("-D '" + library + "'"), "libquire.so");
  }
}

// Data files hold no code: what the library maps from shared memory cannot be executed.
BOOST_AUTO_TEST_CASE(promise_11_no_code_in_data) {
  quire_config config = small_config();
  const std::string name = "quire-test-promise." + std::to_string(std::rand());
  config.segment = name.c_str();
  ApiFixture f(config);
  std::FILE *const maps = std::fopen("/proc/self/maps", "r");
  BOOST_TEST_REQUIRE(maps != nullptr);
  char line[1024];
  while (std::fgets(line, sizeof line, maps) != nullptr) {
    if (std::string(line).find(name) == std::string::npos) continue;
    char permissions[5] = {};
    BOOST_TEST(std::sscanf(line, "%*s %4s", permissions) == 1);
    BOOST_TEST(permissions[2] == '-');
  }
  std::fclose(maps);
}

// An old binary's structs end earlier: what they lack has its default, and what they lack is not
// written.
BOOST_AUTO_TEST_CASE(promise_12_an_old_binary_works_with_a_newer_version) {
  ApiFixture f;
  f.fill(f.keys_of(1, 3));
  const auto keys = f.keys_of(1, 3);
  const quire_prefix prefix = f.prefix_of(keys);
  quire_hit hit;
  std::memset(&hit, 0xcd, sizeof hit);
  hit.size = offsetof(quire_hit, on_device);
  QUIRE_OK_OR_DIE(quire_match(f.cache, &prefix, &hit));
  BOOST_TEST(hit.pages == 3u);
  BOOST_TEST(hit.on_device == 0xcdcdcdcdu);
  BOOST_TEST(hit.size == offsetof(quire_hit, on_device));
  quire_acquire_options options;
  std::memset(&options, 0xcd, sizeof options);  // a stream and a tier of garbage, behind the end
  options.size = offsetof(quire_acquire_options, owner);
  options.flags = 0;
  quire_lease lease = 0;
  QUIRE_OK_OR_DIE(quire_acquire(f.cache, &prefix, &options, nullptr, nullptr, &lease));
  quire_lease_record record;
  std::memset(&record, 0xcd, sizeof record);
  record.size = offsetof(quire_lease_record, owner);
  QUIRE_OK_OR_DIE(quire_lease_info(f.cache, lease, &record));
  BOOST_TEST(record.pages == 3u);
  BOOST_TEST(record.owner == 0xcdcdcdcdcdcdcdcdu);
  f.release(lease);
  quire_stats stats;
  std::memset(&stats, 0xcd, sizeof stats);
  stats.size = offsetof(quire_stats, acquires_total);
  QUIRE_OK_OR_DIE(quire_stats_get(f.cache, &stats));
  BOOST_TEST(stats.prefix_hits_total == 48u);
  BOOST_TEST(stats.acquires_total == 0xcdcdcdcdcdcdcdcdu);
  // A configuration that ends before the clock: the default clock, allocator and segment.
  quire_config config = small_config();
  quire_config old;
  std::memset(&old, 0xcd, sizeof old);
  std::memcpy(&old, &config, offsetof(quire_config, clock));
  old.size = offsetof(quire_config, clock);
  quire_cache *cache = nullptr;
  QUIRE_OK_OR_DIE(quire_open(&old, &cache));
  QUIRE_OK_OR_DIE(quire_close(cache));
  // A newer binary that asks for nothing new.
  struct {
    quire_hit known;
    uint64_t newer[4];
  } longer = {};
  longer.known.size = sizeof longer;
  QUIRE_OK_OR_DIE(quire_match(f.cache, &prefix, &longer.known));
  BOOST_TEST(longer.known.on_device == 3u);
  struct {
    quire_prefix known;
    uint64_t newer[4];
  } asks = {};
  asks.known = prefix;
  asks.known.size = sizeof asks;
  QUIRE_OK_OR_DIE(quire_match(f.cache, &asks.known, &longer.known));
  // ... and one that does.
  asks.newer[2] = 1;
  QUIRE_FAILS(quire_match(f.cache, &asks.known, &longer.known), QUIRE_E_VERSION);
}
