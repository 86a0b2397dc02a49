// Page table and prefix index over the simulated weak memory: find, publish, evict, pins by handle,
// shared private pages, chains, stamps and leaf bits, each in a case of two or three threads that is
// explored exhaustively within its bounds. Every weaker order and every torn read-modify-write in
// page_table.h, prefix_index.h and evict.h must fail one of them.
#define BOOST_TEST_MODULE model_weak_pages
#define BOOST_TEST_DYN_LINK
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <vector>

#include "tests/support/campaign.h"
#include "tests/support/weak_pages.h"

using namespace quire;
using namespace quire::model;

namespace {

using Pages = WeakPages<OneBin>;

void find_and_publish(Scheduler &s) {
  Pages world(2);
  s.spawn([&] { world.publish(0); });
  s.spawn([&] {
    world.find(0);
    world.find(0, 2);
  });
  s.run();
  world.check_at_rest();
}

void find_and_evict(Scheduler &s) {
  Pages world(2);
  const uint32_t page = world.publish(0);
  s.spawn([&] { world.find(0, 3); });
  s.spawn([&] { world.find(0, 2); });
  s.spawn([&] { world.evict(page); });
  s.run();
  world.check_at_rest();
}

// The finder's page is evicted, its number reused for another key, and for the same key again.
template <class Traits>
void find_and_recycle(Scheduler &s) {
  WeakPages<Traits> world(1);
  const uint32_t page = world.publish(0);
  s.spawn([&] { world.find(0, 2); });
  s.spawn([&] {
    world.evict(page);
    world.publish(1);
    world.evict(page);
    world.publish(0);
  });
  s.run();
  world.check_at_rest();
}

void two_publishers(Scheduler &s) {
  Pages world(2);
  uint32_t got[2];
  for (auto &page : got) s.spawn([&] { page = world.publish(0); });
  s.run();
  require(got[0] == got[1] && got[0] != kNone, "two canonical pages");
  require(world.index.size() == 1, "two entries");
  world.check_at_rest();
}

void publishers_of_two_keys(Scheduler &s) {
  WeakPages<OneTag> world(3);
  s.spawn([&] { world.publish(0); });
  s.spawn([&] { world.publish(1); });
  s.spawn([&] { world.publish(0); });
  s.run();
  require(world.index.size() == 2, "not two entries");
  world.check_at_rest();
}

// An evicted key is published anew while a finder and another publisher look for it.
void evict_and_publish(Scheduler &s) {
  Pages world(2);
  const uint32_t page = world.publish(0);
  s.spawn([&] { world.find(0); });
  s.spawn([&] {
    world.evict(page);
    world.publish(0);
  });
  s.spawn([&] { world.publish(0); });
  s.run();
  world.check_at_rest();
}

// The slot in which a finder saw the page holds another key's valid entry by the time it looks.
void another_entry_in_the_slot(Scheduler &s) {
  Pages world(3);
  const uint32_t page = world.publish(0);
  s.spawn([&] { world.find(0); });
  s.spawn([&] {
    world.evict(page);
    world.publish(1);
    world.publish(0);
  });
  s.run();
  world.check_at_rest();
}

// A key that is there throughout is missed by nobody, whatever goes on in its bin.
template <class Traits>
void present_throughout(Scheduler &s) {
  WeakPages<Traits> world(3);
  const uint32_t other = world.publish(1);
  const uint32_t page = world.publish(0);
  s.spawn([&] {
    world.evict(other);
    world.publish(2);
  });
  s.spawn([&] {
    require(world.peek(weak_key(0)) == page, "peek missed a key that is there");
    require(world.find(0) == page, "find missed a key that is there");
    const Key keys[] = {weak_key(0)};
    require(world.index.match(keys, 1) == 1, "match missed a key that is there");
  });
  s.run();
  world.check_at_rest();
}

// No page ever had the first half of one key and the second half of another.
void mixed_keys(Scheduler &s) {
  WeakPages<OneTag> world(1);
  const uint32_t page = world.publish(0);
  s.spawn([&] {
    world.evict(page);
    world.publish(1);
  });
  s.spawn([&] {
    const Key mixed[] = {{weak_key(0).lo, weak_key(1).hi}, {weak_key(1).lo, weak_key(0).hi}};
    for (const Key &key : mixed) {
      require(world.peek(key) == kNone, "peeked a key that never was");
      require(world.index.find_and_pin(key) == kNone, "found a key that never was");
    }
  });
  s.run();
  world.check_at_rest();
}

// A handle pins its own life of the page and no other. How the handle comes to the other thread
// orders nothing: only the page's word does.
void pins_by_handle(Scheduler &s) {
  Pages world(1);
  const uint32_t page = world.publish(0);
  const uint32_t generation = world.table.generation(page);
  s.spawn([&] {
    world.evict(page);
    world.publish(1);
  });
  for (uint32_t life = generation; life < generation + 2; ++life) {
    s.spawn([&, life] {
      if (!world.table.pin_exact(page, life)) return;
      const uint32_t k = life - generation;
      world.check_pinned(page, k);
      require(world.table.add_ref(page), "no room for a pin");
      world.drop(page, k, 2);
      world.drop(page, k, 3);
    });
  }
  s.run();
  world.forget_history();
  world.check_at_rest();
}

// A key pins the page only while it is the page's.
void pins_by_key(Scheduler &s) {
  Pages world(1);
  const uint32_t page = world.publish(0);
  s.spawn([&] {
    world.evict(page);
    world.publish(1);
  });
  s.spawn([&] {
    if (!world.table.pin(page, weak_key(0))) return;
    world.check_pinned(page, 0);
    world.drop(page, 0, 2);
  });
  s.run();
  world.check_at_rest();
}

// Pins beyond half of the range are refused and undone, and none is lost.
void many_pins(Scheduler &s) {
  Pages world(1);
  const uint32_t page = world.publish(0);
  for (int i = 0; i < 7; ++i) require(world.table.add_ref(page), "no room");
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] {
      bool busy = false;
      const uint32_t found = world.index.find_and_pin(weak_key(0), {}, &busy);
      require((found == kNone) == busy, "a page that is there was missed");
      if (world.table.add_ref(page)) world.table.unpin(page);
      if (found != kNone) world.table.unpin(page);
    });
  }
  s.run();
  for (int i = 0; i < 7; ++i) world.table.unpin(page);
  world.check_at_rest();
}

