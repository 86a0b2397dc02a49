/* Page format: where every byte of a page lies, for the library and for an engine's own kernels.
 *
 * A page is the K and V of page_tokens consecutive tokens in all layers. One layout
 * (quire_page_layout) is computed per cache and class of frames (sealed, open) and then read by
 * everybody; nothing about a page is found out at run time, and nothing in a page points anywhere.
 *
 *   page    = header (128 bytes) | layer 0 | layer 1 | ...                         layer_stride apart, 128-aligned
 *   layer   = head 0 | head 1 | ...                                                head_stride apart, 16-aligned
 *   head    = K codes | K scales | V codes | V scales | statistics                 each part 16-aligned
 *   codes   = [token][row_bytes], dense                    scales = [token][blocks], 1 (e4m3) or 2 (f16) bytes each
 *
 * Values, of a row of a quantised part. The row x of head dim d is, for K, first freed of its
 * anchor; then each run of rotation_size values is rotated: r = 2^-rotation_stored * H x, with H
 * the Hadamard matrix of +-1 (Sylvester's). Whoever reads multiplies by 2^-rotation_read * H: on
 * K's side the query (H q . H k = n q . k), on V's side the output. Then r is cut into blocks;
 * value i of block b has a code c and
 *     r[i] = RN16(RN32(codebook[c] * s[b])),   s[b] = e4m3[b] * 2^(exponent - 8)   or   s[b] = f16[b].
 * e4m3 is OCP's e4m3fn, sign included: a negative scale means that the block was encoded negated.
 * exponent is statistics.k_exponent (v_exponent) - 128. Integer codes stand for c / 128.
 *
 * 4-bit codes: two a byte, the even position in the high nibble. A V row is in natural order. A K
 * row of a quantised format is stored in units of a quarter block: unit t of block b lies at
 * position t * blocks + b (quire_code_position), so that one matrix fragment of a kernel never
 * meets two scales.
 *
 * Invariants (quire_page_layout_valid checks them)
 *   k.codes + page_tokens * k.row_bytes   <= k.scales <= v.codes <= v.scales <= statistics <= head_stride
 *   kv_heads * head_stride                <= layer_stride, a multiple of 128
 *   page_bytes                            == 128 + layers * layer_stride
 *   blocks * block                        == dim;   a multiple of 4 divides block where codes are quantised
 *
 * C99, C++ and CUDA; no library but the compiler's own headers. Every function is pure. */
#ifndef QUIRE_PAGE_FORMAT_H
#define QUIRE_PAGE_FORMAT_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define QUIRE_HD __host__ __device__ static inline
#else
#define QUIRE_HD static inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- formats --------------------------------------------------------------------------------- */

typedef enum quire_format_id {
  QUIRE_FORMAT_NF4 =
      0, /* 4.25 bits: NF4 per 32, signed e4m3 scales, rotated, keys minus their anchor */
  QUIRE_FORMAT_NF4_DQ64 = 1, /* 4.13 bits: the same per 64 */
  QUIRE_FORMAT_NF4_64 = 2,   /* 4.25 bits: QLoRA's: NF4 per 64, f16 absmax, nothing else */
  QUIRE_FORMAT_K8V4 = 3,     /* 6.25 bits: keys int8 per 32, values as nf4 */
  QUIRE_FORMAT_KC4V4 = 4,    /* reserved: keys per channel; no layout in this version */
  QUIRE_FORMAT_F16 = 5,
  QUIRE_FORMAT_BF16 = 6,
  QUIRE_FORMAT_F32 = 7,
  QUIRE_FORMAT_COUNT = 8
} quire_format_id;

typedef enum quire_codebook_id {
  QUIRE_CODEBOOK_ABSENT = 0, /* there is no such part (V of latents) */
  QUIRE_CODEBOOK_F16 = 1,
  QUIRE_CODEBOOK_BF16 = 2,
  QUIRE_CODEBOOK_F32 = 3,
  QUIRE_CODEBOOK_TABLE16 = 4, /* the cache's 16-entry table, NF4's unless another was set */
  QUIRE_CODEBOOK_INT8 = 5     /* -127 .. 127, standing for code / 128 */
} quire_codebook_id;

