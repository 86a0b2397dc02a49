/* An engine's own kernel on Quire's pages: reads tokens of one layer straight out of frames, open or
 * sealed, of any format. It knows include/quire/page_format.h and nothing else of Quire: a frame's
 * address and the layouts come from quire_layout(), block tables from quire_frames().
 *
 * Written to be read, not to be fast: a CTA takes a row, a thread a channel. */
#ifndef QUIRE_EXAMPLES_READ_PAGES_H
#define QUIRE_EXAMPLES_READ_PAGES_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "quire/page_format.h"

typedef struct read_pages_frames {
  const unsigned char *base; /* frame f begins at base + f * stride */
  uint64_t stride;
  quire_page_layout layout;
} read_pages_frames;

/* out[tokens][kv_heads][dim] of K (is_k 1) or V of tokens 0 .. tokens - 1 of a sequence: turned back,
 * as they were appended but for the loss of the format; keys of pages that are anchored come minus
 * their anchor. block_table[], codebook[16] and out are device memory. Entries: >= 0 a sealed frame,
 * <= -2 the open frame -2 - e, -1 nowhere (zeros). Head dims up to 1024. */
cudaError_t read_pages(const read_pages_frames *sealed, const read_pages_frames *open,
                       const int32_t *block_table, const float *codebook, uint32_t layer, int is_k,
                       uint32_t tokens, float *out, cudaStream_t stream);

#endif
