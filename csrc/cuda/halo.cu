// Launchers of halo.cuh.

#include "halo.cuh"
#include "kernels.h"
#include "launch.cuh"

namespace gnnkern::cuda {

namespace {

// Threads along a row of so many units, a power of two, and rows beside one another.
dim3 halo_block(int64_t units) {
  unsigned lanes = 1;
  while (lanes < kWarp && lanes < units) lanes *= 2;
  return dim3(lanes, kHaloThreads / lanes);
}

}  // namespace

void gather_rows(const GatherRowsArgs& args, void* stream) {
  if (args.row_bytes == 0) return;
  dispatch_index(args.index_type, [&]<typename index_t>() {
    const auto run = [&]<int unit_bytes>() {
      using unit_t = word_of<unit_bytes>;
      const int64_t units = args.row_bytes / unit_bytes;
      const dim3 block = halo_block(units);
      launch("gather_rows", gather_rows_kernel<unit_t, index_t>,
             {blocks_of(args.num_rows, block.y * kHaloRows)}, block, 0, stream,
             static_cast<unit_t*>(args.out), static_cast<const unit_t*>(args.x),
             static_cast<const index_t*>(args.index), args.num_rows, units,
             args.x_row_bytes / unit_bytes);
    };
    const uint64_t bits = address_of(args.out) | address_of(args.x) |
                          static_cast<uint64_t>(args.row_bytes) |
                          static_cast<uint64_t>(args.x_row_bytes);
    if (bits % 16 == 0) return run.template operator()<16>();
    if (bits % 4 == 0) return run.template operator()<4>();
    run.template operator()<2>();
  });
}

void scatter_add_rows(const ScatterAddRowsArgs& args, void* stream) {
  if (args.width == 0) return;
  const int64_t bytes = size_of(args.dtype);
  const bool aligned = all_aligned(address_of(args.out), address_of(args.x), args.width * bytes,
                                   args.out_stride * bytes);
  dispatch_vectors(args.dtype, aligned, [&]<typename scalar_t, int lanes>() {
    dispatch_index(args.index_type, [&]<typename index_t>() {
      const dim3 block = halo_block(args.width / lanes);
      launch("scatter_add_rows", scatter_add_rows_kernel<scalar_t, lanes, index_t>,
             {blocks_of(args.num_rows, block.y)}, block, 0, stream,
             static_cast<scalar_t*>(args.out), static_cast<const scalar_t*>(args.x),
             static_cast<const index_t*>(args.target), static_cast<const index_t*>(args.begin),
             static_cast<const index_t*>(args.order), args.num_rows, args.width, args.out_stride);
    });
  });
}

}  // namespace gnnkern::cuda
