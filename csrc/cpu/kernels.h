// The arguments of every CPU kernel, and its one declaration per instruction set.
//
// Pointers are to contiguous memory unless a stride is given; strides count elements. `edge_id`
// maps an edge of the CSR matrix to the caller's edge order; null means the two orders are the
// same.
#pragma once

#include <cstdint>

#include "../dispatch.h"
#include "plan.h"

namespace gnnkern {

// A CSR matrix: for row r, edges indptr[r] .. indptr[r + 1], edge e coming from indices[e].
struct Csr {
  IndexType index_type;
  const void* indptr;
  // Null: edge e comes from row e (segments of consecutive rows).
  const void* indices;
  const void* edge_id;
  int64_t num_rows;
  int64_t num_cols;
  int64_t num_edges;
  Plan plan;
};

// Memory that a kernel uses and forgets; the caller sizes it by <kernel>_workspace.
struct Workspace {
  // Partial results of long rows, shared by all threads.
  char* partial;
  // Per thread, `stage_bytes` each.
  char* stage;
  int64_t stage_bytes;
  int threads;
};

// How wide rows are reduced a block of columns at a time (column_blocks.h).
struct ColumnBlocks {
  // Of a block; 0: rows are reduced whole.
  int64_t columns = 0;
  // [blocks, num_cols, columns], to be filled with x.
  void* x = nullptr;
  // Null, or [heads, E] of the compute type, to be filled with the weights in the matrix's order.
  void* weight = nullptr;
};

struct RowReduceArgs {
  Csr csr;
  ScalarType dtype;
  const void* x;  // [num_cols, width]
  int64_t x_stride;
  int64_t width;
  // Null, or [E, heads] in the caller's edge order; a head covers width / heads columns.
  const void* weight;
  int64_t heads;
  Reduce reduce;
  void* out;  // [num_rows, width]
  // Null, or [num_rows, width] of the compute type: the result before it is rounded.
  void* wide_out;
  // Null, or [num_rows, width] of `argument_bytes` (1, 2, 4) unsigned integers: the position inside
  // the row of the edge that won a max or min. All bits set where the row is empty.
  void* argument;
  int argument_bytes;
  // Null, or of a log-sum-exp [num_rows, 2, width] of the compute type: the shift s and the slope a
  // of its derivative exp(x - s) * a.
  void* statistics;
  Workspace workspace;
  // For message_reduce: how x meets the row of an edge, here called weight. `heads` is the width of
  // that row: fewer than `width` stand for equal groups of columns. Null, or for every column of
  // the message the column of x and of the edge's row, [width]: any other broadcasting.
  EdgeOp op = EdgeOp::kMul;
  const int32_t* x_columns = nullptr;
  const int32_t* weight_columns = nullptr;
  // For row_reduce.
  ColumnBlocks blocks = {};
  // From a row of results to the next; 0: width.
  int64_t out_stride = 0;
};

// One max or min of a row: its gradient, and who won.
struct Selection {
  const void* grad;      // [num_rows, width]
  const void* argument;  // [num_rows, width] of `argument_bytes`
};

struct SelectBackwardArgs {
  Csr csr;
  ScalarType dtype;
  // With grad_weight, one.
  const Selection* selections;
  int64_t num_selections;
  int64_t grad_stride;
  int64_t width;
  const void* weight;
  int64_t heads;
  int argument_bytes;
  // Exactly one of the two: the gradient of x [num_cols, width], or of the weight [E, heads].
  void* grad_x;
  void* grad_weight;
  // Null, or what the gradient of x starts from, [num_cols, width] of the compute type: where that
  // is the type of grad_x, grad_x itself.
  const void* base;
  // With grad_weight: the x of the forward, [num_cols, width].
  const void* x;
  int64_t x_stride;
  // Whether the rows of x are those of segments, each won in a row of its own.
  bool own_rows;
  // Of the gradient of x: how many columns a thread sums at a time, and per thread
  // [num_cols, owned_columns] of the compute type unless that is all of a grad_x of this type.
  int64_t owned_columns;
  Workspace workspace;
  // As in RowReduceArgs. The gradient of x is that of the columns of the message.
  EdgeOp op = EdgeOp::kMul;
  const int32_t* x_columns = nullptr;
  const int32_t* weight_columns = nullptr;
  // Whether grad_weight is of the compute type, or of `dtype`: where no two columns of a message
  // share an element of the weight, nothing is summed.
  bool wide_grad_weight = true;
};

// Where each reduction stands among the `count` rows of a result; -1: not asked for.
struct ReducePlaces {
  int sum;
  int mean;
  int max;
  int min;
  int var;
  int std;
  int count;
};

struct MultiReduceArgs {
  Csr csr;
  ScalarType dtype;
  const void* x;  // [num_cols, width]
  int64_t x_stride;
  int64_t width;
  ReducePlaces places;
  void* out;  // [num_rows, places.count, width]
  // Each null, or as in RowReduceArgs.
  void* argument_max;
  void* argument_min;
  int argument_bytes;
  // Each null, or [num_rows, width] of the compute type: the mean, what it lost to rounding, and
  // the standard deviation.
  void* mean;
  void* mean_rest;
  void* std;
  Workspace workspace;
};

struct MultiReducePackArgs {
  IndexType index_type;
  const void* indptr;  // [num_rows + 1]
  int64_t num_rows;
  ScalarType dtype;
  int64_t width;
  ReducePlaces places;
  const void* grad;  // [num_rows, places.count, width]
  // As the forward kept them, of the compute type.
  const void* mean;
  int64_t mean_stride;
  const void* mean_rest;  // [num_rows, width]
  const void* std;
  int64_t std_stride;
  // Compute type, [num_rows, 3, width]: level, slope, mean; without var and std [num_rows, width]:
  // level.
  void* packed;
  int threads;
};

struct MultiReduceBackwardArgs {
  // The reversed graph: rows are sources.
  Csr csr;
  ScalarType dtype;
  const void* x;  // [num_rows, width]
  int64_t x_stride;
  int64_t width;
  const void* packed;  // compute type, [num_cols, 3, width]
  void* grad_x;        // compute type, [num_rows, width]
  Workspace workspace;
};

struct SddmmArgs {
  Csr csr;
  ScalarType dtype;
  const void* lhs;  // [num_rows, width], or where lhs_at says
  const void* rhs;  // [num_cols, width], or where rhs_at says; kCopy: null
  int64_t width;
  int64_t heads;
  EdgeOp op;
  void* out;  // dot: [E, heads]; otherwise [E, width]; caller's edge order
  int threads;
  EdgeEnd lhs_at = EdgeEnd::kDst;
  EdgeEnd rhs_at = EdgeEnd::kSrc;
  // Null, or broadcasting: out [E, out_width], whose element j is the sum over the width /
  // out_width columns from j * width / out_width on of lhs[lhs_columns[c]] op rhs[rhs_columns[c]].
  const int32_t* lhs_columns = nullptr;  // [width], into rows of lhs_width
  const int32_t* rhs_columns = nullptr;  // [width], into rows of rhs_width
  int64_t lhs_width = 0;
  int64_t rhs_width = 0;
  int64_t out_width = 0;
};

struct SegmentSoftmaxArgs {
  Csr csr;
  ScalarType dtype;
  int64_t heads;
  const void* score;  // [E, heads], caller's edge order
  // Backward when not null: score holds the softmax, grad its gradient.
  const void* grad;
  void* out;  // [E, heads]
  Workspace workspace;
};

// Rows of x that segment_matmul brings side by side.
inline constexpr int64_t kMatmulBlockRows = 64;

// With y null: out[e] = x[e] weight[r] + bias[r] for every edge e of row r. With y: out[r] = the
// sum over the edges of row r of the outer product of x[e] and y[e]. Edge e is row indices[e] of x,
// y and such an out, or row e where the matrix has no indices.
struct SegmentMatmulArgs {
  Csr csr;
  ScalarType dtype;
  const void* x;  // [E, width]
  int64_t x_stride;
  int64_t width;
  const void* y;  // null or [E, out_width]
  int64_t y_stride;
  int64_t out_width;
  const void* weight;  // [num_rows, width, out_width], any strides
  int64_t weight_stride;
  int64_t weight_row_stride;
  int64_t weight_col_stride;
  const void* bias;  // null or [num_rows, out_width]
  void* out;         // [E, out_width] or [num_rows, width, out_width]
  Workspace workspace;
};

struct ScatterStdArgs {
  Csr csr;
  ScalarType dtype;
  const void* x;  // [num_cols, width]
  int64_t x_stride;
  int64_t width;
  bool unbiased;
  void* out;  // [num_rows, width]
  // Null, or [num_rows, 3, width] of the compute type: the mean in two parts m + n, of which the
  // sum would be rounded, and the slope a of the derivative (x - m - n) * a.
  void* statistics;
  Workspace workspace;
};

struct ScaleByGroupArgs {
  IndexType index_type;
  // The group of each row [num_rows], or the boundaries of groups of consecutive rows
  // [num_groups + 1].
  const void* group;
  bool by_boundaries;
  int64_t num_groups;
  int64_t num_rows;
  ScalarType dtype;
  const void* x;  // [num_rows, width]
  int64_t x_stride;
  int64_t width;
  bool exponential;
  // [num_groups, 2 if exponential, otherwise 3, width] of the compute type.
  const void* statistics;
  const void* scale;  // [num_groups, width] of the compute type
  void* out;          // [num_rows, width]
  int threads;
};

struct SegmentGatherArgs {
  IndexType index_type;
  const void* indptr;  // [num_rows + 1]
  int64_t num_rows;
  int64_t num_edges;
  int64_t row_bytes;
  const void* x;  // [num_rows, row_bytes]
  void* out;      // [E, row_bytes]
  int threads;
};

struct Dropout {
  double probability;
  uint64_t seed;
};

struct GatForwardArgs {
  Csr csr;
  ScalarType dtype;
  const void* x;  // [num_cols, heads * head_width]
  int64_t heads;
  int64_t head_width;
  const void* score_src;   // [num_cols, heads]
  const void* score_dst;   // [num_rows, heads]
  const void* edge_score;  // null or [E, heads]
  double negative_slope;
  Dropout dropout;
  void* out;          // [num_rows, heads * head_width]
  void* wide_out;     // null, or the same of the compute type
  void* log_sum_exp;  // compute type, [num_rows, heads]
  Workspace workspace;
};

struct GatBackwardArgs {
  // The reversed graph: rows are sources.
  Csr csr;
  ScalarType dtype;
  const void* x;
  int64_t heads;
  int64_t head_width;
  const void* score_src;
  // Compute type, [num_cols, 3, heads]: destination score, log-sum-exp, <out, grad>.
  const void* packed_dst;
  const void* edge_score;
  const void* grad;  // [num_cols, heads * head_width]
  double negative_slope;
  Dropout dropout;
  void* grad_x;          // [num_rows, heads * head_width]
  void* grad_score_src;  // [num_rows, heads]
  void* grad_score;      // [E, heads], caller's edge order: before the leaky ReLU
  Workspace workspace;
};

struct GatPackArgs {
  ScalarType dtype;
  int64_t num_dst;
  int64_t heads;
  int64_t head_width;
  const void* score_dst;
  const void* log_sum_exp;
  const void* out;  // compute type
  const void* grad;
  void* packed_dst;
  int threads;
};

struct DotForwardArgs {
  Csr csr;
  ScalarType dtype;
  int64_t heads;
  int64_t head_width;
  const void* query;      // [num_rows, heads * head_width]
  const void* key;        // [num_cols, heads * head_width]
  const void* value;      // [num_cols, heads * head_width]
  const void* edge_bias;  // null or [E, heads]
  const void* edge_x;     // null or [E, heads * head_width]
  double scale;
  Dropout dropout;
  void* out;          // [num_rows, heads * head_width]
  void* wide_out;     // null, or the same of the compute type
  void* log_sum_exp;  // compute type, [num_rows, heads]
  Workspace workspace;
};

// Edges whose rows the backward gathers and then sums: 128 pairs of float32 rows of width 128 are
// 128 KiB of a second-level cache.
inline constexpr int64_t kDotBlockEdges = 128;

struct DotBackwardArgs {
  // The reversed graph: rows are sources.
  Csr csr;
  ScalarType dtype;
  int64_t heads;
  int64_t head_width;
  const void* query;        // [num_cols, heads * head_width]
  const void* key;          // [num_rows, heads * head_width]
  const void* value;        // [num_rows, heads * head_width]
  const void* edge_bias;    // null or [E, heads]
  const void* edge_x;       // null or [E, heads * head_width]
  const void* out;          // compute type, [num_cols, heads * head_width]
  const void* log_sum_exp;  // compute type, [num_cols, heads]
  const void* grad;         // [num_cols, heads * head_width]
  double scale;
  Dropout dropout;
  // Compute type, [num_cols, 2, heads], filled here: log-sum-exp, <out, grad>.
  void* packed_dst;
  void* grad_key;
  void* grad_value;
  void* grad_score;   // compute type, [E, heads], caller's edge order
  void* grad_edge_x;  // null or [E, heads * head_width]
  Workspace workspace;
};

struct DotQueryArgs {
  Csr csr;
  ScalarType dtype;
  int64_t heads;
  int64_t head_width;
  const void* key;         // [num_cols, heads * head_width]
  const void* edge_x;      // null or [E, heads * head_width]
  const void* grad_score;  // compute type, [E, heads]
  double scale;
  void* grad_query;  // [num_rows, heads * head_width]
  Workspace workspace;
};

struct Gatv2Inputs {
  // Rows are destinations.
  Csr csr;
  ScalarType dtype;
  int64_t heads;
  int64_t head_width;
  const void* x_src;   // [num_cols, heads * head_width]
  const void* x_dst;   // [num_rows, heads * head_width]
  const void* att;     // compute type, [heads * head_width]
  const void* edge_x;  // null or [E, heads * head_width], caller's edge order
  double negative_slope;
  Dropout dropout;
};

struct Gatv2ForwardArgs {
  Gatv2Inputs in;
  void* out;          // [num_rows, heads * head_width]
  void* wide_out;     // null, or the same of the compute type
  void* log_sum_exp;  // compute type, [num_rows, heads]
  Workspace workspace;
};

struct Gatv2BackwardArgs {
  Gatv2Inputs in;
  // The reversed graph: rows are sources.
  Csr reverse;
  const void* out;          // compute type, [num_dst, heads * head_width]
  const void* log_sum_exp;  // compute type, [num_dst, heads]
  const void* grad;         // [num_dst, heads * head_width]
  void* grad_x_src;         // null: not wanted
  void* grad_x_dst;
  void* grad_att;     // compute type, [heads * head_width]
  void* grad_edge_x;  // null, or like edge_x
  // What the pass by destination leaves for the pass by source, per edge: see gatv2_backward.cpp.
  char* records;
  Workspace workspace;
};

#define GNNKERN_DECLARE_KERNELS(isa)                               \
  namespace isa {                                                  \
  void row_reduce(const RowReduceArgs& args);                      \
  void message_reduce(const RowReduceArgs& args);                  \
  void select_backward(const SelectBackwardArgs& args);            \
  void sddmm(const SddmmArgs& args);                               \
  void segment_softmax(const SegmentSoftmaxArgs& args);            \
  void segment_gather(const SegmentGatherArgs& args);              \
  void segment_matmul(const SegmentMatmulArgs& args);              \
  void scatter_std(const ScatterStdArgs& args);                    \
  void scale_by_group(const ScaleByGroupArgs& args);               \
  void gat_forward(const GatForwardArgs& args);                    \
  void gat_backward(const GatBackwardArgs& args);                  \
  void gat_pack(const GatPackArgs& args);                          \
  void gatv2_forward(const Gatv2ForwardArgs& args);                \
  void gatv2_backward(const Gatv2BackwardArgs& args);              \
  void multi_reduce(const MultiReduceArgs& args);                  \
  void multi_reduce_pack(const MultiReducePackArgs& args);         \
  void multi_reduce_backward(const MultiReduceBackwardArgs& args); \
  void dot_forward(const DotForwardArgs& args);                    \
  void dot_backward(const DotBackwardArgs& args);                  \
  void dot_backward_query(const DotQueryArgs& args);               \
  }

GNNKERN_DECLARE_KERNELS(baseline)
GNNKERN_DECLARE_KERNELS(avx2)
GNNKERN_DECLARE_KERNELS(avx512)

}  // namespace gnnkern
