// The walk's operations on sequences.
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

std::map<quire_seq, OracleSequence>::iterator ApiWalk::some_sequence() {
  auto at = sequences_.begin();
  if (!sequences_.empty()) std::advance(at, below(static_cast<uint32_t>(sequences_.size())));
  return at;
}

std::shared_ptr<OracleShare> ApiWalk::take_share(bool open) {
  ++(open ? oracle_.shared_open : oracle_.shared_pages);
  return std::make_shared<OracleShare>(OracleShare{1, open});
}

void ApiWalk::drop_share(std::shared_ptr<OracleShare> &share) {
  if (--share->shares == 0) --(share->open ? oracle_.shared_open : oracle_.shared_pages);
  share.reset();
}

std::vector<int32_t> ApiWalk::table_of(quire_seq seq) {
  uint32_t n = 0;
  expect_status(quire_seq_block_table(cache_, seq, nullptr, 0, &n, nullptr), QUIRE_OK,
                "block_table: n");
  std::vector<int32_t> table(n);
  uint64_t kv_len = 0;
  expect_status(quire_seq_block_table(cache_, seq, table.data(), n, &n, &kv_len), QUIRE_OK,
                "block_table");
  expect(kv_len == sequences_.at(seq).reserved, "block_table: kv_len");
  return table;
}

void ApiWalk::fresh_frames(const std::vector<int32_t> &before, quire_seq seq, quire_stream stream) {
  if (!setup_.streams) return;
  // Frames of the chain are others' as well, and may be read by anybody.
  const auto table = table_of(seq);
  for (size_t i = chain_of(sequences_.at(seq)); i < table.size(); ++i) {
    if (std::find(before.begin(), before.end(), table[i]) == before.end()) {
      fresh_frame(table[i], stream);
    }
  }
}

void ApiWalk::check_sequence(quire_seq seq) {
  const OracleSequence &s = sequences_.at(seq);
  auto r = sized<quire_seq_record>();
  expect_status(quire_seq_info(cache_, seq, &r), QUIRE_OK, "seq_info");
  expect(r.lease == s.lease, "seq_info.lease");
  expect(r.reserved == s.reserved, "seq_info.reserved");
  expect(r.committed == s.committed, "seq_info.committed");
  expect(r.published == uint64_t{chain_of(s)} * page_tokens_, "seq_info.published");
  expect(r.hit == s.hit, "seq_info.hit");
  const auto table = table_of(seq);
  expect(table.size() == chain_of(s) + s.pages.size(), "block_table: length");
  for (size_t i = 0; i < table.size(); ++i) {
    const bool open = i >= chain_of(s) && s.pages[i - chain_of(s)]->open;
    expect((table[i] < 0) == open, "block_table: open");
  }
}

