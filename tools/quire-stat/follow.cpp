#include "follow.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "segment.h"

namespace quire_stat {
namespace {

// Between two looks at a stream that has nothing new. It keeps 4096 events: at a million a second
// that is four times as long.
constexpr std::chrono::milliseconds kRest{1};

const char *kind_name(const quire_event &e) {
  if (e.kind == QUIRE_EVENT_STORED) return "stored";
  return e.kind == QUIRE_EVENT_REMOVED ? "removed" : "lease late";
}

const char *reason_name(const quire_event &e) {
  static constexpr const char *kNames[] = {"", "capacity", "idle", "expired", "namespace", "quota"};
  return e.reason < std::size(kNames) ? kNames[e.reason] : "unknown";
}

const char *tier_name(uint32_t tier) {
  static constexpr const char *kNames[] = {"device", "host", "file"};
  return tier < std::size(kNames) ? kNames[tier] : "unknown";
}

std::string hex(const quire_key &key) {
  return fmt::format("{:016x}{:016x}", key.hi, key.lo);
}

std::string text_line(const quire_event &e) {
  if (e.kind == QUIRE_EVENT_LEASE_LATE) {
    return fmt::format("{:>10} {:<8} {:<10} owner {}\n", e.sequence, e.epoch, kind_name(e),
                       e.owner);
  }
  return fmt::format("{:>10} {:<8} {:<8}{:<10}{:>5} {} space {}\n", e.sequence, e.epoch,
                     kind_name(e), reason_name(e), e.index, hex(e.key).substr(16), e.space);
}

std::string json_line(const quire_event &e) {
  nlohmann::ordered_json row = {
      {"sequence", e.sequence}, {"epoch", e.epoch}, {"kind", kind_name(e)}};
  if (e.kind == QUIRE_EVENT_LEASE_LATE) {
    row["owner"] = e.owner;
  } else {
    if (e.reason != 0) row["reason"] = reason_name(e);
    row["tier"] = tier_name(e.tier);
    row["index"] = e.index;
    row["space"] = e.space;
    row["page"] = e.page;
    row["key"] = hex(e.key);
    row["parent"] = hex(e.parent);
  }
  return row.dump() + "\n";
}

std::string lost_line(uint64_t lost, bool json) {
  return json ? fmt::format("{{\"lost\": {}}}\n", lost) : fmt::format("  {} events lost\n", lost);
}

void print(const std::string &text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw Trouble("standard output cannot be written");
  }
}

}  // namespace

int follow(const FollowArguments &arguments) {
  const Segment segment(arguments.name);
  uint64_t cursor = arguments.past ? 1 : 0;
  uint64_t told = 0;
  for (bool alive = true;;) {
    uint64_t lost = 0;
    const std::vector<quire_event> events = segment.events(&cursor, &lost);
    std::string out = lost == 0 ? "" : lost_line(lost, arguments.json);
    for (const quire_event &e : events) {
      if (arguments.count != 0 && told == arguments.count) break;
      out += arguments.json ? json_line(e) : text_line(e);
      ++told;
    }
    if (!out.empty()) print(out);
    if (arguments.count != 0 && told == arguments.count) return kExitOk;
    if (!events.empty()) continue;
    // One more look after the process has gone.
    if (!alive) return kExitOk;
    alive = segment.info().alive != 0;
    if (alive) std::this_thread::sleep_for(kRest);
  }
}

}  // namespace quire_stat