typedef enum quire_axis { QUIRE_AXIS_TOKEN = 0, QUIRE_AXIS_CHANNEL = 1 } quire_axis;

typedef enum quire_scale_id {
  QUIRE_SCALE_NONE = 0,
  QUIRE_SCALE_F16 = 1, /* absmax of the block */
  QUIRE_SCALE_E4M3 = 2 /* signed, times 2^(exponent - 8) of page, layer, part and head */
} quire_scale_id;

typedef enum quire_zero_id { QUIRE_ZERO_NONE = 0, QUIRE_ZERO_INT8 = 1 } quire_zero_id;
typedef enum quire_rotation_id {
  QUIRE_ROTATION_NONE = 0,
  QUIRE_ROTATION_HADAMARD = 1
} quire_rotation_id;
typedef enum quire_domain_id {
  QUIRE_DOMAIN_AFTER_ROPE = 0,
  QUIRE_DOMAIN_BEFORE_ROPE = 1
} quire_domain_id;
typedef enum quire_anchor_id {
  QUIRE_ANCHOR_NONE = 0,
  QUIRE_ANCHOR_TURNED_MEAN = 1
} quire_anchor_id;

/* What K, or V, of a format is. */
typedef struct quire_codec {
  uint8_t codebook; /* quire_codebook_id */
  uint8_t axis;     /* quire_axis: what a scale is shared along */
  uint8_t
      /* values a scale at most; the block is the largest power of two that divides the head dim if
       * that is less */
      block;
  uint8_t scale;    /* quire_scale_id */
  uint8_t zero;     /* quire_zero_id */
  uint8_t rotation; /* quire_rotation_id */
  uint8_t domain;   /* quire_domain_id */
  uint8_t anchor;   /* quire_anchor_id */
} quire_codec;

QUIRE_HD quire_codec quire_make_codec(unsigned codebook, unsigned block, unsigned scale,
                                      unsigned rotation, unsigned anchor) {
  quire_codec c;
  c.codebook = (uint8_t)codebook;
  c.axis = QUIRE_AXIS_TOKEN;
  c.block = (uint8_t)block;
  c.scale = (uint8_t)scale;
  c.zero = QUIRE_ZERO_NONE;
  c.rotation = (uint8_t)rotation;
  c.domain = QUIRE_DOMAIN_AFTER_ROPE;
  c.anchor = (uint8_t)anchor;
  return c;
}

/* The descriptors of a format. 0, or -1 where the id is none, -2 where this version cannot lay it
 * out. */
QUIRE_HD int quire_format_codecs(unsigned format, quire_codec *k, quire_codec *v) {
  const unsigned h = QUIRE_ROTATION_HADAMARD, a = QUIRE_ANCHOR_TURNED_MEAN;
  switch (format) {
    case QUIRE_FORMAT_NF4:
      *k = quire_make_codec(QUIRE_CODEBOOK_TABLE16, 32, QUIRE_SCALE_E4M3, h, a);
      *v = quire_make_codec(QUIRE_CODEBOOK_TABLE16, 32, QUIRE_SCALE_E4M3, h, 0);
      return 0;
    case QUIRE_FORMAT_NF4_DQ64:
      *k = quire_make_codec(QUIRE_CODEBOOK_TABLE16, 64, QUIRE_SCALE_E4M3, h, a);
      *v = quire_make_codec(QUIRE_CODEBOOK_TABLE16, 64, QUIRE_SCALE_E4M3, h, 0);
      return 0;
    case QUIRE_FORMAT_NF4_64:
      *k = quire_make_codec(QUIRE_CODEBOOK_TABLE16, 64, QUIRE_SCALE_F16, 0, 0);
      *v = *k;
      return 0;
    case QUIRE_FORMAT_K8V4:
      *k = quire_make_codec(QUIRE_CODEBOOK_INT8, 32, QUIRE_SCALE_E4M3, h, a);
      *v = quire_make_codec(QUIRE_CODEBOOK_TABLE16, 32, QUIRE_SCALE_E4M3, h, 0);
      return 0;
    case QUIRE_FORMAT_F16:
      *k = *v = quire_make_codec(QUIRE_CODEBOOK_F16, 1, QUIRE_SCALE_NONE, 0, 0);
      return 0;
    case QUIRE_FORMAT_BF16:
      *k = *v = quire_make_codec(QUIRE_CODEBOOK_BF16, 1, QUIRE_SCALE_NONE, 0, 0);
      return 0;
    case QUIRE_FORMAT_F32:
      *k = *v = quire_make_codec(QUIRE_CODEBOOK_F32, 1, QUIRE_SCALE_NONE, 0, 0);
      return 0;
    case QUIRE_FORMAT_KC4V4:
      return -2;
    default:
      return -1;
  }
}

