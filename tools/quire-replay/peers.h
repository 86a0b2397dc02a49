// Other caches' policies in a replay, to hold the library's against: simulations, which call no
// library, under the rules of a replay (belady.h) and leaf-first. None of them knows of chains; so
//   - a request uses its pages deepest first, which keeps a child in front of its parent in any queue;
//   - who must go next and has a resident child, or is held by the request, is passed over.
// Without these they would lose pages whose children stay, which nobody can find any more.
//
//   sieve    one queue, a bit a page, a hand that takes the first one not used since it passed
//            (Zhang and others, NSDI 2024)
//   s3fifo   a small queue (a tenth) for what is new, a main one, a queue of ghosts as long as the
//            cache; counts up to 3 (Yang and others, SOSP 2023)
//   arc      recent and frequent pages, each with ghosts, the share between them learned
//            (Megiddo and Modha, FAST 2003)
//   lru2     oldest last use but one first; uses are remembered for ever (O'Neil and others, 1993)
//
// Cost: a few list operations a reference, 40 bytes a page of the trace; lru2 a tree's.
#ifndef QUIRE_REPLAY_PEERS_H
#define QUIRE_REPLAY_PEERS_H

#include <cstdint>
#include <string>

#include "belady.h"
#include "page_tree.h"
#include "trace.h"

namespace quire::replay {

inline constexpr const char *kPeers[] = {"sieve", "s3fifo", "arc", "lru2"};

// One of kPeers.
BeladyResult replay_peer(const std::string &policy, const Trace &trace, const PageTree &tree,
                         uint32_t capacity);

}  // namespace quire::replay

#endif  // QUIRE_REPLAY_PEERS_H
