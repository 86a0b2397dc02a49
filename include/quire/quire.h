/* Quire: the KV cache that you link in.
 *
 * One cache owns the paged key/value memory of one model's serving engine, finds shared prefixes in
 * it, and takes memory back by TTL and LRU. This header is the whole C API (C99; C++ through the
 * same header, RAII in quire.hpp).
 *
 *   quire_config cfg;            quire_config_init(&cfg);
 *   quire_config_parse(&cfg, "layers=4,kv_heads=2,head_dim=64,format=nf4,device=1GiB");
 *   quire_cache *c;              quire_open(&cfg, &c);
 *   quire_key root;              quire_root_key(c, fields, n_fields, &root);
 *   quire_chain_keys(c, &root, tokens, n_tokens, NULL, 0, keys, &n_keys);
 *   quire_acquire(c, &prefix, NULL, pages, &hit, &lease);          what is there is pinned
 *   quire_alloc(c, n_keys - hit.pages, &opt, pages + hit.pages);   the rest is private memory
 *   ... compute the missing tokens into it, on a stream ...
 *   quire_publish(c, lease, &prefix, pages, &popt, &res);          and now everybody finds it
 *   quire_release(c, lease, NULL);
 *
 * Words: a page is the K and V of page_tokens consecutive tokens in all layers; a frame is a slot
 * of memory that can hold one; a chain is the pages of one prefix, parent to child; a lease pins a
 * chain for its holder; an epoch is one tick of the only clock that orders reuse.
 *
 * Rules that hold for every call, unless its comment says otherwise:
 *  - it returns a quire_status; on anything but QUIRE_OK nothing has changed, outputs are
 *    unspecified, and quire_last_error() has one sentence on what was wrong, for this thread. (A
 *    call that finds too few frames may have evicted cached pages before it gave up.);
 *  - it never aborts, throws, prints, or waits for the device; only names that end in _wait, and
 *    quire_close, block;
 *  - it may be called from any thread at any time ("thread-safe"). Calls on one lease or one
 *    sequence exclude each other: the second of two concurrent ones gets QUIRE_E_BUSY;
 *  - structs begin with `uint32_t size`, which the caller sets to sizeof (QUIRE_INIT does). A
 *    shorter struct from an older header still works: what it lacks has its default; what a shorter
 *    output lacks is not written. Structs that are nested by value are frozen;
 *  - a child of fork() gets QUIRE_E_INVALID from every call on a cache that its parent opened. */
#ifndef QUIRE_QUIRE_H
#define QUIRE_QUIRE_H

#include <stddef.h>
#include <stdint.h>

#include "quire/page_format.h"

#if defined(_WIN32)
#error "Quire runs on Linux"
#elif defined(QUIRE_BUILDING)
#define QUIRE_API __attribute__((visibility("default")))
#else
#define QUIRE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version --------------------------------------------------------------------------------- */

#define QUIRE_VERSION_MAJOR 0
#define QUIRE_VERSION_MINOR 1
#define QUIRE_VERSION_PATCH 0
#define QUIRE_VERSION_NUMBER \
  (QUIRE_VERSION_MAJOR * 10000 + QUIRE_VERSION_MINOR * 100 + QUIRE_VERSION_PATCH)

/* Sets every byte of *s to zero and its size. Zero is the default of every field. */
#define QUIRE_INIT(s) quire_struct_init((s), (uint32_t)sizeof *(s))
static inline void quire_struct_init(void *s, uint32_t size) {
  unsigned char *p = (unsigned char *)s;
  uint32_t i;
  for (i = 0; i < size; ++i) p[i] = 0;
  *(uint32_t *)s = size;
}

/* The version of the library that runs, as QUIRE_VERSION_NUMBER. Never fails. */
QUIRE_API uint32_t quire_version(void);

/* ---- errors ---------------------------------------------------------------------------------- */

/* X(name, value, text). Values never change. */
#define QUIRE_STATUS_TABLE(X)                                                               \
  X(QUIRE_OK, 0, "ok")                                                                      \
  X(QUIRE_E_INVALID, 1, "invalid argument")                                                 \
  X(QUIRE_E_NOMEM, 2, "out of memory: all that could be freed is pinned")                   \
  X(QUIRE_E_AGAIN, 3, "not now: memory or work in flight will give it; step and try again") \
  X(QUIRE_E_STALE, 4, "stale handle: freed, released, evicted or from another cache")       \
  X(QUIRE_E_BUSY, 5, "busy: in use by another call, or still referenced")                   \
  X(QUIRE_E_DEVICE, 6, "the device failed")                                                 \
  X(QUIRE_E_IO, 7, "input or output failed")                                                \
  X(QUIRE_E_CORRUPT, 8, "corrupt data")                                                     \
  X(QUIRE_E_UNSUPPORTED, 9, "not supported by this build, device or format")                \
  X(QUIRE_E_VERSION, 10, "made by an incompatible version")

typedef enum quire_status {
#define QUIRE_STATUS_ENUM(name, value, text) name = value,
  QUIRE_STATUS_TABLE(QUIRE_STATUS_ENUM)
#undef QUIRE_STATUS_ENUM
} quire_status;

/* The text of a status, static storage; "unknown status" for a value that is none. Never fails. */
QUIRE_API const char *quire_status_string(quire_status status);

/* One sentence on the last call of this thread that failed, or "". Valid until the thread's next
 * Quire call. */
QUIRE_API const char *quire_last_error(void);

/* ---- types ----------------------------------------------------------------------------------- */

typedef struct quire_cache quire_cache;
typedef uint64_t quire_page;  /* index:32 | generation:18 | cache tag:14; 0 is none */
typedef uint64_t quire_lease; /* as above; 0 is none */
typedef uint64_t quire_seq;   /* as above; 0 is none */
typedef void *quire_stream;   /* cudaStream_t, or a cpu stream (quire_cpu_stream_create) */

typedef struct quire_key {
  uint64_t lo, hi;
} quire_key;

typedef enum quire_tier {
  QUIRE_TIER_DEVICE = 0,
  QUIRE_TIER_HOST = 1,
  QUIRE_TIER_FILE = 2
} quire_tier;

typedef enum quire_device_kind {
  /* cuda where the build, the driver and a GPU have it, else cpu: quire_layout tells which */
  QUIRE_DEVICE_AUTO = 0,
  QUIRE_DEVICE_CPU = 1,
  QUIRE_DEVICE_CUDA =
      2 /* QUIRE_E_UNSUPPORTED in a build or on a machine without it: why, is told */
} quire_device_kind;

typedef enum quire_dtype { QUIRE_F32 = 0, QUIRE_F16 = 1, QUIRE_BF16 = 2 } quire_dtype;

