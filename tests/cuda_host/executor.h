// Runs CUDA kernels on this processor: every thread of a block is a fiber.
//
// The kernels' sources are compiled as C++ with this folder's headers in place of CUDA's. Blocks
// run one after another, in shuffled order. The threads of a block run in shuffled order, each
// without interruption until it waits at a barrier or for lanes of its warp, so that what is not
// guarded by one gives different results with different seeds. These are errors, told with the
// source line:
//   - a block barrier that some threads do not reach, having ended or waiting elsewhere,
//   - a warp operation that lanes named in its mask do not reach, or reach another one,
//   - a lane read that its mask does not name,
//   - shared memory written beyond its end, or more of it than a device has.
// It is stricter than a device, where threads that have ended are excused.
//
// Kernels that wait for one another through memory do not end here, and atomics are plain: nothing
// comes between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>

namespace cuda_host {

using Place = std::source_location;

struct Index3 {
  unsigned x, y, z;
};

// What a grid of threads is started with.
struct Launch {
  Index3 grid;
  Index3 block;
  size_t dynamic_bytes;
  const void* kernel;
  // One thread: calls the kernel with the arguments of the launch.
  void (*invoke)(void* context);
  void* context;
};

// Runs a grid to its end; returns what was wrong, or an empty string.
std::string run(const Launch& launch);

// The most dynamic shared memory that a kernel may be started with from now on.
void allow_dynamic_bytes(const void* kernel, size_t bytes);

// Orders of blocks and threads follow from the seed alone.
void set_seed(uint64_t seed);
// Whether shared memory is filled with NaN (every bit set) before each block.
void set_poison(bool poison);

// -- what a kernel may call -----------------------------------------------------------------------

// How the predicates that threads bring to a block barrier are combined.
enum class Vote { kNone, kCount, kAnd, kOr };
int wait_for_block(Vote vote, int predicate, Place place);

// What the lanes of a warp do together, and each of them brings to it.
enum class Meeting {
  kSync,
  kShuffle,
  kBallot,
  kMatch,
  kAdd,
  kMin,
  kMax,
  kSignedMin,
  kSignedMax,
  kAnd,
  kOr,
  kXor
};
struct Offer {
  Meeting meeting;
  unsigned mask;
  Place place;
  // A shuffle: the lane to read. Otherwise `value` alone counts.
  int source;
  size_t bytes;
  uint64_t value;
  uint64_t result;
};
// Returns when all lanes of the mask have come, with the result.
void meet_warp(Offer& offer);

int lane_of_warp();

// The block's storage of a type: `key` stands for it.
void* static_shared(const void* key, size_t bytes, size_t alignment);
void* dynamic_shared_bytes();

template <typename T>
T& block_shared() {
  static const char key = 0;
  return *static_cast<T*>(static_shared(&key, sizeof(T), alignof(T)));
}

template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(dynamic_shared_bytes());
}

}  // namespace cuda_host
