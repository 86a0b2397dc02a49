// Codec: all that a cache's CPU kernels do to pages, behind one interface.
//
// A Codec is made once per cache: two layouts (sealed frames and, for quantised formats, the open
// f16 ones), the 16-entry codebook with its derived tables, RoPE turns and the key means of each
// layer. The functions below take it with plain arguments and work on any range of their tasks, so
// that a caller may spread them over threads; none allocates, locks, throws or keeps state.
//
//   append     tokens -> open frames (f16), or straight into sealed ones
//   seal       open -> sealed: subtract the anchor, rotate, encode (two passes: exponent, codes)
//   unseal     sealed -> open (lossy)
//   gather     pages -> plain rows: decode, un-rotate, add the anchor back
//   attention  softmax(q k^T) v straight from pages of both kinds
//
// Each runs on a *target*, an instruction set, chosen once and forcible by name: "scalar" (which
// defines what is right), "avx2", "avx512", "neon". Rules that make all targets, and other
// devices, agree to the bit (attention excepted, whose error is bounded by a test):
//   - no contraction, no flush to zero; fma only where written
//   - z = x * min(RN(1 / s), FLT_MAX), one division a block; a zero scale takes 2^-120 for 1 / s
//   - codes by `z > midpoint`, a tie goes down; candidates in written order, strictly smaller wins;
//     their error e = fma(-code, s, x), e * e summed by a tree of strides block/2 ... 2, 1
//   - Hadamard in stages of stride 1, 2, 4 ...; its power-of-two scale last
//   - decoded value = RN16(RN32(code * scale)); where that overflows, sums of a rotated row may be
//     NaN, whose sign and payload are not defined
//   - the anchor of position p = page * page_tokens + j is R(page) (R(j) b), see kernels/rope.h
// Values that are not finite: counted; before a rotation (and in no other case) NaN becomes 0 and
// an infinity the largest finite magnitude of its own row; without one, an infinity encodes as the
// end code of its sign and NaN as the code nearest 0. They take no part in absmax and search.
//
// Tasks: f(codec, args, begin, end) with 0 <= begin <= end <= tasks(codec, args). Different ranges
// of one call may run at once; they write different bytes.
//
// Invariants: layout valid (quire_page_layout_valid) for both classes; midpoints strictly ascend.
// Thread class: every function here may run in any thread; set_anchor excludes all others on its
// codec. Costs are those of quire-bench's codec rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quire/page_format.h"

namespace quire::kernels {

// Values as quire_dtype of quire.h.
enum class DType : uint32_t { kF32 = 0, kF16 = 1, kBF16 = 2 };

constexpr uint32_t dtype_bytes(DType t) {
  return t == DType::kF32 ? 4 : 2;
}

// The frames of one class: frame f begins at base + f * stride.
struct FrameView {
  uint8_t *base = nullptr;
  uint64_t stride = 0;