typedef enum quire_policy {
  /* oldest last use first, exact to the epoch; retention priority and class are ignored */
  QUIRE_POLICY_LRU = 0,
  QUIRE_POLICY_PRIORITY = 1, /* lowest retention priority first, then oldest */
  /* least worth keeping first: learns from releases how likely pages come back, by how they were
   * used, by the caller's class (retention cls, if any) and by age; priority is ignored. Keeps a
   * history of pages that are gone, up to 130 bytes a page beside the metadata (stats:
   * policy_bytes). Learns in the timer's thread, with QUIRE_NO_TIMER in quire_step. */
  QUIRE_POLICY_HAZARD = 2
} quire_policy;

/* ---- life ------------------------------------------------------------------------------------ */

/* The caller's allocator for metadata (never for frames). May be called from any thread. alloc
 * returns NULL when it has no memory; align is a power of two. */
typedef struct quire_allocator {
  void *(*alloc)(size_t bytes, size_t align, void *user);
  void (*free)(void *p, size_t bytes, size_t align, void *user);
  void *user;
} quire_allocator;

/* A monotonic clock in milliseconds; every TTL and deadline is counted in it. Must not go back. */
typedef uint64_t (*quire_clock_fn)(void *user);

/* What a cache is. Fill it with quire_config_init, then by field or with quire_config_parse. */
typedef struct quire_config {
  uint32_t size;
  uint32_t device; /* quire_device_kind; default AUTO */
  /* layers, kv_heads, head dims, page_tokens (default 64), RoPE; no default for the sizes */
  quire_geometry geometry;
  uint32_t format; /* quire_format_id; default QUIRE_FORMAT_NF4 */
  uint32_t policy; /* quire_policy; default LRU */
  /* 16 ascending values in [-1, 1] with -1 or 1 among them, copied; NULL: NF4's */
  const float *codebook;
  /* budget of the device tier, sealed and open frames together; or device_pages */
  uint64_t device_bytes;
  uint32_t device_pages; /* sealed frames; 0: as many as device_bytes gives */
  /* frames for pages being written in f16; 0: an eighth of the sealed ones, 32 to 4096; formats
   * f16, bf16 and f32 have none */
  uint32_t open_pages;
  /* budget of the host tier; must be 0 in this version, else QUIRE_E_UNSUPPORTED */
  uint64_t host_bytes;
  /* the file tier; must be NULL in this version, else QUIRE_E_UNSUPPORTED */
  const char *file_path;
  uint32_t max_leases;    /* default: one for 64 pages, 2048 to 65536 */
  uint32_t max_sequences; /* default 65536 */
  /* default: one for 256 pages, 512 to 4096; a namespace without pages and settings makes room for
   * a new one */
  uint32_t max_namespaces;
  uint32_t max_streams; /* default 64 */
  uint32_t max_threads; /* threads inside a guard at once; default 256 */
  /* 1: pages keep their token ids and every hit compares them; 4 bytes a token more */
  uint32_t verify_tokens;
  /* 32 bytes that key the hash, copied; NULL: drawn at random for this cache */
  const uint8_t *secret;
  /* period of the clock's timer; default 1; QUIRE_NO_TIMER: only quire_step moves it */
  uint32_t epoch_ms;
  uint32_t idle_ttl_ms; /* default idle TTL of pages; 0: none */
  /* reclaim in the background when less than this share of the frames is free; default 0 */
  float low_watermark;
  float high_watermark;     /* ... until this share is; default: low_watermark */
  uint32_t reclaim_threads; /* width of the reclaimer's task arena; default 1 */
  int32_t numa_node;        /* plus 1: node 0 is 1; 0: no preference */
  /* 1: sealing tries the sign of a scale only; 0 (default): searches 4 factors x 2 signs */
  uint32_t fast_scales;
  quire_clock_fn clock; /* NULL: CLOCK_MONOTONIC */
  void *clock_user;
  quire_allocator allocator; /* alloc NULL: the library's own metadata heap */
  /* name of the shared-memory segment that quire-stat attaches to, [A-Za-z0-9._-]{1,63}; NULL:
   * "quire.<pid>.<n>", or private memory where /dev/shm has no room; "-": private, and in huge
   * pages where the system gives them to who asks: lookups in large caches are a tenth to a quarter
   * faster */
  const char *segment;
  uint32_t device_ordinal; /* of several GPUs, in CUDA's numbering; default 0 */
  uint32_t events; /* 1: page events are recorded from the start on (see quire_events_poll) */
} quire_config;

#define QUIRE_NO_TIMER UINT32_MAX

/* Sets every field to its default. Never fails on a non-NULL pointer. */
QUIRE_API quire_status quire_config_init(quire_config *config);

/* Reads "name=value,name=value" into *config, over what is there. Names are the fields'
 * (page_tokens, kv_heads, layers, head_dim for both head_dim_k and head_dim_v, rope_theta,
 * rope_dim, rope_interleaved, ...); `device` takes cpu, cuda, auto or a size; sizes take KiB, MiB,
 * GiB, KB, MB, GB; format and policy take their names. Strings (segment) point into a buffer that
 * belongs to the calling thread and lives until its next quire_config_parse: open before that.
 * QUIRE_E_INVALID names the word that was not understood. */
QUIRE_API quire_status quire_config_parse(quire_config *config, const char *text);

/* Makes a cache. Cost: reserves address space and metadata (about 150 bytes a page); frames are
 * touched on first use. QUIRE_E_INVALID (which field and why), QUIRE_E_NOMEM, QUIRE_E_UNSUPPORTED
 * (which part is missing), QUIRE_E_DEVICE. */
QUIRE_API quire_status quire_open(const quire_config *config, quire_cache **out);

/* Ends a cache. QUIRE_E_BUSY (and what remains) while leases, sequences, private pages or streams
 * are left; then the cache is as it was. Blocks for the library's own threads to stop, not for work
 * of the engine. Not thread-safe against other calls on this cache. NULL is QUIRE_OK. */
QUIRE_API quire_status quire_close(quire_cache *c);

/* Changes a tier's budget while serving. QUIRE_E_UNSUPPORTED in this version. */
QUIRE_API quire_status quire_resize(quire_cache *c, quire_tier tier, uint64_t bytes);

/* ---- keys ------------------------------------------------------------------------------------ */

/* A field of a namespace: type is the caller's (QUIRE_FIELD_* or >= QUIRE_FIELD_USER), bytes any.
 * Each is folded in with its type and length, so that no two lists of fields give the same bytes.
 * Order counts. */
typedef struct quire_field {
  uint32_t type;
  uint32_t bytes;
  const void *data;
} quire_field;

#define QUIRE_FIELD_MODEL 1u
#define QUIRE_FIELD_ADAPTER 2u
#define QUIRE_FIELD_TENANT 3u
#define QUIRE_FIELD_DIGEST 4u
#define QUIRE_FIELD_USER 256u

/* The key of a namespace: parent of the first page of every prefix in it. n_fields may be 0. Cost:
 * about 50 ns. */
QUIRE_API quire_status quire_root_key(quire_cache *c, const quire_field *fields, size_t n_fields,
                                      quire_key *root);

