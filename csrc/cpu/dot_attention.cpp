// Scaled dot-product attention over the edges into each node: the forward.
//
// Per item: one gather of keys gives the scores of all its edges, their softmax follows in place,
// and one gather of values is weighted by it. A row that spans several items is the exception: each
// item weights by exp(score - its own largest score), and folding the items sets that right.
// Nothing of size edges x width exists.

#include "edge_dots.h"
#include "items.h"
#include "philox.h"
#include "reduce.h"
#include "softmax.h"
#include "weighted_sum.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename scalar_t>
struct DotForward {
  using compute_t = compute_of<scalar_t>;
  using V = vec<compute_t>;
  using Statistics = SoftmaxStatistics<compute_t>;
  using Weights = StagedWeights<compute_t>;
  static constexpr int W = kLanes<compute_t>;

  const DotForwardArgs& args;
  int64_t heads = args.heads;
  int64_t head_width = args.head_width;
  int64_t width = heads * head_width;
  Columns<compute_t> columns{width};
  bool far = is_far(args.csr.num_cols, width * sizeof(scalar_t));
  EdgeRows<scalar_t> edge_rows{static_cast<const scalar_t*>(args.edge_x), width, &args.csr, true};

  // What one thread needs for one item.
  struct Stage {
    compute_t* alpha;  // [edges, heads]
    compute_t* bias;   // [edges, heads]
    compute_t* query;  // [heads, head_width]
    Statistics statistics;
    compute_t* scale;  // [heads]
    compute_t* sums;   // of one row, vector after vector
  };

  Stage stage_of(int thread) const {
    auto* memory =
        reinterpret_cast<compute_t*>(args.workspace.stage + thread * args.workspace.stage_bytes);
    const int64_t size = kChunkEdges * heads + W;
    compute_t* query = memory + 2 * size;
    compute_t* rest = query + width;
    return {memory, memory + size, query, {rest, rest + heads}, rest + 2 * heads, rest + 3 * heads};
  }

  // The rows of a table that edges read.
  GatheredRows<scalar_t> rows_of(const void* table, const row_t* numbers) const {
    return {static_cast<const scalar_t*>(table), width, numbers, far};
  }

  // scale * <query, key> of an item's edges.
  template <class Form, bool kEdgeX>
  GNNKERN_NOINLINE void stage_dots(const PlanItem& item, const row_t* numbers,
                                   const Stage& stage) const {
    const GatheredRows<scalar_t> keys = rows_of(args.key, numbers);
    LaneSums<compute_t, Form::kGroup> sums(stage.alpha, static_cast<compute_t>(args.scale));
    int64_t edge = item.edge_begin;
    for (int64_t row = item.row_begin; row < item.row_end; ++row) {
      const int64_t end = item.slot >= 0 ? item.edge_end : row_begin(args.csr, row + 1);
      if (edge == end) continue;
      const PlainRow<compute_t> query{
          widened(static_cast<const scalar_t*>(args.query) + row * width, width, stage.query)};
      for (; edge < end; ++edge) {
        const int64_t ahead =
            edge + kPrefetchEdges < item.edge_end ? edge + kPrefetchEdges : item.edge_end - 1;
        keys.fetch(ahead, 0, width * sizeof(scalar_t));
        if constexpr (kEdgeX) {
          edge_rows.fetch(ahead, 0, width * sizeof(scalar_t));
          const SumOfRows<scalar_t, scalar_t> key{keys.at(edge), edge_rows.at(edge)};
          push_dots<Form>(sums, query, key, heads, head_width);
        } else {
          push_dots<Form>(sums, query, PlainRow<scalar_t>{keys.at(edge)}, heads, head_width);
        }
      }
    }
    sums.finish();
  }

  GNNKERN_NOINLINE void stage_scores(const PlanItem& item, const row_t* numbers,
                                     const Stage& stage) const {
    dispatch_dots<compute_t>(heads, head_width, [&]<class Form>(const Form&) {
      args.edge_x ? stage_dots<Form, true>(item, numbers, stage)
                  : stage_dots<Form, false>(item, numbers, stage);
    });
    if (!args.edge_bias) return;
    stage_edges(args.csr, static_cast<const scalar_t*>(args.edge_bias), heads, item, stage.bias);
    const int64_t count = (item.edge_end - item.edge_begin) * heads;
    for (int64_t i = 0; i < count; i += W) {
      store(stage.alpha + i, load(stage.alpha + i) + load(stage.bias + i));
    }
  }

  // The softmax of whole rows; of a part of a row, exp(score - largest) and its statistics.
  GNNKERN_NOINLINE void stage_attention(const PlanItem& item, const row_t* numbers,
                                        const Stage& stage) const {
    stage_scores(item, numbers, stage);
    if (item.slot >= 0) {
      statistics_of(item.slot).take(stage.alpha, item.edge_end - item.edge_begin, heads);
    } else {
      int64_t begin = item.edge_begin;
      for (int64_t row = item.row_begin; row < item.row_end; ++row) {
        const int64_t end = row_begin(args.csr, row + 1);
        compute_t* scores = stage.alpha + (begin - item.edge_begin) * heads;
        stage.statistics.take_and_normalise(scores, end - begin, heads, stage.scale);
        for (int64_t head = 0; head < heads; ++head) {
          log_sum_exp(row)[head] = stage.statistics.log_sum_exp(head);
        }
        begin = end;
      }
    }
    if (args.dropout.probability > 0) {
      drop_edges(args.csr, item, heads, args.dropout, stage.alpha, stage.alpha);
    }
  }

