// Dot products per head of many edges: the lanes of several products are summed at once.
#pragma once

#include "rows.h"

namespace gnnkern::GNNKERN_ISA {

// -- rows as vectors -----------------------------------------------------------------------------

template <typename scalar_t>
struct PlainRow {
  const scalar_t* x;
  vec<compute_of<scalar_t>> at(int64_t column) const { return load(x + column); }
  vec<compute_of<scalar_t>> first(int64_t column, int count) const {
    return load_first(x + column, count);
  }
};

template <typename a_t, typename b_t>
struct SumOfRows {
  const a_t* a;
  const b_t* b;
  vec<compute_of<b_t>> at(int64_t column) const { return load(a + column) + load(b + column); }
  vec<compute_of<b_t>> first(int64_t column, int count) const {
    return load_first(a + column, count) + load_first(b + column, count);
  }
};

// A weight policy (rows.h) of messages to which the edge's own row is added.
template <class Weight, class Rows>
struct WithEdgeRows {
  static constexpr int kMostTile = 4;
  Weight weight;
  Rows rows;
  template <typename compute_t>
  vec<compute_t> apply(vec<compute_t> x, int64_t edge, int64_t vector) const {
    const Columns<compute_t> columns{rows.width};
    const auto* from = rows.at(edge) + columns.start(vector);
    const vec<compute_t> own =
        columns.narrow() ? load_first(from, static_cast<int>(rows.width)) : load(from);
    return weight.template apply<compute_t>(x + own, edge, vector);
  }
};

// -- sums of lanes -------------------------------------------------------------------------------

// Lanes whose number has the bit `kStep` receive b[lane] + b[lane ^ kStep], the others the same of
// a.
template <typename compute_t, int kStep>
static inline vec<compute_t> add_lane_pairs(vec<compute_t> a, vec<compute_t> b) {
  constexpr int W = kLanes<compute_t>;
  vec_mask<compute_t> own, other;
  for (int lane = 0; lane < W; ++lane) {
    const int of = lane & kStep ? W : 0;
    own[lane] = lane + of;
    other[lane] = (lane ^ kStep) + of;
  }
  return __builtin_shuffle(a, b, own) + __builtin_shuffle(a, b, other);
}

// Of kCount vectors (a power of two), summed over aligned groups of as many lanes: lane l receives
// the sum of its group in vector l % kCount.
template <typename compute_t, int kCount>
static inline vec<compute_t> sum_lane_tree(const vec<compute_t>* vectors) {
  if constexpr (kCount == 1) {
    return vectors[0];
  } else {
    constexpr int kHalf = kCount / 2;
    return add_lane_pairs<compute_t, kHalf>(sum_lane_tree<compute_t, kHalf>(vectors),
                                            sum_lane_tree<compute_t, kHalf>(vectors + kHalf));
  }
}

// The same sums, those of the first vector first.
template <typename compute_t, int kGroup>
static inline vec<compute_t> sum_lane_groups(const vec<compute_t>* vectors) {
  constexpr int W = kLanes<compute_t>;
  const vec<compute_t> sums = sum_lane_tree<compute_t, kGroup>(vectors);
  if constexpr (kGroup == W) return sums;
  vec_mask<compute_t> from;
  for (int i = 0; i < W; ++i) from[i] = i % (W / kGroup) * kGroup + i / (W / kGroup);
  return permute<compute_t>(sums, from);
}

// Receives vectors of products one after another and writes the sums of their groups of kGroup
// lanes, times a factor, in the same order. Writes whole vectors: the memory is as many elements
// longer.
template <typename compute_t, int kGroup>
class LaneSums {
 public:
  LaneSums(compute_t* to, compute_t factor) : to_(to), factor_(factor) {}

  void push(vec<compute_t> products) {
    waiting_[count_] = products;
    if (++count_ == kGroup) flush();
  }
  void finish() {
    if (count_ > 0) flush();
  }

 private:
  void flush() {
    store(to_, sum_lane_groups<compute_t, kGroup>(waiting_) * factor_);
    to_ += kLanes<compute_t>;
    count_ = 0;
  }

  compute_t* to_;
  compute_t factor_;
  int count_ = 0;
  vec<compute_t> waiting_[kGroup] = {};
};

// -- dot products --------------------------------------------------------------------------------

// How heads meet vectors: with kGroup lanes to a head, a vector holds one or several heads; kTail
// stands for heads that fill no whole number of vectors, whose last vector is masked.
template <int kLanesOfHead, bool kMasked>
struct DotForm {
  static constexpr int kGroup = kLanesOfHead;
  static constexpr bool kTail = kMasked;
};

// Calls body(DotForm).
template <typename compute_t, class Body>
static inline void dispatch_dots(int64_t heads, int64_t head_width, const Body& body) {
  constexpr int W = kLanes<compute_t>;
  if (head_width % W == 0) return body(DotForm<W, false>{});
  const bool whole = heads * head_width % W == 0;
  if constexpr (W > 8) {
    if (whole && head_width == 8) return body(DotForm<8, false>{});
  }
  if constexpr (W > 4) {
    if (whole && head_width == 4) return body(DotForm<4, false>{});
  }
  body(DotForm<W, true>{});
}

// Hands the products of two rows to `sums`, so that it writes one dot product per head.
template <class Form, class Sums, class Left, class Right>
static inline void push_dots(Sums& sums, const Left& left, const Right& right, int64_t heads,
                             int64_t head_width) {
  using V = decltype(right.at(0));
  constexpr int W = sizeof(V) / sizeof(V{}[0]);
  if constexpr (Form::kGroup < W) {
    for (int64_t column = 0; column < heads * head_width; column += W) {
      sums.push(left.at(column) * right.at(column));
    }
  } else {
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t end = (head + 1) * head_width;
      int64_t column = head * head_width;
      V sum{};
      for (; column + W <= end; column += W) sum += left.at(column) * right.at(column);
      if constexpr (Form::kTail) {
        if (column < end) {
          const int rest = static_cast<int>(end - column);
          sum += left.first(column, rest) * right.first(column, rest);
        }
      }
      sums.push(sum);
    }
  }
}

// `count` elements in the compute type: where they lie, or converted into `memory`.
template <typename scalar_t>
static inline const compute_of<scalar_t>* widened(const scalar_t* x, int64_t count,
                                                  compute_of<scalar_t>* memory) {
  if constexpr (sizeof(scalar_t) == sizeof(compute_of<scalar_t>)) {
    return x;
  } else {
    convert(memory, x, count);
    return memory;
  }
}

}  // namespace gnnkern::GNNKERN_ISA
