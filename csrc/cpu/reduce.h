// Reductions over the edges of a row, as policies: what to keep, and how one more message changes it.
#pragma once

#include "simd.h"

namespace gnnkern::GNNKERN_ISA {

// `first` starts a row from its first message, `step` adds one, `merge` appends the state of a later
// part of the same row, `value` is the result.

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

// Maximum of sign * message and where it stood: the first of equals wins, a NaN beats any number.
// A sign of -1 makes it the minimum.
template <typename compute_t>
struct SelectReducer {
  static constexpr bool kSelects = true;
  static constexpr bool kAssociates = false;
  using scalar = compute_t;
  struct State {
    vec<compute_t> value;
    vec_mask<compute_t> position;
  };
  compute_t sign;

  State first(vec<compute_t> message, int64_t position) const {
    return {message * sign, broadcast_int<compute_t>(position)};
  }
  void step(State& state, vec<compute_t> message, int64_t position) const {
    merge(state, first(message, position));
  }
  void merge(State& state, const State& later) const {
    const auto beats = (later.value > state.value) |
                       ((later.value != later.value) & (state.value == state.value));
    state.value = beats ? later.value : state.value;
    state.position = beats ? later.position : state.position;
  }
  vec<compute_t> value(const State& state) const { return state.value * sign; }
};

}  // namespace gnnkern::GNNKERN_ISA
