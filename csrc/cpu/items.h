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

// numbers[edge], or the edge itself where there are none. For loops that do much work per edge.
static inline int64_t number_at(const Csr& csr, const void* numbers, int64_t edge) {
  if (!numbers) return edge;
  return csr.index_type == IndexType::kInt32
             ? static_cast<int64_t>(static_cast<const int32_t*>(numbers)[edge])
             : static_cast<const int64_t*>(numbers)[edge];
}
// The row of x that an edge reads.
static inline int64_t source_row(const Csr& csr, int64_t edge) {
  return number_at(csr, csr.indices, edge);
}
// The caller's number of an edge.
static inline int64_t caller_edge(const Csr& csr, int64_t edge) {
  return number_at(csr, csr.edge_id, edge);
}

// The rows of x that the edges of an item read, by edge: those of the graph where it counts in
// row_t; otherwise converted, and for segments, whose rows are their edges, written out.
class RowNumbers {
 public:
  RowNumbers(const Csr& csr, const PlanItem& item) {
    constexpr auto kOwnType = sizeof(row_t) == 4 ? IndexType::kInt32 : IndexType::kInt64;
    if (csr.indices && csr.index_type == kOwnType) {
      numbers_ = static_cast<const row_t*>(csr.indices);
      return;
    }
    numbers_ = own_ - item.edge_begin;
    const auto fill = [&](const auto number) {
      for (int64_t edge = item.edge_begin; edge < item.edge_end; ++edge) {
        own_[edge - item.edge_begin] = static_cast<row_t>(number(edge));
      }
    };
    if (!csr.indices) {
      fill([](int64_t edge) { return edge; });
    } else {
      dispatch_index(csr.index_type, [&]<typename index_t>() {
        const auto* from = static_cast<const index_t*>(csr.indices);
        fill([=](int64_t edge) { return from[edge]; });
      });
    }
  }
  RowNumbers(const RowNumbers&) = delete;
  RowNumbers& operator=(const RowNumbers&) = delete;

  const row_t* data() const { return numbers_; }

 private:
  const row_t* numbers_;
  row_t own_[kChunkEdges];
};

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

// Calls visit(part) for the row parts of an item.
template <class Visit>
static inline void for_each_part_of(const Csr& csr, const PlanItem& item, const Visit& visit) {
  int64_t begin = item.edge_begin;
  for (int64_t row = item.row_begin; row < item.row_end; ++row) {
    const int64_t end = item.slot >= 0 ? item.edge_end : row_begin(csr, row + 1);
    visit(RowPart{row, begin, end, item.edge_end, item.slot});
    begin = end;
  }
}

// Calls visit(context, item) for every item, with the context that enter(item, thread) returned.
template <class Enter, class Visit>
static inline void for_each_item(const Csr& csr, int threads, const Enter& enter,
                                 const Visit& visit) {
  parallel_tasks(csr.plan.header->num_items, threads, [&](int64_t number, int thread) {
    const PlanItem& item = csr.plan.items[number];
    const auto context = enter(item, thread);
    visit(context, item);
  });
}

// Calls visit(context, part) for every row part, with the context of its item.
template <class Enter, class Visit>
static inline void for_each_row_part(const Csr& csr, int threads, const Enter& enter,
                                     const Visit& visit) {
  for_each_item(csr, threads, enter, [&](const auto& context, const PlanItem& item) {
    for_each_part_of(csr, item, [&](const RowPart& part) { visit(context, part); });
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
