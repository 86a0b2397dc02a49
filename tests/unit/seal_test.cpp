// Sealing and unsealing: what a sealed page says about itself, that any split of the tasks gives
// the same bytes, that heads do not depend on each other, and what becomes of values that are not
// finite.
#define BOOST_TEST_MODULE seal
#include <boost/test/unit_test.hpp>
#include <limits>

#include "tests/support/kernel_fixture.h"

using namespace quire;
using namespace quire::kernels;
using namespace quire::test;

namespace {

quire_head_statistics statistics_of(const PageSet &set, uint32_t page, uint32_t layer,
                                    uint32_t head) {
  quire_head_statistics s;
  const quire_page_layout &l = set.codec->sealed;
  std::memcpy(&s, set.frames.sealed.frame(page) + quire_head_offset(&l, layer, head) + l.statistics,
              sizeof s);
  return s;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_sealed_page_describes_itself) {
  auto random = make_random(21);
  Geometry g;
  g.layers = 3;
  PageSet set(g, QUIRE_FORMAT_NF4, 2);
  const std::vector<float> k = normal_values(set.k_size(), random),
                           v = normal_values(set.v_size(), random, 100);
  for (uint32_t layer = 0; layer < g.layers; ++layer)
    set.append_all(k.data(), v.data(), layer, true);
  const std::vector<float> means(size_t{g.kv_heads} * g.dim_k, 1.0f);
  BOOST_REQUIRE(set_anchor(*set.codec, 1, means.data()));
  std::fill(set.sealed.begin(), set.sealed.end(), uint8_t{0xee});
  set.seal_all({7, 9});
  for (uint32_t page = 0; page < 2; ++page) {
    quire_page_header header;
    std::memcpy(&header, set.frames.sealed.frame(page), sizeof header);
    BOOST_TEST(quire_page_header_matches(&header, &set.codec->sealed));
    for (uint32_t layer = 0; layer < g.layers; ++layer) {
      for (uint32_t head = 0; head < g.kv_heads; ++head) {
        const quire_head_statistics s = statistics_of(set, page, layer, head);
        BOOST_TEST((s.flags == QUIRE_HEAD_ANCHORED) == (layer == 1));
        BOOST_TEST(s.page_index == (page == 0 ? 7u : 9u));
        BOOST_TEST(s.v_exponent > s.k_exponent);  // values are a hundred times as large
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(exponents_are_the_least_power_of_two_not_below_absmax) {
  BOOST_TEST(exponent_byte(1.0f) == 128u);
  BOOST_TEST(exponent_byte(1.0001f) == 129u);
  BOOST_TEST(exponent_byte(0.5f) == 127u);
  BOOST_TEST(exponent_byte(448.0f) == 137u);
  BOOST_TEST(exponent_byte(0.0f) == static_cast<uint32_t>(128 + QUIRE_EXPONENT_MIN));
  BOOST_TEST(exponent_byte(std::numeric_limits<float>::max()) ==
             static_cast<uint32_t>(128 + QUIRE_EXPONENT_MAX));
}

BOOST_AUTO_TEST_CASE(any_split_of_tasks_gives_the_same_bytes) {
  auto random = make_random(22);
  for (const uint32_t format : all_formats()) {
    if (!quire_format_has_open_pages(format)) continue;
    Geometry g;
    g.layers = 2;
    g.kv_heads = 3;
    g.page_tokens = 128;
    g.dim_k = 192;  // more rows than the buffer holds
    PageSet set(g, format, 3);
    const std::vector<float> k = normal_values(set.k_size(), random),
                             v = normal_values(set.v_size(), random);
    for (uint32_t layer = 0; layer < g.layers; ++layer)
      set.append_all(k.data(), v.data(), layer, true);
    set.seal_all({0, 1, 2});
    const std::vector<uint8_t> whole = set.sealed;
    const uint32_t from[3] = {2, 0, 1}, to[3] = {2, 0, 1}, index[3] = {2, 0, 1};
    SealArgs s;
    s.frames = set.frames;
    s.from = from;
    s.to = to;
    s.page_index = index;
    s.pages = 3;
    const uint64_t n = seal_tasks(*set.codec, s);
    BOOST_TEST(n == 18u);
    for (uint32_t p = 0; p < 3; ++p) zero_page(*set.codec, false, set.frames.sealed.frame(p));
    for (uint64_t i = n; i-- > 0;) seal(*set.codec, s, i, i + 1);
    // Padding between chunks is nobody's; compare what is decoded and what is described.
    std::vector<float> a(set.k_size()), b(set.k_size());
    set.gather_all(a.data(), nullptr, 1, false);
    set.sealed = whole;
    set.frames.sealed.base = set.sealed.data();
    set.gather_all(b.data(), nullptr, 1, false);
    BOOST_TEST(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
  }
}

BOOST_AUTO_TEST_CASE(a_bad_token_spoils_neither_its_neighbours_nor_its_page) {
  auto random = make_random(23);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const uint32_t format : {QUIRE_FORMAT_NF4, QUIRE_FORMAT_NF4_64, QUIRE_FORMAT_K8V4}) {
    Geometry g;
    PageSet set(g, format, 1);
    std::vector<float> k = normal_values(set.k_size(), random),
                       v = normal_values(set.v_size(), random);
    set.append_all(k.data(), v.data(), 0, true);
    BOOST_TEST(set.seal_all({0}) == 0u);
    std::vector<float> clean_k(k.size()), clean_v(v.size()), bad_k(k.size()), bad_v(v.size());
    set.gather_all(clean_k.data(), clean_v.data(), 0, false);
    const size_t row = size_t{5} * g.kv_heads * g.dim_k;  // token 5, head 0
    k[row + 3] = nan;
    k[row + 40] = kInf;
    v[row + 9] = -kInf;
    set.append_all(k.data(), v.data(), 0, true);
    BOOST_TEST(set.seal_all({0}) == 3u);  // counted once each
    set.gather_all(bad_k.data(), bad_v.data(), 0, false);
    for (size_t i = 0; i < k.size(); ++i) {
      BOOST_REQUIRE(std::isfinite(bad_k[i]) && std::isfinite(bad_v[i]));
      if (i / g.dim_k == row / g.dim_k) continue;
      BOOST_REQUIRE_EQUAL(bad_k[i], clean_k[i]);
      BOOST_REQUIRE_EQUAL(bad_v[i], clean_v[i]);
    }
    // What was finite in the bad row is still near; what was not has its sign, or is near 0.
    for (uint32_t d = 0; d < g.dim_k; ++d) {
      if (d == 3 || d == 40) continue;
      BOOST_REQUIRE_SMALL(bad_k[row + d] - clean_k[row + d], 1.0f);
    }
    BOOST_TEST(bad_k[row + 40] > 1.0f);
    BOOST_TEST(bad_v[row + 9] < -1.0f);
    BOOST_TEST(std::abs(bad_k[row + 3]) < 0.7f);
  }
}

BOOST_AUTO_TEST_CASE(zeros_stay_zeros) {
  for (const uint32_t format : all_formats()) {
    Geometry g;
    PageSet set(g, format, 1);
    const std::vector<float> zeros(set.k_size(), 0.0f);
    set.append_all(zeros.data(), zeros.data(), 0, set.has_open);
    if (set.has_open) set.seal_all({3});
    std::vector<float> k(zeros.size(), 1.0f), v(zeros.size(), 1.0f);
    set.gather_all(k.data(), v.data(), 0, false);
    for (size_t i = 0; i < k.size(); ++i) {
      BOOST_REQUIRE_EQUAL(float_bits(k[i]), 0u);  // +0
      BOOST_REQUIRE_EQUAL(float_bits(v[i]), 0u);
    }
  }
}

BOOST_AUTO_TEST_CASE(unsealed_pages_read_as_the_sealed_ones_did) {
  auto random = make_random(24);
  for (const uint32_t format : {QUIRE_FORMAT_NF4, QUIRE_FORMAT_NF4_64, QUIRE_FORMAT_K8V4}) {
    Geometry g;
    g.dim_k = 80;
    PageSet set(g, format, 2);
    const std::vector<float> means = normal_values(size_t{g.kv_heads} * g.dim_k, random, 5);
    set_anchor(*set.codec, 0, means.data());
    const std::vector<float> k = normal_values(set.k_size(), random),
                             v = normal_values(set.v_size(), random);
    set.append_all(k.data(), v.data(), 0, true);
    set.seal_all({4, 5});
    std::vector<float> sealed_k(k.size()), sealed_v(v.size()), open_k(k.size()), open_v(v.size());
    set.gather_all(sealed_k.data(), sealed_v.data(), 0, false);
    const uint32_t same[2] = {0, 1};
    SealArgs s;
    s.frames = set.frames;
    s.from = s.to = same;
    s.pages = 2;
    std::fill(set.open.begin(), set.open.end(), uint8_t{0x11});
    unseal(*set.codec, s, 0, seal_tasks(*set.codec, s));
    set.gather_all(open_k.data(), open_v.data(), 0, true);
    for (size_t i = 0; i < k.size(); ++i)
      BOOST_REQUIRE_EQUAL(open_k[i], half_to_float(float_to_half(sealed_k[i])));
    for (size_t i = 0; i < v.size(); ++i)
      BOOST_REQUIRE_EQUAL(open_v[i], half_to_float(float_to_half(sealed_v[i])));
    quire_page_header header;
    std::memcpy(&header, set.open.data(), sizeof header);
    BOOST_TEST(quire_page_header_matches(&header, &set.codec->open));
  }
}

BOOST_AUTO_TEST_CASE(a_page_that_is_partly_written_seals_the_rest_as_zeros) {
  auto random = make_random(25);
  Geometry g;
  PageSet set(g, QUIRE_FORMAT_NF4, 1);
  const std::vector<float> x = normal_values(set.k_size(), random);
  set.append_all(x.data(), x.data(), 0, true);
  const uint32_t zero = 0;
  SealArgs s;
  s.frames = set.frames;
  s.from = s.to = s.page_index = &zero;
  s.pages = 1;
  s.tokens = 5;
  seal(*set.codec, s, 0, seal_tasks(*set.codec, s));
  std::vector<float> v(x.size());
  set.gather_all(nullptr, v.data(), 0, false);
  const size_t written = size_t{5} * g.kv_heads * g.dim_v;
  BOOST_TEST(compare(x.data(), v.data(), written).relative_error < 0.01);
  for (size_t i = written; i < v.size(); ++i) BOOST_REQUIRE_EQUAL(v[i], 0.0f);
}
