// Reads float32 arrays out of .npz files (zip, stored or deflated), with a small inflate of its own
// (RFC 1951): tests need no more libraries for it. Returns false for whatever it does not know.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace quire::test {

class Inflate {
 public:
  Inflate(const uint8_t *data, size_t n) : data_(data), n_(n) {}

  bool run(std::vector<uint8_t> *out) {
    uint32_t last = 0;
    while (last == 0) {
      last = bits(1);
      const uint32_t type = bits(2);
      const bool good =
          type == 0 ? stored(out) : (type == 1 ? fixed(out) : (type == 2 && dynamic(out)));
      if (!good || bad_) return false;
    }
    return true;
  }

 private:
  struct Code {  // canonical: how many codes of each length, and the symbols in order
    uint16_t count[16] = {}, symbol[288] = {};
    void make(const uint8_t *lengths, uint32_t n) {
      uint16_t offset[16] = {};
      for (uint32_t i = 0; i < n; ++i) ++count[lengths[i]];
      count[0] = 0;
      for (uint32_t l = 1; l < 15; ++l) offset[l + 1] = static_cast<uint16_t>(offset[l] + count[l]);
      for (uint32_t i = 0; i < n; ++i) {
        if (lengths[i] != 0) symbol[offset[lengths[i]]++] = static_cast<uint16_t>(i);
      }
    }
  };

  uint32_t bits(uint32_t n) {
    uint32_t value = 0;
    for (uint32_t i = 0; i < n; ++i, ++at_) {
      if (at_ / 8 >= n_) {
        bad_ = true;
        return 0;
      }
      value |= (uint32_t{data_[at_ / 8]} >> (at_ % 8) & 1u) << i;
    }
    return value;
  }

  uint32_t decode(const Code &c) {
    uint32_t code = 0, first = 0, index = 0;
    for (uint32_t l = 1; l <= 15 && !bad_; ++l) {
      code |= bits(1);
      if (code < first + c.count[l]) return c.symbol[index + code - first];
      index += c.count[l];
      first = (first + c.count[l]) << 1;
      code <<= 1;
    }
    bad_ = true;
    return 256;
  }

  bool stored(std::vector<uint8_t> *out) {
    at_ = (at_ + 7) / 8 * 8;
    const uint32_t n = bits(16);
    bits(16);
    for (uint32_t i = 0; i < n && !bad_; ++i) out->push_back(static_cast<uint8_t>(bits(8)));
    return true;
  }

  bool fixed(std::vector<uint8_t> *out) {
    uint8_t lengths[288], distances[30];
    for (uint32_t i = 0; i < 288; ++i) {
      lengths[i] = static_cast<uint8_t>(i < 144 ? 8 : (i < 256 ? 9 : (i < 280 ? 7 : 8)));
    }
    std::memset(distances, 5, sizeof distances);
    Code literal, distance;
    literal.make(lengths, 288);
    distance.make(distances, 30);
    return codes(literal, distance, out);
  }

  bool dynamic(std::vector<uint8_t> *out) {
    static constexpr uint8_t kOrder[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                           11, 4,  12, 3, 13, 2, 14, 1, 15};
    const uint32_t n_literal = bits(5) + 257, n_distance = bits(5) + 1, n_code = bits(4) + 4;
    uint8_t lengths[320] = {};
    for (uint32_t i = 0; i < n_code; ++i) lengths[kOrder[i]] = static_cast<uint8_t>(bits(3));
    Code meta, literal, distance;
    meta.make(lengths, 19);
    std::memset(lengths, 0, sizeof lengths);
    for (uint32_t i = 0; i < n_literal + n_distance && !bad_;) {
      const uint32_t symbol = decode(meta);
      if (symbol < 16) {
        lengths[i++] = static_cast<uint8_t>(symbol);
        continue;
      }
      if (symbol == 16 && i == 0) return false;
      const uint8_t value = symbol == 16 ? lengths[i - 1] : uint8_t{0};
      uint32_t times = symbol == 16 ? 3 + bits(2) : (symbol == 17 ? 3 + bits(3) : 11 + bits(7));
      if (i + times > n_literal + n_distance) return false;
      while (times-- > 0) lengths[i++] = value;
    }
    literal.make(lengths, n_literal);
    distance.make(lengths + n_literal, n_distance);
    return codes(literal, distance, out);
  }

