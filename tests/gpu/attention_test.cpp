// Attention on a GPU against the formula in double precision on the decoded pages, as the CPU's test
// does it: an error of at most 2e-3 of the output's RMS where rows see 256 tokens and more, by the kernel
// that a call takes and by the generic one. Output and workspace hold poison before each run.
#define BOOST_TEST_MODULE gpu_attention
#include <cuda_runtime_api.h>

#include <boost/test/unit_test.hpp>

#include "kernels/cuda/cuda_attention.h"
#include "kernels/cuda/cuda_codec.h"
#include "tests/support/attention_fixture.h"

using namespace quire;
using namespace quire::test;
using kernels::cuda::AttentionChoice;
using kernels::cuda::CudaCodec;

namespace {

void check_cuda(cudaError_t error) {
  BOOST_REQUIRE_MESSAGE(error == cudaSuccess, cudaGetErrorString(error));
}

class DeviceBytes {
 public:
  DeviceBytes(const void *from, size_t bytes) : bytes_(bytes) {
    check_cuda(cudaMalloc(&memory_, bytes + 256));
    if (from != nullptr) upload(from);
  }
  template <class T>
  explicit DeviceBytes(const std::vector<T> &from)
      : DeviceBytes(from.data(), from.size() * sizeof(T)) {}
  DeviceBytes(const DeviceBytes &) = delete;
  ~DeviceBytes() { cudaFree(memory_); }

  // Both wait: the default stream is not ordered with one that does not block.
  void fill(int byte) {
    check_cuda(cudaMemset(memory_, byte, bytes_));
    check_cuda(cudaStreamSynchronize(cudaStreamLegacy));
  }
  void upload(const void *from) {
    check_cuda(cudaMemcpy(memory_, from, bytes_, cudaMemcpyHostToDevice));
    check_cuda(cudaStreamSynchronize(cudaStreamLegacy));
  }
  void download(void *to) const {
    check_cuda(cudaMemcpy(to, memory_, bytes_, cudaMemcpyDeviceToHost));
  }
  template <class T>
  T *as() const {
    return static_cast<T *>(memory_);
  }

 private:
  void *memory_ = nullptr;
  size_t bytes_;
};

struct Stream {
  Stream() { check_cuda(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(handle); }
  cudaStream_t handle = nullptr;
};

// A batch whose pages, queries and results live on the device.
struct GpuBatch : AttentionBatch {
  GpuBatch(const AttentionCase &c, uint64_t seed)
      : AttentionBatch(c, seed),
        tables(nullptr, kernels::cuda::device_bytes(*set->codec)),
        sealed(set->sealed),
        open(set->open),
        device_q(q_bytes),
        out(out_bytes),
        device_lse(lse),
        device_offsets(offsets),
        lens(c.kv_lens),
        block_table(table) {
    lse_error = 1e-3;
    check_cuda(kernels::cuda::upload(*set->codec, tables.as<void>(), &codec, stream.handle));
    args = shape();
    args.frames.sealed = {sealed.as<uint8_t>(), set->frames.sealed.stride};
    if (set->has_open) args.frames.open = {open.as<uint8_t>(), set->frames.open.stride};
    args.q = device_q.as<void>();
    args.out = out.as<void>();
    args.lse = device_lse.as<float>();
    args.q_offsets = device_offsets.as<int32_t>();
    args.kv_lens = lens.as<int32_t>();
    args.block_table = block_table.as<int32_t>();
    size_t bytes = 0;
    for (const auto choice : {AttentionChoice::kBest, AttentionChoice::kPrefill}) {
      bytes = std::max(bytes, kernels::cuda::attention_workspace(codec, args, choice));
    }
    BOOST_REQUIRE(bytes > 0);
    workspace = std::make_unique<DeviceBytes>(nullptr, bytes);
    args.workspace = workspace->as<void>();
  }

  void poison() {
    out.fill(0xff);
    device_lse.fill(0xff);
    workspace->fill(0xff);
    check_cuda(cudaDeviceSynchronize());
  }
  void fetch() {
    check_cuda(cudaStreamSynchronize(stream.handle));
    out.download(out_bytes.data());
    device_lse.download(lse.data());
  }
  double run(AttentionChoice choice) {
    poison();
    check_cuda(kernels::cuda::attention_with(choice, codec, args, stream.handle));
    fetch();
    return error();
  }