/* A digest (of an image, say) that belongs to page number `page` of the tokens that are keyed. */
typedef struct quire_page_extra {
  uint32_t page;
  uint32_t bytes;
  const void *digest;
} quire_page_extra;

/* Keys of the full pages of `tokens`: keys[i] = PRF(secret, keys[i-1] (parent for i = 0), page i's
 * tokens, its digests). In *n: room in keys[]; out: keys written = n_tokens / page_tokens, rounded
 * down. extra[] is sorted by page; one for a page that is not full is QUIRE_E_INVALID.
 * QUIRE_E_INVALID if *n is too small (then *n is what is needed). PRF: HighwayHash-128 (arXiv
 * 1612.06257). Cost: about 30 ns a page of 16 tokens with AVX2, linear in tokens. */
QUIRE_API quire_status quire_chain_keys(quire_cache *c, const quire_key *parent,
                                        const uint32_t *tokens, size_t n_tokens,
                                        const quire_page_extra *extra, size_t n_extra,
                                        quire_key *keys, size_t *n);

/* Settings of a namespace; 0 is "no limit", "no guarantee", "no".
 *
 * quota: it has no more published pages than that. A publish that finds no room evicts pages of its
 * own namespace first: what has died, then the oldest, as the policy orders them, and up to a
 * sixteenth of the quota beyond what it needs, since finding them costs a look at all pages. Pages
 * that get no room stay private, as those of a full bin do. Where the quota is set below what is
 * there, the oldest go at once; what is pinned then goes with later publishes, or as others need
 * it.
 *
 * floor: evictions for others do not take it below so many published pages, exactly. Its own do:
 * its quota, its TTLs, quire_evict, and a call that finds nothing else to evict, on a lease or a
 * sequence of this namespace (a lease on nothing that was taken before any namespace had a floor is
 * of none). A call of another that finds all pages pinned or under floors is
 * QUIRE_E_NOMEM. What is above the floor is anybody's, oldest first; a namespace that comes above
 * it while a run of evictions goes on may lose its oldest a little after others as old.
 *
 * zero: frames of its pages are zeroed before anybody else gets them.
 *
 * Private pages count for neither: they are of no namespace before they are published. */
typedef struct quire_namespace {
  uint32_t size;
  uint32_t zero;
  uint64_t quota; /* published pages */
  uint64_t floor; /* published pages */
} quire_namespace;

/* Creates the namespace where needed, and replaces all of its settings; one that has settings keeps
 * its place in the table. QUIRE_E_INVALID: a floor above the quota; QUIRE_E_NOMEM: the floors of
 * all namespaces would be more than the sealed frames, or max_namespaces are in use; QUIRE_E_BUSY:
 * another call is setting this namespace. Cost: O(1), and O(pages) where a quota is set below what
 * is there. */
QUIRE_API quire_status quire_namespace_set(quire_cache *c, const quire_key *root,
                                           const quire_namespace *settings);

typedef struct quire_namespace_record {
  uint32_t size;
  uint32_t number; /* in events and in quire_page_record, as long as it has pages or settings */
  quire_key root;
  uint64_t pages; /* published and not evicted; exact but for calls that are at it */
  uint64_t quota;
  uint64_t floor;
  uint32_t zero;
  uint32_t reserved;
} quire_namespace_record;

/* A namespace that has no pages and no settings has zeros. Wait-free; cost: one probe. */
QUIRE_API quire_status quire_namespace_get(quire_cache *c, const quire_key *root,
                                           quire_namespace_record *out);

/* Walks all namespaces: *at = 0 starts; it is where to go on, 0 at the end (then out is not
 * written). A snapshot of nothing, as quire_lease_next. */
QUIRE_API quire_status quire_namespace_next(quire_cache *c, uint32_t *at,
                                            quire_namespace_record *out);

/* All pages of the namespace are misses from now on, at once (one store); memory follows in the
 * background, that of leased pages when they are released. QUIRE_OK also where there is no such
 * namespace. Cost: O(1). */
QUIRE_API quire_status quire_evict(quire_cache *c, const quire_key *root);

/* ---- lookup ---------------------------------------------------------------------------------- */

/* A prefix: its namespace's root key and the keys of its n first pages. */
typedef struct quire_prefix {
  uint32_t size, n;
  quire_key root;
  const quire_key *keys;
  const uint32_t *tokens; /* n * page_tokens ids; NULL unless verify_tokens */
} quire_prefix;

typedef struct quire_hit {
  uint32_t size;
  uint32_t pages;     /* length of the hit */
  uint32_t on_device; /* of these, resident in each tier */
  uint32_t on_host;
} quire_hit;

/* How much of the prefix is cached. Pins nothing and touches nothing: the answer may be old when
 * it arrives. hit may not be NULL. Wait-free; cost: O(log n) probes. */
QUIRE_API quire_status quire_match(quire_cache *c, const quire_prefix *prefix, quire_hit *hit);

/* past its deadline the library may take the lease back (the holder launches nothing; calls on it
 * then give QUIRE_E_STALE) */
#define QUIRE_ACQUIRE_REVOCABLE 1u

typedef struct quire_acquire_options {
  uint32_t size;
  uint32_t flags;
  uint64_t owner; /* anything; stats and the leak report group by it */
  /* from now; 0: none. Past it the lease is reported, not revoked (but see REVOCABLE) */
  uint64_t deadline_ms;
  uint32_t tier;      /* quire_tier that pages must be in; DEVICE in this version */
  uint32_t max_pages; /* the hit is no longer than this; 0: no limit */
  /* the stream that will read: pages that other streams still write are waited for there, where an
   * event is recorded already; NULL: the hit ends at the first page that is not ready */
  quire_stream stream;
} quire_acquire_options;

/* Pins the longest cached prefix and gives a lease, also where the hit is empty. pages[] (room for
 * prefix->n) gets the hit's handles, the rest QUIRE 0. One reference is taken, on the last page,
 * whatever the length. opt, pages and hit may be NULL. QUIRE_E_NOMEM: max_leases are in use.
 * QUIRE_E_BUSY: half a million leases hold this very page. Lock-free; cost: O(log n) probes, then
 * 10 to 25 ns a page where pages is asked for. */
QUIRE_API quire_status quire_acquire(quire_cache *c, const quire_prefix *prefix,
                                     const quire_acquire_options *opt, quire_page *pages,
                                     quire_hit *hit, quire_lease *lease);

/* How long and how dearly a page is kept. Zero of a field: the cache's default (at publish), "as
 * it is" (at release). */
typedef struct quire_retention {
  uint32_t size;
  uint32_t priority; /* 1 lowest, 2 normal (default), 3 high, 4 highest */
  uint32_t cls;      /* 1 to 8: opaque to the library, a policy may learn what it means */
  /* dies when unused so long; any hit on it or below renews it; UINT32_MAX: none */
  uint32_t idle_ttl_ms;
  /* dies so long after its publish, whatever happens; publish only, else QUIRE_E_INVALID */
  uint64_t absolute_ttl_ms;
} quire_retention;

