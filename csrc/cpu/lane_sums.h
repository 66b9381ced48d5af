// Sums over the lanes of many vectors at once.
//
// One vector costs log2(lanes) shuffles and additions for one sum. As many vectors as there are
// lanes are transposed while they are added, for about one shuffle and one addition per sum.
#pragma once

#include "simd.h"

namespace gnnkern::GNNKERN_ISA {

// Of kGroup vectors: the sums over their aligned groups of kGroup lanes, in the order (vector,
// group). Destroys `vectors`.
template <typename compute_t, int kGroup>
static inline vec<compute_t> sum_group_lanes(vec<compute_t>* vectors) {
  constexpr int W = kLanes<compute_t>;
  const vec_mask<compute_t> lanes = lane_numbers<compute_t>();
#pragma GCC unroll 4
  for (int step = 1; step < kGroup; step *= 2) {
    const vec_mask<compute_t> odd = (lanes & static_cast<lane_int<compute_t>>(step)) != 0;
#pragma GCC unroll 8
    for (int i = 0; i < kGroup / (2 * step); ++i) {
      const vec<compute_t> a = vectors[2 * i];
      const vec<compute_t> b = vectors[2 * i + 1];
      const vec<compute_t> straight = odd ? b : a;
      const vec<compute_t> crossed = odd ? a : b;
      vectors[i] =
          straight + permute<compute_t>(crossed, lanes ^ static_cast<lane_int<compute_t>>(step));
    }
  }
  if constexpr (kGroup == W) {
    return vectors[0];
  } else {
    constexpr int kPerVector = W / kGroup;
    return permute<compute_t>(vectors[0],
                              (lanes & static_cast<lane_int<compute_t>>(kPerVector - 1)) *
                                      static_cast<lane_int<compute_t>>(kGroup) +
                                  lanes / static_cast<lane_int<compute_t>>(kPerVector));
  }
}

// A stream of vectors whose sums over aligned groups of `group` lanes (a power of two) are written
// one behind the other. Full vectors are stored: memory must reach one vector beyond the last sum.
template <typename compute_t>
class LaneSums {
 public:
  LaneSums(compute_t* to, int group) : to_(to), group_(group) {}

  void push(vec<compute_t> value) {
    waiting_[count_++] = value;
    if (count_ == group_) flush();
  }

  // Writes the sums of what still waits.
  void finish() {
    if (count_ > 0) flush();
  }

 private:
  static constexpr int W = kLanes<compute_t>;

  GNNKERN_NOINLINE void flush() {
    store(to_, sums<W>());
    to_ += W;
    count_ = 0;
  }

  template <int kGroup>
  vec<compute_t> sums() {
    if constexpr (kGroup > 1) {
      if (group_ < kGroup) return sums<kGroup / 2>();
    }
    return sum_group_lanes<compute_t, kGroup>(waiting_);
  }

  vec<compute_t> waiting_[W] = {};
  compute_t* to_;
  int group_;
  int count_ = 0;
};

}  // namespace gnnkern::GNNKERN_ISA
