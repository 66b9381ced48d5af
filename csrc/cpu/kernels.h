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
  Workspace workspace;
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
  Workspace workspace;
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
  const void* x_dst;  // [num_rows, width]
  const void* x_src;  // [num_cols, width]
  int64_t width;
  int64_t heads;
  EdgeOp op;
  void* out;  // dot: [E, heads]; otherwise [E, width]; caller's edge order
  int threads;
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

struct SegmentGatherArgs {
  Csr csr;
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

#define GNNKERN_DECLARE_KERNELS(isa)                               \
  namespace isa {                                                  \
  void row_reduce(const RowReduceArgs& args);                      \
  void select_backward(const SelectBackwardArgs& args);            \
  void sddmm(const SddmmArgs& args);                               \
  void segment_softmax(const SegmentSoftmaxArgs& args);            \
  void segment_gather(const SegmentGatherArgs& args);              \
  void gat_forward(const GatForwardArgs& args);                    \
  void gat_backward(const GatBackwardArgs& args);                  \
  void gat_pack(const GatPackArgs& args);                          \
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