/* Gives a lease back: its private pages are freed, its chain is stamped as used now, then
 * unpinned. The engine has enqueued all work on these pages before. retention (or NULL) goes to the
 * chain's last page. QUIRE_E_STALE: released before. Lock-free; cost: O(1) and O(private pages). */
QUIRE_API quire_status quire_release(quire_cache *c, quire_lease lease,
                                     const quire_retention *retention);

/* A second lease on the first `pages` pages of the chain of `lease`; 0xffffffff: all. O(1) for all
 * or the same length, else one step a page that is left out. QUIRE_E_INVALID: longer than the
 * chain. */
QUIRE_API quire_status quire_lease_clone(quire_cache *c, quire_lease lease, uint32_t pages,
                                         const quire_acquire_options *opt, quire_lease *out);

/* Sets a new deadline, from now; 0: none. */
QUIRE_API quire_status quire_lease_renew(quire_cache *c, quire_lease lease, uint64_t deadline_ms);

typedef struct quire_lease_record {
  uint32_t size;
  uint32_t pages;         /* length of its chain */
  uint32_t private_pages; /* that hang on it */
  uint32_t flags;
  uint64_t owner;
  uint64_t age_ms;
  int64_t remaining_ms; /* to the deadline; negative: late; INT64_MAX: none */
  quire_page tail;      /* 0: empty chain */
} quire_lease_record;

QUIRE_API quire_status quire_lease_info(quire_cache *c, quire_lease lease, quire_lease_record *out);

/* Walks all leases: *lease = 0 starts; the next one after *lease is written to it, 0 at the end. A
 * snapshot of nothing: leases that come and go meanwhile may be seen or not. *lease may have been
 * released since: the walk goes on behind its place. QUIRE_E_STALE: it never was a lease of this
 * cache. */
QUIRE_API quire_status quire_lease_next(quire_cache *c, quire_lease *lease);

/* ---- pages ----------------------------------------------------------------------------------- */

/* frames of the final format at once, to be appended to directly; default: open pages */
#define QUIRE_ALLOC_SEALED 1u

typedef struct quire_alloc_options {
  uint32_t size;
  uint32_t flags;
  /* the pages hang on it and go with it; 0: they are the caller's until quire_free */
  quire_lease lease;
  uint32_t tier; /* DEVICE */
  /* plus 1: index in the chain of the first page; 0: right behind the lease's chain and pages */
  uint32_t first;
  /* of the first use: frames that only this stream may still read can be had at once */
  quire_stream stream;
} quire_alloc_options;

/* n private pages, all or nothing. A dry pool makes this call evict what it needs, oldest first,
 * bounded; what cannot be had evicts little (128 pages) or nothing. QUIRE_E_AGAIN: frames are in
 * limbo (step, and they come), or in the hands of another call that evicts; QUIRE_E_NOMEM: all but
 * fewer are pinned, private or under floors of other namespaces than the lease's; QUIRE_E_INVALID:
 * no chain is as long as first + n. Lock-free; cost: about 20 ns a page in batches, more where it
 * must evict. */
QUIRE_API quire_status quire_alloc(quire_cache *c, uint32_t n, const quire_alloc_options *opt,
                                   quire_page *pages);

/* Gives private pages back, all or nothing: QUIRE_E_STALE (which) frees none; QUIRE_E_INVALID:
 * published, or named twice; QUIRE_E_BUSY: another call works on one of them, or a sequence has
 * it. */
QUIRE_API quire_status quire_free(quire_cache *c, const quire_page *pages, uint32_t n);

/* Encodes full, open, private pages into the cache's format, on `stream` (NULL: now); they keep
 * their handles; already sealed ones are left alone. All or nothing where memory is short:
 * QUIRE_E_AGAIN, QUIRE_E_NOMEM; QUIRE_E_INVALID, QUIRE_E_STALE and QUIRE_E_BUSY as for free. All
 * page_tokens tokens of every layer have been written by work enqueued on this stream. The stream
 * that encodes a page stays its writer, whichever stream a later publish names. */
QUIRE_API quire_status quire_seal(quire_cache *c, const quire_page *pages, uint32_t n,
                                  quire_stream stream);

/* pages that somebody else published first are exchanged in pages[] and freed */
#define QUIRE_PUBLISH_REPLACE 1u

typedef struct quire_publish_options {
  uint32_t size;
  uint32_t flags;
  quire_stream stream; /* that writes the pages; NULL: the data is complete */
  const quire_retention *retention;
} quire_publish_options;

typedef struct quire_publish_result {
  uint32_t size;
  /* pages beyond the lease's chain that are now in the index and in the chain */
  uint32_t n_published;
  uint32_t n_replaced; /* of these, exchanged in pages[] (with REPLACE) */
  /* of these, found published by somebody else (with and without REPLACE) */
  uint32_t n_duplicate;
} quire_publish_result;

/* Puts pages into the index and the lease's chain forward to them. pages[] runs parallel to
 * prefix->keys: prefix->n handles, of which the first are the chain that the lease holds already
 * (they are not looked at) and the rest private pages; open ones are sealed. Stops, without an
 * error, at the first page that cannot be indexed (a full bin, a counter at its limit, a dead
 * parent, no room in the namespace's quota): it and later ones stay private. A page that was
 * published by another thread meanwhile is that one from now on in the chain; ours stays private
 * until release, or see REPLACE. Exactly-once. res may be NULL. QUIRE_E_STALE: a page or the lease;
 * QUIRE_E_INVALID: prefix shorter than the chain or of another one, a lossy or foreign page, a page
 * named twice, a missing tokens array.
 * Lock-free; cost: 200 to 300 ns a page, and the sealing. */
QUIRE_API quire_status quire_publish(quire_cache *c, quire_lease lease, const quire_prefix *prefix,
                                     quire_page *pages, const quire_publish_options *opt,
                                     quire_publish_result *res);

/* A block table: out[i] >= 0 the sealed frame of page i, <= -2 the open frame -2 - out[i], -1 not
 * resident in the tier. The pages are private or under a lease of the caller. QUIRE_E_STALE names
 * the first page that is gone. */
QUIRE_API quire_status quire_frames(quire_cache *c, const quire_page *pages, uint32_t n,
                                    quire_tier tier, int32_t *out);

/* Where frames lie, for the engine's own kernels: frame f of a class begins at base + f * stride,
 * and inside it page_format.h has the arithmetic. Stays valid until quire_close. */
typedef struct quire_layout_info {
  uint32_t size;
  uint32_t frames;      /* sealed frames */
  uint32_t open_frames; /* open frames */
  uint32_t format;      /* quire_format_id */
  void *base;
  void *open_base; /* NULL where the format has no open pages */
  uint64_t stride;
  uint64_t open_stride;
  quire_geometry geometry;
  quire_page_layout layout;
  quire_page_layout open_layout;
  uint32_t device; /* quire_device_kind that AUTO became: whose addresses base and open_base are */
} quire_layout_info;

