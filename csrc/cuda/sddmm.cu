// The launcher of sddmm.cuh.

#include "kernels.h"
#include "sddmm.cuh"

namespace gnnkern::cuda {

namespace {

template <typename scalar_t>
EndRows<scalar_t> rows_of(const EdgeOperand& operand) {
  return {static_cast<const scalar_t*>(operand.x), operand.columns, operand.stride, operand.at};
}

bool has_packs(const EdgeArgs& args) {
  const int64_t size = size_of(args.dtype);
  const auto aligned = [&](const EdgeOperand& operand) {
    return operand.columns == nullptr && all_aligned(address_of(operand.x), operand.stride * size);
  };
  const int64_t columns = args.group > 1 ? args.group : args.out_width;
  return aligned(args.lhs) && aligned(args.rhs) &&
         all_aligned(address_of(args.winner), columns * size) &&
         (args.group > 1 || all_aligned(address_of(args.out)));
}

template <typename scalar_t, int kPack, bool kSums>
void run(const EdgeArgs& args, void* stream) {
  const bool is_wide = args.walk.index_type == IndexType::kInt64;
  const EndProducts<scalar_t, kPack> products{rows_of<scalar_t>(args.lhs),
                                              rows_of<scalar_t>(args.rhs),
                                              args.op,
                                              args.winner,
                                              args.winner_size,
                                              args.out_width * args.group,
                                              {args.walk.indices, is_wide},
                                              {args.walk.edge_id, is_wide},
                                              0,
                                              0,
                                              0};
  const int group_shift = kSums ? shift_of(args.group / kPack) : 0;
  const int64_t outputs = kSums ? args.out_width : args.out_width / kPack;
  const LaneShifts lanes = lanes_for(args.walk, outputs << group_shift);
  const Grid tiles = tile_grid(outputs, lanes.edge - group_shift);
  constexpr int kUnroll = 4;
  // Blocks whose registers a processor holds at once, without spilling any.
  constexpr int kBlocks = kSums ? 4 : kPack > 1 ? 5 : 6;
  launch("sddmm", edge_kernel<scalar_t, kPack, kSums, kUnroll, kBlocks>,
         {walk_grid(args.walk, lanes, 1).x, tiles.y, tiles.z}, kWalkThreads, 0, stream, args.walk,
         lanes, products,
         EdgeResults{args.out, args.out_dtype, args.out_width, args.group, group_shift});
}

}  // namespace

void edge_products(const EdgeArgs& args, void* stream) {
  if (args.out_width == 0 || args.walk.num_edges == 0) return;
  dispatch_vectors(args.dtype, has_packs(args), [&]<typename scalar_t, int kPack>() {
    if (args.group > 1) return run<scalar_t, kPack, true>(args, stream);
    run<scalar_t, kPack, false>(args, stream);
  });
}

}  // namespace gnnkern::cuda
