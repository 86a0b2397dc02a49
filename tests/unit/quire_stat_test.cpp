// quire-stat as a program: what it prints, what it exits with, and that a segment's state shows.
#define BOOST_TEST_MODULE unit_quire_stat
#define BOOST_TEST_DYN_LINK
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "quire/quire.h"
#include "tests/support/insight_fixture.h"

using namespace quire::test;
using nlohmann::json;

namespace {

struct Result {
  int exit = -1;
  std::string out;  // and errors
};

Result run(const std::string &arguments) {
  const std::string command = std::string(QUIRE_TOOLS_DIR "/quire-stat ") + arguments + " 2>&1";
  FILE *pipe = ::popen(command.c_str(), "r");
  BOOST_REQUIRE(pipe != nullptr);
  Result result;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;)
    result.out.append(buffer, n);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) result.exit = WEXITSTATUS(status);
  return result;
}

bool has(const std::string &text, const std::string &part) {
  return text.find(part) != std::string::npos;
}

bool fits_80_columns(const std::string &text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.size() > 80) return false;
  }
  return true;
}

// A cache of this process, which quire-stat sees from its own.
struct Fixture {
  Fixture() : name("quire-stat-test." + std::to_string(::getpid())), cache(open_small(name)) {
    leases = {publish_chain(cache, 1, 4, 11, 60000), publish_chain(cache, 2, 2, 12),
              hold_private(cache, 3, 13)};
    must(quire_step(cache));
  }
  ~Fixture() {
    for (const quire_lease lease : leases) quire_release(cache, lease, nullptr);
    BOOST_TEST(quire_close(cache) == QUIRE_OK);
  }
  std::string name;
  quire_cache *cache;
  std::vector<quire_lease> leases;
};

}  // namespace

BOOST_FIXTURE_TEST_CASE(list_shows_a_running_cache, Fixture) {
  const Result text = run("list");
  BOOST_TEST(text.exit == 0);
  BOOST_TEST(has(text.out, name));
  const Result as_json = run("list --json");
  BOOST_TEST(as_json.exit == 0);
  bool found = false;
  for (const json &row : json::parse(as_json.out)) {
    if (row.at("name") != name) continue;
    found = true;
    BOOST_TEST(row.at("alive").get<bool>());
    BOOST_TEST(row.at("pid") == ::getpid());
  }
  BOOST_TEST(found);
}

BOOST_FIXTURE_TEST_CASE(dump_is_a_screen_of_80_columns, Fixture) {
  const Result text = run("dump " + name);
  BOOST_TEST(text.exit == 0);
  BOOST_TEST(fits_80_columns(text.out), text.out);
  for (const char *part : {"running", "nf4, 1 layers x 1 KV heads x 16, 8 tokens a page",
                           "25.0 % of 24 frames", "Leases by owner", "chain_hit_pages"}) {
    BOOST_TEST(has(text.out, part), "no \"" << part << "\" in\n" << text.out);
  }
}

BOOST_FIXTURE_TEST_CASE(dump_as_json_and_for_prometheus_is_the_librarys_text, Fixture) {
  const Result as_json = run("dump --json " + name);
  BOOST_TEST(as_json.exit == 0);
  const json report = json::parse(as_json.out);
  BOOST_TEST(report.at("segment") == name);
  BOOST_TEST(report.at("pages_visible") == 6);
  BOOST_TEST(report.at("leases") == 3);
  const Result prometheus = run("dump " + name + " --prometheus");
  BOOST_TEST(prometheus.exit == 0);
  BOOST_TEST(has(prometheus.out,
                 "# TYPE quire_kv_cache_usage_ratio gauge\nquire_kv_cache_usage_ratio 0.25\n"));
  BOOST_TEST(run("dump --json --prometheus " + name).exit == 2);
}

BOOST_AUTO_TEST_CASE(events_are_followed_from_outside_and_losses_told) {
  const std::string name = "quire-stat-events." + std::to_string(::getpid());
  quire_cache *cache = open_small(name, ",events=1");
  must(quire_release(cache, publish_chain(cache, 1, 3), nullptr));
  must(quire_release(cache, publish_chain(cache, 2, 2), nullptr));
  const Result text = run("events --past --count 5 " + name);
  BOOST_TEST(text.exit == 0);
  BOOST_TEST(fits_80_columns(text.out), text.out);
  BOOST_TEST(std::count(text.out.begin(), text.out.end(), '\n') == 5);
  BOOST_TEST(has(text.out, "stored"));
  const Result as_json = run("events --json --past --count 5 " + name);
  std::istringstream lines(as_json.out);
  uint64_t number = 0;
  std::string key, line;
  while (std::getline(lines, line)) {
    const json row = json::parse(line);
    BOOST_TEST(row.at("sequence") == ++number);
    BOOST_TEST(row.at("kind") == "stored");
    BOOST_TEST(row.at("tier") == "device");
    if (row.at("index") != 0) BOOST_TEST(row.at("parent") == key);
    key = row.at("key").get<std::string>();
  }
  BOOST_TEST(number == 5U);
  for (uint32_t i = 0; i < 3000; ++i) {
    must(quire_release(cache, publish_chain(cache, 10 + i, 1), nullptr));
  }
  const Result late = run("events --past --count 1 " + name);
  BOOST_TEST(has(late.out, "events lost"), late.out);
  BOOST_TEST(quire_close(cache) == QUIRE_OK);
}

