#include "runtime/keys.h"

#include <sys/random.h>

#include <bit>
#include <cerrno>
#include <cstring>

// Before the first of HighwayHash's headers: which of its states this file gets.
#define HH_TARGET_NAME Portable
#include <highwayhash/hh_portable.h>

#include "runtime/key_hash.h"

// Tokens and keys are hashed as they lie in memory.
static_assert(std::endian::native == std::endian::little);

namespace quire {
namespace {

class PortableState {
 public:
  using Key = quire_key;

  explicit PortableState(const uint64_t *secret)
      : state_(*reinterpret_cast<const highwayhash::HHKey *>(secret)) {}

  static Key load_key(const quire_key &key) { return key; }
  static void store_key(const Key &key, quire_key *to) { *to = key; }

  void absorb(const void *packet) {
    state_.Update(*static_cast<const highwayhash::HHPacket *>(packet));
  }
  void absorb_words(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    const uint64_t words[4] = {a, b, c, d};
    absorb(words);
  }
  void absorb_trailer(uint64_t domain, uint64_t counts, const Key &parent) {
    absorb_words(domain, counts, parent.lo, parent.hi);
  }
  Key finish() {
    highwayhash::HHResult128 result;
    state_.Finalize(&result);
    return Key{result[0], result[1]};
  }

 private:
  highwayhash::Portable::HHStatePortable state_;
};

bool cpu_has_avx2() noexcept {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") != 0;
#else
  return false;
#endif
}

}  // namespace

Status Keys::random_secret(unsigned char *secret) noexcept {
  size_t filled = 0;
  while (filled < kSecretBytes) {
    const ssize_t got = getrandom(secret + filled, kSecretBytes - filled, 0);
    if (got > 0) {
      filled += static_cast<size_t>(got);
    } else if (errno != EINTR) {
      return set_error(Status::kIo, "getrandom: %s", std::strerror(errno));
    }
  }
  return Status::kOk;
}

bool Keys::supported(Target target) noexcept {
  return target != Target::kAvx2 || (chain_avx2() != nullptr && cpu_has_avx2());
}

Keys::Keys(const unsigned char *secret, Target target) noexcept {
  std::memcpy(secret_, secret, sizeof secret_);
  const bool avx2 = target != Target::kPortable && supported(Target::kAvx2);
  chain_ = avx2 ? chain_avx2() : chain<PortableState>;
}

const char *Keys::target_name() const noexcept {
  return chain_ == static_cast<ChainFunction>(chain<PortableState>) ? "portable" : "avx2";
}

Status Keys::root_key(const quire_field *fields, size_t n_fields, quire_key *root) const noexcept {
  if (root == nullptr || (fields == nullptr && n_fields != 0)) {
    return set_error(Status::kInvalid, "root_key: a null pointer");
  }
  // Roots are made once a namespace, so one instruction set is enough.
  PortableState state(secret_);
  for (size_t i = 0; i < n_fields; ++i) {
    if (fields[i].data == nullptr && fields[i].bytes != 0) {
      return set_error(Status::kInvalid, "root_key: field %zu has %u bytes but no data", i,
                       fields[i].bytes);
    }
    state.absorb_words(fields[i].bytes, fields[i].type, 0, 0);
    absorb_bytes(state, fields[i].data, fields[i].bytes);
  }
  state.absorb_words(kRootDomain, n_fields, 0, 0);
  *root = state.finish();
  return Status::kOk;
}

Status Keys::chain_keys(const quire_key &parent, const uint32_t *tokens, size_t n_tokens,
                        uint32_t page_tokens, const quire_page_extra *extra, size_t n_extra,
                        quire_key *keys, size_t *n) const noexcept {
  if (n == nullptr || (tokens == nullptr && n_tokens != 0) || (extra == nullptr && n_extra != 0)) {
    return set_error(Status::kInvalid, "chain_keys: a null pointer");
  }
  if (page_tokens == 0) return set_error(Status::kInvalid, "chain_keys: pages of 0 tokens");
  const size_t pages = n_tokens / page_tokens;
  if (*n < pages || (keys == nullptr && pages != 0)) {
    const size_t room = *n;
    *n = pages;
    return set_error(Status::kInvalid, "chain_keys: room for %zu keys of %zu", room, pages);
  }
  for (size_t i = 0; i < n_extra; ++i) {
    if (extra[i].page >= pages) {
      return set_error(Status::kInvalid, "chain_keys: a digest in page %u of %zu full ones",
                       extra[i].page, pages);
    }
    if (i != 0 && extra[i].page < extra[i - 1].page) {
      return set_error(Status::kInvalid, "chain_keys: digest %zu is not in the order of pages", i);
    }
    if (extra[i].digest == nullptr && extra[i].bytes != 0) {
      return set_error(Status::kInvalid, "chain_keys: digest %zu has bytes but no data", i);
    }
  }
  chain_(secret_, parent, tokens, pages, page_tokens, extra, n_extra, keys);
  *n = pages;
  return Status::kOk;
}

}  // namespace quire
