// quire-stat: looks at the caches of this machine from outside, and plans new ones.
//
// It maps a cache's segment read-only and can disturb nothing; it reads a running engine and one
// that died alike. Everything goes through the public C API. Output is plain text in 80 columns, or
// JSON.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>

#include "dump.h"
#include "follow.h"
#include "plan.h"
#include "segment.h"
#include "units.h"
#include "watch.h"

namespace quire_stat {
namespace {

constexpr const char *kFooter = R"(
NAME is what `quire-stat list` shows; it may be left out when there is one only.

  quire-stat list                      caches of this machine, running or dead
  quire-stat dump                      everything on one screen
  quire-stat dump --prometheus         the same for a scraper
  quire-stat events --json             what is stored and removed, as it happens; the engine polls
                                       events itself or was opened with events=1
  quire-stat check NAME                is a dead engine's metadata sound?
  quire-stat plan --layers 32 --kv-heads 8 --head-dim 128 --budget 24GiB

Exit status: 0 done, 1 check found a violation, 2 no such cache, or bad arguments.)";

struct Arguments {
  std::string name;
  bool json = false;
  bool prometheus = false;
  bool all = false;
  PlanArguments plan;
  WatchArguments watch;
  FollowArguments follow;
};

void print(const std::string &text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw Trouble("standard output cannot be written");
  }
}

int list(const Arguments &a) {
  const auto records = list_segments();
  if (a.json) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const auto &r : records) {
      rows.push_back(
          {{"name", r.name}, {"pid", r.pid}, {"alive", r.alive != 0}, {"bytes", r.bytes}});
    }
    print(rows.dump(2) + "\n");
    return kExitOk;
  }
  if (records.empty()) {
    print("no caches\n");
    return kExitOk;
  }
  std::string out =
      fmt::format("{:<40}{:>10}{:>10}{:>14}\n", "name", "process", "state", "metadata");
  bool dead = false;
  for (const auto &r : records) {
    dead = dead || r.alive == 0;
    out += fmt::format("{:<40}{:>10}{:>10}{:>14}\n", r.name, r.pid,
                       r.alive != 0 ? "running" : "dead", bytes(static_cast<double>(r.bytes)));
  }
  if (dead) out += "\n`quire-stat remove NAME` gives a dead one's memory back.\n";
  print(out);
  return kExitOk;
}

int dump(const Arguments &a) {
  const Segment segment(pick_segment(a.name));
  print(a.json ? segment.json() : a.prometheus ? segment.prometheus() : dump_text(segment));
  return kExitOk;
}

int check(const Arguments &a) {
  const Segment segment(pick_segment(a.name));
  const quire_segment_record info = segment.info();
  const std::string violation = segment.check();
  if (violation.empty()) {
    print(
        fmt::format("{}: sound{}\n", info.name,
                    info.alive != 0 ? " (running: only what holds at any time was checked)" : ""));
    return kExitOk;
  }
  print(fmt::format("{}: {}\n", info.name, violation));
  return kExitCheckFailed;
}

int leases(const Arguments &a) {
  const Segment segment(pick_segment(a.name));
  if (!a.json) {
    print(leases_text(segment, a.all ? SIZE_MAX : 40));
    return kExitOk;
  }
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const quire_lease_record &l : segment.leases()) {
    nlohmann::ordered_json row = {{"owner", l.owner},
                                  {"pages", l.pages},
                                  {"private_pages", l.private_pages},
                                  {"age_ms", l.age_ms}};
    row["remaining_ms"] = nullptr;
    if (l.remaining_ms != INT64_MAX) row["remaining_ms"] = l.remaining_ms;
    rows.push_back(row);
  }
  print(rows.dump(2) + "\n");
  return kExitOk;
}

int remove(const Arguments &a) {
  must(quire_segment_remove(a.name.c_str()));
  print(fmt::format("{} is removed\n", a.name));
  return kExitOk;
}

