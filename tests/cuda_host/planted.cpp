// Kernels with planted faults, and one for each thing that the executor promises.

#include "planted.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>

#include "cuda/launch.cuh"
#include "cuda/shared.cuh"

namespace planted {

using gnnkern::cuda::block_shared;
using gnnkern::cuda::dynamic_shared;
using gnnkern::cuda::launch;

namespace {

constexpr int kThreads = 64;
constexpr unsigned kAll = 0xffffffffu;

// -- faults ---------------------------------------------------------------------------------------

struct Numbers {
  int at[kThreads];
};

// out[i] = what the next thread wrote, if it has been waited for.
__global__ void neighbour_kernel(int* out, bool waits) {
  auto& numbers = block_shared<Numbers>();
  const unsigned thread = threadIdx.x;
  numbers.at[thread] = static_cast<int>(thread);
  if (waits) __syncthreads();
  out[thread] = numbers.at[(thread + 1) % kThreads];
}

// The same between the lanes of a warp.
__global__ void lanes_kernel(int* out, bool waits) {
  auto& numbers = block_shared<Numbers>();
  const unsigned thread = threadIdx.x;
  numbers.at[thread] = static_cast<int>(thread);
  if (waits) __syncwarp();
  out[thread] = numbers.at[thread ^ 1];
}

__global__ void barrier_not_reached_kernel() {
  if (threadIdx.x < 40) __syncthreads();
}
__global__ void different_barriers_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void barrier_and_warp_kernel() {
  if (threadIdx.x == 5) {
    __syncthreads();
  } else {
    __syncwarp();
    __syncthreads();
  }
}
__global__ void lane_missing_kernel() {
  if (threadIdx.x % 32 != 7) __shfl_sync(kAll, 1, 0);
}
__global__ void lanes_apart_kernel() {
  if (threadIdx.x % 32 < 16) {
    __ballot_sync(kAll, 1);
  } else {
    __shfl_sync(kAll, 1, 0);
  }
}
__global__ void unnamed_lane_kernel() {
  if (threadIdx.x % 32 < 16) __shfl_sync(0xffffu, 1, 20);
}
__global__ void own_lane_unnamed_kernel() { __syncwarp(0xfffffffeu); }
__global__ void whole_warp_kernel() { __syncwarp(); }
__global__ void beyond_shared_kernel() {
  block_shared<Numbers>().at[kThreads + threadIdx.x % 2] = 1;
}
__global__ void beyond_dynamic_kernel() { dynamic_shared<char>()[100] = 1; }
struct TooMuch {
  char bytes[48 * 1024 + 1];
};
__global__ void too_much_shared_kernel() { block_shared<TooMuch>().bytes[0] = 1; }

// -- what is promised -----------------------------------------------------------------------------

// Where every thread comes in the order of its block, and every block in that of the grid.
__global__ void order_kernel(int* out, int* clock) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  out[thread] = atomicAdd(clock, 1);
}

// Every index that a thread has, of a grid and a block of three dimensions.
__global__ void index_kernel(int* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned number = block * blockDim.x * blockDim.y * blockDim.z + thread;
  out[number] = static_cast<int>(number);
}

struct Untouched {
  float number;
};
__global__ void poison_kernel(float* out) {
  out[2 * blockIdx.x] = block_shared<Untouched>().number;
  out[2 * blockIdx.x + 1] = dynamic_shared<float>()[3];
  block_shared<Untouched>().number = 1;
  dynamic_shared<float>()[3] = 1;
}

template <typename T>
__global__ void warp_kernel(T* out, const T* in, int amount, int width) {
  const unsigned lane = threadIdx.x;
  const T value = in[lane];
  T* const to = out + lane;
  to[0] = __shfl_sync(kAll, value, amount, width);
  to[32] = __shfl_up_sync(kAll, value, amount, width);
  to[64] = __shfl_down_sync(kAll, value, amount, width);
  to[96] = __shfl_xor_sync(kAll, value, amount, width);
}

__global__ void vote_kernel(int* out, const int* in) {
  const unsigned lane = threadIdx.x;
  const int value = in[lane];
  const auto bits = static_cast<unsigned>(value);
  // Odd and even lanes apart.
  const unsigned mask = lane % 2 ? 0xaaaaaaaau : 0x55555555u;
  int* const to = out + lane;
  to[0] = static_cast<int>(__ballot_sync(mask, value > 0));
  to[32] = __any_sync(mask, value > 1000);
  to[64] = __all_sync(mask, value > -1000);
  to[96] = static_cast<int>(__match_any_sync(mask, value));
  to[128] = __reduce_add_sync(mask, value);
  to[160] = __reduce_min_sync(mask, value);
  to[192] = __reduce_max_sync(mask, value);
  to[224] = static_cast<int>(__reduce_and_sync(mask, bits));
  to[256] = static_cast<int>(__reduce_or_sync(mask, bits));
  to[288] = static_cast<int>(__reduce_xor_sync(mask, bits));
  to[320] = __syncthreads_count(value > 0);
  to[352] = __syncthreads_and(value > 0);
  to[384] = __syncthreads_or(value > 0);
}

// Each number of `out` by another operation, over all threads.
__global__ void atomic_kernel(int* out, const int* in) {
  const int value = in[blockIdx.x * blockDim.x + threadIdx.x];
  atomicAdd(out, value);
  atomicSub(out + 1, value);
  atomicMin(out + 2, value);
  atomicMax(out + 3, value);
  atomicAnd(out + 4, value);
  atomicOr(out + 5, value);
  atomicXor(out + 6, value);
  // Counts the negative ones, by compare and swap.
  int seen = out[7];
  while (value < 0) {
    const int before = atomicCAS(out + 7, seen, seen + 1);
    if (before == seen) break;
    seen = before;
  }
  atomicInc(reinterpret_cast<unsigned*>(out + 8), 2u);
}

// Vectors of multiples of each number, added to four and two neighbours.
__global__ void vector_atomic_kernel(float* out, const float* in) {
  const float value = in[blockIdx.x * blockDim.x + threadIdx.x];
  atomicAdd(reinterpret_cast<float4*>(out), make_float4(value, 2 * value, 3 * value, 4 * value));
  atomicAdd(reinterpret_cast<float2*>(out + 4), make_float2(5 * value, 6 * value));
}

__global__ void convert_kernel(float* from_half, float* from_bfloat16, unsigned short* to_half,
                               unsigned short* to_bfloat16, const float* in, int count) {
  const unsigned number = blockIdx.x * blockDim.x + threadIdx.x;
  const auto bits = static_cast<unsigned short>(number);
  from_half[number] = __half2float(__ushort_as_half(bits));
  from_bfloat16[number] = __bfloat162float(__ushort_as_bfloat16(bits));
  if (number >= static_cast<unsigned>(count)) return;
  to_half[number] = __half_as_ushort(__float2half_rn(in[number]));
  to_bfloat16[number] = __bfloat16_as_ushort(__float2bfloat16_rn(in[number]));
}

}  // namespace

