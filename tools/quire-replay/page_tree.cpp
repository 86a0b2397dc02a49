// Open addressing with linear probing over 64 bits of the key; the table doubles at half full.
#include "page_tree.h"

#include <utility>

#include "page_keys.h"

namespace quire::replay {
namespace {

class KeyTable {
 public:
  KeyTable() : slots_(1024) {}

  // The number of the key, a new one where it is new.
  uint32_t number(quire_key key) {
    if (2 * (count_ + size_t{1}) > slots_.size()) grow();
    Slot &slot = find(slots_, key);
    if (slot.number == kEmpty) slot = Slot{key, count_++};
    return slot.number;
  }

  uint32_t count() const { return count_; }

 private:
  static constexpr uint32_t kEmpty = UINT32_MAX;
  struct Slot {
    quire_key key{};
    uint32_t number = kEmpty;
  };

  static Slot &find(std::vector<Slot> &slots, quire_key key) {
    size_t i = key.lo & (slots.size() - 1);
    while (slots[i].number != kEmpty && (slots[i].key.lo != key.lo || slots[i].key.hi != key.hi))
      i = (i + 1) & (slots.size() - 1);
    return slots[i];
  }

  void grow() {
    std::vector<Slot> larger(slots_.size() * 2);
    for (const Slot &slot : slots_)
      if (slot.number != kEmpty) find(larger, slot.key) = slot;
    slots_ = std::move(larger);
  }

  std::vector<Slot> slots_;
  uint32_t count_ = 0;
};

}  // namespace

PageTree number_pages(const Trace &trace) {
  PageTree tree;
  tree.numbers.resize(trace.ids.size());
  KeyTable table;
  for (const Request &request : trace.requests) {
    quire_key key{request.space, ~uint64_t{0}};
    for (uint64_t i = request.begin; i < request.end; ++i) {
      key = child_key(key, trace.ids[i]);
      tree.numbers[i] = table.number(key);
    }
  }
  tree.pages = table.count();
  return tree;
}

}  // namespace quire::replay
