// How a warp is shared out in attention: rows, edges of a row, heads of an edge, and columns of a
// head lie side by side, and a lane holds several columns of one head of one edge.
//
//     lane = ((row * edges + edge) * heads + head) * columns + column
//
// A head of up to 32 * kLaneColumns columns is whole: its dot products are sums over its lanes. A
// wider one is cut into tiles, each walked by warps of its own, which read the other tiles once
// more for the products.
#pragma once

#include "attention.h"
#include "row_part.cuh"

namespace gnnkern::cuda {

// Columns of a head in one lane: two pieces of 16 bytes, of the halves one. More of them take
// registers from edges under way; fewer take more steps to sum a product.
template <typename scalar_t>
constexpr int kLaneColumns = sizeof(scalar_t) == 8 ? 4 : 8;

// -- where a lane stands --------------------------------------------------------------------------

struct Place {
  int lanes;        // lanes of a head
  int edge_stride;  // lanes from one edge to the next
  int row_stride;   // lanes from one row to the next
  int column_lane;  // number of this lane in its head
  int edge_lane;    // number of its edge among those side by side
  int edges;        // how many these are
  int64_t head;
  bool has_head;
  int tile_number;  // of its head
  int64_t tile;     // first column of it

  __device__ __forceinline__ Place(const AttentionShape& shape, const RowPart& part) {
    const HeadLanes& shifts = shape.lanes;
    const int lane = lane_of_thread();
    lanes = 1 << shifts.head;
    edge_stride = 1 << shifts.edge;
    row_stride = 1 << part.row_shift;
    column_lane = lane & (lanes - 1);
    edge_lane = (lane & (row_stride - 1)) >> shifts.edge;
    edges = 1 << (part.row_shift - shifts.edge);
    const auto block = static_cast<unsigned>(tile_of_block());
    const unsigned tiles = static_cast<unsigned>(shifts.tiles);
    const int head_lane = (lane & (edge_stride - 1)) >> shifts.head;
    head = (static_cast<int64_t>(block / tiles) << (shifts.edge - shifts.head)) + head_lane;
    has_head = head < shape.heads;
    tile_number = static_cast<int>(block % tiles);
    tile = static_cast<int64_t>(tile_number) * shifts.tile_columns;
  }
};

// The sum over lanes that differ in the bits from `begin` up to `end`, both powers of two.
template <int count, typename value_t>
__device__ __forceinline__ void sum_lanes(value_t (&values)[count], int begin, int end) {
#pragma unroll 1
  for (int apart = begin; apart < end; apart *= 2) {
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] += __shfl_xor_sync(kFullWarp, values[i], apart);
  }
}

// -- columns of a head ----------------------------------------------------------------------------

// A lane's columns of one head, as they lie in memory.
template <typename scalar_t, int lanes>
struct Row {
  static constexpr int kColumns = kLaneColumns<scalar_t>;
  static constexpr int kPieces = kColumns / lanes;
  Pack<scalar_t, lanes> piece[kPieces];

  __device__ __forceinline__ void unpack(compute_of<scalar_t> (&values)[kColumns]) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      compute_of<scalar_t> part[lanes];
      piece[i].unpack(part);
#pragma unroll
      for (int k = 0; k < lanes; ++k) values[i * lanes + k] = part[k];
    }
  }
};

// Which columns of a head a lane has: pieces of `lanes` neighbouring ones, so far apart that the
// lanes of a head read neighbouring memory.
template <typename scalar_t, int lanes>
struct Columns {
  using compute_t = compute_of<scalar_t>;
  using row_t = Row<scalar_t, lanes>;
  static constexpr int kColumns = row_t::kColumns;
  static constexpr int kPieces = row_t::kPieces;
  int64_t first;
  int64_t end;  // columns of the head
  int step;

  __device__ __forceinline__ Columns(const Place& place, int64_t tile, int64_t head_width)
      : first(tile + place.column_lane * lanes), end(head_width), step(place.lanes * lanes) {}

  __device__ __forceinline__ int64_t column(int piece) const { return first + piece * step; }

  // Zeros where there is no column, or nothing `exists`.
  __device__ __forceinline__ row_t load(const scalar_t* head_row, bool exists) const {
    row_t row = {};
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      if (exists && column(i) < end) row.piece[i].load(head_row + column(i));
    }
    return row;
  }
  __device__ __forceinline__ void load_values(const scalar_t* head_row, bool exists,
                                              compute_t (&values)[kColumns]) const {
    load(head_row, exists).unpack(values);
  }
  template <typename out_t>
  __device__ __forceinline__ void store(out_t* head_row,
                                        const compute_t (&values)[kColumns]) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      if (column(i) >= end) continue;
      compute_t part[lanes];
