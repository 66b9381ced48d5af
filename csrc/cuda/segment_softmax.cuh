// Softmax over the edges of every row, per column, and its gradient.
#pragma once

#include "reduce.cuh"

namespace gnnkern::cuda {

// Elements of edge tensors, as `walk_edges` takes them.
template <typename scalar_t>
struct EdgeElements {
  const scalar_t* x;     // [E, width]
  const scalar_t* grad;  // [E, width], or null
  int64_t width;
  Integers edge_id;

  struct Edge {
    number_t id;
  };
  struct Early {};
  struct Value {
    Pack<scalar_t, 1> x;
    Pack<scalar_t, 1> grad;
    number_t id;
  };

  __device__ __forceinline__ void stand_at(int64_t column) {
    x += column;
    if (grad != nullptr) grad += column;
  }
  __device__ __forceinline__ Edge edge(number_t position) const {
    return {edge_id ? static_cast<number_t>(edge_id[position]) : position};
  }
  __device__ __forceinline__ Edge shuffled(const Edge& own, int lane) const {
    return {__shfl_sync(kFullWarp, own.id, lane)};
  }
  __device__ __forceinline__ Early early(const Edge&) const { return {}; }
  __device__ __forceinline__ void load(const Edge& edge, Early, Value& value) const {
    value.id = edge.id;
    value.x.load(x + static_cast<int64_t>(edge.id) * width);
    if (grad != nullptr) value.grad.load(grad + static_cast<int64_t>(edge.id) * width);
  }
};

// The edges of a row are walked twice, the second time out of the L1 cache. `reducer` is that of
// logsumexp, or, with a gradient, of the sum of x * grad, where x is the softmax. A part of a long
// row saves its state, and is launched again when the states are folded.
template <typename scalar_t, class Reducer>
__global__ void __launch_bounds__(kWalkThreads, sizeof(compute_of<scalar_t>) == 8 ? 6 : 8)
    softmax_kernel(Walk walk, LaneShifts lanes, EdgeElements<scalar_t> elements, scalar_t* out,
                   ChunkStates states, bool finishes_chunks) {
  // Where am I
  using compute_t = compute_of<scalar_t>;
  constexpr bool kIsGradient = !Reducer::kHasSecond;
  constexpr int kUnroll = 4;
  const Reducer reducer{};
  const int64_t item = item_of_warp();
  if (finishes_chunks && item >= walk.num_chunks) return;
  RowPart part;
  if (!take_part(walk, item, lanes.row, part)) return;
  const int edge_lane = lane_of_thread() & ((1 << lanes.edge) - 1);
  const int64_t column = (tile_of_block() << lanes.edge) + edge_lane;
  const bool active = column < elements.width;
  elements.stand_at(active ? column : 0);

  // What the edges of the row share
  typename Reducer::State state[1] = {reducer.start()};
  if (finishes_chunks) {
    const int64_t slot = integers_of(walk.plan, walk.index_type)[record_of(item) + 3];
    if (active) state[0] = load_state<Reducer>(states, slot * elements.width + column);
  } else {
    walk_edges<kUnroll>(part, elements, lanes.edge, active,
                        [&](const auto& value, int, bool valid) {
                          compute_t message[1];
                          value.x.unpack(message);
                          if constexpr (kIsGradient) {
                            compute_t grad[1];
                            value.grad.unpack(grad);
                            message[0] *= grad[0];
                          }
                          reducer.step(state[0], message[0], 0, valid);
                        });
    merge_lanes(reducer, lanes.edge, part.row_shift, state);
    if (item < walk.num_chunks) {
      const int row_lane = lane_of_thread() & ((1 << part.row_shift) - 1);
      if (active && row_lane >> lanes.edge == 0) {
        save_state<Reducer>(states, item * elements.width + column, state[0]);
      }
      return;
    }
  }

  // Compute and store
  compute_t shift = state[0].first, scale = 1;
  if constexpr (!kIsGradient) {
    // Scores of -inf alone give 0; +inf makes the whole row NaN, as inf - inf does.
    const compute_t largest = infinity<compute_t>();
    scale = shift == largest ? largest - largest : 1 / state[0].second;
    shift = shift == -largest ? compute_t{0} : shift;
  }
  walk_edges<kUnroll>(part, elements, lanes.edge, active, [&](const auto& value, int, bool valid) {
    compute_t result[1];
    value.x.unpack(result);
    if constexpr (kIsGradient) {
      compute_t grad[1];
      value.grad.unpack(grad);
      result[0] *= grad[0] - shift;
    } else {
      result[0] = exp_of(result[0] - shift) * scale;
    }
    if (!valid) return;
    store<1>(out + static_cast<int64_t>(value.id) * elements.width + column, result);
  });
}

}  // namespace gnnkern::cuda
