// Reductions as policies: what a row keeps of its messages, and how one more changes it.
//
//   start          the state before any message
//   step           one more message, at a position behind those before
//   merge          the state of another part of the row
//   value          the result of a state of `count` messages
#pragma once

#include <climits>

#include "row_part.cuh"

namespace gnnkern::cuda {

__device__ __forceinline__ float exp_of(float value) { return expf(value); }
__device__ __forceinline__ double exp_of(double value) { return exp(value); }
__device__ __forceinline__ float log_of(float value) { return logf(value); }
__device__ __forceinline__ double log_of(double value) { return log(value); }

template <typename compute_t>
__device__ __forceinline__ compute_t infinity() {
  return static_cast<compute_t>(__int_as_float(0x7f800000));
}

// The part of a state that stands in a second array, where a reducer has one.
struct Nothing {};

template <typename compute_t>
struct SumReducer {
  static constexpr bool kSelects = false;
  static constexpr bool kHasSecond = false;
  using compute = compute_t;
  using second_t = compute_t;
  bool is_mean;

  struct State {
    compute_t first;
  };
  __device__ __forceinline__ State start() const { return {0}; }
  __device__ __forceinline__ void step(State& state, compute_t message, int, bool valid) const {
    state.first += valid ? message : compute_t{0};
  }
  __device__ __forceinline__ void merge(State& state, const State& other) const {
    state.first += other.first;
  }
  __device__ __forceinline__ compute_t value(const State& state, int64_t count) const {
    return is_mean ? state.first / static_cast<compute_t>(max(count, int64_t{1})) : state.first;
  }
};

template <typename compute_t>
struct MulReducer {
  static constexpr bool kSelects = false;
  static constexpr bool kHasSecond = false;
  using compute = compute_t;
  using second_t = compute_t;

  struct State {
    compute_t first;
  };
  __device__ __forceinline__ State start() const { return {1}; }
  __device__ __forceinline__ void step(State& state, compute_t message, int, bool valid) const {
    state.first *= valid ? message : compute_t{1};
  }
  __device__ __forceinline__ void merge(State& state, const State& other) const {
    state.first *= other.first;
  }
  __device__ __forceinline__ compute_t value(const State& state, int64_t) const {
    return state.first;
  }
};

// The position of a winner where there was no message: behind every position.
constexpr int kNowhere = INT_MAX;

// The largest message, or the smallest, which is the largest of the negated ones, and where in its
// row it stood: the first of equals wins, and a NaN beats every number.
template <typename compute_t>
struct SelectReducer {
  static constexpr bool kSelects = true;
  static constexpr bool kHasSecond = true;
  using compute = compute_t;
  using second_t = int;
  bool is_smallest;

  struct State {
    compute_t first;
    int second;
  };
  __device__ __forceinline__ State start() const { return {-infinity<compute_t>(), kNowhere}; }
  __device__ __forceinline__ void step(State& state, compute_t message, int position,
                                       bool valid) const {
    const compute_t value = is_smallest ? -message : message;
    const bool beats = value > state.first || (value != value && state.first == state.first) ||
                       state.second == kNowhere;
    if (valid && beats) state = {value, position};
  }
  __device__ __forceinline__ void merge(State& state, const State& other) const {
    const bool is_nan = state.first != state.first, other_is_nan = other.first != other.first;
    const bool equal = state.first == other.first || (is_nan && other_is_nan);
    const bool beats = other.first > state.first || (other_is_nan && !is_nan) ||
                       (equal && other.second < state.second);
    if (beats) state = other;
  }
  __device__ __forceinline__ compute_t value(const State& state, int64_t count) const {
    if (count <= 0) return 0;
    return is_smallest ? -state.first : state.first;
  }
};

// The log of a sum of exponentials: the largest message, and the sum of exp(message - largest).
template <typename compute_t>
struct LogSumExpReducer {
  static constexpr bool kSelects = false;
  static constexpr bool kHasSecond = true;
  using compute = compute_t;
  using second_t = compute_t;

