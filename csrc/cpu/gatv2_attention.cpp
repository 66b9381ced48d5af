// GATv2: attention whose score is a dot product behind the activation, forward.
//
// Per batch of rows: the scores of its edges, which bring the rows of x_src into the first cache;
// their softmax per row; the weighted sum, which reads the rows again from there.

#include "gatv2_rows.h"
#include "philox.h"
#include "softmax.h"
#include "weighted_sum.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename scalar_t>
struct Gatv2Forward {
  using compute_t = compute_of<scalar_t>;
  using V = vec<compute_t>;
  using Statistics = SoftmaxStatistics<compute_t>;
  static constexpr int W = kLanes<compute_t>;

  const Gatv2ForwardArgs& args;
  const Csr& csr = args.in.csr;
  Gatv2Rows<scalar_t> rows{args.in};
  int64_t heads = rows.heads;
  int64_t width = rows.width;
  Columns<compute_t> columns{width};

  struct Stage {
    compute_t* alpha;       // [edges, heads]
    compute_t* statistics;  // [3, heads]
    compute_t* own;         // [width]
    compute_t* sums;        // of one row, vector after vector
  };

  Stage stage_of(int thread) const {
    auto* alpha =
        reinterpret_cast<compute_t*>(args.workspace.stage + thread * args.workspace.stage_bytes);
    compute_t* statistics = alpha + kChunkEdges * heads + W;
    compute_t* own = statistics + 3 * heads;
    return {alpha, statistics, own, own + width + W};
  }

  template <bool kEdge>
  GNNKERN_NOINLINE void stage_scores(const PlanItem& batch, int64_t item_end,
                                     const GatheredRows<scalar_t>& x_src,
                                     const Stage& stage) const {
    LaneSums<compute_t> scores(stage.alpha, rows.group());
    int64_t edge = batch.edge_begin;
    for (int64_t row = batch.row_begin; row < batch.row_end; ++row) {
      const int64_t end = batch.slot >= 0 ? batch.edge_end : row_begin(csr, row + 1);
      if (edge == end) continue;
      const WideRow<compute_t> own = rows.x_dst(row, stage.own);
      for (; edge < end; ++edge) {
        const int64_t ahead = edge + kPrefetchEdges;
        x_src.fetch(ahead < item_end ? ahead : item_end - 1, 0, width * sizeof(scalar_t));
        const scalar_t* edge_row = kEdge ? rows.edge_x + rows.edge_id(edge) * width : nullptr;
        rows.template push_dots<kEdge, false>(x_src.at(edge), own, edge_row, {}, scores, scores);
      }
    }
    scores.finish();
  }

  void write_log_sum_exp(int64_t row, const Statistics& statistics) const {
    auto* out = static_cast<compute_t*>(args.log_sum_exp) + row * heads;
    for (int64_t head = 0; head < heads; ++head) out[head] = statistics.log_sum_exp(head);
  }

  // Partial results of long rows: their statistics, then [slots, width] sums of exp * x.
  Statistics partial_statistics(int64_t slot) const {
    return Statistics::at(args.workspace.partial, slot, heads);
  }
  compute_t* partial_sum(int64_t slot) const {
    return reinterpret_cast<compute_t*>(args.workspace.partial) +
           csr.plan.header->num_slots * 2 * heads + slot * width;
  }

  GNNKERN_NOINLINE void stage_attention(const PlanItem& batch, const Stage& stage) const {
    if (batch.slot >= 0) {
      partial_statistics(batch.slot).take(stage.alpha, batch.edge_end - batch.edge_begin, heads);
    } else {
      const Statistics statistics{stage.statistics, stage.statistics + heads};
      int64_t begin = batch.edge_begin;
      for (int64_t row = batch.row_begin; row < batch.row_end; ++row) {
        const int64_t end = row_begin(csr, row + 1);
        statistics.take_and_normalise(stage.alpha + (begin - batch.edge_begin) * heads, end - begin,
                                      heads, stage.statistics + 2 * heads);
        write_log_sum_exp(row, statistics);
        begin = end;
      }
    }
    if (args.in.dropout.probability > 0) {
      drop_edges(csr, batch, heads, args.in.dropout, stage.alpha, stage.alpha);
    }
  }

