// An edge list sorted by row, stably: the rest of it around CUB's radix sort of (row, position).
//
// CUB is behind sort.cuh, where the host executor has a sort of its own.
#pragma once

#include <climits>

#include "plan.cuh"

namespace gnnkern::cuda {

// What is sorted: the row of every edge and its position. An edge that is not valid sorts behind
// all rows; status[0] becomes the first of these, status[1] becomes 1 where rows descend.
__global__ void __launch_bounds__(kPlanThreads, 4)
    edge_keys_kernel(number_t* __restrict__ keys,       // [E]
                     number_t* __restrict__ positions,  // [E]
                     long long* status,                 // [2]
                     Integers rows, int64_t row_stride, Integers cols, int64_t col_stride,
                     int64_t num_edges, int64_t num_rows, int64_t num_cols) {
  const int64_t e = static_cast<int64_t>(blockIdx.x) * kPlanThreads + threadIdx.x;
  if (e >= num_edges) return;
  const int64_t row = rows[e * row_stride];
  const bool is_valid =
      in_range(row, num_rows) && (!cols || in_range(cols[e * col_stride], num_cols));
  keys[e] = static_cast<number_t>(is_valid ? row : num_rows);
  positions[e] = static_cast<number_t>(e);
  if (!is_valid) atomicMin(status, static_cast<long long>(e));
  // Read first: most of many descents find what they would write.
  const bool descends = e > 0 && rows[(e - 1) * row_stride] > row;
  if (descends && *static_cast<volatile long long*>(status + 1) == 0) atomicMax(status + 1, 1LL);
}

// The first position in sorted keys [E] that is not below `row`.
__device__ __forceinline__ int64_t first_at_least(const number_t* keys, int64_t num_edges,
                                                  int64_t row) {
  int64_t low = 0, high = num_edges;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (keys[middle] < row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Where every row begins: found by halving, so that empty rows cost no more than others.
template <typename index_t>
__global__ void __launch_bounds__(kPlanThreads, 4)
    row_begins_kernel(index_t* __restrict__ indptr,       // [num_rows + 1]
                      const number_t* __restrict__ keys,  // [E] sorted
                      int64_t num_rows, int64_t num_edges) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kPlanThreads + threadIdx.x;
  if (row <= num_rows) indptr[row] = static_cast<index_t>(first_at_least(keys, num_edges, row));
}

// The other ends of the sorted edges, and their numbers. Of a matrix that is reversed, the other
// end is the row, which `begins` tells, and `numbers` has the number of an edge.
template <typename index_t>
__global__ void __launch_bounds__(kPlanThreads, 4)
    sorted_edges_kernel(index_t* __restrict__ indices,       // [E], or null
                        index_t* __restrict__ edge_id,       // [E]
                        const number_t* __restrict__ order,  // [E]
                        Integers cols, int64_t col_stride, Integers begins, int64_t num_begins,
                        Integers numbers, int64_t num_edges) {
  const int64_t position = static_cast<int64_t>(blockIdx.x) * kPlanThreads + threadIdx.x;
  if (position >= num_edges) return;
  const int64_t from = order[position];
  edge_id[position] = static_cast<index_t>(numbers ? numbers[from] : from);
  if (indices == nullptr) return;
  indices[position] =
      static_cast<index_t>(begins ? row_at(begins, num_begins, from) : cols[from * col_stride]);
}

}  // namespace gnnkern::cuda
