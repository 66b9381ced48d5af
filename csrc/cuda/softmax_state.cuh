// The softmax of a row while its scores arrive: the state of a log-sum-exp, and what else was
// summed with weights exp(score - largest).
#pragma once

#include "reduce.cuh"

namespace gnnkern::cuda {

template <typename compute_t>
using SoftmaxState = typename LogSumExpReducer<compute_t>::State;

// exp(value - largest), where equal values differ by 0 even if both are infinite.
template <typename compute_t>
__device__ __forceinline__ compute_t shrink(compute_t value, compute_t largest) {
  return value == largest ? compute_t{1} : exp_of(value - largest);
}

// Lets `top` be the largest, where it is larger; returns what everything summed so far is
// multiplied by. A NaN is never the largest.
template <class State, typename compute_t>
__device__ __forceinline__ compute_t raise_largest(State& state, compute_t top) {
  if (!(top > state.first)) return 1;
  const compute_t share = shrink(state.first, top);
  state.first = top;
  state.second *= share;
  return share;
}

// The state and the sums of the lanes that differ in the bits from `begin` up to `end`.
template <class State, int count, typename compute_t>
__device__ __forceinline__ void merge_weighted(State& state, compute_t (&sums)[count], int begin,
                                               int end) {
  compute_t top = state.first;
#pragma unroll 1
  for (int apart = begin; apart < end; apart *= 2) {
    const compute_t other = __shfl_xor_sync(kFullWarp, top, apart);
    top = other > top ? other : top;
  }
  const compute_t share = raise_largest(state, top);
#pragma unroll
  for (int i = 0; i < count; ++i) sums[i] *= share;
#pragma unroll 1
  for (int apart = begin; apart < end; apart *= 2) {
    state.second += __shfl_xor_sync(kFullWarp, state.second, apart);
#pragma unroll
    for (int i = 0; i < count; ++i) sums[i] += __shfl_xor_sync(kFullWarp, sums[i], apart);
  }
}

// +inf makes a row NaN, as inf - inf does.
template <class State, typename compute_t = decltype(State::first)>
__device__ __forceinline__ bool is_nan_softmax(const State& state) {
  return state.first == infinity<compute_t>() || state.second != state.second;
}

// What weighted sums are multiplied by in the end: scores of -inf alone give 0.
template <class State, typename compute_t = decltype(State::first)>
__device__ __forceinline__ compute_t softmax_scale(const State& state) {
  if (is_nan_softmax(state)) return static_cast<compute_t>(NAN);
  return state.first == -infinity<compute_t>() ? compute_t{0} : 1 / state.second;
}

template <class State, typename compute_t = decltype(State::first)>
__device__ __forceinline__ compute_t softmax_log_sum(const State& state) {
  return is_nan_softmax(state) ? static_cast<compute_t>(NAN) : state.first + log_of(state.second);
}

}  // namespace gnnkern::cuda
