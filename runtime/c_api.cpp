// The C boundary: every function of quire.h that works on a cache, but insight (c_api_insight.cpp),
// sequences and kernels (c_api_engine.cpp).
//
// Here, and only here: NULLs are refused, structs of other sizes are widened to ours and written
// back no further than the caller's, exceptions end, and a Status becomes a quire_status. Nothing
// is decided here.
#include <unistd.h>

#include <cstring>
#include <new>

#include "runtime/c_boundary.h"
#include "runtime/cpu_stream.h"

namespace quire {
namespace {

// A prefix as the caller gave it, checked.
Status read_prefix(Cache &cache, const quire_prefix *from, bool needs_tokens, quire_prefix *out) {
  if (const Status s = read_struct(from, "prefix", out); s != Status::kOk) return s;
  if (out->n > 0 && out->keys == nullptr) return set_error(Status::kInvalid, "prefix.keys is NULL");
  const bool keeps = cache.config().values.verify_tokens != 0;
  if (needs_tokens && keeps && out->n > 0 && out->tokens == nullptr) {
    return set_error(Status::kInvalid, "prefix.tokens is NULL, and this cache verifies tokens");
  }
  return Status::kOk;
}

Status read_retention(const quire_retention *from, quire_retention *storage,
                      const quire_retention **out) {
  *out = nullptr;
  if (from == nullptr) return Status::kOk;
  if (const Status s = read_struct(from, "retention", storage); s != Status::kOk) return s;
  *out = storage;
  return Status::kOk;
}

}  // namespace
}  // namespace quire

using quire::Cache;
using quire::Status;

extern "C" {

uint32_t quire_version(void) {
  return QUIRE_VERSION_NUMBER;
}

const char *quire_status_string(quire_status status) {
  switch (static_cast<int>(status)) {
#define QUIRE_STATUS_TEXT(name, value, text) \
  case value:                                \
    return text;
    QUIRE_STATUS_TABLE(QUIRE_STATUS_TEXT)
#undef QUIRE_STATUS_TEXT
    default:
      return "unknown status";
  }
}

const char *quire_last_error(void) {
  return quire::last_error();
}

// ---- life

quire_status quire_config_init(quire_config *config) {
  if (config == nullptr) return quire::refuse("config is NULL");
  config->size = sizeof *config;
  quire::config_defaults(config);
  return QUIRE_OK;
}

quire_status quire_config_parse(quire_config *config, const char *text) {
  static thread_local char strings[512];
  if (config == nullptr || text == nullptr) return quire::refuse("config or text is NULL");
  quire_config whole;
  if (const Status s = quire::read_struct(config, "config", &whole); s != Status::kOk) {
    return quire::to_c(s);
  }
  const Status status = quire::config_parse(&whole, text, strings, sizeof strings);
  if (status == Status::kOk) quire::write_struct(whole, config);
  return quire::to_c(status);
}

quire_status quire_open(const quire_config *config, quire_cache **out) {
  if (out == nullptr) return quire::refuse("out is NULL");
  quire_config whole;
  if (const Status s = quire::read_struct(config, "config", &whole); s != Status::kOk) {
    return quire::to_c(s);
  }
  return quire::guarded([&] {
    Cache *cache = nullptr;
    const Status status = Cache::open(whole, nullptr, &cache);
    if (status == Status::kOk) *out = quire::to_c(cache);
    return status;
  });
}

quire_status quire_close(quire_cache *c) {
  if (c == nullptr) return QUIRE_OK;
  return quire::on_cache(c, [](Cache &cache) { return Cache::close(&cache); });
}

quire_status quire_resize(quire_cache *c, quire_tier, uint64_t) {
  return quire::on_cache(c, [](Cache &) {
    return set_error(Status::kUnsupported, "this version cannot resize a tier that is open");
  });
}

// ---- keys

quire_status quire_root_key(quire_cache *c, const quire_field *fields, size_t n_fields,
                            quire_key *root) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (root == nullptr || (fields == nullptr && n_fields > 0)) {
      return set_error(Status::kInvalid, "fields or root is NULL");
    }
    return cache.keys().root_key(fields, n_fields, root);
  });
}

quire_status quire_chain_keys(quire_cache *c, const quire_key *parent, const uint32_t *tokens,
                              size_t n_tokens, const quire_page_extra *extra, size_t n_extra,
                              quire_key *keys, size_t *n) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (parent == nullptr || n == nullptr || (tokens == nullptr && n_tokens > 0) ||
        (extra == nullptr && n_extra > 0) || (keys == nullptr && *n > 0)) {
      return set_error(Status::kInvalid, "parent, tokens, extra, keys or n is NULL");
    }
    return cache.keys().chain_keys(*parent, tokens, n_tokens, cache.config().page_tokens(), extra,
                                   n_extra, keys, n);
  });
}