  struct State {
    compute_t first;
    compute_t second;
  };
  __device__ __forceinline__ State start() const { return {-infinity<compute_t>(), 0}; }
  __device__ __forceinline__ void step(State& state, compute_t message, int, bool valid) const {
    if (valid) merge(state, {message, 1});
  }
  // Equal values differ by 0 even where both are infinite. A NaN is never larger, and enters the
  // sum.
  __device__ __forceinline__ void merge(State& state, const State& other) const {
    const bool grows = other.first > state.first;
    const compute_t largest = grows ? other.first : state.first;
    const compute_t smaller = grows ? state.first : other.first;
    const compute_t shrink = smaller == largest ? compute_t{1} : exp_of(smaller - largest);
    state.second =
        grows ? state.second * shrink + other.second : state.second + other.second * shrink;
    state.first = largest;
  }
  __device__ __forceinline__ compute_t value(const State& state, int64_t) const {
    return state.first + log_of(state.second);
  }
};

// -- states between lanes and in memory -----------------------------------------------------------

template <class State>
__device__ __forceinline__ State shuffled_state(const State& state, int apart) {
  State other = state;
  other.first = __shfl_xor_sync(kFullWarp, state.first, apart);
  if constexpr (requires { state.second; }) {
    other.second = __shfl_xor_sync(kFullWarp, state.second, apart);
  }
  return other;
}

// The states of the lanes that walk a row for the same columns become one, in each of them.
template <class Reducer, int kPack>
__device__ __forceinline__ void merge_lanes(const Reducer& reducer, int edge_shift, int row_shift,
                                            typename Reducer::State (&state)[kPack]) {
  for (int apart = 1 << edge_shift; apart < 1 << row_shift; apart *= 2) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) reducer.merge(state[i], shuffled_state(state[i], apart));
  }
}

template <class Reducer>
__device__ __forceinline__ void save_state(const ChunkStates& states, int64_t offset,
                                           const typename Reducer::State& state) {
  static_cast<typename Reducer::compute*>(states.first)[offset] = state.first;
  if constexpr (Reducer::kHasSecond) {
    static_cast<typename Reducer::second_t*>(states.second)[offset] = state.second;
  }
}

template <class Reducer>
__device__ __forceinline__ typename Reducer::State load_state(const ChunkStates& states,
                                                              int64_t offset) {
  typename Reducer::State state;
  state.first = static_cast<const typename Reducer::compute*>(states.first)[offset];
  if constexpr (Reducer::kHasSecond) {
    state.second = static_cast<const typename Reducer::second_t*>(states.second)[offset];
  }
  return state;
}

// -- results --------------------------------------------------------------------------------------

template <typename scalar_t>
constexpr ScalarType scalar_type_of = ScalarType::kFloat32;
template <>
inline constexpr ScalarType scalar_type_of<double> = ScalarType::kFloat64;
template <>
inline constexpr ScalarType scalar_type_of<bfloat16> = ScalarType::kBFloat16;
template <>
inline constexpr ScalarType scalar_type_of<float16> = ScalarType::kFloat16;

// One element of a type known at run time.
__device__ __forceinline__ void store_scalar(void* out, ScalarType type, int64_t offset,
                                             double value) {
  if (type == ScalarType::kFloat64) static_cast<double*>(out)[offset] = value;
}
__device__ __forceinline__ void store_scalar(void* out, ScalarType type, int64_t offset,
                                             float value) {
  if (type == ScalarType::kFloat32) {
    static_cast<float*>(out)[offset] = value;
  } else if (type == ScalarType::kBFloat16) {
    static_cast<bfloat16*>(out)[offset] = from_compute<bfloat16>(value);
  } else {
    static_cast<float16*>(out)[offset] = from_compute<float16>(value);
  }
}

__device__ __forceinline__ void store_argument(const RowResults& results, int64_t offset,
                                               int position) {
  const int stored = position == kNowhere ? -1 : position;
  if (results.argument_size == 1) {
    static_cast<uint8_t*>(results.argument)[offset] = static_cast<uint8_t>(stored);
  } else if (results.argument_size == 2) {
    static_cast<uint16_t*>(results.argument)[offset] = static_cast<uint16_t>(stored);
  } else {
    static_cast<int*>(results.argument)[offset] = stored;
  }
}

// Beside the results of a row what tells where they were found, or what a gradient is made of.
template <class Reducer>
__device__ __forceinline__ void store_beside(const RowResults& results, int64_t row, int64_t column,
                                             const typename Reducer::State& state) {
  if (results.argument == nullptr) return;
  if constexpr (Reducer::kSelects) {
    store_argument(results, row * results.width + column, state.second);
  } else if constexpr (Reducer::kHasSecond) {
    using compute_t = typename Reducer::compute;
    compute_t* const statistics =
        static_cast<compute_t*>(results.argument) + 2 * row * results.width + column;
    // Where all are -inf, the shift is not: their distance from it is, and never NaN.
    statistics[0] = state.first == -infinity<compute_t>() ? compute_t{0} : state.first;
    statistics[results.width] = state.second == 0 ? compute_t{0} : 1 / state.second;
  }
}

}  // namespace gnnkern::cuda
