// Reductions over the edges of a row, as policies: what to keep, and how one more message changes
// it.
#pragma once

#include <limits>

#include "simd.h"
#include "softmax.h"

namespace gnnkern::GNNKERN_ISA {

// Messages in a run. The position of a run's first message is a multiple of it.
inline constexpr int64_t kRunEdges = 128;

// `first` starts a run of messages from the first of them, `step` adds one, `close` ends a run of
// so many messages, `merge` appends the closed state of a later part of the same row, `value` is
// the result. A state is made of vectors alone. `kTile` of them side by side fit into the
// registers.

// With kInOrder messages are added one by one, whatever the width.
template <typename compute_t, bool kInOrder = false>
struct SumReducer {
  static constexpr int kTile = kVectorBytes == 16 ? 4 : 8;
  static constexpr bool kSelects = false;
  static constexpr bool kAssociates = !kInOrder;
  static constexpr bool kShortRows = true;
  using scalar = compute_t;
  struct State {
    vec<compute_t> value;
  };
  State first(vec<compute_t> message, int64_t) const { return {message}; }
  void step(State& state, vec<compute_t> message, int64_t) const { state.value += message; }
  void close(State&, int64_t) const {}
  void merge(State& state, const State& later) const { state.value += later.value; }
  vec<compute_t> value(const State& state) const { return state.value; }
};

template <typename compute_t>
struct MulReducer {
  static constexpr int kTile = 4;
  static constexpr bool kSelects = false;
  static constexpr bool kAssociates = false;
  using scalar = compute_t;
  struct State {
    vec<compute_t> value;
  };
  State first(vec<compute_t> message, int64_t) const { return {message}; }
  void step(State& state, vec<compute_t> message, int64_t) const { state.value *= message; }
  void close(State&, int64_t) const {}
  void merge(State& state, const State& later) const { state.value *= later.value; }
  vec<compute_t> value(const State& state) const { return state.value; }
};

// Largest (or smallest) message and where it stood: the first of equals wins, a NaN beats any
// number. The smallest is the largest of the negated messages, so that one loop serves both.
// Without kTracks only the value is kept.
template <typename compute_t, bool kTracks>
struct SelectReducer {
  // Values and positions of eight vectors and what compares them are 18 registers.
  static constexpr int kTile = kVectorBytes == 64 ? 8 : 4;
  static constexpr bool kSelects = kTracks;
  static constexpr bool kAssociates = false;
  static constexpr bool kShortRows = true;
  using scalar = compute_t;
  // Of a state: the value is negated where the smallest is looked for.
  struct State {
    vec<compute_t> value;
    vec_mask<compute_t> position;
  };
  // The sign bit of every lane, or nothing.
  vec_mask<compute_t> flip;

  explicit SelectReducer(bool smallest)
      : flip(broadcast_int<compute_t>(smallest ? std::numeric_limits<lane_int<compute_t>>::min()
                                               : 0)) {}

