// Rows "gpu/...": the data plane on a GPU, held against a device copy measured beside it.
//
// 8,192 tokens of 8 layers in one graph, 8 KV heads x 128, f16 rows, shuffled pages of 16 tokens,
// `nf4`. Bytes are those of the rows plus those of the pages that they fill; the latency of a small
// append is the slope between graphs of one and of 64 calls.
#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "bench.h"
#include "gpu_bench.h"
#include "kernels/codec.h"
#include "kernels/codec_state.h"
#include "kernels/cuda/cuda_codec.h"
#include "kernels/rows.h"

namespace quire::bench {
namespace {

using namespace gpu;
using kernels::FrameView;
using kernels::cuda::CudaCodec;

constexpr uint32_t kHeads = 8, kDim = 128;

uint32_t layers_of(const Context &context) {
  return context.quick ? 2 : 8;
}

// A codec, its frames, and rows, `sets` times over.
struct World {
  uint32_t layers, tokens, page_tokens, pages, sets;
  std::vector<uint32_t> frames;  // shuffled
  std::vector<uint8_t> codec_memory;
  kernels::Codec *host;
  CudaCodec codec = {};
  Memory tables, rows;
  Memory open, sealed, out;
  Memory slots_open, slots_sealed, table;

  World(const Context &context, uint32_t tokens_a_page, bool anchored)
      : layers(layers_of(context)),
        tokens(8192),
        page_tokens(tokens_a_page),
        pages(tokens / page_tokens),
        sets(context.quick ? 2 : 8),
        codec_memory(make_codec_memory()),
        host(make_codec(anchored, context.seed)),
        tables(kernels::cuda::device_bytes(*host)),
        rows(make_rows(context.seed)),
        open(sets * pages * kernels::open_layout(*host).page_bytes),
        sealed(sets * pages * kernels::sealed_layout(*host).page_bytes),
        out(row_bytes() * 2 * layers * sets),
        slots_open(uploaded(shuffled_slots(context.seed, true))),
        slots_sealed(uploaded(shuffled_slots(context.seed, false))),
        table(uploaded(std::vector<int32_t>(frames.begin(), frames.end()))) {
    ok(kernels::cuda::upload(*host, tables.as<void>(), &codec, nullptr));
  }

  kernels::CodecConfig config() const {
    kernels::CodecConfig c;
    c.geometry.layers = layers;
    c.geometry.kv_heads = kHeads;
    c.geometry.head_dim_k = c.geometry.head_dim_v = kDim;
    c.geometry.page_tokens = page_tokens;
    quire_rope_init(&c.geometry.rope, kDim, 1e6, 0);
    return c;
  }
  std::vector<uint8_t> make_codec_memory() const {
    return std::vector<uint8_t>(kernels::codec_bytes(config()) + 64);
  }
  kernels::Codec *make_codec(bool anchored, uint64_t seed) {
    const auto at = reinterpret_cast<uintptr_t>(codec_memory.data());
    kernels::Codec *c = kernels::codec_create(config(), codec_memory.data() + (64 - at % 64) % 64);
    Random random(seed);
    std::vector<float> means(kHeads * kDim);
    for (uint32_t layer = 0; anchored && layer < layers; ++layer) {
      for (float &m : means) m = static_cast<float>(random.below(2001)) / 100 - 10;
      kernels::set_anchor(*c, layer, means.data());
    }
    return c;
  }

  size_t row_values() const { return size_t{tokens} * kHeads * kDim; }
  size_t row_bytes() const { return row_values() * 2; }  // K, or V, of a layer
  // K and V of every layer and set, near enough to normal, as halves.
  Memory make_rows(uint64_t seed) const {
    Random random(seed + 1);
    std::vector<float> x(1 << 22);
    for (float &v : x) {
      const uint64_t r = random();
      v = 0;
      for (int i = 0; i < 4; ++i) v += static_cast<float>(r >> (16 * i) & 65535u) / 32768.0f - 1.0f;
    }
    std::vector<uint16_t> halves(x.size());
    kernels::row_kernels().narrow(kernels::DType::kF16, x.data(), halves.data(), x.size());
    Memory m(row_bytes() * 2 * layers * sets);
    for (size_t at = 0; at < m.size();) {
      const size_t shift = random.below(4096) * 8;  // no two pieces alike, all aligned
      const size_t n = std::min(m.size() - at, (halves.size() - shift) * 2);
      ok(cudaMemcpy(m.bytes_at(at), halves.data() + shift, n, cudaMemcpyHostToDevice));
      at += n;
    }
    return m;
  }
  std::vector<int64_t> shuffled_slots(uint64_t seed, bool of_open) {
    Random random(seed + 2);
    frames.resize(pages);
    std::iota(frames.begin(), frames.end(), 0u);
    for (size_t i = frames.size(); i > 1; --i) std::swap(frames[i - 1], frames[random.below(i)]);
    std::vector<int64_t> slots(tokens);
    for (uint32_t t = 0; t < tokens; ++t) {
      const int64_t at = int64_t{frames[t / page_tokens]} * page_tokens + t % page_tokens;
      slots[t] = of_open ? -2 - at : at;
    }
    return slots;
  }

