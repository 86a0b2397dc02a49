// Rows "gpu/attention-...": decode attention on nf4 pages, held against the device's bandwidth and
// against PyTorch's attention on f16.
//
// Pages are shuffled over frames and hold random keys and values, encoded on the device; buffer sets
// are 1.5 GiB together, so that the level-2 cache serves little. A figure is the mean time of a call
// in a graph, merge included. Its bytes are those of the pages that it reads, queries and results
// left out; they are held against what a kernel reads that sums up 4 GiB, in the same rounds.
//
// The peer runs in another process: tools/quire-bench/sdpa.py writes its times (the best of flash
// and cuDNN) to a JSON file, which QUIRE_BENCH_SDPA names; run it right before on the same machine.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "bench.h"
#include "gpu_bench.h"
#include "gpu_read.h"
#include "kernels/codec.h"
#include "kernels/codec_state.h"
#include "kernels/cuda/cuda_attention.h"
#include "kernels/cuda/cuda_codec.h"
#include "kernels/rows.h"

namespace quire::bench {
namespace {

using namespace gpu;
using kernels::FrameView;
using kernels::cuda::CudaCodec;

struct Shape {
  uint32_t batch, tokens, q_heads, kv_heads, dim, page_tokens, queries;
  double least_share;   // of bandwidth; 0: reported
  double want;          // times as fast as the peer
  uint32_t layers = 1;  // more: frames hold that many layers, of which a call reads one
};

std::string peer_key(const Shape &s) {
  return std::to_string(s.batch) + "x" + std::to_string(s.tokens) + ":" +
         std::to_string(s.q_heads) + "/" + std::to_string(s.kv_heads) + ":" +
         std::to_string(s.dim) + (s.queries == 1 ? "" : ":" + std::to_string(s.queries));
}

class World {
 public:
  World(const Shape &s, uint64_t seed)
      : shape_(s),
        pages_((s.tokens + s.page_tokens - 1) / s.page_tokens * s.batch),
        codec_memory_(kernels::codec_bytes(config()) + 64),
        host_(make_codec()),
        sets_(make_sets()),
        tables_(kernels::cuda::device_bytes(*host_)),
        sealed_(pages_ * kernels::sealed_layout(*host_).page_bytes * frame_sets()),
        q_(make_rows(size_t{s.batch} * s.queries * s.q_heads * s.dim, seed + 1)),
        out_(size_t{s.batch} * s.queries * s.q_heads * s.dim * 2),
        lse_(size_t{s.batch} * s.queries * s.q_heads * 4),
        offsets_(uploaded(make_offsets())),
        lens_(uploaded(std::vector<int32_t>(s.batch, static_cast<int32_t>(s.tokens)))),
        table_(uploaded(make_table(seed + 2))) {
    ok(kernels::cuda::upload(*host_, tables_.as<void>(), &codec_, nullptr));
    fill(seed + 3);
    args_ = arguments();
    workspace_ = std::make_unique<Memory>(kernels::cuda::attention_workspace(codec_, args_));
    args_.workspace = workspace_->as<void>();
  }

  unsigned sets() const { return sets_; }
  void run(unsigned set, cudaStream_t stream) const {
    kernels::AttentionArgs a = args_;
    a.frames.sealed = frames_of(set);
    a.layer = shape_.layers == 1 ? 0 : set;
    ok(kernels::cuda::attention(codec_, a, stream));
  }
  // Of one call.
  double bytes() const {
    const quire_page_layout &l = kernels::sealed_layout(*host_);
    return static_cast<double>(pages_) * static_cast<double>(l.head_stride) * l.kv_heads;
  }

 private:
  kernels::CodecConfig config() const {
    kernels::CodecConfig c;
    c.geometry.layers = shape_.layers;
    c.geometry.kv_heads = shape_.kv_heads;
    c.geometry.head_dim_k = c.geometry.head_dim_v = shape_.dim;
    c.geometry.page_tokens = shape_.page_tokens;
    quire_rope_init(&c.geometry.rope, std::min(shape_.dim, 256u), 1e6, 0);
    return c;
  }
  kernels::Codec *make_codec() {
    const auto at = reinterpret_cast<uintptr_t>(codec_memory_.data());
    return kernels::codec_create(config(), codec_memory_.data() + (64 - at % 64) % 64);
  }
  // Frames of many layers are one set; a call then takes the next layer.
  unsigned make_sets() const {
    if (shape_.layers != 1) return shape_.layers;
    const double one = static_cast<double>(pages_) *
                       static_cast<double>(kernels::sealed_layout(*host_).page_bytes);
    return static_cast<unsigned>(std::clamp(1.6e9 / one, 2.0, 64.0));
  }
  unsigned frame_sets() const { return shape_.layers == 1 ? sets_ : 1; }
  FrameView frames_of(unsigned set) const {
    const uint64_t bytes = kernels::sealed_layout(*host_).page_bytes;
    return {sealed_.bytes_at(shape_.layers == 1 ? set * pages_ * bytes : 0), bytes};
  }

