// The C boundary casts a Status to a quire_status: here the compiler checks that it may.
#include "runtime/status.h"

#include "quire/quire.h"

namespace quire {

static_assert(static_cast<int>(Status::kOk) == QUIRE_OK);
static_assert(static_cast<int>(Status::kInvalid) == QUIRE_E_INVALID);
static_assert(static_cast<int>(Status::kNomem) == QUIRE_E_NOMEM);
static_assert(static_cast<int>(Status::kAgain) == QUIRE_E_AGAIN);
static_assert(static_cast<int>(Status::kStale) == QUIRE_E_STALE);
static_assert(static_cast<int>(Status::kBusy) == QUIRE_E_BUSY);
static_assert(static_cast<int>(Status::kDevice) == QUIRE_E_DEVICE);
static_assert(static_cast<int>(Status::kIo) == QUIRE_E_IO);
static_assert(static_cast<int>(Status::kCorrupt) == QUIRE_E_CORRUPT);
static_assert(static_cast<int>(Status::kUnsupported) == QUIRE_E_UNSUPPORTED);
static_assert(static_cast<int>(Status::kVersion) == QUIRE_E_VERSION);

}  // namespace quire