quire_status quire_namespace_set(quire_cache *c, const quire_key *root,
                                 const quire_namespace *settings) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (root == nullptr) return set_error(Status::kInvalid, "root is NULL");
    quire_namespace whole;
    if (const Status s = quire::read_struct(settings, "settings", &whole); s != Status::kOk)
      return s;
    return cache.namespace_set(quire::to_key(*root), whole);
  });
}

quire_status quire_namespace_get(quire_cache *c, const quire_key *root,
                                 quire_namespace_record *out) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (root == nullptr) return set_error(Status::kInvalid, "root is NULL");
    return quire::fill_output(out, "record", [&](quire_namespace_record *whole) {
      cache.namespace_get(quire::to_key(*root), whole);
      return Status::kOk;
    });
  });
}

quire_status quire_namespace_next(quire_cache *c, uint32_t *at, quire_namespace_record *out) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (at == nullptr) return set_error(Status::kInvalid, "at is NULL");
    if (const Status s = quire::check_output(out, "record"); s != Status::kOk) return s;
    quire_namespace_record whole = {};
    if (quire::next_namespace(cache.tables(), at, &whole)) quire::write_struct(whole, out);
    return Status::kOk;
  });
}

quire_status quire_evict(quire_cache *c, const quire_key *root) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (root == nullptr) return set_error(Status::kInvalid, "root is NULL");
    return cache.evict_namespace(quire::to_key(*root));
  });
}

// ---- lookup

quire_status quire_match(quire_cache *c, const quire_prefix *prefix, quire_hit *hit) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_prefix p;
    quire_hit h;
    if (const Status s = quire::read_prefix(cache, prefix, false, &p); s != Status::kOk) return s;
    if (const Status s = quire::read_output(hit, "hit", false, &h); s != Status::kOk) return s;
    const Status status = cache.match(p, &h);
    if (status == Status::kOk) quire::write_struct(h, hit);
    return status;
  });
}

quire_status quire_acquire(quire_cache *c, const quire_prefix *prefix,
                           const quire_acquire_options *opt, quire_page *pages, quire_hit *hit,
                           quire_lease *lease) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_prefix p;
    quire_acquire_options o;
    quire_hit h;
    if (lease == nullptr) return set_error(Status::kInvalid, "lease is NULL");
    if (const Status s = quire::read_prefix(cache, prefix, true, &p); s != Status::kOk) return s;
    if (const Status s = quire::read_optional(opt, "opt", &o); s != Status::kOk) return s;
    if (const Status s = quire::read_output(hit, "hit", true, &h); s != Status::kOk) return s;
    if ((o.flags & ~QUIRE_ACQUIRE_REVOCABLE) != 0) {
      return set_error(Status::kInvalid, "opt.flags: unknown bits in %#x", o.flags);
    }
    const Status status = cache.acquire(p, o, pages, &h, lease);
    if (status == Status::kOk && hit != nullptr) quire::write_struct(h, hit);
    return status;
  });
}

quire_status quire_release(quire_cache *c, quire_lease lease, const quire_retention *retention) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_retention storage;
    const quire_retention *r;
    if (const Status s = quire::read_retention(retention, &storage, &r); s != Status::kOk) return s;
    return cache.release(lease, r);
  });
}

quire_status quire_lease_clone(quire_cache *c, quire_lease lease, uint32_t pages,
                               const quire_acquire_options *opt, quire_lease *out) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_acquire_options o;
    if (out == nullptr) return set_error(Status::kInvalid, "out is NULL");
    if (const Status s = quire::read_optional(opt, "opt", &o); s != Status::kOk) return s;
    if ((o.flags & ~QUIRE_ACQUIRE_REVOCABLE) != 0) {
      return set_error(Status::kInvalid, "opt.flags: unknown bits in %#x", o.flags);
    }
    return cache.clone(lease, pages, o, out);
  });
}

quire_status quire_lease_renew(quire_cache *c, quire_lease lease, uint64_t deadline_ms) {
  return quire::on_cache(c, [&](Cache &cache) { return cache.renew(lease, deadline_ms); });
}

quire_status quire_lease_info(quire_cache *c, quire_lease lease, quire_lease_record *out) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_lease_record record;
    if (const Status s = quire::read_output(out, "out", false, &record); s != Status::kOk) return s;
    const Status status = cache.lease_info(lease, &record);
    if (status == Status::kOk) quire::write_struct(record, out);
    return status;
  });
}

quire_status quire_lease_next(quire_cache *c, quire_lease *lease) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (lease == nullptr) return set_error(Status::kInvalid, "lease is NULL");
    return cache.lease_next(lease);
  });
}

// ---- pages

quire_status quire_alloc(quire_cache *c, uint32_t n, const quire_alloc_options *opt,
                         quire_page *pages) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_alloc_options o;
    if (const Status s = quire::read_optional(opt, "opt", &o); s != Status::kOk) return s;
    if ((o.flags & ~QUIRE_ALLOC_SEALED) != 0) {
      return set_error(Status::kInvalid, "opt.flags: unknown bits in %#x", o.flags);
    }
    if (pages == nullptr && n > 0) return set_error(Status::kInvalid, "pages is NULL");
    return cache.alloc(n, o, pages);
  });
}

