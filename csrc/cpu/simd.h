// Vectors of the widest registers the instruction set offers, loaded from any scalar type.
//
// Compiled once per instruction set, inside a namespace of its own: nothing here may be shared
// between two of them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../dispatch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef GNNKERN_ISA
#error "GNNKERN_ISA names the instruction set this file is compiled for"
#endif

// For what several loops share and none has to have inside: compiled once instead of once in each.
#define GNNKERN_NOINLINE __attribute__((noinline))

namespace gnnkern::GNNKERN_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

// Numbers of rows inside the kernels. What needs more than 32 bits runs on the instruction set that
// is compiled with wide ones.
#if defined(GNNKERN_WIDE_ROWS)
using row_t = int64_t;
#else
using row_t = int32_t;
#endif

template <typename compute_t>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t mask __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t bits __attribute__((vector_size(kVectorBytes)));
  typedef uint16_t half __attribute__((vector_size(kVectorBytes / 2)));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t mask __attribute__((vector_size(kVectorBytes)));
};

template <typename compute_t>
using vec = typename VecOf<compute_t>::type;
// Integers as wide as the lanes: comparison results, lane numbers, positions.
template <typename compute_t>
using vec_mask = typename VecOf<compute_t>::mask;
template <typename compute_t>
using lane_int = std::conditional_t<sizeof(compute_t) == 8, int64_t, int32_t>;

template <typename compute_t>
inline constexpr int kLanes = kVectorBytes / sizeof(compute_t);

template <typename compute_t>
inline constexpr compute_t kMinusInfinity = -__builtin_huge_val();

template <typename compute_t>
static inline vec<compute_t> broadcast(compute_t value) {
  return vec<compute_t>{} + value;
}

template <typename compute_t>
static inline vec_mask<compute_t> broadcast_int(int64_t value) {
  return vec_mask<compute_t>{} + static_cast<lane_int<compute_t>>(value);
}

template <typename compute_t>
static inline vec_mask<compute_t> lane_numbers() {
  vec_mask<compute_t> lanes;
  for (int lane = 0; lane < kLanes<compute_t>; ++lane) lanes[lane] = lane;
  return lanes;
}

// -- halves ----------------------------------------------------------------------------------

using vec_half_bits = VecOf<float>::half;
using vec_float_bits = VecOf<float>::bits;

static inline vec<float> widen(vec_half_bits bits, bfloat16) {
  return (vec<float>)(__builtin_convertvector(bits, vec_float_bits) << 16);
}

// Round to nearest, ties to even; a NaN stays a NaN.
static inline vec_half_bits narrow(vec<float> value, bfloat16) {
  const vec_float_bits bits = (vec_float_bits)value;
  const vec_float_bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const vec_float_bits quiet_nan = (bits >> 16) | 0x40u;
  return __builtin_convertvector(value == value ? rounded : quiet_nan, vec_half_bits);
}

static inline vec<float> widen(vec_half_bits bits, float16) {
#if defined(__AVX512F__)
  return (vec<float>)_mm512_cvtph_ps((__m256i)bits);
#elif defined(__AVX2__)
  return (vec<float>)_mm256_cvtph_ps((__m128i)bits);
#else
  // A multiplication by 2^112 moves the exponent and normalises subnormals in one step.
  const vec_float_bits wide = __builtin_convertvector(bits, vec_float_bits);
  const vec_float_bits magnitude = (wide & 0x7fffu) << 13;
  const vec<float> scaled = (vec<float>)magnitude * 0x1p112f;
  const vec_float_bits finite = (vec_float_bits)scaled;
  const vec_float_bits special = magnitude | 0x7f800000u;
  return (vec<float>)(((wide & 0x7c00u) == 0x7c00u ? special : finite) | ((wide & 0x8000u) << 16));
#endif
}

static inline vec_half_bits narrow(vec<float> value, float16) {
#if defined(__AVX512F__)
  return (vec_half_bits)_mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__AVX2__)
  return (vec_half_bits)_mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT);
#else
  const vec_float_bits bits = (vec_float_bits)value;
  const vec_float_bits magnitude = bits & 0x7fffffffu;
  const vec_float_bits normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Adding 0.5 aligns the last bit of a subnormal half with the last bit of the float.
  const vec_float_bits subnormal = (vec_float_bits)((vec<float>)magnitude + 0.5f) - 0x3f000000u;
  vec_float_bits half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? (vec_float_bits{} + 0x7c00u) : half;
  half = magnitude > 0x7f800000u ? (vec_float_bits{} + 0x7e00u) : half;
  return __builtin_convertvector(half | ((bits >> 16) & 0x8000u), vec_half_bits);
#endif
}

// -- loads and stores ------------------------------------------------------------------------

