// Edge weights brought into CSR order and compute precision, one item at a time.
#pragma once

#include "items.h"
#include "rows.h"

namespace gnnkern::GNNKERN_ISA {

// How the weights of an edge meet the columns of a row.
enum class WeightForm { kEdge, kHead, kSpread };

// Copies the `heads` values of the item's edges to `stage`. One tight loop: random reads of the
// caller's order overlap here, where they would not between the rows of x.
template <typename scalar_t>
static inline void stage_edges(const Csr& csr, const scalar_t* values, int64_t heads,
                               const PlanItem& item, compute_of<scalar_t>* stage) {
  if (!csr.edge_id) {
    convert(stage, values + item.edge_begin * heads, (item.edge_end - item.edge_begin) * heads);
  } else if (heads == 1) {
    for_each_caller_edge(csr, item,
                         [&](int64_t, int64_t from) { *stage++ = load_one(values + from); });
  } else {
    for_each_caller_edge(csr, item, [&](int64_t, int64_t from) {
      for (int64_t head = 0; head < heads; ++head)
        *stage++ = load_one(values + from * heads + head);
    });
  }
}

template <typename compute_t>
static inline auto make_spread_weight(int64_t heads, const LaneHeads<compute_t>* table) {
  return [=](const compute_t* staged, int64_t first_edge) {
    return SpreadWeight<compute_t>{staged - first_edge * heads, heads, table};
  };
}

}  // namespace gnnkern::GNNKERN_ISA
