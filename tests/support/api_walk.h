// ApiWalk: a seeded walk through the C API, held against an ApiOracle at every step.
//
// One thread, no timer, an injected clock, an AdversaryDevice and an allocator that fails on
// demand: so a seed gives one history. After each call its status and results are what the oracle
// says; after each failed one, and every so often, the whole state is compared (compare) and
// quire_check is clean. A contradiction throws, with the last operations in its text.
//
// With tenants, each namespace has a quota or a floor from the start on, so that the library knows
// them all; what is published, refused and evicted follows from them.
//
// What must be exact depends on the setup. Without streams, frames are free at once, and the walk
// knows how many pages each call evicts. Events are polled at every comparison, so none is lost, and
// what they told is what is there: each page that was stored and not removed, once. With streams, frames wait in limbo for the adversary: then
// AGAIN is legal where memory is short, and instead each frame that is handed out is held against
// the work that was enqueued on it: its readers have passed, or are on the stream that gets it.
#ifndef QUIRE_TESTS_SUPPORT_API_WALK_H_
#define QUIRE_TESTS_SUPPORT_API_WALK_H_

#include <deque>
#include <memory>
#include <random>

#include "tests/support/adversary_device.h"
#include "tests/support/api_oracle.h"

namespace quire::test {

struct WalkSetup {
  const char *config;
  bool streams = false;
  bool failures = false;
  bool tenants = false;  // namespaces have quotas and floors, which change; no sequences then
};

// A private page of one or more sequences.
struct OracleShare {
  uint32_t shares = 1;
  bool open = false;
};

struct OracleSequence {
  size_t space = 0;
  std::vector<uint32_t> tokens;  // committed, while it may publish
  uint64_t committed = 0, reserved = 0, hit = 0;
  quire_lease lease = 0;
  std::vector<std::shared_ptr<OracleShare>> pages;  // behind the chain
  bool publishes = true;
};

class ApiWalk {
 public:
  ApiWalk(const WalkSetup &setup, uint64_t seed);
  ~ApiWalk();
  ApiWalk(const ApiWalk &) = delete;
  ApiWalk &operator=(const ApiWalk &) = delete;

  void run(uint64_t operations);
  void finish();  // gives everything back and closes
  std::string history() const;
  uint64_t failed_calls() const { return failed_; }

 private:
  struct Forecast {
    bool feasible = true;
    uint32_t missing = 0;  // sealed frames that must be evicted for
    bool dying = false;
    uint32_t evictable = 0;
    size_t own = ApiOracle::kNobody;
    std::vector<uint32_t> pages;  // of each namespace, with tenants
    uint32_t over = 0;            // pages that the namespace's quota has no room for
    uint32_t replaceable = 0;     // of its own
  };

  // What the walk draws from.
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  bool chance(uint32_t in_256) { return random_() % 256 < in_256; }
  std::vector<uint32_t> draw_path(uint32_t longest);
  const std::vector<quire_key> &keys_of(size_t space, const std::vector<uint32_t> &path);
  std::vector<uint32_t> tokens_of(const std::vector<uint32_t> &path) const;
  // With token ids of other variants here and there where the cache verifies them (variants_).
  quire_prefix prefix_of(size_t space, const std::vector<uint32_t> &path);
  quire_lease some_lease();
  quire_stream some_stream();
  void note(const char *format, ...) __attribute__((format(printf, 2, 3)));

  // Holding the library to it.
  quire_status called(quire_status status);  // counts; a failure has a sentence
  // own: the namespace that the call is for, where the library knows it.
  Forecast forecast(uint32_t sealed, uint32_t open, size_t own = ApiOracle::kNobody) const;
  void settle_tenants(const Forecast &f) const;
  size_t space_of(quire_lease lease) const {
    return setup_.tenants && lease != 0 ? oracle_.leases.at(lease).space : ApiOracle::kNobody;
  }
  // Evictions are taken over; the status is judged. True: the call succeeded.
  bool settle(const Forecast &f, quire_status status);
  uint32_t sync();
  static void expect(bool good, const char *what);
  void expect_status(quire_status got, quire_status want, const char *what);
  void arm();
  bool disarm();  // whether a failure was armed
  void compare();
  void compare_stats();
  void compare_tenants();
  void follow_events();
  void fresh_frame(int32_t entry, quire_stream stream);
  void enqueue_use(const std::vector<int32_t> &entries, quire_stream stream);
  quire_page_record info(quire_page page);

