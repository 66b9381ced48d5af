// Gradients of GATv2 attention: two walks with one gather each, and signs between them.
//
// By destination, the rows of x_src are gathered. They give the score of an edge back, and with
// what the row itself holds the gradient of the score; behind it every gradient is that times att
// times the slope of the activation. Left behind for each edge are what multiplied x_src, the
// gradient of the score, and one bit for each column: whether the activation's argument was above
// 0.
//
// By source, the rows of the output's gradient are gathered, and these are read.
#pragma once

#include "attention_backward.cuh"
#include "shared.cuh"

namespace gnnkern::cuda {

constexpr int kGatv2Edges = 2;

// The bits of one lane's columns, a byte: where they are above 0. No comparison is shifted: under
// UBSan, GCC 12 then reads other elements.
template <int count, typename value_t>
__device__ __forceinline__ unsigned signs_of(const value_t (&values)[count]) {
  unsigned bits = 0;
#pragma unroll
  for (int k = 0; k < count; ++k) bits |= values[k] > 0 ? 1u << k : 0u;
  return bits;
}

// Where the byte of a lane lies.
__device__ __forceinline__ int64_t sign_at(const HeadLanes& lanes, const Place& place,
                                           int64_t element) {
  return ((element * lanes.tiles + place.tile_number) << lanes.head) + place.column_lane;
}

// What one lane keeps of its row, and of all rows for att.
template <typename compute_t, int count>
struct Gatv2Sums {
  compute_t row[count];
  compute_t att[count];
};

template <typename scalar_t, int lanes>
__device__ __forceinline__ void walk_gatv2_row(
    const Gatv2BackwardArgs& args, const HeadWalk<scalar_t, lanes>& here,
    const compute_of<scalar_t> (&att)[kLaneColumns<scalar_t>],
    Gatv2Sums<compute_of<scalar_t>, kLaneColumns<scalar_t>>& sums) {
  // Where am I
  using compute_t = compute_of<scalar_t>;
  constexpr int kColumns = kLaneColumns<scalar_t>;
  constexpr int kEdges = kEdgesThatFit<kGatv2Edges, scalar_t, lanes>;
  const AttentionShape& shape = args.shape;
  const RowPart& part = here.part;
  const Place& place = here.place;
  const auto& columns = here.columns;
  const int64_t heads = here.heads, width = here.width;
  const auto slope = static_cast<compute_t>(shape.factor);
  const scalar_t* const x_src = here.rows(args.x_src);
  const scalar_t* const edge_rows = here.rows(args.edge_x);

  // What the edges of a row share
  const bool has_edge = here.has_edge();
  compute_t x_dst[kColumns], grad[kColumns] = {}, log_sum_exp = 0, expected = 0;
  columns.load_values(here.rows(args.x_dst) + part.row * width, has_edge, x_dst);
  if (here.whole) {
    columns.load_values(here.rows(args.grad) + part.row * width, has_edge, grad);
  }
  if (has_edge) {
    const auto* const known =
        static_cast<const compute_t*>(args.statistics) + (part.row * heads + place.head) * 2;
    log_sum_exp = load_one(known);
    expected = load_one(known + 1);
  }

  const int longest = warp_max(part.count);
  for (int done = 0; done < longest; done += kEdges * place.edges) {
    // Load
    const EdgeGroup<kEdges> edges(shape.walk, part, place, done);
    Row<scalar_t, lanes> rows[kEdges];
#pragma unroll
    for (int i = 0; i < kEdges; ++i) {
      rows[i] = columns.load(x_src + edges.other[i] * width, edges.exists[i]);
    }

    // The score, and the gradient of what multiplied the source's row
    compute_t summed[kEdges][kColumns], score[kEdges], product[kEdges];
#pragma unroll
    for (int i = 0; i < kEdges; ++i) {
      rows[i].unpack(summed[i]);
      product[i] = dot(summed[i], grad);
      add(summed[i], x_dst);
    }
    // Loaded behind the others, whose registers they take.
    if (edge_rows) {
#pragma unroll
      for (int i = 0; i < kEdges; ++i) {
        rows[i] = columns.load(edge_rows + edges.edge[i] * width, edges.exists[i]);
      }
#pragma unroll
      for (int i = 0; i < kEdges; ++i) {
        compute_t added[kColumns];
        rows[i].unpack(added);
        add(summed[i], added);
      }
    }
#pragma unroll
    for (int i = 0; i < kEdges; ++i) score[i] = leaky_dot(summed[i], slope, att);
    if (here.whole) {
      sum_lanes(score, 1, place.lanes);
      sum_lanes(product, 1, place.lanes);
    } else {
      one_by_one(edges, score, [&](bool exists, int64_t other, int64_t edge) {
        return wide_product<lanes>(place, shape.head_width, x_src + other * width,
                                   here.rows(args.x_dst) + part.row * width,
                                   edge_rows ? edge_rows + edge * width : nullptr,
                                   here.rows(args.att), slope, exists);
      });
      one_by_one(edges, product, [&](bool exists, int64_t other, int64_t) {
        return wide_product<lanes, scalar_t>(place, shape.head_width, x_src + other * width,
                                             here.rows(args.grad) + part.row * width, nullptr,
                                             nullptr, slope, exists);
      });
    }

    // The gradient of the score, and what follows from it
    int64_t element[kEdges];
    compute_t kept_scale[kEdges];
#pragma unroll
    for (int i = 0; i < kEdges; ++i) element[i] = edges.element(i, place, heads);
    draw_dropout(shape.dropout, element, place.lanes, kept_scale);
#pragma unroll
    for (int i = 0; i < kEdges; ++i) {
      if (!edges.exists[i]) continue;
      const auto [kept, grad_score] =
          score_gradient(score[i], log_sum_exp, expected, product[i], kept_scale[i], true);
      const unsigned signs = signs_of(summed[i]);
      const compute_t below = grad_score * slope;
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
        const compute_t weight = signs >> k & 1 ? grad_score : below;
        sums.row[k] += weight;
        sums.att[k] += weight * summed[i][k];
        summed[i][k] = weight * att[k];
      }
      if (args.grad_edge_x) {
        columns.store(
            static_cast<scalar_t*>(args.grad_edge_x) + edges.edge[i] * width + here.head_begin,
            summed[i]);
      }
      if (args.grad_x_src) {
        args.records.signs[sign_at(shape.lanes, place, element[i])] = static_cast<uint8_t>(signs);
        if (here.is_first_of_head()) {
          static_cast<compute_t*>(args.records.kept)[element[i]] = kept;
          static_cast<compute_t*>(args.records.grad_score)[element[i]] = grad_score;
        }
      }
    }
  }
}

