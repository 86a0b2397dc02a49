// Attention over pages: softmax(scale * q k^T) v for the last query tokens of each sequence.
//
// A task is (sequence, KV head, up to 32 rows, split of the keys). A row is one query token of one
// q head; all q heads of a KV head are rows of the same tasks, so a tile of K and V is decoded once
// for all of them. Tiles of 32 tokens are decoded into fp32 rows that stay in the first-level
// cache.
//
// Rotated pages: q is rotated once (H q . H k = n q . k), V's rotation is undone once on the sums.
// Sums are kept in the domain of the pages being read and change it where a sealed page meets an
// open one. Anchored pages: the logit of token j of a page is q . k' + (R(page)^T q) . (R(j) b), in
// fp32, before soft cap and softmax; rows R(j) b are made once a task, R(page)^T q once a page.
//
// Splits: as many as the bounds ask for to keep 256 tasks busy, none shorter than 1,024 tokens;
// each leaves {sums, peak, weight} in the workspace and attention_merge joins them. One split
// writes its result itself.
//
// Invariant: peak is -inf iff weight is 0, and then the sums are 0.
// Thread class: pure functions on memory that the caller owns for the call; no allocation.
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/codec_state.h"
#include "kernels/part_rows.h"

namespace quire::kernels {
namespace {

constexpr uint32_t kRows = 32;
constexpr uint32_t kTile = 32;
constexpr uint64_t kMinSplit = 1024;
constexpr uint64_t kTasksWanted = 256;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

struct Shape {
  uint32_t dim_k, dim_v, page_tokens, kv_heads, group;
  uint64_t splits, split_tokens;
  uint64_t partial_floats;  // of one row and split: sums, peak, weight
};

Shape shape_of(const Codec &codec, const AttentionArgs &args) {
  Shape s;
  s.dim_k = codec.geometry.head_dim_k;
  s.dim_v = codec.geometry.head_dim_v;
  s.page_tokens = codec.geometry.page_tokens;
  s.kv_heads = codec.geometry.kv_heads;
  s.group = args.q_heads / s.kv_heads;
  const uint64_t tasks = static_cast<uint64_t>(s.kv_heads) * (args.max_q == 0 ? 1 : args.max_q);
  const uint64_t wanted = (kTasksWanted + tasks - 1) / tasks;
  const uint64_t possible = (args.max_kv + kMinSplit - 1) / kMinSplit;
  s.splits = wanted < possible ? wanted : possible;
  if (s.splits == 0) s.splits = 1;
  s.split_tokens = quire_round_up((args.max_kv + s.splits - 1) / s.splits, s.page_tokens);
  if (s.split_tokens == 0) s.split_tokens = s.page_tokens;
  s.partial_floats = quire_round_up(s.dim_v + 2, 16);
  return s;
}

size_t partial_bytes(const Shape &s, const AttentionArgs &args) {
  if (s.splits == 1) return 0;
  return sizeof(float) * s.partial_floats * s.splits * args.max_q * args.q_heads;
}

// A worker's scratch: arrays of floats, each 64-aligned.
struct Scratch {
  float *q, *q_rotated, *q_planes, *q_turned, *token_rows, *k, *v, *sums, *logits, *anchors, *peak,
      *weight, *factor;

  static constexpr uint32_t kArrays = 13;

