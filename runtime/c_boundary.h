// What the files of the C boundary share: structs of other sizes, conversions, and the last line of
// defence.
//
// A struct of the caller begins with its size. read_struct copies as much of it as both sides know
// and defaults the rest (zero is every field's default); write_struct writes back as much as the
// caller's size holds. So an old binary works with a newer library, and a new one with an older
// library as long as it asks for nothing that is new: a field behind our size that is not zero is
// refused.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#include "quire/quire.h"
#include "runtime/cache.h"
#include "runtime/status.h"

namespace quire {

inline quire_status to_c(Status status) noexcept {
  return static_cast<quire_status>(static_cast<int>(status));
}
inline quire_cache *to_c(Cache *cache) noexcept {
  return reinterpret_cast<quire_cache *>(cache);
}
inline Cache *from_c(quire_cache *cache) noexcept {
  return reinterpret_cast<Cache *>(cache);
}

// kInvalid with a sentence.
inline quire_status refuse(const char *why) noexcept {
  return to_c(set_error(Status::kInvalid, "%s", why));
}

template <class T>
Status read_struct(const T *from, const char *name, T *out) noexcept {
  if (from == nullptr) return set_error(Status::kInvalid, "%s is NULL", name);
  uint32_t size;
  std::memcpy(&size, from, sizeof size);
  if (size < 2 * sizeof(uint32_t) || size > (1u << 20)) {
    return set_error(Status::kInvalid, "%s.size is %u, not set by QUIRE_INIT", name, size);
  }
  const auto *bytes = reinterpret_cast<const unsigned char *>(from);
  for (size_t i = sizeof(T); i < size; ++i) {
    if (bytes[i] != 0) {
      return set_error(Status::kVersion, "%s uses a field that this library does not know", name);
    }
  }
  *out = T{};
  std::memcpy(static_cast<void *>(out), from, std::min<size_t>(size, sizeof(T)));
  out->size = sizeof(T);
  return Status::kOk;
}

// The same where NULL stands for all defaults.
template <class T>
Status read_optional(const T *from, const char *name, T *out) noexcept {
  if (from != nullptr) return read_struct(from, name, out);
  *out = T{};
  out->size = sizeof(T);
  return Status::kOk;
}

// An output struct whose size the caller set.
template <class T>
Status check_output(const T *out, const char *name) noexcept {
  if (out == nullptr) return set_error(Status::kInvalid, "%s is NULL", name);
  uint32_t size;
  std::memcpy(&size, out, sizeof size);
  if (size >= 2 * sizeof(uint32_t) && size <= (1u << 20)) return Status::kOk;
  return set_error(Status::kInvalid, "%s.size is %u, not set by QUIRE_INIT", name, size);
}

// A struct that is only written. NULL where it may be: not wanted.
template <class T>
Status read_output(const T *from, const char *name, bool optional, T *out) noexcept {
  *out = T{};
  out->size = sizeof(T);
  if (from == nullptr && optional) return Status::kOk;
  return check_output(from, name);
}

// What the caller's struct has beyond ours becomes zero, every field's default.
template <class T>
void write_struct(const T &from, T *to) noexcept {
  uint32_t size;
  std::memcpy(&size, to, sizeof size);
  T copy = from;
  copy.size = size;
  std::memcpy(static_cast<void *>(to), &copy, std::min<size_t>(size, sizeof(T)));
  if (size > sizeof(T)) {
    std::memset(reinterpret_cast<unsigned char *>(to) + sizeof(T), 0, size - sizeof(T));
  }
}

// Runs `fill(&whole)` and writes what the caller's struct has room for.
template <class T, class Fill>
Status fill_output(T *out, const char *name, Fill &&fill) noexcept {
  if (const Status s = check_output(out, name); s != Status::kOk) return s;
  T whole = {};
  const Status status = fill(&whole);
  if (status == Status::kOk) write_struct(whole, out);
  return status;
}

// Runs `body`, which returns a Status; what the standard library throws for want of memory ends
// here.
template <class Body>
quire_status guarded(Body &&body) noexcept {
  try {
    return to_c(body());
  } catch (const std::bad_alloc &) {
    return to_c(set_error(Status::kNomem, "out of memory for metadata"));
  } catch (...) {
    return to_c(set_error(Status::kInvalid, "an unexpected exception inside the library"));
  }
}

// The same on a cache that this process opened.
template <class Body>
quire_status on_cache(quire_cache *c, Body &&body) noexcept {
  if (c == nullptr) return refuse("the cache is NULL");
  Cache &cache = *from_c(c);
  if (const Status s = cache.check_process(); s != Status::kOk) return to_c(s);
  return guarded([&] { return body(cache); });
}

}  // namespace quire
