// Long rows: the states of their chunks become one, in an order that depends on their number alone.
#pragma once

#include "attention.h"
#include "fold.cuh"
#include "softmax_state.cuh"

namespace gnnkern::cuda {

// A softmax, and the values that it weighted.
template <typename compute_t>
struct WeightedState {
  SoftmaxState<compute_t> softmax;
  compute_t sum;

  __device__ __forceinline__ void merge(const WeightedState& other) {
    sum *= raise_largest(softmax, other.softmax.first);
    const compute_t share = shrink(other.softmax.first, softmax.first);
    softmax.second += other.softmax.second * share;
    sum += other.sum * share;
  }
};

// blockIdx.x is the slot of a row's first chunk. Lanes for its chunks stand beside lanes for
// 2^column_shift columns.
template <typename scalar_t>
__global__ void __launch_bounds__(kFoldThreads, 4)
    fold_attention_kernel(const AttentionArgs args, int column_shift) {
  using compute_t = compute_of<scalar_t>;
  struct Shared {
    WeightedState<compute_t> state[kFoldThreads];
  };
  auto& shared = block_shared<Shared>();

  // Where am I
  const AttentionShape& shape = args.shape;
  const int64_t heads = shape.heads, width = heads * shape.head_width;
  const int64_t slot = blockIdx.x;
  const LongRow row = long_row_at(shape.walk, slot);
  if (row.parts == 0) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int part_lanes = kFoldThreads >> column_shift;
  const int part_lane = thread >> column_shift;
  const int64_t column = (tile_of_block() << column_shift) + (thread & ((1 << column_shift) - 1));
  const bool active = column < width;
  const int64_t head = column / shape.head_width;
  const int64_t distance = integers_of(shape.walk.plan, shape.walk.index_type)[1];

  // Load and fold
  WeightedState<compute_t> state{LogSumExpReducer<compute_t>().start(), 0};
  if (active) {
#pragma unroll 4
    for (int part = part_lane; part < row.parts; part += part_lanes) {
      const int64_t from = slot_of_part(slot, distance, part);
      state.merge({{static_cast<const compute_t*>(args.largest)[from * heads + head],
                    static_cast<const compute_t*>(args.total)[from * heads + head]},
                   static_cast<const compute_t*>(args.acc)[from * width + column]});
    }
  }
  for (int half = part_lanes / 2; half > 0; half /= 2) {
    shared.state[thread] = state;
    __syncthreads();
    if (part_lane < half) state.merge(shared.state[thread + (half << column_shift)]);
    __syncthreads();
  }

  // Store
  if (!active || part_lane != 0) return;
  const compute_t value = state.sum * softmax_scale(state.softmax);
  const int64_t at = row.row * width + column;
  static_cast<scalar_t*>(args.out)[at] = from_compute<scalar_t>(value);
  if (args.wide_out) static_cast<compute_t*>(args.wide_out)[at] = value;
  if (column % shape.head_width == 0) {
    static_cast<compute_t*>(args.log_sum_exp)[row.row * heads + head] =
        softmax_log_sum(state.softmax);
  }
}

}  // namespace gnnkern::cuda