// A warp walks several rows, or chunks, gridDim.x blocks apart.
template <typename scalar_t, int lanes>
__global__ void __launch_bounds__(kWalkThreads, 3)
    gatv2_by_destination_kernel(const Gatv2BackwardArgs args, int64_t num_items) {
  using compute_t = compute_of<scalar_t>;
  using walk_t = HeadWalk<scalar_t, lanes>;
  constexpr int kColumns = walk_t::kColumns;
  const AttentionShape& shape = args.shape;
  // No part of a row: which columns a lane holds is the same for all of them.
  RowPart part = {};
  part.row_shift = 5;
  const walk_t any(shape, part);
  compute_t att[kColumns];
  any.columns.load_values(any.rows(args.att), any.place.has_head, att);

  Gatv2Sums<compute_t, kColumns> sums = {};
  for (int64_t item = item_of_warp(); item < num_items;
       item += static_cast<int64_t>(gridDim.x) * kWalkWarps) {
    if (!take_part(shape.walk, item, shape.lanes.row, part)) continue;
    const walk_t here(shape, part);
#pragma unroll
    for (int k = 0; k < kColumns; ++k) sums.row[k] = 0;
    walk_gatv2_row<scalar_t, lanes>(args, here, att, sums);
    sum_lanes(sums.row, here.place.edge_stride, here.place.row_stride);
#pragma unroll
    for (int k = 0; k < kColumns; ++k) sums.row[k] *= att[k];
    if (here.writes()) here.store_sum(shape.walk, item, args.dst_sum, args.grad_x_dst, sums.row);
  }

  // The warps' sums for att, in their order
  sum_lanes(sums.att, any.place.edge_stride, kWarp);
  struct Shared {
    compute_t att[kWalkWarps][kWarp][kColumns];
  };
  auto& shared = block_shared<Shared>();
  const int lane = lane_of_thread();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int k = 0; k < kColumns; ++k) shared.att[warp][lane][k] = sums.att[k];
  __syncthreads();
  if (warp > 0 || lane >= any.place.edge_stride || !any.place.has_head) return;
