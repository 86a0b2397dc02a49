// The layers of the library, as its #include lines have them.
//
// Invariant: for every #include of a file of this repository, rank(includer) allows the layer of
// the file that is included:
//
//   include     itself (and the standard library only: a user's compiler has nothing else)
//   kernels     kernels, include
//   allocators  allocators, kernels, include
//   runtime     runtime, allocators, kernels, include
//   tools       the same tool, tools/common, include; quire-bench anything but tests
//
// An include is resolved as the compiler would: beside the includer, from the root, from include/.
// What resolves to no file of the repository is another library's header, and has to be written
// with <>, but for Highway's, whose own documentation quotes them.
#define BOOST_TEST_MODULE include_layers
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

struct Include {
  std::string name;
  bool quoted = false;
};

// The #include lines of a text, comments taken out first: a commented-out line includes nothing.
std::vector<Include> includes_of(const std::string &text) {
  static const std::regex line_pattern(R"re(^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"])re");
  std::vector<Include> found;
  std::string code;
  bool in_block = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (in_block) {
      if (text.compare(i, 2, "*/") == 0) {
        in_block = false;
        ++i;
      } else if (text[i] == '\n') {
        code += '\n';
      }
    } else if (text.compare(i, 2, "/*") == 0) {
      in_block = true;
      ++i;
    } else {
      code += text[i];
    }
  }
  std::istringstream lines(code);
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_search(line, match, line_pattern)) {
      found.push_back({match[2].str(), match[1].str() == "\""});
    }
  }
  return found;
}

// "runtime/cache.h" -> "runtime"; "tools/quire-stat/main.cpp" -> "tools/quire-stat".
std::string layer_of(const std::string &path) {
  const size_t slash = path.find('/');
  std::string top = path.substr(0, slash);
  if (top != "tools" || slash == std::string::npos) return top;
  return path.substr(0, path.find('/', slash + 1));
}

bool layer_allows(const std::string &includer, const std::string &included) {
  static const std::map<std::string, std::set<std::string>> table = {
      {"include", {"include"}},
      {"kernels", {"include", "kernels"}},
      {"allocators", {"include", "kernels", "allocators"}},
      {"runtime", {"include", "kernels", "allocators", "runtime"}},
  };
  const std::string from = layer_of(includer);
  const std::string to = layer_of(included);
  if (from == "tests") return true;
  if (from == "tools/quire-bench") return to != "tests";
  if (from.starts_with("tools")) return to == from || to == "tools/common" || to == "include";
  const auto row = table.find(from);
  return row != table.end() && row->second.contains(to);
}

bool is_c_header(const std::string &name) {
  static const std::set<std::string> c99 = {
      "assert.h",   "complex.h", "ctype.h",   "errno.h",  "fenv.h",   "float.h",
      "inttypes.h", "iso646.h",  "limits.h",  "locale.h", "math.h",   "setjmp.h",
      "signal.h",   "stdarg.h",  "stdbool.h", "stddef.h", "stdint.h", "stdio.h",
      "stdlib.h",   "string.h",  "tgmath.h",  "time.h",   "wchar.h",  "wctype.h"};
  return c99.contains(name);
}

// Standard C++ headers have neither a dot nor a slash in their names.
bool is_cpp_header(const std::string &name) {
  return name.find_first_of("./") == std::string::npos;
}

// What is wrong with one include of `includer`, or "" where it is right.
template <class Exists>
std::string fault(const std::string &includer, const Include &include, Exists exists) {
  const std::string folder = fs::path(includer).parent_path().generic_string();
  for (const std::string &base : {folder, std::string("."), std::string("include")}) {
    const std::string path = (fs::path(base) / include.name).lexically_normal().generic_string();
    if (!exists(path)) continue;
    if (layer_allows(includer, path)) return "";
    return includer + " includes " + path + ": " + layer_of(includer) + " may not include " +
           layer_of(path);
  }
  if (includer.starts_with("include/")) {
    const bool c_only = includer.ends_with(".h");
    if (is_c_header(include.name) || (!c_only && is_cpp_header(include.name))) return "";
    return includer + " includes <" + include.name +
           ">: public headers need the standard library only";
  }
  if (include.quoted && !include.name.starts_with("hwy/")) {
    return includer + " includes \"" + include.name + "\", which is no file of this repository";
  }
  return "";
}

