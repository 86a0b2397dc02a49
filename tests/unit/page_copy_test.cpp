// Copies of many pages and their checksums: equal on every CPU target, and through PageKernels as
// tasks of a stream. The same on a GPU: tests/gpu/codec_test.cpp.
#define BOOST_TEST_MODULE page_copy
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstring>

#include "kernels/page_checksum.h"
#include "runtime/cpu_device.h"
#include "runtime/cpu_kernels.h"
#include "runtime/cpu_stream.h"
#include "tests/support/kernel_fixture.h"

using namespace quire;
using namespace quire::kernels;
using namespace quire::test;

namespace {

std::vector<uint8_t> random_bytes(size_t n, std::mt19937_64 &random) {
  std::vector<uint8_t> bytes(n);
  for (uint8_t &b : bytes) b = static_cast<uint8_t>(random());
  return bytes;
}

uint64_t checksum_by_words(const uint8_t *page, uint64_t bytes) {
  uint64_t sum = 0;
  for (uint64_t at = QUIRE_PAGE_HEADER_BYTES; at < bytes; at += 8) {
    uint64_t word;
    std::memcpy(&word, page + at, 8);
    sum += checksum_word(word, (at - QUIRE_PAGE_HEADER_BYTES) / 8);
  }
  return checksum_end(sum);
}

}  // namespace

BOOST_AUTO_TEST_CASE(sums_of_words_agree_on_every_target) {
  auto random = make_random(301);
  const char *names[8];
  const size_t targets = usable_targets(names, 8);
  for (size_t n = 0; n < 300; n = n < 70 ? n + 1 : n + 37) {
    const std::vector<uint8_t> bytes = random_bytes(n * 8 + 3, random);
    const uint64_t first = random();
    const uint64_t wanted = scalar_row_kernels().sum_words(bytes.data() + 3, n, first);
    for (size_t t = 0; t < targets; ++t) {
      const TargetScope scope(names[t]);
      BOOST_TEST(row_kernels().sum_words(bytes.data() + 3, n, first) == wanted,
                 names[t] << " " << n);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_checksum_tells_every_flipped_bit_and_words_that_changed_places) {
  auto random = make_random(302);
  const uint64_t size = QUIRE_PAGE_HEADER_BYTES + 1024;
  std::vector<uint8_t> page = random_bytes(size, random);
  const uint64_t whole = page_checksum(page.data(), size);
  BOOST_TEST(whole == checksum_by_words(page.data(), size));
  for (uint64_t bit = 0; bit < size * 8; ++bit) {
    page[bit / 8] = static_cast<uint8_t>(page[bit / 8] ^ 1u << bit % 8);
    const bool same = page_checksum(page.data(), size) == whole;
    BOOST_REQUIRE_EQUAL(same, bit < QUIRE_PAGE_HEADER_BYTES * 8);
    page[bit / 8] = static_cast<uint8_t>(page[bit / 8] ^ 1u << bit % 8);
  }
  uint8_t *words = page.data() + QUIRE_PAGE_HEADER_BYTES;
  for (size_t i = 1; i < 128; ++i) {
    std::swap_ranges(words, words + 8, words + i * 8);
    BOOST_REQUIRE(page_checksum(page.data(), size) != whole);
    std::swap_ranges(words, words + 8, words + i * 8);
  }
}

BOOST_AUTO_TEST_CASE(pages_are_copied_and_summed_in_batches_with_a_stream_and_without) {
  auto random = make_random(303);
  const uint32_t pages = 40;  // more than a task carries
  Geometry geometry;
  geometry.layers = 2;
  PageSet set(geometry, QUIRE_FORMAT_NF4, pages);
  CpuDevice device;
  CpuKernels kernels(*set.codec, device);
  for (const bool open : {false, true}) {
    const uint64_t bytes = open ? set.codec->open.page_bytes : set.codec->sealed.page_bytes;
    std::vector<uint8_t> from = random_bytes(bytes * pages, random);
    std::vector<uint32_t> to_frames = set.indices(), from_frames = set.indices();
    std::shuffle(to_frames.begin(), to_frames.end(), random);
    std::shuffle(from_frames.begin(), from_frames.end(), random);
    for (const bool streamed : {false, true}) {
      const uint64_t stride = bytes + 64;  // frames of the other memory lie further apart
      std::vector<uint8_t> to(stride * pages, 0xEE), wanted = to;
      std::vector<uint64_t> sums(pages, 5);
      CopyArgs args;
      args.open = open;
      args.to = {to.data(), stride};
      args.from = {from.data(), bytes};
      args.to_frames = to_frames.data();
      args.from_frames = from_frames.data();
      args.pages = pages;
      args.sums = sums.data();
      Stream stream = nullptr;
      if (streamed) BOOST_REQUIRE(CpuStream::create(0, &stream) == Status::kOk);
      BOOST_REQUIRE(kernels.copy_pages(args, stream) == Status::kOk);
      if (streamed) {
        BOOST_REQUIRE(device.wait_stream(stream) == Status::kOk);
        BOOST_REQUIRE(CpuStream::destroy(stream) == Status::kOk);
      }
      for (uint32_t i = 0; i < pages; ++i) {
        const uint8_t *page = from.data() + from_frames[i] * bytes;
        std::memcpy(wanted.data() + to_frames[i] * stride, page, bytes);
        BOOST_REQUIRE_EQUAL(sums[i], checksum_by_words(page, bytes));
      }
      BOOST_REQUIRE(to == wanted);
    }
  }
}
