// The C boundary of insight: stats, check, events, segments and planning. As in c_api.cpp, nothing
// is decided here.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "runtime/c_boundary.h"
#include "runtime/plan.h"
#include "runtime/segment.h"

struct quire_segment : quire::Segment {};

namespace quire {
namespace {

Status check_text(const char *out, const size_t *bytes) noexcept {
  if (bytes == nullptr) return set_error(Status::kInvalid, "bytes is NULL");
  if (out == nullptr && *bytes != 0) return set_error(Status::kInvalid, "out is NULL");
  return Status::kOk;
}

// out[0 .. room) of structs whose size, and so whose distance, the first one gives.
template <class T>
class OutputArray {
 public:
  explicit OutputArray(T *out) noexcept : at_(reinterpret_cast<char *>(out)) {
    if (at_ != nullptr) std::memcpy(&size_, at_, sizeof size_);
  }
  void put(size_t i, const T &value) noexcept {
    T copy = value;
    copy.size = size_;
    std::memcpy(at_ + i * size_, &copy, std::min<size_t>(size_, sizeof copy));
  }

 private:
  char *at_;
  uint32_t size_ = 0;
};

// The body of a call on a segment.
template <class Body>
quire_status on_segment(quire_segment *s, Body &&body) noexcept {
  if (s == nullptr) return refuse("the segment is NULL");
  return guarded([&] { return body(*s); });
}

void to_event(const EventRecord &from, quire_event *out) noexcept {
  out->kind = from.kind;
  out->reason = from.reason;
  out->index = from.index;
  out->sequence = from.sequence;
  out->epoch = from.epoch;
  out->owner = from.owner;
  out->key = quire_key{from.key.lo, from.key.hi};
}

Status poll_events(Cache &cache, quire_event *events, size_t *n) noexcept {
  const size_t room = *n;
  *n = 0;
  // Also without room: the first poll starts the stream.
  EventRing &ring = cache.tables().events;
  EventRecord batch[32];
  OutputArray<quire_event> out(events);
  for (size_t done = 0;;) {
    const size_t got = ring.poll(batch, std::min(room - done, std::size(batch)));
    for (size_t i = 0; i < got; ++i) {
      quire_event event = {};
      to_event(batch[i], &event);
      out.put(done + i, event);
    }
    *n = done += got;
    if (got < std::size(batch) || done == room) return Status::kOk;
  }
}

Status list_segments(quire_segment_record *out, size_t *n) noexcept {
  const size_t room = *n;
  const std::unique_ptr<quire_segment_record[]> records(new (std::nothrow)
                                                            quire_segment_record[room + 1]());
  if (!records) return set_error(Status::kNomem, "no room for %zu records", room);
  if (const Status s = segment_list(records.get(), n); s != Status::kOk) return s;
  OutputArray<quire_segment_record> array(out);
  for (size_t i = 0; i < std::min(room, *n); ++i) array.put(i, records[i]);
  return Status::kOk;
}

}  // namespace
}  // namespace quire

using quire::Cache;
using quire::Status;

extern "C" {

// ---- stats, check, events

quire_status quire_stats_get(quire_cache *c, quire_stats *out) {
  return quire::on_cache(c, [&](Cache &cache) {
    return quire::fill_output(out, "stats", [&](quire_stats *whole) {
      cache.stats(whole);
      return Status::kOk;
    });
  });
}

quire_status quire_stats_json(quire_cache *c, char *out, size_t *bytes) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (const Status s = quire::check_text(out, bytes); s != Status::kOk) return s;
    return quire::report_json(quire::report_source(cache), out, bytes);
  });
}

quire_status quire_stats_prometheus(quire_cache *c, char *out, size_t *bytes) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (const Status s = quire::check_text(out, bytes); s != Status::kOk) return s;
    return quire::report_prometheus(quire::report_source(cache), out, bytes);
  });
}

quire_status quire_check(quire_cache *c, uint32_t flags) {
  return quire::on_cache(c, [&](Cache &cache) {
    if ((flags & ~QUIRE_CHECK_LIVE) != 0) {
      return set_error(Status::kInvalid, "flags %x: QUIRE_CHECK_LIVE is the only one", flags);
    }
    return cache.check(flags);
  });
}

