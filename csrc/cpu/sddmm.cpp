// One result per edge from the rows at its two ends.

#include "dots.h"
#include "items.h"
#include "rows.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename scalar_t, class Combine>
void combine_rows(const scalar_t* x_dst, const scalar_t* x_src, int64_t width, scalar_t* out,
                  const Combine& combine) {
  using compute_t = compute_of<scalar_t>;
  const Columns<compute_t> columns{width};
  if (columns.narrow()) {
    const int lanes = static_cast<int>(width);
    store_first(out, combine(load_first(x_dst, lanes), load_first(x_src, lanes)), lanes);
    return;
  }
  for (int64_t vector = 0; vector < columns.count(); ++vector) {
    const int64_t column = columns.start(vector);
    store(out + column, combine(load(x_dst + column), load(x_src + column)));
  }
}

template <typename scalar_t>
void edge_result(EdgeOp op, const scalar_t* x_dst, const scalar_t* x_src, int64_t width,
                 int64_t heads, scalar_t* out) {
  using compute_t = compute_of<scalar_t>;
  using V = vec<compute_t>;
  switch (op) {
    case EdgeOp::kDot:
      return dot_heads(x_dst, x_src, heads, width / heads,
                       [&](int64_t head, compute_t value) { store_one(out + head, value); });
    case EdgeOp::kAdd:
      return combine_rows(x_dst, x_src, width, out, [](V a, V b) { return a + b; });
    case EdgeOp::kSub:
      return combine_rows(x_dst, x_src, width, out, [](V a, V b) { return a - b; });
    case EdgeOp::kMul:
      return combine_rows(x_dst, x_src, width, out, [](V a, V b) { return a * b; });
    case EdgeOp::kDiv:
      return combine_rows(x_dst, x_src, width, out, [](V a, V b) { return a / b; });
  }
}

template <typename scalar_t, typename index_t>
void sddmm_typed(const SddmmArgs& args) {
  const auto* indices = static_cast<const index_t*>(args.csr.indices);
  const auto* edge_id = static_cast<const index_t*>(args.csr.edge_id);
  const GatheredRows<scalar_t, index_t> rows{
      static_cast<const scalar_t*>(args.x_src), args.width, indices,
      is_far(args.csr.num_cols, args.width * sizeof(scalar_t))};
  const auto* x_dst = static_cast<const scalar_t*>(args.x_dst);
  auto* out = static_cast<scalar_t*>(args.out);
  const int64_t out_width = args.op == EdgeOp::kDot ? args.heads : args.width;
  const auto nothing = [](const PlanItem&, int) { return 0; };

  for_each_row_part(args.csr, args.threads, nothing, [&](int, const RowPart& part) {
    for (int64_t edge = part.begin; edge < part.end; ++edge) {
      const int64_t ahead = edge + kPrefetchEdges;
      rows.fetch(ahead < part.item_end ? ahead : part.item_end - 1, 0,
                 args.width * sizeof(scalar_t));
      const int64_t id = edge_id ? static_cast<int64_t>(edge_id[edge]) : edge;
      edge_result(args.op, x_dst + part.row * args.width, rows.at(edge), args.width, args.heads,
                  out + id * out_width);
    }
  });
}

}  // namespace

void sddmm(const SddmmArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    dispatch_index(args.csr.index_type,
                   [&]<typename index_t>() { sddmm_typed<scalar_t, index_t>(args); });
  });
}

}  // namespace gnnkern::GNNKERN_ISA