  // Operations, by noun.
  void match();
  void acquire();
  void release();
  void clone();
  void lease_calls();
  void alloc();
  void free();
  void seal();
  void publish();
  void publish_done(quire_lease lease, const std::vector<uint32_t> &path,
                    const std::vector<quire_page> &before, const std::vector<quire_page> &after,
                    const quire_publish_options &options, const quire_publish_result &result);
  void look();
  void evict_namespace();
  void tenant_settings();
  void set_limits(size_t space, uint32_t quota, uint32_t floor);
  void wrong_calls();
  void clock();
  void stream_calls();

  // Sequences (api_walk_sequences.cpp).
  void seq_open();
  void seq_append();
  void seq_commit();
  void seq_fork();
  void seq_truncate();
  void seq_look();
  void seq_close();
  void seq_commit_done(quire_seq seq, const std::vector<uint32_t> *tokens, uint32_t n,
                       quire_stream stream);
  std::map<quire_seq, OracleSequence>::iterator some_sequence();
  std::shared_ptr<OracleShare> take_share(bool open);
  void drop_share(std::shared_ptr<OracleShare> &share);
  void check_sequence(quire_seq seq);
  std::vector<int32_t> table_of(quire_seq seq);
  void fresh_frames(const std::vector<int32_t> &before, quire_seq seq, quire_stream stream);
  uint32_t chain_of(const OracleSequence &s) const {
    return static_cast<uint32_t>(oracle_.leases.at(s.lease).chain.size());
  }

  static void *allocate(size_t bytes, size_t align, void *user);
  static void deallocate(void *p, size_t bytes, size_t align, void *user);
  static uint64_t read_clock(void *user) { return static_cast<ApiWalk *>(user)->oracle_.now_ms; }

  WalkSetup setup_;
  std::mt19937_64 random_;
  AdversaryDevice device_;
  quire_cache *cache_ = nullptr;
  ApiOracle oracle_;
  std::map<quire_seq, OracleSequence> sequences_;
  std::vector<quire_key> roots_;
  std::map<std::pair<size_t, std::vector<uint32_t>>, std::vector<quire_key>> keys_;
  std::vector<quire_page> stale_pages_;
  std::vector<quire_lease> stale_leases_;
  std::vector<quire_stream> streams_, added_;
  std::map<int32_t, std::vector<std::pair<quire_stream, uint64_t>>> uses_;  // by block table entry
  std::vector<uint32_t> prefix_tokens_, variants_;  // of the last prefix_of()
  bool verifies_ = false;
  uint64_t mismatches_ = 0;
  std::map<std::pair<uint64_t, uint64_t>, uint32_t> listed_;  // keys, by what events told
  std::map<quire_page, quire_key> told_;  // pages, by what events told, and their parents' keys
  uint64_t last_event_ = 0, late_ = 0, removed_[6] = {};
  std::deque<std::string> history_;
  uint32_t page_tokens_ = 16;
  bool has_open_ = false;
  uint32_t frames_ = 0, open_frames_ = 0;
  uint32_t max_leases_ = 0, max_sequences_ = 0, max_streams_ = 0;
  uint64_t blocks_ = 0;      // of metadata
  uint64_t fail_block_ = 0;  // 0: none
  bool armed_ = false, hit_ = false;
  uint64_t failed_ = 0, operations_ = 0;
};

}  // namespace quire::test

#endif  // QUIRE_TESTS_SUPPORT_API_WALK_H_
