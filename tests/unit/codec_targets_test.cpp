// Every SIMD target gives the scalar target's bits: conversions, rotation, turns, encoding,
// decoding, for all formats, head dims and page sizes, on random and on adversarial rows.
#define BOOST_TEST_MODULE codec_targets
#include <boost/test/unit_test.hpp>
#include <limits>

#include "tests/support/kernel_fixture.h"

using namespace quire;
using namespace quire::kernels;
using namespace quire::test;

namespace {

const std::vector<uint32_t> kDims = {8, 16, 24, 32, 40, 64, 72, 80, 96, 128, 192, 256, 512};

const RowKernels &table(const std::string &name) {
  BOOST_REQUIRE(select_target(name.c_str()));
  const RowKernels &rk = row_kernels();
  select_target(nullptr);
  return rk;
}

// Bit patterns of every kind, among them NaNs, infinities, subnormals and the largest values.
std::vector<float> any_bits(size_t n, std::mt19937_64 &random) {
  std::vector<float> x(n);
  for (float &value : x) value = bits_float(static_cast<uint32_t>(random()));
  return x;
}

// Rows for the encoder: one kind a row.
std::vector<float> hard_rows(size_t rows, uint32_t dim, std::mt19937_64 &random) {
  std::vector<float> x = normal_values(rows * dim, random);
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (size_t r = 0; r < rows; ++r) {
    float *row = x.data() + r * dim;
    const uint32_t at = static_cast<uint32_t>(random() % dim);
    switch (r % 16) {
      case 1:
        std::fill(row, row + dim, 0.0f);
        break;
      case 2:
        std::fill(row, row + dim, -0.0f);
        break;
      case 3:
        row[at] = nan;
        break;
      case 4:
        row[at] = inf;
        row[dim - 1 - at] = -inf;
        break;
      case 5:
        std::fill(row, row + dim, nan);
        break;
      case 6:
        std::fill(row, row + dim, -inf);
        break;
      case 7:
        for (uint32_t i = 0; i < dim; ++i) row[i] *= 1e-42f;
        break;
      case 8:
        for (uint32_t i = 0; i < dim; ++i) row[i] *= 1e37f;
        break;
      case 9:
        row[at] = std::numeric_limits<float>::max();
        break;
      case 10:
        for (uint32_t i = 0; i < dim; ++i) row[i] = i % 2 == 0 ? 1.0f : -1.0f;
        break;
      case 11:
        for (uint32_t i = 0; i < dim; ++i) row[i] *= 1e-6f;
        break;
      case 12:
        row[at] = 1e4f;
        break;
      case 13:
        for (uint32_t i = 0; i < dim; ++i)
          row[i] = i == at ? std::numeric_limits<float>::denorm_min() : 0;
        break;
      case 14:
        for (uint32_t i = 0; i < dim; ++i) row[i] = kNf4Values[random() % 16] * 3.0f;
        break;
      case 15:
        for (uint32_t i = 0; i < dim; ++i) row[i] = bits_float(static_cast<uint32_t>(random()));
        break;
      default:
        break;
    }
  }
  return x;
}

template <class T>
void require_same_bits(const std::vector<T> &a, const std::vector<T> &b, const std::string &what) {
  BOOST_REQUIRE_EQUAL(a.size(), b.size());
  if (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0) return;
  size_t i = 0;
  while (std::memcmp(&a[i], &b[i], sizeof(T)) == 0) ++i;
  BOOST_FAIL(what << ": differs first at " << i);
}

}  // namespace

BOOST_AUTO_TEST_CASE(targets_can_be_forced_by_name) {
  const std::vector<std::string> all = targets();
  BOOST_TEST(all.front() == "scalar");
  for (const std::string &name : all) {
    BOOST_TEST(select_target(name.c_str()));
    BOOST_TEST(name == active_target());
  }
  BOOST_TEST(!select_target("vax"));
  BOOST_TEST(all.back() == active_target());  // a refused name changes nothing
  BOOST_TEST(select_target("best"));
}

BOOST_AUTO_TEST_CASE(conversions_agree_on_every_half_and_on_random_floats) {
  auto random = make_random(1);
  std::vector<uint16_t> words(65536);
  for (size_t i = 0; i < words.size(); ++i) words[i] = static_cast<uint16_t>(i);
  const std::vector<float> floats = any_bits(100003, random);
  const RowKernels &scalar = scalar_row_kernels();
  for (const std::string &name : targets()) {
    const RowKernels &rk = table(name);
    for (const DType type : {DType::kF16, DType::kBF16}) {
      std::vector<float> a(words.size()), b(words.size());
      scalar.widen(type, words.data(), a.data(), words.size());
      rk.widen(type, words.data(), b.data(), words.size());
      require_same_bits(a, b, name + " widen");
      std::vector<uint16_t> x(floats.size()), y(floats.size());
      scalar.narrow(type, floats.data(), x.data(), floats.size());
      rk.narrow(type, floats.data(), y.data(), floats.size());
      require_same_bits(x, y, name + " narrow");
    }
  }
}

