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
// Without kTracks only the value is kept.
template <typename compute_t, bool kSmallest, bool kTracks>
struct SelectReducer {
  static constexpr bool kSelects = kTracks;
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
#if defined(__AVX512F__)
    // By hand, since GCC 12 would carry the masks through vector registers and back.
    constexpr int kNotWorse = kSmallest ? _CMP_NGE_UQ : _CMP_NLE_UQ;
    if constexpr (sizeof(compute_t) == 4) {
      const auto ordered = _mm512_cmp_ps_mask((__m512)state.value, (__m512)state.value, _CMP_ORD_Q);
      const auto beats =
          _mm512_mask_cmp_ps_mask(ordered, (__m512)later.value, (__m512)state.value, kNotWorse);
      state.value =
          (vec<compute_t>)_mm512_mask_mov_ps((__m512)state.value, beats, (__m512)later.value);
      if constexpr (kTracks)
        state.position = (vec_mask<compute_t>)_mm512_mask_mov_epi32((__m512i)state.position, beats,
                                                                    (__m512i)later.position);
    } else {
      const auto ordered =
          _mm512_cmp_pd_mask((__m512d)state.value, (__m512d)state.value, _CMP_ORD_Q);
      const auto beats =
          _mm512_mask_cmp_pd_mask(ordered, (__m512d)later.value, (__m512d)state.value, kNotWorse);
      state.value =
          (vec<compute_t>)_mm512_mask_mov_pd((__m512d)state.value, beats, (__m512d)later.value);
      if constexpr (kTracks)
        state.position = (vec_mask<compute_t>)_mm512_mask_mov_epi64((__m512i)state.position, beats,
                                                                    (__m512i)later.position);
    }
#else
    const auto loses = kSmallest ? later.value >= state.value : later.value <= state.value;
    const auto beats = ~loses & (state.value == state.value);
    state.value = beats ? later.value : state.value;
    if constexpr (kTracks) state.position = beats ? later.position : state.position;
#endif
  }
  vec<compute_t> value(const State& state) const { return state.value; }
};

}  // namespace gnnkern::GNNKERN_ISA
