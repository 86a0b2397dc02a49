// Stats as struct, JSON and Prometheus text: they say the same, lack nothing, and are well-formed.
#define BOOST_TEST_MODULE unit_report
#define BOOST_TEST_DYN_LINK
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "quire/quire.h"
#include "runtime/text.h"
#include "tests/support/insight_fixture.h"

using namespace quire::test;
using nlohmann::json;

namespace {

struct Fixture {
  Fixture() : cache(open_small("-")) {
    leases.push_back(publish_chain(cache, 1, 3, 7));
    leases.push_back(publish_chain(cache, 1, 3, 7));
    leases.push_back(publish_chain(cache, 2, 5, UINT64_MAX));
    leases.push_back(hold_private(cache, 2, 9));
    must(quire_step(cache));
  }
  ~Fixture() {
    for (const quire_lease lease : leases) quire_release(cache, lease, nullptr);
    BOOST_TEST(quire_close(cache) == QUIRE_OK);
  }
  json report() {
    return json::parse(
        text_of([this](char *out, size_t *n) { return quire_stats_json(cache, out, n); }));
  }
  std::string prometheus() {
    return text_of([this](char *out, size_t *n) { return quire_stats_prometheus(cache, out, n); });
  }

  quire_cache *cache;
  std::vector<quire_lease> leases;
};

bool is_name(const std::string &name) {
  if (name.empty() || (name[0] >= '0' && name[0] <= '9')) return false;
  return name.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:") ==
         std::string::npos;
}

// The text format 0.0.4, strictly: one HELP and one TYPE before the samples of each metric, its
// samples in one group, no sample twice, label values quoted and escaped, values numbers,
// histograms cumulative with +Inf equal to _count. Throws what is wrong.
class Exposition {
 public:
  explicit Exposition(const std::string &text) {
    if (text.empty() || text.back() != '\n') fail("the last line has no end");
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("# HELP ")) {
        begin(line.substr(7));
      } else if (line.starts_with("# TYPE ")) {
        type(line.substr(7));
      } else if (line.starts_with("#") || line.empty()) {
        fail("a line that is neither HELP, TYPE nor a sample: " + line);
      } else {
        sample(line);
      }
    }
    finish();
  }

  std::map<std::string, double> samples;  // with labels, as written
  std::map<std::string, std::string> types;

 private:
  [[noreturn]] static void fail(const std::string &why) { throw std::runtime_error(why); }

  void begin(const std::string &rest) {
    finish();
    name_ = rest.substr(0, rest.find(' '));
    if (!is_name(name_)) fail("not a name: " + name_);
    if (rest.size() <= name_.size() + 1) fail("no help: " + name_);
    if (!seen_.insert(name_).second) fail("two groups of one metric: " + name_);
    type_.clear();
  }
  void type(const std::string &rest) {
    const size_t space = rest.find(' ');
    if (space == std::string::npos || rest.substr(0, space) != name_)
      fail("TYPE without HELP: " + rest);
    if (!type_.empty()) fail("two TYPEs: " + rest);
    type_ = rest.substr(space + 1);
    if (type_ != "counter" && type_ != "gauge" && type_ != "histogram") fail("no type: " + rest);
    types[name_] = type_;
  }
  void sample(const std::string &line) {
    if (type_.empty()) fail("a sample before its TYPE: " + line);
    const size_t brace = line.find('{'), space = line.rfind(' ');
    if (space == std::string::npos) fail("no value: " + line);
    const std::string name = line.substr(0, std::min(brace, line.find(' ')));
    if (!is_name(name)) fail("not a name: " + line);
    const std::string suffix = name.starts_with(name_) ? name.substr(name_.size()) : "?";
    const bool fits = type_ == "histogram"
                          ? suffix == "_bucket" || suffix == "_sum" || suffix == "_count"
                          : suffix.empty();
    if (!fits) fail("not of " + name_ + ": " + line);
    if (brace != std::string::npos) labels(line.substr(brace, space - brace));
    size_t used = 0;
    const std::string value = line.substr(space + 1);
    const double x = std::stod(value, &used);
    if (used != value.size()) fail("not a number: " + line);
    if (type_ != "gauge" && x < 0) fail("below zero: " + line);
    if (!samples.emplace(line.substr(0, space), x).second) fail("twice: " + line);
    if (suffix == "_bucket") buckets_.emplace_back(line.substr(brace, space - brace), x);
  }
  static void labels(const std::string &text) {
    size_t at = 1;
    for (;;) {
      const size_t equals = text.find("=\"", at);
      if (equals == std::string::npos || !is_name(text.substr(at, equals - at)))
        fail("labels: " + text);
      for (at = equals + 2; at < text.size() && text[at] != '"'; ++at)
        at += text[at] == '\\' ? 1U : 0U;
      if (at + 1 >= text.size()) fail("a label without end: " + text);
      if (text[at + 1] == '}' && at + 2 == text.size()) return;
      if (text[at + 1] != ',') fail("labels: " + text);
      at += 2;
    }
  }
  void finish() {
    if (type_ == "histogram") {
      double before = 0, bound_before = -1;
      for (const auto &[label, x] : buckets_) {
        if (x < before) fail("buckets that are not cumulative: " + name_);
        before = x;
        const std::string bound = label.substr(5, label.size() - 7);
        const double b = bound == "+Inf" ? HUGE_VAL : std::stod(bound);
        if (b <= bound_before) fail("bounds that do not rise: " + name_);
        bound_before = b;
      }
      if (bound_before != HUGE_VAL) fail("no +Inf: " + name_);
      if (samples.at(name_ + "_count") != before) fail("_count is not +Inf's: " + name_);
      if (!samples.contains(name_ + "_sum")) fail("no _sum: " + name_);
    }
    buckets_.clear();
  }

  std::string name_, type_;
  std::set<std::string> seen_;
  std::vector<std::pair<std::string, double>> buckets_;
};

}  // namespace

