// Token runs: the tokens of an append or a gather, cut into runs that lie one after another in one
// page, so that a kernel is called per run and not per token.
//
// Thread class: pure. Cost: a few nanoseconds a token.
#pragma once

#include <cstdint>

#include "kernels/codec.h"

namespace quire::kernels {

struct TokenRun {
  uint8_t *frame = nullptr;  // nullptr: these tokens are nowhere
  bool open = false;
  uint32_t offset = 0;  // of the first token in its page
  uint32_t n = 0;
};

inline int64_t slot_of(const TokenMap &map, uint32_t page_tokens, uint64_t i) {
  if (map.slots != nullptr) return map.slots[i];
  const uint64_t token = map.first + i, page = token / page_tokens;
  if (page >= map.block_table_length) return -1;
  const int64_t entry = map.block_table[page];
  if (entry == -1) return -1;
  const auto at = static_cast<int64_t>(entry_frame(entry) * page_tokens + token % page_tokens);
  return entry_is_open(entry) ? -2 - at : at;
}

// The run that begins at token i, at most `most` tokens, not beyond end.
inline TokenRun next_run(const TokenMap &map, const Frames &frames, uint32_t page_tokens,
                         uint64_t i, uint64_t end, uint32_t most) {
  TokenRun run;
  const int64_t slot = slot_of(map, page_tokens, i);
  run.n = 1;
  if (slot == -1) {
    while (i + run.n < end && run.n < most && slot_of(map, page_tokens, i + run.n) == -1) ++run.n;
    return run;
  }
  run.open = entry_is_open(slot);
  const uint64_t at = entry_frame(slot);
  run.frame = (run.open ? frames.open : frames.sealed).frame(at / page_tokens);
  run.offset = static_cast<uint32_t>(at % page_tokens);
  const int64_t step = run.open ? -1 : 1;
  while (i + run.n < end && run.n < most && run.offset + run.n < page_tokens &&
         slot_of(map, page_tokens, i + run.n) == slot + step * static_cast<int64_t>(run.n)) {
    ++run.n;
  }
  return run;
}

}  // namespace quire::kernels
