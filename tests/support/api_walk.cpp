#include "tests/support/api_walk.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "runtime/cache.h"

namespace quire::test {
namespace {

constexpr size_t kSpaces = 3;
constexpr size_t kRemembered = 30;

template <class T>
T sized() {
  T s;
  QUIRE_INIT(&s);
  return s;
}

}  // namespace

// ---- life

void *ApiWalk::allocate(size_t bytes, size_t align, void *user) {
  auto &walk = *static_cast<ApiWalk *>(user);
  ++walk.blocks_;
  if (walk.fail_block_ != 0 && --walk.fail_block_ == 0) {
    walk.hit_ = true;
    --walk.blocks_;
    return nullptr;
  }
  const size_t step = align < sizeof(void *) ? sizeof(void *) : align;
  return std::aligned_alloc(step, (bytes + step - 1) / step * step);
}

void ApiWalk::deallocate(void *p, size_t, size_t, void *user) {
  if (p != nullptr) --static_cast<ApiWalk *>(user)->blocks_;
  std::free(p);
}

ApiWalk::ApiWalk(const WalkSetup &setup, uint64_t seed)
    : setup_(setup), random_(seed), device_(seed ^ 0x5eed) {
  quire_config config;
  expect_status(quire_config_init(&config), QUIRE_OK, "config_init");
  expect_status(quire_config_parse(&config, setup.config), QUIRE_OK, "config_parse");
  uint8_t secret[32];
  for (uint32_t i = 0; i < 32; ++i) secret[i] = static_cast<uint8_t>(i);
  config.secret = secret;
  config.epoch_ms = QUIRE_NO_TIMER;
  config.segment = "-";
  config.clock = read_clock;
  config.clock_user = this;
  config.allocator = {allocate, deallocate, this};
  oracle_.now_ms = 1000;
  // Opening meets each failure once: it leaves nothing behind.
  Cache *cache = nullptr;
  for (uint64_t nth = 1; cache == nullptr; ++nth) {
    fail_block_ = nth;
    const Status status = Cache::open(config, &device_, &cache);
    if (status == Status::kOk) break;
    expect(status == Status::kNomem, "open without memory is NOMEM");
    expect(blocks_ == 0, "a failed open leaves memory behind");
  }
  fail_block_ = 0;
  cache_ = reinterpret_cast<quire_cache *>(cache);
  auto layout = sized<quire_layout_info>();
  expect_status(quire_layout(cache_, QUIRE_TIER_DEVICE, 0, &layout), QUIRE_OK, "layout");
  frames_ = layout.frames;
  open_frames_ = layout.open_frames;
  has_open_ = open_frames_ != 0;
  page_tokens_ = layout.geometry.page_tokens;
  verifies_ = config.verify_tokens != 0;
  oracle_.by_priority = config.policy == QUIRE_POLICY_PRIORITY;
  oracle_.learned = config.policy == QUIRE_POLICY_HAZARD;
  size_t none = 0;
  expect_status(quire_events_poll(cache_, nullptr, &none), QUIRE_OK, "the first events_poll");
  max_leases_ = config.max_leases;
  max_streams_ = config.max_streams;
  max_sequences_ = config.max_sequences;
  for (uint32_t i = 0; i < kSpaces; ++i) {
    const quire_field field = {QUIRE_FIELD_TENANT, sizeof i, &i};
    quire_key root;
    expect_status(quire_root_key(cache_, &field, 1, &root), QUIRE_OK, "root_key");
    roots_.push_back(root);
    oracle_.generations.push_back(0);
  }
  auto stats = sized<quire_stats>();
  expect_status(quire_stats_get(cache_, &stats), QUIRE_OK, "stats");
  oracle_.epoch = stats.epoch;
  if (setup_.tenants) {
    oracle_.quotas.assign(kSpaces, 0);
    oracle_.floors.assign(kSpaces, 0);
    for (size_t i = 0; i < kSpaces; ++i) set_limits(i, i % 2 == 0 ? 0 : 6, i == 1 ? 0 : 3);
  }
  if (setup_.streams) {
    for (int i = 0; i < 3; ++i) streams_.push_back(device_.add_stream());
    device_.delay_events(2);
    device_.set_spurious(16);
  }
}

ApiWalk::~ApiWalk() =
    default;  // after finish(); where the walk failed, its cache is left to the process

void ApiWalk::finish() {
  while (!sequences_.empty()) seq_close();
  while (!oracle_.leases.empty()) release();
  while (!oracle_.privates.empty()) {
    const quire_page page = oracle_.privates.begin()->first;
    expect_status(quire_free(cache_, &page, 1), QUIRE_OK, "free at the end");
    oracle_.privates.erase(page);
  }
  compare();
  while (!added_.empty()) {
    expect_status(quire_stream_remove(cache_, added_.back()), QUIRE_OK, "remove at the end");
    added_.pop_back();
  }
  device_.hold_events(false);
  device_.delay_events(0);
  device_.set_spurious(0);
  device_.pump();
  for (int i = 0; i < 8; ++i) expect_status(quire_step(cache_), QUIRE_OK, "step at the end");
  expect_status(quire_check(cache_, 0), QUIRE_OK, quire_last_error());
  expect_status(quire_close(cache_), QUIRE_OK, "close");
  expect(blocks_ == 0, "close leaves metadata behind");
  expect(device_.living_events() == 0, "close leaves events behind");
  expect(device_.misuses() == 0, "a dead event or stream was used");
}

// ---- drawing

std::vector<uint32_t> ApiWalk::draw_path(uint32_t longest) {
  std::vector<uint32_t> path(1 + below(longest));
  for (uint32_t &branch : path) {
    const uint32_t r = below(16);
    branch = r < 9 ? 0 : r < 13 ? 1 : 2;
  }
  return path;
}

std::vector<uint32_t> ApiWalk::tokens_of(const std::vector<uint32_t> &path) const {
  std::vector<uint32_t> tokens;
  for (const uint32_t branch : path) {
    for (uint32_t i = 0; i < page_tokens_; ++i) tokens.push_back(branch * 1000 + i);
  }
  return tokens;
}

const std::vector<quire_key> &ApiWalk::keys_of(size_t space, const std::vector<uint32_t> &path) {
  auto &keys = keys_[{space, path}];
  if (keys.empty() && !path.empty()) {
    const std::vector<uint32_t> tokens = tokens_of(path);
    keys.resize(path.size());
    size_t n = keys.size();
    expect_status(quire_chain_keys(cache_, &roots_[space], tokens.data(), tokens.size(), nullptr, 0,
                                   keys.data(), &n),
                  QUIRE_OK, "chain_keys");
    expect(n == path.size(), "chain_keys: how many");
  }
  return keys;
}

quire_prefix ApiWalk::prefix_of(size_t space, const std::vector<uint32_t> &path) {
  auto prefix = sized<quire_prefix>();
  const auto &keys = keys_of(space, path);
  prefix.n = static_cast<uint32_t>(keys.size());
  prefix.root = roots_[space];
  prefix.keys = keys.data();
  variants_.assign(path.size(), 0);
  prefix_tokens_ = tokens_of(path);
  for (size_t i = 0; verifies_ && i < path.size(); ++i) {
    if (!chance(6)) continue;
    variants_[i] = 1;
    prefix_tokens_[(i + 1) * page_tokens_ - 1] += 500000;
  }
  if (verifies_ || chance(64)) prefix.tokens = prefix_tokens_.data();
  return prefix;
}

quire_lease ApiWalk::some_lease() {
  std::vector<quire_lease> own;
  for (const auto &[handle, lease] : oracle_.leases) {
    bool of_sequence = false;
    for (const auto &[seq, s] : sequences_) of_sequence |= s.lease == handle;
    if (!of_sequence) own.push_back(handle);
  }
  return own.empty() ? 0 : own[below(static_cast<uint32_t>(own.size()))];
}

quire_stream ApiWalk::some_stream() {
  return added_.empty() || chance(96) ? nullptr
                                      : added_[below(static_cast<uint32_t>(added_.size()))];
}

void ApiWalk::note(const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  history_.emplace_back(text);
  if (history_.size() > kRemembered) history_.pop_front();
}

std::string ApiWalk::history() const {
  std::string all;
  for (const std::string &line : history_) all += "\n  " + line;
  return all;
}

// ---- holding the library to it

void ApiWalk::expect(bool good, const char *what) {
  if (!good) throw std::runtime_error(what);
}

void ApiWalk::expect_status(quire_status got, quire_status want, const char *what) {
  called(got);
  if (got == want) return;
  throw std::runtime_error(std::string(what) + ": " + quire_status_string(got) + " (" +
                           (got == QUIRE_OK ? "" : quire_last_error()) +
                           "), wanted: " + quire_status_string(want));
}

quire_status ApiWalk::called(quire_status status) {
  if (status == QUIRE_OK) return status;
  ++failed_;
  expect(quire_last_error()[0] != '\0', "a failed call left no sentence");
  return status;
}

ApiWalk::Forecast ApiWalk::forecast(uint32_t sealed, uint32_t open, size_t own) const {
  Forecast f;
  f.own = own;
  for (size_t i = 0; i < oracle_.floors.size(); ++i) f.pages.push_back(oracle_.pages_of(i));
  const uint32_t free_sealed = frames_ - oracle_.held(false);
  const uint32_t free_open = open_frames_ - oracle_.held(true);
  f.evictable = oracle_.evictable(own);
  f.missing = sealed > free_sealed ? sealed - free_sealed : 0;
  f.dying = oracle_.dying() != 0;
  f.feasible = f.missing <= f.evictable && open <= free_open;
  return f;
}

uint32_t ApiWalk::sync() {
  return oracle_.sync_evictions([&](quire_page page) {
    auto record = sized<quire_page_record>();
    return quire_page_info(cache_, page, &record) == QUIRE_OK;
  });
}

bool ApiWalk::settle(const Forecast &f, quire_status status) {
  const std::string why = status == QUIRE_OK ? "" : quire_last_error();
  called(status);
  const uint32_t evicted = sync();
  const bool armed = disarm();
  if (setup_.tenants) settle_tenants(f);
  if (!setup_.streams) {
    if (status == QUIRE_OK) {
      // Pages that have died go below a floor.
      expect(f.feasible || (setup_.tenants && f.dying),
             "a call succeeded that needs more memory than there is");
      const uint32_t least = f.missing + std::min(f.over, f.replaceable);
      expect(evicted >= least, "fewer pages were evicted than were missing");
      expect(evicted == least || (f.dying && f.missing + f.over > 0),
             "more pages were evicted than were missing");
    } else if (f.feasible) {
      expect(armed && (status == QUIRE_E_NOMEM || status == QUIRE_E_DEVICE),
             ("a call failed that can be done: " + why).c_str());
    } else {
      expect(status == QUIRE_E_NOMEM || armed, ("not NOMEM: " + why).c_str());
    }
  } else if (status != QUIRE_OK) {
    const bool memory = status == QUIRE_E_AGAIN || status == QUIRE_E_NOMEM;
    expect(memory || (armed && status == QUIRE_E_DEVICE), ("a call failed: " + why).c_str());
  }
  if (status != QUIRE_OK) compare();
  return status == QUIRE_OK;
}

// Nobody but who asked is below its floor for it, unless pages of it had died.
void ApiWalk::settle_tenants(const Forecast &f) const {
  for (size_t i = 0; i < f.pages.size(); ++i) {
    const uint32_t now = oracle_.pages_of(i);
    if (i == f.own || now == f.pages[i] || f.dying) continue;
    expect(now >= oracle_.floors[i], "a namespace was taken below its floor");
    expect(f.over == 0 || f.missing != 0 || setup_.streams,
           "a quota took pages of another namespace");
  }
}

void ApiWalk::arm() {
  hit_ = armed_ = false;
  if (!setup_.failures || !chance(24)) return;
  armed_ = true;
  if (chance(128)) {
    fail_block_ = 1 + below(4);
    return;
  }
  using Call = AdversaryDevice::Call;
  static constexpr Call kCalls[] = {Call::kLaunch,      Call::kCopy,     Call::kRecord,
                                    Call::kQuery,       Call::kZero,     Call::kStreamWait,
                                    Call::kCreateEvent, Call::kCapturing};
  device_.fail(kCalls[below(std::size(kCalls))], 1 + below(3), Status::kDevice);
}

bool ApiWalk::disarm() {
  const bool was = armed_;
  armed_ = false;
  fail_block_ = 0;
  device_.fail_nothing();
  return was;
}

quire_page_record ApiWalk::info(quire_page page) {
  auto record = sized<quire_page_record>();
  expect_status(quire_page_info(cache_, page, &record), QUIRE_OK, "page_info");
  return record;
}

void ApiWalk::compare_stats() {
  auto stats = sized<quire_stats>();
  expect_status(quire_stats_get(cache_, &stats), QUIRE_OK, "stats");
  uint64_t shares = oracle_.shared_pages + oracle_.shared_open;
  expect(stats.epoch == oracle_.epoch, "stats.epoch");
  expect(stats.pages_visible == oracle_.published.size(), "stats.pages_visible");
  expect(stats.pages_private == oracle_.privates.size() + shares, "stats.pages_private");
  expect(stats.leases == oracle_.leases.size(), "stats.leases");
  expect(stats.sequences == sequences_.size(), "stats.sequences");
  expect(stats.frames_free + stats.frames_limbo + oracle_.held(false) == frames_,
         "sealed frames: free + limbo + held");
  expect(stats.open_frames_free + stats.open_frames_limbo + oracle_.held(true) == open_frames_,
         "open frames: free + limbo + held");
  if (!setup_.streams) {
    expect(stats.frames_limbo + stats.open_frames_limbo == 0, "limbo");
    expect(stats.token_mismatches_total == mismatches_, "stats.token_mismatches_total");
  }
  expect(stats.events_dropped_total == 0, "an event was dropped");
  expect(stats.leases_late_total == late_, "events of late leases");
  expect(stats.evictions_capacity_total == removed_[QUIRE_EVICT_CAPACITY] &&
             stats.evictions_idle_total == removed_[QUIRE_EVICT_IDLE] &&
             stats.evictions_expired_total == removed_[QUIRE_EVICT_EXPIRED] &&
             stats.evictions_namespace_total == removed_[QUIRE_EVICT_NAMESPACE] &&
             stats.evictions_quota_total == removed_[QUIRE_EVICT_QUOTA],
         "events of evictions, by reason");
}

void ApiWalk::follow_events() {
  quire_event events[16];
  for (size_t n = std::size(events); n == std::size(events);) {
    events[0].size = sizeof events[0];
    expect_status(quire_events_poll(cache_, events, &n), QUIRE_OK, "events_poll");
    for (size_t i = 0; i < n; ++i) {
      const quire_event &e = events[i];
      expect(e.sequence == ++last_event_, "events: a gap in the numbers");
      expect(e.epoch <= oracle_.epoch, "events: of an epoch to come");
      const auto key = std::make_pair(e.key.lo, e.key.hi);
      if (e.kind != QUIRE_EVENT_LEASE_LATE) {
        expect(e.tier == QUIRE_TIER_DEVICE && e.page != 0, "events: tier or page");
        if (e.kind == QUIRE_EVENT_STORED) {
          expect(told_.emplace(e.page, e.parent).second, "events: a page was stored twice");
        } else {
          const auto told = told_.find(e.page);
          expect(told != told_.end() && same_key(told->second, e.parent),
                 "events: a page was removed that was not stored so");
          told_.erase(told);
          // Of a chain, the end goes first.
          for (const auto &[page, parent] : told_) {
            expect(!same_key(parent, e.key) || listed_[key] > 1,
                   "events: a page was removed before its child");
          }
        }
      }
      switch (e.kind) {
        case QUIRE_EVENT_STORED:
          ++listed_[key];
          break;
        case QUIRE_EVENT_REMOVED:
          expect(e.reason >= QUIRE_EVICT_CAPACITY && e.reason <= QUIRE_EVICT_QUOTA,
                 "events: a page was removed for no reason");
          ++removed_[e.reason];
          expect(listed_.count(key) != 0, "events: a page was removed that was not stored");
          if (--listed_.at(key) == 0) listed_.erase(key);
          break;
        default:
          expect(e.kind == QUIRE_EVENT_LEASE_LATE, "events: of no kind");
          ++late_;
      }
    }
  }
  auto listed = listed_;
  for (const auto &[handle, page] : oracle_.published) {
    const auto at = listed.find({page.key.lo, page.key.hi});
    expect(at != listed.end(), "events: a page is there that was not stored");
    if (--at->second == 0) listed.erase(at);
    const auto told = told_.find(handle);
    expect(told != told_.end(), "events: a page is there that was not stored, by its handle");
    const quire_key &parent =
        page.parent == 0 ? roots_[page.space] : oracle_.published.at(page.parent).key;
    expect(same_key(told->second, parent), "events: another parent's key");
  }
  expect(told_.size() == oracle_.published.size(), "events: pages, by their handles");
  expect(listed.empty(), "events: a page is gone that was not removed");
}

void ApiWalk::compare_tenants() {
  for (size_t i = 0; i < oracle_.floors.size(); ++i) {
    auto record = sized<quire_namespace_record>();
    expect_status(quire_namespace_get(cache_, &roots_[i], &record), QUIRE_OK, "namespace_get");
    expect(record.pages == oracle_.pages_of(i), "namespace_get.pages");
    expect(record.quota == oracle_.quotas[i], "namespace_get.quota");
    expect(record.floor == oracle_.floors[i], "namespace_get.floor");
  }
}

void ApiWalk::compare() {
  follow_events();
  compare_stats();
  compare_tenants();
  for (const auto &[handle, page] : oracle_.published) {
    const quire_page_record r = info(handle);
    expect(r.state == QUIRE_PAGE_PUBLISHED, "page_info.state");
    expect(same_key(r.key, page.key), "page_info.key");
    expect(r.parent == page.parent && r.index == page.depth, "page_info.parent, index");
    expect(r.references == page.references, "page_info.references");
    expect(r.children == page.children, "page_info.children");
    expect(((r.flags & QUIRE_PAGE_DEAD) != 0) == !oracle_.alive(page), "page_info: dead");
    expect(r.age_epochs == oracle_.epoch - page.stamp, "page_info.age_epochs");
    expect(r.expires_ms == page.expiry_ms, "page_info.expires_ms");
    expect(r.idle_ttl_ms == page.idle_ms, "page_info.idle_ttl_ms");
    expect((r.flags & QUIRE_PAGE_OPEN) == 0 && r.frame >= 0, "a published page is open");
  }
  for (const auto &[handle, page] : oracle_.privates) {
    const quire_page_record r = info(handle);
    expect(r.state == QUIRE_PAGE_PRIVATE, "page_info.state of a private page");
    expect(((r.flags & QUIRE_PAGE_OPEN) != 0) == page.open, "page_info: open");
    expect((r.frame < 0) == page.open, "page_info.frame");
  }
  for (const auto &[handle, lease] : oracle_.leases) {
    auto r = sized<quire_lease_record>();
    expect_status(quire_lease_info(cache_, handle, &r), QUIRE_OK, "lease_info");
    expect(r.pages == lease.chain.size(), "lease_info.pages");
    expect(r.private_pages == lease.privates.size(), "lease_info.private_pages");
    expect(r.owner == lease.owner, "lease_info.owner");
    expect(r.tail == (lease.chain.empty() ? 0 : lease.chain.back()), "lease_info.tail");
    const int64_t left = static_cast<int64_t>(lease.deadline_ms - oracle_.now_ms);
    expect(r.remaining_ms == (lease.deadline_ms == 0 ? INT64_MAX : left),
           "lease_info.remaining_ms");
  }
  expect_status(quire_check(cache_, 0), QUIRE_OK, "check");
}

// A frame that was just handed out, for work on `stream`: nothing else still uses it.
void ApiWalk::fresh_frame(int32_t entry, quire_stream stream) {
  const auto found = uses_.find(entry);
  if (found == uses_.end()) return;
  for (const auto &[user, position] : found->second) {
    expect(user == stream || device_.completed(user) >= position,
           "a frame was handed out while a stream still uses it");
  }
  uses_.erase(found);
}

void ApiWalk::enqueue_use(const std::vector<int32_t> &entries, quire_stream stream) {
  if (stream == nullptr || entries.empty()) return;
  expect(device_.launch(stream, Task([] {})) == Status::kOk, "launch");
  for (const int32_t entry : entries) uses_[entry].push_back({stream, device_.position(stream)});
}

// ---- the walk

void ApiWalk::run(uint64_t operations) {
  using Operation = void (ApiWalk::*)();
  static constexpr std::pair<int, Operation> kPlain[] = {
      {14, &ApiWalk::match},    {14, &ApiWalk::acquire},      {11, &ApiWalk::release},
      {3, &ApiWalk::clone},     {3, &ApiWalk::lease_calls},   {16, &ApiWalk::alloc},
      {6, &ApiWalk::free},      {3, &ApiWalk::seal},          {18, &ApiWalk::publish},
      {4, &ApiWalk::look},      {1, &ApiWalk::wrong_calls},   {6, &ApiWalk::clock},
      {3, &ApiWalk::seq_open},  {8, &ApiWalk::seq_append},    {8, &ApiWalk::seq_commit},
      {1, &ApiWalk::seq_fork},  {2, &ApiWalk::seq_truncate},  {3, &ApiWalk::seq_look},
      {3, &ApiWalk::seq_close}, {12, &ApiWalk::stream_calls}, {2, &ApiWalk::tenant_settings}};
  int total = 0;
  for (const auto &[weight, operation] : kPlain) total += weight;
  for (uint64_t i = 0; i < operations; ++i) {
    int at = static_cast<int>(below(static_cast<uint32_t>(total)));
    size_t which = 0;
    for (; at >= kPlain[which].first; ++which) at -= kPlain[which].first;
    const Operation operation = kPlain[which].second;
    (this->*operation)();
    disarm();
    if (++operations_ % 32 == 0) compare();
    if (operations_ % 1024 == 0) evict_namespace();
  }
}

}  // namespace quire::test
