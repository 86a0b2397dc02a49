// quire-replay as a user runs it: what it prints, writes, refuses, and its exit status.
#define BOOST_TEST_MODULE replay_tool
#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include "tests/support/tool_folder.h"

using namespace quire::test;

namespace {

struct Folder : ToolFolder {
  Folder() : ToolFolder("quire-replay") {}
};

const char *const kTrace =
    "{\"timestamp\": 0, \"input_length\": 192, \"output_length\": 1, \"hash_ids\": [1, 2, 3]}\n"
    "{\"timestamp\": 10, \"input_length\": 192, \"output_length\": 1, \"hash_ids\": [1, 2, 4]}\n"
    "{\"timestamp\": 20, \"input_length\": 64, \"output_length\": 1, \"hash_ids\": [5]}\n"
    "{\"timestamp\": 30, \"input_length\": 192, \"output_length\": 1, \"hash_ids\": [1, 2, 3]}\n";

BOOST_FIXTURE_TEST_CASE(json_has_the_promised_fields, Folder) {
  write("t.jsonl", kTrace);
  const Outcome o = run("t.jsonl --pages 4 --json r.json --plot p.svg");
  BOOST_TEST(o.status == 0, o.err);
  BOOST_TEST(o.err == "");  // no progress bar where stderr is no terminal
  BOOST_TEST(o.out.find("t.jsonl") != std::string::npos);
  const auto j = nlohmann::json::parse(slurp(path / "r.json"));
  BOOST_TEST(j["requests"] == 4);
  BOOST_TEST(j["pages_referenced"] == 10);
  // 1 2 3 | hits 1 2, 4 | 5 evicts 3 | hits 1 2, 3 evicts 4.
  BOOST_TEST(j["pages_hit"] == 4);
  BOOST_TEST(j["hit_ratio"] == 0.4);
  BOOST_TEST(j["pages_inserted"] == 6);
  BOOST_TEST(j["pages_evicted"] == 2);
  BOOST_TEST(j["pages_expired"] == 0);
  BOOST_TEST(j["lookup_ns_p50"].is_number_unsigned());
  BOOST_TEST(j["lookup_ns_p99"].get<uint64_t>() >= j["lookup_ns_p50"].get<uint64_t>());
  BOOST_TEST(j["seconds"].get<double>() > 0);
  BOOST_TEST(j["runs"].size() == 1u);
  BOOST_TEST(slurp(path / "p.svg").rfind("<svg", 0) == 0u);
}

BOOST_FIXTURE_TEST_CASE(reads_standard_input_and_writes_standard_output, Folder) {
  const fs::path file = write("t.jsonl", kTrace);
  const Outcome o = run("- --pages 100 --policy lru,priority,min --json -", file.string());
  BOOST_TEST(o.status == 0, o.err);
  const auto j = nlohmann::json::parse(o.out);
  BOOST_REQUIRE(j["runs"].size() == 3u);
  for (const auto &run : j["runs"]) BOOST_TEST(run["pages_hit"] == 5);
  BOOST_TEST(j["runs"][2]["policy"] == "min");
  BOOST_TEST(j["runs"][2]["lookup_ns_p50"].is_null());
}

BOOST_FIXTURE_TEST_CASE(several_traces_are_rows_or_one_cache, Folder) {
  write("a.jsonl", kTrace);
  write("b.jsonl", kTrace);
  const Outcome apart = run("a.jsonl b.jsonl --pages 100 --json -");
  const Outcome together = run("a.jsonl b.jsonl --pages 100 --merge --json -");
  const auto rows = nlohmann::json::parse(apart.out)["runs"];
  const auto merged = nlohmann::json::parse(together.out)["runs"];
  BOOST_REQUIRE(rows.size() == 2u);
  BOOST_REQUIRE(merged.size() == 1u);
  BOOST_TEST(merged[0]["pages_hit"].get<int>() == 2 * rows[0]["pages_hit"].get<int>());
  BOOST_TEST(merged[0]["requests"] == 8);
}

BOOST_FIXTURE_TEST_CASE(bad_input_prints_nothing_but_the_reason, Folder) {
  write("good.jsonl", kTrace);
  write("bad.jsonl", std::string(kTrace) + "{\"timestamp\": 1, \"hash_ids\": [1, \"x\"]}\n");
  const Outcome o = run("good.jsonl bad.jsonl --pages 10 --json r.json");
  BOOST_TEST(o.status == 2);
  BOOST_TEST(o.out == "");
  BOOST_TEST(o.err == "quire-replay: bad.jsonl:5: hash_ids has a string in it\n");
  BOOST_TEST(slurp(path / "r.json") == "");
}

BOOST_FIXTURE_TEST_CASE(bad_arguments_are_status_2, Folder) {
  write("t.jsonl", kTrace);
  for (const char *arguments :
       {"", "t.jsonl", "t.jsonl --pages 0", "t.jsonl --pages x", "--pages 5",
        "t.jsonl --pages 5 --policy fifo", "t.jsonl --pages 5,0%", "t.jsonl --pages 101%",
        "t.jsonl --pages 2.5", "t.jsonl --pages 5 --threads 0", "missing --pages 5",
        "t.jsonl --pages 5 --json /nonexistent/r.json", "t.jsonl --pages 5 --no-such-option"}) {
    const Outcome o = run(arguments);
    BOOST_TEST(o.status == 2, arguments);
    BOOST_TEST(o.out == "", arguments);
    BOOST_TEST(o.err != "", arguments);
  }
}

BOOST_FIXTURE_TEST_CASE(help_and_version_are_status_0, Folder) {
  BOOST_TEST(run("--help").status == 0);
  BOOST_TEST(run("--version").out.rfind("quire-replay", 0) == 0u);
}

}  // namespace
