// Chat: multi-turn conversations that keep their sequence open, and what that is good for.
//
// Each turn prefills the user's line behind what is there, then
//   - all but the last turn: forks the sequence into `samples` children, samples them at a
//     temperature as one batch, keeps the child whose text the model finds most likely and closes
//     the others (their shared pages are copied on write, their own are freed);
//   - the last turn: decodes greedily with drafts. Where the last three tokens occurred before,
//     what followed them there is the draft (prompt lookup); one pass checks it, what the model
//     would have said itself stays, and the rest is rolled back with quire_seq_truncate.
//
// Drafts change no output: with plain pages the text is that of greedy decoding, token for token.
#ifndef QUIRE_DEMO_CHAT_H
#define QUIRE_DEMO_CHAT_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine.h"
#include "prompts.h"

namespace quire::demo {

struct ChatOptions {
  size_t samples = 3;
  size_t reply_tokens = 72;
  size_t draft_tokens = 6;  // 0: none
  double temperature = 0.6;
  uint64_t seed = 1;
};

struct ChatTurn {
  std::string user, reply;
};

struct ChatResult {
  std::vector<ChatTurn> turns;
  size_t forks = 0;
  size_t drafted = 0, accepted = 0;  // tokens
  size_t draft_passes = 0;           // passes of the last turn, after its prefill
  double seconds = 0;
};

ChatResult run_chat(Engine &engine, const ChatScript &script, const ChatOptions &options);

}  // namespace quire::demo

#endif  // QUIRE_DEMO_CHAT_H
