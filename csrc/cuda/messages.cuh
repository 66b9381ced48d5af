// What the edges of a row bring to it: rows of a table, alone or combined with the edge's own.
//
// A source of messages is copied for each tile, and told where its lane stands by `stand_at`; then
// `walk_edges` (row_part.cuh) loads from it, and `unpack` makes the messages.
#pragma once

#include "row_part.cuh"
#include "winners.cuh"

namespace gnnkern::cuda {

template <typename compute_t>
__device__ __forceinline__ compute_t combined(EdgeOp op, compute_t x, compute_t edge) {
  switch (op) {
    case EdgeOp::kAdd:
      return x + edge;
    case EdgeOp::kSub:
      return x - edge;
    case EdgeOp::kDiv:
      return x / edge;
    case EdgeOp::kCopy:
      return x;
    default:
      return x * edge;
  }
}

template <int kPack, typename compute_t>
__device__ __forceinline__ void combine_packs(EdgeOp op, compute_t (&x)[kPack],
                                              const compute_t (&edge)[kPack]) {
#pragma unroll
  for (int i = 0; i < kPack; ++i) x[i] = combined(op, x[i], edge[i]);
}

struct NoEarly {};

// Rows of x, times a weight of the edge or of the edge and the head; a pack lies in one head.
template <typename scalar_t, int kPack>
struct WeightedRows {
  using compute_t = compute_of<scalar_t>;
  const scalar_t* x;       // rows stride apart
  const scalar_t* weight;  // [E, heads], or null
  int64_t stride;
  int64_t heads;
  int64_t head_width;
  Integers indices;
  Integers edge_id;

  struct Edge {
    number_t source;
    number_t id;       // with several heads
    compute_t weight;  // otherwise
  };
  using Early = NoEarly;
  struct Value {
    Pack<scalar_t, kPack> x;
    compute_t weight;
  };

  __device__ __forceinline__ void stand_at(int64_t column) {
    if (heads > 1) weight += column / head_width;
    x += column;
  }
  __device__ __forceinline__ Edge edge(number_t position) const {
    Edge edge{position, position, compute_t{1}};
    if (indices) edge.source = static_cast<number_t>(indices[position]);
    if (weight != nullptr && edge_id) edge.id = static_cast<number_t>(edge_id[position]);
    if (weight != nullptr && heads == 1) edge.weight = load_one(weight + edge.id);
    return edge;
  }
  __device__ __forceinline__ Edge shuffled(const Edge& own, int lane) const {
    Edge edge{};
    edge.source = __shfl_sync(kFullWarp, own.source, lane);
    if (heads > 1) {
      edge.id = __shfl_sync(kFullWarp, own.id, lane);
    } else {
      edge.weight = __shfl_sync(kFullWarp, own.weight, lane);
    }
    return edge;
  }
  __device__ __forceinline__ Early early(const Edge&) const { return {}; }
  __device__ __forceinline__ void load(const Edge& edge, Early, Value& value) const {
    value.x.load(x + static_cast<int64_t>(edge.source) * stride);
    value.weight = edge.weight;
    if (heads > 1) value.weight = load_one(weight + static_cast<int64_t>(edge.id) * heads);
  }
  __device__ __forceinline__ void unpack(const Value& value, compute_t (&message)[kPack]) const {
    value.x.unpack(message);
#pragma unroll
    for (int i = 0; i < kPack; ++i) message[i] *= value.weight;
  }
};

// x op edge, of operands of any shape; where a pack has several columns, they are neighbours in
// both operands, or share one column of the edge's.
template <typename scalar_t, int kPack>
struct CombinedRows {
  using compute_t = compute_of<scalar_t>;
  const scalar_t* x;            // rows x_stride apart
  const scalar_t* edge_rows;    // [E, edge_width], or null: x alone
  const int32_t* x_columns;     // [width], or null
  const int32_t* edge_columns;  // [width], or null: `group` columns share one
  int64_t x_stride;
  int64_t edge_width;
  int64_t group;
  EdgeOp op;
  Integers indices;
  Integers edge_id;

  struct Edge {
    number_t source;
    number_t id;
  };
  using Early = NoEarly;
  struct Value {
    Pack<scalar_t, kPack> x;
    Pack<scalar_t, kPack> edge;
  };

