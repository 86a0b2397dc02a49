// Attention's tests, whatever runs it: a batch of sequences with pages of both kinds, and the formula
// in double precision on what these pages decode to.
#pragma once

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <limits>
#include <memory>
#include <numeric>

#include "tests/support/kernel_fixture.h"

namespace quire::test {

using namespace quire::kernels;

inline constexpr double kMaxError = 2e-3;  // of the output's RMS
inline constexpr float kInf = std::numeric_limits<float>::infinity();

struct AttentionCase {
  uint32_t format = QUIRE_FORMAT_NF4;
  Geometry geometry;
  uint32_t q_heads = 2;
  std::vector<int32_t> kv_lens = {20};
  std::vector<int32_t> queries = {1};
  uint32_t window = 0;
  float soft_cap = 0, scale = 0;
  DType dtype = DType::kF32;
  bool anchors = false;
  bool padded = false;      // strides longer than dense
  uint32_t open_every = 0;  // every n-th page is open, besides each sequence's last; 0: none is
  uint64_t max_kv = 0;      // bound; 0: the longest
};

// A batch with its pages, and the plain K and V that they decode to.
struct AttentionBatch {
  AttentionBatch(const AttentionCase &c, uint64_t seed) : test(c), random(make_random(seed)) {
    const uint32_t t = c.geometry.page_tokens;
    for (const int32_t len : c.kv_lens)
      longest = std::max(longest, (static_cast<uint32_t>(len) + t - 1) / t);
    uint32_t pages = 1;
    for (const int32_t len : c.kv_lens) pages += (static_cast<uint32_t>(len) + t - 1) / t;
    set = std::make_unique<PageSet>(c.geometry, c.format, pages);
    lay_out(pages);
    fill();
    make_queries();
  }

  void lay_out(uint32_t pages) {
    std::vector<int32_t> order(pages);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    table.assign(test.kv_lens.size() * longest, -1);
    page_index.assign(pages, 0);
    const uint32_t t = test.geometry.page_tokens;
    for (size_t b = 0, next = 0; b < test.kv_lens.size(); ++b) {
      const uint32_t n = (static_cast<uint32_t>(test.kv_lens[b]) + t - 1) / t;
      for (uint32_t p = 0; p < n; ++p, ++next) {
        const int32_t frame = order[next];
        page_index[static_cast<size_t>(frame)] = p;
        const bool open =
            set->has_open && test.open_every != 0 && (p % test.open_every == 0 || p + 1 == n);
        table[b * longest + p] = open ? -2 - frame : frame;
      }
    }
  }

  void fill() {
    const Geometry &g = test.geometry;
    std::vector<float> k = normal_values(set->k_size(), random),
                       v = normal_values(set->v_size(), random);
    const std::vector<float> means = normal_values(size_t{g.kv_heads} * g.dim_k, random, 10);
    for (uint32_t layer = 0; layer < g.layers; ++layer) {
      if (test.anchors) BOOST_REQUIRE(set_anchor(*set->codec, layer, means.data()));
    }
    if (test.anchors) {  // keys as a model with large constant channels makes them
      const size_t page = size_t{g.page_tokens} * g.kv_heads * g.dim_k;
      for (size_t p = 0; p < page_index.size(); ++p) {
        std::vector<float> one(k.begin() + static_cast<ptrdiff_t>(p * page),
                               k.begin() + static_cast<ptrdiff_t>((p + 1) * page));
        add_turned_mean(*set, means, uint64_t{page_index[p]} * g.page_tokens, &one);
        std::copy(one.begin(), one.end(), k.begin() + static_cast<ptrdiff_t>(p * page));
      }
    }
    set->append_all(k.data(), v.data(), g.layers - 1, set->has_open);
    if (set->has_open) set->seal_all(page_index);
    sealed_k.resize(k.size());
    sealed_v.resize(v.size());
    set->gather_all(sealed_k.data(), sealed_v.data(), g.layers - 1, false);
    open_k = k;
    open_v = v;
    if (set->has_open) set->gather_all(open_k.data(), open_v.data(), g.layers - 1, true);
  }

  void make_queries() {
    offsets.assign(1, 0);
    for (const int32_t n : test.queries) offsets.push_back(offsets.back() + n);
    tokens = static_cast<size_t>(offsets.back());
    const uint32_t pad = test.padded ? 8 : 0;
    q_head = test.geometry.dim_k + pad;
    out_head = test.geometry.dim_v + pad;
    const std::vector<float> wide = normal_values(tokens * test.q_heads * q_head, random);
    q_bytes.resize(wide.size() * 4);
    row_kernels().narrow(test.dtype, wide.data(), q_bytes.data(), wide.size());
    q.resize(wide.size());
    row_kernels().widen(test.dtype, q_bytes.data(), q.data(), wide.size());
    out_bytes.assign(tokens * test.q_heads * out_head * 4, 0xcc);
    lse.assign(tokens * test.q_heads, 12345.0f);
  }

