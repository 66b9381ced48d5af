// out[r] = reduction over the edges e of row r of x[indices[e]] op edge_row[e]: what spmm does
// where an edge has more than a weight.

#include "messages.h"
#include "reduce_rows.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

// Calls body(reducer) with the reducer of the call.
template <typename compute_t, class Body>
void dispatch_reducer(Reduce reduce, const Body& body) {
  if (reduce == Reduce::kMax || reduce == Reduce::kMin) {
    return body(SelectReducer<compute_t, true>(reduce == Reduce::kMin));
  }
  return body(SumReducer<compute_t>{});
}

// A value per edge, or per edge and head.
template <typename scalar_t>
void reduce_heads(const RowReduceArgs& args) {
  using compute_t = compute_of<scalar_t>;
  const auto* values = static_cast<const scalar_t*>(args.weight);
  // The table lies behind the stages of all threads.
  auto* table = reinterpret_cast<LaneHeads<compute_t>*>(
      args.workspace.stage + args.workspace.threads * args.workspace.stage_bytes);
  fill_lane_heads(table, args.width, args.heads);
  const auto spread = make_spread_weight<compute_t>(args.heads, table);
  const auto stage = [&](const PlanItem& item, int, compute_t* staged) {
    stage_edges(args.csr, values, args.heads, item, staged);
  };
  const auto make_message = [&](const compute_t* staged, int64_t first_edge) {
    return HeadMessage<compute_t>{args.op, spread(staged, first_edge)};
  };
  dispatch_reducer<compute_t>(args.reduce, [&](const auto& reducer) {
    reduce_rows<scalar_t>(args, reducer, stage, make_message);
  });
}

// A row per edge, of which make_rows(nodes, edges) forms messages.
template <typename scalar_t, class MakeRows>
void reduce_edge_rows(const RowReduceArgs& args, int64_t x_width, const MakeRows& make_rows) {
  using compute_t = compute_of<scalar_t>;
  const bool far = is_far(args.csr.num_cols, x_width * sizeof(scalar_t));
  const EdgeRows<scalar_t> edges{
      static_cast<const scalar_t*>(args.weight), args.heads, &args.csr,
      args.csr.edge_id && is_far(args.csr.num_edges, args.heads * sizeof(scalar_t))};
  const auto rows = [&](const row_t* numbers) {
    const auto* x = static_cast<const scalar_t*>(args.x);
    return make_rows(GatheredRows<scalar_t>{x, args.x_stride, numbers, far}, edges);
  };
  const Columns<compute_t> columns{args.width};
  const auto no_stage = [](const PlanItem&, int, compute_t*) {};
  const auto no_weight = [](const compute_t*, int64_t) { return NoWeight{}; };
  dispatch_reducer<compute_t>(args.reduce, [&]<class Reducer>(const Reducer& reducer) {
    const RowWriter<scalar_t, Reducer> writer{args, reducer, columns};
    reduce_rows_of(args.csr, args.workspace, columns, reducer, writer, rows, no_stage, no_weight);
  });
}

template <typename scalar_t>
void reduce_messages(const RowReduceArgs& args) {
  if (args.weight_columns) {
    // A row of x is no wider than its distance to the next.
    const int64_t x_width = args.x_stride < args.width ? args.x_stride : args.width;
    reduce_edge_rows<scalar_t>(args, x_width, [&](const auto& nodes, const auto& edges) {
      return TableMessages<scalar_t>{nodes,   edges,          args.op,
                                     x_width, args.x_columns, args.weight_columns};
    });
  } else if (args.heads == args.width) {
    reduce_edge_rows<scalar_t>(args, args.width, [&](const auto& nodes, const auto& edges) {
      return RowMessages<scalar_t>{nodes, edges, args.op};
    });
  } else {
    reduce_heads<scalar_t>(args);
  }
}

}  // namespace

void message_reduce(const RowReduceArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { reduce_messages<scalar_t>(args); });
}

}  // namespace gnnkern::GNNKERN_ISA
