// Sequences of C API calls drawn from a seed, with handles that are good, stale, forged or of the
// wrong kind, counts and options at their edges, and streams that run when they like. Whatever is
// asked, a call gives a status that it documents with a sentence where it refuses, the metadata
// stays sound, and everything can be given back at the end.
//
// What C cannot check is kept: pointers are good for what is asked of them. What calls must *do* is
// held against an oracle elsewhere (tests/model/api_oracle_test.cpp).
#define BOOST_TEST_MODULE fuzz_api_calls
#include <boost/test/unit_test.hpp>

#include <atomic>
#include <map>
#include <vector>

#include "quire/quire.h"
#include "tests/support/fuzz.h"

using namespace quire::test;

namespace {

constexpr uint32_t kTokens = 8;    // a page
constexpr uint32_t kLongest = 24;  // pages of a prompt
constexpr size_t kKept = 40;       // handles of a kind, old ones as well

constexpr const char *kConfigs[] = {
    "format=f32,device_pages=12",
    "format=nf4,device_pages=12,open_pages=6,rope_dim=16,rope_theta=10000",
    "format=f16,device_pages=5,verify_tokens=1,policy=priority",
    "format=nf4,device_pages=20,open_pages=4,idle_ttl_ms=3,low_watermark=0.2",
};

template <class T>
T sized(Bytes &random) {
  T s;
  QUIRE_INIT(&s);
  // Sometimes of an older header, which ends between two fields, or forgotten.
  if (random.chance(6)) s.size = random.below(sizeof(T)) / 8 * 8;
  if (random.chance(2)) s.size = UINT32_MAX - random.below(3);
  return s;
}

template <class T>
T sized_whole() {
  T s;
  QUIRE_INIT(&s);
  return s;
}

class Walk {
 public:
  Walk(Bytes &random, std::string round) : random_(random), round_(std::move(round)) {
    quire_config config;
    good(quire_config_init(&config), "config_init");
    good(quire_config_parse(&config,
                            "device=cpu,layers=1,kv_heads=1,head_dim=16,page_tokens=8,max_leases=8,"
                            "max_sequences=4,max_namespaces=3,max_streams=2,max_threads=4"),
         "config_parse");
    good(quire_config_parse(&config, kConfigs[random.below(std::size(kConfigs))]), "config_parse");
    live_ = config.low_watermark != 0;
    config.segment = "-";
    config.epoch_ms = QUIRE_NO_TIMER;
    config.clock = [](void *user) { return static_cast<Walk *>(user)->now_ms_.load(); };
    config.clock_user = this;
    good(quire_open(&config, &cache_), "open");
    tokens_.resize(kLongest * kTokens);
    for (quire_stream &s : streams_) good(quire_cpu_stream_create(&s), "cpu_stream_create");
    values_.resize(kLongest * kTokens * 16, 0.5f);
    out_.resize(values_.size());
  }

  void run(uint32_t calls) {
    for (uint32_t i = 0; i < calls; ++i) {
      switch (random_.below(8)) {
        case 0:
          keys();
          break;
        case 1:
          leases();
          break;
        case 2:
        case 3:
          pages();
          break;
        case 4:
        case 5:
          sequences();
          break;
        case 6:
          engine();
          break;
        default:
          data();
      }
      if (random_.chance(16)) sound();
    }
  }

  // How often each call did something, and was refused.
  static std::string report() {
    std::string text;
    for (const auto &[what, n] : done_) {
      text += what + " " + std::to_string(n) + "/" + std::to_string(refused_[what]) + ", ";
    }
    return text;
  }
  static bool all_were_done() { return done_.size() >= refused_.size(); }

  // Gives back what there is, known or found.
  void finish() {
    sound();
    for (const quire_seq seq : seqs_) called(quire_seq_close(cache_, seq, nullptr), "seq_close");
    for (quire_lease at = 0;;) {
      good(quire_lease_next(cache_, &at), "lease_next");
      if (at == 0) break;
      good(quire_release(cache_, at, nullptr), "release");
    }
    for (const quire_page page : pages_) called(quire_free(cache_, &page, 1), "free");
    for (quire_stream s : streams_) called(quire_stream_remove(cache_, s), "stream_remove");
    for (quire_stream s : streams_) good(quire_cpu_stream_wait(s), "cpu_stream_wait");
    good(quire_step(cache_), "step");
    sound();
    good(quire_close(cache_), "close");
    for (quire_stream s : streams_) good(quire_cpu_stream_destroy(s), "cpu_stream_destroy");
  }

