// Every row reduces the messages of its edges: one loop over how messages are made, how they are
// reduced, scalar types and widths of a pack.
#pragma once

#include "messages.cuh"
#include "reduce.cuh"

namespace gnnkern::cuda {

// kUnroll messages are under way from each lane, kBlocks blocks of a processor hold their
// registers.
template <typename scalar_t, int kPack, int kUnroll, int kBlocks, class Reducer, class Source>
__global__ void __launch_bounds__(kWalkThreads, kBlocks)
    row_reduce_kernel(Walk walk, LaneShifts lanes, Source source, Reducer reducer,
                      RowResults results, ChunkStates states) {
  // Where am I
  const int64_t item = item_of_warp();
  RowPart part;
  if (!take_part(walk, item, lanes.row, part)) return;
  const int edge_lane = lane_of_thread() & ((1 << lanes.edge) - 1);
  const int64_t column = tile_of_block() * (int64_t{kPack} << lanes.edge) + edge_lane * kPack;
  const bool active = column < results.width;
  if (active) source.stand_at(column);

  // Load and reduce
  typename Reducer::State state[kPack];
#pragma unroll
  for (int i = 0; i < kPack; ++i) state[i] = reducer.start();
  walk_edges<kUnroll>(part, source, lanes.edge, active,
                      [&](const typename Source::Value& value, int offset, bool valid) {
                        typename Reducer::compute message[kPack];
                        source.unpack(value, message);
#pragma unroll
                        for (int i = 0; i < kPack; ++i) {
                          reducer.step(state[i], message[i], part.offset + offset, valid);
                        }
                      });
  merge_lanes(reducer, lanes.edge, part.row_shift, state);

  // Store, by the first of the lanes that hold the same
  const int row_lane = lane_of_thread() & ((1 << part.row_shift) - 1);
  if (!active || row_lane >> lanes.edge != 0) return;
  if (item < walk.num_chunks) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      save_state<Reducer>(states, item * results.width + column + i, state[i]);
    }
  } else if (part.owns_row) {
    typename Reducer::compute value[kPack];
#pragma unroll
    for (int i = 0; i < kPack; ++i) value[i] = reducer.value(state[i], part.count);
    const int64_t offset = static_cast<int64_t>(part.row) * results.width + column;
    store<kPack>(static_cast<scalar_t*>(results.out) + offset, value);
#pragma unroll
    for (int i = 0; i < kPack; ++i) store_beside<Reducer>(results, part.row, column + i, state[i]);
  }
}

}  // namespace gnnkern::cuda
