// The NF4 encoder against its definition, for every fp32 value there is: the bucket method and the
// comparison with fifteen midpoints give the same code, on every target. Under sanitizers and in
// unoptimised builds a part of the values, evenly spread, is tried instead, and the test says so.
#define BOOST_TEST_MODULE codec_exhaustive
#include <boost/test/unit_test.hpp>

#include "tests/support/kernel_fixture.h"

using namespace quire;
using namespace quire::kernels;
using namespace quire::test;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
constexpr uint64_t kEvery = 509;  // one chunk in so many
#else
constexpr uint64_t kEvery = 1;
#endif
constexpr uint64_t kChunk = 4096;
constexpr uint64_t kChunks = (uint64_t{1} << 32) / kChunk;

uint32_t by_definition(const Codebook &book, float z) {
  return code_by_midpoints(book, z != z ? 0.0f : z);
}

// Neighbouring bit patterns are neighbouring values of one sign, and the code is monotone in the
// value, so that equal codes at both ends of a chunk are the codes of all of it; NaNs lie in chunks
// of their own.
uint64_t mismatches(const Codebook &book, const RowKernels &rk, uint64_t chunk,
                    std::vector<float> *z, std::vector<uint8_t> *codes) {
  const auto first = static_cast<uint32_t>(chunk * kChunk);
  for (uint32_t i = 0; i < kChunk; ++i) (*z)[i] = bits_float(first + i);
  rk.codes(book, z->data(), kChunk, codes->data());
  const uint32_t begin = by_definition(book, z->front()), end = by_definition(book, z->back());
  const bool has_nan = (first & 0x7fffffffu) + kChunk > 0x7f800000u;
  uint64_t wrong = 0;
  if (begin == end && !has_nan) {
    for (uint32_t i = 0; i < kChunk; ++i) wrong += (*codes)[i] != begin;
  } else {
    for (uint32_t i = 0; i < kChunk; ++i) wrong += (*codes)[i] != by_definition(book, (*z)[i]);
  }
  return wrong;
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_float_gets_the_code_of_its_definition) {
  Codebook book = {};
  BOOST_REQUIRE(make_codebook(kNf4Values, &book));
  BOOST_REQUIRE(book.bucketed != 0);
  std::vector<float> z(kChunk);
  std::vector<uint8_t> codes(kChunk);
  if (kEvery != 1)
    std::printf("a part only: one chunk of %d values in %d\n", int{kChunk}, int{kEvery});
  for (const std::string &name : targets()) {
    // The scalar target is the definition; its other method is compared below.
    if (name == "scalar") continue;
    const TargetScope scope(name);
    const RowKernels &rk = row_kernels();
    uint64_t wrong = 0, tried = 0;
    for (uint64_t chunk = 0; chunk < kChunks; chunk += kEvery, ++tried) {
      wrong += mismatches(book, rk, chunk, &z, &codes);
    }
    BOOST_TEST(wrong == 0u, name << ": " << wrong << " of " << tried * kChunk);
  }
}

BOOST_AUTO_TEST_CASE(the_bucket_method_agrees_around_every_midpoint_and_bucket_border) {
  Codebook book = {};
  BOOST_REQUIRE(make_codebook(kNf4Values, &book));
  std::vector<float> centres(book.midpoints, book.midpoints + 15);
  for (int b = -16; b <= 16; ++b) centres.push_back((static_cast<float>(b) + 0.5f) / 15.0f);
  for (const float extra : {0.0f, 1.0f, -1.0f, 1.06f, -1.06f, 3e38f, -3e38f})
    centres.push_back(extra);
  for (const float centre : centres) {
    float z = centre;
    for (int i = 0; i < 2000; ++i) z = std::nextafter(z, -INFINITY);
    for (int i = 0; i < 4000; ++i, z = std::nextafter(z, INFINITY)) {
      BOOST_REQUIRE_EQUAL(code_by_bucket(book, z), code_by_midpoints(book, z));
    }
  }
}

BOOST_AUTO_TEST_CASE(midpoints_lie_within_one_step_of_the_exact_ones) {
  Codebook book = {};
  BOOST_REQUIRE(make_codebook(kNf4Values, &book));
  for (int i = 0; i < 15; ++i) {
    const double exact =
        0.5 * (static_cast<double>(kNf4Values[i]) + static_cast<double>(kNf4Values[i + 1]));
    BOOST_TEST(static_cast<double>(std::nextafter(book.midpoints[i], -1.0f)) < exact);
    BOOST_TEST(static_cast<double>(std::nextafter(book.midpoints[i], 1.0f)) > exact);
  }
}

BOOST_AUTO_TEST_CASE(values_are_fixed_points_and_ties_go_down) {
  Codebook book = {};
  BOOST_REQUIRE(make_codebook(kNf4Values, &book));
  for (uint32_t i = 0; i < 16; ++i) {
    BOOST_TEST(code_by_midpoints(book, book.values[i]) == i);
    if (i < 15) BOOST_TEST(code_by_midpoints(book, book.midpoints[i]) == i);
  }
  BOOST_TEST(book.zero_code == 7u);
}

BOOST_AUTO_TEST_CASE(bad_codebooks_are_refused) {
  Codebook book = {};
  float table[16];
  const auto reset = [&] { std::copy(kNf4Values, kNf4Values + 16, table); };
  reset();
  table[3] = table[4];
  BOOST_TEST(!make_codebook(table, &book));
  reset();
  table[15] = 1.5f;
  BOOST_TEST(!make_codebook(table, &book));
  reset();
  table[0] = std::nanf("");
  BOOST_TEST(!make_codebook(table, &book));
  for (int i = 0; i < 16; ++i) table[i] = -1.0f + 0.05f * static_cast<float>(i);
  BOOST_TEST(!make_codebook(table, &book));  // all negative: nothing to decode zeros to
}
