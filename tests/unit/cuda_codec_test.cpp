// The CUDA kernels of the codec give the scalar target's bytes: whole pages, for every format,
// geometry and kind of slot, run on the CPU by tests/support/cuda_emulator.h. The same comparisons
// run on a GPU in tests/gpu/codec_test.cpp.
#define BOOST_TEST_MODULE cuda_codec
#define BOOST_TEST_NO_MAIN
#include "tests/support/cuda_emulator.h"
// The emulator comes before the kernels, which come as source.
#include "kernels/cuda/codec_append.cu"
#include "kernels/cuda/codec_gather.cu"
#include "kernels/cuda/codec_pages.cu"
#include "kernels/cuda/codec_seal.cu"
#include "kernels/cuda/cuda_codec.cpp"
// What they are held against.
#include <boost/test/unit_test.hpp>

#include "tests/support/cuda_codec_cases.h"

using namespace quire;
using namespace quire::kernels;
using namespace quire::test;

namespace {

// The emulator's memory is the host's.
struct Emulated : Backend {
  void *allocate(size_t bytes) override {
    blocks.emplace_back(new (std::align_val_t{256}) uint8_t[bytes]);
    return blocks.back().get();
  }
  void up(void *to, const void *from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void down(void *to, const void *from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void check(const char *what) override { (void)what; }

  struct Free {
    void operator()(uint8_t *p) const { ::operator delete[](p, std::align_val_t{256}); }
  };
  std::vector<std::unique_ptr<uint8_t[], Free>> blocks;
};

}  // namespace

BOOST_AUTO_TEST_CASE(pages_equal_the_scalar_targets_for_every_format_and_geometry) {
  auto random = make_random(101);
  for (const Case &c : small_cases()) {
    Emulated device;
    BOOST_TEST_CONTEXT(name_of(c)) {
      run_case(device, c, random);
    }
  }
}

BOOST_AUTO_TEST_CASE(checksums_copies_and_zeroing_equal_the_hosts) {
  auto random = make_random(102);
  Emulated device;
  run_pages(device, QUIRE_FORMAT_NF4, true, random);
  run_pages(device, QUIRE_FORMAT_F32, false, random);
}

BOOST_AUTO_TEST_CASE(the_pair_table_gives_every_code_and_its_mirror_image) {
  Codebook book;
  BOOST_REQUIRE(make_codebook(kNf4Values, &book));
  cuda::PairTable table;
  BOOST_REQUIRE(cuda::make_pair_table(book, &table));
  const auto check = [&](float z) {
    // The kernel's index comes from a product that is rounded once less: one step each way.
    for (const float factor : {0x1.fffffcp-1f, 1.0f, 0x1.000002p0f}) {
      const uint32_t at = float_bits(std::fma(z, cuda::kPairBuckets * factor, cuda::kPairOffset));
      const uint32_t entry = at - cuda::kPairBits;
      const uint32_t k = table.base[entry] + (z > table.threshold[entry] ? 1u : 0u);
      BOOST_REQUIRE_EQUAL(k / 2, code_by_midpoints(book, z));
      BOOST_REQUIRE_EQUAL((30 - k) / 2, code_by_midpoints(book, -z));
    }
  };
  for (uint32_t i = 0; i < 15; ++i) {
    for (const float m : {book.midpoints[i], -book.midpoints[i]}) {
      check(m);
      check(std::nextafter(m, 2.0f));
      check(std::nextafter(m, -2.0f));
    }
  }
  // A sample of the floats within reach; the walk over all of them runs on a GPU.
  for (uint32_t b = 0; b < float_bits(cuda::kPairReach); b += 4093) {
    check(bits_float(b));
    check(-bits_float(b));
  }
}

BOOST_AUTO_TEST_CASE(codebooks_that_do_not_pair_are_refused_by_the_table_and_still_encoded_right) {
  float values[16];
  for (uint32_t i = 0; i < 16; ++i) values[i] = -1.0f + 2.0f * static_cast<float>(i) / 15.5f;
  Codebook book;
  cuda::PairTable table;
  BOOST_REQUIRE(make_codebook(values, &book));
  BOOST_TEST(!cuda::make_pair_table(book, &table));
  auto random = make_random(103);
  Case c;
  c.format = QUIRE_FORMAT_NF4;
  c.codebook = values;
  Emulated device;
  run_case(device, c, random);
}

int main(int argc, char **argv) {
#if defined(__SANITIZE_THREAD__)
  std::printf("SKIPPED: ThreadSanitizer does not follow fibers\n");
  return 77;
#endif
  return boost::unit_test::unit_test_main([] { return true; }, argc, argv);
}