/* Whether the format has pages that are written in f16 first and encoded when full. */
QUIRE_HD int quire_format_has_open_pages(unsigned format) {
  return format < QUIRE_FORMAT_F16;
}

/* ---- geometry -------------------------------------------------------------------------------- */

#define QUIRE_ROPE_MAX_PAIRS 128
#define QUIRE_ROPE_MAX_FREQUENCY 1048576.0f /* of inv_freq, which is 0 to 1 as a rule */

/* How keys were turned: pair i of the first rotary_dim channels by position * inv_freq[i]. A pair
 * is (i, i + rotary_dim / 2), or (2i, 2i + 1) where interleaved. All zero: keys are not turned. */
typedef struct quire_rope {
  uint32_t rotary_dim;
  uint32_t interleaved;
  float magnitude; /* the factor on turned keys that some long-context scalings have; 0 is 1 */
  float inv_freq[QUIRE_ROPE_MAX_PAIRS];
} quire_rope;

typedef struct quire_geometry {
  uint32_t layers;
  uint32_t kv_heads;
  uint32_t head_dim_k;  /* multiple of 8, at most 1024 */
  uint32_t head_dim_v;  /* 0: there is no V */
  uint32_t page_tokens; /* multiple of 8, at most 1024 */
  uint32_t reserved;    /* 0 */
  quire_rope rope;      /* only needed for anchors */
} quire_geometry;

/* The usual RoPE: inv_freq[i] = theta^(-2i / rotary_dim). 0, or -1 for a rotary_dim that is odd or
 * too large. */
static inline int quire_rope_init(quire_rope *rope, uint32_t rotary_dim, double theta,
                                  int interleaved) {
  uint32_t i;
  if (rotary_dim % 2 != 0 || rotary_dim / 2 > QUIRE_ROPE_MAX_PAIRS || !(theta > 0)) return -1;
  rope->rotary_dim = rotary_dim;
  rope->interleaved = interleaved != 0;
  rope->magnitude = 1.0f;
  for (i = 0; i < QUIRE_ROPE_MAX_PAIRS; ++i) {
    rope->inv_freq[i] =
        i < rotary_dim / 2 ? (float)pow(theta, -2.0 * (double)i / (double)rotary_dim) : 0.0f;
  }
  return 0;
}

QUIRE_HD int quire_geometry_valid(const quire_geometry *g) {
  uint32_t i;
  if (g->layers == 0 || g->layers > 4096 || g->kv_heads == 0 || g->kv_heads > 4096) return 0;
  if (g->head_dim_k == 0 || g->head_dim_k > 1024 || g->head_dim_k % 8 != 0) return 0;
  if (g->head_dim_v > 1024 || g->head_dim_v % 8 != 0) return 0;
  if (g->page_tokens == 0 || g->page_tokens > 1024 || g->page_tokens % 8 != 0) return 0;
  if (g->rope.rotary_dim % 2 != 0 || g->rope.rotary_dim > g->head_dim_k) return 0;
  if (g->rope.rotary_dim / 2 > QUIRE_ROPE_MAX_PAIRS) return 0;
  for (i = 0; i < g->rope.rotary_dim / 2; ++i) { /* what the fingerprint can count; no NaN */
    if (!(g->rope.inv_freq[i] >= 0 && g->rope.inv_freq[i] <= QUIRE_ROPE_MAX_FREQUENCY)) return 0;
  }
  return 1;
}

