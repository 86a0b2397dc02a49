#include "runtime/cpu_stream.h"

#include <oneapi/tbb/info.h>
#include <oneapi/tbb/task_arena.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <exception>
#include <map>
#include <new>

namespace quire {
namespace {

constexpr uint64_t kHandleMark = uint64_t{0xC5} << 56;
constexpr uint64_t kSerialMask = (uint64_t{1} << 56) - 1;

Stream handle_of(uint64_t serial) noexcept {
  return reinterpret_cast<Stream>(static_cast<uintptr_t>(kHandleMark | serial));
}

// Set in the child of a fork, where the threads of all streams are missing.
std::atomic<bool> forked{false};

struct Registry {
  std::mutex mutex;
  std::map<uint64_t, std::shared_ptr<CpuStream>> streams;
  uint64_t next_serial = 1;
};

// Leaked on purpose: stream threads may outlive every destructor of the process. Null when there is
// no memory for it.
Registry *registry() noexcept {
  static Registry *const instance = []() noexcept -> Registry * {
    if (pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); }) !=
        0) {
      return nullptr;
    }
    return new (std::nothrow) Registry;
  }();
  return instance;
}

// relaxed (forked): the only store happens in a child that has one thread, before anything that it
// runs.
Status usable() noexcept {
  if (forked.load(std::memory_order_relaxed)) {
    return set_error(Status::kInvalid, "CPU streams do not exist in a forked child");
  }
  if (registry() == nullptr)
    return set_error(Status::kNomem, "no memory for the registry of CPU streams");
  return Status::kOk;
}

}  // namespace

struct CpuStream::Entry {
  Entry *next = nullptr;
  Task task;                         // empty: a wait
  std::shared_ptr<CpuStream> other;  // the stream waited for
  uint64_t wait_position = 0;
};

struct CpuStream::Width {
  // Not wider than the machine: oneTBB would print a warning into the host's stderr.
  explicit Width(unsigned threads)
      : arena(std::min(static_cast<int>(threads), tbb::info::default_concurrency()), 1) {
    arena.initialize();
  }
  tbb::task_arena arena;
};

Status CpuStream::create(unsigned width, Stream *handle) noexcept {
  if (handle == nullptr) return set_error(Status::kInvalid, "no place for the stream's handle");
  if (Status status = usable(); status != Status::kOk) return status;
  if (width > 1u << 16) return set_error(Status::kInvalid, "a stream of %u threads", width);
  try {
    auto stream = std::make_shared<CpuStream>(width);
    Registry &all = *registry();
    std::lock_guard lock(all.mutex);
    const uint64_t serial = all.next_serial & kSerialMask;
    all.streams.emplace(serial, std::move(stream));
    ++all.next_serial;
    *handle = handle_of(serial);
  } catch (const std::exception &failure) {
    return set_error(Status::kNomem, "a CPU stream: %s", failure.what());
  }
  return Status::kOk;
}

std::shared_ptr<CpuStream> CpuStream::find(Stream handle) noexcept {
  if (usable() != Status::kOk) return nullptr;
  const uint64_t value = reinterpret_cast<uintptr_t>(handle);
  Registry &all = *registry();
  if ((value & ~kSerialMask) == kHandleMark) {
    std::lock_guard lock(all.mutex);
    const auto found = all.streams.find(value & kSerialMask);
    if (found != all.streams.end()) return found->second;
  }
  (void)set_error(Status::kInvalid, "%p is not a living CPU stream", handle);
  return nullptr;
}

Status CpuStream::destroy(Stream handle) noexcept {
  std::shared_ptr<CpuStream> stream = find(handle);
  if (stream == nullptr) return Status::kInvalid;
  if (stream->on_own_thread()) {
    return set_error(Status::kBusy, "a CPU stream cannot be destroyed by a task of its own");
  }
  {
    // Of two threads that destroy the same stream, the one that erases it goes on.
    Registry &all = *registry();
    std::lock_guard lock(all.mutex);
    if (all.streams.erase(reinterpret_cast<uintptr_t>(handle) & kSerialMask) == 0) {
      return set_error(Status::kInvalid, "%p is being destroyed already", handle);
    }
  }
  stream->close();
  return Status::kOk;
}

Status CpuStream::wait(Stream handle) noexcept {
  const std::shared_ptr<CpuStream> stream = find(handle);
  if (stream == nullptr) return Status::kInvalid;
  if (stream->on_own_thread()) {
    return set_error(Status::kBusy, "a task cannot wait for its own CPU stream");
  }
  stream->wait_until_passed(stream->position());
  return Status::kOk;
}

Status CpuStream::query(Stream handle) noexcept {
  const std::shared_ptr<CpuStream> stream = find(handle);
  if (stream == nullptr) return Status::kInvalid;
  return stream->passed(stream->position()) ? Status::kOk : Status::kAgain;
}

Status CpuStream::launch(Stream handle, void (*function)(void *), void *argument) noexcept {
  if (function == nullptr) return set_error(Status::kInvalid, "a launch of no function");
  const std::shared_ptr<CpuStream> stream = find(handle);
  if (stream == nullptr) return Status::kInvalid;
  return stream->push(Task([function, argument] { function(argument); }));
}