template <typename scalar_t>
static inline vec<compute_of<scalar_t>> load(const scalar_t* from) {
  if constexpr (sizeof(scalar_t) == 2) {
    vec_half_bits bits;
    std::memcpy(&bits, from, sizeof(bits));
    return widen(bits, scalar_t{});
  } else {
    vec<scalar_t> value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
}

template <typename scalar_t>
static inline void store(scalar_t* to, vec<compute_of<scalar_t>> value) {
  if constexpr (sizeof(scalar_t) == 2) {
    const vec_half_bits bits = narrow(value, scalar_t{});
    std::memcpy(to, &bits, sizeof(bits));
  } else {
    std::memcpy(to, &value, sizeof(value));
  }
}

// The first `count` lanes; the others are 0 and their memory is not touched.
#if defined(__AVX2__) && !defined(__AVX512F__)
// Ones in the first `count` lanes, as masked loads and stores take them.
template <typename compute_t>
static inline __m256i first_lanes(int count) {
  constexpr int W = kLanes<compute_t>;
  alignas(64) static constexpr auto kOnes = [] {
    struct {
      lane_int<compute_t> lanes[2 * W];
    } ones{};
    for (int lane = 0; lane < W; ++lane) ones.lanes[lane] = -1;
    return ones;
  }();
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kOnes.lanes + W - count));
}
#endif

template <typename scalar_t>
static inline vec<compute_of<scalar_t>> load_first(const scalar_t* from, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(scalar_t) == 2) {
    return widen((vec_half_bits)_mm256_maskz_loadu_epi16((1u << count) - 1, from), scalar_t{});
  } else if constexpr (sizeof(scalar_t) == 4) {
    return (vec<float>)_mm512_maskz_loadu_ps((1u << count) - 1, from);
  } else {
    return (vec<double>)_mm512_maskz_loadu_pd((1u << count) - 1, from);
  }
#else
#if defined(__AVX2__)
  if constexpr (sizeof(scalar_t) == 4) {
    return (vec<float>)_mm256_maskload_ps(from, first_lanes<float>(count));
  } else if constexpr (sizeof(scalar_t) == 8) {
    return (vec<double>)_mm256_maskload_pd(from, first_lanes<double>(count));
  }
#endif
  scalar_t lanes[kLanes<compute_of<scalar_t>>] = {};
  for (int lane = 0; lane < count; ++lane) lanes[lane] = from[lane];
  return load(lanes);
#endif
}

template <typename scalar_t>
static inline void store_first(scalar_t* to, vec<compute_of<scalar_t>> value, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(scalar_t) == 2) {
    _mm256_mask_storeu_epi16(to, (1u << count) - 1, (__m256i)narrow(value, scalar_t{}));
  } else if constexpr (sizeof(scalar_t) == 4) {
    _mm512_mask_storeu_ps(to, (1u << count) - 1, (__m512)value);
  } else {
    _mm512_mask_storeu_pd(to, (1u << count) - 1, (__m512d)value);
  }
#else
  scalar_t lanes[kLanes<compute_of<scalar_t>>];
  store(lanes, value);
  for (int lane = 0; lane < count; ++lane) to[lane] = lanes[lane];
#endif
}

// At least the first `count` lanes, and all of them when memory up to `end` allows: the others then
// hold whatever follows.
template <typename scalar_t>
static inline vec<compute_of<scalar_t>> load_at_least(const scalar_t* from, int count,
                                                      const scalar_t* end) {
  return end - from >= kLanes<compute_of<scalar_t>> ? load(from) : load_first(from, count);
}

// One element. Single values go through the vector conversions, so that they round alike.
template <typename scalar_t>
static inline compute_of<scalar_t> load_one(const scalar_t* from) {
  if constexpr (sizeof(scalar_t) == 2) {
    return load_first(from, 1)[0];
  } else {
    return *from;
  }
}

template <typename scalar_t>
static inline void store_one(scalar_t* to, compute_of<scalar_t> value) {
  if constexpr (sizeof(scalar_t) == 2) {
    store_first(to, broadcast(value), 1);
  } else {
    *to = value;
  }
}

// Converts `count` elements in a row.
template <typename to_t, typename from_t>
static inline void convert(to_t* to, const from_t* from, int64_t count) {
  using compute_t = compute_of<from_t>;
  int64_t done = 0;
  for (; done + kLanes<compute_t> <= count; done += kLanes<compute_t>) {
    store(to + done, load(from + done));
  }
  if (done < count) {
    const int rest = static_cast<int>(count - done);
    store_first(to + done, load_first(from + done, rest), rest);
  }
}

