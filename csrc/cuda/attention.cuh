// Attention over the edges of every row: scores, softmax and weighted sum in one walk.
//
// Each row, or chunk of a long one, is walked by the lanes of `Place`. They keep the largest score
// so far, the sum of exp(score - largest), and the sum of the values multiplied by these. The
// scores of GAT are numbers: a first sweep over them alone finds the first two, and nothing is
// rescaled while rows are gathered.
#pragma once

#include <algorithm>

#include "attention_lanes.cuh"
#include "dropout.cuh"
#include "softmax_state.cuh"

namespace gnnkern::cuda {

// -- edges ----------------------------------------------------------------------------------------

// Edges of a row that a lane has under way: unlike `walk_edges`, in groups, since their scores are
// sums over lanes, and so that one rescaling serves them all.
template <int count>
struct EdgeGroup {
  bool exists[count];
  number_t other[count];  // the row at the other end
  number_t edge[count];   // the caller's number

  // Those behind the first `done` of a row's part.
  __device__ __forceinline__ EdgeGroup(const Walk& walk, const RowPart& part, const Place& place,
                                       int done) {
    const Integers indices = integers_of(walk.indices, walk.index_type);
    const Integers edge_id = integers_of(walk.edge_id, walk.index_type);
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int offset = done + i * place.edges + place.edge_lane;
      const number_t position = part.begin + offset;
      exists[i] = place.has_head && offset < part.count;
      other[i] = exists[i] ? static_cast<number_t>(indices[position]) : 0;
      edge[i] = exists[i] && edge_id ? static_cast<number_t>(edge_id[position]) : position;
    }
  }

  // Element of a tensor [E, heads].
  __device__ __forceinline__ int64_t element(int i, const Place& place, int64_t heads) const {
    return edge[i] * heads + place.head;
  }
};

// values[i] = body(the edge alone), one after another: for code that is long, or takes many
// registers. No `==` selects an edge: the compiler would make an indexed array in memory of it.
template <int count, typename compute_t, class Body>
__device__ __forceinline__ void one_by_one(const EdgeGroup<count>& edges,
                                           compute_t (&values)[count], const Body& body) {
#pragma unroll 1
  for (int turn = 0; turn < count; ++turn) {
    bool exists = edges.exists[0];
    number_t other = edges.other[0], edge = edges.edge[0];
#pragma unroll
    for (int i = 1; i < count; ++i) {
      if (turn >= i) exists = edges.exists[i], other = edges.other[i], edge = edges.edge[i];
    }
    const compute_t value = body(exists, other, edge);
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if (turn <= i) values[i] = value;
    }
  }
}

// One number of a tensor, in the compute type; 0 where it does not exist.
template <typename scalar_t>
__device__ __forceinline__ compute_of<scalar_t> number_or_zero(const void* x, int64_t element,
                                                               bool exists) {
  return exists ? load_one(static_cast<const scalar_t*>(x) + element) : compute_of<scalar_t>{0};
}

// -- forward --------------------------------------------------------------------------------------

template <typename scalar_t, typename compute_t>
__device__ __forceinline__ compute_t gat_score(const AttentionArgs& args, const Place& place,
                                               compute_t own, int64_t source, int64_t edge,
                                               bool exists) {
  const int64_t heads = args.shape.heads;
  compute_t score = own + number_or_zero<scalar_t>(args.key, source * heads + place.head, exists);
  if (args.edge_score) {
    score += number_or_zero<scalar_t>(args.edge_score, edge * heads + place.head, exists);
  }
  return leaky(score, static_cast<compute_t>(args.shape.factor));
}

