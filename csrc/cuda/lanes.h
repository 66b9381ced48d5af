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

// Warps for the parts of rows, and tiles of so many packs as the slowest dimensions.
inline Grid walk_grid(const Walk& walk, LaneShifts lanes, int64_t packs) {
  const int64_t tiles = blocks_of(packs, int64_t{1} << lanes.edge);
  const int64_t slow = blocks_of(tiles, kMostTiles);
  return {blocks_of(items_of(walk, lanes), kWalkWarps), slow > 1 ? kMostTiles : tiles, slow};
}

}  // namespace gnnkern::cuda
