#include "allocators/status.h"

#include <cerrno>
#include <cstdarg>
#include <cstdio>

namespace quire {
namespace {

// Kept small: it is paid for by every thread of the host program that loads the library.
thread_local char tls_error[256];

}  // namespace

const char *status_name(Status status) noexcept {
  switch (status) {
    case Status::kOk:
      return "OK";
    case Status::kInvalid:
      return "INVALID";
    case Status::kNomem:
      return "NOMEM";
    case Status::kAgain:
      return "AGAIN";
    case Status::kStale:
      return "STALE";
    case Status::kBusy:
      return "BUSY";
    case Status::kDevice:
      return "DEVICE";
    case Status::kIo:
      return "IO";
    case Status::kCorrupt:
      return "CORRUPT";
    case Status::kUnsupported:
      return "UNSUPPORTED";
    case Status::kVersion:
      return "VERSION";
  }
  return "UNKNOWN";
}

Status set_error(Status status, const char *format, ...) noexcept {
  const int saved_errno = errno;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(tls_error, sizeof tls_error, format, arguments);
  va_end(arguments);
  errno = saved_errno;
  return status;
}

const char *last_error() noexcept {
  return tls_error;
}

}  // namespace quire
