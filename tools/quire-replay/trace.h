// A request trace in memory: what quire-replay reads, and all that a replay looks at.
//
// A trace file is JSON lines: one object a request, with
//   timestamp      ms, a number >= 0        when the request came
//   input_length   tokens, optional         not used by the replay, checked
//   output_length  tokens, optional         likewise
//   class          integer, optional        what the caller would tell at release (quire_retention)
//   hash_ids       array of integers in [0, 2^64): one id per full page of the prompt, first to last
// Other fields are ignored; empty lines are skipped. Anything else is a ParseError that names file
// and line; a trace is read whole or not at all.
//
// The ids of all requests stand in one array, 8 bytes a page, and a request is a range of it:
//   requests[i].begin <= requests[i].end <= ids.size(),  requests[i].end == requests[i + 1].begin
//   for a trace as read (a merged one keeps each file's ranges).
// Thread class: plain data, read-only once built.
#ifndef QUIRE_REPLAY_TRACE_H
#define QUIRE_REPLAY_TRACE_H

#include <cstddef>
#include <cstdint>
#include <istream>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace quire::replay {

struct Request {
  uint64_t timestamp_ms;
  uint64_t begin, end;  // of ids
  uint32_t space;       // number of the trace it came from: each has a namespace of its own
  uint32_t cls = 0;     // 1 .. 8; 0: the trace says none
};

struct Trace {
  std::string name;
  std::vector<Request> requests;
  std::vector<uint64_t> ids;
  uint32_t spaces = 1;
  double parse_seconds = 0;
  uint64_t bytes = 0;

  std::span<const uint64_t> pages(const Request &r) const {
    return {ids.data() + r.begin, ids.data() + r.end};
  }
};

// The message begins with "FILE:LINE: " where a line is to blame.
class ParseError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// At most `limit` requests (0: all). name stands for the stream in messages.
Trace parse_trace(std::istream &in, const std::string &name, uint64_t limit);

// "-" is standard input.
Trace load_trace(const std::string &path, uint64_t limit);

// One trace of several, by timestamp; requests of one file keep their order, and of two that came
// in the same millisecond the one of the earlier file goes first.
Trace merge_traces(std::vector<Trace> traces);

}  // namespace quire::replay

#endif  // QUIRE_REPLAY_TRACE_H
