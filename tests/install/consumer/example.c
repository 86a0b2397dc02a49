/* The shortest useful program: one prefix is published, then found. C99, the public header only. */
#include <quire/quire.h>
#include <stdio.h>

#define TOKENS 64
#define PAGES 4

static int check(quire_status status, const char *what) {
  if (status == QUIRE_OK) return 1;
  fprintf(stderr, "%s: %s: %s\n", what, quire_status_string(status), quire_last_error());
  return 0;
}

static int publish_prefix(quire_cache *cache, const quire_prefix *prefix) {
  quire_lease lease = 0;
  quire_page pages[PAGES] = {0};
  quire_alloc_options alloc;
  quire_publish_result result;
  quire_hit hit;
  QUIRE_INIT(&alloc);
  QUIRE_INIT(&result);
  QUIRE_INIT(&hit);
  if (!check(quire_acquire(cache, prefix, NULL, pages, &hit, &lease), "acquire")) return 0;
  if (hit.pages != 0) return 0;
  alloc.lease = lease;
  return check(quire_alloc(cache, PAGES, &alloc, pages), "alloc") &&
         check(quire_publish(cache, lease, prefix, pages, NULL, &result), "publish") &&
         result.n_published == PAGES && check(quire_release(cache, lease, NULL), "release");
}

static int find_prefix(quire_cache *cache, const quire_prefix *prefix) {
  quire_lease lease = 0;
  quire_page pages[PAGES] = {0};
  int32_t frames[PAGES];
  quire_hit hit;
  QUIRE_INIT(&hit);
  if (!check(quire_acquire(cache, prefix, NULL, pages, &hit, &lease), "acquire")) return 0;
  return hit.pages == PAGES &&
         check(quire_frames(cache, pages, PAGES, QUIRE_TIER_DEVICE, frames), "frames") &&
         frames[0] >= 0 && check(quire_release(cache, lease, NULL), "release");
}

int main(void) {
  quire_config config;
  quire_cache *cache = NULL;
  quire_key keys[PAGES];
  quire_prefix prefix;
  uint32_t tokens[TOKENS];
  size_t n = PAGES;
  uint32_t i;
  int good;

  for (i = 0; i < TOKENS; ++i) tokens[i] = i;
  if (quire_version() != QUIRE_VERSION_NUMBER) return 1;
  QUIRE_INIT(&prefix);
  prefix.n = PAGES;
  prefix.keys = keys;
  if (!check(quire_config_init(&config), "config_init") ||
      !check(quire_config_parse(&config,
                                "device=cpu,layers=2,kv_heads=2,head_dim=64,page_tokens=16,"
                                "format=f16,device_pages=64"),
             "config_parse") ||
      !check(quire_open(&config, &cache), "open"))
    return 1;
  good = check(quire_root_key(cache, NULL, 0, &prefix.root), "root_key") &&
         check(quire_chain_keys(cache, &prefix.root, tokens, TOKENS, NULL, 0, keys, &n),
               "chain_keys") &&
         n == PAGES && publish_prefix(cache, &prefix) && find_prefix(cache, &prefix);
  if (!check(quire_close(cache), "close")) return 1;
  return good ? 0 : 1;
}