QUIRE_API quire_status quire_layout(quire_cache *c, quire_tier tier, uint32_t rank,
                                    quire_layout_info *out);

typedef uint64_t quire_ticket;

/* Brings a lease's chain up into a tier. QUIRE_E_UNSUPPORTED in this version: there is one tier. */
QUIRE_API quire_status quire_fetch(quire_cache *c, quire_lease lease, quire_tier tier,
                                   quire_ticket *ticket);
QUIRE_API quire_status quire_ticket_poll(quire_cache *c, quire_ticket ticket, uint32_t *pages);
QUIRE_API quire_status quire_ticket_wait(quire_cache *c, quire_ticket ticket, quire_stream stream);

typedef enum quire_page_state { QUIRE_PAGE_PRIVATE = 1, QUIRE_PAGE_PUBLISHED = 2 } quire_page_state;

#define QUIRE_PAGE_OPEN 1u   /* in an open frame */
#define QUIRE_PAGE_SEALED 2u /* in its final encoding */
#define QUIRE_PAGE_LOSSY \
  4u /* an open page that was decoded from a sealed one: may not be published */
#define QUIRE_PAGE_DEAD 8u /* expired or of an evicted namespace: a miss for lookups */

typedef struct quire_page_record {
  uint32_t size;
  uint32_t state; /* quire_page_state */
  uint32_t flags;
  uint32_t index;      /* in its chain */
  int32_t frame;       /* as in a block table */
  uint32_t references; /* leases that end at it */
  uint32_t children;
  uint32_t idle_ttl_ms;
  uint64_t age_epochs; /* since its last stamp */
  uint64_t expires_ms; /* of the cache's clock; UINT64_MAX: never */
  quire_key key;       /* published pages */
  quire_page parent;   /* 0: first of its chain, or private */
  uint32_t space;      /* its namespace's number; UINT32_MAX: private */
  uint32_t reserved;
} quire_page_record;

QUIRE_API quire_status quire_page_info(quire_cache *c, quire_page page, quire_page_record *out);

/* The address of a page that the CPU can see, valid while it is private or leased. *bytes its
 * size. QUIRE_E_UNSUPPORTED on cuda: kernels take quire_layout's base and stride. */
QUIRE_API quire_status quire_page_data(quire_cache *c, quire_page page, void **data, size_t *bytes);

/* ---- sequences ------------------------------------------------------------------------------- */

/* A sequence is a block table that grows, forks copy-on-write and rolls back. It owns its lease
 * and its pages, computes keys, seals what is full and publishes it. The engine asks where to
 * write, writes, commits. */

#define QUIRE_SEQ_PRIVATE 1u /* nothing of it is looked up or published */
/* the hit never covers the last token: an engine needs its logits */
#define QUIRE_SEQ_LEAVE_ONE 2u

typedef struct quire_seq_options {
  uint32_t size;
  uint32_t flags;
  uint64_t owner;
  uint64_t deadline_ms;
  quire_stream stream;
  const quire_page_extra *extra; /* digests of pages of the prompt */
  size_t n_extra;
  const quire_retention *retention; /* of what it publishes; copied */
} quire_seq_options;

/* Opens a sequence in the namespace `root` and acquires the longest cached prefix of tokens[0 ..
 * n_tokens). hit->pages * page_tokens tokens are there already and committed; the engine computes
 * from there. Nothing is allocated yet. opt and hit may be NULL. */
QUIRE_API quire_status quire_seq_open(quire_cache *c, const quire_key *root, const uint32_t *tokens,
                                      size_t n_tokens, const quire_seq_options *opt, quire_hit *hit,
                                      quire_seq *seq);

/* Makes room for n more tokens behind those reserved already; a partial page that is shared with a
 * fork is copied first (on stream). slots (or NULL) gets n slots for quire_kv_append. All or
 * nothing: QUIRE_E_NOMEM; QUIRE_E_AGAIN, also where the partial page was last written on another
 * stream: `stream` is made to wait for that one's work, which takes a quire_step since its commit.
 */
QUIRE_API quire_status quire_seq_append(quire_cache *c, quire_seq seq, uint32_t n,
                                        quire_stream stream, int64_t *slots);

/* The next n reserved tokens are `tokens`, and work enqueued on stream writes them in all layers.
 * Pages that are full are sealed on that stream and, if tokens is not NULL, published. With tokens
 * NULL nothing of this sequence is published from here on. QUIRE_E_INVALID: more than is reserved.
 * QUIRE_E_AGAIN, QUIRE_E_NOMEM: no frame to seal into; QUIRE_E_AGAIN: another stream wrote to the
 * page before, as for append; nothing is committed. */
QUIRE_API quire_status quire_seq_commit(quire_cache *c, quire_seq seq, const uint32_t *tokens,
                                        uint32_t n, quire_stream stream);

/* A second sequence with the same committed tokens. Full pages are shared; the partial one is too,
 * until one of the two writes, or copied at once (on stream) where room in it is reserved:
 * QUIRE_E_AGAIN, as for append. Reserved, uncommitted room is not inherited. Cost: O(pages). */
QUIRE_API quire_status quire_seq_fork(quire_cache *c, quire_seq seq, quire_stream stream,
                                      quire_seq *child);

/* Takes it back to n_tokens, committed or reserved. Into a sealed page: what is left of it is
 * decoded into an open page (on stream), which can never be published, nor what follows it:
 * QUIRE_E_AGAIN, QUIRE_E_NOMEM, as for append. QUIRE_E_INVALID: longer than it is. */
QUIRE_API quire_status quire_seq_truncate(quire_cache *c, quire_seq seq, uint64_t n_tokens,
                                          quire_stream stream);

/* The block table: out (room for `room` entries) as in quire_frames. *n_pages out: its length,
 * also where room is too small (QUIRE_E_INVALID) or out is NULL (QUIRE_OK). kv_len (or NULL):
 * committed plus reserved tokens. */
QUIRE_API quire_status quire_seq_block_table(quire_cache *c, quire_seq seq, int32_t *out,
                                             uint32_t room, uint32_t *n_pages, uint64_t *kv_len);

typedef struct quire_seq_record {
  uint32_t size;
  uint32_t flags;
  uint64_t reserved;  /* tokens there is room for */
  uint64_t committed; /* tokens that are written */
  uint64_t published; /* tokens that others can find */
  uint64_t hit;       /* tokens that were found at open */
  quire_lease lease;  /* to look at and to clone; nothing else */
} quire_seq_record;

QUIRE_API quire_status quire_seq_info(quire_cache *c, quire_seq seq, quire_seq_record *out);

/* Ends it: its lease is released with `retention` (or NULL), what is not published is freed. */
QUIRE_API quire_status quire_seq_close(quire_cache *c, quire_seq seq,
                                       const quire_retention *retention);

