// Gradients of a max or min over the edges of a row: only the winners receive anything.

#include "items.h"
#include "rows.h"
#include "weights.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

// Of rows of more edges few win anything: not worth fetching ahead.
constexpr int64_t kFewEdges = 32;
// How many rows ahead results and their gradients are fetched.
constexpr int64_t kPrefetchRows = 8;

template <typename scalar_t, typename argument_t>
struct Winners {
  const SelectBackwardArgs& args;
  const Selection& selection;
  const argument_t* argument = static_cast<const argument_t*>(selection.argument);
  const scalar_t* grad = static_cast<const scalar_t*>(selection.grad);
  const scalar_t* weight = static_cast<const scalar_t*>(args.weight);
  int64_t head_width = args.heads > 0 ? args.width / args.heads : 1;

  // Calls body(row, column, winning edge) for the columns of a row that is not empty.
  template <class Body>
  void visit_row(int64_t row, int64_t column_begin, int64_t column_end, const Body& body) const {
    const int64_t first_edge = row_begin(args.csr, row);
    if (first_edge == row_begin(args.csr, row + 1)) return;
    for (int64_t column = column_begin; column < column_end; ++column) {
      body(column, first_edge + argument[row * args.width + column]);
    }
  }

  // Asks for a row from a column on: rows are far apart, and nothing foresees the next one.
  void fetch(int64_t row, int64_t column) const {
    prefetch_line(reinterpret_cast<const char*>(argument + row * args.width + column));
    prefetch_line(reinterpret_cast<const char*>(grad + row * args.grad_stride + column));
  }

  int64_t source(int64_t edge) const { return source_row(args.csr, edge); }
  // The place of (edge, column) in a tensor of [E, heads] in the caller's order.
  int64_t edge_head(int64_t edge, int64_t column) const {
    const int64_t id = caller_edge(args.csr, edge);
    const int64_t head = args.weight_columns ? args.weight_columns[column] : column / head_width;
    return id * args.heads + head;
  }
  int64_t x_column(int64_t column) const {
    return args.x_columns ? args.x_columns[column] : column;
  }
  compute_of<scalar_t> grad_at(int64_t row, int64_t column) const {
    return load_one(grad + row * args.grad_stride + column);
  }
};

// Asks for the sums that the winners of rows ahead may go to.
template <typename compute_t>
class SumsAhead {
 public:
  SumsAhead(const Csr& csr, const compute_t* sums, int64_t stride)
      : csr_(csr), sums_(sums), stride_(stride), far_(is_far(csr.num_cols, 64)) {}

  // To be called row by row, with the end of each.
  void reach(int64_t begin, int64_t end) {
    if (!far_) return;
    const int64_t to =
        end + 2 * kPrefetchEdges < csr_.num_edges ? end + 2 * kPrefetchEdges : csr_.num_edges;
    if (end - begin > kFewEdges) reached_ = to;
    for (; reached_ < to; ++reached_) {
      prefetch_line(reinterpret_cast<const char*>(sums_ + source_row(csr_, reached_) * stride_));
    }
  }

 private:
  const Csr& csr_;
  const compute_t* sums_;
  int64_t stride_;
  bool far_;
  int64_t reached_ = 0;
};

// A tile of columns of the gradient of x belongs to one thread, which adds the rows in order: no
// atomics, and the same bits for any number of threads. Where there are several tiles, the sums of
// one lie beside each other until it is done: in place they would be a row apart, in few sets of
// the caches and on all pages of the result.
template <typename scalar_t, typename argument_t>
void scatter_winners(const SelectBackwardArgs& args) {
  using compute_t = compute_of<scalar_t>;
  constexpr bool kOwnType = std::is_same_v<scalar_t, compute_t>;
  auto* grad_x = static_cast<scalar_t*>(args.grad_x);
  const auto* base = static_cast<const compute_t*>(args.base);
  const int64_t owned = args.owned_columns;
  const int64_t num_tiles = (args.width + owned - 1) / owned;
  const bool in_place = kOwnType && num_tiles == 1;

  parallel_tasks(num_tiles, args.workspace.threads, [&](int64_t tile, int thread) {
    const int64_t begin = tile * owned;
    const int64_t end = begin + owned < args.width ? begin + owned : args.width;
    auto* sums =
        reinterpret_cast<compute_t*>(args.workspace.stage + thread * args.workspace.stage_bytes);
    int64_t stride = owned;
    if constexpr (kOwnType) {
      if (in_place) {
        sums = grad_x;
        stride = args.width;
      }
    }
    for (int64_t row = 0; row < args.csr.num_cols; ++row) {
      compute_t* to = sums + row * stride;
      const int64_t bytes = (end - begin) * sizeof(compute_t);
      if (!base) {
        std::memset(to, 0, bytes);
      } else if (!in_place) {
        copy_row(to, base + row * args.width + begin, bytes);
      }
    }
    SumsAhead<compute_t> ahead(args.csr, sums, stride);
    for (int64_t row = 0; row < args.csr.num_rows; ++row) {
      ahead.reach(row_begin(args.csr, row), row_begin(args.csr, row + 1));
      for (int64_t selection = 0; selection < args.num_selections; ++selection) {
        const Winners<scalar_t, argument_t> winners{args, args.selections[selection]};
        winners.fetch(row + kPrefetchRows < args.csr.num_rows ? row + kPrefetchRows : row, begin);
        winners.visit_row(row, begin, end, [&](int64_t column, int64_t edge) {
          compute_t value = winners.grad_at(row, column);
          if (args.weight) {
            const auto weight = load_one(winners.weight + winners.edge_head(edge, column));
            value = args.op == EdgeOp::kDiv ? value / weight : value * weight;
          }
          sums[winners.source(edge) * stride + column - begin] += value;
        });
      }
    }
    if (in_place) return;
    for (int64_t row = 0; row < args.csr.num_cols; ++row) {
      convert(grad_x + row * args.width + begin, sums + row * stride, end - begin);
    }
  });
}

