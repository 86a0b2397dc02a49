// A cache on the GPU against one on the CPU: the same calls give the same answers, block tables and
// bytes, and attention the same rows but for rounding; and a step of an engine that was captured into
// a graph does, replayed, what it would have done launched.
#define BOOST_TEST_MODULE gpu_cache
#define BOOST_TEST_NO_MAIN
#include "gpu/gpu_support.h"

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "tests/support/api_fixture.h"

using namespace quire::test;

namespace {

constexpr uint32_t kLayers = 2, kHeads = 2, kDim = 64, kPageTokens = 16, kQueryHeads = 4;
constexpr const char *kConfig =
    "layers=2,kv_heads=2,head_dim=64,page_tokens=16,rope_theta=10000,device_pages=48,open_pages=16,"
    "epoch_ms=none,segment=-";

// One cache, its stream, and arrays in the memory of its device.
class Side {
 public:
  Side(bool gpu, const std::string &format, const uint8_t *secret) : gpu_(gpu) {
    quire_config config;
    QUIRE_OK_OR_DIE(quire_config_init(&config));
    QUIRE_OK_OR_DIE(
        quire_config_parse(&config, (std::string(kConfig) + ",format=" + format).c_str()));
    config.device = gpu ? QUIRE_DEVICE_CUDA : QUIRE_DEVICE_CPU;
    config.secret = secret;
    config.segment = "-";
    opened = quire_open(&config, &cache);
    if (opened != QUIRE_OK) return;
    if (gpu_) {
      gpu_stream_ = std::make_unique<GpuStream>();
      stream = static_cast<cudaStream_t>(*gpu_stream_);
    } else {
      QUIRE_OK_OR_DIE(quire_cpu_stream_create(&stream));
    }
    QUIRE_OK_OR_DIE(quire_stream_add(cache, stream, 0, 0));
    QUIRE_INIT(&layout);
    QUIRE_OK_OR_DIE(quire_layout(cache, QUIRE_TIER_DEVICE, 0, &layout));
  }
  ~Side() {
    if (cache == nullptr) return;
    settle();
    BOOST_CHECK(quire_stream_remove(cache, stream) == QUIRE_OK);
    BOOST_CHECK(quire_check(cache, 0) == QUIRE_OK);
    BOOST_CHECK_MESSAGE(quire_close(cache) == QUIRE_OK, quire_last_error());
    if (!gpu_) BOOST_CHECK(quire_cpu_stream_destroy(stream) == QUIRE_OK);
    for (auto &[at, bytes] : arrays_) {
      if (gpu_) cudaFree(at);
    }
  }
  Side(const Side &) = delete;
  Side &operator=(const Side &) = delete;

  // Everything enqueued is done, and its frames are back.
  void settle() {
    for (int i = 0; i < 2; ++i) {
      if (gpu_) {
        gpu_stream_->wait();
      } else {
        QUIRE_OK_OR_DIE(quire_cpu_stream_wait(stream));
      }
      QUIRE_OK_OR_DIE(quire_step(cache));
    }
  }

