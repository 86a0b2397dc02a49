#include "runtime/config.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <system_error>

namespace quire {
namespace {

uint64_t monotonic_ms(void *) noexcept {
  timespec t = {};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000 + static_cast<uint64_t>(t.tv_nsec) / 1000000;
}

constexpr size_t kFrameAlignment = 256;

// Open pages where the config leaves their number open.
constexpr uint32_t kFewestOpen = 32;
constexpr uint32_t kMostOpen = 4096;

enum class FieldKind : uint8_t {
  kU32,
  kU64Bytes,
  kHeadDim,
  kFloat,
  kI32,
  kFormat,
  kPolicy,
  kDevice,
  kSegment,
  kRopeTheta
};

struct FieldName {
  const char *name;
  FieldKind kind;
  size_t offset;
};

#define QUIRE_FIELD(name, kind) \
  { #name, FieldKind::kind, offsetof(quire_config, name) }
#define QUIRE_GEOMETRY(name) \
  { #name, FieldKind::kU32, offsetof(quire_config, geometry.name) }
constexpr FieldName kFields[] = {
    QUIRE_GEOMETRY(layers),
    QUIRE_GEOMETRY(kv_heads),
    QUIRE_GEOMETRY(head_dim_k),
    QUIRE_GEOMETRY(head_dim_v),
    QUIRE_GEOMETRY(page_tokens),
    {"head_dim", FieldKind::kHeadDim, 0},
    {"rope_dim", FieldKind::kU32, offsetof(quire_config, geometry.rope.rotary_dim)},
    {"rope_interleaved", FieldKind::kU32, offsetof(quire_config, geometry.rope.interleaved)},
    {"rope_theta", FieldKind::kRopeTheta, 0},
    {"format", FieldKind::kFormat, 0},
    {"policy", FieldKind::kPolicy, 0},
    {"device", FieldKind::kDevice, 0},
    {"segment", FieldKind::kSegment, 0},
    QUIRE_FIELD(device_bytes, kU64Bytes),
    QUIRE_FIELD(device_pages, kU32),
    QUIRE_FIELD(open_pages, kU32),
    QUIRE_FIELD(host_bytes, kU64Bytes),
    QUIRE_FIELD(max_leases, kU32),
    QUIRE_FIELD(max_sequences, kU32),
    QUIRE_FIELD(max_namespaces, kU32),
    QUIRE_FIELD(max_streams, kU32),
    QUIRE_FIELD(max_threads, kU32),
    QUIRE_FIELD(verify_tokens, kU32),
    QUIRE_FIELD(epoch_ms, kU32),
    QUIRE_FIELD(idle_ttl_ms, kU32),
    QUIRE_FIELD(low_watermark, kFloat),
    QUIRE_FIELD(high_watermark, kFloat),
    QUIRE_FIELD(reclaim_threads, kU32),
    QUIRE_FIELD(numa_node, kI32),
    QUIRE_FIELD(fast_scales, kU32),
    QUIRE_FIELD(device_ordinal, kU32),
    QUIRE_FIELD(events, kU32),
};
#undef QUIRE_FIELD
#undef QUIRE_GEOMETRY

// What follows the number, nullptr where there is none. A point is a point, whatever the host
// program's locale says.
const char *parse_prefix(const char *text, double *out) noexcept {
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), *out);
  return error == std::errc() && std::isfinite(*out) ? end : nullptr;
}

bool parse_number(const char *text, double *out) noexcept {
  const char *const end = parse_prefix(text, out);
  return end != nullptr && *end == 0;
}

bool parse_whole(const char *text, uint64_t *out) noexcept {
  if (std::isdigit(static_cast<unsigned char>(*text)) == 0) return false;
  char *end = nullptr;
  errno = 0;
  *out = std::strtoull(text, &end, 10);
  return errno == 0 && *end == 0;
}

Status bad_value(const char *name, const char *value, const char *wanted) noexcept {
  return set_error(Status::kInvalid, "%s=%s: %s", name, value, wanted);
}

Status set_u32(quire_config *config, const FieldName &field, const char *value) noexcept {
  uint64_t n = 0;
  if (std::strcmp(field.name, "epoch_ms") == 0 && std::strcmp(value, "none") == 0) {
    n = QUIRE_NO_TIMER;
  } else if (!parse_whole(value, &n) || n > UINT32_MAX) {
    return bad_value(field.name, value, "a whole number is wanted");
  }
  const auto narrow = static_cast<uint32_t>(n);
  std::memcpy(reinterpret_cast<char *>(config) + field.offset, &narrow, sizeof narrow);
  return Status::kOk;
}

Status set_device(quire_config *config, const char *value) noexcept {
  if (std::strcmp(value, "auto") == 0) {
    config->device = QUIRE_DEVICE_AUTO;
  } else if (std::strcmp(value, "cpu") == 0) {
    config->device = QUIRE_DEVICE_CPU;
  } else if (std::strcmp(value, "cuda") == 0) {
    config->device = QUIRE_DEVICE_CUDA;
  } else if (!parse_bytes(value, &config->device_bytes)) {
    return bad_value("device", value, "cpu, cuda, auto or a size such as 8GiB is wanted");
  }
  return Status::kOk;
}

Status set_named(quire_config *config, const FieldName &field, const char *value) noexcept {
  if (field.kind == FieldKind::kFormat) {
    const int id = quire_format_from_name(value);
    if (id < 0) return bad_value(field.name, value, "not the name of a format");
    config->format = static_cast<uint32_t>(id);
    return Status::kOk;
  }
  if (std::strcmp(value, "lru") == 0) {
    config->policy = QUIRE_POLICY_LRU;
  } else if (std::strcmp(value, "priority") == 0) {
    config->policy = QUIRE_POLICY_PRIORITY;
  } else if (std::strcmp(value, "hazard") == 0) {
    config->policy = QUIRE_POLICY_HAZARD;
  } else {
    return bad_value(field.name, value, "lru, priority or hazard is wanted");
  }
  return Status::kOk;
}

struct Parsed {
  double rope_theta = 0;
  char *strings;
  size_t room;
};

Status set_field(quire_config *config, const FieldName &field, const char *value,
                 Parsed *state) noexcept {
  char *at = reinterpret_cast<char *>(config) + field.offset;
  double number = 0;
  uint64_t whole = 0;
  switch (field.kind) {
    case FieldKind::kU32:
      return set_u32(config, field, value);
    case FieldKind::kU64Bytes:
      if (!parse_bytes(value, &whole)) return bad_value(field.name, value, "a size is wanted");
      std::memcpy(at, &whole, sizeof whole);
      return Status::kOk;
    case FieldKind::kHeadDim:
      if (!parse_whole(value, &whole) || whole > UINT32_MAX) {
        return bad_value(field.name, value, "a whole number is wanted");
      }
      config->geometry.head_dim_k = config->geometry.head_dim_v = static_cast<uint32_t>(whole);
      return Status::kOk;
    case FieldKind::kFloat: {
      if (!parse_number(value, &number)) return bad_value(field.name, value, "not a number");
      const auto narrow = static_cast<float>(number);
      std::memcpy(at, &narrow, sizeof narrow);
      return Status::kOk;
    }
    case FieldKind::kI32: {
      if (!parse_number(value, &number) || number != std::floor(number) ||
          std::fabs(number) > 1e6) {
        return bad_value(field.name, value, "a whole number is wanted");
      }
      const auto narrow = static_cast<int32_t>(number);
      std::memcpy(at, &narrow, sizeof narrow);
      return Status::kOk;
    }
    case FieldKind::kDevice:
      return set_device(config, value);
    case FieldKind::kFormat:
    case FieldKind::kPolicy:
      return set_named(config, field, value);
    case FieldKind::kRopeTheta:
      if (!parse_number(value, &state->rope_theta) || !(state->rope_theta > 0)) {
        return bad_value(field.name, value, "a positive number is wanted");
      }
      return Status::kOk;
    case FieldKind::kSegment: {
      const size_t n = std::strlen(value) + 1;
      if (n > state->room) return bad_value(field.name, value, "too long");
      std::memcpy(state->strings, value, n);
      config->segment = state->strings;
      state->strings += n;
      state->room -= n;
      return Status::kOk;
    }
  }
  return set_error(Status::kInvalid, "%s cannot be set from text", field.name);
}

Status invalid(const char *field, const char *why) noexcept {
  return set_error(Status::kInvalid, "config: %s: %s", field, why);
}

Status unsupported(const char *field, const char *why) noexcept {
  return set_error(Status::kUnsupported, "config: %s: %s", field, why);
}

Status check_parts(const quire_config &c) noexcept {
  if (c.device > QUIRE_DEVICE_CUDA) return invalid("device", "not a quire_device_kind");
  if (c.host_bytes != 0) return unsupported("host_bytes", "this version has no host tier");
  if (c.file_path != nullptr) return unsupported("file_path", "this version has no file tier");
  if (c.policy > QUIRE_POLICY_HAZARD) return invalid("policy", "not a quire_policy");
  if ((c.allocator.alloc == nullptr) != (c.allocator.free == nullptr)) {
    return invalid("allocator", "alloc and free come together");
  }
  if (!(c.low_watermark >= 0 && c.low_watermark < 1)) {
    return invalid("low_watermark", "a share from 0 to below 1 is wanted");
  }
  if (!(c.high_watermark >= 0 && c.high_watermark < 1)) {
    return invalid("high_watermark", "a share from 0 to below 1 is wanted");
  }
  if (c.high_watermark != 0 && c.high_watermark < c.low_watermark) {
    return invalid("high_watermark", "below low_watermark");
  }
  if (c.verify_tokens > 1) return invalid("verify_tokens", "0 or 1 is wanted");
  if (c.device_ordinal > 1023) return invalid("device_ordinal", "at most 1023");
  if (c.events > 1) return invalid("events", "0 or 1 is wanted");
  if (c.fast_scales > 1) return invalid("fast_scales", "0 or 1 is wanted");
  if (c.reclaim_threads > 1024) return invalid("reclaim_threads", "at most 1024");
  if (c.max_leases > (1u << 28)) return invalid("max_leases", "at most 2^28");
  if (c.max_sequences > (1u << 28)) return invalid("max_sequences", "at most 2^28");
  if (c.max_namespaces > (1u << 24)) return invalid("max_namespaces", "at most 2^24");
  if (c.max_streams > 16384) return invalid("max_streams", "at most 16384");
  if (c.max_threads > 65536) return invalid("max_threads", "at most 65536");
  return Status::kOk;
}

template <class T>
void fill(T *field, T value) noexcept {
  if (*field == 0) *field = value;
}

}  // namespace

uint64_t frame_bytes(const quire_page_layout &layout) noexcept {
  return (layout.page_bytes + kFrameAlignment - 1) / kFrameAlignment * kFrameAlignment;
}

bool parse_bytes(const char *text, uint64_t *bytes) noexcept {
  if (std::isdigit(static_cast<unsigned char>(*text)) == 0) return false;
  double value = 0;
  const char *const end = parse_prefix(text, &value);
  if (end == nullptr) return false;
  static constexpr struct {
    const char *name;
    double factor;
  } kUnits[] = {{"", 1},
                {"B", 1},
                {"K", 1024},
                {"M", 1048576},
                {"G", 1073741824},
                {"KiB", 1024},
                {"MiB", 1048576},
                {"GiB", 1073741824},
                {"TiB", 1099511627776.0},
                {"KB", 1e3},
                {"MB", 1e6},
                {"GB", 1e9},
                {"TB", 1e12}};
  for (const auto &unit : kUnits) {
    if (std::strcmp(end, unit.name) != 0) continue;
    const double total = std::floor(value * unit.factor);
    if (total > 9e18) return false;
    *bytes = static_cast<uint64_t>(total);
    return true;
  }
  return false;
}

void config_defaults(quire_config *config) noexcept {
  const uint32_t size = config->size;
  *config = quire_config{};
  config->size = size;
  config->geometry.page_tokens = 64;
  config->format = QUIRE_FORMAT_NF4;
  config->max_sequences = 65536;
  config->max_streams = 64;
  config->max_threads = 256;
  config->epoch_ms = 1;
  config->reclaim_threads = 1;
}

Status config_parse(quire_config *config, const char *text, char *text_buffer,
                    size_t buffer_bytes) noexcept {
  char copy[1024];
  const size_t length = std::strlen(text);
  if (length >= sizeof copy) return set_error(Status::kInvalid, "config text of %zu bytes", length);
  std::memcpy(copy, text, length + 1);
  quire_config next = *config;
  Parsed state{0, text_buffer, buffer_bytes};
  char *save = nullptr;
  for (char *item = ::strtok_r(copy, ",", &save); item != nullptr;
       item = ::strtok_r(nullptr, ",", &save)) {
    while (std::isspace(static_cast<unsigned char>(*item)) != 0) ++item;
    char *value = std::strchr(item, '=');
    if (value == nullptr) return set_error(Status::kInvalid, "\"%s\" is not name=value", item);
    *value++ = 0;
    const auto *const field =
        std::find_if(std::begin(kFields), std::end(kFields),
                     [item](const FieldName &f) { return std::strcmp(f.name, item) == 0; });
    if (field == std::end(kFields)) {
      return set_error(Status::kInvalid, "\"%s\" is not the name of a setting", item);
    }
    if (const Status s = set_field(&next, *field, value, &state); s != Status::kOk) return s;
  }
  if (state.rope_theta > 0) {
    quire_rope &rope = next.geometry.rope;
    const uint32_t dim = rope.rotary_dim != 0 ? rope.rotary_dim : next.geometry.head_dim_k;
    if (dim == 0 ||
        quire_rope_init(&rope, dim, state.rope_theta, static_cast<int>(rope.interleaved)) != 0) {
      return set_error(Status::kInvalid, "rope_theta: rope_dim %u cannot be turned", dim);
    }
  }
  *config = next;
  return Status::kOk;
}

void config_budget(Config *config) noexcept {
  quire_config &v = config->values;
  const uint64_t sealed = frame_bytes(config->layout);
  const uint64_t open = frame_bytes(config->open_layout);
  if (v.device_pages == 0) {
    uint64_t pages = 0;
    if (!config->has_open) {
      pages = v.device_bytes / sealed;
    } else if (v.open_pages != 0) {
      const uint64_t taken = open * v.open_pages;
      pages = v.device_bytes > taken ? (v.device_bytes - taken) / sealed : 0;
    } else {
      // n sealed frames come with clamp(n / 8, kFewestOpen, kMostOpen) open ones.
      pages = v.device_bytes / (sealed + open / 8);
      if (pages / 8 < kFewestOpen) {
        const uint64_t taken = kFewestOpen * open;
        pages = v.device_bytes > taken ? (v.device_bytes - taken) / sealed : 0;
      } else if (pages / 8 > kMostOpen) {
        pages = (v.device_bytes - kMostOpen * open) / sealed;
      }
    }
    v.device_pages = static_cast<uint32_t>(std::min<uint64_t>(pages, 1u << 30));
  }
  if (!config->has_open) {
    v.open_pages = 0;
  } else if (v.open_pages == 0) {
    v.open_pages = std::clamp(v.device_pages / 8, kFewestOpen, kMostOpen);
  }
}

Status config_layouts(const quire_config &from, Config *out) noexcept {
  out->values = from;
  quire_config &v = out->values;
  fill(&v.geometry.page_tokens, 64u);
  if (quire_geometry_valid(&v.geometry) == 0) {
    return invalid(
        "geometry",
        "layers, kv_heads (1 to 4096), head_dim_k (a multiple of 8 to 1024), head_dim_v (0 or "
        "likewise) and page_tokens (a multiple of 8 to 1024) are wanted");
  }
  const int made = quire_page_layout_init(&out->layout, &v.geometry, v.format, 0);
  if (made == -2) return unsupported("format", "this format has no layout in this version");
  if (made != 0) return invalid("format", "not a quire_format_id, or the head dims do not fit it");
  out->has_open = quire_format_has_open_pages(v.format) != 0;
  out->open_layout = out->layout;
  if (out->has_open && quire_page_layout_init(&out->open_layout, &v.geometry, v.format, 1) != 0) {
    return invalid("format", "no open layout for this geometry");
  }
  return Status::kOk;
}

Status config_resolve(const quire_config &from, Config *out) noexcept {
  if (const Status s = check_parts(from); s != Status::kOk) return s;
  if (const Status s = config_layouts(from, out); s != Status::kOk) return s;
  quire_config &v = out->values;
  if (v.device_pages == 0 && v.device_bytes == 0) {
    return invalid("device_bytes", "a budget is wanted: device_bytes or device_pages");
  }
  config_budget(out);
  if (v.device_pages == 0) return invalid("device_bytes", "not enough for one page");
  if (v.device_pages > (1u << 30) || v.open_pages > (1u << 30)) {
    return invalid("device_pages", "at most 2^30 frames of a class");
  }
  fill(&v.max_sequences, 65536u);
  fill(&v.max_streams, 64u);
  fill(&v.max_threads, 256u);
  fill(&v.epoch_ms, 1u);
  fill(&v.reclaim_threads, 1u);
  if (v.high_watermark == 0) v.high_watermark = v.low_watermark;
  if (v.clock == nullptr) v.clock = monotonic_ms;
  if (v.codebook != nullptr) {
    std::copy_n(v.codebook, 16, out->codebook);
    v.codebook = out->codebook;
  }
  out->has_secret = v.secret != nullptr;
  if (out->has_secret) std::copy_n(v.secret, sizeof out->secret, out->secret);
  v.secret = nullptr;
  if (v.segment != nullptr) {
    if (std::strlen(v.segment) >= sizeof out->segment) return invalid("segment", "too long a name");
    std::strcpy(out->segment, v.segment);
    v.segment = out->segment;
  }
  Shape &s = out->shape;
  s.frames = v.device_pages;
  s.open_frames = v.open_pages;
  s.pages = s.frames + s.open_frames;
  // Tables whose size nobody has named take a share of the metadata that does not depend on the
  // number of pages, but for very few and very many of them.
  fill(&v.max_leases, std::clamp(s.pages / 64, 2048u, 65536u));
  fill(&v.max_namespaces, std::clamp(s.pages / 256, 512u, 4096u));
  s.leases = v.max_leases;
  s.spaces = v.max_namespaces;
  s.streams = v.max_streams;
  s.guards = v.max_threads;
  s.page_tokens = v.geometry.page_tokens;
  s.keeps_tokens = v.verify_tokens;
  return Status::kOk;
}

}  // namespace quire
