// HighwayHash's update and finish with AVX2, compiled with -mavx2 and called only after a check of
// the CPU.
//
// The package's own HHStateAVX2 is not used because its packets come from memory only: a parent
// that was just finished goes out in narrow stores and comes back in one wide load, in every link
// of the chain. Here it stays in a register; decisions/prefix-keys.md has the difference. That the
// keys are HighwayHash's is what keys_test holds, against the package's portable state.
#include "runtime/key_hash.h"

#ifdef __AVX2__

#include <immintrin.h>

namespace quire {
namespace {

class Avx2State {
 public:
  using Key = __m128i;

  explicit Avx2State(const uint64_t *secret) {
    const __m256i key = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(secret));
    mul0_ = _mm256_set_epi64x(0x243f6a8885a308d3, 0x13198a2e03707344, bits(0xa4093822299f31d0),
                              bits(0xdbe6d5d5fe4cce2f));
    mul1_ = _mm256_set_epi64x(0x452821e638d01377, bits(0xbe5466cf34e90c6c),
                              bits(0xc0acf169b5f18a8c), 0x3bd39e10cb0ef593);
    v0_ = _mm256_xor_si256(mul0_, key);
    v1_ = _mm256_xor_si256(mul1_, _mm256_shuffle_epi32(key, _MM_SHUFFLE(2, 3, 0, 1)));
  }

  static Key load_key(const quire_key &key) { return _mm_set_epi64x(bits(key.hi), bits(key.lo)); }
  static void store_key(Key key, quire_key *to) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), key);
  }

  void absorb(const void *packet) {
    update(_mm256_loadu_si256(static_cast<const __m256i *>(packet)));
  }
  void absorb_words(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    update(_mm256_set_epi64x(bits(d), bits(c), bits(b), bits(a)));
  }
  void absorb_trailer(uint64_t domain, uint64_t counts, Key parent) {
    update(_mm256_set_m128i(parent, _mm_set_epi64x(bits(counts), bits(domain))));
  }

  Key finish() {
    const __m256i swap = _mm256_set_epi32(2, 3, 0, 1, 6, 7, 4, 5);
    for (int round = 0; round < 6; ++round) update(_mm256_permutevar8x32_epi32(v0_, swap));
    const __m256i sum0 = _mm256_add_epi64(v0_, mul0_);
    const __m256i sum1 = _mm256_add_epi64(v1_, mul1_);
    return _mm_add_epi64(_mm256_castsi256_si128(sum0), _mm256_extracti128_si256(sum1, 1));
  }

 private:
  static long long bits(uint64_t value) { return static_cast<long long>(value); }

  static __m256i zipper(__m256i v) {
    const __m256i order = _mm256_set_epi64x(0x070806090D0A040B, 0x000F010E05020C03,
                                            0x070806090D0A040B, 0x000F010E05020C03);
    return _mm256_shuffle_epi8(v, order);
  }

  void update(__m256i packet) {
    v1_ = _mm256_add_epi64(v1_, _mm256_add_epi64(packet, mul0_));
    mul0_ = _mm256_xor_si256(mul0_, _mm256_mul_epu32(v1_, _mm256_srli_epi64(v0_, 32)));
    v0_ = _mm256_add_epi64(v0_, mul1_);
    mul1_ = _mm256_xor_si256(mul1_, _mm256_mul_epu32(v0_, _mm256_srli_epi64(v1_, 32)));
    v0_ = _mm256_add_epi64(v0_, zipper(v1_));
    v1_ = _mm256_add_epi64(v1_, zipper(v0_));
  }

  __m256i v0_, v1_, mul0_, mul1_;
};

}  // namespace

ChainFunction chain_avx2() noexcept {
  return chain<Avx2State>;
}

}  // namespace quire

#else

namespace quire {
ChainFunction chain_avx2() noexcept {
  return nullptr;
}
}  // namespace quire

#endif