/* ---- layout ---------------------------------------------------------------------------------- */

#define QUIRE_PAGE_HEADER_BYTES 128u
#define QUIRE_PAGE_MAGIC 0x47505251u /* "QRPG" */
#define QUIRE_PAGE_VERSION 1u
#define QUIRE_EXPONENT_BIAS 128
#define QUIRE_EXPONENT_MIN (-100)
#define QUIRE_EXPONENT_MAX 120

/* First bytes of every page. What is not written by the kernels is the runtime's; all of it is in
 * the page so that a page can be told and checked without the cache that made it. */
typedef struct quire_page_header {
  uint32_t magic;
  uint16_t version;
  uint8_t format;       /* quire_format_id of the cache */
  uint8_t open;         /* 1: f16, still being written */
  uint64_t fingerprint; /* quire_geometry_fingerprint */
  uint32_t page_tokens;
  uint32_t flags;
  uint64_t bytes;    /* of the whole page */
  uint64_t checksum; /* of all that follows the header; 0: not computed */
  uint64_t key_lo, key_hi;
  uint8_t reserved[72];
} quire_page_header;

/* Last 16 bytes of a head's chunk, where scales are e4m3. */
typedef struct quire_head_statistics {
  uint8_t
      /* plus QUIRE_EXPONENT_BIAS; 2^exponent >= absmax of all rotated K of this head in this page
       * */
      k_exponent;
  uint8_t v_exponent;
  uint8_t flags; /* QUIRE_HEAD_* */
  uint8_t reserved0;
  uint32_t page_index; /* in its chain, where anchored: the page's first position / page_tokens */
  uint8_t reserved[8];
} quire_head_statistics;

#define QUIRE_HEAD_ANCHORED 1u /* K is minus the turned mean of its layer and head */

/* K, or V, of one head in one page. Offsets count from the start of the head's chunk. */
typedef struct quire_part_layout {
  quire_codec codec;
  uint32_t dim;         /* 0: absent */
  uint32_t block;       /* values a scale; dim where there is none */
  uint32_t blocks;      /* a row */
  uint32_t code_bits;   /* 4, 8, 16, 32 */
  uint32_t row_bytes;   /* codes of one token */
  uint32_t scale_bytes; /* of one scale: 0, 1, 2 */
  /* values of a quarter block where rows are stored by quarters, else 0 */
  uint32_t unit;
  uint32_t rotation_size;   /* 1: none */
  uint32_t rotation_stored; /* log2 of what H x was divided by before encoding */
  uint32_t rotation_read;   /* and of what the reader's H y is to be divided by */
  uint32_t codes;           /* offset of [page_tokens][row_bytes] */
  uint32_t scales;          /* offset of [page_tokens][blocks] */
} quire_part_layout;

typedef struct quire_page_layout {
  uint32_t format; /* quire_format_id of the cache, also in an open layout */
  uint32_t open;   /* 1: the f16 layout of pages that are being written */
  uint32_t layers, kv_heads, page_tokens;
  uint32_t statistics; /* offset in a head's chunk; 0: none */
  quire_part_layout k, v;
  uint64_t head_stride, layer_stride, page_bytes;
  uint64_t fingerprint;
} quire_page_layout;

QUIRE_HD uint32_t quire_power_of_two_divisor(uint32_t n) {
  return n & (0u - n);
}
QUIRE_HD uint64_t quire_round_up(uint64_t n, uint64_t to) {
  return (n + to - 1) / to * to;
}

QUIRE_HD uint32_t quire_log2_exact(uint32_t n) {
  uint32_t l = 0;
  while (n > 1) {
    n >>= 1;
    ++l;
  }
  return l;
}

QUIRE_HD uint64_t quire_fingerprint_step(uint64_t h, uint64_t x) {
  h = (h ^ x) * 0x9e3779b97f4a7c15u;
  h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93u;
  return h ^ (h >> 32);
}

/* Tells caches apart whose pages cannot be exchanged. Not a secret and no defence. The codebook is
 * the cache's to add. */
