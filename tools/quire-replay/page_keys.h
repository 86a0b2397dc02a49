// Keys of a trace's pages.
//
// A trace has ids in place of tokens, so quire_chain_keys has nothing to hash; what it promises is
// made here from the ids: key[i] = mix(key[i-1], id[i]), key[-1] = the namespace's root. In a trace
// whose ids stand for whole prefixes this names the same pages as the ids do; one whose ids name a
// page's own content only is replayed rightly too, since the parent is folded in. The mix is two
// multiplications of 64 x 64 bits folded (as in wyhash), with different constants for the halves:
// of 2^24 pages, two share a key with a chance of about 2^-81. Not keyed by a secret of its own:
// root is. Cost: about 3 ns a page; timed apart from the replay.
#ifndef QUIRE_REPLAY_PAGE_KEYS_H
#define QUIRE_REPLAY_PAGE_KEYS_H

#include <cstddef>
#include <cstdint>
#include <span>

#include "quire/quire.h"

namespace quire::replay {

__extension__ typedef unsigned __int128 Wide;

inline uint64_t fold(uint64_t a, uint64_t b) {
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline quire_key child_key(quire_key parent, uint64_t id) {
  constexpr uint64_t kA = 0x9e3779b97f4a7c15u, kB = 0xe7037ed1a0b428dbu, kC = 0x8ebc6af09c88c6e3u,
                     kD = 0x589965cc75374cc3u;
  const uint64_t x = id ^ kA;
  return quire_key{fold(parent.lo ^ x, parent.hi ^ kB) + parent.hi,
                   fold(parent.hi ^ (x + kC), parent.lo ^ kD) + parent.lo};
}

// keys has room for ids.size().
inline void chain_keys(quire_key root, std::span<const uint64_t> ids, quire_key *keys) {
  quire_key key = root;
  for (size_t i = 0; i < ids.size(); ++i) keys[i] = key = child_key(key, ids[i]);
}

}  // namespace quire::replay

#endif  // QUIRE_REPLAY_PAGE_KEYS_H
