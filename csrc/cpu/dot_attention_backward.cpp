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
#include "weighted_sum.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename scalar_t>
struct DotBackward {
  using compute_t = compute_of<scalar_t>;
  using V = vec<compute_t>;
  using Weights = StagedWeights<compute_t>;
  static constexpr int W = kLanes<compute_t>;

  const DotBackwardArgs& args;
  int64_t heads = args.heads;
  int64_t head_width = args.head_width;
  int64_t width = heads * head_width;
  Columns<compute_t> columns{width};
  bool far = is_far(args.csr.num_cols, width * sizeof(scalar_t));
  EdgeRows<scalar_t> edge_rows{static_cast<const scalar_t*>(args.edge_x), width, &args.csr, true};
  HeadRows<compute_t> packed{args.packed_dst, args.csr.num_cols, 2 * heads};

  // What the edges of an item read of their destinations.
  struct Gathered {
    const row_t* numbers;
    GatheredRows<scalar_t> queries;
    GatheredRows<scalar_t> grads;
    // The log-sum-exp, then <out, grad>.
    GatheredRows<compute_t> packed;
  };

  Gathered gathered(const row_t* numbers) const {
    return {numbers,
            {static_cast<const scalar_t*>(args.query), width, numbers, far},
            {static_cast<const scalar_t*>(args.grad), width, numbers, far},
            {static_cast<const compute_t*>(args.packed_dst), 2 * heads, numbers, true}};
  }

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
    compute_t* row_sum;  // of one row, vector after vector
  };

  Stage stage_of(int thread) const {
    auto* memory =
        reinterpret_cast<compute_t*>(args.workspace.stage + thread * args.workspace.stage_bytes);
    const int64_t size = kDotBlockEdges * heads + W;
    const auto array = [&](int number) { return memory + number * size; };
    const bool drops = args.dropout.probability > 0;
    compute_t* rows = array(6);
    return {array(0),
            array(drops ? 1 : 0),
            array(2),
            array(3),
            array(4),
            array(5),
            rows,
            rows + width,
            rows + 2 * width,
            rows + 2 * width + 2 * columns.count() * W};
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
  GNNKERN_NOINLINE void stage_dots(const PlanItem& item, const PlanItem& block,
                                   const Gathered& from, const Stage& stage) const {
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
        from.queries.fetch(ahead, 0, width * sizeof(scalar_t));
        from.grads.fetch(ahead, 0, width * sizeof(scalar_t));
        from.packed.fetch(ahead, 0, 2 * heads * sizeof(compute_t));
        const PlainRow<scalar_t> query{from.queries.at(edge)};
        const PlainRow<scalar_t> grad{from.grads.at(edge)};
        if constexpr (kEdgeX) {
          edge_rows.fetch(ahead, 0, width * sizeof(scalar_t));
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
  GNNKERN_NOINLINE void stage_gradients(const PlanItem& block, const row_t* numbers,
                                        const Stage& stage) const {
    const int64_t edges = block.edge_end - block.edge_begin;
    for (int64_t i = 0; i < edges; ++i) {
      const int64_t row = static_cast<int64_t>(numbers[block.edge_begin + i]) * 2 * heads;
      for (int64_t head = 0; head < heads; head += W) {
        const int64_t at = i * heads + head;
        put_heads(stage.log_sum_exp + at, packed.at(row, head, heads), head, heads);
        put_heads(stage.expected + at, packed.at(row + heads, head, heads), head, heads);
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
  void sum_rows(const PlanItem& item, const PlanItem& block, const Gathered& from,
                const Weights& score_weight, const Weights& kept_weight, const Stage& stage,
                compute_t* carried) const {
    const auto sum_into = [&](GatheredRows<scalar_t> rows, const Weights& weights,
                              const RowPart& part, bool first, bool last, void* out,
                              compute_t* sums) {
      rows.far = false;
      auto* to = static_cast<scalar_t*>(out) + part.row * width;
      sum_edges(rows, weights, columns, part.begin, part.end, part.item_end, stage.row_sum);
      for (int64_t vector = 0; vector < columns.count(); ++vector) {
        V sum = load(stage.row_sum + vector * W);
        if (!first) sum += load(sums + vector * W);
        if (last && part.slot < 0) {
          store_lanes(to + columns.start(vector), sum, columns.lanes());
        } else {
          store(sums + vector * W, sum);
        }
      }
    };
    for_each_part(item, block, [&](int64_t row, int64_t begin, int64_t end, bool first, bool last) {
      const RowPart part{row, begin, end, block.edge_end, item.slot};
      sum_into(from.queries, score_weight, part, first, last, args.grad_key, carried);
      sum_into(from.grads, kept_weight, part, first, last, args.grad_value,
               carried + columns.count() * W);
    });
    if (!args.grad_edge_x) return;
    const auto score = score_weight.spread(), kept = kept_weight.spread();
    for (int64_t edge = block.edge_begin; edge < block.edge_end; ++edge) {
      auto* to = static_cast<scalar_t*>(args.grad_edge_x) + edge_rows.offset(edge);
      for (int64_t vector = 0; vector < columns.count(); ++vector) {
        const V by_score = score.template apply<compute_t>(
            load_vector(from.queries.at(edge), vector), edge, vector);
        const V by_value =
            kept.template apply<compute_t>(load_vector(from.grads.at(edge), vector), edge, vector);
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

  void visit_item(const PlanItem& item, const Stage& stage, const Weights& weights) const {
    for (int64_t row = item.row_begin; row < item.row_end; ++row) {
      if (item.slot >= 0 || row_begin(args.csr, row) < row_begin(args.csr, row + 1)) continue;
      std::memset(static_cast<scalar_t*>(args.grad_key) + row * width, 0, width * sizeof(scalar_t));
      std::memset(static_cast<scalar_t*>(args.grad_value) + row * width, 0,
                  width * sizeof(scalar_t));
    }
    const RowNumbers numbers(args.csr, item);
    const Gathered from = gathered(numbers.data());
    compute_t* carried = item.slot >= 0 ? partial(item.slot) : stage.sums;
    int64_t row = item.row_begin;
    for (int64_t begin = item.edge_begin; begin < item.edge_end; begin += kDotBlockEdges) {
      const int64_t end =
          begin + kDotBlockEdges < item.edge_end ? begin + kDotBlockEdges : item.edge_end;
      const PlanItem block{row, item.row_end, begin, end, item.slot};
      dispatch_dots<compute_t>(heads, head_width, [&]<class Form>(const Form&) {
        args.edge_x ? stage_dots<Form, true>(item, block, from, stage)
                    : stage_dots<Form, false>(item, block, from, stage);
      });
      stage_gradients(block, from.numbers, stage);
      sum_rows(item, block, from, weights.from(stage.product, begin),
               weights.from(stage.kept, begin), stage, carried);
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
    const Workspace& work = args.workspace;
    const Weights weights =
        staged_weights<compute_t>(width, heads, work.stage + work.threads * work.stage_bytes);
    parallel_tasks(csr.plan.header->num_items, work.threads, [&](int64_t number, int thread) {
      visit_item(csr.plan.items[number], stage_of(thread), weights);
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
template <typename scalar_t>
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
  const EdgeRows<scalar_t> edge_rows{static_cast<const scalar_t*>(args.edge_x), width, &args.csr,
                                     false};
  sum.weight = args.grad_score;
  if (!args.edge_x) return weighted_sum<scalar_t>(sum, StageWeights::by<compute_t>(stage));
  const Workspace& work = args.workspace;
  const auto weights =
      staged_weights<compute_t>(width, args.heads, work.stage + work.threads * work.stage_bytes);
  reduce_rows<scalar_t>(sum, SumReducer<compute_t>{}, stage,
                        [&](const compute_t* staged, int64_t first_edge) {
                          return WithEdgeRows<SpreadWeight<compute_t>, EdgeRows<scalar_t>>{
                              weights.from(staged, first_edge).spread(), edge_rows};
                        });
}

}  // namespace

void dot_backward(const DotBackwardArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { DotBackward<scalar_t>{args}.run(); });
}

void dot_backward_query(const DotQueryArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { sum_query<scalar_t>(args); });
}

}  // namespace gnnkern::GNNKERN_ISA
