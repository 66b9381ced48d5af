// Gradients of a max or min over the edges of a row: only the winners receive anything.

#include "items.h"
#include "weights.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

// Columns of x that one thread owns: a cache line of float32, so that the rows it scatters to stay
// in cache (16 columns of 170 thousand rows are 11 MB) and no two threads write one line.
constexpr int64_t kOwnedColumns = 16;

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

// A column tile of the gradient of x belongs to one thread, which adds the rows in order: no
// atomics, and the same bits for any number of threads.
template <typename scalar_t, typename argument_t>
void scatter_winners(const SelectBackwardArgs& args) {
  using compute_t = compute_of<scalar_t>;
  constexpr bool kInPlace = std::is_same_v<scalar_t, compute_t>;
  auto* grad_x = static_cast<scalar_t*>(args.grad_x);
  const int64_t num_tiles = (args.width + kOwnedColumns - 1) / kOwnedColumns;

  parallel_tasks(num_tiles, args.workspace.threads, [&](int64_t tile, int thread) {
    const int64_t begin = tile * kOwnedColumns;
    const int64_t end = begin + kOwnedColumns < args.width ? begin + kOwnedColumns : args.width;
    // Sums [num_cols, end - begin] of compute precision: in place, or beside and rounded once.
    compute_t* sums;
    int64_t stride;
    if constexpr (kInPlace) {
      sums = grad_x + begin;
      stride = args.width;
    } else {
      sums =
          reinterpret_cast<compute_t*>(args.workspace.stage + thread * args.workspace.stage_bytes);
      stride = kOwnedColumns;
    }
    const auto* base = static_cast<const compute_t*>(args.base);
    for (int64_t row = 0; row < args.csr.num_cols; ++row) {
      compute_t* to = sums + row * stride;
      const int64_t bytes = (end - begin) * sizeof(compute_t);
      if (!base) {
        std::memset(to, 0, bytes);
      } else if (!kInPlace) {
        std::memcpy(to, base + row * args.width + begin, bytes);
      }
    }
    for (int64_t row = 0; row < args.csr.num_rows; ++row) {
      for (int64_t selection = 0; selection < args.num_selections; ++selection) {
        const Winners<scalar_t, argument_t> winners{args, args.selections[selection]};
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
    if constexpr (!kInPlace) {
      for (int64_t row = 0; row < args.csr.num_cols; ++row) {
        convert(grad_x + row * args.width + begin, sums + row * stride, end - begin);
      }
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
  // Chunks of one long row share edges of no other row: the row's first chunk does all of them.
  parallel_tasks(args.csr.plan.header->num_items, args.workspace.threads, [&](int64_t item, int) {
    const PlanItem& rows = args.csr.plan.items[item];
    for_each_caller_edge(args.csr, rows, [&](int64_t, int64_t edge) {
      std::memset(grad_weight + edge * args.heads, 0, args.heads * sizeof(grad_t));
    });
  });
  parallel_tasks(args.csr.plan.header->num_items, args.workspace.threads, [&](int64_t item, int) {
    const PlanItem& rows = args.csr.plan.items[item];
    if (rows.slot >= 0 && rows.edge_begin != row_begin(args.csr, rows.row_begin)) return;
    for (int64_t row = rows.row_begin; row < rows.row_end; ++row) {
      winners.visit_row(row, 0, args.width, [&](int64_t column, int64_t edge) {
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
      if (args.grad_x) {
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
