// The Spin models of tests/model/spin: each holds in all of its states and has no execution that goes
// on for ever without anybody finishing, and each fails with every one of its mutations.
//
// Needs spin and a C compiler; without them it is skipped. A model takes seconds and well under 2 GB.
#define BOOST_TEST_MODULE model_spin
#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Output {
  int status = -1;
  std::string text;
};

Output run(const std::string &command) {
  Output out;
  FILE *pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return out;
  char line[512];
  while (std::fgets(line, sizeof line, pipe) != nullptr) out.text += line;
  out.status = pclose(pipe);
  return out;
}

bool has_tools() {
  static const bool has = run("command -v spin && command -v gcc").status == 0;
  return has;
}

// A folder of its own, gone at the end.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "quire-spin-XXXXXX").string();
    path_ = mkdtemp(name.data()) == nullptr ? "" : name;
  }
  ~Folder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  Folder(const Folder &) = delete;
  Folder &operator=(const Folder &) = delete;
  const std::string &path() const { return path_; }

 private:
  std::string path_;
};

// "errors: N" of a verification, or -1 where there was none.
int errors_of(const std::string &model, const std::string &defines, bool progress) {
  const Folder folder;
  BOOST_REQUIRE(!folder.path().empty());
  const std::string in = "cd " + folder.path() + " && ";
  const std::string source = std::string(QUIRE_SOURCE_DIR "/tests/model/spin/") + model + ".pml";
  const Output made =
      run(in + "spin -a " + defines + " " + source + " && gcc -O2 -w -DMEMLIM=1800 " +
          (progress ? "-DNP" : "-DSAFETY") + " -o pan pan.c");
  BOOST_TEST_REQUIRE(made.status == 0, model << ": " << made.text);
  const Output out = run(in + "timeout 240 ./pan -n -m200000" + (progress ? " -l" : ""));
  const size_t at = out.text.find("errors: ");
  const bool whole = out.text.find("Search not completed") == std::string::npos &&
                     out.text.find("max search depth too small") == std::string::npos;
  const int errors = at == std::string::npos ? -1 : std::atoi(out.text.c_str() + at + 8);
  const size_t states = out.text.rfind('\n', out.text.find(" states, stored"));
  std::printf(
      "%s %s%s: %d errors,%s\n", model.c_str(), defines.c_str(), progress ? " (progress)" : "",
      errors,
      states == std::string::npos
          ? ""
          : out.text.substr(states + 1, out.text.find("stored", states) - states + 5).c_str());
  if (errors == 0) BOOST_TEST(whole, model << ": " << out.text);
  return errors;
}

void check(const std::string &model, const std::vector<std::string> &variants,
           const std::vector<std::string> &mutations) {
  if (!has_tools()) return;
  for (const std::string &variant : variants) {
    BOOST_TEST(errors_of(model, variant, false) == 0, model << variant);
  }
  for (const std::string &mutation : mutations) {
    BOOST_TEST(errors_of(model, "-D" + mutation, false) > 0, model << ' ' << mutation);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(one_bin_has_one_page_a_key) {
  check("index", {""}, {"NO_SECOND_READ", "BLIND_COMMIT", "PLAIN_CLAIM", "NO_RECHECK"});
}

BOOST_AUTO_TEST_CASE(a_frame_is_freed_once_and_after_its_last_reader) {
  check("limbo", {"", "-DLOST"},
        {"RECORD_FIRST", "DROP_FIRST", "LATE_ENQUEUE", "STORE_STAMP", "NO_SECOND_LOOK",
         "ONE_STREAM"});
}

BOOST_AUTO_TEST_CASE(a_parent_outlives_its_child_and_has_its_stamp) {
  check("chain", {""}, {"NO_PIN", "DROP_FIRST", "EARLY_DROP", "IGNORE_CHILDREN", "OVERWRITE"});
}

// Whoever is sent back was sent back by somebody who got on.
BOOST_AUTO_TEST_CASE(nobody_is_sent_back_for_ever) {
  if (!has_tools()) return;
  BOOST_TEST(errors_of("chain", "", true) == 0);
  BOOST_TEST(errors_of("index", "-DFEW", true) == 0);
  BOOST_TEST(errors_of("index", "-DFEW -DWAITS", true) > 0);
}

namespace {

// Skips with CTest's status where the tools are missing.
struct Skip {
  Skip() {
    if (has_tools()) return;
    std::printf("SKIPPED: needs spin (package spin) and gcc\n");
    std::exit(77);
  }
};
const Skip skip;

}  // namespace
