// The checksum of a page: one 64-bit number of all bytes behind its header, the same on every
// device.
//
//     sum over i of mix(word[i] + i * kStep)  mod 2^64, then mixed; never 0 (0: not computed)
//
// Words are 8 bytes, little-endian, and page bytes a multiple of 8. A sum, so that any number of
// threads may take any share of the words in any order while they copy them. mix and the addition
// of i * kStep are bijective: a page that differs in one word has another checksum for certain, one
// that differs in more with probability 1 - 2^-64 for bytes that are not chosen by an enemy.
//
// A flipped bit, or two words that changed places, is such a difference.
//
// checksum_word's last product may be left to the sum: products distribute over sums mod 2^64. SIMD
// targets do so (RowKernels::sum_words).
//
// Thread class: pure. Cost: two 64-bit products a word, one with SIMD.
#pragma once

#include <cstdint>

#include "quire/page_format.h"

namespace quire::kernels {

#define QUIRE_CHECKSUM_STEP 0x9e3779b97f4a7c15u
#define QUIRE_CHECKSUM_MIX 0xd6e8feb86659fd93u

QUIRE_HD uint64_t checksum_word(uint64_t word, uint64_t i) {
  uint64_t h = (word + i * QUIRE_CHECKSUM_STEP) * QUIRE_CHECKSUM_MIX;
  h ^= h >> 32;
  return h * QUIRE_CHECKSUM_MIX;
}

QUIRE_HD uint64_t checksum_end(uint64_t sum) {
  const uint64_t h = (sum ^ (sum >> 29)) * 0xbf58476d1ce4e5b9u;
  return h == 0 ? 1 : h;
}

}  // namespace quire::kernels
