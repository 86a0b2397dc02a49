#include "tests/support/adversary_device.h"

#include <cstring>

namespace quire::test {
namespace {

constexpr uint64_t kHandleMark = uint64_t{0xAD} << 56;

uint64_t number_of(Stream stream) {
  const uint64_t value = reinterpret_cast<uintptr_t>(stream);
  return value >> 56 == kHandleMark >> 56 ? value & ~kHandleMark : 0;
}

}  // namespace

Stream AdversaryDevice::add_stream() {
  std::lock_guard lock(mutex_);
  const uint64_t number = next_queue_++;
  queues_[number];
  return reinterpret_cast<Stream>(static_cast<uintptr_t>(kHandleMark | number));
}

void AdversaryDevice::remove_stream(Stream stream) {
  std::lock_guard lock(mutex_);
  queues_.erase(number_of(stream));
}

void AdversaryDevice::set_capturing(Stream stream, bool capturing) {
  std::lock_guard lock(mutex_);
  queues_.at(number_of(stream)).capturing = capturing;
}

void AdversaryDevice::stall(Stream stream, bool stalled) {
  std::lock_guard lock(mutex_);
  queues_.at(number_of(stream)).stalled = stalled;
}

bool AdversaryDevice::step() {
  std::unique_lock lock(mutex_);
  std::vector<uint64_t> ready;
  for (auto &[number, queue] : queues_) {
    if (queue.entries.empty() || queue.stalled || queue.running) continue;
    const Entry &first = queue.entries.front();
    if (first.task || passed(first.other, first.position)) ready.push_back(number);
  }
  if (ready.empty()) return false;
  const uint64_t number = ready[random_() % ready.size()];
  Queue &queue = queues_[number];
  Task task = queue.entries.front().task;
  if (task) {
    queue.running = true;
    lock.unlock();
    task();
    lock.lock();
    const auto still = queues_.find(number);
    if (still == queues_.end()) return true;  // removed by the task
    still->second.running = false;
  }
  Queue &after = queues_[number];
  after.entries.pop_front();
  ++after.completed;
  return true;
}

size_t AdversaryDevice::pump(size_t most) {
  size_t steps = 0;
  while (steps < most && step()) ++steps;
  return steps;
}

size_t AdversaryDevice::pending() const {
  std::lock_guard lock(mutex_);
  size_t sum = 0;
  for (const auto &[number, queue] : queues_) sum += queue.entries.size();
  return sum;
}

uint64_t AdversaryDevice::position(Stream stream) const {
  std::lock_guard lock(mutex_);
  return queues_.at(number_of(stream)).position;
}

uint64_t AdversaryDevice::completed(Stream stream) const {
  std::lock_guard lock(mutex_);
  return queues_.at(number_of(stream)).completed;
}

void AdversaryDevice::delay_events(unsigned most) {
  std::lock_guard lock(mutex_);
  longest_delay_ = most;
}

void AdversaryDevice::set_spurious(unsigned in_256) {
  std::lock_guard lock(mutex_);
  spurious_ = in_256;
}

void AdversaryDevice::hold_events(bool held) {
  std::lock_guard lock(mutex_);
  held_ = held;
}

void AdversaryDevice::fail(Call call, uint64_t nth, Status status, uint64_t count) {
  std::lock_guard lock(mutex_);
  const auto kind = static_cast<size_t>(call);
  const uint64_t from = calls_[kind] + nth;
  failures_[kind] = {from, count > UINT64_MAX - from ? UINT64_MAX : from + count, status};
}

void AdversaryDevice::fail_nothing() {
  std::lock_guard lock(mutex_);
  failures_.fill({});
}

uint64_t AdversaryDevice::calls(Call call) const {
  std::lock_guard lock(mutex_);
  return calls_[static_cast<size_t>(call)];
}

size_t AdversaryDevice::living_events() const {
  std::lock_guard lock(mutex_);
  return events_.size();
}

uint64_t AdversaryDevice::misuses() const {
  std::lock_guard lock(mutex_);
  return misuses_;
}

bool AdversaryDevice::validate() const {
  std::lock_guard lock(mutex_);
  for (const auto &[number, queue] : queues_) {
    if (queue.completed + queue.entries.size() != queue.position) return false;
  }
  for (const auto &[event, mark] : events_) {
    const auto queue = queues_.find(mark.queue);
    if (queue != queues_.end() && mark.position > queue->second.position) return false;
  }
  return true;
}

void AdversaryDevice::lose() {
  const std::lock_guard lock(mutex_);
  lost_ = true;
  // As on a GPU whose context is broken: what was queued never runs.
  for (auto &[name, queue] : queues_) {
    queue.completed += queue.entries.size();
    queue.entries.clear();
  }
}

bool AdversaryDevice::lost() const noexcept {
  const std::lock_guard lock(mutex_);
  return lost_;
}

Status AdversaryDevice::admit(Call call) {
  if (lost_) return set_error(Status::kDevice, "the device is lost, as the test asked");
  const auto kind = static_cast<size_t>(call);
  const uint64_t number = ++calls_[kind];
  const Failure &failure = failures_[kind];
  if (failure.from == 0 || number < failure.from || number >= failure.to) return Status::kOk;
  return set_error(failure.status, "call %llu of its kind fails, as the test asked",
                   static_cast<unsigned long long>(number));
}

AdversaryDevice::Queue *AdversaryDevice::queue_of(Stream stream) {
  const auto found = queues_.find(number_of(stream));
  if (found != queues_.end()) return &found->second;
  if (!is_ambiguous_stream(stream)) ++misuses_;
  (void)set_error(Status::kInvalid, "%p is no stream of this device", stream);
  return nullptr;
}

bool AdversaryDevice::passed(uint64_t queue, uint64_t position) const {
  const auto found = queues_.find(queue);
  return found == queues_.end() || found->second.completed >= position;
}

Result<void *> AdversaryDevice::reserve(size_t bytes, size_t alignment) noexcept {
  std::lock_guard lock(mutex_);
  if (Status status = admit(Call::kReserve); status != Status::kOk) return status;
  return memory_.reserve(bytes, alignment);
}

Status AdversaryDevice::commit(void *base, size_t offset, size_t bytes) noexcept {
  std::lock_guard lock(mutex_);
  if (Status status = admit(Call::kCommit); status != Status::kOk) return status;
  return memory_.commit(base, offset, bytes);
}

Status AdversaryDevice::decommit(void *base, size_t offset, size_t bytes) noexcept {
  std::lock_guard lock(mutex_);
  if (Status status = admit(Call::kDecommit); status != Status::kOk) return status;
  return memory_.decommit(base, offset, bytes);
}

Status AdversaryDevice::validate_stream(Stream stream) noexcept {
  std::lock_guard lock(mutex_);
  if (queues_.count(number_of(stream)) != 0) return Status::kOk;  // asking is no misuse
  return set_error(Status::kInvalid, "%p is no stream of this device", stream);
}

Status AdversaryDevice::is_capturing(Stream stream, bool *capturing) noexcept {
  std::lock_guard lock(mutex_);
  if (Status status = admit(Call::kCapturing); status != Status::kOk) return status;
  const Queue *const queue = queue_of(stream);
  if (queue == nullptr) return Status::kInvalid;
  *capturing = queue->capturing;
  return Status::kOk;
}

Status AdversaryDevice::wait_stream(Stream stream) noexcept {
  uint64_t target = 0;
  {
    std::lock_guard lock(mutex_);
    const Queue *const queue = queue_of(stream);
    if (queue == nullptr) return Status::kInvalid;
    target = queue->position;
  }
  const uint64_t number = number_of(stream);
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (passed(number, target)) return Status::kOk;
    }
    if (!step()) return set_error(Status::kDevice, "the stream waits for one that is stalled");
  }
}

