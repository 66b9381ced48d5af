// Rows taken out of a table, and rows added to one: how halos are packed and unpacked.
#pragma once

#include "vectors.cuh"

namespace gnnkern::cuda {

constexpr int kHaloThreads = 256;
// Rows that a thread has under way at a time.
constexpr int kHaloRows = 4;

// out[i] = x[index[i]], rows of `row_units` units of unit_t. threadIdx.x walks the units of a row,
// threadIdx.y the rows of the block.
template <typename unit_t, typename index_t>
__global__ void __launch_bounds__(kHaloThreads, 4)
    gather_rows_kernel(unit_t* __restrict__ out,           // [num_rows, row_units]
                       const unit_t* __restrict__ x,       // rows of x_row_units, row_units used
                       const index_t* __restrict__ index,  // [num_rows]
                       int64_t num_rows, int64_t row_units, int64_t x_row_units) {
  // Where am I
  const int64_t block_begin = static_cast<int64_t>(blockIdx.x) * blockDim.y * kHaloRows;

  // Load
  int64_t from[kHaloRows];
#pragma unroll
  for (int i = 0; i < kHaloRows; ++i) {
    const int64_t row = block_begin + i * blockDim.y + threadIdx.y;
    from[i] = row < num_rows ? static_cast<int64_t>(index[row]) * x_row_units : -1;
  }
  for (int64_t unit = threadIdx.x; unit < row_units; unit += blockDim.x) {
    unit_t value[kHaloRows];
#pragma unroll
    for (int i = 0; i < kHaloRows; ++i) {
      if (from[i] >= 0) value[i] = __ldg(x + from[i] + unit);
    }

    // Store
#pragma unroll
    for (int i = 0; i < kHaloRows; ++i) {
      const int64_t row = block_begin + i * blockDim.y + threadIdx.y;
      if (from[i] >= 0) out[row * row_units + unit] = value[i];
    }
  }
}

// out[target[r]] += the sum, in order, of x[position] over the positions begin[r] .. begin[r + 1]
// of `order`; without `begin`, of x[r] alone. Targets are distinct, so that nobody else adds to a
// row, and a sum is rounded once.
template <typename scalar_t, int lanes, typename index_t>
__global__ void __launch_bounds__(kHaloThreads, 4)
    scatter_add_rows_kernel(scalar_t* __restrict__ out,          // rows of out_stride
                            const scalar_t* __restrict__ x,      // [m, width]
                            const index_t* __restrict__ target,  // [num_rows]
                            const index_t* __restrict__ begin,   // [num_rows + 1], or null
                            const index_t* __restrict__ order,   // [m], or null
                            int64_t num_rows, int64_t width, int64_t out_stride) {
  // Where am I
  using compute_t = compute_of<scalar_t>;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= num_rows) return;
  const int64_t first = begin ? static_cast<int64_t>(begin[row]) : row;
  const int64_t last = begin ? static_cast<int64_t>(begin[row + 1]) : row + 1;
  if (first == last) return;
  scalar_t* const out_row = out + static_cast<int64_t>(target[row]) * out_stride;

  for (int64_t column = static_cast<int64_t>(threadIdx.x) * lanes; column < width;
       column += static_cast<int64_t>(blockDim.x) * lanes) {
    // Load
    Pack<scalar_t, lanes> pack;
    pack.load_mutable(out_row + column);
    compute_t sum[lanes];
    pack.unpack(sum);

    // Compute
    for (int64_t position = first; position < last; ++position) {
      const int64_t from = begin ? static_cast<int64_t>(order[position]) : position;
      compute_t value[lanes];
      load<lanes>(x + from * width + column, value);
#pragma unroll
      for (int i = 0; i < lanes; ++i) sum[i] += value[i];
    }

    // Store
    store<lanes>(out_row + column, sum);
  }
}

}  // namespace gnnkern::cuda
