// Reads JSON lines with nlohmann's streaming parser: no document is built, ids go straight into the
// trace's array. Cost: one pass, about 90 MB/s; it is timed and kept out of every replay's figures.
#include "trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

namespace quire::replay {
namespace {

using Json = nlohmann::json;

enum class Field : uint8_t { kOther, kTimestamp, kLength, kClass, kIds };

constexpr uint64_t kClasses = 8;  // that quire_retention knows

// Takes the events of one line's object. Returns false with why() set where the line is no request.
class LineHandler : public nlohmann::json_sax<Json> {
 public:
  explicit LineHandler(Trace *trace) : trace_(trace) {}

  void begin_line() {
    depth_ = 0;
    field_ = Field::kOther;
    in_ids_ = has_ids_ = has_timestamp_ = false;
    cls_ = 0;
    why_.clear();
  }

  // After a line that parsed: all that a request needs was there.
  bool complete() {
    if (!has_timestamp_) return fail("no field \"timestamp\"");
    if (!has_ids_) return fail("no field \"hash_ids\"");
    return true;
  }

  uint64_t timestamp() const { return timestamp_; }
  uint32_t cls() const { return cls_; }
  const std::string &why() const { return why_; }

  bool null() override { return scalar("null"); }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool string(string_t &) override { return scalar("a string"); }
  bool binary(binary_t &) override { return scalar("binary data"); }

  bool number_integer(number_integer_t value) override {
    if (depth_ == 1 && opaque()) return true;
    if (in_ids_ || depth_ == 1) return fail(fmt::format("{} is negative: {}", field_name(), value));
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (in_ids_ && depth_ == 2) {
      trace_->ids.push_back(value);
    } else if (depth_ == 1 && field_ == Field::kTimestamp) {
      timestamp_ = value;
      has_timestamp_ = true;
    } else if (depth_ == 1 && field_ == Field::kClass) {
      cls_ = static_cast<uint32_t>(value % kClasses) + 1;
    } else if (depth_ == 1 && field_ == Field::kIds) {
      return fail("hash_ids is a number, not an array");
    }
    return true;
  }