void fault(const std::string& name) {
  const auto plant = [&](void (*kernel)(), size_t shared_bytes = 0, int threads = kThreads) {
    launch(name.c_str(), kernel, {3}, threads, shared_bytes, nullptr);
  };
  if (name == "barrier_not_reached") return plant(barrier_not_reached_kernel);
  if (name == "different_barriers") return plant(different_barriers_kernel);
  if (name == "barrier_and_warp") return plant(barrier_and_warp_kernel);
  if (name == "lane_missing") return plant(lane_missing_kernel);
  if (name == "lanes_apart") return plant(lanes_apart_kernel);
  if (name == "unnamed_lane") return plant(unnamed_lane_kernel);
  if (name == "own_lane_unnamed") return plant(own_lane_unnamed_kernel);
  if (name == "lanes_beyond_block") return plant(whole_warp_kernel, 0, 48);
  if (name == "beyond_shared") return plant(beyond_shared_kernel);
  if (name == "beyond_dynamic") return plant(beyond_dynamic_kernel, 100);
  if (name == "too_much_shared") return plant(too_much_shared_kernel);
  if (name == "too_much_dynamic") return plant(barrier_not_reached_kernel, 228 * 1024);
  throw std::invalid_argument("no fault " + name);
}

void neighbour(int* out, bool in_warp, bool waits) {
  launch("neighbour", in_warp ? lanes_kernel : neighbour_kernel, {1}, kThreads, 0, nullptr, out,
         waits);
}
void order(int* out, int blocks, int threads) {
  int clock = 0;
  launch("order", order_kernel, {blocks}, threads, 0, nullptr, out, &clock);
}
void indices(int* out) {
  launch("indices", index_kernel, {2, 3, 2}, dim3(4, 2, 3), 0, nullptr, out);
}
void poison(float* out, int blocks) {
  launch("poison", poison_kernel, {blocks}, 1, 64 * 1024, nullptr, out);
}
void shuffles(float* out, const float* in, int amount, int width) {
  launch("shuffles", warp_kernel<float>, {1}, 32, 0, nullptr, out, in, amount, width);
}
void shuffles(double* out, const double* in, int amount, int width) {
  launch("shuffles", warp_kernel<double>, {1}, 32, 0, nullptr, out, in, amount, width);
}
void votes(int* out, const int* in) { launch("votes", vote_kernel, {1}, 32, 0, nullptr, out, in); }
void atomics(int* out, const int* in, int blocks) {
  launch("atomics", atomic_kernel, {blocks}, 32, 0, nullptr, out, in);
}
void vector_atomics(float* out, const float* in, int blocks) {
  launch("vector_atomics", vector_atomic_kernel, {blocks}, 32, 0, nullptr, out, in);
}
void conversions(float* from_half, float* from_bfloat16, unsigned short* to_half,
                 unsigned short* to_bfloat16, const float* in, int count) {
  launch("conversions", convert_kernel, {65536 / 256}, 256, 0, nullptr, from_half, from_bfloat16,
         to_half, to_bfloat16, in, count);
}

}  // namespace planted
