// GATv2, backward: two passes, each with one gather.
//
// By destination: the rows of x_src are gathered. Per batch of edges their scores come back, and
// with them alpha and its gradient; then, from the first cache, the gradients of x_dst and att (and
// of edge_x). Left behind per edge is a record: what multiplied x_src, the gradient of the score,
// and the signs before the activation.
//
// By source: the rows of the output's gradient are gathered, and the records read.

#include "dots.h"
#include "gatv2_rows.h"
#include "philox.h"
#include "softmax.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

// -- signs -------------------------------------------------------------------------------------

// One bit per lane.
template <typename compute_t>
using sign_bits = std::conditional_t<(kLanes<compute_t> > 8), uint16_t, uint8_t>;

template <typename compute_t>
sign_bits<compute_t> bits_of(vec_mask<compute_t> mask) {
#if defined(__AVX512F__)
  if constexpr (sizeof(compute_t) == 4) {
    return static_cast<uint16_t>(_mm512_movepi32_mask((__m512i)mask));
  } else {
    return static_cast<uint8_t>(_mm512_movepi64_mask((__m512i)mask));
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(compute_t) == 4) {
    return static_cast<uint8_t>(_mm256_movemask_ps((__m256)mask));
  } else {
    return static_cast<uint8_t>(_mm256_movemask_pd((__m256d)mask));
  }
#else
  sign_bits<compute_t> bits = 0;
  for (int lane = 0; lane < kLanes<compute_t>; ++lane) bits |= (mask[lane] & 1) << lane;
  return bits;
#endif
}

template <typename compute_t>
vec_mask<compute_t> mask_of(sign_bits<compute_t> bits) {
  vec_mask<compute_t> lane_bit;
  for (int lane = 0; lane < kLanes<compute_t>; ++lane) lane_bit[lane] = 1 << lane;
  return (broadcast_int<compute_t>(bits) & lane_bit) != 0;
}

// -- columns -----------------------------------------------------------------------------------

// The value of a head for each lane of vector `vector` of a row.
template <typename compute_t>
struct BroadcastHeads {
  int64_t vectors_per_head;
  vec<compute_t> at(const compute_t* values, int64_t vector) const {
    return broadcast(values[vector / vectors_per_head]);
  }
};
template <typename compute_t>
struct SpreadHeads {
  const LaneHeads<compute_t>* table;  // [vectors]
  vec<compute_t> at(const compute_t* values, int64_t vector) const {
    return SpreadWeight<compute_t>{values, 0, table}.template apply<compute_t>(
        broadcast(static_cast<compute_t>(1)), 0, vector);
  }
};

// A row as vectors: a tile of them stays in registers over the edges of a run. The last vector
// overlaps the one before it, so that sums are kept by vector and not by column.
template <bool kNarrowRow, typename value_t>
vec<compute_of<value_t>> load_columns(const value_t* from, int lanes) {
  if constexpr (kNarrowRow) {
    return load_first(from, lanes);
  } else {
    return load(from);
  }
}

template <typename scalar_t, class Heads, bool kNarrow>
struct Gatv2Backward {
  using compute_t = compute_of<scalar_t>;
  using V = vec<compute_t>;
  using Signs = sign_bits<compute_t>;
  static constexpr int W = kLanes<compute_t>;

  const Gatv2BackwardArgs& args;
  Heads spread;
  const Csr& csr = args.in.csr;
  Gatv2Rows<scalar_t> rows{args.in};
  int64_t heads = rows.heads;
  int64_t width = rows.width;
  Columns<compute_t> columns{width};
  int64_t vectors = columns.count();
  int lanes = kNarrow ? static_cast<int>(width) : W;
  compute_t slope = rows.slope;