// The state of a part's scores, found by all lanes of its head.
template <typename scalar_t, typename compute_t>
__device__ __forceinline__ SoftmaxState<compute_t> sweep_gat_scores(const AttentionArgs& args,
                                                                    const Place& place,
                                                                    const RowPart& part,
                                                                    compute_t own) {
  const Walk& walk = args.shape.walk;
  const Integers indices = integers_of(walk.indices, walk.index_type);
  const Integers edge_id = integers_of(walk.edge_id, walk.index_type);
  constexpr LogSumExpReducer<compute_t> reducer{};
  SoftmaxState<compute_t> state[1] = {reducer.start()};
  const int count = place.has_head ? part.count : 0;
  for (int offset = place.edge_lane * place.lanes + place.column_lane; offset < count;
       offset += place.edges * place.lanes) {
    const number_t position = part.begin + offset;
    const int64_t edge = edge_id ? edge_id[position] : position;
    const compute_t score = gat_score<scalar_t>(args, place, own, indices[position], edge, true);
    reducer.merge(state[0], {score, 1});
  }
  __syncwarp();
  merge_lanes(reducer, 0, args.shape.lanes.head, state);
  merge_lanes(reducer, args.shape.lanes.edge, part.row_shift, state);
  return state[0];
}

// The result of a row. One lane of each head writes the log-sum-exp.
template <int lanes, typename scalar_t, typename compute_t, int count>
__device__ __forceinline__ void store_attention(const AttentionArgs& args,
                                                const Columns<scalar_t, lanes>& columns,
                                                int64_t row_head, bool writes_log_sum_exp,
                                                const SoftmaxState<compute_t>& state,
                                                compute_t (&acc)[count]) {
  const compute_t scale = softmax_scale(state);
#pragma unroll
  for (int i = 0; i < count; ++i) acc[i] *= scale;
  const int64_t at = row_head * args.shape.head_width;
  columns.store(static_cast<scalar_t*>(args.out) + at, acc);
  if (args.wide_out) columns.store(static_cast<compute_t*>(args.wide_out) + at, acc);
  if (writes_log_sum_exp)
    static_cast<compute_t*>(args.log_sum_exp)[row_head] = softmax_log_sum(state);
}

// Edges under way at once, where rows are read 16 bytes at a time: of two gathers half as many as
// of one.
template <Score kScore>
constexpr int kScoreEdges = kScore == Score::kDot ? 2 : 4;
// Rows read one element at a time, and doubles, take more registers.
template <int edges, typename scalar_t, int lanes>
constexpr int kEdgesThatFit = lanes == 1 || sizeof(scalar_t) == 8 ? edges / 2 : edges;