  // With memory nullptr only *bytes is meaningful.
  static Scratch carve(const Shape &s, uint8_t *memory, size_t *bytes) {
    const size_t sizes[kArrays] = {size_t{kRows} * s.dim_k,
                                   size_t{kRows} * s.dim_k,
                                   size_t{kRows} * s.dim_k,
                                   size_t{kRows} * s.dim_k,
                                   size_t{s.page_tokens} * s.dim_k,
                                   size_t{kTile} * s.dim_k,
                                   size_t{kTile} * s.dim_v,
                                   size_t{kRows} * s.dim_v,
                                   size_t{kRows} * kTile,
                                   size_t{kRows} * kTile,
                                   kRows,
                                   kRows,
                                   kRows};
    float *at[kArrays] = {};
    size_t used = 0;
    for (uint32_t i = 0; i < kArrays; ++i) {
      if (memory != nullptr) at[i] = reinterpret_cast<float *>(memory + used);
      used += quire_round_up(sizes[i] * sizeof(float), 64);
    }
    *bytes = used;
    return {at[0], at[1], at[2], at[3],  at[4],  at[5], at[6],
            at[7], at[8], at[9], at[10], at[11], at[12]};
  }
};

struct Strides {  // in bytes
  int64_t token, head;
};

Strides strides_of(DType type, int64_t token, int64_t head, uint32_t dim, uint32_t heads) {
  const auto bytes = static_cast<int64_t>(dtype_bytes(type));
  if (head == 0) head = dim;
  if (token == 0) token = static_cast<int64_t>(dim) * heads;
  return {token * bytes, head * bytes};
}

// Writes one finished row.
void write_row(const RowKernels &rk, const Shape &s, const AttentionArgs &args, uint64_t token,
               uint32_t q_head, float *sums, float peak, float weight) {
  const float inverse = weight == 0 ? 0.0f : 1.0f / weight;  // a NaN stays one
  for (uint32_t d = 0; d < s.dim_v; ++d) sums[d] *= inverse;
  const Strides st = strides_of(args.out_dtype, args.out_token_stride, args.out_head_stride,
                                s.dim_v, args.q_heads);
  rk.narrow(
      args.out_dtype, sums,
      static_cast<uint8_t *>(args.out) + static_cast<int64_t>(token) * st.token + q_head * st.head,
      s.dim_v);
  if (args.lse != nullptr) {
    args.lse[token * args.q_heads + q_head] =
        weight == 0 ? kMinusInfinity : peak + std::log(weight);
  }
}

class Task {
 public:
  Task(const Codec &codec, const AttentionArgs &args, const Shape &shape, const Scratch &scratch)
      : codec_(codec), args_(args), shape_(shape), at_(scratch), rk_(row_kernels()) {}

  void run(uint32_t sequence, uint32_t kv_head, uint64_t chunk, uint64_t split) {
    sequence_ = sequence;
    kv_head_ = kv_head;
    first_token_ = static_cast<uint64_t>(args_.q_offsets[sequence]);
    queries_ = static_cast<uint64_t>(args_.q_offsets[sequence + 1]) - first_token_;
    kv_len_ = args_.kv_lens[sequence];
    first_row_ = chunk * kRows;
    const uint64_t all = queries_ * shape_.group;
    rows_ = static_cast<uint32_t>(all - first_row_ < kRows ? all - first_row_ : kRows);
    rotated_ = false;
    anchor_rows_made_ = false;
    load_queries();
    for (uint32_t r = 0; r < rows_; ++r) {
      at_.peak[r] = kMinusInfinity;
      at_.weight[r] = 0;
    }
    std::memset(at_.sums, 0, sizeof(float) * rows_ * shape_.dim_v);
    walk(split);
    set_domain(false);
    finish(split);
  }

 private:
  uint64_t query_of(uint32_t row) const { return (first_row_ + row) / shape_.group; }
  uint32_t q_head_of(uint32_t row) const {
    return kv_head_ * shape_.group + static_cast<uint32_t>((first_row_ + row) % shape_.group);
  }
  // Row r sees tokens [from, to).
  int64_t to(uint32_t row) const {
    return kv_len_ - static_cast<int64_t>(queries_) + static_cast<int64_t>(query_of(row)) + 1;
  }
  int64_t from(uint32_t row) const {
    const int64_t start = args_.window == 0 ? 0 : to(row) - static_cast<int64_t>(args_.window);
    return start > 0 ? start : 0;
  }

