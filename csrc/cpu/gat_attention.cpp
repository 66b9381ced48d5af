// Graph attention with a scalar score per edge and head, forward and backward.
//
// Forward, per destination row: softmax of the staged scores, then one weighted gather of x.
// Backward, per source row of the reversed graph: one gather of the output gradient gives the
// gradient of x, of alpha and so of the scores. Nothing of size edges x width exists.

#include "dots.h"
#include "head_rows.h"
#include "philox.h"
#include "softmax.h"
#include "weighted_sum.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename compute_t>
vec<compute_t> leaky_relu(vec<compute_t> value, compute_t slope) {
  return value > 0 ? value : value * slope;
}

// -- forward -----------------------------------------------------------------------------------

template <typename scalar_t>
struct GatForward {
  using compute_t = compute_of<scalar_t>;
  using Statistics = SoftmaxStatistics<compute_t>;
  static constexpr int W = kLanes<compute_t>;

  const GatForwardArgs& args;
  int64_t heads = args.heads;
  HeadRows<scalar_t> score_src{args.score_src, args.csr.num_cols, heads};
  HeadRows<scalar_t> score_dst{args.score_dst, args.csr.num_rows, heads};
  HeadRows<scalar_t> edge_score{args.edge_score, args.csr.num_edges, heads};

  // The activated scores of an item's edges.
  GNNKERN_NOINLINE void stage_scores(const PlanItem& item, compute_t* stage) const {
    const RowNumbers numbers(args.csr, item);
    const row_t* sources = numbers.data();
    const auto slope = static_cast<compute_t>(args.negative_slope);
    int64_t edge = item.edge_begin;
    for (int64_t row = item.row_begin; row < item.row_end; ++row) {
      const int64_t end = item.slot >= 0 ? item.edge_end : row_begin(args.csr, row + 1);
      if (edge == end) continue;
      for (int64_t head = 0; head < heads; head += W) {
        const vec<compute_t> own = score_dst.at(row * heads, head, heads);
        for (int64_t e = edge; e < end; ++e) {
          vec<compute_t> score =
              own + score_src.at(static_cast<int64_t>(sources[e]) * heads, head, heads);
          if (args.edge_score) {
            score += edge_score.at(caller_edge(args.csr, e) * heads, head, heads);
          }
          score = leaky_relu<compute_t>(score, slope);
          put_heads(stage + (e - item.edge_begin) * heads + head, score, head, heads);
        }
      }
      edge = end;
    }
  }

  void write_log_sum_exp(int64_t row, const Statistics& statistics) const {
    auto* out = static_cast<compute_t*>(args.log_sum_exp) + row * heads;
    for (int64_t head = 0; head < heads; ++head) out[head] = statistics.log_sum_exp(head);
  }

  char* statistics_memory(int thread) const {
    const Workspace& work = args.workspace;
    return work.stage + (thread + 1) * work.stage_bytes - 3 * heads * sizeof(compute_t);
  }

  // The softmax of rows that span several items.
  void long_row_statistics() const {
    const Csr& csr = args.csr;
    if (csr.plan.header->num_slots == 0) return;
    parallel_tasks(
        csr.plan.header->num_items, args.workspace.threads, [&](int64_t number, int thread) {
          const PlanItem& item = csr.plan.items[number];
          if (item.slot < 0) return;
          auto* stage = reinterpret_cast<compute_t*>(args.workspace.stage +
                                                     thread * args.workspace.stage_bytes);
          stage_scores(item, stage);
          Statistics::at(args.workspace.partial, item.slot, heads)
              .take(stage, item.edge_end - item.edge_begin, heads);
        });
    for_each_long_row(csr, args.workspace.threads,
                      [&](int64_t row, int64_t slot_begin, int64_t slot_end) {
                        const auto all = Statistics::at(args.workspace.partial, slot_begin, heads);
                        for (int64_t slot = slot_begin + 1; slot < slot_end; ++slot) {
                          all.merge(Statistics::at(args.workspace.partial, slot, heads), heads);
                        }
                        for (int64_t slot = slot_begin + 1; slot < slot_end; ++slot) {
                          std::memcpy(Statistics::at(args.workspace.partial, slot, heads).largest,
                                      all.largest, 2 * heads * sizeof(compute_t));
                        }
                        write_log_sum_exp(row, all);
                      });
  }

