// Tile: what one warp does at a time in append and gather: rows of one head for up to 32 tokens
// that follow one another in the call, K or V.
//
// Tokens come first in a tile, so that a warp writes to and reads from pages what lies together
// there: for head dim 128 eight rows of codes, 512 bytes, and their 32 bytes of scales.
//
// Invariants: lane t of a warp holds the place of token t of its tile; tile_tokens is a power of
// two, at most 32, and tile_tokens * blocks >= 32.
// Thread class: device code, warps. Cost: a load of a slot a token; a division where page_tokens is
// no power of two.
#pragma once

#include <cstddef>

#include "kernels/cuda/codec_block.cuh"

namespace quire::kernels::cuda {

// K or V of a call.
struct Rows {
  uint8_t *data;                      // nullptr: not part of the call
  int64_t token_stride, head_stride;  // bytes
};

// How the blocks of a part are dealt to lanes.
struct Deal {
  uint32_t tile_tokens;
  uint32_t tiles;        // of the call, over tokens
  uint32_t block_magic;  // ceil(2^20 / blocks): x / blocks for x * blocks < 2^20
};

// The tiles of a call.
struct Tiles {
  uint32_t joint;      // 1: K and V go together
  uint32_t of_k, all;  // tiles times heads
};

// A call that moves rows between pages and tensors.
struct RowsTask {
  CudaCodec codec;
  Frames frames;
  TokenMap map;
  Rows k, v;
  Deal deal_k, deal_v;
  Tiles tiles;
  unsigned long long *nonfinite;  // appends'
  uint32_t layer, n;
  DType dtype;
  uint32_t search;  // appends'

  QUIRE_DEVICE const Rows &rows(bool is_k) const { return is_k ? k : v; }
  QUIRE_DEVICE const Deal &deal(bool is_k) const { return is_k ? deal_k : deal_v; }
  QUIRE_DEVICE const quire_part_layout &part(bool is_k) const {
    return is_k ? codec.sealed.k : codec.sealed.v;
  }
};

// Which tokens, which head. A warp takes K and V of a tile one after the other where both are dealt
// alike and there are tiles enough for all warps, else one of them. Three numbers: what follows from
// them and the task is not kept in registers.
struct Tile {
  uint32_t number, head, first;  // first: token

  QUIRE_DEVICE bool with_k(const RowsTask &task) const { return number < task.tiles.of_k; }
  QUIRE_DEVICE bool with_v(const RowsTask &task) const {
    return task.tiles.joint != 0 || !with_k(task);
  }
  QUIRE_DEVICE uint32_t all_tokens(const RowsTask &task) const {
    return task.deal(with_k(task)).tile_tokens;
  }
  QUIRE_DEVICE uint32_t tokens(const RowsTask &task) const {
    return min(all_tokens(task), task.n - first);
  }

