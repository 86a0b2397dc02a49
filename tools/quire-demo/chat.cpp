#include "chat.h"

#include <algorithm>
#include <chrono>

#include "sampler.h"

namespace quire::demo {

namespace {

class Chat {
 public:
  Chat(Engine &engine, const ChatScript &script, const ChatOptions &options)
      : engine_(engine), script_(script), options_(options), said_(to_tokens(script.prompt)) {}

  ChatResult run() {
    const auto start = std::chrono::steady_clock::now();
    sequence_ = engine_.open("chats", said_);
    for (size_t turn = 0; turn < script_.user.size(); ++turn) {
      const auto user = to_tokens(script_.user[turn]);
      said_.insert(said_.end(), user.begin(), user.end());
      const size_t reply_at = said_.size();
      const auto logits = engine_.prefill(sequence_, said_);
      const std::vector<float> first(logits.begin(), logits.end());
      if (turn + 1 < script_.user.size()) {
        best_of_samples(first, turn);
      } else {
        greedy_with_drafts(first);
      }
      result_.turns.push_back({.user = std::string(script_.user[turn]),
                               .reply = to_text(std::span(said_).subspan(reply_at))});
    }
    sequence_.close();
    result_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(result_);
  }

 private:
  struct Sample {
    Sequence sequence;
    Sampler sampler;
    std::vector<uint32_t> tokens;
    double log_likelihood = 0;
  };

  void pick(Sample &sample, std::span<const float> logits) const {
    const uint32_t token = sample.sampler.pick(logits, options_.temperature);
    sample.log_likelihood += log_softmax(logits)[token];
    sample.tokens.push_back(token);
  }

  void best_of_samples(std::span<const float> first, size_t turn) {
    std::vector<Sample> samples;
    for (size_t i = 0; i < std::max<size_t>(options_.samples, 1); ++i) {
      samples.push_back({.sequence = engine_.fork(sequence_),
                         .sampler = Sampler(options_.seed * 1'000 + turn * 100 + i),
                         .tokens = {}});
      pick(samples.back(), first);
      ++result_.forks;
    }
    std::vector<Step> steps;
    while (samples[0].tokens.size() < options_.reply_tokens) {
      steps.clear();
      for (Sample &sample : samples) {
        steps.push_back({&sample.sequence, std::span(sample.tokens).last(1)});
      }
      engine_.forward(steps);
      for (size_t i = 0; i < samples.size(); ++i) pick(samples[i], engine_.logits(i));
    }
    Sample &best = *std::max_element(
        samples.begin(), samples.end(),
        [](const Sample &a, const Sample &b) { return a.log_likelihood < b.log_likelihood; });
    said_.insert(said_.end(), best.tokens.begin(), best.tokens.end());
    sequence_ = std::move(best.sequence);  // the parent closes; the other children with `samples`
  }

  // What followed the last three tokens where they occurred before, latest first.
  std::vector<uint32_t> draft(size_t most) const {
    constexpr size_t kGram = 3;
    if (said_.size() <= kGram || most == 0) return {};
    const auto gram = said_.end() - kGram;
    for (auto at = gram; at-- != said_.begin();) {
      if (std::equal(gram, said_.end(), at)) {
        const auto from = at + kGram;
        const auto n = std::min(static_cast<ptrdiff_t>(most), said_.end() - from);
        return {from, from + n};
      }
    }
    return {};
  }

  void greedy_with_drafts(std::span<const float> first) {
    const size_t end = said_.size() + options_.reply_tokens;
    said_.push_back(greedy(first));
    while (said_.size() < end) {
      // The last token is not computed yet; the draft goes behind it, in the same pass.
      std::vector<uint32_t> tokens = draft(std::min(options_.draft_tokens, end - said_.size() - 1));
      const size_t drafted = tokens.size();
      tokens.insert(tokens.begin(), said_.back());
      const Step step{&sequence_, tokens};
      engine_.forward(std::span(&step, 1), Logits::kAll, Commit::kOnAccept);
      size_t right = 0;
      while (right < drafted && greedy(engine_.logits(0, right)) == tokens[right + 1]) ++right;
      engine_.accept(sequence_, tokens, right + 1);
      said_.insert(said_.end(), tokens.begin() + 1,
                   tokens.begin() + 1 + static_cast<ptrdiff_t>(right));
      said_.push_back(greedy(engine_.logits(0, right)));
      result_.drafted += drafted;
      result_.accepted += right;
      ++result_.draft_passes;
    }
  }

  Engine &engine_;
  const ChatScript &script_;
  const ChatOptions &options_;
  std::vector<uint32_t> said_;  // the whole conversation; its tail may not be computed yet
  Sequence sequence_;
  ChatResult result_;
};

}  // namespace

ChatResult run_chat(Engine &engine, const ChatScript &script, const ChatOptions &options) {
  return Chat(engine, script, options).run();
}

}  // namespace quire::demo