template <Score kScore, typename scalar_t, int lanes>
__global__ void __launch_bounds__(kWalkThreads, kScore == Score::kGat ? 4 : 3)
    attention_kernel(const AttentionArgs args) {
  // Where am I
  using compute_t = compute_of<scalar_t>;
  using walk_t = HeadWalk<scalar_t, lanes>;
  using row_t = Row<scalar_t, lanes>;
  constexpr int kColumns = walk_t::kColumns;
  constexpr int kEdges = kEdgesThatFit<kScoreEdges<kScore>, scalar_t, lanes>;
  const AttentionShape& shape = args.shape;
  const int64_t item = item_of_warp();
  RowPart part;
  if (!take_part(shape.walk, item, shape.lanes.row, part)) return;
  const walk_t here(shape, part);
  const Place& place = here.place;
  const auto& columns = here.columns;
  const int64_t heads = here.heads, width = here.width;
  const auto factor = static_cast<compute_t>(shape.factor);
  const scalar_t* const own_rows = here.rows(args.own);
  const scalar_t* const keys = here.rows(args.key);
  const scalar_t* const values = here.rows(args.value);
  const scalar_t* const att_row = here.rows(args.att);
  const scalar_t* const edge_rows = here.rows(args.edge_x);

  // What the edges of a row share
  const bool has_edge = here.has_edge();
  compute_t own[kColumns] = {}, att[kColumns] = {}, own_score = 0;
  SoftmaxState<compute_t> state = LogSumExpReducer<compute_t>().start();
  if constexpr (kScore == Score::kGat) {
    own_score = number_or_zero<scalar_t>(args.own, part.row * heads + place.head, has_edge);
    state = sweep_gat_scores<scalar_t>(args, place, part, own_score);
  } else if (here.whole) {
    columns.load_values(own_rows + part.row * width, has_edge, own);
    if constexpr (kScore == Score::kGatv2) columns.load_values(att_row, place.has_head, att);
  }

  compute_t acc[kColumns] = {};
  const int longest = warp_max(part.count);
  for (int done = 0; done < longest; done += kEdges * place.edges) {
    // Load
    const EdgeGroup<kEdges> edges(shape.walk, part, place, done);
    row_t value[kEdges], key[kEdges], edge_x[kEdges];
#pragma unroll
    for (int i = 0; i < kEdges; ++i) {
      value[i] = columns.load(values + edges.other[i] * width, edges.exists[i]);
      edge_x[i] = {};
      if (kScore == Score::kDot && here.whole) {
        key[i] = columns.load(keys + edges.other[i] * width, edges.exists[i]);
      }
    }
    if (kScore != Score::kGat && edge_rows) {
#pragma unroll
      for (int i = 0; i < kEdges; ++i) {
        edge_x[i] = columns.load(edge_rows + edges.edge[i] * width, edges.exists[i]);
      }
    }

    // The scores
    compute_t score[kEdges];
    if constexpr (kScore == Score::kGat) {
#pragma unroll
      for (int i = 0; i < kEdges; ++i) {
        score[i] = gat_score<scalar_t>(args, place, own_score, edges.other[i], edges.edge[i],
                                       edges.exists[i]);
      }
    } else if (here.whole) {
#pragma unroll
      for (int i = 0; i < kEdges; ++i) {
        compute_t from[kColumns], added[kColumns];
        (kScore == Score::kDot ? key : value)[i].unpack(from);
        edge_x[i].unpack(added);
        add(from, added);
        if constexpr (kScore == Score::kDot) {
          score[i] = dot(own, from);
        } else {
          add(from, own);
          score[i] = leaky_dot(from, factor, att);
        }
      }
      sum_lanes(score, 1, place.lanes);
    } else {
      one_by_one(edges, score, [&](bool exists, int64_t source, int64_t edge) {
        return wide_product<lanes>(place, shape.head_width, keys + source * width,
                                   own_rows + part.row * width,
                                   edge_rows ? edge_rows + edge * width : nullptr,
                                   kScore == Score::kGatv2 ? att_row : nullptr, factor, exists);
      });
    }
    if constexpr (kScore == Score::kDot) {
#pragma unroll
      for (int i = 0; i < kEdges; ++i) {
        score[i] *= factor;
        if (args.edge_score) {
          score[i] += number_or_zero<scalar_t>(args.edge_score, edges.element(i, place, heads),
                                               edges.exists[i]);
        }
      }
    }

    // The softmax, and the sum that it weights
    if constexpr (kScore != Score::kGat) {
      compute_t top = state.first;
#pragma unroll
      for (int i = 0; i < kEdges; ++i) {
        if (edges.exists[i] && score[i] > top) top = score[i];
      }
      const compute_t share = raise_largest(state, top);
#pragma unroll
      for (int k = 0; k < kColumns; ++k) acc[k] *= share;
    }
    int64_t element[kEdges];
    compute_t kept[kEdges];
#pragma unroll
    for (int i = 0; i < kEdges; ++i) element[i] = edges.element(i, place, heads);
    draw_dropout(shape.dropout, element, place.lanes, kept);
#pragma unroll
    for (int i = 0; i < kEdges; ++i) {
      const compute_t weight = edges.exists[i] ? shrink(score[i], state.first) : 0;
      if constexpr (kScore != Score::kGat) state.second += weight;
      compute_t from[kColumns], added[kColumns];
      value[i].unpack(from);
      if constexpr (kScore == Score::kDot) {
        edge_x[i].unpack(added);
        add(from, added);
      }
      add_scaled(acc, weight * kept[i], from);
    }
  }
  if constexpr (kScore == Score::kGat) {
    sum_lanes(acc, place.edge_stride, place.row_stride);
  } else {
    merge_weighted(state, acc, place.edge_stride, place.row_stride);
  }

  // Store
  if (!here.writes()) return;
  if (part.owns_row) {
    store_attention<lanes, scalar_t>(args, columns, part.row * heads + place.head,
                                     here.is_first_of_head(), state, acc);
  } else if (item < shape.walk.num_chunks) {
    const int64_t at = item * heads + place.head;
    columns.store(static_cast<compute_t*>(args.acc) + at * shape.head_width, acc);
    if (here.is_first_of_head()) {
      static_cast<compute_t*>(args.largest)[at] = state.first;
      static_cast<compute_t*>(args.total)[at] = state.second;
    }
  }
}

