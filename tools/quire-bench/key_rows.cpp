// Rows "keys/...": naming prefixes. Every contender chains: a page's key depends on the key before.
//
// Peers: SHA-256 of (parent, tokens) through OpenSSL, which many use to name pages by content, and
// which uses the CPU's SHA instructions where there are any; XXH3 of the same bytes, which is not
// keyed and so is no alternative, as the floor. The library's own portable code is shown beside
// them: it is what a CPU without AVX2 gets.
#include <array>
#include <cstring>
#include <vector>

#include "bench.h"
#include "runtime/keys.h"

#ifdef QUIRE_BENCH_HAVE_OPENSSL
#include <openssl/evp.h>
#endif
#include <xxhash.h>

namespace quire::bench {
namespace {

constexpr size_t kTokens = 131072;

struct Input {
  std::vector<uint32_t> tokens;
  std::vector<quire_key> keys;
  quire_key root{1, 2};
  unsigned char secret[Keys::kSecretBytes];

  Input(size_t n_tokens, uint64_t seed) : tokens(n_tokens), keys(n_tokens) {
    Random random(seed);
    for (uint32_t &token : tokens) token = static_cast<uint32_t>(random.below(200000));
    for (unsigned char &byte : secret) byte = static_cast<unsigned char>(random());
  }
};

double quire_round(const Keys &maker, Input &input, uint32_t page_tokens) {
  size_t n = input.keys.size();
  const Stopwatch watch;
  const Status status = maker.chain_keys(input.root, input.tokens.data(), input.tokens.size(),
                                         page_tokens, nullptr, 0, input.keys.data(), &n);
  const double ns = watch.ns();
  do_not_optimize(input.keys[0]);
  return status == Status::kOk ? ns / static_cast<double>(n) : -1;
}

// One message a page: the parent's key, then the tokens. Hash: (bytes, n) -> quire_key. The size is
// a constant, so that copying the message together costs the peers next to nothing.
template <uint32_t page_tokens, class Hash>
double peer_round(Input &input, const Hash &hash) {
  const size_t pages = input.tokens.size() / page_tokens;
  constexpr size_t token_bytes = size_t{page_tokens} * sizeof(uint32_t);
  std::array<unsigned char, sizeof(quire_key) + token_bytes> message;
  const Stopwatch watch;
  quire_key previous = input.root;
  for (size_t page = 0; page < pages; ++page) {
    std::memcpy(message.data(), &previous, sizeof previous);
    std::memcpy(message.data() + sizeof previous, input.tokens.data() + page * page_tokens,
                token_bytes);
    previous = hash(message.data(), message.size());
    input.keys[page] = previous;
  }
  const double ns = watch.ns();
  do_not_optimize(input.keys[0]);
  return ns / static_cast<double>(pages);
}

inline quire_key xxh3(const void *bytes, size_t n) {
  const XXH128_hash_t hash = XXH3_128bits(bytes, n);
  return {hash.low64, hash.high64};
}

#ifdef QUIRE_BENCH_HAVE_OPENSSL
// The method is fetched and the context made once: only hashing is timed.
class Sha256 {
 public:
  Sha256() : method_(EVP_MD_fetch(nullptr, "SHA256", nullptr)), context_(EVP_MD_CTX_new()) {}
  ~Sha256() {
    EVP_MD_CTX_free(context_);
    EVP_MD_free(method_);
  }
  Sha256(const Sha256 &) = delete;
  Sha256 &operator=(const Sha256 &) = delete;

  quire_key operator()(const void *bytes, size_t n) const {
    unsigned char digest[32] = {};
    EVP_DigestInit_ex2(context_, method_, nullptr);
    EVP_DigestUpdate(context_, bytes, n);
    EVP_DigestFinal_ex(context_, digest, nullptr);
    quire_key key;
    std::memcpy(&key, digest, sizeof key);
    return key;
  }

 private:
  EVP_MD *method_;
  EVP_MD_CTX *context_;
};
#endif

// Measures ours, portable, XXH3 and, where it is installed, SHA-256, in ns a page.
template <uint32_t page_tokens>
std::vector<Measure> measure(const Context &context, size_t tokens) {
  Input input(tokens, context.seed);
  const Keys best(input.secret);
  const Keys portable(input.secret, Keys::Target::kPortable);
  std::vector<Contender> contenders = {
      {"quire", [&] { return quire_round(best, input, page_tokens); }},
      {"quire, portable", [&] { return quire_round(portable, input, page_tokens); }},
      {"XXH3", [&] { return peer_round<page_tokens>(input, xxh3); }},
  };
#ifdef QUIRE_BENCH_HAVE_OPENSSL
  const Sha256 sha256;
  contenders.push_back({"SHA-256", [&] { return peer_round<page_tokens>(input, sha256); }});
#endif
  return interleave(context, contenders);
}

std::vector<Peer> peers(const std::vector<Measure> &measures) {
  std::vector<Peer> list = {Peer{"quire, portable code", measures[1]},
                            Peer{"XXH3-128, not keyed: the floor", measures[2]}};
  if (measures.size() > 3) {
    list.push_back(Peer{"SHA-256 (OpenSSL)", measures[3]});
  } else {
    list.push_back(not_installed("SHA-256 (OpenSSL)"));
  }
  return list;
}

template <uint32_t page_tokens>
Row chain_row(const Context &context, Goal goal) {
  const auto measures = measure<page_tokens>(context, context.quick ? kTokens / 8 : kTokens);
  const Keys any(Input(1, 1).secret);
  return Row{"chain keys, pages of " + std::to_string(page_tokens) + " tokens",
             "ns/page",
             goal,
             measures[0],
             peers(measures),
             std::string("target ") + any.target_name()};
}

std::vector<Row> chain_rows(const Context &context) {
  return {chain_row<16>(context, at_most(50)), chain_row<32>(context, report_lower()),
          chain_row<64>(context, report_lower())};
}

std::vector<Row> prompt_rows(const Context &context) {
  std::vector<Row> rows;
  for (const size_t tokens : {size_t{2048}, size_t{16384}, kTokens}) {
    auto measures = measure<16>(context, tokens);
    const double to_us = static_cast<double>(tokens) / 16 / 1000;
    for (Measure &m : measures) m = Measure(m.median * to_us, m.low * to_us, m.high * to_us);
    rows.push_back(Row{"keys of a prompt of " + std::to_string(tokens) + " tokens, pages of 16",
                       "us", tokens == kTokens ? at_most(500) : report_lower(), measures[0],
                       peers(measures), ""});
  }
  return rows;
}

QUIRE_BENCHMARK("keys/chain", "chained keys of pages, per page", chain_rows);
QUIRE_BENCHMARK("keys/prompt", "chained keys of whole prompts", prompt_rows);

}  // namespace
}  // namespace quire::bench
