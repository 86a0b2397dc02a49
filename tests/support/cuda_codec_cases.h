// Cases for the CUDA codec: the same work done by the scalar target on host memory and by the
// CUDA calls on a backend's memory (a GPU's, or the emulator's), then compared byte for byte.
//
// Both sides start from the same poisoned frames and outputs, so whole pages are compared: bytes
// that only one side writes are found too. The scalar side gets its pages from init_page, the other
// has to write headers and statistics by itself. Values of rotated rows that overflowed may be any
// NaN; nothing else may differ.
#pragma once

#include <boost/test/unit_test.hpp>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_codec.h"
#include "kernels/page_checksum.h"
#include "tests/support/kernel_fixture.h"

namespace quire::test {

// Memory that the kernels work on, and how bytes get there.
struct Backend {
  virtual ~Backend() = default;
  virtual void *allocate(size_t bytes) = 0;  // 256-aligned; freed with the backend
  virtual void up(void *to, const void *from, size_t bytes) = 0;
  virtual void down(void *to, const void *from, size_t bytes) = 0;
  virtual void check(const char *what) = 0;  // that all work so far succeeded
};

struct Case {
  Geometry geometry;
  uint32_t format = QUIRE_FORMAT_NF4;
  uint32_t pages = 3;
  kernels::DType dtype = kernels::DType::kF16;
  bool search = false;
  bool hard = true;      // rows with NaN, infinities, subnormals, zeros among them
  bool strided = false;  // rows of tokens lie apart
  uint32_t tokens = 0;   // of a seal; 0: all
  const float *codebook = nullptr;
};

inline std::string name_of(const Case &c) {
  const Geometry &g = c.geometry;
  return std::string(quire_format_name(c.format)) + " " + std::to_string(g.dim_k) + "/" +
         std::to_string(g.dim_v) + " heads " + std::to_string(g.kv_heads) + " page " +
         std::to_string(g.page_tokens) + " rotary " + std::to_string(g.rotary) +
         (g.interleaved ? " interleaved" : "") + " type " +
         std::to_string(static_cast<unsigned>(c.dtype)) + (c.search ? " searched" : "") +
         (c.strided ? " strided" : "") + " tokens " + std::to_string(c.tokens);
}

// Rows one in sixteen of which is of each hard kind.
inline std::vector<float> hard_rows(size_t rows, uint32_t dim, std::mt19937_64 &random) {
  std::vector<float> x = normal_values(rows * dim, random);
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (size_t r = 0; dim != 0 && r < rows; ++r) {
    float *row = x.data() + r * dim;
    const auto at = static_cast<uint32_t>(random() % dim);
    const auto scale_row = [&](float by) {
      for (uint32_t i = 0; i < dim; ++i) row[i] *= by;
    };
    const auto fill_row = [&](float with) { std::fill(row, row + dim, with); };
    switch (random() % 24) {
      case 1:
        fill_row(0.0f);
        break;
      case 2:
        fill_row(-0.0f);
        break;
      case 3:
        row[at] = nan;
        break;
      case 4:
        row[at] = inf;
        row[dim - 1 - at] = -inf;
        break;
      case 5:
        fill_row(nan);
        break;
      case 6:
        fill_row(-inf);
        break;
      case 7:
        scale_row(1e-42f);
        break;
      case 8:
        scale_row(1e37f);
        break;
      case 9:
        row[at] = std::numeric_limits<float>::max();
        break;
      case 10:
        for (uint32_t i = 0; i < dim; ++i) row[i] = i % 2 == 0 ? 1.0f : -1.0f;
        break;
      case 11:
        scale_row(1e-6f);
        break;
      case 12:
        row[at] = 1e4f;
        break;
      case 13:
        scale_row(0.0f);
        row[at] = std::numeric_limits<float>::denorm_min();
        break;
      case 14:
        for (uint32_t i = 0; i < dim; ++i) row[i] = kernels::kNf4Values[random() % 16] * 3.0f;
        break;
      case 15:
        for (uint32_t i = 0; i < dim; ++i) {
          row[i] = kernels::bits_float(static_cast<uint32_t>(random()));
        }
        break;
      case 16:
        for (uint32_t i = 0; i < dim; ++i) row[i] *= i / 8 % 2 == 0 ? 1e-3f : 30.0f;
        break;
      default:
        break;
    }
  }
  return x;
}

inline std::vector<uint8_t> random_bytes(size_t n, std::mt19937_64 &random) {
  std::vector<uint8_t> bytes(n);
  for (uint8_t &b : bytes) b = static_cast<uint8_t>(random());
  return bytes;
}

// Device memory as an array.
template <class T>
struct Mirror {
  Backend &backend;
  T *device;
  size_t n;