void ApiWalk::seq_open() {
  if (setup_.tenants) return;
  const size_t space = below(static_cast<uint32_t>(roots_.size()));
  const auto path = draw_path(4);
  auto tokens = tokens_of(path);
  if (chance(128)) tokens.resize(tokens.size() - below(page_tokens_));
  auto options = sized<quire_seq_options>();
  if (chance(24)) options.flags |= QUIRE_SEQ_PRIVATE;
  if (chance(64)) options.flags |= QUIRE_SEQ_LEAVE_ONE;
  options.owner = random_();
  quire_seq seq = 0;
  auto hit = sized<quire_hit>();
  arm();
  const quire_status status =
      quire_seq_open(cache_, &roots_[space], tokens.data(), tokens.size(), &options, &hit, &seq);
  const bool armed = disarm();
  note("seq_open space %zu, %zu tokens, flags %u: %s, %u hit, %llx", space, tokens.size(),
       options.flags, quire_status_string(status), hit.pages, static_cast<unsigned long long>(seq));
  called(status);
  const bool full = sequences_.size() == max_sequences_ || oracle_.leases.size() == max_leases_;
  if (status != QUIRE_OK) {
    expect(status == QUIRE_E_NOMEM && (full || armed), quire_last_error());
    return compare();
  }
  expect(!full, "a sequence beyond max_sequences or max_leases");
  OracleSequence s;
  s.space = space;
  s.publishes = (options.flags & QUIRE_SEQ_PRIVATE) == 0;
  size_t pages = s.publishes ? tokens.size() / page_tokens_ : 0;
  if ((options.flags & QUIRE_SEQ_LEAVE_ONE) != 0 && pages > 0 &&
      pages * page_tokens_ == tokens.size())
    --pages;
  const std::vector<uint32_t> part(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(pages));
  auto run = oracle_.run(keys_of(space, part));
  const size_t same = oracle_.same_tokens(run, std::vector<uint32_t>(run.size(), 0));
  if (same < run.size()) ++mismatches_;
  expect(hit.pages == same || (setup_.streams && hit.pages < same), "seq_open: hit");
  for (size_t i = hit.pages; i < run.size(); ++i) oracle_.touch(run[i]);
  run.resize(hit.pages);
  auto record = sized<quire_seq_record>();
  expect_status(quire_seq_info(cache_, seq, &record), QUIRE_OK, "seq_info");
  s.lease = record.lease;
  s.hit = s.committed = s.reserved = uint64_t{run.size()} * page_tokens_;
  s.tokens.assign(tokens.begin(),
                  tokens.begin() + static_cast<std::ptrdiff_t>(s.publishes ? s.committed : 0));
  OracleLease l;
  l.chain = run;
  l.space = space;
  l.owner = options.owner;
  if (!run.empty()) oracle_.pin(run.back());
  oracle_.leases.emplace(s.lease, l);
  sequences_.emplace(seq, s);
  check_sequence(seq);
}

void ApiWalk::seq_append() {
  if (sequences_.empty()) return;
  const auto at = some_sequence();
  OracleSequence &s = at->second;
  const uint32_t n = below(2 * page_tokens_ + 2);
  const uint32_t chain = chain_of(s);
  const auto want = static_cast<size_t>((s.reserved + n + page_tokens_ - 1) / page_tokens_);
  const auto fresh = static_cast<uint32_t>(want - chain - s.pages.size());
  const bool copies = n > 0 && s.reserved % page_tokens_ != 0 && s.pages.back()->shares > 1;
  const uint32_t need = fresh + (copies ? 1 : 0);
  const bool copy_open = copies && s.pages.back()->open;
  const Forecast f = has_open_ ? forecast(copies && !copy_open ? 1 : 0, fresh + (copy_open ? 1 : 0))
                               : forecast(need, 0);
  const quire_stream stream = some_stream();
  std::vector<int64_t> slots(n + 1, -7);
  const auto before = table_of(at->first);
  arm();
  const quire_status status = quire_seq_append(cache_, at->first, n, stream, slots.data());
  note("seq_append %llx by %u of %llu: %s", static_cast<unsigned long long>(at->first), n,
       static_cast<unsigned long long>(s.reserved), quire_status_string(status));
  if (!settle(f, status)) return check_sequence(at->first);
  if (copies) {
    const bool open = s.pages.back()->open;
    drop_share(s.pages.back());
    s.pages.back() = take_share(open);
  }
  for (uint32_t i = 0; i < fresh; ++i) s.pages.push_back(take_share(has_open_));
  const uint64_t first = s.reserved;
  s.reserved += n;
  check_sequence(at->first);
  const auto table = table_of(at->first);
  fresh_frames(before, at->first, stream);
  for (uint32_t i = 0; i < n; ++i) {
    const int64_t entry = table[(first + i) / page_tokens_];
    const auto offset = static_cast<int64_t>((first + i) % page_tokens_);
    const int64_t slot =
        entry >= 0 ? entry * page_tokens_ + offset : -2 - ((-2 - entry) * page_tokens_ + offset);
    expect(slots[i] == slot, "append: slots");
  }
}