  bool codes(const Code &literal, const Code &distance, std::vector<uint8_t> *out) {
    static constexpr uint16_t kLength[29] = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                             15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                             67, 83, 99, 115, 131, 163, 195, 227, 258};
    static constexpr uint16_t kDistance[30] = {
        1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
        193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
    while (!bad_) {
      const uint32_t symbol = decode(literal);
      if (symbol < 256) {
        out->push_back(static_cast<uint8_t>(symbol));
        continue;
      }
      if (symbol == 256) return !bad_;
      const uint32_t l = symbol - 257;
      if (l >= 29) return false;
      uint32_t n = kLength[l] + (l >= 8 && l < 28 ? bits(l / 4 - 1) : 0);
      const uint32_t d = decode(distance);
      if (d >= 30) return false;
      const size_t back = kDistance[d] + (d >= 4 ? bits(d / 2 - 1) : 0);
      if (back > out->size()) return false;
      while (n-- > 0) out->push_back((*out)[out->size() - back]);
    }
    return false;
  }

  const uint8_t *data_;
  size_t n_, at_ = 0;
  bool bad_ = false;
};

// The values of array `name` ("k.npy"), and its shape.
inline bool read_npz(const std::string &path, const std::string &name, std::vector<float> *values,
                     std::vector<size_t> *shape) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> chars((std::istreambuf_iterator<char>(file)),
                                std::istreambuf_iterator<char>());
  const std::vector<uint8_t> z(chars.begin(), chars.end());
  const auto word = [&](size_t at, uint32_t bytes) {
    size_t x = 0;
    for (uint32_t i = 0; i < bytes; ++i) x |= size_t{z[at + i]} << (8 * i);
    return x;
  };
  // The central directory has sizes even where local headers do not.
  for (size_t at = 0; at + 46 <= z.size(); ++at) {
    if (word(at, 4) != 0x02014b50 || at + 46 + word(at + 28, 2) > z.size()) continue;
    const std::string entry(chars.data() + at + 46, word(at + 28, 2));
    if (entry != name) continue;
    const size_t method = word(at + 10, 2), packed = word(at + 20, 4), local = word(at + 42, 4);
    const size_t data = local + 30 + word(local + 26, 2) + word(local + 28, 2);
    if (data + packed > z.size()) return false;
    std::vector<uint8_t> npy(z.begin() + static_cast<ptrdiff_t>(data),
                             z.begin() + static_cast<ptrdiff_t>(data + packed));
    if (method == 8) {
      npy.clear();
      if (!Inflate(z.data() + data, packed).run(&npy)) return false;
    }
    if (npy.size() < 12 || npy[6] != 1) return false;
    const size_t header = size_t{npy[8]} | size_t{npy[9]} << 8;
    const std::string text(npy.begin() + 10, npy.begin() + 10 + static_cast<ptrdiff_t>(header));
    if (text.find("'<f4'") == std::string::npos || text.find("False") == std::string::npos)
      return false;
    shape->clear();
    for (size_t p = text.find('(') + 1; p < text.size() && text[p] != ')';) {
      size_t used = 0;
      shape->push_back(std::stoul(text.substr(p), &used));
      p += used;
      while (p < text.size() && (text[p] == ',' || text[p] == ' ')) ++p;
    }
    values->resize((npy.size() - 10 - header) / sizeof(float));
    std::memcpy(values->data(), npy.data() + 10 + header, values->size() * sizeof(float));
    return true;
  }
  return false;
}

}  // namespace quire::test