  // Bytes of the device's memory; they live as long as this.
  template <class T>
  T *array(const std::vector<T> &from) {
    T *const at = array<T>(from.size());
    if (gpu_) {
      QUIRE_CUDA_OK(cudaMemcpy(at, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
      settle_default_stream();
    } else {
      std::memcpy(at, from.data(), from.size() * sizeof(T));
    }
    return at;
  }
  template <class T>
  T *array(size_t n) {
    void *at = nullptr;
    if (gpu_) {
      QUIRE_CUDA_OK(cudaMalloc(&at, n * sizeof(T)));
      QUIRE_CUDA_OK(cudaMemset(at, 0xEE, n * sizeof(T)));
      settle_default_stream();
    } else {
      host_.push_back(std::make_unique<std::byte[]>(n * sizeof(T) + 64));
      std::memset(host_.back().get(), 0xEE, n * sizeof(T) + 64);
      const auto address = reinterpret_cast<uintptr_t>(host_.back().get());
      at = reinterpret_cast<void *>((address + 63) / 64 * 64);
    }
    arrays_[at] = n * sizeof(T);
    return static_cast<T *>(at);
  }
  template <class T>
  std::vector<T> read(const T *at, size_t n) const {
    std::vector<T> out(n);
    if (gpu_) {
      QUIRE_CUDA_OK(cudaMemcpy(out.data(), at, n * sizeof(T), cudaMemcpyDeviceToHost));
    } else {
      std::memcpy(out.data(), at, n * sizeof(T));
    }
    return out;
  }

  quire_status append(uint32_t layer, const std::vector<int64_t> &slots,
                      const std::vector<uint16_t> &k, const std::vector<uint16_t> &v) {
    auto args = sized_struct<quire_append_args>();
    args.layer = layer;
    args.n = static_cast<uint32_t>(slots.size());
    args.dtype = QUIRE_F16;
    args.k = array(k);
    args.v = array(v);
    args.slots = array(slots);
    args.stream = stream;
    return quire_kv_append(cache, &args);
  }
  // K and V of all tokens of a sequence, all layers, one after the other.
  template <class T>
  std::vector<T> gather(const std::vector<int32_t> &table, uint32_t tokens, uint32_t dtype) {
    const size_t n = size_t{tokens} * kHeads * kDim;
    std::vector<T> all;
    const int32_t *const device_table = array(table);
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      auto args = sized_struct<quire_gather_args>();
      args.layer = layer;
      args.n = tokens;
      args.dtype = dtype;
      T *const k = array<T>(n);
      T *const v = array<T>(n);
      args.k = k;
      args.v = v;
      args.block_table = device_table;
      args.block_table_length = static_cast<uint32_t>(table.size());
      args.stream = stream;
      QUIRE_OK_OR_DIE(quire_kv_gather(cache, &args));
      settle();
      for (const T *rows : {k, v}) {
        const std::vector<T> part = read(rows, n);
        all.insert(all.end(), part.begin(), part.end());
      }
    }
    return all;
  }
  std::vector<int32_t> table(quire_seq seq, uint64_t *tokens) {
    uint32_t n = 0;
    QUIRE_OK_OR_DIE(quire_seq_block_table(cache, seq, nullptr, 0, &n, tokens));
    std::vector<int32_t> out(n);
    QUIRE_OK_OR_DIE(quire_seq_block_table(cache, seq, out.data(), n, &n, tokens));
    return out;
  }
  // The bytes of sealed frames.
  std::vector<uint8_t> frame(int32_t entry) {
    const auto *const at =
        static_cast<const uint8_t *>(layout.base) + static_cast<uint64_t>(entry) * layout.stride;
    return read(at, layout.layout.page_bytes);
  }

  quire_cache *cache = nullptr;
  quire_status opened = QUIRE_OK;
  quire_stream stream = nullptr;
  quire_layout_info layout;

 private:
  bool gpu_;
  std::unique_ptr<GpuStream> gpu_stream_;
  std::vector<std::unique_ptr<std::byte[]>> host_;
  std::map<void *, size_t> arrays_;
};

class Pair {
 public:
  explicit Pair(const std::string &format, uint32_t seed) : random_(seed) {
    uint8_t secret[32];
    for (uint8_t &byte : secret) byte = static_cast<uint8_t>(random_());
    for (int i = 0; i < 2; ++i) side[i] = std::make_unique<Side>(i == 1, format, secret);
  }

  // f16 values, most of them between -1 and 1.
  std::vector<uint16_t> values(size_t n) {
    std::vector<uint16_t> out(n);
    for (uint16_t &x : out) {
      const auto sign = static_cast<uint16_t>(random_() % 2 << 15);
      const auto exponent = static_cast<uint16_t>((9 + random_() % 7) << 10);
      x = static_cast<uint16_t>(sign | exponent | random_() % 1024);
    }
    return out;
  }
  uint32_t draw(uint32_t below) { return static_cast<uint32_t>(random_() % below); }
  void settle() {
    for (auto &s : side) s->settle();
  }

  // The same call on both; the same answer.
  template <class Call>
  quire_status both(const char *what, Call &&call) {
    quire_status answer[2];
    for (int i = 0; i < 2; ++i) answer[i] = call(*side[i], i);
    BOOST_TEST(answer[0] == answer[1], what << ": " << answer[0] << " on the cpu, " << answer[1]
                                            << " on the gpu: " << quire_last_error());
    settle();
    return answer[1];
  }

