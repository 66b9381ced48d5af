// Scaled dot-product attention over the edges into each node: the gradients.
//
// Over the reversed graph, block by block: one gather of queries and output gradients gives the
// attention and the gradient of the scores; while the block's rows are still in the cache they are
// summed into the gradients of key and value. Over the graph itself, one gather of keys, weighted
// by the scores' gradient, is the gradient of the query.

#include "dots.h"
#include "edge_dots.h"
#include "head_rows.h"
#include "philox.h"
#include "reduce_rows.h"
#include "softmax.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename scalar_t, typename index_t>
struct DotBackward {
  using compute_t = compute_of<scalar_t>;
  using V = vec<compute_t>;
  static constexpr int W = kLanes<compute_t>;

  const DotBackwardArgs& args;
  int64_t heads = args.heads;
  int64_t head_width = args.head_width;
  int64_t width = heads * head_width;
  Columns<compute_t> columns{width};
  const index_t* indices = static_cast<const index_t*>(args.csr.indices);
  bool far = is_far(args.csr.num_cols, width * sizeof(scalar_t));
  GatheredRows<scalar_t, index_t> queries{static_cast<const scalar_t*>(args.query), width, indices,
                                          far};
  GatheredRows<scalar_t, index_t> grads{static_cast<const scalar_t*>(args.grad), width, indices,
                                        far};
  EdgeRows<scalar_t, index_t> edge_rows{static_cast<const scalar_t*>(args.edge_x), width,
                                        static_cast<const index_t*>(args.csr.edge_id)};
  // Per destination: the log-sum-exp, then <out, grad>.
  GatheredRows<compute_t, index_t> packed_rows{static_cast<const compute_t*>(args.packed_dst),
                                               2 * heads, indices, true};
  HeadRows<compute_t> packed{args.packed_dst, args.csr.num_cols, 2 * heads};

  // Values per edge of one block, [edges, heads] each, and rows that are at work.
  struct Stage {
    // The score, then alpha.
    compute_t* alpha;
    // alpha after dropout: what multiplied the value.
    compute_t* kept;
    // <value, grad>: the gradient of `kept`; then the gradient of the score.
    compute_t* product;
    compute_t* log_sum_exp;
    // <out, grad> of the destination.
    compute_t* expected;
    compute_t* bias;
    compute_t* key;    // [width]
    compute_t* value;  // [width]
    // Sums of a row that goes on in the next block, vector after vector: of key, then of value.
    compute_t* sums;
  };

  Stage stage_of(int thread) const {
    auto* memory =
        reinterpret_cast<compute_t*>(args.workspace.stage + thread * args.workspace.stage_bytes);
    const int64_t size = kDotBlockEdges * heads + W;
    const auto array = [&](int number) { return memory + number * size; };
    const bool drops = args.dropout.probability > 0;
    compute_t* rows = array(6);
    return {array(0), array(drops ? 1 : 0), array(2),        array(3), array(4), array(5),
            rows,     rows + width,         rows + 2 * width};
  }

  // Calls visit(row, begin, end, first, last) for the parts of rows in a block; `first` and `last`
  // say whether the part begins and ends its row inside the item.
  template <class Visit>
  void for_each_part(const PlanItem& item, const PlanItem& block, const Visit& visit) const {
    int64_t row = block.row_begin;
    for (int64_t edge = block.edge_begin; edge < block.edge_end;) {
      const int64_t row_end = item.slot >= 0 ? item.edge_end : row_begin(args.csr, row + 1);
      if (edge < row_end) {
        const int64_t end = row_end < block.edge_end ? row_end : block.edge_end;
        const bool first = edge == item.edge_begin || edge > block.edge_begin ||
                           (item.slot < 0 && edge == row_begin(args.csr, row));
        visit(row, edge, end, first, end == row_end);
        edge = end;
      }
      if (edge == row_end) ++row;
    }
  }

  // The row that holds the first edge behind a block.
  int64_t row_behind(const PlanItem& item, const PlanItem& block) const {
    int64_t row = block.row_begin;
    if (item.slot >= 0) return row;
    while (row < item.row_end && row_begin(args.csr, row + 1) <= block.edge_end) ++row;
    return row;
  }