  // Everything but frames and pointers, which are the caller's: of this memory, or of a device's.
  AttentionArgs shape() const {
    AttentionArgs a;
    a.layer = test.geometry.layers - 1;
    a.batch = static_cast<uint32_t>(test.kv_lens.size());
    a.q_heads = test.q_heads;
    a.q_dtype = a.out_dtype = test.dtype;
    if (test.padded) {
      a.q_head_stride = q_head;
      a.q_token_stride = int64_t{q_head} * test.q_heads;
      a.out_head_stride = out_head;
      a.out_token_stride = int64_t{out_head} * test.q_heads;
    }
    a.scale = test.scale;
    a.soft_cap = test.soft_cap;
    a.window = test.window;
    a.block_table_stride = longest;
    a.max_kv = test.max_kv != 0 ? test.max_kv : uint64_t{longest} * test.geometry.page_tokens;
    a.max_q = static_cast<uint32_t>(tokens);
    return a;
  }

  // One row by the formula.
  double reference(uint32_t b, int32_t query, uint32_t head, std::vector<double> *row) const {
    const Geometry &g = test.geometry;
    const uint32_t kv_head = head / (test.q_heads / g.kv_heads);
    const float *qr =
        q.data() + (static_cast<size_t>(offsets[b] + query) * test.q_heads + head) * q_head;
    const int64_t to = int64_t{test.kv_lens[b]} - test.queries[b] + query + 1;
    const int64_t from = test.window == 0 ? 0 : std::max<int64_t>(0, to - test.window);
    const double scale =
        test.scale != 0 ? static_cast<double>(test.scale) : 1 / std::sqrt(double{1} * g.dim_k);
    std::vector<double> logits;
    std::vector<const float *> values;
    for (int64_t t = from; t < to; ++t) {
      const int32_t entry = table[b * longest + static_cast<size_t>(t / g.page_tokens)];
      if (entry == -1) continue;
      const bool open = entry_is_open(entry);
      const size_t token =
          entry_frame(entry) * g.page_tokens + static_cast<size_t>(t % g.page_tokens);
      const size_t at = token * g.kv_heads + kv_head;
      const float *k = (open ? open_k : sealed_k).data() + at * g.dim_k;
      double dot = 0;
      for (uint32_t d = 0; d < g.dim_k; ++d)
        dot += static_cast<double>(qr[d]) * static_cast<double>(k[d]);
      double logit = dot * scale;
      const auto cap = static_cast<double>(test.soft_cap);
      if (cap != 0) logit = cap * std::tanh(logit / cap);
      logits.push_back(logit);
      values.push_back((open ? open_v : sealed_v).data() + at * g.dim_v);
    }
    row->assign(g.dim_v, 0);
    if (logits.empty()) return -std::numeric_limits<double>::infinity();
    const double peak = *std::max_element(logits.begin(), logits.end());
    double weight = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double p = std::exp(logits[i] - peak);
      weight += p;
      for (uint32_t d = 0; d < g.dim_v; ++d) (*row)[d] += p * static_cast<double>(values[i][d]);
    }
    for (double &x : *row) x /= weight;
    return peak + std::log(weight);
  }

  // Largest error over RMS of the output, or of its own row where that is larger (rows that see few
  // tokens average less); checks the lse on the way.
  double error() const {
    const uint32_t dim = test.geometry.dim_v;
    std::vector<float> out(out_bytes.size() / 4);
    row_kernels().widen(test.dtype, out_bytes.data(), out.data(), out.size());
    double squares = 0;
    size_t values = 0;
    std::vector<double> row;
    std::vector<std::pair<double, double>> rows;  // largest error, mean square
    for (uint32_t b = 0; b < test.kv_lens.size(); ++b) {
      for (int32_t i = 0; i < test.queries[b]; ++i) {
        for (uint32_t h = 0; h < test.q_heads; ++h) {
          const double want = reference(b, i, h, &row);
          const size_t at = static_cast<size_t>(offsets[b] + i) * test.q_heads + h;
          const auto got = static_cast<double>(lse[at]);
          if (std::isinf(want)) {
            BOOST_REQUIRE_EQUAL(lse[at], -kInf);
          } else {
            BOOST_REQUIRE_SMALL(got - want, lse_error * std::max(1.0, std::abs(want)));
          }
          double worst = 0, own = 0;
          for (uint32_t d = 0; d < dim; ++d) {
            const auto x = static_cast<double>(out[at * out_head + d]);
            if (std::isinf(want)) BOOST_REQUIRE_EQUAL(x, 0.0);
            worst = std::max(worst, std::abs(x - row[d]));
            BOOST_REQUIRE(std::isfinite(x));
            own += row[d] * row[d];
          }
          rows.emplace_back(worst, own / dim);
          squares += own;
          values += dim;
        }
      }
    }
    const double mean = values == 0 ? 0 : squares / static_cast<double>(values);
    double largest = 0;
    for (const auto &[worst, own] : rows) {
      const double scale = std::sqrt(std::max(own, mean));
      largest = std::max(largest, scale == 0 ? worst : worst / scale);
    }
    return largest;
  }

  AttentionCase test;
  double lse_error = 2e-4;  // allowed, of max(1, |lse|)
  std::mt19937_64 random;
  std::unique_ptr<PageSet> set;
  uint32_t longest = 0, q_head = 0, out_head = 0;
  size_t tokens = 0;
  std::vector<int32_t> table, offsets;
  std::vector<uint32_t> page_index;
  std::vector<float> sealed_k, sealed_v, open_k, open_v, q, lse;
  std::vector<uint8_t> q_bytes, out_bytes;
};

inline double limit_of(DType type) {  // what rounding the output alone may cost comes on top
  return type == DType::kF32 ? kMaxError : (type == DType::kF16 ? 4e-3 : 3e-2);
}

}  // namespace quire::test
