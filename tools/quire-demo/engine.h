// Engine: a serving engine around one Quire cache, small enough to be read and copied.
//
// What it shows is the division of labour. The engine owns the model, the batch and the sampling;
// the cache owns the memory of keys and values. Per batch of sequences:
//
//   quire_seq_open                  once a sequence: finds and pins what is cached of its prompt
//   quire_seq_append                room for the next tokens, and the slots where they go
//   quire_seq_block_table           where the tokens before them lie
//   per layer: quire_kv_append      the new keys and values into their slots
//              quire_attention_decode   prefill, decode and drafts alike: n queries a sequence
//   quire_seq_commit                the tokens are written: full pages get sealed and published
//   quire_step                      once a batch: the clock by which memory is reused
//   quire_seq_fork / _truncate      parallel samples / rejected drafts
//
// Everything is enqueued on one stream, the model's own products too (quire_cpu_stream_launch); the
// host waits once a pass, for the logits. On a GPU the same calls would take a cudaStream_t.
//
// Invariants: committed() is what quire_seq_info says; a pass that fails leaves each sequence with
// all of its tokens of that pass, or with none. One thread at a time. Errors are EngineError.
#ifndef QUIRE_DEMO_ENGINE_H
#define QUIRE_DEMO_ENGINE_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "forward.h"
#include "quire/quire.h"

namespace quire::demo {

class EngineError : public std::runtime_error {
 public:
  EngineError(const char *call, quire_status status);
  quire_status status() const { return status_; }

 private:
  quire_status status_;
};

struct EngineOptions {
  uint32_t format = QUIRE_FORMAT_NF4;
  uint32_t page_tokens = 16;
  uint32_t pages = 1024;            // sealed frames
  uint32_t max_batch = 16;          // sequences a pass
  uint32_t max_rows = 128;          // tokens a pass
  bool reuse = true;                // publish what is computed, so that later prompts find it
  const KeyMeans *means = nullptr;  // anchors of the keys, for formats that use them
};

// What was computed, counted and not timed.
struct EngineCounters {
  uint64_t prefill_tokens = 0, decode_tokens = 0, flops = 0, passes = 0;
};

class Engine;

// A sequence being served; closes itself. Movable.
class Sequence {
 public:
  Sequence() = default;
  Sequence(Sequence &&other) noexcept { *this = std::move(other); }
  Sequence &operator=(Sequence &&other) noexcept;
  ~Sequence() { close(); }

  void close() noexcept;
  size_t committed() const { return committed_; }  // tokens whose keys and values are cached
  size_t hit() const { return hit_; }              // of these, found when it was opened

 private:
  friend class Engine;
  Engine *engine_ = nullptr;
  quire_seq handle_ = 0;
  size_t committed_ = 0, hit_ = 0;
};

// The next tokens of a sequence, for one pass.
struct Step {
  Sequence *sequence;
  std::span<const uint32_t> tokens;
};

enum class Logits { kLast, kAll };      // of each step's last token, or of all its tokens
enum class Commit { kNow, kOnAccept };  // kOnAccept: drafts; accept() says how many stay

class Engine {
 public:
  Engine(const Model &model, Workers &workers, const EngineOptions &options);
  ~Engine();
  Engine(const Engine &) = delete;
  Engine &operator=(const Engine &) = delete;

  // Opens a sequence on the longest cached prefix of `prompt` in its tenant's namespace; the last
  // token is never part of that.
  Sequence open(const std::string &tenant, std::span<const uint32_t> prompt);
  // Computes what open() did not find. Returns the logits of the prompt's last token.
  std::span<const float> prefill(Sequence &sequence, std::span<const uint32_t> prompt);
  // One pass over the next tokens of several sequences.
  void forward(std::span<const Step> steps, Logits logits = Logits::kLast,
               Commit commit = Commit::kNow);
  // Logits of the last pass: step i, its token j (0 with Logits::kLast).
  std::span<const float> logits(size_t i, size_t j = 0) const;
  // After a pass with kOnAccept: the first n of `tokens` stay, the rest is rolled back.
  void accept(Sequence &sequence, std::span<const uint32_t> tokens, size_t n);
  Sequence fork(const Sequence &parent);
  void truncate(Sequence &sequence, size_t tokens);

  quire_cache *cache() const { return cache_; }
  const EngineOptions &options() const { return options_; }
  const EngineCounters &counters() const { return counters_; }
  double bytes_per_token() const { return bytes_per_token_; }
  void check() const;  // quire_check: every invariant of the cache's metadata

 private:
  friend class Sequence;
  class StreamBackend;

  void open_cache();
  void set_anchors();
  void reserve(std::span<const Step> steps);
  void enqueue(std::span<const Step> steps, Logits logits);
  void roll_back(std::span<const Step> steps) noexcept;
  void commit(Sequence &sequence, std::span<const uint32_t> tokens);
  void drain();

  EngineOptions options_;
  Forward forward_;
  quire_cache *cache_ = nullptr;
  quire_stream stream_ = nullptr;
  EngineCounters counters_;
  double bytes_per_token_ = 0;

  // One pass's arrays; they live until the stream has run it.
  std::vector<uint32_t> tokens_, positions_, wanted_, first_wanted_;
  std::vector<int64_t> slots_;
  std::vector<int32_t> q_offsets_, kv_lens_, block_table_;
  uint32_t table_stride_ = 0;
  struct FreeAligned {
    void operator()(void *p) const;
  };
  std::unique_ptr<void, FreeAligned> workspace_;
  size_t workspace_bytes_ = 0;
  quire_attention_bounds bounds_;
};

}  // namespace quire::demo

#endif  // QUIRE_DEMO_ENGINE_H
