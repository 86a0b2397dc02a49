// Segments: a cache looked at by another process while it lives and after it was killed; and
// whatever is wrong with the bytes, an error or an answer, never a crash.
#define BOOST_TEST_MODULE unit_segment
#define BOOST_TEST_DYN_LINK
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "quire/quire.h"
#include "runtime/region.h"
#include "tests/support/insight_fixture.h"

using namespace quire::test;

namespace {

std::string unique_name(const char *what) {
  static int number = 0;
  return "quire-test." + std::to_string(::getpid()) + "." + what + std::to_string(++number);
}

// A process with a cache: two chains under leases, one of them late, and two private pages. It
// waits until it is killed, or closes the cache when its standard input, our pipe, is closed.
class Engine {
 public:
  explicit Engine(std::string segment) : name(std::move(segment)) {
    int up[2], down[2];
    BOOST_REQUIRE(::pipe(up) == 0 && ::pipe(down) == 0);
    pid_ = ::fork();
    BOOST_REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      ::close(up[0]);
      ::close(down[1]);
      ::_exit(run(up[1], down[0]));
    }
    ::close(up[1]);
    ::close(down[0]);
    stop_ = down[1];
    char ready = 0;
    BOOST_REQUIRE(::read(up[0], &ready, 1) == 1);
    ::close(up[0]);
  }
  ~Engine() {
    end();
    quire_segment_remove(name.c_str());
  }
  void kill() {
    ::kill(pid_, SIGKILL);
    end();
  }
  // Lets it close its cache; its exit status.
  int end() {
    if (pid_ < 0) return -1;
    ::close(stop_);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }
  uint64_t pid() const { return static_cast<uint64_t>(pid_); }

  std::string name;

 private:
  int run(int ready, int stop) const {
    try {
      quire_cache *cache = open_small(name);
      const quire_lease leases[] = {publish_chain(cache, 1, 4, 11),
                                    publish_chain(cache, 2, 2, 12, 1), hold_private(cache, 2, 13)};
      ::usleep(20000);  // the deadline of 1 ms is over by then, whatever the machine does
      must(quire_step(cache));
      char byte = 'r';
      if (::write(ready, &byte, 1) != 1) return 1;
      while (::read(stop, &byte, 1) > 0) {
      }
      for (const quire_lease lease : leases) must(quire_release(cache, lease, nullptr));
      must(quire_close(cache));
      return 0;
    } catch (const std::exception &e) {
      std::fprintf(stderr, "engine: %s\n", e.what());
      return 2;
    }
  }

  pid_t pid_ = -1;
  int stop_ = -1;
};

quire_segment *attach(const std::string &name) {
  quire_segment *segment = nullptr;
  must(quire_segment_attach(name.c_str(), &segment));
  return segment;
}

quire_segment_record info_of(quire_segment *segment) {
  quire_segment_record record;
  QUIRE_INIT(&record);
  must(quire_segment_info(segment, &record));
  return record;
}

std::vector<quire_lease_record> leases_of(quire_segment *segment) {
  std::vector<quire_lease_record> all;
  quire_lease at = 0;
  for (;;) {
    quire_lease_record record;
    QUIRE_INIT(&record);
    must(quire_segment_lease_next(segment, &at, &record));
    if (at == 0) return all;
    all.push_back(record);
  }
}

// What the engine above has, whether it lives or not.
void look(const Engine &engine, quire_segment *segment) {
  quire_stats s;
  QUIRE_INIT(&s);
  BOOST_TEST(quire_segment_stats(segment, &s) == QUIRE_OK);
  BOOST_TEST(s.acquires_total == 3U);
  BOOST_TEST(s.pages_visible == 6U);
  BOOST_TEST(s.pages_private == 2U);
  BOOST_TEST(s.frames_capacity == kPages);
  BOOST_TEST(s.leases == 3U);
  BOOST_TEST(s.leases_late == 1U);
  BOOST_TEST(s.arena_bytes > 0U);
  const auto json = nlohmann::json::parse(
      text_of([&](char *out, size_t *n) { return quire_segment_json(segment, out, n); }));
  BOOST_TEST(json.at("segment") == engine.name);
  BOOST_TEST(json.at("pages_visible") == 6U);
  const std::string prometheus =
      text_of([&](char *out, size_t *n) { return quire_segment_prometheus(segment, out, n); });
  BOOST_TEST(prometheus.find("\nquire_pages_visible 6\n") != std::string::npos);
  BOOST_TEST(quire_segment_check(segment) == QUIRE_OK, quire_last_error());
  const auto leases = leases_of(segment);
  BOOST_REQUIRE(leases.size() == 3U);
  uint64_t owners = 0, pages = 0, late = 0;
  for (const auto &lease : leases) {
    owners += lease.owner;
    pages += lease.pages + lease.private_pages;
    late += lease.remaining_ms < 0 ? 1 : 0;
  }
  BOOST_TEST(owners == 36U);
  BOOST_TEST(pages == 8U);
  BOOST_TEST(late == 1U);
  quire_layout_info layout;
  QUIRE_INIT(&layout);
  BOOST_TEST(quire_segment_layout(segment, &layout) == QUIRE_OK);
  BOOST_TEST(layout.frames == kPages);
  BOOST_TEST(layout.base == nullptr);
  BOOST_TEST(layout.format == QUIRE_FORMAT_NF4);
  BOOST_TEST(layout.geometry.head_dim_k == 16U);
  BOOST_TEST(layout.stride == s.page_bytes);
}

