// The one loop over the edges of a row that all row reductions share.
//
// A row of x is cut into vectors; a tile of them, as many as the reducer's state leaves room for,
// stays in registers across all edges of the row. Where the width is no multiple of the vector, the
// last vector overlaps the one before it: both compute the same values, and no lane needs a mask.
// Only widths below one vector are masked.
#pragma once

#include <algorithm>

#include "items.h"
#include "reduce.h"

namespace gnnkern::GNNKERN_ISA {

// Loops over a tile are unrolled, or its state would lie in memory: the compiler alone stops at a
// few instructions.
#define GNNKERN_UNROLL _Pragma("GCC unroll 8")

// How many edges ahead rows are fetched.
inline constexpr int64_t kPrefetchEdges = 12;

// Columns of x seen as vectors.
template <typename compute_t>
struct Columns {
  int64_t width;

  bool narrow() const { return width < kLanes<compute_t>; }
  int64_t count() const { return (width + kLanes<compute_t> - 1) / kLanes<compute_t>; }
  // Of a vector, those that lie inside of the row.
  int lanes() const { return narrow() ? static_cast<int>(width) : kLanes<compute_t>; }
  int64_t start(int64_t vector) const {
    const int64_t column = vector * kLanes<compute_t>;
    const int64_t last = width - kLanes<compute_t>;
    return narrow() ? 0 : (column < last ? column : last);
  }
};

// Asks for a cache line. Not by __builtin_prefetch alone: GCC takes a function that does nothing
// else for one without effects and drops its calls.
static inline void prefetch_line(const char* from) {
#if defined(__x86_64__)
  __asm__ volatile("prefetcht0 %0" : : "m"(*from));
#else
  __builtin_prefetch(from);
#endif
}

// The rows of x that the edges of one item read.
template <typename scalar_t>
struct GatheredRows {
  using scalar = scalar_t;
  const scalar_t* x;
  int64_t stride;
  const row_t* numbers;
  // Whether rows are worth fetching ahead.
  bool far;

  const scalar_t* at(int64_t edge) const {
    return x + static_cast<int64_t>(numbers[edge]) * stride;
  }
  // Asks for `bytes` of a row from `column` on.
  void fetch(int64_t edge, int64_t column, int64_t bytes) const {
    if (!far) return;
    const char* from = reinterpret_cast<const char*>(at(edge) + column);
    for (int64_t offset = 0; offset < bytes; offset += 64) prefetch_line(from + offset);
  }
  // The same for a number of bytes known in advance, without a loop.
  template <int kBytes>
  void fetch(int64_t edge, int64_t column) const {
    if (!far) return;
    const char* from = reinterpret_cast<const char*>(at(edge) + column);
#pragma GCC unroll 16
    for (int offset = 0; offset < kBytes; offset += 64) prefetch_line(from + offset);
  }
  // A vector of the message of an edge, or its first `lanes` lanes.
  template <bool kNarrow>
  vec<compute_of<scalar_t>> message(int64_t edge, int64_t column, int lanes) const {
    if constexpr (kNarrow) {
      return load_first(at(edge) + column, lanes);
    } else {
      return load(at(edge) + column);
    }
  }
  // The same rows for every row that reduces them.
  const GatheredRows& seen_from(int64_t) const { return *this; }
};

static inline bool is_far(int64_t rows, int64_t row_bytes) {
  return rows * row_bytes > near_table_bytes();
}

// One row per edge, in the caller's order.
template <typename scalar_t>
struct EdgeRows {
  const scalar_t* x;
  int64_t width;
  const Csr* csr;
  // Whether rows are worth fetching ahead.
  bool far;