// Copies a row of any type: no call, which for short rows takes longer than the copy.
static inline void copy_row(void* to, const void* from, int64_t bytes) {
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
  const auto copy = [&]<int kBytes>(int64_t offset) {
    typedef char block_t __attribute__((vector_size(kBytes)));
    block_t block;
    std::memcpy(&block, in + offset, kBytes);
    std::memcpy(out + offset, &block, kBytes);
  };
  if (bytes >= kVectorBytes) {
    for (int64_t offset = 0; offset < bytes; offset += kVectorBytes) {
      const int64_t last = bytes - kVectorBytes;
      copy.template operator()<kVectorBytes>(offset < last ? offset : last);
    }
    return;
  }
  // Two blocks that may overlap, or single elements.
  const auto in_two = [&]<int kBytes>() {
    if (bytes < kBytes) return false;
    copy.template operator()<kBytes>(0);
    copy.template operator()<kBytes>(bytes - kBytes);
    return true;
  };
  if (kVectorBytes > 32 && in_two.template operator()<32>()) return;
  if (kVectorBytes > 16 && in_two.template operator()<16>()) return;
  if (in_two.template operator()<8>() || in_two.template operator()<4>()) return;
  for (int64_t offset = 0; offset < bytes; ++offset) out[offset] = in[offset];
}

// -- arithmetic ------------------------------------------------------------------------------

// Lane `lane` of the result is lane `from[lane]` of `value`.
template <typename compute_t>
static inline vec<compute_t> permute(vec<compute_t> value, vec_mask<compute_t> from) {
  return __builtin_shuffle(value, from);
}

// Every lane receives the sum over its aligned group of `group` lanes (a power of two).
template <typename compute_t>
static inline vec<compute_t> sum_groups(vec<compute_t> value, int group) {
  const vec_mask<compute_t> lanes = lane_numbers<compute_t>();
  for (int step = 1; step < group; step *= 2) {
    value += permute<compute_t>(value, lanes ^ static_cast<lane_int<compute_t>>(step));
  }
  return value;
}

template <typename compute_t>
static inline compute_t sum_lanes(vec<compute_t> value) {
  return sum_groups<compute_t>(value, kLanes<compute_t>)[0];
}

template <typename compute_t>
static inline vec<compute_t> square_root(vec<compute_t> value) {
#if defined(__AVX512F__)
  if constexpr (sizeof(compute_t) == 4) return (vec<compute_t>)_mm512_sqrt_ps((__m512)value);
  return (vec<compute_t>)_mm512_sqrt_pd((__m512d)value);
#elif defined(__AVX2__)
  if constexpr (sizeof(compute_t) == 4) return (vec<compute_t>)_mm256_sqrt_ps((__m256)value);
  return (vec<compute_t>)_mm256_sqrt_pd((__m256d)value);
#else
  for (int lane = 0; lane < kLanes<compute_t>; ++lane) value[lane] = std::sqrt(value[lane]);
  return value;
#endif
}

// e^x to about one unit in the last place for x <= 0; below -87 the result flushes to 0.
static inline vec<float> exp_nonpositive(vec<float> x) {
  const vec<float> scaled = x * 1.44269504088896341f;
  // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
  const vec<float> shifted = scaled + 12582912.0f;
  const vec<float> n = shifted - 12582912.0f;
  vec<float> r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  vec<float> p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const vec<float> power = (vec<float>)(((vec_mask<float>)shifted + 127) << 23);
  const vec<float> result = p * power;
  return x < -87.0f ? vec<float>{} : result;
}

static inline vec<double> exp_nonpositive(vec<double> x) {
  vec<double> result;
  for (int lane = 0; lane < kLanes<double>; ++lane) result[lane] = std::exp(x[lane]);
  return result;
}

// The natural logarithm of x >= 1, to about one unit in the last place; NaN stays NaN.
static inline vec<float> log_at_least_one(vec<float> x) {
  // x = 2^exponent * m with m in [sqrt(1/2), sqrt(2)); log(m) = 2 artanh(s), whose series in
  // s^2 <= 0.0295 has reached 2e-10 after five terms.
  const vec_float_bits bits = (vec_float_bits)x;
  const vec_float_bits shifted = bits - 0x3f3504f3u;
  const vec<float> exponent = __builtin_convertvector((vec_mask<float>)shifted >> 23, vec<float>);
  const vec<float> m = (vec<float>)((shifted & 0x007fffffu) + 0x3f3504f3u);
  const vec<float> s = (m - 1.0f) / (m + 1.0f);
  const vec<float> square = s * s;
  vec<float> p = broadcast(2.0f / 9.0f);
  p = p * square + 2.0f / 7.0f;
  p = p * square + 2.0f / 5.0f;
  p = p * square + 2.0f / 3.0f;
  const vec<float> log_m = s * square * p + 2.0f * s;
  // The first part of log(2) has 9 bits, so that its product with the exponent is exact.
  const vec<float> result = exponent * 0.693359375f + (log_m - exponent * 2.12194440e-4f);
  return x == x ? result : x;
}

static inline vec<double> log_at_least_one(vec<double> x) {
  vec<double> result;
  for (int lane = 0; lane < kLanes<double>; ++lane) result[lane] = std::log(x[lane]);
  return result;
}

}  // namespace gnnkern::GNNKERN_ISA
