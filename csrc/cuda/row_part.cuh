// What a warp walks: rows side by side, or one chunk of a long row.
//
// A warp is shared out by powers of two: `edge` lanes hold the columns of one edge, `row` lanes
// walk a row, row / edge edges at a time, and a warp walks 32 / row rows. A chunk takes the whole
// warp.
#pragma once

#include "lanes.h"
#include "vectors.cuh"

namespace gnnkern::cuda {

// Integers of a width known at run time: a branch that all threads take alike.
struct Integers {
  const void* data;  // null: there are none
  bool is_wide;      // int64, otherwise int32

  __device__ __forceinline__ explicit operator bool() const { return data != nullptr; }
  __device__ __forceinline__ int64_t operator[](int64_t i) const {
    return is_wide ? __ldg(static_cast<const long long*>(data) + i)
                   : __ldg(static_cast<const int*>(data) + i);
  }
};

__device__ __forceinline__ Integers integers_of(const void* data, IndexType type) {
  return {data, type == IndexType::kInt64};
}

// Whether a number lies in [0, count).
__device__ __forceinline__ bool in_range(int64_t number, int64_t count) {
  return number >= 0 && number < count;
}

// One element as it is computed with.
template <typename scalar_t>
__device__ __forceinline__ compute_of<scalar_t> load_one(const scalar_t* from) {
  compute_of<scalar_t> value[1];
  load<1>(from, value);
  return value[0];
}

// A pack of copies of one element.
template <int lanes, typename scalar_t>
__device__ __forceinline__ Pack<scalar_t, lanes> filled_pack(const scalar_t* from) {
  Pack<scalar_t, 1> one;
  one.load(from);
  scalar_t elements[lanes];
#pragma unroll
  for (int i = 0; i < lanes; ++i) memcpy(&elements[i], one.words, sizeof(scalar_t));
  Pack<scalar_t, lanes> pack;
  memcpy(pack.words, elements, sizeof(elements));
  return pack;
}

// Numbers of rows and edges, of which launchers take less than 2^32: they are held in half of the
// registers, and passed between lanes at half of the cost. Addresses are made in 64 bits.
using number_t = uint32_t;

struct RowPart {
  // Of the lane's row. An edge whose row is long, or that lies outside of the arrays because an
  // indptr is not valid, is in no part.
  number_t row;
  number_t begin;
  int offset;  // of the part in its row
  int count;
  bool owns_row;  // no chunk of it
  // log2 of the lanes that walk it; 5 where the warp walks a chunk.
  int row_shift;
};

__device__ __forceinline__ int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarp; }

// The item of this warp; beyond the last one, it has nothing to do.
__device__ __forceinline__ int64_t item_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * kWalkWarps + threadIdx.x / kWarp;
}

// The tile of columns of this block, the slowest dimension of the grid: a tile of x stays in the L2
// cache.
__device__ __forceinline__ int64_t tile_of_block() {
  return blockIdx.y + static_cast<int64_t>(gridDim.y) * blockIdx.z;
}

// The largest value of a warp.
__device__ __forceinline__ int warp_max(int value) {
#pragma unroll
  for (int apart = kWarp / 2; apart > 0; apart /= 2) {
    value = max(value, __shfl_xor_sync(kFullWarp, value, apart));
  }
  return value;
}

// Where the record of a plan's slot begins, in integers.
__device__ __forceinline__ int64_t record_of(int64_t slot) { return 4 * (1 + slot); }

