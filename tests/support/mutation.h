// Mutation: the places at which an algorithm touches its atomics, each with the ways to make it
// wrong. A place is a call in the source (file, line, column), found by the default argument of each
// operation of WeakAtomics; so a mutant needs no compilation: the operation at that place is done
// with a weaker order, or torn into a load and a store.
//
//   order    one step weaker: seq_cst -> acq_rel (acquire for a load, release for a store);
//            acq_rel -> acquire, and -> release; acquire, release -> relaxed. For a compare-and-swap
//            also the order of its failure
//   torn     a read-modify-write as a load and a store, between which others may run
//
// At most one mutation is in force in a process. While `recording`, places that are passed are kept.
// tests/support/campaign.h runs the tests once for each mutant.
#ifndef QUIRE_TESTS_SUPPORT_MUTATION_H_
#define QUIRE_TESTS_SUPPORT_MUTATION_H_

#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#if defined(__clang__)
#include <cstddef>
#else
#include <source_location>
#endif

namespace quire::model {

#if defined(__clang__)
// clang 14 has no std::source_location for this library; it only reads these sources (clang-tidy).
class Where {
 public:
  static constexpr Where current(const char *file = __builtin_FILE(),
                                 uint32_t line = __builtin_LINE()) {
    Where where;
    where.file_ = file;
    where.line_ = line;
    return where;
  }
  constexpr const char *file_name() const { return file_; }
  constexpr uint32_t line() const { return line_; }
  constexpr uint32_t column() const { return 0; }

 private:
  const char *file_ = "";
  uint32_t line_ = 0;
};
#else
using Where = std::source_location;
#endif

struct Site {
  std::string file;
  uint32_t line = 0, column = 0;
  auto operator<=>(const Site &) const = default;
};

enum class Operation : uint8_t { kLoad, kStore, kChange, kCompare };

enum class Change : uint8_t { kNothing, kOrder, kFailure, kTorn };

struct Mutation {
  Change change = Change::kNothing;
  Site site;
  std::memory_order from = std::memory_order_relaxed, to = std::memory_order_relaxed;

  bool is_at(const Where &where) const {
    return where.line() == site.line && where.column() == site.column &&
           std::strcmp(where.file_name(), site.file.c_str()) == 0;
  }
};

inline const char *name_of(std::memory_order order) {
  switch (order) {
    case std::memory_order_relaxed:
      return "relaxed";
    case std::memory_order_consume:
    case std::memory_order_acquire:
      return "acquire";
    case std::memory_order_release:
      return "release";
    case std::memory_order_acq_rel:
      return "acq_rel";
    default:
      return "seq_cst";
  }
}

inline std::string name_of(const Mutation &m) {
  switch (m.change) {
    case Change::kTorn:
      return "torn";
    case Change::kOrder:
      return std::string(name_of(m.from)) + " -> " + name_of(m.to);
    case Change::kFailure:
      return std::string("failure ") + name_of(m.from) + " -> " + name_of(m.to);
    default:
      return "nothing";
  }
}

// The orders one step below; acq_rel has two.
inline std::vector<std::memory_order> weaker(std::memory_order order, Operation operation) {
  switch (order) {
    case std::memory_order_seq_cst:
      if (operation == Operation::kLoad) return {std::memory_order_acquire};
      if (operation == Operation::kStore) return {std::memory_order_release};
      return {std::memory_order_acq_rel};
    case std::memory_order_acq_rel:
      return {std::memory_order_acquire, std::memory_order_release};
    case std::memory_order_acquire:
    case std::memory_order_release:
      return {std::memory_order_relaxed};
    default:
      return {};
  }
}

class Mutator {
 public:
  static Mutator &get() {
    static Mutator mutator;
    return mutator;
  }

  void set(const Mutation &mutation) { mutation_ = mutation; }
  void record(bool on) { recording_ = on; }

  // What is done at this place: the order in force.
  std::memory_order order(const Where &where, Operation operation, std::memory_order order) {
    if (recording_) note(where, operation, order, Change::kOrder);
    return changed(where, Change::kOrder, order);
  }
  std::memory_order failure(const Where &where, std::memory_order order) {
    if (recording_) note(where, Operation::kLoad, order, Change::kFailure);
    return changed(where, Change::kFailure, order);
  }
  bool torn(const Where &where) const {
    return mutation_.change == Change::kTorn && mutation_.is_at(where);
  }

  // All mutants of the places that were passed while recording.
  std::vector<Mutation> mutants() const {
    std::vector<Mutation> all;
    for (const auto &[key, operation] : seen_) {
      const auto &[site, change, order] = key;
      for (const std::memory_order to : weaker(order, operation)) {
        all.push_back({change, site, order, to});
      }
      const bool rmw = operation == Operation::kChange || operation == Operation::kCompare;
      if (rmw) all.push_back({Change::kTorn, site, order, order});
    }
    return all;
  }

 private:
  void note(const Where &where, Operation operation, std::memory_order order, Change change) {
    seen_[{Site{where.file_name(), where.line(), where.column()}, change, order}] = operation;
  }
  std::memory_order changed(const Where &where, Change change, std::memory_order order) const {
    const bool here = mutation_.change == change && order == mutation_.from;
    return here && mutation_.is_at(where) ? mutation_.to : order;
  }

  bool recording_ = false;
  Mutation mutation_;
  std::map<std::tuple<Site, Change, std::memory_order>, Operation> seen_;
};

}  // namespace quire::model

#endif  // QUIRE_TESTS_SUPPORT_MUTATION_H_