  Mirror(Backend &b, const T *host, size_t count)
      : backend(b), device(static_cast<T *>(b.allocate(count * sizeof(T) + 16))), n(count) {
    if (n != 0) b.up(device, host, n * sizeof(T));
  }
  Mirror(Backend &b, const std::vector<T> &host) : Mirror(b, host.data(), host.size()) {}
  std::vector<T> down() const {
    std::vector<T> host(n);
    if (n != 0) backend.down(host.data(), device, n * sizeof(T));
    return host;
  }
};

inline bool is_nan_of(kernels::DType type, const uint8_t *bytes) {
  float x;
  kernels::scalar_row_kernels().widen(type, bytes, &x, 1);
  return x != x;
}

// Equal bytes, or, in units of `type`, both a NaN where that is allowed.
inline void require_same(const std::vector<uint8_t> &wanted, const std::vector<uint8_t> &got,
                         const char *what, const kernels::DType *any_nan = nullptr) {
  BOOST_REQUIRE_EQUAL(wanted.size(), got.size());
  if (wanted.empty() || std::memcmp(wanted.data(), got.data(), wanted.size()) == 0) return;
  const size_t unit = any_nan == nullptr ? 1 : kernels::dtype_bytes(*any_nan);
  for (size_t i = 0; i < wanted.size(); i += unit) {
    if (std::memcmp(&wanted[i], &got[i], unit) == 0) continue;
    if (any_nan != nullptr && is_nan_of(*any_nan, &wanted[i]) && is_nan_of(*any_nan, &got[i])) {
      continue;
    }
    BOOST_FAIL(what << ": differs first at byte " << i << " of " << wanted.size() << ": "
                    << unsigned{wanted[i]} << " wanted, " << unsigned{got[i]} << " got");
  }
}

// One codec and its frames on both sides.
class BothSides {
 public:
  BothSides(Backend &backend, const Case &c, std::mt19937_64 &random)
      : backend_(backend),
        case_(c),
        host(c.geometry, c.format, c.pages, c.codebook),
        tables_(backend.allocate(kernels::cuda::device_bytes(*host.codec))) {
    if (c.format == QUIRE_FORMAT_NF4 || c.format == QUIRE_FORMAT_K8V4 ||
        c.format == QUIRE_FORMAT_NF4_DQ64) {
      // All layers but the first have means, the last one's come late.
      for (uint32_t layer = 1; layer < c.geometry.layers; ++layer) set_means(layer, random, false);
    }
    BOOST_REQUIRE(kernels::cuda::upload(*host.codec, tables_, &codec, nullptr) == cudaSuccess);
    if (c.geometry.layers > 1 && host.codec->means != nullptr) {
      set_means(c.geometry.layers - 1, random, true);
    }
    host.sealed = random_bytes(host.sealed.size(), random);
    host.open = random_bytes(host.open.size(), random);
    host.frames.sealed.base = host.sealed.data();
    if (host.has_open) host.frames.open.base = host.open.data();
    push();
  }

  void set_means(uint32_t layer, std::mt19937_64 &random, bool upload) {
    const Geometry &g = case_.geometry;
    const std::vector<float> means = normal_values(size_t{g.kv_heads} * g.dim_k, random, 5);
    BOOST_REQUIRE(kernels::set_anchor(*host.codec, layer, means.data()));
    if (upload) {
      BOOST_REQUIRE(kernels::cuda::upload_means(*host.codec, layer, codec, nullptr) == cudaSuccess);
    }
  }

  // Host frames -> device frames.
  void push() {
    frames.sealed = {put(host.sealed), host.frames.sealed.stride};
    if (host.has_open) frames.open = {put(host.open), host.frames.open.stride};
  }

