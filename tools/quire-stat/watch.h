// A live screen: figures as they are, and what they changed by, a second.
#pragma once

#include <cstdint>
#include <string>

namespace quire_stat {

struct WatchArguments {
  std::string name;
  double interval_s = 1;
  uint64_t frames = 0;  // 0: until interrupted or the process is gone
};

// Returns an exit code.
int watch(const WatchArguments &arguments);

}  // namespace quire_stat