void ApiWalk::seq_commit() {
  if (sequences_.empty()) return;
  const auto at = some_sequence();
  OracleSequence &s = at->second;
  const bool too_many = chance(8);
  const auto room = static_cast<uint32_t>(s.reserved - s.committed);
  const uint32_t n = too_many ? room + 1 : chance(128) ? room : below(room + 1);
  std::vector<uint32_t> tokens;
  for (uint32_t i = 0; i < n; ++i) {
    // Whole pages of the pool's branches, so that what sequences publish is met again.
    const uint64_t position = s.committed + i;
    const uint64_t page = position / page_tokens_;
    const uint32_t branch = static_cast<uint32_t>((page * 7 + s.space) % 5 % 3);
    tokens.push_back(branch * 1000 + static_cast<uint32_t>(position % page_tokens_));
  }
  const bool with_tokens = chance(230);
  const quire_stream stream = some_stream();
  uint32_t sealed = 0, copies = 0;
  const uint32_t chain = chain_of(s);
  const uint64_t first = s.committed / page_tokens_;
  const uint64_t last = (s.committed + n) / page_tokens_;
  for (uint64_t i = first; has_open_ && !too_many && i < last; ++i) {
    const auto &page = s.pages[i - chain];
    if (!page->open) continue;
    ++sealed;
    copies += page->shares > 1 ? 1u : 0u;
  }
  expect(copies == 0, "the oracle itself: a page about to be full is shared");
  const Forecast f = forecast(sealed, 0);
  const auto before = table_of(at->first);
  if (!too_many) arm();
  const quire_status status =
      quire_seq_commit(cache_, at->first, with_tokens ? tokens.data() : nullptr, n, stream);
  note("seq_commit %llx, %u tokens (ids: %d) at %llu: %s",
       static_cast<unsigned long long>(at->first), n, with_tokens,
       static_cast<unsigned long long>(s.committed), quire_status_string(status));
  if (too_many) {
    expect_status(status, QUIRE_E_INVALID, "commit of more than is reserved");
    return check_sequence(at->first);
  }
  if (!settle(f, status)) return check_sequence(at->first);
  for (uint64_t i = first; has_open_ && i < last; ++i) {
    auto &page = s.pages[i - chain];
    if (!page->open) continue;
    drop_share(page);
    page = take_share(false);
  }
  seq_commit_done(at->first, with_tokens ? &tokens : nullptr, n, stream);
  fresh_frames(before, at->first, stream);
  check_sequence(at->first);
}

