// out[r] = reduction over the edges e of row r of weight[e] * x[indices[e]]:
// spmm, segment_reduce and scatter_reduce are this one kernel.

#include "reduce_rows.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename scalar_t, typename index_t>
void reduce_typed(const RowReduceArgs& args) {
  using compute_t = compute_of<scalar_t>;
  const auto* weight = static_cast<const scalar_t*>(args.weight);
  const auto stage = [&](const PlanItem& item, int, compute_t* staged) {
    if (weight) stage_edges(args.csr, weight, args.heads, item, staged);
  };
  const auto no_weight = [](const compute_t*, int64_t) { return NoWeight{}; };
  if (args.reduce == Reduce::kMul) {
    return reduce_rows<scalar_t, index_t>(args, MulReducer<compute_t>{}, stage, no_weight);
  }
  if (args.reduce == Reduce::kLogSumExp) {
    return reduce_rows<scalar_t, index_t>(args, LogSumExpReducer<compute_t>{}, stage, no_weight);
  }
  // The table lies behind the stages of all threads.
  auto* table = reinterpret_cast<LaneHeads<compute_t>*>(
      args.workspace.stage + args.workspace.threads * args.workspace.stage_bytes);
  const WeightForm form = weight_form<compute_t>(args.weight, args.width, args.heads);
  const auto select = [&]<bool kSmallest>() {
    if (form != WeightForm::kNone) {
      fill_lane_heads(table, args.width, args.heads);
      const auto spread_weight = make_spread_weight<compute_t>(args.heads, table);
      reduce_rows<scalar_t, index_t>(args, SelectReducer<compute_t, kSmallest, true>{}, stage,
                                     spread_weight);
    } else if (args.argument) {
      reduce_rows<scalar_t, index_t>(args, SelectReducer<compute_t, kSmallest, true>{}, stage,
                                     no_weight);
    } else {
      reduce_rows<scalar_t, index_t>(args, SelectReducer<compute_t, kSmallest, false>{}, stage,
                                     no_weight);
    }
  };
  if (args.reduce == Reduce::kMax) return select.template operator()<false>();
  if (args.reduce == Reduce::kMin) return select.template operator()<true>();
  if (form == WeightForm::kSpread) fill_lane_heads(table, args.width, args.heads);
  dispatch_weight<compute_t>(form, args.width, args.heads, table, [&](const auto& make_weight) {
    reduce_rows<scalar_t, index_t>(args, SumReducer<compute_t>{}, stage, make_weight);
  });
}

}  // namespace

void row_reduce(const RowReduceArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    if (args.csr.indices && args.csr.index_type == IndexType::kInt32) {
      reduce_typed<scalar_t, int32_t>(args);
    } else {
      reduce_typed<scalar_t, int64_t>(args);
    }
  });
}

}  // namespace gnnkern::GNNKERN_ISA
