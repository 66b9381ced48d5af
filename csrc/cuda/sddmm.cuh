// Every edge makes a result of rows at its ends, or its own: sums of products, arithmetic, copies.
#pragma once

#include "messages.cuh"
#include "reduce.cuh"

namespace gnnkern::cuda {

// One side of an edge's product.
template <typename scalar_t>
struct EndRows {
  const scalar_t* x;       // rows stride apart, or null: there is but one side
  const int32_t* columns;  // [width] of a message, or null: its own
  int64_t stride;
  EdgeEnd at;

  __device__ __forceinline__ const scalar_t* row_of(number_t row, number_t source,
                                                    number_t id) const {
    const number_t number = at == EdgeEnd::kDst ? row : at == EdgeEnd::kSrc ? source : id;
    return x + static_cast<int64_t>(number) * stride;
  }
};

// The products of a lane's columns, as `walk_edges` takes them.
template <typename scalar_t, int kPack>
struct EndProducts {
  using compute_t = compute_of<scalar_t>;
  EndRows<scalar_t> lhs;
  EndRows<scalar_t> rhs;
  EdgeOp op;
  // The edges of a row that may pass, by positions in it; or null: every edge passes.
  const void* winner;  // [num_rows, width]
  int winner_size;
  int64_t width;  // columns of a message
  Integers indices;
  Integers edge_id;
  // Of the part
  number_t row;
  number_t row_begin;
  int64_t column;

  struct Edge {
    number_t source;
    number_t id;
    int rank;
  };
  // Which columns may pass, by bits.
  using Early = unsigned;
  struct Value {
    Pack<scalar_t, kPack> lhs;
    Pack<scalar_t, kPack> rhs;
    Edge edge;
    unsigned won;
  };

  __device__ __forceinline__ void stand_at(const RowPart& part, int64_t at_column) {
    row = part.row;
    row_begin = part.begin - static_cast<number_t>(part.offset);
    column = at_column;
  }
  __device__ __forceinline__ Edge edge(number_t position) const {
    Edge edge{position, position, static_cast<int>(position - row_begin)};
    const bool reads_source = lhs.at == EdgeEnd::kSrc || rhs.at == EdgeEnd::kSrc;
    if (indices && reads_source) edge.source = static_cast<number_t>(indices[position]);
    if (edge_id) edge.id = static_cast<number_t>(edge_id[position]);
    return edge;
  }
  __device__ __forceinline__ Edge shuffled(const Edge& own, int lane) const {
    Edge edge{};
    edge.source = __shfl_sync(kFullWarp, own.source, lane);
    edge.id = __shfl_sync(kFullWarp, own.id, lane);
    if (winner != nullptr) edge.rank = __shfl_sync(kFullWarp, own.rank, lane);
    return edge;
  }
  __device__ __forceinline__ static int64_t through(const int32_t* columns, int64_t column) {
    return columns != nullptr ? columns[column] : column;
  }
  __device__ __forceinline__ unsigned won_at(const Edge& edge, int64_t at_column) const {
    if (winner == nullptr) return ~0u;
    return won_columns<kPack>(winner, winner_size,
                              static_cast<int64_t>(row) * width + through(lhs.columns, at_column),
                              edge.rank);
  }
  __device__ __forceinline__ Early early(const Edge& edge) const { return won_at(edge, column); }
  __device__ __forceinline__ void load_at(const Edge& edge, int64_t at_column, Value& value) const {
    value.lhs.load(lhs.row_of(row, edge.source, edge.id) + through(lhs.columns, at_column));
    if (rhs.x != nullptr) {
      value.rhs.load(rhs.row_of(row, edge.source, edge.id) + through(rhs.columns, at_column));
    }
  }
  __device__ __forceinline__ void load(const Edge& edge, Early won, Value& value) const {
    value.edge = edge;
    value.won = won;
    if (won != 0) load_at(edge, column, value);
  }
  __device__ __forceinline__ void unpack(const Value& value, compute_t (&product)[kPack]) const {
    value.lhs.unpack(product);
    if (rhs.x != nullptr) {
      compute_t other[kPack];
      value.rhs.unpack(other);
      combine_packs<kPack>(op, product, other);
    }
#pragma unroll
    for (int i = 0; i < kPack; ++i) product[i] = value.won >> i & 1 ? product[i] : compute_t{0};
  }
};

struct EdgeResults {
  void* out;  // [E, out_width]
  ScalarType dtype;
  int64_t out_width;
  int64_t group;    // columns summed into one of out
  int group_shift;  // log2 of the lanes that sum a group
};

// Where kSums, the lanes of a group each take a pack of its columns at a time and are summed by
// shuffles; otherwise every column is a result.
template <typename scalar_t, int kPack, bool kSums, int kUnroll, int kBlocks>
__global__ void __launch_bounds__(kWalkThreads, kBlocks)
    edge_kernel(Walk walk, LaneShifts lanes, EndProducts<scalar_t, kPack> products,
                EdgeResults results) {
  // Where am I
  using compute_t = compute_of<scalar_t>;
  RowPart part;
  if (!take_part(walk, item_of_warp(), lanes.row, part)) return;
  const int edge_lane = lane_of_thread() & ((1 << lanes.edge) - 1);
  const int group_shift = kSums ? results.group_shift : 0;
  const int64_t inner = kSums ? (edge_lane & ((1 << group_shift) - 1)) * kPack : 0;
  const int64_t output =
      (tile_of_block() << (lanes.edge - group_shift)) + (edge_lane >> group_shift);
  const int64_t column = kSums ? output * results.group + inner : output * kPack;
  const bool active =
      kSums ? output < results.out_width && inner < results.group : column < results.out_width;
  products.stand_at(part, column);

  // Load, compute and store
  walk_edges<kUnroll>(part, products, lanes.edge, active, [&](const auto& value, int, bool valid) {
    compute_t product[kPack];
    products.unpack(value, product);
    if constexpr (kSums) {
      compute_t sum = 0;
#pragma unroll
      for (int i = 0; i < kPack; ++i) sum += valid ? product[i] : compute_t{0};
      const int64_t step = int64_t{kPack} << group_shift;
      for (int64_t more = inner + step; valid && more < results.group; more += step) {
        auto next = value;
        const int64_t at_column = column - inner + more;
        next.won = products.won_at(value.edge, at_column);
        if (next.won == 0) continue;
        products.load_at(value.edge, at_column, next);
        products.unpack(next, product);
#pragma unroll
        for (int i = 0; i < kPack; ++i) sum += product[i];
      }
      for (int apart = 1; apart < 1 << group_shift; apart *= 2) {
        sum += __shfl_xor_sync(kFullWarp, sum, apart);
      }
      if (valid && inner == 0) {
        store_scalar(results.out, results.dtype,
                     static_cast<int64_t>(value.edge.id) * results.out_width + output, sum);
      }
    } else if (valid) {
      const int64_t offset = static_cast<int64_t>(value.edge.id) * results.out_width + column;
      if (results.dtype == scalar_type_of<scalar_t>) {
        store<kPack>(static_cast<scalar_t*>(results.out) + offset, product);
      } else {
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          store_scalar(results.out, results.dtype, offset + i, product[i]);
        }
      }
    }
  });
}

}  // namespace gnnkern::cuda