  // Times and lengths may be written as floats; ids may not, as most floats name no id exactly.
  bool number_float(number_float_t value, const string_t &text) override {
    if (in_ids_) return fail("hash_ids has an id that is not an integer below 2^64: " + text);
    if (depth_ != 1 || opaque()) return true;
    if (field_ == Field::kIds) return fail("hash_ids is a number, not an array");
    if (!(value >= 0) || value >= 9.2e18)
      return fail(fmt::format("{} is out of range: {}", field_name(), text));
    if (field_ == Field::kTimestamp) {
      timestamp_ = static_cast<uint64_t>(value);
      has_timestamp_ = true;
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (depth_ == 0) {
      ++depth_;
      return true;
    }
    return open("an object");
  }
  bool end_object() override { return close(); }

  bool start_array(std::size_t) override {
    if (depth_ == 0) return fail("is an array, not an object");
    if (depth_ == 1 && field_ == Field::kIds) {
      in_ids_ = has_ids_ = true;
      ++depth_;
      return true;
    }
    return open("an array");
  }
  bool end_array() override {
    if (depth_ == 2) in_ids_ = false;
    return close();
  }

  bool key(string_t &name) override {
    if (depth_ != 1) return true;
    field_ = Field::kOther;
    if (name == "timestamp") {
      field_ = Field::kTimestamp;
      if (has_timestamp_) return fail("field \"timestamp\" occurs twice");
    } else if (name == "input_length" || name == "output_length") {
      field_ = Field::kLength;
    } else if (name == "class") {
      field_ = Field::kClass;
    } else if (name == "hash_ids") {
      field_ = Field::kIds;
      if (has_ids_) return fail("field \"hash_ids\" occurs twice");
    }
    return true;
  }

  bool parse_error(std::size_t, const std::string &, const Json::exception &e) override {
    std::string text = e.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error ...": the
    // line is ours to name, the column is of use.
    const size_t column = text.find("column ");
    return fail("not JSON: " + (column == std::string::npos ? text : text.substr(column)));
  }

 private:
  // A class that is no unsigned integer means as much as none.
  bool opaque() const { return field_ == Field::kOther || field_ == Field::kClass; }

  const char *field_name() const {
    switch (field_) {
      case Field::kTimestamp:
        return "timestamp";
      case Field::kLength:
        return "a length";
      case Field::kIds:
        return "hash_ids";
      case Field::kClass:
      case Field::kOther:
        break;
    }
    return "a field";
  }

  bool scalar(const char *what) {
    if (depth_ == 0) return fail(fmt::format("is {}, not an object", what));
    if (in_ids_) return fail(fmt::format("hash_ids has {} in it", what));
    if (depth_ == 1 && !opaque()) return fail(fmt::format("{} is {}", field_name(), what));
    return true;
  }

  bool open(const char *what) {
    if (in_ids_) return fail(fmt::format("hash_ids has {} in it", what));
    if (depth_ == 1 && !opaque()) return fail(fmt::format("{} is {}", field_name(), what));
    ++depth_;
    return true;
  }

  bool close() {
    --depth_;
    return true;
  }

  bool fail(std::string why) {
    why_ = std::move(why);
    return false;
  }

  Trace *trace_;
  std::string why_;
  uint64_t timestamp_ = 0;
  unsigned depth_ = 0;
  uint32_t cls_ = 0;
  Field field_ = Field::kOther;
  bool in_ids_ = false, has_ids_ = false, has_timestamp_ = false;
};

bool blank(const std::string &line) {
  return line.find_first_not_of(" \t\r\n") == std::string::npos;
}

}  // namespace

Trace parse_trace(std::istream &in, const std::string &name, uint64_t limit) {
  const auto start = std::chrono::steady_clock::now();
  Trace trace;
  trace.name = name;
  LineHandler handler(&trace);
  std::string line;
  for (uint64_t number = 1; (limit == 0 || trace.requests.size() < limit) && std::getline(in, line);
       ++number) {
    trace.bytes += line.size() + 1;
    if (blank(line)) continue;
    handler.begin_line();
    const uint64_t begin = trace.ids.size();
    const bool parsed = Json::sax_parse(line.begin(), line.end(), &handler);
    if (!parsed || !handler.complete())
      throw ParseError(fmt::format("{}:{}: {}", name, number, handler.why()));
    trace.requests.push_back(
        Request{handler.timestamp(), begin, trace.ids.size(), 0, handler.cls()});
  }
  if (in.bad()) throw ParseError(fmt::format("{}: reading failed", name));
  if (trace.requests.empty()) throw ParseError(fmt::format("{}: no requests in it", name));
  trace.ids.shrink_to_fit();
  trace.parse_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return trace;
}

Trace load_trace(const std::string &path, uint64_t limit) {
  if (path == "-") return parse_trace(std::cin, "standard input", limit);
  std::ifstream in(path, std::ios::binary);
  if (!in) throw ParseError(fmt::format("{}: cannot be opened", path));
  if (in.peek() == 0xfd)
    throw ParseError(fmt::format("{}: is compressed; try: xz -dc {} | quire-replay -", path, path));
  return parse_trace(in, path, limit);
}

Trace merge_traces(std::vector<Trace> traces) {
  struct Entry {
    uint64_t order;  // running maximum of the timestamps, so that a file's own order stays
    Request request;
  };
  Trace merged;
  std::vector<Entry> entries;
  merged.spaces = 0;
  for (Trace &trace : traces) {
    uint64_t latest = 0;
    const uint64_t base = merged.ids.size();
    for (Request request : trace.requests) {
      latest = std::max(latest, request.timestamp_ms);
      request.begin += base;
      request.end += base;
      request.space += merged.spaces;
      entries.push_back(Entry{latest, request});
    }
    merged.ids.insert(merged.ids.end(), trace.ids.begin(), trace.ids.end());
    merged.name += (merged.spaces ? " + " : "") + trace.name;
    merged.spaces += trace.spaces;
    merged.parse_seconds += trace.parse_seconds;
    merged.bytes += trace.bytes;
    trace = Trace();
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry &a, const Entry &b) { return a.order < b.order; });
  merged.requests.reserve(entries.size());
  for (const Entry &entry : entries) merged.requests.push_back(entry.request);
  return merged;
}

}  // namespace quire::replay
