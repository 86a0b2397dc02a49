// Keys and values of trained models through pages: cosine and error, against bounds that were
// measured and given a margin. Needs kv/*.npz of the shared data folder (QUIRE_SHARED_DATA);
// skipped, visibly, without.
#define BOOST_TEST_NO_MAIN
#define BOOST_TEST_ALTERNATIVE_INIT_API
#include <boost/test/unit_test.hpp>

#include "tests/support/kernel_fixture.h"
#include "tests/support/npz.h"

using namespace quire;
using namespace quire::kernels;
using namespace quire::test;

namespace {

std::string data_folder() {
  const char *name = std::getenv("QUIRE_SHARED_DATA");
  return name != nullptr ? name : std::string(QUIRE_SOURCE_DIR) + "/../shared/data";
}

struct Bound {
  const char *model;
  uint32_t format;
  double k_cosine, v_cosine;
};

}  // namespace

BOOST_AUTO_TEST_CASE(real_keys_and_values_survive_pages) {
  const Bound bounds[] = {{"bytelm64", QUIRE_FORMAT_NF4, 0.9967, 0.9967},
                          {"bytelm64", QUIRE_FORMAT_NF4_64, 0.9949, 0.9955},
                          {"bytelm64", QUIRE_FORMAT_K8V4, 0.9999, 0.9967},
                          {"stories260k", QUIRE_FORMAT_NF4, 0.9977, 0.9978},
                          {"stories260k", QUIRE_FORMAT_NF4_64, 0.9978, 0.9973},
                          {"stories260k", QUIRE_FORMAT_K8V4, 0.9999, 0.9978}};
  for (const Bound &bound : bounds) {
    const std::string path = data_folder() + "/kv/" + bound.model + ".npz";
    std::vector<float> k, v;
    std::vector<size_t> shape;
    BOOST_REQUIRE(read_npz(path, "v.npy", &v, &shape) && read_npz(path, "k.npy", &k, &shape));
    BOOST_REQUIRE_EQUAL(shape.size(), 4u);  // layers, tokens, KV heads, head dim
    Geometry g;
    g.kv_heads = static_cast<uint32_t>(shape[2]);
    g.dim_k = g.dim_v = static_cast<uint32_t>(shape[3]);
    const auto pages = static_cast<uint32_t>(shape[1] / g.page_tokens);
    const size_t layer_values = shape[1] * shape[2] * shape[3];
    std::vector<float> back_k(k.size()), back_v(v.size());
    for (size_t layer = 0; layer < shape[0]; ++layer) {
      PageSet set(g, bound.format, pages);
      const size_t at = layer * layer_values;
      set.append_all(&k[at], &v[at], 0, true);
      set.seal_all(set.indices());
      set.gather_all(&back_k[at], &back_v[at], 0, false);
    }
    const Likeness keys = compare(k.data(), back_k.data(), k.size());
    const Likeness values = compare(v.data(), back_v.data(), v.size());
    std::printf("%s %s: cosine K %.5f V %.5f, error K %.3f %% V %.3f %%\n", bound.model,
                quire_format_name(bound.format), keys.cosine, values.cosine,
                100 * keys.relative_error, 100 * values.relative_error);
    BOOST_TEST(keys.cosine >= bound.k_cosine);
    BOOST_TEST(values.cosine >= bound.v_cosine);
  }
}

int main(int argc, char **argv) {
  if (!std::ifstream(data_folder() + "/kv/bytelm64.npz")) {
    std::printf("SKIPPED: no kv/bytelm64.npz in %s\n", data_folder().c_str());
    return 77;
  }
  return boost::unit_test::unit_test_main([] { return true; }, argc, argv);
}