  GNNKERN_NOINLINE void stage_attention(const PlanItem& item, int thread, compute_t* alpha) const {
    stage_scores(item, alpha);
    auto* scale = reinterpret_cast<compute_t*>(statistics_memory(thread)) + 2 * heads;
    if (item.slot >= 0) {
      const auto statistics = Statistics::at(args.workspace.partial, item.slot, heads);
      statistics.finish(alpha, item.edge_end - item.edge_begin, heads, scale);
    } else {
      const auto statistics = Statistics::at(statistics_memory(thread), 0, heads);
      int64_t begin = item.edge_begin;
      for (int64_t row = item.row_begin; row < item.row_end; ++row) {
        const int64_t end = row_begin(args.csr, row + 1);
        compute_t* values = alpha + (begin - item.edge_begin) * heads;
        statistics.take_and_normalise(values, end - begin, heads, scale);
        write_log_sum_exp(row, statistics);
        begin = end;
      }
    }
    if (args.dropout.probability > 0) {
      drop_edges(args.csr, item, heads, args.dropout, alpha, alpha);
    }
  }

  void run() const {
    long_row_statistics();
    RowReduceArgs sum{};
    sum.csr = args.csr;
    sum.dtype = args.dtype;
    sum.x = args.x;
    sum.width = sum.x_stride = heads * args.head_width;
    sum.heads = heads;
    sum.reduce = Reduce::kSum;
    sum.out = args.out;
    sum.wide_out = args.wide_out;
    sum.workspace = args.workspace;
    sum.workspace.partial += args.csr.plan.header->num_slots * 2 * heads * sizeof(compute_t);
    // There are weights, which this stage makes.
    sum.weight = args.score_src;
    const auto stage = [&](const PlanItem& item, int thread, compute_t* staged) {
      stage_attention(item, thread, staged);
    };
    weighted_sum<scalar_t>(sum, StageWeights::by<compute_t>(stage));
  }
};

// -- backward ----------------------------------------------------------------------------------

// Values per edge of one item, [edges, heads] each.
template <typename compute_t>
struct EdgeStage {
  compute_t* alpha;
  // alpha after dropout: what multiplied x.
  compute_t* kept;
  // <x, grad>: the gradient of `kept`.
  compute_t* product;
  // <out, grad> of the destination.
  compute_t* expected;
  // Derivative of the leaky ReLU.
  compute_t* slope;
};

template <typename scalar_t>
struct GatBackward {
  using compute_t = compute_of<scalar_t>;
  using V = vec<compute_t>;
  static constexpr int W = kLanes<compute_t>;

  const GatBackwardArgs& args;
  int64_t heads = args.heads;
  int64_t head_width = args.head_width;
  int64_t width = heads * head_width;
  HeadRows<scalar_t> score_src{args.score_src, args.csr.num_rows, heads};
  HeadRows<compute_t> packed{args.packed_dst, args.csr.num_cols, 3 * heads};
  HeadRows<scalar_t> edge_score{args.edge_score, args.csr.num_edges, heads};
  bool far = is_far(args.csr.num_cols, width * sizeof(scalar_t));

  EdgeStage<compute_t> stage_of(int thread) const {
    auto* memory =
        reinterpret_cast<compute_t*>(args.workspace.stage + thread * args.workspace.stage_bytes);
    const int64_t size = kChunkEdges * heads + W;
    const bool drops = args.dropout.probability > 0;
    return {memory, drops ? memory + size : memory, memory + 2 * size, memory + 3 * size,
            memory + 4 * size};
  }