Status AdversaryDevice::create_event(Event *event) noexcept {
  std::lock_guard lock(mutex_);
  if (Status status = admit(Call::kCreateEvent); status != Status::kOk) return status;
  *event = next_event_++;
  events_[*event];
  return Status::kOk;
}

void AdversaryDevice::destroy_event(Event event) noexcept {
  std::lock_guard lock(mutex_);
  if (event != 0 && events_.erase(event) == 0) ++misuses_;
}

Status AdversaryDevice::record(Event event, Stream stream) noexcept {
  std::lock_guard lock(mutex_);
  if (Status status = admit(Call::kRecord); status != Status::kOk) return status;
  const auto found = events_.find(event);
  if (found == events_.end()) {
    ++misuses_;
    return set_error(Status::kInvalid, "record of an event that is gone");
  }
  const Queue *const queue = queue_of(stream);
  if (queue == nullptr) return Status::kInvalid;
  const unsigned delay =
      longest_delay_ == 0 ? 0 : static_cast<unsigned>(random_() % (longest_delay_ + 1));
  found->second = {number_of(stream), queue->position, delay};
  return Status::kOk;
}

Status AdversaryDevice::query(Event event) noexcept {
  std::lock_guard lock(mutex_);
  if (Status status = admit(Call::kQuery); status != Status::kOk) return status;
  const auto found = events_.find(event);
  if (found == events_.end()) {
    ++misuses_;
    return set_error(Status::kInvalid, "query of an event that is gone");
  }
  Mark &mark = found->second;
  if (mark.queue == 0) return Status::kOk;
  if (held_ || !passed(mark.queue, mark.position)) return Status::kAgain;
  if (mark.delay != 0) {
    --mark.delay;
    return Status::kAgain;
  }
  return random_() % 256 < spurious_ ? Status::kAgain : Status::kOk;
}

