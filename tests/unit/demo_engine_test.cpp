// The demo's engine on Quire's pages, held against plain arrays: whatever a sequence goes through,
// its logits are those of the same tokens computed from scratch.
#define BOOST_TEST_MODULE demo_engine
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <span>

#include "tools/quire-demo/chat.h"
#include "tools/quire-demo/engine.h"
#include "tools/quire-demo/plain_backend.h"
#include "tools/quire-demo/prompts.h"
#include "tools/quire-demo/quality.h"
#include "tools/quire-demo/sampler.h"

using namespace quire::demo;

namespace {

constexpr double kTolerance = 1e-4;  // of a logit; logits reach about 20

// Less of the same where each operation takes ten times as long.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSlow = true;
#else
constexpr bool kSlow = false;
#endif

const Model &model() {
  static const Model m = Model::load(QUIRE_SOURCE_DIR "/tools/quire-demo/model/bytelm64.f16.bin");
  return m;
}

Workers &workers() {
  static Workers w(2);
  return w;
}

const KeyMeans &means() {
  static const KeyMeans m = key_means(model(), to_tokens(kCalibrationText), workers());
  return m;
}

std::vector<uint32_t> prompt(size_t i = 0) {
  return to_tokens(kSystemPrompts[i]);
}

// Logits of every token of a text, from plain arrays; each text is computed once.
const std::vector<float> &expected(const std::vector<uint32_t> &text) {
  static std::map<std::vector<uint32_t>, std::vector<float>> known;
  std::vector<float> &logits = known[text];
  if (logits.empty()) {
    Forward forward(model(), 128, workers());
    logits = plain_logits(forward, text, 128);
  }
  return logits;
}

std::span<const float> row(const std::vector<float> &logits, size_t token) {
  return std::span(logits).subspan(token * 256, 256);
}

double distance(std::span<const float> a, std::span<const float> b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(double{a[i]} - b[i]));
  return most;
}

EngineOptions plain_pages() {
  return {.format = QUIRE_FORMAT_F32, .pages = 256};
}
EngineOptions nf4_pages() {
  return {.format = QUIRE_FORMAT_NF4, .pages = 256, .means = &means()};
}

