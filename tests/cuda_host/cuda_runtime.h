// What the kernels and launchers of csrc/cuda use of CUDA's header, on the host executor.
//
// Only what is used is here: a name that is missing does not compile.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>

#include "executor.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

#include "vector_types.h"
// After the types that they are about.
#include "atomics.h"
#include "intrinsics.h"
#include "warp.h"

// -- where a thread is ----------------------------------------------------------------------------

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// -- barriers -------------------------------------------------------------------------------------

inline void __syncthreads(cuda_host::Place place = cuda_host::Place::current()) {
  cuda_host::wait_for_block(cuda_host::Vote::kNone, 0, place);
}
inline int __syncthreads_count(int predicate,
                               cuda_host::Place place = cuda_host::Place::current()) {
  return cuda_host::wait_for_block(cuda_host::Vote::kCount, predicate, place);
}
inline int __syncthreads_and(int predicate, cuda_host::Place place = cuda_host::Place::current()) {
  return cuda_host::wait_for_block(cuda_host::Vote::kAnd, predicate, place);
}
inline int __syncthreads_or(int predicate, cuda_host::Place place = cuda_host::Place::current()) {
  return cuda_host::wait_for_block(cuda_host::Vote::kOr, predicate, place);
}
// Memory is always as the thread that runs sees it.
inline void __threadfence() {}
inline void __threadfence_block() {}

// -- the runtime ----------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess = 0, cudaErrorLaunchFailure = 719 };
struct CUstream_st;
using cudaStream_t = CUstream_st*;

namespace cuda_host {
inline std::string& last_error() {
  static std::string text;
  return text;
}
}  // namespace cuda_host

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : cuda_host::last_error().c_str();
}

inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
struct cudaFuncAttributes {};
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) { return cudaSuccess; }

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
  cuda_host::allow_dynamic_bytes(kernel, static_cast<size_t>(bytes));
  return cudaSuccess;
}

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> parameters;
  };
  Call call{kernel, std::tuple<Parameters...>(std::forward<Arguments>(arguments)...)};
  const auto invoke = [](void* context) {
    auto& of_thread = *static_cast<Call*>(context);
    std::apply(of_thread.kernel, of_thread.parameters);
  };
  const dim3 grid = config->gridDim, block = config->blockDim;
  cuda_host::last_error() = cuda_host::run({{grid.x, grid.y, grid.z},
                                            {block.x, block.y, block.z},
                                            config->dynamicSmemBytes,
                                            reinterpret_cast<const void*>(kernel),
                                            invoke,
                                            &call});
  return cuda_host::last_error().empty() ? cudaSuccess : cudaErrorLaunchFailure;
}
