// Workload: agents that call the engine again and again with almost the same prompt.
//
// A call is one run of an agent: a loop of `steps` requests. The prompt of a request is the agent's
// system prompt and all that was said since: the tool's observation and the model's reply of each
// earlier step, and the new observation. Call i uses system prompt i mod `prompts`, so each wave of
// `prompts` calls has every system prompt once; its requests are prefilled one by one (time to
// first token is from a request's start to its first token) and then decoded as one batch.
//
// As in a stateless API every request opens its sequence anew, from its tokens alone, and closes it
// at the end: what it does not have to compute is what the cache found for it.
//
// Counted, per request of n tokens with pages of t:
//   asked   (n - 1) / t pages: full ones, without the last token, which is always computed
//   found   pages of the hit
//   shared  of both, those that lie wholly in the system prompt; "warm" leaves out the first
//           request of each system prompt, which nobody can have computed before
#ifndef QUIRE_DEMO_WORKLOAD_H
#define QUIRE_DEMO_WORKLOAD_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine.h"

namespace quire::demo {

struct AgentOptions {
  size_t calls = 50;
  size_t prompts = 5;  // at most kSystemPrompts.size()
  size_t steps = 5;
  size_t reply_tokens = 8;
  double temperature = 0;
  uint64_t seed = 1;
};

struct PageCount {
  uint64_t asked = 0, found = 0;
  double ratio() const {
    return asked == 0 ? 0.0 : static_cast<double>(found) / static_cast<double>(asked);
  }
};

struct AgentResult {
  size_t requests = 0;
  double seconds = 0;
  double cpu_seconds = 0;                    // of all threads of this process
  std::vector<double> cold_ttft, warm_ttft;  // seconds; cold: first request of a system prompt
  PageCount all;                             // every page of every request
  PageCount shared;                          // pages of system prompts
  PageCount shared_warm;                     // the same after the first touch
  EngineCounters computed;
  std::vector<std::string> replies;  // of each request, in order of call and step
};

// Throws std::invalid_argument where the requests would not fit the model's context.
AgentResult run_agents(Engine &engine, const ModelConfig &model, const AgentOptions &options);

double percentile(std::vector<double> values, double share);

}  // namespace quire::demo

#endif  // QUIRE_DEMO_WORKLOAD_H