  kernels::Frames frames_of(unsigned set) const {
    const uint64_t o = kernels::open_layout(*host).page_bytes;
    const uint64_t s = kernels::sealed_layout(*host).page_bytes;
    return {FrameView{sealed.bytes_at(set * pages * s), s},
            FrameView{open.bytes_at(set * pages * o), o}};
  }
  uint8_t *rows_of(const Memory &m, unsigned set, uint32_t layer, uint32_t part) const {
    return m.bytes_at(((size_t{set} * layers + layer) * 2 + part) * row_bytes());
  }

  void append(unsigned set, bool to_open, bool search, uint32_t n, cudaStream_t stream) const {
    for (uint32_t layer = 0; layer < layers; ++layer)
      append_layer(set, layer, to_open, search, n, stream);
  }
  void append_layer(unsigned set, uint32_t layer, bool to_open, bool search, uint32_t n,
                    cudaStream_t stream) const {
    kernels::AppendArgs a;
    a.frames = frames_of(set);
    a.map.slots = (to_open ? slots_open : slots_sealed).as<int64_t>();
    a.layer = layer;
    a.n = n;
    a.dtype = kernels::DType::kF16;
    a.k = rows_of(rows, set, layer, 0);
    a.v = rows_of(rows, set, layer, 1);
    a.search = search;
    ok(kernels::cuda::append(codec, a, nullptr, stream));
  }
  void seal(unsigned set, bool search, cudaStream_t stream) const {
    kernels::SealArgs s;
    s.frames = frames_of(set);
    s.from = s.to = s.page_index = frames.data();
    s.pages = pages;
    s.search = search;
    ok(kernels::cuda::seal(codec, s, nullptr, stream));
  }
  void gather(unsigned set, bool from_open, cudaStream_t stream) const {
    kernels::GatherArgs g;
    g.frames = frames_of(set);
    g.map.slots = (from_open ? slots_open : slots_sealed).as<int64_t>();
    g.n = tokens;
    g.dtype = kernels::DType::kF16;
    for (uint32_t layer = 0; layer < layers; ++layer) {
      g.layer = layer;
      g.k = rows_of(out, set, layer, 0);
      g.v = rows_of(out, set, layer, 1);
      ok(kernels::cuda::gather(codec, g, stream));
    }
  }
  void fill_open() const {
    for (unsigned set = 0; set < sets; ++set) append(set, true, false, tokens, nullptr);
    ok(cudaDeviceSynchronize());
  }
  void fill_sealed() const {
    fill_open();
    for (unsigned set = 0; set < sets; ++set) seal(set, false, nullptr);
    ok(cudaDeviceSynchronize());
  }

