// CUB's radix sort for the host executor: the same call, by a stable sort of the processor.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace cub {

struct DeviceRadixSort {
  template <typename key_t, typename value_t, typename count_t>
  static cudaError_t SortPairs(void* workspace, size_t& bytes, const key_t* keys,
                               key_t* sorted_keys, const value_t* values, value_t* sorted_values,
                               count_t count, int begin_bit, int end_bit, cudaStream_t = nullptr) {
    if (workspace == nullptr) {
      bytes = 1;
      return cudaSuccess;
    }
    const uint64_t mask = (uint64_t{1} << end_bit) - (uint64_t{1} << begin_bit);
    std::vector<count_t> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), count_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](count_t a, count_t b) { return (keys[a] & mask) < (keys[b] & mask); });
    for (size_t i = 0; i < order.size(); ++i) {
      sorted_keys[i] = keys[order[i]];
      sorted_values[i] = values[order[i]];
    }
    return cudaSuccess;
  }
};

}  // namespace cub
