// Check: every invariant of the metadata, asserted over the region by somebody who holds only
// views.
//
// Two strengths. Live (QUIRE_CHECK_LIVE) asserts what holds at every instant, whoever is in the
// middle of whatever: numbers below their capacities, states that exist, counters within their
// range. At rest it asserts the equations of runtime/cache.h as well, and each structure's
// validate():
//
//   free + private + visible     == pages            and page_pool.available == free
//   frames held + pool + limbo   == frames, a class  and no frame is held twice or held and free
//   children(p)                  >= visible pages whose parent is p
//   ref(p)                       == leases whose tail is p
//   depth(p)                     == depth(parent) + 1, a visible page's parent is visible
//   children(namespace)          == visible pages in it
//   private pages of a lease     == the length of its list, each of them private and its own
//
// It runs live first, so that the second part may follow every index. The first violation is in
// set_error, with the number of the page, frame or lease.
//
// Thread class: any; at rest only while no other call runs. Cost: O(pages + leases), 8 bytes a
// page.
#pragma once

#include <cstdint>

#include "runtime/region.h"
#include "runtime/status.h"
#include "runtime/tables.h"

namespace quire {

// kCorrupt: what is wrong; kNomem: no room for the counts.
Status check_tables(const Region &region, const Tables &tables, uint32_t flags) noexcept;

}  // namespace quire