 private:
  quire_status called(quire_status status, const char *what) {
    ++(status == QUIRE_OK ? done_ : refused_)[what];
    if (status != QUIRE_OK) {
      const bool known = status > QUIRE_OK && status <= QUIRE_E_VERSION &&
                         status != QUIRE_E_CORRUPT && status != QUIRE_E_DEVICE &&
                         status != QUIRE_E_IO;
      BOOST_REQUIRE_MESSAGE(known && quire_last_error()[0] != 0,
                            round_ << ": " << what << ": " << status);
    }
    return status;
  }
  void good(quire_status status, const char *what) {
    BOOST_REQUIRE_MESSAGE(status == QUIRE_OK, round_ << ": " << what << ": "
                                                     << quire_status_string(status) << ": "
                                                     << quire_last_error());
  }
  // With a watermark the cache's own thread may be at work.
  void sound() { good(quire_check(cache_, live_ ? QUIRE_CHECK_LIVE : 0), "check"); }

  // A handle that was given once, one of another kind, or one that is nearly right.
  uint64_t some(const std::vector<uint64_t> &of) {
    if (random_.chance(8)) return random_.number();
    const std::vector<uint64_t> &from = random_.chance(250)   ? of
                                        : random_.chance(128) ? pages_
                                                              : leases_;
    if (from.empty()) return random_.chance(128) ? 0 : random_.number();
    const uint64_t handle =
        from[from.size() - 1 -
             random_.below(static_cast<uint32_t>(std::min<size_t>(from.size(), 4)))];
    return random_.chance(4) ? handle ^ uint64_t { 1 } << random_.below(64) : handle;
  }
  void keep(std::vector<uint64_t> &in, uint64_t handle) {
    if (in.size() >= kKept && &in != &pages_) in.erase(in.begin());
    in.push_back(handle);
  }
  quire_stream stream() {
    if (random_.chance(8)) return reinterpret_cast<quire_stream>(uintptr_t{random_.below(3)});
    return random_.chance(100) ? nullptr : streams_[random_.below(2)];
  }
  // Tokens of a tree of prompts, and their keys.
  uint32_t draw_prompt() {
    const uint32_t n = random_.below(5);
    for (uint32_t page = 0; page < n; ++page) {
      std::fill_n(tokens_.begin() + page * kTokens, kTokens, random_.below(2));
    }
    const uint32_t tenant = random_.below(4);
    const quire_field field = {QUIRE_FIELD_TENANT, sizeof tenant, &tenant};
    good(quire_root_key(cache_, &field, 1, &root_), "root_key");
    size_t room = kLongest;
    keys_.resize(kLongest);
    good(quire_chain_keys(cache_, &root_, tokens_.data(), size_t{n} * kTokens, nullptr, 0,
                          keys_.data(), &room),
         "chain_keys");
    if (n > 0 && random_.chance(4)) keys_[random_.below(n)].lo ^= 1;
    return n;
  }
  quire_prefix draw_prefix() {
    auto prefix = sized<quire_prefix>(random_);
    prefix.n = draw_prompt();
    prefix.root = root_;
    prefix.keys = random_.chance(2) ? nullptr : keys_.data();
    prefix.tokens = random_.chance(8) ? nullptr : tokens_.data();
    return prefix;
  }
  quire_retention draw_retention() {
    auto r = sized<quire_retention>(random_);
    r.priority = random_.below(5);
    r.cls = random_.below(9);
    if (random_.chance(4)) r.cls = random_.number32();
    if (random_.chance(64)) r.idle_ttl_ms = random_.number32();
    if (random_.chance(64)) r.absolute_ttl_ms = random_.number();
    return r;
  }

