// Arrays [rows, heads]: a few values per row, read and written by whole vectors.
#pragma once

#include "simd.h"

namespace gnnkern::GNNKERN_ISA {

// An array [rows, heads] and where its memory ends.
template <typename scalar_t>
struct HeadRows {
  const scalar_t* data;
  const scalar_t* end;
  HeadRows(const void* from, int64_t rows, int64_t heads)
      : data(static_cast<const scalar_t*>(from)), end(data + rows * heads) {}
  // The heads from `head` on of the row that starts at `offset`; further lanes are arbitrary.
  vec<compute_of<scalar_t>> at(int64_t offset, int64_t head, int64_t heads) const {
    const int64_t left = heads - head;
    const int count =
        left < kLanes<compute_of<scalar_t>> ? static_cast<int>(left) : kLanes<compute_of<scalar_t>>;
    return load_at_least(data + offset + head, count, end);
  }
};

// Stores the heads from `head` on. Where a row is shorter than a vector, a full vector is stored:
// rows that are written in order overwrite what the one before wrote past its own heads.
template <typename compute_t>
static inline void put_heads(compute_t* to, vec<compute_t> value, int64_t head, int64_t heads) {
  constexpr int W = kLanes<compute_t>;
  if (heads <= W || heads - head >= W) {
    store(to, value);
  } else {
    store_first(to, value, static_cast<int>(heads - head));
  }
}

}  // namespace gnnkern::GNNKERN_ISA
