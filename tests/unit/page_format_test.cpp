// Layouts: the invariants of page_format.h for every format and a sweep of geometries, the exact
// cost in bytes, and the figures of the prototype that Quire replaces, told apart into codes and
// scales.
#define BOOST_TEST_MODULE page_format
#include <boost/test/unit_test.hpp>
#include <set>

#include "tests/support/kernel_fixture.h"

using namespace quire::test;

namespace {

quire_geometry large() {  // 32 layers, 8 KV heads x 128, 64 tokens a page
  Geometry g;
  g.layers = 32;
  g.kv_heads = 8;
  g.dim_k = g.dim_v = 128;
  g.page_tokens = 64;
  return to_c(g);
}

quire_page_layout layout_of(const quire_geometry &g, uint32_t format, int open = 0) {
  quire_page_layout l;
  BOOST_REQUIRE_EQUAL(quire_page_layout_init(&l, &g, format, open), QUIRE_LAYOUT_OK);
  return l;
}

}  // namespace

BOOST_AUTO_TEST_CASE(layouts_hold_their_invariants) {
  for (const uint32_t format : all_formats()) {
    for (uint32_t dim = 8; dim <= 1024; dim += dim < 128 ? 8 : 64) {
      for (const uint32_t page_tokens : {8u, 16u, 24u, 32u, 64u, 128u, 1024u}) {
        for (const int open : {0, 1}) {
          if (open != 0 && !quire_format_has_open_pages(format)) continue;
          Geometry g;
          g.layers = 3;
          g.kv_heads = 5;
          g.dim_k = dim;
          g.dim_v = dim == 72 ? 0 : (dim == 64 ? 80 : dim);
          g.page_tokens = page_tokens;
          const quire_page_layout l = layout_of(to_c(g), format, open);
          BOOST_REQUIRE(quire_page_layout_valid(&l));
          BOOST_REQUIRE_EQUAL(quire_head_offset(&l, 1, 0) % 128, 0u);
          BOOST_REQUIRE_EQUAL(quire_head_offset(&l, 2, 3) % 16, 0u);
          BOOST_REQUIRE_LE(quire_head_offset(&l, 2, 4) + l.head_stride, l.page_bytes);
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(stored_positions_are_a_permutation_and_keep_units_together) {
  for (const uint32_t format : {QUIRE_FORMAT_NF4, QUIRE_FORMAT_NF4_64, QUIRE_FORMAT_K8V4}) {
    for (const uint32_t dim : {8u, 64u, 80u, 96u, 128u, 256u}) {
      Geometry g;
      g.dim_k = dim;
      const quire_page_layout l = layout_of(to_c(g), format);
      std::set<uint32_t> seen;
      for (uint32_t d = 0; d < dim; ++d) {
        const uint32_t at = quire_code_position(&l.k, d);
        seen.insert(at);
        BOOST_REQUIRE_LT(at, dim);
        BOOST_REQUIRE_EQUAL(quire_code_channel(&l.k, at), d);
        const uint32_t in = d % l.k.block;  // unit (block b, quarter t) at t * blocks + b
        BOOST_REQUIRE_EQUAL(at / l.k.unit, in / l.k.unit * l.k.blocks + d / l.k.block);
        BOOST_REQUIRE_EQUAL(quire_code_position(&l.v, 5), 5u);
      }
      BOOST_REQUIRE_EQUAL(seen.size(), dim);
    }
  }
}

BOOST_AUTO_TEST_CASE(blocks_follow_the_head_dim) {
  const auto block = [](uint32_t dim, uint32_t format) {
    Geometry g;
    g.dim_k = g.dim_v = dim;
    return layout_of(to_c(g), format).k.block;
  };
  BOOST_TEST(block(128, QUIRE_FORMAT_NF4) == 32u);
  BOOST_TEST(block(80, QUIRE_FORMAT_NF4) == 16u);
  BOOST_TEST(block(96, QUIRE_FORMAT_NF4_64) == 32u);
  BOOST_TEST(block(8, QUIRE_FORMAT_NF4) == 8u);
  BOOST_TEST(block(256, QUIRE_FORMAT_NF4_DQ64) == 64u);
  Geometry g;
  g.dim_k = g.dim_v = 80;
  BOOST_TEST(layout_of(to_c(g), QUIRE_FORMAT_NF4).k.row_bytes == 40u);
}

// Bits a value at 8 heads x 128 and 64 tokens, everything counted (header, statistics, padding).
BOOST_AUTO_TEST_CASE(formats_cost_what_the_documentation_says) {
  const quire_geometry g = large();
  const std::pair<uint32_t, double> bits[] = {
      {QUIRE_FORMAT_NF4, 4.2581},  {QUIRE_FORMAT_NF4_DQ64, 4.1331}, {QUIRE_FORMAT_NF4_64, 4.2502},
      {QUIRE_FORMAT_K8V4, 6.2581}, {QUIRE_FORMAT_F16, 16.0002},     {QUIRE_FORMAT_BF16, 16.0002},
      {QUIRE_FORMAT_F32, 32.0002}};
  for (const auto &[format, expected] : bits) {
    const quire_page_layout l = layout_of(g, format);
    BOOST_TEST(std::abs(quire_bits_per_value(&l) - expected) < 1e-4, quire_format_name(format));
  }
}

BOOST_AUTO_TEST_CASE(an_nf4_page_is_73_percent_less_than_f16_and_86_5_less_than_f32) {
  for (const uint32_t page_tokens : {16u, 32u, 64u, 128u}) {
    quire_geometry g = large();
    g.page_tokens = page_tokens;
    const auto nf4 = static_cast<double>(layout_of(g, QUIRE_FORMAT_NF4).page_bytes);
    const auto f16 = static_cast<double>(layout_of(g, QUIRE_FORMAT_F16).page_bytes);
    const auto f32 = static_cast<double>(layout_of(g, QUIRE_FORMAT_F32).page_bytes);
    BOOST_TEST(nf4 <= (1 - 0.73) * f16, "page of " << page_tokens << ": " << 1 - nf4 / f16);
    BOOST_TEST(nf4 <= (1 - 0.865) * f32, "page of " << page_tokens << ": " << 1 - nf4 / f32);
  }
}

// "10.00 GB of fp16 cache -> 2.50 GB": that is the codes. The scales come on top: one byte per 32
// values.
BOOST_AUTO_TEST_CASE(ten_gigabytes_of_f16_become_two_and_a_half_of_codes_and_0_16_of_scales) {
  const quire_geometry g = large();
  const quire_page_layout l = layout_of(g, QUIRE_FORMAT_NF4);
  const double values = double{64} * 32 * 8 * (l.k.dim + l.v.dim);
  const double codes = 64.0 * 32 * 8 * (l.k.row_bytes + l.v.row_bytes);
  const double scales =
      64.0 * 32 * 8 * (l.k.blocks * l.k.scale_bytes + l.v.blocks * l.v.scale_bytes);
  const double pages = 10.0 / (values * 2);  // of 10 GB in fp16
  BOOST_TEST(std::abs(codes * pages - 2.50) < 1e-9);
  BOOST_TEST(std::abs(scales * pages - 0.15625) < 1e-9);
  const double rest = static_cast<double>(l.page_bytes) * pages - 2.65625;  // statistics, header
  BOOST_TEST((rest > 0 && rest < 0.006), rest);
}

// "one tensor of 16.00 MB -> 4.10 MB": 8 Mi values of f16. Codes alone are 4 MB; what scales add
// depends on the format, and 4.10 is between the codes alone and the cheapest that is offered.
BOOST_AUTO_TEST_CASE(a_tensor_of_16_mb_of_f16_becomes_4_mb_of_codes_and_its_scales) {
  quire_geometry g = large();
  g.layers = 1;
  constexpr double kMiB = 1 << 20;
  constexpr double kTokens = 4096;  // x 8 heads x (128 + 128) = 8 Mi values
  const std::pair<uint32_t, double> scales[] = {
      {QUIRE_FORMAT_NF4, 0.25}, {QUIRE_FORMAT_NF4_DQ64, 0.125}, {QUIRE_FORMAT_NF4_64, 0.25}};
  for (const auto &[format, expected] : scales) {
    const quire_page_layout l = layout_of(g, format);
    BOOST_TEST(kTokens * 8 * (l.k.dim + l.v.dim) * 2 == 16 * kMiB);
    BOOST_TEST(kTokens * 8 * (l.k.row_bytes + l.v.row_bytes) == 4 * kMiB);
    const uint32_t a_token = l.k.blocks * l.k.scale_bytes + l.v.blocks * l.v.scale_bytes;
    BOOST_TEST(kTokens * 8 * a_token == expected * kMiB);
    // Statistics (16 bytes a head) and header (128) of 64 pages, all that a page has besides.
    const double all = static_cast<double>(l.page_bytes) * kTokens / 64;
    const double rest = all - (4 + expected) * kMiB;
    BOOST_TEST(rest == 64.0 * (QUIRE_PAGE_HEADER_BYTES + (l.statistics != 0 ? 8 * 16 : 0)));
  }
}

BOOST_AUTO_TEST_CASE(names_round_trip_and_reserved_formats_say_so) {
  for (uint32_t f = 0; f < QUIRE_FORMAT_COUNT; ++f) {
    BOOST_TEST(quire_format_from_name(quire_format_name(f)) == static_cast<int>(f));
  }
  BOOST_TEST(quire_format_from_name("nf") == -1);
  BOOST_TEST(quire_format_from_name("nf44") == -1);
  BOOST_TEST(quire_format_from_name("") == -1);
  BOOST_TEST(quire_format_from_name(nullptr) == -1);
  const quire_geometry g = large();
  quire_page_layout l;
  BOOST_TEST(quire_page_layout_init(&l, &g, QUIRE_FORMAT_KC4V4, 0) == QUIRE_LAYOUT_UNSUPPORTED);
  BOOST_TEST(quire_page_layout_init(&l, &g, 99, 0) == QUIRE_LAYOUT_INVALID);
  BOOST_TEST(quire_page_layout_init(&l, &g, QUIRE_FORMAT_F16, 1) == QUIRE_LAYOUT_UNSUPPORTED);
}

BOOST_AUTO_TEST_CASE(bad_geometries_are_refused) {
  const auto refused = [](auto change) {
    quire_geometry g = large();
    change(g);
    quire_page_layout l;
    return quire_page_layout_init(&l, &g, QUIRE_FORMAT_NF4, 0) == QUIRE_LAYOUT_INVALID;
  };
  BOOST_TEST(refused([](quire_geometry &g) { g.layers = 0; }));
  BOOST_TEST(refused([](quire_geometry &g) { g.kv_heads = 0; }));
  BOOST_TEST(refused([](quire_geometry &g) { g.head_dim_k = 12; }));
  BOOST_TEST(refused([](quire_geometry &g) { g.head_dim_v = 2048; }));
  BOOST_TEST(refused([](quire_geometry &g) { g.page_tokens = 12; }));
  BOOST_TEST(refused([](quire_geometry &g) { g.page_tokens = 2048; }));
  BOOST_TEST(refused([](quire_geometry &g) { g.rope.rotary_dim = 200; }));
}

BOOST_AUTO_TEST_CASE(fingerprints_tell_geometries_apart) {
  std::set<uint64_t> seen;
  const auto add = [&](const quire_geometry &g, uint32_t format) {
    BOOST_TEST(seen.insert(quire_geometry_fingerprint(&g, format)).second);
  };
  quire_geometry g = large();
  add(g, 0);
  add(g, 1);
  g.layers = 31;
  add(g, 0);
  g = large();
  g.kv_heads = 4;
  add(g, 0);
  g = large();
  g.page_tokens = 32;
  add(g, 0);
  g = large();
  g.rope.interleaved = 1;
  add(g, 0);
  g = large();
  g.rope.inv_freq[3] *= 1.001f;
  add(g, 0);
}

BOOST_AUTO_TEST_CASE(headers_describe_their_pages) {
  const quire_geometry g = large();
  const quire_page_layout a = layout_of(g, QUIRE_FORMAT_NF4), b = layout_of(g, QUIRE_FORMAT_NF4, 1);
  quire_page_header h;
  static_assert(sizeof(quire_page_header) == QUIRE_PAGE_HEADER_BYTES);
  static_assert(sizeof(quire_head_statistics) == 16);
  quire_page_header_init(&h, &a);
  BOOST_TEST(quire_page_header_matches(&h, &a));
  BOOST_TEST(!quire_page_header_matches(&h, &b));
  h.fingerprint ^= 1;
  BOOST_TEST(!quire_page_header_matches(&h, &a));
}

BOOST_AUTO_TEST_CASE(e4m3_has_256_values_as_ocp_defines_them) {
  BOOST_TEST(quire_e4m3_value(0x00) == 0.0f);
  BOOST_TEST(quire_e4m3_value(0x01) == 0x1p-9f);
  BOOST_TEST(quire_e4m3_value(0x08) == 0x1p-6f);
  BOOST_TEST(quire_e4m3_value(0x38) == 1.0f);
  BOOST_TEST(quire_e4m3_value(0x7e) == 448.0f);
  BOOST_TEST(quire_e4m3_value(0xb8) == -1.0f);
  for (uint32_t b = 1; b < 0x7f; ++b) {
    BOOST_TEST(quire_e4m3_value(b) > quire_e4m3_value(b - 1));
    BOOST_TEST(quire::kernels::float_to_e4m3(quire_e4m3_value(b)) == b);
    BOOST_TEST(quire_e4m3_scale(b, QUIRE_EXPONENT_BIAS + 8) == quire_e4m3_value(b));
  }
}
