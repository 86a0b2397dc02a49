#include "workload.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <stdexcept>

#include "prompts.h"
#include "sampler.h"

namespace quire::demo {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One call in progress: an agent and what it has seen.
struct Agent {
  size_t call, prompt;
  std::vector<uint32_t> history;
  std::string reply;
  Sequence sequence;
  Sampler sampler;
};

class AgentRun {
 public:
  AgentRun(Engine &engine, const AgentOptions &options)
      : engine_(engine), options_(options), touched_(options.prompts) {
    result_.replies.resize(options.calls * options.steps);
  }

  AgentResult run() {
    const EngineCounters before = engine_.counters();
    const auto start = Clock::now();
    const std::clock_t cpu_start = std::clock();
    for (size_t first = 0; first < options_.calls; first += options_.prompts) {
      wave(first, std::min(options_.prompts, options_.calls - first));
    }
    result_.seconds = seconds_since(start);
    result_.cpu_seconds = static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
    const EngineCounters &after = engine_.counters();
    result_.computed = {.prefill_tokens = after.prefill_tokens - before.prefill_tokens,
                        .decode_tokens = after.decode_tokens - before.decode_tokens,
                        .flops = after.flops - before.flops,
                        .passes = after.passes - before.passes};
    return std::move(result_);
  }

 private:
  void wave(size_t first, size_t n) {
    std::vector<Agent> agents;
    for (size_t i = 0; i < n; ++i) {
      const size_t prompt = (first + i) % options_.prompts;
      agents.push_back({.call = first + i,
                        .prompt = prompt,
                        .history = to_tokens(kSystemPrompts[prompt]),
                        .reply = {},
                        .sequence = {},
                        .sampler = Sampler(options_.seed + first + i)});
    }
    for (size_t step = 0; step < options_.steps; ++step) {
      for (Agent &agent : agents) begin_request(agent, step);
      decode(agents);
      for (Agent &agent : agents) {
        agent.sequence.close();
        result_.replies[agent.call * options_.steps + step] = agent.reply;
        ++result_.requests;
      }
    }
  }

  void begin_request(Agent &agent, size_t step) {
    const auto seen = to_tokens(observation(options_.seed, agent.call, step));
    agent.history.insert(agent.history.end(), seen.begin(), seen.end());
    agent.reply.clear();
    const auto start = Clock::now();
    agent.sequence = engine_.open("agents", agent.history);
    const auto logits = engine_.prefill(agent.sequence, agent.history);
    say(agent, logits);
    const double ttft = seconds_since(start);
    count(agent, step, ttft);
  }

  void count(const Agent &agent, size_t step, double ttft) {
    const size_t page = engine_.options().page_tokens;
    const size_t found = agent.sequence.hit() / page;
    const size_t shared = kSystemPrompts[agent.prompt].size() / page;
    const bool cold = step == 0 && !touched_[agent.prompt];
    touched_[agent.prompt] = true;
    result_.all.asked += (agent.sequence.committed() - 1) / page;
    result_.all.found += found;
    result_.shared.asked += shared;
    result_.shared.found += std::min(found, shared);
    if (!cold) {
      result_.shared_warm.asked += shared;
      result_.shared_warm.found += std::min(found, shared);
    }
    (cold ? result_.cold_ttft : result_.warm_ttft).push_back(ttft);
  }

  void say(Agent &agent, std::span<const float> logits) const {
    const uint32_t token = agent.sampler.pick(logits, options_.temperature);
    agent.history.push_back(token);
    agent.reply.push_back(static_cast<char>(token));
  }

  // The rest of the replies, all agents of the wave in one batch. The last token of a reply is not
  // computed: the next request of its agent starts with it.
  void decode(std::vector<Agent> &agents) {
    std::vector<Step> steps;
    for (size_t i = 1; i < options_.reply_tokens; ++i) {
      steps.clear();
      for (Agent &agent : agents) {
        steps.push_back({&agent.sequence, std::span(agent.history).last(1)});
      }
      engine_.forward(steps);
      for (size_t a = 0; a < agents.size(); ++a) say(agents[a], engine_.logits(a));
    }
  }

  Engine &engine_;
  const AgentOptions &options_;
  AgentResult result_;
  std::vector<bool> touched_;
};

void check_fit(const ModelConfig &model, const AgentOptions &options, const EngineOptions &engine) {
  if (options.prompts == 0 || options.prompts > kSystemPrompts.size() ||
      options.prompts > engine.max_batch || options.reply_tokens == 0) {
    throw std::invalid_argument("workload: 1 to 5 prompts, and at least one token a reply");
  }
  for (size_t call = 0; call < options.calls; ++call) {
    size_t tokens = kSystemPrompts[call % options.prompts].size();
    for (size_t step = 0; step < options.steps; ++step) {
      tokens += observation(options.seed, call, step).size() + options.reply_tokens;
    }
    if (options.steps > 0 && tokens - 1 > model.context) {
      throw std::invalid_argument("workload: " + std::to_string(tokens - 1) +
                                  " tokens do not fit the model's context of " +
                                  std::to_string(model.context));
    }
  }
}

}  // namespace

AgentResult run_agents(Engine &engine, const ModelConfig &model, const AgentOptions &options) {
  check_fit(model, options, engine.options());
  return AgentRun(engine, options).run();
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const auto last = static_cast<double>(values.size() - 1);
  return values[static_cast<size_t>(std::lround(share * last))];
}

}  // namespace quire::demo