BOOST_FIXTURE_TEST_CASE(the_struct_says_what_happened, Fixture) {
  const quire_stats s = stats_of(cache);
  BOOST_TEST(s.acquires_total == 4U);
  BOOST_TEST(s.prefix_queries_total == (3 + 3 + 5) * kPageTokens);
  BOOST_TEST(s.prefix_hits_total == 3 * kPageTokens);
  BOOST_TEST(s.prefix_hit_ratio == 3.0 / 11);
  BOOST_TEST(s.pages_published_total == 8U);
  BOOST_TEST(s.pages_visible == 8U);
  BOOST_TEST(s.pages_private == 2U);
  BOOST_TEST(s.pages_free + 10 == s.pages_capacity);
  BOOST_TEST(s.pages_capacity == s.frames_capacity + s.open_frames_capacity);
  BOOST_TEST(s.frames_capacity == kPages);
  BOOST_TEST(s.frames_free + s.frames_limbo + 8 == kPages);
  BOOST_TEST(s.open_frames_free + s.open_frames_limbo + 2 == s.open_frames_capacity);
  BOOST_TEST(s.kv_cache_usage_ratio == 8.0 / kPages);
  BOOST_TEST(s.leases == 4U);
  BOOST_TEST(s.leases_late == 0U);
  BOOST_TEST(s.namespaces == 1U);
  BOOST_TEST(s.streams == 0U);
  BOOST_TEST(s.steps_total == 1U);
  BOOST_TEST(s.page_tokens == kPageTokens);
  BOOST_TEST(s.page_bytes > 0U);
  BOOST_TEST(s.arena_bytes >= kPages * s.page_bytes);
  BOOST_TEST(s.metadata_bytes > 0U);
}