// What became full is published, as far as the index takes it.
void ApiWalk::seq_commit_done(quire_seq seq, const std::vector<uint32_t> *tokens, uint32_t n,
                              quire_stream stream) {
  OracleSequence &s = sequences_.at(seq);
  OracleLease &l = oracle_.leases.at(s.lease);
  const uint64_t first = s.committed / page_tokens_;
  const uint64_t last = (s.committed + n) / page_tokens_;
  s.committed += n;
  if (n > 0 && tokens == nullptr) s.publishes = false;
  if (s.publishes && tokens != nullptr)
    s.tokens.insert(s.tokens.end(), tokens->begin(), tokens->end());
  std::vector<quire_page> chain;  // the library's, for the handles of new pages
  auto record = sized<quire_lease_record>();
  expect_status(quire_lease_info(cache_, s.lease, &record), QUIRE_OK, "lease_info");
  for (quire_page page = record.tail; page != 0; page = info(page).parent) chain.push_back(page);
  std::reverse(chain.begin(), chain.end());
  for (uint64_t i = first; i < last && s.publishes; ++i) {
    expect(l.chain.size() == i, "the oracle itself: a chain with a gap");
    const quire_page parent = l.chain.empty() ? 0 : l.chain.back();
    if (parent != 0 && !oracle_.alive(oracle_.published.at(parent))) {
      s.publishes = false;
      break;
    }
    std::vector<quire_key> keys(i + 1);
    size_t n_keys = keys.size();
    expect_status(quire_chain_keys(cache_, &roots_[s.space], s.tokens.data(),
                                   keys.size() * page_tokens_, nullptr, 0, keys.data(), &n_keys),
                  QUIRE_OK, "chain_keys");
    quire_page tail = oracle_.find(keys[i]);
    if (tail != 0 && oracle_.published.at(tail).variant != 0) {
      expect(i >= chain.size(), "commit goes on behind a page of other tokens");
      ++mismatches_;
      s.publishes = false;
      break;
    }
    if (tail != 0 && i >= chain.size()) {
      // The sequence would read what another stream may still write: it goes on with its own page.
      const quire_stream writer = oracle_.published.at(tail).writer;
      expect(writer != nullptr && writer != stream, "commit left a duplicate that is ready");
      s.publishes = false;
      break;
    }
    expect(i < chain.size(), "commit published less than it can");
    if (tail == 0) {
      OraclePage page;
      page.key = keys[i];
      page.parent = parent;
      page.depth = static_cast<uint32_t>(i);
      page.space = s.space;
      page.generation = oracle_.generations[s.space];
      page.stamp = oracle_.epoch;
      page.used_ms = oracle_.now_ms;
      if (parent != 0) page.expiry_ms = oracle_.published.at(parent).expiry_ms;
      tail = chain[i];
      expect(oracle_.published.count(tail) == 0, "commit took a page that was published");
      page.writer = stream;
      page.written = stream == nullptr ? 0 : device_.position(stream);
      // Coded just now; a plain page has been ours all along.
      if (has_open_) fresh_frame(info(tail).frame, stream);
      oracle_.publish(tail, page);
      --oracle_.shared_pages;  // the frame is a published page's from here on
      s.pages.front()->shares = 0;
      s.pages.front().reset();
    } else {
      drop_share(s.pages.front());
    }
    expect(chain[i] == tail, "commit: another page than the canonical one");
    s.pages.erase(s.pages.begin());
    oracle_.pin(tail);
    if (parent != 0) oracle_.unpin(parent);
    l.chain.push_back(tail);
  }
  if (!s.publishes) s.tokens.clear();
}

void ApiWalk::seq_fork() {
  if (sequences_.empty()) return;
  const auto at = some_sequence();
  const OracleSequence from = at->second;
  const uint32_t chain = chain_of(from);
  const auto n_pages = static_cast<size_t>((from.committed + page_tokens_ - 1) / page_tokens_);
  const bool copies =
      from.committed % page_tokens_ != 0 && from.reserved > from.committed && n_pages > chain;
  const bool open = copies && from.pages[n_pages - 1 - chain]->open;
  const bool full = sequences_.size() == max_sequences_ || oracle_.leases.size() == max_leases_;
  const Forecast f = forecast(copies && !open ? 1 : 0, open ? 1 : 0);
  const quire_stream stream = some_stream();
  quire_seq child = 0;
  arm();
  const quire_status status = quire_seq_fork(cache_, at->first, stream, &child);
  note("seq_fork %llx: %s, %llx", static_cast<unsigned long long>(at->first),
       quire_status_string(status), static_cast<unsigned long long>(child));
  if (full) {
    disarm();
    expect_status(status, QUIRE_E_NOMEM, "fork beyond a limit");
    return compare();
  }
  if (!settle(f, status)) return check_sequence(at->first);
  OracleSequence s = from;
  s.reserved = s.committed;
  s.pages.resize(n_pages - chain);
  for (auto &page : s.pages) ++page->shares;
  if (copies) {
    drop_share(s.pages.back());
    s.pages.back() = take_share(open);
  }
  auto record = sized<quire_seq_record>();
  expect_status(quire_seq_info(cache_, child, &record), QUIRE_OK, "seq_info");
  s.lease = record.lease;
  OracleLease l = oracle_.leases.at(from.lease);
  if (!l.chain.empty()) oracle_.pin(l.chain.back());
  oracle_.leases.emplace(s.lease, l);
  sequences_.emplace(child, s);
  check_sequence(child);
  check_sequence(at->first);
}

