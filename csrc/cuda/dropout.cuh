// Dropout of attention: which elements are kept depends on a seed and on their position alone.
#pragma once

#include "attention.h"
#include "launch.cuh"
#include "philox.h"

namespace gnnkern::cuda {

struct MultiplyLowHalves {
  __device__ __forceinline__ uint64_t operator()(uint64_t a, uint64_t b) const {
    return static_cast<uint64_t>(static_cast<uint32_t>(a)) * static_cast<uint32_t>(b);
  }
};

__device__ __forceinline__ bool is_kept(const DropoutArgs& dropout, int64_t element) {
  const auto number = static_cast<uint64_t>(element);
  const auto seed = static_cast<uint64_t>(*dropout.seed);
  const PhiloxBlocks<uint64_t> block = philox(number >> 2, seed, MultiplyLowHalves{});
  const uint64_t low = number & 1 ? block.word[1] : block.word[0];
  const uint64_t high = number & 1 ? block.word[3] : block.word[2];
  return (number & 2 ? high : low) >= dropout.threshold;
}

// What dropout multiplies an edge's alpha by, for the edges of `lanes` lanes that hold the same
// ones: each lane draws the words of some of them.
template <int edges, typename compute_t>
__device__ __forceinline__ void draw_dropout(const DropoutArgs& dropout,
                                             const int64_t (&element)[edges], int lanes,
                                             compute_t (&scale)[edges]) {
#pragma unroll
  for (int i = 0; i < edges; ++i) scale[i] = 1;
  if (!dropout.seed) return;
  const auto kept_scale = static_cast<compute_t>(dropout.scale);
  const int lane = threadIdx.x % kWarp;
  if (lanes < edges) {
#pragma unroll
    for (int i = 0; i < edges; ++i) scale[i] = is_kept(dropout, element[i]) ? kept_scale : 0;
    return;
  }
  int64_t own = element[0];
#pragma unroll
  for (int i = 1; i < edges; ++i) {
    if (lane % edges >= i) own = element[i];
  }
  const unsigned kept = __ballot_sync(kFullWarp, is_kept(dropout, own));
  const int first = lane & ~(lanes - 1);
#pragma unroll
  for (int i = 0; i < edges; ++i) scale[i] = kept >> (first + i) & 1 ? kept_scale : 0;
}

}  // namespace gnnkern::cuda
