// Launchers of segment_softmax.cuh.

#include "fold.cuh"
#include "kernels.h"
#include "segment_softmax.cuh"

namespace gnnkern::cuda {

namespace {

template <typename scalar_t, class Reducer>
void run(const SoftmaxArgs& args, void* stream) {
  const LaneShifts lanes = lanes_for(args.walk, args.width);
  const bool is_wide = args.walk.index_type == IndexType::kInt64;
  const EdgeElements<scalar_t> elements{static_cast<const scalar_t*>(args.x),
                                        static_cast<const scalar_t*>(args.grad),
                                        args.width,
                                        {args.walk.edge_id, is_wide}};
  Grid grid = walk_grid(args.walk, lanes, args.width);
  const auto start = [&](bool finishes_chunks) {
    launch("segment_softmax", softmax_kernel<scalar_t, Reducer>, grid, kWalkThreads, 0, stream,
           args.walk, lanes, elements, static_cast<scalar_t*>(args.out), args.states,
           finishes_chunks);
  };
  start(false);
  if (args.walk.num_chunks == 0) return;
  const Reduce reduce = Reducer::kHasSecond ? Reduce::kLogSumExp : Reduce::kSum;
  fold_rows({args.walk, args.dtype, reduce, {nullptr, nullptr, 0, args.width}, args.states},
            stream);
  grid.x = blocks_of(args.walk.num_chunks, kWalkWarps);
  start(true);
}

}  // namespace

void segment_softmax(const SoftmaxArgs& args, void* stream) {
  if (args.width == 0 || args.walk.num_edges == 0) return;
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    using compute_t = compute_of<scalar_t>;
    if (args.grad == nullptr) return run<scalar_t, LogSumExpReducer<compute_t>>(args, stream);
    run<scalar_t, SumReducer<compute_t>>(args, stream);
  });
}

}  // namespace gnnkern::cuda
