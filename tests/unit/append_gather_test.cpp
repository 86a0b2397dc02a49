// Append and gather: where tokens land, strides, dtypes, slots and block tables, tokens that are
// nowhere.
#define BOOST_TEST_MODULE append_gather
#include <boost/test/unit_test.hpp>

#include "tests/support/kernel_fixture.h"

using namespace quire;
using namespace quire::kernels;
using namespace quire::test;

BOOST_AUTO_TEST_CASE(plain_formats_give_back_what_they_were_given) {
  auto random = make_random(31);
  const std::pair<uint32_t, DType> formats[] = {{QUIRE_FORMAT_F32, DType::kF32},
                                                {QUIRE_FORMAT_F16, DType::kF16},
                                                {QUIRE_FORMAT_BF16, DType::kBF16}};
  for (const auto &[format, type] : formats) {
    Geometry g;
    g.layers = 2;
    g.dim_k = 80;
    PageSet set(g, format, 3);
    std::vector<float> k = normal_values(set.k_size(), random),
                       v = normal_values(set.v_size(), random);
    std::vector<uint8_t> rounded(k.size() * 4);
    for (std::vector<float> *x : {&k, &v}) {  // to what the format can hold
      row_kernels().narrow(type, x->data(), rounded.data(), x->size());
      row_kernels().widen(type, rounded.data(), x->data(), x->size());
    }
    set.append_all(k.data(), v.data(), 1, false);
    std::vector<float> k2(k.size()), v2(v.size());
    set.gather_all(k2.data(), v2.data(), 1, false);
    BOOST_TEST(k == k2);
    BOOST_TEST(v == v2);
  }
}

BOOST_AUTO_TEST_CASE(slots_block_tables_and_any_split_agree) {
  auto random = make_random(32);
  Geometry g;
  PageSet set(g, QUIRE_FORMAT_NF4, 6);
  const std::vector<float> k = normal_values(set.k_size(), random),
                           v = normal_values(set.v_size(), random);
  set.append_all(k.data(), v.data(), 0, true);
  set.seal_all(set.indices());
  const int32_t table[5] = {3, -2 - 5, 0, -1, 4};
  const uint32_t n = 60;
  std::vector<int64_t> slots(n);
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t token = i + 7;  // 67 tokens of 80
    const int32_t entry = table[token / 16];
    const auto at = static_cast<int64_t>(entry_frame(entry) * 16 + token % 16);
    slots[i] = entry == -1 ? -1 : (entry_is_open(entry) ? -2 - at : at);
  }
  const size_t row = size_t{g.kv_heads} * g.dim_k;
  std::vector<float> by_slots(n * row, 7.0f), by_table(n * row, 8.0f), pieces(n * row, 9.0f);
  GatherArgs a;
  a.frames = set.frames;
  a.n = n;
  a.map.slots = slots.data();
  a.k = by_slots.data();
  gather(*set.codec, a, 0, n);
  a.map = {};
  a.map.block_table = table;
  a.map.block_table_length = 5;
  a.map.first = 7;
  a.k = by_table.data();
  gather(*set.codec, a, 0, n);
  a.k = pieces.data();
  for (uint32_t i = n; i-- > 0;) gather(*set.codec, a, i, i + 1);
  BOOST_TEST(by_slots == by_table);
  BOOST_TEST(by_slots == pieces);
  for (uint32_t i = 48 - 7; i < 64 - 7; ++i) {  // the page that is nowhere
    for (size_t d = 0; d < row; ++d) BOOST_REQUIRE_EQUAL(by_slots[i * row + d], 0.0f);
  }
  a.n = 80;  // beyond the table's end
  a.map.first = 40;
  std::vector<float> beyond(80 * row, 5.0f);
  a.k = beyond.data();
  gather(*set.codec, a, 0, 80);
  for (size_t i = 40 * row; i < beyond.size(); ++i) BOOST_REQUIRE_EQUAL(beyond[i], 0.0f);
}

BOOST_AUTO_TEST_CASE(appending_token_by_token_or_at_once_is_the_same) {
  auto random = make_random(33);
  for (const uint32_t format : all_formats()) {
    for (const bool to_open : {false, true}) {
      Geometry g;
      PageSet a(g, format, 2), b(g, format, 2);
      if (to_open && !a.has_open) continue;
      const std::vector<float> k = normal_values(a.k_size(), random),
                               v = normal_values(a.v_size(), random);
      a.append_all(k.data(), v.data(), 0, to_open);
      const std::vector<int64_t> slots = b.slots_of(to_open);
      AppendArgs args;
      args.frames = b.frames;
      args.map.slots = slots.data();
      args.n = b.tokens();
      args.k = k.data();
      args.v = v.data();
      for (uint32_t i = 0; i < args.n; ++i) append(*b.codec, args, i, i + 1);
      BOOST_TEST(a.sealed == b.sealed);
      BOOST_TEST(a.open == b.open);
    }
  }
}

BOOST_AUTO_TEST_CASE(strides_and_dtypes_are_honoured_and_skipped_tokens_left_alone) {
  auto random = make_random(34);
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    Geometry g;
    PageSet set(g, QUIRE_FORMAT_F32, 1);
    const uint32_t head = g.dim_k + 8, token = head * g.kv_heads + 24, n = 16;
    const std::vector<float> wide = normal_values(size_t{n} * token, random);
    std::vector<uint8_t> in(wide.size() * 4), out(wide.size() * 4, 0x3c);
    row_kernels().narrow(type, wide.data(), in.data(), wide.size());
    std::vector<int64_t> slots(n);
    for (uint32_t i = 0; i < n; ++i)
      slots[i] = i == 5 ? -1 : 15 - static_cast<int64_t>(i);  // backwards
    AppendArgs a;
    a.frames = set.frames;
    a.map.slots = slots.data();
    a.n = n;
    a.dtype = type;
    a.k = in.data();
    a.k_token_stride = token;
    a.k_head_stride = head;
    append(*set.codec, a, 0, n);
    GatherArgs b;
    b.frames = set.frames;
    b.map.slots = slots.data();
    b.n = n;
    b.dtype = type;
    b.k = out.data();
    b.k_token_stride = token;
    b.k_head_stride = head;
    gather(*set.codec, b, 0, n);
    const size_t bytes = dtype_bytes(type);
    for (uint32_t i = 0; i < n; ++i) {
      for (uint32_t h = 0; h < g.kv_heads; ++h) {
        const size_t at = (size_t{i} * token + size_t{h} * head) * bytes;
        if (i != 5) {
          BOOST_REQUIRE(std::memcmp(&in[at], &out[at], g.dim_k * bytes) == 0);
        } else {
          for (size_t d = 0; d < g.dim_k * bytes; ++d) BOOST_REQUIRE_EQUAL(out[at + d], 0);
        }
        BOOST_REQUIRE_EQUAL(out[at + g.dim_k * bytes],
                            0x3c);  // between the heads nothing is written
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(direct_appends_count_values_that_are_not_finite) {
  Geometry g;
  PageSet set(g, QUIRE_FORMAT_NF4, 1);
  std::vector<float> x(set.k_size(), 1.0f);
  x[5] = std::nanf("");
  x[700] = INFINITY;
  BOOST_TEST(set.append_all(x.data(), x.data(), 0, false) == 4u);
  BOOST_TEST(set.append_all(x.data(), x.data(), 0, true) == 0u);  // counted when they are sealed
}