QUIRE_HD uint64_t quire_geometry_fingerprint(const quire_geometry *g, unsigned format) {
  uint64_t h = 0x7175697265706721u;
  uint32_t i;
  h = quire_fingerprint_step(h, ((uint64_t)QUIRE_PAGE_VERSION << 32) | format);
  h = quire_fingerprint_step(h, ((uint64_t)g->layers << 32) | g->kv_heads);
  h = quire_fingerprint_step(h, ((uint64_t)g->head_dim_k << 32) | g->head_dim_v);
  h = quire_fingerprint_step(h, ((uint64_t)g->page_tokens << 32) | g->rope.rotary_dim);
  h = quire_fingerprint_step(h, g->rope.interleaved != 0);
  for (i = 0; i < g->rope.rotary_dim / 2; ++i) {
    /* 2^40 steps a unit: two descriptions that differ less give anchors that differ less than fp32
     * tells. */
    h = quire_fingerprint_step(h, (uint64_t)((double)g->rope.inv_freq[i] * 1099511627776.0));
  }
  return h;
}

QUIRE_HD void quire_part_init(quire_part_layout *p, quire_codec codec, uint32_t dim) {
  const uint32_t power = dim == 0 ? 1 : quire_power_of_two_divisor(dim);
  p->codec = codec;
  p->dim = dim;
  p->block = dim;
  p->blocks = 1;
  p->scale_bytes = 0;
  p->unit = 0;
  p->rotation_size = 1;
  p->rotation_stored = 0;
  p->rotation_read = 0;
  p->codes = 0;
  p->scales = 0;
  switch (codec.codebook) {
    case QUIRE_CODEBOOK_TABLE16:
      p->code_bits = 4;
      break;
    case QUIRE_CODEBOOK_INT8:
      p->code_bits = 8;
      break;
    case QUIRE_CODEBOOK_F32:
      p->code_bits = 32;
      break;
    default:
      p->code_bits = 16;
      break;
  }
  if (dim == 0) {
    p->codec = quire_make_codec(QUIRE_CODEBOOK_ABSENT, 0, 0, 0, 0);
    p->code_bits = 0;
    p->blocks = 0;
  }
  p->row_bytes = dim * p->code_bits / 8;
  if (dim != 0 && p->code_bits < 16) {
    p->block = power < codec.block ? power : codec.block;
    p->blocks = dim / p->block;
    p->scale_bytes = codec.scale == QUIRE_SCALE_F16 ? 2 : 1;
    if (codec.rotation == QUIRE_ROTATION_HADAMARD) {
      const uint32_t l = quire_log2_exact(power);
      p->rotation_size = power;
      p->rotation_stored = (l + 1) / 2;
      p->rotation_read = l / 2;
    }
  }
}

#define QUIRE_LAYOUT_OK 0
#define QUIRE_LAYOUT_INVALID (-1)
#define QUIRE_LAYOUT_UNSUPPORTED (-2)

/* Fills *l for a cache of this geometry and format: its sealed frames, or with open != 0 its open
 * ones (f16 rows in natural order, no scales, no statistics). QUIRE_LAYOUT_UNSUPPORTED: a reserved
 * format, or open where the format has no open pages. */