#pragma unroll
      for (int k = 0; k < lanes; ++k) part[k] = values[i * lanes + k];
      cuda::store<lanes>(head_row + column(i), part);
    }
  }
};

// A lane with the part of a row that it walks, and the columns of a head that it does this for.
template <typename scalar_t, int lanes>
struct HeadWalk {
  using compute_t = compute_of<scalar_t>;
  using columns_t = Columns<scalar_t, lanes>;
  static constexpr int kColumns = columns_t::kColumns;
  RowPart part;
  Place place;
  columns_t columns;
  int64_t heads;
  int64_t width;       // of all heads
  int64_t head_begin;  // of the head in a row
  bool whole;          // the lanes of a head hold all of it

  __device__ __forceinline__ HeadWalk(const AttentionShape& shape, const RowPart& part)
      : part(part),
        place(shape, part),
        columns(place, place.tile, shape.head_width),
        heads(shape.heads),
        width(shape.heads * shape.head_width),
        head_begin(place.head * shape.head_width),
        whole(shape.lanes.tiles == 1) {}

  // The head in row 0 of a table; null where there is no table.
  __device__ __forceinline__ const scalar_t* rows(const void* table) const {
    return table ? static_cast<const scalar_t*>(table) + head_begin : nullptr;
  }
  __device__ __forceinline__ bool has_edge() const { return place.has_head && part.count > 0; }
  // Of the lanes that hold the same sums, one writes.
  __device__ __forceinline__ bool writes() const { return place.has_head && place.edge_lane == 0; }
  // What stands once for a head of an edge or a row.
  __device__ __forceinline__ bool is_first_of_head() const {
    return place.tile == 0 && place.column_lane == 0;
  }

  // The sum over a row goes to its row of the results, that over a chunk to its slot.
  __device__ __forceinline__ void store_sum(const Walk& walk, int64_t item, void* chunk_sums,
                                            void* results, const compute_t (&sum)[kColumns]) const {
    if (item < walk.num_chunks) {
      columns.store(static_cast<compute_t*>(chunk_sums) + item * width + head_begin, sum);
    } else if (part.owns_row) {
      columns.store(static_cast<scalar_t*>(results) + part.row * width + head_begin, sum);
    }
  }
};

template <int count, typename value_t>
__device__ __forceinline__ value_t dot(const value_t (&a)[count], const value_t (&b)[count]) {
  value_t sum = 0;
#pragma unroll
  for (int i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

template <int count, typename value_t>
__device__ __forceinline__ void add(value_t (&to)[count], const value_t (&from)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) to[i] += from[i];
}

template <int count, typename value_t>
__device__ __forceinline__ void add_scaled(value_t (&to)[count], value_t factor,
                                           const value_t (&from)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) to[i] += factor * from[i];
}

template <typename value_t>
__device__ __forceinline__ value_t leaky(value_t value, value_t slope) {
  return value > 0 ? value : value * slope;
}

// <att, leaky(summed)>
template <int count, typename value_t>
__device__ __forceinline__ value_t leaky_dot(const value_t (&summed)[count], value_t slope,
                                             const value_t (&att)[count]) {
  value_t sum = 0;
#pragma unroll
  for (int i = 0; i < count; ++i) sum += leaky(summed[i], slope) * att[i];
  return sum;
}

// -- products of wide heads -----------------------------------------------------------------------

// Sums over all columns of heads wider than a tile, for the edge of a lane:
// <left + edge, right>, and of GATv2 <att, leaky(left + right + edge)>. `edge` and `att` may be
// null.
template <int lanes, typename scalar_t>
__device__ __forceinline__ compute_of<scalar_t> wide_product(
    const Place& place, int64_t head_width, const scalar_t* left, const scalar_t* right,
    const scalar_t* edge, const scalar_t* att, compute_of<scalar_t> slope, bool exists) {
  constexpr int kColumns = kLaneColumns<scalar_t>;
  compute_of<scalar_t> sum[1] = {0};
#pragma unroll 1
  for (int64_t tile = 0; tile < head_width; tile += kWarp * kColumns) {
    const Columns<scalar_t, lanes> columns(place, tile, head_width);
    compute_of<scalar_t> a[kColumns], b[kColumns], other[kColumns];
    columns.load_values(left, exists, a);
    columns.load_values(right, exists, b);
    if (edge) {
      columns.load_values(edge, exists, other);
      add(a, other);
    }
    if (att) {
      columns.load_values(att, true, other);
      add(a, b);
      sum[0] += leaky_dot(a, slope, other);
    } else {
      sum[0] += dot(a, b);
    }
  }
  sum_lanes(sum, 1, place.lanes);
  return sum[0];
}

}  // namespace gnnkern::cuda