#pragma unroll 1
  for (int other = 1; other < kWalkWarps; ++other) add(sums.att, shared.att[other][lane]);
  compute_t* const to = static_cast<compute_t*>(args.att_sum) + blockIdx.x * any.width;
  any.columns.store(to + any.head_begin, sums.att);
}

// Over the reversed graph: the sum of kept * grad, and of the scores' gradients behind the signs.
template <typename scalar_t, int lanes>
__global__ void __launch_bounds__(kWalkThreads, 4)
    gatv2_by_source_kernel(const Gatv2BackwardArgs args) {
  // Where am I
  using compute_t = compute_of<scalar_t>;
  constexpr int kColumns = kLaneColumns<scalar_t>;
  constexpr int kEdges = kEdgesThatFit<2 * kGatv2Edges, scalar_t, lanes>;
  const AttentionShape& shape = args.shape;
  const int64_t item = item_of_warp();
  RowPart part;
  if (!take_part(args.reverse, item, shape.lanes.row, part)) return;
  const HeadWalk<scalar_t, lanes> here(shape, part);
  const Place& place = here.place;
  const auto& columns = here.columns;
  const auto slope = static_cast<compute_t>(shape.factor);
  const scalar_t* const grads = here.rows(args.grad);

  compute_t sum[kColumns] = {}, score_sum[kColumns] = {};
  const int longest = warp_max(part.count);
  for (int done = 0; done < longest; done += kEdges * place.edges) {
    // Load
    const EdgeGroup<kEdges> edges(args.reverse, part, place, done);
    Row<scalar_t, lanes> grad[kEdges];
    compute_t kept[kEdges], grad_score[kEdges];
    unsigned signs[kEdges];
#pragma unroll
    for (int i = 0; i < kEdges; ++i) {
      const bool exists = edges.exists[i];
      const int64_t element = edges.element(i, place, here.heads);
      grad[i] = columns.load(grads + edges.other[i] * here.width, exists);
      kept[i] = number_or_zero<compute_t>(args.records.kept, element, exists);
      grad_score[i] = number_or_zero<compute_t>(args.records.grad_score, element, exists);
      signs[i] = exists ? __ldg(args.records.signs + sign_at(shape.lanes, place, element)) : 0;
    }

    // Sum
#pragma unroll
    for (int i = 0; i < kEdges; ++i) {
      compute_t from[kColumns];
      grad[i].unpack(from);
      add_scaled(sum, kept[i], from);
      const compute_t below = grad_score[i] * slope;
#pragma unroll
      for (int k = 0; k < kColumns; ++k) score_sum[k] += signs[i] >> k & 1 ? grad_score[i] : below;
    }
  }
  sum_lanes(sum, place.edge_stride, place.row_stride);
  sum_lanes(score_sum, place.edge_stride, place.row_stride);

  // Store
  if (!here.writes()) return;
  compute_t att[kColumns];
  columns.load_values(here.rows(args.att), true, att);
#pragma unroll
  for (int k = 0; k < kColumns; ++k) sum[k] += score_sum[k] * att[k];
  here.store_sum(args.reverse, item, args.src_sum, args.grad_x_src, sum);
}

}  // namespace gnnkern::cuda
