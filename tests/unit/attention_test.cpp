// Attention over pages against the formula in double precision on the decoded pages: an error of at
// most 2e-3 of the output's RMS, on every target, for ragged batches, any GQA ratio, several query
// tokens, windows, soft caps, anchors, and sealed and open pages in one block table.
#define BOOST_TEST_MODULE attention
#include <boost/test/unit_test.hpp>

#include "tests/support/attention_fixture.h"

using namespace quire;
using namespace quire::kernels;
using namespace quire::test;

namespace {

using Case = AttentionCase;

struct Batch : AttentionBatch {
  using AttentionBatch::AttentionBatch;

  void run(bool in_pieces) {
    AttentionArgs a = shape();
    a.frames = set->frames;
    a.q = q_bytes.data();
    a.out = out_bytes.data();
    a.lse = lse.data();
    a.q_offsets = offsets.data();
    a.kv_lens = test.kv_lens.data();
    a.block_table = table.data();
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
};

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
