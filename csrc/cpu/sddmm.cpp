// One result per edge from the rows at its two ends, or from its own.

#include "dots.h"
#include "edge_dots.h"
#include "items.h"
#include "messages.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename scalar_t, class Combine>
void combine_rows(const scalar_t* lhs, const scalar_t* rhs, int64_t width, scalar_t* out,
                  const Combine& combine) {
  using compute_t = compute_of<scalar_t>;
  const Columns<compute_t> columns{width};
  if (columns.narrow()) {
    const int lanes = static_cast<int>(width);
    store_first(out, combine(load_first(lhs, lanes), load_first(rhs, lanes)), lanes);
    return;
  }
  for (int64_t vector = 0; vector < columns.count(); ++vector) {
    const int64_t column = columns.start(vector);
    store(out + column, combine(load(lhs + column), load(rhs + column)));
  }
}

template <typename scalar_t>
void edge_result(EdgeOp op, const scalar_t* lhs, const scalar_t* rhs, int64_t width, int64_t heads,
                 scalar_t* out) {
  using compute_t = compute_of<scalar_t>;
  using V = vec<compute_t>;
  switch (op) {
    case EdgeOp::kDot:
      return dot_heads(lhs, rhs, heads, width / heads,
                       [&](int64_t head, compute_t value) { store_one(out + head, value); });
    case EdgeOp::kAdd:
      return combine_rows(lhs, rhs, width, out, [](V a, V b) { return a + b; });
    case EdgeOp::kSub:
      return combine_rows(lhs, rhs, width, out, [](V a, V b) { return a - b; });
    case EdgeOp::kMul:
      return combine_rows(lhs, rhs, width, out, [](V a, V b) { return a * b; });
    case EdgeOp::kDiv:
      return combine_rows(lhs, rhs, width, out, [](V a, V b) { return a / b; });
    case EdgeOp::kCopy:
      return;
  }
}

// Any broadcasting: element j sums `run` columns that follow one another in the tables.
template <typename scalar_t>
void broadcast_result(const SddmmArgs& args, const scalar_t* lhs, const scalar_t* rhs,
                      scalar_t* out) {
  using compute_t = compute_of<scalar_t>;
  constexpr int kMost = kLanes<compute_t>;
  const auto lanes_at = [](int64_t done, int64_t all) {
    return static_cast<int>(all - done < kMost ? all - done : kMost);
  };
  const auto result = [&](int64_t column, int lanes) {
    return combine(args.op, load_columns(lhs, args.lhs_columns + column, lanes),
                   load_columns(rhs, args.rhs_columns + column, lanes));
  };
  const int64_t run = args.width / args.out_width;
  if (run == 1) {
    for (int64_t column = 0; column < args.width; column += kMost) {
      const int lanes = lanes_at(column, args.width);
      store_lanes(out + column, result(column, lanes), lanes);
    }
    return;
  }
  for (int64_t element = 0; element < args.out_width; ++element) {
    vec<compute_t> sum{};
    for (int64_t done = 0; done < run; done += kMost) {
      const int lanes = lanes_at(done, run);
      const vec<compute_t> part = result(element * run + done, lanes);
      // A quotient of lanes that hold nothing is no number.
      sum += lane_numbers<compute_t>() < lanes ? part : vec<compute_t>{};
    }
    store_one(out + element, sum_lanes<compute_t>(sum));
  }
}

// Operands at the ends of an edge: the plain case, at full speed.
template <typename scalar_t>
void combine_ends(const SddmmArgs& args) {
  const bool far = is_far(args.csr.num_cols, args.width * sizeof(scalar_t));
  const auto* lhs = static_cast<const scalar_t*>(args.lhs);
  auto* out = static_cast<scalar_t*>(args.out);
  const int64_t out_width = args.op == EdgeOp::kDot ? args.heads : args.width;
  const auto enter = [&](const PlanItem& item, int) { return RowNumbers(args.csr, item); };

  for_each_row_part(args.csr, args.threads, enter,
                    [&](const RowNumbers& numbers, const RowPart& part) {
                      const GatheredRows<scalar_t> rows{static_cast<const scalar_t*>(args.rhs),
                                                        args.width, numbers.data(), far};
                      for (int64_t edge = part.begin; edge < part.end; ++edge) {
                        const int64_t ahead = edge + kPrefetchEdges;
                        rows.fetch(ahead < part.item_end ? ahead : part.item_end - 1, 0,
                                   args.width * sizeof(scalar_t));
                        edge_result(args.op, lhs + part.row * args.width, rows.at(edge), args.width,
                                    args.heads, out + caller_edge(args.csr, edge) * out_width);
                      }
                    });
}

