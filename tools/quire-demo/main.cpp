// quire-demo: a real, if small, language model served through Quire's C API alone.
//
// It runs the same agents with and without prefix reuse and with plain (f32) and 4-bit (nf4) pages,
// then chats, then compares the logits of the formats on the same tokens, and prints some of the
// text, a table of each, and what the cache says of itself. Needs nothing but this program: the
// model is inside, and there is nothing to download.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <thread>

#include "chat.h"
#include "embedded_model.h"
#include "engine.h"
#include "model.h"
#include "plain_backend.h"
#include "prompts.h"
#include "quality.h"
#include "report.h"
#include "sampler.h"
#include "workload.h"

namespace quire::demo {
namespace {

const std::map<std::string, uint32_t> kFormats = {
    {"nf4", QUIRE_FORMAT_NF4},       {"nf4-dq64", QUIRE_FORMAT_NF4_DQ64},
    {"nf4-64", QUIRE_FORMAT_NF4_64}, {"k8v4", QUIRE_FORMAT_K8V4},
    {"f16", QUIRE_FORMAT_F16},       {"bf16", QUIRE_FORMAT_BF16},
    {"f32", QUIRE_FORMAT_F32}};

struct Options {
  AgentOptions agents;
  std::vector<std::string> formats = {"f32", "nf4"};
  std::optional<bool> reuse;  // both where it is not said
  bool chats = true, quality = true, anchor = true;
  uint32_t pages = 1024, page_tokens = 16;
  size_t threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 8);
  std::string model, evaluate, json, stats = "digest";
};

int parse_options(int argc, char **argv, Options &o, bool &run) {
  CLI::App app("Serves a small language model from a paged, 4-bit, prefix-shared KV cache.");
  app.add_option("--requests", o.agents.calls, "Calls of the agents")->capture_default_str();
  app.add_option("--prompts", o.agents.prompts, "System prompts that the calls share")
      ->check(CLI::Range(size_t{1}, kSystemPrompts.size()))
      ->capture_default_str();
  app.add_option("--steps", o.agents.steps, "Requests of a call")->capture_default_str();
  app.add_option("--tokens", o.agents.reply_tokens, "Tokens of a reply")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--temperature", o.agents.temperature, "Of the replies; 0 is greedy")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--format", o.formats, "Page formats to run, such as f32,nf4,k8v4")
      ->delimiter(',')
      ->check(CLI::IsMember(kFormats))
      ->capture_default_str();
  bool reuse = true;
  const CLI::Option *reuse_flag =
      app.add_flag("--reuse,!--no-reuse", reuse, "Only with (without) prefix reuse; default: both");
  app.add_flag("!--no-chats", o.chats, "Leave out the chats");
  app.add_flag("!--no-quality", o.quality, "Leave out the comparison with f32 pages");
  app.add_flag("!--no-anchor", o.anchor, "Do not give the cache the means of the keys");
  app.add_option("--pages", o.pages, "Pages of each cache")
      ->check(CLI::Range(64U, 1U << 24))
      ->capture_default_str();
  app.add_option("--page-tokens", o.page_tokens, "Tokens of a page: 8, 16, 32, 64")
      ->check(CLI::IsMember({8U, 16U, 32U, 64U}))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "Threads of the model's products")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seed", o.agents.seed, "Of observations and sampling")->capture_default_str();
  app.add_option("--model", o.model, "A llama2.c file with bytes as tokens, instead of bytelm64");
  app.add_option("--evaluate", o.evaluate, "Only measures the model on this text, without a cache");
  app.add_option("--json", o.json, "Writes the results to this file; - is standard output");
  app.add_option("--stats", o.stats, "The cache's stats: digest, json, prometheus")
      ->check(CLI::IsMember({"digest", "json", "prometheus"}))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    run = false;
    return app.exit(error);
  }
  if (reuse_flag->count() > 0) o.reuse = reuse;
  run = true;
  return 0;
}

class Demo {
 public:
  explicit Demo(const Options &options)
      : o_(options),
        model_(options.model.empty() ? Model::parse(embedded_model()) : Model::load(options.model)),
        workers_(options.threads),
        means_(key_means(model_, to_tokens(kCalibrationText), workers_)) {
    if (model_.config().vocab < 256) {
      throw std::invalid_argument("the model's tokens are not bytes");
    }
    report_.agents = o_.agents;
    report_.page_tokens = o_.page_tokens;
    report_.threads = o_.threads;
    report_.cpu_target = quire_cpu_target();
  }

