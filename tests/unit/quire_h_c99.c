/* quire.h and page_format.h as C99 sees them: compiled with -std=c99 -Wpedantic -Wall -Wextra -Werror, and run by
 * api_header_test. Returns 0, or the line that failed. */
#include "quire/quire.h"

#include "quire/page_format.h"

#define EXPECT(x)              \
  do {                         \
    if (!(x)) return __LINE__; \
  } while (0)

int quire_h_c99(void);

int quire_h_c99(void) {
  quire_config config;
  quire_cache *cache = 0;
  quire_key root, keys[2];
  quire_prefix prefix;
  quire_hit hit;
  quire_lease lease = 0;
  quire_page pages[2];
  quire_stats stats;
  uint32_t tokens[32];
  size_t n = 2;
  uint32_t i;
  EXPECT(quire_config_init(&config) == QUIRE_OK);
  EXPECT(quire_config_parse(&config,
                            "device=cpu,layers=1,kv_heads=1,head_dim=16,page_tokens=16,format=f32,"
                            "device_pages=8,segment=-") == QUIRE_OK);
  EXPECT(quire_open(&config, &cache) == QUIRE_OK);
  EXPECT(quire_root_key(cache, 0, 0, &root) == QUIRE_OK);
  for (i = 0; i < 32; ++i) tokens[i] = i;
  EXPECT(quire_chain_keys(cache, &root, tokens, 32, 0, 0, keys, &n) == QUIRE_OK && n == 2);
  QUIRE_INIT(&prefix);
  QUIRE_INIT(&hit);
  prefix.n = 2;
  prefix.root = root;
  prefix.keys = keys;
  EXPECT(quire_acquire(cache, &prefix, 0, pages, &hit, &lease) == QUIRE_OK && hit.pages == 0);
  EXPECT(quire_alloc(cache, 2, 0, pages) == QUIRE_OK);
  EXPECT(quire_publish(cache, lease, &prefix, pages, 0, 0) == QUIRE_OK);
  EXPECT(quire_match(cache, &prefix, &hit) == QUIRE_OK && hit.pages == 2);
  EXPECT(quire_release(cache, lease, 0) == QUIRE_OK);
  QUIRE_INIT(&stats);
  EXPECT(quire_stats_get(cache, &stats) == QUIRE_OK && stats.pages_visible == 2);
  EXPECT(quire_close(cache) == QUIRE_OK);
  return 0;
}
