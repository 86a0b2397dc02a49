// Fuzz: rounds of a fuzzer that are drawn from seeds, so that any round can be had again alone.
//
//   Fuzz fuzz("segment", 400);
//   while (fuzz.next()) { Bytes bytes(fuzz.seed()); ... }
//
// A run has a bounded number of rounds, or, with QUIRE_FUZZ_SECONDS, goes on for so long with seeds
// that no run had before. QUIRE_TEST_SEED runs one round. Whatever ends the process, a signal or a
// sanitizer, the seed of the round is said last.
#ifndef QUIRE_TESTS_SUPPORT_FUZZ_H_
#define QUIRE_TESTS_SUPPORT_FUZZ_H_

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
extern "C" void __sanitizer_set_death_callback(void (*callback)());
#endif

namespace quire::test {

class Fuzz {
 public:
  Fuzz(const char *what, uint64_t rounds) : what_(what), left_(rounds) {
    const char *const seconds = std::getenv("QUIRE_FUZZ_SECONDS");
    const char *const seed = std::getenv("QUIRE_TEST_SEED");
    if (seed != nullptr) {
      seed_ = std::strtoull(seed, nullptr, 10) - 1;
      left_ = 1;
    } else if (seconds != nullptr) {
      using std::chrono::steady_clock;
      timed_ = true;
      end_ = steady_clock::now() + std::chrono::seconds(std::strtoul(seconds, nullptr, 10));
      seed_ = uint64_t{std::random_device{}()} << 20;
    }
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    __sanitizer_set_death_callback(say_seed);
#else
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) std::signal(signal, die);
#endif
  }
  ~Fuzz() {
    std::printf("%s: %llu rounds\n", what_, static_cast<unsigned long long>(done_));
    set_current("");
  }
  Fuzz(const Fuzz &) = delete;
  Fuzz &operator=(const Fuzz &) = delete;

  bool next() {
    if (timed_ ? std::chrono::steady_clock::now() >= end_ : left_ == 0) return false;
    --left_;
    ++done_;
    ++seed_;
    set_current(text().c_str());
    return true;
  }
  uint64_t seed() const {
    return seed_;
  }
  // For messages of tests.
  std::string text() const {
    return std::string(what_) + ": QUIRE_TEST_SEED=" + std::to_string(seed_);
  }

 private:
  static char *current() {
    static char text[128];
    return text;
  }
  static void set_current(const char *text) {
    std::snprintf(current(), 128, "%s", text);
  }
  static void say_seed() {
    const char *const text = current();
    const ssize_t n =
        ::write(STDERR_FILENO, text, std::strlen(text)) + ::write(STDERR_FILENO, "\n", 1);
    static_cast<void>(n);
  }
  static void die(int signal) {
    say_seed();
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }

  const char *what_;
  uint64_t left_;
  uint64_t done_ = 0;
  uint64_t seed_ = 0;
  bool timed_ = false;
  std::chrono::steady_clock::time_point end_;
};

// What a round draws: numbers that are often at an edge, and texts made of others.
class Bytes {
 public:
  explicit Bytes(uint64_t seed) : random_(seed) {}

  uint64_t word() { return random_(); }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  bool chance(uint32_t in_256) { return random_() % 256 < in_256; }
  // Any number, but the least, the greatest and those near powers of two more often than others.
  uint64_t number() {
    switch (below(6)) {
      case 0:
        return below(8);
      case 1:
        return ~uint64_t{below(4)};
      case 2:
        return (uint64_t{1} << below(64)) - below(3) + 1;
      case 3:
        return UINT32_MAX - below(4);
      case 4:
        return below(300);
      default:
        return word();
    }
  }
  uint32_t number32() { return static_cast<uint32_t>(number()); }

  // `of` with a few bytes changed, left out, put in, said twice, or cut off.
  std::string mutated(std::string of, const std::string &alphabet) {
    for (uint32_t n = below(6); n > 0; --n) {
      const size_t at = of.empty() ? 0 : word() % of.size();
      const size_t run = of.empty() ? 0 : std::min<size_t>(1 + below(12), of.size() - at);
      const char c = chance(64) ? static_cast<char>(word()) : alphabet[word() % alphabet.size()];
      switch (below(6)) {
        case 0:
          if (!of.empty()) of[at] = c;
          break;
        case 1:
          of.erase(at, run);
          break;
        case 2:
          of.insert(at, 1, c);
          break;
        case 3:
          of.insert(at, of.substr(at, run));
          break;
        case 4:
          if (chance(64)) of.resize(at);
          break;
        default:
          of.insert(at, std::to_string(number()));
      }
    }
    return of;
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace quire::test

#endif  // QUIRE_TESTS_SUPPORT_FUZZ_H_
