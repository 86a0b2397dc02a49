// Units: K rows of quantised formats are stored by quarter blocks (page_format.h). These move a row
// of codes between its natural order and that one: a transposition of a [blocks][4] matrix of
// units.
//
// Thread class: pure. Cost: one move a unit.
#pragma once

#include <cstdint>
#include <cstring>

namespace quire::kernels {

template <class Unit>
inline void units_to_stored(const uint8_t *natural, uint32_t blocks, uint8_t *stored) {
  for (uint32_t b = 0; b < blocks; ++b) {
    for (uint32_t t = 0; t < 4; ++t) {
      std::memcpy(stored + (t * blocks + b) * sizeof(Unit), natural + (b * 4 + t) * sizeof(Unit),
                  sizeof(Unit));
    }
  }
}

template <class Unit>
inline void units_to_natural(const uint8_t *stored, uint32_t blocks, uint8_t *natural) {
  for (uint32_t b = 0; b < blocks; ++b) {
    for (uint32_t t = 0; t < 4; ++t) {
      std::memcpy(natural + (b * 4 + t) * sizeof(Unit), stored + (t * blocks + b) * sizeof(Unit),
                  sizeof(Unit));
    }
  }
}

struct Unit16 {
  uint8_t bytes[16];
};

// unit_bytes: 1, 2, 4, 8 or 16.
inline void to_stored(const uint8_t *natural, uint32_t blocks, uint32_t unit_bytes,
                      uint8_t *stored) {
  switch (unit_bytes) {
    case 1:
      units_to_stored<uint8_t>(natural, blocks, stored);
      break;
    case 2:
      units_to_stored<uint16_t>(natural, blocks, stored);
      break;
    case 4:
      units_to_stored<uint32_t>(natural, blocks, stored);
      break;
    case 8:
      units_to_stored<uint64_t>(natural, blocks, stored);
      break;
    default:
      units_to_stored<Unit16>(natural, blocks, stored);
      break;
  }
}

inline void to_natural(const uint8_t *stored, uint32_t blocks, uint32_t unit_bytes,
                       uint8_t *natural) {
  switch (unit_bytes) {
    case 1:
      units_to_natural<uint8_t>(stored, blocks, natural);
      break;
    case 2:
      units_to_natural<uint16_t>(stored, blocks, natural);
      break;
    case 4:
      units_to_natural<uint32_t>(stored, blocks, natural);
      break;
    case 8:
      units_to_natural<uint64_t>(stored, blocks, natural);
      break;
    default:
      units_to_natural<Unit16>(stored, blocks, natural);
      break;
  }
}

}  // namespace quire::kernels
