// Which processor each thread of a row runs on, where --pin asks for it.
//
//   near     one NUMA node is filled after the other: as few nodes as the threads fit into
//   spread   one processor of each node in turn
// Only processors that this process may use (its affinity) are used; with more threads than those,
// they are used again. Nodes are read from /sys/devices/system/node; where it has none, all
// processors are of one node. Memory is where the thread that wrote it first ran: tables are filled
// by the main thread, so with `spread` half of the threads of a two-node machine read across.
//   order has each usable processor once.
// Thread class: plain functions.
#ifndef QUIRE_BENCH_PLACEMENT_H
#define QUIRE_BENCH_PLACEMENT_H

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace quire::bench {

enum class Placement : unsigned char { kAnywhere, kNear, kSpread };

// "0-3,8,10-11": the kernel's lists of processors. What is no number ends the list.
inline std::vector<unsigned> parse_cpu_list(const std::string &text) {
  std::vector<unsigned> cpus;
  const char *at = text.c_str();
  while (*at >= '0' && *at <= '9') {
    char *end = nullptr;
    const unsigned long first = std::strtoul(at, &end, 10);
    unsigned long last = first;
    if (*end == '-' && end[1] >= '0' && end[1] <= '9') last = std::strtoul(end + 1, &end, 10);
    for (unsigned long cpu = first; cpu <= last && cpu < CPU_SETSIZE; ++cpu)
      cpus.push_back(static_cast<unsigned>(cpu));
    if (*end != ',') break;
    at = end + 1;
  }
  return cpus;
}

// The processors of each node that has any.
inline std::vector<std::vector<unsigned>> numa_nodes(
    const std::string &folder = "/sys/devices/system/node") {
  std::vector<std::vector<unsigned>> nodes;
  std::string online, list;
  std::ifstream(folder + "/online") >> online;
  for (const unsigned node : parse_cpu_list(online)) {
    list.clear();
    std::ifstream(folder + "/node" + std::to_string(node) + "/cpulist") >> list;
    std::vector<unsigned> cpus = parse_cpu_list(list);
    if (!cpus.empty()) nodes.push_back(std::move(cpus));
  }
  return nodes;
}

inline std::vector<unsigned> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<unsigned> cpus;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

// Thread t runs on order[t % order.size()]. Empty: anywhere.
inline std::vector<unsigned> cpu_order(Placement placement,
                                       const std::vector<std::vector<unsigned>> &nodes,
                                       const std::vector<unsigned> &usable) {
  if (placement == Placement::kAnywhere) return {};
  std::set<unsigned> left(usable.begin(), usable.end());
  std::vector<std::vector<unsigned>> lists;
  for (const auto &node : nodes) {
    std::vector<unsigned> list;
    for (const unsigned cpu : node)
      if (left.erase(cpu) != 0) list.push_back(cpu);
    if (!list.empty()) lists.push_back(std::move(list));
  }
  if (!left.empty()) lists.emplace_back(left.begin(), left.end());
  std::vector<unsigned> order;
  if (placement == Placement::kNear) {
    for (const auto &list : lists) order.insert(order.end(), list.begin(), list.end());
    return order;
  }
  for (size_t i = 0; order.size() < usable.size(); ++i)
    for (const auto &list : lists)
      if (i < list.size()) order.push_back(list[i]);
  return order;
}

// This thread on one processor until the end of the scope; where it may not, it stays where it is.
class Pinned {
 public:
  Pinned(const std::vector<unsigned> &order, unsigned thread) {
    if (order.empty() || sched_getaffinity(0, sizeof before_, &before_) != 0) return;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(order[thread % order.size()], &one);
    pinned_ = sched_setaffinity(0, sizeof one, &one) == 0;
  }
  Pinned(const Pinned &) = delete;
  Pinned &operator=(const Pinned &) = delete;
  ~Pinned() {
    if (pinned_) sched_setaffinity(0, sizeof before_, &before_);
  }

 private:
  cpu_set_t before_{};
  bool pinned_ = false;
};

}  // namespace quire::bench

#endif  // QUIRE_BENCH_PLACEMENT_H