bool listed(const std::string &name, bool alive) {
  quire_segment_record records[256];
  QUIRE_INIT(&records[0]);
  size_t n = 256;
  must(quire_segment_list(records, &n));
  for (size_t i = 0; i < std::min<size_t>(n, 256); ++i) {
    if (records[i].name == name) return (records[i].alive != 0) == alive;
  }
  return false;
}

// The bytes of a segment, writable, under another name.
class Copy {
 public:
  explicit Copy(const std::string &of) : name(unique_name("copy")) {
    const int from = ::shm_open(("/" + of).c_str(), O_RDONLY, 0);
    BOOST_REQUIRE(from >= 0);
    struct stat st = {};
    BOOST_REQUIRE(::fstat(from, &st) == 0);
    size = static_cast<size_t>(st.st_size);
    const int to = ::shm_open(("/" + name).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    BOOST_REQUIRE(to >= 0 && ::ftruncate(to, st.st_size) == 0);
    void *source = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, from, 0);
    void *target = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, to, 0);
    BOOST_REQUIRE(source != MAP_FAILED && target != MAP_FAILED);
    std::memcpy(target, source, size);
    ::munmap(source, size);
    ::close(from);
    ::close(to);
    bytes = static_cast<unsigned char *>(target);
  }
  ~Copy() {
    ::munmap(bytes, size);
    ::shm_unlink(("/" + name).c_str());
  }
  quire::RegionHeader &header() const { return *reinterpret_cast<quire::RegionHeader *>(bytes); }
  size_t part(quire::Part p) const { return header().offset[static_cast<uint32_t>(p)]; }

  std::string name;
  unsigned char *bytes = nullptr;
  size_t size = 0;
};

// Every call there is; what comes back does not matter, that it comes back does. Returns attach's
// status.
quire_status exercise(const std::string &name) {
  quire_segment *segment = nullptr;
  const quire_status status = quire_segment_attach(name.c_str(), &segment);
  if (status != QUIRE_OK) return status;
  quire_segment_record record;
  QUIRE_INIT(&record);
  quire_segment_info(segment, &record);
  quire_layout_info layout;
  QUIRE_INIT(&layout);
  quire_segment_layout(segment, &layout);
  quire_stats stats;
  QUIRE_INIT(&stats);
  quire_segment_stats(segment, &stats);
  std::vector<char> text(1 << 16);
  size_t n = text.size();
  quire_segment_json(segment, text.data(), &n);
  n = text.size();
  quire_segment_prometheus(segment, text.data(), &n);
  quire_segment_check(segment);
  quire_lease at = 0;
  do {
    quire_lease_record lease;
    QUIRE_INIT(&lease);
    if (quire_segment_lease_next(segment, &at, &lease) != QUIRE_OK) break;
  } while (at != 0);
  quire_segment_detach(segment);
  return QUIRE_OK;
}

