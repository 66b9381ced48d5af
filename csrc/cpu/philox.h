// Dropout from a counter-based generator: which elements are kept depends on the seed and on the
// caller's edge position alone.
//
// Philox-4x32 with 7 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011:
// the fewest rounds that pass BigCrush). Element i uses word i % 4 of block i / 4.
#pragma once

#include "items.h"

namespace gnnkern::GNNKERN_ISA {

struct PhiloxBlock {
  uint32_t word[4];
};

static inline PhiloxBlock philox(uint64_t counter, uint64_t seed) {
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 7; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(product0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// to[i] = from[i] / (1 - probability) where element i is kept, otherwise 0, for an item's edges.
template <typename compute_t>
static inline void drop_edges(const Csr& csr, const PlanItem& item, int64_t heads,
                              const Dropout& dropout, const compute_t* from, compute_t* to) {
  const double bound = dropout.probability * 4294967296.0 + 0.5;
  const uint32_t threshold = bound >= 4294967295.0 ? 4294967295u : static_cast<uint32_t>(bound);
  const compute_t scale = static_cast<compute_t>(1.0 / (1.0 - dropout.probability));
  for_each_caller_edge(csr, item, [&](int64_t, int64_t edge) {
    uint64_t element = static_cast<uint64_t>(edge) * heads;
    PhiloxBlock block = philox(element / 4, dropout.seed);
    for (int64_t head = 0; head < heads; ++head, ++element) {
      if (head > 0 && element % 4 == 0) block = philox(element / 4, dropout.seed);
      *to++ = block.word[element % 4] >= threshold ? *from * scale : 0;
      ++from;
    }
  });
}

}  // namespace gnnkern::GNNKERN_ISA