  void load_queries() {
    const Strides st = strides_of(args_.q_dtype, args_.q_token_stride, args_.q_head_stride,
                                  shape_.dim_k, args_.q_heads);
    const float scale =
        args_.scale != 0 ? args_.scale : 1.0f / std::sqrt(static_cast<float>(shape_.dim_k));
    const auto *q = static_cast<const uint8_t *>(args_.q);
    const size_t all = size_t{rows_} * shape_.dim_k;
    for (uint32_t r = 0; r < rows_; ++r) {
      const auto token = static_cast<int64_t>(first_token_ + query_of(r));
      rk_.widen(args_.q_dtype, q + token * st.token + q_head_of(r) * st.head,
                at_.q + r * shape_.dim_k, shape_.dim_k);
    }
    for (size_t i = 0; i < all; ++i) at_.q[i] *= scale;
    std::memcpy(at_.q_rotated, at_.q, all * sizeof(float));
    restore_part(rk_, codec_.sealed.k, at_.q_rotated, rows_);
  }

  void walk(uint64_t split) {
    // Row 0 sees the earliest token of all rows, the last row the latest.
    int64_t begin = static_cast<int64_t>(split * shape_.split_tokens);
    int64_t end =
        split + 1 == shape_.splits ? kv_len_ : begin + static_cast<int64_t>(shape_.split_tokens);
    if (begin < from(0)) begin = from(0);
    if (end > to(rows_ - 1)) end = to(rows_ - 1);
    if (end > kv_len_) end = kv_len_;
    const int32_t *table =
        args_.block_table + static_cast<size_t>(sequence_) * args_.block_table_stride;
    for (int64_t t = begin; t < end;) {
      const int64_t page = t / shape_.page_tokens;
      const int64_t page_end = (page + 1) * shape_.page_tokens;
      const int64_t stop = end < page_end ? end : page_end;
      const int32_t entry = page < args_.block_table_stride ? table[page] : -1;
      if (entry != -1) read_page(entry, page * shape_.page_tokens, t, stop);
      t = stop;
    }
  }

  void read_page(int32_t entry, int64_t page_start, int64_t begin, int64_t end) {
    const bool open = entry_is_open(entry);
    const quire_page_layout &layout = open ? codec_.open : codec_.sealed;
    const FrameView &view = open ? args_.frames.open : args_.frames.sealed;
    const uint8_t *chunk =
        view.frame(entry_frame(entry)) + quire_head_offset(&layout, args_.layer, kv_head_);
    quire_head_statistics statistics = {};
    if (layout.statistics != 0) {
      std::memcpy(&statistics, chunk + layout.statistics, sizeof statistics);
    }
    const bool anchored = (statistics.flags & QUIRE_HEAD_ANCHORED) != 0;
    if (anchored) turn_queries(statistics.page_index);
    set_domain(layout.v.rotation_size > 1);
    for (int64_t t = begin; t < end; t += kTile) {
      const auto n = static_cast<uint32_t>(end - t < kTile ? end - t : kTile);
      const auto offset = static_cast<uint32_t>(t - page_start);
      decode_part(rk_, layout.k, codec_.book, chunk, offset, n, statistics.k_exponent, at_.k);
      decode_part(rk_, layout.v, codec_.book, chunk, offset, n, statistics.v_exponent, at_.v);
      const float *q = layout.k.rotation_size > 1 ? at_.q_rotated : at_.q;
      rk_.scores(q, rows_, at_.k, n, shape_.dim_k, at_.logits, kTile);
      if (anchored) {
        rk_.scores(at_.q_turned, rows_, at_.token_rows + size_t{offset} * shape_.dim_k, n,
                   shape_.dim_k, at_.anchors, kTile);
        for (uint32_t r = 0; r < rows_; ++r) {
          rk_.add(at_.logits + r * kTile, at_.anchors + r * kTile, n);
        }
      }
      for (uint32_t r = 0; r < rows_; ++r) weigh(r, t, n);
      rk_.accumulate(at_.sums, rows_, at_.factor, at_.logits, kTile, at_.v, n, shape_.dim_v);
    }
  }

