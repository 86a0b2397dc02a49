// Text: builds a text in room that the caller gave, and always knows how long the whole of it is.
//
// What does not fit is counted and not written, so the same code answers "how much room is needed"
// and "write it". No allocation, no exception, no locale: numbers are written by hand or by
// std::to_chars, so a host program that calls setlocale still gets valid JSON.
//
// Invariant: length() is the length of the whole text; the first min(length(), room - 1) characters
// are in `out`, and behind them a 0 (finish()).
//
// Thread class: one thread.
#pragma once

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace quire {

class Text {
 public:
  // out may be nullptr where room is 0.
  Text(char *out, size_t room) noexcept : out_(out), room_(room) {}

  Text &operator<<(std::string_view s) noexcept {
    if (length_ < room_) {
      const size_t n = s.size() < room_ - length_ ? s.size() : room_ - length_;
      std::memcpy(out_ + length_, s.data(), n);
    }
    length_ += s.size();
    return *this;
  }
  Text &operator<<(const char *s) noexcept { return *this << std::string_view(s); }
  Text &operator<<(char c) noexcept { return *this << std::string_view(&c, 1); }
  Text &operator<<(uint64_t n) noexcept { return number(n); }
  Text &operator<<(int64_t n) noexcept { return number(n); }
  Text &operator<<(uint32_t n) noexcept { return number(n); }
  // The shortest text that reads back as the same value; what JSON has no word for is 0.
  Text &operator<<(double x) noexcept { return number(std::isfinite(x) ? x : 0.0); }

  // As a JSON string, which is also how Prometheus wants a label's value.
  Text &quoted(std::string_view s) noexcept {
    *this << '"';
    for (const char c : s) {
      if (c == '"' || c == '\\') {
        *this << '\\' << c;
      } else {
        *this << (static_cast<unsigned char>(c) < 0x20 ? ' ' : c);
      }
    }
    return *this << '"';
  }

  size_t length() const noexcept { return length_; }

  // Ends the text; true if all of it, and the 0, fitted.
  bool finish() noexcept {
    if (room_ == 0) return false;
    out_[length_ < room_ ? length_ : room_ - 1] = 0;
    return length_ < room_;
  }

 private:
  template <class T>
  Text &number(T value) noexcept {
    char digits[32];
    const auto end = std::to_chars(digits, digits + sizeof digits, value);
    return *this << std::string_view(digits, static_cast<size_t>(end.ptr - digits));
  }

  char *out_;
  size_t room_;
  size_t length_ = 0;
};

}  // namespace quire
