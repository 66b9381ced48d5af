// What both directions of GATv2 share: the rows behind the edges of an item, and their scores.
#pragma once

#include "items.h"
#include "lane_sums.h"
#include "rows.h"
#include "weights.h"

namespace gnnkern::GNNKERN_ISA {

// Edges whose rows are read twice in sequence: 64 float32 rows of width 128 are 32 KiB, a first
// cache.
inline constexpr int64_t kBatchEdges = 64;

// Calls body(batch) for the batches of an item: rows of up to kBatchEdges edges together; a longer
// row is one by itself, and so is a part of a long one.
template <class Body>
static inline void for_each_batch(const Csr& csr, const PlanItem& item, const Body& body) {
  if (item.slot >= 0) return body(item);
  PlanItem batch{item.row_begin, item.row_begin, item.edge_begin, item.edge_begin, -1};
  while (batch.row_begin < item.row_end) {
    while (batch.row_end < item.row_end) {
      const int64_t end = row_begin(csr, batch.row_end + 1);
      if (batch.edge_end > batch.edge_begin && end - batch.edge_begin > kBatchEdges) break;
      batch.edge_end = end;
      ++batch.row_end;
    }
    body(batch);
    batch.row_begin = batch.row_end;
    batch.edge_begin = batch.edge_end;
  }
}

// One row in compute precision, and how far it may be read.
template <typename compute_t>
struct WideRow {
  const compute_t* data;
  const compute_t* end;
};

// Row `row` of a table; halves are converted to `memory` [width + a vector].
template <typename scalar_t>
static inline WideRow<compute_of<scalar_t>> wide_row(const void* table, int64_t num_rows,
                                                     int64_t width, int64_t row,
                                                     compute_of<scalar_t>* memory) {
  using compute_t = compute_of<scalar_t>;
  const auto* data = static_cast<const scalar_t*>(table);
  if constexpr (std::is_same_v<scalar_t, compute_t>) {
    return {data + row * width, data + num_rows * width};
  } else {
    convert(memory, data + row * width, width);
    return {memory, memory + width + kLanes<compute_t>};
  }
}

template <typename compute_t>
static inline vec<compute_t> leaky_relu(vec<compute_t> value, compute_t slope) {
  return value > 0 ? value : value * slope;
}

// The inputs of GATv2, and the dot products per head of an edge.
template <typename scalar_t>
struct Gatv2Rows {
  using compute_t = compute_of<scalar_t>;
  using V = vec<compute_t>;
  static constexpr int W = kLanes<compute_t>;

  const Gatv2Inputs& in;
  int64_t heads = in.heads;
  int64_t head_width = in.head_width;
  int64_t width = heads * head_width;
  compute_t slope = static_cast<compute_t>(in.negative_slope);
  const compute_t* att = static_cast<const compute_t*>(in.att);
  const scalar_t* edge_x = static_cast<const scalar_t*>(in.edge_x);
  const scalar_t* x_src_end = static_cast<const scalar_t*>(in.x_src) + in.csr.num_cols * width;
  const scalar_t* edge_x_end = edge_x ? edge_x + in.csr.num_edges * width : nullptr;
  // Whether vectors and heads divide each other, so that no vector needs a mask.
  bool whole = head_width % W == 0 || (W % head_width == 0 && width % W == 0);

  // The rows of x_src that the edges of an item read.
  GatheredRows<scalar_t> x_src(const row_t* numbers) const {
    return {static_cast<const scalar_t*>(in.x_src), width, numbers,
            is_far(in.csr.num_cols, width * sizeof(scalar_t))};
  }

  // How many lanes of a pushed vector are one head.
  int group() const { return whole && head_width < W ? static_cast<int>(head_width) : W; }

  WideRow<compute_t> x_dst(int64_t row, compute_t* memory) const {
    return wide_row<scalar_t>(in.x_dst, in.csr.num_rows, width, row, memory);
  }

  // The caller's position of an edge.
  int64_t edge_id(int64_t edge) const { return caller_edge(in.csr, edge); }

  // Pushes, per head, <att, leaky_relu(x + own + edge)>, and with kGradient <x, grad>.
  template <bool kEdge, bool kGradient>
  void push_dots(const scalar_t* x, const WideRow<compute_t>& own, const scalar_t* edge,
                 const WideRow<compute_t>& grad, LaneSums<compute_t>& scores,
                 LaneSums<compute_t>& products) const {
    if (whole) {
      const int64_t step = head_width > W ? head_width : W;
      for (int64_t begin = 0; begin < width; begin += step) {
        V score{};
        V product{};
        for (int64_t column = begin; column < begin + step; column += W) {
          const V value = load(x + column);
          V sum = value + load(own.data + column);
          if constexpr (kEdge) sum += load(edge + column);
          score += leaky_relu<compute_t>(sum, slope) * load(att + column);
          if constexpr (kGradient) product += value * load(grad.data + column);
        }
        scores.push(score);
        if constexpr (kGradient) products.push(product);
      }
      return;
    }
    for (int64_t head = 0; head < heads; ++head) {
      V score{};
      V product{};
      const int64_t end = (head + 1) * head_width;
      for (int64_t column = head * head_width; column < end; column += W) {
        const int count = end - column < W ? static_cast<int>(end - column) : W;
        const auto valid = lane_numbers<compute_t>() < static_cast<lane_int<compute_t>>(count);
        const V value = load_at_least(x + column, count, x_src_end);
        V sum = value + load_at_least(own.data + column, count, own.end);
        if constexpr (kEdge) sum += load_at_least(edge + column, count, edge_x_end);
        // What lies beyond the head may be anything: it is not multiplied by 0 but left out.
        const V term =
            leaky_relu<compute_t>(sum, slope) * load_at_least(att + column, count, att + width);
        score += valid ? term : V{};
        if constexpr (kGradient) {
          const V other = value * load_at_least(grad.data + column, count, grad.end);
          product += valid ? other : V{};
        }
      }
      scores.push(score);
      if constexpr (kGradient) products.push(product);
    }
  }
};

}  // namespace gnnkern::GNNKERN_ISA