QUIRE_HD int quire_page_layout_init(quire_page_layout *l, const quire_geometry *g, unsigned format,
                                    int open) {
  quire_codec k, v;
  uint64_t at;
  const int known = quire_format_codecs(format, &k, &v);
  if (known != 0) return known;
  if (!quire_geometry_valid(g)) return QUIRE_LAYOUT_INVALID;
  if (open && !quire_format_has_open_pages(format)) return QUIRE_LAYOUT_UNSUPPORTED;
  if (open) k = v = quire_make_codec(QUIRE_CODEBOOK_F16, 1, QUIRE_SCALE_NONE, 0, 0);
  l->format = format;
  l->open = open != 0;
  l->layers = g->layers;
  l->kv_heads = g->kv_heads;
  l->page_tokens = g->page_tokens;
  l->fingerprint = quire_geometry_fingerprint(g, format);
  quire_part_init(&l->k, k, g->head_dim_k);
  quire_part_init(&l->v, v, g->head_dim_v);
  if (l->k.code_bits < 16) l->k.unit = l->k.block / 4;
  at = 0;
  l->k.codes = (uint32_t)at;
  at = quire_round_up(at + (uint64_t)l->page_tokens * l->k.row_bytes, 16);
  l->k.scales = (uint32_t)at;
  at = quire_round_up(at + (uint64_t)l->page_tokens * l->k.blocks * l->k.scale_bytes, 16);
  l->v.codes = (uint32_t)at;
  at = quire_round_up(at + (uint64_t)l->page_tokens * l->v.row_bytes, 16);
  l->v.scales = (uint32_t)at;
  at = quire_round_up(at + (uint64_t)l->page_tokens * l->v.blocks * l->v.scale_bytes, 16);
  l->statistics = 0;
  if (k.scale == QUIRE_SCALE_E4M3) {
    l->statistics = (uint32_t)at;
    at += sizeof(quire_head_statistics);
  }
  l->head_stride = at;
  l->layer_stride = quire_round_up(at * l->kv_heads, 128);
  l->page_bytes = QUIRE_PAGE_HEADER_BYTES + l->layer_stride * l->layers;
  return QUIRE_LAYOUT_OK;
}

QUIRE_HD int quire_part_valid(const quire_part_layout *p, uint32_t page_tokens, uint64_t end) {
  if (p->dim == 0) return p->row_bytes == 0 && p->blocks == 0;
  if (p->codes % 16 != 0 || p->scales % 16 != 0 || p->blocks * p->block != p->dim) return 0;
  if ((uint64_t)p->row_bytes * 8 != (uint64_t)p->dim * p->code_bits) return 0;
  if (p->code_bits < 16 && (p->block % 4 != 0 || (p->unit != 0 && p->unit * 4 != p->block)))
    return 0;
  if ((1u << (p->rotation_stored + p->rotation_read)) != p->rotation_size) return 0;
  if (p->codes + (uint64_t)page_tokens * p->row_bytes > p->scales) return 0;
  return p->scales + (uint64_t)page_tokens * p->blocks * p->scale_bytes <= end;
}

/* 1 where the invariants at the top of this file hold. */
QUIRE_HD int quire_page_layout_valid(const quire_page_layout *l) {
  const uint64_t end = l->statistics != 0 ? l->statistics : l->head_stride;
  if (!quire_part_valid(&l->k, l->page_tokens, l->v.codes)) return 0;
  if (!quire_part_valid(&l->v, l->page_tokens, end)) return 0;
  if (l->head_stride % 16 != 0 || l->layer_stride % 128 != 0) return 0;
  if (l->statistics != 0 && l->statistics + sizeof(quire_head_statistics) > l->head_stride)
    return 0;
  if (l->head_stride * l->kv_heads > l->layer_stride) return 0;
  return l->page_bytes == QUIRE_PAGE_HEADER_BYTES + l->layer_stride * l->layers;
}

/* Offset, in the page, of the chunk of a head. */
QUIRE_HD uint64_t quire_head_offset(const quire_page_layout *l, uint32_t layer, uint32_t head) {
  return QUIRE_PAGE_HEADER_BYTES + layer * l->layer_stride + head * l->head_stride;
}

/* Offsets, in a head's chunk, of a token's codes and of the scale of one of its blocks. */
QUIRE_HD uint64_t quire_row_offset(const quire_part_layout *p, uint32_t token) {
  return p->codes + (uint64_t)token * p->row_bytes;
}
QUIRE_HD uint64_t quire_scale_offset(const quire_part_layout *p, uint32_t token, uint32_t block) {
  return p->scales + ((uint64_t)token * p->blocks + block) * p->scale_bytes;
}

/* Where in its row the code of (rotated) channel d is stored, in codes; and back. */
QUIRE_HD uint32_t quire_code_position(const quire_part_layout *p, uint32_t d) {
  uint32_t in;
  if (p->unit == 0) return d;
  in = d % p->block;
  return (in / p->unit * p->blocks + d / p->block) * p->unit + in % p->unit;
}
QUIRE_HD uint32_t quire_code_channel(const quire_part_layout *p, uint32_t position) {
  uint32_t unit;
  if (p->unit == 0) return position;
  unit = position / p->unit;
  return unit % p->blocks * p->block + unit / p->blocks * p->unit + position % p->unit;
}

