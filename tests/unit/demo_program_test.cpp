// quire-demo as its users meet it: from any folder, without the sources, with nothing but itself.
#define BOOST_TEST_NO_MAIN
#define BOOST_TEST_ALTERNATIVE_INIT_API
#include <boost/test/unit_test.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

namespace {

const std::string kProgram = QUIRE_TOOLS_DIR "/quire-demo";

struct Outcome {
  int code;
  std::string text;
};

Outcome run(const std::string &arguments) {
  const std::string command = "cd / && '" + kProgram + "' " + arguments + " 2>/dev/null";
  std::FILE *pipe = popen(command.c_str(), "r");
  BOOST_TEST_REQUIRE(pipe != nullptr);
  std::string text;
  char buffer[4096];
  for (size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text};
}

// Small enough for any machine: ten calls, one request each.
const std::string kSmall = "--requests 10 --steps 1 --tokens 4 --threads 1 ";

}  // namespace

BOOST_AUTO_TEST_CASE(json_has_the_figures_that_the_tables_show) {
  const Outcome outcome = run(kSmall + "--json -");
  BOOST_TEST_REQUIRE(outcome.code == 0);
  const auto json = nlohmann::json::parse(outcome.text);
  BOOST_TEST_REQUIRE(json["agents"].size() == 4U);  // f32 and nf4, with and without reuse
  for (const auto &row : json["agents"]) {
    BOOST_TEST(row["requests"] == 10);
    BOOST_TEST(row["decode_tokens"] == 30);
    BOOST_TEST(row["seconds"].get<double>() > 0);
    const double warm = row["prompt_pages_warm"]["ratio"];
    BOOST_TEST(warm == (row["reuse"].get<bool>() ? 1.0 : 0.0));
  }
  // Two keys and two values of 64 in each of four layers are 4,096 bytes in f32.
  const double f32 = json["agents"][0]["bytes_per_token"],
               nf4 = json["agents"][2]["bytes_per_token"];
  BOOST_TEST(f32 >= 4096.0);
  BOOST_TEST(nf4 < 0.145 * f32);
  BOOST_TEST_REQUIRE(json["quality"].size() == 1U);
  BOOST_TEST(json["quality"][0]["cosine"].get<double>() > 0.999);
  BOOST_TEST(json["quality"][0]["kl"].get<double>() < 0.002);
  BOOST_TEST(json["chats"].size() == 3U);
  BOOST_TEST(json["stats"]["device_errors_total"] == 0);
}

BOOST_AUTO_TEST_CASE(greedy_replies_with_plain_pages_do_not_depend_on_reuse) {
  const Outcome outcome = run(kSmall + "--format f32 --no-chats --no-quality");
  BOOST_TEST_REQUIRE(outcome.code == 0);
  BOOST_TEST(outcome.text.find("10 of 10 replies") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(tables_and_stats_are_printed) {
  const Outcome outcome = run(kSmall + "--format nf4 --stats prometheus");
  BOOST_TEST_REQUIRE(outcome.code == 0);
  for (const char *part : {"ttft", "hits all", "KL", "B/token", "quire_prefix_hits_total"}) {
    BOOST_TEST(outcome.text.find(part) != std::string::npos, part);
  }
}

BOOST_AUTO_TEST_CASE(what_cannot_be_run_is_said_and_refused) {
  BOOST_TEST(run("--format nf5").code != 0);
  BOOST_TEST(run("--prompts 6").code != 0);
  BOOST_TEST(run("--steps 9").code == 1);  // beyond the model's context
  BOOST_TEST(run("--model /nowhere").code == 1);
  BOOST_TEST(run("--help").code == 0);
}

int main(int argc, char **argv) {
  if (access(kProgram.c_str(), X_OK) != 0) {
    std::cout << "SKIPPED: " << kProgram << " is not built here\n";
    return 77;
  }
  return boost::unit_test::unit_test_main([] { return true; }, argc, argv);
}
