// The walk's operations on prefixes, leases, pages and streams.
#include "tests/support/api_walk.h"

namespace quire::test {
namespace {

template <class T>
T sized() {
  T s;
  QUIRE_INIT(&s);
  return s;
}

}  // namespace

// ---- lookup

void ApiWalk::match() {
  const size_t space = below(static_cast<uint32_t>(roots_.size()));
  const auto path = draw_path(6);
  const auto prefix = prefix_of(space, path);
  auto hit = sized<quire_hit>();
  expect_status(quire_match(cache_, &prefix, &hit), QUIRE_OK, "match");
  const size_t want = oracle_.run(keys_of(space, path)).size();
  note("match space %zu, %zu pages: %u", space, path.size(), hit.pages);
  expect(hit.pages == want && hit.on_device == want && hit.on_host == 0, "match: how many");
}

void ApiWalk::acquire() {
  const size_t space = below(static_cast<uint32_t>(roots_.size()));
  const auto path = draw_path(6);
  auto prefix = prefix_of(space, path);
  const bool no_tokens = verifies_ && chance(4);
  if (no_tokens) prefix.tokens = nullptr;
  auto options = sized<quire_acquire_options>();
  options.owner = random_();
  if (chance(64)) options.deadline_ms = 1 + below(50);
  if (options.deadline_ms != 0 && chance(128)) options.flags = QUIRE_ACQUIRE_REVOCABLE;
  if (chance(32)) options.max_pages = 1 + below(3);
  options.stream = some_stream();
  const bool plain =
      options.deadline_ms == 0 && options.max_pages == 0 && options.stream == nullptr;
  const bool no_options = plain && chance(64);
  std::vector<quire_page> pages(path.size(), 77);
  auto hit = sized<quire_hit>();
  quire_lease lease = 0;
  const bool with_pages = chance(200);
  arm();
  const quire_status status =
      quire_acquire(cache_, &prefix, no_options ? nullptr : &options,
                    with_pages ? pages.data() : nullptr, chance(240) ? &hit : nullptr, &lease);
  note("acquire space %zu, %zu pages, stream %p: %s, lease %llx", space, path.size(),
       options.stream, quire_status_string(status), static_cast<unsigned long long>(lease));
  disarm();
  if (no_tokens) {
    expect_status(status, QUIRE_E_INVALID, "acquire without token ids");
    return compare();
  }
  auto run = oracle_.run(keys_of(space, path));
  if (options.max_pages != 0 && run.size() > options.max_pages) run.resize(options.max_pages);
  const size_t same = oracle_.same_tokens(run, variants_);
  if (oracle_.leases.size() == max_leases_) {
    expect_status(status, QUIRE_E_NOMEM, "acquire with all leases in use");
    return compare();
  }
  expect_status(status, QUIRE_OK, "acquire");
  auto record = sized<quire_lease_record>();
  expect_status(quire_lease_info(cache_, lease, &record), QUIRE_OK, "lease_info");
  expect(record.pages <= same, "acquire: a hit longer than what is there");
  if (same < run.size()) ++mismatches_;
  bool written = false;
  for (size_t i = 0; i < run.size(); ++i) {
    const OraclePage &page = oracle_.published.at(run[i]);
    written |= page.writer != nullptr;
    if (i < record.pages && page.writer != nullptr && options.stream == nullptr) {
      expect(device_.completed(page.writer) >= page.written,
             "a hit on a page that is not written yet");
    }
  }
  expect(record.pages == same || written, "acquire: a hit shorter than what is there");
  // What was cut off the hit was pinned for a moment, and so used.
  for (size_t i = record.pages; i < run.size(); ++i) oracle_.touch(run[i]);
  run.resize(record.pages);
  for (size_t i = 0; with_pages && i < pages.size(); ++i) {
    expect(pages[i] == (i < run.size() ? run[i] : 0), "acquire: pages[]");
  }
  OracleLease l;
  l.chain = run;
  l.space = space;
  l.path = path;
  l.owner = no_options ? 0 : options.owner;
  l.deadline_ms = options.deadline_ms == 0 ? 0 : oracle_.now_ms + options.deadline_ms;
  l.revocable = (options.flags & QUIRE_ACQUIRE_REVOCABLE) != 0;
  if (!run.empty()) oracle_.pin(run.back());
  expect(oracle_.leases.emplace(lease, l).second, "acquire gave a lease that is out already");
}

void ApiWalk::release() {
  const quire_lease lease = some_lease();
  if (lease == 0) return;
  auto retention = sized<quire_retention>();
  retention.idle_ttl_ms = chance(64) ? 20 + below(100) : 0;
  if (retention.idle_ttl_ms != 0 && chance(64)) retention.idle_ttl_ms = UINT32_MAX;
  retention.priority = below(5);
  const bool bad = chance(8);
  if (bad) retention.absolute_ttl_ms = 5;
  const bool retain = bad || chance(64);
  note("release %llx%s", static_cast<unsigned long long>(lease), retain ? " with retention" : "");
  const quire_status status = quire_release(cache_, lease, retain ? &retention : nullptr);
  if (bad) {
    expect_status(status, QUIRE_E_INVALID, "an absolute TTL at release");
    return compare();
  }
  expect_status(status, QUIRE_OK, "release");
  const OracleLease &l = oracle_.leases.at(lease);
  if (retain && retention.priority != 0 && !l.chain.empty()) {
    oracle_.published.at(l.chain.back()).priority = retention.priority;
  }
  if (retain && retention.idle_ttl_ms != 0 && !l.chain.empty()) {
    const bool none = retention.idle_ttl_ms == UINT32_MAX;
    oracle_.published.at(l.chain.back()).idle_ms = none ? 0 : retention.idle_ttl_ms;
  }
  stale_pages_.insert(stale_pages_.end(), l.privates.begin(), l.privates.end());
  stale_leases_.push_back(lease);
  oracle_.release(lease);
}

void ApiWalk::clone() {
  const quire_lease lease = some_lease();
  if (lease == 0) return;
  const OracleLease from = oracle_.leases.at(lease);
  const auto length = static_cast<uint32_t>(from.chain.size());
  const uint32_t pages = chance(64) ? UINT32_MAX : below(length + 2);
  quire_lease out = 0;
  const quire_status status = quire_lease_clone(cache_, lease, pages, nullptr, &out);
  note("clone %llx to %u pages: %s", static_cast<unsigned long long>(lease), pages,
       quire_status_string(status));
  if (pages != UINT32_MAX && pages > length) {
    expect_status(status, QUIRE_E_INVALID, "a clone longer than its chain");
    return compare();
  }
  if (oracle_.leases.size() == max_leases_) {
    return expect_status(status, QUIRE_E_NOMEM, "clone with all leases in use");
  }
  expect_status(status, QUIRE_OK, "clone");
  OracleLease l = from;
  l.privates.clear();
  l.owner = 0;
  l.deadline_ms = 0;
  l.revocable = false;
  if (pages != UINT32_MAX) l.chain.resize(pages);
  if (!l.chain.empty()) oracle_.pin(l.chain.back());
  oracle_.leases.emplace(out, l);
}

void ApiWalk::lease_calls() {
  if (const quire_lease lease = some_lease(); lease != 0) {
    const uint64_t deadline = chance(128) ? 0 : 1 + below(60);
    expect_status(quire_lease_renew(cache_, lease, deadline), QUIRE_OK, "renew");
    note("renew %llx %llu", static_cast<unsigned long long>(lease),
         static_cast<unsigned long long>(deadline));
    oracle_.leases.at(lease).deadline_ms = deadline == 0 ? 0 : oracle_.now_ms + deadline;
  }
  std::set<quire_lease> seen;
  for (quire_lease at = 0;;) {
    expect_status(quire_lease_next(cache_, &at), QUIRE_OK, "lease_next");
    if (at == 0) break;
    expect(oracle_.leases.count(at) != 0 && seen.insert(at).second, "lease_next: an odd lease");
  }
  expect(seen.size() == oracle_.leases.size(), "lease_next left leases out");
}

// ---- private pages

void ApiWalk::alloc() {
  auto options = sized<quire_alloc_options>();
  options.lease = chance(200) ? some_lease() : 0;
  options.flags = chance(64) ? QUIRE_ALLOC_SEALED : 0;
  options.stream = some_stream();
  const bool open = has_open_ && options.flags == 0;
  const uint32_t n = chance(8) ? frames_ + 1 : below(5);
  std::vector<quire_page> pages(n + 1);
  const Forecast f = forecast(open ? 0 : n, open ? n : 0, space_of(options.lease));
  arm();
  const quire_status status = quire_alloc(
      cache_, n,
      chance(8) && options.lease == 0 && !has_open_ && options.stream == nullptr ? nullptr
                                                                                 : &options,
      pages.data());
  note("alloc %u on lease %llx, open %d, stream %p: %s", n,
       static_cast<unsigned long long>(options.lease), open, options.stream,
       quire_status_string(status));
  if (!settle(f, status)) return;
  for (uint32_t i = 0; i < n; ++i) {
    expect(oracle_.privates.emplace(pages[i], OraclePrivate{options.lease, open}).second,
           "alloc gave a page that is out already");
    if (options.lease != 0) oracle_.leases.at(options.lease).privates.push_back(pages[i]);
    fresh_frame(info(pages[i]).frame, options.stream);
  }
}

void ApiWalk::free() {
  if (oracle_.privates.empty()) return;
  std::vector<quire_page> pages;
  for (const auto &[handle, page] : oracle_.privates) {
    if (chance(40)) pages.push_back(handle);
  }
  quire_status want = QUIRE_OK;
  if (chance(24) && !stale_pages_.empty()) {
    pages.push_back(stale_pages_[below(static_cast<uint32_t>(stale_pages_.size()))]);
    want = QUIRE_E_STALE;
  } else if (chance(16) && !oracle_.published.empty()) {
    pages.push_back(oracle_.published.begin()->first);
    want = QUIRE_E_INVALID;
  } else if (chance(24) && !pages.empty()) {
    pages.push_back(pages[below(static_cast<uint32_t>(pages.size()))]);
    want = QUIRE_E_INVALID;
  } else if (chance(8)) {
    pages.push_back(random_());
    want = QUIRE_E_STALE;
  }
  note("free %zu pages, wanted: %s", pages.size(), quire_status_string(want));
  expect_status(quire_free(cache_, pages.data(), static_cast<uint32_t>(pages.size())), want,
                "free");
  if (want != QUIRE_OK) return compare();
  for (const quire_page page : pages) {
    const quire_lease lease = oracle_.privates.at(page).lease;
    if (lease != 0) std::erase(oracle_.leases.at(lease).privates, page);
    oracle_.privates.erase(page);
    stale_pages_.push_back(page);
  }
  while (stale_pages_.size() > 64) stale_pages_.erase(stale_pages_.begin());
}

void ApiWalk::seal() {
  std::vector<quire_page> pages;
  uint32_t open = 0;
  size_t own = ApiOracle::kNobody;
  for (const auto &[handle, page] : oracle_.privates) {
    if (!chance(64)) continue;
    if (page.lease != 0) own = space_of(page.lease);
    pages.push_back(handle);
    open += page.open ? 1u : 0u;
  }
  const quire_stream stream = some_stream();
  const Forecast f = forecast(open, 0, own);
  arm();
  const quire_status status =
      quire_seal(cache_, pages.data(), static_cast<uint32_t>(pages.size()), stream);
  note("seal %zu pages, %u open, stream %p: %s", pages.size(), open, stream,
       quire_status_string(status));
  if (!settle(f, status)) return;
  for (const quire_page page : pages) {
    OraclePrivate &sealed = oracle_.privates.at(page);
    if (has_open_ ? !sealed.open : sealed.sealed) continue;
    sealed.sealed = true;
    sealed.writer = stream;
    sealed.written = stream == nullptr ? 0 : device_.position(stream);
    if (!sealed.open) continue;
    sealed.open = false;
    fresh_frame(info(page).frame, stream);
  }
}

// ---- publish

void ApiWalk::publish() {
  const quire_lease lease = some_lease();
  if (lease == 0) return;
  const OracleLease l = oracle_.leases.at(lease);
  const size_t length = l.chain.size();
  std::vector<quire_page> own(l.privates);
  for (const auto &[handle, page] : oracle_.privates) {
    if (page.lease == 0 && own.size() < 3) own.push_back(handle);
  }
  // Any order, any number of them.
  std::shuffle(own.begin(), own.end(), random_);
  const uint32_t most = 1 + below(3);
  while (own.size() > most) own.pop_back();
  std::vector<uint32_t> path = l.path;
  while (path.size() < length + own.size()) path.push_back(below(3));
  path.resize(length + own.size());
  std::vector<quire_page> pages(length, 5);  // the chain is not looked at
  pages.insert(pages.end(), own.begin(), own.end());
  auto prefix = prefix_of(l.space, path);
  auto options = sized<quire_publish_options>();
  auto retention = sized<quire_retention>();
  options.flags = chance(100) ? QUIRE_PUBLISH_REPLACE : 0;
  options.stream = some_stream();
  if (chance(24)) retention.absolute_ttl_ms = 30 + below(200);
  if (chance(24)) retention.idle_ttl_ms = 30 + below(200);
  retention.priority = below(5);
  if (chance(64)) options.retention = &retention;
  quire_status want = QUIRE_OK;
  std::vector<quire_key> other_keys;
  if (chance(10) && length > 0) {
    prefix.n = static_cast<uint32_t>(length - 1);
    want = QUIRE_E_INVALID;
  } else if (chance(10) && length > 0) {
    other_keys.assign(prefix.keys, prefix.keys + prefix.n);
    other_keys[length - 1].hi ^= 1;
    prefix.keys = other_keys.data();
    want = QUIRE_E_INVALID;
  } else if (chance(10) && length > 0 && !own.empty()) {
    prefix.root = roots_[(l.space + 1) % roots_.size()];
    want = QUIRE_E_INVALID;
  } else if (chance(10) && !own.empty() && !stale_pages_.empty()) {
    pages.back() = stale_pages_.back();
    want = QUIRE_E_STALE;
  } else if (chance(10) && !own.empty() && !oracle_.published.empty()) {
    pages.back() = oracle_.published.begin()->first;
    want = QUIRE_E_INVALID;
  }
  uint32_t open = 0;
  for (const quire_page page : own) open += oracle_.privates.at(page).open ? 1u : 0u;
  Forecast f = forecast(open, 0, space_of(lease));
  if (setup_.tenants && oracle_.quotas[l.space] != 0) {
    const uint64_t wanted = f.pages[l.space] + own.size();
    const uint32_t quota = oracle_.quotas[l.space];
    f.over = wanted > quota && !own.empty() ? static_cast<uint32_t>(wanted - quota) : 0;
    f.replaceable = oracle_.evictable_of(l.space);
  }
  auto result = sized<quire_publish_result>();
  std::vector<quire_page> after = pages;
  if (want == QUIRE_OK) arm();
  const quire_status status =
      quire_publish(cache_, lease, &prefix, after.data(), &options, &result);
  note("publish %zu pages behind %zu on %llx, stream %p, flags %u: %s, %u published", own.size(),
       length, static_cast<unsigned long long>(lease), options.stream, options.flags,
       quire_status_string(status), result.n_published);
  if (want != QUIRE_OK) {
    expect_status(status, want, "publish of what may not be");
    return compare();
  }
  if (!settle(f, status)) return;
  publish_done(lease, path, pages, after, options, result);
}

void ApiWalk::publish_done(quire_lease lease, const std::vector<uint32_t> &path,
                           const std::vector<quire_page> &before,
                           const std::vector<quire_page> &after,
                           const quire_publish_options &options,
                           const quire_publish_result &result) {
  OracleLease &l = oracle_.leases.at(lease);
  const auto &keys = keys_of(l.space, path);
  const size_t length = l.chain.size();
  for (size_t i = length; i < before.size(); ++i) {
    if (!oracle_.privates.at(before[i]).open) continue;
    oracle_.privates.at(before[i]).open = false;
    oracle_.privates.at(before[i]).writer = options.stream;
    oracle_.privates.at(before[i]).written =
        options.stream == nullptr ? 0 : device_.position(options.stream);
    if (after[i] == before[i]) fresh_frame(info(before[i]).frame, options.stream);
  }
  OraclePage fresh;
  fresh.space = l.space;
  fresh.generation = oracle_.generations[l.space];
  fresh.stamp = oracle_.epoch;
  fresh.used_ms = oracle_.now_ms;
  fresh.writer = options.stream;
  fresh.written = options.stream == nullptr ? 0 : device_.position(options.stream);
  if (options.retention != nullptr) {
    fresh.idle_ms = options.retention->idle_ttl_ms;
    if (options.retention->priority != 0) fresh.priority = options.retention->priority;
    if (options.retention->absolute_ttl_ms != 0) {
      fresh.expiry_ms = oracle_.now_ms + options.retention->absolute_ttl_ms;
    }
  }
  uint32_t published = 0, duplicate = 0, replaced = 0;
  uint32_t room = UINT32_MAX;
  if (setup_.tenants && oracle_.quotas[l.space] != 0) {
    const uint32_t quota = oracle_.quotas[l.space], there = oracle_.pages_of(l.space);
    room = quota > there ? quota - there : 0;
  }
  for (size_t i = length; i < before.size(); ++i) {
    const quire_page parent = l.chain.empty() ? 0 : l.chain.back();
    if (parent != 0 && !oracle_.alive(oracle_.published.at(parent))) break;
    const quire_page mine = before[i];
    quire_page tail = oracle_.find(keys[i]);
    bool kept = false;
    if (tail != 0 && oracle_.published.at(tail).variant != variants_[i]) {
      ++mismatches_;
      break;
    }
    if (tail == 0 && published - duplicate == room) break;
    if (tail == 0) {
      OraclePage page = fresh;
      // Whoever sealed it wrote last.
      if (const OraclePrivate &sealed = oracle_.privates.at(mine); sealed.writer != nullptr) {
        page.writer = sealed.writer;
        page.written = sealed.written;
      }
      page.key = keys[i];
      page.parent = parent;
      page.depth = static_cast<uint32_t>(i);
      page.variant = verifies_ ? variants_[i] : 0;
      if (parent != 0)
        page.expiry_ms = std::min(page.expiry_ms, oracle_.published.at(parent).expiry_ms);
      const quire_lease owner = oracle_.privates.at(mine).lease;
      if (owner != 0) std::erase(oracle_.leases.at(owner).privates, mine);
      oracle_.privates.erase(mine);
      oracle_.publish(mine, page);
      tail = mine;
    } else {
      ++duplicate;
      // A page that another stream may still write is not given in place of ours.
      const quire_stream writer = oracle_.published.at(tail).writer;
      kept = writer != nullptr && writer != options.stream && after[i] == mine;
      if (!kept && (options.flags & QUIRE_PUBLISH_REPLACE) != 0) {
        ++replaced;
        const quire_lease owner = oracle_.privates.at(mine).lease;
        if (owner != 0) std::erase(oracle_.leases.at(owner).privates, mine);
        oracle_.privates.erase(mine);
        stale_pages_.push_back(mine);
        expect(after[i] == tail, "publish: pages[] after REPLACE");
      }
    }
    if (tail == mine || kept || (options.flags & QUIRE_PUBLISH_REPLACE) == 0) {
      expect(after[i] == mine, "publish changed pages[]");
    }
    oracle_.pin(tail);
    if (parent != 0) oracle_.unpin(parent);
    l.chain.push_back(tail);
    ++published;
  }
  expect(result.n_published == published, "publish: n_published");
  expect(result.n_duplicate == duplicate, "publish: n_duplicate");
  expect(result.n_replaced == replaced, "publish: n_replaced");
  if (l.path.size() < l.chain.size()) l.path = path;
  for (size_t i = length; i < l.chain.size(); ++i) l.path[i] = path[i];
}

// ---- looking, and calls that must fail

void ApiWalk::look() {
  std::vector<quire_page> pages;
  for (const auto &[handle, page] : oracle_.privates) pages.push_back(handle);
  for (const auto &[handle, lease] : oracle_.leases) {
    pages.insert(pages.end(), lease.chain.begin(), lease.chain.end());
  }
  std::vector<int32_t> table(pages.size());
  expect_status(quire_frames(cache_, pages.data(), static_cast<uint32_t>(pages.size()),
                             QUIRE_TIER_DEVICE, table.data()),
                QUIRE_OK, "frames");
  std::map<int32_t, quire_page> holder;
  for (size_t i = 0; i < pages.size(); ++i) {
    const auto [at, inserted] = holder.emplace(table[i], pages[i]);
    expect(inserted || at->second == pages[i], "two pages lie in one frame");
    expect(table[i] >= 0 ? static_cast<uint32_t>(table[i]) < frames_
                         : static_cast<uint32_t>(-2 - table[i]) < open_frames_,
           "frames: no such frame");
  }
  const quire_stream stream = some_stream();
  note("look at %zu pages, stream %p", pages.size(), stream);
  enqueue_use(table, stream);
}

void ApiWalk::wrong_calls() {
  note("wrong calls");
  auto record = sized<quire_page_record>();
  auto lease_record = sized<quire_lease_record>();
  quire_lease out = 0;
  int32_t entry = 0;
  const quire_lease lease = stale_leases_.empty() ? random_() : stale_leases_.back();
  const quire_page page = stale_pages_.empty() ? random_() : stale_pages_.back();
  expect_status(quire_release(cache_, lease, nullptr), QUIRE_E_STALE, "release twice");
  expect_status(quire_lease_clone(cache_, lease, 0, nullptr, &out), QUIRE_E_STALE,
                "clone of a stale one");
  expect_status(quire_lease_renew(cache_, lease, 1), QUIRE_E_STALE, "renew of a stale one");
  expect_status(quire_lease_info(cache_, lease, &lease_record), QUIRE_E_STALE,
                "info of a stale one");
  expect_status(quire_page_info(cache_, page, &record), QUIRE_E_STALE, "info of a stale page");
  expect_status(quire_frames(cache_, &page, 1, QUIRE_TIER_DEVICE, &entry), QUIRE_E_STALE,
                "frames of a stale page");
  expect_status(quire_free(cache_, &page, 1), QUIRE_E_STALE, "free of a stale page");
  expect_status(quire_seal(cache_, &page, 1, nullptr), QUIRE_E_STALE, "seal of a stale page");
  // A lease for a page, and the other way round.
  if (!oracle_.leases.empty()) {
    const quire_page wrong = oracle_.leases.begin()->first;
    expect_status(quire_free(cache_, &wrong, 1), QUIRE_E_STALE, "free of a lease");
  }
  if (!oracle_.privates.empty()) {
    expect_status(quire_release(cache_, oracle_.privates.begin()->first, nullptr), QUIRE_E_STALE,
                  "release of a page");
  }
  int no_stream = 0;
  auto options = sized<quire_alloc_options>();
  options.stream = &no_stream;
  quire_page unused = 0;
  expect_status(quire_alloc(cache_, 1, &options, &unused), QUIRE_E_INVALID,
                "alloc on a foreign stream");
  compare();
}

void ApiWalk::evict_namespace() {
  const size_t space = below(static_cast<uint32_t>(roots_.size()));
  note("evict namespace %zu", space);
  bool known = false;
  for (const auto &[handle, page] : oracle_.published) known |= page.space == space;
  expect_status(quire_evict(cache_, &roots_[space]), QUIRE_OK, "evict");
  if (known) ++oracle_.generations[space];
  compare();
}

void ApiWalk::set_limits(size_t space, uint32_t quota, uint32_t floor) {
  auto settings = sized<quire_namespace>();
  settings.quota = quota;
  settings.floor = floor;
  uint32_t floors = floor;
  for (size_t i = 0; i < oracle_.floors.size(); ++i) floors += i == space ? 0 : oracle_.floors[i];
  quire_status want = QUIRE_OK;
  if (quota != 0 && floor > quota) {
    want = QUIRE_E_INVALID;
  } else if (floors > frames_ && floor > oracle_.floors[space]) {
    want = QUIRE_E_NOMEM;
  }
  const uint32_t pages = oracle_.pages_of(space);
  const uint32_t over = quota != 0 && pages > quota ? pages - quota : 0;
  const uint32_t replaceable = oracle_.evictable_of(space);
  note("limits of namespace %zu: quota %u, floor %u", space, quota, floor);
  expect_status(quire_namespace_set(cache_, &roots_[space], &settings), want, "namespace_set");
  if (want != QUIRE_OK) return compare();
  oracle_.quotas[space] = quota;
  oracle_.floors[space] = floor;
  expect(sync() == std::min(over, replaceable), "a lower quota took too few pages, or too many");
}

void ApiWalk::tenant_settings() {
  if (!setup_.tenants) return;
  const size_t space = below(static_cast<uint32_t>(roots_.size()));
  // One has a floor at all times: leases that are taken without any do not know their namespace.
  const uint32_t floor = space == 0 ? 1 + below(frames_ / 3) : chance(128) ? below(frames_ / 3) : 0;
  // One of the two at least: a namespace without settings may be recycled, and is then unknown.
  const uint32_t quota = floor == 0 || chance(128) ? 1 + below(frames_ / 2) : 0;
  set_limits(space, quota, floor);
}

// ---- time and streams

void ApiWalk::clock() {
  if (chance(128)) oracle_.now_ms += below(10);
  if (chance(8)) oracle_.now_ms += 150;
  note("step at %llu ms", static_cast<unsigned long long>(oracle_.now_ms));
  arm();
  expect_status(quire_step(cache_), QUIRE_OK, "step");
  disarm();
  ++oracle_.epoch;
  // Revocable leases that are late go.
  std::vector<quire_lease> late;
  for (const auto &[handle, lease] : oracle_.leases) {
    if (lease.revocable && lease.deadline_ms != 0 && lease.deadline_ms <= oracle_.now_ms) {
      late.push_back(handle);
    }
  }
  for (const quire_lease lease : late) {
    stale_leases_.push_back(lease);
    oracle_.release(lease);
  }
  // What has died goes, nothing else.
  const uint32_t dying = oracle_.dying();
  expect(sync() <= dying, "a step evicted a page that lives");
}

void ApiWalk::stream_calls() {
  if (!setup_.streams) return;
  if (chance(16)) device_.hold_events(chance(100));
  if (chance(220)) device_.pump(below(8));
  if (chance(24)) {
    const quire_stream stream = streams_[below(static_cast<uint32_t>(streams_.size()))];
    const auto found = std::find(added_.begin(), added_.end(), stream);
    if (found == added_.end()) {
      note("stream_add %p", stream);
      arm();
      const quire_status status = quire_stream_add(cache_, stream, 0, 0);
      const bool armed = disarm();
      called(status);
      // Streams that were removed have their slots until the adversary lets their work end.
      auto then = sized<quire_stats>();
      expect_status(quire_stats_get(cache_, &then), QUIRE_OK, "stats");
      const bool full = status == QUIRE_E_NOMEM && then.streams == max_streams_;
      expect(status == QUIRE_OK || full || (armed && status == QUIRE_E_DEVICE), quire_last_error());
      if (status == QUIRE_OK) {
        added_.push_back(stream);
        ++oracle_.epoch;
      }
      expect(status != QUIRE_OK || quire_stream_add(cache_, stream, 0, 0) == QUIRE_E_INVALID,
             "a stream was added twice");
    } else {
      note("stream_remove %p", stream);
      arm();
      const quire_status status = quire_stream_remove(cache_, stream);
      const bool armed = disarm();
      called(status);
      expect(status == QUIRE_OK || (armed && status == QUIRE_E_DEVICE), quire_last_error());
      if (status == QUIRE_OK) added_.erase(found);
    }
    auto stats = sized<quire_stats>();
    expect_status(quire_stats_get(cache_, &stats), QUIRE_OK, "stats");
    expect(stats.epoch == oracle_.epoch || stats.epoch == oracle_.epoch + 1, "the clock jumped");
    oracle_.epoch = stats.epoch;
  }
}

}  // namespace quire::test