Status AdversaryDevice::enqueue(Stream stream, const Entry &entry) {
  Queue *const queue = queue_of(stream);
  if (queue == nullptr) return Status::kInvalid;
  queue->entries.push_back(entry);
  ++queue->position;
  return Status::kOk;
}

Status AdversaryDevice::stream_wait_event(Stream stream, Event event) noexcept {
  std::lock_guard lock(mutex_);
  if (Status status = admit(Call::kStreamWait); status != Status::kOk) return status;
  const auto found = events_.find(event);
  if (found == events_.end()) {
    ++misuses_;
    return set_error(Status::kInvalid, "wait for an event that is gone");
  }
  Entry entry;
  entry.other = found->second.queue;
  entry.position = found->second.position;
  return enqueue(stream, entry);
}

Status AdversaryDevice::run_or_enqueue(Call call, Stream stream, const Task &task) {
  {
    std::lock_guard lock(mutex_);
    if (Status status = admit(call); status != Status::kOk) return status;
    if (!task) return set_error(Status::kInvalid, "a launch of an empty task");
    if (stream != nullptr) {
      Entry entry;
      entry.task = task;
      return enqueue(stream, entry);
    }
  }
  Task now = task;
  now();
  return Status::kOk;
}

Status AdversaryDevice::copy(void *to, const void *from, size_t bytes, Stream stream) noexcept {
  return run_or_enqueue(Call::kCopy, stream, Task([=] {
                          if (bytes != 0) std::memcpy(to, from, bytes);
                        }));
}

Status AdversaryDevice::zero(void *to, size_t bytes, Stream stream) noexcept {
  return run_or_enqueue(Call::kZero, stream, Task([=] {
                          if (bytes != 0) std::memset(to, 0, bytes);
                        }));
}

Status AdversaryDevice::launch(Stream stream, const Task &task) noexcept {
  return run_or_enqueue(Call::kLaunch, stream, task);
}

}  // namespace quire::test
