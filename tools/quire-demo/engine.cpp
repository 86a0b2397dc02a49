#include "engine.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace quire::demo {

namespace {

void must(quire_status status, const char *call) {
  if (status != QUIRE_OK) throw EngineError(call, status);
}

std::string describe(const char *call, quire_status status) {
  const char *detail = quire_last_error();
  std::string text = std::string(call) + ": " + quire_status_string(status);
  if (detail != nullptr && *detail != '\0') text += std::string(" (") + detail + ")";
  return text;
}

// Runs and frees a piece of work that was handed to a stream.
void run_piece(void *piece) {
  const std::unique_ptr<std::function<void()>> owned(static_cast<std::function<void()> *>(piece));
  (*owned)();
}

}  // namespace

EngineError::EngineError(const char *call, quire_status status)
    : std::runtime_error(describe(call, status)), status_(status) {}

Sequence &Sequence::operator=(Sequence &&other) noexcept {
  if (this != &other) {
    close();
    engine_ = std::exchange(other.engine_, nullptr);
    handle_ = std::exchange(other.handle_, 0);
    committed_ = other.committed_;
    hit_ = other.hit_;
  }
  return *this;
}

void Sequence::close() noexcept {
  // Its pages may still be read by what is enqueued: the cache reuses them when the stream has
  // passed, so nothing is waited for here.
  if (engine_ != nullptr) quire_seq_close(engine_->cache_, handle_, nullptr);
  engine_ = nullptr;
}

// ---- what the model's pass sees of the cache ----------------------------------------------------

// Enqueues pieces of the model, and each layer's cache calls between them, on the engine's stream.
class Engine::StreamBackend final : public Backend {
 public:
  explicit StreamBackend(Engine &engine) : e_(engine) {}

  void run(std::function<void()> piece) override {
    auto owned = std::make_unique<std::function<void()>>(std::move(piece));
    must(quire_cpu_stream_launch(e_.stream_, run_piece, owned.get()), "quire_cpu_stream_launch");
    static_cast<void>(owned.release());  // run_piece's now
  }

  void attend(const AttendArgs &args) override {
    const ModelConfig &c = e_.forward_.model().config();
    const auto row = static_cast<int64_t>(args.stride), head = static_cast<int64_t>(c.head_dim());
    quire_append_args append;
    QUIRE_INIT(&append);
    append.layer = static_cast<uint32_t>(args.layer);
    append.n = static_cast<uint32_t>(args.rows);
    append.dtype = QUIRE_F32;
    append.k = args.k;
    append.v = args.v;
    append.k_token_stride = append.v_token_stride = row;
    append.k_head_stride = append.v_head_stride = head;
    append.slots = e_.slots_.data();
    append.stream = e_.stream_;
    must(quire_kv_append(e_.cache_, &append), "quire_kv_append");

    quire_attention_args attention;
    QUIRE_INIT(&attention);
    attention.layer = append.layer;
    attention.bounds = e_.bounds_;
    attention.batch = static_cast<uint32_t>(e_.kv_lens_.size());
    attention.q_dtype = attention.out_dtype = QUIRE_F32;
    attention.q = args.q;
    attention.out = args.out;
    attention.q_token_stride = row;
    attention.q_head_stride = head;
    attention.block_table_stride = e_.table_stride_;
    attention.q_offsets = e_.q_offsets_.data();
    attention.kv_lens = e_.kv_lens_.data();
    attention.block_table = e_.block_table_.data();
    attention.workspace = e_.workspace_.get();
    attention.workspace_bytes = e_.workspace_bytes_;
    attention.stream = e_.stream_;
    must(quire_attention_decode(e_.cache_, &attention), "quire_attention_decode");
  }

 private:
  Engine &e_;
};

// ---- life ---------------------------------------------------------------------------------------

void Engine::FreeAligned::operator()(void *p) const {
  std::free(p);
}

Engine::Engine(const Model &model, Workers &workers, const EngineOptions &options)
    : options_(options), forward_(model, options.max_rows, workers) {
  try {
    open_cache();
    set_anchors();
  } catch (...) {
    if (stream_ != nullptr) {
      quire_stream_remove(cache_, stream_);
      quire_cpu_stream_destroy(stream_);
    }
    quire_close(cache_);
    throw;
  }
}

Engine::~Engine() {
  // Sequences are closed by now; the stream is drained before it goes, then nothing holds the
  // cache.
  quire_cpu_stream_wait(stream_);
  quire_stream_remove(cache_, stream_);
  quire_cpu_stream_destroy(stream_);
  quire_close(cache_);
}

