// A tile of a matrix product in registers, and what brings its operands side by side.
#pragma once

#include "rows.h"

namespace gnnkern::GNNKERN_ISA {

// Rows times vectors of a tile: as many accumulators as leave registers for one row of the right
// operand and one broadcast element of the left.
#if defined(__AVX512F__)
inline constexpr int kTileRows = 6, kTileVectors = 4;
#elif defined(__AVX2__)
inline constexpr int kTileRows = 6, kTileVectors = 2;
#else
inline constexpr int kTileRows = 4, kTileVectors = 2;
#endif

// Columns as panels of kTileVectors vectors; the last panel and its last vector may be narrower.
template <typename compute_t>
struct Panels {
  static constexpr int kLane = kLanes<compute_t>;
  static constexpr int kColumns = kTileVectors * kLane;
  int64_t columns;

  int64_t count() const { return (columns + kColumns - 1) / kColumns; }
  int64_t padded() const { return (columns + kLane - 1) / kLane * kLane; }
  int vectors(int64_t panel) const {
    const int64_t left = padded() / kLane - panel * kTileVectors;
    return static_cast<int>(left < kTileVectors ? left : kTileVectors);
  }
  // The valid lanes of a vector of a panel.
  int lanes(int64_t panel, int vector) const {
    const int64_t left = columns - panel * kColumns - vector * kLane;
    return static_cast<int>(left < kLane ? left : kLane);
  }
};

// acc[r][v] += sum over p < depth of left[r][p * left_step] * right[p * right_step + v].
template <int kRows, int kVectors, typename compute_t>
static inline void multiply_tile(vec<compute_t> (&acc)[kRows][kVectors],
                                 const compute_t* const* left, int64_t left_step,
                                 const compute_t* right, int64_t right_step, int64_t depth) {
  const compute_t* from[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) from[r] = left[r];
  for (int64_t p = 0; p < depth; ++p) {
    vec<compute_t> row[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) row[v] = load(right + v * kLanes<compute_t>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const compute_t element = *from[r];
      from[r] += left_step;
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) acc[r][v] += element * row[v];
    }
    right += right_step;
  }
}

// Calls body.operator()<rows, vectors>(first row) for tiles that cover `rows` rows of a panel.
template <class Body>
static inline void for_each_tile(int64_t rows, int vectors, const Body& body) {
  const auto cover = [&]<int kVectors>() {
    int64_t row = 0;
    for (; row + kTileRows <= rows; row += kTileRows) {
      body.template operator()<kTileRows, kVectors>(row);
    }
    if constexpr (kTileRows > 4) {
      for (; row + 4 <= rows; row += 4) body.template operator()<4, kVectors>(row);
    }
    for (; row + 2 <= rows; row += 2) body.template operator()<2, kVectors>(row);
    for (; row < rows; ++row) body.template operator()<1, kVectors>(row);
  };
  if constexpr (kTileVectors > 2) {
    if (vectors == 4) return cover.template operator()<4>();
    if (vectors == 3) return cover.template operator()<3>();
  }
  if (vectors == 2) return cover.template operator()<2>();
  cover.template operator()<1>();
}

// One step of a transposition: exchanges the lanes that differ in bit `kStep` with the rows that
// do.
template <int kStep, typename compute_t>
static inline void transpose_step(vec<compute_t> (&rows)[kLanes<compute_t>]) {
  constexpr int W = kLanes<compute_t>;
  // Lanes of a pair of rows count from 0 to 2 * W.
  vec_mask<compute_t> even, odd;
#pragma GCC unroll 16
  for (int lane = 0; lane < W; ++lane) {
    even[lane] = lane & kStep ? lane + W - kStep : lane;
    odd[lane] = lane & kStep ? lane + W : lane + kStep;
  }
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) {
    if (i & kStep) continue;
    const vec<compute_t> a = rows[i], b = rows[i + kStep];
    rows[i] = __builtin_shuffle(a, b, even);
    rows[i + kStep] = __builtin_shuffle(a, b, odd);
  }
}

// kLanes rows of kLanes elements become columns.
template <typename compute_t>
static inline void transpose_square(vec<compute_t> (&rows)[kLanes<compute_t>]) {
  transpose_step<1, compute_t>(rows);
  if constexpr (kLanes<compute_t> > 2) transpose_step<2, compute_t>(rows);
  if constexpr (kLanes<compute_t> > 4) transpose_step<4, compute_t>(rows);
  if constexpr (kLanes<compute_t> > 8) transpose_step<8, compute_t>(rows);
}

// Writes a matrix [rows, columns] of any strides as panels, [panel][row][vectors], padded with 0.
template <typename scalar_t>
static inline void pack_panels(const scalar_t* from, int64_t row_stride, int64_t col_stride,
                               int64_t rows, const Panels<compute_of<scalar_t>>& panels,
                               compute_of<scalar_t>* to) {
  using compute_t = compute_of<scalar_t>;
  constexpr int W = kLanes<compute_t>;
  for (int64_t panel = 0; panel < panels.count(); ++panel) {
    const int vectors = panels.vectors(panel);
    const int64_t step = vectors * W;
    for (int v = 0; v < vectors; ++v) {
      const int lanes = panels.lanes(panel, v);
      const scalar_t* column = from + (panel * Panels<compute_t>::kColumns + v * W) * col_stride;
      compute_t* packed = to + v * W;
      if (col_stride == 1) {
        for (int64_t row = 0; row < rows; ++row) {
          const scalar_t* at = column + row * row_stride;
          store(packed + row * step, lanes == W ? load(at) : load_first(at, lanes));
        }
        continue;
      }
      int64_t row = 0;
      for (; row_stride == 1 && lanes == W && row + W <= rows; row += W) {
        vec<compute_t> square[W];
#pragma GCC unroll 16
        for (int lane = 0; lane < W; ++lane) square[lane] = load(column + lane * col_stride + row);
        transpose_square<compute_t>(square);
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i) store(packed + (row + i) * step, square[i]);
      }
      for (; row < rows; ++row) {
        vec<compute_t> values{};
        for (int lane = 0; lane < lanes; ++lane) {
          values[lane] = load_one(column + lane * col_stride + row * row_stride);
        }
        store(packed + row * step, values);
      }
    }
    to += rows * step;
  }
}

}  // namespace gnnkern::GNNKERN_ISA
