// Rows reduced into the group that an unsorted index names, by atomics: no sort, no plan, and no
// order. Sums differ in their last bits from run to run; max and min do not.
#pragma once

#include <climits>

#include "messages.cuh"
#include "reduce.cuh"

// Atomics of four floats came with sm_90.
#if defined(GNNKERN_CUDA_HOST) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define GNNKERN_VECTOR_ATOMICS 1
#else
#define GNNKERN_VECTOR_ATOMICS 0
#endif

namespace gnnkern::cuda {

// -- cells: what the states of a group become in memory -------------------------------------------

// Adds to neighbouring numbers, 16 bytes at a time where the architecture can.
template <int count>
__device__ __forceinline__ void add_atomically(float* to, const float (&values)[count]) {
  if constexpr (GNNKERN_VECTOR_ATOMICS && count % 4 == 0) {
#pragma unroll
    for (int i = 0; i < count; i += 4) {
      atomicAdd(reinterpret_cast<float4*>(to + i),
                make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]));
    }
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i) atomicAdd(to + i, values[i]);
  }
}
template <int count>
__device__ __forceinline__ void add_atomically(double* to, const double (&values)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) atomicAdd(to + i, values[i]);
}

// Integers in the order of the numbers: -0 below 0, and a NaN above all of them. The least integer
// is that of no number.
__device__ __forceinline__ int ordered_bits(float value) {
  const int bits = value != value ? INT_MAX : __float_as_int(value);
  return bits >= 0 ? bits : bits ^ INT_MAX;
}
__device__ __forceinline__ long long ordered_bits(double value) {
  const long long bits = value != value ? LLONG_MAX : __double_as_longlong(value);
  return bits >= 0 ? bits : bits ^ LLONG_MAX;
}
__device__ __forceinline__ float from_ordered_bits(int bits) {
  return __int_as_float(bits >= 0 ? bits : bits ^ INT_MAX);
}
__device__ __forceinline__ double from_ordered_bits(long long bits) {
  return __longlong_as_double(bits >= 0 ? bits : bits ^ LLONG_MAX);
}

template <class Reducer>
struct Cells;

// Sums in the type that they are computed in, from 0 on.
template <typename compute_t>
struct Cells<SumReducer<compute_t>> {
  using State = typename SumReducer<compute_t>::State;
  using cell_t = compute_t;

  template <int kPack>
  static __device__ __forceinline__ void merge(cell_t* to, const State (&state)[kPack]) {
    cell_t values[kPack];
#pragma unroll
    for (int i = 0; i < kPack; ++i) values[i] = state[i].first;
    add_atomically(to, values);
  }
  static __device__ __forceinline__ State state(cell_t cell) { return {cell}; }
  static __device__ __forceinline__ bool has_message(cell_t) { return true; }
};

// The largest number as an integer, from the least integer on.
template <typename compute_t>
struct Cells<SelectReducer<compute_t>> {
  using State = typename SelectReducer<compute_t>::State;
  using cell_t = decltype(ordered_bits(compute_t{}));
  static constexpr cell_t kNone = sizeof(cell_t) == 4 ? INT_MIN : LLONG_MIN;

  template <int kPack>
  static __device__ __forceinline__ void merge(cell_t* to, const State (&state)[kPack]) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) atomicMax(to + i, ordered_bits(state[i].first));
  }
  static __device__ __forceinline__ State state(cell_t cell) {
    return {from_ordered_bits(cell), 0};
  }
  static __device__ __forceinline__ bool has_message(cell_t cell) { return cell != kNone; }
};

template <class Reducer>
using cell_of = typename Cells<Reducer>::cell_t;

// -- rows -----------------------------------------------------------------------------------------

// What a row has whose group does not exist.
constexpr number_t kNoGroup = 0xffffffffu;

// Rows of x as they lie, each with its group: a source of messages (messages.cuh).
template <typename scalar_t, int kPack>
struct GroupedRows {
  using compute_t = compute_of<scalar_t>;
  const scalar_t* x;  // rows stride apart
  int64_t stride;
  Integers index;  // [E]
  int64_t num_groups;
  long long* status;  // becomes the first row whose group does not exist
  unsigned* sizes;    // [num_groups] grow by the rows of a group; or null

  struct Edge {
    number_t position;
    number_t group;
  };
  using Early = NoEarly;
  struct Value {
    Pack<scalar_t, kPack> x;
    number_t group;
  };