  compute_t* log_sum_exp(int64_t row) const {
    return static_cast<compute_t*>(args.log_sum_exp) + row * heads;
  }

  // Per slot: the statistics of its softmax; behind those of all slots, its sums of values, vector
  // after vector.
  Statistics statistics_of(int64_t slot) const {
    return Statistics::at(args.workspace.partial, slot, heads);
  }
  compute_t* partial(int64_t slot) const {
    auto* sums = reinterpret_cast<compute_t*>(args.workspace.partial) +
                 args.csr.plan.header->num_slots * 2 * heads;
    return sums + slot * columns.count() * W;
  }

  void write(int64_t row, int64_t vector, V value) const {
    const int lanes = columns.lanes();
    const int64_t at = row * width + columns.start(vector);
    store_lanes(static_cast<scalar_t*>(args.out) + at, value, lanes);
    if (args.wide_out) store_lanes(static_cast<compute_t*>(args.wide_out) + at, value, lanes);
  }

  // The weighted gather of values of one row, to `sums`.
  void sum_values(const GatheredRows<scalar_t>& values, const Weights& weights, const RowPart& part,
                  compute_t* sums) const {
    if (!args.edge_x) {
      return sum_edges(values, weights, columns, part.begin, part.end, part.item_end, sums);
    }
    const WithEdgeRows<SpreadWeight<compute_t>, EdgeRows<scalar_t>> weight{weights.spread(),
                                                                           edge_rows};
    reduce_row(SumReducer<compute_t>{}, values, weight, columns, part.begin, part.end, part.begin,
               part.item_end, [&](int64_t vector, const auto& state, int) {
                 store(sums + vector * W, state.value);
               });
  }

  void visit_item(const PlanItem& item, const Stage& stage, const Weights& weights) const {
    const RowNumbers numbers(args.csr, item);
    stage_attention(item, numbers.data(), stage);
    const GatheredRows<scalar_t> values = rows_of(args.value, numbers.data());
    const Weights own = weights.from(stage.alpha, item.edge_begin);
    for_each_part_of(args.csr, item, [&](const RowPart& part) {
      compute_t* sums = part.slot < 0 ? stage.sums : partial(part.slot);
      if (part.begin < part.end) {
        sum_values(values, own, part, sums);
      } else {
        std::memset(sums, 0, columns.count() * W * sizeof(compute_t));
      }
      if (part.slot >= 0) return;
      for (int64_t vector = 0; vector < columns.count(); ++vector) {
        write(part.row, vector, load(sums + vector * W));
      }
    });
  }

  // Turns the statistics of a row's parts into what each part's sums have to be multiplied by,
  // which replaces `sum`.
  void merge_parts(int64_t row, int64_t slot_begin, int64_t slot_end) const {
    for (int64_t head = 0; head < heads; ++head) {
      compute_t top = kMinusInfinity<compute_t>;
      for (int64_t slot = slot_begin; slot < slot_end; ++slot) {
        const Statistics part = statistics_of(slot);
        if (part.sum[head] != 0) top = Larger{}(top, part.largest[head]);
      }
      compute_t total = 0;
      for (int64_t slot = slot_begin; slot < slot_end; ++slot) {
        const Statistics part = statistics_of(slot);
        part.largest[head] = part.sum[head] == 0 ? 0 : std::exp(part.largest[head] - top);
        total += part.sum[head] * part.largest[head];
      }
      for (int64_t slot = slot_begin; slot < slot_end; ++slot) {
        const Statistics part = statistics_of(slot);
        part.sum[head] = part.largest[head] * softmax_scale(total);
      }
      log_sum_exp(row)[head] = total == 0 ? kMinusInfinity<compute_t> : top + std::log(total);
    }
  }

  void fold_long_rows(const Weights& weights) const {
    for_each_long_row(args.csr, args.workspace.threads,
                      [&](int64_t row, int64_t slot_begin, int64_t slot_end) {
                        merge_parts(row, slot_begin, slot_end);
                        // The factors lie 2 * heads apart: those of every second edge, to the
                        // weight.
                        const auto weight = weights.from(statistics_of(slot_begin).sum, 0).spread();
                        for (int64_t vector = 0; vector < columns.count(); ++vector) {
                          V sum{};
                          for (int64_t slot = slot_begin; slot < slot_end; ++slot) {
                            sum += weight.template apply<compute_t>(
                                load(partial(slot) + vector * W), 2 * (slot - slot_begin), vector);
                          }
                          write(row, vector, sum);
                        }
                      });
  }

  void run() const {
    const Workspace& work = args.workspace;
    const Weights weights =
        staged_weights<compute_t>(width, heads, work.stage + work.threads * work.stage_bytes);
    parallel_tasks(args.csr.plan.header->num_items, work.threads, [&](int64_t number, int thread) {
      visit_item(args.csr.plan.items[number], stage_of(thread), weights);
    });
    fold_long_rows(weights);
  }
};

}  // namespace

void dot_forward(const DotForwardArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { DotForward<scalar_t>{args}.run(); });
}

}  // namespace gnnkern::GNNKERN_ISA
