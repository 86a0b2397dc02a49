// nf4-64 gives the codes of bitsandbytes, one to one. Needs python3 (or QUIRE_PYTHON) with
// bitsandbytes; is skipped, visibly, where that is missing.
#define BOOST_TEST_NO_MAIN
#define BOOST_TEST_ALTERNATIVE_INIT_API
#include <boost/test/unit_test.hpp>
#include <fstream>
#include <iterator>

#include "tests/support/kernel_fixture.h"

using namespace quire;
using namespace quire::kernels;
using namespace quire::test;

namespace {

std::string python() {
  const char *name = std::getenv("QUIRE_PYTHON");
  return name != nullptr ? name : "python3";
}

bool importable() {
  return std::system(
             (python() + " -c 'import bitsandbytes.functional, torch' >/dev/null 2>&1").c_str()) ==
         0;
}

std::string folder() {
  const char *tmp = std::getenv("TMPDIR");
  std::string name = std::string(tmp != nullptr ? tmp : "/tmp") + "/quire-bnb-XXXXXX";
  return mkdtemp(name.data()) != nullptr ? name : std::string();
}

constexpr const char *kScript =
    " -c 'import sys, torch, bitsandbytes.functional as f\n"
    "d = sys.argv[1]\n"
    "x = torch.frombuffer(bytearray(open(d + \"/in\", \"rb\").read()), dtype=torch.float32)\n"
    "q, s = f.quantize_4bit(x.view(-1, 64), blocksize=64, quant_type=\"nf4\")\n"
    "open(d + \"/out\", \"wb\").write(q.flatten().numpy().tobytes())' ";

}  // namespace

BOOST_AUTO_TEST_CASE(codes_are_those_of_bitsandbytes) {
  auto random = make_random(41);
  constexpr size_t kBlocks = 4096;
  std::vector<float> x = normal_values(kBlocks * 64, random);
  for (size_t i = 0; i < 512; ++i) x[i] *= 1e-3f;
  for (size_t i = 512; i < 1024; ++i) x[i] *= 1e3f;
  for (size_t i = 1024; i < 1088; ++i) x[i] = 0;
  Geometry g;
  const PageSet set(g, QUIRE_FORMAT_NF4_64, 1);
  for (size_t i = 0; i < 64; ++i) {  // midpoints, where a tie goes down
    x[1088 + i] = i < 15 ? set.codec->book.midpoints[i] : 1.0f;
  }
  const std::string where = folder();
  BOOST_REQUIRE(!where.empty());
  std::ofstream(where + "/in", std::ios::binary)
      .write(reinterpret_cast<const char *>(x.data()), static_cast<std::streamsize>(x.size() * 4));
  BOOST_REQUIRE_EQUAL(std::system((python() + kScript + where + " >/dev/null 2>&1").c_str()), 0);
  std::ifstream file(where + "/out", std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)),
                                std::istreambuf_iterator<char>());
  const std::vector<uint8_t> want(bytes.begin(), bytes.end());
  const quire_part_layout &part = set.codec->sealed.v;  // values: natural order
  for (const std::string &name : targets()) {
    const TargetScope scope(name);
    std::vector<uint8_t> codes(kBlocks * 32), scales(kBlocks * 2);
    row_kernels().encode(part, set.codec->book, x.data(), kBlocks, 0, false, codes.data(),
                         scales.data());
    BOOST_TEST(codes == want);
  }
  std::remove((where + "/in").c_str());
  std::remove((where + "/out").c_str());
  std::remove(where.c_str());
}

int main(int argc, char **argv) {
  if (!importable()) {
    std::printf("SKIPPED: %s cannot import bitsandbytes and torch\n", python().c_str());
    return 77;
  }
  return boost::unit_test::unit_test_main([] { return true; }, argc, argv);
}
