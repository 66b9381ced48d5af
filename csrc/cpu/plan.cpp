#include "plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace gnnkern {

static_assert(sizeof(PlanHeader) == 8 * 8 && sizeof(PlanItem) == 5 * 8 &&
              sizeof(PlanLongRow) == 3 * 8);

namespace {

// Appends items and long rows while counting what was written.
class PlanWriter {
 public:
  PlanWriter(int64_t* data, int64_t num_rows, int64_t num_edges)
      : header_(reinterpret_cast<PlanHeader*>(data)),
        items_(reinterpret_cast<PlanItem*>(data + 8)),
        long_rows_(
            reinterpret_cast<PlanLongRow*>(data + 8 + 5 * plan_item_bound(num_rows, num_edges))) {
    *header_ = {kPlanMagic, num_rows, num_edges, kChunkEdges, 0, 0, 0, 0};
  }

  void whole_rows(int64_t row_begin, int64_t row_end, int64_t edge_begin, int64_t edge_end) {
    if (row_begin == row_end) return;
    items_[header_->num_items++] = {row_begin, row_end, edge_begin, edge_end, -1};
  }

  void long_row(int64_t row, int64_t edge_begin, int64_t edge_end) {
    const int64_t slot_begin = header_->num_slots;
    for (int64_t edge = edge_begin; edge < edge_end; edge += kChunkEdges) {
      const int64_t chunk_end = std::min(edge + kChunkEdges, edge_end);
      items_[header_->num_items++] = {row, row + 1, edge, chunk_end, header_->num_slots++};
    }
    long_rows_[header_->num_long_rows++] = {row, slot_begin, header_->num_slots};
  }

  void saw_degree(int64_t degree) { header_->max_degree = std::max(header_->max_degree, degree); }

 private:
  PlanHeader* header_;
  PlanItem* items_;
  PlanLongRow* long_rows_;
};

template <typename index_t>
void fill_plan(const index_t* indptr, int64_t num_rows, int64_t num_edges, int64_t* data) {
  if (indptr[0] != 0) {
    throw std::invalid_argument("indptr must start at 0, got " + std::to_string(indptr[0]));
  }
  PlanWriter writer(data, num_rows, num_edges);
  const int64_t group = plan_group(num_rows, num_edges);
  int64_t group_row = 0;
  int64_t group_edge = 0;
  for (int64_t row = 0; row < num_rows; ++row) {
    const int64_t begin = indptr[row];
    const int64_t end = indptr[row + 1];
    if (end < begin || end > num_edges) {
      throw std::invalid_argument("indptr must not decrease nor exceed the number of edges " +
                                  std::to_string(num_edges) + ", got " + std::to_string(begin) +
                                  ", " + std::to_string(end) + " at row " + std::to_string(row));
    }
    writer.saw_degree(end - begin);
    if (end - begin > kChunkEdges) {
      writer.whole_rows(group_row, row, group_edge, begin);
      writer.long_row(row, begin, end);
      group_row = row + 1;
      group_edge = end;
    } else if (end - group_edge > group || row - group_row >= group) {
      writer.whole_rows(group_row, row, group_edge, begin);
      group_row = row;
      group_edge = begin;
    }
  }
  if (indptr[num_rows] != num_edges) {
    throw std::invalid_argument("indptr must end at the number of edges " +
                                std::to_string(num_edges) + ", got " +
                                std::to_string(indptr[num_rows]));
  }
  writer.whole_rows(group_row, num_rows, group_edge, num_edges);
}

}  // namespace

Plan Plan::view(const int64_t* data, int64_t num_rows, int64_t num_edges) {
  const auto* header = reinterpret_cast<const PlanHeader*>(data);
  if (header->magic != kPlanMagic || header->num_rows != num_rows ||
      header->num_edges != num_edges) {
    throw std::invalid_argument("the plan was not made for this graph");
  }
  return {
      header, reinterpret_cast<const PlanItem*>(data + 8),
      reinterpret_cast<const PlanLongRow*>(data + 8 + 5 * plan_item_bound(num_rows, num_edges))};
}

void make_plan(IndexType index_type, const void* indptr, int64_t num_rows, int64_t num_edges,
               int64_t* data) {
  dispatch_index(index_type, [&]<typename index_t>() {
    fill_plan(static_cast<const index_t*>(indptr), num_rows, num_edges, data);
  });
}

int64_t indptr_edges(IndexType index_type, const void* indptr, int64_t num_rows) {
  int64_t edges = -1;
  dispatch_index(index_type, [&]<typename index_t>() {
    const auto* at = static_cast<const index_t*>(indptr);
    bool falls = at[0] != 0;
    for (int64_t row = 0; row < num_rows; ++row) falls |= at[row + 1] < at[row];
    if (!falls) edges = at[num_rows];
  });
  return edges;
}

}  // namespace gnnkern