  // alpha = exp(score - log_sum_exp), recomputed from what the forward saved per row.
  GNNKERN_NOINLINE void stage_attention(const PlanItem& item, const row_t* numbers,
                                        const EdgeStage<compute_t>& stage) const {
    const auto slope = static_cast<compute_t>(args.negative_slope);
    int64_t edge = item.edge_begin;
    for (int64_t row = item.row_begin; row < item.row_end; ++row) {
      const int64_t end = item.slot >= 0 ? item.edge_end : row_begin(args.csr, row + 1);
      if (edge == end) continue;
      for (int64_t head = 0; head < heads; head += W) {
        const V own = score_src.at(row * heads, head, heads);
        for (int64_t e = edge; e < end; ++e) {
          const int64_t offset = static_cast<int64_t>(numbers[e]) * 3 * heads;
          V score = own + packed.at(offset, head, heads);
          if (args.edge_score) {
            score += edge_score.at(caller_edge(args.csr, e) * heads, head, heads);
          }
          const int64_t at = (e - item.edge_begin) * heads + head;
          put_heads(stage.slope + at, score > 0 ? broadcast<compute_t>(1) : broadcast(slope), head,
                    heads);
          const V log_sum_exp = packed.at(offset + heads, head, heads);
          // A row without a finite score has no attention: exp(-inf) is 0.
          const V shifted = leaky_relu<compute_t>(score, slope) - log_sum_exp;
          put_heads(stage.alpha + at,
                    log_sum_exp == kMinusInfinity<compute_t> ? broadcast(kMinusInfinity<compute_t>)
                                                             : shifted,
                    head, heads);
          put_heads(stage.expected + at, packed.at(offset + 2 * heads, head, heads), head, heads);
        }
      }
      edge = end;
    }
    const int64_t count = (item.edge_end - item.edge_begin) * heads;
    exp_flat(stage.alpha, count);
    if (stage.kept != stage.alpha) {
      drop_edges(args.csr, item, heads, args.dropout, stage.alpha, stage.kept);
    }
    std::memset(stage.product, 0, count * sizeof(compute_t));
  }

  // One gather of grad for `kTile` vectors: adds kept * grad to the row's gradient and <x, grad> to
  // the edges' products. `kGroup` vectors in sequence belong to one head.
  template <int kTile, int kGroup>
  void tile(const PlanItem& item, const RowPart& part, const GatheredRows<scalar_t>& rows,
            const EdgeStage<compute_t>& stage, int64_t vector, compute_t* grad_row) const {
    const int64_t column = vector * W;
    const scalar_t* x = static_cast<const scalar_t*>(args.x) + part.row * width + column;
    int64_t head_of[kTile / kGroup];
    for (int g = 0; g < kTile / kGroup; ++g) head_of[g] = (vector + g * kGroup) * W / head_width;
    V own[kTile];
    V sum[kTile];
    for (int k = 0; k < kTile; ++k) {
      own[k] = load(x + k * W);
      sum[k] = V{};
    }
    for (int64_t edge = part.begin; edge < part.end; ++edge) {
      const int64_t ahead = edge + kPrefetchEdges;
      rows.template fetch<kTile * W * sizeof(scalar_t)>(
          ahead < part.item_end ? ahead : part.item_end - 1, column);
      const scalar_t* grad = rows.at(edge) + column;
      const int64_t at = (edge - item.edge_begin) * heads;
      for (int g = 0; g < kTile / kGroup; ++g) {
        const compute_t kept = stage.kept[at + head_of[g]];
        V product{};
        for (int i = 0; i < kGroup; ++i) {
          const int k = g * kGroup + i;
          const V value = load(grad + k * W);
          product += value * own[k];
          sum[k] += value * kept;
        }
        stage.product[at + head_of[g]] += sum_lanes<compute_t>(product);
      }
    }
    for (int k = 0; k < kTile; ++k) store(grad_row + column + k * W, sum[k]);
  }