  // Scores and <value, grad> of a block's edges.
  template <class Form, bool kEdgeX>
  void stage_dots(const PlanItem& item, const PlanItem& block, const Stage& stage) const {
    using Sums = LaneSums<compute_t, Form::kGroup>;
    Sums scores(stage.alpha, static_cast<compute_t>(args.scale));
    Sums products(stage.product, 1);
    for_each_part(item, block, [&](int64_t row, int64_t begin, int64_t end, bool, bool) {
      const compute_t* key =
          widened(static_cast<const scalar_t*>(args.key) + row * width, width, stage.key);
      const compute_t* value =
          widened(static_cast<const scalar_t*>(args.value) + row * width, width, stage.value);
      for (int64_t edge = begin; edge < end; ++edge) {
        const int64_t ahead =
            edge + kPrefetchEdges < item.edge_end ? edge + kPrefetchEdges : item.edge_end - 1;
        queries.fetch(ahead, 0, width * sizeof(scalar_t));
        grads.fetch(ahead, 0, width * sizeof(scalar_t));
        packed_rows.fetch(ahead, 0, 2 * heads * sizeof(compute_t));
        const PlainRow<scalar_t> query{queries.at(edge)};
        const PlainRow<scalar_t> grad{grads.at(edge)};
        if constexpr (kEdgeX) {
          edge_rows.fetch(ahead);
          const scalar_t* own = edge_rows.at(edge);
          push_dots<Form>(scores, query, SumOfRows<compute_t, scalar_t>{key, own}, heads,
                          head_width);
          push_dots<Form>(products, grad, SumOfRows<compute_t, scalar_t>{value, own}, heads,
                          head_width);
        } else {
          push_dots<Form>(scores, query, PlainRow<compute_t>{key}, heads, head_width);
          push_dots<Form>(products, grad, PlainRow<compute_t>{value}, heads, head_width);
        }
      }
    });
    scores.finish();
    products.finish();
  }

  // From scores and products to attention and the gradient of the scores, which is written out.
  void stage_gradients(const PlanItem& block, const Stage& stage) const {
    const int64_t edges = block.edge_end - block.edge_begin;
    for (int64_t i = 0; i < edges; ++i) {
      const int64_t from = static_cast<int64_t>(indices[block.edge_begin + i]) * 2 * heads;
      for (int64_t head = 0; head < heads; head += W) {
        const int64_t at = i * heads + head;
        put_heads(stage.log_sum_exp + at, packed.at(from, head, heads), head, heads);
        put_heads(stage.expected + at, packed.at(from + heads, head, heads), head, heads);
      }
    }
    if (args.edge_bias) {
      stage_edges(args.csr, static_cast<const scalar_t*>(args.edge_bias), heads, block, stage.bias);
    }
    const V lowest = broadcast(kMinusInfinity<compute_t>);
    const int64_t count = edges * heads;
    for (int64_t i = 0; i < count; i += W) {
      V score = load(stage.alpha + i);
      if (args.edge_bias) score += load(stage.bias + i);
      const V log_sum_exp = load(stage.log_sum_exp + i);
      // A row without a finite score has no attention: exp(-inf) is 0.
      const V shifted = log_sum_exp == lowest ? lowest : score - log_sum_exp;
      store(stage.alpha + i, exp_nonpositive(shifted));
    }
    if (stage.kept != stage.alpha) {
      drop_edges(args.csr, block, heads, args.dropout, stage.alpha, stage.kept);
    }
    for (int64_t i = 0; i < count; i += W) {
      store(stage.product + i, load(stage.kept + i) * load(stage.product + i) -
                                   load(stage.alpha + i) * load(stage.expected + i));
    }
    auto* grad_score = static_cast<compute_t*>(args.grad_score);
    const compute_t* from = stage.product;
    for_each_caller_edge(args.csr, block, [&](int64_t, int64_t edge) {
      for (int64_t head = 0; head < heads; ++head) grad_score[edge * heads + head] = *from++;
    });
    const auto scale = static_cast<compute_t>(args.scale);
    for (int64_t i = 0; i < count; i += W) {
      store(stage.product + i, load(stage.product + i) * scale);
    }
  }

  V load_vector(const scalar_t* row, int64_t vector) const {
    const scalar_t* from = row + columns.start(vector);
    return columns.narrow() ? load_first(from, columns.lanes()) : load(from);
  }