  void write(int64_t row, int64_t vector, V value, int lanes) const {
    const int64_t at = row * width + columns.start(vector);
    store_lanes(static_cast<scalar_t*>(args.out) + at, value, lanes);
    if (args.wide_out) store_lanes(static_cast<compute_t*>(args.wide_out) + at, value, lanes);
  }

  void sum_rows(const PlanItem& batch, GatheredRows<scalar_t> x_src, const Stage& stage,
                const StagedWeights<compute_t>& weights) const {
    // The scores have brought them into a cache.
    x_src.far = false;
    const int lanes = columns.lanes();
    for_each_part_of(csr, batch, [&](const RowPart& part) {
      if (part.begin == part.end) {
        for (int64_t vector = 0; vector < columns.count(); ++vector) {
          write(part.row, vector, V{}, lanes);
        }
        return;
      }
      sum_edges(x_src, weights, columns, part.begin, part.end, part.end, stage.sums);
      for (int64_t vector = 0; vector < columns.count(); ++vector) {
        const V sum = load(stage.sums + vector * W);
        if (part.slot < 0) {
          write(part.row, vector, sum, lanes);
        } else {
          store_lanes(partial_sum(part.slot) + columns.start(vector), sum, lanes);
        }
      }
    });
  }

  // Every part of a long row weighs exp(its largest - the largest of all) / the sum of all.
  void fold(int64_t row, int64_t slot_begin, int64_t slot_end) const {
    compute_t* all = partial_sum(slot_begin);
    for (int64_t head = 0; head < heads; ++head) {
      compute_t top = kMinusInfinity<compute_t>;
      for (int64_t slot = slot_begin; slot < slot_end; ++slot) {
        const Statistics part = partial_statistics(slot);
        if (part.sum[head] != 0) top = Larger{}(top, part.largest[head]);
      }
      compute_t total = 0;
      for (int64_t slot = slot_begin; slot < slot_end; ++slot) {
        const Statistics part = partial_statistics(slot);
        if (part.sum[head] != 0) total += part.sum[head] * std::exp(part.largest[head] - top);
      }
      const compute_t scale = softmax_scale(total);
      for (int64_t slot = slot_begin; slot < slot_end; ++slot) {
        const Statistics part = partial_statistics(slot);
        const compute_t factor =
            part.sum[head] != 0 ? std::exp(part.largest[head] - top) * scale : 0;
        const compute_t* later = partial_sum(slot);
        for (int64_t i = head * rows.head_width; i < (head + 1) * rows.head_width; ++i) {
          all[i] = slot == slot_begin ? all[i] * factor : all[i] + later[i] * factor;
        }
      }
      static_cast<compute_t*>(args.log_sum_exp)[row * heads + head] =
          total == 0 ? kMinusInfinity<compute_t> : top + std::log(total);
    }
    convert(static_cast<scalar_t*>(args.out) + row * width, all, width);
    if (args.wide_out) convert(static_cast<compute_t*>(args.wide_out) + row * width, all, width);
  }

  void run() const {
    const Workspace& work = args.workspace;
    const auto weights =
        staged_weights<compute_t>(width, heads, work.stage + work.threads * work.stage_bytes);
    parallel_tasks(csr.plan.header->num_items, work.threads, [&](int64_t number, int thread) {
      const PlanItem& item = csr.plan.items[number];
      const Stage stage = stage_of(thread);
      const RowNumbers numbers(csr, item);
      const GatheredRows<scalar_t> x_src = rows.x_src(numbers.data());
      for_each_batch(csr, item, [&](const PlanItem& batch) {
        if (rows.edge_x) {
          stage_scores<true>(batch, item.edge_end, x_src, stage);
        } else {
          stage_scores<false>(batch, item.edge_end, x_src, stage);
        }
        stage_attention(batch, stage);
        sum_rows(batch, x_src, stage, weights.from(stage.alpha, batch.edge_begin));
      });
    });
    for_each_long_row(csr, args.workspace.threads,
                      [&](int64_t row, int64_t slot_begin, int64_t slot_end) {
                        fold(row, slot_begin, slot_end);
                      });
  }
};

}  // namespace

void gatv2_forward(const Gatv2ForwardArgs& args) {
  dispatch_float(args.in.dtype, [&]<typename scalar_t>() { Gatv2Forward<scalar_t>{args}.run(); });
}

}  // namespace gnnkern::GNNKERN_ISA