  template <int kTile>
  void tile_of_any_group(const PlanItem& item, const RowPart& part,
                         const GatheredRows<scalar_t>& rows, const EdgeStage<compute_t>& stage,
                         int64_t vector, compute_t* grad_row) const {
    const int64_t per_head = head_width / W;
    if constexpr (kTile >= 8) {
      if (per_head % 8 == 0) return tile<kTile, 8>(item, part, rows, stage, vector, grad_row);
    }
    if constexpr (kTile >= 4) {
      if (per_head % 4 == 0) return tile<kTile, 4>(item, part, rows, stage, vector, grad_row);
    }
    if constexpr (kTile >= 2) {
      if (per_head % 2 == 0) return tile<kTile, 2>(item, part, rows, stage, vector, grad_row);
    }
    tile<kTile, 1>(item, part, rows, stage, vector, grad_row);
  }

  // Any width per head: the row's gradient is summed in memory, which stays in the first cache.
  void heads_of_any_width(const PlanItem& item, const RowPart& part,
                          const GatheredRows<scalar_t>& rows, const EdgeStage<compute_t>& stage,
                          compute_t* grad_row) const {
    const scalar_t* x = static_cast<const scalar_t*>(args.x) + part.row * width;
    std::memset(grad_row, 0, width * sizeof(compute_t));
    for (int64_t edge = part.begin; edge < part.end; ++edge) {
      const int64_t ahead = edge + kPrefetchEdges;
      rows.fetch(ahead < part.item_end ? ahead : part.item_end - 1, 0, width * sizeof(scalar_t));
      const scalar_t* grad = rows.at(edge);
      const int64_t at = (edge - item.edge_begin) * heads;
      dot_heads(x, grad, heads, head_width,
                [&](int64_t head, compute_t value) { stage.product[at + head] = value; });
      for (int64_t head = 0; head < heads; ++head) {
        const compute_t kept = stage.kept[at + head];
        const int64_t from = head * head_width;
        int64_t column = 0;
        for (; column + W <= head_width; column += W) {
          store(grad_row + from + column,
                load(grad_row + from + column) + load(grad + from + column) * kept);
        }
        if (column < head_width) {
          const int rest = static_cast<int>(head_width - column);
          store_first(grad_row + from + column,
                      load_first(grad_row + from + column, rest) +
                          load_first(grad + from + column, rest) * kept,
                      rest);
        }
      }
    }
  }

  void sum_row(const PlanItem& item, const RowPart& part, const GatheredRows<scalar_t>& rows,
               const EdgeStage<compute_t>& stage, compute_t* grad_row) const {
    if (head_width % W != 0) return heads_of_any_width(item, part, rows, stage, grad_row);
    const int64_t count = width / W;
    int64_t vector = 0;
    const auto tiles = [&]<int kTile>() {
      for (; count - vector >= kTile; vector += kTile) {
        tile_of_any_group<kTile>(item, part, rows, stage, vector, grad_row);
      }
    };
    if constexpr (kManyLoops<scalar_t>) tiles.template operator()<8>();
    tiles.template operator()<4>();
    if constexpr (kManyLoops<scalar_t>) tiles.template operator()<2>();
    tiles.template operator()<1>();
  }

  // grad_score = (kept * product - alpha * expected) * slope, which replaces `product`, and its sum
  // over the edges of the row.
  void score_gradient(int64_t first, int64_t edges, const EdgeStage<compute_t>& stage,
                      compute_t* grad_score_src) const {
    const int64_t begin = first * heads;
    const int64_t count = edges * heads;
    for (int64_t i = begin; i < begin + count; ++i) {
      stage.product[i] =
          (stage.kept[i] * stage.product[i] - stage.alpha[i] * stage.expected[i]) * stage.slope[i];
    }
    fold_heads(stage.product + begin, count, heads, compute_t{0}, Sum{}, grad_score_src);
  }

  // Per slot: the row's gradient, then the gradient of its score.
  compute_t* partial(int64_t slot) const {
    return reinterpret_cast<compute_t*>(args.workspace.partial) + slot * (width + heads);
  }

  void write_row(int64_t row, const compute_t* grad_row, const compute_t* grad_score_src) const {
    convert(static_cast<scalar_t*>(args.grad_x) + row * width, grad_row, width);
    convert(static_cast<scalar_t*>(args.grad_score_src) + row * heads, grad_score_src, heads);
  }