// Sharers of a private page write to it in turn; the last one to go frees it, and the next owner
// writes after all of them.
void shared_private_page(Scheduler &s) {
  Pages world(1);
  uint32_t page = kNone;
  require(world.pool.alloc(1, &page), "no page");
  const uint32_t generation = world.table.generation(page);
  require(world.table.add_child(page), "not shared");
  require(!world.table.free_private(page, generation), "freed while shared");
  require(world.table.give_up(page, generation) == Hold::kBusy, "given up while shared");
  world.content[page] = 9;
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] {
      require(world.content[page] == 9, "a shared page was overwritten");
      const Release release = world.table.release_private(page, generation);
      require(release != Release::kStale, "a share got lost");
      if (release != Release::kFreed) return;
      world.content[page] = 10;
      world.pool.free(&page, 1);
    });
  }
  s.spawn([&] { world.publish(1); });
  s.run();
  world.check_at_rest();
}

// One frees a private page, one a stale handle of it: changes nothing.
void free_private_and_reuse(Scheduler &s) {
  Pages world(1);
  uint32_t page = kNone;
  require(world.pool.alloc(1, &page), "no page");
  const uint32_t generation = world.table.generation(page);
  world.content[page] = 9;
  int freed = 0;
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] {
      if (!world.table.free_private(page, generation)) return;
      ++freed;
      world.content[page] = 10;
      world.pool.free(&page, 1);
    });
  }
  s.spawn([&] { world.publish(1); });
  s.run();
  require(freed == 1, "freed twice, or never");
  world.check_at_rest();
}

// One works on a private page, one gives it up, by the same handle; then it is somebody else's.
void hold_and_give_up(Scheduler &s) {
  Pages world(1);
  uint32_t page = kNone;
  require(world.pool.alloc(1, &page), "no page");
  const uint32_t generation = world.table.generation(page);
  world.content[page] = 9;
  int given_up = 0;
  s.spawn([&] {
    if (world.table.hold(page, generation) != Hold::kHeld) return;
    require(world.content[page] == 9, "held, and it is somebody else's");
    world.content[page] = 9;
    world.table.unhold(page);
  });
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] {
      if (world.table.give_up(page, generation) != Hold::kHeld) return;
      ++given_up;
      world.content[page] = 10;
      world.pool.free(&page, 1);
      world.publish(1);
    });
  }
  s.run();
  require(given_up < 2, "given up twice");
  if (given_up == 1) return world.check_at_rest();
  require(world.table.give_up(page, generation) == Hold::kHeld, "nobody works on it any more");
}

