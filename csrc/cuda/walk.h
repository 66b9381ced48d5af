// A matrix as kernels walk it; host and device.
#pragma once

#include <cstdint>

#include "dispatch.h"

namespace gnnkern::cuda {

// The rows of a CSR matrix, and the order in which their edges are walked.
struct Walk {
  const void* indptr;   // [num_rows + 1]
  const void* indices;  // [E], or null: an edge's own position
  const void* edge_id;  // [E], or null: likewise
  const void* plan;     // [1 + num_chunks, 4] (gnnkern/_triton/plan.py), or null: no row is long
  IndexType index_type;
  int64_t num_rows;
  int64_t num_edges;
  int64_t num_chunks;
};

}  // namespace gnnkern::cuda
