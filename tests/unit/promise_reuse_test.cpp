// Promises 1 and 10, with real streams: a frame is never written by its next owner before the last
// reader has passed, and nothing of one namespace is readable by another after reuse when zeroing
// is on.
//
// Every page that a kernel may write holds one word, repeated, that only its owner writes: readers
// on asynchronous streams, enqueued before the owner gives the page up, must find nothing else.
#define BOOST_TEST_MODULE promise_reuse
#include <algorithm>
#include <memory>
#include <random>
#include <thread>

#include "tests/support/api_fixture.h"

using namespace quire::test;

namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kTrials = 300;
#else
constexpr int kTrials = 3000;
#endif

// A kernel: writes a page's payload, or compares it, after a while.
struct Kernel {
  uint32_t *at;
  size_t words;
  uint32_t word;
  bool writes;
  unsigned spins;
  std::atomic<uint64_t> *wrong;

  static void run(void *argument) {
    const std::unique_ptr<Kernel> k(static_cast<Kernel *>(argument));
    for (unsigned i = 0; i < k->spins; ++i) std::this_thread::yield();
    for (size_t i = k->words / 2; i < k->words; ++i) {  // behind the page's header
      if (k->writes) {
        k->at[i] = k->word;
      } else if (k->at[i] != k->word) {
        k->wrong->fetch_add(1);
      }
    }
  }
};

class Engine : public ApiFixture {
 public:
  Engine(const char *more, size_t n_streams) : ApiFixture(small_config(more)), streams(n_streams) {
    for (quire_stream &s : streams) {
      QUIRE_OK_OR_DIE(quire_cpu_stream_create(&s));
      QUIRE_OK_OR_DIE(quire_stream_add(cache, s, 0, 0));
    }
  }
  ~Engine() {
    for (quire_stream s : streams) {
      BOOST_CHECK(quire_stream_remove(cache, s) == QUIRE_OK);
      BOOST_CHECK(quire_cpu_stream_destroy(s) == QUIRE_OK);
    }
    BOOST_CHECK(quire_step(cache) == QUIRE_OK);
    BOOST_CHECK_EQUAL(wrong.load(), 0u);
  }
  void launch(quire_page page, uint32_t word, bool writes, quire_stream stream) {
    size_t words = 0;
    uint32_t *const at = data(page, &words);
    auto *const kernel =
        new Kernel{at, words, word, writes, static_cast<unsigned>(random() % 40), &wrong};
    QUIRE_OK_OR_DIE(quire_cpu_stream_launch(stream, Kernel::run, kernel));
  }
  // Steps until there is memory.
  void alloc_patiently(uint32_t n, quire_lease lease, quire_page *pages, quire_stream stream) {
    for (;;) {
      const quire_status status = alloc(n, lease, pages, stream);
      if (status == QUIRE_OK) return;
      BOOST_REQUIRE(status == QUIRE_E_AGAIN);
      QUIRE_OK_OR_DIE(quire_step(cache));
      std::this_thread::yield();
    }
  }

  std::vector<quire_stream> streams;
  std::atomic<uint64_t> wrong{0};
  std::mt19937 random{20260117};
};

}  // namespace

// Private pages: written and read on one stream, freed with the work still enqueued, handed on.
BOOST_AUTO_TEST_CASE(promise_1_a_freed_frame_waits_for_its_readers) {
  Engine e("format=f32,device_pages=3", 2);
  for (int trial = 0; trial < kTrials; ++trial) {
    const quire_stream stream = e.streams[e.random() % 2];
    const bool names_it = e.random() % 2 == 0;
    quire_page page;
    const auto word = static_cast<uint32_t>(trial) + 1;
    e.alloc_patiently(1, 0, &page, names_it ? stream : nullptr);
    e.launch(page, word, true, stream);
    e.launch(page, word, false, stream);
    QUIRE_OK_OR_DIE(quire_free(e.cache, &page, 1));
    if (e.random() % 4 == 0) QUIRE_OK_OR_DIE(quire_step(e.cache));
  }
}

// Shared pages: published by the stream that writes them, hit from others (which wait for it),
// released with readers enqueued, evicted for others. Order 1: enqueue, then release. Order 2: the
// stamp before the pin, seen in the page's retire epoch. Order 3: a step moves the clock before it
// records.
BOOST_AUTO_TEST_CASE(promise_1_an_evicted_frame_waits_for_its_readers) {
  Engine e("format=f32,device_pages=5", 3);
  std::vector<std::vector<quire_key>> prompts;
  for (uint32_t i = 0; i < 6; ++i) prompts.push_back(e.keys_of(i, 2));
  for (int trial = 0; trial < kTrials; ++trial) {
    const auto which = static_cast<uint32_t>(e.random() % prompts.size());
    const quire_stream stream = e.streams[e.random() % 3];
    quire_page pages[2];
    uint32_t hit = 0;
    const quire_lease lease = e.acquire(prompts[which], &hit, pages, stream);
    if (hit < 2) {
      e.alloc_patiently(2 - hit, lease, pages + hit, e.random() % 2 == 0 ? stream : nullptr);
      for (uint32_t i = hit; i < 2; ++i) e.launch(pages[i], which * 2 + i + 1, true, stream);
      QUIRE_OK_OR_DIE(
          e.publish(lease, prompts[which], pages, nullptr, QUIRE_PUBLISH_REPLACE, stream));
    }
    for (uint32_t i = 0; i < hit; ++i) e.launch(pages[i], which * 2 + i + 1, false, stream);
    e.release(lease);
    if (e.random() % 3 == 0) QUIRE_OK_OR_DIE(quire_step(e.cache));
  }
  BOOST_TEST(e.stats().evictions_capacity_total > 0u);
  BOOST_TEST(e.stats().prefix_hits_total > 0u);
}