  // Logits of row r of the tile at token t -> weights; moves the row's peak.
  void weigh(uint32_t r, int64_t t, uint32_t n) {
    float *logits = at_.logits + r * kTile;
    if (args_.soft_cap != 0) rk_.soft_cap(logits, n, args_.soft_cap);
    const int64_t first = from(r) - t, last = to(r) - t;
    for (int64_t i = 0; i < n && i < first; ++i) logits[i] = kMinusInfinity;
    for (int64_t i = last > 0 ? last : 0; i < n; ++i) logits[i] = kMinusInfinity;
    const float here = rk_.maximum(logits, n);
    if (here > at_.peak[r]) {
      at_.factor[r] = std::exp(at_.peak[r] - here);
      at_.peak[r] = here;
    } else {
      at_.factor[r] = 1;
    }
    if (at_.peak[r] == kMinusInfinity) {  // nothing seen yet: keep the sums at 0
      std::memset(logits, 0, sizeof(float) * n);
      return;
    }
    at_.weight[r] = at_.weight[r] * at_.factor[r] + rk_.exponentials(logits, n, at_.peak[r]);
  }

  void turn_queries(uint32_t page) {
    const uint32_t pairs = codec_.turns.pairs, dim = shape_.dim_k;
    if (!anchor_rows_made_) {
      for (uint32_t j = 0; j < shape_.page_tokens; ++j) {
        token_anchor(codec_, args_.layer, kv_head_, j, at_.token_rows + size_t{j} * dim);
      }
      for (uint32_t r = 0; r < rows_; ++r) {
        to_planes(codec_.turns, dim, at_.q + r * dim, at_.q_planes + r * dim);
      }
      std::memcpy(at_.q_turned, at_.q_planes, sizeof(float) * rows_ * dim);
      anchor_rows_made_ = true;
    }
    float cos[kMaxPairs], sin[kMaxPairs];
    page_turn(codec_.turns, page, cos, sin);
    for (uint32_t r = 0; r < rows_; ++r) {
      rk_.turn(at_.q_planes + r * dim, cos, sin, pairs, true, at_.q_turned + r * dim);
    }
  }

  void set_domain(bool rotated) {
    if (rotated == rotated_) return;
    const quire_part_layout &v = codec_.sealed.v;
    rk_.rotate(at_.sums, size_t{rows_} * shape_.dim_v, v.rotation_size,
               rotated ? v.rotation_stored : v.rotation_read);
    rotated_ = rotated;
  }

  void finish(uint64_t split) {
    for (uint32_t r = 0; r < rows_; ++r) {
      const uint64_t token = first_token_ + query_of(r);
      float *sums = at_.sums + r * shape_.dim_v;
      if (shape_.splits == 1) {
        write_row(rk_, shape_, args_, token, q_head_of(r), sums, at_.peak[r], at_.weight[r]);
        continue;
      }
      float *partial =
          static_cast<float *>(args_.workspace) +
          ((token * args_.q_heads + q_head_of(r)) * shape_.splits + split) * shape_.partial_floats;
      std::memcpy(partial, sums, sizeof(float) * shape_.dim_v);
      partial[shape_.dim_v] = at_.peak[r];
      partial[shape_.dim_v + 1] = at_.weight[r];
    }
  }