quire_status quire_free(quire_cache *c, const quire_page *pages, uint32_t n) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (pages == nullptr && n > 0) return set_error(Status::kInvalid, "pages is NULL");
    return cache.free(pages, n);
  });
}

quire_status quire_seal(quire_cache *c, const quire_page *pages, uint32_t n, quire_stream stream) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (pages == nullptr && n > 0) return set_error(Status::kInvalid, "pages is NULL");
    return cache.seal(pages, n, stream);
  });
}

quire_status quire_publish(quire_cache *c, quire_lease lease, const quire_prefix *prefix,
                           quire_page *pages, const quire_publish_options *opt,
                           quire_publish_result *res) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_prefix p;
    quire_publish_options o;
    quire_publish_result r;
    quire_retention storage;
    if (const Status s = quire::read_prefix(cache, prefix, true, &p); s != Status::kOk) return s;
    if (const Status s = quire::read_optional(opt, "opt", &o); s != Status::kOk) return s;
    if (const Status s = quire::read_output(res, "res", true, &r); s != Status::kOk) return s;
    if (const Status s = quire::read_retention(o.retention, &storage, &o.retention);
        s != Status::kOk) {
      return s;
    }
    if ((o.flags & ~QUIRE_PUBLISH_REPLACE) != 0) {
      return set_error(Status::kInvalid, "opt.flags: unknown bits in %#x", o.flags);
    }
    if (pages == nullptr && p.n > 0) return set_error(Status::kInvalid, "pages is NULL");
    const Status status = cache.publish(lease, p, pages, o, &r);
    if (status == Status::kOk && res != nullptr) quire::write_struct(r, res);
    return status;
  });
}

quire_status quire_frames(quire_cache *c, const quire_page *pages, uint32_t n, quire_tier tier,
                          int32_t *out) {
  return quire::on_cache(c, [&](Cache &cache) {
    if ((pages == nullptr || out == nullptr) && n > 0) {
      return set_error(Status::kInvalid, "pages or out is NULL");
    }
    if (tier > QUIRE_TIER_FILE) return set_error(Status::kInvalid, "tier %d is none", int{tier});
    return cache.frames(pages, n, tier, out);
  });
}

quire_status quire_layout(quire_cache *c, quire_tier tier, uint32_t rank, quire_layout_info *out) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_layout_info info;
    if (const Status s = quire::read_output(out, "out", false, &info); s != Status::kOk) return s;
    if (tier != QUIRE_TIER_DEVICE) {
      return set_error(Status::kUnsupported, "this version has the device tier only");
    }
    if (rank != 0) return set_error(Status::kInvalid, "rank %u of 1", rank);
    cache.layout_info(&info);
    quire::write_struct(info, out);
    return Status::kOk;
  });
}

quire_status quire_fetch(quire_cache *c, quire_lease, quire_tier, quire_ticket *) {
  return quire::on_cache(c, [](Cache &) {
    return set_error(Status::kUnsupported, "fetch: this version has the device tier only");
  });
}

quire_status quire_ticket_poll(quire_cache *c, quire_ticket, uint32_t *) {
  return quire::on_cache(c, [](Cache &) {
    return set_error(Status::kUnsupported, "tickets: this version has the device tier only");
  });
}

quire_status quire_ticket_wait(quire_cache *c, quire_ticket, quire_stream) {
  return quire::on_cache(c, [](Cache &) {
    return set_error(Status::kUnsupported, "tickets: this version has the device tier only");
  });
}

quire_status quire_page_info(quire_cache *c, quire_page page, quire_page_record *out) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_page_record record;
    if (const Status s = quire::read_output(out, "out", false, &record); s != Status::kOk) return s;
    const Status status = cache.page_info(page, &record);
    if (status == Status::kOk) quire::write_struct(record, out);
    return status;
  });
}

quire_status quire_page_data(quire_cache *c, quire_page page, void **data, size_t *bytes) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (data == nullptr || bytes == nullptr) {
      return set_error(Status::kInvalid, "data or bytes is NULL");
    }
    return cache.page_data(page, data, bytes);
  });
}

// ---- engine

quire_status quire_stream_add(quire_cache *c, quire_stream stream, uint32_t rank, uint32_t flags) {
  return quire::on_cache(c, [&](Cache &cache) { return cache.stream_add(stream, rank, flags); });
}

quire_status quire_stream_remove(quire_cache *c, quire_stream stream) {
  return quire::on_cache(c, [&](Cache &cache) { return cache.stream_remove(stream); });
}

quire_status quire_step(quire_cache *c) {
  return quire::on_cache(c, [](Cache &cache) { return cache.step(); });
}

}  // extern "C"