  // A record: [heads] what multiplied x_src, [heads] gradients of the score, [vectors] signs.
  int64_t signs_at = 2 * heads * static_cast<int64_t>(sizeof(compute_t));
  int64_t record_bytes = (signs_at + vectors * static_cast<int64_t>(sizeof(Signs)) +
                          static_cast<int64_t>(sizeof(compute_t)) - 1) /
                         sizeof(compute_t) * sizeof(compute_t);

  struct Stage {
    const char** records;  // [edges of an item]
    compute_t* alpha;      // [edges of a batch, heads], as are the next three
    compute_t* kept;       // alpha after dropout
    compute_t* product;    // the gradient of `kept`, then of the score
    compute_t* expected;   // <out, grad> of the destination
    compute_t* own;        // [width]
    compute_t* grad;       // [width]
    compute_t* sum;        // [vectors, W], of a row
    compute_t* att_sum;    // [vectors, W], of a batch
    compute_t* per_head;   // [3, heads]
  };

  Stage stage_of(int thread) const {
    char* memory = args.workspace.stage + thread * args.workspace.stage_bytes;
    auto* alpha = reinterpret_cast<compute_t*>(memory + kChunkEdges * sizeof(void*));
    const int64_t size = kChunkEdges * heads + W;
    const bool drops = args.in.dropout.probability > 0;
    compute_t* own = alpha + 4 * size;
    const int64_t row = width + W;
    return {reinterpret_cast<const char**>(memory),
            alpha,
            drops ? alpha + size : alpha,
            alpha + 2 * size,
            alpha + 3 * size,
            own,
            own + row,
            own + 2 * row,
            own + 3 * row,
            own + 4 * row};
  }

  WideRow<compute_t> grad_row(int64_t row, compute_t* memory) const {
    return wide_row<scalar_t>(args.grad, csr.num_rows, width, row, memory);
  }

  char* record(int64_t edge_id) const { return args.records + edge_id * record_bytes; }

  // Sums by vector: of a slot, and of an item for att.
  compute_t* partial(int64_t place) const {
    return reinterpret_cast<compute_t*>(args.workspace.partial) + place * vectors * W;
  }
  compute_t* att_partial(int64_t item) const { return partial(csr.plan.header->num_slots + item); }

  V att(int64_t vector) const {
    return load_columns<kNarrow>(rows.att + columns.start(vector), lanes);
  }

  template <class Body>
  void for_each_tile(const Body& body) const {
    int64_t vector = 0;
    if constexpr (kManyLoops<scalar_t>) {
      for (; vectors - vector >= 4; vector += 4) body.template operator()<4>(vector);
    }
    for (; vector < vectors; ++vector) body.template operator()<1>(vector);
  }

  // -- by destination --------------------------------------------------------------------------

  // Calls visit(row, begin, end) for the rows of a batch that have edges.
  template <class Visit>
  void for_each_row(const PlanItem& batch, const Visit& visit) const {
    int64_t begin = batch.edge_begin;
    for (int64_t row = batch.row_begin; row < batch.row_end; ++row) {
      const int64_t end = batch.slot >= 0 ? batch.edge_end : row_begin(csr, row + 1);
      if (begin < end) visit(row, begin, end);
      begin = end;
    }
  }

  template <bool kEdge>
  GNNKERN_NOINLINE void stage_dots(const PlanItem& batch, int64_t item_end,
                                   const GatheredRows<scalar_t>& x_src, const Stage& stage) const {
    LaneSums<compute_t> scores(stage.alpha, rows.group());
    LaneSums<compute_t> products(stage.product, rows.group());
    for_each_row(batch, [&](int64_t row, int64_t begin, int64_t end) {
      const WideRow<compute_t> own = rows.x_dst(row, stage.own);
      const WideRow<compute_t> grad = grad_row(row, stage.grad);
      for (int64_t edge = begin; edge < end; ++edge) {
        const int64_t ahead = edge + kPrefetchEdges;
        x_src.fetch(ahead < item_end ? ahead : item_end - 1, 0, width * sizeof(scalar_t));
        const scalar_t* edge_row = kEdge ? rows.edge_x + rows.edge_id(edge) * width : nullptr;
        rows.template push_dots<kEdge, true>(x_src.at(edge), own, edge_row, grad, scores, products);
      }
    });
    scores.finish();
    products.finish();
  }

