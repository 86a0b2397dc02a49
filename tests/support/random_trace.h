// Random traces shaped like traffic: requests that begin with one of a few shared prompts, sessions
// that come back longer, and now and then a prompt that nobody shares.
#ifndef QUIRE_TESTS_SUPPORT_RANDOM_TRACE_H
#define QUIRE_TESTS_SUPPORT_RANDOM_TRACE_H

#include <cstdint>
#include <random>
#include <vector>

#include "tools/quire-replay/trace.h"

namespace quire::test {

// Prompts of up to `longest` pages; lengths 0 and 1 occur.
inline replay::Trace random_trace(uint64_t seed, uint32_t requests, uint32_t longest) {
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t n) { return random() % n; };
  uint64_t next_id = 1;
  const auto extend = [&](std::vector<uint64_t> *prompt, uint64_t pages) {
    for (uint64_t i = 0; i < pages && prompt->size() < longest; ++i) prompt->push_back(next_id++);
  };
  std::vector<std::vector<uint64_t>> shared(1 + below(4)), sessions;
  for (auto &prompt : shared) extend(&prompt, below(longest / 2 + 1));
  replay::Trace trace;
  trace.name = "random";
  uint64_t now = 0;
  for (uint32_t r = 0; r < requests; ++r) {
    std::vector<uint64_t> prompt;
    const uint64_t kind = below(10);
    if (kind < 6 && !sessions.empty()) {
      prompt = sessions[below(sessions.size())];
    } else if (kind < 8) {
      prompt = shared[below(shared.size())];
    } else if (kind == 8 && !sessions.empty()) {
      // Another way on from the middle of a session.
      prompt = sessions[below(sessions.size())];
      prompt.resize(below(prompt.size() + 1));
    }
    extend(&prompt, below(4));
    sessions.push_back(prompt);
    if (sessions.size() > 24) sessions.erase(sessions.begin());
    now += below(100);
    const uint64_t begin = trace.ids.size();
    trace.ids.insert(trace.ids.end(), prompt.begin(), prompt.end());
    trace.requests.push_back(replay::Request{now, begin, trace.ids.size(), 0});
  }
  return trace;
}

}  // namespace quire::test

#endif  // QUIRE_TESTS_SUPPORT_RANDOM_TRACE_H
