// quire.hpp: owners that cost nothing, move, and give back what they hold.
#define BOOST_TEST_MODULE cpp_api
#include <boost/test/unit_test.hpp>

#include <array>
#include <type_traits>
#include <vector>

#include "quire/quire.hpp"

namespace {

template <class T>
constexpr bool kMoveOnly =
    std::is_nothrow_move_constructible_v<T> &&std::is_nothrow_move_assignable_v<T> &&
    !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> &&
    std::is_nothrow_default_constructible_v<T> && std::is_nothrow_destructible_v<T>;

static_assert(kMoveOnly<quire::Cache> && kMoveOnly<quire::Lease> && kMoveOnly<quire::Sequence>);
static_assert(kMoveOnly<quire::PrivatePages> && kMoveOnly<quire::Stream> &&
              kMoveOnly<quire::CpuStream>);
static_assert(sizeof(quire::Cache) == sizeof(void *) && sizeof(quire::CpuStream) == sizeof(void *));
static_assert(sizeof(quire::Lease) == sizeof(void *) + sizeof(quire_lease));
static_assert(sizeof(quire::Sequence) == sizeof(void *) + sizeof(quire_seq));
static_assert(sizeof(quire::Stream) == 2 * sizeof(void *));
static_assert(sizeof(quire::Status) == sizeof(quire_status));

constexpr const char *kConfig =
    "device=cpu,layers=1,kv_heads=1,head_dim=16,page_tokens=16,format=f32,device_pages=16,segment="
    "-";

struct Served {
  quire::Cache cache;
  quire_key root{};
  std::vector<uint32_t> tokens;
  std::array<quire_key, 3> keys{};

  Served() : tokens(48, 7) {
    auto opened = quire::Cache::open(kConfig);
    BOOST_TEST_REQUIRE(opened.status().ok(), quire::Status::detail());
    cache = std::move(*opened);
    root = cache.root_key({}).value();
    const auto n = cache.chain_keys(root, tokens, keys);
    BOOST_TEST_REQUIRE(n.status().ok());
    BOOST_TEST_REQUIRE(*n == 3u);
  }
  quire_prefix prefix() const { return quire::Cache::prefix(root, keys); }
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_failure_is_a_status_and_an_empty_value) {
  auto none = quire::Cache::open("layers=none");
  BOOST_TEST(!none);
  BOOST_TEST((none.status() == quire::Status(QUIRE_E_INVALID)));
  BOOST_TEST(!*none);
  BOOST_TEST(quire::Status::detail()[0] != '\0');
  BOOST_TEST(none.status().text() == quire_status_string(QUIRE_E_INVALID));
}

BOOST_AUTO_TEST_CASE(leases_and_pages_go_with_their_owners) {
  Served s;
  const quire_prefix prefix = s.prefix();
  {
    std::array<quire_page, 3> pages{};
    auto hit = quire::sized<quire_hit>();
    auto lease = s.cache.acquire(prefix, nullptr, pages, &hit);
    BOOST_TEST_REQUIRE(lease.status().ok());
    BOOST_TEST(hit.pages == 0u);
    BOOST_TEST(lease->alloc(pages).ok());
    BOOST_TEST(lease->info()->private_pages == 3u);
    const auto result = s.cache.publish(*lease, prefix, pages);
    BOOST_TEST_REQUIRE(result.status().ok());
    BOOST_TEST(result->n_published == 3u);
    std::array<int32_t, 3> table{};
    BOOST_TEST(s.cache.frames(pages, table).ok());
    auto shorter = lease->clone(2);
    BOOST_TEST(shorter->info()->pages == 2u);
    quire::Lease moved = std::move(*shorter);
    BOOST_TEST(!*shorter);
    BOOST_TEST(s.cache.stats()->leases == 2u);
    moved = std::move(*lease);  // the clone is released
    BOOST_TEST(s.cache.stats()->leases == 1u);
    BOOST_TEST(moved.renew(10).ok());
    BOOST_TEST(!s.cache.close().ok());  // a lease is out: nothing happens
    BOOST_TEST(bool{s.cache});
  }
  BOOST_TEST(s.cache.stats()->leases == 0u);
  BOOST_TEST(s.cache.match(prefix)->pages == 3u);
  {
    std::array<quire_page, 4> pages{};
    auto own = s.cache.alloc(pages);
    BOOST_TEST_REQUIRE(own.status().ok());
    BOOST_TEST(own->get().size() == 4u);
    BOOST_TEST(s.cache.stats()->pages_private == 4u);
  }
  BOOST_TEST(s.cache.stats()->pages_private == 0u);
  BOOST_TEST(s.cache.evict(s.root).ok());
  BOOST_TEST(s.cache.match(prefix)->pages == 0u);
  BOOST_TEST(s.cache.check().ok());
  BOOST_TEST(s.cache.close().ok());
  BOOST_TEST(!s.cache);
}

BOOST_AUTO_TEST_CASE(detach_hands_the_handle_over) {
  Served s;
  quire_lease raw = 0;
  {
    auto lease = s.cache.acquire(s.prefix());
    BOOST_TEST_REQUIRE(lease.status().ok());
    raw = lease->detach();
  }
  BOOST_TEST(quire_release(s.cache.get(), raw, nullptr) == QUIRE_OK);
  quire::Lease twice(s.cache.get(), raw);
  BOOST_TEST((twice.release() == quire::Status(QUIRE_E_STALE)));
  twice.detach();
}

BOOST_AUTO_TEST_CASE(sequences_and_streams) {
  Served s;
  auto queue = quire::CpuStream::create();
  BOOST_TEST_REQUIRE(queue.status().ok());
  {
    auto stream = s.cache.add_stream(queue->get());
    BOOST_TEST_REQUIRE(stream.status().ok());
    auto sequence = s.cache.sequence(s.root, s.tokens);
    BOOST_TEST_REQUIRE(sequence.status().ok());
    BOOST_TEST(sequence->append(20, stream->get()).ok());
    BOOST_TEST(sequence->commit(std::span(s.tokens).first(20), stream->get()).ok());
    auto fork = sequence->fork(stream->get());
    BOOST_TEST_REQUIRE(fork.status().ok());
    BOOST_TEST(fork->truncate(18, stream->get()).ok());
    BOOST_TEST(fork->info()->committed == 18u);
    uint32_t n = 0;
    std::array<int32_t, 4> table{};
    BOOST_TEST(sequence->block_table(table, &n).ok());
    BOOST_TEST(n == 2u);
    BOOST_TEST(sequence->close().ok());
    BOOST_TEST(sequence->close().ok());  // empty: nothing to do
    int ran = 0;
    BOOST_TEST(queue->launch([](void *at) { *static_cast<int *>(at) = 1; }, &ran).ok());
    BOOST_TEST(queue->wait().ok());
    BOOST_TEST(ran == 1);
    BOOST_TEST(s.cache.step().ok());
  }
  BOOST_TEST(s.cache.stats()->sequences == 0u);
  BOOST_TEST(s.cache.close().ok());
}
