// Atomics: plain, since no other thread runs in between.
#pragma once

#include <algorithm>
#include <type_traits>

#include "vector_types.h"

namespace cuda_host {

// Puts function(*address) in the place of *address, and returns what was there.
template <typename T, typename Function>
T exchange(T* address, Function function) {
  const T before = *address;
  *address = function(before);
  return before;
}

}  // namespace cuda_host

#define CUDA_HOST_ATOMIC(name, expression)                                          \
  template <typename T>                                                             \
    requires std::is_arithmetic_v<T>                                                \
  T name(T* address, std::type_identity_t<T> value) {                               \
    return cuda_host::exchange(address, [&](T before) -> T { return expression; }); \
  }

CUDA_HOST_ATOMIC(atomicAdd, before + value)
CUDA_HOST_ATOMIC(atomicSub, before - value)
CUDA_HOST_ATOMIC(atomicExch, (static_cast<void>(before), value))
CUDA_HOST_ATOMIC(atomicMin, std::min(before, value))
CUDA_HOST_ATOMIC(atomicMax, std::max(before, value))
CUDA_HOST_ATOMIC(atomicAnd, before& value)
CUDA_HOST_ATOMIC(atomicOr, before | value)
CUDA_HOST_ATOMIC(atomicXor, before ^ value)
// Up to and including `value`, then 0.
CUDA_HOST_ATOMIC(atomicInc, before >= value ? 0 : before + 1)

#undef CUDA_HOST_ATOMIC

template <typename T>
  requires std::is_integral_v<T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return cuda_host::exchange(address, [&](T before) { return before == compare ? value : before; });
}

inline float2 atomicAdd(float2* address, float2 value) {
  return {atomicAdd(&address->x, value.x), atomicAdd(&address->y, value.y)};
}
inline float4 atomicAdd(float4* address, float4 value) {
  return {atomicAdd(&address->x, value.x), atomicAdd(&address->y, value.y),
          atomicAdd(&address->z, value.z), atomicAdd(&address->w, value.w)};
}