uint64_t fuzz_seed() {
  const char *text = std::getenv("QUIRE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 1;
}
int fuzz_rounds() {
  return std::getenv("QUIRE_SOAK") != nullptr ? 100000 : 400;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_running_engine_is_seen_from_another_process) {
  Engine engine(unique_name("live"));
  quire_segment *segment = attach(engine.name);
  const quire_segment_record info = info_of(segment);
  BOOST_TEST(info.alive == 1U);
  BOOST_TEST(info.pid == engine.pid());
  BOOST_TEST(info.name == engine.name);
  look(engine, segment);
  BOOST_TEST(listed(engine.name, true));
  BOOST_TEST(quire_segment_remove(engine.name.c_str()) == QUIRE_E_BUSY);
  // It ends cleanly while we look: the name goes, what we mapped stays readable.
  BOOST_TEST(engine.end() == 0);
  quire_stats s;
  QUIRE_INIT(&s);
  BOOST_TEST(quire_segment_stats(segment, &s) == QUIRE_OK);
  BOOST_TEST(s.leases == 0U);
  BOOST_TEST(info_of(segment).alive == 0U);
  BOOST_TEST(!listed(engine.name, false));
  BOOST_TEST(quire_segment_detach(segment) == QUIRE_OK);
  BOOST_TEST(quire_segment_attach(engine.name.c_str(), &segment) == QUIRE_E_IO);
}

BOOST_AUTO_TEST_CASE(an_engine_that_was_killed_is_read_after_its_death_and_removed) {
  Engine engine(unique_name("dead"));
  engine.kill();
  BOOST_TEST(listed(engine.name, false));
  quire_segment *segment = attach(engine.name);
  BOOST_TEST(info_of(segment).alive == 0U);
  look(engine, segment);
  BOOST_TEST(quire_segment_detach(segment) == QUIRE_OK);
  BOOST_TEST(quire_segment_remove(engine.name.c_str()) == QUIRE_OK);
  BOOST_TEST(quire_segment_remove(engine.name.c_str()) == QUIRE_E_IO);
  BOOST_TEST(!listed(engine.name, false));
}

BOOST_AUTO_TEST_CASE(names_and_nulls_are_refused_in_words) {
  quire_segment *segment = nullptr;
  for (const char *name : {"", "a/b", "/etc", "..", ".x"}) {
    BOOST_TEST(quire_segment_attach(name, &segment) == QUIRE_E_INVALID, name);
  }
  BOOST_TEST(quire_segment_attach("quire-test.no-such", &segment) == QUIRE_E_IO);
  BOOST_TEST(quire_segment_attach(nullptr, &segment) == QUIRE_E_INVALID);
  BOOST_TEST(quire_segment_remove("a/b") == QUIRE_E_INVALID);
  BOOST_TEST(quire_segment_remove(nullptr) == QUIRE_E_INVALID);
  BOOST_TEST(quire_segment_check(nullptr) == QUIRE_E_INVALID);
  BOOST_TEST(quire_segment_list(nullptr, nullptr) == QUIRE_E_INVALID);
  BOOST_TEST(quire_segment_detach(nullptr) == QUIRE_OK);
  size_t n = 0;
  BOOST_TEST(quire_segment_list(nullptr, &n) == QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(what_is_not_ours_is_refused_and_left_alone) {
  const std::string name = unique_name("foreign");
  const int fd = ::shm_open(("/" + name).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
  BOOST_REQUIRE(fd >= 0);
  quire_segment *segment = nullptr;
  for (const off_t size : {0, 10, 4096, 100000}) {
    BOOST_REQUIRE(::ftruncate(fd, size) == 0);
    BOOST_TEST(quire_segment_attach(name.c_str(), &segment) == QUIRE_E_CORRUPT);
    BOOST_TEST(quire_segment_remove(name.c_str()) == QUIRE_E_CORRUPT);
    BOOST_TEST(!listed(name, false));
  }
  ::close(fd);
  BOOST_TEST(::shm_unlink(("/" + name).c_str()) == 0);
}

BOOST_AUTO_TEST_CASE(another_layout_and_a_cut_segment_are_told_apart) {
  Engine engine(unique_name("layout"));
  engine.kill();
  Copy copy(engine.name);
  BOOST_TEST(exercise(copy.name) == QUIRE_OK);
  copy.header().version += 1;
  BOOST_TEST(exercise(copy.name) == QUIRE_E_VERSION);
  BOOST_TEST(quire_segment_remove(copy.name.c_str()) == QUIRE_E_VERSION);
  copy.header().version -= 1;
  copy.header().shape.frames += 1;
  BOOST_TEST(exercise(copy.name) == QUIRE_E_CORRUPT);
  copy.header().shape.frames -= 1;
  const int fd = ::shm_open(("/" + copy.name).c_str(), O_RDWR, 0);
  BOOST_REQUIRE(fd >= 0);
  for (const size_t size : {copy.size - 4096, copy.size / 2, size_t{4096}, size_t{100}}) {
    BOOST_REQUIRE(::ftruncate(fd, static_cast<off_t>(size)) == 0);
    BOOST_TEST(exercise(copy.name) == QUIRE_E_CORRUPT);
  }
  ::close(fd);
}

BOOST_AUTO_TEST_CASE(damage_to_the_metadata_is_found_after_death) {
  Engine engine(unique_name("damage"));
  engine.kill();
  Copy copy(engine.name);
  // The children bits of every page's state word: some page's count is wrong then.
  for (uint32_t page = 0; page < copy.header().shape.pages; ++page) {
    copy.bytes[copy.part(quire::Part::kPages) + page * 64 + 3] ^= 1;
  }
  quire_segment *segment = attach(copy.name);
  BOOST_TEST(quire_segment_check(segment) == QUIRE_E_CORRUPT);
  BOOST_TEST(std::string(quire_last_error()) != "");
  quire_segment_detach(segment);
}

BOOST_AUTO_TEST_CASE(a_header_with_flipped_bits_gives_an_error_or_an_answer) {
  Engine engine(unique_name("fuzz"));
  engine.kill();
  Copy copy(engine.name);
  const uint64_t seed = fuzz_seed();
  std::mt19937_64 random(seed);
  int refused = 0;
  for (int round = 0; round < fuzz_rounds(); ++round) {
    unsigned char before[sizeof(quire::RegionHeader)];
    std::memcpy(before, copy.bytes, sizeof before);
    const int flips = 1 + static_cast<int>(random() % 3);
    for (int i = 0; i < flips; ++i) {
      copy.bytes[random() % sizeof before] ^= static_cast<unsigned char>(1u << random() % 8);
    }
    const quire_status status = exercise(copy.name);
    BOOST_TEST((status == QUIRE_OK || status == QUIRE_E_CORRUPT || status == QUIRE_E_VERSION),
               "QUIRE_SEED=" << seed << " round " << round << ": " << status);
    refused += status != QUIRE_OK;
    std::memcpy(copy.bytes, before, sizeof before);
  }
  BOOST_TEST(refused > 0);
  BOOST_TEST(exercise(copy.name) == QUIRE_OK);
}

BOOST_AUTO_TEST_CASE(damage_behind_the_header_never_ends_the_reader) {
  Engine engine(unique_name("body"));
  engine.kill();
  Copy copy(engine.name);
  const uint64_t seed = fuzz_seed();
  BOOST_TEST_MESSAGE("QUIRE_SEED=" << seed);
  std::mt19937_64 random(seed);
  std::vector<unsigned char> clean(copy.bytes, copy.bytes + copy.size);
  for (int round = 0; round < fuzz_rounds(); ++round) {
    // One part, so that small parts are hit as often as large ones; a run of bytes in it.
    const auto part = static_cast<quire::Part>(random() % quire::kParts);
    const size_t length = copy.header().length[static_cast<uint32_t>(part)];
    if (length == 0) continue;
    const size_t begin = copy.part(part) + random() % length;
    const size_t end = std::min(begin + (size_t{1} << random() % 10), copy.part(part) + length);
    for (size_t i = begin; i < end; ++i) {
      copy.bytes[i] = static_cast<unsigned char>(random() % 4 == 0 ? 0xff : random());
    }
    exercise(copy.name);
    std::memcpy(copy.bytes + begin, clean.data() + begin, end - begin);
  }
  BOOST_TEST(std::memcmp(copy.bytes, clean.data(), copy.size) == 0);
}

BOOST_AUTO_TEST_CASE(older_shorter_records_are_filled_at_their_own_distance) {
  Engine engine(unique_name("short"));
  struct Older {  // up to pid
    uint32_t size, alive;
    uint64_t pid;
  };
  std::vector<Older> records(256, Older{0, 9, 9});
  records[0].size = sizeof(Older);
  size_t n = records.size();
  must(quire_segment_list(reinterpret_cast<quire_segment_record *>(records.data()), &n));
  BOOST_REQUIRE(n >= 1U);
  bool found = false;
  for (size_t i = 0; i < std::min(n, records.size()); ++i) found |= records[i].pid == engine.pid();
  BOOST_TEST(found);
}

// So that the kernel may give it huge pages; and all of it can be written to, and is given back.
BOOST_AUTO_TEST_CASE(private_memory_begins_where_a_huge_page_can) {
  using namespace quire;
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
  for (const uint32_t pages : {64U, 4096U, 50000U}) {
    Shape shape;
    shape.pages = shape.frames = pages;
    shape.leases = shape.spaces = 16;
    Region region;
    BOOST_TEST_REQUIRE((region.create("-", shape) == Status::kOk));
    void *const base = &region.header();
    BOOST_TEST(reinterpret_cast<uintptr_t>(base) % kHuge == 0U);
    const auto *const end = static_cast<const char *>(base) + region.bytes();
    std::memset(region.part(Part::kPages), 1, region.part_bytes(Part::kPages));
    BOOST_TEST(end[-1] == 0);
    const size_t bytes = region.bytes();
    region.destroy();
    BOOST_TEST(::msync(base, bytes, MS_ASYNC) == -1);
    BOOST_TEST(errno == ENOMEM);  // nothing is mapped there any more
  }
}