const fs::path kRoot = QUIRE_SOURCE_DIR;

}  // namespace

BOOST_AUTO_TEST_CASE(every_include_of_the_tree_points_down) {
  const std::set<std::string> extensions = {".h", ".hpp", ".c", ".cpp", ".cu", ".cuh"};
  const auto exists = [](const std::string &path) { return fs::is_regular_file(kRoot / path); };
  size_t checked = 0;
  for (const char *top : {"include", "kernels", "allocators", "runtime", "tools"}) {
    size_t files = 0;
    for (const auto &entry : fs::recursive_directory_iterator(kRoot / top)) {
      if (!entry.is_regular_file() || !extensions.contains(entry.path().extension().string()))
        continue;
      ++files;
      std::ifstream in(entry.path());
      std::ostringstream text;
      text << in.rdbuf();
      const std::string name = fs::relative(entry.path(), kRoot).generic_string();
      for (const Include &include : includes_of(text.str())) {
        ++checked;
        const std::string wrong = fault(name, include, exists);
        BOOST_TEST(wrong.empty(), wrong);
      }
    }
    BOOST_TEST(files > 0U, "no source was found in " << top);
  }
  BOOST_TEST(checked > 0U);
}

// The check itself: it has to see what it is there for.
BOOST_AUTO_TEST_CASE(includes_are_read_as_a_compiler_reads_them) {
  const auto found = includes_of(
      "#include \"runtime/cache.h\"\n  #  include <vector>\n// #include \"no/comment.h\"\n"
      "/* #include \"no/block.h\"\n#include \"no/block2.h\" */\n#include HWY_TARGET_INCLUDE\n");
  BOOST_REQUIRE_EQUAL(found.size(), 2U);
  BOOST_TEST((found[0].name == "runtime/cache.h" && found[0].quoted));
  BOOST_TEST((found[1].name == "vector" && !found[1].quoted));
}

BOOST_AUTO_TEST_CASE(an_include_that_points_up_is_a_fault) {
  const std::set<std::string> tree = {"runtime/cache.h",           "allocators/arena.h",
                                      "kernels/codec.h",           "include/quire/quire.h",
                                      "tools/quire-stat/screen.h", "tests/support/seed.h"};
  const auto exists = [&](const std::string &path) { return tree.contains(path); };
  const auto wrong = [&](const char *includer, const char *name, bool quoted = true) {
    return !fault(includer, {name, quoted}, exists).empty();
  };
  BOOST_TEST(wrong("kernels/codec.cpp", "allocators/arena.h"));
  BOOST_TEST(wrong("allocators/arena.cpp", "runtime/cache.h"));
  BOOST_TEST(wrong("allocators/arena.cpp", "../runtime/cache.h"));
  BOOST_TEST(wrong("runtime/cache.cpp", "tests/support/seed.h"));
  BOOST_TEST(wrong("tools/quire-stat/main.cpp", "runtime/cache.h"));
  BOOST_TEST(wrong("tools/quire-replay/main.cpp", "../quire-stat/screen.h"));
  BOOST_TEST(wrong("tools/quire-bench/main.cpp", "tests/support/seed.h"));
  BOOST_TEST(wrong("include/quire/quire.h", "vector", false));
  BOOST_TEST(wrong("include/quire/quire.hpp", "fmt/format.h", false));
  BOOST_TEST(wrong("runtime/cache.cpp", "no_such_file.h"));

  BOOST_TEST(!wrong("kernels/codec.cpp", "quire/quire.h"));
  BOOST_TEST(!wrong("kernels/codec.cpp", "hwy/highway.h"));
  BOOST_TEST(!wrong("allocators/arena.cpp", "kernels/codec.h"));
  BOOST_TEST(!wrong("runtime/cache.cpp", "allocators/arena.h"));
  BOOST_TEST(!wrong("tools/quire-stat/main.cpp", "screen.h"));
  BOOST_TEST(!wrong("tools/quire-stat/main.cpp", "quire/quire.h"));
  BOOST_TEST(!wrong("tools/quire-bench/micro.cpp", "runtime/cache.h"));
  BOOST_TEST(!wrong("include/quire/quire.h", "stdint.h", false));
  BOOST_TEST(!wrong("include/quire/quire.hpp", "utility", false));
}