void add_plan(CLI::App &app, Arguments *a) {
  auto *c = app.add_subcommand("plan", "How many tokens fit a budget, in each format");
  PlanArguments &p = a->plan;
  c->add_option("--layers", p.layers, "Layers of the model")->required();
  c->add_option("--kv-heads", p.kv_heads, "KV heads of a layer")->required();
  c->add_option("--head-dim", p.head_dim, "Dimension of a head")->required();
  c->add_option("--head-dim-v", p.head_dim_v, "That of V where it differs; 0: there is no V");
  c->add_option("--page-tokens", p.page_tokens, "Tokens a page")->capture_default_str();
  c->add_option("--open-pages", p.open_pages,
                "Pages being written at once; default: by the budget");
  c->add_option("--budget", p.budget, "Memory for frames, such as 24GiB")->required();
  c->add_option("--format", p.format, "Only this format");
  c->add_flag("--json", a->json, "As JSON");
}

int run(int argc, char **argv) {
  Arguments a;
  CLI::App app{"Looks at the KV caches of this machine, and plans new ones.", "quire-stat"};
  app.footer(kFooter);
  app.require_subcommand(1);
  app.set_version_flag("--version", fmt::format("quire-stat {}.{}.{}", QUIRE_VERSION_MAJOR,
                                                QUIRE_VERSION_MINOR, QUIRE_VERSION_PATCH));
  const auto with_name = [&a](CLI::App *c) {
    c->add_option("name", a.name, "Name of the segment");
    return c;
  };
  app.add_subcommand("list", "Caches of this machine")->add_flag("--json", a.json, "As JSON");
  auto *d = with_name(app.add_subcommand("dump", "Everything about a cache, on one screen"));
  auto *as_json = d->add_flag("--json", a.json, "As JSON");
  d->add_flag("--prometheus", a.prometheus, "In Prometheus' exposition format")->excludes(as_json);
  auto *w = app.add_subcommand("watch", "A live screen");
  w->add_option("name", a.name, "Name of the segment");
  w->add_option("--interval", a.watch.interval_s, "Seconds between two looks")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  w->add_option("--frames", a.watch.frames, "Stop after so many; default: go on");
  auto *l = with_name(app.add_subcommand("leases", "Who holds what; the most urgent first"));
  l->add_flag("--json", a.json, "As JSON");
  l->add_flag("--all", a.all, "All of them, not 40");
  auto *f = with_name(app.add_subcommand("events", "Pages that come and go, one a line"));
  f->add_flag("--json", a.follow.json, "A line of JSON an event");
  f->add_flag("--past", a.follow.past, "Begin with the oldest that are still there");
  f->add_option("--count", a.follow.count, "Stop after so many; default: go on");
  with_name(app.add_subcommand("check", "Asserts every invariant of the metadata"));
  add_plan(app, &a);
  app.add_subcommand("remove", "Removes what a dead process left")
      ->add_option("name", a.name, "Name of the segment")
      ->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &e) {
    return app.exit(e) == 0 ? kExitOk : kExitTrouble;
  }
  const std::string command = app.get_subcommands().front()->get_name();
  if (command == "list") return list(a);
  if (command == "dump") return dump(a);
  if (command == "leases") return leases(a);
  if (command == "check") return check(a);
  if (command == "remove") return remove(a);
  if (command == "events") {
    a.follow.name = pick_segment(a.name);
    return follow(a.follow);
  }
  if (command == "watch") {
    a.watch.name = pick_segment(a.name);
    return watch(a.watch);
  }
  print(a.json ? plan_json(a.plan) : plan_text(a.plan));
  return kExitOk;
}

}  // namespace
}  // namespace quire_stat

int main(int argc, char **argv) {
  try {
    return quire_stat::run(argc, argv);
  } catch (const std::exception &e) {
    fmt::print(stderr, "quire-stat: {}\n", e.what());
    return quire_stat::kExitTrouble;
  }
}