BOOST_AUTO_TEST_CASE(halves_and_bfloats_survive_a_round_trip) {
  std::vector<uint16_t> words(65536), back(65536);
  std::vector<float> wide(65536);
  for (size_t i = 0; i < words.size(); ++i) words[i] = static_cast<uint16_t>(i);
  for (const DType type : {DType::kF16, DType::kBF16}) {
    const uint32_t exponent = type == DType::kF16 ? 0x7c00u : 0x7f80u;
    scalar_row_kernels().widen(type, words.data(), wide.data(), words.size());
    scalar_row_kernels().narrow(type, wide.data(), back.data(), words.size());
    for (size_t i = 0; i < words.size(); ++i) {
      if ((words[i] & exponent) == exponent && wide[i] != wide[i]) continue;  // NaNs become quiet
      BOOST_REQUIRE_EQUAL(words[i], back[i]);
    }
  }
}

BOOST_AUTO_TEST_CASE(arithmetic_on_rows_agrees) {
  auto random = make_random(2);
  const RowKernels &scalar = scalar_row_kernels();
  for (const std::string &name : targets()) {
    const RowKernels &rk = table(name);
    for (const size_t n : std::vector<size_t>{0, 1, 7, 8, 15, 16, 24, 31, 40, 64, 200, 1000}) {
      const std::vector<float> x = any_bits(n, random), y = normal_values(n, random);
      BOOST_REQUIRE_EQUAL(scalar.count_nonfinite(x.data(), n), rk.count_nonfinite(x.data(), n));
      BOOST_REQUIRE_EQUAL(float_bits(scalar.absmax(x.data(), n)),
                          float_bits(rk.absmax(x.data(), n)));
      std::vector<float> finite = normal_values(n, random), other = finite;
      scalar.subtract(finite.data(), y.data(), n);
      rk.subtract(other.data(), y.data(), n);
      require_same_bits(finite, other, name + " subtract");
      scalar.add(finite.data(), y.data(), n);
      rk.add(other.data(), y.data(), n);
      require_same_bits(finite, other, name + " add");
    }
  }
}

