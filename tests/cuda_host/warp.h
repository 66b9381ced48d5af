// What the lanes of a warp do together.
#pragma once

#include <cstdint>
#include <cstring>

#include "executor.h"

namespace cuda_host {

constexpr unsigned kWholeWarp = 0xffffffffu;

inline uint64_t meet(Meeting meeting, unsigned mask, Place place, uint64_t value = 0,
                     int source = 0, size_t bytes = 0) {
  Offer offer{meeting, mask, place, source, bytes, value, 0};
  meet_warp(offer);
  return offer.result;
}

template <typename T>
T shuffle(unsigned mask, T value, int source, Place place) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = meet(Meeting::kShuffle, mask, place, bits, source, sizeof(T));
  T result;
  std::memcpy(&result, &bits, sizeof(T));
  return result;
}

}  // namespace cuda_host

// Which lanes are active together is up to the device: no kernel may ask.
unsigned __activemask() = delete;

inline void __syncwarp(unsigned mask = cuda_host::kWholeWarp,
                       cuda_host::Place place = cuda_host::Place::current()) {
  cuda_host::meet(cuda_host::Meeting::kSync, mask, place);
}

// -- shuffles: in groups of `width` lanes, a power of two -----------------------------------------

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              cuda_host::Place place = cuda_host::Place::current()) {
  const int group = cuda_host::lane_of_warp() & ~(width - 1);
  return cuda_host::shuffle(mask, value, group | (source & (width - 1)), place);
}
// Lanes whose source would lie outside of their group keep their own value.
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 cuda_host::Place place = cuda_host::Place::current()) {
  const int lane = cuda_host::lane_of_warp(), source = lane - static_cast<int>(delta);
  return cuda_host::shuffle(mask, value, source < (lane & ~(width - 1)) ? lane : source, place);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   cuda_host::Place place = cuda_host::Place::current()) {
  const int lane = cuda_host::lane_of_warp(), source = lane + static_cast<int>(delta);
  return cuda_host::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, place);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  cuda_host::Place place = cuda_host::Place::current()) {
  const int lane = cuda_host::lane_of_warp(), source = (lane ^ lanes) & 31;
  return cuda_host::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, place);
}

// -- votes ----------------------------------------------------------------------------------------

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              cuda_host::Place place = cuda_host::Place::current()) {
  const uint64_t value = predicate != 0;
  return static_cast<unsigned>(cuda_host::meet(cuda_host::Meeting::kBallot, mask, place, value));
}
inline int __any_sync(unsigned mask, int predicate,
                      cuda_host::Place place = cuda_host::Place::current()) {
  return __ballot_sync(mask, predicate, place) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      cuda_host::Place place = cuda_host::Place::current()) {
  return __ballot_sync(mask, predicate, place) == mask;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value,
                          cuda_host::Place place = cuda_host::Place::current()) {
  static_assert(sizeof(T) <= 8, "8 bytes are compared");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return static_cast<unsigned>(cuda_host::meet(cuda_host::Meeting::kMatch, mask, place, bits));
}

// -- reductions of 32-bit integers ----------------------------------------------------------------

#define CUDA_HOST_REDUCE(name, number, meeting)                                         \
  inline number name(unsigned mask, number value,                                       \
                     cuda_host::Place place = cuda_host::Place::current()) {            \
    const auto bits = static_cast<uint32_t>(value);                                     \
    return static_cast<number>(                                                         \
        static_cast<uint32_t>(cuda_host::meet(cuda_host::meeting, mask, place, bits))); \
  }

CUDA_HOST_REDUCE(__reduce_add_sync, unsigned, Meeting::kAdd)
CUDA_HOST_REDUCE(__reduce_add_sync, int, Meeting::kAdd)
CUDA_HOST_REDUCE(__reduce_min_sync, unsigned, Meeting::kMin)
CUDA_HOST_REDUCE(__reduce_min_sync, int, Meeting::kSignedMin)
CUDA_HOST_REDUCE(__reduce_max_sync, unsigned, Meeting::kMax)
CUDA_HOST_REDUCE(__reduce_max_sync, int, Meeting::kSignedMax)
CUDA_HOST_REDUCE(__reduce_and_sync, unsigned, Meeting::kAnd)
CUDA_HOST_REDUCE(__reduce_or_sync, unsigned, Meeting::kOr)
CUDA_HOST_REDUCE(__reduce_xor_sync, unsigned, Meeting::kXor)

#undef CUDA_HOST_REDUCE
