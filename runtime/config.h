// Config: a quire_config with every default filled in, checked, and with its own copies of what the
// caller pointed to. What cannot be served is refused here, so that the rest of the cache need not
// ask again.
//
// Immutable once a cache is open.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quire/quire.h"
#include "runtime/region.h"
#include "runtime/status.h"

namespace quire {

struct Config {
  quire_config values = {};  // pointers: into this object, or NULL
  quire_page_layout layout = {};
  quire_page_layout open_layout = {};  // of the sealed layout where the format has no open pages
  Shape shape = {};
  bool has_open = false;
  float codebook[16] = {};
  uint8_t secret[32] = {};
  bool has_secret = false;
  char segment[64] = {};

  uint32_t page_tokens() const noexcept { return values.geometry.page_tokens; }
};

void config_defaults(quire_config *config) noexcept;
// "name=value,name=value" over *config. `text_buffer` keeps strings.
Status config_parse(quire_config *config, const char *text, char *text_buffer,
                    size_t buffer_bytes) noexcept;
// kInvalid, kUnsupported, with the field's name.
Status config_resolve(const quire_config &from, Config *out) noexcept;
// As config_resolve, for planning: a budget that is too small is an answer there (no frames).
Status config_layouts(const quire_config &from, Config *out) noexcept;
// Frames of both classes that device_bytes gives.
void config_budget(Config *config) noexcept;

// Of a frame that holds a page of this layout: frames begin at multiples of 256 bytes.
uint64_t frame_bytes(const quire_page_layout &layout) noexcept;

// A size: digits, and KiB, MiB, GiB, TiB (1024) or KB, MB, GB, TB (1000). False where it is none.
bool parse_bytes(const char *text, uint64_t *bytes) noexcept;

}  // namespace quire
