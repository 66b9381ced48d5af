// Shared memory of a block, by type: on a device `__shared__`, on the host executor storage that is
// filled with NaN before each block.
//
// A kernel declares what its threads share as one struct, and takes it at its beginning:
//     struct Shared { float partial[8][32]; int count; };
//     auto& shared = block_shared<Shared>();
// `__shared__` itself stands nowhere else: the executor could not find what it declares.
#pragma once

#include <cuda_runtime.h>

namespace gnnkern::cuda {

#if defined(__CUDACC__)

// The same storage for every call with the type T in a kernel; T has no constructor.
template <typename T>
__device__ __forceinline__ T& block_shared() {
  __shared__ T storage;
  return storage;
}

// The bytes that the launch asked for, aligned to 16.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char gnnkern_dynamic_shared[];
  return reinterpret_cast<T*>(gnnkern_dynamic_shared);
}

#else

using cuda_host::block_shared;
using cuda_host::dynamic_shared;

#endif

}  // namespace gnnkern::cuda