quire_status quire_events_poll(quire_cache *c, quire_event *events, size_t *n) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (n == nullptr) return set_error(Status::kInvalid, "n is NULL");
    if (*n > 0) {
      if (const Status s = quire::check_output(events, "events[0]"); s != Status::kOk) return s;
    }
    return quire::poll_events(cache, events, n);
  });
}

// ---- segments

quire_status quire_segment_list(quire_segment_record *out, size_t *n) {
  if (n == nullptr) return quire::refuse("n is NULL");
  if (*n > (1u << 20)) return quire::refuse("room for more than 2^20 records");
  if (*n > 0) {
    if (const Status s = quire::check_output(out, "records[0]"); s != Status::kOk) {
      return quire::to_c(s);
    }
  }
  return quire::guarded([&] { return quire::list_segments(out, n); });
}

quire_status quire_segment_attach(const char *name, quire_segment **out) {
  if (name == nullptr || out == nullptr) return quire::refuse("name or out is NULL");
  return quire::guarded([&] {
    std::unique_ptr<quire_segment> segment(new (std::nothrow) quire_segment);
    if (!segment) return set_error(Status::kNomem, "no memory for a segment");
    const Status status = segment->attach(name);
    if (status == Status::kOk) *out = segment.release();
    return status;
  });
}

quire_status quire_segment_detach(quire_segment *s) {
  delete s;
  return QUIRE_OK;
}

quire_status quire_segment_remove(const char *name) {
  if (name == nullptr) return quire::refuse("name is NULL");
  return quire::guarded([&] { return quire::segment_remove(name); });
}

quire_status quire_segment_info(quire_segment *s, quire_segment_record *out) {
  return quire::on_segment(s, [&](quire::Segment &segment) {
    return quire::fill_output(out, "record", [&](quire_segment_record *whole) {
      segment.info(whole);
      return Status::kOk;
    });
  });
}

quire_status quire_segment_layout(quire_segment *s, quire_layout_info *out) {
  return quire::on_segment(s, [&](quire::Segment &segment) {
    return quire::fill_output(out, "layout",
                              [&](quire_layout_info *whole) { return segment.layout(whole); });
  });
}

quire_status quire_segment_stats(quire_segment *s, quire_stats *out) {
  return quire::on_segment(s, [&](quire::Segment &segment) {
    return quire::fill_output(out, "stats", [&](quire_stats *whole) {
      segment.stats(whole);
      return Status::kOk;
    });
  });
}

quire_status quire_segment_json(quire_segment *s, char *out, size_t *bytes) {
  return quire::on_segment(s, [&](quire::Segment &segment) {
    if (const Status t = quire::check_text(out, bytes); t != Status::kOk) return t;
    return segment.json(out, bytes);
  });
}

quire_status quire_segment_prometheus(quire_segment *s, char *out, size_t *bytes) {
  return quire::on_segment(s, [&](quire::Segment &segment) {
    if (const Status t = quire::check_text(out, bytes); t != Status::kOk) return t;
    return segment.prometheus(out, bytes);
  });
}

quire_status quire_segment_check(quire_segment *s) {
  return quire::on_segment(s, [](quire::Segment &segment) { return segment.check(); });
}

quire_status quire_segment_lease_next(quire_segment *s, quire_lease *lease,
                                      quire_lease_record *out) {
  return quire::on_segment(s, [&](quire::Segment &segment) {
    if (lease == nullptr) return set_error(Status::kInvalid, "lease is NULL");
    return quire::fill_output(
        out, "record", [&](quire_lease_record *whole) { return segment.lease_next(lease, whole); });
  });
}

quire_status quire_segment_namespace_next(quire_segment *s, uint32_t *at,
                                          quire_namespace_record *out) {
  return quire::on_segment(s, [&](quire::Segment &segment) {
    if (at == nullptr) return set_error(Status::kInvalid, "at is NULL");
    if (const Status t = quire::check_output(out, "record"); t != Status::kOk) return t;
    quire_namespace_record whole = {};
    if (segment.namespace_next(at, &whole)) quire::write_struct(whole, out);
    return Status::kOk;
  });
}

// ---- planning

quire_status quire_plan(const quire_config *config, quire_plan_result *out) {
  quire_config whole;
  if (const Status s = quire::read_struct(config, "config", &whole); s != Status::kOk) {
    return quire::to_c(s);
  }
  return quire::guarded([&] {
    return quire::fill_output(
        out, "result", [&](quire_plan_result *result) { return quire::make_plan(whole, result); });
  });
}

}  // extern "C"