// Feeds `tokens` behind the sequence, n at a time, and checks each pass against `want`.
void feed(Engine &engine, Sequence &sequence, std::span<const uint32_t> tokens, size_t n,
          const std::vector<float> &want) {
  for (size_t first = 0; first < tokens.size(); first += n) {
    const Step step{&sequence, tokens.subspan(first, std::min(n, tokens.size() - first))};
    engine.forward(std::span(&step, 1));
    BOOST_TEST(distance(engine.logits(0), row(want, sequence.committed() - 1)) < kTolerance);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(f32_pages_give_the_logits_of_plain_arrays) {
  Engine engine(model(), workers(), plain_pages());
  auto text = prompt();
  if (kSlow) text.resize(140);
  const auto &want = expected(text);
  for (const size_t pass : {1U, 7U, 16U, 128U}) {
    Sequence sequence = engine.open("tenant " + std::to_string(pass), text);
    BOOST_TEST(sequence.hit() == 0U);
    feed(engine, sequence, text, pass, want);
  }
  const auto all = teacher_forced(engine, text, 256);
  BOOST_TEST(distance(all, want) < kTolerance);
  engine.check();
}

BOOST_AUTO_TEST_CASE(reused_prefix_gives_the_logits_of_a_computed_one) {
  Engine engine(model(), workers(), plain_pages());
  auto text = prompt();
  const auto &want = expected(text);
  {
    Sequence first = engine.open("a", text);
    BOOST_TEST(distance(engine.prefill(first, text), row(want, text.size() - 1)) < kTolerance);
  }
  const uint64_t before = engine.counters().prefill_tokens;
  Sequence second = engine.open("a", text);
  BOOST_TEST(second.hit() == (text.size() - 1) / 16 * 16);
  BOOST_TEST(distance(engine.prefill(second, text), row(want, text.size() - 1)) < kTolerance);
  BOOST_TEST(engine.counters().prefill_tokens - before == text.size() - second.hit());
  // A tenant of its own finds nothing of this.
  Sequence other = engine.open("b", text);
  BOOST_TEST(other.hit() == 0U);
  // The last token is never part of a hit, though its page is cached.
  const std::vector<uint32_t> pages(text.begin(), text.begin() + 64);
  Sequence exact = engine.open("a", pages);
  BOOST_TEST(exact.hit() == 48U);
}

BOOST_AUTO_TEST_CASE(without_reuse_nothing_is_found) {
  EngineOptions options = plain_pages();
  options.reuse = false;
  Engine engine(model(), workers(), options);
  const auto text = prompt();
  for (int i = 0; i < 2; ++i) {
    Sequence sequence = engine.open("a", text);
    BOOST_TEST(sequence.hit() == 0U);
    engine.prefill(sequence, text);
  }
}

BOOST_AUTO_TEST_CASE(batch_gives_each_sequence_its_own_logits) {
  Engine engine(model(), workers(), plain_pages());
  std::vector<std::vector<uint32_t>> texts;
  std::vector<std::vector<float>> wants;
  std::vector<Sequence> sequences;
  for (size_t i = 0; i < 5; ++i) {
    texts.push_back(prompt(i));
    texts.back().resize(100 + 13 * i);
    wants.push_back(expected(texts.back()));
    sequences.push_back(engine.open("a", texts.back()));
  }
  // Ragged: sequence i takes i + 1 tokens a pass.
  for (size_t pass = 0; pass < 12; ++pass) {
    std::vector<Step> steps;
    for (size_t i = 0; i < 5; ++i) {
      const size_t at = sequences[i].committed();
      steps.push_back({&sequences[i], std::span(texts[i]).subspan(at, i + 1)});
    }
    engine.forward(steps);
    for (size_t i = 0; i < 5; ++i) {
      const auto want = row(wants[i], sequences[i].committed() - 1);
      BOOST_TEST(distance(engine.logits(i), want) < kTolerance);
    }
  }
}

BOOST_AUTO_TEST_CASE(forks_go_their_own_ways) {
  Engine engine(model(), workers(), plain_pages());
  auto text = prompt();
  text.resize(101);  // the fork shares a partial page
  Sequence parent = engine.open("a", text);
  engine.prefill(parent, text);
  std::vector<Sequence> family;
  std::vector<std::vector<uint32_t>> texts;
  for (size_t i = 0; i < 3; ++i) family.push_back(engine.fork(parent));
  family.push_back(std::move(parent));
  for (size_t i = 0; i < family.size(); ++i) {
    texts.push_back(text);
    const auto tail = prompt(i + 1);
    texts[i].insert(texts[i].end(), tail.begin(), tail.begin() + 40);
  }
  std::vector<std::vector<float>> wants;
  for (const auto &t : texts) wants.push_back(expected(t));
  for (size_t token = text.size(); token < texts[0].size(); ++token) {
    std::vector<Step> steps;
    for (size_t i = 0; i < family.size(); ++i) {
      steps.push_back({&family[i], std::span(texts[i]).subspan(token, 1)});
    }
    engine.forward(steps);
    for (size_t i = 0; i < family.size(); ++i) {
      BOOST_TEST(distance(engine.logits(i), row(wants[i], token)) < kTolerance);
    }
  }
  for (Sequence &sequence : family) sequence.close();
  engine.check();
}

BOOST_AUTO_TEST_CASE(rolled_back_drafts_leave_no_trace) {
  Engine engine(model(), workers(), plain_pages());
  const auto text = prompt(), wrong = prompt(1);
  const auto &want = expected(text);
  Sequence sequence = engine.open("a", text);
  const std::vector<uint32_t> start(text.begin(), text.begin() + 90);
  engine.prefill(sequence, start);
  // Each pass checks 20 tokens, of which the first `right` are the text's: across page borders.
  for (const size_t right : {1U, 5U, 0U, 19U, 3U, 16U, 20U}) {
    std::vector<uint32_t> draft(wrong.begin(), wrong.begin() + 20);
    std::copy_n(text.begin() + static_cast<ptrdiff_t>(sequence.committed()), right, draft.begin());
    const Step step{&sequence, draft};
    engine.forward(std::span(&step, 1), Logits::kAll, Commit::kOnAccept);
    for (size_t j = 0; j < right; ++j) {
      const auto expect = row(want, sequence.committed() + j);
      BOOST_TEST(distance(engine.logits(0, j), expect) < kTolerance);
    }
    engine.accept(sequence, draft, right);
  }
  BOOST_TEST(sequence.committed() == 90U + 64U);
  // Back behind what was committed, into a full page.
  engine.truncate(sequence, 100);
  feed(engine, sequence, std::span(text).subspan(100), 9, want);
  sequence.close();
  engine.check();
}

BOOST_AUTO_TEST_CASE(drafts_change_no_word_of_a_greedy_chat) {
  for (const ChatScript &script : std::span(kChats).first(kSlow ? 1 : kChats.size())) {
    std::optional<ChatResult> first;
    for (const size_t drafts : {0U, 6U}) {
      Engine engine(model(), workers(), plain_pages());
      ChatOptions options;
      options.draft_tokens = drafts;
      const ChatResult result = run_chat(engine, script, options);
      BOOST_TEST(result.accepted <= result.drafted);
      BOOST_TEST((drafts == 0) == (result.drafted == 0));
      if (first) {
        for (size_t turn = 0; turn < result.turns.size(); ++turn) {
          BOOST_TEST(result.turns[turn].reply == first->turns[turn].reply);
        }
        BOOST_TEST(result.draft_passes < first->draft_passes);
      }
      first = result;
      engine.check();
    }
  }
}

BOOST_AUTO_TEST_CASE(chats_give_all_memory_back) {
  Engine engine(model(), workers(), nf4_pages());
  for (const ChatScript &script : std::span(kChats).first(kSlow ? 1 : kChats.size())) {
    run_chat(engine, script, {});
  }
  quire_stats stats;
  QUIRE_INIT(&stats);
  BOOST_TEST_REQUIRE(quire_stats_get(engine.cache(), &stats) == QUIRE_OK);
  BOOST_TEST(stats.sequences == 0U);
  BOOST_TEST(stats.leases == 0U);
  BOOST_TEST(stats.pages_private == 0U);
  engine.check();
}

BOOST_AUTO_TEST_CASE(nf4_pages_stay_close_to_plain_ones) {
  Engine engine(model(), workers(), nf4_pages());
  QualityMeter meter(256);
  for (size_t i = 0; i < kSystemPrompts.size(); ++i) {
    const auto text = prompt(i);
    meter.add(text, expected(text), teacher_forced(engine, text, 256));
  }
  const Quality q = meter.result();
  BOOST_TEST_MESSAGE("nf4 on the prompts: KL " << q.kl << ", cosine " << q.cosine << ", error "
                                               << 100 * q.logit_error << " %");
  BOOST_TEST(q.kl < 0.002);
  BOOST_TEST(q.cosine > 0.999);
}

BOOST_AUTO_TEST_CASE(full_cache_makes_room_and_a_pinned_one_refuses) {
  EngineOptions options = plain_pages();
  options.pages = 64;
  Engine engine(model(), workers(), options);
  for (size_t i = 0; i < 5; ++i) {  // five prompts of 25 pages
    const auto text = prompt(i);
    const auto &want = expected(text);
    Sequence sequence = engine.open("a", text);
    BOOST_TEST(distance(engine.prefill(sequence, text), row(want, text.size() - 1)) < kTolerance);
  }
  quire_stats stats;
  QUIRE_INIT(&stats);
  BOOST_TEST_REQUIRE(quire_stats_get(engine.cache(), &stats) == QUIRE_OK);
  BOOST_TEST(stats.evictions_capacity_total > 0U);

  const auto a = prompt(0), b = prompt(1), c = prompt(2);
  Sequence first = engine.open("a", a), second = engine.open("a", b), third = engine.open("a", c);
  engine.prefill(first, a);
  engine.prefill(second, b);
  try {
    engine.prefill(third, c);
    BOOST_ERROR("75 pages in a cache of 64");
  } catch (const EngineError &error) {
    BOOST_TEST(error.status() == QUIRE_E_NOMEM);
  }
  // The one that failed is where it was, and goes on when there is room.
  second.close();
  const auto &want = expected(c);
  BOOST_TEST(distance(engine.prefill(third, c), row(want, c.size() - 1)) < kTolerance);
  first.close();
  third.close();
  engine.check();
}
