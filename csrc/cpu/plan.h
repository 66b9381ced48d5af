// The row-chunk plan of a CSR matrix: rows grouped into items of about equal work.
//
// Rows of up to `chunk_edges` edges stay whole; several neighbouring ones make one item. A longer
// row is cut into chunks, each an item that writes a partial result into its own slot; the slots of
// a row are folded in order afterwards. Where a row is cut depends on that row alone, so results do
// not depend on the number of threads.
//
// Memory: one int64 array, [header | items | long rows].
#pragma once

#include <cstdint>

#include "../dispatch.h"

namespace gnnkern {

struct PlanItem {
  int64_t row_begin;
  int64_t row_end;
  int64_t edge_begin;
  int64_t edge_end;
  // -1 for whole rows; otherwise the place of this chunk's partial result.
  int64_t slot;
};

struct PlanLongRow {
  int64_t row;
  int64_t slot_begin;
  int64_t slot_end;
};

struct PlanHeader {
  int64_t magic;
  int64_t num_rows;
  int64_t num_edges;
  int64_t chunk_edges;
  int64_t num_items;
  int64_t num_long_rows;
  int64_t num_slots;
  int64_t max_degree;
};

inline constexpr int64_t kPlanMagic = 0x67706c616e303176;

// Where a row is cut. 2048 float32 rows of width 64 are 512 KiB: half of an L2 cache, and long
// enough that an item costs far more than handing it to a thread.
inline constexpr int64_t kChunkEdges = 2048;

// Whole rows to an item, of edges and of rows: as many as a chunk has, or a sixteenth of a small
// matrix, so that each thread has its share (a sum over 10 thousand edges takes a tenth less on two
// threads than with six items).
static inline int64_t plan_group(int64_t num_rows, int64_t num_edges) {
  const int64_t share = (num_rows + num_edges) / 16;
  return share < 256 ? 256 : share < kChunkEdges ? share : kChunkEdges;
}

// Upper bounds that follow from the sizes alone, so that a plan's shape is known before its
// content. Two whole-row items in sequence hold more rows or edges than a group; a long row adds
// one interruption and at most two chunks per `chunk_edges` edges.
static inline int64_t plan_item_bound(int64_t num_rows, int64_t num_edges) {
  return (2 * (num_rows + num_edges) + 3 * num_edges) / plan_group(num_rows, num_edges) + 2;
}
static inline int64_t plan_long_row_bound(int64_t num_edges) { return num_edges / kChunkEdges + 1; }
static inline int64_t plan_length(int64_t num_rows, int64_t num_edges) {
  return 8 + 5 * plan_item_bound(num_rows, num_edges) + 3 * plan_long_row_bound(num_edges);
}

// A view of the array; throws std::invalid_argument where it is not a plan for these sizes.
struct Plan {
  const PlanHeader* header;
  const PlanItem* items;
  const PlanLongRow* long_rows;

  static Plan view(const int64_t* data, int64_t num_rows, int64_t num_edges);
};

// Fills `data` (of plan_length elements). Throws std::invalid_argument where indptr decreases, does
// not start at 0, or does not end at num_edges.
void make_plan(IndexType index_type, const void* indptr, int64_t num_rows, int64_t num_edges,
               int64_t* data);

// The number of edges of an indptr that starts at 0 and does not decrease; otherwise -1.
int64_t indptr_edges(IndexType index_type, const void* indptr, int64_t num_rows);

}  // namespace gnnkern
