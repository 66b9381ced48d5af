// Which columns of a max or min an edge has won.
#pragma once

#include "row_part.cuh"

namespace gnnkern::cuda {

template <int kPack, typename position_t>
__device__ __forceinline__ unsigned equal_columns(const void* argument, int64_t offset, int rank) {
  Pack<position_t, kPack> pack;
  pack.load(static_cast<const position_t*>(argument) + offset);
  position_t position[kPack];
  memcpy(position, pack.words, sizeof(position));
  unsigned bits = 0;
#pragma unroll
  for (int i = 0; i < kPack; ++i) bits |= (static_cast<int>(position[i]) == rank ? 1u : 0u) << i;
  return bits;
}

// Bit i: the edge at position `rank` of its row is the one that argument[offset + i] names, an
// integer of so many bytes.
template <int kPack>
__device__ __forceinline__ unsigned won_columns(const void* argument, int argument_size,
                                                int64_t offset, int rank) {
  if (argument_size == 1) return equal_columns<kPack, uint8_t>(argument, offset, rank);
  if (argument_size == 2) return equal_columns<kPack, uint16_t>(argument, offset, rank);
  return equal_columns<kPack, int32_t>(argument, offset, rank);
}

}  // namespace gnnkern::cuda
