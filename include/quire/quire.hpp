// Quire for C++20: owners for what quire.h hands out, at no cost over the handles.
//
//   auto cache = quire::Cache::open(config);            // Result<Cache>
//   auto lease = cache->acquire(prefix, nullptr, pages, &hit);
//   if (!lease) return lease.status();                  // no exceptions anywhere
//   cache->publish(*lease, prefix, pages);
//   lease->release();                                   // or let it go out of scope
//
// Every owner is move-only, holds the cache's pointer and one handle and nothing else, and gives
// its handle back when it is destroyed. A destructor has nobody to tell of a failure: where the
// status of giving back matters, call release(), close() or remove(), which say it and, on
// QUIRE_OK, leave the owner empty. Owners must not outlive their Cache; quire_close refuses while
// any of them is alive, and a Cache that cannot be closed by its destructor is left as it is, not
// torn from under its leases.
//
// Everything not wrapped here is called through get(): an owner is only a handle that cleans up.
//
// The names live in an inline namespace, so that their symbols are never those of the library's own
// classes. Header only; needs nothing but the C API and the standard library. Each call costs what
// its C call costs.
#ifndef QUIRE_QUIRE_HPP_
#define QUIRE_QUIRE_HPP_

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "quire/quire.h"

namespace quire {
inline namespace api {

// A quire_status that may not be ignored. True where it is QUIRE_OK.
class [[nodiscard]] Status {
 public:
  constexpr Status(quire_status code = QUIRE_OK) noexcept
      : code_(code) {}  // NOLINT: implicit on purpose
  constexpr explicit operator bool() const noexcept { return code_ == QUIRE_OK; }
  constexpr bool ok() const noexcept { return code_ == QUIRE_OK; }
  constexpr quire_status code() const noexcept { return code_; }
  const char *text() const noexcept { return quire_status_string(code_); }
  // The sentence on this thread's last failed call: ask before the next one.
  static const char *detail() noexcept { return quire_last_error(); }
  friend constexpr bool operator==(Status a, Status b) noexcept { return a.code_ == b.code_; }

 private:
  quire_status code_;
};

// A value, or the reason why there is none (then the value is an empty one).
template <class T>
class [[nodiscard]] Result {
 public:
  constexpr Result(quire_status code) noexcept : status_(code) {}   // NOLINT: implicit on purpose
  constexpr Result(T value) noexcept : value_(std::move(value)) {}  // NOLINT: implicit on purpose
  constexpr explicit operator bool() const noexcept { return status_.ok(); }
  constexpr Status status() const noexcept { return status_; }
  constexpr T &value() &noexcept { return value_; }
  constexpr const T &value() const &noexcept { return value_; }
  constexpr T &&value() &&noexcept { return std::move(value_); }
  constexpr T &operator*() &noexcept { return value_; }
  constexpr const T &operator*() const &noexcept { return value_; }
  constexpr T &&operator*() &&noexcept { return std::move(value_); }
  constexpr T *operator->() noexcept { return &value_; }
  constexpr const T *operator->() const noexcept { return &value_; }

 private:
  Status status_;
  T value_{};
};

// A struct of quire.h with its size set and everything else at its default.
template <class T>
constexpr T sized() noexcept {
  T s{};
  s.size = static_cast<uint32_t>(sizeof(T));
  return s;
}

namespace detail {

// A handle, the cache that it is of, and how it is given back.
template <class Handle, quire_status (*kGiveBack)(quire_cache *, Handle)>
class Owner {
 public:
  constexpr Owner() noexcept = default;
  constexpr Owner(quire_cache *cache, Handle handle) noexcept : cache_(cache), handle_(handle) {}
  Owner(Owner &&other) noexcept
      : cache_(std::exchange(other.cache_, nullptr)),
        handle_(std::exchange(other.handle_, Handle{})) {}
  Owner &operator=(Owner &&other) noexcept {
    if (this != &other) {
      give_back_quietly();
      cache_ = std::exchange(other.cache_, nullptr);
      handle_ = std::exchange(other.handle_, Handle{});
    }
    return *this;
  }
  Owner(const Owner &) = delete;
  Owner &operator=(const Owner &) = delete;
  ~Owner() { give_back_quietly(); }

  constexpr Handle get() const noexcept { return handle_; }
  constexpr quire_cache *cache() const noexcept { return cache_; }
  constexpr explicit operator bool() const noexcept { return handle_ != Handle{}; }
  // The handle, which is the caller's to give back from here on.
  constexpr Handle detach() noexcept {
    cache_ = nullptr;
    return std::exchange(handle_, Handle{});
  }

 protected:
  // Empty where `code` says that the handle is gone.
  constexpr Status gone_if(quire_status code) noexcept {
    if (code == QUIRE_OK) detach();
    return code;
  }
  Status give_back() noexcept {
    return handle_ == Handle{} ? Status() : gone_if(kGiveBack(cache_, handle_));
  }

  quire_cache *cache_ = nullptr;
  Handle handle_{};

 private:
  void give_back_quietly() noexcept {
    if (handle_ != Handle{}) static_cast<void>(kGiveBack(cache_, handle_));
  }
};

inline quire_status release_lease(quire_cache *c, quire_lease lease) noexcept {
  return quire_release(c, lease, nullptr);
}
inline quire_status close_sequence(quire_cache *c, quire_seq seq) noexcept {
  return quire_seq_close(c, seq, nullptr);
}

}  // namespace detail

// A pinned chain and the private pages that hang on it.
class Lease : public detail::Owner<quire_lease, detail::release_lease> {
 public:
  using Owner::Owner;

  Status release(const quire_retention *retention = nullptr) noexcept {
    return handle_ == 0 ? Status() : gone_if(quire_release(cache_, handle_, retention));
  }
  // The first `pages` pages of its chain; UINT32_MAX: all.
  Result<Lease> clone(uint32_t pages = UINT32_MAX,
                      const quire_acquire_options *options = nullptr) const noexcept {
    quire_lease out = 0;
    const quire_status code = quire_lease_clone(cache_, handle_, pages, options, &out);
    if (code != QUIRE_OK) return code;
    return Lease(cache_, out);
  }
  Status renew(uint64_t deadline_ms) noexcept {
    return quire_lease_renew(cache_, handle_, deadline_ms);
  }
  Result<quire_lease_record> info() const noexcept {
    auto record = sized<quire_lease_record>();
    const quire_status code = quire_lease_info(cache_, handle_, &record);
    if (code != QUIRE_OK) return code;
    return record;
  }
  // n private pages that go with this lease.
  Status alloc(std::span<quire_page> pages, uint32_t flags = 0,
               quire_stream stream = nullptr) noexcept {
    auto options = sized<quire_alloc_options>();
    options.flags = flags;
    options.lease = handle_;
    options.stream = stream;
    return quire_alloc(cache_, static_cast<uint32_t>(pages.size()), &options, pages.data());
  }
};

// Private pages that hang on no lease. Their handles lie in the caller's array, which outlives
// this; forget() says that the first n are published and no longer ours.
class PrivatePages {
 public:
  constexpr PrivatePages() noexcept = default;
  constexpr PrivatePages(quire_cache *cache, std::span<quire_page> pages) noexcept
      : cache_(cache), pages_(pages) {}
  PrivatePages(PrivatePages &&other) noexcept
      : cache_(std::exchange(other.cache_, nullptr)), pages_(std::exchange(other.pages_, {})) {}
  PrivatePages &operator=(PrivatePages &&other) noexcept {
    if (this != &other) {
      static_cast<void>(free());
      cache_ = std::exchange(other.cache_, nullptr);
      pages_ = std::exchange(other.pages_, {});
    }
    return *this;
  }
  PrivatePages(const PrivatePages &) = delete;
  PrivatePages &operator=(const PrivatePages &) = delete;
  ~PrivatePages() { static_cast<void>(free()); }

  std::span<const quire_page> get() const noexcept { return pages_; }
  constexpr explicit operator bool() const noexcept { return !pages_.empty(); }
  Status free() noexcept {
    if (pages_.empty()) return Status();
    const quire_status code =
        quire_free(cache_, pages_.data(), static_cast<uint32_t>(pages_.size()));
    if (code == QUIRE_OK) pages_ = {};
    return code;
  }
  Status seal(quire_stream stream = nullptr) noexcept {
    return quire_seal(cache_, pages_.data(), static_cast<uint32_t>(pages_.size()), stream);
  }
  void forget(size_t n) noexcept { pages_ = pages_.subspan(n < pages_.size() ? n : pages_.size()); }

 private:
  quire_cache *cache_ = nullptr;
  std::span<quire_page> pages_;
};

// A block table that grows, forks and rolls back.
class Sequence : public detail::Owner<quire_seq, detail::close_sequence> {
 public:
  using Owner::Owner;

  Status close(const quire_retention *retention = nullptr) noexcept {
    return handle_ == 0 ? Status() : gone_if(quire_seq_close(cache_, handle_, retention));
  }
  Status append(uint32_t n, quire_stream stream = nullptr, int64_t *slots = nullptr) noexcept {
    return quire_seq_append(cache_, handle_, n, stream, slots);
  }
  Status commit(std::span<const uint32_t> tokens, quire_stream stream = nullptr) noexcept {
    return quire_seq_commit(cache_, handle_, tokens.data(), static_cast<uint32_t>(tokens.size()),
                            stream);
  }
  Result<Sequence> fork(quire_stream stream = nullptr) const noexcept {
    quire_seq out = 0;
    const quire_status code = quire_seq_fork(cache_, handle_, stream, &out);
    if (code != QUIRE_OK) return code;
    return Sequence(cache_, out);
  }
  Status truncate(uint64_t n_tokens, quire_stream stream = nullptr) noexcept {
    return quire_seq_truncate(cache_, handle_, n_tokens, stream);
  }
  Status block_table(std::span<int32_t> out, uint32_t *n_pages,
                     uint64_t *kv_len = nullptr) const noexcept {
    return quire_seq_block_table(cache_, handle_, out.data(), static_cast<uint32_t>(out.size()),
                                 n_pages, kv_len);
  }
  Result<quire_seq_record> info() const noexcept {
    auto record = sized<quire_seq_record>();
    const quire_status code = quire_seq_info(cache_, handle_, &record);
    if (code != QUIRE_OK) return code;
    return record;
  }
};

// A stream while it is registered with a cache.
class Stream : public detail::Owner<quire_stream, quire_stream_remove> {
 public:
  using Owner::Owner;
  Status remove() noexcept { return give_back(); }
};

// A queue of work of the cpu device, on a thread of its own. Belongs to no cache.
class CpuStream {
 public:
  constexpr CpuStream() noexcept = default;
  constexpr explicit CpuStream(quire_stream stream) noexcept : stream_(stream) {}
  CpuStream(CpuStream &&other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  CpuStream &operator=(CpuStream &&other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  CpuStream(const CpuStream &) = delete;
  CpuStream &operator=(const CpuStream &) = delete;
  // Waits for what is enqueued.
  ~CpuStream() {
    if (stream_ != nullptr) static_cast<void>(quire_cpu_stream_destroy(stream_));
  }

  static Result<CpuStream> create() noexcept {
    quire_stream out = nullptr;
    const quire_status code = quire_cpu_stream_create(&out);
    if (code != QUIRE_OK) return code;
    return CpuStream(out);
  }
  constexpr quire_stream get() const noexcept { return stream_; }
  constexpr explicit operator bool() const noexcept { return stream_ != nullptr; }
  Status wait() noexcept { return quire_cpu_stream_wait(stream_); }
  Status launch(void (*fn)(void *), void *arg) noexcept {
    return quire_cpu_stream_launch(stream_, fn, arg);
  }

 private:
  quire_stream stream_ = nullptr;
};

class Cache {
 public:
  constexpr Cache() noexcept = default;
  constexpr explicit Cache(quire_cache *cache) noexcept : cache_(cache) {}
  Cache(Cache &&other) noexcept : cache_(std::exchange(other.cache_, nullptr)) {}
  Cache &operator=(Cache &&other) noexcept {
    std::swap(cache_, other.cache_);
    return *this;
  }
  Cache(const Cache &) = delete;
  Cache &operator=(const Cache &) = delete;
  ~Cache() { static_cast<void>(quire_close(cache_)); }

  static Result<Cache> open(const quire_config &config) noexcept {
    quire_cache *out = nullptr;
    const quire_status code = quire_open(&config, &out);
    if (code != QUIRE_OK) return code;
    return Cache(out);
  }
  // All defaults, then "name=value,...".
  static Result<Cache> open(const char *text) noexcept {
    quire_config config{};
    if (const quire_status s = quire_config_init(&config); s != QUIRE_OK) return s;
    if (const quire_status s = quire_config_parse(&config, text); s != QUIRE_OK) return s;
    return open(config);
  }

  constexpr quire_cache *get() const noexcept { return cache_; }
  constexpr explicit operator bool() const noexcept { return cache_ != nullptr; }
  Status close() noexcept {
    const quire_status code = quire_close(cache_);
    if (code == QUIRE_OK) cache_ = nullptr;
    return code;
  }

  Result<quire_key> root_key(std::span<const quire_field> fields) const noexcept {
    quire_key root{};
    const quire_status code = quire_root_key(cache_, fields.data(), fields.size(), &root);
    if (code != QUIRE_OK) return code;
    return root;
  }
  // How many keys of full pages were written; keys has room for tokens / page_tokens.
  Result<size_t> chain_keys(const quire_key &parent, std::span<const uint32_t> tokens,
                            std::span<quire_key> keys,
                            std::span<const quire_page_extra> extra = {}) const noexcept {
    size_t n = keys.size();
    const quire_status code = quire_chain_keys(cache_, &parent, tokens.data(), tokens.size(),
                                               extra.data(), extra.size(), keys.data(), &n);
    if (code != QUIRE_OK) return code;
    return n;
  }
  static constexpr quire_prefix prefix(const quire_key &root, std::span<const quire_key> keys,
                                       const uint32_t *tokens = nullptr) noexcept {
    auto p = sized<quire_prefix>();
    p.n = static_cast<uint32_t>(keys.size());
    p.root = root;
    p.keys = keys.data();
    p.tokens = tokens;
    return p;
  }

  Result<quire_hit> match(const quire_prefix &prefix) const noexcept {
    auto hit = sized<quire_hit>();
    const quire_status code = quire_match(cache_, &prefix, &hit);
    if (code != QUIRE_OK) return code;
    return hit;
  }
  // pages, where not empty, has room for prefix.n; hit may be nullptr, else its size is set.
  Result<Lease> acquire(const quire_prefix &prefix, const quire_acquire_options *options = nullptr,
                        std::span<quire_page> pages = {}, quire_hit *hit = nullptr) noexcept {
    if (!pages.empty() && pages.size() < prefix.n) return QUIRE_E_INVALID;
    quire_lease out = 0;
    const quire_status code =
        quire_acquire(cache_, &prefix, options, pages.empty() ? nullptr : pages.data(), hit, &out);
    if (code != QUIRE_OK) return code;
    return Lease(cache_, out);
  }
  Result<PrivatePages> alloc(std::span<quire_page> pages, uint32_t flags = 0,
                             quire_stream stream = nullptr) noexcept {
    auto options = sized<quire_alloc_options>();
    options.flags = flags;
    options.stream = stream;
    const quire_status code =
        quire_alloc(cache_, static_cast<uint32_t>(pages.size()), &options, pages.data());
    if (code != QUIRE_OK) return code;
    return PrivatePages(cache_, pages);
  }
  // pages runs parallel to prefix.keys.
  Result<quire_publish_result> publish(const Lease &lease, const quire_prefix &prefix,
                                       std::span<quire_page> pages,
                                       const quire_publish_options *options = nullptr) noexcept {
    if (pages.size() < prefix.n) return QUIRE_E_INVALID;
    auto result = sized<quire_publish_result>();
    const quire_status code =
        quire_publish(cache_, lease.get(), &prefix, pages.data(), options, &result);
    if (code != QUIRE_OK) return code;
    return result;
  }
  Status frames(std::span<const quire_page> pages, std::span<int32_t> out) const noexcept {
    if (out.size() < pages.size()) return QUIRE_E_INVALID;
    return quire_frames(cache_, pages.data(), static_cast<uint32_t>(pages.size()),
                        QUIRE_TIER_DEVICE, out.data());
  }
  Status evict(const quire_key &root) noexcept { return quire_evict(cache_, &root); }

  Result<Sequence> sequence(const quire_key &root, std::span<const uint32_t> tokens,
                            const quire_seq_options *options = nullptr,
                            quire_hit *hit = nullptr) noexcept {
    quire_seq out = 0;
    const quire_status code =
        quire_seq_open(cache_, &root, tokens.data(), tokens.size(), options, hit, &out);
    if (code != QUIRE_OK) return code;
    return Sequence(cache_, out);
  }
  Result<Stream> add_stream(quire_stream stream, uint32_t flags = 0, uint32_t rank = 0) noexcept {
    const quire_status code = quire_stream_add(cache_, stream, rank, flags);
    if (code != QUIRE_OK) return code;
    return Stream(cache_, stream);
  }
  Status step() noexcept { return quire_step(cache_); }
  Result<quire_stats> stats() const noexcept {
    auto out = sized<quire_stats>();
    const quire_status code = quire_stats_get(cache_, &out);
    if (code != QUIRE_OK) return code;
    return out;
  }
  Status check(uint32_t flags = 0) const noexcept { return quire_check(cache_, flags); }

 private:
  quire_cache *cache_ = nullptr;
};

// No cost over the handle and the cache that it is of.
static_assert(sizeof(Cache) == sizeof(quire_cache *));
static_assert(sizeof(CpuStream) == sizeof(quire_stream));
static_assert(sizeof(Lease) == sizeof(quire_cache *) + sizeof(quire_lease));
static_assert(sizeof(Sequence) == sizeof(quire_cache *) + sizeof(quire_seq));
static_assert(sizeof(Stream) == sizeof(quire_cache *) + sizeof(quire_stream));

}  // namespace api
}  // namespace quire

#endif  // QUIRE_QUIRE_HPP_
