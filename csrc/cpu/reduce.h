// Reductions over the edges of a row, as policies: what to keep, and how one more message changes
// it.
#pragma once

#include "simd.h"

namespace gnnkern::GNNKERN_ISA {

// `first` starts a row from its first message, `step` adds one, `merge` appends the state of a
// later part of the same row, `value` is the result.

template <typename compute_t>
struct SumReducer {
  static constexpr bool kSelects = false;
  static constexpr bool kAssociates = true;
  using scalar = compute_t;
  struct State {
    vec<compute_t> value;
  };
  State first(vec<compute_t> message, int64_t) const { return {message}; }
  void step(State& state, vec<compute_t> message, int64_t) const { state.value += message; }
  void merge(State& state, const State& later) const { state.value += later.value; }
  vec<compute_t> value(const State& state) const { return state.value; }
};

template <typename compute_t>
struct MulReducer {
  static constexpr bool kSelects = false;
  static constexpr bool kAssociates = false;
  using scalar = compute_t;
  struct State {
    vec<compute_t> value;
  };
  State first(vec<compute_t> message, int64_t) const { return {message}; }
  void step(State& state, vec<compute_t> message, int64_t) const { state.value *= message; }
  void merge(State& state, const State& later) const { state.value *= later.value; }
  vec<compute_t> value(const State& state) const { return state.value; }
};

// Largest (or smallest) message and where it stood: the first of equals wins, a NaN beats any
// number.
template <typename compute_t, bool kSmallest>
struct SelectReducer {
  static constexpr bool kSelects = true;
  static constexpr bool kAssociates = false;
  using scalar = compute_t;
  struct State {
    vec<compute_t> value;
    vec_mask<compute_t> position;
  };

  State first(vec<compute_t> message, int64_t position) const {
    return {message, broadcast_int<compute_t>(position)};
  }
  void step(State& state, vec<compute_t> message, int64_t position) const {
    merge(state, first(message, position));
  }
  // A comparison with NaN is false, so a NaN message wins unless a NaN stands already.
  void merge(State& state, const State& later) const {
    const auto loses = kSmallest ? later.value >= state.value : later.value <= state.value;
    const auto beats = ~loses & (state.value == state.value);
    state.value = beats ? later.value : state.value;
    state.position = beats ? later.position : state.position;
  }
  vec<compute_t> value(const State& state) const { return state.value; }
};

}  // namespace gnnkern::GNNKERN_ISA
