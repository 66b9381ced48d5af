// out[e] = x[r] for every edge e of segment r: each row repeated as often as its segment is long.
//
// Tasks are equal runs of results: long segments and empty ones do not unbalance them, and no plan
// has to be made of boundaries that are seen once.

#include <algorithm>

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace gnnkern::GNNKERN_ISA {
namespace {

// Results that may lie in a cache are halved the same way in every call, so that a core finds its
// own lines there. More tasks than threads even out what disturbs one of them.
constexpr int64_t kCachedBytes = 16 << 20;
constexpr int kTasksPerThread = 8;

// Writes a row of some whole vectors, which stay in registers, `count` times.
template <int kVectors>
void repeat_vectors(char* out, const char* row, int64_t count) {
  typedef char block_t __attribute__((vector_size(kVectorBytes)));
  constexpr int64_t kBytes = kVectors * kVectorBytes;
  block_t blocks[kVectors];
  std::memcpy(blocks, row, kBytes);
  for (int64_t copy = 0; copy < count; ++copy) std::memcpy(out + copy * kBytes, blocks, kBytes);
}

void repeat_row(char* out, const char* row, int64_t bytes, int64_t count) {
  if (bytes == kVectorBytes) return repeat_vectors<1>(out, row, count);
  if (bytes == 2 * kVectorBytes) return repeat_vectors<2>(out, row, count);
  if (bytes == 4 * kVectorBytes) return repeat_vectors<4>(out, row, count);
  for (int64_t copy = 0; copy < count; ++copy) copy_row(out + copy * bytes, row, bytes);
}

template <class index_t>
void repeat_rows(const SegmentGatherArgs& args, int64_t begin, int64_t end) {
  const auto* indptr = static_cast<const index_t*>(args.indptr);
  const auto* x = static_cast<const char*>(args.x);
  auto* out = static_cast<char*>(args.out);
  // The segment that the first of these results lies in.
  const auto* after =
      std::upper_bound(indptr, indptr + args.num_rows + 1, static_cast<index_t>(begin));
  for (int64_t row = after - indptr - 1; begin < end; ++row) {
    const int64_t row_end = std::min<int64_t>(indptr[row + 1], end);
    repeat_row(out + begin * args.row_bytes, x + row * args.row_bytes, args.row_bytes,
               row_end - begin);
    begin = row_end;
  }
}

}  // namespace

void segment_gather(const SegmentGatherArgs& args) {
  const bool is_cached = args.num_edges * args.row_bytes <= kCachedBytes;
  const int64_t tasks = is_cached ? args.threads : args.threads * kTasksPerThread;
  dispatch_index(args.index_type, [&]<typename index_t>() {
    parallel_tasks(tasks, args.threads, [&](int64_t task, int) {
      repeat_rows<index_t>(args, args.num_edges * task / tasks,
                           args.num_edges * (task + 1) / tasks);
    });
  });
}

}  // namespace gnnkern::GNNKERN_ISA