size_t CpuStream::living() noexcept {
  if (usable() != Status::kOk) return 0;
  std::lock_guard lock(registry()->mutex);
  return registry()->streams.size();
}

CpuStream::CpuStream(unsigned width) {
  if (width != 0) width_ = std::make_unique<Width>(width);
}

CpuStream::~CpuStream() {
  close();
  while (spare_ != nullptr) delete std::exchange(spare_, spare_->next);
}

Status CpuStream::push(const Task &task) noexcept {
  if (!task) return set_error(Status::kInvalid, "a launch of an empty task");
  return push_entry(&task, nullptr, 0);
}

Status CpuStream::push_wait(std::shared_ptr<CpuStream> other, uint64_t position) noexcept {
  // Its own earlier work, or work that is done: the order holds without an entry.
  if (other == nullptr || other.get() == this || other->passed(position)) return Status::kOk;
  return push_entry(nullptr, &other, position);
}

Status CpuStream::push_entry(const Task *task, std::shared_ptr<CpuStream> *other,
                             uint64_t wait_position) noexcept {
  std::unique_lock lock(mutex_);
  if (closing_) return set_error(Status::kInvalid, "the CPU stream is being destroyed");
  Entry *entry = spare_;
  if (entry != nullptr) {
    spare_ = entry->next;
    entry->next = nullptr;
  } else {
    entry = new (std::nothrow) Entry;
    if (entry == nullptr)
      return set_error(Status::kNomem, "no memory for an entry of a CPU stream");
  }
  if (Status status = start_thread(); status != Status::kOk) {
    entry->next = std::exchange(spare_, entry);
    return status;
  }
  entry->task = task != nullptr ? *task : Task();
  if (other != nullptr) entry->other = std::move(*other);
  entry->wait_position = wait_position;
  (tail_ != nullptr ? tail_->next : head_) = entry;
  tail_ = entry;
  ++position_;
  // sleeping_ changes under the mutex only, so an entry is either seen before the thread sleeps or
  // wakes it. Notified after the unlock, so that the thread does not wake into a held mutex.
  const bool wake = sleeping_;
  lock.unlock();
  if (wake) work_.notify_one();
  return Status::kOk;
}

Status CpuStream::start_thread() noexcept {
  if (thread_.joinable()) return Status::kOk;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // inherited by the thread
  Status status = Status::kOk;
  try {
    thread_ = std::thread([this]() noexcept { drain(); });
    pthread_setname_np(thread_.native_handle(), "quire-stream");
  } catch (const std::exception &failure) {
    status = set_error(Status::kNomem, "the thread of a CPU stream: %s", failure.what());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return status;
}

void CpuStream::close() noexcept {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_.notify_one();
  if (thread_.joinable()) thread_.join();
}

uint64_t CpuStream::position() const noexcept {
  std::lock_guard lock(mutex_);
  return position_;
}

bool CpuStream::on_own_thread() const noexcept {
  std::lock_guard lock(mutex_);
  return thread_.get_id() == std::this_thread::get_id();
}

void CpuStream::wait_until_passed(uint64_t position) noexcept {
  if (passed(position)) return;
  std::unique_lock lock(mutex_);
  ++waiters_;
  while (!passed(position)) progress_.wait(lock);
  --waiters_;
}

void CpuStream::run(Entry &entry) noexcept {
  if (entry.other != nullptr) {
    entry.other->wait_until_passed(entry.wait_position);
    entry.other.reset();
  } else if (width_ != nullptr) {
    width_->arena.execute([&entry] { entry.task(); });
  } else {
    entry.task();
  }
}

void CpuStream::drain() noexcept {
  std::unique_lock lock(mutex_);
  for (;;) {
    while (head_ == nullptr && !closing_) {
      sleeping_ = true;
      work_.wait(lock);
      sleeping_ = false;
    }
    if (head_ == nullptr) return;  // closing, and everything queued has run
    Entry *const entry = head_;
    head_ = entry->next;
    if (head_ == nullptr) tail_ = nullptr;
    lock.unlock();
    run(*entry);
    lock.lock();
    // release: pairs with the acquire in completed(): who sees the new value sees the task's
    // writes. relaxed load: only this thread writes it.
    completed_.store(completed_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    entry->next = std::exchange(spare_, entry);
    if (waiters_ != 0) progress_.notify_all();
  }
}

bool CpuStream::validate() const noexcept {
  std::lock_guard lock(mutex_);
  uint64_t queued = 0;
  const Entry *last = nullptr;
  for (const Entry *entry = head_; entry != nullptr; entry = entry->next) {
    last = entry;
    ++queued;
  }
  // One more may be between the queue and completed_: the entry that is running.
  const uint64_t unfinished = position_ - completed();
  return last == tail_ && completed() <= position_ &&
         (unfinished == queued || unfinished == queued + 1);
}

}  // namespace quire
