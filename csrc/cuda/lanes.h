// How the threads of a grid that walks rows are shared out.
#pragma once

#include "launch.cuh"
#include "walk.h"

namespace gnnkern::cuda {

// Threads of a block in which every warp walks for itself.
constexpr int kWalkThreads = 128;
constexpr int kWalkWarps = kWalkThreads / kWarp;
// Of one dimension of a grid.
constexpr int64_t kMostTiles = 65535;

struct RowResults {
  void* out;  // [num_rows, width]
  // Of max and min the winner's position in its row, in integers of so many bytes, -1 without one,
  // [num_rows, width]; of logsumexp statistics [num_rows, 2, width]; or null.
  void* argument;
  int argument_size;
  int64_t width;
};

// States of the chunks of long rows, [num_chunks, width] each.
struct ChunkStates {
  void* first;
  void* second;  // null where a state has one part
};

// log2 of how many lanes of a warp hold the columns of an edge, and walk a row.
struct LaneShifts {
  int edge;
  int row;
};

// The least shift whose power is not below `count`, up to that of a warp.
inline int shift_of(int64_t count) {
  int shift = 0;
  while (shift < 5 && (int64_t{1} << shift) < count) ++shift;
  return shift;
}

// Lanes for rows of so many packs of columns. Rows of few edges share a warp; one of many has
// several edges walked side by side, about two steps each.
inline LaneShifts lanes_for(const Walk& walk, int64_t packs) {
  const int edge = shift_of(packs);
  const int64_t degree = walk.num_edges / (walk.num_rows > 0 ? walk.num_rows : 1);
  int row = edge;
  while (row < 5 && (int64_t{4} << (row - edge)) <= degree) ++row;
  return {edge, row};
}

// How many warps walk it: one for each chunk, and one for each group of rows.
inline int64_t items_of(const Walk& walk, LaneShifts lanes) {
  const int64_t rows = int64_t{1} << (5 - lanes.row);
  return walk.num_chunks + (walk.num_rows + rows - 1) / rows;
}

// Tiles of 2^shift of so many columns, as the slowest dimensions of a grid.
inline Grid tile_grid(int64_t columns, int shift) {
  const int64_t tiles = blocks_of(columns, int64_t{1} << shift);
  return {1, tiles < kMostTiles ? tiles : kMostTiles, blocks_of(tiles, kMostTiles)};
}

// Warps for the parts of rows, and tiles of so many packs.
inline Grid walk_grid(const Walk& walk, LaneShifts lanes, int64_t packs) {
  const Grid tiles = tile_grid(packs, lanes.edge);
  return {blocks_of(items_of(walk, lanes), kWalkWarps), tiles.y, tiles.z};
}

}  // namespace gnnkern::cuda
