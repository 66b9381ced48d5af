// Every row by its distance from what its group has in common: the gradient of statistics.
#pragma once

#include "reduce.cuh"

namespace gnnkern::cuda {

// Edges that a warp walks where an index names their groups.
constexpr int kIndexedEdges = 64;

// Rows and what their groups have in common, as `walk_edges` takes them.
template <typename scalar_t, int kPack>
struct GroupedRows {
  using compute_t = compute_of<scalar_t>;
  const scalar_t* x;            // rows stride apart
  const compute_t* statistics;  // [num_groups, parts, width]: the shift, what it lacks, the slope
  const compute_t* scale;       // [num_groups, width]
  int64_t stride;
  int64_t width;
  bool is_exponential;  // two parts: a shift is all there
  Integers index;       // [E], or none: the group is the row that is walked
  number_t row;

  struct Edge {
    number_t position;
    number_t group;
  };
  struct Early {};
  struct Value {
    Pack<scalar_t, kPack> x;
    Pack<compute_t, kPack> shift;
    Pack<compute_t, kPack> rest;
    Pack<compute_t, kPack> scale;
    number_t position;
  };

  __device__ __forceinline__ void stand_at(int64_t column) {
    x += column;
    statistics += column;
    scale += column;
  }
  __device__ __forceinline__ Edge edge(number_t position) const {
    return {position, index ? static_cast<number_t>(index[position]) : 0};
  }
  __device__ __forceinline__ Edge shuffled(const Edge& own, int lane) const {
    return {__shfl_sync(kFullWarp, own.position, lane), __shfl_sync(kFullWarp, own.group, lane)};
  }
  __device__ __forceinline__ Early early(const Edge&) const { return {}; }
  __device__ __forceinline__ void load(const Edge& edge, Early, Value& value) const {
    const int64_t group = index ? edge.group : row;
    value.position = edge.position;
    value.x.load(x + static_cast<int64_t>(edge.position) * stride);
    const compute_t* const from = statistics + group * width * (is_exponential ? 2 : 3);
    value.shift.load(from);
    if (!is_exponential) value.rest.load(from + width);
    value.scale.load(scale + group * width);
  }
  __device__ __forceinline__ void unpack(const Value& value, compute_t (&result)[kPack]) const {
    compute_t shift[kPack], rest[kPack], scales[kPack];
    value.x.unpack(result);
    value.shift.unpack(shift);
    value.rest.unpack(rest);
    value.scale.unpack(scales);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const compute_t apart = result[i] - shift[i];
      result[i] = (is_exponential ? exp_of(apart) : apart - rest[i]) * scales[i];
    }
  }
};

template <typename scalar_t, int kPack>
__global__ void __launch_bounds__(kWalkThreads, 5)
    scale_by_group_kernel(Walk walk, LaneShifts lanes, GroupedRows<scalar_t, kPack> rows,
                          scalar_t* out) {
  // Where am I
  const int64_t item = item_of_warp();
  RowPart part{};
  if (rows.index) {
    const int64_t begin = item * kIndexedEdges;
    if (begin >= walk.num_edges) return;
    part.begin = static_cast<number_t>(begin);
    part.count = static_cast<int>(min(walk.num_edges - begin, int64_t{kIndexedEdges}));
    part.row_shift = 5;
  } else if (!take_part(walk, item, lanes.row, part)) {
    return;
  }
  const int edge_lane = lane_of_thread() & ((1 << lanes.edge) - 1);
  const int64_t column = ((tile_of_block() << lanes.edge) + edge_lane) * kPack;
  const bool active = column < rows.width;
  rows.row = part.row;
  if (active) rows.stand_at(column);

  // Load, compute and store
  walk_edges<2>(part, rows, lanes.edge, active, [&](const auto& value, int, bool valid) {
    compute_of<scalar_t> result[kPack];
    rows.unpack(value, result);
    if (valid)
      store<kPack>(out + static_cast<int64_t>(value.position) * rows.width + column, result);
  });
}

}  // namespace gnnkern::cuda