// Two pages are freed, or none: a step that was taken is taken back, and the page is as it was.
void give_up_all_or_none(Scheduler &s) {
  Pages world(2);
  uint32_t page[2] = {};
  require(world.pool.alloc(2, page), "no pages");
  const uint32_t generation[2] = {world.table.generation(page[0]), world.table.generation(page[1])};
  bool freed = false;
  s.spawn([&] {
    if (world.table.give_up(page[0], generation[0]) != Hold::kHeld) return;
    if (world.table.give_up(page[1], generation[1]) == Hold::kHeld) {
      freed = true;
      world.content[page[0]] = world.content[page[1]] = 0;
      world.pool.free(page, 2);
    } else {
      world.table.take_back(page[0]);
    }
  });
  s.spawn([&] {
    for (const int i : {1, 0}) {
      if (world.table.hold(page[i], generation[i]) != Hold::kHeld) continue;
      world.content[page[i]] = 9;
      world.table.unhold(page[i]);
    }
  });
  s.spawn([&] { world.publish(1); });
  s.run();
  if (freed) return world.check_at_rest();
  for (int i = 0; i < 2; ++i) {
    require(world.table.give_up(page[i], generation[i]) == Hold::kHeld, "not as it was");
  }
}

// A finder of a former life adds its pin, and takes it back, while the page is held, given up, taken
// back.
void late_finder_of_a_private_page(Scheduler &s) {
  Pages world(1);
  uint32_t page = kNone;
  require(world.pool.alloc(1, &page), "no page");
  const uint32_t generation = world.table.generation(page);
  s.spawn([&] {
    require(world.table.hold(page, generation) == Hold::kHeld, "not held");
    world.table.unhold(page);
    require(world.table.give_up(page, generation) == Hold::kHeld, "not given up");
    world.table.take_back(page);
  });
  s.spawn([&] {
    require(world.table.add_ref(page), "too many pins");
    world.table.unpin(page);
  });
  s.run();
  require(world.table.view(page).ref == 0 && world.table.is_idle(page, generation), "a trace");
}

// The same thread, in the library; here another one goes on with the page.
void free_after_undo(Scheduler &s) {
  Pages world(1);
  uint32_t page = kNone;
  require(world.pool.alloc(1, &page), "no page");
  const uint32_t generation = world.table.generation(page);
  WeakAtomic<uint32_t> told{0};
  s.spawn([&] {
    world.table.make_visible(page, weak_key(0));
    world.content[page] = 9;
    world.table.undo_visible(page);
    told.store(1, std::memory_order_relaxed);
  });
  s.spawn([&] {
    if (told.load(std::memory_order_relaxed) == 0) return;
    if (world.table.free_private(page, generation)) world.content[page] = 10;
  });
  s.run();
}

// A finder that knows the page from elsewhere pins it while its publisher gives up: both undo.
void undo_and_pin(Scheduler &s) {
  Pages world(1);
  uint32_t page = kNone;
  require(world.pool.alloc(1, &page), "no page");
  const uint32_t generation = world.table.generation(page);
  world.content[page] = 1;
  s.spawn([&] {
    world.table.make_visible(page, weak_key(0));
    world.table.undo_visible(page);
    require(world.table.free_private(page, generation), "not private");
    world.pool.free(&page, 1);
  });
  s.spawn([&] {
    if (world.table.pin(page, weak_key(0))) world.table.unpin(page);
  });
  s.run();
  world.check_at_rest();
}

// A publisher is sent back by a commit to its bin; by the time it scans anew, the key's page has been
// evicted and published again.
void moved_and_published_again(Scheduler &s) {
  Pages world(4);
  const uint32_t page = world.publish(0);
  s.spawn([&] { world.publish(0); });
  s.spawn([&] {
    world.publish(1);
    world.evict(page);
    world.publish(0);
  });
  s.run();
  world.check_at_rest();
}

