// Follows what happens to a cache's pages, event by event, from another process.
#pragma once

#include <cstdint>
#include <string>

namespace quire_stat {

struct FollowArguments {
  std::string name;
  bool json = false;   // a line of JSON an event
  bool past = false;   // begin with the oldest events that are still there
  uint64_t count = 0;  // stop after so many; 0: until interrupted or the process is gone
};

// Returns an exit code.
int follow(const FollowArguments &arguments);

}  // namespace quire_stat
