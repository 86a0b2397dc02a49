// What every MemorySource must do (allocators/memory.h), and every Arena over one
// (allocators/arena.h). A test of a new source calls both; it needs no case of its own for what is
// checked here.
#pragma once

#include <boost/test/unit_test.hpp>

#include <cstdint>
#include <cstring>
#include <random>

#include "allocators/arena.h"

namespace quire::test {

inline bool all_bytes_are(const void *start, size_t bytes, unsigned char value) {
  const auto *at = static_cast<const unsigned char *>(start);
  for (size_t i = 0; i < bytes; ++i) {
    if (at[i] != value) return false;
  }
  return true;
}

inline void check_memory_source(MemorySource &source) {
  const size_t unit = source.granularity();
  BOOST_TEST_REQUIRE(unit != 0u);
  BOOST_TEST((unit & (unit - 1)) == 0u);

  BOOST_TEST((source.reserve(0, 1).status() == Status::kInvalid));
  BOOST_TEST((source.reserve(unit + 1, 1).status() == Status::kInvalid));
  BOOST_TEST((source.reserve(unit, 3).status() == Status::kInvalid));
  BOOST_TEST((source.reserve(SIZE_MAX / unit * unit, 1).status() == Status::kNomem));

  for (const size_t alignment : {size_t{1}, unit, size_t{4} << 20}) {
    const size_t bytes = 8 * unit;
    Result<void *> reserved = source.reserve(bytes, alignment);
    BOOST_TEST_REQUIRE(reserved.ok());
    auto *const base = static_cast<unsigned char *>(reserved.value());
    BOOST_TEST(reinterpret_cast<uintptr_t>(base) % alignment == 0u);
    BOOST_TEST(reinterpret_cast<uintptr_t>(base) % unit == 0u);

    // A hole stays between the two commits.
    BOOST_TEST_REQUIRE((source.commit(base, 0, 2 * unit) == Status::kOk));
    BOOST_TEST_REQUIRE((source.commit(base, 4 * unit, unit) == Status::kOk));
    if (source.host_visible()) {
      BOOST_TEST(all_bytes_are(base, 2 * unit, 0));
      std::memset(base, 0xAB, 2 * unit);
      std::memset(base + 4 * unit, 0xCD, unit);
    }
    // What is given back and taken again is zero; what stayed is as it was.
    BOOST_TEST((source.decommit(base, unit, unit) == Status::kOk));
    BOOST_TEST_REQUIRE((source.commit(base, unit, unit) == Status::kOk));
    if (source.host_visible()) {
      BOOST_TEST(all_bytes_are(base, unit, 0xAB));
      BOOST_TEST(all_bytes_are(base + unit, unit, 0));
      BOOST_TEST(all_bytes_are(base + 4 * unit, unit, 0xCD));
    }
    source.release(base, bytes);
  }
}

inline void check_arena(MemorySource &source, uint64_t seed) {
  std::mt19937_64 random(seed);
  const size_t unit = source.granularity();
  for (int round = 0; round < 8; ++round) {
    ArenaOptions options;
    options.frame_bytes = 1 + random() % (2 * unit);
    options.capacity = static_cast<uint32_t>(1 + random() % 100);
    options.alignment = size_t{1} << (random() % 13);
    options.slab_bytes = 1 + random() % (8 * unit);
    BOOST_TEST_CONTEXT("seed " << seed << " round " << round << ": " << options.capacity
                               << " frames of " << options.frame_bytes) {
      Arena arena;
      BOOST_TEST_REQUIRE((arena.open(source, options) == Status::kOk));
      BOOST_TEST(arena.validate());
      BOOST_TEST((arena.open(source, options) == Status::kBusy));
      BOOST_TEST((arena.grow(options.capacity + 1) == Status::kInvalid));
      void *const base = arena.base();
      uint32_t marked = 0;  // frames whose first and last byte hold their number
      for (int step = 0; step < 20; ++step) {
        const auto frames = static_cast<uint32_t>(random() % (options.capacity + 1));
        if (random() % 2 == 0) {
          BOOST_TEST_REQUIRE((arena.grow(frames) == Status::kOk));
          BOOST_TEST(arena.frames() >= frames);
        } else {
          BOOST_TEST_REQUIRE((arena.shrink(frames) == Status::kOk));
          BOOST_TEST(arena.frames() >= std::min(frames, marked));
        }
        BOOST_TEST_REQUIRE(arena.validate());
        BOOST_TEST(arena.base() == base);
        marked = std::min(marked, arena.frames());
        if (!source.host_visible()) continue;
        for (uint32_t i = 0; i < marked; ++i) {
          const auto *const frame = static_cast<unsigned char *>(arena.frame(i));
          const auto mark = static_cast<unsigned char>(i);
          if (frame[0] != mark || frame[options.frame_bytes - 1] != mark) {
            BOOST_ERROR("frame " << i << " lost its content");
          }
        }
        for (uint32_t i = marked; i < arena.frames(); ++i) {
          auto *const frame = static_cast<unsigned char *>(arena.frame(i));
          BOOST_TEST(reinterpret_cast<uintptr_t>(frame) % options.alignment == 0u);
          frame[0] = frame[options.frame_bytes - 1] = static_cast<unsigned char>(i);
          arena.poison(i);
          arena.unpoison(i);
        }
        marked = arena.frames();
      }
      arena.close();
      BOOST_TEST(arena.validate());
      BOOST_TEST((arena.grow(1) == Status::kInvalid));
    }
  }
}

}  // namespace quire::test