/* ---- engine ---------------------------------------------------------------------------------- */

#define QUIRE_STREAM_BACKGROUND 1u /* never captured: the timer may record events on it too */

/* Makes a stream a reader: before its first work that touches a page. NULL and the legacy and
 * per-thread handles are QUIRE_E_INVALID, as is a stream that is registered, or of another GPU or
 * context than the device's primary one. A cudaStream_t that was destroyed cannot be told: CUDA
 * follows the pointer. QUIRE_E_NOMEM: max_streams (a namespace with `zero` takes one on cuda).
 *
 * On cuda, calls use the device's primary context and put the caller's back. While a stream
 * captures a graph nothing is recorded on it, and it holds what it may read; calls of the library
 * break no capture. Once a kernel of the process has broken the context, calls that need the GPU
 * are QUIRE_E_DEVICE for good; match, release, stats and, when all is given back, close go on. */
QUIRE_API quire_status quire_stream_add(quire_cache *c, quire_stream stream, uint32_t rank,
                                        uint32_t flags);

/* Ends that. Returns at once; the library waits in the background for what is enqueued on it; the
 * caller may destroy the stream only after the work on it is done. QUIRE_E_INVALID: not registered.
 * */
QUIRE_API quire_status quire_stream_remove(quire_cache *c, quire_stream stream);

/* One step of the engine: moves the clock, records an event on each stream that something waits
 * for, gives frames whose readers have passed back to the pool. Call it once per batch. Cost:
 * O(streams), and O(1) a frame that comes back. */
QUIRE_API quire_status quire_step(quire_cache *c);

/* Streams of the cpu device: queues of work on a thread each, in order, asynchronous. They belong
 * to no cache. destroy waits for what is enqueued, as does _wait. _launch runs fn(arg) after all
 * that is enqueued before it. */
QUIRE_API quire_status quire_cpu_stream_create(quire_stream *out);
QUIRE_API quire_status quire_cpu_stream_destroy(quire_stream stream);
QUIRE_API quire_status quire_cpu_stream_wait(quire_stream stream);
QUIRE_API quire_status quire_cpu_stream_launch(quire_stream stream, void (*fn)(void *arg),
                                               void *arg);

/* ---- kernels --------------------------------------------------------------------------------- */

/* All enqueue on `stream` (NULL, cpu device only: done when the call returns), allocate nothing
 * and check what the host can see. Arrays are in the device's memory and live until the work is
 * done; on cuda that is memory of that GPU, or pinned or managed memory, and may be captured into a
 * graph. Strides are in elements; on cuda rows begin at multiples of 16 bytes. */

/* Writes n tokens of one layer. k: [n][kv_heads][head_dim_k], v: [n][kv_heads][head_dim_v]; the
 * last axis is dense. */
typedef struct quire_append_args {
  uint32_t size;
  uint32_t layer;
  uint32_t n;
  uint32_t dtype; /* quire_dtype of k and v */
  const void *k;
  const void *v;                         /* NULL where the geometry has no V */
  int64_t k_token_stride, k_head_stride; /* 0: dense */
  int64_t v_token_stride, v_head_stride;
  /* n slots of quire_seq_append: frame * page_tokens + offset, in an open frame e -2 - (e *
   * page_tokens + offset), -1: skip; or NULL and */
  const int64_t *slots;
  /* of one sequence, whose tokens first .. first + n - 1 these are */
  const int32_t *block_table;
  uint32_t block_table_length;
  uint64_t first;
  quire_stream stream;
} quire_append_args;

QUIRE_API quire_status quire_kv_append(quire_cache *c, const quire_append_args *args);

/* Reads n tokens of one layer back, decoded: the inverse of append, in the same shapes. Slots of
 * pages that are not resident give zeros. */
typedef struct quire_gather_args {
  uint32_t size;
  uint32_t layer;
  uint32_t n;
  uint32_t dtype;
  void *k; /* NULL: not wanted */
  void *v;
  int64_t k_token_stride, k_head_stride;
  int64_t v_token_stride, v_head_stride;
  const int64_t *slots;
  const int32_t *block_table;
  uint32_t block_table_length;
  uint64_t first;
  quire_stream stream;
} quire_gather_args;

QUIRE_API quire_status quire_kv_gather(quire_cache *c, const quire_gather_args *args);

/* The mean key of each head of one layer before RoPE, [kv_heads][head_dim_k], fp32, host memory,
 * copied: keys of pages sealed from now on are stored minus this anchor turned to their position;
 * the softmax does not see it and outputs do not change. One set a layer and cache: QUIRE_E_BUSY
 * once a page was sealed. QUIRE_E_UNSUPPORTED: a format without anchor, or no RoPE description. */
QUIRE_API quire_status quire_key_anchor_set(quire_cache *c, uint32_t layer, const float *means);

/* Bounds of a batch: a captured graph is valid for all lengths under them. */
typedef struct quire_attention_bounds {
  uint32_t size;
  uint32_t q_heads;
  uint32_t max_batch; /* sequences */
  uint32_t max_q;     /* query tokens of all sequences together */
  uint64_t max_kv;    /* tokens of the longest */
} quire_attention_bounds;

/* softmax(scale * q k^T) v over pages, for the last query tokens of each sequence. q, out:
 * [tokens][q_heads][dim] (head_dim_k for q, head_dim_v for out); the queries of sequence b are
 * q_offsets[b] .. q_offsets[b + 1] - 1, and query i of n sees the first kv_len - n + i + 1 tokens.
 * lse: [tokens][q_heads] fp32, natural log of the sum of exp of the true logits; kv_len 0 gives out
 * 0 and lse -inf. q_heads is a multiple of kv_heads. */
typedef struct quire_attention_args {
  uint32_t size;
  uint32_t layer;
  quire_attention_bounds bounds;
  uint32_t batch; /* <= bounds.max_batch */
  uint32_t q_dtype, out_dtype;
  const void *q;
  void *out;
  float *lse;                            /* NULL: not wanted */
  int64_t q_token_stride, q_head_stride; /* 0: dense */
  int64_t out_token_stride, out_head_stride;
  float scale;                 /* 0: 1 / sqrt(head_dim_k) */
  float soft_cap;              /* logits become cap * tanh(logit / cap); 0: none */
  uint32_t window;             /* sees the last `window` tokens only; 0: all */
  uint32_t block_table_stride; /* entries a row */
  const int32_t *q_offsets;    /* [batch + 1] */
  const int32_t *kv_lens;      /* [batch] */
  /* [batch][block_table_stride]; an entry of -1 below kv_len reads as absent tokens */
  const int32_t *block_table;
  void *workspace;
  size_t workspace_bytes;
  quire_stream stream;
} quire_attention_args;

QUIRE_API quire_status quire_attention_decode(quire_cache *c, const quire_attention_args *args);

