// Launchers of what the attention ops share: folds of long rows, statistics for the gradient.

#include "attention.cuh"
#include "attention_fold.cuh"
#include "attention_statistics.cuh"

namespace gnnkern::cuda {

void fold_attention(const char* op, const AttentionArgs& args, void* stream) {
  const AttentionShape& shape = args.shape;
  const int64_t width = shape.heads * shape.head_width;
  const int shift = shift_of(width);
  Grid grid = tile_grid(width, shift);
  grid.x = shape.walk.num_chunks;
  dispatch_float(shape.dtype, [&]<typename scalar_t>() {
    launch(op, fold_attention_kernel<scalar_t>, grid, dim3(kFoldThreads), 0, stream, args, shift);
  });
}

void attention_statistics(const AttentionStatisticsArgs& args, void* stream) {
  const int64_t compute_bytes = compute_size_of(args.dtype);
  const bool aligned =
      all_aligned(args.head_width * size_of(args.dtype), args.head_width * compute_bytes,
                  address_of(args.out), address_of(args.grad));
  dispatch_vectors(args.dtype, aligned, [&]<typename scalar_t, int lanes>() {
    const int head_shift = shift_of(blocks_of(args.head_width, lanes));
    launch("attention_statistics", attention_statistics_kernel<scalar_t, lanes>,
           {blocks_of(args.num_rows << head_shift, kWalkThreads)}, dim3(kWalkThreads), 0, stream,
           args, head_shift);
  });
}

}  // namespace gnnkern::cuda