BOOST_FIXTURE_TEST_CASE(leases_are_listed_most_urgent_first, Fixture) {
  const Result text = run("leases " + name);
  BOOST_TEST(text.exit == 0);
  BOOST_TEST(fits_80_columns(text.out));
  BOOST_TEST(text.out.find("\n11 ") < text.out.find("\n12 "));
  const json rows = json::parse(run("leases --json " + name).out);
  BOOST_REQUIRE(rows.size() == 3U);
  uint64_t owners = 0;
  for (const json &row : rows) owners += row.at("owner").get<uint64_t>();
  BOOST_TEST(owners == 36U);
}

BOOST_FIXTURE_TEST_CASE(check_says_sound_and_remove_refuses_a_running_one, Fixture) {
  const Result check = run("check " + name);
  BOOST_TEST(check.exit == 0);
  BOOST_TEST(has(check.out, "sound"));
  const Result remove = run("remove " + name);
  BOOST_TEST(remove.exit == 2);
  BOOST_TEST(has(remove.out, "running"));
}

BOOST_FIXTURE_TEST_CASE(watch_shows_so_many_frames_and_ends, Fixture) {
  const Result text = run("watch --interval 0.05 --frames 2 " + name);
  BOOST_TEST(text.exit == 0);
  BOOST_TEST(fits_80_columns(text.out));
  BOOST_TEST(text.out.find("a second") != text.out.rfind("a second"));
  BOOST_TEST(!has(text.out, "\x1b"));  // no control characters into a pipe
}

BOOST_AUTO_TEST_CASE(a_dead_engine_is_shown_checked_and_removed) {
  const std::string name = "quire-stat-dead." + std::to_string(::getpid());
  const pid_t child = ::fork();
  BOOST_REQUIRE(child >= 0);
  if (child == 0) {
    try {
      quire_cache *cache = open_small(name);
      publish_chain(cache, 1, 4, 11);
    } catch (...) {
      ::_exit(3);
    }
    ::raise(SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  BOOST_REQUIRE(WIFSIGNALED(status));
  const Result dump = run("dump " + name);
  BOOST_TEST(dump.exit == 0);
  BOOST_TEST(has(dump.out, "dead"));
  const Result check = run("check " + name);
  BOOST_TEST(check.exit == 0, check.out);
  BOOST_TEST(run("remove " + name).exit == 0);
  BOOST_TEST(run("dump " + name).exit == 2);
}

BOOST_AUTO_TEST_CASE(plan_has_every_format_and_agrees_with_the_library) {
  const std::string model = "--layers 32 --kv-heads 8 --head-dim 128 --budget 24GiB";
  const Result text = run("plan " + model);
  BOOST_TEST(text.exit == 0);
  BOOST_TEST(fits_80_columns(text.out));
  for (unsigned f = 0; f < QUIRE_FORMAT_COUNT; ++f) BOOST_TEST(has(text.out, quire_format_name(f)));
  const json rows = json::parse(run("plan --json --format nf4 " + model).out);
  BOOST_REQUIRE(rows.size() == 1U);
  quire_config config;
  must(quire_config_init(&config));
  must(quire_config_parse(&config, "layers=32,kv_heads=8,head_dim=128,device=24GiB"));
  quire_plan_result plan;
  QUIRE_INIT(&plan);
  must(quire_plan(&config, &plan));
  BOOST_TEST(rows[0].at("tokens").get<uint64_t>() == plan.tokens);
  BOOST_TEST(rows[0].at("page_bytes").get<uint64_t>() == plan.page_bytes);
  BOOST_TEST(plan.tokens == plan.pages * plan.page_tokens);
  BOOST_TEST(plan.pages * plan.page_bytes + plan.open_pages * plan.open_page_bytes <= uint64_t{24}
                                                                                          << 30);
  BOOST_TEST(plan.bits_per_value < 4.5);
}

BOOST_AUTO_TEST_CASE(a_plan_is_what_open_makes) {
  quire_config config;
  must(quire_config_init(&config));
  must(quire_config_parse(
      &config,
      "device=cpu,layers=2,kv_heads=2,head_dim=32,page_tokens=16,device_bytes=1MiB,segment=-"));
  quire_plan_result plan;
  QUIRE_INIT(&plan);
  must(quire_plan(&config, &plan));
  quire_cache *cache = nullptr;
  must(quire_open(&config, &cache));
  const quire_stats s = stats_of(cache);
  BOOST_TEST(s.frames_capacity == plan.pages);
  BOOST_TEST(s.open_frames_capacity == plan.open_pages);
  BOOST_TEST(s.page_bytes == plan.page_bytes);
  BOOST_TEST(s.open_page_bytes == plan.open_page_bytes);
  BOOST_TEST(s.metadata_bytes == plan.metadata_bytes);
  must(quire_close(cache));
  config.device_bytes = 1;
  must(quire_plan(&config, &plan));
  BOOST_TEST(plan.pages == 0U);
  BOOST_TEST(plan.tokens == 0U);
  config.device_bytes = 0;
  BOOST_TEST(quire_plan(&config, &plan) == QUIRE_E_INVALID);
}

BOOST_AUTO_TEST_CASE(mistakes_end_with_two_and_a_sentence) {
  for (const char *arguments :
       {"", "frobnicate", "dump no-such-segment", "dump a/b", "plan --layers 3",
        "plan --layers 32 --kv-heads 8 --head-dim 128 --budget plenty",
        "plan --layers 32 --kv-heads 8 --head-dim 12 --budget 1GiB",
        "plan --layers 32 --kv-heads 8 --head-dim 128 --budget 1GiB --format nf5", "remove"}) {
    const Result result = run(arguments);
    BOOST_TEST(result.exit == 2, arguments << ": " << result.out);
    BOOST_TEST(result.out.size() > 10U, arguments);
  }
  for (const char *arguments : {"--help", "dump --help", "plan --help", "--version"}) {
    BOOST_TEST(run(arguments).exit == 0, arguments);
  }
}