  void keys() {
    const quire_prefix prefix = draw_prefix();
    auto hit = sized<quire_hit>(random_);
    size_t n = random_.below(4);
    const quire_page_extra extra = {random_.below(4), 4, &round_[0]};
    quire_key out[kLongest];
    auto settings = sized<quire_namespace>(random_);
    settings.zero = random_.below(3);
    settings.quota = random_.chance(8)    ? random_.number()
                     : random_.chance(64) ? random_.below(8)
                                          : 0;
    settings.floor = random_.chance(8)    ? random_.number()
                     : random_.chance(64) ? random_.below(4)
                                          : 0;
    auto record = sized<quire_namespace_record>(random_);
    uint32_t at = random_.chance(64) ? random_.number32() : 0;
    switch (random_.below(7)) {
      case 0:
        called(quire_match(cache_, &prefix, &hit), "match");
        break;
      case 1:
        called(quire_chain_keys(cache_, &root_, tokens_.data(), random_.below(40), &extra,
                                random_.below(2), out, &n),
               "chain_keys");
        break;
      case 2:
        called(quire_namespace_set(cache_, &root_, &settings), "namespace_set");
        break;
      case 5:
        called(quire_namespace_get(cache_, &root_, &record), "namespace_get");
        break;
      case 6:
        called(quire_namespace_next(cache_, &at, &record), "namespace_next");
        break;
      case 3:
        if (random_.chance(64)) called(quire_evict(cache_, &root_), "evict");
        break;
      default:
        called(quire_match(cache_, &prefix, nullptr), "match");
    }
  }

  void leases() {
    const quire_prefix prefix = draw_prefix();
    auto options = sized<quire_acquire_options>(random_);
    options.flags = random_.chance(8) ? random_.number32() : random_.below(2);
    options.owner = random_.number();
    options.deadline_ms = random_.chance(128) ? 0 : random_.number();
    options.max_pages = random_.chance(200) ? 0 : random_.number32();
    options.tier = random_.chance(4) ? random_.number32() : 0;
    options.stream = stream();
    auto hit = sized<quire_hit>(random_);
    auto record = sized<quire_lease_record>(random_);
    const quire_retention retention = draw_retention();
    quire_page pages[kLongest];
    quire_lease lease = some(leases_);
    switch (random_.below(8)) {
      case 0:
      case 1:
        if (called(quire_acquire(cache_, &prefix, &options, pages, &hit, &lease), "acquire") ==
            QUIRE_OK) {
          keep(leases_, lease);
        }
        break;
      case 2:
      case 3:
        called(quire_release(cache_, lease, random_.chance(128) ? nullptr : &retention), "release");
        break;
      case 4:
        if (called(quire_lease_clone(cache_, lease,
                                     random_.chance(128) ? UINT32_MAX : random_.below(5), &options,
                                     &lease),
                   "lease_clone") == QUIRE_OK) {
          keep(leases_, lease);
        }
        break;
      case 5:
        called(quire_lease_renew(cache_, lease, random_.number()), "lease_renew");
        break;
      case 6:
        called(quire_lease_info(cache_, lease, &record), "lease_info");
        break;
      default:
        called(quire_lease_next(cache_, &lease), "lease_next");
    }
  }

  void pages() {
    std::vector<quire_page> list(kLongest);
    for (quire_page &page : list) page = some(pages_);
    const uint32_t n = random_.chance(200) ? random_.below(4) : random_.below(kLongest);
    auto alloc = sized<quire_alloc_options>(random_);
    alloc.flags = random_.chance(64) ? QUIRE_ALLOC_SEALED : 0;
    alloc.lease = random_.chance(128) ? 0 : some(leases_);
    alloc.first = random_.chance(200) ? 0 : random_.number32();
    alloc.stream = stream();
    auto publish = sized<quire_publish_options>(random_);
    publish.flags = random_.below(2);
    publish.stream = stream();
    const quire_retention retention = draw_retention();
    if (random_.chance(64)) publish.retention = &retention;
    auto result = sized<quire_publish_result>(random_);
    auto info = sized<quire_page_record>(random_);
    int32_t frames[kLongest];
    void *at = nullptr;
    size_t bytes = 0;
    switch (random_.below(9)) {
      case 0:
      case 1:
        if (called(quire_alloc(cache_, n, &alloc, list.data()), "alloc") == QUIRE_OK) {
          for (uint32_t i = 0; i < n; ++i) keep(pages_, list[i]);
        }
        break;
      case 2:
        called(quire_free(cache_, list.data(), n), "free");
        break;
      case 3:
        called(quire_seal(cache_, list.data(), n, stream()), "seal");
        break;
      case 4:
      case 5: {
        const quire_prefix prefix = draw_prefix();
        const quire_lease lease = some(leases_);
        called(quire_publish(cache_, lease, &prefix, list.data(), &publish, &result), "publish");
        break;
      }
      case 6:
        called(
            quire_frames(cache_, list.data(), n, static_cast<quire_tier>(random_.below(4)), frames),
            "frames");
        break;
      case 7:
        called(quire_page_info(cache_, list[0], &info), "page_info");
        break;
      default:
        if (called(quire_page_data(cache_, list[0], &at, &bytes), "page_data") == QUIRE_OK) {
          BOOST_REQUIRE_MESSAGE(at != nullptr && bytes != 0, round_);
        }
    }
  }

