// What an edge needs of its destination in a gradient, side by side: see attention_backward.cuh.
#pragma once

#include "attention_lanes.cuh"

namespace gnnkern::cuda {

// The lanes of one head sum <out, grad> of a row, and put what an edge needs of it side by side.
template <typename scalar_t, int lanes>
__global__ void __launch_bounds__(kWalkThreads, 8)
    attention_statistics_kernel(const AttentionStatisticsArgs args, int head_shift) {
  // Where am I
  using compute_t = compute_of<scalar_t>;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kWalkThreads + threadIdx.x;
  const int64_t row = thread >> head_shift;
  const bool in_rows = row < args.num_rows;
  const int head_lanes = 1 << head_shift, column_lane = threadIdx.x & (head_lanes - 1);

  // Load and sum
  compute_t sum[1] = {0};
  if (in_rows) {
    const auto* const out = static_cast<const compute_t*>(args.out) + row * args.head_width;
    const auto* const grad = static_cast<const scalar_t*>(args.grad) + row * args.head_width;
    for (int64_t column = column_lane * lanes; column < args.head_width;
         column += head_lanes * lanes) {
      compute_t a[lanes], b[lanes];
      load<lanes>(out + column, a);
      load<lanes>(grad + column, b);
      sum[0] += dot(a, b);
    }
  }
  __syncwarp();
  sum_lanes(sum, 1, head_lanes);

  // Store
  if (!in_rows || column_lane > 0) return;
  const int words = args.score ? 3 : 2;
  compute_t* const to = static_cast<compute_t*>(args.statistics) + row * words;
  to[0] = static_cast<const compute_t*>(args.log_sum_exp)[row];
  to[1] = sum[0];
  if (args.score) to[2] = load_one(static_cast<const scalar_t*>(args.score) + row);
}

}  // namespace gnnkern::cuda
