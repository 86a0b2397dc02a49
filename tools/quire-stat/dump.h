// The text that a person reads: everything about a cache that matters, on one screen of 80 columns.
#pragma once

#include <cstdint>
#include <string>

#include "segment.h"

namespace quire_stat {

// "quire.4711.1  nf4, 32 layers x 8 heads x 128, 64 tokens a page    pid 4711, live"
std::string headline(const Segment &segment);

std::string dump_text(const Segment &segment);

// Leases one a row; most urgent first. `most` rows, then how many more there are.
std::string leases_text(const Segment &segment, size_t most);

}  // namespace quire_stat
