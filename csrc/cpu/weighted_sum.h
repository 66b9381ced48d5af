// The weighted sum of rows that spmm and all attention ops end in: its loops are compiled once.
#pragma once

#include "weights.h"

namespace gnnkern::GNNKERN_ISA {

// Weights of an item's edges, [edges, heads], as a sum finds them.
template <typename compute_t>
struct StagedWeights {
  WeightForm form;
  int64_t heads;
  int64_t vectors_per_head;
  const LaneHeads<compute_t>* table;
  const compute_t* staged;
  int64_t first_edge;

  StagedWeights from(const compute_t* memory, int64_t edge) const {
    StagedWeights weights = *this;
    weights.staged = memory;
    weights.first_edge = edge;
    return weights;
  }
  // Of any form.
  SpreadWeight<compute_t> spread() const { return {staged - first_edge * heads, heads, table}; }
};

// The weights of a call; `memory` [lane_table_bytes] holds what the lanes of a vector need.
template <typename compute_t>
static inline StagedWeights<compute_t> staged_weights(int64_t width, int64_t heads, char* memory) {
  auto* table = reinterpret_cast<LaneHeads<compute_t>*>(memory);
  fill_lane_heads(table, width, heads);
  const WeightForm form = heads == 1                               ? WeightForm::kEdge
                          : width / heads % kLanes<compute_t> == 0 ? WeightForm::kHead
                                                                   : WeightForm::kSpread;
  return {form, heads, width / heads / kLanes<compute_t>, table, nullptr, 0};
}

// Writes the weights of an item's edges [edges, heads] to `staged`, of the compute type.
struct StageWeights {
  const void* self;
  void (*write)(const void* self, const PlanItem& item, int thread, void* staged);

  template <typename compute_t, class Write>
  static StageWeights by(const Write& write) {
    return {&write, [](const void* self, const PlanItem& item, int thread, void* staged) {
              (*static_cast<const Write*>(self))(item, thread, static_cast<compute_t*>(staged));
            }};
  }
};

// A sum or mean of rows of x, each times its weights; args.weight says only whether there are any.
template <typename scalar_t>
void weighted_sum(const RowReduceArgs& args, const StageWeights& stage);

// Sums the edges [begin, end) of a row into `sums`, vector after vector. The range is not empty.
template <typename scalar_t>
void sum_edges(const GatheredRows<scalar_t>& rows,
               const StagedWeights<compute_of<scalar_t>>& weights,
               const Columns<compute_of<scalar_t>>& columns, int64_t begin, int64_t end,
               int64_t item_end, compute_of<scalar_t>* sums);

}  // namespace gnnkern::GNNKERN_ISA