// -- launchers ------------------------------------------------------------------------------------

// Shares out a warp: a head's columns first, then heads, then edges as far as rows are long.
inline HeadLanes head_lanes(const AttentionShape& shape, int edges_under_way) {
  const int columns =
      shape.dtype == ScalarType::kFloat64 ? kLaneColumns<double> : kLaneColumns<float>;
  HeadLanes lanes = {};
  lanes.head = shift_of(blocks_of(shape.head_width, columns));
  lanes.tile_columns = columns << lanes.head;
  lanes.tiles = static_cast<int>(blocks_of(shape.head_width, lanes.tile_columns));
  lanes.edge = std::min(lanes.head + shift_of(shape.heads), 5);
  const Walk& walk = shape.walk;
  const int64_t degree = walk.num_edges / std::max<int64_t>(walk.num_rows, 1);
  lanes.row = lanes.edge;
  while (lanes.row < 5 && int64_t{2 * edges_under_way} << (lanes.row - lanes.edge) <= degree) {
    ++lanes.row;
  }
  return lanes;
}

// The blocks that walk rows and chunks.
inline Grid attention_grid(const AttentionShape& shape) {
  const HeadLanes& lanes = shape.lanes;
  const int64_t head_groups = blocks_of(shape.heads, int64_t{1} << (lanes.edge - lanes.head));
  const Grid tiles = tile_grid(head_groups * lanes.tiles, 0);
  return {blocks_of(items_of(shape.walk, {lanes.edge, lanes.row}), kWalkWarps), tiles.y, tiles.z};
}

// Whether the rows of heads at all of these addresses can be read 16 bytes at a time.
template <typename... Pointers>
bool rows_aligned(const AttentionShape& shape, Pointers... pointers) {
  return all_aligned(shape.head_width * size_of(shape.dtype), address_of(pointers)...);
}

// The long rows' results from the states of their chunks.
void fold_attention(const char* op, const AttentionArgs& args, void* stream);

template <Score kScore>
void launch_attention(const char* op, AttentionArgs args, void* stream) {
  AttentionShape& shape = args.shape;
  const int64_t width = shape.heads * shape.head_width;
  if (width == 0) return;
  shape.lanes = head_lanes(shape, kScoreEdges<kScore>);
  const bool scalars = kScore == Score::kGat;
  const bool aligned =
      rows_aligned(shape, scalars ? nullptr : args.own, scalars ? nullptr : args.key, args.value,
                   args.att, args.edge_x, args.out, args.wide_out);
  dispatch_vectors(shape.dtype, aligned, [&]<typename scalar_t, int lanes>() {
    launch(op, attention_kernel<kScore, scalar_t, lanes>, attention_grid(shape), dim3(kWalkThreads),
           0, stream, args);
  });
  if (shape.walk.num_chunks > 0) fold_attention(op, args, stream);
}

}  // namespace gnnkern::cuda