  // Adds to the gradients of the rows of a block from the rows that it has gathered.
  template <class Weight>
  void sum_rows(const PlanItem& item, const PlanItem& block, const Weight& score_weight,
                const Weight& kept_weight, compute_t* carried) const {
    const auto sum_into = [&](auto rows, const Weight& weight, const RowPart& part, bool first,
                              bool last, void* out, compute_t* sums) {
      rows.far = false;
      auto* to = static_cast<scalar_t*>(out) + part.row * width;
      reduce_row(SumReducer<compute_t>{}, rows, weight, columns, part.begin, part.end, part.begin,
                 part.item_end, [&](int64_t vector, const auto& state, int) {
                   V sum = state.value;
                   if (!first) sum += load(sums + vector * W);
                   if (last && part.slot < 0) {
                     store_lanes(to + columns.start(vector), sum, columns.lanes());
                   } else {
                     store(sums + vector * W, sum);
                   }
                 });
    };
    for_each_part(item, block, [&](int64_t row, int64_t begin, int64_t end, bool first, bool last) {
      const RowPart part{row, begin, end, block.edge_end, item.slot};
      sum_into(queries, score_weight, part, first, last, args.grad_key, carried);
      sum_into(grads, kept_weight, part, first, last, args.grad_value,
               carried + columns.count() * W);
    });
    if (!args.grad_edge_x) return;
    for (int64_t edge = block.edge_begin; edge < block.edge_end; ++edge) {
      auto* to = static_cast<scalar_t*>(args.grad_edge_x) + edge_rows.offset(edge);
      for (int64_t vector = 0; vector < columns.count(); ++vector) {
        const V by_score = score_weight.template apply<compute_t>(
            load_vector(queries.at(edge), vector), edge, vector);
        const V by_value = kept_weight.template apply<compute_t>(
            load_vector(grads.at(edge), vector), edge, vector);
        store_lanes(to + columns.start(vector), by_score + by_value, columns.lanes());
      }
    }
  }

  // Per slot: the sums of a row's part, of key and then of value.
  compute_t* partial(int64_t slot) const {
    return reinterpret_cast<compute_t*>(args.workspace.partial) + slot * 2 * columns.count() * W;
  }

  void write_row(int64_t row, const compute_t* sums) const {
    for (void* out : {args.grad_key, args.grad_value}) {
      auto* to = static_cast<scalar_t*>(out) + row * width;
      for (int64_t vector = 0; vector < columns.count(); ++vector, sums += W) {
        store_lanes(to + columns.start(vector), load(sums), columns.lanes());
      }
    }
  }

  template <class MakeWeight>
  void visit_item(const PlanItem& item, const Stage& stage, const MakeWeight& make_weight) const {
    for (int64_t row = item.row_begin; row < item.row_end; ++row) {
      if (item.slot >= 0 || row_begin(args.csr, row) < row_begin(args.csr, row + 1)) continue;
      std::memset(static_cast<scalar_t*>(args.grad_key) + row * width, 0, width * sizeof(scalar_t));
      std::memset(static_cast<scalar_t*>(args.grad_value) + row * width, 0,
                  width * sizeof(scalar_t));
    }
    compute_t* carried = item.slot >= 0 ? partial(item.slot) : stage.sums;
    int64_t row = item.row_begin;
    for (int64_t begin = item.edge_begin; begin < item.edge_end; begin += kDotBlockEdges) {
      const int64_t end =
          begin + kDotBlockEdges < item.edge_end ? begin + kDotBlockEdges : item.edge_end;
      const PlanItem block{row, item.row_end, begin, end, item.slot};
      dispatch_dots<compute_t>(heads, head_width, [&]<class Form>(const Form&) {
        args.edge_x ? stage_dots<Form, true>(item, block, stage)
                    : stage_dots<Form, false>(item, block, stage);
      });
      stage_gradients(block, stage);
      const compute_t *score = stage.product, *kept = stage.kept;
      sum_rows(item, block, make_weight(score, begin), make_weight(kept, begin), carried);
      row = row_behind(item, block);
    }
  }

  void pack_destinations() const {
    constexpr int64_t kRowsPerTask = 512;
    const int64_t count = args.csr.num_cols;
    const auto* log_sum_exp = static_cast<const compute_t*>(args.log_sum_exp);
    const auto* out = static_cast<const compute_t*>(args.out);
    const auto* grad = static_cast<const scalar_t*>(args.grad);
    parallel_tasks(
        (count + kRowsPerTask - 1) / kRowsPerTask, args.workspace.threads, [&](int64_t task, int) {
          const int64_t last = (task + 1) * kRowsPerTask;
          for (int64_t row = task * kRowsPerTask; row < (last < count ? last : count); ++row) {
            auto* to = static_cast<compute_t*>(args.packed_dst) + row * 2 * heads;
            convert(to, log_sum_exp + row * heads, heads);
            dot_heads(out + row * width, grad + row * width, heads, head_width,
                      [&](int64_t head, compute_t value) { to[heads + head] = value; });
          }
        });
  }

