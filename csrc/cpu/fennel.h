// Fennel: parts of a graph by passes over its nodes, in O(N + P) memory beside the graph.
#pragma once

#include <cstdint>

#include "../dispatch.h"

namespace gnnkern {

struct FennelArgs {
  IndexType index_type;
  // In-edges by node, [N + 1] and [E]; where the graph is not symmetric the out-edges as well.
  const void* indptr;
  const void* indices;
  const void* rev_indptr;
  const void* rev_indices;
  int64_t num_nodes;
  int64_t num_parts;
  // The node that the pass starts at.
  int64_t first_node;
  // [N], or null: every node weighs 1.
  const float* weight;
  // What one more unit of weight costs a part, beside the square root of its load.
  double price;
  // The largest load that a part may reach, unless it is the lightest.
  double capacity;
  // [N] in and out; -1: not in a part yet.
  int32_t* part;
};

// One pass: every node in turn goes to the part with most of its neighbours less the price of that
// part's load. Returns how many nodes changed their part. One thread: each choice sees those before
// it, and results repeat.
int64_t fennel_pass(const FennelArgs& args);

// Whether every edge has its opposite, as often: equal sums of a 64-bit hash of the edges in both
// directions, self loops left out. Reads the edges once and allocates nothing.
bool is_symmetric(IndexType index_type, const void* indptr, const void* indices, int64_t num_nodes);

}  // namespace gnnkern