  // Near enough to normal, as halves.
  static Memory make_rows(size_t n, uint64_t seed) {
    Random random(seed);
    std::vector<float> x(n);
    for (float &v : x) {
      const uint64_t r = random();
      for (int i = 0; i < 4; ++i) v += static_cast<float>(r >> (16 * i) & 65535u) / 32768.0f - 1.0f;
    }
    std::vector<uint16_t> halves(n);
    kernels::row_kernels().narrow(kernels::DType::kF16, x.data(), halves.data(), n);
    return uploaded(halves);
  }
  std::vector<int32_t> make_offsets() const {
    std::vector<int32_t> offsets;
    for (uint32_t b = 0; b <= shape_.batch; ++b)
      offsets.push_back(static_cast<int32_t>(b * shape_.queries));
    return offsets;
  }
  std::vector<int32_t> make_table(uint64_t seed) const {
    std::vector<int32_t> frames(pages_);
    std::iota(frames.begin(), frames.end(), 0);
    Random random(seed);
    for (size_t i = frames.size(); i > 1; --i) std::swap(frames[i - 1], frames[random.below(i)]);
    return frames;
  }
  // Encodes random rows into every frame, all of one chunk of tokens alike but for their shift.
  void fill(uint64_t seed) {
    const uint32_t chunk = std::min(8192u, pages_ * shape_.page_tokens);
    const size_t row = size_t{shape_.kv_heads} * shape_.dim;
    const Memory rows = make_rows((chunk + 4096) * row, seed);
    Random random(seed);
    for (unsigned set = 0; set < sets_; ++set) {
      for (uint32_t first = 0; first < pages_ * shape_.page_tokens; first += chunk) {
        std::vector<int64_t> slots(std::min(chunk, pages_ * shape_.page_tokens - first));
        std::iota(slots.begin(), slots.end(), int64_t{first});
        const Memory to = uploaded(slots);
        kernels::AppendArgs a;
        a.frames.sealed = frames_of(set);
        a.layer = shape_.layers == 1 ? 0 : set;
        a.map.slots = to.as<int64_t>();
        a.n = static_cast<uint32_t>(slots.size());
        a.dtype = kernels::DType::kF16;
        a.k = rows.as<uint16_t>() + random.below(4096) * row;
        a.v = rows.as<uint16_t>() + random.below(4096) * row;
        a.search = false;
        ok(kernels::cuda::append(codec_, a, nullptr, nullptr));
        ok(cudaDeviceSynchronize());
      }
    }
  }
  kernels::AttentionArgs arguments() const {
    kernels::AttentionArgs a;
    a.batch = shape_.batch;
    a.q_heads = shape_.q_heads;
    a.q_dtype = a.out_dtype = kernels::DType::kF16;
    a.q = q_.as<void>();
    a.out = out_.as<void>();
    a.lse = lse_.as<float>();
    a.block_table_stride = pages_ / shape_.batch;
    a.q_offsets = offsets_.as<int32_t>();
    a.kv_lens = lens_.as<int32_t>();
    a.block_table = table_.as<int32_t>();
    a.max_kv = shape_.tokens;
    a.max_q = shape_.batch * shape_.queries;
    return a;
  }

  Shape shape_;
  uint32_t pages_;
  std::vector<uint8_t> codec_memory_;
  kernels::Codec *host_;
  unsigned sets_;
  CudaCodec codec_ = {};
  Memory tables_, sealed_, q_, out_, lse_, offsets_, lens_, table_;
  std::unique_ptr<Memory> workspace_;
  kernels::AttentionArgs args_;
};

// The ceiling: GB/s that a plain kernel reads.
class DeviceRead {
 public:
  DeviceRead()
      : from_(make_rows_of_bytes()), sum_(64), graphs_(2, [this](unsigned, cudaStream_t stream) {
          ok(read_all(from_.as<void>(), from_.size(), sum_.as<uint32_t>(), stream));
        }) {}
  double gigabytes() const { return static_cast<double>(from_.size()) / graphs_.us() / 1e3; }

 private:
  static Memory make_rows_of_bytes() { return Memory(size_t{1} << 32); }

