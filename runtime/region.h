// Region: the one contiguous piece of memory that holds all metadata of a cache.
//
// Descriptors, index, pools, limbo, leases, namespaces, streams, epoch log, stats and events live
// in it, as arrays of plain words and atomics that name each other by index. There is no pointer in
// it, so it means the same at whatever address it is mapped: quire-stat maps it read-only while the
// engine runs, or after it died, and reads the live structures (runtime/segment.h).
//
//   | header, 4 KiB | part 0 | part 1 | ...        each part begins on a cache-line pair (128 bytes)
//
// A named region is a POSIX shared-memory object, "/<name>", mode 0600, made whole
// (posix_fallocate, so that a full /dev/shm is an error here and not a SIGBUS later) and unlinked
// by a clean close. A process that dies leaves it: that is what the post-mortem reads. A private
// region is anonymous memory.
//
// Invariants (validate() asserts them)
//   header.bytes == size of the mapping
//   header.offset[p] + header.length[p] <= header.offset[p + 1], in the order of Part
//   header.magic is written last: a region without it is not finished
//
// Thread class: create and destroy by one thread; reading by any.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "allocators/status.h"
#include "quire/page_format.h"

namespace quire {

// The capacities that decide how long each part is. Fixed for a region's life.
struct Shape {
  uint32_t pages = 0;        // descriptors = frames + open_frames
  uint32_t frames = 0;       // sealed
  uint32_t open_frames = 0;  // 0 in the plain formats
  uint32_t leases = 0;
  uint32_t spaces = 0;  // namespaces
  uint32_t streams = 0;
  uint32_t guards = 0;
  uint32_t page_tokens = 0;
  uint32_t keeps_tokens = 0;  // 1: token ids are stored a page
  uint32_t reserved = 0;
};

enum class Part : uint32_t {
  kPages,       // PageTable: descriptors, stamps, tags, idle TTLs
  kIndex,       // PrefixIndex over the pages
  kPagePool,    // FramePool of descriptors
  kFramePool,   // FramePool of sealed frames
  kOpenPool,    // FramePool of open frames
  kLimbo,       // Limbo of sealed frames
  kOpenLimbo,   // Limbo of open frames
  kFrameFlags,  // a byte a sealed frame, then a byte an open one
  kLeases,      // LeaseTable
  kLeasePool,   // FramePool of leases
  kSpaces,      // NamespaceTable
  kClock,       // EpochClock with its guards
  kLog,         // EpochLog
  kStreams,     // StreamTable
  kStats,       // Stats
  kEvents,      // EventRing
  kTokens,      // token ids, page_tokens a page
};
inline constexpr uint32_t kParts = static_cast<uint32_t>(Part::kTokens) + 1;

struct RegionHeader {
  static constexpr uint64_t kMagic = 0x31524745'52495551;  // "QUIREGR1", little endian
  static constexpr uint32_t kVersion = 4;                  // of everything in the region

  std::atomic<uint64_t> magic;
  uint32_t version;
  uint32_t library;  // QUIRE_VERSION_NUMBER of the maker
  uint64_t bytes;
  uint64_t pid;
  uint64_t process_start;  // field 22 of /proc/<pid>/stat: a pid that was reused is another process
  Shape shape;
  uint64_t offset[kParts];
  uint64_t length[kParts];
  // What the frames hold; for whoever reads from outside.
  uint32_t format;
  uint32_t policy;
  uint64_t frame_bytes;
  uint64_t open_frame_bytes;
  uint64_t arena_bytes;
  quire_geometry geometry;
  std::atomic<uint64_t> now_ms;  // the cache's clock at its last tick
  std::atomic<uint32_t>
      sequences;          // open; sequences live in the process, their number is told here
  uint32_t device;        // quire_device_kind of the frames; 0 by makers that knew one only
  uint64_t policy_bytes;  // outside the region; 0: the policy does not learn
  std::atomic<uint32_t> policy_classes;  // that it tells apart
};

class Region {
 public:
  Region() = default;
  Region(const Region &) = delete;
  Region &operator=(const Region &) = delete;
  ~Region() { destroy(); }

  // name: nullptr draws "quire.<pid>.<n>" and falls back to private memory where that cannot be
  // had; "-" is private memory; anything else is that name or an error (kInvalid: not a name, or
  // taken; kNomem: no room). All bytes but the header's are zero; magic is not written yet.
  Status create(const char *name, const Shape &shape) noexcept;

  // After the parts are formatted: from here on others may attach.
  void finish() noexcept;

  // Maps the region of that name read-only. kIo, kCorrupt, kVersion.
  Status attach(const char *name) noexcept;

  // Unmaps; the maker also unlinks the name.
  void destroy() noexcept;

  RegionHeader &header() const noexcept { return *static_cast<RegionHeader *>(base_); }
  void *part(Part part) const noexcept {
    return static_cast<char *>(base_) + offset_[static_cast<uint32_t>(part)];
  }
  size_t part_bytes(Part part) const noexcept { return length_[static_cast<uint32_t>(part)]; }
  // As create() was told, or attach() found and checked. The header's own may be changed under a
  // mapping by whoever can write to the segment: nothing is reached through that.
  const Shape &shape() const noexcept { return shape_; }
  const char *name() const noexcept { return name_; }  // "" when private
  size_t bytes() const noexcept { return bytes_; }
  bool attached() const noexcept { return base_ != nullptr && !owner_; }

  // The header says what shape() does, and that fits.
  bool validate() const noexcept;

  // What create() would map, for planning.
  static size_t bytes_for(const Shape &shape) noexcept;

 private:
  size_t place_parts(const Shape &shape) noexcept;
  bool adopt() noexcept;

  void *base_ = nullptr;
  size_t bytes_ = 0;
  bool owner_ = false;
  char name_[64] = {};
  Shape shape_;
  size_t offset_[kParts] = {};
  size_t length_[kParts] = {};
};

// True while the process that made the region runs.
bool region_alive(const RegionHeader &header) noexcept;

}  // namespace quire