  void run() const {
    const Csr& csr = args.csr;
    pack_destinations();
    auto* table = reinterpret_cast<LaneHeads<compute_t>*>(
        args.workspace.stage + args.workspace.threads * args.workspace.stage_bytes);
    const WeightForm form = weight_form<compute_t>(args.query, width, heads);
    if (form == WeightForm::kSpread) fill_lane_heads(table, width, heads);
    dispatch_weight<compute_t>(form, width, heads, table, [&](const auto& make_weight) {
      parallel_tasks(csr.plan.header->num_items, args.workspace.threads,
                     [&](int64_t number, int thread) {
                       visit_item(csr.plan.items[number], stage_of(thread), make_weight);
                     });
    });
    for_each_long_row(csr, args.workspace.threads,
                      [&](int64_t row, int64_t slot_begin, int64_t slot_end) {
                        compute_t* all = partial(slot_begin);
                        for (int64_t slot = slot_begin + 1; slot < slot_end; ++slot) {
                          const compute_t* later = partial(slot);
                          for (int64_t i = 0; i < 2 * columns.count() * W; i += W) {
                            store(all + i, load(all + i) + load(later + i));
                          }
                        }
                        write_row(row, all);
                      });
  }
};

// grad_query[v] = scale * the sum of grad_score[e] * (key[u] + edge_x[e]).
template <typename scalar_t, typename index_t>
void sum_query(const DotQueryArgs& args) {
  using compute_t = compute_of<scalar_t>;
  const int64_t width = args.heads * args.head_width;
  RowReduceArgs sum{};
  sum.csr = args.csr;
  sum.dtype = args.dtype;
  sum.x = args.key;
  sum.width = sum.x_stride = width;
  sum.heads = args.heads;
  sum.reduce = Reduce::kSum;
  sum.out = args.grad_query;
  sum.workspace = args.workspace;
  const auto stage = [&](const PlanItem& item, int, compute_t* staged) {
    stage_edges(args.csr, static_cast<const compute_t*>(args.grad_score), args.heads, item, staged);
    const int64_t count = (item.edge_end - item.edge_begin) * args.heads;
    const auto scale = static_cast<compute_t>(args.scale);
    for (int64_t i = 0; i < count; i += kLanes<compute_t>) {
      store(staged + i, load(staged + i) * scale);
    }
  };
  const EdgeRows<scalar_t, index_t> edge_rows{static_cast<const scalar_t*>(args.edge_x), width,
                                              static_cast<const index_t*>(args.csr.edge_id)};
  auto* table = reinterpret_cast<LaneHeads<compute_t>*>(
      args.workspace.stage + args.workspace.threads * args.workspace.stage_bytes);
  const WeightForm form = weight_form<compute_t>(args.grad_score, width, args.heads);
  if (form == WeightForm::kSpread) fill_lane_heads(table, width, args.heads);
  dispatch_weight<compute_t>(form, width, args.heads, table, [&](const auto& make_weight) {
    const SumReducer<compute_t> reducer;
    if (!args.edge_x) {
      return reduce_rows<scalar_t, index_t>(sum, reducer, stage, make_weight);
    }
    reduce_rows<scalar_t, index_t>(
        sum, reducer, stage, [&](const compute_t* staged, int64_t first_edge) {
          const auto weight = make_weight(staged, first_edge);
          return WithEdgeRows<decltype(make_weight(staged, first_edge)), decltype(edge_rows)>{
              weight, edge_rows};
        });
  });
}

}  // namespace

void dot_backward(const DotBackwardArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    dispatch_index(args.csr.index_type,
                   [&]<typename index_t>() { DotBackward<scalar_t, index_t>{args}.run(); });
  });
}

void dot_backward_query(const DotQueryArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    dispatch_index(args.csr.index_type,
                   [&]<typename index_t>() { sum_query<scalar_t, index_t>(args); });
  });
}

}  // namespace gnnkern::GNNKERN_ISA
