// KV: the engine's data path: append, gather, attention, anchors.
//
// Each call checks what the host can see (sizes, ranges of layers, strides, the stream), builds the
// arguments of the kernel and enqueues it. What the arguments point to is the engine's and is read
// when the stream gets there, except on the NULL stream of a CPU cache, where the kernel runs before
// the call returns.
//
// Slots and block tables are read on the stream, so what they hold cannot be checked here: as with
// any kernel, an entry that this cache did not give is undefined behaviour.
//
// Cost: the check and a launch or a few (page_kernels.h).
#include <algorithm>
#include <cmath>

#include "runtime/cache.h"

namespace quire {
namespace {

kernels::DType to_dtype(uint32_t dtype) {
  return static_cast<kernels::DType>(dtype);
}

Status check_dtype(uint32_t dtype, const char *name) noexcept {
  if (dtype <= QUIRE_BF16) return Status::kOk;
  return set_error(Status::kInvalid, "%s: %u is not a quire_dtype", name, dtype);
}

Status check_layer(const quire_geometry &g, uint32_t layer) noexcept {
  if (layer < g.layers) return Status::kOk;
  return set_error(Status::kInvalid, "layer %u of %u", layer, g.layers);
}

Status check_map(const kernels::TokenMap &map) noexcept {
  if (map.slots != nullptr || map.block_table != nullptr) return Status::kOk;
  return set_error(Status::kInvalid, "neither slots nor block_table is given");
}

}  // namespace

// The stream of a kernel: registered, or NULL where the device can do the work at once.
Status Cache::find_kernel_stream(Stream stream, uint32_t *slot) noexcept {
  if (const Status s = find_stream(stream, slot); s != Status::kOk) return s;
  if (stream != nullptr || !kernels_->needs_stream()) return Status::kOk;
  return set_error(Status::kInvalid, "the %s device wants a stream", device_->name());
}

// What append and gather have in common.
template <class Args, class From>
Status Cache::token_args(const From &from, Args *to) noexcept {
  uint32_t slot;
  if (const Status s = find_kernel_stream(from.stream, &slot); s != Status::kOk) return s;
  if (const Status s = check_layer(config_.values.geometry, from.layer); s != Status::kOk) return s;
  if (const Status s = check_dtype(from.dtype, "dtype"); s != Status::kOk) return s;
  to->frames = kernel_frames();
  to->map.slots = from.slots;
  to->map.block_table = from.block_table;
  to->map.block_table_length = from.block_table_length;
  to->map.first = from.first;
  to->layer = from.layer;
  to->n = from.n;
  to->dtype = to_dtype(from.dtype);
  to->k = from.k;
  to->v = from.v;
  to->k_token_stride = from.k_token_stride;
  to->k_head_stride = from.k_head_stride;
  to->v_token_stride = from.v_token_stride;
  to->v_head_stride = from.v_head_stride;
  return Status::kOk;
}

Status Cache::kv_append(const quire_append_args &args) noexcept {
  kernels::AppendArgs a;
  if (const Status s = token_args(args, &a); s != Status::kOk || args.n == 0) return s;
  if (args.k == nullptr || (args.v == nullptr && config_.values.geometry.head_dim_v != 0)) {
    return set_error(Status::kInvalid, "k or v is NULL");
  }
  if (const Status s = check_map(a.map); s != Status::kOk) return s;
  a.search = config_.values.fast_scales == 0;
  return launched(kernels_->append(a, args.stream));
}

Status Cache::kv_gather(const quire_gather_args &args) noexcept {
  kernels::GatherArgs a;
  if (const Status s = token_args(args, &a); s != Status::kOk || args.n == 0) return s;
  if (args.k == nullptr && args.v == nullptr) return Status::kOk;
  if (args.v != nullptr && config_.values.geometry.head_dim_v == 0) {
    return set_error(Status::kInvalid, "v: this geometry has no V");
  }
  if (const Status s = check_map(a.map); s != Status::kOk) return s;
  return launched(kernels_->gather(a, args.stream));
}

Status Cache::check_bounds(const quire_attention_bounds &bounds) const noexcept {
  const quire_geometry &g = config_.values.geometry;
  if (g.head_dim_v == 0) {
    return set_error(Status::kUnsupported, "attention needs V pages; this geometry has none");
  }
  if (bounds.q_heads == 0 || bounds.q_heads % g.kv_heads != 0) {
    return set_error(Status::kInvalid, "bounds.q_heads: %u is not a multiple of %u KV heads",
                     bounds.q_heads, g.kv_heads);
  }
  if (bounds.max_kv > INT32_MAX)
    return set_error(Status::kInvalid, "bounds.max_kv is over 2^31 - 1");
  if (bounds.max_q > INT32_MAX) return set_error(Status::kInvalid, "bounds.max_q is over 2^31 - 1");
  return Status::kOk;
}

kernels::AttentionArgs Cache::attention_bounds(
    const quire_attention_bounds &bounds) const noexcept {
  kernels::AttentionArgs a;
  a.frames = kernel_frames();
  a.q_heads = bounds.q_heads;
  a.max_q = bounds.max_q;
  a.max_kv = bounds.max_kv;
  a.batch = bounds.max_batch;
  a.max_batch = bounds.max_batch;
  return a;
}

Status Cache::attention_workspace(const quire_attention_bounds &bounds, size_t *bytes) noexcept {
  if (const Status s = check_bounds(bounds); s != Status::kOk) return s;
  return kernels_->attention_workspace(attention_bounds(bounds), bytes);
}

Status Cache::attention(const quire_attention_args &args) noexcept {
  const quire_geometry &g = config_.values.geometry;
  uint32_t slot;
  if (const Status s = find_kernel_stream(args.stream, &slot); s != Status::kOk) return s;
  if (const Status s = check_layer(g, args.layer); s != Status::kOk) return s;
  if (const Status s = check_dtype(args.q_dtype, "q_dtype"); s != Status::kOk) return s;
  if (const Status s = check_dtype(args.out_dtype, "out_dtype"); s != Status::kOk) return s;
  if (const Status s = check_bounds(args.bounds); s != Status::kOk) return s;
  if (args.batch > args.bounds.max_batch) {
    return set_error(Status::kInvalid, "batch %u is over its bound %u", args.batch,
                     args.bounds.max_batch);
  }
  if (args.batch == 0) return Status::kOk;
  if (args.q == nullptr || args.out == nullptr || args.q_offsets == nullptr ||
      args.kv_lens == nullptr || (args.block_table == nullptr && args.bounds.max_kv > 0)) {
    return set_error(Status::kInvalid, "q, out, q_offsets, kv_lens or block_table is NULL");
  }
  const uint64_t reach = uint64_t{args.block_table_stride} * g.page_tokens;
  if (reach < args.bounds.max_kv) {
    return set_error(Status::kInvalid,
                     "block_table_stride: %u pages do not hold bounds.max_kv tokens",
                     args.block_table_stride);
  }
  if (!std::isfinite(args.scale) || !(args.soft_cap >= 0)) {
    return set_error(Status::kInvalid, "scale or soft_cap is not finite, or soft_cap is negative");
  }
  kernels::AttentionArgs a = attention_bounds(args.bounds);
  size_t needed = 0;
  if (const Status s = kernels_->attention_workspace(a, &needed); s != Status::kOk) return s;
  if (args.workspace_bytes < needed || (needed > 0 && args.workspace == nullptr)) {
    return set_error(Status::kInvalid, "workspace: %zu bytes are wanted, %zu given", needed,
                     args.workspace_bytes);
  }
  if (reinterpret_cast<uintptr_t>(args.workspace) % 64 != 0) {
    return set_error(Status::kInvalid, "workspace is not 64-byte aligned");
  }
  a.layer = args.layer;
  a.batch = args.batch;
  a.q_dtype = to_dtype(args.q_dtype);
  a.out_dtype = to_dtype(args.out_dtype);
  a.q = args.q;
  a.out = args.out;
  a.lse = args.lse;
  a.q_token_stride = args.q_token_stride;
  a.q_head_stride = args.q_head_stride;
  a.out_token_stride = args.out_token_stride;
  a.out_head_stride = args.out_head_stride;
  a.scale = args.scale;
  a.soft_cap = args.soft_cap;
  a.window = args.window;
  a.block_table_stride = args.block_table_stride;
  a.q_offsets = args.q_offsets;
  a.kv_lens = args.kv_lens;
  a.block_table = args.block_table;
  a.workspace = args.workspace;
  return launched(kernels_->attention(a, args.stream));
}

Status Cache::anchor_set(uint32_t layer, const float *means) noexcept {
  const quire_geometry &g = config_.values.geometry;
  if (const Status s = check_layer(g, layer); s != Status::kOk) return s;
  if (config_.layout.k.codec.anchor == QUIRE_ANCHOR_NONE) {
    return set_error(Status::kUnsupported, "this format stores keys without an anchor");
  }
  if (g.rope.rotary_dim == 0) {
    return set_error(Status::kUnsupported,
                     "the geometry has no RoPE description (rope_dim, rope_theta)");
  }
  const size_t n = size_t{g.kv_heads} * g.head_dim_k;
  if (!std::all_of(means, means + n, [](float x) { return std::isfinite(x); })) {
    return set_error(Status::kInvalid, "a mean is not finite");
  }
  // acquire: pairs with the release below: one call at a time is inside the codec.
  uint32_t idle = 0;
  if (!anchors_.compare_exchange_strong(idle, 1, std::memory_order_acquire,
                                        std::memory_order_relaxed)) {
    return set_error(Status::kBusy,
                     (idle & kAnchorsFrozen) != 0
                         ? "pages were sealed already: anchors are set before the first"
                         : "another call is setting an anchor");
  }
  const Status status = kernels_->set_anchor(layer, means);
  anchors_.store(0, std::memory_order_release);
  return status;
}

// Before the first page is encoded. kBusy: an anchor is being set at this moment.
Status Cache::freeze_anchors() noexcept {
  uint32_t idle = 0;
  // acquire: pairs with the release in anchor_set(): the encoder sees all anchors.
  if (anchors_.load(std::memory_order_acquire) == kAnchorsFrozen ||
      anchors_.compare_exchange_strong(idle, kAnchorsFrozen, std::memory_order_acq_rel,
                                       std::memory_order_acquire) ||
      idle == kAnchorsFrozen) {
    return Status::kOk;
  }
  return set_error(Status::kBusy, "another call is setting an anchor");
}

Status Cache::launched(Status status) noexcept {
  if (status != Status::kOk && status != Status::kUnsupported) {
    tables_->stats.add(Counter::device_errors_total);
  }
  return status;
}

// What encoders have met since the last call goes into the stats.
void Cache::count_nonfinite() noexcept {
  const uint64_t total = kernels_->nonfinite();
  // relaxed, all: a sum; of two calls the one that raises the mark adds the difference.
  uint64_t seen = nonfinite_seen_.load(std::memory_order_relaxed);
  while (seen < total) {
    if (!nonfinite_seen_.compare_exchange_weak(seen, total, std::memory_order_relaxed)) continue;
    tables_->stats.add(Counter::nonfinite_values_total, total - seen);
    return;
  }
}

}  // namespace quire