  Stream stream;
  CudaCodec codec = {};
  DeviceBytes tables, sealed, open, device_q, out, device_lse, device_offsets, lens, block_table;
  std::unique_ptr<DeviceBytes> workspace;
  AttentionArgs args;
};

double worst_fast = 0, worst_generic = 0;

// The fast kernel rounds P to f16 and, unlike the pages' definition, not the decoded values. Over many
// tokens that averages out; a row that sees few gets more of it.
constexpr double kFewTokens = 4e-3;

double limit_of_fast(const AttentionCase &c) {
  bool few = c.window != 0 && c.window < 256;
  for (size_t b = 0; b < c.kv_lens.size(); ++b) {
    few = few || (c.queries[b] > 0 && c.kv_lens[b] - c.queries[b] < 256);
  }
  return few ? std::max(kFewTokens, limit_of(c.dtype)) : limit_of(c.dtype);
}

void check(const AttentionCase &c, uint64_t seed, const std::string &what) {
  GpuBatch batch(c, seed);
  const std::string kernel = kernels::cuda::attention_kernel(batch.codec, batch.args);
  for (const auto choice :
       {AttentionChoice::kBest, AttentionChoice::kGeneric, AttentionChoice::kPrefill}) {
    if (choice == AttentionChoice::kBest && kernel == "generic") continue;
    const double error = batch.run(choice);
    const std::string name = choice == AttentionChoice::kBest      ? kernel
                             : choice == AttentionChoice::kGeneric ? "generic"
                                                                   : "prefill";
    double limit = name == "fast" ? limit_of_fast(c) : limit_of(c.dtype);
    if (name == "prefill") limit = std::max(limit, kFewTokens);  // it rounds K and V once more
    BOOST_TEST(error <= limit, what << " by " << name << ": error " << error);
    double &worst = choice == AttentionChoice::kBest ? worst_fast : worst_generic;
    if (c.dtype == DType::kF32) worst = std::max(worst, error);
  }
}

struct NeedsGpu {
  NeedsGpu() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) return;
    std::printf("SKIPPED: no CUDA device\n");
    std::exit(77);
  }
  ~NeedsGpu() {
    std::printf("largest error of an fp32 output, of its RMS: fast %.2e, generic %.2e\n",
                worst_fast, worst_generic);
  }
};

}  // namespace

BOOST_TEST_GLOBAL_FIXTURE(NeedsGpu);

BOOST_AUTO_TEST_CASE(every_format_and_head_dim) {
  uint64_t seed = 100;
  for (const uint32_t format : all_formats()) {
    for (const uint32_t dim : {8u, 16u, 40u, 64u, 80u, 96u, 128u, 256u}) {
      AttentionCase c;
      c.format = format;
      c.geometry.dim_k = c.geometry.dim_v = dim;
      c.geometry.layers = 2;
      c.kv_lens = {75, 16, 400};
      c.queries = {1, 2, 1};
      c.q_heads = 4;
      c.open_every = seed % 2 == 0 ? 3 : 0;
      check(c, seed++, std::string(quire_format_name(format)) + " dim " + std::to_string(dim));
    }
  }
}

BOOST_AUTO_TEST_CASE(pages_of_all_sizes) {
  uint64_t seed = 150;
  for (const uint32_t page : {8u, 16u, 24u, 32u, 48u, 64u, 128u}) {
    for (const uint32_t dim : {64u, 128u, 256u}) {
      AttentionCase c;
      c.geometry.page_tokens = page;
      c.geometry.dim_k = c.geometry.dim_v = dim;
      c.kv_lens = {1, 700, 333};
      c.queries = {1, 1, 1};
      c.q_heads = 8;
      c.open_every = seed % 3 == 0 ? 4 : 0;
      c.anchors = seed % 2 == 0;
      if (c.anchors) c.scale = 0.01f;
      check(c, seed++, "page " + std::to_string(page) + " dim " + std::to_string(dim));
    }
  }
}