  // Tokens behind a sequence's, in all layers.
  void extend(const quire_seq *seq, uint32_t n, uint32_t first_token) {
    std::vector<int64_t> slots[2];
    const quire_status room = both("seq_append", [&](Side &s, int i) {
      slots[i].resize(n);
      return quire_seq_append(s.cache, seq[i], n, s.stream, slots[i].data());
    });
    if (room != QUIRE_OK) return;
    BOOST_TEST(slots[0] == slots[1], boost::test_tools::per_element());
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      const auto k = values(size_t{n} * kHeads * kDim), v = values(size_t{n} * kHeads * kDim);
      both("kv_append", [&](Side &s, int i) { return s.append(layer, slots[i], k, v); });
    }
    std::vector<uint32_t> tokens(n);
    for (uint32_t i = 0; i < n; ++i) tokens[i] = first_token + i;
    both("seq_commit", [&](Side &s, int i) {
      return quire_seq_commit(s.cache, seq[i], tokens.data(), n, s.stream);
    });
  }

  void compare(const quire_seq *seq) {
    uint64_t tokens[2];
    std::vector<int32_t> table[2];
    for (int i = 0; i < 2; ++i) table[i] = side[i]->table(seq[i], &tokens[i]);
    BOOST_TEST_REQUIRE(tokens[0] == tokens[1]);
    BOOST_TEST_REQUIRE(table[0] == table[1], boost::test_tools::per_element());
    if (tokens[0] == 0) return;
    const auto n = static_cast<uint32_t>(tokens[0]);
    // Every type, byte for byte: promise 9.
    BOOST_TEST((side[0]->gather<uint32_t>(table[0], n, QUIRE_F32) ==
                side[1]->gather<uint32_t>(table[1], n, QUIRE_F32)));
    BOOST_TEST((side[0]->gather<uint16_t>(table[0], n, QUIRE_F16) ==
                side[1]->gather<uint16_t>(table[1], n, QUIRE_F16)));
    BOOST_TEST((side[0]->gather<uint16_t>(table[0], n, QUIRE_BF16) ==
                side[1]->gather<uint16_t>(table[1], n, QUIRE_BF16)));
    for (uint32_t page = 0; page < n / kPageTokens; ++page) {
      if (table[0][page] < 0) continue;
      BOOST_TEST((side[0]->frame(table[0][page]) == side[1]->frame(table[1][page])),
                 "page " << page << " of " << n / kPageTokens);
    }
    attend(table, n);
  }

  // One sequence, two queries.
  void attend(const std::vector<int32_t> *table, uint32_t n) {
    const uint32_t queries = std::min(n, 2U);
    const auto q = values(size_t{queries} * kQueryHeads * kDim);
    std::vector<float> out[2], lse[2];
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (int i = 0; i < 2; ++i) {
        Side &s = *side[i];
        auto args = sized_struct<quire_attention_args>();
        QUIRE_INIT(&args.bounds);
        args.layer = layer;
        args.bounds.q_heads = kQueryHeads;
        args.bounds.max_batch = 1;
        args.bounds.max_q = 2;
        args.bounds.max_kv = uint64_t{kPageTokens} * table[i].size();
        args.batch = 1;
        args.q_dtype = QUIRE_F16;
        args.out_dtype = QUIRE_F32;
        args.q = s.array(q);
        float *const rows = s.array<float>(q.size());
        float *const sums = s.array<float>(size_t{queries} * kQueryHeads);
        args.out = rows;
        args.lse = sums;
        args.q_offsets = s.array(std::vector<int32_t>{0, static_cast<int32_t>(queries)});
        args.kv_lens = s.array(std::vector<int32_t>{static_cast<int32_t>(n)});
        args.block_table = s.array(table[i]);
        args.block_table_stride = static_cast<uint32_t>(table[i].size());
        QUIRE_OK_OR_DIE(quire_attention_workspace(s.cache, &args.bounds, &args.workspace_bytes));
        args.workspace = s.array<uint8_t>(args.workspace_bytes + 1);
        args.stream = s.stream;
        QUIRE_OK_OR_DIE(quire_attention_decode(s.cache, &args));
        s.settle();
        out[i] = s.read(rows, q.size());
        lse[i] = s.read(sums, size_t{queries} * kQueryHeads);
      }
      double power = 0, worst = 0;
      for (size_t i = 0; i < out[0].size(); ++i) {
        power += static_cast<double>(out[0][i]) * static_cast<double>(out[0][i]);
        worst = std::max(
            worst, std::fabs(static_cast<double>(out[0][i]) - static_cast<double>(out[1][i])));
      }
      const double rms = std::sqrt(power / static_cast<double>(out[0].size()));
      // Each is within 2e-3 of the truth (goals).
      BOOST_TEST(worst <= 4e-3 * rms, "attention: " << worst / rms << " of the rows' RMS");
      for (size_t i = 0; i < lse[0].size(); ++i)
        BOOST_TEST(std::fabs(lse[0][i] - lse[1][i]) < 1e-3f);
    }
  }

