// Dispatch: which target kernels run on. Chosen at first use, forcible by name; see codec.h.
//
// Thread class: any thread. The choice is one atomic pointer: a call in flight ends on the target
// it began with, which gives the same bits.
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "kernels/codec.h"
#include "kernels/rows.h"
#include "kernels/simd_targets.h"

namespace quire::kernels {
namespace {

std::atomic<const RowKernels *> chosen{nullptr};

const RowKernels *find(const char *name) {
  const RowKernels *tables[kMaxTargets];
  const size_t n = usable_row_kernels(tables);
  if (name == nullptr || std::strcmp(name, "best") == 0) return tables[0];
  for (size_t i = 0; i < n; ++i) {
    if (std::strcmp(tables[i]->name, name) == 0) return tables[i];
  }
  return nullptr;
}

const RowKernels *choose() {
  const RowKernels *table = find(std::getenv("QUIRE_CPU_TARGET"));
  if (table == nullptr) table = find(nullptr);
  const RowKernels *expected = nullptr;
  // acq_rel pairs with the acquire in row_kernels(): tables are constants, the order costs nothing.
  return chosen.compare_exchange_strong(expected, table, std::memory_order_acq_rel) ? table
                                                                                    : expected;
}

}  // namespace

const RowKernels &row_kernels() noexcept {
  const RowKernels *table =
      chosen.load(std::memory_order_acquire);  // pairs with choose, select_target
  return table != nullptr ? *table : *choose();
}

const char *active_target() noexcept {
  return row_kernels().name;
}

bool select_target(const char *name) noexcept {
  const RowKernels *table = find(name);
  if (table == nullptr) return false;
  chosen.store(table, std::memory_order_release);  // pairs with the acquire in row_kernels
  return true;
}

size_t usable_targets(const char **names, size_t room) noexcept {
  const RowKernels *tables[kMaxTargets];
  const size_t n = usable_row_kernels(tables);
  size_t written = 0;
  for (; written < n && written < room; ++written) names[written] = tables[written]->name;
  return written;
}

}  // namespace quire::kernels