// Dot products of the two ends, whose lanes are summed for many edges at once.
template <typename scalar_t>
void dot_ends(const SddmmArgs& args) {
  using compute_t = compute_of<scalar_t>;
  constexpr int64_t kSums = 512;
  const Csr& csr = args.csr;
  const int64_t heads = args.heads;
  const int64_t head_width = args.width / heads;
  const bool far = is_far(csr.num_cols, args.width * sizeof(scalar_t));
  const auto* lhs = static_cast<const scalar_t*>(args.lhs);
  auto* out = static_cast<scalar_t*>(args.out);
  const auto enter = [&](const PlanItem& item, int) { return RowNumbers(csr, item); };

  dispatch_dots<compute_t>(heads, head_width, [&]<class Form>(Form) {
    for_each_item(csr, args.threads, enter, [&](const RowNumbers& numbers, const PlanItem& item) {
      const GatheredRows<scalar_t> rows{static_cast<const scalar_t*>(args.rhs), args.width,
                                        numbers.data(), far};
      // Sums are written in whole vectors.
      compute_t sums[kSums + kLanes<compute_t>];
      int64_t row = item.row_begin;
      int64_t row_end = item.slot >= 0 ? item.edge_end : row_begin(csr, row + 1);
      int64_t to;
      for (int64_t from = item.edge_begin; from < item.edge_end; from = to) {
        to = from + kSums / heads < item.edge_end ? from + kSums / heads : item.edge_end;
        LaneSums<compute_t, Form::kGroup> dots(sums, 1);
        for (int64_t edge = from; edge < to; ++edge) {
          while (edge >= row_end) row_end = row_begin(csr, ++row + 1);
          const int64_t ahead = edge + kPrefetchEdges;
          rows.fetch(ahead < item.edge_end ? ahead : item.edge_end - 1, 0,
                     args.width * sizeof(scalar_t));
          push_dots<Form>(dots, PlainRow<scalar_t>{lhs + row * args.width},
                          PlainRow<scalar_t>{rows.at(edge)}, heads, head_width);
        }
        dots.finish();
        const compute_t* sum = sums;
        if (!csr.edge_id) {
          convert(out + from * heads, sum, (to - from) * heads);
          continue;
        }
        for (int64_t edge = from; edge < to; ++edge) {
          scalar_t* own = out + caller_edge(csr, edge) * heads;
          for (int64_t head = 0; head < heads; ++head) store_one(own + head, *sum++);
        }
      }
    });
  });
}

// The most heads that `dot_ends` takes.
constexpr int64_t kMostHeads = 256;

// Copies to every edge of what lies at one of its ends.
template <typename scalar_t>
void copy_ends(const SddmmArgs& args) {
  const bool from_src = args.lhs_at == EdgeEnd::kSrc;
  const int64_t width = args.out_width;
  const auto* x = static_cast<const scalar_t*>(args.lhs);
  auto* out = static_cast<scalar_t*>(args.out);
  const bool far = from_src && is_far(args.csr.num_cols, width * sizeof(scalar_t));
  const auto enter = [&](const PlanItem& item, int) { return RowNumbers(args.csr, item); };
  for_each_row_part(args.csr, args.threads, enter,
                    [&](const RowNumbers& numbers, const RowPart& part) {
                      const GatheredRows<scalar_t> rows{x, width, numbers.data(), far};
                      const scalar_t* own = x + part.row * width;
                      for (int64_t edge = part.begin; edge < part.end; ++edge) {
                        const int64_t ahead = edge + kPrefetchEdges;
                        rows.fetch(ahead < part.item_end ? ahead : part.item_end - 1, 0,
                                   width * sizeof(scalar_t));
                        copy_row(out + caller_edge(args.csr, edge) * width,
                                 from_src ? rows.at(edge) : own, width * sizeof(scalar_t));
                      }
                    });
}

// Operands anywhere, of any widths.
template <typename scalar_t>
void combine_anywhere(const SddmmArgs& args) {
  const auto* lhs = static_cast<const scalar_t*>(args.lhs);
  const auto* rhs = static_cast<const scalar_t*>(args.rhs);
  auto* out = static_cast<scalar_t*>(args.out);
  const auto place = [&](EdgeEnd end, int64_t row, int64_t edge) {
    if (end == EdgeEnd::kDst) return row;
    return end == EdgeEnd::kSrc ? source_row(args.csr, edge) : caller_edge(args.csr, edge);
  };
  const bool far_lhs =
      args.lhs_at == EdgeEnd::kSrc && is_far(args.csr.num_cols, args.lhs_width * sizeof(scalar_t));
  const bool far_rhs =
      args.rhs_at == EdgeEnd::kSrc && is_far(args.csr.num_cols, args.rhs_width * sizeof(scalar_t));
  const bool far_edges =
      args.csr.edge_id && is_far(args.csr.num_edges, args.width * sizeof(scalar_t));
  const auto fetch = [&](const scalar_t* rows, EdgeEnd end, bool far, int64_t width, int64_t edge) {
    if (!(end == EdgeEnd::kEdge ? far_edges : far)) return;
    const char* from = reinterpret_cast<const char*>(rows + place(end, 0, edge) * width);
    for (int64_t offset = 0; offset < width * static_cast<int64_t>(sizeof(scalar_t)); offset += 64)
      prefetch_line(from + offset);
  };
  const auto nothing = [](const PlanItem&, int) { return 0; };

  for_each_row_part(args.csr, args.threads, nothing, [&](int, const RowPart& part) {
    for (int64_t edge = part.begin; edge < part.end; ++edge) {
      const int64_t ahead =
          edge + kPrefetchEdges < part.item_end ? edge + kPrefetchEdges : part.item_end - 1;
      fetch(lhs, args.lhs_at, far_lhs, args.lhs_width, ahead);
      fetch(rhs, args.rhs_at, far_rhs, args.rhs_width, ahead);
      const scalar_t* left = lhs + place(args.lhs_at, part.row, edge) * args.lhs_width;
      scalar_t* to = out + caller_edge(args.csr, edge) * args.out_width;
      const scalar_t* right = rhs + place(args.rhs_at, part.row, edge) * args.rhs_width;
      if (args.lhs_columns) {
        broadcast_result(args, left, right, to);
      } else {
        edge_result(args.op, left, right, args.width, args.heads, to);
      }
    }
  });
}

}  // namespace

void sddmm(const SddmmArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    if (args.out_width == 0 && args.op == EdgeOp::kDot && args.heads <= kMostHeads) {
      dot_ends<scalar_t>(args);
    } else if (args.out_width == 0) {
      combine_ends<scalar_t>(args);
    } else if (args.op == EdgeOp::kCopy) {
      copy_ends<scalar_t>(args);
    } else {
      combine_anywhere<scalar_t>(args);
    }
  });
}

}  // namespace gnnkern::GNNKERN_ISA
