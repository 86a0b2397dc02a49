#include "runtime/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "quire/quire.h"
#include "runtime/tables.h"

namespace quire {
namespace {

constexpr size_t kHeaderBytes = 4096;
constexpr size_t kPartAlignment = 128;
static_assert(sizeof(RegionHeader) <= kHeaderBytes);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

constexpr size_t round_up(size_t n, size_t to) {
  return (n + to - 1) / to * to;
}

// Start time of a process in clock ticks since boot, 0 where there is none: field 22 of its stat
// line. The second field is the program's name in parentheses and may itself hold spaces and
// parentheses, so the fields are counted from the last one.
uint64_t process_start(uint64_t pid) noexcept {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%llu/stat", static_cast<unsigned long long>(pid));
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char text[1024];
  const ssize_t n = ::read(fd, text, sizeof text - 1);
  ::close(fd);
  if (n <= 0) return 0;
  text[n] = 0;
  const char *p = std::strrchr(text, ')');
  if (p == nullptr) return 0;
  if (p[1] == ' ' && (p[2] == 'Z' || p[2] == 'X')) return 0;  // dead, not yet waited for
  for (int field = 2; field < 22; ++field) {
    p = std::strchr(p + 1, ' ');
    if (p == nullptr) return 0;
  }
  return std::strtoull(p + 1, nullptr, 10);
}

bool valid_name(const char *name) noexcept {
  const size_t n = std::strlen(name);
  if (n == 0 || n > 63 || name[0] == '.') return false;
  for (size_t i = 0; i < n; ++i) {
    const char c = name[i];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool digit = c >= '0' && c <= '9';
    if (!letter && !digit && c != '.' && c != '_' && c != '-') return false;
  }
  return true;
}

// A shared-memory object of exactly `bytes`, all of them backed. -1 with errno.
int make_object(const char *name, size_t bytes) noexcept {
  char path[80];
  std::snprintf(path, sizeof path, "/%s", name);
  const int fd = ::shm_open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return -1;
  int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  if (error == 0) return fd;
  ::shm_unlink(path);
  ::close(fd);
  errno = error;
  return -1;
}

// In huge pages, where the system gives them to who asks (decisions/huge-pages.md): so it begins at
// a multiple of one.
void *map_private(size_t bytes) noexcept {
  constexpr size_t kHuge = size_t{2} << 20;
  void *const base =
      ::mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return base;
  char *const begin = static_cast<char *>(base);
  const size_t skip = (kHuge - reinterpret_cast<uintptr_t>(begin) % kHuge) % kHuge;
  if (skip != 0) ::munmap(begin, skip);
  ::munmap(begin + skip + bytes, kHuge - skip);
  // A refusal is as good as no answer.
  static_cast<void>(::madvise(begin + skip, bytes, MADV_HUGEPAGE));
  return begin + skip;
}

void *map_object(int fd, size_t bytes, int protection) noexcept {
  void *base = ::mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
  ::close(fd);
  return base;
}

std::atomic<uint32_t> next_region{1};

}  // namespace

size_t Region::bytes_for(const Shape &shape) noexcept {
  size_t bytes = kHeaderBytes;
  for (uint32_t p = 0; p < kParts; ++p) {
    bytes += round_up(quire::part_bytes(static_cast<Part>(p), shape), kPartAlignment);
  }
  return round_up(bytes, 4096);
}

Status Region::create(const char *name, const Shape &shape) noexcept {
  const size_t bytes = bytes_for(shape);
  void *base = MAP_FAILED;
  if (name == nullptr) {
    // A process that died may have had our pid: take the next number until a name is free.
    for (int attempt = 0; attempt < 1000 && base == MAP_FAILED; ++attempt) {
      std::snprintf(name_, sizeof name_, "quire.%ld.%u", static_cast<long>(::getpid()),
                    next_region.fetch_add(1, std::memory_order_relaxed));
      const int fd = make_object(name_, bytes);
      if (fd >= 0) {
        base = map_object(fd, bytes, PROT_READ | PROT_WRITE);
      } else if (errno != EEXIST) {
        break;
      }
    }
    if (base == MAP_FAILED) name_[0] = 0;
  } else if (std::strcmp(name, "-") != 0) {
    if (!valid_name(name)) {
      return set_error(Status::kInvalid, "segment: \"%s\" is not a name", name);
    }
    const int fd = make_object(name, bytes);
    if (fd < 0) {
      const Status status = errno == EEXIST ? Status::kInvalid : Status::kNomem;
      return set_error(status, "segment %s, %zu bytes: %s", name, bytes, std::strerror(errno));
    }
    std::snprintf(name_, sizeof name_, "%s", name);
    base = map_object(fd, bytes, PROT_READ | PROT_WRITE);
  }
  if (base == MAP_FAILED && name_[0] == 0) base = map_private(bytes);
  if (base == MAP_FAILED) {
    const int error = errno;
    if (name_[0] != 0) {
      char path[80];
      std::snprintf(path, sizeof path, "/%s", name_);
      ::shm_unlink(path);
      name_[0] = 0;
    }
    return set_error(Status::kNomem, "%zu bytes of metadata: %s", bytes, std::strerror(error));
  }
  base_ = base;
  bytes_ = bytes;
  owner_ = true;
  RegionHeader &h = header();
  h.version = RegionHeader::kVersion;
  h.library = QUIRE_VERSION_NUMBER;
  h.bytes = bytes;
  h.pid = static_cast<uint64_t>(::getpid());
  h.process_start = process_start(h.pid);
  h.shape = shape;
  place_parts(shape);
  std::copy_n(offset_, kParts, h.offset);
  std::copy_n(length_, kParts, h.length);
  return Status::kOk;
}

// Where the parts of that shape lie; where the last one ends.
size_t Region::place_parts(const Shape &shape) noexcept {
  shape_ = shape;
  size_t offset = kHeaderBytes;
  for (uint32_t p = 0; p < kParts; ++p) {
    offset_[p] = offset;
    length_[p] = quire::part_bytes(static_cast<Part>(p), shape);
    offset += round_up(length_[p], kPartAlignment);
  }
  return offset;
}

void Region::finish() noexcept {
  // release: pairs with the acquire in attach(); whoever sees the magic sees a formatted region.
  header().magic.store(RegionHeader::kMagic, std::memory_order_release);
}

Status Region::attach(const char *name) noexcept {
  if (!valid_name(name)) return set_error(Status::kInvalid, "\"%s\" is not a name", name);
  char path[80];
  std::snprintf(path, sizeof path, "/%s", name);
  const int fd = ::shm_open(path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return set_error(Status::kIo, "segment %s: %s", name, std::strerror(errno));
  struct stat st = {};
  if (::fstat(fd, &st) != 0 || st.st_size < static_cast<off_t>(kHeaderBytes)) {
    ::close(fd);
    return set_error(Status::kCorrupt, "segment %s is too short to be one of Quire", name);
  }
  const auto bytes = static_cast<size_t>(st.st_size);
  void *base = map_object(fd, bytes, PROT_READ);
  if (base == MAP_FAILED) {
    return set_error(Status::kIo, "segment %s: %s", name, std::strerror(errno));
  }
  base_ = base;
  bytes_ = bytes;
  owner_ = false;
  std::snprintf(name_, sizeof name_, "%s", name);
  Status status = Status::kOk;
  // acquire: pairs with the release in finish().
  if (header().magic.load(std::memory_order_acquire) != RegionHeader::kMagic) {
    status = set_error(Status::kCorrupt, "segment %s is not one of Quire, or not finished", name);
  } else if (header().version != RegionHeader::kVersion) {
    status = set_error(Status::kVersion, "segment %s has layout %u, this library reads %u", name,
                       header().version, RegionHeader::kVersion);
  } else if (!adopt()) {
    status = set_error(Status::kCorrupt, "segment %s: its header contradicts itself", name);
  }
  if (status != Status::kOk) destroy();
  return status;
}

void Region::destroy() noexcept {
  if (base_ == nullptr) return;
  if (owner_ && name_[0] != 0) {
    char path[80];
    std::snprintf(path, sizeof path, "/%s", name_);
    ::shm_unlink(path);
  }
  ::munmap(base_, bytes_);
  base_ = nullptr;
  bytes_ = 0;
  owner_ = false;
  name_[0] = 0;
}

// Takes the shape over from a header that is not believed. It comes first: lengths that follow from
// it are compared with what is mapped.
bool Region::adopt() noexcept {
  const Shape s = header().shape;
  constexpr uint32_t kMost = 1u << 30;
  if (s.frames > kMost || s.open_frames > kMost || s.leases > kMost || s.spaces > kMost ||
      s.streams > kMost || s.guards > kMost || s.page_tokens > kMost || s.keeps_tokens > 1 ||
      s.pages != s.frames + s.open_frames) {
    return false;
  }
  return place_parts(s) <= bytes_ && validate();
}

bool Region::validate() const noexcept {
  const RegionHeader &h = header();
  static_assert(std::is_trivially_copyable_v<Shape>);
  return h.bytes == bytes_ && std::memcmp(&h.shape, &shape_, sizeof shape_) == 0 &&
         std::equal(offset_, offset_ + kParts, h.offset) &&
         std::equal(length_, length_ + kParts, h.length);
}

bool region_alive(const RegionHeader &header) noexcept {
  return header.process_start != 0 && process_start(header.pid) == header.process_start;
}

}  // namespace quire