  vec<compute_t> turned(vec<compute_t> value) const {
    return (vec<compute_t>)((vec_mask<compute_t>)value ^ flip);
  }
  State first(vec<compute_t> message, int64_t position) const {
    return {turned(message), broadcast_int<compute_t>(position)};
  }
  void step(State& state, vec<compute_t> message, int64_t position) const {
    merge(state, first(message, position));
  }
  void close(State&, int64_t) const {}
  // A comparison with NaN is false, so a NaN message wins unless a NaN stands already.
  void merge(State& state, const State& later) const {
#if defined(__AVX512F__)
    // By hand, since GCC 12 would carry the masks through vector registers and back.
    if constexpr (sizeof(compute_t) == 4) {
      const auto ordered = _mm512_cmp_ps_mask((__m512)state.value, (__m512)state.value, _CMP_ORD_Q);
      const auto beats =
          _mm512_mask_cmp_ps_mask(ordered, (__m512)later.value, (__m512)state.value, _CMP_NLE_UQ);
      state.value =
          (vec<compute_t>)_mm512_mask_mov_ps((__m512)state.value, beats, (__m512)later.value);
      if constexpr (kTracks)
        state.position = (vec_mask<compute_t>)_mm512_mask_mov_epi32((__m512i)state.position, beats,
                                                                    (__m512i)later.position);
    } else {
      const auto ordered =
          _mm512_cmp_pd_mask((__m512d)state.value, (__m512d)state.value, _CMP_ORD_Q);
      const auto beats =
          _mm512_mask_cmp_pd_mask(ordered, (__m512d)later.value, (__m512d)state.value, _CMP_NLE_UQ);
      state.value =
          (vec<compute_t>)_mm512_mask_mov_pd((__m512d)state.value, beats, (__m512d)later.value);
      if constexpr (kTracks)
        state.position = (vec_mask<compute_t>)_mm512_mask_mov_epi64((__m512i)state.position, beats,
                                                                    (__m512i)later.position);
    }
#else
    const auto beats = ~(later.value <= state.value) & (state.value == state.value);
    state.value = beats ? later.value : state.value;
    if constexpr (kTracks) state.position = beats ? later.position : state.position;
#endif
  }
  vec<compute_t> value(const State& state) const { return turned(state.value); }
};

// The log of a sum of exponentials: the largest message, and the sum of exp(message - largest). One
// exponential a step, outside of the chain of dependencies.
template <typename compute_t>
struct LogSumExpReducer {
  static constexpr int kTile = 2;
  static constexpr bool kSelects = false;
  static constexpr bool kAssociates = false;
  using scalar = compute_t;
  struct State {
    vec<compute_t> value;
    vec<compute_t> sum;
  };
  State first(vec<compute_t> message, int64_t) const { return {message, broadcast(compute_t{1})}; }
  void step(State& state, vec<compute_t> message, int64_t position) const {
    merge(state, first(message, position));
  }
  void close(State&, int64_t) const {}
  // Equal values differ by 0 even where both are infinite. A NaN is never larger, and enters the
  // sum.
  void merge(State& state, const State& later) const {
    const auto grows = later.value > state.value;
    const vec<compute_t> largest = grows ? later.value : state.value;
    const vec<compute_t> other = grows ? state.value : later.value;
    const vec<compute_t> below = largest == other ? vec<compute_t>{} : other - largest;
    const vec<compute_t> shrink = exp_nonpositive(below);
    state.sum = grows ? state.sum * shrink + later.sum : state.sum + later.sum * shrink;
    state.value = largest;
  }
  // Messages of `width` columns side by side, which are overwritten.
  State flat(compute_t* values, int64_t count, int64_t width) const {
    compute_t largest[kLanes<compute_t>], sum[kLanes<compute_t>];
    fold_heads(values, count, width, kMinusInfinity<compute_t>, Larger{}, largest);
    change_heads(values, count, width, largest, [](auto value, auto top) {
      return value == top ? decltype(value){} : value - top;
    });
    exp_flat(values, count);
    fold_heads(values, count, width, compute_t{0}, Sum{}, sum);
    const int lanes = static_cast<int>(width);
    return {load_first(largest, lanes), load_first(sum, lanes)};
  }
  vec<compute_t> value(const State& state) const {
    return state.value + log_at_least_one(state.sum);
  }
};

// The sum, and how far the messages spread about their mean.
//
// A run takes its messages relative to its first one, so that a common offset costs no digits, and
// updates mean and squares message by message, so that a first message far from the others costs
// few (Welford, "Note on a method for calculating corrected sums of squares and products", 1962).
// Runs are merged by their means and squares, which only adds what is positive (Chan, Golub and
// LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
template <typename compute_t>
struct MomentsReducer {
  static constexpr int kTile = 4;
  static constexpr bool kAssociates = false;
  using scalar = compute_t;
  struct State {
    vec<compute_t> sum;
    vec<compute_t> shift;
    // Of message - shift: the mean, and the sum of squared distances from it.
    vec<compute_t> mean;
    vec<compute_t> squares;
    // Set by `close`.
    vec<compute_t> count;
  };

  State first(vec<compute_t> message, int64_t) const {
    const vec<compute_t> zero{};
    return {message, message, zero, zero, zero};
  }
  void step(State& state, vec<compute_t> message, int64_t position) const {
    const compute_t share = 1 / static_cast<compute_t>(position % kRunEdges + 1);
    const vec<compute_t> value = message - state.shift;
    const vec<compute_t> apart = value - state.mean;
    state.sum += message;
    state.mean += apart * share;
    state.squares += apart * (value - state.mean);
  }
  void close(State& state, int64_t count) const {
    // Adds 0, or NaN where the first message is not finite.
    state.squares += state.shift - state.shift;
    state.count = broadcast(static_cast<compute_t>(count));
  }
  void merge(State& state, const State& later) const {
    const vec<compute_t> count = state.count + later.count;
    const vec<compute_t> share = later.count / count;
    const vec<compute_t> apart = (later.shift - state.shift) + (later.mean - state.mean);
    state.sum += later.sum;
    state.squares += later.squares + apart * apart * state.count * share;
    state.mean += apart * share;
    state.count = count;
  }
  vec<compute_t> variance(const State& state) const { return state.squares / state.count; }
  // The mean less `rounded`, which is near it.
  vec<compute_t> mean_less(const State& state, vec<compute_t> rounded) const {
    return (state.shift - rounded) + state.mean;
  }
};

// Two reductions of the same messages.
template <class A, class B, int kTogether>
struct PairReducer {
  static constexpr int kTile = kTogether;
  static constexpr bool kAssociates = false;
  using scalar = typename A::scalar;
  A a;
  B b;
  struct State {
    typename A::State a;
    typename B::State b;
  };

  State first(vec<scalar> message, int64_t position) const {
    return {a.first(message, position), b.first(message, position)};
  }
  void step(State& state, vec<scalar> message, int64_t position) const {
    a.step(state.a, message, position);
    b.step(state.b, message, position);
  }
  void close(State& state, int64_t count) const {
    a.close(state.a, count);
    b.close(state.b, count);
  }
  void merge(State& state, const State& later) const {
    a.merge(state.a, later.a);
    b.merge(state.b, later.b);
  }
};

}  // namespace gnnkern::GNNKERN_ISA