/* The 4-bit code of (rotated) channel d in a row. */
QUIRE_HD uint32_t quire_code4(const quire_part_layout *p, const uint8_t *row, uint32_t d) {
  const uint32_t at = quire_code_position(p, d);
  return (at & 1) != 0 ? row[at / 2] & 15u : (uint32_t)row[at / 2] >> 4;
}

/* e4m3fn without its NaNs, exactly; and the scale of a block. */
QUIRE_HD float quire_e4m3_value(uint32_t byte) {
  const uint32_t e = (byte >> 3) & 15, m = byte & 7;
  const float magnitude = (float)(e == 0 ? m : (8 + m) << (e - 1)) * (1.0f / 512);
  return (byte & 128) != 0 ? -magnitude : magnitude;
}
QUIRE_HD float quire_e4m3_scale(uint32_t byte, uint32_t exponent_byte) {
  return ldexpf(quire_e4m3_value(byte), (int)exponent_byte - QUIRE_EXPONENT_BIAS - 8);
}

/* Bits that one cached value costs in this layout, everything of a page counted. */
static inline double quire_bits_per_value(const quire_page_layout *l) {
  const double values =
      (double)l->layers * l->kv_heads * l->page_tokens * ((double)l->k.dim + l->v.dim);
  return 8.0 * (double)l->page_bytes / values;
}

QUIRE_HD void quire_page_header_init(quire_page_header *h, const quire_page_layout *l) {
  uint32_t i;
  unsigned char *bytes = (unsigned char *)h;
  for (i = 0; i < sizeof *h; ++i) bytes[i] = 0;
  h->magic = QUIRE_PAGE_MAGIC;
  h->version = QUIRE_PAGE_VERSION;
  h->format = (uint8_t)l->format;
  h->open = (uint8_t)l->open;
  h->fingerprint = l->fingerprint;
  h->page_tokens = l->page_tokens;
  h->bytes = l->page_bytes;
}

/* 1 where the header is one of a page of this layout. */
QUIRE_HD int quire_page_header_matches(const quire_page_header *h, const quire_page_layout *l) {
  return h->magic == QUIRE_PAGE_MAGIC && h->version == QUIRE_PAGE_VERSION &&
         h->format == l->format && h->open == l->open && h->fingerprint == l->fingerprint &&
         h->page_tokens == l->page_tokens && h->bytes == l->page_bytes;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* "nf4", "nf4-dq64", "nf4-64", "k8v4", "kc4v4", "f16", "bf16", "f32"; "unknown" for an id that is
 * none. */
static inline const char *quire_format_name(unsigned format) {
  switch (format) {
    case QUIRE_FORMAT_NF4:
      return "nf4";
    case QUIRE_FORMAT_NF4_DQ64:
      return "nf4-dq64";
    case QUIRE_FORMAT_NF4_64:
      return "nf4-64";
    case QUIRE_FORMAT_K8V4:
      return "k8v4";
    case QUIRE_FORMAT_KC4V4:
      return "kc4v4";
    case QUIRE_FORMAT_F16:
      return "f16";
    case QUIRE_FORMAT_BF16:
      return "bf16";
    case QUIRE_FORMAT_F32:
      return "f32";
    default:
      return "unknown";
  }
}

/* The id of a name, or -1. */
static inline int quire_format_from_name(const char *name) {
  int f;
  if (name == NULL) return -1;
  for (f = 0; f < QUIRE_FORMAT_COUNT; ++f) {
    const char *a = quire_format_name((unsigned)f), *b = name;
    while (*a != 0 && *a == *b) {
      ++a;
      ++b;
    }
    if (*a == *b) return f;
  }
  return -1;
}

#ifdef __cplusplus
}
#endif

#endif /* QUIRE_PAGE_FORMAT_H */
