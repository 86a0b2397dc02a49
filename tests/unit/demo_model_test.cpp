// The demo's model by itself: its file, its products, and that what it writes is text.
#define BOOST_TEST_MODULE demo_model
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <fstream>
#include <iterator>
#include <random>

#include "tools/quire-demo/plain_backend.h"
#include "tools/quire-demo/prompts.h"
#include "tools/quire-demo/sampler.h"

using namespace quire::demo;

namespace {

const std::string kModelFile = QUIRE_SOURCE_DIR "/tools/quire-demo/model/bytelm64.f16.bin";

const Model &model() {
  static const Model m = Model::load(kModelFile);
  return m;
}

// Mean negative log-likelihood of each byte of a text but the first.
double nats_a_byte(std::string_view text) {
  Workers workers(1);
  Forward forward(model(), 128, workers);
  const auto tokens = to_tokens(text);
  const auto logits = plain_logits(forward, tokens, 128);
  const size_t vocab = model().config().vocab;
  double sum = 0;
  for (size_t t = 0; t + 1 < tokens.size(); ++t) {
    sum -= log_softmax(std::span(logits).subspan(t * vocab, vocab))[tokens[t + 1]];
  }
  return sum / static_cast<double>(tokens.size() - 1);
}

}  // namespace

BOOST_AUTO_TEST_CASE(half_precision_is_widened_exactly) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const int exponent = static_cast<int>(bits >> 10 & 31),
              fraction = static_cast<int>(bits & 1023);
    const float got = half_to_float(static_cast<uint16_t>(bits));
    BOOST_TEST_REQUIRE(std::signbit(got) == (bits >> 15 != 0));
    if (exponent == 31) {
      BOOST_TEST_REQUIRE((fraction == 0 ? std::isinf(got) : std::isnan(got)));
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    BOOST_TEST_REQUIRE(std::abs(static_cast<double>(got)) == magnitude);
  }
}

BOOST_AUTO_TEST_CASE(products_are_right_and_do_not_depend_on_batch_or_threads) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (const auto &[outputs, inputs] : {std::pair<size_t, size_t>{16, 8}, {100, 33}, {512, 256}}) {
    constexpr size_t kRows = 37;
    std::vector<float> w(outputs * inputs), x(kRows * inputs), batch(kRows * outputs);
    for (float &value : w) value = normal(random);
    for (float &value : x) value = normal(random);
    const Matrix matrix(w.data(), outputs, inputs);
    Workers one(1), three(3);
    matrix.multiply(x.data(), kRows, batch.data(), one);
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t o = 0; o < outputs; ++o) {
        double sum = 0;
        for (size_t i = 0; i < inputs; ++i) sum += double{w[o * inputs + i]} * x[r * inputs + i];
        BOOST_TEST_REQUIRE(std::abs(sum - batch[r * outputs + o]) < 1e-3);
      }
      std::vector<float> alone(outputs);
      matrix.multiply(x.data() + r * inputs, 1, alone.data(), one);
      const auto row = batch.begin() + static_cast<ptrdiff_t>(r * outputs);
      BOOST_TEST_REQUIRE(std::equal(alone.begin(), alone.end(), row));
    }
    // Enough rows for the work to be shared between threads.
    const size_t many = 16'000'000 / (outputs * inputs) + 1;
    std::vector<float> wide(many * inputs), a(many * outputs), b(many * outputs);
    for (float &value : wide) value = normal(random);
    matrix.multiply(wide.data(), many, a.data(), one);
    matrix.multiply(wide.data(), many, b.data(), three);
    BOOST_TEST_REQUIRE((a == b));
  }
}

BOOST_AUTO_TEST_CASE(workers_run_each_index_once) {
  Workers workers(3);
  for (size_t count : {0U, 1U, 2U, 3U, 7U, 1000U}) {
    std::vector<int> runs(count);
    workers.for_each(count, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) ++runs[i];
    });
    BOOST_TEST(std::count(runs.begin(), runs.end(), 1) == static_cast<ptrdiff_t>(count));
  }
}

