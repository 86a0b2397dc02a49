// Keys are HighwayHash-128 of the documented message, the same everywhere, and no two inputs alias.
#define BOOST_TEST_MODULE keys
#include "runtime/keys.h"

#include <boost/test/unit_test.hpp>

#include <array>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#define HH_TARGET_NAME Portable
#include <highwayhash/highwayhash.h>

using namespace quire;

namespace {

constexpr uint64_t kSeed = 4242;

using Secret = std::array<unsigned char, Keys::kSecretBytes>;
using Pair = std::pair<uint64_t, uint64_t>;

Secret counting_secret() {
  Secret secret;
  std::iota(secret.begin(), secret.end(), static_cast<unsigned char>(0));
  return secret;
}

Pair pair_of(const quire_key &key) {
  return {key.lo, key.hi};
}

bool same(const quire_key &a, const quire_key &b) {
  return pair_of(a) == pair_of(b);
}

struct Field {
  uint32_t type;
  std::string bytes;
  bool operator<(const Field &other) const {
    return std::tie(type, bytes) < std::tie(other.type, other.bytes);
  }
};

quire_key root_of(const Keys &keys, const std::vector<Field> &fields) {
  std::vector<quire_field> raw;
  for (const Field &field : fields) {
    raw.push_back({field.type, static_cast<uint32_t>(field.bytes.size()), field.bytes.data()});
  }
  quire_key root{};
  BOOST_TEST_REQUIRE((keys.root_key(raw.data(), raw.size(), &root) == Status::kOk));
  return root;
}

struct Digest {
  uint32_t page;
  std::string bytes;
};

std::vector<quire_key> chain_of(const Keys &keys, const quire_key &parent,
                                const std::vector<uint32_t> &tokens, uint32_t page_tokens,
                                const std::vector<Digest> &digests = {}) {
  std::vector<quire_page_extra> extra;
  for (const Digest &digest : digests) {
    extra.push_back({digest.page, static_cast<uint32_t>(digest.bytes.size()), digest.bytes.data()});
  }
  std::vector<quire_key> chain(tokens.size() / page_tokens);
  size_t n = chain.size();
  BOOST_TEST_REQUIRE(
      (keys.chain_keys(parent, tokens.data(), tokens.size(), page_tokens, extra.data(),
                       extra.size(), chain.data(), &n) == Status::kOk));
  BOOST_TEST_REQUIRE(n == chain.size());
  return chain;
}

std::vector<uint32_t> random_tokens(std::mt19937_64 &random, size_t n) {
  std::vector<uint32_t> tokens(n);
  for (uint32_t &token : tokens) token = static_cast<uint32_t>(random());
  return tokens;
}

// The documented message, built byte by byte, and the package's own hash of it.
class Message {
 public:
  void word(uint64_t value) { bytes_.append(reinterpret_cast<const char *>(&value), 8); }
  void data(const void *from, size_t n) {
    bytes_.append(static_cast<const char *>(from), n);
    while (bytes_.size() % 32 != 0) bytes_.push_back('\0');
  }
  quire_key hash(const Secret &secret) const {
    highwayhash::HHKey key;
    std::memcpy(key, secret.data(), sizeof key);
    highwayhash::HHStateT<HH_TARGET> state(key);
    highwayhash::HHResult128 result;
    highwayhash::HighwayHashT(&state, bytes_.data(), bytes_.size(), &result);
    return {result[0], result[1]};
  }

 private:
  std::string bytes_;
};

}  // namespace