// A dead page is skipped by finders and publishers; a live one takes over its key.
void dead_page(Scheduler &s) {
  Pages world(3);
  const uint32_t dead = world.publish(0);
  const auto alive = [&](uint32_t page) { return page != dead; };
  uint32_t got[2] = {kNone, kNone};
  for (auto &page : got) {
    s.spawn([&] {
      uint32_t mine = kNone;
      require(world.pool.alloc(1, &mine), "no page");
      const uint32_t generation = world.table.generation(mine);
      world.content[mine] = 1;
      const Insert result = world.index.insert(weak_key(0), mine, alive);
      require(result.page != dead && result.page != kNone, "the dead page was found");
      world.check_pinned(result.page, 0);
      world.table.unpin(result.page);
      if (result.status != Insert::kInserted) {
        require(world.table.free_private(mine, generation), "not private");
        world.pool.free(&mine, 1);
      }
      page = result.page;
    });
  }
  s.run();
  require(got[0] == got[1] && world.index.peek(weak_key(0), alive) == got[0], "two live pages");
  require(world.index.size() == 2 && world.index.validate(alive), "index invalid");
}

// A parent goes after its child, with the child's stamp; a child is published under a pinned parent.
void parent_and_child(Scheduler &s) {
  Pages world(2);
  const uint32_t parent = world.publish(0, kNone, true);
  const uint32_t child = world.publish(1, parent);
  world.drop(parent, 0, 1);
  s.spawn([&] { world.find(1, 3); });
  s.spawn([&] {
    world.evict(child);
    world.evict(parent);
  });
  s.spawn([&] { world.evict(parent); });
  s.run();
  world.check_at_rest();
}

void publish_under_parent(Scheduler &s) {
  Pages world(2);
  const uint32_t root = world.publish(0);
  s.spawn([&] {
    const uint32_t parent = world.index.find_and_pin(weak_key(0));
    if (parent == kNone) return;
    world.publish(1, parent);
    world.drop(parent, 0, 2);
  });
  s.spawn([&] {
    if (!world.evict(root)) world.evict(1 - root);
    world.evict(root);
  });
  s.run();
  world.check_at_rest();
}

// Presence is monotone: whoever sees the child sees the parent, unless both went meanwhile.
void monotone_presence(Scheduler &s) {
  Pages world(2);
  const Key keys[] = {weak_key(0), weak_key(1)};
  s.spawn([&] {
    const uint32_t parent = world.publish(0, kNone, true);
    const uint32_t child = world.publish(1, parent);
    world.drop(parent, 0, 1);
    world.evict(child);
  });
  s.spawn([&] {
    const uint32_t child = world.index.find_and_pin(keys[1]);
    if (child == kNone) {
      // The child goes before the parent does, and comes after it.
      world.index.match(keys, 2);
      return;
    }
    uint32_t pages[2] = {kNone, kNone};
    require(world.index.match(keys, 2) == 2, "a child without its parent");
    const auto put = [&](size_t i, uint32_t page, uint64_t) { pages[i] = page; };
    world.index.chain<2, 1>(keys, 2, child, put);
    require(pages[1] == child && pages[0] < 2 && pages[0] != child, "a hole under a pin");
    require(world.content[pages[0]] == 1 && world.content[pages[1]] == 2, "other content");
    world.drop(child, 1, 2);
  });
  s.run();
  world.check_at_rest();
}

// Whoever finds the parent's slot free finds the child's free: the child went first.
void parent_gone_child_gone(Scheduler &s) {
  WeakPages<TwoBins> world(4);
  const uint32_t parent = world.publish(0, kNone, true);
  const uint32_t child = world.publish(1, parent);
  world.drop(parent, 0, 1);
  s.spawn([&] {
    world.evict(child);
    world.evict(parent);
  });
  s.spawn([&] {
    if (world.peek(weak_key(0)) == kNone) {
      require(world.peek(weak_key(1)) == kNone, "the parent went before its child");
    }
  });
  s.run();
  world.check_at_rest();
}

// Who publishes or evicts and finds nobody following: then whoever starts to follow, and looks
// through the index, finds it done.
void followers(Scheduler &s, bool evicts) {
  Pages world(2);
  const uint32_t first = evicts ? world.publish(0) : kNone;
  WeakAtomics::atomic<uint32_t> started;
  started.store(0, std::memory_order_relaxed);
  bool told = false, listed = false;
  s.spawn([&] {
    if (evicts) {
      require(world.evict(first), "not evicted");
    } else {
      world.publish(0, kNone, true);
    }
    told = started.load(std::memory_order_seq_cst) != 0;
  });
  s.spawn([&] {
    started.store(1, std::memory_order_seq_cst);
    uint64_t at = 0;
    world.index.visit(&at, [&](uint32_t page) {
      listed |= world.table.view(page).state == PageState::kVisible &&
                world.table.key(page) == weak_key(0);
      return true;
    });
  });
  s.run();
  require(told || listed != evicts, "neither told nor seen");
}

