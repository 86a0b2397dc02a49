#include "runtime/cpu_kernels.h"

#include <algorithm>

#include "runtime/parallel.h"

namespace quire {
namespace {

// Pages a task of seal or unseal, bounded by what a task can carry.
constexpr uint32_t kBatch = 14;

}  // namespace

Status CpuKernels::append(const kernels::AppendArgs &args, Stream stream) noexcept {
  return device_.launch(stream, [this, args] {
    count(parallel_sum(
        workers_, kernels::append_tasks(codec_, args),
        [&](uint64_t begin, uint64_t end) { return kernels::append(codec_, args, begin, end); }));
  });
}

Status CpuKernels::gather(const kernels::GatherArgs &args, Stream stream) noexcept {
  return device_.launch(stream, [this, args] {
    parallel_ranges(
        workers_, kernels::gather_tasks(codec_, args),
        [&](uint64_t begin, uint64_t end, uint32_t) { kernels::gather(codec_, args, begin, end); });
  });
}

Status CpuKernels::attention(const kernels::AttentionArgs &args, Stream stream) noexcept {
  return device_.launch(stream, [this, args] {
    parallel_ranges(workers_, kernels::attention_tasks(codec_, args),
                    [&](uint64_t begin, uint64_t end, uint32_t worker) {
                      kernels::attention(codec_, args, begin, end, worker);
                    });
    parallel_ranges(workers_, kernels::attention_merge_tasks(codec_, args),
                    [&](uint64_t begin, uint64_t end, uint32_t) {
                      kernels::attention_merge(codec_, args, begin, end);
                    });
  });
}

Status CpuKernels::attention_workspace(const kernels::AttentionArgs &args, size_t *bytes) noexcept {
  *bytes = kernels::attention_workspace(codec_, args, workers());
  return Status::kOk;
}

// Page lists live in the task.
Status CpuKernels::enqueue_pages(const kernels::SealArgs &args, bool back, Stream stream) noexcept {
  struct Work {
    CpuKernels *self;
    uint32_t pages, tokens;
    bool search, back;
    uint32_t from[kBatch], to[kBatch], index[kBatch];
    kernels::FrameView sealed, open;
  };
  for (uint32_t done = 0; done < args.pages; done += kBatch) {
    Work work{this,
              std::min(kBatch, args.pages - done),
              args.tokens,
              args.search,
              back,
              {},
              {},
              {},
              args.frames.sealed,
              args.frames.open};
    std::copy_n(args.from + done, work.pages, work.from);
    std::copy_n(args.to + done, work.pages, work.to);
    std::copy_n(args.page_index + done, work.pages, work.index);
    const Status status = device_.launch(stream, [work] {
      CpuKernels &self = *work.self;
      kernels::SealArgs part;
      part.frames = {work.sealed, work.open};
      part.from = work.from;
      part.to = work.to;
      part.page_index = work.index;
      part.pages = work.pages;
      part.tokens = work.tokens;
      part.search = work.search;
      const uint64_t tasks = kernels::seal_tasks(self.codec_, part);
      if (work.back) {
        parallel_ranges(self.workers_, tasks, [&](uint64_t begin, uint64_t end, uint32_t) {
          kernels::unseal(self.codec_, part, begin, end);
        });
      } else {
        self.count(parallel_sum(self.workers_, tasks, [&](uint64_t begin, uint64_t end) {
          return kernels::seal(self.codec_, part, begin, end);
        }));
      }
    });
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

Status CpuKernels::seal(const kernels::SealArgs &args, Stream stream) noexcept {
  return enqueue_pages(args, false, stream);
}

Status CpuKernels::unseal(const kernels::SealArgs &args, Stream stream) noexcept {
  return enqueue_pages(args, true, stream);
}

Status CpuKernels::copy_page(bool open, uint8_t *to, const uint8_t *from, Stream stream) noexcept {
  const quire_page_layout &layout =
      open ? kernels::open_layout(codec_) : kernels::sealed_layout(codec_);
  return device_.copy(to, from, layout.page_bytes, stream);
}

// As above: page lists live in the task.
Status CpuKernels::copy_pages(const kernels::CopyArgs &args, Stream stream) noexcept {
  struct Work {
    CpuKernels *self;
    kernels::CopyArgs args;
    uint32_t to[kBatch], from[kBatch];
  };
  for (uint32_t done = 0; done < args.pages; done += kBatch) {
    Work work{this, args, {}, {}};
    work.args.pages = std::min(kBatch, args.pages - done);
    if (args.sums != nullptr) work.args.sums = args.sums + done;
    std::copy_n(args.to_frames + done, work.args.pages, work.to);
    std::copy_n(args.from_frames + done, work.args.pages, work.from);
    const Status status = device_.launch(stream, [work] {
      kernels::CopyArgs part = work.args;
      part.to_frames = work.to;
      part.from_frames = work.from;
      parallel_ranges(work.self->workers_, kernels::copy_tasks(work.self->codec_, part),
                      [&](uint64_t begin, uint64_t end, uint32_t) {
                        kernels::copy_pages(work.self->codec_, part, begin, end);
                      });
    });
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

void CpuKernels::init_page(bool open, uint8_t *frame) noexcept {
  kernels::init_page(codec_, open, frame);
}

Status CpuKernels::zero_pages(bool open, const kernels::FrameView &view, const uint32_t *frames,
                              uint32_t n) noexcept {
  for (uint32_t i = 0; i < n; ++i) kernels::zero_page(codec_, open, view.frame(frames[i]));
  return Status::kOk;
}

Status CpuKernels::set_anchor(uint32_t layer, const float *means) noexcept {
  if (kernels::set_anchor(codec_, layer, means)) return Status::kOk;
  return set_error(Status::kUnsupported, "this format stores keys without an anchor");
}

}  // namespace quire