  Memory from_, sum_;
  Graphs graphs_;
};

Peer sdpa_peer(const Shape &s) {
  const char *path = std::getenv("QUIRE_BENCH_SDPA");
  const std::string name = "PyTorch SDPA, f16";
  if (path == nullptr) return not_installed(name, s.want);
  const auto all = nlohmann::json::parse(std::ifstream(path), nullptr, false);
  const auto found = all.is_object() ? all.find(peer_key(s)) : all.end();
  if (!all.is_object() || found == all.end() || !found->contains("best_us")) {
    return not_installed(name, s.want);
  }
  return Peer{name, Measure(found->at("best_us").get<double>()), s.want, true};
}

std::vector<Row> rows_of(const Context &context, std::vector<Shape> shapes) {
  require_device();
  std::vector<Row> rows;
  if (context.quick && shapes.size() > 2) shapes.resize(2);
  const DeviceRead read;
  for (const Shape &s : shapes) {
    const World world(s, context.seed);
    const Graphs graphs(world.sets(),
                        [&](unsigned set, cudaStream_t stream) { world.run(set, stream); });
    const auto m = interleave(context, {{"quire", [&] { return graphs.us(); }},
                                        {"read", [&] { return read.gigabytes(); }}});
    const double gigabytes = world.bytes() / m[0].median / 1e3;
    const double share = 100 * gigabytes / m[1].median;
    const std::string what =
        "nf4 attention, " + peer_key(s) + ", pages of " + std::to_string(s.page_tokens) +
        (s.layers == 1 ? "" : ", a layer of " + std::to_string(s.layers) + " in each frame");
    rows.push_back(Row{what, "us", report_lower(), m[0], {sdpa_peer(s)}, ""});
    rows.push_back(Row{what + ": of read bandwidth",
                       "%",
                       s.least_share == 0 ? report_higher() : at_least(s.least_share),
                       share,
                       {},
                       std::to_string(static_cast<int>(gigabytes)) +
                           " GB/s of pages, a sum over 4 GiB reads " +
                           std::to_string(static_cast<int>(m[1].median)) + " GB/s"});
  }
  return rows;
}

std::vector<Row> decode(const Context &context) {
  return rows_of(context, {{32, 8192, 32, 8, 128, 16, 1, 80, 3.0},
                           {32, 8192, 32, 8, 128, 64, 1, 80, 3.0},
                           {1, 131072, 32, 8, 128, 16, 1, 70, 1.0},
                           {1, 131072, 32, 8, 128, 64, 1, 70, 1.0}});
}
std::vector<Row> sweep(const Context &context) {
  return rows_of(context, {{1, 1024, 32, 8, 128, 64, 1, 0, 0.95},
                           {1, 8192, 32, 8, 128, 64, 1, 0, 0.95},
                           {8, 4096, 32, 8, 128, 32, 1, 0, 0.95},
                           {64, 4096, 32, 8, 128, 16, 1, 0, 0.95},
                           {128, 1024, 32, 8, 128, 16, 1, 0, 0.95},
                           {16, 8192, 64, 8, 128, 16, 1, 0, 0.95},
                           {16, 8192, 32, 32, 128, 16, 1, 0, 0.95},
                           {16, 8192, 28, 4, 128, 16, 1, 0, 0.95},
                           {32, 8192, 16, 16, 64, 16, 1, 0, 0.95},
                           {16, 8192, 16, 8, 256, 16, 1, 0, 0.95}});
}
std::vector<Row> queries(const Context &context) {
  return rows_of(context, {{32, 8192, 32, 8, 128, 64, 2, 0, 0.95},
                           {32, 8192, 32, 8, 128, 64, 4, 0, 0.95},
                           {32, 8192, 32, 8, 128, 64, 8, 0, 0.95},
                           {32, 8192, 32, 8, 128, 64, 16, 0, 0.95},
                           {4, 2048, 32, 8, 128, 64, 2048, 0, 0.5},
                           {4, 2048, 32, 8, 64, 64, 2048, 0, 0.5},
                           {1, 8192, 32, 8, 128, 64, 8192, 0, 0.5}});
}
std::vector<Row> page_major(const Context &context) {
  return rows_of(context, {{32, 8192, 32, 8, 128, 16, 1, 0, 1.0},
                           {32, 8192, 32, 8, 128, 16, 1, 0, 1.0, 32},
                           {32, 8192, 32, 8, 128, 64, 1, 0, 1.0},
                           {32, 8192, 32, 8, 128, 64, 1, 0, 1.0, 32}});
}

QUIRE_BENCHMARK("gpu/attention-decode", "decode attention at its goals' shapes", decode);
QUIRE_BENCHMARK("gpu/attention-sweep", "decode attention of many shapes", sweep);
QUIRE_BENCHMARK("gpu/attention-queries", "several query tokens a sequence, and a prompt", queries);
QUIRE_BENCHMARK("gpu/attention-layout", "one layer of a frame, or all of them", page_major);

}  // namespace
}  // namespace quire::bench
