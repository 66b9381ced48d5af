// What the CUDA runtime says about this machine.

#include <cuda_runtime.h>

#include "kernels.h"

namespace gnnkern::cuda {

namespace {

// The question whether the current device has code for it is asked about this kernel.
__global__ void probe_kernel() {}

std::string version_of(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

}  // namespace

std::string unusable() {
  int driver = 0, runtime = 0, devices = 0;
  cudaRuntimeGetVersion(&runtime);
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "there is no CUDA driver";
  if (driver / 1000 < runtime / 1000) {
    return "the CUDA driver is too old: it is of " + version_of(driver) + ", the build of " +
           version_of(runtime);
  }
  cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaSuccess) {
    cudaFuncAttributes attributes;
    error = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(probe_kernel));
  }
  if (error == cudaSuccess) return "";
  cudaGetLastError();
  return cudaGetErrorString(error);
}

}  // namespace gnnkern::cuda
