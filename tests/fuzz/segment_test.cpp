// Segments with damage anywhere, done before they are attached, after, or both: every call answers
// or refuses, texts stay JSON, and quire-stat ends with a status of its own. Under ASan nothing is
// read beyond the mapping's parts.
#define BOOST_TEST_MODULE fuzz_segment
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <boost/test/unit_test.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "quire/quire.h"
#include "runtime/region.h"
#include "tests/support/fuzz.h"
#include "tests/support/insight_fixture.h"

using namespace quire::test;

namespace {

std::string unique_name(const char *what) {
  static int number = 0;
  return "quire-fuzz." + std::to_string(::getpid()) + "." + what + std::to_string(++number);
}

// A cache with some of everything: chains, late leases, private pages, sequences that share a page,
// a registered stream, frames in limbo, an evicted namespace, events that nobody took.
class Engine {
 public:
  Engine(std::string segment, const std::string &more)
      : name(std::move(segment)), cache_(open_small(name, more)) {
    const bool tokens = more.find("verify_tokens=1") != std::string::npos;
    must(quire_cpu_stream_create(&stream_));
    must(quire_stream_add(cache_, stream_, 0, 0));
    size_t none = 0;
    must(quire_events_poll(cache_, nullptr, &none));
    if (!tokens) {
      leases_ = {publish_chain(cache_, 1, 4, 11), publish_chain(cache_, 2, 2, 12, 1),
                 publish_chain(cache_, 3, 3, 12)};
      must(quire_release(cache_, leases_.back(), nullptr));
      leases_.pop_back();
    }
    leases_.push_back(hold_private(cache_, 2, 13));
    quire_key root;
    must(quire_root_key(cache_, nullptr, 0, &root));
    std::vector<uint32_t> prompt(21, 7);
    quire_seq_options options;
    QUIRE_INIT(&options);
    options.owner = 14;
    seq_.resize(2);
    must(quire_seq_open(cache_, &root, prompt.data(), prompt.size(), &options, nullptr, &seq_[0]));
    must(quire_seq_append(cache_, seq_[0], 21, stream_, nullptr));
    must(quire_seq_commit(cache_, seq_[0], prompt.data(), 21, stream_));
    must(quire_seq_fork(cache_, seq_[0], stream_, &seq_[1]));
    must(quire_step(cache_));
  }
  ~Engine() {
    for (const quire_seq seq : seq_) must(quire_seq_close(cache_, seq, nullptr));
    for (const quire_lease lease : leases_) must(quire_release(cache_, lease, nullptr));
    must(quire_stream_remove(cache_, stream_));
    must(quire_cpu_stream_wait(stream_));
    must(quire_step(cache_));
    must(quire_close(cache_));
    must(quire_cpu_stream_destroy(stream_));
  }
  Engine(const Engine &) = delete;
  Engine &operator=(const Engine &) = delete;

  std::string name;

