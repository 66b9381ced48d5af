// The launcher of scatter_atomics.cuh.

#include "kernels.h"
#include "scatter_atomics.cuh"

namespace gnnkern::cuda {

namespace {

// Rows under way from each lane, as in row_reduce.cu, and blocks whose registers a processor holds
// at once: the most without spilling any.
constexpr int kUnroll = 4;
template <int kPack>
constexpr int kBlocksOf = kPack == 8 ? 6 : 8;

}  // namespace

void scatter_atomics(const ScatterAtomicsArgs& args, void* stream) {
  const int64_t size = size_of(args.dtype);
  const bool aligned = all_aligned(address_of(args.x), address_of(args.cells), address_of(args.out),
                                   args.width * size, args.x_stride * size);
  dispatch_vectors(args.dtype, aligned, [&]<typename scalar_t, int kPack>() {
    using compute_t = compute_of<scalar_t>;
    const auto run = [&]<class Reducer>(Reducer reducer) {
      const int64_t packs = args.width / kPack;
      const int edge_shift = shift_of(packs);
      const int64_t warps = blocks_of(args.num_rows, kRowsOfWarp);
      // Groups are checked where rows have no columns, too.
      const Grid tiles = tile_grid(packs > 0 ? packs : 1, edge_shift);
      const GroupedRows<scalar_t, kPack> source{static_cast<const scalar_t*>(args.x),
                                                args.x_stride,
                                                {args.index, args.index_type == IndexType::kInt64},
                                                args.num_groups,
                                                static_cast<long long*>(args.status),
                                                static_cast<unsigned*>(args.sizes)};
      auto* const cells = static_cast<cell_of<Reducer>*>(args.cells);
      launch("scatter_reduce",
             scatter_atomics_kernel<scalar_t, kPack, kUnroll, kBlocksOf<kPack>, Reducer>,
             {blocks_of(warps, kWalkWarps), tiles.y, tiles.z}, kWalkThreads, 0, stream, cells,
             source, reducer, args.num_rows, args.width, edge_shift);
      // A sum that is computed in its own type is a result as it stands.
      if (args.reduce == Reduce::kSum && args.cells == args.out) return;
      launch("scatter_reduce", cell_results_kernel<scalar_t, kPack, Reducer>,
             {blocks_of(args.num_groups * packs, kResultThreads)}, kResultThreads, 0, stream,
             static_cast<scalar_t*>(args.out), static_cast<const cell_of<Reducer>*>(cells),
             static_cast<const unsigned*>(args.sizes), reducer, args.num_groups, args.width);
    };
    if (args.reduce == Reduce::kMax || args.reduce == Reduce::kMin) {
      return run(SelectReducer<compute_t>{args.reduce == Reduce::kMin});
    }
    run(SumReducer<compute_t>{args.reduce == Reduce::kMean});
  });
}

}  // namespace gnnkern::cuda