  double plain_bytes() const { return 2.0 * layers * static_cast<double>(row_bytes()); }
  double open_bytes() const {
    return static_cast<double>(pages) * static_cast<double>(kernels::open_layout(*host).page_bytes);
  }
  double sealed_bytes() const {
    return static_cast<double>(pages) *
           static_cast<double>(kernels::sealed_layout(*host).page_bytes);
  }
};

struct Work {
  std::string name;
  double share;  // of the device copy that is wanted
  double bytes;
  std::function<void(unsigned, cudaStream_t)> enqueue;
};

std::vector<Row> measure(const Context &context, const World &world, const std::vector<Work> &all) {
  const DeviceCopy copy;
  std::vector<std::unique_ptr<Graphs>> graphs;
  std::vector<Contender> contenders = {{"copy", [&] { return copy.gigabytes(); }}};
  for (const Work &work : all) {
    graphs.push_back(std::make_unique<Graphs>(world.sets, work.enqueue));
    contenders.push_back({work.name, [&graph = *graphs.back(), bytes = work.bytes] {
                            return bytes / graph.us() / 1e3;
                          }});
  }
  const std::vector<Measure> measures = interleave(context, contenders);
  std::vector<Row> rows;
  for (size_t i = 0; i < all.size(); ++i) {
    rows.push_back(Row{all[i].name,
                       "GB/s",
                       report_higher(),
                       measures[i + 1],
                       {Peer{"device copy", measures[0], all[i].share}},
                       "read + written"});
  }
  return rows;
}

std::string sized(const World &world, const std::string &what) {
  return what + ", " + std::to_string(world.tokens) + " tokens x " + std::to_string(world.layers) +
         " layers, pages of " + std::to_string(world.page_tokens);
}

std::vector<Row> write_rows(const Context &context, uint32_t page_tokens) {
  require_device();
  const World world(context, page_tokens, false);
  world.fill_open();
  const auto append = [&](bool open, bool search) {
    return [&world, open, search](unsigned set, cudaStream_t stream) {
      world.append(set, open, search, world.tokens, stream);
    };
  };
  const auto seal = [&](bool search) {
    return [&world, search](unsigned set, cudaStream_t stream) { world.seal(set, search, stream); };
  };
  const double plain = world.plain_bytes(), sealed = world.sealed_bytes();
  return measure(
      context, world,
      {{sized(world, "append f16 into open pages"), 0.85, plain + world.open_bytes(),
        append(true, false)},
       {sized(world, "append f16 into nf4, sign tried"), 0.70, plain + sealed,
        append(false, false)},
       {sized(world, "append f16 into nf4, searched"), 0.25, plain + sealed, append(false, true)},
       {sized(world, "seal to nf4, sign tried"), 0.70, world.open_bytes() + sealed, seal(false)},
       {sized(world, "seal to nf4, searched"), 0.25, world.open_bytes() + sealed, seal(true)}});
}

std::vector<Row> read_rows(const Context &context, uint32_t page_tokens, bool anchored) {
  require_device();
  const World world(context, page_tokens, anchored);
  world.fill_sealed();
  const std::string suffix = anchored ? " with anchors" : "";
  const auto gather = [&](bool open) {
    return [&world, open](unsigned set, cudaStream_t stream) { world.gather(set, open, stream); };
  };
  std::vector<Work> all = {{sized(world, "gather nf4" + suffix + " to f16"), 0.90,
                            world.plain_bytes() + world.sealed_bytes(), gather(false)}};
  if (anchored) {
    all.push_back(
        {sized(world, "seal to nf4 with anchors, sign tried"), 0.70,
         world.open_bytes() + world.sealed_bytes(),
         [&world](unsigned set, cudaStream_t stream) { world.seal(set, false, stream); }});
  } else {
    all.push_back({sized(world, "gather open pages to f16"), 0.90,
                   world.plain_bytes() + world.open_bytes(), gather(true)});
    // Sealed pages of a set into the next set's.
    all.push_back({sized(world, "copy sealed pages"), 0.90, 2 * world.sealed_bytes(),
                   [&world](unsigned set, cudaStream_t stream) {
                     const kernels::Frames to = world.frames_of((set + 1) % world.sets);
                     kernels::CopyArgs copy;
                     copy.to = to.sealed;
                     copy.from = world.frames_of(set).sealed;
                     copy.to_frames = copy.from_frames = world.frames.data();
                     copy.pages = world.pages;
                     ok(kernels::cuda::copy_pages(world.codec, copy, stream));
                   }});
  }
  return measure(context, world, all);
}

// Slope between graphs of one call and of 64, each with slots and rows of its own.
std::vector<Row> small_append(const Context &context) {
  require_device();
  constexpr uint32_t kTokens = 64, kCalls = 64;
  const World world(context, 16, false);
  std::vector<Row> rows;
  for (const bool open : {true, false}) {
    const auto calls = [&](uint32_t n) {
      return [&world, open, n](unsigned set, cudaStream_t stream) {
        for (uint32_t i = 0; i < n; ++i) {
          kernels::AppendArgs a;
          a.frames = world.frames_of(set);
          a.map.slots =
              (open ? world.slots_open : world.slots_sealed).as<int64_t>() + size_t{i} * kTokens;
          a.layer = i % world.layers;
          a.n = kTokens;
          a.dtype = kernels::DType::kF16;
          a.k =
              world.rows_of(world.rows, set, a.layer, 0) + size_t{i} * kTokens * kHeads * kDim * 2;
          a.v =
              world.rows_of(world.rows, set, a.layer, 1) + size_t{i} * kTokens * kHeads * kDim * 2;
          a.search = false;
          ok(kernels::cuda::append(world.codec, a, nullptr, stream));
        }
      };
    };
    const Graphs one(world.sets, calls(1)), many(world.sets, calls(kCalls));
    const std::vector<Measure> m =
        interleave(context, {{"slope", [&] { return (many.us() - one.us()) / (kCalls - 1); }}});
    rows.push_back(Row{std::string("append 64 tokens of a layer ") +
                           (open ? "into open pages" : "into nf4, sign tried"),
                       "us",
                       at_most(3),
                       m[0],
                       {},
                       "device time a call, in a graph"});
  }
  return rows;
}

std::vector<Row> write_16(const Context &context) {
  return write_rows(context, 16);
}
std::vector<Row> write_64(const Context &context) {
  return write_rows(context, 64);
}
std::vector<Row> read_16(const Context &context) {
  return read_rows(context, 16, false);
}
std::vector<Row> read_64(const Context &context) {
  return read_rows(context, 64, false);
}
std::vector<Row> anchored_16(const Context &context) {
  return read_rows(context, 16, true);
}

QUIRE_BENCHMARK("gpu/codec-write-16", "append and seal, pages of 16", write_16);
QUIRE_BENCHMARK("gpu/codec-write-64", "append and seal, pages of 64", write_64);
QUIRE_BENCHMARK("gpu/codec-read-16", "gather and page copies, pages of 16", read_16);
QUIRE_BENCHMARK("gpu/codec-read-64", "gather and page copies, pages of 64", read_64);
QUIRE_BENCHMARK("gpu/codec-anchored", "gather and seal of keys minus their mean", anchored_16);
QUIRE_BENCHMARK("gpu/codec-small", "64 tokens a call", small_append);

}  // namespace
}  // namespace quire::bench