BOOST_AUTO_TEST_CASE(rotations_and_turns_agree) {
  auto random = make_random(3);
  const RowKernels &scalar = scalar_row_kernels();
  for (const std::string &name : targets()) {
    const RowKernels &rk = table(name);
    for (uint32_t size = 8; size <= 1024; size *= 2) {
      for (const size_t runs : std::vector<size_t>{1, 2, 3, 5}) {
        std::vector<float> a = normal_values(size * runs, random, 1e3f), b = a;
        scalar.rotate(a.data(), a.size(), size, 3);
        rk.rotate(b.data(), b.size(), size, 3);
        require_same_bits(a, b, name + " rotate " + std::to_string(size));
      }
    }
    for (uint32_t pairs : {0u, 1u, 4u, 12u, 20u, 32u, 64u, 128u}) {
      const std::vector<float> x = normal_values(2 * pairs, random),
                               c = normal_values(pairs, random), s = normal_values(pairs, random);
      std::vector<float> a(2 * pairs), b(2 * pairs);
      for (const bool back : {false, true}) {
        scalar.turn(x.data(), c.data(), s.data(), pairs, back, a.data());
        rk.turn(x.data(), c.data(), s.data(), pairs, back, b.data());
        require_same_bits(a, b, name + " turn");
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(encoding_and_decoding_agree_on_hard_rows) {
  auto random = make_random(4);
  const float steps[16] = {-1.0f, -.8f, -.65f, -.51f, -.385f, -.27f, -.17f, -.077f,
                           .008f, .09f, .19f,  .3f,   .42f,   .54f,  .7f,   .88f};  // no entry at 0
  const float tight[16] = {
      -1.0f, -.5f,  -.01f, -.005f, 0.0f, .005f, .01f, .015f,
      .02f,  .025f, .03f,  .1f,    .3f,  .5f,   .7f,  1.0f};  // buckets would hold several
  Codebook books[3];
  BOOST_REQUIRE(make_codebook(kNf4Values, &books[0]) && make_codebook(steps, &books[1]) &&
                make_codebook(tight, &books[2]));
  BOOST_TEST((books[0].bucketed && books[1].bucketed && !books[2].bucketed));
  const RowKernels &scalar = scalar_row_kernels();
  constexpr size_t kRows = 48;
  for (const uint32_t format : all_formats()) {
    for (const uint32_t dim : kDims) {
      Geometry g;
      g.dim_k = g.dim_v = dim;
      const quire_geometry c = to_c(g);
      quire_page_layout layout;
      BOOST_REQUIRE_EQUAL(quire_page_layout_init(&layout, &c, format, 0), 0);
      if (layout.k.code_bits >= 16) continue;
      const std::vector<float> rows = hard_rows(kRows, dim, random);
      for (const quire_part_layout *part : {&layout.k, &layout.v}) {
        for (const Codebook &book : books) {
          for (const uint32_t exponent : {28u, 120u, 128u, 136u, 248u}) {
            for (const bool search : {false, true}) {
              std::vector<uint8_t> codes(kRows * part->row_bytes),
                  scales(kRows * part->blocks * part->scale_bytes);
              std::vector<uint16_t> halves(kRows * dim);
              scalar.encode(*part, book, rows.data(), kRows, exponent, search, codes.data(),
                            scales.data());
              scalar.decode(*part, book, codes.data(), scales.data(), kRows, exponent,
                            halves.data());
              for (const std::string &name : targets()) {
                const RowKernels &rk = table(name);
                std::vector<uint8_t> codes2(codes.size(), 0x77), scales2(scales.size(), 0x77);
                std::vector<uint16_t> halves2(halves.size());
                rk.encode(*part, book, rows.data(), kRows, exponent, search, codes2.data(),
                          scales2.data());
                const std::string what =
                    name + " " + quire_format_name(format) + " dim " + std::to_string(dim);
                require_same_bits(scales, scales2, what + " scales");
                require_same_bits(codes, codes2, what + " codes");
                rk.decode(*part, book, codes.data(), scales.data(), kRows, exponent,
                          halves2.data());
                require_same_bits(halves, halves2, what + " halves");
              }
            }
          }
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(every_scale_byte_and_code_decodes_alike) {
  Codebook book;
  BOOST_REQUIRE(make_codebook(kNf4Values, &book));
  for (const uint32_t format : {0u, 1u, 2u, 3u}) {
    Geometry g;
    g.dim_k = g.dim_v = 128;
    const quire_geometry c = to_c(g);
    quire_page_layout layout;
    BOOST_REQUIRE_EQUAL(quire_page_layout_init(&layout, &c, format, 0), 0);
    for (const quire_part_layout *part : {&layout.k, &layout.v}) {
      const size_t rows = part->scale_bytes == 2 ? 65536 / part->blocks : 256;
      std::vector<uint8_t> codes(rows * part->row_bytes),
          scales(rows * part->blocks * part->scale_bytes);
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 7 + i / 256);
      for (size_t i = 0; i < rows * part->blocks; ++i) {
        if (part->scale_bytes == 2) {
          const auto half = static_cast<uint16_t>(i);
          if ((half & 0x7c00) == 0x7c00) continue;  // never stored
          std::memcpy(&scales[2 * i], &half, 2);
        } else {
          scales[i] = static_cast<uint8_t>(i);
          if ((i & 127) == 127) scales[i] = 0;  // NaN, never stored
        }
      }
      for (const uint32_t exponent : {28u, 100u, 110u, 128u, 140u, 248u}) {
        std::vector<uint16_t> a(rows * part->dim), b(rows * part->dim);
        scalar_row_kernels().decode(*part, book, codes.data(), scales.data(), rows, exponent,
                                    a.data());
        for (const std::string &name : targets()) {
          table(name).decode(*part, book, codes.data(), scales.data(), rows, exponent, b.data());
          require_same_bits(a, b, name + " " + quire_format_name(format));
        }
      }
    }
  }
}

// Pages as wholes: append, seal and gather leave the same bytes on every target.
BOOST_AUTO_TEST_CASE(promise_9_scalar_and_simd_codecs_agree_bit_for_bit_on_pages) {
  auto random = make_random(5);
  for (const uint32_t format : all_formats()) {
    for (const uint32_t dim : {8u, 80u, 128u, 256u}) {
      for (const uint32_t page_tokens : {8u, 16u, 64u, 128u}) {
        Geometry g;
        g.dim_k = dim;
        g.dim_v = dim == 80 ? 64 : dim;
        g.page_tokens = page_tokens;
        g.interleaved = dim == 256;
        g.rotary = dim == 80 ? 24 : 0;
        std::vector<uint8_t> want;
        std::vector<float> want_k;
        const std::vector<float> k = hard_rows(2 * page_tokens * g.kv_heads, g.dim_k, random);
        const std::vector<float> v = hard_rows(2 * page_tokens * g.kv_heads, g.dim_v, random);
        const std::vector<float> means = normal_values(g.kv_heads * g.dim_k, random, 20);
        for (const std::string &name : targets()) {
          const TargetScope scope(name);
          PageSet set(g, format, 2);
          set_anchor(*set.codec, 0, means.data());
          set.append_all(k.data(), v.data(), 0, set.has_open);
          if (set.has_open) set.seal_all(set.indices(777));
          std::vector<float> back(set.k_size());
          set.gather_all(back.data(), nullptr, 0, false);
          if (name == "scalar") {
            want = set.sealed;
          }
          require_same_bits(want, set.sealed, name + " page " + quire_format_name(format));
          for (float &x : back) x = x != x ? 0.0f : x;  // sums of infinities: any NaN will do
          if (name == "scalar") want_k = back;
          require_same_bits(want_k, back, name + " gather " + quire_format_name(format));
        }
      }
    }
  }
}
