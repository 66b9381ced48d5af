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
#include "weights.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename scalar_t, typename index_t>
struct DotForward {
  using compute_t = compute_of<scalar_t>;
  using V = vec<compute_t>;
  using Statistics = SoftmaxStatistics<compute_t>;
  static constexpr int W = kLanes<compute_t>;

  const DotForwardArgs& args;
  int64_t heads = args.heads;
  int64_t head_width = args.head_width;
  int64_t width = heads * head_width;
  Columns<compute_t> columns{width};
  const index_t* indices = static_cast<const index_t*>(args.csr.indices);
  bool far = is_far(args.csr.num_cols, width * sizeof(scalar_t));
  GatheredRows<scalar_t, index_t> keys{static_cast<const scalar_t*>(args.key), width, indices, far};
  GatheredRows<scalar_t, index_t> values{static_cast<const scalar_t*>(args.value), width, indices,
                                         far};
  EdgeRows<scalar_t, index_t> edge_rows{static_cast<const scalar_t*>(args.edge_x), width,
                                        static_cast<const index_t*>(args.csr.edge_id)};

  // What one thread needs for one item.
  struct Stage {
    compute_t* alpha;  // [edges, heads]
    compute_t* bias;   // [edges, heads]
    compute_t* query;  // [heads, head_width]
    Statistics statistics;
    compute_t* scale;  // [heads]
  };

  Stage stage_of(int thread) const {
    auto* memory =
        reinterpret_cast<compute_t*>(args.workspace.stage + thread * args.workspace.stage_bytes);
    const int64_t size = kChunkEdges * heads + W;
    compute_t* query = memory + 2 * size;
    compute_t* rest = query + width;
    return {memory, memory + size, query, {rest, rest + heads}, rest + 2 * heads};
  }

  // scale * <query, key> of an item's edges.
  template <class Form, bool kEdgeX>
  void stage_dots(const PlanItem& item, const Stage& stage) const {
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
          edge_rows.fetch(ahead);
          const SumOfRows<scalar_t, scalar_t> key{keys.at(edge), edge_rows.at(edge)};
          push_dots<Form>(sums, query, key, heads, head_width);
        } else {
          push_dots<Form>(sums, query, PlainRow<scalar_t>{keys.at(edge)}, heads, head_width);
        }
      }
    }
    sums.finish();
  }

  void stage_scores(const PlanItem& item, const Stage& stage) const {
    dispatch_dots<compute_t>(heads, head_width, [&]<class Form>(const Form&) {
      args.edge_x ? stage_dots<Form, true>(item, stage) : stage_dots<Form, false>(item, stage);
    });
    if (!args.edge_bias) return;
    stage_edges(args.csr, static_cast<const scalar_t*>(args.edge_bias), heads, item, stage.bias);
    const int64_t count = (item.edge_end - item.edge_begin) * heads;
    for (int64_t i = 0; i < count; i += W) {
      store(stage.alpha + i, load(stage.alpha + i) + load(stage.bias + i));
    }
  }

  // The softmax of whole rows; of a part of a row, exp(score - largest) and its statistics.
  void stage_attention(const PlanItem& item, const Stage& stage) const {
    stage_scores(item, stage);
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

  // The weighted gather of values.
  template <class MakeWeight>
  void sum_values(const MakeWeight& make_weight) const {
    using Weight = decltype(make_weight(static_cast<const compute_t*>(nullptr), 0));
    const auto enter = [&](const PlanItem& item, int thread) {
      const Stage stage = stage_of(thread);
      stage_attention(item, stage);
      const compute_t* alpha = stage.alpha;
      return Weight(make_weight(alpha, item.edge_begin));
    };
    for_each_row_part(
        args.csr, args.workspace.threads, enter, [&](const Weight& weight, const RowPart& part) {
          if (part.begin == part.end) {
            for (int64_t vector = 0; vector < columns.count(); ++vector) {
              write(part.row, vector, V{});
            }
            return;
          }
          reduce_row(SumReducer<compute_t>{}, values, weight, columns, part.begin, part.end,
                     part.begin, part.item_end, [&](int64_t vector, const auto& state, int) {
                       if (part.slot < 0) {
                         write(part.row, vector, state.value);
                       } else {
                         store(partial(part.slot) + vector * W, state.value);
                       }
                     });
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

  template <class MakeWeight>
  void fold_long_rows(const MakeWeight& make_weight) const {
    for_each_long_row(args.csr, args.workspace.threads,
                      [&](int64_t row, int64_t slot_begin, int64_t slot_end) {
                        merge_parts(row, slot_begin, slot_end);
                        // The factors lie 2 * heads apart: those of every second edge, to the
                        // weight.
                        const compute_t* factors = statistics_of(slot_begin).sum;
                        const auto weight = make_weight(factors, 0);
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
    auto* table = reinterpret_cast<LaneHeads<compute_t>*>(
        args.workspace.stage + args.workspace.threads * args.workspace.stage_bytes);
    const WeightForm form = weight_form<compute_t>(args.query, width, heads);
    if (form == WeightForm::kSpread) fill_lane_heads(table, width, heads);
    dispatch_weight<compute_t>(form, width, heads, table, [&](const auto& make_weight) {
      if (args.edge_x) {
        sum_values([&](const compute_t* alpha, int64_t first_edge) {
          const auto weight = make_weight(alpha, first_edge);
          return WithEdgeRows<decltype(make_weight(alpha, first_edge)), decltype(edge_rows)>{
              weight, edge_rows};
        });
      } else {
        sum_values(make_weight);
      }
      fold_long_rows(make_weight);
    });
  }
};

}  // namespace

void dot_forward(const DotForwardArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    dispatch_index(args.csr.index_type,
                   [&]<typename index_t>() { DotForward<scalar_t, index_t>{args}.run(); });
  });
}

}  // namespace gnnkern::GNNKERN_ISA