// A page that did not get in is in no list.
void visitor_of_two_publishers(Scheduler &s) {
  Pages world(2);
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] { world.publish(0); });
  }
  uint32_t listed = kNone;
  s.spawn([&] {
    uint64_t at = 0;
    world.index.visit(&at, [&](uint32_t page) {
      require(listed == kNone, "one key, two pages");
      listed = page;
      return true;
    });
  });
  s.run();
  require(listed == kNone || world.index.peek(weak_key(0)) == listed,
          "a page was listed that never got in");
}

// The leaf bit ends as the state word says, and the class beside it is not lost.
void leaf_bits(Scheduler &s) {
  Pages world(1);
  const uint32_t page = world.publish(0);
  require(world.table.add_ref(page), "no room");
  world.table.set_class(page, 5);
  for (int t = 0; t < 2; ++t) {
    s.spawn([&] {
      require(world.table.add_child(page), "no room");
      world.table.drop_child(page);
    });
  }
  s.spawn([&] { world.table.set_class(page, 2); });
  s.run();
  require(world.table.page_class(page) == 2, "lost the class");
  world.table.unpin(page);
  world.check_at_rest();
}

// A page loses its one child while it gets another, or is evicted: who writes the leaf bit last has
// seen what the other did.
void leaf_bit_of_a_parent(Scheduler &s) {
  Pages world(1);
  const uint32_t page = world.publish(0, kNone, true);
  require(world.table.add_child(page), "no room");
  s.spawn([&] { world.table.drop_child(page); });
  s.spawn([&] { require(world.table.add_child(page), "no room"); });
  s.run();
  require(!world.table.leaf_hint(page), "a page with a child is a leaf");
}
void leaf_bit_of_a_victim(Scheduler &s) {
  Pages world(1);
  const uint32_t page = world.publish(0, kNone, true);
  require(world.table.add_child(page), "no room");
  world.table.unpin(page);
  s.spawn([&] { world.table.drop_child(page); });
  s.spawn([&] { world.evict(page); });
  s.run();
  require(world.table.validate(), "page table invalid");
}

// Stamps go to the maximum, whoever is late.
void stamps_rise(Scheduler &s) {
  Pages world(1);
  const uint32_t page = world.publish(0);
  for (uint32_t stamp = 2; stamp <= 4; ++stamp) {
    s.spawn([&, stamp] { world.table.raise_stamp(page, stamp); });
  }
  s.run();
  require(world.table.stamp(page) == 4, "a stamp got lost");
}

// A bin with one slot left, and two keys that want it.
void last_slot(Scheduler &s) {
  WeakPages<OneBin> world(16);
  std::vector<uint32_t> fill;
  for (uint32_t i = 0; i < 14; ++i) {
    uint32_t page = kNone;
    require(world.pool.alloc(1, &page), "no page");
    world.content[page] = 100 + i;
    const Key key{100 + i, 5};
    require(world.index.insert(key, page).status == Insert::kInserted, "not inserted");
  }
  uint32_t inserted = 0, full = 0;
  for (uint32_t k = 0; k < 2; ++k) {
    s.spawn([&, k] {
      uint32_t page = kNone;
      require(world.pool.alloc(1, &page), "no page");
      const uint32_t generation = world.table.generation(page);
      world.content[page] = k + 1;
      const Insert result = world.index.insert(weak_key(k), page);
      inserted += result.status == Insert::kInserted;
      full += result.status == Insert::kFull;
      if (result.status == Insert::kInserted) world.check_pinned(page, k);
      if (result.status == Insert::kFull) {
        require(world.table.free_private(page, generation), "not private");
        world.pool.free(&page, 1);
      }
    });
  }
  s.run();
  require(inserted == 1 && full == 1, "one slot, and not one winner");
  require(world.index.validate() && world.table.validate(), "invalid");
}

