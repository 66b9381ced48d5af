// Sorting pairs of numbers on the device, stably. For the host executor the path of includes has a
// header of CUB's name that sorts on the processor.
#pragma once

#include <cub/device/device_radix_sort.cuh>

#include "launch.cuh"

namespace gnnkern::cuda {

// Rows and edges are fewer than 2^32; with a count of 64 bits CUB's kernel for sm_100 spills.
inline uint32_t count_of(int64_t count) { return static_cast<uint32_t>(count); }

// How many bytes `sort_pairs` works in.
inline size_t sort_pairs_bytes(int64_t count, int bits) {
  size_t bytes = 0;
  const uint32_t* in = nullptr;
  uint32_t* out = nullptr;
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, in, out, in, out, count_of(count), 0, bits);
  return bytes;
}

// Pairs (key, value) by the lowest so many bits of the key.
inline void sort_pairs(const char* op, void* workspace, size_t bytes, const uint32_t* keys,
                       uint32_t* sorted_keys, const uint32_t* values, uint32_t* sorted_values,
                       int64_t count, int bits, void* stream) {
  const cudaError_t error =
      cub::DeviceRadixSort::SortPairs(workspace, bytes, keys, sorted_keys, values, sorted_values,
                                      count_of(count), 0, bits, static_cast<cudaStream_t>(stream));
  if (error == cudaSuccess) return;
  cudaGetLastError();
  fail_launch(op, cudaGetErrorString(error));
}

}  // namespace gnnkern::cuda
