// Messages of two operands: the row of x at the other end of an edge, and the edge's own row.
#pragma once

#include "rows.h"

namespace gnnkern::GNNKERN_ISA {

// The branch is the same for every vector of a call, and costs nothing beside the loads.
template <typename vector_t>
static inline vector_t combine(EdgeOp op, vector_t x, vector_t y) {
  switch (op) {
    case EdgeOp::kAdd:
      return x + y;
    case EdgeOp::kSub:
      return x - y;
    case EdgeOp::kDiv:
      return x / y;
    default:
      return x * y;
  }
}

// The first `lanes` of row[columns[0]], row[columns[1]] ...; the other lanes are 0.
template <typename scalar_t>
static inline vec<compute_of<scalar_t>> load_columns(const scalar_t* row, const int32_t* columns,
                                                     int lanes) {
  scalar_t values[kLanes<compute_of<scalar_t>>] = {};
  for (int lane = 0; lane < lanes; ++lane) values[lane] = row[columns[lane]];
  return load(values);
}

// One value per edge, or per edge and head.
template <typename compute_t>
struct HeadMessage {
  static constexpr int kMostTile = 4;
  EdgeOp op;
  SpreadWeight<compute_t> heads;

  template <typename>
  vec<compute_t> apply(vec<compute_t> x, int64_t edge, int64_t vector) const {
    return combine(op, x, heads.at(edge, vector));
  }
};

// An edge's row is as wide as that of x.
template <typename scalar_t>
struct RowMessages : GatheredRows<scalar_t> {
  static constexpr int kMostTile = 4;
  using Nodes = GatheredRows<scalar_t>;
  EdgeRows<scalar_t> edges;
  EdgeOp op;

  template <bool kNarrow>
  vec<compute_of<scalar_t>> message(int64_t edge, int64_t column, int lanes) const {
    const scalar_t* row = edges.at(edge) + column;
    const auto x = Nodes::template message<kNarrow>(edge, column, lanes);
    if constexpr (kNarrow) {
      return combine(op, x, load_first(row, lanes));
    } else {
      return combine(op, x, load(row));
    }
  }
  void fetch(int64_t edge, int64_t column, int64_t bytes) const {
    Nodes::fetch(edge, column, bytes);
    edges.fetch(edge, column, bytes);
  }
  template <int kBytes>
  void fetch(int64_t edge, int64_t column) const {
    Nodes::template fetch<kBytes>(edge, column);
    edges.fetch(edge, column, kBytes);
  }
  const RowMessages& seen_from(int64_t) const { return *this; }
};

// Two rows per edge, one of them read in a stream where the edges are sorted: worth a loop of their
// own where rows are short, as what gathers one.
template <typename scalar_t>
inline constexpr bool kGathersRows<RowMessages<scalar_t>> = true;

// Any other broadcasting: a table names, for every column of the message, the one it reads of each
// operand.
template <typename scalar_t>
struct TableMessages : GatheredRows<scalar_t> {
  static constexpr int kMostTile = 1;
  using Nodes = GatheredRows<scalar_t>;
  EdgeRows<scalar_t> edges;
  EdgeOp op;
  int64_t x_width;
  const int32_t* x_columns;     // [width]
  const int32_t* edge_columns;  // [width]

  template <bool kNarrow>
  vec<compute_of<scalar_t>> message(int64_t edge, int64_t column, int lanes) const {
    const int count = kNarrow ? lanes : kLanes<compute_of<scalar_t>>;
    return combine(op, load_columns(Nodes::at(edge), x_columns + column, count),
                   load_columns(edges.at(edge), edge_columns + column, count));
  }
  // Columns lie anywhere in a row: all of it, once.
  void fetch(int64_t edge, int64_t column, int64_t) const {
    if (column != 0) return;
    Nodes::fetch(edge, 0, x_width * sizeof(scalar_t));
    edges.fetch(edge, 0, edges.width * sizeof(scalar_t));
  }
  template <int>
  void fetch(int64_t edge, int64_t column) const {
    fetch(edge, column, 0);
  }
  const TableMessages& seen_from(int64_t) const { return *this; }
};

}  // namespace gnnkern::GNNKERN_ISA
