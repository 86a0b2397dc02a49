// Traces that are nearly JSON: read whole, or refused with the file and the line; never more than
// was there.
#define BOOST_TEST_MODULE fuzz_replay_trace
#include <boost/test/unit_test.hpp>

#include <sstream>

#include "tests/support/fuzz.h"
#include "tools/quire-replay/trace.h"

using namespace quire::test;
using namespace quire::replay;

namespace {

const std::string kAlphabet = "{}[]\",:.0123456789eE-+\\ \n\r\ttrufalsn";

std::string line_of(Bytes &random) {
  std::ostringstream out;
  out << "{\"timestamp\": ";
  if (random.chance(32)) {
    out << random.number();
  } else {
    out << random.below(10000) << (random.chance(32) ? ".25" : "");
  }
  if (random.chance(200)) out << ", \"input_length\": " << random.below(5000);
  if (random.chance(200)) out << ", \"output_length\": " << random.below(500);
  if (random.chance(32)) out << R"(, "more": {"hash_ids": [1, "a", null], "deep": [[[]]]})";
  out << ", \"hash_ids\": [";
  for (uint32_t n = random.below(12), i = 0; i < n; ++i) {
    out << (i == 0 ? "" : ", ") << (random.chance(64) ? random.number() : random.below(50));
  }
  out << "]}\n";
  return out.str();
}

}  // namespace

BOOST_AUTO_TEST_CASE(any_text_is_read_whole_or_refused_with_its_line) {
  Fuzz fuzz("trace", 20000);
  uint64_t read = 0;
  while (fuzz.next()) {
    Bytes random(fuzz.seed());
    std::string text;
    const uint32_t lines = random.below(5);
    for (uint32_t i = 0; i < lines; ++i) text += line_of(random);
    const std::string clean = text;
    if (random.chance(224)) text = random.mutated(text, kAlphabet);
    if (random.chance(2)) text.insert(text.size() / 2, std::string(100000, '['));  // deep
    std::istringstream in(text);
    const uint64_t limit = random.chance(64) ? random.below(4) : 0;
    try {
      const Trace trace = parse_trace(in, "fuzz", limit);
      ++read;
      if (limit != 0) BOOST_REQUIRE_MESSAGE(trace.requests.size() <= limit, fuzz.text());
      size_t ids = 0;
      for (const Request &request : trace.requests) {
        BOOST_REQUIRE_MESSAGE(request.begin <= request.end && request.end <= trace.ids.size(),
                              fuzz.text());
        ids += request.end - request.begin;
      }
      BOOST_REQUIRE_MESSAGE(ids <= trace.ids.size() && ids <= text.size(), fuzz.text());
      if (text == clean && limit == 0) {
        BOOST_REQUIRE_MESSAGE(trace.requests.size() == lines, fuzz.text());
      }
    } catch (const ParseError &refused) {
      BOOST_REQUIRE_MESSAGE(text != clean || lines == 0 || (limit != 0 && limit < lines),
                            fuzz.text() << ": " << refused.what() << ": " << text);
      BOOST_REQUIRE_MESSAGE(std::string(refused.what()).rfind("fuzz:", 0) == 0,
                            fuzz.text() << ": " << refused.what());
    }
  }
  if (std::getenv("QUIRE_TEST_SEED") == nullptr) BOOST_TEST(read > 0u);
  std::printf("%llu read\n", static_cast<unsigned long long>(read));
}