void Engine::open_cache() {
  const ModelConfig &c = forward_.model().config();
  const auto head_dim = static_cast<uint32_t>(c.head_dim());
  quire_config config;
  must(quire_config_init(&config), "quire_config_init");
  config.device = QUIRE_DEVICE_CPU;
  config.format = options_.format;
  config.geometry.layers = static_cast<uint32_t>(c.layers);
  config.geometry.kv_heads = static_cast<uint32_t>(c.kv_heads);
  config.geometry.head_dim_k = config.geometry.head_dim_v = head_dim;
  config.geometry.page_tokens = options_.page_tokens;
  // llama2.c turns neighbouring pairs; the cache has to know, to turn its anchors likewise.
  quire_rope_init(&config.geometry.rope, head_dim, static_cast<double>(kRopeTheta), 1);
  config.device_pages = options_.pages;
  // Pages being written: a full pass, as many that wait for the stream, and one or two a sequence.
  const uint32_t pass_pages = options_.max_rows / options_.page_tokens + 1;
  config.open_pages = 2 * (pass_pages + 2 * options_.max_batch);
  must(quire_open(&config, &cache_), "quire_open");

  quire_plan_result plan;
  QUIRE_INIT(&plan);
  must(quire_plan(&config, &plan), "quire_plan");
  bytes_per_token_ = plan.bytes_per_token;

  must(quire_cpu_stream_create(&stream_), "quire_cpu_stream_create");
  must(quire_stream_add(cache_, stream_, 0, 0), "quire_stream_add");

  QUIRE_INIT(&bounds_);
  bounds_.q_heads = static_cast<uint32_t>(c.heads);
  bounds_.max_batch = options_.max_batch;
  bounds_.max_q = options_.max_rows;
  bounds_.max_kv = c.context;
  must(quire_attention_workspace(cache_, &bounds_, &workspace_bytes_), "quire_attention_workspace");
  constexpr size_t kAlign = 64;
  const size_t rounded = (workspace_bytes_ + kAlign - 1) / kAlign * kAlign;
  workspace_.reset(std::aligned_alloc(kAlign, std::max(rounded, kAlign)));
  if (!workspace_) throw std::bad_alloc();
}

void Engine::set_anchors() {
  quire_codec keys, values;
  if (quire_format_codecs(options_.format, &keys, &values) != 0) return;
  if (options_.means == nullptr || keys.anchor == QUIRE_ANCHOR_NONE) return;
  for (uint32_t layer = 0; layer < forward_.model().config().layers; ++layer) {
    const std::vector<float> mean = options_.means->mean(layer);
    must(quire_key_anchor_set(cache_, layer, mean.data()), "quire_key_anchor_set");
  }
}

// ---- sequences ----------------------------------------------------------------------------------

Sequence Engine::open(const std::string &tenant, std::span<const uint32_t> prompt) {
  constexpr char kModel[] = "bytelm64";
  const quire_field fields[] = {
      {QUIRE_FIELD_MODEL, sizeof kModel - 1, kModel},
      {QUIRE_FIELD_TENANT, static_cast<uint32_t>(tenant.size()), tenant.data()}};
  quire_key root;
  must(quire_root_key(cache_, fields, std::size(fields), &root), "quire_root_key");

  quire_seq_options options;
  QUIRE_INIT(&options);
  options.flags = QUIRE_SEQ_LEAVE_ONE | (options_.reuse ? 0U : QUIRE_SEQ_PRIVATE);
  options.stream = stream_;
  quire_hit hit;
  QUIRE_INIT(&hit);
  Sequence sequence;
  must(quire_seq_open(cache_, &root, prompt.data(), prompt.size(), &options, &hit,
                      &sequence.handle_),
       "quire_seq_open");
  sequence.engine_ = this;
  sequence.hit_ = sequence.committed_ = size_t{hit.pages} * options_.page_tokens;
  return sequence;
}

Sequence Engine::fork(const Sequence &parent) {
  Sequence child;
  must(quire_seq_fork(cache_, parent.handle_, stream_, &child.handle_), "quire_seq_fork");
  child.engine_ = this;
  child.committed_ = parent.committed_;
  return child;
}

void Engine::truncate(Sequence &sequence, size_t tokens) {
  must(quire_seq_truncate(cache_, sequence.handle_, tokens, stream_), "quire_seq_truncate");
  sequence.committed_ = std::min(sequence.committed_, tokens);
}

void Engine::commit(Sequence &sequence, std::span<const uint32_t> tokens) {
  const auto n = static_cast<uint32_t>(tokens.size());
  const auto attempt = [&] {
    return quire_seq_commit(cache_, sequence.handle_, tokens.data(), n, stream_);
  };
  quire_status status = attempt();
  if (status == QUIRE_E_AGAIN) {
    drain();
    status = attempt();
  }
  must(status, "quire_seq_commit");
  sequence.committed_ += n;
}

void Engine::accept(Sequence &sequence, std::span<const uint32_t> tokens, size_t n) {
  if (n > 0) commit(sequence, tokens.first(n));
  if (n < tokens.size()) truncate(sequence, sequence.committed_);
}