  // alpha of whole rows is the softmax again; of parts of a row, exp(score - log_sum_exp).
  void stage_alpha(const PlanItem& batch, const Stage& stage) const {
    const SoftmaxStatistics<compute_t> statistics{stage.per_head, stage.per_head + heads};
    for_each_row(batch, [&](int64_t row, int64_t begin, int64_t end) {
      compute_t* alpha = stage.alpha + (begin - batch.edge_begin) * heads;
      if (batch.slot < 0) {
        statistics.take_and_normalise(alpha, end - begin, heads, stage.per_head + 2 * heads);
        return;
      }
      const auto* log_sum_exp = static_cast<const compute_t*>(args.log_sum_exp) + row * heads;
      for (int64_t head = 0; head < heads; ++head) {
        // A row without a finite score has no attention: exp(-inf) is 0.
        const bool none = log_sum_exp[head] == kMinusInfinity<compute_t>;
        stage.per_head[head] = none ? -kMinusInfinity<compute_t> : log_sum_exp[head];
      }
      change_heads(alpha, (end - begin) * heads, heads, stage.per_head,
                   [](auto score, auto all) { return score - all; });
      exp_flat(alpha, (end - begin) * heads);
    });
    if (stage.kept != stage.alpha) {
      drop_edges(csr, batch, heads, args.in.dropout, stage.alpha, stage.kept);
    }
  }

  // The gradient of the score, kept * product - alpha * expected, replaces `product`.
  GNNKERN_NOINLINE void stage_gradients(const PlanItem& batch, const Stage& stage) const {
    const int64_t count = (batch.edge_end - batch.edge_begin) * heads;
    for (int64_t i = 0; i < count; i += W) {
      store(stage.product + i, load(stage.kept + i) * load(stage.product + i));
    }
    for_each_row(batch, [&](int64_t row, int64_t begin, int64_t end) {
      const int64_t from = (begin - batch.edge_begin) * heads;
      const int64_t size = (end - begin) * heads;
      if (batch.slot < 0) {
        // The sum over the row: exactly what a single edge has, so that its gradient is exactly 0.
        fold_heads(stage.product + from, size, heads, compute_t{0}, Sum{}, stage.per_head);
      } else {
        dot_heads(static_cast<const compute_t*>(args.out) + row * width,
                  static_cast<const scalar_t*>(args.grad) + row * width, heads, rows.head_width,
                  [&](int64_t head, compute_t value) { stage.per_head[head] = value; });
      }
      change_heads(stage.expected + from, size, heads, stage.per_head,
                   [](auto, auto value) { return value; });
    });
    for (int64_t i = 0; i < count; i += W) {
      store(stage.product + i,
            load(stage.product + i) - load(stage.alpha + i) * load(stage.expected + i));
    }
  }

  void write_records(const PlanItem& batch, const Stage& stage) const {
    for_each_caller_edge(csr, batch, [&](int64_t edge, int64_t id) {
      char* to = record(id);
      const int64_t at = (edge - batch.edge_begin) * heads;
      std::memcpy(to, stage.kept + at, heads * sizeof(compute_t));
      std::memcpy(to + heads * sizeof(compute_t), stage.product + at, heads * sizeof(compute_t));
    });
  }