  std::unique_ptr<Side> side[2];

 private:
  std::mt19937 random_;
};

const char *const kFormats[] = {"nf4", "nf4-64", "nf4-dq64", "kc4v4", "k8v4", "f16", "bf16", "f32"};

}  // namespace

BOOST_AUTO_TEST_CASE(the_same_calls_give_the_same_bytes_on_both_devices) {
  int formats = 0;
  for (const char *format : kFormats) {
    for (uint32_t seed = 1; seed <= 3; ++seed) {
      BOOST_TEST_CONTEXT(format << ", seed " << seed) {
        Pair p(format, seed);
        BOOST_TEST_REQUIRE(p.side[0]->opened == p.side[1]->opened);
        if (p.side[0]->opened != QUIRE_OK) continue;  // not in this version
        ++formats;
        const quire_status anchored = p.both("anchor_set", [&, seed](Side &s, int) {
          std::vector<float> means(kHeads * kDim);
          for (size_t i = 0; i < means.size(); ++i) {
            means[i] = static_cast<float>((i * 7 + seed) % 13) / 3 - 2;
          }
          return quire_key_anchor_set(s.cache, 0, means.data());
        });
        BOOST_TEST((anchored == QUIRE_OK || anchored == QUIRE_E_UNSUPPORTED));
        quire_key root[2];
        p.both("root",
               [&](Side &s, int i) { return quire_root_key(s.cache, nullptr, 0, &root[i]); });

        std::vector<uint32_t> prompt(100);
        for (uint32_t i = 0; i < 100; ++i) prompt[i] = i;
        quire_seq first[2], again[2], fork[2];
        const auto open = [&](quire_seq *seq, uint32_t *hits) {
          p.both("seq_open", [&](Side &s, int i) {
            auto options = sized_struct<quire_seq_options>();
            options.stream = s.stream;
            auto hit = sized_struct<quire_hit>();
            const quire_status status = quire_seq_open(s.cache, &root[i], prompt.data(),
                                                       prompt.size(), &options, &hit, &seq[i]);
            hits[i] = hit.pages;
            return status;
          });
          BOOST_TEST(hits[0] == hits[1]);
        };
        uint32_t hits[2];
        open(first, hits);
        BOOST_TEST(hits[1] == 0u);
        p.extend(first, 70, 0);  // four pages that are sealed and found, and a part
        p.compare(first);
        p.extend(first, 1 + p.draw(20), 70);
        p.compare(first);
        open(again, hits);
        BOOST_TEST(hits[1] >= 4u);
        p.both("seq_fork", [&](Side &s, int i) {
          return quire_seq_fork(s.cache, first[i], s.stream, &fork[i]);
        });
        p.extend(fork, 1 + p.draw(30), 500);  // copies the page that is shared
        p.compare(fork);
        p.compare(first);
        const uint32_t keep = 20 + p.draw(40);  // into a sealed page
        p.both("seq_truncate", [&](Side &s, int i) {
          return quire_seq_truncate(s.cache, first[i], keep, s.stream);
        });
        p.compare(first);
        p.extend(first, 25, 900);
        p.compare(first);
        p.extend(again, 30, 96);
        p.compare(again);
        for (quire_seq *seq : {first, again, fork}) {
          p.both("seq_close",
                 [&](Side &s, int i) { return quire_seq_close(s.cache, seq[i], nullptr); });
        }
      }
    }
  }
  BOOST_TEST(formats >= 6);
}

// NaN and infinities are counted by the kernels and read without asking CUDA.
BOOST_AUTO_TEST_CASE(values_that_are_not_finite_are_counted_on_both_devices) {
  Pair p("nf4", 5);
  quire_page page[2];
  int32_t frame[2];
  p.both("alloc", [&](Side &s, int i) {
    auto options = sized_struct<quire_alloc_options>();
    options.flags = QUIRE_ALLOC_SEALED;
    options.stream = s.stream;
    const quire_status status = quire_alloc(s.cache, 1, &options, &page[i]);
    return status != QUIRE_OK ? status
                              : quire_frames(s.cache, &page[i], 1, QUIRE_TIER_DEVICE, &frame[i]);
  });
  auto k = p.values(size_t{kPageTokens} * kHeads * kDim);
  const auto v = p.values(k.size());
  k[3] = 0x7C00;   // infinity
  k[99] = 0x7E00;  // NaN
  p.both("kv_append", [&](Side &s, int i) {
    std::vector<int64_t> slots(kPageTokens);
    for (uint32_t t = 0; t < kPageTokens; ++t) slots[t] = int64_t{frame[i]} * kPageTokens + t;
    return s.append(0, slots, k, v);
  });
  for (int i = 0; i < 2; ++i) {
    auto stats = sized_struct<quire_stats>();
    QUIRE_OK_OR_DIE(quire_stats_get(p.side[i]->cache, &stats));
    BOOST_TEST(stats.nonfinite_values_total == 2u);
    QUIRE_OK_OR_DIE(quire_free(p.side[i]->cache, &page[i], 1));
  }
}

