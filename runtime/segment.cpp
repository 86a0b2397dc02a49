#include "runtime/segment.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "runtime/cache.h"
#include "runtime/check.h"

namespace quire {
namespace {

// Where POSIX shared memory is a file system, which on Linux it is.
constexpr const char *kFolder = "/dev/shm";

// What an outsider has to know before it maps anything.
struct Peek {
  bool ours = false;  // the magic is there
  bool alive = false;
  uint32_t version = 0;
  uint64_t pid = 0;
  uint64_t bytes = 0;
};

Status peek(const char *name, Peek *out) noexcept {
  if (std::strchr(name, '/') != nullptr || std::strlen(name) > 63) {
    return set_error(Status::kInvalid, "\"%s\" is not the name of a segment", name);
  }
  char path[80];
  std::snprintf(path, sizeof path, "/%s", name);
  const int fd = ::shm_open(path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return set_error(Status::kIo, "segment %s: %s", name, std::strerror(errno));
  alignas(RegionHeader) char bytes[sizeof(RegionHeader)] = {};
  struct stat st = {};
  const bool read = ::fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
                    ::pread(fd, bytes, sizeof bytes, 0) == static_cast<ssize_t>(sizeof bytes);
  ::close(fd);
  *out = Peek{};
  if (!read) return Status::kOk;  // too short to be one of ours
  const auto *header = reinterpret_cast<const RegionHeader *>(bytes);
  out->ours = header->magic.load(std::memory_order_relaxed) == RegionHeader::kMagic;
  out->alive = region_alive(*header);
  out->version = header->version;
  out->pid = header->pid;
  out->bytes = static_cast<uint64_t>(st.st_size);
  return Status::kOk;
}

void fill_record(const char *name, const Peek &from, quire_segment_record *out) noexcept {
  out->alive = from.alive ? 1 : 0;
  out->pid = from.pid;
  out->bytes = from.bytes;
  std::snprintf(out->name, sizeof out->name, "%.63s", name);
}

}  // namespace

Status segment_list(quire_segment_record *out, size_t *n) noexcept {
  DIR *const folder = ::opendir(kFolder);
  if (folder == nullptr) {
    return set_error(Status::kIo, "%s: %s", kFolder, std::strerror(errno));
  }
  size_t found = 0;
  while (const dirent *const entry = ::readdir(folder)) {
    Peek segment;
    // What cannot be opened (of another user, or gone since) or is not ours is passed over.
    if (entry->d_name[0] == '.' || peek(entry->d_name, &segment) != Status::kOk) continue;
    if (!segment.ours) continue;
    if (found < *n) fill_record(entry->d_name, segment, &out[found]);
    ++found;
  }
  ::closedir(folder);
  *n = found;
  return Status::kOk;
}

Status segment_remove(const char *name) noexcept {
  Peek segment;
  if (const Status s = peek(name, &segment); s != Status::kOk) return s;
  if (!segment.ours) {
    return set_error(Status::kCorrupt, "segment %s is not one of Quire", name);
  }
  // Where a pid lies depends on the layout: with another one, nobody here knows who made it.
  if (segment.version != RegionHeader::kVersion) {
    return set_error(Status::kVersion, "segment %s has layout %u, this library knows %u", name,
                     segment.version, RegionHeader::kVersion);
  }
  if (segment.alive) {
    return set_error(Status::kBusy, "segment %s: its process, %llu, is running", name,
                     static_cast<unsigned long long>(segment.pid));
  }
  char path[80];
  std::snprintf(path, sizeof path, "/%s", name);
  if (::shm_unlink(path) != 0) {
    return set_error(Status::kIo, "segment %s: %s", name, std::strerror(errno));
  }
  return Status::kOk;
}

Status Segment::attach(const char *name) noexcept {
  if (const Status s = region_.attach(name); s != Status::kOk) return s;
  tables_.emplace(region_);
  return Status::kOk;
}

ReportSource Segment::source() const noexcept {
  const RegionHeader &h = region_.header();
  // relaxed: a figure. An engine that died is looked at as of its last tick.
  return ReportSource{region_, *tables_, h.arena_bytes, h.now_ms.load(std::memory_order_relaxed)};
}

void Segment::info(quire_segment_record *out) const noexcept {
  const RegionHeader &h = region_.header();
  fill_record(region_.name(), Peek{true, alive(), h.version, h.pid, region_.bytes()}, out);
}

Status Segment::layout(quire_layout_info *out) const noexcept {
  const RegionHeader &h = region_.header();
  const quire_geometry geometry = h.geometry;
  if (quire_geometry_valid(&geometry) == 0 ||
      quire_page_layout_init(&out->layout, &geometry, h.format, 0) != QUIRE_LAYOUT_OK) {
    return set_error(Status::kCorrupt, "segment %s: its geometry or format is none",
                     region_.name());
  }
  out->open_layout = out->layout;
  const bool has_open = quire_format_has_open_pages(h.format) != 0;
  if (has_open &&
      quire_page_layout_init(&out->open_layout, &geometry, h.format, 1) != QUIRE_LAYOUT_OK) {
    return set_error(Status::kCorrupt, "segment %s: its open pages have no layout", region_.name());
  }
  out->frames = region_.shape().frames;
  out->open_frames = region_.shape().open_frames;
  out->format = h.format;
  out->base = nullptr;
  out->open_base = nullptr;
  out->stride = h.frame_bytes;
  out->open_stride = has_open ? h.open_frame_bytes : 0;
  out->geometry = geometry;
  out->device = h.device;
  return Status::kOk;
}

Status Segment::check() const noexcept {
  return check_tables(region_, *tables_, alive() ? QUIRE_CHECK_LIVE : 0);
}

Status Segment::lease_next(quire_lease *lease, quire_lease_record *out) const noexcept {
  Handle handle;
  uint32_t from = 0;
  if (*lease != 0) {
    if (!unpack_handle(HandleKind::kLease, kNoCacheTag, *lease, &handle) ||
        handle.index >= tables_->leases.capacity()) {
      return set_error(Status::kStale, "no lease of this walk");
    }
    from = handle.index + 1;
  }
  *lease = 0;
  if (!tables_->leases.next(from, &handle)) return Status::kOk;
  describe_lease(*tables_, handle, kNoCacheTag, source().now_ms, out);
  *lease = pack_handle(HandleKind::kLease, kNoCacheTag, handle);
  return Status::kOk;
}

bool Segment::namespace_next(uint32_t *at, quire_namespace_record *out) const noexcept {
  return next_namespace(*tables_, at, out);
}

}  // namespace quire