  __device__ __forceinline__ bool shares_edge() const { return kPack > 1 && group > 1; }
  __device__ __forceinline__ void stand_at(int64_t column) {
    if (edge_rows != nullptr) {
      edge_rows += edge_columns != nullptr ? edge_columns[column] : column / group;
    }
    x += x_columns != nullptr ? x_columns[column] : column;
  }
  __device__ __forceinline__ Edge edge(number_t position) const {
    Edge edge{position, position};
    if (indices) edge.source = static_cast<number_t>(indices[position]);
    if (edge_id && edge_rows != nullptr) edge.id = static_cast<number_t>(edge_id[position]);
    return edge;
  }
  __device__ __forceinline__ Edge shuffled(const Edge& own, int lane) const {
    Edge edge;
    edge.source = __shfl_sync(kFullWarp, own.source, lane);
    edge.id = 0;
    if (edge_rows != nullptr) edge.id = __shfl_sync(kFullWarp, own.id, lane);
    return edge;
  }
  __device__ __forceinline__ Early early(const Edge&) const { return {}; }
  __device__ __forceinline__ void load(const Edge& edge, Early, Value& value) const {
    value.x.load(x + static_cast<int64_t>(edge.source) * x_stride);
    if (edge_rows == nullptr) return;
    const scalar_t* const from = edge_rows + static_cast<int64_t>(edge.id) * edge_width;
    if (shares_edge()) {
      value.edge = filled_pack<kPack>(from);
    } else {
      value.edge.load(from);
    }
  }
  __device__ __forceinline__ void unpack(const Value& value, compute_t (&message)[kPack]) const {
    value.x.unpack(message);
    if (edge_rows == nullptr) return;
    compute_t edge[kPack];
    value.edge.unpack(edge);
    combine_packs<kPack>(op, message, edge);
  }
};

// The same of edges that have won a row of another matrix, the reverse of which is walked: the
// gradient of that row's max or min. The others are 0, and not read.
template <typename scalar_t, int kPack>
struct WonRows {
  using compute_t = compute_of<scalar_t>;
  CombinedRows<scalar_t, kPack> rows;
  const void* argument;  // [num_cols, width] position of the edge that won, in its row
  int argument_size;
  int64_t width;
  const void* won_indptr;    // [num_cols + 1] of the matrix whose rows were won
  const void* won_position;  // [E] of an edge in it, or null: its number
  IndexType index_type;

  struct Edge {
    typename CombinedRows<scalar_t, kPack>::Edge ends;
    int rank;
  };
  // Which columns the edge has won, by bits.
  using Early = unsigned;
  struct Value {
    typename CombinedRows<scalar_t, kPack>::Value rows;
    unsigned won;
  };

  __device__ __forceinline__ void stand_at(int64_t column) {
    argument = static_cast<const char*>(argument) + column * argument_size;
    rows.stand_at(column);
  }
  __device__ __forceinline__ Edge edge(number_t position) const {
    Edge edge{rows.edge(position), 0};
    const Integers edge_id = rows.edge_id;
    const int64_t id = edge_id ? edge_id[position] : position;
    const Integers positions = integers_of(won_position, index_type);
    const int64_t rank = positions ? positions[id] : id;
    edge.rank = static_cast<int>(rank - integers_of(won_indptr, index_type)[edge.ends.source]);
    return edge;
  }
  __device__ __forceinline__ Edge shuffled(const Edge& own, int lane) const {
    return {rows.shuffled(own.ends, lane), __shfl_sync(kFullWarp, own.rank, lane)};
  }
  __device__ __forceinline__ Early early(const Edge& edge) const {
    return won_columns<kPack>(argument, argument_size,
                              static_cast<int64_t>(edge.ends.source) * width, edge.rank);
  }
  __device__ __forceinline__ void load(const Edge& edge, Early won, Value& value) const {
    if (won != 0) rows.load(edge.ends, {}, value.rows);
    value.won = won;
  }
  __device__ __forceinline__ void unpack(const Value& value, compute_t (&message)[kPack]) const {
    rows.unpack(value.rows, message);
#pragma unroll
    for (int i = 0; i < kPack; ++i) message[i] = value.won >> i & 1 ? message[i] : compute_t{0};
  }
};

}  // namespace gnnkern::cuda