  void compare(const char *what, bool nan_halves = false) {
    const kernels::DType half = kernels::DType::kF16;
    require_same(host.sealed, get(frames.sealed.base, host.sealed.size()), what);
    if (host.has_open) {
      require_same(host.open, get(frames.open.base, host.open.size()), what,
                   nan_halves ? &half : nullptr);
    }
  }

  uint8_t *put(const std::vector<uint8_t> &bytes) {
    auto *p = static_cast<uint8_t *>(backend_.allocate(bytes.size() + 16));
    if (!bytes.empty()) backend_.up(p, bytes.data(), bytes.size());
    return p;
  }
  std::vector<uint8_t> get(const uint8_t *p, size_t n) {
    std::vector<uint8_t> bytes(n);
    if (n != 0) backend_.down(bytes.data(), p, n);
    return bytes;
  }

 private:
  Backend &backend_;
  const Case &case_;

 public:
  PageSet host;
  kernels::cuda::CudaCodec codec = {};
  kernels::Frames frames;

 private:
  void *tables_;
};

// Values [n][heads][dim] as dtype, rows of tokens `stride` values apart.
inline std::vector<uint8_t> typed_rows(const Case &c, uint32_t n, uint32_t dim, int64_t stride,
                                       std::mt19937_64 &random) {
  const uint32_t heads = c.geometry.kv_heads;
  const std::vector<float> x = c.hard ? hard_rows(size_t{n} * heads, dim, random)
                                      : normal_values(size_t{n} * heads * dim, random);
  const uint32_t bytes = kernels::dtype_bytes(c.dtype);
  std::vector<uint8_t> out = random_bytes(static_cast<size_t>(stride) * n * bytes, random);
  const size_t row = size_t{heads} * dim;
  for (uint32_t t = 0; t < n; ++t) {
    kernels::scalar_row_kernels().narrow(c.dtype, x.data() + t * row,
                                         out.data() + static_cast<size_t>(stride) * t * bytes, row);
  }
  return out;
}

// Slots over shuffled pages, open and sealed ones, some tokens nowhere; begins within a page.
inline std::vector<int64_t> mixed_slots(const BothSides &both, const Case &c,
                                        std::mt19937_64 &random) {
  std::vector<uint32_t> order = both.host.indices();
  std::shuffle(order.begin(), order.end(), random);
  std::vector<int64_t> slots;
  const uint32_t skip = static_cast<uint32_t>(random() % c.geometry.page_tokens);
  for (const uint32_t page : order) {
    const bool open = both.host.has_open && random() % 2 == 0;
    for (uint32_t t = page == order.front() ? skip : 0; t < c.geometry.page_tokens; ++t) {
      const int64_t at = int64_t{page} * c.geometry.page_tokens + t;
      slots.push_back(random() % 16 == 0 ? -1 : (open ? -2 - at : at));
    }
  }
  return slots;
}

inline void init_touched(BothSides &both, const std::vector<int64_t> &slots, uint32_t page_tokens) {
  for (const int64_t slot : slots) {
    if (slot == -1) continue;
    const bool open = slot < 0;
    const auto frame = kernels::entry_frame(slot) / page_tokens;
    kernels::init_page(*both.host.codec, open,
                       (open ? both.host.frames.open : both.host.frames.sealed).frame(frame));
  }
}

// Appends hard rows to all layers, compares frames, then gathers them back in another type.
inline void run_append_and_gather(Backend &backend, BothSides &both, const Case &c,
                                  std::mt19937_64 &random) {
  const Geometry &g = c.geometry;
  const std::vector<int64_t> slots = mixed_slots(both, c, random);
  const auto n = static_cast<uint32_t>(slots.size());
  const Mirror<int64_t> device_slots(backend, slots);
  const Mirror<unsigned long long> counter(backend, std::vector<unsigned long long>(1, 7));
  init_touched(both, slots, g.page_tokens);
  const int64_t k_stride = int64_t{g.kv_heads} * g.dim_k + (c.strided ? 40 : 0);
  const int64_t v_stride = int64_t{g.kv_heads} * g.dim_v + (c.strided ? 24 : 0);
  uint64_t nonfinite = 7;
  for (uint32_t layer = 0; layer < g.layers; ++layer) {
    const std::vector<uint8_t> k = typed_rows(c, n, g.dim_k, k_stride, random);
    const std::vector<uint8_t> v = typed_rows(c, n, g.dim_v, v_stride, random);
    kernels::AppendArgs a;
    a.frames = both.host.frames;
    a.map.slots = slots.data();
    a.layer = layer;
    a.n = n;
    a.dtype = c.dtype;
    a.k = k.data();
    a.v = g.dim_v != 0 ? v.data() : nullptr;
    a.k_token_stride = k_stride;
    a.v_token_stride = v_stride;
    a.search = c.search;
    nonfinite += kernels::append(*both.host.codec, a, 0, n);
    a.frames = both.frames;
    a.map.slots = device_slots.device;
    a.k = both.put(k);
    a.v = g.dim_v != 0 ? both.put(v) : nullptr;
    BOOST_REQUIRE(kernels::cuda::append(both.codec, a, counter.device, nullptr) == cudaSuccess);
    backend.check("append");
  }
  both.compare("append");
  BOOST_REQUIRE_EQUAL(counter.down()[0], nonfinite);
  for (const kernels::DType out : {c.dtype, kernels::DType::kF32, kernels::DType::kBF16}) {
    const uint32_t layer = static_cast<uint32_t>(random() % g.layers);
    const size_t bytes = kernels::dtype_bytes(out);
    std::vector<uint8_t> k = random_bytes(static_cast<size_t>(k_stride) * n * bytes, random);
    std::vector<uint8_t> v = random_bytes(static_cast<size_t>(v_stride) * n * bytes, random);
    kernels::GatherArgs a;
    a.frames = both.frames;
    a.map.slots = device_slots.device;
    a.layer = layer;
    a.n = n;
    a.dtype = out;
    uint8_t *device_k = both.put(k), *device_v = both.put(v);
    a.k = device_k;
    a.v = g.dim_v != 0 ? device_v : nullptr;
    a.k_token_stride = k_stride;
    a.v_token_stride = v_stride;
    BOOST_REQUIRE(kernels::cuda::gather(both.codec, a, nullptr) == cudaSuccess);
    backend.check("gather");
    a.frames = both.host.frames;
    a.map.slots = slots.data();
    a.k = k.data();
    a.v = g.dim_v != 0 ? v.data() : nullptr;
    kernels::gather(*both.host.codec, a, 0, n);
    const bool quantised = quire_format_has_open_pages(c.format) != 0;
    require_same(k, both.get(device_k, k.size()), "gather k", quantised ? &out : nullptr);
    require_same(v, both.get(device_v, v.size()), "gather v", quantised ? &out : nullptr);
  }
}

// Gathers through a block table from the middle of a page on, past its end.
inline void run_block_table(Backend &backend, BothSides &both, const Case &c, uint32_t layer,
                            std::mt19937_64 &random) {
  const Geometry &g = c.geometry;
  std::vector<int32_t> table;
  for (uint32_t p = 0; p < c.pages; ++p) table.push_back(static_cast<int32_t>(c.pages - 1 - p));
  table.insert(table.begin() + 1, -1);
  const Mirror<int32_t> device_table(backend, table);
  kernels::GatherArgs a;
  a.map.block_table = table.data();
  a.map.block_table_length = static_cast<uint32_t>(table.size());
  a.map.first = g.page_tokens / 2 + 1;
  a.layer = layer;
  a.n = static_cast<uint32_t>(table.size()) * g.page_tokens;
  a.dtype = c.dtype;
  a.frames = both.host.frames;
  const size_t bytes = kernels::dtype_bytes(c.dtype) * size_t{a.n} * g.kv_heads;
  std::vector<uint8_t> k = random_bytes(bytes * g.dim_k, random);
  std::vector<uint8_t> v = random_bytes(bytes * g.dim_v, random);
  uint8_t *device_k = both.put(k), *device_v = both.put(v);
  a.k = k.data();
  a.v = g.dim_v != 0 ? v.data() : nullptr;
  kernels::gather(*both.host.codec, a, 0, a.n);
  a.frames = both.frames;
  a.map.block_table = device_table.device;
  a.k = device_k;
  a.v = g.dim_v != 0 ? device_v : nullptr;
  BOOST_REQUIRE(kernels::cuda::gather(both.codec, a, nullptr) == cudaSuccess);
  backend.check("gather by table");
  const bool quantised = quire_format_has_open_pages(c.format) != 0;
  require_same(k, both.get(device_k, k.size()), "table k", quantised ? &c.dtype : nullptr);
  require_same(v, both.get(device_v, v.size()), "table v", quantised ? &c.dtype : nullptr);
}

// Open pages of hard halves -> sealed -> gathered -> open again.
inline void run_seal_and_unseal(Backend &backend, BothSides &both, const Case &c,
                                std::mt19937_64 &random) {
  const Geometry &g = c.geometry;
  Case halves = c;
  halves.dtype = kernels::DType::kF16;
  std::vector<int64_t> slots = both.host.slots_of(true);
  for (uint32_t layer = 0; layer < g.layers; ++layer) {
    const uint32_t n = both.host.tokens();
    const std::vector<uint8_t> k =
        typed_rows(halves, n, g.dim_k, int64_t{g.kv_heads} * g.dim_k, random);
    const std::vector<uint8_t> v =
        typed_rows(halves, n, g.dim_v, int64_t{g.kv_heads} * g.dim_v, random);
    kernels::AppendArgs a;
    a.frames = both.host.frames;
    a.map.slots = slots.data();
    a.layer = layer;
    a.n = n;
    a.dtype = kernels::DType::kF16;
    a.k = k.data();
    a.v = v.data();
    kernels::append(*both.host.codec, a, 0, n);
  }
  both.push();
  std::vector<uint32_t> from = both.host.indices(), to = from, index;
  std::shuffle(to.begin(), to.end(), random);
  for (uint32_t p = 0; p < c.pages; ++p)
    index.push_back(static_cast<uint32_t>(random() % 20000000));
  kernels::SealArgs s;
  s.frames = both.host.frames;
  s.from = from.data();
  s.to = to.data();
  s.page_index = index.data();
  s.pages = c.pages;
  s.tokens = c.tokens;
  s.search = c.search;
  const Mirror<unsigned long long> counter(backend, std::vector<unsigned long long>(1, 0));
  const uint64_t nonfinite =
      kernels::seal(*both.host.codec, s, 0, kernels::seal_tasks(*both.host.codec, s));
  s.frames = both.frames;
  BOOST_REQUIRE(kernels::cuda::seal(both.codec, s, counter.device, nullptr) == cudaSuccess);
  backend.check("seal");
  both.compare("seal");
  BOOST_REQUIRE_EQUAL(counter.down()[0], nonfinite);
  for (uint32_t layer = 0; layer < g.layers; ++layer) {
    run_block_table(backend, both, c, layer, random);
  }
  s.from = to.data();
  s.to = from.data();
  BOOST_REQUIRE(kernels::cuda::unseal(both.codec, s, nullptr) == cudaSuccess);
  backend.check("unseal");
  s.frames = both.host.frames;
  kernels::unseal(*both.host.codec, s, 0, kernels::seal_tasks(*both.host.codec, s));
  both.compare("unseal", true);
}

inline void run_case(Backend &backend, const Case &c, std::mt19937_64 &random) {
  const TargetScope scalar("scalar");
  BothSides both(backend, c, random);
  run_append_and_gather(backend, both, c, random);
  if (both.host.has_open) run_seal_and_unseal(backend, both, c, random);
}

// Page copies, checksums, zeroing.
inline void run_pages(Backend &backend, uint32_t format, bool over_bus, std::mt19937_64 &random) {
  Case c;
  c.format = format;
  c.geometry.layers = 3;
  c.geometry.dim_k = c.geometry.dim_v = 128;
  c.pages = 5;
  BothSides both(backend, c, random);
  const uint64_t bytes = both.codec.sealed.page_bytes;
  const std::vector<uint32_t> from = {3, 0, 4, 1}, to = {1, 2, 0, 3};
  std::vector<uint8_t> target = random_bytes(both.host.sealed.size(), random);
  uint8_t *device = both.put(target);
  const Mirror<uint64_t> sums(backend, std::vector<uint64_t>(4, 99));
  const kernels::FrameView view = {device, bytes};
  kernels::CopyArgs copy;
  copy.to = view;
  copy.from = both.frames.sealed;
  copy.to_frames = to.data();
  copy.from_frames = from.data();
  copy.pages = 4;
  copy.sums = sums.device;
  copy.over_bus = over_bus;
  BOOST_REQUIRE(kernels::cuda::copy_pages(both.codec, copy, nullptr) == cudaSuccess);
  backend.check("copy");
  const std::vector<uint64_t> got = sums.down();
  for (size_t i = 0; i < from.size(); ++i) {
    const uint8_t *page = both.host.frames.sealed.frame(from[i]);
    std::memcpy(target.data() + to[i] * bytes, page, bytes);
    BOOST_REQUIRE_EQUAL(got[i], kernels::page_checksum(page, bytes));
  }
  require_same(target, both.get(device, target.size()), "copies");
  BOOST_REQUIRE(kernels::cuda::checksum_pages(both.codec, false, view, to.data(), 4, sums.device,
                                              nullptr) == cudaSuccess);
  backend.check("checksum");
  BOOST_REQUIRE(sums.down() == got);
  BOOST_REQUIRE(kernels::cuda::zero_pages(both.codec, false, view, to.data(), 2, nullptr) ==
                cudaSuccess);
  backend.check("zero");
  for (size_t i = 0; i < 2; ++i) std::memset(target.data() + to[i] * bytes, 0, bytes);
  require_same(target, both.get(device, target.size()), "zeroing");
}

// Few, small ones that reach every block size, format, type and path.
inline std::vector<Case> small_cases() {
  std::vector<Case> all;
  const auto add = [&](uint32_t format, uint32_t k, uint32_t v, uint32_t page_tokens,
                       kernels::DType type, bool search) -> Case & {
    Case c;
    c.format = format;
    c.geometry.layers = 2;
    c.geometry.kv_heads = 2;
    c.geometry.dim_k = k;
    c.geometry.dim_v = v;
    c.geometry.page_tokens = page_tokens;
    c.dtype = type;
    c.search = search;
    all.push_back(c);
    return all.back();
  };
  using kernels::DType;
  add(QUIRE_FORMAT_NF4, 128, 128, 16, DType::kF16, false);
  add(QUIRE_FORMAT_NF4, 64, 64, 16, DType::kBF16, true);
  add(QUIRE_FORMAT_NF4, 96, 128, 8, DType::kF32, false).strided = true;
  add(QUIRE_FORMAT_NF4, 80, 40, 24, DType::kF16, true).tokens = 7;
  add(QUIRE_FORMAT_NF4, 8, 16, 8, DType::kF32, false).geometry.interleaved = true;
  add(QUIRE_FORMAT_NF4, 192, 0, 16, DType::kBF16, false).geometry.rotary = 64;
  add(QUIRE_FORMAT_NF4, 256, 72, 40, DType::kF16, false).geometry.interleaved = true;
  add(QUIRE_FORMAT_NF4_DQ64, 128, 64, 16, DType::kF16, true);
  add(QUIRE_FORMAT_NF4_DQ64, 32, 96, 8, DType::kF32, false);
  add(QUIRE_FORMAT_NF4_64, 128, 64, 16, DType::kF32, false);
  add(QUIRE_FORMAT_NF4_64, 24, 80, 8, DType::kF16, false).strided = true;
  add(QUIRE_FORMAT_K8V4, 128, 64, 16, DType::kF32, true).geometry.rotary = 96;
  add(QUIRE_FORMAT_K8V4, 40, 16, 8, DType::kBF16, false).tokens = 3;
  add(QUIRE_FORMAT_F16, 64, 32, 16, DType::kF16, false);
  add(QUIRE_FORMAT_F16, 40, 24, 8, DType::kF32, false).strided = true;
  add(QUIRE_FORMAT_BF16, 64, 64, 8, DType::kF16, false);
  add(QUIRE_FORMAT_F32, 72, 8, 8, DType::kBF16, false);
  return all;
}

}  // namespace quire::test
