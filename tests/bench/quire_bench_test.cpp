// quire-bench runs, and what it writes is consistent: it judges no figure of this machine.
#define BOOST_TEST_MODULE quire_bench
#define BOOST_TEST_NO_MAIN
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/tool_folder.h"

using namespace quire::test;

namespace {

const char *const kProgram = QUIRE_TOOLS_DIR "/quire-bench";

struct Folder : ToolFolder {
  Folder() : ToolFolder("quire-bench") {}
};

BOOST_FIXTURE_TEST_CASE(lists_benchmarks_by_name_once_each, Folder) {
  const Outcome o = run("--list");
  BOOST_REQUIRE(o.status == 0);
  std::istringstream lines(o.out);
  std::vector<std::string> names;
  for (std::string line; std::getline(lines, line);)
    names.push_back(line.substr(0, line.find(' ')));
  BOOST_TEST(names.size() >= 5u);
  BOOST_TEST(std::is_sorted(names.begin(), names.end()));
  BOOST_TEST((std::adjacent_find(names.begin(), names.end()) == names.end()));
}

BOOST_FIXTURE_TEST_CASE(rows_through_the_c_api_run_and_agree_with_their_goals, Folder) {
  const Outcome o =
      run("--quick --rows '^(lookup|publish|replay|latency|scale)/' --json r.json --plot p.svg");
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.out << o.err);
  const auto j = nlohmann::json::parse(slurp(path / "r.json"));
  BOOST_TEST(j["quick"] == true);
  BOOST_TEST(j["machine"]["cores"].get<unsigned>() > 0);
  BOOST_TEST(j["machine"]["numa_nodes"].get<unsigned>() > 0);
  BOOST_TEST(j["machine"]["date"].get<std::string>().ends_with(" UTC"));
  BOOST_TEST(j["rounds"].get<unsigned>() > 0);
  // Counted, or said not to be.
  const bool counted = o.out.find("cache misses: of the last level") != std::string::npos;
  BOOST_TEST(counted == (o.out.find("cache misses: not available here (") == std::string::npos));
  BOOST_TEST(counted == j["machine"]["no_cache_misses"].get<std::string>().empty());
  BOOST_TEST(j["rows"].size() >= 10u);
  for (const auto &row : j["rows"]) {
    BOOST_TEST_CONTEXT(row.dump()) {
      const double value = row["value"];
      BOOST_TEST(value > 0);
      BOOST_TEST((counted || row["cache_misses"].is_null()));
      BOOST_TEST(row["low"].get<double>() <= value);
      BOOST_TEST(value <= row["high"].get<double>());
      bool met = true;
      if (!row["goal"].is_null()) {
        const double bound = row["goal"]["bound"];
        met = row["goal"]["at"] == "most" ? value <= bound : value >= bound;
      }
      for (const auto &peer : row["peers"])
        if (peer["installed"] == true && !peer["want"].is_null())
          met = met && peer["advantage"].get<double>() >= peer["want"].get<double>();
      BOOST_TEST(row["met"] == met);
    }
  }
  const std::string drawn = slurp(path / "p.svg");
  BOOST_TEST(drawn.rfind("<svg", 0) == 0u);
  // What was stored is drawn and told as it was when it was measured.
  const Outcome again = run("--from r.json --plot q.svg");
  BOOST_REQUIRE_MESSAGE(again.status == 0, again.out << again.err);
  BOOST_TEST(slurp(path / "q.svg") == drawn);
  for (const auto &row : j["rows"])
    BOOST_TEST(again.out.find(row["name"].get<std::string>()) != std::string::npos);
}

BOOST_FIXTURE_TEST_CASE(stored_runs_are_shown_one_after_the_other, Folder) {
  const Outcome o = run("--quick --rows '^(pool|publish)/' --json r.json");
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.out << o.err);
  const Outcome once = run("--from r.json");
  const Outcome more = run("--from r.json --from r.json --from r.json --plot q.svg");
  BOOST_TEST(once.status == 0);
  BOOST_TEST(more.status == 0);
  BOOST_TEST(more.out == once.out + once.out + once.out);
  BOOST_TEST(slurp(path / "q.svg").rfind("<svg", 0) == 0u);
}

BOOST_FIXTURE_TEST_CASE(a_file_that_is_no_run_is_status_2, Folder) {
  for (const char *text : {"", "{}", "[]", "{\"machine\": 3}", "no JSON"}) {
    std::ofstream(path / "bad.json") << text;
    const Outcome o = run("--from bad.json --plot q.svg");
    BOOST_TEST(o.status == 2, text);
    BOOST_TEST(o.err.find("bad.json") != std::string::npos, text);
  }
  BOOST_TEST(run("--from none.json").status == 2);
}

BOOST_FIXTURE_TEST_CASE(bad_arguments_are_status_2, Folder) {
  for (const char *arguments : {"--rows '('", "--rows no-such-benchmark", "--rounds 0", "extra"}) {
    const Outcome o = run(arguments);
    BOOST_TEST(o.status == 2, arguments);
    BOOST_TEST(o.out == "", arguments);
  }
}

bool no_boost_setup() {
  return true;
}

}  // namespace

int main(int argc, char **argv) {
  if (!fs::exists(kProgram)) {
    std::cout << "SKIPPED: this build has no quire-bench\n";
    return 77;
  }
  return boost::unit_test::unit_test_main(&no_boost_setup, argc, argv);
}