  uint8_t *frame(uint64_t f) const { return base + f * stride; }
};

struct Frames {
  FrameView sealed;
  FrameView open;  // base nullptr where the format has no open pages
};

// A block table entry or slot, as in quire.h: >= 0 sealed, <= -2 open (-2 - e), -1 none.
constexpr bool entry_is_open(int64_t e) {
  return e <= -2;
}
constexpr uint64_t entry_frame(int64_t e) {
  return static_cast<uint64_t>(e >= 0 ? e : -2 - e);
}

// ---- targets

// The name of the target that kernels run on. At first use: the best one of this machine, or the
// one that QUIRE_CPU_TARGET in the environment names, if it can run here.
const char *active_target() noexcept;
// Forces one by name, process-wide; nullptr or "best": the best. False, and no change, where there
// is no such target in this build or the machine cannot run it.
bool select_target(const char *name) noexcept;
// Names of the targets that can run here, best first, "scalar" last. Returns how many were written.
size_t usable_targets(const char **names, size_t room) noexcept;

// ---- codec

struct Codec;  // its definition is in kernels/codec_state.h

// The exponent of pages that are appended to without an open page: scales are then plain e4m3.
inline constexpr int kDirectExponent = 8;

struct CodecConfig {
  quire_geometry geometry = {};
  uint32_t format = QUIRE_FORMAT_NF4;
  const float *codebook = nullptr;  // 16 strictly ascending values in [-1, 1]; nullptr: NF4
};

// Bytes of memory, 64-aligned, that a codec needs; 0 where the config is not one that can be laid
// out.
size_t codec_bytes(const CodecConfig &config) noexcept;
// Makes one in memory[codec_bytes(config)]. nullptr for a bad config (also: a codebook that does
// not ascend strictly within [-1, 1], or whose entry nearest 0 is negative). Nothing to destroy:
// the memory is the caller's.
Codec *codec_create(const CodecConfig &config, void *memory) noexcept;

const quire_page_layout &sealed_layout(const Codec &codec) noexcept;
const quire_page_layout &open_layout(const Codec &codec) noexcept;  // plain formats: the sealed one

// Means [kv_heads][head_dim_k] of the keys of a layer before RoPE, copied. False: the format has no
// anchor. Pages sealed before keep their own truth (each head's statistics say whether it is
// anchored), so means may come late, but may not change once a page was sealed with them.
bool set_anchor(Codec &codec, uint32_t layer, const float *means) noexcept;
bool has_anchor(const Codec &codec, uint32_t layer) noexcept;

// The codec's invariants, recomputed. Tests and quire_check.
bool codec_valid(const Codec &codec) noexcept;

// ---- pages

// Makes frames empty pages: header, and statistics of a page that is appended to directly. To be
// called when a frame becomes a page, before the first append; seal and unseal do it themselves.
void init_page(const Codec &codec, bool open, uint8_t *frame) noexcept;

// Copies a page's bytes between two frames of one class, or clears a frame.
void copy_page(const Codec &codec, bool open, uint8_t *to, const uint8_t *from) noexcept;
void zero_page(const Codec &codec, bool open, uint8_t *frame) noexcept;
// The checksum of a page's bytes behind its header, see kernels/page_checksum.h; never 0.
uint64_t page_checksum(const uint8_t *page, uint64_t page_bytes) noexcept;

// Pages of one class, frame from_frames[i] of a view -> frame to_frames[i] of another, which is other
// memory: between tiers, say. Header and all.
struct CopyArgs {
  bool open = false;
  FrameView to, from;
  const uint32_t *to_frames = nullptr;
  const uint32_t *from_frames = nullptr;
  uint32_t pages = 0;
  uint64_t *sums = nullptr;  // [pages], the checksum of each; nullptr: not wanted
  // A GPU's: one side is pinned memory that it reaches over its bus, which few processors fill.
  bool over_bus = false;
};

uint64_t copy_tasks(const Codec &codec, const CopyArgs &args) noexcept;
void copy_pages(const Codec &codec, const CopyArgs &args, uint64_t begin, uint64_t end) noexcept;

// Where the n tokens of a call lie: slots (frame * page_tokens + offset, open ones as -2 - that, -1
// none), or, where slots is nullptr, tokens first ... of one sequence's block table. A token behind
// the table's end is none.
struct TokenMap {
  const int64_t *slots = nullptr;
  const int32_t *block_table = nullptr;
  uint32_t block_table_length = 0;
  uint64_t first = 0;
};

struct AppendArgs {
  Frames frames;
  TokenMap map;
  uint32_t layer = 0;
  uint32_t n = 0;
  DType dtype = DType::kF32;
  const void *k = nullptr;                        // [n][kv_heads][head_dim_k]
  const void *v = nullptr;                        // nullptr where the geometry has no V
  int64_t k_token_stride = 0, k_head_stride = 0;  // in elements; 0: dense
  int64_t v_token_stride = 0, v_head_stride = 0;
  bool search = true;  // sealed frames: search scales, or try their sign only
};

uint64_t append_tasks(const Codec &codec, const AppendArgs &args) noexcept;
// Returns how many values met were not finite.
uint64_t append(const Codec &codec, const AppendArgs &args, uint64_t begin, uint64_t end) noexcept;

struct GatherArgs {
  Frames frames;
  TokenMap map;
  uint32_t layer = 0;
  uint32_t n = 0;
  DType dtype = DType::kF32;
  void *k = nullptr;  // nullptr: not wanted
  void *v = nullptr;
  int64_t k_token_stride = 0, k_head_stride = 0;
  int64_t v_token_stride = 0, v_head_stride = 0;
};

uint64_t gather_tasks(const Codec &codec, const GatherArgs &args) noexcept;
// Tokens that are nowhere read as zeros.
void gather(const Codec &codec, const GatherArgs &args, uint64_t begin, uint64_t end) noexcept;

// One page each: open frame from[i] -> sealed frame to[i], or back.
struct SealArgs {
  Frames frames;
  const uint32_t *from = nullptr;
  const uint32_t *to = nullptr;
  const uint32_t *page_index = nullptr;  // of each page in its chain; unseal reads it in the page
  uint32_t pages = 0;
  uint32_t tokens = 0;  // written in each page; 0: all. The rest becomes zeros.
  bool search = true;
};

uint64_t seal_tasks(const Codec &codec, const SealArgs &args) noexcept;
uint64_t seal(const Codec &codec, const SealArgs &args, uint64_t begin, uint64_t end) noexcept;
void unseal(const Codec &codec, const SealArgs &args, uint64_t begin, uint64_t end) noexcept;

// ---- attention

struct AttentionArgs {
  Frames frames;
  uint32_t layer = 0;
  uint32_t batch = 0;
  uint32_t q_heads = 0;  // a multiple of kv_heads
  DType q_dtype = DType::kF32, out_dtype = DType::kF32;
  const void *q = nullptr;                        // [tokens][q_heads][head_dim_k]
  void *out = nullptr;                            // [tokens][q_heads][head_dim_v]
  float *lse = nullptr;                           // [tokens][q_heads]; nullptr: not wanted
  int64_t q_token_stride = 0, q_head_stride = 0;  // in elements; 0: dense
  int64_t out_token_stride = 0, out_head_stride = 0;
  float scale = 0;      // 0: 1 / sqrt(head_dim_k)
  float soft_cap = 0;   // 0: none
  uint32_t window = 0;  // 0: all
  uint32_t block_table_stride = 0;
  const int32_t *q_offsets = nullptr;    // [batch + 1]
  const int32_t *kv_lens = nullptr;      // [batch]
  const int32_t *block_table = nullptr;  // [batch][stride]; -1 below kv_len: absent tokens
  uint64_t max_kv = 0;                   // bounds, which decide how the work is split
  uint32_t max_q = 0;                    // query tokens of all sequences together
  uint32_t max_batch = 0;                // sequences; 0: batch
  void *workspace = nullptr;
};

// Workspace, 64-aligned, for `workers` threads that run ranges at the same time. Depends on the
// bounds in args (q_heads, max_q, max_kv) only. 0 where attention cannot run (no V).
size_t attention_workspace(const Codec &codec, const AttentionArgs &args,
                           uint32_t workers) noexcept;
// Two passes, the second after all of the first: tasks over (sequence, KV head, rows, split of the
// keys), then the merge of splits over query tokens. `worker` < workers names the caller's part of
// the workspace. Tasks are counted from q_offsets, so only when these can be read.
uint64_t attention_tasks(const Codec &codec, const AttentionArgs &args) noexcept;
void attention(const Codec &codec, const AttentionArgs &args, uint64_t begin, uint64_t end,
               uint32_t worker) noexcept;
uint64_t attention_merge_tasks(const Codec &codec, const AttentionArgs &args) noexcept;
void attention_merge(const Codec &codec, const AttentionArgs &args, uint64_t begin,
                     uint64_t end) noexcept;
// Both passes in the calling thread, with the workspace of one worker.
void attention_all(const Codec &codec, const AttentionArgs &args) noexcept;

}  // namespace quire::kernels
