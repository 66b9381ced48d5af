// The plan of a matrix: which chunks its long rows are cut into, as gnnkern/_triton/plan.py says.
#pragma once

#include "row_part.cuh"

namespace gnnkern::cuda {

constexpr int kPlanThreads = 256;

// The row that the edge at a position belongs to: the last one that begins at or before it.
__device__ __forceinline__ int64_t row_at(const Integers& indptr, int64_t num_rows,
                                          int64_t position) {
  int64_t low = 0, high = num_rows;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (indptr[middle] <= position) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

template <typename index_t>
__device__ __forceinline__ void store_record(index_t* plan, int64_t slot, bool is_chunk,
                                             int64_t row, int64_t begin, int64_t end,
                                             int64_t first) {
  index_t* const record = plan + record_of(slot);
  record[0] = static_cast<index_t>(is_chunk ? row : -1);
  record[1] = static_cast<index_t>(is_chunk ? begin : 0);
  record[2] = static_cast<index_t>(is_chunk ? end : 0);
  record[3] = static_cast<index_t>(is_chunk ? first : 0);
}

// Two slots for each block of `chunk_edges` edge positions, a thread each: one for the chunk of a
// long row that began before the block, one for the first chunk of a row that begins in it.
template <typename index_t>
__global__ void __launch_bounds__(kPlanThreads, 4)
    plan_kernel(index_t* __restrict__ plan,          // [1 + 2 * blocks, 4]
                const index_t* __restrict__ indptr,  // [num_rows + 1]
                int64_t num_rows, int64_t num_edges, int64_t chunk_edges) {
  // Where am I
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kPlanThreads + threadIdx.x;
  const int64_t block_begin = block * chunk_edges;
  if (block == 0) {
    plan[0] = static_cast<index_t>(chunk_edges);
    plan[1] = 2;
    plan[2] = 0;
    plan[3] = 0;
  }
  if (block_begin >= num_edges) return;
  const Integers begins{indptr, sizeof(index_t) == 8};
  const int64_t last = min(block_begin + chunk_edges, num_edges) - 1;

  int64_t row = row_at(begins, num_rows, block_begin);
  int64_t row_begin = begins[row], row_end = begins[row + 1];
  const int64_t part = (block_begin - row_begin + chunk_edges - 1) / chunk_edges;
  const int64_t begin = row_begin + part * chunk_edges;
  store_record(plan, 2 * block,
               row_begin < block_begin && row_end - row_begin > chunk_edges && begin < row_end, row,
               begin, min(begin + chunk_edges, row_end), 2 * (row_begin / chunk_edges) + 1);

  // A long row that begins in the block goes on beyond its end.
  row = row_at(begins, num_rows, last);
  row_begin = begins[row];
  row_end = begins[row + 1];
  store_record(plan, 2 * block + 1, row_begin >= block_begin && row_end - row_begin > chunk_edges,
               row, row_begin, row_begin + chunk_edges, 2 * block + 1);
}

// The inverse of a permutation of so many numbers.
template <typename index_t>
__global__ void __launch_bounds__(kPlanThreads, 4)
    inverse_kernel(index_t* __restrict__ out, const index_t* __restrict__ permutation,
                   int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPlanThreads + threadIdx.x;
  if (i < count) out[permutation[i]] = static_cast<index_t>(i);
}

}  // namespace gnnkern::cuda