std::vector<ModelCase> cases() {
  return {
      {"find and publish", {3, 2}, find_and_publish},
      {"find and evict", {2, 2}, find_and_evict},
      {"find and recycle", {2, 2}, find_and_recycle<OneBin>},
      {"find and recycle, equal tags", {2, 2}, find_and_recycle<OneTag>},
      {"two publishers", {3, 1}, two_publishers},
      {"publishers of two keys", {2, 1}, publishers_of_two_keys},
      {"evict and publish", {2, 1}, evict_and_publish},
      {"another entry in the slot", {2, 2}, another_entry_in_the_slot},
      {"present throughout", {2, 3}, present_throughout<OneBin>},
      {"present throughout, equal tags", {2, 3}, present_throughout<OneTag>},
      {"mixed keys", {1, 5}, mixed_keys},
      {"pins by handle", {2, 2}, pins_by_handle},
      {"pins by key", {2, 2}, pins_by_key},
      {"many pins", {3, 2}, many_pins},
      {"shared private page", {3, 2}, shared_private_page},
      {"free private and reuse", {3, 2}, free_private_and_reuse},
      {"hold and give up", {3, 2}, hold_and_give_up},
      {"give up all or none", {3, 2}, give_up_all_or_none},
      {"late finder of a private page", {3, 2}, late_finder_of_a_private_page},
      {"free after undo", {3, 3}, free_after_undo},
      {"undo and pin", {3, 2}, undo_and_pin},
      {"moved, and published again", {3, 1}, moved_and_published_again},
      {"a dead page", {2, 1}, dead_page},
      {"parent and child", {2, 2}, parent_and_child},
      {"publish under parent", {3, 2}, publish_under_parent},
      {"monotone presence", {2, 2}, monotone_presence},
      {"parent gone, child gone", {1, 5}, parent_gone_child_gone},
      {"followers of a publish", {3, 3}, [](Scheduler &s) { followers(s, false); }},
      {"followers of an eviction", {3, 3}, [](Scheduler &s) { followers(s, true); }},
      {"a visitor of two publishers", {2, 2}, visitor_of_two_publishers},
      {"leaf bits", {3, 2}, leaf_bits},
      {"leaf bit of a parent", {3, 3}, leaf_bit_of_a_parent},
      {"leaf bit of a victim", {3, 3}, leaf_bit_of_a_victim},
      {"stamps rise", {3, 3}, stamps_rise},
      {"the last slot", {2, 1}, last_slot},
  };
}

}  // namespace

BOOST_AUTO_TEST_CASE(pages_are_what_they_seem_in_every_order) {
  BOOST_TEST(prove(cases()) > 1000U);
}

// Promise 6: whoever finds, publishes, releases or evicts stops before any of its atomics, for ever;
// another one finds, publishes and evicts to the end, within a bounded number of steps.
BOOST_AUTO_TEST_CASE(a_thread_stopped_before_any_atomic_stops_nobody) {
  Stops stops;
  for (int what = 0; what < 4; ++what) {
    stop_everywhere(Bounds{1, 0}, &stops, [&](Scheduler &s, const auto &go) {
      Pages world(4);
      const uint32_t page = world.publish(0);
      world.publish(3);
      const uint32_t stopped = s.spawn([&] {
        if (what == 0) world.find(0);
        if (what == 1) world.publish(1);
        if (what == 2) world.evict(page);
        if (what == 3) world.publish(0);
      });
      const uint32_t other = s.spawn([&] {
        world.find(0);
        const uint32_t mine = world.publish(2);
        require(mine != kNone && world.find(2) == mine, "not published");
        require(world.evict(mine), "not evicted");
        require(world.publish(0) != kNone, "a page and a slot are free, and not given");
        require(world.find(3) != kNone, "missed a key that is there");
      });
      go(stopped, other);
      world.check_conservation();
    });
  }
  print(stops);
  BOOST_TEST(stops.places > 100U);
  BOOST_TEST(stops.longest < 600U);
}

BOOST_AUTO_TEST_CASE(weaker_page_tables_and_indexes_are_caught) {
  const CampaignResult result =
      campaign(cases(), {"runtime/page_table.h", "runtime/prefix_index.h", "runtime/evict.h"},
               QUIRE_SOURCE_DIR);
  for (const std::string &key : result.unexpected) BOOST_ERROR("unexpected: " << key);
  BOOST_TEST((result.skipped || result.tried != 0));
}
