// The model that comes with the demo, as part of the program: see model/MODEL.md.
#ifndef QUIRE_DEMO_EMBEDDED_MODEL_H
#define QUIRE_DEMO_EMBEDDED_MODEL_H

#include <cstddef>
#include <span>

namespace quire::demo {

std::span<const std::byte> embedded_model();

}  // namespace quire::demo

#endif  // QUIRE_DEMO_EMBEDDED_MODEL_H
