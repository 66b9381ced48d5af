// Dot products per head of two rows that lie in memory.
#pragma once

#include "simd.h"

namespace gnnkern::GNNKERN_ISA {

// <a, b> over `width` elements.
template <typename a_t, typename b_t>
static inline compute_of<b_t> dot(const a_t* a, const b_t* b, int64_t width) {
  using compute_t = compute_of<b_t>;
  vec<compute_t> sum{};
  int64_t column = 0;
  for (; column + kLanes<compute_t> <= width; column += kLanes<compute_t>) {
    sum += load(a + column) * load(b + column);
  }
  if (column < width) {
    const int rest = static_cast<int>(width - column);
    sum += load_first(a + column, rest) * load_first(b + column, rest);
  }
  return sum_lanes<compute_t>(sum);
}

// Whether several heads fill a vector exactly, so that their dot products come out together.
template <typename compute_t>
static inline bool heads_share_vector(int64_t heads, int64_t head_width) {
  return head_width < kLanes<compute_t> && kLanes<compute_t> % head_width == 0 &&
         (heads * head_width) % kLanes<compute_t> == 0;
}

// out[h] = <a[h], b[h]>, handed to put(head, value).
template <typename a_t, typename b_t, class Put>
static inline void dot_heads(const a_t* a, const b_t* b, int64_t heads, int64_t head_width,
                             const Put& put) {
  using compute_t = compute_of<b_t>;
  if (heads_share_vector<compute_t>(heads, head_width)) {
    for (int64_t column = 0; column < heads * head_width; column += kLanes<compute_t>) {
      const vec<compute_t> sums =
          sum_groups<compute_t>(load(a + column) * load(b + column), static_cast<int>(head_width));
      for (int64_t lane = 0; lane < kLanes<compute_t>; lane += head_width) {
        put((column + lane) / head_width, sums[lane]);
      }
    }
    return;
  }
  for (int64_t head = 0; head < heads; ++head) {
    put(head, dot(a + head * head_width, b + head * head_width, head_width));
  }
}

}  // namespace gnnkern::GNNKERN_ISA