  // Adds the part of a run of a row's edges to the gradients of x_dst (without the factor att) and
  // of att.
  template <int kTile, bool kEdge>
  void sum_tile(const PlanItem& batch, int64_t begin, int64_t end, bool first,
                const GatheredRows<scalar_t>& x_src, const Stage& stage, const compute_t* own_row,
                int64_t vector, compute_t* row_sum) const {
    V own[kTile];
    V sum[kTile];
    V att_part[kTile];
    int64_t start[kTile];
    for (int k = 0; k < kTile; ++k) {
      start[k] = columns.start(vector + k);
      own[k] = load_columns<kNarrow>(own_row + start[k], lanes);
      sum[k] = V{};
      att_part[k] = V{};
    }
    for (int64_t edge = begin; edge < end; ++edge) {
      const scalar_t* x = x_src.at(edge);
      const compute_t* score_grad = stage.product + (edge - batch.edge_begin) * heads;
      const int64_t id = kEdge || args.records ? rows.edge_id(edge) : 0;
      Signs signs[kTile];
      for (int k = 0; k < kTile; ++k) {
        V value = load_columns<kNarrow>(x + start[k], lanes) + own[k];
        if constexpr (kEdge) {
          value += load_columns<kNarrow>(rows.edge_x + id * width + start[k], lanes);
        }
        const V grad = spread.at(score_grad, vector + k);
        const vec_mask<compute_t> positive = value > 0;
        const V scaled = positive ? grad : grad * slope;
        sum[k] += scaled;
        att_part[k] += scaled * value;
        signs[k] = bits_of<compute_t>(positive);
        if constexpr (kEdge) {
          if (args.grad_edge_x) {
            store_lanes(static_cast<scalar_t*>(args.grad_edge_x) + id * width + start[k],
                        scaled * att(vector + k), lanes);
          }
        }
      }
      if (args.records) {
        std::memcpy(record(id) + signs_at + vector * sizeof(Signs), signs, sizeof(signs));
      }
    }
    for (int k = 0; k < kTile; ++k) {
      compute_t* to = row_sum + (vector + k) * W;
      store(to, first ? sum[k] : load(to) + sum[k]);
      to = stage.att_sum + (vector + k) * W;
      store(to, begin == batch.edge_begin ? att_part[k] : load(to) + att_part[k]);
    }
  }

  // grad = att * sum, by vector.
  void write_x_dst(int64_t row, const compute_t* sum) const {
    auto* to = static_cast<scalar_t*>(args.grad_x_dst) + row * width;
    for (int64_t vector = 0; vector < vectors; ++vector) {
      store_lanes(to + columns.start(vector), load(sum + vector * W) * att(vector), lanes);
    }
  }

  template <bool kEdge>
  void visit_batch(const PlanItem& batch, int64_t item_end, const GatheredRows<scalar_t>& x_src,
                   const Stage& stage, compute_t* att_sum) const {
    if (batch.edge_begin == batch.edge_end) return;
    stage_dots<kEdge>(batch, item_end, x_src, stage);
    stage_alpha(batch, stage);
    stage_gradients(batch, stage);
    if (args.records) write_records(batch, stage);
    for_each_row(batch, [&](int64_t row, int64_t row_first, int64_t row_last) {
      const compute_t* own = rows.x_dst(row, stage.own).data;
      compute_t* sum = batch.slot >= 0 ? partial(batch.slot) : stage.sum;
      // In runs, so that rounding errors grow with the square root of a row's length.
      for (int64_t begin = row_first; begin < row_last; begin += kRunEdges) {
        const int64_t end = begin + kRunEdges < row_last ? begin + kRunEdges : row_last;
        for_each_tile([&]<int kTile>(int64_t vector) {
          sum_tile<kTile, kEdge>(batch, begin, end, begin == row_first, x_src, stage, own, vector,
                                 sum);
        });
      }
      if (batch.slot < 0) write_x_dst(row, sum);
    });
    for (int64_t i = 0; i < vectors * W; i += W) {
      store(att_sum + i, load(att_sum + i) + load(stage.att_sum + i));
    }
  }

