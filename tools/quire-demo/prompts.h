// Texts of the workload: written for it, in the manner of the manuals that the model was trained
// on, so that what it generates is about something.
//
// The model reads 512 bytes at most. A system prompt of an agent takes about 385 of them (24 full
// pages of 16 tokens) and leaves room for five short steps; a chat's prompt is shorter and leaves
// room for three turns.
#ifndef QUIRE_DEMO_PROMPTS_H
#define QUIRE_DEMO_PROMPTS_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quire::demo {

// Bytes are tokens.
std::vector<uint32_t> to_tokens(std::string_view text);
std::string to_text(std::span<const uint32_t> tokens);
// One line, with what is not printable ASCII escaped.
std::string printable(std::string_view text);

extern const std::array<std::string_view, 5> kSystemPrompts;

// What the tool of call `call` answers at `step`: 16 bytes at most.
std::string observation(uint64_t seed, size_t call, size_t step);

struct ChatScript {
  std::string_view prompt;
  std::array<std::string_view, 3> user;
};
extern const std::array<ChatScript, 3> kChats;

// Any text will do for the means of the keys; this one belongs to no part of the workload.
extern const std::string_view kCalibrationText;

}  // namespace quire::demo

#endif  // QUIRE_DEMO_PROMPTS_H
