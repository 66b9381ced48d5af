// The launcher of scale_by_group.cuh.

#include "kernels.h"
#include "scale_by_group.cuh"

namespace gnnkern::cuda {

void scale_by_group(const ScaleArgs& args, void* stream) {
  if (args.width == 0) return;
  const int64_t size = size_of(args.dtype);
  const bool aligned =
      all_aligned(address_of(args.out), address_of(args.x), address_of(args.statistics),
                  address_of(args.scale), args.width * size, args.x_stride * size);
  dispatch_vectors(args.dtype, aligned, [&]<typename scalar_t, int kPack>() {
    using compute_t = compute_of<scalar_t>;
    const int64_t packs = args.width / kPack;
    const LaneShifts lanes = lanes_for(args.walk, packs);
    Grid grid = walk_grid(args.walk, lanes, packs);
    if (args.index != nullptr) grid.x = blocks_of(args.walk.num_edges, kIndexedEdges * kWalkWarps);
    const GroupedRows<scalar_t, kPack> rows{static_cast<const scalar_t*>(args.x),
                                            static_cast<const compute_t*>(args.statistics),
                                            static_cast<const compute_t*>(args.scale),
                                            args.x_stride,
                                            args.width,
                                            args.is_exponential,
                                            {args.index, args.walk.index_type == IndexType::kInt64},
                                            0};
    launch("scale_by_group", scale_by_group_kernel<scalar_t, kPack>, grid, kWalkThreads, 0, stream,
           args.walk, lanes, rows, static_cast<scalar_t*>(args.out));
  });
}

}  // namespace gnnkern::cuda
