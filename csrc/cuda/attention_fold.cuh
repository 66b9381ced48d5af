// Long rows: the states of their chunks become one, in the order of the chunks.
#pragma once

#include "attention.h"
#include "fold.cuh"
#include "softmax_state.cuh"

namespace gnnkern::cuda {

// A thread folds one column of one long row, in the order of its chunks; blockIdx.x is the slot of
// the first.
template <typename scalar_t>
__global__ void __launch_bounds__(kWalkThreads, 8) fold_attention_kernel(const AttentionArgs args) {
  // Where am I
  using compute_t = compute_of<scalar_t>;
  const AttentionShape& shape = args.shape;
  const int64_t heads = shape.heads, width = heads * shape.head_width;
  const int64_t column = tile_of_block() * kWalkThreads + threadIdx.x;
  const LongRow row = long_row_at(shape.walk, blockIdx.x);
  if (row.parts == 0 || column >= width) return;
  const int64_t head = column / shape.head_width;
  const int64_t distance = integers_of(shape.walk.plan, shape.walk.index_type)[1];

  // Load and fold
  SoftmaxState<compute_t> state = LogSumExpReducer<compute_t>().start();
  compute_t acc = 0;
#pragma unroll 4
  for (int part = 0; part < row.parts; ++part) {
    const int64_t slot = slot_of_part(blockIdx.x, distance, part);
    const compute_t largest = static_cast<const compute_t*>(args.largest)[slot * heads + head];
    const compute_t total = static_cast<const compute_t*>(args.total)[slot * heads + head];
    const compute_t sum = static_cast<const compute_t*>(args.acc)[slot * width + column];
    acc *= raise_largest(state, largest);
    const compute_t share = shrink(largest, state.first);
    state.second += total * share;
    acc += sum * share;
  }

  // Store
  acc *= softmax_scale(state);
  const int64_t at = row.row * width + column;
  static_cast<scalar_t*>(args.out)[at] = from_compute<scalar_t>(acc);
  if (args.wide_out) static_cast<compute_t*>(args.wide_out)[at] = acc;
  if (column % shape.head_width == 0) {
    static_cast<compute_t*>(args.log_sum_exp)[row.row * heads + head] = softmax_log_sum(state);
  }
}

}  // namespace gnnkern::cuda
