// Layouts of any geometry: refused, or sound in every place that is derived from them; and headers
// of other layouts, or damaged ones, do not match.
#define BOOST_TEST_MODULE fuzz_page_layout
#include <boost/test/unit_test.hpp>

#include <limits>
#include <memory>

#include "quire/page_format.h"
#include "tests/support/fuzz.h"

using namespace quire::test;

namespace {

uint32_t near(Bytes &random, uint32_t most) {
  return random.chance(32) ? random.number32() : random.below(most / 8 + 2) * 8;
}

quire_geometry geometry_of(Bytes &random) {
  quire_geometry g = {};
  g.layers = random.chance(32) ? random.number32() : 1 + random.below(80);
  g.kv_heads = random.chance(32) ? random.number32() : 1 + random.below(64);
  g.head_dim_k = near(random, 1024);
  g.head_dim_v = random.chance(64) ? 0 : near(random, 1024);
  g.page_tokens = near(random, 1024);
  if (random.chance(128)) {
    quire_rope_init(&g.rope, near(random, 256), random.chance(32) ? 0.001 : 10000.0,
                    static_cast<int>(random.below(2)));
  }
  if (random.chance(16)) {
    const float odd[] = {std::numeric_limits<float>::quiet_NaN(),
                         std::numeric_limits<float>::infinity(), -1.0f, 1e30f};
    g.rope.inv_freq[random.below(QUIRE_ROPE_MAX_PAIRS)] = odd[random.below(4)];
  }
  return g;
}

// Every row, scale and statistic of a few heads lies in its page, and in front of the next one's.
void walk(const quire_page_layout &l, const std::string &round, Bytes &random) {
  BOOST_REQUIRE_MESSAGE(quire_page_layout_valid(&l), round);
  uint64_t last = QUIRE_PAGE_HEADER_BYTES;
  for (int i = 0; i < 4; ++i) {
    const uint32_t layer = i == 0 ? 0 : l.layers - 1 - random.below(std::min(l.layers, 3u));
    const uint32_t head = i == 0 ? 0 : l.kv_heads - 1 - random.below(std::min(l.kv_heads, 3u));
    const uint64_t at = quire_head_offset(&l, layer, head);
    BOOST_REQUIRE_MESSAGE(at >= last || i > 1, round);
    BOOST_REQUIRE_MESSAGE(at % 16 == 0 && at + l.head_stride <= l.page_bytes, round);
    for (const quire_part_layout *part : {&l.k, &l.v}) {
      if (part->row_bytes == 0) continue;
      const uint32_t token = l.page_tokens - 1;
      BOOST_REQUIRE_MESSAGE(quire_row_offset(part, token) + part->row_bytes <= l.head_stride,
                            round);
      if (part->scale_bytes != 0) {
        BOOST_REQUIRE_MESSAGE(
            quire_scale_offset(part, token, part->blocks - 1) + part->scale_bytes <= l.head_stride,
            round);
      }
    }
  }
  const uint64_t end = quire_head_offset(&l, l.layers - 1, l.kv_heads - 1) + l.head_stride;
  BOOST_REQUIRE_MESSAGE(end <= l.page_bytes, round);
}

}  // namespace

BOOST_AUTO_TEST_CASE(any_geometry_is_refused_or_laid_out_soundly) {
  Fuzz fuzz("page layout", 60000);
  uint64_t laid_out = 0;
  while (fuzz.next()) {
    Bytes random(fuzz.seed());
    const quire_geometry g = geometry_of(random);
    const uint32_t format = random.chance(16) ? random.number32() : random.below(10);
    quire_page_layout l;
    if (quire_page_layout_init(&l, &g, format, static_cast<int>(random.below(2))) !=
        QUIRE_LAYOUT_OK) {
      continue;
    }
    ++laid_out;
    walk(l, fuzz.text(), random);
    quire_page_header header;
    quire_page_header_init(&header, &l);
    BOOST_REQUIRE_MESSAGE(quire_page_header_matches(&header, &l), fuzz.text());
    // One bit of what tells layouts apart.
    quire_page_header other = header;
    switch (random.below(5)) {
      case 0:
        other.magic ^= 1u << random.below(32);
        break;
      case 1:
        other.version = static_cast<uint16_t>(other.version ^ 1u << random.below(16));
        break;
      case 2:
        other.fingerprint ^= uint64_t{1} << random.below(64);
        break;
      case 3:
        other.format = static_cast<uint8_t>(other.format ^ 1u << random.below(8));
        break;
      default:
        other.open = static_cast<uint8_t>(other.open ^ 1u);
    }
    BOOST_REQUIRE_MESSAGE(!quire_page_header_matches(&other, &l), fuzz.text());
    // And a page of another geometry.
    quire_geometry g2 = g;
    g2.layers = g.layers % 4096 + 1;
    quire_page_layout l2;
    if (g2.layers != g.layers && quire_page_layout_init(&l2, &g2, format, 0) == QUIRE_LAYOUT_OK) {
      BOOST_REQUIRE_MESSAGE(!quire_page_header_matches(&header, &l2), fuzz.text());
    }
  }
  if (std::getenv("QUIRE_TEST_SEED") == nullptr) BOOST_TEST(laid_out > 0u);
  std::printf("%llu laid out\n", static_cast<unsigned long long>(laid_out));
}
