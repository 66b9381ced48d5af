// Softmax over the edges of a row, per head, on values staged as [edges, heads].
#pragma once

#include "items.h"
#include "simd.h"

namespace gnnkern::GNNKERN_ISA {

// When the heads divide a vector, the values of a row are read as one flat array in which lane l
// always belongs to head l % heads. Otherwise every head is walked by itself.
template <typename compute_t>
static inline bool heads_tile_vector(int64_t heads) {
  return heads <= kLanes<compute_t> && kLanes<compute_t> % heads == 0;
}

// Combines the lanes that belong to one head; every lane receives its head's result.
template <typename compute_t, class Combine>
static inline vec<compute_t> combine_heads(vec<compute_t> value, int64_t heads,
                                           const Combine& combine) {
  const vec_mask<compute_t> lanes = lane_numbers<compute_t>();
  for (int64_t step = heads; step < kLanes<compute_t>; step *= 2) {
    value =
        combine(value, permute<compute_t>(value, lanes ^ static_cast<lane_int<compute_t>>(step)));
  }
  return value;
}

// Calls body(first head, lanes) for each vector of heads, the last of which may be shorter.
template <typename compute_t, class Body>
static inline void for_each_head_vector(int64_t heads, const Body& body) {
  for (int64_t head = 0; head < heads; head += kLanes<compute_t>) {
    body(head,
         static_cast<int>(heads - head < kLanes<compute_t> ? heads - head : kLanes<compute_t>));
  }
}

// Folds `count` values from `from` on into out[heads], starting at `initial`.
template <typename compute_t, class Combine>
static inline void fold_heads(const compute_t* from, int64_t count, int64_t heads,
                              compute_t initial, const Combine& combine, compute_t* out) {
  if (heads > kLanes<compute_t>) {
    for_each_head_vector<compute_t>(heads, [&](int64_t head, int lanes) {
      vec<compute_t> folded = broadcast(initial);
      if (lanes == kLanes<compute_t>) {
        for (int64_t i = head; i < count; i += heads) folded = combine(folded, load(from + i));
      } else {
        for (int64_t i = head; i < count; i += heads) {
          folded = combine(folded, load_first(from + i, lanes));
        }
      }
      store_first(out + head, folded, lanes);
    });
    return;
  }
  if (!heads_tile_vector<compute_t>(heads)) {
    for (int64_t head = 0; head < heads; ++head) out[head] = initial;
    for (int64_t i = 0; i < count; i += heads) {
      for (int64_t head = 0; head < heads; ++head) {
        out[head] = combine(out[head], from[i + head]);
      }
    }
    return;
  }
  vec<compute_t> folded = broadcast(initial);
  int64_t i = 0;
  for (; i + kLanes<compute_t> <= count; i += kLanes<compute_t>) {
    folded = combine(folded, load(from + i));
  }
  if (i < count) {
    const auto valid = lane_numbers<compute_t>() < static_cast<lane_int<compute_t>>(count - i);
    const vec<compute_t> rest = load_first(from + i, static_cast<int>(count - i));
    folded = combine(folded, valid ? rest : broadcast(initial));
  }
  folded = combine_heads<compute_t>(folded, heads, combine);
  store_first(out, folded, static_cast<int>(heads));
}

// values[i] = change(values[i], per_head[i % heads]).
template <typename compute_t, class Change>
static inline void change_heads(compute_t* values, int64_t count, int64_t heads,
                                const compute_t* per_head, const Change& change) {
  if (heads > kLanes<compute_t>) {
    for_each_head_vector<compute_t>(heads, [&](int64_t head, int lanes) {
      const vec<compute_t> own = load_first(per_head + head, lanes);
      if (lanes == kLanes<compute_t>) {
        for (int64_t i = head; i < count; i += heads)
          store(values + i, change(load(values + i), own));
      } else {
        for (int64_t i = head; i < count; i += heads) {
          store_first(values + i, change(load_first(values + i, lanes), own), lanes);
        }
      }
    });
    return;
  }
  if (!heads_tile_vector<compute_t>(heads)) {
    for (int64_t i = 0; i < count; i += heads) {
      for (int64_t head = 0; head < heads; ++head) {
        values[i + head] = change(values[i + head], per_head[head]);
      }
    }
    return;
  }
  const vec_mask<compute_t> head_of_lane =
      lane_numbers<compute_t>() & static_cast<lane_int<compute_t>>(heads - 1);
  const vec<compute_t> head_values =
      permute<compute_t>(load_first(per_head, static_cast<int>(heads)), head_of_lane);
  int64_t i = 0;
  for (; i + kLanes<compute_t> <= count; i += kLanes<compute_t>) {
    store(values + i, change(load(values + i), head_values));
  }
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    store_first(values + i, change(load_first(values + i, rest), head_values), rest);
  }
}

