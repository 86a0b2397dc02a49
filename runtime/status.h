// The runtime's name for the library's error type. It is defined one layer down, where the arenas
// and the heap report with it too; status.cpp holds its values against those of the C API.
#pragma once

#include "allocators/status.h"  // IWYU pragma: export