BOOST_AUTO_TEST_CASE(anchored_keys_give_the_true_logits) {
  uint64_t seed = 200;
  for (const uint32_t format : {QUIRE_FORMAT_NF4, QUIRE_FORMAT_NF4_DQ64, QUIRE_FORMAT_K8V4}) {
    for (const bool interleaved : {false, true}) {
      for (const uint32_t rotary : {0u, 24u, 64u}) {
        AttentionCase c;
        c.format = format;
        c.geometry.dim_k = c.geometry.dim_v = seed % 4 < 2 ? 128 : 64;
        c.geometry.interleaved = interleaved;
        c.geometry.rotary = rotary;
        c.anchors = true;
        c.kv_lens = {100, 33, 517};
        c.queries = {1, 3, 1};
        c.q_heads = 6;
        c.scale = 0.02f;
        c.open_every = 4;
        c.soft_cap = seed % 2 == 0 ? 20.0f : 0.0f;
        check(c, seed++, "anchored");
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(any_ratio_of_heads_and_one_to_eight_queries) {
  const std::pair<uint32_t, uint32_t> heads[] = {{8, 1}, {8, 8},  {28, 4}, {16, 2},
                                                 {3, 1}, {64, 1}, {5, 5}};
  uint64_t seed = 300;
  for (const auto &[q, kv] : heads) {
    for (int32_t n = 1; n <= 8; ++n) {
      AttentionCase c;
      c.geometry.kv_heads = kv;
      c.geometry.dim_k = c.geometry.dim_v = 128;
      c.q_heads = q;
      c.queries = {n, 1, 9 - n};
      c.kv_lens = {40 + n, 17, 60};
      c.open_every = 2;
      check(c, seed++,
            std::to_string(q) + "/" + std::to_string(kv) + " heads, " + std::to_string(n) +
                " queries");
    }
  }
}

BOOST_AUTO_TEST_CASE(prompts_of_many_query_tokens) {
  uint64_t seed = 350;
  for (const uint32_t format : {QUIRE_FORMAT_NF4, QUIRE_FORMAT_F16}) {
    AttentionCase c;
    c.format = format;
    c.geometry.dim_k = c.geometry.dim_v = 128;
    c.q_heads = 8;
    c.queries = {150, 1, 64};
    c.kv_lens = {150, 300, 200};
    c.open_every = 5;
    check(c, seed++, "prompts");
  }
}

BOOST_AUTO_TEST_CASE(chunks_of_prompts_behind_what_is_cached) {
  uint64_t seed = 380;
  for (const uint32_t format : {QUIRE_FORMAT_NF4, QUIRE_FORMAT_F16, QUIRE_FORMAT_K8V4}) {
    for (const uint32_t dim : {64u, 128u}) {
      AttentionCase c;
      c.format = format;
      c.geometry.dim_k = c.geometry.dim_v = dim;
      c.geometry.page_tokens = seed % 2 == 0 ? 16 : 48;
      c.q_heads = 6;
      c.queries = {70, 3, 160, 1};
      c.kv_lens = {1200, 900, 160, 0};
      c.open_every = seed % 3 == 0 ? 1 : 7;
      c.window = seed % 4 == 1 ? 300 : 0;
      c.anchors = format != QUIRE_FORMAT_F16 && seed % 2 == 0;
      if (c.anchors) c.scale = 0.01f;
      check(c, seed++, "chunk");
    }
  }
}

BOOST_AUTO_TEST_CASE(windows_and_soft_caps) {
  uint64_t seed = 400;
  for (const uint32_t window : {1u, 7u, 16u, 17u, 64u, 1000u}) {
    for (const float cap : {0.0f, 1.5f, 30.0f}) {
      AttentionCase c;
      c.window = window;
      c.soft_cap = cap;
      c.kv_lens = {90, 5, 333};
      c.queries = {4, 2, 1};
      c.open_every = 3;
      check(c, seed++, "window " + std::to_string(window));
    }
  }
}

BOOST_AUTO_TEST_CASE(empty_sequences_and_queries_that_see_nothing) {
  AttentionCase c;
  c.kv_lens = {0, 2, 0, 30};
  c.queries = {1, 5, 0, 2};  // of five queries and two tokens, the first three see none
  check(c, 500, "empty");
  c.format = QUIRE_FORMAT_F32;
  check(c, 501, "empty f32");
}

BOOST_AUTO_TEST_CASE(long_sequences_are_shared_and_merged) {
  uint64_t seed = 600;
  for (const uint32_t page_tokens : {16u, 64u, 24u}) {
    AttentionCase c;
    c.geometry.page_tokens = page_tokens;
    c.geometry.kv_heads = 1;
    c.geometry.dim_k = c.geometry.dim_v = 128;
    c.q_heads = 4;
    c.kv_lens = {20000, 0, 1500, 3};
    c.queries = {2, 1, 1, 2};
    c.open_every = 50;
    c.window = seed % 2 == 1 ? 2500 : 0;
    c.anchors = page_tokens == 64;
    if (c.anchors) c.scale = 0.01f;
    check(c, seed++, "long");
    c.max_kv = 70000;  // bounds above what is there
    check(c, seed++, "long, loose bounds");
  }
}

BOOST_AUTO_TEST_CASE(rows_that_see_many_tokens_keep_the_goal) {
  uint64_t seed = 650;
  for (const uint32_t format :
       {QUIRE_FORMAT_NF4, QUIRE_FORMAT_NF4_DQ64, QUIRE_FORMAT_K8V4, QUIRE_FORMAT_F16}) {
    for (const int32_t queries : {1, 4, 8}) {
      AttentionCase c;
      c.format = format;
      c.geometry.dim_k = c.geometry.dim_v = 128;
      c.geometry.page_tokens = seed % 2 == 0 ? 16 : 64;
      c.q_heads = 8;
      c.kv_lens = {1000, 2049, 777, 1300};
      c.queries = {queries, queries, queries, queries};
      c.open_every = 40;
      c.anchors = format != QUIRE_FORMAT_F16 && seed % 3 == 0;
      if (c.anchors) c.scale = 0.01f;
      check(c, seed++, std::string(quire_format_name(format)) + ", many tokens");
    }
  }
}

BOOST_AUTO_TEST_CASE(half_precision_in_and_out_with_strides) {
  uint64_t seed = 700;
  for (const DType type : {DType::kF16, DType::kBF16, DType::kF32}) {
    for (const uint32_t dim_v : {96u, 64u}) {
      AttentionCase c;
      c.dtype = type;
      c.padded = true;
      c.geometry.dim_v = dim_v;
      c.queries = {3, 1};
      c.kv_lens = {70, 9};
      c.q_heads = 4;
      c.open_every = 2;
      check(c, seed++, "dtype");
    }
  }
}

BOOST_AUTO_TEST_CASE(pages_that_are_not_resident_read_as_absent) {
  for (const uint32_t dim : {64u, 72u}) {
    AttentionCase c;
    c.geometry.dim_k = c.geometry.dim_v = dim;
    c.kv_lens = {100};
    c.queries = {1};
    GpuBatch batch(c, 800);
    batch.table[1] = -1;
    batch.table[4] = -1;
    batch.block_table.upload(batch.table.data());
    BOOST_TEST(batch.run(AttentionChoice::kBest) <= kFewTokens);
    BOOST_TEST(batch.run(AttentionChoice::kGeneric) <= kMaxError);
  }
}

BOOST_AUTO_TEST_CASE(a_graph_serves_other_lengths) {
  for (const uint32_t dim : {128u, 40u}) {
    AttentionCase c;
    c.geometry.dim_k = c.geometry.dim_v = dim;
    c.kv_lens = {700, 90, 333, 16};
    c.queries = {1, 1, 1, 1};
    c.q_heads = 8;
    GpuBatch batch(c, 850);
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    check_cuda(cudaStreamBeginCapture(batch.stream.handle, cudaStreamCaptureModeThreadLocal));
    check_cuda(kernels::cuda::attention(batch.codec, batch.args, batch.stream.handle));
    check_cuda(cudaStreamEndCapture(batch.stream.handle, &graph));
    check_cuda(cudaGraphInstantiate(&exec, graph, 0));
    const std::vector<std::vector<int32_t>> all = {
        {700, 90, 333, 16}, {1, 0, 17, 16}, {699, 1, 2, 3}};
    for (const std::vector<int32_t> &now : all) {
      batch.test.kv_lens = now;
      batch.lens.upload(now.data());
      batch.poison();
      check_cuda(cudaGraphLaunch(exec, batch.stream.handle));
      batch.fetch();
      BOOST_TEST(batch.error() <= kFewTokens);
    }
    check_cuda(cudaGraphExecDestroy(exec));
    check_cuda(cudaGraphDestroy(graph));
  }
}

BOOST_AUTO_TEST_CASE(random_shapes) {
  auto random = make_random(900);
  const auto pick = [&](std::initializer_list<uint32_t> list) {
    return *(list.begin() + static_cast<ptrdiff_t>(random() % list.size()));
  };
  for (uint64_t i = 0; i < 80; ++i) {
    AttentionCase c;
    c.format =
        i % 2 == 0 ? uint32_t{QUIRE_FORMAT_NF4} : all_formats()[random() % all_formats().size()];
    c.geometry.dim_k = pick({64, 128, 72, 32, 256});
    c.geometry.dim_v = pick({0, 0, 0, 128, 80, 16});
    if (c.geometry.dim_v == 0) c.geometry.dim_v = c.geometry.dim_k;
    c.geometry.kv_heads = pick({1, 2, 3});
    c.geometry.page_tokens = pick({8, 16, 32, 64, 128});
    c.q_heads = c.geometry.kv_heads * pick({1, 2, 4, 7, 9});
    c.open_every = pick({0, 1, 2, 5});
    c.window = pick({0, 0, 10, 100});
    c.soft_cap = static_cast<float>(pick({0, 0, 15}));
    c.anchors = c.format <= QUIRE_FORMAT_NF4_DQ64 && pick({0, 1}) == 1;
    if (c.anchors) c.scale = 0.01f;
    c.kv_lens.clear();
    c.queries.clear();
    for (uint32_t b = pick({1, 2, 4, 40}); b > 0; --b) {
      c.kv_lens.push_back(static_cast<int32_t>(random() % 200));
      c.queries.push_back(static_cast<int32_t>(random() % 5));
    }
    check(c, 1000 + i, "random shape " + std::to_string(i));
  }
}