template <typename compute_t>
static inline void exp_flat(compute_t* values, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes<compute_t> <= count; i += kLanes<compute_t>) {
    store(values + i, exp_nonpositive(load(values + i)));
  }
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    store_first(values + i, exp_nonpositive(load_first(values + i, rest)), rest);
  }
}

struct Larger {
  template <typename T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct Sum {
  template <typename T>
  T operator()(T a, T b) const {
    return a + b;
  }
};

// 1 / sum, and 0 for a row without a finite score.
template <typename compute_t>
static inline compute_t softmax_scale(compute_t sum) {
  return sum == 0 ? 0 : 1 / sum;
}

// Per head: the largest score (0 where all are minus infinity, so that no difference is NaN) and
// the sum of exp(score - largest).
template <typename compute_t>
struct SoftmaxStatistics {
  compute_t* largest;  // [heads]
  compute_t* sum;      // [heads]

  static SoftmaxStatistics at(char* memory, int64_t place, int64_t heads) {
    auto* from = reinterpret_cast<compute_t*>(memory) + place * 2 * heads;
    return {from, from + heads};
  }

  // From the scores of some edges, which become score - largest.
  void subtract_largest(compute_t* scores, int64_t count, int64_t heads) const {
    fold_heads(scores, count, heads, kMinusInfinity<compute_t>, Larger{}, largest);
    for (int64_t head = 0; head < heads; ++head) {
      if (largest[head] == kMinusInfinity<compute_t>) largest[head] = 0;
    }
    change_heads(scores, count, heads, largest, [](auto score, auto top) { return score - top; });
  }

  // From the scores of some edges, which become exp(score - largest).
  void take(compute_t* scores, int64_t edges, int64_t heads) const {
    const int64_t count = edges * heads;
    subtract_largest(scores, count, heads);
    exp_flat(scores, count);
    fold_heads(scores, count, heads, compute_t{0}, Sum{}, sum);
  }

  // From exponentials whose sum was taken, which become their shares.
  void normalise(compute_t* values, int64_t count, int64_t heads, compute_t* scale) const {
    for (int64_t head = 0; head < heads; ++head) scale[head] = softmax_scale(sum[head]);
    change_heads(values, count, heads, scale,
                 [](auto value, auto factor) { return value * factor; });
  }

  // From the scores of a part of a row whose statistics are joined, which become its shares.
  void finish(compute_t* scores, int64_t edges, int64_t heads, compute_t* scale) const {
    const int64_t count = edges * heads;
    change_heads(scores, count, heads, largest, [](auto score, auto top) { return score - top; });
    exp_flat(scores, count);
    normalise(scores, count, heads, scale);
  }

  // From the scores of a whole row, which become score - largest.
  void take_largest(compute_t* scores, int64_t edges, int64_t heads) const {
    const int64_t count = edges * heads;
    const vec<compute_t> lowest = broadcast(kMinusInfinity<compute_t>);
    if (heads_tile_vector<compute_t>(heads) && count <= kLanes<compute_t>) {
      // Most rows: one load, one store, everything between them in registers.
      const int lanes = static_cast<int>(count);
      const vec<compute_t> value = load_with(scores, lanes, lowest);
      const vec<compute_t> top = combine_heads<compute_t>(value, heads, Larger{});
      return store_first(scores, value - (top == lowest ? vec<compute_t>{} : top), lanes);
    }
    subtract_largest(scores, count, heads);
  }

