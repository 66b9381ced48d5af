// The one way to start a kernel: on a stream, without waiting, with the op's name in the error.
//
// cudaLaunchKernelEx is a function, so that the host executor of the tests can stand in its place
// and the same launchers compile for both.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace gnnkern::cuda {

constexpr int kWarp = 32;
constexpr unsigned kFullWarp = 0xffffffffu;
// What a kernel gets without asking; more is asked for at the launch.
constexpr size_t kPlainSharedBytes = 48 * 1024;

// How many blocks of `per_block` items there are: in 64 bits, since a launch checks its range.
constexpr int64_t blocks_of(int64_t items, int64_t per_block) {
  return (items + per_block - 1) / per_block;
}

[[noreturn]] inline void fail_launch(const char* op, const std::string& why) {
  throw std::runtime_error(std::string(op) + ": the launch of its CUDA kernel failed: " + why);
}

// The sizes of a grid; x may be up to 2^31 - 1, y and z up to 65535.
struct Grid {
  int64_t x;
  int64_t y = 1;
  int64_t z = 1;
};

// Starts `kernel` on `stream`, a cudaStream_t; a grid of size 0 is none.
template <typename... Parameters, typename... Arguments>
void launch(const char* op, void (*kernel)(Parameters...), Grid grid, dim3 block,
            size_t shared_bytes, void* stream, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535) {
    fail_launch(op, "a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                        std::to_string(grid.z) + " blocks is beyond what a device takes");
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                        static_cast<unsigned>(grid.z));
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaError_t error = cudaSuccess;
  if (shared_bytes > kPlainSharedBytes) {
    error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared_bytes));
  }
  if (error == cudaSuccess) {
    error = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  }
  if (error != cudaSuccess) {
    // The error is told here: the next launch must not find it again.
    cudaGetLastError();
    fail_launch(op, cudaGetErrorString(error));
  }
}

}  // namespace gnnkern::cuda
