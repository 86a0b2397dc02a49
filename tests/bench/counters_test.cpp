// What quire-bench says of cache misses and of where threads run is right where the machine tells,
// and is said to be missing where it does not.
#define BOOST_TEST_MODULE counters
#define BOOST_TEST_DYN_LINK
#include <sys/mman.h>

#include <boost/test/unit_test.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tools/quire-bench/cache_misses.h"
#include "tools/quire-bench/placement.h"

using namespace quire::bench;

namespace {

// A counter whose readings a test writes: a file of three words, as the kernel gives them. Each read
// begins where the last one ended, so there may be several.
int counter_file(std::initializer_list<uint64_t> words) {
  const int fd = memfd_create("counter", 0);
  for (const uint64_t word : words)
    BOOST_REQUIRE(write(fd, &word, sizeof word) == static_cast<ssize_t>(sizeof word));
  lseek(fd, 0, SEEK_SET);
  return fd;
}

using Cpus = std::vector<unsigned>;

}  // namespace

BOOST_AUTO_TEST_CASE(readings_are_scaled_by_the_time_that_was_counted) {
  const CacheMisses counter([](const perf_event_attr &attributes) {
    BOOST_TEST(attributes.inherit == 1u);
    return counter_file({0, 0, 0, 1000, 200, 50, 7, 0, 0});
  });
  BOOST_REQUIRE(counter.available());
  double misses = -1;
  BOOST_REQUIRE(counter.read(&misses));  // The first reading was taken when it was made.
  BOOST_TEST(misses == 4000);
  BOOST_TEST(!counter.read(&misses), "a value with no time counted is no figure");
  BOOST_TEST(!counter.read(&misses), "the end of the file is no figure");
}

BOOST_AUTO_TEST_CASE(a_machine_without_counters_says_why) {
  for (const int error : {ENOENT, EACCES, ENOSYS}) {
    static int as = 0;
    as = error;
    const CacheMisses counter([](const perf_event_attr &) {
      errno = as;
      return -1;
    });
    double misses = -1;
    BOOST_TEST(!counter.available());
    BOOST_TEST(!counter.read(&misses));
    BOOST_TEST(misses == -1);
    BOOST_TEST(counter.why_not().find(std::strerror(error)) != std::string::npos);
  }
  const CacheMisses empty([](const perf_event_attr &) { return counter_file({}); });
  BOOST_TEST(!empty.available());
  BOOST_TEST(!empty.why_not().empty());
}

BOOST_AUTO_TEST_CASE(the_machine_s_own_counter_counts_or_says_why_not) {
  const CacheMisses counter;
  double before = 0, after = 0;
  if (!counter.available()) {
    std::printf("no counter here: %s\n", counter.why_not().c_str());
    BOOST_TEST(!counter.why_not().empty());
    return;
  }
  BOOST_REQUIRE(counter.read(&before));
  std::vector<uint64_t> words(size_t{1} << 20);
  uint64_t sum = 0;
  std::thread([&] {
    for (size_t i = 0; i < words.size(); ++i) sum += words[i * 5003 % words.size()] += i;
  }).join();
  BOOST_REQUIRE(counter.read(&after));
  BOOST_TEST(after >= before, "misses of threads that ended are missing: " << sum);
}

BOOST_AUTO_TEST_CASE(lists_of_processors_are_read_as_the_kernel_writes_them) {
  BOOST_TEST(parse_cpu_list("0") == Cpus{0}, boost::test_tools::per_element());
  BOOST_TEST(parse_cpu_list("0-3,8,10-11") == (Cpus{0, 1, 2, 3, 8, 10, 11}),
             boost::test_tools::per_element());
  for (const char *none : {"", "x", "-1", ","}) BOOST_TEST(parse_cpu_list(none).empty(), none);
  BOOST_TEST(parse_cpu_list("5-").size() == 1u);
  BOOST_TEST(parse_cpu_list("0-4294967295").size() == size_t{CPU_SETSIZE});
}

BOOST_AUTO_TEST_CASE(threads_fill_one_node_after_the_other_or_take_them_in_turn) {
  const std::vector<Cpus> nodes = {{0, 1, 4}, {2, 3}};
  const auto each = boost::test_tools::per_element();
  const Cpus all = {0, 1, 2, 3, 4};
  BOOST_TEST(cpu_order(Placement::kNear, nodes, all) == (Cpus{0, 1, 4, 2, 3}), each);
  BOOST_TEST(cpu_order(Placement::kSpread, nodes, all) == (Cpus{0, 2, 1, 3, 4}), each);
  BOOST_TEST(cpu_order(Placement::kAnywhere, nodes, all).empty());
  // Only what may be used; and what no node has, too.
  BOOST_TEST(cpu_order(Placement::kNear, nodes, {1, 3, 9}) == (Cpus{1, 3, 9}), each);
  BOOST_TEST(cpu_order(Placement::kSpread, {}, all) == all, each);
}

BOOST_AUTO_TEST_CASE(a_pinned_thread_runs_there_and_is_free_again_after) {
  const Cpus usable = usable_cpus();
  BOOST_REQUIRE(!usable.empty());
  std::thread([&] {
    for (unsigned t = 0; t < 2 * usable.size(); ++t) {
      const Pinned here(usable, t);
      BOOST_TEST(usable_cpus() == Cpus{usable[t % usable.size()]},
                 boost::test_tools::per_element());
    }
    BOOST_TEST(usable_cpus() == usable, boost::test_tools::per_element());
  }).join();
  const auto nodes = numa_nodes("/nonexistent");
  BOOST_TEST(nodes.empty());
}
