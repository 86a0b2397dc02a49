// Workers: the few threads that a forward pass spreads its matrix products over.
//
// One thread, whoever calls for_each, is one of them; the others sleep between calls. A call hands
// out contiguous shares of [0, count), the caller's own first, and returns when all are done.
//
// Invariants: each index of [0, count) is run exactly once before for_each returns; between two
// calls no worker touches anything of the caller. One caller at a time (the stream's thread).
// Cost: two condition variable hand-overs a call, some 10 us, so small work is run by the caller.
#ifndef QUIRE_DEMO_WORKERS_H
#define QUIRE_DEMO_WORKERS_H

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace quire::demo {

class Workers {
 public:
  using Body = std::function<void(size_t begin, size_t end)>;

  explicit Workers(size_t threads);
  ~Workers();
  Workers(const Workers &) = delete;
  Workers &operator=(const Workers &) = delete;

  size_t threads() const { return threads_.size() + 1; }
  void for_each(size_t count, const Body &body);

 private:
  void loop(size_t index);
  void run_share(size_t index) const;

  std::mutex mutex_;
  std::condition_variable work_, done_;
  const Body *body_ = nullptr;
  size_t count_ = 0;
  size_t round_ = 0;    // grows by one a call
  size_t running_ = 0;  // workers that have not finished this round
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace quire::demo

#endif  // QUIRE_DEMO_WORKERS_H
