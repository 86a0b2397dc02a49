// The C API's segment, as a C++ value; and the one error of this program.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "quire/quire.h"

namespace quire_stat {

// Exit codes, in the manner of fsck and grep: 1 is an answer, 2 is no answer.
inline constexpr int kExitOk = 0;
inline constexpr int kExitCheckFailed = 1;
inline constexpr int kExitTrouble = 2;

// What ends a command with kExitTrouble and this sentence.
struct Trouble : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws Trouble with quire's own sentence, unless OK.
void must(quire_status status);

std::vector<quire_segment_record> list_segments();

// `name`, or where that is empty the only segment there is.
std::string pick_segment(const std::string &name);

class Segment {
 public:
  explicit Segment(const std::string &name) { must(quire_segment_attach(name.c_str(), &segment_)); }
  Segment(const Segment &) = delete;
  Segment &operator=(const Segment &) = delete;
  ~Segment() { quire_segment_detach(segment_); }

  quire_segment_record info() const;
  quire_layout_info layout() const;
  quire_stats stats() const;
  std::string json() const;
  std::string prometheus() const;
  // "" where all is well, else the first violation.
  std::string check() const;
  std::vector<quire_lease_record> leases() const;
  // The next events from *cursor on, as quire_segment_events; adds to *lost.
  std::vector<quire_event> events(uint64_t *cursor, uint64_t *lost) const;

 private:
  quire_segment *segment_ = nullptr;
};

}  // namespace quire_stat
