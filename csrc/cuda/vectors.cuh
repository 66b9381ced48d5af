// Elements in memory and in registers: rows are read and written 16 bytes at a time, and
// computed with in float, or in double.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "dispatch.h"

namespace gnnkern::cuda {

// -- one element ----------------------------------------------------------------------------------

__device__ __forceinline__ float to_compute(float value) { return value; }
__device__ __forceinline__ double to_compute(double value) { return value; }
// A bfloat16 is the upper half of a float.
__device__ __forceinline__ float to_compute(bfloat16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}
__device__ __forceinline__ float to_compute(float16 value) {
  return __half2float(__ushort_as_half(value.bits));
}

// Rounded to nearest, ties to even; NaN stays NaN.
template <typename scalar_t>
__device__ __forceinline__ scalar_t from_compute(compute_of<scalar_t> value) {
  return value;
}
template <>
__device__ __forceinline__ bfloat16 from_compute<bfloat16>(float value) {
  return bfloat16{__bfloat16_as_ushort(__float2bfloat16_rn(value))};
}
template <>
__device__ __forceinline__ float16 from_compute<float16>(float value) {
  return float16{__half_as_ushort(__float2half_rn(value))};
}

// -- several elements -----------------------------------------------------------------------------

// An unsigned value of so many bytes, which one instruction loads or stores.
template <int bytes>
struct Word;
template <>
struct Word<1> {
  using type = unsigned char;
};
template <>
struct Word<2> {
  using type = unsigned short;
};
template <>
struct Word<4> {
  using type = unsigned int;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};
template <int bytes>
using word_of = typename Word<bytes>::type;

// How many elements of scalar_t 16 bytes hold.
template <typename scalar_t>
constexpr int kVectorLanes = 16 / static_cast<int>(sizeof(scalar_t));

// `lanes` elements as they lie in memory: in words of up to 16 bytes, to whose size they are
// aligned.
template <typename scalar_t, int lanes>
struct Pack {
  static constexpr int kBytes = lanes * static_cast<int>(sizeof(scalar_t));
  static constexpr int kWordBytes = kBytes < 16 ? kBytes : 16;
  static constexpr int kWords = kBytes / kWordBytes;
  static_assert(kWords * kWordBytes == kBytes, "a power of two of elements");
  using word_t = word_of<kWordBytes>;
  using compute_t = compute_of<scalar_t>;
  word_t words[kWords];

  // From memory that the kernel does not write.
  __device__ __forceinline__ void load(const scalar_t* from) {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = __ldg(reinterpret_cast<const word_t*>(from) + i);
  }
  // From memory that the kernel also writes.
  __device__ __forceinline__ void load_mutable(const scalar_t* from) {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = reinterpret_cast<const word_t*>(from)[i];
  }
  __device__ __forceinline__ void store(scalar_t* to) const {
#pragma unroll
    for (int i = 0; i < kWords; ++i) reinterpret_cast<word_t*>(to)[i] = words[i];
  }
  __device__ __forceinline__ void unpack(compute_t (&values)[lanes]) const {
    scalar_t elements[lanes];
    memcpy(elements, words, kBytes);
#pragma unroll
    for (int i = 0; i < lanes; ++i) values[i] = to_compute(elements[i]);
  }
  __device__ __forceinline__ void pack(const compute_t (&values)[lanes]) {
    scalar_t elements[lanes];
#pragma unroll
    for (int i = 0; i < lanes; ++i) elements[i] = from_compute<scalar_t>(values[i]);
    memcpy(words, elements, kBytes);
  }
};

template <int lanes, typename scalar_t>
__device__ __forceinline__ void load(const scalar_t* from, compute_of<scalar_t> (&values)[lanes]) {
  Pack<scalar_t, lanes> pack;
  pack.load(from);
  pack.unpack(values);
}
template <int lanes, typename scalar_t>
__device__ __forceinline__ void store(scalar_t* to, const compute_of<scalar_t> (&values)[lanes]) {
  Pack<scalar_t, lanes> pack;
  pack.pack(values);
  pack.store(to);
}

// -- on the host ----------------------------------------------------------------------------------

// Whether all of these, sizes in bytes or addresses, are multiples of 16.
template <typename... Values>
inline bool all_aligned(Values... values) {
  return (... && (static_cast<uint64_t>(values) % 16 == 0));
}
inline uint64_t address_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// Calls body.template operator()<scalar_t, lanes>() with a 16-byte vector where `aligned`, or with
// one element.
template <typename Body>
inline void dispatch_vectors(ScalarType type, bool aligned, Body&& body) {
  dispatch_float(type, [&]<typename scalar_t>() {
    if (aligned) return body.template operator()<scalar_t, kVectorLanes<scalar_t>>();
    return body.template operator()<scalar_t, 1>();
  });
}

}  // namespace gnnkern::cuda