// What kernels would trip over is refused before they are launched.
BOOST_AUTO_TEST_CASE(what_the_gpu_cannot_take_is_refused) {
  Pair p("f16", 11);
  Side &s = *p.side[1];
  BOOST_TEST(s.layout.device == uint32_t{QUIRE_DEVICE_CUDA});
  quire_page page = 0;
  int32_t frame = -1;
  auto options = sized_struct<quire_alloc_options>();
  QUIRE_OK_OR_DIE(quire_alloc(s.cache, 1, &options, &page));
  QUIRE_OK_OR_DIE(quire_frames(s.cache, &page, 1, QUIRE_TIER_DEVICE, &frame));
  auto args = sized_struct<quire_append_args>();
  const size_t n = size_t{kPageTokens} * kHeads * kDim;
  const uint16_t *const rows = s.array(p.values(n + 8));
  args.n = kPageTokens;
  args.dtype = QUIRE_F16;
  args.k = rows;
  args.v = rows;
  args.block_table = s.array(std::vector<int32_t>{frame});
  args.block_table_length = 1;
  QUIRE_FAILS(quire_kv_append(s.cache, &args), QUIRE_E_INVALID);  // no stream
  args.stream = s.stream;
  args.k = rows + 1;
  QUIRE_FAILS(quire_kv_append(s.cache, &args), QUIRE_E_INVALID);  // not aligned
  args.k = rows;
  args.v_token_stride = kHeads * kDim + 1;
  QUIRE_FAILS(quire_kv_append(s.cache, &args), QUIRE_E_INVALID);
  args.v_token_stride = 0;
  QUIRE_OK_OR_DIE(quire_kv_append(s.cache, &args));
  void *data = nullptr;
  size_t bytes = 0;
  QUIRE_FAILS(quire_page_data(s.cache, page, &data, &bytes), QUIRE_E_UNSUPPORTED);
  QUIRE_OK_OR_DIE(quire_free(s.cache, &page, 1));
}