BOOST_FIXTURE_TEST_CASE(json_has_every_counter_and_gauge_with_the_structs_value, Fixture) {
  const json report = this->report();
  const quire_stats s = stats_of(cache);
#define QUIRE_IN_JSON(name, help)     \
  BOOST_TEST(report.contains(#name)); \
  BOOST_TEST(report.at(#name).get<uint64_t>() == s.name, #name);
  QUIRE_STATS_COUNTERS(QUIRE_IN_JSON)
  QUIRE_STATS_GAUGES(QUIRE_IN_JSON)
#undef QUIRE_IN_JSON
  BOOST_TEST(report.at("kv_cache_usage_ratio").get<double>() == s.kv_cache_usage_ratio);
  BOOST_TEST(report.at("prefix_hit_ratio").get<double>() == s.prefix_hit_ratio);
  BOOST_TEST(report.at("format") == "nf4");
  const json &hits = report.at("histograms").at("chain_hit_pages");
  BOOST_TEST(hits.at("count").get<uint64_t>() == 4U);
  BOOST_TEST(hits.at("sum").get<uint64_t>() == 3U);
  BOOST_TEST(hits.at("max").get<uint64_t>() == 3U);
}

BOOST_FIXTURE_TEST_CASE(namespaces_are_told_with_their_pages_and_limits, Fixture) {
  const quire_field field = {QUIRE_FIELD_MODEL, 4, "test"};
  quire_key root;
  must(quire_root_key(cache, &field, 1, &root));
  quire_namespace settings;
  QUIRE_INIT(&settings);
  settings.quota = 20;
  settings.floor = 4;
  must(quire_namespace_set(cache, &root, &settings));
  const json rows = report().at("pages_by_namespace");
  BOOST_REQUIRE(rows.size() == 1U);
  BOOST_TEST(rows[0].at("pages") == 8U);
  BOOST_TEST(rows[0].at("quota") == 20U);
  BOOST_TEST(rows[0].at("floor") == 4U);
  BOOST_TEST(rows[0].at("zero") == 0U);
  const auto name = rows[0].at("namespace").get<std::string>();
  BOOST_TEST(name.size() == 32U);
  const std::string text = prometheus();
  BOOST_TEST(text.find("quire_namespace_pages{namespace=\"" + name + "\"} 8\n") !=
             std::string::npos);
  BOOST_TEST(text.find("quire_namespace_quota_pages{namespace=\"" + name + "\"} 20\n") !=
             std::string::npos);
  settings.quota = settings.floor = 0;
  must(quire_namespace_set(cache, &root, &settings));
}

BOOST_FIXTURE_TEST_CASE(json_groups_leases_by_owner_most_first, Fixture) {
  const json owners = report().at("leases_by_owner");
  BOOST_REQUIRE(owners.size() == 3U);
  BOOST_TEST(owners[0].at("owner") == 7U);
  BOOST_TEST(owners[0].at("leases") == 2U);
  BOOST_TEST(owners[0].at("pages") == 6U);
  BOOST_TEST(owners[1].at("owner") == 9U);
  BOOST_TEST(owners[1].at("private_pages") == 2U);
  BOOST_TEST(owners[2].at("owner").get<uint64_t>() == UINT64_MAX);
}

BOOST_FIXTURE_TEST_CASE(a_stream_shows_as_a_reader_with_its_lag, Fixture) {
  BOOST_TEST(report().at("readers").empty());
  quire_stream stream;
  must(quire_cpu_stream_create(&stream));
  must(quire_stream_add(cache, stream, 0, 0));
  BOOST_TEST(stats_of(cache).streams == 1U);
  BOOST_TEST(stats_of(cache).slowest_reader_lag == 0U);
  for (int i = 0; i < 5; ++i) must(quire_step(cache));
  // Nothing waits for it, so no event is recorded, and it does not pass.
  BOOST_TEST(stats_of(cache).slowest_reader_lag == 5U);
  const json readers = report().at("readers");
  BOOST_REQUIRE(readers.size() == 1U);
  BOOST_TEST(readers[0].at("reader") == "stream 0");
  BOOST_TEST(readers[0].at("lag") == 5U);
  must(quire_stream_remove(cache, stream));
  must(quire_cpu_stream_destroy(stream));
  while (stats_of(cache).streams != 0) must(quire_step(cache));
}

BOOST_FIXTURE_TEST_CASE(prometheus_text_is_well_formed_and_has_everything, Fixture) {
  const Exposition text(prometheus());
  const quire_stats s = stats_of(cache);
#define QUIRE_IN_TEXT(name, help, kind)              \
  BOOST_TEST(text.types.at("quire_" #name) == kind); \
  BOOST_TEST(text.samples.at("quire_" #name) == static_cast<double>(s.name), #name);
#define QUIRE_COUNTER_IN_TEXT(name, help) QUIRE_IN_TEXT(name, help, "counter")
#define QUIRE_GAUGE_IN_TEXT(name, help) QUIRE_IN_TEXT(name, help, "gauge")
  QUIRE_STATS_COUNTERS(QUIRE_COUNTER_IN_TEXT)
  QUIRE_STATS_GAUGES(QUIRE_GAUGE_IN_TEXT)
  QUIRE_GAUGE_IN_TEXT(kv_cache_usage_ratio, "")
  QUIRE_GAUGE_IN_TEXT(prefix_hit_ratio, "")
  BOOST_TEST(text.types.at("quire_chain_hit_pages") == "histogram");
  BOOST_TEST(text.samples.at("quire_chain_hit_pages_bucket{le=\"1\"}") == 3);
  BOOST_TEST(text.samples.at("quire_chain_hit_pages_bucket{le=\"3\"}") == 4);
  BOOST_TEST(text.samples.at("quire_chain_hit_pages_count") == 4);
  BOOST_TEST(text.samples.at("quire_owner_leases{owner=\"7\"}") == 2);
}

BOOST_AUTO_TEST_CASE(the_checker_of_prometheus_text_refuses_what_is_wrong) {
  const std::string good = "# HELP a x\n# TYPE a counter\na 1\n";
  BOOST_CHECK_NO_THROW(Exposition{good});
  const std::string falling =
      "# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum "
      "1\na_count 1\n";
  const char *const bad[] = {
      "a 1\n",
      "# HELP a x\n# TYPE a counter\na 1",
      "# HELP a x\n# TYPE a counter\na 1\na 2\n",
      "# HELP a x\n# TYPE a counter\na one\n",
      "# HELP a x\n# TYPE a counter\nb 1\n",
      "# HELP a x\n# TYPE a thing\na 1\n",
      "# HELP a x\n# TYPE a gauge\na{b=\"c} 1\n",
      "# HELP a x\n# TYPE a gauge\na{b=\"c\" 1\n",
      falling.c_str(),
      "# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n"};
  for (const char *text : bad) BOOST_CHECK_THROW(Exposition{text}, std::exception);
}

BOOST_FIXTURE_TEST_CASE(text_asks_for_room_and_is_never_written_beyond_it, Fixture) {
  size_t need = 0;
  BOOST_TEST(quire_stats_json(cache, nullptr, &need) == QUIRE_OK);
  BOOST_TEST(need > 1000U);
  for (const size_t room : {size_t{1}, size_t{2}, size_t{100}, need - 1}) {
    std::vector<char> out(room + 1, '\x55');
    size_t bytes = room;
    BOOST_TEST(quire_stats_json(cache, out.data(), &bytes) == QUIRE_E_INVALID);
    BOOST_TEST(bytes == need);
    BOOST_TEST(out[room - 1] == 0);
    BOOST_TEST(out[room] == '\x55');
  }
  std::vector<char> out(need, '\x55');
  size_t bytes = need;
  BOOST_TEST(quire_stats_json(cache, out.data(), &bytes) == QUIRE_OK);
  BOOST_TEST(std::strlen(out.data()) + 1 == need);
  BOOST_TEST(quire_stats_json(cache, nullptr, &bytes) == QUIRE_E_INVALID);
  BOOST_TEST(quire_stats_json(cache, out.data(), nullptr) == QUIRE_E_INVALID);
  BOOST_TEST(quire_stats_json(nullptr, out.data(), &bytes) == QUIRE_E_INVALID);
}

// Promise 12, for outputs.
BOOST_FIXTURE_TEST_CASE(an_older_shorter_struct_gets_what_it_has_room_for, Fixture) {
  quire_stats s;
  std::memset(&s, 0x55, sizeof s);
  s.size = offsetof(quire_stats, releases_total);
  BOOST_TEST(quire_stats_get(cache, &s) == QUIRE_OK);
  BOOST_TEST(s.size == offsetof(quire_stats, releases_total));
  BOOST_TEST(s.acquires_total == 4U);
  BOOST_TEST(s.releases_total == 0x5555555555555555U);
  BOOST_TEST(s.pages_visible == 0x5555555555555555U);
  s.size = 3;
  BOOST_TEST(quire_stats_get(cache, &s) == QUIRE_E_INVALID);
  BOOST_TEST(quire_stats_get(cache, nullptr) == QUIRE_E_INVALID);
}

BOOST_FIXTURE_TEST_CASE(what_a_newer_longer_struct_has_beyond_ours_reads_as_zero, Fixture) {
  struct Newer {
    quire_stats known;
    uint64_t added[4];
  } newer;
  std::memset(&newer, 0, sizeof newer);
  newer.added[0] = 77;
  newer.known.size = sizeof newer;
  BOOST_TEST(quire_stats_get(cache, &newer.known) == QUIRE_OK);
  BOOST_TEST(newer.known.acquires_total == 4U);
  BOOST_TEST(newer.known.size == sizeof newer);
  BOOST_TEST(newer.added[0] == 0U);
}

BOOST_FIXTURE_TEST_CASE(events_tell_what_was_stored_since_the_first_poll, Fixture) {
  quire_event events[8];
  QUIRE_INIT(&events[0]);
  size_t n = 8;
  BOOST_TEST(quire_events_poll(cache, events, &n) == QUIRE_OK);
  BOOST_TEST(n == 0U);  // what was before is not told
  leases.push_back(publish_chain(cache, 3, 2, 42));
  n = 1;
  BOOST_TEST(quire_events_poll(cache, events, &n) == QUIRE_OK);
  BOOST_REQUIRE(n == 1U);
  BOOST_TEST(events[0].kind == QUIRE_EVENT_STORED);
  BOOST_TEST(events[0].index == 0U);
  BOOST_TEST(events[0].sequence == 1U);
  BOOST_TEST((events[0].key.lo | events[0].key.hi) != 0U);
  n = 8;
  BOOST_TEST(quire_events_poll(cache, events, &n) == QUIRE_OK);
  BOOST_REQUIRE(n == 1U);
  BOOST_TEST(events[0].index == 1U);
  BOOST_TEST(events[0].sequence == 2U);
  n = 1;
  BOOST_TEST(quire_events_poll(cache, nullptr, &n) == QUIRE_E_INVALID);
  BOOST_TEST(quire_events_poll(cache, events, nullptr) == QUIRE_E_INVALID);
}

BOOST_AUTO_TEST_CASE(text_counts_what_does_not_fit_and_escapes) {
  char out[8];
  quire::Text text(out, sizeof out);
  text << "abc" << uint64_t{12345} << 'x';
  BOOST_TEST(text.length() == 9U);
  BOOST_TEST(!text.finish());
  BOOST_TEST(std::string(out) == "abc1234");
  char more[64];
  quire::Text quoted(more, sizeof more);
  quoted.quoted("a\"b\\c\nd") << ' ' << 0.5 << ' ' << int64_t{-3} << ' ' << 1.0 / 0.0;
  BOOST_TEST(quoted.finish());
  BOOST_TEST(std::string(more) == "\"a\\\"b\\\\c d\" 0.5 -3 0");
}
