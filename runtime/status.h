// The runtime's name for the library's error type; it is defined one layer down, where the arenas
// and the heap report with it too.
#pragma once

#include "allocators/status.h"  // IWYU pragma: export