// These keys were handed out: a change of them is a change of format.
BOOST_AUTO_TEST_CASE(keys_of_a_fixed_secret_are_fixed) {
  const Secret secret = counting_secret();
  for (const Keys::Target target : {Keys::Target::kPortable, Keys::Target::kAvx2}) {
    const Keys keys(secret.data(), target);
    BOOST_TEST_CONTEXT(keys.target_name()) {
      BOOST_TEST((pair_of(root_of(keys, {})) == Pair{0xc074ddbd15fe78a5, 0x13000cfe9bb64a92}));
      const quire_key root =
          root_of(keys, {{QUIRE_FIELD_MODEL, "model"}, {QUIRE_FIELD_TENANT, "tenant"}});
      BOOST_TEST((pair_of(root) == Pair{0x76afb898e829135c, 0x56c597cc5f4902f7}));
      std::vector<uint32_t> tokens(48);
      std::iota(tokens.begin(), tokens.end(), 1000u);
      const auto chain = chain_of(keys, root, tokens, 16);
      BOOST_TEST((pair_of(chain[0]) == Pair{0x9699749bc1b8b410, 0xe7bee648b577ef14}));
      BOOST_TEST((pair_of(chain[2]) == Pair{0x2142ed79d3f3cec2, 0xdb5d756cfa30880a}));
      const auto with_digest = chain_of(keys, root, tokens, 16, {{1, "sixteen bytes ok"}});
      BOOST_TEST((pair_of(with_digest[2]) == Pair{0x58ddbb8d38742b2f, 0x1242eb8a882074c9}));
      const auto odd = chain_of(keys, root, tokens, 5);
      BOOST_TEST((pair_of(odd[8]) == Pair{0x91b6c43f52b08116, 0xc828d1952855e9b7}));
    }
  }
}

BOOST_AUTO_TEST_CASE(every_target_computes_the_documented_message) {
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 300; ++round) {
    BOOST_TEST_CONTEXT("seed " << kSeed << " round " << round) {
      Secret secret;
      for (unsigned char &byte : secret) byte = static_cast<unsigned char>(random());
      const auto page_tokens = static_cast<uint32_t>(1 + random() % 70);
      const size_t pages = random() % 6;
      std::vector<uint32_t> tokens =
          random_tokens(random, pages * page_tokens + random() % page_tokens);
      std::vector<Digest> digests;
      for (uint32_t page = 0; page < pages; ++page) {
        for (uint64_t n = random() % 3; n != 0 && random() % 2 == 0; --n) {
          digests.push_back({page, std::string(random() % 70, static_cast<char>(random()))});
        }
      }
      const quire_key parent{random(), random()};

      std::vector<quire_key> expected;
      quire_key previous = parent;
      for (uint32_t page = 0; page < pages; ++page) {
        Message message;
        message.data(tokens.data() + size_t{page} * page_tokens, size_t{page_tokens} * 4);
        uint64_t n = 0;
        for (const Digest &digest : digests) {
          if (digest.page != page) continue;
          ++n;
          message.word(digest.bytes.size());
          message.data("", 0);
          message.data(digest.bytes.data(), digest.bytes.size());
        }
        message.word(0x3165676170657251);
        message.word(page_tokens | n << 32);
        message.word(previous.lo);
        message.word(previous.hi);
        previous = message.hash(secret);
        expected.push_back(previous);
      }
      for (const Keys::Target target :
           {Keys::Target::kBest, Keys::Target::kPortable, Keys::Target::kAvx2}) {
        const Keys keys(secret.data(), target);
        const auto chain = chain_of(keys, parent, tokens, page_tokens, digests);
        BOOST_TEST_REQUIRE(chain.size() == expected.size());
        for (size_t i = 0; i < chain.size(); ++i) BOOST_TEST(same(chain[i], expected[i]));
      }
    }
  }
  BOOST_TEST(Keys(counting_secret().data(), Keys::Target::kPortable).target_name() ==
             std::string("portable"));
  BOOST_TEST_MESSAGE("best target here: " << Keys(counting_secret().data()).target_name());
}

