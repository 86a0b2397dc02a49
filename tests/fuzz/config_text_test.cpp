// Texts of configurations: understood, or refused with a sentence and nothing changed; and what is
// understood can be planned, or is refused in words.
#define BOOST_TEST_MODULE fuzz_config_text
#include <boost/test/unit_test.hpp>

#include <vector>

#include "quire/quire.h"
#include "tests/support/fuzz.h"

using namespace quire::test;

namespace {

constexpr const char *kTexts[] = {
    "layers=32,kv_heads=8,head_dim=128,format=nf4,device=24GiB",
    "device=cpu,layers=4,kv_heads=2,head_dim_k=64,head_dim_v=0,page_tokens=16,device_bytes=1.5MB",
    "rope_dim=64,rope_theta=10000.5,rope_interleaved=1,policy=priority,epoch_ms=none",
    "device_pages=9,layers=1,kv_heads=1,head_dim=16,policy=hazard",
    "max_leases=100,max_sequences=7,max_namespaces=3,max_streams=2,max_threads=9,verify_tokens=1",
    "low_watermark=0.05,high_watermark=0.1,reclaim_threads=2,numa_node=-1,fast_scales=1",
    "segment=quire.test-1,idle_ttl_ms=4294967295,open_pages=12,device_pages=48,host_bytes=0",
    "format=k8v4,device=auto,device=1KiB,device=2TB",
    ("device=cpu,layers=1,kv_heads=1,head_dim=16,page_tokens=8,format=nf4,device_pages=4,open_"
     "pages=3,max_leases=9,max_sequences=9,max_namespaces=9,max_streams=9,max_threads=9"),
};
const std::string kAlphabet = "=,.-+ 0123456789eEkKMGTiBnfv_xlayersdevicepolicy\t";

}  // namespace

BOOST_AUTO_TEST_CASE(any_text_is_understood_or_refused_in_words) {
  Fuzz fuzz("config text", 30000);
  uint64_t understood = 0, opened = 0;
  while (fuzz.next()) {
    Bytes random(fuzz.seed());
    std::string text = kTexts[random.below(std::size(kTexts))];
    if (random.chance(64)) text += std::string(",") + kTexts[random.below(std::size(kTexts))];
    text = random.mutated(text, kAlphabet);
    if (random.chance(4)) text += std::string(random.below(2000), 'a');
    // In memory of its own, so that a sanitizer sees a step beyond its end.
    const std::vector<char> exact(text.c_str(), text.c_str() + std::strlen(text.c_str()) + 1);
    quire_config config, before;
    BOOST_REQUIRE(quire_config_init(&config) == QUIRE_OK);
    std::memcpy(&before, &config, sizeof config);
    const quire_status status = quire_config_parse(&config, exact.data());
    if (status != QUIRE_OK) {
      BOOST_REQUIRE_MESSAGE(status == QUIRE_E_INVALID && quire_last_error()[0] != 0,
                            fuzz.text() << ": " << text);
      BOOST_REQUIRE_MESSAGE(std::memcmp(&before, &config, sizeof config) == 0,
                            fuzz.text() << ": changed by " << text);
      continue;
    }
    ++understood;
    quire_plan_result plan;
    QUIRE_INIT(&plan);
    const quire_status planned = quire_plan(&config, &plan);
    BOOST_REQUIRE_MESSAGE(planned == QUIRE_OK || quire_last_error()[0] != 0, fuzz.text());
    if (planned != QUIRE_OK) continue;
    const uint32_t asked = config.geometry.page_tokens;
    BOOST_REQUIRE_MESSAGE(plan.page_tokens == (asked == 0 ? 64 : asked), fuzz.text());
    BOOST_REQUIRE_MESSAGE(plan.tokens == plan.pages * plan.page_tokens, fuzz.text());
    // Small ones are opened, too.
    if (plan.metadata_bytes > (1u << 23) || plan.pages > 64 || plan.page_bytes > (1u << 16) ||
        plan.open_pages > 64 || plan.open_page_bytes > (1u << 17)) {
      continue;
    }
    config.segment = "-";
    config.reclaim_threads = std::min(config.reclaim_threads, 2u);
    quire_cache *cache = nullptr;
    const quire_status made = quire_open(&config, &cache);
    BOOST_REQUIRE_MESSAGE(made == QUIRE_OK || quire_last_error()[0] != 0, fuzz.text());
    if (made != QUIRE_OK) continue;
    ++opened;
    BOOST_REQUIRE_MESSAGE(quire_close(cache) == QUIRE_OK, fuzz.text());
  }
  if (std::getenv("QUIRE_TEST_SEED") == nullptr) BOOST_TEST(opened > 0u);
  std::printf("%llu understood, %llu opened\n", static_cast<unsigned long long>(understood),
              static_cast<unsigned long long>(opened));
}