  // Loss on a text, in windows of the context's length, each from its first byte on.
  void evaluate() {
    std::ifstream in(o_.evaluate, std::ios::binary);
    if (!in) throw std::runtime_error("cannot open " + o_.evaluate);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    const size_t context = model_.config().context, vocab = model_.config().vocab;
    Forward forward(model_, 128, workers_);
    double sum = 0;
    size_t n = 0;
    for (size_t at = 0; at + context < text.size(); at += context + 1) {
      const auto tokens = to_tokens(std::string_view(text).substr(at, context + 1));
      const auto logits = plain_logits(forward, {tokens.begin(), tokens.end() - 1}, 128);
      for (size_t t = 0; t < context; ++t, ++n) {
        sum -= log_softmax(std::span(logits).subspan(t * vocab, vocab))[tokens[t + 1]];
      }
    }
    if (n == 0) throw std::runtime_error(o_.evaluate + " is shorter than the model's context");
    const double nats = sum / static_cast<double>(n);
    fmt::print("{} bytes predicted: {:.6f} nats a byte, perplexity {:.6f}\n", n, nats,
               std::exp(nats));
  }

  void run() {
    for (const std::string &format : o_.formats) {
      for (const bool reuse : {true, false}) {
        if (!o_.reuse || *o_.reuse == reuse) run_agents_on(format, reuse);
      }
    }
    if (o_.chats) run_chats();
    if (o_.quality) run_quality();
    if (o_.json == "-") {
      fmt::print("{}\n", to_json(report_));
      return;
    }
    print_replies(report_);
    print_chats(report_);
    print_agents(report_);
    print_quality(report_);
    o_.stats == "digest" ? print_stats(report_) : fmt::print("\n{}\n", stats_text_);
    if (o_.json.empty()) return;
    std::ofstream out(o_.json);
    out << to_json(report_) << '\n';
    if (!out.flush()) throw std::runtime_error("cannot write " + o_.json);
  }

 private:
  EngineOptions engine_options(const std::string &format, bool reuse) const {
    return {.format = kFormats.at(format),
            .page_tokens = o_.page_tokens,
            .pages = o_.pages,
            .reuse = reuse,
            .means = o_.anchor ? &means_ : nullptr};
  }

  void say(const std::string &what) const { fmt::print(stderr, "quire-demo: {}\n", what); }

  void run_agents_on(const std::string &format, bool reuse) {
    say(fmt::format("agents on {} pages, {} reuse", format, reuse ? "with" : "without"));
    Engine engine(model_, workers_, engine_options(format, reuse));
    const ModelConfig &c = model_.config();
    const size_t values = 2 * c.layers * c.kv_dim();
    AgentRow row{
        format, reuse, engine.bytes_per_token(), static_cast<double>(values * sizeof(float)), {}};
    row.result = run_agents(engine, model_.config(), o_.agents);
    engine.check();
    report_.rows.push_back(std::move(row));
    keep_stats(engine, format);
  }

  void run_chats() {
    const std::string &format = o_.formats.back();
    say(fmt::format("chats on {} pages", format));
    Engine engine(model_, workers_, engine_options(format, true));
    ChatOptions chat;
    chat.seed = o_.agents.seed;
    for (const ChatScript &script : kChats) {
      report_.chats.push_back(run_chat(engine, script, chat));
    }
    engine.check();
    report_.chat_format = format;
    if (o_.reuse == false || report_.rows.empty()) keep_stats(engine, format);
  }

  void run_quality() {
    const size_t vocab = model_.config().vocab;
    Engine reference(model_, workers_, engine_options("f32", true));
    for (const std::string &format : o_.formats) {
      if (format == "f32") continue;
      say(fmt::format("logits of {} pages against f32 pages", format));
      Engine candidate(model_, workers_, engine_options(format, true));
      QualityMeter meter(vocab);
      for (const std::string_view prompt : kSystemPrompts) {
        const auto text = to_tokens(prompt);
        meter.add(text, teacher_forced(reference, text, vocab),
                  teacher_forced(candidate, text, vocab));
      }
      report_.quality.push_back({format, meter.result()});
    }
  }

  // Of the last cache that reused anything.
  void keep_stats(const Engine &engine, const std::string &format) {
    if (!engine.options().reuse && !report_.stats_format.empty()) return;
    report_.stats_format = format;
    QUIRE_INIT(&report_.stats);
    quire_stats_get(engine.cache(), &report_.stats);
    if (o_.stats == "digest") return;
    const auto text = o_.stats == "json" ? quire_stats_json : quire_stats_prometheus;
    size_t bytes = 0;
    text(engine.cache(), nullptr, &bytes);
    stats_text_.resize(bytes);
    if (text(engine.cache(), stats_text_.data(), &bytes) != QUIRE_OK) stats_text_.clear();
    while (!stats_text_.empty() && stats_text_.back() == '\0') stats_text_.pop_back();
  }

  const Options &o_;
  Model model_;
  Workers workers_;
  KeyMeans means_;
  Report report_;
  std::string stats_text_;
};

}  // namespace
}  // namespace quire::demo

int main(int argc, char **argv) {
  quire::demo::Options options;
  bool run = false;
  const int exit_code = quire::demo::parse_options(argc, argv, options, run);
  if (!run) return exit_code;
  try {
    quire::demo::Demo demo(options);
    options.evaluate.empty() ? demo.run() : demo.evaluate();
  } catch (const std::exception &error) {
    fmt::print(stderr, "quire-demo: {}\n", error.what());
    return 1;
  }
  return 0;
}
