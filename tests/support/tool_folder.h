// ToolFolder: a folder of a test's own, in which it runs one of the tools as a user would; gone
// afterwards.
#ifndef QUIRE_TESTS_SUPPORT_TOOL_FOLDER_H_
#define QUIRE_TESTS_SUPPORT_TOOL_FOLDER_H_

#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace quire::test {

namespace fs = std::filesystem;

inline std::string slurp(const fs::path &path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

struct Outcome {
  int status;
  std::string out, err;
};

class ToolFolder {
 public:
  explicit ToolFolder(std::string tool) : tool_(std::move(tool)) {
    std::string name = (fs::temp_directory_path() / (tool_ + "-XXXXXX")).string();
    BOOST_REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~ToolFolder() { fs::remove_all(path); }
  ToolFolder(const ToolFolder &) = delete;
  ToolFolder &operator=(const ToolFolder &) = delete;

  fs::path write(const std::string &name, const std::string &text) const {
    std::ofstream(path / name, std::ios::binary) << text;
    return path / name;
  }
  // In the folder. It must end by itself, not by a signal.
  Outcome run(const std::string &arguments, const std::string &input = "/dev/null") const {
    const std::string command = "cd '" + path.string() + "' && '" QUIRE_TOOLS_DIR "/" + tool_ +
                                "' " + arguments + " < '" + input + "' > out.txt 2> err.txt";
    const int status = std::system(command.c_str());
    BOOST_REQUIRE(WIFEXITED(status));
    return {WEXITSTATUS(status), slurp(path / "out.txt"), slurp(path / "err.txt")};
  }

  fs::path path;

 private:
  std::string tool_;
};

}  // namespace quire::test

#endif  // QUIRE_TESTS_SUPPORT_TOOL_FOLDER_H_