  void sequences() {
    quire_seq seq = some(seqs_);
    auto options = sized<quire_seq_options>(random_);
    options.flags = random_.chance(8) ? random_.number32() : random_.below(4);
    options.stream = stream();
    const quire_retention retention = draw_retention();
    if (random_.chance(64)) options.retention = &retention;
    auto hit = sized<quire_hit>(random_);
    auto record = sized<quire_seq_record>(random_);
    std::vector<int64_t> slots(64);
    std::vector<int32_t> table(kLongest);
    uint32_t n_pages = 0;
    uint64_t kv_len = 0;
    const uint32_t n = random_.below(20);
    switch (random_.below(10)) {
      case 0:
        if (called(quire_seq_open(cache_, &root_, tokens_.data(), draw_prompt() * kTokens, &options,
                                  &hit, &seq),
                   "seq_open") == QUIRE_OK) {
          keep(seqs_, seq);
        }
        break;
      case 1:
      case 2:
      case 3:
        // Without room for slots any count may be asked for.
        if (random_.chance(16)) {
          called(quire_seq_append(cache_, seq, random_.number32(), stream(), nullptr), "append");
        } else {
          called(quire_seq_append(cache_, seq, n, stream(), slots.data()), "append");
        }
        break;
      case 4:
      case 5:
        called(quire_seq_commit(cache_, seq, random_.chance(16) ? nullptr : tokens_.data(), n,
                                stream()),
               "commit");
        break;
      case 6:
        if (called(quire_seq_fork(cache_, seq, stream(), &seq), "fork") == QUIRE_OK) {
          keep(seqs_, seq);
        }
        break;
      case 7:
        called(quire_seq_truncate(cache_, seq, random_.chance(16) ? random_.number() : n, stream()),
               "truncate");
        break;
      case 8:
        called(quire_seq_block_table(cache_, seq, table.data(), random_.below(kLongest), &n_pages,
                                     &kv_len),
               "block_table");
        called(quire_seq_info(cache_, seq, &record), "seq_info");
        break;
      default:
        called(quire_seq_close(cache_, seq, random_.chance(128) ? nullptr : &retention), "close");
    }
  }