  // Rows without edges get 0 here; the others are visited.
  void clear_empty_rows(const PlanItem& item) const {
    for (int64_t row = item.row_begin; row < item.row_end; ++row) {
      if (row_begin(csr, row) == row_begin(csr, row + 1)) {
        std::memset(static_cast<scalar_t*>(args.grad_x_dst) + row * width, 0,
                    width * sizeof(scalar_t));
      }
    }
  }

  template <bool kEdge>
  void visit_item(int64_t number, int thread) const {
    const PlanItem& item = csr.plan.items[number];
    const Stage stage = stage_of(thread);
    compute_t* att_sum = att_partial(number);
    std::memset(att_sum, 0, vectors * W * sizeof(compute_t));
    clear_empty_rows(item);
    const RowNumbers numbers(csr, item);
    const GatheredRows<scalar_t> x_src = rows.x_src(numbers.data());
    for_each_batch(csr, item, [&](const PlanItem& batch) {
      visit_batch<kEdge>(batch, item.edge_end, x_src, stage, att_sum);
    });
  }

  // Sums of sums by item, in order: in double, since there may be very many.
  void fold_att() const {
    auto* to = static_cast<compute_t*>(args.grad_att);
    for (int64_t vector = 0; vector < vectors; ++vector) {
      for (int lane = 0; lane < lanes; ++lane) {
        double sum = 0;
        for (int64_t item = 0; item < csr.plan.header->num_items; ++item) {
          sum += att_partial(item)[vector * W + lane];
        }
        to[columns.start(vector) + lane] = static_cast<compute_t>(sum);
      }
    }
  }

  void add_slots(int64_t slot_begin, int64_t slot_end) const {
    compute_t* all = partial(slot_begin);
    for (int64_t slot = slot_begin + 1; slot < slot_end; ++slot) {
      const compute_t* later = partial(slot);
      for (int64_t i = 0; i < vectors * W; i += W) store(all + i, load(all + i) + load(later + i));
    }
  }

  void by_destination() const {
    parallel_tasks(
        csr.plan.header->num_items, args.workspace.threads, [&](int64_t number, int thread) {
          rows.edge_x ? visit_item<true>(number, thread) : visit_item<false>(number, thread);
        });
    for_each_long_row(csr, args.workspace.threads,
                      [&](int64_t row, int64_t slot_begin, int64_t slot_end) {
                        add_slots(slot_begin, slot_end);
                        write_x_dst(row, partial(slot_begin));
                      });
    fold_att();
  }

  // -- by source -------------------------------------------------------------------------------

  // The gradient of x_src = sum of kept * grad + att * (sum of score gradients behind the signs).
  template <int kTile>
  void source_tile(int64_t begin, int64_t end, int64_t item_end, bool first,
                   const GatheredRows<scalar_t>& grad, const char* const* records, int64_t vector,
                   compute_t* row_sum) const {
    V sum[kTile];
    V score_sum[kTile];
    int64_t start[kTile];
    for (int k = 0; k < kTile; ++k) {
      start[k] = columns.start(vector + k);
      sum[k] = V{};
      score_sum[k] = V{};
    }
    const int64_t tile_bytes = (start[kTile - 1] - start[0] + lanes) * sizeof(scalar_t);
    for (int64_t edge = begin; edge < end; ++edge) {
      const int64_t next = edge + kPrefetchEdges;
      const int64_t ahead = next < item_end ? next : item_end - 1;
      grad.fetch(ahead, start[0], tile_bytes);
      prefetch_line(records[ahead]);
      const char* record = records[edge];
      const auto* kept = reinterpret_cast<const compute_t*>(record);
      Signs signs[kTile];
      std::memcpy(signs, record + signs_at + vector * sizeof(Signs), sizeof(signs));
      const scalar_t* from = grad.at(edge);
      for (int k = 0; k < kTile; ++k) {
        sum[k] += load_columns<kNarrow>(from + start[k], lanes) * spread.at(kept, vector + k);
        const V score_grad = spread.at(kept + heads, vector + k);
        score_sum[k] += mask_of<compute_t>(signs[k]) ? score_grad : score_grad * slope;
      }
    }
    for (int k = 0; k < kTile; ++k) {
      compute_t* to = row_sum + (vector + k) * W;
      const V all = sum[k] + score_sum[k] * att(vector + k);
      store(to, first ? all : load(to) + all);
    }
  }

