// Stable counting sort of an edge list by row, the only sort the project needs.
#pragma once

#include <cstdint>

#include "../dispatch.h"

namespace gnnkern {

struct SortEdgesArgs {
  // Input: row and column of each edge, elements of `input_type`, distance between two in elements.
  IndexType input_type;
  const void* rows;
  int64_t row_stride;
  const void* cols;
  int64_t col_stride;
  int64_t num_edges;
  int64_t num_rows;
  int64_t num_cols;
  // Output, all of `output_type`: indptr [num_rows + 1], indices [E], edge_id [E].
  IndexType output_type;
  void* indptr;
  void* indices;
  void* edge_id;
  int threads;
};

struct SortEdgesResult {
  // The first edge with an id outside its range, -1 if none: then nothing was written.
  int64_t bad_edge;
  // True when the input was sorted already: edge_id is the identity.
  bool sorted;
};

// `cols` may be null: then `indices` receives nothing and only indptr and edge_id are made.
SortEdgesResult sort_edges(const SortEdgesArgs& args);

struct ReverseArgs {
  IndexType index_type;
  const void* indptr;
  const void* indices;
  // May be null: identity.
  const void* edge_id;
  int64_t num_rows;
  int64_t num_cols;
  int64_t num_edges;
  // Output [num_cols + 1], [E], [E].
  void* rev_indptr;
  void* rev_indices;
  void* rev_edge_id;
  int threads;
};

// Transposes a CSR matrix; edges of a reversed row keep the order of their forward rows.
void reverse_csr(const ReverseArgs& args);

}  // namespace gnnkern