  __device__ __forceinline__ void stand_at(int64_t column) { x += column; }
  __device__ __forceinline__ Edge edge(number_t position) const {
    const int64_t group = index[position];
    if (!in_range(group, num_groups)) {
      atomicMin(status, static_cast<long long>(position));
      return {position, kNoGroup};
    }
    if (sizes != nullptr) atomicAdd(sizes + group, 1u);
    return {position, static_cast<number_t>(group)};
  }
  __device__ __forceinline__ Edge shuffled(const Edge& own, int lane) const {
    return {__shfl_sync(kFullWarp, own.position, lane), __shfl_sync(kFullWarp, own.group, lane)};
  }
  __device__ __forceinline__ Early early(const Edge&) const { return {}; }
  __device__ __forceinline__ void load(const Edge& edge, Early, Value& value) const {
    value.x.load(x + static_cast<int64_t>(edge.position) * stride);
    value.group = edge.group;
  }
  __device__ __forceinline__ void unpack(const Value& value, compute_t (&message)[kPack]) const {
    value.x.unpack(message);
  }
};

// Rows that a warp walks.
constexpr int kRowsOfWarp = 128;

// Every row into the cells of its group. A warp walks consecutive rows as if they were one: those
// of one group that follow each other in a lane are reduced there, and go to memory together.
template <typename scalar_t, int kPack, int kUnroll, int kBlocks, class Reducer>
__global__ void __launch_bounds__(kWalkThreads, kBlocks)
    scatter_atomics_kernel(cell_of<Reducer>* cells,  // [num_groups, width]
                           GroupedRows<scalar_t, kPack> source, Reducer reducer, int64_t num_rows,
                           int64_t width, int edge_shift) {
  // Where am I
  const int64_t begin = item_of_warp() * kRowsOfWarp;
  if (begin >= num_rows) return;
  const RowPart part{0,     static_cast<number_t>(begin),
                     0,     static_cast<int>(min(num_rows - begin, int64_t{kRowsOfWarp})),
                     false, 5};
  const int edge_lane = lane_of_thread() & ((1 << edge_shift) - 1);
  const int64_t column = tile_of_block() * (int64_t{kPack} << edge_shift) + edge_lane * kPack;
  const bool active = column < width;
  if (active) source.stand_at(column);
  // One tile counts.
  if (tile_of_block() != 0) source.sizes = nullptr;

  // Load and reduce
  number_t group = kNoGroup;
  typename Reducer::State state[kPack];
  const auto store_group = [&] {
    if (group == kNoGroup) return;
    Cells<Reducer>::merge(cells + static_cast<int64_t>(group) * width + column, state);
  };
  walk_edges<kUnroll>(
      part, source, edge_shift, active,
      [&](const typename GroupedRows<scalar_t, kPack>::Value& value, int offset, bool valid) {
        if (!valid) return;
        if (value.group != group) {
          store_group();
          group = value.group;
#pragma unroll
          for (int i = 0; i < kPack; ++i) state[i] = reducer.start();
        }
        typename Reducer::compute message[kPack];
        source.unpack(value, message);
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          reducer.step(state[i], message[i], offset, true);
        }
      });
  store_group();
}

// -- results --------------------------------------------------------------------------------------

constexpr int kResultThreads = 256;

// The results of groups, of which `out` may be the cells themselves.
template <typename scalar_t, int kPack, class Reducer>
__global__ void __launch_bounds__(kResultThreads, 4)
    cell_results_kernel(scalar_t* out,                  // [num_groups, width]
                        const cell_of<Reducer>* cells,  // [num_groups, width]
                        const unsigned* sizes,          // [num_groups], or null
                        Reducer reducer, int64_t num_groups, int64_t width) {
  // Where am I
  const int64_t offset = (static_cast<int64_t>(blockIdx.x) * kResultThreads + threadIdx.x) * kPack;
  if (offset >= num_groups * width) return;

  // Load
  Pack<cell_of<Reducer>, kPack> pack;
  pack.load_mutable(cells + offset);
  cell_of<Reducer> cell[kPack];
  memcpy(cell, pack.words, sizeof(cell));
  const int64_t count = sizes != nullptr ? sizes[offset / width] : 1;

  // Compute and store
  typename Reducer::compute value[kPack];
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    value[i] = reducer.value(Cells<Reducer>::state(cell[i]),
                             Cells<Reducer>::has_message(cell[i]) ? count : 0);
  }
  store<kPack>(out + offset, value);
}

}  // namespace gnnkern::cuda