void ApiWalk::seq_truncate() {
  if (sequences_.empty()) return;
  const auto at = some_sequence();
  OracleSequence &s = at->second;
  const bool longer = chance(8);
  const uint64_t n = longer ? s.reserved + 1 : below(static_cast<uint32_t>(s.reserved + 1));
  const auto keep = static_cast<size_t>((n + page_tokens_ - 1) / page_tokens_);
  const uint32_t chain = chain_of(s);
  bool copies = false, decodes = false;
  if (!longer && n < s.reserved && n % page_tokens_ != 0) {
    decodes = has_open_ && (keep <= chain || !s.pages[keep - 1 - chain]->open);
    copies = decodes || keep <= chain;
  }
  const Forecast f = forecast(copies && !has_open_ ? 1 : 0, copies && has_open_ ? 1 : 0);
  const quire_stream stream = some_stream();
  const auto before = table_of(at->first);
  if (!longer) arm();
  const quire_status status = quire_seq_truncate(cache_, at->first, n, stream);
  note("seq_truncate %llx from %llu to %llu: %s", static_cast<unsigned long long>(at->first),
       static_cast<unsigned long long>(s.reserved), static_cast<unsigned long long>(n),
       quire_status_string(status));
  if (longer) {
    expect_status(status, QUIRE_E_INVALID, "truncate to more than there is");
    return check_sequence(at->first);
  }
  if (!settle(f, status)) return check_sequence(at->first);
  OracleLease &l = oracle_.leases.at(s.lease);
  const auto new_chain = static_cast<uint32_t>(std::min<size_t>(chain, copies ? keep - 1 : keep));
  while (chain + s.pages.size() > keep && !s.pages.empty()) {
    drop_share(s.pages.back());
    s.pages.pop_back();
  }
  if (copies && keep > chain) drop_share(s.pages[keep - 1 - chain]);
  if (copies && keep <= chain) s.pages.emplace_back();
  if (copies) s.pages[keep > chain ? keep - 1 - chain : 0] = take_share(has_open_);
  if (new_chain < chain) {
    const quire_page old = l.chain.back();
    l.chain.resize(new_chain);
    if (!l.chain.empty()) oracle_.pin(l.chain.back());
    oracle_.unpin(old);
  }
  s.reserved = n;
  s.committed = std::min(s.committed, n);
  if (decodes) s.publishes = false;
  s.tokens.resize(s.publishes ? s.committed : 0);
  fresh_frames(before, at->first, stream);
  check_sequence(at->first);
}

void ApiWalk::seq_look() {
  if (sequences_.empty()) return;
  const auto at = some_sequence();
  check_sequence(at->first);
  const auto table = table_of(at->first);
  if (!table.empty()) {
    uint32_t n = 0;
    std::vector<int32_t> room(table.size());
    expect_status(quire_seq_block_table(cache_, at->first, room.data(),
                                        static_cast<uint32_t>(table.size() - 1), &n, nullptr),
                  QUIRE_E_INVALID, "block_table without room");
    expect(n == table.size(), "block_table: n where room is short");
  }
  enqueue_use(table, some_stream());
}

void ApiWalk::seq_close() {
  if (sequences_.empty()) return;
  const auto at = some_sequence();
  note("seq_close %llx", static_cast<unsigned long long>(at->first));
  expect_status(quire_seq_close(cache_, at->first, nullptr), QUIRE_OK, "seq_close");
  expect_status(quire_seq_close(cache_, at->first, nullptr), QUIRE_E_STALE, "seq_close twice");
  for (auto &page : at->second.pages) drop_share(page);
  oracle_.release(at->second.lease);
  sequences_.erase(at);
}

}  // namespace quire::test