BOOST_AUTO_TEST_CASE(a_chain_continues_from_any_of_its_keys) {
  std::mt19937_64 random(kSeed);
  const Keys keys(counting_secret().data());
  const quire_key root = root_of(keys, {{QUIRE_FIELD_MODEL, "m"}});
  const auto tokens = random_tokens(random, 20 * 16 + 7);
  const auto chain = chain_of(keys, root, tokens, 16);
  BOOST_TEST_REQUIRE(chain.size() == 20u);  // full pages only
  for (size_t cut = 1; cut < 20; ++cut) {
    const std::vector<uint32_t> rest(tokens.begin() + static_cast<ptrdiff_t>(cut * 16),
                                     tokens.end());
    const auto continued = chain_of(keys, chain[cut - 1], rest, 16);
    BOOST_TEST_REQUIRE(continued.size() == 20 - cut);
    BOOST_TEST(same(continued.back(), chain.back()));
  }
}

BOOST_AUTO_TEST_CASE(a_change_shows_from_its_page_on_and_not_before) {
  std::mt19937_64 random(kSeed);
  const Keys keys(counting_secret().data());
  const quire_key root = root_of(keys, {});
  for (int round = 0; round < 100; ++round) {
    BOOST_TEST_CONTEXT("seed " << kSeed << " round " << round) {
      const auto tokens = random_tokens(random, 12 * 8);
      const auto chain = chain_of(keys, root, tokens, 8);
      const size_t at = random() % tokens.size();
      auto changed = tokens;
      changed[at] ^= 1u << (random() % 32);
      const auto other = chain_of(keys, root, changed, 8);
      const auto digest =
          chain_of(keys, root, tokens, 8, {{static_cast<uint32_t>(at / 8), "digest of an image"}});
      for (size_t page = 0; page < 12; ++page) {
        BOOST_TEST(same(chain[page], other[page]) == (page < at / 8));
        BOOST_TEST(same(chain[page], digest[page]) == (page < at / 8));
      }
    }
  }
}

// Lists of fields that look alike when written one after another, all of them over two letters.
BOOST_AUTO_TEST_CASE(no_two_lists_of_fields_have_one_root) {
  std::mt19937_64 random(kSeed);
  const Keys keys(counting_secret().data());
  std::map<Pair, std::vector<Field>> seen;
  std::set<std::vector<Field>> lists;
  const auto add = [&](const std::vector<Field> &list) {
    const bool fresh = lists.insert(list).second;
    const auto [at, inserted] = seen.emplace(pair_of(root_of(keys, list)), list);
    BOOST_TEST(inserted == fresh, "seed " << kSeed << ": two lists have one root");
  };
  // Every way to cut eight bytes into fields, with one type and with another.
  for (unsigned cuts = 0; cuts < 128; ++cuts) {
    for (const uint32_t type : {0u, 1u}) {
      std::vector<Field> list{{type, ""}};
      for (unsigned i = 0; i < 8; ++i) {
        list.back().bytes.push_back("abbaabab"[i]);
        if ((cuts >> i & 1) != 0) list.push_back({type, ""});
      }
      add(list);
    }
  }
  // Zeros, which padding also consists of; empty fields; types and lengths that look like bytes.
  for (size_t n = 0; n < 100; ++n) add({{5, std::string(n, '\0')}});
  for (size_t n = 1; n < 40; ++n) add(std::vector<Field>(n, Field{0, ""}));
  for (int i = 0; i < 20000; ++i) {
    std::vector<Field> list(random() % 4);
    for (Field &field : list) {
      field.type = static_cast<uint32_t>(random() % 3);
      field.bytes.resize(random() % 5);
      for (char &byte : field.bytes) byte = static_cast<char>(random() % 3);
    }
    add(list);
  }
  // Bytes that are themselves the packets of another list.
  const std::string packets("\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0a",
                            33);
  add({{1, packets}});
  add({{1, ""}, {2, "a"}});
  add({{2, "a"}});
  add({{2, "a"}, {1, ""}});
}

