// Traces are read whole or refused with the file and the line to blame.
#define BOOST_TEST_MODULE replay_trace
#include <boost/test/unit_test.hpp>

#include <sstream>

#include "tools/quire-replay/page_keys.h"
#include "tools/quire-replay/trace.h"

namespace quire::replay {
namespace {

Trace parse(const std::string &text, uint64_t limit = 0) {
  std::istringstream in(text);
  return parse_trace(in, "t", limit);
}

std::string refusal(const std::string &text) {
  try {
    parse(text);
  } catch (const ParseError &e) {
    return e.what();
  }
  return "accepted";
}

BOOST_AUTO_TEST_CASE(reads_requests_and_ignores_other_fields) {
  const Trace trace = parse(
      R"({"timestamp": 5, "hash_ids": [7, 18446744073709551615], "class": "x", "more": {"hash_ids": [1, "a"], "deep": [[1]]}})"
      "\n\n"
      R"({"hash_ids": [], "input_length": 12, "output_length": 3, "timestamp": 8.75})"
      "\r\n");
  BOOST_REQUIRE(trace.requests.size() == 2u);
  BOOST_TEST(trace.requests[0].timestamp_ms == 5u);
  BOOST_TEST(trace.requests[1].timestamp_ms == 8u);
  BOOST_TEST(trace.ids == (std::vector<uint64_t>{7, UINT64_MAX}), boost::test_tools::per_element());
  BOOST_TEST(trace.pages(trace.requests[0]).size() == 2u);
  BOOST_TEST(trace.pages(trace.requests[1]).empty());
}

BOOST_AUTO_TEST_CASE(a_last_line_without_newline_counts) {
  BOOST_TEST(parse(R"({"timestamp": 1, "hash_ids": [1]})").requests.size() == 1u);
}

BOOST_AUTO_TEST_CASE(limit_stops_before_lines_that_are_bad) {
  BOOST_TEST(parse("{\"timestamp\": 1, \"hash_ids\": [1]}\nrubbish\n", 1).requests.size() == 1u);
}

BOOST_AUTO_TEST_CASE(refusals_name_file_and_line) {
  const std::string good = "{\"timestamp\": 1, \"hash_ids\": [1, 2]}\n";
  const std::vector<std::string> bad = {
      "rubbish",
      "[1, 2]",
      "17",
      "null",
      "\"text\"",
      "{\"timestamp\": 1, \"hash_ids\": [1, 2}",
      "{\"timestamp\": 1, \"hash_ids\": [1, 2]",
      "{\"timestamp\": 1, \"hash_ids\": [1, 2]} {}",
      "{\"timestamp\": 1}",
      "{\"hash_ids\": [1]}",
      "{\"timestamp\": -1, \"hash_ids\": [1]}",
      "{\"timestamp\": \"now\", \"hash_ids\": [1]}",
      "{\"timestamp\": [1], \"hash_ids\": [1]}",
      "{\"timestamp\": 1e300, \"hash_ids\": [1]}",
      "{\"timestamp\": 1, \"hash_ids\": 5}",
      "{\"timestamp\": 1, \"hash_ids\": 5.5}",
      "{\"timestamp\": 1, \"hash_ids\": \"5\"}",
      "{\"timestamp\": 1, \"hash_ids\": {\"a\": 5}}",
      "{\"timestamp\": 1, \"hash_ids\": [\"a\"]}",
      "{\"timestamp\": 1, \"hash_ids\": [-1]}",
      "{\"timestamp\": 1, \"hash_ids\": [1.5]}",
      "{\"timestamp\": 1, \"hash_ids\": [18446744073709551616]}",
      "{\"timestamp\": 1, \"hash_ids\": [[1]]}",
      "{\"timestamp\": 1, \"hash_ids\": [null]}",
      "{\"timestamp\": 1, \"hash_ids\": [1], \"hash_ids\": [2]}",
      "{\"timestamp\": 1, \"timestamp\": 2, \"hash_ids\": [1]}",
      "{\"timestamp\": 1, \"hash_ids\": [1], \"input_length\": -3}",
      "{\"timestamp\": 1, \"hash_ids\": [1], \"output_length\": \"3\"}",
  };
  for (const std::string &line : bad) {
    const std::string said = refusal(good + "\n" + line + "\n" + good);
    BOOST_TEST(said.rfind("t:3: ", 0) == 0u, "line " << line << " gave: " << said);
    BOOST_TEST(said.size() > 8u);
  }
}

BOOST_AUTO_TEST_CASE(an_empty_trace_is_refused) {
  BOOST_TEST(refusal("") == "t: no requests in it");
  BOOST_TEST(refusal("\n \n") == "t: no requests in it");
}

BOOST_AUTO_TEST_CASE(a_file_that_is_not_there_is_named) {
  BOOST_CHECK_EXCEPTION(
      load_trace("/nonexistent/trace.jsonl", 0), ParseError, [](const ParseError &e) {
        return std::string(e.what()) == "/nonexistent/trace.jsonl: cannot be opened";
      });
}

BOOST_AUTO_TEST_CASE(merging_orders_by_time_and_keeps_each_files_order) {
  // The second request of the first file claims to be older than its first one.
  std::vector<Trace> traces;
  traces.push_back(
      parse("{\"timestamp\": 10, \"hash_ids\": [1]}\n{\"timestamp\": 4, \"hash_ids\": "
            "[2]}\n{\"timestamp\": 30, \"hash_ids\": [3]}\n"));
  traces.push_back(
      parse("{\"timestamp\": 5, \"hash_ids\": [4]}\n{\"timestamp\": 10, \"hash_ids\": [5]}\n"));
  const Trace merged = merge_traces(std::move(traces));
  std::vector<uint64_t> ids, spaces;
  for (const Request &request : merged.requests) {
    ids.push_back(merged.pages(request)[0]);
    spaces.push_back(request.space);
  }
  BOOST_TEST(ids == (std::vector<uint64_t>{4, 1, 2, 5, 3}), boost::test_tools::per_element());
  BOOST_TEST(spaces == (std::vector<uint64_t>{1, 0, 0, 1, 0}), boost::test_tools::per_element());
  BOOST_TEST(merged.spaces == 2u);
}

BOOST_AUTO_TEST_CASE(keys_name_the_whole_path) {
  const auto key = [](std::vector<uint64_t> ids) {
    std::vector<quire_key> keys(ids.size());
    chain_keys(quire_key{1, 2}, ids, keys.data());
    return std::pair(keys.back().lo, keys.back().hi);
  };
  BOOST_TEST((key({1, 2}) == key({1, 2})));
  BOOST_TEST((key({1, 2}) != key({2, 2})));
  BOOST_TEST((key({1, 2}) != key({2, 1})));
  BOOST_TEST((key({1}) != key({1, 1})));
  BOOST_TEST((key({0}) != key({0, 0})));
  BOOST_TEST((key({UINT64_MAX}) != key({0})));
}

}  // namespace
}  // namespace quire::replay