// Frames that were given back come when the stream has passed them: let it, and tell the cache.
void Engine::drain() {
  must(quire_step(cache_), "quire_step");
  must(quire_cpu_stream_wait(stream_), "quire_cpu_stream_wait");
  must(quire_step(cache_), "quire_step");
}

// ---- passes -------------------------------------------------------------------------------------

std::span<const float> Engine::prefill(Sequence &sequence, std::span<const uint32_t> prompt) {
  while (sequence.committed_ < prompt.size()) {
    const size_t left = prompt.size() - sequence.committed_;
    const Step step{&sequence,
                    prompt.subspan(sequence.committed_, std::min<size_t>(left, options_.max_rows))};
    forward(std::span(&step, 1));
    counters_.prefill_tokens += step.tokens.size();
    counters_.decode_tokens -= step.tokens.size();
  }
  return logits(0);
}

void Engine::forward(std::span<const Step> steps, Logits logits, Commit commit_when) {
  reserve(steps);
  try {
    enqueue(steps, logits);
    // The work is enqueued, and that is enough to commit: sealing goes behind it on the stream.
    if (commit_when == Commit::kNow) {
      for (const Step &step : steps) commit(*step.sequence, step.tokens);
    }
    must(quire_step(cache_), "quire_step");
    must(quire_cpu_stream_wait(stream_), "quire_cpu_stream_wait");
  } catch (...) {
    quire_cpu_stream_wait(stream_);  // this pass's arrays are free to go
    roll_back(steps);
    throw;
  }
}

void Engine::reserve(std::span<const Step> steps) {
  size_t rows = 0;
  for (const Step &step : steps) rows += step.tokens.size();
  if (steps.size() > options_.max_batch || rows > options_.max_rows) {
    throw std::invalid_argument("engine: more than a pass takes");
  }
  slots_.resize(rows);
  size_t row = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto n = static_cast<uint32_t>(steps[i].tokens.size());
    const auto attempt = [&] {
      return quire_seq_append(cache_, steps[i].sequence->handle_, n, stream_, slots_.data() + row);
    };
    quire_status status = attempt();
    if (status == QUIRE_E_AGAIN) {
      drain();
      status = attempt();
    }
    if (status != QUIRE_OK) {
      const EngineError error("quire_seq_append", status);
      roll_back(steps.first(i));
      throw error;
    }
    row += n;
  }
}

void Engine::roll_back(std::span<const Step> steps) noexcept {
  for (const Step &step : steps) {
    quire_seq_truncate(cache_, step.sequence->handle_, step.sequence->committed_, stream_);
  }
}

void Engine::enqueue(std::span<const Step> steps, Logits logits) {
  const Model &model = forward_.model();
  const size_t context = model.config().context;
  table_stride_ =
      static_cast<uint32_t>((context + options_.page_tokens - 1) / options_.page_tokens);
  tokens_.clear();
  positions_.clear();
  wanted_.clear();
  first_wanted_.clear();
  kv_lens_.clear();
  q_offsets_.assign(1, 0);
  block_table_.assign(steps.size() * table_stride_, -1);
  for (size_t i = 0; i < steps.size(); ++i) {
    const Sequence &sequence = *steps[i].sequence;
    first_wanted_.push_back(static_cast<uint32_t>(wanted_.size()));
    for (size_t j = 0; j < steps[i].tokens.size(); ++j) {
      const bool last = j + 1 == steps[i].tokens.size();
      if (last || logits == Logits::kAll) wanted_.push_back(static_cast<uint32_t>(tokens_.size()));
      tokens_.push_back(steps[i].tokens[j]);
      positions_.push_back(static_cast<uint32_t>(sequence.committed_ + j));
      counters_.flops += model.token_flops(sequence.committed_ + j + 1);
    }
    uint32_t pages = 0;
    uint64_t kv_len = 0;
    must(quire_seq_block_table(cache_, sequence.handle_, block_table_.data() + i * table_stride_,
                               table_stride_, &pages, &kv_len),
         "quire_seq_block_table");
    kv_lens_.push_back(static_cast<int32_t>(kv_len));
    q_offsets_.push_back(static_cast<int32_t>(tokens_.size()));
  }
  counters_.flops += wanted_.size() * model.logits_flops();
  counters_.decode_tokens += tokens_.size();
  counters_.passes += 1;
  StreamBackend backend(*this);
  forward_.enqueue(tokens_, positions_, wanted_, backend);
}

std::span<const float> Engine::logits(size_t i, size_t j) const {
  return forward_.logits(first_wanted_[i] + j);
}

void Engine::check() const {
  must(quire_check(cache_, 0), "quire_check");
}

}  // namespace quire::demo
