// See replay.h for what a replay does. Here: who serves which request.
#include "replay.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "pipeline.h"
#include "server.h"

namespace quire::replay {
namespace {

// Seconds that this process has spent on processors.
double processor_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// All steps of one request after the other, until none is left.
void serve(Server *server, std::atomic<uint32_t> *next, uint32_t requests, const Options &options,
           const std::atomic<bool> &stopped) {
  Turn turn;
  for (uint32_t r;
       !stopped.load(std::memory_order_relaxed) && (r = next->fetch_add(1)) < requests;) {
    server->prepare(r, &turn);
    server->look_up(&turn);
    server->publish(&turn);
    server->release(&turn);
    if (options.progress) options.progress(1);
  }
}

// A thread takes the next request whenever it is free, and nothing waits for anything: a stampede.
// It shows what the library does under it, not what a policy is worth. The first exception of any
// thread is thrown again here.
void stampede(std::vector<Server> *servers, uint32_t requests, const Options &options) {
  std::atomic<uint32_t> next{0};
  std::atomic<bool> stopped{false};
  if (servers->size() == 1) return serve(&servers->front(), &next, requests, options, stopped);
  std::mutex mutex;
  std::exception_ptr failure;
  std::vector<std::thread> threads;
  for (Server &server : *servers)
    threads.emplace_back([&] {
      try {
        serve(&server, &next, requests, options, stopped);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        stopped = true;
      }
    });
  for (std::thread &thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

uint32_t Result::lookup_quantile(double q) const {
  if (lookup_ns.empty()) return 0;
  return lookup_ns[static_cast<size_t>(q * static_cast<double>(lookup_ns.size() - 1))];
}

Result replay(const Trace &trace, const Options &options) {
  ReplayCache cache(trace, options);
  Result result;
  result.request_hits.resize(trace.requests.size());
  std::vector<Server> servers;
  for (unsigned t = 0; t < options.threads; ++t)
    servers.emplace_back(trace, options, &cache, &result.request_hits);
  const bool in_order = options.threads > 1 && options.dealing == Dealing::kOrdered;
  const auto requests = static_cast<uint32_t>(trace.requests.size());

  std::unique_ptr<Pipeline> pipeline;
  if (in_order) pipeline = std::make_unique<Pipeline>(trace, options, &servers);
  result.touch_seconds = cache.touch_seconds();
  const auto start = std::chrono::steady_clock::now();
  const double processor_start = processor_seconds();
  if (in_order)
    pipeline->run();
  else
    stampede(&servers, requests, options);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.processor_seconds = processor_seconds() - processor_start;
  for (const Server &server : servers) add_figures(server.figures(), &result);
  // In order, keys are made beside the rest; else each thread makes those of its requests first.
  if (!in_order) result.seconds -= result.part_seconds[kKeys] / options.threads;
  std::sort(result.lookup_ns.begin(), result.lookup_ns.end());

  quire_stats stats;
  QUIRE_INIT(&stats);
  if (quire_stats_get(cache.get(), &stats) != QUIRE_OK) throw LibraryError(quire_last_error());
  result.evicted = stats.evictions_capacity_total;
  result.expired = stats.evictions_idle_total + stats.evictions_expired_total;
  result.metadata_bytes = stats.metadata_bytes;
  return result;
}

}  // namespace quire::replay
