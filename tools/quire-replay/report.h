// What quire-replay says: a table for people, JSON for programs, a plot of hit ratios.
//
// A Run is one policy on one trace. All three outputs are made of the same runs. The JSON is an
// object with "runs", a list; the fields of the first run stand at the top level as well, so that a
// script with one run needs no index. Fields that a bound has no figure for are null.
#ifndef QUIRE_REPLAY_REPORT_H
#define QUIRE_REPLAY_REPORT_H

#include <cstdint>
#include <string>
#include <vector>

#include "replay.h"
#include "trace.h"

namespace quire::replay {

struct Run {
  const Trace *trace = nullptr;
  std::string policy;
  Options options;
  bool simulated = false;  // a bound, computed without the library: it has no times
  Result result;
};

std::string table(const std::vector<Run> &runs);
std::string json(const std::vector<Run> &runs);

// Hit ratio over the trace, a panel a trace, a line a policy; bounds are dashed.
std::string plot(const std::vector<Run> &runs);

}  // namespace quire::replay

#endif  // QUIRE_REPLAY_REPORT_H