  void run() const {
    const Csr& csr = args.csr;
    auto* grad_score = static_cast<compute_t*>(args.grad_score);
    parallel_tasks(
        csr.plan.header->num_items, args.workspace.threads, [&](int64_t number, int thread) {
          const PlanItem& item = csr.plan.items[number];
          const EdgeStage<compute_t> stage = stage_of(thread);
          // Behind the five stages: one row of gradients.
          compute_t* row_memory = stage.alpha + 5 * (kChunkEdges * heads + W);
          const RowNumbers numbers(csr, item);
          const GatheredRows<scalar_t> rows{static_cast<const scalar_t*>(args.grad), width,
                                            numbers.data(), far};
          stage_attention(item, numbers.data(), stage);
          int64_t begin = item.edge_begin;
          for (int64_t row = item.row_begin; row < item.row_end; ++row) {
            const int64_t end = item.slot >= 0 ? item.edge_end : row_begin(csr, row + 1);
            compute_t* grad_row = item.slot >= 0 ? partial(item.slot) : row_memory;
            sum_row(item, {row, begin, end, item.edge_end, item.slot}, rows, stage, grad_row);
            score_gradient(begin - item.edge_begin, end - begin, stage, grad_row + width);
            if (item.slot < 0) write_row(row, grad_row, grad_row + width);
            begin = end;
          }
          const compute_t* from = stage.product;
          for_each_caller_edge(csr, item, [&](int64_t, int64_t edge) {
            for (int64_t head = 0; head < heads; ++head) grad_score[edge * heads + head] = *from++;
          });
        });
    for_each_long_row(csr, args.workspace.threads,
                      [&](int64_t row, int64_t slot_begin, int64_t slot_end) {
                        compute_t* all = partial(slot_begin);
                        for (int64_t slot = slot_begin + 1; slot < slot_end; ++slot) {
                          const compute_t* later = partial(slot);
                          for (int64_t i = 0; i < width + heads; ++i) all[i] += later[i];
                        }
                        write_row(row, all, all + width);
                      });
  }
};

// One row of [score, log-sum-exp, <out, grad>] per destination, so that the backward finds all it
// needs of a destination in one place.
template <typename scalar_t>
void pack_rows(const GatPackArgs& args) {
  using compute_t = compute_of<scalar_t>;
  constexpr int64_t kRowsPerTask = 512;
  const int64_t width = args.heads * args.head_width;
  const auto* score = static_cast<const scalar_t*>(args.score_dst);
  const auto* log_sum_exp = static_cast<const compute_t*>(args.log_sum_exp);
  const auto* out = static_cast<const compute_t*>(args.out);
  const auto* grad = static_cast<const scalar_t*>(args.grad);
  const int64_t tasks = (args.num_dst + kRowsPerTask - 1) / kRowsPerTask;
  parallel_tasks(tasks, args.threads, [&](int64_t task, int) {
    const int64_t last = (task + 1) * kRowsPerTask;
    for (int64_t row = task * kRowsPerTask; row < (last < args.num_dst ? last : args.num_dst);
         ++row) {
      auto* packed = static_cast<compute_t*>(args.packed_dst) + row * 3 * args.heads;
      convert(packed, score + row * args.heads, args.heads);
      convert(packed + args.heads, log_sum_exp + row * args.heads, args.heads);
      dot_heads(out + row * width, grad + row * width, args.heads, args.head_width,
                [&](int64_t head, compute_t value) { packed[2 * args.heads + head] = value; });
    }
  });
}

}  // namespace

void gat_forward(const GatForwardArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { GatForward<scalar_t>{args}.run(); });
}

void gat_backward(const GatBackwardArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { GatBackward<scalar_t>{args}.run(); });
}

void gat_pack(const GatPackArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { pack_rows<scalar_t>(args); });
}

}  // namespace gnnkern::GNNKERN_ISA