  void write_x_src(int64_t row, const compute_t* sum) const {
    auto* to = static_cast<scalar_t*>(args.grad_x_src) + row * width;
    for (int64_t vector = 0; vector < vectors; ++vector) {
      store_lanes(to + columns.start(vector), load(sum + vector * W), lanes);
    }
  }

  void by_source() const {
    const Csr& reverse = args.reverse;
    const bool far = is_far(reverse.num_cols, width * sizeof(scalar_t));
    const auto visit = [&](int64_t number, int thread) {
      const PlanItem& item = reverse.plan.items[number];
      const Stage stage = stage_of(thread);
      for_each_caller_edge(reverse, item, [&](int64_t edge, int64_t id) {
        stage.records[edge - item.edge_begin] = record(id);
      });
      const char* const* records = stage.records - item.edge_begin;
      const RowNumbers numbers(reverse, item);
      const GatheredRows<scalar_t> grad{static_cast<const scalar_t*>(args.grad), width,
                                        numbers.data(), far};
      for_each_part_of(reverse, item, [&](const RowPart& part) {
        compute_t* sum = part.slot >= 0 ? partial(part.slot) : stage.sum;
        if (part.begin == part.end) std::memset(sum, 0, vectors * W * sizeof(compute_t));
        // In runs, so that rounding errors grow with the square root of a row's length.
        for (int64_t begin = part.begin; begin < part.end; begin += kRunEdges) {
          const int64_t end = begin + kRunEdges < part.end ? begin + kRunEdges : part.end;
          for_each_tile([&]<int kTile>(int64_t vector) {
            source_tile<kTile>(begin, end, part.item_end, begin == part.begin, grad, records,
                               vector, sum);
          });
        }
        if (part.slot < 0) write_x_src(part.row, sum);
      });
    };
    parallel_tasks(reverse.plan.header->num_items, args.workspace.threads, visit);
    for_each_long_row(reverse, args.workspace.threads,
                      [&](int64_t row, int64_t slot_begin, int64_t slot_end) {
                        add_slots(slot_begin, slot_end);
                        write_x_src(row, partial(slot_begin));
                      });
  }

  void run() const {
    by_destination();
    if (args.grad_x_src) by_source();
  }
};

template <typename scalar_t>
void backward_typed(const Gatv2BackwardArgs& args) {
  using compute_t = compute_of<scalar_t>;
  const int64_t width = args.in.heads * args.in.head_width;
  if (args.in.head_width % kLanes<compute_t> == 0) {
    using Heads = BroadcastHeads<compute_t>;
    const Heads heads{args.in.head_width / kLanes<compute_t>};
    return Gatv2Backward<scalar_t, Heads, false>{args, heads}.run();
  }
  auto* table = reinterpret_cast<LaneHeads<compute_t>*>(
      args.workspace.stage + args.workspace.threads * args.workspace.stage_bytes);
  fill_lane_heads(table, width, args.in.heads);
  using Heads = SpreadHeads<compute_t>;
  if (width < kLanes<compute_t>) {
    return Gatv2Backward<scalar_t, Heads, true>{args, {table}}.run();
  }
  Gatv2Backward<scalar_t, Heads, false>{args, {table}}.run();
}

}  // namespace

void gatv2_backward(const Gatv2BackwardArgs& args) {
  dispatch_float(args.in.dtype, [&]<typename scalar_t>() { backward_typed<scalar_t>(args); });
}

}  // namespace gnnkern::GNNKERN_ISA
