// Philox-4x32 with 7 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011:
// the fewest rounds that pass BigCrush), and what dropout makes of it: element i uses word i % 4 of
// block i / 4, and is kept where that reaches a threshold.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define GNNKERN_PHILOX __host__ __device__ static inline
#else
#define GNNKERN_PHILOX static inline
#endif

namespace gnnkern {

// The four words of one block per lane, each in the low half of its lane.
template <class Lanes>
struct PhiloxBlocks {
  Lanes word[4];
};

// Of the blocks that `counter` names: Lanes is uint64_t or a vector of it, and multiply(a, b) the
// product of the low halves of its lanes.
template <class Lanes, class Multiply>
GNNKERN_PHILOX PhiloxBlocks<Lanes> philox(Lanes counter, uint64_t seed, const Multiply& multiply) {
  constexpr uint64_t kLow = 0xffffffffu;
  Lanes c0 = counter & kLow, c1 = counter >> 32, c2{}, c3{};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 7; ++round) {
    const Lanes product0 = multiply(Lanes{} + 0xD2511F53u, c0);
    const Lanes product1 = multiply(Lanes{} + 0xCD9E8D57u, c2);
    c0 = (product1 >> 32) ^ c1 ^ uint64_t{k0};
    c1 = product1 & kLow;
    c2 = (product0 >> 32) ^ c3 ^ uint64_t{k1};
    c3 = product0 & kLow;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The first word that is kept where elements are dropped with a probability.
static inline uint32_t dropout_threshold(double probability) {
  const double bound = probability * 4294967296.0 + 0.5;
  return bound >= 4294967295.0 ? 4294967295u : static_cast<uint32_t>(bound);
}

}  // namespace gnnkern