  QUIRE_DEVICE static Tile of(const RowsTask &task, uint32_t number) {
    Tile t = {number, 0, 0};
    const uint32_t heads = task.codec.sealed.kv_heads;
    const uint32_t in_part = t.with_k(task) ? number : number - task.tiles.of_k;
    t.head = in_part % heads;
    t.first = in_part / heads * t.all_tokens(task);
    return t;
  }
  // The tile behind this one, without divisions.
  QUIRE_DEVICE Tile next(const RowsTask &task) const {
    Tile t = {number + 1, head + 1, first};
    if (t.number == task.tiles.of_k) {
      t.head = t.first = 0;
    } else if (t.head == task.codec.sealed.kv_heads) {
      t.head = 0;
      t.first += all_tokens(task);
    }
    return t;
  }
};

QUIRE_DEVICE uint8_t *rows_at(const Rows &rows, const Tile &tile) {
  return rows.data + static_cast<int64_t>(tile.first) * rows.token_stride +
         static_cast<int64_t>(tile.head) * rows.head_stride;
}

struct Place {
  uint8_t *frame;   // nullptr: nowhere
  uint32_t offset;  // in its page
  bool open;
  bool first;  // of those in its page, as far as this call goes
};

QUIRE_DEVICE Place place_of_slot(const Frames &frames, uint32_t page_tokens, int64_t slot) {
  Place p = {};
  if (slot == -1) return p;
  p.open = slot < 0;
  const auto at = static_cast<uint64_t>(p.open ? -2 - slot : slot);
  uint64_t frame;
  if (at >> 32 == 0) {  // a short division where it does
    frame = static_cast<uint32_t>(at) / page_tokens;
  } else {
    frame = at / page_tokens;
  }
  p.offset = static_cast<uint32_t>(at - frame * page_tokens);
  const FrameView &view = p.open ? frames.open : frames.sealed;
  p.frame = view.base + frame * view.stride;
  return p;
}

// What a token's place is made of, as loaded: asked for a tile ahead, since all else waits for it.
struct RawPlace {
  int64_t at, before;  // slots, or the entry of a block table
};

QUIRE_DEVICE RawPlace fetch_place(const TokenMap &map, uint32_t page_tokens, uint32_t i) {
  RawPlace r = {-1, -1};
  if (map.slots != nullptr) {
    r.at = map.slots[i];
    if (i != 0) r.before = map.slots[i - 1];
    return r;
  }
  const uint64_t page = (map.first + i) / page_tokens;
  if (page < map.block_table_length) r.at = map.block_table[page];
  return r;
}

QUIRE_DEVICE Place place_of(const Frames &frames, const TokenMap &map, uint32_t page_tokens,
                            const RawPlace &raw, uint32_t i) {
  if (map.slots != nullptr) {
    Place p = place_of_slot(frames, page_tokens, raw.at);
    p.first = p.offset == 0 || raw.before == -1 || raw.before != (p.open ? raw.at + 1 : raw.at - 1);
    return p;
  }
  Place p = {};
  if (raw.at == -1) return p;
  p.open = raw.at < 0;
  p.offset = static_cast<uint32_t>((map.first + i) % page_tokens);
  p.first = p.offset == 0 || i == 0;
  const FrameView &view = p.open ? frames.open : frames.sealed;
  p.frame = view.base + static_cast<uint64_t>(p.open ? -2 - raw.at : raw.at) * view.stride;
  return p;
}

// The place that lane `from` holds.
QUIRE_DEVICE Place place_from(const Place &p, uint32_t from) {
  const auto frame = reinterpret_cast<uint64_t>(p.frame);
  const auto source = static_cast<int>(from);
  Place q = {};
  const uint32_t low = __shfl_sync(kAllLanes, static_cast<uint32_t>(frame), source);
  const uint32_t high = __shfl_sync(kAllLanes, static_cast<uint32_t>(frame >> 32), source);
  const uint32_t rest = __shfl_sync(
      kAllLanes, p.offset | (p.open ? 1u << 30 : 0u) | (p.first ? 1u << 31 : 0u), source);
  q.frame = reinterpret_cast<uint8_t *>(static_cast<uint64_t>(high) << 32 | low);
  q.offset = rest & 0xffffu;
  q.open = (rest & 1u << 30) != 0;
  q.first = (rest & 1u << 31) != 0;
  return q;
}

// ---- a warp's way

// A warp's way through the tiles of a call. They follow one another: heads of the same tokens, so
// the same pages. What the places of the next tile's tokens are made of is asked for while this one
// is in work.
struct Walk {
  Tile tile;          // in work, once entered; the next one is tile.next()
  Place place;        // of its token `lane`
  RawPlace raw;       // of the next tile's, where those are other tokens
  uint32_t left;      // tiles that were not entered yet
  bool fresh, begun;  // the next tile's tokens are others; there is a tile in work

  QUIRE_DEVICE void begin(const RowsTask &task) {
    const uint32_t warps = gridDim.x * (blockDim.x / kWarp);
    const uint32_t share = (task.tiles.all + warps - 1) / warps;
    const uint32_t at = (blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp) * share;
    left = at < task.tiles.all ? min(share, task.tiles.all - at) : 0;
    tile = Tile::of(task, left != 0 ? at : 0);
    place = Place{};
    begun = false;
    ask(task, tile);
  }
  QUIRE_DEVICE bool more() const { return left != 0; }
  QUIRE_DEVICE Tile next(const RowsTask &task) const { return begun ? tile.next(task) : tile; }

  // The place of the next tile's token `lane`: waits for what was asked for.
  QUIRE_DEVICE Place next_place(const RowsTask &task) const {
    if (!fresh) return place;
    const uint32_t lane = threadIdx.x % kWarp;
    const Tile t = next(task);
    return lane < t.tokens(task)
               ? place_of(task.frames, task.map, task.codec.sealed.page_tokens, raw, t.first + lane)
               : Place{};
  }
  // The next tile becomes the one in work.
  QUIRE_DEVICE void enter(const RowsTask &task) {
    place = next_place(task);
    tile = next(task);
    begun = true;
    fresh = false;
    if (--left == 0) return;
    const Tile behind = tile.next(task);
    if (behind.first != tile.first || behind.with_k(task) != tile.with_k(task)) ask(task, behind);
  }

