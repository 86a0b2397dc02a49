// Units: figures as a person reads them, in few characters: 1,234,567   12.3M   4.25 MiB   3.2 min.
#pragma once

#include <cstdint>
#include <string>

namespace quire_stat {

// With separators: 1,234,567.
std::string count(uint64_t n);
// At most seven characters: 123,456, 1.23M, 45.6G.
std::string brief(uint64_t n);
// Three digits and a binary unit: 512 B, 4.25 MiB.
std::string bytes(double n);
// The largest unit that leaves a figure of one or more: 12 ms, 3.2 s, 4.5 min, 1.2 h, 3.4 d.
std::string duration_ms(uint64_t ms);
// 12.3 %
std::string percent(double ratio);
// ratio of `width` cells: ####......
std::string bar(double ratio, int width);

}  // namespace quire_stat
