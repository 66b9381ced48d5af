// The launcher of fold.cuh.

#include "fold.cuh"

namespace gnnkern::cuda {

void fold_rows(const FoldArgs& args, void* stream) {
  if (args.walk.num_chunks == 0) return;
  const int shift = shift_of(args.results.width);
  const Grid tiles = tile_grid(args.results.width, shift);
  const Grid grid{blocks_of(args.walk.num_chunks, kFoldSlots), tiles.y, tiles.z};
  const auto run = [&](auto reducer) {
    launch("fold_rows", fold_kernel<decltype(reducer)>, grid, kFoldThreads, 0, stream, args.walk,
           shift, args.dtype, reducer, args.results, args.states);
  };
  const auto reduce = [&]<typename compute_t>() {
    switch (args.reduce) {
      case Reduce::kMax:
      case Reduce::kMin:
        return run(SelectReducer<compute_t>{args.reduce == Reduce::kMin});
      case Reduce::kMul:
        return run(MulReducer<compute_t>{});
      case Reduce::kLogSumExp:
        return run(LogSumExpReducer<compute_t>{});
      default:
        return run(SumReducer<compute_t>{args.reduce == Reduce::kMean});
    }
  };
  if (args.dtype == ScalarType::kFloat64) return reduce.template operator()<double>();
  reduce.template operator()<float>();
}

}  // namespace gnnkern::cuda