// Without a stream a hit ends before the first page that is still being written, even where the
// page below it is complete: another stream computed the same prefix and went on behind it.
BOOST_AUTO_TEST_CASE(promise_1_and_2_no_hit_on_a_page_that_is_not_written) {
  Engine e("format=f32,device_pages=8", 2);
  std::atomic<bool> go{false};
  const auto keys = e.keys_of(1, 2);
  const std::vector<quire_key> first(keys.begin(), keys.begin() + 1);
  quire_page slow[1], fast[2];
  const quire_lease a = e.acquire(first), b = e.acquire(keys);
  QUIRE_OK_OR_DIE(e.alloc(1, a, slow));
  QUIRE_OK_OR_DIE(e.alloc(2, b, fast));
  QUIRE_OK_OR_DIE(quire_cpu_stream_launch(
      e.streams[0], [](void *at) { static_cast<std::atomic<bool> *>(at)->wait(false); }, &go));
  e.launch(slow[0], 1, true, e.streams[0]);
  QUIRE_OK_OR_DIE(e.publish(a, first, slow, nullptr, 0, e.streams[0]));
  auto result = sized_struct<quire_publish_result>();
  QUIRE_OK_OR_DIE(e.publish(b, keys, fast, &result, 0, e.streams[1]));
  BOOST_TEST(result.n_published == 2u);
  BOOST_TEST(result.n_duplicate == 1u);
  for (int i = 0; i < 4; ++i) {
    QUIRE_OK_OR_DIE(quire_step(e.cache));
    QUIRE_OK_OR_DIE(quire_cpu_stream_wait(e.streams[1]));
  }
  uint32_t hit = 7;
  e.release(e.acquire(keys, &hit));
  BOOST_TEST(hit == 0u);
  go = true;
  go.notify_all();
  for (int i = 0; i < 4; ++i) {
    QUIRE_OK_OR_DIE(quire_step(e.cache));
    QUIRE_OK_OR_DIE(quire_cpu_stream_wait(e.streams[0]));
  }
  e.release(e.acquire(keys, &hit));
  BOOST_TEST(hit == 2u);
  e.release(a);
  e.release(b);
}

BOOST_AUTO_TEST_CASE(promise_10_frames_are_zeroed_before_others_get_them) {
  for (const char *format :
       {"format=nf4,device_pages=6,open_pages=4", "format=f16,device_pages=6"}) {
    ApiFixture fresh(small_config(format)), used(small_config(format));
    auto settings = sized_struct<quire_namespace>();
    settings.zero = 1;
    QUIRE_OK_OR_DIE(quire_namespace_set(used.cache, &used.root, &settings));
    const auto write = [&](quire_page page) {
      size_t words = 0;
      uint32_t *const at = used.data(page, &words);
      std::fill(at + words / 2, at + words, 0x5ec4e7u);
    };
    // Private pages, then published ones.
    quire_page pages[4];
    QUIRE_OK_OR_DIE(used.alloc(4, 0, pages));
    for (const quire_page page : pages) write(page);
    QUIRE_OK_OR_DIE(quire_free(used.cache, pages, 4));
    const auto keys = used.keys_of(1, 4);
    const quire_lease lease = used.acquire(keys);
    QUIRE_OK_OR_DIE(used.alloc(4, lease, pages));
    for (const quire_page page : pages) write(page);
    QUIRE_OK_OR_DIE(used.publish(lease, keys, pages, nullptr));
    for (const quire_page page : pages) write(page);
    used.release(lease);
    // All frames of both classes, in another's hands, are as new.
    const auto take_all = [](ApiFixture &f, std::vector<quire_page> *all) {
      const quire_stats stats = f.stats();
      auto options = sized_struct<quire_alloc_options>();
      options.flags = QUIRE_ALLOC_SEALED;
      all->resize(stats.frames_capacity + stats.open_frames_capacity);
      QUIRE_OK_OR_DIE(quire_alloc(f.cache, static_cast<uint32_t>(stats.frames_capacity), &options,
                                  all->data()));
      if (stats.open_frames_capacity == 0) return;
      QUIRE_OK_OR_DIE(f.alloc(static_cast<uint32_t>(stats.open_frames_capacity), 0,
                              all->data() + stats.frames_capacity));
    };
    std::vector<quire_page> of_fresh, of_used;
    take_all(fresh, &of_fresh);
    take_all(used, &of_used);
    BOOST_TEST_REQUIRE(of_fresh.size() == of_used.size());
    for (size_t i = 0; i < of_used.size(); ++i) {
      size_t words = 0;
      const uint32_t *const x = fresh.data(of_fresh[i], &words);
      const uint32_t *const y = used.data(of_used[i]);
      BOOST_TEST(std::equal(x, x + words, y));  // header and scales of an empty page, zeros
    }
    QUIRE_OK_OR_DIE(
        quire_free(fresh.cache, of_fresh.data(), static_cast<uint32_t>(of_fresh.size())));
    QUIRE_OK_OR_DIE(quire_free(used.cache, of_used.data(), static_cast<uint32_t>(of_used.size())));
  }
}
