// Walking a plan: items in parallel, then long rows folded in order.
#pragma once

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace gnnkern::GNNKERN_ISA {

// The first edge of a row, whatever the index type: read once per row, so a branch costs nothing.
static inline int64_t row_begin(const Csr& csr, int64_t row) {
  return csr.index_type == IndexType::kInt32
             ? static_cast<int64_t>(static_cast<const int32_t*>(csr.indptr)[row])
             : static_cast<const int64_t*>(csr.indptr)[row];
}

// The edges of one row that one item holds.
struct RowPart {
  int64_t row;
  int64_t begin;
  int64_t end;
  // Where the item ends: rows of x up to there may be fetched ahead.
  int64_t item_end;
  // -1 when the part is the whole row.
  int64_t slot;
};

// Calls visit(context, part) for every row part, with the context that enter(item, thread)
// returned.
template <class Enter, class Visit>
static inline void for_each_row_part(const Csr& csr, int threads, const Enter& enter,
                                     const Visit& visit) {
  parallel_tasks(csr.plan.header->num_items, threads, [&](int64_t number, int thread) {
    const PlanItem& item = csr.plan.items[number];
    const auto context = enter(item, thread);
    int64_t begin = item.edge_begin;
    for (int64_t row = item.row_begin; row < item.row_end; ++row) {
      const int64_t end = item.slot >= 0 ? item.edge_end : row_begin(csr, row + 1);
      visit(context, RowPart{row, begin, end, item.edge_end, item.slot});
      begin = end;
    }
  });
}

// Calls body(edge, caller's edge) for the edges of an item.
template <class Body>
static inline void for_each_caller_edge(const Csr& csr, const PlanItem& item, const Body& body) {
  if (!csr.edge_id) {
    for (int64_t edge = item.edge_begin; edge < item.edge_end; ++edge) body(edge, edge);
    return;
  }
  dispatch_index(csr.index_type, [&]<typename index_t>() {
    const auto* edge_id = static_cast<const index_t*>(csr.edge_id);
    for (int64_t edge = item.edge_begin; edge < item.edge_end; ++edge) {
      body(edge, static_cast<int64_t>(edge_id[edge]));
    }
  });
}

// Calls fold(row, slot_begin, slot_end) for every long row.
template <class Fold>
static inline void for_each_long_row(const Csr& csr, int threads, const Fold& fold) {
  parallel_tasks(csr.plan.header->num_long_rows, threads, [&](int64_t number, int) {
    const PlanLongRow& row = csr.plan.long_rows[number];
    fold(row.row, row.slot_begin, row.slot_end);
  });
}

}  // namespace gnnkern::GNNKERN_ISA