  void engine() {
    quire_event events[8];
    events[0] = sized<quire_event>(random_);
    if (events[0].size > sizeof(quire_event)) events[0].size = 0;
    size_t n = random_.below(9);
    quire_published pages[8];
    pages[0] = sized<quire_published>(random_);
    if (pages[0].size > sizeof(quire_published)) pages[0].size = 0;
    uint64_t cursor = random_.chance(64) ? random_.number() : random_.below(100);
    uint64_t place = random_.chance(64) ? random_.number() : random_.below(100), lost = 0;
    std::vector<char> text(1 << 15);
    size_t bytes = random_.below(static_cast<uint32_t>(text.size()));
    auto stats = sized<quire_stats>(random_);
    now_ms_ += random_.chance(128) ? 0 : random_.below(6);
    switch (random_.below(12)) {
      case 0:
        called(quire_stream_add(cache_, stream(), random_.chance(8) ? 1 : 0, random_.below(3)),
               "stream_add");
        break;
      case 1:
        called(quire_stream_remove(cache_, stream()), "stream_remove");
        break;
      case 2:
        called(quire_events_poll(cache_, events, &n), "events_poll");
        break;
      case 7:
        called(
            quire_events_read(cache_, &cursor, events, &n, random_.chance(128) ? &lost : nullptr),
            "events_read");
        break;
      case 8:
        called(quire_published_next(cache_, &place, pages, &n), "published_next");
        break;
      case 3:
        called(quire_stats_get(cache_, &stats), "stats_get");
        break;
      case 4:
        called(quire_stats_json(cache_, text.data(), &bytes), "stats_json");
        break;
      case 5:
        called(quire_stats_prometheus(cache_, text.data(), &bytes), "stats_prometheus");
        break;
      case 6:
        good(quire_cpu_stream_wait(streams_[random_.below(2)]), "cpu_stream_wait");
        break;
      default:
        good(quire_step(cache_), "step");
    }
  }

  // The data plane. What slots and block tables hold is the device's to read, so they name frames
  // that there are; everything else may be anything.
  void data() {
    auto frames = sized_whole<quire_layout_info>();
    good(quire_layout(cache_, QUIRE_TIER_DEVICE, 0, &frames), "layout");
    const auto entry = [&]() -> int32_t {
      const bool open = frames.open_frames != 0 && random_.chance(128);
      if (random_.chance(32)) return -1;
      return open ? -2 - static_cast<int32_t>(random_.below(frames.open_frames))
                  : static_cast<int32_t>(random_.below(frames.frames));
    };
    std::vector<int64_t> slots(16);
    std::vector<int32_t> table(4);
    for (int32_t &e : table) e = entry();
    for (int64_t &slot : slots) {
      const int64_t e = entry(), token = random_.below(kTokens);
      slot = e >= 0 ? e * kTokens + token : e == -1 ? -1 : -2 - ((-2 - e) * kTokens + token);
    }
    auto gather = sized<quire_gather_args>(random_);
    gather.layer = random_.chance(16) ? random_.number32() : 0;
    gather.n = random_.below(17);
    gather.dtype = random_.chance(16) ? random_.number32() : random_.below(3);
    gather.k = out_.data();
    gather.v = out_.data() + out_.size() / 2;
    gather.slots = random_.chance(128) ? slots.data() : nullptr;
    gather.block_table = random_.chance(200) ? table.data() : nullptr;
    gather.block_table_length = 4;
    gather.first = random_.chance(200) ? random_.below(40) : random_.number();
    // Any frame: one that a stream is writing, too, unless that is waited for.
    for (quire_stream s : streams_) good(quire_cpu_stream_wait(s), "cpu_stream_wait");
    called(quire_kv_gather(cache_, &gather), "kv_gather");
    float means[16] = {};
    if (random_.chance(32)) called(quire_key_anchor_set(cache_, random_.below(3), means), "anchor");
    auto layout = sized<quire_layout_info>(random_);
    called(
        quire_layout(cache_, static_cast<quire_tier>(random_.below(4)), random_.below(2), &layout),
        "layout");
  }

  using Counts = std::map<std::string, uint64_t>;
  inline static Counts done_, refused_;

  Bytes &random_;
  std::string round_;
  std::atomic<uint64_t> now_ms_{1};
  bool live_ = false;
  quire_cache *cache_ = nullptr;
  quire_stream streams_[2] = {};
  quire_key root_{};
  std::vector<uint32_t> tokens_;
  std::vector<quire_key> keys_;
  std::vector<float> values_, out_;
  std::vector<uint64_t> pages_, leases_, seqs_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(any_sequence_of_calls_leaves_a_cache_that_is_sound_and_can_be_closed) {
  Fuzz fuzz("api calls", 250);
  while (fuzz.next()) {
    Bytes random(fuzz.seed());
    Walk walk(random, fuzz.text());
    walk.run(500);
    walk.finish();
  }
  std::printf("done / refused: %s\n", Walk::report().c_str());
  if (std::getenv("QUIRE_TEST_SEED") == nullptr) BOOST_TEST(Walk::all_were_done());
}
