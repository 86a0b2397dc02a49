// Attention over pages against the formula in double precision on the decoded pages: an error of at
// most 2e-3 of the output's RMS, on every target, for ragged batches, any GQA ratio, several query
// tokens, windows, soft caps, anchors, and sealed and open pages in one block table.
#define BOOST_TEST_MODULE attention
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <limits>
#include <numeric>

#include "tests/support/kernel_fixture.h"

using namespace quire;
using namespace quire::kernels;
using namespace quire::test;

namespace {

constexpr double kMaxError = 2e-3;  // of the output's RMS
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Case {
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
struct Batch {
  Batch(const Case &c, uint64_t seed) : test(c), random(make_random(seed)) {
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

  void run(bool in_pieces) {
    AttentionArgs a;
    a.frames = set->frames;
    a.layer = test.geometry.layers - 1;
    a.batch = static_cast<uint32_t>(test.kv_lens.size());
    a.q_heads = test.q_heads;
    a.q_dtype = a.out_dtype = test.dtype;
    a.q = q_bytes.data();
    a.out = out_bytes.data();
    a.lse = lse.data();
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
    a.q_offsets = offsets.data();
    a.kv_lens = test.kv_lens.data();
    a.block_table = table.data();
    a.max_kv = test.max_kv != 0 ? test.max_kv : uint64_t{longest} * test.geometry.page_tokens;
    a.max_q = static_cast<uint32_t>(tokens);
    std::vector<uint8_t> workspace(attention_workspace(*set->codec, a, 2) + 64);
    const auto at = reinterpret_cast<uintptr_t>(workspace.data());
    a.workspace = workspace.data() + (64 - at % 64) % 64;
    if (!in_pieces) {
      attention_all(*set->codec, a);
      return;
    }
    const uint64_t n = attention_tasks(*set->codec, a), m = attention_merge_tasks(*set->codec, a);
    for (uint64_t i = n; i-- > 0;)
      attention(*set->codec, a, i, i + 1, static_cast<uint32_t>(i % 2));
    attention_merge(*set->codec, a, m / 2, m);
    attention_merge(*set->codec, a, 0, m / 2);
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

  // Largest error over RMS of the output; checks the lse on the way.
  double error() const {
    const uint32_t dim = test.geometry.dim_v;
    std::vector<float> out(out_bytes.size() / 4);
    row_kernels().widen(test.dtype, out_bytes.data(), out.data(), out.size());
    double worst = 0, squares = 0;
    size_t values = 0;
    std::vector<double> row;
    for (uint32_t b = 0; b < test.kv_lens.size(); ++b) {
      for (int32_t i = 0; i < test.queries[b]; ++i) {
        for (uint32_t h = 0; h < test.q_heads; ++h) {
          const double want = reference(b, i, h, &row);
          const size_t at = static_cast<size_t>(offsets[b] + i) * test.q_heads + h;
          const auto got = static_cast<double>(lse[at]);
          if (std::isinf(want)) {
            BOOST_REQUIRE_EQUAL(lse[at], -kInf);
          } else {
            BOOST_REQUIRE_SMALL(got - want, 2e-4 * std::max(1.0, std::abs(want)));
          }
          for (uint32_t d = 0; d < dim; ++d) {
            const auto x = static_cast<double>(out[at * out_head + d]);
            if (std::isinf(want)) BOOST_REQUIRE_EQUAL(x, 0.0);
            worst = std::max(worst, std::abs(x - row[d]));
            BOOST_REQUIRE(std::isfinite(x));
            squares += row[d] * row[d];
            ++values;
          }
        }
      }
    }
    return squares == 0 ? worst : worst / std::sqrt(squares / static_cast<double>(values));
  }

  Case test;
  std::mt19937_64 random;
  std::unique_ptr<PageSet> set;
  uint32_t longest = 0, q_head = 0, out_head = 0;
  size_t tokens = 0;
  std::vector<int32_t> table, offsets;
  std::vector<uint32_t> page_index;
  std::vector<float> sealed_k, sealed_v, open_k, open_v, q, lse;
  std::vector<uint8_t> q_bytes, out_bytes;
};

double limit_of(DType type) {  // what rounding the output alone may cost comes on top
  return type == DType::kF32 ? kMaxError : (type == DType::kF16 ? 4e-3 : 3e-2);
}

void check(const Case &c, uint64_t seed, const std::string &what) {
  Batch batch(c, seed);
  for (const std::string &name : targets()) {
    const TargetScope scope(name);
    batch.run(seed % 2 == 1);
    const double error = batch.error();
    BOOST_TEST(error <= limit_of(c.dtype), what << " on " << name << ": error " << error);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_format_and_head_dim) {
  uint64_t seed = 100;
  for (const uint32_t format : all_formats()) {
    for (const uint32_t dim : {8u, 16u, 40u, 64u, 80u, 96u, 128u, 256u}) {
      Case c;
      c.format = format;
      c.geometry.dim_k = c.geometry.dim_v = dim;
      c.geometry.layers = 2;
      c.kv_lens = {75, 16};
      c.queries = {1, 2};
      c.q_heads = 4;
      c.open_every = seed % 2 == 0 ? 3 : 0;
      check(c, seed++, std::string(quire_format_name(format)) + " dim " + std::to_string(dim));
    }
  }
}

BOOST_AUTO_TEST_CASE(anchored_keys_give_the_true_logits) {
  uint64_t seed = 200;
  for (const uint32_t format : {QUIRE_FORMAT_NF4, QUIRE_FORMAT_NF4_DQ64, QUIRE_FORMAT_K8V4}) {
    for (const bool interleaved : {false, true}) {
      for (const uint32_t rotary : {0u, 24u, 64u}) {
        Case c;
        c.format = format;
        c.geometry.interleaved = interleaved;
        c.geometry.rotary = rotary;
        c.anchors = true;
        c.kv_lens = {100, 33};
        c.queries = {1, 3};
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
      Case c;
      c.geometry.kv_heads = kv;
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

BOOST_AUTO_TEST_CASE(windows_and_soft_caps) {
  uint64_t seed = 400;
  for (const uint32_t window : {1u, 7u, 16u, 17u, 64u, 1000u}) {
    for (const float cap : {0.0f, 1.5f, 30.0f}) {
      Case c;
      c.window = window;
      c.soft_cap = cap;
      c.kv_lens = {90, 5, 33};
      c.queries = {4, 2, 1};
      c.open_every = 3;
      check(c, seed++, "window " + std::to_string(window));
    }
  }
}

BOOST_AUTO_TEST_CASE(empty_sequences_and_queries_that_see_nothing) {
  Case c;
  c.kv_lens = {0, 2, 0, 30};
  c.queries = {1, 5, 0, 2};  // of five queries and two tokens, the first three see none
  check(c, 500, "empty");
  c.format = QUIRE_FORMAT_F32;
  check(c, 501, "empty f32");
}

BOOST_AUTO_TEST_CASE(splits_of_long_sequences_merge) {
  uint64_t seed = 600;
  for (const uint32_t page_tokens : {16u, 64u, 24u}) {
    Case c;
    c.geometry.page_tokens = page_tokens;
    c.geometry.kv_heads = 1;
    c.q_heads = 4;
    c.kv_lens = {5000, 0, 1500, 3};
    c.queries = {2, 1, 1, 2};
    c.open_every = 50;
    c.window = seed % 2 == 1 ? 2500 : 0;
    check(c, seed++, "long");
    c.max_kv = 20000;  // bounds above what is there
    check(c, seed++, "long, loose bounds");
  }
}

BOOST_AUTO_TEST_CASE(half_precision_in_and_out_with_strides) {
  uint64_t seed = 700;
  for (const DType type : {DType::kF16, DType::kBF16, DType::kF32}) {
    Case c;
    c.dtype = type;
    c.padded = true;
    c.geometry.dim_v = 96;
    c.queries = {3, 1};
    c.kv_lens = {70, 9};
    c.q_heads = 4;
    c.open_every = 2;
    check(c, seed++, "dtype");
  }
}

BOOST_AUTO_TEST_CASE(pages_that_are_not_resident_read_as_absent) {
  Case c;
  c.kv_lens = {100};
  c.queries = {1};
  Batch batch(c, 800);
  batch.table[1] = -1;
  batch.table[4] = -1;
  for (const std::string &name : targets()) {
    const TargetScope scope(name);
    batch.run(false);
    BOOST_TEST(batch.error() <= kMaxError);
  }
}

BOOST_AUTO_TEST_CASE(random_shapes) {
  auto random = make_random(900);
  const auto pick = [&](std::initializer_list<uint32_t> list) {
    return *(list.begin() + static_cast<ptrdiff_t>(random() % list.size()));
  };
  for (uint64_t i = 0; i < 60; ++i) {
    Case c;
    c.format = all_formats()[random() % all_formats().size()];
    c.geometry.dim_k = pick({64, 128, 72, 32});
    c.geometry.dim_v = pick({64, 128, 80, 16});
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
    for (uint32_t b = pick({1, 2, 4}); b > 0; --b) {
      c.kv_lens.push_back(static_cast<int32_t>(random() % 200));
      c.queries.push_back(static_cast<int32_t>(random() % 5));
    }
    check(c, 1000 + i, "random shape " + std::to_string(i));
  }
}