  const Codec &codec_;
  const AttentionArgs &args_;
  const Shape &shape_;
  const Scratch &at_;
  const RowKernels &rk_;
  uint32_t sequence_ = 0, kv_head_ = 0, rows_ = 0;
  uint64_t first_token_ = 0, queries_ = 0, first_row_ = 0;
  int64_t kv_len_ = 0;
  bool rotated_ = false, anchor_rows_made_ = false;
};

uint64_t chunks_of(const Shape &s, const AttentionArgs &args, uint32_t sequence) {
  const auto n = static_cast<uint64_t>(args.q_offsets[sequence + 1] - args.q_offsets[sequence]);
  return (n * s.group + kRows - 1) / kRows;
}

}  // namespace

size_t attention_workspace(const Codec &codec, const AttentionArgs &args,
                           uint32_t workers) noexcept {
  if (codec.geometry.head_dim_v == 0 || args.q_heads % codec.geometry.kv_heads != 0) return 0;
  const Shape s = shape_of(codec, args);
  size_t scratch;
  Scratch::carve(s, nullptr, &scratch);
  return partial_bytes(s, args) + scratch * workers;
}

uint64_t attention_tasks(const Codec &codec, const AttentionArgs &args) noexcept {
  const Shape s = shape_of(codec, args);
  uint64_t chunks = 0;
  for (uint32_t b = 0; b < args.batch; ++b) chunks += chunks_of(s, args, b);
  return chunks * s.kv_heads * s.splits;
}

void attention(const Codec &codec, const AttentionArgs &args, uint64_t begin, uint64_t end,
               uint32_t worker) noexcept {
  const Shape s = shape_of(codec, args);
  size_t bytes;
  Scratch::carve(s, nullptr, &bytes);
  uint8_t *memory =
      static_cast<uint8_t *>(args.workspace) + partial_bytes(s, args) + bytes * worker;
  const Scratch scratch = Scratch::carve(s, memory, &bytes);
  Task task(codec, args, s, scratch);
  uint64_t first = 0;  // task number of the sequence's first
  for (uint32_t b = 0; b < args.batch && first < end; ++b) {
    const uint64_t chunks = chunks_of(s, args, b), here = chunks * s.kv_heads * s.splits;
    for (uint64_t i = begin > first ? begin - first : 0; i < here && first + i < end; ++i) {
      const auto head = static_cast<uint32_t>(i / (chunks * s.splits));
      task.run(b, head, i / s.splits % chunks, i % s.splits);
    }
    first += here;
  }
}

uint64_t attention_merge_tasks(const Codec &codec, const AttentionArgs &args) noexcept {
  if (shape_of(codec, args).splits == 1 || args.batch == 0) return 0;
  return static_cast<uint64_t>(args.q_offsets[args.batch] - args.q_offsets[0]);
}

void attention_merge(const Codec &codec, const AttentionArgs &args, uint64_t begin,
                     uint64_t end) noexcept {
  const Shape s = shape_of(codec, args);
  const RowKernels &rk = row_kernels();
  float sums[kMaxDim];
  for (uint64_t i = begin; i < end; ++i) {
    const uint64_t token = static_cast<uint64_t>(args.q_offsets[0]) + i;
    for (uint32_t h = 0; h < args.q_heads; ++h) {
      const float *partial = static_cast<const float *>(args.workspace) +
                             (token * args.q_heads + h) * s.splits * s.partial_floats;
      float peak = kMinusInfinity, weight = 0;
      for (uint64_t j = 0; j < s.splits; ++j) {
        const float here = partial[j * s.partial_floats + s.dim_v];
        peak = here > peak ? here : peak;
      }
      std::memset(sums, 0, sizeof(float) * s.dim_v);
      for (uint64_t j = 0; j < s.splits; ++j) {
        const float *one = partial + j * s.partial_floats;
        if (one[s.dim_v + 1] == 0) continue;
        const float factor = std::exp(one[s.dim_v] - peak);
        weight += one[s.dim_v + 1] * factor;
        for (uint32_t d = 0; d < s.dim_v; ++d) sums[d] += one[d] * factor;
      }
      write_row(rk, s, args, token, h, sums, peak, weight);
    }
  }
}

void attention_all(const Codec &codec, const AttentionArgs &args) noexcept {
  attention(codec, args, 0, attention_tasks(codec, args), 0);
  attention_merge(codec, args, 0, attention_merge_tasks(codec, args));
}

}  // namespace quire::kernels
