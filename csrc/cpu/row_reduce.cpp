// out[r] = reduction over the edges e of row r of weight[e] * x[indices[e]]:
// spmm, segment_reduce and scatter_reduce are this one kernel.

#include <cstddef>

#include "reduce_rows.h"
#include "weighted_sum.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

// -- a block of columns at a time ---------------------------------------------------------------

// Rows that one task packs.
constexpr int64_t kPackedRows = 256;

template <typename scalar_t>
void pack_blocks(const RowReduceArgs& args) {
  const auto* x = static_cast<const scalar_t*>(args.x);
  auto* packed = static_cast<scalar_t*>(args.blocks.x);
  const int64_t rows = args.csr.num_cols;
  const int64_t columns = args.blocks.columns;
  const int64_t tasks = (rows + kPackedRows - 1) / kPackedRows;
  parallel_tasks(tasks, args.workspace.threads, [&](int64_t task, int) {
    const int64_t end = std::min((task + 1) * kPackedRows, rows);
    for (int64_t first = 0; first < args.width; first += columns) {
      for (int64_t row = task * kPackedRows; row < end; ++row) {
        copy_row(packed + first * rows + row * columns, x + row * args.x_stride + first,
                 columns * sizeof(scalar_t));
      }
    }
  });
}

// Head after head.
template <typename scalar_t>
void sort_weights(const RowReduceArgs& args) {
  using compute_t = compute_of<scalar_t>;
  const auto* weight = static_cast<const scalar_t*>(args.weight);
  auto* sorted = static_cast<compute_t*>(args.blocks.weight);
  const auto nothing = [](const PlanItem&, int) { return 0; };
  for_each_item(args.csr, args.workspace.threads, nothing, [&](int, const PlanItem& item) {
    for_each_caller_edge(args.csr, item, [&](int64_t edge, int64_t from) {
      for (int64_t head = 0; head < args.heads; ++head) {
        sorted[head * args.csr.num_edges + edge] = load_one(weight + from * args.heads + head);
      }
    });
  });
}

template <typename scalar_t>
void reduce_blocks(const RowReduceArgs& args) {
  using compute_t = compute_of<scalar_t>;
  pack_blocks<scalar_t>(args);
  if (args.weight) sort_weights<scalar_t>(args);
  const auto no_stage = [](const PlanItem&, int, compute_t*) {};
  const SumReducer<compute_t, true> sum;
  for (int64_t first = 0; first < args.width; first += args.blocks.columns) {
    RowReduceArgs part = args;
    part.x = static_cast<const scalar_t*>(args.blocks.x) + first * args.csr.num_cols;
    part.x_stride = part.width = args.blocks.columns;
    part.out_stride = args.width;
    part.out = static_cast<scalar_t*>(args.out) + first;
    if (args.argument) {
      part.argument = static_cast<std::byte*>(args.argument) + first * args.argument_bytes;
    }
    const auto reduce = [&](const auto& weight) {
      const auto make_weight = [&](const compute_t*, int64_t) { return weight; };
      if (args.reduce == Reduce::kSum || args.reduce == Reduce::kMean) {
        return reduce_rows<scalar_t>(part, sum, no_stage, make_weight);
      }
      const SelectReducer<compute_t, true> select(args.reduce == Reduce::kMin);
      reduce_rows<scalar_t>(part, select, no_stage, make_weight);
    };
    if (args.weight) {
      const int64_t head = first * args.heads / args.width;
      reduce(EdgeWeight<compute_t>{static_cast<const compute_t*>(args.blocks.weight) +
                                   head * args.csr.num_edges});
    } else {
      reduce(NoWeight{});
    }
  }
}

// -- whole rows ---------------------------------------------------------------------------------

template <typename scalar_t>
void reduce_typed(const RowReduceArgs& args) {
  using compute_t = compute_of<scalar_t>;
  if constexpr (kManyLoops<scalar_t>) {
    if (args.blocks.columns) return reduce_blocks<scalar_t>(args);
  }
  const auto* weight = static_cast<const scalar_t*>(args.weight);
  const auto stage = [&](const PlanItem& item, int, compute_t* staged) {
    if (weight) stage_edges(args.csr, weight, args.heads, item, staged);
  };
  const auto no_weight = [](const compute_t*, int64_t) { return NoWeight{}; };
  if (args.reduce == Reduce::kMul) {
    return reduce_rows<scalar_t>(args, MulReducer<compute_t>{}, stage, no_weight);
  }
  if (args.reduce == Reduce::kLogSumExp) {
    return reduce_rows<scalar_t>(args, LogSumExpReducer<compute_t>{}, stage, no_weight);
  }
  if (args.reduce == Reduce::kMax || args.reduce == Reduce::kMin) {
    const SelectReducer<compute_t, true> select(args.reduce == Reduce::kMin);
    if (weight) {
      // The table lies behind the stages of all threads.
      auto* table = reinterpret_cast<LaneHeads<compute_t>*>(
          args.workspace.stage + args.workspace.threads * args.workspace.stage_bytes);
      fill_lane_heads(table, args.width, args.heads);
      reduce_rows<scalar_t>(args, select, stage, make_spread_weight<compute_t>(args.heads, table));
    } else if (kManyLoops<scalar_t> && !args.argument) {
      const SelectReducer<compute_t, !kManyLoops<scalar_t>> value(args.reduce == Reduce::kMin);
      reduce_rows<scalar_t>(args, value, stage, no_weight);
    } else {
      reduce_rows<scalar_t>(args, select, stage, no_weight);
    }
    return;
  }
  weighted_sum<scalar_t>(args, StageWeights::by<compute_t>(stage));
}

}  // namespace

void row_reduce(const RowReduceArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { reduce_typed<scalar_t>(args); });
}

}  // namespace gnnkern::GNNKERN_ISA