/* Bytes of workspace, 64-byte aligned, that a call under these bounds needs; may be 0. */
QUIRE_API quire_status quire_attention_workspace(quire_cache *c,
                                                 const quire_attention_bounds *bounds,
                                                 size_t *bytes);

/* The instruction set that CPU kernels run on, "scalar", "avx2", "avx512", "neon". Forcing one
 * that this machine lacks is QUIRE_E_UNSUPPORTED; NULL: the best. Process-wide; results are the
 * same, bit for bit, but for attention's rounding. The variable QUIRE_CPU_TARGET in the environment
 * does the same at start. */
QUIRE_API const char *quire_cpu_target(void);
QUIRE_API quire_status quire_cpu_target_set(const char *name);

/* ---- insight --------------------------------------------------------------------------------- */

/* X(name, help). Counters only grow; gauges are as of the call. The struct, the JSON, the
 * shared-memory segment and the Prometheus text are made of these lists; Prometheus names are
 * "quire_" and the name. */
#define QUIRE_STATS_COUNTERS(X)                                                                    \
  X(prefix_queries_total, "tokens that acquire was asked for")                                     \
  X(prefix_hits_total, "tokens that acquire found")                                                \
  X(acquires_total, "calls of acquire that gave a lease")                                          \
  X(matches_total, "calls of match")                                                               \
  X(releases_total, "leases given back")                                                           \
  X(pages_allocated_total, "private pages handed out")                                             \
  X(pages_freed_total, "private pages given back, by free or release")                             \
  X(pages_sealed_total, "pages encoded into the cache's format")                                   \
  X(pages_unsealed_total, "pages decoded back into open ones by truncate")                         \
  X(pages_published_total, "pages that became visible")                                            \
  X(pages_duplicate_total, "pages that somebody else had published first")                         \
  X(pages_unindexed_total,                                                                         \
    "pages that publish left private: full bin, counter limit or dead parent")                     \
  X(evictions_capacity_total, "pages evicted because frames were needed")                          \
  X(evictions_idle_total, "pages evicted by idle TTL")                                             \
  X(evictions_expired_total, "pages evicted by absolute TTL")                                      \
  X(evictions_namespace_total, "pages evicted with their namespace")                               \
  X(evictions_quota_total, "pages evicted for their namespace's own quota")                        \
  X(pages_over_quota_total, "pages that publish left private: no room in their namespace's quota") \
  X(frames_retired_total, "frames that left service")                                              \
  X(frames_limbo_total, "of these, frames that had to wait for a reader")                          \
  X(alloc_again_total, "allocations refused with QUIRE_E_AGAIN")                                   \
  X(alloc_nomem_total, "allocations refused with QUIRE_E_NOMEM")                                   \
  X(cow_copies_total, "partial pages copied on write after a fork")                                \
  X(not_ready_cuts_total, "hits cut short at a page whose writer had not passed")                  \
  X(stream_waits_total, "streams made to wait for the writer of a page")                           \
  X(token_mismatches_total, "hits refused because the token ids differed")                         \
  X(leases_late_total, "leases that passed their deadline")                                        \
  X(leases_revoked_total, "revocable leases taken back")                                           \
  X(nonfinite_values_total, "NaN and infinities met by the encoders")                              \
  X(steps_total, "calls of step")                                                                  \
  X(events_recorded_total, "device events recorded")                                               \
  X(device_errors_total, "device calls that failed")                                               \
  X(reclaim_passes_total, "passes of the reclaimer")                                               \
  X(reclaim_scanned_total, "pages that these scanned")                                             \
  X(events_dropped_total, "page events lost because nobody polled")                                \
  X(use_records_total, "releases that the policy has learned from")                                \
  X(use_records_lost_total, "releases that came too fast for it, or too late")                     \
  X(policy_fits_total, "times that the policy has made a table of what it learned")

#define QUIRE_STATS_GAUGES(X)                                                 \
  X(epoch, "the clock")                                                       \
  X(pages_capacity, "page descriptors")                                       \
  X(pages_free, "descriptors not in use")                                     \
  X(pages_private, "pages that hang on a lease, a sequence or a caller")      \
  X(pages_visible, "pages in the index")                                      \
  X(frames_capacity, "sealed frames")                                         \
  X(frames_free, "sealed frames in the pool")                                 \
  X(frames_limbo, "sealed frames that wait for a reader")                     \
  X(open_frames_capacity, "open frames")                                      \
  X(open_frames_free, "open frames in the pool")                              \
  X(open_frames_limbo, "open frames that wait for a reader")                  \
  X(leases, "leases held")                                                    \
  X(leases_late, "leases held past their deadline")                           \
  X(sequences, "sequences open")                                              \
  X(namespaces, "namespaces known")                                           \
  X(streams, "streams registered, or removed and not yet passed")             \
  X(slowest_reader_lag, "epochs that the slowest stream is behind the clock") \
  X(slowest_guard_age, "epochs that the oldest guard is behind the clock")    \
  X(page_bytes, "bytes of a sealed frame")                                    \
  X(open_page_bytes, "bytes of an open frame")                                \
  X(page_tokens, "tokens a page")                                             \
  X(metadata_bytes, "bytes of the region that holds all metadata")            \
  X(arena_bytes, "bytes of frames that are backed by memory")                 \
  X(policy_bytes, "bytes that the policy learns in, beside the region")       \
  X(policy_classes, "classes of pages that it tells apart by now")

typedef struct quire_stats {
  uint32_t size;
  uint32_t reserved;
#define QUIRE_STATS_FIELD(name, help) uint64_t name;
  QUIRE_STATS_COUNTERS(QUIRE_STATS_FIELD)
  QUIRE_STATS_GAUGES(QUIRE_STATS_FIELD)
#undef QUIRE_STATS_FIELD
  double kv_cache_usage_ratio; /* sealed frames in use / all */
  double prefix_hit_ratio;     /* prefix_hits_total / prefix_queries_total; 0 without queries */
} quire_stats;

/* Sums the shards without stopping anyone: each figure is exact, all together are of no single
 * instant. */
QUIRE_API quire_status quire_stats_get(quire_cache *c, quire_stats *out);

/* The same and the histograms as text: JSON, or Prometheus exposition format. *bytes in: room in
 * out; out: bytes that the text has, with its final 0; QUIRE_E_INVALID where room was too small
 * (out NULL and *bytes 0 asks for the size). */
QUIRE_API quire_status quire_stats_json(quire_cache *c, char *out, size_t *bytes);
QUIRE_API quire_status quire_stats_prometheus(quire_cache *c, char *out, size_t *bytes);

/* Checks every invariant of the metadata. Exact only while no other call runs (QUIRE_E_CORRUPT
 * with the first violation in quire_last_error); while others run, set flags to QUIRE_CHECK_LIVE:
 * checks only what holds at any time. Cost: O(pages). */
#define QUIRE_CHECK_LIVE 1u
QUIRE_API quire_status quire_check(quire_cache *c, uint32_t flags);

