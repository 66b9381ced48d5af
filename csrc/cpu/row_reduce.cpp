// out[r] = reduction over the edges e of row r of weight[e] * x[indices[e]]:
// spmm, segment_reduce and scatter_reduce are this one kernel.

#include "reduce_rows.h"
#include "weighted_sum.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename scalar_t>
void reduce_typed(const RowReduceArgs& args) {
  using compute_t = compute_of<scalar_t>;
  const auto* weight = static_cast<const scalar_t*>(args.weight);
  const auto stage = [&](const PlanItem& item, int, compute_t* staged) {
    if (weight) stage_edges(args.csr, weight, args.heads, item, staged);
  };
  const auto no_weight = [](const compute_t*, int64_t) { return NoWeight{}; };
  if (args.reduce == Reduce::kMul) {
    return reduce_rows<scalar_t>(args, MulReducer<compute_t>{}, stage, no_weight);
  }
  if (args.reduce == Reduce::kLogSumExp) {
    return reduce_rows<scalar_t>(args, LogSumExpReducer<compute_t>{}, stage, no_weight);
  }
  if (args.reduce == Reduce::kMax || args.reduce == Reduce::kMin) {
    const SelectReducer<compute_t, true> select(args.reduce == Reduce::kMin);
    if (weight) {
      // The table lies behind the stages of all threads.
      auto* table = reinterpret_cast<LaneHeads<compute_t>*>(
          args.workspace.stage + args.workspace.threads * args.workspace.stage_bytes);
      fill_lane_heads(table, args.width, args.heads);
      reduce_rows<scalar_t>(args, select, stage, make_spread_weight<compute_t>(args.heads, table));
    } else if (kManyLoops<scalar_t> && !args.argument) {
      const SelectReducer<compute_t, !kManyLoops<scalar_t>> value(args.reduce == Reduce::kMin);
      reduce_rows<scalar_t>(args, value, stage, no_weight);
    } else {
      reduce_rows<scalar_t>(args, select, stage, no_weight);
    }
    return;
  }
  weighted_sum<scalar_t>(args, StageWeights::by<compute_t>(stage));
}

}  // namespace

void row_reduce(const RowReduceArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { reduce_typed<scalar_t>(args); });
}

}  // namespace gnnkern::GNNKERN_ISA