 private:
  QUIRE_DEVICE void ask(const RowsTask &task, const Tile &of) {
    const uint32_t lane = threadIdx.x % kWarp;
    fresh = true;
    raw = lane < of.tokens(task)
              ? fetch_place(task.map, task.codec.sealed.page_tokens, of.first + lane)
              : RawPlace{-1, -1};
  }
};

// A step of a tile: 32 blocks of K or V from block `begin` on.
struct Step {
  uint32_t begin;
  bool is_k, last;  // last: of the tile

  QUIRE_DEVICE static Step first(const RowsTask &task, const Tile &tile) {
    Step s = {0, tile.with_k(task), false};
    s.last = s.is_last(task, tile);
    return s;
  }
  QUIRE_DEVICE Step next(const RowsTask &task, const Tile &tile) const {
    Step s = {begin + kWarp, is_k, false};
    if (s.begin >= blocks(task)) s.begin = 0, s.is_k = false;
    s.last = s.is_last(task, tile);
    return s;
  }

 private:
  QUIRE_DEVICE uint32_t blocks(const RowsTask &task) const {
    return task.deal(is_k).tile_tokens * task.part(is_k).blocks;
  }
  QUIRE_DEVICE bool is_last(const RowsTask &task, const Tile &tile) const {
    return begin + kWarp >= blocks(task) && !(is_k && tile.with_v(task));
  }
};

// What a lane does in a step.
struct LaneBlock {
  uint32_t token, block;  // token: of the tile
  bool use;               // it is wanted
  Place place;

  QUIRE_DEVICE LaneBlock(const RowsTask &task, const Tile &tile, const Step &step,
                         const Place &of_token, uint32_t wanted) {
    const uint32_t flat = step.begin + threadIdx.x % kWarp;
    token = flat * task.deal(step.is_k).block_magic >> 20;
    block = flat - token * task.part(step.is_k).blocks;
    place = place_from(of_token, token % kWarp);
    use = token < tile.tokens(task) && (wanted >> token % kWarp & 1u) != 0;
  }
};

QUIRE_DEVICE uint32_t sealed_tokens(const Place &place) {
  return __ballot_sync(kAllLanes, place.frame != nullptr && !place.open);
}

// ---- page headers

QUIRE_DEVICE void write_header(const quire_page_layout &layout, uint8_t *frame) {
  static_assert(offsetof(quire_page_header, fingerprint) == 8);
  static_assert(offsetof(quire_page_header, page_tokens) == 16);
  static_assert(offsetof(quire_page_header, bytes) == 24);
  static_assert(sizeof(quire_page_header) == 128 && QUIRE_PAGE_HEADER_BYTES == 128);
  auto *to = reinterpret_cast<uint4 *>(frame);
  to[0] = make_uint4(QUIRE_PAGE_MAGIC, QUIRE_PAGE_VERSION | layout.format << 16 | layout.open << 24,
                     static_cast<uint32_t>(layout.fingerprint),
                     static_cast<uint32_t>(layout.fingerprint >> 32));
  to[1] = make_uint4(layout.page_tokens, 0, static_cast<uint32_t>(layout.page_bytes),
                     static_cast<uint32_t>(layout.page_bytes >> 32));
  for (uint32_t i = 2; i < 8; ++i) to[i] = make_uint4(0, 0, 0, 0);
}

// A head's statistics; K's are all of them but v_exponent, so that K and V may be written apart.
QUIRE_DEVICE void write_k_statistics(const quire_page_layout &layout, uint8_t *chunk,
                                     uint32_t exponent, uint32_t flags, uint32_t page_index,
                                     bool also_v, uint32_t v_exponent) {
  uint8_t *to = chunk + layout.statistics;
  *to = static_cast<uint8_t>(exponent);
  if (also_v) to[1] = static_cast<uint8_t>(v_exponent);
  *reinterpret_cast<uint16_t *>(to + 2) = static_cast<uint16_t>(flags);
  reinterpret_cast<uint32_t *>(to)[1] = page_index;
  *reinterpret_cast<uint2 *>(to + 8) = make_uint2(0, 0);
}

QUIRE_DEVICE void write_direct_statistics(const quire_page_layout &layout, uint8_t *chunk) {
  constexpr uint32_t kDirect = kDirectExponent + QUIRE_EXPONENT_BIAS;
  *reinterpret_cast<uint4 *>(chunk + layout.statistics) =
      make_uint4(kDirect | kDirect << 8, 0, 0, 0);
}

}  // namespace quire::kernels::cuda