typedef enum quire_event_kind {
  QUIRE_EVENT_STORED = 1,    /* a page became visible */
  QUIRE_EVENT_REMOVED = 2,   /* a page was evicted */
  QUIRE_EVENT_LEASE_LATE = 3 /* a lease passed its deadline */
} quire_event_kind;

typedef enum quire_evict_reason {
  QUIRE_EVICT_CAPACITY = 1,
  QUIRE_EVICT_IDLE = 2,
  QUIRE_EVICT_EXPIRED = 3,
  QUIRE_EVICT_NAMESPACE = 4,
  QUIRE_EVICT_QUOTA = 5
} quire_evict_reason;

typedef struct quire_event {
  uint32_t size;
  uint32_t kind;     /* quire_event_kind */
  uint32_t reason;   /* quire_evict_reason, of REMOVED */
  uint32_t index;    /* of the page in its chain */
  uint64_t sequence; /* grows by one an event; a gap is what was lost */
  uint64_t epoch;
  uint64_t owner; /* of the lease */
  /* of a page: its key; its parent's, of a first page its namespace's root; its handle, which tells
   * it from another of the same key; the number of its namespace; quire_tier */
  quire_key key;
  quire_key parent;
  quire_page page;
  uint32_t space;
  uint32_t tier;
} quire_event;

/* Up to *n events, oldest first; *n out: how many. The stream is bounded: it keeps the last 4096
 * events; those that nobody had polled by then are lost, and counted (events_dropped_total). All
 * polls share one place in it: each event goes to one of them. The first poll starts the stream, or
 * config.events. Lock-free; stops nobody who publishes or evicts. events[0].size gives the size of
 * each. */
QUIRE_API quire_status quire_events_poll(quire_cache *c, quire_event *events, size_t *n);

/* The same for a reader with a place of its own; there may be any number of them. *cursor = 0
 * begins: it becomes the number of the next event, none is given, and the stream is started.
 * *lost (or NULL) grows by the events that were overwritten before they were read.
 *
 * To hold the same picture as the cache, a router
 *   1. begins: cursor = 0, quire_events_read;
 *   2. lists the pages that are published, with quire_published_next, into a map by page handle;
 *   3. reads events: STORED puts the page into the map, where it may be already, REMOVED takes it
 *      out, where it may not be. Whenever it has read all there are, the map is what the cache has;
 *   4. begins again with an empty map when *lost has grown.
 * Two pages of one key may be in the map for a while: one dead, one alive. A key is cached while any
 * of its pages is. Of a chain, children are removed before their parents. */
QUIRE_API quire_status quire_events_read(quire_cache *c, uint64_t *cursor, quire_event *events,
                                         size_t *n, uint64_t *lost);

/* A published page. */
typedef struct quire_published {
  uint32_t size;
  uint32_t index; /* in its chain */
  quire_page page;
  quire_key key;
  quire_key parent; /* as in quire_event */
  uint32_t space;   /* number of its namespace */
  uint32_t tier;    /* quire_tier */
  uint32_t flags;   /* QUIRE_PAGE_DEAD */
  uint32_t references;
  uint32_t children;
  uint32_t reserved;
  uint64_t age_epochs; /* since its last stamp */
} quire_published;

/* Published pages, up to *n of them; *n out: how many. *at = 0 starts; it is where to go on, 0 at
 * the end. Each page that is there throughout the walk is listed once; pages that come or go
 * meanwhile may be or not, as events will tell. out[0].size gives the size of each. Cost: O(pages)
 * for all. */
QUIRE_API quire_status quire_published_next(quire_cache *c, uint64_t *at, quire_published *out,
                                            size_t *n);

/* ---- looking in from outside ----------------------------------------------------------------- */

/* A cache's metadata, mapped read-only by another process (or the same one), while its engine runs
 * or after it died. Nothing here can disturb the engine. */
typedef struct quire_segment quire_segment;

typedef struct quire_segment_record {
  uint32_t size;
  uint32_t alive; /* 1: the process that made it still runs */
  uint64_t pid;
  uint64_t bytes;
  char name[64];
} quire_segment_record;

/* Segments on this machine that this user may read. *n in: room; out: how many there are. */
QUIRE_API quire_status quire_segment_list(quire_segment_record *out, size_t *n);

/* QUIRE_E_IO: no such segment, or not allowed; QUIRE_E_CORRUPT: not a segment of Quire;
 * QUIRE_E_VERSION: another layout. */
QUIRE_API quire_status quire_segment_attach(const char *name, quire_segment **out);
QUIRE_API quire_status quire_segment_detach(quire_segment *s);

/* Removes what a dead process left. QUIRE_E_BUSY: its process lives. */
QUIRE_API quire_status quire_segment_remove(const char *name);

QUIRE_API quire_status quire_segment_info(quire_segment *s, quire_segment_record *out);
QUIRE_API quire_status quire_segment_layout(quire_segment *s,
                                            quire_layout_info *out); /* bases are NULL */
QUIRE_API quire_status quire_segment_stats(quire_segment *s, quire_stats *out);
QUIRE_API quire_status quire_segment_json(quire_segment *s, char *out, size_t *bytes);
QUIRE_API quire_status quire_segment_prometheus(quire_segment *s, char *out, size_t *bytes);
QUIRE_API quire_status
quire_segment_check(quire_segment *s); /* live checks if its process runs, else all */
QUIRE_API quire_status quire_segment_lease_next(quire_segment *s, quire_lease *lease,
                                                quire_lease_record *out);
QUIRE_API quire_status quire_segment_namespace_next(quire_segment *s, uint32_t *at,
                                                    quire_namespace_record *out);
/* As quire_events_read and quire_published_next, but that nothing can be started from here: until
 * the engine polls, reads or was opened with config.events, there are no events. Handles in both are
 * of no cache: they tell pages apart. */
QUIRE_API quire_status quire_segment_events(quire_segment *s, uint64_t *cursor, quire_event *events,
                                            size_t *n, uint64_t *lost);
QUIRE_API quire_status quire_segment_published_next(quire_segment *s, uint64_t *at,
                                                    quire_published *out, size_t *n);

/* Frames and tokens that fit a budget, for planning; needs no cache. config: geometry, format,
 * device_bytes, open_pages. */
typedef struct quire_plan_result {
  uint32_t size;
  uint32_t page_tokens;
  uint64_t page_bytes;
  uint64_t open_page_bytes;
  uint64_t pages;      /* sealed frames */
  uint64_t open_pages; /* open frames */
  uint64_t tokens;     /* in sealed frames */
  uint64_t metadata_bytes;
  double bits_per_value; /* scales and headers included */
  double bytes_per_token;
} quire_plan_result;

QUIRE_API quire_status quire_plan(const quire_config *config, quire_plan_result *out);

#ifdef __cplusplus
}
#endif

#endif /* QUIRE_QUIRE_H */
