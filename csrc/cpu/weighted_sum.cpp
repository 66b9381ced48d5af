#include "weighted_sum.h"

#include "reduce_rows.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

// Calls body(weight) with the policy of the form.
template <typename compute_t, class Body>
void with_weight(const StagedWeights<compute_t>& weights, const Body& body) {
  const int64_t heads = weights.heads;
  const compute_t* of_edge_0 = weights.staged - weights.first_edge * heads;
  switch (weights.form) {
    case WeightForm::kEdge:
      return body(EdgeWeight<compute_t>{of_edge_0});
    case WeightForm::kHead:
      return body(HeadWeight<compute_t>{of_edge_0, heads, weights.vectors_per_head});
    default:
      return body(weights.spread());
  }
}

}  // namespace

template <typename scalar_t>
void sum_edges(const GatheredRows<scalar_t>& rows,
               const StagedWeights<compute_of<scalar_t>>& weights,
               const Columns<compute_of<scalar_t>>& columns, int64_t begin, int64_t end,
               int64_t item_end, compute_of<scalar_t>* sums) {
  using compute_t = compute_of<scalar_t>;
  with_weight(weights, [&](const auto& weight) {
    reduce_row(SumReducer<compute_t>{}, rows, weight, columns, begin, end, begin, item_end,
               [&](int64_t vector, const auto& state, int) {
                 store(sums + vector * kLanes<compute_t>, state.value);
               });
  });
}

template <typename scalar_t>
void weighted_sum(const RowReduceArgs& args, const StageWeights& stage) {
  using compute_t = compute_of<scalar_t>;
  const SumReducer<compute_t> sum;
  const auto write = [&](const PlanItem& item, int thread, compute_t* staged) {
    if (args.weight) stage.write(stage.self, item, thread, staged);
  };
  if (!args.weight) {
    return reduce_rows<scalar_t>(args, sum, write,
                                 [](const compute_t*, int64_t) { return NoWeight{}; });
  }
  // The table lies behind the stages of all threads.
  const auto weights = staged_weights<compute_t>(
      args.width, args.heads,
      args.workspace.stage + args.workspace.threads * args.workspace.stage_bytes);
  const auto reduce = [&]<class Weight>(const Weight&) {
    reduce_rows<scalar_t>(args, sum, write, [&](const compute_t* staged, int64_t first_edge) {
      Weight weight{};
      with_weight(weights.from(staged, first_edge), [&](const auto& other) {
        if constexpr (std::is_same_v<std::decay_t<decltype(other)>, Weight>) weight = other;
      });
      return weight;
    });
  };
  with_weight(weights, reduce);
}

#define GNNKERN_SUMS(scalar_t)                                                     \
  template void weighted_sum<scalar_t>(const RowReduceArgs&, const StageWeights&); \
  template void sum_edges<scalar_t>(                                               \
      const GatheredRows<scalar_t>&, const StagedWeights<compute_of<scalar_t>>&,   \
      const Columns<compute_of<scalar_t>>&, int64_t, int64_t, int64_t, compute_of<scalar_t>*);

GNNKERN_SUMS(float)
GNNKERN_SUMS(bfloat16)
#if !defined(GNNKERN_MODEL_TYPES)
GNNKERN_SUMS(double)
GNNKERN_SUMS(float16)
#endif

}  // namespace gnnkern::GNNKERN_ISA
