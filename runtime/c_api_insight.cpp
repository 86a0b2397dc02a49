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

// `fill(batch, &count)` for batches of structs until the caller's room is full or one falls short of
// what was asked for.
template <class T, class Fill>
void fill_array(T *out, size_t *n, Fill &&fill) noexcept {
  const size_t room = *n;
  OutputArray<T> array(out);
  T batch[32];
  for (*n = 0; *n < room;) {
    const size_t asked = std::min(room - *n, std::size(batch));
    size_t got = asked;
    fill(batch, &got);
    for (size_t i = 0; i < got; ++i) array.put(*n + i, batch[i]);
    *n += got;
    if (got < asked) return;
  }
}

Status poll_events(Cache &cache, quire_event *events, size_t *n) noexcept {
  EventRing &ring = cache.tables().events;
  // Also without room: the first poll starts the stream.
  if (*n == 0) ring.poll_nothing();
  fill_array(events, n, [&](quire_event *out, size_t *count) {
    const size_t asked = *count;
    EventRing::Words words;
    uint64_t number = 0;
    for (*count = 0; *count < asked && ring.poll(&words, &number); ++*count) {
      to_event(cache.tables(), cache.tag(), EventRecord::of(words), number, &out[*count]);
    }
  });
  return Status::kOk;
}

// What the arguments of a reader must be.
Status check_reader(const uint64_t *cursor, const quire_event *events, const size_t *n) noexcept {
  if (cursor == nullptr || n == nullptr) return set_error(Status::kInvalid, "cursor or n is NULL");
  return *n > 0 ? check_output(events, "events[0]") : Status::kOk;
}

void follow(const Tables &tables, uint32_t cache_tag, uint64_t *cursor, quire_event *events,
            size_t *n, uint64_t *lost) noexcept {
  uint64_t unasked = 0;
  uint64_t *const count_lost = lost != nullptr ? lost : &unasked;
  const bool begins = *cursor == 0;
  // A number that no event has yet would wait for it: what comes from elsewhere begins anew.
  if (*cursor > tables.events.begin()) *cursor = tables.events.begin();
  if (begins) {
    *n = 0;
    read_events(tables, cache_tag, cursor, nullptr, n, count_lost);
    return;
  }
  fill_array(events, n, [&](quire_event *out, size_t *count) {
    read_events(tables, cache_tag, cursor, out, count, count_lost);
  });
}

Status check_list(const uint64_t *at, const quire_published *out, const size_t *n) noexcept {
  if (at == nullptr || n == nullptr) return set_error(Status::kInvalid, "at or n is NULL");
  if (*n == 0) return set_error(Status::kInvalid, "no room for a page");
  return check_output(out, "pages[0]");
}

// Batches that end with the walk's end.
void list(const Tables &tables, uint32_t cache_tag, uint64_t now_ms, uint64_t *at,
          quire_published *out, size_t *n) noexcept {
  bool ended = false;
  fill_array(out, n, [&](quire_published *batch, size_t *count) {
    if (ended) {
      *count = 0;
      return;
    }
    list_published(tables, cache_tag, now_ms, at, batch, count);
    ended = *at == 0;
  });
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

quire_status quire_events_read(quire_cache *c, uint64_t *cursor, quire_event *events, size_t *n,
                               uint64_t *lost) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (const Status s = quire::check_reader(cursor, events, n); s != Status::kOk) return s;
    if (*cursor == 0) cache.tables().events.start();
    quire::follow(cache.tables(), cache.tag(), cursor, events, n, lost);
    return Status::kOk;
  });
}

quire_status quire_published_next(quire_cache *c, uint64_t *at, quire_published *out, size_t *n) {
  return quire::on_cache(c, [&](Cache &cache) {
    if (const Status s = quire::check_list(at, out, n); s != Status::kOk) return s;
    quire::list(cache.tables(), cache.tag(), cache.now_ms(), at, out, n);
    return Status::kOk;
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

quire_status quire_segment_events(quire_segment *s, uint64_t *cursor, quire_event *events,
                                  size_t *n, uint64_t *lost) {
  return quire::on_segment(s, [&](quire::Segment &segment) {
    if (const Status t = quire::check_reader(cursor, events, n); t != Status::kOk) return t;
    quire::follow(segment.tables(), quire::kNoCacheTag, cursor, events, n, lost);
    return Status::kOk;
  });
}

quire_status quire_segment_published_next(quire_segment *s, uint64_t *at, quire_published *out,
                                          size_t *n) {
  return quire::on_segment(s, [&](quire::Segment &segment) {
    if (const Status t = quire::check_list(at, out, n); t != Status::kOk) return t;
    quire::list(segment.tables(), quire::kNoCacheTag, segment.now_ms(), at, out, n);
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