// Of a long row every chunk writes what its own edges have won.
bool won_elsewhere(const PlanItem& item, int64_t edge) {
  return item.slot >= 0 && (edge < item.edge_begin || edge >= item.edge_end);
}

// Segments: a row's edges are its own, and one selection makes each of their elements win once.
template <typename scalar_t, typename argument_t>
void spread_winners(const SelectBackwardArgs& args) {
  const Winners<scalar_t, argument_t> winners{args, args.selections[0]};
  auto* grad_x = static_cast<scalar_t*>(args.grad_x);
  const int64_t row_bytes = args.width * sizeof(scalar_t);
  parallel_tasks(args.csr.plan.header->num_items, args.workspace.threads, [&](int64_t number, int) {
    const PlanItem& item = args.csr.plan.items[number];
    std::memset(grad_x + item.edge_begin * args.width, 0,
                (item.edge_end - item.edge_begin) * row_bytes);
    for (int64_t row = item.row_begin; row < item.row_end; ++row) {
      winners.visit_row(row, 0, args.width, [&](int64_t column, int64_t edge) {
        if (won_elsewhere(item, edge)) return;
        store_one(grad_x + edge * args.width + column, winners.grad_at(row, column));
      });
    }
  });
}

// What a winning message passes on to the weight.
template <typename compute_t, class Weight>
compute_t weight_gradient(EdgeOp op, compute_t grad, compute_t x, const Weight& weight) {
  switch (op) {
    case EdgeOp::kAdd:
      return grad;
    case EdgeOp::kSub:
      return -grad;
    case EdgeOp::kDiv: {
      const compute_t divisor = weight();
      return -grad * x / (divisor * divisor);
    }
    default:
      return grad * x;
  }
}

// The weights of a row's edges belong to the row.
template <typename scalar_t, typename argument_t, typename grad_t>
void sum_weight_gradient(const SelectBackwardArgs& args) {
  using compute_t = compute_of<scalar_t>;
  const Winners<scalar_t, argument_t> winners{args, args.selections[0]};
  const auto* x = static_cast<const scalar_t*>(args.x);
  auto* grad_weight = static_cast<grad_t*>(args.grad_weight);
  const int64_t row_bytes = args.heads * sizeof(grad_t);
  parallel_tasks(args.csr.plan.header->num_items, args.workspace.threads, [&](int64_t number, int) {
    const PlanItem& item = args.csr.plan.items[number];
    // Right before its winners are added, so that they find it in a cache.
    if (args.csr.edge_id) {
      for_each_caller_edge(args.csr, item, [&](int64_t, int64_t edge) {
        std::memset(grad_weight + edge * args.heads, 0, row_bytes);
      });
    } else {
      std::memset(grad_weight + item.edge_begin * args.heads, 0,
                  (item.edge_end - item.edge_begin) * row_bytes);
    }
    for (int64_t row = item.row_begin; row < item.row_end; ++row) {
      winners.visit_row(row, 0, args.width, [&](int64_t column, int64_t edge) {
        if (won_elsewhere(item, edge)) return;
        const int64_t place = winners.edge_head(edge, column);
        const compute_t value = weight_gradient(
            args.op, winners.grad_at(row, column),
            load_one(x + winners.source(edge) * args.x_stride + winners.x_column(column)),
            [&] { return load_one(winners.weight + place); });
        if constexpr (std::is_same_v<grad_t, compute_t>) {
          grad_weight[place] += value;
        } else {
          store_one(grad_weight + place, value);
        }
      });
    }
  });
}

}  // namespace

void select_backward(const SelectBackwardArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    const auto run = [&]<typename argument_t>() {
      if (args.grad_x && args.own_rows) {
        spread_winners<scalar_t, argument_t>(args);
      } else if (args.grad_x) {
        scatter_winners<scalar_t, argument_t>(args);
      } else {
        if (args.wide_grad_weight) {
          sum_weight_gradient<scalar_t, argument_t, compute_of<scalar_t>>(args);
        } else {
          sum_weight_gradient<scalar_t, argument_t, scalar_t>(args);
        }
      }
    };
    if (args.argument_bytes == 1) return run.template operator()<uint8_t>();
    if (args.argument_bytes == 2) return run.template operator()<uint16_t>();
    return run.template operator()<int32_t>();
  });
}

}  // namespace gnnkern::GNNKERN_ISA
