// Gradients of attention that the sources get, from one walk over the reversed graph.
//
// A row is a source here, and its edges lead to destinations. The gradient of the output is
// gathered once, with the statistics of each destination. From these come alpha, the gradient
// <value, grad> of what multiplied the value, and so that of the score:
//
//     kept * <value, grad> - alpha * <out, grad>        kept: alpha after dropout
//
// <out, grad> stands for the sum over the row that the gradient of a softmax has.
#pragma once

#include "attention.cuh"
#include "fold.cuh"

namespace gnnkern::cuda {

// -- gradient of a score --------------------------------------------------------------------------

template <typename compute_t>
struct ScoreGradient {
  compute_t kept;
  compute_t grad;
};

// `kept_scale` is what dropout multiplies alpha by. A row without a finite score has no attention.
template <typename compute_t>
__device__ __forceinline__ ScoreGradient<compute_t> score_gradient(
    compute_t score, compute_t log_sum_exp, compute_t expected, compute_t product,
    compute_t kept_scale, bool exists) {
  const bool has_alpha = exists && log_sum_exp != -infinity<compute_t>();
  const compute_t alpha = has_alpha ? exp_of(score - log_sum_exp) : compute_t{0};
  const compute_t kept = alpha * kept_scale;
  return {kept, exists ? kept * product - alpha * expected : compute_t{0}};
}

// -- by source ------------------------------------------------------------------------------------

// kScore is gat or dot; of dot, the queries are gathered, too.
template <Score kScore, typename scalar_t, int lanes>
__global__ void __launch_bounds__(kWalkThreads, 3)
    attention_by_source_kernel(const AttentionSourceArgs args) {
  // Where am I
  using compute_t = compute_of<scalar_t>;
  using walk_t = HeadWalk<scalar_t, lanes>;
  using row_t = Row<scalar_t, lanes>;
  constexpr bool kDot = kScore == Score::kDot;
  constexpr int kColumns = walk_t::kColumns;
  constexpr int kEdges = kEdgesThatFit<kScoreEdges<kScore>, scalar_t, lanes>;
  constexpr int kWords = kDot ? 2 : 3;
  const AttentionShape& shape = args.shape;
  const int64_t item = item_of_warp();
  RowPart part;
  if (!take_part(shape.walk, item, shape.lanes.row, part)) return;
  const walk_t here(shape, part);
  const Place& place = here.place;
  const auto& columns = here.columns;
  const int64_t heads = here.heads, width = here.width;
  const auto factor = static_cast<compute_t>(shape.factor);
  const scalar_t* const own_value = here.rows(args.value) + part.row * width;
  const scalar_t* const own_key = here.rows(args.key) + part.row * width;
  const scalar_t* const grads = here.rows(args.grad);
  const scalar_t* const queries = here.rows(args.query);
  const scalar_t* const edge_rows = here.rows(args.edge_x);
  const auto* const statistics = static_cast<const compute_t*>(args.statistics);

  // What the edges of a row share
  const bool has_edge = here.has_edge();
  compute_t value[kColumns] = {}, key[kColumns] = {}, key_score = 0;
  if (here.whole) columns.load_values(own_value, has_edge, value);
  if constexpr (!kDot) {
    key_score = number_or_zero<scalar_t>(args.key, part.row * heads + place.head, has_edge);
  } else if (here.whole) {
    columns.load_values(own_key, has_edge, key);
  }

  // Of gat, the sum of the scores' gradients stands in key_sum[0].
  compute_t value_sum[kColumns] = {}, key_sum[kDot ? kColumns : 1] = {};
  const int longest = warp_max(part.count);
  for (int done = 0; done < longest; done += kEdges * place.edges) {
    // Load
    const EdgeGroup<kEdges> edges(shape.walk, part, place, done);
    row_t grad[kEdges], query[kEdges], edge_x[kEdges];
#pragma unroll
    for (int i = 0; i < kEdges; ++i) {
      grad[i] = columns.load(grads + edges.other[i] * width, edges.exists[i]);
      if constexpr (kDot) {
        query[i] = columns.load(queries + edges.other[i] * width, edges.exists[i]);
        edge_x[i] = {};
        if (edge_rows) {
          edge_x[i] = columns.load(edge_rows + edges.edge[i] * width, edges.exists[i]);
        }
      }
    }

    // What the rows of destinations make with the source's
    compute_t product[kEdges], score[kEdges];
    if (here.whole) {
#pragma unroll
      for (int i = 0; i < kEdges; ++i) {
        compute_t from[kColumns], added[kColumns];
        grad[i].unpack(from);
        product[i] = dot(value, from);
        if constexpr (kDot) {
          edge_x[i].unpack(added);
          product[i] += dot(added, from);
          query[i].unpack(from);
          score[i] = dot(key, from) + dot(added, from);
        }
      }
      sum_lanes(product, 1, place.lanes);
      if constexpr (kDot) sum_lanes(score, 1, place.lanes);
    } else {
      const auto wide = [&](const scalar_t* own, const scalar_t* rows) {
        return [=, &place](bool exists, int64_t destination, int64_t edge) {
          return wide_product<lanes, scalar_t>(
              place, shape.head_width, own, rows + destination * width,
              edge_rows ? edge_rows + edge * width : nullptr, nullptr, factor, exists);
        };
      };
      one_by_one(edges, product, wide(own_value, grads));
      if constexpr (kDot) one_by_one(edges, score, wide(own_key, queries));
    }

    // The gradient of the score, and what follows from it
    int64_t element[kEdges];
    compute_t kept_scale[kEdges];
#pragma unroll
    for (int i = 0; i < kEdges; ++i) element[i] = edges.element(i, place, heads);
    draw_dropout(shape.dropout, element, place.lanes, kept_scale);
#pragma unroll
    for (int i = 0; i < kEdges; ++i) {
      const bool exists = edges.exists[i];
      compute_t known[kWords] = {};
      const int64_t at = (edges.other[i] * heads + place.head) * kWords;
#pragma unroll
      for (int word = 0; word < kWords; ++word) {
        if (exists) known[word] = load_one(statistics + at + word);
      }
      compute_t from = number_or_zero<scalar_t>(args.edge_score, element[i],
                                                exists && args.edge_score != nullptr);
      compute_t slope = 1;
      if constexpr (kDot) {
        from += score[i] * factor;
      } else {
        from += key_score + known[kWords - 1];
        slope = from > 0 ? compute_t{1} : factor;
        from *= slope;
      }
      const auto [kept, grad_score] =
          score_gradient(from, known[0], known[1], product[i], kept_scale[i], exists);
      const bool stores = exists && here.is_first_of_head();
      const compute_t grad_argument = grad_score * slope;
      if (stores && args.grad_edge_score) {
        static_cast<scalar_t*>(args.grad_edge_score)[element[i]] =
            from_compute<scalar_t>(grad_argument);
      }
      const compute_t grad_own = kDot ? grad_score * factor : grad_argument;
      if (stores) static_cast<compute_t*>(args.grad_score)[element[i]] = grad_own;
      compute_t row[kColumns];
      grad[i].unpack(row);
      add_scaled(value_sum, kept, row);
      if constexpr (kDot) {
        compute_t query_row[kColumns];
        query[i].unpack(query_row);
        add_scaled(key_sum, grad_own, query_row);
        if (args.grad_edge_x && exists) {
#pragma unroll
          for (int k = 0; k < kColumns; ++k) row[k] = kept * row[k] + grad_own * query_row[k];
          columns.store(
              static_cast<scalar_t*>(args.grad_edge_x) + edges.edge[i] * width + here.head_begin,
              row);
        }
      } else {
        key_sum[0] += grad_argument;
      }
    }
  }
  sum_lanes(value_sum, place.edge_stride, place.row_stride);
  sum_lanes(key_sum, place.edge_stride, place.row_stride);

  // Store
  if (!here.writes()) return;
  here.store_sum(shape.walk, item, args.value_sum, args.grad_value, value_sum);
  if constexpr (kDot) {
    here.store_sum(shape.walk, item, args.key_sum, args.grad_key, key_sum);
  } else if (here.is_first_of_head()) {
    if (item < shape.walk.num_chunks) {
      static_cast<compute_t*>(args.key_sum)[item * heads + place.head] = key_sum[0];
    } else if (part.owns_row) {
      static_cast<scalar_t*>(args.grad_key)[part.row * heads + place.head] =
          from_compute<scalar_t>(key_sum[0]);
    }
  }
}

// -- by destination -------------------------------------------------------------------------------

// Of dot: the gradient of the query gathers the keys alone.
template <typename scalar_t, int lanes>
__global__ void __launch_bounds__(kWalkThreads, 4) dot_query_kernel(const AttentionQueryArgs args) {
  // Where am I
  using compute_t = compute_of<scalar_t>;
  constexpr int kColumns = kLaneColumns<scalar_t>;
  constexpr int kEdges = kEdgesThatFit<4, scalar_t, lanes>;
  const AttentionShape& shape = args.shape;
  const int64_t item = item_of_warp();
  RowPart part;
  if (!take_part(shape.walk, item, shape.lanes.row, part)) return;
  const HeadWalk<scalar_t, lanes> here(shape, part);
  const Place& place = here.place;
  const auto& columns = here.columns;
  const int64_t width = here.width;
  const scalar_t* const keys = here.rows(args.key);
  const scalar_t* const edge_rows = here.rows(args.edge_x);

  // Load and sum
  compute_t sum[kColumns] = {};
  const int longest = warp_max(part.count);
  for (int done = 0; done < longest; done += kEdges * place.edges) {
    const EdgeGroup<kEdges> edges(shape.walk, part, place, done);
    Row<scalar_t, lanes> key[kEdges];
    compute_t weight[kEdges];
#pragma unroll
    for (int i = 0; i < kEdges; ++i) {
      key[i] = columns.load(keys + edges.other[i] * width, edges.exists[i]);
      weight[i] = number_or_zero<compute_t>(args.grad_score, edges.element(i, place, here.heads),
                                            edges.exists[i]);
    }
#pragma unroll
    for (int i = 0; i < kEdges; ++i) {
      compute_t row[kColumns];
      key[i].unpack(row);
      add_scaled(sum, weight[i], row);
      if (edge_rows) {
        columns.load_values(edge_rows + edges.edge[i] * width, edges.exists[i], row);
        add_scaled(sum, weight[i], row);
      }
    }
  }
  sum_lanes(sum, place.edge_stride, place.row_stride);

  // Store
  if (here.writes()) here.store_sum(shape.walk, item, args.query_sum, args.grad_query, sum);
}

// -- launchers ------------------------------------------------------------------------------------

// The long rows of a sum that is as wide as a row, from the sums of their chunks.
inline void fold_sums(const Walk& walk, ScalarType dtype, int64_t width, void* out, void* sums,
                      void* stream) {
  fold_rows({walk, dtype, Reduce::kSum, {out, nullptr, 0, width}, {sums, nullptr}}, stream);
}

template <Score kScore>
void launch_attention_by_source(const char* op, AttentionSourceArgs args, void* stream) {
  AttentionShape& shape = args.shape;
  shape.lanes = head_lanes(shape, kScoreEdges<kScore>);
  const bool scalars = kScore == Score::kGat;
  const bool aligned =
      rows_aligned(shape, args.grad_value, args.value, args.grad, args.query, args.edge_x,
                   args.grad_edge_x, args.value_sum, scalars ? nullptr : args.key,
                   scalars ? nullptr : args.grad_key, scalars ? nullptr : args.key_sum);
  dispatch_vectors(shape.dtype, aligned, [&]<typename scalar_t, int lanes>() {
    launch(op, attention_by_source_kernel<kScore, scalar_t, lanes>, attention_grid(shape),
           dim3(kWalkThreads), 0, stream, args);
  });
  const int64_t width = shape.heads * shape.head_width;
  fold_sums(shape.walk, shape.dtype, width, args.grad_value, args.value_sum, stream);
  fold_sums(shape.walk, shape.dtype, scalars ? shape.heads : width, args.grad_key, args.key_sum,
            stream);
}

}  // namespace gnnkern::cuda
