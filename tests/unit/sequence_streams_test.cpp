// Sequences whose work moves between streams: what the library copies, decodes and encodes, and
// what the engine writes behind that, comes after what was written before, whatever the order in
// which streams run. Engines here name a stream for each call and order nothing themselves.
//
// A token's K and V are one number in every dimension, so that a row that came too early, too late
// or from another sequence is seen, in coded pages as well.
#define BOOST_TEST_MODULE sequence_streams
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <thread>

#include "runtime/cache.h"
#include "tests/support/adversary_device.h"
#include "tests/support/api_fixture.h"

using namespace quire::test;

namespace {

constexpr uint32_t kPageTokens = 16, kDim = 16;

uint64_t seed_of(uint64_t fallback) {
  const char *const text = std::getenv("QUIRE_TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : fallback;
}

// What differs between the device that lies and the real one.
class Machine {
 public:
  virtual ~Machine() = default;
  virtual quire::Device *device() = 0;
  virtual quire_stream add() = 0;
  virtual void remove(quire_stream stream) = 0;
  virtual void delay(quire_stream stream) = 0;  // what is enqueued next takes its time
  virtual void go_on(unsigned steps) = 0;
  virtual void finish() = 0;
};

class Lying final : public Machine {
 public:
  explicit Lying(uint64_t seed) : device_(seed) {
    device_.delay_events(2);
    device_.set_spurious(16);
  }
  quire::Device *device() override { return &device_; }
  quire_stream add() override { return device_.add_stream(); }
  void remove(quire_stream stream) override { device_.remove_stream(stream); }
  void delay(quire_stream) override {}
  void go_on(unsigned steps) override { device_.pump(steps); }
  void finish() override {
    device_.pump();
    device_.delay_events(0);
    device_.set_spurious(0);
  }
  AdversaryDevice &adversary() { return device_; }

 private:
  AdversaryDevice device_;
};

class Real final : public Machine {
 public:
  explicit Real(uint64_t seed) : random_(seed) {}
  quire::Device *device() override { return nullptr; }
  quire_stream add() override {
    quire_stream stream = nullptr;
    QUIRE_OK_OR_DIE(quire_cpu_stream_create(&stream));
    streams_.push_back(stream);
    return stream;
  }
  void remove(quire_stream stream) override { QUIRE_OK_OR_DIE(quire_cpu_stream_destroy(stream)); }
  void delay(quire_stream stream) override {
    const auto yields = static_cast<uintptr_t>(random_() % 40);
    QUIRE_OK_OR_DIE(quire_cpu_stream_launch(
        stream,
        [](void *n) {
          for (auto i = reinterpret_cast<uintptr_t>(n); i-- > 0;) std::this_thread::yield();
        },
        reinterpret_cast<void *>(yields)));  // NOLINT(performance-no-int-to-ptr): a number
  }
  void go_on(unsigned) override { std::this_thread::yield(); }
  void finish() override {
    for (quire_stream s : streams_) QUIRE_OK_OR_DIE(quire_cpu_stream_wait(s));
  }

 private:
  std::mt19937_64 random_;
  std::vector<quire_stream> streams_;
};

struct Expected {
  quire_seq seq = 0;
  std::vector<float> values;  // of committed tokens
  std::vector<uint32_t> ids;
};

class Engine {
 public:
  Engine(Machine &machine, const char *config, uint64_t seed, unsigned n_streams)
      : machine_(machine), seed_(seed), random_(seed) {
    const quire_config c = small_config(config);
    quire::Cache *cache = nullptr;
    BOOST_TEST_REQUIRE((quire::Cache::open(c, machine.device(), &cache) == quire::Status::kOk));
    cache_ = reinterpret_cast<quire_cache *>(cache);
    QUIRE_OK_OR_DIE(quire_root_key(cache_, nullptr, 0, &root_));
    for (unsigned i = 0; i < n_streams; ++i) {
      streams_.push_back(machine.add());
      QUIRE_OK_OR_DIE(quire_stream_add(cache_, streams_.back(), 0, 0));
    }
  }
  ~Engine() {
    machine_.finish();
    QUIRE_OK_OR_DIE(quire_step(cache_));
    for (quire_stream s : streams_) QUIRE_OK_OR_DIE(quire_stream_remove(cache_, s));
    machine_.finish();
    QUIRE_OK_OR_DIE(quire_step(cache_));
    BOOST_CHECK_MESSAGE(quire_check(cache_, 0) == QUIRE_OK, quire_last_error());
    BOOST_CHECK_MESSAGE(quire_close(cache_) == QUIRE_OK, quire_last_error());
    for (quire_stream s : streams_) machine_.remove(s);
  }
  Engine(const Engine &) = delete;
  Engine &operator=(const Engine &) = delete;

  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  quire_stream some_stream() { return streams_[below(static_cast<uint32_t>(streams_.size()))]; }
  quire_cache *cache() { return cache_; }
  quire_stream stream(size_t i) const { return streams_[i]; }
  uint64_t again() const { return again_; }

  // Until it is no longer AGAIN: a step, and the streams a little further.
  template <class Call>
  quire_status patiently(Call &&call) {
    for (;;) {
      const quire_status status = call();
      if (status != QUIRE_E_AGAIN) return status;
      ++again_;
      QUIRE_OK_OR_DIE(quire_step(cache_));
      machine_.go_on(1 + below(8));
    }
  }

  Expected open() {
    Expected e;
    // Token ids that no other has: nothing is found, so nothing must be waited for here.
    QUIRE_OK_OR_DIE(quire_seq_open(cache_, &root_, nullptr, 0, nullptr, nullptr, &e.seq));
    return e;
  }
  // n tokens on a stream: room, the writes, the commit.
  void grow(Expected &e, uint32_t n, quire_stream stream) {
    auto work = std::make_unique<Work>();
    work->slots.resize(n);
    const quire_status status =
        patiently([&] { return quire_seq_append(cache_, e.seq, n, stream, work->slots.data()); });
    if (status == QUIRE_E_NOMEM) return;
    BOOST_TEST_REQUIRE(status == QUIRE_OK, quire_last_error());
    std::vector<uint32_t> ids;
    for (uint32_t i = 0; i < n; ++i) {
      const float value = std::ldexp(random_() % 2 == 0 ? 1.0f : -1.0f, static_cast<int>(below(4)));
      work->values.insert(work->values.end(), kDim, value);
      e.values.push_back(value);
      ids.push_back(++last_id_);
    }
    auto args = sized_struct<quire_append_args>();
    args.n = n;
    args.k = args.v = work->values.data();
    args.slots = work->slots.data();
    args.stream = stream;
    machine_.delay(stream);
    QUIRE_OK_OR_DIE(quire_kv_append(cache_, &args));
    work_.push_back(std::move(work));
    QUIRE_OK_OR_DIE(
        patiently([&] { return quire_seq_commit(cache_, e.seq, ids.data(), n, stream); }));
    e.ids.insert(e.ids.end(), ids.begin(), ids.end());
  }
  bool fork(const Expected &from, quire_stream stream, Expected *child) {
    *child = from;
    const quire_status status =
        patiently([&] { return quire_seq_fork(cache_, from.seq, stream, &child->seq); });
    BOOST_TEST_REQUIRE((status == QUIRE_OK || status == QUIRE_E_NOMEM), quire_last_error());
    return status == QUIRE_OK;
  }
  void cut(Expected &e, uint32_t n, quire_stream stream) {
    const quire_status status =
        patiently([&] { return quire_seq_truncate(cache_, e.seq, n, stream); });
    if (status == QUIRE_E_NOMEM) return;
    BOOST_TEST_REQUIRE(status == QUIRE_OK, quire_last_error());
    e.values.resize(n);
    e.ids.resize(n);
  }
  void close(Expected &e) { QUIRE_OK_OR_DIE(quire_seq_close(cache_, e.seq, nullptr)); }

  // All streams at rest: every token of the sequence is what was written.
  void verify(const Expected &e) {
    uint32_t n_pages = 0;
    std::vector<int32_t> table(64);
    uint64_t kv_len = 0;
    QUIRE_OK_OR_DIE(quire_seq_block_table(cache_, e.seq, table.data(), 64, &n_pages, &kv_len));
    BOOST_TEST_REQUIRE(kv_len >= e.values.size());
    const auto n = static_cast<uint32_t>(e.values.size());
    std::vector<float> k(size_t{n} * kDim), v(k.size());
    auto args = sized_struct<quire_gather_args>();
    args.n = n;
    args.k = k.data();
    args.v = v.data();
    args.block_table = table.data();
    args.block_table_length = n_pages;
    QUIRE_OK_OR_DIE(quire_kv_gather(cache_, &args));
    for (size_t i = 0; i < k.size(); ++i) {
      const float want = e.values[i / kDim];
      for (const float got : {k[i], v[i]}) {
        BOOST_REQUIRE_MESSAGE(std::fabs(got - want) <= 0.35f * std::fabs(want),
                              "QUIRE_TEST_SEED=" << seed_ << ": token " << i / kDim << " of " << n
                                                 << " reads " << got << ", written was " << want);
      }
    }
  }

 private:
  struct Work {
    std::vector<float> values;
    std::vector<int64_t> slots;
  };

  Machine &machine_;
  uint64_t seed_;
  std::mt19937_64 random_;
  quire_cache *cache_ = nullptr;
  quire_key root_{};
  std::vector<quire_stream> streams_;
  std::deque<std::unique_ptr<Work>> work_;
  uint32_t last_id_ = 0;
  uint64_t again_ = 0;
};

constexpr const char *kPlain = "format=f32,device_pages=48";
constexpr const char *kCoded = "format=nf4,device_pages=48,open_pages=24";

// Sequences that grow, fork, roll back and end on streams drawn at random.
void wander(Machine &machine, const char *config, uint64_t seed, unsigned operations) {
  Engine engine(machine, config, seed, 3);
  std::vector<Expected> all;
  for (unsigned i = 0; i < operations; ++i) {
    const quire_stream stream = engine.some_stream();
    const size_t which = all.empty() ? 0 : engine.below(static_cast<uint32_t>(all.size()));
    switch (engine.below(all.empty() ? 1 : 8)) {
      case 0:
        if (all.size() < 4) all.push_back(engine.open());
        break;
      case 1:
      case 2:
      case 3:
        if (all[which].values.size() < 5 * kPageTokens) {
          engine.grow(all[which], 1 + engine.below(kPageTokens + 4), stream);
        }
        break;
      case 4:
      case 5: {
        Expected child;
        if (all.size() < 6 && engine.fork(all[which], stream, &child)) all.push_back(child);
        break;
      }
      case 6: {
        const auto n = static_cast<uint32_t>(all[which].values.size());
        engine.cut(all[which], n - engine.below(std::min(n, kPageTokens + 8) + 1), stream);
        break;
      }
      default:
        if (engine.below(3) == 0) {
          machine.finish();
          engine.verify(all[which]);
          engine.close(all[which]);
          all.erase(all.begin() + static_cast<std::ptrdiff_t>(which));
        }
    }
    if (engine.below(4) == 0) QUIRE_OK_OR_DIE(quire_step(engine.cache()));
    machine.go_on(engine.below(4));
  }
  machine.finish();
  for (Expected &e : all) engine.verify(e);
  for (Expected &e : all) engine.close(e);
}

}  // namespace

// The parent's tokens are on their way on one stream when the fork writes on another.
BOOST_AUTO_TEST_CASE(a_copy_on_write_waits_for_the_tokens_that_it_copies) {
  for (const char *config : {kPlain, kCoded}) {
    Lying machine(1);
    Engine engine(machine, config, 1, 2);
    Expected parent = engine.open(), child;
    machine.adversary().stall(engine.stream(0), true);
    engine.grow(parent, 5, engine.stream(0));
    BOOST_TEST_REQUIRE(engine.fork(parent, engine.stream(1), &child));
    // Nothing is recorded behind the commit yet: refused, and nothing has changed.
    QUIRE_FAILS(quire_seq_append(engine.cache(), child.seq, 3, engine.stream(1), nullptr),
                QUIRE_E_AGAIN);
    uint64_t kv_len = 0;
    QUIRE_OK_OR_DIE(quire_seq_block_table(engine.cache(), child.seq, nullptr, 0, nullptr, &kv_len));
    BOOST_TEST(kv_len == 5u);
    QUIRE_OK_OR_DIE(quire_step(engine.cache()));
    engine.grow(child, 3, engine.stream(1));
    machine.adversary().pump();  // all that the second stream may do alone
    machine.adversary().stall(engine.stream(0), false);
    machine.finish();
    engine.verify(parent);
    engine.verify(child);
    engine.close(parent);
    engine.close(child);
  }
}

// A page that one stream encodes is decoded for a roll back on another.
BOOST_AUTO_TEST_CASE(a_roll_back_into_a_sealed_page_waits_for_its_encoder) {
  for (const char *config : {kPlain, kCoded}) {
    Lying machine(2);
    Engine engine(machine, config, 2, 2);
    Expected e = engine.open();
    machine.adversary().stall(engine.stream(0), true);
    engine.grow(e, kPageTokens, engine.stream(0));
    QUIRE_FAILS(quire_seq_truncate(engine.cache(), e.seq, 9, engine.stream(1)), QUIRE_E_AGAIN);
    QUIRE_OK_OR_DIE(quire_step(engine.cache()));
    engine.cut(e, 9, engine.stream(1));
    engine.grow(e, 2, engine.stream(1));
    machine.adversary().pump();
    machine.adversary().stall(engine.stream(0), false);
    machine.finish();
    engine.verify(e);
    engine.close(e);
  }
}

// Tokens that were rolled back are on their way on one stream when their places are written again
// on another.
BOOST_AUTO_TEST_CASE(tokens_that_replace_others_come_after_them) {
  Lying machine(3);
  Engine engine(machine, kPlain, 3, 2);
  Expected e = engine.open();
  machine.adversary().stall(engine.stream(0), true);
  engine.grow(e, 9, engine.stream(0));
  engine.cut(e, 4, engine.stream(1));
  QUIRE_OK_OR_DIE(quire_step(engine.cache()));
  engine.grow(e, 5, engine.stream(1));
  machine.adversary().pump();
  machine.adversary().stall(engine.stream(0), false);
  machine.finish();
  engine.verify(e);
  engine.close(e);
}

// A page whose tokens two streams wrote is encoded on the second one.
BOOST_AUTO_TEST_CASE(an_encoder_waits_for_all_that_wrote_to_the_page) {
  Lying machine(4);
  Engine engine(machine, kCoded, 4, 2);
  Expected e = engine.open();
  machine.adversary().stall(engine.stream(0), true);
  engine.grow(e, 7, engine.stream(0));
  QUIRE_OK_OR_DIE(quire_step(engine.cache()));
  engine.grow(e, kPageTokens, engine.stream(1));
  machine.adversary().pump();
  machine.adversary().stall(engine.stream(0), false);
  machine.finish();
  engine.verify(e);
  engine.close(e);
}

// One stream, the usual engine: nothing is refused, nothing is recorded for tokens that are decoded
// one by one.
BOOST_AUTO_TEST_CASE(an_engine_of_one_stream_pays_nothing) {
  Lying machine(5);
  Engine engine(machine, kPlain, 5, 1);
  Expected e = engine.open();
  engine.grow(e, 3, engine.stream(0));
  QUIRE_OK_OR_DIE(quire_step(engine.cache()));
  machine.finish();
  QUIRE_OK_OR_DIE(quire_step(engine.cache()));
  const uint64_t before = machine.adversary().calls(AdversaryDevice::Call::kRecord);
  for (int i = 0; i < 10; ++i) {
    engine.grow(e, 1, engine.stream(0));
    QUIRE_OK_OR_DIE(quire_step(engine.cache()));
    machine.finish();
  }
  BOOST_TEST(machine.adversary().calls(AdversaryDevice::Call::kRecord) == before);
  BOOST_TEST(machine.adversary().calls(AdversaryDevice::Call::kStreamWait) == 0u);
  BOOST_TEST(engine.again() == 0u);
  engine.verify(e);
  engine.close(e);
}

BOOST_AUTO_TEST_CASE(sequences_that_change_streams_on_a_device_that_lies) {
  for (uint64_t seed = seed_of(100); seed < seed_of(100) + 20; ++seed) {
    for (const char *config : {kPlain, kCoded}) {
      Lying machine(seed);
      wander(machine, config, seed, 300);
    }
  }
}

BOOST_AUTO_TEST_CASE(sequences_that_change_streams_on_threads) {
  for (uint64_t seed = seed_of(200); seed < seed_of(200) + 4; ++seed) {
    for (const char *config : {kPlain, kCoded}) {
      Real machine(seed);
      wander(machine, config, seed, 300);
    }
  }
}
