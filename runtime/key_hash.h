// The messages that keys are hashes of, and the loop that hashes them, for one instruction set.
//
// Included by keys.cpp (portable) and keys_avx2.cpp, each of which supplies a State: HighwayHash's
// four 256-bit lanes (arXiv 1612.06257) with absorb(32 bytes) and finish(128-bit result).
// Everything here is in an unnamed namespace, so that code for one instruction set is never linked
// into the other's callers.
//
// A message is a list of 32-byte packets and always ends in a trailer, so that it can be read back
// in one way only: from its length and its trailer follow the parts before it, front to back.
//
//   page   ceil(page_tokens / 8) packets of tokens, zero padded;
//          per digest: a packet {bytes, 0, 0, 0}, then ceil(bytes / 32) packets, zero padded;
//          trailer {kPageDomain, page_tokens | digests << 32, parent.lo, parent.hi}
//   root   per field: a packet {bytes, type, 0, 0}, then ceil(bytes / 32) packets, zero padded;
//          trailer {kRootDomain, fields, 0, 0}
//
// The key is HighwayHash-128 of the packets under the cache's secret. These bytes are a format:
// keys that were handed out stay valid across versions (tests hold fixed values).
//
// Why the parent comes last: the chain is a chain of dependences, and the only part of a page's
// message that depends on the page before is the parent. With tokens first, a page's token packets
// are absorbed while the previous page is still being finished; what is left in the chain is one
// packet and the finish.
#pragma once

#include <cstdint>
#include <cstring>

#include "quire/quire.h"

namespace quire {

// One way to compute keys of consecutive pages; extra[] is sorted by page, every page < pages. (As
// in keys.h, which is not included here: code for one instruction set should share no inline
// functions with the rest.)
using ChainFunction = void (*)(const uint64_t *secret, const quire_key &parent,
                               const uint32_t *tokens, size_t pages, uint32_t page_tokens,
                               const quire_page_extra *extra, size_t n_extra, quire_key *keys);

// runtime/keys_avx2.cpp; null where the library was built without AVX2 code.
ChainFunction chain_avx2() noexcept;

namespace {

constexpr uint64_t kPageDomain = 0x3165676170657251;  // "Qrepage1"
constexpr uint64_t kRootDomain = 0x31746f6f72657251;  // "Qreroot1"
constexpr size_t kPacketBytes = 32;

template <class State>
inline void absorb_bytes(State &state, const void *data, size_t bytes) {
  const auto *from = static_cast<const unsigned char *>(data);
  for (; bytes >= kPacketBytes; from += kPacketBytes, bytes -= kPacketBytes) state.absorb(from);
  if (bytes == 0) return;
  unsigned char padded[kPacketBytes] = {};
  std::memcpy(padded, from, bytes);
  state.absorb(padded);
}

template <class State>
inline void chain(const uint64_t *secret, const quire_key &parent, const uint32_t *tokens,
                  size_t pages, uint32_t page_tokens, const quire_page_extra *extra, size_t n_extra,
                  quire_key *keys) {
  const quire_page_extra *const extra_end = extra + n_extra;
  typename State::Key previous = State::load_key(parent);
  for (size_t page = 0; page < pages; ++page, tokens += page_tokens) {
    State state(secret);
    absorb_bytes(state, tokens, size_t{page_tokens} * sizeof(uint32_t));
    uint64_t digests = 0;
    for (; extra != extra_end && extra->page == page; ++extra, ++digests) {
      state.absorb_words(extra->bytes, 0, 0, 0);
      absorb_bytes(state, extra->digest, extra->bytes);
    }
    state.absorb_trailer(kPageDomain, page_tokens | digests << 32, previous);
    previous = state.finish();
    State::store_key(previous, &keys[page]);
  }
}

}  // namespace
}  // namespace quire
