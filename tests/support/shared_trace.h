// The real traces that tests replay: in the folder that QUIRE_SHARED_DATA names, or in
// ../shared/data beside the source. Who finds one missing says so and skips.
#ifndef QUIRE_TESTS_SUPPORT_SHARED_TRACE_H_
#define QUIRE_TESTS_SUPPORT_SHARED_TRACE_H_

#include <boost/test/unit_test.hpp>

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "tools/quire-replay/replay.h"

namespace quire::test {

inline std::string trace_path(const std::string &name) {
  const char *folder = std::getenv("QUIRE_SHARED_DATA");
  const std::string base = folder ? folder : QUIRE_SOURCE_DIR "/../shared/data";
  return base + "/traces/" + name + ".jsonl.xz";
}

inline replay::Trace read_trace(const std::string &name) {
  FILE *pipe = popen(("xz -dc '" + trace_path(name) + "'").c_str(), "r");
  BOOST_REQUIRE(pipe != nullptr);
  std::string text;
  std::vector<char> buffer(1 << 20);
  for (size_t n; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    text.append(buffer.data(), n);
  BOOST_REQUIRE(pclose(pipe) == 0);
  std::istringstream in(std::move(text));
  return replay::parse_trace(in, name, 0);
}

}  // namespace quire::test

#endif  // QUIRE_TESTS_SUPPORT_SHARED_TRACE_H_