  // From the exponentials of a whole row, which become their shares.
  void divide_by_sum(compute_t* values, int64_t edges, int64_t heads, compute_t* scale) const {
    const int64_t count = edges * heads;
    if (heads_tile_vector<compute_t>(heads) && count <= kLanes<compute_t>) {
      const int lanes = static_cast<int>(count);
      const vec<compute_t> value = load_first(values, lanes);
      const vec<compute_t> total = combine_heads<compute_t>(value, heads, Sum{});
      const vec<compute_t> factor = total == vec<compute_t>{} ? total : 1 / total;
      return store_first(values, value * factor, lanes);
    }
    fold_heads(values, count, heads, compute_t{0}, Sum{}, sum);
    normalise(values, count, heads, scale);
  }

  static vec<compute_t> load_with(const compute_t* from, int lanes, vec<compute_t> others) {
    const auto valid = lane_numbers<compute_t>() < static_cast<lane_int<compute_t>>(lanes);
    return valid ? load_first(from, lanes) : others;
  }

  // From the scores of a whole row, which become their softmax.
  void take_and_normalise(compute_t* scores, int64_t edges, int64_t heads, compute_t* scale) const {
    const int64_t count = edges * heads;
    if (heads_tile_vector<compute_t>(heads) && count <= 4 * kLanes<compute_t>) {
      const int64_t vectors = (count + kLanes<compute_t> - 1) / kLanes<compute_t>;
      if (vectors <= 1) return in_registers<1>(scores, static_cast<int>(count), heads);
      if (vectors == 2) return in_registers<2>(scores, static_cast<int>(count), heads);
      return in_registers<4>(scores, static_cast<int>(count), heads);
    }
    take(scores, edges, heads);
    normalise(scores, count, heads, scale);
  }

  // Short rows: one load, one store, everything between them in registers.
  template <int kVectors>
  void in_registers(compute_t* scores, int count, int64_t heads) const {
    using V = vec<compute_t>;
    constexpr int W = kLanes<compute_t>;
    const auto lanes = lane_numbers<compute_t>();
    const V lowest = broadcast(kMinusInfinity<compute_t>);
    V value[kVectors];
    V top = lowest;
    for (int k = 0; k < kVectors; ++k) {
      const int left = count - k * W < W ? (count - k * W > 0 ? count - k * W : 0) : W;
      value[k] = left == W ? load(scores + k * W) : load_first(scores + k * W, left);
      value[k] = lanes < static_cast<lane_int<compute_t>>(left) ? value[k] : lowest;
      top = Larger{}(top, value[k]);
    }
    top = combine_heads<compute_t>(top, heads, Larger{});
    top = top == lowest ? V{} : top;
    V total{};
    for (int k = 0; k < kVectors; ++k) {
      value[k] = exp_nonpositive(value[k] - top);
      total += value[k];
    }
    total = combine_heads<compute_t>(total, heads, Sum{});
    const V scale = total == V{} ? V{} : 1 / total;
    for (int k = 0; k < kVectors; ++k) {
      const int left = count - k * W;
      if (left >= W) {
        store(scores + k * W, value[k] * scale);
      } else if (left > 0) {
        store_first(scores + k * W, value[k] * scale, left);
      }
    }
    store_first(largest, top, static_cast<int>(heads));
    store_first(sum, total, static_cast<int>(heads));
  }

  // An empty sum stands for no finite score: its `largest` says nothing.
  void merge(const SoftmaxStatistics& later, int64_t heads) const {
    for (int64_t head = 0; head < heads; ++head) {
      if (later.sum[head] == 0) continue;
      if (sum[head] == 0) {
        largest[head] = later.largest[head];
        sum[head] = later.sum[head];
        continue;
      }
      const compute_t top = Larger{}(largest[head], later.largest[head]);
      sum[head] = sum[head] * std::exp(largest[head] - top) +
                  later.sum[head] * std::exp(later.largest[head] - top);
      largest[head] = top;
    }
  }

  compute_t log_sum_exp(int64_t head) const {
    return sum[head] == 0 ? kMinusInfinity<compute_t> : largest[head] + std::log(sum[head]);
  }
};

}  // namespace gnnkern::GNNKERN_ISA