// The part of an item: chunks come first, then rows in groups. False: a whole warp has none.
__device__ __forceinline__ bool take_part(const Walk& walk, int64_t item, int row_shift,
                                          RowPart& part) {
  const Integers indptr = integers_of(walk.indptr, walk.index_type);
  const Integers plan = integers_of(walk.plan, walk.index_type);
  int64_t row, row_begin, begin, end;
  part.row_shift = row_shift;
  if (item < walk.num_chunks) {
    const int64_t record = record_of(item);
    row = plan[record];
    if (row < 0) return false;
    row_begin = indptr[row];
    begin = plan[record + 1];
    end = plan[record + 2];
    part.owns_row = false;
    part.row_shift = 5;
  } else {
    row = (item - walk.num_chunks) << (5 - row_shift);
    if (row >= walk.num_rows) return false;
    row += lane_of_thread() >> row_shift;
    part.owns_row = row < walk.num_rows;
    begin = part.owns_row ? indptr[row] : 0;
    end = part.owns_row ? indptr[row + 1] : 0;
    row_begin = begin;
    if (plan && end - begin > plan[0]) {
      part.owns_row = false;
      end = begin;
    }
  }
  begin = max(begin, int64_t{0});
  end = min(end, walk.num_edges);
  part.row = static_cast<number_t>(row);
  part.begin = static_cast<number_t>(begin);
  part.offset = static_cast<int>(begin - row_begin);
  part.count = static_cast<int>(max(end - begin, int64_t{0}));
  return true;
}

// -- edges of a part ------------------------------------------------------------------------------

// Calls visit(value, offset) for what `source` loads of this lane's edges, in the order of their
// offsets from the part's begin; lanes that are not `active` only help others.
//
//   source.edge(position)          what a lane reads of an edge, once for the lanes that walk it
//   source.shuffled(edge, lane)    the same as another lane has it; the whole warp calls it
//   source.early(edge)             a first load that decides on the second
//   source.load(edge, early)       the value
//
// kUnroll values are under way at a time, unless an edge has fewer lanes than that: then the lanes
// of a warp have edges enough.
template <int kUnroll, class Source, class Edge, class Visit>
__device__ __forceinline__ void walk_steps(const RowPart& part, const Source& source,
                                           const Edge& own, int base, int step, int edge_shift,
                                           bool active, Visit& visit) {
  const int lane = lane_of_thread();
  const int row_lanes = 1 << part.row_shift;
  const int slot = (lane & (row_lanes - 1)) >> edge_shift;
  const int first_lane = lane & ~(row_lanes - 1);
  const int left = active ? part.count - base - slot : 0;
  const int slots_shift = part.row_shift - edge_shift;
  typename Source::Early early[kUnroll];
  typename Source::Value value[kUnroll];
  Edge edge[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int which = (step + u) << slots_shift;
    edge[u] = source.shuffled(own, first_lane + slot + which);
    early[u] = {};
    if (which < left) early[u] = source.early(edge[u]);
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int which = (step + u) << slots_shift;
    value[u] = {};
    if (which < left) source.load(edge[u], early[u], value[u]);
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int which = (step + u) << slots_shift;
    visit(value[u], base + slot + which, which < left);
  }
}

template <int kUnroll, class Source, class Visit>
__device__ __forceinline__ void walk_edges(const RowPart& part, const Source& source,
                                           int edge_shift, bool active, Visit visit) {
  const int lane = lane_of_thread();
  const int row_lanes = 1 << part.row_shift;
  const int edge_lanes = 1 << edge_shift;
  const int slots_shift = part.row_shift - edge_shift;
  const int longest = warp_max(part.count);
  for (int base = 0; base < longest; base += row_lanes) {
    typename Source::Edge own{};
    const int offset = base + (lane & (row_lanes - 1));
    if (offset < part.count) own = source.edge(part.begin + offset);
    const int left = (longest - base + (1 << slots_shift) - 1) >> slots_shift;
    const int steps = min(left, edge_lanes);
    if (edge_lanes >= kUnroll) {
      for (int step = 0; step < steps; step += kUnroll) {
        walk_steps<kUnroll>(part, source, own, base, step, edge_shift, active, visit);
      }
    } else {
      for (int step = 0; step < steps; ++step) {
        walk_steps<1>(part, source, own, base, step, edge_shift, active, visit);
      }
    }
  }
}

}  // namespace gnnkern::cuda
