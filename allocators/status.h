// Status: the one error type inside the library, and the text that goes with it.
//
// The values are those of the C enum `quire_status`, so the C boundary converts by a cast and
// nothing is lost on the way; runtime/ asserts the equality at compile time. It lives in the lowest
// layer that has something to report.
//
// Every fallible function returns a Status (or a Result) and, where more is known than the value
// says, leaves a sentence in a thread-local buffer:
//
//   return set_error(Status::kNomem, "frame %u of %u: mmap: %s", i, n, std::strerror(errno));
//
// Invariants
//   - set_error never allocates, throws, or changes errno; a text that does not fit is cut.
//   - last_error() is never null; it is "" until this thread's first error. It is not cleared by a
//     success: read it only after a call that failed, as with errno.
//
// Any thread. Cost: set_error is one vsnprintf; a success costs nothing.
#pragma once

#include <type_traits>
#include <utility>

namespace quire {

// clang-format off
enum class [[nodiscard]] Status : int {
  kOk = 0,
  kInvalid,
  kNomem,
  kAgain,
  kStale,
  kBusy,
  kDevice,
  kIo,
  kCorrupt,
  kUnsupported,
  kVersion,
};
// clang-format on

// "OK", "INVALID", ...; "UNKNOWN" for a value outside the enum. Static storage.
const char *status_name(Status status) noexcept;

// Leaves the text as this thread's error and returns `status`, so that it can be returned at once.
[[gnu::format(printf, 2, 3)]] Status set_error(Status status, const char *format, ...) noexcept;

// The text of this thread's latest failure. Valid until this thread's next one.
const char *last_error() noexcept;

// A Status or, where that is kOk, a value. T is cheap to move and default constructible.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(Status failure) noexcept : status_(failure) {}
  Result(T value) noexcept(std::is_nothrow_move_constructible_v<T>) : value_(std::move(value)) {}

  bool ok() const noexcept { return status_ == Status::kOk; }
  Status status() const noexcept { return status_; }
  T &value() noexcept { return value_; }
  const T &value() const noexcept { return value_; }

 private:
  Status status_ = Status::kOk;
  T value_{};
};

}  // namespace quire
