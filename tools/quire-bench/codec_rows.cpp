// Rows "codec/...": what the CPU kernels do to values in the first-level cache, one thread.
//
// The contenders of a row are the targets that this machine can run; the best one is "ours", the
// others are shown beside it. A page's worth of rows (64 tokens x 128) is encoded or decoded again
// and again.
#include <cstring>
#include <string>
#include <vector>

#include "bench.h"
#include "kernels/codebook.h"
#include "kernels/rows.h"

namespace quire::bench {
namespace {

constexpr size_t kRows = 64;
constexpr uint32_t kDim = 128;
constexpr uint32_t kExponent = QUIRE_EXPONENT_BIAS + 2;

struct Input {
  quire_page_layout layout = {};
  kernels::Codebook book = {};
  std::vector<float> rows;
  std::vector<uint8_t> codes, scales;
  std::vector<uint16_t> halves;

  explicit Input(uint64_t seed) : rows(kRows * kDim), halves(kRows * kDim) {
    quire_geometry g = {};
    g.layers = g.kv_heads = 1;
    g.head_dim_k = g.head_dim_v = kDim;
    g.page_tokens = kRows;
    quire_page_layout_init(&layout, &g, QUIRE_FORMAT_NF4, 0);
    kernels::make_codebook(kernels::kNf4Values, &book);
    Random random(seed);
    for (float &x : rows) {  // a sum of four uniform values: near enough to normal
      x = 0;
      for (int i = 0; i < 4; ++i) x += static_cast<float>(random.below(65536)) / 32768.0f - 1.0f;
    }
    codes.resize(kRows * layout.k.row_bytes);
    scales.resize(kRows * layout.k.blocks);
    kernels::row_kernels().encode(layout.v, book, rows.data(), kRows, kExponent, true, codes.data(),
                                  scales.data());
  }
};

// G values/s of one round of `repeats` pages.
template <class Work>
double rate(unsigned repeats, const Work &work) {
  const Stopwatch watch;
  for (unsigned i = 0; i < repeats; ++i) {
    work();
    clobber_memory();
  }
  return static_cast<double>(repeats) * kRows * kDim / watch.ns();
}

// One contender a target; work(row kernels, input).
template <class Work>
std::vector<Row> by_target(const Context &context, const std::string &name, Goal goal, Work work) {
  Input input(context.seed);
  const std::string active = kernels::active_target();
  const char *names[8];
  const size_t n = kernels::usable_targets(names, 8);
  std::vector<Contender> contenders;
  for (size_t i = 0; i < n; ++i) {
    kernels::select_target(names[i]);
    const kernels::RowKernels *rk = &kernels::row_kernels();
    const unsigned repeats = std::strcmp(names[i], "scalar") == 0 ? 4 : (context.quick ? 50 : 500);
    contenders.push_back(
        {names[i], [=, &input] { return rate(repeats, [&] { work(*rk, input); }); }});
  }
  kernels::select_target(active.c_str());
  const std::vector<Measure> measures = interleave(context, contenders);
  Row row{name + ", " + names[0], "G values/s", goal, measures[0], {}, "64 x 128 values in cache"};
  for (size_t i = 1; i < n; ++i) row.peers.push_back(Peer{names[i], measures[i]});
  return {row};
}

Goal decode_goal() {
  const char *best = nullptr;
  kernels::usable_targets(&best, 1);
  if (std::strcmp(best, "avx512") == 0) return at_least(40);
  return std::strcmp(best, "avx2") == 0 ? at_least(25) : report_higher();
}

std::vector<Row> decode_values(const Context &context) {
  return by_target(context, "decode NF4 values to f16", decode_goal(),
                   [](const kernels::RowKernels &rk, Input &in) {
                     rk.decode(in.layout.v, in.book, in.codes.data(), in.scales.data(), kRows,
                               kExponent, in.halves.data());
                   });
}

std::vector<Row> decode_keys(const Context &context) {
  return by_target(context, "decode NF4 keys (stored by quarter blocks) to f16", decode_goal(),
                   [](const kernels::RowKernels &rk, Input &in) {
                     rk.decode(in.layout.k, in.book, in.codes.data(), in.scales.data(), kRows,
                               kExponent, in.halves.data());
                   });
}

std::vector<Row> encode_fast(const Context &context) {
  return by_target(context, "encode NF4, sign tried", at_least(4),
                   [](const kernels::RowKernels &rk, Input &in) {
                     rk.encode(in.layout.v, in.book, in.rows.data(), kRows, kExponent, false,
                               in.codes.data(), in.scales.data());
                   });
}

std::vector<Row> encode_searched(const Context &context) {
  return by_target(context, "encode NF4, 4 factors x 2 signs searched", report_higher(),
                   [](const kernels::RowKernels &rk, Input &in) {
                     rk.encode(in.layout.v, in.book, in.rows.data(), kRows, kExponent, true,
                               in.codes.data(), in.scales.data());
                   });
}

std::vector<Row> rotate_rows(const Context &context) {
  return by_target(context, "Hadamard rotation of 128", report_higher(),
                   [](const kernels::RowKernels &rk, Input &in) {
                     std::vector<float> &x = in.rows;
                     rk.rotate(x.data(), x.size(), kDim, 4);
                     rk.rotate(x.data(), x.size(), kDim, 3);  // back to where it was
                   });
}

QUIRE_BENCHMARK("codec/decode-values", "NF4 to f16 in cache", decode_values);
QUIRE_BENCHMARK("codec/decode-keys", "NF4 keys to f16 in cache", decode_keys);
QUIRE_BENCHMARK("codec/encode-fast", "fp32 to NF4, one candidate scale and its sign", encode_fast);
QUIRE_BENCHMARK("codec/encode-searched", "fp32 to NF4, eight candidates", encode_searched);
QUIRE_BENCHMARK("codec/rotate", "two rotations, there and back", rotate_rows);

}  // namespace
}  // namespace quire::bench
