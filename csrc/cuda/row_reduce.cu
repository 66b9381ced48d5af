// Launchers of row_reduce.cuh.

#include "fold.cuh"
#include "kernels.h"
#include "row_reduce.cuh"

namespace gnnkern::cuda {

namespace {

// Messages under way from each lane: 4 of 16 bytes and 24 to 32 warps of a processor make 48 KB or
// more, twice what the latency of HBM3 asks for.
constexpr int kUnroll = 4;

// Blocks whose registers a processor holds at once: the most without spilling any.
template <class Source>
constexpr int kBlocksOf = 8;
template <typename scalar_t, int kPack>
constexpr int kBlocksOf<WeightedRows<scalar_t, kPack>> = kPack == 4 ? 7 : 6;
template <typename scalar_t, int kPack>
constexpr int kBlocksOf<CombinedRows<scalar_t, kPack>> = kPack == 8              ? 4
                                                         : kPack > 1             ? 5
                                                         : sizeof(scalar_t) == 8 ? 7
                                                                                 : 8;
template <typename scalar_t, int kPack>
constexpr int kBlocksOf<WonRows<scalar_t, kPack>> = 5;

template <typename scalar_t, int kPack>
WeightedRows<scalar_t, kPack> weighted_rows(const RowReduceArgs& args) {
  return {static_cast<const scalar_t*>(args.x),
          static_cast<const scalar_t*>(args.edge),
          args.x_stride,
          args.edge == nullptr ? 1 : args.edge_width,
          args.group,
          {args.walk.indices, args.walk.index_type == IndexType::kInt64},
          {args.walk.edge_id, args.walk.index_type == IndexType::kInt64}};
}

template <typename scalar_t, int kPack>
CombinedRows<scalar_t, kPack> combined_rows(const RowReduceArgs& args) {
  return {static_cast<const scalar_t*>(args.x),
          static_cast<const scalar_t*>(args.edge),
          args.x_columns,
          args.edge_columns,
          args.x_stride,
          args.edge_width,
          args.group,
          args.op,
          {args.walk.indices, args.walk.index_type == IndexType::kInt64},
          {args.walk.edge_id, args.walk.index_type == IndexType::kInt64}};
}

template <typename scalar_t, int kPack>
WonRows<scalar_t, kPack> won_rows(const RowReduceArgs& args) {
  return {combined_rows<scalar_t, kPack>(args),
          args.winner,
          args.winner_size,
          args.results.width,
          args.winner_indptr,
          args.winner_position,
          args.walk.index_type};
}

// Whether an edge's share of a message has 16 bytes wherever that of x has them, or is one element.
bool edge_has_packs(const RowReduceArgs& args, int64_t pack) {
  if (args.edge == nullptr || args.group % pack == 0) return true;
  return args.group == 1 && all_aligned(address_of(args.edge));
}

bool has_packs(const RowReduceArgs& args) {
  const int64_t size = size_of(args.dtype);
  if (args.x_columns != nullptr || args.edge_columns != nullptr) return false;
  // Kernels of other reductions take one column at a time.
  if (args.reduce == Reduce::kMul || args.reduce == Reduce::kLogSumExp) return false;
  return all_aligned(address_of(args.x), address_of(args.results.out), args.results.width * size,
                     args.x_stride * size, address_of(args.winner)) &&
         edge_has_packs(args, 16 / size);
}

template <typename scalar_t, int kPack, class Reducer, class Source>
void run(const RowReduceArgs& args, Reducer reducer, Source source, void* stream) {
  const int64_t packs = args.results.width / kPack;
  const LaneShifts lanes = lanes_for(args.walk, packs);
  launch("row_reduce",
         row_reduce_kernel<scalar_t, kPack, kUnroll, kBlocksOf<Source>, Reducer, Source>,
         walk_grid(args.walk, lanes, packs), kWalkThreads, 0, stream, args.walk, lanes, source,
         reducer, args.results, args.states);
}

}  // namespace

void row_reduce(const RowReduceArgs& args, void* stream) {
  if (args.results.width == 0) return;
  dispatch_vectors(args.dtype, has_packs(args), [&]<typename scalar_t, int kPack>() {
    using compute_t = compute_of<scalar_t>;
    if (args.winner != nullptr) {
      return run<scalar_t, kPack>(args, SumReducer<compute_t>{false},
                                  won_rows<scalar_t, kPack>(args), stream);
    }
    const auto reduce = [&](auto reducer) {
      if constexpr (kPack > 1) {
        if (args.op == EdgeOp::kMul && (args.edge == nullptr || args.group % kPack == 0)) {
          return run<scalar_t, kPack>(args, reducer, weighted_rows<scalar_t, kPack>(args), stream);
        }
      }
      run<scalar_t, kPack>(args, reducer, combined_rows<scalar_t, kPack>(args), stream);
    };
    if (args.reduce == Reduce::kMax || args.reduce == Reduce::kMin) {
      return reduce(SelectReducer<compute_t>{args.reduce == Reduce::kMin});
    }
    if constexpr (kPack == 1) {
      if (args.reduce == Reduce::kMul) return reduce(MulReducer<compute_t>{});
      if (args.reduce == Reduce::kLogSumExp) return reduce(LogSumExpReducer<compute_t>{});
    }
    reduce(SumReducer<compute_t>{args.reduce == Reduce::kMean});
  });
  fold_rows({args.walk, args.dtype, args.reduce, args.results, args.states}, stream);
}

}  // namespace gnnkern::cuda