  int64_t offset(int64_t edge) const { return caller_edge(*csr, edge) * width; }
  const scalar_t* at(int64_t edge) const { return x + offset(edge); }
  void fetch(int64_t edge, int64_t column, int64_t bytes) const {
    if (!far) return;
    const char* from = reinterpret_cast<const char*>(at(edge) + column);
    for (int64_t offset = 0; offset < bytes; offset += 64) prefetch_line(from + offset);
  }
};

// -- weights: what multiplies vector `vector` of the message of edge `edge` ---------------------

struct NoWeight {
  static constexpr bool kShortRows = true;
  template <typename compute_t>
  vec<compute_t> apply(vec<compute_t> x, int64_t, int64_t) const {
    return x;
  }
};

template <typename compute_t>
struct EdgeWeight {
  static constexpr bool kShortRows = true;
  const compute_t* weight;  // [E]
  template <typename>
  vec<compute_t> apply(vec<compute_t> x, int64_t edge, int64_t) const {
    return x * weight[edge];
  }
};

// Heads whose width is a multiple of the vector: one weight for a whole vector. Divisions of 32
// bits take half as long as those of 64.
template <typename compute_t>
struct HeadWeight {
  static constexpr bool kShortRows = true;
  const compute_t* weight;  // [E, heads]
  int64_t heads;
  int64_t vectors_per_head;
  template <typename>
  vec<compute_t> apply(vec<compute_t> x, int64_t edge, int64_t vector) const {
    return x * weight[edge * heads +
                      static_cast<uint32_t>(vector) / static_cast<uint32_t>(vectors_per_head)];
  }
};

// Any width per head: the weights of the heads inside a vector are loaded and spread over its
// lanes.
template <typename compute_t>
struct LaneHeads {
  int64_t first_head;
  int64_t num_heads;
  lane_int<compute_t> head_of_lane[kLanes<compute_t>];
};

template <typename compute_t>
struct SpreadWeight {
  const compute_t* weight;  // [E, heads]
  int64_t heads;
  const LaneHeads<compute_t>* table;  // [vectors]
  vec<compute_t> at(int64_t edge, int64_t vector) const {
    const LaneHeads<compute_t>& lanes = table[vector];
    vec_mask<compute_t> from;
    std::memcpy(&from, lanes.head_of_lane, sizeof(from));
    const vec<compute_t> loaded =
        load_first(weight + edge * heads + lanes.first_head, static_cast<int>(lanes.num_heads));
    return permute<compute_t>(loaded, from);
  }
  template <typename>
  vec<compute_t> apply(vec<compute_t> x, int64_t edge, int64_t vector) const {
    return x * at(edge, vector);
  }
};

template <typename compute_t>
static inline void fill_lane_heads(LaneHeads<compute_t>* table, int64_t width, int64_t heads) {
  const Columns<compute_t> columns{width};
  const int64_t head_width = width / heads;
  for (int64_t vector = 0; vector < columns.count(); ++vector) {
    const int64_t start = columns.start(vector);
    LaneHeads<compute_t>& lanes = table[vector];
    lanes.first_head = start / head_width;
    for (int lane = 0; lane < kLanes<compute_t>; ++lane) {
      const int64_t column = start + lane < width ? start + lane : width - 1;
      lanes.head_of_lane[lane] =
          static_cast<lane_int<compute_t>>(column / head_width - lanes.first_head);
      lanes.num_heads = lanes.head_of_lane[lane] + 1;
    }
  }
}

// The largest tile that a policy gains from: one that reads what belongs to an edge alone, once,
// gains nothing from reading long pieces of it, and its loops are long.
template <class Policy>
inline constexpr int kMostTile = [] {
  if constexpr (requires { Policy::kMostTile; }) {
    return Policy::kMostTile;
  } else {
    return 8;
  }
}();

// Whether loops over rows of this type are compiled for every number of vectors that is frequent.
// Models run in float and bfloat16, on processors with vectors of 32 bytes or more. All others get
// along with the loops that serve any width, which take a quarter less to compile.
template <typename scalar_t>
inline constexpr bool kManyLoops =
    kVectorBytes > 16 && (std::is_same_v<scalar_t, float> || std::is_same_v<scalar_t, bfloat16>);

// The tile of the loop over wide rows.
template <class Reducer, class Weight, class Rows>
inline constexpr int kWideTile = [] {
  constexpr int kMost = std::min(kMostTile<Weight>, kMostTile<Rows>);
  if (kManyLoops<typename Rows::scalar>) return std::min(Reducer::kTile, kMost);
  return requires { Reducer::kShortRows; } ? std::min({Reducer::kTile, kMost, 4}) : 1;
}();

// -- the loop ----------------------------------------------------------------------------------

// Reduces edges [begin, end) of one row for `kTile` vectors from `vector` on into `state`, in one
// run. Positions count from `row_begin`; rows up to `fetch_end` may be fetched ahead.
template <int kTile, bool kNarrow, class Reducer, class Weight, class Rows>
static inline void reduce_run(const Reducer& reducer, typename Reducer::State* state,
                              const Rows& rows, const Weight& weight,
                              const Columns<typename Reducer::scalar>& columns, int64_t vector,
                              int64_t begin, int64_t end, int64_t row_begin, int64_t fetch_end) {
  using compute_t = typename Reducer::scalar;
  using State = typename Reducer::State;
  int64_t start[kTile];
  GNNKERN_UNROLL
  for (int k = 0; k < kTile; ++k) start[k] = columns.start(vector + k);
  const int lanes = static_cast<int>(columns.width);

  const auto message = [&](int64_t edge, int k) {
    const vec<compute_t> x = rows.template message<kNarrow>(edge, start[k], lanes);
    return weight.template apply<compute_t>(x, edge, vector + k);
  };
  const auto fetch_ahead = [&](int64_t edge) {
    const int64_t next = edge + kPrefetchEdges;
    const int64_t ahead = next < fetch_end ? next : fetch_end - 1;
    if constexpr (kNarrow) {
      rows.fetch(ahead, 0, lanes * sizeof(*rows.x));
    } else {
      rows.template fetch<kTile * kLanes<compute_t> * sizeof(*rows.x)>(ahead, start[0]);
    }
  };

  // Few vectors alone would wait for one addition per edge: sums then run over several edges at
  // once. Messages that take longer to form than an addition have no need of it.
  constexpr bool kWaits = Reducer::kAssociates && kMostTile<Weight> == 8 && kMostTile<Rows> == 8;
  constexpr int kStreams = kWaits && kTile <= 2 ? 4 / kTile : 1;
  State acc[kStreams][kTile];
  int64_t edge = begin;
  const auto start_stream = [&](int s) {
    fetch_ahead(edge);
    GNNKERN_UNROLL
    for (int k = 0; k < kTile; ++k) acc[s][k] = reducer.first(message(edge, k), edge - row_begin);
    ++edge;
  };
  start_stream(0);
  if (end - begin >= kStreams) {
    GNNKERN_UNROLL
    for (int s = 1; s < kStreams; ++s) start_stream(s);
    for (; edge + kStreams <= end; edge += kStreams) {
      GNNKERN_UNROLL
      for (int s = 0; s < kStreams; ++s) {
        fetch_ahead(edge + s);
        GNNKERN_UNROLL
        for (int k = 0; k < kTile; ++k) {
          reducer.step(acc[s][k], message(edge + s, k), edge + s - row_begin);
        }
      }
    }
    GNNKERN_UNROLL
    for (int s = 1; s < kStreams; ++s) {
      GNNKERN_UNROLL
      for (int k = 0; k < kTile; ++k) reducer.merge(acc[0][k], acc[s][k]);
    }
  }
  if constexpr (kStreams > 1) {
    for (; edge < end; ++edge) {
      GNNKERN_UNROLL
      for (int k = 0; k < kTile; ++k) reducer.step(acc[0][k], message(edge, k), edge - row_begin);
    }
  }
  GNNKERN_UNROLL
  for (int k = 0; k < kTile; ++k) {
    state[k] = acc[0][k];
    reducer.close(state[k], end - begin);
  }
}

static_assert(kChunkEdges % kRunEdges == 0);

// The same in runs of kRunEdges, so that the rounding error of a long sum grows with the square
// root of its length and not with the length.
template <int kTile, bool kNarrow, class Reducer, class Weight, class Rows>
static inline void reduce_tile(const Reducer& reducer, typename Reducer::State* state,
                               const Rows& rows, const Weight& weight,
                               const Columns<typename Reducer::scalar>& columns, int64_t vector,
                               int64_t begin, int64_t end, int64_t row_begin, int64_t fetch_end) {
  typename Reducer::State run[kTile];
  for (int64_t from = begin; from < end; from += kRunEdges) {
    const int64_t to = from + kRunEdges < end ? from + kRunEdges : end;
    reduce_run<kTile, kNarrow>(reducer, run, rows, weight, columns, vector, from, to, row_begin,
                               fetch_end);
    for (int k = 0; k < kTile; ++k) {
      if (from == begin) {
        state[k] = run[k];
      } else {
        reducer.merge(state[k], run[k]);
      }
    }
  }
}

// Whether a reducer takes the messages of narrow rows side by side, so that vectors are full.
template <class Reducer>
inline constexpr bool kReducesFlat =
    requires(const Reducer& reducer, typename Reducer::scalar* values) {
      reducer.flat(values, int64_t{}, int64_t{});
    };

// The same for such a reducer, without weights, and a width that divides the vector.
template <class Reducer, class Rows>
static inline void reduce_flat(const Reducer& reducer, typename Reducer::State& state,
                               const Rows& rows, int64_t width, int64_t begin, int64_t end) {
  using compute_t = typename Reducer::scalar;
  compute_t values[kRunEdges * kLanes<compute_t>];
  for (int64_t from = begin; from < end; from += kRunEdges) {
    const int64_t to = from + kRunEdges < end ? from + kRunEdges : end;
    compute_t* next = values;
    for (int64_t edge = from; edge < to; ++edge) {
      for (int64_t column = 0; column < width; ++column) {
        *next++ = load_one(rows.at(edge) + column);
      }
    }
    const auto run = reducer.flat(values, (to - from) * width, width);
    if (from == begin) {
      state = run;
    } else {
      reducer.merge(state, run);
    }
  }
}

// Reduces edges [begin, end) of one row, calling finish(vector, state, lanes) for each vector.
// The range must not be empty. A function of its own, so that its loops have all registers.
template <class Reducer, class Weight, class Rows, class Finish>
GNNKERN_NOINLINE static void reduce_row(const Reducer& reducer, const Rows& rows,
                                        const Weight& weight,
                                        const Columns<typename Reducer::scalar>& columns,
                                        int64_t begin, int64_t end, int64_t row_begin,
                                        int64_t fetch_end, const Finish& finish) {
  using compute_t = typename Reducer::scalar;
  using State = typename Reducer::State;
  if (columns.narrow()) {
    State state[1];
    if constexpr (kReducesFlat<Reducer>) {
      if (heads_tile_vector<compute_t>(columns.width)) {
        reduce_flat(reducer, state[0], rows, columns.width, begin, end);
        finish(int64_t{0}, state[0], static_cast<int>(columns.width));
        return;
      }
    }
    reduce_tile<1, true>(reducer, state, rows, weight, columns, 0, begin, end, row_begin,
                         fetch_end);
    finish(int64_t{0}, state[0], static_cast<int>(columns.width));
    return;
  }
  const int64_t count = columns.count();
  int64_t vector = 0;
  const auto tile = [&]<int kCount>() {
    State state[kCount];
    reduce_tile<kCount, false>(reducer, state, rows, weight, columns, vector, begin, end, row_begin,
                               fetch_end);
    for (int k = 0; k < kCount; ++k) finish(vector + k, state[k], kLanes<compute_t>);
    vector += kCount;
  };
  constexpr int kTile = kWideTile<Reducer, Weight, Rows>;
  while (count - vector >= kTile) tile.template operator()<kTile>();
  if constexpr (kTile > 4) {
    if (count - vector >= 4) tile.template operator()<4>();
    if (count - vector >= 2) tile.template operator()<2>();
  }
  if constexpr (kTile > 1) {
    while (count - vector >= 1) tile.template operator()<1>();
  }
}

template <class Rows>
inline constexpr bool kGathersRows = false;
template <typename scalar_t>
inline constexpr bool kGathersRows<GatheredRows<scalar_t>> = true;

// Whether rows of tiles of `kTile` vectors have a loop of their own: not where the state of so many
// leaves no registers, nor where a step costs far more than what surrounds it.
template <class Reducer, class Weight, class Rows, int kTile>
inline constexpr bool kReducesShort = [] {
  if constexpr (kManyLoops<typename Rows::scalar> && kGathersRows<Rows> &&
                requires { Reducer::kShortRows && Weight::kShortRows; }) {
    return kTile <= Reducer::kTile && kTile <= kMostTile<Rows>;
  } else {
    return false;
  }
}();

// Whether rows of `count` whole vectors are of such tiles. Several tiles of one or two vectors
// would read what belongs to an edge too often.
template <int kTile>
static inline bool fills_tiles(int64_t count) {
  return count == kTile || (kTile >= 4 && count % kTile == 0);
}

// Reduces the rows of an item whose width is one or several tiles of `kTile` vectors: finish(row,
// degree, vector, state) for each vector of a short row, other(part) for empty and longer rows.
// Most rows of most graphs have a few edges, and calls, tiles, streams and runs cost as much as
// those.
template <int kTile, class Reducer, class Weight, class Rows, class Finish, class Other>
static inline void reduce_short_rows(const Csr& csr, const PlanItem& item, const Reducer& reducer,
                                     const Rows& all_rows, const Weight& all_weights,
                                     const Columns<typename Reducer::scalar>& columns,
                                     const Finish& finish, const Other& other) {
  if constexpr (kReducesShort<Reducer, Weight, Rows, kTile>) {
    using compute_t = typename Reducer::scalar;
    // Longer rows of one or two vectors would wait for one addition per edge.
    constexpr int64_t kFewEdges = kTile <= 2 ? 16 : kRunEdges;
    // Copies, which the compiler may keep in registers while results are written.
    const Weight weight = all_weights;
    int64_t begin = item.edge_begin;
    for (int64_t row = item.row_begin; row < item.row_end; ++row) {
      const int64_t end = row_begin(csr, row + 1);
      if (end == begin || end - begin > kFewEdges) {
        other(RowPart{row, begin, end, item.edge_end, item.slot});
        begin = end;
        continue;
      }
      const auto rows = all_rows.seen_from(row);
      for (int64_t first = 0; first < columns.count(); first += kTile) {
        const auto fetch_ahead = [&](int64_t edge) {
          const int64_t next = edge + kPrefetchEdges;
          rows.template fetch<kTile * kLanes<compute_t> * sizeof(*rows.x)>(
              next < item.edge_end ? next : item.edge_end - 1, first * kLanes<compute_t>);
        };
        const auto message = [&](int64_t edge, int k) {
          const int64_t column = (first + k) * kLanes<compute_t>;
          return weight.template apply<compute_t>(
              rows.template message<false>(edge, column, kLanes<compute_t>), edge, first + k);
        };
        typename Reducer::State state[kTile];
        fetch_ahead(begin);
        GNNKERN_UNROLL
        for (int k = 0; k < kTile; ++k) state[k] = reducer.first(message(begin, k), 0);
        for (int64_t edge = begin + 1; edge < end; ++edge) {
          fetch_ahead(edge);
          GNNKERN_UNROLL
          for (int k = 0; k < kTile; ++k) reducer.step(state[k], message(edge, k), edge - begin);
        }
        GNNKERN_UNROLL
        for (int k = 0; k < kTile; ++k) {
          reducer.close(state[k], end - begin);
          finish(row, end - begin, first + k, state[k]);
        }
      }
      begin = end;
    }
  }
}

// Writes the first `lanes` lanes.
template <typename scalar_t>
static inline void store_lanes(scalar_t* to, vec<compute_of<scalar_t>> value, int lanes) {
  if (lanes == kLanes<compute_of<scalar_t>>) {
    store(to, value);
  } else {
    store_first(to, value, lanes);
  }
}

}  // namespace gnnkern::GNNKERN_ISA