 private:
  quire_cache *cache_;
  quire_stream stream_ = nullptr;
  std::vector<quire_lease> leases_;
  std::vector<quire_seq> seq_;
};

// The bytes of a segment under a name of their own, to be damaged and healed.
class Copy {
 public:
  explicit Copy(const std::string &of) : name(unique_name("copy")) {
    const int from = ::shm_open(("/" + of).c_str(), O_RDONLY, 0);
    struct stat st = {};
    BOOST_REQUIRE(from >= 0 && ::fstat(from, &st) == 0);
    clean_.resize(static_cast<size_t>(st.st_size));
    BOOST_REQUIRE(::pread(from, clean_.data(), clean_.size(), 0) == st.st_size);
    ::close(from);
    const int to = ::shm_open(("/" + name).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    BOOST_REQUIRE(to >= 0 && ::ftruncate(to, st.st_size) == 0);
    void *at = ::mmap(nullptr, clean_.size(), PROT_READ | PROT_WRITE, MAP_SHARED, to, 0);
    BOOST_REQUIRE(at != MAP_FAILED);
    ::close(to);
    bytes_ = static_cast<unsigned char *>(at);
    std::memcpy(bytes_, clean_.data(), clean_.size());
  }
  ~Copy() {
    ::munmap(bytes_, clean_.size());
    ::shm_unlink(("/" + name).c_str());
  }
  Copy(const Copy &) = delete;
  Copy &operator=(const Copy &) = delete;

  // As if its process had died: then everything is checked.
  void set_dead() {
    const uint64_t never = 1;
    write(offsetof(quire::RegionHeader, process_start), &never, sizeof never);
  }
  // A few places of one kind each, in the header or in a part: so that small parts are hit as often
  // as large ones.
  void damage(Bytes &random) {
    const auto *header = reinterpret_cast<const quire::RegionHeader *>(clean_.data());
    for (uint32_t n = 1 + random.below(4); n > 0; --n) {
      const uint32_t part = random.below(quire::kParts + 2);
      const bool in_part = part < quire::kParts;
      const size_t begin = in_part ? header->offset[part] : 0;
      const size_t length = in_part ? header->length[part] : sizeof(quire::RegionHeader);
      if (length < sizeof(uint64_t)) continue;
      const size_t at = begin + random.word() % (length - 7);
      unsigned char few[8];
      switch (random.below(5)) {
        case 0: {
          const auto flipped = static_cast<unsigned char>(bytes_[at] ^ 1u << random.below(8));
          write(at, &flipped, 1);
          break;
        }
        case 1: {
          const uint32_t word = random.number32();
          write(at & ~size_t{3}, &word, sizeof word);
          break;
        }
        case 2: {
          const uint64_t word = random.number();
          write(at & ~size_t{7}, &word, sizeof word);
          break;
        }
        case 3: {  // what belongs elsewhere
          std::memcpy(few, clean_.data() + (random.word() % (clean_.size() - 7) & ~size_t{7}), 8);
          write(at & ~size_t{7}, few, sizeof few);
          break;
        }
        default:
          for (uint32_t run = 1 + random.below(64); run > 0; --run) {
            const auto byte = static_cast<unsigned char>(random.chance(64) ? 0xff : random.word());
            if (at + run <= begin + length) write(at + run - 1, &byte, 1);
          }
      }
    }
  }
  void heal() {
    for (const auto &[at, n] : written_) std::memcpy(bytes_ + at, clean_.data() + at, n);
    written_.clear();
  }

  std::string name;

 private:
  void write(size_t at, const void *from, size_t n) {
    std::memcpy(bytes_ + at, from, n);
    written_.emplace_back(at, n);
  }

  std::vector<unsigned char> clean_;
  unsigned char *bytes_ = nullptr;
  std::vector<std::pair<size_t, size_t>> written_;
};

template <class Call>
std::string text_of_segment(Call call) {
  size_t bytes = 0;
  must(call(nullptr, &bytes));
  std::string text(bytes, 0);
  must(call(text.data(), &bytes));
  text.resize(bytes - 1);
  return text;
}

// Every call there is. Returns attach's status.
template <class Between>
quire_status exercise(const std::string &name, const std::string &round, Between between) {
  quire_segment *segment = nullptr;
  const quire_status status = quire_segment_attach(name.c_str(), &segment);
  if (status != QUIRE_OK) return status;
  between();
  quire_segment_record record;
  QUIRE_INIT(&record);
  must(quire_segment_info(segment, &record));
  quire_layout_info layout;
  QUIRE_INIT(&layout);
  quire_segment_layout(segment, &layout);
  quire_stats stats;
  QUIRE_INIT(&stats);
  must(quire_segment_stats(segment, &stats));
  const std::string json =
      text_of_segment([&](char *out, size_t *n) { return quire_segment_json(segment, out, n); });
  BOOST_REQUIRE_MESSAGE(nlohmann::json::accept(json), round << ": no JSON: " << json);
  text_of_segment([&](char *out, size_t *n) { return quire_segment_prometheus(segment, out, n); });
  const quire_status check = quire_segment_check(segment);
  BOOST_REQUIRE_MESSAGE(check == QUIRE_OK || check == QUIRE_E_CORRUPT, round << ": " << check);
  quire_lease at = 0;
  uint32_t leases = 0;
  do {
    quire_lease_record lease;
    QUIRE_INIT(&lease);
    must(quire_segment_lease_next(segment, &at, &lease));
    BOOST_REQUIRE_MESSAGE(++leases <= 1000, round << ": a walk of leases without end");
  } while (at != 0);
  quire_event events[8] = {};
  quire_published pages[8] = {};
  events[0].size = sizeof events[0];
  pages[0].size = sizeof pages[0];
  for (uint64_t cursor : {uint64_t{0}, uint64_t{1}, uint64_t{77}, UINT64_MAX}) {
    uint64_t lost = 0;
    for (int i = 0; i < 4; ++i) {
      size_t n = std::size(events);
      must(quire_segment_events(segment, &cursor, events, &n, &lost));
    }
  }
  for (uint64_t place : {uint64_t{0}, UINT64_MAX}) {
    for (int i = 0; i < 64; ++i) {
      size_t n = std::size(pages);
      must(quire_segment_published_next(segment, &place, pages, &n));
      if (place == 0) break;
    }
  }
  quire_namespace_record space;
  QUIRE_INIT(&space);
  for (uint32_t place : {0u, UINT32_MAX, 3u}) {
    for (int i = 0; i < 64; ++i) {
      must(quire_segment_namespace_next(segment, &place, &space));
      if (place == 0) break;
    }
  }
  must(quire_segment_detach(segment));
  return QUIRE_OK;
}

}  // namespace

BOOST_AUTO_TEST_CASE(damage_anywhere_gives_an_error_or_an_answer) {
  Engine coded(unique_name("coded"), ",open_pages=24");
  Engine plain(unique_name("plain"), ",verify_tokens=1,format=f16,open_pages=0");
  Copy copies[] = {Copy(coded.name), Copy(plain.name)};
  Fuzz fuzz("segment", 1500);
  uint64_t refused = 0;
  while (fuzz.next()) {
    Bytes random(fuzz.seed());
    Copy &copy = copies[random.below(2)];
    if (random.chance(160)) copy.set_dead();
    const uint32_t when = random.below(3);
    if (when != 1) copy.damage(random);
    const quire_status status = exercise(copy.name, fuzz.text(), [&] {
      if (when != 0) copy.damage(random);
    });
    refused += status != QUIRE_OK ? 1 : 0;
    BOOST_REQUIRE_MESSAGE(
        status == QUIRE_OK || status == QUIRE_E_CORRUPT || status == QUIRE_E_VERSION,
        fuzz.text() << ": attach " << status);
    copy.heal();
  }
  if (std::getenv("QUIRE_TEST_SEED") == nullptr) BOOST_TEST(refused > 0u);
  for (Copy &copy : copies) {
    BOOST_TEST(exercise(copy.name, "healed", [] {}) == QUIRE_OK);
  }
}

// The program does with what it was told what the calls do not: it formats and adds up.
BOOST_AUTO_TEST_CASE(quire_stat_ends_with_a_status_of_its_own_on_any_damage) {
  const std::string tool = std::string(QUIRE_TOOLS_DIR) + "/quire-stat";
  if (::access(tool.c_str(), X_OK) != 0) {
    std::printf("SKIPPED: %s was not built\n", tool.c_str());
    return;
  }
  Engine engine(unique_name("tool"), ",open_pages=24");
  Copy copy(engine.name);
  Fuzz fuzz("quire-stat", 25);
  while (fuzz.next()) {
    Bytes random(fuzz.seed());
    copy.set_dead();
    copy.damage(random);
    for (const char *const command : {"list", "dump", "dump --json", "check", "leases"}) {
      const bool named = std::strcmp(command, "list") != 0;
      const std::string line =
          tool + " " + command + (named ? " " + copy.name : "") + " >/dev/null 2>&1";
      const int status = std::system(line.c_str());  // NOLINT(cert-env33-c): our own words
      BOOST_REQUIRE_MESSAGE(WIFEXITED(status) && WEXITSTATUS(status) <= 2,
                            fuzz.text() << ": " << command << ": " << status);
    }
    copy.heal();
  }
}
