// Launchers of CUDA kernels: they check nothing that Python has checked, never wait, and throw
// std::runtime_error where a launch fails. `stream` is a cudaStream_t.
//
// Structs of arguments, as on the CPU: pointers to device memory, sizes in elements.
#pragma once

#include <cstdint>
#include <string>

#include "attention.h"
#include "dispatch.h"
#include "lanes.h"
#include "walk.h"

namespace gnnkern::cuda {

// -- runtime --------------------------------------------------------------------------------------

// Why this machine cannot run the kernels; empty where it can.
std::string unusable();

// -- graph ----------------------------------------------------------------------------------------

// A stable sort of an edge list by row: (indptr, indices, edge_id). An edge that is not valid is in
// no row.
struct SortEdgesArgs {
  const void* rows;  // [E], row_stride apart, in [0, num_rows)
  const void* cols;  // [E], col_stride apart, in [0, num_cols), or null
  // Of a matrix to reverse, whose columns are `rows`: [num_begins + 1] where its rows begin, which
  // stand in place of cols, and the numbers of its edges [E], or null: their positions.
  const void* begins;
  const void* numbers;
  IndexType index_type;  // of the above
  int64_t row_stride;
  int64_t col_stride;
  int64_t num_edges;
  int64_t num_rows;
  int64_t num_cols;
  int64_t num_begins;
  IndexType out_type;  // of the next three
  void* indptr;        // [num_rows + 1]
  void* indices;       // [E], or null
  void* edge_id;       // [E]
  // int64 [2]: comes as the largest int64 and 0, leaves as the first edge that is not valid, if
  // there is one, and 1 where the rows were not sorted.
  void* status;
  void* workspace;  // of sort_edges_bytes
  int64_t workspace_bytes;
};
int64_t sort_edges_bytes(int64_t num_edges, int64_t num_rows);
void sort_edges(const SortEdgesArgs& args, void* stream);

// -- plan -----------------------------------------------------------------------------------------

// The chunks of rows of more than chunk_edges edges, with empty slots between them.
struct PlanArgs {
  void* plan;          // [1 + 2 * ceil(num_edges / chunk_edges), 4], in the type of indptr
  const void* indptr;  // [num_rows + 1]
  IndexType index_type;
  int64_t num_rows;
  int64_t num_edges;
  int64_t chunk_edges;
};
void make_plan(const PlanArgs& args, void* stream);

// out[permutation[i]] = i.
struct InverseArgs {
  void* out;
  const void* permutation;
  IndexType index_type;
  int64_t count;
};
void inverse(const InverseArgs& args, void* stream);

// -- rows -----------------------------------------------------------------------------------------

// out[r] = the reduction over the edges of row r of `x op edge`, as gnnkern/_triton/row_reduce.py;
// rows and edges are fewer than 2^32.
struct RowReduceArgs {
  Walk walk;
  RowResults results;
  ChunkStates states;  // where the walk has chunks
  ScalarType dtype;
  Reduce reduce;
  const void* x;                // rows x_stride apart
  const void* edge;             // [E, edge_width], or null: rows of x alone
  const int32_t* x_columns;     // [width] columns of x, or null: its own
  const int32_t* edge_columns;  // [width], or null: `group` neighbouring columns share one
  int64_t x_stride;
  int64_t edge_width;
  int64_t group;
  EdgeOp op;
  // Of a sum: the edges that have won a row of the matrix whose reverse is walked; or null.
  const void* winner;  // [num_cols, width] positions, of winner_size bytes
  int winner_size;
  const void* winner_indptr;    // [num_cols + 1]
  const void* winner_position;  // [E], or null
};
void row_reduce(const RowReduceArgs& args, void* stream);

// out[i] = the reduction (sum, mean, max, min) over the rows of x whose index is i, by atomics in
// no order; rows and groups are fewer than 2^32 - 1. A row whose group does not exist is in none.
struct ScatterAtomicsArgs {
  void* out;  // [num_groups, width]
  // [num_groups, width] of the type that is computed in, zeros; of max and min integers of that
  // size, the least ones. May be `out` where the sizes agree.
  void* cells;
  void* sizes;    // uint32 [num_groups], zeros: of a mean; otherwise null
  void* status;   // int64: comes as the largest, leaves as the first row without a group, if any
  const void* x;  // [num_rows, width], rows x_stride apart
  const void* index;  // [num_rows]
  IndexType index_type;
  ScalarType dtype;
  Reduce reduce;
  int64_t num_rows;
  int64_t num_groups;
  int64_t width;
  int64_t x_stride;
};
void scatter_atomics(const ScatterAtomicsArgs& args, void* stream);

// -- edges ----------------------------------------------------------------------------------------

struct EdgeOperand {
  const void* x;           // rows stride apart, or null: copies of the other
  const int32_t* columns;  // [width], or null: its own
  int64_t stride;
  EdgeEnd at;
};

// out[e] = lhs op rhs, as gnnkern/_triton/sddmm.py; rows and edges are fewer than 2^32.
struct EdgeArgs {
  Walk walk;
  void* out;  // [E, out_width]
  ScalarType out_dtype;
  int64_t out_width;
  int64_t group;  // so many columns of a message are summed into one; 1: none
  ScalarType dtype;
  EdgeOperand lhs;
  EdgeOperand rhs;
  EdgeOp op;
  // The edge of a row that may pass, by its position there; the others give 0; or null.
  const void* winner;  // [num_rows, width] of winner_size bytes
  int winner_size;
};
void edge_products(const EdgeArgs& args, void* stream);

// out[e] = the softmax over the edges of e's row of x, per column; with `grad`, where x is the
// softmax, its gradient.
struct SoftmaxArgs {
  Walk walk;
  void* out;  // [E, width], like x and grad
  const void* x;
  const void* grad;    // or null
  ChunkStates states;  // where the walk has chunks
  ScalarType dtype;
  int64_t width;
};
void segment_softmax(const SoftmaxArgs& args, void* stream);

// out[e] = (x[e] - shift) * scale of the group of e, or exp(x[e] - shift) * scale.
struct ScaleArgs {
  Walk walk;          // without an index its rows are the groups; with one, num_edges alone counts
  void* out;          // [E, width]
  const void* x;      // rows x_stride apart
  const void* index;  // [E] groups, or null
  // [num_groups, parts, width]: the shift, what it lacks unless `is_exponential`, the slope
  const void* statistics;
  const void* scale;  // [num_groups, width]
  ScalarType dtype;
  int64_t width;
  int64_t x_stride;
  bool is_exponential;
};
void scale_by_group(const ScaleArgs& args, void* stream);

// -- halo -----------------------------------------------------------------------------------------

// out[i] = x[index[i]]: bytes are copied, of a dtype of at least 2 bytes.
struct GatherRowsArgs {
  void* out;          // [num_rows], contiguous
  const void* x;      // rows x_row_bytes apart
  const void* index;  // [num_rows]
  IndexType index_type;
  int64_t num_rows;
  int64_t row_bytes;
  int64_t x_row_bytes;
};
void gather_rows(const GatherRowsArgs& args, void* stream);

// out[target[r]] += x over the positions of `order` from begin[r] to begin[r + 1], in order;
// out[target[r]] += x[r] without them. Targets are distinct.
struct ScatterAddRowsArgs {
  void* out;           // rows out_stride apart
  const void* x;       // [m, width], contiguous
  const void* target;  // [num_rows]
  const void* begin;   // [num_rows + 1], or null
  const void* order;   // [m], or null
  ScalarType dtype;
  IndexType index_type;
  int64_t num_rows;
  int64_t width;
  int64_t out_stride;
};
void scatter_add_rows(const ScatterAddRowsArgs& args, void* stream);

}  // namespace gnnkern::cuda
