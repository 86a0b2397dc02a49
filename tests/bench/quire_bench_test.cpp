// quire-bench runs, and what it writes is consistent: it judges no figure of this machine.
#define BOOST_TEST_MODULE quire_bench
#define BOOST_TEST_NO_MAIN
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace {

namespace fs = std::filesystem;

const char *const kProgram = QUIRE_TOOLS_DIR "/quire-bench";

std::string slurp(const fs::path &path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "quire-bench-XXXXXX").string();
    BOOST_REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }

  // The exit status; output in out.txt.
  int run(const std::string &arguments) const {
    const std::string command = "cd '" + path.string() + "' && '" + kProgram + "' " + arguments +
                                " < /dev/null > out.txt 2> err.txt";
    const int status = std::system(command.c_str());
    BOOST_REQUIRE(WIFEXITED(status));
    return WEXITSTATUS(status);
  }
};

BOOST_FIXTURE_TEST_CASE(lists_benchmarks_by_name_once_each, Folder) {
  BOOST_REQUIRE(run("--list") == 0);
  std::istringstream lines(slurp(path / "out.txt"));
  std::vector<std::string> names;
  for (std::string line; std::getline(lines, line);)
    names.push_back(line.substr(0, line.find(' ')));
  BOOST_TEST(names.size() >= 5u);
  BOOST_TEST(std::is_sorted(names.begin(), names.end()));
  BOOST_TEST((std::adjacent_find(names.begin(), names.end()) == names.end()));
}

BOOST_FIXTURE_TEST_CASE(rows_through_the_c_api_run_and_agree_with_their_goals, Folder) {
  BOOST_REQUIRE_MESSAGE(
      run("--quick --rows '^(lookup|publish|replay|latency)/' --json r.json --plot p.svg") == 0,
      slurp(path / "out.txt") << slurp(path / "err.txt"));
  const auto j = nlohmann::json::parse(slurp(path / "r.json"));
  BOOST_TEST(j["quick"] == true);
  BOOST_TEST(j["machine"]["cores"].get<unsigned>() > 0);
  BOOST_TEST(j["rows"].size() >= 10u);
  for (const auto &row : j["rows"]) {
    BOOST_TEST_CONTEXT(row.dump()) {
      const double value = row["value"];
      BOOST_TEST(value > 0);
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
  BOOST_TEST(slurp(path / "p.svg").rfind("<svg", 0) == 0u);
}

BOOST_FIXTURE_TEST_CASE(bad_arguments_are_status_2, Folder) {
  for (const char *arguments : {"--rows '('", "--rows no-such-benchmark", "--rounds 0", "extra"}) {
    BOOST_TEST(run(arguments) == 2, arguments);
    BOOST_TEST(slurp(path / "out.txt") == "", arguments);
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
