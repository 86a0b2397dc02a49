// The C boundary of sequences, kernels and the streams of the cpu device.
#include "kernels/codec.h"
#include "runtime/c_boundary.h"
#include "runtime/cpu_stream.h"
#include "runtime/sequence.h"

using quire::Cache;
using quire::Sequences;
using quire::Status;

extern "C" {

// ---- sequences

quire_status quire_seq_open(quire_cache *c, const quire_key *root, const uint32_t *tokens,
                            size_t n_tokens, const quire_seq_options *opt, quire_hit *hit,
                            quire_seq *seq) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_seq_options o;
    quire_hit h;
    quire_retention storage;
    if (root == nullptr || seq == nullptr || (tokens == nullptr && n_tokens > 0)) {
      return set_error(Status::kInvalid, "root, tokens or seq is NULL");
    }
    if (const Status s = quire::read_optional(opt, "opt", &o); s != Status::kOk) return s;
    if (const Status s = quire::read_output(hit, "hit", true, &h); s != Status::kOk) return s;
    if ((o.flags & ~(QUIRE_SEQ_PRIVATE | QUIRE_SEQ_LEAVE_ONE)) != 0) {
      return set_error(Status::kInvalid, "opt.flags: unknown bits in %#x", o.flags);
    }
    if (o.extra == nullptr && o.n_extra > 0)
      return set_error(Status::kInvalid, "opt.extra is NULL");
    if (o.retention != nullptr) {
      const Status s = quire::read_struct(o.retention, "opt.retention", &storage);
      if (s != Status::kOk) return s;
      o.retention = &storage;
    }
    const Status status = Sequences(cache).open(*root, tokens, n_tokens, o, &h, seq);
    if (status == Status::kOk && hit != nullptr) quire::write_struct(h, hit);
    return status;
  });
}

quire_status quire_seq_append(quire_cache *c, quire_seq seq, uint32_t n, quire_stream stream,
                              int64_t *slots) {
  return quire::on_cache(
      c, [&](Cache &cache) { return Sequences(cache).append(seq, n, stream, slots); });
}

quire_status quire_seq_commit(quire_cache *c, quire_seq seq, const uint32_t *tokens, uint32_t n,
                              quire_stream stream) {
  return quire::on_cache(
      c, [&](Cache &cache) { return Sequences(cache).commit(seq, tokens, n, stream); });
}

quire_status quire_seq_fork(quire_cache *c, quire_seq seq, quire_stream stream, quire_seq *child) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (child == nullptr) return set_error(Status::kInvalid, "child is NULL");
    return Sequences(cache).fork(seq, stream, child);
  });
}

quire_status quire_seq_truncate(quire_cache *c, quire_seq seq, uint64_t n_tokens,
                                quire_stream stream) {
  return quire::on_cache(
      c, [&](Cache &cache) { return Sequences(cache).truncate(seq, n_tokens, stream); });
}

quire_status quire_seq_block_table(quire_cache *c, quire_seq seq, int32_t *out, uint32_t room,
                                   uint32_t *n_pages, uint64_t *kv_len) {
  return quire::on_cache(c, [&](Cache &cache) {
    return Sequences(cache).block_table(seq, out, room, n_pages, kv_len);
  });
}

quire_status quire_seq_info(quire_cache *c, quire_seq seq, quire_seq_record *out) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_seq_record record;
    if (const Status s = quire::read_output(out, "out", false, &record); s != Status::kOk) return s;
    const Status status = Sequences(cache).info(seq, &record);
    if (status == Status::kOk) quire::write_struct(record, out);
    return status;
  });
}

quire_status quire_seq_close(quire_cache *c, quire_seq seq, const quire_retention *retention) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_retention storage;
    if (retention == nullptr) return Sequences(cache).close(seq, nullptr);
    const Status s = quire::read_struct(retention, "retention", &storage);
    return s == Status::kOk ? Sequences(cache).close(seq, &storage) : s;
  });
}

// ---- cpu streams

quire_status quire_cpu_stream_create(quire_stream *out) {
  if (out == nullptr) return quire::refuse("out is NULL");
  return quire::guarded([&] { return quire::CpuStream::create(1, out); });
}

quire_status quire_cpu_stream_destroy(quire_stream stream) {
  return quire::guarded([&] { return quire::CpuStream::destroy(stream); });
}

quire_status quire_cpu_stream_wait(quire_stream stream) {
  return quire::guarded([&] { return quire::CpuStream::wait(stream); });
}

quire_status quire_cpu_stream_launch(quire_stream stream, void (*fn)(void *arg), void *arg) {
  if (fn == nullptr) return quire::refuse("fn is NULL");
  return quire::guarded([&] { return quire::CpuStream::launch(stream, fn, arg); });
}

// ---- kernels

quire_status quire_kv_append(quire_cache *c, const quire_append_args *args) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_append_args a;
    const Status s = quire::read_struct(args, "args", &a);
    return s == Status::kOk ? cache.kv_append(a) : s;
  });
}

quire_status quire_kv_gather(quire_cache *c, const quire_gather_args *args) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_gather_args a;
    const Status s = quire::read_struct(args, "args", &a);
    return s == Status::kOk ? cache.kv_gather(a) : s;
  });
}

quire_status quire_key_anchor_set(quire_cache *c, uint32_t layer, const float *means) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (means == nullptr) return set_error(Status::kInvalid, "means is NULL");
    return cache.anchor_set(layer, means);
  });
}

quire_status quire_attention_decode(quire_cache *c, const quire_attention_args *args) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_attention_args a;
    const Status s = quire::read_struct(args, "args", &a);
    return s == Status::kOk ? cache.attention(a) : s;
  });
}

quire_status quire_attention_workspace(quire_cache *c, const quire_attention_bounds *bounds,
                                       size_t *bytes) {
  return quire::on_cache(c, [&](Cache &cache) {
    quire_attention_bounds b;
    if (bytes == nullptr) return set_error(Status::kInvalid, "bytes is NULL");
    const Status s = quire::read_struct(bounds, "bounds", &b);
    return s == Status::kOk ? cache.attention_workspace(b, bytes) : s;
  });
}

const char *quire_cpu_target(void) {
  return quire::kernels::active_target();
}

quire_status quire_cpu_target_set(const char *name) {
  if (quire::kernels::select_target(name)) return QUIRE_OK;
  return quire::to_c(
      set_error(Status::kUnsupported, "no CPU target \"%s\" in this build or machine", name));
}

}  // extern "C"
