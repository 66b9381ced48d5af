// Long rows: the states of their chunks become one, in an order that depends on their number alone.
#pragma once

#include "reduce.cuh"
#include "shared.cuh"

namespace gnnkern::cuda {

constexpr int kFoldThreads = 256;
// Slots that a block looks at: few of them are the first of a row.
constexpr int kFoldSlots = 8;

struct LongRow {
  int64_t row;
  int64_t count;
  int parts;  // 0: no row begins in the slot
};

__device__ __forceinline__ LongRow long_row_at(const Walk& walk, int64_t slot) {
  const Integers indptr = integers_of(walk.indptr, walk.index_type);
  const Integers plan = integers_of(walk.plan, walk.index_type);
  LongRow found{plan[record_of(slot)], 0, 0};
  if (found.row < 0 || plan[record_of(slot) + 3] != slot) return found;
  found.count = indptr[found.row + 1] - indptr[found.row];
  found.parts = static_cast<int>((found.count + plan[0] - 1) / plan[0]);
  return found;
}

// The slot of a row's part, given that of its first; `distance` is plan[0, 1].
__device__ __forceinline__ int64_t slot_of_part(int64_t first, int64_t distance, int part) {
  return part == 0 ? first : first + distance * (part - 1) + 1;
}

// Lanes for the parts of a row stand beside lanes for 2^column_shift columns; `scalar_type` is that
// of the results. Without results a state goes to the slot of the row's first chunk.
template <class Reducer>
__global__ void __launch_bounds__(kFoldThreads, 4)
    fold_kernel(Walk walk, int column_shift, ScalarType scalar_type, Reducer reducer,
                RowResults results, ChunkStates states) {
  using State = typename Reducer::State;
  struct Shared {
    State state[kFoldThreads];
  };
  auto& shared = block_shared<Shared>();

  // Where am I
  const int thread = static_cast<int>(threadIdx.x);
  const int part_lanes = kFoldThreads >> column_shift;
  const int part_lane = thread >> column_shift;
  const int64_t column = (tile_of_block() << column_shift) + (thread & ((1 << column_shift) - 1));
  const bool active = column < results.width;
  const int64_t distance = integers_of(walk.plan, walk.index_type)[1];

  for (int i = 0; i < kFoldSlots; ++i) {
    const int64_t slot = static_cast<int64_t>(blockIdx.x) * kFoldSlots + i;
    if (slot >= walk.num_chunks) return;
    const LongRow found = long_row_at(walk, slot);
    if (found.parts == 0) continue;

    // Load and fold
    State state = reducer.start();
    if (active) {
#pragma unroll 4
      for (int part = part_lane; part < found.parts; part += part_lanes) {
        const int64_t from = slot_of_part(slot, distance, part);
        reducer.merge(state, load_state<Reducer>(states, from * results.width + column));
      }
    }
    for (int half = part_lanes / 2; half > 0; half /= 2) {
      shared.state[thread] = state;
      __syncthreads();
      if (part_lane < half) reducer.merge(state, shared.state[thread + (half << column_shift)]);
      __syncthreads();
    }

    // Store
    if (!active || part_lane != 0) continue;
    if (results.out == nullptr) {
      save_state<Reducer>(states, slot * results.width + column, state);
      continue;
    }
    store_scalar(results.out, scalar_type, found.row * results.width + column,
                 reducer.value(state, found.count));
    store_beside<Reducer>(results, found.row, column, state);
  }
}

// -- launcher -------------------------------------------------------------------------------------

// Folds the chunks of every long row into its row of the results, or into its first chunk.
struct FoldArgs {
  Walk walk;
  ScalarType dtype;
  Reduce reduce;
  RowResults results;
  ChunkStates states;
};
void fold_rows(const FoldArgs& args, void* stream);

}  // namespace gnnkern::cuda
