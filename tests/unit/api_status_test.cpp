// Every quire_status is reached through the C API, each test named after the one it reaches; and
// what is NULL or garbage is refused with a sentence and changes nothing.
#define BOOST_TEST_MODULE api_status
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "runtime/cache.h"
#include "tests/support/adversary_device.h"
#include "tests/support/api_fixture.h"

using namespace quire::test;

namespace {

void no_memory(void *p, size_t, size_t, void *) {
  std::free(p);
}
void *none(size_t, size_t, void *) {
  return nullptr;
}

std::string segment_name(const char *what) {
  return std::string("quire-test-") + what + "." + std::to_string(::getpid());
}

}  // namespace

BOOST_AUTO_TEST_CASE(ok) {
  ApiFixture f;
  f.fill(f.keys_of(1, 4));
  BOOST_TEST(f.match(f.keys_of(1, 4)) == 4u);
  BOOST_TEST(quire_close(nullptr) == QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(invalid) {
  ApiFixture f;
  QUIRE_FAILS(quire_stream_add(f.cache, nullptr, 0, 0), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_check(f.cache, 64), QUIRE_E_INVALID);
  quire_config config = small_config();
  QUIRE_FAILS(quire_config_parse(&config, "no_such_name=1"), QUIRE_E_INVALID);
  BOOST_TEST(std::string(quire_last_error()).find("no_such_name") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(nomem) {
  ApiFixture f(
      small_config("format=f32,device_pages=4,max_leases=2,max_namespaces=1,max_streams=1"));
  quire_page pages[5];
  QUIRE_FAILS(f.alloc(5, 0, pages), QUIRE_E_NOMEM);
  QUIRE_OK_OR_DIE(f.alloc(4, 0, pages));
  QUIRE_FAILS(f.alloc(1, 0, pages + 4), QUIRE_E_NOMEM);
  QUIRE_OK_OR_DIE(quire_free(f.cache, pages, 4));
  const auto keys = f.keys_of(1, 1);
  const quire_lease a = f.acquire(keys), b = f.acquire(keys);
  const quire_prefix prefix = f.prefix_of(keys);
  quire_lease c = 0;
  QUIRE_FAILS(quire_acquire(f.cache, &prefix, nullptr, nullptr, nullptr, &c), QUIRE_E_NOMEM);
  f.release(b);
  // The one namespace is in use by a page.
  QUIRE_OK_OR_DIE(f.alloc(2, a, pages));
  QUIRE_OK_OR_DIE(f.publish(a, keys, pages, nullptr));
  const quire_key other = f.root_of(2);
  auto settings = sized_struct<quire_namespace>();
  QUIRE_FAILS(quire_namespace_set(f.cache, &other, &settings), QUIRE_E_NOMEM);
  f.release(a);
  quire_stream s[2];
  for (quire_stream &stream : s) QUIRE_OK_OR_DIE(quire_cpu_stream_create(&stream));
  QUIRE_OK_OR_DIE(quire_stream_add(f.cache, s[0], 0, 0));
  QUIRE_FAILS(quire_stream_add(f.cache, s[1], 0, 0), QUIRE_E_NOMEM);
  QUIRE_OK_OR_DIE(quire_stream_remove(f.cache, s[0]));
  for (quire_stream stream : s) QUIRE_OK_OR_DIE(quire_cpu_stream_destroy(stream));
  QUIRE_OK_OR_DIE(quire_step(f.cache));
  quire_config config = small_config();
  config.allocator = {none, no_memory, nullptr};
  quire_cache *cache = nullptr;
  QUIRE_FAILS(quire_open(&config, &cache), QUIRE_E_NOMEM);
  BOOST_TEST(cache == nullptr);
}

// A stream that has not passed keeps a frame in limbo.
BOOST_AUTO_TEST_CASE(again) {
  ApiFixture f(small_config("format=f32,device_pages=2"));
  quire_stream stream;
  QUIRE_OK_OR_DIE(quire_cpu_stream_create(&stream));
  QUIRE_OK_OR_DIE(quire_stream_add(f.cache, stream, 0, 0));
  std::atomic<bool> go{false};
  QUIRE_OK_OR_DIE(quire_cpu_stream_launch(
      stream, [](void *at) { static_cast<std::atomic<bool> *>(at)->wait(false); }, &go));
  quire_page pages[2];
  QUIRE_OK_OR_DIE(f.alloc(2, 0, pages));
  QUIRE_OK_OR_DIE(quire_free(f.cache, pages, 2));
  QUIRE_OK_OR_DIE(quire_step(f.cache));
  QUIRE_FAILS(f.alloc(1, 0, pages), QUIRE_E_AGAIN);
  // The stream itself may have them at once.
  QUIRE_OK_OR_DIE(f.alloc(1, 0, pages, stream));
  QUIRE_OK_OR_DIE(quire_free(f.cache, pages, 1));
  go = true;
  go.notify_all();
  QUIRE_OK_OR_DIE(quire_cpu_stream_wait(stream));
  QUIRE_OK_OR_DIE(quire_step(f.cache));
  QUIRE_OK_OR_DIE(quire_cpu_stream_wait(stream));
  QUIRE_OK_OR_DIE(quire_step(f.cache));
  QUIRE_OK_OR_DIE(f.alloc(2, 0, pages));
  QUIRE_OK_OR_DIE(quire_free(f.cache, pages, 2));
  QUIRE_OK_OR_DIE(quire_stream_remove(f.cache, stream));
  QUIRE_OK_OR_DIE(quire_cpu_stream_destroy(stream));
  QUIRE_OK_OR_DIE(quire_step(f.cache));
}

BOOST_AUTO_TEST_CASE(stale) {
  ApiFixture f, other;
  const quire_lease lease = f.acquire(f.keys_of(1, 1));
  QUIRE_FAILS(quire_release(other.cache, lease, nullptr), QUIRE_E_STALE);
  f.release(lease);
  QUIRE_FAILS(quire_release(f.cache, lease, nullptr), QUIRE_E_STALE);
  QUIRE_FAILS(quire_seq_append(f.cache, lease, 1, nullptr, nullptr), QUIRE_E_STALE);
}

BOOST_AUTO_TEST_CASE(busy) {
  quire_cache *cache = nullptr;
  const quire_config config = small_config();
  QUIRE_OK_OR_DIE(quire_open(&config, &cache));
  quire_page page;
  QUIRE_OK_OR_DIE(quire_alloc(cache, 1, nullptr, &page));
  QUIRE_FAILS(quire_close(cache), QUIRE_E_BUSY);
  BOOST_TEST(std::string(quire_last_error()).find("1 private page") != std::string::npos);
  QUIRE_OK_OR_DIE(quire_free(cache, &page, 1));
  QUIRE_OK_OR_DIE(quire_close(cache));
}

// The CPU device does not fail; the adversary does, at the launch of an encoder, and the page stays
// open.
BOOST_AUTO_TEST_CASE(device) {
  AdversaryDevice adversary(1);
  const quire_config config = small_config("format=nf4,device_pages=8,open_pages=8");
  quire::Cache *cache = nullptr;
  BOOST_TEST_REQUIRE((quire::Cache::open(config, &adversary, &cache) == quire::Status::kOk));
  auto *const c = reinterpret_cast<quire_cache *>(cache);
  quire_page page;
  QUIRE_OK_OR_DIE(quire_alloc(c, 1, nullptr, &page));
  adversary.fail(AdversaryDevice::Call::kLaunch, 1, quire::Status::kDevice);
  QUIRE_FAILS(quire_seal(c, &page, 1, nullptr), QUIRE_E_DEVICE);
  auto record = sized_struct<quire_page_record>();
  QUIRE_OK_OR_DIE(quire_page_info(c, page, &record));
  BOOST_TEST((record.flags & QUIRE_PAGE_OPEN) != 0u);
  adversary.fail_nothing();
  QUIRE_OK_OR_DIE(quire_seal(c, &page, 1, nullptr));
  QUIRE_OK_OR_DIE(quire_free(c, &page, 1));
  QUIRE_OK_OR_DIE(quire_check(c, 0));
  QUIRE_OK_OR_DIE(quire_close(c));
}

BOOST_AUTO_TEST_CASE(io) {
  quire_segment *segment = nullptr;
  QUIRE_FAILS(quire_segment_attach("no-such-segment", &segment), QUIRE_E_IO);
  QUIRE_FAILS(quire_segment_remove("no-such-segment"), QUIRE_E_IO);
}

BOOST_AUTO_TEST_CASE(corrupt) {
  const std::string name = segment_name("corrupt");
  const std::string path = "/dev/shm/" + name;
  std::ofstream(path) << std::string(1 << 16, 'x');
  quire_segment *segment = nullptr;
  QUIRE_FAILS(quire_segment_attach(name.c_str(), &segment), QUIRE_E_CORRUPT);
  ::unlink(path.c_str());
}

BOOST_AUTO_TEST_CASE(unsupported) {
  ApiFixture f;
  QUIRE_FAILS(quire_resize(f.cache, QUIRE_TIER_DEVICE, 1 << 20), QUIRE_E_UNSUPPORTED);
  quire_ticket ticket = 0;
  uint32_t n = 0;
  QUIRE_FAILS(quire_fetch(f.cache, 1, QUIRE_TIER_DEVICE, &ticket), QUIRE_E_UNSUPPORTED);
  QUIRE_FAILS(quire_ticket_poll(f.cache, ticket, &n), QUIRE_E_UNSUPPORTED);
  QUIRE_FAILS(quire_ticket_wait(f.cache, ticket, nullptr), QUIRE_E_UNSUPPORTED);
  QUIRE_FAILS(quire_cpu_target_set("no such target"), QUIRE_E_UNSUPPORTED);
  quire_config config = small_config();
  config.host_bytes = 1 << 20;
  quire_cache *cache = nullptr;
  QUIRE_FAILS(quire_open(&config, &cache), QUIRE_E_UNSUPPORTED);
  config.host_bytes = 0;
  config.file_path = "/nowhere";
  QUIRE_FAILS(quire_open(&config, &cache), QUIRE_E_UNSUPPORTED);
  config.file_path = nullptr;
  config.device_ordinal = 5000;
  QUIRE_FAILS(quire_open(&config, &cache), QUIRE_E_INVALID);
  config.device_ordinal = 0;
  // Without a GPU, a driver or CUDA in the build, the text says which; AUTO serves on the CPU then.
  config.device = QUIRE_DEVICE_CUDA;
  if (quire_open(&config, &cache) == QUIRE_OK) {
    BOOST_TEST(quire_close(cache) == QUIRE_OK);
  } else {
    QUIRE_FAILS(quire_open(&config, &cache), QUIRE_E_UNSUPPORTED);
    config.device = QUIRE_DEVICE_AUTO;
    BOOST_TEST_REQUIRE(quire_open(&config, &cache) == QUIRE_OK);
    auto info = sized_struct<quire_layout_info>();
    BOOST_TEST(quire_layout(cache, QUIRE_TIER_DEVICE, 0, &info) == QUIRE_OK);
    BOOST_TEST(info.device == uint32_t{QUIRE_DEVICE_CPU});
    BOOST_TEST(quire_close(cache) == QUIRE_OK);
  }
}

// A newer program asks an older library for what that does not know.
BOOST_AUTO_TEST_CASE(version) {
  ApiFixture f;
  struct {
    quire_alloc_options known;
    uint64_t newer;
  } options;
  std::memset(&options, 0, sizeof options);
  options.known.size = sizeof options;
  quire_page page;
  QUIRE_OK_OR_DIE(quire_alloc(f.cache, 1, &options.known, &page));
  QUIRE_OK_OR_DIE(quire_free(f.cache, &page, 1));
  options.newer = 1;
  QUIRE_FAILS(quire_alloc(f.cache, 1, &options.known, &page), QUIRE_E_VERSION);
}

// ---- garbage

BOOST_AUTO_TEST_CASE(null_pointers_are_refused_and_change_nothing) {
  ApiFixture f;
  f.fill(f.keys_of(1, 3));
  const quire_stats before = f.stats();
  quire_cache *const c = f.cache;
  const auto keys = f.keys_of(1, 2);
  quire_prefix prefix = f.prefix_of(keys);
  auto hit = sized_struct<quire_hit>();
  quire_key key;
  quire_lease lease = 0;
  quire_seq seq = 0;
  size_t n = 1;
  quire_cache *out = nullptr;
  QUIRE_FAILS(quire_config_init(nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_config_parse(nullptr, ""), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_open(nullptr, &out), QUIRE_E_INVALID);
  const quire_config config = small_config();
  QUIRE_FAILS(quire_open(&config, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_root_key(c, nullptr, 1, &key), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_root_key(c, nullptr, 0, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_chain_keys(c, nullptr, nullptr, 0, nullptr, 0, &key, &n), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_chain_keys(c, &f.root, nullptr, 16, nullptr, 0, &key, &n), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_chain_keys(c, &f.root, nullptr, 0, nullptr, 1, &key, &n), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_chain_keys(c, &f.root, nullptr, 0, nullptr, 0, &key, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_namespace_set(c, nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_namespace_set(c, &f.root, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_evict(c, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_match(c, nullptr, &hit), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_match(c, &prefix, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_acquire(c, nullptr, nullptr, nullptr, nullptr, &lease), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_acquire(c, &prefix, nullptr, nullptr, nullptr, nullptr), QUIRE_E_INVALID);
  prefix.keys = nullptr;
  QUIRE_FAILS(quire_match(c, &prefix, &hit), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_acquire(c, &prefix, nullptr, nullptr, nullptr, &lease), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_lease_clone(c, 1, 0, nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_lease_info(c, 1, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_lease_next(c, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_alloc(c, 1, nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_free(c, nullptr, 1), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_seal(c, nullptr, 1, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_frames(c, nullptr, 1, QUIRE_TIER_DEVICE, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_layout(c, QUIRE_TIER_DEVICE, 0, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_page_info(c, 1, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_page_data(c, 1, nullptr, &n), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_seq_open(c, nullptr, nullptr, 0, nullptr, nullptr, &seq), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_seq_open(c, &f.root, nullptr, 1, nullptr, nullptr, &seq), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_seq_open(c, &f.root, nullptr, 0, nullptr, nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_seq_fork(c, 1, nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_seq_info(c, 1, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_cpu_stream_create(nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_cpu_stream_launch(nullptr, nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_kv_append(c, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_kv_gather(c, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_key_anchor_set(c, 0, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_attention_decode(c, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_attention_workspace(c, nullptr, &n), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_stats_get(c, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_stats_json(c, nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_stats_prometheus(c, nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_events_poll(c, nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_segment_list(nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_segment_attach(nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_segment_info(nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_plan(nullptr, nullptr), QUIRE_E_INVALID);
  const quire_stats after = f.stats();
  BOOST_TEST(after.pages_visible == before.pages_visible);
  BOOST_TEST(after.frames_free == before.frames_free);
  BOOST_TEST(after.leases == 0u);
  BOOST_TEST(after.namespaces == before.namespaces);
}

BOOST_AUTO_TEST_CASE(no_cache_is_refused_by_every_call) {
  auto hit = sized_struct<quire_hit>();
  quire_lease lease = 0;
  QUIRE_FAILS(quire_match(nullptr, nullptr, &hit), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_release(nullptr, 1, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_lease_next(nullptr, &lease), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_alloc(nullptr, 0, nullptr, nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_free(nullptr, nullptr, 0), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_step(nullptr), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_check(nullptr, 0), QUIRE_E_INVALID);
  QUIRE_FAILS(quire_seq_close(nullptr, 1, nullptr), QUIRE_E_INVALID);
}

BOOST_AUTO_TEST_CASE(structs_without_a_size_and_unknown_flags_are_refused) {
  ApiFixture f;
  const auto keys = f.keys_of(1, 1);
  quire_prefix prefix = f.prefix_of(keys);
  quire_hit hit = {};  // size 0: forgotten
  QUIRE_FAILS(quire_match(f.cache, &prefix, &hit), QUIRE_E_INVALID);
  prefix.size = 4;
  hit.size = sizeof hit;
  QUIRE_FAILS(quire_match(f.cache, &prefix, &hit), QUIRE_E_INVALID);
  prefix.size = sizeof prefix;
  auto acquire = sized_struct<quire_acquire_options>();
  acquire.flags = 128;
  quire_lease lease = 0;
  QUIRE_FAILS(quire_acquire(f.cache, &prefix, &acquire, nullptr, nullptr, &lease), QUIRE_E_INVALID);
  acquire.flags = 0;
  acquire.tier = QUIRE_TIER_HOST;
  QUIRE_FAILS(quire_acquire(f.cache, &prefix, &acquire, nullptr, nullptr, &lease),
              QUIRE_E_UNSUPPORTED);
  auto alloc = sized_struct<quire_alloc_options>();
  alloc.flags = 128;
  quire_page page;
  QUIRE_FAILS(quire_alloc(f.cache, 1, &alloc, &page), QUIRE_E_INVALID);
  auto seq = sized_struct<quire_seq_options>();
  seq.flags = 128;
  quire_seq out = 0;
  QUIRE_FAILS(quire_seq_open(f.cache, &f.root, nullptr, 0, &seq, nullptr, &out), QUIRE_E_INVALID);
}

BOOST_AUTO_TEST_CASE(a_child_of_fork_is_refused_by_every_call) {
  ApiFixture f;
  const auto keys = f.keys_of(1, 1);
  const quire_prefix prefix = f.prefix_of(keys);
  const quire_lease lease = f.acquire(keys);
  const pid_t child = ::fork();
  BOOST_TEST_REQUIRE(child >= 0);
  if (child == 0) {
    auto hit = sized_struct<quire_hit>();
    auto stats = sized_struct<quire_stats>();
    quire_lease out = 0;
    quire_seq seq = 0;
    quire_page page = 0;
    int bad = 0;
    for (const quire_status status :
         {quire_match(f.cache, &prefix, &hit),
          quire_acquire(f.cache, &prefix, nullptr, nullptr, nullptr, &out),
          quire_release(f.cache, lease, nullptr), quire_lease_next(f.cache, &out),
          quire_alloc(f.cache, 1, nullptr, &page), quire_free(f.cache, &page, 0),
          quire_evict(f.cache, &f.root), quire_step(f.cache), quire_check(f.cache, 0),
          quire_stats_get(f.cache, &stats),
          quire_seq_open(f.cache, &f.root, nullptr, 0, nullptr, nullptr, &seq),
          quire_close(f.cache)}) {
      bad += status == QUIRE_E_INVALID ? 0 : 1;
    }
    ::_exit(bad);
  }
  int result = -1;
  BOOST_TEST_REQUIRE(::waitpid(child, &result, 0) == child);
  BOOST_TEST(WIFEXITED(result));
  BOOST_TEST(WEXITSTATUS(result) == 0);
  f.release(lease);  // the parent goes on
}