BOOST_AUTO_TEST_CASE(committed_model_is_what_its_card_says) {
  const ModelConfig &c = model().config();
  BOOST_TEST(model().half_precision());
  BOOST_TEST(c.dim == 256U);
  BOOST_TEST(c.hidden == 704U);
  BOOST_TEST(c.layers == 4U);
  BOOST_TEST(c.heads == 4U);
  BOOST_TEST(c.kv_heads == 2U);
  BOOST_TEST(c.head_dim() == 64U);
  BOOST_TEST(c.vocab == 256U);
  BOOST_TEST(c.context == 512U);
  BOOST_TEST(c.shared_classifier);
}

BOOST_AUTO_TEST_CASE(files_that_are_no_model_are_refused) {
  std::ifstream in(kModelFile, std::ios::binary);
  std::vector<char> file{std::istreambuf_iterator<char>(in), {}};
  const auto parse = [&](size_t bytes) {
    return Model::parse(std::as_bytes(std::span(file)).first(bytes));
  };
  BOOST_CHECK_THROW(parse(0), std::runtime_error);
  BOOST_CHECK_THROW(parse(27), std::runtime_error);
  BOOST_CHECK_THROW(parse(28), std::runtime_error);
  BOOST_CHECK_THROW(parse(file.size() - 1), std::runtime_error);
  BOOST_CHECK_NO_THROW(parse(file.size()));
  file[3] = 127;  // a width of more than 2^24
  BOOST_CHECK_THROW(parse(file.size()), std::runtime_error);
  file[3] = 0;
  file[0] = 1;  // 257: the heads do not divide it
  BOOST_CHECK_THROW(parse(file.size()), std::runtime_error);
}

BOOST_AUTO_TEST_CASE(model_reads_the_prompts_as_text) {
  // A byte of noise costs it more than ln 256 = 5.5 nats, of its held-out manuals 1.08.
  std::mt19937 random(3);
  std::string noise;
  for (int i = 0; i < 384; ++i) noise.push_back(static_cast<char>(random() & 0xFF));
  const double of_noise = nats_a_byte(noise);
  for (const std::string_view prompt : kSystemPrompts) {
    const double nats = nats_a_byte(prompt);
    BOOST_TEST_MESSAGE("prompt: " << nats << " nats a byte; noise: " << of_noise);
    BOOST_TEST(nats < 2.0);
  }
  BOOST_TEST(of_noise > 5.5);
}

BOOST_AUTO_TEST_CASE(sampler_is_reproducible_and_follows_the_distribution) {
  const std::vector<float> logits = {0.0F, std::log(2.0F), std::log(5.0F), -1e9F};
  Sampler a(11), b(11);
  std::vector<int> seen(4);
  for (int i = 0; i < 8000; ++i) {
    const uint32_t token = a.pick(logits, 1.0);
    BOOST_TEST_REQUIRE(token == b.pick(logits, 1.0));
    ++seen[token];
  }
  BOOST_TEST(seen[3] == 0);
  // 1/8, 2/8, 5/8 of 8000; five standard deviations are at most 217.
  BOOST_TEST(std::abs(seen[0] - 1000) < 217);
  BOOST_TEST(std::abs(seen[1] - 2000) < 217);
  BOOST_TEST(std::abs(seen[2] - 5000) < 217);
  BOOST_TEST(a.pick(logits, 0.0) == 2U);
}

BOOST_AUTO_TEST_CASE(workload_texts_fit_the_model) {
  for (const std::string_view prompt : kSystemPrompts) {
    BOOST_TEST(prompt.size() >= 384U);  // 24 pages of 16
    BOOST_TEST(prompt.size() <= 389U);  // with five steps of at most 17 + 8 bytes: 512
  }
  for (size_t call = 0; call < 500; ++call) {
    for (size_t step = 0; step < 5; ++step) BOOST_TEST(observation(1, call, step).size() <= 17U);
  }
  BOOST_TEST(kCalibrationText.size() >= 64U);
}