BOOST_AUTO_TEST_CASE(no_two_ways_to_place_digests_have_one_key) {
  const Keys keys(counting_secret().data());
  const quire_key root = root_of(keys, {});
  const std::vector<uint32_t> zeros(64);
  std::set<Pair> seen;
  size_t added = 0;
  const auto add = [&](const std::vector<Digest> &digests, uint32_t page_tokens,
                       const std::vector<uint32_t> &tokens) {
    ++added;
    seen.insert(pair_of(chain_of(keys, root, tokens, page_tokens, digests).back()));
  };
  // A digest of zeros against tokens of zeros, lengths about the packet, cuts, order, pages.
  add({}, 64, zeros);
  for (size_t n = 0; n < 70; ++n) add({{0, std::string(n, '\0')}}, 64, zeros);
  add({{0, "a"}, {0, "b"}}, 64, zeros);
  add({{0, "b"}, {0, "a"}}, 64, zeros);
  add({{0, "ab"}}, 64, zeros);
  add({{0, ""}, {0, "ab"}}, 64, zeros);
  for (uint32_t page = 0; page < 4; ++page) add({{page, "ab"}}, 16, zeros);
  for (const uint32_t page_tokens : {1u, 2u, 8u, 16u, 32u}) add({}, page_tokens, zeros);
  // Pages of different sizes that pad to the same packets.
  for (uint32_t n = 1; n < 8; ++n) add({}, n, std::vector<uint32_t>(n));
  BOOST_TEST(seen.size() == added);
}

BOOST_AUTO_TEST_CASE(another_secret_gives_other_keys) {
  Secret a = counting_secret();
  Secret b = a;
  b[31] ^= 1;
  BOOST_TEST(!same(root_of(Keys(a.data()), {}), root_of(Keys(b.data()), {})));
  BOOST_TEST_REQUIRE((Keys::random_secret(a.data()) == Status::kOk));
  BOOST_TEST_REQUIRE((Keys::random_secret(b.data()) == Status::kOk));
  BOOST_TEST((a != b));
}

BOOST_AUTO_TEST_CASE(what_cannot_be_keyed_is_invalid) {
  const Keys keys(counting_secret().data());
  quire_key root{};
  const quire_field no_data{1, 4, nullptr};
  BOOST_TEST((keys.root_key(&no_data, 1, &root) == Status::kInvalid));
  BOOST_TEST((keys.root_key(nullptr, 1, &root) == Status::kInvalid));
  BOOST_TEST((keys.root_key(nullptr, 0, nullptr) == Status::kInvalid));

  const std::vector<uint32_t> tokens(40);
  std::vector<quire_key> out(2);
  const auto run = [&](uint32_t page_tokens, std::vector<quire_page_extra> extra, size_t room) {
    size_t n = room;
    const Status status = keys.chain_keys(root, tokens.data(), tokens.size(), page_tokens,
                                          extra.data(), extra.size(), out.data(), &n);
    return std::pair{status, n};
  };
  BOOST_TEST((run(16, {}, 2) == std::pair{Status::kOk, size_t{2}}));
  BOOST_TEST((run(41, {}, 0) == std::pair{Status::kOk, size_t{0}}));
  BOOST_TEST((run(16, {}, 1) == std::pair{Status::kInvalid, size_t{2}}));  // says what is needed
  BOOST_TEST((run(0, {}, 2).first == Status::kInvalid));
  BOOST_TEST((run(16, {{2, 1, "x"}}, 2).first == Status::kInvalid));  // page 2 is not full
  BOOST_TEST((run(16, {{1, 1, "x"}, {0, 1, "x"}}, 2).first == Status::kInvalid));
  BOOST_TEST((run(16, {{0, 1, nullptr}}, 2).first == Status::kInvalid));
  BOOST_TEST((run(16, {{0, 0, nullptr}}, 2).first == Status::kOk));
  BOOST_TEST(
      (keys.chain_keys(root, nullptr, 0, 16, nullptr, 0, nullptr, nullptr) == Status::kInvalid));
  size_t none = 0;
  BOOST_TEST((keys.chain_keys(root, nullptr, 0, 16, nullptr, 0, nullptr, &none) == Status::kOk));
}