// One decoding step, append, seal and attention, captured once and replayed on other data: what the
// graph leaves behind is what the same calls leave that are made one by one.
BOOST_AUTO_TEST_CASE(a_captured_step_does_when_replayed_what_it_does_when_launched) {
  Pair p("nf4", 9);
  Side &s = *p.side[1];
  quire_page pages[3];
  int32_t table[3];
  auto options = sized_struct<quire_alloc_options>();
  QUIRE_OK_OR_DIE(quire_alloc(s.cache, 3, &options, pages));
  QUIRE_OK_OR_DIE(quire_frames(s.cache, pages, 3, QUIRE_TIER_DEVICE, table));
  const size_t n = size_t{kPageTokens} * kHeads * kDim;
  uint16_t *const k = s.array<uint16_t>(n);
  uint16_t *const v = s.array<uint16_t>(n);
  const auto q = p.values(size_t{kQueryHeads} * kDim);
  uint16_t *const device_q = s.array(q);
  float *const out = s.array<float>(q.size());
  const int32_t *const lens = s.array(std::vector<int32_t>{static_cast<int32_t>(kPageTokens)});
  const int32_t *const offsets = s.array(std::vector<int32_t>{0, 1});
  int32_t *const device_table = s.array(std::vector<int32_t>{table[0]});
  auto attention = sized_struct<quire_attention_args>();
  QUIRE_INIT(&attention.bounds);
  attention.bounds.q_heads = kQueryHeads;
  attention.bounds.max_batch = 1;
  attention.bounds.max_q = 1;
  attention.bounds.max_kv = kPageTokens;
  QUIRE_OK_OR_DIE(
      quire_attention_workspace(s.cache, &attention.bounds, &attention.workspace_bytes));
  attention.workspace = s.array<uint8_t>(attention.workspace_bytes + 1);
  attention.batch = 1;
  attention.q_dtype = QUIRE_F16;
  attention.out_dtype = QUIRE_F32;
  attention.q = device_q;
  attention.out = out;
  attention.q_offsets = offsets;
  attention.kv_lens = lens;
  attention.block_table = device_table;
  attention.block_table_stride = 1;
  attention.stream = s.stream;
  const auto step = [&](quire_page page) {
    auto append = sized_struct<quire_append_args>();
    append.n = kPageTokens;
    append.dtype = QUIRE_F16;
    append.k = k;
    append.v = v;
    append.block_table = device_table;
    append.block_table_length = 1;
    append.stream = s.stream;
    QUIRE_OK_OR_DIE(quire_kv_append(s.cache, &append));
    QUIRE_OK_OR_DIE(quire_attention_decode(s.cache, &attention));
    if (page != 0) QUIRE_OK_OR_DIE(quire_seal(s.cache, &page, 1, s.stream));
  };
  const auto give = [&](const std::vector<uint16_t> &keys, const std::vector<uint16_t> &rows,
                        int32_t entry) {
    QUIRE_CUDA_OK(cudaMemcpy(k, keys.data(), n * 2, cudaMemcpyHostToDevice));
    QUIRE_CUDA_OK(cudaMemcpy(v, rows.data(), n * 2, cudaMemcpyHostToDevice));
    QUIRE_CUDA_OK(cudaMemcpy(device_table, &entry, sizeof entry, cudaMemcpyHostToDevice));
    settle_default_stream();
  };
  const auto cuda_stream = static_cast<cudaStream_t>(s.stream);
  // Captured with the page's seal in it; replayed on three inputs.
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  QUIRE_CUDA_OK(cudaStreamBeginCapture(cuda_stream, cudaStreamCaptureModeGlobal));
  step(pages[0]);
  QUIRE_CUDA_OK(cudaStreamEndCapture(cuda_stream, &graph));
  QUIRE_CUDA_OK(cudaGraphInstantiate(&replay, graph, 0));
  int32_t sealed = -1;
  QUIRE_OK_OR_DIE(quire_frames(s.cache, pages, 1, QUIRE_TIER_DEVICE, &sealed));
  BOOST_TEST_REQUIRE(sealed >= 0);
  for (int round = 0; round < 3; ++round) {
    const auto keys = p.values(n), rows = p.values(n);
    // The graph writes the open frame of page 0, whose number its inputs name, and seals that.
    give(keys, rows, table[0]);
    QUIRE_CUDA_OK(cudaGraphLaunch(replay, cuda_stream));
    QUIRE_CUDA_OK(cudaStreamSynchronize(cuda_stream));
    const std::vector<float> replayed = s.read(out, q.size());
    const std::vector<uint8_t> encoded = s.frame(sealed);
    give(keys, rows, table[1]);
    QUIRE_CUDA_OK(cudaMemset(out, 0xEE, q.size() * 4));
    settle_default_stream();
    step(0);
    QUIRE_CUDA_OK(cudaStreamSynchronize(cuda_stream));
    BOOST_TEST(replayed == s.read(out, q.size()), boost::test_tools::per_element());
    if (round != 2) continue;
    // A page's place in its chain is in its bytes: the second page is sealed as the first.
    auto first = sized_struct<quire_alloc_options>();
    first.first = 1;
    quire_page page = 0;
    int32_t entry = -1;
    QUIRE_OK_OR_DIE(quire_alloc(s.cache, 1, &first, &page));
    QUIRE_OK_OR_DIE(quire_frames(s.cache, &page, 1, QUIRE_TIER_DEVICE, &entry));
    give(keys, rows, entry);
    step(page);
    QUIRE_CUDA_OK(cudaStreamSynchronize(cuda_stream));
    QUIRE_OK_OR_DIE(quire_frames(s.cache, &page, 1, QUIRE_TIER_DEVICE, &entry));
    BOOST_TEST((s.frame(entry) == encoded));
    QUIRE_OK_OR_DIE(quire_free(s.cache, &page, 1));
  }
  QUIRE_CUDA_OK(cudaGraphExecDestroy(replay));
  QUIRE_CUDA_OK(cudaGraphDestroy(graph));
  QUIRE_OK_OR_DIE(quire_free(s.cache, pages, 3));
}

int main(int argc, char **argv) {
  return gpu_main(argc, argv);
}
