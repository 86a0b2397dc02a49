// Keys: names of prefixes. A key is a 128-bit keyed hash of what determines a page's content.
//
//   root   = PRF(secret, fields of the namespace)
//   key[i] = PRF(secret, tokens of page i, digests in page i, key[i - 1]), key[-1] = root
//
// What that is worth
//   - Equal keys mean equal prefixes, up to a collision of 128 bits: 2^-64 after 2^32 pages.
//   - Nobody without the secret can construct two prefixes that collide. Tenants choose their own
//     tokens, so an unkeyed hash would let one aim at another's pages.
//   - No two lists of fields give the same root, whatever their bytes: fields are typed and
//     length-prefixed, and counted (key_hash.h has the message; it can be read in one way only).
//     Order counts: {A, B} and {B, A} are two namespaces. An empty field is not a missing one.
//   - A digest changes the key of the page in which it occurs and of all later ones only.
//   - Same secret, same keys: on every CPU, instruction set and version. A cache draws its secret
//     from the kernel unless it is given one, as it must be where keys are shared between caches.
//
// The PRF is HighwayHash-128 with a 256-bit key (arXiv 1612.06257). decisions/prefix-keys.md holds
// it against its peers.
//
// Immutable after construction, so any thread. Allocates nothing. Cost: a page of 16 tokens is one
// link of a chain of dependences, about 28 ns with AVX2 on the machine of that record, five times
// that without; the tokens of longer pages are hashed behind the previous link.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quire/quire.h"
#include "runtime/status.h"

namespace quire {

// The loop over a chain's pages for one instruction set; key_hash.h says what it does.
using ChainFunction = void (*)(const uint64_t *secret, const quire_key &parent,
                               const uint32_t *tokens, size_t pages, uint32_t page_tokens,
                               const quire_page_extra *extra, size_t n_extra, quire_key *keys);

class Keys {
 public:
  static constexpr size_t kSecretBytes = 32;

  enum class Target : uint8_t { kBest, kPortable, kAvx2 };

  // Fills `secret` from the kernel. kIo if it has none to give.
  static Status random_secret(unsigned char *secret) noexcept;

  static bool supported(Target target) noexcept;

  // `target` is for tests and benchmarks: keys do not depend on it. One that is not supported is
  // kBest.
  explicit Keys(const unsigned char *secret, Target target = Target::kBest) noexcept;

  // "avx2" or "portable".
  const char *target_name() const noexcept;

  // kInvalid: a field with bytes but no data.
  Status root_key(const quire_field *fields, size_t n_fields, quire_key *root) const noexcept;

  // Keys of the n_tokens / page_tokens full pages (rounded down). In *n: room in keys[]; out: keys
  // written. extra[] ascends by page; several digests of one page count in their order. keys[] may
  // not overlap the inputs. kInvalid: page_tokens 0, room too small (*n then says what is needed),
  // an extra out of order, of a page that is not full, or without data.
  Status chain_keys(const quire_key &parent, const uint32_t *tokens, size_t n_tokens,
                    uint32_t page_tokens, const quire_page_extra *extra, size_t n_extra,
                    quire_key *keys, size_t *n) const noexcept;

 private:
  alignas(32) uint64_t secret_[4];
  ChainFunction chain_;
};

}  // namespace quire
